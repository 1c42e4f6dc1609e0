"""Planted truth through the project's own code: known worlds go in where data would, the public estimators come out,
and a table says whether theory and estimate agree (the method notes §4)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from judgeloop.errors import InvalidInput
from judgeloop.rundir import RunFolder
from judgeloop.validate import gaussian, loop_world, position, regression, regression_bias, selection
from judgeloop.validate.row import Check, Row, Scale

CHECKS: dict[str, Check] = {
    "A": gaussian.rows_a,
    "B": regression.rows_b,
    "C": selection.rows_c,
    "D": selection.rows_d,
    "E": position.rows_e,
    "F": regression_bias.rows_f,
    "G": regression_bias.rows_g,
    "L": loop_world.rows_l,
}
"""A letter's rows, by the letter of the method notes §4."""

_COLUMNS = ("name", "setting", "theory", "estimate", "mc_error", "tolerance", "passed", "note")


def run(
    only: Sequence[str] | None = None,
    *,
    quick: bool = False,
    seed: int = 0,
    on_rows: Callable[[list[Row]], None] = lambda _: None,
) -> list[Row]:
    """The rows of the letters in ``only`` (default all), each passed or not; ``seed`` changes every draw.

    ``on_rows`` is told a letter's rows as they come. Raises InvalidInput for a letter that is not in the table.
    """
    letters = list(CHECKS) if only is None else [name.strip().upper()[:1] for name in only]
    wanted = None if only is None else tuple(name.strip().upper() for name in only)
    unknown = [name for name, letter in zip(wanted or (), letters, strict=False) if letter not in CHECKS]
    if unknown:
        raise InvalidInput(f"validate: no row {unknown[0]}; rows start with {', '.join(CHECKS)}, as A1 or F")
    found: list[Row] = []
    for letter in dict.fromkeys(letters):
        rows = [
            row for row in CHECKS[letter](Scale(seed, quick)) if wanted is None or row.name.upper().startswith(wanted)
        ]
        on_rows(rows)
        found += rows
    return found


def table(rows: Sequence[Row]) -> str:
    """The rows as one text table, failures last counted."""
    lines = [f"{'row':<5} {'theory':>10} {'estimate':>10} {'± error':>9} {'tolerance':>9}  {'':<4} setting"]
    for row in rows:
        verdict = "pass" if row.passed else "FAIL"
        numbers = f"{row.theory:>10.4g} {row.estimate:>10.4g} {row.mc_error:>9.2g} {row.tolerance:>9.2g}"
        lines.append(f"{row.name:<5} {numbers}  {verdict} {row.setting}" + (f" ({row.note})" if row.note else ""))
    failed = sum(not row.passed for row in rows)
    return "\n".join([*lines, "", f"{len(rows) - failed} of {len(rows)} rows pass"])


def write(rows: Sequence[Row], out: Path) -> Path:
    """validate.csv in the folder ``out``."""
    text = io.StringIO()
    sheet = csv.writer(text, lineterminator="\n")
    sheet.writerow(_COLUMNS)
    sheet.writerows([getattr(row, name) for name in _COLUMNS] for row in rows)
    return RunFolder(out).write_text("validate.csv", text.getvalue())
