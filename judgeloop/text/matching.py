"""Gold: whether a text is right by its item's reference, and which side of a pair is better by that."""

from __future__ import annotations

import math
import re
import unicodedata

from judgeloop.records import Gold, Item

# Signs around an answer that are not part of it. Signs with a meaning (-, +, %, $, #, /) are kept.
_ENDS = " .,;:!?…\"'`*_()[]{}<>«»“”‘’"

_DIGITS = r"(?:\d{1,3}(?:[,\u00a0\u202f\u2009]\d{3})++(?!\d)|\d++)"
_NUMBER = re.compile(
    rf"(?<![^\W_])(?<!\d\.)(?P<sign>[-−+]?)(?:(?<!/)(?P<top>\d{{1,15}})/(?P<bottom>\d{{1,15}})(?![\d/])"
    rf"|(?P<value>{_DIGITS}(?:\.\d++)?|\.\d++)(?P<exponent>[eE][-+]?\d{{1,4}})?)"
)


def is_asked(item: Item) -> bool:
    """Whether a model must decide which texts agree with the item's reference (match: judge)."""
    return item.match == "judge" and item.reference is not None and bool(item.reference.strip())


def correct(item: Item, text: str) -> bool | None:
    """Whether the text matches the item's reference; None without a reference, or with match: judge.

    exact: equal after Unicode NFKC, case folding, single spaces, and stripping quotes, brackets, emphasis and sentence
    punctuation at both ends. contains: the reference so normalised occurs in the text between word boundaries.
    numeric: the last number of the text equals the reference's to a relative 1e-9; see ``last_number``.
    """
    if item.reference is None or not item.reference.strip() or item.match == "judge":
        return None
    if item.match == "exact":
        return _bare(text) == _bare(item.reference)
    if item.match == "contains":
        pattern = re.escape(_bare(item.reference))
        return re.search(rf"(?<!\w){pattern}(?!\w)", _normalised(text)) is not None
    reference_number, number = last_number(item.reference), last_number(text)
    if reference_number is None:
        return None
    return number is not None and math.isclose(number, reference_number, rel_tol=1e-9)


def last_number(text: str) -> float | None:
    """The last number in a text, or None.

    Read: signs (− too), thousands separated by commas or no-break spaces (1,234.5), decimals with a point, exponents
    (2.5e3) and fractions of whole numbers (3/4). A percent sign or unit is ignored: 50 % is 50. A hyphen between
    digits (3-4) is no sign. A decimal comma is not read: "1,5" is 5.
    """
    last = None
    for match in _NUMBER.finditer(text):
        last = match
    if last is None:
        return None
    if last["top"]:
        if int(last["bottom"]) == 0:
            return None
        number = int(last["top"]) / int(last["bottom"])
    else:
        number = float(re.sub(r"[,\u00a0\u202f\u2009]", "", last["value"]) + (last["exponent"] or ""))
    number = -number if last["sign"] in ("-", "−") else number
    return number if math.isfinite(number) else None


def gold_of(correct_a: bool | None, correct_b: bool | None) -> Gold:
    """The better side: the one that alone is right; tie where both are, neither is, or one is not known."""
    if correct_a is None or correct_b is None or correct_a == correct_b:
        return "tie"
    return "a" if correct_a else "b"


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _bare(text: str) -> str:
    normalised = _normalised(text)
    return normalised.strip(_ENDS) or normalised
