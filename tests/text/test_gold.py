"""Gold: what counts as a match, and which side it favours."""

from __future__ import annotations

import time
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop.records import Item
from judgeloop.text.matching import correct, gold_of, last_number

Match = Literal["exact", "contains", "numeric", "judge"]


@pytest.mark.parametrize(
    ("match", "reference", "text", "expected"),
    [
        ("exact", "Paris", " **paris**.\n", True),
        ("exact", "New  York", "“new york”", True),
        ("exact", "ﬁne", "fine", True),
        ("exact", "Paris", "It is Paris", False),
        ("exact", "5", "-5", False),
        ("exact", "C++", "C", False),
        ("exact", "?", "?", True),
        ("contains", "Paris", "It is PARIS, of course", True),
        ("contains", "cat", "concatenate", False),
        ("contains", "C++", "Use c++!", True),
        ("contains", "a.b", "axb", False),
        ("contains", "new york", "in New\nYork.", True),
        ("numeric", "42", "First 7, then 42.", True),
        ("numeric", "42", "42, or rather 43", False),
        ("numeric", "1,234.5", "about 1234.50 kg", True),
        ("numeric", "0.75", "so 3/4", True),
        ("numeric", "-3", "x = −3", True),
        ("numeric", "3", "no number", False),
        ("numeric", "0.1", "0.1000000001", True),
        ("numeric", "0.1", "0.10000001", False),
        ("numeric", "none", "3", None),
        ("exact", None, "x", None),
        ("contains", "  ", "x", None),
        ("judge", "Paris", "Paris", None),
    ],
)
def test_matches(match: Match, reference: str | None, text: str, expected: bool | None) -> None:
    assert correct(Item("i", "q", reference=reference, match=match), text) is expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12,345.5 kg", 12345.5),
        ("1\u202f234", 1234.0),
        ("1,5", 5.0),
        ("1, 2, 3", 3.0),
        ("3-4", 4.0),
        ("1/2/2024", 2024.0),
        ("2.5e3", 2500.0),
        ("50 %", 50.0),
        ("**12**", 12.0),
        ("_12_", 12.0),
        (r"\boxed{-7}", -7.0),
        (".5", 0.5),
        ("the end is 5.", 5.0),
        ("v2 and x3", None),
        ("3/0", None),
        ("1" * 5000, None),
        ("", None),
    ],
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


@given(st.floats(-1e15, 1e15, allow_subnormal=False), st.sampled_from(["{} ", "1 and {}", "= {}.", "({})"]))
def test_a_printed_number_is_read_back(number: float, frame: str) -> None:
    assert last_number(frame.format(number)) == pytest.approx(number, rel=1e-12)


def test_last_number_takes_linear_time() -> None:
    started = time.perf_counter()
    for unit in ("1", "1,", "1,234", "1/", "-", "1.", "1e", " "):
        last_number(unit * (200_000 // len(unit)))
    assert time.perf_counter() - started < 4


@given(st.sampled_from([True, False, None]), st.sampled_from([True, False, None]))
def test_gold_is_the_side_that_alone_is_right(a: bool | None, b: bool | None) -> None:
    expected = {(True, False): "a", (False, True): "b"}.get((a, b), "tie")
    assert gold_of(a, b) == expected
