"""Early collapse, where tails go while means hold, told from late, where the means move too. Negative = less tail kept.

After Shumailov et al. (2024): a model trained on its own outputs first loses what is rare, and only later is it elsewhere
altogether. Everything is read from estimates that exist: differences from the control arm over replicates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate, Verdict
from judgeloop.stats.rows import joined

TAIL = "did_tail_mass_retained"
MEANS = ("did_length", "did_style_score", "did_mattr", "did_correct")
"""What an average score sees: where a text lies, and how varied it is within itself."""


def collapse_estimates(rows: Sequence[Estimate], design: Design) -> list[Estimate]:
    """``collapse_stage``, a row a contrast at the last generation: did_tail_mass_retained, and in ``verdict`` the word for it.

    ``early collapse``: the tail's interval lies below 0, no mean differs from the control's, and one at least is shown to
    hold (equivalent). ``late collapse``: the tail is lost and a mean moved. ``tail lost, means unclear``: the means show
    neither. ``no loss of tail seen`` otherwise, which is no claim that there is none. ``rows``: of ``drift_estimates``.
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
            tail = here[TAIL]
            stage, why = _stage(here)
            found.append(
                dataclasses.replace(
                    tail, term="collapse_stage", family="none", p_value=None, p_adjusted=None, verdict=stage, margin=None,
                    detectable=None,
                    note=joined(why, tail.note),
                )
            )  # fmt: skip
    return found


def _stage(here: dict[str, Estimate]) -> tuple[Verdict, str]:
    """The stage, and what it rests on."""
    high = here[TAIL].conf_high
    if here[TAIL].status == "undefined":
        return "", ""
    if high is None or high >= 0:
        return "no loss of tail seen", "its interval reaches 0"
    moved = [term for term in MEANS if term in here and here[term].verdict == "drifting"]
    held = [term for term in MEANS if term in here and here[term].verdict == "none"]
    if moved:
        return "late collapse", f"the tail is below the control's, and {_names(moved)} moved too"
    if held:
        return "early collapse", f"the tail is below the control's while {_names(held)} holds"
    return "tail lost, means unclear", "no mean is seen to move, and none is shown to hold"


def _names(terms: Sequence[str]) -> str:
    return ", ".join(term.removeprefix("did_") for term in terms)
