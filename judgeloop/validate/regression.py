"""Rows B1–B3: linear regression refitted to its own labels. The learner is ordinary least squares, a toy;
``strategies.mix`` gives the shares of the training set. The error of generation g is E‖ŵ_g − w‖².
"""

from __future__ import annotations

import math

import numpy as np

from judgeloop.experiment.schema import Strategy
from judgeloop.seeds import rng
from judgeloop.validate.mixing import ACCUMULATE, REPLACE, Floats, shares
from judgeloop.validate.row import Row, Scale, sampled

ROWS, D, GENERATIONS = 50, 10, 10
SYNTHETIC, BEND = 1e-3, 10.0
NOISE = 0.1


def rows_b1(scale: Scale) -> list[Row]:
    """Replace: every generation labels a fresh design with the last fit and noise; E‖ŵ_g − w‖² = g·σ²d/(T − d − 1)."""
    errors = _chain(scale, "B1", REPLACE, scale.size(20_000, 3_000), fresh=True)
    theory = GENERATIONS * D / (ROWS - D - 1)
    return [sampled("B1", f"regression, replace, T={ROWS}, d={D}, g={GENERATIONS}, R={len(errors)}", theory, errors)]


def rows_b2(scale: Scale) -> list[Row]:
    """Accumulate: with one design for all generations ×Σ_{k≤g} 1/k² ≤ π²/6; with fresh designs exactly
    Σ_k d/(k(kT − d − 1)), for ŵ_k − ŵ_{k−1} = (ΣX_jᵀX_j)⁻¹X_kᵀe_k, and by symmetry over the k designs its square is σ²/k
    times the expected trace of (ΣX_jᵀX_j)⁻¹, an inverse Wishart of kT degrees of freedom."""
    base = D / (ROWS - D - 1)
    same = base * sum(1.0 / k**2 for k in range(1, GENERATIONS + 1))
    fresh = sum(D / (k * (k * ROWS - D - 1)) for k in range(1, GENERATIONS + 1))
    rows = []
    for name, theory, is_fresh in (("same X", same, False), ("fresh X", fresh, True)):
        errors = _chain(scale, f"B2 {name}", ACCUMULATE, scale.size(20_000, 3_000), fresh=is_fresh)
        setting = f"regression, accumulate, {name}, T={ROWS}, d={D}, g={GENERATIONS}, R={len(errors)}"
        rows.append(sampled("B2", setting, theory, errors, note=f"bound π²/6: {base * math.pi**2 / 6:.4f}"))
    return rows


def rows_b3(scale: Scale) -> list[Row]:
    """A thousandth of synthetic data under replace leaves an error floor that more data does not remove.

    Each generation trains on T rows, a fixed share ε = 1/1000 of them labelled by the last model bent by δ (its
    judge's bias), the rest real: v_g = ŵ_g − w obeys v_{g+1} = B(v_g + δ) + noise, B = (XᵀX)⁻¹X_sᵀX_s with s = εT rows X_s.
    For Gaussian X: E B = εI, the noise adds σ²d/(T − d − 1), and by rotation invariance E‖Bv‖² = c‖v‖², so

        E‖v_{g+1}‖² = c·(E‖v_g‖² + 2δᵀE v_g + ‖δ‖²) + σ²d/(T − d − 1),   E v_{g+1} = ε(E v_g + δ).

    c is exact: with A = XᵀX ~ Wishart(T) and U = A^{−1/2}X_sᵀX_sA^{−1/2} independent of it (matrix beta),
    c·d = E tr(AUA⁻¹U) = (x + y)E trU² + y E(trU)², where x, y solve d²x + 2dy = E trA trA⁻¹ = d(Td − 2)/(T − d − 1) and
    dx + d(d + 1)y = d; and E trU², E(trU)² follow from the same two contractions of A with itself and the Wishart moments
    E tr S² = sd(s + d + 1), E(tr S)² = sd(sd + 2) of S = X_sᵀX_s. As T → ∞, c → ε² and the error → ‖εδ/(1 − ε)‖² > 0 at
    the fixed point (the strong collapse of Dohmatob et al. 2024, where the synthetic share is fixed).
    """
    d, generations, rows = 5, 3, []
    floor = (SYNTHETIC * BEND / (1.0 - SYNTHETIC)) ** 2
    for size in (4_000, 16_000, 64_000):
        count = scale.size(max(200, 4_000_000 // size), max(60, 800_000 // size))
        errors = _bent(scale, size, d, generations, count)
        theory = small_share_error(size, d, generations)
        setting = f"ε={SYNTHETIC:g} synthetic, replace, ‖δ‖={BEND:g}, T={size}, d={d}, g={generations}, R={count}"
        rows.append(
            sampled("B3", setting, theory, errors, note=f"floor at T = ∞: {floor:.3e}, {floor / theory:.0%} of it")
        )
    return rows


def small_share_error(rows: int, d: int, generations: int) -> float:
    """E‖ŵ_g − w‖² of ``rows_b3`` after that many generations; the first model is the truth."""
    s = round(SYNTHETIC * rows)
    second = np.array([[d * d, 2.0 * d], [d, d * (d + 1.0)]])

    def wishart(n: float) -> Floats:
        """E (tr)² and E tr of the square."""
        return np.array([n * d * (n * d + 2.0), n * d * (n + d + 1.0)])

    x, y = np.linalg.solve(second, wishart(rows))
    # (tr AU)² = x(trU)² + 2y trU²; tr AUAU = y(trU)² + (x + y)trU².
    u = np.linalg.solve(np.array([[x, 2.0 * y], [y, x + y]]), wishart(s))
    x, y = np.linalg.solve(second, np.array([d * (rows * d - 2.0) / (rows - d - 1.0), d]))
    c = ((x + y) * u[1] + y * u[0]) / d
    share, mean, error = s / rows, 0.0, 0.0
    for _ in range(generations):
        error = c * (error + 2.0 * BEND * mean + BEND**2) + NOISE**2 * d / (rows - d - 1.0)
        mean = share * (mean + BEND)
    return float(error)


def _chain(scale: Scale, name: str, strategy: Strategy, size: int, *, fresh: bool) -> Floats:
    """(size,) squared errors of the last generation, noise variance 1."""
    errors = []
    for start in range(0, size, 1000):
        generator = rng(scale.seed, "validate", name, start)
        count = min(1000, size - start)
        fitted = np.zeros((count, D))
        squares, products = [], []
        design = generator.standard_normal((count, ROWS, D))
        for g in range(GENERATIONS):
            if fresh and g:
                design = generator.standard_normal((count, ROWS, D))
            labels = np.einsum("rij,rj->ri", design, fitted) + generator.standard_normal((count, ROWS))
            squares.append(np.swapaxes(design, 1, 2) @ design)
            products.append(np.einsum("rij,ri->rj", design, labels))
            mixed = shares(strategy, g) if g else {0: 1.0}
            square = sum(share * squares[k] for k, share in mixed.items())
            product = sum(share * products[k] for k, share in mixed.items())
            fitted = np.linalg.solve(square, np.asarray(product)[:, :, None])[:, :, 0]
        errors.append(np.sum(fitted**2, axis=1))
    return np.concatenate(errors)


def _bent(scale: Scale, size: int, d: int, generations: int, count: int) -> Floats:
    """(count,) squared errors of the last generation of ``rows_b3``, noise SD NOISE."""
    parts = shares(Strategy(kind="replace", real_fraction=1.0 - SYNTHETIC), 1, fresh_real=True)
    synthetic = round(size * parts[1])
    bend = np.zeros(d)
    bend[0] = BEND
    errors = np.empty(count)
    for replicate in range(count):
        generator = rng(scale.seed, "validate", "B3", size, replicate)
        fitted: Floats = np.zeros(d)
        for _ in range(generations):
            design = generator.standard_normal((size, d))
            labels = NOISE * generator.standard_normal(size)
            labels[:synthetic] += design[:synthetic] @ (fitted + bend)
            fitted = np.asarray(np.linalg.solve(design.T @ design, design.T @ labels), dtype=np.float64)
        errors[replicate] = float(fitted @ fitted)
    return errors
