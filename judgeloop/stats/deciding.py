"""How large a sample would decide whether an estimate keeps a limit, at its present value and spread."""

from __future__ import annotations

import math

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.power import replicates_for
from judgeloop.stats.reference import quantile

_ROOT = quantile(0.975) + quantile(0.8)
MOST = 10_000_000
NO_SAMPLE = {"replicates": 200, "items": 100_000}
"""Beyond these no sample of the kind is run; what it would take is said, and not offered as a way."""


def sample_to_decide(row: Estimate, distance: float) -> str:
    """What it takes, with 80 % power, for the interval to keep clear of a limit ``distance`` away: "about 640 items (now 120)".

    Replicates by the one-sample t (stats.power), items by n·((z₀.₉₇₅ + z₀.₈)·SE/distance)². Empty where nothing can be said:
    no spread is known, or the estimate stands on the limit. What nobody runs is "no sample of this kind (it takes …)".
    """
    seen = spread(row)
    if seen is None or seen == 0 or distance <= 1e-9 * max(1.0, abs(row.estimate or 0.0)):
        return ""
    if row.n_replicates is not None and row.n_replicates >= 2:
        try:
            needed = replicates_for(distance / (seen * math.sqrt(row.n_replicates)))
        except ValueError:
            return "no sample of this kind (it takes more than 10,000 replicates)"
        return _said(max(needed, row.n_replicates + 1), row.n_replicates, "replicates")
    now, noun = (row.n_items, "items") if row.n_items else (row.n, "observations")
    if not now:
        return ""
    wanted = now * (_ROOT * seen / distance) ** 2
    if wanted > MOST:
        return f"no sample of this kind (it takes more than {MOST:,} {noun})"
    return _said(max(math.ceil(wanted), now + 1), now, noun)


def _said(needed: int, now: int, noun: str) -> str:
    if needed > NO_SAMPLE.get(noun, MOST):
        return f"no sample of this kind (it takes about {needed:,} {noun}, now {now:,})"
    return f"about {needed:,} {noun} (now {now:,})"


def spread(row: Estimate) -> float | None:
    """The standard error; where that is 0 or not given, a quarter of the interval."""
    if row.std_error:
        return row.std_error
    if row.conf_low is None or row.conf_high is None:
        return None
    return (row.conf_high - row.conf_low) / 4.0
