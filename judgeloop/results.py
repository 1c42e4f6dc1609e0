"""What a run or an analysis leaves: frames (docs/contract.md, "Tables"), the report, one screen of words, a notebook's
table.

A result reads its record, which is a run folder or in memory, and never changes it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import yaml

from judgeloop import analysis, report
from judgeloop.errors import InvalidInput
from judgeloop.report import judge_figures, reading, text, wording
from judgeloop.report.findings import findings, judge_rows
from judgeloop.report.tables import Table, judges_compared, rated_facts, unscored_reasons
from judgeloop.report.tables import facts as overview_facts
from judgeloop.report.tables import tables as rated_tables
from judgeloop.rundir import Record, RunFolder
from judgeloop.stats.estimate import Estimate, default_margin
from judgeloop.stats.judge.content import TERM as UNSCORED

# Column's title → the terms that can fill it, the better founded first. What is measured otherwise has another title.
_JUDGE_TABLE = {
    "First slot": (("first_slot_excess", ""),),
    "Order flips": (("conflict_rate", ""),),
    "Padding, per doubling": (("padding_probe", "slope"),),
    "Length at equal gold": (("length_ame", ""), ("length_ame", "given_gold")),
    "Longer won (raw)": (("longer_preferred_raw", ""),),
    "Agrees with gold": (("gold_agreement", ""),),
}
_INSTEAD = {"Length at equal gold": "Padding, per doubling", "Longer won (raw)": "Length at equal gold"}
"""Columns that give way to another: the screen is narrow, and report.md has both."""
_MOST_NAMES = 3
_WIDTH = 100
_SHORTEST_NAME = 12


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """What a run left: frames with the columns of docs/contract.md, "Tables", the report, and the settings that made
    them. Nothing here can be set."""

    record: Record

    @property
    def folder(self) -> RunFolder:
        """The run folder. Raises InvalidInput where the result is in memory alone."""
        if isinstance(self.record, RunFolder):
            return self.record
        raise InvalidInput(f"{self.record.name}: this result is in memory and has no folder; .save(folder) writes one")

    @property
    def path(self) -> Path:
        """Where the run folder is. Raises InvalidInput where the result is in memory alone."""
        return self.folder.path

    @property
    def estimates(self) -> pd.DataFrame:
        """One tidy row an estimate."""
        return self.record.estimates()

    @property
    def judgments(self) -> pd.DataFrame:
        """One row a judgment."""
        return self.record.table("judgments")

    @property
    def candidates(self) -> pd.DataFrame:
        """One row a text, arm and generation."""
        return self.record.table("candidates")

    @property
    def figures(self) -> Mapping[str, Any]:
        """Every plot of the report as a Plotly figure, by name (``drift/Length``, ``amplification-chain``, …)."""
        return report.figures(self.record)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What made the result, read-only: ``name``; ``asked`` (the experiment, or what an audit or analysis was asked for,
        a log's ``columns`` among it); ``seed``; ``margins`` of equivalence by unit; ``sources``, files and their hashes;
        ``versions``."""
        stated, environment = _stated(self.record), self.record.environment()
        block = stated.get("analyze") or stated.get("audit")
        asked = block if isinstance(block, dict) else {key: value for key, value in stated.items() if key != "name"}
        asked = {**asked, **environment.get("settings", {})}
        versions = {name: environment[name] for name in ("judgeloop", "python") if name in environment}
        return MappingProxyType({
            "name": str(stated.get("name") or self.record.name),
            "asked": asked,
            "seed": asked.get("seed", environment.get("seed", 0)),
            "margins": {unit: default_margin(unit) for unit in ("probability", "log-odds", "ratio")},
            "sources": environment.get("files", {}),
            "versions": {**versions, **environment.get("libraries", {})},
        })  # fmt: skip

    def summary(self) -> str:
        """The one-screen summary."""
        return report.summary(self.record)

    def write_report(self) -> None:
        """Write report.html, report.md and report.json anew. Raises InvalidInput where the result has no folder."""
        report.write(self.folder)

    def to_html(self, path: str | Path) -> Path:
        """Write the self-contained HTML report to a file of your choice. Raises StorageFailed where it cannot be written."""
        return report.write_html(self.record, Path(path))

    def _facts(self, read: reading.Reading) -> list[tuple[str, str]]:
        return overview_facts(read)

    def _repr_html_(self) -> str:
        from judgeloop.report import notebook  # asks for plotly.js

        read = reading.read(self.record)
        return notebook.render(read.name, self._facts(read), findings(read.estimates))

    def __repr__(self) -> str:
        where = repr(str(self.path)) if isinstance(self.record, RunFolder) else f"{self.record.name!r}, in memory"
        return f"{type(self).__name__}({where})"


@dataclass(frozen=True, eq=False, repr=False)
class Audit(Run):
    """Judges' biases from judgments, asked now or there already; in memory, or in a folder. Generation, arm and replicate
    are empty where the log has none."""

    def save(self, folder: str | Path, *, report: bool = True) -> Audit:
        """Write estimates, tables and, with ``report``, the report into a run folder, and return the result that reads it.

        Raises FolderMismatch where the folder holds something else, StorageFailed where it cannot be written, InvalidInput
        where the result has a folder already.
        """
        if not isinstance(self.record, analysis.AnalysisRecord):
            raise InvalidInput(f"{self.record.name}: this result is in a folder already, {self.path}; copy that")
        done = Audit(RunFolder(folder))
        analysis.write(self.record.analysis, done.folder)
        if report:
            done.write_report()
        return done

    def _facts(self, read: reading.Reading) -> list[tuple[str, str]]:
        return _facts(read)

    def summary(self) -> str:
        """One screen: what was read, every judge with intervals, the findings, and what this log cannot tell and why."""
        read = reading.read(self.record)
        mitigated = judge_figures.tables(read, narrow=True)
        listed = (_judges(read.estimates), judges_compared(read), *mitigated, unscored_reasons(read))
        listed += tuple(rated_tables(read))
        tables = [table for table in listed if table is not None]
        shown = text.render_terminal(read, _facts(read), findings(read.estimates), tables)
        lines = [text.as_text(shown, _WIDTH).rstrip("\n")]
        if mitigated:
            lines += ["", "Mitigations"]
        for sentence in judge_figures.sentences(read):
            lines += textwrap.wrap(sentence, 98, initial_indent="- ", subsequent_indent="  ")
        notes = read.environment.get("import_notes") or []
        if notes:
            lines += ["", "How the log was read"]
            for note in notes:
                lines += textwrap.wrap(wording.label(str(note), 400), 98, initial_indent="- ", subsequent_indent="  ")
        unknown = cannot_be_known(read.estimates)
        if unknown:
            lines += ["", "Not known from these verdicts"]
            for what, why in unknown:
                lines += textwrap.wrap(f"{what} – {why}", 98, initial_indent="- ", subsequent_indent="  ")
        return "\n".join(lines) + "\n"


def opened(folder: RunFolder) -> Run:
    """The folder as what it holds: an Audit where judges were audited or judgments analysed, else a Run."""
    return Run(folder) if folder.kind == "run" else Audit(folder)


def _stated(record: Record) -> dict[str, Any]:
    """The experiment's text as a mapping; empty where it is none."""
    try:
        stated = yaml.safe_load(record.experiment_text())
    except yaml.YAMLError:
        return {}
    return stated if isinstance(stated, dict) else {}


def open_run(path: str | Path) -> Run:
    """An existing run folder; an ``Audit`` where ``audit`` or ``analyze`` wrote it. Raises FolderMismatch where it is none."""
    return opened(RunFolder.existing(path))


def cannot_be_known(estimates: Sequence[Estimate]) -> list[tuple[str, str]]:
    """(measures, and for which judges where not for all; why) of the primary estimates that are undefined, by reason."""
    primary = [row for row in estimates if row.scope == "judge" and row.variant == "" and row.category == ""]
    judges = {row.judge for row in primary}
    known = {(row.judge, row.term) for row in primary if row.status != "undefined"}
    undefined = [row for row in primary if row.status == "undefined" and (row.judge, row.term) not in known]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in undefined:
        reasons.setdefault((row.note, row.term), []).append(row.judge)
    grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (why, term), named in reasons.items():
        grouped.setdefault((why, tuple(dict.fromkeys(named))), []).append(term)
    found = []
    for (why, whose), terms in grouped.items():
        more = f" and {len(whose) - _MOST_NAMES} more" if len(whose) > _MOST_NAMES else ""
        few = ", ".join(wording.label(judge) for judge in whose[:_MOST_NAMES]) + more
        what = "; ".join(dict.fromkeys(map(wording.term_name, terms)))
        what += "" if len(whose) == len(judges) else f" ({few})"
        lost = [row for row in undefined if row.term in terms and row.judge in whose] if UNSCORED in terms else []
        found.append((what, wording.reason(why + _unscored(lost))))
    return found


def _unscored(rows: Sequence[Estimate]) -> str:
    """ " (unscored here: 2 to 8 of 80)", over the rows' judges; empty where none is unscored."""
    if not any(row.n_unscored for row in rows):
        return ""
    return f" (unscored here: {_span([row.n_unscored for row in rows])} of {_span([row.n for row in rows])})"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _facts(read: reading.Reading) -> list[tuple[str, str]]:
    """What was read."""
    rows = read.judgments
    if rows.empty:
        return rated_facts(read) + [fact for fact in overview_facts(read) if fact[0] == "Model calls"]
    keys = ["replicate", "arm", "generation", "panel", "item_id", "pair_id"]
    shown = rows[rows["panel"] != "probe"].groupby(keys, dropna=False)["order"].nunique()
    edits = len(rows.loc[rows["panel"] == "probe", keys].drop_duplicates())
    both, unscored = int((shown == 2).sum()), int((rows["verdict"] == "unscored").sum())
    facts = [
        ("Verdicts", f"{len(rows):,}"),
        ("Judges", f"{rows['judge'].nunique():,}"),
        ("Items", f"{rows['item_id'].nunique():,}"),
        ("Pairs", f"{len(shown):,} ({both:,} in both orders, {len(shown) - both:,} in one)"),
        *([("Texts against their edits", f"{edits:,}")] if edits else []),
        ("Orders", ", ".join(f"{order} {int((rows['order'] == order).sum()):,}" for order in ("ab", "ba"))),
        ("Unscored", f"{unscored:,} ({100 * unscored / len(rows):.1f} %)"),
    ]
    if len(read.candidates):
        facts.append(("Texts", f"{len(read.candidates):,}, measured"))
    elif "len_a" in rows:
        facts.append(("Lengths", f"given, in {read.environment.get('length_unit', 'characters')}"))
    else:
        facts.append(("Texts", "none, and no lengths"))
    facts.append(("Gold", f"on {int((rows['gold'] != '').sum()):,} verdicts" if (rows["gold"] != "").any() else "none"))
    unused = read.environment.get("pairs_without_verdict")
    facts += [("Pairs without a verdict", f"{unused:,}")] if unused else []
    return facts + [fact for fact in overview_facts(read) if fact[0] == "Model calls"]


def _one_line(name: str, shared: str, room: int) -> str:
    """A name that fits: without the beginning that all share, then cut in its middle."""
    line = wording.label(name, 400)
    if len(line) > room and len(shared) > 1:
        line = "…" + wording.label(name.removeprefix(shared), 400)
    if len(line) <= room:
        return line
    tail = (room - 1) // 2
    return f"{line[: room - 1 - tail]}…{line[-tail:]}"


def _judges(estimates: Sequence[Estimate]) -> Table | None:
    """A row a judge. Of several panels or generations the one that speaks for the judge, as in the report."""
    cells: dict[str, dict[str, str]] = {}
    for title, terms in _JUDGE_TABLE.items():
        for term, variant in terms:
            for row in judge_rows(estimates, term, variant):
                cell = cells.setdefault(row.judge, {})
                if row.status != "undefined":
                    cell.setdefault(title, wording.cell(row) + (wording.ONE_GOLD if variant == "given_gold" else ""))
    if not cells:
        return None
    titles = [title for title in _JUDGE_TABLE if any(title in cell for cell in cells.values())]
    for title, other in _INSTEAD.items():
        titles = [one for one in titles if one != title or other not in titles]
    values = {judge: [cell.get(title, "–") for title in titles] for judge, cell in cells.items()}
    widths = [max(len(title), *(len(row[n]) for row in values.values())) for n, title in enumerate(titles)]
    room = max(_SHORTEST_NAME, _WIDTH - sum(width + 2 for width in widths))
    shared = commonprefix(list(values)) if len(values) > 1 else ""  # noqa: RUF071  letter by letter is meant
    rows = tuple((_one_line(judge, shared, room), *row) for judge, row in values.items())
    return Table(
        "The judges (%, 95 % intervals; first slot: even is 50; per doubling: points)",
        "",
        ("Judge", *titles),
        rows,
        whole=True,
    )
