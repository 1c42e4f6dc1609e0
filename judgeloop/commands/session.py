"""What commands that ask models share: the run folder, the recording, the calls, the observer and the errors of tasks."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import yaml

from judgeloop import analysis
from judgeloop.commands.consent import Consent, Sending, recorded
from judgeloop.errors import ENDING, FolderMismatch, InvalidInput, JudgeloopError
from judgeloop.experiment.options import only_speed
from judgeloop.experiment.schema import CommandPolicySpec, Endpoint, HostedPolicySpec, TrainedPolicySpec
from judgeloop.records import TRIAL_ID
from judgeloop.rundir import AnotherOwner, RunFolder
from judgeloop.serving import engines
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import AnsweredCall, Ledger, WireClient

if TYPE_CHECKING:
    from judgeloop import loop

T = TypeVar("T")
Asking = Callable[[WireClient, Mapping[str, Endpoint]], Coroutine[Any, Any, T]]
"""A coroutine function that asks the endpoints through the client."""
OwnClient = Any
"""An ``openai.AsyncOpenAI`` of the caller's own for all endpoints, a mapping from endpoint to one, or None."""


class Observer(Protocol):
    """The events of a run or an audit, in the order in which they come; ``judgeloop.cli.views`` shows them."""

    def start(self, name: str, folder: Path, planned_calls: int = 0, generations: int = 0, replicates: int = 0) -> None:
        """The command begins. A run's size comes with it, an audit's with ``planned``."""
        ...

    def planned(self, judgments: Mapping[str, int]) -> None:
        """Judge → how many judgments it makes in an audit; again where edits that a model wrote add to them."""
        ...

    def answered(self, event: AnsweredCall) -> None:
        """A call was answered, by an endpoint or from a recording; with ``--executor ray`` some were, up to ``event.calls``, and the
        reply stays with the worker."""
        ...

    def judged(self, judge: str, judgments: int, unscored: int) -> None:
        """An audit's judge made so many more judgments; ``unscored`` of them have no verdict."""
        ...

    def generation(self, event: loop.GenerationDone) -> None:
        """A run's replicate finished a generation."""
        ...

    def stage(self, text: str) -> None:
        """What is done next: asking, estimates, report."""
        ...

    def note(self, text: str) -> None:
        """Something to keep on the screen, as the name of a batch that was sent, or a pause that an endpoint asks for."""
        ...


class EndpointRecord:
    """What the endpoints report of themselves, with calls and cost. Where no model that was asked has a price, the cost is not known,
    which is not 0; where some have none, it is at least what is counted."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self._models: dict[str, set[str]] = {}
        self._fingerprints: dict[str, set[str]] = {}
        self._failed: dict[str, str] = {}
        """Call id → why all its attempts failed."""
        self._calls, self._cost = 0, 0.0
        self._unpriced: tuple[str, ...] = ()

    def answered(self, event: AnsweredCall) -> None:
        """Add an answer, and pass it to the observer."""
        if event.reply.model:
            self._models.setdefault(event.call.endpoint, set()).add(event.reply.model)
        if event.reply.fingerprint:
            self._fingerprints.setdefault(event.call.endpoint, set()).add(event.reply.fingerprint)
        self._failed.pop(event.call.call_id, None)
        if event.fault and not TRIAL_ID.match(event.call.call_id):
            self._failed[event.call.call_id] = event.fault
        self._calls, self._cost, self._unpriced = event.calls, event.cost, event.unpriced
        if self._observer:
            self._observer.answered(event)

    @property
    def calls(self) -> int:
        """Distinct calls that were answered."""
        return self._calls

    def add(self, other: EndpointRecord, ledger: Ledger) -> None:
        """Add what another process recorded, once it is counted in this one's ``ledger``."""
        for own, others in ((self._models, other._models), (self._fingerprints, other._fingerprints)):
            for name, values in others.items():
                own.setdefault(name, set()).update(values)
        self._failed |= other._failed
        ledger.unpriced = tuple(sorted({*ledger.unpriced, *other._unpriced}))
        self._calls, self._cost, self._unpriced = ledger.calls, ledger.cost, ledger.unpriced

    def facts(self) -> dict[str, Any]:
        """For environment.json."""
        return {
            "reported_models": {name: sorted(models) for name, models in self._models.items()},
            "reported_fingerprints": {name: sorted(prints) for name, prints in self._fingerprints.items()},
            **({"failed_calls": dict(Counter(self._failed.values()).most_common())} if self._failed else {}),
            "calls": self._calls,
            "cost_usd": None if self._unpriced and not self._cost else round(self._cost, 6),
            **({"unpriced": list(self._unpriced)} if self._unpriced else {}),
        }


@dataclass
class Session:
    """One session of a command that asks models, a context manager: entering it claims the folder and writes experiment.yaml
    and environment.json; ``ask`` records the answers, ``finish`` adds what they told, ``write_report`` writes the pages.

    ``environment``: what is known before any call; ``experiment``: the content of experiment.yaml. With ``replay`` that
    folder's recording answers, and no endpoint is asked. With ``retry_failed`` calls whose attempts all failed in an earlier
    session are asked again. By ``client`` the endpoints are asked in place of judgeloop's own line. With ``consent`` it is confirmed
    first where keys go, unless the folder's environment.json says that it was. ``unit``: see Cassette. Raises FolderMismatch, StorageFailed, InvalidInput.
    """

    folder: RunFolder
    identity: str
    endpoints: Mapping[str, Endpoint]
    environment: Mapping[str, Any]
    experiment: Mapping[str, Any]
    replay: str | Path | None = None
    retry_failed: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    observer: Observer | None = None
    client: OwnClient = None
    consent: Consent | None = None
    unit: str | None = None
    cassette: Cassette = field(init=False)
    recording: Cassette | None = field(init=False, default=None)
    record: EndpointRecord = field(init=False)
    _confirmed: list[Sending] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.record = EndpointRecord(self.observer)

    def __enter__(self) -> Session:
        self._confirm()
        with ExitStack() as stack:
            if self.replay is not None:
                self.recording = Cassette(RunFolder.recorded(self.replay).path, writable=False)
                stack.callback(self.recording.close)
            stack.enter_context(self.folder.claim(self.identity))
            # The hash first: a session killed between the two is still known as this experiment's.
            self.folder.write_json("environment.json", {**self.folder.environment(), **self.environment})
            self.folder.write_text("experiment.yaml", self._experiment_text())
            retry_failed = self.retry_failed and self.recording is None
            self.cassette = Cassette(self.folder.path, writable=True, retry_failed=retry_failed, unit=self.unit)
            stack.callback(self.cassette.close)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.cassette.check_kept()
        finally:
            self._open.__exit__(kind, error, trace)

    def _confirm(self) -> None:
        """Have it confirmed where keys go, before anything is written. Raises InvalidInput."""
        known = self.folder.environment()
        self._keep(recorded(known))
        if self.consent is None or self.replay is not None or self._is_done(known):
            return
        new = [each for each in self.consent.needed(self.endpoints.values()) if each not in self._confirmed]
        self.consent.confirm(new)
        self._keep(new)

    def _experiment_text(self) -> str:
        return yaml.safe_dump(dict(self.experiment), sort_keys=False, allow_unicode=True, width=100)

    def _is_done(self, known: Mapping[str, Any]) -> bool:
        """Whether every call of the folder is answered, so that none is sent; ``known``: its environment.json."""
        is_whole = known.get("experiment_hash") == self.identity and (self.folder.path / "estimates.parquet").is_file()
        if not is_whole or (self.retry_failed and known.get("failed_calls")):
            return False
        return self.folder.experiment_text() == self._experiment_text()  # a mitigation that was added asks more

    def _check_address(self, endpoint: Endpoint) -> None:
        """Raise InvalidInput where a key would go to an address for which nobody has confirmed it."""
        if self.consent is not None:
            self._keep(self.consent.check(endpoint, self._confirmed))

    def _keep(self, sendings: Sequence[Sending]) -> None:
        """Add to what environment.json says was confirmed."""
        self._confirmed += sendings
        if self._confirmed:
            records = [each.record() for each in sorted(self._confirmed)]
            self.environment = {**self.environment, "keys_confirmed": records}

    def ask(self, asking: Asking[T]) -> T:
        """The result of ``asking``, which gets a client and the endpoints; their engines run until it returns. Raises what
        the client raises."""
        running = nullcontext(dict(self.endpoints)) if self.recording else engines.running(self.endpoints)
        try:
            with running as endpoints:
                return unwrapped(self._with_client(asking, endpoints))
        finally:
            self.cassette.close()

    async def _with_client(self, asking: Asking[T], endpoints: Mapping[str, Endpoint]) -> T:
        async with WireClient(
            endpoints, self.cassette, replay=self.recording, ledger=self.ledger, observer=self.record.answered,
            note=self.observer.note if self.observer else lambda _: None,
            clients=self._own_clients(endpoints), check_address=self._check_address,
        ) as client:  # fmt: skip
            return await asking(client, endpoints)

    def _own_clients(self, endpoints: Mapping[str, Endpoint]) -> Mapping[str, Any]:
        """Endpoint → the caller's own client that asks it."""
        if isinstance(self.client, Mapping):
            return self.client
        return {} if self.client is None else dict.fromkeys(endpoints, self.client)

    def stage(self, text: str) -> None:
        """Pass to the observer what is done next."""
        if self.observer:
            self.observer.stage(text)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write environment.json with what became known by asking."""
        self.folder.write_json("environment.json", {**self.environment, **facts, **self.record.facts()})

    def write_report(self) -> None:
        """Write the report's pages from the folder."""
        from judgeloop import report

        self.stage("report")
        report.write(self.folder)


def environment(identity: str, files: Mapping[str, str], seed: int) -> dict[str, Any]:
    """environment.json as it is before any call: hashes, versions, the seed."""
    return {**analysis.environment(identity, {}, "openai", "httpx2"), "files": dict(files), "seed": seed}


def check_prices(endpoints: Mapping[str, Endpoint], limit: str, setting: str) -> None:
    """Raise InvalidInput for models without a price: a limit of cost that does not count them all guards nothing. ``limit`` and
    ``setting`` name the limit and the price where they are given."""
    unpriced = sorted({endpoint.model for endpoint in endpoints.values() if not endpoint.is_priced})
    if unpriced:
        raise InvalidInput(
            f"{limit}: no price is stated for {', '.join(unpriced)}, so its cost cannot be counted; give {setting} in USD per million tokens, 0 where it costs nothing"
        )


_LONGEST, _MOST_NAMED = 60, 3
_SPEED = only_speed(Endpoint)
_POLICY_SPEED = frozenset(
    f"policy.{key}" for kind in (CommandPolicySpec, TrainedPolicySpec, HostedPolicySpec) for key in only_speed(kind)
)


@contextmanager
def difference_named(
    folder: RunFolder,
    what: str,
    differences: Callable[[Mapping[str, Any]], Sequence[str] | None],
    mended: str = "give another --out, or the same settings to resume",
) -> Iterator[None]:
    """Within it, a folder with another's answers is refused with the settings that differ, and ``mended``. ``differences`` gives a
    sentence on each, from the folder's experiment.yaml; None where that is of another kind. Raises FolderMismatch."""
    try:
        yield
    except AnotherOwner:
        listed = differences(folder.experiment()) if folder.exists else None
        if listed is None:
            raise
        more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
        named = f": {'; '.join(listed[:_MOST_NAMED])}{more}" if listed else ""
        raise FolderMismatch(f"{folder.path}: another {what}'s answers stand here{named}; {mended}") from None


def settings_differences(recorded: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """A sentence on every setting that differs between two contents of experiment.yaml, with the hashes of their ``files``; what only
    says how fast or at what price is asked is left out."""
    there, here = _leaves(recorded), _leaves(own)
    listed = []
    for key in dict.fromkeys((*there, *here)):
        # An arm repeats what stands above all arms, and its change.
        above = key.split(".", 2)[2] if key.startswith("arms.") and key.count(".") > 1 else ""
        if there.get(key) != here.get(key) and (there.get(above), here.get(above)) != (there.get(key), here.get(key)):
            changed = f"{key} is {value_shown(there.get(key))} there and {value_shown(here.get(key))} here"
            listed.append(
                f"the content of {key.removeprefix('files.')} has changed" if key.startswith("files.") else changed
            )
    return listed


def _leaves(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → value of every setting that answers may depend on."""
    leaves: dict[str, Any] = {}
    for name, value in block.items():
        key = f"{prefix}{name}"
        if key == "budget" or (prefix.startswith("endpoints.") and name in _SPEED):
            continue
        if ".".join(key.split(".")[-2:]) in _POLICY_SPEED:
            continue
        if isinstance(value, Mapping) and value:
            leaves |= _leaves(value, f"{key}.")
        else:
            leaves[key] = value
    return leaves


def value_shown(value: object) -> str:
    """A setting's value in a sentence."""
    if value in (None, {}):
        return "not given"
    text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def unwrapped(running: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its result. Of the errors that a group of tasks raises together, the first deliberate one is raised
    alone."""
    try:
        return _run(running)
    except BaseExceptionGroup as group:
        deliberate = group.subgroup(JudgeloopError)
        error: BaseException = deliberate or group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _run(running: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. A notebook runs an event loop in this thread; the coroutine then runs in another one."""
    if not _loop_is_running():
        return _drained(running)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def announced() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await running

    with ThreadPoolExecutor(1, thread_name_prefix="judgeloop-run") as threads:
        result = threads.submit(asyncio.run, announced())
        try:
            return result.result()
        except BaseException:
            # The notebook's stop button raises here, in the thread that waits: cancel the run, so that it ends tidily.
            if not result.done():
                loop, task = started.result()
                loop.call_soon_threadsafe(task.cancel)
            raise


def _drained(running: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Signals of ``ENDING`` cancel it as Ctrl-C does, so that calls in flight, which are paid for, are recorded;
    then KeyboardInterrupt is raised. Outside it the program's own handlers hold, as they were; one that is ignored stays so."""
    stopped = False
    in_main = threading.current_thread() is threading.main_thread()
    before = {sign: signal.getsignal(sign) for sign in ENDING if in_main}
    before = {sign: handler for sign, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    async def cancellable() -> T:
        task, events = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def stop(*_: object) -> None:
            nonlocal stopped
            # A terminal that is closed may send two: the second must not cut short what the first lets end.
            if not stopped:
                events.call_soon_threadsafe(task.cancel)
            stopped = True

        try:
            for sign in before:
                signal.signal(sign, stop)
            return await running
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)

    try:
        result = asyncio.run(cancellable())
    except asyncio.CancelledError:
        if not stopped:
            raise
    else:
        if not stopped:
            return result
    raise KeyboardInterrupt


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
