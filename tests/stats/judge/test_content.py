"""Content estimators: planted slopes, gold that errs, and what cannot be told apart."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from judgeloop import seeds
from judgeloop.kernels import jackknife_error, logistic, one_step_jackknife, sigmoid
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.judge.content import content_estimates
from judgeloop.stats.judge.covariates import Covariates, covariates, gold_margin
from judgeloop.stats.judge.slopes import (
    Slopes,
    average_effect,
    bootstrap_effect,
    effect_difference,
    fit_columns,
    fit_slopes,
)
from planted_verdicts import NAMES, UNSCALED, planted_judgments, rows_of, s, texts_of, world


@pytest.fixture(autouse=True)
def _fewer_draws(request, monkeypatch):
    """The bootstrap's size is not what these tests are about, but for the one that says so."""
    if "bootstrap" not in request.node.name:
        monkeypatch.setattr("judgeloop.stats.judge.slopes.DRAWS", 500)


def test_the_given_gold_model_equals_statsmodels():
    frame, texts, margin = world(300, "oracle", pairs_an_item=3)
    rows = rows_of(frame.assign(gold=margin), texts, gold_exact=True)
    order = np.where(frame["order"] == "ab", 1.0, -1.0)
    picked = ((frame["verdict"] == "first") == (frame["order"] == "ab")).to_numpy(dtype=float)
    a = texts.iloc[:300]
    x = np.column_stack([order, np.tile(a["length"], 2), np.tile(a["bold"], 2), margin])
    oracle = sm.GLM(picked, x, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": frame["item_id"].astype(int).to_numpy()}, tol=1e-13
    )
    for term, variant, column in (
        ("length_log_odds", "given_gold", 1),
        ("bold_log_odds", "given_gold", 2),
        ("gold_log_odds", "", 3),
    ):
        row = rows[term, variant]
        assert row.estimate == pytest.approx(oracle.params[column], abs=1e-9)
        # CR2 is a little above the oracle's CR1; tests of the kernels compare it with its own formula.
        assert oracle.bse[column] < row.std_error * math.sqrt(599 / 596) < 1.02 * oracle.bse[column]
    cov = oracle.cov_params()[1:3, 1:3] * 596 / 599
    f = oracle.params[1:3] @ np.linalg.solve(cov, oracle.params[1:3]) / 2
    assert rows["style_joint", "wald"].estimate == pytest.approx(f, rel=0.04)
    p = oracle.fittedvalues
    assert rows["length_ame", ""].estimate == pytest.approx(oracle.params[1] * np.mean(p * (1 - p)), abs=1e-9)
    assert rows["length_ame", ""].method.startswith("one-step jackknife")
    assert rows["length_ame", "bootstrap"].method.startswith("BCa")
    assert rows["length_ame", "bootstrap"].estimate == rows["length_ame", ""].estimate
    ratio = rows["length_exchange_rate", ""]
    assert ratio.estimate == pytest.approx(oracle.params[1] / oracle.params[3], abs=1e-9)
    assert "variance inflation" in rows["length_log_odds", "given_gold"].note


def test_slots_and_names_do_not_change_a_slope():
    frame, texts, margin = world(120, "symmetry")
    frame = frame.assign(gold=margin)
    rows = rows_of(frame, texts, gold_exact=True)
    # Rename a and b: candidates keep their slots, gold turns.
    renamed = frame.assign(order=frame["order"].map({"ab": "ba", "ba": "ab"}), gold=-margin)
    renamed_rows = rows_of(renamed, texts, gold_exact=True)
    for key in rows:
        assert rows[key].estimate == pytest.approx(renamed_rows[key].estimate, abs=1e-9), key


def test_without_gold_the_primaries_are_undefined_and_raw_is_named_raw():
    frame, texts, _ = world(80, "no gold")
    rows = rows_of(frame, texts)
    for term in (
        "length_log_odds",
        "length_ame",
        "length_exchange_rate",
        "excess_longer_vs_gold",
        "style_joint",
        "gold_log_odds",
        "gold_agreement",
        "gold_tied_longer_excess",
    ):
        assert rows[term, ""].status == "undefined", term
        assert "gold" in rows[term, ""].note
    assert rows["length_log_odds", "no_gold"].status == "underpowered"
    raw = rows["longer_preferred_raw", ""]
    longer = np.tile(texts["length"].iloc[:80] > 0, 2) == ((frame["verdict"] == "first") == (frame["order"] == "ab"))
    assert raw.estimate == pytest.approx(longer.mean())
    assert raw.note.startswith("raw")
    assert raw.p_value is None


def test_the_order_column_keeps_position_out_of_length():
    # G: without it slopes shrink by sech²(γ/2); here the order also correlates with length.
    n = 8_000
    rng = seeds.rng(0, "order column")
    delta = rng.normal(size=(n, 1))
    frame = planted_judgments(n, "order column", position=2.0, slopes=(0.4,), deltas=delta)
    first = frame["order"].to_numpy() == np.tile(np.where(rng.random(n) < s(delta[:, 0]), "ab", "ba"), 2)
    rows = content_estimates(frame[first], texts_of(delta, ["length"]))
    row = next(r for r in rows if (r.term, r.variant) == ("length_log_odds", "no_gold"))
    assert row.estimate == pytest.approx(0.4, abs=4 * row.std_error)
    data = covariates(frame, texts_of(delta, ["length"]))
    without = logistic(data.differences, data.picked_a).coefficients[0]
    assert without == pytest.approx(0.4 / math.cosh(1.0) ** 2, abs=0.02)


def test_gold_tied_pairs_hold_quality_equal():
    frame, texts, _ = world(300, "tied", slopes=(0.8, 0.0), quality=0.0)
    gold = np.where(np.arange(300) % 2 == 0, "tie", "a")
    rows = rows_of(frame.assign(gold=np.tile(gold, 2)), texts)
    row = rows["gold_tied_longer_excess", ""]
    # Ties of a gold that may err hide quality that goes with length: a description.
    assert (row.verdict, row.p_value) == ("", None)
    row = rows_of(frame.assign(gold=np.tile(gold, 2)), texts, gold_exact=True)["gold_tied_longer_excess", ""]
    assert row.verdict == "found"
    assert (row.n, row.n_items) == (150, 150)
    assert row.conf_low > 0
    longer = np.tile(texts["length"].iloc[:300] > 0, 2) == ((frame["verdict"] == "first") == (frame["order"] == "ab"))
    assert row.estimate == pytest.approx(longer[np.tile(gold == "tie", 2)].mean() - 0.5)


def test_a_judge_that_likes_length_as_gold_does_has_no_excess():
    frame, texts, _ = world(400, "as gold", slopes=(0.5, 0.0), quality=0.0, position=0.0)
    rng = seeds.rng(0, "as gold")
    gold = np.where(rng.random(400) < s(0.5 * texts["length"].iloc[:400]), "a", "b")
    row = rows_of(frame.assign(gold=np.tile(gold, 2)), texts)["excess_longer_vs_gold", ""]
    assert row.conf_low < 0 < row.conf_high
    assert (row.verdict, row.p_value) == ("", None)
    same = np.where(frame["verdict"].eq("first") == frame["order"].eq("ab"), "a", "b")
    data = covariates(frame.assign(gold=same), texts, scales=UNSCALED)
    fitted = fit_slopes(data)
    assert not isinstance(fitted, Undefined)
    assert isinstance(effect_difference(fitted, fitted, "length"), Undefined)  # never varies


def test_separation_goes_to_firth_and_too_little_is_undefined():
    n = 60
    delta = seeds.rng(0, "separate").normal(size=(n, 1))
    frame = planted_judgments(n, "separate", slopes=(1.0,), deltas=delta)
    wins = np.tile(delta[:, 0] > 0, 2)
    frame["verdict"] = np.where(wins == (frame["order"] == "ab"), "first", "second")
    rows = {(r.term, r.variant): r for r in content_estimates(frame, texts_of(delta, ["length"]))}
    assert rows["length_log_odds", "no_gold"].method.startswith("Firth")
    row = rows["length_log_odds", "no_gold"]
    assert 0 < row.estimate < 200
    # Separated residuals are next to 0; the interval must not be.
    assert row.std_error > 0.1 * row.estimate
    effect = rows["length_ame", "no_gold"]
    assert effect.status == "ok"
    assert effect.conf_low > 0
    few = content_estimates(frame[frame["item_id"].isin(["0", "1"])], texts_of(delta, ["length"]))
    assert next(r for r in few if (r.term, r.variant) == ("length_log_odds", "no_gold")).status == "undefined"


def test_rare_features_get_no_slope_and_say_why():
    frame, texts, margin = world(100, "rare")
    texts["bold"] = np.where(texts.index < 3, 1.0, 0.0)
    rows = rows_of(frame.assign(gold=margin), texts)
    assert rows["bold_log_odds", "given_gold"].status == "undefined"
    assert "3 items" in rows["bold_log_odds", "given_gold"].note
    assert rows["style_joint", ""].status == "undefined"
    assert rows["length_log_odds", "given_gold"].estimate is not None


def test_collinear_features_are_tested_together():
    n = 500
    rng = seeds.rng(0, "collinear")
    deltas = rng.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], size=n)
    frame = planted_judgments(n, "collinear", slopes=(0.3, 0.3), deltas=deltas)
    gold = np.tile(rng.normal(size=n), 2)
    rows = rows_of(frame.assign(gold=gold), texts_of(deltas, NAMES), gold_exact=True)
    # VIF 1/(1 − ρ²) ≈ 10.3: neither alone need show, both together do.
    assert "variance inflation 1" in rows["length_log_odds", "given_gold"].note
    assert rows["style_joint", ""].p_value < 0.001
    assert rows["style_joint", ""].p_value < rows["length_log_odds", "given_gold"].p_value


def test_lengths_alone_serve_where_there_are_no_texts():
    frame, texts, margin = world(100, "lengths")
    length = texts["length"].to_numpy()[:100]
    lengths = {"len_a": np.tile(1000 * 2**length, 2), "len_b": 1000.0}
    by_length = {(r.term, r.variant): r for r in content_estimates(frame.assign(gold=margin, **lengths))}
    by_text = {(r.term, r.variant): r for r in content_estimates(frame.assign(gold=margin), texts.drop(columns="bold"))}
    for key in (("length_log_odds", "given_gold"), ("length_ame", "given_gold"), ("longer_preferred_raw", "")):
        assert by_length[key].estimate == pytest.approx(by_text[key].estimate, abs=1e-9)
    nothing = {(r.term, r.variant): r for r in content_estimates(frame)}
    assert nothing["longer_preferred_raw", ""].status == "undefined"


def test_unscored_identical_and_unknown_texts_leave():
    frame, texts, margin = world(100, "leaving")
    frame = frame.assign(gold=margin)
    frame.loc[:4, "verdict"] = "unscored"
    frame.loc[frame["pair_id"] == "50", "identical"] = True
    data = covariates(frame, texts[texts["candidate_id"] != "60a"], scales=UNSCALED)
    assert len(data) == 200 - 5 - 2 - 2
    assert (data.n_unscored, data.n_without_features) == (5, 2)


def test_gold_is_words_or_numbers():
    margin, numeric = gold_margin(pd.Series(["a", "b", "tie", "", None]))
    assert not numeric
    assert np.array_equal(margin, [1, -1, 0, np.nan, np.nan], equal_nan=True)
    margin, numeric = gold_margin(pd.Series([1.5, -2, np.nan]))
    assert numeric
    assert np.array_equal(margin, [1.5, -2, np.nan], equal_nan=True)
    assert np.array_equal(gold_margin(pd.Series(["1.5", "", "-2"]))[0], [1.5, np.nan, -2], equal_nan=True)
    for wrong in (["a", "c"], ["a", "1.5"], ["inf"], [object()]):
        with pytest.raises(ValueError, match="gold"):
            gold_margin(pd.Series(wrong, dtype="object"))


def test_every_undefined_row_says_why_and_no_number_is_nan():
    frame, texts, margin = world(30, "small")
    for judgments in (
        frame.iloc[:0],
        frame.iloc[:3],
        frame.assign(verdict="unscored"),
        frame.assign(gold="tie"),
        frame.assign(gold=margin, gold_2=margin),
    ):
        for row in content_estimates(judgments, texts, scales=UNSCALED):
            assert (row.estimate is None) == (row.status == "undefined"), row
            assert row.estimate is None or math.isfinite(row.estimate)
            assert row.status != "undefined" or row.note


def test_the_bootstrap_interval_is_near_the_jackknifes():
    frame, texts, margin = world(150, "bca")
    data = covariates(frame.assign(gold=margin), texts, scales=UNSCALED)
    fit = fit_slopes(data, data.gold)
    assert not isinstance(fit, Undefined)
    boot, jack = bootstrap_effect(fit, "length"), average_effect(fit, "length")
    assert isinstance(boot, Interval)
    assert isinstance(jack, Interval)
    assert (boot.method[:3], boot.estimate) == ("BCa", jack.estimate)
    assert 40 < jack.df < 149
    assert boot.std_error == pytest.approx(jack.std_error, rel=0.05)
    assert isinstance(fit_columns(data, ("order", "again"), np.column_stack([data.order, data.order])), Undefined)
    assert dataclasses.replace(fit, left_out={"hedges": "why"}).slope("hedges") == Undefined("why")
    assert isinstance(bootstrap_effect(fit, "headings"), Undefined)


def test_the_average_effects_error_is_that_of_refits_without_each_item_and_of_plain_resamples():
    frame, texts, margin = world(60, "refits")
    data = covariates(frame.assign(gold=margin), texts, scales=UNSCALED)
    fit = fit_slopes(data, data.gold)
    assert not isinstance(fit, Undefined)

    def effect(rows):
        b = logistic(fit.x[rows], fit.z[rows]).coefficients
        p = sigmoid(fit.x @ b)
        return b[1] * np.mean(p * (1 - p))

    items = np.unique(data.items)
    left_out = np.array([effect(data.items != item) for item in items])
    refitted = math.sqrt(59 / 60 * np.sum((left_out - left_out.mean()) ** 2))
    generator = seeds.rng(3, "plain resamples")
    where = {item: np.flatnonzero(data.items == item) for item in items}
    plain = np.std([effect(np.concatenate([where[i] for i in generator.choice(items, 60)])) for _ in range(400)])
    jack = average_effect(fit, "length")
    assert isinstance(jack, Interval)
    assert jack.std_error == pytest.approx(refitted, rel=0.05)
    assert jack.std_error == pytest.approx(plain, rel=0.15)


@pytest.mark.parametrize("items", [20, 100, 400])
def test_the_effect_without_each_item_is_that_of_reading_every_row_again(items):
    rows = heavy_tailed(seeds.rng(0, "every row again", items), items, per_item=2)
    fit = fit_slopes(rows, rows.gold)
    assert not isinstance(fit, Undefined)
    left_out = one_step_jackknife(fit.x, fit.z, fit.fit, fit.clusters)
    by_rows = jackknife_error(fit.marginal(left_out) * left_out[:, 1])
    jack = average_effect(fit, "length")
    assert isinstance(jack, Interval)
    assert jack.std_error == pytest.approx(by_rows, rel=1e-5)


def test_few_items_are_read_row_by_row_however_many_there_are(monkeypatch):
    read = []
    by_rows = Slopes.marginal
    monkeypatch.setattr(Slopes, "marginal", lambda fit, draws: read.append(len(draws)) or by_rows(fit, draws))
    for items in (800, 2_400):
        frame, texts, margin = world(items, "read by rows")
        data = covariates(frame.assign(gold=margin), texts, scales=UNSCALED)
        assert isinstance(average_effect(fit_slopes(data, data.gold), "length"), Interval)
    assert max(read) < 40


def test_a_slope_that_few_items_carry_has_few_degrees_of_freedom():
    frame, texts, margin = world(60, "leverage", slopes=(0.0, 0.0))
    data = covariates(frame.assign(gold=margin), texts, scales=UNSCALED)
    differences = data.differences.copy()
    differences[data.items < 3, 0] *= 8.0
    plain, stretched = (
        fit_slopes(rows, rows.gold) for rows in (data, dataclasses.replace(data, differences=differences))
    )
    for few, many in ((stretched.slope("length"), plain.slope("length")),
                      (average_effect(stretched, "length"), average_effect(plain, "length"))):  # fmt: skip
        assert few.df < 6 < 15 < many.df < 59
        assert "Bell-McCaffrey" in few.method
    assert stretched.slope("bold").df > 15


def heavy_tailed(generator, items, *, per_item=4, taste=0.7, slope=0.0):
    """A judge whose taste for length varies by item around ``slope``; lengths differ much in a few items."""
    codes = np.repeat(np.arange(items), per_item)
    n = len(codes)
    length = generator.standard_normal(n) * np.exp(1.2 * generator.standard_normal(items))[codes]
    bold, gold = generator.standard_normal((2, n))
    content = (slope + taste * generator.standard_normal(items)[codes]) * length + 0.2 * bold + gold
    picked = np.concatenate([content + generator.logistic(size=n) > 0 for _ in range(2)]).astype(float)

    def twice(values):
        return np.concatenate([values, values])

    return Covariates(
        ("length", "bold"), picked, np.repeat([1.0, -1.0], n), twice(np.stack([length, bold], axis=1)), twice(gold),
        np.full(2 * n, np.nan), True, twice(codes), twice(np.arange(n)), np.zeros(2 * n, bool), np.arange(2 * n), 0, 0,
    )  # fmt: skip


@pytest.mark.slow
def test_thirty_items_of_heavy_tailed_lengths_hold_the_level():
    """The one-step jackknife with items − 1 degrees of freedom rejects a true null here in about 10 % of samples."""
    runs, generator = 1_000, seeds.rng(0, "heavy tails")
    rejected = []
    for _ in range(runs):
        rows = heavy_tailed(generator, 30)
        fit = fit_slopes(rows, rows.gold)
        rejected.append([average_effect(fit, "length").p_value < 0.05, fit.slope("length").p_value < 0.05])
    assert np.all(np.mean(rejected, axis=0) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs))


def _coverage(intervals, truth):
    intervals = np.array(intervals)
    return np.mean((intervals[:, 1] <= truth) & (truth <= intervals[:, 2])), intervals[:, 0]


@pytest.mark.slow
def test_f1_recovery_and_coverage():
    # (γ, length, bold, q) = (.2, .3, .15, 1), 600 pairs, one call each; here both orders of 300.
    runs = 300
    intervals = {term: [] for term in ("length_log_odds", "bold_log_odds")}
    ame, null = [], []
    for run in range(runs):
        frame, texts, margin = world(300, f"F1/{run}")
        data = covariates(frame.assign(gold=margin), texts, scales=UNSCALED)
        fit = fit_slopes(data, data.gold)
        for name in ("length", "bold"):
            interval = fit.slope(name)
            intervals[f"{name}_log_odds"].append((interval.estimate, interval.low, interval.high))
        frame, texts, margin = world(300, f"F1 null/{run}", slopes=(0.0, 0.0))
        data = covariates(frame.assign(gold=margin), texts, scales=UNSCALED)
        null.append(fit_slopes(data, data.gold).slope("length").p_value < 0.05)
        if run < 60:
            ame.append(average_effect(fit, "length").std_error / (fit.slope("length").std_error))
    allowed = 0.02 + 3 * math.sqrt(0.95 * 0.05 / runs)
    for term, truth in (("length_log_odds", 0.3), ("bold_log_odds", 0.15)):
        cover, estimates = _coverage(intervals[term], truth)
        assert cover == pytest.approx(0.95, abs=allowed)
        assert estimates.mean() == pytest.approx(truth, abs=0.025)
    assert np.mean(null) == pytest.approx(0.05, abs=allowed)
    assert 0.1 < np.mean(ame) < 0.25


@pytest.mark.slow
def test_f2_item_slopes_need_the_cluster_covariance():
    # A length slope that varies by item with SD .6: 1,200 pairs, six an item.
    runs, clustered, naive = 300, [], []
    for run in range(runs):
        rng = seeds.rng(0, "F2", run)
        delta = rng.normal(size=1200)
        slopes = np.repeat(0.3 + 0.6 * rng.normal(size=200), 6)
        frame = planted_judgments(1200, f"F2/{run}", slopes=(1.0,), deltas=(slopes * delta)[:, None], pairs_an_item=6)
        texts = texts_of(delta[:, None], ["length"], 6)
        # The slope of the marginal model: what a large sample of this world converges to.
        for judgments, intervals in ((frame, clustered), (frame.assign(item_id=frame["pair_id"]), naive)):
            own_texts = texts if judgments is frame else texts.assign(item_id=texts["candidate_id"].str[:-1])
            fit = fit_slopes(covariates(judgments, own_texts))
            interval = fit.slope("length")
            intervals.append((interval.estimate, interval.low, interval.high))
    truth = float(np.mean([interval[0] for interval in clustered]))
    allowed = 0.02 + 3 * math.sqrt(0.95 * 0.05 / runs)
    assert _coverage(clustered, truth)[0] == pytest.approx(0.95, abs=allowed)
    assert _coverage(naive, truth)[0] < 0.93
