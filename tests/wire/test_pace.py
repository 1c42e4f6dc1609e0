"""How fast an endpoint is asked, played in time that is counted and not waited for."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest

from judgeloop.wire.pace import Pace


@dataclass
class Bucket:
    """A server that admits ``per_s`` calls a second, ``burst`` at once, and answers others with Retry-After ``wait_s``."""

    per_s: float
    wait_s: float | None
    burst: float
    tokens: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def stated(self) -> tuple[int, float]:
        """(calls left, seconds until there are ``burst``), as answers say where such a server states them."""
        return int(self.tokens), (self.burst - self.tokens) / self.per_s

    def admits(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_s)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class Slots:
    """A server that takes ``slots`` calls at a time and refuses the others without saying for how long."""

    slots: int
    wait_s: float | None = None
    busy: int = 0

    def admits(self, now: float) -> bool:
        del now
        admitted = self.busy < self.slots
        self.busy += admitted
        return admitted


def played(
    pace: Pace, server: Bucket | Slots, calls: int, latency_s: float, *, states: bool = False
) -> tuple[int, float, list[float]]:
    """(requests, seconds, windows) of so many calls. Refusals come at once, answers after ``latency_s``; ``states``: they tell how
    many calls were left when theirs was admitted."""
    left_then: dict[int, tuple[int, float]] = {}
    now, left, answered, requests = 0.0, calls, 0, 0
    windows: list[float] = []
    ends: list[tuple[float, int, float, bool]] = []
    while answered < calls:
        delay = pace.delay_s(now) if left else None
        if delay == 0:
            admitted = server.admits(now)
            pace.sent(now)
            requests, left = requests + 1, left - 1
            if states and isinstance(server, Bucket):
                left_then[requests] = server.stated()
            heapq.heappush(ends, (now + (latency_s if admitted else 0.001), requests, now, admitted))
            continue
        if delay is not None and (not ends or now + delay < ends[0][0]):
            now += delay + 1e-9
            continue
        now, request, sent_at, admitted = heapq.heappop(ends)
        if request in left_then:
            calls_left, reset_s = left_then[request]
            pace.stated(sent_at, calls_left, sent_at + reset_s)
        if admitted:
            answered += 1
            pace.admitted(sent_at)
        else:
            left += 1
            pace.refused(now, sent_at, server.wait_s)
        if isinstance(server, Slots):
            server.busy -= admitted
        pace.ended()
        windows.append(pace.window)
    return requests, now, windows


@pytest.mark.parametrize("latency_s", [0.001, 0.05, 0.4, 2.0])
@pytest.mark.parametrize(("most", "calls"), [(16, 120), (128, 1000)])
def test_ten_calls_a_second_cost_few_requests_and_little_time(latency_s: float, most: int, calls: int) -> None:
    requests, seconds, _ = played(Pace(most, 3600), Bucket(10, 1.0, 10), calls, latency_s)
    own = max((calls - 10) / 10 + latency_s, calls / most * latency_s)
    assert requests <= 1.3 * calls
    assert seconds <= 1.2 * own


def test_a_limit_per_minute_is_met_at_its_own_rate() -> None:
    requests, seconds, _ = played(Pace(64, 3600), Bucket(500 / 60, 6.0, 500), 3000, 0.5)
    assert requests <= 1.1 * 3000
    assert seconds <= 1.2 * 2500 * 60 / 500


@pytest.mark.parametrize("latency_s", [0.05, 0.5, 2.0])
@pytest.mark.parametrize(("per_s", "burst"), [(10, 10), (500 / 60, 500)])
def test_a_limit_that_answers_state_is_kept_before_anything_is_refused(
    latency_s: float, per_s: float, burst: int
) -> None:
    most, calls = 8, 4 * burst
    requests, seconds, _ = played(Pace(most, 3600), Bucket(per_s, 1.0, burst), calls, latency_s, states=True)
    own = max((calls - burst) / per_s + latency_s, calls / most * latency_s)
    assert requests == calls
    assert seconds <= 1.2 * own


def test_calls_of_a_set_rate_leave_evenly() -> None:
    requests, seconds, _ = played(Pace(16, 3600, calls_per_s=10), Bucket(10, 1.0, 1), 100, 0.05)
    assert requests == 100
    assert seconds == pytest.approx(99 / 10 + 0.05, rel=0.02)


def test_calls_in_flight_settle_at_what_a_server_takes() -> None:
    requests, seconds, windows = played(Pace(64, 3600), Slots(10), 4000, 0.2)
    assert requests <= 1.1 * 4000
    assert seconds <= 1.5 * 4000 * 0.2 / 10
    assert 5 <= sum(windows[-2000:]) / 2000 <= 11


def test_a_pause_is_for_all_calls_and_as_long_as_the_endpoint_says() -> None:
    pace = Pace(8, 3600)
    for _ in range(3):
        pace.sent(0.0)
    assert pace.refused(0.1, 0.0, 600.0) == 600.0
    assert pace.delay_s(0.1) == 600.0
    assert pace.refused(0.2, 0.0, 30.0) == pytest.approx(599.9)  # the longer pause stands
    assert pace.window == 8
    assert pace.delay_s(600.2) == 0


def test_a_pause_without_a_time_grows_until_an_answer_comes() -> None:
    pace, now, pauses = Pace(8, 3600), 0.0, []
    for _ in range(9):
        pace.sent(now)
        pauses.append(pace.refused(now + 0.01, now, None))
        pace.ended()
        now += 0.01 + pauses[-1]
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 60, 60])
    pace.sent(now)
    pace.admitted(now)
    pace.sent(now + 1)
    assert pace.refused(now + 2, now + 1, None) == pytest.approx(0.5)


def test_patience_ends_where_every_call_is_refused_for_longer() -> None:
    pace = Pace(8, patience_s=100)
    pace.sent(0.0)
    pace.refused(0.0, 0.0, 90.0)
    assert not pace.is_out_of_patience
    pace.sent(90.0)
    pace.refused(90.0, 90.0, 20.0)
    assert pace.is_out_of_patience
    pace.admitted(95.0)
    assert not pace.is_out_of_patience
    pace.sent(120.0)
    pace.refused(120.0, 120.0, 86400.0)  # no use in waiting for a part of it
    assert pace.is_out_of_patience
