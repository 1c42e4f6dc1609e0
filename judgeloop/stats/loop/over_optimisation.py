"""Over-optimisation: what was learned from the judge rises while what is right falls (docs/method.md, "Over-optimisation").

The *proxy* is an arm's reward of generation 0, held fixed: a pool text's own reward (fitted, or the judge's score), else the
signal's slopes on the features, else the feature that a rule looks at. It is in SDs of the generation-0 candidates of its
replicate. *Gold* is ``correct``. Both are of the items with a reference, beyond a control arm, one number a replicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.design import ArmDesign, Design
from judgeloop.stats.estimate import PROBABILITY, Estimate, estimate_row, replicate_mean
from judgeloop.stats.inference import Interval, Undefined, fieller
from judgeloop.stats.loop.replicates import (
    MeasuredCandidates,
    Quantity,
    Series,
    by_replicate,
    item_means,
    replicate_means,
    unrounded,
)

Floats = NDArray[np.float64]

FEWEST_LEVELS = 5
"""Fewest distances above 0 for a fit of Gao's curves."""
_TEXT = ["replicate", "item_id", "candidate_id"]
_NO_PROXY = "the arm's signal is no reward that stays the same from one generation to the next"
_PER_SD = "probability per sd of reward"
_PER_DISTANCE = "probability per square root of a nat"


def over_optimisation_estimates(
    measured: MeasuredCandidates, correct: Series | None, design: Design, slopes: Mapping[str, pd.DataFrame | None], kl: pd.DataFrame
) -> list[Estimate]:  # fmt: skip
    """Rows ``proxy_gain`` and ``correct_per_proxy`` of every contrast and generation, Gao's ``gao_alpha_correct`` and
    ``gao_beta_correct``, and of pools the curves of the best of n.

    ``correct``: the quantity's series, None where no item has a reference. ``slopes``: arm → replicate × feature, the signal's at
    generation 0. ``kl``: (arm, generation) × replicate, nats.
    """
    if correct is None or correct.quantity.undefined or measured.rows.empty:
        return []
    rows: list[Estimate] = []
    last = design.generations
    for name, control in design.contrasts:
        arm = design.arm(name)
        labels: dict[str, Any] = {"scope": "policy", "bias": "quality", "arm": name, "contrast": control}
        texts = _with_proxy(measured.rows, arm, control, slopes.get(name))
        if isinstance(texts, Undefined):
            rows.append(estimate_row(texts, term="correct_per_proxy", generation=last, unit=_PER_SD, n_replicates=0, **labels))  # fmt: skip
            continue
        n_items = texts["item_id"].nunique()
        levels = by_replicate(replicate_means(item_means(texts, ["proxy"], "n_drawn"), ["proxy"]), "proxy")
        proxy = Series(Quantity("proxy", "", "quality", "generation-0 sd"), "", levels)
        for generation in range(1, last + 1):
            at = {**labels, "n_items": n_items, "generation": generation}
            rows += _gains(proxy, correct, at, is_last=generation == last)
        rows += _fits(arm, _loop_curve(correct, kl, design, name, control), {**labels, "n_items": n_items})
        # The best of n has no control: once an arm, whatever the number of its contrasts.
        if arm.policy_kind == "pool" and not any(row.arm == name and not row.contrast for row in rows):
            rows += _best_of_n(texts, arm, {**labels, "contrast": "", "n_items": n_items})
    return rows


def is_over_optimised(proxy: Floats, gold: Floats) -> bool:
    """Whether the proxy rose and gold fell, (replicates,) each: both 95 % intervals leave 0 out, so that it is said of no more
    than 2.5 % of the runs in which either does not hold (an intersection–union test)."""
    rise, fall = replicate_mean(proxy), replicate_mean(gold)
    return isinstance(rise, Interval) and isinstance(fall, Interval) and rise.low > 0 and fall.high < 0


def _with_proxy(rows: pd.DataFrame, arm: ArmDesign, control: str, slopes: pd.DataFrame | None) -> pd.DataFrame | Undefined:  # fmt: skip
    """The texts of the arm and its control for items with a reference, with the column ``proxy``."""
    texts = rows[rows["arm"].isin([arm.name, control]) & rows["correct"].notna()]
    # Where nothing is fitted the best of n goes by counts of picks, and a text that was not shown has none.
    counts_picks = arm.update == "best_of_n" and slopes is None
    reward = _reward_of_pool(texts, arm) if arm.policy_kind == "pool" and not counts_picks else None
    if reward is None and slopes is not None:
        weights = slopes.reindex(texts["replicate"]).to_numpy(dtype=np.float64)
        reward = np.asarray((weights * texts[list(slopes.columns)].to_numpy(dtype=np.float64)).sum(axis=1))
    if reward is None and arm.taste is not None:
        feature, sign = arm.taste
        reward = sign * texts[feature].to_numpy(dtype=np.float64)
    if reward is None:
        return Undefined(_NO_PROXY)
    texts = texts.assign(proxy=reward)
    zero = texts[(texts["arm"] == arm.name) & (texts["generation"] == 0) & (texts["n_drawn"] > 0)]
    spread = zero.groupby("replicate")["proxy"].std(ddof=0)
    unit = texts["replicate"].map(spread.where(spread > 0)).to_numpy(dtype=np.float64)
    return texts.assign(proxy=texts["proxy"] / unit)


def _reward_of_pool(texts: pd.DataFrame, arm: ArmDesign) -> Floats | None:
    """Every text's reward of generation 0; None where some that were drawn have none."""
    if "reward" not in texts:
        return None
    zero = texts[(texts["arm"] == arm.name) & (texts["generation"] == 0)].drop_duplicates(_TEXT).set_index(_TEXT)
    reward = pd.to_numeric(zero["reward"]).astype("float64").reindex(pd.MultiIndex.from_frame(texts[_TEXT])).to_numpy()
    missing = np.isnan(reward) & (texts["n_drawn"] > 0).to_numpy()
    return None if bool(missing.any()) else np.asarray(reward)


def _gains(proxy: Series, correct: Series, labels: Mapping[str, Any], *, is_last: bool) -> list[Estimate]:
    """The proxy's gain beyond the control, and what correctness gained for each of its SDs."""
    of_contrast = labels["arm"], labels["contrast"], labels["generation"]
    risen, right = proxy.did(*of_contrast), correct.did(*of_contrast)
    gain = replicate_mean(risen, "no replicate has the reward of its generation 0", tested=False)
    both = risen.index.intersection(right.index)
    up, gold = np.asarray(risen[both], dtype=np.float64), np.asarray(right[both], dtype=np.float64)
    ratio = fieller(gold, up) if len(both) else Undefined("no replicate has both")
    if isinstance(ratio, Undefined) and isinstance(gain, Interval) and gain.covers(0.0):
        ratio = Undefined("the 95 % interval of the reward's gain covers 0, so a ratio to it means nothing")
    if isinstance(ratio, Interval):
        ratio = replace(ratio, method="Fieller t over replicates", p_value=None)
    per = estimate_row(
        ratio, null=None, term="correct_per_proxy", unit=_PER_SD, n=len(both), n_replicates=len(both), **labels
    )
    return [
        estimate_row(gain, null=None, term="proxy_gain", unit="generation-0 sd", n=len(risen), n_replicates=len(risen), **labels),
        replace(per, verdict="over-optimised") if is_last and per.status == "ok" and is_over_optimised(up, gold) else per,
    ]  # fmt: skip


# Gao's curves of gold against the distance √KL: d(α − βd) for the best of n, d(α − β ln d) for reinforcement learning.


def fit(distance: Floats, gain: Floats, *, best_of_n: bool) -> tuple[float, float] | None:
    """(α, β) by least squares over the levels (L,) with distance above 0; None with fewer than FEWEST_LEVELS of them."""
    kept = np.isfinite(distance) & np.isfinite(gain) & (distance > 1e-9)
    d, y = distance[kept], gain[kept]
    if len(np.unique(d)) < FEWEST_LEVELS:
        return None
    bend = d if best_of_n else np.log(d)
    (alpha, beta), *_ = np.linalg.lstsq(np.column_stack([d, -d * bend]), y, rcond=None)
    return float(alpha), float(beta)


def _loop_curve(
    correct: Series, kl: pd.DataFrame, design: Design, arm: str, control: str
) -> list[tuple[Floats, Floats]]:
    """(√KL, gain in gold) of a loop by generation, a pair of arrays (T,) a replicate."""
    steps = range(1, design.generations + 1)
    if arm not in kl.index.get_level_values(0):
        return []
    gains = pd.DataFrame({t: correct.did(arm, control, t) for t in steps})
    distances = kl.loc[arm].reindex(list(steps)).T.clip(lower=0.0) ** 0.5
    both = gains.index.intersection(distances.index)
    return [(distances.loc[r].to_numpy(dtype=np.float64), gains.loc[r].to_numpy(dtype=np.float64)) for r in both]


def _fits(
    arm: ArmDesign, curves: Sequence[tuple[Floats, Floats]], labels: Mapping[str, Any], variant: str = ""
) -> list[Estimate]:
    """The means over replicates of their fits; no row where none has levels enough."""
    best = bool(variant) or arm.update == "best_of_n"
    fitted = [pair for d, gain in curves if (pair := fit(d, gain, best_of_n=best)) is not None]
    if not fitted:
        return []
    form = "d(α − βd)" if best else "d(α − β ln d)"
    return [
        estimate_row(
            replicate_mean(np.array(values), tested=False), null=None, term=f"gao_{name}_correct", variant=variant, unit=_PER_DISTANCE, n=len(values),
            n_replicates=len(values), note=f"gold {form}, d = √KL, least squares in each replicate", **labels,
        )
        for name, values in zip(("alpha", "beta"), zip(*fitted, strict=True), strict=True)
    ]  # fmt: skip


# The best of n of a pool, before any feedback.


def best_of_n_weights(item: NDArray[np.intp], reward: Floats, n: int) -> Floats:
    """(texts,) the probability that each text is the best of n of its item's, drawn without replacement; texts of equal reward
    share theirs.

    ``item`` (texts,): codes 0, 1 … The mean of a quantity under these weights is the unbiased estimate of its mean over bests
    of n. n is at most the number of texts of every item.
    """
    order = np.lexsort((reward, item))
    of_item, ascending = item[order], reward[order]
    size = np.bincount(item)
    place = np.arange(len(item)) - (np.cumsum(size) - size)[of_item]

    def all_below(count: NDArray[np.intp]) -> Floats:
        """C(count, n) / C(size, n): the probability that all n are among the ``count`` lowest."""
        share = np.ones(len(count))
        for k in range(n):
            share = share * np.maximum(count - k, 0) / (size[of_item] - k)
        return share

    weights = all_below(place + 1) - all_below(place)
    is_new = np.r_[True, (np.diff(of_item) != 0) | (np.diff(ascending) != 0)]
    equals = np.cumsum(is_new) - 1
    shared = np.empty(len(item))
    shared[order] = (np.bincount(equals, weights=weights) / np.bincount(equals))[equals]
    return shared


def _best_of_n(texts: pd.DataFrame, arm: ArmDesign, labels: Mapping[str, Any]) -> list[Estimate]:
    """Rows ``best_of_n_<quantity>`` and ``best_of_n_kl``, variants ``n=2``, ``n=4`` …: what the best of n by the proxy has more
    than a single draft, and its distance; and Gao's fit of gold to them."""
    pool = texts[(texts["arm"] == arm.name) & (texts["generation"] == 0) & texts["proxy"].notna()]
    groups = pool.groupby(["replicate", "item_id"], sort=True)
    item = np.asarray(groups.ngroup(), dtype=np.intp)
    size = np.bincount(item)
    if len(size) == 0 or size.min() < 2:
        return []
    replicate = pool["replicate"].groupby(item).first().to_numpy()
    levels = [2**k for k in range(1, 20) if 2**k <= size.min()]
    units = {"proxy": "generation-0 sd", "correct": PROBABILITY, "length": "doublings", "kl": "nats"}
    gained: dict[str, dict[int, Floats]] = {name: {} for name in units}
    for n in levels:
        weights = best_of_n_weights(item, pool["proxy"].to_numpy(dtype=np.float64), n)
        held = np.where(weights > 0, weights, 1.0)
        of_item = {"kl": np.bincount(item, weights=weights * np.log(held * size[item]))}
        for name in ("proxy", "correct", "length"):
            value = pool[name].to_numpy(dtype=np.float64)
            of_item[name] = np.bincount(item, weights=(weights - 1.0 / size[item]) * value)
        for name, values in of_item.items():
            gained[name][n] = unrounded(pd.Series(values).groupby(replicate).mean().to_numpy(dtype=np.float64))
    rows = [
        estimate_row(
            replicate_mean(gained[name][n], tested=False), null=None, term=f"best_of_n_{name}", variant=f"n={n}", generation=0,
            unit=unit, n=len(pool), n_replicates=len(gained[name][n]), **labels,
        )
        for name, unit in units.items() for n in levels
    ]  # fmt: skip
    distance, right = (np.array([gained[name][n] for n in levels]) for name in ("kl", "correct"))
    curves = [(np.sqrt(d), gain) for d, gain in zip(distance.T, right.T, strict=True)]
    return [*rows, *_fits(arm, curves, {**labels, "generation": 0}, variant="best_of_n")]
