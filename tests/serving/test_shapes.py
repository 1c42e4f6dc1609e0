"""Kinds of servers played from a faults file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from judgeloop.errors import ExperimentError
from judgeloop.serving.faults import Shape, ShapedAnswerer, load_faults
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec


def test_a_shape_is_served_from_a_faults_file(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("server: {kind: ollama, context: 512}\n", encoding="utf-8")
    shape = load_faults(tmp_path / "f.yaml").server
    assert shape is not None
    assert (shape.logprobs, shape.context, shape.overflow) == ("ignored", 512, "cut")


def test_a_wrong_shape_names_its_key(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("server: {kind: ollama, contexts: 512}\n", encoding="utf-8")
    with pytest.raises(ExperimentError, match=r"server.contexts"):
        load_faults(tmp_path / "f.yaml")


def test_slots_make_calls_wait() -> None:
    shaped = ShapedAnswerer(PlantedAnswerer(PlantedSpec()), Shape(slots=1, seconds=0.03))
    body = {"model": "planted", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}

    async def four() -> None:
        await asyncio.gather(*(shaped.answer(dict(body), None) for _ in range(4)))

    began = time.monotonic()
    asyncio.run(four())
    assert time.monotonic() - began >= 0.12


def test_what_a_shape_does_not_limit_is_the_inner_answer() -> None:
    inner, body = PlantedAnswerer(PlantedSpec()), {"model": "planted", "messages": [{"role": "user", "content": "hi"}]}
    plain = asyncio.run(inner.answer(dict(body), "a"))
    shaped = asyncio.run(ShapedAnswerer(inner, Shape()).answer(dict(body), "a"))
    assert shaped.body == plain.body


def test_thinking_that_uses_up_the_tokens_leaves_no_answer() -> None:
    shaped = ShapedAnswerer(PlantedAnswerer(PlantedSpec()), Shape(thinks=40))
    body = {"model": "planted", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
    completion: Any = asyncio.run(shaped.answer(body, None)).body
    assert completion["choices"][0]["message"]["content"] == ""
    assert completion["choices"][0]["finish_reason"] == "length"
    assert completion["usage"]["completion_tokens_details"] == {"reasoning_tokens": 16}
