"""The main path: one experiment, T generations, every arm and replicate (ARCHITECTURE.md, "The journey of a run").

For each replicate and arm the policy drafts candidates for every item; every matchup is presented in both orders; the
judge answers; verdicts become preferences by the arm's label rule; the signal is fitted and selects; the strategy mixes
the training set; the policy is updated; the generation's tables are written. Anchor pairs are judged once a generation.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import pandas as pd

from judgeloop import seeds
from judgeloop.experiment.resolve import Arm, ResolvedExperiment
from judgeloop.experiment.schema import ExemplarPolicySpec as ExemplarSpec
from judgeloop.experiment.schema import JudgeSpec
from judgeloop.judging.controls import GoldJudge, candidates_of
from judgeloop.judging.judges import Judge, model_name
from judgeloop.judging.pairing import candidates_frame, completed, judgments_frame, matchups, presentations
from judgeloop.judging.panels import (
    AnchorPanel,
    ProbePair,
    anchor_from_pairs,
    draft_anchor,
    probes_of_panel,
    with_probes,
)
from judgeloop.judging.truth import Truth
from judgeloop.learning import strategies
from judgeloop.learning.signals import LearnedSelection, Support, generation_zero_scale, learn
from judgeloop.policies import CandidateDraw, Drafter, ExemplarPolicy, Policy, Pool, PoolPolicy, draft_pool
from judgeloop.records import Candidate, Distribution, Item, Judgment, Presentation, prompt_text
from judgeloop.rundir import RunFolder
from judgeloop.text.features import FEATURES, features_frame

Weights = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GenerationDone:
    """What the progress view is told: a replicate has finished a generation in all arms."""

    replicate: int
    generation: int
    unscored: int


class TableLabels(TypedDict):
    """Which rows of the tables a turn writes."""

    replicate: int | None
    arm: str
    generation: int


@dataclass(frozen=True)
class LoopContext:
    """What a run works with, made ready before the first call (see ``judgeloop.run``)."""

    resolved: ResolvedExperiment
    items: tuple[Item, ...]
    real: Mapping[str, tuple[str, ...]]
    anchor_pairs: tuple[tuple[str, Item, str, str], ...]
    drafter: Drafter
    judges: Mapping[str, Judge]
    """Arm's name → its judge; arms with the same judge share the object."""
    gold: GoldJudge | None
    """Set where a gold arm is run: the same selection is then made by gold on every arm's own candidates, and a model that
    gold asks (``match: judge``) says of the texts of all arms and of the anchor panel whether they are right."""
    folder: RunFolder
    on_generation: Callable[[GenerationDone], None] = lambda _: None

    def truth(self) -> Truth:
        """Nothing asked yet, for one unit of work."""
        return Truth(self.gold.matcher if self.gold is not None else None)


async def run(lab: LoopContext) -> None:
    """Close the loop for every replicate at once. Raises what the client raises; the run folder then resumes."""
    lab.folder.write_part("items", "all", _items_frame(lab))
    panels = JudgedPanels(lab)
    async with asyncio.TaskGroup() as tasks:
        for number in range(lab.resolved.experiment.replicates):
            tasks.create_task(Replicate(lab, number, panels).run(), name=f"s{number}")


class JudgedPanels:
    """The anchor panel, and the probe panel of its texts' edits, judged once a generation by every distinct judge that is no
    control: by the first replicate that gets there, so that a judge which its provider changes is seen to change."""

    def __init__(self, lab: LoopContext) -> None:
        self._lab, self._truth = lab, lab.truth()
        self._panel: asyncio.Task[AnchorPanel] | None = None
        self._probes: dict[str, list[ProbePair]] = {}
        self._judged: dict[int, asyncio.Task[None]] = {}

    async def judge(self, generation: int) -> None:
        if self._lab.resolved.experiment.panels.anchor == 0:
            return
        if self._panel is None:
            self._panel = asyncio.create_task(self._make())
        if generation not in self._judged:
            self._judged[generation] = asyncio.create_task(self._judge(await self._panel, generation))
        await self._judged[generation]

    async def _make(self) -> AnchorPanel:
        anchor, lab = self._lab.resolved.experiment.panels.anchor, self._lab
        if isinstance(anchor, int):
            panel = await draft_anchor(anchor, lab.items, lab.drafter.draft)
        else:
            panel = anchor_from_pairs(lab.anchor_pairs)
        texts = [candidate for matchup in panel.matchups for candidate in (matchup.a, matchup.b)]
        await self._truth.learn(panel.items, texts, "panels/g0/judge")
        frame = candidates_frame(texts, {(i, c): why for i, c, why in panel.failed}, panel.items, self._truth.correct)
        lab.folder.write_part("candidates", "panels-g00", completed(frame, replicate=None, arm="", generation=0))
        if lab.resolved.experiment.panels.probes:
            self._edit(panel)
        return panel

    def _edit(self, panel: AnchorPanel) -> None:
        """The probe panel, an edited text once: judges share all of it but for the edits that name them."""
        lab = self._lab
        edits: dict[tuple[str, str], Candidate] = {}
        for judge, _, _ in _panel_judges(lab):
            experiment = lab.resolved.experiment
            pairs = probes_of_panel(panel, experiment.panels.probes, experiment.seed, model_name(judge))
            self._probes[judge.name] = pairs
            edits |= {(p.matchup.item_id, p.matchup.b.candidate_id): p.matchup.b for p in pairs}
        # An edit keeps the content: no model is asked whether it is right.
        frame = candidates_frame(list(edits.values()), {}, panel.items, self._truth.correct)
        lab.folder.write_part("candidates", "panels-g00-probe", completed(frame, replicate=None, arm="", generation=0))

    async def _judge(self, panel: AnchorPanel, generation: int) -> None:
        lab, correct, frames, probed = self._lab, self._truth.correct, [], []
        for judge, label, repeats in _panel_judges(lab):
            prefix = f"panels/g{generation}/judge{label}"
            by_item = [(panel.items[i], presentations(pairs, repeats)) for i, pairs in panel.by_item().items()]
            judged = await _judge_all(judge, by_item, prefix, ("panels", generation))
            frames.append(judgments_frame(judged, panel.items, correct, panel="anchor", generation=generation))
            pairs = self._probes.get(judge.name, [])
            shown = [(panel.items[p.matchup.item_id], presentations([p.matchup])) for p in pairs]
            judged = await _judge_all(judge, shown, prefix, ("panels", generation))
            probed.append(
                with_probes(judgments_frame(judged, panel.items, _unknown, panel="probe", generation=generation), pairs)
            )
        for part, some in (("", frames), ("-probe", probed if self._probes else [])):
            if some:
                name = f"panels-g{generation:02d}{part}"
                lab.folder.write_part("judgments", name, pd.concat(some, ignore_index=True))


class Replicate:
    """One seed with all its arms: an independent unit of work."""

    def __init__(self, lab: LoopContext, number: int, panels: JudgedPanels) -> None:
        self.lab, self.number, self.panels = lab, number, panels
        self.experiment = lab.resolved.experiment
        self.items = {item.item_id: item for item in lab.items}
        self.truth = lab.truth()
        self._features: dict[tuple[str, str], Any] = {}

    async def run(self) -> None:
        pool = None
        if not isinstance(self.experiment.policy, ExemplarSpec):
            pool = await draft_pool(self.lab.drafter, self.lab.items, self.number, self.experiment.policy.pool_size)
        loops = [ArmLoop(self, arm, pool) for arm in self.lab.resolved.arms]
        for generation in range(self.experiment.generations + 1):
            turns = await asyncio.gather(*(loop.turn(generation) for loop in loops), self.panels.judge(generation))
            tables = [turn for turn in turns if turn is not None]
            for name in ("candidates", "judgments", "preferences", "signals"):
                parts = [table[name] for table in tables if name in table]
                if parts:
                    self.lab.folder.write_part(
                        name, f"s{self.number:03d}-g{generation:02d}", pd.concat(parts, ignore_index=True)
                    )
            unscored = sum(int((table["judgments"]["verdict"] == "unscored").sum()) for table in tables)
            self.lab.on_generation(GenerationDone(self.number, generation, unscored))

    def features(self, candidates: Mapping[tuple[str, str], Candidate]) -> pd.DataFrame:
        """The FEATURES of texts, indexed by (item_id, candidate_id); a text is measured once."""
        keys = [(c.text, self.items[i].language) for (i, _), c in candidates.items()]
        fresh = [key for key in dict.fromkeys(keys) if key not in self._features]
        if fresh:
            texts, languages = zip(*fresh, strict=True)
            measured = features_frame(texts, languages)[list(FEATURES)].to_numpy(dtype=float)
            self._features.update(zip(fresh, measured, strict=True))
        index = pd.MultiIndex.from_tuples(list(candidates), names=["item_id", "candidate_id"])
        return pd.DataFrame([self._features[key] for key in keys], index=index, columns=list(FEATURES))


@dataclass
class ArmLoop:
    """One arm of one replicate; its state is the policy and the selections so far."""

    replicate: Replicate
    arm: Arm
    pool: Pool | None
    policy: Policy = field(init=False)
    scale: pd.Series[float] = field(init=False)
    zero: dict[str, Weights] = field(init=False)
    selections: list[Distribution] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        lab, number = self.replicate.lab, self.replicate.number
        real = {
            item_id: {f"real{n}": Candidate(item_id, f"real{n}", text) for n, text in enumerate(texts)}
            for item_id, texts in lab.real.items()
        }
        self.real = real if self.arm.strategy.real_fraction and self.arm.strategy.real else {}
        size, seed = self.replicate.experiment.candidates_per_item, self.replicate.experiment.seed
        if self.pool is not None:
            self.policy = PoolPolicy(self.pool, self.real, seed, number, size)
        else:
            assert isinstance(self.arm.policy, ExemplarSpec)
            self.policy = ExemplarPolicy(
                lab.drafter, self.arm.name, lab.items, self.real, seed, number, size, self.arm.policy.exemplars
            )

    async def turn(self, generation: int) -> dict[str, pd.DataFrame]:
        """One generation; gives its tables, a frame each."""
        lab, labels = (
            self.replicate.lab,
            TableLabels(replicate=self.replicate.number, arm=self.arm.name, generation=generation),
        )
        drawn = await self.policy.candidates(lab.items, generation)
        shown = self._present(drawn, generation)
        texts = {(i, name): c for i in self.replicate.items for name, c in self.policy.texts(i).items()}
        judged, _ = await asyncio.gather(
            self._verdicts(lab.judges[self.arm.name], shown, generation), self._learn_truth(texts.values(), generation)
        )
        truth = self.replicate.truth
        judgments = judgments_frame(judged, self.replicate.items, truth.correct, panel="policy", **labels)
        counts = {item_id: Counter(c.candidate_id for c in found.drawn) for item_id, found in drawn.items()}
        features = self.replicate.features(texts)
        if generation == 0:
            self.zero = {i: {n: k / count.total() for n, k in count.items()} for i, count in counts.items() if count}
            at_zero = [(i, n) for i, count in counts.items() for n in count.elements()]
            self.scale = generation_zero_scale(features.loc[at_zero])
        failed = {(i, name): why for i, found in drawn.items() for name, why in found.failed.items()}
        current = {i: self.policy.current(i) for i in self.replicate.items}
        tables = {"judgments": judgments}
        columns: dict[str, Mapping[str, Weights]] = {"n_drawn": counts, "p_current": current}
        if generation < self.replicate.experiment.generations:
            learned = self._learn(judgments, features, current, counts)
            self.selections.append(learned.selection)
            training = self._mix(generation)
            self.policy.update(training)
            following = {i: self.policy.current(i) for i in self.replicate.items} if self.pool is not None else training
            columns |= {
                "reward": learned.rewards,
                "p_selected": learned.selection,
                "p_training": training,
                "p_next": following,
            }
            if lab.gold is not None and not self.arm.is_control:
                by_gold = await self._verdicts(lab.gold, shown, generation)
                verdicts = judgments_frame(by_gold, self.replicate.items, truth.correct, panel="policy", **labels)
                columns["p_selected_gold"] = self._learn(verdicts, features, current, counts).selection
            tables["preferences"] = learned.preferences
            if learned.signal is not None:
                tables["signals"] = learned.signal.frame(self.replicate.number, self.arm.name, generation)
        carried = [
            c
            for (i, n), c in texts.items()
            if self.pool is not None or any(n in part.get(i, {}) for part in columns.values())
        ]
        frame = candidates_frame(carried, failed, self.replicate.items, truth.correct, columns)
        return {"candidates": completed(frame, **labels), **tables}

    def _present(self, drawn: Mapping[str, CandidateDraw], generation: int) -> list[tuple[Item, list[Presentation]]]:
        experiment = self.replicate.experiment
        shown = []
        for item_id, found in drawn.items():
            rng = seeds.rng(experiment.seed, "matchups", self.replicate.number, generation, item_id)
            pairs = matchups(item_id, found.drawn, experiment.matchups_per_item, rng)
            shown.append((self.replicate.items[item_id], presentations(pairs, self.arm.judge.repeats)))
        return shown

    async def _verdicts(
        self, judge: Judge, shown: list[tuple[Item, list[Presentation]]], generation: int
    ) -> list[Judgment]:
        """What the judge says; gold's word is read off what the replicate's arms know together."""
        if isinstance(judge, GoldJudge):
            await self._learn_truth([c for _, batch in shown for c in candidates_of(batch)], generation)
            return [one for item, batch in shown for one in judge.verdicts(item, batch, self.replicate.truth)]
        return await _judge_all(judge, shown, self._prefix(generation), (self.replicate.number, generation))

    async def _learn_truth(self, texts: Iterable[Candidate], generation: int) -> None:
        """The calls bear the generation in which a text is first had: the arms of a replicate are in step."""
        await self.replicate.truth.learn(self.replicate.items, texts, f"s{self.replicate.number}/g{generation}/judge")

    def _prefix(self, generation: int) -> str:
        """The call ids' stem. What arms share bears no arm: generation 0, where the arm's judge is the base judge."""
        stem = f"s{self.replicate.number}/g{generation}/judge"
        return stem + (_label(self.replicate.lab, self.arm.judge) if generation == 0 else f"/{self.arm.name}")

    def _learn(
        self,
        judgments: pd.DataFrame,
        features: pd.DataFrame,
        current: Mapping[str, Weights],
        counts: Mapping[str, Counter[str]],
    ) -> LearnedSelection:
        base = (
            self.policy.base if isinstance(self.policy, PoolPolicy) and self.arm.signal.reference == "base" else current
        )
        supports = {i: Support(base[i], counts[i]) for i in counts if current[i]}
        return learn(
            self.arm.signal,
            judgments,
            features,
            self.scale,
            supports,
            on_pool=self.pool is not None,
            size=self.replicate.experiment.candidates_per_item,
        )

    def _mix(self, generation: int) -> dict[str, dict[str, float]]:
        experiment, training = self.replicate.experiment, {}
        for item_id in self.replicate.items:
            real = self.real.get(item_id)
            training[item_id] = strategies.mix(
                self.arm.strategy,
                selections=[dict(selection.get(item_id, {})) for selection in self.selections],
                generation_zero=dict(self.zero.get(item_id, {})),
                real={name: 1.0 / len(real) for name in real} if real else None,
                size=experiment.candidates_per_item,
                rng=seeds.rng(experiment.seed, "mixture", self.replicate.number, generation, item_id),
            )
        return {item_id: mixture for item_id, mixture in training.items() if mixture}


async def _judge_all(
    judge: Judge, shown: list[tuple[Item, list[Presentation]]], prefix: str, stream: tuple[str | int, ...]
) -> list[Judgment]:
    parts = await asyncio.gather(*(judge.judge(item, batch, prefix, stream) for item, batch in shown))
    return [judgment for part in parts for judgment in part]


def _unknown(item: Item, candidate: Candidate) -> bool | None:  # noqa: ARG001 - asked as Truth.correct is
    """An edit keeps the content: gold has nothing to say between a text and its edit."""
    return None


def _label(lab: LoopContext, spec: JudgeSpec) -> str:
    """How call ids that name no arm tell judges apart: nothing for the base judge, else the first arm that has it."""
    if spec == lab.resolved.experiment.judge:
        return ""
    return "/" + next(arm.name for arm in lab.resolved.arms if arm.judge == spec)


def _panel_judges(lab: LoopContext) -> list[tuple[Judge, str, int]]:
    """(judge, label, repeats) of each judge that the panels are shown to: all but the random and gold controls."""
    found = {
        lab.judges[arm.name].name: (lab.judges[arm.name], _label(lab, arm.judge), arm.judge.repeats)
        for arm in lab.resolved.arms
        if not arm.is_control
    }
    return list(found.values())


def _items_frame(lab: LoopContext) -> pd.DataFrame:
    rows = [(i.item_id, prompt_text(i.prompt), i.category, i.reference, i.match) for i in lab.items]
    return pd.DataFrame(rows, columns=["item_id", "prompt", "category", "reference", "match"])
