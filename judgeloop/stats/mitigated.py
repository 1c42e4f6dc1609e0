"""What a mitigation makes of a judge's picks: the labels that a signal would be trained on.

A *mitigation* changes how verdicts become labels, or who gives them. Its labels come as preferences (chosen, rejected,
weight); here they are turned back into rows that the judge's own estimators take, so that labels and picks are measured
by the same code. P(a) of a label is positive evidence for candidate a.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from judgeloop.stats.presentations import not_identical

_PAIR = ["replicate", "arm", "generation", "item_id", "pair_id"]
_SHOWN = [*_PAIR, "panel", "order"]
_OF_A_PAIR = ("category", "gold", "gold_2", "len_a", "len_b", "model_a", "model_b")
_SLOTS = ("first", "second", "tie")


@dataclass(frozen=True, slots=True)
class Mitigation:
    """One mitigation's labels, of one judge on one set of pairs.

    ``preferences``: PREFERENCE_COLUMNS, as the label rules return them. ``judgments``: what they were made of, a row a
    presentation (the judge's own, a panel's majorities, the rubric's). ``calls``: how many were asked for them.
    ``zeroed``: features whose slope is set to 0 once the signal is fitted.
    """

    name: str
    preferences: pd.DataFrame
    judgments: pd.DataFrame
    calls: int
    zeroed: tuple[str, ...] = ()

    @property
    def pooled(self) -> bool:
        """Whether a label stands for a pair in both orders, so that it has no slot."""
        return bool(len(self.preferences)) and bool((self.preferences["order"] == "").all())

    def labels(self) -> pd.DataFrame:
        """A row a label in the columns of judgments: ``p_first`` is the label's P(first slot); pooled labels bear the
        order ab, so that first is a."""
        pairs = _pairs(self.judgments)
        keys = [*_PAIR, "order", "repeat"]
        rows = _keyed(self.preferences).merge(pairs, on=_PAIR, how="left")
        weight = rows["weight"].astype("float64")
        for_a = weight.where(rows["chosen"] == rows["a"], 0.0)
        sums = rows[keys].assign(for_a=for_a, weight=weight).groupby(keys, dropna=False, sort=True).sum().reset_index()
        found = sums.merge(pairs, on=_PAIR, how="left")
        p_a = (found["for_a"] / found["weight"]).astype("float64")
        backward = found["order"] == "ba"
        return found.drop(columns=["for_a", "weight", "a", "b"]).assign(
            order=found["order"].where(backward, "ab"),
            verdict="tie",
            p_first=p_a.where(~backward, 1.0 - p_a),
            candidate_first=found["a"].where(~backward, found["b"]),
            candidate_second=found["b"].where(~backward, found["a"]),
            identical=False,
        )


def _pairs(judgments: pd.DataFrame) -> pd.DataFrame:
    """A row a pair of different texts: its candidates ``a``, ``b`` by name, and what is known of it."""
    shown = _keyed(not_identical(judgments))
    forward = shown["order"] == "ab"
    known = [column for column in _OF_A_PAIR if column in shown]
    return (
        shown[[*_PAIR, *known]]
        .assign(
            a=shown["candidate_first"].where(forward, shown["candidate_second"]),
            b=shown["candidate_second"].where(forward, shown["candidate_first"]),
        )
        .drop_duplicates(_PAIR)
    )


def pairs_asked(judgments: pd.DataFrame) -> pd.DataFrame:
    """The keys of every pair of different texts that was judged, whether or not it got a verdict."""
    return _keyed(not_identical(judgments))[_PAIR].drop_duplicates(ignore_index=True)


def _keyed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with keys of one kind each, whether or not all of them are empty: only such keys can be joined on."""
    return frame.assign(**{name: frame[name].astype("Int64") for name in ("replicate", "generation")})


def labelled(labels: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(n,) 1 where that pair has a label, else 0."""
    marked = _keyed(labels)[_PAIR].drop_duplicates().assign(has=1.0)
    return np.asarray(pairs.merge(marked, on=_PAIR, how="left")["has"].fillna(0.0), dtype=np.float64)


def majority(judgments: pd.DataFrame, name: str) -> pd.DataFrame:
    """One judgment a presentation: the slot most often said by all judges and repeats that gave a verdict; a tie where no
    single slot is (as in ``judging.PanelJudge``), unscored where none gave one. ``judge`` becomes ``name``.
    """
    judgments = _keyed(judgments)
    shown = [column for column in _SHOWN if column in judgments]
    votes = pd.DataFrame({slot: (judgments["verdict"] == slot).astype("float64") for slot in _SLOTS})
    counts = pd.concat([judgments[shown], votes], axis=1).groupby(shown, dropna=False, sort=False).sum().reset_index()
    table = counts[list(_SLOTS)].to_numpy()
    most = table.max(axis=1)
    single = (table == most[:, None]).sum(axis=1) == 1
    slot = np.where(single, np.array(_SLOTS)[table.argmax(axis=1)], "tie")
    verdict = np.where(most > 0, slot, "unscored")
    rest = judgments.drop_duplicates(shown).drop(columns=["verdict"])
    return counts[shown].assign(verdict=verdict).merge(rest, on=shown, how="left").assign(
        judge=name, repeat=0, p_first=np.nan
    )  # fmt: skip
