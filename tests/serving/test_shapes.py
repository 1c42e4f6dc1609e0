"""Kinds of servers played from a faults file."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from judgeloop.errors import ExperimentError
from judgeloop.serving.faults import Shape, ShapedAnswerer, load_faults
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.server import LocalServer, create_app


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


def answered(body: dict[str, Any], **shape: Any) -> Any:
    shaped = ShapedAnswerer(PlantedAnswerer(PlantedSpec()), Shape.model_validate(shape))
    whole = {"model": "planted", "messages": [{"role": "user", "content": "hi"}], **body}
    return asyncio.run(shaped.answer(whole, None))


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("mistral", {"seed": 3}, 422, "Extra inputs are not permitted: seed"),
        ("mistral", {"max_completion_tokens": 3}, 422, "max_completion_tokens"),
        ("litellm", {"logprobs": True}, 400, "set drop_params"),
        ("gemini", {"seed": 3}, 400, 'Unknown name "seed"'),
        ("gemini", {"logprobs": True}, 400, "not enabled"),
        ("anthropic", {"n": 2}, 400, "one completion choice"),
    ],
)
def test_a_kind_refuses_what_it_does_not_know(kind: str, body: dict[str, Any], status: int, words: str) -> None:
    answer = answered(body, kind=kind)
    text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    refused = json.loads(text)
    assert answer.status == status
    assert words in (refused[0] if kind == "gemini" else refused)["error"]["message"]


def test_a_missing_header_is_a_401_in_the_kinds_own_form() -> None:
    answer = answered({}, kind="gemini", needs_header="X-Key")
    assert answer.status == 401
    assert "X-Key" in json.loads(answer.body)[0]["error"]["message"]


def test_reasoning_stands_in_its_tag_before_the_text() -> None:
    text = answered({}, kind="bedrock").body["choices"][0]["message"]["content"]
    assert re.fullmatch(r"<reasoning>(thought ?){40}</reasoning>.+", text, re.DOTALL)


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        Shape(blocks="(")


def test_a_kind_states_its_version_beside_the_api_and_a_plain_one_does_not() -> None:
    for kind, status in (("vllm", 200), ("plain", 404)):
        shaped = ShapedAnswerer(PlantedAnswerer(PlantedSpec()), Shape.model_validate({"kind": kind}))
        with LocalServer(create_app(shaped)) as server:
            root = server.base_url.removesuffix("/v1").removeprefix("http://")
            line = http.client.HTTPConnection(root, timeout=10)
            line.request("GET", "/version")
            answer = line.getresponse()
            assert (answer.status, b"0.11.0" in answer.read()) == (status, status == 200)
            line.close()
