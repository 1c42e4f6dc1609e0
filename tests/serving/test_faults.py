"""Faults on purpose, as clients meet them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from judgeloop.errors import ExperimentError
from judgeloop.serving.faults import FaultCounter, Faults, Rule, load_faults
from judgeloop.serving.protocol import ServerAnswer
from judgeloop.serving.server import LocalServer, create_app

USER = [{"role": "user", "content": "hi"}]


class Echo:
    """Answers with the call id."""

    def models(self) -> list[str]:
        return ["m"]

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        message = {"role": "assistant", "content": f"{call_id}: hi"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
        return ServerAnswer(200, completion)


@contextmanager
def served(faults: Faults) -> Iterator[tuple[LocalServer, openai.OpenAI]]:
    with (
        LocalServer(create_app(Echo(), faults=faults)) as server,
        openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=5) as client,
    ):
        yield server, client


def ask(client: openai.OpenAI, call_id: str = "c1", **more: Any) -> str | None:
    messages: Any = USER
    headers = {"x-judgeloop-call": call_id}
    reply = client.chat.completions.create(model="m", messages=messages, extra_headers=headers, **more)
    return reply.choices[0].message.content


STATUSES: list[tuple[int, type[openai.APIStatusError]]] = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (503, openai.InternalServerError),
]


def test_planted_statuses() -> None:
    def rule(status: int) -> Rule:
        return Rule(match=f"^c{status}", status=status, times=2, retry_after_s=0.25, message="slow down", code="busy")

    with served(Faults(rules=tuple(rule(status) for status, _ in STATUSES))) as (server, client):
        for status, kind in STATUSES:
            for _ in range(2):
                with pytest.raises(kind, match="slow down") as caught:
                    ask(client, f"c{status}")
                assert caught.value.status_code == status
                assert caught.value.code == "busy"
                assert caught.value.response.headers["retry-after"] == "0.25"
            assert ask(client, f"c{status}") == f"c{status}: hi"
        with pytest.raises(openai.RateLimitError):
            ask(client, "c429/another")
        assert [name for name, _ in server.app.state.faults.fired][-3:] == ["c503", "c503", "c429/another"]


def test_broken_connections() -> None:
    rules = (Rule(match="reset", kind="reset", times=2), Rule(match="truncated", kind="truncated", times=2))
    with served(Faults(rules=rules)) as (server, client):
        for stream in (False, True):
            for kind, wrong in (("reset", httpx2.ReadError), ("truncated", httpx2.RemoteProtocolError)):
                name = f"{kind}/{stream}"
                body = {"model": "m", "messages": USER, "stream": stream}
                headers = {"x-judgeloop-call": name}
                with pytest.raises(wrong):
                    httpx2.post(f"{server.base_url}/chat/completions", json=body, headers=headers)
                with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
                    ask(client, name)
                assert ask(client, name) == f"{name}: hi"


def test_truncated_sends_part_of_what_it_announces() -> None:
    with served(Faults(rules=(Rule(kind="truncated", times="always"),))) as (server, _):
        body = {"model": "m", "messages": USER}
        with httpx2.stream("POST", f"{server.base_url}/chat/completions", json=body) as response:
            assert response.status_code == 200
            chunks: list[bytes] = []
            with pytest.raises(httpx2.RemoteProtocolError):
                chunks.extend(response.iter_bytes())
        assert 0 < response.num_bytes_downloaded < int(response.headers["content-length"])


def test_timeouts_and_slow_answers() -> None:
    rules = (Rule(match="^late", kind="slow", delay_s=0.2), Rule(match="^held", kind="timeout", delay_s=0.1))
    with served(Faults(rules=(*rules, Rule(match="^never", kind="timeout", times="always")))) as (_, client):
        start = time.monotonic()
        assert ask(client, "late") == "late: hi"
        assert time.monotonic() - start >= 0.2
        with pytest.raises(openai.APITimeoutError):
            ask(client, "never", timeout=0.2)
        with pytest.raises(openai.APIConnectionError):
            ask(client, "held")
        assert ask(client, "held") == "held: hi"


def test_a_server_stops_with_a_request_in_flight() -> None:
    with served(Faults(rules=(Rule(kind="timeout", times="always"),))) as (_, client):
        failures: list[Exception] = []

        def wait() -> None:
            try:
                ask(client)
            except openai.APIConnectionError as error:
                failures.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        start = time.monotonic()
    thread.join(5)
    assert time.monotonic() - start < 4
    assert len(failures) == 1


def test_malformed_envelopes() -> None:
    rules = [Rule(match=kind, kind=kind) for kind in ("not_json", "empty_choices", "null_content", "context_length")]  # type: ignore[arg-type]
    with served(Faults(rules=tuple(rules))) as (server, client):

        def post(call_id: str) -> httpx2.Response:
            body = {"model": "m", "messages": USER}
            return httpx2.post(f"{server.base_url}/chat/completions", json=body, headers={"x-judgeloop-call": call_id})

        html = post("not_json")
        assert html.status_code == 200
        with pytest.raises(ValueError):
            html.json()
        assert post("empty_choices").json()["choices"] == []
        assert post("null_content").json()["choices"][0]["message"]["content"] is None
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, "context_length")
        assert caught.value.code == "context_length_exceeded"
        for rule in rules:
            assert ask(client, rule.match) == f"{rule.match}: hi"


def test_rates_are_deterministic_and_near_their_value() -> None:
    faults = Faults(rules=(Rule(status=500, rate=0.3, times="always"),), seed=5)
    names = [f"c{number}" for number in range(2000)]
    hits = [FaultCounter(faults).next(name, name) is not None for name in names]
    again = FaultCounter(faults)
    assert hits == [again.next(name, name) is not None for name in reversed(names)][::-1]
    assert abs(sum(hits) / 2000 - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5
    other = FaultCounter(Faults(rules=faults.rules, seed=6))
    assert hits != [other.next(name, name) is not None for name in names]


def test_the_first_rule_that_hits_decides() -> None:
    counter = FaultCounter(Faults(rules=(Rule(match="/judge/", status=429), Rule(kind="reset", times=2))))
    fired = [counter.next("s0/judge/x", "s0/judge/x") for _ in range(3)]
    assert [rule.status if rule else 0 for rule in fired] == [429, None, 0]
    assert counter.next("body-hash", None) is not None


def test_faults_are_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(
        "rules:\n  - {match: /judge/, status: 429, times: 2}\n  - {kind: reset, times: always, rate: 0.1}\n"
    )
    assert load_faults(path).rules[1] == Rule(kind="reset", times="always", rate=0.1)
    for text, field in (
        ("rules: [{status: 429, kind: reset}]", "rules.0: give status or kind"),
        ("rules: [{kind: explode}]", "rules.0.kind"),
        ("rules: [{status: 200}]", "rules.0.status"),
        ("rules: [{status: 500, match: '('}]", "rules.0.match"),
        ("rules: [{status: 500, colour: red}]", "rules.0.colour"),
        ("rules: [{status: 500, times: -1}]", "rules.0.times"),
        ("- 1", "mapping"),
        ("rules: [", "YAML"),
    ):
        path.write_text(text)
        with pytest.raises(ExperimentError) as caught:
            load_faults(path)
        assert str(path) in str(caught.value)
        assert field in str(caught.value)
    with pytest.raises(ExperimentError, match="no such file"):
        load_faults(tmp_path / "none.yaml")
