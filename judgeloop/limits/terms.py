"""The terms that a limits file may name: those of the method page, and those that the folder at hand has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from judgeloop.stats.loop.diversity import UNITS
from judgeloop.text.features import FEATURES, STYLE_FEATURES

_JUDGE = (
    "first_slot_excess", "position_log_odds", "conflict_rate", "order_agreement", "excess_conflict",
    "repetition_stability", "identical_pair_excess", "longer_preferred_raw", "gold_tied_longer_excess",
    "length_log_odds", "length_ame", "length_exchange_rate", "excess_longer_vs_gold", "style_joint", "gold_agreement",
    "gold_log_odds", "self_preference_gold", "self_preference_log_odds", "preference_fairness", "alpaca_lc_winrate",
    "unscored_share", "mitigation_kept", "mitigation_cost",
)  # fmt: skip
_PROBES = ("padding", "whitespace", "authority", "bandwagon", "injection", "self_name", "tone", *STYLE_FEATURES)
_JUDGE_DRIFT = (
    "first_slot_excess", "conflict_rate", "order_agreement", "longer_preferred_raw", "length_log_odds",
)  # fmt: skip
_QUANTITIES = (*FEATURES, "style_score", "correct", "hedging_when_wrong")
_OPEN = re.compile(r"slot_\d+_excess|score_[a-z_]+|arena_style_log_odds_[a-z_]+")
"""Families whose members depend on the design."""


def known_terms() -> frozenset[str]:
    """Every term with a fixed name."""
    found = {*_JUDGE, *UNITS, "kl_from_reference", "hedging_when_wrong"}
    found |= {f"{name}_log_odds" for name in STYLE_FEATURES} | {f"{name}_probe" for name in _PROBES}
    found |= {f"judge_drift_{name}" for name in _JUDGE_DRIFT} | {f"transmission_{name}" for name in FEATURES}
    found |= {f"{prefix}_{name}" for prefix in ("signal_slope", "gradient") for name in FEATURES}
    for prefix in ("drift", "did", "selection", "mixing", "learning", "bias_selection", "cumulative_gain", "compounding",
                   "observed_over_static", "trend", "loop_gain", "mean", "sd", "forecast_drift"):  # fmt: skip
        found |= {f"{prefix}_{name}" for name in _QUANTITIES}
    found |= {f"{prefix}_{name}" for prefix in ("drift", "did") for name in UNITS}
    return frozenset(found)


def is_known(term: str, present: Iterable[str] = ()) -> bool:
    """Whether a term, or a pattern with ``*``, names anything that judgeloop estimates or the folder holds."""
    every = known_terms() | set(present)
    if "*" in term:
        return any(matches(term, name) for name in every)
    return term in every or _OPEN.fullmatch(term) is not None


def nearest(term: str, present: Iterable[str] = ()) -> str:
    """The known term most like this one; empty where none is."""
    close = difflib.get_close_matches(term, sorted(known_terms() | set(present)), n=1, cutoff=0.5)
    return close[0] if close else ""


def matches(pattern: str, name: str) -> bool:
    """Whether the name is the pattern, in which ``*`` stands for any text but none."""
    parts = [re.escape(part) for part in pattern.split("*")]
    return re.fullmatch(".+".join(parts) if len(parts) > 1 else parts[0], name, re.DOTALL) is not None
