"""How fast an endpoint is asked: calls in flight, the rate that it allows, and the pauses that it asks for.

An endpoint that refuses a call for a limit (HTTP 429, or another fault with ``retry-after``) is left alone for as long as it
says, all calls together. What it refuses tells how fast it may be asked:

- Where it says how long to wait, *the rate* is what it admitted since the last pause, over that time with the pause. Calls then
  leave evenly at that rate, which grows by ``_GROWTH`` of itself in each time of such a wait.
- Where it does not, or takes no call after the wait either, *the calls in flight* are halved, once for all that were in flight together, and grow again by one for each
  round of answers (additive increase, multiplicative decrease).
- *Patience* is how long it may refuse every call before a run ends.

Before it refuses anything: no more calls are sent a second than ``calls_per_s``, where that is set, and where an answer states how
many calls are left until when, no more than these are sent until then.

``Pace`` has no clock and never waits: ``now`` is given, in seconds of any clock that does not go back. ``calls_left`` reads what answers
state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

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
    calls_per_s: float = 0.0
    """Most calls sent a second; 0: no such limit is known."""
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
    _left: float = float("inf")
    """Calls that may still be sent before ``_left_until``."""
    _left_until: float = float("-inf")

    def __post_init__(self) -> None:
        self.window = float(self.most)

    def delay_s(self, now: float) -> float | None:
        """Seconds until a call may be sent, 0 for now; None: once one of those in flight has ended."""
        if self.in_flight >= max(1, int(self.window)):
            return None
        return max(0.0, self._resumes_at - now, self._next_at - now, self.used_up_s(now))

    def used_up_s(self, now: float) -> float:
        """Seconds until the endpoint takes calls again, where its answers stated that none is left; else 0."""
        return max(0.0, self._left_until - now) if self._left < 1 else 0.0

    def sent(self, now: float) -> None:
        """A call leaves."""
        self.in_flight += 1
        self._left = self._left - 1 if now < self._left_until else float("inf")
        if self._begun_at is None:
            self._begun_at = now
        if rate := self._rate(now):
            self._next_at = max(now, self._next_at) + 1 / rate

    def _rate(self, now: float) -> float:
        """Calls a second that the endpoint allows as far as is known; 0 where no limit is."""
        if not (self._wait_s and self._admitted and self._span_s):
            return self.calls_per_s
        waits = max(0.0, now - self._resumes_at) / self._wait_s
        found = self._admitted / self._span_s * (1 + _GROWTH * waits)
        return min(found, self.calls_per_s or found)

    def stated(self, sent_at: float, left: int, until: float) -> None:
        """The answer to a call that was sent at ``sent_at``, still counted as in flight, stated that ``left`` more calls are taken
        until ``until``. Others in flight may not be counted in it yet."""
        if left < self.in_flight + self.most:
            self._left, self._left_until = left - (self.in_flight - 1), min(until, sent_at + LONGEST_WAIT_S)

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


# What endpoints call the requests and the tokens that are left, and the time of the next: OpenAI and who follows it, gateways, Anthropic.
_LEFT_HEADERS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"), ("ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
)  # fmt: skip
_LEFT_TOKENS_HEADERS = (
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
)
_UNIT_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def calls_left(headers: Mapping[str, str], now: float, call_tokens: Callable[[], int]) -> tuple[int, float] | None:
    """(calls that an endpoint takes until its limit is reset, seconds until then), as its answer's headers state them, of requests or
    of tokens, whichever allows fewer; None where they do not, or not readably. ``now``: seconds since 1970, for those that state a date;
    ``call_tokens``: the tokens that a call counts for, 1 or more, asked for where tokens are limited."""
    found = []
    for names in (_LEFT_HEADERS, _LEFT_TOKENS_HEADERS):
        for left, reset in names:
            if left in headers and reset in headers:
                seconds = _until_s(headers[reset].strip(), now)
                if headers[left].isdecimal() and seconds is not None:
                    calls = int(headers[left]) // (call_tokens() if names is _LEFT_TOKENS_HEADERS else 1)
                    found.append((calls, seconds))
                break
    return min(found, default=None)


def _until_s(stated: str, now: float) -> float | None:
    """Seconds of "6m0s", "120ms", "30", a date as of ISO 8601, or a time since 1970 in seconds or milliseconds."""
    if parts := re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+", stated):
        return sum(float(n) * _UNIT_S[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|[dhms])", parts[0]))
    with suppress(ValueError):
        seconds = float(stated)
        since_1970 = seconds / 1000 if seconds > 1e11 else seconds
        seconds = since_1970 - now if since_1970 > 1e9 else seconds
        return max(0.0, seconds) if math.isfinite(seconds) else None
    with suppress(ValueError):
        stated_at = datetime.fromisoformat(stated)
        return max(0.0, stated_at.timestamp() - now) if stated_at.tzinfo else None
    return None
