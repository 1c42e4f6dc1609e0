"""The claims study: what is false is told from facts, a false claim that is made too often is not held, and no claim is unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import judgeloop
from judgeloop.errors import InvalidInput
from judgeloop.report.answers import AdviceKind
from judgeloop.validation import claims
from judgeloop.validation.claim_worlds import (
    LESS,
    MORE,
    NOTHING,
    UNEVEN,
    AuditSample,
    ClaimWorld,
    Truth,
    of_judge,
)
from judgeloop.validation.claims import WORLDS, Claim, said, study_world
from judgeloop.validation.table import failures
from judgeloop.validation.worlds import judged, pair_table


def _claim(says: str, sign: int = 0, place: str = "finding") -> Claim:
    return Claim(place, "position", "first_slot_excess", says, sign)


@pytest.mark.parametrize(
    ("claim", "truth", "false"),
    [
        (_claim("found", 1), NOTHING, True),
        (_claim("found", 1), MORE, False),
        (_claim("found", 1), LESS, True),
        (_claim("found", -1), UNEVEN, True),
        (_claim("none"), NOTHING, False),
        (_claim("none"), UNEVEN, True),
        (_claim("unchanged"), MORE, True),
        (_claim("rejected", place="test"), NOTHING, True),
        (_claim("rejected", place="test"), MORE, False),
        (_claim("passed", place="check"), Truth(frozenset({1}), none=False, value=0.05), True),
        (_claim("exceeded", place="check"), Truth(frozenset({1}), none=False, value=0.05), True),
        (_claim("passed", place="check"), NOTHING, False),
        (_claim("exceeded", place="check"), NOTHING, True),
        (_claim("passed", place="check"), MORE, True),  # its size is not stated, but that it is one of practical size
        (_claim("passed", place="check"), UNEVEN, True),
        (_claim("saturating"), Truth(words=frozenset({"steady"})), True),
        (_claim("steady"), Truth(words=frozenset({"steady"})), False),
    ],
)
def test_a_claim_is_false_by_what_is_true(claim: Claim, truth: Truth, false: bool) -> None:
    assert claim.is_false(truth) is false


def _always_first(generator: np.random.Generator) -> AuditSample:
    first = np.full(60, "first", dtype=object)
    return AuditSample(judged(pair_table(60), {"ab": first, "ba": first}, columns={"panel": "pairs", "arm": ""}))


def test_what_is_said_is_read_from_facts() -> None:
    report = said(_always_first(np.random.default_rng(0)))
    assert {(claim.place, claim.term, claim.says, claim.sign) for claim in report.claims} >= {
        ("finding", "first_slot_excess", "found", 1), ("answer", "answer biased", "found", 0),
        ("advice", "advice both_orders", "found", 0), ("check", "first_slot_excess", "exceeded", 0),
        ("test", "first_slot_excess", "rejected", 0),
    }  # fmt: skip


def test_a_false_claim_that_is_made_is_not_held_and_a_true_one_is_power(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {}
    for name, truth in (("fair", NOTHING), ("biased", MORE)):
        monkeypatch.setitem(WORLDS, name, ClaimWorld("", _always_first, of_judge(position=truth)))
        rows[name] = study_world(name, 0, 2)
    slot = ["finding", "first_slot_excess", "found"]
    found = {name: frame[(frame[["place", "term", "says"]] == slot).all(axis=1)] for name, frame in rows.items()}
    assert found["fair"].set_index("sign")["rate"].to_dict() == {1: 1.0, -1: 0.0}
    assert found["fair"].set_index("sign")["held"].to_dict() == {1: False, -1: True}
    assert found["biased"].set_index("sign")["false"].to_dict() == {1: "no", -1: "yes"}
    assert found["biased"]["held"].all()
    whole = rows["fair"][rows["fair"]["place"] == "report"].set_index("term")["rate"]
    assert whole["a false confirmatory finding"] == whole["a false answer or advice"] == 1.0
    assert "- finding first_slot_excess found + in fair: 1.000 ± 0.000, allowed 0.050" in failures(rows["fair"])


def test_every_claim_has_a_sentence_and_every_advice_is_known() -> None:
    possible = claims.possible_claims()
    assert {claim.term for claim in possible if claim.place == "advice"} == {
        f"advice {k}" for k in get_args(AdviceKind)
    }
    found = {(claim.term, claim.sign) for claim in possible if claim.says == "found" and claim.place == "finding"}
    assert found >= {("first_slot_excess", 1), ("did_length", -1), ("style_joint", 0), ("bold_probe", 1)}
    assert "amplifying" in {claim.says for claim in possible}
    assert all(sentence for claim, sentence in possible.items() if claim.place == "finding")


def test_a_study_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    told: list[str] = []
    first = judgeloop.validate(["rare_conflicts_40"], claims=True, replications=2, out=tmp_path, watch=told.append)
    again = judgeloop.validate(["rare_conflicts_40"], claims=True, replications=2, out=tmp_path, watch=told.append)
    assert told == ["rare_conflicts_40"]
    assert again.summary() == first.summary()
    assert "entries are held" in (tmp_path / "validate.md").read_text(encoding="utf-8")
    with pytest.raises(InvalidInput, match="unknown cell 'nowhere'"):
        judgeloop.validate(["nowhere"], claims=True)
    with pytest.raises(InvalidInput, match="one study at a time"):
        judgeloop.validate(claims=True, coverage=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_every_world_tests_a_false_claim_and_says_nothing_unknown(name: str) -> None:
    possible = claims.possible_claims()
    rows = study_world(name, 1, 2)
    assert (rows["false"] == "yes").sum() > len(claims.REPORTS)
    made = rows[rows["place"].isin(["finding", "answer", "advice"]) & (rows["rate"] > 0)]
    keys = made[["place", "question", "term", "says", "sign", "relative"]].itertuples(index=False, name=None)
    assert {replace(Claim(*key), relative=False) for key in keys} <= possible.keys()
