"""Two contenders side by side: differences with intervals, paired where they share pairs or replicates.

A difference is the first's minus the second's; positive = more of the term in the first. Judges on the same pairs: the
mean over pairs of the difference, clustered by item. Loops under common random numbers: one difference a replicate, t.
Else the two are independent samples: Welch (1947), and where one has no spread MOVER (Zou & Donner 2008).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from judgeloop.stats.compare.comparison import Ranking, ranked
from judgeloop.stats.compare.contender import Contender
from judgeloop.stats.compare.differences import SHARED, judge_differences, shared_pairs
from judgeloop.stats.compared_loops import loop_differences, same_randomness
from judgeloop.stats.difference import Difference
from judgeloop.stats.drift import CONFIRMATORY
from judgeloop.stats.estimate import estimates_frame as typed_estimates
from judgeloop.stats.multiplicity import JUDGE_FAMILY, benjamini_hochberg, holm, settled
from judgeloop.stats.rows import RATE_MARGIN


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
        """A row a difference: ``first, second, pairing, first_estimate, second_estimate``, then CONTRACT's columns."""
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
