"""The cluster bootstrap of the content model next to plain numpy and statsmodels: 10,000 resamples at 10⁴ and 10⁵ judgments × 10 covariates.

``python benchmarks/bootstrap.py [--refits N] [--sizes 10000,100000]`` prints seconds and ratios of one run. The plain numpy form is the same
step without a look at any sample that cannot be solved: packed upper triangles, counts in float32, draws in int32. statsmodels
has no cluster bootstrap, so its time is that of refitting resampled rows: N refits are timed, and 10,000 are that mean
times 10,000 (the table says so). The fit and its cluster covariance are compared as well, and the numbers must agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import statsmodels.api as sm
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.kernels import cluster_covariance, logistic, one_step_bootstrap, sigmoid

T = TypeVar("T")
Floats = NDArray[np.float64]
COVARIATES, DRAWS, ROWS_AN_ITEM = 10, 10_000, 4


def timed(work: Callable[[], T], times: int = 1) -> tuple[T, float]:
    """What ``work`` returns, and the least of ``times`` durations in seconds."""
    best, found = float("inf"), None
    for _ in range(times):
        began = time.perf_counter()
        found = work()
        best = min(best, time.perf_counter() - began)
    assert found is not None
    return found, best


def world(rows: int) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """(x, z, item codes): judgments with ten covariates, four an item, that share the item's level."""
    rng = seeds.rng(0, "benchmark", "bootstrap", rows)
    items = np.repeat(np.arange(rows // ROWS_AN_ITEM), ROWS_AN_ITEM)
    x = rng.standard_normal((rows, COVARIATES))
    x[:, 0] = np.where(np.arange(rows) % 2 == 0, 1.0, -1.0)  # the order column
    b = np.linspace(0.4, -0.2, COVARIATES)
    level = 0.6 * rng.standard_normal(len(items) // ROWS_AN_ITEM)
    z = (rng.random(rows) < sigmoid(x @ b + level[items])).astype(np.float64)
    return x, z, items


def plain(x: Floats, z: Floats, b: Floats, p: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """(draws, p) one Newton step from ``b`` a sample of items, in as few lines as it takes; rows lie item by item."""
    j, k = np.triu_indices(x.shape[1])
    rows = np.hstack([x * (z - p)[:, None], x[:, j] * x[:, k] * (p * (1 - p))[:, None]])
    sums = rows.reshape(-1, ROWS_AN_ITEM, rows.shape[1]).sum(axis=1).astype(np.float32)
    count, result = len(sums), np.empty((draws, len(b)))
    size = max(1, (1 << 22) // count)
    for start in range(0, draws, size):
        part = min(size, draws - start)
        drawn = (
            rng.integers(count, size=(part, count), dtype=np.int32) + count * np.arange(part, dtype=np.int32)[:, None]
        )
        counts = np.bincount(drawn.ravel(), minlength=part * count).reshape(part, count).astype(np.float32)
        both = (counts @ sums).astype(np.float64)
        hessians = np.empty((part, len(b), len(b)))
        hessians[:, j, k] = hessians[:, k, j] = both[:, len(b) :]
        result[start : start + part] = b + np.linalg.solve(hessians, both[:, : len(b), None])[:, :, 0]
    return result


def compared(rows: int, refits: int) -> None:
    """Time both at one size and print a line each."""
    x, z, items = world(rows)
    fit, fit_s = timed(lambda: logistic(x, z), 3)
    covariance, covariance_s = timed(lambda: cluster_covariance(x, z, fit, items, "CR1"), 3)
    model = sm.GLM(z, x, family=sm.families.Binomial())
    oracle, oracle_s = timed(lambda: model.fit(cov_type="cluster", cov_kwds={"groups": items}, tol=1e-12), 3)
    same_b = float(np.max(np.abs(fit.coefficients - oracle.params)))
    # statsmodels multiplies by (n − 1)/(n − p) besides.
    factor = np.sqrt((rows - 1) / (rows - COVARIATES))
    same_se = float(np.max(np.abs(np.sqrt(np.diag(covariance)) * factor - oracle.bse)))

    # Turn and turn about: a machine that grows busy slows both.
    draws_s = plain_s = float("inf")
    for _ in range(3):
        draws, took = timed(lambda: one_step_bootstrap(x, z, fit, items, DRAWS, seeds.rng(0, "benchmark", "draws")))
        same, plain_took = timed(lambda: plain(x, z, fit.coefficients, fit.probabilities, DRAWS, seeds.rng(0, "benchmark", "draws")))  # fmt: skip
        draws_s, plain_s = min(draws_s, took), min(plain_s, plain_took)
    rng = seeds.rng(0, "benchmark", "refits")
    count = rows // ROWS_AN_ITEM

    def refit() -> list[Floats]:
        found = []
        for _ in range(refits):
            chosen = (rng.integers(count, size=count)[:, None] * ROWS_AN_ITEM + np.arange(ROWS_AN_ITEM)).ravel()
            found.append(sm.GLM(z[chosen], x[chosen], family=sm.families.Binomial()).fit().params)
        return found

    _, refits_s = timed(refit)
    whole = refits_s / refits * DRAWS
    spread = float(np.max(np.abs(draws.std(axis=0, ddof=1) / np.sqrt(np.diag(covariance)) - 1.0)))
    print(f"{rows:>7,} judgments, {count:,} items, {COVARIATES} covariates")
    print(
        f"  fit + cluster covariance   judgeloop {fit_s + covariance_s:8.3f} s   statsmodels {oracle_s:8.3f} s   ratio {oracle_s / (fit_s + covariance_s):6.1f}"
    )
    print(
        f"  {DRAWS:,} resamples           judgeloop {draws_s:8.2f} s   statsmodels {whole:8.0f} s   ratio {whole / draws_s:6.0f}   (statsmodels: {refits} refits timed)"
    )
    print(
        f"  {DRAWS:,} resamples           judgeloop {draws_s:8.2f} s   plain numpy {plain_s:8.2f} s   ratio {draws_s / plain_s:6.2f}"
    )
    print(
        f"  agreement: coefficients {same_b:.1e}, cluster errors {same_se:.1e}; bootstrap SD within {spread:.1%} of the cluster errors"
    )
    assert same_b < 1e-8
    assert same_se < 1e-8
    assert spread < 0.1
    assert np.max(np.abs(draws - same) / draws.std(axis=0)) < 1e-3


def main() -> None:
    """Parse the sizes and compare at each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refits", type=int, default=20)
    parser.add_argument("--sizes", default="10000,100000")
    chosen = parser.parse_args()
    for size in chosen.sizes.split(","):
        compared(int(size), chosen.refits)


if __name__ == "__main__":
    main()
