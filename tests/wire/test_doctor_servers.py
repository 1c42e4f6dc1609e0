"""Kinds of servers, recognised by their lists of models, headers and fingerprints."""

from __future__ import annotations

from typing import Any

import pytest

from judgeloop.wire.doctor_connection import listed_context, recognise


@pytest.mark.parametrize(
    ("host", "entries", "headers", "fingerprint", "name"),
    [
        ("api.openai.com", [], {}, "", "OpenAI"),
        ("my-resource.openai.azure.com", [], {}, "", "Azure OpenAI"),
        ("api.anthropic.com", [], {}, "", "Anthropic"),
        ("generativelanguage.googleapis.com", [], {}, "", "Gemini"),
        ("bedrock-runtime.us-west-2.amazonaws.com", [], {}, "", "Amazon Bedrock"),
        ("bedrock-mantle.us-east-1.api.aws", [], {}, "", "Amazon Bedrock"),
        ("API.Mistral.ai", [], {}, "", "Mistral"),
        ("openrouter.ai", [], {}, "", "OpenRouter"),
        ("api.openai.com.example.org", [], {}, "", "unknown"),
        # Anthropic's OpenAI layer states OpenAI's version in every answer.
        ("proxy.example", [], {"openai-version": "2020-10-01", "request-id": "req_011"}, "", "Anthropic"),
        # A gateway passes on what the model behind it says of itself.
        (
            "gateway.example",
            [{"id": "m", "owned_by": "openai"}],
            {"x-litellm-version": "1.80.0"},
            "fp_ollama",
            "LiteLLM",
        ),
        (
            "gateway.example",
            [{"id": "m", "owned_by": "mistralai"}, {"id": "n", "owned_by": "google"}],
            {},
            "",
            "unknown",
        ),
        ("gateway.example", [{"id": "m", "canonical_slug": "m"}], {}, "", "OpenRouter"),
        ("localhost", [{"id": "m", "owned_by": "sglang"}], {}, "", "SGLang"),
        ("localhost", [{"id": "m", "owned_by": "vllm"}], {}, "", "vLLM"),
        ("localhost", [{"id": "m", "owned_by": "library"}], {}, "fp_ollama", "Ollama"),
        ("localhost", [], {}, "fp_ollama", "Ollama"),
        ("localhost", [{"id": "m", "owned_by": "llamacpp"}], {}, "b6500-abc", "llama.cpp"),
        ("localhost", [], {"server": "llama.cpp"}, "", "llama.cpp"),
        ("localhost", [], {}, "b6500-abc", "llama.cpp"),
        ("localhost", [], {}, "blue", "unknown"),
        ("localhost", [{"id": "m", "owned_by": "system"}], {"openai-version": "2020-10-01"}, "fp_1", "OpenAI"),
        ("localhost", [{"id": "m", "owned_by": "me"}], {"server": "nginx"}, "", "unknown"),
    ],
)
def test_a_server_is_recognised_by_its_host_list_headers_and_fingerprint(
    host: str, entries: list[dict[str, Any]], headers: dict[str, str], fingerprint: str, name: str
) -> None:
    server, recognised_by = recognise(host, entries, headers, fingerprint)
    assert server.name == name
    assert bool(recognised_by) == (name != "unknown")


def test_the_context_in_force_goes_before_the_trained_one() -> None:
    assert listed_context({"max_model_len": 4096}) == (4096, "max_model_len")
    assert listed_context({"meta": {"n_ctx_train": 8192, "n_ctx": 2048}}) == (2048, "n_ctx")
    assert listed_context({"meta": {"n_ctx_train": 8192}}) == (8192, "n_ctx_train")
    assert listed_context({"id": "m", "max_model_len": True}) == (None, "")
