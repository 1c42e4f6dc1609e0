"""The limits file: YAML keyed by term, read and checked. Every fault names the file and the field."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from judgeloop.errors import InvalidInput
from judgeloop.experiment import inputs
from judgeloop.limits.terms import is_known, nearest

_NUMBERS = ("max", "min", "max_abs")
_NAMES = ("judge", "arm", "contrast", "panel", "category", "variant")
_KEYS = (*_NUMBERS, *_NAMES, "generation", "required")
DEFAULTS = "the default limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The estimate of ``term`` shall lie in [low, high] (None: no limit on that side), in the term's unit.

    ``judge`` … ``variant`` choose rows by name, ``*`` standing for any text; None is the default choice of ``decide``.
    ``generation`` is a number, "last" or "all". ``required`` False: not applied where the folder cannot bear the term.
    """

    term: str
    low: float | None = None
    high: float | None = None
    judge: str | None = None
    arm: str | None = None
    contrast: str | None = None
    panel: str | None = None
    category: str | None = None
    variant: str | None = None
    generation: int | Literal["last", "all"] = "last"
    required: bool = True
    where: str = ""

    @property
    def text(self) -> str:
        """The limit in signs: "within ±0.05", "≤ 0.1", "≥ 0.6", "0.4 to 0.6"."""
        low, high = self.low, self.high
        if low is not None and high is not None:
            return f"within ±{high:g}" if low == -high else f"{low:g} to {high:g}"
        return f"≤ {high:g}" if high is not None else f"≥ {low:g}"

    @property
    def chosen(self) -> dict[str, str]:
        """The selectors that were given, as text."""
        found = {name: getattr(self, name) for name in _NAMES if getattr(self, name) is not None}
        return found if self.generation == "last" else {**found, "generation": str(self.generation)}


def default_text() -> str:
    """The packaged limits file, as it is shipped."""
    return resources.files("judgeloop.limits").joinpath("defaults.yaml").read_text(encoding="utf-8")


def load_limits(path: str | Path | None = None, present: Iterable[str] = ()) -> tuple[Limit, ...]:
    """The limits of a file, or the defaults. ``present``: terms of the folder at hand, known beside those of the method.

    Raises InvalidInput naming file and field: unknown terms (with the nearest), unknown keys, no or contradicting limits.
    """
    known = frozenset(present)
    if path is None:
        with resources.as_file(resources.files("judgeloop.limits").joinpath("defaults.yaml")) as shipped:
            raw = inputs.read_yaml(shipped, "a limits file")
        return _limits(raw, DEFAULTS, known)
    return _limits(inputs.read_yaml(Path(path), "a limits file"), str(path), known)


def limits_of(raw: Mapping[str, Any], present: Iterable[str] = ()) -> tuple[Limit, ...]:
    """The same from a mapping."""
    return _limits(raw, "limits", frozenset(present))


def _limits(raw: Mapping[str, Any], source: str, present: frozenset[str]) -> tuple[Limit, ...]:
    found = []
    for name, value in raw.items():
        term = str(name)
        where = f"{source}: {term}"
        if not is_known(term, present):
            close = nearest(term, present)
            more = f"; did you mean {close}?" if close else "; docs/method.md lists all terms"
            raise InvalidInput(f"{where}: unknown term{more}")
        several = value if isinstance(value, list) else [value]
        if not several:
            raise InvalidInput(f"{where}: the list is empty; give a limit, such as {{max_abs: 0.05}}")
        for place, one in enumerate(several):
            found.append(_limit(term, one, f"{where}[{place}]" if isinstance(value, list) else where))
    if not found:
        raise InvalidInput(
            f"{source}: no limits; give a term and its limit, such as first_slot_excess: {{max_abs: 0.05}}"
        )
    return tuple(found)


def _limit(term: str, raw: Any, where: str) -> Limit:
    if not isinstance(raw, dict):
        raise InvalidInput(f"{where}: a limit is a mapping, such as {{max_abs: 0.05}}, this is {inputs.yaml_name(raw)}")
    for key in raw:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.5)
            raise InvalidInput(
                f"{where}.{key}: unknown key; {'did you mean ' + close[0] + '?' if close else 'known: ' + ', '.join(_KEYS)}"
            )
    bounds = {key: _number(raw[key], f"{where}.{key}") for key in _NUMBERS if key in raw}
    low, high = bounds.get("min"), bounds.get("max")
    if "max_abs" in bounds:
        if len(bounds) > 1:
            raise InvalidInput(f"{where}: max_abs stands for both sides; give it alone, or min and max")
        if bounds["max_abs"] < 0:
            raise InvalidInput(f"{where}.max_abs: must not be below 0")
        low, high = -bounds["max_abs"], bounds["max_abs"]
    if low is None and high is None:
        raise InvalidInput(f"{where}: no limit; give max, min or max_abs")
    if low is not None and high is not None and low > high:
        raise InvalidInput(f"{where}: min {low:g} is above max {high:g}")
    names = {key: _name(raw[key], f"{where}.{key}") for key in _NAMES if key in raw}
    required = raw.get("required", True)
    if not isinstance(required, bool):
        raise InvalidInput(f"{where}.required: must be true or false")
    return Limit(
        term=term, low=low, high=high, required=required, where=where,
        generation=_generation(raw.get("generation", "last"), f"{where}.generation"), **names,
    )  # fmt: skip


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInput(f"{where}: must be a number, this is {inputs.yaml_name(value)}")
    return float(value)


def _name(value: Any, where: str) -> str:
    # A dose such as 1.25 is a variant, and YAML reads it as a number.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"{where}: must be text, this is {inputs.yaml_name(value)}")
    return value if isinstance(value, str) else f"{value:g}"


def _generation(value: Any, where: str) -> int | Literal["last", "all"]:
    if value in ("last", "all"):
        return "last" if value == "last" else "all"
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{where}: must be a generation's number, last or all")
    return value
