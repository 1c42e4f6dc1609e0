"""The claims study: what a report claims of samples from worlds in which it is false, and how often.

A claim is a finding that a user would act on: "found", "none within margin", a word on compounding, the answer on the first
screen, an advice, the ruling of ``judgeloop check``. It is read from the fields of findings, answers and advice; from their
sentences only whether they say that they hold relative to what two raters share. A claim is held where its rate, over the worlds in which it is false, is at most its level and two Monte-Carlo errors.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd

from judgeloop import analysis
from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.limits import CheckResult, Limit, check, known_terms, load_limits
from judgeloop.report import wording
from judgeloop.report.answers import AdviceKind, QuestionAnswer, answers
from judgeloop.report.claims import COMPOUNDING, Finding, is_probe
from judgeloop.report.findings import findings
from judgeloop.report.reading import Reading, as_estimates
from judgeloop.seeds import rng
from judgeloop.stats.estimate import LOG_ODDS, PROBABILITY, Bias, Estimate, Verdict, estimates_frame
from judgeloop.stats.judge.content import RELATIVE, is_relative_to_raters
from judgeloop.stats.judge.covariates import feature_unit
from judgeloop.stats.judge.pointwise import LENGTHS, POINTS
from judgeloop.stats.loop.amplification import (
    amplification_estimates,
    divergences,
    signal_slopes,
    with_settled_compounding,
)
from judgeloop.stats.loop.diversity import UNITS
from judgeloop.stats.loop.drift import CONFIRMATORY, drift_estimates, strategy_gap_estimates
from judgeloop.stats.loop.estimates import fitted_sizes
from judgeloop.stats.loop.forecast import range_estimates
from judgeloop.stats.loop.over_optimisation import over_optimisation_estimates
from judgeloop.stats.loop.panels import judge_drift_estimates
from judgeloop.stats.loop.price import accounts
from judgeloop.stats.loop.replicates import measure, series
from judgeloop.stats.multiplicity import ALPHA, JUDGE_FAMILY, adjust, with_run_families
from judgeloop.validation.audit_worlds import AUDIT_WORLDS
from judgeloop.validation.claim_worlds import AuditSample, ClaimWorld, EstimatedSample, RunSample, Sample, Truth
from judgeloop.validation.run_worlds import RUN_WORLDS
from judgeloop.validation.table import study

WORLDS: dict[str, ClaimWorld] = {**AUDIT_WORLDS, **RUN_WORLDS}

LEVEL = 0.05
"""The rate at which a claim may be made where it is false; of an exploratory finding, the rate of Benjamini and Hochberg's
method (``multiplicity.ALPHA``)."""
CHECK_LEVEL = 0.025
"""The same for a limit that ``check`` calls passed, or exceeded: one side of a 95 % interval."""
_ANSWERS = ("biased", "growing")
_WORDS = tuple(word for word, standing in COMPOUNDING.items() if standing != "unclear")
"""The words on compounding that claim something."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said, as facts.

    - ``place``: finding, answer, advice, check; or test, an unadjusted p-value of at most .05, which is never said
    - ``term``: of the estimate; of an answer or advice, its subject ("answer biased", "advice length")
    - ``says``: found, none (within margin), unchanged, a word on compounding, passed, exceeded, rejected
    - ``sign``: of the effect; 0 where it has none
    - ``relative``: whether it is said to hold relative to what the two raters share
    """

    place: str
    question: str
    term: str
    says: str
    sign: int
    relative: bool = False

    def is_false(self, truth: Truth) -> bool:
        """Whether the claim contradicts what is true."""
        match self.says:
            case "none" | "unchanged":
                return not truth.none
            case "passed":
                return not truth.none if truth.value is None else not _within(self.term, truth.value, strictly=True)
            case "exceeded":
                return truth.value is not None and _within(self.term, truth.value)
            case "rejected":
                return truth.value == 0.0
            case "found":
                return self.sign not in truth.signs
            case word:
                return word not in truth.words


def _within(term: str, value: float, *, strictly: bool = False) -> bool:
    """Whether the value is within the default limit on the term; ``strictly``: and not on it."""
    limit = next(limit for limit in _limits() if limit.term == term)
    low, high = (-math.inf if limit.low is None else limit.low), (math.inf if limit.high is None else limit.high)
    return low < value < high if strictly else low <= value <= high


@dataclass(frozen=True)
class Said:
    """What one sample's report says: each claim with the estimate that it rests on (None: several, or a setting) and its
    sentence; and the terms with a number of which it could have claimed something."""

    claims: dict[Claim, tuple[Estimate | None, str]]
    terms: frozenset[str]


def said(sample: Sample) -> Said:
    """The claims of the report on a sample, and of ``check`` with the default limits."""
    reading = _read(sample)
    every = findings(reading.estimates)
    checked = check("", reading.estimates, _limits())
    claims: dict[Claim, tuple[Estimate | None, str]] = {}
    for claim, row, sentence in _claims(every, answers(reading, every), checked):
        claims.setdefault(replace(claim, relative=RELATIVE in sentence), (row, sentence))
    for row in reading.estimates:
        primary = not row.variant and not row.category and row.family != "none"
        if primary and row.p_value is not None and row.p_value <= LEVEL:
            is_relative = is_relative_to_raters(row, reading.estimates)
            claims.setdefault(Claim("test", "", row.term, "rejected", 0, is_relative), (row, ""))
    terms = {finding.row.term for finding in every if finding.verdict != "undefined"}
    terms |= {outcome.row.term for outcome in checked.outcomes if outcome.row and outcome.row.estimate is not None}
    return Said(claims, frozenset(terms))


@functools.cache
def _limits() -> tuple[Limit, ...]:
    return load_limits()


def _claims(
    every: Iterable[Finding], four: Iterable[QuestionAnswer], checked: CheckResult | None
) -> Iterator[tuple[Claim, Estimate | None, str]]:
    for finding in every:
        says = _says(finding)
        if says:
            yield (
                Claim("finding", finding.question, finding.row.term, says, _sign(finding, says)),
                finding.row,
                finding.sentence,
            )
    for subject, answer in zip(_ANSWERS, four, strict=False):
        for place, ground in enumerate(answer.grounds):
            says = _says(ground)
            if says and (place == 0 or ground.word in COMPOUNDING) and not answer.word.startswith("Perhaps"):
                text = f"{answer.question} {answer.word}"
                yield Claim("answer", "", f"answer {subject}", says, 0), ground.row, text
    for advice in (line for answer in four for line in answer.advice):
        row = advice.rows[0] if advice.rows else None
        sign = _direction(row) if row is not None and advice.kind == "length" else 0
        yield Claim("advice", "", f"advice {advice.kind}", "found", sign), row, advice.sentence
    for outcome in checked.outcomes if checked else ():
        if outcome.verdict in ("passed", "exceeded") and outcome.row is not None:
            yield Claim("check", "", outcome.row.term, outcome.verdict, 0), outcome.row, outcome.message


def _says(finding: Finding) -> str:
    """What a finding claims; empty where it claims nothing that a user would act on."""
    if finding.word in COMPOUNDING and finding.verdict != "undefined":
        return finding.word if finding.word in _WORDS and finding.verdict != "unclear" else ""
    if finding.word == "unchanged":
        return finding.word
    return {"found": "found", "equivalent": "none"}.get(finding.verdict, "")


def _sign(finding: Finding, says: str) -> int:
    return 0 if says != "found" or finding.row.term == "style_joint" else _direction(finding.row)


def _direction(row: Estimate) -> int:
    return 1 if (row.estimate or 0.0) > 0 else -1


def _read(sample: Sample) -> Reading:
    """The reading of a sample's report, as its run folder would give it."""
    arms: tuple[str, ...] = ()
    controls: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}
    nothing = judgments = pd.DataFrame()
    match sample:
        case AuditSample(log=VerdictLog() as log):
            frame = analysis.analyze_log(log, name="log", gold_exact=sample.gold_exact).estimates
            judgments = sample.judgments
        case AuditSample():
            frame = analysis.estimates(sample.judgments, sample.features, gold_exact=sample.gold_exact, bootstrap=False)
            judgments = sample.judgments
        case EstimatedSample():
            frame, arms, controls, environment = sample.estimates, sample.arms, sample.controls, sample.environment
        case RunSample():
            frame, judgments = _run_rows(sample), sample.tables.judgments
            arms = tuple(arm.name for arm in sample.design.arms)
            controls = {arm.name: arm.judge_kind for arm in sample.design.arms if arm.is_control}
    return Reading("", as_estimates(frame), nothing, nothing, judgments, nothing, environment, {}, "", arms, controls)


def _run_rows(sample: RunSample) -> pd.DataFrame:
    """Those of the run's estimates on which its claims rest: the judge's own drift, the drift of length and style score with
    their compounding, and where items have references that of correctness and over-optimisation."""
    tables, design = sample.tables, sample.design
    measured = measure(tables, design)
    rows = judge_drift_estimates(tables, design, measured.scale)
    if design.contrasts:
        every = [line for line in series(measured) if not line.category and not line.quantity.undefined]
        lines, correct = (
            [line for line in every if line.quantity.name in names]
            for names in (("length", "style_score"), ("correct",))
        )
        slopes = {arm.name: signal_slopes(tables.signals, arm, measured.scale) for arm in design.arms}
        rows += drift_estimates(measured, [*lines, *correct], design)
        rows += amplification_estimates(
            measured, lines, accounts(measured), design, fitted_sizes(measured, tables.signals), slopes
        )
        distances = divergences(tables.candidates, design)
        rows += over_optimisation_estimates(measured, next(iter(correct), None), design, slopes, distances)
        rows += range_estimates(measured, design)
        rows += strategy_gap_estimates(measured, lines, design)
    return with_settled_compounding(adjust(with_run_families(estimates_frame(rows))), design.generations)


# Their rates in a world

COLUMNS = (
    "cell", "place", "question", "term", "says", "sign", "relative", "family", "test", "false", "rate", "mc_error", "allowed",
    "replications", "undefined", "held", "seed", "sentence",
)  # fmt: skip
CELLS = tuple(WORLDS)
REPORTS = {
    "confirmatory": "a false confirmatory finding",
    "exploratory": "the false share of exploratory findings",
    "probes": "a false finding of an edited copy",
    "answer": "a false answer or advice",
}
"""Rows on whole reports: the chance of any such claim, and of exploratory findings the mean share that is false; the edited copies
of exploratory probes are a family of their own (``multiplicity.adjust``)."""


def claims_study(
    seed: int = 0,
    replications: int = 1_000,
    *,
    cells: Sequence[str] | None = None,
    share: float | None = None,
    on_cell: Callable[[pd.DataFrame], None] | None = None,
    workers: int = 1,
    earlier: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A row a world and claim (COLUMNS): ``rate`` is how often it is said, ``false`` whether it is false there, ``allowed`` the
    rate at which it then may be said, ``held`` that it is said no oftener than that and two Monte-Carlo errors.

    The arguments are those of ``study.study``, cells from CELLS; raises InvalidInput as it does.
    """
    return study(
        CELLS, study_world, seed, replications,
        cells=cells, share=share, on_cell=on_cell, workers=workers, earlier=earlier,
    )  # fmt: skip


def study_world(name: str, seed: int, replications: int) -> pd.DataFrame:
    """The rows of one world (COLUMNS)."""
    world = WORLDS[name]
    samples = [said(world.draw(rng(seed, "validate", "claims", name, k))) for k in range(replications)]
    counts = Counter(claim for sample in samples for claim in sample.claims)
    grounds = {claim: ground for sample in reversed(samples) for claim, ground in sample.claims.items()}
    rows: list[tuple[object, ...]] = []
    for claim in _rated(world, samples, counts):
        truth = world.truth(claim.term, relative=claim.relative)
        row, sentence = grounds.get(claim, (None, ""))
        false = truth is not None and claim.is_false(truth)
        allowed = _allowed(claim, row)
        rate = counts[claim] / replications
        error = math.sqrt(allowed * (1.0 - allowed) / replications)
        rows.append((
            name, claim.place, claim.question, claim.term, claim.says, claim.sign, claim.relative, row.family if row else "",
            row.method if row else "", "yes" if false else "no" if truth else "", rate, error, allowed, replications, 0,
            not false or rate <= allowed + 2.0 * error, seed, sentence,
        ))  # fmt: skip
    rows += _of_reports(name, world, samples, seed)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _allowed(claim: Claim, row: Estimate | None) -> float:
    if claim.place == "check":
        return CHECK_LEVEL
    # Equivalence and words on compounding are not corrected for their number.
    exploratory = claim.place == "finding" and claim.says == "found" and row is not None and row.family == "exploratory"
    return ALPHA["exploratory"] if exploratory else LEVEL


def _rated(world: ClaimWorld, samples: Sequence[Said], seen: Collection[Claim]) -> list[Claim]:
    """The claims that were made, and those that are false here and could have been made of the terms with a number."""
    defined = {term for sample in samples for term in sample.terms}
    false = [
        claim
        for claim in possible_claims()
        if (claim.term in defined or claim.place in ("answer", "advice"))
        and (truth := world.truth(claim.term)) is not None
        and claim.is_false(truth)
    ]
    return list(dict.fromkeys([*false, *seen]))


def _of_reports(name: str, world: ClaimWorld, samples: Sequence[Said], seed: int) -> list[tuple[object, ...]]:
    """The rows on whole reports."""
    values: dict[str, list[float]] = {key: [] for key in REPORTS}
    for sample in samples:
        by_family: dict[str, list[bool]] = {"confirmatory": [], "exploratory": [], "probes": []}
        answered = False
        for claim, (row, _) in sample.claims.items():
            truth = world.truth(claim.term, relative=claim.relative)
            false = truth is not None and claim.is_false(truth)
            if claim.place == "finding" and claim.says == "found" and row is not None and row.family in by_family:
                is_copy = row.family == "exploratory" and is_probe(claim.term)
                by_family["probes" if is_copy else row.family].append(false)
            answered = answered or (claim.place in ("answer", "advice") and false)
        values["confirmatory"].append(float(any(by_family["confirmatory"])))
        exploratory = by_family["exploratory"]
        values["exploratory"].append(sum(exploratory) / max(1, len(exploratory)))
        values["probes"].append(float(any(by_family["probes"])))
        values["answer"].append(float(answered))
    rows: list[tuple[object, ...]] = []
    for key, each in values.items():
        allowed = ALPHA["exploratory"] if key in ("exploratory", "probes") else LEVEL
        rate, error = float(np.mean(each)), math.sqrt(allowed * (1.0 - allowed) / len(each))
        rows.append((
            name, "report", "", REPORTS[key], "", 0, False, "", "", "yes", rate, error, allowed, len(each), 0,
            rate <= allowed + 2.0 * error, seed, "",
        ))  # fmt: skip
    return rows


# All claims that can be made


@functools.cache
def possible_claims() -> Mapping[Claim, str]:
    """Every claim that a report, its answers and advice, or ``check`` can make, with a sentence that makes it.

    They are found by giving the report one estimate at a time: each known term, with each verdict and sign.
    """
    claims: dict[Claim, str] = {}
    nothing = pd.DataFrame()
    of_lists = (f"slot_{slot}_excess" for slot in range(1, 5))
    for term in sorted({*known_terms(), *of_lists, "score_length_slope", "score_scale_anchoring"}):
        for rows in _examples(term):
            arms, controls = _arms(rows[0])
            reading = Reading("", rows, nothing, nothing, nothing, nothing, {}, {}, "", arms, controls)
            every = findings(rows)
            for claim, _, sentence in _claims(every, answers(reading, every), None):
                claims.setdefault(claim, sentence)
    for kind in get_args(AdviceKind):
        if not any(claim.term == f"advice {kind}" for claim in claims):
            claims[Claim("advice", "", f"advice {kind}", "found", 0)] = ""
    for limit in _limits():
        for ruling in ("passed", "exceeded"):
            claims[Claim("check", "", limit.term, ruling, 0)] = f"{limit.term} {limit.text}: {ruling}"
    return claims


def _arms(row: Estimate) -> tuple[tuple[str, ...], dict[str, str]]:
    return (("judge", "random"), {"random": "random"}) if row.contrast else ((), {})


def _examples(term: str) -> Iterator[tuple[Estimate, ...]]:
    """Estimates of that term as a report may hold them: found on both sides, none within margin; each word, of a drift."""
    of_run = term.startswith(("did_", "beyond_first_step_", "correct_per_proxy", "phrase_spread"))
    labels: dict[str, Any] = {"scope": "judge", "judge": "judge", "panel": "pairs", "n": 400, "n_items": 200}
    if of_run:
        labels = {"scope": "policy", "arm": "judge", "contrast": "random", "n_replicates": 8, "n": 8}
    if term.startswith(("did_", "judge_drift_")):
        labels["generation"] = 3
    confirmatory = term in (*JUDGE_FAMILY, *CONFIRMATORY)
    bias: Bias = "diversity" if wording.feature_of(term, "did_") in UNITS else "verbosity"
    bias = "quality" if term in ("did_correct", "did_hedging_when_wrong", "correct_per_proxy") else bias
    base = Estimate(
        term=term, bias=bias, unit=_unit(term), conf_level=0.95,
        std_error=0.02, p_value=0.001, p_adjusted=0.002, family="confirmatory" if confirmatory else "exploratory", **labels,
    )  # fmt: skip
    words: list[Verdict] = [*COMPOUNDING] if term.startswith("beyond_first_step_") else []
    for word in words:
        drift = replace(
            base, term=term.replace("beyond_first_step_", "did_"), generation=3, unit="doublings", verdict="drifting"
        )
        beyond = replace(base, estimate=0.5, conf_low=0.2, conf_high=0.8, verdict=word)
        yield beyond, replace(drift, estimate=1.0, conf_low=0.8, conf_high=1.2)
    if term == "style_joint":
        yield (replace(base, estimate=5.0, verdict="found", std_error=None),)
    elif term == "phrase_spread":
        found = replace(base, estimate=0.5, verdict="found", std_error=None)
        yield found, replace(found, variant="feel free to", benchmark=0.1)
    elif term == "correct_per_proxy":
        yield (replace(base, estimate=-0.1, conf_low=-0.14, conf_high=-0.06, verdict="over-optimised"),)
    elif not words:
        for sign in (1.0, -1.0):
            low, high = sorted((sign * 0.06, sign * 0.14))
            verdict: Verdict = "drifting" if of_run else "found"
            yield (replace(base, estimate=sign * 0.1, conf_low=low, conf_high=high, verdict=verdict),)
        if term != "score_length_slope":  # score points have no margin
            yield (
                replace(
                    base, estimate=0.01, conf_low=-0.02, conf_high=0.04, verdict="none", margin=0.05, p_adjusted=0.6
                ),
            )
        if term.startswith("judge_drift_"):
            yield (replace(base, estimate=0.0, conf_low=0.0, conf_high=0.0, verdict="unchanged", p_adjusted=1.0),)


def _unit(term: str) -> str:
    name = wording.feature_of(term, "did_") if term.startswith("did_") else ""
    if term == "score_length_slope":
        return feature_unit("length", POINTS)
    if term == "score_scale_anchoring":
        return LENGTHS
    if name:
        return UNITS.get(name, {"length": "doublings", "correct": PROBABILITY}.get(name, "sd"))
    return (
        LOG_ODDS if term.endswith("log_odds") else "doublings" if term.startswith("beyond_first_step_") else PROBABILITY
    )
