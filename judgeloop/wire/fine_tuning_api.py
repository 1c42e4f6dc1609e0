"""The client of an endpoint's fine-tuning API: uploads preferences, creates and watches jobs.

``serving/fine_tuning_api`` is the other side, a server that plays one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from judgeloop.errors import EndpointFailed
from judgeloop.wire.client import brief
from judgeloop.wire.jobs_api import JobsConnection, Refused, text_of

SUCCEEDED, ENDED = "succeeded", ("succeeded", "failed", "cancelled")
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
        while (state := await self.state(job_id)).status not in ENDED:
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)
        return state

    async def state(self, job_id: str) -> JobState:
        """The state of a job."""
        try:
            job = await self.tried(f"job {job_id}", lambda: self._openai.fine_tuning.jobs.retrieve(job_id))
        except Refused as refusal:
            raise EndpointFailed(
                f"{self.where}: {self.job} {job_id} cannot be looked up: {refusal}; check the key in {self.key_variable}. The same command looks again"
            ) from None
        began, end = getattr(job, "created_at", None), getattr(job, "finished_at", None)
        tokens = getattr(job, "trained_tokens", None)
        return JobState(
            status=text_of(job, "status"), model=text_of(job, "fine_tuned_model"),
            tokens=tokens if isinstance(tokens, int) else None,
            seconds=end - began if isinstance(began, int) and isinstance(end, int) else None,
            error=brief(self.scrub(text_of(getattr(job, "error", None), "message"))),
        )  # fmt: skip
