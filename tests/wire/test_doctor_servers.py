"""Kinds of servers, recognised by their lists of models, headers and fingerprints."""

from __future__ import annotations

from typing import Any

import pytest

from judgeloop.wire.doctor_connection import listed_context, recognise


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
def test_a_server_is_recognised_by_its_list_headers_and_fingerprint(
    entries: list[dict[str, Any]], headers: dict[str, str], fingerprint: str, name: str
) -> None:
    server, recognised_by = recognise(entries, headers, fingerprint)
    assert server.name == name
    assert bool(recognised_by) == (name != "unknown")


def test_the_context_in_force_goes_before_the_trained_one() -> None:
    assert listed_context({"max_model_len": 4096}) == (4096, "max_model_len")
    assert listed_context({"meta": {"n_ctx_train": 8192, "n_ctx": 2048}}) == (2048, "n_ctx")
    assert listed_context({"meta": {"n_ctx_train": 8192}}) == (8192, "n_ctx_train")
    assert listed_context({"id": "m", "max_model_len": True}) == (None, "")
