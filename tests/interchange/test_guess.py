"""Guesses at the columns of unknown logs: what is read is what the log means, and nothing is read unseen."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import judgeloop
from command_line import command
from judgeloop.errors import ColumnsGuessed, InvalidInput
from judgeloop.interchange.guess import guess
from judgeloop.interchange.verdicts import read_verdicts

LOGS: list[tuple[str, list[tuple[str, str]], list[str]]] = [
    # (CSV, (order, verdict) of each row as it is read, the words of the first rows that must be shown)
    (
        "question,answer_a,answer_b,winner,judge\nWhat?,Paris,Lyon,answer_a,gpt\nWho?,me,you,answer_b,gpt\nWhy?,c,d,both,gpt\n",
        [("unknown", "a"), ("unknown", "b"), ("unknown", "tie")],
        ["1. gpt on “What?”, order not known: picked answer_a “Paris”", "3. gpt on “Why?”, order not known: a tie"],
    ),
    (
        "question,answer_a,answer_b,winner,judge,order\nWhat?,Paris,Lyon,A,gpt,ab\nWhat?,Paris,Lyon,B,gpt,ba\n",
        [("ab", "first"), ("ba", "first")],
        ["2. gpt on “What?”, answer_b shown first: picked answer_b “Lyon”"],
    ),
    (
        "id,instruction,model_1_output,model_2_output,preference,annotator,human_label\n1,What?,x,y,1,m,2\n2,Who?,x,y,2,m,1\n",
        [("unknown", "a"), ("unknown", "b")],
        ["picked model_1_output “x”; gold model_2_output"],
    ),
    ("prompt,chosen,rejected\nWhat?,good,bad\nWho?,a,b\n", [("unknown", "a")] * 2, ["1. judge on “What?”, order not known: picked chosen “good”"]),
    (
        "qid,prompt,response_left,response_right,choice\n1,What?,good,bad,left\n2,Who,a,b,right\n3,Why,a,b,\n",
        [("ab", "first"), ("ab", "second"), ("ab", "unscored")],
        ["2. judge on “Who”, response_left shown first: picked response_right “b”", "3. judge on “Why”, response_left shown first: no verdict"],
    ),
    (
        "id,prompt,responseA,responseB,label,swapped\n1,What?,good,bad,0,False\n2,Who,a,b,1,True\n3,Why,a,b,0.5,True\n",
        [("ab", "first"), ("ba", "first"), ("ba", "tie")],
        ["2. judge on “Who”, responseB shown first: picked responseB “b”"],
    ),
    (
        # The winner is a model's name, which changes sides from row to row.
        "qid,prompt,model_a,model_b,response_a,response_b,winner,judge,order\n1,What?,m,n,x,y,m,g,ab\n1,What?,m,n,x,y,n,g,ba\n2,Who?,n,m,u,v,m,g,ab\n3,Why?,n,m,u,v,tie,g,ab\n",
        [("ab", "first"), ("ba", "first"), ("ab", "second"), ("ab", "tie")],
        ["by: model", "2. g on “What?”, response_b shown first: picked response_b “y”"],
    ),
    (
        "question_id,model_a,model_b,winner,judge\n1,gpt,llama,gpt,u\n2,gpt,llama,tie (bothbad),u\n3,gpt,llama,llama,u\n",
        [("unknown", "a"), ("unknown", "tie"), ("unknown", "b")],
        ["1. u on “1”, order not known: picked text_a"],
    ),
]  # fmt: skip


def rows_of(text: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(("text", "verdicts", "words"), LOGS)
def test_what_is_guessed_is_what_the_log_means(text: str, verdicts: list[tuple[str, str]], words: list[str]) -> None:
    found = guess(rows_of(text))
    assert found is not None
    assert found.lacking == ()
    assert yaml.safe_load(found.text) == dict(found.columns)
    read = read_verdicts(pd.DataFrame(rows_of(text)), columns=found.mapping).judgments
    assert list(zip(read["order"], read["verdict"], strict=True)) == verdicts
    for word in words:
        assert word in found.text


def test_a_log_of_one_s_own_form_is_not_guessed_at() -> None:
    for text in (
        "item_id,judge,order,verdict\ni,j,ab,first\n",
        "item_id,judge,verdict\ni,j,a\n",
        "item_id,judge,order,verdict\ni,j,ab,frist\n",
        "item_id,judge,order\ni,j,ab\n",
    ):
        assert guess(rows_of(text)) is None


def test_what_is_not_found_is_named_and_asked_for(tmp_path: Path) -> None:
    # The winner is named in a way that no column explains.
    frame = pd.DataFrame(
        {"q": ["1", "2"], "prompt": "x", "model_a": ["m", "n"], "model_b": ["n", "m"], "winner": ["m", "k"]}
    )
    with pytest.raises(ColumnsGuessed, match="none seems to be verdict; complete what is guessed") as caught:
        judgeloop.analyze(frame, yes=True)
    assert "# verdict: …   (no column seems to be it)" in caught.value.columns
    assert isinstance(caught.value, InvalidInput)


@pytest.mark.tables
def test_an_unknown_log_is_shown_before_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("my.csv").write_text(LOGS[0][0])
    assert command("analyze", "my.csv") == 2
    shown = capsys.readouterr()
    assert "give --yes to read them so, or save the guess as columns.yaml" in shown.err
    assert not Path("runs").exists()
    Path("columns.yaml").write_text(shown.out)
    assert command("analyze", "my.csv", "--columns", "columns.yaml", "--out", "mended") == 0
    capsys.readouterr()
    assert command("analyze", "my.csv", "--yes", "--out", "taken") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "its columns were guessed: item_id is question, verdict is winner" in said
    mended, taken = (judgeloop.open(folder).judgments for folder in ("mended", "taken"))
    pd.testing.assert_frame_equal(mended, taken)
