"""How many calls at once an endpoint bears: levels that double, until throughput stops rising or latency doubles."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judgeloop.wire.examination import Check
from judgeloop.wire.inquiry import Came, Inquiry

_RISE = 1.15
"""Throughput that grows by less from a level to the next has stopped rising."""
_SLOWER = 2.0
MOST_CALLS = 60
_FIRST = 3


@dataclass(frozen=True, slots=True)
class Level:
    """One number of calls in flight: how many were asked, calls a second, seconds of the 95th percentile."""

    at_once: int
    calls: int
    failed: int
    per_second: float
    p95: float


@dataclass(frozen=True, slots=True)
class Knee:
    """The levels that were tried, the one to use, and why the probe stopped there."""

    levels: tuple[Level, ...]
    best: Level
    why: str


async def find(inquiry: Inquiry, body: Callable[[int], Mapping[str, Any]], most: int = MOST_CALLS) -> Knee | None:
    """Levels 1, 2, 4 …, each with a call or two a place in flight, of bodies ``body(k)`` that all differ.

    At most ``most`` calls, and what the inquiry has left. None where even single calls fail.
    """
    levels: list[Level] = []
    asked, at_once, why = 0, 1, ""
    while not why:
        calls = max(_FIRST, 2 * at_once if at_once <= 8 else at_once)
        if asked + calls > min(most, asked + inquiry.left()):
            why = "the calls for this probe are used up; it may bear more"
            break
        level = await _level(inquiry, [body(asked + k) for k in range(calls)], at_once)
        asked += calls
        if level.failed:
            why = f"{level.failed} of {calls} calls failed at {at_once} in flight"
        elif levels and level.per_second < _RISE * levels[-1].per_second:
            why = f"throughput stops rising at {at_once} in flight"
        elif levels and level.p95 > _SLOWER * levels[0].p95:
            why = f"latency doubles at {at_once} in flight"
        levels.append(level)
        at_once *= 2
    sound = [level for level in levels if not level.failed]
    if not sound:
        return None
    best = sound[0]
    for level in sound[1:]:
        if level.per_second >= _RISE * best.per_second:
            best = level
    return Knee(tuple(levels), best, why)


def check(knee: Knee | None, calls: int) -> Check:
    """The probe as a line of the transcript."""
    asked = "judge calls, 1, 2, 4 … at once"
    if knee is None:
        return Check(
            "concurrency",
            asked,
            "too few calls left, or single calls fail",
            "unknown",
            "start with a low concurrency",
            calls,
        )
    shown = "; ".join(
        f"{one.at_once}: {one.per_second:.3g}/s, p95 {one.p95:.2g} s" + (f", {one.failed} failed" if one.failed else "")
        for one in knee.levels
    )
    means = f"{knee.why}: concurrency {knee.best.at_once} gives {knee.best.per_second:.3g} calls a second"
    return Check("concurrency", asked, shown, "ok", means, calls)


async def _level(inquiry: Inquiry, bodies: Sequence[Mapping[str, Any]], at_once: int) -> Level:
    queue = list(bodies)[::-1]
    came: list[Came] = []

    async def work() -> None:
        while queue:
            came.append(await inquiry.complete(queue.pop(), patient=False))

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    took = time.perf_counter() - began
    seconds = sorted(one.seconds for one in came)
    failed = sum(not one.ok for one in came)
    p95 = seconds[min(len(seconds) - 1, math.ceil(0.95 * len(seconds)) - 1)]
    return Level(at_once, len(came), failed, (len(came) - failed) / max(took, 1e-9), p95)
