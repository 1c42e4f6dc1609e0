"""A guess at what the columns of a verdict log mean, from their names and words: a columns file to look at, never taken unseen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from judgeloop.interchange.rows import VERDICT_COLUMNS, Columns, load_columns, names_a_winner

_NAMES = {
    "prompt": ("prompt", "question", "instruction", "query", "input", "user_prompt", "task_prompt", "problem"),
    "id": ("item_id", "question_id", "prompt_id", "instance_id", "example_id", "sample_id", "item", "qid", "id", "uid", "idx", "index"),
    "judge": ("judge", "judge_model", "judge_name", "grader", "annotator", "evaluator", "rater", "scorer", "model_judge"),
    "order": ("order", "presentation", "presentation_order", "swapped", "is_swapped", "swap", "flipped", "is_flipped"),
    "gold": ("gold", "human", "human_label", "human_preference", "human_winner", "label_human", "ground_truth"),
    "verdict": (
        "verdict", "winner", "preference", "preferred", "better", "judgment", "judgement", "decision", "pick", "choice", "vote",
        "chosen", "result", "label",
    ),
    "category": ("category", "subset", "domain", "topic"),
    "repeat": ("repeat", "repetition", "attempt"),
}  # fmt: skip
"""What a column is → names that say so, the likeliest first."""
_TEXT = {"answer", "response", "output", "text", "completion", "candidate", "reply", "generation", "summary", "chosen", "rejected"}  # fmt: skip
_MODEL = {"model", "system", "generator", "name"}
_LENGTH = {"len", "length", "characters", "chars"}
_SIDES = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"), ("chosen", "rejected"))
_SHOWN = (("left", "right"), ("first", "second"))
"""Sides that are slots: the first of them was shown first."""
_TIES = {"tie", "draw", "both", "equal", "same", "tied", "neither", "both_bad", "bothbad", "tie_bothbad", "tie_both_bad", "c"}  # fmt: skip
_NO_VERDICT = {"", "none", "null", "nan", "na", "n_a", "error", "invalid", "unknown", "unscored", "unparsed", "failed"}
_AB, _BA = {"ab", "a_b", "original", "normal", "a_first", "false", "0", "1_2"}, {"ba", "b_a", "swapped", "swap", "reversed", "flipped", "b_first", "true", "1", "2_1"}  # fmt: skip
_SCALES: tuple[tuple[dict[str, str], str], ...] = (
    ({"1": "a", "2": "b", "0": "tie", "-1": "unscored"}, "2"), ({"1": "a", "-1": "b", "0": "tie"}, "-1"),
    ({"0": "a", "1": "b", "0.5": "tie"}, "0"),
)  # fmt: skip
"""Numbers that say which of two is better, and the one that tells the scale from the others."""
_MOST_WORDS = 12
_SAMPLE, _SHOWN_LETTERS = 3, 48


@dataclass(frozen=True)
class Guess:
    """``columns``: what every column seems to mean, as a columns file has it; ``lacking``: required columns that nothing seems to
    be. ``text``: the file, with the first rows in its words as comments."""

    columns: Mapping[str, Any]
    lacking: tuple[str, ...]
    text: str

    @property
    def mapping(self) -> Columns:
        """The columns as the readers of logs take them."""
        return load_columns(self.columns)


def guess(rows: Sequence[Mapping[str, Any]]) -> Guess | None:
    """The guess at a log of these rows; None where it has judgeloop's own columns and words."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    words = {name: _words(rows, name) for name in names}
    if {"item_id", "judge", "verdict"} <= set(names) and set(words["verdict"]) <= {"first", "second", "a", "b", "tie", "unscored"}:  # fmt: skip
        return None
    found = _Finder(rows, names, words).found()
    if not found or ({"item_id", "judge", "verdict"} <= set(names) and "verdict" not in found):
        return None  # its own words, and one of them wrong
    lacking = [name for name in ("item_id", "verdict") if name not in (*found, *names)]
    by_slot = {"first", "second"} & set(found.get("verdict", {}).get("values", {}).values())
    lacking += ["order"] if by_slot and "order" not in (*found, *names) else []
    return Guess(found, tuple(lacking), _text(found, lacking, rows))


def _words(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[str, ...]:
    """The distinct values of a column as words, in order; more than ``_MOST_WORDS`` are cut at one more."""
    values: dict[str, None] = {}
    for row in rows:
        value = row.get(name)
        values["" if value is None else str(value)] = None
        if len(values) > _MOST_WORDS:
            break
    return tuple(values)


def _plain(word: str) -> str:
    """A name or word in lower case, with underscores for all that is no letter or digit."""
    return re.sub(r"[^a-z0-9.-]+|(?<!^)-", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower()).strip("_")


def _is_itself(name: str, source: Any) -> bool:
    """Whether a source is judgeloop's own column with its own words."""
    if isinstance(source, str):
        return source == name
    return source.get("column") == name and all(word == meaning for word, meaning in source["values"].items())


@dataclass
class _Finder:
    """The search for each of judgeloop's columns among the log's ``names``, with the ``words`` of each."""

    rows: Sequence[Mapping[str, Any]]
    names: list[str]
    words: Mapping[str, tuple[str, ...]]

    def found(self) -> dict[str, Any]:
        """judgeloop's column → its source, as a columns file has it."""
        found: dict[str, Any] = {}
        sides = self._pairs()
        texts = sides.get("text")
        verdict = self._verdict(texts)
        order = self._order()
        prompt, id_ = self._named("prompt"), self._named("id")
        by_prompt = prompt is not None and (id_ is None or self._distinct(prompt) < self._distinct(id_))
        item = prompt if by_prompt else id_
        if item is not None:
            found["item_id"] = item
        if by_prompt and id_ is not None and order is None:
            found["pair_id"] = id_
        judge = self._named("judge")
        found["judge"] = judge if judge is not None else {"value": "judge"}
        if verdict is not None:
            found["verdict"] = verdict
        elif texts and _plain(texts[0]).endswith("chosen"):
            found["verdict"] = {"value": "a"}
        if order is not None:
            found["order"] = order
        elif texts and {first for first, _ in _SHOWN} & set(_plain(texts[0]).split("_")):
            found["order"] = {"value": "ab"}
        if prompt is not None:
            found["prompt"] = prompt
        for kind, (first, second) in sides.items():
            stem = {"text": "text", "model": "model", "length": "len"}[kind]
            found[f"{stem}_a"], found[f"{stem}_b"] = first, second
        gold = self._named("gold")
        if gold is not None and (meanings := _sides_of(self.words[gold], texts, sides.get("model"), self.rows)):
            golds = {word: side for word, side in meanings.items() if side != "unscored"}
            found["gold"] = {"column": gold, "values": golds}
        for name in ("category", "repeat"):
            if (column := self._named(name)) is not None:
                found[name] = column
        return {name: found[name] for name in VERDICT_COLUMNS if name in found and not _is_itself(name, found[name])}

    def _named(self, kind: str, taken: Iterable[str] = ()) -> str | None:
        """The first of the log's columns that is named as that kind."""
        plain = {_plain(name): name for name in reversed(self.names) if name not in taken}
        return next((plain[name] for name in _NAMES[kind] if name in plain), None)

    def _distinct(self, name: str) -> int:
        return len({str(row.get(name)) for row in self.rows})

    def _pairs(self) -> dict[str, tuple[str, str]]:
        """text, model and length → the two columns that hold them, a and b."""
        plain = {_plain(name): name for name in reversed(self.names)}
        sides: dict[str, tuple[str, str]] = {}
        for name, column in ((_plain(name), name) for name in self.names):
            parts = name.split("_")
            for (a, b), place in ((side, place) for side in _SIDES for place in range(len(parts))):
                glued = re.sub(rf"(?<=[a-z]){a}$", b, parts[place]) if a in "1" else parts[place]
                other = b if parts[place] == a else glued
                second = "_".join([*parts[:place], other, *parts[place + 1 :]])
                if second == name or second not in plain:
                    continue
                stems = {re.sub(r"\d+$", "", part) for part in parts}
                kind = next((kind for kind, of in (("length", _LENGTH), ("text", _TEXT), ("model", _MODEL)) if stems & of), "")  # fmt: skip
                if not kind and name in ("a", "1", "left", "first"):
                    kind = "text"
                if kind and kind not in sides:
                    sides[kind] = (column, plain[second])
        return sides

    def _verdict(self, texts: tuple[str, str] | None) -> dict[str, Any] | None:
        """The column that says which is better, with the meaning of its words."""
        plain = {_plain(name): name for name in reversed(self.names)}
        likely = [plain[name] for name in _NAMES["verdict"] if name in plain]
        likely += [name for name in self.names if names_a_winner(name) and name not in likely]
        models = self._pairs().get("model")
        for column in likely:
            if column not in (texts or ()):
                meanings = _sides_of(self.words[column], texts, models, self.rows) or _slots_of(self.words[column])
                if meanings:
                    return {"column": column, "values": meanings}
                others = self._beside_models(column, models)
                if others is not None:
                    return {"column": column, "by": "model"} | ({"values": others} if others else {})
        return None

    def _beside_models(self, column: str, models: tuple[str, str] | None) -> dict[str, str] | None:
        """Word → tie or unscored, of a column whose other words are one of the two models in every row; None of any other."""
        others: dict[str, str] = {}
        for row in self.rows:
            word = "" if row.get(column) is None else str(row[column])
            if models and word and word in (str(row.get(models[0])), str(row.get(models[1]))):
                continue
            name = _plain(word)
            if not models or not (name in _TIES | _NO_VERDICT or name.startswith("tie")):
                return None
            others[word] = "unscored" if name in _NO_VERDICT else "tie"
        return others

    def _order(self) -> dict[str, Any] | None:
        """The column that says which text was shown first, with the meaning of its words."""
        column = self._named("order")
        if column is None:
            return None
        known = dict.fromkeys(_NO_VERDICT, "unknown") | dict.fromkeys(_AB, "ab") | dict.fromkeys(_BA, "ba")
        orders = {word: known.get(_plain(word), "") for word in self.words[column]}
        return {"column": column, "values": orders} if all(orders.values()) else None


def _sides_of(
    words: Sequence[str],
    texts: tuple[str, str] | None,
    models: tuple[str, str] | None,
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, str] | None:
    """Word → a, b, tie or unscored, where every word has such a meaning; else None."""
    own = {"a": "a", "b": "b"}
    for pair in (texts, models):
        own |= {_plain(name): side for name, side in zip(pair or (), "ab", strict=False)}
    if models:
        # Each side's model, where it is the same in all rows.
        first, second = ({_plain(str(row.get(column))) for row in rows} for column in models)
        own |= {first.pop(): "a", second.pop(): "b"} if len(first) == len(second) == 1 and first != second else {}
    plain = {word: _plain(word) for word in words}
    numbers = {word.removesuffix(".0") for word in plain.values()} - _NO_VERDICT - _TIES
    scales = [known for known, telling in _SCALES if telling in numbers and numbers <= set(known)]
    scale = scales[0] if scales else {}
    meanings: dict[str, str] = {}
    for word, name in plain.items():
        letters = re.sub(
            r"^(?:answer|response|output|model|assistant|candidate|text|option|system)_?(?=[ab12]$)", "", name
        )
        side = (
            own.get(name) or scale.get(name.removesuffix(".0")) or {"a": "a", "b": "b", "1": "a", "2": "b"}.get(letters)
        )
        side = side or (
            "tie" if name in _TIES or name.startswith("tie") else "unscored" if name in _NO_VERDICT else None
        )
        if side is None:
            return None
        meanings[word] = side
    return meanings if {"a", "b"} & set(meanings.values()) else None


def _slots_of(words: Sequence[str]) -> dict[str, str] | None:
    """Word → first, second, tie or unscored, where the words name slots; else None."""
    meanings = {}
    for word in words:
        name = _plain(word)
        slot = "first" if name in ("first", "left") else "second" if name in ("second", "right") else None
        slot = slot or ("tie" if name in _TIES else "unscored" if name in _NO_VERDICT else None)
        if slot is None:
            return None
        meanings[word] = slot
    return meanings if {"first", "second"} & set(meanings.values()) else None


def _text(found: Mapping[str, Any], lacking: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The columns file, and the first rows in its words."""
    lines = []
    for name, source in found.items():
        lines.append(yaml.safe_dump({name: source}, default_flow_style=None if isinstance(source, Mapping) else False, sort_keys=False, allow_unicode=True, width=10_000).strip())  # fmt: skip
        if name == "verdict" and {"a", "b"} & set(source.get("values", {}).values()):
            lines.append("#   a and b are texts, whichever was shown first; where the words name slots: by: slot, and first, second")  # fmt: skip
    lines += [f"# {name}: …   (no column seems to be it)" for name in lacking]
    if not lacking:
        lines += ["", "# The first rows, read so:", *_sentences(found, rows[:_SAMPLE])]
    return "\n".join(lines)


def _sentences(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One comment line a row: who judged what, and what was picked, in the log's words."""
    columns = load_columns(found)
    names = {side: found.get(f"text_{side}", f"text_{side}") for side in "ab"}
    for number, row in enumerate(rows, start=1):
        read = columns.renamed(row, VERDICT_COLUMNS)
        order, verdict = read.get("order") or "unknown", str(read.get("verdict") or "unscored")
        shown = {"ab": f"{names['a']} shown first", "ba": f"{names['b']} shown first"}.get(order, "order not known")
        picked = {"first": order[0], "second": order[1]}.get(verdict, verdict) if order in ("ab", "ba") else verdict
        what = {"tie": "a tie", "unscored": "no verdict"}.get(picked, f"picked the {picked} slot")
        if picked in names:
            what = f"picked {names[picked]} {_short(read.get(f'text_{picked}'))}"
        gold = f"; gold {names.get(str(read['gold']), read['gold'])}" if read.get("gold") else ""
        yield f"# {number}. {read.get('judge')} on {_short(read.get('prompt', read.get('item_id')))}, {shown}: {what.strip()}{gold}"


def _short(value: object) -> str:
    """A value on one line in quotes, cut; empty where there is none."""
    line = " ".join(str("" if value is None else value).split())
    return f"“{line[:_SHOWN_LETTERS]}{'…' if len(line) > _SHOWN_LETTERS else ''}”" if line else ""
