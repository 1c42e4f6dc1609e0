"""The client: named calls in, replies out; recorded answers first, then the endpoint; retries, limits and cost.

tenacity is the one retry authority (the openai client's own retries are off). A call is recorded the moment it is
answered, so that no answer is ever paid for twice.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import tenacity

from judgeloop.errors import BudgetReached, EndpointFailed, JudgeloopError, ReplayMiss
from judgeloop.experiment import Endpoint
from judgeloop.records import Call, Reply, canonical
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.reply import Refused, Transient, parse, read

CONSECUTIVE_FAILURES = 20
_LONGEST_WAIT_S = 60.0


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

    def reserve(self, estimate: float) -> None:
        """Room for one more call, or BudgetReached: calls in flight count at their worst."""
        if self.max_calls is not None and self.calls + self.waiting >= self.max_calls:
            raise BudgetReached(
                f"budget of {self.max_calls} calls is reached; raise --max-calls and run the same command to resume"
            )
        if self.max_cost is not None and self.cost + self.reserved + estimate > self.max_cost:
            raise BudgetReached(
                f"budget of {self.max_cost:g} USD is reached ({self.cost:.4f} spent); raise --max-cost and run the same command to resume"
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
        self._lines: dict[str, _Line] = {}
        self._flying: dict[tuple[str, str], asyncio.Task[Reply]] = {}
        self._fatal: JudgeloopError | None = None
        self._counted: set[tuple[str, str]] = set()

    async def __aenter__(self) -> WireClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def ask(self, call: Call) -> Reply:
        """See records.Client. Calls with the same id and body are asked once, however many wait for them."""
        identity = (call.call_id, call.key)
        flying = self._flying.get(identity)
        if flying is None:
            exchange = self._cassette.get(*identity)
            if exchange is None and self._replay is not None:
                exchange = self._replay.get(*identity)
                if exchange is None:
                    raise ReplayMiss(
                        f"replay: {call.call_id} is not recorded; {self._replay.nearest(call)}. Replay the experiment that was recorded, or record it anew"
                    )
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
        reply = read(exchange.status, exchange.response, exchange.fault)
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
        line = self._lines.get(call.endpoint)
        if line is None:
            line = self._lines[call.endpoint] = _Line(call.endpoint, endpoint, self._environment)
        async with line.slots:
            if self._fatal:
                raise self._fatal
            estimate = _worst_cost(endpoint, call)
            self.ledger.reserve(estimate)
            try:
                await line.check_alive()
                exchange = await self._attempt(line, call)
                if exchange.fault or exchange.status != 200:
                    self._hold(line, call, exchange)
                    return read(exchange.status, exchange.response, exchange.fault)
                for held_call, held in line.held:
                    self._cassette.append(held)
                    self._note(held_call, held, recorded=False)
                line.held.clear()
                self._cassette.append(exchange)
                return self._note(call, exchange, recorded=False)
            except JudgeloopError as error:
                self._fatal = self._fatal or error
                raise
            finally:
                self.ledger.release(estimate)

    def _hold(self, line: _Line, call: Call, exchange: Exchange) -> None:
        """A failed call is recorded only once a later call succeeds: if the endpoint has failed for good, resuming asks
        it again instead of finding its failure."""
        reply = read(exchange.status, exchange.response, exchange.fault)
        if reply.failure == "context_length":  # the endpoint is well; this text is too long
            self._cassette.append(exchange)
            self._note(call, exchange, recorded=False)
            return
        line.held.append((call, exchange))
        if len(line.held) >= CONSECUTIVE_FAILURES:
            message = line.scrub(_message(exchange))
            raise EndpointFailed(
                f"endpoint {line.name} ({line.endpoint.base_url}): {CONSECUTIVE_FAILURES} calls in a row failed, the last with {reply.failure}{message}; mend it and run the same command to resume{_setting_hint(message)}"
            )

    async def _attempt(self, line: _Line, call: Call) -> Exchange:
        attempts = 0
        try:
            async for attempt in tenacity.AsyncRetrying(
                stop=tenacity.stop_after_attempt(line.endpoint.attempts),
                wait=self._wait,
                retry=tenacity.retry_if_exception_type(Transient),
                reraise=True,
            ):
                with attempt:
                    attempts += 1
                    status, text = await line.post(call)
                    body = parse(status, text)
                    return Exchange(call.call_id, call.key, call.body, status, body, attempts)
        except Transient as fault:
            return Exchange(call.call_id, call.key, call.body, fault.status, fault.response, attempts, fault.fault)
        except Refused as refusal:
            raise EndpointFailed(
                f"endpoint {line.name} ({line.endpoint.base_url}, model {line.endpoint.model}): {line.scrub(str(refusal))}; check the key, base_url and model, then run the same command to resume"
            ) from None
        raise AssertionError("tenacity ends in a result or an exception")

    def _wait(self, state: tenacity.RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        if isinstance(fault, Transient) and fault.wait_s is not None:
            return min(fault.wait_s, _LONGEST_WAIT_S)
        return tenacity.wait_exponential_jitter(self._backoff_s, max=_LONGEST_WAIT_S, jitter=self._backoff_s)(state)

    async def close(self) -> None:
        """Let calls in flight end (they are paid for), record them, and close the connections."""
        flying = list(self._flying.values())
        if flying:
            _, late = await asyncio.wait(flying, timeout=20)
            for task in late:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
        if self._fatal is None:
            for line in self._lines.values():
                for held_call, held in line.held:
                    self._cassette.append(held)
                    self._note(held_call, held, recorded=False)
                line.held.clear()
        for line in self._lines.values():
            await line.close()


class _Line:
    """The open connection to one endpoint."""

    def __init__(self, name: str, endpoint: Endpoint, environment: Mapping[str, str]) -> None:
        assert endpoint.base_url is not None
        self.name, self.endpoint = name, endpoint
        self.slots = asyncio.Semaphore(endpoint.concurrency)
        self.held: list[tuple[Call, Exchange]] = []
        self._alive: asyncio.Task[None] | None = None
        self._secrets = [environment[n] for n in (endpoint.api_key_env or "OPENAI_API_KEY",) if environment.get(n)]
        headers = {}
        for header, value in endpoint.extra_headers.items():
            headers[header] = re.sub(r"\$\{(\w+)\}", lambda match: self._secret(environment, match[1]), value)
        timeout = httpx2.Timeout(endpoint.timeout_s, connect=min(10.0, endpoint.timeout_s))
        limits = httpx2.Limits(max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency)
        host = httpx2.URL(endpoint.base_url).host
        local = host in ("localhost", "127.0.0.1", "::1")
        self._openai = openai.AsyncOpenAI(
            api_key=self._secrets[0] if self._secrets else "none",
            base_url=endpoint.base_url,
            organization=None,
            project=None,
            max_retries=0,
            timeout=timeout,
            default_headers=headers,
            default_query=dict(endpoint.extra_query),
            http_client=httpx2.AsyncClient(limits=limits, timeout=timeout, trust_env=not local),
        )

    def _secret(self, environment: Mapping[str, str], variable: str) -> str:
        value = environment.get(variable, "")
        if value:
            self._secrets.append(value)
        return value

    def scrub(self, text: str) -> str:
        """A server may echo a key in its error: it goes no further."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def check_alive(self) -> None:
        """Once, before the first call: is there a server at all? (What it answers does not matter.)"""
        if self._alive is None:
            self._alive = asyncio.create_task(self._connect())
        await asyncio.shield(self._alive)

    async def _connect(self) -> None:
        for wait_s in (0.2, 1.0, None):
            try:
                await self._openai.get("/models", cast_to=httpx2.Response, options={"timeout": 15.0})
            except openai.APITimeoutError:
                return  # something is there, and slow: the calls have their own timeout
            except openai.APIConnectionError as error:
                if wait_s is None:
                    raise EndpointFailed(
                        f"endpoint {self.name}: no server answers at {self.endpoint.base_url} ({error.__cause__ or error}); start it or mend base_url, then run the same command"
                    ) from None
                await asyncio.sleep(wait_s)
            except openai.APIStatusError:
                return  # not every server lists its models
            else:
                return

    async def post(self, call: Call) -> tuple[int, str]:
        """One attempt: status and text. Raises Transient where no whole response came."""
        try:
            response = await self._openai.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                body=dict(call.body),
                options={"headers": {"x-judgeloop-call": call.call_id}},
            )
        except openai.APIStatusError as error:
            text = error.response.text
            try:
                parse(error.status_code, text)
            except Transient as fault:
                fault.wait_s = _retry_after(error.response.headers)
                raise
            return error.status_code, text
        except openai.APITimeoutError:
            raise Transient("timeout") from None
        except openai.APIConnectionError as error:
            raise Transient("connection", detail=str(error.__cause__ or error)) from None
        except httpx2.HTTPError as error:
            raise Transient("connection", detail=str(error)) from None
        return response.status_code, response.text

    async def close(self) -> None:
        if self._alive is not None:
            await asyncio.gather(self._alive, return_exceptions=True)
        await self._openai.close()


def _worst_cost(endpoint: Endpoint, call: Call) -> float:
    if not (endpoint.price.input or endpoint.price.output):
        return 0.0
    body: Mapping[str, Any] = call.body
    longest = body.get(endpoint.max_tokens_field) or endpoint.max_tokens
    return (len(canonical(body)) / 2 * endpoint.price.input + longest * endpoint.price.output) / 1e6


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return None


def _message(exchange: Exchange) -> str:
    error = exchange.response.get("error") if isinstance(exchange.response, dict) else None
    return f": {str(error.get('message', ''))[:300]}" if isinstance(error, dict) else ""


def _setting_hint(message: str) -> str:
    if "max_completion_tokens" in message:
        return " (set the endpoint's max_tokens_field: max_completion_tokens)"
    if "temperature" in message:
        return " (set the endpoint's send_temperature: false)"
    return ""
