"""What is compared: a judge, a mitigation or an arm, with all that the comparison reads of it. Computed from frames alone."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.loop.replicates import Series
from judgeloop.stats.pair_values import pair_values


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
