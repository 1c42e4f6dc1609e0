"""The report's sentences, tables and files: each claims no more than its estimate, and all outputs say the same."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_folder
from judgeloop import report
from judgeloop.errors import FolderMismatch
from judgeloop.interchange.preferences import net_preferences
from judgeloop.report import cases, model_figures, wording
from judgeloop.report.answers import answers, headline
from judgeloop.report.claims import QUESTIONS, leading, verdict_name, verdict_of
from judgeloop.report.figure import colours, styles
from judgeloop.report.findings import findings
from judgeloop.report.reading import Reading, as_estimates, read, record, select
from judgeloop.report.tables import drift_table, facts, forecast_table
from judgeloop.rundir import RunFolder
from judgeloop.stats.estimate import Estimate, Verdict, estimates_frame

pytestmark = pytest.mark.pages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return report_folder.write(tmp_path_factory.mktemp("runs") / "demo")


def _position(**changes: Any) -> Estimate:
    base = Estimate(
        scope="judge", bias="position", term="first_slot_excess", judge="j", panel="pairs", estimate=0.123, std_error=0.016,
        conf_low=0.091, conf_high=0.154, conf_level=0.95, n=240, unit="probability",
    )  # fmt: skip
    return replace(base, **changes)


def _did(**changes: Any) -> Estimate:
    base = Estimate(
        scope="policy", bias="verbosity", term="did_length", arm="judge", contrast="random", generation=3, estimate=1.0, std_error=0.1,
        conf_low=0.8, conf_high=1.2, conf_level=0.95, n=8, n_replicates=8, unit="doublings", family="confirmatory", p_adjusted=0.001,
        verdict="drifting",
    )  # fmt: skip
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("row", "verdict", "words"),
    [
        (_position(), "found", "first slot: picked 62.3 % of the time (even: 50 %), 95 % interval 59.1 to 65.4"),
        (_position(estimate=-0.1, conf_low=-0.12, conf_high=-0.08), "found", "picked 40.0 % of the time (even: 50 %), 95 % interval 38.0 to 42.0"),
        (_position(p_adjusted=0.2, family="exploratory"), "unconfirmed", "not after correction for several tests (adjusted p = 0.2)"),
        (_position(status="underpowered"), "unconfirmed", "too small to rely on"),
        (_position(estimate=0.01, conf_low=-0.03, conf_high=0.05), "equivalent", "no effect of practical size"),
        (_position(estimate=0.03, conf_low=-0.03, conf_high=0.09), "undetected", "does not show that there is none"),
        (_position(estimate=0.02, conf_low=-0.03, conf_high=0.07, verdict="none", margin=0.08), "equivalent", "within ±8.0 points of even"),
        (
            _position(estimate=0.02, conf_low=-0.2, conf_high=0.24, status="underpowered", verdict="undetected", margin=0.05, detectable=0.3),
            "underpowered",
            "too few data to tell, picked 52.0 % of the time (even: 50 %), 95 % interval 30.0 to 74.0; this sample could have seen 30.0 points or more",
        ),
        (_position(estimate=None, conf_low=None, conf_high=None, status="undefined", note="no complete pair"), "undefined", "undefined: no complete pair"),
        (_did(), "found", "length: drifted 1.00 doublings above the control (100 % more tokens), 95 % interval 0.80 to 1.20"),
        (_did(estimate=-1.0, conf_low=-1.2, conf_high=-0.8), "found", "drifted 1.00 doublings below the control (50 % fewer tokens)"),
        (_did(conf_low=-0.2, estimate=0.1, conf_high=0.4, status="underpowered", verdict="undetected", detectable=0.31), "undetected", "no drift detected, 95 % interval −0.20 to 0.40 doublings; this run could have seen 0.31 doublings or more"),
        (_did(estimate=0.01, conf_low=0.002, conf_high=0.018, verdict="none", margin=0.05), "equivalent", "within ±0.050 doublings"),
        (_did(status="underpowered", conf_low=-0.1, conf_high=2.1, verdict="undetected"), "underpowered", "too few data"),
        (_did(p_adjusted=0.06, verdict="cannot_tell"), "unconfirmed", "adjusted p = 0.06"),
        (_did(p_adjusted=0.06), "unconfirmed", "adjusted p = 0.06"),
        (_did(estimate=9.0, conf_low=-900.0, conf_high=920.0, status="underpowered", verdict="undetected", detectable=1230.0), "undetected", "this run could have seen 1230.00 doublings or more"),
    ],
)  # fmt: skip
def test_a_sentence_claims_no_more_than_its_estimate(row: Estimate, verdict: str, words: str) -> None:
    (finding,) = findings([row])
    assert finding.verdict == verdict
    assert words in finding.sentence
    assert finding.sentence.endswith(".")
    assert finding.row is row


@given(
    estimate=st.floats(-0.4, 0.4), half=st.floats(0.0, 0.5), status=st.sampled_from(["ok", "underpowered"]),
    verdict=st.sampled_from(["", "undetected"]),
)  # fmt: skip
def test_an_underpowered_or_open_interval_is_never_called_none_nor_found(
    estimate: float, half: float, status: Any, verdict: Any
) -> None:
    row = _position(estimate=estimate, conf_low=estimate - half, conf_high=estimate + half, status=status)
    if estimate - half <= 0 <= estimate + half:
        row = replace(row, verdict=verdict, detectable=0.1 if verdict else None)
    (finding,) = findings([row])
    if status == "underpowered":
        assert finding.verdict not in ("found", "equivalent")
    if estimate - half <= 0 <= estimate + half:
        assert finding.verdict not in ("found", "unconfirmed")
    if finding.verdict == "equivalent":
        assert max(abs(estimate - half), abs(estimate + half)) <= 0.05
    assert "no bias" not in finding.sentence


def test_an_undefined_part_keeps_a_question_from_being_called_none() -> None:
    padded = _position(term="padding_probe", bias="verbosity", estimate=0.0, conf_low=-0.01, conf_high=0.01)
    joint = Estimate(
        scope="judge",
        bias="style",
        term="style_joint",
        judge="j",
        panel="pairs",
        status="undefined",
        note="gold does not identify it",
    )
    assert leading(findings([padded])).verdict == "equivalent"
    assert leading(findings([padded, joint])).verdict == "undefined"


@pytest.mark.parametrize(
    ("word", "standing", "said"),
    [
        ("amplifying", "found", "amplifying: later loops add more than the first did"),
        ("steady", "described", "steady: every loop adds about as much as the first"),
        ("compounding unclear", "unclear", "this run does not show"),
        ("undetected", "unclear", "of a drift that is itself not shown"),
        ("", "described", "compounding index 1.30"),
    ],
)
def test_compounding_words_come_from_the_statistics(word: Verdict, standing: str, said: str) -> None:
    row = _did(
        term="compounding_length",
        generation=None,
        unit="ratio",
        estimate=1.3,
        conf_low=1.1,
        conf_high=1.5,
        verdict=word,
    )
    (finding,) = findings([row])
    assert (finding.verdict, finding.word) == (standing, word)
    assert said in finding.sentence


def test_diversity_sentences_know_which_way_is_less_varied() -> None:
    for term, estimate, words in (
        ("did_mattr", -0.03, "less varied"),
        ("did_compression_ratio", 0.03, "less varied"),
        ("did_vendi", 0.5, "more varied"),
    ):
        row = _did(
            term=term,
            bias="diversity",
            unit="raw",
            estimate=estimate,
            conf_low=estimate - 0.01,
            conf_high=estimate + 0.01,
        )
        (finding,) = findings([row])
        assert finding.question == "diversity"
        assert words in finding.sentence


def test_control_judges_and_later_generations_have_no_findings() -> None:
    rows = [
        _position(panel="anchor", generation=g, judge=judge, estimate=0.1 + g / 100, conf_low=0.08, conf_high=0.2)
        for g in (2, 0, 1) for judge in ("random", "m1", "m2")
    ]  # fmt: skip
    found = findings(rows)
    assert [(f.row.judge, f.row.generation) for f in found] == [("m1", 0), ("m2", 0)]
    assert findings(estimates_frame(rows)) == findings(as_estimates(estimates_frame(rows)))


def test_every_output_has_the_same_sentences(folder: RunFolder) -> None:
    paths = report.write(folder)
    found = findings(folder.estimates())
    content = json.loads(paths.json.read_text(encoding="utf-8"))
    assert [f["sentence"] for f in content["findings"]] == [f.sentence for f in found]
    plain = paths.markdown.read_text(encoding="utf-8").replace("\\", "")
    page = paths.html.read_text(encoding="utf-8").replace("&#x27;", "'").replace("\u00a0", " ")
    screen = " ".join(re.sub(r"\s+", " ", report.summary(folder, width=400)).split())
    for finding in found:
        row, name = finding.row, wording.term_name(finding.row.term).removesuffix(" beyond control")
        cells = (verdict_name(finding), row.arm, row.contrast, name, wording.cell(row))
        assert finding.sentence in plain or f"| {' | '.join(cells)} |" in plain
        assert finding.sentence in page
    assert answers(read(folder), found)[3].sentences[0].replace("`", "") in screen
    assert content["headline"] in screen
    assert content["headline"].replace(" : ", "\u00a0:\u00a0") in paths.html.read_text(encoding="utf-8")
    assert {f.question for f in found} >= set(QUESTIONS) - {"self_preference", "quality"}
    keys = {tuple(f["estimate"].items()) for f in content["findings"]}
    rows = {tuple((k, row[k]) for k in content["findings"][0]["estimate"]) for row in content["estimates"]}
    assert keys <= rows
    assert len(content["estimates"]) == len(folder.estimates())


def test_the_same_folder_gives_the_same_bytes(folder: RunFolder) -> None:
    first = [path.read_bytes() for path in vars_of(report.write(folder))]
    assert first == [path.read_bytes() for path in vars_of(report.write(folder))]


def vars_of(paths: report.ReportPaths) -> tuple[Path, Path, Path]:
    return paths.html, paths.markdown, paths.json


def test_the_summary_is_one_screen(folder: RunFolder) -> None:
    lines = report.summary(folder).splitlines()
    assert 24 <= len(lines) <= 40
    (slot,) = select(read(folder).estimates, term="first_slot_excess", generation=0, category="")
    picked = round(50 + 100 * (slot.estimate or 0.0))
    said = f"small-judge leans to what comes first ({picked} : {100 - picked})"
    assert next(n for n, line in enumerate(lines) if said in line) < 5
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    (row,) = (line for line in lines if line.startswith("first slot "))
    assert row.count("●") == 1
    low, high = (f"{100 * (end or 0.0):.1f}" for end in (slot.conf_low, slot.conf_high))
    assert row.split()[-3:] == [f"+{picked - 50}", f"[{low},", f"{high}]"]
    for part in (
        "demo",
        "judge, random (control), gold (control)",
        "replicates 5",
        "generations 0 to 3",
        "model calls 4,321",
        "unscored",
        "Drift of length beyond random",
        "Yes, saturating",
    ):
        assert part in " ".join(text.split())


def test_tables_of_markdown_are_well_formed(folder: RunFolder) -> None:
    text = report.write(folder).markdown.read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) >= 4
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert drift_table(read(folder)) is not None
    assert "0.60 [0.51, 0.69]" in text.replace("\\", "")


def test_the_forecast_stands_beside_what_came_and_pairs_of_equal_texts_are_counted() -> None:
    def row(term: str, generation: int, value: float, **columns: Any) -> Estimate:
        return Estimate(
            scope="policy", bias="verbosity", term=term, arm="judge", generation=generation, estimate=value, conf_low=value - 0.5,
            conf_high=value + 0.5, conf_level=0.95, unit="doublings", **columns,
        )  # fmt: skip

    rows = [
        row("forecast_drift_length", 1, 0.5), row("forecast_drift_length", 2, 1.0),
        row("forecast_drift_length", 2, 0.8, variant="first_step"), row("response_length", 1, 0.8, contrast="coin"),
        row("response_length", 1, 8.0, contrast="gold"), row("drift_length", 1, 9.0), row("drift_length", 2, 9.0),
        row("did_length", 1, 0.4, contrast="coin"), row("did_length", 2, 0.9, contrast="coin"), row("did_length", 1, 7.0, contrast="gold"),
    ]  # fmt: skip
    nothing = pd.DataFrame()
    judgments = pd.DataFrame(
        {
            "arm": "judge",
            "replicate": 0,
            "generation": 0,
            "item_id": "i",
            "panel": ["policy"] * 4 + ["anchor"],
            "pair_id": ["m0", "m0", "m1", "m1", "m2"],
            "identical": [True, True, False, False, True],
            "verdict": "first",
        }
    )
    reading = Reading("x", tuple(rows), nothing, nothing, judgments, nothing, {}, {}, "", ("judge", "coin"), {})
    table = forecast_table(reading)
    assert table is not None
    assert [cells[1:3] + cells[4:6] for cells in table.rows] == [
        ("1", "0.50 [0.00, 1.00]", "0.40 [−0.10, 0.90]", "coin"), ("2", "1.00 [0.50, 1.50]", "0.90 [0.40, 1.40]", "coin"),
    ]  # fmt: skip
    assert (table.rows[1][3], table.rows[0][6]) == ("0.80 [0.30, 1.30]", "0.80 [0.30, 1.30]")
    without_control = forecast_table(replace(reading, estimates=tuple(row for row in rows if not row.contrast)))
    assert without_control is not None
    assert [cells[3:] for cells in without_control.rows] == [
        ("–", "9.00 [8.50, 9.50]"),
        ("0.80 [0.30, 1.30]", "9.00 [8.50, 9.50]"),
    ]
    assert forecast_table(replace(reading, estimates=tuple(rows[3:]))) is None
    assert dict(facts(reading))["Pairs of equal texts"] == "1 of 2, which prefer neither"


def test_replicates_drawn_are_those_that_the_estimates_average(folder: RunFolder) -> None:
    """A plain loop over the candidates gives the same drift for every replicate."""
    reading = read(folder)
    traces = model_figures.replicate_drifts(reading)
    table = reading.candidates[reading.candidates["replicate"].notna()]
    for row in traces[traces["feature"] == "length"].sample(8, random_state=0).to_dict("records"):
        level = {}
        for generation in (0, row["generation"]):
            part = table[
                (table["replicate"] == row["replicate"])
                & (table["arm"] == row["arm"])
                & (table["generation"] == generation)
            ]
            level[generation] = np.mean([items["length"].mean() for _, items in part.groupby("item_id")])
        assert row["drift"] == pytest.approx(level[row["generation"]] - level[0], abs=1e-9)


def test_flips_are_flips_and_changed_outputs_changed(folder: RunFolder) -> None:
    reading = read(folder)
    flips = cases.flips(reading)
    assert 0 < len(flips) <= cases.FLIPS
    assert len({case.title for case in flips}) == len(flips)
    judged = reading.judgments
    for case in flips:
        pairs = judged[(judged["item_id"] == case.title) & (judged["panel"] == "anchor")]
        slots = pairs.groupby("generation")["verdict"].agg(set).tolist()
        assert {"first"} in slots or {"second"} in slots
    changed = cases.changed(reading)
    assert 0 < len(changed) <= cases.CHANGED
    for case in changed:
        first, last = (int(case.sides[end].detail.split()[0]) for end in (0, -1))
        assert ("grew" if last > first else "shrank") in case.what
    assert all([side.heading for side in case.sides] == [f"Generation {g}" for g in range(4)] for case in changed)
    assert all("Arm judge" in case.what for case in changed)


def test_a_case_shows_the_drawn_output_of_median_length(folder: RunFolder) -> None:
    """By plain loops: the shorter middle one of an item's draws, and the largest change first, up or down."""
    reading = read(folder)
    table = reading.candidates
    sizes: dict[tuple[int, str], dict[int, float]] = {}
    for row in table[(table["arm"] == "judge") & (table["n_drawn"].fillna(0) > 0)].to_dict("records"):
        place = sizes.setdefault((int(row["replicate"]), str(row["item_id"])), {})
        if int(row["generation"]) not in place:
            same = table[
                (table["arm"] == "judge") & (table["replicate"] == row["replicate"])
                & (table["item_id"] == row["item_id"]) & (table["generation"] == row["generation"])
            ]  # fmt: skip
            drawn = sorted(v for v, n in zip(same["length"], same["n_drawn"].fillna(0), strict=True) for _ in range(n))
            place[int(row["generation"])] = drawn[(len(drawn) - 1) // 2]
    changes = {place: known[3] - known[0] for place, known in sizes.items() if {0, 3} <= set(known)}
    case = cases.changed(reading)[0]
    largest = max(changes.values(), key=abs)
    assert f"{'grew' if largest > 0 else 'shrank'} by {abs(largest):.2f} doublings" in case.what


def test_figures_are_valid_plotly_figures_in_both_themes(folder: RunFolder) -> None:
    for dark in (False, True):
        made = report.figures(folder, dark=dark)
        assert {
            "judge-bias",
            "drift/Length",
            "drift-beyond-control/Length, against random",
            "price-length/Arm judge",
        } <= set(made)
        assert not any('"@' in figure.to_json() for figure in made.values())


def test_arms_keep_one_look_and_differ() -> None:
    arms = [f"a{n}" for n in range(8)]
    looks = styles([*arms, "random", "gold"], {"random": "random", "gold": "gold"})
    assert len({(s.colour, s.marker, s.dash) for s in looks.values()}) == 10
    for name in ("light", "dark"):
        known = colours(dark=name == "dark")
        assert all(s.colour.removeprefix("@") in known for s in looks.values())


def test_empty_and_partial_folders(tmp_path: Path) -> None:
    bare = RunFolder(tmp_path / "bare")
    bare.write_text("experiment.yaml", "name: bare\narms: {a: {}}\n")
    with pytest.raises(FolderMismatch, match="no estimates"):
        report.write(bare)
    bare.write_estimates(estimates_frame([]))
    assert "bare" in report.summary(bare)
    assert report.write(bare).html.stat().st_size > 1_000_000
    bare.write_estimates(estimates_frame([_position(generation=None), _did()]))
    page = report.write(bare).html.read_text(encoding="utf-8")
    assert "picked 62.3 % of the time" in page.replace("\u00a0", " ")
    assert "Cases to read" not in page


def test_estimates_survive_the_frame_and_the_file(folder: RunFolder) -> None:
    rows = report_folder.estimates()
    assert list(as_estimates(estimates_frame(rows))) == rows
    assert list(read(folder).estimates) == rows
    assert json.dumps(record(rows[0]))
    with pytest.raises(ValueError, match="lack the columns"):
        as_estimates(pd.DataFrame({"term": ["x"]}))


@given(st.text(max_size=60))
def test_labels_are_one_short_encodable_line(text: str) -> None:
    line = wording.label(text, 20)
    assert len(line) <= 20
    assert "\n" not in line
    line.encode("utf-8")


def test_numbers_in_words() -> None:
    assert wording.number(-0.5) == "−0.50"
    assert wording.number(-0.001) == "0.00"
    assert wording.signed(0.25) == "+0.25"
    assert wording.p_value(0.0004) == "p < 0.001"
    assert wording.cell(_position()) == "62.3 [59.1, 65.4]"
    assert wording.cell(_position(conf_high=0.6)) == "62.3 [59.1, 100.0]"
    assert wording.cell(_position(term="judge_drift_first_slot_excess")) == "12.3 [9.1, 15.4]"
    assert wording.cell(None) == ""
    assert verdict_of(_position(conf_low=None, conf_high=None), 0.05) == "described"
    assert wording.term_name("did_list_items") == "Drift of list items beyond control"


def test_arms_that_trained_on_nothing_or_on_less_than_others_are_named() -> None:
    whole = read(RunFolder(Path(__file__).parents[2] / "fixtures/quickstart/run"))
    assert whole.pairs_trained() == pytest.approx({"judge": 31.875, "coin": 31.917, "longer": 31.417, "longer_accumulate": 31.5}, abs=0.001)  # fmt: skip

    rows = whole.preferences
    assert rows is not None
    # As the trainings' own pairs are made; three generations of eight replicates were trained on.
    slow = Counter(str(pair.group[1]) for pair in net_preferences(rows, lambda _, name: name, {}))
    assert whole.pairs_trained() == pytest.approx({arm: count / 24 for arm, count in slow.items()})

    def said(preferences: pd.DataFrame) -> str:
        reading = replace(whole, preferences=preferences)
        listed = findings(reading.estimates)
        four = answers(reading, listed)
        return " ".join((headline(reading, listed, four), four[1].word, *four[1].sentences))

    assert "Training on its picks changed nothing measurable" in said(rows)
    assert "preferred" not in said(rows)
    few = (rows["arm"] == "coin") & rows["item_id"].isin(sorted(rows["item_id"].unique())[:8])
    assert "on average: 32 in `judge`, 16 in `coin`" in said(rows[~few])
    untrained = said(rows[rows["arm"] != "judge"])
    assert "Not measured In `judge` no text was preferred to another, so that nothing was trained" in untrained
    assert "measurable against" not in untrained
    assert "Not measured In `judge`, `coin`" in said(pd.DataFrame())
    alike = pd.concat([rows[rows["arm"] == "longer"].assign(arm=arm) for arm in whole.arms])
    assert "preferred" not in said(alike)
    back = alike.rename(columns={"chosen": "rejected", "rejected": "chosen"}).assign(order="other")
    assert set(replace(whole, preferences=pd.concat([alike, back])).pairs_trained().values()) == {0.0}
