"""The table of truths, and studies of many cells: rows that hold a planted truth beside the estimate of the project's code, and the table as text
and as files."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from judgeloop.errors import InvalidInput
from judgeloop.rundir import RunFolder

MULTIPLE = 4.0
"""Tolerance in Monte-Carlo standard errors, the same in a quick run."""


@dataclass(frozen=True, slots=True)
class Row:
    """A setting with its closed form. ``passed``: |estimate − theory| ≤ tolerance, or as the function that made it says.

    ``mc_error`` is the Monte-Carlo standard error of ``estimate``, 0 where nothing was drawn.
    """

    name: str
    setting: str
    theory: float
    estimate: float
    mc_error: float
    tolerance: float
    passed: bool
    note: str = ""


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


@dataclass(frozen=True, slots=True)
class SampleSizes:
    """The number of simulations of a row: fewer where ``quick``, times ``factor``; and the seed of its draws."""

    seed: int
    quick: bool = False
    factor: float = 1.0

    def size(self, full: int, quick: int, least: int = 8) -> int:
        """The number of simulations to run, ``least`` or more."""
        return max(least, round((quick if self.quick else full) * self.factor))


Check = Callable[[SampleSizes], list[Row]]
"""The function that computes the rows of one name; it names its random streams from ``SampleSizes.seed``."""


def compare(
    name: str, setting: str, theory: float, estimate: float, mc_error: float, *, tolerance: float | None = None,
    note: str = "",
) -> Row:  # fmt: skip
    """A row that passes within ``tolerance`` (default: four Monte-Carlo errors). An estimate that is not finite fails."""
    allowed = MULTIPLE * mc_error if tolerance is None else tolerance
    passed = bool(math.isfinite(estimate) and abs(estimate - theory) <= allowed)
    return Row(name, setting, float(theory), float(estimate), float(mc_error), float(allowed), passed, note)


def sampled(
    name: str, setting: str, theory: float, draws: ArrayLike, *, tolerance: float | None = None, note: str = ""
) -> Row:
    """A row whose estimate is the mean of independent ``draws``."""
    x = np.asarray(draws, dtype=np.float64)
    error = float(np.std(x, ddof=1)) / math.sqrt(len(x))
    return compare(name, setting, theory, float(np.mean(x)), error, tolerance=tolerance, note=note)


def spread(name: str, setting: str, theory: float, draws: ArrayLike, *, note: str = "") -> Row:
    """A row whose estimate is the standard deviation of independent ``draws``; its error from their fourth moment."""
    x = np.asarray(draws, dtype=np.float64)
    sd = float(np.std(x, ddof=1))
    kurtosis = float(np.mean((x - x.mean()) ** 4)) / sd**4
    return compare(name, setting, theory, sd, sd * math.sqrt(max(kurtosis - 1.0, 0.1) / (4.0 * len(x))), note=note)


def exact(name: str, setting: str, theory: float, estimate: float, tolerance: float, note: str = "") -> Row:
    """A row without a random draw."""
    return compare(name, setting, theory, estimate, 0.0, tolerance=tolerance, note=note)


def covered(name: str, setting: str, hits: ArrayLike, *, level: float = 0.95, note: str = "") -> Row:
    """Coverage of an interval (docs/method.md, "Coverage criterion"): |coverage − .95| ≤ .02 + 3√(.95·.05/R)."""
    share = float(np.mean(np.asarray(hits, dtype=np.float64)))
    count = len(np.asarray(hits))
    error = math.sqrt(level * (1.0 - level) / count)
    return compare(name, setting, level, share, error, tolerance=0.02 + 3.0 * error, note=note)


def rejected(name: str, setting: str, p_values: ArrayLike, *, tolerance: float | None = None, note: str = "") -> Row:
    """Type I error at 5 %: passes if it is at most .05 plus ``tolerance`` (default four Monte-Carlo errors); fewer
    rejections pass. A missing p (NaN) fails the row."""
    p = np.asarray(p_values, dtype=np.float64)
    error = math.sqrt(0.05 * 0.95 / max(1, len(p)))
    allowed = MULTIPLE * error if tolerance is None else tolerance
    if len(p) == 0 or not np.all(np.isfinite(p)):
        missing = "; ".join(part for part in (f"{int(np.sum(~np.isfinite(p)))} tests have no p", note) if part)
        return Row(name, setting, 0.05, math.nan, error, allowed, False, missing)
    rate = float(np.mean(p <= 0.05))
    return Row(name, setting, 0.05, rate, error, allowed, rate <= 0.05 + allowed, note)


def demand(row: Row, holds: bool, otherwise: str) -> Row:
    """The row, failed where a side condition does not hold, with ``otherwise`` in its note."""
    if holds:
        return row
    note = "; ".join(part for part in (otherwise, row.note) if part)
    return Row(row.name, row.setting, row.theory, row.estimate, row.mc_error, row.tolerance, False, note)


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


def write(
    rows: Sequence[Row], out: Path, *, coverage: pd.DataFrame | None = None, claims: pd.DataFrame | None = None
) -> list[Path]:
    """``validate.csv`` and ``validate.md`` in ``out``, with a study ``coverage.csv`` or ``claims.csv``; their paths.

    Raises StorageFailed if the folder cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(dataclasses.astuple(row) for row in rows)
    files = {"validate.csv": text.getvalue(), "validate.md": _markdown(rows, coverage, claims)}
    for name, study in (("coverage.csv", coverage), ("claims.csv", claims)):
        if study is not None:
            files[name] = study.to_csv(index=False, lineterminator="\n")
    return [RunFolder(out).write_text(name, content) for name, content in files.items()]


def _markdown(rows: Sequence[Row], coverage: pd.DataFrame | None, claims: pd.DataFrame | None) -> str:
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
        lines += ["## Coverage", "", f"{len(coverage) - len(missed)} of {len(coverage)} entries pass."]
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
    if claims is not None:
        lines += ["## Claims where they are false", "", *failures(claims), ""]
    return "\n".join(lines)


def failures(claims: pd.DataFrame) -> list[str]:
    """Lines on a claims study: how many of the claims that are false in their world are held, then each that is not."""
    false = claims[claims["false"] == "yes"]
    missed = false[~false["held"].astype(bool)].sort_values("rate", ascending=False, kind="stable")
    lines = [f"{len(false) - len(missed)} of {len(false)} entries are held.", ""]
    for entry in missed.to_dict("records"):
        sign = {1: "+", -1: "−"}.get(int(entry["sign"]), "")
        what = " ".join(str(part) for part in (entry["place"], entry["term"], entry["says"], sign) if part)
        rate, allowed = float(entry["rate"]), float(entry["allowed"])
        error = math.sqrt(rate * (1.0 - rate) / int(entry["replications"]))
        lines.append(f"- {what} in {entry['cell']}: {rate:.3f} ± {error:.3f}, allowed {allowed:.3f}")
    return lines


# Studies of many cells by simulation: a share of them, over processes, and on from where one was stopped.

DrawCell = Callable[[str, int, int], pd.DataFrame]
"""(cell, seed, replications) → the cell's rows, which have the column ``cell``; a function of a module, for other processes."""


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """That many processes for simulations, each a fresh interpreter, so that no open event loop or thread of this one is copied.

    In each, matrices are multiplied by one thread, unless the environment says otherwise: every core has its process, and threads
    that divide small matrices spend most of their time waiting for one another.
    """
    name = "OPENBLAS_NUM_THREADS"
    is_said = name in os.environ
    os.environ.setdefault(name, "1")
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield pool
    finally:
        if not is_said:
            os.environ.pop(name, None)


def study(
    known: Sequence[str],
    draw: DrawCell,
    seed: int,
    replications: int,
    *,
    cells: Sequence[str] | None = None,
    share: float | None = None,
    on_cell: Callable[[pd.DataFrame], None] | None = None,
    workers: int = 1,
    earlier: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The rows of all cells, in the order of ``known``.

    cells: names from ``known``; default all. share: of those, that share evenly spaced, the same ones for every seed.
    on_cell: called with each cell's rows as it ends. workers: processes. earlier: rows of an earlier study; its cells of the same
    seed and number of replications are taken over, not drawn again. Raises InvalidInput for an unknown cell, no replications, or a share outside (0, 1].
    """
    names = list(known if cells is None else cells)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInput(f"unknown cell {unknown[0]!r}; they look like {known[0]} and {known[-1]}")
    if replications < 1 or (share is not None and not 0.0 < share <= 1.0):
        raise InvalidInput("a study needs 1 replication or more, and a share in (0, 1]")
    if share is not None:
        count = max(1, round(share * len(names)))
        names = [names[int((k + 0.5) * len(names) / count)] for k in range(count)]
    rows_by_cell = _earlier_cells(earlier, names, seed, replications)
    missing = [name for name in dict.fromkeys(names) if name not in rows_by_cell]
    if workers > 1 and missing:
        with processes(workers) as pool:
            futures = {pool.submit(draw, name, seed, replications): name for name in missing}
            try:
                for future in as_completed(futures):
                    rows_by_cell[futures[future]] = future.result()
                    if on_cell:
                        on_cell(rows_by_cell[futures[future]])
            finally:
                # A cell that fails, or Ctrl-C, ends the study without drawing the remaining cells.
                pool.shutdown(wait=False, cancel_futures=True)
    else:
        for name in missing:
            rows_by_cell[name] = draw(name, seed, replications)
            if on_cell:
                on_cell(rows_by_cell[name])
    return pd.concat([rows_by_cell[name] for name in dict.fromkeys(names)], ignore_index=True)


def _earlier_cells(
    earlier: pd.DataFrame | None, names: Sequence[str], seed: int, replications: int
) -> dict[str, pd.DataFrame]:
    if earlier is None or earlier.empty:
        return {}
    same = (earlier["seed"] == seed) & (earlier["replications"] + earlier["undefined"] == replications)
    return {str(name): rows for name, rows in earlier[same].groupby("cell") if name in names}


_NUMBERS = ("truth", "rate", "mc_error", "tolerance")
"""The columns in which an empty cell is a missing number; elsewhere it is an empty text."""


def earlier_study(path: Path, columns: Sequence[str]) -> pd.DataFrame | None:
    """The study that was written to ``path``, whole or not; None where there is none.

    ``columns``: those that it must have. Raises InvalidInput where the file is not one of ours.
    """
    if not path.is_file():
        return None
    try:
        study = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in _NUMBERS})
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path}: cannot be read ({next(iter(str(error).splitlines()), '')}); give another --out"
        ) from None
    if list(study.columns) != list(columns):
        raise InvalidInput(f"{path}: not a study of this version; give another --out")
    return study
