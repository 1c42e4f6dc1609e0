"""A counterfactual probe: one edit of a text, with what it changes and what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from judgeloop.text.features import tokenize

Kind = Literal["rule", "model"]


@dataclass(frozen=True, slots=True)
class Task:
    """One text to edit. ``seed`` and ``item_id`` name the random stream, so that the same task gives the same edit."""

    text: str
    item_id: str
    seed: int
    dose: float | None
    language: str
    judge_name: str


Rule = Callable[[Task], str | None]
Check = Callable[[str, str], bool]


@dataclass(frozen=True)
class Probe:
    """One counterfactual edit.

    ``changes`` and ``keeps`` describe in a line what the edit does and what it leaves alone; ``check`` tests the latter.
    ``doses``: length ratios, empty where there are none. ``languages``: the tags it has words for; empty where it adds
    none and fits any. ``control``: an edit to which no judge should respond.
    """

    name: str
    kind: Kind
    changes: str
    keeps: str
    rule: Rule
    check: Check
    doses: tuple[float, ...] = ()
    languages: tuple[str, ...] = ()
    control: bool = False
    per_judge: bool = False
    """Whether the edit names the judge, so that each judge has its own."""

    @property
    def term(self) -> str:
        """The term of the probe's estimate."""
        return "identical_pair_excess" if self.name == "identical" else f"{self.name}_probe"

    def apply(
        self,
        text: str,
        *,
        item_id: str,
        seed: int,
        dose: float | None = None,
        language: str = "en",
        judge_name: str = "",
    ) -> str | None:
        """The edited text; None where the edit does not apply: nothing to edit, no words for that language or script, a dose out
        of reach, or an edit that fails ``check``. The same arguments give the same text.

        Raises ValueError for a dose that the probe does not have, and for a model-written probe (see ``write_edit``).
        """
        if self.kind == "model":
            raise ValueError(f"{self.name} is written by a model: ask for it with write_edit")
        self.check_dose(dose)
        if self.refuses(text, language):
            return None
        tag = base_language(language)
        edited = self.rule(Task(text, item_id, seed, dose, tag, judge_name))
        if edited is None or (edited == text and self.name != "identical") or not self.kept(text, edited):
            return None
        return edited

    def refuses(self, text: str, language: str = "en") -> str:
        """The reason, as a phrase, why this probe has no words for the text; empty where it has, or needs none."""
        tag = base_language(language)
        if self.languages and tag not in self.languages:
            return f"no words for {tag}"
        if self.languages and not in_latin_letters(text):
            return f"no words for texts whose script is not that of {tag}; give a column language"
        return ""

    def check_dose(self, dose: float | None) -> None:
        """Raises ValueError for a dose that the probe does not have, or for None where it has doses."""
        if (dose is None) == bool(self.doses) or (self.doses and dose not in self.doses):
            doses = ", ".join(f"{known_dose:g}" for known_dose in self.doses) or "none"
            raise ValueError(f"{self.name} has the doses {doses}, not {dose}")

    def kept(self, original: str, edited: str) -> bool:
        """Whether ``edited`` passes the probe's check against ``original`` (see ``keeps``)."""
        return self.check(original, edited)


def in_latin_letters(text: str) -> bool:
    """Whether half of the letters or more are Latin ones, as in every language that the edits have words for; true without
    letters. An untagged text counts as English; in a Chinese one English lines would not be a small edit."""
    if text.isascii():
        return True
    letters = [mark for mark in text if mark.isalpha()]
    foreign = [mark for mark in letters if "\u0250" <= mark < "\u1e00" or mark >= "\u1f00"]
    few = len(foreign) < 4 and max(foreign, default="") < "\u0400"  # a Greek letter or two is a formula
    return few or 2 * len(foreign) <= len(letters)


def base_language(tag: str) -> str:
    """A language tag's first part in lower case (``de-AT`` → ``de``); en where the tag is empty."""
    return tag.replace("_", "-").split("-")[0].strip().lower() or "en"


def tokens(text: str) -> int:
    """The text's length in tokens, as the features count it."""
    return len(tokenize(text.rstrip()))


def length_ratio(original: str, edited: str) -> float:
    """The dose that was reached: tokens of the edit per token of its original (1 = as long). NaN for an empty original."""
    return tokens(edited) / tokens(original) if tokens(original) else float("nan")


def words(text: str) -> list[str]:
    """The tokens that hold a letter or a digit, in order, case-folded."""
    return [token.casefold() for token in tokenize(text) if any(mark.isalnum() for mark in token)]
