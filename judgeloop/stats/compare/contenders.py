"""Contenders: what a comparison compares. A contender is a judge, a mitigation of a judge, or an arm of a run.

This file holds what the comparison reads of one contender: its labels, its judgments with a key a pair and one number a
pair and term, its estimates, its replicate values and its cost. Two contenders side by side are in ``differences``.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from judgeloop.stats.estimate import UNSCORED_SHARE, Estimate
from judgeloop.stats.judge.covariates import covariates, gold_margin
from judgeloop.stats.loop.replicates import Series
from judgeloop.stats.presentations import (
    a_first,
    clusters,
    first_picked,
    in_known_order,
    is_soft,
    not_identical,
    only_identical,
    picked_a,
)

KEY = "pair_key"
"""Column that says which pair a judgment is of: equal keys in two folders are the same pair (``with_pair_keys``)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a contender's judgments: calls, tokens and US dollars, None where the folder does not record them.

    ``pairs``: the number of matchups judged (or of what ``per`` names instead), by which the cost a pair is divided.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    pairs: int = 0
    per: str = "pair"

    def a_pair(self) -> tuple[str, float] | None:
        """(unit, amount a judged pair): in dollars if known, else tokens, else calls; None where none is known."""
        if self.pairs:
            for unit, amount in (("USD", self.usd), ("tokens", self.tokens), ("calls", self.calls)):
                if amount:
                    return unit, amount / self.pairs
        return None


@dataclass(frozen=True)
class Contender:
    """A judge, a mitigation or an arm, with all that a comparison reads of it.

    - ``name``: the label that the pages show, unique; ``source``: the label of its folder
    - ``judgments``: of its judge on the panel that it is compared on, and on the probe panel, with ``pair_key``; ``texts``:
      the features of their texts, None where there are none
    - ``mitigation``: the name of the mitigation where one is compared; ``rows`` are then of its labels, ``judgments`` is empty
    - ``rows``: the folder's estimates of it
    - ``series``: quantity → replicate values, for an arm; ``control``: the arm that its ``did_`` terms subtract
    - ``first_texts``: replicate → hash of its generation-0 texts, which shows whether two arms shared random numbers
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
        """``pair_values`` of all its judgments, computed once."""
        return pair_values(self.judgments, self.texts)

    def primary(self, term: str) -> Estimate | None:
        """Its estimate of the term: primary variant, all categories; None where there is none with a number."""
        for row in self.rows:
            if row.term == term and row.variant == "" and row.category == "" and row.status != "undefined":
                return row if row.estimate is not None else None
        return None


def with_pair_keys(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> pd.DataFrame:
    """The judgments with the column ``pair_key``: item, pair, and the hashes of both texts where those are known.

    Equal keys mean the same pair: the same names, and the same texts. A probe's key holds its name and dose too.
    ``texts``: ``item_id, candidate_id, text``.
    """
    if judgments.empty:
        return judgments.assign(pair_key=pd.Series(dtype="str"))
    keys = judgments["item_id"].astype(str) + "\x1f" + judgments["pair_id"].astype(str)
    for column in ("probe", "dose"):
        # A table without probes has no such column; its pairs have the same keys.
        values = judgments[column].astype("object") if column in judgments else pd.Series("", index=judgments.index)
        keys = keys + "\x1f" + values.where(values.notna(), "").astype(str)
    if texts is not None and not texts.empty and "text" in texts:
        with_text = texts[texts["text"].notna()].drop_duplicates(["item_id", "candidate_id"])
        hashes = pd.Series(
            [hashlib.sha256(str(text).encode("utf-8", "replace")).hexdigest() for text in with_text["text"]],
            index=pd.MultiIndex.from_frame(with_text[["item_id", "candidate_id"]].astype(str)),
        )  # fmt: skip
        ab = a_first(judgments)
        for side, other in (("candidate_first", "candidate_second"), ("candidate_second", "candidate_first")):
            names = judgments[side].where(ab, judgments[other]).astype(str)
            text_keys = pd.MultiIndex.from_arrays([judgments["item_id"].astype(str), names])
            keys = keys + "\x1f" + pd.Series(hashes.reindex(text_keys).fillna("").to_numpy(), index=judgments.index)
    return judgments.assign(pair_key=keys)


def first_texts(candidates: pd.DataFrame, arm: str) -> dict[int, str]:
    """replicate → hash of the texts that the arm drew in generation 0, with their items."""
    if candidates.empty or "replicate" not in candidates:
        return {}
    zero = candidates[
        candidates["replicate"].notna() & (candidates["generation"] == 0) & (candidates["arm"] == arm)
        & (pd.to_numeric(candidates["n_drawn"]).fillna(0) > 0)
    ]  # fmt: skip
    hashes = {}
    for replicate, part in zero.groupby("replicate", sort=True):
        ordered = part.sort_values(["item_id", "candidate_id"], kind="stable")
        content = ordered[["item_id", "candidate_id", "n_drawn", "text"]].to_csv(index=False)
        hashes[int(float(str(replicate)))] = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
    return hashes


# One number a pair and term: what is subtracted where two contenders judged the same pairs.

RATES = (
    "first_slot_excess", "conflict_rate", "excess_conflict", "identical_pair_excess", "longer_preferred_raw",
    "gold_tied_longer_excess", "gold_agreement", UNSCORED_SHARE,
)  # fmt: skip
"""Terms that have a number a pair; so has every ``<probe>_probe``."""


def pair_values(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> dict[str, pd.Series[float]]:
    """Term → its values by ``pair_key``, as rates (0 to 1) or excesses over ½; terms without a value are absent.

    ``judgments`` with ``pair_key``; panel ``probe`` gives the ``<probe>_probe`` terms, the other panels the rest. ``texts``:
    the features of the texts, None where there are none.
    """
    is_probe = judgments["panel"] == "probe" if "panel" in judgments else pd.Series(False, index=judgments.index)
    plain, different = judgments[~is_probe], not_identical(judgments[~is_probe])
    by_term = {
        **_position_values(different),
        "identical_pair_excess": _identical_values(only_identical(plain)),
        **_content_values(different, texts),
        "gold_agreement": _agreement_values(different),
        UNSCORED_SHARE: (plain["verdict"] == "unscored").astype("float64").groupby(plain[KEY]).mean(),
        **_probe_values(judgments[is_probe]),
    }
    return {term: values.dropna() for term, values in by_term.items() if len(values.dropna())}


def items_of(judgments: pd.DataFrame) -> pd.Series[str]:
    """``pair_key`` → the cluster of the intervals: the item, or the first of its near-copies."""
    shown = judgments.drop_duplicates(KEY)
    return clusters(shown).astype(str).set_axis(shown[KEY])


def _orders(judgments: pd.DataFrame) -> pd.DataFrame:
    """Mean of ``first_picked`` by pair, with a column for each order (``ab``, ``ba``)."""
    picked = first_picked(judgments)
    return picked.groupby([judgments[KEY], judgments["order"]]).mean().unstack("order").reindex(columns=["ab", "ba"])


def _position_values(judgments: pd.DataFrame) -> dict[str, pd.Series[float]]:
    orders = _orders(judgments)
    values = {"first_slot_excess": (orders["ab"] + orders["ba"]) / 2.0 - 0.5}
    scored = judgments[judgments["verdict"] != "unscored"]
    repeat = scored["repeat"] if "repeat" in scored else pd.Series(0, index=scored.index)
    matched = scored.assign(repeat=repeat).drop_duplicates([KEY, "repeat", "order"])
    sides = (
        matched.set_index([KEY, "repeat", "order"])["verdict"].unstack("order").reindex(columns=["ab", "ba"]).dropna()
    )
    conflict = ((sides["ab"] == sides["ba"]) & (sides["ab"] != "tie")).astype("float64")
    values["conflict_rate"] = conflict.groupby(level=KEY).mean()
    gap = (orders["ab"] - (1.0 - orders["ba"])) ** 2
    if is_soft(judgments):
        values["excess_conflict"] = gap
    else:
        # Noise of the repeats adds to a squared difference; this takes it off (docs/method.md, excess_conflict).
        by_order = first_picked(judgments).groupby([judgments[KEY], judgments["order"]])
        noise = (by_order.var(ddof=1) / by_order.count()).unstack("order").reindex(columns=["ab", "ba"])
        values["excess_conflict"] = gap - noise["ab"] - noise["ba"]
    return values


def _identical_values(judgments: pd.DataFrame) -> pd.Series[float]:
    known = in_known_order(judgments)
    return (first_picked(known) - 0.5).groupby(known[KEY]).mean()


def _content_values(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> dict[str, pd.Series[float]]:
    rows = covariates(judgments, texts)
    length = rows.length
    if length is None:
        return {}
    frame = pd.DataFrame({
        KEY: judgments[KEY].to_numpy()[rows.index], "order": rows.order,
        "longer": np.where(length > 0, rows.picked_a, 1.0 - rows.picked_a), "tied": rows.gold == 0,
    })[length != 0]  # fmt: skip
    values = {"longer_preferred_raw": frame.groupby(KEY)["longer"].mean()}
    tied = frame[frame["tied"]]
    if len(tied):
        by_order = tied.groupby([KEY, "order"])["longer"].mean().unstack("order")
        if by_order.shape[1] == 2:
            values["gold_tied_longer_excess"] = by_order.mean(axis=1, skipna=False) - 0.5
    return values


def _agreement_values(judgments: pd.DataFrame) -> pd.Series[float]:
    if "gold" not in judgments:
        return pd.Series(dtype="float64")
    margin, _ = gold_margin(judgments["gold"])
    for_a = picked_a(judgments)
    agrees = np.where(margin > 0, for_a, 1.0 - for_a)
    agrees[np.isnan(margin) | (margin == 0)] = np.nan
    return pd.Series(agrees, index=judgments.index).groupby(judgments[KEY]).mean()


def _probe_values(judgments: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """The share of picks of the edit (candidate b) over both orders less ½, by pair; positive = the edit is preferred."""
    if judgments.empty or "probe" not in judgments:
        return {}
    values = {}
    for name, part in not_identical(judgments).groupby("probe", sort=True):
        orders = _orders(part)
        values[f"{name}_probe"] = ((1.0 - orders["ab"]) + orders["ba"]) / 2.0 - 0.5
    return values
