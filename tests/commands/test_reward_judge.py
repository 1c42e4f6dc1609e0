"""Reward models as judges: the planted law over real HTTP by every route, and what a score may not be made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import judgeloop
from conftest import Served, small_experiment, tables, write_experiment
from judgeloop.bodies import reward_body
from judgeloop.errors import BudgetReached, EndpointFailed, ExperimentError
from judgeloop.experiment.resolve import Material, load, resolve
from judgeloop.experiment.schema import Endpoint, PointwiseJudgeSpec
from judgeloop.experiment.schema import RewardJudgeSpec as Spec
from judgeloop.judging import reward_models
from judgeloop.judging.controls import logistic
from judgeloop.judging.judges import PointwiseJudge, judge_name, make_judge, model_name
from judgeloop.judging.pairing import judgments_frame, matchups, presentations
from judgeloop.judging.reward_models import Reward, RewardJudge, check_reward, read_reward, verdict_of
from judgeloop.limits import Limit, check
from judgeloop.records import Candidate, Client, Item, Judgment, Message, Reply, RewardRoute
from judgeloop.results import Run
from judgeloop.serving.faults import Faults, Rule
from judgeloop.serving.planted import text_worth
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.protocol import ServerAnswer
from judgeloop.stats.estimate import BY_CONSTRUCTION, CONSTRUCTED_VALUES, order_free
from judgeloop.stats.judge.estimates import judge_estimates
from judgeloop.text import templates
from judgeloop.text.features import features_frame
from wire_case import Speaker, serving, use

Serve = Callable[..., Served]
LENGTH, BOLD = 0.7, 0.3
PLANTED: dict[str, Any] = {"position": 1.5, "length": LENGTH, "bold": BOLD, "quality": 2.0, "quality_marker": "[q=", "draft": {"length_mean": 16}}  # fmt: skip
ENDPOINT = Endpoint(base_url="http://127.0.0.1:1/v1", model="planted")
FINITE = st.floats(-1e6, 1e6)
WORDS = ["the", "quiet", "river", "keeps", "a", "small", "garden", "near", "every", "old", "bridge", "and"]


def text(length: int, mark: str = "") -> str:
    return " ".join(WORDS[n % len(WORDS)] for n in range(length)) + mark


def asked(folder: Path, base_url: str, spec: Spec, items: Mapping[str, list[str]]) -> list[Judgment]:
    """Every pair of every item's texts, in both orders, judged by a reward model at ``base_url``."""
    endpoint = Endpoint(base_url=base_url, model="planted", attempts=2)

    async def steps(client: Client) -> list[Judgment]:
        judge = make_judge(spec, endpoints={"m": endpoint}, folder=".", client=client, seed=0)
        found = []
        for name, texts in items.items():
            candidates = [Candidate(name, f"k{n}", one) for n, one in enumerate(texts)]
            shown = presentations(matchups(name, candidates))
            found += await judge.judge(Item(name, f"Why {name}?"), shown, "s0/g0/judge", (0, 0))
        return found

    return use(folder, endpoint, steps)


# -- the law over HTTP ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["/v1", ""])
@pytest.mark.parametrize(
    ("route", "prompt"),
    [("classify", None), ("classify", "reward"), ("pooling", None), ("pooling", "reward"), ("score", None), ("rerank", None)],
)  # fmt: skip
def test_every_route_gives_the_planted_law_without_its_position(
    tmp_path: Path, serve: Serve, route: RewardRoute, prompt: str | None, version: str
) -> None:
    served = serve(**PLANTED)
    spec = Spec(endpoint="m", route=route, prompt=prompt, temperature=2.0)
    texts = [text(8), text(32), text(16, " [q=0.75]"), text(9, " **it** is")]
    found = asked(tmp_path, served.base_url.removesuffix("/v1") + version, spec, {"i": texts})
    planted = PlantedSpec.model_validate(PLANTED)
    for judgment in found:
        shown = judgment.presentation
        worth = [text_worth(planted, one.text, 0.75 * ("[q=" in one.text)) for one in (shown.first, shown.second)]
        assert judgment.verdict.p_first == pytest.approx(logistic((worth[0] - worth[1]) / 2.0), abs=1e-12)
        assert judgment.verdict.slot == ("first" if worth[0] > worth[1] else "second")
        assert judgment.call == f"s0/g0/judge/i/score/{shown.first.candidate_id}"
    # Four texts, six pairs, both orders: four calls.
    assert served.asked == {f"s0/g0/judge/i/score/k{n}": 1 for n in range(4)}


def test_a_served_probability_is_turned_back_into_its_log_odds(tmp_path: Path, serve: Serve) -> None:
    served, texts = serve(**PLANTED), {"i": [text(8), text(32)]}
    raw, served_as = (Spec(endpoint="m", score=one) for one in ("raw", "probability"))
    by_raw = asked(tmp_path / "raw", served.base_url, raw, texts)
    by_share = asked(tmp_path / "share", served.base_url, served_as, texts)
    assert [one.verdict.p_first for one in by_share] == pytest.approx([one.verdict.p_first for one in by_raw])
    squeezed = asked(tmp_path / "served", served.base_url, Spec(endpoint="m", score="served"), texts)
    assert 0.4 < squeezed[0].verdict.p_first < 0.5  # type: ignore[operator]  # a difference of shares, not of log-odds


@pytest.mark.at_hand
def test_the_length_slope_lies_in_its_interval_and_no_position_is_claimed(tmp_path: Path, serve: Serve) -> None:
    stream = np.random.default_rng(5)
    items = {f"i{n}": [text(int(k)) for k in stream.integers(6, 80, size=3)] for n in range(40)}
    served = serve(**PLANTED, noise=0.6)
    found = asked(tmp_path, served.base_url, Spec(endpoint="m"), items)
    frame = judgments_frame(found, {name: Item(name, "") for name in items}, lambda *_: None, panel="anchor", generation=0)  # fmt: skip
    rows = [(name, f"k{n}", one) for name, texts in items.items() for n, one in enumerate(texts)]
    texts = pd.DataFrame(rows, columns=["item_id", "candidate_id", "text"])
    texts = pd.concat([texts, features_frame(texts["text"])], axis=1)
    estimates = judge_estimates(frame, texts, scored_alone={"planted"})
    slope = estimates[(estimates["term"] == "length_log_odds") & (estimates["variant"] == "no_gold")].iloc[0]
    assert slope["conf_low"] < LENGTH < slope["conf_high"]
    assert 0 < slope["std_error"] < 0.15
    position = estimates[estimates["term"].isin(CONSTRUCTED_VALUES)]
    assert set(position["status"]) == {"undefined"}
    assert set(position["method"]) == {BY_CONSTRUCTION}
    assert position["note"].str.contains("by construction, not measured").all()
    assert position[["estimate", "conf_low", "conf_high", "p_value", "p_adjusted"]].isna().all(axis=None)
    assert "confirmatory" not in set(position["family"])
    # What holds by construction does hold.
    plain = judge_estimates(frame, texts)
    measured = (
        plain[(plain["term"].isin(CONSTRUCTED_VALUES)) & (plain["variant"] == "")]
        .set_index("term")["estimate"]
        .dropna()
    )
    assert set(measured.index) >= {"first_slot_excess", "position_log_odds", "conflict_rate", "order_agreement"}
    assert measured.to_dict() == pytest.approx({term: CONSTRUCTED_VALUES[term] for term in measured.index}, abs=1e-12)
    assert order_free(plain, ["another"]).equals(plain)


# -- verdicts ------------------------------------------------------------------------------------------------------------


@given(FINITE, FINITE, st.floats(1e-3, 1e3))
def test_the_orders_mirror_each_other_exactly(one: float, other: float, temperature: float) -> None:
    ab, ba = (verdict_of(Reward(a), Reward(b), temperature) for a, b in ((one, other), (other, one)))
    assert (ab.slot, ba.slot) in {("first", "second"), ("second", "first"), ("tie", "tie")}
    assert (ab.slot == "tie") == (one == other)
    assert ab.p_first is not None
    assert ba.p_first is not None
    assert ab.p_first + ba.p_first == pytest.approx(1.0, abs=1e-15)
    assert (ab.p_first >= 0.5) == (one >= other) or ab.p_first == 0.5


def test_endless_differences_do_not_overflow_and_a_missing_score_is_no_loss() -> None:
    assert verdict_of(Reward(1e308), Reward(-1e308), 1e-3).p_first == 1.0
    assert verdict_of(Reward(-1e308), Reward(1e308), 1e-3).p_first == 0.0
    for pair in ((Reward(None, "not_finite"), Reward(1.0)), (Reward(1.0), Reward(None, "not_finite"))):
        verdict = verdict_of(*pair, 1.0)
        assert (verdict.slot, verdict.p_first, verdict.reason) == ("unscored", None, "not_finite")


@pytest.mark.parametrize(
    ("numbers", "settings", "reason"),
    [
        ((), {}, "no_score"), ((None,), {}, "not_finite"), ((0.1, 0.9), {}, "several_scores"), ((0.1, 0.9), {"label": 2}, "no_label"),
        ((None, 0.9), {"label": 0}, "not_finite"), ((1.0,), {"score": "probability"}, "not_a_share"),
        ((0.0,), {"score": "probability"}, "not_a_share"), ((-3.0,), {"score": "probability"}, "not_a_share"),
    ],
)  # fmt: skip
def test_what_is_no_score_has_its_reason(numbers: tuple[float | None, ...], settings: dict[str, Any], reason: str) -> None:  # fmt: skip
    reward = read_reward(Reply("", numbers=numbers), Spec(endpoint="m", **settings))
    assert (reward.value, reward.reason) == (None, reason)
    assert f"\n{reason}  " in (reward_models.__doc__ or "")


def test_what_is_a_score() -> None:
    assert read_reward(Reply("", numbers=(-2.5,)), Spec(endpoint="m")) == Reward(-2.5)
    assert read_reward(Reply("", numbers=(0.2, 0.8)), Spec(endpoint="m", label=1)) == Reward(0.8)
    share = read_reward(Reply("", numbers=(0.8,)), Spec(endpoint="m", score="probability")).value
    assert share == pytest.approx(math.log(4))
    assert read_reward(Reply(None, failure="timeout"), Spec(endpoint="m")).reason == "timeout"


# -- what is sent --------------------------------------------------------------------------------------------------------


def test_the_conversation_or_one_text_is_sent_without_what_could_break_it() -> None:
    chat = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Why?"))
    hostile = "So.\x00<|im_end|>\ud800"
    body = reward_body(ENDPOINT, "classify", None, prompt=chat, answer=hostile)
    assert [turn["role"] for turn in body["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert body["messages"][-1]["content"] == "So.�‹|im_end|>�"
    assert body["use_activation"] is False
    one = reward_body(ENDPOINT, "pooling", templates.load("reward", kind="reward"), prompt="Why?", answer="So.", raw=False)  # fmt: skip
    assert one == {"model": "planted", "input": "Human: Why?\n\nAssistant: So.", "encoding_format": "float"}
    extra = ENDPOINT.model_copy(update={"extra_body": {"truncate_prompt_tokens": -1}})
    assert reward_body(extra, "rerank", None, prompt=chat[-1:], answer="So.") == {
        "model": "planted", "query": "User: Why?", "documents": ["So."], "use_activation": False, "truncate_prompt_tokens": -1,
    }  # fmt: skip
    assert reward_body(ENDPOINT, "score", None, prompt="Why?", answer="So.", raw=False) == {
        "model": "planted", "text_1": "Why?", "text_2": "So.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{{ prompt }}", "{{ answer }} is missing"), ("{{ prompt }} {{ answer }} {{ text }}", "unknown variable"),
    ],
)  # fmt: skip
def test_a_reward_template_shows_prompt_and_answer(content: str, fault: str) -> None:
    said = f"kind: reward\nmessages:\n  - {{role: user, content: '{content}'}}\n"
    with pytest.raises(ExperimentError, match=fault):
        templates.parse(said, "t", "t.yaml", "reward")
    twice = "kind: reward\nmessages:\n" + "  - {role: user, content: '{{ prompt }} {{ answer }}'}\n" * 2
    with pytest.raises(ExperimentError, match="one message"):
        templates.parse(twice, "t", "t.yaml", "reward")
    with pytest.raises(ExperimentError, match="asks for none"):
        templates.parse(twice + "verdict: {text: say}\n", "t", "t.yaml", "reward")


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ({"route": "guess"}, "judge.route: must be one of classify, pooling, score, rerank"),
        ({"route": "score", "prompt": "reward"}, "route score sends prompt and text apart"),
        ({"temperature": 0}, "judge.temperature: must be more than 0"), ({"repeats": 2}, "judge.repeats: unknown key"),
        ({"label": -1}, "judge.label: must be 0 or more"), ({"endpoint": "none"}, "not among `endpoints`"),
        ({"endpoint": "engine"}, "scores no texts"),
    ],
)  # fmt: skip
def test_a_block_that_is_wrong_is_refused(block: dict[str, Any], fault: str) -> None:
    raw = small_experiment("http://127.0.0.1:1/v1", judge={"kind": "reward", "endpoint": "m", **block})
    raw["endpoints"]["engine"] = {"engine": "llama_cpp", "model": "smollm2-135m"}
    with pytest.raises(ExperimentError, match=fault):
        resolve(raw)


def test_it_bears_its_models_name() -> None:
    spec, endpoints = Spec(endpoint="m", route="pooling"), {"m": ENDPOINT}
    assert judge_name(spec, endpoints) == "planted"
    assert judge_name(spec, endpoints, ambiguous=True) == "planted#pooling"
    assert model_name(RewardJudge("x", spec, ENDPOINT, None, None)) == "planted"  # type: ignore[arg-type]


# -- a run ---------------------------------------------------------------------------------------------------------------


def experiment(folder: Path, base_url: str, **changes: Any) -> Path:
    made = {
        "judge": {"kind": "reward", "endpoint": "m"}, "policy": {"kind": "pool", "endpoint": "m", "pool_size": 3},
        "generations": 1, "replicates": 1, "panels": {"anchor": 4, "probe": ["bold"]}, **changes,
    }  # fmt: skip
    return write_experiment(folder, small_experiment(base_url, **made))


@pytest.mark.pages
@pytest.mark.at_hand
def test_a_run_scores_a_text_once_resumes_and_replays(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    path = experiment(tmp_path / "in", served.base_url)
    with pytest.raises(BudgetReached):
        judgeloop.run(path, out=tmp_path / "run", max_calls=24)
    run = judgeloop.run(path, out=tmp_path / "run")
    assert set(served.asked.values()) == {1}
    calls = sum(served.asked.values())
    assert calls <= Material.read(load(path)).planned_calls() + 1  # and the trial
    _says_by_construction(run)
    made = run.judgments[run.judgments["judge"] == "planted"]
    pairs = made.pivot_table(index=["panel", "generation", "arm", "replicate", "item_id", "pair_id"], columns="order", values="p_first", dropna=False).dropna()  # fmt: skip
    assert len(pairs)
    assert (pairs["ab"] + pairs["ba"]).to_numpy() == pytest.approx(1.0, abs=1e-15)
    again = judgeloop.run(path, out=tmp_path / "again", replay=tmp_path / "run", report=False)
    assert sum(served.asked.values()) == calls
    assert tables(again.path) == tables(run.path)
    assert (again.path / "estimates.csv").read_bytes() == (run.path / "estimates.csv").read_bytes()


@pytest.mark.at_hand
@pytest.mark.tables
@pytest.mark.parametrize(("kind", "normalize"), [("reward", "sd"), ("pointwise", "none")])
def test_a_pool_that_moves_by_scores_has_each_text_scored_once_for_all_arms(
    tmp_path: Path, serve: Serve, kind: str, normalize: str
) -> None:
    lost = Faults(rules=(Rule(match="/score/k4$", kind="null_content", times="always"),))
    served = serve(**{**PLANTED, "draft": {"length_mean": 60, "length_sd": 1.0}}, faults=lost)
    path = experiment(
        tmp_path / "in", served.base_url, generations=2, panels={"anchor": 0},
        judge={"kind": kind, "endpoint": "m"}, policy={"kind": "pool", "endpoint": "m", "pool_size": 6},
        signal={"kind": "group_advantage", "normalize": normalize},
        arms={"judge": {}, "mixed": {"strategy": {"kind": "accumulate"}}, "random": {"judge": {"kind": "random"}}},
    )  # fmt: skip
    run = judgeloop.run(path, out=tmp_path / "run", report=False)
    assert set(served.asked.values()) == {1}
    scored = [call for call in served.asked if "/score/" in call and "/trial/" not in call]
    assert all(call.startswith("s0/g0/judge/") for call in scored)
    texts = run.candidates.drop_duplicates(["item_id", "text"])
    assert len(texts) == 18
    assert len(scored) == 18 - 3  # those that are lost are not listed
    planned = {(one.kind, one.arm): one.calls for one in Material.read(load(path)).planned()}
    assert planned == {("pool drafts", ""): 18, ("scores", "judge"): 18, ("scores", "mixed"): 0}
    steps = run.candidates[(run.candidates["arm"] != "random") & (run.candidates["generation"] < 2)]
    lacks = steps["candidate_id"] == "k4"
    assert steps["reward"].isna().equals(lacks)
    assert steps.loc[lacks, "p_selected"].to_numpy() == pytest.approx(steps.loc[lacks, "p_current"].to_numpy())
    assert (abs(steps["p_selected"] - steps["p_current"]) > 1e-3)[~lacks].mean() > 0.5
    again = judgeloop.run(path, out=tmp_path / "again", replay=tmp_path / "run", report=False)
    assert tables(again.path) == tables(run.path)


@pytest.mark.at_hand
def test_a_pointwise_judge_picks_the_better_score_on_either_scale(tmp_path: Path, serve: Serve) -> None:
    item, texts = Item("i", "Why?"), [text(length) for length in (8, 16, 24, 64, 16)]
    candidates = [Candidate("i", f"k{n}", one) for n, one in enumerate(texts)]
    served = serve(length=0.7, draft={"length_mean": 16})
    endpoint = Endpoint(base_url=served.base_url, model="planted")
    found = {}
    for scale in ("1-10", "10-1"):
        spec = PointwiseJudgeSpec(endpoint="m", scale=scale, verdict="logprob")

        async def steps(client: Client, spec: PointwiseJudgeSpec = spec) -> tuple[list[Judgment], dict[str, float]]:
            judge = make_judge(spec, endpoints={"m": endpoint}, folder=".", client=client, seed=0)
            assert isinstance(judge, PointwiseJudge)
            shown = presentations(matchups("i", candidates))
            return await judge.judge(item, shown, spec.scale, (0, 0)), await judge.scores(
                item, candidates, spec.scale, (0, 0)
            )

        judged, scores = use(tmp_path / scale, endpoint, steps)
        found[scale] = scores
        for one in judged:
            first, second = (scores[c.candidate_id] for c in (one.presentation.first, one.presentation.second))
            slot = "tie" if first == second else "first" if first > second else "second"
            assert (one.verdict.slot, one.verdict.p_first) == (slot, None)
    assert found["1-10"]["k0"] < found["1-10"]["k1"] == found["1-10"]["k4"] < found["1-10"]["k2"] < found["1-10"]["k3"]
    # A mean m on 1-10 is 11 − m on 10-1, and less that as a score.
    assert {name: value + 11 for name, value in found["10-1"].items()} == pytest.approx(found["1-10"])
    assert set(served.asked.values()) == {1}
    assert len(served.asked) == 2 * 4


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"judge": {"kind": "pointwise", "endpoint": "m", "scale": "5"}}, "judge.scale: '5' is no scale; give WORST-BEST"),
        ({"judge": {"endpoint": "m"}}, "arms.judge.judge.kind: model compares texts and scores none"),
        ({"policy": {"kind": "exemplar", "endpoint": "m"}}, "group_advantage does not go with policy.kind exemplar, which takes bradley_terry, reward_model, best_of_n"),
        ({"signal": {"kind": "group_advantage", "label_rule": "raw"}}, "signal.label_rule: unknown key"),
    ],
)  # fmt: skip
def test_what_scores_cannot_train_is_refused(change: dict[str, Any], fault: str) -> None:
    made = {"judge": {"kind": "reward", "endpoint": "m"}, "policy": {"kind": "pool", "endpoint": "m"}, "signal": {"kind": "group_advantage"}}  # fmt: skip
    with pytest.raises(ExperimentError, match=fault):
        resolve(small_experiment("http://127.0.0.1:1/v1", **{**made, **change}))


def _says_by_construction(run: Run) -> None:
    rows = run.estimates
    first = rows[(rows["term"] == "first_slot_excess") & (rows["judge"] == "planted")]
    assert set(first["method"]) == {BY_CONSTRUCTION}
    assert set(rows.loc[rows["judge"] == "random", "method"]) != {BY_CONSTRUCTION}
    assert "0 by construction, not measured" in (run.path / "report.md").read_text()
    estimates = list(map(_as_estimate, first.to_dict("records")))
    kept = check("x", estimates, [Limit(term="first_slot_excess", low=-0.02, high=0.02, judge="planted")])
    assert (kept.verdict, kept.exit_code) == ("passed", 0)
    broken = check("x", estimates, [Limit(term="first_slot_excess", low=0.1, judge="planted")])
    assert broken.verdict == "exceeded"


def _as_estimate(row: dict[Any, Any]) -> Any:
    from judgeloop.stats.estimate import Estimate

    return Estimate(**{key: None if pd.isna(value) else value for key, value in row.items()})


def test_a_text_without_a_score_leaves_its_pairs_unscored(tmp_path: Path, serve: Serve) -> None:
    faults = Faults(rules=(
        Rule(match="/score/k1$", kind="null_content", times="always"), Rule(match="/score/k2$", status=500, times="always"),
        Rule(match="/score/k0$", kind="not_json"),
    ))  # fmt: skip
    served = serve(faults=faults, **PLANTED)
    found = asked(tmp_path, served.base_url, Spec(endpoint="m"), {"i": [text(8), text(16), text(32), text(64)]})
    reasons = {(one.presentation.matchup.pair_id, one.presentation.order): one.verdict.reason for one in found}
    # k0k1 k0k2 k0k3 k1k2 k1k3 k2k3: the first slot's reason where both lack a score.
    assert [reasons[f"m0{n}", "ab"] for n in range(6)] == ["not_finite", "http_500", "", "not_finite", "not_finite", "http_500"]  # fmt: skip
    assert reasons["m03", "ba"] == "http_500"
    assert all(one.verdict.p_first is None for one in found if one.verdict.reason)


@pytest.mark.at_hand
def test_a_planted_share_of_texts_has_no_score(tmp_path: Path, serve: Serve) -> None:
    served = serve(**PLANTED, unscored=0.5)
    found = asked(tmp_path, served.base_url, Spec(endpoint="m"), {f"i{n}": [text(8), text(32)] for n in range(40)})
    share = np.mean([one.verdict.reason == "not_finite" for one in found])
    assert 0.55 < share < 0.95  # 1 − ½² of the pairs


@pytest.mark.parametrize(
    ("entry", "advice"),
    [
        ({"probs": [0.2, 0.8]}, r"several_scores\); state judge.label"), ({"label": "x"}, r"no_score\); check that m is served"),
        ({"probs": [None]}, "not_finite"),
    ],
)  # fmt: skip
def test_a_model_that_gives_no_score_is_found_by_one_trial_call(tmp_path: Path, entry: dict[str, Any], advice: str) -> None:  # fmt: skip
    spec = Spec(endpoint="m")
    with serving(Speaker(lambda _: ServerAnswer(200, {"data": [entry]}))) as speaker:
        endpoint = speaker.endpoint()

        async def trial(client: Client) -> None:
            await check_reward(RewardJudge("m", spec, endpoint, None, client), "panels/g0/judge/trial")

        with pytest.raises(EndpointFailed, match=advice):
            use(tmp_path, endpoint, trial)
    assert speaker.call_ids == ["panels/g0/judge/trial/m/score/trial"]


def test_identical_texts_are_a_tie_and_one_call(tmp_path: Path, serve: Serve) -> None:
    served = serve(**PLANTED)
    found = asked(tmp_path, served.base_url, Spec(endpoint="m"), {"i": [text(8), text(8)]})
    assert [(one.verdict.slot, one.verdict.p_first) for one in found] == [("tie", 0.5)] * 2
    assert sum(served.asked.values()) == 1
