"""Figures and cases of judges that score or choose from lists, against plain loops over the same replies."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from judgeloop.report import cases, first_screen, rated_figures
from judgeloop.report.figure import Figure
from judgeloop.report.findings import findings
from judgeloop.report.reading import Reading, as_estimates
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge.listwise import choice_frame
from judgeloop.stats.judge.pointwise import score_frame
from rated_rows import BACK, TEN, world, worlds


def _reading(rows: tuple[Estimate, ...], texts: pd.DataFrame, **tables: pd.DataFrame) -> Reading:
    texts = texts.assign(text=[f"text {name} of {item}" for item, name in zip(texts["item_id"], texts["candidate_id"], strict=True)])  # fmt: skip
    items = pd.DataFrame({"item_id": texts["item_id"].unique()}).assign(prompt="Q", category="")
    nothing = pd.DataFrame()
    return Reading(
        "x", rows, items, texts.assign(replicate=None, arm=""), nothing, nothing, {}, {}, "", (), {}, **tables
    )


@pytest.fixture(scope="module")
def scored() -> Reading:
    scores, pairs, texts = world(60)
    rows = as_estimates(score_frame(scores, pairs, texts, (TEN, BACK)))
    return _reading(rows, texts, scores=scores, pairs=pairs)


@pytest.fixture(scope="module")
def chosen() -> Reading:
    choices, texts = worlds(sets=80, k=3, length=1.5)
    rows = as_estimates(choice_frame(choices, 3, texts))
    named = [row[f"candidate_{row['slot']}"] for _, row in choices.iterrows()]
    return _reading(rows, texts, choices=choices.assign(candidate_id=named, reason=""))


def _by_name(reading: Reading) -> dict[str, Figure]:
    return {figure.name: figure for figure in rated_figures.figures(reading)}


def test_the_histogram_counts_every_score(scored: Reading) -> None:
    figure = _by_name(scored)["scores"]
    assert [panel.title for panel in figure.panels] == ["Scale 1-10", "Scale 10-1"]
    for panel, name in zip(figure.panels, ("1-10", "10-1"), strict=True):
        (bars,) = panel.spec["data"]
        own = scored.scores.loc[scored.scores["scale"] == name, "score"]
        counts = Counter(own.tolist())
        assert bars["y"] == pytest.approx([100 * counts[float(place)] / len(own) for place in range(1, 11)])
        assert sum(bars["y"]) == pytest.approx(100)
        assert [colour == "@high" for colour in bars["marker"]["color"]] == [True, *[False] * 8, True]


def test_a_long_scale_has_few_bars_and_loses_no_score() -> None:
    places, shares = rated_figures.histogram(pd.Series([0.0, 3.0, 50.0, 99.9, 100.0]), 0, 100)
    assert len(places) == 21
    assert sum(shares) == pytest.approx(100)


def test_scores_by_length_are_means_of_fifths(scored: Reading) -> None:
    figure = _by_name(scored)["score-by-length"]
    (curve,) = figure.panels[0].spec["data"]
    lengths = scored.candidates.set_index(["item_id", "candidate_id"])["length"]
    own = scored.scores[scored.scores["scale"] == "1-10"]
    places = lengths.loc[list(zip(own["item_id"], own["candidate_id"], strict=True))].to_numpy()
    edges = np.quantile(places, [0.2, 0.4, 0.6, 0.8])
    fifth = np.array([sum(place >= edge for edge in edges) for place in places])
    assert curve["y"] == pytest.approx([own["score"].to_numpy()[fifth == n].mean() for n in range(5)])
    assert curve["y"][-1] > curve["y"][0]  # the planted taste for length
    assert all(row.unit == "score points" for row in figure.rows if row.variant.startswith("texts of"))


def test_shares_claim_nothing_and_stay_within_their_axis(scored: Reading) -> None:
    figure = _by_name(scored)["rating-shares"]
    *lines, dots = figure.panels[0].spec["data"]
    assert not {"@found"} & {*dots["marker"]["line"]["color"], *(line["line"]["color"] for line in lines)}
    assert all(0 <= value <= 100 for line in [*lines, dots] for value in line["x"])


def test_picks_by_the_place_of_length_are_those_of_a_plain_loop(chosen: Reading) -> None:
    figure = _by_name(chosen)["picks-by-rank"]
    (curve,) = figure.panels[0].spec["data"]
    lengths = chosen.candidates.set_index(["item_id", "candidate_id"])["length"]
    counts: Counter[int] = Counter()
    for _, row in chosen.choices.iterrows():
        names = [row[f"candidate_{slot}"] for slot in (1, 2, 3)]
        order = sorted(names, key=lambda name: lengths[row["item_id"], name])
        counts[order.index(names[row["slot"] - 1])] += 1
    assert curve["y"] == pytest.approx([100 * counts[n] / len(chosen.choices) for n in range(3)])
    assert figure.panels[0].spec["layout"]["shapes"][0]["y0"] == pytest.approx(100 / 3)


def test_the_first_screen_of_scores_alone_is_a_picture_of_them(scored: Reading) -> None:
    (figure,) = first_screen.figures(scored, findings(scored.estimates))
    assert figure.name == "first-scores"
    assert figure.sketch is not None
    assert sum(stroke.kind == "bar" for stroke in figure.sketch.strokes) == 10


def test_cases_of_scores_show_both_texts_with_their_scores(scored: Reading) -> None:
    (group,) = cases.groups(scored)
    assert group.name == "Scores, by chance"
    means = scored.scores[scored.scores["scale"] == "1-10"].groupby(["item_id", "candidate_id"])["score"].mean()
    for case in group.cases:
        assert [side.text for side in case.sides] == [f"text a of {case.title}", f"text b of {case.title}"]
        assert [side.detail for side in case.sides] == [f"score {means[case.title, name]:.2f}" for name in "ab"]


def test_a_pair_whose_higher_score_lost_is_a_case(scored: Reading) -> None:
    means = scored.scores[scored.scores["scale"] == "1-10"].groupby(["item_id", "candidate_id"])["score"].mean()
    item = next(name for name in scored.items["item_id"] if means[name, "a"] > means[name, "b"] + 1)
    fits = next(name for name in scored.items["item_id"] if means[name, "a"] < means[name, "b"] - 1)
    rows = [
        {"item_id": name, "pair_id": name, "judge": "j", "panel": "pairs", "order": order, "verdict": verdict, "replicate": pd.NA, "arm": "",
         "generation": pd.NA, "repeat": 0, "candidate_first": first, "candidate_second": second, "identical": False, "reason": ""}
        for name in (item, fits)
        for order, verdict, first, second in (("ab", "second", "a", "b"), ("ba", "first", "b", "a"))
    ]  # fmt: skip
    told = {group.name: group for group in cases.groups(replace(scored, judgments=pd.DataFrame(rows)))}
    assert [case.title for case in told["Scored higher, not picked"].cases] == [item]


def test_lists_where_one_slot_always_wins_are_cases(chosen: Reading) -> None:
    stuck = chosen.choices["item_id"] == "7"
    choices = chosen.choices.assign(slot=chosen.choices["slot"].where(~stuck, 2))
    choices["candidate_id"] = [row[f"candidate_{row['slot']}"] for _, row in choices.iterrows()]
    told = {group.name: group for group in cases.groups(replace(chosen, choices=choices))}
    always = {case.title for case in told["Always the same slot"].cases}
    plain = {str(item) for item, rows in choices.groupby("item_id") if rows["slot"].nunique() == 1}
    assert always <= plain
    assert len(always) == min(len(plain), cases.CHANGED)
    for case in told["Lists, by chance"].cases:
        assert sum(int(side.detail.split()[1]) for side in case.sides) == 3
