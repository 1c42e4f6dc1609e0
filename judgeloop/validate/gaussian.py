"""Rows A1–A6: a model refitted to its own draws, under every data strategy. The learners are toys: a Gaussian fitted by
maximum likelihood and a categorical distribution of counts. ``strategies.mix`` gives the shares of the training set.

All loops start from the truth N(0, 1): real data, n draws; each model is fitted to the training set and draws n points.
T model generations are T fits: the first to real data. Shumailov et al. (2024), Gerstgrasser et al. (2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import digamma

from judgeloop.experiment.schema import Strategy
from judgeloop.seeds import rng
from judgeloop.validate.mixing import ACCUMULATE, REPLACE, SUBSAMPLE, Floats, agrees, pointwise, shares
from judgeloop.validate.row import Row, Scale, demand, sampled

N, T = 50, 20
SWEEP = (1.0, 0.9, 0.5, 0.1, 0.02, 0.0)
_BLOCK = 4000
_ALIKE = "strategies.mix gives points another training set than batches"
_BATCHES = "shares of batches from strategies.mix, checked point by point"


def rows_a1(scale: Scale) -> list[Row]:
    """Replace, maximum likelihood: Eσ² = (1 − 1/n)^T, E(μ − μ₀)² = 1 − (1 − 1/n)^T, E log σ² = T[ψ((n−1)/2) − log(n/2)]."""
    mean, variance = _refit(scale, "A1", REPLACE, scale.size(400_000, 20_000), unbiased=False)
    shrinkage = (1.0 - 1.0 / N) ** T
    drift = T * (digamma((N - 1) / 2) - math.log(N / 2))
    return _agreeing("A1", "replace, MLE", REPLACE, [
        ("E σ²", shrinkage, variance), ("E (μ−μ₀)²", 1.0 - shrinkage, mean**2), ("E log σ²", float(drift), np.log(variance)),
    ])  # fmt: skip


def rows_a2(scale: Scale) -> list[Row]:
    """Replace, unbiased variance: Eσ² = 1 at every T (and σ² → 0 almost surely), E(μ − μ₀)² = T/n."""
    mean, variance = _refit(scale, "A2", REPLACE, scale.size(100_000, 10_000), unbiased=True)
    drift = T * (digamma((N - 1) / 2) - math.log((N - 1) / 2))
    return _agreeing("A2", "replace, unbiased variance", REPLACE, [
        ("E σ²", 1.0, variance), ("E (μ−μ₀)²", T / N, mean**2), ("E log σ²", float(drift), np.log(variance)),
    ])  # fmt: skip


def rows_a3(scale: Scale) -> list[Row]:
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


def rows_a4(scale: Scale) -> list[Row]:
    """Accumulate-subsample: n draws with replacement from the union, as ``strategies.mix`` draws, single points mixed.

    P_t the expected variance of the union of t batches, P_1 = 1 − 1/n. A model fitted to n draws from it has variance
    aP_t, a = 1 − 1/n, and a mean P_t/n around the union's; its batch of n joins, so that
    P_{t+1} = P_t·{t/(t+1) + a(1 − 1/n)/(t+1) + t/(t+1)²·[1/n + a/n]}. Without replacement (the method notes' A4) the same
    with a = t(n−1)/(tn−1) and (t−1)/(tn−1) for 1/n.
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


def rows_a5(scale: Scale) -> list[Row]:
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


def rows_a6(scale: Scale) -> list[Row]:
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


def _refit(scale: Scale, name: str, strategy: Strategy, size: int, *, unbiased: bool) -> tuple[Floats, Floats]:
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


def _real_share(scale: Scale, alpha: float, size: int, steps: int) -> tuple[Floats, Floats]:
    """(size,) mean and variance of the last model, each fitted to (1 − α)n points of the one before and αn real ones."""
    parts = shares(Strategy(kind="replace", real_fraction=alpha), 1, fresh_real=True)
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


def _agreeing(name: str, setting: str, strategy: Strategy, parts: list[tuple[str, float, Floats]]) -> list[Row]:
    """Rows by sampling, failed where mixing batches and mixing single points are not the same training set."""
    agree = agrees(strategy, 3)
    return [
        demand(sampled(name, f"{what}, {setting}, n={N}, T={T}, R={len(draws)}", theory, draws, note=_BATCHES), agree, _ALIKE)
        for what, theory, draws in parts
    ]  # fmt: skip
