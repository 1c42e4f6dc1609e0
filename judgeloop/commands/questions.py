"""What an audit asks, and the asking: every pair in both orders, every text against its edits; the replies as tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

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

PREFIX = "audit/judge"
TRIAL_PREFIX = f"{PREFIX}/trial"

MatchupShown = tuple[Item, list[Presentation]]
"""An item, and presentations of one of its matchups."""
Judged = Callable[[str, int, int], None]
"""Called with (judge, judgments, how many of them are unscored) whenever some have been read."""

_DEFAULT_LANGUAGE = "en"
PAIR_COLUMNS = ("gold", "gold_2", "model_a", "model_b")

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Questions:
    """The pairs that every judge is shown, each in both orders, ``repeats`` times. ``rows``: pair_id → the file's row."""

    items: Mapping[str, Item]
    matchups: tuple[Matchup, ...]
    rows: Mapping[str, Pair]
    repeats: int = 1

    def shown(self) -> list[MatchupShown]:
        """Every presentation, a matchup at a time."""
        return [(self.items[matchup.item_id], presentations([matchup], self.repeats)) for matchup in self.matchups]

    def texts(self) -> list[Candidate]:
        """The distinct texts, in the file's order."""
        return [text for _, _, text in places(self.matchups)]

    def shards(self, probing: ProbeQuestions, size: int) -> Iterator[tuple[Questions, ProbeQuestions]]:
        """The questions of every ``size`` items, in their order, with the probes of their texts."""
        number = {item_id: place // size for place, item_id in enumerate(self.items)}
        matchups = _grouped((number[matchup.item_id], matchup) for matchup in self.matchups)
        probes = {
            judge: _grouped((number[pair.matchup.item_id], pair) for pair in pairs)
            for judge, pairs in probing.pairs.items()
        }
        for shard, own in matchups.items():
            items = {matchup.item_id: self.items[matchup.item_id] for matchup in own}
            rows = {matchup.pair_id: self.rows[matchup.pair_id] for matchup in own}
            asked = Questions(items, tuple(own), rows, self.repeats)
            yield asked, ProbeQuestions({judge: pairs.get(shard, []) for judge, pairs in probes.items()})

    def in_order(self, shards: Sequence[Sequence[Answer]], probes: Sequence[ProbePair], size: int) -> list[Answer]:
        """What stands beside each matchup, then beside each of a judge's probe pairs, from the same by shards of ``size`` items."""
        number = {item_id: place // size for place, item_id in enumerate(self.items)}
        streams = [iter(shard) for shard in shards]
        items = [*(matchup.item_id for matchup in self.matchups), *(pair.matchup.item_id for pair in probes)]
        return [next(streams[number[item_id]]) for item_id in items]

    @property
    def calls(self) -> int:
        """Calls that these take of one judge."""
        return len(self.matchups) * len(ORDERS) * self.repeats


@dataclass(frozen=True)
class ProbeQuestions:
    """Every judge's probe pairs, by its name, and how many texts could be edited: (probe, dose) → (edited, texts)."""

    pairs: Mapping[str, Sequence[ProbePair]] = field(default_factory=dict)
    edited: Mapping[tuple[str, float | None], tuple[int, int]] = field(default_factory=dict)

    def of(self, judge: str) -> Sequence[ProbePair]:
        """A judge's probe pairs; judges share all but the edits that name them."""
        return self.pairs.get(judge, ())

    def shown(self, judge: str, items: Mapping[str, Item]) -> list[MatchupShown]:
        """Every presentation of a judge's probe pairs, once in each order."""
        return [(items[probe.matchup.item_id], presentations([probe.matchup])) for probe in self.of(judge)]

    def texts(self) -> list[Candidate]:
        """The distinct edits."""
        edits = [probe.matchup.b for probes in self.pairs.values() for probe in probes]
        return list({(edit.item_id, edit.candidate_id): edit for edit in edits}.values())

    def calls(self, judge: str) -> int:
        """Calls that a judge's probe pairs take."""
        return len(self.of(judge)) * len(ORDERS)


def _grouped(rows: Iterable[tuple[int, Question]]) -> dict[int, list[Question]]:
    """Number → its rows, by the numbers."""
    groups: dict[int, list[Question]] = {}
    for number, question in rows:
        groups.setdefault(number, []).append(question)
    return dict(sorted(groups.items()))


class TextNames:
    """A name for every text of a file: the file's own, else t1, t2, … by the distinct texts of its item."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], tuple[str, str]] = {}
        self._numbered: dict[str, dict[str, str]] = {}

    def candidate(self, item_id: str, name: str, text: str, *, where: str, field: str) -> Candidate:
        """The text as a candidate; ``name`` is empty where the file gives none. Raises InvalidInput with ``where`` and
        ``field`` of the row where the name stands for another text of the item already."""
        if not name:
            numbered = self._numbered.setdefault(item_id, {})
            name = numbered.setdefault(text, f"t{len(numbered) + 1}")
        earlier, earlier_where = self._texts.setdefault((item_id, name), (text, where))
        if earlier != text:
            raise InvalidInput(
                f"{where}: {field}: {name!r} names another text of item {item_id!r} at {earlier_where}; give every text an id of its own"
            )
        return Candidate(item_id, name, text)


def questions_of(pairs: Mapping[str, Pair], repeats: int = 1) -> Questions:
    """The pairs of a file (``interchange.read_pairs``) as matchups.

    Raises InvalidInput with the row where one name stands for two texts, where golds are words and numbers mixed, or where
    a language is no tag.
    """
    names = TextNames()
    items: dict[str, Item] = {}
    matchups = []
    _check_gold(pairs.values())
    for pair in pairs.values():
        language = _language(pair)
        item = Item(pair.item_id, str(pair.values["prompt"]), str(pair.values["category"]), language=language)
        items.setdefault(pair.item_id, item)
        a, b = (
            names.candidate(
                pair.item_id, str(pair.values[f"candidate_{side}"]), str(pair.values[f"text_{side}"]),
                where=pair.where, field=f"candidate_{side}",
            )
            for side in "ab"
        )  # fmt: skip
        matchups.append(Matchup(pair.item_id, pair.pair_id, a, b))
    return Questions(items, tuple(matchups), pairs, repeats)


def _check_gold(pairs: Iterable[Pair]) -> None:
    """Raises InvalidInput where some golds are numbers and others words."""
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
        return _DEFAULT_LANGUAGE
    if not isinstance(tag, str) or not tag.replace("-", "").replace("_", "").isalnum():
        raise InvalidInput(f"{pair.where}: language: must be a language tag such as en or de-AT, not {tag!r:.60}")
    return tag


def rule_probes(
    questions: Questions,
    probes: Sequence[str],
    judges: Mapping[str, str],
    *,
    seed: int,
    watch: Callable[[int, int], None] = lambda *_: None,
) -> ProbeQuestions:
    """Every distinct text against its edits by rule. ``judges``: name → the model's own name, for edits that name it.

    A text that stands in several pairs is edited once, in the first of them. ``watch`` is called with (pairs done, of how
    many).
    """
    shared = [name for name in probes if not PROBES[name].per_judge]
    own = [name for name in probes if PROBES[name].per_judge]
    edits: dict[str, list[ProbePair]] = {judge: [] for judge in judges}
    for done, matchup in enumerate(_with_new_texts(questions.matchups)):
        watch(done, len(questions.matchups))
        language = questions.items[matchup.item_id].language
        common = rule_pairs(matchup, shared, seed=seed, language=language)
        for judge, model in judges.items():
            named = rule_pairs(matchup, own, seed=seed, language=language, judge_name=model) if own else []
            edits[judge] += [*common, *named]
    pairs = {judge: _distinct(edits_of_judge) for judge, edits_of_judge in edits.items()}
    return ProbeQuestions(pairs, edits_counted(pairs, probes, len(questions.texts())))


def _with_new_texts(matchups: Sequence[Matchup]) -> Iterable[Matchup]:
    """The matchups that show a text which none before them shows."""
    earlier: set[tuple[str, str]] = set()
    for matchup in matchups:
        names = {(text.item_id, text.candidate_id) for text in (matchup.a, matchup.b)}
        if not names <= earlier:
            earlier |= names
            yield matchup


def _distinct(pairs: Iterable[ProbePair]) -> list[ProbePair]:
    """An edit of a text once, however many pairs show that text."""
    by_edit: dict[tuple[str, str], ProbePair] = {}
    for pair in pairs:
        by_edit.setdefault((pair.matchup.item_id, pair.matchup.b.candidate_id), pair)
    return list(by_edit.values())


def edits_counted(
    pairs: Mapping[str, Sequence[ProbePair]], probes: Sequence[str], texts: int
) -> dict[tuple[str, float | None], tuple[int, int]]:
    """(probe, dose) → (texts that it could edit, texts), of the first judge: the others are shown the same."""
    counts = {(name, dose): 0 for name in probes for dose in (PROBES[name].doses or (None,))}
    for pair in next(iter(pairs.values()), ()):
        counts[pair.probe, pair.dose] += 1
    return {key: (count, texts) for key, count in counts.items()}


# -- edits that a model writes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Editor:
    """The model that writes the edits that no rule can, and the templates that ask for them, by probe."""

    endpoint: str
    settings: Endpoint
    templates: Mapping[str, Template]


def places(matchups: Sequence[Matchup]) -> list[tuple[Matchup, str, Candidate]]:
    """(matchup, side, text) of every distinct text, where it stands first."""
    first: dict[tuple[str, str], tuple[Matchup, str, Candidate]] = {}
    for matchup in matchups:
        for side, text in (("a", matchup.a), ("b", matchup.b)):
            first.setdefault((text.item_id, text.candidate_id), (matchup, side, text))
    return list(first.values())


def model_edits(questions: Questions, editor: Editor) -> list[tuple[Matchup, str, Candidate, str, float | None]]:
    """(matchup, side, text, probe, dose) of every edit that a model is asked to write, a call each."""
    return [(*place, name, dose) for place in places(questions.matchups) for name in editor.templates
            for dose in PROBES[name].doses or (None,)]  # fmt: skip


async def model_probes(
    questions: Questions, probing: ProbeQuestions, editor: Editor, client: Client
) -> tuple[ProbeQuestions, dict[str, dict[str, int]]]:
    """``probing`` with the edits that a model writes, and probe → reason → how many replies were not used for it. Raises
    what the client raises."""

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

    replies = await each(model_edits(questions, editor), lambda edit: write(*edit), editor.settings.concurrency)
    written = [pair for pair, _, _ in replies if pair is not None]
    refused = counts_of((name, reason) for _, name, reason in replies if reason)
    pairs = {judge: [*by_rule, *written] for judge, by_rule in probing.pairs.items()}
    edited = {**probing.edited, **edits_counted({"": written}, tuple(editor.templates), len(questions.texts()))}
    return ProbeQuestions(pairs, edited), refused


def counts_of(rows: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """name → reason → how often that pair occurs, both in the order of their first row."""
    counts: dict[str, dict[str, int]] = {}
    for name, reason in rows:
        of_name = counts.setdefault(name, {})
        of_name[reason] = of_name.get(reason, 0) + 1
    return counts


# -- the asking --------------------------------------------------------------------------------------------------------


async def ask(
    judges: Sequence[ModelJudge | RewardJudge],
    questions: Questions,
    probing: ProbeQuestions,
    judged: Judged = lambda *_: None,
) -> VerdictLog:
    """Ask every judge everything, all judges at the same time. Raises what the client raises."""
    return verdict_log(await ask_judges(judges, questions, probing, judged), questions, probing)


async def ask_judges(
    judges: Sequence[ModelJudge | RewardJudge],
    questions: Questions,
    probing: ProbeQuestions,
    judged: Judged = lambda *_: None,
) -> dict[str, list[list[Judgment]]]:
    """Judge → its judgments of each matchup, then of each probe pair; a list a matchup."""
    async with asyncio.TaskGroup() as tasks:
        running = {
            judge.name: tasks.create_task(_ask_judge(judge, questions, probing, judged), name=f"audit of {judge.name}")
            for judge in judges
        }
    return {name: task.result() for name, task in running.items()}


def verdict_log(
    judged: Mapping[str, Sequence[Sequence[Judgment]]], questions: Questions, probing: ProbeQuestions
) -> VerdictLog:  # fmt: skip
    """The log of what ``ask_judges`` gives.

    It has the pairs' judgments (panel ``pairs``) judge by judge, then the probes' (panel ``probe``); ``generation``,
    ``arm`` and ``replicate`` are empty. Its texts are the file's, then the edits.
    """
    results = [_frames(judge, batches, questions, probing) for judge, batches in judged.items()]
    frames = [*(pairs for pairs, _ in results), *(probes for _, probes in results)]
    texts = [*questions.texts(), *probing.texts()]
    items = [(item.item_id, str(item.prompt), item.category, item.language) for item in questions.items.values()]
    return VerdictLog(
        judgments=_completed(pd.concat([frame for frame in frames if len(frame)], ignore_index=True)),
        texts=pd.DataFrame([(t.item_id, t.candidate_id, t.text) for t in texts], columns=["item_id", "candidate_id", "text"]),
        items=pd.DataFrame(items, columns=["item_id", "prompt", "category", "language"]),
    )  # fmt: skip


async def _ask_judge(
    judge: ModelJudge | RewardJudge, questions: Questions, probing: ProbeQuestions, judged: Judged
) -> list[list[Judgment]]:
    """One judge's judgments of the pairs, then of the probe pairs."""
    shown = shown_to(judge.name, questions, probing)
    prefix = f"{PREFIX}/{quoted(judge.name)}"

    async def present(matchup: MatchupShown) -> list[Judgment]:
        judgments = await judge.judge(*matchup, prefix, ("audit",))
        judged(judge.name, len(judgments), sum(judgment.verdict.slot == "unscored" for judgment in judgments))
        return judgments

    return await each(shown, present, judge.endpoint.concurrency)


def shown_to(judge: str, questions: Questions, probing: ProbeQuestions) -> list[MatchupShown]:
    """All that a judge is shown, a matchup at a time: the pairs, then its probe pairs."""
    return [*questions.shown(), *probing.shown(judge, questions.items)]


def _frames(
    judge: str, batches: Sequence[Sequence[Judgment]], questions: Questions, probing: ProbeQuestions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One judge's judgments of the pairs, and of the probe pairs, as tables."""
    split = len(questions.matchups)
    pairs = _with_file_columns(_frame(batches[:split], questions.items, "pairs"), questions)
    probes = with_probes(_frame(batches[split:], questions.items, "probe"), probing.of(judge))
    return pairs, probes


async def each(
    questions: Sequence[Question], answer: Callable[[Question], Awaitable[Answer]], at_once: int
) -> list[Answer]:
    """Every question's answer, in order, with at most ``at_once`` under way: a request body is written only when it is
    about to be sent."""
    answers: list[Answer | None] = [None] * len(questions)
    waiting = iter(enumerate(questions))

    async def work() -> None:
        for number, question in waiting:
            answers[number] = await answer(question)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(at_once, len(questions))):
            tasks.create_task(work())
    return cast("list[Answer]", answers)


def _no_gold(item: Item, candidate: Candidate) -> None:  # noqa: ARG001 - the signature that judgments_frame takes
    """Gold stands in the pairs file; between a text and its edit there is none."""
    return


def _frame(batches: Iterable[Sequence[Judgment]], items: Mapping[str, Item], panel: Panel) -> pd.DataFrame:
    judgments = [judgment for batch in batches for judgment in batch]
    return judgments_frame(judgments, items, _no_gold, panel=panel, generation=0)


def _with_file_columns(frame: pd.DataFrame, questions: Questions) -> pd.DataFrame:
    """The judgments with the file's columns on their pairs: category, gold, models, and those of the user's own."""
    pairs = [questions.rows[pair_id] for pair_id in frame["pair_id"]]
    frame = frame.assign(category=[str(pair.values["category"]) for pair in pairs])
    for name in PAIR_COLUMNS:
        values = [str(pair.values[name]) for pair in pairs]
        if name == "gold" or any(values):
            frame[name] = values
    taken = {*frame.columns, *PROBE_COLUMNS}
    for name in dict.fromkeys(
        name for pair in questions.rows.values() for name in pair.other_columns if name not in taken
    ):
        frame[name] = _column([pair.other_columns.get(name) for pair in pairs])
    return frame


def _column(cells: list[object]) -> pd.Series[float] | pd.Series[str]:
    """A column of the file as numbers where all its cells are numbers, else as text."""
    filled = [cell for cell in cells if cell is not None]
    if filled and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in filled):
        return pd.Series(cells, dtype="float64")
    return pd.Series(["" if cell is None else str(cell) for cell in cells], dtype="str")


def _completed(frame: pd.DataFrame) -> pd.DataFrame:
    """The judgments with an empty generation, and empty text in columns that only pairs or only probes have."""
    frame = frame.assign(generation=pd.array([pd.NA] * len(frame), dtype="Int64"))
    for name in frame.columns.difference(["replicate", "generation", "p_first", "dose", "dose_reached"]):
        if frame[name].dtype == object or pd.api.types.is_string_dtype(frame[name]):
            frame[name] = frame[name].map(lambda value: "" if pd.isna(value) else value)
    return frame


# -- probes that could edit no text ------------------------------------------------------------------------------------


def unapplied(
    questions: Questions, probing: ProbeQuestions, probes: Sequence[str], judges: Iterable[str]
) -> pd.DataFrame:
    """Estimates, a row ``undefined`` a judge for every probe (its primary term), or one of its doses, that could edit none
    of the texts: the report then says why there is no number."""
    counted = {(name, dose): probing.edited.get((name, dose), (0, 0))[0]
               for name in probes for dose in PROBES[name].doses or (None,)}  # fmt: skip
    empty: list[tuple[str, str, str]] = []
    for name in probes:
        doses = [dose for probe, dose in counted if probe == name]
        if not any(counted[name, dose] for dose in doses):
            empty.append((name, "", f"applies to no text: {_why_unapplied(questions, name)}"))
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


def _why_unapplied(questions: Questions, name: str) -> str:
    """The reasons for which a probe's edits were refused, over all texts."""
    probe = PROBES[name]
    if probe.kind == "model":
        return "the model wrote no edit that could be used"
    reasons = {probe.refuses(text.text, questions.items[text.item_id].language) for text in questions.texts()}
    return "; ".join(sorted(reason or "it has nothing to edit there" for reason in reasons)) or "there is none"
