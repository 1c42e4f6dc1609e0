"""The page of the coverage study, from docs/coverage.csv as `judgeloop validate --coverage --out` wrote it."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from judgeloop.validation.coverage_study import CELLS

TEXT = """# Do the intervals hold?

An interval is worth what its coverage is. `judgeloop validate --coverage` plants judges with known biases, draws samples,
passes them through the estimators that your data would pass through, and counts how often the 95 % interval holds the truth.
How often reports claim what is false is [another study](claims.md). This page is made from [coverage.csv](coverage.csv), which

```sh
judgeloop validate --coverage --replications 400 --seed 0 --out coverage
```

wrote (25 to 75 minutes on two cores, by their speed; it goes on where it was stopped). CI runs a fixed share of it.

**The grid**: position γ in −1, 0, 0.4, 1.5 × length β in 0, 0.3 log-odds a doubling × 30, 100, 400 items × 0 or 10 % unscored
× 0 or 20 % ties: 96 judges. With ties, the truth of a slope is that of the quasi-likelihood in which a tie is half a pick.
Terms corrected by two golds need 90 pairs with both: at 30 items they are `undefined` by rule and have no entry. Their fit is
dear, so that they are studied where every reply is scored: at 100 items with and without ties, at 400 without. With ties the
truth is the change of the chance to be picked, a tie half.
**An entry passes** if its coverage is within 0.02 and three Monte-Carlo errors of 0.95. A miss is named here and stays a miss.
"""


def page(path: Path) -> list[str]:
    """The page's lines."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missed = [row for row in rows if row["passed"] != "True"]
    lines = [TEXT, f"**{len(rows) - len(missed)} of {len(rows)} entries pass.**", ""]
    lines += [_miss(row) for row in missed] + ([""] if missed else [])
    lines += _to_run({row["cell"] for row in rows})
    grid = [row for row in rows if row["cell"].startswith("position=")]
    lines += ["## Coverage over the grid", ""]
    lines += ["| Term | Entries | Mean | Lowest | Highest | Misses |", "|---|---|---|---|---|---|"]
    lines += [_summary(term, some) for term, some in _by(grid, "term").items()]
    lines += ["", "By number of items, all judges together:", ""]
    lines += ["| Term | 30 items | 100 | 400 |", "|---|---|---|---|"]
    for term, some in _by(grid, "term").items():
        cells = [_range([row for row in some if f"items={size}," in row["cell"]]) for size in (30, 100, 400)]
        lines.append(f"| `{term}` | {' | '.join(cells)} |")
    lines += ["", *_undefined(grid)]
    lines += ["## Coverage over replicates", "", "What a run reports, by its number of replicates:", ""]
    lines += ["| Term | Replicates | Coverage |", "|---|---|---|"]
    for row in rows:
        if row["cell"].startswith("replicates="):
            lines.append(f"| `{row['term']}` | {row['cell'].partition('=')[2]} | {float(row['rate']):.4f} |")
    return [*lines, ""]


def _to_run(known: Collection[str]) -> list[str]:
    """What the file lacks: after an estimator has changed, its cells are drawn anew."""
    left = [name for name in CELLS if name not in known]
    if not left:
        return []
    grid = [name for name in left if name.startswith("position=")]
    parts = [f"{sum(f'items={size},' in name for name in grid)} judges at {size} items" for size in (30, 100, 400)]
    others = ", ".join(f"`{name}`" for name in left if name not in grid)
    return [
        f"**{len(CELLS) - len(left)} of {len(CELLS)} cells are drawn so far with this version's estimators.** To be drawn: "
        f"{', '.join(part for part in parts if not part.startswith('0 '))}{'; ' + others if others else ''}.",
        "",
    ]


def _by(rows: Sequence[Mapping[str, str]], key: str) -> dict[str, list[Mapping[str, str]]]:
    found: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


def _miss(row: Mapping[str, str]) -> str:
    low, high = (float(row["expected"]) + sign * float(row["tolerance"]) for sign in (-1.0, 1.0))
    return (
        f"- Missed: `{row['term']}` at {row['cell']}: {float(row['rate']):.4f} in {row['replications']} replications "
        f"(within {low:.4f} … {high:.4f}). {_why(row)}"
    )


def _why(row: Mapping[str, str]) -> str:
    if row["note"]:
        return row["note"]
    wide = float(row["rate"]) > float(row["expected"])
    return "Too wide: it claims less than it could." if wide else "Too narrow: it claims more than it may."


def _summary(term: str, rows: Sequence[Mapping[str, str]]) -> str:
    rates = [float(row["rate"]) for row in rows]
    missed = sum(row["passed"] != "True" for row in rows)
    mean = sum(rates) / len(rates)
    error = math.sqrt(mean * (1 - mean) / sum(int(row["replications"]) for row in rows))
    return f"| `{term}` | {len(rates)} | {mean:.4f} ± {error:.4f} | {min(rates):.4f} | {max(rates):.4f} | {missed} |"


def _range(rows: Sequence[Mapping[str, str]]) -> str:
    rates = [float(row["rate"]) for row in rows]
    return f"{min(rates):.3f} … {max(rates):.3f}" if rates else "–"


def _undefined(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    some = [(row, int(row["undefined"])) for row in rows if int(row["undefined"])]
    if some:
        worst, most = max(some, key=lambda one: one[1])
        total = int(worst["replications"]) + most
        yield (
            f"An estimate was `undefined` somewhere in {len(some)} entries, at most in {most} of {total} samples "
            f"(`{worst['term']}` at {worst['cell']}); coverage is that of the defined ones."
        )
        yield ""
