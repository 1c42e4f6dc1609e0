"""``judgeloop audit --batch`` and ``--collect``: all calls that no recording answers, asked by batch files.

The audit's own asking runs dry: a client answers from the cassette and from outputs that came back, and writes every
other call into a request file. What hangs on an answer (the pairs that a model's edits make) is found in the next round.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from judgeloop.commands.questions import TRIAL_PREFIX
from judgeloop.commands.session import Observer
from judgeloop.errors import (
    AnswersOutstanding,
    BudgetReached,
    EndpointFailed,
    FolderMismatch,
    Interrupted,
    InvalidInput,
    StorageFailed,
)
from judgeloop.experiment.schema import Endpoint
from judgeloop.judging.judges import CHOICE_TRIAL_PREFIX, SCORE_TRIAL_PREFIX
from judgeloop.records import Call, Client, Reply, split_custom_id
from judgeloop.rundir import RunFolder
from judgeloop.wire import batch_files
from judgeloop.wire.batch_api import ENDED, BatchConnection, NoBatchAPI, exchange
from judgeloop.wire.batch_files import OutputLine, RequestFile, RequestFiles, answer_at, places
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.client import CONSECUTIVE_FAILURES, Ledger, WireClient, failure_message, setting_hint, worst_cost
from judgeloop.wire.reply import Refusal, read

# What an audit knows of its batches between two sittings: ``batch/jobs.json`` in its folder.

FOLDER = "batch"
_STATE = f"{FOLDER}/jobs.json"

Step = Literal["written", "creating", "sent", "answered", "done"]
"""written: nobody was asked · creating: a batch may exist · sent: it exists · answered: its output is here · done: recorded."""


@dataclass
class Job:
    """A request file. ``status`` is what the endpoint last said of its batch, ``error`` why it failed as a whole; ``outputs`` are files in ``batch/``."""

    file: str
    sha256: str
    endpoint: str
    model: str
    calls: int
    step: Step = "written"
    file_id: str = ""
    batch_id: str = ""
    status: str = ""
    error: str = ""
    outputs: list[str] = field(default_factory=list)


@dataclass
class _State:
    jobs: list[Job] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    collected: list[str] = field(default_factory=list)


class Jobs:
    """All jobs of a run folder. ``failures``: call id → attempts that failed so far; ``collected``: the hashes of output
    files whose failures are counted. Raises FolderMismatch where the state cannot be read."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.path = folder.path / FOLDER
        self._state = self._load()

    def _load(self) -> _State:
        path = self._folder.path / _STATE
        if not path.is_file():
            return _State()
        try:
            return TypeAdapter(_State).validate_python(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, ValidationError) as error:
            raise FolderMismatch(
                f"{path}: cannot be read ({type(error).__name__}); restore it, or delete it to forget the batches that were sent"
            ) from None

    def save(self) -> None:
        """Write it down, atomically."""
        content: dict[str, Any] = asdict(self._state)
        self._folder.write_json(_STATE, content)

    @property
    def all(self) -> list[Job]:
        """The jobs, oldest first."""
        return self._state.jobs

    @property
    def failures(self) -> dict[str, int]:
        """See the class."""
        return self._state.failures

    @property
    def collected(self) -> list[str]:
        """See the class."""
        return self._state.collected

    def at(self, *steps: Step) -> list[Job]:
        """The jobs at these steps."""
        return [job for job in self.all if job.step in steps]

    def requests(self, job: Job) -> Path:
        """A job's request file."""
        return self.path / job.file

    def outputs(self) -> list[Path]:
        """The output files of answered jobs."""
        return [self.path / name for job in self.at("answered") for name in job.outputs]

    def discard(self, drafts: Iterable[RequestFile]) -> None:
        """Delete drafts that nobody needs."""
        for draft in drafts:
            draft.path.unlink(missing_ok=True)

    def adopt(self, drafts: Iterable[RequestFile]) -> list[Job]:
        """The jobs of a round's drafts: one that was written before and says the same stays; other unsent ones go."""
        unsent = {(job.sha256, job.endpoint): job for job in self.at("written")}
        found = []
        try:
            for draft in drafts:
                job = unsent.pop((draft.sha256, draft.group), None)
                if job is None:
                    job = Job(self._next(), draft.sha256, draft.group, draft.model, draft.calls)
                    self.all.append(job)
                draft.path.replace(self.requests(job))
                found.append(job)
            for stale in unsent.values():
                self.requests(stale).unlink(missing_ok=True)
                self.all.remove(stale)
        except OSError as error:
            raise StorageFailed(
                f"{self.path}: cannot be written ({error.strerror or error}); make room and run the same command again"
            ) from None
        self.save()
        return found

    def _next(self) -> str:
        numbers = [int(job.file.removeprefix("requests-").removesuffix(".jsonl")) for job in self.all]
        return f"requests-{max(numbers, default=0) + 1:03d}.jsonl"


def refuse_running(folder: RunFolder) -> None:
    """Raises InvalidInput where a batch is under way: asked live, its calls would be paid for twice."""
    running = Jobs(folder).at("creating", "sent", "answered")
    if running:
        names = ", ".join(job.batch_id or job.file for job in running[:3])
        raise InvalidInput(
            f"{folder.path}: {sum(job.calls for job in running)} calls of this audit are in a batch ({names}); go on with --batch, or delete {folder.path / FOLDER} to ask them again, which may pay for them twice"
        )


# One round of an audit by batches: the asking runs dry, answers that came back are recorded, the rest is written down.

_TRIALS = (TRIAL_PREFIX, SCORE_TRIAL_PREFIX, CHOICE_TRIAL_PREFIX)
_MOST_NAMED = 3


class OutputLines:
    """The lines of output files by the request that they answer. ``faults`` are sentences about lines that are no answers."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Reads every file once; raises InvalidInput where one cannot be read."""
        self._places: dict[tuple[str, str], OutputLine] = {}
        self.faults: list[str] = []
        self._twice: list[str] = []
        self._asked: dict[str, set[str]] = {}
        for path in files:
            for place in places(path):
                if place.fault:
                    self.faults.append(place.fault)
                elif (first := self._places.setdefault((place.call, place.digest), place)) is not place:
                    self._twice.append(f"{place.where}: {place.call} (first at {first.where})")

    def place(self, call: Call) -> OutputLine | None:
        """Where a request is answered first, or None. What was looked for is no stray."""
        call_id, digest = split_custom_id(call.custom_id)
        self._asked.setdefault(call_id, set()).add(digest)
        return self._places.get((call_id, digest))

    def others(self) -> list[str]:
        """A sentence on every line that answers a call of this audit's name but another request: other texts, another
        prompt, model or setting."""
        return [
            f"{place.where}: custom_id: answers {call} as another request has it ({f'#{digest}' if digest else 'it bears no digest of its request'}; this audit's is #{' or #'.join(sorted(self._asked[call]))}): other texts, another prompt, model or setting"
            for (call, digest), place in self._places.items() if call in self._asked and digest not in self._asked[call]
        ]  # fmt: skip

    def strays(self) -> Iterator[str]:
        """A sentence on lines that no call of this audit asked for, on calls answered twice, on lines that are no answer."""
        foreign = [f"{place.where}: {call}" for (call, _), place in self._places.items() if call not in self._asked]
        for said, some in (
            ("no call of this audit, left out", foreign),
            ("another request's answer, left out", self.others()),
            ("answered twice, the first answer counts", self._twice),
            ("no answer", self.faults),
        ):
            if some:
                more = f" and {len(some) - _MOST_NAMED} more" if len(some) > _MOST_NAMED else ""
                yield f"{said}: {'; '.join(some[:_MOST_NAMED])}{more}"


class BatchClient:
    """A client (records.Client) that sends nothing but trial calls. It answers from the cassette, then from ``found``; every
    other call is written into ``requests``.

    A failed answer counts as an attempt (``failures`` holds the earlier ones) and is asked again until the endpoint's
    attempts are used up; then, and where asking again cannot help, the failure is recorded. ``lost``: the custom_ids of batches
    that have ended, of which a missing one has failed. ``counted``: the files whose failures count; None: all.
    """

    def __init__(
        self, live: WireClient, cassette: Cassette, endpoints: Mapping[str, Endpoint], found: OutputLines, requests: RequestFiles,
        *, failures: Mapping[str, int], lost: set[str], counted: set[Path] | None = None,
    ) -> None:  # fmt: skip
        self.found = found
        self._live, self._cassette, self._endpoints, self._requests = live, cassette, endpoints, requests
        self._before, self._lost, self._counted = failures, lost, counted
        self._asked: set[tuple[str, str]] = set()
        self._ended: dict[tuple[str, str], Exchange] = {}
        self._failed: dict[str, list[Exchange]] = {}
        self._alive: set[str] = set()
        self.failures: dict[str, int] = {}
        """Calls that failed in this round, with their attempts so far."""
        self.files: list[RequestFile] = []
        self.named: list[str] = []
        self.recorded, self.again, self.pending = 0, 0, 0
        self.worst_cost = 0.0
        self.other_models: dict[tuple[str, str], int] = {}
        """(model asked, model that the reply names) → answers, where the two differ."""
        self.refused = ""
        """Why the endpoint must be mended first, empty if it need not."""

    @property
    def calls(self) -> int:
        """Calls that are answered, recorded ones included."""
        return self._live.ledger.calls

    @property
    def cost(self) -> float:
        """What they cost, in US dollars."""
        return self._live.ledger.cost

    async def ask(self, call: Call) -> Reply:
        """See records.Client; a call that is not answered yet fails with ``not_answered_yet``."""
        identity = (call.call_id, call.key)
        place = self.found.place(call)
        known = self._cassette.get(*identity)
        if known is not None:
            if known.status == 200 and not known.fault:
                self._alive.add(call.endpoint)
            return await self._live.ask(call)
        if _is_trial(call.call_id):
            return await self._tried(call)
        if identity in self._ended:
            ended = self._ended[identity]
            return read(ended.status, ended.response, ended.fault)
        if identity in self._asked:
            return Reply(None, failure="not_answered_yet")
        self._asked.add(identity)
        if call.route:
            raise InvalidInput(f"--batch: {call.call_id} is asked by route {call.route}, which batch files do not have")
        if place is not None or call.custom_id in self._lost:
            reply = await self._answered(call, place)
            if reply is not None:
                return reply
        self._requests.add(call.endpoint, call.call_id, call.body)
        self.pending += 1
        self.worst_cost += worst_cost(self._endpoints[call.endpoint], call)
        if len(self.named) < _MOST_NAMED:
            self.named.append(call.call_id)
        return Reply(None, failure="not_answered_yet")

    async def _tried(self, call: Call) -> Reply:
        """How verdicts are read is asked before everything else, so it is asked live."""
        try:
            return await self._live.ask(call)
        except EndpointFailed as error:
            raise EndpointFailed(
                f"{error} (--verdict auto asks a trial call live; state logprob, json or text and none is)"
            ) from None

    async def _answered(self, call: Call, place: OutputLine | None) -> Reply | None:
        """The reply that came back; None where the call is to be asked again."""
        counts = place is None or self._counted is None or place.path in self._counted
        attempts = max(1, self._before.get(call.call_id, 0) + counts)
        try:
            if place is None:
                ended = exchange(call, 0, None, "no_answer", attempts)
            else:
                answer = answer_at(place)
                ended = exchange(call, answer.status, answer.response, answer.fault, attempts)
        except Refusal as refusal:
            self.refused = self.refused or f"endpoint {call.endpoint}: {place.where if place else ''}: {refusal}; mend that, and run the same command to ask again"  # fmt: skip
            return None
        reply = read(ended.status, ended.response, ended.fault)
        if (
            not reply.failure or reply.failure == "context_length"
        ):  # the latter: the endpoint is well, this text too long
            self._alive.add(call.endpoint)
            self._cassette.append(ended)
            self.recorded += 1
            models = str(call.body.get("model", "")), reply.model
            if reply.model and not _same_model(*models):
                self.other_models[models] = self.other_models.get(models, 0) + 1
            return await self._live.ask(call)
        self._failed.setdefault(call.endpoint, []).append(ended)
        if ended.fault and not (counts and attempts >= self._endpoints[call.endpoint].attempts):
            self.again += 1
            if counts:
                self.failures[call.call_id] = attempts
            return None
        self._ended[call.call_id, call.key] = ended
        return reply

    def finish(self) -> None:
        """Record the failures that are final, unless the endpoint fails as a whole. Closes the request files."""
        self.close()
        for name, failed in self._failed.items():
            if name in self._alive or len(failed) < CONSECUTIVE_FAILURES:
                continue
            reason = read(failed[-1].status, failed[-1].response, failed[-1].fault).failure
            message = failure_message(failed[-1])
            self.refused = self.refused or (
                f"endpoint {name}: all {len(failed)} answers failed, the last with {reason}{message}; mend that and run the same command to ask again{setting_hint(message)}"
            )
            # As if they had not been asked: to mend the endpoint must not cost attempts.
            for one in failed:
                self.failures.pop(one.call, None)
                self._ended.pop((one.call, one.key), None)
        for ended in self._ended.values():
            self._cassette.append(ended)
            self.recorded += 1

    def close(self) -> None:
        """The request files so far, whole on the disk."""
        self.files = self._requests.close()


def _same_model(asked: str, said: str) -> bool:
    # An alias is answered by its snapshot: gpt-4o by gpt-4o-2024-08-06.
    return bool(re.fullmatch(rf"(.*/)?{re.escape(asked.rpartition('/')[2])}([-@]\d[\d-]*)?", said))


def _is_trial(call_id: str) -> bool:
    # <prefix>/<judge>/<mode>: a judge may be called "trial", but its calls have longer names.
    return any(call_id.startswith(f"{prefix}/") and call_id.count("/") == prefix.count("/") + 2 for prefix in _TRIALS)


_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.25, 30.0
_NAMED = 3
_LOG = logging.getLogger("judgeloop.batch")

Sweep = Callable[[Client], Awaitable[None]]
"""Asks a client everything that the audit asks, and throws away what comes of it."""


class AuditBatches:
    """The batches of one audit. ``limits`` bears the budget, which a batch is held against before it is sent."""

    def __init__(
        self, folder: RunFolder, endpoints: Mapping[str, Endpoint], cassette: Cassette, limits: Ledger, sweep: Sweep,
        told: Observer | None,
    ) -> None:  # fmt: skip
        self._folder, self._endpoints, self._cassette = folder, endpoints, cassette
        self._limits, self._sweep, self._told = limits, sweep, told
        self._jobs = Jobs(folder)
        self._lines: dict[str, BatchConnection] = {}
        self._without: dict[str, str] = {}
        """The endpoints that have no Batch API, and what is said of that."""

    async def send(self) -> None:
        """Ask what is outstanding by batches, round by round, until the cassette holds every answer.

        Raises AnswersOutstanding where an endpoint has no Batch API, BudgetReached, EndpointFailed, InvalidInput.
        """
        try:
            while True:
                await self._settle()
                done = await self._round(OutputLines(self._jobs.outputs()))
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
        found = OutputLines(files)
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

    async def _round(self, found: OutputLines, counted: set[Path] | None = None) -> BatchClient:
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
            done = BatchClient(
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

    def _close_answered(self, done: BatchClient) -> None:
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

    def _broken(self, job: Job, done: BatchClient) -> str:
        where = f"endpoint {job.endpoint}: batch {job.batch_id}"
        if job.status == "failed":
            return f"{where} failed: {job.error or 'no reason given'}; mend that and run the same command to send its calls anew"
        return f"{where} was cancelled there; {_of(done.recorded, 'answer')} recorded, run the same command to send the rest"

    def _check_budget(self, done: BatchClient) -> None:
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

    def _line(self, endpoint: str) -> BatchConnection:
        if endpoint not in self._lines:
            self._lines[endpoint] = BatchConnection(endpoint, self._endpoints[endpoint], os.environ)
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

    def _missing(self, done: BatchClient, running: Sequence[Job]) -> AnswersOutstanding:
        total, jobs = done.pending, self._jobs.at("written")
        lines = [f"{split_custom_id(call)[0]} ({self._jobs.requests(job)}:{number})" for job in jobs
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

    def _note_strays(self, found: OutputLines) -> None:
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
