"""Judges with stated tastes, as logs, as folders of an analysis, and as contenders of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from judgeloop import seeds
from judgeloop.interchange.verdicts import VerdictLog, read_verdicts
from judgeloop.rundir import RunFolder
from judgeloop.stats.compare.contenders import Contender, with_pair_keys
from judgeloop.stats.compare.differences import Difference
from judgeloop.stats.compare.ranking import Comparison
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge.estimates import judge_estimates
from judgeloop.text.features import features_frame

Judges = dict[str, tuple[float, float, float]]
THREE: Judges = {"good": (0.05, 0.1, 2.0), "slotty": (1.2, 0.1, 2.0), "longy": (0.1, 1.0, 1.5)}


def log(
    judges: Judges, label: object = 0, *, texts: object = 0, items: int = 150, matchups: int = 1, **columns: Any
) -> pd.DataFrame:
    """Verdicts of judges with (position, slope per doubling, slope on quality). ``texts`` names the stream of the pairs, so
    that logs of the same texts share them; ``label`` that of the picks."""
    material = seeds.rng(0, "compare texts", str(texts))
    n = items * matchups
    lengths, quality = material.integers(20, 300, size=(n, 2)), material.standard_normal(n)
    margin = np.log2(lengths[:, 0] / lengths[:, 1])
    parts = []
    for name, (position, slope, kappa) in judges.items():
        picks = seeds.rng(0, "compare picks", str(label), name)
        for order, sign in (("ab", 1.0), ("ba", -1.0)):
            p = 1 / (1 + np.exp(-(position + sign * (slope * margin + kappa * quality))))
            parts.append(pd.DataFrame({
                "item_id": [f"i{k // matchups}" for k in range(n)], "pair_id": [f"p{k}" for k in range(n)], "judge": name,
                "order": order, "verdict": np.where(picks.random(n) < p, "first", "second"), "prompt": "Q",
                "text_a": ["a " * k for k in lengths[:, 0]], "text_b": ["b " * k for k in lengths[:, 1]],
                "gold": np.where(quality > 0, "a", "b"), **columns,
            }))  # fmt: skip
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(prompt="Q " + frame["item_id"])


def analysed(frame: pd.DataFrame, path: Path) -> Path:
    """The folder of an analysis, without its report."""
    read = read_verdicts(frame)
    texts = features_of(read)
    folder = RunFolder(path)
    folder.write_text("experiment.yaml", yaml.safe_dump({"name": path.name, "analyze": {"verdicts": "frame"}}))
    folder.write_json("environment.json", {})
    folder.write_part("judgments", "log", read.judgments)
    folder.write_part("candidates", "log", texts.assign(replicate=pd.NA, arm="", generation=pd.NA))
    folder.write_part("items", "log", read.items)
    folder.write_estimates(judge_estimates(read.judgments, texts, gold_exact=True))
    return path


def features_of(read: VerdictLog) -> pd.DataFrame:
    """The log's texts, measured."""
    return pd.concat([read.texts, features_frame(read.texts["text"].tolist())], axis=1)


def contender(name: str, frame: pd.DataFrame) -> Contender:
    """One judge's log as a contender, without estimates of its own."""
    read = read_verdicts(frame)
    texts = features_of(read)
    return Contender(
        name, name, str(frame["judge"].iloc[0]), judgments=with_pair_keys(read.judgments, texts), texts=texts
    )


def named(source: Comparison | list[Difference], term: str, variant: str = "") -> Difference:
    every = source.differences if isinstance(source, Comparison) else source
    matches = [difference for difference in every if difference.row.term == term and difference.row.variant == variant]
    assert len(matches) == 1
    return matches[0]


def bias(name: str, *rows: tuple[str, float, float], **more: Any) -> Contender:
    own_rows = tuple(
        Estimate(scope="judge", bias="position", term=term, judge=name, estimate=(low + high) / 2, std_error=(high - low) / 4,
                 conf_low=low, conf_high=high, n_items=200, unit="probability")
        for term, low, high in rows
    )  # fmt: skip
    return Contender(name, name, name, rows=own_rows, **more)
