"""Differences of two contenders: against slow twins, by invariants, and with planted truth."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from compare_case import THREE, Judges, contender, log, named
from judgeloop import seeds
from judgeloop.stats.compare.contenders import Contender, pair_values, with_pair_keys
from judgeloop.stats.compare.differences import differences, independent
from judgeloop.stats.estimate import Estimate, RowLabels
from judgeloop.stats.inference import Interval
from judgeloop.stats.judge.self_preference import self_preference_gold

# -- judges ---------------------------------------------------------------------------------------------------------------


def test_the_paired_difference_is_the_slow_obvious_one() -> None:
    """Pair by pair, in a loop: half the picks of both orders, less half; and the t interval over items of one pair each."""
    frames = [log({"m": (p, 0.3, 1.0)}, p, items=80) for p in (0.1, 0.9)]
    gaps = []
    verdicts = [list(zip(frame["pair_id"], frame["verdict"], strict=True)) for frame in frames]
    for pair in frames[0]["pair_id"].unique():
        excess = []
        for judged in verdicts:
            first = [verdict == "first" for name, verdict in judged if name == pair]
            excess.append(sum(first) / 2 - 0.5)
        gaps.append(excess[0] - excess[1])
    row = named(differences(*(contender(f"c{n}", frame) for n, frame in enumerate(frames))), "first_slot_excess").row
    assert row.estimate == pytest.approx(np.mean(gaps))
    assert row.std_error == pytest.approx(np.std(gaps, ddof=1) / math.sqrt(len(gaps)))
    assert row.conf_high == pytest.approx(np.mean(gaps) + stats.t.ppf(0.975, 79) * row.std_error)


def test_swapping_the_two_swaps_the_sign() -> None:
    a, b = (contender(name, log({name: THREE[name]}, name, items=60)) for name in ("good", "longy"))
    forward, backward = differences(a, b), differences(b, a)
    assert len(forward) == len(backward) > 5
    for difference, swapped in zip(forward, backward, strict=True):
        row, swapped_row = difference.row, swapped.row
        assert (row.term, row.variant) == (swapped_row.term, swapped_row.variant)
        assert row.estimate == pytest.approx(-swapped_row.estimate, abs=1e-12)  # type: ignore[operator]
        assert row.conf_low == pytest.approx(-swapped_row.conf_high, abs=1e-12)  # type: ignore[operator]


def test_the_same_judgments_twice_differ_by_nothing() -> None:
    frame = log({"m": (0.4, 0.4, 1.0)})
    rows = [difference.row for difference in differences(contender("a", frame), contender("b", frame))]
    rates = [row for row in rows if row.term != "length_ame"]
    assert rates
    assert all(row.estimate == 0 and row.verdict == "unchanged" for row in rates)
    # No item changes a difference of 0.
    assert all(row.status == "undefined" for row in rows if row.term == "length_ame")


def test_judges_that_differ_in_a_taste_for_one_length_are_not_called_alike() -> None:
    frames, draw = {}, seeds.rng(0, "compare one length")
    half = draw.standard_normal((250, 2))
    lengths = 7.0 + np.concatenate([half, -half])  # as many on either side, so that a taste for 7 has a slope of 0
    for name, taste in (("coin", 0.0), ("one length", 100.0), ("another coin", 0.0)):
        content = -taste * ((lengths[:, 0] - 7.0) ** 2 - (lengths[:, 1] - 7.0) ** 2)
        names = [f"i{k}" for k in range(500)]
        parts = [
            pd.DataFrame({
                "item_id": names, "pair_id": names, "judge": name, "order": order, "len_a": 2.0 ** lengths[:, 0],
                "len_b": 2.0 ** lengths[:, 1], "candidate_first": "a", "candidate_second": "b", "repeat": 0,
                "verdict": np.where(draw.logistic(size=500) < sign * content, "first", "second"),
            })
            for order, sign in (("ab", 1.0), ("ba", -1.0))
        ]  # fmt: skip
        judgments = with_pair_keys(pd.concat(parts, ignore_index=True), None)
        frames[name] = Contender(name, name, name, judgments=judgments, texts=None)
    for name, verdict in (("one length", "not_linear"), ("another coin", "none")):
        row = named(differences(frames["coin"], frames[name]), "length_ame", "no_gold").row
        assert (row.verdict, abs(row.estimate) < 0.02) == (verdict, True)


def test_pairing_gains_what_the_pairs_share() -> None:
    """Two judges that read the same noisy pairs alike: the paired interval of agreement with gold is the narrower one."""
    frames = [log({"m": (p, 0.0, 4.0)}, p, items=300) for p in (0.1, 0.2)]
    paired = named(differences(*(contender(str(n), frame) for n, frame in enumerate(frames))), "gold_agreement").row
    alone = [pair_values(contender("x", frame).judgments, None)["gold_agreement"] for frame in frames]
    assert paired.std_error < 0.9 * math.hypot(*(one.std() / math.sqrt(len(one)) for one in alone))  # type: ignore[operator]


def test_a_partly_shared_set_is_compared_on_what_is_shared() -> None:
    frames = [log({"m": (p, 0.3, 1.0)}, p, items=100) for p in (0.1, 0.9)]
    for kept, pairing in ((60, "pairs"), (40, "unpaired")):
        cut = frames[1].assign(
            text_a=np.where(frames[1]["item_id"].str[1:].astype(int) < kept, frames[1]["text_a"], "new")
        )
        found = differences(contender("a", frames[0]), contender("b", cut))
        if pairing == "pairs":
            assert named(found, "first_slot_excess").row.n == kept
        else:
            assert found == []  # contenders without estimates of their own bear nothing unpaired


def test_unscored_replies_probes_and_self_preference_are_compared() -> None:
    frame = log({"m": (0.3, 0.2, 1.0)}, items=60)
    models = {
        "model_a": np.where(np.arange(len(frame)) % 2, "m", "x"),
        "model_b": np.where(np.arange(len(frame)) % 2, "x", "m"),
    }
    frame = frame.assign(**models)
    lost = frame.assign(verdict=np.where(frame["item_id"].str[1:].astype(int) % 4 == 0, "unscored", frame["verdict"]))
    flat = log({"m": (0.3, 0.2, 0.0)}, "flat", items=60).assign(**models)
    found = differences(contender("a", lost), contender("b", frame))
    assert named(found, "unscored_share").row.estimate == pytest.approx(0.25)
    assert named(found, "first_slot_excess").row.estimate == 0
    assert named(found, "first_slot_excess").row.n == 45
    own = named(differences(contender("a", frame), contender("b", flat)), "self_preference_gold").row
    assert own.status != "undefined"
    assert "jackknife" in own.method
    probe = log({"m": (0.0, 0.0, 0.0)}, "p", items=100).assign(panel="probe", probe="padding", dose=1.5)
    fond = probe.assign(verdict=np.where(probe["order"] == "ab", "second", "first"))  # always the edit, candidate b
    both = differences(contender("a", pd.concat([frame, fond])), contender("b", pd.concat([frame, probe])))
    gap = named(both, "padding_probe").row
    assert gap.conf_low > 0.3  # type: ignore[operator]
    assert gap.bias == "verbosity"


# -- independent samples --------------------------------------------------------------------------------------------------


def test_independent_samples_by_welch_and_by_mover() -> None:
    rng = seeds.rng(0, "welch")
    a, b = rng.normal(0.3, 1, 9), rng.normal(0, 2, 14)

    def row(x: np.ndarray) -> Estimate:
        return Estimate(
            scope="policy",
            bias="style",
            term="t",
            estimate=float(x.mean()),
            std_error=float(x.std(ddof=1) / math.sqrt(len(x))),
            n_replicates=len(x),
        )

    welch = independent(row(a), row(b))
    test = stats.ttest_ind(a, b, equal_var=False)
    assert isinstance(welch, Interval)
    assert welch.p_value == pytest.approx(test.pvalue)
    assert (welch.low, welch.high) == pytest.approx(tuple(test.confidence_interval()))
    # Newcombe (1998), method 10, example (a): 56/70 and 48/80 by Wilson's limits give 0.0524 to 0.3339.
    first, second = (
        Estimate(scope="judge", bias="position", term="t", estimate=k / n, std_error=0.0, conf_low=low, conf_high=high)
        for k, n, low, high in ((56, 70, 0.6918, 0.8772), (48, 80, 0.4904, 0.7004))
    )  # fmt: skip
    mover = independent(first, second)
    assert isinstance(mover, Interval)
    assert (mover.low, mover.high) == pytest.approx((0.0524, 0.3339), abs=0.002)


def test_a_difference_claims_no_more_than_the_folders_do() -> None:
    a, b = (contender(name, log({name: THREE[name]}, name, items=60)) for name in ("good", "longy"))

    def length(*status: str) -> dict[str, Any]:
        pair = [
            dataclasses.replace(one, rows=tuple(
                Estimate(scope="judge", bias="verbosity", term="length_ame", variant=variant, status=value)  # type: ignore[arg-type]
                for variant, value in zip(("", "given_gold"), status, strict=False)
            ))
            for one in (a, b)
        ]  # fmt: skip
        return {one.row.variant: one.row.status for one in differences(*pair) if one.row.term == "length_ame"}

    assert set(length()) == {"", "no_gold"}
    assert set(length("ok")) == {"", "no_gold"}
    assert set(length("undefined", "ok")) == {"given_gold", "no_gold"}
    assert set(length("undefined")) == {"no_gold"}


@pytest.mark.slow
@pytest.mark.parametrize(("matchups", "replications"), [(1, 100), (3, 200)])
def test_paired_intervals_cover_the_planted_difference(matchups: int, replications: int) -> None:
    """100 pairs of judges, and 200 where items have several pairs: the truth by a million draws of pairs; coverage within Monte-Carlo error of 95 %."""
    worlds: Judges = {"a": (0.2, 0.2, 1.0), "b": (0.8, 0.6, 1.5)}
    rng = seeds.rng(0, "truth of a comparison")
    lengths, quality = rng.integers(20, 300, size=(1_000_000, 2)), rng.standard_normal(1_000_000)
    margin = np.log2(lengths[:, 0] / lengths[:, 1])
    truth: dict[str, float] = {}
    for sign, (position, slope, kappa) in zip((1.0, -1.0), worlds.values(), strict=True):
        ab, ba = (1 / (1 + np.exp(-(position + s * (slope * margin + kappa * quality)))) for s in (1.0, -1.0))
        right = np.where(quality > 0, (ab + 1 - ba) / 2, 1 - (ab + 1 - ba) / 2)
        for term, value in (
            ("first_slot_excess", (ab + ba) / 2 - 0.5),
            ("gold_agreement", right),
            ("conflict_rate", ab * ba + (1 - ab) * (1 - ba)),
        ):
            truth[term] = truth.get(term, 0.0) + sign * float(value.mean())
    inside = dict.fromkeys(truth, 0)
    for replication in range(replications):
        frames = [
            log({name: world}, (replication, name), texts=replication, items=60, matchups=matchups)
            for name, world in worlds.items()
        ]
        keyed = [frame.assign(pair_key=frame["pair_id"], panel="pairs", repeat=0) for frame in frames]
        found = differences(
            *(Contender(name, name, name, judgments=frame) for name, frame in zip(worlds, keyed, strict=True))
        )
        for term, value in truth.items():
            row = named(found, term).row
            inside[term] += row.conf_low <= value <= row.conf_high  # type: ignore[operator]
    for term, count in inside.items():
        assert abs(count / replications - 0.95) <= 0.02 + 3 * math.sqrt(0.95 * 0.05 / replications), (term, count)


def test_the_self_preference_jackknife_is_that_of_the_reported_estimate_on_fewer_items() -> None:
    frame = log({"m": (0.3, 0.2, 1.0)}, items=24)
    odd = np.arange(len(frame)) % 2
    models = {"model_a": np.where(odd, "m", "x"), "model_b": np.where(odd, "x", "m")}
    tables = [frame.assign(**models), log({"m": (0.3, 0.2, 0.0)}, "flat", items=24).assign(**models)]
    row = named(differences(contender("a", tables[0]), contender("b", tables[1])), "self_preference_gold").row

    def gap(out: str) -> float:
        one, other = (
            self_preference_gold(table[table["item_id"] != out], RowLabels("m"))[0].estimate for table in tables
        )  # fmt: skip
        assert one is not None
        assert other is not None
        return one - other

    left_out = np.array([gap(item) for item in sorted(tables[0]["item_id"].unique())])
    assert row.estimate == pytest.approx(gap(""), abs=1e-12)
    spread = math.sqrt(23 / 24 * np.sum((left_out - left_out.mean()) ** 2))
    assert row.std_error == pytest.approx(spread, rel=1e-9)
