"""A sample of one cell of the coverage grid, and its intervals computed in two ways: from arrays, and from users' tables.

The arrays go to the estimators' inner functions without data frames, fast enough for 2,000 replications a cell. The tables
are made once a cell, and the study fails a term where the two ways differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, bounded_mean
from judgeloop.stats.judge.content import content_estimates
from judgeloop.stats.judge.covariates import Covariates
from judgeloop.stats.judge.ordered_models import fit_latent
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.judge.probes import probe_estimates
from judgeloop.stats.judge.self_preference import following_difference, self_preference_gold
from judgeloop.stats.judge.slopes import Slopes, average_effect, fit_slopes
from judgeloop.stats.rows import Labels
from judgeloop.validate.worlds import SLOTS, Floats, Verdicts, judged, logistic, pair_table, picks, texts

BOLD, KAPPA, RHO, ITEM_SD, DOSE = 0.2, 1.0, 0.3, 0.5, 1.5
LATENT = {"length": 0.4, "sd": 1.0}
OWN = "planted"
_SCALES = {"bold": 1.0}
_PICKED = dict(zip(SLOTS, (1.0, 0.0, 0.5, math.nan), strict=True))

Orders = dict[str, Verdicts]
"""``ab`` and ``ba`` → (items,) verdicts by slot."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One drawn sample: arrays with a value an item, and the verdicts on the items' pairs in both orders.

    ``length, bold, gold`` are differences a − b, in SDs. ``side``: 1 where candidate a is the judge's own text, −1 where b is.
    ``latent``: (length, bold, golds by name, verdicts) of the pairs with two golds.
    """

    length: Floats
    bold: Floats
    gold: Floats
    verdicts: Orders
    probe: Orders
    side: Floats
    own_gold: Floats
    own: Orders
    latent: tuple[Floats, Floats, dict[str, NDArray[np.str_]], Orders] | None


def draw(
    position: float, slope: float, items: int, unscored: float, ties: float, generator: np.random.Generator,
    *, two_golds: bool,
) -> Sample:  # fmt: skip
    """One sample of a judge with ``position`` γ and ``slope`` β per doubling, from one stream in a fixed order."""

    def both_orders(content: Floats) -> Orders:
        return {
            order: picks(position + sign * content, generator, tie=ties, unscored=unscored)
            for order, sign in (("ab", 1.0), ("ba", -1.0))
        }

    length, bold, residual = generator.standard_normal((3, items))
    gold = RHO * length + math.sqrt(1.0 - RHO**2) * residual
    verdicts = both_orders(slope * length + BOLD * bold + KAPPA * gold)
    # Candidate b is the edit, candidate a the original; the effect of the edit varies by item.
    probe = both_orders(-(slope * math.log2(DOSE) + ITEM_SD * generator.standard_normal(items)))
    # β is here the log-odds for the judge's own text, which is a in half of the items.
    side = np.where(np.arange(items) % 2 == 0, 1.0, -1.0)
    own_gold = generator.standard_normal(items)
    own = both_orders(slope * side + KAPPA * own_gold)
    latent = None
    if two_golds:
        long, marked, unseen = generator.standard_normal((3, items))
        quality = LATENT["length"] * long + LATENT["sd"] * unseen
        golds = {name: np.where(generator.random(items) < logistic(quality), "a", "b") for name in ("gold", "gold_2")}
        latent = long, marked, golds, both_orders(slope * long + BOLD * marked + KAPPA * quality)
    return Sample(length, bold, gold, verdicts, probe, side, own_gold, own, latent)


def by_arrays(sample: Sample) -> dict[str, Interval | Undefined | Slopes]:
    """Intervals by term; under ``model`` the content model, for its joint test."""
    rows = _covariates(sample.length, sample.bold, sample.gold, None, sample.verdicts)
    model = fit_slopes(rows, rows.gold)
    intervals: dict[str, Interval | Undefined | Slopes] = {
        "model": model,
        "length_ame": model if isinstance(model, Undefined) else average_effect(model, "length"),
        "first_slot_excess": _mean(*_excess_of_half(sample.verdicts, 1.0)),
        "padding_probe": _mean(*_excess_of_half(sample.probe, -1.0)),
        "self_preference_gold": _self_preference_interval(sample),
    }
    if sample.latent is not None:
        length, bold, golds, verdicts = sample.latent
        signs = {name: np.where(gold == "a", 1.0, -1.0) for name, gold in golds.items()}
        latent = fit_latent(_covariates(length, bold, signs["gold"], signs["gold_2"], verdicts))
        length_ame = latent if isinstance(latent, Undefined) else latent.average_effect("length")
        intervals["length_ame (two golds)"] = length_ame
    return intervals


def by_tables(sample: Sample) -> dict[str, tuple[float | None, float | None]]:
    """Limits by term (F and p under ``style_joint``), as the functions behind ``audit`` and ``analyze`` report them."""
    table = pair_table(len(sample.length))
    judgments = judged(table, sample.verdicts, columns={"gold": sample.gold})
    features = texts(table, *({"length": s * sample.length / 2, "bold": s * sample.bold / 2} for s in (1.0, -1.0)))
    probe = judged(table, sample.probe, columns={"panel": "probe", "probe": "padding", "dose": DOSE})
    generators = {
        "model_a": np.where(sample.side > 0, OWN, "other"), "model_b": np.where(sample.side > 0, "other", OWN),
    }  # fmt: skip
    own = judged(table, sample.own, columns={"gold": sample.own_gold, **generators})
    rows = [
        *position_estimates(judgments),
        *content_estimates(judgments, features, scales=_SCALES, gold_exact=True), *probe_estimates(probe),
        self_preference_gold(own, Labels(judge=OWN)),
    ]  # fmt: skip
    terms = ("first_slot_excess", "length_ame", "padding_probe", "self_preference_gold")
    limits = {row.term: _limits(row) for row in rows if row.term in terms and not row.variant}
    joint = next(row for row in rows if row.term == "style_joint" and not row.variant)
    limits["style_joint"] = joint.estimate, joint.p_value
    if sample.latent is not None:
        length, bold, golds, verdicts = sample.latent
        features = texts(table, *({"length": s * length / 2, "bold": s * bold / 2} for s in (1.0, -1.0)))
        latent_rows = content_estimates(judged(table, verdicts, columns=golds), features, scales=_SCALES)
        length_ame = next(row for row in latent_rows if row.term == "length_ame" and not row.variant)
        limits["length_ame (two golds)"] = _limits(length_ame)
    return limits


def _limits(row: Estimate) -> tuple[float | None, float | None]:
    return row.conf_low, row.conf_high


def _picked(verdicts: Verdicts) -> Floats:
    """(n,) picks of the first slot: 1 first, 0 second, ½ tie, NaN unscored."""
    return np.array([_PICKED[verdict] for verdict in verdicts])


def _excess_of_half(verdicts: Orders, sign: float) -> tuple[Floats, NDArray[np.intp]]:
    """(values, items) of the pairs with both verdicts: the share of picks of the first slot (sign +1) or of candidate b
    (−1), less ½."""
    ab, ba = _picked(verdicts["ab"]), _picked(verdicts["ba"])
    values = (ab + ba) / 2.0 - 0.5 if sign > 0 else ((1.0 - ab) + ba) / 2.0 - 0.5
    complete = ~np.isnan(values)
    return values[complete], np.flatnonzero(complete)


def _mean(values: Floats, items: NDArray[np.intp]) -> Interval | Undefined:
    return bounded_mean(values, items, -0.5, 0.5)


def _covariates(length: Floats, bold: Floats, gold: Floats, gold_2: Floats | None, verdicts: Orders) -> Covariates:
    count = len(length)
    ab, ba = _picked(verdicts["ab"]), _picked(verdicts["ba"])
    picked = np.concatenate([ab, 1.0 - ba])
    keep = ~np.isnan(picked)
    codes = np.tile(np.arange(count), 2)[keep]

    def in_both_orders(values: Floats) -> Floats:
        return np.asarray(np.tile(values, 2)[keep], dtype=np.float64)

    return Covariates(
        features=("length", "bold"), picked_a=picked[keep], order=np.repeat([1.0, -1.0], count)[keep],
        differences=np.stack([in_both_orders(length), in_both_orders(bold)], axis=1), gold=in_both_orders(gold),
        gold_2=np.full(len(codes), np.nan) if gold_2 is None else in_both_orders(gold_2), numeric_gold=gold_2 is None,
        items=codes, pairs=codes, ties=picked[keep] == 0.5, index=np.flatnonzero(keep), n_unscored=int((~keep).sum()),
        n_without_features=0,
    )  # fmt: skip


def _self_preference_interval(sample: Sample) -> Interval | Undefined:
    picked_a = (_picked(sample.own["ab"]) + 1.0 - _picked(sample.own["ba"])) / 2.0
    keep = ~np.isnan(picked_a)
    follows = np.where(sample.own_gold > 0, picked_a, 1.0 - picked_a)[keep]
    return following_difference((np.sign(sample.own_gold) == sample.side)[keep], follows, np.flatnonzero(keep))
