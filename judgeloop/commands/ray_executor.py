"""``--executor ray``: the replicates of a run, or the shards of an audit, as tasks of a Ray cluster.

A *unit* is what one task works: it records its calls into its own part of the run folder (``wire.cassette``), which all nodes share,
under a lock of its own. Ray places the tasks and starts one again whose worker died; it then finds what is recorded. What units share
is asked by the command's own process before, and the folder is read and written by it afterwards. Keys are those of each node's own
environment; none travels.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from judgeloop import errors
from judgeloop.commands.session import EndpointRecord, OwnClient, Session, unwrapped
from judgeloop.errors import BudgetReached, EndpointFailed, FolderMismatch, InvalidInput, JudgeloopError
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Call, Reply
from judgeloop.rundir import Lock
from judgeloop.wire.cassette import SHARD, Cassette
from judgeloop.wire.client import AnsweredCall, Ledger, WireClient

EXECUTORS = ("local", "ray")
INSTALL = 'pip install "judgeloop[ray]"'
_FOLDER, _TOKEN = ".ray", "token"
_RETRIES = 3
"""Times that a unit is started again after its worker died."""
_LOOK_S, _SHOWN_S = 0.25, 10.0
_DRAIN_S = 30.0
"""Seconds in which workers that are stopped may end their calls in flight."""
_SHARED_S = 10.0
"""Seconds until what one node wrote must be seen from another."""
_LOCKED_S = 120.0
"""Seconds for which the lock of a worker that died may hold: those of network file systems outlive their node."""

Event = Callable[[str, Any], None]
"""Tells the command's own process of something: a name, and what JSON holds."""
Work = Callable[[WireClient, Mapping[str, Endpoint], Event], Coroutine[Any, Any, Any]]
"""Asks all that a unit asks, through the client; its result goes to the command's own process."""


@dataclass(frozen=True)
class Unit:
    """A unit of work: its ``name`` in the cassette, what is done (to be pickled), and its ``share`` of the budget in proportion."""

    name: str
    work: Work
    share: float = 1.0


@dataclass(frozen=True)
class _Order:
    """What a worker gets. ``endpoints`` and the limits are the unit's share of the run's; ``token`` is that of the shared folder."""

    unit: str
    work: Work
    folder: Path
    token: str
    endpoints: Mapping[str, Endpoint]
    max_calls: int | None
    max_cost: float | None
    retry_failed: bool


@dataclass(frozen=True)
class _Outcome:
    """How a unit ended: its result, what its endpoints said, the attempts and cost of all that it has recorded, and the error's name and sentence."""

    record: EndpointRecord
    attempts: int
    cost: float
    result: Any = None
    error: tuple[str, str] | None = None


def check(executor: str, endpoints: Mapping[str, Endpoint], *, client: OwnClient, replay: object) -> bool:
    """Whether it is Ray that works. Raises InvalidInput where it cannot."""
    if executor not in EXECUTORS:
        raise InvalidInput(f"--executor: must be {' or '.join(EXECUTORS)}, not {executor!r:.40}")
    if executor == "local":
        return False
    if importlib.util.find_spec("ray") is None:
        raise InvalidInput(f"--executor ray: Ray is not installed; run: {INSTALL}")
    if client is not None:
        raise InvalidInput("client: an object of this process does not reach Ray's workers; leave --executor ray out")
    if replay is not None:
        raise InvalidInput("--replay asks no endpoint; leave --executor ray out")
    for name, endpoint in endpoints.items():
        if endpoint.engine is not None:
            raise InvalidInput(f"endpoints.{name}: an engine that judgeloop starts answers on this machine alone; with --executor ray start the server yourself and give its base_url")  # fmt: skip
        if endpoint.concurrency == 1:
            raise InvalidInput(f"endpoints.{name}.concurrency: 1 call at a time is one process's work; raise it, or leave --executor ray out")  # fmt: skip
    _check_address(os.environ.get("RAY_ADDRESS", ""))
    return True


def _check_address(address: str) -> None:
    """Raise InvalidInput where nothing answers at a cluster's address: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        raise InvalidInput(
            f"RAY_ADDRESS: nothing answers at {address} ({error}); start Ray there, or mend or unset it"
        ) from None


class Cluster:
    """The Ray cluster that works a session's units, ``workers`` at once: no more than the concurrency of each endpoint leaves a call for."""

    def __init__(self, session: Session, workers: int) -> None:
        self._session = session
        self._folder = session.folder.path.resolve() / _FOLDER
        self._token = secrets.token_hex(16)
        most = min((endpoint.concurrency - 1 for endpoint in session.endpoints.values()), default=workers)
        self.workers = max(1, min(workers, most))
        self._progress: dict[str, _Progress] = {}
        self._shown_at = time.monotonic()

    def share_of(self, endpoints: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """The endpoints as one of the processes at work may ask them: all together keep to the limits."""
        at_once = self.workers + 1
        return {
            name: endpoint.model_copy(
                update={
                    "concurrency": max(1, endpoint.concurrency // at_once),
                    "per_minute": endpoint.per_minute and endpoint.per_minute / at_once,
                }
            )
            for name, endpoint in endpoints.items()
        }

    async def run(self, units: Iterable[Unit], on_event: Event, *, shares: float, own: float) -> list[Any]:
        """The results of all units, in their order. ``shares`` of the budget are theirs together, ``own`` this process's. Raises the
        first error of a unit; the others are then stopped, with what they have recorded."""
        ray = _ray()
        self._folder.mkdir(exist_ok=True)
        (self._folder / _TOKEN).write_text(self._token, encoding="utf-8")
        ledger, budget = self._session.ledger, _Budget.of(self._session.ledger, shares, own)
        remote = ray.remote(_execute).options(num_cpus=1, max_retries=_RETRIES, scheduling_strategy="SPREAD")
        waiting, running, results = iter(units), dict[Any, str](), dict[str, Any]()
        try:
            while True:
                while len(running) < self.workers and (unit := next(waiting, None)) is not None:
                    results[unit.name] = None
                    path = self._folder / f"{unit.name}.jsonl"
                    path.unlink(missing_ok=True)  # of a session that was ended
                    self._progress[unit.name] = _Progress(path)
                    running[remote.remote(self._order(unit, budget))] = unit.name
                if not running:
                    break
                done, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
                self._look(on_event, running.values())
                for task in done:
                    outcome = _outcome(task, name := running.pop(task))
                    ledger.count(outcome.attempts, outcome.cost)
                    budget.ended(name, ledger, outcome)
                    self._look(on_event, [name])
                    self._count(name, outcome.record.calls, 0)
                    self._session.record.add(outcome.record, ledger)
                    results[name] = outcome.result
                    if outcome.error is not None:
                        raise _error(name, *outcome.error)
                if not done:
                    await asyncio.sleep(_LOOK_S)
        except BaseException:
            for task in running:
                ray.cancel(task)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=_DRAIN_S)
            raise
        shutil.rmtree(self._folder, ignore_errors=True)
        return list(results.values())

    def _order(self, unit: Unit, budget: _Budget) -> _Order:
        max_calls, max_cost = budget.take(unit)
        return _Order(
            unit.name, unit.work, self._folder.parent, self._token, self.share_of(self._session.endpoints),
            max_calls, max_cost, self._session.retry_failed,
        )  # fmt: skip

    def _look(self, on_event: Event, units: Collection[str]) -> None:
        """Pass on what the units' workers have told since the last look, and show how far all are."""
        for unit in units:
            for name, content in self._progress[unit].events():
                if name == "calls":
                    self._count(unit, *content)
                else:
                    on_event(name, content)
        now = time.monotonic()
        if now - self._shown_at > _SHOWN_S:
            self._shown_at = now
            calls, count = sum(progress.calls for progress in self._progress.values()), len(units)
            self._session.stage(f"asking on {count} Ray worker{'' if count == 1 else 's'}: {calls:,} calls so far")

    def _count(self, unit: str, calls: int, recorded: int) -> None:
        """Count a unit's calls in the session's ledger and show them: first those that were ``recorded`` before, then the others. A
        worker that was started again counts from 0, and has found its calls when it gets as far as it was."""
        progress, ledger = self._progress[unit], self._session.ledger
        new = max(0, calls - progress.calls)
        found = min(new, max(0, recorded - progress.recorded))
        progress.calls, progress.recorded = progress.calls + new, max(progress.recorded, recorded)
        for number, is_recorded in ((found, True), (new - found, False)):
            ledger.calls += number
            if number and self._session.observer:
                spent = ledger.calls, ledger.cost, "", ledger.unpriced
                self._session.observer.answered(AnsweredCall(Call(unit, "", {}), Reply(""), is_recorded, 1, *spent))


@contextmanager
def cluster(session: Session) -> Iterator[Cluster]:
    """The cluster that RAY_ADDRESS names or this program is connected to, else the one that runs on this machine, else one that is
    started here and ends with it. Raises InvalidInput where none is reached."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    before = signal.getsignal(signal.SIGTERM)
    ray = _ray()
    is_own = not ray.is_initialized()
    try:
        try:
            if is_own:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InvalidInput(
                f"--executor ray: no cluster is reached ({reason}); start one with `ray start`, or mend RAY_ADDRESS"
            ) from None
        with suppress(ValueError):  # Ray's own handler would end this process with calls in flight
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        session.environment = {**session.environment, "executor": f"ray {ray.__version__}"}
        yield Cluster(session, workers)
    finally:
        if is_own:
            ray.shutdown()


def _ray() -> Any:
    import ray

    return ray


@dataclass
class _Budget:
    """What is left of the run's limits for the units that have not begun, of which it is ``shares``; None where there is no limit."""

    calls: float | None
    cost: float | None
    shares: float
    _taken: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Unit at work → its (calls, US dollars) at most."""

    @classmethod
    def of(cls, ledger: Ledger, shares: float, own: float) -> _Budget:
        """What is left for the units' ``shares``; this process keeps its ``own`` ones from now on."""
        kept = own / (shares + own) if own else 0.0
        calls = None if ledger.max_calls is None else max(0, ledger.max_calls - ledger.attempts)
        cost = None if ledger.max_cost is None else max(0.0, ledger.max_cost - ledger.cost)
        if calls is not None:
            ledger.max_calls = ledger.attempts + int(calls * kept)
        if cost is not None:
            ledger.max_cost = ledger.cost + cost * kept
        return cls(None if calls is None else calls * (1 - kept), None if cost is None else cost * (1 - kept), shares)

    def take(self, unit: Unit) -> tuple[int | None, float | None]:
        """(calls, US dollars) that a unit which begins may take at most: its part of what is left for those that have not begun."""
        part = min(1.0, unit.share / self.shares) if self.shares > 0 else 1.0
        calls, cost = (None if left is None else left * part for left in (self.calls, self.cost))
        self.shares -= unit.share
        self._add(-(calls or 0.0), -(cost or 0.0))
        self._taken[unit.name] = calls or 0.0, cost or 0.0
        return None if calls is None else int(calls), cost

    def ended(self, unit: str, ledger: Ledger, outcome: _Outcome) -> None:
        """What a unit left goes to those that have not begun: what it asks may have been answered before. What it spent is no part
        of this process's share."""
        calls, cost = self._taken.pop(unit)
        self._add(calls - outcome.attempts, cost - outcome.cost)
        if ledger.max_calls is not None:
            ledger.max_calls += outcome.attempts
        if ledger.max_cost is not None:
            ledger.max_cost += outcome.cost

    def _add(self, calls: float, cost: float) -> None:
        self.calls = None if self.calls is None else max(0.0, self.calls + calls)
        self.cost = None if self.cost is None else max(0.0, self.cost + cost)


@dataclass
class _Progress:
    """What a unit's worker tells, read from its file as far as it was written; ``calls``: those answered so far, of which so many were
    ``recorded`` before."""

    path: Path
    calls: int = 0
    recorded: int = 0
    _read: int = 0

    def events(self) -> list[tuple[str, Any]]:
        """(name, content) of what came since the last look."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(self._read)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read += len(whole)
            return [(name, content) for name, content in map(json.loads, whole.splitlines())]
        return []


def _outcome(task: Any, unit: str) -> _Outcome:
    """How a task ended. An error that nobody foresaw is raised as it was in the worker."""
    ray = _ray()
    try:
        outcome: _Outcome = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise EndpointFailed(
            f"{unit}: its Ray worker died {_RETRIES + 1} times, or could not be started ({type(error).__name__}: {reason[:200]}); see that judgeloop is installed on every node and its memory suffices, then run the same command to resume"
        ) from None
    return outcome


def _error(unit: str, kind: str, message: str) -> JudgeloopError:
    """A worker's deliberate error, as it would have been raised here."""
    error = getattr(errors, kind)
    if issubclass(error, BudgetReached):
        message = f"{unit}: its share of the budget is used up: {message}"
    raised: JudgeloopError = error(message)
    return raised


# -- in a worker -------------------------------------------------------------------------------------------------------


def _execute(order: _Order) -> _Outcome:
    """Work one unit, in a worker."""
    ledger, record, result, error = Ledger(order.max_cost, order.max_calls), EndpointRecord(None), None, None
    try:
        _check_node(order)
        with _locked(order.folder / _FOLDER / order.unit):
            result = unwrapped(_asked(order, ledger, record))
    except JudgeloopError as raised:
        error = type(raised).__name__, str(raised)
    return _Outcome(record, ledger.attempts, ledger.cost, result, error)


def _check_node(order: _Order) -> None:
    """Raise FolderMismatch where this node does not see the run folder, InvalidInput where it lacks a key."""
    node, token, until = socket.gethostname(), order.folder / _FOLDER / _TOKEN, time.monotonic() + _SHARED_S
    while not (token.is_file() and token.read_text(encoding="utf-8") == order.token):
        if time.monotonic() > until:
            raise FolderMismatch(
                f"{order.folder}: the Ray worker on {node} does not see this folder; give an --out on a file system that all nodes share, at the same path"
            )
        time.sleep(0.5)
    for endpoint in order.endpoints.values():
        for _, variable in endpoint.variables():
            if not os.environ.get(variable):
                raise InvalidInput(
                    f"environment variable {variable} is not set for the Ray worker on {node}; set it where Ray is started there, or in the runtime_env of the job"
                )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The unit's lock, once a worker that died has lost it."""
    until = time.monotonic() + _LOCKED_S
    while True:
        try:
            lock = Lock(path)
            break
        except FolderMismatch:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
    try:
        yield
    finally:
        lock.release()


async def _asked(order: _Order, ledger: Ledger, record: EndpointRecord) -> Any:
    """The result of asking all that the unit asks; tells how far it is."""
    folder = order.folder
    with (
        closing(Cassette(folder, writable=True, retry_failed=order.retry_failed, unit=order.unit)) as cassette,
        (folder / _FOLDER / f"{order.unit}.jsonl").open("a", encoding="utf-8") as told,
    ):
        own = _OwnCalls(order.unit, record)

        def event(name: str, content: Any) -> None:
            told.write(json.dumps([name, content]) + "\n")
            told.flush()

        def answered(call: AnsweredCall) -> None:
            if own.answered(call):
                event("calls", [own.calls, own.recorded])

        def note(text: str) -> None:
            event("note", f"{order.unit}: {text}")

        async with WireClient(
            order.endpoints, cassette, ledger=ledger, observer=answered, note=note
        ) as client:  # fmt: skip
            result = await order.work(client, order.endpoints, event)
        event("calls", [own.calls, own.recorded])
        cassette.check_kept()
        return result


@dataclass
class _OwnCalls:
    """The calls of a unit alone, added to ``record``: what units share is counted where it was asked."""

    unit: str
    record: EndpointRecord
    calls: int = 0
    recorded: int = 0
    _all: int = 0
    _told_at: float = field(default_factory=time.monotonic)

    def answered(self, call: AnsweredCall) -> bool:
        """Count an answer; whether it is time to tell."""
        is_new, self._all = call.calls > self._all, call.calls
        if self.unit.startswith(SHARD) or call.call.call_id.startswith(f"{self.unit}/"):
            self.calls += is_new
            self.recorded += is_new and call.recorded
            self.record.answered(replace(call, calls=self.calls))
        now = time.monotonic()
        if is_late := now - self._told_at > 1.0:
            self._told_at = now
        return is_late
