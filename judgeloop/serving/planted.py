"""The planted model: a judge with stated biases, a reward model and a drafter, so that the truth of every estimate is known.

One law answers every form of request: which of two texts, which of several, how good on a scale, one number a text. The
request is read from the tagged texts of the last message. ``PlantedAnswerer`` has the methods of the local server's
``ScoringAnswerer`` protocol. The same request always gets the same answer.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from judgeloop import seeds
from judgeloop.judging.controls import log_logistic, logistic, planted_log_odds
from judgeloop.records import Call, Item, Route
from judgeloop.serving.planted_spec import DraftSpec, PlantedSpec, features_of, marked_quality, references
from judgeloop.text.features import FEATURES, tokenize
from judgeloop.text.matching import correct
from judgeloop.wire.reply import encoded_vector

Quality = Callable[[str, str, str], float]
"""(text, question, message without the texts that are judged) → the text's quality."""

_NO_VERDICT = "I would rather not judge this."
_NO_VERDICT_OF_PAIR = "I would rather not compare these two texts."
_NO_VERDICT_LOGPROBS = [(token, math.log(mass)) for token, mass in (("I", 0.7), ("The", 0.2), ("Sorry", 0.1))]
# Tokens that are no verdict, with their probabilities, beside the verdicts of pairs, and of scores and lists.
_PAIR_FILLER = (("The", 0.012), ("I", 0.006), ("Both", 0.002))
_RATING_FILLER = (("The", 0.012), ("Both", 0.002))
_CASINGS = ((str, 0.8), (" {}".format, 0.15), (str.lower, 0.05))
_FEWEST_FOR_CASINGS = 8
_LETTERS = "ABCDEFGH"
_FEWEST_LISTED = 3
_MIDDLE, _POINTS = 5.5, 9.0
_SCALE = re.compile(r"from (\d+) \(the (worst|best)\) to (\d+) \(the (?:worst|best)\)")
_TIE = re.compile(r"\btie\b", re.IGNORECASE)
_ASSISTANT_TURN = "\n\nAssistant:"

# Reading a request: the tagged texts of its last message, and the form of the reply.


@dataclass(frozen=True, slots=True)
class ShownRequest:
    """A pair in a judge's request: the answers in the first and second slot, the question, the message without the answers."""

    first: str
    second: str
    question: str
    rest: str


def _shown_pair(message: str) -> ShownRequest | None:
    """The last pair of answers in a judge's message; None where it has no two slots."""
    first, second = _last_tag(message, "answer_a"), _last_tag(message, "answer_b")
    if first is None or second is None:
        return None
    (low, high), (low_b, high_b) = sorted((first.span(), second.span()))
    rest = f"{message[:low]}\n{message[high:low_b]}\n{message[high_b:]}"
    return ShownRequest(_text_inside(first), _text_inside(second), _tagged(rest, "question") or "", rest)


def _last_tag(message: str, tag: str) -> re.Match[str] | None:
    """The last part of a message between the lines ``<tag>`` and ``</tag>``."""
    pattern = re.compile(rf"^<{tag}>[ \t]*\n(.*?)^</{tag}>[ \t]*$", re.DOTALL | re.MULTILINE)
    matches = list(pattern.finditer(message))
    return matches[-1] if matches else None


def _text_inside(match: re.Match[str]) -> str:
    """The text between the two lines of a tag."""
    return match[1].removesuffix("\n")


def _tagged(message: str, tag: str) -> str | None:
    """The text of the message's last part with that tag; None where it has no such part."""
    match = _last_tag(message, tag)
    return None if match is None else _text_inside(match)


def _text_of(content: Any) -> str:
    """A message's content as one text."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return content or ""


def _schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema of the reply, {} for any JSON object, None where the reply is text."""
    form = body.get("response_format") or {}
    if form.get("type") not in ("json_object", "json_schema"):
        return None
    inner = form.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return schema if isinstance(schema, dict) else {}


def _properties_of(schema: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The properties of a JSON schema; empty where it states none."""
    properties = (schema or {}).get("properties")
    return properties if isinstance(properties, dict) else {}


# Ratings: one text on a scale, or the best of several texts.


@dataclass(frozen=True, slots=True)
class PlantedReply:
    """The text of a reply and, where the request asks for log-probabilities, the likeliest first tokens with theirs."""

    text: str
    top_logprobs: list[tuple[str, float]] | None = None


def _rating_reply(
    spec: PlantedSpec, body: Mapping[str, Any], name: str, message: str, quality: Quality
) -> PlantedReply | None:
    """The reply to a message that asks for a score, or for the best of three or more texts; None for any other.

    ``name`` names the random streams: the call id, or the request's hash.
    """
    matches = (_last_tag(message, f"answer_{letter}") for letter in _LETTERS.lower())
    slots = [match for match in matches if match is not None]
    if len(slots) >= _FEWEST_LISTED:
        rest = _outside(message, slots)
        question = _tagged(rest, "question") or ""
        texts = [_text_inside(slot) for slot in slots]
        return _choice(spec, body, name, [text_worth(spec, text, quality(text, question, rest)) for text in texts])
    answer = _last_tag(message, "answer")
    if slots or answer is None:
        return None
    text, rest = _text_inside(answer), _outside(message, [answer])
    scale = _SCALE.search(rest)
    if scale is None:
        return None
    ends = int(scale[1]), int(scale[3])
    worst, best = ends if scale[2] == "worst" else ends[::-1]
    worth = text_worth(spec, text, quality(text, _tagged(rest, "question") or "", rest))
    return _score(spec, body, name, worth, worst, best)


def text_worth(spec: PlantedSpec, text: str, quality: float) -> float:
    """The worth of a text to the judge, in log-odds; positive = better.

    A text of ``draft.length_mean`` tokens without style and quality has 0.
    """
    features = features_of(text)
    weights = {key: value for key, value in spec.coefficients.items() if key not in ("position", "quality")}
    worth = sum(weight * features[key] for key, weight in weights.items() if weight)
    return worth - spec.length * math.log2(spec.draft.length_mean) + spec.quality * quality


def mean_score(spec: PlantedSpec, worth: float, worst: int, best: int) -> float:
    """The mean score of a text of that ``worth``, in points of the scale from ``worst`` to ``best``."""
    share = (_MIDDLE - 1.0 + spec.score_spread * worth) / _POINTS
    low, high = sorted((worst, best))
    return min(max(worst + share * (best - worst) + spec.score_anchor * (high - low), low), high)


def _outside(message: str, parts: Sequence[re.Match[str]]) -> str:
    """The message without these parts."""
    pieces, end = [], 0
    for part in sorted(parts, key=lambda part: part.start()):
        pieces.append(message[end : part.start()])
        end = part.end()
    return "\n".join([*pieces, message[end:]])


def _score(spec: PlantedSpec, body: Mapping[str, Any], name: str, worth: float, worst: int, best: int) -> PlantedReply:
    """The reply with a whole number of the scale, drawn from the two numbers around the mean score."""
    if _is_unscored(spec, name):
        return _no_verdict(body)
    noise = spec.noise * float(seeds.rng(spec.seed, "noise", name).standard_normal()) if spec.noise else 0.0
    mean = mean_score(spec, worth + noise, worst, best)
    below = math.floor(mean)
    above = mean - below
    up = above >= 0.5 if spec.temperature0 else seeds.uniform(spec.seed, "score", name) < above
    number = below + int(up)
    if body.get("logprobs") is True:
        masses = [(str(value), mass) for value, mass in ((below, 1.0 - above), (below + 1, above)) if mass > 0]
        # A model whose tokenizer has 10 as one token lists it, however unlikely.
        masses += [("10", 1e-9)] if max(worst, best) >= 10 and all(token != "10" for token, _ in masses) else []
        return PlantedReply(str(number), _rating_logprobs(masses))
    return PlantedReply(_reply_text(body, "score", number, f"It deserves {number}.", f"[[{number}]]"))


def _choice(spec: PlantedSpec, body: Mapping[str, Any], name: str, worths: Sequence[float]) -> PlantedReply:
    """The reply with the letter of one text, drawn by a softmax of their worths; ``position`` is added to the first."""
    if _is_unscored(spec, name):
        return _no_verdict(body)
    stream = seeds.rng(spec.seed, "noise", name)
    # The difference of two slots' noises has the stated standard deviation, as in a pair.
    noises = stream.standard_normal(len(worths)) * spec.noise / math.sqrt(2.0) if spec.noise else [0.0] * len(worths)
    log_odds = [worth + float(noise) for worth, noise in zip(worths, noises, strict=True)]
    log_odds[0] += spec.position
    most = max(log_odds)
    weights = [math.exp(value - most) for value in log_odds]
    shares = [weight / sum(weights) for weight in weights]
    coin, slot = seeds.uniform(spec.seed, "verdict", name), 0
    if spec.temperature0:
        slot = shares.index(max(shares))
    else:
        while slot < len(shares) - 1 and coin >= sum(shares[: slot + 1]):
            slot += 1
    letter = _LETTERS[slot]
    if body.get("logprobs") is True:
        masses = [(_LETTERS[place], share) for place, share in enumerate(shares) if share > 0]
        return PlantedReply(letter, _rating_logprobs(masses))
    return PlantedReply(_reply_text(body, "verdict", letter, f"Answer {letter} is the best.", f"[[{letter}]]"))


def _reply_text(body: Mapping[str, Any], key: str, value: object, sentence: str, mark: str) -> str:
    """The reply as text that ends in ``mark``, or as the JSON that the request's schema asks for."""
    schema = _schema_of(body)
    if schema is None:
        return f"{sentence} {mark}"
    return json.dumps({**{name: sentence for name in _properties_of(schema) if name != key}, key: value})


def _rating_logprobs(masses: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The tokens with their log-probabilities, scaled to leave room for the tokens that are no verdict, which follow."""
    verdict_mass = 1.0 - sum(mass for _, mass in _RATING_FILLER)
    verdicts = [(token, math.log(mass * verdict_mass)) for token, mass in masses]
    return verdicts + [(token, math.log(mass)) for token, mass in _RATING_FILLER]


def _is_unscored(spec: PlantedSpec, name: str) -> bool:
    """Whether the call ``name`` is among the share ``spec.unscored`` that gets no verdict."""
    return seeds.uniform(spec.seed, "unscored", name) < spec.unscored


def _no_verdict(body: Mapping[str, Any]) -> PlantedReply:
    if body.get("logprobs") is True:
        return PlantedReply("I", _NO_VERDICT_LOGPROBS)
    return PlantedReply(_NO_VERDICT)


# Rewards: one number a text, by the routes that vLLM serves.


def _scores_body(
    spec: PlantedSpec, route: Route, body: Mapping[str, Any], name: str, quality: Quality
) -> dict[str, Any]:
    """The body that answers a request for scores, in the form of its route.

    ``name`` names the random streams: the call id, or the request's hash. Raises ValueError where the numbers of questions
    and texts do not match.
    """
    pairs = _scored_texts(route, body)
    numbers: list[float | None] = []
    for place, (question, text) in enumerate(pairs):
        call = f"{name}/{place}" if place else name
        number = None if _is_unscored(spec, call) else _reward(spec, body, call, question, text, quality)
        numbers.append(number)
    tokens = sum(len(tokenize(question)) + len(tokenize(text)) for question, text in pairs)
    envelope = {
        "id": f"{route}-{seeds.integer(0, name):08x}", "created": 0, "model": body["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }  # fmt: skip
    rows = list(enumerate(numbers))
    if route == "rerank":
        # Best first, as rerankers answer.
        ranked = sorted(rows, key=lambda row: -math.inf if row[1] is None else row[1], reverse=True)
        most = body.get("top_n") or len(ranked)
        results = [
            {"index": place, "document": {"text": pairs[place][1]}, "relevance_score": number}
            for place, number in ranked[:most]
        ]
        return {**envelope, "results": results}
    if route == "score":
        data: list[dict[str, Any]] = [{"index": n, "object": "score", "score": value} for n, value in rows]
    elif route == "pooling":
        data = [{"index": n, "object": "pooling", "data": [value]} for n, value in rows]
    else:
        data = [{"index": n, "label": "LABEL_0", "probs": [value], "num_classes": 1} for n, value in rows]
    return {**envelope, "object": "list", "data": data}


def _reward(spec: PlantedSpec, body: Mapping[str, Any], call: str, question: str, text: str, quality: Quality) -> float:
    """The number of a text: its worth in log-odds, or the logistic of it unless the request asks for none."""
    worth = text_worth(spec, text, quality(text, question, question))
    if spec.noise:
        worth += spec.noise / math.sqrt(2.0) * float(seeds.rng(spec.seed, "noise", call).standard_normal())
    return worth if body.get("use_activation") is False else logistic(worth)


def _scored_texts(route: Route, body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(question, text) of every text that the request asks to score."""
    if route in ("classify", "pooling"):
        if "messages" in body:
            *before, last = body["messages"]
            question = next((_text_of(turn.get("content")) for turn in reversed(before) if turn["role"] == "user"), "")
            return [(question, _text_of(last.get("content")))]
        return [_question_and_answer(text) for text in _text_list(body["input"])]
    if route == "rerank":
        return [(body["query"], text) for text in _text_list(body["documents"])]
    question_key, text_key = ("text_1", "text_2") if "text_1" in body else ("queries", "documents")
    questions, texts = _text_list(body[question_key]), _text_list(body[text_key])
    if len(questions) == 1:
        questions = questions * len(texts)
    if len(questions) != len(texts):
        raise ValueError(f"{len(questions)} of {question_key} do not go with {len(texts)} of {text_key}")
    return list(zip(questions, texts, strict=True))


def _question_and_answer(text: str) -> tuple[str, str]:
    """(question, answer) of a text that tags them as judges' prompts do, or has turns; else all of it is the answer."""
    answer = _tagged(text, "answer")
    if answer is not None:
        return _tagged(text, "question") or "", answer
    question, mark, reply = text.partition(_ASSISTANT_TURN)
    return (question.removeprefix("Human:").strip(), reply.strip()) if mark else ("", text)


def _text_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


# Embeddings: the planted features, and the words by a hash (docs/planted.md).

WORD_NUMBERS = 16
"""Numbers of an embedding that stand for a text's words."""


def embedding(spec: PlantedSpec, text: str, quality: float) -> list[float]:
    """The embedding of a text: length in log2 tokens less those of the median draft, the other features of FEATURES per 100
    tokens, its quality, and WORD_NUMBERS sums of ±1 over its words, each over the root of their number."""
    features = features_of(text)
    measured = [features[name] for name in FEATURES if name != "length"]
    words = [0.0] * WORD_NUMBERS
    tokens = tokenize(text)
    for token in tokens:
        code = zlib.crc32(token.casefold().encode("utf-8", "surrogatepass"))
        words[code % WORD_NUMBERS] += 1.0 if code & 1 << 20 else -1.0
    length = features["length"] - math.log2(spec.draft.length_mean)
    return [length, *measured, quality, *(word / math.sqrt(max(len(tokens), 1)) for word in words)]


def _embeddings_body(spec: PlantedSpec, body: Mapping[str, Any], name: str, quality: Quality) -> dict[str, Any]:
    """The body that answers a request for embeddings, in OpenAI's form."""
    data, tokens = [], 0
    for place, shown in enumerate(_text_list(body["input"])):
        question, text = _question_and_answer(shown)
        vector: Any = embedding(spec, text, quality(text, question, question))
        vector = encoded_vector(vector) if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": place, "embedding": vector})
        tokens += len(tokenize(shown))
    return {
        "id": f"embeddings-{seeds.integer(0, name):08x}", "object": "list", "created": 0, "model": body["model"],
        "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }  # fmt: skip


# The answerer, with the verdicts on pairs.


@dataclass(frozen=True, slots=True)
class PlantedAnswer:
    """An HTTP answer: status and JSON body."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]


class PlantedAnswerer:
    """Answers as a judge, a reward model or a drafter by a planted spec."""

    def __init__(self, spec: PlantedSpec, folder: str | Path = ".") -> None:
        """A relative path in the spec's ``references`` starts at ``folder``."""
        self.spec = spec
        self._references = references(spec, folder)

    def models(self) -> list[str]:
        """The names under which the model is served."""
        return list(self.spec.model)

    def fine_tuned(self, model: str, preferred: Sequence[str]) -> str | None:
        """The name of the model that training ``model`` on these texts leaves: it drafts texts as long as their mean log2 tokens.
        None where no such model is served."""
        if trained(self.spec, model) is None or not preferred:
            return None
        mean = sum(math.log2(max(len(tokenize(text)), 1)) for text in preferred) / len(preferred)
        return f"{model.partition('@')[0]}@length_mean={2**mean:.4f}"

    async def answer(self, body: dict[str, Any], call_id: str | None) -> PlantedAnswer:
        """A chat completion, or an OpenAI error body where the request cannot be answered.

        ``call_id`` names the random streams; without it the hash of the request does.
        """
        drafting = trained(self.spec, body["model"])
        if drafting is None:
            return self._unknown_model(body["model"])
        if body.get("n", 1) not in (None, 1):
            return _refusal(400, "a planted model gives one choice a call", "unsupported_value", "n")
        name = call_id or Call("", "", body).key
        last = _text_of(body["messages"][-1].get("content"))
        rating = _rating_reply(self.spec, body, name, last, self._quality)
        if rating is not None:
            count = int(body.get("top_logprobs") or 0)
            top = rating.top_logprobs
            return _completion(body, name, rating.text, _logprobs(rating.text, top, count) if top else None)
        pair = _shown_pair(last)
        answer, reference = _tagged(last, "answer"), _tagged(last, "reference")
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
            item = self._item("", last) if drafting.draft.correct else None
            reference = item.reference if item is not None else None
            content = draft_text(drafting, name, body.get("seed") or 0, exemplar_texts(body["messages"]), reference)
        return _completion(body, name, content)

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> PlantedAnswer:
        """The scores of the request's texts in the form of a reward model's ``route``, or their embeddings; an error body where
        questions and texts do not match in number."""
        if body["model"] not in self.spec.model:
            return self._unknown_model(body["model"])
        name = call_id or Call("", "", body, route).key
        if route == "embeddings":
            return PlantedAnswer(200, _embeddings_body(self.spec, body, name, self._quality), {})
        try:
            return PlantedAnswer(200, _scores_body(self.spec, route, body, name, self._quality), {})
        except ValueError as error:
            return _refusal(400, str(error), "invalid_value", "documents")

    def _unknown_model(self, model: str) -> PlantedAnswer:
        message = f"The model {model!r} does not exist; this server has {', '.join(self.spec.model)}"
        return _refusal(404, message, "model_not_found", "model")

    def log_odds(self, name: str, pair: ShownRequest) -> float:
        """Log-odds of the first slot in the call ``name``, noise included; positive = prefers the first slot."""
        law = planted_log_odds(
            self.spec.coefficients, features_of(pair.first), features_of(pair.second), self._quality_difference(pair)
        )
        if not self.spec.noise:
            return law
        return law + self.spec.noise * float(seeds.rng(self.spec.seed, "noise", name).standard_normal())

    def _quality_difference(self, pair: ShownRequest) -> float:
        first, second = (self._quality(text, pair.question, pair.rest) for text in (pair.first, pair.second))
        return first - second

    def _quality(self, text: str, question: str, rest: str) -> float:
        """The quality of a text; ``rest`` is the message without the texts that are judged."""
        if self.spec.quality_marker is not None:
            return marked_quality(self.spec.quality_marker, text)
        item = self._item(question, rest)
        # With ``match: judge`` no rule decides: no text counts as a match.
        return 0.0 if item is None else float(bool(correct(item, text)))

    def _item(self, question: str, message: str) -> Item | None:
        """The item with a reference whose prompt is the question, or else stands in the message."""
        item = self._references.get(question.strip())
        if item is None:
            # A user's own template may not mark the question: take the longest known prompt in the message.
            prompts = [prompt for prompt in self._references if prompt in message]
            item = self._references[max(prompts, key=len)] if prompts else None
        return item

    def _picks_first(self, name: str, log_odds: float) -> bool:
        coin = seeds.uniform(self.spec.seed, "verdict", name)
        if self.spec.temperature0:
            return log_odds > 0 or (log_odds == 0 and coin < 0.5)
        return coin < logistic(log_odds)

    def _is_tie(self, name: str) -> bool:
        return seeds.uniform(self.spec.seed, "tie", name) < self.spec.tie

    def _verdict(self, body: Mapping[str, Any], name: str, pair: ShownRequest) -> str | None:
        """The reply in the requested form (text or JSON); None if the schema has no property ``verdict``."""
        schema = _schema_of(body)
        labels = _labels(schema) if schema is not None else ["A", "B", "tie"]
        if labels is None:
            return None
        if _is_unscored(self.spec, name):
            return _NO_VERDICT_OF_PAIR
        picks_first = self._picks_first(name, self.log_odds(name, pair))
        offers_tie = len(labels) > 2 and (bool(_properties_of(schema)) or bool(_TIE.search(pair.rest)))
        is_tie = offers_tie and self._is_tie(name)
        label = labels[2 if is_tie else 0 if picks_first else 1]
        winner = "Neither answer" if is_tie else "The first answer" if picks_first else "The second answer"
        sentence = f"{winner} is better."
        if schema is None:
            return f"{sentence} [[{label}]]"
        sentences = {key: sentence for key in _properties_of(schema) if key != "verdict"}
        return json.dumps({**sentences, "verdict": label})

    def _logprob_verdict(self, body: Mapping[str, Any], name: str, pair: ShownRequest) -> PlantedAnswer:
        """A completion of one token with the law in its log-probabilities.

        mass(A) / (mass(A) + mass(B)), summed over all casings, is P(first).
        """
        count = int(body.get("top_logprobs") or 0)
        if _is_unscored(self.spec, name):
            return _completion(body, name, "I", _logprobs("I", _NO_VERDICT_LOGPROBS, count))
        log_odds = self.log_odds(name, pair)
        tie = self.spec.tie
        verdict_mass = 1.0 - sum(mass for _, mass in _PAIR_FILLER)
        sides = [("A", log_logistic(log_odds)), ("B", log_logistic(-log_odds))]
        masses = [(label, value + math.log(verdict_mass * (1.0 - tie))) for label, value in sides]
        if tie:
            masses.append(("tie", math.log(verdict_mass * tie)))
        top = masses
        if count >= _FEWEST_FOR_CASINGS:
            top = [
                (written(label), value + math.log(share)) for label, value in masses[:2] for written, share in _CASINGS
            ] + masses[2:]
        # Verdicts before other tokens, so that the law can be read from a short list too.
        top += [(token, math.log(mass)) for token, mass in _PAIR_FILLER][: max(count - len(top), 0)]
        token = "tie" if tie and self._is_tie(name) else "A" if self._picks_first(name, log_odds) else "B"
        return _completion(body, name, token, _logprobs(token, top, count))


def _labels(schema: Mapping[str, Any]) -> list[str] | None:
    """The labels of the schema's ``verdict`` in its order: first slot, second slot and, if offered, tie; None where it
    has no such property."""
    if not schema:
        return ["A", "B", "tie"]
    verdict = _properties_of(schema).get("verdict")
    labels = verdict.get("enum") if isinstance(verdict, dict) else None
    if not isinstance(labels, list) or len(labels) not in (2, 3) or not all(isinstance(label, str) for label in labels):
        return None
    return labels


def _logprobs(token: str, top: list[tuple[str, float]], count: int) -> dict[str, Any]:
    """The ``logprobs`` of a completion of one token, with the ``count`` likeliest of ``top``."""
    ordered = sorted(top, key=lambda entry: -entry[1])[:count]
    logprob = dict(top)[token]
    return {
        "content": [{**_token_entry(token, logprob), "top_logprobs": [_token_entry(*entry) for entry in ordered]}],
        "refusal": None,
    }


def _token_entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _completion(
    body: Mapping[str, Any], name: str, content: str, logprobs: dict[str, Any] | None = None
) -> PlantedAnswer:
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    text, tokens = _cut(content, most)
    prompt_tokens = sum(len(tokenize(_text_of(message.get("content")))) for message in body["messages"])
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
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens},
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


# Planted drafts: English-looking Markdown of a planned length, from a small list of words.

_MOST_TOKENS = 8192

# None of these is a hedge, a transition or any other counted feature: a draft's style is what its spec says.
_ADJECTIVES = [
    "small",
    "quiet",
    "early",
    "warm",
    "simple",
    "bright",
    "steady",
    "careful",
    "local",
    "common",
    "deep",
    "recent",
    "plain",
    "open",
    "useful",
    "public",
    "narrow",
    "fresh",
    "solid",
    "strong",
    "calm",
    "direct",
    "modern",
    "broad",
]
_NOUNS = [
    "river",
    "garden",
    "teacher",
    "window",
    "market",
    "letter",
    "station",
    "harvest",
    "bridge",
    "valley",
    "engine",
    "library",
    "winter",
    "village",
    "method",
    "answer",
    "kitchen",
    "forest",
    "doctor",
    "signal",
    "history",
    "table",
    "morning",
    "question",
    "village",
    "machine",
    "island",
    "student",
    "paper",
    "road",
]
_VERBS = [
    "carries",
    "follows",
    "changes",
    "keeps",
    "supports",
    "shapes",
    "reaches",
    "holds",
    "explains",
    "joins",
    "covers",
    "brings",
    "moves",
    "needs",
    "shows",
    "meets",
    "opens",
    "crosses",
    "serves",
    "fills",
]
_PREPOSITIONS = ["near", "beyond", "under", "behind", "across", "beside", "above", "within"]
_PATTERN = ("the", _ADJECTIVES, _NOUNS, _VERBS, "the", _NOUNS, _PREPOSITIONS, "the", _ADJECTIVES, _NOUNS, "and", "then")
# Words after which the pattern is a whole sentence.
_SENTENCE_LENGTHS = (6, 10, 10, 18)
_SENTENCES_A_PARAGRAPH = 4
_NO_ANSWER = "elsewhere"


def draft_text(
    spec: PlantedSpec, name: str, body_seed: int, exemplars: Sequence[str], reference: str | None = None
) -> str:
    """The draft of the call ``name``: a text of 1 to 8192 whole tokens.

    log2 tokens ~ N((1 − follow)·log2 length_mean + follow·mean log2 tokens of the ``exemplars``, length_sd²). ``body_seed``
    is the request's seed: another one gives another draft. With a ``reference`` the draft states an answer, which is the
    reference with the chance ``draft.correct``, in its own stream: length and style do not depend on it.
    """
    draft = spec.draft
    generator = seeds.rng(spec.seed, "draft", name, body_seed)
    # The length is drawn first, so that it does not depend on the words and marks.
    log2_tokens = planned_log2_tokens(draft, exemplars) + draft.length_sd * generator.standard_normal()
    tokens = min(max(round(2.0 ** min(log2_tokens, 14.0)), 1), _MOST_TOKENS)
    quality = draft.quality_mean + draft.quality_sd * generator.standard_normal()
    marker = ""
    if spec.quality_marker is not None and (draft.quality_mean or draft.quality_sd):
        marker = f"{spec.quality_marker}{quality:.3f}{_closing(spec.quality_marker)}"
    if reference is not None and draft.correct:
        right = seeds.uniform(spec.seed, "correct", name, body_seed) < draft.correct
        marker = f"The answer is {reference if right else _NO_ANSWER}."
    return _markdown_text(generator, tokens, draft.markdown, marker)


_TRAINED = re.compile(r"(.+)@length_mean=(\d{1,4}(?:\.\d{1,12})?)")


def trained(spec: PlantedSpec, model: str) -> PlantedSpec | None:
    """The spec by which ``model`` drafts: the server's own for its names; with another median length for a name such as
    ``planted@length_mean=80``, by which a training of a planted policy is played; None for any other."""
    name = _TRAINED.fullmatch(model)
    if name is None or name[1] not in spec.model or not 1 <= float(name[2]) <= _MOST_TOKENS:
        return spec if model in spec.model else None
    return spec.model_copy(update={"draft": spec.draft.model_copy(update={"length_mean": float(name[2])})})


def planned_log2_tokens(draft: DraftSpec, exemplars: Sequence[str]) -> float:
    """The mean of a draft's log2 tokens, given the exemplars of the request."""
    base = math.log2(draft.length_mean)
    if not exemplars:
        return base
    exemplar_mean = sum(math.log2(max(len(tokenize(text)), 1)) for text in exemplars) / len(exemplars)
    return (1 - draft.follow) * base + draft.follow * exemplar_mean


def exemplar_texts(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of the assistant's turns, each of which is one exemplar of the drafting prompt."""
    return [
        str(message["content"]) for message in messages if message.get("role") == "assistant" and message["content"]
    ]


def _closing(marker: str) -> str:
    """The bracket that closes a marker's opening one; empty where it opens none."""
    return {"[": "]", "(": ")", "{": "}", "<": ">"}.get(marker[0], "")


def _markdown_text(generator: np.random.Generator, tokens: int, markdown: float, marker: str) -> str:
    """A text of ``tokens`` tokens (never fewer than the marker has), with the marker after its first sentence."""
    remaining = tokens - len(tokenize(marker))
    blocks: list[str] = []
    in_paragraph = 0
    marked = not marker
    while remaining > 0:
        kind = generator.choice(("bold", "item", "heading")) if generator.random() < markdown else "plain"
        piece = _sentence(generator, int(generator.choice(_SENTENCE_LENGTHS)), str(kind))
        if len(tokenize(piece)) >= remaining:
            piece, kind = _plain_text(generator, remaining), "plain"
        remaining -= len(tokenize(piece))
        own_block = kind in ("item", "heading")
        # Behind a heading the marker would become part of it: it waits for the next sentence.
        if not marked and kind != "heading":
            piece, marked = f"{piece} {marker}", True
        if own_block or in_paragraph == 0 or in_paragraph >= _SENTENCES_A_PARAGRAPH:
            blocks.append(piece)
        else:
            blocks[-1] += f" {piece}"
        in_paragraph = 0 if own_block else in_paragraph % _SENTENCES_A_PARAGRAPH + 1
    return "\n\n".join(blocks if marked else [*blocks, marker])


def _words(generator: np.random.Generator, count: int) -> list[str]:
    """Words by the pattern, the first with a capital."""
    words = []
    for place in range(count):
        slot = _PATTERN[place % len(_PATTERN)]
        words.append(slot if isinstance(slot, str) else slot[int(generator.integers(len(slot)))])
    words[0] = words[0].capitalize()
    return words


def _sentence(generator: np.random.Generator, count: int, kind: str) -> str:
    """A sentence of ``count`` words with the mark of its kind; a heading has three words of it."""
    words = _words(generator, count)
    if kind == "heading":
        return "## " + " ".join(words[:3])
    if kind == "bold":
        return f"**{' '.join(words[:3])}** {' '.join(words[3:])}."
    return ("- " if kind == "item" else "") + " ".join(words) + "."


def _plain_text(generator: np.random.Generator, tokens: int) -> str:
    """Words without marks, with a full stop that counts as a token, of ``tokens`` tokens in all."""
    if tokens == 1:
        return _words(generator, 1)[0]
    return " ".join(_words(generator, tokens - 1)) + "."
