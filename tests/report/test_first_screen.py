"""The first screen: a headline that says no more than the verdicts, and pictures of the very estimates."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_folder
from judgeloop import report
from judgeloop.errors import InvalidInput
from judgeloop.report import first_screen, printed, text, wording
from judgeloop.report.answers import answers, headline
from judgeloop.report.claims import Standing
from judgeloop.report.findings import findings
from judgeloop.report.reading import Reading, read
from judgeloop.stats.estimate import Estimate, Verdict

_TASTE = re.compile(r"picks|prefers|leans|favours|is moved|scores")
_EFFECT = re.compile(r" made answers | moved |compounds|more alike")


def _row(term: str = "first_slot_excess", **changes: Any) -> Estimate:
    base = Estimate(
        scope="judge", bias="position", term=term, judge="j", panel="pairs", estimate=0.438, std_error=0.005, conf_low=0.427, conf_high=0.449,
        conf_level=0.95, n=240, n_items=240, unit="probability", verdict="found",
    )  # fmt: skip
    return replace(base, **changes)


def _did(**changes: Any) -> Estimate:
    base = Estimate(
        scope="policy", bias="verbosity", term="did_length", arm="judge", contrast="random", generation=3, estimate=1.0, std_error=0.1, conf_low=0.8,
        conf_high=1.2, conf_level=0.95, n=8, n_replicates=8, unit="doublings", family="confirmatory", p_adjusted=0.001, verdict="drifting",
    )  # fmt: skip
    return replace(base, **changes)


_UNSEEN = {
    "estimate": 0.11,
    "conf_low": -0.13,
    "conf_high": 0.35,
    "verdict": "undetected",
    "detectable": 0.64,
    "p_adjusted": 0.4,
}


def _reading(rows: list[Estimate], arms: tuple[str, ...] = ("judge", "random"), **controls: str) -> Reading:
    nothing = pd.DataFrame()
    return Reading(
        "x", tuple(rows), nothing, nothing, nothing, nothing, {}, {}, "", arms, {"random": "random", **controls}
    )


def _headline(rows: list[Estimate], **more: Any) -> str:
    reading, found = _reading(rows, **more), findings(rows)
    return headline(reading, found, answers(reading, found))


# -- what it says --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([_row(), _did(**_UNSEEN)], "j picks whatever comes first (94 : 6). Training on its picks changed nothing measurable against a coin (it could have seen 0.64 doublings or more)."),
        ([_row(estimate=-0.2, conf_low=-0.25, conf_high=-0.15)], "j prefers what comes last (30 : 70)."),
        ([_row(estimate=0.08, conf_low=0.06, conf_high=0.1)], "j leans to what comes first (58 : 42)."),
        ([_row(), _row("padding_probe", bias="verbosity", estimate=0.1, conf_low=0.08, conf_high=0.12)], "j picks whatever comes first (94 : 6) and favours padded copies (60 : 40)."),
        ([_row("slot_1_excess", estimate=0.171, conf_low=0.161, conf_high=0.181)], "j picks slot 1 of a list more often than its share (+17.1 points)."),
        ([_row("length_ame", bias="verbosity", estimate=-0.065, conf_low=-0.08, conf_high=-0.05)], "j favours shorter answers (−6.5 points a doubling)."),
        ([_did()], "Training on the picks made answers longer, by 1.00 doublings beyond a coin."),
        ([_did(estimate=-1.0, conf_low=-1.2, conf_high=-0.8)], "Training on the picks made answers shorter, by 1.00 doublings beyond a coin."),
        ([_row(), _did(n_replicates=None)], "j picks whatever comes first (94 : 6). Training on its picks made answers longer, by 1.00 doublings beyond a coin, in this one training run."),
        ([_did(), _did(term="compounding_length", generation=None, unit="ratio", estimate=1.5, conf_low=1.2, conf_high=1.8, verdict="amplifying")], "Training on the picks made answers longer, by 1.00 doublings beyond a coin, and the drift compounds."),
        ([_did(**_UNSEEN), _did(term="did_style_score", bias="style", unit="generation-0 sd", family="exploratory")], "Training on the picks moved style score by +1.00 SD beyond a coin."),
        ([_did(), _did(arm="accumulate", estimate=0.5, conf_low=0.3, conf_high=0.7)], "Training on the picks (arm judge) made answers longer, by 1.00 doublings beyond a coin."),
        ([_did(term="drift_length", contrast="", verdict="")], "What training on the picks changes was compared with no control."),
    ],
)  # fmt: skip
def test_the_headline_says_what_was_found_and_how_much(rows: list[Estimate], said: str) -> None:
    assert _headline(rows, arms=("judge", "accumulate", "random")) == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdict": "none", "estimate": 0.0, "conf_low": -0.01, "conf_high": 0.01, "margin": 0.05}, "j shows no bias beyond the margin (first slot picked)."),
        ({"verdict": "undetected", "estimate": 0.02, "conf_low": -0.03, "conf_high": 0.07, "detectable": 0.04}, "No bias of j was detected, which does not show that there is none."),
        ({"status": "underpowered", "verdict": "undetected", "estimate": 0.02, "conf_low": -0.3, "conf_high": 0.4}, "Too few data to tell whether j is biased."),
        ({"status": "underpowered"}, "Whether j is biased is open: what was seen is unconfirmed."),
        ({"verdict": "found_if_unscored_alike"}, "Whether j is biased is open: what was seen is unconfirmed."),
        ({"status": "undefined", "estimate": None, "conf_low": None, "conf_high": None, "verdict": ""}, "Whether j is biased is not known."),
    ],
)  # fmt: skip
def test_what_is_not_found_is_said_to_be_open(changes: dict[str, Any], said: str) -> None:
    assert _headline([_row(**changes)], arms=()) == said


_LIMITS = st.tuples(st.floats(-0.45, 0.44), st.floats(0.001, 0.4))


@given(_LIMITS, st.sampled_from(get_args(Verdict)), st.sampled_from(["ok", "underpowered", "undefined"]), st.booleans())
def test_a_taste_is_said_only_where_the_answer_is_yes(limits: tuple[float, float], verdict: Any, status: Any, refuted: bool) -> None:  # fmt: skip
    low, high = limits[0], sum(limits)
    row = _row(
        estimate=(low + high) / 2, conf_low=low, conf_high=high, verdict=verdict, status=status, family="confirmatory",
        p_adjusted=0.5 if refuted else 0.001,
    )  # fmt: skip
    reading, found = _reading([row], arms=()), findings([row])
    four = answers(reading, found)
    said = headline(reading, found, four)
    assert bool(_TASTE.search(said)) == (four[0].word == "Yes")
    assert " : " not in said or four[0].word == "Yes"


@given(_LIMITS, st.sampled_from(get_args(Verdict)), st.sampled_from(["ok", "underpowered", "undefined"]), st.sampled_from(["", "seen", "not_seen"]))  # fmt: skip
def test_an_effect_of_training_is_said_only_where_a_drift_is_found(limits: tuple[float, float], verdict: Any, status: Any, control: Any) -> None:  # fmt: skip
    low, high = limits[0], sum(limits)
    row = _did(
        estimate=(low + high) / 2,
        conf_low=low,
        conf_high=high,
        verdict=verdict,
        status=status,
        positive_control=control,
    )
    reading, found = _reading([row]), findings([row])
    four = answers(reading, found)
    assert bool(_EFFECT.search(headline(reading, found, four))) == four[1].word.startswith("Yes")


def test_one_replicate_shows_neither_an_effect_nor_that_there_is_none() -> None:
    alone = {"std_error": None, "conf_low": None, "conf_high": None, "n_replicates": 1, "p_adjusted": None}
    length = _did(**alone, status="underpowered", verdict="cannot_tell")
    others = [
        _did(**alone, term=f"did_{name}", status=status, verdict=verdict, family="exploratory")
        for name, status, verdict in [("bold", "undefined", ""), ("hedges", "underpowered", "cannot_tell")]
    ]
    assert _headline([length, *others]) == "What training on the picks changes is not known."
    tested = _did(term="did_emoji", family="exploratory", **_UNSEEN)
    (found,) = [finding for finding in findings([length, *others, tested]) if finding.several]
    assert (found.verdict, found.row.term) == ("undetected", "did_emoji")
    assert "any of 1 " in found.sentence


def test_nothing_is_said_of_the_positive_control() -> None:
    rows = [_did(**_UNSEEN), _did(arm="longer", positive_control="itself_seen")]
    said = _headline(rows, arms=("judge", "longer", "random"), longer="positive")
    assert said.startswith("Training on the picks changed nothing measurable against a coin")


def test_an_arm_that_learns_from_scores_is_not_said_to_learn_from_picks() -> None:
    rows = [_row(), _did()]
    by_scores = replace(_reading(rows), experiment={"signal": {"kind": "group_advantage"}})
    found = findings(rows)
    assert "Training on its scores made answers longer" in headline(by_scores, found, answers(by_scores, found))


def test_every_standing_has_its_words() -> None:
    for standing in get_args(Standing):
        assert wording.judge_headline("j", standing, ["picks x"]).endswith(".")
        said = wording.loop_headline(_did(), standing, "random")
        assert said.endswith(".")
        assert "{" not in said


# -- what it shows -------------------------------------------------------------------------------------------------------


def test_the_pictures_show_the_very_estimates(tmp_path: Path) -> None:
    folder = report_folder.write(tmp_path / "demo")
    reading = read(folder)
    known = set(reading.estimates)
    pictures = first_screen.figures(reading, findings(reading.estimates))
    assert [figure.name for figure in pictures] == ["first-biases", "first-drift"]
    for figure in pictures:
        assert set(figure.rows) <= known
        assert figure.sketch is not None
        marks = [stroke for stroke in figure.sketch.strokes if stroke.kind in ("mark", "hollow")]
        assert [re.sub(r"^(.*?: |judge, generation \d: )", "", stroke.words) for stroke in marks] == [
            f"{wording.quantity(row, row.estimate)}, {wording.interval(row)}" for row in figure.rows
        ]
    # The control that comes first, by arm and generation.
    assert {(row.arm, row.contrast, row.generation) for row in pictures[1].rows} == {("judge", "random", g) for g in (1, 2, 3)}  # fmt: skip


def test_marks_stand_where_the_numbers_say() -> None:
    rows = [_row(), _row("padding_probe", bias="verbosity", estimate=0.1, conf_low=0.02, conf_high=0.18)]
    drawn = first_screen.biases(findings(rows))
    assert drawn is not None
    (sketch,) = (figure.sketch for figure in first_screen.figures(_reading(rows, arms=()), findings(rows)))
    assert sketch is not None
    ticks = {label.words: label.x for label in sketch.labels if re.fullmatch(r"[+−]?\d+", label.words) and label.anchor == "middle"}  # fmt: skip
    unit = (ticks["+20"] - ticks["0"]) / 20
    (padding,) = (stroke for stroke in sketch.strokes if stroke.kind == "mark" and stroke.words.startswith("padding"))
    left, _ = re.match(r"M([\d.]+) ([\d.]+)", padding.path).groups()  # type: ignore[union-attr]
    assert float(left) + 6.5 - ticks["0"] == pytest.approx(10 * unit, abs=0.2)
    assert drawn.margin == 5.0


def test_a_share_of_picks_is_drawn_no_further_than_it_can_go() -> None:
    wide = _row(estimate=0.4, conf_low=0.1, conf_high=0.7)
    drawn = first_screen.biases(findings([wide]))
    assert drawn is not None
    assert drawn.dots[0].ends == (10.0, 50.0)
    assert first_screen.edge_of([70.0], [wide]) == 50.0
    assert "[10.0, 50.0]" in text.as_text(text.render_terminal(_reading([wide], arms=()), [], findings([wide]), []))


def test_what_rounding_leaves_of_0_has_an_axis_as_0_has() -> None:
    nothing = _row(estimate=-3.7e-18, conf_low=-3.7e-18, conf_high=-3.7e-18)
    assert first_screen.edge_of([-3.7e-16], [nothing]) == first_screen.edge_of([0.0], [nothing]) == 1.0
    assert "first" in text.as_text(text.render_terminal(_reading([nothing], arms=()), [], findings([nothing]), []))


def test_rates_alone_share_the_axis() -> None:
    rows = [_row(), _row("self_preference_log_odds", unit="log-odds", bias="self_preference")]
    drawn = first_screen.biases(findings(rows))
    assert drawn is not None
    assert [dot.row.term for dot in drawn.dots] == ["first_slot_excess"]


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_few_and_within(low: float, width: float) -> None:
    ticks = first_screen.ticks(low, low + width)
    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-6 <= tick <= low + width + 1e-6 for tick in ticks)


@given(st.floats(-60, 60), st.floats(0, 60), st.sampled_from([5.0, 20.0, 50.0]))
def test_a_bar_has_one_mark_on_the_right_side(centre: float, half: float, edge: float) -> None:
    row = _row(
        "length_ame",
        bias="verbosity",
        estimate=centre / 100,
        conf_low=(centre - half) / 100,
        conf_high=(centre + half) / 100,
    )
    track = text._track(first_screen.Dot("x", row, "found", ""), edge)
    assert track.count("●") == 1
    zero, place = len(track) // 2, track.index("●")
    assert (place - zero) * centre >= 0
    assert track[0] in "├●"
    assert track[-1] in "┤●"


@pytest.mark.parametrize("arms", [1, 4])
def test_the_terminal_fits_a_screen_and_says_all_that_should_change(arms: int) -> None:
    names = ("judge", "accumulate", "other", "longer")[:arms]
    rows = [_row(), *(_did(arm=arm, generation=g) for arm in names for g in (1, 2, 3))]
    reading = _reading(rows, arms=(*names, "random"), longer="positive")
    found = findings(rows)
    screen = text.as_text(text.render_terminal(reading, [("Items", "8")], found, []))
    assert len(screen.splitlines()) <= 40
    drift = [line for line in screen.splitlines() if "+1.00" in line and "├" in line]
    assert len(drift) == (3 if arms == 1 else 4)
    assert sum("(positive control)" in line for line in drift) == (arms == 4)
    wide = text.as_text(text.render_terminal(reading, [("Items", "8")], found, []), 1000)
    flat = " ".join(wide.split())
    for sentence in answers(reading, found)[3].sentences:
        assert " ".join(sentence.replace("`", "").split()) in flat


def test_what_the_first_screen_shows_is_not_drawn_again(tmp_path: Path) -> None:
    page = report.html(report_folder.write(tmp_path / "demo"))
    assert (
        page.index('id="figure-first-biases"') < page.index('id="figure-first-drift"') < page.index('class="answers"')
    )
    assert 'id="figure-judge-bias"' not in page
    assert ">Length, against random<" not in page
    assert ">Length, against gold<" in page


def test_without_a_browser_the_page_is_named_to_print_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInput, match=r"no Chromium is found .* print .*report\.html by hand"):
        printed.picture(tmp_path / "report.html", tmp_path / "report.png")
