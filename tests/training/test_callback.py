"""``training_log``: what it refuses when it is made, and a log that is none; what it logs is in test_lora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import judgeloop
from judgeloop.errors import InvalidInput
from judgeloop.training.callback import _steps_written


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"every": "2"}, "every: must be a whole number, 1 or more, not '2'"), ({"every": 0}, "every: must be"),
        ({"texts": 0}, "texts: must be"), ({"max_tokens": 0}, "max_tokens: must be"),
        ({"temperature": -1}, "temperature: must be a number, 0 or more, not -1"),
        ({"temperature": float("nan")}, "temperature: must be"), ({"out": "."}, "this is a folder; give the file"),
    ],
)  # fmt: skip
def test_settings_that_are_none_are_refused_at_once(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text('{"item_id": "i", "prompt": "p"}\n')
    with pytest.raises(InvalidInput, match=fault):
        judgeloop.training_log(items, **{"out": tmp_path / "texts.jsonl", "every": 2, **change})


def test_a_log_of_something_else_is_refused_by_its_line(tmp_path: Path) -> None:
    log, labels = tmp_path / "texts.jsonl", {"arm": "texts", "replicate": 0}
    row = json.dumps({"step": 4, **labels})
    log.write_text(f"{row}\n\n")
    assert _steps_written(log, labels) == {4}
    for line in ("no JSON", '{"text": "a"}', "[1]"):
        log.write_text(f"{row}\n{line}\n")
        with pytest.raises(InvalidInput, match=r"texts.jsonl:2: this line is no text that training_log wrote"):
            _steps_written(log, labels)
