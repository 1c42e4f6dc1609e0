"""Rows A1–A6 and B1–B3: a model refitted to its own draws, or to its own labels, under every data strategy. The learners are
toys: a Gaussian fitted by maximum likelihood, a categorical distribution of counts, and a linear regression. ``learning.strategies.mix`` gives the shares of the training set.

All loops start from the truth N(0, 1): real data, n draws; each model is fitted to the training set and draws n points.
T model generations are T fits: the first to real data. Shumailov et al. (2024), Gerstgrasser et al. (2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from judgeloop import seeds
from judgeloop.experiment.schema import StrategySpec
from judgeloop.learning import strategies
from judgeloop.seeds import rng
from judgeloop.validation.table import Row, SampleSizes, demand, sampled

Floats = NDArray[np.float64]

REPLACE = StrategySpec(kind="replace")
ACCUMULATE = StrategySpec(kind="accumulate")
SUBSAMPLE = StrategySpec(kind="accumulate_subsample")


def shares(strategy: StrategySpec, synthetic: int, *, fresh_real: bool = False) -> dict[int, float]:
    """Share of the training set by batch: 0 is generation 0's real batch, k ≥ 1 the k-th synthetic one; with
    ``fresh_real``, −1 is a new real batch, from which the share ``real_fraction`` comes.

    Not for accumulate_subsample, whose training set is a random draw.
    """
    training = strategies.mix(
        strategy,
        selections=[{str(k): 1.0} for k in range(1, synthetic + 1)],
        generation_zero={"0": 1.0},
        real={"-1": 1.0} if fresh_real else None,
        size=1,
        rng=seeds.rng(0, "validate", "no draw"),
    )
    return {int(batch): share for batch, share in training.items()}


def pointwise(
    strategy: StrategySpec, batches: list[list[str]], size: int, rng: np.random.Generator
) -> dict[str, float]:
    """The training set over single points: every batch is a uniform distribution over its ids."""
    parts = [dict.fromkeys(batch, 1.0 / len(batch)) for batch in batches]
    return strategies.mix(
        strategy, selections=parts[1:], generation_zero=parts[0], real=None, size=size, rng=rng
    )  # fmt: skip


def agrees(strategy: StrategySpec, synthetic: int, size: int = 4) -> bool:
    """Whether mixing points gives each point its batch's share, divided by the batch's size."""
    batches = [[f"{batch}:{point}" for point in range(size)] for batch in range(synthetic + 1)]
    points = pointwise(strategy, batches, size, seeds.rng(0, "validate", "no draw"))
    whole: Mapping[int, float] = shares(strategy, synthetic)
    expected = {f"{batch}:{p}": share / size for batch, share in whole.items() for p in range(size)}
    return expected.keys() == points.keys() and all(abs(points[name] - expected[name]) < 1e-12 for name in expected)


N, T = 50, 20
SWEEP = (1.0, 0.9, 0.5, 0.1, 0.02, 0.0)
_BLOCK = 4000
_ALIKE = "strategies.mix gives points another training set than batches"
_BATCHES = "shares of batches from strategies.mix, checked point by point"


def rows_a1(scale: SampleSizes) -> list[Row]:
    """Replace, maximum likelihood: Eσ² = (1 − 1/n)^T, E(μ − μ₀)² = 1 − (1 − 1/n)^T, E log σ² = T[ψ((n−1)/2) − log(n/2)]."""
    mean, variance = _refit(scale, "A1", REPLACE, scale.size(400_000, 20_000), unbiased=False)
    shrinkage = (1.0 - 1.0 / N) ** T
    drift = T * (digamma((N - 1) / 2) - math.log(N / 2))
    return _agreeing("A1", "replace, MLE", REPLACE, [
        ("E σ²", shrinkage, variance), ("E (μ−μ₀)²", 1.0 - shrinkage, mean**2), ("E log σ²", float(drift), np.log(variance)),
    ])  # fmt: skip


def rows_a2(scale: SampleSizes) -> list[Row]:
    """Replace, unbiased variance: Eσ² = 1 at every T (and σ² → 0 almost surely), E(μ − μ₀)² = T/n."""
    mean, variance = _refit(scale, "A2", REPLACE, scale.size(100_000, 10_000), unbiased=True)
    drift = T * (digamma((N - 1) / 2) - math.log((N - 1) / 2))
    return _agreeing("A2", "replace, unbiased variance", REPLACE, [
        ("E σ²", 1.0, variance), ("E (μ−μ₀)²", T / N, mean**2), ("E log σ²", float(drift), np.log(variance)),
    ])  # fmt: skip


def rows_a3(scale: SampleSizes) -> list[Row]:
    """Accumulate, maximum likelihood: Eσ² = Π(1 − 1/(nk²)), and E(μ − μ₀)² = 1 − Eσ², below π²/6n at every T.

    The mean moves by noise of variance V_{k−1}/(nk²) at fit k, and V_{k−1}/(nk²) = V_{k−1} − V_k: the sum telescopes.
    """
    mean, variance = _refit(scale, "A3", ACCUMULATE, scale.size(100_000, 20_000), unbiased=False)
    shrinkage = math.prod(1.0 - 1.0 / (N * k * k) for k in range(1, T + 1))
    rows = _agreeing(
        "A3", "accumulate, MLE", ACCUMULATE, [("E σ²", shrinkage, variance), ("E (μ−μ₀)²", 1 - shrinkage, mean**2)]
    )
    bound = math.pi**2 / (6 * N)
    displacement = float(np.mean(mean**2))
    bounded = displacement <= bound + rows[1].tolerance
    return [rows[0], demand(rows[1], bounded, f"beyond the bound π²/6n = {bound:.4f}")]


def rows_a4(scale: SampleSizes) -> list[Row]:
    """Accumulate-subsample: n draws with replacement from the union, as ``learning.strategies.mix`` draws, single points mixed.

    P_t the expected variance of the union of t batches, P_1 = 1 − 1/n. A model fitted to n draws from it has variance
    aP_t, a = 1 − 1/n, and a mean P_t/n around the union's; its batch of n joins, so that
    P_{t+1} = P_t·{t/(t+1) + a(1 − 1/n)/(t+1) + t/(t+1)²·[1/n + a/n]}. Without replacement
    (docs/method.md, "Analytic truths", row A4) the same with a = t(n−1)/(tn−1) and (t−1)/(tn−1) for 1/n.
    """
    size, steps = scale.size(4_000, 250, 6), T
    generator = rng(scale.seed, "validate", "A4")
    pools = np.empty(size)
    for replicate in range(size):
        values: dict[str, float] = {}
        batches: list[list[str]] = []
        mean, sd = 0.0, 1.0
        for t in range(steps):
            names = [f"{t}:{k}" for k in range(N)]
            values.update(zip(names, (mean + sd * generator.standard_normal(N)).tolist(), strict=True))
            batches.append(names)
            if t == steps - 1:
                break
            # With one batch there is no selection yet: the first model is fitted to a draw from real data alone.
            training = pointwise(SUBSAMPLE, batches if t else [names, names], N, generator)
            weight = np.fromiter(training.values(), dtype=np.float64)
            points = np.array([values[name] for name in training])
            mean = float(weight @ points)
            sd = math.sqrt(float(weight @ (points - mean) ** 2))
        pools[replicate] = np.var(list(values.values()))
    a = 1.0 - 1.0 / N
    expected = _pool_variance(steps, lambda _t: a, lambda _t: 1.0 / N)
    without = _pool_variance(steps, lambda t: t * (N - 1) / (t * N - 1), lambda t: (t - 1) / (t * N - 1))
    setting = f"accumulate-subsample, MLE, n={N}, T={T}, E pool σ², R={size}"
    return [sampled("A4", setting, expected, pools, note=f"drawn with replacement; without it {without:.4f}")]


def rows_a5(scale: SampleSizes) -> list[Row]:
    """A fresh real share α, from 1 to 0: s′ = (1−α)(1−1/n)s + α(1−1/n) + α(1−α)m; m′ = α/n + (1−α)²m + (1−α)s/n.

    n points, (1−α)n from N(μ, s) and αn from the truth: Eσ̂² = E mean x² − E x̄². Any α > 0 bounds variance and
    mean; α = 0 is A1.
    """
    rows = []
    size, steps = scale.size(20_000, 3_000), 60
    for alpha in SWEEP:
        s, m = 1.0, 0.0
        for _ in range(steps):
            a = 1.0 - 1.0 / N
            s, m = (
                (1 - alpha) * a * s + alpha * a + alpha * (1 - alpha) * m,
                alpha / N + (1 - alpha) ** 2 * m + (1 - alpha) * s / N,
            )
        mean, variance = _real_share(scale, alpha, size, steps)
        setting = f"real share α={alpha:g}, n={N}, t={steps}, R={size}"
        rows.append(sampled("A5", f"E σ², {setting}", s, variance, note=_BATCHES))
        rows.append(sampled("A5", f"E (μ−μ₀)², {setting}", m, mean**2, note=_BATCHES))
    return rows


def rows_a6(scale: SampleSizes) -> list[Row]:
    """Categorical (Wright–Fisher): H_T/H₀ = (1 − 1/n)^T under replace, Π(1 − 1/(nk²)) under accumulate; H = 1 − Σp²."""
    n, size, rows = 100, scale.size(20_000, 4_000), []
    truth = np.array([0.4, 0.3, 0.2, 0.1])
    for strategy, theory in (
        (REPLACE, (1.0 - 1.0 / n) ** T),
        (ACCUMULATE, math.prod(1.0 - 1.0 / (n * k * k) for k in range(1, T + 1))),
    ):
        generator = rng(scale.seed, "validate", "A6", strategy.kind)
        batches = [generator.multinomial(n, truth, size=size) / n]
        model = batches[0]
        for t in range(1, T):
            batches.append(generator.multinomial(n, model) / n)
            mixed = np.sum([share * batches[k] for k, share in shares(strategy, t).items()], axis=0)
            model = mixed / np.sum(mixed, axis=1, keepdims=True)
        ratios = (1.0 - np.sum(model**2, axis=1)) / (1.0 - float(truth @ truth))
        row = sampled(
            "A6", f"categorical, {strategy.kind}, n={n}, T={T}, H_T/H₀, R={size}", theory, ratios, note=_BATCHES
        )
        rows.append(demand(row, agrees(strategy, 3), _ALIKE))
    return rows


def _refit(
    scale: SampleSizes, name: str, strategy: StrategySpec, size: int, *, unbiased: bool
) -> tuple[Floats, Floats]:
    """(size,) mean and variance of the T-th fitted model."""
    means, variances = [], []
    for start in range(0, size, _BLOCK):
        generator = rng(scale.seed, "validate", name, start)
        count = min(_BLOCK, size - start)
        batches: list[tuple[Floats, Floats]] = []
        mean, variance = np.zeros(count), np.ones(count)
        for t in range(T):
            points = mean[:, None] + np.sqrt(variance)[:, None] * generator.standard_normal((count, N))
            batches.append((points.mean(axis=1), points.var(axis=1)))
            mean, variance = _pooled(batches, shares(strategy, t) if t else {0: 1.0})
            if unbiased:
                variance = variance * N / (N - 1)
        means.append(mean)
        variances.append(variance)
    return np.concatenate(means), np.concatenate(variances)


def _pooled(batches: list[tuple[Floats, Floats]], weights: dict[int, float]) -> tuple[Floats, Floats]:
    """Mean and maximum-likelihood variance of a mixture of batches."""
    mean = np.sum([share * batches[k][0] for k, share in weights.items()], axis=0)
    inside = [share * (batches[k][1] + (batches[k][0] - mean) ** 2) for k, share in weights.items()]
    return np.asarray(mean), np.asarray(np.sum(inside, axis=0))


def _real_share(scale: SampleSizes, alpha: float, size: int, steps: int) -> tuple[Floats, Floats]:
    """(size,) mean and variance of the last model, each fitted to (1 − α)n points of the one before and αn real ones."""
    parts = shares(StrategySpec(kind="replace", real_fraction=alpha), 1, fresh_real=True)
    counts = {batch: round(N * share) for batch, share in parts.items()}
    generator = rng(scale.seed, "validate", "A5", str(alpha))
    mean, variance = np.zeros(size), np.ones(size)
    for _ in range(steps):
        noise = generator.standard_normal((size, N))
        real = counts.get(-1, 0)
        points = noise.copy()
        points[:, real:] = mean[:, None] + np.sqrt(variance)[:, None] * noise[:, real:]
        mean, variance = points.mean(axis=1), points.var(axis=1)
    return np.asarray(mean), np.asarray(variance)


def _pool_variance(batches: int, a: Callable[[int], float], centre: Callable[[int], float]) -> float:
    """The recursion of ``rows_a4``: the expected variance of the union of ``batches`` batches; ``a`` and ``centre`` by t."""
    value = 1.0 - 1.0 / N
    for t in range(1, batches):
        factor = t / (t + 1) + a(t) * (1 - 1 / N) / (t + 1) + t / (t + 1) ** 2 * (centre(t) + a(t) / N)
        value *= factor
    return value


def _agreeing(name: str, setting: str, strategy: StrategySpec, parts: list[tuple[str, float, Floats]]) -> list[Row]:
    """Rows by sampling, failed where mixing batches and mixing single points are not the same training set."""
    agree = agrees(strategy, 3)
    return [
        demand(sampled(name, f"{what}, {setting}, n={N}, T={T}, R={len(draws)}", theory, draws, note=_BATCHES), agree, _ALIKE)
        for what, theory, draws in parts
    ]  # fmt: skip


# Rows B1–B3: linear regression refitted to its own labels

ROWS, D, GENERATIONS = 50, 10, 10
SYNTHETIC, BEND = 1e-3, 10.0
NOISE = 0.1


def rows_b1(scale: SampleSizes) -> list[Row]:
    """Replace: every generation labels a fresh design with the last fit and noise; E‖ŵ_g − w‖² = g·σ²d/(T − d − 1)."""
    errors = _chain(scale, "B1", REPLACE, scale.size(20_000, 3_000), fresh=True)
    theory = GENERATIONS * D / (ROWS - D - 1)
    return [sampled("B1", f"regression, replace, T={ROWS}, d={D}, g={GENERATIONS}, R={len(errors)}", theory, errors)]


def rows_b2(scale: SampleSizes) -> list[Row]:
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


def rows_b3(scale: SampleSizes) -> list[Row]:
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


def _chain(scale: SampleSizes, name: str, strategy: StrategySpec, size: int, *, fresh: bool) -> Floats:
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


def _bent(scale: SampleSizes, size: int, d: int, generations: int, count: int) -> Floats:
    """(count,) squared errors of the last generation of ``rows_b3``, noise SD NOISE."""
    parts = shares(StrategySpec(kind="replace", real_fraction=1.0 - SYNTHETIC), 1, fresh_real=True)
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
