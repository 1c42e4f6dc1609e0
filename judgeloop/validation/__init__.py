"""Planted truth through the project's own code: closed forms (docs/method.md, "Analytic truths"), coverage of intervals, and
how often reports claim what is false."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed

from judgeloop.errors import InvalidInput
from judgeloop.validation import judge, loop, refits, selection
from judgeloop.validation.claims import claims_study
from judgeloop.validation.coverage_study import CELLS, coverage
from judgeloop.validation.table import Check, Row, SampleSizes, earlier_study, processes, table, write

__all__ = ["CELLS", "CHECKS", "Row", "claims_study", "coverage", "earlier_study", "run", "table", "write"]

CHECKS: dict[str, Check] = {
    "A1": refits.rows_a1, "A2": refits.rows_a2, "A3": refits.rows_a3, "A4": refits.rows_a4, "A5": refits.rows_a5,
    "A6": refits.rows_a6, "B1": refits.rows_b1, "B2": refits.rows_b2, "B3": refits.rows_b3,
    "C1": selection.rows_c1, "C2": selection.rows_c2, "C3": selection.rows_c3, "C4": selection.rows_c4,
    "C5": selection.rows_c5,
    "D1": selection.rows_d1, "D2": selection.rows_d2, "D3": selection.rows_d3, "E1": judge.rows_e1,
    "E2": judge.rows_e2, "E3": judge.rows_e3, "F1": judge.rows_f1, "F2": judge.rows_f2,
    "G": judge.rows_g, "H": judge.rows_h,
    **{f"L{k + 1}": functools.partial(loop.rows_l, name) for k, name in enumerate(loop.VARIANTS)},
}  # fmt: skip
"""Rows by name: A Gaussian and categorical refits, B regression, C selection, D tilts, E position, F and G content slopes,
H over HTTP, L the whole loop."""


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
        order = sorted(names, key=lambda name: (not name.startswith("L"), not name.startswith(("F", "G"))))
        with processes(workers) as pool:
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
