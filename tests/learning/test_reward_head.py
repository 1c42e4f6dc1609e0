"""The head of a reward model: slow obvious twins of its fit, its penalty and its held-out accuracy, and what it is told by."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from judgeloop import seeds
from judgeloop.experiment.schema import RewardModelSignalSpec
from judgeloop.kernels import logistic
from judgeloop.learning.labels import preferences as label
from judgeloop.learning.reward_model import (
    ACCURACY,
    RIDGES,
    AnchorTexts,
    EmbeddingSpace,
    best_ridge,
    embedding_space,
    held_out_accuracy,
    inherited_slopes,
    learn_reward_model,
    train,
)
from judgeloop.learning.signals import Support, design
from judgeloop.records import SIGNAL_COLUMNS
from judgeloop.stats.inference import Undefined
from judgeloop.stats.judge.pointwise import LinearFit

DIMENSIONS = 12
Pairs = [(0, 1), (2, 0), (1, 2)]


def world(
    items: int, taste: float, *labels: str | int, gamma: float = 0.4, soft: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """(judgments, embeddings) of items with three texts, all pairs in both orders, judged by the first number of an embedding."""
    rng = seeds.rng(11, "reward model", *labels)
    index = pd.MultiIndex.from_product([[f"i{n:02d}" for n in range(items)], ["k0", "k1", "k2"]], names=["item_id", "candidate_id"])  # fmt: skip
    topics = np.repeat(10.0 * rng.normal(size=(items, DIMENSIONS)), 3, axis=0)
    embeddings = pd.DataFrame(topics + rng.normal(size=(len(index), DIMENSIONS)), index=index)
    rows = []
    for item in index.levels[0]:
        for number, pair in enumerate(Pairs):
            for order, (a, b) in (("ab", pair), ("ba", pair[::-1])):
                gap = taste * (embeddings.loc[(item, f"k{a}"), 0] - embeddings.loc[(item, f"k{b}"), 0])
                p = 1.0 / (1.0 + math.exp(-gamma - gap))
                rows.append((item, f"m{number}", order, f"k{a}", f"k{b}", p, "first" if rng.random() < p else "second"))
    columns = ["item_id", "pair_id", "order", "candidate_first", "candidate_second", "p_first", "verdict"]
    judgments = pd.DataFrame(rows, columns=columns).assign(replicate=0, arm="judge", generation=0, repeat=0, identical=False)  # fmt: skip
    return judgments if soft else judgments.assign(p_first=math.nan), embeddings


def space_of(embeddings: pd.DataFrame) -> EmbeddingSpace:
    space = embedding_space(embeddings)
    assert space is not None
    return space


def test_the_head_is_the_penalised_maximum_that_scipy_finds_over_all_directions() -> None:
    judgments, embeddings = world(15, 1.0, "scipy")
    space = space_of(embeddings)
    coordinates = space.coordinates(embeddings)
    assert coordinates.shape == (45, DIMENSIONS)
    fitted = train(label(judgments, "raw"), coordinates, 0.7)
    # The twin knows no axes: plain differences, in the one unit.
    deviations = embeddings - embeddings.groupby(level="item_id").transform("mean")
    unit = math.sqrt(float((deviations**2).to_numpy().sum()) / (len(embeddings) - 15))
    x, z = [], []
    for row in judgments.to_dict("records"):
        first, second = (embeddings.loc[(row["item_id"], row[c])] for c in ("candidate_first", "candidate_second"))
        x.append([*((first - second) / unit), 1.0])
        z.append(float(row["verdict"] == "first"))
    rows, picked = np.array(x), np.array(z)

    def loss(head: np.ndarray) -> float:
        eta = rows @ head
        return float(np.sum(np.logaddexp(0.0, eta) - picked * eta) + 0.35 * np.sum(head[:-1] ** 2))

    twin = minimize(loss, np.zeros(DIMENSIONS + 1), method="BFGS", options={"gtol": 1e-9, "maxiter": 5000}).x
    reward = (embeddings / unit) @ twin[:-1]
    gaps = reward - reward.groupby(level="item_id").transform("mean")
    found = fitted.reward(coordinates)
    assert (found - found.groupby(level="item_id").transform("mean")).to_numpy() == pytest.approx(gaps.to_numpy(), abs=1e-4)  # fmt: skip
    assert fitted.order_log_odds == pytest.approx(twin[-1], abs=1e-4)


def test_texts_of_an_item_have_variance_one_in_all_and_topics_do_not_count() -> None:
    _, embeddings = world(40, 0.0, "unit")
    for table in (embeddings, embeddings * 1e3 + 7.0):
        coordinates = space_of(table).coordinates(table)
        within = coordinates - coordinates.groupby(level="item_id").transform("mean")
        assert float((within**2).to_numpy().sum()) / 80 == pytest.approx(1.0)


def test_more_numbers_than_texts_and_the_number_of_axes() -> None:
    rng = seeds.rng(3, "wide")
    index = pd.MultiIndex.from_product([[f"i{n:03d}" for n in range(100)], ["k0", "k1", "k2"]])
    index.names = ["item_id", "candidate_id"]
    wide = pd.DataFrame(rng.normal(size=(300, 500)), index=index)
    assert space_of(wide).coordinates(wide).shape == (300, 128)
    few = wide.iloc[:12]
    space = space_of(few)
    assert space.axes.shape == (500, 8)
    gram = space.axes.T @ space.axes
    assert gram == pytest.approx(np.eye(8) * gram[0, 0], abs=1e-12)


def test_equal_embeddings_and_none_have_no_space() -> None:
    index = pd.MultiIndex.from_product([["i", "j"], ["k0", "k1"]], names=["item_id", "candidate_id"])
    assert embedding_space(pd.DataFrame(np.ones((4, 3)), index=index)) is None
    # Another embedding for each item, the same for its texts.
    assert embedding_space(pd.DataFrame(np.repeat(np.eye(2), 2, axis=0) * 0.1, index=index)) is None
    assert embedding_space(pd.DataFrame(np.full((4, 3), np.nan), index=index)) is None


@pytest.mark.parametrize("taste", [0.5, 1.5])
def test_the_penalty_is_the_one_that_leaving_items_out_in_turn_and_fitting_anew_chooses(taste: float) -> None:
    judgments, embeddings = world(12, taste, "penalty")
    coordinates = space_of(embeddings).coordinates(embeddings)
    taught = label(judgments, "raw")
    rows = design(taught, coordinates, pd.Series(1.0, index=coordinates.columns))
    losses = {}
    for ridge in RIDGES:
        loss = 0.0
        for item in range(12):
            left = rows.clusters == item
            head = logistic(rows.x[~left], rows.z[~left], rows.weights[~left], ridge * rows.penalised).coefficients
            eta = rows.x[left] @ head
            loss += float(np.sum(rows.weights[left] * (np.logaddexp(0.0, eta) - rows.z[left] * eta)))
        losses[ridge] = loss
    assert best_ridge(taught, coordinates) == min(losses, key=losses.__getitem__)


def test_a_coin_is_shrunk_and_a_taste_is_not() -> None:
    chosen = {}
    for taste in (0.0, 3.0):
        judgments, embeddings = world(40, taste, "shrink")
        chosen[taste] = best_ridge(label(judgments, "raw"), space_of(embeddings).coordinates(embeddings))
    assert chosen[0.0] == 100.0
    assert chosen[3.0] < 1.0


def test_held_out_accuracy_is_that_of_plain_loops_over_folds() -> None:
    judgments, embeddings = world(14, 1.0, "held out", soft=True)
    coordinates = space_of(embeddings).coordinates(embeddings)
    taught = label(judgments, "raw")
    items = sorted(set(taught["item_id"]))
    by_item: dict[str, list[float]] = {item: [0.0, 0.0] for item in items}
    for fold in range(5):
        tested = {item for place, item in enumerate(items) if place % 5 == fold}
        reward = train(taught[~taught["item_id"].isin(tested)], coordinates, None).reward(coordinates)
        for row in taught[taught["item_id"].isin(tested)].to_dict("records"):
            gap = reward[(row["item_id"], row["chosen"])] - reward[(row["item_id"], row["rejected"])]
            by_item[row["item_id"]][0] += row["weight"] * (gap > 0)
            by_item[row["item_id"]][1] += row["weight"]
    right, total = (sum(sums[k] for sums in by_item.values()) for k in (0, 1))
    share, error = held_out_accuracy(taught, coordinates, None, {})
    assert share == pytest.approx(right / total)
    residuals = [(hit - share * weight) / total for hit, weight in by_item.values()]
    assert error == pytest.approx(math.sqrt(14 / 13 * sum(value**2 for value in residuals)))


def test_near_copies_of_an_item_do_not_teach_its_own_answers() -> None:
    # A coin's picks of seven items, each twice, the copy in another fold: a head of twelve directions knows them by heart.
    judgments, embeddings = world(7, 0.0, "copies")
    judgments = judgments[judgments["order"] == "ab"]
    copies = {f"i{n:02d}": f"j{n:02d}" for n in range(7)}
    doubled = pd.concat([judgments, judgments.assign(item_id=judgments["item_id"].map(copies))])
    twins = pd.concat([embeddings, embeddings.rename(index=copies, level="item_id")])
    coordinates = space_of(twins).coordinates(twins)
    taught = label(doubled, "raw")
    leaky, _ = held_out_accuracy(taught, coordinates, 0.01, {})
    honest, _ = held_out_accuracy(taught, coordinates, 0.01, {copy: name for name, copy in copies.items()})
    alone, _ = held_out_accuracy(label(judgments, "raw"), coordinates, 0.01, {})
    assert leaky > 0.75
    assert honest == pytest.approx(alone)
    assert honest < 0.6


def test_the_slopes_of_a_reward_that_is_linear_in_the_features_are_its_coefficients() -> None:
    rng = seeds.rng(5, "slopes")
    judgments, embeddings = world(40, 1.5, "slopes")
    space = space_of(embeddings)
    fitted = train(label(judgments, "raw"), space.coordinates(embeddings), 0.1)
    index = pd.MultiIndex.from_product(
        [[f"i{n:02d}" for n in range(30)], ["a", "b"]], names=["item_id", "candidate_id"]
    )
    texts = pd.DataFrame(rng.normal(size=(60, DIMENSIONS)), index=index)
    # Two features, of which the embedding holds mixtures: number 0 is length less bold, number 1 bold.
    features = pd.DataFrame({"length": texts[0] + texts[1], "bold": texts[1], "emoji": 0.0})
    pairs = pd.DataFrame({"item_id": index.levels[0], "a": "a", "b": "b"})
    only = texts.copy()
    only.loc[:, 2:] = 0.0
    slopes = inherited_slopes(fitted, space, AnchorTexts(pairs, features, only))
    assert isinstance(slopes, LinearFit)
    assert slopes.names == ("length", "bold")
    head = space.axes @ fitted.coefficients.to_numpy()
    assert slopes.coefficients == pytest.approx([head[0], head[1] - head[0]], abs=1e-10)
    # What else the reward looks at is noise of the pairs: the same slopes within their errors, and the item is the unit.
    noisy = inherited_slopes(fitted, space, AnchorTexts(pairs, features, texts))
    assert isinstance(noisy, LinearFit)
    errors = np.sqrt(np.diag(noisy.covariance))
    assert (np.abs(noisy.coefficients - slopes.coefficients) < 4 * errors).all()
    assert (errors > 0.01).all()


def test_without_a_panel_or_with_one_of_equal_features_nothing_is_told_of_slopes() -> None:
    judgments, embeddings = world(8, 1.0, "none")
    space = space_of(embeddings)
    fitted = train(label(judgments, "raw"), space.coordinates(embeddings), 1.0)
    assert isinstance(inherited_slopes(fitted, space, None), Undefined)
    features = pd.DataFrame({"length": 3.0}, index=embeddings.index)
    pairs = pd.DataFrame({"item_id": embeddings.index.unique("item_id"), "a": "k0", "b": "k1"})
    assert isinstance(inherited_slopes(fitted, space, AnchorTexts(pairs, features, embeddings)), Undefined)
    lost = AnchorTexts(pairs, features, embeddings * np.nan)
    assert isinstance(inherited_slopes(fitted, space, lost), Undefined)


def test_a_text_without_an_embedding_teaches_nothing_and_keeps_its_weight() -> None:
    judgments, embeddings = world(10, 2.0, "lost")
    space = space_of(embeddings)
    lost = embeddings.copy()
    lost.loc[("i03", "k1")] = np.nan
    lost.loc["i04"] = np.nan
    supports = {
        item: Support({"k0": 0.5, "k1": 0.3, "k2": 0.2}, {"k0": 2, "k1": 1, "k2": 1}) for item in embeddings.index.unique("item_id")
    }  # fmt: skip
    spec = RewardModelSignalSpec(endpoint="e", ridge=0.1)
    learned = learn_reward_model(spec, judgments, lost, space, None, supports, {}, on_pool=True, size=4)
    shown = judgments[["item_id", "candidate_first", "candidate_second"]].apply(tuple, axis=1)
    without = judgments[[row[0] != "i04" and not (row[0] == "i03" and "k1" in row) for row in shown]]
    again = learn_reward_model(spec, without, embeddings, space, None, supports, {}, on_pool=True, size=4)
    assert math.isnan(learned.rewards["i03"]["k1"])
    assert all(map(math.isnan, learned.rewards["i04"].values()))
    assert learned.rewards["i00"] == pytest.approx(again.rewards["i00"])
    assert learned.selection["i04"] == supports["i04"].reference
    tilted = learned.selection["i03"]
    assert tilted["k1"] == 0.3
    gap = learned.rewards["i03"]["k0"] - learned.rewards["i03"]["k2"]
    assert math.log(tilted["k0"] / tilted["k2"]) == pytest.approx(math.log(0.5 / 0.2) + gap)
    assert sum(tilted.values()) == pytest.approx(1.0)
    best = RewardModelSignalSpec(endpoint="e", ridge=0.1, update="best_of_n")
    winners = learn_reward_model(best, judgments, lost, space, None, supports, {}, on_pool=False, size=3).selection
    assert max(winners["i03"], key=winners["i03"].__getitem__) in ("k0", "k2")
    assert winners["i04"] == supports["i04"].reference


def test_nothing_compared_leaves_the_policy_and_says_nothing() -> None:
    judgments, embeddings = world(4, 1.0, "nothing")
    unscored = judgments.assign(verdict="unscored")
    support = {"i00": Support({"k0": 0.5, "k1": 0.5}, {"k0": 1, "k1": 1})}
    learned = learn_reward_model(
        RewardModelSignalSpec(endpoint="e"), unscored, embeddings, space_of(embeddings), None, support, {}, on_pool=True, size=2
    )  # fmt: skip
    assert learned.selection == {"i00": {"k0": 0.5, "k1": 0.5}}
    assert learned.signal is not None
    frame = learned.signal.frame(0, "judge", 0)
    assert tuple(frame.columns) == SIGNAL_COLUMNS
    assert ACCURACY not in set(frame["feature"])
