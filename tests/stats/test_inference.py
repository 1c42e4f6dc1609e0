"""Intervals and tests against closed forms, libraries and slow twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conftest import examples
from judgeloop import seeds
from judgeloop.stats.inference import (
    Interval,
    Undefined,
    bca,
    bounded_mean,
    cluster_mean,
    clustered_proportion,
    effective_df,
    fieller,
    fieller_from_moments,
    mcnemar_mid_p,
    replicate_t,
    sign_flip,
    smallest_detectable,
    surely_detectable,
    t_interval,
    tost,
    wilson,
)


def defined(result: Interval | Undefined) -> Interval:
    assert isinstance(result, Interval)
    return result


def test_replicate_t_is_the_one_sample_t():
    values = seeds.rng(0, "t").normal(0.4, 1, size=8)
    interval = defined(replicate_t(values))
    oracle = stats.ttest_1samp(values, 0)
    low, high = oracle.confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.p_value == pytest.approx(oracle.pvalue)
    assert isinstance(replicate_t([1.0]), Undefined)


def test_equal_replicates_prove_nothing_until_the_sign_test_does():
    for value in (0.0, 0.1):
        for few in range(2, 6):
            found = replicate_t([value] * few)
            assert isinstance(found, Undefined)
            assert "6 or more" in found.reason
        # 0.1 + 0.2 − 0.3 and its like: rounding is no spread.
        six = defined(replicate_t(np.full(6, value) + 1e-17 * np.arange(6)))
        assert (six.low, six.high) == pytest.approx((value, value))
        assert six.p_value == pytest.approx(1.0 if value == 0 else sign_flip([value] * 6))
    assert isinstance(fieller([0.3, 0.3], [0.1, 0.1]), Undefined)


def test_cluster_mean_equals_the_regression_on_a_constant():
    rng = seeds.rng(0, "clusters")
    clusters = rng.integers(80, size=400)
    values = rng.normal(size=400) + rng.normal(size=80)[clusters]
    from statsmodels.regression.linear_model import OLS

    oracle = OLS(values, np.ones(400)).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    interval = defined(cluster_mean(values, clusters))
    assert interval.estimate == pytest.approx(oracle.params[0])
    # With one column, statsmodels' (n − 1)/(n − p) is 1.
    assert interval.std_error == pytest.approx(oracle.bse[0], rel=1e-12)
    # Clusters of unequal size have fewer degrees of freedom than statsmodels' 79.
    assert 49 < interval.df < 79
    assert interval.p_value == pytest.approx(2 * stats.t.sf(abs(oracle.tvalues[0]), interval.df))


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_effective_degrees_of_freedom_are_satterthwaites(correlation):
    """The slow twin: the covariance matrix of the terms that the Mancl–DeRouen variance sums the squares of."""
    sizes = np.resize([1, 2, 5, 15], 14)
    clusters = np.repeat(np.arange(14), sizes)
    n = len(clusters)
    omega = np.where(clusters[:, None] == clusters, correlation, 0.0) + (1 - correlation) * np.eye(n)
    centred = (np.eye(n) - 1 / n) @ omega @ (np.eye(n) - 1 / n)
    terms = np.array([(clusters == g) / (1 - sizes[g] / n) for g in range(14)])
    m = terms @ centred @ terms.T
    assert effective_df(sizes, correlation) == pytest.approx(np.trace(m) ** 2 / np.trace(m @ m))
    assert effective_df(np.full(14, 3), correlation) == pytest.approx(13.0)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "items"), [((1, 1, 1, 15), 20), ((1, 1, 1, 15), 60), ((6,), 12), ((1, 2, 4, 8), 40)])
def test_type_one_error_of_position_with_unequal_items(sizes, items):
    """γ varies between items (sd 1), mean 0. 2,000 samples: 4 Monte-Carlo SEs of .05 are .0195; it was .084 and .066."""
    rng, rejected = seeds.rng(0, "unequal items", items, len(sizes)), 0
    clusters = np.repeat(np.arange(items), np.resize(sizes, items))
    for _ in range(2000):
        gamma, gap = rng.standard_normal(items)[clusters], rng.standard_normal(len(clusters))
        first = sum(rng.random(len(clusters)) < 1 / (1 + np.exp(-gamma - sign * gap)) for sign in (1, -1))
        rejected += defined(bounded_mean(first / 2 - 0.5, clusters, -0.5, 0.5)).p_value < 0.05
    assert rejected / 2000 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 2000)


def test_cluster_mean_below_fifty_clusters_is_mancl_derouen():
    rng = seeds.rng(0, "few")
    clusters = rng.integers(12, size=60)
    values = rng.normal(size=60)
    residual = values - values.mean()
    meat = 0.0
    for g in np.unique(clusters):
        rows = clusters == g
        leverage = np.full((rows.sum(), rows.sum()), 1 / 60)
        meat += np.sum(np.linalg.solve(np.eye(rows.sum()) - leverage, residual[rows])) ** 2
    assert defined(cluster_mean(values, clusters)).std_error == pytest.approx(math.sqrt(meat) / 60)


def test_one_row_a_cluster_is_the_plain_standard_error():
    values = seeds.rng(0, "plain").normal(size=100)
    interval = defined(cluster_mean(values, np.arange(100)))
    assert interval.std_error == pytest.approx(values.std(ddof=1) / 10)


def test_wilson_equals_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for k, n in ((0, 10), (3, 10), (10, 10), (55, 100)):
        interval = defined(wilson(k, n))
        assert (interval.low, interval.high) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)


def test_clustered_proportion_stays_inside_and_is_never_a_point():
    clusters = np.repeat(np.arange(30), 4)
    for values in (np.zeros(120), np.ones(120)):
        interval = defined(clustered_proportion(values, clusters))
        assert 0 <= interval.low < interval.high <= 1
        assert interval.high - interval.low > 0.1  # 30 items, not 120 rows
    values = np.r_[np.zeros(119), 1.0]
    interval = defined(clustered_proportion(values, clusters))
    assert 0 < interval.low < 1 / 120 < interval.high < 1


def test_the_size_of_the_first_slots_test_for_a_coin_is_five_per_cent():
    """By summation over all outcomes of 200 pairs: what the claims study's rate estimates."""
    pairs, size = 200, 0.0
    for both in range(60, 141):  # pairs in which one slot won both times: all but 1e-8 of samples
        for first in range(both // 2, -1, -1):
            values = np.repeat([0.5, -0.5, 0.0], [first, both - first, pairs - both])
            if defined(bounded_mean(values, np.arange(pairs), -0.5, 0.5)).p_value < 0.05:
                # So are all that lie further out, and their mirror images.
                size += stats.binom.pmf(both, pairs, 0.5) * 2 * stats.binom.cdf(first, both, 0.5)
                break
    assert size == pytest.approx(0.0504, abs=1e-4)


def test_bounded_mean_without_spread_is_wilsons_bound():
    from statsmodels.stats.proportion import proportion_confint

    interval = defined(bounded_mean(np.zeros(40), np.arange(40), -0.5, 0.5))
    upper = proportion_confint(0, 40, method="wilson")[1]
    assert (interval.low, interval.high) == pytest.approx((-upper / 2, upper / 2))
    always = defined(bounded_mean(np.full(40, 0.5), np.arange(40), -0.5, 0.5))
    assert (always.low, always.high) == pytest.approx((0.5 - upper, 0.5))
    assert always.p_value < 1e-10


@pytest.mark.parametrize("n", [20, 40, 100])
def test_a_limit_that_is_just_exceeded_is_rarely_passed(n):
    """Exact: pairs judged first in both orders in a tenth of cases have an excess of 5 points; no sample is drawn."""
    passed = equivalent = 0.0
    for k in range(n // 5):
        interval = defined(bounded_mean(np.where(np.arange(n) < k, 0.5, 0.0), np.arange(n), -0.5, 0.5))
        chance = float(stats.binom.pmf(k, n, 0.1))
        passed += chance * (interval.high <= 0.05)
        equivalent += chance * tost(interval, 0.05)
    assert passed <= 0.0255
    assert equivalent <= 0.06


def test_score_limits_widen_the_far_side_alone():
    """With conflicts one way only the far limit is Wilson's of their share, with as many pairs as give the standard error."""
    one_way = np.where(np.arange(40) < 5, 0.5, 0.0)
    interval, t = (
        defined(bounded_mean(one_way, np.arange(40), -0.5, 0.5)),
        defined(cluster_mean(one_way, np.arange(40))),
    )
    pairs = 0.125 * 0.875 / (2 * t.std_error) ** 2
    assert 2 * interval.high == pytest.approx(defined(wilson(0.125 * pairs, pairs)).high)
    assert (interval.low, interval.p_value) == (t.low, t.p_value)
    both_ways = np.repeat([0.5, -0.5, 0.0], [40, 30, 130])
    near = defined(bounded_mean(both_ways, np.arange(200), -0.5, 0.5))
    assert near.high == pytest.approx(defined(cluster_mean(both_ways, np.arange(200))).high, rel=0.02)


def test_fieller_is_the_set_of_ratios_that_are_not_rejected():
    rng = seeds.rng(0, "fieller")
    b = rng.normal(2, 1, size=10)
    a = 0.8 * b + rng.normal(size=10)
    interval = defined(fieller(a, b))
    assert interval.estimate == pytest.approx(a.mean() / b.mean())
    for limit in (interval.low, interval.high):
        assert stats.ttest_1samp(a - limit * b, 0).pvalue == pytest.approx(0.05)
    assert stats.ttest_1samp(a - interval.estimate * b, 0).pvalue == pytest.approx(1)
    assert defined(fieller(a, b, null=1.0)).p_value == pytest.approx(stats.ttest_1samp(a - b, 0).pvalue)


def test_fieller_is_undefined_where_the_denominator_may_be_zero():
    result = fieller([1.0, 2.0, 3.0], [-1.0, 0.1, 1.2])
    assert isinstance(result, Undefined)
    assert "covers 0" in result.reason
    assert isinstance(fieller_from_moments(1, 0, 0.1, 0.0, 0, None), Undefined)
    exact = defined(fieller_from_moments(1, 2, 0, 0, 0, None))
    assert (exact.low, exact.high) == (0.5, 0.5)


def test_tost_is_two_one_sided_tests():
    values = seeds.rng(0, "tost").normal(0.0, 1, size=60)
    interval = defined(replicate_t(values))
    for margin in (0.05, 0.2, 0.3, 0.5):
        low = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
        high = stats.ttest_1samp(values, margin, alternative="less").pvalue
        assert tost(interval, margin) == (max(low, high) < 0.05)


@pytest.mark.parametrize(("replicates", "effect"), [(3, 3.26), (5, 1.68), (6, 1.43), (8, 1.16), (10, 1.00), (20, 0.66)])
def test_smallest_detectable_reproduces_the_table(replicates, effect):
    assert smallest_detectable(1 / math.sqrt(replicates), replicates - 1) == pytest.approx(effect, abs=0.006)


@pytest.mark.parametrize("df", [4, 7, 59])
def test_a_detectable_effect_is_found_with_80_percent_power_in_90_percent_of_samples(df):
    """The estimated standard error is σ·√(χ²/df); at it alone the power is short in half of all samples and more."""
    chi2, critical = stats.chi2.ppf((np.arange(400) + 0.5) / 400, df), stats.t.ppf(0.975, df)

    def share(detectable):
        power = [1.0 - stats.nct.cdf(critical, df, detectable(math.sqrt(one / df), df)) for one in chi2]
        return np.mean(np.array(power) >= 0.8)

    assert share(surely_detectable) == pytest.approx(0.9, abs=0.02)
    assert share(smallest_detectable) < 0.55


def test_smallest_detectable_of_the_normal():
    assert smallest_detectable(1.0, None) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    assert smallest_detectable(1.0, 5000) == pytest.approx(smallest_detectable(1.0, None), rel=1e-3)


@given(ff=st.integers(0, 40), ss=st.integers(0, 40))
def test_mid_p_is_the_plain_sum(ff, ss):
    n = ff + ss
    mass = [math.comb(n, k) / 2**n for k in range(n + 1)]
    expected = sum(
        m * (1.0 if abs(2 * k - n) > abs(ff - ss) else 0.5)
        for k, m in enumerate(mass)
        if abs(2 * k - n) >= abs(ff - ss)
    )
    if ff == ss:
        expected = 1.0
    assert mcnemar_mid_p(ff, ss) == pytest.approx(expected, abs=1e-12)
    assert mcnemar_mid_p(ff, ss) == mcnemar_mid_p(ss, ff)


@settings(max_examples=examples(30))
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_sign_flip_enumerates(values):
    total = abs(sum(values))
    hits = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) >= total
            for signs in itertools.product((1, -1), repeat=len(values))]  # fmt: skip
    assert sign_flip(values) == pytest.approx(np.mean(hits))


def test_sign_flip_needs_six_to_reject():
    assert sign_flip(np.arange(1, 6)) == 2 / 2**5
    assert sign_flip(np.arange(1, 7)) == 2 / 2**6 < 0.05


def test_bca_is_the_percentile_interval_where_nothing_is_skewed():
    grid = stats.norm.ppf((np.arange(20_001) + 0.5) / 20_001)
    interval = defined(bca(0.0, grid, np.array([-1.0, 1.0, -2.0, 2.0])))
    assert (interval.low, interval.high) == pytest.approx((-1.96, 1.96), abs=1e-3)
    shifted = defined(bca(3.0, grid + 3.0, np.array([-1.0, 1.0])))
    assert shifted.p_value == pytest.approx(2 * stats.norm.sf(3.0), rel=0.02)
    assert isinstance(bca(0.0, np.zeros(10), np.zeros(5)), Undefined)
    # Exact soft verdicts: nothing changes with one item left out, and tiny values do not underflow.
    assert defined(bca(0.0, grid, np.full(60, 0.3))) == defined(bca(0.0, grid, np.array([-1.0, 1.0])))
    skewed = np.array([0.0, 0.0, 0.0, 3.0])
    assert defined(bca(0.0, grid, 1e-200 * skewed)).high == pytest.approx(defined(bca(0.0, grid, skewed)).high)


def test_t_interval_covers():
    interval = t_interval(3.0, 0.5, 10)
    assert interval.covers(3.5)
    assert not interval.covers(5.0)


def _coverage(draw, truth: float, runs: int, label: str) -> float:
    rng = seeds.rng(0, "coverage", label)
    return float(np.mean([defined(draw(rng)).covers(truth) for _ in range(runs)]))


def _allowed(runs: int) -> float:
    """docs/method.md, "Coverage criterion": |coverage − .95| ≤ .02 + 3 Monte-Carlo errors."""
    return 0.02 + 3 * math.sqrt(0.95 * 0.05 / runs)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [20, 50, 100])
@pytest.mark.parametrize("rate", [0.05, 0.55])
def test_clustered_proportion_covers(groups, rate):
    def draw(rng):
        # Beta-binomial items with intra-item correlation 1/(1 + 4) = .2, five rows each.
        p = rng.beta(4 * rate, 4 * (1 - rate), size=groups)
        values = (rng.random((groups, 5)) < p[:, None]).astype(float)
        return clustered_proportion(values.ravel(), np.repeat(np.arange(groups), 5))

    runs = 1500
    assert _coverage(draw, rate, runs, f"{groups}/{rate}") == pytest.approx(0.95, abs=_allowed(runs))


@pytest.mark.slow
def test_fieller_covers_with_five_replicates():
    def draw(rng):
        b = rng.normal(2.0, 0.6, size=5)
        return fieller(1.3 * b + rng.normal(0, 0.5, size=5), b)

    runs = 3000
    rng = seeds.rng(0, "coverage", "fieller")
    found = [result for result in (draw(rng) for _ in range(runs)) if isinstance(result, Interval)]
    assert len(found) > 0.95 * runs
    assert np.mean([one.covers(1.3) for one in found]) == pytest.approx(0.95, abs=_allowed(runs))
