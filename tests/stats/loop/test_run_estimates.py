"""All estimates of a run from its tables: the contract's columns, families, reasons, and planted truth."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

import planted_run
from judgeloop.kernels import sigmoid
from judgeloop.records import CANDIDATE_COLUMNS, ESTIMATE_COLUMNS, ESTIMATE_KEY, JUDGMENT_COLUMNS
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import VERDICTS
from judgeloop.stats.inference import replicate_t
from judgeloop.stats.loop import diversity
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.stats.loop.panels import policy_panel_estimates
from judgeloop.stats.multiplicity import benjamini_hochberg
from judgeloop.text.features import FEATURES, features_frame

POSITION, LENGTH = 0.5, 1.0
ARMS = (ArmDesign("judge", "m"), ArmDesign("random", "random", is_control=True, judge_kind="random"))
DESIGN = Design("small", 0, 2, ARMS, (("judge", "random"),), ("judge", "random"))


def written(replicates: int = 3, items: int = 3, size: int = 4, words: int = 30) -> RunTables:
    """A small pool run with real texts and on-policy verdicts: the judge's arm drafts more words each generation."""
    parts, judged = [], []
    for replicate in range(replicates):
        for arm in ("judge", "random"):
            for t in range(3):
                texts, names = [], []
                for item in range(items):
                    # Generation 0 is shared by the arms.
                    stream = rng(0, "texts", replicate, t, item) if t == 0 else rng(0, "texts", replicate, t, item, arm)
                    for k in range(size):
                        count = words + int(stream.integers(20)) + (15 * t if arm == "judge" else 0)
                        texts.append(" ".join(f"w{n}" for n in stream.integers(200, size=count)))
                        names.append((f"i{item}", f"g{t}-{arm if t else ''}k{k}"))
                frame = features_frame(texts).assign(text=texts, replicate=replicate, arm=arm, generation=t)
                frame["item_id"], frame["candidate_id"] = [n[0] for n in names], [n[1] for n in names]
                frame["n_drawn"], frame["p_current"], frame["reason"] = 1, 1.0 / size, ""
                parts.append(frame)
                judged += _picks(frame, replicate, arm, t)
    candidates = pd.concat(parts, ignore_index=True)
    candidates["correct"] = (candidates["tokens"] % 2).astype(float)
    for name in CANDIDATE_COLUMNS:
        if name not in candidates:
            candidates[name] = np.nan
    items_table = pd.DataFrame(
        {"item_id": [f"i{k}" for k in range(items)], "category": ["x" if 2 * k < items else "y" for k in range(items)]}
    )
    return RunTables(
        items_table, candidates, pd.DataFrame(judged, columns=list(JUDGMENT_COLUMNS)), pd.DataFrame(), pd.DataFrame()
    )


def _picks(frame: pd.DataFrame, replicate: int, arm: str, t: int) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for item, part in frame.groupby("item_id"):
        for a, b in combinations(part.itertuples(), 2):
            for order, first, second in (("ab", a, b), ("ba", b, a)):
                p = (
                    float(sigmoid(np.array(POSITION + LENGTH * (first.length - second.length))))
                    if arm == "judge"
                    else 0.5
                )
                slot = "first" if p > 0.5 else "tie" if p == 0.5 else "second"
                rows.append((
                    replicate, arm, t, "policy", item, "", f"{a.candidate_id}-{b.candidate_id}", "m" if arm == "judge" else arm,
                    order, 0, slot, p, "", first.candidate_id, second.candidate_id, False, "", "",
                ))  # fmt: skip
    return rows


def only_row(frame: pd.DataFrame, **labels: Any) -> pd.Series:
    chosen = frame
    for name, value in {"category": "", "variant": "", **labels}.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1, (labels, len(chosen))
    return chosen.iloc[0]


@pytest.fixture(scope="module")
def tables() -> RunTables:
    return written(items=10)


@pytest.fixture(scope="module")
def estimates(tables: RunTables) -> pd.DataFrame:
    return run_estimates(tables, DESIGN)


def test_what_rounding_leaves_of_a_slot_blind_judge_is_no_taste_for_a_slot() -> None:
    """s(x) and s(−x) do not add up to 1 in every bit."""
    rows = []
    for replicate in range(6):
        margins = rng(0, "slot-blind", replicate).standard_normal(40)
        for n, x in enumerate(margins):
            for order, sign, first, second in (("ab", 1.0, "k0", "k1"), ("ba", -1.0, "k1", "k0")):
                p = float(sigmoid(np.array(sign * x)))
                rows.append((
                    replicate, "judge", 0, "policy", f"i{n}", "", f"p{n}", "m", order, 0, "first" if p > 0.5 else "second", p, "",
                    first, second, False, "", "",
                ))  # fmt: skip
    judgments = pd.DataFrame(rows, columns=list(JUDGMENT_COLUMNS))
    tables = RunTables(*[pd.DataFrame()] * 2, judgments, *[pd.DataFrame()] * 2)
    found = [row for row in policy_panel_estimates(tables, DESIGN) if row.term == "first_slot_excess"]
    assert (found[0].estimate, found[0].conf_low, found[0].conf_high) == (0.0, 0.0, 0.0)
    assert found[0].verdict == "none"


def test_the_contracts_columns_and_no_number_without_status(estimates: pd.DataFrame) -> None:
    assert list(estimates.columns) == list(ESTIMATE_COLUMNS)
    assert not estimates.duplicated(list(ESTIMATE_KEY)).any()
    assert (estimates["estimate"].isna() == (estimates["status"] == "undefined")).all()
    assert (estimates.loc[estimates["status"] == "undefined", "note"] != "").all()
    weak = estimates[estimates["status"] == "underpowered"]
    assert ((weak["note"] != "") | (weak["verdict"] == "undetected")).all()
    assert set(estimates["verdict"]) <= set(VERDICTS)
    assert (estimates.loc[estimates["verdict"] == "none", "margin"] > 0).all()
    assert (estimates.loc[estimates["detectable"].notna(), "verdict"].isin(["undetected", "unchanged"])).all()
    numbers = estimates[["estimate", "std_error", "conf_low", "conf_high", "p_value"]].to_numpy(dtype=float)
    assert not np.isinf(numbers).any()


def test_on_policy_rates_are_one_number_a_replicate(tables: RunTables, estimates: pd.DataFrame) -> None:
    judgments = tables.judgments.query("arm == 'judge' and generation == 1")
    length = tables.candidates.set_index(["replicate", "arm", "item_id", "candidate_id"])["length"].to_dict()
    excess, longer = [], []
    for replicate in range(3):
        of_pair: dict[tuple[str, str], list[float]] = {}
        picks = []
        for row in judgments[judgments["replicate"] == replicate].itertuples():
            of_pair.setdefault((row.item_id, row.pair_id), []).append(row.p_first)
            first = length[(replicate, "judge", row.item_id, row.candidate_first)]
            second = length[(replicate, "judge", row.item_id, row.candidate_second)]
            if first != second:
                picks.append(row.p_first if first > second else 1.0 - row.p_first)
        excess.append(np.mean([np.mean(both) - 0.5 for both in of_pair.values()]))
        longer.append(np.mean(picks))
    for term, values in (("first_slot_excess", excess), ("longer_preferred_raw", longer)):
        expected = replicate_t(values)
        row = only_row(estimates, term=term, scope="judge", arm="judge", generation=1, panel="policy")
        assert row["estimate"] == pytest.approx(expected.estimate)
        assert row["conf_high"] == pytest.approx(expected.high)
        assert row["n_replicates"] == 3
        assert row["judge"] == "m"
    log_odds = only_row(estimates, term="position_log_odds", arm="judge", generation=1, panel="policy")
    assert log_odds["estimate"] == pytest.approx(POSITION)
    assert only_row(estimates, term="first_slot_excess", arm="random", generation=2, panel="policy")["estimate"] == 0.0


def test_diversity_is_within_replicate_and_generation(tables: RunTables, estimates: pd.DataFrame) -> None:
    frame = tables.candidates
    zero = frame[(frame["generation"] == 0)]
    limit = diversity.truncation_length(zero["tokens"].tolist())
    window = diversity.mattr_window(limit)
    assert window == 30
    values = []
    for replicate in range(3):
        part = frame[(frame["replicate"] == replicate) & (frame["arm"] == "judge") & (frame["generation"] == 2)]
        scores = [diversity.mattr(text.split()[:limit], window) for text in part["text"]]
        values.append(np.mean([score for score in scores if score is not None]))
    row = only_row(estimates, term="mattr", arm="judge", generation=2)
    assert row["estimate"] == pytest.approx(np.mean(values))
    assert f"window {window}, first {limit} tokens" in row["note"]
    shared = only_row(estimates, term="mattr", arm="random", generation=0)["estimate"]
    assert only_row(estimates, term="mattr", arm="judge", generation=0)["estimate"] == shared
    for term in ("compression_ratio", "distinct_2", "vendi", "opener_entropy", "self_bleu", "phrase_repetition"):
        # Few replicates that happen to be equal have a level and no interval.
        row = only_row(estimates, term=term, arm="judge", generation=1)
        assert row["status"] == "ok" or "replicates are equal" in row["note"]
        assert only_row(estimates, term=f"did_{term}", arm="judge", generation=1)["status"] in ("ok", "underpowered")
        row = only_row(estimates, term=term, arm="judge", generation=1, category="x")
        assert row["status"] == "ok" or "replicates are equal" in row["note"]


def test_families(estimates: pd.DataFrame) -> None:
    confirmatory = estimates[estimates["family"] == "confirmatory"]
    assert set(confirmatory["term"]) == {"did_length", "did_style_score", "did_mattr"}
    assert set(confirmatory["generation"]) == {2}
    tested = confirmatory[confirmatory["p_value"].notna()]
    assert len(tested) == 2
    assert (tested["p_adjusted"] >= tested["p_value"]).all()
    did = estimates["term"].str.startswith("did_") & (estimates["variant"] == "")
    assert set(estimates.loc[did, "family"]) == {"confirmatory", "exploratory"}
    assert set(estimates.loc[~did, "family"]) == {"none", "exploratory"}
    # Every test is adjusted, and what describes has no p.
    with_p = estimates["p_value"].notna()
    assert (estimates.loc[with_p, "family"] != "none").all()
    assert (estimates.loc[with_p, "p_adjusted"] >= estimates.loc[with_p, "p_value"]).all()
    assert not estimates.loc[~with_p, "p_adjusted"].notna().any()
    tested = set(estimates.loc[with_p, "term"])
    assert {"drift_length", "did_length"} <= tested
    assert not {"selection_length", "mixing_length", "learning_length", "mean_length"} & tested
    of_arm = estimates[
        with_p & (estimates["arm"] == "judge") & (estimates["contrast"] == "") & (estimates["scope"] == "policy")
    ]
    assert of_arm["p_adjusted"].to_numpy() == pytest.approx(benjamini_hochberg(of_arm["p_value"].to_numpy()))
    path = estimates["term"].str.startswith(("trend_", "gradient_"))
    assert set(estimates.loc[path, "family"]) == {"exploratory"}


def test_the_planted_drift_is_seen(estimates: pd.DataFrame) -> None:
    row = only_row(estimates, term="did_length", arm="judge", contrast="random", generation=2)
    assert (row["verdict"], row["note"]) == ("drifting", "")
    assert row["conf_low"] > 0
    # 30 words more from about 40.
    assert row["estimate"] == pytest.approx(np.log2(70 / 40), abs=0.15)
    assert only_row(estimates, term="did_correct", arm="judge", generation=2)["unit"] == "probability"
    assert only_row(estimates, term="did_length", arm="judge", generation=2, category="y")["family"] == "exploratory"


def test_short_texts_and_small_sets_have_reasons() -> None:
    frame = run_estimates(written(replicates=2, items=2, size=2, words=1), DESIGN)
    assert "too short" in only_row(frame, term="did_mattr", arm="judge", generation=2)["note"]
    assert "needs 4" in only_row(frame, term="vendi", arm="judge", generation=1)["note"]


def test_one_replicate_has_no_interval() -> None:
    frame = run_estimates(written(replicates=1), DESIGN)
    row = only_row(frame, term="did_length", arm="judge", generation=2)
    assert row["status"] == "underpowered"
    assert (row["verdict"], row["note"]) == ("cannot_tell", "one replicate has no interval")
    assert np.isnan(row["conf_low"])
    policy = frame[(frame["scope"] == "policy") | (frame["panel"] == "policy")]
    assert policy["conf_low"].isna().all()
    assert policy["p_value"].isna().all()


def test_nothing_measured_is_undefined_everywhere() -> None:
    nothing = pd.DataFrame()
    frame = run_estimates(RunTables(nothing, nothing, nothing, nothing, nothing), DESIGN)
    assert len(frame) > 0
    assert set(frame["status"]) == {"undefined"}
    assert frame["estimate"].isna().all()


@pytest.mark.slow
def test_a_frozen_judge_has_no_drift_and_a_changed_one_has_its_own() -> None:
    texts, frozen = planted_run.anchor_panel(1, 60, 2)
    base = written()
    both = pd.concat([base.candidates, texts], ignore_index=True)
    design = Design("a", 0, 2, (ArmDesign("judge", "planted"), ARMS[1]), DESIGN.contrasts, DESIGN.confirmatory)
    judgments = pd.concat([base.judgments.assign(replicate=lambda f: f["replicate"].astype("Int64")), frozen])
    frame = run_estimates(RunTables(base.items, both, judgments, *[pd.DataFrame()] * 2), design)
    drift = frame[frame["term"].str.startswith("judge_drift_")]
    assert set(drift["generation"]) == {1, 2}
    assert set(drift["panel"]) == {"anchor"}
    assert (drift["estimate"] == 0.0).all()
    assert ((drift["conf_low"] <= 0) & (drift["conf_high"] >= 0)).all()
    assert {"first_slot_excess", "length_log_odds", "longer_preferred_raw"} <= set(
        frame.loc[frame["panel"] == "anchor", "term"]
    )
    assert (frame.loc[frame["panel"] == "anchor", "arm"] == "").all()
    described = drift["term"].isin(["judge_drift_order_agreement", "judge_drift_length_log_odds"])
    assert (drift.loc[~described, "verdict"] == "unchanged").all()

    # A taste turned round leaves every pair's excess as it was, and is no verdict given again.
    turned = frozen["generation"] == 2
    reverse = frozen[turned].rename(
        columns={"candidate_first": "candidate_second", "candidate_second": "candidate_first"}
    )
    reverse = reverse.assign(order=reverse["order"].map({"ab": "ba", "ba": "ab"}))[frozen.columns]
    judgments = pd.concat([frozen[~turned], reverse])
    frame = run_estimates(RunTables(base.items, both, judgments, *[pd.DataFrame()] * 2), design)
    slot = only_row(frame, term="judge_drift_first_slot_excess", generation=2)
    assert slot["estimate"] == pytest.approx(0.0, abs=1e-12)
    assert slot["verdict"] == "undetected"
    assert only_row(frame, term="judge_drift_first_slot_excess", generation=1)["verdict"] == "unchanged"

    _, changed = planted_run.anchor_panel(1, 60, 2, changes_at=2, position=0.8)
    frame = run_estimates(RunTables(base.items, both, changed, *[pd.DataFrame()] * 2), design)
    for term in ("first_slot_excess", "length_log_odds", "longer_preferred_raw"):
        assert only_row(frame, term=f"judge_drift_{term}", generation=1)["estimate"] == 0.0
    slot = only_row(frame, term="judge_drift_first_slot_excess", generation=2)
    levels = [only_row(frame, term="first_slot_excess", panel="anchor", generation=t)["estimate"] for t in (0, 2)]
    assert slot["estimate"] == pytest.approx(levels[1] - levels[0])
    assert slot["conf_low"] > 0.05
    slope = only_row(frame, term="judge_drift_length_log_odds", generation=2)
    fits = [
        only_row(frame, term="length_log_odds", panel="anchor", generation=t, variant="no_gold")["estimate"]
        for t in (0, 2)
    ]
    assert slope["estimate"] == pytest.approx(fits[1] - fits[0])
    assert slope["conf_low"] > 0


def test_tables_as_parquet_gives_them_are_read_alike(tables: RunTables, estimates: pd.DataFrame) -> None:
    """A dataset with panel rows reads replicate as float, empty text as NaN, and the rows in any order."""
    shuffled = tables.candidates.sample(frac=1.0, random_state=np.random.default_rng(0))
    mixed = tables.judgments.sample(frac=1.0, random_state=np.random.default_rng(1))
    as_read = RunTables(
        tables.items,
        shuffled.assign(replicate=shuffled["replicate"].astype("float64")),
        mixed.assign(replicate=mixed["replicate"].astype("float64")),
        tables.preferences,
        tables.signals,
    )
    again = run_estimates(as_read, DESIGN)
    pd.testing.assert_frame_equal(again, estimates, rtol=1e-9, atol=1e-12)


def test_a_trained_model_s_response_is_its_first_drift_over_what_was_selected() -> None:
    replicates = 6
    made, design = planted_run.loop(generations=2, replicates=replicates, items=6, size=8), planted_run.design(2)
    estimates = run_estimates(made, design)
    assert not estimates["term"].str.startswith("response_").any()
    judge = dataclasses.replace(design.arms[0], update="training")
    trained = run_estimates(made, dataclasses.replace(design, arms=(judge, *design.arms[1:])))
    found = only_row(trained, term="response_length", arm="judge", contrast="random")

    def mean(replicate: int, arm: str, generation: int, weight: str) -> float:
        rows = made.candidates.query("replicate == @replicate and arm == @arm and generation == @generation")
        return float(np.mean([np.average(item["length"], weights=item[weight]) for _, item in rows.groupby("item_id")]))

    moved = np.array([
        sum(sign * (mean(r, arm, 1, "n_drawn") - mean(r, arm, 0, "n_drawn")) for arm, sign in (("judge", 1), ("random", -1)))
        for r in range(replicates)
    ])  # fmt: skip
    selected = np.array([mean(r, "judge", 0, "p_selected") - mean(r, "judge", 0, "n_drawn") for r in range(replicates)])
    assert (found["generation"], found["verdict"], found["n_replicates"]) == (1, "", replicates)
    assert found["estimate"] == pytest.approx(moved.mean() / selected.mean())
    # Fieller: at a limit the mean of moved - limit * selected is t standard errors from 0.
    for limit in (found["conf_low"], found["conf_high"]):
        left = moved - limit * selected
        assert abs(left.mean()) == pytest.approx(
            stdtrit(replicates - 1, 0.975) * left.std(ddof=1) / np.sqrt(replicates)
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "reference", "doubled", "benchmark", "last"),
    [
        ("replace", "previous", False, 1.0, 1.0),
        ("accumulate", "previous", False, 0.531, 1.5929 / 6),
        ("replace", "base", False, 1 / 6, 1 / 6),
        ("replace", "previous", True, 1.0, 2.0),
    ],
)
def test_the_toy_loop_of_the_method_notes(
    strategy: str, reference: str, doubled: bool, benchmark: float, last: float
) -> None:
    """Row L: D_T against gold Tβ/τ = .90 and against random T(β + ρκ)/τ = 1.80 under replace, C_T its benchmark."""
    run_tables = planted_run.loop(11, items=8, strategy=strategy, reference=reference, doubled=doubled)
    frame = run_estimates(run_tables, planted_run.design(6, strategy=strategy, reference=reference))
    for contrast, under_replace in (("gold", 0.9), ("random", 1.8)):
        did = only_row(frame, term="did_length", arm="judge", contrast=contrast, generation=6)
        # Finite samples of a tilted Gaussian and 42 fits: four standard errors and 2 %.
        assert did["estimate"] == pytest.approx(
            under_replace * last, abs=4 * did["std_error"] + 0.02 * under_replace * last
        )
        index = only_row(frame, term="compounding_length", arm="judge", contrast=contrast)
        # Fieller's limits are at 2.4 delta-method errors; doubled, four seeds and two contrasts pass all but surely.
        low, high = (2 * index[side] - index["estimate"] for side in ("conf_low", "conf_high"))
        assert low < benchmark < high
        assert index["benchmark"] == pytest.approx(benchmark, abs=5e-4)
        words = ("amplifying", "steady", "saturating", "as its strategy", "compounding unclear")
        assert index["verdict"] in (("as its strategy", "saturating") if benchmark < 1 else words)
        static = only_row(frame, term="observed_over_static_length", arm="judge", contrast=contrast)
        if reference == "previous" and strategy == "replace":
            low, high = (2 * static[side] - static["estimate"] for side in ("conf_low", "conf_high"))
            assert low < 1.0 < high


@pytest.mark.slow
def test_a_million_candidate_rows_are_a_matter_of_seconds() -> None:
    """Pools: a row a text and generation, few of them drawn."""
    import time

    stream = rng(0, "many")
    count, pool = 31250, 32
    cells = pd.MultiIndex.from_product(
        [range(5), ("judge", "random"), range(5), range(count // 50)], names=["replicate", "arm", "generation", "item"]
    ).to_frame(index=False)
    frame = cells.loc[cells.index.repeat(pool)].reset_index(drop=True)
    frame["item_id"] = "i" + frame["item"].astype(str)
    frame["candidate_id"] = np.tile([f"k{k}" for k in range(pool)], len(cells))
    for name in FEATURES:
        frame[name] = stream.normal(size=len(frame))
    for name in ("p_current", "p_selected", "p_training"):
        frame[name] = 1.0 / pool
    frame["n_drawn"] = np.tile([1, 1] + [0] * (pool - 2), len(cells))
    frame["text"], frame["correct"] = "a b c", 1.0
    assert len(frame) == 1_000_000
    nothing = pd.DataFrame()
    started = time.perf_counter()
    result = run_estimates(RunTables(nothing, frame.drop(columns="item"), nothing, nothing, nothing),
                         Design("many", 0, 4, ARMS, DESIGN.contrasts, DESIGN.confirmatory))  # fmt: skip
    assert time.perf_counter() - started < 120
    assert only_row(result, term="mean_length", arm="judge", generation=0)["status"] == "ok"


@pytest.mark.parametrize(("match", "exact"), [("exact", True), ("judge", False)])
def test_a_category_s_gold_is_exact_where_its_references_are_matched_by_rule(match: str, exact: bool) -> None:
    tables = planted_run.loop(generations=1, replicates=2, items=2, size=2, pairs=20, anchor=40)
    coin = rng(0, "category's gold")
    judgments = tables.judgments[tables.judgments["generation"] == 0]
    golds = {item: str(coin.choice(["a", "b"])) for item in sorted(judgments["item_id"].unique())}
    judgments = judgments.assign(category="facts", gold=judgments["item_id"].map(golds))
    items = pd.DataFrame({"item_id": list(golds), "category": "facts", "reference": "x", "match": match})
    frame = run_estimates(
        dataclasses.replace(tables, items=items, judgments=judgments), planted_run.design(1)
    )  # fmt: skip
    rows = frame[(frame["category"] == "facts") & (frame["term"] == "length_ame") & (frame["variant"] == "")]
    assert len(rows) == 1
    assert rows["note"].str.contains("state --gold-exact").item() is not exact
