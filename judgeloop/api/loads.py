"""How many calls and tokens something will take, and what that costs: estimates with their range, for plans.

Prompt tokens are known only to the model's tokenizer. Here they are estimated from characters and said to be estimates,
unless a recorded run's replies say what was counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from judgeloop.experiment.blocks import Endpoint
from judgeloop.records import prompt_text
from judgeloop.text.templates import Mode

# Characters of Latin text a token: of usual tokenizers, English prose has 4 to 4.5, code and other languages fewer.
_LATIN = (5.0, 4.0, 3.0)
# Tokens a character of other scripts.
_OTHER = (0.4, 0.8, 1.5)
# What a chat template adds to a call: role marks, often a system message of its own.
_TEMPLATE = (4.0, 12.0, 60.0)


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known: the lowest and highest to reckon with, and what is likely."""

    low: float
    likely: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: float) -> Range:
        """The range of ``factor`` (0 or more) such numbers."""
        return Range(self.low * factor, self.likely * factor, self.high * factor)

    def at_most(self, most: float) -> Range:
        """None of the three above ``most``."""
        return Range(min(self.low, most), min(self.likely, most), min(self.high, most))


NOTHING = Range(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Load:
    """What one kind of call takes in all: ``prompt`` and ``completion`` are tokens of all ``calls`` together.

    ``cost`` in US dollars by the endpoint's price, None where none is stated. ``basis``: how tokens are known.
    """

    what: str
    endpoint: str
    calls: int
    prompt: Range
    completion: Range
    cost: Range | None
    basis: str = "estimated from characters"


def text_tokens(text: str) -> Range:
    """Tokens of a text, guessed from its characters: 3 to 5 Latin characters a token, other scripts by the character."""
    latin = sum(letter < "\u0250" for letter in text)
    other = len(text) - latin
    return Range(*(latin / per + other * each for per, each in zip(_LATIN, _OTHER, strict=True)))


def prompt_tokens(body: Mapping[str, Any]) -> Range:
    """Prompt tokens of a chat request, its template's own included."""
    contents = (prompt_text(str(message.get("content") or "")) for message in body["messages"])
    return sum((text_tokens(content) for content in contents), Range(*_TEMPLATE))


def verdict_tokens(mode: Mode | str, *, reasons: bool, longest: int) -> Range:
    """Completion tokens of one judgment: one in logprob mode; else the verdict alone, or a paragraph before it. A model
    that thinks first may use all that it is given: ``longest``."""
    if mode == "logprob":
        return Range(1.0, 1.0, 1.0)
    return (Range(30.0, 150.0, longest) if reasons else Range(3.0, 8.0, longest)).at_most(longest)


def load_of(
    what: str, name: str, endpoint: Endpoint, bodies: Iterable[Mapping[str, Any]], completion: Range
) -> Load:  # fmt: skip
    """The load of these request bodies; ``completion`` is of one call. ``name`` is the endpoint's."""
    calls, prompt = 0, NOTHING
    for body in bodies:
        calls, prompt = calls + 1, prompt + prompt_tokens(body)
    return priced(Load(what, name, calls, prompt, completion.times(calls), None), endpoint)


def scaled(load: Load, calls: int, endpoint: Endpoint) -> Load:
    """The load of ``calls`` such calls."""
    factor = calls / load.calls if load.calls else 0.0
    many = replace(load, calls=calls, prompt=load.prompt.times(factor), completion=load.completion.times(factor))
    return priced(many, endpoint)


def priced(load: Load, endpoint: Endpoint) -> Load:
    """The load with its cost by the endpoint's price. A price of 0 and 0 is none: nothing is guessed."""
    price = endpoint.price
    if not (price.input or price.output):
        return replace(load, cost=None)
    return replace(load, cost=load.prompt.times(price.input / 1e6) + load.completion.times(price.output / 1e6))


def total_cost(loads: Iterable[Load]) -> Range | None:
    """The summed cost; None where a load that has calls has no price."""
    some = [load for load in loads if load.calls]
    if any(load.cost is None for load in some):
        return None
    return sum((load.cost for load in some if load.cost is not None), NOTHING)
