"""The table of truths: rows by letter, as text, and as files."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.rundir import RunFolder
from judgeloop.validation import judge, loop, refits, selection
from judgeloop.validation.row import Check, Row, SampleSizes
from judgeloop.validation.study import COLUMNS as STUDY_COLUMNS

CHECKS: dict[str, Check] = {
    "A1": refits.rows_a1, "A2": refits.rows_a2, "A3": refits.rows_a3, "A4": refits.rows_a4, "A5": refits.rows_a5,
    "A6": refits.rows_a6, "B1": refits.rows_b1, "B2": refits.rows_b2, "B3": refits.rows_b3,
    "C1": selection.rows_c1, "C2": selection.rows_c2, "C3": selection.rows_c3, "C4": selection.rows_c4,
    "D1": selection.rows_d1, "D2": selection.rows_d2, "D3": selection.rows_d3, "E1": judge.rows_e1,
    "E2": judge.rows_e2, "E3": judge.rows_e3, "F1": judge.rows_f1, "F2": judge.rows_f2,
    "G": judge.rows_g, "H": judge.rows_h,
    **{f"L{k + 1}": functools.partial(loop.rows_l, name) for k, name in enumerate(loop.VARIANTS)},
}  # fmt: skip
"""Rows by name: A Gaussian and categorical refits, B regression, C selection, D tilts, E position, F and G content slopes,
H over HTTP, L the whole loop."""

COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def run(
    only: Sequence[str] | None = None,
    quick: bool = False,
    seed: int = 0,
    on_row: Callable[[Row], None] | None = None,
    *,
    workers: int = 1,
    factor: float = 1.0,
) -> list[Row]:
    """The rows named in ``only`` (A1 … L5; a letter names all of its rows; default all), in the table's order.

    quick: fewer simulations, so larger Monte-Carlo errors; never a larger multiple of them. seed: changes every draw.
    on_row: called with each row as it ends. workers: processes. factor: scales all sizes, for trials.

    Raises InvalidInput for an unknown row.
    """
    names = _row_names(only)
    scale = SampleSizes(seed, quick, factor)
    rows_by_name: dict[str, list[Row]] = {}
    if workers > 1:
        # The slowest rows first, so that no worker is left with a long one at the end.
        order = sorted(names, key=lambda name: not name.startswith(("L", "E1", "F", "G")))
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(CHECKS[name], scale): name for name in order}
            for future in as_completed(futures):
                rows_by_name[futures[future]] = future.result()
                for row in rows_by_name[futures[future]]:
                    if on_row:
                        on_row(row)
    else:
        for name in names:
            rows_by_name[name] = CHECKS[name](scale)
            for row in rows_by_name[name]:
                if on_row:
                    on_row(row)
    return [row for name in names for row in rows_by_name[name]]


def _row_names(only: Sequence[str] | None) -> list[str]:
    if only is None:
        return list(CHECKS)
    prefixes = [prefix.strip().upper() for prefix in only if prefix.strip()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in CHECKS):
            raise InvalidInput(f"unknown row {prefix!r}; known: {', '.join(CHECKS)}")
    return [name for name in CHECKS if any(name.startswith(prefix) for prefix in prefixes)]


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, a line each, and a last line that counts those that fail."""
    header = ("row", "setting", "theory", "estimate", "mc_error", "tolerance", "pass")
    lines = [header, *(_cells(row) for row in rows)]
    widths = [max(len(line[j]) for line in lines) for j in range(len(header))]
    text = [
        "  ".join(cell.ljust(width) if j < 2 else cell.rjust(width) for j, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]  # fmt: skip
    failed = [row for row in rows if not row.passed]
    text += [f"FAIL {row.name} {row.setting}: {row.note or 'beyond its tolerance'}" for row in failed]
    return "\n".join([*text, f"{len(rows) - len(failed)} of {len(rows)} rows pass"])


def _cells(row: Row) -> tuple[str, ...]:
    numbers = (f"{value:.4g}" for value in (row.theory, row.estimate, row.mc_error, row.tolerance))
    return (row.name, row.setting, *numbers, "yes" if row.passed else "NO")


def write(rows: Sequence[Row], coverage: pd.DataFrame | None, out: Path) -> list[Path]:
    """``validate.csv``, ``validate.md`` and, with a coverage study, ``coverage.csv`` in ``out``; their paths.

    Raises StorageFailed if the folder cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(dataclasses.astuple(row) for row in rows)
    files = {"validate.csv": text.getvalue(), "validate.md": _markdown(rows, coverage)}
    if coverage is not None:
        files["coverage.csv"] = coverage.to_csv(index=False, lineterminator="\n")
    return [RunFolder(out).write_text(name, content) for name, content in files.items()]


def studied(out: Path) -> pd.DataFrame | None:
    """The coverage study that ``write`` left in ``out``, whole or not; None where there is none.

    Raises InvalidInput where the file is not one of ours.
    """
    path = out / "coverage.csv"
    if not path.is_file():
        return None
    try:
        study = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path}: cannot be read ({next(iter(str(error).splitlines()), '')}); give another --out"
        ) from None
    if list(study.columns) != list(STUDY_COLUMNS):
        raise InvalidInput(f"{path}: not a coverage study of this version; give another --out")
    study["note"] = study["note"].astype("object").where(study["note"].notna(), "")
    return study


def _markdown(rows: Sequence[Row], coverage: pd.DataFrame | None) -> str:
    lines = ["# Planted truth through the same code", ""]
    if rows:
        failed = sum(not row.passed for row in rows)
        lines += [f"{len(rows) - failed} of {len(rows)} rows pass.", ""]
        lines += [
            "| Row | Setting | Theory | Estimate | MC error | Tolerance | Pass | Note |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += ["| " + " | ".join((*_cells(row), row.note)).replace("‖", "\\‖") + " |" for row in rows]
        lines.append("")
    if coverage is not None:
        missed = coverage[~coverage["passed"].astype(bool)]
        lines += ["## Coverage and type I error", "", f"{len(coverage) - len(missed)} of {len(coverage)} entries pass."]
        lines += ["", "Misses:", ""] if len(missed) else []
        for entry in missed.itertuples():
            lines.append(
                f"- {entry.cell!s}, {entry.term!s}: {entry.rate:.4f} of {entry.replications!s} ({(entry.note or 'beyond tolerance')!s})"
            )
        lines += ["", "| Cell | Term | Truth | Expected | Rate | Tolerance | Replications | Undefined | Pass |"]
        lines.append("|---|---|---|---|---|---|---|---|---|")
        for entry in coverage.itertuples():
            numbers = f"{entry.truth:.4f} | {entry.expected:.2f} | {entry.rate:.4f} | {entry.tolerance:.4f}"
            passed = "yes" if entry.passed else "NO"
            lines.append(
                f"| {entry.cell} | {entry.term} | {numbers} | {entry.replications} | {entry.undefined} | {passed} |"
            )
        lines.append("")
    return "\n".join(lines)
