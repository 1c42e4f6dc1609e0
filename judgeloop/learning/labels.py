"""Label rules: picks become weighted preferences (chosen over rejected). Positive weight = evidence for the chosen.

A rule decides how strongly the judge's content slopes reach the signal (docs/method.md, "Label rules"), for independent
calls:

- ``raw`` (and ``length_controlled``, whose correction comes after the fit): slopes are unchanged, and so is the
  slot's effect, which the fit's order column takes up;
- ``swap_average``: the slot cancels exactly, slopes shrink by about sech²(γ/2);
- ``consistent_only``: the slot cancels, and every slope doubles (s(δ+γ)s(δ−γ) / (… + …) = s(2δ)).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.experiment.schema import LabelRule
from judgeloop.records import ORDERS, PREFERENCE_COLUMNS, UNKNOWN_ORDER
from judgeloop.stats.presentations import PICKED, PICKED_A

_MATCHUP = ["replicate", "arm", "generation", "item_id", "pair_id"]
_PRESENTATION = [*_MATCHUP, "order", "repeat"]
_HARD = {**PICKED, **PICKED_A}
"""The verdict's share for candidate_first, which is a where the order is unknown and the verdict by text."""


def preferences(judgments: pd.DataFrame, rule: LabelRule) -> pd.DataFrame:
    """The preferences that a label rule makes of policy-panel judgments: chosen, rejected, weight in (0, 1].

    judgments: JUDGMENT_COLUMNS, a row a presentation, of one or several replicates, arms and generations, one judge
        each. Unscored rows and matchups of identical texts are dropped: neither says which text is better.
    rule: raw and length_controlled give each presentation up to two rows (P(a) for a, 1 − P(a) for b; weight 0 is left
        out); swap_average gives each matchup scored in both orders up to two rows, by P(a) averaged within each order
        and then over the two; consistent_only gives one row of weight 1 to a matchup scored in both orders whose every
        presentation picks the same text (a tie and P = ½ are no pick).

    Returns PREFERENCE_COLUMNS, sorted by replicate, arm, generation, item, pair, order, repeat and chosen. ``order`` and
    ``candidate_first`` are empty, and ``repeat`` 0, where a row stands for a whole matchup.

    Raises ValueError for an unknown rule or verdict, a ``p_first`` outside [0, 1], two judgments of one presentation,
    or a pair_id that names more than one pair of candidates.
    """
    if rule not in ("raw", "swap_average", "consistent_only", "length_controlled"):
        raise ValueError(f"unknown label rule {rule!r}; known: raw, swap_average, consistent_only, length_controlled")
    columns, kinds, index = _presented(judgments)
    if rule not in ("raw", "length_controlled"):
        table = _complete_matchups(_frame(columns, kinds, index), rule)
        columns = {str(name): column.values for name, column in table.items()}
        kinds = {str(name): column.dtype for name, column in table.items()}
    a, b, p_a = (columns[name] for name in ("a", "b", "p_a"))
    chosen, rejected = (
        np.concatenate([np.asarray(side, dtype=object) for side in sides]) for sides in ((a, b), (b, a))
    )
    weights = np.concatenate([p_a, 1.0 - p_a])
    keys = (_ordered(chosen), *(np.tile(_ordered(columns[name]), 2) for name in ("repeat", "order", "matchup")))
    places = np.lexsort(keys)
    places = places[weights[places] > 0.0]
    rows = places % max(len(p_a), 1)
    text: Any = kinds["a"]  # of texts: object or string
    made = {
        "chosen": pd.Series(chosen[places], dtype=text), "rejected": pd.Series(rejected[places], dtype=text),
        "weight": weights[places], "label_rule": rule,
    }  # fmt: skip
    taken = {name: pd.Series(columns[name][rows], dtype=kinds[name]) for name in PREFERENCE_COLUMNS if name not in made}
    return pd.DataFrame({name: (made | taken)[name] for name in PREFERENCE_COLUMNS}, index=range(len(rows)))


def presentations(judgments: pd.DataFrame) -> pd.DataFrame:
    """P(a) of every scored presentation of two different texts: the candidates ``a``, ``b``, ``p_a`` in [0, 1], and the
    number of its ``matchup``, 0 … M − 1 in the order of replicate, arm, generation, item and pair.

    ``p_first`` where it is finite, else 1, ½, 0 for the verdicts first, tie, second; turned round where the order is ba.
    Raises ValueError as ``preferences`` does.
    """
    return _frame(*_presented(judgments))


def _frame(columns: dict[str, Any], kinds: dict[str, Any], index: pd.Index[Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series(column, index=index, dtype=kinds[name]) for name, column in columns.items()}, index=index
    )


def _presented(judgments: pd.DataFrame) -> tuple[dict[str, Any], dict[str, Any], pd.Index[Any]]:
    """The columns of ``presentations`` as arrays, their dtypes, and the rows' index: a table of its own would take as long as
    all that is computed of a generation's."""
    first, second = judgments["candidate_first"], judgments["candidate_second"]
    different = ~judgments["identical"].astype(bool) & (first != second)
    counted = (different & (judgments["verdict"] != "unscored")).to_numpy(dtype=np.bool_)
    # Each column once, as an array: pandas takes longer to hand a column over than to work on one of a generation's length.
    values: dict[str, Any] = {
        name: judgments[name].values[counted]
        for name in (*_PRESENTATION, "candidate_first", "candidate_second", "verdict", "p_first")
    }
    verdicts, orders = values["verdict"].tolist(), values["order"].tolist()
    hard = np.array([_HARD.get(verdict, np.nan) for verdict in verdicts], dtype=np.float64)
    if np.isnan(hard).any():
        raise ValueError(f"unknown verdict {verdicts[int(np.isnan(hard).argmax())]!r}")
    if not {*ORDERS, UNKNOWN_ORDER}.issuperset(orders):
        raise ValueError("every presentation has the order ab, ba or unknown")
    # The rows of a panel, whose replicate is missing, are a matchup too.
    matchup = np.zeros(len(hard), dtype=np.intp)
    for name in _MATCHUP:
        codes = _ordered(values[name])
        matchup = np.unique(matchup * (codes.max(initial=0) + 1) + codes, return_inverse=True)[1]
    forward = np.array([order != "ba" for order in orders], dtype=np.bool_)

    def named(row: int, names: list[str]) -> dict[str, object]:
        return {name: values[name][row] for name in names}

    shown = (matchup * 3 + _ordered(values["order"])) * (len(hard) + 1) + _ordered(values["repeat"])
    if len(np.unique(shown)) < len(hard):
        twice = int(pd.Series(shown).duplicated().to_numpy().argmax())
        raise ValueError(f"two judgments of one presentation: {named(twice, _PRESENTATION)}")
    soft = pd.to_numeric(pd.Series(values["p_first"])).to_numpy(dtype=np.float64, na_value=np.nan)
    p_first = np.where(np.isfinite(soft), soft, hard)
    outside = ~((p_first >= 0.0) & (p_first <= 1.0))
    if outside.any():
        raise ValueError(f"p_first must lie in [0, 1], not {p_first[outside][0]}")
    shown_first, shown_second = (np.asarray(values[f"candidate_{k}"], dtype=object) for k in ("first", "second"))
    a, b = np.where(forward, shown_first, shown_second), np.where(forward, shown_second, shown_first)
    first_row = _first_rows(matchup)[matchup]
    unclear = (a != a[first_row]) | (b != b[first_row])
    if unclear.any():
        raise ValueError(f"a pair_id must name one pair of candidates: {named(int(unclear.argmax()), _MATCHUP)}")
    columns: dict[str, Any] = {name: values[name] for name in (*_PRESENTATION, "candidate_first")}
    kinds = {name: judgments[name].dtype for name in columns} | dict.fromkeys("ab", first.dtype)
    columns |= {"a": a, "b": b, "p_a": np.where(forward, p_first, 1.0 - p_first), "matchup": matchup}
    return columns, kinds | {"p_a": np.dtype(np.float64), "matchup": matchup.dtype}, judgments.index[counted]


def _ordered(values: Any) -> NDArray[np.intp]:
    """(n,) the rank of each value among the different ones, from 0; missing values come last."""
    codes, words = pd.factorize(values, sort=True)
    return np.where(codes < 0, len(words), codes)


def _first_rows(codes: NDArray[Any]) -> NDArray[np.intp]:
    """(M,) the first row of each code 0 … M − 1."""
    return np.asarray(np.unique(codes, return_index=True)[1], dtype=np.intp)


def _complete_matchups(scored: pd.DataFrame, rule: LabelRule) -> pd.DataFrame:
    """A row a matchup that is scored in both orders: P(a) by the rule; under consistent_only, 1 or 0, or no row."""
    codes, p_a = scored["matchup"].to_numpy(), scored["p_a"].to_numpy()
    orders = scored["order"].to_numpy()
    complete = np.full(codes.max(initial=-1) + 1, True)
    means = np.zeros(len(complete))
    for rows in (orders == order for order in ORDERS):
        counts = np.bincount(codes[rows], minlength=len(complete))
        complete &= counts > 0
        means += np.bincount(codes[rows], weights=p_a[rows], minlength=len(complete)) / np.maximum(counts, 1)
    p_matchup = means / 2.0
    if rule == "consistent_only":
        for picked, value in ((p_a > 0.5, 1.0), (p_a < 0.5, 0.0)):
            p_matchup[
                np.bincount(codes[picked], minlength=len(complete)) == np.bincount(codes, minlength=len(complete))
            ] = value
        complete &= (p_matchup == 0.0) | (p_matchup == 1.0)
    table = scored.iloc[_first_rows(codes)].assign(p_a=p_matchup, order="", repeat=0, candidate_first="")
    return table[complete]
