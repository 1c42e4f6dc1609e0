"""What recorded calls cost: an audit of 2,000 answered from its folder, and a loop of some 25,000 replayed.

``python benchmarks/replay.py [--calls N] [--replicates N]`` records both at a local server in another process (the loop at the planted one of
``judgeloop serve``), then answers each again from its recording in a process of its own. It prints, for each, wall seconds and CPU milliseconds a
call until the estimates begin, without imports, and CPU seconds of the whole process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soak import pairs, server


class UntilEstimates:
    """An observer that notes wall and CPU seconds when the estimates begin."""

    ended = (0.0, 0.0)

    def stage(self, text: str) -> None:
        if text == "estimates":
            self.ended = time.perf_counter(), time.process_time()

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def experiment(base_url: str, replicates: int) -> dict[str, Any]:
    """A loop of 25 items, 4 drafts, 2 arms and 4 feedback steps: some 4,100 calls a replicate."""
    endpoint = {"base_url": base_url, "model": "planted", "concurrency": 32, "max_tokens": 200}
    return {
        "name": "replay", "items": "items.jsonl", "generations": 4, "replicates": replicates, "candidates_per_item": 4,
        "endpoints": {"m": endpoint}, "judge": {"endpoint": "m", "verdict": "text"}, "panels": {"anchor": 40},
        "policy": {"kind": "exemplar", "endpoint": "m", "exemplars": 2}, "signal": {"kind": "best_of_n"},
        "arms": {"judge": {}, "accumulate": {"strategy": {"kind": "accumulate"}}},
    }  # fmt: skip


def audit(folder: Path, count: int, base_url: str, **options: Any) -> int:
    """Ask about so many presentations, or find them asked."""
    import judgeloop

    judgeloop.audit(
        pairs(count // 2), base_url=base_url, model="m", verdict="text", out=folder / "audit", report=False, **options
    )
    return count


def loop(folder: Path, *, replay: bool, **options: Any) -> int:
    """Run the experiment of a folder, or replay it; the calls."""
    import judgeloop

    source = folder / "run" if replay else None
    judgeloop.run(
        folder / "experiment.yaml", out=folder / ("again" if replay else "run"), replay=source, report=False, **options
    )
    return sum(path.read_bytes().count(b"\n") for path in (folder / "run" / "calls").rglob("*.jsonl"))


def again(folder: Path, what: str) -> None:
    """Answer from the recording, and print what it cost."""
    import judgeloop.commands.audit
    import judgeloop.commands.run  # noqa: F401  what both import is not counted

    observer: Any = UntilEstimates()
    began, used = time.perf_counter(), time.process_time()
    if what == "audit":
        count, url = (folder / "asked").read_text().split()
        calls = audit(folder, int(count), url, observer=observer)
    else:
        calls = loop(folder, replay=True, observer=observer)
    wall, cpu = observer.ended[0] - began, observer.ended[1] - used
    usage = resource.getrusage(resource.RUSAGE_SELF)
    whole = usage.ru_utime + usage.ru_stime
    print(
        f"{what} of {calls:,} recorded calls: {wall:.2f} s, {cpu / calls * 1e3:.2f} ms of CPU a call until the estimates; {whole:.1f} CPU s whole"
    )


def main() -> None:
    """Record and print; or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--replicates", type=int, default=6)
    parser.add_argument("--again", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.again:
        again(Path(asked.again[0]), asked.again[1])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server(quick=True) as url:
            audit(folder, asked.calls, url)
            (folder / "asked").write_text(f"{asked.calls} {url}")
        items = [{"item_id": f"i{n}", "prompt": f"Describe morning number {n}."} for n in range(25)]
        (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        with server(quick=False) as url:
            (folder / "experiment.yaml").write_text(json.dumps(experiment(url, asked.replicates)))  # JSON is YAML
            loop(folder, replay=False)
        for what in ("audit", "loop"):
            subprocess.run([sys.executable, __file__, "--again", name, what], check=True)


if __name__ == "__main__":
    main()
