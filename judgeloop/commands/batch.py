"""``judgeloop audit --batch`` and ``--collect``: all calls that no recording answers, asked by batch files.

The audit's own asking runs against a client that sends nothing: it answers from the cassette and from output files that
came back, and writes every other call into a request file. Calls that depend on an answer (about the pairs that a model's
edits make) follow in the next round.
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
from judgeloop.wire.batch_files import OutputLine, RequestFile, RequestFiles, answer_at, places
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.client import CONSECUTIVE_FAILURES, Ledger, WireClient, failure_words, worst_cost
from judgeloop.wire.jobs_api import ENDED, BatchConnection, NoSuchAPI, exchange
from judgeloop.wire.reply import Refusal, read

FOLDER = "batch"
_STATE = f"{FOLDER}/jobs.json"
_TRIALS = (TRIAL_PREFIX, SCORE_TRIAL_PREFIX, CHOICE_TRIAL_PREFIX)
_MOST_NAMED = 3
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.25, 30.0
_LOG = logging.getLogger("judgeloop.batch")

Step = Literal["written", "creating", "sent", "answered", "done"]
"""written: not sent · creating: a batch may exist · sent: it exists · answered: its output is here · done: recorded."""

AskAll = Callable[[Client], Awaitable[None]]
"""Asks a client everything that the audit asks, and discards the results."""


# -- the jobs of a run folder: batch/jobs.json -------------------------------------------------------------------------


@dataclass
class Job:
    """A request file and its batch. ``status`` is the batch's last one at the endpoint, ``error`` why it failed as a whole;
    ``outputs`` are names of files in ``batch/``."""

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
    """All jobs of a run folder, kept between two commands. Raises FolderMismatch where the state cannot be read."""

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
        """Write the state, atomically."""
        content: dict[str, Any] = asdict(self._state)
        self._folder.write_json(_STATE, content)

    @property
    def all(self) -> list[Job]:
        """The jobs, oldest first."""
        return self._state.jobs

    @property
    def failures(self) -> dict[str, int]:
        """Call id → attempts that failed so far."""
        return self._state.failures

    @property
    def collected(self) -> list[str]:
        """The hashes of output files whose failures are counted."""
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
        """Delete request files that are not needed."""
        for draft in drafts:
            draft.path.unlink(missing_ok=True)

    def adopt(self, drafts: Iterable[RequestFile]) -> list[Job]:
        """The jobs of a round's request files. An unsent job with the same requests stays; other unsent ones are removed.
        Raises StorageFailed."""
        unsent = {(job.sha256, job.endpoint): job for job in self.at("written")}
        jobs = []
        try:
            for draft in drafts:
                job = unsent.pop((draft.sha256, draft.group), None)
                if job is None:
                    job = Job(self._next_file(), draft.sha256, draft.group, draft.model, draft.calls)
                    self.all.append(job)
                draft.path.replace(self.requests(job))
                jobs.append(job)
            for stale in unsent.values():
                self.requests(stale).unlink(missing_ok=True)
                self.all.remove(stale)
        except OSError as error:
            raise StorageFailed(
                f"{self.path}: cannot be written ({error.strerror or error}); make room and run the same command again"
            ) from None
        self.save()
        return jobs

    def _next_file(self) -> str:
        return f"requests-{max((int(_number(job)) for job in self.all), default=0) + 1:03d}.jsonl"


def _number(job: Job) -> str:
    """The digits in a job's file name."""
    return job.file.removeprefix("requests-").removesuffix(".jsonl")


def refuse_running(folder: RunFolder) -> None:
    """Raises InvalidInput where a batch is under way: asked live, its calls would be paid for twice."""
    running = Jobs(folder).at("creating", "sent", "answered")
    if running:
        names = ", ".join(job.batch_id or job.file for job in running[:3])
        raise InvalidInput(
            f"{folder.path}: {sum(job.calls for job in running)} calls of this audit are in a batch ({names}); go on with --batch, or delete {folder.path / FOLDER} to ask them again, which may pay for them twice"
        )


# -- one round: answers that came back are recorded, other calls are written into request files ------------------------


class OutputLines:
    """The lines of output files by the request that they answer. ``faults`` are sentences about lines that are no answer."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Reads every file once; raises InvalidInput where one cannot be read."""
        self._places: dict[tuple[str, str], OutputLine] = {}
        self.faults: list[str] = []
        self._repeated: list[str] = []
        self._asked: dict[str, set[str]] = {}
        """Call id → digests of the audit's requests that were looked up."""
        for path in files:
            for place in places(path):
                if place.fault:
                    self.faults.append(place.fault)
                elif (first := self._places.setdefault((place.call, place.digest), place)) is not place:
                    self._repeated.append(f"{place.where}: {place.call} (first at {first.where})")

    def place(self, call: Call) -> OutputLine | None:
        """Where a request is answered first, or None. A call that was looked up is no stray."""
        call_id, digest = split_custom_id(call.custom_id)
        self._asked.setdefault(call_id, set()).add(digest)
        return self._places.get((call_id, digest))

    def other_requests(self) -> list[str]:
        """A sentence on every line that answers a call of the audit's by its id but not by its request: other texts, another
        prompt, model or setting."""
        return [
            f"{place.where}: custom_id: answers {call} as another request has it ({f'#{digest}' if digest else 'without a digest of its request'}; this audit's is #{' or #'.join(sorted(self._asked[call]))}): other texts, another prompt, model or setting"
            for (call, digest), place in self._places.items() if call in self._asked and digest not in self._asked[call]
        ]  # fmt: skip

    def strays(self) -> Iterator[str]:
        """A sentence each on lines of calls that are not this audit's, on answers to other requests, on calls answered twice,
        and on lines that are no answer."""
        foreign = [f"{place.where}: {call}" for (call, _), place in self._places.items() if call not in self._asked]
        for problem, lines in (
            ("no call of this audit, left out", foreign),
            ("another request's answer, left out", self.other_requests()),
            ("answered twice, the first answer counts", self._repeated),
            ("no answer", self.faults),
        ):
            if lines:
                more = f" and {len(lines) - _MOST_NAMED} more" if len(lines) > _MOST_NAMED else ""
                yield f"{problem}: {'; '.join(lines[:_MOST_NAMED])}{more}"


class BatchClient:
    """A client (records.Client) that sends nothing but trial calls. It answers from the cassette, then from ``outputs``;
    every other call is written into ``requests``.

    A failed answer counts as an attempt (``failures`` holds the earlier ones) and is asked again until the endpoint's
    attempts are used up; then, and where asking again cannot help, the failure is recorded. ``ended``: the custom_ids of
    batches that have ended, so that a call without an answer has failed. ``counted``: the files whose failures count; None:
    all.
    """

    def __init__(
        self, live: WireClient, cassette: Cassette, endpoints: Mapping[str, Endpoint], outputs: OutputLines, requests: RequestFiles,
        *, failures: Mapping[str, int], ended: set[str], counted: set[Path] | None = None,
    ) -> None:  # fmt: skip
        self.outputs = outputs
        self._live, self._cassette, self._endpoints, self._requests = live, cassette, endpoints, requests
        self._earlier_failures, self._ended, self._counted = failures, ended, counted
        self._asked: set[tuple[str, str]] = set()
        self._final: dict[tuple[str, str], Exchange] = {}
        """Failures that are not asked again, by call id and key; recorded at the end of the round."""
        self._failed: dict[str, list[Exchange]] = {}
        """Endpoint → the failed answers of this round."""
        self._alive: set[str] = set()
        """Endpoints that have answered."""
        self.failures: dict[str, int] = {}
        """Calls that failed in this round, with their attempts so far."""
        self.files: list[RequestFile] = []
        self.named: list[str] = []
        """Some of the calls without an answer, for messages."""
        self.recorded, self.again, self.pending = 0, 0, 0
        """Numbers of calls: recorded in this round, to ask again after a failure, without an answer."""
        self.worst_cost = 0.0
        self.other_models: dict[tuple[str, str], int] = {}
        """(model asked, model that the reply names) → answers, where the two differ."""
        self.refused = ""
        """Why the endpoint must be mended first; empty where it works."""

    @property
    def calls(self) -> int:
        """Attempts that were made, recorded ones included."""
        return self._live.ledger.attempts

    @property
    def cost(self) -> float:
        """US dollars that the answered calls cost."""
        return self._live.ledger.cost

    async def ask(self, call: Call) -> Reply:
        """See records.Client; a call that is not answered yet fails with ``not_answered_yet``."""
        identity = (call.call_id, call.key)
        place = self.outputs.place(call)
        recorded = self._cassette.get(*identity)
        if recorded is not None:
            if recorded.status == 200 and not recorded.fault:
                self._alive.add(call.endpoint)
            return await self._live.ask(call)
        if _is_trial(call.call_id):
            return await self._trial(call)
        if identity in self._final:
            failure = self._final[identity]
            return read(failure.status, failure.response, failure.fault)
        if identity in self._asked:
            return Reply(None, failure="not_answered_yet")
        self._asked.add(identity)
        if call.route:
            raise InvalidInput(f"--batch: {call.call_id} is asked by route {call.route}, which batch files do not have")
        if place is not None or call.custom_id in self._ended:
            reply = await self._answer(call, place)
            if reply is not None:
                return reply
        self._requests.add(call.endpoint, call.call_id, call.body)
        self.pending += 1
        self.worst_cost += worst_cost(self._endpoints[call.endpoint], call)
        if len(self.named) < _MOST_NAMED:
            self.named.append(call.call_id)
        return Reply(None, failure="not_answered_yet")

    async def _trial(self, call: Call) -> Reply:
        """A trial call, asked live: every other request depends on how verdicts are read."""
        try:
            return await self._live.ask(call)
        except EndpointFailed as error:
            raise EndpointFailed(
                f"{error} (--verdict auto asks a trial call live; with --verdict logprob, json or text there is none)"
            ) from None

    async def _answer(self, call: Call, place: OutputLine | None) -> Reply | None:
        """The reply that came back (``place`` None: a batch ended without one); None where the call is to be asked again."""
        counts = place is None or self._counted is None or place.path in self._counted
        attempts = max(1, self._earlier_failures.get(call.call_id, 0) + counts)
        try:
            if place is None:
                came_back = exchange(call, 0, None, "no_answer", attempts)
            else:
                answer = answer_at(place)
                came_back = exchange(call, answer.status, answer.response, answer.fault, attempts)
        except Refusal as refusal:
            self.refused = self.refused or f"endpoint {call.endpoint}: {place.where if place else ''}: {refusal}; mend that, and run the same command to ask again"  # fmt: skip
            return None
        reply = read(came_back.status, came_back.response, came_back.fault)
        # A text that is too long for the context says nothing against the endpoint.
        if not reply.failure or reply.failure == "context_length":
            self._alive.add(call.endpoint)
            self._live.record(call, came_back)
            self.recorded += 1
            models = str(call.body.get("model", "")), reply.model
            if reply.model and not _same_model(*models):
                self.other_models[models] = self.other_models.get(models, 0) + 1
            return await self._live.ask(call)
        self._failed.setdefault(call.endpoint, []).append(came_back)
        if came_back.fault and not (counts and attempts >= self._endpoints[call.endpoint].attempts):
            self.again += 1
            if counts:
                self.failures[call.call_id] = attempts
            return None
        self._final[call.call_id, call.key] = came_back
        return reply

    def finish(self) -> None:
        """Record the failures that are final, unless the endpoint fails as a whole. Closes the request files."""
        self.close()
        for name, failed in self._failed.items():
            if name in self._alive or len(failed) < CONSECUTIVE_FAILURES:
                continue
            words = failure_words(read(failed[-1].status, failed[-1].response, failed[-1].fault))
            self.refused = self.refused or (
                f"endpoint {name}: all {len(failed)} answers failed, the last with {words}, then run the same command to ask again"
            )
            # The calls count as not asked: an endpoint that must be mended costs no attempts.
            for failure in failed:
                self.failures.pop(failure.call, None)
                self._final.pop((failure.call, failure.key), None)
        for failure in self._final.values():
            self._cassette.append(failure)
            self.recorded += 1

    def close(self) -> None:
        """Close the request files; ``files`` are those written so far."""
        self.files = self._requests.close()


def _same_model(asked: str, named: str) -> bool:
    """Whether a reply's model is the one asked, or its snapshot: gpt-4o is answered by gpt-4o-2024-08-06."""
    return bool(re.fullmatch(rf"(.*/)?{re.escape(asked.rpartition('/')[2])}([-@]\d[\d-]*)?", named))


def _is_trial(call_id: str) -> bool:
    """Whether a call id is <trial prefix>/<judge>/<mode>; a judge may be called "trial", but its calls have longer ids."""
    return any(call_id.startswith(f"{prefix}/") and call_id.count("/") == prefix.count("/") + 2 for prefix in _TRIALS)


# -- all rounds of an audit --------------------------------------------------------------------------------------------


class AuditBatches:
    """The batches of one audit. ``limits`` holds the budget, which is checked before a batch is sent."""

    def __init__(
        self, folder: RunFolder, endpoints: Mapping[str, Endpoint], cassette: Cassette, limits: Ledger, ask_all: AskAll,
        observer: Observer | None,
    ) -> None:  # fmt: skip
        self._folder, self._endpoints, self._cassette = folder, endpoints, cassette
        self._limits, self._ask_all, self._observer = limits, ask_all, observer
        self._jobs = Jobs(folder)
        self._lines: dict[str, BatchConnection] = {}
        self._without_api: dict[str, str] = {}
        """Endpoint → the message of its missing Batch API."""

    async def send(self) -> None:
        """Ask what is outstanding by batches, round by round, until the cassette holds every answer.

        Raises AnswersOutstanding where an endpoint has no Batch API, BudgetReached, EndpointFailed, InvalidInput.
        """
        try:
            while True:
                await self._wait()
                asked = await self._round(OutputLines(self._jobs.outputs()))
                self._close_answered(asked)
                if not asked.files:
                    self._jobs.adopt(())
                    return
                self._check_budget(asked)
                jobs = self._jobs.adopt(asked.files)
                for job in jobs:
                    if job.endpoint not in self._without_api:
                        await self._submit(job)
                if all(job.endpoint in self._without_api for job in jobs):
                    raise self._no_batch_api(jobs)
        finally:
            for line in self._lines.values():
                await line.close()

    async def collect(self, files: Sequence[Path]) -> None:
        """Record what finished output files answer. Raises AnswersOutstanding where calls are left, InvalidInput where a
        line is no answer to a call of this audit (the other lines are recorded), EndpointFailed."""
        hashes = [_hash(path) for path in files]
        fresh = {path for path, digest in zip(files, hashes, strict=True) if digest not in self._jobs.collected}
        outputs = OutputLines(files)
        asked = await self._round(outputs, counted=fresh)
        self._note_strays(outputs)
        self._jobs.failures.update(asked.failures)
        if asked.refused:
            self._jobs.discard(asked.files)
            self._jobs.save()
            raise EndpointFailed(asked.refused)
        self._jobs.collected.extend(dict.fromkeys(digest for digest in hashes if digest not in self._jobs.collected))
        running = self._jobs.at("creating", "sent", "answered")
        if not asked.files:
            for job in running:
                job.step = "done"
            self._jobs.adopt(())
        elif running:  # the remaining calls may be in these batches, and must not be paid for in another one too
            self._jobs.discard(asked.files)
            self._jobs.save()
        else:
            self._jobs.adopt(asked.files)
        recorded = _counted(asked.recorded, "answer")
        if lines := outputs.other_requests():
            waiting = ", ".join(str(self._jobs.requests(job)) for job in self._jobs.at("written"))
            raise InvalidInput(
                f"{lines[0]}{_more(lines)}; {f'have {waiting} answered and give its output' if waiting else 'delete the line'}. The other answers are recorded ({recorded})"
            )
        if outputs.faults:
            raise InvalidInput(
                f"{outputs.faults[0]}{_more(outputs.faults)}; the other answers are recorded ({recorded}), mend the file or delete the line and run the same command"
            )
        if asked.files:
            raise self._missing(asked, running)

    # -- one round -----------------------------------------------------------------------------------------------------

    async def _round(self, outputs: OutputLines, counted: set[Path] | None = None) -> BatchClient:
        """The client after everything was asked: answers in ``outputs`` are recorded, other calls are in its files."""
        self._stage("collecting calls")
        ledger = Ledger(self._limits.max_cost, self._limits.max_calls)
        answered = self._jobs.at("answered") if counted is None else ()
        ended = {
            call
            for job in answered if job.status in ("completed", "expired")
            for call in batch_files.calls_of(self._jobs.requests(job))
        }  # fmt: skip
        async with WireClient(self._endpoints, self._cassette, ledger=ledger) as live:
            client = BatchClient(
                live, self._cassette, self._endpoints, outputs, batch_files.RequestFiles(self._jobs.path),
                failures=self._jobs.failures, ended=ended, counted=counted,
            )  # fmt: skip
            try:
                await self._ask_all(client)
            except BaseException:
                client.close()
                self._jobs.discard(client.files)
                raise
        client.finish()
        for (model, named), count in client.other_models.items():
            self._note(f"{_counted(count, 'answer')} to requests for {model} name the model {named}: see that it is the judge you mean")  # fmt: skip
        return client

    def _close_answered(self, asked: BatchClient) -> None:
        """Mark answered jobs as done, since their answers are recorded. Raises EndpointFailed for what ends an audit."""
        answered = self._jobs.at("answered")
        for job in answered:
            job.step = "done"
        self._jobs.failures.update(asked.failures)
        problem = asked.refused or next((self._broken(job, asked) for job in answered if job.status in ("failed", "cancelled")), "")  # fmt: skip
        if problem:
            self._jobs.discard(asked.files)
        if answered:
            self._jobs.save()
            self._note_strays(asked.outputs)
            self._note(f"{_counted(asked.recorded, 'answer')} recorded" + (f", {_counted(asked.again, 'call')} to ask again" if asked.again else ""))  # fmt: skip
        if problem:
            raise EndpointFailed(problem)

    def _broken(self, job: Job, asked: BatchClient) -> str:
        """The sentence on a batch that failed as a whole or was cancelled."""
        where = f"endpoint {job.endpoint}: batch {job.batch_id}"
        if job.status == "failed":
            return f"{where} failed: {job.error or 'no reason given'}; mend that and run the same command to send its calls anew"
        return f"{where} was cancelled there; {_counted(asked.recorded, 'answer')} recorded, run the same command to send the rest"

    def _check_budget(self, asked: BatchClient) -> None:
        """Raises BudgetReached where the next batch may exceed the budget."""
        limits, calls = self._limits, asked.calls + asked.pending
        problem = ""
        if limits.max_calls is not None and calls > limits.max_calls:
            problem = f"budget of {limits.max_calls} calls: with this batch there would be {calls}; raise --max-calls"
        cost = asked.cost + asked.worst_cost
        if limits.max_cost is not None and cost > limits.max_cost:
            problem = f"budget of {limits.max_cost:g} USD: this batch may cost up to {asked.worst_cost:.4f}, with {asked.cost:.4f} spent; raise --max-cost"
        if problem:
            self._jobs.discard(asked.files)
            raise BudgetReached(f"{problem} and run the same command, nothing of the batch was sent")

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
                self._stage(f"uploading {job.file}: {_counted(job.calls, 'call')} of {job.model}")
                job.file_id = await line.upload_requests(self._jobs.requests(job))
            job.step = "creating"
            self._jobs.save()
            job.batch_id = await line.create(job.file_id, job.file, perhaps=perhaps)
            job.step = "sent"
            self._note(
                f"batch {job.batch_id} is sent: {_counted(job.calls, 'call')} of {job.model}; Ctrl-C leaves it running"
            )
        except NoSuchAPI as missing:
            job.step, job.file_id = "written", ""
            self._without_api[job.endpoint] = str(missing)
        self._jobs.save()

    async def _wait(self) -> None:
        """Wait until every batch that was sent has ended, and fetch its output files."""
        for job in self._jobs.at("creating"):
            await self._submit(job)
        wait, shown = _FIRST_LOOK_S, ""
        while running := self._jobs.at("sent"):
            done, total, statuses = 0, 0, []
            for job in running:
                state = await self._line(job.endpoint).state(job.batch_id)
                job.status, job.error = state.status, state.error
                done, total = done + state.done, total + (state.total or job.calls)
                statuses.append(state.status.replace("_", " "))
                if state.status in ENDED:
                    job.outputs = await self._download(job, state.files)
                    job.step = "answered"
                    self._jobs.save()
            if self._jobs.at("sent"):
                if (progress := f"{done:,} of {total:,} ({', '.join(dict.fromkeys(statuses))})") != shown:
                    shown = progress
                    batches = "the batch" if len(running) == 1 else f"{len(running)} batches"
                    self._stage(f"waiting for {batches}: {progress}")
                await asyncio.sleep(wait)
                wait = min(_LONGEST_LOOK_S, 1.5 * wait)

    async def _download(self, job: Job, files: Sequence[str]) -> list[str]:
        """The names of a job's output file and error file, fetched into the folder."""
        names = [f"{'output' if place == 0 else 'errors'}-{_number(job)}.jsonl" for place in range(len(files))]
        for name, file_id in zip(names, files, strict=True):
            await self._line(job.endpoint).download(file_id, self._jobs.path / name)
        return names

    # -- messages ------------------------------------------------------------------------------------------------------

    def _no_batch_api(self, jobs: Sequence[Job]) -> AnswersOutstanding:
        return self._outstanding("; ".join(dict.fromkeys(self._without_api[job.endpoint] for job in jobs)), jobs)

    def _missing(self, asked: BatchClient, running: Sequence[Job]) -> AnswersOutstanding:
        """The error for calls that the collected files do not answer."""
        total, jobs = asked.pending, self._jobs.at("written")
        lines = [f"{split_custom_id(call)[0]} ({self._jobs.requests(job)}:{number})" for job in jobs
                 for call, number in batch_files.calls_of(self._jobs.requests(job)).items()]  # fmt: skip
        named = ", ".join(lines[:_MOST_NAMED] or asked.named[:_MOST_NAMED])
        more = f" and {total - _MOST_NAMED} more" if total > _MOST_NAMED else ""
        problem = f"{_counted(asked.recorded, 'answer')} recorded, {_counted(total, 'call')} without one: {named}{more}"
        if running:
            batches = ", ".join(job.batch_id or job.file for job in running)
            return AnswersOutstanding(f"{problem}; a batch is under way ({batches}), go on with --batch")
        return self._outstanding(problem, jobs)

    def _outstanding(self, problem: str, jobs: Sequence[Job]) -> AnswersOutstanding:
        files = ", ".join(str(self._jobs.requests(job)) for job in jobs)
        return AnswersOutstanding(
            f"{problem}. {_counted(sum(job.calls for job in jobs), 'call')} wait in {files}: have them answered and give the output with --collect, or run the same command without --batch and --collect to ask them live",
            [(job.model, self._jobs.requests(job)) for job in jobs],
        )

    def _note_strays(self, outputs: OutputLines) -> None:
        for sentence in outputs.strays():
            self._note(sentence)

    def _stage(self, text: str) -> None:
        if self._observer:
            self._observer.stage(text)

    def _note(self, text: str) -> None:
        if self._observer:
            self._observer.note(text)
        else:
            _LOG.info(text)


def interrupted(folder: RunFolder) -> Interrupted:
    """The error for a user who stops an audit by batches; it names the batches that go on."""
    names = []
    with suppress(InvalidInput):
        names = [job.batch_id or f"of {job.file}" for job in Jobs(folder).at("creating", "sent")]
    if not names:
        return Interrupted("interrupted; all answers so far are recorded, run the same command to resume")
    return Interrupted(
        f"interrupted; batch {', '.join(names)} goes on at the endpoint, run the same command to wait for it and collect it"
    )


def _more(lines: Sequence[str]) -> str:
    """How many lines there are beside the first."""
    return f" (and {len(lines) - 1} more such line{'' if len(lines) == 2 else 's'})" if len(lines) > 1 else ""


def _counted(count: int, noun: str) -> str:
    """The count with its noun: 1 call, 2 calls."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(
            f"--collect: {path}: cannot be read ({error.strerror or error}); give a batch's output file"
        ) from None
