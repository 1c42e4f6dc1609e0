"""Named random streams: the only source of randomness in judgeloop.

A stream is named by a seed and labels. Two streams with different names are independent, and adding a draw to one
shifts nothing in another: arms that share a name share their draws exactly (common random numbers).
"""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np

Label = str | int


def _digest(seed: int, labels: tuple[Label, ...]) -> bytes:
    """SHA-256 of the stream's name."""
    # JSON keeps ("a", "b") apart from ("ab",) and 1 apart from "1".
    return hashlib.sha256(json.dumps([seed, *labels], ensure_ascii=True).encode()).digest()


def rng(seed: int, *labels: Label) -> np.random.Generator:
    """A fresh generator (Philox, 128-bit key) for the stream of that name."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, labels)[:16], "little")))


def integer(seed: int, *labels: Label) -> int:
    """The stream's integer in [0, 2**31), as the ``seed`` of a request body takes it."""
    return int.from_bytes(_digest(seed, labels)[16:20], "little") & 0x7FFFFFFF


def uniform(seed: int, *labels: Label) -> float:
    """The stream's single number in [0, 1), for coins: faster than a generator for each draw."""
    # The quotient of the largest integers rounds to 1.
    return min(int.from_bytes(_digest(seed, labels)[20:28], "little") / 2.0**64, 1.0 - 2.0**-53)


def python_uniform(name: str) -> float:
    """The first number in [0, 1) of Python's own generator, seeded with a text. Only to recover draws of other tools that
    their logs do not hold; judgeloop itself never draws by it."""
    return random.Random(name).random()
