"""Scores: what a judge makes of one text on a stated scale, or the reason why a reply holds no score.

Reasons are those of ``judging.verdicts``, and three more:

=============  =====================================================================================================
no_number      logprob mode, and none of the likeliest first tokens is a number of the scale
off_scale      the reply's last marked number (in JSON: its ``score``) is not on the scale
split_number   logprob mode, and the tokenizer seems to write 10 as 1 and 0, so that a 1 may be the beginning of a 10
=============  =====================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from judgeloop import experiment, seeds
from judgeloop.bodies import SCORE_TOKEN, score_body
from judgeloop.errors import EndpointFailed
from judgeloop.experiment import Endpoint
from judgeloop.judging.pairing import quoted
from judgeloop.judging.verdicts import answer_of, bare, json_object
from judgeloop.records import Call, Candidate, Client, Item, Reply, Verdict
from judgeloop.scales import Scale
from judgeloop.templates import Mode, Template

PREFIX = "audit/score"
TRIAL_PREFIX = f"{PREFIX}/trial"
REASONS = ("no_number", "off_scale", "split_number")
MOST_BY_LOGPROB = 20
"""Numbers of the largest scale that the listed tokens can hold."""

_TRIAL_QUESTION, _TRIAL_ANSWER = "What is the capital of France?", "The capital of France is Paris."
_DOUBTFUL = 0.01


@dataclass(frozen=True, slots=True)
class Score:
    """``value`` on the scale, a mean over the likeliest numbers in logprob mode; None where there is none, with ``reason``.

    ``at_worst``, ``at_best``: the probability of the scale's two ends, 0 or 1 where the reply says one number.
    """

    value: float | None
    at_worst: float | None = None
    at_best: float | None = None
    reason: str = ""


def read_score(reply: Reply, mode: Mode, scale: Scale, *, sure: bool = False) -> Score:
    """The score in a reply. Total: every reply has a score or a reason.

    Prose is never interpreted: "a solid 8" is no score. ``sure``: a logprob reply that lists no number of two digits is
    not trusted with a scale that has one.
    """
    if reply.failure or reply.refusal:
        return Score(None, reason=reply.failure or "refusal")
    if mode == "logprob":
        return _from_logprobs(reply, scale, sure)
    answer = answer_of(reply)
    if isinstance(answer, Verdict):
        return Score(None, reason=answer.reason)
    score = _from_json(answer, scale) if mode == "json" else _from_text(answer, scale)
    cut = score.reason in ("no_verdict", "not_json") and reply.finish_reason == "length"
    return Score(None, reason="truncated") if cut else score


def _said(value: float, scale: Scale) -> Score:
    if not scale.low <= value <= scale.high:
        return Score(None, reason="off_scale")
    return Score(value, float(value == scale.worst), float(value == scale.best))


def _from_text(text: str, scale: Scale) -> Score:
    marked = list(SCORE_TOKEN.finditer(text))
    if not marked:
        return Score(None, reason="no_verdict")
    number, of = marked[-1][2], marked[-1][3]
    # 7/10 says its scale, and 7/5 another one.
    return Score(None, reason="off_scale") if of and int(of) != scale.high else _said(float(number), scale)


def _from_json(text: str, scale: Scale) -> Score:
    found = json_object(text)
    if found is None:
        return Score(None, reason="not_json")
    if "score" not in found:
        return Score(None, reason="no_verdict")
    number = found["score"]
    if isinstance(number, str):
        try:
            number = float(number)
        except ValueError:
            return Score(None, reason="off_scale")
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return Score(None, reason="off_scale")
    return _said(float(number), scale)


def _from_logprobs(reply: Reply, scale: Scale, sure: bool) -> Score:
    """The mean of the scale's numbers over the listed tokens; a number that is not listed counts as probability 0."""
    if not reply.top_logprobs:
        return Score(None, reason="no_logprobs")
    names = {str(value): value for value in scale.values}
    found: dict[int, list[float]] = {}
    for token, logprob in reply.top_logprobs:
        name = bare(token)
        if name in names and logprob > -math.inf:
            found.setdefault(names[name], []).append(logprob)
    if not found:
        return Score(None, reason="no_number")
    largest = max(value for several in found.values() for value in several)
    masses = {value: sum(math.exp(one - largest) for one in several) for value, several in found.items()}
    total = sum(masses.values())
    long = {str(value)[0] for value in scale.values if value > 9}
    begun = sum(mass for value, mass in masses.items() if value <= 9 and str(value) in long)
    # 10 stands among the likeliest tokens of a tokenizer that has it, unless it is out of the question.
    if long and not any(value > 9 for value in masses) and (sure or begun / total > _DOUBTFUL):
        return Score(None, reason="split_number")
    mean = sum(value * mass for value, mass in masses.items()) / total
    worst, best = (masses.get(end, 0.0) / total for end in (scale.worst, scale.best))
    return Score(min(max(mean, scale.low), scale.high), worst, best)


@dataclass(frozen=True)
class ScoreJudge:
    """A model that is asked for the score of one text at a time."""

    name: str
    spec: experiment.ModelJudge
    endpoint: Endpoint
    template: Template
    mode: Mode
    client: Client
    seed: int

    async def score(self, item: Item, text: Candidate, scale: Scale, place: str, repeat: int) -> tuple[Score, str]:
        """The score and its call's id. ``place`` names the text in calls and draws: ``pair/side``."""
        name = f"{PREFIX}/{quoted(self.name)}/{quoted(item.item_id)}/{place}/r{repeat}/{scale.name}"
        body = score_body(
            self.endpoint, self.template, self.mode, scale, prompt=item.prompt, answer=text.text, reference=item.reference,
            temperature=self.spec.temperature, max_tokens=self.spec.max_tokens,
            seed=seeds.integer(self.seed, "score", item.item_id, place, repeat, scale.name),
        )  # fmt: skip
        reply = await self.client.ask(Call(name, self.spec.endpoint, body))
        return read_score(reply, self.mode, scale), name


async def resolve_score_mode(
    spec: experiment.ModelJudge, template: Template, scale: Scale, *, endpoints: Mapping[str, Endpoint], client: Client, label: str
) -> Mode:  # fmt: skip
    """How scores are read: the stated mode, or for auto the first of logprob, json and text whose trial call has a score.

    A tokenizer that splits the scale's largest number fails the trial of logprob. Raises EndpointFailed if no mode works.
    """
    if spec.verdict != "auto":
        return spec.verdict
    failed = []
    for mode in template.modes:
        if mode == "logprob" and len(scale.values) > MOST_BY_LOGPROB:
            continue
        body = score_body(
            endpoints[spec.endpoint], template, mode, scale, prompt=_TRIAL_QUESTION, answer=_TRIAL_ANSWER,
            max_tokens=spec.max_tokens,
        )  # fmt: skip
        reply = await client.ask(Call(f"{TRIAL_PREFIX}/{quoted(label)}/{mode}", spec.endpoint, body))
        score = read_score(reply, mode, scale, sure=True)
        if score.value is not None:
            return mode
        failed.append(f"{mode}: {score.reason}")
    raise EndpointFailed(
        f"endpoints.{spec.endpoint}: {endpoints[spec.endpoint].model} gave no score to a trial question with prompt "
        f"{template.name} ({', '.join(failed)}); try another prompt or model, or state --verdict"
    )
