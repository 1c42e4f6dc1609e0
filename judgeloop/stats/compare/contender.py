"""What is compared: a judge, a mitigation or an arm, with all that the comparison reads of it. Computed from frames alone."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from judgeloop.stats.estimate import TERM as UNSCORED
from judgeloop.stats.estimate import Estimate, RowLabels
from judgeloop.stats.inference import Interval, Undefined, t_interval
from judgeloop.stats.judge.covariates import covariates, gold_margin
from judgeloop.stats.loop.replicates import Series
from judgeloop.stats.presentations import first_picked, is_soft, not_identical, only_identical

# One number a pair, term by term: what is subtracted where two judges judged the same pairs.

KEY = "pair_key"
RATES = (
    "first_slot_excess", "conflict_rate", "excess_conflict", "identical_pair_excess", "longer_preferred_raw",
    "gold_tied_longer_excess", "gold_agreement", UNSCORED,
)  # fmt: skip
"""The terms that have a number a pair, beside the probes."""


def pair_values(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> dict[str, pd.Series[float]]:
    """Term → values by ``pair_key``; a term that these judgments do not bear is absent. ``<probe>_probe`` from panel probe."""
    probes = judgments["panel"] == "probe" if "panel" in judgments else pd.Series(False, index=judgments.index)
    every, compared = judgments[~probes], not_identical(judgments[~probes])
    found = {
        **_position(compared),
        "identical_pair_excess": _identical(only_identical(every)),
        **_content(compared, texts),
        "gold_agreement": _agreement(compared),
        UNSCORED: (every["verdict"] == "unscored").astype("float64").groupby(every[KEY]).mean(),
        **_probes(judgments[probes]),
    }
    return {term: values.dropna() for term, values in found.items() if len(values.dropna())}


def items_of(judgments: pd.DataFrame) -> pd.Series[str]:
    """pair_key → item_id, the cluster."""
    return judgments.drop_duplicates(KEY).set_index(KEY)["item_id"].astype(str)


def _orders(judgments: pd.DataFrame) -> pd.DataFrame:
    """Mean of first_picked by pair, a column an order."""
    picked = first_picked(judgments)
    return picked.groupby([judgments[KEY], judgments["order"]]).mean().unstack("order").reindex(columns=["ab", "ba"])


def _position(judgments: pd.DataFrame) -> dict[str, pd.Series[float]]:
    orders = _orders(judgments)
    found = {"first_slot_excess": (orders["ab"] + orders["ba"]) / 2.0 - 0.5}
    scored = judgments[judgments["verdict"] != "unscored"]
    repeat = scored["repeat"] if "repeat" in scored else pd.Series(0, index=scored.index)
    matched = scored.assign(repeat=repeat).drop_duplicates([KEY, "repeat", "order"])
    sides = (
        matched.set_index([KEY, "repeat", "order"])["verdict"].unstack("order").reindex(columns=["ab", "ba"]).dropna()
    )
    conflict = ((sides["ab"] == sides["ba"]) & (sides["ab"] != "tie")).astype("float64")
    found["conflict_rate"] = conflict.groupby(level=KEY).mean()
    gap = (orders["ab"] - (1.0 - orders["ba"])) ** 2
    if is_soft(judgments):
        found["excess_conflict"] = gap
    else:
        # What repeats' noise adds to a squared difference, taken off (position.py, excess_conflict).
        by_order = first_picked(judgments).groupby([judgments[KEY], judgments["order"]])
        noise = (by_order.var(ddof=1) / by_order.count()).unstack("order").reindex(columns=["ab", "ba"])
        found["excess_conflict"] = gap - noise["ab"] - noise["ba"]
    return found


def _identical(judgments: pd.DataFrame) -> pd.Series[float]:
    return (first_picked(judgments) - 0.5).groupby(judgments[KEY]).mean()


def _content(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> dict[str, pd.Series[float]]:
    rows = covariates(judgments, texts)
    length = rows.length
    if length is None:
        return {}
    frame = pd.DataFrame({
        KEY: judgments[KEY].to_numpy()[rows.index], "order": rows.order,
        "longer": np.where(length > 0, rows.picked_a, 1.0 - rows.picked_a), "tied": rows.gold == 0,
    })[length != 0]  # fmt: skip
    found = {"longer_preferred_raw": frame.groupby(KEY)["longer"].mean()}
    tied = frame[frame["tied"]]
    if len(tied):
        by_order = tied.groupby([KEY, "order"])["longer"].mean().unstack("order")
        if by_order.shape[1] == 2:
            found["gold_tied_longer_excess"] = by_order.mean(axis=1, skipna=False) - 0.5
    return found


def _agreement(judgments: pd.DataFrame) -> pd.Series[float]:
    if "gold" not in judgments:
        return pd.Series(dtype="float64")
    margin, _ = gold_margin(judgments["gold"])
    picked = first_picked(judgments).to_numpy()
    a = np.where((judgments["order"] == "ab").to_numpy(), picked, 1.0 - picked)
    right = np.where(margin > 0, a, 1.0 - a)
    right[np.isnan(margin) | (margin == 0)] = np.nan
    return pd.Series(right, index=judgments.index).groupby(judgments[KEY]).mean()


def _probes(judgments: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Candidate b is the edit: how often it was picked beyond half, both orders."""
    if judgments.empty or "probe" not in judgments:
        return {}
    found = {}
    for name, some in not_identical(judgments).groupby("probe", sort=True):
        orders = _orders(some)
        found[f"{name}_probe"] = ((1.0 - orders["ab"]) + orders["ba"]) / 2.0 - 0.5
    return found


@dataclass(frozen=True, slots=True)
class Cost:
    """What the judgments cost: calls, tokens, US dollars; None where the folder does not say. ``pairs``: matchups judged,
    for a cost a pair; what else the cost is divided by, ``per`` names."""

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    pairs: int = 0
    per: str = "pair"

    def a_pair(self) -> tuple[str, float] | None:
        """(unit, amount a judged pair): dollars if known, else tokens, else calls; None where nothing is known."""
        if self.pairs:
            for unit, amount in (("USD", self.usd), ("tokens", self.tokens), ("calls", self.calls)):
                if amount:
                    return unit, amount / self.pairs
        return None


@dataclass(frozen=True)
class Contender:
    """One thing compared.

    ``name``: as shown, unique. ``source``: the folder's label. ``judgments``: its judge's on the panel that speaks for it,
    and its probes, with a column ``pair_key``. ``texts``: their features, None where there are none. ``rows``: the folder's
    estimates of it. ``series``: of an arm, by quantity; ``control`` the arm that its ``did_`` is against; ``first_texts``:
    replicate → hash of its generation-0 texts, so that common random numbers are seen and not believed. ``mitigation``: of the
    judge, where that is what is compared; its rows are then those of its labels, and no judgments stand here.
    """

    name: str
    source: str
    judge: str
    arm: str = ""
    mitigation: str = ""
    is_control: bool = False
    judgments: pd.DataFrame = field(default_factory=pd.DataFrame)
    texts: pd.DataFrame | None = None
    rows: tuple[Estimate, ...] = ()
    series: Mapping[str, Series] = field(default_factory=dict)
    generations: int = 0
    control: str = ""
    first_texts: Mapping[int, str] = field(default_factory=dict)
    seed: int | None = None
    cost: Cost = field(default_factory=Cost)

    @functools.cached_property
    def values(self) -> dict[str, pd.Series[float]]:
        """``pair_values`` of all its judgments: every comparison on the same pairs reads them."""
        return pair_values(self.judgments, self.texts)

    def primary(self, term: str) -> Estimate | None:
        """Its row of that term: primary variant, all categories; None where there is none with a number."""
        for row in self.rows:
            if row.term == term and row.variant == "" and row.category == "" and row.status != "undefined":
                return row if row.estimate is not None else None
        return None


def with_pair_keys(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> pd.DataFrame:
    """The judgments with ``pair_key``: item, pair, and the hashes of both texts where those are known.

    Two folders judged the same pair where the keys are equal: the same names, and the same texts behind them. A probe's
    key holds its name and dose too. ``texts``: ``item_id, candidate_id, text``.
    """
    if judgments.empty:
        return judgments.assign(pair_key=pd.Series(dtype="str"))
    keys = judgments["item_id"].astype(str) + "\x1f" + judgments["pair_id"].astype(str)
    for column in ("probe", "dose"):
        if column in judgments:
            keys = keys + "\x1f" + judgments[column].astype("object").where(judgments[column].notna(), "").astype(str)
    if texts is not None and not texts.empty and "text" in texts:
        known = texts[texts["text"].notna()].drop_duplicates(["item_id", "candidate_id"])
        hashes = pd.Series(
            [hashlib.sha256(str(text).encode("utf-8", "replace")).hexdigest() for text in known["text"]],
            index=pd.MultiIndex.from_frame(known[["item_id", "candidate_id"]].astype(str)),
        )  # fmt: skip
        ab = judgments["order"] == "ab"
        for side, other in (("candidate_first", "candidate_second"), ("candidate_second", "candidate_first")):
            names = judgments[side].where(ab, judgments[other]).astype(str)
            place = pd.MultiIndex.from_arrays([judgments["item_id"].astype(str), names])
            keys = keys + "\x1f" + pd.Series(hashes.reindex(place).fillna("").to_numpy(), index=judgments.index)
    return judgments.assign(pair_key=keys)


def first_texts(candidates: pd.DataFrame, arm: str) -> dict[int, str]:
    """replicate → hash of the arm's generation-0 texts, drawn ones, with their items."""
    if candidates.empty or "replicate" not in candidates:
        return {}
    zero = candidates[
        candidates["replicate"].notna() & (candidates["generation"] == 0) & (candidates["arm"] == arm)
        & (pd.to_numeric(candidates["n_drawn"]).fillna(0) > 0)
    ]  # fmt: skip
    found = {}
    for replicate, some in zero.groupby("replicate", sort=True):
        ordered = some.sort_values(["item_id", "candidate_id"], kind="stable")
        content = ordered[["item_id", "candidate_id", "n_drawn", "text"]].to_csv(index=False)
        found[int(float(str(replicate)))] = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
    return found


# A difference of two contenders, and that of two independent estimates.

Pairing = Literal["pairs", "replicates", "unpaired"]


@dataclass(frozen=True, slots=True)
class Difference:
    """``row``: the first's minus the second's (docs/contract.md, "Estimates"); ``first_estimate`` and
    ``second_estimate`` on what was compared (the shared pairs or replicates where ``pairing`` says so)."""

    first: str
    second: str
    pairing: Pairing
    first_estimate: float | None
    second_estimate: float | None
    row: Estimate


def shared_labels(first: Contender, second: Contender) -> RowLabels:
    """Judge and arm, where both have the same."""

    def both(name: str) -> str:
        one, other = getattr(first, name), getattr(second, name)
        return one if one == other else ""

    return RowLabels(both("judge"), both("arm"))


def independent(one: Estimate, other: Estimate) -> Interval | Undefined:
    """The difference of two independent estimates: Welch's t, or MOVER from their intervals where one has no spread."""
    if one.estimate is None or other.estimate is None:
        return Undefined("one of the two has no number")
    gap = one.estimate - other.estimate
    exact = [row.std_error == 0 and row.conf_low == row.conf_high == row.estimate for row in (one, other)]
    if any(exact) and not all(exact):  # a constant has no error of its own
        known = other if exact[0] else one
        if known.std_error:
            left = _freedom(known)
            return t_interval(gap, known.std_error, left if left > 0 else None, method="t, one of the two is exact")
    if one.std_error and other.std_error:
        se = math.hypot(one.std_error, other.std_error)
        freedom = [_freedom(one), _freedom(other)]
        df = None
        if min(freedom) > 0:
            df = se**4 / (one.std_error**4 / freedom[0] + other.std_error**4 / freedom[1])
        return t_interval(gap, se, df, method="independent samples, Welch t")
    limits = (one.conf_low, one.conf_high, other.conf_low, other.conf_high)
    if any(limit is None for limit in limits):
        return Undefined("one of the two has no interval")
    low_1, high_1, low_2, high_2 = (float(limit) for limit in limits)  # type: ignore[arg-type]
    below = math.hypot(one.estimate - low_1, high_2 - other.estimate)
    above = math.hypot(high_1 - one.estimate, other.estimate - low_2)
    return Interval(gap, 0.0, gap - below, gap + above, method="independent samples, MOVER")


def _freedom(row: Estimate) -> int:
    """Degrees of freedom: replicates, else items, else rows, less one."""
    return (row.n_replicates or row.n_items or row.n) - 1
