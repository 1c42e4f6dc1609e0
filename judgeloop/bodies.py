"""Request bodies: what a model is sent to draft, judge, score, choose, match and edit; and how texts are made safe for that.

Texts of candidates and items are data. Neutralised, they cannot close the delimiters of a prompt, pass for a verdict, switch
the role or contain what no UTF-8 request can hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from judgeloop.errors import ExperimentError
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Message, RewardRoute, prompt_text, prompt_turns
from judgeloop.text.templates import Mode, Scale, Template, fill, render

Prompt = str | Sequence[Message]

LETTERS = "ABCDEFGH"
"""Names of the slots of a list, in order."""
_NO_REFERENCE = "(none given)"
_REPLACEMENT = "\ufffd"
_REMEMBERED = 256
"""Texts whose safe form is remembered: both orders of a pair, and all pairs of an item, show the same ones."""

# C0 and C1 controls but for newline and tab, DEL, bidirectional embeddings, overrides and isolates, lone surrogates.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NEWLINE = re.compile(r"\r\n?")

# Characters that hide a tag from a plain search and not from a model: white space, joiners, soft hyphens.
_GAP = "[\\s\u00ad\u200b-\u200f\u2060\ufeff]"
# Possessive quantifiers keep a long run of white space from being scanned more than once.
_OUR_TAG = re.compile(
    rf"<(?={_GAP}*+/?+{_GAP}*+(?:answer(?:{_GAP}|[_-])*+[ab]|question|reference)(?![A-Za-z0-9_]))", re.I
)
_CONTROL_TAG = re.compile(
    r"<(?=[|｜][\w▁ .:/-]{1,64}[|｜]>|/?(?:s|bos|eos|pad|unk|think|thinking|reasoning|start_of_turn|end_of_turn)>|</?sys>>)",
    re.I,
)
_CONTROL_BRACKET = re.compile(r"\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])", re.I)

# Space and emphasis that may stand between the brackets and the label. judging.answers reads verdicts by the same patterns, so
# that everything that it could read in a reply is broken in a candidate.
_WRAP = "[\\s*_`\"'\u00ad\u200b-\u200f\u2060\ufeff]*+"
VERDICT_TOKEN = re.compile(rf"\[\[({_WRAP}(a|b|tie|yes|no){_WRAP})\]\]", re.I)

# The same for prompts that show one answer, or a list of them.
_RATED_TAG = re.compile(
    rf"<(?={_GAP}*+/?+{_GAP}*+(?:answers?(?:(?:{_GAP}|[_-])*+[a-h])?|question|reference)(?![A-Za-z0-9_]))", re.I
)
SCORE_TOKEN = re.compile(rf"\[\[({_WRAP}(-?[0-9]{{1,4}}(?:\.[0-9]{{1,4}})?)(?:[ ]?/[ ]?([0-9]{{1,4}}))?{_WRAP})\]\]")
CHOICE_TOKEN = re.compile(rf"\[\[({_WRAP}([a-h]){_WRAP})\]\]", re.I)


def without_controls(text: str) -> str:
    """The text without what could switch roles or break a request: chat-control tokens, control characters, bidirectional
    overrides and lone surrogates. Markdown, right-to-left scripts and everything else stay. Idempotent, linear time.
    """
    text = _UNWANTED.sub(_REPLACEMENT, _NEWLINE.sub("\n", text))
    text = _CONTROL_TAG.sub("‹", text)
    return _CONTROL_BRACKET.sub("[ ", text)


@lru_cache(_REMEMBERED)
def neutralise(text: str) -> str:
    """The text as a judge may be shown it: ``without_controls``, and it can neither close our delimiters (their ``<``
    becomes ``‹``) nor pass for a verdict (``[[A]]`` becomes ``[ [A] ]``). Idempotent, linear time.
    """
    text = _OUR_TAG.sub("‹", without_controls(text))
    return VERDICT_TOKEN.sub(r"[ [\1] ]", text)


@lru_cache(_REMEMBERED)
def neutralise_rated(text: str) -> str:
    """As ``neutralise``, for prompts that show one answer or a list: it cannot pass for a score or a letter either."""
    text = VERDICT_TOKEN.sub(r"[ [\1] ]", _RATED_TAG.sub("‹", without_controls(text)))
    return CHOICE_TOKEN.sub(r"[ [\1] ]", SCORE_TOKEN.sub(r"[ [\1] ]", text))


def draft_body(
    endpoint: Endpoint,
    template: Template,
    prompt: Prompt,
    exemplars: Sequence[tuple[Prompt, str]] = (),
    *,
    temperature: float = 1.0,
    max_tokens: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """The request body that asks for a draft. Exemplars (prompt, text) become a user's and an assistant's turn each, before
    the item's own turns: in-context examples on any chat API.
    """
    *head, user = template.messages
    system = [message.content for message in head]
    own = _turns(prompt, user.content)
    # Many chat templates accept one system message only, and only as the first.
    system += [message["content"] for message in own if message["role"] == "system"]
    messages = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    for exemplar_prompt, text in exemplars:
        messages += [turn for turn in _turns(exemplar_prompt, user.content) if turn["role"] != "system"]
        messages.append({"role": "assistant", "content": without_controls(text)})
    messages += [turn for turn in own if turn["role"] != "system"]
    return {**_body(endpoint, messages, temperature, max_tokens, seed), **endpoint.extra_body}


def judge_body(
    endpoint: Endpoint,
    template: Template,
    mode: Mode,
    *,
    prompt: Prompt,
    first_text: str,
    second_text: str,
    reference: str | None = None,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """The request body that asks which is better, ``first_text`` as answer A or ``second_text`` as answer B.

    ``max_tokens`` None is the endpoint's. ``seed`` is sent only at temperature > 0: at 0 it changes nothing, and would keep
    equal calls apart. Raises ExperimentError if the template has no instruction for that mode.
    """
    values = _pair_values(template, mode, prompt, first_text, second_text, reference)
    properties = {"verdict": {"type": "string", "enum": list(template.labels)}}
    return _answer_body(endpoint, template, mode, values, properties, temperature, max_tokens, seed)


def judge_messages(
    template: Template, mode: Mode, *, prompt: Prompt, first_text: str, second_text: str, reference: str | None = None
) -> list[dict[str, str]]:
    """The chat turns of ``judge_body``, for who asks a model by other means: role (system or user) and content of each."""
    return render(template, _pair_values(template, mode, prompt, first_text, second_text, reference))


def _pair_values(
    template: Template, mode: Mode, prompt: Prompt, first_text: str, second_text: str, reference: str | None
) -> dict[str, str]:
    """What stands in a pairwise prompt's places, candidate texts made harmless."""
    return {
        "prompt": neutralise(prompt_text(prompt)),
        "answer_a": neutralise(first_text),
        "answer_b": neutralise(second_text),
        "reference": _NO_REFERENCE if reference is None else neutralise(reference),
        "instruction": _instruction(template, mode),
        "verdict_a": _verdict_text("A", mode),
        "verdict_b": _verdict_text("B", mode),
    }


def score_body(
    endpoint: Endpoint,
    template: Template,
    mode: Mode,
    scale: Scale,
    *,
    prompt: Prompt,
    answer: str,
    reference: str | None = None,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """The request body that asks for the score of one answer on that scale; the rest as in ``judge_body``."""
    ends = {"scale": scale.words, "low": str(scale.low), "high": str(scale.high)}
    values = {
        **ends,
        "prompt": neutralise_rated(prompt_text(prompt)),
        "answer": neutralise_rated(answer),
        "reference": _NO_REFERENCE if reference is None else neutralise_rated(reference),
        "instruction": fill(_instruction(template, mode), ends),
    }
    properties = {"score": {"type": "integer", "enum": list(scale.values)}}
    return _answer_body(endpoint, template, mode, values, properties, temperature, max_tokens, seed)


def choice_body(
    endpoint: Endpoint,
    template: Template,
    mode: Mode,
    *,
    prompt: Prompt,
    texts: Sequence[str],
    reference: str | None = None,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """The request body that asks for the best of 2 to 8 ``texts``, in the order of the slots; the rest as in ``judge_body``.

    Slot k is named by the k-th of ``LETTERS``. No tie is offered.
    """
    letters = LETTERS[: len(texts)]
    answers = [
        f"<answer_{letter.lower()}>\n{neutralise_rated(text)}\n</answer_{letter.lower()}>"
        for letter, text in zip(letters, texts, strict=True)
    ]
    words = {"letters": _alternatives(letters), "marks": _alternatives([f"[[{letter}]]" for letter in letters])}
    values = {
        "letters": words["letters"],
        "prompt": neutralise_rated(prompt_text(prompt)),
        "answers": "\n\n".join(answers),
        "reference": _NO_REFERENCE if reference is None else neutralise_rated(reference),
        "instruction": fill(_instruction(template, mode), words),
    }
    properties = {"verdict": {"type": "string", "enum": list(letters)}}
    return _answer_body(endpoint, template, mode, values, properties, temperature, max_tokens, seed)


def reward_body(
    endpoint: Endpoint, route: RewardRoute, template: Template | None, *, prompt: Prompt, answer: str, raw: bool = True
) -> dict[str, Any]:
    """The request body that asks a reward model for the score of one answer by that route.

    classify and pooling are sent the conversation, or with a ``template`` one text; score and rerank prompt and answer apart.
    ``raw`` asks for the number before the model's activation.
    """
    text = without_controls(answer)
    body: dict[str, Any] = {"model": endpoint.model}
    if route == "score":
        body |= {"text_1": without_controls(prompt_text(prompt)), "text_2": text}
    elif route == "rerank":
        body |= {"query": without_controls(prompt_text(prompt)), "documents": [text]}
    elif template is not None:
        body["input"] = render(template, {"prompt": without_controls(prompt_text(prompt)), "answer": text})[0][
            "content"
        ]
    else:
        history = prompt_turns(prompt)
        turns = [{"role": turn.role, "content": without_controls(turn.content)} for turn in history]
        body["messages"] = [*turns, {"role": "assistant", "content": text}]
    if route == "pooling":
        body["encoding_format"] = "float"
    if raw:
        body["use_activation"] = False
    return {**body, **endpoint.extra_body}


def embedding_body(
    endpoint: Endpoint, template: Template | None, *, prompt: Prompt, answer: str
) -> dict[str, Any]:  # fmt: skip
    """The request body that asks for the embedding of an answer, or with a ``template`` of prompt and answer as one text."""
    text = without_controls(answer)
    if template is not None:
        text = render(template, {"prompt": without_controls(prompt_text(prompt)), "answer": text})[0]["content"]
    return {"model": endpoint.model, "input": text, "encoding_format": "base64", **endpoint.extra_body}


def match_body(
    endpoint: Endpoint,
    template: Template,
    *,
    prompt: Prompt,
    answer: str,
    reference: str,
    max_tokens: int | None = None,
) -> dict[str, Any]:
    """The request body that asks, in text mode at temperature 0, whether an answer agrees with the reference."""
    values = {
        "prompt": neutralise(prompt_text(prompt)),
        "answer": neutralise(answer),
        "reference": neutralise(reference),
        "instruction": _instruction(template, "text"),
    }
    return {**_body(endpoint, render(template, values), 0.0, max_tokens, None), **endpoint.extra_body}


def edit_body(
    endpoint: Endpoint,
    template: Template,
    *,
    text: str,
    length: int,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """The request body that asks for a text in other words, about ``length`` words long."""
    messages = render(template, {"text": neutralise(text), "length": str(length)})
    body = _body(endpoint, messages, temperature, max_tokens, seed if temperature > 0 else None)
    return {**body, **endpoint.extra_body}


def _answer_body(
    endpoint: Endpoint,
    template: Template,
    mode: Mode,
    values: Mapping[str, str],
    properties: Mapping[str, Any],
    temperature: float,
    max_tokens: int | None,
    seed: int | None,
) -> dict[str, Any]:
    """The body for a verdict mode; ``properties``: what the JSON reply holds in mode json."""
    mode_fields: dict[str, Any] = {}
    if mode == "logprob":
        max_tokens, mode_fields = 1, {"logprobs": True, "top_logprobs": endpoint.top_logprobs}
    elif mode == "json":
        mode_fields = {"response_format": _response_format(template, properties)}
    body = _body(endpoint, render(template, values), temperature, max_tokens, seed if temperature > 0 else None)
    return {**body, **mode_fields, **endpoint.extra_body}


def _turns(prompt: Prompt, user_template: str) -> list[dict[str, str]]:
    """A prompt as chat turns, the last one put into the template's user message."""
    history = prompt_turns(prompt)
    turns = [{"role": message.role, "content": without_controls(message.content)} for message in history]
    turns[-1]["content"] = fill(user_template, {"prompt": turns[-1]["content"]})
    return turns


def _body(
    endpoint: Endpoint,
    messages: list[dict[str, str]],
    temperature: float,
    max_tokens: int | None,
    seed: int | None,
) -> dict[str, Any]:
    """The fields of every chat completion, but for ``extra_body``."""
    body: dict[str, Any] = {"model": endpoint.model, "messages": messages}
    body[endpoint.max_tokens_field] = endpoint.max_tokens if max_tokens is None else max_tokens
    if endpoint.send_temperature:
        body["temperature"] = temperature
    if seed is not None and endpoint.seed_field != "none":
        body[endpoint.seed_field] = seed
    return body


def _instruction(template: Template, mode: Mode) -> str:
    """The template's words for that verdict mode. Raises ExperimentError where it has none."""
    if mode not in template.instructions:
        raise ExperimentError(
            f"prompt {template.name}: cannot be asked in verdict mode {mode}; it has {', '.join(template.modes) or 'none'}"
        )
    return template.instructions[mode]


def _verdict_text(label: str, mode: Mode) -> str:
    """The label as a reply in that mode writes it."""
    if mode == "json":
        return json.dumps({"verdict": label})
    return label if mode == "logprob" else f"[[{label}]]"


def _response_format(template: Template, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema with these properties, behind the reasoning where the template asks for it."""
    if template.reasons:
        # Constrained decoding writes properties in this order: the reasoning must come before the verdict it supports.
        properties = {"reasoning": {"type": "string"}, **properties}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


def _alternatives(words: Sequence[str]) -> str:
    """``A, B or C``."""
    return f"{', '.join(words[:-1])} or {words[-1]}"
