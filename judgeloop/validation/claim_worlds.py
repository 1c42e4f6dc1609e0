"""Worlds in which what a report might claim is false: their tables, and what is true in them.

A world draws one sample, an audit's judgments or a run's tables, and states as data what may be said of it. ``claims``
passes the samples through estimates and report, and counts what is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.kernels import sigmoid
from judgeloop.records import CANDIDATE_COLUMNS, JUDGMENT_COLUMNS, PREFERENCE_COLUMNS, SIGNAL_COLUMNS
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.text.features import FEATURES
from judgeloop.validation.worlds import (
    SLOTS,
    Floats,
    Verdicts,
    candidate_texts,
    judged,
    logistic,
    pair_table,
    picks,
    texts,
)

Generator = np.random.Generator


# What is true


@dataclass(frozen=True, slots=True)
class Truth:
    """What may be said of a term.

    - ``signs``: of the effect that is there (0: an effect without a sign, as of a joint test); empty where none is
    - ``none``: whether "none within the margin", and "unchanged", is true
    - ``words``: the words on compounding that are true
    - ``value``: the effect in the term's unit, where a limit is to be compared with it
    """

    signs: frozenset[int] = frozenset()
    none: bool = True
    words: frozenset[str] = frozenset()
    value: float | None = None


NOTHING = Truth(value=0.0)
MORE = Truth(frozenset({1}), none=False)
LESS = Truth(frozenset({-1}), none=False)
UNEVEN = Truth(none=False)
"""An effect that is no simple more or less: neither sign is true, and "none" is not either."""
_THERE = Truth(frozenset({0}), none=False)

Truths = Mapping[str, Truth]
"""Pattern of a term (``*`` stands for any text), or subject of an answer or advice → what is true; the first that matches."""


def of_judge(
    position: Truth = NOTHING, length: Truth = NOTHING, style: Truth = NOTHING, own: Truth = NOTHING
) -> Truths:  # fmt: skip
    """What is true of a judge's audit."""
    every = (position, length, style, own)
    content = NOTHING if length == style == NOTHING else _THERE
    shapes = {NOTHING: NOTHING, UNEVEN: Truth(frozenset({-1, 1}), none=False)}  # of other tastes it is not stated
    return {
        **({"length_shape": shapes[length]} if length in shapes else {}),
        "first_slot_excess": position, "identical_pair_excess": position, "position_log_odds": position,
        "length_ame": length, "length_log_odds": length, "excess_longer_vs_gold": length,
        "gold_tied_longer_excess": length, "padding_probe": length, "score_length_slope": length, "style_joint": content,
        "*_probe": style, "self_preference_*": own,
        "answer biased": NOTHING if all(truth == NOTHING for truth in every) else _THERE,
        "advice both_orders": NOTHING if position == NOTHING else _THERE,
        "advice length": length, "advice form": style if style == NOTHING else _THERE,
    }  # fmt: skip


def of_run(length: Truth, *words: str) -> Truths:
    """What is true of a run whose style does not drift: ``length``'s drift, and the ``words`` on its compounding."""
    growing = Truth(frozenset({0}) if length.signs else frozenset(), length.none, frozenset(words))
    return {
        "did_length": length, "did_style_score": NOTHING, "beyond_first_step_length": Truth(words=frozenset(words)),
        "beyond_first_step_style_score": Truth(), "answer growing": growing, "judge_drift_*": NOTHING,
        "advice pin_version": NOTHING, "advice real_data": _THERE if "amplifying" in words else NOTHING,
    }  # fmt: skip


# Samples


@dataclass(frozen=True)
class AuditSample:
    """One judge's log: judgments with a table of their texts' features, or a ``log`` with the texts themselves."""

    judgments: pd.DataFrame
    features: pd.DataFrame | None = None
    gold_exact: bool = False
    log: VerdictLog | None = None


@dataclass(frozen=True)
class RunSample:
    """The tables of one run, and its design."""

    tables: RunTables
    design: Design


@dataclass(frozen=True)
class ClaimWorld:
    """A world: what it is, how a sample is drawn, and what is true in it."""

    about: str
    draw: Callable[[Generator], AuditSample | RunSample]
    truths: Truths = field(default_factory=of_judge)
    relative: Truths | None = None
    """What is true relative to what the two raters share; None: the same."""

    def truth(self, term: str, *, relative: bool = False) -> Truth | None:
        """What is true of the term; None where the world does not state it."""
        truths = self.truths if not relative or self.relative is None else self.relative
        return next((truth for pattern, truth in truths.items() if fnmatchcase(term, pattern)), None)


_NO_RUN: dict[str, Any] = {"arm": "", "panel": "pairs"}


def _audit(
    table: pd.DataFrame,
    verdicts: Mapping[str, Verdicts],
    a: Mapping[str, Floats] | None = None,
    b: Mapping[str, Floats] | None = None,
    *,
    exact: bool = False,
    more: pd.DataFrame | None = None,
    **columns: object,
) -> AuditSample:
    """The log of those verdicts. ``a``: the features of each pair's text a, or with no ``b`` the differences a − b; ``more``:
    judgments of another panel; ``columns``: further ones of the judgments."""
    missing = pd.array([pd.NA] * len(table), dtype="Int64")
    judgments = judged(table, verdicts, columns={**_NO_RUN, "generation": missing, "replicate": missing, **columns})
    if more is not None:
        judgments = pd.concat([judgments, more], ignore_index=True)
    if a is None:
        return AuditSample(judgments, None, exact)
    sides = (a, b) if b is not None else tuple({name: sign * v / 2 for name, v in a.items()} for sign in (1.0, -1.0))
    return AuditSample(judgments, texts(table, *sides), exact)


def _by_order(
    content: Floats, generator: Generator, *, position: float | Floats = 0.0, noise: Floats | None = None, **lost: float
) -> dict[str, Verdicts]:
    """Both orders of pairs whose text a is picked with log-odds ``content`` (± ``position``, + ``noise`` by order)."""
    extra = np.zeros((2, len(content))) if noise is None else noise
    return {
        order: picks(position + sign * content + added, generator, **lost)
        for order, sign, added in zip(("ab", "ba"), (1.0, -1.0), extra, strict=True)
    }


def _prefers(log_odds: Floats, generator: Generator) -> NDArray[np.str_]:
    """(n,) "a" or "b", a with these log-odds: an a/b gold."""
    return np.where(generator.random(len(log_odds)) < logistic(log_odds), "a", "b")


# Audits of judges without a bias that could look biased


def _fair_noisy(generator: Generator) -> AuditSample:
    items = 100
    length, bold, gold = generator.standard_normal((3, items))
    noise = generator.standard_normal((5, items))
    table = pair_table(items)
    missing = pd.array([pd.NA] * items, dtype="Int64")
    probe = judged(
        table,
        _by_order(0.5 * noise[4], generator, noise=noise[2:4]),
        columns={
            **_NO_RUN, "panel": "probe", "probe": "padding", "dose": 1.5, "generation": missing, "replicate": missing,
        },
    )  # fmt: skip
    return _audit(
        table, _by_order(gold, generator, noise=noise[:2]), {"length": length, "bold": bold}, exact=True, more=probe,
        gold=gold, model_a="planted", model_b="other",
    )  # fmt: skip


def _order_locked(generator: Generator) -> AuditSample:
    items, within = 60, 6
    lock = np.repeat(np.where(generator.random(items) < 0.5, 1.0, -1.0), within)
    length, bold, gold = generator.standard_normal((3, items * within))
    verdicts = {order: picks(1e3 * lock, generator, unscored=0.1) for order in ("ab", "ba")}
    table = pair_table(items * within, within)
    return _audit(table, verdicts, {"length": length, "bold": bold}, exact=True, gold=gold)


def _unequal_matchups(generator: Generator) -> AuditSample:
    items, most = 40, 12
    sizes = np.minimum(generator.geometric(0.25, size=items), most)
    table = pair_table(items * most, most)[np.tile(np.arange(most), items) < np.repeat(sizes, most)]
    pull = np.repeat(generator.standard_normal(items), sizes)
    return _audit(table.reset_index(drop=True), {order: picks(pull, generator) for order in ("ab", "ba")})


def _length_blind(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 300))
    quality = 0.6 * length + unseen
    first, second = (_prefers(quality, generator) for _ in range(2))
    return _audit(
        pair_table(300), _by_order(quality, generator), {"length": length, "bold": bold}, gold=first, gold_2=second
    )  # fmt: skip


def _noisy_golds(generator: Generator, *, second: bool) -> AuditSample:
    length, bold, residual, *errors = generator.standard_normal((5, 300))
    quality = 0.5 * length + math.sqrt(0.75) * residual
    golds = [quality + math.sqrt(1 / 0.7 - 1) * error for error in errors]
    return _audit(
        pair_table(300), _by_order(quality, generator), {"length": length, "bold": bold}, gold=golds[0],
        gold_2=golds[1] if second else np.nan,
    )  # fmt: skip


_SHARES = (1.0, 0.3, 0.6, 0.5, 0.2, 0.8, 0.25, 0.8, 0.6, 0.5)
"""The share of pairs in which each feature differs: length always, code fences in a fifth."""


def _ten_features(generator: Generator, items: int) -> AuditSample:
    differences = generator.standard_normal((items, len(FEATURES)))
    differences *= generator.random(differences.shape) < np.array(_SHARES)
    gold = generator.standard_normal(items)
    named = dict(zip(FEATURES, differences.T, strict=True))
    return _audit(pair_table(items), _by_order(gold, generator), named, exact=True, gold=gold)


_SHORTER = -0.6
"""Log-odds a doubling by which a fallible gold, and the quality behind it, go with shorter texts."""


def _one_gold(generator: Generator, taste: float, sharpness: float, items: int = 200) -> AuditSample:
    """One a/b gold that errs and prefers shorter texts; the judge reads quality ``sharpness`` times as sharply as gold, and
    length by ``taste`` besides."""
    length, bold, unseen = generator.standard_normal((3, items))
    quality = _SHORTER * length + 0.8 * unseen
    content = taste * length + sharpness * quality
    return _audit(
        pair_table(items), _by_order(content, generator), {"length": length, "bold": bold}, gold=_prefers(quality, generator)
    )  # fmt: skip


def _flipped_gold(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 200))
    gold = _prefers(_SHORTER * length + 0.8 * unseen, generator)
    follows = np.where(gold == "a", 1.0, -1.0)
    content = np.where(generator.random((2, 200)) < 0.25, -1e3, 1e3) * follows
    verdicts = {"ab": picks(content[0], generator), "ba": picks(-content[1], generator)}
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, gold=gold)


def _gold_with_ties(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 300))
    quality = 0.6 * length + 0.8 * unseen
    seen = quality + 0.8 * generator.standard_normal(300)
    gold = np.where(np.abs(seen) < 0.5, "tie", np.where(seen > 0, "a", "b"))
    return _audit(pair_table(300), _by_order(1.5 * quality, generator), {"length": length, "bold": bold}, gold=gold)


def _right_or_wrong(generator: Generator, taste: float) -> AuditSample:
    """Texts are right or wrong, and the longer more often right; gold is which of two is, and ties where both are or none."""
    first, second, bold = generator.standard_normal((3, 300))
    right_a, right_b = (generator.random(300) < sigmoid(0.8 * length) for length in (first, second))
    gold = np.where(right_a == right_b, "tie", np.where(right_a, "a", "b"))
    difference = first - second
    verdicts = _by_order(1.5 * (right_a.astype(float) - right_b) + taste * difference, generator)
    return _audit(pair_table(300), verdicts, {"length": difference, "bold": bold}, exact=True, gold=gold)


def _tie_prone(generator: Generator) -> AuditSample:
    length, bold, gold = generator.standard_normal((3, 200))
    verdicts = {}
    for order, sign in (("ab", 1.0), ("ba", -1.0)):
        chosen = picks(sign * 1.5 * gold, generator)
        verdicts[order] = np.where(generator.random(200) < np.exp(-np.abs(gold)), "tie", chosen)
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, exact=True, gold=gold)


def _unscored(generator: Generator, by: str) -> AuditSample:
    """Replies of a fair judge, of which those that would pick the first slot, or the longer text, get lost more often."""
    length, bold, gold = generator.standard_normal((3, 200))
    verdicts = {}
    for order, sign in (("ab", 1.0), ("ba", -1.0)):
        chosen = picks(sign * gold, generator)
        first = chosen == "first"
        at_risk = first if by == "slot" else first == (sign * length > 0)
        verdicts[order] = np.where(generator.random(200) < np.where(at_risk, 0.35, 0.05), "unscored", chosen)
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, exact=True, gold=gold)


def _shared_raters(generator: Generator, differing: float | None = None) -> AuditSample:
    """Two a/b golds: of raters who share a taste for length, or where the second is the first one but for that share."""
    length, bold, unseen = generator.standard_normal((3, 300))
    copied = differing is not None
    quality = 0.6 * length + unseen if copied else unseen
    first = _prefers(quality if copied else quality + 0.8 * length, generator)
    second = _prefers(quality + 0.8 * length, generator)
    if differing is not None:
        other = np.where(first == "a", "b", "a")
        second = np.where(generator.random(300) < differing, other, first)
    return _audit(
        pair_table(300), _by_order(quality, generator), {"length": length, "bold": bold}, gold=first, gold_2=second
    )  # fmt: skip


def _order_by_lot(generator: Generator) -> AuditSample:
    table = pair_table(300)
    sample = _audit(table, _by_order(1.5 * generator.standard_normal(300), generator), order_drawn=True)
    drawn = dict(zip(table["item_id"], np.where(generator.random(300) < 0.5, "ab", "ba"), strict=True))
    shown = sample.judgments["order"] == sample.judgments["item_id"].map(drawn)
    return replace(sample, judgments=sample.judgments[shown].reset_index(drop=True))


def _selective_gold(generator: Generator) -> AuditSample:
    length, bold, gold = generator.standard_normal((3, 300))
    verdicts = _by_order(gold, generator)
    longer = (verdicts["ab"] == "first") == (length > 0)
    labelled = np.where(generator.random(300) < np.where(longer, 0.9, 0.25), gold, np.nan)
    return _audit(pair_table(300), verdicts, {"length": length, "bold": bold}, exact=True, gold=labelled)


def _heavy_tails(generator: Generator) -> AuditSample:
    bold, gold = generator.standard_normal((2, 30))
    length = generator.standard_t(2, size=30)
    return _audit(pair_table(30), _by_order(gold, generator), {"length": length, "bold": bold}, exact=True, gold=gold)


_WORDS = np.array([f"word{k}" for k in range(400)])


def _near_duplicates(generator: Generator) -> AuditSample:
    originals, copies = 40, 3
    table = pair_table(originals * copies)
    lock = np.where(generator.random(originals) < 0.5, 1e3, -1e3)
    locked = np.repeat(np.where(generator.random(originals) < 0.6, lock, 0.0), copies)
    content = np.repeat(1e2 * generator.standard_normal(originals), copies)
    verdicts = {order: picks(locked + sign * content, generator) for order, sign in (("ab", 1.0), ("ba", -1.0))}
    rows, prompts = [], []
    for original in range(originals):
        words = {side: generator.choice(_WORDS, size=generator.integers(20, 60)) for side in "ab"}
        asked = generator.choice(_WORDS, size=12)
        for item in table["item_id"][copies * original : copies * (original + 1)]:
            prompts.append({"item_id": item, "prompt": _with_one_changed(asked, generator), "category": ""})
            rows += [
                {"item_id": item, "candidate_id": side, "text": _with_one_changed(words[side], generator)} for side in "ab"
            ]  # fmt: skip
    judgments = _audit(table, verdicts).judgments
    log = VerdictLog(judgments, pd.DataFrame(rows), pd.DataFrame(prompts))
    return AuditSample(judgments, log=log)


def _with_one_changed(words: NDArray[np.str_], generator: Generator) -> str:
    changed = words.copy()
    changed[generator.integers(len(words))] = generator.choice(_WORDS)
    return " ".join(changed)


# Audits of judges with a bias


def _always_first(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 200))
    gold = _prefers(_SHORTER * length + 0.8 * unseen, generator)
    verdicts = {order: np.full(200, "first", dtype=object) for order in ("ab", "ba")}
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, gold=gold)


def _length_only(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 200))
    gold = _prefers(_SHORTER * length + 0.8 * unseen, generator)
    return _audit(
        pair_table(200), _by_order(1e3 * length, generator), {"length": length, "bold": bold}, gold=gold
    )  # fmt: skip


def _temperature_zero(generator: Generator) -> AuditSample:
    length, bold, gold = generator.standard_normal((3, 200))
    verdicts = _by_order(1e6 * (0.5 * length + gold), generator, position=1e6 * 0.7)
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, exact=True, gold=gold)


def _middle_length(generator: Generator) -> AuditSample:
    a, b, gold = generator.standard_normal((3, 300))
    verdicts = _by_order(-1.2 * (a**2 - b**2) + 0.5 * gold, generator)
    return _audit(pair_table(300), verdicts, {"length": a}, {"length": b}, exact=True, gold=gold)


def _rare_conflicts(generator: Generator, items: int) -> AuditSample:
    locked = generator.random(items) < 0.1
    chosen = np.where(generator.random(items) < 0.5, 0, 1)
    verdicts = {
        "ab": SLOTS[np.where(locked, 0, chosen)],
        "ba": SLOTS[np.where(locked, 0, 1 - chosen)],
    }
    return _audit(pair_table(items), verdicts)


# Runs: a judge's fixed panel


def _panel(generator: Generator, pairs: int, position: float, generations: int, change: float = 0.0) -> RunSample:
    """A panel judged anew in every generation, each reply drawn anew; ``change``: of the position log-odds in generation 2."""
    table = pair_table(pairs)
    length, quality = generator.standard_normal((2, pairs))
    nobody = {"replicate": pd.array([pd.NA] * pairs, dtype="Int64"), "arm": ""}
    judgments = [
        judged(
            table,
            _by_order(0.3 * length + quality, generator, position=position + (change if t == 2 else 0.0)),
            columns={**nobody, "panel": "anchor", "generation": t},
        )
        for t in range(generations + 1)
    ]
    arms = (ArmDesign("judge", "planted"),)
    return RunSample(
        _tables(_panel_texts(table, length), pd.concat(judgments, ignore_index=True)),
        Design("panel", 0, generations, arms),
    )


def _changing_candidates(generator: Generator) -> RunSample:
    """A judge that does not change, and policy texts that grow longer and differ less in quality."""
    items = 120
    sample = _panel(generator, items, 0.0, 1)
    table = pair_table(items)
    candidates, judgments = [sample.tables.candidates], [sample.tables.judgments]
    for t in (0, 1):
        points = generator.standard_normal((items, 2)) * np.array([1.0, 1.5 - t]) + np.array([2.0 * t, 0.0])
        verdicts = _by_order(0.3 * points[:, 0] + points[:, 1], generator)
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


def _path(means: Floats, control: Floats, selected: Floats | None = None, spread: float = 1.0) -> pd.DataFrame:
    """Candidates of one item whose mean length is ``means`` (replicates, steps + 1) in the judge's arm, ``control`` in the
    other: two texts a cell, ``spread`` doublings on either side. ``selected``: what the judge selects beyond the mean."""
    replicates, count = means.shape
    parts = []
    for arm, path in (("judge", means), ("random", control)):
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
    return RunSample(_tables(_path(path, np.zeros_like(path), shift)), _design(len(sizes), **arm))


def _neutral(generator: Generator, replicates: int = REPLICATES, steps: int = STEPS, size: int = 20) -> RunSample:
    """Coins choose in both arms: the training set's mean is that of half of the texts."""
    paths = []
    for _ in ("judge", "random"):
        mean = np.zeros((replicates, 1))
        path = [mean + generator.standard_normal((replicates, 1)) / math.sqrt(size)]
        for _ in range(steps):
            mean = mean + generator.standard_normal((replicates, 1)) / math.sqrt(size / 2)
            path.append(mean + generator.standard_normal((replicates, 1)) / math.sqrt(size))
        paths.append(np.hstack(path))
    return RunSample(_tables(_path(paths[0], paths[1])), _design(steps))


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


def _finite_pool(generator: Generator) -> RunSample:
    """A constant linear judge, log-odds .8 a doubling, on 32 drafts an item; a coin beside it. Candidates are 8 draws an item."""
    items, drafts, size = 3, 32, 8
    cells = (REPLICATES, items, drafts)
    length = generator.standard_normal(cells)
    replicate, item, draft = (place.ravel() for place in np.indices(cells))
    names = {"item_id": np.char.add("i", item.astype(str)), "candidate_id": np.char.add("k", draft.astype(str))}
    parts = []
    for arm, slope in (("judge", 0.8), ("random", 0.0)):
        now = np.full(cells, 1.0 / drafts)
        for t in range(STEPS + 1):
            tilted = now * np.exp(slope * length)
            later = tilted / tilted.sum(axis=2, keepdims=True)
            drawn = generator.multinomial(size, now)
            parts.append(pd.DataFrame({
                **names, "replicate": replicate, "arm": arm, "generation": t, "length": length.ravel(), "n_drawn": drawn.ravel(),
                "p_current": now.ravel(), "p_selected": later.ravel(), "p_training": later.ravel(), "p_next": later.ravel(),
            }))  # fmt: skip
            now = later
    design = _design(STEPS)
    arms = tuple(replace(arm, policy_kind="pool") for arm in design.arms)
    tables = _tables(_candidates(pd.concat(parts, ignore_index=True)))
    learned = [(s, "judge", t, "length", 0.8, 0.0, 1.0, True) for s in range(REPLICATES) for t in range(STEPS)]
    tables = replace(tables, signals=pd.DataFrame(learned, columns=list(SIGNAL_COLUMNS)))
    return RunSample(tables, replace(design, arms=arms))


_UNCLEAR = "compounding unclear"
_HARMONIC: Floats = 0.3 * 2.0 / np.arange(2.0, STEPS + 2.0)
"""The increments of accumulated training sets under a constant taste, the first .3 doublings."""

WORLDS: dict[str, ClaimWorld] = {
    "fair_noisy_judge": ClaimWorld("quality and noise alone", _fair_noisy),
    "order_locked_judge": ClaimWorld(
        "temperature 0; each item's verdicts follow one slot, whichever", _order_locked
    ),
    "unequal_matchups": ClaimWorld("each item pulls to a slot of its own and has one to twelve matchups", _unequal_matchups),
    "length_blind_judge": ClaimWorld(
        "quality goes with length, people prefer longer, the judge follows quality; two a/b golds", _length_blind
    ),
    "noisy_gold": ClaimWorld(
        "numeric golds that err; length goes with quality; the judge follows quality",
        lambda generator: _noisy_golds(generator, second=True),
    ),
    "one_noisy_gold": ClaimWorld(
        "one numeric gold that errs; the judge follows quality", lambda generator: _noisy_golds(generator, second=False)
    ),
    "ten_features_60_items": ClaimWorld(
        "quality alone; ten features, some rare, on 60 items", lambda generator: _ten_features(generator, 60)
    ),
    "ten_features_200_items": ClaimWorld(
        "quality alone; ten features, some rare, on 200 items", lambda generator: _ten_features(generator, 200)
    ),
    "coin": ClaimWorld(
        "a coin as judge; one a/b gold that prefers shorter texts", lambda generator: _one_gold(generator, 0.0, 0.0)
    ),
    "sharp_judge": ClaimWorld(
        "the judge reads quality three times as sharply as the one gold", lambda generator: _one_gold(generator, 0.0, 3.0)
    ),
    "dull_judge": ClaimWorld(
        "the judge reads quality .4 times as sharply as the one gold", lambda generator: _one_gold(generator, 0.0, 0.4)
    ),
    "gold_flipped": ClaimWorld("the judge is the gold, flipped in a quarter of its replies", _flipped_gold),
    "gold_with_ties": ClaimWorld("one gold that errs and ties; the judge follows quality", _gold_with_ties),
    "right_or_wrong": ClaimWorld(
        "texts are right or wrong, which is gold, the longer more often right; the judge follows what is right",
        lambda generator: _right_or_wrong(generator, 0.0),
    ),
    "right_or_wrong_longer": ClaimWorld(
        "the same; the judge favours longer texts besides, by .3 log-odds a doubling",
        lambda generator: _right_or_wrong(generator, 0.3), of_judge(length=MORE),
    ),
    "tie_prone": ClaimWorld("the judge ties where quality is alike; exact gold", _tie_prone),
    "unscored_by_slot": ClaimWorld(
        "replies that would pick the first slot are lost more often", lambda generator: _unscored(generator, "slot")
    ),
    "unscored_by_length": ClaimWorld(
        "replies that would pick the longer text are lost more often", lambda generator: _unscored(generator, "length")
    ),
    "raters_share_a_taste": ClaimWorld(
        "two a/b golds of raters who share a taste for length; the judge has none",
        _shared_raters, relative=of_judge(length=LESS),
    ),
    "copied_gold": ClaimWorld(
        "the second gold is the first one, but for 3 %; better texts are longer",
        lambda generator: _shared_raters(generator, 0.03), relative=of_judge(length=MORE),
    ),
    "half_copied_gold": ClaimWorld(
        "the same, but for 10 %", lambda generator: _shared_raters(generator, 0.1), relative=of_judge(length=MORE)
    ),
    "order_by_lot": ClaimWorld("each pair in one order, drawn by lot; quality and noise alone", _order_by_lot),
    "selective_gold": ClaimWorld(
        "exact gold, known more often where the judge picked the longer text", _selective_gold
    ),
    "heavy_tails": ClaimWorld("30 items whose lengths differ by heavy tails (t, 2 df); exact gold", _heavy_tails),
    "near_duplicates": ClaimWorld(
        "temperature 0; every item has two near copies, judged alike", _near_duplicates
    ),
    "always_first": ClaimWorld("the first slot always; one a/b gold", _always_first, of_judge(position=MORE)),
    "length_only": ClaimWorld(
        "the longer text always; one a/b gold that prefers shorter texts", _length_only, of_judge(length=MORE)
    ),
    "dull_judge_longer": ClaimWorld(
        "a taste for length (.3 log-odds a doubling) at less sharp sight than the one gold, which prefers shorter texts",
        lambda generator: _one_gold(generator, 0.3, 0.5), of_judge(length=MORE),
    ),
    "temperature_zero": ClaimWorld(
        "temperature 0; a taste for the first slot and for length; exact gold", _temperature_zero,
        of_judge(position=MORE, length=MORE),
    ),
    "middle_length": ClaimWorld(
        "a taste for middle length, whose linear slope is 0; exact gold", _middle_length, of_judge(length=UNEVEN)
    ),
    "rare_conflicts_40": ClaimWorld(
        "40 pairs, of which a tenth follow the first slot and the others none: 5 points, the default limit",
        lambda generator: _rare_conflicts(generator, 40), of_judge(position=Truth(frozenset({1}), none=False, value=0.05)),
    ),
    "rare_conflicts_100": ClaimWorld(
        "the same with 100 pairs",
        lambda generator: _rare_conflicts(generator, 100), of_judge(position=Truth(frozenset({1}), none=False, value=0.05)),
    ),
    "changing_candidates": ClaimWorld(
        "the judge stays as it is, the texts it sees do not", _changing_candidates, {"judge_drift_*": NOTHING, "advice pin_version": NOTHING}
    ),
    "unchanged_fair_judge": ClaimWorld(
        "a fair judge that stays as it is, on 60 fixed pairs, three times",
        lambda generator: _panel(generator, 60, 0.0, 2), {"judge_drift_*": NOTHING, "advice pin_version": NOTHING},
    ),
    "unchanged_biased_judge": ClaimWorld(
        "a judge with a strong taste for the first slot that stays as it is, on 300 fixed pairs, three times",
        lambda generator: _panel(generator, 300, 1.5, 2), {"judge_drift_*": NOTHING, "advice pin_version": NOTHING},
    ),
    "passing_change": ClaimWorld(
        "a judge whose taste for the first slot is there in generation 2 alone, on 120 fixed pairs, four times",
        lambda generator: _panel(generator, 120, 0.0, 3, 1.5),
        {"judge_drift_first_slot_excess": MORE, "advice pin_version": _THERE},
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
        "a constant linear judge on 32 drafts an item, which run out", _finite_pool, of_run(MORE, "as its strategy", "steady", _UNCLEAR)
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
}  # fmt: skip
