"""Embeddings over HTTP: what servers' answers hold, what is recorded of them, and the local server's own."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import httpx2
import pytest

from judgeloop.errors import EndpointFailed
from judgeloop.records import Call
from judgeloop.serving.faults import Rule
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec, features_of
from judgeloop.serving.protocol import ServerAnswer
from judgeloop.serving.recorded import RecordAnswerer, ReplayAnswerer
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.text.features import FEATURES
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.reply import route_path
from wire_case import Speaker, ask, recorded, serving

VECTOR = (0.5, -1.25, 3.0)
BASE64 = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()
BODY = {"model": "m", "input": "So.", "encoding_format": "base64"}
CALL = Call("s0/g0/embed/m/i/k0", "m", BODY, "embeddings")


def answer(embedding: Any) -> ServerAnswer:
    """An answer in OpenAI's form, which vLLM and llama.cpp's /v1/embeddings share."""
    entry = {"object": "embedding", "index": 0, "embedding": embedding}
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return ServerAnswer(200, {"object": "list", "model": "e", "data": [entry], "usage": usage})


@pytest.mark.parametrize(
    ("embedding", "numbers"),
    [
        (BASE64, VECTOR), (list(VECTOR), VECTOR), ([[9.0, 9.0, 9.0], list(VECTOR)], VECTOR), ([1, 2], (1.0, 2.0)),
        ([0.5, None], (0.5, None)), ([0.5, 1e300], (0.5, None)), ([], ()), (None, (None,)), (BASE64[:-4], ()), ("!", ()), (["0.5"], ()),
    ],
)  # fmt: skip
def test_the_numbers_of_an_answer_fresh_and_replayed(tmp_path: Path, embedding: Any, numbers: tuple[float | None, ...]) -> None:  # fmt: skip
    with serving(Speaker(lambda _: answer(embedding))) as speaker:
        [reply] = ask(tmp_path, speaker.endpoint(), [CALL])
        replay = Cassette(tmp_path, writable=False)
        assert ask(tmp_path / "again", speaker.endpoint(), [CALL], replay=replay) == [reply]
    assert speaker.call_ids == [CALL.call_id]
    assert reply.numbers == numbers
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 0)


def test_a_list_of_numbers_is_recorded_as_base64_of_32_bits(tmp_path: Path) -> None:
    long = [0.1234567890123456 * n for n in range(1024)]
    for name, embedding in (("list", long), ("base64", base64.b64encode(struct.pack("<1024f", *long)).decode())):
        with serving(Speaker(lambda _, embedding=embedding: answer(embedding))) as speaker:
            ask(tmp_path / name, speaker.endpoint(), [CALL])
    lines = [(tmp_path / name / "calls/s0/g00-embed.jsonl").read_text() for name in ("list", "base64")]
    assert lines[0] == lines[1]
    assert json.loads(lines[0])["route"] == "embeddings"
    assert len(lines[0]) < 6200


@pytest.mark.parametrize(("base", "address"), [("/v1", "/v1/embeddings"), ("/openai/", "/openai/embeddings"), ("", "/embeddings")])  # fmt: skip
def test_embeddings_stand_beside_chat_completions(base: str, address: str) -> None:
    assert route_path(base, "embeddings") == address


@pytest.mark.parametrize("rule", [Rule(status=503), Rule(kind="truncated"), Rule(kind="empty_choices")])
def test_what_breaks_on_the_way_is_asked_again(tmp_path: Path, rule: Rule) -> None:
    with serving(Speaker(lambda _: answer(BASE64)), rule) as speaker:
        [reply] = ask(tmp_path, speaker.endpoint(), [CALL])
    assert reply.numbers == VECTOR
    assert recorded(tmp_path)[CALL.call_id].attempts == 2


def test_an_address_without_embeddings_ends_the_run_and_names_what_mends_it(tmp_path: Path) -> None:
    refused = ServerAnswer(404, {"error": {"message": "no such page"}})
    with serving(Speaker(lambda _: refused)) as speaker, pytest.raises(EndpointFailed) as caught:
        ask(tmp_path, speaker.endpoint(), [CALL])
    assert "no such page (asked /embeddings); check base_url and model, then run" in str(caught.value)


# -- the local server ----------------------------------------------------------------------------------------------------


def post(base_url: str, body: dict[str, Any]) -> dict[str, Any]:
    with httpx2.Client(trust_env=False) as client:
        content: dict[str, Any] = client.post(f"{base_url}/embeddings", json=body).json()
        return content


def test_a_planted_embedding_holds_what_the_law_looks_at(tmp_path: Path) -> None:
    spec = PlantedSpec(model=("m",), quality_marker="[q=", quality=1.0)
    texts = ["A **bold** claim, perhaps.", "A bold claim [q=1.5]."]
    with LocalServer(create_app(PlantedAnswerer(spec))) as server:
        found = post(server.base_url, {"model": "m", "input": texts})
        again = [post(server.base_url, {"model": "m", "input": text, "encoding_format": "base64"}) for text in texts]
    vectors = [entry["embedding"] for entry in found["data"]]
    assert [entry["index"] for entry in found["data"]] == [0, 1]
    for text, vector, alone, quality in zip(texts, vectors, again, (0.0, 1.5), strict=True):
        features = features_of(text)
        assert vector[1 : len(FEATURES)] == pytest.approx([features[name] for name in FEATURES if name != "length"])
        assert vector[0] == pytest.approx(features["length"] - 6.907, abs=1e-3)
        assert vector[len(FEATURES)] == quality
        unpacked = struct.unpack(f"<{len(vector)}f", base64.b64decode(alone["data"][0]["embedding"]))
        assert vector == pytest.approx(unpacked, abs=1e-5)
    assert vectors[0][len(FEATURES) + 1 :] != vectors[1][len(FEATURES) + 1 :]
    assert found["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in again)


def test_record_and_replay_answer_in_the_encoding_that_is_asked(tmp_path: Path) -> None:
    plain = {"model": "m", "input": ["So.", "No."]}
    bodies = [plain, {**plain, "encoding_format": "float"}, {**plain, "encoding_format": "base64"}]
    planted = PlantedAnswerer(PlantedSpec(model=("m",)))
    with LocalServer(create_app(planted)) as upstream, LocalServer(create_app(RecordAnswerer(tmp_path, upstream.base_url))) as server:  # fmt: skip
        first = [post(server.base_url, body) for body in bodies]
        twice = [post(server.base_url, body) for body in bodies]
    with LocalServer(create_app(ReplayAnswerer(tmp_path))) as server:
        replayed = [post(server.base_url, body) for body in bodies]
    for answers in (twice, replayed):
        for body, once, found in zip(bodies, first, answers, strict=True):
            for recorded_entry, entry in zip(once["data"], found["data"], strict=True):
                if "base64" in body.values():
                    assert entry == recorded_entry
                else:
                    assert entry["embedding"] == pytest.approx(recorded_entry["embedding"], rel=1e-6)


def test_a_request_without_a_text_is_refused(tmp_path: Path) -> None:
    with LocalServer(create_app(PlantedAnswerer(PlantedSpec(model=("m",))))) as server:
        assert post(server.base_url, {"model": "m", "input": []})["error"]["param"] == "input"
        assert post(server.base_url, {"model": "other", "input": "So."})["error"]["code"] == "model_not_found"
