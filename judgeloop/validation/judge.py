"""Rows E1–H: what is estimated of a judge. E is position bias, through ``stats.judge.position`` and ``learning.labels``; F and G
are content slopes, through ``learning.signals`` and the content model of ``stats``; H is the planted law over real HTTP, through
server, client, prompts, parsing, tables and estimators.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from judgeloop.experiment.schema import Endpoint, LabelRule, ModelJudgeSpec, PoolPolicySpec
from judgeloop.judging.judges import make_judge
from judgeloop.judging.pairing import judgments_frame, presentations
from judgeloop.learning import labels, signals
from judgeloop.policies import Drafter
from judgeloop.records import Candidate, Item, Judgment, Matchup
from judgeloop.seeds import rng
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.judge.covariates import Covariates, covariates
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.judge.slopes import GOLD, Slopes, fit_slopes
from judgeloop.text import templates
from judgeloop.text.features import FEATURES, features_frame
from judgeloop.text.templates import Mode
from judgeloop.validation.table import Row, SampleSizes, compare, covered, demand, exact, rejected, sampled
from judgeloop.validation.worlds import Floats, judged, logistic, pair_table, picks, texts
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import WireClient

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


def normal_mean(values: Floats) -> float:
    """E of a function of a standard normal, from its (60,) values at the Hermite nodes."""
    return float(values @ _WEIGHTS) / math.sqrt(2.0 * math.pi)


def number(value: float | None) -> float:
    """The value, NaN (which fails any row) where an estimate is undefined."""
    return math.nan if value is None else value


def holds(estimate: Estimate, truth: float) -> bool:
    """Whether an estimate has an interval and it covers the truth."""
    return (
        estimate.conf_low is not None
        and estimate.conf_high is not None
        and estimate.conf_low <= truth <= estimate.conf_high
    )


# Position bias

POSITION_GAMMA, ITEM_SD = 0.4, 1.5


def rows_e1(scale: SampleSizes) -> list[Row]:
    """γ̂ = ½ log(n_FF/n_SS) recovers γ whatever the pairs differ in; p_F = E ½[s(γ + δ) + s(γ − δ)], δ ~ N(0, 1.5²)."""
    pairs, size = 500, scale.size(4_000, 160)
    table = pair_table(pairs)
    log_odds: list[Estimate] = []
    rates: list[Estimate] = []
    for replicate in range(size):
        generator = rng(scale.seed, "validate", "E1", replicate)
        delta = ITEM_SD * generator.standard_normal(pairs)
        verdicts = {"ab": picks(POSITION_GAMMA + delta, generator), "ba": picks(POSITION_GAMMA - delta, generator)}
        estimates = {row.term: row for row in position_estimates(judged(table, verdicts)) if not row.variant}
        log_odds.append(estimates["position_log_odds"])
        rates.append(estimates["first_slot_excess"])
    excess = normal_mean(logistic(POSITION_GAMMA + ITEM_SD * _NODES)) - 0.5
    setting = f"γ={POSITION_GAMMA:g}, item sd {ITEM_SD:g}, n={pairs} pairs, R={size}"
    # Half the log of a ratio of counts has a bias of order 1/n_SS (a tenth of an error of the estimate).
    return [
        sampled(
            "E1", f"position_log_odds, {setting}", POSITION_GAMMA, [number(estimate.estimate) for estimate in log_odds]
        ),
        covered(
            "E1", f"position_log_odds covers, {setting}", [holds(estimate, POSITION_GAMMA) for estimate in log_odds]
        ),
        sampled("E1", f"first_slot_excess, {setting}", excess, [number(estimate.estimate) for estimate in rates]),
        covered("E1", f"first_slot_excess covers, {setting}", [holds(estimate, excess) for estimate in rates]),
    ]


def rows_e2(scale: SampleSizes) -> list[Row]:
    """swap_average: ½[s(δ + γ) + s(δ − γ)] exactly; antisymmetric, ½ at δ = 0, slope there ×sech²(γ/2)."""
    rows = []
    contents = np.abs(rng(scale.seed, "validate", "E2").standard_normal(200)) * 2.0
    step = 1e-4
    delta = np.concatenate([contents, -contents, [0.0, step, -step]])
    for gamma in (0.5, 1.0, 2.0):
        p = {"ab": logistic(gamma + delta), "ba": logistic(gamma - delta)}
        verdict = np.where(p["ab"] > 0.5, "first", "second")
        table = pair_table(len(delta))
        preferences = labels.preferences(judged(table, {"ab": verdict, "ba": verdict}, p_first=p), "swap_average")
        chosen = preferences[preferences["chosen"] == "a"].set_index("item_id")["weight"]
        weight = chosen.reindex(table["item_id"]).to_numpy(dtype=np.float64)
        expected = 0.5 * (logistic(delta + gamma) + logistic(delta - gamma))
        count, factor = len(contents), 1.0 / math.cosh(gamma / 2.0) ** 2
        slope = 4.0 * float(weight[-2] - weight[-1]) / (2.0 * step)
        rows += [
            exact("E2", f"swap_average, γ={gamma:g}, largest gap to the closed form", 0.0, float(np.max(np.abs(weight - expected))), 1e-12),
            exact("E2", f"swap_average, γ={gamma:g}, antisymmetry", 0.0, float(np.max(np.abs(weight[:count] + weight[count:-3] - 1.0))), 1e-12),
            exact("E2", f"swap_average, γ={gamma:g}, δ = 0", 0.5, float(weight[-3]), 1e-12),
            exact("E2", f"swap_average, γ={gamma:g}, slope factor sech²(γ/2)", factor, slope, 1e-7, "central difference"),
        ]  # fmt: skip
    return rows


def rows_e3(scale: SampleSizes) -> list[Row]:
    """consistent_only doubles the log-odds of content at any γ, and unanimity over m order-balanced calls makes them m-fold:
    s(δ + γ)s(δ − γ)/(… + …) = s(2δ)."""
    rows = []
    pairs = scale.size(60_000, 20_000)
    rule: LabelRule = "consistent_only"
    for repeats, deltas in ((1, (0.3, 1.0)), (2, (0.3, 1.0))):
        for delta in deltas:
            for gamma in (0.0, 1.0):
                generator = rng(scale.seed, "validate", "E3", repeats, str(delta), str(gamma))
                verdicts = {
                    f"{order}#{repeat}": picks(np.full(pairs, gamma + sign * delta), generator)
                    for repeat in range(repeats)
                    for order, sign in (("ab", 1.0), ("ba", -1.0))
                }
                rows.append(_row_of_rule(judged(pair_table(pairs), verdicts), rule, delta, gamma, 2 * repeats, pairs))
    return rows


def _row_of_rule(judgments: pd.DataFrame, rule: LabelRule, delta: float, gamma: float, calls: int, pairs: int) -> Row:
    preferences = labels.preferences(judgments, rule)
    wins, losses = int((preferences["chosen"] == "a").sum()), int((preferences["chosen"] == "b").sum())
    estimate = math.log((wins + 0.5) / (losses + 0.5))
    error = math.sqrt(1.0 / (wins + 0.5) + 1.0 / (losses + 0.5))
    setting = f"unanimous of {calls}, δ={delta:g}, γ={gamma:g}, {pairs} pairs"
    return compare(
        "E3", f"log-odds of kept picks, {setting}", calls * delta, estimate, error, note=f"{wins + losses} kept"
    )


# Content slopes

BT = {"order": 0.2, "length": 0.3, "bold": 0.15, "quality": 1.0}
PAIRS = 4_000
APPROXIMATE = 0.04
"""Tolerance of the approximations of row G (docs/method.md, "Analytic truths"), which hold for small effects; the rows'
theory is exact."""


def attenuated(sd: float, noise: float) -> float:
    """The factor of all slopes where log-odds c ~ N(0, sd²) contain unseen N(0, noise²): the pseudo-true a of
    E c·[E s(c + noise·u) − s(ac)] = 0, by quadrature. Where the covariates explain c linearly it is common to all."""
    c = sd * _NODES
    rates = np.array([normal_mean(logistic(x + noise * _NODES)) for x in c])
    return pseudo_true(c, rates)


def pseudo_true(c: Floats, rates: Floats) -> float:
    """The a that solves E c·[rate(c) − s(ac)] = 0, the limit of a logistic slope; ``c`` and ``rates`` at the Hermite nodes."""
    return float(optimize.brentq(lambda a: normal_mean(c * (rates - logistic(a * c))), 0.0, 3.0))


def _approximated(row: Row, first_order: float) -> Row:
    """The row, with the approximation for small effects in its note; fails where that is beyond its stated
    tolerance."""
    noted = replace(row, note=f"exact by quadrature; closed form to first order {first_order:.4f}")
    return demand(noted, abs(first_order - row.theory) <= APPROXIMATE, "the first-order form is off")


def rows_f1(scale: SampleSizes) -> list[Row]:
    """Bradley–Terry recovers (γ, length, style, quality) = (.2, .3, .15, 1) from picks with the order in each row: unbiased
    (to O(1/n): the maximum likelihood estimate is about 1 % too long at 600 pairs), 95 % covered; type I 5 % at 0."""
    pairs, size = 600, scale.size(1_500, 150)
    names = [name for name in BT if name != "order"] + ["nothing"]
    truth = np.array([BT.get(name, 0.0) for name in names])
    estimates, errors = np.empty((size, 5)), np.empty((size, 5))
    for replicate in range(size):
        generator = rng(scale.seed, "validate", "F1", replicate)
        signal = _signal(generator, pairs, names, truth)
        gamma = math.nan if signal.order_log_odds is None else signal.order_log_odds
        estimates[replicate] = [gamma, *signal.coefficients[names]]
        errors[replicate] = [signal.std_error.get(signals.ORDER, math.nan), *signal.std_error[names]]
    truths = np.concatenate([[BT["order"]], truth])
    critical = stats.t.ppf(0.975, pairs - 1)
    rows = []
    for j, name in enumerate(["order", *names]):
        setting = f"{name}={truths[j]:g}, {pairs} pairs, R={size}"
        mc_error = float(np.std(estimates[:, j], ddof=1)) / math.sqrt(size)
        # The first-order bias of maximum likelihood, p/n of the coefficient over the information, is not Monte-Carlo error.
        bias = abs(truths[j]) * 2.0 * 5.0 / pairs
        rows.append(
            compare(
                "F1",
                f"Bradley-Terry {setting}",
                float(truths[j]),
                float(np.mean(estimates[:, j])),
                mc_error,
                tolerance=4.0 * mc_error + bias,
                note=f"of which {bias:.4f} for the O(p/n) bias" if bias else "",
            )
        )
        gap = np.abs(estimates[:, j] - truths[j]) / errors[:, j]
        rows.append(covered("F1", f"Bradley-Terry covers {setting}", gap <= critical))
    rows.append(
        rejected(
            "F1",
            f"type I, a feature without effect, R={size}",
            2.0 * stats.t.sf(np.abs(estimates[:, -1]) / errors[:, -1], pairs - 1),
        )
    )
    return rows  # fmt: skip


def _signal(generator: np.random.Generator, pairs: int, names: list[str], slopes: Floats) -> signals.FittedSignal:
    """The signal of single presentations whose order correlates with length: position must not leak into length."""
    table = pair_table(pairs)
    a, b = generator.standard_normal((2, pairs, len(names))) / math.sqrt(2.0)
    forward = generator.random(pairs) < np.where(a[:, 0] > b[:, 0], 0.8, 0.2)
    content = (a - b) @ slopes
    verdict = picks(BT["order"] + np.where(forward, content, -content), generator)
    parts = [
        judged(table[rows].reset_index(drop=True), {order: verdict[rows]})
        for order, rows in (("ab", forward), ("ba", ~forward))
    ]
    preferences = labels.preferences(pd.concat(parts, ignore_index=True), "raw")
    sides = [{name: side[:, j] for j, name in enumerate(names)} for side in (a, b)]
    features = texts(table, *sides).set_index(["item_id", "candidate_id"])
    return signals.fit(preferences, features, pd.Series(1.0, index=names), 0.0)


def rows_f2(scale: SampleSizes) -> list[Row]:
    """Slopes that vary by prompt (sd .6 around 0), 1,200 pairs of 200 prompts: the clustered test rejects 5 %, the naive one
    more. Naive variance is too small by 1 + (m − 1)·4·E_b h(b)², h(b) = E D(s(bD) − ½), m pairs a prompt."""
    items, within, sd, size = 200, 6, 0.6, scale.size(2_000, 200)
    naive, clustered, hits = np.empty(size), np.empty(size), np.empty(size)
    table = pair_table(items * within, within)
    for replicate in range(size):
        generator = rng(scale.seed, "validate", "F2", replicate)
        difference = generator.standard_normal(items * within)
        slope = np.repeat(sd * generator.standard_normal(items), within)
        verdict = picks(slope * difference, generator)
        half = difference / 2.0
        rows = covariates(judged(table, {"ab": verdict}), texts(table, {"length": half}, {"length": -half}))
        model = fit_slopes(rows)
        interval = _slope(model, "length")
        assert isinstance(model, Slopes)
        j = model.names.index("length")
        plain = interval.estimate / math.sqrt(float(model.fit.covariance[j, j]))
        naive[replicate] = 2.0 * stats.norm.sf(abs(plain))
        clustered[replicate] = math.nan if interval.p_value is None else interval.p_value
        hits[replicate] = interval.covers(0.0)
    h = np.array([normal_mean(_NODES * (logistic(sd * b * _NODES) - 0.5)) for b in _NODES])
    inflation = 1.0 + (within - 1) * 4.0 * normal_mean(h**2)
    fails = 2.0 * float(stats.norm.sf(1.959964 / math.sqrt(inflation)))
    setting = f"slope sd {sd:g} by prompt, {items * within} pairs, G={items}, R={size}"
    return [
        covered("F2", f"clustered interval covers, {setting}", hits),
        rejected("F2", f"type I, clustered, {setting}", clustered),
        compare("F2", f"type I of naive errors, {setting}", fails, float(np.mean(naive <= 0.05)),
                math.sqrt(fails * (1 - fails) / size), note="shown to fail, as theory says"),
    ]  # fmt: skip


def rows_g(scale: SampleSizes) -> list[Row]:
    """The size of known distortions: noise, gold measured with error, collinear features, position left out."""
    return [*_noise(scale), *_gold(scale), *_collinear(scale), *_order(scale)]


def _fit(
    generator: np.random.Generator, content: Floats, difference: dict[str, Floats], gamma: float = 0.0,
    gold: Floats | None = None, noise: float = 0.0,
) -> Covariates:  # fmt: skip
    """Both orders of pairs with those log-odds; the noise is drawn anew for each call."""
    size = len(content)
    table = pair_table(size)
    verdicts = {
        order: picks(gamma + sign * content + noise * generator.standard_normal(size), generator)
        for order, sign in (("ab", 1.0), ("ba", -1.0))
    }
    half = {name: values / 2.0 for name, values in difference.items()}
    columns = None if gold is None else {"gold": gold}
    frame = judged(table, verdicts, columns=columns)
    return covariates(frame, texts(table, half, {k: -v for k, v in half.items()}), scales=dict.fromkeys(half, 1.0))


def _noise(scale: SampleSizes) -> list[Row]:
    """Log-odds noise of sd ν multiplies slopes by about 1/√(1 + .346ν²): the exchange rate β/κ stays."""
    nu, count = 2.0, scale.size(400, 40)
    fits = []
    for replicate in range(count):
        generator = rng(scale.seed, "validate", "G noise", replicate)
        length, quality = generator.standard_normal((2, PAIRS))
        rows = _fit(generator, 0.3 * length + quality, {"length": length}, gold=quality, noise=nu)
        model = fit_slopes(rows, rows.gold)
        fits.append((_slope(model, "length").estimate, _slope(model, GOLD).estimate))
    slopes = np.array(fits)
    setting = f"noise sd {nu:g}, {PAIRS} pairs, R={count}"
    theory, first = attenuated(math.sqrt(1.09), nu), 1.0 / math.sqrt(1.0 + 0.346 * nu**2)
    return [
        _approximated(sampled("G", f"κ attenuated, {setting}", theory, slopes[:, 1]), first),
        sampled("G", f"exchange rate β/κ kept, {setting}", 0.3, slopes[:, 0] / slopes[:, 1]),
    ]


def _gold(scale: SampleSizes) -> list[Row]:
    """Gold of reliability λ: an unbiased judge shows β ≈ κρ(1 − λ)/(1 − λρ²), ρ = corr(length, quality).

    Quality given length and gold is normal around q̂ = [ρ(1 − λ)D + λ(1 − ρ²)q̂₁]/(1 − λρ²), q̂₁ gold; what is left of it is
    noise in the log-odds, which attenuates that slope exactly as ``attenuated`` says.
    """
    rho, kappa, rows = 0.5, 1.0, []
    count = scale.size(400, 40)
    for reliability in (0.8, 0.5):
        slopes = []
        for replicate in range(count):
            generator = rng(scale.seed, "validate", "G gold", str(reliability), replicate)
            length, residual, error = generator.standard_normal((3, PAIRS))
            quality = rho * length + math.sqrt(1.0 - rho**2) * residual
            gold = quality + math.sqrt(1.0 / reliability - 1.0) * error
            data = _fit(generator, kappa * quality, {"length": length}, gold=gold)
            slopes.append(_slope(fit_slopes(data, data.gold), "length").estimate)
        first = kappa * rho * (1.0 - reliability) / (1.0 - reliability * rho**2)
        unexplained = (1.0 - rho**2) * (1.0 - reliability) / (1.0 - reliability * rho**2)
        theory = first * attenuated(kappa * math.sqrt(1.0 - unexplained), kappa * math.sqrt(unexplained))
        setting = f"gold of reliability {reliability:g}, unbiased judge's β, ρ={rho:g}, {PAIRS} pairs, R={count}"
        rows.append(_approximated(sampled("G", setting, theory, slopes), first))
    return rows


def _collinear(scale: SampleSizes) -> list[Row]:
    """Two features with correlation ρ: the standard error grows by √VIF, in a linear model 1/√(1 − ρ²) = 2.294; here the
    information of a logistic fit, E s′(η)DDᵀ = E s′·Σ + (E s′η²/v − E s′)·Σββᵀ Σ/v, v = βᵀΣβ. Where markdown is left out, length
    takes over its effect: β₁ + ρβ₂."""
    rho, count = 0.9, scale.size(400, 40)
    beta, sigma = np.array([0.3, 0.15]), np.array([[1.0, rho], [rho, 1.0]])
    v, u = float(beta @ sigma @ beta), sigma @ beta
    curve = logistic(math.sqrt(v) * _NODES) * (1.0 - logistic(math.sqrt(v) * _NODES))
    m0, m2 = normal_mean(curve), normal_mean(curve * v * _NODES**2)
    information = m0 * sigma + (m2 / v - m0) / v * np.outer(u, u)
    theory = math.sqrt(information[0, 0] * np.linalg.inv(information)[0, 0])
    inflation, alone = [], []
    for replicate in range(count):
        generator = rng(scale.seed, "validate", "G collinear", replicate)
        difference = generator.standard_normal((PAIRS, 2)) @ np.linalg.cholesky(sigma).T
        names = {"length": difference[:, 0], "bold": difference[:, 1]}
        rows = _fit(generator, difference @ beta, names)
        model = fit_slopes(rows)
        inflation.append(math.sqrt(model.variance_inflation("length")) if isinstance(model, Slopes) else math.nan)
        without = _fit(generator, difference @ beta, {"length": difference[:, 0]})
        alone.append(_slope(fit_slopes(without), "length").estimate)
    setting = f"ρ={rho:g}, {PAIRS} pairs, R={count}"
    linear = 1.0 / math.sqrt(1.0 - rho**2)
    # Given length, markdown is β₂(ρD + √(1 − ρ²)u): its unexplained part is noise.
    first = float(beta[0] + rho * beta[1])
    left_out = first * attenuated(first, float(beta[1]) * math.sqrt(1.0 - rho**2))
    return [
        sampled("G", f"collinear, √VIF of length, {setting}", theory, inflation, note=f"linear model {linear:.3f}"),
        _approximated(sampled("G", f"markdown left out, length's slope, {setting}", left_out, alone), first),
    ]


def _order(scale: SampleSizes) -> list[Row]:
    """Position left out multiplies content slopes by about sech²(γ/2); the estimator's order column gives β itself."""
    beta, gamma, count = 0.4, 1.0, scale.size(400, 40)
    with_order, without_order = [], []
    for replicate in range(count):
        generator = rng(scale.seed, "validate", "G order", replicate)
        length = generator.standard_normal(PAIRS)
        rows = _fit(generator, beta * length, {"length": length}, gamma)
        with_order.append(_slope(fit_slopes(rows), "length").estimate)
        without_order.append(_without_order(rows))
    setting = f"γ={gamma:g}, β={beta:g}, {PAIRS} pairs, R={count}"
    content = beta * _NODES
    factor = pseudo_true(content, 0.5 * (logistic(content + gamma) + logistic(content - gamma)))
    left_out = sampled("G", f"order left out, length's slope, {setting}", beta * factor, without_order)
    return [
        sampled("G", f"order column, length's slope, {setting}", beta, with_order),
        _approximated(left_out, beta / math.cosh(gamma / 2.0) ** 2),
    ]


def _without_order(rows: Covariates) -> float:
    """The slope of the model without its order column, which no estimator of the project fits."""
    x, z = rows.differences[:, 0], rows.picked_a
    return float(optimize.brentq(lambda b: float(np.sum(x * (z - logistic(b * x)))), -5.0, 5.0))


def _slope(model: Slopes | Undefined, name: str) -> Interval:
    interval = model if isinstance(model, Undefined) else model.slope(name)
    if isinstance(interval, Undefined):
        return Interval(math.nan, math.nan, math.nan, math.nan)
    return interval


# The planted law over real HTTP

GAMMA, BETA = 0.4, 0.5
_MODES: tuple[Mode, ...] = ("logprob", "text")


def rows_h(scale: SampleSizes) -> list[Row]:
    """A served judge with γ and β, and drafts of the same server. From log-probabilities both coefficients are recovered
    exactly, from text verdicts within their error. p_F = mean over the pairs of ½[s(γ + δ) + s(γ − δ)], δ = β·Δlog2 tokens."""
    pairs = scale.size(600, 200, 20)
    spec = PlantedSpec.model_validate({
        "position": GAMMA, "length": BETA, "seed": scale.seed, "draft": {"length_mean": 40, "length_sd": 0.8}
    })  # fmt: skip
    with LocalServer(create_app(PlantedAnswerer(spec))) as server, tempfile.TemporaryDirectory() as folder:
        endpoint = Endpoint(base_url=server.base_url, model="planted", concurrency=16)
        matchups, judgments = asyncio.run(_judge_drafts(endpoint, folder, pairs, scale.seed))
    drafts = [candidate for matchup in matchups for candidate in (matchup.a, matchup.b)]
    features = features_frame([candidate.text for candidate in drafts])[list(FEATURES)]
    features = features.assign(
        item_id=[draft.item_id for draft in drafts], candidate_id=[draft.candidate_id for draft in drafts]
    )
    lengths = features["length"].to_numpy()
    delta = BETA * (lengths[0::2] - lengths[1::2])
    items = {matchup.item_id: Item(matchup.item_id, _question(matchup.item_id)) for matchup in matchups}
    texts = features[["item_id", "candidate_id", "length"]]
    estimates: dict[str, dict[str, Estimate]] = {}
    slopes: dict[str, Interval | Undefined] = {}
    for mode in _MODES:
        table = judgments_frame(judgments[mode], items, lambda _item, _candidate: None, panel="pairs", generation=0)
        estimates[mode] = {row.term: row for row in position_estimates(table) if not row.variant}
        model = fit_slopes(covariates(table, texts))
        slopes[mode] = model if isinstance(model, Undefined) else model.slope("length")
    p = np.stack([logistic(GAMMA + delta), logistic(GAMMA - delta)])
    excess, error = float(p.mean()) - 0.5, math.sqrt(float(np.sum(p * (1 - p)))) / (2 * pairs)
    soft, hard = estimates["logprob"], estimates["text"]
    gamma = hard["position_log_odds"]
    soft_slope, hard_slope = slopes["logprob"], slopes["text"]
    if isinstance(soft_slope, Undefined) or isinstance(hard_slope, Undefined):
        raise TypeError("the served judge's slopes are undefined")
    setting = f"over HTTP, {pairs} pairs"
    rows = [
        exact("H", f"position_log_odds, log-probabilities {setting}", GAMMA, number(soft["position_log_odds"].estimate), 1e-9),
        exact("H", f"length_log_odds, log-probabilities {setting}", BETA, soft_slope.estimate, 1e-6),
        exact("H", f"first_slot_excess, log-probabilities {setting}", excess, number(soft["first_slot_excess"].estimate), 1e-9),
        compare("H", f"first_slot_excess, text {setting}", excess, number(hard["first_slot_excess"].estimate), error),
        compare("H", f"position_log_odds, text {setting}", GAMMA, number(gamma.estimate), number(gamma.std_error)),
        compare("H", f"length_log_odds, text {setting}", BETA, hard_slope.estimate, hard_slope.std_error),
    ]  # fmt: skip
    unscored = sum(judgment.verdict.slot == "unscored" for mode in _MODES for judgment in judgments[mode])
    return [demand(row, unscored == 0, f"{unscored} judgments are unscored") for row in rows]


def _question(item_id: str) -> str:
    return f"Describe place {item_id}."


async def _judge_drafts(
    endpoint: Endpoint, folder: str, pairs: int, seed: int
) -> tuple[list[Matchup], dict[str, list[Judgment]]]:
    """Two drafts an item, judged over HTTP in both orders and in each verdict mode."""
    endpoints = {"m": endpoint}
    items = [Item(f"i{k:04d}", _question(f"i{k:04d}")) for k in range(pairs)]
    cassette = Cassette(folder, writable=True)
    async with WireClient(endpoints, cassette, environment={}) as client:
        drafter = Drafter(
            client, PoolPolicySpec(endpoint="m"), endpoint, templates.load("draft", folder, "draft"), seed
        )
        matchups = await asyncio.gather(*(_matchup(drafter, item) for item in items))
        judgments: dict[str, list[Judgment]] = {}
        for mode in _MODES:
            judge = make_judge(
                ModelJudgeSpec(endpoint="m", verdict=mode), endpoints=endpoints, folder=folder, client=client, seed=seed
            )
            replies = await asyncio.gather(*(
                judge.judge(item, presentations([matchup]), f"audit/judge/{mode}", ("audit",))
                for item, matchup in zip(items, matchups, strict=True)
            ))  # fmt: skip
            judgments[mode] = [judgment for pair_judgments in replies for judgment in pair_judgments]
    return list(matchups), judgments


async def _matchup(drafter: Drafter, item: Item) -> Matchup:
    drafts: list[Candidate] = []
    for name in ("a", "b"):
        draft, why = await drafter.draft(item, name, "audit/draft", (0, 0, name))
        drafts.append(draft if draft is not None else Candidate(item.item_id, name, why))
    return Matchup(item.item_id, "m00", *drafts)
