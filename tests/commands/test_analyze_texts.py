"""Texts by generation without verdicts: read, measured by the estimators of a run, and reported for what they are."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import judgeloop
from command_line import command, interrupted_once
from judgeloop import seeds
from judgeloop.cli import main
from judgeloop.errors import InvalidInput

DATA = Path(os.environ.get("JUDGELOOP_REAL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "cherrl").is_dir(), reason="recorded rollouts are not there; set JUDGELOOP_REAL_DATA to their folder"
)
STEPS = (0, 500)
WORDS = [f"w{k}" for k in range(200)]


def logged(arms=("dpo", "sft"), items=12, draws=2, drift=0.8, replicates=None):
    """Texts of two steps; those of the first arm grow by ``drift`` doublings."""
    generator = seeds.rng(0, "logged texts", *map(str, arms), str(replicates))
    rows = []
    for arm in arms:
        for replicate in range(replicates or 1):
            for step in STEPS:
                for item in range(items):
                    for _ in range(draws):
                        doublings = 5.0 + 0.3 * generator.standard_normal() + drift * (step > 0) * (arm == arms[0])
                        words = generator.choice(WORDS, size=int(2**doublings))
                        rows.append({
                            "prompt": f"q{item}a q{item}b q{item}c?", "step": step, "arm": arm, "text": " ".join(words),
                            "control": arm == "sft", "replicate": replicate if replicates else None,
                        })  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def one_run():
    return judgeloop.analyze(logged())


def place(audit, term, **more):
    rows = audit.estimates
    for column, value in {"term": term, "generation": 1, "variant": "", **more}.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def test_with_one_run_the_interval_is_a_t_over_items_and_says_so(one_run):
    table = one_run.candidates.assign(item=one_run.candidates["item_id"])
    means = table.groupby(["item", "arm", "generation"])["length"].mean().unstack(["arm", "generation"])
    change = (means["dpo", 1] - means["dpo", 0]) - (means["sft", 1] - means["sft", 0])
    row = place(one_run, "did_length", arm="dpo", contrast="sft")
    assert row["estimate"] == pytest.approx(change.mean())
    assert row["std_error"] == pytest.approx(stats.sem(change))
    assert row["p_value"] == pytest.approx(stats.ttest_1samp(change, 0.0).pvalue)
    assert (row["n_items"], row["method"], row["verdict"]) == (12, "one-sample t over items", "drifting")
    assert pd.isna(row["n_replicates"])
    assert "says nothing of what another run would do" in row["note"]


def test_what_takes_several_items_has_no_interval_with_one_run(one_run):
    row = place(one_run, "tail_mass_retained", arm="dpo", contrast="")
    assert np.isfinite(row["estimate"])
    assert np.isnan(row["conf_low"])
    terms = set(one_run.estimates["term"])
    assert {"did_mattr", "did_vendi", "mean_bold", "sd_length", "did_tail_mass_retained"} <= terms
    assert not any(term.startswith(("selection_", "compounding_", "transmission_", "kl_")) for term in terms)
    assert set(one_run.estimates["scope"]) == {"policy"}


def test_the_report_says_one_run_and_shows_the_figures_of_a_loop(one_run, tmp_path):
    screen = " ".join(one_run.summary().split())
    assert "arms dpo, sft (control)" in screen
    assert "These are texts without verdicts." in screen
    assert "Yes, in this one training run" in screen
    assert "say nothing of what another run would do" in screen
    assert "generations 0, 1 are the file's 0, 500" in screen
    assert {name.split("/")[0] for name in one_run.figures} >= {"drift", "diversity"}


def test_without_a_control_a_change_is_measured_and_has_no_cause():
    audit = judgeloop.analyze(logged(arms=("dpo",)).drop(columns=["control", "replicate"]))
    screen = " ".join(audit.summary().split())
    assert "Measured dpo, generation 1 · length: 0." in screen
    assert "without a control its cause is not known" in screen
    assert "Add the texts of a model trained without this judge" in screen
    assert not (audit.estimates["contrast"] != "").any()


def test_replicates_are_the_unit_where_there_are_some():
    audit = judgeloop.analyze(logged(items=4, draws=1, replicates=3))
    row = place(audit, "did_length", arm="dpo", contrast="sft")
    assert (row["n_replicates"], row["method"]) == (3, "one-sample t over replicates")


def test_files_are_recognised_and_the_command_writes_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame = logged(items=4).drop(columns="replicate").rename(columns={"text": "output"})
    frame.to_csv("samples.csv", index=False)
    (tmp_path / "columns.yaml").write_text("text: output\n")
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", "samples.csv", "--columns", "columns.yaml"])
    assert stopped.value.code == 0
    assert "arms dpo, sft (control)" in capsys.readouterr().out
    estimates = pd.read_csv("runs/samples/estimates.csv")
    assert "did_length" in set(estimates["term"])
    again = judgeloop.open("runs/samples")
    assert len(again.candidates) == len(frame)


@pytest.mark.parametrize(
    ("change", "options", "fault"),
    [
        ({"text": None}, {}, "text: is empty"),
        ({"prompt": ""}, {}, "item_id: is empty, and so is prompt"),
        ({"step": None}, {}, "generation: is empty, and so is step"),
        ({"control": True}, {}, "control: arm 'dpo' says otherwise"),
        ({"step": -1}, {}, "step: must be a whole number"),
        ({}, {"gold_exact": True}, "texts without verdicts"),
    ],
)
def test_faults_name_row_and_column(change, options, fault, tmp_path):
    rows = logged(items=2, draws=1).drop(columns="replicate").to_dict("records")
    rows[1] |= change
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InvalidInput, match=fault):
        judgeloop.analyze(path, **options)


def test_a_file_of_one_generation_or_of_controls_alone_is_refused():
    frame = logged(items=2, draws=1).drop(columns="replicate")
    with pytest.raises(InvalidInput, match="all texts are of generation or step 0"):
        judgeloop.analyze(frame[frame["step"] == 0])
    with pytest.raises(InvalidInput, match="every arm is a control"):
        judgeloop.analyze(frame[frame["arm"] == "sft"])


def rollouts(steps=24, prompts=3, draws=2):
    """Rollouts of a training whose prompts change at every step: texts grow by a twentieth of a doubling a step."""
    generator = seeds.rng(0, "rollouts")
    for step in range(1, steps + 1):
        for _ in range(prompts):
            prompt = " ".join(generator.choice(WORDS, 12))
            for _ in range(draws):
                size = int(2 ** (4.0 + 0.05 * step + 0.3 * generator.standard_normal()))
                yield step, prompt, " ".join(generator.choice(WORDS, size))


def test_rollouts_of_verl_and_completions_of_trl_are_read_as_they_are(tmp_path):
    """verl writes a JSONL a step, TRL a Parquet file with conversations: both are put into six generations of other prompts."""
    verl, trl = tmp_path / "rollouts", tmp_path / "completions"
    verl.mkdir()
    trl.mkdir()
    for step, rows in itertools.groupby(rollouts(), key=lambda row: row[0]):
        texts = [{"input": prompt, "output": text, "gts": None, "score": 0.5, "step": step} for _, prompt, text in rows]
        (verl / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
        pd.DataFrame({
            "step": step, "prompt": [[{"role": "user", "content": row["input"]}] for row in texts],
            "completion": [[{"role": "assistant", "content": row["output"]}] for row in texts], "reward": 0.5, "advantage": 0.0,
        }).to_parquet(trl / f"completions_{step:05d}.parquet")  # fmt: skip
    one, other = judgeloop.analyze(verl), judgeloop.analyze(trl)
    row = place(one, "drift_length", generation=5, arm="texts")
    assert row["conf_low"] < 1.0 < row["conf_high"]
    assert (row["verdict"], row["n_items"]) == ("drifting", 12)
    assert "other items in each generation" in row["note"]
    screen = " ".join(one.summary().split())
    assert "the 24 steps are put into 6 generations of equally many, 1 to 4, 5 to 8" in screen
    assert "had their kind changed too, this would look the same" in screen
    pd.testing.assert_frame_equal(one.estimates, other.estimates)
    assert one.candidates["text"].tolist() == other.candidates["text"].tolist()


CHERRL = {
    "run_a": [(-1.70, -3.38, -0.03), (-0.73, -1.96, 0.50)],
    "run_b": [(-0.35, -0.91, 0.20), (-0.48, -1.12, 0.15)],
    "run_c": [(0.61, 0.00, 1.21), (0.30, -0.76, 1.36)],
}
"""Run → drift of length with its interval at and after the onset of a judge's planted preference, as docs/analyze.md has them."""


@needs_data
@pytest.mark.parametrize("run", CHERRL)
def test_of_ten_texts_a_phase_of_a_real_training_a_phrase_alone_is_claimed(run):
    audit = judgeloop.analyze(DATA / "cherrl" / f"{run}.jsonl")
    rows = audit.estimates.query("term == 'drift_length' and category == ''").sort_values("generation")
    measured = [tuple(row) for row in rows[["estimate", "conf_low", "conf_high"]].to_numpy().round(2)]
    assert measured == CHERRL[run]
    assert rows["note"].str.contains("other items in each generation").all()
    claimed = audit.estimates[audit.estimates["verdict"].isin(["found", "drifting"])]
    assert list(claimed["term"]) == ["phrase_spread"] * (run == "run_a")
    phrases = audit.estimates.query("term == 'phrase_spread' and variant != ''")["variant"]
    assert list(phrases) == ["this response", "adheres to the"] * (run == "run_a")
    page = " ".join((Path(__file__).parents[2] / "docs" / "analyze.md").read_text(encoding="utf-8").split())
    for figures in CHERRL[run]:
        estimate, low, high = (f"{figure:.2f}".replace("-", "−") for figure in figures)
        assert f"{estimate} doublings [{low}, {high}]" in page or f"{estimate} [{low}, {high}]" in page


@pytest.mark.pages
def test_a_phrase_that_spread_is_said_and_shown(tmp_path):
    frame = logged(drift=0.0, draws=4)
    ends = (frame["arm"] == "dpo") & (frame["step"] == 500) & (frame.index % 4 > 0)
    frame.loc[ends, "text"] += " <b>Feel</b> free to ask!"
    audit = judgeloop.analyze(frame, out=tmp_path / "out")
    assert (
        "phrases spread at the beginning or end of texts: “b feel b free to ask” in 75 % of texts (else 0 %)"
        in " ".join(audit.summary().split())
    )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert 'id="figure-phrases"' in page


@pytest.mark.tables
def test_checkpoints_with_the_same_prompts_are_never_put_together():
    frame = pd.concat([logged(arms=("dpo",), items=3).assign(step=step) for step in range(8)])
    audit = judgeloop.analyze(frame.drop(columns=["control", "replicate"]))
    assert audit.candidates["generation"].max() == 7


def test_a_log_that_grows_is_analysed_anew_into_the_same_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["judgeloop.cli.analyze"], "_LOOK_EVERY_S", 0.05)
    rows, log, out = logged(items=4), tmp_path / "rollouts", tmp_path / "out"
    log.mkdir()

    def write(step):
        rows[rows["step"] == step].drop(columns="replicate").to_json(
            log / f"{step}.jsonl", orient="records", lines=True
        )

    write(STEPS[0])  # one step, of which nothing can be said
    seen = []

    def grown():
        seen.append(capsys.readouterr().err)
        if "waiting for more" in "".join(seen) and not (log / "500.jsonl").exists():
            write(STEPS[1])
        later = log / "900.jsonl"
        estimates = out / "estimates.csv"
        generations = pd.read_csv(estimates)["generation"].max() if estimates.exists() else 0
        if generations == 1 and not later.exists():
            rows[rows["step"] == 500].assign(step=900).to_json(later, orient="records", lines=True)
        return generations == 2

    with interrupted_once(grown):
        assert command("analyze", log, "--follow", "--out", out) == 0
    assert judgeloop.open(out).estimates["generation"].max() == 2
    assert not list(tmp_path.glob(".out*"))
