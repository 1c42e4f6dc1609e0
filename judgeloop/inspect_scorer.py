"""For evaluations with Inspect: a scorer that asks a judge which of two answers is better, in both orders, and shows both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

try:
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
    from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, mean, metric, scorer, stderr
except ImportError:
    raise ImportError("judgeloop.inspect_scorer needs Inspect: pip install 'judgeloop[inspect]'") from None

from judgeloop.bodies import judge_messages
from judgeloop.judging.answers import read_verdict
from judgeloop.records import ORDERS, Message, Reply
from judgeloop.stats.presentations import PICKED
from judgeloop.text import templates

if TYPE_CHECKING:
    from inspect_ai.model import Model
    from inspect_ai.solver import TaskState

LOGGED = "judgeloop"
"""Key of a score's metadata: the other answer, the judge, and by order the verdict (``judgeloop.analyze`` reads it)."""


def _picks(scores: Iterable[SampleScore]) -> list[dict[str, str]]:
    """By sample with a verdict in both orders: order → slot that was picked."""
    orders = [(score.score.metadata or {}).get(LOGGED, {}).get("orders", {}) for score in scores]
    picks = [{order: verdict["verdict"] for order, verdict in one.items()} for one in orders]
    return [one for one in picks if len(one) == len(ORDERS) and "unscored" not in one.values()]


@metric
def first_slot() -> Metric:
    """The share of judgments that pick the answer shown first, a tie counted half; .5 from a judge that does not look at the slot.
    NaN where no sample has a verdict in both orders."""

    def share(scores: list[SampleScore]) -> float:
        return (
            fmean([PICKED[slot] for one in picks for slot in one.values()]) if (picks := _picks(scores)) else math.nan
        )

    return share


@metric
def order_flips() -> Metric:
    """The share of samples of which the judge picks one slot in both orders, so that its verdict is the order's. NaN where no sample
    has a verdict in both orders."""

    def share(scores: list[SampleScore]) -> float:
        picks = _picks(scores)
        return (
            fmean([len(set(one.values())) == 1 and "tie" not in one.values() for one in picks]) if picks else math.nan
        )

    return share


@scorer(metrics=[mean(), stderr(), first_slot(), order_flips()])
def both_orders(model: str | Model | None = None, *, prompt: str = "pairwise", against: str = "target") -> Scorer:
    """A scorer for Inspect: the share of the two orders in which the judge picks the sample's output over another answer.

    1 where it picks the output in both orders, 0 where in neither, ½ where its verdict changes with the order; a tie counts half. NaN
    ("unscored", and why) where an order has no verdict. ``explanation`` shows both replies, ``metadata["judgeloop"]`` both verdicts.

    ``model``: the judge, by Inspect's name; None is the role ``grader``, else the evaluated model. ``prompt``: a shipped prompt for pairs or a
    file. ``against``: ``target`` for the sample's target, else a key of the sample's metadata that holds the other answer. Raises
    ExperimentError for an unknown prompt, and KeyError where a sample's metadata lacks the key.
    """
    template = templates.load(prompt)

    async def score(state: TaskState, target: Target) -> Score:
        judge = get_model(model) if model is not None else get_model(role="grader")
        answer = state.output.completion
        other = target.text if against == "target" else str(state.metadata[against])
        question = state.input if isinstance(state.input, str) else tuple(_turn(turn) for turn in state.input)
        orders: dict[str, dict[str, str]] = {}
        said: list[str] = []
        for order in ORDERS:
            first, second = (answer, other) if order == "ab" else (other, answer)
            messages = judge_messages(
                template, "text", prompt=question, first_text=first, second_text=second, reference=target.text or None
            )
            turns = [_MESSAGES[message["role"]](content=message["content"]) for message in messages]
            output = await judge.generate(turns, config=GenerateConfig(temperature=0.0))
            reply = Reply(output.completion, finish_reason=_FINISHED.get(output.stop_reason, "stop"))
            verdict = read_verdict(reply, "text", template.ties)
            orders[order] = {"verdict": verdict.slot, "reason": verdict.reason}
            said.append(
                f"The output shown {'first' if order == 'ab' else 'second'}: {verdict.reason or verdict.slot}\n{output.completion}"
            )
        logged = {"judge": str(judge), "against": against, "other": other, "orders": orders}
        return Score(
            value=_share(orders),
            answer=answer,
            explanation="\n\n".join(said),
            metadata={LOGGED: logged, **_unscored(orders)},
        )

    return score


_MESSAGES = {"system": ChatMessageSystem, "user": ChatMessageUser}
_FINISHED = {"max_tokens": "length", "model_length": "length", "content_filter": "content_filter"}


def _turn(turn: Any) -> Message:
    return Message(turn.role if turn.role in ("system", "assistant") else "user", turn.text)


def _share(orders: Mapping[str, Mapping[str, str]]) -> float:
    if any(one["verdict"] == "unscored" for one in orders.values()):
        return math.nan
    of_first = {order: PICKED[one["verdict"]] for order, one in orders.items()}
    return fmean([share if order == "ab" else 1.0 - share for order, share in of_first.items()])


def _unscored(orders: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The reason of the first order without a verdict, as Inspect's own scorers log it."""
    reason = next(filter(None, (one["reason"] for one in orders.values())), "")
    return {"unscored_reason": reason} if reason else {}
