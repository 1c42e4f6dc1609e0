"""Calls in, replies out: retried where that can help, recorded once, found again, and stopped at the limits."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from judgeloop.errors import (
    BudgetReached,
    EndpointFailed,
    FolderMismatch,
    InvalidInput,
    JudgeloopError,
    ReplayMiss,
    StorageFailed,
)
from judgeloop.experiment.options import remedy
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Call
from judgeloop.serving.faults import Rule
from judgeloop.serving.protocol import ServerAnswer, error_answer
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import CONSECUTIVE_FAILURES, AnsweredCall, Connection, Ledger, WireClient, counted_tokens
from judgeloop.wire.pace import calls_left
from wire_case import Speaker, ask, completion, named, numbered, recorded, serving, use

FAULTS = [
    ({"status": 500}, "http_500"), ({"status": 503}, "http_503"),
    ({"kind": "reset"}, "connection"), ({"kind": "truncated"}, "connection"), ({"kind": "timeout"}, "timeout"),
    ({"kind": "not_json"}, "not_json"), ({"kind": "empty_choices"}, "empty_choices"), ({"kind": "null_content"}, "null_content"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_transient_faults_are_retried_and_then_are_data(tmp_path: Path, fault: dict[str, object], reason: str) -> None:
    rules = (Rule.model_validate({"match": "lucky", "times": 2, **fault}), Rule.model_validate({"match": "hit", "times": "always", **fault}))  # fmt: skip
    bad, good = named("s0/g0/judge/hit/m/ab"), named("s0/g0/judge/lucky/m/ab")
    with serving(None, *rules) as server:
        endpoint = server.endpoint(timeout_s=0.15 if reason == "timeout" else 30)

        async def steps(client: WireClient) -> tuple[str, str | None]:
            failed = await client.ask(bad)
            assert failed.text is None
            return failed.failure, (await client.ask(good)).text

        assert use(tmp_path, endpoint, steps) == (reason, "[[A]]")
        assert server.call_ids == [good.call_id]
        recordings = recorded(tmp_path)
        assert [(e.call, e.attempts, e.fault) for e in recordings.values()] == [
            (bad.call_id, 3, reason),
            (good.call_id, 3, ""),
        ]
        # A resumed run finds the failure; one that asks failed calls again does so, and finds the answer.
        assert [reply.failure for reply in ask(tmp_path, endpoint, [bad, good])] == [reason, ""]
        assert len(server.seen) == 1
    with serving() as server:
        mended = server.endpoint()
        assert [reply.failure for reply in ask(tmp_path, mended, [bad, good], retry_failed=True)] == ["", ""]
        assert server.call_ids == [bad.call_id]
        assert [reply.failure for reply in ask(tmp_path, mended, [bad, good], retry_failed=True)] == ["", ""]
        assert [reply.failure for reply in ask(tmp_path, mended, [bad, good])] == ["", ""]
        assert len(server.seen) == 1


def test_a_readable_reply_without_a_verdict_is_never_retried(tmp_path: Path) -> None:
    replies = {"a": completion("no idea"), "b": completion(""), "c": completion(None, refusal="I cannot"), "d": completion(None, "content_filter")}  # fmt: skip
    with serving(Speaker(replies.__getitem__)) as server:
        replies = ask(tmp_path, server.endpoint(), [named(name) for name in "abcd"])
    assert server.call_ids == ["a", "b", "c", "d"]
    assert [(reply.text, reply.refusal, reply.failure) for reply in replies] == [
        ("no idea", "", ""),
        ("", "", ""),
        ("", "I cannot", ""),
        ("", "content_filter", ""),
    ]


LONG = [
    error_answer(400, "maximum context length is 8192 tokens", code="context_length_exceeded"),
    ServerAnswer(400, {"error": {"code": 400, "message": "too big", "type": "exceed_context_size_error"}}),
    ServerAnswer(500, {"error": {"code": 500, "message": "the request exceeds the available context size"}}),
]


@pytest.mark.parametrize("answer", LONG)
def test_a_text_that_is_too_long_is_that_items_failure(tmp_path: Path, answer: ServerAnswer) -> None:
    calls = numbered(CONSECUTIVE_FAILURES + 2)
    with serving(Speaker(lambda _: answer)) as server:
        replies = ask(tmp_path, server.endpoint(), calls)
    assert {reply.failure for reply in replies} == {"context_length"}
    assert len(server.seen) == len(calls) == len(recorded(tmp_path))


def test_prompts_that_a_filter_stops_are_refusals_and_end_no_run(tmp_path: Path) -> None:
    with serving(Speaker(lambda _: error_answer(400, "filtered by the policy", code="content_filter"))) as server:
        replies = ask(tmp_path, server.endpoint(), numbered(CONSECUTIVE_FAILURES + 5))
    assert {(reply.failure, reply.refusal, reply.detail) for reply in replies} == {
        ("", "content_filter", "filtered by the policy")
    }
    assert len(recorded(tmp_path)) == len(replies)


def test_another_400_is_not_retried(tmp_path: Path) -> None:
    with serving(Speaker(lambda call: completion() if call == "good" else error_answer(400, "bad field"))) as server:
        bad, good = ask(tmp_path, server.endpoint(), [named("bad"), named("good")])
    assert (bad.failure, good.failure, server.call_ids) == ("bad_request", "", ["bad", "good"])
    assert recorded(tmp_path)["bad"].status == 400


@pytest.mark.parametrize("at_once", [False, True])
def test_an_endpoint_that_keeps_failing_ends_the_run_and_is_asked_again(tmp_path: Path, at_once: bool) -> None:
    calls = numbered(CONSECUTIVE_FAILURES + 5)
    with (
        serving(None, Rule(status=500, times="always", message="down")) as server,
        pytest.raises(
            EndpointFailed, match="20 calls in a row failed, the last with http_500: down; mend it"
        ) as caught,
    ):
        ask(tmp_path, server.endpoint(attempts=2), calls, at_once=at_once)
    assert caught.value.exit_code == 4
    assert len(recorded(tmp_path)) >= CONSECUTIVE_FAILURES
    assert {exchange.fault for exchange in recorded(tmp_path).values()} == {"http_500"}
    with serving() as server:
        replies = ask(tmp_path, server.endpoint(), calls, retry_failed=True)
        assert all(reply.text == "[[A]]" for reply in replies)
        assert len(server.seen) == len(calls) == len(recorded(tmp_path))


def test_failures_in_a_row_are_counted_from_the_last_answer(tmp_path: Path) -> None:
    failing = CONSECUTIVE_FAILURES - 1
    answers = [*[error_answer(400, "no")] * failing, LONG[0], *[error_answer(400, "no")] * failing]
    script = iter([*answers, completion(), *answers])
    calls = numbered(2 * len(answers) + 1)
    with serving(Speaker(lambda _: next(script))) as server:
        failures = [reply.failure for reply in ask(tmp_path, server.endpoint(), calls)]
    assert failures.count("bad_request") == 4 * failing
    # The run ended well: even the failures that no answer followed are its data.
    assert len(recorded(tmp_path)) == len(calls)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "max_tokens_field: max_completion_tokens"),
        ("Unsupported value: 'temperature' does not support 0 with this model.", "send_temperature: false"),
    ],
)  # fmt: skip
def test_a_refused_setting_is_named(tmp_path: Path, message: str, hint: str) -> None:
    with serving(Speaker(lambda _: error_answer(400, message))) as server, pytest.raises(EndpointFailed, match=hint):
        ask(tmp_path, server.endpoint(), numbered(CONSECUTIVE_FAILURES))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("parameter.enable_thinking must be set to false for non-streaming calls", "--extra-body"),
        ("Missing required query parameter: api-version", "--query api-version="), ("This response_format type is unavailable now", "--verdict text"),
        ("'logprobs' is not supported with this model", "--verdict json"), ("The server is busy", ""),
        ("No endpoints found that can handle the requested parameters.", "extra_body without require_parameters"),
    ],
)  # fmt: skip
def test_what_mends_a_refusal(message: str, words: str) -> None:
    assert words in remedy(message)
    assert bool(remedy(message)) == bool(words)


def test_requests_taken_for_wrong_before_an_interruption_are_not_recorded(tmp_path: Path) -> None:
    async def steps(client: WireClient) -> None:
        assert (await client.ask(named("a"))).failure == "bad_request"
        raise KeyError("the run breaks off")

    with serving(None, Rule(status=400, times="always")) as server, pytest.raises(KeyError):
        use(tmp_path, server.endpoint(attempts=1), steps)
    assert recorded(tmp_path) == {}


@pytest.mark.parametrize("most", [1, 3, 8])
def test_concurrency_is_bounded(tmp_path: Path, most: int) -> None:
    with serving(Speaker(hold_s=0.05)) as server:
        ask(tmp_path, server.endpoint(concurrency=most), numbered(3 * most + 1), at_once=True)
        assert server.most == most


def test_the_same_call_is_asked_once(tmp_path: Path) -> None:
    with serving(Speaker(hold_s=0.02)) as server:
        replies = ask(
            tmp_path, server.endpoint(), [named("a")] * 10 + [named("a", "another text"), named("b")], at_once=True
        )
    assert len({id(reply) for reply in replies[:10]}) == 1
    assert sorted(server.call_ids) == ["a", "a", "b"]
    assert sum(1 for _ in Cassette(tmp_path, writable=False).exchanges()) == 3


def test_a_resumed_run_asks_nothing_and_counts_everything(tmp_path: Path) -> None:
    calls, events = numbered(5), list[AnsweredCall]()
    price = {"input": 1e6, "output": 2e6}
    with serving() as server:
        endpoint = server.endpoint(price=price)
        first, second = Ledger(), Ledger()
        replies = ask(tmp_path, endpoint, calls, ledger=first, observer=events.append)
        part = tmp_path / "calls/s0/g00-judge.jsonl"
        before = part.read_bytes()
        assert ask(tmp_path, endpoint, calls * 2, ledger=second, observer=events.append) == replies * 2
        assert len(server.seen) == 5
    assert part.read_bytes() == before
    assert (first.calls, first.cost) == (second.calls, second.cost) == (5, 5 * (3 * 1 + 2 * 2))
    assert (first.attempts, first.reserved, first.waiting) == (second.attempts, 0, 0) == (5, 0, 0)
    assert [event.recorded for event in events] == [False] * 5 + [True] * 10
    assert [event.calls for event in events] == [1, 2, 3, 4, 5] * 2 + [5] * 5


def test_the_cost_says_which_models_it_leaves_out(tmp_path: Path) -> None:
    ledger, events = Ledger(), list[AnsweredCall]()
    with serving() as server:
        endpoints = {
            "m": server.endpoint(price={"input": 1e6}), "n": server.endpoint(model="free", price={"input": 0}),
            "o": server.endpoint(model="x"), "never": server.endpoint(model="z"),
        }  # fmt: skip

        async def ask_all() -> None:
            cassette = Cassette(tmp_path, writable=True)
            async with WireClient(endpoints, cassette, ledger=ledger, observer=events.append, environment={}) as client:
                for name in ("m", "n", "o", "o"):
                    await client.ask(Call(f"s0/{name}", name, named("a").body))

        asyncio.run(ask_all())
    assert (ledger.cost, ledger.unpriced) == (3.0, ("x",))
    assert [event.unpriced for event in events] == [(), (), ("x",), ("x",)]


def test_a_torn_line_is_asked_again_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    calls = numbered(4)
    with serving() as server:
        ask(tmp_path, server.endpoint(), calls)
        part = tmp_path / "calls/s0/g00-judge.jsonl"
        whole = part.read_bytes()
        part.write_bytes(whole[:-7])
        ask(tmp_path, server.endpoint(), calls)
        assert server.call_ids[4:] == [calls[3].call_id]
        assert part.read_bytes() == whole
        part.write_bytes(whole.replace(b'{"key"', b'{"kex"', 2))
        with pytest.raises(FolderMismatch, match=r"g00-judge\.jsonl:1: "):
            ask(tmp_path, server.endpoint(), calls)


@pytest.mark.parametrize("packed", [False, True])
def test_replay(tmp_path: Path, packed: bool) -> None:
    calls = numbered(3)
    with serving() as server:
        replies = ask(tmp_path / "recorded", server.endpoint(), calls)
    if packed:
        Cassette(tmp_path / "recorded", writable=True).pack()
    recording = Cassette(tmp_path / "recorded", writable=False)
    gone = Endpoint(base_url=server.base_url, model="m")  # no server is there any more, and none is needed
    assert ask(tmp_path / "new", gone, calls, replay=recording, ledger=Ledger(max_calls=0)) == replies
    assert recorded(tmp_path / "new") == recorded(tmp_path / "recorded")
    with pytest.raises(ReplayMiss, match=rf"replay: {calls[1].call_id} is not recorded; nearest recording {calls[1].call_id}: messages\[0\]\.content at character 1: recorded …'hi', asked …'hello'") as caught:  # fmt: skip
        ask(tmp_path / "new", gone, [named(calls[1].call_id, "hello")], replay=recording)
    assert caught.value.exit_code == 4


def test_a_miss_in_replay_is_named_once(tmp_path: Path) -> None:
    async def steps(client: WireClient) -> list[object]:
        return await asyncio.gather(*(client.ask(call) for call in numbered(50)), return_exceptions=True)

    errors = use(tmp_path, Speaker().endpoint(base_url="http://127.0.0.1:9"), steps, replay=Cassette(tmp_path / "none", writable=False))  # fmt: skip
    assert len({id(error) for error in errors}) == 1
    assert isinstance(errors[0], ReplayMiss)


@pytest.mark.parametrize("at_once", [False, True])
def test_the_budget_of_calls_stops_exactly(tmp_path: Path, at_once: bool) -> None:
    calls = numbered(12)
    with serving(Speaker(hold_s=0.005)) as server:
        endpoint = server.endpoint(concurrency=4)
        for limit, expected in ((5, 5), (5, 5), (8, 8)):
            with pytest.raises(BudgetReached, match=f"budget of {limit} calls is reached; raise --max-calls") as caught:
                ask(tmp_path, endpoint, calls, at_once=at_once, ledger=Ledger(max_calls=limit))
            assert caught.value.exit_code == 3
            assert len(server.seen) == len(recorded(tmp_path)) == expected
        ask(tmp_path, endpoint, calls, at_once=at_once, ledger=Ledger(max_calls=12))
        assert len(server.seen) == 12


@pytest.mark.parametrize("limits", [{"max_calls": "5"}, {"max_calls": -1}, {"max_calls": 1.5}, {"max_cost": float("nan")}, {"max_cost": -1}])  # fmt: skip
def test_a_limit_that_is_none_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"max_c.*: must be a .*number.*, 0 or more, not"):
        Ledger(**limits)


def test_after_failures_in_a_row_the_same_client_goes_on_and_asks_them_again(tmp_path: Path) -> None:
    calls, away = numbered(CONSECUTIVE_FAILURES), [True]
    speaker = Speaker(lambda _: error_answer(503, "away") if away else completion())

    async def steps(client: WireClient) -> list[str]:
        for at_once in (calls, calls[:1]):  # again at the first call, which another than this failure would not end
            with pytest.raises(EndpointFailed, match=f"{CONSECUTIVE_FAILURES} calls in a row failed"):
                await asyncio.gather(*map(client.ask, [*at_once, named("new")]))
        away.clear()
        await client.resume()
        return [(await client.ask(call)).failure for call in (*calls, named("new"))]

    with serving(speaker) as server:
        failures = use(tmp_path, server.endpoint(attempts=1, concurrency=1), steps, retry_failed=True)
    assert failures == [""] * (len(calls) + 1)


def test_a_server_that_was_not_there_is_looked_for_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def steps(client: WireClient) -> str:
        with pytest.raises(EndpointFailed, match="no server answers"):
            await client.ask(named("a"))
        with LocalServer(create_app(Speaker()), port=port):
            await client.resume()
            return (await client.ask(named("a"))).failure

    assert use(tmp_path, Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="m"), steps) == ""


def test_a_budget_that_is_reached_stays_so(tmp_path: Path) -> None:
    async def steps(client: WireClient) -> None:
        for name in ("b", "c"):
            await client.ask(named("a"))
            with pytest.raises(BudgetReached):
                await client.ask(named(name, max_tokens=1 if name == "c" else 9))
            await client.resume()

    with serving() as server:  # of the cheaper second call the budget would still hold the price
        endpoint = server.endpoint(price={"output": 1e6})
        use(tmp_path, endpoint, steps, ledger=Ledger(max_cost=5))
        assert server.call_ids == ["a"]


@pytest.mark.parametrize("at_once", [False, True])
def test_the_budget_of_cost_is_used_and_never_broken(tmp_path: Path, at_once: bool) -> None:
    calls = [named(call.call_id, max_tokens=4) for call in numbered(12)]
    with serving(Speaker(hold_s=0.005)) as server:
        endpoint = server.endpoint(concurrency=4, price={"output": 1e6})  # a dollar a token: 2 a call, 4 at worst
        for limit, expected in ((10, 4), (17, 7)):
            ledger = Ledger(max_cost=limit)
            with pytest.raises(BudgetReached, match=f"budget of {limit} USD is reached .*raise --max-cost"):
                ask(tmp_path, endpoint, calls, at_once=at_once, ledger=ledger)
            assert len(server.seen) == len(recorded(tmp_path)) == expected
            assert ledger.cost == 2 * expected <= limit


def test_failures_not_yet_recorded_count_against_the_budget(tmp_path: Path) -> None:
    with serving(Speaker(lambda _: error_answer(400, "no"))) as server:
        with pytest.raises(BudgetReached):
            ask(tmp_path, server.endpoint(), numbered(9), ledger=Ledger(max_calls=3))
        assert len(server.seen) == 3


def half_null() -> Speaker:
    """Answers every second request of each call with null, charged for like an answer."""
    asked: dict[str, int] = {}

    def says(call: str) -> ServerAnswer:
        asked[call] = asked.get(call, 0) + 1
        return completion(None if asked[call] % 2 else "[[A]]")

    return Speaker(says, hold_s=0.002)


@pytest.mark.parametrize("at_once", [False, True])
def test_budgets_count_every_attempt_and_what_earlier_sessions_took(tmp_path: Path, at_once: bool) -> None:
    price = {"input": 1e6, "output": 1e6}  # an attempt costs 3 + 2
    calls = numbered(12)
    with serving(half_null()) as server:
        endpoint = server.endpoint(concurrency=4, price=price, attempts=4)
        for limit in (7, 7, 8, 15):
            ledger = Ledger(max_calls=limit)
            with pytest.raises(BudgetReached):
                ask(tmp_path, endpoint, calls, at_once=at_once, ledger=ledger, retry_failed=True)
            assert len(server.seen) == ledger.attempts == limit
            assert ledger.cost == 5 * limit
        spent = Ledger(max_cost=75.0)
        with pytest.raises(BudgetReached, match="budget of 75 USD is reached"):
            ask(tmp_path, endpoint, calls, at_once=at_once, ledger=spent, retry_failed=True)
        assert (len(server.seen), spent.cost) == (15, 75)
        whole = Ledger()
        assert all(reply.text for reply in ask(tmp_path, endpoint, calls, ledger=whole, retry_failed=True))
        assert (whole.calls, whole.attempts, whole.cost) == (12, len(server.seen), 5 * len(server.seen))


def test_an_attempt_that_may_have_been_charged_for_counts_at_its_worst(tmp_path: Path) -> None:
    ledger, call = Ledger(), named("a")
    with serving(None, Rule(kind="truncated", times=1)) as server:
        endpoint = server.endpoint(price={"output": 1e6})
        ask(tmp_path, endpoint, [call], ledger=ledger)
    assert (ledger.attempts, ledger.cost) == (2, call.body["max_tokens"] + 2)
    again = Ledger()
    ask(tmp_path, endpoint, [call], ledger=again)
    assert (again.attempts, again.cost) == (2, ledger.cost)


def cancelled(count: int) -> Callable[[WireClient], Awaitable[None]]:
    async def steps(client: WireClient) -> None:
        asking = [asyncio.create_task(client.ask(call)) for call in numbered(count)]
        await asyncio.sleep(0.1)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    return steps


def test_an_answer_that_nobody_waits_for_is_recorded_and_no_more_is_asked(tmp_path: Path) -> None:
    with serving(Speaker(hold_s=0.3)) as server:
        use(tmp_path, server.endpoint(concurrency=2), cancelled(6))
        assert len(server.seen) == 2
    assert sorted(recorded(tmp_path)) == sorted(server.call_ids)


def test_work_that_waits_for_a_slot_does_not_begin_once_the_run_ends(tmp_path: Path) -> None:
    begun: list[str] = []

    async def steps() -> None:
        slots = asyncio.Semaphore(1)

        async def work(call: Call) -> dict[str, str]:
            begun.append(call.call_id)
            await asyncio.sleep(0.1)
            return {"model": "m"}

        client = WireClient({}, Cassette(tmp_path, writable=True), environment={})
        calls = [Call(name, "", {"pairs": 1}, "train") for name in ("first", "second")]
        asking = [asyncio.create_task(client.ask(call, work, 0.0, slots)) for call in calls]
        await asyncio.sleep(0.05)
        await client.close(ended_well=False)
        await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(steps())
    assert (begun, list(recorded(tmp_path))) == (["first"], ["first"])


def test_a_refusal_for_a_rate_limit_is_no_attempt_and_is_shown(tmp_path: Path) -> None:
    notes: list[str] = []
    rules = (Rule(status=429, retry_after_s=0.01, times=5), Rule(status=503, retry_after_s=0.01, times=6))
    with serving(None, *rules) as server:
        ledger = Ledger(max_calls=1)
        (reply,) = ask(tmp_path, server.endpoint(attempts=1), [named("a")], ledger=ledger, note=notes.append)
    assert (reply.text, ledger.attempts, recorded(tmp_path)["a"].attempts) == ("[[A]]", 1, 1)
    assert len(notes) == 1
    assert "rate limit (HTTP 429: planted fault); its calls wait 0.01 s" in notes[0]


def test_a_refused_call_is_asked_again_before_any_new_one() -> None:
    """Behind new calls, each of them refused in its turn, it would look as if the endpoint took none: pauses that double."""
    left: list[str] = []

    async def leave(connection: Connection, name: str, *, refused: bool) -> None:
        async def wait(event: asyncio.Event, seconds: float | None) -> None:
            assert seconds is None
            await event.wait()

        await connection.take_turn(wait, refused=refused)
        left.append(name)
        await asyncio.sleep(0)
        connection.end_turn()

    async def play() -> None:
        connection = Connection("m", Speaker().endpoint(base_url="http://127.0.0.1:9/v1", concurrency=1), {})
        names = ["under way", "new 1", "new 2", "refused 1", "refused 2", "new 3"]
        await asyncio.gather(*(leave(connection, name, refused=name.startswith("refused")) for name in names))

    asyncio.run(play())
    assert left == ["under way", "refused 1", "refused 2", "new 1", "new 2", "new 3"]


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [
        ("6m0s", 360), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("30", 30), ("1.5", 1.5), ("2026-01-01T00:00:10Z", 10),
        ("1767225610", 10), ("1767225610000", 10), ("2025-12-31T00:00:00Z", 0), ("soon", None), ("", None), ("nan", None), ("-1", 0),
        ("2026-01-01T00:00:10", None),
    ],
)  # fmt: skip
def test_headers_that_state_what_is_left(stated: str, seconds: float | None) -> None:
    new_year = 1767225600.0
    expected = None if seconds is None else (7, pytest.approx(seconds))
    for left, reset in (
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("ratelimit-remaining", "ratelimit-reset"),
    ):
        assert calls_left({left: "7", reset: stated}, new_year, lambda: 1) == expected
    assert calls_left({"ratelimit-remaining": "many", "ratelimit-reset": stated}, new_year, lambda: 1) is None
    assert calls_left({"ratelimit-reset": stated}, new_year, lambda: 1) is None


def test_tokens_that_are_left_are_calls_that_are_left() -> None:
    requests = {"x-ratelimit-remaining-requests": "50", "x-ratelimit-reset-requests": "1s"}
    tokens = {"x-ratelimit-remaining-tokens": "999", "x-ratelimit-reset-tokens": "30s"}
    assert calls_left(tokens, 0.0, lambda: 100) == (9, 30.0)
    assert calls_left({**requests, **tokens}, 0.0, lambda: 100) == (9, 30.0)
    assert calls_left({**requests, **tokens}, 0.0, lambda: 10) == (50, 1.0)
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 4000}], "max_tokens": 200}
    assert 1200 < counted_tokens(body, 5) < 1250
    assert 1000 < counted_tokens({**body, "max_tokens": None}, 5) < 1050


def test_no_call_is_sent_beyond_what_is_left_and_the_wait_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judgeloop.wire.client._SHOWN_PAUSE_S", 0.1)
    times: list[float] = []
    notes: list[str] = []

    def says(_: str) -> ServerAnswer:
        times.append(time.monotonic())
        left = {"x-ratelimit-remaining-requests": str(max(0, 2 - len(times))), "x-ratelimit-reset-requests": "300ms"}
        return replace(completion(), headers=left)

    with serving(Speaker(says)) as server:
        ask(tmp_path, server.endpoint(concurrency=1), numbered(3), at_once=True, note=notes.append)
    assert times[1] - times[0] < 0.25 < times[2] - times[1]
    (note,) = notes
    assert "its answers state that no call is left for 0." in note


def test_a_wait_pauses_all_calls_of_the_endpoint(tmp_path: Path) -> None:
    times: list[float] = []

    def says(_: str) -> ServerAnswer:
        times.append(time.monotonic())
        return error_answer(429, "slow down", headers={"retry-after": "0.2"}) if len(times) == 1 else completion()

    calls = numbered(6)

    async def steps(client: WireClient) -> None:
        first = asyncio.create_task(client.ask(calls[0]))
        while not times:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # the refusal is here by now
        await asyncio.gather(first, *(client.ask(call) for call in calls[1:]))

    with serving(Speaker(says)) as server:
        use(tmp_path, server.endpoint(), steps)
    assert len(times) == 7
    assert min(times[1:]) - times[0] >= 0.19


@pytest.mark.parametrize(("wait_s", "shown"), [(90000, "25 h"), (0.01, "0.01 s")])
def test_an_endpoint_that_asks_for_more_patience_ends_the_run_and_another_goes_on(
    tmp_path: Path, wait_s: float, shown: str
) -> None:
    calls = numbered(4)

    async def ask_both(throttled: Endpoint, free: Endpoint) -> list[object]:
        async with WireClient({"m": throttled, "n": free}, Cassette(tmp_path, writable=True), environment={}) as client:
            waiting = asyncio.create_task(client.ask(Call("waits", "m", named("waits").body)))
            others = (client.ask(Call(call.call_id, "n", call.body)) for call in calls)
            replies = await asyncio.gather(*others, return_exceptions=True)  # the run may end before they are answered
            return [*replies, *await asyncio.gather(waiting, return_exceptions=True)]

    with serving(None, Rule(status=429, retry_after_s=wait_s, times="always")) as busy, serving() as free:
        endpoint = busy.endpoint(patience_s=3600 if wait_s > 1 else 0.3)
        *replies, error = asyncio.run(ask_both(endpoint, free.endpoint()))
    assert isinstance(error, EndpointFailed)
    assert f"rate limit (HTTP 429: planted fault), and the next call may be sent in {shown}: its patience" in str(error)
    answered = [call.call_id for call in calls]
    assert [getattr(reply, "text", None) for reply in replies] == ["[[A]]"] * 4 or wait_s > 1
    assert set(recorded(tmp_path)) <= set(answered)


def test_closing_waits_for_no_retry(tmp_path: Path) -> None:
    rule = Rule(status=429, retry_after_s=50, times="always")
    with serving(None, rule) as server:
        asyncio.run(asyncio.wait_for(_closed(tmp_path, server.endpoint()), 5))
    assert recorded(tmp_path) == {}


async def _closed(folder: Path, endpoint: Endpoint) -> None:
    async with WireClient({"m": endpoint}, Cassette(folder, writable=True), environment={}) as client:
        await cancelled(3)(client)


def test_a_folder_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("a file, where a folder has to be")

    async def steps(client: WireClient) -> list[object]:
        first = await asyncio.gather(client.ask(named("a/b/c")), return_exceptions=True)
        return [*first, *await asyncio.gather(client.ask(named("a/b/d")), return_exceptions=True)]

    with serving() as server:
        errors = use(tmp_path, server.endpoint(), steps)
        assert server.call_ids == ["a/b/c"]
    assert all(isinstance(error, StorageFailed) for error in errors)


def test_what_is_recorded_is_given_even_after_the_run_has_failed(tmp_path: Path) -> None:
    async def steps(client: WireClient) -> str | None:
        for call in (named("a"), named("b")):
            with pytest.raises(JudgeloopError) if call.call_id == "b" else _nothing():
                await client.ask(call)
        return (await client.ask(named("a"))).text

    with serving(None, Rule(match="b", status=401, times="always")) as server:
        assert use(tmp_path, server.endpoint(), steps) == "[[A]]"


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...


def test_two_endpoints_fail_each_for_itself(tmp_path: Path) -> None:
    with serving() as good, serving(None, Rule(status=400, times="always")) as bad:

        async def ask_both() -> list[str]:
            cassette = Cassette(tmp_path, writable=True)
            endpoints = {"m": good.endpoint(), "n": bad.endpoint(attempts=1)}
            async with WireClient(endpoints, cassette, environment={}, backoff_s=0.001) as client:
                failed = await client.ask(Call("bad", "n", named("bad").body))
                await client.ask(named("good"))
                assert list(recorded(tmp_path)) == ["good"]
                return [failed.failure]

        assert asyncio.run(ask_both()) == ["bad_request"]
    assert sorted(recorded(tmp_path)) == ["bad", "good"]


class AdapterRoute:
    """A server's route that loads adapters, and answers as scripted: (status, text) one request after the other."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, str]] = []

    async def load(self, request: Request) -> Response:
        self.asked.append(await request.json())
        status, text = self._answers.pop(0)
        return PlainTextResponse(text, status)


def _with_adapters(
    tmp_path: Path, route: AdapterRoute, path: str = "/v1/load_lora_adapter"
) -> tuple[Speaker, list[str]]:
    """The server, and the texts that so many calls with one adapter got."""
    speaker = Speaker()
    app = create_app(speaker)
    app.router.routes.append(Route(path, route.load, methods=["POST"]))
    with LocalServer(app) as server:
        speaker.base_url = server.base_url
        calls = [replace(named(f"c{n}", model="judgeloop-1"), adapter="/runs/weights") for n in range(2)]
        replies = ask(tmp_path, speaker.endpoint(), calls, at_once=True)
    return speaker, [str(reply.text) for reply in replies]


def test_an_adapter_is_loaded_once_before_its_model_is_asked(tmp_path: Path) -> None:
    route = AdapterRoute((200, "Success"))
    speaker, texts = _with_adapters(tmp_path, route)
    assert texts == ["[[A]]"] * 2
    assert route.asked == [{"lora_name": "judgeloop-1", "lora_path": "/runs/weights"}]
    # What is recorded needs no server.
    calls = [replace(named(f"c{n}", model="judgeloop-1"), adapter="/runs/weights") for n in range(2)]
    assert [reply.text for reply in ask(tmp_path, speaker.endpoint(), calls)] == texts


def test_an_adapter_that_is_there_already_is_as_good_as_loaded(tmp_path: Path) -> None:
    lost = AdapterRoute((503, "busy"), (400, "The lora adapter 'judgeloop-1' has already been loaded."))
    assert _with_adapters(tmp_path, lost)[1] == ["[[A]]"] * 2
    assert len(lost.asked) == 2


def test_a_server_that_takes_no_adapters_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    missing = AdapterRoute((404, "No adapter found for /runs/weights"))
    with pytest.raises(
        EndpointFailed, match=r"adapter /runs/weights was not loaded \(HTTP 404: No adapter found .*VLLM_ALLOW"
    ):
        _with_adapters(tmp_path / "a", missing)
    with pytest.raises(EndpointFailed, match=r"HTTP 404: .*Unknown request URL.*then run the same command to resume"):
        _with_adapters(tmp_path / "b", AdapterRoute(), "/v1/other")
