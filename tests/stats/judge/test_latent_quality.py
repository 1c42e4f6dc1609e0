"""Gold that errs: the latent-quality model of two golds, regression calibration, and the curve of one gold."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.stats.inference import Undefined
from judgeloop.stats.judge.covariates import covariates
from judgeloop.stats.judge.ordered_models import Quadrature, fit_latent
from judgeloop.stats.judge.slopes import fit_calibrated, fit_slopes
from planted_verdicts import UNSCALED, planted_judgments, rows_of, s, texts_of, votes, world

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures" / "two_golds"


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch):
    """The bootstrap's size is not what these tests are about."""
    monkeypatch.setattr("judgeloop.stats.judge.slopes.DRAWS", 500)


def test_one_gold_prints_the_curve_and_two_correct():
    frame, texts, margin = world(400, "two golds", slopes=(0.0, 0.0), correlation=0.6)
    rows = rows_of(frame.assign(gold=np.tile(votes(2 * margin[:400], "one"), 2)), texts)
    assert rows["length_log_odds", ""].status == "undefined"
    assert "0.5:" in rows["length_log_odds", "given_gold"].note
    assert rows["length_log_odds", "given_gold"].estimate > 0.15  # unbiased judge, imperfect gold
    golds = {"gold": np.tile(votes(2 * margin[:400], "one"), 2), "gold_2": np.tile(votes(2 * margin[:400], "two"), 2)}
    corrected = rows_of(frame.assign(**golds), texts)
    row = corrected["length_log_odds", ""]
    assert row.status == "underpowered"  # a null that 400 pairs cannot prove
    assert row.conf_low < 0 < row.conf_high
    assert "latent" in row.method
    assert corrected["length_ame", ""].method.endswith("delta")
    assert corrected["gold_log_odds", "corrected"].estimate > 0
    # A second gold that is a copy shows no error.
    same = rows_of(frame.assign(gold=golds["gold"], gold_2=golds["gold"]), texts)
    assert same["length_log_odds", ""].status == "undefined"
    assert "the two golds agree on 100.0 % of pairs" in same["length_log_odds", ""].note


@pytest.mark.slow
def test_two_numeric_golds_are_calibrated():
    # E3: reliability λ = .5, correlation .5: the naive slope is about κρ(1 − λ)/(1 − λρ²), the calibrated one 0.
    n = 2000
    frame, texts, margin = world(n, "calibration", slopes=(0.0, 0.0), correlation=0.5)
    noise = seeds.rng(0, "gold noise").normal(size=(2, n))
    rows = rows_of(frame.assign(gold=margin + np.tile(noise[0], 2), gold_2=margin + np.tile(noise[1], 2)), texts)
    naive, corrected = rows["length_log_odds", "given_gold"], rows["length_log_odds", ""]
    # κρ(1 − λ)/(1 − λρ²), flattened by the quality that neither q₁ nor length explains (variance .43).
    theory = 0.5 * 0.5 / (1 - 0.5 * 0.25) / math.sqrt(1 + 0.346 * 0.43)
    assert naive.estimate == pytest.approx(theory, abs=4 * naive.std_error)
    assert naive.p_value < 1e-6
    assert corrected.estimate == pytest.approx(0.0, abs=4 * corrected.std_error)
    assert corrected.std_error > naive.std_error
    one_gold = rows_of(frame.assign(gold=margin + np.tile(noise[0], 2)), texts)
    curve = dict(
        part.split(": ")
        for part in one_gold["length_log_odds", "given_gold"].note.split("would be ")[1].split("; ")[0].split(", ")
    )
    assert float(curve["0.5"]) == pytest.approx(0.0, abs=0.12)
    assert float(curve["1"]) == pytest.approx(naive.estimate, abs=6e-4)


def test_latent_quality_gradient_gives_a_maximum():
    n = 120
    rng = seeds.rng(0, "maximum")
    delta = rng.normal(size=n)
    margin = delta + 1.2 * rng.normal(size=n)
    frame = planted_judgments(
        n, "maximum", position=0.4, slopes=(0.3,), deltas=delta[:, None], margin=margin, quality=0.8
    )
    golds = {"gold": np.tile(votes(margin, "m1"), 2), "gold_2": np.tile(votes(margin, "m2"), 2)}
    data = covariates(frame.assign(**golds), texts_of(delta[:, None], ["length"]))
    fit = fit_latent(data)
    assert not isinstance(fit, Undefined)

    def likelihood(theta):
        """The plain loop over pairs and nodes."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(15)
        total = 0.0
        for pair in range(n):
            value = 0.0
            for node, weight in zip(nodes, weights, strict=True):
                q = theta[3] * delta[pair] + math.exp(theta[4]) * node
                likely = weight
                for gold in (golds["gold"][pair], golds["gold_2"][pair]):
                    likely *= float(s(q if gold == "a" else -q))
                for row in np.flatnonzero(data.pairs == data.pairs[pair]):
                    eta = theta[0] * data.order[row] + theta[1] * delta[pair] + theta[2] * q
                    likely *= float(s(eta if data.picked_a[row] == 1 else -eta))
                value += likely
            total += math.log(value)
        return total

    best = likelihood(fit.coefficients)
    for j in range(5):
        for step in (-0.03, 0.03):
            assert likelihood(fit.coefficients + step * np.eye(5)[j]) < best


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.6])
def test_latent_quality_recovers_the_slope_where_one_gold_does_not(beta):
    # docs/method.md, "Two golds": 900 pairs; one-gold regression gives .57 and .90 for β = 0 and .6.
    runs, intervals, naive = 60, [], []
    for run in range(runs):
        rng = seeds.rng(0, "latent", run)
        delta = rng.normal(size=900)
        margin = delta + 1.2 * rng.normal(size=900)
        frame = planted_judgments(
            900, f"latent/{beta}/{run}", position=0.4, slopes=(beta,), deltas=delta[:, None], margin=margin, quality=0.8
        )
        golds = {"gold": np.tile(votes(margin, f"1/{run}"), 2), "gold_2": np.tile(votes(margin, f"2/{run}"), 2)}
        data = covariates(frame.assign(**golds), texts_of(delta[:, None], ["length"]))
        interval = fit_latent(data).slope("length")
        intervals.append((interval.estimate, interval.low, interval.high))
        naive.append(fit_slopes(data, data.gold).slope("length").estimate)
    estimates, low, high = np.array(intervals).T
    cover = np.mean((low <= beta) & (beta <= high))
    assert estimates.mean() == pytest.approx(beta, abs=4 * estimates.std() / math.sqrt(runs))
    assert cover == pytest.approx(0.95, abs=0.02 + 3 * math.sqrt(0.95 * 0.05 / runs))
    assert np.mean(naive) > beta + 0.2


@pytest.mark.parametrize("agree", [0.0, 0.9, 1.0])
def test_golds_that_bound_no_spread_are_fitted_or_refused_without_a_warning(agree: float):
    """Coins that a second person repeats, or contradicts: the likelihood rises to ever larger spreads of quality."""
    fits = []
    for k in range(2):
        frame, texts, _ = world(100, f"no spread {k}")
        coins = seeds.rng(k, "coins").random((3, 100))
        gold = np.where(coins[0] < 0.5, "a", "b")
        opposite = np.where(gold == "a", "b", "a") if agree == 0.0 else np.where(coins[2] < 0.5, "a", "b")
        gold_2 = np.where(coins[1] < agree, gold, opposite)
        fits.append(
            fit_latent(covariates(frame.assign(gold=np.tile(gold, 2), gold_2=np.tile(gold_2, 2)), texts, scales={}))
        )
    assert all(isinstance(fit, Undefined) or np.all(np.isfinite(fit.covariance)) for fit in fits)


def test_a_search_that_takes_the_judges_threshold_to_nothing_turns_back():
    """A tie is then impossible, and there is one: the gradient keeps its length, and the place is infinitely unlikely."""
    frame, texts, margin = world(100, "no threshold")
    golds = {"gold": np.tile(votes(2 * margin[:100], "one"), 2), "gold_2": np.tile(votes(2 * margin[:100], "two"), 2)}
    ties = seeds.rng(0, "no threshold").random(len(frame)) < 0.2
    fit = fit_latent(covariates(frame.assign(**golds, verdict=frame["verdict"].mask(ties, "tie")), texts, scales={}))
    assert not isinstance(fit, Undefined)
    model = fit.model
    with np.errstate(all="ignore"):
        value, gradient = model.value_and_gradient(
            np.where(np.arange(model.size) == model.size - 1, -800.0, fit.coefficients)
        )
    assert gradient.shape == (len(model.first), model.size)
    assert not np.isfinite(value.sum())


@pytest.mark.parametrize("spread", [1.0, 2.0, 6.5, 12.0, 40.0])
def test_the_quadrature_serves_any_spread_of_quality(spread: float) -> None:
    """Against 20,001 nodes: the chance that two golds differ, and that both say a at a margin of 1."""
    rule = Quadrature.of(spread)
    dense = np.linspace(-9.0, 9.0, 20_001)
    weights = np.exp(-(dense**2) / 2.0)
    for function in (lambda q: s(q) * s(-q), lambda q: s(q + 1.0) ** 2):
        truth = np.sum(weights * function(spread * dense)) / weights.sum()
        assert np.exp(rule.log_weights) @ function(spread * rule.nodes) == pytest.approx(truth, rel=2e-3)


def test_two_golds_leave_rare_features_out_and_say_why_a_fit_fails() -> None:
    frame, texts, margin = world(120, "rare, two golds")
    texts["bold"] = np.where(texts.index < 2, 1.0, 0.0)
    golds = {"gold": np.tile(votes(2 * margin[:120], "r1"), 2), "gold_2": np.tile(votes(2 * margin[:120], "r2"), 2)}
    fit = fit_latent(covariates(frame.assign(**golds), texts, scales=UNSCALED))
    assert fit.features == ("length",)
    assert fit.slope("bold").reason == "bold differs in 2 items only; a slope needs 10"
    assert fit.average_effect("bold") == fit.slope("bold")
    same = covariates(frame.assign(gold=golds["gold"], gold_2=golds["gold"]), texts, scales=UNSCALED)
    assert "never differ on the 120 pairs" in fit_latent(same).reason
    numeric = {"gold": margin, "gold_2": margin + np.tile(seeds.rng(0, "rare").normal(size=120), 2)}
    calibrated = fit_calibrated(covariates(frame.assign(**numeric), texts, scales=UNSCALED))
    assert calibrated.slope("bold").reason == "bold differs in 2 items only; a slope needs 10"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "low", "high"), [("wide_quality", 0.2, 0.4), ("ties", 0.4, 0.7)])
def test_golds_that_agree_on_most_pairs_give_an_estimate(name: str, low: float, high: float) -> None:
    log = pd.read_json(FIXTURES / f"{name}.jsonl", lines=True)
    slope = fit_latent(covariates(log.assign(pair_id=log["item_id"]))).slope("length")
    assert low < slope.estimate < high
    assert slope.low < slope.estimate < slope.high


@pytest.mark.slow
def test_quality_spread_widely_is_recovered() -> None:
    """Spread 6.5, two golds agree on 88 %: with 15 nodes 18 of 30 such samples had no estimate, the others .395 for .30."""
    slopes = []
    for k in range(20):
        rng = seeds.rng(0, "wide quality", k)
        length, unseen = rng.normal(size=(2, 600))
        margin = 0.5 * length + 6.5 * unseen
        frame = planted_judgments(
            600, f"wide/{k}", position=0.2, slopes=(0.3,), deltas=length[:, None], margin=margin, quality=0.5
        )
        golds = {name: np.tile(votes(margin, f"{name}/{k}"), 2) for name in ("gold", "gold_2")}
        slopes.append(
            fit_latent(covariates(frame.assign(**golds), texts_of(length[:, None], ["length"]))).slope("length")
        )
    estimates = np.array([slope.estimate for slope in slopes])
    assert estimates.mean() == pytest.approx(0.3, abs=4 * estimates.std() / math.sqrt(20))
    assert sum(slope.covers(0.3) for slope in slopes) >= 15
