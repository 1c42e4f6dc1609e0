"""The job APIs that the local server has: files and batches in memory, answered in the background as live calls are, and fine-tuning.

``wire/batch_api`` is the other side, the client of such an API. A line's ``custom_id`` holds its call id, so that a batch is
answered as live calls of these ids are. Faults on purpose hit lines by their call id, and the API itself by ``files/create``, ``files/content``, ``batches/create``,
``batches/retrieve`` and ``batches/list``.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from openai.types import Batch, BatchError, BatchRequestCounts, FileDeleted, FileObject
from openai.types.batch import Errors
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.fine_tuning_job import Error, Hyperparameters
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from judgeloop.records import Call, split_custom_id
from judgeloop.serving.faults import FaultCounter, context_length_answer, without_answer
from judgeloop.serving.protocol import (
    AnswerError,
    AnswerLike,
    BrokenResponse,
    ServerAnswer,
    error_answer,
    parsed,
    read_json,
    response,
)
from judgeloop.text.features import tokenize

MOST_BYTES = 2**30
"""Bytes of all uploaded files together; the outputs of batches come on top."""
MOST_BATCHES = 1000
MOST_REQUESTS = 50_000
_AT_ONCE = 16
_ENDPOINT = "/v1/chat/completions"
_ENDED = ("completed", "failed", "expired", "cancelled")
_BREAKING_FAULTS = {"reset", "truncated", "timeout", "not_json"}

Answering = Callable[[dict[str, Any], str], Awaitable[AnswerLike]]


@dataclass
class _File:
    """A file: its content, and the object that describes it to clients."""

    content: bytes
    description: FileObject


@dataclass
class _Job:
    """A batch under way: ``state`` as clients see it, ``lines`` of (custom_id, body), the output lines ``good`` and ``bad``."""

    state: Batch
    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    good: list[bytes] = field(default_factory=list)
    bad: list[bytes] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    def enter(
        self, status: Literal["in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled"]
    ) -> None:
        """Set the status, and the time at which it began."""
        self.state.status = status
        setattr(self.state, f"{status}_at", int(time.time()))


class BatchService:
    """The endpoints of the Batch API over one answerer."""

    def __init__(self, answer: Answering, faults: FaultCounter, most: int) -> None:
        """``answer`` gives a chat completion to a body and a call id; an upload may hold ``most`` bytes."""
        self._answer, self._faults, self._most = answer, faults, most
        self.purposes: tuple[str, ...] = ("batch",)
        """What an uploaded file may be for."""
        self._files: dict[str, _File] = {}
        self._jobs: dict[str, _Job] = {}

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route("/v1/files", self.guarded(self._upload, "files/create"), methods=["POST"]),
            Route("/v1/files", self.guarded(self._list_files, "files/list"), methods=["GET"]),
            Route("/v1/files/{id}", self.guarded(self._describe_file, "files/retrieve"), methods=["GET"]),
            Route("/v1/files/{id}", self.guarded(self._delete, "files/delete"), methods=["DELETE"]),
            Route("/v1/files/{id}/content", self.guarded(self._content, "files/content"), methods=["GET"]),
            Route("/v1/batches", self.guarded(self._create, "batches/create"), methods=["POST"]),
            Route("/v1/batches", self.guarded(self._list_batches, "batches/list"), methods=["GET"]),
            Route("/v1/batches/{id}", self.guarded(self._retrieve, "batches/retrieve"), methods=["GET"]),
            Route("/v1/batches/{id}/cancel", self.guarded(self._cancel, "batches/cancel"), methods=["POST"]),
        ]

    async def aclose(self) -> None:
        """Stop the batches under way."""
        running = [job.task for job in self._jobs.values() if job.task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def guarded(
        self, handler: Callable[[Request], Awaitable[Response]], name: str
    ) -> Callable[[Request], Awaitable[Response]]:
        """The handler with OpenAI's error bodies, and with the faults on purpose that hit ``name``.

        A fault's status is answered instead; a fault that breaks the connection does so once the request has had its effect.
        """

        async def handle(request: Request) -> Response:
            rule = self._faults.next(name, name) if self._faults.faults.rules else None
            if rule is not None and rule.delay_s:
                await asyncio.sleep(rule.delay_s)
            if rule is not None and rule.status is not None:
                return response(error_answer(rule.status, rule.message, code=rule.code))
            try:
                answer = await handler(request)
            except AnswerError as error:
                return response(error.answer)
            except ClientDisconnect:
                return Response(status_code=400)
            if rule is not None and rule.kind in _BREAKING_FAULTS:
                return BrokenResponse(b"", sent=None, reset=rule.kind == "reset")
            return answer

        return handle

    # Files

    async def _upload(self, request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise refused("A file is uploaded as multipart/form-data", "file")
        try:
            form = await MultiPartParser(request.headers, self._limited(request), max_files=1, max_fields=8).parse()
        except MultiPartException as error:
            raise refused(f"The form cannot be read: {error.message}", "file") from None
        try:
            upload, purpose = form.get("file"), form.get("purpose")
            if not isinstance(upload, UploadFile):
                raise refused("Missing required parameter: 'file'", "file")
            content = await upload.read()
        finally:
            await form.close()
        if not isinstance(purpose, str) or purpose not in self.purposes:
            raise refused(f"This server takes files with purpose {' or '.join(map(repr, self.purposes))}", "purpose")
        return _object_response(self._add_file(content, upload.filename or "file", purpose))

    async def _limited(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The request's bytes. Raises AnswerError with a 413 where there are too many."""
        room = min(self._most, MOST_BYTES - sum(len(file.content) for file in self._files.values()))
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > room:
                raise AnswerError(
                    error_answer(413, "The file is too large, or the server's files are; delete some", code="too_large")
                )
            yield part

    def content(self, file_id: str) -> bytes | None:
        """The content of an uploaded file; None where there is none."""
        return self._files[file_id].content if file_id in self._files else None

    def _add_file(self, content: bytes, name: str, purpose: str) -> FileObject:
        description = FileObject.model_validate({
            "id": f"file-{uuid.uuid4().hex}", "bytes": len(content), "created_at": int(time.time()), "filename": name,
            "object": "file", "purpose": purpose, "status": "processed",
        })  # fmt: skip
        self._files[description.id] = _File(content, description)
        return description

    def _requested_file(self, request: Request) -> _File:
        name = request.path_params["id"]
        if name not in self._files:
            raise AnswerError(error_answer(404, f"No such File object: {name}", code="not_found", param="id"))
        return self._files[name]

    async def _list_files(self, _: Request) -> Response:
        return _list_response([file.description for file in self._files.values()], more=False)

    async def _describe_file(self, request: Request) -> Response:
        return _object_response(self._requested_file(request).description)

    async def _delete(self, request: Request) -> Response:
        file_id = self._requested_file(request).description.id
        del self._files[file_id]
        return _object_response(FileDeleted(id=file_id, deleted=True, object="file"))

    async def _content(self, request: Request) -> Response:
        return Response(self._requested_file(request).content, media_type="application/octet-stream")

    # Batches

    async def _create(self, request: Request) -> Response:
        body = await json_object(request)
        source = self._files.get(str(body.get("input_file_id")))
        if source is None:
            raise refused(f"No such File object: {body.get('input_file_id')}", "input_file_id")
        if body.get("endpoint") != _ENDPOINT:
            raise refused(f"This server batches {_ENDPOINT} alone", "endpoint")
        if body.get("completion_window") != "24h":
            raise refused("'completion_window' must be '24h'", "completion_window")
        metadata = body.get("metadata")
        if metadata is not None and not (
            isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
        ):
            raise refused("'metadata' must map names to texts", "metadata")
        self._make_room()
        job = _Job(
            Batch(
                id=f"batch_{uuid.uuid4().hex}", completion_window="24h", created_at=int(time.time()), endpoint=_ENDPOINT,
                input_file_id=source.description.id, object="batch", status="validating", metadata=metadata,
                request_counts=BatchRequestCounts(completed=0, failed=0, total=0),
            )
        )  # fmt: skip
        self._jobs[job.state.id] = job
        job.task = asyncio.create_task(self._run(job, source.content), name=job.state.id)
        return _object_response(job.state)

    def _make_room(self) -> None:
        """Forget the oldest batches that have ended, where there are too many. Raises AnswerError where none has."""
        ended = [name for name, job in self._jobs.items() if job.state.status in _ENDED]
        for name in ended[: max(0, len(self._jobs) - MOST_BATCHES + 1)]:
            del self._jobs[name]
        if len(self._jobs) >= MOST_BATCHES:
            raise AnswerError(error_answer(429, f"{MOST_BATCHES} batches are under way", code="rate_limit_exceeded"))

    def _requested_job(self, request: Request) -> _Job:
        name = request.path_params["id"]
        if name not in self._jobs:
            raise AnswerError(error_answer(404, f"No batch found with id '{name}'", code="not_found", param="id"))
        return self._jobs[name]

    async def _retrieve(self, request: Request) -> Response:
        return _object_response(self._requested_job(request).state)

    async def _list_batches(self, request: Request) -> Response:
        return listed([job.state for job in reversed(self._jobs.values())], request)

    async def _cancel(self, request: Request) -> Response:
        job = self._requested_job(request)
        if job.state.status in _ENDED:
            raise AnswerError(error_answer(409, f"The batch is {job.state.status} already", code="batch_ended"))
        job.enter("cancelling")
        if job.task is not None:
            job.task.cancel()
        return _object_response(job.state)

    async def _run(self, job: _Job, content: bytes) -> None:
        """Answer all lines of a request file."""
        job.lines, errors = _requests(content)
        if errors:
            job.state.errors = Errors(object="list", data=errors)
            job.enter("failed")
            return
        assert job.state.request_counts is not None
        job.state.request_counts.total = len(job.lines)
        job.enter("in_progress")
        remaining = iter(enumerate(job.lines))

        async def work() -> None:
            for number, (custom_id, body) in remaining:
                await self._answer_line(job, number, custom_id, body)

        workers = [asyncio.create_task(work()) for _ in range(min(_AT_ONCE, len(job.lines)))]
        try:
            await asyncio.gather(*workers)
            job.enter("finalizing")
        finally:
            for worker in workers:
                worker.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*workers, return_exceptions=True)
            if job.good:
                job.state.output_file_id = self._add_file(b"".join(job.good), "output.jsonl", "batch_output").id
            if job.bad:
                job.state.error_file_id = self._add_file(b"".join(job.bad), "errors.jsonl", "batch_output").id
            job.enter("cancelled" if job.state.status == "cancelling" else "completed")
            job.lines, job.good, job.bad = [], [], []

    async def _answer_line(self, job: _Job, number: int, custom_id: str, body: dict[str, Any]) -> None:
        outcome = await self._outcome(custom_id, body)
        counts = job.state.request_counts
        assert counts is not None
        ok = outcome["response"] is not None and outcome["response"]["status_code"] == 200
        counts.completed += ok
        counts.failed += not ok
        line = json.dumps({"id": f"batch_req_{number}", "custom_id": custom_id, **outcome}, separators=(",", ":"))
        (job.good if ok else job.bad).append(line.encode() + b"\n")

    async def _outcome(self, custom_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """A line's response and error, faults on purpose included: what breaks a live connection is an error here."""
        call_id, _ = split_custom_id(custom_id)
        # Ids that another program made are call ids as they are.
        name = call_id if Call(call_id, "", body).custom_id == custom_id else custom_id
        rule = self._faults.next(name, name)
        if rule is not None and rule.delay_s and rule.kind != "timeout":
            await asyncio.sleep(rule.delay_s)
        if rule is not None and rule.kind in _BREAKING_FAULTS:
            return {"response": None, "error": {"code": str(rule.kind), "message": rule.message}}
        if rule is not None and rule.status is not None:
            answer: AnswerLike = error_answer(rule.status, rule.message, code=rule.code)
        elif rule is not None and rule.kind == "context_length":
            answer = context_length_answer()
        else:
            answer = await self._answer(body, name)
        content = answer.body
        if answer.status == 0 or not isinstance(content, Mapping):
            return {"response": None, "error": {"code": "connection", "message": "the answer broke off"}}
        if rule is not None and rule.kind in ("empty_choices", "null_content"):
            content = without_answer(content, rule.kind)
        return {"response": {"status_code": answer.status, "request_id": f"req_{name}", "body": content}, "error": None}


def _requests(content: bytes) -> tuple[list[tuple[str, dict[str, Any]]], list[BatchError]]:
    """((custom_id, body) of every line of a request file, its errors): as at OpenAI, any error fails the whole batch."""
    requests: list[tuple[str, dict[str, Any]]] = []
    errors: list[BatchError] = []
    custom_ids: set[str] = set()
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            custom_id, body = _request(line)
        except AnswerError as error:
            cause = error.answer.body["error"] if isinstance(error.answer.body, Mapping) else {}
            errors.append(BatchError(code=cause["code"], line=number, message=cause["message"], param=cause["param"]))
            continue
        if custom_id in custom_ids:
            message = f"The custom_id {custom_id!r} stands twice"
            errors.append(BatchError(code="duplicate_custom_id", line=number, message=message, param="custom_id"))
        custom_ids.add(custom_id)
        requests.append((custom_id, body))
    if not requests and not errors:
        errors.append(BatchError(code="empty_file", message="The file holds no request"))
    if len(requests) > MOST_REQUESTS:
        errors.append(BatchError(code="too_many_requests", message=f"A batch takes {MOST_REQUESTS} requests"))
    return requests, errors[:100]


def _request(line: bytes) -> tuple[str, dict[str, Any]]:
    """(custom_id, body) of a line. Raises AnswerError."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise refused("This line is no JSON", None, "invalid_json_line") from None
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str) or not row["custom_id"]:
        raise refused("A request needs a custom_id", "custom_id", "missing_required_parameter")
    if row.get("method") != "POST" or row.get("url") != _ENDPOINT:
        raise refused(f"A request is a POST to {_ENDPOINT}", "url", "invalid_url")
    return row["custom_id"], parsed(json.dumps(row.get("body")).encode())


def refused(message: str, param: str | None, code: str = "invalid_value") -> AnswerError:
    """The error to raise at a request that cannot be met."""
    return AnswerError(error_answer(400, message, param=param, code=code))


def _object_response(model: Batch | FileObject | FileDeleted) -> Response:
    return response(ServerAnswer(200, model.model_dump(mode="json", warnings="error")))


async def json_object(request: Request) -> dict[str, Any]:
    """The body of a request for a job. Raises AnswerError."""
    try:
        body = json.loads(await read_json(request))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise refused("The request body must be a JSON object", None)
    return body


def listed(newest: Sequence[BaseModel], request: Request) -> Response:
    """A page of a list of jobs, ``newest`` first, as the request's ``after`` and ``limit`` say."""
    ids, after = [getattr(job, "id", "") for job in newest], request.query_params.get("after")
    start = ids.index(after) + 1 if after in ids else 0
    limit = request.query_params.get("limit", "20")
    most = min(100, int(limit)) if limit.isdecimal() and int(limit) > 0 else 20
    return _list_response(newest[start : start + most], more=len(newest) > start + most)


def _list_response(models: Iterable[BaseModel], *, more: bool) -> Response:
    data = [model.model_dump(mode="json", warnings="error") for model in models]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return response(ServerAnswer(200, {"object": "list", "data": data, **ends, "has_more": more}))


# The fine-tuning API that the local server has where a planted judge answers: jobs in memory, which "train" in no time.

FEWEST_EXAMPLES = 10
"""Examples that a training file has at least, as at OpenAI."""
_MOST_JOBS = 1000


@runtime_checkable
class Trains(Protocol):
    """An answerer whose models can be trained."""

    def fine_tuned(self, model: str, preferred: list[str]) -> str | None:
        """The name of the model that training ``model`` on these texts leaves; None where it serves no such model."""
        ...


class FineTuningService:
    """The endpoints of the fine-tuning API over the files of ``files``."""

    def __init__(self, trains: Trains, files: BatchService) -> None:
        self._trains, self._files = trains, files
        self._jobs: dict[str, FineTuningJob] = {}
        files.purposes = (*files.purposes, "fine-tune")

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        guarded, place = self._files.guarded, "/v1/fine_tuning/jobs"
        return [
            Route(place, guarded(self._create, "fine_tuning/create"), methods=["POST"]),
            Route(place, guarded(self._list, "fine_tuning/list"), methods=["GET"]),
            Route(f"{place}/{{id}}", guarded(self._retrieve, "fine_tuning/retrieve"), methods=["GET"]),
        ]

    async def _create(self, request: Request) -> Response:
        body = await json_object(request)
        content = self._files.content(str(body.get("training_file")))
        if content is None:
            raise refused(f"No such File object: {body.get('training_file')}", "training_file")
        stated = body.get("method")
        method: dict[str, Any] = stated if isinstance(stated, dict) else {"type": "supervised"}
        kind = str(method.get("type"))
        if kind not in ("supervised", "dpo"):
            raise refused(f"This server trains by supervised or dpo, not {kind!r}", "method")
        if len(self._jobs) >= _MOST_JOBS:
            raise AnswerError(error_answer(429, f"{_MOST_JOBS} jobs exist", code="rate_limit_exceeded"))
        chosen = method.get(kind)
        settings = chosen.get("hyperparameters") if isinstance(chosen, dict) else None
        epochs = settings.get("n_epochs", 1) if isinstance(settings, dict) else 1
        job = FineTuningJob(
            id=f"ftjob-{uuid.uuid4().hex}", created_at=int(time.time()), finished_at=int(time.time()), model=str(body.get("model")),
            object="fine_tuning.job", organization_id="judgeloop", result_files=[], seed=int(body.get("seed") or 0),
            status="succeeded", training_file=str(body["training_file"]), hyperparameters=Hyperparameters(n_epochs=epochs),
        )  # fmt: skip
        preferred, problem = _preferred(content, kind)
        job.fine_tuned_model = None if problem else self._trains.fine_tuned(job.model, preferred)
        if job.fine_tuned_model is None:
            job.status = "failed"
            message = problem or f"The model {job.model!r} cannot be fine-tuned"
            job.error = Error(code="invalid_training_file" if problem else "model_not_available", message=message)
        else:
            tokens = sum(len(tokenize(text)) for text in preferred)
            job.trained_tokens = tokens * (epochs if isinstance(epochs, int) else 1)
        self._jobs[job.id] = job
        return _shown(job)

    async def _retrieve(self, request: Request) -> Response:
        name = request.path_params["id"]
        if name not in self._jobs:
            raise AnswerError(error_answer(404, f"No such fine-tuning job: {name}", code="not_found", param="id"))
        return _shown(self._jobs[name])

    async def _list(self, request: Request) -> Response:
        return listed(list(reversed(self._jobs.values())), request)


def _preferred(content: bytes, kind: str) -> tuple[list[str], str]:
    """(the preferred answer of every example, what is wrong with the file)."""
    texts: list[str] = []
    for number, line in enumerate((line for line in content.split(b"\n") if line.strip()), start=1):
        try:
            row = json.loads(line)
            turns = row["preferred_output"] if kind == "dpo" else row["messages"]
            if kind == "dpo" and not (
                row["input"]["messages"] and row["non_preferred_output"][0]["content"] is not None
            ):
                raise ValueError
            answer = turns[-1]
            if not isinstance(answer, Mapping) or answer["role"] != "assistant":
                raise ValueError
            texts.append(str(answer["content"]))
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            return [], f"Line {number} is no example of method {kind}"
    if len(texts) < FEWEST_EXAMPLES:
        return [], f"The file has {len(texts)} examples; training takes {FEWEST_EXAMPLES} or more"
    return texts, ""


def _shown(job: FineTuningJob) -> Response:
    content: dict[str, Any] = job.model_dump(mode="json", warnings="error")
    return response(ServerAnswer(200, content))
