"""The client of an endpoint's Batch API: uploads request files, creates and watches batches, downloads their outputs.

``serving/batch_api`` is the other side, a server that has such an API; ``wire/batch_files`` reads and writes the files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judgeloop.errors import EndpointFailed, StorageFailed
from judgeloop.records import Call
from judgeloop.wire.cassette import Exchange
from judgeloop.wire.client import brief
from judgeloop.wire.jobs_api import JobsConnection, Refused, text_of
from judgeloop.wire.reply import SHORTEST_SECRET_IN_ANSWER, TransientFault, parse

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
                f"{self.where}: batch {batch_id} cannot be looked up: {refusal}; check the key in {self.key_variable}, or give its output with --collect. The same command looks again"
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
