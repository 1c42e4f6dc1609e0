"""Studies of many cells by simulation: a share of them, over processes, and on from where one was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from judgeloop.errors import InvalidInput

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
