"""The planted model: answers a chat request as a judge with stated biases, or with a draft.

It has the methods of the local server's Answerer protocol. The same request always gets the same answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judgeloop import seeds
from judgeloop.law import log_logistic, logistic, planted_log_odds
from judgeloop.planted.drafts import draft_text, exemplar_texts
from judgeloop.planted.rating import NO_VERDICT_TOKENS, is_unscored, rated
from judgeloop.planted.rewards import scores
from judgeloop.planted.shown import Shown, properties_of, schema_of, shown_pair, tagged, text_of
from judgeloop.planted.spec import PlantedSpec, features_of, marked_quality, references
from judgeloop.records import Call, Route
from judgeloop.text.features import tokenize
from judgeloop.text.matching import correct

_FILLER = (("The", 0.012), ("I", 0.006), ("Both", 0.002))
_CASINGS = ((str, 0.8), (" {}".format, 0.15), (str.lower, 0.05))
_NO_VERDICT = "I would rather not compare these two texts."
_TIE = re.compile(r"\btie\b", re.IGNORECASE)
_FEWEST_FOR_CASINGS = 8


@dataclass(frozen=True, slots=True)
class PlantedAnswer:
    """An HTTP answer: status and JSON body."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]


class PlantedAnswerer:
    """Answers by a planted spec. A relative path in the spec's ``references`` starts at ``folder``."""

    def __init__(self, spec: PlantedSpec, folder: str | Path = ".") -> None:
        self.spec = spec
        self._references = references(spec, folder)

    def models(self) -> list[str]:
        """The names it is served under."""
        return list(self.spec.model)

    async def answer(self, body: dict[str, Any], call_id: str | None) -> PlantedAnswer:
        """A chat completion, or an OpenAI error body where the request cannot be answered.

        ``call_id`` names the random streams; without it the hash of the request does.
        """
        if body["model"] not in self.spec.model:
            return self._unknown_model(body["model"])
        if body.get("n", 1) not in (None, 1):
            return _refusal(400, "a planted model gives one choice a call", "unsupported_value", "n")
        name = call_id or Call("", "", body).key
        last = text_of(body["messages"][-1].get("content"))
        rating = rated(self.spec, body, name, last, self._quality)
        if rating is not None:
            top = int(body.get("top_logprobs") or 0)
            return _completion(body, name, rating.text, _logprobs(rating.text, rating.top, top) if rating.top else None)
        pair = shown_pair(last)
        answer, reference = tagged(last, "answer"), tagged(last, "reference")
        if pair is not None:
            if body.get("logprobs") is True:
                return self._logprob_verdict(body, name, pair)
            content = self._verdict(body, name, pair)
            if content is None:
                message = "the response_format's schema needs a string property `verdict` with an enum of two or three"
                return _refusal(400, message, "invalid_json_schema", "response_format")
        elif answer is not None and reference is not None:
            content = "[[yes]]" if reference.strip().casefold() in answer.casefold() else "[[no]]"
        else:
            content = draft_text(self.spec, name, body.get("seed") or 0, exemplar_texts(body["messages"]))
        return _completion(body, name, content)

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> PlantedAnswer:
        """The scores of the request's texts in the form of a reward model's ``route``; an error body where questions
        and texts do not match in number."""
        if body["model"] not in self.spec.model:
            return self._unknown_model(body["model"])
        name = call_id or Call("", "", body, route).key
        try:
            return PlantedAnswer(200, scores(self.spec, route, body, name, self._quality), {})
        except ValueError as error:
            return _refusal(400, str(error), "invalid_value", "documents")

    def _unknown_model(self, model: str) -> PlantedAnswer:
        message = f"The model {model!r} does not exist; this server has {', '.join(self.spec.model)}"
        return _refusal(404, message, "model_not_found", "model")

    def log_odds(self, name: str, pair: Shown) -> float:
        """Log-odds of the first slot in the call ``name``, noise included; positive = prefers the first slot."""
        law = planted_log_odds(
            self.spec.coefficients, features_of(pair.first), features_of(pair.second), self._quality_difference(pair)
        )
        if not self.spec.noise:
            return law
        return law + self.spec.noise * float(seeds.rng(self.spec.seed, "noise", name).standard_normal())

    def _quality_difference(self, pair: Shown) -> float:
        first, second = (self._quality(text, pair.question, pair.rest) for text in (pair.first, pair.second))
        return first - second

    def _quality(self, text: str, question: str, rest: str) -> float:
        """The quality of a text; ``rest`` is the message without the texts that are judged."""
        if self.spec.quality_marker is not None:
            return marked_quality(self.spec.quality_marker, text)
        item = self._references.get(question.strip())
        if item is None:
            # A template of the user's own may not mark the question: take the longest known prompt in the message.
            prompts = [prompt for prompt in self._references if prompt in rest]
            item = self._references[max(prompts, key=len)] if prompts else None
        # With match: judge no rule decides: neither text counts as a match.
        return 0.0 if item is None else float(bool(correct(item, text)))

    def _picks_first(self, name: str, log_odds: float) -> bool:
        coin = seeds.uniform(self.spec.seed, "verdict", name)
        if self.spec.temperature0:
            return log_odds > 0 or (log_odds == 0 and coin < 0.5)
        return coin < logistic(log_odds)

    def _is_tie(self, name: str) -> bool:
        return seeds.uniform(self.spec.seed, "tie", name) < self.spec.tie

    def _verdict(self, body: Mapping[str, Any], name: str, pair: Shown) -> str | None:
        """The reply in the requested form (text or JSON); None if the schema has no property ``verdict``."""
        schema = schema_of(body)
        labels = _labels(schema) if schema is not None else ["A", "B", "tie"]
        if labels is None:
            return None
        if is_unscored(self.spec, name):
            return _NO_VERDICT
        first = self._picks_first(name, self.log_odds(name, pair))
        offers_tie = len(labels) > 2 and (bool(properties_of(schema)) or bool(_TIE.search(pair.rest)))
        tie = offers_tie and self._is_tie(name)
        label = labels[2 if tie else 0 if first else 1]
        winner = "Neither answer" if tie else "The first answer" if first else "The second answer"
        sentence = f"{winner} is better."
        if schema is None:
            return f"{sentence} [[{label}]]"
        sentences = {key: sentence for key in properties_of(schema) if key != "verdict"}
        return json.dumps({**sentences, "verdict": label})

    def _logprob_verdict(self, body: Mapping[str, Any], name: str, pair: Shown) -> PlantedAnswer:
        """A completion of one token whose log-probabilities state the law: mass(A) / (mass(A) + mass(B)), summed over all
        casings, is P(first)."""
        count = int(body.get("top_logprobs") or 0)
        if is_unscored(self.spec, name):
            top = [(token, math.log(mass)) for token, mass in NO_VERDICT_TOKENS]
            return _completion(body, name, "I", _logprobs("I", top, count))
        log_odds = self.log_odds(name, pair)
        tie = self.spec.tie
        verdict_mass = 1.0 - sum(mass for _, mass in _FILLER)
        sides = [("A", log_logistic(log_odds)), ("B", log_logistic(-log_odds))]
        masses = [(label, value + math.log(verdict_mass * (1.0 - tie))) for label, value in sides]
        if tie:
            masses.append(("tie", math.log(verdict_mass * tie)))
        top = masses
        if count >= _FEWEST_FOR_CASINGS:
            top = [
                (written(label), value + math.log(share)) for label, value in masses[:2] for written, share in _CASINGS
            ] + masses[2:]
        # The verdicts go first, so that the law can be read from a short list too.
        top += [(token, math.log(mass)) for token, mass in _FILLER][: max(count - len(top), 0)]
        token = "tie" if tie and self._is_tie(name) else "A" if self._picks_first(name, log_odds) else "B"
        return _completion(body, name, token, _logprobs(token, top, count))


def _labels(schema: Mapping[str, Any]) -> list[str] | None:
    """The labels of the schema's ``verdict`` in its order: first slot, second slot and, if offered, tie; None where it
    has no such property."""
    if not schema:
        return ["A", "B", "tie"]
    verdict = properties_of(schema).get("verdict")
    labels = verdict.get("enum") if isinstance(verdict, dict) else None
    if not isinstance(labels, list) or len(labels) not in (2, 3) or not all(isinstance(x, str) for x in labels):
        return None
    return labels


def _logprobs(token: str, top: list[tuple[str, float]], count: int) -> dict[str, Any]:
    ordered = sorted(top, key=lambda entry: -entry[1])[:count]
    logprob = dict(top)[token]
    return {
        "content": [{**_entry(token, logprob), "top_logprobs": [_entry(*entry) for entry in ordered]}],
        "refusal": None,
    }


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _completion(
    body: Mapping[str, Any], name: str, content: str, logprobs: dict[str, Any] | None = None
) -> PlantedAnswer:
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    text, used = _cut(content, most)
    prompt_tokens = sum(len(tokenize(text_of(message.get("content")))) for message in body["messages"])
    completion = {
        "id": f"chatcmpl-{seeds.integer(0, name):08x}",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "system_fingerprint": "planted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": logprobs,
                "finish_reason": "length" if text != content else "stop",
            }
        ],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": used, "total_tokens": prompt_tokens + used},
    }
    return PlantedAnswer(200, completion, {})


def _cut(text: str, most: int | None) -> tuple[str, int]:
    """(the text cut after its first ``most`` tokens, the number of its tokens)."""
    tokens = tokenize(text)
    if most is None or len(tokens) <= most:
        return text, len(tokens)
    end = 0
    for token in tokens[:most]:
        end = text.index(token, end) + len(token)
    return text[:end], most


def _refusal(status: int, message: str, code: str, param: str) -> PlantedAnswer:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return PlantedAnswer(status, {"error": error}, {})
