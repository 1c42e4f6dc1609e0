"""Texts by generation without any verdict: the outputs of one's own model at several checkpoints, one text a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.interchange.rows import TEXT_COLUMNS, Cells, Columns, Input, Row, named, raw_rows

_PLACES = ("generation", "step")
ROLLOUTS = ({"prompt": "input", "text": "output"}, {"prompt": "prompt", "text": "completion"})
"""judgeloop's column → that of the rollouts which a trainer logs: verl's (``trainer.rollout_data_dir``, a JSONL a step), and the completions of
TRL (``log_completions``, a Parquet file a logged step)."""
MOST_GENERATIONS = 6
"""Generations into which the steps of a training are put whose prompts change from step to step."""


@dataclass(frozen=True, slots=True)
class TextLog:
    """``texts``: ``replicate`` (0 where the file has none), ``arm`` ("texts" where it has none), ``generation`` (0 … T),
    ``item_id, candidate_id, text, language``, a row a text; ``items``: ``item_id, prompt, category``. ``controls``: the control
    arms; ``notes``: sentences on what was assumed."""

    texts: pd.DataFrame
    items: pd.DataFrame
    controls: tuple[str, ...]
    notes: tuple[str, ...]


def is_texts(row: Mapping[str, Any], columns: Columns) -> bool:
    """Whether a row is of texts by generation: it has a text and a generation or step, and no verdict."""
    names = set(columns.renamed(as_texts(row), TEXT_COLUMNS))
    return "text" in names and bool(names & set(_PLACES)) and "verdict" not in columns.renamed(row, ("verdict",))


def as_texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with judgeloop's names added where it is one of a trainer's rollouts."""
    names = next((names for names in ROLLOUTS if "step" in row and set(names.values()) <= set(row)), {})
    return {**row, **{name: _last_turn(row[own]) if name == "text" else row[own] for name, own in names.items()}}


def _last_turn(completion: Any) -> Any:
    """The text of a completion: its last turn's where it is a conversation."""
    turns = list(completion) if isinstance(completion, list | tuple | np.ndarray) else []
    if not turns:
        return completion
    return turns[-1].get("content") if isinstance(turns[-1], Mapping) else completion


def read_texts(source: Input | Sequence[Path], columns: Columns | None = None) -> TextLog:
    """The texts of a path (JSON Lines, CSV or Parquet) or several, "-" or a frame. Raises InvalidInput with file, row and
    column."""
    sources = source if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    rows = chain.from_iterable(raw_rows(each, "texts") for each in sources)
    return text_log(rows, named(sources[0], "texts"), columns or Columns())


def text_log(rows: Iterable[Row], name: str, columns: Columns) -> TextLog:
    """As ``read_texts``, from rows that are read already."""
    read: list[dict[str, Any]] = []
    items: dict[str, tuple[str, str, str]] = {}
    by_prompt: dict[str, str] = {}
    control_of: dict[str, tuple[bool, str]] = {}
    present: set[str] = set()
    for where, raw in rows:
        present.update(raw)
        cells = Cells(where, columns.renamed(as_texts(raw), TEXT_COLUMNS))
        text, prompt = cells.text("text"), cells.prompt() or ""
        if text is None:
            cells.required("text")
        item = cells.label("item_id") or (
            by_prompt.setdefault(prompt, f"prompt-{len(by_prompt) + 1}") if prompt else ""
        )
        if not item:
            raise cells.fault(
                "item_id", "is empty, and so is prompt: give one, to say which texts answer the same question"
            )
        known = items.setdefault(item, (prompt, cells.label("category"), where))
        if prompt and known[0] and known[0] != prompt:
            raise cells.fault("prompt", f"item_id {item!r} has another prompt at {known[2]}; one prompt an item_id")
        place = next((column for column in _PLACES if cells.cell(column) is not None), None)
        if place is None:
            raise cells.fault("generation", "is empty, and so is step: give one, 0 for the model before any training")
        arm, control = cells.label("arm", "texts"), cells.truth("control") or False
        stated, first = control_of.setdefault(arm, (control, where))
        if stated != control:
            raise cells.fault("control", f"arm {arm!r} says otherwise at {first}; an arm is a control or is none")
        read.append({
            "replicate": cells.whole("replicate"), "arm": arm, "place": cells.whole(place), "item_id": item, "text": text,
            "language": cells.label("language", "en"),
        })  # fmt: skip
    if not read:
        raise InvalidInput(f"{name}: no texts; give one a row: item_id or prompt, generation or step, text")
    absent = columns.missing(present)
    if absent is not None:
        raise InvalidInput(f"{columns.origin}: {absent}: no column {columns.sources[absent].column!r} in {name}")
    frame = pd.DataFrame(read)
    places = sorted(frame["place"].unique())
    if len(places) < 2:
        raise InvalidInput(f"{name}: all texts are of generation or step {places[0]}; a change takes two or more")
    generations, notes = _generations(frame, places, "step" in present and "generation" not in present)
    frame["replicate"] = frame["replicate"].astype("Int64").fillna(0)
    frame["generation"] = frame["place"].map(generations)
    cell = ["replicate", "arm", "generation", "item_id"]
    frame["candidate_id"] = "g" + frame["generation"].astype(str) + "k" + frame.groupby(cell).cumcount().astype(str)
    table = [(item, prompt, category) for item, (prompt, category, _) in items.items()]
    controls = tuple(arm for arm, (control, _) in control_of.items() if control)
    if len(controls) == len(control_of):
        raise InvalidInput(
            f"{name}: control: every arm is a control; leave it empty in the arm that is to be explained"
        )
    return TextLog(
        frame.drop(columns="place")[[*cell, "candidate_id", "text", "language"]],
        pd.DataFrame(table, columns=["item_id", "prompt", "category"]), controls, tuple(notes),
    )  # fmt: skip


def _generations(texts: pd.DataFrame, places: Sequence[int], steps: bool) -> tuple[dict[int, int], list[str]]:
    """(the file's generation or step → generation 0 … T, sentences on what was assumed).

    Steps of a training are put together, MOST_GENERATIONS parts of equally many in a row, where they are more and most prompts
    stand in fewer than half of them.
    """
    number = {place: rank for rank, place in enumerate(places)}
    common = texts.groupby("item_id")["place"].nunique()
    if steps and len(places) > MOST_GENERATIONS and float((common * 2 >= len(places)).mean()) < 0.5:
        parts = {place: rank * MOST_GENERATIONS // len(places) for place, rank in number.items()}
        spans = [[place for place in places if parts[place] == part] for part in range(MOST_GENERATIONS)]
        named_spans = ", ".join(f"{span[0]} to {span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)
        return parts, [
            f"prompts change from step to step: the {len(places)} steps are put into {MOST_GENERATIONS} generations of equally many, {named_spans}"
        ]
    if list(places) == list(range(len(places))):
        return number, []
    return number, [f"generations {', '.join(map(str, number.values()))} are the file's {', '.join(map(str, places))}"]
