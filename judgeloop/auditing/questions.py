"""What an audit asks: the pairs of a file as matchups, and every text against its own edits. Nothing is asked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from judgeloop.errors import InvalidInput
from judgeloop.interchange.pairs import Pair
from judgeloop.interchange.rows import is_number
from judgeloop.judging.edits import PROBES
from judgeloop.judging.pairing import presentations
from judgeloop.judging.probes import ProbePair, rule_pairs
from judgeloop.records import ORDERS, Candidate, Item, Matchup, Presentation

Shown = tuple[Item, list[Presentation]]
"""An item, and presentations of one of its matchups."""

_NO_WORDS = "en"


@dataclass(frozen=True)
class Questions:
    """The pairs that every judge is shown, each in both orders, ``repeats`` times.

    ``known``: what the file says of a pair, by pair_id. ``languages``: of an item's texts, by item_id.
    """

    items: Mapping[str, Item]
    matchups: tuple[Matchup, ...]
    known: Mapping[str, Pair]
    repeats: int = 1

    def shown(self) -> list[Shown]:
        """Every presentation, a matchup at a time."""
        return [(self.items[one.item_id], presentations([one], self.repeats)) for one in self.matchups]

    def texts(self) -> list[Candidate]:
        """The distinct texts, in the file's order."""
        found = {(text.item_id, text.candidate_id): text for one in self.matchups for text in (one.a, one.b)}
        return list(found.values())

    @property
    def calls(self) -> int:
        """Calls that these take of one judge."""
        return len(self.matchups) * len(ORDERS) * self.repeats


@dataclass(frozen=True)
class Probing:
    """The probe pairs of every judge, by its name, and what could be edited: (probe, dose) → (edited, texts)."""

    pairs: Mapping[str, Sequence[ProbePair]] = field(default_factory=dict)
    edited: Mapping[tuple[str, float | None], tuple[int, int]] = field(default_factory=dict)

    def of(self, judge: str) -> Sequence[ProbePair]:
        """A judge's probe pairs; judges share all but the edits that name them."""
        return self.pairs.get(judge, ())

    def shown(self, judge: str, items: Mapping[str, Item]) -> list[Shown]:
        """Every presentation of a judge's probe pairs, once in each order."""
        return [(items[one.matchup.item_id], presentations([one.matchup])) for one in self.of(judge)]

    def texts(self) -> list[Candidate]:
        """The distinct edits."""
        found = {
            (p.matchup.item_id, p.matchup.b.candidate_id): p.matchup.b for some in self.pairs.values() for p in some
        }
        return list(found.values())

    def calls(self, judge: str) -> int:
        """Calls that a judge's probe pairs take."""
        return len(self.of(judge)) * len(ORDERS)


def questions(pairs: Mapping[str, Pair], repeats: int = 1) -> Questions:
    """The pairs of a file (``interchange.read_pairs``) as matchups.

    A text bears the name that the file gives it, else one a distinct text of its item (t1, t2, …). Raises InvalidInput with
    the row where one name stands for two texts, where golds are words and numbers mixed, or a language is no tag.
    """
    named: dict[tuple[str, str], tuple[str, str]] = {}
    counted: dict[str, dict[str, str]] = {}
    items: dict[str, Item] = {}
    matchups = []
    _check_gold(pairs.values())
    for pair in pairs.values():
        language = _language(pair)
        item = Item(pair.item_id, str(pair.values["prompt"]), str(pair.values["category"]), language=language)
        items.setdefault(pair.item_id, item)
        sides = []
        for side in "ab":
            text, name = str(pair.values[f"text_{side}"]), str(pair.values[f"candidate_{side}"])
            if not name:
                texts = counted.setdefault(pair.item_id, {})
                name = texts.setdefault(text, f"t{len(texts) + 1}")
            known, where = named.setdefault((pair.item_id, name), (text, pair.where))
            if known != text:
                raise InvalidInput(
                    f"{pair.where}: candidate_{side}: {name!r} names another text of item {pair.item_id!r} at {where}; one text an id"
                )
            sides.append(Candidate(pair.item_id, name, text))
        matchups.append(Matchup(pair.item_id, pair.pair_id, sides[0], sides[1]))
    return Questions(items, tuple(matchups), pairs, repeats)


def _check_gold(pairs: Iterable[Pair]) -> None:
    first: tuple[bool, str] | None = None
    for pair in pairs:
        for column in ("gold", "gold_2"):
            gold = str(pair.values[column])
            if not gold:
                continue
            first = first or (is_number(gold), f"{column} at {pair.where}")
            if is_number(gold) != first[0]:
                kind = "a number" if first[0] else "a word"
                raise InvalidInput(
                    f"{pair.where}: {column}: {gold!r}, but {first[1]} is {kind}; gold is words (a, b, tie) or numbers throughout"
                )


def _language(pair: Pair) -> str:
    """The language of a pair's texts, from a column ``language``; English where there is none."""
    tag = pair.kept.get("language")
    if tag in (None, ""):
        return _NO_WORDS
    if not isinstance(tag, str) or not tag.replace("-", "").replace("_", "").isalnum():
        raise InvalidInput(f"{pair.where}: language: must be a language tag such as en or de-AT, not {tag!r:.60}")
    return tag


def rule_probes(
    asked: Questions,
    probes: Sequence[str],
    judges: Mapping[str, str],
    *,
    seed: int,
    watch: Callable[[int, int], None] = lambda *_: None,
) -> Probing:
    """Every distinct text against its edits by rule. ``judges``: name → the model's own name, for edits that name it.

    A text that stands in several pairs is edited once, in the first of them. ``watch`` is told (pairs done, of how many).
    """
    shared = [name for name in probes if not PROBES[name].per_judge]
    own = [name for name in probes if PROBES[name].per_judge]
    found: dict[str, list[ProbePair]] = {judge: [] for judge in judges}
    for done, matchup in enumerate(_once(asked.matchups)):
        watch(done, len(asked.matchups))
        language = asked.items[matchup.item_id].language
        common = rule_pairs(matchup, shared, seed=seed, language=language)
        for judge, model in judges.items():
            named = rule_pairs(matchup, own, seed=seed, language=language, judge_name=model) if own else []
            found[judge] += [*common, *named]
    kept = {judge: _distinct(pairs) for judge, pairs in found.items()}
    count = len(asked.texts())
    return Probing(kept, edits_counted(kept, probes, count))


def _once(matchups: Sequence[Matchup]) -> Iterable[Matchup]:
    """The matchups that show a text which none before them shows."""
    seen: set[tuple[str, str]] = set()
    for one in matchups:
        names = {(text.item_id, text.candidate_id) for text in (one.a, one.b)}
        if not names <= seen:
            seen |= names
            yield one


def _distinct(pairs: Iterable[ProbePair]) -> list[ProbePair]:
    """An edit of a text once, however many pairs show that text."""
    found: dict[tuple[str, str], ProbePair] = {}
    for one in pairs:
        found.setdefault((one.matchup.item_id, one.matchup.b.candidate_id), one)
    return list(found.values())


def edits_counted(
    pairs: Mapping[str, Sequence[ProbePair]], probes: Sequence[str], texts: int
) -> dict[tuple[str, float | None], tuple[int, int]]:
    """(probe, dose) → (texts that it could edit, texts), of the first judge: the others are shown the same."""
    some = next(iter(pairs.values()), ())
    counts = {(name, dose): 0 for name in probes for dose in (PROBES[name].doses or (None,))}
    for one in some:
        counts[one.probe, one.dose] += 1
    return {key: (count, texts) for key, count in counts.items()}
