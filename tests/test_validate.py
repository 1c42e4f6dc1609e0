"""The validation table: it passes on the code as it is, and a row fails where an estimator or a strategy is broken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from judgeloop import strategies, validate
from judgeloop.errors import InvalidInput
from judgeloop.learning import labels


def test_the_cheap_rows_pass_and_the_seed_changes_the_draws() -> None:
    rows = validate.run(["B", "D3", "E2"], quick=True, seed=3)
    assert {row.name for row in rows} >= {"B1", "B2", "D3", "E2"}
    assert all(row.passed for row in rows), validate.table(rows)
    drawn = {seed: [row.estimate for row in validate.run(["B1"], quick=True, seed=seed)] for seed in (1, 2)}
    assert drawn[1] != drawn[2]


def test_a_strategy_that_forgets_generation_zero_fails_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = strategies.mix

    def forgetful(strategy: Any, **parts: Any) -> Mapping[str, float]:
        return honest(strategy, **{**parts, "generation_zero": {}})

    monkeypatch.setattr("judgeloop.validate.mixing.strategies.mix", forgetful)
    rows = validate.run(["B2"], quick=True)
    assert not all(row.passed for row in rows)


def test_a_label_rule_that_looks_at_one_order_only_fails_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = labels.preferences

    def one_eyed(judgments: pd.DataFrame, rule: Any) -> pd.DataFrame:
        seen = judgments[judgments["order"] == "ab"]
        mirrored = seen.assign(
            order="ba",
            verdict=seen["verdict"].map({"first": "second", "second": "first"}),
            candidate_first=seen["candidate_second"],
            candidate_second=seen["candidate_first"],
        )
        return honest(pd.concat([seen, mirrored], ignore_index=True), rule)

    monkeypatch.setattr(labels, "preferences", one_eyed)
    rows = validate.run(["E3"], quick=True)
    assert rows
    assert not any(row.passed for row in rows if "unanimous of 2" in row.setting and "γ=0" in row.setting)


def test_an_unknown_row_is_named() -> None:
    with pytest.raises(InvalidInput, match="unknown row 'Z9'"):
        validate.run(["Z9"])


def test_the_table_is_written_and_says_what_failed(tmp_path: Path) -> None:
    rows = validate.run(["E2"], quick=True)
    assert f"{len(rows)} of {len(rows)} rows pass" in validate.table(rows)
    sheet, page = validate.write(rows, None, tmp_path)
    assert len(sheet.read_text(encoding="utf-8").splitlines()) == len(rows) + 1
    assert "| E2 |" in page.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_quick_table_passes_for_any_seed(seed: int) -> None:
    rows = validate.run(quick=True, seed=seed)
    failed = [row for row in rows if not row.passed]
    assert not failed, validate.table(failed)
