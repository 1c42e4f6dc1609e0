"""How long ``judgeloop.analyze`` takes in memory: the median seconds a call, on 60 pairs judged in both orders.

``python benchmarks/analyze_memory.py [--pairs N] [--calls N]``. Nothing is written. CPU time stands beside wall time: on a
busy machine it is the one to compare. With ``--texts`` the pairs have texts, which are measured at the first call and
remembered for the others, as in a simulation that judges the same texts again.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import pandas as pd

import judgeloop

WORDS = [
    "a",
    "the",
    "judge",
    "answer",
    "because",
    "however",
    "it",
    "reads",
    "well",
    "**very**",
    "and",
    "then",
    "of",
    "some",
    "more",
]


def verdicts(pairs: int, stream: random.Random) -> pd.DataFrame:
    """Verdicts of a judge with a taste for the first slot, and gold, lengths and models of each pair."""
    rows = []
    for item in range(pairs):
        gold = stream.choice("ab")
        lengths = stream.randint(50, 400), stream.randint(50, 400)
        for order in ("ab", "ba"):
            better = "first" if (gold == "a") == (order == "ab") else "second"
            rows.append({
                "item_id": f"i{item}", "judge": "judge", "order": order, "gold": gold, "len_a": lengths[0],
                "len_b": lengths[1], "model_a": "m", "model_b": "other",
                "verdict": "first" if stream.random() < 0.4 else better,
            })  # fmt: skip
    return pd.DataFrame(rows)


def texts(pairs: int, stream: random.Random) -> pd.DataFrame:
    """Two texts of 20 to 120 words an item."""
    lengths = iter(lambda: stream.randint(20, 120), 0)
    return pd.DataFrame([
        {"item_id": f"i{item}", "prompt": "?", **{f"text_{side}": " ".join(stream.choices(WORDS, k=next(lengths))) for side in "ab"}}
        for item in range(pairs)
    ])  # fmt: skip


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--texts", action="store_true")
    asked = parser.parse_args()
    stream = random.Random(0)
    shown = texts(asked.pairs, stream) if asked.texts else None
    drawn = [verdicts(asked.pairs, stream) for _ in range(asked.calls + 1)]
    if shown is not None:
        drawn = [frame.drop(columns=["len_a", "len_b"]) for frame in drawn]
    judgeloop.analyze(drawn.pop(), shown)  # loads what the others find loaded
    wall, cpu = [], []
    for frame in drawn:
        began = time.perf_counter(), time.process_time()
        judgeloop.analyze(frame, shown)
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    what = f"analyze, {asked.pairs} pairs in both orders{' with texts' if asked.texts else ''}, {asked.calls} calls"
    print(f"{what}: median {statistics.median(wall):.3f} s a call ({statistics.median(cpu):.3f} s CPU)")


if __name__ == "__main__":
    main()
