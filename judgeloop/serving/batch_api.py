"""The Batch API of the local server: files and batches in memory, answered in the background by the answerer of live calls.

A line's ``custom_id`` names its call, so that a batch is answered as live calls of these ids are. Faults on purpose hit
lines by their call id, and the API itself by ``files/create``, ``files/content``, ``batches/create``,
``batches/retrieve`` and ``batches/list``.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from openai.types import Batch, BatchError, BatchRequestCounts, FileDeleted, FileObject
from openai.types.batch import Errors
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from judgeloop.records import Call, split_custom_id
from judgeloop.serving.faults import BrokenResponse, FaultCounter, response
from judgeloop.serving.protocol import AnswerError, AnswerLike, ServerAnswer, error_answer, parsed

MOST_BYTES = 2**30
"""All files together; a batch's own output comes on top."""
MOST_BATCHES = 1000
MOST_REQUESTS = 50_000
_AT_ONCE = 16
_ENDPOINT = "/v1/chat/completions"
_ENDED = ("completed", "failed", "expired", "cancelled")
_BROKEN = {"reset", "truncated", "timeout", "not_json"}

Answering = Callable[[dict[str, Any], str], Awaitable[AnswerLike]]


@dataclass
class _File:
    content: bytes
    about: FileObject


@dataclass
class _Job:
    """A batch that goes on. ``state`` is what is answered of it."""

    state: Batch
    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    good: list[bytes] = field(default_factory=list)
    bad: list[bytes] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    def now(
        self, status: Literal["in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled"]
    ) -> None:
        self.state.status = status
        setattr(self.state, f"{status}_at", int(time.time()))


class BatchService:
    """The endpoints. ``answer`` gives a chat completion to a body and a call id; an upload may hold ``most`` bytes."""

    def __init__(self, answer: Answering, faults: FaultCounter, most: int) -> None:
        self._answer, self._faults, self._most = answer, faults, most
        self._files: dict[str, _File] = {}
        self._jobs: dict[str, _Job] = {}

    def routes(self) -> list[Route]:
        """Where it answers."""
        return [
            Route("/v1/files", self._guarded(self._upload, "files/create"), methods=["POST"]),
            Route("/v1/files", self._guarded(self._listed_files, "files/list"), methods=["GET"]),
            Route("/v1/files/{id}", self._guarded(self._file, "files/retrieve"), methods=["GET"]),
            Route("/v1/files/{id}", self._guarded(self._delete, "files/delete"), methods=["DELETE"]),
            Route("/v1/files/{id}/content", self._guarded(self._content, "files/content"), methods=["GET"]),
            Route("/v1/batches", self._guarded(self._create, "batches/create"), methods=["POST"]),
            Route("/v1/batches", self._guarded(self._list, "batches/list"), methods=["GET"]),
            Route("/v1/batches/{id}", self._guarded(self._retrieve, "batches/retrieve"), methods=["GET"]),
            Route("/v1/batches/{id}/cancel", self._guarded(self._cancel, "batches/cancel"), methods=["POST"]),
        ]

    async def aclose(self) -> None:
        """Stop what goes on."""
        running = [job.task for job in self._jobs.values() if job.task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _guarded(
        self, handler: Callable[[Request], Awaitable[Response]], name: str
    ) -> Callable[[Request], Awaitable[Response]]:
        """The handler with OpenAI's error bodies, and the faults on purpose: a status is answered instead, and a connection
        that breaks off does so once all is done."""

        async def handle(request: Request) -> Response:
            rule = self._faults.next(name, name) if self._faults.faults.rules else None
            if rule is not None and rule.delay_s:
                await asyncio.sleep(rule.delay_s)
            if rule is not None and rule.status is not None:
                return response(error_answer(rule.status, rule.message, code=rule.code))
            try:
                done = await handler(request)
            except AnswerError as error:
                return response(error.answer)
            except ClientDisconnect:
                return Response(status_code=400)
            if rule is not None and rule.kind in _BROKEN:
                return BrokenResponse(b"", sent=None, reset=rule.kind == "reset")
            return done

        return handle

    # -- files ---------------------------------------------------------------------------------------------------------

    async def _upload(self, request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise _refused("A file is uploaded as multipart/form-data", "file")
        try:
            form = await MultiPartParser(request.headers, self._limited(request), max_files=1, max_fields=8).parse()
        except MultiPartException as error:
            raise _refused(f"The form cannot be read: {error.message}", "file") from None
        try:
            sent, purpose = form.get("file"), form.get("purpose")
            if not isinstance(sent, UploadFile):
                raise _refused("Missing required parameter: 'file'", "file")
            content = await sent.read()
        finally:
            await form.close()
        if purpose != "batch":
            raise _refused("This server takes files with purpose 'batch'", "purpose")
        return _said(self._kept(content, sent.filename or "file", "batch"))

    async def _limited(self, request: Request) -> AsyncGenerator[bytes, None]:
        room = min(self._most, MOST_BYTES - sum(len(one.content) for one in self._files.values()))
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > room:
                raise AnswerError(
                    error_answer(413, "The file is too large, or the server's files are; delete some", code="too_large")
                )
            yield part

    def _kept(self, content: bytes, name: str, purpose: Literal["batch", "batch_output"]) -> FileObject:
        about = FileObject(
            id=f"file-{uuid.uuid4().hex}", bytes=len(content), created_at=int(time.time()), filename=name, object="file",
            purpose=purpose, status="processed",
        )  # fmt: skip
        self._files[about.id] = _File(content, about)
        return about

    def _found(self, request: Request) -> _File:
        name = request.path_params["id"]
        if name not in self._files:
            raise AnswerError(error_answer(404, f"No such File object: {name}", code="not_found", param="id"))
        return self._files[name]

    async def _listed_files(self, _: Request) -> Response:
        return _list_of([one.about for one in self._files.values()], more=False)

    async def _file(self, request: Request) -> Response:
        return _said(self._found(request).about)

    async def _delete(self, request: Request) -> Response:
        about = self._files.pop(self._found(request).about.id).about
        return _said(FileDeleted(id=about.id, deleted=True, object="file"))

    async def _content(self, request: Request) -> Response:
        return Response(self._found(request).content, media_type="application/octet-stream")

    # -- batches -------------------------------------------------------------------------------------------------------

    async def _create(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise _refused("The request body must be a JSON object", None)
        source = self._files.get(str(body.get("input_file_id")))
        if source is None:
            raise _refused(f"No such File object: {body.get('input_file_id')}", "input_file_id")
        if body.get("endpoint") != _ENDPOINT:
            raise _refused(f"This server batches {_ENDPOINT} alone", "endpoint")
        if body.get("completion_window") != "24h":
            raise _refused("'completion_window' must be '24h'", "completion_window")
        metadata = body.get("metadata")
        if metadata is not None and not (
            isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
        ):
            raise _refused("'metadata' must map names to texts", "metadata")
        self._make_room()
        job = _Job(
            Batch(
                id=f"batch_{uuid.uuid4().hex}", completion_window="24h", created_at=int(time.time()), endpoint=_ENDPOINT,
                input_file_id=source.about.id, object="batch", status="validating", metadata=metadata,
                request_counts=BatchRequestCounts(completed=0, failed=0, total=0),
            )
        )  # fmt: skip
        self._jobs[job.state.id] = job
        job.task = asyncio.create_task(self._run(job, source.content), name=job.state.id)
        return _said(job.state)

    def _make_room(self) -> None:
        """The oldest that have ended are forgotten."""
        ended = [name for name, job in self._jobs.items() if job.state.status in _ENDED]
        for name in ended[: max(0, len(self._jobs) - MOST_BATCHES + 1)]:
            del self._jobs[name]
        if len(self._jobs) >= MOST_BATCHES:
            raise AnswerError(error_answer(429, f"{MOST_BATCHES} batches are under way", code="rate_limit_exceeded"))

    def _job(self, request: Request) -> _Job:
        name = request.path_params["id"]
        if name not in self._jobs:
            raise AnswerError(error_answer(404, f"No batch found with id '{name}'", code="not_found", param="id"))
        return self._jobs[name]

    async def _retrieve(self, request: Request) -> Response:
        return _said(self._job(request).state)

    async def _list(self, request: Request) -> Response:
        newest = [job.state for job in reversed(self._jobs.values())]
        names, after = [one.id for one in newest], request.query_params.get("after")
        start = names.index(after) + 1 if after in names else 0
        given = request.query_params.get("limit", "20")
        most = min(100, int(given)) if given.isdecimal() and int(given) > 0 else 20
        return _list_of(newest[start : start + most], more=len(newest) > start + most)

    async def _cancel(self, request: Request) -> Response:
        job = self._job(request)
        if job.state.status in _ENDED:
            raise AnswerError(error_answer(409, f"The batch is {job.state.status} already", code="batch_ended"))
        job.now("cancelling")
        if job.task is not None:
            job.task.cancel()
        return _said(job.state)

    async def _run(self, job: _Job, content: bytes) -> None:
        errors = _read(content, job.lines)
        if errors:
            job.state.errors = Errors(object="list", data=errors)
            job.now("failed")
            return
        assert job.state.request_counts is not None
        job.state.request_counts.total = len(job.lines)
        job.now("in_progress")
        waiting = iter(enumerate(job.lines))

        async def work() -> None:
            for number, (name, body) in waiting:
                await self._line(job, number, name, body)

        workers = [asyncio.create_task(work()) for _ in range(min(_AT_ONCE, len(job.lines)))]
        try:
            await asyncio.gather(*workers)
            job.now("finalizing")
        finally:
            for worker in workers:
                worker.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*workers, return_exceptions=True)
            if job.good:
                job.state.output_file_id = self._kept(b"".join(job.good), "output.jsonl", "batch_output").id
            if job.bad:
                job.state.error_file_id = self._kept(b"".join(job.bad), "errors.jsonl", "batch_output").id
            job.now("cancelled" if job.state.status == "cancelling" else "completed")
            job.lines, job.good, job.bad = [], [], []

    async def _line(self, job: _Job, number: int, name: str, body: dict[str, Any]) -> None:
        said = await self._said_of(name, body)
        counts = job.state.request_counts
        assert counts is not None
        ok = said["response"] is not None and said["response"]["status_code"] == 200
        counts.completed += ok
        counts.failed += not ok
        line = json.dumps({"id": f"batch_req_{number}", "custom_id": name, **said}, separators=(",", ":"))
        (job.good if ok else job.bad).append(line.encode() + b"\n")

    async def _said_of(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """A line's response and error, after the faults on purpose: what breaks a live connection is an error here."""
        call_id, _ = split_custom_id(name)
        name = (
            call_id if Call(call_id, "", body).custom_id == name else name
        )  # other programs' ids are left as they are
        rule = self._faults.next(name, name)
        if rule is not None and rule.delay_s and rule.kind != "timeout":
            await asyncio.sleep(rule.delay_s)
        if rule is not None and rule.kind in _BROKEN:
            return {"response": None, "error": {"code": str(rule.kind), "message": rule.message}}
        if rule is not None and rule.status is not None:
            answer: AnswerLike = error_answer(rule.status, rule.message, code=rule.code)
        elif rule is not None and rule.kind == "context_length":
            message = "This model's maximum context length is 8192 tokens; your messages resulted in more"
            answer = error_answer(400, message, code="context_length_exceeded", param="messages")
        else:
            answer = await self._answer(body, name)
        said = answer.body
        if answer.status == 0 or not isinstance(said, Mapping):
            return {"response": None, "error": {"code": "connection", "message": "the answer broke off"}}
        if rule is not None and rule.kind == "empty_choices":
            said = {**said, "choices": []}
        elif rule is not None and rule.kind == "null_content":
            empty = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"}
            said = {**said, "choices": [empty]}
        return {"response": {"status_code": answer.status, "request_id": f"req_{name}", "body": said}, "error": None}


def _read(content: bytes, into: list[tuple[str, dict[str, Any]]]) -> list[BatchError]:
    """Check a request file's lines as OpenAI does: any fault fails the batch before a call is answered."""
    faults, names = [], set()
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            name, body = _request(line)
        except AnswerError as error:
            said = error.answer.body["error"] if isinstance(error.answer.body, Mapping) else {}
            faults.append(BatchError(code=said["code"], line=number, message=said["message"], param=said["param"]))
            continue
        if name in names:
            message = f"The custom_id {name!r} stands twice"
            faults.append(BatchError(code="duplicate_custom_id", line=number, message=message, param="custom_id"))
        names.add(name)
        into.append((name, body))
    if not into and not faults:
        faults.append(BatchError(code="empty_file", message="The file holds no request"))
    if len(into) > MOST_REQUESTS:
        faults.append(BatchError(code="too_many_requests", message=f"A batch takes {MOST_REQUESTS} requests"))
    return faults[:100]


def _request(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise _refused("This line is no JSON", None, "invalid_json_line") from None
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str) or not row["custom_id"]:
        raise _refused("A request needs a custom_id", "custom_id", "missing_required_parameter")
    if row.get("method") != "POST" or row.get("url") != _ENDPOINT:
        raise _refused(f"A request is a POST to {_ENDPOINT}", "url", "invalid_url")
    return row["custom_id"], parsed(json.dumps(row.get("body")).encode())


def _refused(message: str, param: str | None, code: str = "invalid_value") -> AnswerError:
    return AnswerError(error_answer(400, message, param=param, code=code))


def _said(model: Batch | FileObject | FileDeleted) -> Response:
    return response(ServerAnswer(200, model.model_dump(mode="json", warnings="error")))


def _list_of(found: Iterable[Batch | FileObject], *, more: bool) -> Response:
    data = [one.model_dump(mode="json", warnings="error") for one in found]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return response(ServerAnswer(200, {"object": "list", "data": data, **ends, "has_more": more}))
