"""What of an endpoint's settings may be a key: settings are stored with the run and shown in its report, so a key may only be
named (``${VARIABLE}``, ``api_key_env``), never written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAMED = re.compile(r"authorization|key|token|secret|password|passwd|passphrase|cookie|credential|signature", re.I)
# A body has fields of tokens and cache keys that are none: names are told word by word there, separators left out.
_FIELD = re.compile(
    r"(.*(api|access|secret|private|subscription|account|auth|openai|azure))?key"
    r"|(.*(access|auth|api|bearer|refresh|session|secret|security|client|hf))?token"
    r"|.*(secret|password|passwd|passphrase|authorization|cookie|credentials?)"
)
_VALUE = re.compile(r"\s*((bearer|basic)\s+\S|(sk|gsk|hf|ghp|xai|pplx|nvapi)[-_][\w-]{8})", re.I)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_AROUND = re.compile(r"([A-Za-z_-]+[ =:;,]+|[ =:;,])*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def variables(value: str) -> list[str]:
    """The environment variables that a header or query value names as ``${NAME}``."""
    return _VARIABLE.findall(value)


def is_literal(name: str, value: str) -> bool:
    """Whether a header or query parameter is a key that is written and not named: by its name, or by the look of its value.
    A scheme before ``${NAME}`` (``Bearer ${NAME}``) is none."""
    around = _VARIABLE.sub("", value)
    if not _NAMED.search(name):
        return bool(_VALUE.match(around))
    return not _AROUND.fullmatch(around if around != value else f"{value}.") if value.strip() else False


def literals_in(body: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """The places (``a.b``) of texts in a body that are keys by their name or look."""
    for name, value in body.items():
        here = f"{place}{name}"
        inner = value if isinstance(value, list) else [value]
        field = re.sub(r"[^a-z]", "", str(name).lower())
        for one in inner:
            if isinstance(one, Mapping):
                yield from literals_in(one, f"{here}.")
            elif isinstance(one, str) and one.strip() and (_FIELD.fullmatch(field) or _VALUE.match(one)):
                yield here


def is_variable(name: str) -> bool:
    """Whether this names an environment variable; a key that was typed in its place does not."""
    long = len(name) >= 20 and re.search(r"[a-z]", name) and re.search(r"\d", name)
    return bool(_NAME.fullmatch(name)) and not long and not _VALUE.match(name)
