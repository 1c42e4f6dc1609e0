"""The guides are true: the tutorial and the how-to for logs run as they stand, and the pictures are of their numbers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import judgeloop
from conftest import Served, asked_to_load, small_experiment, write_experiment
from judgeloop import seeds
from judgeloop.cli import main
from judgeloop.errors import TrainingFailed
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import served_name
from judgeloop.rundir import TABLES, RunFolder
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import load as load_planted
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.training.command import weights_digest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDES = ("index.md", "tutorial.md", "watch.md", "explanation.md", *sorted(p.name for p in DOCS.glob("howto-*.md")))


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """(info string, content) of the fenced blocks of a page."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def write_files(page: str, folder: Path, **changes: str) -> None:
    """The files that a page's blocks name, as they stand there but for the replacements."""
    for info, content in blocks(page):
        if match := re.fullmatch(r"\w+ (\S+\.\w+)", info):
            for old, new in changes.items():
                content = content.replace(old, new)
            (folder / match[1]).write_text(content, encoding="utf-8")


def command(line: str) -> int:
    """The exit code of a judgeloop command as an example states it."""
    with pytest.raises(SystemExit) as ended:
        main(line.split()[1:])
    return int(ended.value.code or 0)


def script(name: str, folder: Path) -> str:
    return subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, check=True).stdout


def row(found: pd.DataFrame, term: str, **keys: object) -> pd.Series:
    some = found[(found["term"] == term) & (found["category"] == "")]
    for column, value in keys.items():
        some = some[some[column] == value]
    assert len(some) == 1, (term, keys, len(some))
    return some.iloc[0]


# -- the tutorial --------------------------------------------------------------------------------------------------------


@pytest.mark.pages
@pytest.mark.slow
def test_the_tutorial_runs_and_finds_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "fixtures" / "quickstart", "fixtures/quickstart")
    write_files("tutorial.md", tmp_path)
    lines = [line for info, block in blocks("tutorial.md") if info == "sh" for line in block.splitlines()]
    assert lines.pop(1) == "judgeloop serve --planted biased.yaml --port 8123"
    assert lines.pop(5) == "judgeloop watch runs/loop --port 8124"
    done = []
    with LocalServer(create_app(PlantedAnswerer(load_planted(Path("biased.yaml")), tmp_path))) as server:
        loop = Path("loop.yaml")
        loop.write_text(loop.read_text().replace("http://127.0.0.1:8123/v1", server.base_url))
        for line in lines:
            line = line.replace("http://127.0.0.1:8123/v1", server.base_url)
            if line.startswith("python "):
                done.append(script(line.split()[1], tmp_path))
            else:
                done.append(str(command(line)))
    assert [one for one in done if one.isdigit()] == ["0", "0", "0", "0", "1"]
    page = " ".join(text("tutorial.md").split())
    audit = judgeloop.open("runs/audit").estimates
    first = row(audit, "first_slot_excess", variant="")
    share, low, high = (50 + 100 * first[name] for name in ("estimate", "conf_low", "conf_high"))
    assert f"first slot picked {share:.1f} % of the time [{low:.1f}, {high:.1f}]" in page
    assert f"{100 * row(audit, 'padding_probe', variant='slope')['estimate']:.1f} points a doubling" in page
    assert f"longer answer won {100 * row(audit, 'longer_preferred_raw', variant='')['estimate']:.1f} %" in page
    assert row(audit, "whitespace_probe", variant="")["status"] == "underpowered"
    run = judgeloop.open("runs/loop").estimates
    last = {"generation": 3, "variant": ""}
    drift = {arm: row(run, "drift_length", arm=arm, **last)["estimate"] for arm in ("judge", "random")}
    changed = f"changed by {drift['judge']:.2f} doublings under the judge and by {drift['random']:.2f} under the coin"
    assert changed.replace("-", "−") in page
    did = row(run, "did_length", **last)
    assert f"{did['estimate']:.2f} doublings [{did['conf_low']:.2f}, {did['conf_high']:.2f}]" in page
    assert row(run, "compounding_length", variant="")["verdict"] == "steady"
    quickstart, shipped = judgeloop.open("runs/quickstart"), RunFolder(ROOT / "fixtures" / "quickstart" / "run")
    assert row(quickstart.estimates, "first_slot_excess", panel="anchor", generation=0, variant="")["estimate"] == pytest.approx(0.438, abs=5e-4)  # fmt: skip
    assert f"{did['estimate']:.2f}" in done[-1]
    assert Path("loop.html").is_file()
    # What ships is what this recording leaves: else write its tables and estimates anew (CONTRIBUTING.md, "Recording fixtures").
    assert shipped.experiment() == quickstart.folder.experiment()
    assert shipped.environment()["experiment_hash"] == quickstart.folder.environment()["experiment_hash"]
    for name in TABLES:
        pd.testing.assert_frame_equal(quickstart.folder.table(name), shipped.table(name))
    pd.testing.assert_frame_equal(quickstart.estimates, shipped.estimates(), rtol=1e-6, atol=1e-9)


# -- the how-to for logs -------------------------------------------------------------------------------------------------


def trainer_log(path: Path) -> None:
    """A log as the page describes it: a judge that likes the first slot and length, of answers that grow."""
    stream = seeds.rng(0, "a trainer's log")
    rows = []
    for iteration in range(3):
        for item in range(80):
            sizes = (40 * 2 ** (0.5 * iteration + 0.4 * stream.standard_normal(2))).astype(int)
            texts = [" ".join(["word"] * size) for size in sizes]
            longer = float(np.log2(sizes[0] / sizes[1]))
            for shown, sign in ((1, 1.0), (2, -1.0)):
                first = stream.random() < 1 / (1 + np.exp(-(1.2 + sign * longer)))
                rows.append({
                    "iteration": iteration, "prompt_id": f"q{item}", "prompt": "Why …?", "response_1": texts[0],
                    "response_2": texts[1], "shown_first": shown, "judge_says": "A" if first else "B",
                })  # fmt: skip
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")


@pytest.mark.slow
def test_a_trainers_log_is_read_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = "howto-watch-my-dpo-run.md"
    monkeypatch.chdir(tmp_path)
    trainer_log(tmp_path / "preferences.jsonl")
    example = json.loads(next(content for info, content in blocks(page) if info == "json"))
    assert list(example) == list(json.loads(Path("preferences.jsonl").read_text().splitlines()[0]))
    write_files(page, tmp_path)
    analysed = next(line for info, block in blocks(page) if info == "sh" for line in block.splitlines())
    assert command(analysed) == 0
    found = judgeloop.open("runs/dpo-iteration-0").estimates
    for generation in range(3):
        first = row(found, "first_slot_excess", generation=generation, variant="")
        assert first["status"] == "ok"
        assert first["conf_low"] > 0
        assert row(found, "length_ame", generation=generation, variant="")["status"] == "undefined"
    assert (
        not found["term"].str.startswith(("drift_", "did_", "judge_drift_")).any()
    )  # what the page says it cannot tell
    said = script("generations.py", tmp_path)
    assert "first_slot_excess" in said
    means = [float(line.split()[-1]) for line in said.splitlines() if re.fullmatch(r"[012] +\d\.\d+", line)]
    assert len(means) == 3
    assert np.diff(means) == pytest.approx([0.5, 0.5], abs=0.15)


# -- pictures, endpoints, the map ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_are_of_their_numbers(pictures: ModuleType) -> None:
    numbers = json.loads(pictures.NUMBERS.read_text(encoding="utf-8"))
    assert pictures.stale(numbers) == []
    changed = json.loads(json.dumps(numbers))
    changed["drift"][0]["estimate"] += 1e-6
    assert pictures.stale(changed) == ["drift.svg"]
    for name in pictures.NAMES:
        path = pictures.PICTURES / f"{name}.svg"
        assert path.stat().st_size < 100_000
        assert f"]({path.relative_to(DOCS)})" in text("quickstart.md") + text("explanation.md") + text("literature.md")
        assert not re.search(r"<script|(?:href|src)=\"https?:", path.read_text(encoding="utf-8"))


def test_the_quickstart_s_finding_is_that_of_the_run_that_ships(pictures: ModuleType) -> None:
    """Its numbers are the shipped estimates (a slow test holds those against the recording), and the README repeats the page."""
    numbers = pictures.measured("trained")
    assert numbers == json.loads(pictures.NUMBERS.read_text(encoding="utf-8"))["trained"]
    rows = {(row["term"], row["arm"], row["generation"]): row for row in numbers if not row["variant"]}
    # What the page's and the README's sentences say.
    verdicts = [rows["did_length", arm, 3]["verdict"] for arm in ("longer", "judge")]
    assert (rows["first_slot_excess", "", 0]["verdict"], *verdicts) == ("found", "drifting", "undetected")
    means = [rows["mean_length", "longer", generation]["estimate"] for generation in range(4)]
    assert means == sorted(means)
    times = f"{2 ** rows['did_length', 'longer', 3]['estimate']:.1f} times as"
    assert times in text("quickstart.md")
    assert (ROOT / "README.md").read_text(encoding="utf-8").count(times) == 2
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## What the quickstart shows")[1].split("\n## ")[0]
    shown = re.findall(r"[−\d][\d.]* \[[−\d][^\]]+\]", readme)
    assert len(shown) == 5
    assert [figure for figure in shown if figure not in text("quickstart.md")] == []
    environment = json.loads((ROOT / "fixtures/quickstart/run/environment.json").read_text(encoding="utf-8"))
    assert f"{environment['calls']:,} recorded calls" in readme


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bias", "drift", "amplification", "strategies", "one_in_a_thousand", "contamination"])
def test_the_numbers_are_those_of_today_s_code(pictures: ModuleType, name: str) -> None:
    kept, made = json.loads(pictures.NUMBERS.read_text(encoding="utf-8")), pictures.measured(name)
    assert list(kept) == list(pictures.NAMES)
    assert len(made) == len(kept[name])
    for new, old in zip(made, kept[name], strict=True):
        assert new == pytest.approx(old, abs=2e-6) if "verdict" not in new else new["verdict"] == old["verdict"]
        for key in ("estimate", "conf_low", "conf_high"):
            assert new[key] == (None if old[key] is None else pytest.approx(old[key], abs=2e-6))


def test_the_table_of_amplification_is_of_the_numbers(pictures: ModuleType) -> None:
    numbers = json.loads(pictures.NUMBERS.read_text(encoding="utf-8"))["amplification"]
    lines = [
        line for line in text("explanation.md").splitlines() if re.match(r"\| (`replace`|`accumulate`|half real)", line)
    ]
    for line, loop in zip(lines, ("replace", "accumulate", "half real", "consistent only"), strict=True):
        drift = next(one for one in numbers if (one["loop"], one["term"], one["generation"]) == (loop, "did_length", 6))
        growth = next(one for one in numbers if (one["loop"], one["term"]) == (loop, "compounding_length"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1] == f"{drift['estimate']:.2f}"
        assert cells[2] == f"{growth['estimate']:.2f} [{growth['conf_low']:.2f}, {growth['conf_high']:.2f}]"
        assert cells[3].split(",")[0] == growth["verdict"]


# -- the user's own trainer ----------------------------------------------------------------------------------------------


def stand_in(folder: Path, name: str, content: str) -> None:
    """A program of that name, which this machine does not have, as the guides call it."""
    (folder / name).write_text(f"#!/bin/sh\n{content}\n")
    (folder / name).chmod(0o755)


def trained_loop(folder: Path, served: Served, command: list[str], **policy: Any) -> judgeloop.Run:
    raw = small_experiment(
        served.base_url, policy={"kind": "command", "endpoint": "m", "command": command, **policy}, panels={"anchor": 0},
        arms={"longer": {"judge": {"kind": "rule", "feature": "length"}}}, replicates=1, signal={"reference": "base"},
    )  # fmt: skip
    return judgeloop.run(write_experiment(folder / "in", raw), out=folder / "run", report=False)


@pytest.mark.tables
def test_axolotl_is_given_what_it_reads_and_its_adapter_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Served]
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    write_files("howto-axolotl.md", tmp_path)
    stand_in(tmp_path, "axolotl", 'cp "$2" asked.yaml; mkdir adapter; printf w > adapter/adapter_model.safetensors')
    (tmp_path / "twin").mkdir()
    (tmp_path / "twin/adapter_model.safetensors").write_text("w")
    name = served_name(weights_digest(tmp_path / "twin"))
    served = serve(model=["planted", name])
    loaded = asked_to_load(served)
    run = trained_loop(tmp_path, served, [sys.executable, str(tmp_path / "train_axolotl.py")])
    assert [asked["lora_name"] for asked in loaded] == [name]
    folder = run.path / "training/s0/g0/longer"
    asked = yaml.safe_load((folder / "asked.yaml").read_text())
    assert (asked["rl"], asked["base_model"], asked["output_dir"]) == ("dpo", "/models/base", "adapter")
    [data] = asked["datasets"]
    rows = [json.loads(line) for line in (folder / data["path"]).read_text().splitlines()]
    pairs = [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]
    assert [row["chosen"] for row in rows] == [{"role": "assistant", "content": pair["chosen"]} for pair in pairs]
    assert {row["messages"][0]["role"] for row in rows} == {"user"}


@pytest.mark.tables
def test_a_training_on_slurm_is_waited_for_and_leaves_the_queue_where_judgeloop_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Served]
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    trainer = f"sh {tmp_path}/trainer.sh"
    write_files("howto-slurm.md", tmp_path, **{"python /opt/train/train_trl.py --base /models/base": trainer})
    stand_in(tmp_path, "sbatch", 'for script in "$@"; do :; done; echo 17; exec bash "$script"')
    stand_in(tmp_path, "scancel", f'echo "$1" >> {tmp_path}/cancelled')
    stand_in(tmp_path, "trainer.sh", """echo '{"model": "planted@length_mean=60"}' > model.json""")
    run = trained_loop(tmp_path, serve(), ["sh", str(tmp_path / "train.sh")])
    assert (run.path / "training/s0/g0/longer/job.txt").read_text() == "17\n"
    lengths = run.candidates.query("n_drawn > 0").groupby("generation")["length"].mean()
    assert lengths[1] > lengths[0] + 0.5
    assert not (tmp_path / "cancelled").exists()
    stand_in(tmp_path, "trainer.sh", "sleep 600")
    with pytest.raises(TrainingFailed, match="did not end within"):
        trained_loop(tmp_path / "slow", serve(), ["sh", str(tmp_path / "train.sh")], timeout_s=0.5)
    assert (tmp_path / "cancelled").read_text() == "17\n"


def test_verl_gets_a_number_for_every_completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Served]
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve(position=0.0, length=1.0)
    write_files(
        "howto-verl.md",
        tmp_path,
        **{"http://127.0.0.1:8001/v1": served.base_url, '"model": "judge"': '"model": "planted"'},
    )
    module = runpy.run_path("reward.py")
    asked = {"extra_info": {"question": "Why is the sky blue?"}, "data_source": "own", "ground_truth": None}
    with module["reward"], ThreadPoolExecutor() as workers:
        scores = list(
            workers.map(lambda words: module["compute_score"](solution_str="word " * words, **asked), (5, 80, 5))
        )
    assert scores[0] == scores[2] < scores[1]
    assert sum(served.asked.values()) == 2


def test_endpoints_of_the_guides_are_endpoints() -> None:
    found = [yaml.safe_load(content) for page in GUIDES for info, content in blocks(page) if info == "yaml endpoints"]
    assert len(found) >= 3
    for block in found:
        for settings in block.values():
            Endpoint.model_validate(settings)


def test_the_map_leads_to_every_page() -> None:
    reached, following = set(), {"index.md"}
    while following:
        page = following.pop()
        reached.add(page)
        linked = {target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text(page))}
        following |= {
            target for target in linked if (DOCS / target).is_file() and re.fullmatch(r"[\w-]+\.md", target)
        } - reached
    assert {path.name for path in DOCS.glob("*.md")} <= reached
    assert "docs/index.md" in (ROOT / "README.md").read_text(encoding="utf-8")
