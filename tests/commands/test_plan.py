"""judgeloop plan: its calls are those of a run, its tokens hold the counted ones, its prices are the experiment's alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import ITEMS, small_experiment, write_experiment
from judgeloop.cli.app import app
from judgeloop.commands.plan import Range, load_of, plan, prompt_tokens, text_tokens, verdict_tokens
from judgeloop.commands.run import run
from judgeloop.errors import InvalidInput
from judgeloop.experiment.resolve import Material, load
from judgeloop.experiment.schema import Endpoint
from judgeloop.rundir import RunFolder
from judgeloop.stats.estimate import Estimate, estimates_frame
from judgeloop.stats.inference import (
    detectable_excess,
    detectable_per_sd,
    pairs_for_position,
    power_of_replicates,
    upper_deviation,
)
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.reply import read

NOWHERE = "http://127.0.0.1:9/v1"
EXEMPLARS = Path(__file__).parents[2] / "fixtures" / "exemplars"

VARIANTS = [
    {},
    {"policy": {"kind": "pool", "endpoint": "m", "pool_size": 5}, "signal": {"kind": "bradley_terry"}},
    {"matchups_per_item": 1, "judge": {"endpoint": "m", "verdict": "json", "repeats": 3}},
    {"panels": {"anchor": 0}},
    {"panels": {"anchor": 3, "probe": ["padding", "bold"]}},
    {"judge": {"kind": "panel", "judges": [{"endpoint": "m"}, {"endpoint": "m", "prompt": "rubric"}]}},
    {"arms": {"judge": {}, "gold": {"judge": {"kind": "gold", "endpoint": "m"}}}},
    {"arms": {"judge": {}, "many": {"policy": {"exemplars": 3}}, "other": {"judge": {"prompt": "rubric"}}, "gold": {"judge": {"kind": "gold"}}}},
]  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS)
def test_the_loads_add_up_to_the_planned_calls(tmp_path: Path, changes: dict) -> None:
    items = [{**ITEMS[0], "match": "judge"}, *ITEMS[1:]] if "'kind': 'gold', 'endpoint'" in str(changes) else None
    path = write_experiment(tmp_path, small_experiment(NOWHERE, **changes), items)
    planned = plan(path)
    calls = sum(load.calls for load in planned.loads if not load.what.endswith("(at most)"))
    assert calls == Material.read(load(path)).planned_calls() == planned.planned_calls


@pytest.mark.tables
@pytest.mark.at_hand
def test_the_calls_are_those_of_a_run(tmp_path: Path, serve) -> None:
    server = serve()
    raw = small_experiment(server.base_url, judge={"endpoint": "m", "verdict": "auto"})
    path = write_experiment(tmp_path, raw)
    planned = plan(path)
    run(path, out=tmp_path / "run")
    asked = sum(server.asked.values())
    assert planned.planned_calls * 0.9 < asked <= planned.calls  # equal drafts are not judged
    trials = next(load for load in planned.loads if load.what == "verdict trials (at most)")
    assert trials.calls == 3


def test_gold_that_asks_a_model_is_counted(tmp_path: Path) -> None:
    items = [{**ITEMS[0], "match": "judge"}, *ITEMS[1:]]
    arms = {"judge": {}, "gold": {"judge": {"kind": "gold", "endpoint": "m"}}}
    path = write_experiment(tmp_path, small_experiment(NOWHERE, arms=arms), items)
    matching = [load for load in plan(path).loads if load.what.startswith("gold matching")]
    # replicates · candidates · (generation 0, which arms share, and one generation of two arms); two of the anchor's pairs
    assert [load.calls for load in matching] == [2 * 3 * (1 + 2) + 2 * 2]


def test_the_guess_of_tokens_holds_the_counted_ones() -> None:
    """Real prompts with the counts of a real tokenizer, drafts and judgments."""
    cassette, inside, ratios = Cassette(EXEMPLARS / "recording", writable=False), 0, []
    for number, exchange in enumerate(cassette.exchanges()):
        if number % 40:
            continue
        tokens = read(exchange.status, exchange.response, exchange.fault).prompt_tokens
        guess = prompt_tokens(exchange.request)
        inside += guess.low <= tokens <= guess.high
        ratios.append(guess.likely / tokens)
    assert inside == len(ratios) > 100
    assert 0.6 < sum(ratios) / len(ratios) < 1.4


def test_the_small_training_is_an_experiment_as_it_stands() -> None:
    planned = plan(EXEMPLARS.parents[1] / "examples" / "small_training.yaml")
    # Items · candidates · replicates · (generation 0 and two generations of two arms), and the trainings.
    assert planned.calls == 6 * 2 * 3 * (1 + 2 * 2) + 3 * 2 * 2


def test_tokens_of_other_scripts_go_by_the_character() -> None:
    assert text_tokens("日本語の文章です").likely > text_tokens("abcdefgh").likely
    assert text_tokens("").high == 0


def test_verdicts_cost_one_token_or_as_many_as_they_may() -> None:
    assert verdict_tokens("logprob", reasons=False, longest=500) == Range(1, 1, 1)
    assert verdict_tokens("json", reasons=False, longest=500).high == 500
    assert verdict_tokens("text", reasons=True, longest=100) == Range(30, 100, 100)


def test_cost_is_by_the_stated_price_and_never_guessed(tmp_path: Path) -> None:
    free = Endpoint(base_url=NOWHERE, model="m")
    dear = Endpoint.model_validate({"base_url": NOWHERE, "model": "m", "price": {"input": 2, "output": 10}})
    bodies = [{"messages": [{"role": "user", "content": "x" * 4000}]}] * 10
    assert load_of("calls", "m", free, bodies, Range(1, 1, 1)).cost is None
    load = load_of("calls", "m", dear, bodies, Range(100, 100, 100))
    assert load.cost is not None
    assert load.cost.likely == pytest.approx((load.prompt.likely * 2 + 1000 * 10) / 1e6)
    raw = small_experiment(NOWHERE)
    assert plan(write_experiment(tmp_path / "a", raw)).cost is None
    raw["endpoints"]["m"]["price"] = {"input": 2, "output": 10}
    raw["budget"] = {"max_cost": 0.0001, "max_calls": 10}
    planned = plan(write_experiment(tmp_path / "b", raw))
    assert planned.cost is not None
    assert planned.cost.low < planned.cost.likely < planned.cost.high
    assert [note.split(" ")[0] for note in planned.notes[:2]] == ["budget.max_calls", "budget.max_cost"]


@pytest.mark.slow
def test_an_earlier_run_says_tokens_and_speed() -> None:
    planned = plan(EXEMPLARS / "experiment.yaml", run=EXEMPLARS / "recording")
    judgments = next(load for load in planned.loads if load.what.startswith("judgments"))
    assert judgments.basis == "counted in recording"
    assert judgments.completion == Range(judgments.calls, judgments.calls, judgments.calls)
    assert judgments.prompt.low <= judgments.prompt.likely <= judgments.prompt.high
    # The recording's own sum of prompt tokens, judge calls only.
    cassette = Cassette(EXEMPLARS / "recording", writable=False)
    counts = [
        read(exchange.status, exchange.response, exchange.fault).prompt_tokens
        for exchange in cassette.exchanges()
        if exchange.call.split("/")[2] == "judge" and "/trial/" not in exchange.call
    ]
    assert judgments.prompt.likely / judgments.calls == pytest.approx(sum(counts) / len(counts))
    shown = {load.what: load.prompt.likely / load.calls for load in planned.loads if load.what.startswith("drafts")}
    assert shown["drafts, with 2 exemplars"] > 2 * shown["drafts, generation 0"]
    assert planned.speed is not None
    assert 0.1 < planned.speed.calls_per_second < 50


def test_speed_as_stated_or_doctored(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, small_experiment(NOWHERE))
    assert plan(path).seconds is None
    planned = plan(path, calls_per_second=2.0)
    assert planned.seconds == pytest.approx(planned.calls / 2)
    doctored = tmp_path / "doctor.json"
    doctored.write_text(json.dumps({"recommended": {"calls_per_second": 4.0}}), encoding="utf-8")
    assert plan(path, doctor=doctored).seconds == pytest.approx(planned.calls / 4)
    for broken in ("{}", "no json", '{"recommended": {"calls_per_second": null}}'):
        doctored.write_text(broken, encoding="utf-8")
        with pytest.raises(InvalidInput, match="doctor --json"):
            plan(path, doctor=doctored)
    with pytest.raises(InvalidInput, match="calls-per-second"):
        plan(path, calls_per_second=0.0)


def test_power_tables_are_those_of_the_closed_forms(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, small_experiment(NOWHERE, panels={"anchor": 300}))
    power = plan(path, effect=0.04, conflict=0.4, drift=0.3, drift_sd=0.3).power
    cells = {(row["effect"], row["conflict_rate"]): row["pairs"] for row in power["pairs"]}
    assert cells[(0.04, 0.4)] == pairs_for_position(0.04, 0.4)
    assert cells[(0.1, 0.1)] is None
    assert power["drift_needs"]["replicates"] == 10
    detects = {row["conflict_rate"]: row["effect"] for row in power["anchor_detects"]}
    assert pairs_for_position(detects[0.3], 0.3) == 300
    with pytest.raises(InvalidInput, match="drift-sd"):
        plan(path, drift=0.3)
    for wrong in ({"effect": 0.0}, {"effect": 0.7}, {"conflict": 0.0}, {"drift": -1.0, "drift_sd": 1.0}):
        with pytest.raises(InvalidInput):
            plan(path, **wrong)


@pytest.mark.parametrize("pairs", [10, 60, 300, 5000])
@pytest.mark.parametrize("conflict", [0.05, 0.3, 1.0])
def test_detectable_excess_inverts_the_pairs(pairs: int, conflict: float) -> None:
    effect = detectable_excess(pairs, conflict)
    if effect is None:
        assert pairs_for_position(conflict / 2, conflict) > pairs
    else:
        assert pairs_for_position(effect, conflict) <= pairs < pairs_for_position(effect * 0.99, conflict) + 1


def test_the_command_shows_and_writes_it(tmp_path: Path, capsys) -> None:
    path = write_experiment(tmp_path, small_experiment(NOWHERE))
    app([str(part) for part in ("plan", path, "--calls-per-second", 5)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "drafts, with 2 exemplars" in shown
    assert "none is guessed" in shown
    assert "at 5 calls a second, as stated" in shown
    app([str(part) for part in ("plan", path, "--json")], standalone_mode=False)
    raw = json.loads(capsys.readouterr().out)
    assert raw["calls"] == sum(load["calls"] for load in raw["loads"])
    assert raw["cost_usd"] is None


def test_nothing_is_asked(tmp_path: Path, serve) -> None:
    server = serve()
    plan(write_experiment(tmp_path, small_experiment(server.base_url)))
    assert not server.asked


LONGER = {
    "judge": {},
    "longer": {"judge": {"kind": "rule", "feature": "length"}},
    "random": {"judge": {"kind": "random"}},
}


def test_a_positive_control_costs_its_drafts_and_must_drift_as_far_as_the_replicates_show(tmp_path: Path) -> None:
    raw = small_experiment(NOWHERE, arms=LONGER, replicates=5)
    planned = plan(write_experiment(tmp_path / "a", raw), drift_sd=0.2)
    (control,) = planned.power["positive_controls"]
    raw["arms"] = {name: arm for name, arm in LONGER.items() if name != "longer"}
    without = plan(write_experiment(tmp_path / "b", raw))
    assert control["calls"] == planned.planned_calls - without.planned_calls > 0
    assert not [load for load in planned.loads if load.what == "judgments, arm longer"]
    assert control["drift_in_sd"] == pytest.approx(detectable_per_sd(5))
    assert control["drift"] == pytest.approx(0.2 * detectable_per_sd(5))
    assert control["power"] is None
    assert without.power["positive_controls"] == []
    assert "no arm has a judge with a known taste" in without.notes[-1]
    assert not any("known taste" in note for note in planned.notes)
    pool = small_experiment(NOWHERE, arms=LONGER, policy={"kind": "pool", "endpoint": "m", "pool_size": 5}, signal={"kind": "bradley_terry"})  # fmt: skip
    assert plan(write_experiment(tmp_path / "c", pool)).power["positive_controls"][0]["calls"] == 0


def test_an_earlier_run_says_how_far_its_positive_control_drifted(tmp_path: Path, capsys) -> None:
    did = Estimate(
        scope="policy", term="did_length", bias="verbosity", arm="longer", contrast="random", generation=1, estimate=0.5,
        std_error=0.1, conf_low=0.2, conf_high=0.8, n=5, n_replicates=5, positive_control="itself_seen",
    )  # fmt: skip
    (tmp_path / "run" / "calls").mkdir(parents=True)
    RunFolder(tmp_path / "run").write_estimates(estimates_frame([did]))
    path = write_experiment(tmp_path, small_experiment(NOWHERE, arms=LONGER, replicates=8))
    (control,) = plan(path, run=tmp_path / "run").power["positive_controls"]
    sd = upper_deviation(0.1 * 5**0.5, 4)
    assert control["earlier_drift_in_sd"] == pytest.approx(0.5 / sd)
    assert control["power"] == power_of_replicates(0.5 / sd, 8)
    assert control["drift"] == pytest.approx(sd * detectable_per_sd(8))
    app([str(part) for part in ("plan", path, "--run", tmp_path / "run")], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "Positive controls: judges with a known taste, which ask no model" in shown
    assert f"{100 * control['power']:.0f} %" in shown


@pytest.mark.parametrize("replicates", [3, 8, 20])
def test_the_power_of_replicates_inverts_the_smallest_detectable_drift(replicates: int) -> None:
    assert power_of_replicates(detectable_per_sd(replicates), replicates) == pytest.approx(0.8, abs=1e-3)
    assert power_of_replicates(0.0, replicates) == pytest.approx(0.025)
