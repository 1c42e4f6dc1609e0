"""What the tests of batches share: the batches of a few calls without estimates, and an output as vllm run-batch writes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

import judgeloop
from audit_pairs import pairs
from conftest import CountingAnswerer, Served
from judgeloop.commands.batch import AuditBatches, Jobs
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Call, Client, split_custom_id
from judgeloop.rundir import RunFolder
from judgeloop.serving.faults import Faults, Rule
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.client import Ledger

SPEC = {"position": 0.4, "draft": {"length_mean": 20, "length_sd": 0.5}}


class Heard:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Case:
    """A server with a planted drafter, a run folder, and an asking of ``calls`` drafts and one that hangs on their answers."""

    def __init__(self, base_url: str, asked: CountingAnswerer, folder: Path, calls: int) -> None:
        self.base_url, self.answerer, self.folder, self.calls = base_url, asked, RunFolder(folder), calls
        self.attempts = 2
        self.heard = Heard()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.model_validate({"base_url": self.base_url, "model": "planted", "attempts": self.attempts})

    @staticmethod
    def call(name: str, text: str = "Say something.") -> Call:
        return Call(f"audit/edit/{name}", "m", {"model": "planted", "messages": [{"role": "user", "content": text}]})

    async def _sweep(self, client: Client) -> None:
        first = await asyncio.gather(*(client.ask(self.call(f"c{n}")) for n in range(self.calls)))
        if all(reply.text for reply in first):
            await client.ask(self.call("last", str(first[0].text)))

    def run(self, *collect: Path, limits: Ledger | None = None) -> None:
        """``--batch``, or ``--collect`` of files."""
        with self.folder.claim("sha256:x"):
            self.folder.write_json("environment.json", {"experiment_hash": "sha256:x"})
            cassette = Cassette(self.folder.path, writable=True)
            try:
                batches = AuditBatches(
                    self.folder, {"m": self.endpoint}, cassette, limits or Ledger(), self._sweep, self.heard
                )
                asyncio.run(batches.collect(collect) if collect else batches.send())
            finally:
                cassette.close()

    def recorded(self) -> dict[str, Exchange]:
        return {exchange.call: exchange for exchange in Cassette(self.folder.path, writable=False).exchanges()}

    def jobs(self) -> Jobs:
        return Jobs(self.folder)

    @property
    def most_asked(self) -> int:
        return max(self.answerer.asked.values())


@contextmanager
def case(folder: Path, *rules: Rule, calls: int = 4, batches: bool = True) -> Iterator[Case]:
    answerer = CountingAnswerer(PlantedSpec.model_validate(SPEC))
    with LocalServer(create_app(answerer, faults=Faults(rules=rules), batches=batches)) as server:
        yield Case(server.base_url, answerer, folder, calls)


def vllm_output(requests: Path, output: Path, spec: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """What ``vllm run-batch -i requests -o output`` would write, with a planted judge for a model; the rows too."""
    answerer, rows = PlantedAnswerer(PlantedSpec.model_validate(spec or SPEC)), []
    for line in requests.read_text(encoding="utf-8").splitlines():
        request = json.loads(line)
        body = dict(asyncio.run(answerer.answer(request["body"], split_custom_id(request["custom_id"])[0])).body)
        http_response = {"status_code": 200, "request_id": "vllm-batch-1", "body": body}
        rows.append({"id": "vllm-1", "custom_id": request["custom_id"], "response": http_response, "error": None})
    write_lines(output, rows)
    return rows


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def audited(served: Served, out: Path, source: Any = None, **changes: Any) -> judgeloop.Audit:
    source = pd.DataFrame(pairs(4)) if source is None else source
    return judgeloop.audit(source, base_url=served.base_url, out=out, **{"model": "planted", **changes})


def exchanges(folder: Path) -> set[tuple[str, str, int, str, int, str]]:
    return {
        (exchange.call, exchange.key, exchange.status, json.dumps(exchange.response), exchange.attempts, exchange.fault)
        for exchange in Cassette(folder, writable=False).exchanges()
    }
