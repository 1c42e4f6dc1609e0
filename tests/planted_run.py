"""A run with planted truth, as the frames that a run folder holds: the toy loop of docs/method.md, "Analytic truths"
(row L).

Texts are points (x, q) of a Gaussian with unit variances and correlation ρ: x is the length in doublings, q a quality that
the judge reads too, written in the column ``bold``. The judge picks with log-odds βΔx + κΔq, gold with κΔq, random by a
coin; the signal is refitted to fresh picks each generation, and the policy is tilted by exp(reward/τ), which shifts a
Gaussian's mean by Σb/τ and keeps its variance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from judgeloop.kernels import logistic, sigmoid
from judgeloop.records import CANDIDATE_COLUMNS, JUDGMENT_COLUMNS, PREFERENCE_COLUMNS, SIGNAL_COLUMNS
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.text.features import FEATURES

BETA, KAPPA, TAU, RHO = 0.3, 1.0, 2.0, 0.3
SIGMA = np.array([[1.0, RHO], [RHO, 1.0]])
ROOT = np.linalg.cholesky(SIGMA)
SLOPES = {"judge": np.array([BETA, KAPPA]), "gold": np.array([0.0, KAPPA]), "random": np.array([0.0, 0.0])}


def design(generations: int = 6, **judge: object) -> Design:
    arms = (
        ArmDesign("judge", "planted", policy_kind="exemplar", **judge),  # type: ignore[arg-type]
        ArmDesign("random", "random", is_control=True, judge_kind="random", policy_kind="exemplar", **judge),  # type: ignore[arg-type]
        ArmDesign("gold", "gold", is_control=True, judge_kind="gold", policy_kind="exemplar", **judge),  # type: ignore[arg-type]
    )
    return Design("toy", 0, generations, arms, (("judge", "random"), ("judge", "gold")), ("judge", "random"))


def empty_judgments() -> pd.DataFrame:
    return pd.DataFrame(columns=list(JUDGMENT_COLUMNS))


def loop(
    seed: int = 0,
    *,
    generations: int = 6,
    replicates: int = 8,
    items: int = 20,
    size: int = 60,
    pairs: int = 3000,
    strategy: str = "replace",
    reference: str = "previous",
    doubled: bool = False,
    anchor: int = 0,
) -> RunTables:
    """The tables of a whole run. ``doubled``: only order-consistent pairs are kept, which doubles every learned slope."""
    parts, signals = [], []
    for replicate in range(replicates):
        for arm, slopes in SLOPES.items():
            means, selected = [np.zeros(2)], []
            for t in range(generations + 1):
                noise = rng(seed, "candidates", replicate, t).standard_normal((items * size, 2))
                points = means[-1] + noise @ ROOT.T
                learned = _fit(rng(seed, "picks", replicate, t), slopes, pairs, doubled)
                start = means[-1] if reference == "previous" else np.zeros(2)
                selected.append(start + SIGMA @ learned / TAU)
                by_gold = SLOPES["gold"] * (2.0 if doubled else 1.0)
                parts.append(_candidates(points, learned, by_gold, replicate, arm, t, items, last=t == generations))
                signals += [
                    (replicate, arm, t, f, b, 0.01, 1.0, True) for f, b in zip(("length", "bold"), learned, strict=True)
                ]
                means.append(selected[-1] if strategy == "replace" else sum(selected) / (t + 2))
    candidates = pd.concat(parts, ignore_index=True)
    judgments = empty_judgments()
    if anchor:
        texts, judgments = anchor_panel(seed, anchor, generations)
        candidates = pd.concat([candidates, texts], ignore_index=True)
    return RunTables(
        items=pd.DataFrame({"item_id": [f"i{k:03d}" for k in range(items)], "category": ""}),
        candidates=candidates,
        judgments=judgments,
        preferences=pd.DataFrame(columns=list(PREFERENCE_COLUMNS)),
        signals=pd.DataFrame(signals, columns=list(SIGNAL_COLUMNS)),
    )


def _fit(stream: np.random.Generator, slopes: np.ndarray, pairs: int, doubled: bool) -> np.ndarray:
    difference = stream.standard_normal((pairs, 2)) @ ROOT.T * np.sqrt(2.0)
    probability = sigmoid(difference @ slopes)
    first, again = stream.random((2, pairs)) < probability
    if doubled:
        difference, first = difference[first == again], first[first == again]
    return logistic(difference, first.astype(float)).coefficients


def _candidates(
    points: np.ndarray,
    learned: np.ndarray,
    by_gold: np.ndarray,
    replicate: int,
    arm: str,
    t: int,
    items: int,
    last: bool,
) -> pd.DataFrame:
    """Selection is the tilt of each item's own candidates, by the fitted reward and by gold's."""
    size = len(points) // items
    weight = np.exp(points @ learned / TAU).reshape(items, size)
    chosen = (weight / weight.sum(axis=1, keepdims=True)).ravel()
    gold = np.exp(points @ by_gold / TAU).reshape(items, size)
    by_gold_chosen = (gold / gold.sum(axis=1, keepdims=True)).ravel()
    selected = np.nan if last else chosen
    columns = {
        **dict.fromkeys(FEATURES, 0.0), "length": points[:, 0], "bold": points[:, 1], "replicate": replicate, "arm": arm,
        "generation": t, "item_id": np.repeat([f"i{k:03d}" for k in range(items)], size),
        "candidate_id": [f"g{t}k{k}" for k in range(size)] * items, "text": "a", "reason": "", "n_drawn": 1,
        "p_current": 1.0 / size, "p_selected": selected, "p_training": selected, "p_next": selected,
        "p_selected_gold": np.nan if last else by_gold_chosen, "reward": points @ learned, "correct": np.nan,
    }  # fmt: skip
    names = [*CANDIDATE_COLUMNS[:7], *FEATURES, *CANDIDATE_COLUMNS[7:]]
    return pd.DataFrame({name: columns[name] for name in names}, index=range(len(points)))


def anchor_panel(
    seed: int, pairs: int, generations: int, changes_at: int | None = None, position: float = 0.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The panel's texts and its judgments: soft verdicts, so that a frozen judge repeats itself exactly.

    From ``changes_at`` on, the judge's slope on x is doubled, and ``position`` is added for the first slot.
    """
    stream = rng(seed, "anchor")
    points = stream.standard_normal((2 * pairs, 2)) @ ROOT.T
    texts = pd.DataFrame(0.0, index=range(2 * pairs), columns=list(FEATURES))
    texts["length"], texts["bold"] = points[:, 0], points[:, 1]
    texts["replicate"], texts["arm"], texts["generation"] = pd.array([pd.NA] * len(texts), dtype="Int64"), "", 0
    texts["item_id"] = np.repeat([f"i{k:03d}" for k in range(pairs)], 2)
    texts["candidate_id"] = ["anchor0", "anchor1"] * pairs
    texts["text"], texts["n_drawn"] = "a", 0
    noise = stream.standard_normal(pairs) * 0.3
    rows = []
    for t in range(generations + 1):
        changed = changes_at is not None and t >= changes_at
        slopes = SLOPES["judge"] * (np.array([2.0, 1.0]) if changed else 1.0)
        margin = (points[0::2] - points[1::2]) @ slopes + noise
        slot = position if changed else 0.0
        shares = [sigmoid(slot + sign * margin).tolist() for sign in (1.0, -1.0)]
        for k in range(pairs):
            for place, order, first, second in ((0, "ab", "anchor0", "anchor1"), (1, "ba", "anchor1", "anchor0")):
                p = shares[place][k]
                rows.append((
                    pd.NA, "", t, "anchor", f"i{k:03d}", "", f"anchor-{k:03d}", "planted", order, 0,
                    "first" if p > 0.5 else "second", p, "", first, second, False, "", "",
                ))  # fmt: skip
    judgments = pd.DataFrame(rows, columns=list(JUDGMENT_COLUMNS))
    judgments["replicate"] = judgments["replicate"].astype("Int64")
    return texts, judgments
