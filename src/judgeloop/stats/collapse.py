"""Early collapse, where tails go while means hold, told from late, where variety goes too. Negative = less than the control.

After Shumailov et al. (2024): a model trained on its own outputs first loses what is rare, and only later its spread.
Everything is read from estimates that exist: differences from the control arm over replicates, with their intervals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate

TAIL = "did_tail_mass_retained"
BODY = {"did_mattr": -1, "did_distinct_2": -1, "did_vendi": -1, "did_compression_ratio": 1, "did_self_bleu": 1}
"""What tells of the bulk's variety, and the sign that means less of it."""


def collapse_estimates(rows: Sequence[Estimate], design: Design) -> list[Estimate]:
    """``collapse_stage``, a row a contrast at the last generation: did_tail_mass_retained, and in ``note`` the word for it.

    ``early collapse``: the tail's interval lies below 0 while no measure of the bulk lost variety and one at least is
    shown to hold (equivalent to 0). ``late collapse``: tail and bulk lost. ``bulk narrowed, tail not seen to``: the bulk
    alone. ``tail lost, bulk unclear``: the bulk's measures show neither loss nor equivalence. ``no collapse seen``
    otherwise, which is no claim that there is none. ``rows``: the output of ``drift_estimates``.
    """
    at_end = [
        one
        for one in rows
        if one.contrast and not one.category and not one.variant and one.generation == design.generations
    ]
    found = []
    for arm, control in design.contrasts:
        here = {one.term: one for one in at_end if (one.arm, one.contrast) == (arm, control)}
        if TAIL in here:
            word, why = _stage(here)
            tail = here[TAIL]
            note = tail.note if tail.status == "undefined" else f"{word}: {why}; {tail.note}"
            found.append(
                dataclasses.replace(
                    tail, term="collapse_stage", family="none", p_value=None, p_adjusted=None, note=note
                )
            )
    return found


def _stage(here: dict[str, Estimate]) -> tuple[str, str]:
    tail = here[TAIL]
    lost = tail.conf_high is not None and tail.conf_high < 0
    body = {term: here[term] for term in BODY if term in here and here[term].conf_low is not None}
    less = [term for term, one in body.items() if _lost(one, BODY[term])]
    held = [term for term, one in body.items() if one.note.startswith("none:")]
    if lost and less:
        return "late collapse", f"the tail and {_names(less)} are below the control's"
    if lost and held:
        return "early collapse", f"the tail is below the control's while {_names(held)} holds"
    if lost:
        return "tail lost, bulk unclear", "no measure of the bulk shows a loss, and none is shown to hold"
    if less:
        return "bulk narrowed, tail not seen to", f"{_names(less)} is below the control's"
    return "no collapse seen", "no measure is below the control's; see each for what this run could have seen"


def _lost(one: Estimate, sign: int) -> bool:
    limit = one.conf_high if sign < 0 else one.conf_low
    return limit is not None and sign * limit > 0


def _names(terms: Sequence[str]) -> str:
    return ", ".join(term.removeprefix("did_") for term in terms)
