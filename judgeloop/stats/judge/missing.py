"""Replies without a verdict and pairs without gold: how many there are, and what decides which (docs/method.md, "Unscored replies").

An estimate from the verdicts and golds that are there speaks for all pairs only if those that are missing would have said
the same. Which are missing may depend on what the estimates hold equal (order, length) at no harm to them; where it
depends on the verdict itself, given these, they are wrong, and no claim rests on them (``with_claims_withheld``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from judgeloop.kernels import cluster_sums, dense_codes, distinct, firth, logistic
from judgeloop.stats.estimate import PROBABILITY, BareTest, Estimate, RowLabels, SampleCounts, Verdict, row
from judgeloop.stats.inference import Interval, Undefined, clustered_proportion, tost
from judgeloop.stats.judge.covariates import Covariates, covariates
from judgeloop.stats.judge.slopes import hotelling
from judgeloop.stats.presentations import Floats, item_codes, not_identical, picked_a

UNSCORED_JOINT = "unscored_joint"
"""The term of the test that order or length decides which replies hold no verdict."""
UNSCORED_BY_VERDICT = "unscored_by_verdict"
"""The term of the test that which replies hold no verdict depends on what the judge picks, order and length held equal."""
GOLD_MISSING_JOINT = "gold_missing_joint"
"""The term of the test that order or length decides which judgments have gold."""
GOLD_MISSING_BY_VERDICT = "gold_missing_by_verdict"
"""The term of the test that which judgments have gold depends on what the judge picked, order and length held equal."""
GOLD_MISSING_TESTS = (GOLD_MISSING_JOINT, GOLD_MISSING_BY_VERDICT)
UNSCORED_TESTS = (UNSCORED_JOINT, UNSCORED_BY_VERDICT)
WORST_CASES = ("worst_case_low", "worst_case_high")
"""Variants of a term with every unscored judgment counted one way, and the other."""
LEAST_FAVOURABLE = "worst_case"
"""The variant of a joint test with every unscored judgment counted as it goes against the finding most."""
FEWEST_UNSCORED = 10
"""With fewer missing verdicts, or golds, than this, what they depend on is not tested."""
_LEVEL = 0.05
_IF_ALIKE: dict[Verdict, Verdict] = {"found": "found_if_unscored_alike", "none": "none_if_unscored_alike"}
_AT_EQUAL_GOLD = (
    "length_ame", "length_exchange_rate", "style_joint", "gold_tied_longer_excess", "self_preference_gold",
    "length_beyond_agreement", "length_shape", "gold_log_odds",
)  # fmt: skip


def missing_estimates(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    labels: RowLabels,
    *,
    scales: Mapping[str, float] | None = None,
) -> list[Estimate]:
    """``unscored_rate`` (probability; by order too) and the tests of what decides which verdicts, and golds, are missing.

    Variants ``ab`` and ``ba`` of the rate are by order; arguments as in ``content_estimates``.
    """
    compared = not_identical(judgments).reset_index(drop=True)
    no_verdict: Floats = (compared["verdict"] == "unscored").to_numpy().astype(np.float64)
    items, orders = item_codes(compared), compared["order"].to_numpy()
    rows = []
    for variant in ("", "ab", "ba"):
        shown = orders == variant if variant else np.ones(len(compared), dtype=bool)
        rate = (
            clustered_proportion(no_verdict[shown], items[shown])
            if shown.any()
            else Undefined("no judgment in that order")
        )
        counts = SampleCounts(int(shown.sum()), distinct(items[shown]), int(no_verdict[shown].sum()))
        rows.append(row(labels, "quality", "unscored_rate", rate, counts, unit=PROBABILITY, variant=variant, null=None))
    # Every reply gets a verdict here, so that all judgments have covariates; the picks are read apart.
    every = covariates(compared.assign(verdict="tie", p_first=np.nan), texts, scales=scales)
    picked = picked_a(compared)[every.index]
    known, side = ~np.isnan(picked), np.nan_to_num(np.sign(every.gold))
    missing = _Missing(every, no_verdict[every.index], _picked_otherwise(every, picked), int(no_verdict.sum()), side)
    without_gold = np.isnan(every.gold).astype(np.float64)
    gold = _Missing(every.where(known), without_gold[known], 2.0 * picked[known] - 1.0, int(no_verdict.sum()))
    return [
        *rows,
        *missing.tests(
            labels,
            UNSCORED_JOINT,
            UNSCORED_BY_VERDICT,
            "replies with a verdict",
            "without",
            "every reply has a verdict",
        ),
        *gold.tests(
            labels,
            GOLD_MISSING_JOINT,
            GOLD_MISSING_BY_VERDICT,
            "judgments with gold",
            "without",
            "gold is known throughout",
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Missing:
    """``rows`` of judgments, with ``missing`` (n,) 1 where something is missing, else 0, and ``pick`` (n,) in [−1, 1].

    ``pick``: towards text a, what is known of the judge's pick in that judgment, 0 where nothing is. ``unscored``: the
    number of judgments without a verdict; ``gold`` (n,) its side, which the judge may follow, 0 where it is not known.
    """

    rows: Covariates
    missing: Floats
    pick: Floats
    unscored: int
    gold: Floats | None = None

    def tests(
        self, labels: RowLabels, joint: str, by_verdict: str, present: str, absent: str, complete: str
    ) -> list[Estimate]:
        """Score tests, clustered by item (as ``style_joint``), of the slopes in logit P(missing).

        ``joint``: of order, the length of the first text − of the second, and |difference|, in doublings. ``by_verdict``:
        of a pick of the first text and of the longer, given these. Columns that cancel within every item are left out.
        A score test needs no fit of what it tests, so it also finds what order or length cuts off without exception.
        ``present``, ``absent``, ``complete``: words for the reasons.
        """
        rows, y = self.rows, self.missing
        count = int(y.sum())
        sizes = SampleCounts(len(rows), distinct(rows.items), self.unscored)
        fewest = f"the test needs {FEWEST_UNSCORED} {present} and {FEWEST_UNSCORED} {absent}"
        why = complete if count == 0 else fewest if min(count, len(y) - count) < FEWEST_UNSCORED else ""
        base = {"order": rows.order}
        picks = {"pick of the first": rows.order * self.pick}
        if rows.length is not None:
            base |= {"length": rows.order * rows.length, "|length|": np.abs(rows.length)}
            picks["pick of the longer"] = np.sign(rows.length) * self.pick
        if self.gold is not None:
            picks["gold's text first"] = rows.order * self.gold
            if rows.length is not None:
                picks["gold's text longer"] = np.sign(rows.length) * self.gold
        if not why:
            base, picks = (self._varying(columns) for columns in (base, picks))
        nothing = "one order and no lengths: nothing is known that they could depend on"
        unknown = "no other judgment of the same pairs tells what the missing ones would have said"
        return [
            self._test(labels, joint, {}, base, why or ("" if base else nothing), sizes),
            self._test(labels, by_verdict, base, picks, why or ("" if picks else unknown), sizes),
        ]

    def _varying(self, columns: Mapping[str, Floats]) -> dict[str, Floats]:
        """The columns whose products with the residuals do not cancel within every item."""
        codes = dense_codes(self.rows.items)[0]
        residual = self.missing - self.missing.mean()
        kept = {}
        for name, column in columns.items():
            sums = cluster_sums(((column - column.mean()) * residual)[:, None], codes, int(codes.max()) + 1)
            if np.ptp(column) > 0 and np.sum(sums**2) > 1e-18 * np.sum(column**2):
                kept[name] = column
        return kept

    def _test(
        self, labels: RowLabels, term: str, held: Mapping[str, Floats], tested: Mapping[str, Floats], why: str,
        sizes: SampleCounts,
    ) -> Estimate:  # fmt: skip
        """One row: the score test of the ``tested`` columns, an intercept and the ``held`` ones fitted."""

        def undefined(reason: str) -> Estimate:
            return row(labels, "quality", term, Undefined(reason), sizes, unit="F")

        if why:
            return undefined(why)
        names = ["intercept", *held, *tested]
        x = np.stack([np.ones(len(self.missing)), *held.values(), *tested.values()], axis=1)
        if sizes.items <= len(names):
            return undefined("too few items")
        first = 1 + len(held)
        fit = logistic(x[:, :first], self.missing)
        if not fit.converged:
            fit = firth(x[:, :first], self.missing)
        p = fit.probabilities
        scores, information = x * (self.missing - p)[:, None], (x * (p * (1.0 - p))[:, None]).T @ x
        result = hotelling(scores, information, range(first, len(names)), self.rows.items)
        if isinstance(result, Undefined):
            return undefined(result.reason)
        test = BareTest(result.f, result.p_value, "score test; logistic regression, clustered by item")
        note = f"F on {result.q} and {result.df} degrees of freedom; {self._slopes(names, x, first)}"
        return row(labels, "quality", term, test, sizes, unit="F", note=note)

    def _slopes(self, names: Sequence[str], x: Floats, first: int) -> str:
        """The tested slopes as text."""
        fit = logistic(x, self.missing)
        if not fit.converged or fit.rank < len(names):
            return "they separate the missing ones perfectly, or nearly so"
        pairs = zip(names[first:], fit.coefficients[first:], strict=True)
        return f"log-odds of missing: {', '.join(f'{name} {slope:+.2f}' for name, slope in pairs)}"


def _picked_otherwise(rows: Covariates, picked: Floats) -> Floats:
    """(n,) in [−1, 1]: the mean pick of a in the pair's other judgments (−1 b), 0 where none has a verdict."""
    known = ~np.isnan(picked)
    pick = np.where(known, 2.0 * picked - 1.0, 0.0)
    size = int(rows.pairs.max(initial=0)) + 1
    total = np.bincount(rows.pairs, weights=pick, minlength=size)[rows.pairs] - pick
    count = np.bincount(rows.pairs, weights=known.astype(np.float64), minlength=size)[rows.pairs] - known
    return np.asarray(np.divide(total, count, out=np.zeros(len(pick)), where=count > 0))


def with_claims_withheld(rows: Sequence[Estimate]) -> list[Estimate]:
    """The estimates of one set of judgments, without the claims that missing verdicts or golds could account for.

    Where gold's presence depends on the verdict (``gold_missing_by_verdict`` at 5 %), no term at equal gold claims anything.
    Where a verdict's presence does (``unscored_by_verdict``), none of these does either, nor ``first_slot_excess`` and
    ``position_log_odds``, unless they hold in the worst cases (``_holds``). A claim that is withheld has the verdict
    ``cannot_tell`` and no test; its number stays. A claim that does not hold in its worst cases and is not withheld has the
    verdict ``found_if_unscored_alike`` or ``none_if_unscored_alike``.
    """
    by_key = {(row.term, row.variant): row for row in rows}
    gold, verdicts = (_depends(by_key.get((term, ""))) for term in (GOLD_MISSING_BY_VERDICT, UNSCORED_BY_VERDICT))
    result = []
    for estimate in rows:
        position = estimate.term in ("first_slot_excess", "position_log_odds")
        at_gold = not position and (estimate.term in _AT_EQUAL_GOLD or estimate.term.endswith("_log_odds"))
        bounded = "first_slot_excess" if position else estimate.term
        bounds = [
            by_key[bounded, variant] for variant in (*WORST_CASES, LEAST_FAVOURABLE) if (bounded, variant) in by_key
        ]
        holds = bool(bounds) and _holds(estimate, bounds)
        if estimate.variant == "" and estimate.verdict:
            if (at_gold and gold) or ((at_gold or position) and verdicts and not holds):
                estimate = replace(estimate, verdict="cannot_tell", p_value=None, detectable=None)
            elif bounds and estimate.n_unscored and not holds:
                # A joint test has its verdict from the adjusted p alone, which may be below its level where this one is not.
                claimed: Verdict = "found" if estimate.conf_low is None else estimate.verdict
                estimate = replace(estimate, verdict=_IF_ALIKE.get(claimed, claimed))
        result.append(estimate)
    return result


def _depends(test: Estimate | None) -> bool:
    """Whether what is missing was found to depend on the verdict."""
    return test is not None and test.p_value is not None and test.p_value <= _LEVEL


def _holds(estimate: Estimate, bounds: Sequence[Estimate]) -> bool:
    """Whether a claim holds in all worst cases: an effect on the estimate's side of 0, or none within the margin."""
    if estimate.verdict == "none":
        return all(_within(bound, estimate.margin or 0.0) for bound in bounds)
    if estimate.conf_low is None:
        return all(bound.verdict == "found" for bound in bounds)
    if (estimate.estimate or 0.0) > 0:
        return all(bound.conf_low is not None and bound.conf_low > 0 for bound in bounds)
    return all(bound.conf_high is not None and bound.conf_high < 0 for bound in bounds)


def _within(bound: Estimate, margin: float) -> bool:
    """Whether two one-sided tests put the worst case within the margin (normal limits)."""
    if bound.estimate is None or bound.conf_low is None or bound.conf_high is None:
        return False
    return tost(Interval(bound.estimate, bound.std_error or 0.0, bound.conf_low, bound.conf_high), margin)
