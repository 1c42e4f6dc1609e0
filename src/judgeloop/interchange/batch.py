"""OpenAI Batch files: requests that an endpoint answers at its leisure, and its output. ``vllm run-batch`` takes the same.

A request's ``custom_id`` is the call id and its body is the live call's, so that an answer can be kept in the cassette as
if the call had been made. Nothing here is sent: the file is uploaded by hand or by ``openai``'s own client.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judgeloop import inputs
from judgeloop.errors import InvalidInput, StorageFailed
from judgeloop.interchange.cells import Cells

URL = "/v1/chat/completions"
MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
"""What OpenAI takes in one file; a file bears one model's requests."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of a batch's output, as a cassette's exchange has it: ``status`` is the HTTP status (0 where none
    arrived), ``response`` the body, ``fault`` why there is no readable one ("" where there is)."""

    call: str
    status: int
    response: Any
    fault: str = ""


def request(call: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One request as a line's object."""
    return {"custom_id": call, "method": "POST", "url": URL, "body": dict(body)}


def write_requests(requests: Iterable[tuple[str, Mapping[str, Any]]], path: str | Path) -> list[Path]:
    """Write (call id, body) pairs as request files, and return them: ``path``, and behind it ``-2``, ``-3``, … where
    there are several models or more than one file may bear. No file where there is no request.

    Raises InvalidInput where two requests bear one call id, StorageFailed where a file cannot be written.
    """
    path = Path(path)
    seen: set[str] = set()
    open_parts: dict[str, list[bytes]] = {}
    sizes: dict[str, int] = {}
    full: list[list[bytes]] = []
    for call, body in requests:
        if call in seen:
            raise InvalidInput(f"{path}: two requests bear the call id {call!r}; a batch names each once")
        seen.add(call)
        # ASCII only: a lone surrogate in a text survives as \\udXXX instead of breaking the file.
        line = (
            json.dumps(request(call, body), separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode() + b"\n"
        )
        model = str(body.get("model", ""))
        part = open_parts.setdefault(model, [])
        if len(part) == MOST_REQUESTS or (part and sizes[model] + len(line) > MOST_BYTES):
            full.append(part)
            part = open_parts[model] = []
            sizes[model] = 0
        part.append(line)
        sizes[model] = sizes.get(model, 0) + len(line)
    written = []
    for number, lines in enumerate([*full, *(part for part in open_parts.values() if part)], start=1):
        target = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        write_file(target, b"".join(lines))
        written.append(target)
    return written


def read_output(paths: Sequence[str | Path]) -> Iterator[Answer]:
    """The answers in a batch's output and error files, in order. Raises InvalidInput with file, line and field for what
    is no line of a batch's output, or a call that is answered twice."""
    seen: dict[str, str] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise InvalidInput(f"{path}: no such file; give a batch's output file, as it was downloaded")
        for where, raw in inputs.rows(path, "batch output"):
            answer = _answer(Cells(where, raw))
            if answer.call in seen:
                raise InvalidInput(
                    f"{where}: custom_id: {answer.call!r} is answered twice (first at {seen[answer.call]})"
                )
            seen[answer.call] = where
            yield answer


def _answer(cells: Cells) -> Answer:
    call = cells.name("custom_id")
    response, error = cells.row.get("response"), cells.row.get("error")
    if response is None:
        if not isinstance(error, Mapping):
            raise cells.fault("response", "is empty, and error says nothing; this is no line of a batch's output")
        return Answer(call, 0, None, str(error.get("code") or "batch_failed"))
    if not isinstance(response, Mapping):
        raise cells.fault("response", "must bear status_code and body, as a batch's output does")
    status = response.get("status_code")
    if isinstance(status, bool) or not isinstance(status, int):
        raise cells.fault("response.status_code", f"must be a whole number, not {status!r:.60}")
    body = response.get("body")
    if status == 200 and not isinstance(body, Mapping):
        raise cells.fault("response.body", f"must be a chat completion, not {type(body).__name__}")
    return Answer(call, status, body, "" if status == 200 else f"http_{status}")


def write_file(path: Path, content: bytes) -> None:
    """Write a file, its folder too. Raises StorageFailed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise StorageFailed(f"{path}: cannot be written ({error.strerror or error}); give another --out") from None
