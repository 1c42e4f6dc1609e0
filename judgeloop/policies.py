"""Policies, the sources of candidates: what drafts an item's texts, and what training changes.

*pool*: texts drafted once a replicate and shared by the arms; an arm's policy is a weight a text, and candidates are drawn by
weight. *exemplar*: every generation drafts anew, and texts of the training set are in-context examples of the next drafting
prompts, a real recursion on any chat API without fine-tuning. *trained*: every generation drafts anew, from the model that
training on the last generation's preferences left. Arms draw from the same named streams, so that arms with equal weights have
equal candidates.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from judgeloop import seeds
from judgeloop.bodies import draft_body
from judgeloop.experiment.schema import Endpoint, PolicySpec
from judgeloop.interchange.preferences import json_lines, training_lines
from judgeloop.records import (
    Call,
    Candidate,
    Distribution,
    Item,
    Message,
    Reply,
    TrainedModel,
    Training,
    TrainingPair,
    Work,
    WorkingClient,
    canonical,
)
from judgeloop.text.templates import Template


@dataclass(frozen=True, slots=True)
class CandidateDraw:
    """One item's candidates in one generation: ``drawn`` in order (a pool text may occur twice); ``failed``: the reason by
    candidate_id of drafts without text."""

    drawn: tuple[Candidate, ...]
    failed: Mapping[str, str]


class Policy(Protocol):
    """One arm's policy in one replicate. Its state changes only in ``candidates``, and in ``update`` (of a trained policy
    ``train``)."""

    def texts(self, item_id: str) -> Mapping[str, Candidate]:
        """Every text of the item that has or may have weight, by candidate_id in a stable order."""
        ...

    def current(self, item_id: str) -> Mapping[str, float]:
        """p_current: this generation's distribution over texts (the pool's weights; uniform over an exemplar policy's
        own candidates). Sums to 1, or is empty if the item has no text."""
        ...

    async def candidates(self, items: Sequence[Item], generation: int) -> dict[str, CandidateDraw]:
        """K candidates an item, by item_id. Raises what the client raises."""
        ...


class MixingPolicy(Policy, Protocol):
    """A policy whose training set is a mixture of texts."""

    def update(self, training: Distribution) -> None:
        """Make the next policy from the training set, weights by item_id and candidate_id."""
        ...


def _draw_names(weights: Mapping[str, float], uniforms: ArrayLike) -> list[str]:
    """Candidate ids drawn by weight, one for each uniform in [0, 1), by inversion: arms that share the uniforms and have
    equal weights draw equal texts."""
    names = list(weights)
    edges = np.cumsum([weights[name] for name in names])
    places = np.searchsorted(edges, np.asarray(uniforms) * edges[-1], side="right")
    return [names[min(int(place), len(names) - 1)] for place in places]


Exemplar = tuple[str | tuple[Message, ...], str]
"""Another item's prompt and a text of the training set that answers it."""
Draft = tuple[Candidate | None, str]
"""(candidate, "") or (None, why there is none)."""


InProcess = Callable[[Sequence[Call], TrainedModel | None], Work]
"""From calls that are made together, and the trained model (None: the base), to what answers them in this process."""


@dataclass(frozen=True)
class Drafter:
    """Samples texts from the experiment's drafting model, each as a named call. ``model``: what training made of it;
    ``in_process``: what makes the drafts where no endpoint does; ``run``: the run folder, where the adapters stand that a server is to
    load."""

    client: WorkingClient
    spec: PolicySpec
    endpoint: Endpoint
    template: Template
    seed: int
    model: TrainedModel | None = None
    in_process: InProcess | None = None
    run: Path = Path()

    def call(
        self,
        item: Item,
        candidate_id: str,
        prefix: str,
        stream: tuple[str | int, ...],
        exemplars: Sequence[Exemplar] = (),
    ) -> Call:
        """The call that asks for one text for one item.

        ``prefix`` is the call id up to the item; ``stream`` names the body's seed, without the arm, so that arms whose
        prompts agree draft the same text.
        """
        body = draft_body(
            self.endpoint,
            self.template,
            prompt=item.prompt,
            exemplars=exemplars,
            temperature=self.spec.temperature,
            max_tokens=self.spec.max_tokens,
            seed=seeds.integer(self.seed, "draft", *stream, item.item_id),
        )
        call_id = f"{prefix}/{quote(item.item_id, safe='._-')}/{candidate_id}"
        call = Call(call_id, self.spec.endpoint, body)
        if self.model is not None:
            body["model"] = self.model.name
            adapter = str((self.run / self.model.adapter).resolve()) if self.model.is_loaded_first else ""
            call = replace(call, weights=self.model.weights, base_url=self.model.base_url, adapter=adapter)
        return call

    def work(self, calls: Sequence[Call]) -> Work | None:
        """What answers these calls in this process, together; None where an endpoint answers."""
        return self.in_process(calls, self.model) if self.in_process else None

    async def draft(
        self,
        item: Item,
        candidate_id: str,
        prefix: str,
        stream: tuple[str | int, ...],
        exemplars: Sequence[Exemplar] = (),
    ) -> Draft:
        """One text for one item (see ``call``). Raises what the client raises."""
        call = self.call(item, candidate_id, prefix, stream, exemplars)
        return await self.answer(item, candidate_id, call, self.work([call]))

    async def answer(self, item: Item, candidate_id: str, call: Call, work: Work | None) -> Draft:
        """The text that a call brings, or why it brings none. Raises what the client raises."""
        reply = await self.client.ask(call, work) if work else await self.client.ask(call)
        reason = _without_text(reply)
        if reason:
            return None, reason
        return Candidate(item.item_id, candidate_id, reply.text or "", reply.log_ratio, reply.is_cut), ""


def _without_text(reply: Reply) -> str:
    """Why a reply is no draft; empty where it is one. A text that declines in its own words is one, and competes."""
    if reply.failure:
        return reply.failure
    filtered = "content_filter" in (reply.refusal, reply.finish_reason)
    if reply.refusal:
        return "filtered" if filtered else "refusal"
    if (reply.text or "").strip():
        return ""
    return "filtered" if filtered else "truncated" if reply.is_cut else "empty"


def _split(names: Iterable[str], drafts: Iterable[Draft]) -> tuple[dict[str, Candidate], dict[str, str]]:
    """(texts, reasons of the drafts that failed), by candidate_id."""
    by_name = dict(zip(names, drafts, strict=True))
    return (
        {name: candidate for name, (candidate, _) in by_name.items() if candidate is not None},
        {name: why for name, (candidate, why) in by_name.items() if candidate is None},
    )


@dataclass(frozen=True)
class Pool:
    """The drafted texts of one replicate, by item_id and candidate_id; ``failed``: the reason of drafts without text."""

    texts: Mapping[str, Mapping[str, Candidate]]
    failed: Mapping[str, Mapping[str, str]]


async def draft_pool(drafter: Drafter, items: Sequence[Item], replicate: int, size: int) -> Pool:
    """``size`` drafts an item, as calls ``s<replicate>/g0/draft/<item>/k<NN>``, shared by the arms."""

    async def draft_item(item: Item) -> tuple[dict[str, Candidate], dict[str, str]]:
        names = [f"k{number:0{len(str(size - 1))}d}" for number in range(size)]
        drafts = await asyncio.gather(
            *(drafter.draft(item, name, f"s{replicate}/g0/draft", (replicate, 0, k)) for k, name in enumerate(names))
        )
        return _split(names, drafts)

    pools = await asyncio.gather(*(draft_item(item) for item in items))
    ids = [item.item_id for item in items]
    return Pool(
        {i: texts for i, (texts, _) in zip(ids, pools, strict=True)},
        {i: failed for i, (_, failed) in zip(ids, pools, strict=True)},
    )


@dataclass
class PoolPolicy:
    """One arm's weights over the pool and the real texts, which start with weight 0. ``size``: candidates an item."""

    pool: Pool
    real: Mapping[str, Mapping[str, Candidate]]
    seed: int
    replicate: int
    size: int
    weights: dict[str, dict[str, float]] = field(init=False)
    base: Mapping[str, Mapping[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.base = {
            item_id: {
                **{name: 1.0 / len(texts) for name in texts},
                **dict.fromkeys(self.real.get(item_id, {}), 0.0),
            }
            for item_id, texts in self.pool.texts.items()
        }
        self.weights = {item_id: dict(weights) for item_id, weights in self.base.items()}

    def texts(self, item_id: str) -> Mapping[str, Candidate]:
        return {**self.pool.texts[item_id], **self.real.get(item_id, {})}

    def current(self, item_id: str) -> Mapping[str, float]:
        weights = self.weights[item_id]
        return weights if any(weights.values()) else {}

    async def candidates(self, items: Sequence[Item], generation: int) -> dict[str, CandidateDraw]:
        return {item.item_id: self._draw(item.item_id, generation) for item in items}

    def _draw(self, item_id: str, generation: int) -> CandidateDraw:
        weights, failed = self.current(item_id), self.pool.failed[item_id] if generation == 0 else {}
        if not weights:
            return CandidateDraw((), failed)
        uniforms = seeds.rng(self.seed, "pool", self.replicate, generation, item_id).random(self.size)
        texts = self.texts(item_id)
        return CandidateDraw(tuple(texts[name] for name in _draw_names(weights, uniforms)), failed)

    def update(self, training: Distribution) -> None:
        for item_id, weights in self.weights.items():
            if training.get(item_id):
                self.weights[item_id] = {name: float(training[item_id].get(name, 0.0)) for name in weights}


@dataclass
class _FreshDrafts:
    """One arm's policy in one replicate, which drafts anew in every generation. ``size``: candidates an item."""

    drafter: Drafter
    arm: str
    items: Sequence[Item]
    real: Mapping[str, Mapping[str, Candidate]]
    seed: int
    replicate: int
    size: int
    stopped: str = field(init=False, default="")
    """Why the policy drafts no more; empty while it does."""
    _texts: dict[str, dict[str, Candidate]] = field(init=False)
    _current: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._texts = {item.item_id: dict(self.real.get(item.item_id, {})) for item in self.items}
        self._current = {}

    def texts(self, item_id: str) -> Mapping[str, Candidate]:
        return self._texts[item_id]

    def current(self, item_id: str) -> Mapping[str, float]:
        names = self._current[item_id]
        return {name: 1.0 / len(names) for name in names}

    async def candidates(self, items: Sequence[Item], generation: int) -> dict[str, CandidateDraw]:
        calls = {item.item_id: self._calls(item, generation) for item in items}
        work = self.drafter.work([call for of_item in calls.values() for call in of_item.values()])
        draws = await asyncio.gather(*(self._draft(item, calls[item.item_id], work) for item in items))
        for item, draw in zip(items, draws, strict=True):
            names = self._current[item.item_id] = [candidate.candidate_id for candidate in draw.drawn]
            self._texts[item.item_id].update(zip(names, draw.drawn, strict=True))
        return {item.item_id: draw for item, draw in zip(items, draws, strict=True)}

    def _calls(self, item: Item, generation: int) -> dict[str, Call]:
        """The calls for an item's drafts, by candidate_id."""
        # Arms share the drafts of generation 0, which no feedback has reached: no arm in the call id, and one call for all.
        arm = "" if generation == 0 else f"/{self.arm}"
        prefix = f"s{self.replicate}/g{generation}/draft{arm}"
        return {
            f"g{generation}k{k}": self.drafter.call(
                item, f"g{generation}k{k}", prefix, (self.replicate, generation, k), self._examples(item, generation, k)
            )
            for k in range(self.size)
        }

    async def _draft(self, item: Item, calls: Mapping[str, Call], work: Work | None) -> CandidateDraw:
        if self.stopped:
            return CandidateDraw((), dict.fromkeys(calls, self.stopped))
        drafts = await asyncio.gather(*(self.drafter.answer(item, name, call, work) for name, call in calls.items()))
        texts, failed = _split(calls, drafts)
        return CandidateDraw(tuple(texts.values()), failed)

    def _examples(self, item: Item, generation: int, k: int) -> list[Exemplar]:  # noqa: ARG002 - a policy's own
        """In-context examples of a draft: none."""
        return []


@dataclass
class ExemplarPolicy(_FreshDrafts):
    """One arm's exemplar policy in one replicate. ``exemplars``: texts that a drafting prompt shows from generation 1 on;
    ``training``: the training set that they come from."""

    exemplars: int
    training: dict[str, dict[str, float]] = field(default_factory=dict)

    def _examples(self, item: Item, generation: int, k: int) -> list[Exemplar]:
        """Texts of other items, drawn by training-set weight in the stream (replicate, generation, item, k)."""
        if generation == 0:
            return []
        rng = seeds.rng(self.seed, "exemplars", self.replicate, generation, item.item_id, k)
        # All random numbers are drawn before any choice, so that arms with the same weights choose the same texts.
        shuffled = [self.items[place] for place in rng.permutation(len(self.items))]
        uniforms = rng.random(self.exemplars)
        sources = [
            source for source in shuffled if source.item_id != item.item_id and self.training.get(source.item_id)
        ]
        examples = []
        for source, uniform in zip(sources, uniforms, strict=False):
            [name] = _draw_names(self.training[source.item_id], [uniform])
            examples.append((source.prompt, self._texts[source.item_id][name].text))
        return examples

    def update(self, training: Distribution) -> None:
        self.training = {
            item_id: {n: float(w) for n, w in weights.items() if w > 0} for item_id, weights in training.items()
        }


DIVERGED = "training_diverged"
"""The reason of drafts that an arm no longer makes, because the loss of its training was not finite."""


class Trainer(Protocol):
    """What trains a model: a command of the user's, or judgeloop itself. It knows nothing of recordings."""

    @property
    def slots(self) -> asyncio.Semaphore:
        """How many trainings may run at the same time, over all arms and replicates."""
        ...

    @property
    def configuration(self) -> Mapping[str, Any]:
        """All that the result may depend on besides the training itself, as JSON can hold it."""
        ...

    def worst_cost(self, training: Training) -> float:
        """US dollars that the training may cost at most, by the endpoint's price."""
        ...

    async def train(self, training: Training) -> Mapping[str, Any]:
        """Train, and return what is recorded: ``model``, ``weights`` (a digest, empty where none is known), and where they
        apply ``base_url``, ``adapter`` and ``metrics``; or ``stopped``, the reason why the arm ends here. Raises TrainingFailed, or AnswersOutstanding where somebody else has
        to train."""
        ...


@dataclass
class TrainedPolicy(_FreshDrafts):
    """One arm's model in one replicate, trained on preferences after every generation but the last. ``reference``: what a
    training starts from, the model of this generation or the base model."""

    trainer: Trainer
    reference: Literal["previous", "base"]

    async def train(self, pairs: Sequence[TrainingPair], generation: int) -> None:
        """Make the next policy by training on ``pairs``: a call ``s<replicate>/g<generation>/train/<arm>``, so that a training
        that ended is never run again. Without a pair the model stays. Raises what the client and the trainer raise."""
        if self.stopped or not pairs:
            return
        training = Training(
            self.replicate, generation, self.arm, seeds.integer(self.seed, "train", self.replicate, generation),
            self.reference, self.drafter.model, tuple(pairs),
        )  # fmt: skip
        start = "" if self.reference == "base" or training.model is None else training.model.weights
        body = {
            "training_set": _digest(json_lines(training_lines(pairs))),
            "configuration": _digest(canonical({**self.trainer.configuration, "reference": self.reference}).encode()),
            "start": start, "pairs": len(pairs), "seed": training.seed,
        }  # fmt: skip
        call = Call(f"s{self.replicate}/g{generation}/train/{self.arm}", self.drafter.spec.endpoint, body, "train")
        reply = await self.drafter.client.ask(
            call, lambda _: self.trainer.train(training), self.trainer.worst_cost(training), self.trainer.slots
        )
        trained = reply.trained
        if trained.get("stopped"):
            self.stopped = str(trained["stopped"])
            return
        model = TrainedModel(
            str(trained["model"]), str(trained.get("weights") or call.key), str(trained.get("base_url") or ""),
            str(trained.get("adapter") or ""),
        )  # fmt: skip
        self.drafter = replace(self.drafter, model=model)


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
