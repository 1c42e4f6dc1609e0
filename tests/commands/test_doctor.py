"""judgeloop doctor against servers of every shape: what it asks, what it finds, and what it never shows."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import small_experiment, write_experiment
from judgeloop import cli
from judgeloop.cli.app import app
from judgeloop.commands.doctor import Diagnosis, doctor
from judgeloop.commands.plan import plan
from judgeloop.commands.run import run
from judgeloop.errors import EndpointFailed, InvalidInput, JudgeloopError
from judgeloop.experiment.schema import Endpoint
from judgeloop.serving.faults import Faults, Rule, Shape, ShapedAnswerer
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.protocol import error_answer, incoming
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.wire.doctor_connection import SERVERS, Check

pytestmark = pytest.mark.usefixtures("quick_retries")
SPEC = {
    "position": 0.2, "quality": 8.0, "references": {"What is the capital of France?": "Paris"}, "temperature0": True,
}  # fmt: skip
CHECKS = [
    "models", "answer", "logprobs", "json", "text", "json schema", "repeat", "seed", "system role", "context", "n",
    "concurrency", "rate limits",
]  # fmt: skip


IN_FLIGHT = "This is remark number"
"""Stands in the calls that look for the knee, and in no other."""


class Counted(ShapedAnswerer):
    """Remembers every request: the body, and the headers it came with. Works ``slow_s`` on each call of the knee's search, if
    that is more than none: the calls before it need not wait."""

    def __init__(self, shape: Shape, refuses_above: int, slow_s: float, **spec: Any) -> None:
        super().__init__(PlantedAnswerer(PlantedSpec.model_validate({**SPEC, **spec})), shape)
        self.shapes = {True: shape.model_copy(update={"seconds": slow_s or shape.seconds}), False: shape}
        self.refuses_above, self.now = refuses_above, 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def answer(self, body: dict[str, Any], call_id: str | None) -> Any:
        self.bodies.append(body)
        self.headers.append({name.decode(): value.decode() for name, value in incoming.get().headers})
        self.shape = self.shapes[IN_FLIGHT in json.dumps(body)]
        if self.now >= self.refuses_above:
            return error_answer(429, "too many at once")
        self.now += 1
        try:
            return await super().answer(body, call_id)
        finally:
            self.now -= 1


Play = Callable[..., tuple[str, Counted]]


@pytest.fixture
def play() -> Iterator[Play]:
    """``play(kind="ollama", …)`` serves that shape; gives its base URL and what was asked."""
    running: list[LocalServer] = []

    def start(
        faults: Faults | None = None,
        spec: dict[str, Any] | None = None,
        refuses_above: int = 999,
        slow_s: float = 0.0,
        **shape: Any,
    ) -> tuple[str, Counted]:
        answerer = Counted(Shape.model_validate(shape), refuses_above, slow_s, **(spec or {}))
        server = LocalServer(create_app(answerer, faults=faults))
        server.__enter__()
        running.append(server)
        return server.base_url, answerer

    yield start
    for server in running:
        server.close()


def checks(made: Diagnosis) -> dict[str, Check]:
    return {check.name: check for check in made.checks}


def examined(url: str, **options: Any) -> Diagnosis:
    return doctor(url, **{"environment": {}, "max_calls": 30, **options})


# -- servers of a shape --------------------------------------------------------------------------------------------------

# kind → (server and version, verdict mode, checks that are "no", words of their meaning)
SHAPES: list[tuple[str, str, str, dict[str, str]]] = [
    ("plain", "unknown", "logprob", {}),
    ("openai", "OpenAI", "logprob", {}),
    ("openai_reasoning", "OpenAI", "json", {"logprobs": "a thought"}),
    (
        "anthropic",
        "Anthropic",
        "text",
        {"logprobs": "ignored", "json": "", "json schema": "not enforced", "seed": "keep the recording", "n": ""},
    ),
    ("gemini", "Gemini", "json", {"logprobs": "a thought"}),
    ("mistral", "Mistral", "json", {"logprobs": "hard", "seed": "refused"}),
    ("openrouter", "OpenRouter", "json", {"logprobs": "ignored"}),
    ("litellm", "LiteLLM 1.80.0", "json", {"logprobs": "hard"}),
    ("vllm", "vLLM 0.11.0", "logprob", {}),
    ("sglang", "SGLang 0.5.5", "logprob", {}),
    ("ollama", "Ollama 0.12.6", "json", {"logprobs": "ignored", "context": "cut without a word", "n": ""}),
    ("llama_cpp", "llama.cpp b6500-1a2b3c4d", "logprob", {"context": "2,048 tokens", "n": ""}),
]


SECTION = {
    "openai_reasoning": "OpenAI", "anthropic": "Anthropic", "gemini": "Gemini", "mistral": "Mistral", "openrouter": "OpenRouter",
    "litellm": "LiteLLM", "vllm": "vLLM", "sglang": "SGLang", "ollama": "Ollama", "llama_cpp": "llama.cpp",
}  # fmt: skip
"""Kind → its section of docs/howto-my-provider.md."""


def page_words(kind: str) -> list[str]:
    """What doctor says of such a server according to the page."""
    if kind not in SECTION:
        return []
    page = (Path(__file__).parents[2] / "docs" / "howto-my-provider.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {SECTION[kind]}\n")[1].split("\n## ")[0]
    words = re.findall("“([^”]+)”", section[section.index("**doctor**") :])
    assert words
    return words


@pytest.mark.parametrize(("kind", "server", "mode", "missing"), SHAPES)
def test_each_shape_is_told_and_judged_by_what_it_can(
    play: Play, kind: str, server: str, mode: str, missing: dict[str, str]
) -> None:
    url, asked = play(kind=kind)
    made = examined(url)
    found = checks(made)
    assert [check.name for check in made.checks] == CHECKS
    assert f"{made.server.name} {made.version}".strip() == server
    assert bool(made.recognised_by) == (server != "unknown")
    assert {name for name, check in found.items() if check.state == "no"} == set(missing)
    for name, words in missing.items():
        assert words in found[name].means
    assert made.recommended.verdict == mode
    assert made.calls == len(asked.bodies) <= 30
    assert made.calls == sum(check.calls for check in made.checks)
    said = f"looks like {server}; {made.recommended.yaml()}; " + "; ".join(check.means for check in made.checks)
    assert [words for words in page_words(kind) if words not in said] == []
    # The blocks can be run as they stand.
    block = yaml.safe_load(made.recommended.yaml())
    Endpoint.model_validate(block["endpoints"]["m"])
    assert block["judge"] == {"kind": "model", "endpoint": "m", "verdict": mode}


def test_a_known_quirk_is_shown_by_a_check() -> None:
    quirks = [quirk for server in SERVERS for quirk in server.quirks]
    assert {quirk.check for quirk in quirks} <= set(CHECKS)
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [
        quirk.what for quirk in quirks if quirk.what.replace("--", "") not in page.replace("`", "").replace("--", "")
    ] == []


@pytest.mark.parametrize(("kind", "limit"), [("openai", 5), ("vllm", 5), ("plain", 7), ("vllm", 2)])
def test_fewer_log_probabilities_are_found_and_set(play: Play, kind: str, limit: int) -> None:
    url, _ = play(kind=kind, logprobs=limit)
    made = examined(url)
    found = checks(made)["logprobs"]
    assert found.state == "ok"
    assert f"then {limit} (refused" in found.asked
    assert made.recommended.endpoint["top_logprobs"] == limit
    assert made.recommended.verdict == "logprob"


@pytest.mark.tables
def test_the_setting_makes_a_run_work_where_twenty_are_refused(play: Play, tmp_path: Path) -> None:
    url, _ = play(kind="openai", logprobs=5, spec={"draft": {"length_mean": 20}})
    raw = small_experiment(url, generations=1, replicates=1)
    raw["judge"]["verdict"] = "logprob"
    raw["endpoints"]["m"] |= checks_of_block(examined(url))
    done = run(write_experiment(tmp_path, raw), out=tmp_path / "run")
    judged = done.judgments[done.judgments["arm"] != "random"]
    assert (judged["verdict"] != "unscored").all()


def checks_of_block(made: Diagnosis) -> dict[str, Any]:
    return {name: value for name, value in made.recommended.endpoint.items() if name == "top_logprobs"}


def test_a_reasoning_model_is_given_room_and_its_own_settings(play: Play) -> None:
    url, asked = play(kind="openai_reasoning", thinks=40)
    made = examined(url)
    block = made.recommended.endpoint
    assert block["max_tokens_field"] == "max_completion_tokens"
    assert block["send_temperature"] is False
    assert block["max_tokens"] >= 2048
    assert "refused (Unsupported parameter" in checks(made)["answer"].came
    late = asked.bodies[3:]
    assert all("max_tokens" not in body and "temperature" not in body and "logprobs" not in body for body in late)


@pytest.mark.parametrize(
    ("shape", "check", "state", "words"),
    [
        ({"seed": False}, "seed", "no", "keep the recording"),
        ({"seed": True}, "seed", "ok", "reproducible"),
        ({"json_schema": "refused"}, "json schema", "no", "refused"),
        ({"json_schema": "ignored"}, "json schema", "no", "not enforced"),
        ({"system": False}, "system role", "no", "fail here"),
        ({"logprobs": "refused"}, "logprobs", "no", "hard"),
        ({"logprobs": "ignored"}, "logprobs", "no", "ignored"),
        ({"n": "served"}, "n", "ok", "does not need it"),
        ({"context": 1000}, "context", "no", "1,000 tokens"),
        ({"context": 1000, "overflow": "cut"}, "context", "no", "cut without a word"),
        ({"kind": "llama_cpp", "context": 900}, "context", "no", "900 tokens"),
        ({"kind": "vllm", "context": 1000}, "context", "no", "1,000 tokens"),
    ],
)
def test_each_limit_is_found(play: Play, shape: dict[str, Any], check: str, state: str, words: str) -> None:
    url, _ = play(**shape)
    found = checks(examined(url, max_calls=20))[check]
    assert (found.state, words in found.means) == (state, True), found


def test_an_error_in_a_list_is_read(play: Play) -> None:
    url, _ = play(kind="gemini", thinks=0)
    found = checks(examined(url, max_calls=20))
    assert found["logprobs"].came == "HTTP 400: Logprobs is not enabled for this model"
    assert "seed is refused" in found["seed"].means


def test_without_json_schema_and_log_probabilities_verdicts_are_text(play: Play) -> None:
    url, _ = play(logprobs="refused", json_schema="refused")
    made = examined(url)
    assert made.recommended.verdict == "text"
    assert any("json" in reason for reason in made.recommended.why)


def test_a_schema_that_is_only_a_wish_comes_after_text(play: Play) -> None:
    url, _ = play(logprobs="ignored", json_schema="ignored", spec={"unscored": 0.0})
    assert examined(url).recommended.verdict == "text"


def test_a_judge_that_never_gives_a_verdict_is_said(play: Play) -> None:
    url, _ = play(json_schema="ignored", spec={"unscored": 1.0})
    made = examined(url)
    assert made.recommended.verdict is None
    assert "try another --prompt" in made.recommended.why[0]
    assert "verdict: auto" in made.recommended.yaml()


def test_a_judge_that_reads_the_slot_is_said(play: Play) -> None:
    url, _ = play(spec={"position": 9.0, "quality": 0.0})
    assert "picked the first slot both times" in checks(examined(url))["logprobs"].means


def test_a_template_that_reasons_first_is_not_asked_for_log_probabilities(play: Play) -> None:
    url, _ = play()
    made = examined(url, prompt="chain_of_thought")
    assert checks(made)["logprobs"].state == "unknown"
    assert made.recommended.verdict in ("json", "text")


# -- how many calls at once ----------------------------------------------------------------------------------------------


def test_the_knee_is_at_the_servers_slots(play: Play) -> None:
    """A server that works on four calls at once, three tenths of a second each: far more than a busy machine adds."""
    url, asked = play(slots=4, slow_s=0.3)
    made = examined(url, max_calls=80)
    assert made.recommended.concurrency == 4
    assert made.recommended.calls_per_second == pytest.approx(4 / 0.3, rel=0.35)
    probed = checks(made)["concurrency"]
    assert 20 < probed.calls <= 60
    assert "at 8 in flight" in probed.means
    texts = [json.dumps(body["messages"]) for body in asked.bodies[-probed.calls :]]
    assert len(set(texts)) == len(texts)  # no cache can answer


def test_a_server_that_serves_more_is_asked_up_to_the_calls(play: Play) -> None:
    url, _ = play(slow_s=0.4)  # far more than a busy machine adds to a call
    made = examined(url, max_calls=80)
    assert made.recommended.concurrency in (8, 16)
    assert "more at once may be possible" in checks(made)["concurrency"].means


def test_failures_at_a_level_end_the_search(play: Play) -> None:
    url, _ = play(refuses_above=2, slow_s=0.05)
    made = examined(url, max_calls=80)
    assert "of 8 calls failed at 4 in flight" in checks(made)["concurrency"].means
    assert made.recommended.concurrency in (1, 2)


def test_the_calls_are_bounded_and_the_rest_is_said(play: Play) -> None:
    for most in (1, 4, 9):
        url, asked = play()
        made = examined(url, max_calls=most)
        assert made.calls == len(asked.bodies) <= most
        assert any(check.came == "the calls are used up" for check in made.checks)
        assert len({check.name for check in made.checks}) == len(made.checks)


# -- what goes wrong -----------------------------------------------------------------------------------------------------


def test_one_fault_is_borne(play: Play) -> None:
    url, _ = play(faults=Faults(rules=(Rule(status=503, times=1, retry_after_s=0),)))
    made = examined(url, max_calls=60)
    assert made.recommended.verdict == "logprob"


def test_no_server_is_exit_4() -> None:
    with pytest.raises(EndpointFailed, match="no server answers") as failed:
        examined("http://127.0.0.1:9/v1", model="m")
    assert failed.value.exit_code == 4


def test_an_unknown_model_is_exit_4(play: Play) -> None:
    url, _ = play()
    with pytest.raises(EndpointFailed, match="no answer to a plain question"):
        examined(url, model="nobody")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give --base-url"),
        ({"base_url": "ftp://x"}, "http://"),
        ({"base_url": "http://127.0.0.1:9/v1", "prompt": "no_such"}, "no_such"),
        ({"base_url": "http://127.0.0.1:9/v1", "max_calls": 0}, "--max-calls"),
    ],
)
def test_what_is_asked_wrongly_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        doctor(**arguments)


def test_several_models_need_a_name(play: Play) -> None:
    url, asked = play(spec={"model": ["one", "two"]})
    with pytest.raises(InvalidInput, match=r"--model: .* lists 2 models \(one, two\)"):
        examined(url)
    assert asked.bodies == []
    assert examined(url, model="two").model == "two"


def test_an_endpoint_of_an_experiment_is_asked_with_its_own_settings(play: Play, tmp_path: Path) -> None:
    url, asked = play()
    raw = small_experiment(url)
    raw["endpoints"]["m"] |= {"extra_headers": {"x-team": "${TEAM}"}, "extra_body": {"top_k": 4}}
    path = write_experiment(tmp_path, raw)
    made = doctor(experiment=path, environment={"TEAM": "blue"}, max_calls=20)
    assert {headers["x-team"] for headers in asked.headers} == {"blue"}
    assert made.recommended.endpoint["extra_headers"] == {"x-team": "${TEAM}"}
    with pytest.raises(InvalidInput, match="--endpoint: nowhere"):
        doctor(experiment=path, endpoint="nowhere")


class Rude(BaseHTTPRequestHandler):
    """Refuses everybody, and says their key aloud."""

    def do_GET(self) -> None:
        self._refuse(200, {"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._refuse(401, {"error": {"message": f"wrong key: {self.headers.get('authorization')}"}})

    def _refuse(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("x-echo", self.headers.get("authorization", ""))
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Elsewhere(BaseHTTPRequestHandler):
    """A vLLM behind a proxy that has no page for versions: ``page`` is (status, body) of what it answers there."""

    page: tuple[int, bytes] = (404, b"")

    def do_GET(self) -> None:
        listing = json.dumps({"data": [{"id": "m", "owned_by": "vllm"}]}).encode()
        self._answer(*((200, listing) if self.path.endswith("/models") else self.page))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        choice = {"message": {"content": "ready"}, "finish_reason": "stop"}
        self._answer(200, json.dumps({"model": "m", "choices": [choice]}).encode())

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("location", "https://example.org/")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    "page", [(404, b""), (302, b""), (200, b"<html>"), (200, b"[1]"), (200, b'{"version": 3}'), (500, b"")]
)
def test_a_version_that_is_not_stated_is_left_out(page: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Elsewhere, "page", page)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        made = examined(f"http://127.0.0.1:{server.server_port}/v1", max_calls=1)
    finally:
        server.shutdown()
        server.server_close()
    assert (made.server.name, made.version) == ("vLLM", "")


class Locked(Rude):
    """Lists its models to nobody either."""

    def do_GET(self) -> None:
        self._refuse(401, {"error": "no key"})


@pytest.mark.parametrize(("handler", "model"), [(Rude, "m"), (Locked, None)])
def test_a_key_that_was_not_sent_is_said_to_be_missing(handler: type[Rude], model: str | None) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    said = "no key was sent, for OPENAI_API_KEY goes to OpenAI's own address alone: give --api-key-env OPENAI_API_KEY"
    try:
        with pytest.raises(JudgeloopError, match=said) as caught:
            doctor(url, model, environment={"OPENAI_API_KEY": "sk-very-secret-123"})
    finally:
        server.shutdown()
        server.server_close()
    assert "sk-very-secret-123" not in str(caught.value)


def test_a_key_is_sent_and_never_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rude)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret-123")
    try:
        for user, code in (("user:pw@", 2), ("", 4)):
            with pytest.raises(SystemExit) as ended:
                cli.main(["doctor", "--base-url", f"http://{user}127.0.0.1:{server.server_port}/v1", "--api-key-env", "SECRET_KEY"])  # fmt: skip
            assert ended.value.code == code
    finally:
        server.shutdown()
        server.server_close()
    said = capsys.readouterr()
    assert "401" in said.err
    assert "SECRET_KEY" in said.err
    for secret in ("sk-very-secret-123", "user:pw"):
        assert secret not in said.out + said.err


# -- the command ---------------------------------------------------------------------------------------------------------


def test_the_transcript_says_what_was_asked_and_what_it_means(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    url, _ = play(kind="ollama")
    app(["doctor", "--base-url", url, "--max-calls", "25"], standalone_mode=False)
    shown = capsys.readouterr().out
    for words in (
        "looks like Ollama 0.12.6 (by owned_by library)",
        "Known of Ollama",
        "verdict: json",
        "cut without a word",
        "GET /models",
    ):
        assert words in " ".join(shown.split())


def test_json_feeds_a_plan(play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, _ = play(seconds=0.01)
    app(["doctor", "--base-url", url, "--json"], standalone_mode=False)
    text = capsys.readouterr().out
    raw = json.loads(text)
    assert [check["name"] for check in raw["checks"]] == CHECKS
    (tmp_path / "doctor.json").write_text(text, encoding="utf-8")
    made = plan(write_experiment(tmp_path, small_experiment(url)), doctor=tmp_path / "doctor.json")
    assert made.speed is not None
    assert made.speed.calls_per_second == raw["recommended"]["calls_per_second"]
