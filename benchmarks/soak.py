"""A long audit: calls a second, memory and bytes on disk as judgments are made, then what estimates and report take.

    python benchmarks/soak.py [N] [--quick] [--in-flight K] [--keep FOLDER]

N judgments (default 1,000,000; one pair an item, both orders) of the planted server of ``judgeloop serve`` in another process. With
``--quick`` a bare server in its place, which prefers the first slot as often: the planted one takes several times the client's CPU. A line at each
tenth: calls a second since the last one, resident memory of this process, bytes of the folder a judgment. Then seconds of
estimates and report, the largest memory by then, and the report's bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from calls import ANSWER, HEAD, Answering, serve

import judgeloop
from judgeloop import seeds

WORDS = [
    "the",
    "river",
    "past",
    "old",
    "stone",
    "houses",
    "where",
    "people",
    "sell",
    "bread",
    "and",
    "fruit",
    "while",
    "children",
    "play",
    "near",
    "**cold**",
    "water",
]
PLANTED = "position: 0.4\nlength: 0.3\n"


class Coin(Answering):
    """One connection of the quick server: the first slot with chance .6, by the request's bytes."""

    def answered(self, request: bytes) -> bytes:
        return HEAD + (ANSWER if zlib.crc32(request) % 10 < 6 else ANSWER.replace(b"[[A]]", b"[[B]]"))


def pairs(count: int) -> pd.DataFrame:
    """So many pairs, each of an item of its own, of texts of 20 to 60 words, with exact gold."""
    stream = seeds.rng(0, "soak", count)
    drawn, lengths = stream.integers(0, len(WORDS), (count, 2, 60)), stream.integers(20, 61, (count, 2))
    texts = [[f"{' '.join(WORDS[word] for word in drawn[n, side, : lengths[n, side]])} {n}." for n in range(count)] for side in (0, 1)]  # fmt: skip
    return pd.DataFrame({
        "item_id": [f"i{n:07d}" for n in range(count)], "prompt": [f"Describe morning number {n}." for n in range(count)],
        "text_a": texts[0], "text_b": texts[1], "gold": ["ab"[bit] for bit in stream.integers(0, 2, count)],
    })  # fmt: skip


def resident_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Tenths:
    """An observer that prints a line at each tenth of the judgments, and notes when stages begin."""

    def __init__(self, count: int) -> None:
        self.count, self.done, self.folder = count, 0, Path()
        self.stages: dict[str, float] = {}
        self.last = (0, time.perf_counter(), time.process_time())

    def start(self, _: str, folder: Path, **__: object) -> None:
        self.folder = folder

    def stage(self, text: str) -> None:
        self.stages.setdefault(text, time.perf_counter())
        if text == "asking":
            self.line()

    def judged(self, _: str, judgments: int, unscored: int) -> None:
        assert not unscored
        self.done += judgments
        if self.done * 10 // self.count > (self.done - judgments) * 10 // self.count:
            self.line()

    def line(self) -> None:
        now, used, (before, since, used_before) = time.perf_counter(), time.process_time(), self.last
        rate, cpu = (self.done - before) / (now - since), (used - used_before) / max(1, self.done - before)
        size = bytes_in(self.folder) / self.done if self.done else 0
        print(f"| {self.done:,} | {rate if before or self.done else 0:,.0f} | {cpu * 1e3 if self.done else 0:.2f} | {resident_mb():,.0f} | {size:,.0f} |", flush=True)  # fmt: skip
        self.last = (self.done, time.perf_counter(), time.process_time())

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


@contextlib.contextmanager
def server(quick: bool) -> Iterator[str]:
    """The base URL of a server in another process."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "planted.yaml"
        spec.write_text(PLANTED)
        planted = [sys.executable, "-m", "judgeloop", "serve", "--planted", str(spec), "--port", "0", "--quiet"]
        process = subprocess.Popen([sys.executable, __file__, "--serve"] if quick else planted, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        try:
            yield f"http://127.0.0.1:{said}/v1" if quick else said
        finally:
            process.terminate()
            process.wait()


def soak(count: int, in_flight: int, quick: bool, out: Path) -> None:
    """Run the audit and print."""
    frame, tenths = pairs(count // 2), Tenths(count)
    options: dict[str, Any] = {"verdict": "text", "concurrency": in_flight, "observer": tenths, "report": False}
    print(
        "| judgments | calls/s | client CPU ms a call | resident MB | bytes on disk a judgment |\n|---|---|---|---|---|"
    )
    with server(quick) as base_url:
        audit = judgeloop.audit(frame, base_url=base_url, model="m" if quick else "planted", out=out, **options)
    ended = time.perf_counter()
    print(f"estimates: {ended - tenths.stages['estimates']:.1f} s after the last call, {len(audit.estimates)} rows; largest memory {peak_mb():,.0f} MB")  # fmt: skip
    del audit
    judgeloop.open(out).write_report()
    print(f"report: {time.perf_counter() - ended:.1f} s, {(out / 'report.html').stat().st_size / 2**20:.1f} MB; largest memory {peak_mb():,.0f} MB")  # fmt: skip


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Soak; or be the quick server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--keep", type=Path, help="a folder for the audit, which stays")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve(0.0, "", Coin))
        return
    with tempfile.TemporaryDirectory() as folder:
        soak(asked.count, asked.in_flight, asked.quick, asked.keep or Path(folder) / "audit")


if __name__ == "__main__":
    main()
