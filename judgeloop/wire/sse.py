"""A chat completion as server-sent events, and back: what streaming clients are sent and what a recorder keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

DONE = b"data: [DONE]\n\n"
_PIECE = re.compile(r"\s*\S+|\s+")
_ENVELOPE = ("id", "created", "model", "system_fingerprint")
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event. ASCII only, so that lone surrogates in a reply pass."""
    return b"data: " + json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode() + b"\n\n"


def chunked(completion: Mapping[str, Any], *, include_usage: bool) -> Iterator[bytes]:
    """The events of a completion: role, text word by word, finish reason, usage if asked for, and [DONE].

    Log-probabilities travel with the first text chunk.
    """
    envelope = {name: completion[name] for name in _ENVELOPE if name in completion}
    envelope["object"] = "chat.completion.chunk"
    if include_usage:
        envelope["usage"] = None

    def chunk(index: int, delta: dict[str, Any], **more: Any) -> bytes:
        return event({**envelope, "choices": [{"index": index, "delta": delta, "finish_reason": None, **more}]})

    for place, choice in enumerate(completion.get("choices") or []):
        index = choice.get("index", place)
        message = choice.get("message") or {}
        yield chunk(index, {"role": message.get("role", "assistant")})
        logprobs = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
        for name, value in message.items():
            if name in _TEXTS and isinstance(value, str):
                for piece in _PIECE.findall(value) or [""]:
                    yield chunk(index, {name: piece}, **logprobs)
                    logprobs = {}
            elif name == "tool_calls" and value:
                yield chunk(index, {name: [{"index": n, **call} for n, call in enumerate(value)]})
        yield chunk(index, {}, **{"finish_reason": choice.get("finish_reason"), **logprobs})
    if include_usage:
        yield event({**envelope, "choices": [], "usage": completion.get("usage")})
    yield DONE


class Assembler:
    """Server-sent events in, any byte at a time; the completion that they make up out."""

    def __init__(self) -> None:
        self.done = False
        self.damaged = False
        self._rest = b""
        self._body: dict[str, Any] = {"object": "chat.completion"}
        self._choices: dict[int, dict[str, Any]] = {}

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the stream."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            line = line.strip()
            if not line.startswith(b"data:"):
                continue  # comments, event names and blank lines
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self.done = True
                continue
            try:
                self._take(json.loads(payload))
            except (ValueError, TypeError, KeyError, AttributeError):
                self.damaged = True

    @property
    def complete(self) -> bool:
        """Every choice was ended, or [DONE] was seen, and every event could be read."""
        ended = bool(self._choices) and all(choice["finish_reason"] for choice in self._choices.values())
        return (self.done or ended) and not self.damaged and "error" not in self._body

    def completion(self) -> dict[str, Any]:
        """The chat completion so far."""
        return {**self._body, "choices": [self._choices[index] for index in sorted(self._choices)]}

    def _take(self, chunk: dict[str, Any]) -> None:
        for name in (*_ENVELOPE, "usage", "error"):
            if chunk.get(name) is not None:
                self._body[name] = chunk[name]
        for part in chunk.get("choices") or []:
            empty = {"index": part["index"], "message": {"role": "assistant", "content": None}, "finish_reason": None}
            choice = self._choices.setdefault(part["index"], empty)
            message = choice["message"]
            for name, value in (part.get("delta") or {}).items():
                if name in _TEXTS and isinstance(value, str):
                    message[name] = (message.get(name) or "") + value
                elif name == "tool_calls":
                    _take_tool_calls(message.setdefault(name, []), value or [])
                elif value is not None:
                    message[name] = value
            for name, tokens in (part.get("logprobs") or {}).items():
                if tokens:
                    choice.setdefault("logprobs", {}).setdefault(name, []).extend(tokens)
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]


def _take_tool_calls(calls: list[dict[str, Any]], parts: list[dict[str, Any]]) -> None:
    for part in parts:
        while len(calls) <= part["index"]:
            calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[part["index"]]
        for name, value in part.items():
            if name == "function":
                for key, text in value.items():
                    call[name][key] = call[name].get(key, "") + (text or "")
            elif name != "index" and value is not None:
                call[name] = value
