"""The planted judge of one text on a scale, and of a list, by the same law as of pairs.

A text's *content* is Σ coefficient · feature + quality · its quality, in log-odds; length counts from ``draft.length_mean``.
In a list, slot j is picked with probability ∝ exp(content + position where it is the first slot); of two slots that is the
law of pairs. A score's mean is 5.5 + ``score_spread`` · content points of a scale from 1 to 10, carried over to the scale
that was asked, ``score_anchor`` of the scale's length added towards its larger number, and clipped to its ends. The number
is one of the two whole numbers beside the mean, drawn so that the mean is exact (``temperature0``: the nearer one).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judgeloop import seeds
from judgeloop.planted.shown import inside, last_tag, properties_of, schema_of, tagged
from judgeloop.planted.spec import PlantedSpec, features_of

Quality = Callable[[str, str, str], float]
"""(text, question, message without the texts that are judged) → the text's quality."""

NO_VERDICT = "I would rather not judge this."
NO_VERDICT_TOKENS = (("I", 0.7), ("The", 0.2), ("Sorry", 0.1))
_FILLER = (("The", 0.012), ("Both", 0.002))
_VERDICT_MASS = 1.0 - sum(mass for _, mass in _FILLER)
_LETTERS = "ABCDEFGH"
_FEWEST_LISTED = 3
_SCALE = re.compile(r"from (\d+) \(the (worst|best)\) to (\d+) \(the (?:worst|best)\)")
_MIDDLE, _POINTS = 5.5, 9.0


@dataclass(frozen=True, slots=True)
class Said:
    """A reply: its text and, where log-probabilities were asked for, the likeliest first tokens with theirs."""

    text: str
    top: list[tuple[str, float]] | None = None


def rated(spec: PlantedSpec, body: Mapping[str, Any], name: str, message: str, quality: Quality) -> Said | None:
    """The reply to a message that asks for a score, or for the best of three or more texts; None to any other.

    ``name`` names the random streams: the call id, or the request's hash.
    """
    tags = (last_tag(message, f"answer_{letter}") for letter in _LETTERS.lower())
    slots = [slot for slot in tags if slot is not None]
    if len(slots) >= _FEWEST_LISTED:
        texts, rest = [inside(slot) for slot in slots], _outside(message, slots)
        question = tagged(rest, "question") or ""
        return _choice(spec, body, name, [content(spec, text, quality(text, question, rest)) for text in texts])
    answer = last_tag(message, "answer")
    if slots or answer is None:
        return None
    text, rest = inside(answer), _outside(message, [answer])
    scale = _SCALE.search(rest)
    if scale is None:
        return None
    ends = int(scale[1]), int(scale[3])
    worst, best = ends if scale[2] == "worst" else ends[::-1]
    worth = content(spec, text, quality(text, tagged(rest, "question") or "", rest))
    return _score(spec, body, name, worth, worst, best)


def content(spec: PlantedSpec, text: str, quality: float) -> float:
    """A text's worth to the judge, in log-odds; positive = better. A text of ``draft.length_mean`` tokens without style
    and quality has 0."""
    features = features_of(text)
    weights = {key: value for key, value in spec.coefficients.items() if key not in ("position", "quality")}
    worth = sum(weight * features[key] for key, weight in weights.items() if weight)
    return worth - spec.length * math.log2(spec.draft.length_mean) + spec.quality * quality


def mean_score(spec: PlantedSpec, worth: float, worst: int, best: int) -> float:
    """The mean score, in points of the scale from ``worst`` to ``best``, of a text whose ``content`` is ``worth``."""
    share = (_MIDDLE - 1.0 + spec.score_spread * worth) / _POINTS
    low, high = sorted((worst, best))
    return min(max(worst + share * (best - worst) + spec.score_anchor * (high - low), low), high)


def _outside(message: str, parts: Sequence[re.Match[str]]) -> str:
    """The message without these parts."""
    parts_outside, end = [], 0
    for part in sorted(parts, key=lambda part: part.start()):
        parts_outside.append(message[end : part.start()])
        end = part.end()
    return "\n".join([*parts_outside, message[end:]])


def _score(spec: PlantedSpec, body: Mapping[str, Any], name: str, worth: float, worst: int, best: int) -> Said:
    if is_unscored(spec, name):
        return _no_verdict(body)
    noise = spec.noise * float(seeds.rng(spec.seed, "noise", name).standard_normal()) if spec.noise else 0.0
    mean = mean_score(spec, worth + noise, worst, best)
    below = math.floor(mean)
    above = mean - below
    up = above >= 0.5 if spec.temperature0 else seeds.uniform(spec.seed, "score", name) < above
    number = below + int(up)
    if body.get("logprobs") is True:
        masses = [(str(value), mass) for value, mass in ((below, 1.0 - above), (below + 1, above)) if mass > 0]
        # A model whose tokenizer has 10 as one token lists it, however unlikely.
        masses += [("10", 1e-9)] if max(worst, best) >= 10 and all(token != "10" for token, _ in masses) else []
        return Said(str(number), _logprobs(masses))
    return Said(_reply_text(body, "score", number, f"It deserves {number}.", f"[[{number}]]"))


def _choice(spec: PlantedSpec, body: Mapping[str, Any], name: str, odds: Sequence[float]) -> Said:
    if is_unscored(spec, name):
        return _no_verdict(body)
    stream = seeds.rng(spec.seed, "noise", name)
    # The difference of two slots' noises has the stated standard deviation, as in a pair.
    noises = stream.standard_normal(len(odds)) * spec.noise / math.sqrt(2.0) if spec.noise else [0.0] * len(odds)
    values = [value + float(noise) for value, noise in zip(odds, noises, strict=True)]
    values[0] += spec.position
    most = max(values)
    weights = [math.exp(value - most) for value in values]
    shares = [weight / sum(weights) for weight in weights]
    coin, slot = seeds.uniform(spec.seed, "verdict", name), 0
    if spec.temperature0:
        slot = shares.index(max(shares))
    else:
        while slot < len(shares) - 1 and coin >= sum(shares[: slot + 1]):
            slot += 1
    letter = _LETTERS[slot]
    if body.get("logprobs") is True:
        return Said(letter, _logprobs([(_LETTERS[n], share) for n, share in enumerate(shares) if share > 0]))
    return Said(_reply_text(body, "verdict", letter, f"Answer {letter} is the best.", f"[[{letter}]]"))


def _reply_text(body: Mapping[str, Any], key: str, value: object, sentence: str, mark: str) -> str:
    """The reply as text that ends in ``mark``, or as the JSON that the request's schema asks for."""
    schema = schema_of(body)
    if schema is None:
        return f"{sentence} {mark}"
    return json.dumps({**{name: sentence for name in properties_of(schema) if name != key}, key: value})


def _logprobs(masses: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The tokens with their log-probabilities, scaled to leave room for the tokens that are no verdict, which follow."""
    verdicts = [(token, math.log(mass * _VERDICT_MASS)) for token, mass in masses]
    return verdicts + [(token, math.log(mass)) for token, mass in _FILLER]


def is_unscored(spec: PlantedSpec, name: str) -> bool:
    """Whether the call ``name`` is among the share ``spec.unscored`` that gets no verdict."""
    return seeds.uniform(spec.seed, "unscored", name) < spec.unscored


def _no_verdict(body: Mapping[str, Any]) -> Said:
    if body.get("logprobs") is True:
        return Said("I", [(token, math.log(mass)) for token, mass in NO_VERDICT_TOKENS])
    return Said(NO_VERDICT)
