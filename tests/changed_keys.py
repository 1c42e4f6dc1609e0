"""A valid experiment, and the same with one key changed."""

from __future__ import annotations

import copy
from typing import Any

BASE: dict[str, Any] = {
    "name": "demo",
    "items": "items.jsonl",
    "endpoints": {"m": {"base_url": "http://127.0.0.1:1/v1", "model": "name"}},
    "judge": {"endpoint": "m", "prompt": "rubric", "temperature": 0.5},
    "policy": {"kind": "exemplar", "endpoint": "m", "exemplars": 2},
    "signal": {"tau": 2.0, "ridge": 3.0},
    "strategy": {"kind": "accumulate", "real_fraction": 0.2},
    "arms": {"judge": {}, "random": {"judge": {"kind": "random"}}},
}


def with_key(path: str, value: Any) -> dict[str, Any]:
    """BASE with one key changed or added, by its dotted path."""
    raw = copy.deepcopy(BASE)
    *outer, last = path.split(".")
    at = raw
    for key in outer:
        at = at.setdefault(key, {})
    at[last] = value
    return raw
