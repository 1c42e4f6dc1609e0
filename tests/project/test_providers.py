"""docs/howto-my-provider.md is true: its commands judge, as they stand, against played servers of each provider's shape."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import judgeloop
from command_line import command
from conftest import small_experiment, write_experiment
from judgeloop.commands.doctor import doctor
from judgeloop.errors import EndpointFailed
from judgeloop.serving.faults import Shape, ShapedAnswerer, load_faults
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.protocol import incoming
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.wire.doctor_connection import SERVERS

PAGE = (Path(__file__).parents[2] / "docs" / "howto-my-provider.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
KEY = "sk-planted-0123456789"
PAIRS = (
    '{"item_id": "france", "prompt": "Capital of France?", "text_a": "It is Paris, on the Seine.", "text_b": "Lyon."}\n'
    '{"item_id": "rain", "prompt": "Why does it rain?", "text_a": "Clouds cool.", "text_b": "Water rises, cools, and falls."}\n'
)
# section and place of the command in it → (server that is played, how verdicts are read)
BEARER = {"needs_header": "authorization", "needs_query": ""}
PLAYED: dict[tuple[str, int], tuple[dict[str, Any], str]] = {
    ("OpenAI", 0): ({"kind": "openai"}, "logprob"),
    ("OpenAI", 1): ({"kind": "openai_reasoning"}, "json"),
    ("Azure OpenAI", 0): ({"kind": "azure", **BEARER}, "logprob"),
    ("Azure OpenAI", 1): ({"kind": "azure"}, "logprob"),
    ("Anthropic", 0): ({"kind": "anthropic"}, "text"),
    ("Gemini", 0): ({"kind": "gemini"}, "json"),
    ("Amazon Bedrock", 0): ({"kind": "bedrock"}, "text"),
    ("Mistral", 0): ({"kind": "mistral"}, "json"),
    ("OpenRouter", 0): ({"kind": "openrouter"}, "json"),
    ("LiteLLM", 0): ({"kind": "litellm"}, "json"),
    ("vLLM", 0): ({"kind": "vllm"}, "logprob"),
    ("SGLang", 0): ({"kind": "sglang"}, "logprob"),
    ("Ollama", 0): ({"kind": "ollama"}, "json"),
    ("llama.cpp", 0): ({"kind": "llama_cpp"}, "logprob"),
}


class Watched(ShapedAnswerer):
    """Remembers the bodies that it was asked, and the names and values of their headers."""

    def __init__(self, model: str, shape: dict[str, Any]) -> None:
        spec = PlantedSpec.model_validate({"model": model, "length": 1.0, "temperature0": True})
        super().__init__(PlantedAnswerer(spec), Shape.model_validate(shape))
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def answer(self, body: dict[str, Any], call_id: str | None) -> Any:
        self.bodies.append(body)
        self.headers.append({name.decode(): value.decode() for name, value in incoming.get().headers})
        return await super().answer(body, call_id)


def commands(section: str) -> list[list[str]]:
    """The words of a section's audits, behind ``judgeloop``."""
    text = "".join(re.findall(r"^```sh\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("judgeloop audit ")]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1] if name in words else ""


def mode(body: dict[str, Any]) -> str:
    """How a request asks for its verdict."""
    return "logprob" if body.get("logprobs") else "json" if "response_format" in body else "text"


def test_every_command_of_the_page_is_played() -> None:
    assert {(name, place) for name in SECTIONS for place, _ in enumerate(commands(name))} == set(PLAYED)
    named = set(re.findall(r"“looks like ([A-Za-z][\w .]*?)(?: \d| b\d|”)", PAGE))
    assert {server.name for server in SERVERS} == named


@pytest.mark.tables
@pytest.mark.parametrize(("section", "place"), PLAYED, ids=lambda part: str(part).replace(" ", "_"))
def test_a_command_of_the_page_judges(
    section: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, (shape, by) = commands(section)[place], PLAYED[section, place]
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text(PAIRS, encoding="utf-8")
    variable = option(words, "--api-key-env") or next(iter(re.findall(r"\$\{(\w+)\}", " ".join(words))), "")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if variable:
        monkeypatch.setenv(variable, KEY)
    answerer = Watched(option(words, "--model"), shape)
    with LocalServer(create_app(answerer)) as server:
        words[words.index("--base-url") + 1] = server.base_url
        assert command(*words, "--out", "out") == 0
    judged = judgeloop.open("out").judgments
    assert len(judged) == 4
    assert (judged["verdict"] != "unscored").all()
    assert {mode(body) for body in answerer.bodies[-4:]} == {by}
    # The key came in the header that the page says, and stands nowhere.
    own = shape["kind"] == "azure" and "needs_header" not in shape
    sent = {headers.get("api-key" if own else "authorization", "") for headers in answerer.headers}
    assert sent == {KEY if own else f"Bearer {KEY}" if variable else ""}
    assert not own or all("authorization" not in headers for headers in answerer.headers)
    assert KEY not in capsys.readouterr().out
    assert not any(KEY.encode() in path.read_bytes() for path in Path("out").rglob("*") if path.is_file())


@pytest.mark.tables
def test_a_prompt_that_the_content_filter_stops_is_unscored_and_the_others_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text(PAIRS, encoding="utf-8")
    (tmp_path / "faults.yaml").write_text('server: {kind: azure, needs_header: "", needs_query: "", blocks: Seine}\n')
    shape = load_faults(tmp_path / "faults.yaml").server
    assert shape is not None
    answerer = ShapedAnswerer(PlantedAnswerer(PlantedSpec()), shape)
    with LocalServer(create_app(answerer)) as server:
        done = judgeloop.audit("pairs.jsonl", base_url=server.base_url, model="planted", out="out")
    reasons = done.judgments.groupby("item_id")["reason"].agg(set)
    assert reasons["france"] == {"refusal"}
    assert reasons["rain"] == {""}


@pytest.mark.parametrize(
    ("settings", "recognised", "verdict"),
    [
        ({"kind": "azure"}, "Azure OpenAI", "logprob"),
        # Nothing but the address tells Bedrock.
        ({"kind": "bedrock"}, "unknown", "json"),
    ],
)
def test_doctor_asks_where_no_models_are_listed(
    settings: dict[str, Any], recognised: str, verdict: str, tmp_path: Path
) -> None:
    block = yaml.safe_load(re.findall(r"```yaml endpoints\n(.*?)```", SECTIONS["Azure OpenAI"], re.DOTALL)[0])["azure"]
    answerer = Watched(block["model"], settings)
    with LocalServer(create_app(answerer)) as server:
        endpoint = {**block, "base_url": server.base_url}
        raw = small_experiment(server.base_url, endpoints={"m": endpoint, "azure": endpoint})
        path = write_experiment(tmp_path, raw)
        made = doctor(experiment=path, endpoint="azure", environment={"AZURE_OPENAI_API_KEY": KEY}, max_calls=25)
    assert made.server.name == made.record()["server"] == recognised
    assert made.recommended.verdict == verdict
    assert made.checks[0].means == "no list; asking by name"
    assert KEY not in str(made.record())


def test_a_played_azure_asks_for_its_query_and_its_header(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(PAIRS, encoding="utf-8")
    shape = Shape.model_validate({"kind": "azure"})
    with LocalServer(create_app(ShapedAnswerer(PlantedAnswerer(PlantedSpec()), shape))) as server:
        for query, status in (({}, 404), ({"api-version": "2024-10-21"}, 401)):
            with pytest.raises(EndpointFailed, match=f"HTTP {status}"):
                judgeloop.audit(
                    tmp_path / "pairs.jsonl", base_url=server.base_url, model="planted", extra_query=query,
                    out=tmp_path / str(status),
                )  # fmt: skip
