"""From a folder of judgments to what a forecast rests on: whose picks, of which texts, and what a loop would choose from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.errors import InvalidInput
from judgeloop.experiment.schema import BradleyTerrySignal, Signal
from judgeloop.kernels import sigmoid
from judgeloop.learning import labels, signals
from judgeloop.stats.design import Design, RunTables
from judgeloop.stats.inference import Undefined
from judgeloop.stats.loop.forecast import Pull, Texts
from judgeloop.stats.loop.replicates import measure
from judgeloop.text.features import FEATURES, STYLE_FEATURES

Floats = NDArray[np.float64]

_KEY = ["item_id", "candidate_id"]
_FEWEST_ITEMS = 10


@dataclass(frozen=True)
class Evidence:
    """One judge's generation-0 judgments and the features of the texts that they show, indexed by item and candidate."""

    judge: str
    panel: str
    judgments: pd.DataFrame
    features: pd.DataFrame


@dataclass(frozen=True)
class Choice:
    """The texts that a loop would choose from: their features in estimate units (length in doublings, others in
    generation-0 SDs), and the SD that each raw feature is divided by (``units``, 1 for length)."""

    features: tuple[str, ...]
    units: pd.Series[float]
    texts: Texts
    means: pd.Series[float]
    n_texts: int
    n_items: int

    def combinations(self) -> tuple[tuple[str, ...], Floats]:
        """Each feature, and the style score: the mean of the style features."""
        names, rows = [*self.features], [*np.eye(len(self.features))]
        style = np.array([name in STYLE_FEATURES for name in self.features], dtype=np.float64)
        if style.any():
            names.append("style_score")
            rows.append(style / style.sum())
        return tuple(names), np.array(rows)


def gathered(tables: RunTables, where: str) -> tuple[list[Evidence], Choice]:
    """What the tables of a run, an audit or an analysis say; ``where`` names them. Raises InvalidInput where they hold no
    texts or no judgments."""
    judgments, candidates = tables.judgments, tables.candidates
    if judgments.empty:
        raise InvalidInput(f"{where}: holds no judgments to forecast from; finish the run or audit first")
    if candidates.empty or "length" not in candidates:
        raise InvalidInput(
            f"{where}: holds no texts, and without them nothing says what a loop would choose from; "
            "analyze the verdicts together with their texts (--pairs)"
        )
    known = candidates[candidates["text"].notna()]
    of_run = known["replicate"].notna()
    if of_run.any():
        zero = known[of_run & (known["generation"] == 0)].drop_duplicates(["replicate", *_KEY])
        units = pd.Series(measure(tables, Design("", 0, int(known["generation"].max()), ())).scale)
    else:
        zero = known.drop_duplicates(_KEY)
        units = zero[list(FEATURES)].astype("float64").std(ddof=1)
    return list(_evidence(judgments, known)), _choice(zero, units)


def _named(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows with the replicate in those names, for they repeat across replicates. Items are the same ones."""
    return rows.assign(**{name: rows["replicate"].astype("str") + "|" + rows[name].astype("str") for name in columns})


def _evidence(judgments: pd.DataFrame, texts: pd.DataFrame) -> Iterator[Evidence]:
    """Each judge's generation-0 judgments, on the panel that has most of them."""
    judgments = judgments[~judgments["judge"].isin(["random", "gold"])]
    zero = judgments["generation"].isna() | (judgments["generation"] == 0)
    for judge, own in judgments[zero & (judgments["panel"] != "probe")].groupby("judge", sort=True):
        panel = str(own["panel"].value_counts().index[0])
        rows, shown = own[own["panel"] == panel], texts[texts["replicate"].isna()]
        if panel == "policy":
            shown = _named(texts[texts["replicate"].notna() & (texts["generation"] == 0)], "candidate_id")
            rows = _named(rows, "pair_id", "candidate_first", "candidate_second")
            # Arms with this judge share generation 0.
            rows = rows.drop_duplicates(["item_id", "pair_id", "order", "repeat"])
        features = shown.drop_duplicates(_KEY).set_index(_KEY)[list(FEATURES)].astype("float64")
        # To the learner it is one generation of one loop.
        yield Evidence(str(judge), panel, rows.assign(replicate=0, arm="", generation=0), features)


def _choice(zero: pd.DataFrame, units: pd.Series[float]) -> Choice:
    """The covariance within the texts of an item (of a replicate), each set of texts weighing the same."""
    values = zero[list(FEATURES)].astype("float64")
    varies = [name for name in FEATURES if units.get(name, 0.0) > 0 and float(values[name].std(ddof=1)) > 0]
    units = pd.Series({name: 1.0 if name == "length" else float(units[name]) for name in varies})
    scaled = values[varies] / units
    sets = zero.groupby(["replicate", "item_id"], dropna=False, sort=True).ngroup().to_numpy()
    within = (scaled - scaled.groupby(sets).transform("mean")).to_numpy()
    sizes = np.bincount(sets)
    several = int(np.sum(sizes > 1))
    weight = 1.0 / np.maximum(sizes[sets] - 1.0, 1.0) / max(several, 1)
    covariance = (within * weight[:, None]).T @ within
    items = zero["item_id"].to_numpy()
    means = scaled.groupby(items).mean().mean()
    df = int(np.sum(sizes - 1))
    return Choice(tuple(varies), units, Texts(covariance, df), means, len(scaled), len(np.unique(items)))


def pull_of(
    evidence: Evidence, choice: Choice, signal: Signal, presentations: float, *, coins: bool = True
) -> tuple[Pull, float, float] | Undefined:
    """What such picks teach under a signal, by the project's own learner, in estimate units; the preferences that it rests
    on; and those that a generation of ``presentations`` would give (without a fit: NaN).

    The ridge is scaled so that it weighs against the evidence what it would against a generation of that size. ``coins``:
    hard verdicts would fall anew if a pair were shown again, as they do above temperature 0.
    """
    shown = evidence.judgments[evidence.judgments["candidate_first"] != evidence.judgments["candidate_second"]]
    items = shown.loc[shown["verdict"] != "unscored", "item_id"].nunique()
    if items < _FEWEST_ITEMS:
        return Undefined(f"{items} items with a verdict; a forecast needs {_FEWEST_ITEMS}")
    if not isinstance(signal, BradleyTerrySignal):
        return _winners(shown, evidence.features, choice, coins)
    preferences = labels.preferences(shown, signal.label_rule)
    rows = float(preferences["weight"].sum())
    if rows == 0:
        return Undefined(f"the label rule {signal.label_rule} keeps no preference")
    expected = presentations * rows / len(shown)
    measured, fitted = _fitted(preferences, shown, evidence.features, choice, signal.ridge * rows / max(expected, 1.0))
    if signal.label_rule == "length_controlled":
        fitted = signals.length_controlled(fitted)
    if not fitted.converged or fitted.covariance is None:
        return Undefined(f"the signal cannot be fitted to these picks: {fitted.note}")
    names, per_unit = list(choice.features), _per_unit(choice, fitted)
    unit = np.outer(per_unit, per_unit)
    covariance = fitted.covariance.reindex(index=names, columns=names).fillna(0.0).to_numpy(dtype=np.float64)
    scatter = _scatter(preferences, measured, fitted).reindex(index=names, columns=names).fillna(0.0).to_numpy()
    return Pull(_slopes(choice, fitted), covariance * unit, fitted.n_items - 1, scatter * unit), rows, expected


def _fitted(
    preferences: pd.DataFrame, shown: pd.DataFrame, features: pd.DataFrame, choice: Choice, ridge: float
) -> tuple[pd.DataFrame, signals.Signal]:
    measured = features.loc[features.index.isin(_pairs(shown)), list(choice.features)]
    return measured, signals.fit(preferences, measured, signals.generation_zero_scale(measured), ridge)


def _per_unit(choice: Choice, fitted: signals.Signal) -> Floats:
    """(p,) the estimate unit of each feature in the fit's own; 0 for a feature that the fit has not."""
    ratio = (choice.units / fitted.scale).reindex(list(choice.features)).fillna(0.0)
    return np.asarray(ratio, dtype=np.float64)


def _slopes(choice: Choice, fitted: signals.Signal) -> Floats:
    raw = fitted.coefficients.reindex(list(choice.features)).fillna(0.0).to_numpy(dtype=np.float64)
    return np.asarray(raw * _per_unit(choice, fitted))


def _scatter(preferences: pd.DataFrame, features: pd.DataFrame, fitted: signals.Signal) -> pd.DataFrame:
    """Preferences times the sandwich covariance of the slopes with pairs, not items, as clusters: items stay the same in
    a loop, their pairs do not."""
    names = list(fitted.scale.index)
    chosen, rejected = (
        features[names].reindex(pd.MultiIndex.from_arrays([preferences["item_id"], preferences[side]])).to_numpy()
        for side in ("chosen", "rejected")
    )
    x = (chosen - rejected) / fitted.scale.to_numpy()
    shown_first = np.where(preferences["chosen"] == preferences["candidate_first"], 1.0, -1.0)
    order = np.where(preferences["order"] == "", 0.0, shown_first)
    gamma = 0.0 if fitted.order_log_odds is None else fitted.order_log_odds
    p = sigmoid(x @ fitted.coefficients.to_numpy(dtype=np.float64) + gamma * order)
    weight = preferences["weight"].to_numpy(dtype=np.float64)
    information = (x * (weight * p * (1.0 - p))[:, None]).T @ x + fitted.ridge * np.eye(len(names))
    scores = pd.DataFrame((weight * (1.0 - p))[:, None] * x)
    by_pair = scores.groupby([preferences["item_id"].to_numpy(), preferences["pair_id"].to_numpy()]).sum().to_numpy()
    inverse = np.linalg.pinv(information, hermitian=True)
    return pd.DataFrame(weight.sum() * inverse @ by_pair.T @ by_pair @ inverse, index=names, columns=names)


def _pairs(shown: pd.DataFrame) -> pd.MultiIndex:
    parts = [shown[["item_id", f"candidate_{slot}"]].set_axis(_KEY, axis=1) for slot in ("first", "second")]
    return pd.MultiIndex.from_frame(pd.concat(parts).drop_duplicates())


def _winners(
    shown: pd.DataFrame, features: pd.DataFrame, choice: Choice, coins: bool
) -> tuple[Pull, float, float] | Undefined:
    """The mean features of the text that won both orders together, less the pair's mean; clusters are items."""
    picks = labels.presentations(shown)
    by_order = picks.groupby(["item_id", "pair_id", "order"]).agg(
        a=("a", "first"), b=("b", "first"), p_a=("p_a", "mean")
    )
    by_pair = by_order.groupby(["item_id", "pair_id"]).agg(
        a=("a", "first"), b=("b", "first"), p_a=("p_a", "mean"), n=("p_a", "size")
    )
    by_pair = by_pair[by_pair["n"] == 2].reset_index()
    if by_pair["item_id"].nunique() < _FEWEST_ITEMS:
        return Undefined(
            f"{by_pair['item_id'].nunique()} items with a pair judged in both orders; a forecast needs {_FEWEST_ITEMS}"
        )
    scaled = features[list(choice.features)] / choice.units
    a, b = (
        scaled.reindex(pd.MultiIndex.from_arrays([by_pair["item_id"], by_pair[side]])).to_numpy(dtype=np.float64)
        for side in "ab"
    )
    won = np.sign(by_pair["p_a"].to_numpy(dtype=np.float64) - 0.5)
    moved = 0.5 * won[:, None] * (a - b)
    keep = np.isfinite(moved).all(axis=1)
    moved, items = moved[keep], by_pair["item_id"].to_numpy()[keep]
    sums = pd.DataFrame(moved - moved.mean(axis=0)).groupby(items).sum().to_numpy()
    covariance = len(sums) / (len(sums) - 1) * sums.T @ sums / len(moved) ** 2
    scatter = np.cov(moved.T, ddof=1).reshape(covariance.shape)
    calls = None
    if coins and not shown["p_first"].notna().any():
        preferences = labels.preferences(shown, "raw")
        _, fitted = _fitted(preferences, shown, features, choice, 1.0)
        slopes = _slopes(choice, fitted)
        spread = math.sqrt(max(float(slopes @ choice.texts.covariance @ slopes), 0.0))
        calls = (spread, fitted.order_log_odds or 0.0) if fitted.converged else None
    pull = Pull(moved.mean(axis=0), covariance, len(sums) - 1, scatter, calls)
    return pull, float(len(moved)), float("nan")


def real_mean(real: Mapping[str, Sequence[str]], measured: pd.DataFrame, choice: Choice) -> Floats:
    """The real texts' mean less generation 0's, (p,) in estimate units. ``measured``: their features, indexed by item."""
    means = (measured[list(choice.features)].groupby(level=0).mean()).mean() / choice.units
    assert len(real)
    return (means - choice.means).to_numpy(dtype=np.float64)
