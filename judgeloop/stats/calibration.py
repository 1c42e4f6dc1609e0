"""Content slopes given quality, from two numeric golds: regression calibration (the method notes §1.3 E3).

An imperfect gold leaves quality that correlates with length, and an unbiased judge then looks biased. With a second gold
q₂, quality is replaced by its regression on what is known, q̂ = E[q₂ | D, q₁] (Carroll et al. 2006), and the covariance
stacks both stages' scores, clustered by item. With one gold, ``reliability_curve`` says what its slopes would become.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from judgeloop.kernels import sigmoid
from judgeloop.stats.inference import Interval, Undefined, t_interval
from judgeloop.stats.judge.covariates import Covariates
from judgeloop.stats.judge.slopes import GOLD, Slopes, fit_slopes

Floats = NDArray[np.float64]

RELIABILITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FEWEST_PAIRS = 90
"""As in the latent-quality model: a hundred pairs labelled twice, of which a tenth may have no verdict."""


def fit_calibrated(rows: Covariates) -> Slopes | Undefined:
    """The content model with calibrated quality; its covariance counts both stages.

    The regression is of the pairs with both golds; the content model is of all with the first, whose quality it predicts.
    """
    rows = rows.with_gold()
    both = ~np.isnan(rows.gold_2)
    twice = len(np.unique(rows.pairs[both]))
    if twice < FEWEST_PAIRS:
        return Undefined(f"two golds on {twice} pairs; the correction needs {FEWEST_PAIRS}")
    known = np.column_stack([rows.differences, rows.gold])
    solved, _, rank, _ = np.linalg.lstsq(known[both], rows.gold_2[both], rcond=None)
    if rank < known.shape[1]:
        return Undefined("gold and the texts' features are collinear")
    theta = np.asarray(solved, dtype=np.float64)
    slopes = fit_slopes(rows, known @ theta)
    if isinstance(slopes, Undefined):
        return slopes
    residual = np.where(both, rows.gold_2 - known @ theta, 0.0)
    influence = known * residual[:, None] @ np.linalg.inv(known[both].T @ known[both])
    j = slopes.names.index(GOLD)

    def first_stage(b: Floats) -> Floats:
        """What the calibration's error adds to each row's score at coefficients ``b``."""

        def score(t: Floats) -> Floats:
            x = slopes.x.copy()
            x[:, j] = known @ t
            return np.asarray(x.T @ (slopes.z - sigmoid(x @ b)))

        steps = 1e-6 * np.eye(len(theta))
        sensitivity = np.stack([(score(theta + h) - score(theta - h)) / 2e-6 for h in steps], axis=1)
        return np.asarray(influence @ sensitivity.T)

    return replace(
        slopes, covariance=_stacked(slopes, first_stage(slopes.coefficients)), first_stage=first_stage,
        method=f"calibrated {slopes.method}, both stages",
    )  # fmt: skip


def _stacked(slopes: Slopes, first: Floats) -> Floats:
    second = slopes.x * (slopes.z - slopes.fit.probabilities + slopes.fit.adjustment)[:, None]
    _, codes = np.unique(slopes.clusters, return_inverse=True)
    groups = int(codes.max()) + 1
    # Separated residuals are next to 0: the information stands for the second stage then, as in the plain fit.
    total = first if slopes.separated else second + first
    scores = np.stack([np.bincount(codes, weights=column, minlength=groups) for column in total.T], axis=1)
    inverse = np.linalg.inv(slopes.fit.hessian)
    sandwich = np.asarray(inverse @ (scores.T @ scores) @ inverse * groups / (groups - 1.0))
    return slopes.covariance + sandwich if slopes.separated else sandwich


def delta_effect(slopes: Slopes, name: str) -> Interval | Undefined:
    """Average marginal effect with the delta method on the coefficients' own covariance (which counts both stages)."""
    if name not in slopes.names:
        return slopes.slope(name)
    j = slopes.names.index(name)
    p = slopes.fit.probabilities
    mean = float(np.mean(p * (1 - p)))
    gradient = slopes.coefficients[j] * np.mean((p * (1 - p) * (1 - 2 * p))[:, None] * slopes.x, axis=0)
    gradient[j] += mean
    se = float(np.sqrt(gradient @ slopes.covariance @ gradient))
    return t_interval(float(slopes.coefficients[j]) * mean, se, slopes.df, method=f"{slopes.method}, delta")


def reliability_curve(slopes: Slopes, name: str) -> str:
    """β(λ) in words: what the slope given one gold would be if that gold had reliability λ.

    The errors-in-variables correction (Σ − (1 − λ)σ_g²)⁻¹Σ·b on the covariates' second moments weighted by the fit's
    information, to first order in the slopes; "–" where gold of that reliability would vary less than the covariates
    already explain.
    """
    moments = np.asarray(slopes.fit.hessian)
    g, j = slopes.names.index(GOLD), slopes.names.index(name)
    parts = []
    for reliability in RELIABILITIES:
        corrected = moments.copy()
        corrected[g, g] *= reliability
        if np.linalg.eigvalsh(corrected)[0] <= 1e-9 * np.trace(moments):
            parts.append(f"{reliability:g}: –")
            continue
        value = np.linalg.solve(corrected, moments @ slopes.coefficients)[j]
        parts.append(f"{reliability:g}: {value:.3f}")
    return ", ".join(parts)
