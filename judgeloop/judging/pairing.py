"""Matchups of candidates, their presentations in both orders with their names in calls and draws, and the table rows of
judgments and candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from judgeloop.records import (
    CANDIDATE_COLUMNS,
    JUDGMENT_COLUMNS,
    ORDERS,
    Candidate,
    Item,
    Judgment,
    Matchup,
    Panel,
    Presentation,
)
from judgeloop.seeds import Label
from judgeloop.text.features import features_frame
from judgeloop.text.matching import gold_of


def matchups(
    item_id: str, candidates: Sequence[Candidate], limit: int | None = None, rng: np.random.Generator | None = None
) -> list[Matchup]:
    """All pairs of an item's K candidates in stable order, or ``limit`` of them drawn without replacement.

    ``pair_id`` is m00, m01 … by place among all K(K−1)/2 pairs, so that the names do not depend on the limit. ``a`` is the candidate
    drawn earlier. The same candidate may be twice among the K (draws with replacement): the pair then shows identical
    texts. Raises ValueError if a limit below the number of pairs comes without ``rng``.
    """
    pairs = [Matchup(item_id, f"m{index:02d}", a, b) for index, (a, b) in enumerate(combinations(candidates, 2))]
    if limit is None or limit >= len(pairs):
        return pairs
    if rng is None:
        raise ValueError("a limited number of matchups needs a random stream")
    indices = rng.choice(len(pairs), size=limit, replace=False)
    return [pairs[index] for index in sorted(indices.tolist())]


def presentations(pairs: Sequence[Matchup], repeats: int = 1) -> list[Presentation]:
    """Every matchup in both orders, each ``repeats`` times: matchup by matchup, ab before ba."""
    return [Presentation(matchup, order, repeat) for matchup in pairs for order in ORDERS for repeat in range(repeats)]


def quoted(name: str) -> str:
    """A name as one segment of a call id."""
    return quote(name, safe="._-")


def call_id(prefix: str, presentation: Presentation) -> str:
    """The id of the call that judges a presentation: ``prefix/item/pair/order/r<repeat>``."""
    matchup = presentation.matchup
    return f"{prefix}/{quoted(matchup.item_id)}/{quoted(matchup.pair_id)}/{presentation.order}/r{presentation.repeat}"


def draw_labels(presentation: Presentation) -> tuple[Label, ...]:
    """The labels of a presentation in a random stream."""
    return presentation.matchup.item_id, presentation.matchup.pair_id, presentation.order, presentation.repeat


def judgments_frame(
    judgments: Iterable[Judgment],
    items: Mapping[str, Item],
    correct: Callable[[Item, Candidate], bool | None],
    *,
    panel: Panel,
    generation: int,
    replicate: int | None = None,
    arm: str = "",
) -> pd.DataFrame:
    """One row a judgment, in the order given, with the columns of docs/contract.md, "Tables"; ``label_mass`` where some verdict
    was read from log-probabilities, ``said`` where some reply is unscored.

    ``correct`` says whether a candidate matches its item's reference (None: not known); ``gold`` follows from it.
    """
    rows, masses, said = [], [], []
    for judgment in judgments:
        presentation, matchup = judgment.presentation, judgment.presentation.matchup
        item, verdict = items[matchup.item_id], judgment.verdict
        masses.append(verdict.mass)
        said.append(verdict.said)
        truth = (correct(item, matchup.a), correct(item, matchup.b))
        rows.append(
            (
                replicate,
                arm,
                generation,
                panel,
                matchup.item_id,
                item.category,
                matchup.pair_id,
                judgment.judge,
                presentation.order,
                presentation.repeat,
                verdict.slot,
                verdict.p_first,
                verdict.reason,
                presentation.first.candidate_id,
                presentation.second.candidate_id,
                matchup.a.text == matchup.b.text,
                gold_of(truth[0], truth[1]) if None not in truth else "",
                judgment.call,
            )
        )
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(JUDGMENT_COLUMNS)
    made: dict[str, Any] = {name: list(values) for name, values in zip(JUDGMENT_COLUMNS, columns, strict=True)}
    made["replicate"] = pd.array(made["replicate"], dtype="Int64")
    made["p_first"] = np.array(made["p_first"], dtype="float64")
    made["identical"] = np.array(made["identical"], dtype="bool")
    frame = pd.DataFrame(made)
    if any(mass is not None for mass in masses):
        frame["label_mass"] = pd.Series(masses, dtype="float64")
    if any(said):
        frame["said"] = pd.Series(said, dtype="str")
    return frame


def candidates_frame(
    candidates: list[Candidate],
    failed: Mapping[tuple[str, str], str],
    items: Mapping[str, Item],
    correct: Callable[[Item, Candidate], bool | None],
    columns: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
) -> pd.DataFrame:
    """The candidates table: a row a text, then a row a failed draft (no text, a reason, no weight).

    ``failed``: (item_id, candidate_id) → reason. ``correct`` as in ``judgments_frame``. ``columns``: weights by column,
    item_id and candidate_id, 0 where there is none.
    """
    languages = [items[candidate.item_id].language for candidate in candidates]
    measured = features_frame([candidate.text for candidate in candidates], languages)
    matches = [correct(items[candidate.item_id], candidate) for candidate in candidates]
    # The columns of one frame, not columns put into one: each of these takes as long as a small table.
    made: dict[str, Any] = {
        "item_id": [candidate.item_id for candidate in candidates],
        "candidate_id": [candidate.candidate_id for candidate in candidates],
        "text": [candidate.text for candidate in candidates],
        **{str(name): column for name, column in measured.items()},
        "reason": pd.array([""] * len(candidates), dtype="str"),
    }
    for name, weights in (columns or {"n_drawn": {}}).items():
        made[name] = [weights.get(c.item_id, {}).get(c.candidate_id, 0) for c in candidates]
    if any(candidate.log_ratio is not None for candidate in candidates):
        made["log_ratio"] = np.array([candidate.log_ratio for candidate in candidates], dtype="float64")
    if any(candidate.cut is not None for candidate in candidates):
        made["cut"] = pd.array([candidate.cut for candidate in candidates], dtype="boolean")
    made["correct"] = [None if match is None else float(match) for match in matches]
    frame = pd.DataFrame(made)
    failed_rows = pd.DataFrame(
        [(i, c, why, 0) for (i, c), why in failed.items()], columns=["item_id", "candidate_id", "reason", "n_drawn"]
    )
    return pd.concat([frame, failed_rows], ignore_index=True) if len(failed_rows) else frame


def completed(frame: pd.DataFrame, *, replicate: int | None, arm: str, generation: int) -> pd.DataFrame:
    """The frame with all columns of docs/contract.md, "Tables", in order: labels, text, features, weights."""
    own = {"replicate": pd.array([replicate] * len(frame), dtype="Int64"), "arm": arm, "generation": generation}
    measured = [name for name in frame.columns if name not in CANDIDATE_COLUMNS]
    names = [*CANDIDATE_COLUMNS[:7], *measured, *CANDIDATE_COLUMNS[7:]]
    columns = {name: own.get(name, frame[name] if name in frame else float("nan")) for name in names}
    return pd.DataFrame(columns, index=frame.index)
