"""Verdict logs, one judgment a row joined to its pairs, as the judgments and texts that the statistics take.

``read_verdicts`` reads judgeloop's own form; ``read_log`` reads any tool's log, recognised by its content.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.errors import ExperimentError, InvalidInput
from judgeloop.experiment import inputs
from judgeloop.interchange import (
    alpaca_eval,
    arenas,
    chosen,
    deepeval,
    inspect_log,
    lm_eval,
    openai_evals,
    promptfoo,
    ragas,
    votes,
)
from judgeloop.interchange.pairs import LENGTH_UNITS, OF_A_PAIR, Pair, of_a_pair, read_pairs
from judgeloop.interchange.rows import (
    KEPT_COLUMNS,
    STDIN,
    VERDICT_COLUMNS,
    Cells,
    Columns,
    Input,
    Row,
    extras,
    frame_columns,
    is_number,
    named,
    names_a_winner,
    raw_rows,
)
from judgeloop.kernels import distinct
from judgeloop.records import ORDERS, UNKNOWN_ORDER

BY_SLOT, BY_TEXT = ("first", "second"), ("a", "b")
VERDICTS = (*BY_SLOT, *BY_TEXT, "tie", "unscored")
_VERDICT_WORDS = "first, second, tie or unscored (by slot), or a, b (by text, whichever was shown first)"
PANELS = ("pairs", "anchor", "probe", "policy")
_MATCHUP = ("replicate", "arm", "generation", "panel", "item_id", "pair_id")
_PRESENTATION = (*_MATCHUP, "judge", "order", "repeat")
_FIRST = (
    "replicate", "arm", "generation", "panel", "item_id", "category", "pair_id", "judge", "order", "repeat", "verdict",
    "p_first", "reason", "candidate_first", "candidate_second", "identical", "gold", "call",
)  # fmt: skip
_PROBE_COLUMNS = ("probe", "dose", "dose_reached")
_OF_TEXTS = frozenset({"text_a", "text_b", "prompt"})
_REPEATED = "number several verdicts in a column repeat (0, 1, …), or keep one"
_REPEATED_RECORD = "give each record once"
_OPTIONAL = ("gold_2", "model_a", "model_b", "len_a", "len_b", "order_drawn", "probe", "dose", "dose_reached")


@dataclass(frozen=True, slots=True)
class VerdictLog:
    """A verdict log, read and checked.

    ``judgments``: a row a judgment, the columns of docs/contract.md, "Tables", then ``gold_2, model_a, model_b, len_a,
    len_b, order_drawn, probe, dose, dose_reached`` where known, then the log's other columns. ``texts``: ``item_id, candidate_id,
    text`` of every distinct text (empty where the log has none). ``items``: ``item_id, prompt, category``.
    ``length_unit``: of len_a and len_b; "" without. ``notes``: sentences on what an importer assumed or could not read.
    """

    judgments: pd.DataFrame
    texts: pd.DataFrame
    items: pd.DataFrame
    length_unit: str = ""
    unused_pairs: int = 0
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reader:
    """What earlier rows stated, with the place of each, to check that later rows agree."""

    pairs: Mapping[str, Pair] | None
    pairs_name: str
    repeated: str
    presentations: dict[tuple[Any, ...], str] = field(default_factory=dict)
    matchups: dict[tuple[Any, ...], tuple[str, dict[str, Any]]] = field(default_factory=dict)
    prompts: dict[str, tuple[str, str]] = field(default_factory=dict)
    gold_kinds: dict[bool, tuple[str, str]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    candidates: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    ids: dict[str, dict[str, str]] = field(default_factory=dict)


def read_verdicts(source: Input, pairs: Input | None = None, columns: Columns | None = None) -> VerdictLog:
    """The log, joined to ``pairs`` on pair_id. ``source`` and ``pairs``: a path (JSON Lines, CSV or Parquet by ending), "-"
    for standard input, or a frame. Raises InvalidInput naming file, row and column for what is missing, ill-typed, duplicate
    or contradicts another row."""
    return _own_log(lambda: raw_rows(source, "verdicts"), named(source, "verdicts"), pairs, columns, source)


def _own_log(
    log_rows: Callable[[], Iterable[Row]], name: str, pairs: Input | None, columns: Columns | None, source: Input
) -> VerdictLog:
    """A log in judgeloop's form, by columns where that says all (``_read_by_columns``), else row by row."""
    if pairs is None and (isinstance(source, pd.DataFrame) or str(source) != STDIN):
        try:
            cells: Mapping[str, Sequence[Any] | pd.Series[Any]] = (
                frame_columns(source, name) if isinstance(source, pd.DataFrame) else _gathered(log_rows())
            )
            if cells:
                return _read_by_columns(cells, columns or Columns())
        except (InvalidInput, ExperimentError, TypeError):
            pass  # a fault, or a cell that is a list: it is told by the row where it stands
    return verdict_log(log_rows(), name, pairs, columns, source=source)


def verdict_log(
    log_rows: Iterable[Row],
    name: str,
    pairs: Input | None = None,
    columns: Columns | None = None,
    *,
    source: Input | None = None,
    notes: Iterable[str] = (),
    fields: Mapping[str, str] | None = None,
) -> VerdictLog:
    """As ``read_verdicts``, from rows that are read already (of another tool's log, say); errors call the log ``name``.

    ``fields``: of another tool's log, judgeloop's column → the field that it was made of, for errors.
    """
    columns = columns or Columns()
    paths = [path for path in (source, pairs) if isinstance(path, str | Path)]
    if [str(path) for path in paths] == ["-", "-"]:
        raise InvalidInput("--pairs: standard input holds the verdicts already; give the pairs as a file")
    column_names: set[str] = set()
    pairs_by_id = read_pairs(pairs, columns, column_names) if pairs is not None else None
    pairs_name = named(pairs, "pairs") if pairs is not None else ""
    reader = _Reader(pairs_by_id, pairs_name, _REPEATED if fields is None else _REPEATED_RECORD)
    rows = []
    for where, raw in log_rows:
        column_names.update(raw)
        names = {**(fields or {}), **columns.names(raw)}
        rows.append(_judgment(Cells(where, columns.renamed(raw, VERDICT_COLUMNS), names), reader))
    if not rows:
        form = "give one a row: item_id, judge, order, verdict" if fields is None else "the log holds no record"
        raise InvalidInput(f"{name}: no verdicts; {form}")
    absent = columns.missing(column_names)
    if absent is not None:
        raise InvalidInput(
            f"{columns.origin}: {absent}: no column {columns.sources[absent].column!r} in {name} (it has {', '.join(sorted(column_names)[:8])})"
        )
    names_of_rows = dict.fromkeys(
        (*_FIRST, *_OPTIONAL, *(name for row in rows for name in row if name not in OF_A_PAIR))
    )
    values = {name: [row.get(name) for row in rows] for name in names_of_rows}
    used = set(values["pair_id"])
    notes = [*notes, *(_order_notes(values) if fields is None else ())]
    return VerdictLog(
        _judgments(values),
        _texts(reader),
        _items(values, reader.prompts),
        length_unit=next(iter(reader.units), ""),
        unused_pairs=sum(1 for pair_id in pairs_by_id or () if pair_id not in used),
        notes=tuple(notes),
    )


# A log without texts, read a column at a time: each different cell is checked once, by the checks of single rows.


@dataclass(frozen=True, slots=True)
class _Coded:
    """A column's n cells: ``values``, each different one once, and ``codes`` (n,), their places among them."""

    codes: NDArray[np.intp]
    values: list[Any]

    @property
    def cells(self) -> NDArray[np.object_]:
        """The cells (n,) as they are."""
        return _objects(self.values)[self.codes]

    def read(self, read: Callable[[Any], Any]) -> _Coded:
        """The column with each cell as ``read`` gives it; equal ones have one code."""
        codes, values = pd.factorize(_objects([read(value) for value in self.values]), use_na_sentinel=False)
        return _Coded(codes[self.codes], [None if _missing(value) else value for value in values.tolist()])

    @property
    def filled(self) -> NDArray[np.bool_]:
        """(n,) whether a cell holds something."""
        return np.array([value not in (None, "") for value in self.values], dtype=bool)[self.codes]


class _RowByRow(InvalidInput):
    """The columns do not say all: the rows must be read one by one, for their order or for the fault that one has."""


_KINDS = frozenset({"string", "integer", "floating", "boolean", "empty"})
"""What cells of a column may be: equal cells of two kinds (1 and true) are not the same."""


def _gathered(log_rows: Iterable[Row]) -> dict[str, Sequence[Any]]:
    """Column → cells (n,) of the rows; {} where there is none, or where they hold texts."""
    columns: dict[str, list[Any]] = {}
    for count, (_, row) in enumerate(log_rows):
        for name, value in row.items():
            if name not in columns:
                if name in _OF_TEXTS:
                    return {}
                columns[name] = [None] * count
            columns[name].append(value)
        if len(row) < len(columns):
            for name in columns.keys() - row.keys():
                columns[name].append(None)
    return dict(columns)


def _read_by_columns(columns: Mapping[str, Sequence[Any] | pd.Series[Any]], sources: Columns) -> VerdictLog:
    """The log of ``verdict_log`` from its columns. Raises _RowByRow, or InvalidInput, where it is to be read row by row."""
    raw = {name: _coded(cells) for name, cells in columns.items()}
    count = len(next(iter(raw.values())).codes)
    nothing = _Coded(np.zeros(count, dtype=np.intp), [None])
    if sources.missing(set(raw)) is not None:
        raise _RowByRow
    for name, source in sources.sources.items():
        if name in VERDICT_COLUMNS or name in KEPT_COLUMNS:
            if source.value is not None:
                raw[name] = _Coded(nothing.codes, [source.value])
            elif source.column in columns:
                cells = raw[source.column] if source.column != name else _coded(columns[name])
                renamed = [source.values.get("" if value is None else str(value), value) for value in cells.values]
                raw[name] = _Coded(cells.codes, renamed)
    if not count or _OF_TEXTS & set(raw):
        raise _RowByRow

    def column(name: str, read: Callable[[Cells], Any]) -> _Coded:
        own = {name} & set(raw)
        return raw.get(name, nothing).read(lambda value: read(Cells("", dict.fromkeys(own, value))))

    def label(name: str) -> _Coded:
        return column(name, lambda cells: cells.label(name))

    def number(name: str, **limits: float) -> _Coded:
        return column(name, lambda cells: cells.number(name, **limits))

    item, own_pair = column("item_id", lambda cells: cells.name("item_id")), label("pair_id")
    pair = item if own_pair.values == [""] else own_pair
    if "" in own_pair.values and own_pair.values != [""]:
        pair = _coded(np.where(own_pair.filled, own_pair.cells, item.cells))
    order, verdict, reason = _read_slots(raw)
    own_reason = label("reason")
    read = {
        "item_id": item, "judge": column("judge", lambda cells: cells.name("judge")), "order": order, "verdict": verdict,
        "pair_id": pair, "repeat": column("repeat", lambda cells: cells.whole("repeat") or 0),
        "p_first": number("p_first", low=0, high=1), "reason": own_reason,
        **{name: label(name) for name in ("arm", "call", "probe")},
        **{name: column(name, lambda cells, name=name: cells.whole(name)) for name in ("generation", "replicate")},  # type: ignore[misc]
        "panel": column("panel", lambda cells: cells.word("panel", PANELS, "", default="pairs")),
        "order_drawn": column("order_drawn", lambda cells: cells.truth("order_drawn")),
        **{name: number(name, low=0) for name in ("dose", "dose_reached", "len_a", "len_b")},
        **{name: label(name) for name in ("category", "candidate_a", "candidate_b", "model_a", "model_b")},
        **{name: column(name, lambda cells, name=name: cells.gold(name)) for name in ("gold", "gold_2")},  # type: ignore[misc]
    }  # fmt: skip
    unit = column("length_unit", lambda cells: cells.word("length_unit", LENGTH_UNITS, "", default=""))
    units = sorted({unit.values[code] or "characters" for code in np.unique(unit.codes[read["len_a"].filled])})
    _check_columns(read, unit, units)
    values = {name: one.cells for name, one in read.items()}
    values["reason"] = np.where(own_reason.filled, values["reason"], reason.cells)
    unknown = values["order"] == UNKNOWN_ORDER
    if np.any(unknown & read["p_first"].filled & ~reason.filled):
        raise _RowByRow
    values["p_first"][unknown] = None
    named_texts = read["candidate_a"].filled
    same = column("identical", lambda cells: bool(cells.truth("identical"))).cells
    values["identical"] = np.where(named_texts, values["candidate_a"] == values["candidate_b"], same).astype(bool)
    a, b = (np.where(named_texts, values[f"candidate_{side}"], pair.read(f"{{}}/{side}".format).cells) for side in "ab")
    backward = values["order"] == "ba"
    values |= {"candidate_first": np.where(backward, b, a), "candidate_second": np.where(backward, a, b)}
    others = {name: one.cells for name, one in raw.items() if name not in (*VERDICT_COLUMNS, *_FIRST)}
    return VerdictLog(
        _judgments(
            others | {name: value for name, value in values.items() if name not in ("candidate_a", "candidate_b")}
        ),
        pd.DataFrame([], columns=["item_id", "candidate_id", "text"]),
        _items(values, {}),
        length_unit=next(iter(units), ""),
        notes=tuple(_order_notes(values)),
    )


def _check_columns(read: Mapping[str, _Coded], unit: _Coded, units: Sequence[str]) -> None:
    """Raises _RowByRow where a row contradicts another or itself, as ``_check_agreement`` and ``of_a_pair`` would say."""
    matchup = _together([read[name] for name in _MATCHUP])
    presentation = _together([_Coded(matchup, []), *(read[name] for name in ("judge", "order", "repeat"))])
    golds = {is_number(value) for name in ("gold", "gold_2") for value in read[name].values if value}
    probes_named = read["probe"].filled | (read["panel"].cells != "probe")
    halves = (read[f"{name}_a"].filled != read[f"{name}_b"].filled for name in ("len", "candidate"))
    if (
        distinct(presentation) < len(presentation)
        or len(golds) > 1
        or len(units) > 1
        or not probes_named.all()
        or any(half.any() for half in halves)
    ):
        raise _RowByRow
    for one in (*(read[name] for name in OF_A_PAIR if name in read), unit):
        filled = one.filled
        if distinct(_together([_Coded(matchup, []), one])[filled]) > distinct(matchup[filled]):
            raise _RowByRow


def _together(columns: Sequence[_Coded]) -> NDArray[np.intp]:
    """(n,) a code for each different row of the columns."""
    codes = columns[0].codes
    for one in columns[1:]:
        if len(one.values) > 1:
            codes = pd.factorize(codes * len(one.values) + one.codes)[0]
    return codes


def _read_slots(raw: Mapping[str, _Coded]) -> tuple[_Coded, _Coded, _Coded]:
    """(order, verdict, reason) columns, by ``_by_slot`` of each verdict in each order."""
    if "verdict" not in raw:
        raise _RowByRow
    names = [name for name in ("verdict", "order") if name in raw]
    codes = pd.factorize(_together([raw[name] for name in names]))[0]
    first = np.unique(codes, return_index=True)[1]
    read = [_by_slot(Cells("", {name: raw[name].values[raw[name].codes[place]] for name in names})) for place in first]
    order, verdict, reason = (_Coded(codes, list(part)).read(str) for part in zip(*read, strict=True))
    return order, verdict, reason


def _coded(cells: Sequence[Any] | pd.Series[Any] | NDArray[Any]) -> _Coded:
    """The cells of a column; a null is None. Raises _RowByRow where they are of several kinds, TypeError for lists."""
    column = cells if isinstance(cells, pd.Series | np.ndarray) else _objects(cells)
    codes, values = pd.factorize(column, use_na_sentinel=False)
    if pd.api.types.infer_dtype(column, skipna=True) not in _KINDS:
        raise _RowByRow
    return _Coded(codes, [None if _missing(value) else value for value in values.tolist()])


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value != value


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    """The values as an array of Python objects (n,)."""
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


# A log row by row.


def _judgment(cells: Cells, reader: _Reader) -> dict[str, Any]:
    item_id = cells.name("item_id")
    judge, (order, verdict, reason) = cells.name("judge"), _by_slot(cells)
    row: dict[str, Any] = {
        "item_id": item_id,
        "judge": judge,
        "order": order,
        "verdict": verdict,
        "pair_id": cells.label("pair_id", item_id),
        "repeat": cells.whole("repeat") or 0,
        "p_first": cells.number("p_first", low=0, high=1),
        "reason": cells.label("reason", reason),
        "arm": cells.label("arm"),
        "generation": cells.whole("generation"),
        "replicate": cells.whole("replicate"),
        "panel": cells.word("panel", PANELS, "pairs, anchor, probe or policy", default="pairs"),
        "call": cells.label("call"),
        "order_drawn": cells.truth("order_drawn"),
        "probe": cells.label("probe"),
        "dose": cells.number("dose", low=0),
        "dose_reached": cells.number("dose_reached", low=0),
    }
    if row["panel"] == "probe" and not row["probe"]:
        raise cells.fault("probe", "is empty; rows of panel probe name the edit that text_b has (padding, bold, …)")
    if order == UNKNOWN_ORDER and row["p_first"] is not None:
        if not reason:
            raise cells.fault("p_first", "is the first slot's, but the order is not known; leave it empty")
        row["p_first"] = None
    values = _pair_values(cells, row, reader)
    _check_agreement(cells, row, values, reader)
    same = cells.truth("identical")
    if values["text_a"] is not None and values["text_b"] is not None:
        same = values["text_a"] == values["text_b"]
    elif values["candidate_a"]:
        same = values["candidate_a"] == values["candidate_b"]
    a, b = _candidate_ids(cells, row, values, reader)
    first, second = (b, a) if order == "ba" else (a, b)
    pair_columns = {column: value for column, value in values.items() if column not in ("text_a", "text_b", "prompt")}
    other_columns = extras(cells.row, (*VERDICT_COLUMNS, *_FIRST))
    if reader.pairs is not None:
        other_columns = {**reader.pairs[row["pair_id"]].other_columns, **other_columns}
    return {
        **other_columns,
        **pair_columns,
        **row,
        "identical": bool(same),
        "candidate_first": first,
        "candidate_second": second,
    }


def _order_notes(values: Mapping[str, Sequence[Any] | NDArray[Any]]) -> list[str]:
    """What the verdicts whose order is not known cannot show. ``values``: the judgments' columns."""
    order, reason, verdict = (np.asarray(values[name], dtype=object) for name in ("order", "reason", "verdict"))
    count, unknown = len(order), int(np.sum(order == UNKNOWN_ORDER))
    lost = int(np.sum((reason == "order_unknown") & (verdict == "unscored")))
    notes = []
    if unknown > lost:
        notes.append(f"the order of {unknown - lost:,} of {count:,} verdicts is not known: they show which text was picked, and nothing of position")  # fmt: skip
    if lost:
        notes.append(f"{lost:,} of {count:,} verdicts name a slot in unknown order: which text was picked cannot be told, so that they are unscored (order_unknown)")  # fmt: skip
    return notes


def _by_slot(cells: Cells) -> tuple[str, str, str]:
    """(order, verdict, reason) of a row: by slot where the order is known, else by text.

    A slot in unknown order is unscored, for the reason ``order_unknown``: which text was picked cannot be told.
    """
    if "verdict" not in cells.row:
        _refuse_winner(cells)
    verdict = cells.word("verdict", VERDICTS, _VERDICT_WORDS)
    if verdict in BY_SLOT and cells.cell("order") is None:
        cells.required("order", "; write unknown where it is not known")
    order = cells.word(
        "order", (*ORDERS, UNKNOWN_ORDER), "ab (text_a shown first), ba or unknown", default=UNKNOWN_ORDER
    )
    if verdict in BY_TEXT and order in ORDERS:
        verdict = "first" if (verdict == "a") == (order == "ab") else "second"
    if verdict in BY_SLOT and order == UNKNOWN_ORDER:
        return order, "unscored", "order_unknown"
    return order, verdict, ""


def _refuse_winner(cells: Cells) -> None:
    """Raises InvalidInput where the row has no verdict but a column that says which of two is better: it may name an answer
    or a slot, and the user must say which."""
    names = [name for name in cells.row if names_a_winner(name)]
    if names:
        raise InvalidInput(
            f"{cells.where}: column verdict is missing, and column {names[0]!r} may name an answer or a slot; give --columns with "
            f"verdict: {{column: {names[0]}, values: {{A: a, B: b}}}} where it names text_a or text_b, whichever was shown first, "
            f"or verdict: {{column: {names[0]}, by: slot, values: {{A: first, B: second}}}} where it names the slot"
        )


def _pair_values(cells: Cells, row: Mapping[str, Any], reader: _Reader) -> dict[str, Any]:
    """The columns of the row's pair, from the row and from the pairs file. Raises InvalidInput where they disagree."""
    values = of_a_pair(cells)
    if not values["text_a"] and not values["text_b"]:
        # A log with two empty cells does not hold the texts.
        values |= {"text_a": None, "text_b": None}
    if reader.pairs is not None:
        pair = reader.pairs.get(row["pair_id"])
        if pair is None:
            raise cells.fault("pair_id", f"{row['pair_id']!r} is not among the pairs of {reader.pairs_name}")
        if pair.item_id != row["item_id"]:
            raise cells.fault(
                "item_id", f"{row['item_id']!r}, but pair {row['pair_id']!r} is of item {pair.item_id!r} ({pair.where})"
            )
        _check_pair_values(cells, values, pair.values, pair.where)
        values = {
            column: pair.values[column] if values[column] in (None, "") else values[column] for column in OF_A_PAIR
        }
    return values


def _check_agreement(cells: Cells, row: dict[str, Any], values: dict[str, Any], reader: _Reader) -> None:
    """Raises InvalidInput where the row contradicts an earlier one, and fills what an earlier row left empty."""
    presentation = tuple(row[column] for column in _PRESENTATION)
    if presentation in reader.presentations:
        raise cells.fault(
            "verdict",
            f"judge {row['judge']!r} has judged pair {row['pair_id']!r} in order {row['order']} before, at {reader.presentations[presentation]}; {reader.repeated}",
        )
    reader.presentations[presentation] = cells.where
    matchup = tuple(row[column] for column in _MATCHUP)
    where, before = reader.matchups.setdefault(matchup, (cells.where, values))
    _check_pair_values(cells, values, before, where)
    for column, value in values.items():
        if before[column] in (None, "") and value not in (None, ""):
            before[column] = value
    if values["prompt"] is not None:
        prompt, where = reader.prompts.setdefault(row["item_id"], (values["prompt"], cells.where))
        if prompt != values["prompt"]:
            raise cells.fault(
                "prompt", f"item_id {row['item_id']!r} has another prompt at {where}; one prompt an item_id"
            )
    for column in ("gold", "gold_2"):
        if values[column]:
            reader.gold_kinds.setdefault(is_number(values[column]), (column, cells.where))
            if len(reader.gold_kinds) > 1:
                kind, (other_column, where) = next(iter(reader.gold_kinds.items()))
                raise cells.fault(
                    column,
                    f"{values[column]!r}, but {other_column} at {where} is {'a number' if kind else 'a word'}; gold is words (a, b, tie) or numbers throughout",
                )
    if values["len_a"] is not None:
        unit = values["length_unit"] or "characters"
        where = reader.units.setdefault(unit, cells.where)
        if len(reader.units) > 1:
            raise cells.fault(
                "length_unit",
                f"{unit}, but {next(iter(reader.units))} at {next(iter(reader.units.values()))}; one unit a log",
            )


def _check_pair_values(cells: Cells, values: Mapping[str, Any], earlier: Mapping[str, Any], where: str) -> None:
    for column in OF_A_PAIR:
        value, earlier_value = values[column], earlier[column]
        if value not in (None, "") and earlier_value not in (None, "") and value != earlier_value:
            raise cells.fault(
                column,
                f"differs from {column} of the same pair at {where}; a and b name the same texts in both orders, whichever is shown first",
            )


def _candidate_ids(cells: Cells, row: Mapping[str, Any], values: Mapping[str, Any], reader: _Reader) -> tuple[str, str]:
    """Ids of texts a and b: as in the row, else one for each distinct text of the item (t1, t2, …), else from the pair's id."""
    ids = []
    for side in "ab":
        text, name = values[f"text_{side}"], values[f"candidate_{side}"]
        if text is None:
            ids.append(name or f"{row['pair_id']}/{side}")
            continue
        if not name:
            texts = reader.ids.setdefault(row["item_id"], {})
            name = texts.setdefault(text, f"t{len(texts) + 1}")
        first_text, where = reader.candidates.setdefault((row["item_id"], name), (text, cells.where))
        if first_text != text:
            raise cells.fault(
                f"candidate_{side}",
                f"{name!r} names another text of item {row['item_id']!r} at {where}; one text an id",
            )
        ids.append(name)
    return ids[0], ids[1]


def _judgments(values: Mapping[str, Sequence[Any] | NDArray[Any]]) -> pd.DataFrame:
    """The table judgments of its columns. An optional column that is empty in every row is left out."""
    other_columns = [name for name in values if name not in (*_FIRST, *OF_A_PAIR, *_OPTIONAL)]
    used = [name for name in _OPTIONAL if any(value not in (None, "") for value in values[name])]
    kept = {name: [_encodable(value) for value in values[name]] for name in other_columns}
    frame = pd.DataFrame({**{name: list(values[name]) for name in (*_FIRST, *used)}, **kept})
    for name in ("replicate", "generation"):
        frame[name] = frame[name].astype("Int64")
    if "order_drawn" in used:
        frame["order_drawn"] = frame["order_drawn"].astype("boolean")
    for name in ("p_first", *(name for name in used if name in ("len_a", "len_b", "dose", "dose_reached"))):
        frame[name] = frame[name].astype("float64")
    for name in other_columns:
        frame[name] = _number_or_text(frame[name])
    return frame


def _encodable(value: Any) -> Any:
    """A cell of a column that is kept and not used: halves of surrogate pairs, which no table can hold, are question marks."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value


def _number_or_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as numbers where all its cells are numbers, else as text."""
    values = [value for value in column.tolist() if not pd.isna(value)]
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return column.astype("float64")
    return column.map(lambda value: "" if pd.isna(value) else str(value)).astype("str")


def _texts(reader: _Reader) -> pd.DataFrame:
    rows = [(item_id, name, text) for (item_id, name), (text, _) in reader.candidates.items()]
    return pd.DataFrame(rows, columns=["item_id", "candidate_id", "text"])


def _items(values: Mapping[str, Sequence[Any] | NDArray[Any]], prompts: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """The table items: each item's prompt and the category of its first row."""
    categories = dict(zip(reversed(values["item_id"]), reversed(values["category"]), strict=True))
    names = dict.fromkeys(values["item_id"])
    rows = [(item, prompts.get(item, ("", ""))[0], categories[item]) for item in names]
    return pd.DataFrame(rows, columns=["item_id", "prompt", "category"])


# Logs of any tool

FORMATS = (
    "judgeloop",
    "alpaca_eval",
    "mt_bench",
    "arena_hard",
    "chatbot_arena",
    "preferences",
    "inspect",
    "lm_eval",
    "promptfoo",
    "openai_evals",
    "deepeval",
    "ragas",
)
_KEYS = {
    "alpaca_eval": alpaca_eval.KEYS, "mt_bench": arenas.MT_BENCH_KEYS, "arena_hard": arenas.ARENA_HARD_KEYS, "lm_eval": lm_eval.KEYS,
    "chatbot_arena": votes.KEYS, "preferences": chosen.KEYS, "promptfoo": promptfoo.KEYS, "openai_evals": openai_evals.KEYS, "ragas": ragas.KEYS,
}  # fmt: skip
_BY_RECORD: dict[str, Callable[[Iterable[Row]], tuple[list[Row], list[str]]]] = {
    "alpaca_eval": alpaca_eval.rows, "mt_bench": arenas.mt_bench_rows, "arena_hard": arenas.arena_hard_rows,
    "chatbot_arena": votes.rows, "preferences": chosen.rows,
}  # fmt: skip
_GRADED_ALONE: dict[str, Callable[[Sequence[Path], str, str], tuple[list[Row], list[str]]]] = {
    "inspect": inspect_log.rows, "lm_eval": lm_eval.rows, "promptfoo": promptfoo.rows, "openai_evals": openai_evals.rows,
    "deepeval": deepeval.rows, "ragas": ragas.rows,
}  # fmt: skip
_OBJECTS = {
    "promptfoo": re.compile(r'\{\s*"evalId"|\{\s*"version"\s*:\s*\d+\s*,\s*"timestamp"'),
    "deepeval": re.compile(r'\{\s*"(?:testCases|testFile|identifier|testRunData)"'),
}
"""How a JSON object begins that is another tool's log than Inspect's."""
_IN_A_FOLDER = (
    "*.eval",
    "samples_*.jsonl",
    "annotations.json",
    "*_pair.jsonl",
    "*_single.jsonl",
    "completions_*.parquet",
    "test_run_*.json",
    "results*.json",
    "*.jsonl",
    "*.csv",
    "*.parquet",
)
_FIELDS = {
    "alpaca_eval": alpaca_eval.FIELDS, "mt_bench": arenas.MT_BENCH_FIELDS, "arena_hard": arenas.ARENA_HARD_FIELDS,
    "inspect": inspect_log.FIELDS, "lm_eval": lm_eval.FIELDS, "chatbot_arena": votes.FIELDS, "preferences": chosen.FIELDS,
    "promptfoo": promptfoo.FIELDS, "openai_evals": openai_evals.FIELDS, "deepeval": deepeval.FIELDS, "ragas": ragas.FIELDS,
}  # fmt: skip
_PEEK = 1 << 20
Sources = Input | Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class _LogInput:
    """One log's input: files of one format, or a frame or standard input (no files)."""

    format: str
    files: tuple[Path, ...]
    source: Input


def read_log(
    sources: Sources,
    pairs: Input | None = None,
    columns: Columns | None = None,
    *,
    format: str = "auto",  # noqa: A002
) -> VerdictLog:
    """A verdict log of any of FORMATS, joined to ``pairs`` on pair_id.

    ``sources``: a path (file, folder or run folder), several paths of one format, "-", or a frame. ``format`` auto
    recognises it by content. Raises InvalidInput naming file, row and field.
    """
    columns = columns or Columns()
    log = _input_of(sources, format, columns)
    if log.format == "judgeloop":

        def own_rows() -> Iterable[Row]:
            if not log.files:
                return raw_rows(log.source, "verdicts")
            return chain.from_iterable(_judgeloop_rows(path, pairs is not None) for path in log.files)

        return _own_log(own_rows, _name_in_errors(log), pairs, columns, log.source)
    if log.format in _BY_RECORD:
        of_files = chain.from_iterable(map(records, log.files))
        log_rows, notes = _BY_RECORD[log.format](of_files if log.files else raw_rows(log.source, "verdicts"))
    else:
        judge, gold = (_scorer(columns, name) for name in ("verdict", "gold"))
        log_rows, notes = _GRADED_ALONE[log.format](log.files, judge, gold)
        sources_left = {name: source for name, source in columns.sources.items() if name not in ("verdict", "gold")}
        columns = replace(columns, sources=sources_left)
    fields = _FIELDS.get(log.format, {})
    return verdict_log(log_rows, _name_in_errors(log), pairs, columns, notes=notes, fields=fields)


def files_of(sources: Sources) -> tuple[Path, ...]:
    """The files of ``sources``, with those in folders; empty for a frame and standard input. Raises InvalidInput."""
    if isinstance(sources, pd.DataFrame):
        return ()
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    if not paths:
        raise InvalidInput("verdicts: no file given")
    if [str(path) for path in paths] == [STDIN]:
        return ()
    if any(str(path) == STDIN for path in paths):
        raise InvalidInput("verdicts: standard input stands alone; give files, or - alone")
    return tuple(file for path in paths for file in _files_below(Path(path)))


def format_of(path: Path | pd.DataFrame) -> str:
    """The format of a file or frame by its content, one of FORMATS; judgeloop where it is none of the others."""
    if isinstance(path, pd.DataFrame):
        return _format_by_keys(dict.fromkeys(map(str, path.columns)))
    if zipfile.is_zipfile(path):
        return "inspect"
    ending = path.suffix.lower()
    if ending == ".json":
        head = _beginning(path).lstrip()
        if head.startswith("{"):
            return next((name for name, begins in _OBJECTS.items() if begins.match(head)), "inspect")
        first = next(records(path), None)
        return _format_by_keys(first[1]) if first else "judgeloop"
    if ending in (".jsonl", ".ndjson"):
        line = next((line for line in _beginning(path).splitlines() if line.strip()), "")
        return _format_by_keys(_parsed_object(line) or _first_object(path))
    if ending == ".csv":
        return _format_by_keys(dict.fromkeys(next(csv.reader(_beginning(path).splitlines()[:1]), [])))
    if ending == ".parquet":
        return _format_by_keys(dict.fromkeys(inputs.parquet_names(path)))
    return "judgeloop"


def records(path: Path) -> Iterator[Row]:
    """(where, record) of a file: a JSON array of objects (.json; records are counted from 1, for an array may stand in one
    line), else the rows of JSON Lines, CSV or Parquet."""
    if path.suffix.lower() != ".json":
        yield from inputs.rows(path, "verdicts")
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read as UTF-8 text ({error!s:.80})") from None
    where = str(path)
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _object_without_duplicates(pairs, where))
    place, line, counted, number = _after_space(text, 0), 1, 0, 0
    if text[place : place + 1] != "[":
        raise InvalidInput(f"{path}:1: must be a JSON array of records")
    place = _after_space(text, place + 1)
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        number += 1
        where = f"{path}:{line}, record {number}"
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise InvalidInput(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
        except RecursionError:
            raise InvalidInput(f"{where}: not valid JSON (nested too deeply)") from None
        if not isinstance(value, dict):
            raise InvalidInput(f"{where}: each record is a JSON object, this is {type(value).__name__}")
        yield where, value
        place = _after_space(text, place)
        if text[place : place + 1] == ",":
            place = _after_space(text, place + 1)
        elif text[place : place + 1] != "]":
            raise InvalidInput(
                f"{path}:{line + text.count(chr(10), counted, place)}: not valid JSON (the array is cut off)"
            )


def _input_of(sources: Sources, format_name: str, columns: Columns) -> _LogInput:
    files = files_of(sources)
    if isinstance(sources, pd.DataFrame):
        wanted = _with_columns(format_of(sources), columns) if format_name == "auto" else format_name
        if wanted in _BY_RECORD:
            return _LogInput(wanted, (), sources)
    if not files:
        if format_name not in ("auto", "judgeloop"):
            raise InvalidInput(f"--format {format_name}: is read from files; give a path")
        source = sources if isinstance(sources, pd.DataFrame) else STDIN
        return _LogInput("judgeloop", (), source)
    if format_name != "auto":
        return _LogInput(format_name, files, files[0])
    kinds = {format_of(path): path for path in reversed(files)}
    if len(kinds) > 1:
        (first_kind, first), (second_kind, second), *_ = kinds.items()
        raise InvalidInput(f"{second}: a log of {second_kind}, but {first} is one of {first_kind}; analyse one format at a time, or say which with --format")  # fmt: skip
    return _LogInput(_with_columns(next(iter(kinds)), columns), files, files[0])


def _with_columns(kind: str, columns: Columns) -> str:
    """The format by which a log is read: rows whose verdict --columns names are read by that, whatever their keys say."""
    return "judgeloop" if kind in ("chatbot_arena", "preferences") and "verdict" in columns.sources else kind


def _name_in_errors(log: _LogInput) -> str:
    if len(log.files) > 1:
        return f"{log.files[0]} and {len(log.files) - 1} more"
    return str(log.files[0]) if log.files else named(log.source, "verdicts")


def _files_below(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise InvalidInput(f"{path}: no such file; give the verdicts as a file or folder, or - for standard input")
        return [path]
    if (path / "experiment.yaml").is_file():
        parts = sorted((path / "tables" / "judgments").glob("*.parquet"))
        if not parts:
            raise InvalidInput(f"{path}: a folder of judgeloop without judgments yet")
        return parts
    for pattern in _IN_A_FOLDER:
        if files := sorted(path.rglob(pattern), key=lambda file: (len(file.name), file)):  # 9.jsonl before 10.jsonl
            return files
    raise InvalidInput(f"{path}: a folder without a log; it should hold {', '.join(_IN_A_FOLDER)}, or be a run folder")


def _judgeloop_rows(path: Path, joined: bool) -> Iterator[Row]:
    """Rows of judgeloop's own log. Of a run folder that is joined to pairs, only judgments of fixed pairs, without the run's
    gold: the pairs file has it."""
    of_a_run = path.parent.name == "judgments" and path.parent.parent.name == "tables"
    for where, row in raw_rows(path, "verdicts"):
        if of_a_run:
            if joined and row.get("panel") not in ("anchor", "pairs"):
                continue
            row = {name: value for name, value in row.items() if not (joined and name in ("gold", "gold_2"))}
        yield where, row


def _scorer(columns: Columns, name: str) -> str:
    """The scorer or metric that --columns names as verdict or gold of a log of single grades; "" where it names none."""
    source = columns.sources.get(name)
    if source is None:
        return ""
    if source.values or source.value is not None:
        raise InvalidInput(
            f"{columns.origin}: {name}: names a scorer of the log here; give its name alone, without values or value"
        )
    return source.column


def _format_by_keys(record: Mapping[str, Any]) -> str:
    if {"item_id", "judge", "verdict"} <= set(record):
        return "judgeloop"
    if set(record) >= arenas.MT_BENCH_SINGLE_KEYS:
        return "mt_bench"
    return next((name for name, keys in _KEYS.items() if keys <= set(record)), "judgeloop")


def _beginning(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_PEEK).decode("utf-8-sig", "ignore")
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror or error})") from None


def _parsed_object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _first_object(path: Path) -> dict[str, Any]:
    """The first line of a file as an object; {} where it is none. For lines longer than the beginning that was read."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return _parsed_object(next((line for line in file if line.strip()), ""))
    except OSError:
        return {}


def _object_without_duplicates(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"{where}: key {twice} stands twice; keep one")
    return record


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
