"""OpenAI Batch files, read and written: requests that an endpoint answers later, and its output; as ``vllm run-batch`` takes
them too.

A request's ``custom_id`` is the call id with a digest of the body (records.Call.custom_id) and its body is the live call's, so
that an answer is stored in the cassette as if the call had been made, and only where it answers this very request.
``wire/batch_api`` sends the files, or a person does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judgeloop.errors import InvalidInput, StorageFailed
from judgeloop.interchange.rows import Cells
from judgeloop.records import Call, split_custom_id

URL = "/v1/chat/completions"
MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
"""OpenAI's limits for one file; all requests of a file are for one model."""


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """One line of a batch's output, as a cassette's exchange has it.

    ``status``: the HTTP status, 0 where none arrived. ``response``: the body. ``fault``: why there is no readable answer, ""
    where there is one. ``digest``: the digits of the key of the request that it answers, "" where ``custom_id`` has none.
    """

    call: str
    status: int
    response: Any
    fault: str = ""
    digest: str = ""


def request(call: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One request as the object of a line."""
    return {"custom_id": Call(call, "", body).custom_id, "method": "POST", "url": URL, "body": dict(body)}


def _request_line(call: str, body: Mapping[str, Any]) -> bytes:
    # ASCII only: a lone surrogate in a text survives as \\udXXX instead of breaking the file.
    line = json.dumps(request(call, body), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return line.encode() + b"\n"


def write_requests(requests: Iterable[tuple[str, Mapping[str, Any]]], path: str | Path) -> list[Path]:
    """Write (call id, body) pairs as request files, and return them: ``path``, then ``-2``, ``-3``, … where there
    are several models or more requests than one file may hold. No file where there is no request.

    Raises InvalidInput where two requests have one call id, StorageFailed where a file cannot be written.
    """
    path = Path(path)
    calls: set[str] = set()
    open_parts: dict[str, list[bytes]] = {}
    sizes: dict[str, int] = {}
    full: list[list[bytes]] = []
    for call, body in requests:
        if call in calls:
            raise InvalidInput(f"{path}: two requests have the call id {call!r}; ids must be unique in a batch")
        calls.add(call)
        line = _request_line(call, body)
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


@dataclass(frozen=True, slots=True)
class RequestFile:
    """A request file; ``group`` is the caller's name for the endpoint, ``calls`` the number of requests."""

    path: Path
    group: str
    model: str
    calls: int
    sha256: str


class RequestFiles:
    """Request files that are written while the calls are planned, so that memory does not grow with the calls.

    They are hidden drafts in ``folder`` until the caller renames them. Raises StorageFailed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[tuple[str, str], _Draft] = {}
        self._drafts: list[_Draft] = []

    def add(self, group: str, call: str, body: Mapping[str, Any]) -> None:
        """Write one more request, to a file of this group and model alone within the limits of one file."""
        line, name = _request_line(call, body), (group, str(body.get("model", "")))
        draft = self._open.get(name)
        if draft is None or draft.calls == MOST_REQUESTS or draft.size + len(line) > MOST_BYTES:
            if draft is not None:
                draft.flush()
            draft = self._open[name] = _Draft(self._folder / f".draft-{len(self._drafts) + 1}.jsonl", *name)
            self._drafts.append(draft)
        draft.write(line)

    def close(self) -> list[RequestFile]:
        """Flush all drafts to disk, and return them in the order in which they were begun."""
        for draft in self._drafts:
            draft.flush()
        return [
            RequestFile(draft.path, draft.group, draft.model, draft.calls, f"sha256:{draft.hash.hexdigest()}")
            for draft in self._drafts
        ]


class _Draft:
    def __init__(self, path: Path, group: str, model: str) -> None:
        self.path, self.group, self.model, self.calls, self.size = path, group, model, 0, 0
        self.hash = hashlib.sha256()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
        except OSError as error:
            raise _write_failure(path, error) from None

    def write(self, line: bytes) -> None:
        try:
            self._file.write(line)
        except OSError as error:
            raise _write_failure(self.path, error) from None
        self.hash.update(line)
        self.calls += 1
        self.size += len(line)

    def flush(self) -> None:
        """Sync the file to disk and close it; a second call does nothing."""
        if self._file.closed:
            return
        try:
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _write_failure(self.path, error) from None


@dataclass(frozen=True, slots=True)
class OutputLine:
    """The place of a line in an output file.

    ``call`` and ``digest`` name the request that the line answers; ``fault`` is instead a sentence with file, line and
    field where it is no answer.
    """

    path: Path
    number: int
    offset: int
    length: int
    call: str = ""
    digest: str = ""
    fault: str = ""

    @property
    def where(self) -> str:
        """The place as ``file:line``."""
        return f"{self.path}:{self.number}"


def places(path: str | Path) -> Iterator[OutputLine]:
    """The places of all lines of a batch's output or error file that are not blank, readable or not.

    Raises InvalidInput where the file cannot be read.
    """
    path, offset = Path(path), 0
    try:
        with path.open("rb") as file:
            # Binary, since a raw U+2028 within a reply must not end a line.
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        answer = _answer(line, f"{path}:{number}")
                        yield OutputLine(path, number, offset, len(line), call=answer.call, digest=answer.digest)
                    except InvalidInput as error:
                        yield OutputLine(path, number, offset, len(line), fault=str(error))
                offset += len(line)
    except OSError as error:
        raise InvalidInput(
            f"{path}: cannot be read ({error.strerror or error}); give a batch's output file, as it was downloaded"
        ) from None


def answer_at(place: OutputLine) -> BatchAnswer:
    """The answer at a place without fault. Raises InvalidInput where the file has changed since."""
    try:
        with place.path.open("rb") as file:
            file.seek(place.offset)
            return _answer(file.read(place.length), place.where)
    except OSError as error:
        raise InvalidInput(f"{place.path}: cannot be read ({error.strerror or error})") from None


def calls_of(path: Path) -> dict[str, int]:
    """The line number of each ``custom_id`` in a request file. Raises InvalidInput where it is not a request file."""
    try:
        with path.open("rb") as file:
            return {
                str(json.loads(line)["custom_id"]): number for number, line in enumerate(file, start=1) if line.strip()
            }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: this request file cannot be read ({type(error).__name__}); restore it") from None


def _answer(line: bytes, where: str) -> BatchAnswer:
    """The answer in a line of a batch's output. Raises InvalidInput with ``where`` in it."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidInput(f"{where}: not UTF-8 text; give the file as it was downloaded") from None
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise InvalidInput(f"{where}: not valid JSON ({problem}); give the file as it was downloaded") from None
    if not isinstance(row, dict):
        raise InvalidInput(f"{where}: must be a JSON object; this is no line of a batch's output")
    return _answer_of_row(Cells(where, row))


def _answer_of_row(cells: Cells) -> BatchAnswer:
    call, digest = split_custom_id(cells.name("custom_id"))
    response, error = cells.row.get("response"), cells.row.get("error")
    if response is None:
        if not isinstance(error, Mapping):
            raise cells.fault("response", "is empty, and so is error; this is no line of a batch's output")
        return BatchAnswer(call, 0, {"error": dict(error)}, str(error.get("code") or "batch_failed"), digest)
    if not isinstance(response, Mapping):
        raise cells.fault("response", "must have status_code and body, as a batch's output does")
    status = response.get("status_code")
    if isinstance(status, bool) or not isinstance(status, int):
        raise cells.fault("response.status_code", f"must be a whole number, not {status!r:.60}")
    body = response.get("body")
    if status != 200 and body is None:  # vLLM states the reason beside the response
        nested = isinstance(error, Mapping) and "error" in error
        body = error if nested else {"error": {"message": error} if isinstance(error, str) else error}
    if status == 200 and not isinstance(body, Mapping):
        raise cells.fault("response.body", f"must be a chat completion, not {type(body).__name__}")
    return BatchAnswer(call, status, body, "" if status == 200 else f"http_{status}", digest)


def write_file(path: Path, content: bytes) -> None:
    """Write a file, and make its folder. Raises StorageFailed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise _write_failure(path, error) from None


def _write_failure(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"{path}: cannot be written ({error.strerror or error}); give another --out")
