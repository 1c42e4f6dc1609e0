"""Probe pairs: every text of a pair against its own edits, each a matchup with the original as a and the edit as b."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from judgeloop.judging.edits import PROBES
from judgeloop.judging.edits.probe import length_ratio
from judgeloop.records import Candidate, Matchup

PROBE_COLUMNS = ("probe", "dose", "dose_reached")
"""What judgments of panel probe have beside the contract's columns: ``dose`` is the nominal length ratio (NaN where the
probe has none), ``dose_reached`` the edit's tokens per token of its original."""

JOINT = "~"
"""Joins the parts of a probe pair's id; call ids contain it unquoted."""


@dataclass(frozen=True, slots=True)
class ProbePair:
    """A text (``matchup.a``) and its edit (``matchup.b``)."""

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
    """The judgments of probe pairs (contract columns, joined by pair_id) with PROBE_COLUMNS."""
    by_id = {pair.matchup.pair_id: pair for pair in pairs}
    probe_pairs = [by_id[pair_id] for pair_id in judgments["pair_id"]]
    return judgments.assign(
        probe=pd.Series([pair.probe for pair in probe_pairs], index=judgments.index, dtype="object"),
        dose=[np.nan if pair.dose is None else pair.dose for pair in probe_pairs],
        dose_reached=[pair.dose_reached for pair in probe_pairs],
    )
