"""Two arms side by side, replicate by replicate where they ran under common random numbers. Positive = more in the first."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from judgeloop.stats.compare.contender import Contender
from judgeloop.stats.difference import Difference, Pairing, independent, shared_labels
from judgeloop.stats.loop.replicates import Quantity
from judgeloop.stats.rows import Counts, Result, estimate_row, replicate_mean, row
from judgeloop.text.features import FEATURES

POLICY = (*FEATURES, "style_score", "correct", "mattr", "distinct_2")


def loop_differences(first: Contender, second: Contender) -> list[Difference]:
    """``drift_`` and ``did_`` of every quantity at the last generation that both reached, and ``transmission_``.

    Within a folder did and drift differ by the same control: one number, under ``did_`` where neither is that control.
    """
    found: list[Difference] = []
    last = min(first.generations, second.generations)
    shared, one_folder = same_randomness(first, second), first.source == second.source
    controlled = bool(first.control) and first.control == second.control
    controlled = controlled and first.control not in (first.arm, second.arm)
    prefixes = (("did",) if one_folder else ("did", "drift")) if controlled else ("drift",)
    for name in POLICY if last >= 1 else ():
        one, other = first.series.get(name), second.series.get(name)
        if one is None or other is None or one.quantity.undefined or other.quantity.undefined:
            continue
        for prefix in prefixes:
            if prefix == "did":
                values = one.did(first.arm, first.control, last), other.did(second.arm, second.control, last)
            else:
                values = one.drift(first.arm, last), other.drift(second.arm, last)
            found.append(_difference(first, second, f"{prefix}_{name}", one.quantity, values, last, shared))
    return [*found, *_transmissions(first, second)]


def same_randomness(first: Contender, second: Contender) -> list[int]:
    """The replicates that both ran from the very same generation-0 texts under the same seed: common random numbers."""
    if first.source != second.source and (first.seed is None or first.seed != second.seed):
        return []
    return [key for key, value in first.first_texts.items() if second.first_texts.get(key) == value]


def _difference(
    first: Contender,
    second: Contender,
    term: str,
    quantity: Quantity,
    values: tuple[pd.Series[float], pd.Series[float]],
    last: int,
    shared: Sequence[int],
) -> Difference:
    both = [key for key in shared if key in values[0].index and key in values[1].index]
    result: Result
    pairing: Pairing
    if len(both) >= 2:
        values = values[0].loc[both], values[1].loc[both]
        result, pairing, n = replicate_mean(values[0] - values[1]), "replicates", len(both)
        note = "" if len(both) == len(shared) else f"missing in {len(shared) - len(both)} of {len(shared)} replicates"
    else:
        parts = [
            estimate_row(
                replicate_mean(one), scope="policy", bias=quantity.bias, term=term, n=len(one), n_replicates=len(one)
            )
            for one in values
        ]
        result, pairing, n = independent(*parts), "unpaired", sum(map(len, values))
        note = "no common random numbers: two independent sets of replicates"
    common = shared_labels(first, second)
    made = estimate_row(
        result, margin=quantity.margin, drift=True, note=note, scope="policy", bias=quantity.bias, term=term,
        judge=common.judge, arm=common.arm, contrast=first.control if term.startswith("did_") else "", generation=last,
        unit=quantity.unit, n=n, n_replicates=n,
    )  # fmt: skip
    means = [float(one.mean()) if len(one) else None for one in values]
    return Difference(first.name, second.name, pairing, means[0], means[1], made)


def _transmissions(first: Contender, second: Contender) -> list[Difference]:
    """Differences of ``transmission_<feature>``. What two arms share (judge, panel, random numbers) makes them alike, so that
    taking them as independent is cautious."""
    found = []
    for name in FEATURES:
        one, other = first.primary(f"transmission_{name}"), second.primary(f"transmission_{name}")
        if one is None or other is None:
            continue
        note = "taken as independent, which is cautious where they share judge or random numbers"
        made = row(
            shared_labels(first, second), one.bias, one.term, independent(one, other), Counts(one.n + other.n, 0),
            unit=one.unit, note=note, scope="signal", n_replicates=(one.n_replicates or 0) + (other.n_replicates or 0),
        )  # fmt: skip
        found.append(Difference(first.name, second.name, "unpaired", one.estimate, other.estimate, made))
    return found
