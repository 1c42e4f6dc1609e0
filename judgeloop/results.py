"""The results of a run, an audit or an analysis: frames (docs/contract.md, "Tables"), the report, a one-screen summary, a
notebook's table.

A result reads its record, a run folder or one in memory, and never changes it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from os.path import commonprefix
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import yaml

from judgeloop import analysis, report
from judgeloop.errors import InvalidInput
from judgeloop.records import ORDERS, UNKNOWN_ORDER
from judgeloop.report import judge_figures, text, wording
from judgeloop.report.findings import findings, judge_rows
from judgeloop.report.reading import Reading, read
from judgeloop.report.tables import Table, judges_compared, rated_facts, unscored_reasons
from judgeloop.report.tables import facts as overview_facts
from judgeloop.report.tables import tables as rated_tables
from judgeloop.rundir import Record, RunFolder
from judgeloop.stats.estimate import Estimate, default_margin
from judgeloop.stats.items import copied
from judgeloop.stats.judge.missing import GOLD_MISSING_TESTS, UNSCORED_TESTS
from judgeloop.stats.judge.missing import UNSCORED_JOINT as UNSCORED

# Column's title → (term, variant) of the estimates that can fill it, the best founded first. What is measured in another way has
# another title.
_JUDGE_TABLE = {
    "First slot": (("first_slot_excess", ""),),
    "Order flips": (("conflict_rate", ""),),
    "Padding, per doubling": (("padding_probe", "slope"),),
    "Length at equal gold": (("length_ame", ""), ("length_ame", "given_gold")),
    "Longer won (raw)": (("longer_preferred_raw", ""),),
    "Agrees with gold": (("gold_agreement", ""),),
}
_REPLACED_BY = {"Length at equal gold": "Padding, per doubling", "Longer won (raw)": "Length at equal gold"}
"""Columns that are left out where another is there: the screen is narrow, and report.md has both."""
_MOST_NAMES, _MOST_UNKNOWN = 3, 1
_WIDTH = 100
_SHORTEST_NAME = 12


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The result of a run: frames with the columns of docs/contract.md, "Tables", the report, and the settings. Read-only."""

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
        """The settings of the result, read-only: ``name``; ``asked`` (the experiment, or the options of an audit or analysis, with a
        log's ``columns``); ``seed``; ``margins`` of equivalence by unit; ``sources``, files and their hashes;
        ``versions``."""
        experiment, environment = _experiment(self.record), self.record.environment()
        block = experiment.get("analyze") or experiment.get("audit")
        asked = block if isinstance(block, dict) else {key: value for key, value in experiment.items() if key != "name"}
        asked = {**asked, **environment.get("settings", {})}
        versions = {name: environment[name] for name in ("judgeloop", "python") if name in environment}
        return MappingProxyType({
            "name": str(experiment.get("name") or self.record.name),
            "asked": asked,
            "seed": asked.get("seed", environment.get("seed", 0)),
            "margins": {unit: default_margin(unit) for unit in ("probability", "log-odds", "ratio")},
            "sources": environment.get("files", {}),
            "versions": {**versions, **environment.get("libraries", {})},
        })  # fmt: skip

    @property
    def failed_calls(self) -> dict[str, int]:
        """Reason → calls of which every attempt failed, as their last fault says; the same command asks them again."""
        failed = self.record.environment().get("failed_calls", {})
        return dict(failed) if isinstance(failed, dict) else {}

    def summary(self) -> str:
        """The one-screen summary."""
        return report.summary(self.record)

    def write_report(self) -> None:
        """Write report.html, report.md and report.json anew. Raises InvalidInput where the result has no folder."""
        report.write(self.folder)

    def to_html(self, path: str | Path) -> Path:
        """Write the self-contained HTML report to a file of your choice. Raises StorageFailed where it cannot be written."""
        return report.write_html(self.record, Path(path))

    def _facts(self, reading: Reading) -> list[tuple[str, str]]:
        return overview_facts(reading)

    def _repr_html_(self) -> str:
        from judgeloop.report import page  # imports plotly

        reading = read(self.record)
        return page.notebook_fragment(reading.name, self._facts(reading), findings(reading.estimates))

    def __repr__(self) -> str:
        where = repr(str(self.path)) if isinstance(self.record, RunFolder) else f"{self.record.name!r}, in memory"
        return f"{type(self).__name__}({where})"


@dataclass(frozen=True, eq=False, repr=False)
class Audit(Run):
    """The result of an audit or an analysis: judges' biases, from judgments asked now or read from a log; in memory, or in a folder.
    Generation, arm and replicate are empty where the log has none."""

    def save(self, folder: str | Path, *, report: bool = True) -> Audit:
        """Write estimates, tables and, with ``report``, the report into a run folder, and return the result that reads it.

        Raises FolderMismatch where the folder holds something else, StorageFailed where it cannot be written, InvalidInput
        where the result has a folder already.
        """
        if not isinstance(self.record, analysis.AnalysisRecord):
            raise InvalidInput(f"{self.record.name}: this result is in a folder already, {self.path}; copy that")
        saved = Audit(RunFolder(folder))
        analysis.write(self.record.analysis, saved.folder)
        if report:
            saved.write_report()
        return saved

    def _facts(self, reading: Reading) -> list[tuple[str, str]]:
        return _audit_facts(reading)

    def summary(self) -> str:
        """One screen: what was read, every judge with intervals, the findings, and what is not known from this log, and why."""
        reading = read(self.record)
        mitigations = judge_figures.mitigation_tables(reading, narrow=True)
        judges = _judge_table(reading.estimates)
        rated = (*mitigations, *rated_tables(reading), unscored_reasons(reading), judges_compared(reading))
        needed = [replace(table, needed=True) for table in rated if table is not None]
        if judges is not None and len(judges.rows) == 1:
            # Its estimates stand in the pictures already, and its name in the headline.
            tables = [table.without("Judge") for table in (*needed, judges)]
        else:
            tables = [*([judges] if judges is not None else []), *needed]
        every, facts = findings(reading.estimates), _audit_facts(reading)
        lines = ["", "Mitigations"] if mitigations else []
        for sentence in judge_figures.mitigation_sentences(reading):
            lines += _item(sentence)
        notes = reading.environment.get("import_notes") or []
        if notes:
            lines += [
                "",
                "How the log was read",
                *(line for note in notes for line in _item(wording.label(str(note), 400))),
            ]
        unknown = [_item(f"{measures} – {why}") for measures, why in unknown_measures(reading.estimates)]
        if unknown:
            lines += ["", "Not known from these verdicts"]
            without = text.as_text(text.render_terminal(reading, facts, every, tables, 0), _WIDTH)
            room = text.SCREEN - len(without.splitlines()) - len(lines)
            most = max(_MOST_UNKNOWN, sum(accumulated <= room for accumulated in accumulate(map(len, unknown))))
            lines += [line for item in unknown[:most] for line in item]
            if len(unknown) > most:
                lines.append(f"- … {len(unknown) - most} more, each with its reason in estimates.csv")
        screen = text.render_terminal(reading, facts, every, tables, text.SCREEN - len(lines))
        return "\n".join([text.as_text(screen, _WIDTH).rstrip("\n"), *lines]) + "\n"


def _item(sentence: str) -> list[str]:
    """A sentence as an item of a list, in lines."""
    return textwrap.wrap(sentence, 98, initial_indent="- ", subsequent_indent="  ")


def _experiment(record: Record) -> dict[str, Any]:
    """The experiment as a mapping; empty where its text is none."""
    try:
        experiment = yaml.safe_load(record.experiment_text())
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return experiment if isinstance(experiment, dict) else {}


def open_run(path: str | Path) -> Run:
    """An existing run folder; an ``Audit`` where ``audit`` or ``analyze`` wrote it. Raises FolderMismatch where there is none."""
    folder = RunFolder.existing(path)
    return Run(folder) if folder.kind == "run" else Audit(folder)


def unknown_measures(estimates: Sequence[Estimate]) -> list[tuple[str, str]]:
    """(measures, with their judges where it is not all of them; the reason) of the primary estimates that are undefined."""
    primary = [row for row in estimates if row.scope == "judge" and row.variant == "" and row.category == ""]
    judges = {row.judge for row in primary}
    measured = {(row.judge, row.term) for row in primary if row.status != "undefined"}
    undefined = [
        row
        for row in primary
        if row.status == "undefined"
        and (row.judge, row.term) not in measured
        and row.term not in GOLD_MISSING_TESTS
        and (row.n_unscored or row.term not in UNSCORED_TESTS)
    ]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in undefined:
        reasons.setdefault((row.note, row.term), []).append(row.judge)
    grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (why, term), names in reasons.items():
        grouped.setdefault((why, tuple(dict.fromkeys(names))), []).append(term)
    unknown = []
    for (why, of_judges), terms in sorted(grouped.items(), key=lambda entry: -len(entry[1])):
        more = f" and {len(of_judges) - _MOST_NAMES} more" if len(of_judges) > _MOST_NAMES else ""
        first_names = ", ".join(wording.label(name) for name in of_judges[:_MOST_NAMES]) + more
        named = list(dict.fromkeys(map(wording.term_name, terms)))
        measures = "; ".join(named[:_MOST_NAMES]) + (f" and {len(named) - _MOST_NAMES} more" if len(named) > _MOST_NAMES else "")  # fmt: skip
        measures += "" if len(of_judges) == len(judges) else f" ({first_names})"
        rows = [row for row in undefined if row.term in terms and row.judge in of_judges] if UNSCORED in terms else []
        unknown.append((measures, wording.reason(why + _unscored(rows))))
    return unknown


def _unscored(rows: Sequence[Estimate]) -> str:
    """ " (unscored here: 2 to 8 of 80)", over the rows' judges; empty where none is unscored."""
    if not any(row.n_unscored for row in rows):
        return ""
    return f" (unscored here: {_span([row.n_unscored for row in rows])} of {_span([row.n for row in rows])})"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _audit_facts(reading: Reading) -> list[tuple[str, str]]:
    """(label, value) of what was judged: verdicts, judges, items, pairs, texts, gold."""
    rows = reading.judgments
    if reading.environment.get("mode") == analysis.TEXTS:
        texts = ("Texts", f"{len(reading.candidates):,}, measured")
        return [*(fact for fact in overview_facts(reading) if fact[0] != "Run"), texts]
    if rows.empty:
        return rated_facts(reading) + [fact for fact in overview_facts(reading) if fact[0] == "Model calls"]
    keys = ["replicate", "arm", "generation", "panel", "item_id", "pair_id"]
    pairs = rows[rows["panel"] != "probe"]
    orders = (
        pairs["order"].where(pairs["order"].isin(ORDERS)).groupby([pairs[key] for key in keys], dropna=False).nunique()
    )
    alone, nowhere = int((orders == 1).sum()), int((orders == 0).sum())
    edits = len(rows.loc[rows["panel"] == "probe", keys].drop_duplicates())
    both, unscored = int((orders == 2).sum()), int((rows["verdict"] == "unscored").sum())
    counts = {order: int((rows["order"] == order).sum()) for order in (*ORDERS, UNKNOWN_ORDER)}
    facts = [
        ("Verdicts", f"{len(rows):,}"),
        ("Judges", f"{rows['judge'].nunique():,}"),
        ("Items", f"{rows['item_id'].nunique():,}"),
        (
            "Pairs",
            f"{len(orders):,} ({both:,} in both orders, {alone:,} in one{f', {nowhere:,} in unknown order' if nowhere else ''})",
        ),
        *([("Texts against their edits", f"{edits:,}")] if edits else []),
        ("Orders", ", ".join(f"{order} {count:,}" for order, count in counts.items() if count or order in ORDERS)),
        ("Unscored", f"{unscored:,} ({100 * unscored / len(rows):.1f} %)"),
    ]
    if len(reading.candidates):
        facts.append(("Texts", f"{len(reading.candidates):,}, measured"))
    elif "len_a" in rows:
        facts.append(("Lengths", f"given, in {reading.environment.get('length_unit', 'characters')}"))
    else:
        facts.append(("Texts", "none, and no lengths"))
    facts.append(("Gold", f"on {int((rows['gold'] != '').sum()):,} verdicts" if (rows["gold"] != "").any() else "none"))
    unused = reading.environment.get("pairs_without_verdict")
    copies, originals = copied(reading.items)
    facts += [("Near-copies", f"{copies:,} items, which count as {originals:,}")] if copies else []
    facts += [("Pairs without a verdict", f"{unused:,}")] if unused else []
    return facts + [fact for fact in overview_facts(reading) if fact[0] == "Model calls"]


def _short_name(name: str, shared: str, room: int) -> str:
    """A name in at most ``room`` characters: without the beginning that all judges share, then cut in its middle."""
    line = wording.label(name, 400)
    if len(line) > room and len(shared) > 1:
        line = "…" + wording.label(name.removeprefix(shared), 400)
    if len(line) <= room:
        return line
    tail = (room - 1) // 2
    return f"{line[: room - 1 - tail]}…{line[-tail:]}"


def _judge_table(estimates: Sequence[Estimate]) -> Table | None:
    """A row a judge, of the panel and generation that the report shows too; None without estimates."""
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
    for title, other in _REPLACED_BY.items():
        titles = [name for name in titles if name != title or other not in titles]
    values = {judge: [cell.get(title, "–") for title in titles] for judge, cell in cells.items()}
    widths = [max(len(title), *(len(row[n]) for row in values.values())) for n, title in enumerate(titles)]
    room = max(_SHORTEST_NAME, _WIDTH - sum(width + 2 for width in widths))
    shared = commonprefix(list(values)) if len(values) > 1 else ""  # noqa: RUF071  letter by letter is meant
    rows = tuple((_short_name(judge, shared, room), *row) for judge, row in values.items())
    return Table(
        "The judges (%, 95 % intervals; first slot: even is 50; per doubling: points)",
        "",
        ("Judge", *titles),
        rows,
        whole=len(rows) > 1,
    )
