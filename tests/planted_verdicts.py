"""Judgments of a judge with stated coefficients, for tests of the judge estimators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from judgeloop import seeds
from judgeloop.stats.estimate import estimates_frame
from judgeloop.stats.judge.content import content_estimates

NAMES = ["length", "bold"]
UNSCALED = {"bold": 1.0}


def s(values):
    return 1 / (1 + np.exp(-np.asarray(values, dtype=float)))


def verdict_frame(
    picked: Sequence[str], items: Sequence[object], pairs: Sequence[object], orders: Sequence[str], **columns: object
) -> pd.DataFrame:
    """Judgments in the columns of docs/contract.md, "Tables", one judge; candidates are named <pair>a and <pair>b."""
    frame = pd.DataFrame({
        "item_id": [str(item) for item in items], "pair_id": [str(pair) for pair in pairs], "judge": "j",
        "order": list(orders), "repeat": 0, "verdict": list(picked), "p_first": np.nan, "identical": False,
    })  # fmt: skip
    sides = frame["pair_id"] + "a", frame["pair_id"] + "b"
    ab = frame["order"] == "ab"
    frame["candidate_first"] = sides[0].where(ab, sides[1])
    frame["candidate_second"] = sides[1].where(ab, sides[0])
    return frame.assign(**columns)


def planted_judgments(
    n: int, label: object, *, position: float = 0.0, slopes: Sequence[float] = (), quality: float = 0.0,
    deltas: np.ndarray | None = None, margin: np.ndarray | None = None, pairs_an_item: int = 1, repeats: int = 1,
    soft: bool = False, sd: float = 0.0,
) -> pd.DataFrame:  # fmt: skip
    """``n`` pairs in both orders of a judge with P(first) = s(position ± (slopes·deltas + quality·margin + sd·noise))."""
    rng = seeds.rng(0, "planted", str(label))
    eta = sd * rng.normal(size=n)
    if deltas is not None:
        eta = eta + deltas @ np.asarray(slopes, dtype=float)
    if margin is not None:
        eta = eta + quality * margin
    parts = []
    for order, sign in (("ab", 1.0), ("ba", -1.0)):
        for repeat in range(repeats):
            p = s(position + sign * eta)
            picked = np.where(rng.random(n) < p, "first", "second")
            parts.append(
                verdict_frame(
                    picked, np.arange(n) // pairs_an_item, np.arange(n), [order] * n, repeat=repeat,
                    p_first=p if soft else np.nan,
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def texts_of(deltas: np.ndarray, names: Sequence[str], pairs_an_item: int = 1) -> pd.DataFrame:
    """Feature frame in which candidate a has ``deltas`` (n, p) and candidate b has zeros."""
    n = len(deltas)
    items = [str(item) for item in np.arange(n) // pairs_an_item]
    a = pd.DataFrame(deltas, columns=list(names)).assign(item_id=items, candidate_id=[f"{i}a" for i in range(n)])
    b = pd.DataFrame(np.zeros_like(deltas), columns=list(names)).assign(
        item_id=items, candidate_id=[f"{i}b" for i in range(n)]
    )
    return pd.concat([a, b], ignore_index=True)


def votes(margin, label):
    rng = seeds.rng(0, "votes", label)
    return np.where(rng.random(len(margin)) < s(margin), "a", "b")


def world(n, label, *, slopes=(0.3, 0.15), quality=1.0, position=0.2, correlation=0.0, pairs_an_item=1):
    """Judgments, texts and each judgment's true quality margin."""
    rng = seeds.rng(0, "world", label)
    deltas = rng.normal(size=(n, 2))
    margin = correlation * deltas[:, 0] + rng.normal(size=n) * math.sqrt(max(0.0, 1 - correlation**2))
    frame = planted_judgments(
        n, label, position=position, slopes=slopes, deltas=deltas, margin=margin, quality=quality,
        pairs_an_item=pairs_an_item,
    )  # fmt: skip
    return frame, texts_of(deltas, NAMES, pairs_an_item), np.tile(margin, 2)


def rows_of(frame, texts, **options):
    rows = content_estimates(frame, texts, scales=UNSCALED, **options)
    assert len(estimates_frame(rows)) == len(rows)
    return {(row.term, row.variant): row for row in rows}
