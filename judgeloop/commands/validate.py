"""``judgeloop.validate``: planted truth through the same code that estimates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from judgeloop.validation import run
from judgeloop.validation.coverage_study import coverage as study_coverage
from judgeloop.validation.coverage_study import earlier_study
from judgeloop.validation.table import COLUMNS, Row, table, write


@dataclass(frozen=True)
class Validation:
    """Planted truths against what the code estimates of them.

    ``rows``: a row a planted truth (theory, estimate, Monte-Carlo error, tolerance, passed) or, of the study of coverage, a
    row a cell and term (``rate`` beside the ``expected`` one). ``files``: what was written.
    """

    rows: pd.DataFrame
    passed: bool
    files: tuple[Path, ...] = ()
    text: str = dataclasses.field(default="", repr=False)

    def summary(self) -> str:
        """The rows as aligned text."""
        return self.text


def validate(
    only: Sequence[str] | None = None,
    *,
    quick: bool = False,
    coverage: bool = False,
    replications: int = 2_000,
    share: float | None = None,
    seed: int = 0,
    workers: int = 1,
    out: str | Path | None = None,
    watch: Callable[[str], None] = lambda _: None,
) -> Validation:
    """Planted truth through the same code that estimates: theory, estimate, Monte-Carlo error and pass, row by row.

    ``only``: rows or letters, as ["A1", "L"]; with ``coverage``, cells. ``quick``: fewer draws, about a minute on two cores.
    ``coverage``: the study of intervals' coverage and tests' type I error instead, ``replications`` a cell, of a ``share``
    of the cells (0 to 1; default all). ``seed`` changes every draw. ``workers``: processes; a script that asks for more than
    one needs ``if __name__ == "__main__":`` around the call. ``out``: a folder for the tables; a study of coverage that was
    stopped goes on there. ``watch`` is called with the name of each row or cell that is done. Raises InvalidInput for an unknown row
    or cell, StorageFailed where ``out`` cannot be written.
    """
    folder = Path(out) if out is not None else None
    if coverage:
        return _coverage(only, replications, share, seed, workers, folder, watch)

    def row_done(row: Row) -> None:
        watch(f"{row.name} {row.setting}")

    rows = run(only, quick, seed, on_row=row_done, workers=workers)
    files = write(rows, None, folder) if folder is not None else ()
    frame = pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=list(COLUMNS))
    return Validation(frame, all(row.passed for row in rows), tuple(files), table(rows))


def _coverage(
    cells: Sequence[str] | None,
    replications: int,
    share: float | None,
    seed: int,
    workers: int,
    out: Path | None,
    watch: Callable[[str], None],
) -> Validation:
    """The study of coverage; after each cell the table in ``out`` is written."""
    earlier = earlier_study(out) if out is not None else None
    cells_done = [] if earlier is None else [earlier]

    def cell_done(cell: pd.DataFrame) -> None:
        watch(str(cell["cell"].iloc[0]))
        cells_done.append(cell)
        if out is not None:
            write([], pd.concat(cells_done, ignore_index=True), out)

    rows = study_coverage(
        seed, replications, cells=cells, share=share, workers=workers, on_cell=cell_done, earlier=earlier
    )  # fmt: skip
    files = write([], pd.concat(cells_done, ignore_index=True), out) if out is not None else ()
    return Validation(rows, bool(rows["passed"].all()), tuple(files), rows.to_string(index=False))
