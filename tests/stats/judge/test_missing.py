"""Replies without a verdict: rates, and the test of what they depend on."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from judgeloop import seeds
from planted_verdicts import rows_of, s, world


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
