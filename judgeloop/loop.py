"""The main path: one experiment, T generations, every arm and replicate (ARCHITECTURE.md, "The journey of a run").

For each replicate and arm the policy drafts candidates for every item; every matchup is presented in both orders; the
judge answers; verdicts become preferences by the arm's label rule; the signal is fitted and selects; the strategy mixes
the training set; the policy is updated, or its model trained; the generation's tables are written. The panels are judged once
a generation.

Read from the top: ``run``, then ``Replicate.run`` (one seed), then ``ArmLoop.turn`` (one arm, one generation).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from judgeloop import seeds
from judgeloop.errors import AnswersOutstanding, EndpointFailed
from judgeloop.experiment.resolve import Arm, ResolvedExperiment
from judgeloop.experiment.schema import (
    SIGNALS_OF_POLICY,
    ExemplarPolicySpec,
    GroupAdvantageSignalSpec,
    JudgeSpec,
    PoolPolicySpec,
    RewardModelSignalSpec,
    TrainedPolicySpec,
)
from judgeloop.interchange.preferences import Preference, net_preferences
from judgeloop.judging.controls import GoldJudge, Truth, candidates_of
from judgeloop.judging.embeddings import Embedder
from judgeloop.judging.judges import Judge, ScoringJudge, model_name
from judgeloop.judging.pairing import candidates_frame, completed, judgments_frame, matchups, presentations
from judgeloop.judging.panels import (
    AnchorPanel,
    ProbePair,
    anchor_from_pairs,
    draft_anchor,
    probes_of_panel,
    with_probes,
)
from judgeloop.learning import strategies
from judgeloop.learning.reward_model import AnchorTexts, EmbeddingSpace, embedding_space, learn_reward_model
from judgeloop.learning.signals import LearnedSelection, Support, generation_zero_scale, learn, learn_from_scores
from judgeloop.policies import (
    CandidateDraw,
    Drafter,
    ExemplarPolicy,
    MixingPolicy,
    Pool,
    PoolPolicy,
    TrainedPolicy,
    Trainer,
    draft_pool,
)
from judgeloop.records import Candidate, Distribution, Item, Judgment, Presentation, TrainingPair, prompt_text
from judgeloop.rundir import RunFolder
from judgeloop.stats.items import marked
from judgeloop.text.features import FEATURES, features_frame

Weights = Mapping[str, float]
"""candidate_id → weight or count, of one item."""
T = TypeVar("T")
Batch = tuple[Item, list[Presentation]]
"""An item with its presentations, which a judge is given together."""


@dataclass(frozen=True, slots=True)
class GenerationDone:
    """A generation that a replicate has finished in all arms, for the progress view; ``unscored``: judgments in it without
    a verdict; ``lost``: drafts without text, those that arms share once; ``lengths``: arm → mean length of its drafts, in doublings."""

    replicate: int
    generation: int
    unscored: int
    lost: int = 0
    lengths: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LoopContext:
    """What a run works with, made ready before the first call (see ``judgeloop.commands.run``)."""

    resolved: ResolvedExperiment
    items: tuple[Item, ...]
    real: Mapping[str, tuple[str, ...]]
    """item_id → its real texts; empty where no arm uses any."""
    anchor_pairs: tuple[tuple[str, Item, str, str], ...]
    """(pair_id, item, text_a, text_b) of the anchor panel's file, where the experiment names one."""
    drafter: Drafter
    judges: Mapping[str, Judge]
    """Arm's name → its judge; arms with the same judge share the object."""
    gold: GoldJudge | None
    """The gold judge, where a gold arm is run. Gold then makes the same selection from every arm's own candidates, and where
    items have ``match: judge`` its model is asked whether the texts of all arms and of the anchor panel are right."""
    folder: RunFolder
    trainers: Mapping[str, Trainer] = field(default_factory=dict)
    """Arm's name → what trains its model; empty where the policy is none that is trained."""
    embedders: Mapping[str, Embedder] = field(default_factory=dict)
    """Arm's name → what embeds its texts; arms whose signal is a reward model."""
    on_generation: Callable[[GenerationDone], None] = lambda _: None
    before_training: Callable[[], None] = lambda: None
    """Called where models are trained, when generation 0 of all replicates is drafted, judged and written, and none is trained."""

    @cached_property
    def near_copies(self) -> Mapping[str, str]:
        """item_id → the first of its near-copies, of the items that copy another."""
        frame = _items_frame(self)
        if "near_copy_of" not in frame:
            return {}
        copies = frame[frame["near_copy_of"].notna() & (frame["near_copy_of"] != "")]
        return dict(zip(copies["item_id"], copies["near_copy_of"], strict=True))

    def truth(self) -> Truth:
        """A new Truth for one unit of work; nothing has been asked yet."""
        return Truth(self.gold.matcher if self.gold is not None else None)


async def run(
    context: LoopContext, replicates: Callable[[JudgedPanels], Awaitable[None]] | None = None
) -> None:  # fmt: skip
    """Close the loop for every replicate: at once, or one after another where they share one model in this process, so that an
    interruption leaves whole replicates; where models are trained, generation 0 of all of them first. ``replicates`` has other
    processes do them, with ``run_replicate``, and the panels judged meanwhile. Raises what the client raises; the run folder then resumes."""
    context.folder.write_part("items", "all", _items_frame(context))
    panels, experiment = JudgedPanels(context), context.resolved.experiment
    if replicates is not None:
        await panels.make()
        await replicates(panels)
        return
    # Models that share this process are trained one replicate after another.
    turns = asyncio.Semaphore(1 if isinstance(experiment.policy, TrainedPolicySpec) else experiment.replicates)

    async def in_turn(work: Callable[[], Awaitable[None]]) -> None:
        async with turns:
            await work()

    loops = [Replicate(context, number, panels) for number in range(experiment.replicates)]
    if experiment.policy.kind in SIGNALS_OF_POLICY:
        await _together(*(in_turn(replicate.start) for replicate in loops))
        context.before_training()
    await _together(*(in_turn(replicate.run) for replicate in loops))


async def run_replicate(context: LoopContext, number: int) -> None:
    """Close the loop for one replicate, in a process of its own; another one has made the panels and judges them."""
    await Replicate(context, number, JudgedPanels(context, elsewhere=True)).run()


async def _together(*work: Awaitable[T]) -> list[T]:
    """The results of what is done at once. An error ends all of it; but where trainings wait for somebody else, the others
    go as far as they can first, and AnswersOutstanding then names all that wait."""

    async def held(each: Awaitable[T]) -> T | AnswersOutstanding:
        try:
            return await each
        except AnswersOutstanding as waits:
            return waits

    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(held(each)) for each in work]
    results = [task.result() for task in started]
    waiting = [request for result in results if isinstance(result, AnswersOutstanding) for request in result.requests]
    if waiting:
        message = str(next(result for result in results if isinstance(result, AnswersOutstanding)))
        raise AnswersOutstanding(message, waiting)
    return [result for result in results if not isinstance(result, AnswersOutstanding)]


class Replicate:
    """One seed with all its arms: an independent unit of work."""

    def __init__(self, context: LoopContext, number: int, panels: JudgedPanels) -> None:
        self.context, self.number, self.panels = context, number, panels
        self.experiment = context.resolved.experiment
        self.items = {item.item_id: item for item in context.items}
        self.truth = context.truth()
        self._features: dict[tuple[str, str], Any] = {}
        self._arms: list[ArmLoop] = []

    async def start(self) -> None:
        """Draft, judge and write generation 0, and learn nothing from it yet."""
        arms = await self._made_arms()
        tables, _ = await asyncio.gather(_together(*(arm.start() for arm in arms)), self.panels.judge(0))
        self._write(0, tables)

    async def run(self) -> None:
        """All generations, the arms in step; the tables are written generation by generation."""
        arms = await self._made_arms()
        for generation in range(self.experiment.generations + 1):
            tables, _ = await asyncio.gather(
                _together(*(arm.turn(generation) for arm in arms)), self.panels.judge(generation)
            )
            self._write(generation, tables)
            unscored = sum(int((table["judgments"]["verdict"] == "unscored").sum()) for table in tables)
            lost = [int((table["candidates"]["reason"] != "").sum()) for table in tables]
            lengths = {arm.arm.name: _mean_length(table["candidates"]) for arm, table in zip(arms, tables, strict=True)}
            done = GenerationDone(
                self.number, generation, unscored, max(lost) if generation == 0 else sum(lost), lengths
            )
            self.context.on_generation(done)

    async def _made_arms(self) -> list[ArmLoop]:
        """The replicate's arms, made once, with the pool that they share where there is one."""
        if not self._arms:
            pool = None
            if isinstance(self.experiment.policy, PoolPolicySpec):
                size = self.experiment.policy.pool_size
                pool = await draft_pool(self.context.drafter, self.context.items, self.number, size)
            self._arms = [ArmLoop(self, arm, pool) for arm in self.context.resolved.arms]
        return self._arms

    def _write(self, generation: int, tables: Sequence[Mapping[str, pd.DataFrame]]) -> None:
        """One generation's part of every table, with the rows of all arms."""
        for name in ("candidates", "judgments", "preferences", "signals"):
            frames = [table[name] for table in tables if name in table]
            if frames:
                part = f"s{self.number:03d}-g{generation:02d}"
                self.context.folder.write_part(name, part, pd.concat(frames, ignore_index=True))

    def features(self, candidates: Mapping[tuple[str, str], Candidate]) -> pd.DataFrame:
        """The FEATURES of texts, indexed by (item_id, candidate_id); a text is measured once."""
        keys = [(c.text, self.items[i].language) for (i, _), c in candidates.items()]
        new_keys = [key for key in dict.fromkeys(keys) if key not in self._features]
        if new_keys:
            texts, languages = zip(*new_keys, strict=True)
            measured = features_frame(texts, languages)[list(FEATURES)].to_numpy(dtype=float)
            self._features.update(zip(new_keys, measured, strict=True))
        index = pd.MultiIndex.from_tuples(list(candidates), names=["item_id", "candidate_id"])
        return pd.DataFrame([self._features[key] for key in keys], index=index, columns=list(FEATURES))


def _mean_length(candidates: pd.DataFrame) -> float:
    """The mean length of the drafts, in doublings, each item alike; NaN where none has a text."""
    weights, lengths = candidates["n_drawn"].fillna(0).to_numpy(dtype=float), candidates["length"].to_numpy(dtype=float)
    used = (weights > 0) & ~np.isnan(lengths)
    columns = pd.DataFrame({"length": (lengths * weights)[used], "weight": weights[used]})
    sums = columns.groupby(candidates["item_id"].to_numpy()[used]).sum()
    return float((sums["length"] / sums["weight"]).mean())


@dataclass(frozen=True)
class JudgedDrafts:
    """What an arm has drafted, judged and measured in a generation, from which it then learns. ``counts``: how often each text was
    drawn; ``texts``: all that the policy has, by (item_id, candidate_id), as are ``features``; ``current``: p_current."""

    draws: Mapping[str, CandidateDraw]
    counts: Mapping[str, Counter[str]]
    texts: Mapping[tuple[str, str], Candidate]
    batches: list[Batch]
    judgments: pd.DataFrame
    features: pd.DataFrame
    current: Mapping[str, Weights]


class ArmLoop:
    """One arm of one replicate. Its state is the policy, generation 0's candidates and the selections so far, or the
    preferences where these train a model."""

    def __init__(self, replicate: Replicate, arm: Arm, pool: Pool | None) -> None:
        """``pool``: the replicate's, None for a policy that drafts anew."""
        self.replicate, self.context, self.arm, self.pool = replicate, replicate.context, arm, pool
        self.real = self._real_candidates()
        self.policy = self._first_policy()
        self.selections: list[Distribution] = []
        self.preferences: list[list[Preference]] = []
        self.generation_zero: dict[str, Weights] = {}
        self.scale: pd.Series[float] = pd.Series(dtype=float)
        """The unit of each feature: its SD among the replicate's own generation-0 candidates."""
        self._started: JudgedDrafts | None = None
        """Generation 0, between ``start`` and its ``turn``."""
        self.space: EmbeddingSpace | None = None
        """The unit of embeddings, of generation 0's texts too; of an arm whose signal is a reward model."""

    def _real_candidates(self) -> dict[str, dict[str, Candidate]]:
        """The real texts by item_id and candidate_id; empty where the arm's training set holds none from a file."""
        if not (self.arm.strategy.real_fraction and self.arm.strategy.real):
            return {}
        return {
            item_id: {f"real{n}": Candidate(item_id, f"real{n}", text) for n, text in enumerate(texts)}
            for item_id, texts in self.context.real.items()
        }

    def _first_policy(self) -> MixingPolicy | TrainedPolicy:
        """The policy of generation 0."""
        number, experiment = self.replicate.number, self.replicate.experiment
        size, seed = experiment.candidates_per_item, experiment.seed
        if self.pool is not None:
            return PoolPolicy(self.pool, self.real, seed, number, size)
        drafts = (self.context.drafter, self.arm.name, self.context.items, self.real, seed, number, size)
        if isinstance(self.arm.policy, ExemplarPolicySpec):
            return ExemplarPolicy(*drafts, self.arm.policy.exemplars)
        return TrainedPolicy(*drafts, self.context.trainers[self.arm.name], self.arm.signal.reference)

    async def start(self) -> dict[str, pd.DataFrame]:
        """Draft and judge generation 0, and learn nothing from it yet; its tables so far by name."""
        self._started = await self._draft_and_judge(0)
        return self._tables(self._started, 0)

    async def _draft_and_judge(self, generation: int) -> JudgedDrafts:
        """The policy's candidates of a generation, judged and measured."""
        # Candidates.
        draws = await self.policy.candidates(self.context.items, generation)
        if generation == 0:
            self._require_texts(draws)
        counts = {item_id: Counter(c.candidate_id for c in draw.drawn) for item_id, draw in draws.items()}
        texts = {(i, name): c for i in self.replicate.items for name, c in self.policy.texts(i).items()}
        # Judging, in both orders.
        batches = self._present(draws, generation)
        judged, _ = await asyncio.gather(
            self._judge(self.context.judges[self.arm.name], batches, generation),
            self._learn_truth(texts.values(), generation),
        )
        judgments = self._judgments_frame(judged, generation)
        # Measuring.
        features = self.replicate.features(texts)
        if generation == 0:
            self._keep_generation_zero(counts, features)
        return JudgedDrafts(draws, counts, texts, batches, judgments, features, self._current_weights())

    async def turn(self, generation: int) -> dict[str, pd.DataFrame]:
        """One generation: draft and judge, where ``start`` has not, and, but for the last, learn from the picks and update the
        policy. The generation's tables by name."""
        judged, self._started = self._started or await self._draft_and_judge(generation), None
        draws, counts, batches, features = judged.draws, judged.counts, judged.batches, judged.features
        judgments, current = judged.judgments, judged.current
        tables: dict[str, pd.DataFrame] = {}
        weights: dict[str, Mapping[str, Weights]] = {}
        if generation < self.replicate.experiment.generations:
            # Labels, signal and selection.
            judge = self.context.judges[self.arm.name]
            learned = await self._learn(judge, judgments, features, current, counts, generation)
            tables["preferences"] = learned.preferences
            if learned.signal is not None:
                tables["signals"] = learned.signal.frame(self.replicate.number, self.arm.name, generation)
            if isinstance(self.policy, TrainedPolicy):
                # The training set's preferences, and the model that they train: the next policy.
                mixed = self._mix_pairs(learned.preferences, draws, generation)
                weights |= {"p_selected": _chosen(self.preferences[-1], current), "p_training": _chosen(mixed, current)}
                weights["p_next"] = weights["p_training"]
                pairs = [
                    TrainingPair(self.replicate.items[p.group[-1]].prompt, p.chosen, p.rejected, p.margin)
                    for p in mixed
                ]
                await self.policy.train(pairs, generation)
            else:
                # Gold's selection from the same candidates.
                if self.context.gold is not None and not self.arm.is_control:
                    by_gold = await self._judge(self.context.gold, batches, generation)
                    gold_judgments = self._judgments_frame(by_gold, generation)
                    learned_gold = await self._learn(
                        self.context.gold, gold_judgments, features, current, counts, generation
                    )
                    weights["p_selected_gold"] = learned_gold.selection
                self.selections.append(learned.selection)
                # The training set, and the next policy.
                training = self._mix(generation)
                self.policy.update(training)
                weights |= {"reward": learned.rewards, "p_selected": learned.selection, "p_training": training}
                # An exemplar policy's next distribution over texts is not known: it drafts new ones from this training set.
                weights["p_next"] = self._current_weights() if self.pool is not None else training
        return {**self._tables(judged, generation, weights), **tables}

    def _tables(
        self, judged: JudgedDrafts, generation: int, learned: Mapping[str, Mapping[str, Weights]] | None = None
    ) -> dict[str, pd.DataFrame]:
        """The tables of what was drafted and judged; ``learned``: the distributions that learning adds, by column."""
        failed = {(i, name): why for i, draw in judged.draws.items() for name, why in draw.failed.items()}
        weights = {"n_drawn": judged.counts, "p_current": judged.current, **(learned or {})}
        return {
            "candidates": self._candidates_frame(judged.texts, failed, weights, generation), "judgments": judged.judgments,
        }  # fmt: skip

    def _present(self, draws: Mapping[str, CandidateDraw], generation: int) -> list[Batch]:
        """Every matchup of an item's candidates (or as many as the experiment says), in both orders."""
        experiment = self.replicate.experiment
        batches = []
        for item_id, draw in draws.items():
            rng = seeds.rng(experiment.seed, "matchups", self.replicate.number, generation, item_id)
            pairs = matchups(item_id, draw.drawn, experiment.matchups_per_item, rng)
            batches.append((self.replicate.items[item_id], presentations(pairs, self.arm.judge.repeats)))
        return batches

    async def _judge(self, judge: Judge, batches: list[Batch], generation: int) -> list[Judgment]:
        """The judge's judgments. Those of gold follow from what the replicate knows of its texts, for all arms at once."""
        if isinstance(judge, GoldJudge):
            await self._learn_truth([c for _, batch in batches for c in candidates_of(batch)], generation)
            return [verdict for item, batch in batches for verdict in judge.verdicts(item, batch, self.replicate.truth)]
        return await _judge_batches(judge, batches, self._prefix(generation), (self.replicate.number, generation))

    async def _learn_truth(self, texts: Iterable[Candidate], generation: int) -> None:
        """Ask whether texts are right. The call ids name the generation in which a text first appears: the arms of a
        replicate are in step."""
        await self.replicate.truth.learn(self.replicate.items, texts, f"s{self.replicate.number}/g{generation}/judge")

    def _prefix(self, generation: int) -> str:
        """The call ids of judgments up to the item. They name no arm where arms share the calls: at generation 0, where the
        candidates are the same."""
        # A score of a pool's text may depend on neither: every text is scored once.
        generation = 0 if isinstance(self.arm.signal, GroupAdvantageSignalSpec) else generation
        stem = f"s{self.replicate.number}/g{generation}/judge"
        return stem + (_judge_label(self.context, self.arm.judge) if generation == 0 else f"/{self.arm.name}")

    def _require_texts(self, draws: Mapping[str, CandidateDraw]) -> None:
        """Raise EndpointFailed where none of the first drafts, which the arms share, has a text."""
        reasons = Counter(why for draw in draws.values() for why in draw.failed.values())
        if not reasons or any(draw.drawn for draw in draws.values()):
            return
        spec, endpoint = self.arm.policy, self.context.drafter.endpoint
        listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        mended = "mend that"
        if {"truncated", "empty"} & set(reasons):
            mended = f"raise policy.max_tokens, which is {spec.max_tokens or endpoint.max_tokens} and which a thought may use up"
        raise EndpointFailed(
            f"{f'endpoints.{spec.endpoint}' if spec.endpoint else 'policy'}: none of {reasons.total():,} drafts of generation 0 has a text ({listed}); {mended}, and give another --out"
        )

    def _keep_generation_zero(self, counts: Mapping[str, Counter[str]], features: pd.DataFrame) -> None:
        """Keep the distribution of generation 0's candidates, and the scale of their features."""
        self.generation_zero = {
            i: {name: n / count.total() for name, n in count.items()} for i, count in counts.items() if count
        }
        drawn = [(i, name) for i, count in counts.items() for name in count.elements()]
        self.scale = generation_zero_scale(features.loc[drawn])

    def _current_weights(self) -> dict[str, Weights]:
        """p_current of every item: the policy's distribution over its texts."""
        return {item_id: self.policy.current(item_id) for item_id in self.replicate.items}

    async def _learn(
        self,
        judge: Judge,
        judgments: pd.DataFrame,
        features: pd.DataFrame,
        current: Mapping[str, Weights],
        counts: Mapping[str, Counter[str]],
        generation: int,
    ) -> LearnedSelection:
        """The preferences by the arm's label rule, the signal fitted to them, and its selection; or the selection that
        follows from the judge's scores."""
        reference = current
        if isinstance(self.policy, PoolPolicy) and self.arm.signal.reference == "base":
            reference = self.policy.base
        supports = {i: Support(reference[i], counts[i]) for i in counts if current[i]}
        if isinstance(self.arm.signal, GroupAdvantageSignalSpec):
            experiment, number = self.replicate.experiment, self.replicate.number
            return learn_from_scores(
                self.arm.signal, judgments, await self._scores(judge, supports, generation), supports,
                size=experiment.candidates_per_item,
                stream=lambda item_id: seeds.rng(experiment.seed, "groups", number, generation, item_id),
            )  # fmt: skip
        if isinstance(self.arm.signal, RewardModelSignalSpec):
            embedder = self.context.embedders[self.arm.name]
            embeddings = await self._embeddings(embedder, supports, generation)
            self.space = self.space or embedding_space(embeddings)
            if self.space is None:
                raise EndpointFailed(
                    f"endpoints.{embedder.name}: {embedder.endpoint.model} gives all texts of an item the same embedding, or none; check that it is served as an embedding model, and give another --out"
                )
            return learn_reward_model(
                self.arm.signal, judgments, embeddings, self.space, await self.replicate.panels.embedded(embedder), supports,
                self.context.near_copies, on_pool=self.pool is not None, size=self.replicate.experiment.candidates_per_item,
            )  # fmt: skip
        return learn(
            self.arm.signal,
            judgments,
            features,
            self.scale,
            supports,
            on_pool=self.pool is not None,
            size=self.replicate.experiment.candidates_per_item,
        )

    async def _embeddings(
        self, embedder: Embedder, supports: Mapping[str, Support], generation: int
    ) -> pd.DataFrame:  # fmt: skip
        """The embeddings of all texts that may be selected, indexed by (item_id, candidate_id). Those of a pool, and generation
        0's drafts, are shared by the arms and asked once."""
        is_shared = self.pool is not None or generation == 0
        stem = embedder.stem(f"s{self.replicate.number}/g{0 if is_shared else generation}")
        texts = [
            (self.replicate.items[i], self.policy.texts(i)[name])
            for i, support in supports.items()
            for name in support.reference
        ]
        return await embedder.frame(texts, stem if is_shared else f"{stem}/{self.arm.name}")

    async def _scores(
        self, judge: Judge, supports: Mapping[str, Support], generation: int
    ) -> dict[str, dict[str, float]]:
        """item_id → candidate_id → the judge's score, of the texts that groups are drawn from."""
        batches = [
            (
                self.replicate.items[i],
                [self.policy.texts(i)[name] for name, mass in support.reference.items() if mass > 0],
            )
            for i, support in supports.items()
        ]
        if isinstance(judge, GoldJudge):
            # Whether they are right is known by now (``_learn_truth``).
            return {item.item_id: judge.scores(item, texts, self.replicate.truth) for item, texts in batches}
        assert isinstance(judge, ScoringJudge)  # what the experiment may pair with this signal
        prefix, stream = self._prefix(generation), (self.replicate.number, generation)
        scores = await asyncio.gather(*(judge.scores(item, texts, prefix, stream) for item, texts in batches))
        return {item.item_id: of_item for (item, _), of_item in zip(batches, scores, strict=True)}

    def _mix(self, generation: int) -> dict[str, dict[str, float]]:
        """The training set by the arm's strategy: weights by item_id and candidate_id; items without any are left out."""
        experiment, training = self.replicate.experiment, {}
        for item_id in self.replicate.items:
            real = self.real.get(item_id)
            training[item_id] = strategies.mix(
                self.arm.strategy,
                selections=[dict(selection.get(item_id, {})) for selection in self.selections],
                generation_zero=dict(self.generation_zero.get(item_id, {})),
                real={name: 1.0 / len(real) for name in real} if real else None,
                size=experiment.candidates_per_item,
                rng=seeds.rng(experiment.seed, "mixture", self.replicate.number, generation, item_id),
            )
        return {item_id: mixture for item_id, mixture in training.items() if mixture}

    def _mix_pairs(
        self, preferences: pd.DataFrame, draws: Mapping[str, CandidateDraw], generation: int
    ) -> list[Preference]:
        """The training set of a policy whose weights are trained, by the arm's strategy: preference pairs. Real data are the
        pairs of generation 0, or the texts of a file, each preferred to a candidate of this generation."""
        experiment, items = self.replicate.experiment, self.replicate.items
        prompts = {item_id: prompt_text(item.prompt) for item_id, item in items.items()}
        self.preferences.append(
            net_preferences(preferences, lambda row, name: self.policy.texts(row["item_id"])[name].text, prompts)
        )
        real = self.preferences[0]
        if self.real:
            real = [
                Preference((item_id,), prompts[item_id], text.text, candidate.text, 1.0, text.candidate_id)
                for item_id, texts in self.real.items()
                for text in texts.values()
                for candidate in draws[item_id].drawn
                if text.text != candidate.text
            ]
        rng = seeds.rng(experiment.seed, "mixture", self.replicate.number, generation)
        return strategies.mix_pairs(self.arm.strategy, generations=self.preferences, real=real, rng=rng)

    def _judgments_frame(self, judgments: Iterable[Judgment], generation: int) -> pd.DataFrame:
        """Rows of the table ``judgments``."""
        return judgments_frame(
            judgments, self.replicate.items, self.replicate.truth.correct, panel="policy",
            replicate=self.replicate.number, arm=self.arm.name, generation=generation,
        )  # fmt: skip

    def _candidates_frame(
        self,
        texts: Mapping[tuple[str, str], Candidate],
        failed: Mapping[tuple[str, str], str],
        weights: Mapping[str, Mapping[str, Weights]],
        generation: int,
    ) -> pd.DataFrame:
        """Rows of the table ``candidates``: a pool's texts all, of other policies those with a weight in a column."""
        listed = [
            candidate
            for (i, name), candidate in texts.items()
            if self.pool is not None or any(name in column.get(i, {}) for column in weights.values())
        ]
        frame = candidates_frame(listed, failed, self.replicate.items, self.replicate.truth.correct, weights)
        return completed(frame, replicate=self.replicate.number, arm=self.arm.name, generation=generation)


def _chosen(pairs: Iterable[Preference], current: Mapping[str, Weights]) -> dict[str, Weights]:
    """The distribution of every item's chosen texts, each pair alike as in TRL's losses; of an item without a pair, from whose
    texts nothing is learned, its current one."""
    counts = {item_id: Counter[str]() for item_id in current}
    for pair in pairs:
        counts[pair.group[-1]][pair.candidate_id] += 1
    return {
        item_id: {name: n / count.total() for name, n in count.items()} or current[item_id]
        for item_id, count in counts.items()
    }


class JudgedPanels:
    """The anchor panel, and the probe panel of its texts' edits. Every distinct judge but the controls judges them once a
    generation, when the first replicate gets there, so that a judge that its provider changed is seen to change."""

    def __init__(self, context: LoopContext, *, elsewhere: bool = False) -> None:
        """``elsewhere``: another process judges and writes them."""
        self._context, self._truth, self._elsewhere = context, context.truth(), elsewhere
        self._panel: asyncio.Task[AnchorPanel] | None = None
        self._probes: dict[str, list[ProbePair]] = {}
        """Judge's name → its probe pairs; empty where the experiment has no probes."""
        self._judged: dict[int, asyncio.Task[None]] = {}
        self._embedded: dict[Embedder, asyncio.Task[AnchorTexts]] = {}

    async def judge(self, generation: int) -> None:
        """Judge the panels in this generation, once; returns when that is done and written."""
        if self._context.resolved.experiment.panels.anchor == 0 or self._elsewhere:
            return
        panel = await self._made()
        if generation not in self._judged:
            self._judged[generation] = asyncio.create_task(self._judge(panel, generation))
        await self._judged[generation]

    async def make(self) -> None:
        """Make the panels, and embed their texts for every arm that needs it; nothing where there is no panel."""
        if self._context.resolved.experiment.panels.anchor:
            await self._made()
            await asyncio.gather(*map(self.embedded, set(self._context.embedders.values())))

    async def embedded(self, embedder: Embedder) -> AnchorTexts | None:
        """The anchor panel's texts with their features and embeddings; None where there is no panel. Embedded once, for all arms
        and replicates."""
        if self._context.resolved.experiment.panels.anchor == 0:
            return None
        panel = await self._made()
        if embedder not in self._embedded:
            self._embedded[embedder] = asyncio.create_task(_anchor_texts(panel, embedder))
        return await self._embedded[embedder]

    def _made(self) -> asyncio.Task[AnchorPanel]:
        """The panel, made when it is first asked for."""
        if self._panel is None:
            self._panel = asyncio.create_task(self._make())
        return self._panel

    async def _make(self) -> AnchorPanel:
        """The anchor panel, drafted or from its file; its texts and their edits are written."""
        context, panels = self._context, self._context.resolved.experiment.panels
        if isinstance(panels.anchor, int):
            panel = await draft_anchor(panels.anchor, context.items, context.drafter.draft)
        else:
            panel = anchor_from_pairs(context.anchor_pairs)
        texts = [candidate for matchup in panel.matchups for candidate in (matchup.a, matchup.b)]
        if self._elsewhere:
            return panel
        await self._truth.learn(panel.items, texts, "panels/g0/judge")
        self._write_candidates("panels-g00", panel, texts, {(i, name): why for i, name, why in panel.failed})
        if panels.probes:
            self._edit(panel)
        return panel

    def _edit(self, panel: AnchorPanel) -> None:
        """Make the probe panel. Judges share its edits but for those that name the judge; each is written once."""
        experiment = self._context.resolved.experiment
        edits: dict[tuple[str, str], Candidate] = {}
        for judge, _, _ in _panel_judges(self._context):
            pairs = probes_of_panel(panel, experiment.panels.probes, experiment.seed, model_name(judge))
            self._probes[judge.name] = pairs
            edits |= {(p.matchup.item_id, p.matchup.b.candidate_id): p.matchup.b for p in pairs}
        # An edit keeps the content: no model is asked whether it is right.
        self._write_candidates("panels-g00-probe", panel, list(edits.values()), {})

    async def _judge(self, panel: AnchorPanel, generation: int) -> None:
        context, anchor_frames, probe_frames = self._context, [], []
        for judge, label, repeats in _panel_judges(context):
            prefix = f"panels/g{generation}/judge{label}"
            batches = [(panel.items[i], presentations(pairs, repeats)) for i, pairs in panel.by_item().items()]
            judged = await _judge_batches(judge, batches, prefix, ("panels", generation))
            anchor_frames.append(
                judgments_frame(judged, panel.items, self._truth.correct, panel="anchor", generation=generation)
            )
            probes = self._probes.get(judge.name, [])
            batches = [(panel.items[p.matchup.item_id], presentations([p.matchup])) for p in probes]
            judged = await _judge_batches(judge, batches, prefix, ("panels", generation))
            frame = judgments_frame(judged, panel.items, _not_known, panel="probe", generation=generation)
            probe_frames.append(with_probes(frame, probes))
        self._write_judgments(f"panels-g{generation:02d}", anchor_frames)
        if self._probes:
            self._write_judgments(f"panels-g{generation:02d}-probe", probe_frames)

    def _write_candidates(
        self, part: str, panel: AnchorPanel, texts: list[Candidate], failed: Mapping[tuple[str, str], str]
    ) -> None:
        frame = candidates_frame(texts, failed, panel.items, self._truth.correct)
        self._context.folder.write_part("candidates", part, completed(frame, replicate=None, arm="", generation=0))

    def _write_judgments(self, part: str, frames: list[pd.DataFrame]) -> None:
        if frames:
            self._context.folder.write_part("judgments", part, pd.concat(frames, ignore_index=True))


async def _anchor_texts(panel: AnchorPanel, embedder: Embedder) -> AnchorTexts:
    """The panel's pairs of texts with what a reward model is told by."""
    texts = list({(c.item_id, c.candidate_id): c for pair in panel.matchups for c in (pair.a, pair.b)}.values())
    items = [panel.items[text.item_id] for text in texts]
    embeddings = await embedder.frame(list(zip(items, texts, strict=True)), embedder.stem("panels/g0"))
    measured = features_frame([text.text for text in texts], [item.language for item in items])[list(FEATURES)]
    pairs = [(pair.item_id, pair.a.candidate_id, pair.b.candidate_id) for pair in panel.matchups]
    return AnchorTexts(
        pd.DataFrame(pairs, columns=["item_id", "a", "b"]), measured.set_index(embeddings.index), embeddings
    )


async def _judge_batches(
    judge: Judge, batches: list[Batch], prefix: str, stream: tuple[str | int, ...]
) -> list[Judgment]:
    """All batches at once; the judgments in the batches' order."""
    parts = await asyncio.gather(*(judge.judge(item, batch, prefix, stream) for item, batch in batches))
    return [judgment for part in parts for judgment in part]


def _not_known(item: Item, candidate: Candidate) -> bool | None:  # noqa: ARG001 - asked as Truth.correct is
    """Gold of a text and its edit: none, for an edit keeps the content."""
    return None


def _judge_label(context: LoopContext, spec: JudgeSpec) -> str:
    """What tells judges apart in call ids that name no arm: nothing for the base judge, else the first arm that has it."""
    if spec == context.resolved.experiment.judge:
        return ""
    return "/" + next(arm.name for arm in context.resolved.arms if arm.judge == spec)


def _panel_judges(context: LoopContext) -> list[tuple[Judge, str, int]]:
    """(judge, label in call ids, repeats) of each judge of the panels: all but those of control arms, positive ones too."""
    judges = {
        context.judges[arm.name].name: (
            context.judges[arm.name],
            _judge_label(context, arm.judge),
            arm.judge.repeats,
        )
        for arm in context.resolved.arms
        if not (arm.is_control or arm.is_positive_control)
    }
    return list(judges.values())


def _items_frame(context: LoopContext) -> pd.DataFrame:
    """The table ``items``."""
    rows = [(i.item_id, prompt_text(i.prompt), i.category, i.reference, i.match) for i in context.items]
    return marked(pd.DataFrame(rows, columns=["item_id", "prompt", "category", "reference", "match"]))
