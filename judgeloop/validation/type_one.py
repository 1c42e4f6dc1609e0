"""Worlds without bias that could look biased, for the type I error; and coverage of a run's confirmatory terms.

Each world returns the p-values of one sample, ``run_replication`` the intervals; ``coverage_study`` counts them over replications.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from judgeloop.records import PREFERENCE_COLUMNS, SIGNAL_COLUMNS
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import Estimate, RowLabels
from judgeloop.stats.judge.content import content_estimates
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.judge.probes import probe_estimates
from judgeloop.stats.judge.self_preference import self_preference_gold
from judgeloop.stats.loop.diversity import diversity_series
from judgeloop.stats.loop.drift import drift_estimates
from judgeloop.stats.loop.panels import judge_drift_estimates
from judgeloop.stats.loop.replicates import measure, series
from judgeloop.text.features import FEATURES
from judgeloop.validation.worlds import Floats, Verdicts, judged, logistic, pair_table, picks, texts

Tests = dict[str, float | None]
"""A test's p-value by term; None where the estimate is undefined."""


def fair_noisy_judge(generator: np.random.Generator) -> Tests:
    """Quality and noise alone: no position, length, style or self preference."""
    items = 100
    length, bold, gold = generator.standard_normal((3, items))
    noise = generator.standard_normal((6, items))
    table = pair_table(items)
    columns = {"gold": gold, "model_a": "planted", "model_b": "other"}
    judgments = judged(table, _verdicts_by_order(gold, noise[:2], generator), columns=columns)
    tests = _p_values(position_estimates(judgments), "first_slot_excess")
    tests |= _p_values(
        _content(judgments, _features_by_side(table, length, bold), exact=True), "length_ame", "style_joint"
    )
    probe = judged(
        table,
        _verdicts_by_order(0.5 * noise[5], noise[2:4], generator),
        columns={"panel": "probe", "probe": "padding", "dose": 1.5},
    )
    self_preference = self_preference_gold(judgments, RowLabels(judge="planted"))
    return {
        **tests,
        **_p_values(probe_estimates(probe), "padding_probe"),
        "self_preference_gold": self_preference.p_value,
    }


def order_locked_judge(generator: np.random.Generator) -> Tests:
    """Temperature 0: all verdicts of an item follow one slot, the first in half of the items, the second in the others."""
    items, within = 60, 6
    pairs = items * within
    lock = np.repeat(np.where(generator.random(items) < 0.5, 1.0, -1.0), within)
    length, bold, gold = generator.standard_normal((3, pairs))
    table = pair_table(pairs, within)
    verdicts = {order: picks(1e3 * lock, generator, unscored=0.1) for order in ("ab", "ba")}
    judgments = judged(table, verdicts, columns={"gold": gold})
    tests = _p_values(position_estimates(judgments), "first_slot_excess")
    return tests | _p_values(_content(judgments, _features_by_side(table, length, bold), exact=True), "length_ame")


def unequal_matchups(generator: np.random.Generator) -> Tests:
    """Position log-odds that vary by item around 0, and one to twelve matchups an item."""
    items, most = 40, 12
    sizes = np.minimum(generator.geometric(0.25, size=items), most)
    table = pair_table(items * most, most)[np.tile(np.arange(most), items) < np.repeat(sizes, most)]
    pull = np.repeat(generator.standard_normal(items), sizes)
    judgments = judged(table.reset_index(drop=True), {order: picks(pull, generator) for order in ("ab", "ba")})
    return _p_values(position_estimates(judgments), "first_slot_excess")


def length_blind_judge(generator: np.random.Generator) -> Tests:
    """Better answers are longer, and people prefer them; the judge follows quality alone. Two a/b golds."""
    items = 300
    length, bold, unseen = generator.standard_normal((3, items))
    quality = 0.6 * length + unseen
    golds = {name: np.where(generator.random(items) < logistic(quality), "a", "b") for name in ("gold", "gold_2")}
    table = pair_table(items)
    judgments = judged(table, _verdicts_by_order(quality, np.zeros((2, items)), generator), columns=golds)
    return _p_values(_content(judgments, _features_by_side(table, length, bold)), "length_ame", "style_joint")


def noisy_gold(generator: np.random.Generator) -> Tests:
    """Numeric golds of reliability .7, quality and length correlated .5; the judge follows quality alone."""
    items = 300
    length, bold, residual, *errors = generator.standard_normal((5, items))
    quality = 0.5 * length + math.sqrt(0.75) * residual
    golds = {
        name: quality + math.sqrt(1 / 0.7 - 1) * error for name, error in zip(("gold", "gold_2"), errors, strict=True)
    }
    table = pair_table(items)
    judgments = judged(table, _verdicts_by_order(quality, np.zeros((2, items)), generator), columns=golds)
    return _p_values(_content(judgments, _features_by_side(table, length, bold)), "length_ame", "style_joint")


def one_noisy_gold(generator: np.random.Generator) -> Tests:
    """As ``noisy_gold``, with the first gold alone: its error cannot be corrected, so that no effect may be
    reported (an undefined estimate counts as p = 1)."""
    items = 300
    length, bold, residual, error = generator.standard_normal((4, items))
    quality = 0.5 * length + math.sqrt(0.75) * residual
    table = pair_table(items)
    golds = {"gold": quality + math.sqrt(1 / 0.7 - 1) * error}
    judgments = judged(table, _verdicts_by_order(quality, np.zeros((2, items)), generator), columns=golds)
    tests = _p_values(
        _content(judgments, _features_by_side(table, length, bold)), "length_ame", "style_joint", "length_exchange_rate"
    )
    return {term: 1.0 if p is None else p for term, p in tests.items()}


_SHARES = (1.0, 0.3, 0.6, 0.5, 0.2, 0.8, 0.25, 0.8, 0.6, 0.5)
"""The share of pairs in which each feature differs: length always, code fences in a fifth."""


def _ten_features(items: int, generator: np.random.Generator) -> Tests:
    differences = generator.standard_normal((items, len(FEATURES)))
    differences *= generator.random(differences.shape) < np.array(_SHARES)
    gold = generator.standard_normal(items)
    table = pair_table(items)
    judgments = judged(table, _verdicts_by_order(gold, np.zeros((2, items)), generator), columns={"gold": gold})
    halves = texts(table, *({n: s * d / 2 for n, d in zip(FEATURES, differences.T, strict=True)} for s in (1.0, -1.0)))
    return _p_values(_content(judgments, halves, exact=True), "style_joint")


def fair_judge_ten_features_60_items(generator: np.random.Generator) -> Tests:
    """Quality alone; all ten features, some of them rare, on 60 items."""
    return _ten_features(60, generator)


def fair_judge_ten_features_200_items(generator: np.random.Generator) -> Tests:
    """Quality alone; all ten features, some of them rare, on 200 items."""
    return _ten_features(200, generator)


def _content(judgments: pd.DataFrame, features: pd.DataFrame, *, exact: bool = False) -> list[Estimate]:
    """The content rows that an audit reports, without the bootstrap (as in the rows of a category)."""
    scales = dict.fromkeys(FEATURES, 1.0)
    return content_estimates(judgments, features, scales=scales, category="all", gold_exact=exact)


def changing_candidates(generator: np.random.Generator) -> Tests:
    """A judge that does not change, and policy texts that grow longer and differ less in quality; judge drift is estimated
    on the anchor panel."""
    items = 120
    table = pair_table(items)
    anchor, judgments = generator.standard_normal((items, 2)), []
    candidates = [_anchor_texts(table, anchor)]
    anchor_columns = {"replicate": pd.array([pd.NA] * items, dtype="Int64"), "arm": "", "panel": "anchor"}
    for t in (0, 1):
        content = 0.3 * anchor[:, 0] + anchor[:, 1]
        verdicts = _verdicts_by_order(content, np.zeros((2, items)), generator)
        judgments.append(judged(table, verdicts, columns={**anchor_columns, "generation": t}))
        points = generator.standard_normal((items, 2)) * np.array([1.0, 1.5 - t]) + np.array([2.0 * t, 0.0])
        verdicts = _verdicts_by_order(0.3 * points[:, 0] + points[:, 1], np.zeros((2, items)), generator)
        judgments.append(judged(table, verdicts, columns={"generation": t, "panel": "policy"}))
        for side, sign in (("a", 0.5), ("b", -0.5)):
            frame = _texts(sign * points[:, 0] + 2.0 * t, table["item_id"], [side] * items, t)
            candidates.append(frame.assign(replicate=0, arm="judge"))
    arm = ArmDesign("judge", "planted")
    tables = RunTables(
        pd.DataFrame(), pd.concat(candidates, ignore_index=True), pd.concat(judgments, ignore_index=True),
        pd.DataFrame(columns=list(PREFERENCE_COLUMNS)), pd.DataFrame(columns=list(SIGNAL_COLUMNS)),
    )  # fmt: skip
    estimates = judge_drift_estimates(tables, Design("anchor", 0, 1, (arm,)), {"length": 1.0})
    return _p_values(
        estimates, "judge_drift_longer_preferred_raw", "judge_drift_first_slot_excess", "judge_drift_conflict_rate"
    )


def neutral_drift(generator: np.random.Generator) -> Tests:
    """Random choice in both arms: means change by chance alone over six generations. Inference is over replicates."""
    replicates, steps, size = 8, 6, 20
    parts = []
    for replicate in range(replicates):
        for arm in ("judge", "random"):
            mean = 0.0
            for t in range(steps + 1):
                points = mean + generator.standard_normal(size)
                mean = float(points[: size // 2].mean())
                frame = _texts(points, ["i0"] * size, [f"g{t}k{k}" for k in range(size)], t)
                parts.append(frame.assign(replicate=replicate, arm=arm))
    estimates = _run_terms(pd.concat(parts, ignore_index=True), steps)
    return _p_values(estimates, "did_length")


WORLDS: dict[str, Callable[[np.random.Generator], Tests]] = {
    world.__name__: world
    for world in (
        fair_noisy_judge, order_locked_judge, unequal_matchups, length_blind_judge, noisy_gold, one_noisy_gold,
        fair_judge_ten_features_60_items, fair_judge_ten_features_200_items, changing_candidates, neutral_drift,
    )
}  # fmt: skip

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
                frame = _texts(points[:, 0], names, [f"g{t}k{k}" for k in range(items * size)], t)
                parts.append(frame.assign(bold=points[:, 1], text=texts, replicate=replicate, arm=arm))
    estimates = {
        row.term: row
        for row in _run_terms(pd.concat(parts, ignore_index=True), 1, diversity=True)
        if row.contrast and not row.variant
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


def _run_terms(candidates: pd.DataFrame, steps: int, *, diversity: bool = False) -> list[Estimate]:
    arms = (ArmDesign("judge", "planted"), ArmDesign("random", "random", is_control=True, judge_kind="random"))
    design = Design("planted", 0, steps, arms, (("judge", "random"),), ("judge", "random"))
    empty = pd.DataFrame()
    measured = measure(RunTables(empty, candidates, empty, empty, empty), design)
    all_series = series(measured)
    lines = [line for line in all_series if line.quantity.name in ("length", "style_score") and not line.category]
    if diversity:
        lines += diversity_series(measured, design, ["mattr"])
    return [row for row in drift_estimates(measured, lines, design) if row.contrast and row.generation == steps]


def _texts(length: Floats, items: object, names: object, generation: int) -> pd.DataFrame:
    columns: dict[str, object] = dict.fromkeys(FEATURES, 0.0)
    columns |= {
        "item_id": items, "candidate_id": names, "length": length, "generation": generation, "text": "a", "reason": "",
        "n_drawn": 1, "reward": np.nan,
    }  # fmt: skip
    return pd.DataFrame(columns)


def _anchor_texts(table: pd.DataFrame, points: Floats) -> pd.DataFrame:
    sides = [
        _texts(sign * points[:, 0], table["item_id"], [side] * len(table), 0)
        for side, sign in (("a", 0.5), ("b", -0.5))
    ]
    frame = pd.concat(sides, ignore_index=True)
    return frame.assign(replicate=pd.array([pd.NA] * len(frame), dtype="Int64"), arm="", n_drawn=0)


def _verdicts_by_order(content: Floats, noise: Floats, generator: np.random.Generator) -> dict[str, Verdicts]:
    return {
        order: picks(sign * content + extra, generator)
        for order, sign, extra in zip(("ab", "ba"), (1.0, -1.0), noise, strict=True)
    }


def _features_by_side(table: pd.DataFrame, length: Floats, bold: Floats) -> pd.DataFrame:
    return texts(table, *({"length": s * length / 2, "bold": s * bold / 2} for s in (1.0, -1.0)))


def _p_values(estimates: list[Estimate], *terms: str) -> Tests:
    p_values = {row.term: row.p_value for row in estimates if row.term in terms and not row.variant}
    return {term: p_values.get(term) for term in terms}
