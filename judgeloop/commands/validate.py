"""``judgeloop.validate``: planted truth through the same code that estimates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.validation import claims as claims_study
from judgeloop.validation import coverage_study, run
from judgeloop.validation.table import COLUMNS, Row, earlier_study, failures, table, write


@dataclass(frozen=True)
class Validation:
    """Planted truths against what the code estimates of them.

    ``rows``: a row a planted truth (theory, estimate, Monte-Carlo error, tolerance, passed); of the study of coverage, a row a
    cell and term (``rate`` beside the ``expected`` one); of the study of claims, a row a world and claim (``rate`` beside the
    ``allowed`` one where the claim is false). ``files``: what was written.
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
    claims: bool = False,
    replications: int | None = None,
    share: float | None = None,
    seed: int = 0,
    workers: int = 1,
    out: str | Path | None = None,
    watch: Callable[[str], None] = lambda _: None,
) -> Validation:
    """Planted truth through the same code that estimates: theory, estimate, Monte-Carlo error and pass, row by row.

    ``only``: rows or letters, as ["A1", "L"]; with a study, its cells. ``quick``: fewer draws, about a minute on two cores.
    ``coverage``: the study of how often intervals hold the truth instead; ``claims``: that of how often reports claim what is
    false, world by world. A study makes ``replications`` a cell (default 2,000 and 1,000), of a ``share`` of its cells (0 to
    1; default all). ``seed`` changes every draw. ``workers``: processes; a script that asks for more than one needs ``if
    __name__ == "__main__":`` around the call. ``out``: a folder for the tables; a study that was stopped goes on there.
    ``watch`` is called with the name of each row or cell that is done. Raises InvalidInput for an unknown row or cell, or both
    studies at once, StorageFailed where ``out`` cannot be written.
    """
    folder = Path(out) if out is not None else None

    def row_done(row: Row) -> None:
        watch(f"{row.name} {row.setting}")

    if coverage or claims:
        if coverage and claims:
            raise InvalidInput("one study at a time: --coverage or --claims")
        drawn = replications if replications is not None else 2_000 if coverage else 1_000
        return _study("coverage" if coverage else "claims", only, drawn, share, seed, workers, folder, watch)
    rows = run(only, quick, seed, on_row=row_done, workers=workers)
    files = write(rows, folder) if folder is not None else ()
    frame = pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=list(COLUMNS))
    return Validation(frame, all(row.passed for row in rows), tuple(files), table(rows))


def _study(
    name: Literal["coverage", "claims"],
    cells: Sequence[str] | None,
    replications: int,
    share: float | None,
    seed: int,
    workers: int,
    out: Path | None,
    watch: Callable[[str], None],
) -> Validation:
    """The study of that name; after each cell the table in ``out`` is written."""
    columns, study = {
        "coverage": (coverage_study.COLUMNS, coverage_study.coverage),
        "claims": (claims_study.COLUMNS, claims_study.claims_study),
    }[name]
    earlier = earlier_study(out / f"{name}.csv", columns) if out is not None else None
    cells_done = [] if earlier is None else [earlier]

    def written() -> Sequence[Path]:
        return write([], out, **{name: pd.concat(cells_done, ignore_index=True)}) if out is not None else ()

    def cell_done(cell: pd.DataFrame) -> None:
        watch(str(cell["cell"].iloc[0]))
        cells_done.append(cell)
        written()

    rows = study(
        seed, replications, cells=cells, share=share, workers=workers, on_cell=cell_done, earlier=earlier
    )  # fmt: skip
    passed = bool(rows["passed" if name == "coverage" else "held"].all())
    text = rows.to_string(index=False) if name == "coverage" else "\n".join(failures(rows))
    return Validation(rows, passed, tuple(written()), text)
