"""The probe panel: texts against their own edits, judged once a generation, and never trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import judgeloop
from conftest import Served, small_experiment, write_experiment
from judgeloop.experiment.resolve import Material, load
from judgeloop.judging.pairing import call_id, judgments_frame, presentations
from judgeloop.judging.panels import PROBES, RULE_PROBES, AnchorPanel, probes_of_panel, rule_pairs, with_probes
from judgeloop.records import PADDING_DOSES, PROBE_NAMES, Candidate, Item, Judgment, Matchup, Verdict
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import estimates_frame
from judgeloop.stats.loop.panels import judge_drift_estimates, probe_panel_estimates
from judgeloop.stats.multiplicity import adjust, holm, with_run_families

Serve = Callable[..., Served]
TEXTS = (
    "The rain falls on the roof. It sounds like a drum. Nobody listens to it.",
    "Rain is water that falls. It starts in the clouds.",
)
MATCHUP = Matchup("i", "p", Candidate("i", "x", TEXTS[0]), Candidate("i", "y", TEXTS[1]))


def test_the_names_that_a_run_may_say_are_the_probes_by_rule() -> None:
    assert PROBE_NAMES == RULE_PROBES
    assert PROBES["padding"].doses == PADDING_DOSES


def test_both_texts_are_edited_each_against_its_own_original() -> None:
    pairs = rule_pairs(MATCHUP, ("padding", "bold", "self_name", "identical"), seed=1, judge_name="m")
    ids = [pair.matchup.pair_id for pair in pairs]
    assert ids == [
        "p~a~padding~1.25", "p~a~padding~1.5", "p~a~padding~2", "p~b~padding~1.25", "p~b~padding~1.5", "p~b~padding~2",
        "p~a~bold", "p~b~bold", "p~a~self_name", "p~b~self_name", "p~a~identical", "p~b~identical",
    ]  # fmt: skip
    assert len({(pair.matchup.b.candidate_id) for pair in pairs}) == len(pairs)
    for pair in pairs:
        original = MATCHUP.a if "~a~" in pair.matchup.pair_id else MATCHUP.b
        assert pair.matchup.a == original
        assert (pair.matchup.b.text == original.text) == (pair.probe == "identical")
    assert pairs[8].matchup.b.candidate_id == "x~self_name~m"
    assert pairs[2].dose_reached == pytest.approx(2.0, rel=0.1)
    presentation = presentations([pairs[0].matchup])[0]
    assert call_id("panels/g0/judge", presentation) == "panels/g0/judge/i/p~a~padding~1.25/ab/r0"


def test_equal_texts_are_edited_once_and_the_language_is_the_item_s() -> None:
    same = Matchup("i", "p", MATCHUP.a, Candidate("i", "y", TEXTS[0]))
    assert [pair.matchup.pair_id for pair in rule_pairs(same, ("bold",), seed=1)] == ["p~a~bold"]
    panel = AnchorPanel({"i": Item("i", "?", language="sv")}, (MATCHUP,))
    assert {pair.probe for pair in probes_of_panel(panel, PROBE_NAMES, 1, "m")} == {"bold", "emoji", "list_items", "whitespace", "identical"}  # fmt: skip


def _judged(pairs: list[Any], likes: dict[str, float], generation: int) -> pd.DataFrame:
    """A judge with soft verdicts that likes an edit by probe, and the first slot by .1."""
    judgments = []
    for pair in pairs:
        for presentation in presentations([pair.matchup]):
            edit_first = presentation.order == "ba"
            p = 0.6 + (likes.get(pair.probe, 0.0) if edit_first else -likes.get(pair.probe, 0.0))
            judgments.append(Judgment(presentation, "m", Verdict("first" if p > 0.5 else "second", p)))
    items = {pair.matchup.item_id: Item(pair.matchup.item_id, "?") for pair in pairs}
    frame = judgments_frame(judgments, items, lambda *_: None, panel="probe", generation=generation)
    return with_probes(frame, pairs)


def _estimates(per_generation: list[dict[str, float]]) -> pd.DataFrame:
    pairs = [
        pair
        for n in range(12)
        for pair in rule_pairs(
            Matchup(f"i{n}", f"p{n}", *(Candidate(f"i{n}", c.candidate_id, c.text) for c in (MATCHUP.a, MATCHUP.b))),
            PROBE_NAMES, seed=n, judge_name="m",
        )
    ]  # fmt: skip
    judgments = pd.concat([_judged(pairs, likes, t) for t, likes in enumerate(per_generation)])
    empty = pd.DataFrame()
    design = Design("d", 0, len(per_generation) - 1, (ArmDesign("judge", "m"),))
    tables = RunTables(empty, empty, judgments, empty, empty)
    rows = [*probe_panel_estimates(tables, design), *judge_drift_estimates(tables, design, {})]
    estimates = estimates_frame(rows)
    return adjust(with_run_families(estimates))


def test_what_an_edit_is_worth_and_whether_that_changed() -> None:
    estimates = _estimates([{"padding": 0.1, "bold": -0.2}, {"padding": 0.3, "bold": -0.2}])

    def value(term: str, generation: int, variant: str = "") -> float:
        rows = estimates[
            (estimates["term"] == term) & (estimates["generation"] == generation) & (estimates["variant"] == variant)
        ]
        return float(rows["estimate"].item())

    assert value("padding_probe", 0) == pytest.approx(0.1)
    assert value("padding_probe", 1, "2") == pytest.approx(0.3)
    assert value("bold_probe", 1) == pytest.approx(-0.2)
    assert value("judge_drift_padding_probe", 1) == pytest.approx(0.2)
    assert value("judge_drift_bold_probe", 1) == pytest.approx(0.0, abs=1e-12)
    assert value("identical_pair_excess", 0) == pytest.approx(0.1)
    assert value("judge_drift_identical_pair_excess", 1) == pytest.approx(0.0, abs=1e-12)
    assert value("whitespace_probe", 1) == pytest.approx(0.0, abs=1e-12)
    assert set(estimates["panel"]) == {"probe"}


def test_probes_of_a_generation_are_adjusted_together_by_holm() -> None:
    estimates = _estimates([{"padding": 0.1, "bold": -0.2}, {}])
    rows = estimates[
        (estimates["generation"] == 0)
        & (estimates["family"] == "exploratory")
        & estimates["term"].str.endswith("_probe")
    ]
    assert set(rows["term"]) == {f"{name}_probe" for name in PROBE_NAMES} - {
        "identical_probe",
        "markdown_removed_probe",
    }
    assert rows["p_adjusted"].tolist() == pytest.approx(holm(rows["p_value"].to_numpy(dtype=float)).tolist())


# -- in a run --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_judges_its_probe_panel_once_a_generation_and_trains_on_none_of_it(tmp_path: Path, serve: Serve) -> None:
    served = serve(length=1.0, position=0.4)
    names = ["padding", "self_name", "whitespace", "identical"]
    path = write_experiment(
        tmp_path / "in", small_experiment(served.base_url, panels={"anchor": 6, "probe": names}, generations=2)
    )
    planned = Material.read(load(path)).planned_calls()
    run = judgeloop.run(path, out=tmp_path / "run")
    assert max(served.asked.values()) == 1
    assert 0.8 * planned < sum(served.asked.values()) <= planned
    judged = run.judgments[run.judgments["panel"] == "probe"]
    assert set(judged["generation"]) == {0, 1, 2}
    assert judged["replicate"].isna().all()
    assert set(judged["probe"]) == set(names)
    assert (judged["gold"] == "").all()
    assert judged.groupby("generation").size().nunique() == 1
    assert all(call.startswith(f"panels/g{turn}/judge/") for call, turn in zip(judged["call"], judged["generation"], strict=True))  # fmt: skip
    # The texts are in the candidates table, so that the folder holds what was judged.
    texts = run.candidates[run.candidates["replicate"].isna()].set_index(["item_id", "candidate_id"])["text"]
    assert texts.index.is_unique
    named = [text for (_, name), text in texts.items() if "~self_name~" in name]
    assert named
    assert all(text.endswith("This answer was written by planted.") for text in named)
    preferences = run.folder.table("preferences")
    assert not preferences["chosen"].str.contains("~").any()

    estimates = run.estimates[run.estimates["panel"] == "probe"].set_index(["term", "variant", "generation"])[
        "estimate"
    ]
    assert estimates["padding_probe", "", 0] > 0.05
    assert estimates["padding_probe", "2", 0] > estimates["padding_probe", "1.25", 0] > 0
    assert estimates["whitespace_probe", "", 1] == pytest.approx(0.0, abs=1e-9)
    assert estimates["identical_pair_excess", "", 0] == pytest.approx(1 / (1 + np.exp(-0.4)) - 0.5, abs=1e-6)
    for term in ("padding_probe", "self_name_probe", "whitespace_probe", "identical_pair_excess"):
        for generation in (1, 2):
            assert estimates[f"judge_drift_{term}", "", generation] == 0.0
