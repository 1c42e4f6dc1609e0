"""``judgeloop.reward``: a judge as the reward function of a trainer, as TRL's GRPO, RLOO and online DPO trainers take it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import Field

from judgeloop.commands.session import Session, check_prices, environment
from judgeloop.errors import FolderMismatch, InvalidInput, StorageFailed
from judgeloop.experiment.resolve import asked_models, validated, without_later_keys
from judgeloop.experiment.schema import Block, Endpoint, JudgeSpec
from judgeloop.judging.judges import Judge, make_judge, resolve_mode
from judgeloop.judging.pairing import presentations
from judgeloop.judging.reward_models import JudgeOfTexts, RewardJudge, check_reward
from judgeloop.records import Candidate, Item, Judgment, Matchup, Message, canonical, prompt_text
from judgeloop.rundir import RunFolder
from judgeloop.serving import engines
from judgeloop.serving.planted_spec import features_of
from judgeloop.stats.presentations import PICKED
from judgeloop.wire.client import Ledger, WireClient

T = TypeVar("T")
VERDICTS = "verdicts.jsonl"
_PICKS, _TRIAL = "reward/picks", "reward/trial"
_STREAM = ("reward",)


class RewardSpec(Block):
    """A judge and the endpoints that it asks, as in an experiment file."""

    judge: JudgeSpec
    """Who judges."""
    endpoints: dict[str, Endpoint] = Field(default_factory=dict)
    """Named endpoints; none where no model is asked."""
    seed: int = 0
    """Every random stream starts here."""


class JudgeReward:
    """A judge as a reward function, opened and closed as a context manager or by ``close``.

    A prompt's completions are judged in all pairs and both orders, n(n − 1) judgments of n completions; a judge that scores texts
    (pointwise, reward) is asked once a completion. What was judged before, in this process or in an earlier one on the same folder, is
    not asked again. Each judgment is a row of ``verdicts.jsonl``, which ``judgeloop.analyze`` reads: what the judge's picks depended on
    while it trained the model.
    """

    def __init__(self, spec: RewardSpec, folder: RunFolder, ledger: Ledger) -> None:
        self.__name__ = "judge_reward"  # a trainer's logs name the reward by it
        self._lock = threading.Lock()
        self._verdicts = folder.path / VERDICTS
        raw = spec.model_dump(mode="json", exclude={"endpoints"})
        asked = {name: without_later_keys(endpoint, "top_logprobs") for name, endpoint in spec.endpoints.items()}
        identity = "sha256:" + hashlib.sha256(canonical({"reward": raw, "endpoints": asked}).encode()).hexdigest()
        self._session = Session(
            folder, identity, spec.endpoints, environment(identity, {}, spec.seed), {"reward": spec.model_dump(mode="json")},
            ledger=ledger,
        )  # fmt: skip
        with ExitStack() as stack:
            try:
                stack.enter_context(self._session)
            except FolderMismatch as error:
                raise FolderMismatch(f"{error}; verdicts of another judge are never used again") from None
            endpoints = stack.enter_context(engines.running(spec.endpoints))
            stack.callback(self._session.cassette.close)
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name="judgeloop-reward", daemon=True)
            thread.start()
            stack.callback(self._loop.close)
            stack.callback(thread.join)
            stack.callback(lambda: self._loop.call_soon_threadsafe(self._loop.stop))
            self._judge = self._done(self._opened(spec, endpoints, stack))
            self._written = self._rows_there()
            self._open = stack.pop_all()

    async def _opened(self, spec: RewardSpec, endpoints: Mapping[str, Endpoint], stack: ExitStack) -> Judge:
        session = self._session
        client = WireClient(endpoints, session.cassette, ledger=session.ledger, observer=session.record.answered)
        stack.callback(lambda: self._done(client.close()))
        modes = [
            await resolve_mode(member, endpoints=endpoints, folder=Path(), client=client, prefix=_TRIAL)
            for member in asked_models(spec.judge)
        ]
        judge = make_judge(
            spec.judge, endpoints=endpoints, folder=Path(), client=client, seed=spec.seed, mode=modes or None,
            measure=features_of,
        )  # fmt: skip
        if isinstance(judge, RewardJudge):
            await check_reward(judge, _TRIAL)
        return judge

    def _done(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, in this reward's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, reference: Sequence[str | None] | None = None, **columns: Any
    ) -> list[float | None]:  # fmt: skip
        """(n,) a reward for each completion, None where the judge gave none.

        Of a judge of pairs the share, in [0, 1], of the judgments on it, against every other completion of its prompt, in which it was
        picked; a tie counts ½, a text against its like ½. Of a judge that scores texts its score, larger = better: points of the scale
        (less them on a reversed one), or a reward model's number.

        ``prompts``, ``completions`` (n,): texts, or conversations (lists of turns with role and content). ``reference`` (n,):
        right answers, for judge prompts that show one. Other ``columns`` are a trainer's own. Raises InvalidInput where a judge of pairs
        gets a prompt with one completion, and what an endpoint's client raises: the same call resumes.
        """
        texts = [_text(completion) for completion in completions]
        items: dict[str, Item] = {}
        groups: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            asked = _prompt(prompt)
            right = reference[place] if reference is not None else None
            name = _digest(prompt_text(asked), right or "")
            items.setdefault(name, Item(name, asked, reference=right))
            groups.setdefault(name, []).append(place)
        single = next((places[0] for places in groups.values() if len(places) < 2), None)
        if single is not None and not isinstance(self._judge, JudgeOfTexts):
            raise InvalidInput(
                f"reward: prompt {single} has one completion; a judge of pairs compares two or more (num_generations of the trainer)"
            )
        rewards: list[float | None] = [None] * len(texts)
        # Several threads may ask at the same time; a call is asked once, whoever waits for it.
        judged = self._done(self._all_judged(items, {name: [texts[p] for p in at] for name, at in groups.items()}))
        with self._lock:
            self._write(items, [judgment for judgments, _ in judged for judgment in judgments], columns)
        for places, (_, of_item) in zip(groups.values(), judged, strict=True):
            for place, value in zip(places, of_item, strict=True):
                rewards[place] = value
        return rewards

    async def _all_judged(
        self, items: Mapping[str, Item], texts: Mapping[str, Sequence[str]]
    ) -> list[tuple[list[Judgment], list[float | None]]]:
        """Of every item the judgments on its texts, and each text's reward."""
        return await asyncio.gather(*(self._judged(items[name], of_item) for name, of_item in texts.items()))

    async def _judged(self, item: Item, texts: Sequence[str]) -> tuple[list[Judgment], list[float | None]]:
        """The judgments on all pairs of different texts in both orders, and each text's reward."""
        candidates = {text: Candidate(item.item_id, _digest(text), text) for text in texts}
        shown = presentations(_pairs(candidates.values()))
        judgments = await self._judge.judge(item, shown, _PICKS, _STREAM)
        if not isinstance(self._judge, JudgeOfTexts):
            return judgments, _shares(texts, judgments)
        scores = await self._judge.scores(item, list(candidates.values()), _PICKS, _STREAM)
        return judgments, [scores.get(candidates[text].candidate_id) for text in texts]

    def _rows_there(self) -> set[tuple[str, str]]:
        """(pair, order) of the rows that an earlier process wrote."""
        if not self._verdicts.is_file():
            return set()
        whole, _, torn = self._verdicts.read_bytes().rpartition(b"\n")
        if torn:  # as a killed process leaves it; its judgment is written again
            self._session.folder.write_bytes(VERDICTS, whole + b"\n" if whole else b"")
        rows = (json.loads(line) for line in whole.splitlines())
        return {(row["pair_id"], row["order"]) for row in rows}

    def _write(self, items: Mapping[str, Item], judgments: Sequence[Judgment], columns: Mapping[str, Any]) -> None:
        """Append the judgments that are new."""
        step = getattr(columns.get("trainer_state"), "global_step", None)
        lines: dict[tuple[str, str], str] = {}
        for judgment in judgments:
            shown, verdict = judgment.presentation, judgment.verdict
            key = shown.matchup.pair_id, shown.order
            if key not in self._written:
                item = items[shown.matchup.item_id]
                lines[key] = json.dumps({
                    "item_id": item.item_id, "prompt": prompt_text(item.prompt), "judge": judgment.judge, "pair_id": shown.matchup.pair_id,
                    "order": shown.order, "verdict": verdict.slot, "p_first": verdict.p_first, "reason": verdict.reason,
                    "text_a": shown.matchup.a.text, "text_b": shown.matchup.b.text, "training_step": step,
                }) + "\n"  # fmt: skip
        try:
            with self._verdicts.open("a", encoding="utf-8") as file:
                file.write("".join(lines.values()))
        except OSError as error:
            raise StorageFailed(f"{self._verdicts}: cannot be written ({error.strerror or error}); make room") from None
        self._written.update(lines)

    def close(self) -> None:
        """Close the connections and the folder; calls are recorded as they are answered."""
        self._session.finish({})
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reward(
    judge: Mapping[str, Any],
    endpoints: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    out: str | Path,
    seed: int = 0,
    max_cost: float | None = None,
    max_calls: int | None = None,
) -> JudgeReward:
    """A judge as a reward function, ``reward(prompts, completions) → rewards``, for TRL's GRPO, RLOO and online DPO trainers.

    ``judge`` and ``endpoints``: as in an experiment file (docs/experiment.md); a judge of kind random or rule is a control. ``out``: the folder
    of this judge's calls and verdicts.jsonl; another judge's is refused, so that no verdict is taken for another's. ``max_cost``
    (USD) and ``max_calls`` limit what is asked. Raises ExperimentError, FolderMismatch, EndpointFailed.
    """
    spec = validated(RewardSpec, {"judge": judge, "endpoints": endpoints or {}, "seed": seed}, "reward")
    if max_cost is not None:
        check_prices(spec.endpoints, "max_cost", "endpoints.<name>.price")
    engines.check(spec.endpoints)
    return JudgeReward(spec, RunFolder(out), Ledger(max_cost, max_calls))


def _shares(texts: Sequence[str], judgments: Sequence[Judgment]) -> list[float | None]:
    """The share of the judgments on each text that picked it."""
    picked: dict[tuple[str, str], list[float]] = {}
    for judgment in judgments:
        verdict, shown = judgment.verdict, judgment.presentation
        first = verdict.p_first if verdict.p_first is not None else PICKED.get(verdict.slot)
        if first is not None:
            picked.setdefault((shown.first.text, shown.second.text), []).append(first)
            picked.setdefault((shown.second.text, shown.first.text), []).append(1.0 - first)
    rewards = []
    for place, text in enumerate(texts):
        others = [other for number, other in enumerate(texts) if number != place]
        shares = [
            0.5 if other == text else fmean(picked[text, other])
            for other in others
            if other == text or (text, other) in picked
        ]
        rewards.append(fmean(shares) if shares else None)
    return rewards


def _pairs(candidates: Collection[Candidate]) -> list[Matchup]:
    """Every pair of an item's different texts, named by their contents: the same two texts are one pair whenever they come."""
    by_name = sorted(candidates, key=lambda candidate: candidate.candidate_id)
    return [
        Matchup(a.item_id, f"{a.item_id}-{a.candidate_id}-{b.candidate_id}", a, b) for a, b in combinations(by_name, 2)
    ]


def _prompt(prompt: Any) -> str | tuple[Message, ...]:
    if isinstance(prompt, str):
        return prompt
    return tuple(Message(turn["role"], turn["content"]) for turn in prompt)


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
