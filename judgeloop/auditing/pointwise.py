"""Audits of judges that score one text at a time: every text of the pairs once on every scale, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from judgeloop.auditing.asking import Judged, each, places
from judgeloop.auditing.questions import Questions
from judgeloop.auditing.rated import Rated, ask_all, items_frame, texts_frame
from judgeloop.experiment.blocks import Endpoint
from judgeloop.experiment.judges import ModelJudge
from judgeloop.judging.judges import SCORE_TRIAL_PREFIX, ScoreJudge, ScoreTrial, settle_mode
from judgeloop.judging.pairing import quoted
from judgeloop.records import Candidate, Client, Item
from judgeloop.scales import Scale
from judgeloop.stats.judge.pointwise import score_frame
from judgeloop.text.templates import Mode, Template

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
        self, judges: Mapping[str, ModelJudge], endpoints: Mapping[str, Endpoint], client: Client, seed: int, judged: Judged
    ) -> Rated:  # fmt: skip
        """Ask every judge, all at the same time. Raises what the client raises."""

        trial = ScoreTrial(self.template, self.scales[0])

        async def ask(name: str) -> tuple[Mode, list[tuple[Any, ...]]]:
            spec, endpoint = judges[name], endpoints[judges[name].endpoint]
            stem = f"{SCORE_TRIAL_PREFIX}/{quoted(name)}"
            mode = await settle_mode(spec, trial, endpoint=endpoint, client=client, stem=stem)
            judge = ScoreJudge(name, spec, endpoint, self.template, mode, client, seed)
            return mode, await self._scores(judge, judged)

        modes, rows = await ask_all(list(judges), ask)
        return Rated(pd.DataFrame(rows, columns=list(SCORE_COLUMNS)), modes)

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

    def estimates(self, rated: Rated, texts: pd.DataFrame, judgments: pd.DataFrame | None) -> pd.DataFrame:
        """The ``score_*`` rows of every judge."""
        return score_frame(rated.rows, self.pairs(), texts, self.scales, judgments)

    def tables(self, rated: Rated) -> dict[str, pd.DataFrame]:
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
