"""Scales on which one text is scored: two whole numbers, the worst and the best, as ``1-10`` or, reversed, ``10-1``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from judgeloop.errors import InvalidInput

LARGEST = 100
_NAME = re.compile(r"(\d{1,3})-(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Scale:
    """``worst`` and ``best`` are its two ends; on a reversed scale the best is the smaller number."""

    worst: int
    best: int

    @property
    def name(self) -> str:
        """The scale as tables and call ids name it: the worst end, then the best."""
        return f"{self.worst}-{self.best}"

    @property
    def low(self) -> int:
        """The smaller end."""
        return min(self.worst, self.best)

    @property
    def high(self) -> int:
        """The larger end."""
        return max(self.worst, self.best)

    @property
    def values(self) -> tuple[int, ...]:
        """Every whole number of it, in counting order."""
        return tuple(range(self.low, self.high + 1))

    @property
    def words(self) -> str:
        """How a prompt states it: always in counting order, so that a reversed scale differs in its ends' meaning alone."""
        low, high = ("worst", "best") if self.worst < self.best else ("best", "worst")
        return f"from {self.low} (the {low}) to {self.high} (the {high})"

    def share(self, score: float) -> float:
        """Where a score stands between the worst end (0) and the best (1); positive = better."""
        return (score - self.worst) / (self.best - self.worst)


def parse(name: str) -> Scale:
    """The scale of that name, WORST-BEST. Raises InvalidInput."""
    found = _NAME.fullmatch(name.strip())
    scale = Scale(int(found[1]), int(found[2])) if found else None
    if scale is None or scale.high > LARGEST or scale.high - scale.low < 2:
        raise InvalidInput(
            f"--scales: {name.strip()!r:.40} is no scale; give WORST-BEST, whole numbers from 0 to {LARGEST} that are two or more apart, as 1-10 or 10-1"
        )
    return scale


def parse_all(names: str) -> tuple[Scale, ...]:
    """Several, with commas; the first is the primary one. Raises InvalidInput."""
    scales = tuple(parse(name) for name in names.split(",") if name.strip())
    if not scales:
        raise InvalidInput("--scales: give one or more, as 1-10,10-1")
    twice = next((one.name for one in scales if scales.count(one) > 1), None)
    if twice is not None:
        raise InvalidInput(f"--scales: {twice} stands twice; each once")
    return scales
