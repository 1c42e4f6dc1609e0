"""Verdicts: a table of hostile replies, and what holds for every reply."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop.judging import answers
from judgeloop.judging.answers import read_choice, read_match, read_score, read_verdict, unscored
from judgeloop.records import Reply, Verdict
from judgeloop.text.templates import Mode, Scale

# The reasons of the module's own table.
REASONS = re.findall(r"^([a-z_]+)  +[a-zJ]", answers.__doc__ or "", re.M)
# (reply, ties offered, slot or reason of an unscored one)
TEXT = [
    ("[[A]]", False, "first"),
    ("[[B]]", False, "second"),
    ("[[tie]]", True, "tie"),
    ("[[tie]]", False, "no_verdict"),
    ("[[TIE]] ", True, "tie"),
    ("[[a]]", False, "first"),
    ("[[ B ]]", False, "second"),
    ("[[**B**]]", False, "second"),
    ("**[[A]]**", False, "first"),
    ("[[[A]]]", False, "first"),
    ("Not [[A]], I decide for [[B]].", False, "second"),
    ("[[A]] or [[B]]? [[A]]", False, "first"),
    ("[[A]], not [[C]]", False, "first"),
    ("[[C]]", True, "no_verdict"),
    ("[[A]] and then [[tie]]", False, "first"),
    ("[[yes]]", True, "no_verdict"),
    ("[A]", False, "no_verdict"),
    ("[ [A] ]", False, "no_verdict"),
    ("[[A]", False, "no_verdict"),
    ("[[AB]]", False, "no_verdict"),
    ("[[A, B]]", False, "no_verdict"),
    ("A", False, "no_verdict"),
    ("A is better", False, "no_verdict"),
    ("Answer B is clearly better.", True, "no_verdict"),
    ('{"verdict": "A"}', False, "no_verdict"),
    ("［［Ａ］］", False, "no_verdict"),
    ("", False, "empty"),
    (" \n\t", True, "empty"),
    ("<think>[[A]]", False, "truncated"),
    ("<think>[[A]]</think>", False, "empty"),
    ("<think>[[A]]</think>[[B]]", False, "second"),
    ("[[A]] so far</think>\n\n[[B]]", False, "second"),
    ("<think>x</think>[[A]]<think>or [[B]]", False, "truncated"),
    ("<Reasoning>[[A]]</Reasoning> none", False, "no_verdict"),
    ("[[A]]" * 100_000 + "[[B]]", False, "second"),
    ("[" * 1_000_000, False, "no_verdict"),
    ("\u202e[[A]]", False, "first"),
    ("\x00[[B]]\x00", False, "second"),
]
JSON = [
    ('{"verdict": "A"}', False, "first"),
    ('{"verdict": "B"}', False, "second"),
    (' {"verdict":"b"}\n', False, "second"),
    ('{"verdict": " tie "}', True, "tie"),
    ('{"verdict": "tie"}', False, "wrong_label"),
    ('{"reasoning": "[[A]] {\\"verdict\\": \\"A\\"}", "verdict": "B"}', False, "second"),
    ('```json\n{"verdict": "A"}\n```', False, "first"),
    ('```\n{"verdict": "B"}\n```\n', False, "second"),
    ('{"verdict": "C"}', True, "wrong_label"),
    ('{"verdict": ""}', True, "wrong_label"),
    ('{"verdict": null}', False, "wrong_label"),
    ('{"verdict": 1}', False, "wrong_label"),
    ('{"verdict": ["A"]}', False, "wrong_label"),
    ('{"Verdict": "A"}', False, "no_verdict"),
    ('{"answer": {"verdict": "A"}}', False, "no_verdict"),
    ('{"verdict": "A", "verdict": "B"}', False, "not_json"),
    ('{"verdict": "A"} {"verdict": "B"}', False, "not_json"),
    ('Answer B says {"verdict": "A"}', False, "not_json"),
    ('"A"', False, "not_json" ),
    ('["A"]', False, "not_json"),
    ('{"verdict": "A"', False, "not_json"),
    ("{'verdict': 'A'}", False, "not_json"),
    ("[[A]]", False, "not_json"),
    ("[" * 100_000, False, "not_json"),
    ("", False, "empty"),
    ('<think>hm</think>{"verdict": "A"}', False, "first"),
]  # fmt: skip
LOGPROBS = [
    ((("A", -0.1), ("B", -3.0)), False, "first", 1 / (1 + math.exp(-2.9))),
    ((("B", -0.1), ("A", -3.0)), False, "second", 1 / (1 + math.exp(2.9))),
    ((("A", -1.0), ("B", -1.0)), False, "tie", 0.5),
    (((" A", math.log(0.2)), ("▁A", math.log(0.1)), ("ĠB", math.log(0.1))), False, "first", 0.75),
    ((("**A", -1.0), ("(B", -2.0), ("B.", -50.0)), False, "first", 1 / (1 + math.exp(-1))),
    ((("[[B", -0.5),), False, "second", 0.0),
    ((("A", -0.5), ("The", -0.2)), False, "first", 1.0),
    ((("a", -0.1), ("B", -0.5)), False, "first", 1 / (1 + math.exp(-0.4))),
    ((("A", math.log(0.2)), (" a", math.log(0.1)), ("b", math.log(0.1))), False, "first", 0.75),
    ((("a", -1.0), ("b", -2.0)), False, "first", 1 / (1 + math.exp(-1))),
    ((("A", -900.0), ("B", -901.0), ("The", 0.0)), False, "first", 1 / (1 + math.exp(-1))),
    ((("A", math.log(0.2)), ("B", math.log(0.1)), ("tie", math.log(0.7))), True, "tie", 0.55),
    ((("A", math.log(0.5)), ("B", math.log(0.1)), ("Tie", math.log(0.3)), ("T", math.log(0.1))), True, "first", 0.7),
    ((("A", math.log(0.2)), ("B", math.log(0.1)), ("tie", math.log(0.7))), False, "first", 2 / 3),
    ((("tie", -0.1),), True, "tie", 0.5),
    ((("tie", -0.1),), False, "no_letter", None),
    ((("Answer", -0.1), ("AB", -1.0), ("C", -2.0), ("", -3.0)), True, "no_letter", None),
    ((("A", -math.inf), ("B", -math.inf)), False, "no_letter", None),
    ((), True, "no_logprobs", None),
]


def _slot_or_reason(verdict: Verdict) -> str:
    assert (verdict.slot == "unscored") == bool(verdict.reason)
    return verdict.reason or verdict.slot


@pytest.mark.parametrize(("text", "ties", "expected"), TEXT, ids=[repr(row[0])[:40] for row in TEXT])
def test_text_replies(text: str, ties: bool, expected: str) -> None:
    verdict = read_verdict(Reply(text, finish_reason="stop"), "text", ties)
    assert _slot_or_reason(verdict) == expected
    assert verdict.p_first is None


@pytest.mark.parametrize(("text", "ties", "expected"), JSON, ids=[repr(row[0])[:40] for row in JSON])
def test_json_replies(text: str, ties: bool, expected: str) -> None:
    assert _slot_or_reason(read_verdict(Reply(text, finish_reason="stop"), "json", ties)) == expected


@pytest.mark.parametrize(("top", "ties", "expected", "p_first"), LOGPROBS)
def test_logprob_replies(top: tuple[tuple[str, float], ...], ties: bool, expected: str, p_first: float | None) -> None:
    verdict = read_verdict(Reply("[[B]]", top_logprobs=top, finish_reason="length"), "logprob", ties, 0.0)
    assert _slot_or_reason(verdict) == expected
    assert verdict.p_first == (None if p_first is None else pytest.approx(p_first, rel=1e-12))


def test_letters_in_the_tail_of_another_answer_are_no_verdict() -> None:
    """A model that thinks first: relative to B, which is not listed, A is certain, at e^-18 of the probability."""
    top = (("<think>", -1e-6), ("Okay", -14.2), ("A", -18.1))
    verdict = read_verdict(Reply("", top_logprobs=top), "logprob", True)
    assert (verdict.slot, verdict.p_first, verdict.reason) == ("unscored", None, "low_mass")
    assert verdict.mass == pytest.approx(math.exp(-18.1))
    assert read_verdict(Reply("", top_logprobs=top), "logprob", True, 0.0).p_first == 1.0
    split = (("A", math.log(0.04)), (" A", math.log(0.03)), ("The", math.log(0.9)))
    assert read_verdict(Reply("", top_logprobs=split), "logprob", False).mass == pytest.approx(0.07)
    assert read_verdict(Reply("", top_logprobs=split), "logprob", False, 0.1).reason == "low_mass"


@pytest.mark.parametrize("mode", ["logprob", "json", "text"])
def test_a_failure_or_refusal_is_the_reason(mode: Mode) -> None:
    for failure in ("context_length", "http_500", "timeout", "rate_limited"):
        assert read_verdict(Reply(None, failure=failure), mode, True) == unscored(failure)
    assert read_verdict(Reply("[[A]]", refusal="I cannot", top_logprobs=(("A", -0.1),)), mode, True) == unscored(
        "refusal"
    )
    assert read_match(Reply(None, failure="timeout")) == (None, "timeout")
    assert read_match(Reply("[[yes]]", refusal="no")) == (None, "refusal")


@pytest.mark.parametrize(("mode", "text"), [("text", "A good answer"), ("text", ""), ("json", '{"reasoning": "A')])
def test_a_reply_cut_off_before_its_verdict_is_truncated(mode: Mode, text: str) -> None:
    assert read_verdict(Reply(text, finish_reason="length"), mode, False) == unscored("truncated")
    assert read_verdict(Reply("[[A]] and", finish_reason="length"), "text", False) == Verdict("first")
    assert read_match(Reply("", finish_reason="length")) == (None, "truncated")


CUT_THOUGHTS = [
    # An untagged thought, as of a template that opens it in the prompt and a server that does not mark it.
    "Both name a city. [[A]] names the capital, but wait, the second",
    "[[A]] would be right if length counted. Yet [[B]] is what the question asks",
    "<thought>Perhaps [[A]]? Let me compare them again",
]


@pytest.mark.parametrize("text", CUT_THOUGHTS)
@pytest.mark.parametrize("finish", ["length", "max_tokens", "MAX_TOKENS"])
def test_a_label_inside_a_thought_that_was_cut_is_no_answer(text: str, finish: str) -> None:
    def cut(label: str) -> Reply:
        return Reply(text.replace("[[A]]", f"[[{label}]]").replace("[[B]]", f"[[{label}]]"), finish_reason=finish)

    scale = Scale(1, 10)
    for read in (
        read_verdict(Reply(text, finish_reason=finish), "text", False),
        read_choice(Reply(text, finish_reason=finish), "text", 3),
        read_score(cut("7"), "text", scale),
    ):
        assert read.reason == "truncated"
    assert read_match(cut("yes")) == (None, "truncated")
    # A reply that ended by itself is read as before; one that was cut behind its answer, or that began with it, too.
    assert read_verdict(Reply(text), "text", False).slot != "unscored"
    assert read_verdict(Reply("The second is. **[[B]]**\n", finish_reason=finish), "text", False) == Verdict("second")
    assert read_score(Reply("[[7]] for it is", finish_reason=finish), "text", scale).value == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[yes]]", (True, "")),
        ("[[No]]", (False, "")),
        ("[[yes]]? [[no]]", (False, "")),
        ("yes", (None, "no_verdict")),
        ("[[A]]", (None, "no_verdict")),
        ("<think>[[yes]]", (None, "truncated")),
        ("", (None, "empty")),
    ],
)
def test_match_replies(text: str, expected: tuple[bool | None, str]) -> None:
    assert read_match(Reply(text)) == expected


@given(
    st.lists(st.sampled_from(["[[A]]", "[[B]]", "[[tie]]", "[[", "]]", "A", "<think>", "</think>", '{"verdict":', '"A"}', "x"])).map("".join),
    st.sampled_from(["text", "json"]),
    st.booleans(),
)  # fmt: skip
def test_every_reply_has_a_verdict_or_a_known_reason(text: str, mode: Mode, ties: bool) -> None:
    verdict = read_verdict(Reply(text), mode, ties)
    assert verdict.slot in ("first", "second", "tie") or verdict.reason in REASONS
    assert ties or verdict.slot != "tie"


@given(st.lists(st.tuples(st.sampled_from(["A", "B", " A", "tie", "The"]), st.floats(-800, 0)), max_size=20))
def test_swapping_the_letters_mirrors_the_verdict(top: list[tuple[str, float]]) -> None:
    swapped = [(token.translate({65: "B", 66: "A"}), logprob) for token, logprob in top]
    one, other = (read_verdict(Reply("", top_logprobs=tuple(tokens)), "logprob", True) for tokens in (top, swapped))
    mirror = {"first": "second", "second": "first"}
    assert other.slot == mirror.get(one.slot, one.slot)
    if one.p_first is not None and other.p_first is not None:
        assert one.p_first + other.p_first == pytest.approx(1.0)
        assert 0 <= one.p_first <= 1
