"""Drift for other items than the run's: replicates and items are resampled at once."""

from __future__ import annotations

import numpy as np
import pytest

from judgeloop import seeds
from judgeloop.stats.inference import Interval, Undefined, replicate_t
from judgeloop.stats.loop.drift import over_both


def table(number: int, replicates: int = 8, items: int = 12) -> np.ndarray:
    """Drift .3 with a part of the replicate's, a larger one of the item's, and noise."""
    rng = seeds.rng(0, "new items", number)
    parts = 0.1 * rng.standard_normal((replicates, 1)), 0.3 * rng.standard_normal((1, items))
    return np.asarray(0.3 + sum(parts) + 0.2 * rng.standard_normal((replicates, items)))


def test_the_error_is_that_of_plain_resampling() -> None:
    values = table(1)
    values[0, 0] = np.nan
    interval = over_both(values, np.arange(12), seeds.rng(1, "draws"))
    assert isinstance(interval, Interval)
    rng = seeds.rng(2, "plain")
    plain = []
    for _ in range(2000):
        rows, columns = rng.integers(8, size=8), rng.integers(12, size=12)
        plain.append(np.nanmean(values[rows][:, columns]))
    assert interval.estimate == pytest.approx(np.nanmean(values))
    assert interval.std_error == pytest.approx(np.std(plain), rel=0.08)
    assert interval.df == 7


def test_near_copies_are_resampled_together() -> None:
    values = table(1)
    once = over_both(values, np.arange(12), seeds.rng(1, "draws"))
    thrice = over_both(np.repeat(values, 3, axis=1), np.repeat(np.arange(12), 3), seeds.rng(1, "draws"))
    assert isinstance(once, Interval)
    assert isinstance(thrice, Interval)
    assert (thrice.estimate, thrice.std_error, thrice.df) == pytest.approx((once.estimate, once.std_error, once.df))
    apart = over_both(np.repeat(values, 3, axis=1), np.arange(36), seeds.rng(1, "draws"))
    assert isinstance(apart, Interval)
    assert apart.std_error < 0.85 * once.std_error


def test_too_few_and_constant_are_undefined() -> None:
    assert isinstance(over_both(table(2, 4), np.arange(12), seeds.rng(0, "few")), Undefined)
    assert isinstance(over_both(np.empty((0, 0)), np.arange(0), seeds.rng(0, "none")), Undefined)
    assert isinstance(over_both(np.full((6, 6), 0.5), np.arange(6), seeds.rng(0, "same")), Undefined)


@pytest.mark.slow
def test_it_covers_where_the_interval_given_the_items_does_not() -> None:
    both, given = [], []
    for number in range(400):
        values = table(number)
        interval, plain = (
            over_both(values, np.arange(values.shape[1]), seeds.rng(number, "draws")),
            replicate_t(values.mean(axis=1)),
        )
        assert isinstance(interval, Interval)
        assert isinstance(plain, Interval)
        both.append(interval.covers(0.3))
        given.append(plain.covers(0.3))
    assert np.mean(both) >= 0.95 - 0.02 - 3 * np.sqrt(0.95 * 0.05 / 400)
    assert np.mean(given) < 0.9
