"""Tests that several slopes are 0 at once: the cluster score test, and the Wald test as a companion.

The Wald test of ten features rejects a true null two to three times too often at 50 to 200 items (its sandwich is taken
where the fit has chased the noise), and dies out where picks nearly separate. The score test needs only the fit without
the tested columns, where both are harmless (Boos 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from judgeloop.kernels import firth, logistic
from judgeloop.stats.inference import Undefined
from judgeloop.stats.judge.slopes import Slopes
from judgeloop.stats.reference import f_tail

Floats = NDArray[np.float64]

FEWEST_SPARE = 10
"""A joint test needs that many more items than tested slopes."""
_TOO_FEW = "too few items for a joint test of that many features"


@dataclass(frozen=True, slots=True)
class JointTest:
    """F on ``q`` and ``df`` degrees of freedom, and its p."""

    f: float
    q: int
    df: int
    p_value: float


def joint_score(slopes: Slopes, tested: Sequence[str], at: Floats | None = None) -> JointTest | Undefined:
    """The score test that the ``tested`` coefficients are all 0 (or ``at`` (q,)), the other columns of the fit kept."""
    t = [slopes.names.index(name) for name in tested]
    kept = [j for j in range(len(slopes.names)) if j not in t]
    if not t:
        return Undefined("no feature differs between the texts")
    b = np.zeros(len(slopes.names))
    b[t] = 0.0 if at is None else at
    known = slopes.x @ b
    fit = logistic(slopes.x[:, kept], slopes.z, offset=known)
    if not fit.converged:
        # What is kept separates (a judge that follows gold alone, say): its penalised fit; `at` is then 0.
        fit = firth(slopes.x[:, kept], slopes.z)
        if not fit.converged or np.any(known != 0):
            return Undefined("the picks separate perfectly on gold and order")
    b[kept] = fit.coefficients
    p = fit.probabilities
    rows = slopes.x * (slopes.z - p + fit.adjustment)[:, None]
    if slopes.first_stage is not None:
        rows = rows + slopes.first_stage(b)
    information = (slopes.x * (p * (1.0 - p))[:, None]).T @ slopes.x
    return hotelling(rows, information, t, slopes.clusters)


def hotelling(
    scores: Floats, information: Floats, tested: Sequence[int], clusters: NDArray[np.intp]
) -> JointTest | Undefined:
    """The score test from ``scores`` (n, p) at the restricted fit, its ``information`` (p, p), by ``clusters`` (n,).

    The tested scores are freed of the others, S_t − I_tk I_kk⁻¹ S_k (Boos 1992), summed by cluster, and their mean over
    the G clusters is tested by Hotelling's T²: T²(G − q)/(q(G − 1)) on F(q, G − q), which allows for the estimated
    covariance that F(q, G − 1) takes as known.
    """
    t = list(tested)
    kept = [j for j in range(len(information)) if j not in t]
    free = scores[:, t]
    if kept:
        free = free - scores[:, kept] @ np.linalg.pinv(information[np.ix_(kept, kept)]) @ information[np.ix_(kept, t)]
    codes = np.unique(clusters, return_inverse=True)[1]
    groups, q = int(codes.max()) + 1, len(t)
    if groups - q < FEWEST_SPARE:
        return Undefined(f"{_TOO_FEW}: {groups} items, {q} features, {q + FEWEST_SPARE} items needed")
    u = np.stack([np.bincount(codes, weights=column, minlength=groups) for column in free.T], axis=1)
    scale = np.sqrt(np.sum(free**2, axis=0))
    # Both orders may cancel within every item (a judge locked to a slot): rounding must not pass for evidence.
    if np.any(np.sum(u**2, axis=0) <= 1e-18 * scale**2):
        return Undefined("within each item the verdicts cancel: they follow the slot, and say nothing of content")
    u = u / scale
    centred = u - u.mean(axis=0)
    if np.linalg.matrix_rank(centred, tol=1e-8 * float(np.linalg.norm(centred))) < q:
        return Undefined("the features are collinear on these pairs, or too few items tell them apart")
    mean = u.mean(axis=0)
    t2 = groups * (groups - 1.0) * float(mean @ np.linalg.solve(centred.T @ centred, mean))
    f = t2 * (groups - q) / (q * (groups - 1.0))
    return JointTest(f, q, groups - q, f_tail(f, q, groups - q))


def joint_wald(
    names: Sequence[str], tested: Sequence[str], b: Floats, covariance: Floats, df: int, *, hotelling: bool = False
) -> JointTest | Undefined:
    """The Wald test that all ``tested`` coefficients of ``b`` are 0, on F(q, ``df``): for few slopes on many items.

    ``hotelling``: scaled for an estimated covariance of ``df`` + 1 clusters, on F(q, ``df`` + 1 − q).
    """
    index = [list(names).index(name) for name in tested]
    if not index:
        return Undefined("no feature differs between the texts")
    block = covariance[np.ix_(index, index)]
    if np.linalg.matrix_rank(block, hermitian=True) < len(index):
        return Undefined(_TOO_FEW)
    q, rest = len(index), df
    f = float(b[index] @ np.linalg.solve(block, b[index])) / q
    if hotelling:
        rest = df + 1 - q
        if rest < FEWEST_SPARE:
            return Undefined(_TOO_FEW)
        f *= rest / df
    return JointTest(f, q, rest, f_tail(f, q, rest))
