"""What a response says: every shape that servers were seen to answer, and any JSON at all."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop.records import Reply
from judgeloop.wire.reply import Refusal, TransientFault, clean, parse, read


def completion(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", **message},
        "finish_reason": "stop",
        **more.pop("choice", {}),
    }
    return {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, **more}


def reply_to(message: dict[str, Any], **more: Any) -> Reply:
    """The reply, through the text of a response and back from a recording."""
    return read(200, json.loads(json.dumps(parse(200, json.dumps(completion(message, **more))))), "")


def test_a_plain_answer() -> None:
    reply = reply_to({"content": "[[A]]"}, system_fingerprint="fp")
    assert reply == Reply(
        "[[A]]", finish_reason="stop", model="m", fingerprint="fp", prompt_tokens=3, completion_tokens=2
    )


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "<think>or [[B]]?</think>\n[[A]]"}, "[[A]]", "or [[B]]?"),
        ({"content": "  <thinking>x</thinking> y"}, "y", "x"),
        ({"content": "<reasoning>x</reasoning>y"}, "y", "x"),
        ({"content": "<think>a</think>b<think>c</think>d"}, "b<think>c</think>d", "a"),
        ({"content": "<think>[[A]] or"}, "", "[[A]] or"),
        ({"content": "opened in the prompt [[B]]</think>\n\n[[A]]"}, "[[A]]", "opened in the prompt [[B]]"),
        ({"content": "[[A]]", "reasoning_content": "why"}, "[[A]]", "why"),
        ({"content": "[[A]]", "reasoning": "why"}, "[[A]]", "why"),
        ({"content": [{"type": "text", "text": "[["}, {"type": "text", "text": "A]]"}]}, "[[A]]", ""),
        ({"content": ["[[", "A]]"]}, "[[A]]", ""),
        ({"content": [{"type": "text", "text": None}, {"type": "text", "text": "x"}]}, "x", ""),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "x"}]},
            "x",
            "t",
        ),
        ({"content": "a \ud800 b", "reasoning_content": "\udfff"}, "a \ufffd b", "\ufffd"),
        ({"content": ""}, "", ""),
    ],
)  # fmt: skip
def test_reasoning_is_set_aside(message: dict[str, Any], text: str, reasoning: str) -> None:
    reply = reply_to(message)
    assert (reply.text, reply.reasoning, reply.failure) == (text, reasoning, "")


def test_refusals() -> None:
    assert reply_to({"content": None, "refusal": "I cannot"}).refusal == "I cannot"
    filtered = reply_to({"content": None}, choice={"finish_reason": "content_filter"})
    assert (filtered.text, filtered.refusal) == ("", "content_filter")
    # Thinking used up the tokens: an answer without text, that asking again would not mend.
    cut = reply_to({"content": None, "reasoning_content": "hm"}, choice={"finish_reason": "length"})
    assert (cut.text, cut.reasoning, cut.finish_reason, cut.failure) == ("", "hm", "length", "")


A = {"token": "A", "logprob": -0.5}


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        ({"content": [{**A, "top_logprobs": [A, {"token": "B", "logprob": -1}]}]}, (("A", -0.5), ("B", -1.0))),
        ({"content": [{**A, "top_logprobs": []}]}, (("A", -0.5),)),
        ({"content": [{**A, "top_logprobs": [A, None, 3, "B", {"token": 1, "logprob": -1}, {"token": "B"}]}]}, (("A", -0.5),)),
        ({"content": [{**A, "top_logprobs": {"A": -1}}]}, ()),
        ({"content": [{"top_logprobs": [{"token": "\ud800", "logprob": -math.inf}]}]}, (("\ufffd", -math.inf),)),
        ({"content": [{"top_logprobs": [{"token": "A", "logprob": value} for value in (math.nan, 0.5, True, "-1", -(10**400))]}]}, ()),
        ({"content": [3]}, ()), ({"content": []}, ()), ({"content": None}, ()), ([], ()), ("x", ()), (None, ()), (7, ()),
    ],
)  # fmt: skip
def test_logprobs(logprobs: Any, expected: tuple[tuple[str, float], ...]) -> None:
    assert reply_to({"content": "A"}, choice={"logprobs": logprobs}).top_logprobs == expected


def test_logprobs_of_a_thought_are_no_verdict() -> None:
    assert reply_to({"content": "<think>x</think>A"}, choice={"logprobs": {"content": [A]}}).top_logprobs == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not_json"), ("<html>", "not_json"), ('{"choices": [', "not_json"), ("[]", "not_json"), ("null", "not_json"),
        ('"x"', "not_json"), ("[" * 100_000, "not_json"), ('{"a":' * 200 + "1" + "}" * 200, "not_json"),
        ("1" * 5000, "not_json"), ("{}", "empty_choices"), ('{"choices": []}', "empty_choices"),
        ('{"choices": {}}', "empty_choices"), ('{"choices": [1]}', "empty_choices"),
        ('{"choices": [{"message": "x"}]}', "empty_choices"), ('{"error": {"message": "busy"}}', "empty_choices"),
        ('{"choices": [{"message": {"content": null}}]}', "null_content"), ('{"choices": [{"message": {}}]}', "null_content"),
        ('{"choices": [{"message": {"content": 7}}]}', "null_content"), ('{"choices": [{"message": {"content": []}}]}', "null_content"),
    ],
)  # fmt: skip
def test_malformed_envelopes_are_worth_another_try(text: str, fault: str) -> None:
    with pytest.raises(TransientFault) as caught:
        parse(200, text)
    assert caught.value.fault == fault
    # A recording of it without a fault (written by hand, or damaged) still has a reply.
    json.dumps(caught.value.response)
    assert read(200, caught.value.response, "").failure == fault


def error(message: str, **more: Any) -> str:
    return json.dumps({"error": {"message": message, **more}})


@pytest.mark.parametrize(
    ("status", "text", "failure"),
    [
        (400, error("too many", code="context_length_exceeded"), "context_length"),
        (400, error("no room", code=400, type="exceed_context_size_error"), "context_length"),
        (400, error("This model's maximum context length is 4096 tokens"), "context_length"),
        (400, error("prompt is too long: 210000 tokens > 200000 maximum"), "context_length"),
        (500, error("the request exceeds the available context size", code=500), "context_length"),
        (500, "the prompt exceeds the context window", "context_length"),
        (400, error("Unsupported value: 'temperature' does not support 0 with this model"), "bad_request"),
        (400, error("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'"), "bad_request"),
        (422, json.dumps({"detail": [{"loc": ["body"], "msg": "field required"}]}), "bad_request"),
        (400, "[]", "bad_request"), (400, '{"error": ["a"]}', "bad_request"), (413, "", "context_length"),
        (422, error("Input validation error: inputs tokens + max_new_tokens must be <= 4096. Given: 5000"), "context_length"),
        (400, '{"error": "bad"}', "bad_request"),
    ],
)  # fmt: skip
def test_final_failures_of_one_call(status: int, text: str, failure: str) -> None:
    assert read(status, parse(status, text), "").failure == failure


def test_an_error_in_a_list_is_read() -> None:
    """Gemini's form."""
    text = json.dumps([json.loads(error("Logprobs is not enabled", code=400))])
    assert read(400, parse(400, text), "").detail == "Logprobs is not enabled"
    with pytest.raises(Refusal, match="HTTP 404: models/x is not found"):
        parse(404, json.dumps([json.loads(error("models/x is not found", code=404))]))


@pytest.mark.parametrize(
    ("status", "text", "fault"),
    [
        (429, error("slow down"), "rate_limited"), (429, "", "rate_limited"), (500, "oops", "http_500"), (503, "null", "http_503"),
        (504, error("the upstream took too long to respond"), "http_504"), (408, "", "http_408"), (409, "", "http_409"),
        (204, "", "http_204"), (529, error("overloaded"), "http_529"),
    ],
)  # fmt: skip
def test_transient_statuses(status: int, text: str, fault: str) -> None:
    with pytest.raises(TransientFault) as caught:
        parse(status, text)
    assert (caught.value.fault, caught.value.status) == (fault, status)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, error("Incorrect API key")), (402, ""), (403, error("This project has no access to the model")), (403, error("No", code="account_deactivated")), (404, "<html>"), (307, ""),
        (400, error("no", code="model_not_found")), (400, error("The model `x` does not exist")), (422, error("Unknown model: x")),
        (429, error("You exceeded your current quota", code="insufficient_quota")),
        (429, error("You exceeded your current quota", type="insufficient_quota", code=None)),
    ],
)  # fmt: skip
def test_refusals_for_good(status: int, text: str) -> None:
    with pytest.raises(Refusal, match=f"HTTP {status}: "):
        parse(status, text)


@pytest.mark.parametrize(("code", "fault"), [(429, "rate_limited"), ("503", "http_503"), (400, "empty_choices"), ("x", "empty_choices"), (True, "empty_choices")])  # fmt: skip
def test_an_error_that_comes_as_an_answer_is_that_error(code: object, fault: str) -> None:
    text = json.dumps({"error": {"message": "slow down", "code": code}})
    with pytest.raises(TransientFault) as caught:
        parse(200, text)
    assert (caught.value.fault, caught.value.limited) == (fault, fault == "rate_limited")
    with pytest.raises(Refusal, match="HTTP 401"):
        parse(200, json.dumps({"error": {"message": "no", "code": 401}}))


def test_a_recorded_fault_is_the_failure() -> None:
    assert read(0, None, "timeout") == Reply(None, failure="timeout")
    assert clean("a\udc80") == "a\ufffd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    "content",
    "refusal",
    "reasoning",
    "reasoning_content",
    "token",
    "logprob",
    "top_logprobs",
    "type",
    "text",
    "thinking",
)
MESSAGE = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5) | JSON
LOGPROBS = st.fixed_dictionaries({"content": st.lists(MESSAGE, max_size=2) | JSON}) | JSON
CHOICE = st.fixed_dictionaries({"message": MESSAGE, "logprobs": LOGPROBS, "finish_reason": JSON}) | JSON
ENVELOPE = st.fixed_dictionaries(
    {
        "choices": st.lists(CHOICE, min_size=1, max_size=1) | JSON,
        "usage": MESSAGE,
        "model": JSON,
        "error": MESSAGE | JSON,
    }
)
STATUS = st.sampled_from([0, 200, 200, 200, 204, 302, 400, 401, 404, 422, 429, 500, 503])  # fmt: skip


@given(STATUS, ENVELOPE | JSON)
def test_reading_is_total(status: int, body: Any) -> None:
    reply = read(status, body, "")
    assert (reply.text is None) == bool(reply.failure)
    for text in (
        reply.text or "",
        reply.reasoning,
        reply.refusal,
        reply.model,
        *(token for token, _ in reply.top_logprobs),
    ):
        text.encode()
    assert reply.prompt_tokens >= 0
    assert reply.completion_tokens >= 0
    assert all(logprob <= 1e-6 for _, logprob in reply.top_logprobs)


@given(STATUS, st.text(max_size=40) | (ENVELOPE | JSON).map(json.dumps))
def test_parsing_ends_in_a_body_or_a_named_failure(status: int, text: str) -> None:
    try:
        body = parse(status, text)
    except (TransientFault, Refusal) as raised:
        failure: TransientFault | Refusal | None = raised
    else:
        failure = None
        # Read from memory and read from the recording are the same.
        assert repr(read(status, json.loads(json.dumps(body)), "")) == repr(read(status, body, ""))
    if isinstance(failure, TransientFault):
        assert json.dumps(failure.response)
        assert failure.fault.replace("_", "").isalnum()
    assert failure is None or str(failure)
