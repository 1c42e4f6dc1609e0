"""What commands that ask models share: who is told of each answer, what the endpoints said of themselves, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from judgeloop.errors import JudgeloopError
from judgeloop.wire.client import Answered

if TYPE_CHECKING:
    from judgeloop import loop

T = TypeVar("T")


class Observer(Protocol):
    """The events of a run or an audit while it goes on; judgeloop.progress shows them."""

    def start(self, name: str, folder: Path, planned_calls: int = 0, generations: int = 0, replicates: int = 0) -> None:
        """What begins; an audit tells its size by ``planned``."""
        ...

    def planned(self, judgments: Mapping[str, int]) -> None:
        """Judge → how many judgments it will make in an audit; told again where edits that a model wrote add to them."""
        ...

    def answered(self, event: Answered) -> None: ...

    def judged(self, judge: str, judgments: int, unscored: int) -> None:
        """An audit's judge has made so many judgments more, so many of them unscored."""
        ...

    def generation(self, event: loop.GenerationDone) -> None: ...

    def stage(self, text: str) -> None: ...

    def note(self, text: str) -> None:
        """Something to keep on the screen, as the name of a batch that was sent."""
        ...


class Listener(Protocol):
    """Who is told of every answer."""

    def answered(self, event: Answered) -> None: ...


class Seen:
    """What the endpoints said of themselves. ``priced``: every endpoint that is asked states a price; else the cost is not
    known, which is not 0."""

    def __init__(self, observer: Listener | None, *, priced: bool = True) -> None:
        self._observer, self._priced = observer, priced
        self._models: dict[str, set[str]] = {}
        self._fingerprints: dict[str, set[str]] = {}
        self.calls, self.cost, self.failures = 0, 0.0, 0

    def answered(self, event: Answered) -> None:
        if event.reply.model:
            self._models.setdefault(event.call.endpoint, set()).add(event.reply.model)
        if event.reply.fingerprint:
            self._fingerprints.setdefault(event.call.endpoint, set()).add(event.reply.fingerprint)
        self.calls, self.cost = event.calls, event.cost
        if self._observer:
            self._observer.answered(event)

    def record(self) -> dict[str, Any]:
        return {
            "reported_models": {name: sorted(found) for name, found in self._models.items()},
            "reported_fingerprints": {name: sorted(found) for name, found in self._fingerprints.items()},
            "calls": self.calls,
            "cost_usd": round(self.cost, 6) if self._priced else None,
        }


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
