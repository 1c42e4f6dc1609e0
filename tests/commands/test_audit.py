"""Audits over real HTTP: what is asked, what stands in the folder, and that nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import judgeloop
from audit_case import audited, primary
from audit_pairs import MARKER, pairs, write
from command_line import command
from conftest import Served, tables
from judgeloop.errors import BudgetReached, EndpointFailed, FolderMismatch, ReplayMiss
from judgeloop.serving.faults import Faults, Rule

Serve = Callable[..., Served]


@pytest.mark.pages
def test_the_command_asks_both_orders_and_probes_and_writes_a_run_folder(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve()
    rows = pairs(8)
    write(tmp_path / "answers.jsonl", [{**row, "source": f"s{n}"} for n, row in enumerate(rows)])
    line = ("audit", "answers.jsonl", "--base-url", served.base_url, "--model", "planted",
            "--probes", "padding,whitespace,identical", "--repeats", "2", "--price", "1,2")  # fmt: skip
    assert command(*line) == 0
    printed = capsys.readouterr()
    assert "Report: runs/answers-audit/report.html" in printed.out
    assert "first slot" in printed.out
    assert "judgments" in printed.err
    folder = judgeloop.open("runs/answers-audit")
    assert isinstance(folder, judgeloop.Audit)
    judgments = folder.judgments
    assert judgments[["generation", "replicate"]].isna().all().all()
    assert (judgments["arm"] == "").all()
    plain, probes = (judgments[judgments["panel"] == panel] for panel in ("pairs", "probe"))
    assert sorted(zip(plain["pair_id"], plain["order"], plain["repeat"], strict=True)) == sorted(
        (row["item_id"], order, repeat) for row in rows for order in ("ab", "ba") for repeat in (0, 1)
    )
    assert plain.set_index("pair_id")["source"].to_dict() == {row["item_id"]: f"s{n}" for n, row in enumerate(rows)}
    assert plain.set_index("pair_id")["gold"].astype(float).to_dict() == {row["item_id"]: row["gold"] for row in rows}
    assert set(probes["probe"]) == {"padding", "whitespace", "identical"}
    assert probes.groupby(["pair_id"])["order"].apply(sorted).map(tuple).unique().tolist() == [("ab", "ba")]
    assert len(probes[probes["probe"] == "identical"]) == 2 * 2 * len(rows)
    # Each text stands against its own edit, the edit as b.
    texts = folder.candidates.set_index(["item_id", "candidate_id"])["text"]
    one = probes[(probes["probe"] == "padding") & (probes["order"] == "ab") & (probes["dose"] == 1.5)].iloc[0]
    original, edit = (texts[one["item_id"], one[f"candidate_{slot}"]] for slot in ("first", "second"))
    assert original in {row[side] for row in rows for side in ("text_a", "text_b")}
    assert len(edit) > 1.3 * len(original)
    assert all(call == "" or call.startswith("audit/judge/") for call in served.asked)
    assert "audit/judge/planted/i003/i003/ba/r1" in served.asked
    said = folder.folder.environment()
    assert said["verdict_modes"] == {"planted": "logprob"}
    assert said["edited"]["identical"] == "16 of 16 texts"
    assert said["cost_usd"] > 0
    assert said["calls"] == len(judgments) + 1
    # The same command asks nothing again, and writes the same bytes.
    before, asked = tables(folder.path), sum(served.asked.values())
    assert command(*line, "--quiet") == 0
    assert capsys.readouterr().out == "runs/answers-audit/report.html\n"
    assert sum(served.asked.values()) == asked
    assert tables(folder.path) == before
    # What would change an answer makes another audit, whose folder this is not.
    assert command(*line, "--temperature", "1") == 2
    assert "another" in capsys.readouterr().err


@pytest.mark.tables
@pytest.mark.at_hand
def test_csv_parquet_and_a_frame_are_the_same_audit(tmp_path: Path, serve: Serve) -> None:
    served, rows = serve(), pairs(6)
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "answers.csv", index=False)
    frame.to_parquet(tmp_path / "answers.parquet")
    first = audited(served, write(tmp_path / "answers.jsonl", rows), tmp_path / "o")
    before, asked = tables(first.path), sum(served.asked.values())
    for other in (tmp_path / "answers.csv", tmp_path / "answers.parquet", frame):
        assert tables(audited(served, other, tmp_path / "o").path) == before
    assert sum(served.asked.values()) == asked


@pytest.mark.tables
@pytest.mark.pages
@pytest.mark.parametrize(("price", "known"), [(None, None), ((0.0, 0.0), 0.0), ((1.0, 1.0), "paid")])
@pytest.mark.at_hand
def test_a_cost_that_nobody_stated_is_not_known_and_not_zero(
    tmp_path: Path, serve: Serve, price: tuple[float, float] | None, known: float | str | None
) -> None:
    done = judgeloop.audit(
        pd.DataFrame(pairs(3)), base_url=serve().base_url, model="planted", price=price, out=tmp_path / "o"
    )
    cost = done.folder.environment()["cost_usd"]
    assert cost > 0 if known == "paid" else cost == known
    page = (done.path / "report.md").read_text()
    assert ("cost not known: planted has no price" in page) == (price is None)


@pytest.mark.at_hand
def test_a_budget_stops_it_and_the_same_call_resumes(tmp_path: Path, serve: Serve) -> None:
    served, rows = serve(), pd.DataFrame(pairs(10))
    with pytest.raises(BudgetReached, match="15 calls"):
        audited(served, rows, tmp_path / "cut", max_calls=15, probes="bold")
    assert sum(count for call, count in served.asked.items() if call) == 15
    with pytest.raises(BudgetReached, match="USD"):
        audited(served, rows, tmp_path / "cut", max_cost=0.0001, price=(1.0, 1.0), probes="bold")
    cut = audited(served, rows, tmp_path / "cut", probes="bold")
    assert max(count for call, count in served.asked.items() if call) == 1
    whole = audited(served, rows, tmp_path / "whole", probes="bold")
    assert tables(cut.path) == tables(whole.path)
    assert (cut.path / "estimates.csv").read_bytes() == (whole.path / "estimates.csv").read_bytes()


@pytest.mark.slow
def test_kill_minus_nine_and_the_same_command_again(tmp_path: Path, serve: Serve) -> None:
    served = serve(faults=Faults(rules=(Rule(kind="slow", delay_s=0.02, times="always"),)))
    source = write(tmp_path / "answers.jsonl", pairs(20))
    line = [sys.executable, "-m", "judgeloop", "audit", str(source), "--base-url", served.base_url, "--model", "planted",
            "--concurrency", "4", "--out", str(tmp_path / "killed"), "--quiet"]  # fmt: skip
    process = subprocess.Popen(line, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while sum(served.asked.values()) < 12 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, "the audit ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(line, check=True, capture_output=True)
    again = sum(count - 1 for call, count in served.asked.items() if call)
    assert again <= 4
    assert tables(tmp_path / "killed") == tables(audited(served, source, tmp_path / "whole", concurrency=4).path)


@pytest.mark.at_hand
def test_a_recorded_folder_is_replayed_and_what_it_lacks_is_said(tmp_path: Path, serve: Serve) -> None:
    served, rows = serve(), pd.DataFrame(pairs(6))
    first = audited(served, rows, tmp_path / "first", probes="padding")
    asked = sum(served.asked.values())
    again = audited(served, rows, tmp_path / "again", probes="padding", replay=first.path)
    assert tables(again.path) == tables(first.path)
    assert (again.path / "estimates.csv").read_bytes() == (first.path / "estimates.csv").read_bytes()
    with pytest.raises(ReplayMiss, match="nearest recording"):
        audited(served, rows, tmp_path / "more", probes="padding,bold", replay=first.path)
    assert sum(served.asked.values()) == asked


def test_a_dead_endpoint_is_exit_4_and_leaves_a_folder_that_resumes(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve(faults=Faults(rules=(Rule(match="/ba/", status=401, times="always"),)))
    source = write(tmp_path / "answers.jsonl", pairs(4))
    line = ("audit", source, "--base-url", served.base_url, "--model", "planted", "--out", tmp_path / "o")
    assert command(*line) == 4
    said = capsys.readouterr().err
    assert "401" in said
    with pytest.raises(EndpointFailed):
        audited(served, source, tmp_path / "o")
    with pytest.raises(FolderMismatch):
        audited(served, source, tmp_path / "o", seed=3)


@pytest.mark.pages
@pytest.mark.at_hand
def test_without_gold_the_report_leads_with_what_is_identified(tmp_path: Path, serve: Serve) -> None:
    served = serve(length=1.5)
    done = audited(served, pd.DataFrame(pairs(25, gold=False)), tmp_path / "o", probes="padding")
    assert primary(done.estimates, "length_ame")["status"] == "undefined"
    assert primary(done.estimates, "padding_probe", "probe")["conf_low"] > 0
    found = json.loads((done.path / "report.json").read_text(encoding="utf-8"))["findings"]
    sentences = [finding["sentence"] for finding in found]
    known = [n for n, one in enumerate(found) if one["verdict"] != "undefined"]
    assert "first slot" in sentences[0]
    undefined = [n for n in range(len(found)) if n not in known]
    padded = next(n for n, sentence in enumerate(sentences) if "padded copy" in sentence.lower())
    assert all(padded < n for n in undefined)
    raw = next(sentence for sentence in sentences if "longer text was picked" in sentence)
    assert "raw: quality and bias together" in raw
    assert "no gold" in done.summary()
    page = (done.path / "report.md").read_text(encoding="utf-8")
    assert "length bias" not in page.lower().replace("claims of length bias", "")


@pytest.mark.at_hand
def test_two_judges_stand_apart(tmp_path: Path, serve: Serve) -> None:
    one, other = serve(position=1.0, model="m"), serve(position=-0.5, model="other")
    done = judgeloop.audit(
        pd.DataFrame(pairs(12)), base_url=[one.base_url, other.base_url], model=["m", "other"], out=tmp_path / "o",
        probes="self_name",
    )  # fmt: skip
    found = {name: primary(done.estimates, "position_log_odds", judge=name)["estimate"] for name in ("m", "other")}
    assert found == pytest.approx({"m": 1.0, "other": -0.5}, abs=1e-9)
    assert sum(call.startswith("audit/judge/m/") for call in one.asked) == sum(one.asked.values()) - 1
    gap = done.estimates[done.estimates["term"] == "judge_difference_first_slot_excess"].iloc[0]
    assert (gap["judge"], gap["variant"], gap["n"]) == ("m", "vs other", 12)
    assert gap["conf_low"] > 0
    assert "Judges on the same pairs" in done.summary()
    probes = done.judgments[done.judgments["panel"] == "probe"]
    texts = done.candidates.set_index(["item_id", "candidate_id"])["text"]
    for name, some in probes[probes["order"] == "ab"].groupby("judge"):
        # Each judge is shown an edit that bears its own name.
        assert all(f" {name}" in texts[row.item_id, row.candidate_second][-120:] for row in some.itertuples())
    assert set(done.folder.environment()["reported_models"]) == {"m", "other"}


@pytest.mark.tables
@pytest.mark.at_hand
def test_a_text_of_several_pairs_is_probed_once(tmp_path: Path, serve: Serve) -> None:
    served, rows = serve(), pairs(3)
    shared = [
        {**rows[0], "pair_id": f"p{n}", "text_b": rows[n]["text_b"], "candidate_a": "x", "candidate_b": f"y{n}"}
        for n in range(3)
    ]
    done = audited(served, pd.DataFrame(shared), tmp_path / "o", probes="whitespace")
    probes = done.judgments[done.judgments["panel"] == "probe"]
    assert sorted(probes[probes["order"] == "ab"]["candidate_first"]) == ["x", "y0", "y1", "y2"]


@pytest.mark.tables
@pytest.mark.at_hand
def test_edits_by_a_model_are_asked_recorded_and_checked(tmp_path: Path, serve: Serve) -> None:
    served = serve(draft={"length_mean": 60, "length_sd": 0.0})
    rows = [{**row, "text_a": row["text_a"].rpartition(MARKER)[0], "text_b": row["text_b"].rpartition(MARKER)[0]}
            for row in pairs(6)]  # fmt: skip
    done = audited(served, pd.DataFrame(rows), tmp_path / "o", probes="model_paraphrase", edit_model="planted")
    edits = [call for call in served.asked if call.startswith("audit/edit/")]
    assert len(edits) == 12
    probes = done.judgments[done.judgments["panel"] == "probe"]
    used = probes["pair_id"].nunique() if len(probes) else 0
    said = done.folder.environment()
    assert said["edited"]["model_paraphrase"] == f"{used} of 12 texts"
    assert used + sum(sum(some.values()) for some in said.get("edits_refused", {}).values()) == 12
    assert 0 < used < 12
