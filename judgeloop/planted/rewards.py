"""The planted judge as a reward model: one number a text, by the routes that vLLM serves.

The raw number is the text's content in log-odds (``rating.content``), so that the difference of two texts' numbers is the
law of pairs without its position. ``noise`` is that of a difference: each text's own has a standard deviation of noise/√2,
drawn by the call. What is served without ``use_activation: false`` is the number's logistic, as of a model with one label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from judgeloop import seeds
from judgeloop.law import logistic
from judgeloop.planted.rating import Quality, content, is_unscored
from judgeloop.planted.shown import tagged, text_of
from judgeloop.planted.spec import PlantedSpec
from judgeloop.records import Route
from judgeloop.text.features import tokenize

_TURN = "\n\nAssistant:"


def scores(spec: PlantedSpec, route: Route, body: Mapping[str, Any], name: str, quality: Quality) -> dict[str, Any]:
    """The body that answers a request for scores, in the form of its route.

    ``name`` names the random streams: the call id, or the request's hash. Raises ValueError where the numbers of questions
    and texts do not match.
    """
    pairs = _pairs(route, body)
    numbers = [
        None if is_unscored(spec, call) else _number(spec, body, call, question, text, quality)
        for place, (question, text) in enumerate(pairs)
        for call in (f"{name}/{place}" if place else name,)
    ]
    used = sum(len(tokenize(question)) + len(tokenize(text)) for question, text in pairs)
    envelope = {
        "id": f"{route}-{seeds.integer(0, name):08x}", "created": 0, "model": body["model"],
        "usage": {"prompt_tokens": used, "total_tokens": used, "completion_tokens": 0},
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


def _number(spec: PlantedSpec, body: Mapping[str, Any], call: str, question: str, text: str, quality: Quality) -> float:
    worth = content(spec, text, quality(text, question, question))
    if spec.noise:
        worth += spec.noise / math.sqrt(2.0) * float(seeds.rng(spec.seed, "noise", call).standard_normal())
    return worth if body.get("use_activation") is False else logistic(worth)


def _pairs(route: Route, body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(question, text) of every text that the request asks to score."""
    if route in ("classify", "pooling"):
        if "messages" in body:
            *before, last = body["messages"]
            question = next((text_of(turn.get("content")) for turn in reversed(before) if turn["role"] == "user"), "")
            return [(question, text_of(last.get("content")))]
        return [_question_and_answer(text) for text in _list(body["input"])]
    if route == "rerank":
        return [(body["query"], text) for text in _list(body["documents"])]
    question_key, text_key = ("text_1", "text_2") if "text_1" in body else ("queries", "documents")
    questions, texts = _list(body[question_key]), _list(body[text_key])
    if len(questions) == 1:
        questions = questions * len(texts)
    if len(questions) != len(texts):
        raise ValueError(f"{len(questions)} of {question_key} do not go with {len(texts)} of {text_key}")
    return list(zip(questions, texts, strict=True))


def _question_and_answer(text: str) -> tuple[str, str]:
    """(question, answer) of one text: tagged as judges' prompts are, or turns; else all of it is the answer."""
    answer = tagged(text, "answer")
    if answer is not None:
        return tagged(text, "question") or "", answer
    question, mark, reply = text.partition(_TURN)
    return (question.removeprefix("Human:").strip(), reply.strip()) if mark else ("", text)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
