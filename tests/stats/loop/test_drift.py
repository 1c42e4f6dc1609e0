"""Levels, drift and drift beyond a control: slow twins, items that come and go, and the rate of false claims."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import planted_run
from conftest import examples
from drift_tables import ARMS, tables, two_arms
from judgeloop.seeds import rng
from judgeloop.stats.design import Design, Margins, RunTables
from judgeloop.stats.estimate import Estimate, Point, estimate_row, replicate_mean
from judgeloop.stats.inference import Interval, Undefined, replicate_t, surely_detectable, t_interval
from judgeloop.stats.loop.drift import difference_of_groups, drift_estimates, quantity_series
from judgeloop.stats.loop.replicates import Quantity, Series, item_means, measure, series


def estimates(given_tables: RunTables, design: Design) -> pd.DataFrame:
    measured = measure(given_tables, design)
    rows = drift_estimates(measured, series(measured), design)
    return pd.DataFrame([{field: getattr(row, field) for field in row.__slots__} for row in rows], dtype=object)


@cache
def standard() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Candidates and estimates of the tables of two arms; not to be written to."""
    return tables().candidates, estimates(tables(), two_arms())


@cache
def smaller() -> tuple[RunTables, pd.DataFrame]:
    """The same of fewer replicates, items and texts."""
    made = tables(replicates=2, items=4, pool=3)
    return made, estimates(made, two_arms())


def pick(frame: pd.DataFrame, term: str, **labels: object) -> pd.Series:
    chosen = frame[frame["term"] == term]
    for name, value in {"category": "", **labels}.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


def slow_mean(frame: pd.DataFrame, replicate: int, arm: str, t: int, column: str, items: set[str]) -> float:
    """The mean over items of the item's mean over its draws, in plain loops."""
    of_items = []
    cell = frame[(frame["replicate"] == replicate) & (frame["arm"] == arm) & (frame["generation"] == t)]
    rows = list(cell.itertuples())
    for item in sorted(items):
        total, count = 0.0, 0
        for row in rows:
            if row.item_id == item and row.text is not None:
                total += row.n_drawn * getattr(row, column)
                count += row.n_drawn
        of_items.append(total / count)
    return sum(of_items) / len(of_items)


def test_did_is_the_slow_twins() -> None:
    frame, rows = standard()
    items = set(frame["item_id"])
    values = []
    for replicate in range(4):
        drift = {
            arm: slow_mean(frame, replicate, arm, 2, "length", items)
            - slow_mean(frame, replicate, arm, 0, "length", items)
            for arm in ("judge", "random")
        }
        values.append(drift["judge"] - drift["random"])
    expected = replicate_t(values)
    assert isinstance(expected, Interval)
    row = pick(rows, "did_length", arm="judge", generation=2)
    assert row["estimate"] == pytest.approx(expected.estimate, abs=1e-12)
    assert row["std_error"] == pytest.approx(expected.std_error, abs=1e-12)
    assert row["conf_low"] == pytest.approx(expected.low, abs=1e-12)
    assert (row["n"], row["n_replicates"], row["family"]) == (4, 4, "confirmatory")
    assert pick(rows, "did_length", arm="judge", generation=1)["family"] == "exploratory"
    level = pick(rows, "mean_length", arm="judge", generation=1)
    mean = np.mean([slow_mean(frame, r, "judge", 1, "length", items) for r in range(4)])
    assert level["estimate"] == pytest.approx(mean)
    assert level["n"] == 4 * 6 * 4
    assert level["p_value"] is None


def test_style_is_in_pooled_generation_zero_sds() -> None:
    frame, rows = standard()
    zero = frame[(frame["generation"] == 0) & (frame["n_drawn"] > 0)]
    sd = np.sqrt(
        np.average((zero["bold"] - np.average(zero["bold"], weights=zero["n_drawn"])) ** 2, weights=zero["n_drawn"])
    )
    raw = np.mean([slow_mean(frame, r, "judge", 2, "bold", set(frame["item_id"])) for r in range(4)])
    assert pick(rows, "mean_bold", arm="judge", generation=2)["estimate"] == pytest.approx(raw / sd)
    assert pick(rows, "mean_style_score", arm="judge", generation=2)["estimate"] == pytest.approx(raw / sd)
    at_zero = [pick(rows, "sd_bold", arm=arm, generation=0)["estimate"] for arm in ("judge", "random")]
    assert np.mean(at_zero) == pytest.approx(1.0, abs=0.1)
    headings = pick(rows, "did_headings", arm="judge", generation=2)
    assert headings["status"] == "undefined"
    assert headings["estimate"] is None
    assert "standard deviation at generation 0 is 0" in headings["note"]


@settings(max_examples=examples(4))
@given(st.floats(-1e3, 1e3), st.integers(0, 3))
def test_undrawn_texts_and_failed_drafts_change_nothing(value: float, item: int) -> None:
    plain, before = smaller()
    extra = plain.candidates[plain.candidates["item_id"] == f"i{item}"].assign(
        length=value, bold=value, n_drawn=0, candidate_id=lambda f: "undrawn-" + f["candidate_id"]
    )
    failed = extra.assign(
        text=None, reason="transport", candidate_id=lambda f: "failed-" + f["candidate_id"], length=np.nan
    )
    frame = pd.concat([plain.candidates, extra, failed], ignore_index=True)
    after = estimates(RunTables(plain.items, frame, *[pd.DataFrame()] * 3), two_arms())
    pd.testing.assert_series_equal(before["estimate"], after["estimate"])
    assert "failed drafts are left out" in pick(after, "mean_length", arm="judge", generation=1)["note"]


def test_an_item_that_lost_its_candidates_leaves_every_generation() -> None:
    plain = tables()
    frame = plain.candidates.copy()
    lost = (
        (frame["replicate"] == 1) & (frame["arm"] == "random") & (frame["generation"] == 1) & (frame["item_id"] == "i0")
    )
    frame.loc[lost, ["text", "n_drawn"]] = [None, 0]
    rows = estimates(RunTables(plain.items, frame, *[pd.DataFrame()] * 3), two_arms())
    kept = {f"i{k}" for k in range(1, 6)}
    everyone = {f"i{k}" for k in range(6)}
    means = [slow_mean(plain.candidates, r, "judge", 2, "length", kept if r == 1 else everyone) for r in range(4)]
    row = pick(rows, "mean_length", arm="judge", generation=2)
    assert row["estimate"] == pytest.approx(np.mean(means))
    assert "1 items (over replicates) without a candidate in some generation are left out" in row["note"]


def test_categories() -> None:
    given_tables = tables(items=12)
    rows = estimates(given_tables, two_arms())
    parts = [pick(rows, "did_length", arm="judge", generation=2, category=name) for name in ("a", "b")]
    whole = pick(rows, "did_length", arm="judge", generation=2)
    # Equal numbers of items: the whole is the mean of the parts.
    assert whole["estimate"] == pytest.approx(np.mean([part["estimate"] for part in parts]))
    assert {part["family"] for part in parts} == {"exploratory"}
    assert set(rows.loc[rows["category"] == "a", "term"]) >= {
        "mean_correct",
        "drift_correct",
        "did_correct",
        "drift_length",
        "did_bold",
    }
    one = RunTables(given_tables.items.assign(category="a"), given_tables.candidates, *[pd.DataFrame()] * 3)
    assert set(estimates(one, two_arms())["category"]) == {""}


def test_hedging_when_wrong_is_of_wrong_answers() -> None:
    plain = tables()
    frame = plain.candidates.assign(hedges=lambda f: np.where(f["correct"] == 0, 3.0, 0.0))
    rows = estimates(RunTables(plain.items, frame, *[pd.DataFrame()] * 3), two_arms())
    zero = frame[(frame["generation"] == 0) & (frame["n_drawn"] > 0)]["hedges"]
    expected = 3.0 / zero.std(ddof=0)
    assert pick(rows, "hedging_when_wrong", arm="judge", generation=1)["estimate"] == pytest.approx(expected)
    unknown = RunTables(plain.items, frame.assign(correct=np.nan), *[pd.DataFrame()] * 3)
    row = pick(estimates(unknown, two_arms()), "mean_correct", arm="judge", generation=1)
    assert (row["status"], row["estimate"], row["note"]) == ("undefined", None, "no item has a reference")


def test_rare_categories_are_pooled_and_named() -> None:
    """Items 0–5 are x; six categories of one item each are pooled; four such items are too few to pool."""
    plain = tables(items=12)
    rare = RunTables(plain.items.assign(category=["x"] * 6 + list("fedcba")), plain.candidates, *[pd.DataFrame()] * 3)
    rows = estimates(rare, two_arms())
    assert set(rows["category"]) == {"", "x", "(rare)"}
    row = pick(rows, "did_bold", arm="judge", generation=2, category="(rare)")
    assert row["n_items"] == 6
    assert "pools a, b, c, d, e, f: fewer than 5 items each" in row["note"]
    named = RunTables(
        plain.items.assign(category=list("abcdef") + ["(rare)"] * 6), plain.candidates, *[pd.DataFrame()] * 3
    )
    by_hand = RunTables(plain.items.assign(category=["x"] * 6 + ["y"] * 6), plain.candidates, *[pd.DataFrame()] * 3)
    same = pick(estimates(by_hand, two_arms()), "did_bold", arm="judge", generation=2, category="y")
    assert row["estimate"] == pytest.approx(same["estimate"])
    assert set(estimates(named, two_arms())["category"]) == {""}  # The pool is all there is: it would repeat the whole.
    few = RunTables(plain.items.assign(category=["x"] * 8 + list("abcd")), plain.candidates, *[pd.DataFrame()] * 3)
    assert set(estimates(few, two_arms())["category"]) == {""}


def hedging(seed: int, easier: bool, hedges_more: float = 0.0) -> RunTables:
    """Hard items hedge by 2, easy ones by 0, whatever the arm and the time; the judge's arm gets easy items right."""
    stream = rng(seed, "hedging")
    rows = []
    for replicate in range(8):
        for arm in ("judge", "random"):
            for t in range(3):
                for item in range(24):
                    hard = item < 12
                    wrong = 0.9 if hard else (0.1 if easier and arm == "judge" and t else 0.7)
                    for k in range(4):
                        hedges = stream.poisson(2.0 if hard else 0.3) + (hedges_more if arm == "judge" and t else 0.0)
                        correct = float(stream.random() > wrong)
                        rows.append((replicate, arm, t, f"i{item}", f"k{k}", "text", "", 5.0, hedges, 1, correct))
    columns = ["replicate", "arm", "generation", "item_id", "candidate_id", "text", "reason", "length", "hedges", "n_drawn",
               "correct"]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    items = pd.DataFrame({"item_id": [f"i{k}" for k in range(24)], "category": ""})
    return RunTables(items, frame, *[pd.DataFrame()] * 3)


def test_hedging_when_wrong_does_not_drift_because_other_items_are_wrong() -> None:
    """No text's hedging depends on arm or time. Over whichever items are wrong it read did +.57, drifting."""
    rows = estimates(hedging(0, easier=True), two_arms())
    row = pick(rows, "did_hedging_when_wrong", arm="judge", generation=2)
    assert row["conf_low"] < 0 < row["conf_high"]
    assert abs(row["estimate"]) < 0.25
    levels = [pick(rows, "hedging_when_wrong", arm=arm, generation=2)["estimate"] for arm in ("judge", "random")]
    assert levels[0] - levels[1] > 0.15  # The level is of other items, and says so by moving.
    assert "the same items, those wrong at both generations in both arms" in row["note"]
    assert 12 <= row["n_items"] <= 24
    drift = pick(rows, "drift_hedging_when_wrong", arm="judge", generation=2)
    assert drift["conf_low"] < 0 < drift["conf_high"]
    # A real change is found.
    more = pick(estimates(hedging(0, True, 1.0), two_arms()), "did_hedging_when_wrong", arm="judge", generation=2)
    assert more["conf_low"] > 0


def test_hedging_when_wrong_is_paired_by_item() -> None:
    """A slow twin: items wrong in all four cells, each its own change."""
    given_tables = hedging(1, easier=False)
    frame = given_tables.candidates
    scale = frame[frame["generation"] == 0]["hedges"].std(ddof=0)
    values, wrong = [], {}
    for row in frame[frame["correct"] == 0].itertuples():
        wrong.setdefault((row.replicate, row.arm, row.generation, row.item_id), []).append(row.hedges)
    for replicate in range(8):
        changes = []
        for item in range(24):
            cells = []
            for arm, t in (("judge", 1), ("judge", 0), ("random", 1), ("random", 0)):
                hedges = wrong.get((replicate, arm, t, f"i{item}"), [np.nan])
                cells.append(np.mean(hedges) / scale)
            if not np.isnan(cells).any():
                changes.append(cells[0] - cells[1] - cells[2] + cells[3])
        values.append(np.mean(changes))
    row = pick(estimates(given_tables, two_arms()), "did_hedging_when_wrong", arm="judge", generation=1)
    assert row["estimate"] == pytest.approx(np.mean(values))
    few = RunTables(
        given_tables.items, frame[frame["item_id"].isin([f"i{k}" for k in range(4)])], *[pd.DataFrame()] * 3
    )
    row = pick(estimates(few, two_arms()), "did_hedging_when_wrong", arm="judge", generation=1)
    assert row["status"] == "undefined"
    assert "no 5 items a replicate" in row["note"]


def test_verdict_words_in_order() -> None:
    def drift(interval: Interval, margin: float | None) -> Estimate:
        return estimate_row(interval, margin=margin, drift=True, scope="policy", bias="style", term="did_bold")

    tight, wide, away = t_interval(0.01, 0.01, 7), t_interval(0.1, 0.2, 7), t_interval(0.5, 0.1, 7)
    assert drift(tight, 0.1).verdict == "none"
    # Small but certain is still none: equivalence is asked first.
    assert drift(t_interval(0.05, 0.001, 7), 0.1).verdict == "none"
    assert drift(away, 0.1).verdict == "drifting"
    undetected = drift(wide, 0.1)
    assert (undetected.verdict, undetected.status, undetected.margin) == ("undetected", "underpowered", 0.1)
    assert undetected.detectable == pytest.approx(surely_detectable(0.2, 7))
    assert (drift(tight, None).verdict, drift(tight, None).margin) == ("undetected", None)


def test_one_replicate_has_an_estimate_and_no_interval() -> None:
    assert replicate_mean(pd.Series([0.4])) == Point(0.4, "one replicate has no interval")
    assert replicate_mean(pd.Series(dtype=float), "nothing") == Undefined("nothing")
    rows = estimates(tables(replicates=1), two_arms())
    row = pick(rows, "did_length", arm="judge", generation=2)
    assert row["status"] == "underpowered"
    assert row["conf_low"] is None
    assert row["p_value"] is None


def test_equal_arms_show_no_rounding_as_drift() -> None:
    frame = tables().candidates
    judge = frame[frame["arm"] == "judge"]
    both = pd.concat([judge, judge.assign(arm="random", length=judge["length"] + 1e-15)])
    rows = estimates(RunTables(pd.DataFrame(), both, *[pd.DataFrame()] * 3), two_arms())
    row = pick(rows, "did_length", arm="judge", generation=2)
    # Equal, and too few replicates for equality to prove anything.
    assert (row["estimate"], row["std_error"], row["p_value"]) == (0.0, None, None)
    assert row["status"] == "underpowered"
    assert row["verdict"] == "cannot_tell"
    assert row["note"].startswith("all 4 replicates are equal")


@pytest.mark.parametrize("drift", [0.0, 0.3])
@pytest.mark.parametrize("replicates", [2, 5, 6])
def test_equal_drifts_are_no_verdict_below_six_replicates(drift: float, replicates: int) -> None:
    both = tables(replicates=replicates).candidates
    judge = both[both["arm"] == "judge"]
    same = judge.assign(arm="random", length=judge["length"] - drift * (judge["generation"] == 2))
    rows = estimates(RunTables(pd.DataFrame(), pd.concat([judge, same]), *[pd.DataFrame()] * 3), two_arms())
    row = pick(rows, "did_length", arm="judge", generation=2)
    assert row["estimate"] == pytest.approx(drift)
    if replicates < 6:
        assert (row["status"], row["p_value"], row["conf_low"]) == ("underpowered", None, None)
        assert row["verdict"] == "cannot_tell"
    else:
        assert row["verdict"] == ("drifting" if drift else "none")
        assert "of the median" in row["method"]
        assert row["p_value"] == pytest.approx(2 / 2**6 if drift else 1.0)


def test_item_means_ignore_missing_values() -> None:
    frame = pd.DataFrame({
        "replicate": 0, "arm": "a", "generation": 0, "item_id": ["x", "x", "y", "z"], "f": [1.0, np.nan, 3.0, np.nan],
        "w": [1.0, 5.0, 0.0, 1.0],
    })  # fmt: skip
    means = item_means(frame, ["f"], "w")
    assert means["f"].tolist()[0] == 1.0
    assert np.isnan(means["f"].tolist()[1])
    assert list(means.index.get_level_values("item_id")) == ["x", "z"]


def test_margins_are_settings() -> None:
    design = two_arms()
    wide = Design("d", 0, 2, ARMS, design.contrasts, design.confirmatory, Margins(rate=1.0, sd=100.0))
    assert pick(estimates(tables(), wide), "did_length", arm="judge", generation=2)["verdict"] == "none"


@pytest.mark.slow
def test_neutral_drift_is_called_drift_at_five_per_cent() -> None:
    """Random walks without a judge: D_T over 8 replicates rejects at its level, as pooled generations would not."""
    stream = rng(0, "neutral")
    runs, rejected = 4000, 0
    index = pd.MultiIndex.from_product([["judge", "random"], range(7)], names=["arm", "generation"])
    quantity = Quantity("length", "mean_length", "verbosity", "doublings")
    for _ in range(runs):
        steps = stream.normal(size=(2, 7, 8))
        steps[:, 0] = stream.normal(size=8)
        drift_series = Series(quantity, "", pd.DataFrame(np.cumsum(steps, axis=1).reshape(14, 8), index=index))
        interval = replicate_mean(drift_series.did("judge", "random", 6))
        assert isinstance(interval, Interval)
        rejected += not interval.covers(0.0)
    assert abs(rejected / runs - 0.05) < 3 * np.sqrt(0.05 * 0.95 / runs)


@pytest.mark.slow
def test_neutral_runs_through_the_public_path() -> None:
    """The same in whole tables: both arms drift by chance, p-values of did_length are uniform."""
    p_values = []
    for seed in range(100):
        run_tables = tables(seed, replicates=5, items=2, pool=3, shift=0.0)
        p_values.append(pick(estimates(run_tables, two_arms()), "did_length", arm="judge", generation=2)["p_value"])
    assert abs(np.mean(np.array(p_values) < 0.05) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 100)


def test_planted_means_are_recovered() -> None:
    given_tables = planted_run.loop(1, generations=2, replicates=4, items=10, size=30)
    design = planted_run.design(2)
    measured = measure(given_tables, design)
    drift_series = quantity_series(series(measured), "length")
    assert drift_series is not None
    shift = (planted_run.BETA + planted_run.RHO * planted_run.KAPPA) / planted_run.TAU
    interval = replicate_mean(drift_series.did("judge", "random", 2))
    assert isinstance(interval, Interval)
    assert interval.low - 0.02 < 2 * shift < interval.high + 0.02


def test_means_of_groups_that_differ_are_paired_where_they_share_and_welch_where_they_do_not() -> None:
    generator = rng(0, "groups")
    one, two = generator.normal(size=9), generator.normal(1.0, 3.0, size=9)
    paired = difference_of_groups(np.array([two, one]))
    assert isinstance(paired, Interval)
    assert paired.p_value == pytest.approx(stats.ttest_1samp(two - one, 0.0).pvalue)
    nothing = np.full(9, np.nan)
    apart = difference_of_groups(np.array([np.append(two[:7], nothing), np.append(nothing[:7], one)]))
    assert isinstance(apart, Interval)
    assert apart.std_error == pytest.approx(np.sqrt(two[:7].var(ddof=1) / 7 + one.var(ddof=1) / 9))
    assert (apart.estimate, apart.df) == (pytest.approx(two[:7].mean() - one.mean()), 6)
    constant = difference_of_groups(np.array([np.full(9, 3.0), np.full(9, 1.0)]))
    assert isinstance(constant, Point)  # no spread is no certainty
    assert constant.estimate == 2.0
    four = difference_of_groups(np.array([two, one, one, one]))
    assert isinstance(four, Interval)
    assert four.p_value == pytest.approx(paired.p_value)


def test_a_change_of_groups_that_differ_holds_its_level() -> None:
    """Four cells of 6 to 12 items with unequal spreads, half of the items in two cells: rejects at no more than 5 %."""
    generator, runs, rejected = rng(0, "level of groups"), 2000, 0
    for _ in range(runs):
        values = generator.normal(size=(4, 18)) * np.array([1.0, 2.0, 1.0, 0.5])[:, None] + generator.normal(size=18)
        for row, (first, last) in zip(values, ((0, 12), (6, 18), (6, 12), (3, 15)), strict=True):
            row[:first], row[last:] = np.nan, np.nan
        interval = difference_of_groups(values)
        assert isinstance(interval, Interval)
        rejected += not interval.covers(0.0)
    assert rejected / runs < 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
