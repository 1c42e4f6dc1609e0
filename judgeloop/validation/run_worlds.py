"""Worlds of the claims study that draw runs: a judge's fixed panel, and paths of a drift."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from judgeloop import analysis
from judgeloop.interchange.texts import TextLog
from judgeloop.records import CANDIDATE_COLUMNS, JUDGMENT_COLUMNS, PREFERENCE_COLUMNS, SIGNAL_COLUMNS
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.text.features import FEATURES
from judgeloop.validation.audit_worlds import by_order
from judgeloop.validation.claim_worlds import (
    LESS,
    MORE,
    NOTHING,
    THERE,
    ClaimWorld,
    EstimatedSample,
    Generator,
    RunSample,
    Truth,
    Truths,
    of_run,
)
from judgeloop.validation.worlds import Floats, candidate_texts, judged, pair_table

# Runs: a judge's fixed panel


def _panel(generator: Generator, pairs: int, *positions: float) -> RunSample:
    """A panel judged anew in every generation, each reply drawn anew; ``positions``: the first slot's log-odds by generation."""
    table = pair_table(pairs)
    length, quality = generator.standard_normal((2, pairs))
    nobody = {"replicate": pd.array([pd.NA] * pairs, dtype="Int64"), "arm": ""}
    judgments = [
        judged(
            table,
            by_order(0.3 * length + quality, generator, position=position),
            columns={**nobody, "panel": "anchor", "generation": t},
        )
        for t, position in enumerate(positions)
    ]
    arms = (ArmDesign("judge", "planted"),)
    return RunSample(
        _tables(_panel_texts(table, length), pd.concat(judgments, ignore_index=True)),
        Design("panel", 0, len(positions) - 1, arms),
    )


def _changing_candidates(generator: Generator) -> RunSample:
    """A judge that does not change, and policy texts that grow longer and differ less in quality."""
    items = 120
    sample = _panel(generator, items, 0.0, 0.0)
    table = pair_table(items)
    candidates, judgments = [sample.tables.candidates], [sample.tables.judgments]
    for t in (0, 1):
        points = generator.standard_normal((items, 2)) * np.array([1.0, 1.5 - t]) + np.array([2.0 * t, 0.0])
        verdicts = by_order(0.3 * points[:, 0] + points[:, 1], generator)
        judgments.append(judged(table, verdicts, columns={"generation": t, "panel": "policy"}))
        for side, sign in (("a", 0.5), ("b", -0.5)):
            frame = candidate_texts(sign * points[:, 0] + 2.0 * t, table["item_id"], [side] * items, t)
            candidates.append(frame.assign(replicate=0, arm="judge"))
    tables = _tables(pd.concat(candidates, ignore_index=True), pd.concat(judgments, ignore_index=True))
    return RunSample(tables, sample.design)


def _panel_texts(table: pd.DataFrame, length: Floats) -> pd.DataFrame:
    sides = [
        candidate_texts(sign * length, table["item_id"], [side] * len(table), 0)
        for side, sign in (("a", 0.5), ("b", -0.5))
    ]
    frame = pd.concat(sides, ignore_index=True)
    return frame.assign(replicate=pd.array([pd.NA] * len(frame), dtype="Int64"), arm="", n_drawn=0)


def _tables(candidates: pd.DataFrame, judgments: pd.DataFrame | None = None) -> RunTables:
    return RunTables(
        pd.DataFrame(columns=["item_id", "category"]), candidates,
        pd.DataFrame(columns=list(JUDGMENT_COLUMNS)) if judgments is None else judgments,
        pd.DataFrame(columns=list(PREFERENCE_COLUMNS)), pd.DataFrame(columns=list(SIGNAL_COLUMNS)),
    )  # fmt: skip


# Runs: the path of a drift

REPLICATES, STEPS = 8, 6


def _design(steps: int, **arm: str) -> Design:
    judge = ArmDesign("judge", "planted", policy_kind="exemplar", **arm)  # type: ignore[arg-type]
    control = ArmDesign("random", "random", is_control=True, judge_kind="random", policy_kind="exemplar", **arm)  # type: ignore[arg-type]
    return Design("planted", 0, steps, (judge, control), (("judge", "random"),), ("judge", "random"))


def _path(means: Mapping[str, Floats], selected: Floats | None = None, spread: float = 1.0) -> pd.DataFrame:
    """Candidates of one item whose mean length in an arm is its ``means`` (replicates, steps + 1): two texts a cell, ``spread``
    doublings on either side, of which all arms train on as many. ``selected``: what judges select beyond the mean."""
    parts = []
    for arm, path in means.items():
        replicates, count = path.shape
        shift = np.zeros_like(path) if selected is None or arm == "random" else selected
        for sign in (1.0, -1.0):
            p = 0.5 * (1.0 + sign * shift / spread)
            columns = {
                "replicate": np.repeat(np.arange(replicates), count), "arm": arm,
                "generation": np.tile(np.arange(count), replicates), "length": (path + sign * spread).ravel(),
                "candidate_id": f"{arm}{sign:+.0f}", "p_current": 0.5, "p_selected": p.ravel(),
            }  # fmt: skip
            parts.append(pd.DataFrame(columns))
    return _candidates(pd.concat(parts, ignore_index=True).assign(item_id="i0", n_drawn=1))


def _candidates(given: pd.DataFrame) -> pd.DataFrame:
    """A run's candidates; columns and features that are not given are empty or 0."""
    blank: dict[str, Any] = {
        "text": "a", "reason": "", "p_training": np.nan, "p_next": np.nan, "p_selected_gold": np.nan, "reward": np.nan,
        "correct": np.nan,
    }  # fmt: skip
    missing = {name: value for name, value in blank.items() if name not in given}
    features = {name: 0.0 for name in FEATURES if name not in given}
    order = [*CANDIDATE_COLUMNS[:7], *FEATURES, *CANDIDATE_COLUMNS[7:]]
    return given.assign(**missing, **features)[order]


def _increments(
    generator: Generator, sizes: Floats, noise: float, selected: float | None = None, *, first: float | None = None, **arm: str
) -> RunSample:  # fmt: skip
    """A run whose arm drifts by ``sizes`` (steps,) on average, each replicate's increments normal with SD ``noise``
    (``first``: of the first one)."""
    spreads = np.full(len(sizes), noise)
    spreads[0] = noise if first is None else first
    steps = sizes + spreads * generator.standard_normal((REPLICATES, len(sizes)))
    path = np.hstack([np.zeros((REPLICATES, 1)), np.cumsum(steps, axis=1)])
    shift = None if selected is None else np.full_like(path, selected)
    return RunSample(_tables(_path({"judge": path, "random": np.zeros_like(path)}, shift)), _design(len(sizes), **arm))


def _neutral(generator: Generator, replicates: int = REPLICATES, steps: int = STEPS, size: int = 20) -> RunSample:
    """Coins choose in both arms: the training set's mean is that of half of the texts."""
    paths = {}
    for arm in ("judge", "random"):
        mean = np.zeros((replicates, 1))
        path = [mean + generator.standard_normal((replicates, 1)) / math.sqrt(size)]
        for _ in range(steps):
            mean = mean + generator.standard_normal((replicates, 1)) / math.sqrt(size / 2)
            path.append(mean + generator.standard_normal((replicates, 1)) / math.sqrt(size))
        paths[arm] = np.hstack(path)
    return RunSample(_tables(_path(paths)), _design(steps))


def _strategies(generator: Generator, real: float) -> RunSample:
    """Four data strategies under one judge, on as many texts each: every loop adds .2 doublings, and with a share of real data
    times ``1 - real``. Replicates' increments have an SD of .1."""
    first, control = _design(STEPS).arms
    judged = [
        first, replace(first, name="subsampled", strategy="accumulate_subsample"),
        *(replace(first, name=f"real_{share}", real_fraction=share / 10) for share in (3, 5)),
    ]  # fmt: skip
    paths = {control.name: np.zeros((REPLICATES, STEPS + 1))}
    for arm in judged:
        size = 0.2 * (1.0 - real if arm.real_fraction else 1.0)
        steps = size + 0.1 * generator.standard_normal((REPLICATES, STEPS))
        paths[arm.name] = np.hstack([np.zeros((REPLICATES, 1)), np.cumsum(steps, axis=1)])
    tables = _tables(_path(paths).assign(p_training=0.5))
    return RunSample(tables, replace(_design(STEPS), arms=(*judged, control)))


def _rewarded(generator: Generator, rise: float, fall: float) -> RunSample:
    """A signal that rewards length, and answers that are right or wrong: in the judge's arm length rises by ``rise`` doublings a
    generation, and the chance to be right falls by ``fall``."""
    cells = (REPLICATES, 2, 3, 24)
    replicate, arm, generation, item = (place.ravel() for place in np.indices(cells))
    path = np.where(arm == 0, generation, 0)
    # Whole replicates differ, as trainings do.
    shifts, falls = (scale * generator.standard_normal(cells[:3]) for scale in (0.15, 0.03))
    shifts[:, :, 0] = falls[:, :, 0] = 0.0
    at = (replicate, arm, generation)
    drawn = {
        "replicate": replicate, "arm": np.where(arm == 0, "judge", "random"), "generation": generation,
        "item_id": np.char.add("i", item.astype(str)), "candidate_id": "k", "n_drawn": 1,
        "length": 6.0 + rise * path + shifts[at] + generator.standard_normal(len(item)),
        "correct": (generator.random(len(item)) < 0.6 - fall * path + falls[at]).astype(float), "p_current": np.nan, "p_selected": np.nan,
    }  # fmt: skip
    learned = [(s, "judge", t, "length", 0.8, 0.0, 1.0, True) for s in range(REPLICATES) for t in range(2)]
    tables = _tables(_candidates(pd.DataFrame(drawn)))
    tables = replace(tables, signals=pd.DataFrame(learned, columns=list(SIGNAL_COLUMNS)))
    return RunSample(tables, _design(2))


def _pool(generator: Generator, items: int, drafts: int, size: int, taste: float, limit: float = math.inf) -> RunSample:
    """A judge with log-odds ``taste`` a doubling up to ``limit`` doublings and none beyond, on ``drafts`` texts an item; a coin
    beside it. Candidates are ``size`` draws an item."""
    cells = (REPLICATES, items, drafts)
    length = generator.standard_normal(cells)
    replicate, item, draft = (place.ravel() for place in np.indices(cells))
    names = {"item_id": np.char.add("i", item.astype(str)), "candidate_id": np.char.add("k", draft.astype(str))}
    parts, learned = [], []
    for arm in ("judge", "random"):
        now = np.full(cells, 1.0 / drafts)
        worth = (taste if arm == "judge" else 0.0) * np.minimum(length, limit)
        for t in range(STEPS + 1):
            tilted = now * np.exp(worth)
            later = tilted / tilted.sum(axis=2, keepdims=True)
            drawn = generator.multinomial(size, now)
            parts.append(pd.DataFrame({
                **names, "replicate": replicate, "arm": arm, "generation": t, "length": length.ravel(), "n_drawn": drawn.ravel(),
                "p_current": now.ravel(), "p_selected": later.ravel(), "p_training": later.ravel(), "p_next": later.ravel(),
            }))  # fmt: skip
            if arm == "judge" and t < STEPS:
                learned += [
                    (s, arm, t, "length", slope, 0.0, 1.0, True) for s, slope in enumerate(_slopes(worth, length, now))
                ]
            now = later
    design = _design(STEPS)
    arms = tuple(replace(arm, policy_kind="pool") for arm in design.arms)
    tables = _tables(_candidates(pd.concat(parts, ignore_index=True)))
    tables = replace(tables, signals=pd.DataFrame(learned, columns=list(SIGNAL_COLUMNS)))
    return RunSample(tables, replace(design, arms=arms))


def _slopes(worth: Floats, length: Floats, weights: Floats) -> Floats:
    """(replicates,) the slope of the judge's log-odds on length among the texts of a generation, within items."""
    centred = length - (weights * length).sum(axis=2, keepdims=True)
    return np.asarray((weights * centred * worth).sum(axis=(1, 2)) / (weights * centred**2).sum(axis=(1, 2)))


# Texts by generation, without a verdict

_PLAIN = np.array([f"{a}{b}{c}" for a in "bdgklm" for b in "aeiou" for c in "nrstx"])
_ZIPF = 1.0 / np.arange(1.0, len(_PLAIN) + 1.0)
_RARE = 0.15
"""The share of texts that are written as lists."""


def _written(
    generator: Generator,
    *,
    longer: float = 0.0,
    lists: float = _RARE,
    tables: float = 0.0,
    closing: float = 0.0,
    size: int = 18,
    replicates: int = 1,
    items: int = 30,
    generations: int = 3,
) -> EstimatedSample:
    """Texts of a model and of a control run, two an item and generation. Of the model's, generation after generation: ``longer``
    doublings more than ``size`` words; at the last one a share ``lists`` is written as lists and ``tables`` as tables, a kind not seen
    before, and a share ``closing`` ends in the same three words."""
    rows = []
    for replicate, arm, t, item, draft in np.ndindex(replicates, 2, generations, items, 2):
        is_last = arm == 0 and t == generations - 1
        words = round(size * 2.0 ** (0.4 * generator.standard_normal() + (longer * t if arm == 0 else 0.0)))
        form, kind = generator.random(), " "
        if form < (lists if is_last else _RARE):
            kind = "\n- "
        elif is_last and form > 1.0 - tables:
            kind = "\n| "
        # A mark is a token: with it a list is as long as a plain text.
        count = words if kind == " " else round(0.8 * (words + 1))
        chosen = generator.choice(_PLAIN, size=max(count, 4), p=_ZIPF / _ZIPF.sum())
        chosen[::3] = np.char.add(f"topic{item}", chosen[::3])
        if is_last and closing and generator.random() < closing:
            chosen[-3:] = ["feel", "free", "to"]
        text = kind.join(" ".join(chosen[k : k + 4]) for k in range(0, len(chosen), 4)) + "."
        rows.append((replicate, ("model", "control")[arm], t, f"i{item}", f"k{draft}", text, "en"))
    columns = ["replicate", "arm", "generation", "item_id", "candidate_id", "text", "language"]
    prompts = pd.DataFrame(
        {"item_id": [f"i{k}" for k in range(items)], "prompt": [f"{w} {w}" for w in _PLAIN[:items]], "category": ""}
    )
    log = TextLog(pd.DataFrame(rows, columns=columns), prompts, ("control",), ())
    estimates = analysis.analyze_texts(log, name="texts", sources={}).estimates
    return EstimatedSample(estimates, ("model", "control"), {"control": "control"}, {"mode": analysis.TEXTS})


def of_texts(**truths: Truth) -> Truths:
    """What is true of texts by generation: of the terms ``did_<name>`` that are named; without any, that none changes. No phrase spreads
    where ``phrase_spread`` says nothing else."""
    phrase = {"phrase_spread": truths.pop("phrase_spread", NOTHING)}
    named = {f"did_{name}": truth for name, truth in truths.items()} or {"did_*": NOTHING}
    alike = {} if truths else {"advice grown_alike": NOTHING}
    return {**named, **phrase, **alike, "answer growing": THERE if truths else NOTHING}


_FIVE_POINTS = 0.246
"""Log-odds by which a panel's first slot is picked 5 points more often, by quadrature over its pairs."""
_UNCLEAR = "compounding unclear"
_HARMONIC: Floats = 0.3 * 2.0 / np.arange(2.0, STEPS + 2.0)
"""The increments of accumulated training sets under a constant taste, the first .3 doublings."""

RUN_WORLDS: dict[str, ClaimWorld] = {
    "changing_candidates": ClaimWorld(
        "the judge stays as it is, the texts it sees do not", _changing_candidates, {"judge_drift_*": NOTHING, "advice pin_version": NOTHING}
    ),
    "unchanged_fair_judge": ClaimWorld(
        "a fair judge that stays as it is, on 60 fixed pairs, three times",
        lambda generator: _panel(generator, 60, 0.0, 0.0, 0.0), {"judge_drift_*": NOTHING, "advice pin_version": NOTHING},
    ),
    "unchanged_biased_judge": ClaimWorld(
        "a judge with a strong preference for the first slot that stays as it is, on 300 fixed pairs, three times",
        lambda generator: _panel(generator, 300, 1.5, 1.5, 1.5), {"judge_drift_*": NOTHING, "advice pin_version": NOTHING},
    ),
    "passing_change": ClaimWorld(
        "a judge whose preference for the first slot is there in generation 2 alone, on 120 fixed pairs, four times",
        lambda generator: _panel(generator, 120, 0.0, 0.0, 1.5, 0.0),
        {"judge_drift_first_slot_excess": MORE, "advice pin_version": THERE},
    ),
    "neutral_drift": ClaimWorld(
        "coins choose in both arms for six generations; inference over 8 replicates", _neutral, of_run(NOTHING)
    ),
    "two_coins": ClaimWorld(
        "coins choose in both arms for one generation; inference over 5 replicates",
        lambda generator: _neutral(generator, 5, 1), of_run(NOTHING),
    ),
    "steady_weak_first_step": ClaimWorld(
        "every loop adds .1 doublings; the first step is 2.5 of its standard errors",
        lambda generator: _increments(generator, np.full(STEPS, 0.1), 0.1 * math.sqrt(REPLICATES) / 2.5),
        of_run(MORE, "steady", "as its strategy", _UNCLEAR),
    ),
    "accumulate_constant_taste": ClaimWorld(
        "accumulated training sets and a constant taste: increments .3, .2, .15 …",
        lambda generator: _increments(generator, _HARMONIC, 0.03, 0.3, strategy="accumulate"),
        of_run(MORE, "as its strategy", _UNCLEAR),
    ),
    "accumulate_falling": ClaimWorld(
        "accumulated training sets; increments fall from .29 to .20, more than a constant taste would add",
        lambda generator: _increments(generator, np.linspace(0.29, 0.20, STEPS), 0.03, 0.15, strategy="accumulate"),
        of_run(MORE, "steady", "as its strategy", _UNCLEAR),
    ),
    "finite_pool": ClaimWorld(
        "a constant linear judge on 32 drafts an item, which run out",
        lambda generator: _pool(generator, 3, 32, 8, 0.8), of_run(MORE, "as its strategy", "steady", _UNCLEAR),
    ),
    "reversal": ClaimWorld(
        "the first loop takes .1 doublings away, later ones add .14 each",
        lambda generator: _increments(generator, np.array([-0.1, *np.full(STEPS - 1, 0.14)]), 0.03),
        of_run(MORE, "reversing", _UNCLEAR),
    ),
    "doubling_steps": ClaimWorld(
        "each loop adds twice what the one before did, the first .02 doublings",
        lambda generator: _increments(generator, 0.02 * 2.0 ** np.arange(float(STEPS)), 0.05, first=0.02),
        of_run(MORE, "amplifying"),
    ),
    "reward_alone_rises": ClaimWorld(
        "the reward rises with length, by .3 doublings a loop; as many answers are right as under the coin",
        lambda generator: _rewarded(generator, 0.3, 0.0),
        {"did_correct": NOTHING, "correct_per_proxy": NOTHING, **of_run(MORE, "steady", "as its strategy", _UNCLEAR)},
    ),
    "right_answers_alone_fall": ClaimWorld(
        "fewer answers are right, by 12 points a loop; the reward stays",
        lambda generator: _rewarded(generator, 0.0, 0.12),
        {"did_correct": LESS, "correct_per_proxy": NOTHING, **of_run(NOTHING)},
    ),
    "over_optimised": ClaimWorld(
        "the reward rises by .3 doublings a loop and fewer answers are right, by 12 points",
        lambda generator: _rewarded(generator, 0.3, 0.12),
        {"did_correct": LESS, "correct_per_proxy": LESS, **of_run(MORE, "steady", "as its strategy", _UNCLEAR)},
    ),
    "shrinking_steps": ClaimWorld(
        "each loop adds half of what the one before did, the first .3 doublings",
        lambda generator: _increments(generator, 0.3 * 0.5 ** np.arange(float(STEPS)), 0.05),
        of_run(MORE, "saturating"),
    ),
    "large_pool": ClaimWorld(
        "a constant linear judge on 200 drafts an item, of which most stay out of reach",
        lambda generator: _pool(generator, 4, 200, 64, 0.2),
        {**of_run(MORE, "as its strategy", "steady", _UNCLEAR), "advice larger_pool": NOTHING},
    ),
    "saturating_on_a_pool": ClaimWorld(
        "on 200 drafts an item, a judge whose preference for length ends half a doubling above the mean",
        lambda generator: _pool(generator, 4, 200, 64, 0.6, 0.5),
        {**of_run(MORE, "saturating", _UNCLEAR), "advice larger_pool": NOTHING},
    ),
    "strategies_alike": ClaimWorld(
        "four data strategies, of which none slows the drift", lambda generator: _strategies(generator, 0.0),
        {"advice strategy": NOTHING, **of_run(MORE, "steady", "as its strategy", _UNCLEAR)},
    ),
    "real_data_slows": ClaimWorld(
        "the same; real data halves the drift", lambda generator: _strategies(generator, 0.5),
        {"advice strategy": THERE, **of_run(MORE, "steady", "as its strategy", _UNCLEAR)},
    ),
    "panel_at_the_limit": ClaimWorld(
        "a judge on 200 fixed pairs whose first slot is picked 5 points more often from generation 1 on",
        lambda generator: _panel(generator, 200, 0.0, _FIVE_POINTS),
        {"judge_drift_first_slot_excess": Truth(frozenset({1}), none=False, value=0.05), "advice pin_version": THERE},
    ),
    "drift_at_the_limit": ClaimWorld(
        "length drifts by .1 doublings in two loops, and 5 points fewer answers are right: the default limits",
        lambda generator: _rewarded(generator, 0.05, 0.025),
        {
            "did_correct": Truth(frozenset({-1}), none=False, value=-0.05), "correct_per_proxy": LESS,
            **of_run(Truth(frozenset({1}), none=False, value=0.1), "steady", "as its strategy", _UNCLEAR),
        },
    ),
    "unchanged_texts": ClaimWorld("texts of three generations of a model, and of a control run, that do not change", _written, of_texts()),
    "longer_texts": ClaimWorld(
        "texts of three generations that grow longer, by .15 doublings each, and of a control run",
        lambda generator: _written(generator, longer=0.15), of_texts(length=MORE, mattr=NOTHING),
    ),
    "unchanged_runs": ClaimWorld(
        "texts of five runs before and after training, and of five control runs, that do not change",
        lambda generator: _written(generator, replicates=5, items=15, generations=2), of_texts(),
    ),
    "lost_lists": ClaimWorld(
        "texts of five runs and of five control runs; the lists, 15 %, are gone after training",
        lambda generator: _written(generator, lists=0.0, replicates=5, items=15, generations=2),
        of_texts(tail_mass_retained=LESS, list_items=LESS, style_score=LESS, length=NOTHING, opener_entropy=NOTHING),
    ),
    "new_tables": ClaimWorld(
        "texts of five runs and of five control runs; after training a fifth are tables, which there were none of",
        lambda generator: _written(generator, tables=0.2, replicates=5, items=15, generations=2),
        of_texts(new_mode_mass=MORE, tail_mass_retained=NOTHING, length=NOTHING, list_items=NOTHING, style_score=NOTHING),
    ),
    "stock_closing": ClaimWorld(
        "texts of five runs and of five control runs; after training four in ten end in the same three words",
        lambda generator: _written(generator, closing=0.4, size=40, replicates=5, items=15, generations=2),
        of_texts(phrase_spread=MORE, length=NOTHING, list_items=NOTHING, style_score=NOTHING),
    ),
}  # fmt: skip
