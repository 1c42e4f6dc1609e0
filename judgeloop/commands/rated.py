"""Audits of judges that choose from lists: every set of k texts in all k cyclic rotations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pandas as pd

from judgeloop.analysis import Analysis
from judgeloop.commands.questions import Judged, Questions, each, places
from judgeloop.errors import InvalidInput
from judgeloop.experiment.schema import Endpoint, ModelJudgeSpec
from judgeloop.interchange.pairs import TextSet
from judgeloop.judging.judges import (
    CHOICE_TRIAL_PREFIX,
    SCORE_TRIAL_PREFIX,
    ChoiceJudge,
    ChoiceTrial,
    ScoreJudge,
    ScoreTrial,
    rotated,
    settle_mode,
)
from judgeloop.judging.pairing import quoted
from judgeloop.records import JUDGMENT_COLUMNS, Candidate, Client, Item
from judgeloop.stats.judge.listwise import choice_frame
from judgeloop.stats.judge.pointwise import score_frame
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.text.features import features_frame
from judgeloop.text.templates import Mode, Scale, Template

# What the audits that score texts or choose from lists share: the replies as rows, and the tables of texts and items.

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class RatedReplies:
    """The replies, a row a call, and by judge the mode in which they were read."""

    rows: pd.DataFrame
    modes: Mapping[str, str]


class RatingForm(Protocol):
    """An audit that is not of pairs alone: what it asks and what it makes of the answers."""

    @property
    def mode(self) -> str: ...

    @property
    def against(self) -> bool:
        """Whether the pairs are asked too."""
        ...

    @property
    def calls(self) -> int: ...

    def identity(self) -> dict[str, Any]: ...

    def record(self) -> dict[str, Any]: ...

    async def ask(
        self, judges: Mapping[str, ModelJudgeSpec], endpoints: Mapping[str, Endpoint], client: Client, seed: int, judged: Judged
    ) -> RatedReplies: ...  # fmt: skip

    def asks(self) -> dict[str, Any]:
        """How much it asks, for the report's head."""
        ...

    def texts(self) -> pd.DataFrame: ...

    def items(self) -> pd.DataFrame: ...

    def estimates(self, rated: RatedReplies, texts: pd.DataFrame, judgments: pd.DataFrame | None) -> pd.DataFrame: ...

    def tables(self, rated: RatedReplies) -> dict[str, pd.DataFrame]: ...


async def ask_all(
    judges: Sequence[str], ask: Callable[[str], Coroutine[Any, Any, tuple[Mode, list[Row]]]]
) -> tuple[dict[str, Mode], list[Row]]:
    """Every judge's mode, and the rows of all judges; all are asked at the same time. Raises what ``ask`` raises."""
    async with asyncio.TaskGroup() as tasks:
        running = {name: tasks.create_task(ask(name), name=f"audit of {name}") for name in judges}
    done = {name: task.result() for name, task in running.items()}
    return {name: mode for name, (mode, _) in done.items()}, [row for _, rows in done.values() for row in rows]


def analyze_rated(
    form: RatingForm,
    rated: RatedReplies,
    base: Analysis | None,
    *,
    name: str,
    identity: str,
    sources: Mapping[str, Any],
) -> Analysis:
    """The analysis of a form's replies. ``base``: that of the same judges' verdicts on the pairs, where they were asked."""
    if base is None:
        judgments = pd.DataFrame(columns=list(JUDGMENT_COLUMNS))
        texts = form.texts()
        found = form.estimates(rated, texts, None)
        return Analysis(name, identity, dict(sources), judgments, texts, form.items(), found, _facts(form, rated))
    found = form.estimates(rated, base.candidates, base.judgments)
    both = adjust(with_judge_families(pd.concat([base.estimates, found], ignore_index=True)))
    facts = {**base.facts, **_facts(form, rated)}
    return Analysis(name, identity, dict(sources), base.judgments, base.candidates, base.items, both, facts)


def _facts(form: RatingForm, rated: RatedReplies) -> dict[str, Any]:
    """What the report says of an audit besides its estimates: how much was asked, how replies were read, and which were not."""
    lost: dict[str, dict[str, int]] = {}
    for judge, reason in zip(rated.rows["judge"], rated.rows["reason"], strict=True):
        if reason:
            counts = lost.setdefault(judge, {})
            counts[reason] = counts.get(reason, 0) + 1
    asked = {**form.asks(), "calls": len(rated.rows), "unscored": lost}
    return {"mode": form.mode, "asked": asked, f"{form.mode}_modes": dict(rated.modes)}


def texts_frame(texts: Sequence[Candidate]) -> pd.DataFrame:
    """The table candidates: generation, arm and replicate are empty."""
    nothing = pd.array([pd.NA] * len(texts), dtype="Int64")
    named = pd.DataFrame(
        {"replicate": nothing, "arm": "", "generation": nothing, "item_id": [one.item_id for one in texts],
         "candidate_id": [one.candidate_id for one in texts], "text": [one.text for one in texts]}
    )  # fmt: skip
    return pd.concat([named, features_frame(named["text"].tolist())], axis=1)


def items_frame(rows: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """The table items, from (item_id, prompt, category)."""
    return pd.DataFrame(rows, columns=["item_id", "prompt", "category"])


@dataclass(frozen=True)
class Listwise:
    """Every set in all rotations, ``repeats`` times. ``candidates``: the sets' texts under their names, by set_id."""

    sets: Mapping[str, TextSet]
    candidates: Mapping[str, tuple[Candidate, ...]]
    template: Template
    repeats: int = 1

    mode = "listwise"
    against = False

    @property
    def slots(self) -> int:
        """k: every set's number of texts."""
        return len(next(iter(self.sets.values())).texts)

    @property
    def calls(self) -> int:
        """Calls that it takes of one judge."""
        return len(self.sets) * self.slots * self.repeats

    def identity(self) -> dict[str, Any]:
        """What of it the answers may depend on."""
        rows = [
            [one.item_id, one.set_id, one.prompt, one.category, list(one.texts), list(one.names), list(one.models), one.gold,
             {name: str(cell) for name, cell in one.other_columns.items()}]
            for one in self.sets.values()
        ]  # fmt: skip
        return {"mode": self.mode, "template": self.template.sha256, "repeats": self.repeats, "sets": rows}

    def record(self) -> dict[str, Any]:
        """For experiment.yaml."""
        return {"mode": self.mode, "prompt": self.template.name}

    async def ask(
        self, judges: Mapping[str, ModelJudgeSpec], endpoints: Mapping[str, Endpoint], client: Client, seed: int, judged: Judged
    ) -> RatedReplies:  # fmt: skip
        """Ask every judge, all at the same time. Raises what the client raises."""

        async def ask(name: str) -> tuple[Mode, list[dict[str, Any]]]:
            spec, endpoint = judges[name], endpoints[judges[name].endpoint]
            stem = f"{CHOICE_TRIAL_PREFIX}/{quoted(name)}"
            mode = await settle_mode(spec, ChoiceTrial(self.template), endpoint=endpoint, client=client, stem=stem)
            judge = ChoiceJudge(name, spec, endpoint, self.template, mode, client, seed)
            return mode, await self._choices(judge, judged)

        modes, found = await ask_all(list(judges), ask)
        rows = pd.DataFrame(found)
        rows["slot"] = rows["slot"].astype("Int64")
        return RatedReplies(rows, modes)

    async def _choices(self, judge: ChoiceJudge, judged: Judged) -> list[dict[str, Any]]:
        questions = [
            (one, rotation, repeat)
            for one in self.sets.values()
            for rotation in range(self.slots)
            for repeat in range(self.repeats)
        ]

        async def ask(question: tuple[TextSet, int, int]) -> dict[str, Any]:
            one, rotation, repeat = question
            texts = self.candidates[one.set_id]
            item = Item(one.item_id, one.prompt, one.category)
            choice, call = await judge.choose(item, one.set_id, texts, rotation, repeat)
            judged(judge.name, 1, int(choice.slot is None))
            names = [text.candidate_id for text in rotated(texts, rotation)]
            shares = choice.shares or (None,) * len(names)
            return {
                "item_id": one.item_id, "category": one.category, "set_id": one.set_id, "judge": judge.name,
                "rotation": rotation, "repeat": repeat, "slot": None if choice.slot is None else choice.slot + 1,
                "candidate_id": "" if choice.slot is None else names[choice.slot], "reason": choice.reason,
                "gold": "" if one.gold is None else texts[one.gold].candidate_id,
                **{f"candidate_{place}": name for place, name in enumerate(names, start=1)},
                **{f"p_{place}": share for place, share in enumerate(shares, start=1)},
                "call": call,
            }  # fmt: skip

        return await each(questions, ask, judge.endpoint.concurrency)

    def asks(self) -> dict[str, Any]:
        """How much it asks, for the report's head."""
        return {"sets": len(self.sets), "slots": self.slots}

    def texts(self) -> pd.DataFrame:
        """The texts with their features, as the table candidates."""
        found = {(one.item_id, one.candidate_id): one for some in self.candidates.values() for one in some}
        return texts_frame(list(found.values()))

    def items(self) -> pd.DataFrame:
        """The table items."""
        known = {one.item_id: (one.item_id, one.prompt, one.category) for one in self.sets.values()}
        return items_frame(list(known.values()))

    def estimates(self, rated: RatedReplies, texts: pd.DataFrame, judgments: pd.DataFrame | None) -> pd.DataFrame:  # noqa: ARG002
        """The listwise rows of every judge."""
        return choice_frame(rated.rows, self.slots, texts)

    def tables(self, rated: RatedReplies) -> dict[str, pd.DataFrame]:
        """What stands in the folder besides: every call's choice, and which model wrote which text."""
        rows = [
            {"set_id": set_id, "item_id": one.item_id, "candidate_id": text.candidate_id, "model": one.models[place]}
            for set_id, one in self.sets.items() if one.models
            for place, text in enumerate(self.candidates[set_id])
        ]  # fmt: skip
        return {"choices": rated.rows, **({"authors": pd.DataFrame(rows)} if rows else {})}


def listwise(sets: Mapping[str, TextSet], template: Template, repeats: int) -> Listwise:
    """The sets with a name for every text: the file's, else one a distinct text of its item (t1, t2, …).

    Raises InvalidInput with the row where one name stands for two texts.
    """
    named: dict[tuple[str, str], tuple[str, str]] = {}
    counted: dict[str, dict[str, str]] = {}
    found = {}
    for set_id, one in sets.items():
        texts = []
        for place, text in enumerate(one.texts):
            known = counted.setdefault(one.item_id, {})
            name = one.names[place] if one.names else known.setdefault(text, f"t{len(known) + 1}")
            earlier, where = named.setdefault((one.item_id, name), (text, one.where))
            if earlier != text:
                raise InvalidInput(
                    f"{one.where}: candidates: {name!r} names another text of item {one.item_id!r} at {where}; one text an id"
                )
            texts.append(Candidate(one.item_id, name, text))
        found[set_id] = tuple(texts)
    return Listwise(sets, found, template, repeats)


# Audits of judges that score one text at a time: every text of the pairs once on every scale, and what follows.

SCORE_COLUMNS = (
    "item_id", "category", "candidate_id", "judge", "scale", "repeat", "score", "at_worst", "at_best", "reason", "call",
)  # fmt: skip
_OF_A_PAIR = ("gold", "gold_2", "model_a", "model_b")


@dataclass(frozen=True)
class Pointwise:
    """What is scored: the texts of ``asked``, each once, on every one of ``scales``, ``asked.repeats`` times.

    ``against``: the same judges are asked about the pairs too.
    """

    asked: Questions
    template: Template
    scales: tuple[Scale, ...]
    against: bool = False

    mode = "pointwise"

    @property
    def calls(self) -> int:
        """Calls that scoring takes of one judge."""
        return len(self.asked.texts()) * len(self.scales) * self.asked.repeats

    def identity(self) -> dict[str, Any]:
        """What of it the answers may depend on."""
        scales = [scale.name for scale in self.scales]
        return {"mode": self.mode, "template": self.template.sha256, "scales": scales, "against": self.against}

    def record(self) -> dict[str, Any]:
        """For experiment.yaml."""
        scales = [scale.name for scale in self.scales]
        return {"mode": self.mode, "prompt": self.template.name, "scales": scales, "against_pairwise": self.against}

    async def ask(
        self, judges: Mapping[str, ModelJudgeSpec], endpoints: Mapping[str, Endpoint], client: Client, seed: int, judged: Judged
    ) -> RatedReplies:  # fmt: skip
        """Ask every judge, all at the same time. Raises what the client raises."""

        trial = ScoreTrial(self.template, self.scales[0])

        async def ask(name: str) -> tuple[Mode, list[tuple[Any, ...]]]:
            spec, endpoint = judges[name], endpoints[judges[name].endpoint]
            stem = f"{SCORE_TRIAL_PREFIX}/{quoted(name)}"
            mode = await settle_mode(spec, trial, endpoint=endpoint, client=client, stem=stem)
            judge = ScoreJudge(name, spec, endpoint, self.template, mode, client, seed)
            return mode, await self._scores(judge, judged)

        modes, rows = await ask_all(list(judges), ask)
        return RatedReplies(pd.DataFrame(rows, columns=list(SCORE_COLUMNS)), modes)

    async def _scores(self, judge: ScoreJudge, judged: Judged) -> list[tuple[Any, ...]]:
        questions = [
            (self.asked.items[text.item_id], text, scale, f"{quoted(matchup.pair_id)}/{side}", repeat)
            for matchup, side, text in places(self.asked.matchups)
            for scale in self.scales
            for repeat in range(self.asked.repeats)
        ]

        async def ask(question: tuple[Item, Candidate, Scale, str, int]) -> tuple[Any, ...]:
            item, text, scale, _, repeat = question
            score, call = await judge.score(*question)
            judged(judge.name, 1, int(score.value is None))
            return (
                item.item_id, item.category, text.candidate_id, judge.name, scale.name, repeat, score.value, score.at_worst,
                score.at_best, score.reason, call,
            )  # fmt: skip

        return await each(questions, ask, judge.endpoint.concurrency)

    def asks(self) -> dict[str, Any]:
        """How much it asks, for the report's head."""
        return {"scales": [scale.name for scale in self.scales], "pairs": len(self.asked.matchups)}

    def texts(self) -> pd.DataFrame:
        """The texts with their features, as the table candidates."""
        return texts_frame(self.asked.texts())

    def items(self) -> pd.DataFrame:
        """The table items."""
        return items_frame([(one.item_id, str(one.prompt), one.category) for one in self.asked.items.values()])

    def estimates(self, rated: RatedReplies, texts: pd.DataFrame, judgments: pd.DataFrame | None) -> pd.DataFrame:
        """The ``score_*`` rows of every judge."""
        return score_frame(rated.rows, self.pairs(), texts, self.scales, judgments)

    def tables(self, rated: RatedReplies) -> dict[str, pd.DataFrame]:
        """What stands in the folder besides: every call's score, and the pairs that the scores say something of."""
        return {"scores": rated.rows, "pairs": self.pairs()}

    def pairs(self) -> pd.DataFrame:
        """The pairs of the file, a row each."""
        rows = []
        for one in self.asked.matchups:
            known = self.asked.known[one.pair_id].values
            rows.append({
                "pair_id": one.pair_id, "item_id": one.item_id, "category": self.asked.items[one.item_id].category,
                "candidate_a": one.a.candidate_id, "candidate_b": one.b.candidate_id, "identical": one.a.text == one.b.text,
                **{name: str(known[name]) for name in _OF_A_PAIR},
            })  # fmt: skip
        return pd.DataFrame(rows)
