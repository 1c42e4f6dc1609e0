"""Pairs of plain texts for audits against the planted server: lengths, bold words and a marked quality that is gold too."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from judgeloop import seeds

MARKER = "[q="
_WORDS = "the river past old stone houses where people sell bread and fruit while children play near water".split()  # noqa: SIM905


def text(stream: np.random.Generator, words: int, bold: float, quality: float | None) -> str:
    """Sentences in paragraphs of three; ``bold`` is the share of sentences whose first word is bold."""
    sentences: list[str] = []
    while sum(len(sentence.split()) for sentence in sentences) < words:
        sentence_words = [str(word) for word in stream.choice(_WORDS, int(stream.integers(6, 14)))]
        sentence_words[0] = f"**{sentence_words[0]}**" if stream.random() < bold else sentence_words[0].capitalize()
        sentences.append(" ".join(sentence_words) + ".")
    paragraphs = [" ".join(sentences[place : place + 3]) for place in range(0, len(sentences), 3)]
    return "\n\n".join(paragraphs) + ("" if quality is None else f" {MARKER}{quality:.2f}]")


def pairs(count: int, *, gold: bool = True, models: tuple[str, str] = ("m", "other")) -> list[dict[str, Any]]:
    """Rows of a pairs file, one pair an item; gold is the exact margin of the marked qualities."""
    stream, rows = seeds.rng(0, "pairs of an audit"), []
    for number in range(count):
        quality = [round(float(value), 2) for value in stream.normal(size=2)]
        lengths = [int(2 ** float(value)) for value in stream.normal(5.5, 0.7, size=2)]
        texts = [text(stream, n, float(stream.choice([0.0, 0.3])), q) for n, q in zip(lengths, quality, strict=True)]
        first, second = models if number % 2 else models[::-1]
        rows.append({
            "item_id": f"i{number:03d}", "prompt": f"Describe morning number {number}.", "text_a": texts[0],
            "text_b": texts[1], "model_a": first, "model_b": second, "category": "even" if number % 2 else "odd",
            **({"gold": round(quality[0] - quality[1], 2)} if gold else {}),
        })  # fmt: skip
    return rows


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """The rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
