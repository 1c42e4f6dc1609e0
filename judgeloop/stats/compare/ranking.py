"""Ranking: all contenders together, in order of worst-case harm, and whether the data support that order.

Harm is what a bias could be at worst: the upper limit of |bias|, in multiples of its equivalence margin, so that rates and
drift can stand side by side. A contender's harm is that of its worst term, over the terms that every contender has:
nobody ranks better for not having been measured. ``compared`` makes a whole comparison: it chooses which two contenders
to compare, adjusts all their differences together (``differences``) and ranks the contenders.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from judgeloop.records import is_control_judge
from judgeloop.stats.compare.contenders import Contender
from judgeloop.stats.compare.differences import (
    SHARED,
    Difference,
    adjusted,
    differences,
    same_randomness,
    shared_pairs,
)
from judgeloop.stats.estimate import RATE_MARGIN, Estimate, estimates_frame
from judgeloop.stats.judge.content import takes_gold_as_exact
from judgeloop.stats.multiplicity import ALPHA

TERMS = (
    "first_slot_excess", "length_ame", "padding_probe", "gold_tied_longer_excess", "self_preference_gold", "did_length",
    "did_style_score",
)  # fmt: skip
"""Terms that can harm: identified biases of the judge, and drifts of the policy that follow from them."""

MOST_FULLY_COMPARED = 6
"""Contenders up to which every two are compared; with more, each is compared with the first and with the least harmful."""

_LENGTH = ("length_ame", "padding_probe", "gold_tied_longer_excess", "did_length")


@dataclass(frozen=True, slots=True)
class Harm:
    """One term of one contender, in ``unit``.

    ``estimate``: the bias, signed; ``least`` and ``worst``: the lower and the upper limit of its magnitude; ``margin``: the
    equivalence margin. ``amplified``: the upper limit of the transmission, where ``worst`` was multiplied by it.
    """

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
        """``worst`` in multiples of the margin."""
        return self.worst / self.margin


@dataclass(frozen=True, slots=True)
class RankedContender:
    """A contender's place: 1 + the number of contenders that are shown to be less harmful. ``harms``: the worst first."""

    name: str
    place: int
    harms: tuple[Harm, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The contenders in order of place, and by worst-case harm within a place.

    - ``places``: empty where there is nothing to rank by; ``why`` gives the reason where there is no ranking
    - ``clear``: whether the first is shown to be less harmful than every other
    - ``left_out``: terms that some contenders lack, with their names
    - ``separated``: (less harmful, more harmful) of every two that the data tell apart
    """

    places: tuple[RankedContender, ...]
    clear: bool
    why: str
    left_out: tuple[str, ...] = ()
    separated: frozenset[tuple[str, str]] = frozenset()

    @property
    def content_known(self) -> bool:
        """Whether the harms include a preference for length; without it they are no worst case."""
        return any(harm.term in _LENGTH for place in self.places[:1] for harm in place.harms)

    @property
    def recommended(self) -> bool:
        """Whether the first may be recommended: less harmful than all others, and not by position alone."""
        return self.clear and self.content_known

    def apart(self, first: str, second: str) -> bool:
        """Whether the data tell which of the two is the more harmful."""
        return (first, second) in self.separated or (second, first) in self.separated


def ranked(contenders: Sequence[Contender], pairwise: Sequence[Difference]) -> Ranking:
    """The contenders, without controls, in order of worst-case harm. ``pairwise``: their adjusted differences."""
    rivals = [
        contender for contender in contenders if not contender.is_control and not is_control_judge(contender.judge)
    ]
    if len(rivals) < 2:
        return Ranking((), False, "no ranking: fewer than two contenders that are no controls")
    by_term = {contender.name: {harm.term: harm for harm in _harms(contender)} for contender in rivals}
    common = [term for term in TERMS if all(term in harms for harms in by_term.values())]
    partial = [term for term in TERMS if term not in common and any(term in harms for harms in by_term.values())]
    left_out = tuple(
        f"{term}: not identified for {', '.join(name for name, harms in by_term.items() if term not in harms)}"
        for term in partial
    )
    if not common:
        return Ranking((), False, "no ranking: no bias is identified for all contenders", left_out)
    harms = {
        name: tuple(sorted((by_term[name][term] for term in common), key=lambda harm: -harm.share)) for name in by_term
    }
    gaps = {
        (difference.first, difference.second, difference.row.term): difference.row
        for difference in pairwise
        if difference.row.variant == ""
    }
    separated = frozenset(
        (better, worse)
        for better, worse in itertools.permutations(harms, 2)
        if _is_less_harmful(harms[better], harms[worse], better, worse, gaps)
    )
    places = [RankedContender(name, 1 + sum(worse == name for _, worse in separated), harms[name]) for name in harms]
    places.sort(key=lambda place: (place.place, place.harms[0].share))
    clear = all((places[0].name, place.name) in separated for place in places[1:])
    why = "" if clear else "no ranking: intervals overlap"
    return Ranking(tuple(places), clear, why, left_out, separated)


def _harms(contender: Contender) -> list[Harm]:
    """The harm of every term of TERMS that the contender has with an interval and a margin."""
    harms = []
    for term in TERMS:
        row = _harm_row(contender, term)
        if row is None or row.estimate is None or row.conf_low is None or row.conf_high is None:
            continue
        if takes_gold_as_exact(row):
            continue
        margin = _margin(contender, term)
        if not margin:
            continue
        low, high = _with_unscored(contender, term, row.conf_low, row.conf_high)
        least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        worst, amplified = max(abs(low), abs(high)), None
        if (
            term == "length_ame" and not contender.mitigation
        ):  # a mitigation's is of labels, measured after transmission
            transmission = contender.primary("transmission_length")
            if transmission is not None and transmission.conf_high is not None:
                amplified = max(1.0, transmission.conf_high)
                worst *= amplified
        harms.append(Harm(term, row.unit, row.estimate, least, worst, margin, amplified))
    return harms


def _harm_row(contender: Contender, term: str) -> Estimate | None:
    """The contender's primary estimate of the term; of ``did_`` at its last generation, against its control."""
    rows = [
        row
        for row in contender.rows
        if row.term == term and row.variant == "" and row.category == "" and row.estimate is not None
    ]
    if term.startswith("did_"):
        rows = [row for row in rows if row.contrast == contender.control and row.generation == contender.generations]
    return next((row for row in rows if row.status != "undefined"), None)


def _margin(contender: Contender, term: str) -> float | None:
    """The equivalence margin of the term, in its unit; None where a drift has none."""
    if not term.startswith("did_"):
        return RATE_MARGIN
    series = contender.series.get(term.removeprefix("did_"))
    return None if series is None else series.quantity.margin


def _with_unscored(contender: Contender, term: str, low: float, high: float) -> tuple[float, float]:
    """The interval of the term widened to what the unscored replies could have been."""
    for row in contender.rows:
        if row.term == term and row.category == "" and row.n_unscored and row.estimate is not None:
            if row.variant == "worst_case_low":
                low = min(low, row.estimate)
            elif row.variant == "worst_case_high":
                high = max(high, row.estimate)
    return low, high


def _is_less_harmful(
    better: tuple[Harm, ...],
    worse: tuple[Harm, ...],
    first: str,
    second: str,
    gaps: dict[tuple[str, str, str], Estimate],
) -> bool:
    """Whether the data show that ``first`` (harms ``better``) is less harmful than ``second`` (harms ``worse``).

    Either its harm's upper limit lies below the other's lower limit; or, on the term that weighs most for the other, their
    difference is found (adjusted test and interval), and no other term of the first reaches as far as the other's lower limit.
    """
    heaviest = max(worse, key=lambda harm: harm.value / harm.margin)
    if better[0].share < max(harm.least / harm.margin for harm in worse):
        return True
    row = gaps.get((first, second, heaviest.term)) or gaps.get((second, first, heaviest.term))
    if row is None or row.conf_low is None or row.conf_high is None or row.p_adjusted is None:
        return False
    excludes_0 = row.conf_low > 0 or row.conf_high < 0
    is_found = excludes_0 and row.p_adjusted <= ALPHA.get(row.family, 0.05) and row.status != "underpowered"
    reach = heaviest.least / heaviest.margin
    same_term = next(harm for harm in better if harm.term == heaviest.term)
    other_terms = [harm for harm in better if harm.term != heaviest.term]
    # A test of the signed difference is one of the magnitudes only where both lean to the same side.
    is_nearer = same_term.value < heaviest.value and same_term.estimate * heaviest.estimate >= 0
    return is_found and is_nearer and all(harm.share <= reach for harm in other_terms)


@dataclass(frozen=True)
class Comparison:
    """A whole comparison. ``pairings``: (first, second) → how the two were paired, as a phrase."""

    contenders: tuple[Contender, ...]
    differences: tuple[Difference, ...]
    ranking: Ranking
    pairings: Mapping[tuple[str, str], str]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a difference: ``first, second, pairing, first_estimate, second_estimate``, then the columns of
        docs/contract.md, "Estimates"."""
        columns = ["first", "second", "pairing", "first_estimate", "second_estimate"]
        head = pd.DataFrame(
            [[getattr(difference, name) for name in columns] for difference in self.differences], columns=columns
        ).astype({"first_estimate": "float64", "second_estimate": "float64"})
        # A frame a row: the rows of several pairs of contenders share the key of estimates.
        rows = [estimates_frame([difference.row]) for difference in self.differences]
        return pd.concat([head, pd.concat(rows, ignore_index=True)], axis=1) if rows else head


def compared(
    contenders: Sequence[Contender], *, margin: float = RATE_MARGIN, watch: Callable[[str, str], None] = lambda *_: None
) -> Comparison:
    """All differences, adjusted together, and the ranking.

    ``margin``: for the equivalence of rates. ``watch``: called with the names of each two before they are compared.
    """
    pairwise: list[Difference] = []
    pairings = {}
    for first, second in _couples(contenders):
        watch(first.name, second.name)
        pairwise += differences(first, second, margin=margin)
        pairings[first.name, second.name] = how_paired(first, second)
    pairwise = adjusted(pairwise)
    return Comparison(tuple(contenders), tuple(pairwise), ranked(contenders, pairwise), pairings)


def _couples(contenders: Sequence[Contender]) -> list[tuple[Contender, Contender]]:
    """Every two contenders that are compared (MOST_FULLY_COMPARED)."""
    if len(contenders) <= MOST_FULLY_COMPARED:
        return list(itertools.combinations(contenders, 2))
    places = ranked(contenders, []).places
    least_harmful = [contender for contender in contenders[1:] if places and contender.name == places[0].name]
    centres = [contenders[0], *least_harmful]
    return [
        (first, second)
        for first, second in itertools.combinations(contenders, 2)
        if any(first is centre or second is centre for centre in centres)
    ]


def how_paired(first: Contender, second: Contender) -> str:
    """What two contenders share, as a phrase for the pages."""
    phrases = []
    if first.mitigation and second.mitigation and first.source == second.source:
        phrases.append("two mitigations of the same verdicts: taken as independent, which is cautious")
    elif first.judgments is second.judgments and len(first.judgments):
        phrases.append("the same judgments of the same judge: judge terms do not differ")
    elif len(first.judgments) and len(second.judgments):
        common, n_first, n_second = shared_pairs(first, second)
        paired = common and common >= SHARED * min(n_first, n_second)
        phrases.append(
            f"judges paired on the {common:,} pairs that both judged (of {n_first:,} and {n_second:,})" if paired
            else f"judges on different pairs ({common:,} in common of {n_first:,} and {n_second:,}): independent samples"
        )  # fmt: skip
    if first.series and second.series:
        shared = same_randomness(first, second)
        phrases.append(
            f"loops paired by replicate ({len(shared)} under common random numbers)" if len(shared) >= 2
            else "loops without common random numbers: independent replicates"
        )  # fmt: skip
    return "; ".join(phrases) or "nothing in common"
