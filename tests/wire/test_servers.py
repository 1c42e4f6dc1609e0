"""Servers of a kind: told by what they say of themselves, and played from a faults file."""

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
from judgeloop.wire.inquiry import listed_context, recognise


@pytest.mark.parametrize(
    ("entries", "headers", "fingerprint", "name"),
    [
        ([{"id": "m", "owned_by": "vllm"}], {}, "", "vLLM"),
        ([{"id": "m", "owned_by": "library"}], {}, "fp_ollama", "Ollama"),
        ([], {}, "fp_ollama", "Ollama"),
        ([{"id": "m", "owned_by": "llamacpp"}], {}, "b6500-abc", "llama.cpp"),
        ([], {"server": "llama.cpp"}, "", "llama.cpp"),
        ([], {}, "b6500-abc", "llama.cpp"),
        ([], {}, "blue", "unknown"),
        ([{"id": "m", "owned_by": "system"}], {"openai-version": "2020-10-01"}, "fp_1", "OpenAI"),
        ([{"id": "m", "owned_by": "me"}], {"server": "nginx"}, "", "unknown"),
    ],
)
def test_servers_are_told_by_what_they_say(
    entries: list[dict[str, Any]], headers: dict[str, str], fingerprint: str, name: str
) -> None:
    server, told_by = recognise(entries, headers, fingerprint)
    assert server.name == name
    assert bool(told_by) == (name != "unknown")


def test_the_context_in_force_goes_before_the_trained_one() -> None:
    assert listed_context({"max_model_len": 4096}) == (4096, "max_model_len")
    assert listed_context({"meta": {"n_ctx_train": 8192, "n_ctx": 2048}}) == (2048, "n_ctx")
    assert listed_context({"meta": {"n_ctx_train": 8192}}) == (8192, "n_ctx_train")
    assert listed_context({"id": "m", "max_model_len": True}) == (None, "")


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
    made: Any = asyncio.run(shaped.answer(body, None)).body
    assert made["choices"][0]["message"]["content"] == ""
    assert made["choices"][0]["finish_reason"] == "length"
    assert made["usage"]["completion_tokens_details"] == {"reasoning_tokens": 16}
