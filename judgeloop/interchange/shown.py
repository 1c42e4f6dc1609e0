"""The question and answers in a judge's recorded prompt, cut out at the tool's delimiters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The strings before the question and around the two answers in one tool's prompt template."""

    question: str
    first: str
    between: str
    last: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """The question, and the answers in the first and second slot, as one prompt showed them."""

    question: str
    first: str
    second: str

    def swapped(self) -> Shown:
        """The same texts with the slots exchanged."""
        return Shown(self.question, self.second, self.first)


def shown(prompt: object, delimiters: Delimiters) -> Shown | None:
    """The texts of a prompt; None where it is of another template, or an answer itself contains a delimiter."""
    if not isinstance(prompt, str):
        return None
    before, start, after_first = prompt.partition(delimiters.first)
    answers = after_first.split(delimiters.between)
    if not start or len(answers) != 2 or delimiters.first in after_first:
        return None
    second, end, after = answers[1].rpartition(delimiters.last)
    if not end or after.strip() or delimiters.last in second:
        return None
    question = before
    if delimiters.question:
        _, start, question = before.partition(delimiters.question)
        if not start:
            return None
    if delimiters.reference:
        question = question.split(delimiters.reference, 1)[0]
    return Shown(question.strip("\n"), answers[0], second)


def of_both_orders(forward: Shown | None, backward: Shown | None) -> Shown | None:
    """The texts of a pair's two prompts, in the order of ``forward``; None where they disagree or neither is readable."""
    if forward is None or backward is None:
        return forward or (backward and backward.swapped())
    return forward if forward == backward.swapped() else None
