"""The routes that score a text, as vLLM serves them: where they are, what a request must hold, the numbers in an answer.

========  ==================  ===================================================  ==================================
route     address             asks                                                 answers
========  ==================  ===================================================  ==================================
classify  ``/classify``       ``messages`` or ``input``                            ``data[].probs``
pooling   ``/pooling``        ``messages`` or ``input``                            ``data[].data``: numbers, or a row a token
score     ``/score``          ``text_1`` and ``text_2`` (``queries, documents``)   ``data[].score``
rerank    ``/v1/rerank``      ``query`` and ``documents``                          ``results[].relevance_score``
========  ==================  ===================================================  ==================================

The first three stand at the server's root, whatever version a base URL ends in; rerank stands below that version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from judgeloop.records import REWARD_ROUTES, Route

_VERSION = re.compile(r"/v\d+$")
PATHS: dict[str, Route] = {
    f"{prefix}/{route}": route for route in REWARD_ROUTES for prefix in ("", "/v1", *(["/v2"] if route == "rerank" else []))
}  # fmt: skip
"""Where the local server answers each route."""


def path(base: str, route: Route) -> str:
    """The path of a route, from that of a base URL, which may end in a version or not."""
    base = base.rstrip("/")
    if route == "rerank":
        return f"{base if _VERSION.search(base) else base + '/v1'}/rerank"
    return f"{_VERSION.sub('', base)}/{route}"


def missing(route: Route, body: Mapping[str, Any]) -> str:
    """The name of the field that a request lacks or has in a wrong form, or nothing if it is whole."""
    if route in ("classify", "pooling"):
        if "messages" in body:
            return ""  # checked as every chat's are
        return "" if _texts(body.get("input")) else "input"
    if route == "rerank":
        names = ("query", "documents")
    else:
        names = ("text_1", "text_2") if "text_1" in body else ("queries", "documents")
    wanted = {name: body.get(name) for name in names}
    if route == "rerank" and not isinstance(wanted["query"], str):
        return "query"
    return next((name for name, value in wanted.items() if not _texts(value)), "")


def _texts(value: Any) -> bool:
    many = isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
    return isinstance(value, str) or many


def entries(route: Route, body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What an answer holds for each text, none if its envelope is malformed."""
    found = body.get("results" if route == "rerank" else "data")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return []
    return found


def numbers(route: Route, body: Mapping[str, Any]) -> tuple[float | None, ...]:
    """The numbers of an answer's one text: None for one that is not finite (several servers write NaN as null), and none
    at all where something else stands in their place. Of a row a token, the last token's count: it has seen the text."""
    name = {"classify": "probs", "pooling": "data", "score": "score", "rerank": "relevance_score"}[route]
    first = entries(route, body)[0]
    value = first.get(name, ())
    if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        value = value[-1]
    values = value if isinstance(value, list | tuple) else [value]
    if not all(one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in values):
        return ()
    return tuple(_finite(one) for one in values)


def _finite(value: float | None) -> float | None:
    try:
        number = math.nan if value is None else float(value)
    except OverflowError:  # JSON bounds no whole number
        number = math.inf
    return number if math.isfinite(number) else None
