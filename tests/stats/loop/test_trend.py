"""Slope, growth a loop, exact flips and selection gradients against closed forms, a slow twin and a planted judge."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from judgeloop.seeds import rng
from judgeloop.stats.inference import sign_flip
from judgeloop.stats.loop.drift import _gradient, _path_rows, gradient_estimates, trend_estimates
from judgeloop.stats.loop.replicates import measure, series
from planted_run import BETA, KAPPA, design, loop


def test_a_straight_path_has_its_slope_and_a_geometric_one_its_gain() -> None:
    noise = 1.0 + 0.01 * rng(0, "paths").standard_normal((8, 1))
    straight, gain = _path_rows(
        noise * 0.3 * np.arange(1, 6), "length", "doublings", {"scope": "policy", "bias": "style"}
    )
    assert straight.estimate == pytest.approx(0.3 * noise.mean())
    assert gain.estimate == pytest.approx(1.0)  # Equal steps: D_T − D_1 = D_{T−1}.
    # Steps of 1, λ, λ² …: D_T − D_1 = λ D_{T−1} exactly.
    grown = noise * np.cumsum(1.3 ** np.arange(5))
    _, gain = _path_rows(grown, "length", "doublings", {"scope": "policy", "bias": "style"})
    assert gain.estimate == pytest.approx(1.3)
    assert gain.p_value is None
    assert _path_rows(noise, "length", "doublings", {"scope": "policy", "bias": "style"}) == []


def test_the_slope_is_least_squares_over_all_generations() -> None:
    path = rng(1, "paths").standard_normal((6, 4))
    (trend, gain) = _path_rows(path, "bold", "sd", {"scope": "policy", "bias": "style"})
    slopes = [np.polyfit(np.arange(5), [0.0, *row], 1)[0] for row in path]
    assert trend.estimate == pytest.approx(np.mean(slopes))
    assert gain.status == "undefined"
    assert "covers 0" in gain.note


@pytest.mark.slow
def test_a_planted_run_gives_slope_and_flips_and_says_so_in_words() -> None:
    tables, of = loop(items=8, size=20, generations=3, pairs=400), design(3)
    measured = measure(tables, of)
    found = series(measured)
    rows = {(row.term, row.contrast, row.variant): row for row in trend_estimates(measured, found, of)}
    assert rows["trend_length", "random", ""].family == "exploratory"
    flipped = rows["did_length", "random", "sign_flip"]
    did = next(one for one in found if one.quantity.name == "length" and not one.category).did("judge", "random", 3)
    assert flipped.p_value == sign_flip(did.to_numpy())
    assert flipped.estimate == pytest.approx(did.mean())
    few = loop(items=8, size=20, generations=3, pairs=400, replicates=5)
    fewer = measure(few, of)
    assert not [row for row in trend_estimates(fewer, series(fewer), of) if row.variant == "sign_flip"]


def slow_gradient(cell: pd.DataFrame, names: list[str]) -> np.ndarray:
    covariance, differential = np.zeros((len(names), len(names))), np.zeros(len(names))
    items = sorted(cell["item_id"].unique())
    for item in items:
        part = cell[cell["item_id"] == item]
        p = part["n_drawn"].to_numpy(dtype=float) / part["n_drawn"].sum()
        mean = sum(w * row for w, row in zip(p, part[names].to_numpy(), strict=True))
        for w, s, row in zip(p, part["p_selected"], part[names].to_numpy(), strict=True):
            covariance += w * np.outer(row - mean, row - mean) / len(items)
            differential += (s * row - w * row) / len(items)
    return np.linalg.inv(covariance) @ differential


def tilted(seed: int, items: int, size: int) -> pd.DataFrame:
    """Picks ∝ exp(.3x + 0·y) with corr(x, y) .7: y is selected only because it comes with x."""
    stream = rng(seed, "tilted")
    x = stream.standard_normal((items, size))
    y = 0.7 * x + np.sqrt(1 - 0.49) * stream.standard_normal((items, size))
    weight = np.exp(0.3 * x)
    selected = weight / weight.sum(axis=1, keepdims=True)
    item = np.repeat([f"i{k}" for k in range(items)], size)
    return pd.DataFrame({"item_id": item, "n_drawn": 1, "p_selected": selected.ravel(), "x": x.ravel(), "y": y.ravel()})


def test_the_gradient_parts_direct_from_correlated_selection() -> None:
    """Of a tilt exp(b·x) of a Gaussian the gradient is b (Lande & Arnold 1983); four Monte-Carlo standard errors."""
    small = tilted(0, 7, 5)
    small["n_drawn"] = rng(0, "drawn").integers(1, 4, len(small))
    assert _gradient(small, ["x", "y"]) == pytest.approx(slow_gradient(small, ["x", "y"]))
    found = np.array([_gradient(tilted(seed, 60, 40), ["x", "y"]) for seed in range(20)])
    error = found.std(axis=0, ddof=1) / np.sqrt(20)
    assert np.all(np.abs(found.mean(axis=0) - [0.3, 0.0]) < 4 * error + [0.015, 0.005])
    raw = np.average(tilted(0, 60, 40)["y"], weights=tilted(0, 60, 40)["p_selected"])
    assert raw - tilted(0, 60, 40)["y"].mean() > 0.1  # The differential of y is not 0.


def test_the_gradient_of_a_planted_judge_and_where_there_is_none() -> None:
    tables, of = loop(items=8, size=30, generations=2, pairs=3000), design(2)
    rows = {(row.term, row.arm, row.generation): row for row in gradient_estimates(measure(tables, of), of)}
    length, bold = rows["gradient_length", "judge", 0], rows["gradient_bold", "judge", 0]
    assert length.estimate is not None
    assert bold.estimate is not None
    assert length.estimate > 0
    assert length.estimate / bold.estimate == pytest.approx(BETA / KAPPA, abs=0.15)
    twins = tilted(0, 6, 6).assign(y=lambda f: 2 * f["x"])
    assert _gradient(twins, ["x", "y"]) is None
    assert _gradient(tilted(0, 6, 6).assign(p_selected=0.5), ["x"]) is None
