"""A synthetic finished run folder with the columns of docs/contract.md, "Tables", for the report's tests: no model, no
loop, plausible numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from judgeloop import seeds
from judgeloop.records import JUDGMENT_COLUMNS
from judgeloop.rundir import RunFolder
from judgeloop.stats.estimate import Estimate, estimates_frame

ARMS = ("judge", "random", "gold")
GENERATIONS, REPLICATES, ITEMS = 3, 5, 12
CATEGORIES = ("writing", "maths", "code")
STYLE = ("headings", "bold", "list_items", "hedges")
_SLOPE = {"judge": 0.22, "random": 0.01, "gold": 0.03}
_PROSE = "The short answer is that it depends on the load and on how often the cache is cold. "

EXPERIMENT = """name: {name}
seed: 0
items: items.jsonl
generations: 3
replicates: 5
judge: {{kind: model, endpoint: m}}
policy: {{kind: pool, endpoint: m}}
arms:
  judge: {{}}
  random: {{judge: {{kind: random}}}}
  gold: {{judge: {{kind: gold}}}}
"""


def estimates() -> list[Estimate]:
    """Rows as ``stats/run_estimates`` writes them, but from a stream instead of from data."""
    rows: list[Estimate] = []
    for generation in range(GENERATIONS + 1):
        rows += _judge_rows(generation)
    for arm in ARMS:
        for generation in range(GENERATIONS + 1):
            rows += _policy_rows(arm, generation)
    for control in ("random", "gold"):
        rows += _contrast_rows(control)
        rows += _amplification_rows(control)
    return rows


def _row(term: str, estimate: float, half: float, **more: Any) -> Estimate:
    values: dict[str, Any] = {
        "scope": "policy", "bias": "verbosity", "std_error": half / 2.4, "conf_low": estimate - half, "conf_high": estimate + half,
        "conf_level": 0.95, "n": 240, "n_items": ITEMS, "method": "mean, replicate t",
    }  # fmt: skip
    return Estimate(**{**values, "term": term, "estimate": estimate, **more})


def _judge_rows(generation: int) -> list[Estimate]:
    rng = seeds.rng(0, "report", "judge", generation)
    base = {"scope": "judge", "judge": "small-judge", "panel": "anchor", "generation": generation, "n_unscored": 3}
    rate = {**base, "unit": "probability", "method": "item cluster t"}
    rows = [
        _row("first_slot_excess", 0.123 + rng.normal(0, 0.006), 0.031, bias="position", p_value=0.0001, p_adjusted=0.0003, family="exploratory", **rate),
        _row("conflict_rate", 0.31, 0.04, bias="position", **rate),
        _row("excess_conflict", 0.05, 0.03, bias="position", **rate),
        _row("length_ame", 0.061 + rng.normal(0, 0.004), 0.03, p_adjusted=0.01, family="exploratory", **rate),
        _row("longer_preferred_raw", 0.64, 0.05, **rate),
        _row("gold_agreement", 0.71, 0.04, bias="quality", **rate),
        _row("length_log_odds", 0.30, 0.14, unit="log-odds", **base),
        _row("position_log_odds", 0.52, 0.16, unit="log-odds", bias="position", **base),
        _row("bold_log_odds", 0.08, 0.15, unit="log-odds", **base),
    ]  # fmt: skip

    for place, category in enumerate(CATEGORIES):
        rows.append(_row("first_slot_excess", 0.05 + 0.07 * place, 0.06, bias="position", category=category, **rate))
    if generation == 0:
        rows.append(
            _row("identical_pair_excess", 0.01, 0.03, bias="position", **{**rate, "panel": "policy", "arm": "judge"})
        )
    else:
        rows.append(_row("judge_drift_first_slot_excess", 0.002, 0.02, bias="position", **rate))
    return rows


def _policy_rows(arm: str, generation: int) -> list[Estimate]:
    rng = seeds.rng(0, "report", "policy", arm, generation)
    base: dict[str, Any] = {"arm": arm, "generation": generation, "n_replicates": REPLICATES, "unit": "doublings"}
    slope = _SLOPE[arm]
    rows = [
        _row("mean_length", 6.2 + slope * generation, 0.08, **base),
        _row("sd_length", 0.55 * 0.9**generation, 0.03, **base),
        _row(
            "mean_correct",
            0.62 - (0.03 * generation if arm == "judge" else 0),
            0.03,
            **{**base, "bias": "quality", "unit": "probability"},
        ),
    ]
    for term, start, step in (
        ("mattr", 0.74, -0.012),
        ("compression_ratio", 0.43, -0.006),
        ("distinct_2", 0.81, -0.02),
        ("self_bleu", 0.21, 0.02),
        ("opener_entropy", 3.1, -0.12),
    ):
        rows.append(
            _row(
                term,
                start + step * generation * (1 if arm == "judge" else 0.2),
                abs(step) * 0.7,
                **{**base, "bias": "diversity", "unit": "raw"},
            )
        )
    if generation:
        rows.append(_row("drift_length", slope * generation + rng.normal(0, 0.01), 0.03 + 0.03 * generation, **base))
        for feature in ("style_score", *STYLE):
            rows.append(
                _row(
                    f"drift_{feature}",
                    slope * 0.7 * generation + rng.normal(0, 0.02),
                    0.1,
                    **{**base, "bias": "style", "unit": "generation-0 sd"},
                )
            )
        rows.append(_row("kl_from_reference", 0.06 * generation**2 * (slope / 0.22), 0.01, **{**base, "unit": "nats"}))
    if generation < GENERATIONS:
        for part, share in (("selection", 1.1), ("mixing", -0.2), ("learning", 0.1)):
            rows.append(_row(f"{part}_length", share * slope + rng.normal(0, 0.01), 0.03, **base))
    return rows


def _contrast_rows(control: str) -> list[Estimate]:
    rows = []
    for generation in range(1, GENERATIONS + 1):
        confirmatory = generation == GENERATIONS and control == "random"
        base: dict[str, Any] = {
            "arm": "judge", "contrast": control, "generation": generation, "n": REPLICATES, "n_replicates": REPLICATES,
            "family": "confirmatory" if confirmatory else "exploratory", "p_adjusted": 0.004,
        }  # fmt: skip
        rows += [
            _row("did_length", 0.2 * generation, 0.09, unit="doublings", verdict="drifting", **base),
            _row("did_style_score", 0.05 * generation, 0.29, unit="generation-0 sd", bias="style", status="underpowered", verdict="undetected", margin=0.1, detectable=0.41, **base),
            _row("did_mattr", -0.010 * generation, 0.008, unit="raw", bias="diversity", verdict="drifting", **base),
            *(_row(f"did_{f}", 0.1 * generation, 0.05 if f == "bold" else 0.4, unit="generation-0 sd", bias="style", **base) for f in STYLE),
        ]  # fmt: skip
    return rows


def _amplification_rows(control: str) -> list[Estimate]:
    base = {
        "arm": "judge",
        "contrast": control,
        "n_replicates": REPLICATES,
        "n": REPLICATES,
        "unit": "ratio",
        "method": "Fieller t",
    }
    return [
        _row("cumulative_gain_length", 2.4, 0.4, **base),
        _row("compounding_length", 0.81, 0.13, verdict="saturating", benchmark=1.0, **base),
        _row("beyond_first_step_length", -0.12, 0.05, verdict="saturating", margin=0.12, **{**base, "unit": "doublings"}),
        _row("beyond_strategy_length", -0.12, 0.05, verdict="found", margin=0.12, benchmark=0.6, **{**base, "unit": "doublings"}),
        _row("observed_over_static_length", 0.9, 0.2, **base),
        Estimate(scope="policy", bias="style", term="compounding_style_score", status="undefined", note="the first loop's drift is not away from 0", arm="judge", contrast=control),
        *([_row("transmission_length", 1.02, 0.21, scope="signal", **{**base, "contrast": ""})] if control == "random" else []),
    ]  # fmt: skip


def candidates(texts: Sequence[str] = (), replicates: int = REPLICATES, items: int = ITEMS) -> pd.DataFrame:
    """Two texts an item, arm, generation and replicate, longer in the judge's arm; ``texts`` replace them, item by item."""
    rows = []
    for replicate in range(replicates):
        for arm in ARMS:
            for generation in range(GENERATIONS + 1):
                rng = seeds.rng(0, "report", "texts", replicate, arm if generation else "", generation)
                for item in range(items):
                    for k in range(2):
                        length = 5.5 + _SLOPE[arm] * generation + float(rng.normal(0, 0.3))
                        body = (
                            texts[item % len(texts)]
                            if texts
                            else f"Draft {k} of item {item}. " + _PROSE * max(1, int(2**length / 18))
                        )
                        rows.append(
                            (
                                replicate,
                                arm,
                                generation,
                                f"item-{item:02d}",
                                f"m{k:02d}",
                                body,
                                "",
                                length,
                                float(rng.gamma(1)),
                                1,
                                0.5,
                            )
                        )
    frame = pd.DataFrame(rows, columns=["replicate", "arm", "generation", "item_id", "candidate_id", "text", "reason", "length", "headings", "n_drawn", "p_current"])  # fmt: skip
    anchor = frame[(frame["replicate"] == 0) & (frame["arm"] == "judge") & (frame["generation"] == 0)].assign(
        replicate=None, arm="", n_drawn=0, p_current=np.nan
    )
    out = pd.concat([frame.astype({"replicate": "Int64"}), anchor.astype({"replicate": "Int64"})], ignore_index=True)
    return out.assign(
        reward=np.nan, p_selected=np.nan, p_selected_gold=np.nan, p_training=np.nan, p_next=np.nan, correct=np.nan
    )


def judgments(
    judge: str = "small-judge", categories: Sequence[str] = CATEGORIES, reason: str = "no verdict in the reply"
) -> pd.DataFrame:
    """Anchor and on-policy pairs in both orders; the first slot wins often, some replies are unscored."""
    rows = []
    places = [(None, "", g, "anchor") for g in range(GENERATIONS + 1)] + [
        (r, "judge", g, "policy") for r in range(2) for g in range(GENERATIONS + 1)
    ]
    for replicate, arm, generation, panel in places:
        rng = seeds.rng(0, "report", "judgments", panel, replicate or 0, generation)
        for item in range(ITEMS):
            for order in ("ab", "ba"):
                p = float(rng.beta(5, 3))
                verdict = "unscored" if rng.random() < 0.02 else "first" if p > 0.5 else "second"
                names = ("m00", "m01") if order == "ab" else ("m01", "m00")
                rows.append((
                    replicate, arm, generation, panel, f"item-{item:02d}", categories[item % len(categories)], f"item-{item:02d}/0", judge, order, 0,
                    verdict, np.nan if verdict == "unscored" else p, reason if verdict == "unscored" else "", *names, False, "", f"{panel}/g{generation}/{item}/{order}",
                ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(JUDGMENT_COLUMNS)).astype({"replicate": "Int64"})


def write(
    path: Path,
    *,
    name: str = "demo",
    rows: list[Estimate] | None = None,
    texts: Sequence[str] = (),
    prompt: str = "Why is the first request slow?",
    size: tuple[int, int] = (REPLICATES, ITEMS),
    **judged: Any,
) -> RunFolder:
    """A finished run folder at ``path``."""
    folder = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    folder.write_text("experiment.yaml", EXPERIMENT.format(name=name))
    folder.write_json(
        "environment.json",
        {
            "experiment_hash": "sha256:" + "ab" * 32,
            "judgeloop": "0.1.0",
            "calls": 4321,
            "cost_usd": 1.25,
            "reported_models": {"m": ["tiny-1"]},
        },
    )
    items = pd.DataFrame(
        [(f"item-{i:02d}", f"{prompt} ({i})", CATEGORIES[i % 3], None, "exact") for i in range(ITEMS)],
        columns=["item_id", "prompt", "category", "reference", "match"],
    )
    folder.write_part("items", "all", items)
    folder.write_part("candidates", "all", candidates(texts, *size))
    folder.write_part("judgments", "all", judgments(**judged))
    folder.write_estimates(estimates_frame(estimates() if rows is None else rows))
    return folder
