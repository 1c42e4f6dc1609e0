"""The routes that score texts, on the wire: addresses, envelopes, retries, recording, replay, secrets, and the cost."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from judgeloop.errors import BudgetReached, EndpointFailed, FolderMismatch, ReplayMiss
from judgeloop.experiment.schema import Endpoint, Price
from judgeloop.records import REWARD_ROUTES, Call, Reply, RewardRoute
from judgeloop.serving.faults import Rule
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.protocol import ServerAnswer
from judgeloop.serving.recorded import RecordAnswerer, ReplayAnswerer
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import Ledger
from judgeloop.wire.reply import TransientFault, parse, read, route_path
from wire_case import Speaker, ask, named, recorded, serving

CONVERSATION = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
BODIES: dict[RewardRoute, dict[str, Any]] = {
    "classify": {"model": "m", "messages": CONVERSATION},
    "pooling": {"model": "m", "messages": CONVERSATION, "encoding_format": "float"},
    "score": {"model": "m", "text_1": "Why?", "text_2": "So."},
    "rerank": {"model": "m", "query": "Why?", "documents": ["So."]},
}
ANSWERS: dict[RewardRoute, dict[str, Any]] = {
    "classify": {"data": [{"index": 0, "label": "LABEL_0", "probs": [-1.5], "num_classes": 1}]},
    "pooling": {"data": [{"index": 0, "object": "pooling", "data": [[9.0], [-1.5]]}]},
    "score": {"data": [{"index": 0, "object": "score", "score": -1.5}]},
    "rerank": {"results": [{"index": 0, "document": {"text": "So."}, "relevance_score": -1.5}]},
}
PATHS = {"classify": "/classify", "pooling": "/pooling", "score": "/score", "rerank": "/v1/rerank"}


def call(route: RewardRoute, call_id: str = "s0/g0/judge/i/score/k0", **changes: Any) -> Call:
    return Call(call_id, "m", {**BODIES[route], **changes}, route)


def scored_answer(route: RewardRoute, **more: Any) -> ServerAnswer:
    return ServerAnswer(200, {"id": "x", "model": "rm", "usage": {"prompt_tokens": 7, "total_tokens": 7}, **ANSWERS[route], **more})  # fmt: skip


@pytest.mark.parametrize("route", REWARD_ROUTES)
@pytest.mark.parametrize(("base", "root"), [("/v1", ""), ("", ""), ("/v1/", ""), ("/a/b/v1", "/a/b"), ("/a/b", "/a/b")])
def test_where_a_route_stands_whether_the_base_url_ends_in_its_version_or_not(base: str, root: str, route: RewardRoute) -> None:  # fmt: skip
    assert route_path(base, route) == root + PATHS[route]


def test_a_hosted_reranker_keeps_its_version() -> None:
    assert route_path("/v2", "rerank") == "/v2/rerank"


@pytest.mark.parametrize(("route", "version"), [*((route, "/v1") for route in REWARD_ROUTES), ("score", "")])
def test_a_call_of_each_route_is_answered_recorded_and_replayed(tmp_path: Path, route: RewardRoute, version: str) -> None:  # fmt: skip
    with serving(Speaker(lambda _: scored_answer(route))) as speaker:
        endpoint = speaker.endpoint(base_url=speaker.base_url.removesuffix("/v1") + version)
        replies = ask(tmp_path, endpoint, [call(route), call(route)])
    assert speaker.call_ids == ["s0/g0/judge/i/score/k0"]
    assert speaker.seen[0][1] == BODIES[route]
    assert replies == [Reply(text="", model="rm", prompt_tokens=7, numbers=(-1.5,))] * 2
    line = json.loads((tmp_path / "calls/s0/g00-judge.jsonl").read_text())
    assert line["route"] == route
    replay = Cassette(tmp_path, writable=False)
    assert ask(tmp_path / "again", endpoint, [call(route)], replay=replay) == replies[:1]
    with pytest.raises(ReplayMiss, match=r"recorded route /.*asked /chat/completions"):
        ask(tmp_path / "chat", endpoint, [named("s0/g0/judge/i/score/k0")], replay=replay)


def test_the_same_body_by_two_routes_is_two_calls_and_a_chat_keeps_its_key_and_line(tmp_path: Path) -> None:
    keys = {Call("i", "m", BODIES["classify"], route).key for route in ("", *REWARD_ROUTES)}
    assert len(keys) == 1 + len(REWARD_ROUTES)
    # The recorded fixture's own key, as it was before there were routes.
    fixture = next(Path(__file__).parents[2].glob("fixtures/exemplars/recording/calls/**/*.jsonl*"))
    content = gzip.decompress(fixture.read_bytes()) if fixture.suffix == ".gz" else fixture.read_bytes()
    first = json.loads(content.splitlines()[0])
    assert Call(first["call"], "m", first["request"]).key == first["key"]
    with serving() as speaker:
        ask(tmp_path, speaker.endpoint(), [named("s0/g0/judge/i/m/ab")])
    written = json.loads((tmp_path / "calls/s0/g00-judge.jsonl").read_text())
    assert list(written) == [*first, "spent", "checksum"]


@pytest.mark.parametrize(
    ("route", "rule", "attempts"),
    [
        # What breaks on the way is the same on every route; what an envelope lacks is the route's own.
        ("classify", Rule(status=500), 2), ("pooling", Rule(status=503), 2),
        ("score", Rule(kind="reset"), 2), ("rerank", Rule(kind="truncated"), 2),
        ("classify", Rule(kind="slow", delay_s=0.01), 1),
        *((route, Rule(kind=kind), 2) for route in REWARD_ROUTES for kind in ("not_json", "empty_choices")),
    ],
)  # fmt: skip
def test_transport_faults_and_malformed_envelopes_are_asked_again(tmp_path: Path, route: RewardRoute, rule: Rule, attempts: int) -> None:  # fmt: skip
    with serving(Speaker(lambda _: scored_answer(route)), rule) as speaker:
        [reply] = ask(tmp_path, speaker.endpoint(), [call(route)])
    assert reply.numbers == (-1.5,)
    assert recorded(tmp_path)[call(route).call_id].attempts == attempts


@pytest.mark.parametrize("route", REWARD_ROUTES)
def test_a_number_that_is_none_is_readable_and_not_asked_again(tmp_path: Path, route: RewardRoute) -> None:
    with serving(Speaker(lambda _: scored_answer(route)), Rule(kind="null_content", times="always")) as speaker:
        [reply] = ask(tmp_path, speaker.endpoint(), [call(route)])
    assert (reply.numbers, reply.failure) == ((None,), "")
    assert recorded(tmp_path)[call(route).call_id].attempts == 1


@pytest.mark.parametrize(
    ("route", "body", "numbers"),
    [
        ("classify", {"data": [{"probs": [0.1, 0.9]}]}, (0.1, 0.9)),
        ("classify", {"data": [{"probs": []}]}, ()),
        ("classify", {"data": [{"probs": ["0.1"]}]}, ()),
        ("classify", {"data": [{"probs": [True]}]}, ()),
        ("classify", {"data": [{"label": "LABEL_0"}]}, ()),
        ("classify", {"data": [{"probs": {"0": 1.0}}]}, ()),
        ("pooling", {"data": [{"data": [1.0]}]}, (1.0,)),
        ("pooling", {"data": [{"data": [[0.0], [2.0]]}]}, (2.0,)),
        ("pooling", {"data": [{"data": [[0.0, 1.0], [2.0, 3.0]]}]}, (2.0, 3.0)),
        ("pooling", {"data": [{"data": [[], [[1.0]]]}]}, ()),
        ("pooling", {"data": [{"data": "AACAPw=="}]}, ()),
        ("score", {"data": [{"score": None}]}, (None,)),
        ("score", {"data": [{"score": float("nan")}]}, (None,)),
        ("score", {"data": [{"score": float("-inf")}]}, (None,)),
        ("score", {"data": [{"score": 10**400}]}, (None,)),
        ("score", {"data": [{"score": 3}]}, (3.0,)),
        ("rerank", {"results": [{"index": 0, "relevance_score": 0.25}]}, (0.25,)),
        ("rerank", {"results": [{"index": 0}]}, ()),
    ],
)  # fmt: skip
def test_the_numbers_of_an_answer(route: RewardRoute, body: dict[str, Any], numbers: tuple[float | None, ...]) -> None:
    assert read(200, body, "", route).numbers == numbers
    assert parse(200, json.dumps(body), route) is not None


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"data": []}', '{"data": {}}', '{"data": [1]}', '{"results": null}', "[" * 10**5]
)
@pytest.mark.parametrize("route", REWARD_ROUTES)
def test_a_malformed_envelope_is_a_fault_and_never_a_score(route: RewardRoute, text: str) -> None:
    with pytest.raises(TransientFault) as caught:
        parse(200, text, route)
    assert caught.value.fault in ("not_json", "no_entry")
    assert read(200, caught.value.response, caught.value.fault, route).numbers == ()


def test_a_route_that_is_not_served_ends_the_run_and_says_which(tmp_path: Path) -> None:
    class Chat:
        def models(self) -> list[str]:
            return ["m"]

        async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
            raise AssertionError((body, call_id))

    with LocalServer(create_app(Chat())) as server, pytest.raises(EndpointFailed, match=r"404.*asked /classify.*route"):
        ask(tmp_path, Endpoint(base_url=server.base_url, model="m"), [call("classify")])


def test_a_text_that_is_too_long_is_data(tmp_path: Path) -> None:
    with serving(Speaker(lambda _: scored_answer("score")), Rule(kind="context_length", times="always")) as speaker:
        [reply] = ask(tmp_path, speaker.endpoint(), [call("score")])
    assert reply.failure == "context_length"


def test_a_key_that_is_echoed_reaches_no_file(tmp_path: Path) -> None:
    key = "-".join(["sk", "a", "very", "long", "secret", "key", "0123456789"])
    with serving(Speaker(lambda _: scored_answer("score", id=f"you are {key}"))) as speaker:
        ask(tmp_path, speaker.endpoint(api_key_env="KEY"), [call("score")], environment={"KEY": key})
        assert (b"authorization", f"Bearer {key}".encode()) in speaker.seen[0][2].headers
    assert all(key.encode() not in path.read_bytes() for path in tmp_path.rglob("*.jsonl"))


def test_a_score_costs_its_prompt_alone_and_the_budget_holds(tmp_path: Path) -> None:
    ledger = Ledger(max_calls=2)
    calls = [call("score", f"s0/g0/judge/i/score/k{n}") for n in range(3)]
    with serving(Speaker(lambda _: scored_answer("score"))) as speaker:
        endpoint = speaker.endpoint(price=Price(input=10.0, output=1e6), max_tokens=4096)
        with pytest.raises(BudgetReached, match="2 calls"):
            ask(tmp_path, endpoint, calls, ledger=ledger)
        assert ledger.cost == pytest.approx(2 * 7 * 10.0 / 1e6)
        # No reply is reserved for: a limit far below one completion of 4,096 tokens lets the last one through.
        assert len(ask(tmp_path, endpoint, calls, ledger=Ledger(max_cost=0.01))) == 3
    assert len(speaker.call_ids) == 3


def test_a_line_with_an_unknown_route_is_damage(tmp_path: Path) -> None:
    with serving(Speaker(lambda _: scored_answer("score"))) as speaker:
        ask(tmp_path, speaker.endpoint(), [call("score")])
    path = tmp_path / "calls/s0/g00-judge.jsonl"
    path.write_text(path.read_text().replace('"route":"score"', '"route":"guess"'))
    with pytest.raises(FolderMismatch, match=r"g00-judge\.jsonl:1"):
        Cassette(tmp_path, writable=False)


# -- the local server ----------------------------------------------------------------------------------------------------


def post(url: str, body: dict[str, Any]) -> httpx2.Response:
    with httpx2.Client(trust_env=False) as client:
        return client.post(url, json=body)


def test_record_then_replay_as_a_server_for_clients_with_and_without_ids(tmp_path: Path) -> None:
    planted = PlantedAnswerer(PlantedSpec(model=("m",), length=1.0))
    with LocalServer(create_app(planted)) as upstream, LocalServer(create_app(RecordAnswerer(tmp_path, upstream.base_url))) as server:  # fmt: skip
        root = server.base_url.removesuffix("/v1")
        first = {route: post(f"{root}{PATHS[route]}", BODIES[route]).json() for route in REWARD_ROUTES}
        endpoint = Endpoint(base_url=server.base_url, model="m")
        [reply] = ask(tmp_path / "own", endpoint, [call("pooling")])
    assert {exchange.route for exchange in recorded(tmp_path).values()} == {
        "",
        *REWARD_ROUTES,
    }  # the list of models too
    with LocalServer(create_app(ReplayAnswerer(tmp_path))) as server:
        root = server.base_url.removesuffix("/v1")
        for route in REWARD_ROUTES:
            assert post(f"{root}{PATHS[route]}", BODIES[route]).json() == first[route]
        assert post(f"{root}/v2/rerank", BODIES["rerank"]).json() == first["rerank"]  # one route, three addresses
        missed = post(f"{root}/score", {**BODIES["score"], "text_2": "No."})
        assert (missed.status_code, missed.json()["error"]["code"]) == (404, "not_recorded")
        assert ask(tmp_path / "twice", Endpoint(base_url=server.base_url, model="m"), [call("pooling")]) == [reply]


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("classify", {}, "input"), ("classify", {"input": 3}, "input"), ("pooling", {"input": []}, "input"),
        ("pooling", {"messages": [{"content": "x"}]}, "messages[0]"), ("score", {"text_1": "a"}, "text_2"),
        ("score", {"queries": "a"}, "documents"), ("rerank", {"query": ["a"], "documents": ["b"]}, "query"),
        ("rerank", {"query": "a", "documents": [1]}, "documents"), ("score", {"text_1": ["a", "b"], "text_2": ["c"] * 3}, "documents"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused_with_its_field(route: RewardRoute, body: dict[str, Any], field: str) -> None:
    with LocalServer(create_app(PlantedAnswerer(PlantedSpec()))) as server:
        refused = post(f"{server.base_url}/{route}", {"model": "planted", **body})
        unknown = post(f"{server.base_url}/{route}", {**BODIES[route], "model": "other"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
