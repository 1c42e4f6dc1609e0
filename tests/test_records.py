"""Request bodies as text: the fast writer against the standard library's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop.records import canonical, canonical_bytes

# Surrogates, numbers of any size and spelling, keys whose order by bytes and by UTF-16 differ.
_TEXT = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(
    ["\ud800", "\uffff", "\U00010000", "\x7f\x1b", "</script>"]
)
_NUMBERS = (
    st.integers() | st.floats() | st.sampled_from([2**63, 2**64, -(2**63) - 1, 1e-3, 9.9e-4, 1e15, 1e16, -0.0, 1e22])
)
_VALUES = st.recursive(
    st.none() | st.booleans() | _TEXT | _NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_TEXT, _VALUES, max_size=5))
def test_the_canonical_text_is_the_standard_librarys(body: dict[str, Any]) -> None:
    def slow() -> str:
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    try:
        expected = slow()
    except ValueError:
        with pytest.raises(ValueError, match="Out of range"):
            canonical_bytes(body)
        return
    assert canonical_bytes(body) == expected.encode("utf-8", "surrogatepass")
    assert canonical(body) == expected


def test_a_body_of_any_depth_has_a_canonical_text_or_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(300):  # deeper than orjson writes
        deep = [deep]
    assert canonical({"x": deep}) == '{"x":' + 301 * "[" + 301 * "]" + "}"
    with pytest.raises(TypeError):
        canonical({"x": object()})
