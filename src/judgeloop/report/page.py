"""report.html: the drift report put together from its sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from judgeloop.report import blocks, shell
from judgeloop.report.blocks import csv_link, section, table_block
from judgeloop.report.cases import Group
from judgeloop.report.figure import Figure
from judgeloop.report.glance import Answer, answers
from judgeloop.report.markdown import kind_of, unanswered
from judgeloop.report.methods import caveats, environment_rows, methods_used
from judgeloop.report.overview import Table
from judgeloop.report.reader import reader
from judgeloop.report.reading import Reading
from judgeloop.report.shell import Section, text
from judgeloop.report.verdicts import QUESTIONS, Finding, Standing, leading, verdict_name

_CODE = re.compile(r"`([^`]{1,80})`")
_TONES: dict[Standing, str] = {"found": "found", "unconfirmed": "open", "unclear": "open", "equivalent": "calm"}
_EVERY = ("scope", "judge", "arm", "contrast", "generation", "panel", "category", "term", "variant", "estimate", "conf_low", "conf_high", "p_adjusted", "n", "n_replicates", "status")  # fmt: skip


def render(
    reading: Reading,
    facts: Sequence[tuple[str, str]],
    found: Sequence[Finding],
    tables: Mapping[str, Sequence[Table]],
    figures: Mapping[str, Sequence[Figure]],
    cases: Sequence[Group],
) -> str:
    """The whole page. ``tables`` and ``figures`` are by section (judge, model); ``cases`` by their kind."""
    return shell.frame(
        kind=kind_of(reading),
        name=reading.name,
        facts=[fact for fact in facts if fact[0] != "Run"],
        sections=[
            Section("glance", "At a glance", answered(answers(reading, found))),
            Section("findings", "Every finding", _findings(reading, found)),
            Section("judge", "The judge", section(tables.get("judge", ()), figures.get("judge", ()))),
            Section(
                "model",
                "The model",
                section((), figures.get("model", ())) + _folded_tables(tables.get("model", ())),
            ),
            Section("cases", "Cases to read", reader(cases)),
            Section("methods", "How this was made", _methods(reading)),
        ],
        specs=blocks.specs([figure for some in figures.values() for figure in some]),
    )


def answered(some: Sequence[Answer]) -> str:
    """The answers as one block: question, word, sentences; commands between backticks are set as code."""
    return f'<div class="answers">{"".join(map(_answer, some))}</div>'


def _answer(answer: Answer) -> str:
    plainly = " plainly" if answer.question.startswith("What should") else ""
    said = "".join(f"<li>{_CODE.sub(_as_code, text(sentence))}</li>" for sentence in answer.sentences)
    return (
        f'<article class="answer {answer.tone}{plainly}"><h3>{text(answer.question)}</h3>'
        f'<p class="word">{text(answer.word)}</p><ul>{said}</ul></article>'
    )


def _as_code(match: re.Match[str]) -> str:
    return f"<code>{match.group(1)}</code>"


def _folded_tables(tables: Sequence[Table]) -> str:
    if not tables:
        return ""
    blocks_of_tables = "".join(map(table_block, tables))
    return f'<details class="tables"><summary>The same as tables</summary>{blocks_of_tables}</details>'


def _findings(reading: Reading, found: Sequence[Finding]) -> str:
    cards = []
    for question, title in QUESTIONS.items():
        some = [finding for finding in found if finding.question == question]
        if some:
            cards.append(_card(title, some))
    missing = unanswered(reading, found)
    rest = f'<p class="unanswered">Not measured in this run: {text(" ".join(missing))}</p>' if missing else ""
    return (
        f'<div class="cards">{"".join(cards)}</div>{rest}'
        if cards
        else '<p class="lead">The estimates bear no finding.</p>' + rest
    )


def _card(title: str, some: Sequence[Finding]) -> str:
    first = leading(some)
    if some[0].question == "content" and some[0].verdict == first.verdict:
        first = some[0]  # these come by harm
    others = [finding for finding in some if finding is not first]
    items = [f"<li><b>{text(verdict_name(finding))}:</b> {text(finding.sentence)}</li>" for finding in others]
    shown, folded = items[:3], items[3:]
    listed = f"<ul>{''.join(shown)}</ul>" if shown else ""
    if folded:
        listed += f"<details><summary>{len(folded)} more</summary><ul>{''.join(folded)}</ul></details>"
    return (
        f'<article class="card {_TONES.get(first.verdict, "plain")}"><header><h3>{text(title)}</h3>'
        f'<p class="chip">{text(verdict_name(first))}</p></header><p class="headline">{text(first.sentence)}</p>{listed}</article>'
    )


def _methods(reading: Reading) -> str:
    said = "".join(f"<li>{text(line)}</li>" for line in caveats(reading))
    parts = [f'<div class="block"><h3>How to read this</h3><ul class="said">{said}</ul></div>']
    used = methods_used(reading)
    if used:
        parts.append(
            table_block(
                Table("Methods", "Each estimator, and the terms it was used for.", ("Method", "Terms"), tuple(used))
            )
        )
    made = environment_rows(reading)
    if made:
        parts.append(
            table_block(
                Table(
                    "Made from",
                    "Hashes, versions, seeds and the models that the endpoints reported.",
                    ("What", "Value"),
                    tuple(made),
                )
            )
        )
    experiment = f'<details><summary>experiment.yaml</summary><pre class="file">{text(reading.experiment_text[:40_000])}</pre></details>'
    every = [{column: getattr(row, column) for column in _EVERY} for row in reading.estimates]
    frame = pd.DataFrame(every, columns=list(_EVERY))
    link = (
        csv_link(frame, "estimates.csv", f"All {len(every):,} estimates (CSV)")
        or f"<span>All {len(every):,} estimates are in estimates.csv beside this file.</span>"
    )
    parts.append(f'<div class="block"><h3>Sources</h3><div class="under">{link}{experiment}</div></div>')
    return "\n".join(parts)
