"""The coverage study: cells of the grid, runs by number of replicates, and worlds without bias, each over replications.

A cell that misses is a defect of the estimator or of its claimed range; the study lists it as a miss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import numpy as np
import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.seeds import rng
from judgeloop.validation.coverage_cells import GRID, Outcome, differing_terms, replication, truths
from judgeloop.validation.type_one import REPLICATES, WORLDS, run_replication

COLUMNS = (
    "study", "cell", "term", "truth", "expected", "rate", "mc_error", "tolerance", "replications", "undefined", "passed",
    "note", "seed",
)  # fmt: skip

CELLS = (
    *(f"type1:{name}" for name in WORLDS),
    *(f"replicates={count}" for count in REPLICATES),
    *(cell.name for cell in GRID),
)
"""Every cell's name, in the study's order."""


def coverage(
    seed: int = 0,
    replications: int = 2_000,
    *,
    cells: Sequence[str] | None = None,
    share: float | None = None,
    on_cell: Callable[[pd.DataFrame], None] | None = None,
    workers: int = 1,
    known: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A row a cell and term (COLUMNS). ``rate`` is coverage (expected .95) or type I error (expected .05).

    cells: names from CELLS; default all. share: of those, that share evenly spaced, the same ones for every seed.
    on_cell: called with each cell's rows as it ends. workers: processes. known: rows of an earlier study; its cells of the same
    seed and number of replications are taken over, not drawn again.

    Passes: coverage by docs/method.md, "Coverage criterion", |rate − .95| ≤ .02 + 3√(.95·.05/R); type I error ≤ .06
    plus two Monte-Carlo errors. R counts the replications in which the estimate is defined; none fails. Raises
    InvalidInput for an unknown cell, no replications, or a share outside (0, 1].
    """
    names = list(CELLS if cells is None else cells)
    unknown = [name for name in names if name not in CELLS]
    if unknown:
        raise InvalidInput(f"unknown coverage cell {unknown[0]!r}; they look like {CELLS[0]} and {CELLS[-1]}")
    if replications < 1 or (share is not None and not 0.0 < share <= 1.0):
        raise InvalidInput("a coverage study needs 1 replication or more, and a share in (0, 1]")
    if share is not None:
        count = max(1, round(share * len(names)))
        names = [names[int((k + 0.5) * len(names) / count)] for k in range(count)]
    rows_by_cell = _earlier_cells(known, names, seed, replications)
    missing = [name for name in dict.fromkeys(names) if name not in rows_by_cell]
    if workers > 1 and missing:
        # A fresh interpreter, so that no open event loop or thread of this one is copied.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(study_cell, name, seed, replications): name for name in missing}
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
            rows_by_cell[name] = study_cell(name, seed, replications)
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


def study_cell(name: str, seed: int, replications: int) -> pd.DataFrame:
    """The rows of one cell (COLUMNS), a row a term."""
    kind, _, world = name.partition(":")
    if kind == "type1":
        return _type_one_rows(name, world, seed, replications)
    if name.startswith("replicates="):
        size = int(name.partition("=")[2])
        return _coverage_rows(name, [run_replication(size, seed, k) for k in range(replications)], frozenset(), seed)
    cell = next(cell for cell in GRID if cell.name == name)
    truth = truths(cell)
    samples = [replication(cell, truth, seed, k) for k in range(replications)]
    return _coverage_rows(name, samples, differing_terms(cell, truth, seed), seed)


def _coverage_rows(name: str, samples: list[list[Outcome]], differ: frozenset[str], seed: int) -> pd.DataFrame:
    rows = []
    for j, (term, truth, _) in enumerate(samples[0]):
        hits = [sample[j][2] for sample in samples]
        defined = [hit for hit in hits if hit is not None]
        rate = float(np.mean(defined)) if defined else math.nan
        error = math.sqrt(0.95 * 0.05 / len(defined)) if defined else math.nan
        tolerance = 0.02 + 3.0 * error
        passed = bool(defined) and abs(rate - 0.95) <= tolerance and term not in differ
        note = "the tables report another interval" if term in differ else ""
        rows.append((
            "coverage", name, term, truth, 0.95, rate, error, tolerance, len(defined), len(hits) - len(defined), passed,
            note if defined else "undefined in every replication", seed,
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _type_one_rows(name: str, world: str, seed: int, replications: int) -> pd.DataFrame:
    samples = [WORLDS[world](rng(seed, "validate", "type I", world, k)) for k in range(replications)]
    rows = []
    for term in samples[0]:
        p = [sample[term] for sample in samples]
        p_values = np.array([value for value in p if value is not None], dtype=np.float64)
        rate = float(np.mean(p_values <= 0.05)) if len(p_values) else math.nan
        error = math.sqrt(0.05 * 0.95 / len(p_values)) if len(p_values) else math.nan
        tolerance = 0.01 + 2.0 * error
        note = "" if len(p_values) else "undefined in every replication"
        rows.append((
            "type_one", name, term, 0.0, 0.05, rate, error, tolerance, len(p_values), len(p) - len(p_values),
            bool(len(p_values)) and rate <= 0.05 + tolerance, note, seed,
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))
