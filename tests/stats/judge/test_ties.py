"""Ties as an outcome of their own: the symmetric ordered logit against statsmodels and planted truth, and tie rates."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.miscmodels.ordinal_model import OrderedModel

from judgeloop import seeds
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.judge.ordered_models import fit_ordered
from planted_verdicts import rows_of, s, world

THETA, B = 0.5, np.array([0.3, 0.8])


def sample(items: int, label: str) -> tuple[np.ndarray, ...]:
    """(x, picked_a, ties, items): two rows an item of the ordered logit itself."""
    rng = seeds.rng(0, "ordered", label)
    x = rng.standard_normal((2 * items, 2))
    eta, u = x @ B, rng.random(2 * items)
    a, b = s(eta - THETA), s(-eta - THETA)
    picked = np.where(u < a, 1.0, np.where(u > 1 - b, 0.0, 0.5))
    return x, picked, picked == 0.5, np.repeat(np.arange(items), 2)


def test_the_estimates_are_those_of_statsmodels_on_mirrored_rows() -> None:
    x, picked, ties, items = sample(150, "oracle")
    fit = fit_ordered(x, picked, ties, items)
    assert not isinstance(fit, Undefined)
    # Each row once more with a and b exchanged: the two free thresholds are then each other's negative.
    model = OrderedModel((2 * np.concatenate([picked, 1 - picked])).astype(int), np.concatenate([x, -x]), distr="logit")
    # Its gradient is numeric: a tolerance near its rounding would be reached on some processors alone.
    oracle = model.fit(method="bfgs", disp=False, gtol=1e-6, maxiter=500)
    thresholds = model.transform_threshold_params(oracle.params)
    assert fit.coefficients == pytest.approx(oracle.params[:2], abs=1e-5)
    assert (-fit.threshold, fit.threshold) == pytest.approx(tuple(thresholds[1:3]), abs=1e-5)


def test_intervals_cover_planted_slopes_that_halves_attenuate() -> None:
    covered, estimates = [], []
    for k in range(120):
        fit = fit_ordered(*sample(120, f"cover {k}"))
        assert not isinstance(fit, Undefined)
        interval = fit.slope(1)
        assert isinstance(interval, Interval)
        covered.append(interval.covers(B[1]))
        estimates.append(interval.estimate)
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 120)
    assert np.mean(estimates) == pytest.approx(B[1], abs=4 * np.std(estimates) / np.sqrt(120))


def test_no_ties_and_separated_verdicts_have_no_ordered_fit() -> None:
    x, picked, ties, items = sample(60, "none")
    assert isinstance(fit_ordered(x, np.where(ties, 1.0, picked), np.zeros(120, dtype=bool), items), Undefined)
    clear = np.where(np.abs(x[:, 0]) < 0.3, 0.5, (x[:, 0] > 0).astype(float))
    assert isinstance(fit_ordered(x, clear, clear == 0.5, items), Undefined)


def test_rates_by_gold_and_the_slope_with_ties_as_an_outcome() -> None:
    frame, texts, margin = world(200, "ties")
    gap = np.abs(margin)
    tied = seeds.rng(0, "ties").random(len(frame)) < np.where(gap < np.quantile(gap, 1 / 3), 0.6, 0.1)
    frame = frame.assign(gold=margin, verdict=frame["verdict"].mask(tied, "tie"))
    rows = rows_of(frame, texts)
    assert rows["tie_rate", ""].estimate == pytest.approx(tied.mean())
    low, high = rows["tie_rate", "gold_low"], rows["tie_rate", "gold_high"]
    assert low.conf_low > high.conf_high
    halves, ordered = rows["length_log_odds", "given_gold"], rows["length_log_odds", "ordered_logit"]
    assert ordered.status == "ok"
    assert abs(ordered.estimate) > abs(halves.estimate)
    words = np.where(gap < 0.2, "tie", np.where(margin > 0, "a", "b"))
    by_words = rows_of(frame.assign(gold=words), texts)
    assert by_words["tie_rate", "gold_tied"].n == int((gap < 0.2).sum())
    assert ("tie_rate", "gold_low") not in by_words
