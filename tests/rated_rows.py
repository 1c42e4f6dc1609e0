"""Judges that score one text, or choose from a list: planted worlds, and rows with every term, unit and variant they have."""

from __future__ import annotations

import numpy as np
import pandas as pd

from judgeloop import seeds
from judgeloop.stats.judge.listwise import choice_frame
from judgeloop.stats.judge.pointwise import score_frame
from judgeloop.text.features import FEATURES
from judgeloop.text.templates import Scale, parse_scale

TEN, BACK, FIVE = Scale(1, 10), Scale(10, 1), Scale(1, 5)


def world(
    items: int = 200, *, length: float = 0.5, bold: float = 0.3, gold: float = 1.0, noise: float = 0.8, anchor: float = 0.0,
    repeats: int = 2, scales: tuple[Scale, ...] = (TEN, BACK), label: str = "scores",
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Scores of two texts an item, with planted slopes in points of 1-10; pairs with gold; texts with features."""
    rng = seeds.rng(0, label)
    scores, pairs, texts = [], [], []
    for number in range(items):
        item, quality, base = f"i{number}", rng.normal(size=2), rng.normal()
        x = rng.normal(size=2) + 0.4 * quality
        b = rng.normal(size=2)
        for place, name in enumerate("ab"):
            features = dict.fromkeys(FEATURES, 0.0) | {"length": x[place], "bold": b[place]}
            texts.append({"item_id": item, "candidate_id": name, **features})
            mean = 5.5 + base + length * x[place] + bold * b[place] + gold * quality[place]
            for scale in scales:
                for repeat in range(repeats):
                    value = mean + noise * rng.normal() + anchor * 9 * (1 if scale.best > scale.worst else -1)
                    score = scale.worst + (value - 1) / 9 * (scale.best - scale.worst)
                    score = float(np.clip(np.round(score), scale.low, scale.high))
                    scores.append({
                        "item_id": item, "candidate_id": name, "category": "c" if number % 2 else "", "judge": "j",
                        "repeat": repeat, "scale": scale.name, "score": score, "at_worst": float(score == scale.worst),
                        "at_best": float(score == scale.best), "reason": "",
                    })  # fmt: skip
        margin = repr(float(quality[0] - quality[1]))
        pairs.append({"pair_id": item, "item_id": item, "category": "c" if number % 2 else "", "candidate_a": "a",
                      "candidate_b": "b", "gold": margin, "identical": False})  # fmt: skip
    return pd.DataFrame(scores), pd.DataFrame(pairs), pd.DataFrame(texts)


def worlds(sets=400, k=3, length=0.6, slot=0.5, gold=0.0, label="content"):
    """Sets of texts with planted slopes; one call a rotation."""
    rng = seeds.rng(0, label)
    texts, rows = [], []
    for number in range(sets):
        x, best = rng.normal(size=k), int(rng.integers(k))
        for place in range(k):
            features = dict.fromkeys(FEATURES, 0.0) | {"length": x[place], "bold": float(rng.normal())}
            texts.append({"item_id": str(number), "candidate_id": f"t{place}", **features})
        worth = length * x + gold * (np.arange(k) == best)
        for rotation in range(k):
            order = (np.arange(k) + rotation) % k
            eta = worth[order] + slot * (np.arange(k) == 0) + rng.gumbel(size=k)
            candidates = {f"candidate_{j + 1}": f"t{order[j]}" for j in range(k)}
            rows.append({
                "item_id": str(number), "set_id": "s", "category": "", "judge": "j", "rotation": rotation, "repeat": 0,
                "slot": int(np.argmax(eta)) + 1, "gold": f"t{best}", **candidates,
            })  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(texts)


def frames() -> list[pd.DataFrame]:
    """Estimates of a planted scorer on three scales, and of a planted chooser."""
    scales = tuple(map(parse_scale, ("1-10", "10-1", "1-5")))
    scored = world(20, scales=scales)
    choices, texts = worlds(sets=40, k=8)
    return [score_frame(*scored, scales), choice_frame(choices, 8, texts)]
