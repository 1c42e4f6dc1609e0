"""Where prose stands in a Markdown source, and the text without its marks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop.text.markdown import code, paragraphs, plain


def _found(text: str) -> list[tuple[str, bool, str]]:
    return [(text[one.start : one.end], one.top, one.after) for one in paragraphs(text)]


def test_paragraphs_are_found_in_the_source_without_their_marks() -> None:
    text = "# Title\n\nOne\n  line two.  \n\n- item *a*\n- item b\n\n> quoted\n\n```\ncode\n```\nlast"
    assert _found(text) == [
        ("One\n  line two.", True, "heading"), ("item *a*", False, "paragraph"), ("item b", False, "list_item"),
        ("quoted", False, "bullet_list"), ("last", True, "fence"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["> one\n> two", "\tcode", "# only a heading", "", "```\nopen", "a\x00b", "Title\n==="]
)
def test_what_is_no_run_of_prose_is_left_out(text: str) -> None:
    assert _found(text) == []


def test_line_endings_keep_their_places() -> None:
    for ending in ("\n", "\r\n", "\r"):
        text = ending.join(["one", "", "two", "", "- three"])
        assert [words for words, _, _ in _found(text)] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n\nb **c** _d_ `e`", "A\n\nb c d `e`"),
        ("- a\n- b\n\n  c", "a\n\nb\n\nc"),
        ("x\n\n- a\n- b\n  - c", "x\n\na\nb\nc"),
        ("3. three\n4. four", "(3) three\n(4) four"),
        ("> quoted *text*\n> more", "quoted text\nmore"),
        ("a \\*b\\* &amp; [l](u) <i>", "a \\*b\\* &amp; [l](u) <i>"),
        ("a\n\n---\n\nb", "a\n\nb"),
        ("a  \nb", "a\nb"),
        ("- a\n\n  ```py\n  # k\n  ```", "a\n\n```py\n# k\n```"),
        ("a\n\n    k\n      l\n", "a\n\n    k\n      l"),
        ("snake_case and 2*3*4", "snake_case and 234"),
    ],
)
def test_marks_go_and_words_stay(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_code_is_found() -> None:
    assert code("```py\na\n\n```\n\ntext\n\n    b\n") == ("a", "b")


@given(st.text(alphabet="ab *_#>-1.\n`\t[]\\&~+\r\u00e9", max_size=80))
def test_any_text_is_read(text: str) -> None:
    ends = [place for one in paragraphs(text) for place in (one.line_start, one.start, one.end)]
    assert ends == sorted(ends)
    assert plain(plain(text)) is not None
    assert all(text[one.start : one.end].strip() == text[one.start : one.end] != "" for one in paragraphs(text))
