"""The parts of a request to a planted model: the last message's tagged texts, and the form of the reply asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Shown:
    """A pair as a judge's request shows it: the two answers, the question, and the message without the answers."""

    first: str
    second: str
    question: str
    rest: str


def shown_pair(message: str) -> Shown | None:
    """The last pair of answers in a judge's message; None where it has no two slots."""
    first, second = last_tag(message, "answer_a"), last_tag(message, "answer_b")
    if first is None or second is None:
        return None
    (low, high), (low_b, high_b) = sorted((first.span(), second.span()))
    rest = f"{message[:low]}\n{message[high:low_b]}\n{message[high_b:]}"
    return Shown(inside(first), inside(second), tagged(rest, "question") or "", rest)


def last_tag(message: str, tag: str) -> re.Match[str] | None:
    """The last part of a message between the lines ``<tag>`` and ``</tag>``."""
    pattern = re.compile(rf"^<{tag}>[ \t]*\n(.*?)^</{tag}>[ \t]*$", re.DOTALL | re.MULTILINE)
    matches = list(pattern.finditer(message))
    return matches[-1] if matches else None


def inside(match: re.Match[str]) -> str:
    """The text between the two lines of a tag."""
    return match[1].removesuffix("\n")


def tagged(message: str, tag: str) -> str | None:
    """The text of the message's last part with that tag; None where it has no such part."""
    match = last_tag(message, tag)
    return None if match is None else inside(match)


def text_of(content: Any) -> str:
    """A message's content as one text."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return content or ""


def schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema of the reply, {} for any JSON object, None where the reply is text."""
    form = body.get("response_format") or {}
    if form.get("type") not in ("json_object", "json_schema"):
        return None
    inner = form.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return schema if isinstance(schema, dict) else {}


def properties_of(schema: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The properties of a JSON schema; empty where it states none."""
    properties = (schema or {}).get("properties")
    return properties if isinstance(properties, dict) else {}
