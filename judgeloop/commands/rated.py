"""Audits that ask for ratings: choices from lists of k texts, in all k rotations, or scores of one text at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import pandas as pd

from judgeloop.analysis import Analysis, candidates_frame
from judgeloop.commands.questions import PAIR_COLUMNS, Judged, Questions, TextNames, counts_of, each, places
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
from judgeloop.stats.items import marked, with_clusters
from judgeloop.stats.judge.listwise import choice_frame
from judgeloop.stats.judge.pointwise import score_frame
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.text.templates import Mode, Scale, Template

SCORE_COLUMNS = (
    "item_id", "category", "candidate_id", "judge", "scale", "repeat", "score", "at_worst", "at_best", "reason", "call",
)  # fmt: skip

Row = TypeVar("Row")


# -- what both forms share ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RatedReplies:
    """The replies, a row a call, and judge → the mode in which its replies were read."""

    rows: pd.DataFrame
    modes: Mapping[str, str]


class RatingForm(Protocol):
    """An audit that is not of pairs alone: what it asks, and the tables and estimates of its replies."""

    @property
    def mode(self) -> str:
        """The value of the option --mode."""
        ...

    @property
    def template(self) -> Template:
        """The prompt that it asks by."""
        ...

    @property
    def against(self) -> bool:
        """Whether the same judges are asked about the pairs too."""
        ...

    @property
    def calls(self) -> int:
        """Calls that it takes of one judge."""
        ...

    def identity(self) -> dict[str, Any]:
        """What of it the answers may depend on."""
        ...

    def record(self) -> dict[str, Any]:
        """Its part of experiment.yaml."""
        ...

    async def ask(
        self, judges: Mapping[str, ModelJudgeSpec], endpoints: Mapping[str, Endpoint], client: Client, seed: int, judged: Judged
    ) -> RatedReplies:  # fmt: skip
        """Ask every judge, all at the same time. Raises what the client raises."""
        ...

    def sizes(self) -> dict[str, Any]:
        """How much it asks, for the report's head."""
        ...

    def texts(self) -> pd.DataFrame:
        """The table candidates: the texts with their features."""
        ...

    def items(self) -> pd.DataFrame:
        """The table items."""
        ...

    def estimates(self, rated: RatedReplies, texts: pd.DataFrame, judgments: pd.DataFrame | None) -> pd.DataFrame:
        """The rows of every judge. ``judgments``: its verdicts on the pairs, None where they were not asked."""
        ...

    def tables(self, rated: RatedReplies) -> dict[str, pd.DataFrame]:
        """The tables of the folder that audits of pairs do not have, by name."""
        ...


async def ask_all(
    judges: Sequence[str], ask: Callable[[str], Coroutine[Any, Any, tuple[Mode, list[Row]]]]
) -> tuple[dict[str, Mode], list[Row]]:
    """Every judge's mode, and the rows of all judges; all are asked at the same time. Raises what ``ask`` raises."""
    async with asyncio.TaskGroup() as tasks:
        running = {name: tasks.create_task(ask(name), name=f"audit of {name}") for name in judges}
    results = {name: task.result() for name, task in running.items()}
    return {name: mode for name, (mode, _) in results.items()}, [row for _, rows in results.values() for row in rows]


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
        items = marked(form.items(), texts)
        estimates = form.estimates(_clustered(rated, items), texts, None)
        return Analysis(name, identity, dict(sources), judgments, texts, items, estimates, _facts(form, rated))
    own = form.estimates(_clustered(rated, base.items), base.candidates, base.judgments)
    estimates = adjust(with_judge_families(pd.concat([base.estimates, own], ignore_index=True)))
    facts = {**base.facts, **_facts(form, rated)}
    return Analysis(name, identity, dict(sources), base.judgments, base.candidates, base.items, estimates, facts)


def _clustered(rated: RatedReplies, items: pd.DataFrame) -> RatedReplies:
    """The replies with the clusters of their items."""
    return replace(rated, rows=with_clusters(rated.rows, items))


def _facts(form: RatingForm, rated: RatedReplies) -> dict[str, Any]:
    """What the report shows besides estimates: how much was asked, how replies were read, and which were unscored."""
    reasons = zip(rated.rows["judge"], rated.rows["reason"], strict=True)
    unscored = counts_of((judge, reason) for judge, reason in reasons if reason)
    asked = {**form.sizes(), "calls": len(rated.rows), "unscored": unscored}
    if "said" in rated.rows:
        rows = rated.rows[rated.rows["said"] != ""].drop_duplicates(["judge", "reason"])
        said = zip(rows["judge"], rows["reason"], rows["said"], strict=True)
        asked["said"] = [[str(cell) for cell in cells] for cells in said]
    return {"mode": form.mode, "asked": asked, f"{form.mode}_modes": dict(rated.modes)}


def _with_said(rows: pd.DataFrame) -> pd.DataFrame:
    """The replies with what the unscored ones said, where there are any."""
    return rows if (rows["said"] != "").any() else rows.drop(columns="said")


def texts_frame(texts: Sequence[Candidate]) -> pd.DataFrame:
    """The table candidates of these texts; generation, arm and replicate are empty."""
    rows = [(text.item_id, text.candidate_id, text.text) for text in texts]
    return candidates_frame(pd.DataFrame(rows, columns=["item_id", "candidate_id", "text"]))


def items_frame(rows: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """The table items, from (item_id, prompt, category)."""
    return pd.DataFrame(rows, columns=["item_id", "prompt", "category"])


# -- choices from lists ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listwise:
    """Every set of texts in all rotations, ``repeats`` times. ``candidates``: set_id → the set's texts with their names."""

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
            [row.item_id, row.set_id, row.prompt, row.category, list(row.texts), list(row.names), list(row.models), row.gold,
             {name: str(cell) for name, cell in row.other_columns.items()}]
            for row in self.sets.values()
        ]  # fmt: skip
        return {"mode": self.mode, "template": self.template.sha256, "repeats": self.repeats, "sets": rows}

    def record(self) -> dict[str, Any]:
        """Its part of experiment.yaml."""
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

        modes, choices = await ask_all(list(judges), ask)
        rows = pd.DataFrame(choices)
        rows["slot"] = rows["slot"].astype("Int64")
        return RatedReplies(_with_said(rows), modes)

    async def _choices(self, judge: ChoiceJudge, judged: Judged) -> list[dict[str, Any]]:
        """One judge's choices, a row of the table choices a call."""
        questions = [
            (text_set, rotation, repeat)
            for text_set in self.sets.values()
            for rotation in range(self.slots)
            for repeat in range(self.repeats)
        ]

        async def ask(question: tuple[TextSet, int, int]) -> dict[str, Any]:
            text_set, rotation, repeat = question
            texts = self.candidates[text_set.set_id]
            item = Item(text_set.item_id, text_set.prompt, text_set.category)
            choice, call = await judge.choose(item, text_set.set_id, texts, rotation, repeat)
            judged(judge.name, 1, int(choice.slot is None))
            names = [text.candidate_id for text in rotated(texts, rotation)]
            shares = choice.shares or (None,) * len(names)
            return {
                "item_id": item.item_id, "category": item.category, "set_id": text_set.set_id, "judge": judge.name,
                "rotation": rotation, "repeat": repeat, "slot": None if choice.slot is None else choice.slot + 1,
                "candidate_id": "" if choice.slot is None else names[choice.slot], "reason": choice.reason,
                "gold": "" if text_set.gold is None else texts[text_set.gold].candidate_id,
                **{f"candidate_{slot}": name for slot, name in enumerate(names, start=1)},
                **{f"p_{slot}": share for slot, share in enumerate(shares, start=1)},
                "call": call, "said": choice.said,
            }  # fmt: skip

        return await each(questions, ask, judge.endpoint.concurrency)

    def sizes(self) -> dict[str, Any]:
        """How much it asks, for the report's head."""
        return {"sets": len(self.sets), "slots": self.slots}

    def texts(self) -> pd.DataFrame:
        """The texts with their features, as the table candidates."""
        texts = [text for candidates in self.candidates.values() for text in candidates]
        return texts_frame(list({(text.item_id, text.candidate_id): text for text in texts}.values()))

    def items(self) -> pd.DataFrame:
        """The table items."""
        items = {row.item_id: (row.item_id, row.prompt, row.category) for row in self.sets.values()}
        return items_frame(list(items.values()))

    def estimates(self, rated: RatedReplies, texts: pd.DataFrame, judgments: pd.DataFrame | None) -> pd.DataFrame:  # noqa: ARG002
        """The listwise rows of every judge."""
        return choice_frame(rated.rows, self.slots, texts)

    def tables(self, rated: RatedReplies) -> dict[str, pd.DataFrame]:
        """The tables choices (a row a call) and, where the sets name models, authors (the model of each text)."""
        authors = [
            {"set_id": set_id, "item_id": row.item_id, "candidate_id": text.candidate_id, "model": model}
            for set_id, row in self.sets.items()
            if row.models
            for text, model in zip(self.candidates[set_id], row.models, strict=True)
        ]
        return {"choices": rated.rows, **({"authors": pd.DataFrame(authors)} if authors else {})}


def listwise(sets: Mapping[str, TextSet], template: Template, repeats: int) -> Listwise:
    """The sets of a file (``interchange.read_sets``) as an audit. Raises InvalidInput with the row where one name stands for
    two texts."""
    names = TextNames()
    candidates = {
        set_id: tuple(
            names.candidate(row.item_id, name, text, where=row.where, field="candidates")
            for name, text in zip(row.names or ("",) * len(row.texts), row.texts, strict=True)
        )
        for set_id, row in sets.items()
    }
    return Listwise(sets, candidates, template, repeats)


# -- scores of one text at a time --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pointwise:
    """The texts of ``questions``, each scored once on every one of ``scales``, ``questions.repeats`` times.

    ``against``: the same judges are asked about the pairs too. ``gold_exact``: the pairs' gold cannot err.
    """

    questions: Questions
    template: Template
    scales: tuple[Scale, ...]
    against: bool = False
    gold_exact: bool = False

    mode = "pointwise"

    @property
    def calls(self) -> int:
        """Calls that scoring takes of one judge."""
        return len(self.questions.texts()) * len(self.scales) * self.questions.repeats

    def identity(self) -> dict[str, Any]:
        """What of it the answers may depend on."""
        scales = [scale.name for scale in self.scales]
        return {"mode": self.mode, "template": self.template.sha256, "scales": scales, "against": self.against}

    def record(self) -> dict[str, Any]:
        """Its part of experiment.yaml."""
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
        return RatedReplies(_with_said(pd.DataFrame(rows, columns=[*SCORE_COLUMNS, "said"])), modes)

    async def _scores(self, judge: ScoreJudge, judged: Judged) -> list[tuple[Any, ...]]:
        """One judge's scores, a row of SCORE_COLUMNS a call."""
        questions = [
            (self.questions.items[text.item_id], text, scale, f"{quoted(matchup.pair_id)}/{side}", repeat)
            for matchup, side, text in places(self.questions.matchups)
            for scale in self.scales
            for repeat in range(self.questions.repeats)
        ]

        async def ask(question: tuple[Item, Candidate, Scale, str, int]) -> tuple[Any, ...]:
            item, text, scale, _, repeat = question
            score, call = await judge.score(*question)
            judged(judge.name, 1, int(score.value is None))
            return (
                item.item_id, item.category, text.candidate_id, judge.name, scale.name, repeat, score.value, score.at_worst,
                score.at_best, score.reason, call, score.said,
            )  # fmt: skip

        return await each(questions, ask, judge.endpoint.concurrency)

    def sizes(self) -> dict[str, Any]:
        """How much it asks, for the report's head."""
        return {"scales": [scale.name for scale in self.scales], "pairs": len(self.questions.matchups)}

    def texts(self) -> pd.DataFrame:
        """The texts with their features, as the table candidates."""
        return texts_frame(self.questions.texts())

    def items(self) -> pd.DataFrame:
        """The table items."""
        items = self.questions.items.values()
        return items_frame([(item.item_id, str(item.prompt), item.category) for item in items])

    def estimates(self, rated: RatedReplies, texts: pd.DataFrame, judgments: pd.DataFrame | None) -> pd.DataFrame:
        """The ``score_*`` rows of every judge."""
        return score_frame(
            rated.rows, self.pairs(), texts, self.scales, judgments, gold_exact=self.gold_exact
        )  # fmt: skip

    def tables(self, rated: RatedReplies) -> dict[str, pd.DataFrame]:
        """The tables scores (a row a call) and pairs (of the texts that were scored)."""
        return {"scores": rated.rows, "pairs": self.pairs()}

    def pairs(self) -> pd.DataFrame:
        """The pairs of the file, a row each."""
        rows = []
        for matchup in self.questions.matchups:
            values = self.questions.rows[matchup.pair_id].values
            rows.append({
                "pair_id": matchup.pair_id, "item_id": matchup.item_id,
                "category": self.questions.items[matchup.item_id].category, "candidate_a": matchup.a.candidate_id,
                "candidate_b": matchup.b.candidate_id, "identical": matchup.a.text == matchup.b.text,
                **{name: str(values[name]) for name in PAIR_COLUMNS},
            })  # fmt: skip
        return pd.DataFrame(rows)
