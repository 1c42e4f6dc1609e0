"""Rows for probes that were asked for and could edit no text: a question without an answer is said, not passed over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from judgeloop.auditing.questions import Probing, Questions
from judgeloop.judging.edits import PROBES
from judgeloop.stats.estimate import estimates_frame
from judgeloop.stats.inference import Undefined
from judgeloop.stats.judge.probes import bias_of
from judgeloop.stats.rows import PROBABILITY, Counts, Labels, row


def unapplied(asked: Questions, probing: Probing, probes: Sequence[str], judges: Iterable[str]) -> pd.DataFrame:
    """A row ``undefined`` a judge for every probe (its primary), or one of its doses, that could edit none of the texts."""
    counted = {(name, dose): probing.edited.get((name, dose), (0, 0))[0]
               for name in probes for dose in PROBES[name].doses or (None,)}  # fmt: skip
    empty: list[tuple[str, str, str]] = []
    for name in probes:
        doses = [dose for probe, dose in counted if probe == name]
        if not any(counted[name, dose] for dose in doses):
            empty.append((name, "", f"applies to no text: {_why(asked, name)}"))
            continue
        empty += [
            (name, f"{dose:g}", "applies to no text: this dose is out of reach")
            for dose in doses if dose is not None and not counted[name, dose]
        ]  # fmt: skip
    return estimates_frame([
        row(Labels(judge, panel="probe"), "position" if name == "identical" else bias_of(name), PROBES[name].term,
            Undefined(why), Counts(0, 0, 0), unit=PROBABILITY, variant=variant)
        for judge in judges for name, variant, why in empty
    ])  # fmt: skip


def _why(asked: Questions, name: str) -> str:
    probe = PROBES[name]
    if probe.kind == "model":
        return "the model wrote no edit that could be used"
    texts = asked.texts()
    reasons = {probe.refuses(text.text, asked.items[text.item_id].language) for text in texts}
    return "; ".join(sorted(reason or "it has nothing to edit there" for reason in reasons)) or "there is none"
