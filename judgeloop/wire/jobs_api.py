"""Jobs at an endpoint: a file is uploaded, a job made from it, watched, and its result taken.

What the Batch API (``wire/batch_api``) and the fine-tuning API (``wire/fine_tuning_api``) share. A job that may exist already is
looked up before it is created again: nothing is paid for twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Literal, TypeVar

from judgeloop.errors import EndpointFailed
from judgeloop.wire.client import Connection, brief
from judgeloop.wire.pace import LONGEST_WAIT_S
from judgeloop.wire.reply import TRANSIENT_4XX

NO_SUCH_ADDRESS = (404, 405, 501)
_PREPARING = ("pending", "running")
_PREPARING_S = 2.0
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
                f"{self.where}: will not {what}: {refusal}; check the key in {self.key_variable} and what it may do, then run the same command to resume"
            ) from None

    async def tried(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer to a request, after as many attempts as it takes; ``what`` names it in errors. Raises Refused too."""
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
