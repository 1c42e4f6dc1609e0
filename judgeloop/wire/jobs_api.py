"""Jobs at an endpoint: a file is uploaded, a job made from it, watched, and its result taken.

What the Batch API (``wire/batch_api``) and the fine-tuning API (``wire/fine_tuning_api``) share. A job that may exist already is
looked up before it is created again: nothing is paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from judgeloop.errors import EndpointFailed, StorageFailed
from judgeloop.records import Call
from judgeloop.wire.cassette import Exchange
from judgeloop.wire.client import Connection, brief
from judgeloop.wire.pace import LONGEST_WAIT_S
from judgeloop.wire.reply import SHORTEST_SECRET_IN_ANSWER, TRANSIENT_4XX, TransientFault, parse

NO_SUCH_ADDRESS = (404, 405, 501)
_PREPARING = ("pending", "running")
_PREPARING_S = 2.0
_BACKOFF_S = 0.5
_MOST_LISTED = 1000

T = TypeVar("T")


class NoSuchAPI(Exception):
    """The endpoint has no API for such jobs, or does not answer at all; the text says which."""


class _Retryable(Exception):
    """A failed request that is worth another try; it may have had its effect all the same."""


class Refused(Exception):
    """A refusal of the endpoint; ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class JobsConnection(Connection):
    """The open connection to one endpoint's jobs.

    Every method raises EndpointFailed where the endpoint refuses, or where its ``attempts`` are used up.
    """

    job: ClassVar[str]
    """What a job is called in sentences: batch, fine-tuning job."""
    api: ClassVar[str]
    """What the API is called, and where it answers."""
    source: ClassVar[str]
    """The field of a job that names its file."""
    lookup: ClassVar[str]
    """What a person can do where the endpoint lists no jobs."""

    async def upload(self, content: bytes, name: str, purpose: Literal["batch", "fine-tune"]) -> str:
        """Upload a file, and give its id once the endpoint can use it. Raises NoSuchAPI."""
        try:
            await self.check_alive()
        except EndpointFailed as error:
            raise NoSuchAPI(str(error).partition("; ")[0]) from None
        upload = await self.tried_new(
            f"upload {name}", lambda: self._openai.files.create(file=(name, content), purpose=purpose)
        )
        file_id, status = text_of(upload, "id"), text_of(upload, "status")
        if not file_id:
            raise NoSuchAPI(self._missing())  # an answer without an id is none to an upload
        while status in _PREPARING:  # Azure reads a file before it may be used
            await asyncio.sleep(_PREPARING_S)
            file = await self.tried(f"file {file_id}", lambda: self._openai.files.retrieve(file_id))
            status = text_of(file, "status")
        return file_id

    async def create_once(
        self,
        file_id: str,
        what: str,
        make: Callable[[], Awaitable[object]],
        listing: Callable[[], Any],
        *,
        perhaps: bool,
    ) -> str:
        """The id of the job made from an uploaded file by ``make``, now unless ``listing`` has it. Raises NoSuchAPI.

        ``perhaps``: the job may exist already, created by a process that was killed before it could record so.
        """
        may_exist = perhaps

        async def attempt() -> str:
            nonlocal may_exist
            if may_exist and (existing := await self._created_from(file_id, listing)):
                return existing
            may_exist = True  # from here on it may exist, whatever the answer
            if not (job_id := text_of(await make(), "id")):
                raise Refused(200, f"an answer that names no {self.job}")
            return job_id

        return await self.tried_new(what, attempt)

    async def _created_from(self, file_id: str, listing: Callable[[], Any]) -> str:
        """The id of the job that was created from a file; empty where there is none."""
        import openai

        count = 0
        try:
            async for job in listing():
                if text_of(job, self.source) == file_id:
                    return text_of(job, "id")
                count += 1
                if count == _MOST_LISTED:
                    break
        except openai.APIStatusError as error:
            if error.status_code not in NO_SUCH_ADDRESS:
                raise
            raise EndpointFailed(
                f"{self.where}: a {self.job} of file {file_id} may have been created before the connection broke, and this endpoint lists none; {self.lookup}"
            ) from None
        return ""

    def _mended(self, refusal: Refused) -> str:
        return self.mended(" and what it may do", "base_url and model", denied=refusal.status in (401, 403))

    def _missing(self) -> str:
        return f"{self.where}: no {self.api}"

    async def tried_new(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """As ``tried``, where the address may not exist. Raises NoSuchAPI."""
        try:
            return await self.tried(what, ask)
        except Refused as refusal:
            if refusal.status in NO_SUCH_ADDRESS:
                raise NoSuchAPI(self._missing()) from None
            raise EndpointFailed(
                f"{self.where}: will not {what}: {refusal}; {self._mended(refusal)}, then run the same command to resume"
            ) from None

    async def tried(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer to a request, after as many attempts as it takes; ``what`` names it in errors. Raises Refused too."""
        import tenacity

        try:
            async for attempt in tenacity.AsyncRetrying(
                stop=tenacity.stop_after_attempt(self.endpoint.attempts),
                wait=tenacity.wait_exponential_jitter(multiplier=_BACKOFF_S, max=LONGEST_WAIT_S, jitter=_BACKOFF_S),
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
        """The answer of one attempt. Raises _Retryable or Refused."""
        import httpx2
        import openai

        try:
            return await ask()
        except openai.APIStatusError as error:
            status = error.status_code
            message = brief(self.scrub(error.message))
            if status in TRANSIENT_4XX or (status >= 500 and status not in NO_SUCH_ADDRESS):
                raise _Retryable(f"HTTP {status}: {message}") from None
            raise Refused(status, message) from None
        except openai.APITimeoutError:
            raise _Retryable("a timeout") from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            raise _Retryable(str(error.__cause__ or error) or type(error).__name__) from None
        except (openai.APIError, ValueError) as error:  # an answer that is no JSON
            raise _Retryable(f"an answer that cannot be read ({type(error).__name__})") from None


def text_of(answer: object, name: str) -> str:
    """A text field of an endpoint's answer; empty where it has none."""
    value = getattr(answer, name, None)
    return value if isinstance(value, str) else ""


# The client of an endpoint's Batch API: uploads request files, creates and watches batches, downloads their outputs.

ENDED = ("completed", "failed", "expired", "cancelled")


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


class BatchConnection(JobsConnection):
    """The open connection to one endpoint's Batch API."""

    job, source = "batch", "input_file_id"
    api = "Batch API here (nothing answers at /files and /batches)"
    lookup = "look it up there and give its output with --collect, or ask its calls without --batch once the folder's batch/jobs.json is removed"

    async def upload_requests(self, path: Path) -> str:
        """Upload a request file, and give its id once the endpoint can use it. Raises NoSuchAPI, StorageFailed."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StorageFailed(f"{path}: cannot be read ({error.strerror or error}); restore it") from None
        return await self.upload(content, path.name, "batch")

    async def create(self, file_id: str, name: str, *, perhaps: bool = False) -> str:
        """The id of the batch that answers an uploaded file, created now unless it exists. Raises NoSuchAPI.

        ``name`` of the request file, kept with the batch; ``perhaps`` as in ``create_once``.
        """
        return await self.create_once(
            file_id, f"create the batch of {name}",
            lambda: self._openai.batches.create(
                completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file_id,
                metadata={"made_by": "judgeloop", "requests": name},
            ),
            lambda: self._openai.batches.list(limit=100), perhaps=perhaps,
        )  # fmt: skip

    async def state(self, batch_id: str) -> BatchState:
        """The progress of a batch."""
        try:
            batch = await self.tried(f"batch {batch_id}", lambda: self._openai.batches.retrieve(batch_id))
        except Refused as refusal:
            raise EndpointFailed(
                f"{self.where}: batch {batch_id} cannot be looked up: {refusal}; {self._mended(refusal)}, or give its output with --collect. The same command looks again"
            ) from None
        counts, errors = getattr(batch, "request_counts", None), getattr(batch, "errors", None)
        messages = [text_of(error, "message") for error in getattr(errors, "data", None) or []]
        files = (text_of(batch, "output_file_id"), text_of(batch, "error_file_id"))
        return BatchState(
            status=text_of(batch, "status"),
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
            await self.tried(f"file {file_id}", attempt)
            draft.replace(path)
        except OSError as error:
            raise StorageFailed(
                f"{path}: cannot be written ({error.strerror or error}); make room and run the same command again"
            ) from None
        except Refused as refusal:
            raise EndpointFailed(
                f"{self.where}: file {file_id} of a finished batch cannot be downloaded: {refusal}; run the same command to try again, or give the file with --collect"
            ) from None

    def _scrub_line(self, line: bytes) -> bytes:
        return self.scrub(line.decode("utf-8", "surrogateescape"), SHORTEST_SECRET_IN_ANSWER).encode(
            "utf-8", "surrogateescape"
        )


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


def _count(counts: object, name: str) -> int:
    """A count of an endpoint's answer; 0 where it has none."""
    value = getattr(counts, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


# The client of an endpoint's fine-tuning API: uploads preferences, creates and watches jobs.

SUCCEEDED, _TUNING_ENDED = "succeeded", ("succeeded", "failed", "cancelled")
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a job. ``model``: its result, empty until it succeeded; ``tokens``: trained (over all epochs), ``seconds`` from
    its creation to its end, None where the endpoint does not say; ``error``: why it failed."""

    status: str
    model: str
    tokens: int | None
    seconds: int | None
    error: str


class FineTuningConnection(JobsConnection):
    """The open connection to one endpoint's fine-tuning API."""

    job, source = "fine-tuning job", "training_file"
    api = "fine-tuning API here (nothing answers at /files and /fine_tuning/jobs); policy.kind command trains with your own trainer"
    lookup = "look it up there, and end it or wait for it; once job.json is removed from the training's folder, the same command starts anew"

    async def create(self, file_id: str, settings: Mapping[str, Any], name: str, *, perhaps: bool) -> str:
        """The id of the job that trains on an uploaded file, created now unless it exists. Raises NoSuchAPI.

        ``settings``: ``model``, ``method``, ``seed``, as the API names them; ``name`` in errors; ``perhaps`` as in
        ``create_once``.
        """
        jobs = self._openai.fine_tuning.jobs
        return await self.create_once(
            file_id, f"create the {self.job} of {name}", lambda: jobs.create(training_file=file_id, **settings),
            lambda: jobs.list(limit=100), perhaps=perhaps,
        )  # fmt: skip

    async def ended(self, job_id: str) -> JobState:
        """The state of a job once it has ended."""
        wait = _FIRST_WAIT_S
        while (state := await self.state(job_id)).status not in _TUNING_ENDED:
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)
        return state

    async def state(self, job_id: str) -> JobState:
        """The state of a job."""
        try:
            job = await self.tried(f"job {job_id}", lambda: self._openai.fine_tuning.jobs.retrieve(job_id))
        except Refused as refusal:
            raise EndpointFailed(
                f"{self.where}: {self.job} {job_id} cannot be looked up: {refusal}; {self._mended(refusal)}. The same command looks again"
            ) from None
        began, end = getattr(job, "created_at", None), getattr(job, "finished_at", None)
        tokens = getattr(job, "trained_tokens", None)
        return JobState(
            status=text_of(job, "status"), model=text_of(job, "fine_tuned_model"),
            tokens=tokens if isinstance(tokens, int) else None,
            seconds=end - began if isinstance(began, int) and isinstance(end, int) else None,
            error=brief(self.scrub(text_of(getattr(job, "error", None), "message"))),
        )  # fmt: skip
