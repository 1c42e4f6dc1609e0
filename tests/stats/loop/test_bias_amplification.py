"""BiasAmp T→A against a plain loop, and what leaves it unchanged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.loop.amplification import bias_amplification_series
from judgeloop.stats.loop.replicates import measure
from judgeloop.text.features import FEATURES

DESIGN = Design(
    "planted", 0, 1, (ArmDesign("judge", "m"), ArmDesign("random", "random", is_control=True, judge_kind="random")),
    (("judge", "random"),), ("judge", "random"),
)  # fmt: skip


def candidates(shares: dict[tuple[str, int, str], float], replicates: int = 2, size: int = 200) -> pd.DataFrame:
    """Texts of which a share is bold, by (arm, generation, category); two items, one a category."""
    rows = []
    for replicate in range(replicates):
        for (arm, generation, category), share in shares.items():
            for k in range(size):
                rows.append({
                    **dict.fromkeys(FEATURES, 0.0), "bold": float(k < share * size), "replicate": replicate, "arm": arm,
                    "generation": generation, "item_id": f"i{category}", "candidate_id": f"g{generation}k{k}",
                    "text": "a", "n_drawn": 1.0 + k % 2, "reason": "",
                })  # fmt: skip
    return pd.DataFrame(rows)


def amplification(shares: dict[tuple[str, int, str], float], items: str = "xy") -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = candidates(shares)
    table = pd.DataFrame({"item_id": [f"i{name}" for name in items], "category": list(items)})
    empty = pd.DataFrame()
    measured = measure(RunTables(table, frame, empty, empty, empty), DESIGN)
    return bias_amplification_series(measured).values, frame


def shares_of(judge: tuple[float, float], zero: tuple[float, float] = (0.2, 0.6)) -> dict[tuple[str, int, str], float]:
    shares = {}
    for arm in ("judge", "random"):
        later = judge if arm == "judge" else zero
        for k, category in enumerate("xy"):
            shares[arm, 0, category], shares[arm, 1, category] = zero[k], later[k]
    return shares


def test_it_is_the_plain_loop() -> None:
    values, frame = amplification(shares_of((0.1, 0.9)))

    def p(arm: str, generation: int, category: str | None) -> float:
        rows = frame[(frame["arm"] == arm) & (frame["generation"] == generation) & (frame["replicate"] == 0)]
        if category:
            rows = rows[rows["item_id"] == f"i{category}"]
        return float(np.average(rows["bold"] > 0, weights=rows["n_drawn"]))

    expected = np.mean([
        np.sign(p("judge", 0, t) - p("judge", 0, None)) * (p("judge", 1, t) - p("judge", 0, t)) for t in "xy"
    ])  # fmt: skip
    assert values.loc[("judge", 1)].to_numpy() == pytest.approx([expected] * 2)
    assert expected == pytest.approx(0.2, abs=0.01)  # x less, y more: the habit grew by 10 and 30 points
    assert values.loc[("random", 1)].to_numpy() == pytest.approx([0.0, 0.0])
    assert values.loc[("judge", 0)].to_numpy() == pytest.approx([0.0, 0.0])


def test_a_shift_that_is_the_same_everywhere_cancels() -> None:
    values, _ = amplification(shares_of((0.3, 0.7)))
    assert values.loc[("judge", 1)].to_numpy() == pytest.approx([0.0, 0.0], abs=0.01)


def test_without_categories_or_style_there_is_nothing_to_tie() -> None:
    frame = candidates(shares_of((0.1, 0.9)))
    empty = pd.DataFrame()
    same_category = pd.DataFrame({"item_id": ["ix", "iy"], "category": ["x", "x"]})
    single = bias_amplification_series(measure(RunTables(same_category, frame, empty, empty, empty), DESIGN))
    assert "fewer than two categories" in single.quantity.undefined
    two_categories = pd.DataFrame({"item_id": ["ix", "iy"], "category": ["x", "y"]})
    plain = bias_amplification_series(
        measure(RunTables(two_categories, frame.assign(bold=0.0), empty, empty, empty), DESIGN)
    )
    assert "no style feature varies" in plain.quantity.undefined
