"""Limits on a run folder's estimates: a YAML file of limits in, an outcome of each limit and row out, in the forms that people
and CI systems read.

The interval decides, never the estimate alone: a limit is passed where the whole interval is within it (equivalence logic),
and exceeded where the whole interval is beyond it. Everything else is inconclusive, which is not a pass.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from judgeloop.errors import InvalidInput
from judgeloop.experiment import inputs
from judgeloop.records import ESTIMATE_COLUMNS, is_control_judge
from judgeloop.stats import estimate
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import quantile, replicates_for
from judgeloop.stats.judge.content import RELATIVE, is_relative_to_raters
from judgeloop.stats.judge.missing import WORST_CASES
from judgeloop.stats.loop.diversity import UNITS
from judgeloop.text.features import FEATURES, STYLE_FEATURES

# Terms that a limits file may name: those of docs/method.md, and those that the folder at hand has

_JUDGE = (
    "first_slot_excess", "position_log_odds", "conflict_rate", "order_agreement", "excess_conflict",
    "repetition_stability", "identical_pair_excess", "longer_preferred_raw", "gold_tied_longer_excess",
    "length_log_odds", "length_ame", "length_exchange_rate", "excess_longer_vs_gold", "length_beyond_agreement", "style_joint", "length_shape", "gold_agreement",
    "gold_log_odds", "self_preference_gold", "self_preference_log_odds", "preference_fairness", "position_consistency", "judgebench_accuracy",
    "consistency_factor", "alpaca_lc_winrate",
    "unscored_share", "reward_accuracy", "mitigation_kept", "mitigation_cost",
)  # fmt: skip
_PROBES = ("padding", "whitespace", "authority", "bandwagon", "injection", "self_name", "tone", *STYLE_FEATURES)
_JUDGE_DRIFT = (
    "first_slot_excess", "conflict_rate", "order_agreement", "longer_preferred_raw", "length_log_odds", "gold_agreement",
    "disagreement",
)  # fmt: skip
_DISTANCE = (
    "kl_from_reference", "proxy_gain", "correct_per_proxy", "gao_alpha_correct", "gao_beta_correct", "best_of_n_proxy",
    "best_of_n_correct", "best_of_n_length", "best_of_n_kl",
)  # fmt: skip
_QUANTITIES = (*FEATURES, "style_score", "correct", "hedging_when_wrong")
_OPEN = re.compile(r"slot_\d+_excess|score_[a-z_]+|arena_style_log_odds_[a-z_]+")
"""Families whose members depend on the design."""


def known_terms() -> frozenset[str]:
    """Every term with a fixed name."""
    terms = {*_JUDGE, *_DISTANCE, *UNITS, "hedging_when_wrong", "phrase_spread"}
    terms |= {f"{name}_log_odds" for name in STYLE_FEATURES} | {f"{name}_probe" for name in _PROBES}
    terms |= {f"judge_drift_{name}" for name in _JUDGE_DRIFT} | {f"transmission_{name}" for name in FEATURES}
    terms |= {f"{prefix}_{name}" for prefix in ("signal_slope", "gradient") for name in FEATURES}
    for prefix in (
        "drift", "did", "selection", "mixing", "learning", "bias_selection", "beyond_first_step", "beyond_strategy",
        "cumulative_gain", "compounding", "observed_over_static", "response", "trend", "loop_gain", "mean", "sd", "pool_range_used",
        "forecast_drift",
    ):  # fmt: skip
        terms |= {f"{prefix}_{name}" for name in _QUANTITIES}
    terms |= {f"{prefix}_{name}" for prefix in ("drift", "did") for name in UNITS}
    return frozenset(terms)


def is_known(term: str, present: Iterable[str] = ()) -> bool:
    """Whether a term, or a pattern with ``*``, is one that judgeloop estimates or the folder has (``present``)."""
    names = known_terms() | set(present)
    if "*" in term:
        return any(matches(term, name) for name in names)
    return term in names or _OPEN.fullmatch(term) is not None


def nearest(term: str, present: Iterable[str] = ()) -> str:
    """The known term most like this one; empty where none is."""
    close = difflib.get_close_matches(term, sorted(known_terms() | set(present)), n=1, cutoff=0.5)
    return close[0] if close else ""


def matches(pattern: str, name: str) -> bool:
    """Whether the name is the pattern, in which ``*`` stands for any text but an empty one."""
    parts = [re.escape(part) for part in pattern.split("*")]
    return re.fullmatch(".+".join(parts) if len(parts) > 1 else parts[0], name, re.DOTALL) is not None


# The limits file: YAML keyed by term

_BOUNDS = ("max", "min", "max_abs")
_SELECTORS = ("judge", "arm", "contrast", "panel", "category", "variant")
_KEYS = (*_BOUNDS, *_SELECTORS, "generation", "required")
_DEFAULTS = "the default limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The estimate of ``term`` shall lie in [low, high] (None: no limit on that side), in the term's unit.

    ``judge`` … ``variant`` select rows by name, ``*`` standing for any text; None is the default choice of ``choose``.
    ``generation`` is a number, "last" or "all". ``required`` False: not applied where the folder has no number of that term.
    ``where``: the place in the limits file, for errors.
    """

    term: str
    low: float | None = None
    high: float | None = None
    judge: str | None = None
    arm: str | None = None
    contrast: str | None = None
    panel: str | None = None
    category: str | None = None
    variant: str | None = None
    generation: int | Literal["last", "all"] = "last"
    required: bool = True
    where: str = ""

    @property
    def text(self) -> str:
        """The limit in signs: "within ±0.05", "≤ 0.1", "≥ 0.6", "0.4 to 0.6"."""
        low, high = self.low, self.high
        if low is not None and high is not None:
            return f"within ±{high:g}" if low == -high else f"{low:g} to {high:g}"
        return f"≤ {high:g}" if high is not None else f"≥ {low:g}"

    @property
    def selectors(self) -> dict[str, str]:
        """The selectors that the file states, as text, by key."""
        names = {name: getattr(self, name) for name in _SELECTORS if getattr(self, name) is not None}
        return names if self.generation == "last" else {**names, "generation": str(self.generation)}


def default_text() -> str:
    """The packaged limits file, as it is shipped."""
    return resources.files("judgeloop").joinpath("limits.yaml").read_text(encoding="utf-8")


def load_limits(path: str | Path | None = None, present: Iterable[str] = ()) -> tuple[Limit, ...]:
    """The limits of a file, or the defaults. ``present``: terms of the folder at hand, accepted beside those of docs/method.md.

    Raises InvalidInput naming file and field: unknown terms (with the nearest), unknown keys, no or contradicting limits.
    """
    if path is not None:
        return _limits(inputs.read_yaml(Path(path), "a limits file"), str(path), frozenset(present))
    with resources.as_file(resources.files("judgeloop").joinpath("limits.yaml")) as shipped:
        return _limits(inputs.read_yaml(shipped, "a limits file"), _DEFAULTS, frozenset(present))


def limits_of(raw: Mapping[str, Any], present: Iterable[str] = ()) -> tuple[Limit, ...]:
    """The limits of a mapping of the same form. Raises InvalidInput as ``load_limits`` does."""
    return _limits(raw, "limits", frozenset(present))


def _limits(raw: Mapping[str, Any], source: str, present: frozenset[str]) -> tuple[Limit, ...]:
    limits: list[Limit] = []
    for name, value in raw.items():
        term = str(name)
        where = f"{source}: {term}"
        if not is_known(term, present):
            close = nearest(term, present)
            more = f"; did you mean {close}?" if close else "; docs/method.md lists all terms"
            raise InvalidInput(f"{where}: unknown term{more}")
        blocks = value if isinstance(value, list) else [value]
        if not blocks:
            raise InvalidInput(f"{where}: the list is empty; give a limit, such as {{max_abs: 0.05}}")
        for place, block in enumerate(blocks):
            limits.append(_limit(term, block, f"{where}[{place}]" if isinstance(value, list) else where))
    if not limits:
        raise InvalidInput(
            f"{source}: no limits; give a term and its limit, such as first_slot_excess: {{max_abs: 0.05}}"
        )
    return tuple(limits)


def _limit(term: str, raw: Any, where: str) -> Limit:
    if not isinstance(raw, dict):
        raise InvalidInput(f"{where}: a limit is a mapping, such as {{max_abs: 0.05}}, this is {inputs.yaml_name(raw)}")
    for key in raw:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.5)
            raise InvalidInput(
                f"{where}.{key}: unknown key; {'did you mean ' + close[0] + '?' if close else 'known: ' + ', '.join(_KEYS)}"
            )
    bounds = {key: _number(raw[key], f"{where}.{key}") for key in _BOUNDS if key in raw}
    low, high = bounds.get("min"), bounds.get("max")
    if "max_abs" in bounds:
        if len(bounds) > 1:
            raise InvalidInput(f"{where}: max_abs stands for both sides; give it alone, or min and max")
        if bounds["max_abs"] < 0:
            raise InvalidInput(f"{where}.max_abs: must not be below 0")
        low, high = -bounds["max_abs"], bounds["max_abs"]
    if low is None and high is None:
        raise InvalidInput(f"{where}: no limit; give max, min or max_abs")
    if low is not None and high is not None and low > high:
        raise InvalidInput(f"{where}: min {low:g} is above max {high:g}")
    names = {key: _name(raw[key], f"{where}.{key}") for key in _SELECTORS if key in raw}
    required = raw.get("required", True)
    if not isinstance(required, bool):
        raise InvalidInput(f"{where}.required: must be true or false")
    return Limit(
        term=term, low=low, high=high, required=required, where=where,
        generation=_generation(raw.get("generation", "last"), f"{where}.generation"), **names,
    )  # fmt: skip


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInput(f"{where}: must be a number, this is {inputs.yaml_name(value)}")
    return float(value)


def _name(value: Any, where: str) -> str:
    # A dose such as 1.25 is a variant, and YAML reads it as a number.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"{where}: must be text, this is {inputs.yaml_name(value)}")
    return value if isinstance(value, str) else f"{value:g}"


def _generation(value: Any, where: str) -> int | Literal["last", "all"]:
    if value in ("last", "all"):
        return "last" if value == "last" else "all"
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{where}: must be a generation's number, last or all")
    return value


# The sample that would decide, at the estimate's present value and spread

_POWER_FACTOR = quantile(0.975) + quantile(0.8)
_MOST = 10_000_000
_MOST_OFFERED = {"replicates": 200, "items": 100_000}
"""Larger samples are named with the words that there is no sample of this kind, for nobody runs them."""


def sample_to_decide(row: Estimate, distance: float) -> str:
    """What it takes, with 80 % power, for the interval to keep clear of a limit ``distance`` away: "about 640 items (now 120)".

    Replicates by the one-sample t (``stats.inference.replicates_for``), items by n·((z₀.₉₇₅ + z₀.₈)·SE/distance)². Empty where
    no spread is known, or the estimate equals the limit. A sample that nobody runs is "no sample of this kind (it takes …)".
    """
    std_error = spread(row)
    if std_error is None or std_error == 0 or distance <= 1e-9 * max(1.0, abs(row.estimate or 0.0)):
        return ""
    if row.n_replicates is not None and row.n_replicates >= 2:
        try:
            needed = replicates_for(distance / (std_error * math.sqrt(row.n_replicates)))
        except ValueError:
            return "no sample of this kind (it takes more than 10,000 replicates)"
        return _sample_words(max(needed, row.n_replicates + 1), row.n_replicates, "replicates")
    now, noun = (row.n_items, "items") if row.n_items else (row.n, "observations")
    if not now:
        return ""
    size = now * (_POWER_FACTOR * std_error / distance) ** 2
    if size > _MOST:
        return f"no sample of this kind (it takes more than {_MOST:,} {noun})"
    return _sample_words(max(math.ceil(size), now + 1), now, noun)


def _sample_words(needed: int, now: int, noun: str) -> str:
    if needed > _MOST_OFFERED.get(noun, _MOST):
        return f"no sample of this kind (it takes about {needed:,} {noun}, now {now:,})"
    return f"about {needed:,} {noun} (now {now:,})"


def spread(row: Estimate) -> float | None:
    """The standard error, in the row's unit; where that is 0 or missing, a quarter of the interval."""
    if row.std_error:
        return row.std_error
    if row.conf_low is None or row.conf_high is None:
        return None
    return (row.conf_high - row.conf_low) / 4.0


# Outcomes

Ruling = Literal["passed", "exceeded", "inconclusive", "not_applied"]
"""The verdict on a limit; an estimate has a ``verdict`` of its own (``stats.estimate``)."""

_PANEL_RANKS = {"pairs": 0, "anchor": 1, "probe": 2, "policy": 3, "": 4}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A limit on one estimate's row (None: no row matches).

    ``margin``: the distance from the interval's nearer end to the limit, in the row's unit; positive = within the limit,
    negative = beyond it. ``message``: why, in a sentence, and where inconclusive the sample that would decide.
    """

    limit: Limit
    verdict: Ruling
    row: Estimate | None
    margin: float | None
    message: str

    @property
    def subject(self) -> str:
        """What the estimate is of: "judge m, arm debiased, generation 3"; the limit's selectors where there is no row."""
        if self.row is None:
            return ", ".join(f"{key} {value}" for key, value in self.limit.selectors.items())
        names = {
            "judge": self.row.judge, "arm": self.row.arm, "against": self.row.contrast, "panel": self.row.panel,
            "generation": "" if self.row.generation is None else str(self.row.generation),
            "category": self.row.category, "variant": self.row.variant,
        }  # fmt: skip
        return ", ".join(f"{key} {value}" for key, value in names.items() if value)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcomes of a check of the folder ``name``, in the limits' order."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def verdict(self) -> Ruling:
        """exceeded if any limit is, else inconclusive if any is or none was applied, else passed."""
        verdicts = {outcome.verdict for outcome in self.outcomes}
        if "exceeded" in verdicts:
            return "exceeded"
        return "passed" if verdicts <= {"passed", "not_applied"} and "passed" in verdicts else "inconclusive"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 exceeded, 5 inconclusive (docs/contract.md, "Exit codes")."""
        return {"passed": 0, "exceeded": 1}.get(self.verdict, 5)


def check(name: str, rows: Sequence[Estimate], limits: Iterable[Limit]) -> CheckResult:
    """Every limit on every row that it selects. Raises InvalidInput for a limit outside what a probability can be."""
    outcomes: list[Outcome] = []
    for limit in limits:
        outcomes += [_relative_to_raters(_decide(limit, row, rows), rows) for row in choose(rows, limit)] or [
            _without_row(limit, rows)
        ]
    return CheckResult(name, tuple(outcomes))


def choose(rows: Sequence[Estimate], limit: Limit) -> list[Estimate]:
    """The rows that a limit selects. Where it states no selector:

    the primary variant, all categories together; every judge and arm but the controls; of a judge's panels the first of pairs,
    anchor, probe, policy; the contrast with the first control arm; the last generation.
    """
    chosen = [row for row in rows if matches(limit.term, row.term)]
    for name in _SELECTORS:
        pattern = getattr(limit, name)
        if pattern is not None:
            chosen = [row for row in chosen if matches(pattern, getattr(row, name))]
    for name in ("variant", "category"):
        if getattr(limit, name) is None:
            chosen = [row for row in chosen if getattr(row, name) == ""]
    if limit.judge is None:
        chosen = [row for row in chosen if not is_control_judge(row.judge)]
    if limit.arm is None:
        # Strategies are contrasted with one another too; a control is what drift is measured against.
        controls = {row.contrast for row in rows if row.contrast and row.term.startswith("did_")}
        controls |= {row.arm for row in rows if row.arm and is_control_judge(row.judge)}  # positive ones too
        chosen = [row for row in chosen if row.arm not in controls]
    if limit.contrast is None:
        first: dict[tuple[str, str], str] = {}
        for row in chosen:
            first.setdefault((row.term, row.arm), row.contrast)
        chosen = [row for row in chosen if row.contrast == first[row.term, row.arm]]
    if limit.panel is None:
        best: dict[tuple[str, str], int] = {}
        for row in chosen:
            key, rank = (row.term, row.judge), _PANEL_RANKS.get(row.panel, 9)
            best[key] = min(best.get(key, 99), rank)
        chosen = [row for row in chosen if _PANEL_RANKS.get(row.panel, 9) == best[row.term, row.judge]]
    return _of_generation(chosen, limit)


def _of_generation(rows: list[Estimate], limit: Limit) -> list[Estimate]:
    if limit.generation == "all":
        return rows
    if limit.generation != "last":
        return [row for row in rows if row.generation == limit.generation]
    last: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = _series(row)
        last[key] = max(last.get(key, -1), -1 if row.generation is None else row.generation)
    return [row for row in rows if last[_series(row)] == (-1 if row.generation is None else row.generation)]


def _series(row: Estimate) -> tuple[str, ...]:
    return row.term, row.judge, row.arm, row.contrast, row.panel, row.category, row.variant


def _without_row(limit: Limit, rows: Sequence[Estimate]) -> Outcome:
    of_term = [row for row in rows if matches(limit.term, row.term)]
    if not of_term:
        why = f"this folder has no estimate of {limit.term}"
    else:
        selected = ", ".join(f"{key} {value}" for key, value in limit.selectors.items())
        lists = []
        for name in (*_SELECTORS, "generation"):
            values = sorted({str(getattr(row, name)) for row in of_term} - {"", "None"})
            if name in limit.selectors and values:
                lists.append(f"{name}s: {', '.join(values[:6])}{', …' if len(values) > 6 else ''}")
        why = f"no estimate of {limit.term} is of {selected or 'a judge or arm that is no control'}" + (
            f" ({'; '.join(lists)})" if lists else ""
        )
    return Outcome(limit, "inconclusive" if limit.required else "not_applied", None, None, why)


def _decide(limit: Limit, row: Estimate, rows: Sequence[Estimate]) -> Outcome:
    if row.unit == "probability":
        _check_reachable(limit, row)
    exact = estimate.constructed_value(row.term) if row.method == estimate.BY_CONSTRUCTION else None
    if exact is not None:
        return Outcome(limit, "passed" if _is_within(limit, exact) else "exceeded", row, None, row.note)
    if row.status == "undefined" or row.estimate is None:
        why = f"undefined: {row.note or 'no number'}"
        return Outcome(limit, "inconclusive" if limit.required else "not_applied", row, None, why)
    if row.conf_low is None or row.conf_high is None:
        why = f"no interval: {row.note or 'this term is described by a test alone'}"
        return Outcome(limit, "inconclusive", row, None, why)
    low, high = limit.low, limit.high
    if row.verdict == "unchanged" and (low is None or low <= 0) and (high is None or high >= 0):
        room = min(abs(bound) for bound in (low, high) if bound is not None)
        why = "every pair was judged as at generation 0: no change on this panel, and the limit is on this panel"
        return Outcome(limit, "passed", row, room, why)
    # From each limit to the interval's end on its side, and from it to the interval's other end, which is beyond it too.
    inside = [row.conf_low - low] if low is not None else []
    inside += [high - row.conf_high] if high is not None else []
    beyond = [low - row.conf_high] if low is not None else []
    beyond += [row.conf_low - high] if high is not None else []
    if min(inside) >= 0 and row.positive_control == "not_seen" and _reaches_zero(row):
        why = (
            "the whole interval is within the limit, but no drift was detected under the positive control either, a judge known to have "
            "such a taste: this run could not see it"
        )
        return Outcome(limit, "inconclusive", row, min(inside), why)
    if min(inside) >= 0 and row.verdict == "not_linear":
        why = "the whole interval is within the limit on average, but the effect is not linear: it may be beyond the limit at some lengths"
        return Outcome(limit, "inconclusive", row, min(inside), why)
    if min(inside) >= 0 and _may_be_missing_alone(row) and not _holds_in_worst_cases(limit, row, rows):
        why = "the whole interval is within the limit, but replies without a verdict, or pairs without gold, could lie beyond it"
        return Outcome(limit, "inconclusive", row, min(inside), why)
    if min(inside) >= 0:
        return Outcome(limit, "passed", row, min(inside), "the whole interval is within the limit")
    if max(beyond) > 0 and _may_be_missing_alone(row):
        why = "the whole interval is beyond the limit, but replies without a verdict, or pairs without gold, could account for it"
        return Outcome(limit, "inconclusive", row, -max(beyond), why)
    if max(beyond) > 0:
        why = f"the whole interval is beyond the limit, by {max(beyond):.3g} or more"
        return Outcome(limit, "exceeded", row, -max(beyond), why)
    return Outcome(limit, "inconclusive", row, min(inside), _why_inconclusive(limit, row))


def _relative_to_raters(outcome: Outcome, rows: Sequence[Estimate]) -> Outcome:
    """The outcome, with what its ruling takes for granted where quality is what two raters agree on."""
    if (
        outcome.verdict not in ("passed", "exceeded")
        or outcome.row is None
        or not is_relative_to_raters(outcome.row, rows)
    ):
        return outcome
    return replace(outcome, message=f"{outcome.message}, {RELATIVE}")


def _may_be_missing_alone(row: Estimate) -> bool:
    """Whether the row's claim was withheld, or depends on its unscored judgments (``stats.judge.missing``)."""
    withheld = row.verdict == "cannot_tell" and row.p_value is None
    return row.scope == "judge" and (withheld or row.verdict.endswith("_if_unscored_alike"))


def _holds_in_worst_cases(limit: Limit, row: Estimate, rows: Sequence[Estimate]) -> bool:
    """Whether both worst cases of the row's unscored judgments are known, and within the limit."""
    cases = [
        case
        for case in rows
        if case.variant in WORST_CASES
        and case.generation == row.generation
        and _series(replace(case, variant=row.variant)) == _series(row)
    ]
    ends = [end for case in cases for end in (case.conf_low, case.conf_high)]
    return len(cases) == len(WORST_CASES) and all(end is not None and _is_within(limit, end) for end in ends)


def _is_within(limit: Limit, value: float) -> bool:
    return (limit.low is None or value >= limit.low) and (limit.high is None or value <= limit.high)


def _reaches_zero(row: Estimate) -> bool:
    return row.conf_low is not None and row.conf_high is not None and row.conf_low <= 0 <= row.conf_high


_SEEN: Mapping[str, str] = {
    "seen": "; the positive control's drift was detected: this run could see one as strong as that",
    "not_seen": "; nor was the positive control's drift detected: this run could not see it",
}


def _why_inconclusive(limit: Limit, row: Estimate) -> str:
    assert row.estimate is not None
    distance = min(abs(row.estimate - bound) for bound in (limit.low, limit.high) if bound is not None)
    needed = sample_to_decide(row, distance)
    side = "inside" if _is_within(limit, row.estimate) else "beyond"
    why = f"the interval reaches across the limit; the estimate is {side} it"
    if _reaches_zero(row):
        why += _SEEN.get(row.positive_control, "")
    if needed:
        return f"{why}; {needed} would decide it, if the estimate and its spread stay (80 % power)"
    return f"{why}; no sample size can be named: the estimate equals the limit, or has no spread"


def _check_reachable(limit: Limit, row: Estimate) -> None:
    for bound in (limit.low, limit.high):
        if bound is not None and abs(bound) > 1:
            raise InvalidInput(
                f"{limit.where}: {row.term} is a probability, so a limit of {bound:g} says nothing; five percentage points are 0.05"
            )


# The forms of a result: a table for people, JUnit XML, GitHub's workflow commands, JSON

FORMAT = "judgeloop-check/1"
_WORDS: Mapping[Ruling, str] = {
    "passed": "passed", "exceeded": "exceeded", "inconclusive": "inconclusive", "not_applied": "not applied",
}  # fmt: skip
_COLOURS: Mapping[Ruling, str] = {
    "passed": "green", "exceeded": "bold red", "inconclusive": "yellow", "not_applied": "dim",
}  # fmt: skip
_LEVELS: Mapping[Ruling, str] = {"exceeded": "error", "inconclusive": "warning"}
# What XML 1.0 may not hold, and what moves a reader's eye: control characters, direction marks, lone surrogates.
_ILLEGAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_LONGEST = 300
_COMMAND = re.compile(r"(:(?=:)|#(?=#))")


def plain(text: str, longest: int = _LONGEST) -> str:
    """A text on one line, without control characters, at most ``longest`` long, and nowhere a workflow command: a line may
    be broken anywhere, and GitHub reads ``::error::`` and ``##[error]`` behind spaces too."""
    line = _COMMAND.sub(r"\1 ", " ".join(_ILLEGAL.sub("\ufffd", text).split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def headline(checked: CheckResult) -> str:
    """One sentence: the verdict and how many limits have which."""
    counts = [
        f"{sum(outcome.verdict == verdict for outcome in checked.outcomes)} {word}"
        for verdict, word in _WORDS.items()
        if any(outcome.verdict == verdict for outcome in checked.outcomes)
    ]
    return f"{plain(checked.name, 60)}: {_WORDS[checked.verdict]} ({', '.join(counts)})"


def table(checked: CheckResult) -> RenderableType:
    """Limits, values, margins; below it a line on each limit that is not passed."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("Verdict", "Term", "Of", "Value [interval]", "Limit", "Margin"):
        grid.add_column(Text(title, style="dim"), overflow="fold")
    for outcome in checked.outcomes:
        word = Text(_WORDS[outcome.verdict], style=_COLOURS[outcome.verdict])
        cells = (outcome.row.term if outcome.row else outcome.limit.term, outcome.subject, value(outcome), outcome.limit.text,
                 _signed(outcome.margin))  # fmt: skip
        grid.add_row(word, *(Text(plain(cell, 80)) for cell in cells))
    parts: list[RenderableType] = [Text(headline(checked), style="bold"), Padding(grid, (1, 0, 0, 0))]
    lines = reasons(checked)
    if lines:
        parts.append(Text(""))
    parts += [Text(f"- {line}") for line in lines]
    return Group(*parts)


def reasons(checked: CheckResult) -> list[str]:
    """A line for every limit that is not passed: which, and why."""
    return [
        f"{_title(outcome)}: {plain(outcome.message)}" for outcome in checked.outcomes if outcome.verdict != "passed"
    ]


def value(outcome: Outcome) -> str:
    """ "0.031 [0.012, 0.050]", or the status where there is no number."""
    row = outcome.row
    if row is None:
        return "no such row"
    if row.estimate is None or row.status == "undefined":
        return "undefined"
    if row.conf_low is None or row.conf_high is None:
        return f"{row.estimate:.3f}"
    return f"{row.estimate:.3f} [{row.conf_low:.3f}, {row.conf_high:.3f}]"


def record(checked: CheckResult) -> str:
    """JSON text: ``format, name, verdict, exit_code, limits``; a limit has its bounds, verdict, margin, message and the
    estimate's row with the columns of docs/contract.md, "Estimates" (null where no row matches)."""
    limits = []
    for outcome in checked.outcomes:
        row = None if outcome.row is None else asdict(outcome.row)
        limits.append({
            "term": outcome.limit.term, "min": outcome.limit.low, "max": outcome.limit.high,
            "selected": outcome.limit.selectors, "required": outcome.limit.required, "verdict": outcome.verdict,
            "margin": outcome.margin, "message": _visible(outcome.message),
            "estimate": None if row is None else {
                column: _visible(row[column]) if isinstance(row[column], str) else row[column] for column in ESTIMATE_COLUMNS
            },
        })  # fmt: skip
    content: dict[str, Any] = {
        "format": FORMAT, "name": _visible(checked.name), "verdict": checked.verdict, "exit_code": checked.exit_code,
        "limits": limits,
    }  # fmt: skip
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def junit(checked: CheckResult) -> str:
    """JUnit XML text: one suite, a case a limit and row. An exceeded limit is a failure, an inconclusive one an error (so that
    no reader takes it for a pass), one that is not applied is skipped. Without times: the same folder gives the same bytes."""
    counts = {
        "tests": len(checked.outcomes),
        "failures": sum(outcome.verdict == "exceeded" for outcome in checked.outcomes),
        "errors": sum(outcome.verdict == "inconclusive" for outcome in checked.outcomes),
        "skipped": sum(outcome.verdict == "not_applied" for outcome in checked.outcomes),
    }
    numbers = {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element(
        "testsuites", {"name": "judgeloop check", **{k: numbers[k] for k in ("tests", "failures", "errors")}}
    )
    suite = ElementTree.SubElement(root, "testsuite", {"name": plain(checked.name), **numbers, "time": "0"})
    for outcome in checked.outcomes:
        case = ElementTree.SubElement(suite, "testcase", {
            "name": f"{_title(outcome)} {outcome.limit.text}", "classname": f"judgeloop.{plain(outcome.limit.term)}", "time": "0",
        })  # fmt: skip
        kind = {"exceeded": "failure", "inconclusive": "error", "not_applied": "skipped"}.get(outcome.verdict)
        if kind is not None:
            why = f"{value(outcome)}, limit {outcome.limit.text}: {plain(outcome.message)}"
            attributes = {"message": why} if kind == "skipped" else {"message": why, "type": outcome.verdict}
            ElementTree.SubElement(case, kind, attributes).text = None if kind == "skipped" else why
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def workflow_commands(checked: CheckResult) -> str:
    """GitHub workflow commands: ``::error`` a limit exceeded, ``::warning`` an inconclusive one, ``::notice`` the verdict."""
    lines = [
        f"::{_LEVELS[outcome.verdict]} title={_property(f'judgeloop: {_title(outcome)}')}::"
        + _data(f"{value(outcome)}, limit {outcome.limit.text}: {plain(outcome.message)}")
        for outcome in checked.outcomes
        if outcome.verdict in _LEVELS
    ]
    lines.append(f"::notice title=judgeloop check::{_data(headline(checked))}")
    return "\n".join(lines) + "\n"


def _title(outcome: Outcome) -> str:
    term = outcome.row.term if outcome.row else outcome.limit.term
    return plain(f"{term} ({outcome.subject})" if outcome.subject else term, 160)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _signed(margin: float | None) -> str:
    return "–" if margin is None else f"{margin:+.3f}"


def _visible(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
