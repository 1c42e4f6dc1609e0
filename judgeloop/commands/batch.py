"""``judgeloop audit --batch`` and ``--collect``: all calls that no recording answers, asked by batch files.

The audit's own asking runs dry: a client answers from the cassette and from outputs that came back, and writes every
other call into a request file. What hangs on an answer (the pairs that a model's edits make) is found in the next round.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from judgeloop.api.batch_jobs import Job, Jobs
from judgeloop.api.batch_round import Found, Round
from judgeloop.commands.session import Observer
from judgeloop.errors import AnswersOutstanding, BudgetReached, EndpointFailed, Interrupted, InvalidInput
from judgeloop.experiment.blocks import Endpoint
from judgeloop.records import Client, parted
from judgeloop.rundir import RunFolder
from judgeloop.wire import batch_files
from judgeloop.wire.batch_api import ENDED, BatchLine, NoBatchAPI
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import Ledger, WireClient

_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.25, 30.0
_NAMED = 3
_LOG = logging.getLogger("judgeloop.batch")

Sweep = Callable[[Client], Awaitable[None]]
"""Asks a client everything that the audit asks, and throws away what comes of it."""


class Batching:
    """The batches of one audit. ``limits`` bears the budget, which a batch is held against before it is sent."""

    def __init__(
        self, folder: RunFolder, endpoints: Mapping[str, Endpoint], cassette: Cassette, limits: Ledger, sweep: Sweep,
        told: Observer | None,
    ) -> None:  # fmt: skip
        self._folder, self._endpoints, self._cassette = folder, endpoints, cassette
        self._limits, self._sweep, self._told = limits, sweep, told
        self._jobs = Jobs(folder)
        self._lines: dict[str, BatchLine] = {}
        self._without: dict[str, str] = {}
        """The endpoints that have no Batch API, and what is said of that."""

    async def send(self) -> None:
        """Ask what is outstanding by batches, round by round, until the cassette holds every answer.

        Raises AnswersOutstanding where an endpoint has no Batch API, BudgetReached, EndpointFailed, InvalidInput.
        """
        try:
            while True:
                await self._settle()
                done = await self._round(Found(self._jobs.outputs()))
                self._close_answered(done)
                if not done.files:
                    self._jobs.adopt(())
                    return
                self._check_budget(done)
                jobs = self._jobs.adopt(done.files)
                for job in jobs:
                    if job.endpoint not in self._without:
                        await self._submit(job)
                if all(job.endpoint in self._without for job in jobs):
                    raise self._nobody_answers(jobs)
        finally:
            for line in self._lines.values():
                await line.close()

    async def collect(self, files: Sequence[Path]) -> None:
        """Record what finished output files answer. Raises AnswersOutstanding where calls are left, InvalidInput where a
        line is none (the others are recorded)."""
        hashes = [_hash(path) for path in files]
        fresh = {path for path, known in zip(files, hashes, strict=True) if known not in self._jobs.collected}
        found = Found(files)
        done = await self._round(found, counted=fresh)
        self._note_strays(found)
        self._jobs.failures.update(done.failures)
        if done.refused:
            self._jobs.discard(done.files)
            self._jobs.save()
            raise EndpointFailed(done.refused)
        self._jobs.collected.extend(dict.fromkeys(one for one in hashes if one not in self._jobs.collected))
        running = self._jobs.at("creating", "sent", "answered")
        if not done.files:
            for job in running:
                job.step = "done"
            self._jobs.adopt(())
        elif running:  # the rest is theirs: what they have may not be asked by another file too
            self._jobs.discard(done.files)
            self._jobs.save()
        else:
            self._jobs.adopt(done.files)
        if others := found.others():
            waiting = ", ".join(str(self._jobs.requests(job)) for job in self._jobs.at("written"))
            raise InvalidInput(
                f"{others[0]}{_more(others)}; {f'have {waiting} answered and give its output' if waiting else 'delete the line'}. What it answers besides is recorded ({_of(done.recorded, 'answer')})"
            )
        if found.faults:
            raise InvalidInput(
                f"{found.faults[0]}{_more(found.faults)}; what it answers besides is recorded ({_of(done.recorded, 'answer')}), mend the file or delete the line and run the same command"
            )
        if done.files:
            raise self._missing(done, running)

    # -- one round -----------------------------------------------------------------------------------------------------

    async def _round(self, found: Found, counted: set[Path] | None = None) -> Round:
        """Ask everything dry. What ``found`` answers is recorded; the rest stands in draft files."""
        self._say("collecting calls")
        ledger = Ledger(self._limits.max_cost, self._limits.max_calls)
        ended = self._jobs.at("answered") if counted is None else ()
        lost = {
            call
            for job in ended if job.status in ("completed", "expired")
            for call in batch_files.calls_of(self._jobs.requests(job))
        }  # fmt: skip
        async with WireClient(self._endpoints, self._cassette, ledger=ledger) as live:
            done = Round(
                live, self._cassette, self._endpoints, found, batch_files.RequestFiles(self._jobs.path),
                failures=self._jobs.failures, lost=lost, counted=counted,
            )  # fmt: skip
            try:
                await self._sweep(done)
            except BaseException:
                done.close()
                self._jobs.discard(done.files)
                raise
        done.finish()
        for (asked, said), count in done.other_models.items():
            self._note(f"{_of(count, 'answer')} to requests for {asked} name the model {said}: see that it is the judge you mean")  # fmt: skip
        return done

    def _close_answered(self, done: Round) -> None:
        """What answered jobs gave is recorded: they are done. Raises EndpointFailed for what ends an audit."""
        answered = self._jobs.at("answered")
        for job in answered:
            job.step = "done"
        self._jobs.failures.update(done.failures)
        problem = done.refused or next((self._broken(job, done) for job in answered if job.status in ("failed", "cancelled")), "")  # fmt: skip
        if problem:
            self._jobs.discard(done.files)
        if answered:
            self._jobs.save()
            self._note_strays(done.found)
            self._note(f"{_of(done.recorded, 'answer')} recorded" + (f", {_of(done.again, 'call')} to ask again" if done.again else ""))  # fmt: skip
        if problem:
            raise EndpointFailed(problem)

    def _broken(self, job: Job, done: Round) -> str:
        where = f"endpoint {job.endpoint}: batch {job.batch_id}"
        if job.status == "failed":
            return f"{where} failed: {job.error or 'no reason given'}; mend that and run the same command to send its calls anew"
        return f"{where} was cancelled there; {_of(done.recorded, 'answer')} recorded, run the same command to send the rest"

    def _check_budget(self, done: Round) -> None:
        limits, calls = self._limits, done.calls + done.pending
        problem = ""
        if limits.max_calls is not None and calls > limits.max_calls:
            problem = f"budget of {limits.max_calls} calls: with this batch there would be {calls}; raise --max-calls"
        cost = done.cost + done.worst_cost
        if limits.max_cost is not None and cost > limits.max_cost:
            problem = f"budget of {limits.max_cost:g} USD: this batch may cost up to {done.worst_cost:.4f}, with {done.cost:.4f} spent; raise --max-cost"
        if problem:
            self._jobs.discard(done.files)
            raise BudgetReached(f"{problem} and run the same command, nothing of it was sent")

    # -- at the endpoint -----------------------------------------------------------------------------------------------

    def _line(self, endpoint: str) -> BatchLine:
        if endpoint not in self._lines:
            self._lines[endpoint] = BatchLine(endpoint, self._endpoints[endpoint], os.environ)
        return self._lines[endpoint]

    async def _submit(self, job: Job) -> None:
        """Upload a request file and create its batch; every step is written down before the next one."""
        line, perhaps = self._line(job.endpoint), job.step == "creating"
        try:
            if not job.file_id:
                self._say(f"uploading {job.file}: {_of(job.calls, 'call')} of {job.model}")
                job.file_id = await line.upload(self._jobs.requests(job))
            job.step = "creating"
            self._jobs.save()
            job.batch_id = await line.create(job.file_id, job.file, perhaps=perhaps)
            job.step = "sent"
            self._note(
                f"batch {job.batch_id} is sent: {_of(job.calls, 'call')} of {job.model}; Ctrl-C leaves it running"
            )
        except NoBatchAPI as none:
            job.step, job.file_id = "written", ""
            self._without[job.endpoint] = str(none)
        self._jobs.save()

    async def _settle(self) -> None:
        """Wait until every batch that was sent has ended, and fetch what it gave."""
        for job in self._jobs.at("creating"):
            await self._submit(job)
        wait, said = _FIRST_LOOK_S, ""
        while running := self._jobs.at("sent"):
            done, total, statuses = 0, 0, []
            for job in running:
                state = await self._line(job.endpoint).state(job.batch_id)
                job.status, job.error = state.status, state.error
                done, total = done + state.done, total + (state.total or job.calls)
                statuses.append(state.status.replace("_", " "))
                if state.status in ENDED:
                    job.outputs = await self._fetched(job, state.files)
                    job.step = "answered"
                    self._jobs.save()
            if self._jobs.at("sent"):
                if (now := f"{done:,} of {total:,} ({', '.join(dict.fromkeys(statuses))})") != said:
                    said = now
                    self._say(f"waiting for {'the batch' if len(running) == 1 else f'{len(running)} batches'}: {said}")
                await asyncio.sleep(wait)
                wait = min(_LONGEST_LOOK_S, 1.5 * wait)

    async def _fetched(self, job: Job, files: Sequence[str]) -> list[str]:
        number, names = job.file.removeprefix("requests-").removesuffix(".jsonl"), []
        for place, file_id in enumerate(files):
            names.append(f"{'output' if place == 0 else 'errors'}-{number}.jsonl")
            await self._line(job.endpoint).download(file_id, self._jobs.path / names[-1])
        return names

    # -- what is said --------------------------------------------------------------------------------------------------

    def _nobody_answers(self, jobs: Sequence[Job]) -> AnswersOutstanding:
        return self._outstanding("; ".join(dict.fromkeys(self._without[job.endpoint] for job in jobs)), jobs)

    def _missing(self, done: Round, running: Sequence[Job]) -> AnswersOutstanding:
        total, jobs = done.pending, self._jobs.at("written")
        lines = [f"{parted(call)[0]} ({self._jobs.requests(job)}:{number})" for job in jobs
                 for call, number in batch_files.calls_of(self._jobs.requests(job)).items()]  # fmt: skip
        named = ", ".join(lines[:_NAMED] or done.named[:_NAMED]) + (
            f" and {total - _NAMED} more" if total > _NAMED else ""
        )
        said = f"{_of(done.recorded, 'answer')} recorded, {_of(total, 'call')} without one: {named}"
        if running:
            batches = ", ".join(job.batch_id or job.file for job in running)
            return AnswersOutstanding(f"{said}; a batch is under way ({batches}), go on with --batch")
        return self._outstanding(said, jobs)

    def _outstanding(self, said: str, jobs: Sequence[Job]) -> AnswersOutstanding:
        files = ", ".join(str(self._jobs.requests(job)) for job in jobs)
        return AnswersOutstanding(
            f"{said}. {_of(sum(job.calls for job in jobs), 'call')} wait in {files}: have them answered and give the output with --collect, or run the same command without --batch and --collect to ask them live",
            [(job.model, self._jobs.requests(job)) for job in jobs],
        )

    def _note_strays(self, found: Found) -> None:
        for said in found.strays():
            self._note(said)

    def _say(self, text: str) -> None:
        if self._told:
            self._told.stage(text)

    def _note(self, text: str) -> None:
        if self._told:
            self._told.note(text)
        else:
            _LOG.info(text)


def interrupted(folder: RunFolder) -> Interrupted:
    """What is said when the user stops an audit by batches: what goes on without him."""
    names = []
    with suppress(InvalidInput):
        names = [job.batch_id or f"of {job.file}" for job in Jobs(folder).at("creating", "sent")]
    if not names:
        return Interrupted("interrupted; all answers so far are recorded, run the same command to resume")
    return Interrupted(
        f"interrupted; batch {', '.join(names)} goes on at the endpoint, run the same command to wait for it and collect it"
    )


def _more(said: Sequence[str]) -> str:
    return f" (and {len(said) - 1} more such line{'' if len(said) == 2 else 's'})" if len(said) > 1 else ""


def _of(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(
            f"--collect: {path}: cannot be read ({error.strerror or error}); give a batch's output file"
        ) from None
