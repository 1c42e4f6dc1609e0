"""Counterfactual probes, self-preference and the outputs of other tools' names."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from judgeloop import seeds
from judgeloop.report.findings import findings
from judgeloop.stats.estimate import RowLabels
from judgeloop.stats.judge.estimates import judge_estimates
from judgeloop.stats.judge.position import compatibility_estimates, position_estimates
from judgeloop.stats.judge.probes import probe_estimates
from judgeloop.stats.judge.self_preference import self_preference_gold, self_preference_log_odds
from judgeloop.stats.multiplicity import holm
from judgeloop.validation.worlds import judged, pair_table
from planted_verdicts import planted_judgments, s, texts_of, verdict_frame


def padding(n=400, slope=0.5, doses=(1.25, 1.5, 2.0)):
    """Judge that likes the edit (candidate b) by ``slope`` log-odds a doubling, and the first slot by .3."""
    parts = []
    for dose in doses:
        eta = -slope * np.full((n, 1), math.log2(dose))
        frame = planted_judgments(n, f"padding/{dose}", position=0.3, slopes=(1.0,), deltas=eta)
        parts.append(frame.assign(probe="padding", dose=dose, panel="probe", pair_id=frame["pair_id"] + f"/{dose}"))
    return pd.concat(parts, ignore_index=True)


def test_padding_by_dose_and_its_slope():
    frame = padding()
    rows = {row.variant: row for row in probe_estimates(frame)}
    assert set(rows) == {"", "1.25", "1.5", "2", "slope"}
    for dose in (1.25, 1.5, 2.0):
        p = (s(0.3 + 0.5 * math.log2(dose)) + s(-0.3 + 0.5 * math.log2(dose))) / 2 - 0.5
        row = rows[f"{dose:g}"]
        assert row.estimate == pytest.approx(p, abs=4 * row.std_error)
    # One pair by hand: edited picked in both orders, or in one.
    edited = np.where(frame["order"] == "ab", frame["verdict"] == "second", frame["verdict"] == "first")
    assert rows[""].estimate == pytest.approx(edited.mean() - 0.5)
    log_dose = np.log2(frame["dose"].to_numpy())
    assert rows["slope"].estimate == pytest.approx(np.sum(log_dose * (edited - 0.5)) / np.sum(log_dose**2))
    assert rows["slope"].conf_low < 0.5 * 0.25 < rows["slope"].conf_high + 0.01
    assert (rows[""].n, rows[""].n_items) == (1200, 400)


def test_the_slope_uses_the_length_that_each_text_reached():
    frame = padding(n=60)
    reached = frame["dose"] * np.where(frame["item_id"].astype(str).str[-1].isin(list("02468")), 1.06, 0.97)
    rows = {row.variant: row for row in probe_estimates(frame.assign(dose_reached=reached))}
    edited = np.where(frame["order"] == "ab", frame["verdict"] == "second", frame["verdict"] == "first")
    doubling = np.log2(reached.to_numpy())
    assert rows["slope"].estimate == pytest.approx(np.sum(doubling * (edited - 0.5)) / np.sum(doubling**2))
    # Rows of a dose stay grouped by the dose that was asked.
    assert set(rows) == {"", "1.25", "1.5", "2", "slope"}
    assert f"reached {reached[frame['dose'] == 2.0].mean():.2f} on average" in rows["2"].note
    assert "reached" not in {row.variant: row for row in probe_estimates(frame)}["2"].note


def test_identical_pairs_among_the_probes_tell_position_and_nothing_of_an_edit():
    frame = planted_judgments(300, "same", position=0.5, sd=0.0).assign(
        probe="identical", panel="probe", identical=True
    )
    rows = probe_estimates(pd.concat([frame, padding(n=30).assign(identical=False)], ignore_index=True), judge="j")
    assert {row.term for row in rows} == {"identical_pair_excess", "padding_probe"}
    same = next(row for row in rows if row.term == "identical_pair_excess")
    assert (same.bias, same.panel, same.judge, same.n) == ("position", "probe", "j", 300)
    assert same.estimate == pytest.approx(s(0.5) - 0.5, abs=4 * same.std_error)


def test_other_probes_are_adjusted_together_and_padding_is_confirmatory():
    parts = [padding(n=80)]
    for name, slope in (("bold", 0.3), ("tone", 0.0), ("emoji", 0.6), ("whitespace", 0.0)):
        eta = -slope * np.ones((80, 1))
        judgments = planted_judgments(80, name, position=0.3, slopes=(1.0,), deltas=eta)
        parts.append(judgments.assign(probe=name, dose=np.nan, panel="probe"))
    table = judge_estimates(pd.concat(parts, ignore_index=True))
    rows = table[(table["variant"] == "")].set_index("term")
    exploratory = ["bold_probe", "tone_probe", "emoji_probe", "whitespace_probe"]
    assert rows.loc["padding_probe", "family"] == "confirmatory"
    assert set(rows.loc[exploratory, "family"]) == {"exploratory"}
    expected = holm(rows.loc[exploratory, "p_value"].to_numpy(dtype=float))
    assert rows.loc[exploratory, "p_adjusted"].tolist() == pytest.approx(expected.tolist())


def test_a_probe_without_a_verdict_is_undefined():
    frame = padding(n=20)
    lost = frame[frame["dose"] == 2.0].assign(probe="bold", dose=np.nan, verdict="unscored")
    table = judge_estimates(pd.concat([frame, lost], ignore_index=True))
    status = table[(table["variant"] == "")].set_index("term")["status"]
    assert status["bold_probe"] == "undefined" != status["padding_probe"]


def test_a_probe_that_changes_nothing_is_equivalent():
    frame = planted_judgments(1500, "whitespace", position=0.4, sd=0.3).assign(probe="whitespace", panel="probe")
    (row,) = probe_estimates(frame)
    assert (row.term, row.bias, row.status) == ("whitespace_probe", "verbosity", "ok")
    assert (row.verdict, row.margin) == ("none", 0.05)
    few = probe_estimates(frame[frame["pair_id"].isin([str(k) for k in range(20)])])[0]
    assert few.status == "underpowered"
    single = probe_estimates(frame[frame["order"] == "ab"])[0]
    assert single.status == "undefined"


def crossed(n=600, favour=0.0, label="crossed"):
    """Judges m1 and m2 judge texts of m1, m2 and m3; each likes its own by ``favour`` log-odds beyond quality."""
    rng = seeds.rng(0, label)
    models = np.array(["m1", "m2", "m3"])
    strength = {"m1": 0.6, "m2": 0.0, "m3": -0.3}
    sides = np.array([rng.choice(3, size=2, replace=False) for _ in range(n)])
    a, b = models[sides[:, 0]], models[sides[:, 1]]
    margin = np.array([strength[x] - strength[y] for x, y in zip(a, b, strict=True)]) + rng.normal(size=n)
    gold = np.where(rng.random(n) < s(2 * margin), "a", "b")
    parts = []
    for judge in ("m1", "m2"):
        eta = margin + favour * ((a == judge).astype(float) - (b == judge))
        for order, sign in (("ab", 1.0), ("ba", -1.0)):
            picked = np.where(rng.random(n) < s(0.2 + sign * eta), "first", "second")
            frame = verdict_frame(
                picked, range(n), range(n), [order] * n, model_a=a, model_b=b, gold=gold, judge=f"{judge}#pairwise/text"
            )
            parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def test_self_preference_is_told_from_quality_by_crossed_judges():
    biased, fair = crossed(favour=1.0, label="biased"), crossed(label="fair")
    for judge in ("m1#pairwise/text", "m2#pairwise/text"):
        estimate = self_preference_log_odds(biased, None, RowLabels(judge))
        assert estimate.conf_low < 1.0 < estimate.conf_high + 0.2
        assert estimate.conf_low > 0
        none = self_preference_log_odds(fair, None, RowLabels(judge))
        assert none.conf_low < 0 < none.conf_high
        alone = self_preference_log_odds(biased[biased["judge"] == judge], None, RowLabels(judge))
        assert alone.status == "undefined"
        assert "2 or more judges" in alone.note


def test_self_preference_given_gold_is_the_difference_of_rates():
    frame = crossed(favour=1.0, label="biased")
    judge = "m1#pairwise/text"
    judge_rows = frame[frame["judge"] == judge]
    row = self_preference_gold(judge_rows, RowLabels(judge))[0]
    picked_a = (judge_rows["verdict"] == "first") == (judge_rows["order"] == "ab")
    own_a, own = judge_rows["model_a"] == "m1", (judge_rows["model_a"] == "m1") | (judge_rows["model_b"] == "m1")
    follows = picked_a == (judge_rows["gold"] == "a")
    gold_own = (judge_rows["gold"] == "a") == own_a
    assert row.estimate == pytest.approx(follows[own & gold_own].mean() - follows[own & ~gold_own].mean())
    assert row.conf_low > 0
    assert self_preference_gold(judge_rows.drop(columns="gold"), RowLabels(judge))[0].status == "undefined"
    assert self_preference_gold(judge_rows.drop(columns="model_a"), RowLabels(judge))[0].status == "undefined"


def test_preference_fairness_is_minus_twice_the_excess():
    frame = planted_judgments(200, "fairness", position=0.5, sd=1.0)
    row = {row.term: row for row in compatibility_estimates(frame, None, RowLabels("j"))}["preference_fairness"]
    rates = frame.assign(first=frame["verdict"] == "first").groupby(["pair_id", "order"])["first"].first().unstack()
    n_ff, n_ss = (rates["ab"] & rates["ba"]).sum(), (~rates["ab"] & ~rates["ba"]).sum()
    r, p = n_ss, n_ff
    assert row.estimate == pytest.approx((r**2 - p**2) / (r + p) / 200)
    assert row.estimate == pytest.approx(-2 * position_estimates(frame)[0].estimate)


def test_alpaca_win_rate_holds_length_equal():
    # The model wins by length alone: φ·tanh is all there is, and at equal length it wins half.
    n = 1500
    rng = seeds.rng(0, "alpaca")
    lengths = np.column_stack([rng.normal(1500, 300, n), rng.normal(1000, 300, n)]).clip(50)
    gap = lengths[:, 0] - lengths[:, 1]
    frame = planted_judgments(n, "alpaca", slopes=(1.0,), deltas=np.tanh(gap / gap.std())[:, None])
    frame = frame.assign(
        model_a="new", model_b="base", len_a=np.tile(lengths[:, 0], 2), len_b=np.tile(lengths[:, 1], 2)
    )
    frame.loc[frame["pair_id"].astype(int) % 2 == 0, ["model_a", "model_b"]] = ["new", "base"]
    rows = [row for row in compatibility_estimates(frame, None, RowLabels("j")) if row.term == "alpaca_lc_winrate"]
    (row,) = rows
    assert row.variant == "new"
    assert row.conf_low < 0.5 < row.conf_high
    won = ((frame["verdict"] == "first") == (frame["order"] == "ab")).to_numpy(dtype=float)
    assert won.mean() > 0.6
    x = sm.add_constant(np.tanh(np.tile(gap, 2) / np.std(np.tile(gap, 2), ddof=1)))
    oracle = sm.GLM(won, x, family=sm.families.Binomial()).fit(tol=1e-12)
    assert row.estimate == pytest.approx(float(s(oracle.params[0])), abs=1e-8)
    # The reference code's sign, baseline − model, is the same rate.
    flipped = sm.GLM(won, x * [1, -1], family=sm.families.Binomial()).fit(tol=1e-12)
    assert float(s(flipped.params[0])) == pytest.approx(row.estimate, abs=1e-8)
    for difference in ("L1 penalty", "instance difficulty", "gamed baselines"):
        assert difference in row.note


def test_arena_style_control_has_its_own_scale_and_never_a_p():
    n = 400
    deltas = np.abs(seeds.rng(0, "arena").normal(size=(n, 2))) + 0.1
    texts = texts_of(deltas, ["length", "bold"]).assign(tokens=lambda f: np.round(200 * 2 ** f["length"]))
    frame = planted_judgments(n, "arena", slopes=(0.6, 0.0), deltas=deltas)
    swap = frame["pair_id"].astype(int) % 2 == 0
    frame = frame.assign(model_a=np.where(swap, "x", "y"), model_b=np.where(swap, "y", "x"))
    rows = {row.term: row for row in compatibility_estimates(frame, texts, RowLabels("j"))}
    # A plain Newton of the penalised likelihood: features ½·½b², strengths in units of log 10.
    own = texts.set_index(["item_id", "candidate_id"])
    side = {}
    for side_name in ("a", "b"):
        first = (frame["order"] == "ab") == (side_name == "a")
        names = np.where(first, frame["candidate_first"], frame["candidate_second"])
        key = pd.MultiIndex.from_arrays([frame["item_id"], names])
        side[side_name] = own.loc[key, ["tokens", "bold"]].to_numpy(dtype=float)
        side[side_name][:, 1] *= side[side_name][:, 0] / 100
    relative = (side["a"] - side["b"]) / (side["a"] + side["b"] + 1)
    relative = (relative - relative.mean(axis=0)) / relative.std(axis=0)
    strength = np.where(frame["model_a"] == "x", 1.0, -1.0)[:, None] * [1.0, -1.0]
    x = np.hstack([relative, strength])
    won = ((frame["verdict"] == "first") == (frame["order"] == "ab")).to_numpy(dtype=float)
    ridge, b = np.array([0.5, 0.5, *[0.5 / math.log(10) ** 2] * 2]), np.zeros(4)
    for _ in range(50):
        p = s(x @ b)
        b += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge), x.T @ (won - p) - ridge * b)
    for name, expected in (("length", b[0]), ("bold", b[1])):
        row = rows[f"arena_style_log_odds_{name}"]
        assert row.estimate == pytest.approx(expected, abs=1e-6)
        assert row.p_value is None
    assert rows["arena_style_log_odds_length"].conf_low > 0
    assert "centred" in rows["arena_style_log_odds_bold"].note


def test_judge_estimates_is_one_valid_frame():
    frame = crossed(n=80, label="frame").assign(category=lambda f: np.where(f["item_id"].astype(int) % 2, "math", ""))
    probes = padding(n=40).assign(judge="m1#pairwise/text")
    estimates = judge_estimates(pd.concat([frame, probes], ignore_index=True))
    assert set(estimates["judge"]) == {"m1#pairwise/text", "m2#pairwise/text"}
    assert set(estimates["category"]) == {"", "math"}
    confirmatory = estimates[estimates["family"] == "confirmatory"]
    assert set(confirmatory["term"]) == {"first_slot_excess", "padding_probe"}
    exact = judge_estimates(frame, gold_exact=True)
    assert "self_preference_gold" in set(exact.loc[exact["family"] == "confirmatory", "term"])
    assert (confirmatory["p_adjusted"] >= confirmatory["p_value"]).all()
    undefined = estimates[estimates["status"] == "undefined"]
    assert undefined["estimate"].isna().all()
    assert (undefined["note"] != "").all()
    assert estimates.loc[estimates["status"] != "undefined", "estimate"].notna().all()


def test_a_slope_without_spread_is_bounded_by_the_number_of_items():
    three = next(row for row in probe_estimates(_always_edited(3)) if row.variant == "slope")
    share, steepest = 1.96**2 / (3 + 1.96**2), 0.5 / np.log2(1.5)
    assert (three.estimate, three.status) == (pytest.approx(steepest), "underpowered")
    assert (three.conf_low, three.conf_high) == pytest.approx((steepest * (1 - 2 * share), steepest), abs=1e-4)
    assert three.p_value == 0.25
    thirty = next(row for row in probe_estimates(_always_edited(30)) if row.variant == "slope")
    assert thirty.conf_low > 0.5
    assert thirty.status == "ok"


def _always_edited(items):
    table = pair_table(items)
    verdicts = {"ab": ["second"] * items, "ba": ["first"] * items}
    return judged(table, verdicts, columns={"panel": "probe", "probe": "padding", "dose": 1.5})


def test_an_edit_that_moves_single_pairs_is_not_called_without_effect():
    """Both calls go with the edit in half of the pairs and against it in the others, as of a taste for one length; coins do not."""
    names, verdicts = [f"i{k}" for k in range(400)], {}
    for judge, second in (("one length", lambda first: ~first), ("coin", lambda first: np.roll(first, 1))):
        edit_first = np.arange(400) // 2 % 2 == 0
        verdicts[judge] = edit_first, ~second(edit_first)
    for judge, (with_edit, with_edit_too) in verdicts.items():
        frame = pd.concat([
            verdict_frame(np.where(with_edit, "second", "first"), names, names, ["ab"] * 400),
            verdict_frame(np.where(with_edit_too, "first", "second"), names, names, ["ba"] * 400),
        ])  # fmt: skip
        row = next(
            row for row in probe_estimates(frame.assign(probe="padding", dose=1.5, panel="probe")) if not row.variant
        )
        assert row.estimate == 0.0
        assert row.verdict == ("not_linear" if judge == "one length" else "none")
        (finding,) = findings([row])
        assert (finding.verdict, "the effect changes with the text" in finding.sentence) == (
            ("unclear", True) if judge == "one length" else ("equivalent", False)
        )
