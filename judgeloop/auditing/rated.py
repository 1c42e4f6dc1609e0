"""What the audits that score texts or choose from lists share: the replies as rows, and the tables of texts and items."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pandas as pd

from judgeloop.auditing.analysis import Analysis
from judgeloop.auditing.asking import Judged
from judgeloop.experiment.blocks import Endpoint
from judgeloop.experiment.judges import ModelJudge
from judgeloop.records import JUDGMENT_COLUMNS, Candidate, Client
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.text.features import features_frame
from judgeloop.text.templates import Mode

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Rated:
    """The replies, a row a call, and by judge the mode in which they were read."""

    rows: pd.DataFrame
    modes: Mapping[str, str]


class Form(Protocol):
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
        self, judges: Mapping[str, ModelJudge], endpoints: Mapping[str, Endpoint], client: Client, seed: int, judged: Judged
    ) -> Rated: ...  # fmt: skip

    def asks(self) -> dict[str, Any]:
        """How much it asks, for the report's head."""
        ...

    def texts(self) -> pd.DataFrame: ...

    def items(self) -> pd.DataFrame: ...

    def estimates(self, rated: Rated, texts: pd.DataFrame, judgments: pd.DataFrame | None) -> pd.DataFrame: ...

    def tables(self, rated: Rated) -> dict[str, pd.DataFrame]: ...


async def ask_all(
    judges: Sequence[str], ask: Callable[[str], Coroutine[Any, Any, tuple[Mode, list[Row]]]]
) -> tuple[dict[str, Mode], list[Row]]:
    """Every judge's mode, and the rows of all judges; all are asked at the same time. Raises what ``ask`` raises."""
    async with asyncio.TaskGroup() as tasks:
        running = {name: tasks.create_task(ask(name), name=f"audit of {name}") for name in judges}
    done = {name: task.result() for name, task in running.items()}
    return {name: mode for name, (mode, _) in done.items()}, [row for _, rows in done.values() for row in rows]


def analyze_rated(
    form: Form, rated: Rated, base: Analysis | None, *, name: str, identity: str, sources: Mapping[str, Any]
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


def _facts(form: Form, rated: Rated) -> dict[str, Any]:
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
