"""A judge beside one gold that may err: what noise alone shows, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.limits import check, limits_of
from judgeloop.report.answers import brief
from judgeloop.report.findings import findings
from judgeloop.stats.estimate import Estimate, RowLabels
from judgeloop.stats.judge.content import content_estimates
from judgeloop.stats.judge.self_preference import self_preference_gold
from planted_verdicts import s, verdict_frame

PAIRS = 419
SCREEN, DIFFERENCE, TIED = "length_beyond_agreement", "excess_longer_vs_gold", "gold_tied_longer_excess"


def judged(
    kind: str, label: object, *, kappa: float = 0.0, beta: float = 0.0, threshold: float = 0.0, pairs: int = PAIRS
) -> pd.DataFrame:
    """One pair an item in both orders; better answers are shorter (Q = −.6·length + u), gold votes s(1.5·Q) or ties."""
    rng = seeds.rng(0, "fallible gold", kind, str(label))
    length, unseen = rng.standard_normal((2, pairs))
    quality = unseen - 0.6 * length
    u, up, down = rng.random(pairs), s(1.5 * quality - threshold), s(-1.5 * quality - threshold)
    gold = np.where(u < up, 1, np.where(u < up + down, -1, 0))
    chance = {
        "coin": np.full(pairs, 0.5), "gold with flips": np.where(gold > 0, 0.75, 0.25), "gold": (gold > 0) * 1.0,
    }.get(kind, s(kappa * quality + beta * length))  # fmt: skip
    parts = []
    for order in ("ab", "ba"):
        a_picked = rng.random(pairs) < chance
        picked = np.where(a_picked == (order == "ab"), "first", "second")
        golds = pd.Series(gold).map({1: "a", -1: "b", 0: "tie"}).to_numpy()
        lengths = {"len_a": 1000.0 * 2.0**length, "len_b": 1000.0}
        parts.append(verdict_frame(picked, range(pairs), range(pairs), [order] * pairs, gold=golds, **lengths))
    return pd.concat(parts, ignore_index=True)


def row(frame: pd.DataFrame, term: str) -> Estimate:
    rows = content_estimates(frame, category="all")  # without the bootstrap, as in the rows of a category
    return replace(next(row for row in rows if (row.term, row.variant) == (term, "")), category="")


def test_a_coin_beside_a_gold_that_prefers_shorter_answers_is_not_called_biased() -> None:
    frame = judged("coin", 0)
    difference, screen = row(frame, DIFFERENCE), row(frame, SCREEN)
    assert difference.conf_low > 0.05  # minus gold's own preference
    assert (difference.verdict, difference.p_value) == ("", None)
    assert screen.conf_low < 0 < screen.conf_high
    assert (screen.verdict, screen.margin) == ("undetected", None)
    said = findings([difference, screen])
    assert {finding.verdict for finding in said} == {"described"}
    assert "errs more or less often than gold" in said[0].sentence
    assert "a screen and no claim of bias" in said[1].sentence


def test_gold_itself_has_no_screen_and_a_length_only_judge_is_found() -> None:
    assert "every judgment" in row(judged("gold", 0), SCREEN).note
    found = row(judged("biased", 0, beta=1.0), SCREEN)
    assert (found.verdict, found.estimate > 0) == ("found", True)


def test_a_judge_sharper_than_gold_is_off_zero_and_not_found() -> None:
    # Were the judge gold with errors, the screen would be 0; here gold is the noisier of the two.
    screen = row(judged("sharp", 0, kappa=3.0), SCREEN)
    assert screen.conf_high < 0
    assert screen.p_value > 0.05
    (finding,) = findings([screen])
    assert "an unbiased judge that follows quality more closely than gold does would show it too" in finding.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kappa", "beta", "least"),
    [("coin", 0.0, 0.0, 0), ("gold with flips", 0.0, 0.0, 0), ("sharp", 3.0, 0.0, 0), ("dull", 0.4, 0.0, 0),
     ("equal", 1.5, 0.0, 0), ("biased", 1.0, 0.8, 0.8)],
)  # fmt: skip
def test_the_screen_finds_biased_judges_and_no_others(kind: str, kappa: float, beta: float, least: float) -> None:
    runs = 150
    rows = [row(judged(kind, k, kappa=kappa, beta=beta), SCREEN) for k in range(runs)]
    found = np.mean([screen.verdict == "found" and screen.p_value <= 0.05 for screen in rows])
    assert found >= least if least else found <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


@pytest.mark.slow
def test_pairs_that_people_tie_show_a_preference_of_unbiased_judges() -> None:
    """What was claimed before: at ties of one gold that may err the shorter text, here the better, is picked more often."""
    rows = [row(judged("ties", k, kappa=1.5, threshold=1.0), TIED) for k in range(60)]
    assert np.mean([tied.conf_high < 0 for tied in rows]) > 0.2
    assert {(tied.verdict, tied.p_value) for tied in rows} == {("", None)}


def test_own_texts_that_are_better_look_favoured_beside_a_gold_that_errs() -> None:
    rng = seeds.rng(0, "better own texts")
    quality = 1.0 + rng.standard_normal(600)  # of the judge's own text a, over the other
    golds = np.where(rng.random(600) < s(quality), "a", "b")
    names = {"gold": golds, "model_a": "m", "model_b": "other"}
    parts = []
    for order in ("ab", "ba"):
        a_picked = rng.random(600) < s(quality)
        picked = np.where(a_picked == (order == "ab"), "first", "second")
        parts.append(verdict_frame(picked, range(600), range(600), [order] * 600, **names))
    frame = pd.concat(parts, ignore_index=True).assign(judge="m")
    fallible = self_preference_gold(frame, RowLabels("m"))[0]
    assert fallible.conf_low > 0.1
    assert (fallible.verdict, fallible.p_value) == ("", None)
    assert self_preference_gold(frame, RowLabels("m"), gold_exact=True)[0].verdict == "found"


def test_what_two_golds_show_is_said_relative_to_what_their_raters_share() -> None:
    found = Estimate(
        scope="judge", term="length_ame", bias="verbosity", judge="j", estimate=-0.1, conf_low=-0.15, conf_high=-0.05, p_value=0.001,
        p_adjusted=0.001, family="confirmatory", n=800, n_items=400, unit="probability per doubling", verdict="found",
    )  # fmt: skip
    golds = Estimate(
        scope="judge", term="golds_agreement", bias="quality", judge="j", estimate=0.8, conf_low=0.75, conf_high=0.85, n=400, n_items=400,
        unit="probability",
    )  # fmt: skip
    (finding,) = [finding for finding in findings([found, golds]) if finding.row is found]
    assert "relative to what the two raters share" in finding.sentence
    assert brief(finding).endswith("relative to what the two raters share")
    limit = limits_of({"length_ame": {"max_abs": 0.02}})
    (outcome,) = check("", [found, golds], limit).outcomes
    assert outcome.message.endswith("relative to what the two raters share")
    assert not check("", [found], limit).outcomes[0].message.endswith("share")
    # Exact gold, or one judge's probe, takes nothing of the kind for granted.
    (finding,) = findings([found])
    assert not finding.assumption


def test_the_agreement_of_two_golds_is_over_pairs() -> None:
    frame = judged("sharp", 0, kappa=1.0, pairs=100)
    second = frame["gold"].where(frame["pair_id"].astype(int) >= 10, frame["gold"].map({"a": "b", "b": "a"}))
    agreement = row(frame.assign(gold_2=second), "golds_agreement")
    assert (agreement.estimate, agreement.n) == (pytest.approx(0.9), 100)
    exact = content_estimates(frame.assign(gold_2=second), category="all", gold_exact=True)
    assert "golds_agreement" not in {row.term for row in exact}
