"""The fixed panels that a judge judges anew in every generation, shared by arms and replicates: anchor pairs, and probes, their
texts against edits that change one thing and keep the content (docs/probes.md).

``PROBES[name].apply(text, …)`` edits by rule, deterministically; ``model_edits.write_edit`` asks a model for the two probes
that no rule can write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from judgeloop.judging import edits, lexicon, model_edits
from judgeloop.judging.edits import Probe, Task, length_ratio
from judgeloop.judging.lexicon import languages
from judgeloop.records import PADDING_DOSES, Candidate, Item, Matchup


def _no_rule(_: Task) -> str | None:
    """The rule of a model-written probe, which has none."""
    return None


_ALL = (
    Probe(
        "padding", "rule", "sentences of the text are repeated, until it has grown by the dose",
        "all words in their order; the added sentences only repeat", edits.padding, edits.padding_kept,
        PADDING_DOSES, languages(lexicon.LEADS),
    ),
    Probe(
        "markdown_added", "rule", "bold, lists and headings, as far as each applies (two at least)",
        "all words in their order; headings have no content", edits.markdown_added, edits.markdown_added_kept,
        (), languages(lexicon.PARTS),
    ),
    Probe(
        "markdown_removed", "rule", "marks of headings, lists, quotes and emphasis are taken out",
        "all words in their order, and code", edits.markdown_removed, edits.markdown_removed_kept,
    ),
    Probe(
        "bold", "rule", "the longest word of half of the sentences is bold", "the text but for the asterisks",
        edits.bold, edits.bold_kept,
    ),
    Probe(
        "list_items", "rule", "paragraphs become lists, an item a sentence", "the text but for dashes and line breaks",
        edits.list_items, edits.list_items_kept,
    ),
    Probe(
        "headings", "rule", "a heading without content over up to four paragraphs", "the text but for the headings",
        edits.headings, edits.headings_kept, (), languages(lexicon.PARTS),
    ),
    Probe(
        "hedges", "rule", "half of the statements end in a hedge", "the text but for the hedges",
        edits.hedges, edits.hedges_kept, (), languages(lexicon.HEDGES),
    ),
    Probe(
        "emoji", "rule", "an emoji behind half of the sentences", "the text but for the emoji",
        edits.emoji, edits.emoji_kept,
    ),
    Probe(
        "tone", "rule", "half of the statements end in words of certainty", "the text but for those words",
        edits.tone, edits.tone_kept, (), languages(lexicon.CONFIDENT),
    ),
    Probe(
        "authority", "rule", "a last paragraph cites an invented source", "the text before it",
        edits.last_paragraph(lexicon.AUTHORITY, "authority"), edits.same_but_last(lexicon.AUTHORITY), (),
        languages(lexicon.AUTHORITY),
    ),
    Probe(
        "bandwagon", "rule", "a last paragraph says that others agree", "the text before it",
        edits.last_paragraph(lexicon.BANDWAGON, "bandwagon"), edits.same_but_last(lexicon.BANDWAGON), (),
        languages(lexicon.BANDWAGON),
    ),
    Probe(
        "injection", "rule", "a last paragraph tells the judge to choose this answer", "the text before it",
        edits.last_paragraph(lexicon.INJECTION, "injection"), edits.same_but_last(lexicon.INJECTION), (),
        languages(lexicon.INJECTION),
    ),
    Probe(
        "self_name", "rule", "a last paragraph says that the judge's own model wrote it", "the text before it",
        edits.self_name, edits.same_but_last(lexicon.SELF_NAME), (), languages(lexicon.SELF_NAME), per_judge=True,
    ),
    Probe(
        "whitespace", "rule", "white space that is not rendered", "every word, mark and feature",
        edits.whitespace, edits.whitespace_kept, control=True,
    ),
    Probe("identical", "rule", "nothing", "the text", edits.unchanged, edits.unchanged_kept, control=True),
    Probe(
        "model_padding", "model", "a model repeats the text's content in other words, until it has grown by the dose",
        "every number, and by its instruction the content", _no_rule, model_edits.numbers_kept, PADDING_DOSES,
    ),
    Probe(
        "model_paraphrase", "model", "a model rewords the text at the same length",
        "every number, and by its instruction the content", _no_rule, model_edits.numbers_kept,
    ),
)  # fmt: skip

PROBES: Mapping[str, Probe] = {probe.name: probe for probe in _ALL}
"""Every probe by name."""

RULE_PROBES: tuple[str, ...] = tuple(probe.name for probe in _ALL if probe.kind == "rule")
"""The probes that need no model."""


PROBE_COLUMNS = ("probe", "dose", "dose_reached")
"""What judgments of panel probe have beside the columns of docs/contract.md, "Tables": ``dose`` is the nominal length
ratio (NaN where the probe has none), ``dose_reached`` the edit's tokens per token of its original."""

JOINT = "~"
"""Joins the parts of a probe pair's id; call ids contain it unquoted."""


@dataclass(frozen=True, slots=True)
class ProbePair:
    """A matchup of a text (a) and its edit (b); ``dose`` and ``dose_reached`` as in PROBE_COLUMNS, None where there is no dose."""

    matchup: Matchup
    probe: str
    dose: float | None
    dose_reached: float


def probe_pair(
    matchup: Matchup, side: str, probe: str, dose: float | None, edited: str, judge_name: str = ""
) -> ProbePair:
    """The pair of ``matchup``'s text on that side (``a`` or ``b``) and its edit, however that was made.

    Its id is ``<pair>~<side>~<probe>[~<dose>]``, the edit's ``<candidate>~<probe>[~<dose>]``; an edit that names the judge
    ends in ``~<judge>``, since every judge has its own.
    """
    original = matchup.a if side == "a" else matchup.b
    names = [probe] if dose is None else [probe, f"{dose:g}"]
    edit_names = [*names, judge_name] if PROBES[probe].per_judge else names
    edit = Candidate(matchup.item_id, JOINT.join([original.candidate_id, *edit_names]), edited)
    pair_id = JOINT.join([matchup.pair_id, side, *names])
    ratio = length_ratio(original.text, edited)
    return ProbePair(Matchup(matchup.item_id, pair_id, original, edit), probe, dose, ratio)


def rule_pairs(
    matchup: Matchup, probes: Iterable[str], *, seed: int, language: str = "en", judge_name: str = ""
) -> list[ProbePair]:
    """Both texts of a matchup against their edits by rule, each dose apart; edits that do not apply are left out.

    ``judge_name`` is for edits that name the judge. A text that is the matchup's a and b alike is edited once.
    """
    pairs = []
    for name in probes:
        probe = PROBES[name]
        for side in ("a",) if matchup.a.text == matchup.b.text else ("a", "b"):
            original = matchup.a if side == "a" else matchup.b
            for dose in probe.doses or (None,):
                # The candidate's id is in the stream, so that two texts of an item are edited at different places.
                stream = f"{matchup.item_id}/{original.candidate_id}"
                edited = probe.apply(
                    original.text, item_id=stream, seed=seed, dose=dose, language=language, judge_name=judge_name
                )
                if edited is not None:
                    pairs.append(probe_pair(matchup, side, name, dose, edited, judge_name))
    return pairs


def with_probes(judgments: pd.DataFrame, pairs: Sequence[ProbePair]) -> pd.DataFrame:
    """The judgments of probe pairs (joined by pair_id) with PROBE_COLUMNS."""
    by_id = {pair.matchup.pair_id: pair for pair in pairs}
    probe_pairs = [by_id[pair_id] for pair_id in judgments["pair_id"]]
    return judgments.assign(
        probe=pd.Series([pair.probe for pair in probe_pairs], index=judgments.index, dtype="object"),
        dose=[np.nan if pair.dose is None else pair.dose for pair in probe_pairs],
        dose_reached=[pair.dose_reached for pair in probe_pairs],
    )


Draft = Callable[[Item, str, str, tuple[str | int, ...]], Awaitable[tuple[Candidate | None, str]]]
"""(item, candidate_id, call-id prefix, stream) → (candidate, "") or (None, reason)."""


@dataclass(frozen=True)
class AnchorPanel:
    """Pairs with their items; ``failed`` are drafts that have no text, as (item_id, candidate_id, reason)."""

    items: Mapping[str, Item]
    matchups: tuple[Matchup, ...]
    failed: tuple[tuple[str, str, str], ...] = ()

    def by_item(self) -> dict[str, list[Matchup]]:
        """Matchups by item_id, in panel order."""
        matchups: dict[str, list[Matchup]] = {}
        for matchup in self.matchups:
            matchups.setdefault(matchup.item_id, []).append(matchup)
        return matchups


async def draft_anchor(size: int, items: Sequence[Item], draft: Draft) -> AnchorPanel:
    """``size`` pairs, dealt to the items in turn, each of two texts that the base policy drafts for the panel only."""

    async def pair(number: int) -> tuple[Item, list[tuple[str, Candidate | None, str]]]:
        item, turn = items[number % len(items)], number // len(items)
        names = [f"anchor{2 * turn}", f"anchor{2 * turn + 1}"]
        drafts = [await draft(item, name, "panels/g0/draft", ("anchor", name)) for name in names]
        return item, [(name, candidate, why) for name, (candidate, why) in zip(names, drafts, strict=True)]

    pairs = await asyncio.gather(*(pair(number) for number in range(size)))
    matchups, failed = [], []
    for number, (item, drafts) in enumerate(pairs):
        (_, a, _), (_, b, _) = drafts
        if a is not None and b is not None:
            matchups.append(Matchup(item.item_id, f"anchor-{number:03d}", a, b))
        failed += [(item.item_id, name, why) for name, candidate, why in drafts if candidate is None]
    return AnchorPanel({item.item_id: item for item in items}, tuple(matchups), tuple(failed))


def anchor_from_pairs(pairs: Sequence[tuple[str, Item, str, str]]) -> AnchorPanel:
    """The anchor panel of a pairs file: (pair_id, item, text_a, text_b)."""
    items = {item.item_id: item for _, item, _, _ in pairs}
    matchups = [
        Matchup(
            item.item_id,
            pair_id,
            Candidate(item.item_id, f"{pair_id}:a", text_a),
            Candidate(item.item_id, f"{pair_id}:b", text_b),
        )
        for pair_id, item, text_a, text_b in pairs
    ]
    return AnchorPanel(items, tuple(matchups))


def probes_of_panel(panel: AnchorPanel, probes: Sequence[str], seed: int, judge_name: str = "") -> list[ProbePair]:
    """The probe panel: every anchor text against its edits by rule, in the item's language; edits that name the judge use
    ``judge_name``."""
    return [
        pair
        for matchup in panel.matchups
        for pair in rule_pairs(
            matchup, probes, seed=seed, language=panel.items[matchup.item_id].language, judge_name=judge_name
        )
    ]
