"""Judges: what they ask, under which names and seeds, and what they make of the answers."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest

from judgeloop import seeds
from judgeloop.errors import EndpointFailed, ExperimentError
from judgeloop.experiment import schema
from judgeloop.judging.answers import unscored
from judgeloop.judging.judges import (
    ChoiceTrial,
    PairTrial,
    ScoreTrial,
    Trial,
    judge_name,
    majority,
    make_judge,
    resolve_mode,
    settle_mode,
)
from judgeloop.judging.pairing import matchups, presentations
from judgeloop.records import Call, Candidate, Item, Judgment, Reply, Verdict
from judgeloop.text import templates
from judgeloop.text.templates import Mode, Scale

ENDPOINTS = {
    "m": schema.Endpoint(base_url="http://127.0.0.1:1/v1", model="model-m"),
    "n": schema.Endpoint(base_url="http://127.0.0.1:1/v1", model="model-n"),
}
ITEM = Item("i 1", "Which?", reference="right")
STREAM = (0, 2)


class Recorder:
    """A client that answers from a function and keeps what it was asked."""

    def __init__(self, answer: Callable[[Call], Reply]) -> None:
        self.answer, self.calls, self.in_flight, self.most = answer, list[Call](), 0, 0

    async def ask(self, call: Call) -> Reply:
        self.calls.append(call)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        return self.answer(call)


def _shown(*texts: str, repeats: int = 1) -> list[Any]:
    return presentations(
        matchups(ITEM.item_id, [Candidate(ITEM.item_id, f"c{n}", text) for n, text in enumerate(texts)]), repeats
    )


def _judge(spec: schema.JudgeSpec, client: Recorder | None = None, **settings: Any) -> Any:
    client = client or Recorder(lambda call: pytest.fail(f"asked {call.call_id}"))
    return make_judge(spec, endpoints=ENDPOINTS, folder=".", client=client, **{"seed": 5, **settings})


def _run(judge: Any, shown: list[Any], item: Item = ITEM, prefix: str = "s0/g2/judge") -> list[Judgment]:
    found: list[Judgment] = asyncio.run(judge.judge(item, shown, prefix, STREAM))
    assert [judgment.presentation for judgment in found] == shown
    assert {judgment.judge for judgment in found} == {judge.name}
    return found


def _longer(call: Call) -> Reply:
    """Prefers the longer text, as text."""
    shown = call.body["messages"][-1]["content"]
    a, b = (len(shown.split(f"<answer_{x}>\n")[1].split(f"\n</answer_{x}>")[0]) for x in "ab")
    return Reply("[[A]]" if a > b else "[[B]]" if b > a else "neither")


def test_model_judge_asks_every_presentation_at_once_by_name() -> None:
    client = Recorder(_longer)
    judge = _judge(schema.ModelJudgeSpec(endpoint="m", verdict="text"), client)
    found = _run(judge, _shown("long text", "short", repeats=2))
    assert judge.name == "model-m"
    assert [call.call_id for call in client.calls] == [judgment.call for judgment in found]
    assert [call.call_id for call in client.calls] == [
        f"s0/g2/judge/i%201/m00/{order}/r{repeat}" for order in ("ab", "ba") for repeat in (0, 1)
    ]
    assert client.most == 4
    assert {call.endpoint for call in client.calls} == {"m"}
    assert [judgment.verdict.slot for judgment in found] == ["first", "first", "second", "second"]
    assert all("seed" not in call.body and call.body["temperature"] == 0 for call in client.calls)
    assert len({call.key for call in client.calls}) == 2  # repeats differ by id alone
    assert _run(judge, _shown("same", "same"))[0].verdict == unscored("no_verdict")


def test_model_judge_at_a_temperature_has_a_seed_a_presentation() -> None:
    client = Recorder(_longer)
    judge = _judge(schema.ModelJudgeSpec(endpoint="m", temperature=1.0), client, mode="text")
    _run(judge, _shown("long text", "short", repeats=2))
    expected = [seeds.integer(5, "judge", 0, 2, "i 1", "m00", order, r) for order in ("ab", "ba") for r in (0, 1)]
    assert [call.body["seed"] for call in client.calls] == expected
    assert len(set(expected)) == 4


def test_model_judge_reads_soft_verdicts() -> None:
    client = Recorder(lambda call: Reply("A", top_logprobs=(("A", math.log(0.6)), ("B", math.log(0.2)))))
    for judgment in _run(_judge(schema.ModelJudgeSpec(endpoint="m", verdict="logprob"), client), _shown("x", "y")):
        assert judgment.verdict.slot == "first"
        assert judgment.verdict.p_first == pytest.approx(0.75)
    failing = Recorder(lambda call: Reply(None, failure="context_length"))
    found = _run(_judge(schema.ModelJudgeSpec(endpoint="m", verdict="json"), failing), _shown("x", "y"))
    assert [judgment.verdict for judgment in found] == [unscored("context_length")] * 2


def test_random_judge_tosses_a_fair_coin_for_each_pair() -> None:
    judge = _judge(schema.RandomJudgeSpec())

    def decided(generation: int) -> list[Judgment]:
        return asyncio.run(judge.judge(ITEM, _shown(*"abcdefghijklmnopqrst", repeats=2), "p", (0, generation)))

    found = decided(1)
    assert [j.verdict for j in found] == [j.verdict for j in decided(1)]
    assert [j.verdict for j in found] != [j.verdict for j in decided(2)]
    assert (judge.name, found[0].call) == ("random", "")
    # Both orders and both repeats of a pair name one text.
    preferred: dict[str, set[bool]] = {}
    for generation in range(4):
        for one in decided(generation):
            prefers_a = (one.verdict.slot == "first") == (one.presentation.order == "ab")
            preferred.setdefault(f"{generation} {one.presentation.matchup.pair_id}", set()).add(prefers_a)
    assert {len(texts) for texts in preferred.values()} == {1}
    # 760 pairs: 380 ± four standard deviations of 13.8.
    assert len(preferred) == 760
    assert abs(sum(texts == {True} for texts in preferred.values()) - 380) < 55


@pytest.mark.parametrize(
    ("first", "second", "slot"),
    [("right", "wrong", "first"), ("wrong", "Right.", "second"), ("right", "right", "tie"), ("wrong", "bad", "tie")],
)
def test_gold_judge_prefers_the_match(first: str, second: str, slot: str) -> None:
    found = _run(_judge(schema.GoldJudgeSpec()), _shown(first, second))
    mirror = {"first": "second", "second": "first", "tie": "tie"}
    assert [judgment.verdict.slot for judgment in found] == [slot, mirror[slot]]


def test_gold_judge_asks_a_model_once_a_distinct_text() -> None:
    def agree(call: Call) -> Reply:
        text = call.body["messages"][-1]["content"].split("<answer>\n")[1].split("\n</answer>")[0]
        return Reply({"good": "[[yes]]", "bad": "[[no]]"}.get(text, "hard to say"))

    client = Recorder(agree)
    item = Item("i 1", "Which?", reference="right", match="judge")
    judge = _judge(schema.GoldJudgeSpec(endpoint="n"), client)
    found = _run(judge, _shown("good", "bad", "good", "vague"), item, prefix="s0/g2/judge")
    digests = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in ("good", "bad", "vague")]
    assert {call.call_id for call in client.calls} == {f"s0/g2/judge/gold/i%201/{digest}" for digest in digests}
    assert next(judgment.call for judgment in found if judgment.presentation.first.text == "good").endswith(digests[0])
    assert len(client.calls) == 3
    verdicts = {(j.presentation.first.text, j.presentation.second.text): j.verdict for j in found}
    assert verdicts["good", "bad"] == Verdict("first")
    assert verdicts["bad", "good"] == Verdict("second")
    assert verdicts["good", "good"] == Verdict("tie")
    assert verdicts["vague", "good"] == verdicts["good", "vague"] == unscored("no_verdict")
    with pytest.raises(ExperimentError, match=r"i 1: match: judge needs a model"):
        _run(_judge(schema.GoldJudgeSpec()), _shown("good", "bad"), item)


@pytest.mark.parametrize(
    ("feature", "prefer", "texts", "slot"),
    [
        ("length", "more", ("one two three", "one"), "first"),
        ("length", "less", ("one two three", "one"), "second"),
        ("length", "more", ("one two", "two one"), "tie"),
        ("bold", "more", ("**one** two", "one two"), "first"),
        ("hedges", "less", ("perhaps two", "one two"), "second"),
    ],
)
def test_a_rule_takes_the_text_with_more_of_a_feature_or_with_less_and_asks_nobody(
    feature: Any, prefer: Any, texts: tuple[str, str], slot: str
) -> None:
    judge = _judge(schema.RuleJudgeSpec(feature=feature, prefer=prefer))
    ab, ba = _run(judge, _shown(*texts))
    mirror = {"first": "second", "second": "first", "tie": "tie"}
    assert (ab.verdict, ba.verdict) == (Verdict(slot), Verdict(mirror[slot]))  # type: ignore[arg-type]
    assert (judge.name, ab.call) == (f"rule:{prefer}_{feature}", "")


def test_a_rule_counts_features_in_the_item_s_language() -> None:
    judge = _judge(schema.RuleJudgeSpec(feature="hedges"))
    german = Item("i", "Was?", language="de")
    ab, _ = _run(judge, _shown("vielleicht ja", "sicher ja"), german)
    assert ab.verdict.slot == "first"
    assert _run(judge, _shown("vielleicht ja", "sicher ja"))[0].verdict.slot == "tie"


def _measure(text: str) -> Mapping[str, float]:
    return {"length": math.log2(max(len(text.split()), 1)), "bold": float(text.count("**"))}


def test_planted_judge_follows_its_law() -> None:
    spec = schema.PlantedJudgeSpec(position=0.3, length=0.5, features={"bold": -0.2}, quality=2.0)
    ab, ba = _run(_judge(spec, measure=_measure), _shown("right", "a b **c** d"))
    # Δlength = 0 − 2, Δbold = 0 − 2, Δquality = 1: ab 0.3 − 1 + 0.4 + 2, and only position keeps its sign in ba.
    assert ab.verdict.p_first == pytest.approx(1 / (1 + math.exp(-1.7)))
    assert ba.verdict.p_first == pytest.approx(1 / (1 + math.exp(1.1)))
    assert (ab.verdict.slot, ba.verdict.slot) == ("first", "second")
    greedy = schema.PlantedJudgeSpec(position=0.3, temperature0=True)
    assert [j.verdict for j in _run(_judge(greedy, measure=_measure), _shown("x", "y"))] == [Verdict("first")] * 2


@pytest.mark.parametrize(("noise", "hard", "share"), [(0.0, True, 0.7311), (0.0, False, 1.0), (2.0, False, 0.6915)])
def test_planted_judge_draws_and_noise(noise: float, hard: bool, share: float) -> None:
    spec = schema.PlantedJudgeSpec(position=1.0, noise=noise, hard=hard, unscored=0.2)
    judge = _judge(spec, measure=_measure)
    found = [judgment.verdict for judgment in _run(judge, _shown("x", "y", repeats=1000))]
    scored = [verdict for verdict in found if verdict.slot != "unscored"]
    # Four standard deviations of 2,000 and about 1,600 draws; s(1) = .7311 and P(N(1, 2) > 0) = .6915.
    assert abs(len(scored) / 2000 - 0.8) < 0.036
    assert abs(sum(verdict.slot == "first" for verdict in scored) / len(scored) - share) < 0.047
    assert all((verdict.p_first is None) == hard for verdict in scored)
    assert found == [judgment.verdict for judgment in _run(judge, _shown("x", "y", repeats=1000))]


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        (["first", "first", "second"], "first"),
        (["first", "second"], "tie"),
        (["first", "tie"], "tie"),
        (["second", "unscored", "unscored"], "second"),
        (["first", "second", "tie"], "tie"),
        (["first", "first", "second", "tie"], "first"),
        (["unscored", "unscored"], "unscored"),
    ],
)
def test_majority(slots: list[Literal["first", "second", "tie", "unscored"]], expected: str) -> None:
    verdict = majority([unscored("x") if slot == "unscored" else Verdict(slot) for slot in slots])
    assert (verdict.slot, verdict.reason) == (expected, "no_majority_scored" if expected == "unscored" else "")


def test_panel_judge_asks_each_member_under_its_own_name_and_seed() -> None:
    member = schema.ModelJudgeSpec(endpoint="m", verdict="text", temperature=1.0)
    spec = schema.PanelJudgeSpec(judges=(member, member, schema.ModelJudgeSpec(endpoint="n")))
    client = Recorder(lambda call: Reply('{"verdict": "B"}') if call.endpoint == "n" else _longer(call))
    judge = _judge(spec, client, mode=("text", "text", "json"))
    ab, ba = _run(judge, _shown("long text", "short"))
    assert judge.name == "panel(model-m,model-m,model-n)"
    assert (ab.verdict, ba.verdict) == (Verdict("first"), Verdict("second"))
    assert ab.call == "s0/g2/judge/i%201/m00/ab/r0"
    assert sorted(call.call_id for call in client.calls) == [
        f"s0/g2/judge/i%201/m00/{order}/r0/j{n}" for order in ("ab", "ba") for n in range(3)
    ]
    assert len({call.body["seed"] for call in client.calls if call.endpoint == "m"}) == 4


def _resolve(client: Recorder, **settings: Any) -> Mode:
    spec = schema.ModelJudgeSpec(endpoint="m", **settings)
    return asyncio.run(resolve_mode(spec, endpoints=ENDPOINTS, folder=".", client=client))


@pytest.mark.parametrize(
    ("offers", "prompt", "expected", "asked"),
    [
        ({"logprobs"}, "pairwise", "logprob", ["logprob"]),
        ({"response_format"}, "pairwise", "json", ["logprob", "json"]),
        (set(), "pairwise", "text", ["logprob", "json", "text"]),
        ({"logprobs", "response_format"}, "chain_of_thought", "json", ["json"]),
    ],
)
def test_auto_takes_the_first_mode_that_gives_a_verdict(
    offers: set[str], prompt: str, expected: str, asked: list[str]
) -> None:
    def answer(call: Call) -> Reply:
        if "logprobs" in call.body:
            return Reply("A", top_logprobs=(("A", -0.2),) if "logprobs" in offers else ())
        if "response_format" in call.body:
            return Reply('{"verdict": "A"}') if "response_format" in offers else Reply(None, failure="bad_request")
        return Reply("[[A]]")

    client = Recorder(answer)
    assert _resolve(client, prompt=prompt) == expected
    assert [call.call_id for call in client.calls] == [f"panels/g0/judge/trial/m.{prompt}/{mode}" for mode in asked]


def test_auto_gives_logprob_up_where_the_letters_hold_little() -> None:
    def answer(call: Call) -> Reply:
        if "logprobs" in call.body:
            return Reply("", top_logprobs=(("<think>", -0.3), ("A", math.log(0.2))))
        return Reply("[[A]]") if "response_format" not in call.body else Reply('{"verdict": "A"}')

    assert _resolve(Recorder(answer)) == "json"
    # At the calls themselves less is asked for: one odd reply is not the model's way.
    lenient = {"m": ENDPOINTS["m"].model_copy(update={"min_trial_mass": 0.1})}
    spec = schema.ModelJudgeSpec(endpoint="m")
    assert asyncio.run(resolve_mode(spec, endpoints=lenient, folder=".", client=Recorder(answer))) == "logprob"


def test_a_stated_mode_is_not_tried_and_no_mode_ends_the_run() -> None:
    silent = Recorder(lambda call: Reply("I like both."))
    assert _resolve(silent, verdict="json") == "json"
    assert silent.calls == []
    with pytest.raises(ExperimentError, match="cannot be asked in mode logprob; it has json, text"):
        _resolve(silent, verdict="logprob", prompt="chain_of_thought")
    with pytest.raises(
        EndpointFailed, match=r"model-m gave no verdict .*logprob: no_logprobs, json: not_json, text: no_"
    ):
        _resolve(silent)
    with pytest.raises(ValueError, match="resolve_mode"):
        _judge(schema.ModelJudgeSpec(endpoint="m"), silent)


@pytest.mark.parametrize(
    ("trial", "text", "modes"),
    [
        (ChoiceTrial(templates.load("listwise", kind="choice")), "[[C]]", ["logprob", "json", "text"]),
        (ScoreTrial(templates.load("pointwise", kind="score"), Scale(1, 10)), "[[9]]", ["logprob", "json", "text"]),
        (ScoreTrial(templates.load("pointwise", kind="score"), Scale(0, 100)), "[[97]]", ["json", "text"]),
        (PairTrial(templates.load("pairwise")).turned(), "[[B]]", ["logprob", "json", "text"]),
    ],
)
def test_every_form_of_answer_is_tried_in_the_same_way(trial: Trial, text: str, modes: list[str]) -> None:
    spec = schema.ModelJudgeSpec(endpoint="m")
    for said, settled in ((text, "text"), ("none", "")):
        client = Recorder(lambda _, said=said: Reply(said))
        asked = settle_mode(spec, trial, endpoint=ENDPOINTS["m"], client=client, stem="audit/x")
        if settled:
            assert asyncio.run(asked) == settled
        else:
            with pytest.raises(EndpointFailed, match=rf"no {trial.what} to a trial question .*or state --verdict"):
                asyncio.run(asked)
        assert [call.call_id for call in client.calls] == [f"audit/x/{mode}" for mode in modes]


def test_names() -> None:
    spec = schema.ModelJudgeSpec(endpoint="m", prompt="rubric")
    assert judge_name(spec, ENDPOINTS) == "model-m"
    assert judge_name(spec, ENDPOINTS, "json", ambiguous=True) == "model-m#rubric/json"
    assert judge_name(schema.PlantedJudgeSpec(), ENDPOINTS, ambiguous=True) == "planted"
    assert _judge(schema.RandomJudgeSpec(), name="coin").name == "coin"
