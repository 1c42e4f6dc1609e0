"""How fast the features of a text are read: texts of 1.5 kB a CPU second, beside the slow form that the tests check it by and beside a
bare CommonMark parse, in one run.

    python benchmarks/features.py [FILE …]

The texts are the recorded answers under fixtures/formats, or every string of 200 characters or more in the JSON Lines or JSON
files that are named.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

import slow_features  # noqa: E402
from judgeloop.text.features import measure  # noqa: E402

SIZE, TURNS = 1_500, 7


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) >= 200:
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def texts(paths: list[Path]) -> list[str]:
    found: dict[str, None] = {}
    for path in paths:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        for line in lines:
            found.update(dict.fromkeys(strings(json.loads(line))))
    return list(found)


def main() -> None:
    formats = ROOT / "fixtures/formats"
    measured = texts([Path(name) for name in sys.argv[1:]] or [*formats.rglob("*.jsonl"), *formats.rglob("*.json")])
    total = sum(map(len, measured)) / SIZE
    ways: dict[str, Callable[[str], object]] = {
        "judgeloop": measure, "slow form": slow_features.measure, "CommonMark parse of the slow form": slow_features._parser().parse
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):  # the first turn compiles the patterns
        for name, way in ways.items():
            began = time.process_time()
            for text in measured:
                way(text)
            if turn:
                seconds[name].append(time.process_time() - began)
    print(f"{len(measured)} texts of {sum(map(len, measured)) / len(measured):.0f} characters; per {SIZE} characters:")
    least = min(seconds["judgeloop"])
    for name, taken in seconds.items():
        print(f"{name:24} {total / min(taken):6.0f} a CPU second   {min(taken) / least:5.2f} times judgeloop's time")


if __name__ == "__main__":
    main()
