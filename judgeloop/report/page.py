"""report.html: what the drift report shows, section by section; templates/report.html sets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from judgeloop.report import blocks, shell
from judgeloop.report.blocks import Card
from judgeloop.report.cases import Group
from judgeloop.report.figure import Figure
from judgeloop.report.glance import answers
from judgeloop.report.markdown import kind_of, unanswered
from judgeloop.report.methods import caveats, environment_rows, methods_used
from judgeloop.report.reading import Reading
from judgeloop.report.shell import Section
from judgeloop.report.tables import Table
from judgeloop.report.verdicts import QUESTIONS, Finding, Standing, leading, verdict_name

_TONES: dict[Standing, str] = {"found": "found", "unconfirmed": "open", "unclear": "open", "equivalent": "calm"}
_EVERY = ("scope", "judge", "arm", "contrast", "generation", "panel", "category", "term", "variant", "estimate", "conf_low", "conf_high", "p_adjusted", "n", "n_replicates", "status")  # fmt: skip
_OPEN = 3
"""Findings of a card beside its first that are not folded."""
_MOST_YAML = 40_000


def render(
    reading: Reading,
    facts: Sequence[tuple[str, str]],
    found: Sequence[Finding],
    tables: Mapping[str, Sequence[Table]],
    figures: Mapping[str, Sequence[Figure]],
    cases: Sequence[Group],
) -> str:
    """The whole page. ``tables`` and ``figures`` are by section (judge, model); ``cases`` by their kind."""
    tables = {"judge": (), "model": (), **tables, "methods": _methods(reading)}
    figures = {"judge": (), "model": (), **figures}
    sections = [
        Section("glance", "At a glance"),
        *([Section("judge", "The judge")] if tables["judge"] or figures["judge"] else []),
        *([Section("model", "The model")] if tables["model"] or figures["model"] else []),
        Section("findings", "Every finding"),
        *([Section("cases", "Cases to read")] if cases else []),
        Section("methods", "How this was made"),
    ]
    estimates = pd.DataFrame([{column: getattr(row, column) for column in _EVERY} for row in reading.estimates], columns=list(_EVERY))  # fmt: skip
    return shell.frame(
        "report.html",
        kind=kind_of(reading),
        name=reading.name,
        facts=[fact for fact in facts if fact[0] != "Run"],
        sections=sections,
        specs=blocks.specs(figure for some in figures.values() for figure in some),
        answers=answers(reading, found),
        cards=_cards(found),
        unanswered=unanswered(reading, found),
        tables=tables,
        figures=figures,
        groups=cases,
        choices=blocks.choices(cases),
        caveats=caveats(reading),
        estimates=len(estimates),
        every_estimate=blocks.csv_download(estimates, "estimates.csv", f"All {len(estimates):,} estimates (CSV)"),
        experiment=reading.experiment_text[:_MOST_YAML],
    )


def _cards(found: Sequence[Finding]) -> list[Card]:
    """A card a question that the run bears on."""
    by_question = [(title, [one for one in found if one.question == name]) for name, title in QUESTIONS.items()]
    return [_card(title, findings) for title, findings in by_question if findings]


def _card(title: str, findings: Sequence[Finding]) -> Card:
    first = leading(findings)
    if findings[0].question == "content" and findings[0].verdict == first.verdict:
        first = findings[0]  # these come by harm
    lines = tuple((verdict_name(finding), finding.sentence) for finding in findings if finding is not first)
    return Card(
        title, _TONES.get(first.verdict, "plain"), verdict_name(first), first.sentence, lines[:_OPEN], lines[_OPEN:]
    )


def _methods(reading: Reading) -> list[Table]:
    """The estimators, and what the report was made from."""
    said = "Hashes, versions, seeds and the models that the endpoints reported."
    listed = (
        Table("Methods", "Each estimator, and the terms it was used for.", ("Method", "Terms"), tuple(methods_used(reading))),
        Table("Made from", said, ("What", "Value"), tuple(environment_rows(reading))),
    )  # fmt: skip
    return [table for table in listed if table.rows]
