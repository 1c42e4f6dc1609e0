from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import emoji
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slow_features
from conftest import examples
from judgeloop.text.features import (
    COLUMNS,
    FEATURES,
    HEDGES,
    STYLE_FEATURES,
    TRANSITIONS,
    features_frame,
    measure,
    tokenize,
)

ANY_TEXT = st.text(st.characters(), max_size=200)
"""Any code points, lone surrogates and controls included."""

MARKDOWN = st.lists(
    st.sampled_from(["**", "*", "_", "`", "```", "\n", "\n\n", "# ", "- ", "1. ", "> ", "    ", " ", "a", "may", "!", "—", "[", "](", "<b>", "\\", "😀", "\u200d", "&amp;", "---", "\ud800", "\0", "\t", "\u00a0"]),
    max_size=40,
).map("".join)  # fmt: skip

PROSE = st.lists(
    st.sampled_from([*HEDGES, *TRANSITIONS, "May", "in ", "fact", "’", " ", " ", " ", "\n", "\n\n", "\n ", ", ", ".", "www.a.b", "HTTP://x ", "--", " -- ", "—", "!", "!=", "！", "<", "[x](y)", "😀", "☀️", "☀", "1️⃣", "👍🏿", "©\u200d☀", "🇯🇵", "é", "e\u0301", "\x0b", "\u2028", "\n3. ", "\n3", "\n-", "\n  ", "3.14", "_", "İ"]),
    max_size=40,
).map("".join)  # fmt: skip

TEXTS = ANY_TEXT | MARKDOWN | PROSE

OPENERS = (
    "empty", "heading", "list", "code", "quote", "bold", "greeting", "praise", "affirmation", "refusal", "negation",
    "announcement", "restatement", "pronoun_i", "pronoun_you", "pronoun_we", "article", "demonstrative", "question",
    "connective", "imperative", "number", "other",
)  # fmt: skip


def counts(text: str) -> dict[str, float]:
    """The style features as whole counts, those that are not 0."""
    measured = measure(text)
    raw = {name: getattr(measured, name) * measured.tokens / 100 for name in STYLE_FEATURES}
    assert all(abs(value - round(value)) < 1e-9 for value in raw.values())
    return {name: round(value) for name, value in raw.items() if round(value)}


def test_constants_are_the_contracts():
    assert FEATURES == (
        "length", "headings", "bold", "list_items", "code_fences", "hedges", "emoji", "transitions", "em_dashes",
        "exclamations",
    )  # fmt: skip
    assert ("length", *STYLE_FEATURES) == FEATURES
    assert ("length", "tokens", "characters", *STYLE_FEATURES, "opener") == COLUMNS
    assert not set(HEDGES) & set(TRANSITIONS)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \t\n\u00a0\u200b", []),
        ("Hello, world!", ["Hello", ",", "world", "!"]),
        ("don't won’t 'quoted'", ["don't", "won’t", "'", "quoted", "'"]),
        ("well-known", ["well", "-", "known"]),
        ("3.14 1,000,000 v1.2. a.b", ["3.14", "1,000,000", "v1.2", ".", "a", ".", "b"]),
        ("snake_case __init__", ["snake_case", "_", "_", "init", "_", "_"]),
        ("**b**", ["*", "*", "b", "*", "*"]),
        ("...", [".", ".", "."]),
        ("naïve nai\u0308ve", ["naïve", "nai\u0308ve"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("日本語です。", ["日", "本", "語", "で", "す", "。"]),
        ("カタカナ 한국어", ["カタカナ", "한국어"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("👨\u200d👩\u200d👧👍🏽❤️🇩🇪🇫🇷 1️⃣", ["👨\u200d👩\u200d👧", "👍🏽", "❤️", "🇩🇪", "🇫🇷", "1️⃣"]),
        ("\u0301a\0\u202eb\ud800", ["a", "b", "\ud800"]),
    ],
)
def test_tokens(text: str, tokens: list[str]):
    assert tokenize(text) == tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("Plain words here.", {}),
        ("# One\n\ntext\n\nTwo\n---\n\n#not one", {"headings": 2}),
        ("**a** and __b__ and *c* and 2 ** 3 ** 4 and \\*\\*d\\*\\*", {"bold": 2}),
        ("**a **b** c** ***d***", {"bold": 2}),
        ("[**link**](http://x.example/a)", {"bold": 1}),
        ("- a\n- b\n  1. c\n\n* d", {"list_items": 4}),
        ("a - b\n-c\n1.d", {}),
        ("```py\nmay! — 😀 however **x**\n# no\n- no\n```", {"code_fences": 1}),
        ("~~~\na\n~~~\n\n```\nunclosed", {"code_fences": 2}),
        ("text\n\n    may! — 😀 however **x**\n    # no", {}),
        ("use `may! — 😀 however **x**` now", {}),
        ("as `far` as i `x` think", {}),
        ("It may, MIGHT; could-be (perhaps) Mayor mayhem.", {"hedges": 4}),
        ("I’m not sure; I think it's possible.", {"hedges": 3}),
        ("in\nmost   cases it tends\nto work", {"hedges": 2}),
        ("in some\n\ncases", {}),
        ("However, for example: on the other hand thus thusly.", {"transitions": 4}),
        ("That being said, **finally** done", {"transitions": 2, "bold": 1}),
        ("a — b—c —— d", {"em_dashes": 3}),
        ("a -- b--c --- d", {"em_dashes": 3}),
        ("git --help a ---- b 1990--2000 a – b\n\n---\n\n| -- | -- |", {}),
        ("&mdash; x &amp; y", {"em_dashes": 1}),
        ("Wow! Really!! ！ a != b ![alt](x.png)", {"exclamations": 4}),
        ("see https://x.example/may!a—b and www.may.example/!", {}),
        ("😀😀 👨\u200d👩\u200d👧 👍🏽 ❤️ 🇩🇪🇫🇷 1️⃣ 🏴\u200d☠️ 🏳️\u200d🌈", {"emoji": 10}),
        ("© ™ ✔ ↔ 1 # * 😀\ufe0e", {}),
        ("🤷\u200d♂ ✔️ ✅", {"emoji": 3}),
        ("> # Quoted\n> - item **b**", {"headings": 1, "list_items": 1, "bold": 1}),
        ("<b>may</b> <!-- however! -->", {"hedges": 1, "transitions": 1, "exclamations": 1}),
        ("[may]: http://x.example", {"hedges": 1}),
    ],
)
def test_structure_and_prose(text: str, expected: dict[str, int]):
    assert counts(text) == expected


def test_exact_values():
    measured = measure("# Title\n\nSure! It **may** work.\n")
    assert measured.tokens == 12  # '#', Title, Sure, !, It, four asterisks, may, work and the full stop
    assert measured.length == math.log2(12)
    assert measured.characters == 32
    assert measured.headings == measured.bold == measured.hedges == measured.exclamations == 100 / 12
    assert measured.list_items == measured.code_fences == measured.emoji == measured.transitions == 0
    assert measured.opener == "heading"
    nothing = measure(" \n")
    assert (nothing.length, nothing.tokens, nothing.characters, nothing.opener) == (0.0, 0, 2, "empty")
    assert measure("one").length == 0.0
    assert measure("one two").length == 1.0


@pytest.mark.parametrize(
    ("text", "opener"),
    [
        ("", "empty"),
        ("\0\u200b", "empty"),
        ("## Overview\ntext", "heading"),
        ("Overview\n===", "heading"),
        ("- first", "list"),
        ("1. first", "list"),
        ("```\nx\n```", "code"),
        ("> said", "quote"),
        ("> - said", "quote"),
        ("**Answer:** yes", "bold"),
        ("*Sure*, yes", "affirmation"),
        ("---\n\nHello there", "greeting"),
        ("👋 Hello!", "greeting"),
        ("Great question! The", "praise"),
        ("That's a great question.", "praise"),
        ("Sure! Here is", "affirmation"),
        ("Surely not", "other"),
        ("Certainly.", "affirmation"),
        ("Of course, I", "affirmation"),
        ("I’m sorry, but", "refusal"),
        ("Unfortunately not", "refusal"),
        ("No, it is", "negation"),
        ("Here's a list", "announcement"),
        ("Let me explain", "announcement"),
        ("To solve this, we", "restatement"),
        ("You asked about", "restatement"),
        ("The question is", "restatement"),
        ("I think", "pronoun_i"),
        ("You should", "pronoun_you"),
        ("We can", "pronoun_we"),
        ("The capital", "article"),
        ("A dog", "article"),
        ('"The capital"', "article"),
        ("It's a", "demonstrative"),
        ("What matters", "question"),
        ("However, a", "connective"),
        ("Use a pan", "imperative"),
        ("42 is it", "number"),
        ("Paris is", "other"),
        ("Ἀθῆναι", "other"),
        ("?!", "other"),
        ("`x` is", "other"),
        ("https://x.example", "other"),
    ],
)
def test_openers(text: str, opener: str):
    assert measure(text).opener == opener


def test_every_emoji_of_the_table_counts_once():
    for sequence, entry in emoji.EMOJI_DATA.items():
        if entry["status"] < emoji.STATUS["unqualified"]:
            assert counts(f"a {sequence} b") == {"emoji": 1}, ascii(sequence)


def test_counts_agree_with_the_emoji_package_on_plain_sequences():
    text = "ok 😀 🎉🎉 👩\u200d🚀 🇯🇵 👍🏿 ☀️ end"
    assert counts(text)["emoji"] == emoji.emoji_count(text) == 7


@given(TEXTS, st.sampled_from(["en", "de", "fr", "es", "xx"]))
@settings(max_examples=examples(300))
def test_never_raises_stays_in_range_and_counts_as_the_slow_form_does(text: str, language: str):
    assert measure(text, language) == slow_features.measure(text, language)
    measured = measure(text)
    assert measured.characters == len(text)
    assert measured.tokens == len(tokenize(text)) <= len(text)
    assert measured.length == math.log2(max(measured.tokens, 1))
    assert measured.opener in OPENERS
    assert (measured.opener == "empty") == (measured.tokens == 0)
    for name in STYLE_FEATURES:
        value = getattr(measured, name)
        assert math.isfinite(value)
        assert value >= 0
        assert measured.tokens or value == 0


@given(TEXTS, st.text(st.sampled_from(" \t\n\r\x0b\x0c\u00a0\u2003\u2028"), max_size=6))
@settings(max_examples=examples(200))
def test_trailing_white_space_changes_characters_alone(text: str, space: str):
    plain, padded = measure(text), measure(text + space)
    assert padded.characters == plain.characters + len(space)
    assert [getattr(padded, name) for name in COLUMNS if name != "characters"] == [
        getattr(plain, name) for name in COLUMNS if name != "characters"
    ]


@given(TEXTS)
@settings(max_examples=examples(200))
def test_tokens_are_pieces_of_the_text_in_order(text: str):
    position = 0
    for token in tokenize(text):
        assert token
        position = text.index(token, position) + len(token)


@given(st.lists(TEXTS, max_size=6))
@settings(max_examples=examples(60))
def test_a_frames_row_is_the_measure_of_its_text(texts: list[str]):
    frame = features_frame(texts)
    assert tuple(frame.columns) == COLUMNS
    assert list(frame.index) == list(range(len(texts)))
    for row, text in zip(frame.to_dict("records"), texts, strict=True):
        measured = measure(text)
        assert row == {name: getattr(measured, name) for name in COLUMNS}


def test_frame_types_hold_without_rows():
    for frame in (features_frame([]), features_frame(["Hello", "", "Hello"])):
        assert all(str(frame[name].dtype) == "float64" for name in FEATURES)
        assert str(frame["tokens"].dtype) == str(frame["characters"].dtype) == "int64"
    assert features_frame(["Hello", "", "Hello"])["opener"].tolist() == ["greeting", "empty", "greeting"]


def _hostile() -> list[str]:
    """The pieces of which benchmarks/hostile_text.py makes long texts; it measures how the time grows."""
    path = Path(__file__).parents[2] / "benchmarks/hostile_text.py"
    spec = importlib.util.spec_from_file_location("hostile_text", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.UNITS)


@pytest.mark.parametrize("unit", _hostile(), ids=ascii)
def test_hostile_text_is_read(unit: str):
    """Of 5,000 characters, deeper than Python's stack; the benchmark reads 160,000."""
    measured = measure(unit * (5_000 // len(unit)))
    assert measured.tokens >= 0
    assert measure("x " + unit * (2_000 // len(unit))).tokens >= 1


@pytest.mark.parametrize(
    ("language", "text", "hedges", "transitions"),
    [
        ("de-AT", "Vielleicht ist das richtig. Allerdings könnte es in der Regel anders sein.", 3, 1),
        ("fr", "Peut-être, cependant, que je crois cela ; c’est-à-dire : sans doute.", 3, 2),
        ("es", "Quizás sea así. Sin embargo, en general depende.", 3, 1),
        ("en", "Perhaps it is so. However, in general it depends.", 3, 1),
        ("de", "Perhaps it is so. However, in general it depends.", 0, 0),
        ("zh", "Perhaps. However.", 0, 0),
    ],
)
def test_hedges_and_transitions_are_words_of_the_language(
    language: str, text: str, hedges: int, transitions: int
) -> None:
    found = measure(text, language)
    assert round(found.hedges * found.tokens / 100) == hedges
    assert round(found.transitions * found.tokens / 100) == transitions
    other = measure(text)
    assert (found.length, found.headings, found.opener) == (other.length, other.headings, other.opener)
    pair = features_frame([text, text], [language, "en"])
    assert pair["hedges"].tolist() == [found.hedges, other.hedges]
