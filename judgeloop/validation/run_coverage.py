"""Coverage of a run's confirmatory terms, by its number of replicates."""

from __future__ import annotations

import numpy as np
import pandas as pd

from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.loop.diversity import diversity_series
from judgeloop.stats.loop.drift import drift_estimates
from judgeloop.stats.loop.replicates import measure, series
from judgeloop.validation.worlds import candidate_texts

Outcome = tuple[str, float, bool | None]
"""A term (with its variant), the truth, and whether its interval covers it; None where the estimate is undefined."""

REPLICATES = (5, 8, 20)
_VOCABULARY = {"judge": 120, "random": 150}
_WINDOW = 50


def run_replication(replicates: int, seed: int, number: int) -> list[Outcome]:
    """``did_length``, ``did_style_score`` and ``did_mattr`` of one planted run of one feedback step.

    Length drifts by .3 doublings and bold by .2 in the judge's arm, with a spread between replicates; a text is 60 words
    drawn evenly from V, whose moving-average type-token ratio has expectation V(1 − (1 − 1/V)^w)/w. Generation 0 has
    V = 150, the judge's arm later 120.
    """
    generator = rng(seed, "validate", "run coverage", replicates, number)
    items, size, parts = 4, 2, []
    for replicate in range(replicates):
        start = generator.standard_normal((items * size, 2))
        words = [_words(generator, _VOCABULARY["random"]) for _ in range(items * size)]
        drift = np.array([0.3, 0.2]) + np.array([0.3, 0.2]) * generator.standard_normal(2)
        for arm in ("judge", "random"):
            later = generator.standard_normal((items * size, 2)) + (drift if arm == "judge" else 0.0)
            for t, points in ((0, start), (1, later)):
                texts = words if t == 0 else [_words(generator, _VOCABULARY[arm]) for _ in range(items * size)]
                names = [f"i{k // size}" for k in range(items * size)]
                frame = candidate_texts(points[:, 0], names, [f"g{t}k{k}" for k in range(items * size)], t)
                parts.append(frame.assign(bold=points[:, 1], text=texts, replicate=replicate, arm=arm))
    estimates = {
        row.term: row for row in _run_terms(pd.concat(parts, ignore_index=True)) if row.contrast and not row.variant
    }
    ratio = {v: v * (1.0 - (1.0 - 1.0 / v) ** _WINDOW) / _WINDOW for v in set(_VOCABULARY.values())}
    # The style score is in generation-0 SDs, pooled over replicates: the true drift is divided by this run's SD.
    pooled = np.concatenate([part["bold"].to_numpy() for part in parts if int(part["generation"].iloc[0]) == 0])
    truths = {
        "did_length": 0.3, "did_style_score": 0.2 / float(np.std(pooled)),
        "did_mattr": ratio[_VOCABULARY["judge"]] - ratio[_VOCABULARY["random"]],
    }  # fmt: skip
    outcomes: list[Outcome] = []
    for term, truth in truths.items():
        estimate = estimates[term]
        defined = estimate.conf_low is not None and estimate.conf_high is not None
        outcomes.append((term, truth, estimate.conf_low <= truth <= estimate.conf_high if defined else None))  # type: ignore[operator]
    return outcomes


def _words(generator: np.random.Generator, vocabulary: int) -> str:
    return " ".join(f"w{k}" for k in generator.integers(vocabulary, size=60))


def _run_terms(candidates: pd.DataFrame) -> list[Estimate]:
    arms = (ArmDesign("judge", "planted"), ArmDesign("random", "random", is_control=True, judge_kind="random"))
    design = Design("planted", 0, 1, arms, (("judge", "random"),), ("judge", "random"))
    empty = pd.DataFrame()
    measured = measure(RunTables(empty, candidates, empty, empty, empty), design)
    lines = [line for line in series(measured) if line.quantity.name in ("length", "style_score") and not line.category]
    lines += diversity_series(measured, design, ["mattr"])
    return [row for row in drift_estimates(measured, lines, design) if row.contrast]
