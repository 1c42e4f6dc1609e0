"""Probes that can edit none of the texts leave a row that says why, and no English line is put into a text of another script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import judgeloop
from conftest import Served
from judgeloop.commands.questions import ProbeQuestions, questions_of, unapplied
from judgeloop.interchange.pairs import read_pairs
from judgeloop.judging.edits import in_latin_letters
from judgeloop.judging.panels import PROBES, RULE_PROBES

Serve = Callable[..., Served]
CHINESE = ("睡前不要看手机。房间要暗一些。晚上不喝咖啡。", "保持固定的作息时间！早睡早起。周末也一样。")
OTHERS = {
    "ru": "Не смотрите в телефон перед сном. В комнате должно быть темно. Не пейте кофе вечером.",
    "ar": "لا تنظر إلى الهاتف قبل النوم. يجب أن تكون الغرفة مظلمة. لا تشرب القهوة مساء.",
    "zh": CHINESE[0],
    "ja": "寝る前に携帯を見ない。部屋を暗くする。夜はコーヒーを飲まない。",
}
WORDS = ("padding", "markdown_added", "headings", "hedges", "tone", "authority", "bandwagon", "injection", "self_name")


def edited(name: str, text: str, language: str) -> str | None:
    doses: dict[str, Any] = {"dose": PROBES[name].doses[0]} if PROBES[name].doses else {}
    return PROBES[name].apply(text, item_id="i", seed=1, language=language, judge_name="m", **doses)


@pytest.mark.parametrize("tag", list(OTHERS))
def test_an_untagged_text_of_another_script_gets_no_english_words(tag: str) -> None:
    assert sorted(WORDS) == sorted(name for name in RULE_PROBES if PROBES[name].languages)
    for name in WORDS:
        assert edited(name, OTHERS[tag], "en") is None, name
        assert "script" in PROBES[name].refuses(OTHERS[tag], "en")
        assert PROBES[name].refuses(OTHERS[tag], tag) == f"no words for {tag}"
    assert PROBES["emoji"].refuses(OTHERS[tag], "en") == ""


def test_an_english_text_with_foreign_words_is_english() -> None:
    for text in (
        "The word 睡眠 means sleep, and 休息 means rest.",
        "π ≈ 3.14",
        "",
        "42",
        "Žluťoučký kůň",
        "Tiếng Việt rất hay",
    ):
        assert in_latin_letters(text), text
    assert edited("authority", "The word 睡眠 means sleep.", "en") is not None
    assert not in_latin_letters("睡眠 means 早睡早起和固定的作息时间")


@pytest.mark.parametrize("tag", ["zh", "ja"])
def test_sentences_without_white_space_become_a_list(tag: str) -> None:
    made = edited("list_items", OTHERS[tag], tag)
    assert made is not None
    assert [line[:2] for line in made.splitlines()] == ["- "] * 3
    assert made.replace("- ", "").replace("\n", "") == OTHERS[tag]
    assert not PROBES["list_items"].passes("A b. C d.", "- A b.\n- Cd.")
    assert not PROBES["list_items"].passes("甲乙。丙丁。", "- 甲乙。\n- 丁丙。")


@pytest.mark.at_hand
def test_a_probe_that_applies_to_no_text_leaves_a_row(tmp_path: Path, serve: Serve) -> None:
    rows = pd.DataFrame([
        {"item_id": f"i{n}", "prompt": "如何睡得好？", "text_a": f"{n}。{CHINESE[0]}", "text_b": f"{n}。{CHINESE[1]}"} for n in range(6)
    ])  # fmt: skip
    served = serve(model=["m1", "m2"])
    for name, source, judges, why in (
        ("tagged", rows.assign(language="zh"), ["m1", "m2"], "applies to no text: no words for zh"),
        ("untagged", rows, ["m1"], "applies to no text: no words for texts whose script is not that of en; give a column language"),
    ):  # fmt: skip
        done = judgeloop.audit(
            source, base_url=served.base_url, model=judges, verdict="json", probes="padding,hedges,markdown_removed,list_items",
            out=tmp_path / name,
        )  # fmt: skip
        found = done.estimates.set_index(["judge", "term", "variant"])
        for judge in judges:
            for term in ("padding_probe", "hedges_probe"):
                one = found.loc[(judge, term, "")]
                assert (one["status"], one["note"], one["n"], one["panel"]) == ("undefined", why, 0, "probe")
            assert "nothing to edit" in found.loc[(judge, "markdown_removed_probe", ""), "note"]
            assert found.loc[(judge, "list_items_probe", ""), "n"] == 12


def test_a_dose_out_of_reach_of_every_text_is_said() -> None:
    asked = questions_of(
        read_pairs(pd.DataFrame([{"item_id": "i", "prompt": "?", "text_a": "A b.", "text_b": "C d."}]))
    )
    probing = ProbeQuestions(
        {}, {("padding", 1.25): (2, 2), ("padding", 1.5): (0, 2), ("padding", 2.0): (1, 2), ("bold", None): (1, 2)}
    )
    found = unapplied(asked, probing, ("padding", "bold"), ["m"])
    assert found[["term", "variant", "note"]].to_numpy().tolist() == [
        ["padding_probe", "1.5", "applies to no text: this dose is out of reach"]
    ]
