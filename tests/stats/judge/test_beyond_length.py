"""A probe's effect beyond its length: a judge with no taste but length is found to have no other, and a planted one is found."""

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
    (found,) = [row for row in probe_estimates(judgments) if row.term == "authority_probe" and row.variant == variant]
    return found


def test_a_taste_for_length_alone_is_no_taste_for_an_edit_that_adds_words() -> None:
    judgments = judged("length alone")
    raw, left = primary(judgments, ""), primary(judgments)
    assert raw.conf_low is not None
    assert raw.conf_low > 0.1
    assert left.estimate == pytest.approx(0.0, abs=1e-9)
    # A straight line through the doses would have called a part of it the edit's own.
    line = next(row for row in probe_estimates(judgments) if row.variant == "slope")
    mean = np.log2(judgments.loc[judgments["probe"] == "authority", "dose_reached"]).mean()
    assert raw.estimate is not None
    assert line.estimate is not None
    assert abs(raw.estimate - line.estimate * mean) > 0.005
    assert "longer than their originals on average" in left.note


def test_a_planted_taste_is_found_beyond_its_length() -> None:
    judgments = judged("a taste", taste=0.6)
    left = primary(judgments)
    ratio = judgments.loc[(judgments["probe"] == "authority") & (judgments["order"] == "ba"), "dose_reached"]
    at = SLOPE * np.log2(ratio.to_numpy())
    truth = np.mean([
        (kernels.sigmoid(at + 0.6 + o) - kernels.sigmoid(at + o)) for o in (SLOT, -SLOT)
    ])  # fmt: skip
    assert left.estimate == pytest.approx(float(truth), abs=1e-6)
    assert left.conf_low is not None
    assert left.conf_low > 0


def frames(judgments: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    picked = judgments["p_first"].where(judgments["p_first"].notna(), judgments["verdict"].eq("first").astype(float))
    wide = judgments.assign(picked=picked).pivot(index="pair_id", columns="order", values="picked")
    about = judgments.drop_duplicates("pair_id").set_index("pair_id").loc[wide.index]
    made = pd.DataFrame({
        "item": about["item_id"], "as_first": wide["ba"], "as_second": 1 - wide["ab"], "ratio": about["dose_reached"],
        "probe": about["probe"],
    })  # fmt: skip
    return made[made["probe"] == "padding"], made[made["probe"] != "padding"]


def test_it_equals_the_jackknife_that_fits_anew_without_each_item() -> None:
    padding, probe = frames(judged("hard", taste=0.3, items=40, soft=False))

    def point(curve: pd.DataFrame, pairs: pd.DataFrame) -> float:
        doubling = np.log2(curve["ratio"].to_numpy())
        x = np.r_[np.c_[doubling, np.ones(len(doubling))], np.c_[doubling, -np.ones(len(doubling))]]
        b = kernels.logistic(x, np.r_[curve["as_first"], curve["as_second"]]).coefficients
        at = b[0] * np.log2(pairs["ratio"].to_numpy())
        worth = (kernels.sigmoid(at + b[1]) + kernels.sigmoid(at - b[1])) / 2
        return float(np.mean((pairs["as_first"] + pairs["as_second"]) / 2 - worth))

    found = beyond_length(padding, probe)
    assert isinstance(found, Interval)
    assert found.estimate == pytest.approx(point(padding, probe))
    items = sorted(set(padding["item"]))
    left = [point(padding[padding["item"] != one], probe[probe["item"] != one]) for one in items]
    slow = math.sqrt((len(items) - 1) / len(items) * float(np.sum((np.array(left) - np.mean(left)) ** 2)))
    assert found.std_error == pytest.approx(slow, rel=0.02)


@pytest.mark.slow
def test_the_interval_covers_at_its_level() -> None:
    """120 judges with hard verdicts and no taste but length; the rate's Monte-Carlo sd is .02, so .95 ± .06."""
    kept = 0
    for turn in range(120):
        found = beyond_length(*frames(judged(f"cover/{turn}", items=30, soft=False)))
        assert isinstance(found, Interval)
        kept += found.covers(0.0)
    assert kept / 120 == pytest.approx(0.95, abs=0.06)


def test_what_cannot_be_told_says_why() -> None:
    certain = judged("certain", items=20).assign(p_first=math.nan)
    won = np.where(certain["order"] == "ba", "first", "second")
    left = primary(certain.assign(verdict=won))
    assert (left.status, "no finite slope" in left.note) == ("undefined", True)
    unknown = judged("unknown").assign(dose_reached=math.nan)
    assert {row.variant for row in probe_estimates(unknown) if row.term == "authority_probe"} == {""}
    alone = judged("alone")
    assert len(probe_estimates(alone[alone["probe"] == "authority"])) == 1
    padding, probe = frames(judged("one", items=1))
    assert isinstance(beyond_length(padding, probe), Undefined)
