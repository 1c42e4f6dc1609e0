"""What commands that ask models share: the folder, the recording, the models' answers, who is told, errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import yaml

from judgeloop import analysis
from judgeloop.errors import FolderMismatch, JudgeloopError
from judgeloop.experiment.schema import Endpoint
from judgeloop.rundir import RunFolder
from judgeloop.serving import engines
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import AnsweredCall, Ledger, WireClient

if TYPE_CHECKING:
    from judgeloop import loop

T = TypeVar("T")


class Observer(Protocol):
    """The events of a run or an audit while it goes on; judgeloop.cli.views shows them."""

    def start(self, name: str, folder: Path, planned_calls: int = 0, generations: int = 0, replicates: int = 0) -> None:
        """What begins; an audit tells its size by ``planned``."""
        ...

    def planned(self, judgments: Mapping[str, int]) -> None:
        """Judge → how many judgments it will make in an audit; told again where edits that a model wrote add to them."""
        ...

    def answered(self, event: AnsweredCall) -> None: ...

    def judged(self, judge: str, judgments: int, unscored: int) -> None:
        """An audit's judge has made so many judgments more, so many of them unscored."""
        ...

    def generation(self, event: loop.GenerationDone) -> None: ...

    def stage(self, text: str) -> None: ...

    def note(self, text: str) -> None:
        """Something to keep on the screen, as the name of a batch that was sent."""
        ...


class Listener(Protocol):
    """Who is told of every answer, and of what comes next."""

    def answered(self, event: AnsweredCall) -> None: ...

    def stage(self, text: str) -> None: ...


class EndpointRecord:
    """What the endpoints reported of themselves, with calls and cost. ``priced``: every endpoint that is asked states a
    price; else the cost is not known, which is not 0."""

    def __init__(self, observer: Listener | None, *, priced: bool) -> None:
        self._observer, self._priced = observer, priced
        self._models: dict[str, set[str]] = {}
        self._fingerprints: dict[str, set[str]] = {}
        self._calls, self._cost = 0, 0.0

    def answered(self, event: AnsweredCall) -> None:
        """Take note of an answer, and tell the observer."""
        if event.reply.model:
            self._models.setdefault(event.call.endpoint, set()).add(event.reply.model)
        if event.reply.fingerprint:
            self._fingerprints.setdefault(event.call.endpoint, set()).add(event.reply.fingerprint)
        self._calls, self._cost = event.calls, event.cost
        if self._observer:
            self._observer.answered(event)

    def facts(self) -> dict[str, Any]:
        """For environment.json."""
        return {
            "reported_models": {name: sorted(names) for name, names in self._models.items()},
            "reported_fingerprints": {name: sorted(names) for name, names in self._fingerprints.items()},
            "calls": self._calls,
            "cost_usd": round(self._cost, 6) if self._priced else None,
        }


@dataclass
class Session:
    """One session of a command that asks models: as a context manager it claims the folder and writes down what is asked;
    ``ask`` records the answers, ``finish`` what became known, ``write_report`` the pages.

    ``environment``: what is known before any call; ``experiment``: the content of experiment.yaml. With ``replay`` that
    folder's recording answers, and no endpoint is asked. Raises FolderMismatch, StorageFailed.
    """

    folder: RunFolder
    identity: str
    endpoints: Mapping[str, Endpoint]
    environment: Mapping[str, Any]
    experiment: Mapping[str, Any]
    replay: str | Path | None = None
    ledger: Ledger = field(default_factory=Ledger)
    observer: Listener | None = None
    cassette: Cassette = field(init=False)
    recording: Cassette | None = field(init=False, default=None)
    record: EndpointRecord = field(init=False)

    def __post_init__(self) -> None:
        priced = all(endpoint.price.stated for endpoint in self.endpoints.values())
        self.record = EndpointRecord(self.observer, priced=priced)

    def __enter__(self) -> Session:
        with ExitStack() as stack:
            if self.replay is not None:
                self.recording = Cassette(RunFolder.recorded(self.replay).path, writable=False)
                stack.callback(self.recording.close)
            stack.enter_context(self.folder.claim(self.identity))
            # The hash first: a session killed between the two is still known as this experiment's.
            self.folder.write_json("environment.json", {**self.folder.environment(), **self.environment})
            text = yaml.safe_dump(dict(self.experiment), sort_keys=False, allow_unicode=True, width=100)
            self.folder.write_text("experiment.yaml", text)
            self.cassette = Cassette(self.folder.path, writable=True)
            stack.callback(self.cassette.close)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def ask(self, asking: Callable[[WireClient, Mapping[str, Endpoint]], Coroutine[Any, Any, T]]) -> T:
        """The result of ``asking``, which is given a client and the endpoints, their engines started for as long. Raises
        what the client raises."""
        started = nullcontext(dict(self.endpoints)) if self.recording else engines.running(self.endpoints)
        try:
            with started as endpoints:
                return unwrapped(self._asked(asking, endpoints))
        finally:
            self.cassette.close()

    async def _asked(
        self,
        asking: Callable[[WireClient, Mapping[str, Endpoint]], Coroutine[Any, Any, T]],
        endpoints: Mapping[str, Endpoint],
    ) -> T:
        async with WireClient(
            endpoints, self.cassette, replay=self.recording, ledger=self.ledger, observer=self.record.answered
        ) as client:
            return await asking(client, endpoints)

    def stage(self, text: str) -> None:
        """Tell the observer what comes next."""
        if self.observer:
            self.observer.stage(text)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write down what became known by asking."""
        self.folder.write_json("environment.json", {**self.environment, **facts, **self.record.facts()})

    def write_report(self) -> None:
        """The pages, from what stands in the folder."""
        from judgeloop import report

        self.stage("report")
        report.write(self.folder)


def environment(identity: str, files: Mapping[str, str], seed: int) -> dict[str, Any]:
    """What is known before any call: hashes, versions, the seed."""
    return {**analysis.environment(identity, {}, "openai", "httpx2"), "files": dict(files), "seed": seed}


def default_folder(name: str, identity: str) -> RunFolder:
    """``runs/<name>``, or with a number behind it: the folder that holds what has this identity, else the first that holds
    nothing."""
    first = Path("runs") / name
    numbered = re.compile(rf"{re.escape(name)}-\d+")
    taken = [first, *(path for path in sorted(first.parent.glob("*")) if numbered.fullmatch(path.name))]
    for folder in map(RunFolder, taken):
        with suppress(FolderMismatch):
            if folder.environment().get("experiment_hash") == identity:
                return folder
    places = (first if number == 1 else first.with_name(f"{name}-{number}") for number in count(1))
    return RunFolder(next(path for path in places if not path.exists()))


def unwrapped(running: Coroutine[Any, Any, T]) -> T:
    """Run it; of the errors that a group of tasks raises together, the first deliberate one."""
    try:
        return _ran(running)
    except BaseExceptionGroup as group:
        deliberate = group.subgroup(JudgeloopError)
        error: BaseException = deliberate or group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _ran(running: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. A notebook has a loop of its own in this thread; there it runs in another one."""
    if not _in_a_loop():
        return asyncio.run(running)
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def known() -> T:
        task = asyncio.current_task()
        assert task is not None
        ready.set_result((asyncio.get_running_loop(), task))
        return await running

    with ThreadPoolExecutor(1, thread_name_prefix="judgeloop-run") as threads:
        ending = threads.submit(asyncio.run, known())
        try:
            return ending.result()
        except BaseException:
            # The notebook's stop button raises here, in the thread that waits: the run is told, and ends tidily.
            if not ending.done():
                loop, task = ready.result()
                loop.call_soon_threadsafe(task.cancel)
            raise
