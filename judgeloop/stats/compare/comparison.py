"""Contenders by worst-case harm, and whether the data license the order.

Harm is what a bias could be at worst: the upper limit of |bias|, in multiples of its equivalence margin, so that rates and
drift can stand side by side. A contender's harm is that of its worst term, over the terms that all contenders identify:
nobody ranks better for not having been measured.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from judgeloop.stats.compare.contender import Contender, Difference
from judgeloop.stats.compare.differences import (
    SHARED,
    judge_differences,
    loop_differences,
    same_randomness,
    shared_pairs,
)
from judgeloop.stats.estimate import RATE_MARGIN, Estimate
from judgeloop.stats.estimate import estimates_frame as typed_estimates
from judgeloop.stats.loop.drift import CONFIRMATORY
from judgeloop.stats.multiplicity import ALPHA, JUDGE_FAMILY, benjamini_hochberg, holm, settled

TERMS = (
    "first_slot_excess", "length_ame", "padding_probe", "gold_tied_longer_excess", "self_preference_gold", "did_length",
    "did_style_score",
)  # fmt: skip
"""What can harm: identified biases of the judge, and what became of them in the policy."""
_LENGTH = ("length_ame", "padding_probe", "gold_tied_longer_excess", "did_length")
_CONTROLS = ("random", "gold")


@dataclass(frozen=True, slots=True)
class Harm:
    """One term of one contender: ``estimate`` the bias (signed), ``worst`` the upper limit of its magnitude in ``unit`` units,
    ``least`` its lower limit, ``margin`` the equivalence margin; ``amplified`` = the transmission's upper limit that ``worst`` was multiplied by."""

    term: str
    unit: str
    estimate: float
    least: float
    worst: float
    margin: float
    amplified: float | None = None

    @property
    def value(self) -> float:
        """The magnitude of the estimate."""
        return abs(self.estimate)

    @property
    def share(self) -> float:
        """``worst`` in margins."""
        return self.worst / self.margin


@dataclass(frozen=True, slots=True)
class RankedContender:
    """A contender's place: 1 + how many are told to be less harmful. ``harms``: the worst term first."""

    name: str
    place: int
    harms: tuple[Harm, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """``places`` in order, by worst-case harm within a place; empty where there is nothing to rank by: ``why`` says it.

    ``told``: (better, worse) of every two that the data tell apart. ``licensed``: the first is told from every other.
    ``left_out``: terms that not all identify.
    """

    places: tuple[RankedContender, ...]
    licensed: bool
    why: str
    left_out: tuple[str, ...] = ()
    told: frozenset[tuple[str, str]] = frozenset()

    @property
    def content_known(self) -> bool:
        """Whether a taste for length is among what all contenders identify; without it the rest is no worst case."""
        return any(harm.term in _LENGTH for place in self.places[:1] for harm in place.harms)

    @property
    def recommended(self) -> bool:
        """Whether the first may be recommended: told from all others, and not by position alone."""
        return self.licensed and self.content_known

    def apart(self, one: str, other: str) -> bool:
        """Whether the data tell which of the two is the more harmful."""
        return (one, other) in self.told or (other, one) in self.told


def ranked(contenders: Sequence[Contender], found: Sequence[Difference]) -> Ranking:
    """The contenders (but controls) in order of worst-case harm."""
    some = [one for one in contenders if not one.is_control and one.judge not in _CONTROLS]
    if len(some) < 2:
        return Ranking((), False, "no ranking: fewer than two contenders that are no controls")
    harms = {one.name: {harm.term: harm for harm in _harms(one)} for one in some}
    common = [term for term in TERMS if all(term in harms[one.name] for one in some)]
    partly = [term for term in TERMS if term not in common and any(term in harms[one.name] for one in some)]
    left_out = tuple(
        f"{term}: not identified for {', '.join(one.name for one in some if term not in harms[one.name])}"
        for term in partly
    )
    if not common:
        return Ranking((), False, "no ranking: no bias is identified for all contenders", left_out)
    lists = {
        name: tuple(sorted((of[term] for term in common), key=lambda harm: -harm.share)) for name, of in harms.items()
    }
    gaps = {(one.first, one.second, one.row.term): one.row for one in found if one.row.variant == ""}
    told = frozenset(
        (one, other) for one, other in itertools.permutations(lists, 2)
        if _told(lists[one], lists[other], one, other, gaps)
    )  # fmt: skip
    places = [RankedContender(name, 1 + sum(worse == name for _, worse in told), lists[name]) for name in lists]
    places.sort(key=lambda place: (place.place, place.harms[0].share))
    licensed = all((places[0].name, other.name) in told for other in places[1:])
    why = "" if licensed else "no ranking: intervals overlap"
    return Ranking(tuple(places), licensed, why, left_out, told)


def _harms(one: Contender) -> list[Harm]:
    found = []
    for term in TERMS:
        row = _speaking(one, term)
        if row is None or row.estimate is None or row.conf_low is None or row.conf_high is None:
            continue
        margin = _margin(one, term)
        if not margin:
            continue
        low, high = row.conf_low, row.conf_high
        if term == "first_slot_excess":
            low, high = _with_unscored(one, low, high)
        least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        worst, amplified = max(abs(low), abs(high)), None
        if term == "length_ame" and not one.mitigation:  # of labels it is measured after transmission
            passed = one.primary("transmission_length")
            if passed is not None and passed.conf_high is not None:
                amplified = max(1.0, passed.conf_high)
                worst *= amplified
        found.append(Harm(term, row.unit, row.estimate, least, worst, margin, amplified))
    return found


def _speaking(one: Contender, term: str) -> Estimate | None:
    rows = [
        row
        for row in one.rows
        if row.term == term and row.variant == "" and row.category == "" and row.estimate is not None
    ]
    if term.startswith("did_"):
        rows = [row for row in rows if row.contrast == one.control and row.generation == one.generations]
    return next((row for row in rows if row.status != "undefined"), None)


def _margin(one: Contender, term: str) -> float | None:
    if not term.startswith("did_"):
        return RATE_MARGIN
    series = one.series.get(term.removeprefix("did_"))
    return None if series is None else series.quantity.margin


def _with_unscored(one: Contender, low: float, high: float) -> tuple[float, float]:
    """The interval widened to what unscored replies could have hidden."""
    for row in one.rows:
        if row.term == "first_slot_excess" and row.category == "" and row.n_unscored and row.estimate is not None:
            if row.variant == "worst_case_low":
                low = min(low, row.estimate)
            elif row.variant == "worst_case_high":
                high = max(high, row.estimate)
    return low, high


def _told(
    better: tuple[Harm, ...],
    worse: tuple[Harm, ...],
    first: str,
    second: str,
    gaps: dict[tuple[str, str, str], Estimate],
) -> bool:
    """Whether ``first`` is licensed to stand before ``second``.

    Either its harm's upper limit lies below the other's lower limit; or, on the term that weighs most for the other, their
    difference is found (adjusted test and interval), and no other term of the first reaches as far as the other's lower limit.
    """
    heaviest = max(worse, key=lambda harm: harm.value / harm.margin)
    if better[0].share < max(harm.least / harm.margin for harm in worse):
        return True
    row = gaps.get((first, second, heaviest.term)) or gaps.get((second, first, heaviest.term))
    if row is None or row.conf_low is None or row.conf_high is None or row.p_adjusted is None:
        return False
    away = row.conf_low > 0 or row.conf_high < 0
    found = away and row.p_adjusted <= ALPHA.get(row.family, 0.05) and row.status != "underpowered"
    reach = heaviest.least / heaviest.margin
    same = next(harm for harm in better if harm.term == heaviest.term)
    others = [harm for harm in better if harm.term != heaviest.term]
    # A test of the signed difference is one of the magnitudes only where both lean to the same side.
    nearer = same.value < heaviest.value and same.estimate * heaviest.estimate >= 0
    return found and nearer and all(harm.share <= reach for harm in others)


# Two contenders side by side: differences with intervals, paired where they share pairs or replicates.


def differences(first: Contender, second: Contender, *, margin: float = RATE_MARGIN) -> list[Difference]:
    """Every term that both bear. p_adjusted is set by ``adjusted``, over all that is compared."""
    return [*judge_differences(first, second, margin), *loop_differences(first, second)]


def adjusted(found: Sequence[Difference]) -> list[Difference]:
    """The differences with ``family``, ``p_adjusted`` and the verdict that this test leaves: Holm over the confirmatory terms, Benjamini–Hochberg over the
    others, each over all pairs of contenders together."""
    named = {*JUDGE_FAMILY, *CONFIRMATORY}
    out = list(found)
    for family, method in (("confirmatory", holm), ("exploratory", benjamini_hochberg)):
        places = [
            place for place, one in enumerate(found)
            if one.row.p_value is not None and one.row.variant == "" and (one.row.term in named) == (family == "confirmatory")
        ]  # fmt: skip
        if places:
            for place, p in zip(places, method(np.array([found[n].row.p_value for n in places])), strict=True):
                row = out[place].row
                changed = dataclasses.replace(
                    row, family=family, p_adjusted=float(p),  # type: ignore[arg-type]
                    verdict=settled(row.verdict, row.conf_low, row.conf_high, float(p), family, row.term),
                )  # fmt: skip
                out[place] = dataclasses.replace(out[place], row=changed)
    return out


MOST = 6
"""Up to so many contenders every two are compared; beyond that, each with the first and with the least harmful."""


@dataclass(frozen=True)
class Comparison:
    """What was compared and what came out. ``pairings``: (first, second) → how they were paired, in words."""

    contenders: tuple[Contender, ...]
    differences: tuple[Difference, ...]
    ranking: Ranking
    pairings: Mapping[tuple[str, str], str]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a difference: ``first, second, pairing, first_estimate, second_estimate``, then the columns of
        docs/contract.md, "Estimates"."""
        columns = ["first", "second", "pairing", "first_estimate", "second_estimate"]
        head = pd.DataFrame([[getattr(one, name) for name in columns] for one in self.differences], columns=columns)
        head = head.astype({"first_estimate": "float64", "second_estimate": "float64"})
        rows = [typed_estimates([one.row]) for one in self.differences]
        return pd.concat([head, pd.concat(rows, ignore_index=True)], axis=1) if rows else head


def compared(
    contenders: Sequence[Contender], *, margin: float = RATE_MARGIN, watch: Callable[[str, str], None] = lambda *_: None
) -> Comparison:
    """All differences, adjusted together, and the ranking. ``watch`` is told each two before they are compared."""
    found: list[Difference] = []
    pairings = {}
    for first, second in _couples(contenders):
        watch(first.name, second.name)
        found += differences(first, second, margin=margin)
        pairings[first.name, second.name] = how_paired(first, second)
    made = adjusted(found)
    return Comparison(tuple(contenders), tuple(made), ranked(contenders, made), pairings)


def _couples(contenders: Sequence[Contender]) -> list[tuple[Contender, Contender]]:
    if len(contenders) <= MOST:
        return list(itertools.combinations(contenders, 2))
    order = ranked(contenders, []).places
    centres = [contenders[0], *(one for one in contenders[1:] if order and one.name == order[0].name)]
    return [
        (first, second) for first, second in itertools.combinations(contenders, 2)
        if any(one is first or one is second for one in centres)
    ]  # fmt: skip


def how_paired(first: Contender, second: Contender) -> str:
    """What two contenders share, in words."""
    said = []
    if first.mitigation and second.mitigation and first.source == second.source:
        said.append("two mitigations of the same verdicts: taken as independent, which is cautious")
    elif first.judgments is second.judgments and len(first.judgments):
        said.append("the same judgments of the same judge: judge terms do not differ")
    elif len(first.judgments) and len(second.judgments):
        common, n_first, n_second = shared_pairs(first, second)
        paired = common and common >= SHARED * min(n_first, n_second)
        said.append(
            f"judges paired on the {common:,} pairs that both judged (of {n_first:,} and {n_second:,})" if paired
            else f"judges on different pairs ({common:,} in common of {n_first:,} and {n_second:,}): independent samples"
        )  # fmt: skip
    if first.series and second.series:
        shared = same_randomness(first, second)
        said.append(
            f"loops paired by replicate ({len(shared)} under common random numbers)" if len(shared) >= 2
            else "loops without common random numbers: independent replicates"
        )  # fmt: skip
    return "; ".join(said) or "nothing that both bear"
