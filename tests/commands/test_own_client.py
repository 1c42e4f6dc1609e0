"""A caller's own openai client asks in the place of judgeloop's line, and what it answers is recorded alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

import judgeloop
from judgeloop.errors import EndpointFailed, InvalidInput
from judgeloop.serving.protocol import ServerAnswer, error_answer
from judgeloop.wire.cassette import Cassette
from wire_case import Speaker, serving

PAIRS = [{"item_id": f"q{n}", "prompt": "p", "text_a": f"a{n}", "text_b": f"b{n}"} for n in range(3)]
SECRET = "token-of-entra-0123456789"


def pairs(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return path


def asked(folder: Path, client: Any, **options: Any) -> judgeloop.Audit:
    return judgeloop.audit(
        pairs(folder), model="m", verdict="text", client=client, out=folder / "audit", report=False, **options
    )


@pytest.mark.tables
def test_azure_with_tokens_is_asked_at_its_own_addresses_and_replayed_without_it(tmp_path: Path) -> None:
    async def token() -> str:
        return SECRET

    with serving(Speaker()) as server:
        root = server.base_url.removesuffix("/v1")
        client = openai.AsyncAzureOpenAI(
            azure_endpoint=root, azure_ad_token_provider=token, api_version="2024-10-21", max_retries=5
        )
        # The local server has no address of Azure's: what is asked is seen in what it refuses.
        with pytest.raises(EndpointFailed, match="HTTP 404"):
            asked(tmp_path, client)
        plain = openai.AsyncOpenAI(api_key=SECRET, base_url=server.base_url, default_headers={"X-Team": "t"})
        first = asked(tmp_path, plain)
        assert len(server.seen) == 6
        for _, body, request in server.seen:
            headers = {name.decode(): value.decode() for name, value in request.headers}
            assert headers["authorization"] == f"Bearer {SECRET}"
            assert headers["x-team"] == "t"
            assert body["model"] == "m"
        cassette = Cassette(tmp_path / "audit", writable=False)
        assert len(cassette) == 6
        again = judgeloop.audit(
            pairs(tmp_path), model="m", verdict="text", base_url=server.base_url, out=tmp_path / "again",
            replay=tmp_path / "audit", report=False,
        )  # fmt: skip
        assert again.judgments.equals(first.judgments)
        assert len(server.seen) == 6


@pytest.mark.tables
def test_a_key_of_the_client_is_struck_out_and_its_own_retries_are_off(tmp_path: Path) -> None:
    answers: list[ServerAnswer] = [error_answer(500, "down"), error_answer(401, f"wrong key {SECRET}")]
    with serving(Speaker(lambda _: answers.pop(0))) as server:
        client = openai.AsyncOpenAI(
            api_key="k", base_url=server.base_url, max_retries=5, default_headers={"Authorization": f"Bearer {SECRET}"}
        )
        with pytest.raises(EndpointFailed, match=r"HTTP 401: wrong key \*\*\*"):
            asked(tmp_path, client, concurrency=1, attempts=2)
        assert len(server.seen) == 2


def test_what_is_no_client(tmp_path: Path) -> None:
    for client in ("openai", {"other": openai.AsyncOpenAI(api_key="k")}):
        with pytest.raises(InvalidInput, match="client: give an openai"):
            asked(tmp_path, client)
