"""Replies without a verdict: rates, and the test of what they depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from judgeloop import seeds
from judgeloop.report.answers import brief
from judgeloop.report.findings import findings
from judgeloop.report.reading import as_estimates
from judgeloop.stats.estimate import Estimate, RowLabels, estimates_frame
from judgeloop.stats.judge.estimates import judge_estimates
from judgeloop.stats.judge.missing import missing_estimates, with_claims_withheld
from judgeloop.stats.judge.probes import probe_estimates
from judgeloop.stats.judge.self_preference import self_preference_gold
from judgeloop.stats.multiplicity import adjust
from planted_verdicts import rows_of, s, verdict_frame, world


def test_the_joint_test_is_hotellings_of_each_items_scores() -> None:
    frame, texts, _ = world(150, "missing")
    rng = seeds.rng(0, "missing")
    frame = frame.assign(verdict=frame["verdict"].mask(rng.random(len(frame)) < 0.2, "unscored"))
    row = rows_of(frame, texts)["unscored_joint", ""]
    order = np.where(frame["order"] == "ab", 1.0, -1.0)
    gap = np.tile((texts["length"].to_numpy()[:150] - texts["length"].to_numpy()[150:]), 2)
    x = np.column_stack([order, order * gap, np.abs(gap)])
    lost = (frame["verdict"] == "unscored").to_numpy(dtype=float)
    scores: dict[str, np.ndarray] = {}
    for item, columns, is_lost in zip(frame["item_id"], x - x.mean(axis=0), lost, strict=True):
        scores[item] = scores.get(item, np.zeros(3)) + columns * (is_lost - lost.mean())
    u = np.array(list(scores.values()))
    t2 = 150 * u.mean(axis=0) @ np.linalg.solve(np.cov(u.T), u.mean(axis=0))
    f = t2 * (150 - 3) / (3 * 149)
    assert row.estimate == pytest.approx(f, rel=1e-9)
    assert row.p_value == pytest.approx(stats.f.sf(f, 3, 147), rel=1e-9)
    assert row.n_unscored == int(lost.sum())
    fit = sm.GLM(lost, np.column_stack([np.ones(300), x]), family=sm.families.Binomial()).fit(tol=1e-13)
    assert f"order {fit.params[1]:+.2f}, length {fit.params[2]:+.2f}, |length| {fit.params[3]:+.2f}" in row.note


def test_replies_that_length_cuts_off_to_the_last_one_are_found() -> None:
    frame, texts, _ = world(100, "cut")
    gap = np.tile(texts["length"].to_numpy()[:100] - texts["length"].to_numpy()[100:], 2)
    shown_first_longer = np.where(frame["order"] == "ab", gap, -gap)
    lost = shown_first_longer > np.sort(shown_first_longer)[-15]
    row = rows_of(frame.assign(verdict=frame["verdict"].mask(lost, "unscored")), texts)["unscored_joint", ""]
    assert row.p_value < 0.01
    assert "perfectly" in row.note


@pytest.mark.slow
def test_replies_lost_by_length_are_found_and_random_ones_are_not() -> None:
    rejected = {"length": 0, "chance": 0}
    for k in range(20):
        frame, texts, _ = world(150, f"lost {k}")
        rng = seeds.rng(k, "lost")
        gap = np.tile(texts["length"].to_numpy()[:150] - texts["length"].to_numpy()[150:], 2)
        order = np.where(frame["order"] == "ab", 1.0, -1.0)
        for name, p in (("length", s(-2.0 + 1.0 * order * gap)), ("chance", np.full(300, 0.15))):
            lost = frame.assign(verdict=frame["verdict"].mask(rng.random(300) < p, "unscored"))
            row = rows_of(lost, texts)["unscored_joint", ""]
            rejected[name] += row.p_value <= 0.05
    assert rejected["length"] >= 15
    assert rejected["chance"] <= 20 * 0.05 + 3 * np.sqrt(20 * 0.05 * 0.95)


def test_rates_by_order_and_too_few_to_test() -> None:
    frame, texts, _ = world(60, "few")
    lost = (frame["order"] == "ab") & (np.arange(len(frame)) % 10 == 0)
    rows = rows_of(frame.assign(verdict=frame["verdict"].mask(lost, "unscored")), texts)
    assert rows["unscored_rate", ""].estimate == pytest.approx(lost.mean())
    assert rows["unscored_rate", "ba"].estimate == 0.0
    assert rows["unscored_rate", "ab"].n_unscored == int(lost.sum())
    assert "needs 10" in rows["unscored_joint", ""].note
    assert rows_of(frame, texts)["unscored_joint", ""].note == "every reply has a verdict"


def selected(kind: str, label: object, *, strength: float = 2.0, pairs: int = 300) -> pd.DataFrame:
    """An unbiased judge of quality in both orders, gold is that quality; gold, or verdicts, are missing as ``kind`` says."""
    rng = seeds.rng(0, "selected", kind, str(label))
    length, unseen = rng.standard_normal((2, pairs))
    quality = 0.5 * length + unseen
    content = quality if kind != "slot" else 2.0 * unseen
    picked = [rng.random(pairs) < s(content) for _ in range(2)]
    longer = np.mean([np.where(a, length, -length) > 0 for a in picked], axis=0)  # how often the longer was picked
    known = {"gold by verdict": s(strength * (2.0 * longer - 1.0)), "gold by lot": np.full(pairs, 0.5)}
    golds = np.where(rng.random(pairs) < known.get(kind, 1.0), quality, np.nan)
    parts = []
    for order, a_picked in zip(("ab", "ba"), picked, strict=True):
        verdict = np.where(a_picked == (order == "ab"), "first", "second")
        own_longer = np.where(a_picked, length, -length) > 0
        chance = {"verdict by pick": np.where(own_longer, 0.02, 0.3), "slot": np.where(verdict == "first", 0.02, 0.3)}
        lost = rng.random(pairs) < chance.get(kind, 0.1)
        sizes = {"len_a": 1000.0 * 2.0**length, "len_b": 1000.0}
        parts.append(verdict_frame(
            np.where(lost, "unscored", verdict), range(pairs), range(pairs), [order] * pairs, gold=golds, **sizes
        ))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def judged_rows(frame: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    estimates = judge_estimates(frame, gold_exact=True)
    return {(row["term"], row["variant"]): row for _, row in estimates.iterrows()}


def test_gold_that_depends_on_the_verdict_withholds_claims_at_equal_gold() -> None:
    frame = selected("gold by verdict", 0)
    rows = judged_rows(frame)
    assert rows["gold_missing_by_verdict", ""]["p_value"] < 0.01
    for term in ("length_ame", "length_log_odds"):
        withheld = rows[term, ""]
        assert (withheld["verdict"], withheld["family"]) == ("cannot_tell", "none")
        assert np.isnan(withheld["p_value"])
        assert withheld["conf_low"] > 0  # what was claimed before
    said = [finding.sentence for finding in findings(judge_estimates(frame, gold_exact=True))]
    assert any("label pairs drawn by lot" in sentence for sentence in said)
    (length,) = [sentence for sentence in said if "length at equal gold" in sentence]
    assert "depends on the verdict, and that could account for it" in length
    # By lot: the test has nothing to find, and the claims are made as ever.
    rows = judged_rows(selected("gold by lot", 1))
    assert rows["gold_missing_by_verdict", ""]["p_value"] > 0.05
    assert rows["length_ame", ""]["family"] == "confirmatory"


def test_lost_replies_bound_the_preference_for_length() -> None:
    frame = selected("verdict by pick", 0)
    estimates = judge_estimates(frame, gold_exact=True)
    rows = {(row["term"], row["variant"]): row for _, row in estimates.iterrows()}
    low, high = (rows["length_ame", f"worst_case_{end}"] for end in ("low", "high"))
    assert low["conf_low"] < 0 < rows["length_ame", ""]["estimate"] < high["estimate"]
    length = np.log2(frame["len_a"] / frame["len_b"])
    longer = ((frame["verdict"] == "first") == (frame["order"] == "ab")) == (length > 0)
    lost = frame["verdict"] == "unscored"
    assert rows["longer_preferred_raw", "worst_case_low"]["estimate"] == pytest.approx(np.mean(longer & ~lost))
    assert rows["longer_preferred_raw", "worst_case_high"]["estimate"] == pytest.approx(np.mean(longer | lost))
    assert rows["unscored_by_verdict", ""]["p_value"] < 0.05
    assert rows["length_ame", ""]["verdict"] == "cannot_tell"


def test_a_claim_that_its_worst_cases_do_not_bear_out_says_its_condition_in_a_field() -> None:
    found = Estimate(
        scope="judge", term="length_ame", bias="verbosity", judge="j", estimate=0.06, conf_low=0.02, conf_high=0.1, n=600,
        n_items=300, n_unscored=96, unit="probability per doubling", verdict="found", family="confirmatory", p_value=0.01,
    )  # fmt: skip
    described = replace(found, verdict="", family="none", p_value=None, std_error=0.02)
    low = replace(described, variant="worst_case_low", estimate=-0.02, conf_low=-0.06, conf_high=0.02)
    high = replace(described, variant="worst_case_high", estimate=0.13, conf_low=0.09, conf_high=0.17)
    rows = as_estimates(adjust(estimates_frame(with_claims_withheld([found, low, high]))))
    assert rows[0].verdict == "found_if_unscored_alike"
    finding, *_ = findings(rows)
    assert finding.verdict == "unconfirmed"
    condition = "but only if the 96 unscored judgments would have gone as the others"
    assert condition in finding.sentence
    assert brief(finding).endswith(condition.removeprefix("but "))
    nearer = replace(low, estimate=0.04, conf_low=0.01, conf_high=0.07)
    assert with_claims_withheld([found, nearer, high])[0].verdict == "found"
    assert with_claims_withheld([replace(found, n_unscored=0), low, high])[0].verdict == "found"
    none = replace(found, estimate=0.0, conf_low=-0.03, conf_high=0.03, verdict="none", margin=0.05)
    apart = [replace(none, verdict="", variant=f"worst_case_{end}", std_error=0.015) for end in ("low", "high")]
    assert with_claims_withheld([none, *apart])[0].verdict == "none"
    apart[1] = replace(apart[1], estimate=0.03, conf_low=0.0, conf_high=0.06)
    (open_,) = findings(with_claims_withheld([none, *apart])[:1])
    assert (open_.row.verdict, open_.verdict) == ("none_if_unscored_alike", "undetected")
    assert condition in open_.sentence


@pytest.mark.parametrize("term", ["style_joint", "length_shape"])
def test_no_other_verdicts_of_lost_replies_leave_a_joint_test_less(term: str) -> None:
    frame, texts, margin = world(120, "least", slopes=(0.8, 0.5))
    rng = seeds.rng(0, "least")
    lost = rng.random(len(frame)) < 0.05
    frame = frame.assign(verdict=frame["verdict"].mask(lost, "unscored"), gold=margin)
    if term == "length_shape":  # the longer text is picked where the lengths differ most, and nowhere else
        gap = np.tile(texts["length"].to_numpy()[:120] - texts["length"].to_numpy()[120:], 2)
        a_first = (frame["order"] == "ab").to_numpy()
        far = np.abs(gap) > np.quantile(np.abs(gap), 0.7)
        frame["verdict"] = frame["verdict"].mask(far & ~lost, np.where((gap > 0) == a_first, "first", "second"))
    rows = rows_of(frame, texts, gold_exact=True, bootstrap=False)
    least = rows[term, "worst_case"].estimate
    assert 0 < least < rows[term, ""].estimate
    for _ in range(2):
        others = np.where(rng.random(len(frame)) < 0.5, "first", "second")
        filled = frame.assign(verdict=frame["verdict"].mask(lost, others))
        assert rows_of(filled, texts, gold_exact=True, bootstrap=False)[term, ""].estimate > least


def test_worst_cases_of_edits_own_texts_and_single_features() -> None:
    frame, texts, margin = world(80, "bounds", slopes=(0.0, 1.5))
    lost = seeds.rng(0, "bounds").random(len(frame)) < 0.1
    frame = frame.assign(verdict=frame["verdict"].mask(lost, "unscored"), gold=margin)
    rows = rows_of(frame, texts, gold_exact=True, bootstrap=False)
    low, middle, high = (rows["bold_log_odds", v].estimate for v in ("worst_case_low", "", "worst_case_high"))
    assert low < middle < high
    probe = frame.assign(probe="bold", dose=np.nan, panel="probe", judge="j")
    by_variant = {row.variant: row for row in probe_estimates(probe) if row.term == "bold_probe"}
    b_picked = (frame["verdict"] == "second") == (frame["order"] == "ab")
    for variant, picks in (("worst_case_low", b_picked & ~lost), ("worst_case_high", b_picked | lost)):
        assert by_variant[variant].estimate == pytest.approx(picks.mean() - 0.5)
    own = frame.assign(model_a="j", model_b="other")
    _, low_own, high_own = self_preference_gold(own, RowLabels("j"), gold_exact=True)
    filled = own.assign(verdict=frame["verdict"].mask(lost, np.where(frame["order"] == "ab", "first", "second")))
    assert high_own.estimate == pytest.approx(self_preference_gold(filled, RowLabels("j"))[0].estimate)
    assert low_own.estimate < high_own.estimate


def test_replies_lost_for_one_slot_withhold_its_claim() -> None:
    row = judged_rows(selected("slot", 0))["first_slot_excess", ""]
    assert row["conf_low"] > 0
    assert (row["verdict"], row["family"]) == ("cannot_tell", "none")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gold by verdict", "verdict by pick", "slot"])
def test_what_is_missing_by_the_verdict_makes_no_unconditional_claim(kind: str) -> None:
    runs, term = 60, "first_slot_excess" if kind == "slot" else "length_ame"
    claimed, off = [], []
    for k in range(runs):
        said = findings(judge_estimates(selected(kind, k), gold_exact=True))
        finding = next(finding for finding in said if finding.row.term == term and not finding.row.variant)
        claimed.append(finding.verdict == "found")
        off.append(finding.row.conf_low > 0 or finding.row.conf_high < 0)
    assert np.mean(claimed) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert np.mean(off) > 0.3  # what was claimed before


@pytest.mark.slow
def test_the_tests_of_what_is_missing_hold_their_level() -> None:
    runs, terms = 150, ("gold_missing_joint", "gold_missing_by_verdict", "unscored_by_verdict")
    p_values = {term: [] for term in terms}
    for k in range(runs):
        rows = {row.term: row for row in missing_estimates(selected("gold by lot", k), None, RowLabels())}
        for term in terms:
            p_values[term].append(rows[term].p_value)
    for term in terms:
        assert np.mean(np.array(p_values[term]) <= 0.05) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / runs), term
