"""Choices: which of several texts a judge calls the best, by slot, or the reason why a reply holds no choice.

A set of k texts is shown in all k cyclic rotations: in rotation r slot j holds text (j + r) mod k, slots and texts counted
from 0. Reasons are those of ``judging.verdicts``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from judgeloop import experiment, seeds
from judgeloop.bodies import CHOICE_TOKEN, LETTERS, choice_body
from judgeloop.errors import EndpointFailed
from judgeloop.experiment import Endpoint
from judgeloop.judging.pairing import quoted
from judgeloop.judging.verdicts import answer_of, bare, json_object
from judgeloop.records import Call, Candidate, Client, Item, Reply, Verdict
from judgeloop.templates import Mode, Template

PREFIX = "audit/choice"
TRIAL_PREFIX = f"{PREFIX}/trial"
MOST_TEXTS = len(LETTERS)

_TRIAL_QUESTION = "What is the capital of France?"
_TRIAL_ANSWERS = tuple(f"The capital of France is {city}." for city in ("Paris", "Lyon", "Nice"))


@dataclass(frozen=True, slots=True)
class Choice:
    """``slot`` counted from 0, None where there is none, with ``reason``; ``shares`` the slots' probabilities (k,) where
    the judge gave them."""

    slot: int | None
    shares: tuple[float, ...] | None = None
    reason: str = ""


def rotated(texts: Sequence[Candidate], rotation: int) -> list[Candidate]:
    """The texts in the order of the slots."""
    return [texts[(slot + rotation) % len(texts)] for slot in range(len(texts))]


def read_choice(reply: Reply, mode: Mode, slots: int) -> Choice:
    """The slot that a reply picks. Total: every reply has a slot or a reason. Prose is never interpreted."""
    if reply.failure or reply.refusal:
        return Choice(None, reason=reply.failure or "refusal")
    letters = LETTERS[:slots]
    if mode == "logprob":
        return _from_logprobs(reply, letters)
    answer = answer_of(reply)
    if isinstance(answer, Verdict):
        return Choice(None, reason=answer.reason)
    choice = _from_json(answer, letters) if mode == "json" else _from_text(answer, letters)
    cut = choice.reason in ("no_verdict", "not_json") and reply.finish_reason == "length"
    return Choice(None, reason="truncated") if cut else choice


def _from_text(text: str, letters: str) -> Choice:
    offered = [found[2].upper() for found in CHOICE_TOKEN.finditer(text) if found[2].upper() in letters]
    return Choice(letters.index(offered[-1])) if offered else Choice(None, reason="no_verdict")


def _from_json(text: str, letters: str) -> Choice:
    found = json_object(text)
    if found is None:
        return Choice(None, reason="not_json")
    if "verdict" not in found:
        return Choice(None, reason="no_verdict")
    label = found["verdict"].strip().upper() if isinstance(found["verdict"], str) else ""
    # An empty text is found in every other one.
    return Choice(letters.index(label)) if len(label) == 1 and label in letters else Choice(None, reason="wrong_label")


def _from_logprobs(reply: Reply, letters: str) -> Choice:
    """The letters' shares of the listed tokens; a letter that is not listed counts as probability 0."""
    if not reply.top_logprobs:
        return Choice(None, reason="no_logprobs")
    listed = [(bare(token).upper(), value) for token, value in reply.top_logprobs if value > -math.inf]
    listed = [(label, value) for label, value in listed if len(label) == 1 and label in letters]
    if not listed:
        return Choice(None, reason="no_letter")
    largest = max(value for _, value in listed)
    masses = [sum(math.exp(value - largest) for label, value in listed if label == letter) for letter in letters]
    shares = tuple(mass / sum(masses) for mass in masses)
    return Choice(max(range(len(shares)), key=shares.__getitem__), shares)


@dataclass(frozen=True)
class ChoiceJudge:
    """A model that is asked for the best of several texts."""

    name: str
    spec: experiment.ModelJudge
    endpoint: Endpoint
    template: Template
    mode: Mode
    client: Client
    seed: int

    async def choose(
        self, item: Item, set_id: str, texts: Sequence[Candidate], rotation: int, repeat: int
    ) -> tuple[Choice, str]:
        """The choice in that rotation of the texts, and its call's id."""
        name = f"{PREFIX}/{quoted(self.name)}/{quoted(item.item_id)}/{quoted(set_id)}/o{rotation}/r{repeat}"
        body = choice_body(
            self.endpoint, self.template, self.mode, prompt=item.prompt,
            texts=[text.text for text in rotated(texts, rotation)], reference=item.reference,
            temperature=self.spec.temperature, max_tokens=self.spec.max_tokens,
            seed=seeds.integer(self.seed, "choice", item.item_id, set_id, rotation, repeat),
        )  # fmt: skip
        reply = await self.client.ask(Call(name, self.spec.endpoint, body))
        return read_choice(reply, self.mode, len(texts)), name


async def resolve_choice_mode(
    spec: experiment.ModelJudge, template: Template, *, endpoints: Mapping[str, Endpoint], client: Client, label: str
) -> Mode:
    """How choices are read: the stated mode, or for auto the first of logprob, json and text whose trial call has one.

    Raises EndpointFailed if no mode works.
    """
    if spec.verdict != "auto":
        return spec.verdict
    failed = []
    for mode in template.modes:
        body = choice_body(
            endpoints[spec.endpoint], template, mode, prompt=_TRIAL_QUESTION, texts=_TRIAL_ANSWERS,
            max_tokens=spec.max_tokens,
        )  # fmt: skip
        reply = await client.ask(Call(f"{TRIAL_PREFIX}/{quoted(label)}/{mode}", spec.endpoint, body))
        choice = read_choice(reply, mode, len(_TRIAL_ANSWERS))
        if choice.slot is not None:
            return mode
        failed.append(f"{mode}: {choice.reason}")
    raise EndpointFailed(
        f"endpoints.{spec.endpoint}: {endpoints[spec.endpoint].model} gave no choice to a trial question with prompt "
        f"{template.name} ({', '.join(failed)}); try another prompt or model, or state --verdict"
    )
