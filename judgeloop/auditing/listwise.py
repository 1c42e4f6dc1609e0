"""Audits of judges that choose from lists: every set of k texts in all k cyclic rotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from judgeloop.auditing.asking import Judged, each
from judgeloop.auditing.rated import Rated, ask_all, items_frame, texts_frame
from judgeloop.errors import InvalidInput
from judgeloop.experiment.blocks import Endpoint
from judgeloop.experiment.judges import ModelJudge
from judgeloop.interchange.sets import TextSet
from judgeloop.judging.judges import CHOICE_TRIAL_PREFIX, ChoiceJudge, ChoiceTrial, rotated, settle_mode
from judgeloop.judging.pairing import quoted
from judgeloop.records import Candidate, Client, Item
from judgeloop.stats.choices import choice_frame
from judgeloop.text.templates import Mode, Template


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
             {name: str(cell) for name, cell in one.kept.items()}]
            for one in self.sets.values()
        ]  # fmt: skip
        return {"mode": self.mode, "template": self.template.sha256, "repeats": self.repeats, "sets": rows}

    def record(self) -> dict[str, Any]:
        """For experiment.yaml."""
        return {"mode": self.mode, "prompt": self.template.name}

    async def ask(
        self, judges: Mapping[str, ModelJudge], endpoints: Mapping[str, Endpoint], client: Client, seed: int, judged: Judged
    ) -> Rated:  # fmt: skip
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
        return Rated(rows, modes)

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

    def estimates(self, rated: Rated, texts: pd.DataFrame, judgments: pd.DataFrame | None) -> pd.DataFrame:  # noqa: ARG002
        """The listwise rows of every judge."""
        return choice_frame(rated.rows, self.slots, texts)

    def tables(self, rated: Rated) -> dict[str, pd.DataFrame]:
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
