"""Completions as server-sent events, and back."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from judgeloop.serving import protocol


def completion(text: str | None, **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        **more,
    }


texts = st.text(st.characters(codec="utf-8"), max_size=60)


@given(content=texts, reasoning=texts, cut=st.integers(1, 40), usage=st.booleans())
def test_events_make_up_the_completion_they_were_made_of(content: str, reasoning: str, cut: int, usage: bool) -> None:
    entry = {"token": "A", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    message["tool_calls"] = [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]  # type: ignore[assignment]
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": [entry]}}
    whole = completion(None, choices=[choice], system_fingerprint="fp")
    stream = b"".join(protocol.chunked(whole, include_usage=usage))
    assembler = protocol.Assembler()
    for start in range(0, len(stream), cut):
        assembler.feed(stream[start : start + cut])
    assert assembler.complete
    if not usage:
        whole.pop("usage")
    assert assembler.completion() == whole


def test_a_stream_that_breaks_off_or_holds_an_error_is_not_complete() -> None:
    stream = b"".join(protocol.chunked(completion("some words here"), include_usage=False))
    assembler = protocol.Assembler()
    assembler.feed(stream[: len(stream) // 2])
    assert not assembler.complete
    for bad in (
        b"data: {broken\n\n",
        protocol.event({"error": {"message": "overloaded"}}),
        b'data: {"choices": [1]}\n\n',
    ):
        assembler = protocol.Assembler()
        assembler.feed(bad + stream)
        assert not assembler.complete
