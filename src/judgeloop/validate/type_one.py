"""Type I error where nothing is biased but much looks as if it were, and coverage of a run's confirmatory terms.

Each world returns the p-values (or the intervals) of one sample; ``study`` counts them over replications.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from judgeloop.features import FEATURES
from judgeloop.records import PREFERENCE_COLUMNS, SIGNAL_COLUMNS
from judgeloop.seeds import rng
from judgeloop.stats.content import content_estimates
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.drift import drift_estimates
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.generation_diversity import diversity_series
from judgeloop.stats.generations import measure, series
from judgeloop.stats.judge_generations import judge_drift_estimates
from judgeloop.stats.position import position_estimates
from judgeloop.stats.probes import probe_estimates
from judgeloop.stats.rows import Labels
from judgeloop.stats.self_preference import self_preference_gold
from judgeloop.validate.grid import Outcome
from judgeloop.validate.worlds import Floats, Verdicts, judged, logistic, pair_table, picks, texts

Tests = dict[str, float | None]
"""A test's p-value by term; None where the estimate is undefined."""


def fair_noisy_judge(generator: np.random.Generator) -> Tests:
    """Quality and noise alone: no position, length, style or self preference."""
    items = 100
    length, bold, gold = generator.standard_normal((3, items))
    noise = generator.standard_normal((6, items))
    table = pair_table(items)
    columns = {"gold": gold, "model_a": "planted", "model_b": "other"}
    judgments = judged(table, _orders(gold, noise[:2], generator), columns=columns)
    found = _of(position_estimates(judgments), "first_slot_excess")
    found |= _of(_content(judgments, _halves(table, length, bold), exact=True), "length_ame", "style_joint")
    probe = judged(
        table,
        _orders(0.5 * noise[5], noise[2:4], generator),
        columns={"panel": "probe", "probe": "padding", "dose": 1.5},
    )
    own = self_preference_gold(judgments, Labels(judge="planted"))
    return {**found, **_of(probe_estimates(probe), "padding_probe"), "self_preference_gold": own.p_value}


def order_locked_judge(generator: np.random.Generator) -> Tests:
    """Temperature 0, and each item's verdicts follow one slot, whichever: half of the items first, half second."""
    items, within = 60, 6
    pairs = items * within
    lock = np.repeat(np.where(generator.random(items) < 0.5, 1.0, -1.0), within)
    length, bold, gold = generator.standard_normal((3, pairs))
    table = pair_table(pairs, within)
    verdicts = {order: picks(1e3 * lock, generator, unscored=0.1) for order in ("ab", "ba")}
    judgments = judged(table, verdicts, columns={"gold": gold})
    found = _of(position_estimates(judgments), "first_slot_excess")
    return found | _of(_content(judgments, _halves(table, length, bold), exact=True), "length_ame")


def unequal_matchups(generator: np.random.Generator) -> Tests:
    """Every item pulls to a slot of its own, none on the whole, and has one to twelve matchups."""
    items, most = 40, 12
    sizes = np.minimum(generator.geometric(0.25, size=items), most)
    table = pair_table(items * most, most)[np.tile(np.arange(most), items) < np.repeat(sizes, most)]
    pull = np.repeat(generator.standard_normal(items), sizes)
    judgments = judged(table.reset_index(drop=True), {order: picks(pull, generator) for order in ("ab", "ba")})
    return _of(position_estimates(judgments), "first_slot_excess")


def length_blind_judge(generator: np.random.Generator) -> Tests:
    """Better answers are longer, so that people prefer longer ones; the judge follows quality alone. Two a/b golds."""
    items = 300
    length, bold, unseen = generator.standard_normal((3, items))
    quality = 0.6 * length + unseen
    golds = {name: np.where(generator.random(items) < logistic(quality), "a", "b") for name in ("gold", "gold_2")}
    table = pair_table(items)
    judgments = judged(table, _orders(quality, np.zeros((2, items)), generator), columns=golds)
    return _of(_content(judgments, _halves(table, length, bold)), "length_ame", "style_joint")


def noisy_gold(generator: np.random.Generator) -> Tests:
    """Numeric golds of reliability .7, quality and length correlated .5; the judge follows quality alone."""
    items = 300
    length, bold, rest, *errors = generator.standard_normal((5, items))
    quality = 0.5 * length + math.sqrt(0.75) * rest
    golds = {
        name: quality + math.sqrt(1 / 0.7 - 1) * error for name, error in zip(("gold", "gold_2"), errors, strict=True)
    }
    table = pair_table(items)
    judgments = judged(table, _orders(quality, np.zeros((2, items)), generator), columns=golds)
    return _of(_content(judgments, _halves(table, length, bold)), "length_ame", "style_joint")


def one_noisy_gold(generator: np.random.Generator) -> Tests:
    """As ``noisy_gold``, with the first gold alone: it cannot be corrected, so nothing may be claimed (p = 1)."""
    items = 300
    length, bold, rest, error = generator.standard_normal((4, items))
    quality = 0.5 * length + math.sqrt(0.75) * rest
    table = pair_table(items)
    golds = {"gold": quality + math.sqrt(1 / 0.7 - 1) * error}
    judgments = judged(table, _orders(quality, np.zeros((2, items)), generator), columns=golds)
    found = _of(_content(judgments, _halves(table, length, bold)), "length_ame", "style_joint", "length_exchange_rate")
    return {term: 1.0 if p is None else p for term, p in found.items()}


_SHARES = (1.0, 0.3, 0.6, 0.5, 0.2, 0.8, 0.25, 0.8, 0.6, 0.5)
"""In what share of pairs a feature differs: length always, code fences in a fifth."""


def _ten_features(items: int, generator: np.random.Generator) -> Tests:
    differences = generator.standard_normal((items, len(FEATURES)))
    differences *= generator.random(differences.shape) < np.array(_SHARES)
    gold = generator.standard_normal(items)
    table = pair_table(items)
    judgments = judged(table, _orders(gold, np.zeros((2, items)), generator), columns={"gold": gold})
    halves = texts(table, *({n: s * d / 2 for n, d in zip(FEATURES, differences.T, strict=True)} for s in (1.0, -1.0)))
    return _of(_content(judgments, halves, exact=True), "style_joint")


def fair_judge_ten_features_60_items(generator: np.random.Generator) -> Tests:
    """Quality alone; all ten features, some of them rare, on 60 items."""
    return _ten_features(60, generator)


def fair_judge_ten_features_200_items(generator: np.random.Generator) -> Tests:
    """Quality alone; all ten features, some of them rare, on 200 items."""
    return _ten_features(200, generator)


def _content(judgments: pd.DataFrame, features: pd.DataFrame, *, exact: bool = False) -> list[Estimate]:
    """The rows that an audit reports; those of a category, which leave out the bootstrap and are else the same."""
    scales = dict.fromkeys(FEATURES, 1.0)
    return content_estimates(judgments, features, scales=scales, category="all", gold_exact=exact)


def changing_candidates(generator: np.random.Generator) -> Tests:
    """The judge is the same; the policy's texts grow and draw level in quality. Judge drift is read from the anchor panel."""
    items = 120
    table = pair_table(items)
    anchor, judgments = generator.standard_normal((items, 2)), []
    candidates = [_anchor_texts(table, anchor)]
    nobody = {"replicate": pd.array([pd.NA] * items, dtype="Int64"), "arm": "", "panel": "anchor"}
    for t in (0, 1):
        content = 0.3 * anchor[:, 0] + anchor[:, 1]
        verdicts = _orders(content, np.zeros((2, items)), generator)
        judgments.append(judged(table, verdicts, columns={**nobody, "generation": t}))
        points = generator.standard_normal((items, 2)) * np.array([1.0, 1.5 - t]) + np.array([2.0 * t, 0.0])
        verdicts = _orders(0.3 * points[:, 0] + points[:, 1], np.zeros((2, items)), generator)
        judgments.append(judged(table, verdicts, columns={"generation": t, "panel": "policy"}))
        for side, sign in (("a", 0.5), ("b", -0.5)):
            frame = _texts(sign * points[:, 0] + 2.0 * t, table["item_id"], [side] * items, t)
            candidates.append(frame.assign(replicate=0, arm="judge"))
    arm = ArmDesign("judge", "planted")
    tables = RunTables(
        pd.DataFrame(), pd.concat(candidates, ignore_index=True), pd.concat(judgments, ignore_index=True),
        pd.DataFrame(columns=list(PREFERENCE_COLUMNS)), pd.DataFrame(columns=list(SIGNAL_COLUMNS)),
    )  # fmt: skip
    found = judge_drift_estimates(tables, Design("anchor", 0, 1, (arm,)), {"length": 1.0})
    return _of(
        found, "judge_drift_length_log_odds", "judge_drift_longer_preferred_raw", "judge_drift_first_slot_excess"
    )


def neutral_drift(generator: np.random.Generator) -> Tests:
    """Coins choose in both arms: means wander over six generations, and nothing drives them. Inference is over replicates."""
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
    found = _run_terms(pd.concat(parts, ignore_index=True), steps)
    return _of(found, "did_length")


WORLDS: dict[str, Callable[[np.random.Generator], Tests]] = {
    world.__name__: world
    for world in (
        fair_noisy_judge, order_locked_judge, unequal_matchups, length_blind_judge, noisy_gold, one_noisy_gold,
        fair_judge_ten_features_60_items, fair_judge_ten_features_200_items, changing_candidates, neutral_drift,
    )
}  # fmt: skip

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
                shown = words if t == 0 else [_words(generator, _VOCABULARY[arm]) for _ in range(items * size)]
                names = [f"i{k // size}" for k in range(items * size)]
                frame = _texts(points[:, 0], names, [f"g{t}k{k}" for k in range(items * size)], t)
                parts.append(frame.assign(bold=points[:, 1], text=shown, replicate=replicate, arm=arm))
    found = {
        one.term: one
        for one in _run_terms(pd.concat(parts, ignore_index=True), 1, diversity=True)
        if one.contrast and not one.variant
    }
    ratio = {v: v * (1.0 - (1.0 - 1.0 / v) ** _WINDOW) / _WINDOW for v in set(_VOCABULARY.values())}
    # Style is in generation-0 SDs, pooled over replicates: the drift over the SD that this run has.
    pooled = np.concatenate([part["bold"].to_numpy() for part in parts if int(part["generation"].iloc[0]) == 0])
    wanted = {
        "did_length": 0.3, "did_style_score": 0.2 / float(np.std(pooled)),
        "did_mattr": ratio[_VOCABULARY["judge"]] - ratio[_VOCABULARY["random"]],
    }  # fmt: skip
    outcomes: list[Outcome] = []
    for term, truth in wanted.items():
        one = found[term]
        known = one.conf_low is not None and one.conf_high is not None
        outcomes.append((term, truth, one.conf_low <= truth <= one.conf_high if known else None))  # type: ignore[operator]
    return outcomes


def _words(generator: np.random.Generator, vocabulary: int) -> str:
    return " ".join(f"w{k}" for k in generator.integers(vocabulary, size=60))


def _run_terms(candidates: pd.DataFrame, steps: int, *, diversity: bool = False) -> list[Estimate]:
    arms = (ArmDesign("judge", "planted"), ArmDesign("random", "random", is_control=True, judge_kind="random"))
    design = Design("planted", 0, steps, arms, (("judge", "random"),), ("judge", "random"))
    empty = pd.DataFrame()
    measured = measure(RunTables(empty, candidates, empty, empty, empty), design)
    found = series(measured)
    wanted = [one for one in found if one.quantity.name in ("length", "style_score") and not one.category]
    if diversity:
        wanted += diversity_series(measured, design, ["mattr"])
    return [one for one in drift_estimates(measured, wanted, design) if one.contrast and one.generation == steps]


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


def _orders(content: Floats, noise: Floats, generator: np.random.Generator) -> dict[str, Verdicts]:
    return {
        order: picks(sign * content + extra, generator)
        for order, sign, extra in zip(("ab", "ba"), (1.0, -1.0), noise, strict=True)
    }


def _halves(table: pd.DataFrame, length: Floats, bold: Floats) -> pd.DataFrame:
    return texts(table, *({"length": s * length / 2, "bold": s * bold / 2} for s in (1.0, -1.0)))


def _of(estimates: list[Estimate], *terms: str) -> Tests:
    found = {one.term: one.p_value for one in estimates if one.term in terms and not one.variant}
    return {term: found.get(term) for term in terms}
