"""Does reading the features of a hostile text take time in proportion to its length?

For each unit that a candidate may repeat at will (`**`, `[`, `<!--`, a joiner of emoji …), the time for eight times the text
over the time for the text: 8 if linear, 64 if quadratic. Prints the worst; exit 1 if one is 24 or more in three tries.

    python benchmarks/hostile_text.py
"""

from __future__ import annotations

import gc
import sys
import time

from rich.progress import track

from judgeloop.text.features import measure

SIZE = 20_000
"""Characters of the shorter text."""
LIMIT = 24.0
TRIES = 3

UNITS = [
    "*", "** ", "*a ", "a**", "***a* ", "**a ", "**a** ", "_", "_a", "a_", "*_", "[", "![", "](", "[a](b)", "[a]: b\n",
    ">", "> ", "> a\n", "> > > > x\n", "> - ", "`", "`a` ", "#", "# \n", "- ", "- a\n", "1. > - ", "(", "<", "<!--",
    "<a ", "&", "&#x", "\\", "```\n", "~~~\n", "a\n=\n", "\t", "\n", " ", "\0", "\ud800", "\u202e", "a\u0301", "\u0301",
    "😀", "👩\u200d", "❤\u200d", "🇩", "漢", "1,", "a'", "to some ", "in\n \n", "http://", "-", "—", "!", "|a|b|\n|-|-|\n",
]  # fmt: skip


def seconds(text: str) -> float:
    """CPU seconds of one reading."""
    gc.collect()
    start = time.process_time()
    measure(text)
    return time.process_time() - start


def growth(short: str, long: str) -> float:
    """The ratio, the best of some tries: another process may have had the machine."""
    best = float("inf")
    for _ in range(TRIES):
        best = min(best, seconds(long) / max(seconds(short), 1e-3))
        if best < LIMIT:
            break
    return best


def texts() -> dict[str, tuple[str, str]]:
    """By name: a text and one eight times as long."""
    found = {ascii(unit): tuple(unit * (size // len(unit)) for size in (SIZE, 8 * SIZE)) for unit in UNITS}
    runs = {
        "ever deeper quotes": lambda size: "".join(">" * n + "\n" for n in range(1, int((2 * size) ** 0.5))),
        "ever longer runs of backticks": lambda size: "".join("`" * n + " " for n in range(1, int((2 * size) ** 0.5))),
    }
    return found | {name: (make(SIZE), make(8 * SIZE)) for name, make in runs.items()}


def main() -> int:
    """Measure, print the five worst, and say by the exit code whether one is more than linear."""
    ratios = {name: growth(*pair) for name, pair in track(texts().items(), "hostile texts", transient=True)}
    for name, ratio in sorted(ratios.items(), key=lambda one: -one[1])[:5]:
        print(f"{ratio:6.1f}  {name}")
    worst = max(ratios.values())
    print(f"{len(ratios)} texts; eight times the text takes at most {worst:.1f} times as long (limit {LIMIT:g})")
    return int(worst >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
