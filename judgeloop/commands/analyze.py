"""``judgeloop.analyze``: judgments that exist already, in memory, and into a run folder where one is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop import analysis
from judgeloop.errors import ColumnsGuessed, InvalidInput
from judgeloop.interchange.guess import guess
from judgeloop.interchange.rows import Columns, Input, load_columns, named, raw_rows
from judgeloop.interchange.texts import is_texts, read_texts
from judgeloop.interchange.verdicts import Sources, files_of, format_of, read_log
from judgeloop.results import Audit

TABLES = (".jsonl", ".ndjson", ".csv", ".parquet")
"""Endings of files that hold a row a line."""


def analyze(
    verdicts: Sources,
    pairs: Input | None = None,
    *,
    format: str = "auto",  # noqa: A002  the contract's option
    out: str | Path | None = None,
    columns: str | Path | Mapping[str, Any] | None = None,
    yes: bool = False,
    mitigate: str | Sequence[str] = (),
    gold_exact: bool = False,
    report: bool = True,
    watch: analysis.Watch = lambda *_: None,
) -> Audit:
    """The statistics of an audit on judgments that exist already, in memory; nothing is asked. Only ``out``, a folder, or
    ``.save(folder)`` of the result writes anything: estimates, tables and, with ``report``, the report.

    ``verdicts``: a path, several of one tool, a folder of its logs or a run folder, "-" for standard input, or a frame.
    ``format``: judgeloop (docs/contract.md, "Verdict logs"), alpaca_eval, mt_bench, arena_hard, chatbot_arena, preferences, inspect, lm_eval, promptfoo,
    openai_evals, deepeval, ragas; texts
    (docs/contract.md, "Texts by generation"), which have no verdicts: then drift, diversity and tails; auto tells it by content. ``pairs``: a path, "-" or a frame, joined on pair_id. ``columns`` names what the log calls
    otherwise; without it the columns of an unknown log are guessed, and taken only with ``yes``. ``mitigate``: mitigations to measure on the same verdicts, names of docs/mitigations.md as a list or with
    commas. ``gold_exact``: gold cannot err, as a verifiable reference; else one gold alone makes no claim
    (docs/method.md). ``watch`` is called with (judge, judges done, judges) before each judge's estimates. Raises InvalidInput naming
    file, row and column, ColumnsGuessed with the guess where ``yes`` is missing; FolderMismatch where ``out`` holds something else, StorageFailed where it cannot be written.
    """
    mitigations = analysis.named_mitigations(mitigate)
    mapping = load_columns(columns)
    if _of_texts(verdicts, mapping, format):
        return _of_generations(
            verdicts, pairs, mapping, columns, bool(mitigations) or gold_exact, out=out, report=report
        )
    files, guessed = files_of(verdicts), None
    if columns is None and format in ("auto", "judgeloop"):
        guessed = _guessed(verdicts, files, yes=yes)
        mapping = guessed or mapping
    log = read_log(verdicts, pairs, mapping, format=format)
    if guessed:
        names = ", ".join(
            f"{name} is {source.column or repr(source.value)}" for name, source in mapping.sources.items()
        )
        log = dataclasses.replace(log, notes=(f"its columns were guessed: {names}", *log.notes))
    sources = _sources(verdicts, files, pairs, columns)
    analyzed = analysis.analyze_log(
        log, name=_name(verdicts, files), sources=sources, mitigate=mitigations, watch=watch, gold_exact=gold_exact,
        settings={"format": format, "mitigate": [name for name in mitigations if name != "raw"], "gold_exact": gold_exact, "columns": _mapping(mapping)},
    )  # fmt: skip
    result = Audit(analysis.AnalysisRecord(analyzed))
    return result if out is None else result.save(out, report=report)


def _guessed(verdicts: Sources, files: tuple[Path, ...], *, yes: bool) -> Columns | None:
    """The columns of a log of an unknown form, as they are guessed; None where its columns are judgeloop's or another tool's, or
    where it cannot be read twice. Raises ColumnsGuessed without ``yes``, and where a required column is not found."""
    if isinstance(verdicts, pd.DataFrame):
        if format_of(verdicts) != "judgeloop":
            return None
        source: Input = verdicts
    elif len(files) == 1 and files[0].suffix in TABLES and format_of(files[0]) == "judgeloop":
        source = files[0]
    else:
        return None
    rows = (row for _, row in raw_rows(source, "verdicts"))
    first = next(rows, None)
    if first is None or guess([first]) is None:
        return None  # most logs are of judgeloop's form, and large: one row says so
    found = guess([first, *rows])
    if found is None:
        return None
    name = named(source, "verdicts")
    if found.lacking:
        raise ColumnsGuessed(
            f"{name}: its columns are not judgeloop's, and none seems to be {', '.join(found.lacking)}; complete what is guessed as columns.yaml and give --columns columns.yaml",
            found.text,
        )
    if not yes:
        raise ColumnsGuessed(
            f"{name}: its columns are not judgeloop's, and what they mean is guessed; give --yes to read them so, or save the guess as columns.yaml, mend it and give --columns columns.yaml",
            found.text,
        )
    return found.mapping


def _of_texts(verdicts: Sources, columns: Columns, format_name: str) -> bool:
    """Whether the source is texts by generation: ``format`` says so, or the first row of a frame or of the first file does."""
    if format_name != "auto":
        return format_name == analysis.TEXTS
    if isinstance(verdicts, pd.DataFrame):
        return is_texts(dict.fromkeys(map(str, verdicts.columns)), columns)
    path = next(iter(files_of(verdicts)), None)
    if path is None or path.suffix not in TABLES or format_of(path) != "judgeloop":
        return False
    first = next(raw_rows(path, "texts"), None)
    return first is not None and is_texts(first[1], columns)


def _of_generations(
    texts: Sources, pairs: Input | None, mapping: Columns, columns: str | Path | Mapping[str, Any] | None,
    of_verdicts: bool, *, out: str | Path | None, report: bool,
) -> Audit:  # fmt: skip
    """The analysis of texts by generation. Raises InvalidInput for options that are about verdicts."""
    source = texts if isinstance(texts, pd.DataFrame | str | Path) else next(iter(texts))
    if pairs is not None or of_verdicts:
        raise InvalidInput(f"{named(source, 'texts')}: these are texts without verdicts; --pairs, --mitigate and --gold-exact are about verdicts")  # fmt: skip
    files = files_of(texts)
    log = read_texts(files or source, mapping)
    analyzed = analysis.analyze_texts(
        log, name=_name(texts, files), sources=_sources(texts, files, None, columns),
        settings={"format": analysis.TEXTS, "columns": _mapping(mapping)},
    )  # fmt: skip
    result = Audit(analysis.AnalysisRecord(analyzed))
    return result if out is None else result.save(out, report=report)


def _mapping(columns: Columns) -> dict[str, Any]:
    """judgeloop's column → where the log has it, as JSON can hold it: only what was named."""
    sources = {name: dataclasses.asdict(source) for name, source in columns.sources.items()}
    return {name: {key: value for key, value in source.items() if value} for name, source in sources.items()}


def _name(verdicts: Sources, files: tuple[Path, ...]) -> str:
    """The analysis's name: that of its file or folder; of several files, the first's."""
    if not files:
        return "analysis"
    first = Path(str(verdicts)) if isinstance(verdicts, str | Path) else files[0]
    if first.is_dir():
        name = first.resolve().name
        return f"{name}-analysis" if (first / "experiment.yaml").is_file() else name
    return first.stem


def _sources(
    verdicts: Sources, files: tuple[Path, ...], pairs: Input | None, columns: str | Path | Mapping[str, Any] | None
) -> dict[str, Any]:
    """Role (verdicts, verdicts_2 …, pairs, columns) → what was read, for the folder's record."""
    if len(files) < 2:
        source = files[0] if files else verdicts if not isinstance(verdicts, list | tuple) else verdicts[0]
        return analysis.sources_of(source, pairs, columns)  # type: ignore[arg-type]
    sources = analysis.sources_of(files[0], pairs, columns)
    logs = {"verdicts": sources.pop("verdicts")}
    for number, path in enumerate(files[1:], start=2):
        logs[f"verdicts_{number}"] = analysis.sources_of(path, None, None)["verdicts"]
    for path, source in zip(files, logs.values(), strict=True):
        # Files of several models have one name, in folders that are named after the models.
        source["name"] = f"{path.resolve().parent.name}/{path.name}"
    return {**logs, **sources}
