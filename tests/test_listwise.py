"""Listwise position bias by cyclic rotation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.stats.listwise import listwise_estimates, rotation_test
from judgeloop.stats.rows import Labels


def choices(sets=200, k=4, bonus=0.0, label="listwise"):
    """Texts of unequal quality in all rotations; slot 1 has ``bonus`` log-odds."""
    rng = seeds.rng(0, label)
    rows = []
    for number in range(sets):
        quality = 1.5 * rng.normal(size=k)
        for rotation in range(k):
            shown = quality[(np.arange(k) + rotation) % k] + np.eye(k)[0] * bonus
            picked = int(np.argmax(shown + rng.gumbel(size=k)))
            rows.append({"item_id": str(number), "set_id": "0", "rotation": rotation, "picked": picked})
    return pd.DataFrame(rows)


def test_excesses_are_slot_shares_and_sum_to_nothing():
    frame = choices(bonus=0.8)
    rows = listwise_estimates(frame, 4, Labels("j"))
    assert [row.term for row in rows] == [f"slot_{k}_excess" for k in (1, 2, 3, 4)]
    for slot, row in enumerate(rows):
        assert row.estimate == pytest.approx((frame["picked"] == slot).mean() - 0.25)
    assert sum(row.estimate for row in rows) == pytest.approx(0, abs=1e-12)
    assert rows[0].conf_low > 0
    assert (rows[0].n, rows[0].n_items) == (200, 200)


def test_no_bias_is_not_found_and_quality_does_not_matter():
    rows = listwise_estimates(choices(label="fair"), 4, Labels("j"))
    assert all(row.conf_low < 0 < row.conf_high for row in rows)


def test_incomplete_sets_leave_and_slots_out_of_range_are_refused():
    frame = choices(sets=10)
    frame["picked"] = frame["picked"].astype("Int64")
    frame.loc[0, "picked"] = pd.NA
    row = listwise_estimates(frame, 4, Labels("j"))[0]
    assert (row.n, row.n_unscored) == (9, 1)
    none = listwise_estimates(frame.assign(picked=pd.NA), 4, Labels("j"))[0]
    assert none.status == "undefined"
    with pytest.raises(ValueError, match="slot"):
        listwise_estimates(frame.assign(picked=4), 4, Labels("j"))


def test_the_permutation_test_is_exact_on_extremes():
    k = 3
    always_first = np.zeros((40, k), dtype=int)
    assert rotation_test(always_first) < 0.001
    # The same text wins wherever it stands: every slot once.
    same_text = (0 - np.arange(k)) % k * np.ones((40, 1), dtype=int)
    assert rotation_test(same_text) == 1.0
