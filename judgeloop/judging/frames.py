"""Judgments and candidates as rows of the run folder's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from judgeloop.records import CANDIDATE_COLUMNS, JUDGMENT_COLUMNS, Candidate, Item, Judgment, Panel
from judgeloop.text.features import features_frame
from judgeloop.text.matching import gold_of


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
    """One row a judgment, in the order given, with the columns of docs/contract.md, "Tables".

    ``correct`` says whether a candidate matches its item's reference (None: not known); ``gold`` follows from it.
    """
    rows = []
    for judgment in judgments:
        presentation, matchup = judgment.presentation, judgment.presentation.matchup
        item, verdict = items[matchup.item_id], judgment.verdict
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
    frame = pd.DataFrame(rows, columns=list(JUDGMENT_COLUMNS))
    frame["replicate"] = frame["replicate"].astype("Int64")
    frame["p_first"] = frame["p_first"].astype("float64")
    frame["identical"] = frame["identical"].astype("bool")
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
    frame = features_frame([candidate.text for candidate in candidates], languages)
    frame.insert(0, "item_id", [candidate.item_id for candidate in candidates])
    frame.insert(1, "candidate_id", [candidate.candidate_id for candidate in candidates])
    frame.insert(2, "text", [candidate.text for candidate in candidates])
    frame["reason"] = ""
    for name, weights in (columns or {"n_drawn": {}}).items():
        frame[name] = [weights.get(c.item_id, {}).get(c.candidate_id, 0) for c in candidates]
    matches = [correct(items[candidate.item_id], candidate) for candidate in candidates]
    frame["correct"] = [None if match is None else float(match) for match in matches]
    failed_rows = pd.DataFrame(
        [(i, c, why, 0) for (i, c), why in failed.items()], columns=["item_id", "candidate_id", "reason", "n_drawn"]
    )
    return pd.concat([frame, failed_rows], ignore_index=True) if len(failed_rows) else frame


def completed(frame: pd.DataFrame, *, replicate: int | None, arm: str, generation: int) -> pd.DataFrame:
    """The frame with all columns of docs/contract.md, "Tables", in order: labels, text, features, weights."""
    frame = frame.assign(replicate=pd.array([replicate] * len(frame), dtype="Int64"), arm=arm, generation=generation)
    missing = {name: float("nan") for name in CANDIDATE_COLUMNS if name not in frame}
    measured = [name for name in frame.columns if name not in CANDIDATE_COLUMNS]
    return frame.assign(**missing)[[*CANDIDATE_COLUMNS[:7], *measured, *CANDIDATE_COLUMNS[7:]]]
