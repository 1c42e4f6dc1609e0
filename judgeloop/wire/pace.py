"""How fast an endpoint is asked: calls in flight, the rate that it allows, and the pauses that it asks for.

An endpoint that refuses a call for a limit (HTTP 429, or another fault with ``retry-after``) is left alone for as long as it
says, all calls together. What it refuses tells how fast it may be asked:

- Where it says how long to wait, *the rate* is what it admitted since the last pause, over that time with the pause. Calls then
  leave evenly at that rate, which grows by ``_GROWTH`` of itself in each time of such a wait.
- Where it does not, or takes no call after the wait either, *the calls in flight* are halved, once for all that were in flight together, and grow again by one for each
  round of answers (additive increase, multiplicative decrease).
- *Patience* is how long it may refuse every call before a run ends.

``Pace`` has no clock and never waits: ``now`` is given, in seconds of any clock that does not go back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_GROWTH = 0.05
LONGEST_WAIT_S = 60.0
"""Seconds that are waited at most between two attempts where an endpoint states no time."""


@dataclass(slots=True)
class Pace:
    """The pace of one endpoint. ``most``: calls in flight that are never exceeded. ``patience_s``: see ``is_out_of_patience``.
    ``first_wait_s``: the pause where the endpoint states none, doubled at each one in a row."""

    most: int
    patience_s: float
    first_wait_s: float = 0.5
    in_flight: int = 0
    window: float = field(init=False)
    """Calls that may be in flight now."""
    admitted_at: float = float("-inf")
    """When the last call was sent that was not refused."""
    _resumes_at: float = 0.0
    _next_at: float = 0.0
    """When the next call may leave at the rate that was found."""
    _cut_at: float = float("-inf")
    """When the last pause began: refusals of calls that were sent before belong to it."""
    _begun_at: float | None = None
    """When the time began over which admitted calls are counted: with the first call, then at the end of each pause."""
    _wait_s: float = 0.0
    """The last wait that the endpoint stated; 0 where it stated none, so that no rate is known."""
    _span_s: float = 0.0
    """Seconds from ``_begun_at`` to the end of the last pause, over which it admitted ``_admitted`` calls."""
    _admitted: int = 0
    _counted: int = 0
    """Calls that were admitted since ``_begun_at``."""
    _refused_since: float | None = None
    _refusals: int = 0
    """Pauses in a row without an answer between them."""

    def __post_init__(self) -> None:
        self.window = float(self.most)

    def delay_s(self, now: float) -> float | None:
        """Seconds until a call may be sent, 0 for now; None: once one of those in flight has ended."""
        if self.in_flight >= max(1, int(self.window)):
            return None
        return max(0.0, self._resumes_at - now, self._next_at - now)

    def sent(self, now: float) -> None:
        """A call leaves."""
        self.in_flight += 1
        if self._begun_at is None:
            self._begun_at = now
        if rate := self._rate(now):
            self._next_at = max(now, self._next_at) + 1 / rate

    def _rate(self, now: float) -> float:
        """Calls a second that the endpoint allows as far as is known; 0 where it stated no limit."""
        if not (self._wait_s and self._admitted and self._span_s):
            return 0.0
        waits = max(0.0, now - self._resumes_at) / self._wait_s
        return self._admitted / self._span_s * (1 + _GROWTH * waits)

    def ended(self) -> None:
        """A call has ended, however."""
        self.in_flight -= 1

    def admitted(self, sent_at: float) -> None:
        """A call that was sent at ``sent_at`` was not refused for a limit."""
        self._refused_since, self._refusals = None, 0
        self.admitted_at = max(self.admitted_at, sent_at)
        if sent_at <= self._cut_at:  # an answer of the time before the pause
            self._admitted += 1
            return
        self._counted += 1
        self.window = min(float(self.most), self.window + 1 / self.window)

    def refused(self, now: float, sent_at: float, wait_s: float | None) -> float:
        """A call that was sent at ``sent_at`` was refused for a limit; ``wait_s`` as the endpoint states it. Seconds of the pause
        from now on."""
        if self._refused_since is None:
            self._refused_since = now
        if sent_at > self._cut_at:
            self._begin_pause(now, wait_s)
        pause_s = min(LONGEST_WAIT_S, self.first_wait_s * 2.0 ** min(self._refusals - 1, 30))
        if wait_s or (wait_s is not None and self._refusals == 1):  # "at once" is believed as long as it helps
            pause_s = wait_s
        if now + pause_s > self._resumes_at:
            self._resumes_at = self._begun_at = now + pause_s
        if self._span_s:
            self._next_at = self._resumes_at
        return self._resumes_at - now

    def _begin_pause(self, now: float, wait_s: float | None) -> None:
        begun_at = now if self._begun_at is None else self._begun_at
        if not wait_s or self._refusals:  # it takes nothing at all, however long it says to wait
            self.window = max(1.0, min(self.window, float(self.in_flight)) / 2)
        self._wait_s = wait_s or 0.0
        self._span_s = max(0.0, now - begun_at) + self._wait_s
        self._admitted, self._counted = self._counted, 0
        self._cut_at = now
        self._refusals += 1

    @property
    def is_out_of_patience(self) -> bool:
        """Whether the endpoint refuses every call for longer than ``patience_s``, by the end of its pause."""
        return self._refused_since is not None and self._resumes_at - self._refused_since > self.patience_s
