"""How long judgeloop takes to be there: user CPU seconds above a bare interpreter's, the best of 7 fresh processes each.

``python benchmarks/start_up.py [--runs N]``. CPU time, so that another program on the machine changes little. Exit 1 where one takes
longer than its limit; ``--no-limits`` prints alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

CODE = {
    "import judgeloop": ("import judgeloop", 0.15),
    "judgeloop.audit is there": ("import judgeloop; judgeloop.audit", 0.9),
    "judgeloop --help": (
        "import sys; from judgeloop.cli import main; sys.argv = ['judgeloop', '--help']; main()",
        0.15,
    ),
}


def seconds(code: str, runs: int) -> float:
    """User CPU seconds of the fastest of so many processes that run the code, as compiled by the first where nothing forbids it."""
    best = float("inf")
    compiling = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(runs):
        before = os.times().children_user
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=compiling)
        best = min(best, os.times().children_user - before)
    return best


def main() -> None:
    """Print the three, each with its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--no-limits", action="store_true")
    asked = parser.parse_args()
    bare = seconds("pass", asked.runs)
    slow = False
    for name, (code, limit) in CODE.items():
        took = seconds(code, asked.runs) - bare
        slow |= took > limit
        print(f"{name}: {took:.2f} s (limit {limit:.2f} s)")
    sys.exit(1 if slow and not asked.no_limits else 0)


if __name__ == "__main__":
    main()
