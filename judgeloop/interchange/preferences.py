"""Preferences in the formats that trainers read: TRL's DPO and KTO, OpenAI's preference fine-tuning. All conversational.

A label rule's rows (a presentation each, weights in both directions where verdicts are soft) become one net preference a
pair of texts: the text with more weight is chosen, and a pair without a net preference is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from judgeloop.records import TrainingPair

Line = dict[str, Any]
_NEGLIGIBLE = 1e-9
_GROUP = ["replicate", "arm", "generation", "item_id"]


@dataclass(frozen=True, slots=True)
class Preference:
    """One pair of texts that answer a prompt. ``margin``: the chosen text's share of the weight less the other's, (0, 1].
    ``candidate_id``: the chosen text's."""

    group: tuple[str, ...]
    prompt: str
    chosen: str
    rejected: str
    margin: float
    candidate_id: str


def net_preferences(rows: pd.DataFrame, text_of: Callable[[Mapping[str, Any], str], str], prompts: Mapping[str, str]) -> list[Preference]:  # fmt: skip
    """One preference a pair of candidates, in the rows' order.

    rows: PREFERENCE_COLUMNS. text_of: (row, candidate_id) → text. prompts: item_id → prompt. Pairs whose weights cancel
    and pairs of equal texts are left out.
    """
    weights: dict[tuple[Any, ...], list[float]] = {}
    places: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows.to_dict("records"):
        low, high = sorted((str(row["chosen"]), str(row["rejected"])))
        key = (*(str(row[name]) for name in _GROUP), low, high)
        places.setdefault(key, {str(name): value for name, value in row.items()})
        weights.setdefault(key, [0.0, 0.0])[str(row["chosen"]) == high] += float(row["weight"])
    preferences = []
    for key, (for_low, for_high) in weights.items():
        total = for_low + for_high
        if abs(for_low - for_high) <= _NEGLIGIBLE * total:
            continue
        place = places[key]
        better, worse = key[-2:] if for_low > for_high else key[-2:][::-1]
        chosen, rejected = text_of(place, better), text_of(place, worse)
        if chosen != rejected:
            prompt = prompts.get(str(place["item_id"]), "")
            preferences.append(Preference(key[:-2], prompt, chosen, rejected, abs(for_low - for_high) / total, better))
    return preferences


def trl_dpo(preferences: Iterable[Preference]) -> list[Line]:
    """TRL's preference type with an explicit prompt: ``prompt, chosen, rejected`` as lists of messages."""
    return [
        {
            "prompt": _user(preference.prompt),
            "chosen": _assistant(preference.chosen),
            "rejected": _assistant(preference.rejected),
        }
        for preference in preferences
    ]


def training_lines(pairs: Iterable[TrainingPair]) -> list[Line]:
    """TRL's preference type as a training command reads it, with ``weight``: texts, or messages where the prompt has turns."""
    return [
        {
            "prompt": pair.prompt if isinstance(pair.prompt, str) else [{"role": turn.role, "content": turn.content} for turn in pair.prompt],
            "chosen": pair.chosen if isinstance(pair.prompt, str) else _assistant(pair.chosen),
            "rejected": pair.rejected if isinstance(pair.prompt, str) else _assistant(pair.rejected),
            "weight": pair.weight,
        }
        for pair in pairs
    ]  # fmt: skip


def trl_kto(preferences: Iterable[Preference]) -> list[Line]:
    """TRL's unpaired type: ``prompt, completion, label``, a line a text. The label is whether the text won more of its
    comparisons (by margin) than it lost; a text that did neither is left out."""
    balance: dict[tuple[tuple[str, ...], str, str], float] = {}
    for preference in preferences:
        for text, sign in ((preference.chosen, 1.0), (preference.rejected, -1.0)):
            key = (preference.group, preference.prompt, text)
            balance[key] = balance.get(key, 0.0) + sign * preference.margin
    return [
        {"prompt": _user(prompt), "completion": _assistant(text), "label": won > 0}
        for (_, prompt, text), won in balance.items()
        if abs(won) > _NEGLIGIBLE
    ]


def openai_preference(preferences: Iterable[Preference]) -> list[Line]:
    """OpenAI's preference fine-tuning: ``input.messages``, ``preferred_output``, ``non_preferred_output``."""
    return [
        {
            "input": {"messages": _user(preference.prompt), "tools": [], "parallel_tool_calls": True},
            "preferred_output": _assistant(preference.chosen),
            "non_preferred_output": _assistant(preference.rejected),
        }
        for preference in preferences
    ]


def json_lines(lines: Iterable[Line]) -> bytes:
    """JSON Lines; ASCII only, so that a lone surrogate in a text survives as \\udXXX."""
    return "".join(json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n" for line in lines).encode()


def _user(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
