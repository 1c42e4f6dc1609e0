"""Policies: texts are drawn by their weights, arms share their draws, and what is drafted is asked under the right name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from scipy import stats

from judgeloop import seeds
from judgeloop.experiment.schema import Endpoint, ExemplarPolicySpec, PoolPolicySpec
from judgeloop.policies import Drafter, ExemplarPolicy, Pool, PoolPolicy, draft_pool
from judgeloop.records import Call, Candidate, Item, Message, Reply
from judgeloop.text import templates

ENDPOINT = Endpoint(base_url="http://127.0.0.1:1/v1", model="name", max_tokens=77)
ITEMS = [Item(f"i {n}", f"Question {n}?") for n in range(5)]


class Recorder:
    """A client that answers from a function and keeps what it was asked."""

    def __init__(self, answer: Callable[[Call], Reply] | None = None) -> None:
        self.answer = answer or (lambda call: Reply(text=f"text of {call.call_id}"))
        self.calls: dict[str, Mapping[str, Any]] = {}

    async def ask(self, call: Call) -> Reply:
        assert call.endpoint == "m"
        assert call.call_id not in self.calls
        self.calls[call.call_id] = call.body
        return self.answer(call)


def _drafter(client: Recorder, **spec: Any) -> Drafter:
    settings = ExemplarPolicySpec(endpoint="m", temperature=0.7, **spec)
    return Drafter(client, settings, ENDPOINT, templates.load("draft", ".", "draft"), seed=5)


def _pool(size: int = 6, failing: Callable[[str], bool] = lambda call_id: False) -> tuple[Pool, Recorder]:
    client = Recorder(
        lambda call: Reply(None, failure="timeout") if failing(call.call_id) else Reply(text=call.call_id)
    )
    return asyncio.run(draft_pool(_drafter(client), ITEMS, 3, size)), client


def _names(policy: Any, generation: int) -> dict[str, list[str]]:
    drawn = asyncio.run(policy.candidates(ITEMS, generation))
    assert all(c.text == policy.texts(i)[c.candidate_id].text for i, draw in drawn.items() for c in draw.drawn)
    return {item_id: [c.candidate_id for c in draw.drawn] for item_id, draw in drawn.items()}


# -- drafting --------------------------------------------------------------------------------------------------------


def test_a_draft_is_a_named_call_with_a_seed_of_its_own_stream() -> None:
    client = Recorder()
    candidate, why = asyncio.run(_drafter(client).draft(ITEMS[1], "k7", "s0/g2/draft/arm", (0, 2, 7)))
    assert (candidate, why) == (Candidate("i 1", "k7", "text of s0/g2/draft/arm/i%201/k7"), "")
    (body,) = client.calls.values()
    assert body["seed"] == seeds.integer(5, "draft", 0, 2, 7, "i 1")
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("name", 0.7, 77)
    assert "Question 1?" in body["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("reply", "text", "why"),
    [
        (Reply("A text."), "A text.", ""), (Reply("A text that is", finish_reason="length"), "A text that is", ""),
        (Reply("I cannot help with that."), "I cannot help with that.", ""), (Reply(" \n"), None, "empty"),
        (Reply("", finish_reason="length"), None, "truncated"), (Reply("", refusal="I will not."), None, "refusal"),
        (Reply("", finish_reason="content_filter"), None, "filtered"), (Reply("", refusal="content_filter"), None, "filtered"),
        (Reply(None, failure="context_length"), None, "context_length"),
    ],
)  # fmt: skip
def test_why_a_reply_is_no_draft(reply: Reply, text: str | None, why: str) -> None:
    candidate, reason = asyncio.run(_drafter(Recorder(lambda _: reply)).draft(ITEMS[0], "k0", "s0/g0/draft", (0, 0, 0)))
    assert (candidate.text if candidate else None, reason) == (text, why)
    assert (candidate.cut if candidate else None) == ((reply.finish_reason == "length") if text else None)


# -- pool ------------------------------------------------------------------------------------------------------------


def test_the_pool_is_drafted_once_under_names_without_an_arm() -> None:
    pool, client = _pool(11, failing=lambda call_id: call_id.endswith("/i%200/k03"))
    assert sorted(client.calls) == sorted(f"s3/g0/draft/i%20{n}/k{k:02d}" for n in range(5) for k in range(11))
    assert pool.failed["i 0"] == {"k03": "timeout"}
    assert list(pool.texts["i 0"]) == [f"k{k:02d}" for k in range(11) if k != 3]
    assert len({body["seed"] for body in client.calls.values()}) == 55


def test_draws_follow_the_weights() -> None:
    pool, _ = _pool(4)
    weights = {"k0": 0.5, "k1": 0.0, "k2": 0.3, "k3": 0.2}
    policy = PoolPolicy(pool, {}, seed=1, replicate=0, size=4000)
    policy.update({item.item_id: weights for item in ITEMS})
    counts = Counter(name for names in _names(policy, 1).values() for name in names)
    assert counts["k1"] == 0
    drawable = [name for name, weight in weights.items() if weight]
    expected = [weights[name] * 20_000 for name in drawable]
    assert stats.chisquare([counts[name] for name in drawable], expected).pvalue > 0.001
    assert list(policy.current("i 0").items()) == list(weights.items())


def test_generation_zero_is_uniform_over_the_drafts_and_none_of_the_real_data() -> None:
    pool, _ = _pool(4)
    real = {item.item_id: {"real0": Candidate(item.item_id, "real0", "human")} for item in ITEMS}
    policy = PoolPolicy(pool, real, seed=1, replicate=0, size=2000)
    assert policy.current("i 0") == {"k0": 0.25, "k1": 0.25, "k2": 0.25, "k3": 0.25, "real0": 0.0}
    counts = Counter(name for names in _names(policy, 0).values() for name in names)
    assert "real0" not in counts
    assert stats.chisquare([counts[f"k{k}"] for k in range(4)]).pvalue > 0.001
    policy.update({"i 0": {"real0": 1.0}})
    assert _names(policy, 1)["i 0"] == ["real0"] * 2000
    assert policy.current("i 1") == policy.base["i 1"], "an item that the training set lost keeps its weights"


def test_arms_with_equal_weights_draw_equal_texts_and_generations_differ() -> None:
    pool, _ = _pool(6)
    real = {item.item_id: {"real0": Candidate(item.item_id, "real0", "human")} for item in ITEMS}
    plain, with_real = (PoolPolicy(pool, texts, seed=1, replicate=0, size=20) for texts in ({}, real))
    assert _names(plain, 0) == _names(with_real, 0)
    plain.update({item.item_id: {"k1": 0.5, "k4": 0.5} for item in ITEMS})
    with_real.update({item.item_id: {"k4": 0.5, "k1": 0.5, "real0": 0.0} for item in ITEMS})
    assert _names(plain, 1) == _names(with_real, 1) != _names(plain, 2)
    assert _names(plain, 1) == _names(plain, 1), "drawing changes no state"
    assert _names(PoolPolicy(pool, {}, seed=1, replicate=1, size=20), 0) != _names(
        PoolPolicy(pool, {}, seed=1, replicate=0, size=20), 0
    )


def test_close_weights_draw_mostly_equal_texts() -> None:
    """Common random numbers: a share of draws as small as the change of weights differs."""
    pool, _ = _pool(4)
    left, right = (PoolPolicy(pool, {}, seed=1, replicate=0, size=2000) for _ in range(2))
    right.update({item.item_id: {"k0": 0.26, "k1": 0.24, "k2": 0.25, "k3": 0.25} for item in ITEMS})
    first, second = _names(left, 1), _names(right, 1)
    differ = sum(a != b for i in first for a, b in zip(first[i], second[i], strict=True))
    assert 0 < differ < 0.02 * 10_000


def test_an_item_without_a_single_draft_has_no_candidates_and_its_failures_stand_once() -> None:
    pool, _ = _pool(3, failing=lambda call_id: "/i%202/" in call_id)
    policy = PoolPolicy(pool, {}, seed=1, replicate=0, size=4)
    assert policy.current("i 2") == {}
    for generation, failed in ((0, {"k0": "timeout", "k1": "timeout", "k2": "timeout"}), (1, {})):
        drawn = asyncio.run(policy.candidates(ITEMS, generation))
        assert (drawn["i 2"].drawn, drawn["i 2"].failed) == ((), failed)
        assert len(drawn["i 1"].drawn) == 4
        assert drawn["i 1"].failed == {}


# -- exemplar --------------------------------------------------------------------------------------------------------


def _exemplar(
    client: Recorder, arm: str = "judge", *, exemplars: int = 2, size: int = 3, real: Any = None
) -> ExemplarPolicy:
    return ExemplarPolicy(_drafter(client), arm, ITEMS, real or {}, 9, 3, size, exemplars)


def _turns(body: Mapping[str, Any]) -> list[str]:
    """The texts that a prompt shows as earlier answers."""
    return [message["content"] for message in body["messages"] if message["role"] == "assistant"]


def _training(policy: ExemplarPolicy, generation: int = 0) -> dict[str, dict[str, float]]:
    return {
        item.item_id: {f"g{generation}k0": 0.75, f"g{generation}k1": 0.25, f"g{generation}k2": 0.0} for item in ITEMS
    }


def test_generation_zero_shows_no_examples_and_names_no_arm() -> None:
    client = Recorder()
    policy = _exemplar(client)
    assert _names(policy, 0) == {item.item_id: ["g0k0", "g0k1", "g0k2"] for item in ITEMS}
    assert sorted(client.calls) == sorted(f"s3/g0/draft/i%20{n}/g0k{k}" for n in range(5) for k in range(3))
    assert all(_turns(body) == [] for body in client.calls.values())
    assert policy.current("i 0") == {"g0k0": 1 / 3, "g0k1": 1 / 3, "g0k2": 1 / 3}


def test_later_prompts_show_the_training_texts_of_other_items_with_their_prompts() -> None:
    client = Recorder()
    policy = _exemplar(client)
    _names(policy, 0)
    policy.update(_training(policy))
    client.calls.clear()
    _names(policy, 1)
    assert sorted(client.calls) == sorted(f"s3/g1/draft/judge/i%20{n}/g1k{k}" for n in range(5) for k in range(3))
    allowed = {f"text of s3/g0/draft/i%20{n}/g0k{k}": n for n in range(5) for k in (0, 1)}
    for call_id, body in client.calls.items():
        own = int(call_id.split("/")[4].removeprefix("i%20"))
        examples = [allowed[text] for text in _turns(body)]
        assert len(examples) == len(set(examples)) == 2
        assert own not in examples
        roles = [message["role"] for message in body["messages"] if message["role"] != "system"]
        assert roles == ["user", "assistant"] * 2 + ["user"]
        questions = [message["content"] for message in body["messages"] if message["role"] == "user"]
        assert all(f"Question {n}?" in text for n, text in zip([*examples, own], questions, strict=True))
    assert set(policy.current("i 0")) == {"g1k0", "g1k1", "g1k2"}
    assert set(policy.texts("i 0")) == {f"g{t}k{k}" for t in range(2) for k in range(3)}


def test_examples_follow_the_training_weights_and_every_other_item_alike() -> None:
    client = Recorder()
    policy = _exemplar(client, size=3)
    _names(policy, 0)
    policy.update(_training(policy))
    texts, items = Counter[str](), Counter[str]()
    for generation in range(1, 1001):
        for _, text in policy._examples(ITEMS[0], generation, 0):
            texts[text.rsplit("/", 1)[1]] += 1
            items[text.split("/")[3]] += 1
    assert set(texts) == {"g0k0", "g0k1"}
    assert stats.chisquare([texts["g0k0"], texts["g0k1"]], [1500, 500]).pvalue > 0.001
    assert sorted(items) == [f"i%20{n}" for n in range(1, 5)]
    assert stats.chisquare(list(items.values())).pvalue > 0.001


def test_arms_with_equal_training_sets_ask_the_same_under_their_own_names() -> None:
    bodies = {}
    for arm in ("judge", "random"):
        client = Recorder(lambda call: Reply(text="text " + call.call_id.replace("/random", "/judge")))
        policy = _exemplar(client, arm)
        _names(policy, 0)
        policy.update(_training(policy))
        _names(policy, 1)
        bodies[arm] = {call_id.replace(f"/{arm}", ""): body for call_id, body in client.calls.items()}
    assert bodies["judge"] == bodies["random"]
    assert len({body["seed"] for body in bodies["judge"].values()}) == 30


def test_an_arm_that_shows_fewer_examples_shows_the_first_of_the_same() -> None:
    examples = {}
    for exemplars in (1, 3, 9):
        client = Recorder()
        policy = _exemplar(client, exemplars=exemplars)
        _names(policy, 0)
        policy.update(_training(policy))
        examples[exemplars] = [policy._examples(item, 1, k) for item in ITEMS for k in range(3)]
    assert [shown[:1] for shown in examples[3]] == examples[1]
    assert {len(shown) for shown in examples[9]} == {4}, "no more than there are other items"


def test_real_texts_and_earlier_generations_can_be_shown_and_items_without_training_cannot() -> None:
    client = Recorder()
    real = {item.item_id: {"real0": Candidate(item.item_id, "real0", f"human {item.item_id}")} for item in ITEMS}
    policy = _exemplar(client, real=real, exemplars=4)
    for generation in (0, 1):
        _names(policy, generation)
        policy.update({"i 0": {"real0": 1.0}, "i 1": {"g0k2": 1.0}, "i 2": {"g0k0": 0.0}})
    examples = policy._examples(ITEMS[4], 2, 0)
    assert sorted(text for _, text in examples) == ["human i 0", "text of s3/g0/draft/i%201/g0k2"]
    assert policy._examples(ITEMS[0], 2, 0) == [("Question 1?", "text of s3/g0/draft/i%201/g0k2")]


def test_a_draft_that_failed_is_a_reason_and_no_candidate() -> None:
    client = Recorder(
        lambda call: Reply(None, failure="timeout") if call.call_id.endswith("i%201/g0k1") else Reply("x")
    )
    policy = _exemplar(client)
    drawn = asyncio.run(policy.candidates(ITEMS, 0))
    assert [c.candidate_id for c in drawn["i 1"].drawn] == ["g0k0", "g0k2"]
    assert drawn["i 1"].failed == {"g0k1": "timeout"}
    assert policy.current("i 1") == {"g0k0": 0.5, "g0k2": 0.5}
    assert drawn["i 0"].failed == {}


def test_a_chat_history_is_shown_as_turns() -> None:
    client = Recorder()
    history = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Yes?"),
        Message("user", "Go."),
    )
    asyncio.run(
        _drafter(client).draft(Item("h", history), "k0", "s0/g1/draft/a", (0, 1, 0), [("Other?", "An answer.")])
    )
    (body,) = client.calls.values()
    assert [m["role"] for m in body["messages"]][-5:] == ["user", "assistant", "user", "assistant", "user"]
    assert _turns(body) == ["An answer.", "Yes?"]
    assert [m["role"] for m in body["messages"]].count("system") == 1


def test_the_pool_s_block_of_settings_drafts_too() -> None:
    client = Recorder()
    spec = PoolPolicySpec(endpoint="m", temperature=0.0, max_tokens=9)
    drafter = Drafter(client, spec, ENDPOINT, templates.load("draft", ".", "draft"), seed=5)
    asyncio.run(drafter.draft(ITEMS[0], "k0", "s0/g0/draft", (0, 0, 0)))
    (body,) = client.calls.values()
    assert (body["temperature"], body["max_tokens"]) == (0.0, 9)
