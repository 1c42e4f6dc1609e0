"""Ties: how often, where, and what the slopes are when a tie is an outcome of its own and not half a pick.

The primary counts a tie as ½, which pulls slopes towards 0; the symmetric ordered logit is the sensitivity analysis (the
method notes §1.4): P(a) = s(η − θ), P(b) = s(−η − θ), and a tie between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, clustered_proportion, t_interval
from judgeloop.stats.judge.covariates import Covariates
from judgeloop.stats.judge.slopes import GOLD, Slopes
from judgeloop.stats.rows import PROBABILITY, Bias, Labels, row

Floats = NDArray[np.float64]

FEWEST_TIES = 10
"""Fewer ties, or fewer decided verdicts, than this do not place the threshold between them."""


def tie_estimates(
    labels: Labels, rows: Covariates, given: Slopes | Undefined, without: Slopes | Undefined
) -> list[Estimate]:
    """``tie_rate`` with variants by gold, and the variant ``ordered_logit`` of the content model's slopes where verdicts tie.

    Variants of the rate: ``gold_tied`` and ``gold_decided`` for a|b|tie; ``gold_low``, ``gold_middle``, ``gold_high``,
    thirds of |gold|, for numbers. The ordered logit has the columns of ``given`` (fitted to ``rows.with_gold()``), or
    without gold those of ``without`` (fitted to ``rows``).
    """
    if not len(rows):
        return []
    tied = rows.ties.astype(np.float64)
    found = [_rate(labels, rows, tied, np.ones(len(rows), dtype=bool), "")]
    known = ~np.isnan(rows.gold)
    if known.any() and rows.numeric_gold:
        gap = np.abs(rows.gold)
        low, high = np.quantile(gap[known], [1 / 3, 2 / 3])
        parts = {"gold_low": gap <= low, "gold_middle": (gap > low) & (gap <= high), "gold_high": gap > high}
    elif known.any():
        parts = {"gold_tied": rows.gold == 0, "gold_decided": rows.gold != 0}
    else:
        parts = {}
    found += [_rate(labels, rows, tied, known & part, name) for name, part in parts.items() if (known & part).any()]
    model, some = (given, rows.with_gold()) if isinstance(given, Slopes) else (without, rows)
    if not some.ties.any() or isinstance(model, Undefined):
        return found
    fitted = fit_ordered(model.x, some.picked_a, some.ties, some.items)
    gold = "given gold, taken as exact" if GOLD in model.names else "quality is not held equal"
    for j, name in enumerate(model.names):
        if name in model.features:
            bias: Bias = "verbosity" if name == "length" else "style"
            unit = "log-odds per doubling" if name == "length" else "log-odds per generation-0 SD"
            result: Interval | Undefined = fitted if isinstance(fitted, Undefined) else fitted.slope(j)
            found.append(row(
                labels, bias, f"{name}_log_odds", result, some.counts, unit=unit, variant="ordered_logit",
                note=f"a tie is an outcome of its own; {gold}",
            ))  # fmt: skip
    return found


def _rate(labels: Labels, rows: Covariates, tied: Floats, some: NDArray[np.bool_], variant: str) -> Estimate:
    chosen = rows.where(some)
    return row(
        labels, "quality", "tie_rate", clustered_proportion(tied[some], chosen.items), chosen.counts, unit=PROBABILITY,
        variant=variant, null=None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class OrderedFit:
    """``coefficients`` (p,) and ``threshold`` θ > 0 of the symmetric ordered logit, with the item-clustered covariance
    (p, p) of the coefficients; ``df`` = items − 1."""

    coefficients: Floats
    threshold: float
    covariance: Floats
    df: int

    def slope(self, column: int) -> Interval | Undefined:
        """One coefficient with its t interval."""
        se = float(np.sqrt(self.covariance[column, column]))
        method = "symmetric ordered logit, CR1 by item"
        return t_interval(float(self.coefficients[column]), se, self.df, method=method)


def ordered_logit(eta: Floats, side: Floats, ties: NDArray[np.bool_], theta: float) -> tuple[Floats, Floats, Floats]:
    """Log-likelihood of P(a) = s(η − θ), P(b) = s(−η − θ), a tie the rest, and its derivatives by η and by log θ.

    ``eta`` of any shape, to which ``side`` (+1 a, −1 b, not read where ``ties``) and ``ties`` broadcast; ``theta`` > 0.
    """
    # Decided: log s(u), u = ±η − θ. Tied: s(η + θ) − s(η − θ) = s(η + θ) s(θ − η)(1 − e^−2θ).
    eta, side, tied = np.broadcast_arrays(eta, side, ties)
    value, by_eta, by_theta = (np.empty(eta.shape) for _ in range(3))
    decided = ~tied
    value[decided], rest = log_sigmoid(side[decided] * eta[decided] - theta)
    by_eta[decided], by_theta[decided] = side[decided] * rest, -rest
    if tied.any():
        within = -np.expm1(-2.0 * theta)
        (log_up, above), (log_down, below) = (log_sigmoid(theta + sign * eta[tied]) for sign in (1.0, -1.0))
        value[tied] = log_up + log_down + np.log(within)
        by_eta[tied] = above - below
        by_theta[tied] = above + below + 2.0 * np.exp(-2.0 * theta) / within
    return value, by_eta, theta * by_theta


def log_sigmoid(x: Floats) -> tuple[Floats, Floats]:
    """log s(x) and 1 − s(x), elementwise, from one exponential."""
    small = np.exp(-np.abs(x))
    return np.minimum(x, 0.0) - np.log1p(small), np.where(x >= 0, small, 1.0) / (1.0 + small)


def fit_ordered(
    x: Floats, picked_a: Floats, ties: NDArray[np.bool_], clusters: NDArray[np.intp]
) -> OrderedFit | Undefined:
    """Maximum likelihood of P(a) = s(η − θ), P(b) = s(−η − θ), η = ``x`` (n, p) · β; θ > 0 by its logarithm.

    ``picked_a`` (n,) above ½ where a was picked, and not read where ``ties``. Covariance: sandwich over ``clusters``, CR1.
    """
    groups = np.unique(clusters, return_inverse=True)[1]
    count = int(groups.max()) + 1 if len(groups) else 0
    if min(int(ties.sum()), int((~ties).sum())) < FEWEST_TIES or count <= x.shape[1] + 1:
        return Undefined(f"{int(ties.sum())} ties and {int((~ties).sum())} decided verdicts place no threshold")
    side = np.where(picked_a > 0.5, 1.0, -1.0)

    def scores(parameters: Floats) -> tuple[Floats, Floats]:
        """Log-likelihood (n,) and its gradient (n, p + 1)."""
        theta = float(np.exp(np.clip(parameters[-1], -20.0, 6.0)))
        value, by_eta, by_log = ordered_logit(x @ parameters[:-1], side, ties, theta)
        return value, np.concatenate([x * by_eta[:, None], by_log[:, None]], axis=1)

    def objective(parameters: Floats) -> tuple[float, Floats]:
        value, gradient = scores(parameters)
        return -float(value.sum()), -gradient.sum(axis=0)

    from scipy import optimize  # only here: it is slow to import

    found = optimize.minimize(
        objective, np.zeros(x.shape[1] + 1), jac=True, method="BFGS", options={"gtol": 1e-9 * len(x)}
    )
    at = np.asarray(found.x, dtype=np.float64)
    step = 1e-5
    hessian = np.stack([
        (objective(at + step * e)[1] - objective(at - step * e)[1]) / (2.0 * step) for e in np.eye(len(at))
    ])  # fmt: skip
    hessian = (hessian + hessian.T) / 2.0
    if not np.all(np.isfinite(hessian)) or np.linalg.eigvalsh(hessian)[0] < 1e-8 * len(x) or np.abs(at).max() > 30.0:
        return Undefined("the ordered logit has no single maximum: the verdicts separate on these covariates")
    gradient = scores(at)[1]
    sums = np.stack([np.bincount(groups, weights=column, minlength=count) for column in gradient.T], axis=1)
    inverse = np.linalg.inv(hessian)
    covariance = inverse @ (sums.T @ sums) @ inverse * (count / (count - 1.0))
    return OrderedFit(at[:-1], float(np.exp(at[-1])), covariance[:-1, :-1], count - 1)
