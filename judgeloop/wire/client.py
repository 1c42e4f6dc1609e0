"""The client: named calls in, replies out; recorded answers first, then the endpoint, with retries, limits and cost.

``Connection`` belongs to one endpoint and makes single attempts at calls; ``WireClient`` has one for each endpoint.
tenacity alone decides on retries (the openai client's own are off). A call is recorded the moment it is answered, so that
no answer is ever paid for twice.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from judgeloop.errors import AnswersOutstanding, BudgetReached, EndpointFailed, JudgeloopError, ReplayMiss
from judgeloop.experiment.options import remedy
from judgeloop.experiment.schema import Endpoint, Price
from judgeloop.records import Call, Reply, Route, Work, canonical
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.reply import (
    SHORTEST_SECRET_IN_ANSWER,
    SHORTEST_SECRET_IN_ERROR,
    Refusal,
    TransientFault,
    parse,
    read,
    route_path,
)

if TYPE_CHECKING:
    import httpx2
    import tenacity

CONSECUTIVE_FAILURES = 20
"""Failed calls in a row of one endpoint that end a run."""
LONGEST_WAIT_S = 60.0
"""Seconds that are waited at most between two attempts, whatever a server asks for."""
_CLOSING_S = 20.0


class Connection:
    """The open connection to one endpoint: its key and headers, and single attempts at calls.

    ``where`` names it in errors; ``slots`` bounds the calls in flight; ``held`` are failed calls that are not recorded yet.
    """

    def __init__(self, name: str, endpoint: Endpoint, environment: Mapping[str, str]) -> None:
        """``name`` of the endpoint in its file. Raises EndpointFailed where the address or a header cannot be used."""
        import httpx2
        import openai  # only where an endpoint is asked: it is slow to import

        assert endpoint.base_url is not None
        self.endpoint = endpoint
        self.where = f"endpoint {name} ({bare_address(endpoint.base_url)}, model {endpoint.model})"
        self.key_variable = endpoint.api_key_env or "OPENAI_API_KEY"
        self.slots = asyncio.Semaphore(endpoint.concurrency)
        self.held: list[tuple[Call, Exchange]] = []
        self._alive: asyncio.Task[None] | None = None
        self._environment = environment
        self._secrets: list[str] = []
        key = self._sendable(self._secret(self.key_variable), self.key_variable)
        headers = {
            header: self._sendable(self._expanded(value), header) for header, value in endpoint.extra_headers.items()
        }
        timeout = httpx2.Timeout(endpoint.timeout_s, connect=min(10.0, endpoint.timeout_s))
        self._listing_timeout = httpx2.Timeout(15.0, connect=timeout.connect)
        limits = httpx2.Limits(max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency)
        try:
            url = httpx2.URL(endpoint.base_url)
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if not url.host or not 0 <= (url.port or 0) < 2**16:
            raise EndpointFailed(f"{self.where}: base_url is no address; mend it, then run the same command")
        self._base = url
        is_local = url.host in ("localhost", "127.0.0.1", "::1")
        self._openai = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=endpoint.base_url,
            organization=None,
            project=None,
            max_retries=0,
            timeout=timeout,
            default_headers=headers,
            default_query={name: self._expanded(value) for name, value in endpoint.extra_query.items()},
            http_client=httpx2.AsyncClient(
                limits=limits, timeout=timeout, trust_env=not is_local, verify=_tls(not is_local)
            ),
        )

    def _secret(self, variable: str) -> str:
        """The value of an environment variable, remembered as a secret; empty where it is not set."""
        value = self._environment.get(variable, "").strip()
        if value:
            escaped = json.dumps(value)[1:-1]
            self._secrets += {value, escaped, escaped.replace("/", r"\/")}
            self._secrets.sort(key=len, reverse=True)  # so that no part of a longer one stays
        return value

    def _expanded(self, value: str) -> str:
        """A setting with every ${VARIABLE} replaced by its value."""
        return re.sub(r"\$\{(\w+)\}", lambda match: self._secret(match[1]), value)

    def _sendable(self, value: str, name: str) -> str:
        """A header's value. Raises EndpointFailed without the value in it, which an error from deeper down would show."""
        if value.isascii() and value.isprintable():
            return value
        raise EndpointFailed(
            f"{self.where}: {name} holds a line break or a character that no header can carry; set it anew, then run the same command"
        )

    def scrub(self, text: str, shortest: int = SHORTEST_SECRET_IN_ERROR) -> str:
        """A text of the server without the secrets of ``shortest`` characters or more that it may echo."""
        for secret in self._secrets:
            if len(secret) >= shortest:
                text = text.replace(secret, "***")
        return text

    async def check_alive(self) -> None:
        """Check once, before the first call, that a server answers, whatever it answers. Raises EndpointFailed."""
        if self._alive is None:
            self._alive = asyncio.create_task(self._connect())
        await asyncio.shield(self._alive)

    async def _connect(self) -> None:
        import httpx2
        import openai

        for wait_s in (0.2, 1.0, None):
            try:
                await self._openai.get("/models", cast_to=httpx2.Response, options={"timeout": self._listing_timeout})
            except openai.APIConnectionError as error:
                cause = error.__cause__ or error
                if isinstance(cause, httpx2.ReadTimeout | httpx2.ReadError | httpx2.RemoteProtocolError):
                    return  # something is there, slow or odd: the calls have their own timeout and retries
                if wait_s is None or isinstance(cause, httpx2.ConnectTimeout):
                    raise EndpointFailed(
                        f"{self.where}: no server answers ({brief(self.scrub(str(cause) or type(cause).__name__))}); start it or mend base_url, then run the same command to resume"
                    ) from None
                await asyncio.sleep(wait_s)
            except (openai.APIStatusError, httpx2.HTTPError):
                return  # not every server lists its models
            else:
                return

    async def post(self, call: Call) -> tuple[int, str]:
        """One attempt at a call: (HTTP status, text). Raises TransientFault where no whole response came, Refusal where the
        endpoint redirects."""
        import httpx2
        import openai

        try:
            # httpx2 bounds every read; this bounds them all, against a server that trickles.
            async with asyncio.timeout(self.endpoint.timeout_s):
                response = await self._openai.post(
                    self._address(call.route),
                    cast_to=httpx2.Response,
                    body=dict(call.body),
                    options={"headers": {"x-judgeloop-call": call.call_id}},
                )
                return response.status_code, self.scrub(decoded(response), SHORTEST_SECRET_IN_ANSWER)
        except openai.APIStatusError as error:
            return self._error_answer(error.response, call.route)
        except (openai.APITimeoutError, TimeoutError):
            raise TransientFault("timeout") from None
        except openai.APIConnectionError as error:
            raise TransientFault("connection", detail=str(error.__cause__ or error)) from None
        except httpx2.HTTPError as error:
            raise TransientFault("connection", detail=str(error)) from None

    def _address(self, route: Route) -> str:
        return str(self._base.copy_with(path=route_path(self._base.path, route))) if route else "/chat/completions"

    def _error_answer(self, response: httpx2.Response, route: Route) -> tuple[int, str]:
        """(HTTP status, text) of an answer that is no 200. Raises TransientFault or Refusal as ``parse`` does."""
        text = self.scrub(decoded(response))
        if 300 <= response.status_code < 400:
            target = self.scrub(response.headers.get("location", "another address"))
            raise Refusal(f"HTTP {response.status_code}: redirects to {target}")
        try:
            parse(response.status_code, text, route)
        except TransientFault as fault:
            fault.wait_s = _retry_after_s(response.headers)
            raise
        return response.status_code, text

    async def close(self) -> None:
        """Close the connections."""
        if self._alive is not None:
            await asyncio.gather(self._alive, return_exceptions=True)
        await self._openai.close()


@cache
def _tls(trust_env: bool) -> ssl.SSLContext:
    """The store of certificates that all connections of a process share: to read it takes longer than many calls (40 ms)."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=trust_env)


def bare_address(base_url: str) -> str:
    """A base URL without a user, a password or a query in it."""
    return re.sub(r"//[^/?#]*@|\?.*", lambda match: "//" * match[0].startswith("//"), base_url)


def decoded(response: httpx2.Response) -> str:
    """The text of a response. JSON is UTF-8, whatever charset a header names."""
    return response.content.decode("utf-8-sig", "replace")


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by a retry-after header of seconds or of a date; None where it has neither."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def brief(message: str) -> str:
    """A server's message on one line of at most 300 printable characters."""
    line = " ".join(message.split())[:300].rstrip(" .")
    return "".join(letter if letter.isprintable() else "?" for letter in line)


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """An answered call, as observers get it: the reply, whether it was recorded before, and the run's calls and cost so far.

    ``cost`` in US dollars, recorded calls included; without those to ``unpriced`` models, whose price is not stated.
    """

    call: Call
    reply: Reply
    recorded: bool
    attempts: int
    calls: int
    cost: float
    unpriced: tuple[str, ...] = ()


@dataclass(slots=True)
class Ledger:
    """Calls and cost of the whole run in US dollars, recorded ones included, against the budget.

    ``waiting`` are calls in flight, ``reserved`` what they may cost at most, ``held`` failed calls that are not recorded yet;
    ``unpriced``: models that were asked and state no price.
    """

    max_cost: float | None = None
    max_calls: int | None = None
    calls: int = 0
    cost: float = 0.0
    reserved: float = 0.0
    waiting: int = 0
    held: int = 0
    unpriced: tuple[str, ...] = ()

    def affords(self, estimate: float) -> bool:
        """Whether one more call cannot break the cost limit: calls in flight count at their worst."""
        return self.max_cost is None or self.cost + self.reserved + estimate <= self.max_cost

    def reserve(self, estimate: float) -> None:
        """Reserve one more call. Raises BudgetReached; calls in flight and failures not yet recorded count too."""
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
        """Give back what ``reserve`` took, once the call has ended."""
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
        observer: Callable[[AnsweredCall], None] | None = None,
        environment: Mapping[str, str] = os.environ,
        backoff_s: float = 0.5,
    ) -> None:
        """``endpoints`` have a base_url each (engines are started before, by serving.engines).

        With ``replay`` nothing is asked: every answer is in ``cassette`` or ``replay``, else ReplayMiss. ``observer`` gets
        every answered call. ``environment`` holds the keys. ``backoff_s``: seconds before the second attempt, doubled later.
        """
        self._endpoints = endpoints
        self._cassette = cassette
        self._replay = replay
        self.ledger = ledger or Ledger()
        self._observer = observer
        self._environment = environment
        self._backoff_s = backoff_s
        self._connections: dict[tuple[str, str], Connection] = {}
        """(endpoint, address) → connection; the address is empty but for models that a training put elsewhere."""
        self._in_flight: dict[tuple[str, str], asyncio.Task[Reply]] = {}
        self._fatal: JudgeloopError | None = None
        self._closing = asyncio.Event()
        self._call_ended = asyncio.Event()
        self._counted: set[tuple[str, str]] = set()

    async def __aenter__(self) -> WireClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        await self.close(ended_well=kind is None)

    async def ask(self, call: Call, work: Work | None = None, worst_cost: float = 0.0) -> Reply:
        """The reply to a call (see records.Client). Calls with the same id and body are asked once, however many wait."""
        identity = (call.call_id, call.key)
        task = self._in_flight.get(identity)
        if task is None:
            exchange = self._cassette.get(*identity)
            if exchange is None and self._replay is not None:
                exchange = self._replay.get(*identity)
                if exchange is None:
                    # Only once: to find the nearest of many recordings takes long.
                    self._fatal = self._fatal or ReplayMiss(
                        f"replay: {call.call_id} is not recorded; {self._replay.nearest(call)}. Replay the experiment that was recorded, or record it anew"
                    )
                    raise self._fatal
                self._cassette.append(exchange)
            if exchange is not None:
                return self._note(call, exchange, recorded=True)
            if self._fatal:
                raise self._fatal
            answering = self._send(call) if work is None else self._do(call, work, worst_cost)
            task = asyncio.create_task(answering, name=call.call_id)
            self._in_flight[identity] = task
            task.add_done_callback(lambda ended: self._forget(identity, ended))
        # The call goes on if the asker is cancelled: what is paid for gets recorded.
        return await asyncio.shield(task)

    def _forget(self, identity: tuple[str, str], task: asyncio.Task[Reply]) -> None:
        self._in_flight.pop(identity, None)
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio warns where nobody waits for the call any more

    def _note(self, call: Call, exchange: Exchange, *, recorded: bool) -> Reply:
        """The reply in an exchange, counted in the ledger and shown to the observer."""
        reply = read(exchange.status, exchange.response, exchange.fault, exchange.route)
        identity = (call.call_id, call.key)
        if identity not in self._counted:
            self._counted.add(identity)
            endpoint = self._endpoints[call.endpoint] if call.endpoint else None
            price = endpoint.price if endpoint else Price()
            if endpoint and not endpoint.is_priced and endpoint.model not in self.ledger.unpriced:
                self.ledger.unpriced = tuple(sorted((*self.ledger.unpriced, endpoint.model)))
            self.ledger.calls += 1
            self.ledger.cost += (reply.prompt_tokens * price.input + reply.completion_tokens * price.output) / 1e6
            self.ledger.cost += reply.trained.get("metrics", {}).get("tokens", 0) * price.training / 1e6
        if self._observer:
            spent = self.ledger.calls, self.ledger.cost, self.ledger.unpriced
            self._observer(AnsweredCall(call, reply, recorded, exchange.attempts, *spent))
        return reply

    async def _do(self, call: Call, work: Work, worst_cost: float) -> Reply:
        """The reply that ``work`` makes, within the budget, recorded."""
        try:
            await self._reserve(worst_cost)
            try:
                response = await work(call)
                status = 400 if "error" in response else 200
                exchange = Exchange(
                    call.call_id, call.key, call.body, status, response, 1, route=call.route, weights=call.weights
                )
                self._cassette.append(exchange)
                return self._note(call, exchange, recorded=False)
            finally:
                self.ledger.release(worst_cost)
                self._call_ended.set()
        except AnswersOutstanding:
            raise  # others go on
        except JudgeloopError as error:
            self._fatal = self._fatal or error
            raise

    def _connection(self, call: Call) -> Connection:
        """The connection to the address of a call."""
        place = (call.endpoint, call.base_url)
        if place not in self._connections:
            endpoint = self._endpoints[call.endpoint]
            if call.base_url:
                endpoint = endpoint.model_copy(update={"base_url": call.base_url, "model": call.body.get("model")})
            self._connections[place] = Connection(call.endpoint, endpoint, self._environment)
        return self._connections[place]

    async def _send(self, call: Call) -> Reply:
        """The reply of the endpoint, within its concurrency and the budget, recorded."""
        endpoint = self._endpoints[call.endpoint]
        try:
            connection = self._connection(call)
            async with connection.slots:
                estimate = worst_cost(endpoint, call)
                await self._reserve(estimate)
                try:
                    await connection.check_alive()
                    exchange = await self._attempt(connection, call)
                    if exchange.fault or exchange.status != 200:
                        return self._failure_reply(connection, call, exchange)
                    self._flush(connection)
                    self._cassette.append(exchange)
                    return self._note(call, exchange, recorded=False)
                finally:
                    self.ledger.release(estimate)
                    self._call_ended.set()
        except JudgeloopError as error:
            self._fatal = self._fatal or error
            raise

    async def _reserve(self, estimate: float) -> None:
        """Reserve the call in the budget. Where only calls in flight could break it, wait for what these really cost."""
        self._check_open()
        while not self.ledger.affords(estimate) and self.ledger.waiting:
            self._call_ended.clear()
            await self._call_ended.wait()
            self._check_open()
        self.ledger.reserve(estimate)

    def _check_open(self) -> None:
        """Raise where no call may be sent any more."""
        if self._fatal:
            raise self._fatal
        if self._closing.is_set():
            raise asyncio.CancelledError  # not sent, and nobody waits for it

    def _flush(self, connection: Connection) -> None:
        """Record the failures held back: a later answer shows that the endpoint works, so they are this run's data."""
        while connection.held:
            call, exchange = connection.held[0]
            self._cassette.append(exchange)
            self._drop(connection, 1)
            self._note(call, exchange, recorded=False)

    def _drop(self, connection: Connection, count: int) -> None:
        del connection.held[:count]
        self.ledger.held -= count

    def _failure_reply(self, connection: Connection, call: Call, exchange: Exchange) -> Reply:
        """The reply of a failed call. Raises EndpointFailed after ``CONSECUTIVE_FAILURES`` of them in a row.

        It is recorded only once a later call succeeds: where the endpoint has failed for good, resuming asks it again
        instead of finding its failure.
        """
        reply = read(exchange.status, exchange.response, exchange.fault, exchange.route)
        if reply.failure == "context_length":  # the endpoint is well; this text is too long
            self._flush(connection)
            self._cassette.append(exchange)
            return self._note(call, exchange, recorded=False)
        if self._closing.is_set():
            raise asyncio.CancelledError  # its retries were cut short
        connection.held.append((call, exchange))
        self.ledger.held += 1
        if len(connection.held) < CONSECUTIVE_FAILURES:
            return reply
        self._drop(connection, len(connection.held))
        raise EndpointFailed(
            f"{connection.where}: {CONSECUTIVE_FAILURES} calls in a row failed, the last with {failure_words(reply)}, then run the same command to resume"
        )

    async def _attempt(self, connection: Connection, call: Call) -> Exchange:
        """The exchange after as many attempts as it took. Raises EndpointFailed where the endpoint refuses for good."""
        import tenacity  # only where an endpoint is asked

        attempts = 0
        try:
            async for attempt in tenacity.AsyncRetrying(
                stop=lambda state: state.attempt_number >= connection.endpoint.attempts or self._closing.is_set(),
                wait=self._wait_s,
                sleep=self._pause,
                retry=tenacity.retry_if_exception_type(TransientFault),
                reraise=True,
            ):
                with attempt:
                    attempts += 1
                    status, text = await connection.post(call)
                    body = parse(status, text, call.route)
                    return Exchange(
                        call.call_id, call.key, call.body, status, body, attempts, "", call.route, call.weights
                    )
        except TransientFault as fault:
            return Exchange(
                call.call_id, call.key, call.body, fault.status, fault.response, attempts, fault.fault, call.route,
                call.weights,
            )  # fmt: skip
        except Refusal as refusal:
            asked = f" (asked /{call.route})" if call.route else ""
            settings = "base_url, model and route" if call.route else "base_url and model"
            # A 404 or an unknown model has nothing to do with the key.
            key = "" if refusal.absent else f"the key in {connection.key_variable} and its credit, "
            mended = remedy(str(refusal)) or f"check {key}{settings}"
            raise EndpointFailed(
                f"{connection.where}: {brief(str(refusal))}{asked}; {mended}, then run the same command to resume"
            ) from None
        raise AssertionError("tenacity ends in a result or an exception")

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        if isinstance(fault, TransientFault) and fault.wait_s is not None:
            return min(fault.wait_s, LONGEST_WAIT_S)
        import tenacity

        return tenacity.wait_exponential_jitter(multiplier=self._backoff_s, max=LONGEST_WAIT_S, jitter=self._backoff_s)(
            state
        )

    async def _pause(self, seconds: float) -> None:
        """Wait between two attempts, or until the client is closed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def close(self, *, ended_well: bool = True) -> None:
        """Let calls in flight end (they are paid for), record them, and close the connections.

        No call is sent any more. Failures that no answer followed are recorded only if the run ``ended_well``.
        """
        self._closing.set()
        self._call_ended.set()
        tasks = list(self._in_flight.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSING_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        try:
            for connection in self._connections.values():
                if ended_well and self._fatal is None:
                    self._flush(connection)
                self._drop(connection, len(connection.held))
        finally:
            for connection in self._connections.values():
                await connection.close()


def worst_cost(endpoint: Endpoint, call: Call) -> float:
    """The most that a call can cost, in US dollars: a token a byte, and a reply as long as it may be (a score has none)."""
    if not (endpoint.price.input or endpoint.price.output):
        return 0.0
    limits = [call.body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    longest = max((limit for limit in limits if isinstance(limit, int)), default=endpoint.max_tokens)
    longest = 0 if call.route else longest
    sent = len(canonical(call.body).encode("utf-8", "surrogatepass"))
    return (sent * endpoint.price.input + longest * endpoint.price.output) / 1e6


def failure_words(reply: Reply) -> str:
    """Why a call failed, the server's own sentence, and what mends it: "bad_request: …; set …"."""
    said = f": {brief(reply.detail)}" if reply.detail else ""
    return f"{reply.failure}{said}; {remedy(reply.detail) or 'mend it'}"
