"""``judgeloop.reward``: a judge as the reward function of a trainer, as TRL's GRPO, RLOO and online DPO trainers take it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import Field

from judgeloop.commands.session import Session, check_prices, difference_named, environment, settings_differences
from judgeloop.errors import FolderMismatch, InvalidInput, StorageFailed
from judgeloop.experiment.resolve import asked_models, check_judge, judge_prompts, validated, without_later_keys
from judgeloop.experiment.schema import Block, Endpoint, JudgeSpec
from judgeloop.judging.judges import Judge, make_judge, resolve_mode
from judgeloop.judging.pairing import presentations
from judgeloop.judging.reward_models import JudgeOfTexts, RewardJudge, check_reward
from judgeloop.records import ORDERS, Candidate, Item, Judgment, Matchup, Message, canonical, prompt_text
from judgeloop.rundir import REWARD_VERDICTS, RunFolder
from judgeloop.serving import engines
from judgeloop.serving.planted_spec import features_of
from judgeloop.stats.presentations import PICKED
from judgeloop.wire.client import Ledger, WireClient
from judgeloop.wire.reply import clean

T = TypeVar("T")
_PICKS, _TRIAL = "reward/picks", "reward/trial"
_STREAM = ("reward",)
Said = tuple[str, float | None, str]
"""What a judgment's row says: verdict, probability of the first slot, reason."""


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
    not asked again, but for calls whose attempts all failed: the next call asks them. Each judgment is a row of ``verdicts.jsonl``, which
    ``judgeloop.analyze`` reads: what the judge's picks depended on while it trained the model. One that got no answer is ``unscored``
    there, with its reason, until a later call gets one; its row is then replaced.
    """

    def __init__(self, spec: RewardSpec, folder: RunFolder, ledger: Ledger) -> None:
        self.__name__ = "judge_reward"  # a trainer's logs name the reward by it
        self._lock = threading.Lock()
        self._closed = False
        self._verdicts = folder.path / REWARD_VERDICTS
        prompts = judge_prompts(spec.judge, Path())
        files = {f"template.{prompt.name}": prompt.sha256 for prompt in prompts}
        raw = spec.model_dump(mode="json", exclude={"endpoints"})
        asked = {name: without_later_keys(endpoint, "top_logprobs") for name, endpoint in spec.endpoints.items()}
        identity = "sha256:" + hashlib.sha256(canonical({
            "reward": raw, "endpoints": asked, "prompts": [prompt.sha256 for prompt in prompts],
        }).encode()).hexdigest()  # fmt: skip
        self._session = Session(
            folder, identity, spec.endpoints, environment(identity, files, spec.seed), {"reward": spec.model_dump(mode="json")},
            ledger=ledger,
        )  # fmt: skip

        def differences(recorded: Mapping[str, Any]) -> list[str]:
            if not isinstance(block := recorded.get("reward"), dict):
                return []
            there = {**block, "files": folder.environment().get("files", {})}
            return settings_differences(there, {**spec.model_dump(mode="json"), "files": files})

        with ExitStack() as stack:
            with difference_named(
                folder, "judge", differences, "give another out, for verdicts of another judge are never used again"
            ):
                stack.enter_context(self._session)
            endpoints = stack.enter_context(engines.running(spec.endpoints))
            stack.callback(self._session.cassette.close)
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name="judgeloop-reward", daemon=True)
            thread.start()
            stack.callback(self._loop.close)
            stack.callback(thread.join)
            stack.callback(lambda: self._loop.call_soon_threadsafe(self._loop.stop))
            self._judge = self._done(self._opened(spec, endpoints, stack))
            self._written = {name: said for name, said, _ in self._rows_there()}
            self._open = stack.pop_all()

    async def _opened(self, spec: RewardSpec, endpoints: Mapping[str, Endpoint], stack: ExitStack) -> Judge:
        session = self._session
        self._client = client = WireClient(
            endpoints, session.cassette, ledger=session.ledger, observer=session.record.answered
        )
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
        self, prompts: Sequence[Any], completions: Sequence[Any], *, reference: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:  # fmt: skip
        """(n,) a reward for each completion, None where the judge gave none.

        Of a judge of pairs the share, in [0, 1], of the judgments on it, against every other completion of its prompt, in which it was
        picked; a tie counts ½, a text against its like ½, and a pair of which an order has no verdict is left out. Of a judge that
        scores texts its score, larger = better: points of the scale (less them on a reversed one), or a reward model's number.

        ``prompts``, ``completions`` (n,): texts, or conversations (lists of turns with role and content, a text or parts of type text),
        of a completion the last turn. ``reference`` (n,): right answers, for judge prompts that show one: texts, None, or what JSON
        can write. Halves of surrogate pairs are read as U+FFFD. Other ``columns`` are a trainer's own. Raises InvalidInput for other
        inputs, where a judge of pairs gets a prompt with one completion, and after ``close``; and what an endpoint's client raises:
        the same call resumes, after BudgetReached once the reward is opened with a higher limit.
        """
        if self._closed:
            raise InvalidInput("reward: it is closed; make it again with the same out to go on")
        prompts, completions = _listed("prompts", prompts), _listed("completions", completions)
        rights = [None] * len(completions) if reference is None else _listed("reference", reference)
        for name, entries in (("prompts", prompts), ("reference", rights)):
            if len(entries) != len(completions):
                raise InvalidInput(
                    f"reward: {name} and completions must be as many, not {len(entries)} and {len(completions)}"
                )
        texts = [_completion(completion, f"completions[{place}]") for place, completion in enumerate(completions)]
        items: dict[str, Item] = {}
        groups: dict[str, list[int]] = {}
        for place, (prompt, given) in enumerate(zip(prompts, rights, strict=True)):
            asked, right = _prompt(prompt, f"prompts[{place}]"), _reference(given, f"reference[{place}]")
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
        await self._client.resume()
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

    def _rows_there(self) -> Iterator[tuple[tuple[str, str], Said, bytes]]:
        """((pair, order), what it says, line) of every row that was written. Raises FolderMismatch."""
        if not self._verdicts.is_file():
            return
        whole, _, torn = self._verdicts.read_bytes().rpartition(b"\n")
        if torn:  # as a killed process leaves it; its judgment is written again
            self._session.folder.write_bytes(REWARD_VERDICTS, whole + b"\n" if whole else b"")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                said = row["verdict"], row["p_first"], row["reason"]
                yield (row["pair_id"], row["order"]), said, line + b"\n"
            except (ValueError, KeyError, TypeError, RecursionError):
                raise FolderMismatch(
                    f"{self._verdicts}:{number}: this line is no verdict of a reward; restore the file, or delete the line"
                ) from None

    def _write(self, items: Mapping[str, Item], judgments: Sequence[Judgment], columns: Mapping[str, Any]) -> None:
        """Append the judgments that are new; those that say another thing than before, for a call that failed was answered since,
        replace their rows."""
        step = getattr(columns.get("trainer_state"), "global_step", None)
        lines, written = list[bytes](), dict[tuple[str, str], Said]()
        for judgment in judgments:
            shown, verdict = judgment.presentation, judgment.verdict
            name, said = (shown.matchup.pair_id, shown.order), (verdict.slot, verdict.p_first, verdict.reason)
            if self._written.get(name) != said:
                item = items[shown.matchup.item_id]
                written[name] = said
                lines.append(json.dumps({
                    "item_id": item.item_id, "prompt": prompt_text(item.prompt), "judge": judgment.judge, "pair_id": shown.matchup.pair_id,
                    "order": shown.order, "verdict": verdict.slot, "p_first": verdict.p_first, "reason": verdict.reason,
                    "text_a": shown.matchup.a.text, "text_b": shown.matchup.b.text, "training_step": step,
                }).encode() + b"\n")  # fmt: skip
        if replaced := written.keys() & self._written.keys():
            kept = [line for name, _, line in self._rows_there() if name not in replaced]
            self._session.folder.write_bytes(REWARD_VERDICTS, b"".join([*kept, *lines]))
        else:
            try:
                with self._verdicts.open("ab") as file:
                    file.writelines(lines)
            except OSError as error:
                raise StorageFailed(
                    f"{self._verdicts}: cannot be written ({error.strerror or error}); make room"
                ) from None
        self._written.update(written)

    def close(self) -> None:
        """Close the connections and the folder; calls are recorded as they are answered. Closing twice does no harm."""
        if self._closed:
            return
        self._closed = True
        try:
            self._session.finish({})
        finally:
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
    of this judge's calls and verdicts.jsonl; another judge's is refused, one with another text of its prompt too, so that no verdict is
    taken for another's. ``max_cost`` (USD) and ``max_calls`` limit what is asked. Raises InvalidInput, ExperimentError, FolderMismatch,
    EndpointFailed.
    """
    ledger = Ledger(max_cost, max_calls)
    spec = validated(RewardSpec, {"judge": judge, "endpoints": endpoints or {}, "seed": seed}, "reward")
    check_judge(spec.judge, spec.endpoints, "reward: judge")
    if max_cost is not None:
        check_prices(spec.endpoints, "max_cost", "endpoints.<name>.price")
    engines.check(spec.endpoints)
    return JudgeReward(spec, RunFolder(out), ledger)


def _shares(texts: Sequence[str], judgments: Sequence[Judgment]) -> list[float | None]:
    """The share of the judgments on each text that picked it, of the pairs with a verdict in both orders: one alone would hold what the
    judge has for a slot."""
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
            if other == text or len(picked.get((text, other), ())) == len(ORDERS)
        ]
        rewards.append(fmean(shares) if shares else None)
    return rewards


def _pairs(candidates: Collection[Candidate]) -> list[Matchup]:
    """Every pair of an item's different texts, named by their contents: the same two texts are one pair whenever they come."""
    by_name = sorted(candidates, key=lambda candidate: candidate.candidate_id)
    return [
        Matchup(a.item_id, f"{a.item_id}-{a.candidate_id}-{b.candidate_id}", a, b) for a, b in combinations(by_name, 2)
    ]


def _members(value: Any) -> list[Any] | None:
    """The members of a list, a tuple, an array or a column; None of anything else."""
    return None if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) else list(value)


def _listed(name: str, value: Any) -> list[Any]:
    members = _members(value)
    if members is None:
        raise InvalidInput(f"reward: {name} must be a list with an entry for each completion, not {value!r:.60}")
    return members


def _prompt(prompt: Any, where: str) -> str | tuple[Message, ...]:
    if isinstance(prompt, str):
        return clean(prompt)
    return tuple(_turn(turn, f"{where}[{number}]") for number, turn in enumerate(_turns(prompt, where)))


def _completion(completion: Any, where: str) -> str:
    """The text, or that of a conversation's last turn: those before it may be a tool's."""
    if isinstance(completion, str):
        return clean(completion)
    return _turn(_turns(completion, where)[-1], f"{where}[-1]").content


def _turns(conversation: Any, where: str) -> list[Any]:
    if not (turns := _members(conversation)):
        raise InvalidInput(f"reward: {where} must be a text or a list of chat turns, not {conversation!r:.60}")
    return turns


def _turn(turn: Any, where: str) -> Message:
    """A turn of a conversation, the parts of its content joined."""
    role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, Mapping) else (None, None)
    if not isinstance(content, str) and (parts := _members(content)):
        texts: list[Any] = [
            part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"
        ]
        content = "".join(texts) if len(texts) == len(parts) and all(isinstance(text, str) for text in texts) else None
    if not isinstance(role, str) or not isinstance(content, str):
        raise InvalidInput(
            f"reward: {where} must be a turn with a role and a content that is text or parts of type text, which a judge can read, not {turn!r:.90}"
        )
    return Message(role, clean(content))  # type: ignore[arg-type]  # a trainer's may be a tool's too


def _reference(right: Any, where: str) -> str | None:
    """A right answer as text: what is none as JSON, arrays as lists."""
    if right is None or isinstance(right, str):
        return right and clean(right)
    try:
        return clean(json.dumps(right, ensure_ascii=False, allow_nan=False, default=lambda part: part.tolist()))
    except (TypeError, ValueError, AttributeError, RecursionError):
        raise InvalidInput(
            f"reward: {where} must be text, or a number, list or mapping that JSON can write, not {right!r:.60}"
        ) from None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
