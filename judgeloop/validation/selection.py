"""Rows C1–C5 and D1–D3: the effect of selection, once and iterated, on a Gaussian policy. ``learning.selection`` and
``learning.labels`` select, ``learning.strategies.mix`` mixes; the learner that refits a Gaussian to a training set is a toy.

A Gaussian is a lattice of texts: points of step ½ SD with normal weights, whose moments, and those of its exponential
tilts, are a Gaussian's to 1e−15 (Poisson summation: the error is e^(−2π²/h²)). So the closed forms hold for the discrete
distributions that the public functions take.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, stats

from judgeloop.experiment.schema import StrategySpec
from judgeloop.learning import labels, strategies
from judgeloop.learning import selection as selecting
from judgeloop.seeds import rng
from judgeloop.validation.refits import ACCUMULATE, REPLACE, Floats
from judgeloop.validation.table import MULTIPLE, Row, SampleSizes, compare, exact, sampled, spread
from judgeloop.validation.worlds import judged, logistic, pair_table

RHO = 0.3
SIGMA = np.array([[1.0, RHO], [RHO, 1.0]])
ROOT = np.linalg.cholesky(SIGMA)
B = np.array([0.3, 1.0])
LATTICE = np.arange(-24, 25) * 0.5
NAMES = [f"{k}" for k in range(len(LATTICE))]
WEIGHTS = np.exp(-0.5 * LATTICE**2)
GAUSSIAN = dict(zip(NAMES, (WEIGHTS / WEIGHTS.sum()).tolist(), strict=True))
C = 0.3
SWEEP = (1.0, 0.9, 0.75, 0.5, 0.45, 0.25, 0.1)


def largest(n: int) -> tuple[float, float]:
    """(e_n, v_n): mean and variance of the largest of n standard normal draws, by quadrature."""

    def moment(power: int) -> float:
        def density(z: float) -> float:
            return float(z**power * n * stats.norm.pdf(z) * stats.norm.cdf(z) ** (n - 1))

        return float(integrate.quad(density, -12.0, 12.0, epsabs=1e-12)[0])

    return moment(1), moment(2) - moment(1) ** 2


def best_of(points: Floats, reward: Floats) -> Floats:
    """(items, 2) the point that ``learning.selection.winner`` keeps of each item's (items, n, 2) points, by reward (items, n)."""
    names = [str(k) for k in range(reward.shape[1])]
    winners = np.empty((len(points), points.shape[2]))
    for i, values in enumerate(reward.tolist()):
        law = selecting.winner(dict(zip(names, values, strict=True)))
        winners[i] = np.fromiter(law.values(), dtype=np.float64, count=len(law)) @ points[i]
    return winners


def rows_c1(scale: SampleSizes) -> list[Row]:
    """Best of n by r = bᵀx: Δ = Σb e_n/√(bᵀΣb), Σ′ = Σ − (1 − v_n)Σbbᵀ Σ/(bᵀΣb); and the exact law on a pool."""
    n, items = 8, scale.size(40_000, 8_000)
    e, v = largest(n)
    points = rng(scale.seed, "validate", "C1").standard_normal((items, n, 2)) @ ROOT.T
    winners = best_of(points, points @ B)
    q = float(B @ SIGMA @ B)
    shift = SIGMA @ B * e / math.sqrt(q)
    after = SIGMA - (1.0 - v) * np.outer(SIGMA @ B, SIGMA @ B) / q
    setting = f"best of {n}, M={items}"
    # 4,000 equal masses at the normal's quantile midpoints: the pool's own e_n differs by less than 1e−3.
    pool = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    names = [str(k) for k in range(len(pool))]
    law = selecting.best_of_n_law(
        dict.fromkeys(names, 1.0 / len(pool)), dict(zip(names, pool.tolist(), strict=True)), n
    )
    mean = float(np.fromiter(law.values(), dtype=np.float64) @ pool)
    return [
        sampled("C1", f"Δ length, {setting}", float(shift[0]), winners[:, 0]),
        sampled("C1", f"Δ quality, {setting}", float(shift[1]), winners[:, 1]),
        sampled("C1", f"variance of length, {setting}", float(after[0, 0]), (winners[:, 0] - shift[0]) ** 2),
        sampled(
            "C1", f"covariance, {setting}", float(after[0, 1]), (winners[:, 0] - shift[0]) * (winners[:, 1] - shift[1])
        ),
        exact("C1", f"e_{n} by best_of_n_law on a pool of 4000", e, mean, 1e-3, "discretised pool"),
    ]  # fmt: skip


def rows_c2(scale: SampleSizes) -> list[Row]:
    """Best of 4, refitted: the recursion of C1; a single feature's limit is e_n/(1 − √v_n). Drift ends
    as the variance does."""
    n, items, chains = 4, 1_000, scale.size(200, 32)
    e, v = largest(n)
    generations = {1, 2, 4, 8}
    mean, cov, theory = np.zeros(2), SIGMA.copy(), {}
    for t in range(1, 9):
        u, q = cov @ B, float(B @ cov @ B)
        mean, cov = mean + u * e / math.sqrt(q), cov - (1.0 - v) * np.outer(u, u) / q
        theory[t] = float(mean[0])
    drifts: dict[int, list[float]] = {t: [] for t in generations}
    for chain in range(chains):
        generator = rng(scale.seed, "validate", "C2", chain)
        mean, cov = np.zeros(2), SIGMA.copy()
        for t in range(1, 9):
            points = mean + generator.standard_normal((items, n, 2)) @ np.linalg.cholesky(cov).T
            winners = best_of(points, points @ B)
            mean, cov = winners.mean(axis=0), np.cov(winners.T)
            if t in generations:
                drifts[t].append(float(mean[0]))
    naive = f"without the loss of variance {8 * theory[1]:.3f}"
    return [
        sampled("C2", f"best of {n} refitted, drift of length after {t}, M={items}, R={chains}", theory[t], drifts[t],
                note=naive if t == 8 else "")
        for t in sorted(generations)
    ]  # fmt: skip


def rows_c3(scale: SampleSizes) -> list[Row]:
    """The winners of judged pairs, by ``learning.labels.preferences``: Δ = 2Σb·E s′(η), η ~ N(0, 2bᵀΣb) (Stein)."""
    pairs = scale.size(40_000, 8_000)
    generator = rng(scale.seed, "validate", "C3")
    points = generator.standard_normal((pairs, 2, 2)) @ ROOT.T
    picked = generator.random(pairs) < logistic((points[:, 0] - points[:, 1]) @ B)
    table = judged(pair_table(pairs), {"ab": np.where(picked, "first", "second")})
    preferences = labels.preferences(table, "raw")
    where = preferences["item_id"].str[1:].astype(int).to_numpy()
    chosen = points[where, (preferences["chosen"] == "b").to_numpy().astype(int)]
    sd = math.sqrt(2.0 * float(B @ SIGMA @ B))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    slope = float(weights @ _sech(sd * nodes)) / math.sqrt(2.0 * math.pi)
    shift = 2.0 * SIGMA @ B * slope
    setting = f"winners of judged pairs, M={pairs}"
    return [
        sampled("C3", f"Δ length, {setting}", float(shift[0]), chosen[:, 0]),
        sampled("C3", f"Δ quality, {setting}", float(shift[1]), chosen[:, 1]),
    ]


def rows_c4(scale: SampleSizes) -> list[Row]:
    """Goodhart's sign: proxy q + bx, gold q − cx; best of n by proxy changes gold by e_n(1 − bc)/√(1 + b²)."""
    n, items, rows = 16, scale.size(30_000, 8_000), []
    e, _ = largest(n)
    for b, c in ((1.5, 1.0), (0.5, 0.5)):
        points = rng(scale.seed, "validate", "C4", str(b)).standard_normal((items, n, 2))
        winners = best_of(points, points @ np.array([b, 1.0]))
        gain = e * (1.0 - b * c) / math.sqrt(1.0 + b * b)
        rows.append(
            sampled("C4", f"gold gain, b={b:g}, c={c:g}, best of {n}, M={items}", gain, winners @ np.array([-c, 1.0]))
        )
    return rows  # fmt: skip


def rows_c5(scale: SampleSizes) -> list[Row]:
    """Advantages over the mean of a group of K: their tilt of step η is that of the scores with 1/τ = η(K − 1)/K. Divided by the
    group's SD their covariance with normal scores is (K − 1)/K·c₄·SD(s), c₄ = √(2/(K − 1))·Γ(K/2)/Γ((K − 1)/2) the mean SD of
    K standard normal draws, for the sum over a group of A_j(s_j − m) is (K − 1)·SD: in SDs of the scores the push does not
    depend on how far they are apart; undivided it is (K − 1)/K·SD(s)."""
    size, step, rows = 8, 2.0, []
    scores = dict(zip(NAMES, (C * LATTICE).tolist(), strict=True))
    stream = rng(scale.seed, "validate", "C5")
    advantage = selecting.expected_advantage(GAUSSIAN, scores, size, normalize="none", rng=stream)
    law = np.fromiter(selecting.tilt(GAUSSIAN, advantage, 1.0 / step).values(), dtype=np.float64)
    setting = f"K={size}, step {step:g}, scores {C:g}x"
    rows.append(exact("C5", f"mean of x, {setting}", step * C * (size - 1) / size, float(law @ LATTICE), 1e-9))
    # As in C1, with variance 1: its groups' mean SD is larger than the normal's by 5e−4.
    pool = stats.norm.ppf((np.arange(500) + 0.5) / 500)
    pool /= pool.std()
    names = [str(k) for k in range(len(pool))]
    reference = dict.fromkeys(names, 1.0 / len(pool))
    c4 = math.sqrt(2.0 / (size - 1)) * math.exp(math.lgamma(size / 2) - math.lgamma((size - 1) / 2))
    for sd in (1.0, 0.01):
        scores = dict(zip(names, (sd * pool).tolist(), strict=True))
        pushes: list[float] = []
        for _ in range(scale.size(24, 12)):
            advantage = selecting.expected_advantage(reference, scores, size, normalize="sd", rng=stream)
            pushes.append(float(np.fromiter(advantage.values(), dtype=np.float64) @ pool) / len(pool))
        setting = f"Cov(A, s)/SD(s), divided, K={size}, SD of scores {sd:g}, R={len(pushes)}"
        # Over groups the push has SD 0.18.
        tolerance = MULTIPLE * 0.18 / math.sqrt(selecting.MOST_GROUPS * len(pushes)) + 5e-4
        note = f"not divided: {(size - 1) / size * sd:.4f}"
        rows.append(sampled("C5", setting, (size - 1) / size * c4, pushes, tolerance=tolerance, note=note))
    return rows


def rows_d1(scale: SampleSizes) -> list[Row]:
    """Tilt by e^{cx}, refit to n draws, replace: E μ_T = Tc, and the variance between chains is
    T/n + c²[Σ_{s,t<T} r^{min(s,t)} − T²], r = 1 + 2/(n − 1), for σ̂² is a martingale with E σ̂⁴ = r^t; to first order
    T/n + 2c²/(n − 1)·Σ_{j<T} j²."""
    n, steps, chains = 500, 10, scale.size(6_000, 1_000)
    generator = rng(scale.seed, "validate", "D1")
    ends = np.empty(chains)
    for chain in range(chains):
        mean, sd = 0.0, 1.0
        for _ in range(steps):
            law = _tilted(GAUSSIAN, mean, sd)
            draws = mean + sd * LATTICE[_draw(law, n, generator)]
            mean, sd = float(draws.mean()), float(draws.std(ddof=1))
        ends[chain] = mean
    r = 1.0 + 2.0 / (n - 1)
    wobble = sum(r ** min(s, t) for s in range(steps) for t in range(steps)) - steps**2
    setting = f"tilt c={C:g}, replace, n={n}, T={steps}, R={chains}"
    return [
        sampled("D1", f"μ_T, {setting}", steps * C, ends),
        spread("D1", f"sd of one chain, {setting}", math.sqrt(steps / n + C**2 * wobble), ends),
    ]


def rows_d2(_scale: SampleSizes) -> list[Row]:
    """Accumulate: μ_{k+1} = μ_k + cV_k/(k+1), V_{k+1} = V_k + k/(k+1)²(cV_k)²; σ fixed: c(H_{T+1} − 1): log T, unbounded."""
    rows = []
    for steps in (10, 40):
        mean, variance = 0.0, 1.0
        for k in range(1, steps + 1):
            mean, variance = mean + C * variance / (k + 1), variance + k / (k + 1) ** 2 * (C * variance) ** 2
        moments = _tilt_loop(ACCUMULATE, steps, fixed=False)
        rows.append(
            exact(
                "D2", f"accumulate, refitted σ, μ_{steps}", mean, moments[0], 1e-6, "infinite draws: a lattice of texts"
            )
        )
        rows.append(exact("D2", f"accumulate, refitted σ, σ²_{steps}", variance, moments[1], 1e-6))
        harmonic = sum(1.0 / k for k in range(1, steps + 2))
        grown = _tilt_loop(ACCUMULATE, steps, fixed=True)[0]
        rows.append(
            exact("D2", f"accumulate, σ fixed, μ_{steps}", C * (harmonic - 1.0), grown, 1e-6, f"replace {steps * C:g}")
        )
    rows.append(exact("D2", "replace, σ fixed, μ_40", 40 * C, _tilt_loop(REPLACE, 40, fixed=True)[0], 1e-6))
    return rows  # fmt: skip


def rows_d3(_scale: SampleSizes) -> list[Row]:
    """A real share α from 1 to 0. σ fixed: μ_T = c(1−α)(1 − (1−α)^T)/α → c(1−α)/α. σ refitted: at the fixed point
    V = 1 + (1−α)c²V²/α², μ = c(1−α)V/α; none where 4(1−α)c² > α²: the loop then leaves
    every bound."""
    rows = []
    for alpha in SWEEP:
        strategy = StrategySpec(kind="replace", real_fraction=alpha)
        steps = 10
        theory = C * (1 - alpha) * (1 - (1 - alpha) ** steps) / alpha
        rows.append(
            exact("D3", f"α={alpha:g}, σ fixed, μ_{steps}", theory, _tilt_loop(strategy, steps, fixed=True)[0], 1e-6)
        )
        gain = 4.0 * (1.0 - alpha) * C**2
        mean, variance = _tilt_loop(strategy, 400, fixed=False)
        if gain > alpha**2:
            grown = float(variance > 40.0)
            rows.append(
                compare(
                    "D3",
                    f"α={alpha:g}, σ refitted, leaves every bound",
                    1.0,
                    grown,
                    0.0,
                    tolerance=0.0,
                    note="no fixed point: 1 = variance beyond 40",
                )
            )
            continue
        ratio = (1.0 - alpha) * C**2 / alpha**2
        fixed = 1.0 if ratio == 0.0 else (1.0 - math.sqrt(1.0 - 4.0 * ratio)) / (2.0 * ratio)
        rows.append(exact("D3", f"α={alpha:g}, σ refitted, V*", fixed, variance, 1e-6))
        rows.append(exact("D3", f"α={alpha:g}, σ refitted, μ*", C * (1 - alpha) * fixed / alpha, mean, 1e-6))
    moments = _tilt_loop(StrategySpec(kind="replace", real_fraction=0.0), 10, fixed=False)
    rows.append(exact("D3", "α=0, σ refitted, μ_10", 10 * C, moments[0], 1e-6, "no fixed point: grows for ever"))
    return rows  # fmt: skip


def _sech(eta: Floats) -> Floats:
    """(n,) s′(η), the slope of the logistic function."""
    return np.asarray(0.25 / np.cosh(eta / 2.0) ** 2)


def _tilted(reference: dict[str, float], mean: float, sd: float) -> Floats:
    reward = dict(zip(NAMES, (C * (mean + sd * LATTICE)).tolist(), strict=True))
    return np.fromiter(selecting.tilt(reference, reward, 1.0).values(), dtype=np.float64)


def _draw(law: Floats, n: int, generator: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.minimum(np.searchsorted(np.cumsum(law), generator.random(n), side="right"), len(law) - 1)


def _tilt_loop(strategy: StrategySpec, steps: int, *, fixed: bool) -> tuple[float, float]:
    """Mean and variance of the policy after that many feedback steps, with infinite draws."""
    places: dict[str, float] = dict(zip((f"real:{n}" for n in NAMES), LATTICE.tolist(), strict=True))
    zero = {f"real:{name}": mass for name, mass in GAUSSIAN.items()}
    chosen: list[dict[str, float]] = []
    mean, variance = 0.0, 1.0
    for t in range(steps):
        sd = math.sqrt(variance)
        points = mean + sd * LATTICE
        places.update({f"{t}:{name}": float(x) for name, x in zip(NAMES, points, strict=True)})
        law = _tilted(GAUSSIAN, mean, sd)
        chosen.append({f"{t}:{name}": float(mass) for name, mass in zip(NAMES, law, strict=True)})
        if strategy.kind == "replace":
            chosen = chosen[-1:]
        training = strategies.mix(
            strategy, selections=chosen, generation_zero=zero, real=None, size=1, rng=rng(0, "validate", "no draw")
        )
        weight = np.fromiter(training.values(), dtype=np.float64)
        x = np.array([places[name] for name in training])
        mean = float(weight @ x)
        if not fixed:
            variance = float(weight @ (x - mean) ** 2)
        if variance > 40.0:
            break
    return mean, variance
