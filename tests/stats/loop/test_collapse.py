"""The stage of collapse, early or late, is claimed only where intervals support it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import Estimate, Verdict
from judgeloop.stats.loop.diversity import diversity_series
from judgeloop.stats.loop.drift import drift_estimates
from judgeloop.stats.loop.replicates import measure
from judgeloop.stats.loop.tail import collapse_estimates

DESIGN = Design(
    "planted", 0, 2, (ArmDesign("judge", "m"), ArmDesign("random", "random", is_control=True, judge_kind="random")),
    (("judge", "random"),), ("judge", "random"),
)  # fmt: skip


def did(term: str, low: float, high: float, verdict: Verdict = "drifting") -> Estimate:
    return Estimate(
        scope="policy", bias="diversity", term=f"did_{term}", arm="judge", contrast="random", generation=2,
        estimate=(low + high) / 2, conf_low=low, conf_high=high, p_value=0.01, verdict=verdict,
    )  # fmt: skip


LOST = did("tail_mass_retained", -0.5, -0.2)
OWN = replace(did("tail_mass_retained", -0.6, -0.1), term="drift_tail_mass_retained", contrast="")


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([LOST, did("mattr", -0.004, 0.003, "none"), did("length", -0.3, 0.2, "undetected")], "early collapse"),
        ([LOST, did("mattr", -0.004, 0.003, "none"), did("length", 0.1, 0.2)], "late collapse"),
        ([LOST, did("mattr", -0.2, -0.1)], "late collapse"),
        ([LOST, did("vendi", -2.0, -1.0), did("mattr", -0.3, 0.2, "undetected")], "tail lost, means unclear"),
        ([did("tail_mass_retained", -0.5, 0.2, "undetected"), did("mattr", -0.2, -0.1)], "no loss of tail seen"),
    ],
)
def test_the_word_follows_from_the_intervals(rows: list[Estimate], word: str) -> None:
    (row,) = collapse_estimates([*rows, OWN], DESIGN)
    assert row.term == "collapse_stage"
    assert row.verdict == word
    assert (row.estimate, row.conf_low, row.p_value) == (rows[0].estimate, rows[0].conf_low, None)


def test_a_control_whose_tail_grows_is_no_loss() -> None:
    held = replace(OWN, conf_low=-0.1, conf_high=0.2)
    (row,) = collapse_estimates([LOST, did("mattr", -0.2, -0.1), held], DESIGN)
    assert row.verdict == "no loss of tail seen"
    assert "its own at generation 0" in row.note


def test_a_tail_that_is_undefined_says_why() -> None:
    tail = Estimate(
        scope="policy", bias="diversity", term="did_tail_mass_retained", arm="judge", contrast="random", generation=2,
        status="undefined", note="too few texts",
    )  # fmt: skip
    (row,) = collapse_estimates([tail], DESIGN)
    assert (row.status, row.verdict, row.note) == ("undefined", "", "too few texts")
    assert collapse_estimates([did("mattr", -0.2, -0.1)], DESIGN) == []


@pytest.mark.slow
def test_a_planted_run_that_loses_its_rare_topics_first_is_early_collapse() -> None:
    """The judge's arm stops writing the rare topics; each text is as varied as before."""
    words = {topic: [f"{topic}{k}" for k in range(40)] for topic in "abcdefgh"}
    rows = []
    for replicate in range(16):
        for arm in ("judge", "random"):
            for generation in range(3):
                p = np.array([0.24, 0.22, 0.2, 0.18, 0.05, 0.04, 0.04, 0.03])
                if arm == "judge" and generation:
                    p = np.where(p < 0.1, 0.0, p)
                stream = np.random.default_rng(
                    [7, replicate, 0 if generation == 0 else generation, arm == "judge" and generation > 0]
                )
                for item in range(24):
                    for k in range(8):
                        topic = stream.choice(list(words), p=p / p.sum())
                        text = " ".join(stream.choice(words[topic], size=30))
                        rows.append((replicate, arm, generation, f"i{item}", f"g{generation}k{k}", text))
    frame = pd.DataFrame(rows, columns=["replicate", "arm", "generation", "item_id", "candidate_id", "text"])
    frame = frame.assign(n_drawn=1, reason="", category="", length=5.0, reward=np.nan)
    empty = pd.DataFrame()
    measured = measure(RunTables(empty, frame, empty, empty, empty), DESIGN)
    drifts = drift_estimates(measured, diversity_series(measured, DESIGN, ["mattr", "tail_mass_retained"]), DESIGN)
    (row,) = collapse_estimates(drifts, DESIGN)
    assert row.conf_high is not None
    assert row.conf_high < 0
    assert row.verdict == "early collapse", row.note
