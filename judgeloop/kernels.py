"""Logistic kernels on plain arrays: ridge and Firth fits, cluster-robust covariance, one-step bootstrap and jackknife.

Plain numpy; randomness only from the generator argument. Rows are presentations (or preferences), columns covariates;
no intercept is added. A fit is a frozen dataclass with the weights and the ridge that it was made with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Correction = Literal["CR0", "CR1", "CR2"]
_FLAT = 1e-7
"""Below this share of the information at coefficients 0 a direction's likelihood is flat: the data separate along it."""
_SMALL_LEVERAGE = 0.01
"""Up to this leverage of a cluster (I − H)^−½ is summed as a power series, whose error is then below 1e-10."""
_ROOT_SERIES = (0.5, 0.375, 0.3125, 0.2734375)
"""Coefficients of H, H² … in (I − H)^−½ = I + H/2 + 3H²/8 + …"""
_INVERSE_SERIES = (1.0, 1.0, 1.0, 1.0)
"""Coefficients of H, H² … in (I − H)^−1 = I + H + H² + …"""
_CLUSTERS_AT_A_TIME = 1 << 14
"""Clusters whose matrices are worked on together: they stay in the processor's cache, and the memory is bounded."""
_SPARSE = 16
"""Codes up to so many times their number are counted in an array; others are sorted."""
_COUNTED_AT_A_TIME = 1 << 15
"""Bootstrap draws that are counted together: they stay in the processor's cache."""
_SINGULAR = 1e-11
"""Up to this eigenvalue a matrix with a unit diagonal counts as singular."""
_BOOTSTRAP_BLOCK = 1 << 22
"""Numbers a block of bootstrap draws may hold: it bounds the memory."""


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """A fitted logistic regression.

    ``coefficients`` (p,) in log-odds per unit of a column; ``hessian`` (p, p) is the negative second derivative, the
    ridge included; ``probabilities`` (n,); ``adjustment`` (n,) is what Firth adds to the residual z − probability, else
    0. ``converged`` is False where the likelihood has no maximum (``separated``) or the iterations ran out; the
    coefficients are then the last step's and must not be reported. ``rank`` < p means that columns are collinear: the
    coefficients have minimum norm, and single ones are not identified unless the ridge identifies them.
    """

    coefficients: Floats
    hessian: Floats
    probabilities: Floats
    weights: Floats
    ridge: Floats
    adjustment: Floats
    log_likelihood: float
    iterations: int
    rank: int
    converged: bool
    separated: bool

    @property
    def identified(self) -> bool:
        """True where every coefficient is finite and determined by the data or the ridge."""
        return self.converged and (self.rank == len(self.coefficients) or bool(np.all(self.ridge > 0)))

    @property
    def covariance(self) -> Floats:
        """(p, p) model-based covariance: the inverse Hessian. Right only for independent rows and a right model."""
        return _inverse(self.hessian)


def sigmoid(values: Floats) -> Floats:
    """The logistic function 1/(1 + exp(−x)), elementwise, without overflow."""
    values = np.asarray(values, dtype=np.float64)
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1.0 + small), dtype=np.float64)


def logistic(
    x: Floats,
    z: Floats,
    weights: Floats | None = None,
    ridge: float | Floats = 0.0,
    max_iterations: int = 60,
    tolerance: float = 1e-9,
    offset: Floats | None = None,
) -> LogisticFit:
    """Maximise Σ w [z log p + (1 − z) log(1 − p)] − ½ Σ ridge_j b_j², p = s(xb + offset), by Newton steps with halving.

    ``x`` (n, p); ``z`` (n,) in [0, 1], fractions allowed (the quasi-binomial of Papke & Wooldridge 1996: use a robust
    covariance); ``weights`` (n,) ≥ 0, default 1; ``offset`` (n,) log-odds, default 0; ``ridge`` a number or (p,), not
    scaled by n. ``tolerance`` bounds the last step's largest entry, relative to the coefficients; Newton's error is
    then its square. Separated or collinear data raise nothing: see LogisticFit. Raises ValueError for wrong shapes or
    values.
    """
    x, z, w = _checked(x, z, weights)
    columns, fixed_part = x.shape[1], np.zeros(len(z)) if offset is None else offset
    penalty = np.broadcast_to(np.asarray(ridge, dtype=np.float64), (columns,)).copy()
    if not np.all(np.isfinite(penalty)) or np.any(penalty < 0):
        raise ValueError("ridge must be finite and 0 or more")
    at_zero = 0.25 * (x * w[:, None]).T @ x
    scale = np.sqrt(np.maximum(np.diag(at_zero) + penalty, np.finfo(np.float64).tiny))
    rank = int(np.linalg.matrix_rank(at_zero / np.outer(scale, scale), tol=1e-11, hermitian=True)) if columns else 0
    b = np.zeros(columns)
    value = _penalised(x, z, w, penalty, b, fixed_part)
    converged = separated = False
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        p = sigmoid(x @ b + fixed_part)
        gradient = x.T @ (w * (z - p)) - penalty * b
        hessian = _information(x, w * p * (1.0 - p)) + np.diag(penalty)
        step = _solve(hessian, gradient)
        b, value, taken = _ascend(lambda c: _penalised(x, z, w, penalty, c, fixed_part), b, step, value)
        if float(np.max(np.abs(taken), initial=0.0)) <= tolerance * (1.0 + float(np.max(np.abs(b), initial=0.0))):
            converged = True
            break
        if _is_flat(hessian, at_zero + np.diag(penalty), scale, rank if not np.all(penalty > 0) else columns):
            separated = True
            break
    p = sigmoid(x @ b + fixed_part)
    hessian = _information(x, w * p * (1.0 - p)) + np.diag(penalty)
    if converged and _is_flat(hessian, at_zero + np.diag(penalty), scale, rank if not np.all(penalty > 0) else columns):
        converged, separated = False, True
    return LogisticFit(
        b, hessian, p, w, penalty, np.zeros(len(z)), _penalised(x, z, w, penalty * 0, b, fixed_part), iterations, rank, converged,
        separated,
    )  # fmt: skip


def firth(
    x: Floats, z: Floats, weights: Floats | None = None, max_iterations: int = 200, tolerance: float = 1e-9,
    fixed: tuple[int, float] | None = None,
) -> LogisticFit:  # fmt: skip
    """Logistic regression with Firth's penalty ½ log|XᵀWX|, whose coefficients are finite under separation.

    Firth (1993); Heinze & Schemper (2002). Arguments as in ``logistic``. The residual gains h(½ − p), h the diagonal of
    the hat matrix; it stands in ``adjustment``, so that ``cluster_covariance`` uses the scores that the estimate
    solves. ``fixed``: a column and the value at which its coefficient is held under the penalty of all columns, which
    gives a point of the profile likelihood.
    """
    x, z, w = _checked(x, z, weights)
    columns = x.shape[1]
    free = np.arange(columns) if fixed is None else np.delete(np.arange(columns), fixed[0])
    rank = int(np.linalg.matrix_rank(x * np.sqrt(w)[:, None])) if columns else 0

    def objective(coefficients: Floats) -> float:
        p = sigmoid(x @ coefficients)
        sign, log_determinant = np.linalg.slogdet(_information(x, w * p * (1.0 - p)))
        return _penalised(x, z, w, np.zeros(columns), coefficients) + (
            0.5 * float(log_determinant) if sign > 0 else -np.inf
        )

    b = np.zeros(columns)
    if fixed is not None:
        b[fixed[0]] = fixed[1]
    value = objective(b)
    converged = False
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        p, hessian, adjustment = _firth_parts(x, w, b)
        step = np.zeros(columns)
        step[free] = _solve(hessian[np.ix_(free, free)], (x.T @ (w * (z - p) + w * adjustment))[free])
        # Longer first steps can reach a region where the information matrix is degenerate (Heinze & Schemper use 5).
        step *= min(1.0, 5.0 / max(float(np.max(np.abs(x @ step), initial=0.0)), 1e-300))
        b, value, taken = _ascend(objective, b, step, value)
        if float(np.max(np.abs(taken), initial=0.0)) <= tolerance * (1.0 + float(np.max(np.abs(b), initial=0.0))):
            converged = rank == columns
            break
    p, hessian, adjustment = _firth_parts(x, w, b)
    plain = _penalised(x, z, w, np.zeros(columns), b)
    return LogisticFit(b, hessian, p, w, np.zeros(columns), adjustment, plain, iterations, rank, converged, False)


def cluster_covariance(
    x: Floats, z: Floats, fit: LogisticFit, clusters: Integers, correction: Correction = "CR1"
) -> Floats:
    """(p, p) sandwich covariance of ``fit.coefficients`` for rows that depend within ``clusters`` (n,) integer codes.

    ``CR0``: H⁻¹ (Σ U_g U_gᵀ) H⁻¹ (Liang & Zeger 1986). ``CR1``: times G/(G − 1); statsmodels multiplies it by
    (n − 1)/(n − p) besides. ``CR2``: Bell & McCaffrey's (2002), unbiased where rows are independent: a cluster's
    residuals are multiplied by (I − P_g)^−½, P_g its block of the hat matrix, here in p × p matrices. Its t has the
    degrees of freedom of ``satterthwaite_df``. Raises ValueError with fewer than two clusters, or (CR2) where one
    cluster alone identifies a coefficient.
    """
    influence = cluster_influence(x, z, fit, clusters, correction)
    return np.asarray(influence.T @ influence, dtype=np.float64)


def cluster_influence(
    x: Floats, z: Floats, fit: LogisticFit, clusters: Integers, correction: Correction = "CR1"
) -> Floats:
    """(G, p) contributions of the clusters to the coefficients' errors, in the order of ``np.unique(clusters)``.

    Their cross products are ``cluster_covariance``, with its arguments and errors; those of two fits that share
    clusters are the covariance between the fits.
    """
    codes, count = _dense_codes(clusters, len(z))
    if correction == "CR2":
        return _corrected(x, z, fit, codes, count, with_df=False)[0]
    _check_count(count)
    factor = count / (count - 1.0) if correction == "CR1" else 1.0
    scores = _scores(x, z, fit, codes, count)
    return np.asarray(scores @ _inverse(fit.hessian) * np.sqrt(factor), dtype=np.float64)


def cluster_inference(x: Floats, z: Floats, fit: LogisticFit, clusters: Integers) -> tuple[Floats, Floats]:
    """((G, p) ``CR2`` ``cluster_influence``, (p,) ``satterthwaite_df`` of each coefficient) of a fit without weights and penalty,
    in the time of one of them. Raises ValueError as they do."""
    return _corrected(x, z, fit, *_dense_codes(clusters, len(z)), with_df=True)


def _corrected(
    x: Floats, z: Floats, fit: LogisticFit, codes: Integers, count: int, *, with_df: bool
) -> tuple[Floats, Floats]:
    """``cluster_inference``; without ``with_df`` the degrees of freedom are none."""
    _check_count(count)
    root, scores = _inverse_root(fit.hessian), _scores(x, z, fit, codes, count)
    informations, influence = _informations(x, _curvature(fit), codes, count), np.empty_like(scores)
    terms = _VarianceTerms(len(root) if with_df else 0, len(root))
    contrasts = root.T if with_df else root.T[:, :0]
    for block in _blocks(count):
        leverages, own = root.T @ informations[block] @ root, (scores[block] @ root)[:, :, None]
        vectors = np.concatenate([own, np.broadcast_to(contrasts, (len(own), *contrasts.shape))], axis=2)
        adjusted = _adjusted(leverages, vectors)
        influence[block] = adjusted[:, :, 0] @ root.T
        terms.add(leverages, adjusted[:, :, 1:])
    return influence, terms.df()


def _check_count(count: int) -> None:
    if count < 2:
        raise ValueError("a cluster covariance needs two clusters or more")


def cluster_informations(x: Floats, weights: Floats, clusters: Integers) -> Floats:
    """(G, p, p) Σ w x xᵀ of the rows ``x`` (n, p) with ``weights`` (n,), by cluster in the order of ``np.unique(clusters)``."""
    return _informations(x, weights, *_dense_codes(clusters, len(x)))


def satterthwaite_df(informations: Floats, contrasts: Floats) -> Floats:
    """(m,) degrees of freedom of t for the ``contrasts`` (m, p) of coefficients under their ``CR2`` covariance.

    ``informations`` (G, p, p): each cluster's share of the information, which under the working model (independent rows) is
    the covariance of its score. With C the covariance of the terms that the variance sums the squares of, it is
    (tr C)²/tr C² (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018). Few clusters, or some that weigh more than others,
    give less than G − 1. Raises ValueError where one cluster alone identifies a coefficient.
    """
    root = _inverse_root(informations.sum(axis=0))
    terms = _VarianceTerms(len(contrasts), len(root))
    for block in _blocks(len(informations)):
        leverages = root.T @ informations[block] @ root
        of_block = np.broadcast_to((contrasts @ root).T, (len(leverages), len(root), len(contrasts)))
        terms.add(leverages, _adjusted(leverages, of_block))
    return terms.df()


class _VarianceTerms:
    """Sums over the clusters from which ``satterthwaite_df`` follows, for m contrasts of p coefficients.

    C = diag(d) − V Vᵀ, V (G, p) the rows v_g: both traces without a matrix of clusters by clusters.
    """

    def __init__(self, m: int, p: int) -> None:
        self.trace, self.squared, self.gram = np.zeros(m), np.zeros(m), np.zeros((m, p, p))

    def add(self, leverages: Floats, adjusted: Floats) -> None:
        """Add clusters of ``leverages`` (G, p, p); ``adjusted`` (G, p, m): ``_adjusted`` of the contrasts times the root."""
        v = leverages @ adjusted
        d, shared = np.sum(adjusted * v, axis=1), np.sum(v**2, axis=1)
        by_contrast = np.moveaxis(v, 2, 0)
        self.gram += np.swapaxes(by_contrast, 1, 2) @ by_contrast
        self.trace += np.sum(d - shared, axis=0)
        self.squared += np.sum(d**2 - 2.0 * d * shared, axis=0)

    def df(self) -> Floats:
        """(m,) (tr C)²/tr C²."""
        return np.asarray(self.trace**2 / (self.squared + np.sum(self.gram**2, axis=(1, 2))), dtype=np.float64)


def one_step_bootstrap(
    x: Floats, z: Floats, fit: LogisticFit, clusters: Integers, draws: int, rng: np.random.Generator
) -> Floats:
    """(draws, p) coefficients of cluster-bootstrap samples, each one Newton step from the fit.

    b* = b + (Σ c_g H_g + R)⁻¹ (Σ c_g U_g − R b), c the counts of G clusters drawn with replacement, R the ridge: the
    one-step resampling of Moulton & Zeger (1991), with clusters for observations. Blocks of draws, one matrix product
    each (of an information the upper triangle), bound the memory. A sample in which a column vanished gets the minimum-norm step.
    """
    codes, count = _dense_codes(clusters, len(z))
    columns = x.shape[1]
    j, k = np.triu_indices(columns)
    informations = _informations(x, _curvature(fit), codes, count)[:, j, k]
    parts = np.concatenate([_scores(x, z, fit, codes, count), informations], axis=1)
    block = max(1, _BOOTSTRAP_BLOCK // max(count, columns * columns, 1))
    result, counts = np.empty((draws, columns)), np.empty((min(block, draws), count))
    rows = max(1, _COUNTED_AT_A_TIME // max(1, count))
    offsets = count * np.arange(rows, dtype=np.int32)[:, None]
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = rng.integers(count, size=(size, count), dtype=np.int32)  # the same clusters as of eight bytes a draw
        for first in range(0, size, rows):
            codes_drawn = drawn[first : first + rows]
            counted = np.bincount((codes_drawn + offsets[: len(codes_drawn)]).ravel(), minlength=codes_drawn.size)
            counts[first : first + len(codes_drawn)] = counted.reshape(codes_drawn.shape)
        sums, hessians = counts[:size] @ parts, np.empty((size, columns, columns))
        hessians[:, j, k] = hessians[:, k, j] = sums[:, columns:]
        gradients = sums[:, :columns] - fit.ridge * fit.coefficients
        result[start : start + size] = fit.coefficients + _solve_each(hessians + np.diag(fit.ridge), gradients)
    return result


def one_step_jackknife(x: Floats, z: Floats, fit: LogisticFit, clusters: Integers) -> Floats:
    """(G, p) coefficients one Newton step after each cluster is left out, in the order of ``np.unique(clusters)``.

    b − (H − H_g)⁻¹ U_g, the leave-one-cluster-out step of Pregibon (1981). A column that vanished with the cluster gets
    the minimum-norm step.
    """
    codes, count = _dense_codes(clusters, len(z))
    informations, scores = _informations(x, _curvature(fit), codes, count), _scores(x, z, fit, codes, count)
    return fit.coefficients - solve_without_each(fit.hessian, informations, scores)


def left_out_log_odds(x: Floats, z: Floats, fit: LogisticFit, clusters: Integers) -> Floats:
    """(n,) log-odds of each row at the coefficients of ``one_step_jackknife`` without its own cluster.

    With A = X_g H⁻¹ X_gᵀ of a cluster's rows they are η − A (I − W A)⁻¹ r (Woodbury), r = w(z − p): systems of a cluster's rows,
    where there are many columns. Raises numpy.linalg.LinAlgError where one cluster alone identifies a direction.
    """
    p = fit.probabilities
    curvature, residuals = fit.weights * p * (1.0 - p), fit.weights * (z - p)
    moved, eta = x @ _inverse(fit.hessian), x @ fit.coefficients
    order = np.argsort(clusters, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1):
        a = moved[rows] @ x[rows].T
        eta[rows] -= a @ np.linalg.solve(np.eye(len(rows)) - curvature[rows, None] * a, residuals[rows])
    return np.asarray(eta, dtype=np.float64)


def solve_without_each(whole: Floats, parts: Floats, vectors: Floats) -> Floats:
    """(G, p) (M − M_g)⁻¹ v_g of a symmetric ``whole`` M (p, p), ``parts`` M_g (G, p, p) ≥ 0 of it and ``vectors`` v_g (G, p).

    Small parts by the power series of (I − H_g)⁻¹, H_g the part in units of the whole: the large ones, which alone take a
    system each, are few, as the traces of all H_g sum to p at most. A singular system gets its minimum-norm solution.
    """
    root = _inverse_root(whole)
    solved = np.empty_like(vectors)
    for block in _blocks(len(parts)):
        leverages = root.T @ parts[block] @ root
        traces = np.trace(leverages, axis1=1, axis2=2)
        large = traces > _SMALL_LEVERAGE
        reach = float(np.max(traces, where=~large, initial=0.0))
        solved[block] = (
            _series(_INVERSE_SERIES, leverages, (vectors[block] @ root)[:, :, None], reach)[:, :, 0] @ root.T
        )
        solved[block][large] = _solve_each(whole - parts[block][large], vectors[block][large])
    return solved


def jackknife_error(left_out: Floats) -> float:
    """Standard error √((G − 1)/G · Σ (θ_g − mean)²) of a statistic from its (G,) values with one cluster left out."""
    count, spread = len(left_out), left_out - np.mean(left_out)
    return float(np.sqrt((count - 1.0) / count * np.sum(spread**2)))


def distinct(values: ArrayLike) -> int:
    """The number of different ``values`` (n,); of integer codes in linear time."""
    array = np.asarray(values)
    present = _present(array)
    return len(np.unique(array)) if present is None else int(np.count_nonzero(present))


def dense_codes(values: ArrayLike) -> tuple[Integers, int]:
    """(n,) codes 0 … G − 1 of ``values`` in their order, as ``np.unique``, and G; of integer codes in linear time."""
    array = np.asarray(values)
    present = _present(array)
    if present is None:
        unique, codes = np.unique(array, return_inverse=True)
        return codes.astype(np.intp), len(unique)
    ranks = np.cumsum(present, dtype=np.intp)
    return ranks[array] - 1, int(ranks[-1])


def cluster_sums(rows: Floats, codes: Integers, count: int) -> Floats:
    """(G, p) sums of ``rows`` (n, p) by cluster; ``codes`` (n,) in 0 … ``count`` − 1, ``count`` = G."""
    sums = [np.bincount(codes, weights=column, minlength=count) for column in rows.T]
    return np.stack(sums, axis=1) if sums else np.zeros((count, 0))


def _checked(x: Floats, z: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
    """``x``, ``z`` and the weights as arrays of matching shapes; raises ValueError where they are not."""
    x, z = np.asarray(x, dtype=np.float64), np.asarray(z, dtype=np.float64)
    w = np.ones(len(z)) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 2 or z.shape != (len(x),) or w.shape != (len(x),):
        raise ValueError(f"x must be (n, p), z and weights (n,); got {x.shape}, {z.shape}, {w.shape}")
    if not (np.all(np.isfinite(x)) and np.all((z >= 0) & (z <= 1)) and np.all(np.isfinite(w) & (w >= 0))):
        raise ValueError("x must be finite, z in [0, 1], weights finite and 0 or more")
    return x, z, w


def _penalised(x: Floats, z: Floats, w: Floats, penalty: Floats, b: Floats, offset: Floats | float = 0.0) -> float:
    """The log-likelihood at coefficients ``b``, minus the ridge's ½ Σ penalty_j b_j²."""
    eta = x @ b + offset
    # z·η − log(1 + e^η), the stable form of the binomial log-likelihood for fractional z.
    return float(np.sum(w * (z * eta - np.logaddexp(0.0, eta))) - 0.5 * np.sum(penalty * b * b))


def _information(x: Floats, w: Floats) -> Floats:
    """(p, p) XᵀWX with ``w`` (n,) on the diagonal of W."""
    return np.asarray((x * w[:, None]).T @ x, dtype=np.float64)


def _ascend(
    objective: Callable[[Floats], float], b: Floats, step: Floats, value: float
) -> tuple[Floats, float, Floats]:
    """The longest of step, step/2, step/4 … that does not lower the objective (rounding forgiven)."""
    slack = 1e-12 * (1.0 + abs(value))
    for _ in range(40):
        new_value = objective(b + step)
        if new_value >= value - slack:
            return b + step, new_value, step
        step = step / 2.0
    return b, value, step * 0.0


def _is_flat(hessian: Floats, at_zero: Floats, scale: Floats, rank: int) -> bool:
    """Whether the information in some identified direction fell below _FLAT of what it was at coefficients 0."""
    if len(scale) == 0 or rank == 0:
        return False
    outer = np.outer(scale, scale)
    values, vectors = np.linalg.eigh(at_zero / outer)
    directions = vectors[:, -rank:] / np.sqrt(values[-rank:])
    return bool(np.linalg.eigvalsh(directions.T @ (hessian / outer) @ directions)[0] < _FLAT)


def _firth_parts(x: Floats, w: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    """Probabilities (n,), information (p, p) and Firth's adjustment (n,) of the residuals at ``b``."""
    p = sigmoid(x @ b)
    hessian = _information(x, w * p * (1.0 - p))
    hat = p * (1.0 - p) * np.einsum("ij,ij->i", x @ _inverse(hessian), x)
    return p, hessian, np.asarray(hat * (0.5 - p), dtype=np.float64)


def _dense_codes(clusters: Integers, rows: int) -> tuple[Integers, int]:
    """The clusters as codes 0 … G − 1, and G; raises ValueError for a wrong shape."""
    codes = np.asarray(clusters)
    if codes.shape != (rows,):
        raise ValueError(f"clusters must be ({rows},) integer codes, got {codes.shape}")
    return dense_codes(codes)


def _present(values: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Which of 0 … max are among ``values``; None where they are not integer codes, or few of many."""
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0 or values.max() > _SPARSE * values.size:
        return None
    present = np.zeros(int(values.max()) + 1, dtype=bool)
    present[values] = True
    return present


def _blocks(count: int) -> Iterator[slice]:
    """The clusters 0 … ``count`` − 1 in slices of ``_CLUSTERS_AT_A_TIME``."""
    return (slice(start, start + _CLUSTERS_AT_A_TIME) for start in range(0, count, _CLUSTERS_AT_A_TIME))


def _scores(x: Floats, z: Floats, fit: LogisticFit, codes: Integers, count: int) -> Floats:
    """(G, p) sums of the rows' scores by cluster."""
    residual = fit.weights * (z - fit.probabilities + fit.adjustment)
    return cluster_sums(x * residual[:, None], codes, count)


def _curvature(fit: LogisticFit) -> Floats:
    """(n,) each row's weight in the fit's information, w·p(1 − p)."""
    return np.asarray(fit.weights * fit.probabilities * (1.0 - fit.probabilities), dtype=np.float64)


def _informations(x: Floats, weights: Floats, codes: Integers, count: int) -> Floats:
    """(G, p, p) Σ w x xᵀ by cluster, by a bincount for each pair of columns, without an (n, p, p) array."""
    columns = x.shape[1]
    result = np.empty((count, columns, columns))
    for j in range(columns):
        weighted = weights * x[:, j]
        for k in range(j + 1):
            result[:, j, k] = result[:, k, j] = np.bincount(codes, weights=weighted * x[:, k], minlength=count)
    return result


def _adjusted(leverages: Floats, vectors: Floats) -> Floats:
    """(G, p, m) (I − H_g)^−½ V_g for ``leverages`` H_g (G, p, p), whose sum is at most I, and ``vectors`` V_g (G, p, m).

    The traces of all H_g sum to p at most, so that few clusters take an eigendecomposition whatever their number. Raises
    ValueError where an I − H_g is singular.
    """
    traces = np.trace(leverages, axis1=1, axis2=2)
    large = traces > _SMALL_LEVERAGE
    result = _series(_ROOT_SERIES, leverages, vectors, float(np.max(traces, where=~large, initial=0.0)))
    if not large.any():
        return result
    result[large] = vectors[large]
    values, axes = np.linalg.eigh(leverages[large])
    if np.any(values > 1.0 - 1e-10):
        raise ValueError("one item alone identifies a coefficient: an interval takes more of them")
    axes_transposed = np.swapaxes(axes, 1, 2)
    result[large] = axes @ ((axes_transposed @ result[large]) / np.sqrt(1.0 - values)[:, :, None])
    return result


def _series(coefficients: Sequence[float], matrices: Floats, vectors: Floats, reach: float) -> Floats:
    """(G, p, m) V + c₁HV + c₂H²V + … of ``matrices`` H (G, p, p) and ``vectors`` V (G, p, m).

    As many terms as H up to ``reach`` need; where an H is larger the values mean nothing.
    """
    power, result, error = vectors, np.array(vectors, dtype=np.float64), reach
    for coefficient in coefficients:
        power = matrices @ power
        result += coefficient * power
        error *= reach
        if error < 1e-12:
            break
    return result


def _inverse_root(matrix: Floats) -> Floats:
    """(p, p) T with TᵀMT = I for a positive definite M, so that M⁻¹ = TTᵀ; directions in which M is 0 are left at 0."""
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    values, axes = np.linalg.eigh(matrix / np.outer(scale, scale))
    lengths = np.where(values > 1e-13, 1.0 / np.sqrt(np.maximum(values, 1e-13)), 0.0)
    return np.asarray(axes * lengths / scale[:, None], dtype=np.float64)


def _solve(matrix: Floats, vector: Floats) -> Floats:
    """Solve one symmetric system, as ``_solve_each``."""
    return np.asarray(_solve_each(matrix[None], vector[None])[0], dtype=np.float64)


def _solve_each(matrices: Floats, vectors: Floats) -> Floats:
    """Solve a stack of symmetric systems; the ill-conditioned ones by the pseudo-inverse."""
    diagonals = np.sqrt(np.maximum(np.diagonal(matrices, axis1=1, axis2=2), 1e-300))
    scaled = matrices / (diagonals[:, :, None] * diagonals[:, None, :])
    right = vectors / diagonals
    well_conditioned = _well_conditioned(scaled)
    if well_conditioned.all():
        return np.asarray(np.linalg.solve(scaled, right[:, :, None])[:, :, 0] / diagonals, dtype=np.float64)
    solved = np.empty_like(right)
    solved[well_conditioned] = np.linalg.solve(scaled[well_conditioned], right[well_conditioned][:, :, None])[:, :, 0]
    for index in np.flatnonzero(~well_conditioned):
        solved[index] = np.linalg.pinv(scaled[index], rcond=1e-11, hermitian=True) @ right[index]
    return np.asarray(solved / diagonals, dtype=np.float64)


def _well_conditioned(scaled: Floats) -> NDArray[np.bool_]:
    """(m,) whether every eigenvalue of symmetric matrices (m, p, p) with a unit diagonal is above 1e-11: the size of a solution does
    not show that its system is singular."""
    columns = scaled.shape[1]
    with suppress(np.linalg.LinAlgError):
        # Factors that exist for all say so at less cost than eigenvalues.
        factors = np.linalg.cholesky(scaled - _SINGULAR * np.eye(columns))
        if not columns or not np.isnan(factors[:, -1, -1]).any():
            return np.ones(len(scaled), dtype=bool)
    return np.asarray(np.linalg.eigvalsh(scaled)[:, 0] > _SINGULAR)


def _inverse(matrix: Floats) -> Floats:
    """(p, p) pseudo-inverse of a symmetric matrix, scaled to a unit diagonal first."""
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix / np.outer(scale, scale)
    return np.asarray(np.linalg.pinv(scaled, rcond=1e-13, hermitian=True) / np.outer(scale, scale), dtype=np.float64)
