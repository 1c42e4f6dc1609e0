"""The client of an endpoint's Batch API: uploads request files, creates and watches batches, downloads their outputs.

``serving/batch_api`` is the other side, a server that has such an API; ``wire/batch_files`` reads and writes the files. A
batch that may exist already is looked up before it is created again: nothing is paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from judgeloop.errors import EndpointFailed, StorageFailed
from judgeloop.records import Call
from judgeloop.wire.cassette import Exchange
from judgeloop.wire.client import Connection, brief
from judgeloop.wire.pace import LONGEST_WAIT_S
from judgeloop.wire.reply import SHORTEST_SECRET_IN_ANSWER, TRANSIENT_4XX, TransientFault, parse

ENDED = ("completed", "failed", "expired", "cancelled")
_NO_SUCH_ADDRESS = (404, 405, 501)
_PREPARING = ("pending", "running")
_PREPARING_S = 2.0
_MOST_LISTED = 1000

T = TypeVar("T")


class NoBatchAPI(Exception):
    """The endpoint has no Batch API (/files, /batches), or does not answer at all; the text says which."""


class _Retryable(Exception):
    """A failed request that is worth another try; it may have had its effect all the same."""


class _Refusal(Exception):
    """A refusal of the endpoint; ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class BatchState:
    """The progress of a batch: requests done of ``total``.

    ``files``: ids of its output and error files. ``error``: why it failed as a whole, empty where it did not.
    """

    status: str
    done: int = 0
    total: int = 0
    files: tuple[str, ...] = ()
    error: str = ""


class BatchConnection(Connection):
    """The open connection to one endpoint's Batch API.

    Every method raises EndpointFailed where the endpoint refuses, or where its ``attempts`` are used up.
    """

    async def upload(self, path: Path) -> str:
        """Upload a request file, and give its id once the endpoint can use it. Raises NoBatchAPI, StorageFailed."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StorageFailed(f"{path}: cannot be read ({error.strerror or error}); restore it") from None
        try:
            await self.check_alive()
        except EndpointFailed as error:
            raise NoBatchAPI(str(error).partition("; ")[0]) from None
        upload = await self._tried_new(
            f"upload {path.name}", lambda: self._openai.files.create(file=(path.name, content), purpose="batch")
        )
        file_id, status = _text(upload, "id"), _text(upload, "status")
        if not file_id:
            raise NoBatchAPI(self._no_batch_api())  # an answer without an id is none to an upload
        while status in _PREPARING:  # Azure reads a file before it may be used
            await asyncio.sleep(_PREPARING_S)
            file = await self._tried(f"file {file_id}", lambda: self._openai.files.retrieve(file_id))
            status = _text(file, "status")
        return file_id

    async def create(self, file_id: str, name: str, *, perhaps: bool = False) -> str:
        """The id of the batch that answers an uploaded file, created now unless it exists. Raises NoBatchAPI.

        ``name`` of the request file, kept with the batch. ``perhaps``: the batch may exist already, created by a process
        that was killed before it could record so.
        """
        may_exist = perhaps

        async def attempt() -> str:
            nonlocal may_exist
            if may_exist and (existing := await self._created_from(file_id)):
                return existing
            may_exist = True  # from here on it may exist, whatever the answer
            batch = await self._openai.batches.create(
                completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file_id,
                metadata={"made_by": "judgeloop", "requests": name},
            )  # fmt: skip
            if not (batch_id := _text(batch, "id")):
                raise _Refusal(200, "an answer that names no batch")
            return batch_id

        return await self._tried_new(f"create the batch of {name}", attempt)

    async def _created_from(self, file_id: str) -> str:
        """The id of the batch that was created from a file; empty where there is none."""
        import openai

        count = 0
        try:
            async for batch in self._openai.batches.list(limit=100):
                if _text(batch, "input_file_id") == file_id:
                    return _text(batch, "id")
                count += 1
                if count == _MOST_LISTED:
                    break
        except openai.APIStatusError as error:
            if error.status_code not in _NO_SUCH_ADDRESS:
                raise
            raise EndpointFailed(
                f"{self.where}: a batch of file {file_id} may have been created before the connection broke, and this endpoint lists no batches; look it up there and give its output with --collect, or ask its calls without --batch once the folder's batch/jobs.json is removed"
            ) from None
        return ""

    async def state(self, batch_id: str) -> BatchState:
        """The progress of a batch."""
        try:
            batch = await self._tried(f"batch {batch_id}", lambda: self._openai.batches.retrieve(batch_id))
        except _Refusal as refusal:
            raise EndpointFailed(
                f"{self.where}: batch {batch_id} cannot be looked up: {refusal}; check the key in {self.key_variable}, or give its output with --collect. The same command looks again"
            ) from None
        counts, errors = getattr(batch, "request_counts", None), getattr(batch, "errors", None)
        messages = [_text(error, "message") for error in getattr(errors, "data", None) or []]
        files = (_text(batch, "output_file_id"), _text(batch, "error_file_id"))
        return BatchState(
            status=_text(batch, "status"),
            done=_count(counts, "completed") + _count(counts, "failed"),
            total=_count(counts, "total"),
            files=tuple(output_id for output_id in files if output_id),
            error=brief(self.scrub("; ".join(dict.fromkeys(message for message in messages if message)))),
        )

    async def download(self, file_id: str, path: Path) -> None:
        """Download an output file to ``path``, without any key that the endpoint echoes. Raises StorageFailed."""
        draft = path.with_name(f".{path.name}.part")

        async def attempt() -> None:
            rest = b""
            async with self._openai.files.with_streaming_response.content(file_id) as answer:
                with draft.open("wb") as file:
                    async for chunk in answer.iter_bytes():
                        *lines, rest = (rest + chunk).split(b"\n")
                        file.writelines(self._scrub_line(line) + b"\n" for line in lines)
                    file.write(self._scrub_line(rest))

        try:
            await self._tried(f"file {file_id}", attempt)
            draft.replace(path)
        except OSError as error:
            raise StorageFailed(
                f"{path}: cannot be written ({error.strerror or error}); make room and run the same command again"
            ) from None
        except _Refusal as refusal:
            raise EndpointFailed(
                f"{self.where}: file {file_id} of a finished batch cannot be downloaded: {refusal}; run the same command to try again, or give the file with --collect"
            ) from None

    def _scrub_line(self, line: bytes) -> bytes:
        return self.scrub(line.decode("utf-8", "surrogateescape"), SHORTEST_SECRET_IN_ANSWER).encode(
            "utf-8", "surrogateescape"
        )

    def _no_batch_api(self) -> str:
        return f"{self.where}: no Batch API here (nothing answers at /files and /batches)"

    async def _tried_new(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """As ``_tried``, where the address may not exist. Raises NoBatchAPI."""
        try:
            return await self._tried(what, ask)
        except _Refusal as refusal:
            if refusal.status in _NO_SUCH_ADDRESS:
                raise NoBatchAPI(self._no_batch_api()) from None
            raise EndpointFailed(
                f"{self.where}: will not {what}: {refusal}; check the key in {self.key_variable} and what it may do, then run the same command to resume"
            ) from None

    async def _tried(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer to a request, after as many attempts as it takes; ``what`` names it in errors. Raises _Refusal too."""
        import tenacity

        try:
            async for attempt in tenacity.AsyncRetrying(
                stop=tenacity.stop_after_attempt(self.endpoint.attempts),
                wait=tenacity.wait_exponential_jitter(multiplier=0.5, max=LONGEST_WAIT_S, jitter=0.5),
                retry=tenacity.retry_if_exception_type(_Retryable),
                reraise=True,
            ):
                with attempt:
                    return await self._attempted(ask)
        except _Retryable as fault:
            raise EndpointFailed(
                f"{self.where}: {what}: {self.endpoint.attempts} attempts failed, the last with {brief(self.scrub(str(fault)))}; what was sent goes on there, run the same command to resume"
            ) from None
        raise AssertionError("tenacity ends in a result or an exception")

    async def _attempted(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of one attempt. Raises _Retryable or _Refusal."""
        import httpx2
        import openai

        try:
            return await ask()
        except openai.APIStatusError as error:
            status = error.status_code
            message = brief(self.scrub(error.message))
            if status in TRANSIENT_4XX or (status >= 500 and status not in _NO_SUCH_ADDRESS):
                raise _Retryable(f"HTTP {status}: {message}") from None
            raise _Refusal(status, message) from None
        except openai.APITimeoutError:
            raise _Retryable("a timeout") from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            raise _Retryable(str(error.__cause__ or error) or type(error).__name__) from None
        except (openai.APIError, ValueError) as error:  # an answer that is no JSON
            raise _Retryable(f"an answer that cannot be read ({type(error).__name__})") from None


def exchange(call: Call, status: int, response: Any, fault: str, attempts: int) -> Exchange:
    """A line of a batch's output as the exchange that a live call would have left.

    ``status``: HTTP status, 0 where none arrived, for the reason ``fault``. Raises Refusal where the answer ends a run.
    """
    if not status:
        name = re.sub(r"[^a-z0-9]+", "_", fault.lower()).strip("_")[:60] or "batch_failed"
        return Exchange(call.call_id, call.key, call.body, 0, response, attempts, name)
    try:
        body = parse(status, json.dumps(response))
    except TransientFault as transient:
        return Exchange(
            call.call_id, call.key, call.body, transient.status, transient.response, attempts, transient.fault
        )
    return Exchange(call.call_id, call.key, call.body, status, body, attempts)


def _text(answer: object, name: str) -> str:
    """A text field of an endpoint's answer; empty where it has none."""
    value = getattr(answer, name, None)
    return value if isinstance(value, str) else ""


def _count(counts: object, name: str) -> int:
    """A count of an endpoint's answer; 0 where it has none."""
    value = getattr(counts, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
