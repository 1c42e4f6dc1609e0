"""A probe's effect beyond its length: 0 for a judge of length alone, and the planted effect for one that favours the edit."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from judgeloop import kernels, seeds
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.judge.probes import beyond_length, probe_estimates

SLOPE, SLOT = 1.5, 0.5


def judged(
    name: str, taste: float = 0.0, *, items: int = 60, soft: bool = True, probe: str = "authority"
) -> pd.DataFrame:
    """Padding by 1.25, 1.5 and 2 and one other probe (0.2 to 0.9 doublings long) by s(1.5 δ + taste ± 0.5)."""
    rng = seeds.rng(0, "beyond-length", name)
    rows = []
    for item in range(items):
        edits = [("padding", math.log2(dose), dose, 0.0) for dose in (1.25, 1.5, 2.0)]
        edits += [(probe, float(rng.uniform(0.2, 0.9)), math.nan, taste)]
        for edit, doubling, dose, bonus in edits:
            for order, slot in (("ab", -SLOT), ("ba", SLOT)):
                edited = 1 / (1 + math.exp(-(SLOPE * doubling + bonus + slot)))
                first = edited if order == "ba" else 1 - edited
                verdict = "first" if rng.random() < first else "second"
                pair = f"{item}~{edit}~{dose}"
                rows.append((f"i{item}", pair, edit, dose, 2**doubling, order, verdict, first if soft else math.nan))
    columns = ["item_id", "pair_id", "probe", "dose", "dose_reached", "order", "verdict", "p_first"]
    return pd.DataFrame(rows, columns=columns).assign(panel="probe")


def primary(judgments: pd.DataFrame, variant: str = "beyond_length") -> Estimate:
    rows = probe_estimates(judgments)
    (estimate,) = [row for row in rows if row.term == "authority_probe" and row.variant == variant]
    return estimate


def test_a_taste_for_length_alone_is_no_taste_for_an_edit_that_adds_words() -> None:
    judgments = judged("length alone")
    raw, beyond = primary(judgments, ""), primary(judgments)
    assert raw.conf_low is not None
    assert raw.conf_low > 0.1
    assert beyond.estimate == pytest.approx(0.0, abs=1e-9)
    # A straight line through the doses would have called a part of it the edit's own.
    line = next(row for row in probe_estimates(judgments) if row.variant == "slope")
    mean = np.log2(judgments.loc[judgments["probe"] == "authority", "dose_reached"]).mean()
    assert raw.estimate is not None
    assert line.estimate is not None
    assert abs(raw.estimate - line.estimate * mean) > 0.005
    assert "longer than their originals on average" in beyond.note


def test_a_planted_taste_is_found_beyond_its_length() -> None:
    judgments = judged("a taste", taste=0.6)
    beyond = primary(judgments)
    ratio = judgments.loc[(judgments["probe"] == "authority") & (judgments["order"] == "ba"), "dose_reached"]
    eta = SLOPE * np.log2(ratio.to_numpy())
    truth = np.mean([
        (kernels.sigmoid(eta + 0.6 + o) - kernels.sigmoid(eta + o)) for o in (SLOT, -SLOT)
    ])  # fmt: skip
    assert beyond.estimate == pytest.approx(float(truth), abs=1e-6)
    assert beyond.conf_low is not None
    assert beyond.conf_low > 0


def frames(judgments: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    picked = judgments["p_first"].where(judgments["p_first"].notna(), judgments["verdict"].eq("first").astype(float))
    wide = judgments.assign(picked=picked).pivot(index="pair_id", columns="order", values="picked")
    pairs = judgments.drop_duplicates("pair_id").set_index("pair_id").loc[wide.index]
    table = pd.DataFrame({
        "item": pairs["item_id"], "as_first": wide["ba"], "as_second": 1 - wide["ab"], "ratio": pairs["dose_reached"],
        "probe": pairs["probe"],
    })  # fmt: skip
    return table[table["probe"] == "padding"], table[table["probe"] != "padding"]


def test_it_equals_the_jackknife_that_fits_anew_without_each_item() -> None:
    padding, probe = frames(judged("hard", taste=0.3, items=40, soft=False))

    def point(curve: pd.DataFrame, pairs: pd.DataFrame) -> float:
        doubling = np.log2(curve["ratio"].to_numpy())
        x = np.r_[np.c_[doubling, np.ones(len(doubling))], np.c_[doubling, -np.ones(len(doubling))]]
        b = kernels.logistic(x, np.r_[curve["as_first"], curve["as_second"]]).coefficients
        eta = b[0] * np.log2(pairs["ratio"].to_numpy())
        by_length = (kernels.sigmoid(eta + b[1]) + kernels.sigmoid(eta - b[1])) / 2
        return float(np.mean((pairs["as_first"] + pairs["as_second"]) / 2 - by_length))

    interval = beyond_length(padding, probe)
    assert isinstance(interval, Interval)
    assert interval.estimate == pytest.approx(point(padding, probe))
    items = sorted(set(padding["item"]))
    left_out = [point(padding[padding["item"] != item], probe[probe["item"] != item]) for item in items]
    error = math.sqrt((len(items) - 1) / len(items) * float(np.sum((np.array(left_out) - np.mean(left_out)) ** 2)))
    assert interval.std_error == pytest.approx(error, rel=0.02)


@pytest.mark.slow
def test_the_interval_covers_at_its_level() -> None:
    """120 judges with hard verdicts and no taste but length; the rate's Monte-Carlo sd is .02, so .95 ± .06."""
    covered = 0
    for number in range(120):
        interval = beyond_length(*frames(judged(f"cover/{number}", items=30, soft=False)))
        assert isinstance(interval, Interval)
        covered += interval.covers(0.0)
    assert covered / 120 == pytest.approx(0.95, abs=0.06)


def test_what_cannot_be_told_says_why() -> None:
    certain = judged("certain", items=20).assign(p_first=math.nan)
    longer_wins = np.where(certain["order"] == "ba", "first", "second")
    estimate = primary(certain.assign(verdict=longer_wins))
    assert (estimate.status, "no finite slope" in estimate.note) == ("undefined", True)
    no_lengths = judged("unknown").assign(dose_reached=math.nan)
    assert {row.variant for row in probe_estimates(no_lengths) if row.term == "authority_probe"} == {""}
    no_padding = judged("alone")
    assert len(probe_estimates(no_padding[no_padding["probe"] == "authority"])) == 1
    padding, probe = frames(judged("one", items=1))
    assert isinstance(beyond_length(padding, probe), Undefined)
