"""The pytest plugin, in a session of its own as a user's project has it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

RECORDING = Path(__file__).parents[2] / "fixtures" / "exemplars" / "recording"

TESTS = """
import httpx2
import pandas as pd
import pytest

import judgeloop
from judgeloop.pytest_plugin import assert_within
from judgeloop.wire.cassette import Cassette


@pytest.fixture(scope="session")
def audit(tmp_path_factory):
    pairs = [(f"p{k}", order, slot) for k in range(40) for order, slot in (("ab", "first"), ("ba", "first" if k else "second"))]
    log = pd.DataFrame(pairs, columns=["item_id", "order", "verdict"]).assign(judge="j", text_a="one", text_b="two words")
    return judgeloop.analyze(log).save(tmp_path_factory.mktemp("run") / "audit", report=False)


def test_recorded_calls_are_answered(judgeloop_replay):
    exchange = next(iter(Cassette("recording", writable=False).exchanges()))
    url = judgeloop_replay("recording") + "/chat/completions"
    assert httpx2.post(url, json=exchange.request).json()["choices"] == exchange.response["choices"]
    assert httpx2.post(url, json={**exchange.request, "temperature": 1.5}).status_code == 404


def test_limits_that_are_kept(audit):
    assert assert_within(audit, {"first_slot_excess": {"min": 0.3}}).exit_code == 0


def test_limits_that_are_not_kept(audit):
    assert_within(audit, {"first_slot_excess": {"max_abs": 0.05}, "conflict_rate": {"max": 0.98}})
"""


def test_recordings_are_answered_and_limits_are_assertions(tmp_path: Path) -> None:
    (tmp_path / "test_judge.py").write_text(TESTS)
    part = RECORDING / "calls" / "panels" / "g00-judge.jsonl.gz"
    (tmp_path / "recording/calls/panels").mkdir(parents=True)
    shutil.copy(part, tmp_path / "recording/calls/panels")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "1 failed, 2 passed" in ended.stdout, ended.stdout[-3000:]
    failure = ended.stdout[ended.stdout.index("test_limits_that_are_not_kept") :]
    assert "audit: exceeded\nfirst_slot_excess" in failure
    assert "\nconflict_rate" in failure  # undecided, which is no pass
    assert "pytest_plugin.py" not in failure
