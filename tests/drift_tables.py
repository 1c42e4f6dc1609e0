"""The tables of a run of two arms, one of which gains length, without judgments."""

from __future__ import annotations

import numpy as np
import pandas as pd

from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables

ARMS = (ArmDesign("judge", "j"), ArmDesign("random", "random", is_control=True, judge_kind="random"))


def two_arms(generations: int = 2) -> Design:
    return Design("d", 0, generations, ARMS, (("judge", "random"),), ("judge", "random"))


def tables(seed: int = 0, replicates: int = 4, items: int = 6, pool: int = 5, shift: float = 0.5) -> RunTables:
    """Pool rows with random draw counts; the judge's arm gains ``shift`` doublings a generation."""
    stream = rng(seed, "drift tables")
    rows = []
    for replicate in range(replicates):
        for arm in ("judge", "random"):
            for t in range(3):
                for item in range(items):
                    drawn = np.ones(pool, dtype=int) if t == 0 else stream.multinomial(4, np.ones(pool) / pool)
                    for k in range(pool):
                        length = 5.0 + stream.normal() + (shift * t if arm == "judge" else 0.0)
                        rows.append((replicate, arm, t, f"i{item}", f"k{k}", "some text", "", length, stream.poisson(2.0),
                                     drawn[k], float(stream.integers(2))))  # fmt: skip
    columns = ["replicate", "arm", "generation", "item_id", "candidate_id", "text", "reason", "length", "bold", "n_drawn",
               "correct"]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    for name in (
        "headings",
        "list_items",
        "code_fences",
        "hedges",
        "emoji",
        "transitions",
        "em_dashes",
        "exclamations",
    ):
        frame[name] = 0.0
    for name in ("p_current", "p_selected", "p_selected_gold", "p_training", "p_next", "reward"):
        frame[name] = np.nan
    catalogue = pd.DataFrame({"item_id": [f"i{k}" for k in range(items)], "category": ["a", "b"] * (items // 2)})
    nothing = pd.DataFrame()
    return RunTables(catalogue, frame, nothing, nothing, nothing)
