"""The asking: every judge is shown every pair in both orders, and every text against its edits; the replies as tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from judgeloop.auditing.questions import Probing, Questions, Shown, edits_counted
from judgeloop.experiment.blocks import Endpoint
from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.judging.edits import PROBES
from judgeloop.judging.frames import judgments_frame
from judgeloop.judging.judges import ModelJudge
from judgeloop.judging.model_edits import edit_call_id, write_edit
from judgeloop.judging.pairing import quoted
from judgeloop.judging.probes import PROBE_COLUMNS, ProbePair, probe_pair, with_probes
from judgeloop.judging.reward_models import RewardJudge
from judgeloop.records import Candidate, Client, Item, Judgment, Matchup, Panel
from judgeloop.text.templates import Template

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
    asked: Questions, probing: Probing, editor: Editor, client: Client
) -> tuple[Probing, dict[str, dict[str, int]]]:
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
    return Probing(pairs, edited), refused


def places(matchups: Sequence[Matchup]) -> list[tuple[Matchup, str, Candidate]]:
    """(matchup, side, text) of every distinct text, where it stands first."""
    found: dict[tuple[str, str], tuple[Matchup, str, Candidate]] = {}
    for one in matchups:
        for side, text in (("a", one.a), ("b", one.b)):
            found.setdefault((text.item_id, text.candidate_id), (one, side, text))
    return list(found.values())


async def ask(
    judges: Sequence[ModelJudge | RewardJudge], asked: Questions, probing: Probing, judged: Judged = lambda *_: None
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
    judge: ModelJudge | RewardJudge, asked: Questions, probing: Probing, judged: Judged
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
    others = dict.fromkeys(name for pair in asked.known.values() for name in pair.kept if name not in taken)
    for name in others:
        frame[name] = _column([pair.kept.get(name) for pair in known])
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
