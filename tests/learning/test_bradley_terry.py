"""The Bradley-Terry signal: planted truth, statsmodels and scipy as oracles, invariants, and what each label rule does."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from judgeloop import seeds
from judgeloop.learning.labels import preferences
from judgeloop.learning.signals import fit, generation_zero_scale, length_controlled
from judgeloop.records import SIGNAL_COLUMNS

NAMES = ("length", "bold", "hedges")
TRUTH = np.array([0.3, 0.15, -0.4])
SCALE = pd.Series([1.0, 2.0, 0.5], index=list(NAMES))


class World:
    """Items with four candidates each, all six matchups in both orders, judged with P(first) = s(γ + βᵀD/scale)."""

    def __init__(self, gamma: float, items: int, *labels: Any, spread: float = 1.0, beta: np.ndarray = TRUTH) -> None:
        self.rng = seeds.rng(7, "bradley_terry", *labels)
        index = pd.MultiIndex.from_product(
            [[f"i{n:03d}" for n in range(items)], ["c0", "c1", "c2", "c3"]], names=["item_id", "candidate_id"]
        )
        values = spread * SCALE.to_numpy() * self.rng.normal(size=(len(index), 3)) + [8.0, 1.0, 3.0]
        self.features = pd.DataFrame(values, index=index, columns=list(NAMES))
        reward = pd.Series((values / SCALE.to_numpy()) @ beta, index=index)
        rows = []
        for item in index.levels[0]:
            for pair, (a, b) in enumerate([(0, 1), (2, 0), (0, 3), (2, 1), (1, 3), (3, 2)]):
                names = (f"c{a}", f"c{b}")
                for order, (first, second) in (("ab", names), ("ba", names[::-1])):
                    margin = gamma + reward[item, first] - reward[item, second]
                    rows.append((item, f"p{pair}", order, first, second, 1 / (1 + math.exp(-margin))))
        columns = ["item_id", "pair_id", "order", "candidate_first", "candidate_second", "p_first"]
        constant: dict[str, Any] = {"replicate": 0, "arm": "judge", "generation": 0, "repeat": 0, "identical": False}
        self.soft = pd.DataFrame(rows, columns=columns).assign(verdict="first", **constant)

    def hard(self) -> pd.DataFrame:
        """The same presentations, each answered by one independent draw of its probability."""
        first = self.rng.random(len(self.soft)) < self.soft["p_first"]
        return self.soft.assign(verdict=np.where(first, "first", "second"), p_first=math.nan)


def design(judgments: pd.DataFrame, features: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One merged row a presentation, by slots: (differences and a column of ones, P(first), item codes); plain loops."""
    x, z, items = [], [], []
    for row in judgments.to_dict("records"):
        first, second = (features.loc[(row["item_id"], row[c])] for c in ("candidate_first", "candidate_second"))
        x.append([*((first - second) / SCALE), 1.0])
        soft = row["p_first"]
        z.append(soft if math.isfinite(soft) else {"first": 1.0, "tie": 0.5, "second": 0.0}[row["verdict"]])
        items.append(row["item_id"])
    return np.array(x), np.array(z), pd.factorize(np.array(items))[0]


def estimates(signal: Any) -> np.ndarray:
    return np.append(signal.coefficients.to_numpy(), signal.order_log_odds)


@pytest.mark.parametrize("gamma", [0.0, 0.4, -1.5])
def test_soft_verdicts_of_the_model_give_the_planted_truth_exactly(gamma: float) -> None:
    world = World(gamma, 12, "soft")
    signal = fit(preferences(world.soft, "raw"), world.features, SCALE, 0.0)
    np.testing.assert_allclose(estimates(signal), [*TRUTH, gamma], atol=1e-8)
    assert signal.converged
    assert signal.note == ""
    assert (signal.n, signal.n_items) == (2 * len(world.soft), 12)


def test_hard_verdicts_recover_the_planted_truth_within_their_errors() -> None:
    world = World(0.4, 150, "hard")
    signal = fit(preferences(world.hard(), "raw"), world.features, SCALE, 0.0)
    errors = signal.std_error.to_numpy()
    assert (errors < 0.08).all()
    assert (np.abs(estimates(signal) - [*TRUTH, 0.4]) < 4 * errors).all()


@pytest.mark.slow
def test_f1_intervals_cover_and_the_estimate_is_unbiased() -> None:
    found, covered, runs = [], [], 200
    truth = np.array([*TRUTH, 0.2])
    for run in range(runs):
        world = World(0.2, 60, "F1", run)
        signal = fit(preferences(world.hard(), "raw"), world.features, SCALE, 0.0)
        found.append(estimates(signal))
        covered.append(np.abs(found[-1] - truth) < 2.001 * signal.std_error.to_numpy())
    error = np.std(found, axis=0) / math.sqrt(runs)
    # Maximum likelihood at this size is biased away from 0 by a few per cent of β (docs/method.md, "Analytic truths",
    # row F1: .3 → .302).
    assert (np.abs(np.mean(found, axis=0) - truth) < 4 * error + 0.03 * np.abs(truth)).all()
    assert (np.abs(np.mean(covered, axis=0) - 0.95) < 0.02 + 3 * math.sqrt(0.95 * 0.05 / runs)).all()


def test_statsmodels_agrees_without_a_ridge() -> None:
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    world = World(0.4, 20, "oracle")
    judgments = world.hard()
    judgments.loc[::7, "verdict"] = "tie"
    judgments.loc[::5, "p_first"] = 0.8
    x, z, items = design(judgments, world.features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = GLM(z, x, family=Binomial()).fit(
            tol=1e-14, maxiter=100, cov_type="cluster", cov_kwds={"groups": items, "use_correction": True}
        )
    signal = fit(preferences(judgments, "raw"), world.features, SCALE, 0.0)
    np.testing.assert_allclose(estimates(signal), oracle.params, atol=1e-8)
    rows, columns = x.shape
    np.testing.assert_allclose(
        signal.std_error, oracle.bse / math.sqrt((rows - 1) / (rows - columns)), rtol=1e-6
    )  # statsmodels' further factor, of merged rows: so merging two weighted rows changes nothing


def test_slow_twin_with_a_ridge_and_its_sandwich() -> None:
    world = World(1.0, 15, "twin")
    judgments, ridge = world.hard(), 3.0
    x, z, items = design(judgments, world.features)
    penalty = np.array([ridge, ridge, ridge, 0.0])

    def loss(b: np.ndarray) -> float:
        eta = x @ b
        return float(np.sum(np.logaddexp(0, eta) - z * eta) + 0.5 * np.sum(penalty * b * b))

    def gradient(b: np.ndarray) -> np.ndarray:
        return x.T @ (1 / (1 + np.exp(-x @ b)) - z) + penalty * b

    expected = minimize(loss, np.zeros(4), jac=gradient, method="BFGS", options={"gtol": 1e-9}).x
    signal = fit(preferences(judgments, "raw"), world.features, SCALE, ridge)
    np.testing.assert_allclose(estimates(signal), expected, atol=1e-7)

    p = 1 / (1 + np.exp(-x @ expected))
    bread, meat = np.diag(penalty), np.zeros((4, 4))
    for row, probability in zip(x, p, strict=True):
        bread = bread + probability * (1 - probability) * np.outer(row, row)
    for item in set(items):
        score = sum(x[k] * (z[k] - p[k]) for k in range(len(z)) if items[k] == item)
        meat = meat + np.outer(score, score)
    covariance = np.linalg.inv(bread) @ meat @ np.linalg.inv(bread) * 15 / 14
    np.testing.assert_allclose(signal.std_error, np.sqrt(np.diag(covariance)), rtol=1e-6)
    assert list(signal.std_error.index) == [*NAMES, "order"]


@pytest.mark.parametrize("rule", ["raw", "swap_average", "consistent_only"])
def test_invariances(rule: Any) -> None:
    world = World(0.7, 20, "invariance")
    judgments = world.hard()
    base = fit(preferences(judgments, rule), world.features, SCALE, 1.0)
    # a and b change names: the same presentations under the other order.
    other = judgments.assign(order=judgments["order"].map({"ab": "ba", "ba": "ab"}))
    # Candidates change names, and with them every order by name.
    new = {"c0": "z", "c1": "y", "c2": "x", "c3": "w"}
    renamed = judgments.replace({"candidate_first": new, "candidate_second": new})
    # Features shift: only differences count, nothing is centred.
    for table, features in (
        (other, world.features),
        (renamed, world.features.rename(index=new, level="candidate_id")),
        (judgments, world.features + 100.0),
        (judgments.sample(frac=1, random_state=0), world.features.sample(frac=1, random_state=0)),
    ):
        signal = fit(preferences(table, rule), features, SCALE, 1.0)
        pd.testing.assert_series_equal(signal.coefficients, base.coefficients, atol=1e-8)
        pd.testing.assert_series_equal(signal.std_error, base.std_error, atol=1e-8)
        assert (signal.order_log_odds is None) == (rule != "raw")
        if rule == "raw":
            assert signal.order_log_odds == pytest.approx(base.order_log_odds, abs=1e-8)
    # The mirrored judge picks the other slot each time: every sign turns.
    mirrored = judgments.assign(verdict=judgments["verdict"].map({"first": "second", "second": "first"}))
    opposite = fit(preferences(mirrored, rule), world.features, SCALE, 1.0)
    np.testing.assert_allclose(opposite.coefficients, -base.coefficients, atol=1e-8)
    if rule == "raw":
        assert opposite.order_log_odds == pytest.approx(-base.order_log_odds, abs=1e-8)


def test_two_weighted_rows_are_one_fractional_row() -> None:
    world = World(0.5, 10, "merge")
    rows = preferences(world.soft, "raw")
    halves = pd.concat([rows.assign(weight=rows["weight"] / 2)] * 2, ignore_index=True)
    whole, split = (fit(frame, world.features, SCALE, 2.0) for frame in (rows, halves))
    np.testing.assert_allclose(whole.coefficients, split.coefficients, atol=1e-10)
    np.testing.assert_allclose(whole.std_error, split.std_error, atol=1e-10)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_e2_swap_averaging_shrinks_small_slopes_by_sech_squared(gamma: float) -> None:
    world = World(gamma, 10, "E2", spread=0.01)
    raw, averaged = (fit(preferences(world.soft, rule), world.features, SCALE, 0.0) for rule in ("raw", "swap_average"))
    np.testing.assert_allclose(raw.coefficients, TRUTH, atol=1e-7)
    factor = 1 / math.cosh(gamma / 2) ** 2
    np.testing.assert_allclose(averaged.coefficients / TRUTH, factor, atol=1e-4)
    assert averaged.order_log_odds is None


@pytest.mark.parametrize("gamma", [0.4, 1.2])
def test_e3_keeping_consistent_pairs_doubles_every_slope(gamma: float) -> None:
    world = World(gamma, 250, "E3")
    judgments = world.hard()
    signal = fit(preferences(judgments, "consistent_only"), world.features, SCALE, 0.0)
    errors = signal.std_error.to_numpy()
    deviation = np.abs(signal.coefficients.to_numpy() - 2 * TRUTH)
    assert (deviation < 4 * errors).all()
    # The doubling is told apart from no doubling.
    assert signal.coefficients["length"] - 4 * errors[0] > TRUTH[0]
    assert signal.coefficients["hedges"] + 4 * errors[2] < TRUTH[2]


def test_leaving_the_order_out_is_what_the_column_prevents() -> None:
    world = World(2.0, 10, "no column", spread=0.01)
    rows = preferences(world.soft, "raw")
    without = fit(rows.assign(order=""), world.features, SCALE, 0.0)
    np.testing.assert_allclose(without.coefficients / TRUTH, 1 / math.cosh(1.0) ** 2, atol=1e-3)


def test_no_preferences_is_stated_and_not_a_finding() -> None:
    world = World(0.0, 3, "none")
    nothing = preferences(world.soft.assign(verdict="unscored"), "raw")
    signal = fit(nothing, world.features, SCALE, 1.0)
    assert signal.coefficients.to_dict() == dict.fromkeys(NAMES, 0.0)
    assert not signal.converged
    assert "no preferences" in signal.note
    assert signal.order_log_odds is None
    assert signal.std_error.isna().all()
    assert (signal.reward(world.features) == 0.0).all()
    assert len(signal.frame(0, "judge", 0)) == 3


def test_a_judge_that_always_picks_the_first_slot_teaches_nothing_of_content() -> None:
    world = World(0.0, 10, "always first")
    signal = fit(preferences(world.soft.assign(p_first=1.0), "raw"), world.features, SCALE, 1.0)
    assert not signal.converged
    assert "separated" in signal.note
    assert signal.order_log_odds is not None
    assert signal.order_log_odds > 5
    assert (signal.coefficients.abs() < 1e-3).all()


def test_one_item_has_no_cluster_error() -> None:
    world = World(0.0, 1, "one item")
    signal = fit(preferences(world.soft, "raw"), world.features, SCALE, 1.0)
    assert signal.converged
    assert signal.std_error.isna().all()


def test_frame_has_the_contracts_columns_and_the_order_as_a_feature() -> None:
    world = World(0.5, 5, "frame")
    signal = fit(preferences(world.soft, "raw"), world.features, SCALE, 0.0)
    frame = signal.frame(2, "judge", 1)
    assert tuple(frame.columns) == SIGNAL_COLUMNS
    assert frame["feature"].tolist() == [*NAMES, "order"]
    np.testing.assert_allclose(frame["coefficient"], [*TRUTH, 0.5], atol=1e-8)
    assert frame["scale"].tolist() == [1.0, 2.0, 0.5, 1.0]
    np.testing.assert_allclose(frame["std_error"], signal.std_error)
    assert frame[["replicate", "arm", "generation"]].drop_duplicates().values.tolist() == [[2, "judge", 1]]
    assert frame["converged"].all()
    swapped = fit(preferences(world.soft, "swap_average"), world.features, SCALE, 0.0)
    assert swapped.frame(2, "judge", 1)["feature"].tolist() == list(NAMES)


def test_reward_is_beta_times_scaled_features_and_leaves_out_the_slot() -> None:
    world = World(3.0, 5, "reward")
    signal = fit(preferences(world.soft, "raw"), world.features, SCALE, 0.0)
    features = world.features.copy()
    features.loc[("i001", "c2")] = math.nan
    reward = signal.reward(features)
    assert ("i001", "c2") not in reward.index
    assert len(reward) == len(features) - 1
    for key, value in reward.items():
        expected = sum(b * features.loc[key, name] / SCALE[name] for b, name in zip(TRUTH, NAMES, strict=True))
        assert value == pytest.approx(expected, abs=1e-6)


def test_length_controlled_sets_the_coefficient_after_fitting_with_it() -> None:
    world = World(0.0, 8, "length")
    signal = fit(preferences(world.soft, "length_controlled"), world.features, SCALE, 0.0)
    controlled = length_controlled(signal)
    assert controlled.coefficients["length"] == 0.0
    assert controlled.std_error["length"] == 0.0
    np.testing.assert_allclose(controlled.coefficients.to_numpy()[1:], TRUTH[1:], atol=1e-8)
    assert signal.coefficients["length"] == pytest.approx(0.3, abs=1e-8)
    longer = world.features.assign(length=world.features["length"] + 3.0)
    pd.testing.assert_series_equal(controlled.reward(longer), controlled.reward(world.features))
    without = fit(preferences(world.soft, "raw"), world.features, SCALE.drop("length"), 0.0)
    assert length_controlled(without) is without


def test_generation_zero_scale_drops_what_does_not_vary() -> None:
    features = pd.DataFrame(
        {"length": [1.0, 2.0, 4.0, math.nan], "emoji": 0.0, "bold": [0.1 + 0.2, 0.3, 0.3, 0.3], "headings": math.nan}
    )
    scale = generation_zero_scale(features)
    assert scale.to_dict() == pytest.approx({"length": math.sqrt(7 / 3)})
    assert generation_zero_scale(features.head(1)).empty


def test_no_feature_varies_and_only_the_slot_is_fitted() -> None:
    world = World(0.5, 4, "no features", beta=np.zeros(3))
    signal = fit(preferences(world.soft, "raw"), world.features, SCALE.head(0), 1.0)
    assert signal.order_log_odds == pytest.approx(0.5, abs=1e-8)
    assert (signal.reward(world.features) == 0.0).all()
    swapped = fit(preferences(world.soft, "swap_average"), world.features, SCALE.head(0), 1.0)
    assert swapped.coefficients.empty
    assert swapped.frame(0, "judge", 0).empty


def test_wrong_input_is_refused() -> None:
    world = World(0.0, 2, "wrong")
    rows = preferences(world.soft, "raw")
    with pytest.raises(ValueError, match="candidate_first"):
        fit(rows.drop(columns="candidate_first"), world.features, SCALE, 1.0)
    with pytest.raises(ValueError, match=r"no features of the chosen text \('i001', 'c3'\)"):
        fit(rows, world.features.drop(("i001", "c3")), SCALE, 1.0)
    features = world.features.copy()
    features.loc[("i000", "c0"), "bold"] = math.nan
    with pytest.raises(ValueError, match=r"missing features of the chosen text \('i000', 'c0'\)"):
        fit(rows, features, SCALE, 1.0)
    with pytest.raises(ValueError, match="the scale of 'bold' is not positive"):
        fit(rows, world.features, SCALE.where(SCALE != 2.0, 0.0), 1.0)
    with pytest.raises(ValueError, match="one row a text"):
        fit(rows, pd.concat([world.features, world.features]), SCALE, 1.0)
