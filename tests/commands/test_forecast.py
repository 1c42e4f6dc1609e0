"""Forecasts: the closed forms (docs/method.md, "The linear world"), pools by an obvious twin, and that the limits hold
what loops measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import command
from conftest import examples, serving, small_experiment, tables_alone, write_experiment
from judgeloop.cli.plan import sparkline
from judgeloop.commands.analyze import analyze
from judgeloop.commands.forecast import forecast as forecast_command
from judgeloop.commands.forecast import rule_evidence
from judgeloop.commands.run import run as run_command
from judgeloop.errors import InvalidInput
from judgeloop.experiment.schema import RuleJudgeSpec, StrategySpec
from judgeloop.learning import selection, strategies
from judgeloop.learning.labels import preferences
from judgeloop.records import ESTIMATE_COLUMNS
from judgeloop.seeds import rng
from judgeloop.seeds import rng as seeds_rng
from judgeloop.stats.inference import largest_normal
from judgeloop.stats.loop import forecast as forecasts
from judgeloop.stats.loop.forecast import (
    FULLEST_RESPONSE,
    ForecastLoop,
    SelectionPressure,
    Texts,
    follow,
    forecast,
    steps_like_first,
    unknown_response,
)
from judgeloop.text.features import FEATURES

SIGMA = np.array([[1.0, 0.3], [0.3, 1.0]])
B = np.array([0.3, 1.0])
EXACT = SelectionPressure(B, np.zeros((2, 2)), 100, np.zeros((2, 2)))
TEXTS = Texts(SIGMA, 10_000)
WHOLE = {"size": None, "tau": 2.0}


def harmonic(n: int) -> float:
    return sum(1 / k for k in range(1, n + 1))


# -- closed forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "compounding"),
    [
        ({}, 6.0),
        ({"strategy": "accumulate"}, 2 * (harmonic(7) - 1)),
        ({"real_fraction": 0.25}, (1 - 0.75**6) / 0.25),
        ({"reference": "base"}, 1.0),
    ],
)
def test_the_closed_forms_of_the_method_notes(changes: dict, compounding: float) -> None:
    """A_T for a tilt of a Gaussian, first step Σb/τ (halved by accumulate, times 1 − α with real data)."""
    found = forecast(EXACT, TEXTS, ForecastLoop(6, **WHOLE, **changes))
    first = SIGMA @ B / 2 * (0.5 if "strategy" in changes else 1 - changes.get("real_fraction", 0.0))
    assert found.expected[0] == pytest.approx(first)
    assert found.expected[-1] == pytest.approx(first * compounding)


def test_best_of_n_loses_its_spread() -> None:
    """Row C2: the refitted mean and covariance, step by step."""
    found = forecast(EXACT, TEXTS, ForecastLoop(8, "best_of_n", size=4))
    mean, covariance, (e, v) = np.zeros(2), SIGMA, largest_normal(4)
    for t in range(8):
        pulled, q = covariance @ B, float(B @ covariance @ B)
        mean, covariance = mean + pulled * e / np.sqrt(q), covariance - (1 - v) * np.outer(pulled, pulled) / q
        assert found.expected[t] == pytest.approx(mean)
    assert found.expected[0] == pytest.approx(SIGMA @ B * 1.02938 / np.sqrt(B @ SIGMA @ B), abs=1e-4)
    one = forecast(
        SelectionPressure(np.ones(1), np.zeros((1, 1)), 9, np.zeros((1, 1))),
        Texts(np.eye(1), 99),
        ForecastLoop(60, "best_of_n"),
    )
    assert one.expected[-1, 0] == pytest.approx(3.445, abs=1e-3)


def test_pair_winners_move_by_what_was_measured() -> None:
    """At K = 2 the forecast of one step is the measured differential; at K = 4, e_4/e_2 of it."""
    measured = np.array([0.2, -0.1])
    pull = SelectionPressure(measured, np.zeros((2, 2)), 50, np.zeros((2, 2)))
    assert forecast(pull, TEXTS, ForecastLoop(1, "winners", size=2)).expected[0] == pytest.approx(measured)
    assert forecast(pull, TEXTS, ForecastLoop(1, "winners", size=4)).expected[0] == pytest.approx(
        measured * 1.82452, abs=1e-4
    )


def test_order_statistics() -> None:
    assert largest_normal(4) == pytest.approx((1.0294, 0.4917), abs=1e-4)
    assert largest_normal(16)[0] == pytest.approx(1.7660, abs=1e-4)


def test_real_data_that_differ_pull_towards_themselves() -> None:
    still = SelectionPressure(np.zeros(2), np.zeros((2, 2)), 50, np.zeros((2, 2)))
    real = np.array([1.0, -2.0])
    found = forecast(still, TEXTS, ForecastLoop(20, **WHOLE, real_fraction=0.5, real=real))
    assert found.expected[0] == pytest.approx(real / 2)
    assert found.expected[-1] == pytest.approx(real, abs=1e-5)


def test_a_judge_without_taste_moves_nothing() -> None:
    still = SelectionPressure(np.zeros(2), np.zeros((2, 2)), 50, np.zeros((2, 2)))
    for update in ("tilt", "best_of_n"):
        assert forecast(still, TEXTS, ForecastLoop(3, update, size=4, pool=8)).expected == pytest.approx(
            np.zeros((3, 2))
        )


@given(
    st.integers(1, 12),
    st.sampled_from(["replace", "accumulate"]),
    st.floats(0, 1),
    st.sampled_from(["previous", "base"]),
)
def test_following_is_linear(steps: int, strategy: str, alpha: float, reference: str) -> None:
    course = ForecastLoop(steps, strategy=strategy, real_fraction=alpha, reference=reference)  # type: ignore[arg-type]
    one, two = np.random.default_rng(steps).standard_normal((2, 3, steps))
    assert follow(2 * one - two, course) == pytest.approx(2 * follow(one, course) - follow(two, course))


@settings(max_examples=examples(8))
@given(st.floats(0.1, 10), st.sampled_from(["tilt", "best_of_n"]), st.sampled_from([None, 8]))
def test_the_unit_of_a_feature_does_not_matter(factor: float, update: str, pool: int | None) -> None:
    """A feature in another unit: its slope and covariances change, the drift is the same in that unit."""
    unit = np.diag([factor, 1.0])
    course = ForecastLoop(2, update, size=4, pool=pool, tau=1.5)  # type: ignore[arg-type]
    plain = forecast(EXACT, TEXTS, course).expected
    scaled = forecast(
        SelectionPressure(np.linalg.inv(unit) @ B, np.zeros((2, 2)), 100, np.zeros((2, 2))),
        Texts(unit @ SIGMA @ unit, 10_000),
        course,
    ).expected
    assert scaled == pytest.approx(plain @ unit)


# -- pools, by an obvious twin -------------------------------------------------------------------------------------------


def twin(pool: int, c: float, course: ForecastLoop, update: str) -> list[float]:
    """The same random pools, one by one, through the project's own selection and mixing."""
    scores = np.sort(rng(0, "forecast", "pools", pool).standard_normal((forecasts._POOLS, pool)), axis=1)
    kind = StrategySpec(kind=course.strategy, real_fraction=course.real_fraction)
    paths = []
    for row in scores[:40]:
        names = [str(k) for k in range(pool)]
        reward = dict(zip(names, row.tolist(), strict=True))
        base = weights = dict.fromkeys(names, 1 / pool)
        chosen, path = [], []
        for _ in range(course.generations):
            reference = base if course.reference == "base" else weights
            if update == "tilt":
                law = selection.tilt(reference, {name: c * value for name, value in reward.items()}, 1.0)
            else:
                law = selection.best_of_n_law(reference, reward, course.size or 2)
            chosen.append(law)
            weights = strategies.mix(
                kind, selections=chosen, generation_zero=base, real=None, size=4, rng=rng(0, "none")
            )
            path.append(sum(weights[name] * reward[name] for name in names) - float(row.mean()))
        paths.append(path)
    return list(np.mean(paths, axis=0))


@pytest.mark.parametrize("strategy", ["replace", "accumulate"])
@pytest.mark.parametrize("update", ["tilt", "best_of_n"])
@pytest.mark.parametrize("changes", [{}, {"real_fraction": 0.3}, {"reference": "base"}])
def test_pools_are_followed_as_the_loop_does(monkeypatch, strategy: str, update: str, changes: dict) -> None:
    course = ForecastLoop(4, update, strategy=strategy, pool=8, size=3, **changes)  # type: ignore[arg-type]
    expected = twin(8, 0.7, course, update)
    original = seeds_rng
    monkeypatch.setattr(forecasts, "rng", lambda *labels: _First(original(*labels)))
    assert list(forecasts._pool_path(0.7, course, (1.0, 1.0), 0)[0]) == pytest.approx(expected, abs=1e-12)


class _First:
    """Gives the first 40 of the pools that are drawn."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def standard_normal(self, shape: tuple[int, int]) -> np.ndarray:
        return self.generator.standard_normal(shape)[:40]


def test_a_pool_saturates_where_drafting_anew_does_not() -> None:
    drafted = forecast(EXACT, TEXTS, ForecastLoop(30, **WHOLE)).expected[:, 0]
    pooled = forecast(EXACT, TEXTS, ForecastLoop(30, **WHOLE, pool=16)).expected[:, 0]
    assert pooled[0] == pytest.approx(drafted[0], rel=0.1)
    assert np.all(np.diff(pooled) > -1e-9)
    assert pooled[-1] < 0.25 * drafted[-1]


# -- limits --------------------------------------------------------------------------------------------------------------


def test_limits_hold_the_expected_drift_and_narrow_with_evidence() -> None:
    covariance = np.diag([0.02, 0.02])
    rough = SelectionPressure(B, covariance, 60, covariance * 600)
    course = {"size": 4, "tau": 2.0, "items": 50, "rows": 600.0}
    wide = forecast(rough, TEXTS, ForecastLoop(4, **course))
    assert np.all((wide.low < wide.expected) & (wide.expected < wide.high))
    assert np.all(np.diff(wide.high - wide.low, axis=0) > 0)
    many = forecast(rough, TEXTS, ForecastLoop(4, **course, replicates=20))
    sure = forecast(SelectionPressure(B, covariance / 100, 60, covariance * 600), TEXTS, ForecastLoop(4, **course))
    for narrow in (many, sure):
        assert np.all(narrow.high - narrow.low < wide.high - wide.low)
    assert np.all(sure.std_error < wide.std_error)


def test_combinations_are_weighed_sums() -> None:
    weights = np.array([[1.0, 0.0], [0.5, 0.5]])
    found = forecast(EXACT, TEXTS, ForecastLoop(2, **WHOLE), weights)
    plain = forecast(EXACT, TEXTS, ForecastLoop(2, **WHOLE))
    assert found.expected[:, 1] == pytest.approx(plain.expected.mean(axis=1))


def test_the_same_seed_gives_the_same_forecast() -> None:
    rough = SelectionPressure(B, np.eye(2) * 0.01, 60, np.eye(2))
    one, two = (forecast(rough, TEXTS, ForecastLoop(3), seed=5) for _ in "12")
    assert np.array_equal(one.low, two.low)
    assert not np.array_equal(one.low, forecast(rough, TEXTS, ForecastLoop(3), seed=6).low)


@pytest.mark.parametrize("response", [0.0, 0.4, 1.0, FULLEST_RESPONSE])
def test_limits_for_any_response_cover_each_of_them(response: float) -> None:
    stream, items, truth = np.random.default_rng(8), 16, 0.3
    covered = []
    for _ in range(2000):
        picks = truth + 0.4 * stream.standard_normal(items)
        error = picks.var(ddof=1) / items
        pull = SelectionPressure(np.array([picks.mean()]), np.array([[error]]), items - 1, np.eye(1))
        drift = unknown_response(pull, 3, np.eye(1))
        covered.append((drift.low[:, 0] <= response * truth * np.arange(1, 4)).all() and (response * truth * np.arange(1, 4) <= drift.high[:, 0]).all())  # fmt: skip
    assert np.mean(covered) >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("noise", ["steps", "measuring"])
@pytest.mark.parametrize("new", [False, True])
def test_a_first_step_that_is_repeated_covers_what_comes(noise: str, new: bool) -> None:
    stream, loops, runs, steps = np.random.default_rng(5), 5, 4000, 4
    walk = 0.2 + stream.standard_normal((2, runs, loops, steps)) if noise == "steps" else np.full((2, runs, loops, steps), 0.2)  # fmt: skip
    drift = walk.cumsum(axis=-1)
    if noise == "measuring":
        drift = drift + stream.standard_normal(drift.shape) - stream.standard_normal((2, runs, loops, 1))
    first = drift[0, :, :, 0]
    limits = [
        steps_like_first(row.mean(), row.std(ddof=1) / np.sqrt(loops), loops, steps, replicates=loops if new else None)
        for row in first
    ]
    came = drift[1 if new else 0].mean(axis=1)
    for t in range(0 if new else 1, steps):
        share = np.mean([one.low[t, 0] <= value <= one.high[t, 0] for one, value in zip(limits, came[:, t], strict=True)])  # fmt: skip
        assert share >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / runs)
    assert came[:, -1].mean() == pytest.approx(np.mean([one.expected[-1, 0] for one in limits]), abs=0.1)


def test_a_model_that_starts_from_its_base_each_time_does_not_add_up() -> None:
    pull = SelectionPressure(np.array([0.3]), np.array([[0.01]]), 15, np.eye(1))
    assert unknown_response(pull, 3, np.eye(1), adds_up=False).expected[:, 0].tolist() == [0.3] * 3
    again = steps_like_first(0.2, 0.1, 5, 3, replicates=None, adds_up=False)
    assert again.expected[:, 0].tolist() == [0.2] * 3
    assert np.ptp(again.high[1:, 0]) == 0 < again.high[1, 0] - 0.2


def test_impossible_courses_are_refused() -> None:
    for course in (ForecastLoop(0), ForecastLoop(1, "best_of_n", size=1), ForecastLoop(1, "winners", size=None)):
        with pytest.raises(ValueError):
            forecast(EXACT, TEXTS, course)


# -- from a folder -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by a planted judge, all in this process."""
    folder = tmp_path_factory.mktemp("forecast")
    spec = {"position": 0.3, "length": 1.0, "draft": {"length_mean": 30, "length_sd": 0.5, "markdown": 0.2}}
    items = [{"item_id": f"i{k}", "prompt": f"Say something about {k}."} for k in range(12)]
    with serving(at_hand=True) as serve:
        raw = small_experiment(
            serve(**spec).base_url, judge={"endpoint": "m", "verdict": "json"}, panels={"anchor": 12}, generations=1,
            policy={"kind": "pool", "endpoint": "m", "pool_size": 8}, signal={"kind": "bradley_terry"},
        )  # fmt: skip
        with tables_alone():
            run_command(write_experiment(folder, raw, items), out=folder / "run")
    return folder


def test_a_run_is_forecast_in_its_own_units(run_folder: Path) -> None:
    result = forecast_command(run_folder / "run", 4)
    rows = result.rows
    assert list(rows.columns) == list(ESTIMATE_COLUMNS)
    assert set(rows["arm"]) == {"judge"}
    assert set(rows["generation"]) == {1, 2, 3, 4}
    length = rows[rows["term"] == "forecast_drift_length"].set_index("generation")
    assert length["unit"].unique() == ["doublings"]
    assert length.loc[4, "estimate"] > length.loc[1, "estimate"] > 0  # the planted judge likes length
    assert ((rows["conf_low"] < rows["estimate"]) & (rows["estimate"] < rows["conf_high"])).all()
    assert set(rows.loc[rows["term"] != "forecast_drift_length", "unit"]) == {"generation-0 sd"}
    assert "forecast_drift_style_score" in set(rows["term"])
    written = pd.read_csv(run_folder / "run" / "forecast.csv")
    assert written["estimate"].to_numpy() == pytest.approx(rows["estimate"].to_numpy())


def test_an_experiment_is_forecast_from_another_runs_judge(run_folder: Path, tmp_path: Path) -> None:
    raw = small_experiment("http://127.0.0.1:9/v1", judge={"endpoint": "m", "verdict": "json"},
        policy={"kind": "pool", "endpoint": "m"}, signal={"kind": "bradley_terry", "ridge": 0}, arms={
            "judge": {}, "twice": {"signal": {"label_rule": "consistent_only"}},
            "blind": {"signal": {"label_rule": "length_controlled"}}, "weak": {"signal": {"tau": 4.0}},
            "mixed": {"strategy": {"kind": "accumulate", "real_fraction": 0.5}}, "random": {"judge": {"kind": "random"}},
        })  # fmt: skip
    rows = forecast_command(
        run_folder / "run", 2, experiment=write_experiment(tmp_path, raw), out=tmp_path / "f.csv"
    ).rows
    assert (tmp_path / "f.csv").is_file()
    first = rows[(rows["term"] == "forecast_drift_length") & (rows["generation"] == 1)].set_index("arm")["estimate"]
    assert set(first.index) == {"judge", "twice", "blind", "weak", "mixed"}
    assert first["twice"] > 1.3 * first["judge"]
    assert abs(first["blind"]) < 0.5 * first["judge"]
    assert first["weak"] < 0.4 * first["judge"]
    assert first["mixed"] == pytest.approx(first["judge"] / 4, rel=0.02)


def test_a_rule_is_forecast_from_the_texts_alone(run_folder: Path, tmp_path: Path) -> None:
    rule = {"kind": "rule", "feature": "length"}
    raw = small_experiment("http://127.0.0.1:9/v1", policy={"kind": "pool", "endpoint": "m"}, signal={"kind": "bradley_terry"}, arms={
        "longer": {"judge": rule}, "shorter": {"judge": {**rule, "prefer": "less"}}, "random": {"judge": {"kind": "random"}},
    })  # fmt: skip
    result = forecast_command(run_folder / "run", 1, experiment=write_experiment(tmp_path, raw), out=tmp_path / "f.csv")
    rows = result.rows[result.rows["term"] == "forecast_drift_length"].set_index("arm")
    assert list(rows["judge"]) == ["rule:more_length", "rule:less_length"]
    assert rows.loc["longer", "conf_low"] > 0 > rows.loc["shorter", "conf_high"]
    assert rows.loc["longer", "estimate"] == pytest.approx(-rows.loc["shorter", "estimate"], rel=0.1)
    assert "the judge's own rule" in rows["note"].iloc[0]
    assert "arm longer known (a rule)" in result.facts[0]


@pytest.mark.parametrize("prefer", ["more", "less"])
def test_a_rule_s_picks_are_known_in_both_orders(prefer: Literal["more", "less"]) -> None:
    names = [f"c{k}" for k in range(5)]
    zero = pd.DataFrame({"item_id": ["a"] * 5 + ["b"] * 2, "candidate_id": [*names, *names[:2]], "replicate": pd.NA})
    zero = zero.assign(
        **{name: [3.0, 1.0, 1.0, 2.0, 5.0, 4.0, 6.0] for name in FEATURES}, text=[f"t{k}" for k in range(7)]
    )
    evidence = rule_evidence(RuleJudgeSpec(feature="length", prefer=prefer), "rule", zero)
    picked = preferences(evidence.judgments, "consistent_only")
    value = zero.set_index(["item_id", "candidate_id"])["length"]
    gaps = [value[row.item_id, row.chosen] - value[row.item_id, row.rejected] for row in picked.itertuples()]
    assert all(gap > 0 for gap in gaps) if prefer == "more" else all(gap < 0 for gap in gaps)
    assert len(evidence.judgments) == 2 * (10 + 1)  # each of five with the two that follow it, and one pair
    assert len(gaps) == 10 + 1 - 1  # two are equally long


def test_real_data_from_a_file_are_measured(run_folder: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"item_id": name, "text": "word " * 400}) for name in ("capital", "sleep", "rain")]
    raw = small_experiment("http://127.0.0.1:9/v1", strategy={"real_fraction": 0.5, "real": "real.jsonl"})
    path = write_experiment(tmp_path, raw)
    (tmp_path / "real.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = forecast_command(run_folder / "run", 1, experiment=path, out=tmp_path / "f.csv").rows
    length = rows[rows["term"] == "forecast_drift_length"]["estimate"].iloc[0]
    assert length > 1.5  # half of what 400 tokens are above some 30


@pytest.mark.tables
def test_a_verdict_log_is_forecast_under_three_strategies(run_folder: Path, tmp_path: Path, capsys) -> None:
    judgments = pd.read_parquet(run_folder / "run" / "tables" / "judgments")
    texts = pd.read_parquet(run_folder / "run" / "tables" / "candidates")
    anchor = judgments[(judgments["panel"] == "anchor") & (judgments["generation"] == 0)]
    known = texts[texts["replicate"].isna()].set_index(["item_id", "candidate_id"])["text"]
    both = {slot: [known[(i, c)] for i, c in zip(anchor["item_id"], anchor[f"candidate_{slot}"], strict=True)] for slot in ("first", "second")}  # fmt: skip
    forward = (anchor["order"] == "ab").to_numpy()
    log = anchor[["item_id", "judge", "order", "verdict"]].assign(
        text_a=np.where(forward, both["first"], both["second"]), text_b=np.where(forward, both["second"], both["first"])
    )
    done = analyze(log, out=tmp_path / "log")
    result = forecast_command(done.path, 3)
    assert set(result.rows["arm"]) == {"replace", "accumulate", "replace-half-real"}
    assert "no experiment given" in result.facts[2]
    assert command("forecast", done.path, "--generations", "3") == 0
    shown = capsys.readouterr().out
    assert "planted, accumulate" in shown
    assert "95 % limits at g3" in shown
    assert command("forecast", done.path, "--generations", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["term"] == "forecast_drift_length"
    bare = analyze(log.drop(columns=["text_a", "text_b"]), out=tmp_path / "bare")
    with pytest.raises(InvalidInput, match="holds no texts"):
        forecast_command(bare.path, 3)
    few = analyze(log[log["item_id"].isin(log["item_id"].unique()[:6])], out=tmp_path / "few")
    rows = forecast_command(few.path, 3).rows
    assert set(rows["status"]) == {"undefined"}
    assert "6 items with a verdict" in rows["note"].iloc[0]


def test_what_cannot_be_forecast_is_said(run_folder: Path, tmp_path: Path) -> None:
    run = run_folder / "run"
    for changes in ({"generations": 0}, {"generations": 2, "replicates": 0}):
        with pytest.raises(InvalidInput):
            forecast_command(run, **changes)
    controls = small_experiment("http://127.0.0.1:9/v1", arms={"random": {"judge": {"kind": "random"}}})
    path = write_experiment(tmp_path, controls)
    with pytest.raises(InvalidInput, match="every arm's judge is random or gold"):
        forecast_command(run, 1, experiment=path)
    scores = small_experiment(
        "http://127.0.0.1:9/v1", judge={"kind": "reward", "endpoint": "m"}, policy={"kind": "pool", "endpoint": "m"},
        signal={"kind": "group_advantage"},
    )  # fmt: skip
    path = write_experiment(tmp_path, scores)
    with pytest.raises(InvalidInput, match=r"arms\.judge\.signal\.kind group_advantage: how scores answer to features"):
        forecast_command(run, 1, experiment=path)
    with pytest.raises(InvalidInput, match="not a run folder"):
        forecast_command(tmp_path / "nothing", 1)


def test_sparklines() -> None:
    assert sparkline([0, 1, 2], 0, 2) == "▁▅█"
    assert sparkline([0, -1], -1, 0) == "█▁"
    assert sparkline([0, 0.01], 0, 1) == "▁▁"
    assert sparkline([0.0, 0.0], 0, 0) == "▁▁"
    assert len(sparkline(list(range(100)), 0, 99)) == 24
