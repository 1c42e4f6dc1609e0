"""Worlds in which what a report might claim is false: their tables, and what is true in them.

A world draws one sample, an audit's judgments or a run's tables, and states as data what may be said of it. ``claims``
passes the samples through estimates and report, and counts what is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.stats.design import Design, RunTables
from judgeloop.stats.judge.missing import GOLD_MISSING_TESTS, UNSCORED_TESTS

Generator = np.random.Generator


# What is true


@dataclass(frozen=True, slots=True)
class Truth:
    """What may be said of a term.

    - ``signs``: of the effect that is there (0: an effect without a sign, as of a joint test); empty where none is
    - ``none``: whether "none within the margin", and "unchanged", is true
    - ``words``: the words on compounding that are true
    - ``value``: the estimand in the term's unit, where a limit is to be compared with it
    """

    signs: frozenset[int] = frozenset()
    none: bool = True
    words: frozenset[str] = frozenset()
    value: float | None = None


NOTHING = Truth(value=0.0)
MORE = Truth(frozenset({1}), none=False)
LESS = Truth(frozenset({-1}), none=False)
UNEVEN = Truth(none=False)
"""An effect that is no simple more or less: neither sign is true, and "none" is not either."""
THERE = Truth(frozenset({0}), none=False)

Truths = Mapping[str, Truth]
"""Pattern of a term (``*`` stands for any text), or subject of an answer or advice → what is true; the first that matches."""


MISSING_TESTS = (*UNSCORED_TESTS, *GOLD_MISSING_TESTS)
"""Tests whether what is missing, replies or gold, depends on what is there."""
_ON_COPIES = ("advice form", "advice obedience", "advice added_words", "advice probe_padding")


def of_judge(
    position: Truth = NOTHING, length: Truth = NOTHING, style: Truth = NOTHING, own: Truth = NOTHING
) -> Truths:  # fmt: skip
    """What is true of a judge's audit."""
    every = (position, length, style, own)
    content = NOTHING if length == style == NOTHING else THERE
    shapes = {NOTHING: NOTHING, UNEVEN: Truth(frozenset({-1, 1}), none=False)}  # of other tastes it is not stated
    return {
        **({"length_shape": shapes[length]} if length in shapes else {}),
        "first_slot_excess": position, "identical_pair_excess": position, "position_log_odds": position,
        "length_ame": length, "length_log_odds": length, "excess_longer_vs_gold": length,
        "gold_tied_longer_excess": length, "padding_probe": length, "score_length_slope": length, "style_joint": content,
        "score_*_slope": style, "*_probe": style, "self_preference_*": own, "judge_difference_*": NOTHING,
        "slot_*_excess": position, "position_permutation": position, "score_scale_anchoring": position,
        **dict.fromkeys(MISSING_TESTS, NOTHING),
        "answer biased": NOTHING if all(truth == NOTHING for truth in every) else THERE,
        "advice both_orders": NOTHING if position == NOTHING else THERE,
        "advice length": length, **dict.fromkeys(_ON_COPIES, NOTHING if style == NOTHING else THERE),
    }  # fmt: skip


def of_run(length: Truth, *words: str) -> Truths:
    """What is true of a run whose style does not drift: ``length``'s drift, and the ``words`` on its compounding."""
    growing = Truth(frozenset({0}) if length.signs else frozenset(), length.none, frozenset(words))
    return {
        "did_length": length, "did_style_score": NOTHING, "beyond_first_step_length": Truth(words=frozenset(words)),
        "beyond_first_step_style_score": Truth(), "answer growing": growing, "judge_drift_*": NOTHING,
        "advice pin_version": NOTHING, "advice real_data": THERE if "amplifying" in words else NOTHING,
    }  # fmt: skip


# Samples


@dataclass(frozen=True)
class AuditSample:
    """One judge's log: judgments with a table of their texts' features, or a ``log`` with the texts themselves."""

    judgments: pd.DataFrame
    features: pd.DataFrame | None = None
    gold_exact: bool = False
    log: VerdictLog | None = None


@dataclass(frozen=True)
class RunSample:
    """The tables of one run, and its design."""

    tables: RunTables
    design: Design


@dataclass(frozen=True)
class EstimatedSample:
    """Estimates of what is neither verdicts on pairs nor a run: scores, choices from lists, texts by generation."""

    estimates: pd.DataFrame
    arms: tuple[str, ...] = ()
    controls: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


Sample = AuditSample | RunSample | EstimatedSample


@dataclass(frozen=True)
class ClaimWorld:
    """A world: what it is, how a sample is drawn, and what is true in it."""

    about: str
    draw: Callable[[Generator], Sample]
    truths: Truths = field(default_factory=of_judge)
    relative: Truths | None = None
    """What is true relative to what the two raters share; None: the same."""

    def truth(self, term: str, *, relative: bool = False) -> Truth | None:
        """What is true of the term; None where the world does not state it."""
        truths = self.truths if not relative or self.relative is None else self.relative
        return next((truth for pattern, truth in truths.items() if fnmatchcase(term, pattern)), None)
