"""What several test files share: a local server with a planted judge and drafter, and a small experiment against it."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

# The matrices are small. Where every core has its test, the threads with which OpenBLAS would divide each product spin while
# they wait for one another: several times the CPU seconds. It reads this when numpy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# No test speaks TLS but with a server of its own, and every client of a library reads the store of certificates anew, for 70 ms.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull

import pytest
import yaml
from hypothesis import settings
from starlette import routing
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from judgeloop import report
from judgeloop.commands import batch, compare
from judgeloop.records import Call, Route
from judgeloop.serving.faults import FaultCounter, Faults
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.protocol import parsed
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.stats.estimate import estimates_frame
from judgeloop.stats.judge import slopes
from judgeloop.wire import client, doctor_connection, jobs_api
from judgeloop.wire.client import Connection, WireClient

# A few examples a property at every change; the library's hundred in CI, by --hypothesis-profile thorough.
settings.register_profile("fast", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("fast")

# A resampled interval stands besides the reported one. How large its sample is matters to the tests of stats and the slow
# ones alone: they have all of it.
_DRAWS, slopes.DRAWS = slopes.DRAWS, 200

ITEMS = [
    {"item_id": "capital", "category": "facts", "prompt": "What is the capital of France?", "reference": "Paris", "match": "contains"},
    {"item_id": "sleep", "category": "advice", "prompt": "How do I sleep better?"},
    {"item_id": "rain", "category": "writing", "prompt": "Describe the rain."},
]  # fmt: skip


def examples(thorough: int) -> int:
    """The number of examples of a property that takes ``thorough`` of them in CI: a fifth at every change."""
    return max(4, thorough * settings().max_examples // 100)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: one worker more than there are cores, for tests that wait for a server leave theirs idle."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Modules and tests live as long as the session: the collector need not walk them after every test."""
    gc.collect()
    gc.freeze()


@contextmanager
def tables_alone() -> Iterator[None]:
    """Runs and audits leave their tables and no estimate: for what is asked and kept, where other tests see the numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("judgeloop.commands.run.run_estimates", lambda *_: estimates_frame([]))
        patch.setattr("judgeloop.commands.run.with_forecast", lambda estimates, *_: estimates)
        patch.setattr("judgeloop.commands.run.store_before", lambda *_: None)
        patch.setattr("judgeloop.analysis.judge_estimates", lambda *_, **__: estimates_frame([]))
        patch.setattr("judgeloop.analysis.text_estimates", lambda *_: estimates_frame([]))
        yield


@contextmanager
def no_pages() -> Iterator[None]:
    """Commands leave their report out, and a comparison its page."""
    with _written_by(lambda folder: NotWritten(), lambda comparison: "no page: the test lacks the marker `pages`"):
        yield


@contextmanager
def _written_by(write: Callable[..., Any], render: Callable[..., Any]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", write)
        patch.setattr(compare, "render", render)
        yield


_PAGES = report.write, compare.render


@pytest.fixture(scope="module", autouse=True)
def _no_pages_for_a_file(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fixtures that the tests of a file share have no page written either, unless the file has the marker ``pages``."""
    with nullcontext() if request.node.get_closest_marker("pages") else no_pages():
        yield


class NotWritten:
    """Where the pages of a report would be, in a test that has none written."""

    def __getattr__(self, name: str) -> Path:
        raise AssertionError("this test has no page written: give it the marker `pages`")


@pytest.fixture(autouse=True)
def _no_more_than_is_read(request: pytest.FixtureRequest) -> Iterator[None]:
    """Commands write their report in tests with the marker ``pages`` alone, and make estimates but in tests with the marker
    ``tables``: half of a small run's time goes there."""
    with ExitStack() as stack:
        if request.node.get_closest_marker("pages") is not None:
            stack.enter_context(_written_by(*_PAGES))
        if request.node.get_closest_marker("slow") is not None or {"stats", "validation"} & set(request.path.parts):
            stack.enter_context(pytest.MonkeyPatch.context()).setattr(slopes, "DRAWS", _DRAWS)
        if request.node.get_closest_marker("tables") is not None:
            stack.enter_context(tables_alone())
        yield


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds between two attempts, two looks at a job, and two at a server that does not answer, not half a second."""
    monkeypatch.setitem(WireClient.__init__.__kwdefaults__, "backoff_s", 0.001)
    monkeypatch.setattr(client, "_STARTING_S", (0.001, 0.001))
    monkeypatch.setattr(doctor_connection, "_LONGEST_WAIT_S", 0.001)
    monkeypatch.setattr(jobs_api, "_BACKOFF_S", 0.001)
    monkeypatch.setattr(jobs_api, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(batch, "_FIRST_LOOK_S", 0.01)


class CountingAnswerer:
    """A planted judge and drafter that counts how often each call id was asked."""

    def __init__(self, spec: PlantedSpec) -> None:
        self._inner = PlantedAnswerer(spec)
        self.asked: Counter[str] = Counter()

    def models(self) -> list[str]:
        return self._inner.models()

    async def answer(self, body: dict[str, Any], call_id: str | None) -> Any:
        self.asked[call_id or ""] += 1
        return await self._inner.answer(body, call_id)

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> Any:
        self.asked[call_id or ""] += 1
        return await self._inner.score(route, body, call_id)

    def fine_tuned(self, model: str, preferred: Sequence[str]) -> str | None:
        return self._inner.fine_tuned(model, preferred)


class Served:
    """A running local server, what it was asked (``asked``: how often each call was answered), and the faults that it played."""

    def __init__(self, server: LocalServer, answerer: CountingAnswerer) -> None:
        self.base_url, self.asked, self.app = server.base_url, answerer.asked, server.app
        self.faults: FaultCounter = server.app.state.faults


def asked_to_load(served: Served) -> list[dict[str, str]]:
    """What the server is asked to load from now on, by vLLM's route for adapters."""
    loaded: list[dict[str, str]] = []

    async def load(request: Request) -> Response:
        loaded.append(await request.json())
        return PlainTextResponse("loaded")

    served.app.router.routes.append(routing.Route("/v1/load_lora_adapter", load, methods=["POST"]))
    return loaded


_AT_HAND: dict[str, CountingAnswerer] = {}
"""base_url → who answers there, in this process and without HTTP."""
_post = Connection.post


async def _posted(line: Connection, call: Call) -> tuple[int, str]:
    """``Connection.post``, by HTTP or from the answerer at hand."""
    answerer = _AT_HAND.get(line.endpoint.base_url)
    if answerer is None:
        return await _post(line, call)
    body = parsed(json.dumps(dict(call.body)).encode(), call.route)
    asked = answerer.score(call.route, body, call.call_id) if call.route else answerer.answer(body, call.call_id)
    answer = await asked
    assert answer.status == 200, "this test reads what HTTP makes of an error: it is none for the marker `at_hand`"
    return 200, line.scrub(json.dumps(answer.body))


Connection.post = _posted  # type: ignore[method-assign]


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Served]]:
    """``serve(faults=…, position=…, …)`` starts a planted server for the test."""
    with serving(at_hand=request.node.get_closest_marker("at_hand") is not None) as start:
        yield start


@contextmanager
def serving(*, at_hand: bool = False) -> Iterator[Callable[..., Served]]:
    """What ``serve`` gives, for a fixture that several tests share. ``at_hand``: this process answers itself without HTTP,
    unless there are faults; for what is asked and made of the answers, and not for how it travels."""
    running: list[LocalServer] = []

    def start(faults: Faults | None = None, **spec: Any) -> Served:
        planted = {
            "position": 0.4,
            "length": 0.8,
            "draft": {"length_mean": 30, "length_sd": 0.5, "follow": 1.0},
            **spec,
        }
        answerer = CountingAnswerer(PlantedSpec.model_validate(planted))
        server = LocalServer(create_app(answerer, faults=faults))
        server.__enter__()
        running.append(server)
        if at_hand and faults is None:
            _AT_HAND[server.base_url] = answerer
        return Served(server, answerer)

    try:
        yield start
    finally:
        for server in running:
            _AT_HAND.pop(server.base_url, None)
        for server in running:
            server.close()


def small_experiment(base_url: str, **changes: Any) -> dict[str, Any]:
    """An experiment of a few hundred calls: 3 items, 3 candidates, 1 feedback step, 2 arms, 2 replicates."""
    raw: dict[str, Any] = {
        "name": "small",
        "items": "items.jsonl",
        "generations": 1,
        "replicates": 2,
        "candidates_per_item": 3,
        "endpoints": {
            "m": {"base_url": base_url, "model": "planted", "concurrency": 8, "max_tokens": 200, "attempts": 2}
        },
        "judge": {"endpoint": "m", "verdict": "logprob"},
        "policy": {"kind": "exemplar", "endpoint": "m", "exemplars": 2},
        "signal": {"kind": "best_of_n"},
        "panels": {"anchor": 4},
        "arms": {"judge": {}, "random": {"judge": {"kind": "random"}}},
    }
    return {**raw, **changes}


def write_experiment(folder: Path, raw: dict[str, Any], items: list[dict[str, Any]] | None = None) -> Path:
    """The experiment and its items as files; the experiment's path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(item) for item in (ITEMS if items is None else items)]
    (folder / "items.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return path


def tables(folder: Path) -> dict[str, bytes]:
    """Every table part by name: what must be equal byte for byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "tables").rglob("*.parquet"))}


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """These packages count as not installed."""
    find = importlib.util.find_spec

    def found(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in missing else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", found)
