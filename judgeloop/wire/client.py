"""The client: named calls in, replies out; recorded answers first, then the endpoint; retries, limits and cost.

tenacity is the one retry authority (the openai client's own retries are off). A call is recorded the moment it is
answered, so that no answer is ever paid for twice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from judgeloop.errors import BudgetReached, EndpointFailed, JudgeloopError, ReplayMiss
from judgeloop.experiment.blocks import Endpoint
from judgeloop.records import Call, Reply, canonical
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.line import Line, brief
from judgeloop.wire.reply import Refused, Transient, parse, read

if TYPE_CHECKING:
    import tenacity

CONSECUTIVE_FAILURES = 20
_LONGEST_WAIT_S = 60.0
_CLOSING_S = 20.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What an observer is told of every call: the reply, whether it came from a recording, and what the run has cost."""

    call: Call
    reply: Reply
    recorded: bool
    attempts: int
    calls: int
    cost: float


@dataclass(slots=True)
class Ledger:
    """Calls and cost of the whole run, recorded ones included, against the budget."""

    max_cost: float | None = None
    max_calls: int | None = None
    calls: int = 0
    cost: float = 0.0
    reserved: float = 0.0
    waiting: int = 0
    held: int = 0

    def affords(self, estimate: float) -> bool:
        """Whether one more call cannot break the cost limit: calls in flight count at their worst."""
        return self.max_cost is None or self.cost + self.reserved + estimate <= self.max_cost

    def reserve(self, estimate: float) -> None:
        """Room for one more call, or BudgetReached: calls in flight and failures not yet recorded count."""
        if self.max_calls is not None and self.calls + self.waiting + self.held >= self.max_calls:
            raise BudgetReached(
                f"budget of {self.max_calls} calls is reached; raise --max-calls and run the same command to resume"
            )
        if not self.affords(estimate):
            raise BudgetReached(
                f"budget of {self.max_cost:g} USD is reached ({self.cost:.4f} spent, the next call could break it); raise --max-cost and run the same command to resume"
            )
        self.reserved += estimate
        self.waiting += 1

    def release(self, estimate: float) -> None:
        self.reserved -= estimate
        self.waiting -= 1


class WireClient:
    """Asks OpenAI-compatible endpoints. Use as an async context manager; satisfies records.Client."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        cassette: Cassette,
        *,
        replay: Cassette | None = None,
        ledger: Ledger | None = None,
        observer: Callable[[Answered], None] | None = None,
        environment: Mapping[str, str] = os.environ,
        backoff_s: float = 0.5,
    ) -> None:
        """``endpoints`` have a base_url each (an engine is started before, by wire.engine). With ``replay``, nothing is
        asked: every answer is in ``cassette`` or ``replay``, else ReplayMiss."""
        self._endpoints = endpoints
        self._cassette = cassette
        self._replay = replay
        self.ledger = ledger or Ledger()
        self._observer = observer
        self._environment = environment
        self._backoff_s = backoff_s
        self._lines: dict[str, Line] = {}
        self._flying: dict[tuple[str, str], asyncio.Task[Reply]] = {}
        self._fatal: JudgeloopError | None = None
        self._closing = asyncio.Event()
        self._landing = asyncio.Event()
        self._counted: set[tuple[str, str]] = set()

    async def __aenter__(self) -> WireClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        await self.close(ended_well=kind is None)

    async def ask(self, call: Call) -> Reply:
        """See records.Client. Calls with the same id and body are asked once, however many wait for them."""
        identity = (call.call_id, call.key)
        flying = self._flying.get(identity)
        if flying is None:
            exchange = self._cassette.get(*identity)
            if exchange is None and self._replay is not None:
                exchange = self._replay.get(*identity)
                if exchange is None:
                    # Named once: to find the nearest of many recordings takes its time.
                    self._fatal = self._fatal or ReplayMiss(
                        f"replay: {call.call_id} is not recorded; {self._replay.nearest(call)}. Replay the experiment that was recorded, or record it anew"
                    )
                    raise self._fatal
                self._cassette.append(exchange)
            if exchange is not None:
                return self._note(call, exchange, recorded=True)
            if self._fatal:
                raise self._fatal
            flying = asyncio.create_task(self._send(call), name=call.call_id)
            self._flying[identity] = flying
            flying.add_done_callback(lambda task: self._landed(identity, task))
        # The call goes on if the asker is cancelled: what is paid for gets recorded.
        return await asyncio.shield(flying)

    def _landed(self, identity: tuple[str, str], task: asyncio.Task[Reply]) -> None:
        self._flying.pop(identity, None)
        if not task.cancelled():
            task.exception()  # seen: whoever asked may be gone

    def _note(self, call: Call, exchange: Exchange, *, recorded: bool) -> Reply:
        reply = read(exchange.status, exchange.response, exchange.fault, exchange.route)
        identity = (call.call_id, call.key)
        if identity not in self._counted:
            self._counted.add(identity)
            price = self._endpoints[call.endpoint].price
            self.ledger.calls += 1
            self.ledger.cost += (reply.prompt_tokens * price.input + reply.completion_tokens * price.output) / 1e6
        if self._observer:
            self._observer(Answered(call, reply, recorded, exchange.attempts, self.ledger.calls, self.ledger.cost))
        return reply

    async def _send(self, call: Call) -> Reply:
        endpoint = self._endpoints[call.endpoint]
        try:
            line = self._lines.get(call.endpoint)
            if line is None:
                line = self._lines[call.endpoint] = Line(call.endpoint, endpoint, self._environment)
            async with line.slots:
                estimate = worst_cost(endpoint, call)
                await self._reserve(estimate)
                try:
                    await line.check_alive()
                    exchange = await self._attempt(line, call)
                    if exchange.fault or exchange.status != 200:
                        return self._failed(line, call, exchange)
                    self._flush(line)
                    self._cassette.append(exchange)
                    return self._note(call, exchange, recorded=False)
                finally:
                    self.ledger.release(estimate)
                    self._landing.set()
        except JudgeloopError as error:
            self._fatal = self._fatal or error
            raise

    async def _reserve(self, estimate: float) -> None:
        """Room in the budget. Where only what is in flight could break it, wait and see what that really costs."""
        self._check_open()
        while not self.ledger.affords(estimate) and self.ledger.waiting:
            self._landing.clear()
            await self._landing.wait()
            self._check_open()
        self.ledger.reserve(estimate)

    def _check_open(self) -> None:
        if self._fatal:
            raise self._fatal
        if self._closing.is_set():
            raise asyncio.CancelledError  # not sent, and nobody waits for it

    def _flush(self, line: Line) -> None:
        """The endpoint is alive: the failures before are this run's data."""
        while line.held:
            call, exchange = line.held[0]
            self._cassette.append(exchange)
            self._drop(line, 1)
            self._note(call, exchange, recorded=False)

    def _drop(self, line: Line, count: int) -> None:
        del line.held[:count]
        self.ledger.held -= count

    def _failed(self, line: Line, call: Call, exchange: Exchange) -> Reply:
        """A failed call is recorded only once a later call succeeds: if the endpoint has failed for good, resuming asks
        it again instead of finding its failure."""
        reply = read(exchange.status, exchange.response, exchange.fault, exchange.route)
        if reply.failure == "context_length":  # the endpoint is well; this text is too long
            self._flush(line)
            self._cassette.append(exchange)
            return self._note(call, exchange, recorded=False)
        if self._closing.is_set():
            raise asyncio.CancelledError  # its retries were cut short
        line.held.append((call, exchange))
        self.ledger.held += 1
        if len(line.held) < CONSECUTIVE_FAILURES:
            return reply
        self._drop(line, len(line.held))
        message = failure_message(exchange)
        raise EndpointFailed(
            f"{line.where}: {CONSECUTIVE_FAILURES} calls in a row failed, the last with {reply.failure}{message}; mend it and run the same command to resume{setting_hint(message)}"
        )

    async def _attempt(self, line: Line, call: Call) -> Exchange:
        import tenacity  # only where an endpoint is asked

        attempts = 0
        try:
            async for attempt in tenacity.AsyncRetrying(
                stop=lambda state: state.attempt_number >= line.endpoint.attempts or self._closing.is_set(),
                wait=self._wait,
                sleep=self._pause,
                retry=tenacity.retry_if_exception_type(Transient),
                reraise=True,
            ):
                with attempt:
                    attempts += 1
                    status, text = await line.post(call)
                    body = parse(status, text, call.route)
                    return Exchange(call.call_id, call.key, call.body, status, body, attempts, route=call.route)
        except Transient as fault:
            return Exchange(
                call.call_id, call.key, call.body, fault.status, fault.response, attempts, fault.fault, call.route
            )
        except Refused as refusal:
            asked, place = (
                (f" (asked /{call.route})", "base_url, model and route") if call.route else ("", "base_url and model")
            )
            # What is not there is no matter of the key: 404, and models that nobody knows.
            key = "" if refusal.absent else f"the key in {line.key_variable} and its credit, "
            raise EndpointFailed(
                f"{line.where}: {brief(str(refusal))}{asked}; check {key}{place}, then run the same command to resume"
            ) from None
        raise AssertionError("tenacity ends in a result or an exception")

    def _wait(self, state: tenacity.RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        if isinstance(fault, Transient) and fault.wait_s is not None:
            return min(fault.wait_s, _LONGEST_WAIT_S)
        import tenacity

        return tenacity.wait_exponential_jitter(
            multiplier=self._backoff_s, max=_LONGEST_WAIT_S, jitter=self._backoff_s
        )(state)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def close(self, *, ended_well: bool = True) -> None:
        """Let calls in flight end (they are paid for), record them, and close the connections.

        No call is sent any more. Failures that no answer followed are recorded only if the run ``ended_well``.
        """
        self._closing.set()
        self._landing.set()
        flying = list(self._flying.values())
        if flying:
            _, late = await asyncio.wait(flying, timeout=_CLOSING_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
        try:
            for line in self._lines.values():
                if ended_well and self._fatal is None:
                    self._flush(line)
                self._drop(line, len(line.held))
        finally:
            for line in self._lines.values():
                await line.close()


def worst_cost(endpoint: Endpoint, call: Call) -> float:
    """US dollars that a call cannot exceed: a token is a byte or more, and the reply is as long as it may be (a score: 0)."""
    if not (endpoint.price.input or endpoint.price.output):
        return 0.0
    limits = [call.body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    longest = max((limit for limit in limits if isinstance(limit, int)), default=endpoint.max_tokens)
    longest = 0 if call.route else longest
    sent = len(canonical(call.body).encode("utf-8", "surrogatepass"))
    return (sent * endpoint.price.input + longest * endpoint.price.output) / 1e6


def failure_message(exchange: Exchange) -> str:
    """What the server said of a failure, behind a colon; empty where it said nothing."""
    error = exchange.response.get("error") if isinstance(exchange.response, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return f": {brief(message)}" if isinstance(message, str) and message else ""


def setting_hint(message: str) -> str:
    """The endpoint's setting that mends such a failure, in brackets, where one does."""
    if "max_completion_tokens" in message:
        return " (set the endpoint's max_tokens_field: max_completion_tokens)"
    if "temperature" in message:
        return " (set the endpoint's send_temperature: false)"
    return ""
