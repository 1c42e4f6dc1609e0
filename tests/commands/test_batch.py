"""Audits by batches over real HTTP: the same tables as live, nothing paid for twice, and every way in which a batch ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest

import judgeloop
from audit_pairs import pairs, write
from batch_case import SPEC, audited, case, exchanges
from conftest import CountingAnswerer, Served, tables
from judgeloop.commands.batch import Jobs
from judgeloop.errors import BudgetReached, EndpointFailed, FolderMismatch, Interrupted, InvalidInput
from judgeloop.records import split_custom_id
from judgeloop.serving.faults import Faults, Rule
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.wire import batch_files
from judgeloop.wire.client import Ledger

pytestmark = pytest.mark.usefixtures("quick_retries")
Serve = Callable[..., Served]
KEY = "a-key-that-no-file-may-hold"


def same(one: Path, other: Path) -> None:
    assert tables(one) == tables(other)
    for name in ("estimates.csv", "report.json", "report.md"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert exchanges(one) == exchanges(other)


# -- as live ---------------------------------------------------------------------------------------------------------


@pytest.mark.tables
@pytest.mark.pages
def test_a_batch_is_the_live_audit_byte_for_byte(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds: what a model's edits are shown against hangs on the edits."""
    monkeypatch.setenv("AUDIT_KEY", KEY)
    rows = [{**row, "text_a": row["text_a"].rpartition(" [q=")[0]} for row in pairs(5)]
    options = {"probes": "model_paraphrase,bold", "edit_model": "planted", "api_key_env": "AUDIT_KEY"}
    served = serve(draft={"length_mean": 60, "length_sd": 0.0})
    live = audited(served, tmp_path / "live", pd.DataFrame(rows), **options)
    asked = dict(served.asked)
    done = audited(served, tmp_path / "batch", pd.DataFrame(rows), batch=True, **options)
    same(done.path, live.path)
    assert {call: served.asked[call] for call in asked} == {call: 2 * count for call, count in asked.items()}
    assert [job.step for job in Jobs(done.folder).all] == ["done", "done"]
    # Again: nothing is sent, and nothing changes.
    audited(served, tmp_path / "batch", pd.DataFrame(rows), batch=True, **options)
    assert sum(served.asked.values()) == 2 * sum(asked.values())
    same(done.path, live.path)
    held = [path for path in done.path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert held == []


@pytest.mark.pages
def test_scores_and_lists_are_batched_too(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    options = {"mode": "pointwise", "scales": "1-5", "against_pairwise": True}
    live = audited(served, tmp_path / "live", **options)
    done = audited(served, tmp_path / "batch", batch=True, **options)
    same(done.path, live.path)
    trials = [call for call in served.asked if "/trial/" in call]
    assert len(trials) == 2
    sent = [
        split_custom_id(call)[0]
        for job in Jobs(done.folder).all
        for call in batch_files.calls_of(done.path / "batch" / job.file)
    ]
    assert not set(trials) & set(sent)


@pytest.mark.tables
def test_a_key_that_the_endpoint_echoes_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_KEY", KEY)

    class Echo(CountingAnswerer):
        async def answer(self, body: dict[str, Any], call_id: str | None) -> Any:
            answer = await super().answer(body, call_id)
            answer.body["system_fingerprint"] = f"key {KEY}"
            return answer

    with LocalServer(create_app(Echo(PlantedSpec.model_validate(SPEC)))) as server:
        done = judgeloop.audit(
            pd.DataFrame(pairs(2)), base_url=server.base_url, model="planted", verdict="logprob", batch=True,
            api_key_env="AUDIT_KEY", out=tmp_path / "o",
        )  # fmt: skip
    files = [path for path in done.path.rglob("*") if path.is_file()]
    assert any(path.name == "output-001.jsonl" and b"key ***" in path.read_bytes() for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


# -- interrupted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before it is written down", "after"])
def test_killed_at_any_step_it_pays_for_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    class Killed(BaseException):
        pass

    save = Jobs.save
    for step in range(1, 20):
        count = 0

        def dying(jobs: Jobs, step: int = step) -> None:
            nonlocal count
            count += 1
            if after:
                save(jobs)
            if count == step:
                raise Killed
            save(jobs)

        with case(tmp_path / f"{step}") as some:
            monkeypatch.setattr(Jobs, "save", dying)
            try:
                some.run()
                ended = True
            except Killed:
                ended = False
            monkeypatch.setattr(Jobs, "save", save)
            some.run()
            assert len(some.recorded()) == 5
            assert some.most_asked == 1, f"killed at step {step}"
        if ended:
            break
    assert step > 8  # so many steps there are


@pytest.mark.pages
@pytest.mark.slow
def test_kill_minus_nine_while_it_waits_and_the_same_command_again(tmp_path: Path, serve: Serve) -> None:
    served = serve(faults=Faults(rules=(Rule(match="/ba/", kind="slow", delay_s=4.0, times="always"),)))
    source = write(tmp_path / "answers.jsonl", pairs(12))
    line = [sys.executable, "-m", "judgeloop", "audit", str(source), "--base-url", served.base_url, "--model", "planted",
            "--out", str(tmp_path / "killed"), "--quiet", "--batch"]  # fmt: skip
    jobs = tmp_path / "killed" / "batch" / "jobs.json"
    for sent in (signal.SIGINT, signal.SIGKILL):
        # A shell that starts the tests in the background ignores SIGINT for them; a user's audit does not.
        process = subprocess.Popen(
            line, start_new_session=True, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while process.poll() is None and not (jobs.is_file() and '"sent"' in jobs.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.poll() is None, "the audit ended before it could be stopped"
        time.sleep(0.3)
        os.killpg(process.pid, sent)
        message = process.communicate()[1]
        if sent == signal.SIGINT:
            assert process.returncode == 130
            assert re.search(r"interrupted; batch batch_\w+ goes on at the endpoint, run the same command", message)
        if '"sent"' not in jobs.read_text():
            break
    subprocess.run(line, check=True, capture_output=True)
    assert max(count for call, count in served.asked.items() if call) == 1
    same(tmp_path / "killed", audited(served, tmp_path / "whole", source).path)


@pytest.mark.tables
def test_ctrl_c_leaves_the_batch_and_a_live_audit_does_not_pay_for_it_again(tmp_path: Path, serve: Serve) -> None:
    served = serve(faults=Faults(rules=(Rule(match="/ba/", kind="slow", delay_s=0.4, times="always"),)))

    class Stops:
        def stage(self, text: str) -> None:
            if text.startswith("waiting"):
                raise KeyboardInterrupt

        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda *_: None

    with pytest.raises(Interrupted, match=r"batch batch_\w+ goes on at the endpoint"):
        audited(served, tmp_path / "o", batch=True, observer=Stops())
    with pytest.raises(InvalidInput, match=r"8 calls of this audit are in a batch .* go on with --batch"):
        audited(served, tmp_path / "o")
    done = audited(served, tmp_path / "o", batch=True)
    assert max(count for call, count in served.asked.items() if call) == 1
    assert done.folder.environment()["calls"] == 9
    (tmp_path / "o" / "batch" / "jobs.json").write_text("{")
    with pytest.raises(FolderMismatch, match=r"jobs.json: cannot be read"):
        audited(served, tmp_path / "o")


def test_a_batch_whose_creation_was_not_heard_is_found_again(tmp_path: Path) -> None:
    lost = Rule(match="batches/create", kind="reset", times=1)
    with case(tmp_path / "found", lost) as some:
        some.run()
        assert some.most_asked == 1
        client = openai.OpenAI(base_url=some.base_url, api_key="none")
        assert len(client.batches.list().data) == 2  # one a round
        client.close()
    with case(tmp_path / "dead", lost, Rule(match="batches/list", status=503, times="always")) as some:
        message = "create the batch of requests-001"
        with pytest.raises(EndpointFailed, match=message):
            some.run()
    with pytest.raises(EndpointFailed, match="what was sent goes on there"):
        some.run()  # now nobody answers: that says nothing of the batch
    assert some.jobs().all[0].step == "creating"
    unlisted = Rule(match="batches/list", status=404, times="always")
    with case(tmp_path / "unlisted", lost, unlisted) as some:
        for _ in range(2):
            with pytest.raises(EndpointFailed, match="may have been created before the connection broke"):
                some.run()
        assert some.jobs().all[0].step == "creating"


def test_an_endpoint_that_stumbles_is_asked_again(tmp_path: Path) -> None:
    stumbles = [Rule(match=f"^{name}$", status=503, times=1)
                for name in ("files/create", "files/content", "batches/create", "batches/retrieve")]  # fmt: skip
    with case(tmp_path / "o", *stumbles, calls=1) as some:
        some.run()
        assert len(some.recorded()) == 2
    with case(tmp_path / "refused", Rule(match="files/create", status=401, times="always")) as some:
        with pytest.raises(EndpointFailed, match=r"will not upload requests-001.jsonl: .*; no key was sent, for .*"):
            some.run()
        assert some.answerer.asked == {}
    with case(tmp_path / "gone", Rule(match="batches/retrieve", status=404, times="always")) as some:
        message = r"batch batch_\w+ cannot be looked up.* give its output with --collect"
        for _ in range(2):
            with pytest.raises(EndpointFailed, match=message):
                some.run()


# -- how a batch ends ------------------------------------------------------------------------------------------------


def test_failed_lines_are_asked_again_until_the_attempts_are_used_up(tmp_path: Path) -> None:
    rules = [Rule(match="c0$", status=500, times=1), Rule(match="c1$", status=500, times="always"),
             Rule(match="c2$", kind="context_length", times="always"), Rule(match="c3$", kind="reset", times=1)]  # fmt: skip
    with case(tmp_path / "o", *rules, calls=5) as some:
        some.run()
        found = {call.rpartition("/")[2]: one for call, one in some.recorded().items()}
    assert {name: (one.status, one.fault, one.attempts) for name, one in found.items()} == {
        "c0": (200, "", 2), "c1": (500, "http_500", 2), "c2": (400, "", 1), "c3": (200, "", 2), "c4": (200, "", 1),
    }  # fmt: skip
    assert [job.calls for job in some.jobs().all] == [5, 3]
    assert any(note == "2 answers recorded, 3 calls to ask again" for note in some.heard.notes)


def test_an_endpoint_that_fails_every_line_ends_it_and_nothing_is_recorded(tmp_path: Path) -> None:
    message = "Unsupported parameter: 'max_tokens', use 'max_completion_tokens'"
    with case(tmp_path / "o", Rule(match="^audit", status=400, message=message, times=1), calls=20) as some:
        with pytest.raises(
            EndpointFailed, match=r"all 20 answers failed, the last with bad_request: .*max_tokens_field"
        ):
            some.run()
        assert some.recorded() == {}
        some.run()  # mended
        assert len(some.recorded()) == 21
        assert {one.attempts for one in some.recorded().values()} == {1}
    with case(tmp_path / "key", Rule(match="c1$", status=401, times=1)) as some:
        with pytest.raises(EndpointFailed, match="401"):
            some.run()
        assert len(some.recorded()) == 3  # what was answered is kept
        some.run()
        assert len(some.recorded()) == 5
        assert some.most_asked == 1


def test_a_batch_that_fails_as_a_whole_or_is_cancelled_says_so_and_resumes(tmp_path: Path) -> None:
    slow = Rule(match="c[23]$", kind="slow", delay_s=30, times=1)
    with case(tmp_path / "cancelled", slow) as some:
        client = openai.OpenAI(base_url=some.base_url, api_key="none")

        def cancel(text: str) -> None:
            if "2 of 4" in text:
                client.batches.cancel(client.batches.list().data[0].id)

        some.heard.stage = cancel  # type: ignore[method-assign]
        with pytest.raises(EndpointFailed, match="was cancelled there; 2 answers recorded"):
            some.run()
        client.close()
        some.run()
        assert len(some.recorded()) == 5
        assert some.answerer.asked["audit/edit/c0"] == 1
    with case(tmp_path / "failed") as some:
        some.calls = 1
        before = batch_files.URL
        batch_files.URL = "/v1/embeddings"
        try:
            with pytest.raises(EndpointFailed, match="failed: A request is a POST to /v1/chat/completions"):
                some.run()
        finally:
            batch_files.URL = before
        some.run()
        assert len(some.recorded()) == 2


def test_a_budget_is_held_against_the_whole_batch_before_it_is_sent(tmp_path: Path) -> None:
    with case(tmp_path / "o") as some:
        with pytest.raises(BudgetReached, match="budget of 3 calls: with this batch there would be 4"):
            some.run(limits=Ledger(max_calls=3))
        with pytest.raises(BudgetReached, match="budget of 4 calls: with this batch there would be 5"):
            some.run(limits=Ledger(max_calls=4))
        assert sum(some.answerer.asked.values()) == 4
        some.run(limits=Ledger(max_calls=5))
    assert not list((tmp_path / "o").rglob(".draft*"))


def test_a_folder_bears_so_many_files_as_the_endpoint_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_files, "MOST_REQUESTS", 3)
    with case(tmp_path / "o", calls=7) as some:
        some.run()
        assert [job.calls for job in some.jobs().all] == [3, 3, 1, 1]
        assert some.most_asked == 1
