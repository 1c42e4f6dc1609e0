"""Counterfactual probes: edits of a text that change one thing and keep the content (docs/probes.md).

``PROBES[name].apply(text, …)`` edits by rule, deterministically; ``write_edit`` asks a model for the two probes that no
rule can write.
"""

from __future__ import annotations

from collections.abc import Mapping

from judgeloop.judging import lexicon, model_edits
from judgeloop.judging.edits import claims, padding, structure
from judgeloop.judging.edits.probe import Probe, Task, length_ratio
from judgeloop.judging.lexicon import languages
from judgeloop.judging.model_edits import Written, edit_call_id, write_edit
from judgeloop.records import PADDING_DOSES

__all__ = ["PROBES", "RULE_PROBES", "Probe", "Written", "edit_call_id", "length_ratio", "write_edit"]


def _no_rule(_: Task) -> str | None:
    """The rule of a model-written probe, which has none."""
    return None


_ALL = (
    Probe(
        "padding", "rule", "sentences of the text are repeated, until it has grown by the dose",
        "all words in their order; the added sentences only repeat", padding.padding, padding.padding_kept,
        PADDING_DOSES, languages(lexicon.LEADS),
    ),
    Probe(
        "markdown_added", "rule", "bold, lists and headings, as far as each applies (two at least)",
        "all words in their order; headings have no content", structure.markdown_added, structure.markdown_added_kept,
        (), languages(lexicon.PARTS),
    ),
    Probe(
        "markdown_removed", "rule", "marks of headings, lists, quotes and emphasis are taken out",
        "all words in their order, and code", structure.markdown_removed, structure.markdown_removed_kept,
    ),
    Probe(
        "bold", "rule", "the longest word of half of the sentences is bold", "the text but for the asterisks",
        structure.bold, structure.bold_kept,
    ),
    Probe(
        "list_items", "rule", "paragraphs become lists, an item a sentence", "the text but for dashes and line breaks",
        structure.list_items, structure.list_items_kept,
    ),
    Probe(
        "headings", "rule", "a heading without content over up to four paragraphs", "the text but for the headings",
        structure.headings, structure.headings_kept, (), languages(lexicon.PARTS),
    ),
    Probe(
        "hedges", "rule", "half of the statements end in a hedge", "the text but for the hedges",
        claims.hedges, claims.hedges_kept, (), languages(lexicon.HEDGES),
    ),
    Probe(
        "emoji", "rule", "an emoji behind half of the sentences", "the text but for the emoji",
        claims.emoji, claims.emoji_kept,
    ),
    Probe(
        "tone", "rule", "half of the statements end in words of certainty", "the text but for those words",
        claims.tone, claims.tone_kept, (), languages(lexicon.CONFIDENT),
    ),
    Probe(
        "authority", "rule", "a last paragraph cites an invented source", "the text before it",
        claims.last_paragraph(lexicon.AUTHORITY, "authority"), claims.same_but_last(lexicon.AUTHORITY), (),
        languages(lexicon.AUTHORITY),
    ),
    Probe(
        "bandwagon", "rule", "a last paragraph says that others agree", "the text before it",
        claims.last_paragraph(lexicon.BANDWAGON, "bandwagon"), claims.same_but_last(lexicon.BANDWAGON), (),
        languages(lexicon.BANDWAGON),
    ),
    Probe(
        "injection", "rule", "a last paragraph tells the judge to choose this answer", "the text before it",
        claims.last_paragraph(lexicon.INJECTION, "injection"), claims.same_but_last(lexicon.INJECTION), (),
        languages(lexicon.INJECTION),
    ),
    Probe(
        "self_name", "rule", "a last paragraph says that the judge's own model wrote it", "the text before it",
        claims.self_name, claims.same_but_last(lexicon.SELF_NAME), (), languages(lexicon.SELF_NAME), per_judge=True,
    ),
    Probe(
        "whitespace", "rule", "white space that is not rendered", "every word, mark and feature",
        structure.whitespace, structure.whitespace_kept, control=True,
    ),
    Probe("identical", "rule", "nothing", "the text", structure.unchanged, structure.unchanged_kept, control=True),
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
