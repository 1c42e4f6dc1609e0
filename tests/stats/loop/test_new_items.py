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
    interval = over_both(values, seeds.rng(1, "draws"))
    assert isinstance(interval, Interval)
    rng = seeds.rng(2, "plain")
    plain = []
    for _ in range(2000):
        rows, columns = rng.integers(8, size=8), rng.integers(12, size=12)
        plain.append(np.nanmean(values[rows][:, columns]))
    assert interval.estimate == pytest.approx(np.nanmean(values))
    assert interval.std_error == pytest.approx(np.std(plain), rel=0.08)
    assert interval.df == 7


def test_too_few_and_constant_are_undefined() -> None:
    assert isinstance(over_both(table(2, 4), seeds.rng(0, "few")), Undefined)
    assert isinstance(over_both(np.empty((0, 0)), seeds.rng(0, "none")), Undefined)
    assert isinstance(over_both(np.full((6, 6), 0.5), seeds.rng(0, "same")), Undefined)


@pytest.mark.slow
def test_it_covers_where_the_interval_given_the_items_does_not() -> None:
    both, given = [], []
    for number in range(400):
        values = table(number)
        interval, plain = over_both(values, seeds.rng(number, "draws")), replicate_t(values.mean(axis=1))
        assert isinstance(interval, Interval)
        assert isinstance(plain, Interval)
        both.append(interval.covers(0.3))
        given.append(plain.covers(0.3))
    assert np.mean(both) >= 0.95 - 0.02 - 3 * np.sqrt(0.95 * 0.05 / 400)
    assert np.mean(given) < 0.9
