"""The client: named calls in, replies out; recorded answers first, then the endpoint, with retries, limits and cost.

``Connection`` belongs to one endpoint and makes single attempts at calls, at the endpoint's pace (``wire/pace``); ``WireClient`` has
one for each endpoint. tenacity alone decides on retries (the openai client's own are off); what an endpoint refuses for a rate limit
is no attempt, and is asked again once it may be. A call is recorded the moment it is answered, so that no answer is ever paid for
twice.
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from judgeloop.errors import AnswersOutstanding, BudgetReached, EndpointFailed, InvalidInput, JudgeloopError, ReplayMiss
from judgeloop.experiment.options import remedy
from judgeloop.experiment.schema import DEFAULT_KEY, Endpoint, Price
from judgeloop.records import PASSING_FAULTS, REWARD_ROUTES, TRIAL_ID, Call, Reply, Route, Work, canonical_bytes
from judgeloop.wire.cassette import CUT_SHORT, Cassette, Exchange, trained_tokens
from judgeloop.wire.line import Answer, LeanLine, Line, is_local, proxy_of, split_address
from judgeloop.wire.pace import LONGEST_WAIT_S, Pace, calls_left
from judgeloop.wire.reply import (
    SHORTEST_SECRET_IN_ANSWER,
    SHORTEST_SECRET_IN_ERROR,
    Refusal,
    Struck,
    TransientFault,
    parse,
    read,
    route_path,
    used_tokens,
)

if TYPE_CHECKING:
    import openai
    import tenacity

CONSECUTIVE_FAILURES = 20
"""Failed calls in a row of one endpoint that end a run."""
_SHOWN_PAUSE_S = 5.0
"""Seconds of a pause that is shown each time; shorter ones are shown once an endpoint."""
_STARTING_S = 0.2, 1.0
"""Seconds before a server where nobody answered is looked for again."""
_CLOSING_S, _UNSAID_S = 20.0, 1.0
"""Seconds for which calls in flight are let end, the first of them without a word."""
_LISTING_S = 15.0
"""Seconds for which a list of models is waited for."""


class Connection:
    """The open connection to one endpoint: its key and headers, and single attempts at calls.

    ``where`` names it in errors; ``slots`` bounds the calls that are being answered, retries and pauses included; ``held`` are calls
    that it took for wrong and that are not recorded yet; ``failures`` are failed calls in a row.
    """

    def __init__(
        self, name: str, endpoint: Endpoint, environment: Mapping[str, str], first_wait_s: float = 0.5,
        client: openai.AsyncOpenAI | None = None, *, is_recorded: bool = False,
    ) -> None:  # fmt: skip
        """``name`` of the endpoint in its file; ``client``: an openai client of the caller's own, by which it is asked;
        ``is_recorded``: the address is that of a model that a training left. Raises EndpointFailed where the address or a header
        cannot be used."""
        assert endpoint.base_url is not None
        self._mend_address = "" if is_recorded else " or mend base_url"
        self.endpoint = endpoint
        self.where = f"endpoint {name} ({bare_address(endpoint.base_url)}, model {endpoint.model})"
        self.slots = asyncio.Semaphore(endpoint.concurrency)
        self.held: list[tuple[Call, Exchange]] = []
        self.failures = 0
        self.pace = Pace(endpoint.concurrency, endpoint.patience_s, first_wait_s, (endpoint.per_minute or 0) / 60)
        self._new, self._refused, self._freed = asyncio.Lock(), asyncio.Lock(), asyncio.Event()
        self._waiting, self._refused_waiting = 0, 0
        self._alive: asyncio.Task[None] | None = None
        self._adapters: dict[str, asyncio.Task[None]] = {}
        """Name → the loading of an adapter at the server."""
        self._environment = environment
        self._secrets: set[str] = set()
        self._struck: dict[int, Struck] = {}
        self._remember(())
        variable = endpoint.key_variable if client is None else ""
        self._key = self._sendable(self._secret(variable), variable)
        self._headers = {
            header: self._sendable(self._expanded(value), header) for header, value in endpoint.extra_headers.items()
        }
        self._query = {name: self._expanded(value) for name, value in endpoint.extra_query.items()}
        self._connect_s = min(10.0, endpoint.timeout_s)
        try:
            self._address = split_address(endpoint.base_url)
        except ValueError:
            raise EndpointFailed(f"{self.where}: base_url is no address; mend it, then run the same command") from None
        self._own_client = client
        self._line = self._make_line()

    def _make_line(self) -> Line:
        """The line by which calls travel: judgeloop's own, but for a caller's client, where the endpoint names the openai client, and for
        proxies that it does not speak with."""
        proxy = proxy_of(self._address)
        is_lean = self._own_client is None and self.endpoint.client is None
        if is_lean and (not proxy or proxy.startswith(("http:", "https:"))):
            # A server whose key has a header of its own may read an Authorization as a wrong token: without a key none is sent.
            headers = ({"Authorization": f"Bearer {self._key}"} if self._key else {}) | self._headers
            assert self.endpoint.base_url is not None
            return LeanLine(self.endpoint.base_url, headers, self._query, connect_s=self._connect_s, proxy=proxy)
        from judgeloop.wire.transport import OpenAILine

        return OpenAILine(self._openai, self._headers, self._query, self._remember)

    @cached_property
    def _openai(self) -> openai.AsyncOpenAI:
        """The openai client, for what is asked beside calls."""
        from judgeloop.wire.transport import openai_client  # only where it is used: it is slow to import

        assert self.endpoint.base_url is not None
        return self._own_client or openai_client(
            self.endpoint.base_url, self._key, self._headers, self._query, timeout_s=self.endpoint.timeout_s,
            connect_s=self._connect_s, at_once=self.endpoint.concurrency, trust_env=not is_local(self._address.hostname),
        )  # fmt: skip

    def _secret(self, variable: str) -> str:
        """The value of an environment variable, remembered as a secret; empty where it is not set."""
        value = self._environment.get(variable, "").strip()
        self._remember([value])
        return value

    def _remember(self, secrets: Iterable[str]) -> None:
        """Strike these out of all that a server says."""
        self._secrets |= set(filter(None, secrets))
        self._struck = {
            shortest: Struck(self._secrets, shortest)
            for shortest in (SHORTEST_SECRET_IN_ERROR, SHORTEST_SECRET_IN_ANSWER)
        }

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
        return self._struck[shortest](text)

    def mended(self, of_key: str, settings: str, *, denied: bool) -> str:
        """What mends a refusal for good: "check the key in JUDGE_KEY<of_key>, <settings>". ``denied``: it is a 401 or 403, which
        an endpoint answers where it misses a key."""
        if self._own_client is not None:
            return f"check the key of its client{of_key}, {settings}"
        named = dict.fromkeys([self.endpoint.key_variable, *(name for _, name in self.endpoint.variables())])
        if sent := " and ".join(filter(None, named)):
            return f"check the key in {sent}{of_key}, {settings}"
        if not denied:
            return f"check {settings}"
        is_set = bool(self._environment.get(DEFAULT_KEY, "").strip())
        why = f"{DEFAULT_KEY} goes to OpenAI's own address alone" if is_set else "no variable that holds it is named"
        name = DEFAULT_KEY if is_set else "NAME"
        return f"no key was sent, for {why}: give --api-key-env {name} (in a file: api_key_env: {name}), or check {settings}"

    async def check_alive(self) -> None:
        """Check once, before the first call, that a server answers, whatever it answers. Raises EndpointFailed."""
        if self._alive is None:
            self._alive = asyncio.create_task(self._connect())
        if not self._alive.done():
            await asyncio.shield(self._alive)
        self._alive.result()

    async def _connect(self) -> None:
        for wait_s in (*_STARTING_S, None):
            try:
                async with asyncio.timeout(_LISTING_S):
                    await self._line.send("GET", "/models")
            except TimeoutError:
                return  # something is there, slow or odd: the calls have their own timeout and retries
            except TransientFault as fault:
                if fault.sent:
                    return
                if wait_s is None or fault.fault == "timeout":
                    raise EndpointFailed(
                        f"{self.where}: no server answers ({brief(self.scrub(str(fault)))}); start it{self._mend_address}, then run the same command to resume"
                    ) from None
                await asyncio.sleep(wait_s)
            else:
                return  # whatever it says: not every server lists its models

    async def take_turn(
        self, wait: Callable[[asyncio.Event, float | None], Awaitable[None]], *, refused: bool = False
    ) -> float:
        """The time at which a call leaves, once it may; ``end_turn`` follows when it has ended. Calls that were ``refused`` for a
        limit leave first, each kind in the order in which it came: behind thousands of new calls, each of them refused in its
        turn, a server that refuses every call once would look like one that takes none. ``wait`` waits for an event, or so many
        seconds; it raises where nothing is asked any more."""
        now = time.monotonic()
        if self._waiting or self.pace.delay_s(now) != 0:
            self._waiting += 1
            self._refused_waiting += refused
            try:
                async with self._refused if refused else self._new:
                    while (delay_s := self._delay_s(refused)) != 0:
                        self._freed.clear()
                        await wait(self._freed, delay_s)
                    now = time.monotonic()
            finally:
                self._waiting -= 1
                self._refused_waiting -= refused
                self._freed.set()  # the first of the other kind may be next
        self.pace.sent(now)
        return now

    def _delay_s(self, refused: bool) -> float | None:
        """Seconds until the first call of a kind may leave; None: once another has left or ended."""
        return None if self._refused_waiting and not refused else self.pace.delay_s(time.monotonic())

    def end_turn(self) -> None:
        """A call that took its turn has ended, however."""
        self.pace.ended()
        self._freed.set()

    def wake(self) -> None:
        """Have a call that waits for its turn look anew."""
        self._freed.set()

    async def load_adapter(self, name: str, folder: str) -> None:
        """Have the server load the adapter in ``folder`` under a name, by vLLM's route; asked once a name. Raises EndpointFailed where
        it cannot."""
        if name not in self._adapters:
            self._adapters[name] = asyncio.create_task(self._load_adapter(name, folder))
        if not self._adapters[name].done():
            await asyncio.shield(self._adapters[name])
        self._adapters[name].result()

    async def _load_adapter(self, name: str, folder: str) -> None:
        await self.check_alive()
        refusal = ""
        for attempt in range(self.endpoint.attempts):
            if attempt:
                await asyncio.sleep(2.0**attempt / 4)
            try:
                async with asyncio.timeout(self.endpoint.timeout_s):
                    answer = await self._line.send(
                        "POST", "/load_lora_adapter", {"lora_name": name, "lora_path": folder}
                    )
            except (TransientFault, TimeoutError) as fault:
                refusal = f"no answer: {brief(self.scrub(str(fault))) or 'timeout'}"
                continue
            said = brief(self.scrub(decoded(answer.content)))
            # Where the answer to an earlier attempt was lost, it is loaded; its name says the weights.
            if answer.status == 200 or (answer.status == 400 and "already" in said.lower()):
                return
            refusal = f"HTTP {answer.status}: {said}"
            if answer.status < 500:
                break
        raise EndpointFailed(
            f"{self.where}: the adapter {folder} was not loaded ({refusal}); the server must see that folder and take adapters while it runs (vLLM: --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True), then run the same command to resume"
        )

    async def post(self, call: Call) -> tuple[int, str]:
        """One attempt at a call: (HTTP status, text). Raises TransientFault where no whole response came, Refusal where the
        endpoint redirects."""
        address, sent_at = self._route_address(call.route) if call.route else "/chat/completions", time.monotonic()
        try:
            # The longest that one attempt may take, against a server that trickles too.
            async with asyncio.timeout(self.endpoint.timeout_s):
                answer = await self._line.send("POST", address, call.body, call.call_id)
        except TimeoutError:
            raise TransientFault("timeout") from None
        counted = partial(counted_tokens, call.body, 0 if call.route else self.endpoint.max_tokens)
        if (limit := calls_left(answer.headers, time.time(), counted)) is not None:
            self.pace.stated(sent_at, limit[0], sent_at + limit[1])
        if answer.status == 200:
            return answer.status, self.scrub(decoded(answer.content), SHORTEST_SECRET_IN_ANSWER)
        return self._error_answer(answer, call.route)

    def _route_address(self, route: Route) -> str:
        return self._address._replace(path=route_path(self._address.path, route)).geturl()

    def _error_answer(self, answer: Answer, route: Route) -> tuple[int, str]:
        """(HTTP status, text) of an answer that is no 200. Raises TransientFault or Refusal as ``parse`` does."""
        text = self.scrub(decoded(answer.content))
        if 300 <= answer.status < 400:
            target = self.scrub(answer.headers.get("location", "another address"))
            raise Refusal(f"HTTP {answer.status}: redirects to {target}")
        try:
            parse(answer.status, text, route)
        except TransientFault as fault:
            fault.wait_s = _retry_after_s(answer.headers)
            raise
        return answer.status, text

    async def close(self) -> None:
        """Close the connections."""
        for loading in self._adapters.values():
            loading.cancel()  # it costs nothing, and is asked for again
        await asyncio.gather(*filter(None, [self._alive, *self._adapters.values()]), return_exceptions=True)
        await self._line.close()
        if "_openai" in vars(self):
            await self._openai.close()


def bare_address(base_url: str) -> str:
    """A base URL without a user, a password or a query in it."""
    return re.sub(r"//[^/?#]*@|\?.*", lambda match: "//" * match[0].startswith("//"), base_url)


def decoded(content: bytes) -> str:
    """The text of an answer. JSON is UTF-8, whatever charset a header names."""
    return content.decode("utf-8-sig", "replace")


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by a retry-after header of seconds or of a date; None where it has neither."""
    value = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(value)) if math.isfinite(float(value)) else None
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

    ``fault``: why all attempts failed, empty where there is an answer. ``cost`` in US dollars, of all that the run folder holds; without
    the calls to ``unpriced`` models, whose price is not stated.
    """

    call: Call
    reply: Reply
    recorded: bool
    attempts: int
    calls: int
    cost: float
    fault: str = ""
    unpriced: tuple[str, ...] = ()


@dataclass(slots=True)
class Ledger:
    """Attempts and cost of the whole run in US dollars, recorded ones included, against the budget.

    ``calls`` are distinct calls that were answered; ``attempts`` all that were sent, but for those that an endpoint refused for its
    rate limit; ``waiting`` are attempts in flight, ``reserved`` what they may cost at most; ``unpriced``: models that were asked and
    state no price.
    """

    max_cost: float | None = None
    max_calls: int | None = None
    calls: int = 0
    attempts: int = 0
    cost: float = 0.0
    reserved: float = 0.0
    waiting: int = 0
    unpriced: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InvalidInput for a limit that is none."""
        limits = (
            ("max_cost", self.max_cost, Real, "number of USD"),
            ("max_calls", self.max_calls, Integral, "whole number"),
        )
        for name, limit, kind, what in limits:
            if limit is not None and not (isinstance(limit, kind) and limit >= 0):  # NaN is not
                raise InvalidInput(f"{name}: must be a {what}, 0 or more, not {limit!r}")

    def affords(self, estimate: float) -> bool:
        """Whether one more attempt cannot break the cost limit: those in flight count at their worst."""
        return self.max_cost is None or self.cost + self.reserved + estimate <= self.max_cost

    def reserve(self, estimate: float) -> None:
        """Reserve one more attempt. Raises BudgetReached; attempts in flight count too."""
        if self.max_calls is not None and self.attempts + self.waiting >= self.max_calls:
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
        """Give back what ``reserve`` took, once the attempt has ended."""
        self.reserved -= estimate
        self.waiting -= 1

    def count(self, attempts: int, cost: float) -> None:
        """Add attempts that have ended, and what they cost."""
        self.attempts += attempts
        self.cost += cost


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
        note: Callable[[str], None] = lambda _: None,
        environment: Mapping[str, str] = os.environ,
        clients: Mapping[str, openai.AsyncOpenAI] | None = None,
        check_address: Callable[[Endpoint], None] = lambda _: None,
        backoff_s: float = 0.5,
    ) -> None:
        """``endpoints`` have a base_url each (engines are started before, by serving.engines).

        With ``replay`` nothing is asked: every answer is in ``cassette`` or ``replay``, else ReplayMiss. ``observer`` gets
        every answered call, ``note`` a sentence on each pause that an endpoint asks for. ``environment`` holds the keys;
        ``clients``: endpoint → an openai client of the caller's own, by which it is asked. ``check_address`` gets every endpoint, with
        the address of a trained model too, before anything is sent there, and raises where nothing may be. ``backoff_s``: seconds before the second attempt, doubled later. What the cassette holds is counted in ``ledger`` at once.
        """
        self._endpoints = endpoints
        self._cassette = cassette
        self._replay = replay
        self.ledger = ledger or Ledger()
        self._observer, self._note_pause = observer, note
        self._environment, self._clients = environment, clients or {}
        self._check_address, self._backoff_s = check_address, backoff_s
        self._connections: dict[tuple[str, str], Connection] = {}
        """(endpoint, address) → connection; the address is empty but for models that a training put elsewhere."""
        self._in_flight: dict[tuple[str, str], asyncio.Task[Reply]] = {}
        self._fatal: JudgeloopError | None = None
        self._closing = asyncio.Event()
        self._attempt_ended = asyncio.Event()
        self._counted: set[int] = set()
        """Hashes of the calls that were counted: (call id, key) of each would take five times the memory."""
        self._shown_until: dict[Connection, float] = {}
        """Endpoint → the end of the last pause of it that was shown."""
        training = max((endpoint.price.training for endpoint in endpoints.values()), default=0.0)
        for model, spent in cassette.spent.items():
            cost = cost_of(self._price(model), spent.prompt_tokens, spent.completion_tokens)
            self.ledger.count(spent.attempts, cost + spent.training_tokens * training / 1e6)

    def _price(self, model: str) -> Price:
        """What a recorded call of a model cost: recordings name models and no endpoints. Of several prices the highest counts, and of
        a model that no endpoint names (a trained one) the highest of all."""
        endpoints = list(self._endpoints.values())
        named = [endpoint for endpoint in endpoints if endpoint.model == model] or (endpoints if model else [])
        return max((each.price for each in named), key=lambda price: price.input + price.output, default=Price())

    async def __aenter__(self) -> WireClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        await self.close(ended_well=kind is None)

    async def ask(
        self, call: Call, work: Work | None = None, worst_cost: float = 0.0, slots: asyncio.Semaphore | None = None
    ) -> Reply:
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
                self.record(call, exchange)
            if exchange is not None:
                return self._note(call, exchange, recorded=True)
            if self._fatal:
                raise self._fatal
            answering = self._send(call) if work is None else self._do(call, work, worst_cost, slots)
            task = asyncio.create_task(answering, name=call.call_id)
            self._in_flight[identity] = task
            task.add_done_callback(lambda ended: self._forget(identity, ended))
        # The call goes on if the asker is cancelled: what is paid for gets recorded.
        return await asyncio.shield(task)

    def _forget(self, identity: tuple[str, str], task: asyncio.Task[Reply]) -> None:
        self._in_flight.pop(identity, None)
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio warns where nobody waits for the call any more

    def record(self, call: Call, exchange: Exchange) -> None:
        """Record an exchange that was made elsewhere, and count what it took."""
        self._cassette.append(exchange)
        price = self._endpoints[call.endpoint].price if call.endpoint else Price()
        tokens = zip(used_tokens(exchange.response), exchange.earlier_tokens, strict=True)
        cost = cost_of(price, *map(sum, tokens)) + trained_tokens(exchange) * price.training / 1e6
        self.ledger.count(exchange.attempts, cost)

    def _note(self, call: Call, exchange: Exchange, *, recorded: bool) -> Reply:
        """The reply in an exchange, counted as a call and shown to the observer."""
        reply = read(exchange.status, exchange.response, exchange.fault, exchange.route)
        identity = hash((call.call_id, call.key))
        if identity not in self._counted:
            self._counted.add(identity)
            endpoint = self._endpoints[call.endpoint] if call.endpoint else None
            if endpoint and not endpoint.is_priced and endpoint.model not in self.ledger.unpriced:
                self.ledger.unpriced = tuple(sorted((*self.ledger.unpriced, endpoint.model)))
            self.ledger.calls += 1
        if self._observer:
            spent = self.ledger.calls, self.ledger.cost, exchange.fault, self.ledger.unpriced
            self._observer(AnsweredCall(call, reply, recorded, exchange.attempts, *spent))
        return reply

    async def _do(self, call: Call, work: Work, worst_cost: float, slots: asyncio.Semaphore | None) -> Reply:
        """The reply that ``work`` makes, within the budget, recorded."""
        try:
            async with slots or nullcontext():
                self._check_open()  # it may have ended while this waited
                await self._reserve(worst_cost)
                try:
                    response = await work(call)
                    status = 400 if "error" in response else 200
                    exchange = Exchange(
                        call.call_id, call.key, call.body, status, response, 1, route=call.route, weights=call.weights
                    )
                    self.record(call, exchange)
                    return self._note(call, exchange, recorded=False)
                finally:
                    self._release(worst_cost)
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
            self._check_address(endpoint)
            client = None if call.base_url else self._clients.get(call.endpoint)
            self._connections[place] = Connection(
                call.endpoint, endpoint, self._environment, self._backoff_s, client, is_recorded=bool(call.base_url)
            )
        return self._connections[place]

    async def _send(self, call: Call) -> Reply:
        """The reply of the endpoint, within its concurrency and the budget, recorded."""
        try:
            connection = self._connection(call)
            async with connection.slots:
                self._check_open()
                if call.adapter:
                    await connection.load_adapter(str(call.body["model"]), call.adapter)
                exchange = await self._attempt(connection, call)
                if exchange.fault or exchange.status != 200:
                    return self._failure_reply(connection, call, exchange)
                self._flush(connection)
                self._cassette.append(exchange)
                return self._note(call, exchange, recorded=False)
        except EndpointFailed as error:
            told = _told_of_training(call, error) if call.weights and error is not self._fatal else error
            self._fatal = self._fatal or told
            raise told from None
        except JudgeloopError as error:
            self._fatal = self._fatal or error
            raise

    async def _reserve(self, estimate: float) -> None:
        """Reserve an attempt in the budget. Where only those in flight could break it, wait for what these really cost."""
        self._check_open()
        while not self.ledger.affords(estimate) and self.ledger.waiting:
            self._attempt_ended.clear()
            await self._attempt_ended.wait()
            self._check_open()
        self.ledger.reserve(estimate)

    def _release(self, estimate: float) -> None:
        self.ledger.release(estimate)
        self._attempt_ended.set()

    def _check_open(self) -> None:
        """Raise where no call may be sent any more."""
        if self._fatal:
            raise self._fatal
        if self._closing.is_set():
            raise asyncio.CancelledError  # not sent, and nobody waits for it

    def _flush(self, connection: Connection) -> None:
        """Record the requests that were taken for wrong: a later answer shows that the endpoint works, so they are this run's
        data."""
        connection.failures = 0
        for call, exchange in connection.held:
            self._cassette.append(exchange)
            self._note(call, exchange, recorded=False)
        connection.held.clear()

    def _failure_reply(self, connection: Connection, call: Call, exchange: Exchange) -> Reply:
        """The reply of a failed call. Raises EndpointFailed after ``CONSECUTIVE_FAILURES`` of them in a row.

        A request that the endpoint took for wrong is recorded only once a later call succeeds: where the endpoint itself is
        wrong, resuming asks it again instead of finding its failure. One whose attempts failed is recorded at once, with what
        they cost; resuming asks it again.
        """
        reply = read(exchange.status, exchange.response, exchange.fault, exchange.route)
        if reply.failure in ("context_length", ""):  # the endpoint is well; this text is too long, or filtered
            self._flush(connection)
            self._cassette.append(exchange)
            return self._note(call, exchange, recorded=False)
        if self._closing.is_set():
            self._cassette.append(replace(exchange, fault=CUT_SHORT))
            raise asyncio.CancelledError
        connection.failures += 1
        if exchange.fault:
            self._cassette.append(exchange)
            self._note(call, exchange, recorded=False)
        else:
            connection.held.append((call, exchange))
        if exchange.fault in PASSING_FAULTS and TRIAL_ID.match(call.call_id):
            # Another way to read replies would be tried, and kept for good.
            raise EndpointFailed(
                f"{connection.where}: the trial call failed with {failure_words(reply)}, then run the same command to resume; until then it is not known how replies are read"
            )
        if connection.failures < CONSECUTIVE_FAILURES:
            return reply
        connection.held.clear()
        denied = exchange.status in (401, 403)
        mended = connection.mended(" and its credit", "base_url and model", denied=True) if denied else ""
        raise EndpointFailed(
            f"{connection.where}: {CONSECUTIVE_FAILURES} calls in a row failed, the last with {failure_words(reply, mended)}, then run the same command to resume"
        )

    async def _attempt(self, connection: Connection, call: Call) -> Exchange:
        """The exchange after as many attempts as it took. Raises EndpointFailed where the endpoint refuses for good."""
        attempts, earlier = 0, (0, 0)
        last: TransientFault | None = None

        async def once() -> Exchange:
            nonlocal attempts, earlier, last
            attempts += 1
            try:
                status, body = await self._unlimited(connection, call)
            except TransientFault as fault:
                last, earlier = fault, (earlier[0] + fault.tokens[0], earlier[1] + fault.tokens[1])
                raise
            return Exchange(
                call.call_id, call.key, call.body, status, body, attempts, "", call.route, call.weights, earlier
            )

        try:
            try:
                return await once()
            except TransientFault as first:
                return await self._retried(connection, first, once)
        except TransientFault as fault:
            return failed_exchange(call, fault, attempts - fault.limited, earlier)
        except Refusal as refusal:
            asked = f" (asked /{call.route})" if call.route else ""
            settings = "base_url, model and route" if call.route in REWARD_ROUTES else "base_url and model"
            mended = remedy(str(refusal))
            if not mended and refusal.absent:  # a 404 or an unknown model has nothing to do with the key
                mended = "have the server give it this name" if call.weights else f"check {settings}"
            elif not mended:
                denied = str(refusal).startswith(("HTTP 401", "HTTP 403"))
                mended = connection.mended(" and its credit", settings, denied=denied)
            raise EndpointFailed(
                f"{connection.where}: {brief(str(refusal))}{asked}; {mended}, then run the same command to resume"
            ) from None
        except (BudgetReached, asyncio.CancelledError):
            if last is not None:  # what its attempts took counts when the run goes on
                self._cassette.append(replace(failed_exchange(call, last, attempts - 1, earlier), fault=CUT_SHORT))
            raise

    async def _retried(
        self, connection: Connection, first: TransientFault, once: Callable[[], Awaitable[Exchange]]
    ) -> Exchange:
        """What comes of a call whose first attempt failed. Raises what its last attempt raises."""
        import tenacity  # only where something failed: most calls end with their first attempt

        failed: list[TransientFault] = [first]

        async def attempt() -> Exchange:
            if failed:
                raise failed.pop()
            return await once()

        retrying = tenacity.AsyncRetrying(
            stop=lambda state: state.attempt_number >= connection.endpoint.attempts or self._closing.is_set(),
            wait=self._wait_s,
            sleep=self._pause,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, TransientFault) and not error.limited),
            reraise=True,
        )
        return await retrying(attempt)

    async def _unlimited(self, connection: Connection, call: Call) -> tuple[int, Any]:
        """(HTTP status, body) of one attempt, after all that the endpoint refused for its rate limit.

        Raises TransientFault, with the tokens that it took and ``limited`` where patience with this call alone is at its end;
        EndpointFailed where the endpoint refuses every call for longer than its patience.
        """
        estimate, begun_at = worst_tokens(connection.endpoint, call), time.monotonic()
        worst, refused = cost_of(connection.endpoint.price, *estimate), False
        while True:
            await connection.check_alive()
            sent_at = await connection.take_turn(partial(self._wait_for, connection), refused=refused)
            try:
                await self._reserve(worst)
                try:
                    status, text = await connection.post(call)
                    body = parse(status, text, call.route)
                except TransientFault as fault:
                    if fault.limited:
                        self._hold(connection, fault, sent_at)
                        refused = True
                        passed = time.monotonic() - begun_at > connection.endpoint.patience_s
                        if passed and connection.pace.admitted_at > begun_at:
                            raise  # others are answered: it is this call that is refused
                        continue
                    connection.pace.admitted(sent_at)
                    fault.tokens = used_tokens(fault.response)
                    # An answer that did not come whole may have been made, and charged for.
                    if fault.tokens == (0, 0) and fault.sent and fault.status in (0, 200):
                        fault.tokens = estimate
                    self.ledger.count(1, cost_of(connection.endpoint.price, *fault.tokens))
                    raise
                except Refusal:
                    self.ledger.count(1, 0.0)
                    raise
                finally:
                    self._release(worst)
                connection.pace.admitted(sent_at)
                self.ledger.count(1, cost_of(connection.endpoint.price, *used_tokens(body)))
                return status, body
            finally:
                connection.end_turn()

    def _hold(self, connection: Connection, fault: TransientFault, sent_at: float) -> None:
        """Leave an endpoint alone that refuses for its rate limit, and say so. Raises EndpointFailed after its patience."""
        now = time.monotonic()
        pause_s = connection.pace.refused(now, sent_at, fault.wait_s)
        asked = f"{connection.where}: rate limit (HTTP {fault.status}: {brief(str(fault))})"
        if connection.pace.is_out_of_patience:
            raise EndpointFailed(
                f"{asked}, and the next call may be sent in {duration(pause_s)}: its patience ({duration(connection.endpoint.patience_s)}) is used up; run the same command then to resume"
            ) from None
        shown_until = self._shown_until.get(connection, -math.inf)
        if shown_until == -math.inf or (pause_s >= _SHOWN_PAUSE_S and now > shown_until):
            self._note_pause(f"{asked}; its calls wait {duration(pause_s)} and go on at the rate that it takes")
            self._shown_until[connection] = now + pause_s

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        import tenacity

        return tenacity.wait_exponential_jitter(multiplier=self._backoff_s, max=LONGEST_WAIT_S, jitter=self._backoff_s)(
            state
        )

    async def _pause(self, seconds: float) -> None:
        """Wait between two attempts, or until the client is closed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def _wait_for(self, connection: Connection, event: asyncio.Event, seconds: float | None) -> None:
        """Wait for an event, or so many seconds. Raises where nothing may be sent any more."""
        self._check_open()
        now = time.monotonic()
        pause_s = connection.pace.used_up_s(now)
        if pause_s >= _SHOWN_PAUSE_S and now > self._shown_until.get(connection, -math.inf):
            self._note_pause(
                f"{connection.where}: its answers state that no call is left for {duration(pause_s)}; its calls wait"
            )
            self._shown_until[connection] = now + pause_s
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)
        self._check_open()

    async def resume(self) -> None:
        """Go on after an error that ended all calls, once those in flight have ended, and ask again what failed, as a client that is
        opened anew on the folder does. A budget that is reached stays so."""
        self._cassette.ask_again()
        while self._fatal and not isinstance(self._fatal, BudgetReached):
            if self._in_flight:
                await asyncio.wait(list(self._in_flight.values()))
                continue
            # A connection remembers that nobody answered, and its patience; nothing is awaited before the new ones may be made.
            ended, self._connections, self._fatal = self._connections, {}, None
            for connection in ended.values():
                await connection.close()

    async def close(self, *, ended_well: bool = True) -> None:
        """Let calls in flight end (they are paid for), record them, and close the connections.

        No call is sent any more. Failures that no answer followed are recorded only if the run ``ended_well``.
        """
        self._closing.set()
        self._attempt_ended.set()
        for connection in self._connections.values():
            connection.wake()
        tasks = list(self._in_flight.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_UNSAID_S)
            if late:
                self._note_pause(
                    f"ending: {len(late)} in flight (calls or trainings), waited for up to {_CLOSING_S:g} s so that they are recorded; Ctrl-C ends at once, without them"
                )
                _, late = await asyncio.wait(late, timeout=_CLOSING_S - _UNSAID_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        try:
            for connection in self._connections.values():
                if ended_well and self._fatal is None:
                    self._flush(connection)
        finally:
            for connection in self._connections.values():
                await connection.close()


def _told_of_training(call: Call, error: EndpointFailed) -> EndpointFailed:
    """The error with whose model fails: it is recorded, and not trained again."""
    drafts = "/".join(call.call_id.split("/")[:-2])
    # An adapter that is loaded here has no name that anybody could have mistaken.
    mended = (
        ""
        if call.adapter
        else "; if model.json names the wrong one, mend that and run judgeloop step in place of judgeloop run once"
    )
    return EndpointFailed(f"{drafts}: model {call.body.get('model')}, as its training left it: {error}{mended}")


def counted_tokens(body: Mapping[str, Any], longest: int) -> int:
    """The tokens that a call counts for against a limit, as OpenAI reckons it: a token for 4 bytes of the request, and its longest
    reply (``longest`` where the body names none)."""
    return len(canonical_bytes(body)) // 4 + _longest_reply(body, longest) + 1


def _longest_reply(body: Mapping[str, Any], longest: int) -> int:
    limits = [body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    return max((limit for limit in limits if isinstance(limit, int)), default=longest)


def worst_tokens(endpoint: Endpoint, call: Call) -> tuple[int, int]:
    """The most (prompt, completion) tokens that a call can take: a token a byte, and a reply as long as it may be (a score has
    none). None are counted where no price is stated."""
    if not (endpoint.price.input or endpoint.price.output):
        return 0, 0
    longest = 0 if call.route else _longest_reply(call.body, endpoint.max_tokens)
    return len(canonical_bytes(call.body)), longest


def cost_of(price: Price, prompt_tokens: int, completion_tokens: int) -> float:
    """US dollars for so many tokens."""
    return (prompt_tokens * price.input + completion_tokens * price.output) / 1e6


def worst_cost(endpoint: Endpoint, call: Call) -> float:
    """The most that a call can cost, in US dollars."""
    return cost_of(endpoint.price, *worst_tokens(endpoint, call))


def duration(seconds: float) -> str:
    """A time for people: 20 s, 5 min, 2.5 h."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def failed_exchange(call: Call, fault: TransientFault, attempts: int, tokens: tuple[int, int]) -> Exchange:
    """The exchange of a call whose attempts all failed, the last with ``fault``; ``tokens``: prompt and completion tokens that all of
    them took."""
    stated = used_tokens(fault.response)
    return Exchange(
        call.call_id, call.key, call.body, fault.status, fault.response, attempts, fault.fault, call.route, call.weights,
        (tokens[0] - stated[0], tokens[1] - stated[1]),
    )  # fmt: skip


def failure_words(reply: Reply, mended: str = "") -> str:
    """Why a call failed, the server's own sentence, and what mends it, ``mended`` where the sentence does not tell: "bad_request: …; set …"."""
    said = f": {brief(reply.detail)}" if reply.detail else ""
    return f"{reply.failure}{said}; {remedy(reply.detail) or mended or 'mend it'}"
