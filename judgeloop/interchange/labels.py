"""Blinded sheets for human labels, and their labels read back as gold.

A sheet (CSV, or one HTML file) shows every pair to two labellers, with its sides swapped and the rows in another shuffled
order for the second. Which side is text_a stands only in the key, a separate file; the sheet has no candidate's name and
no verdict.
"""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop import seeds
from judgeloop.errors import InvalidInput
from judgeloop.interchange.rows import PAIR_COLUMNS, Cells
from judgeloop.rundir import without_formula

COLUMNS = ("row", "labeller", "prompt", "first", "second", "label")
LABELLERS = (1, 2)
_LABEL_WORDS = {
    "1": "first", "first": "first", "2": "second", "second": "second", "tie": "tie", "=": "tie", "0": "tie", "": "",
}  # fmt: skip
_PAIR_COLUMNS = tuple(name for name in PAIR_COLUMNS if name not in ("gold", "gold_2", "len_a", "len_b", "length_unit"))
_PAGE = "label_form.html"


@dataclass(frozen=True, slots=True)
class LabelSheet:
    """A blinded sheet. ``rows``: dicts of COLUMNS. ``key``: pair, labeller and order of each row, and all pairs."""

    id: str
    rows: tuple[Mapping[str, Any], ...]
    key: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CollectedLabels:
    """The labels of filled-in sheets. ``pairs``: a pairs file's columns with ``gold, gold_2`` (a, b, tie or "").

    ``once``, ``twice``: numbers of pairs that one and that both labelled; ``agreed``: of ``twice``, those labelled alike.
    """

    pairs: pd.DataFrame
    once: int
    twice: int
    agreed: int


def sheet(pairs: pd.DataFrame, count: int, *, seed: int = 0) -> LabelSheet:
    """A sheet of ``count`` pairs (all, where there are fewer), drawn from a stream of ``seed``.

    pairs: a pairs file's columns; pairs of identical texts are left out. Labeller 1 sees text_a first in half of the
    pairs, labeller 2 in the other half. Raises InvalidInput where no pair is left.
    """
    rows = [{name: row.get(name, "") for name in _PAIR_COLUMNS} for row in pairs.to_dict("records")]
    different = [place for place, row in enumerate(rows) if row["text_a"] != row["text_b"]]
    if not different:
        raise InvalidInput("labels: no pair of different texts to label")
    name = hashlib.sha256(json.dumps([seed, count, rows], default=str).encode("utf-8", "replace")).hexdigest()[:8]
    chosen = [different[n] for n in seeds.rng(seed, "labels", "pairs").permutation(len(different))[:count]]
    places: dict[str, list[Any]] = {}
    sheet_rows: list[dict[str, Any]] = []
    for labeller in LABELLERS:
        shuffled = seeds.rng(seed, "labels", "rows", labeller).permutation(len(chosen))
        for number, n in enumerate(shuffled, start=1):
            pair = rows[chosen[n]]
            order = "ab" if (int(n) % 2 == 0) == (labeller == 1) else "ba"
            row_id = f"{name}-{labeller}{number:04d}"
            places[row_id] = [pair["pair_id"], labeller, order]
            first, second = (pair["text_a"], pair["text_b"]) if order == "ab" else (pair["text_b"], pair["text_a"])
            sheet_rows.append({"row": row_id, "labeller": labeller, "prompt": pair["prompt"], "first": first, "second": second, "label": ""})  # fmt: skip
    return LabelSheet(name, tuple(sheet_rows), {"sheet": name, "rows": places, "pairs": rows})


def as_csv(sheet: LabelSheet) -> bytes:
    """The sheet as CSV, every cell in quotes. A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for row in sheet.rows:
        writer.writerow(
            {name: without_formula(value) if isinstance(value, str) else value for name, value in row.items()}
        )
    # Without the byte order mark, spreadsheets read the file in their own code page.
    return b"\xef\xbb\xbf" + sink.getvalue().encode("utf-8", "replace")


def as_html(sheet: LabelSheet) -> bytes:
    """The sheet as one HTML page that needs no network; the texts are data in it, shown as text and never as markup."""
    data = json.dumps({"sheet": sheet.id, "rows": list(sheet.rows)}, ensure_ascii=True)
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    page = resources.files("judgeloop.interchange").joinpath(_PAGE).read_text(encoding="utf-8")
    return page.replace("{{sheet}}", html.escape(sheet.id)).replace("{{data}}", data).encode()


def sheets_of(sheets: Sequence[str | Path]) -> list[str]:
    """The ids of the sheets to which the files' rows belong. Raises InvalidInput as ``read_labels`` does."""
    return list(dict.fromkeys(_row_id(cells).split("-", 1)[0] for cells in _rows(sheets)))


def read_labels(sheets: Sequence[str | Path], key: str | Path) -> CollectedLabels:
    """The labels of filled-in sheets (CSV, comma or semicolon), as gold (labeller 1) and gold_2 (labeller 2).

    A label is 1, 2 or tie (also first, second, =), or empty. A pair's only label is its gold, whoever gave it.
    Raises InvalidInput with file, line and column for other words, rows that are not the key's, and rows that are labelled
    in two ways.
    """
    sheet_key = _key(Path(key))
    labels_by_pair: dict[tuple[str, int], tuple[str, str]] = {}
    for cells in _rows(sheets):
        row_id = _row_id(cells)
        if row_id not in sheet_key["rows"]:
            raise cells.fault("row", f"{row_id!r} is not a row of the sheet that {key} is the key of")
        pair_id, labeller, order = sheet_key["rows"][row_id]
        word = str(cells.row.get("label") or "").strip().lower()
        if word not in _LABEL_WORDS:
            raise cells.fault("label", f"must be 1, 2, tie or empty, not {word!r:.60}")
        slot = _LABEL_WORDS[word]
        if not slot:
            continue
        gold = "tie" if slot == "tie" else "a" if (slot == "first") == (order == "ab") else "b"
        before, where = labels_by_pair.setdefault((pair_id, labeller), (gold, cells.where))
        if before != gold:
            raise cells.fault("label", f"{row_id} has another label at {where}; keep one")
    rows, once, twice, agreed = [], 0, 0, 0
    for pair in sheet_key["pairs"]:
        labels = [labels_by_pair[pair["pair_id"], n][0] for n in LABELLERS if (pair["pair_id"], n) in labels_by_pair]
        gold, gold_2 = (*labels, "", "")[:2]
        once, twice = once + (len(labels) == 1), twice + (len(labels) == 2)
        agreed += len(labels) == 2 and gold == gold_2
        rows.append({**pair, "gold": gold, "gold_2": gold_2})
    if not labels_by_pair:
        raise InvalidInput(f"{sheets[0]}: label: no row is labelled; fill the column in with 1, 2 or tie")
    return CollectedLabels(pd.DataFrame(rows), once, twice, agreed)


def _key(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path}: the sheet's key cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{path}: not valid JSON; give the key as it was written beside the sheet") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("rows"), dict) or not isinstance(raw.get("pairs"), list):
        raise InvalidInput(f"{path}: rows, pairs: missing; this is no key of a label sheet")
    return raw


def _row_id(cells: Cells) -> str:
    return cells.name("row")


def _rows(sheets: Sequence[str | Path]) -> Iterator[Cells]:
    """The rows of CSV files as spreadsheets write them: with a byte order mark, commas, semicolons or tabs."""
    csv.field_size_limit(1 << 30)
    for path in map(Path, sheets):
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read ({error.strerror or error}); give a filled-in sheet") from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise InvalidInput(f"{path}:{line}: not UTF-8 text; save the sheet as CSV UTF-8") from None
        head = text.split("\n", 1)[0]
        separator = max(",;\t", key=head.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        try:
            for column in ("row", "label"):
                if column not in (reader.fieldnames or ()):
                    raise InvalidInput(f"{path}:1: column {column} is missing; keep the sheet's own header")
            for row in reader:
                yield Cells(f"{path}:{reader.line_num}", {str(name): value for name, value in row.items()})
        except csv.Error as error:
            raise InvalidInput(f"{path}:{reader.line_num + 1}: not valid CSV ({error})") from None
