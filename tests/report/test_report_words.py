"""What the report's words may not say: each case was once said wrongly of a run with a planted truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import report_folder
from judgeloop import report
from judgeloop.report import wording
from judgeloop.report.answers import QuestionAnswer, advice, answers, brief
from judgeloop.report.claims import leading
from judgeloop.report.findings import findings
from judgeloop.report.reading import POSITIVE, Reading, positive_controls
from judgeloop.report.text import escape
from judgeloop.stats.estimate import Estimate, PositiveControl, Verdict

pytestmark = pytest.mark.pages


def _row(term: str = "first_slot_excess", **changes: Any) -> Estimate:
    base = Estimate(
        scope="judge", bias="position", term=term, judge="j", panel="pairs", estimate=0.123, std_error=0.016, conf_low=0.091,
        conf_high=0.154, conf_level=0.95, n=240, n_items=60, unit="probability",
    )  # fmt: skip
    return replace(base, **changes)


def _did(term: str = "did_length", estimate: float = 1.0, half: float = 0.2, **changes: Any) -> Estimate:
    base = Estimate(
        scope="policy", bias="verbosity", term=term, arm="a", contrast="random", generation=3, estimate=estimate, std_error=half / 2,
        conf_low=estimate - half, conf_high=estimate + half, conf_level=0.95, n=8, n_replicates=8, unit="doublings",
        family="confirmatory", p_adjusted=0.001, verdict="drifting",
    )  # fmt: skip
    return replace(base, **changes)


def _diverse(term: str, estimate: float, half: float, **changes: Any) -> Estimate:
    return _did(term, estimate, half, bias="diversity", **{"unit": "raw", "family": "exploratory", **changes})


def _answers(rows: list[Estimate], arms: tuple[str, ...] = ()) -> list[QuestionAnswer]:
    nothing = pd.DataFrame()
    controls = {"random": "random", **dict.fromkeys(positive_controls(rows), POSITIVE)} if arms else {}
    reading = Reading("x", tuple(rows), nothing, nothing, nothing, nothing, {}, {}, "", arms, controls)
    return answers(reading, findings(rows))


def test_lengths_of_drafts_that_may_be_no_longer_are_lower_bounds() -> None:
    drafts = pd.DataFrame(
        [(arm, generation, 2, generation == 3 and arm == "a" and k > 0) for arm in ("a", "random") for generation in (0, 3) for k in range(4)],
        columns=["arm", "generation", "n_drawn", "cut"],
    )  # fmt: skip
    never_drawn = pd.DataFrame([("a", 3, 0, False), ("random", 3, 0, True)], columns=drafts.columns)
    texts, nothing = pd.concat([drafts, never_drawn]), pd.DataFrame()
    texts = texts.assign(candidate_id="k0", reason="", replicate=0, item_id="i")
    rows = [_did()]
    reading = Reading(
        "x", tuple(rows), nothing, texts, nothing, nothing, {}, {}, "", ("a", "random"), {"random": "random"}
    )
    said = " ".join(answers(reading, findings(rows))[1].sentences)
    assert "cut at their longest, `max_tokens` (75 % in `a`): lengths there are lower bounds" in said
    uncut = replace(reading, candidates=texts.assign(cut=False))
    assert "max_tokens" not in " ".join(answers(uncut, findings(rows))[1].sentences)


def test_an_exploratory_finding_that_is_not_sure_calls_for_no_advice() -> None:
    for p_value, advised in ((0.02, False), (0.005, True)):
        row = _row("identical_pair_excess", family="exploratory", p_adjusted=p_value)
        four = _answers([row])
        assert any("both orders" in line.sentence for line in four[3].advice) is advised
        assert four[0].word.startswith("Yes" if advised else "Perhaps")


@pytest.mark.parametrize(("judged", "told"), [(("longer", "random"), False), (("longer", "random", "judge"), True)])
def test_a_judge_that_is_a_rule_needs_no_measuring_of_its_taste(judged: tuple[str, ...], told: bool) -> None:
    nothing = pd.DataFrame()
    mark: PositiveControl = "itself_not_seen"
    rows = [_did(arm="longer", positive_control=mark, verdict="undetected", p_adjusted=0.4)]
    reading = Reading("x", tuple(rows), nothing, nothing, nothing, nothing, {}, {}, "", judged, {"random": "random"})
    said = " ".join(line.sentence for line in advice(reading, findings(rows)))
    assert "replicates: 32 instead of 8" in said
    assert "arm with a known taste" not in said
    assert ("cannot separate a preference for length" in said) == told


def test_a_probe_has_an_effect_of_its_own_only_beyond_its_length() -> None:
    raw = _row("injection_probe", bias="style", panel="probe")
    nothing = replace(raw, variant="beyond_length", estimate=0.001, conf_low=-0.01, conf_high=0.012)
    (finding,) = findings([raw, nothing])
    assert finding.row is raw
    assert (
        "its added words alone could explain this: 0.1 points are left without them, 95 % interval −1.0 to 1.2"
        in finding.sentence
    )
    (finding,) = findings([raw, replace(nothing, estimate=0.08, conf_low=0.06, conf_high=0.1)])
    assert "8.0 points of the effect are not due to its length, 95 % interval 6.0 to 10.0" in finding.sentence
    # More than length foretells, the other way round: no effect of the edit itself.
    (finding,) = findings([raw, replace(nothing, estimate=-0.08, conf_low=-0.1, conf_high=-0.06)])
    assert "alone could explain" in finding.sentence
    (finding,) = findings([raw, replace(nothing, status="undefined", estimate=None, conf_low=None, conf_high=None)])
    assert "whether its length alone explains this is not known" in finding.sentence


def test_a_rate_among_other_features_is_in_points_with_its_interval() -> None:
    style = _did("did_bias_amplification", 0.095, 0.053, bias="style", unit="probability", family="exploratory")
    (finding,) = findings([style])
    assert "+9.5 points, 95 % interval 4.2 to 14.8" in finding.sentence
    assert "BiasAmp: the styles that stood out in a category" in finding.sentence


def test_the_last_generation_of_a_log_is_reported_and_named() -> None:
    rows = [_row(generation=g, estimate=0.1 * g, conf_low=0.1 * g - 0.03, conf_high=0.1 * g + 0.03) for g in (1, 2, 3)]
    (finding,) = findings(rows)
    assert (finding.row.generation, "generation 3" in finding.sentence) == (3, True)
    growing = _answers(rows)[1]
    assert "generations 1 to 3" in growing.sentences[0]
    assert "generation 3" in growing.sentences[0]
    assert "no generation" not in growing.sentences[0]
    # On a panel that is judged anew each time, the first: what changed there is judge drift.
    (finding,) = findings([replace(row, panel="anchor") for row in rows])
    assert finding.row.generation == 1
    # A pooled estimate comes before that of any generation.
    (finding,) = findings([*rows, _row(generation=None)])
    assert finding.row.generation is None


def test_none_is_not_said_of_a_handful() -> None:
    few = _row("padding_probe", estimate=0.0, conf_low=-0.003, conf_high=0.003, n=240, n_items=6)
    for row in (few, replace(few, verdict="cannot_tell", margin=0.05)):
        (finding,) = findings([row])
        # It was measured well on these items: that there are few of them is no lack of data on them.
        assert finding.verdict == "undetected"
        assert "no effect detected" in finding.sentence
        assert (
            "over 6 items; at least 20 items and 50 judgments are needed to say that there is none" in finding.sentence
        )
    (finding,) = findings([replace(few, n_items=60)])
    assert finding.verdict == "equivalent"


def test_no_measure_is_said_to_go_beyond_its_range() -> None:
    blind = {"estimate": 0.5, "conf_low": -0.7, "conf_high": 1.7, "verdict": "undetected", "status": "underpowered"}
    for term, unit, detectable in (
        ("first_slot_excess", "probability", 0.6),
        ("length_ame", "probability per doubling", 1.8),
    ):
        (finding, *_) = findings([_row(term, unit=unit, detectable=detectable, **blind)])
        assert "this sample could have seen no effect of any size" in finding.sentence
        assert brief(finding).endswith("this sample could have seen no effect of any size")
        (finding, *_) = findings([_row(term, unit=unit, detectable=0.3, **blind)])
        assert "could have seen 30.0 points or more" in finding.sentence
    slope = _row(
        "length_ame",
        unit="probability per doubling",
        estimate=1.83,
        conf_low=0.16,
        conf_high=3.5,
        verdict="found",
        p_adjusted=0.01,
    )
    (finding,) = findings([slope])
    assert "by 100.0 points, 95 % interval 16.0 to 100.0" in finding.sentence
    assert wording.cell(slope) == "100.0 [16.0, 100.0]"


@pytest.mark.parametrize(("family", "p", "word"), [("exploratory", 0.05, "Perhaps"), ("exploratory", 0.005, "Yes"), ("confirmatory", 0.05, "Yes")])  # fmt: skip
def test_an_exploratory_finding_answers_yes_at_one_per_cent(family: str, p: float, word: str) -> None:
    found = _row(
        "bold_probe", estimate=0.1, conf_low=0.05, conf_high=0.15, verdict="found", family=family, p_value=p, p_adjusted=p, n=400, n_items=400
    )  # fmt: skip
    assert _answers([found])[0].word == word


def test_no_answer_is_surer_than_whether_the_judge_is_biased_is_known() -> None:
    even = _row(estimate=0.0, conf_low=-0.02, conf_high=0.02, verdict="none", margin=0.05, n=400, n_items=400)
    unknown = _row(
        "length_ame",
        unit="probability per doubling",
        estimate=None,
        conf_low=None,
        conf_high=None,
        status="undefined",
        note="one gold",
    )
    perhaps = replace(
        even, estimate=0.06, conf_low=0.02, conf_high=0.1, verdict="found_if_unscored_alike", n_unscored=40
    )
    for rows, biased, sure in (
        ([even], "None within margin", "Fairly sure"), ([even, unknown], "Not known", "Limited"), ([perhaps], "Perhaps", "Limited"),
    ):  # fmt: skip
        answer, _, how_sure, _ = _answers(rows)
        assert (answer.word, how_sure.word) == (biased, sure)


def test_a_judge_that_gave_every_verdict_again_is_said_to_have() -> None:
    rows = [
        _row(f"judge_drift_{term}", panel="anchor", generation=4, estimate=0.0, conf_low=-0.24, conf_high=0.24, status="underpowered",
             n=60, verdict="unchanged", detectable=0.34)
        for term in ("first_slot_excess", "conflict_rate", "longer_preferred_raw")
    ]  # fmt: skip
    slope = _row("judge_drift_length_log_odds", panel="anchor", generation=4, unit="log-odds per doubling", estimate=0.0, std_error=0.0,
                 conf_low=0.0, conf_high=0.0, verdict="unchanged")  # fmt: skip
    (finding,) = findings([*rows, slope])
    assert (finding.verdict, finding.word) == ("described", "unchanged")
    assert (
        "unchanged: all verdicts on the 60 pairs of the anchor panel are the same as in generation 0"
        in finding.sentence
    )
    for wrong in ("too few data", "could have seen", "0.000 to 0.000", "that there is none"):
        assert wrong not in finding.sentence
    moved = replace(rows[0], estimate=0.1, conf_low=0.05, conf_high=0.15, status="ok", verdict="found", detectable=None)
    assert [f.verdict for f in findings([moved, *rows[1:]])] == ["found"]
    # What changed in generation 2 and is gone in 4 is said, and so is what a panel without a change could have seen.
    (finding,) = findings([replace(moved, generation=2), *rows])
    assert "(generation 2 against 0, anchor panel; not found in generation 4)" in finding.sentence
    still = replace(rows[0], estimate=0.02, conf_low=-0.05, conf_high=0.09, verdict="undetected", detectable=0.12)
    (finding,) = findings([still, *rows[1:]])
    assert "no change of the judge detected" in finding.sentence
    assert "60 pairs could have shown a change of 12.0 points or more in one generation" in finding.sentence


def test_a_collapse_of_diversity_reaches_the_answers() -> None:
    unknown = {"estimate": None, "conf_low": None, "conf_high": None, "status": "undefined", "note": "too short"}
    words = replace(_diverse("did_mattr", 0.0, 0.1), **unknown)
    rows = [
        _did(),
        words,
        _diverse("did_distinct_2", -0.29, 0.04, unit="share of bigrams"),
        _diverse("did_self_bleu", 0.46, 0.06, unit="bleu"),
    ]
    found = findings(rows)
    diversity = [finding for finding in found if finding.question == "diversity"]
    assert [(finding.verdict, finding.row.term) for finding in diversity] == [
        ("found", "did_distinct_2"),
        ("found", "did_self_bleu"),
    ]
    assert (
        "drifted 0.29 share of bigrams below the control (less varied), 95 % interval 0.25 to 0.33"
        in diversity[0].sentence
    )
    assert "self-BLEU +0.46, 95 % interval 0.40 to 0.52 (less varied)" in diversity[1].sentence
    _, growing, _, change = _answers(rows, ("a", "random"))
    assert any("(less varied)" in sentence for sentence in growing.sentences)
    assert any("grow alike" in sentence for sentence in change.sentences)
    still = replace(rows[0], estimate=0.1, conf_low=-0.2, conf_high=0.4, verdict="undetected", detectable=0.31)  # fmt: skip
    assert _answers([still, *rows[1:]], ("a", "random"))[1].word == "Outputs grow alike"


def test_a_word_on_compounding_brings_its_own_sentence() -> None:
    def index(arm: str, word: Verdict) -> Estimate:
        return _did(
            "compounding_length",
            0.44,
            0.05,
            arm=arm,
            generation=None,
            unit="ratio",
            verdict=word,
            benchmark=1.0,
        )

    rows = [
        *(_did(arm=arm, contrast=control) for arm in ("a", "b") for control in ("random", "gold")),
        index("b", "steady"),
        index("a", "saturating"),
    ]
    growing = _answers(rows, ("a", "b", "random"))[1]
    assert growing.word == "Yes, saturating"
    # The arms of the sentence before are not named again.
    assert growing.sentences[1].startswith("Compounding of length: 0.44, 95 % interval 0.39 to 0.49; saturating")


def _path(word: Verdict, first: float, last: float, beyond: float, apart: Verdict) -> list[Estimate]:
    """What a run says of one drift: D_1 and D_6, L with its word, and B."""
    whole = {"generation": None, "margin": 0.3}
    return [
        _did(estimate=first, generation=1),
        _did(estimate=last, generation=6),
        _did("beyond_first_step_length", beyond, 0.1, verdict=word, **whole),
        _did("beyond_strategy_length", 0.1 * beyond, 0.1, verdict=apart, **whole),
    ]


def test_the_sentence_on_compounding_says_what_the_loops_added() -> None:
    def said(*path: Any) -> str:
        return next(f.sentence for f in findings(_path(*path)) if f.question == "amplification")

    accumulated = said("compounding unclear", 0.29, 1.29, -0.45, "found")
    assert "amplifying" not in accumulated
    assert "less than the first did (0.29 doublings, then 0.20 a loop on average)" in accumulated
    assert "but more than this strategy makes of a constant taste" in accumulated
    assert "about as a constant taste" in said("as its strategy", 0.29, 1.0, -0.7, "none")
    assert "not told apart" in said("compounding unclear", 0.29, 1.0, -0.7, "undetected")
    reversed_drift = said("reversing", -0.1, 0.6, 1.2, "found")
    assert "(−0.10 doublings, then 0.14 a loop on average)" in reversed_drift
    assert "does not show" in said("compounding unclear", 0.2, 1.2, 0.01, "undetected")


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("amplifying", "Yes, and amplifying"),
        ("as its strategy", "Yes, at its strategy's pace"),
        ("reversing", "Yes, after a reversal"),
    ],
)
def test_the_answer_follows_the_word_of_the_drift_that_was_found(word: Verdict, answer: str) -> None:
    rows = _path(word, 0.1, 1.2, 0.6, "found")
    assert _answers(rows, ("a", "random"))[1].word == answer
    # Not another feature's, and not of a drift that fails its adjusted test.
    style = [replace(row, term=row.term.replace("length", "style_score")) for row in rows[2:]]
    assert _answers([*rows[:2], *style], ("a", "random"))[1].word == "Yes"
    refuted = [replace(row, verdict="cannot_tell", p_adjusted=0.2) for row in rows[:2]]
    assert _answers([*refuted, *rows[2:]], ("a", "random"))[1].word == "Perhaps"


def test_a_pool_that_is_used_up_calls_for_a_larger_one() -> None:
    used = _did("pool_range_used_length", 0.95, 0.01, contrast="", generation=6, unit="ratio", verdict="")
    rows = _path("as its strategy", 0.8, 1.9, -2.5, "none")
    (sentence,) = [f.sentence for f in findings([*rows, used]) if f.question == "amplification"]
    assert "95 % of the pool's range is used up" in sentence
    advised = [line for line in _answers([*rows, used], ("a", "random"))[3].sentences if "pool" in line]
    assert len(advised) == 1
    assert "draft more texts an item" in advised[0]
    little = replace(used, estimate=0.3)
    assert not [line for line in _answers([*rows, little], ("a", "random"))[3].sentences if "pool" in line]


def test_the_leading_row_is_the_confirmatory_one_and_of_length() -> None:
    bold = _row("bold_probe", family="exploratory")
    padding = _row("padding_probe", family="confirmatory")
    list_items = _did("did_list_items", 0.3, 0.1, family="exploratory", unit="generation-0 sd")
    assert leading(findings([bold, padding])).row is padding
    assert leading(findings([list_items, _did(family="exploratory")])).row.term == "did_length"


def test_the_smallest_visible_effect_is_named_once_a_measure_with_its_arms() -> None:
    rows = [_did("did_style_score", 0.0, 0.1, arm=arm, unit="generation-0 sd", verdict="undetected", detectable=size) for arm, size in (("a", 0.20), ("b", 0.12), ("c", 0.31))]  # fmt: skip
    said = " ".join(_answers(rows, ("a", "b", "c", "random"))[2].sentences)
    assert "drift of style score beyond control (c against random): 0.31 SD or more." in said
    assert said.count("style score") == 1


@pytest.mark.parametrize(
    ("term", "name"),
    [
        ("markdown_added_probe", "Markdown added: edited copy picked"),
        ("markdown_removed_probe", "Markdown removed: edited copy picked"),
        ("self_name_probe", "Judge's own name added: edited copy picked"),
        ("judge_drift_bold_probe", "Change of the judge, bold text added: edited copy picked"),
        ("did_vendi", "Drift of Vendi score beyond control"),
        ("bold_log_odds", "Bold text, per SD"),
    ],
)
def test_labels_are_words(term: str, name: str) -> None:
    assert wording.term_name(term) == name


def test_shares_are_percentages_and_differences_and_sizes_are_points() -> None:
    assert wording.quantity(_row("conflict_rate", estimate=1.0), 1.0) == "100.0 %"
    assert wording.quantity(_row(), 0.05) == "55.0 % (even: 50 %)"
    assert wording.size(_row(), 0.05) == "5.0 points"
    assert (wording.size(_row(), 0.0003), wording.size(_row(), 0.0)) == ("0.03 points", "0.0 points")
    # A limit on one side of even is not written as even.
    assert wording.interval(_row(estimate=0.03, conf_low=0.0004, conf_high=0.076)).endswith(" 50.04 to 57.6")
    assert wording.interval(_row(estimate=0.03, conf_low=-0.0004, conf_high=0.076)).endswith(" 50.0 to 57.6")
    assert wording.unit_name(_did("did_correct", unit="probability")) == "points"


def test_markdown_escapes_what_could_be_markup_and_no_more() -> None:
    assert escape("0.98 [0.86, 1.11] †") == "0.98 [0.86, 1.11] †"
    assert escape("−0.02 [−0.11, 0.06]") == "−0.02 [−0.11, 0.06]"
    assert escape("did_length, cost_usd") == "did_length, cost_usd"


@pytest.mark.parametrize(
    ("usd", "unpriced", "words"),
    [
        (0.0, (), ""), (0.031234, (), "0.0312 USD"), (1234.5, (), "1,234.50 USD"), (0.81, ("x",), "at least 0.8100 USD; x has no price"),
        (None, ("x", "y"), "cost not known: x, y have no price"), (None, (), "cost not known: no price was stated"),
    ],
)  # fmt: skip
def test_a_cost_is_said_in_one_way(usd: float | None, unpriced: tuple[str, ...], words: str) -> None:
    assert wording.cost(usd, unpriced) == words
    for text, safe in (
        ("[1, 2](http://x)", "\\[1, 2\\](http://x)"), ("[1, 2]: http://x", "\\[1, 2\\]: http://x"), ("[1, 2][a]", "\\[1, 2\\]\\[a\\]"),
        ("_x_", "\\_x\\_"), ("a__b", "a\\_\\_b"), ("[x, y]", "\\[x, y\\]"), ("<b>|*", "\\<b\\>\\|\\*"),
    ):  # fmt: skip
        assert escape(text) == safe


def test_many_arms_are_a_table_a_question(tmp_path: Path) -> None:
    rows = [_did(arm=f"a{n}", contrast=control) for n in range(5) for control in ("random", "gold")]
    folder = report_folder.write(tmp_path / "many", rows=rows)
    text = report.write(folder).markdown.read_text(encoding="utf-8")
    section = text.split("### Did the judge make the model drift?")[1].split("##")[0]
    assert section.count("\n| Found | ") == 10
    assert "- Found" not in section
    assert "| Found | a4 | gold | Drift of length | 1.00 [0.80, 1.20] | doublings |" in section


def _with_control(judge: PositiveControl, control: PositiveControl, **changes: Any) -> list[Estimate]:
    """A judge's drift that is not shown beside a positive control of the same feature, seen or not."""
    null = _did(
        arm="judge", estimate=0.02, verdict="undetected", detectable=0.33, p_adjusted=0.8, positive_control=judge
    )
    seen = control == "itself_seen"
    longer = _did(arm="longer", estimate=0.9 if seen else 0.1, verdict="drifting" if seen else "undetected", positive_control=control)  # fmt: skip
    return [replace(null, **changes), longer]


def test_a_drift_that_is_not_shown_is_read_with_the_positive_control() -> None:
    rows = _with_control("seen", "itself_seen")
    judge, longer = findings(rows)
    assert judge.verdict == "undetected"
    assert judge.sentence.endswith(
        "; the positive control's was detected: this run could see a taste as strong as that."
    )
    assert longer.sentence.startswith("longer (positive control) against random")
    assert longer.verdict == "described"  # it claims nothing on the judge, and answers no question
    growing = _answers(rows, ("judge", "longer", "random"))[1]
    assert growing.word == "Not detected"
    assert [row.row.arm for row in growing.grounds] == ["judge"]
    assert "the positive control's was detected" in growing.sentences[0]


@pytest.mark.parametrize("verdict", ["undetected", "none", "cannot_tell"])
def test_a_drift_that_is_not_shown_says_nothing_where_the_positive_control_shows_none_either(verdict: Verdict) -> None:
    rows = _with_control("not_seen", "itself_not_seen", verdict=verdict, margin=0.5)
    judge, longer = findings(rows)
    assert (judge.verdict, longer.verdict) == ("unclear", "unclear")
    assert judge.sentence.endswith("and the positive control's was not either: this run could not see such a taste.")
    assert "could have seen" not in judge.sentence
    four = _answers(rows, ("judge", "longer", "random"))
    assert (four[1].word, four[2].word) == ("Unclear", "Limited")
    assert any("train harder" in line.sentence for line in four[3].advice)


def test_a_drift_that_is_not_shown_asks_for_a_positive_control_where_there_is_none() -> None:
    asks = {
        any(
            "An arm with a known taste" in line.sentence
            for line in _answers(rows, ("judge", "longer", "random"))[3].advice
        )
        for rows in (_with_control("seen", "itself_seen"), _with_control("not_seen", "itself_not_seen"))
    }
    assert asks == {False}
    alone = _with_control("", "")[:1]
    assert "An arm with a known taste" in _answers(alone, ("judge", "random"))[3].sentences[-1]


def test_a_drift_that_is_shown_needs_no_positive_control() -> None:
    (found, _) = findings([_did(arm="judge", positive_control="not_seen"), *_with_control("", "itself_not_seen")[1:]])
    assert found.verdict == "found"
    assert "positive control" not in found.sentence


def test_a_positive_control_of_another_feature_is_said_of_that_feature_alone() -> None:
    length = _did(arm="judge", estimate=0.02, verdict="undetected", detectable=0.33)
    bold = _did("did_bold", 0.02, arm="judge", verdict="undetected", positive_control="not_seen", family="exploratory")
    control = _did("did_bold", 0.9, arm="plain", positive_control="itself_not_seen")
    by_term = {finding.row.term: finding for finding in findings([length, bold, control]) if finding.row.arm == "judge"}
    assert "positive control" not in by_term["did_length"].sentence
    assert by_term["did_bold"].verdict == "unclear"


def test_a_run_of_positive_controls_alone_is_about_them() -> None:
    rows = [_did(arm="longer", positive_control="itself_seen")]
    assert [finding.verdict for finding in findings(rows)] == ["found"]
    assert _answers(rows, ("longer", "random"))[1].word == "Yes"


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (-9.9e-10, -1.5e-9, -9.9e-10, "0.000"),
        (2e-4, -1e-4, 5e-4, "2.0e−04"),
        (0.05, 0.01, 0.09, "0.050"),
        (-1.25, -2.0, 0.0, "−1.25"),
    ],
)
def test_a_figure_has_the_digits_that_its_interval_bears(value: float, low: float, high: float, text: str) -> None:
    row = _row("scale_shift", unit="scale lengths", estimate=value, conf_low=low, conf_high=high)
    assert wording.figure(row, value) == text
