"""What a listwise judge's picks follow: McFadden's conditional logit of the picked slot on slots and texts.

P(slot j) ∝ exp(γ_j + βᵀf(text in j) + κ·[it is gold's best]). Slopes are log-odds per doubling or per generation-0 SD;
positive = prefers more of it. Clustered by item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, clustered_proportion, t_interval
from judgeloop.stats.judge.slopes import FEWEST_ITEMS
from judgeloop.stats.rows import LOG_ODDS, PROBABILITY, Bias, Counts, Labels, row
from judgeloop.stats.slot_log_odds import one_step_covariance
from judgeloop.text.features import FEATURES

Floats = NDArray[np.float64]

_STEPS, _FARTHEST = 50, 30.0
_NO_GOLD = "no gold: what the judge likes cannot be told from what is better"


@dataclass(frozen=True, slots=True)
class ChoiceFit:
    """Coefficients (p,) of ``names`` (slots first), their one-step jackknife covariance over items, t's degrees of freedom."""

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    df: int

    def slope(self, name: str) -> Interval | Undefined:
        """One coefficient with its t interval."""
        if name not in self.names:
            return Undefined(f"{name} does not differ enough within the sets")
        j = self.names.index(name)
        se = float(np.sqrt(max(0.0, self.covariance[j, j])))
        return t_interval(
            float(self.coefficients[j]), se, self.df, method="conditional logit, one-step jackknife by item"
        )


def fit_choices(names: Sequence[str], x: Floats, share: Floats, clusters: NDArray[np.intp]) -> ChoiceFit | Undefined:
    """Maximum likelihood by Newton's method. ``x`` (n, k, p) covariates of the k alternatives, ``share`` (n, k) of the pick:
    1 and 0, or probabilities."""
    kept, codes = np.unique(clusters, return_inverse=True)
    p = x.shape[2]
    if len(kept) <= p:
        return Undefined(f"{len(kept)} items are too few for {p} coefficients")
    scale = np.sqrt(np.mean((x - x.mean(axis=1, keepdims=True)) ** 2, axis=(0, 1)))
    if np.any(scale == 0):
        return Undefined("a covariate does not differ within the sets")
    x, b = x / scale, np.zeros(p)
    for _ in range(_STEPS):
        gradient, information = _parts(x, share, b)
        total = information.sum(axis=0)
        if np.linalg.matrix_rank(total, hermitian=True, tol=1e-9 * len(x)) < p:
            return Undefined(f"{', '.join(names)} are collinear, or the picks separate on them")
        step = np.linalg.solve(total, gradient.sum(axis=0))
        step *= min(1.0, 2.0 / float(np.max(np.abs(step)) or 1.0))
        b = b + step
        if np.max(np.abs(step)) < 1e-9:
            break
    else:
        return Undefined("the picks separate on these covariates")
    if np.max(np.abs(b)) > _FARTHEST:
        return Undefined("the picks separate on these covariates")
    gradient, information = _parts(x, share, b)
    by_item, inside = np.zeros((len(kept), p)), np.zeros((len(kept), p, p))
    np.add.at(by_item, codes, gradient)
    np.add.at(inside, codes, information)
    covariance = one_step_covariance(inside, by_item)
    if isinstance(covariance, Undefined):
        return covariance
    return ChoiceFit(tuple(names), b / scale, covariance / np.outer(scale, scale), len(kept) - 1)


def _parts(x: Floats, share: Floats, b: Floats) -> tuple[Floats, Floats]:
    """(n, p) derivatives and (n, p, p) information of every choice."""
    eta = x @ b
    odds = np.exp(eta - eta.max(axis=1, keepdims=True))
    chance = odds / odds.sum(axis=1, keepdims=True)
    mean = np.einsum("nk,nkp->np", chance, x)
    gradient = np.einsum("nk,nkp->np", share, x) - mean
    spread = x - mean[:, None, :]
    return gradient, np.einsum("nk,nkp,nkq->npq", chance, spread, spread)


def content_of_choices(
    choices: pd.DataFrame, slots: int, texts: pd.DataFrame, spread: Mapping[str, float], labels: Labels
) -> list[Estimate]:
    """``length_log_odds`` and the style features', and of gold: ``gold_agreement`` and ``gold_log_odds``.

    ``choices``: as in ``listwise_estimates``, and ``candidate_1 … candidate_<slots>`` by slot; ``gold`` the best one's
    candidate_id, empty where not known. ``texts``: ``item_id, candidate_id`` and features; ``spread`` their standard
    deviations. The slots' effects are always in the model.
    """
    scored = choices.dropna(subset=["picked"]).reset_index(drop=True)
    lost = len(choices) - len(scored)
    names = [name for name in FEATURES if name == "length" or spread.get(name, 0.0) > 0]
    x = _features(scored, slots, texts, names, spread)
    share = _shares(scored, slots)
    items = pd.factorize(scored["item_id"])[0].astype(np.intp)
    best = np.stack([(scored[f"candidate_{n + 1}"] == scored["gold"]).to_numpy() for n in range(slots)], axis=1)
    known = (scored["gold"] != "").to_numpy()
    raw = _fit(names, x, share, items)
    given: ChoiceFit | Undefined = Undefined(_NO_GOLD)
    if known.any():
        given = _fit(names, x[known], share[known], items[known], best[known].astype(np.float64))
    counts = [Counts(int(some.sum()), len(np.unique(items[some])), lost) for some in (known, np.ones_like(known))]
    primary = Undefined("one gold, of unknown reliability" if known.any() else _NO_GOLD)
    rows = []
    for name in names:
        bias: Bias = "verbosity" if name == "length" else "style"
        unit = f"{LOG_ODDS} per {'doubling' if name == 'length' else 'generation-0 SD'}"
        with_gold, without = (fit if isinstance(fit, Undefined) else fit.slope(name) for fit in (given, raw))
        rows += [
            row(labels, bias, f"{name}_log_odds", primary, counts[0], unit=unit),
            row(labels, bias, f"{name}_log_odds", with_gold, counts[0], unit=unit, variant="given_gold",
                note="gold taken as exact; if it errs, quality it misses counts as bias"),
            row(labels, bias, f"{name}_log_odds", without, counts[1], unit=unit, variant="no_gold",
                note="quality is not held equal"),
        ]  # fmt: skip
    agreed: Interval | Undefined = Undefined("no gold")
    if known.any():
        agreed = clustered_proportion((share * best).sum(axis=1)[known], items[known])
    slope = given if isinstance(given, Undefined) else given.slope("gold")
    return [
        *rows,
        row(labels, "quality", "gold_agreement", agreed, counts[0], unit=PROBABILITY, null=None,
            note=f"all rotations together; chance is {1 / slots:.3f}"),
        row(labels, "quality", "gold_log_odds", slope, counts[0], unit=f"{LOG_ODDS} per unit of gold",
            note="gold's best against the others; gold's errors pull it towards 0"),
    ]  # fmt: skip


def _shares(scored: pd.DataFrame, slots: int) -> Floats:
    hard: Floats = np.eye(slots)[scored["picked"].to_numpy(dtype=np.intp)]
    named = [f"p_{slot + 1}" for slot in range(slots)]
    if not set(named) <= set(scored.columns):
        return hard
    soft = scored[named].to_numpy(dtype=np.float64)
    return np.asarray(np.where(np.isnan(soft).any(axis=1, keepdims=True), hard, soft))


def _features(
    scored: pd.DataFrame, slots: int, texts: pd.DataFrame, names: Sequence[str], spread: Mapping[str, float]
) -> Floats:
    """(n, slots, features) in their units."""
    units = np.array([1.0 if name == "length" else spread[name] for name in names])
    known = texts.drop_duplicates(["item_id", "candidate_id"])
    by_slot = []
    for slot in range(slots):
        left = scored[["item_id", f"candidate_{slot + 1}"]].set_axis(["item_id", "candidate_id"], axis=1)
        values = left.merge(known, on=["item_id", "candidate_id"], how="left")[list(names)]
        by_slot.append(values.to_numpy(dtype=np.float64) / units)
    return np.stack(by_slot, axis=1)


def _fit(
    names: Sequence[str], x: Floats, share: Floats, items: NDArray[np.intp], gold: Floats | None = None
) -> ChoiceFit | Undefined:
    if not len(x):
        return Undefined("no choice has a verdict")
    n, slots = x.shape[:2]
    differs = np.ptp(x, axis=1) > 0
    kept = [
        j for j, name in enumerate(names)
        if len(np.unique(items[differs[:, j]])) >= (1 if name == "length" else FEWEST_ITEMS)
    ]  # fmt: skip
    places = np.broadcast_to(np.eye(slots)[:, 1:], (n, slots, slots - 1))
    columns, used = [places, x[:, :, kept]], [*(f"slot_{j + 1}" for j in range(1, slots)), *(names[j] for j in kept)]
    if gold is not None:
        columns, used = [*columns, gold[:, :, None]], [*used, "gold"]
    return fit_choices(used, np.concatenate(columns, axis=2), share, items)
