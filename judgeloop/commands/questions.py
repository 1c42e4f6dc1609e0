"""The asking: every judge is shown every pair in both orders, and every text against its edits; the replies as tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.experiment.schema import Endpoint
from judgeloop.interchange.pairs import Pair
from judgeloop.interchange.rows import is_number
from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.judging.judges import ModelJudge
from judgeloop.judging.model_edits import edit_call_id, write_edit
from judgeloop.judging.pairing import judgments_frame, presentations, quoted
from judgeloop.judging.panels import PROBE_COLUMNS, PROBES, ProbePair, probe_pair, rule_pairs, with_probes
from judgeloop.judging.reward_models import RewardJudge
from judgeloop.records import ORDERS, Candidate, Client, Item, Judgment, Matchup, Panel, Presentation
from judgeloop.stats.estimate import PROBABILITY, RowLabels, SampleCounts, estimates_frame, row
from judgeloop.stats.inference import Undefined
from judgeloop.stats.judge.probes import bias_of
from judgeloop.text.templates import Template

# What an audit asks: the pairs of a file as matchups, and every text against its own edits.

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
class ProbeQuestions:
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
    tag = pair.other_columns.get("language")
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
) -> ProbeQuestions:
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
    return ProbeQuestions(kept, edits_counted(kept, probes, count))


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


PREFIX = "audit/judge"
TRIAL_PREFIX = f"{PREFIX}/trial"

In = TypeVar("In")
Out = TypeVar("Out")
Judged = Callable[[str, int, int], None]
"""Told (judge, judgments, how many of them are unscored) whenever some have been read."""

_OF_A_PAIR = ("gold", "gold_2", "model_a", "model_b")


@dataclass(frozen=True)
class Editor:
    """Who writes the edits that no rule can, and the templates that ask for them, by probe."""

    endpoint: str
    settings: Endpoint
    templates: Mapping[str, Template]


def edits_wanted(asked: Questions, editor: Editor) -> list[tuple[Matchup, str, Candidate, str, float | None]]:
    """(matchup, side, text, probe, dose) of every edit that a model is asked to write, a call each."""
    return [(*place, name, dose) for place in places(asked.matchups) for name in editor.templates
            for dose in PROBES[name].doses or (None,)]  # fmt: skip


async def model_probes(
    asked: Questions, probing: ProbeQuestions, editor: Editor, client: Client
) -> tuple[ProbeQuestions, dict[str, dict[str, int]]]:
    """``probing`` with the edits that a model writes, and by probe how many replies were not used, and why."""

    async def write(
        matchup: Matchup, side: str, text: Candidate, name: str, dose: float | None
    ) -> tuple[ProbePair | None, str, str]:
        written = await write_edit(
            PROBES[name], text.text, client=client, endpoint=editor.endpoint, settings=editor.settings,
            template=editor.templates[name], call_id=edit_call_id(matchup.pair_id, side, name, dose), dose=dose,
        )  # fmt: skip
        if written.text is None:
            return None, name, written.reason
        return probe_pair(matchup, side, name, dose, written.text), name, ""

    found = await each(edits_wanted(asked, editor), lambda edit: write(*edit), editor.settings.concurrency)
    made = [pair for pair, _, _ in found if pair is not None]
    refused: dict[str, dict[str, int]] = {}
    for _, name, reason in found:
        if reason:
            counts = refused.setdefault(name, {})
            counts[reason] = counts.get(reason, 0) + 1
    pairs = {judge: [*some, *made] for judge, some in probing.pairs.items()}
    edited = {**probing.edited, **edits_counted({"": made}, tuple(editor.templates), len(asked.texts()))}
    return ProbeQuestions(pairs, edited), refused


def places(matchups: Sequence[Matchup]) -> list[tuple[Matchup, str, Candidate]]:
    """(matchup, side, text) of every distinct text, where it stands first."""
    found: dict[tuple[str, str], tuple[Matchup, str, Candidate]] = {}
    for one in matchups:
        for side, text in (("a", one.a), ("b", one.b)):
            found.setdefault((text.item_id, text.candidate_id), (one, side, text))
    return list(found.values())


async def ask(
    judges: Sequence[ModelJudge | RewardJudge],
    asked: Questions,
    probing: ProbeQuestions,
    judged: Judged = lambda *_: None,
) -> VerdictLog:
    """Ask every judge everything, all judges at the same time. Raises what the client raises.

    The log has the pairs' judgments (panel ``pairs``) judge by judge, then the probes' (panel ``probe``); ``generation``,
    ``arm`` and ``replicate`` are empty. Its texts are the file's, then the edits.
    """
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_by_judge(judge, asked, probing, judged), name=f"audit of {judge.name}")
            for judge in judges
        ]  # fmt: skip
    done = [task.result() for task in running]
    frames = [frame for place in (0, 1) for both in done if len(frame := both[place])]
    texts = [*asked.texts(), *probing.texts()]
    items = [(item.item_id, str(item.prompt), item.category, item.language) for item in asked.items.values()]
    return VerdictLog(
        judgments=_completed(pd.concat(frames, ignore_index=True)),
        texts=pd.DataFrame([(t.item_id, t.candidate_id, t.text) for t in texts], columns=["item_id", "candidate_id", "text"]),
        items=pd.DataFrame(items, columns=["item_id", "prompt", "category", "language"]),
    )  # fmt: skip


async def _by_judge(
    judge: ModelJudge | RewardJudge, asked: Questions, probing: ProbeQuestions, judged: Judged
) -> tuple[pd.DataFrame, pd.DataFrame]:
    probes = probing.of(judge.name)
    shown = [*asked.shown(), *probing.shown(judge.name, asked.items)]
    prefix = f"{PREFIX}/{quoted(judge.name)}"

    async def present(one: Shown) -> list[Judgment]:
        found = await judge.judge(one[0], one[1], prefix, ("audit",))
        judged(judge.name, len(found), sum(judgment.verdict.slot == "unscored" for judgment in found))
        return found

    batches = await each(shown, present, judge.endpoint.concurrency)
    split = len(asked.matchups)
    pairs = _of_pairs(_frame(_flat(batches[:split]), asked.items, "pairs"), asked)
    return pairs, with_probes(_frame(_flat(batches[split:]), asked.items, "probe"), probes)


async def each(questions: Sequence[In], answer: Callable[[In], Awaitable[Out]], at_once: int) -> list[Out]:
    """Every question's answer, in order. So many at once: request bodies are written only when they are about to be sent."""
    found: dict[int, Out] = {}
    waiting = iter(enumerate(questions))

    async def work() -> None:
        for place, question in waiting:
            found[place] = await answer(question)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(at_once, len(questions))):
            tasks.create_task(work())
    return [found[place] for place in range(len(questions))]


def _flat(batches: Iterable[Sequence[Judgment]]) -> list[Judgment]:
    return [judgment for batch in batches for judgment in batch]


def _unknown(item: Item, candidate: Candidate) -> None:  # noqa: ARG001 - as judgments_frame asks
    """Gold stands in the pairs file; between a text and its edit there is none."""
    return


def _frame(judgments: Sequence[Judgment], items: Mapping[str, Item], panel: Panel) -> pd.DataFrame:
    return judgments_frame(judgments, items, _unknown, panel=panel, generation=0)


def _of_pairs(frame: pd.DataFrame, asked: Questions) -> pd.DataFrame:
    """The judgments with what the file says of their pairs: category, gold, models, and the columns that it has besides."""
    known = [asked.known[pair_id] for pair_id in frame["pair_id"]]
    frame = frame.assign(category=[str(pair.values["category"]) for pair in known])
    for name in _OF_A_PAIR:
        values = [str(pair.values[name]) for pair in known]
        if name == "gold" or any(values):
            frame[name] = values
    taken = {*frame.columns, *PROBE_COLUMNS}
    others = dict.fromkeys(name for pair in asked.known.values() for name in pair.other_columns if name not in taken)
    for name in others:
        frame[name] = _column([pair.other_columns.get(name) for pair in known])
    return frame


def _column(cells: list[object]) -> pd.Series[float] | pd.Series[str]:
    """A column of the file as numbers where all its cells are, else as text."""
    numbers = [cell for cell in cells if cell is not None]
    if numbers and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in numbers):
        return pd.Series(cells, dtype="float64")
    return pd.Series(["" if cell is None else str(cell) for cell in cells], dtype="str")


def _completed(frame: pd.DataFrame) -> pd.DataFrame:
    """Without a generation; what only pairs or only probes have is empty in the others."""
    frame = frame.assign(generation=pd.array([pd.NA] * len(frame), dtype="Int64"))
    for name in frame.columns.difference(["replicate", "generation", "p_first", "dose", "dose_reached"]):
        if frame[name].dtype == object or pd.api.types.is_string_dtype(frame[name]):
            frame[name] = frame[name].map(lambda value: "" if pd.isna(value) else value)
    return frame


# Rows for probes that were asked for and could edit no text: a question without an answer is said, not passed over.


def unapplied(asked: Questions, probing: ProbeQuestions, probes: Sequence[str], judges: Iterable[str]) -> pd.DataFrame:
    """A row ``undefined`` a judge for every probe (its primary), or one of its doses, that could edit none of the texts."""
    counted = {(name, dose): probing.edited.get((name, dose), (0, 0))[0]
               for name in probes for dose in PROBES[name].doses or (None,)}  # fmt: skip
    empty: list[tuple[str, str, str]] = []
    for name in probes:
        doses = [dose for probe, dose in counted if probe == name]
        if not any(counted[name, dose] for dose in doses):
            empty.append((name, "", f"applies to no text: {_why(asked, name)}"))
            continue
        empty += [
            (name, f"{dose:g}", "applies to no text: this dose is out of reach")
            for dose in doses if dose is not None and not counted[name, dose]
        ]  # fmt: skip
    return estimates_frame([
        row(RowLabels(judge, panel="probe"), "position" if name == "identical" else bias_of(name), PROBES[name].term,
            Undefined(why), SampleCounts(0, 0, 0), unit=PROBABILITY, variant=variant)
        for judge in judges for name, variant, why in empty
    ])  # fmt: skip


def _why(asked: Questions, name: str) -> str:
    probe = PROBES[name]
    if probe.kind == "model":
        return "the model wrote no edit that could be used"
    texts = asked.texts()
    reasons = {probe.refuses(text.text, asked.items[text.item_id].language) for text in texts}
    return "; ".join(sorted(reason or "it has nothing to edit there" for reason in reasons)) or "there is none"
