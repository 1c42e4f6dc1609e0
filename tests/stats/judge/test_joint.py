"""The joint tests of several slopes: against statsmodels' GEE score test, and their type I error and power."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from judgeloop import seeds
from judgeloop.stats.inference import Undefined
from judgeloop.stats.judge.covariates import Covariates, covariates
from judgeloop.stats.judge.slopes import JointTest, Slopes, fit_slopes, joint_score, joint_wald
from planted_verdicts import UNSCALED, rows_of, s, votes, world

TEN = (
    "length", "headings", "bold", "list_items", "code_fences", "hedges", "emoji", "transitions", "em_dashes",
    "exclamations",
)  # fmt: skip


def fitted(items: int, features: int, label: object, *, share: float = 1.0, slope: float = 0.0) -> Slopes | None:
    """A judge that follows gold and its slot, both orders of one pair an item; features but length differ in ``share``."""
    rng = seeds.rng(0, "joint", str(label), items, features)
    differences = rng.standard_normal((items, features))
    differences[:, 1:] *= rng.random((items, features - 1)) < share
    gold = rng.standard_normal(items)
    content = gold + slope * differences[:, 0]
    z = np.concatenate([rng.random(items) < s(0.3 + content), rng.random(items) < s(content - 0.3)]).astype(float)
    twice = np.tile(np.arange(items), 2)
    rows = Covariates(
        TEN[:features], z, np.repeat([1.0, -1.0], items), differences[twice], gold[twice], np.full(2 * items, np.nan),
        True, twice, twice, np.zeros(2 * items, dtype=bool), np.arange(2 * items), 0, 0,
    )  # fmt: skip
    model = fit_slopes(rows, rows.gold)
    return model if isinstance(model, Slopes) else None


def rejected(runs: int, items: int, features: int, **planted: float) -> tuple[float, float]:
    """Shares of samples in which the score test and the Wald test reject at 5 %."""
    rejections = []
    for run in range(runs):
        model = fitted(items, features, f"{run}/{planted}", **planted)
        if model is None:
            continue
        score = joint_score(model, model.features)
        wald = joint_wald(model.names, model.features, model.coefficients, model.covariance, model.df)
        if isinstance(score, JointTest) and isinstance(wald, JointTest):
            rejections.append((score.p_value < 0.05, wald.p_value < 0.05))
    assert len(rejections) > 0.8 * runs
    return tuple(np.mean(rejections, axis=0))


def test_the_score_test_is_that_of_a_gee_up_to_hotellings_scale() -> None:
    frame, texts, margin = world(300, "oracle", pairs_an_item=3)
    data = covariates(frame.assign(gold=margin), texts, scales=UNSCALED)
    model = fit_slopes(data, data.gold)
    assert isinstance(model, Slopes)
    test = joint_score(model, ("length", "bold"))
    family = sm.families.Binomial()
    full = sm.GEE(model.z, model.x, groups=model.clusters, family=family)
    without = sm.GEE(model.z, model.x[:, [0, 3]], groups=model.clusters, family=family)
    chi2 = full.compare_score_test(without.fit())["statistic"]
    # The GEE's covariance is not centred: T² = (G − 1)·X²/(G − X²) for G items.
    assert isinstance(test, JointTest)
    assert (test.q, test.df) == (2, 98)
    assert test.f == pytest.approx(chi2 * (100 - 2) / (2 * (100 - chi2)), rel=1e-7)


@pytest.mark.slow
def test_ten_features_of_a_fair_judge_are_not_found() -> None:
    # The Wald test rejects 10 to 18 % here. 150 samples: the score test's share stays below .05 + 3 errors.
    for share in (1.0, 0.25):
        score, wald = rejected(150, 60, 10, share=share)
        assert score <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
        assert wald > score


@pytest.mark.slow
@pytest.mark.parametrize(("items", "features", "share"), [(50, 10, 1.0), (60, 10, 0.3), (200, 10, 0.15), (30, 1, 1.0)])
def test_type_one_error_of_the_score_test(items: int, features: int, share: float) -> None:
    score, _ = rejected(400, items, features, share=share)
    assert score <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.slow
def test_the_score_test_keeps_the_walds_power_where_that_is_honest() -> None:
    # 100 samples each; the Wald test's head start with ten features is its excess of false rejections.
    for features, items, slope, least in ((1, 100, 0.5, 0.7), (2, 100, 0.5, 0.65), (10, 200, 0.5, 0.7)):
        score, wald = rejected(100, items, features, slope=slope)
        assert score > least
        assert score > wald - 0.12


def test_too_few_items_and_slots_that_decide_have_no_joint_test() -> None:
    model = fitted(14, 5, "few")
    assert model is not None
    reason = joint_score(model, model.features)
    assert isinstance(reason, Undefined)
    assert "15 items needed" in reason.reason
    frame, texts, margin = world(60, "locked")
    locked = frame.assign(verdict="first", gold=margin)
    assert rows_of(locked, texts, gold_exact=True)["style_joint", ""].status == "undefined"
    # A judge that is gold itself: what is kept separates, and the test still stands.
    right = np.where((margin > 0) == (frame["order"] == "ab"), "first", "second")
    row = rows_of(frame.assign(verdict=right, gold=margin), texts, gold_exact=True)["style_joint", ""]
    assert row.p_value > 0.05


def test_a_judge_that_always_picks_the_longer_is_found_by_every_term() -> None:
    for items in (30, 60, 200):
        frame, texts, margin = world(items, "always longer")
        longer = np.tile(texts["length"].iloc[:items] > 0, 2) == (frame["order"] == "ab")
        frame = frame.assign(verdict=np.where(longer, "first", "second"), gold=margin)
        rows = rows_of(frame, texts, gold_exact=True)
        for term in ("length_ame", "length_log_odds", "excess_longer_vs_gold"):
            assert rows[term, ""].status == "ok", term
            assert rows[term, ""].conf_low > 0, term
            assert rows[term, ""].p_value is None if term == "excess_longer_vs_gold" else rows[term, ""].p_value < 0.05
        assert rows["style_joint", ""].p_value < 1e-3
        assert rows["bold_log_odds", ""].p_value > 0.05


@pytest.mark.slow
def test_the_latent_models_joint_test_is_a_scaled_wald() -> None:
    """20 samples a slope: at most 5 false rejections (P < .0004 at 5 %), and most true ones."""
    rejected = {}
    for slope in (0.0, 1.0):
        rejections = []
        for k in range(20):
            frame, texts, margin = world(200, f"joint {slope} {k}", slopes=(slope, 0.0), correlation=0.5)
            golds = {name: np.tile(votes(2 * margin[:200], f"{name}{k}"), 2) for name in ("gold", "gold_2")}
            row = rows_of(frame.assign(**golds), texts)["style_joint", ""]
            assert row.method.startswith("Wald (Hotelling); latent")
            rejections.append(row.p_value < 0.05)
        rejected[slope] = sum(rejections)
    assert rejected[0.0] <= 5
    assert rejected[1.0] >= 15
