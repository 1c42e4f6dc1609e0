"""Pairs files that are not what they should be: each says the file, the row and the column, and what to do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from judgeloop.errors import JudgeloopError
from judgeloop.interchange.pairs import read_pairs
from judgeloop.interchange.rows import load_columns
from judgeloop.interchange.verdicts import read_verdicts

HEAD = "item_id,prompt,text_a,text_b"
ROW = '{"item_id": "i", "prompt": "?", "text_a": "x", "text_b": "y"}'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.jsonl", '{"item_id": "i", "prompt": "?", "text_a": "  ", "text_b": ""}', "p.jsonl:1: text_a: is blank, and so is text_b"),
        ("p.csv", f"{HEAD}\ni,?,x,y\nj,?,,\n", "p.csv:3: text_a: is blank, and so is text_b"),
        ("p.jsonl", ROW[:-1] + ', "gold": NaN}', "p.jsonl:1: gold: must be a finite number, not nan; write null where there is none"),
        ("p.jsonl", ROW[:-1] + ', "winner": NaN}', "p.jsonl:1: winner: must be a finite number, not nan"),
        ("p.jsonl", ROW[:-1] + ', "gold_2": Infinity}', "p.jsonl:1: gold_2: must be a finite number, not inf"),
        ("p.csv", "i1,P,a,b\n", "p.csv:1: the header lacks item_id, prompt, text_a, text_b, and no row follows"),
        ("p.csv", f"{HEAD}\n", "p.csv: no pairs; give one a row"),
        ("p.csv", "item_id,prompt,text_a\ni,?,x\n", "p.csv:2: column text_b is missing (this row has item_id, prompt, text_a); use --columns"),
        ("p.csv", "item_id,prompt,text_a,txt_b\ni,?,x,y\n", "did you mean txt_b?"),
        ("p.csv", f"{HEAD}\ni,?\n", "p.csv:2: this row has not as many cells as the header: none for text_a, text_b"),
        ("p.csv", f"{HEAD}\ni,?,x,y,z,w\n", "p.csv:2: this row has not as many cells as the header: 2 more, behind text_b; put cells that hold a comma in quotes"),
        ("p.json", f"[{ROW}]", "p.json: pairs are read from .jsonl (one JSON object a line)"),
        ("p.jsonl", f"[{ROW}]", "p.jsonl:1: one JSON object a line, this is list; an array becomes lines by jq -c '.[]'"),
        ("p.csv", "item_id;prompt;text_a;text_b\ni;?;x;y\n", "p.csv:1: the cells stand between semicolons; save it with commas"),
        ("p.csv", "item_id\tprompt\ttext_a\ttext_b\n", "p.csv:1: the cells stand between tabs"),
        ("p.csv", (f"{HEAD}\ni,?,x,y\n").encode("utf-16"), "p.csv: UTF-16 text; save it as UTF-8"),
        ("p.jsonl", ROW.encode("utf-16"), "p.jsonl: UTF-16 text; save it as UTF-8"),
    ],
)  # fmt: skip
def test_a_faulty_pairs_file_says_what_to_do(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(JudgeloopError) as caught:
        read_pairs(path)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_one_blank_text_is_an_answer_and_a_null_gold_is_none(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(ROW.replace('"x"', '""')[:-1] + ', "gold": null}')
    (pair,) = read_pairs(path).values()
    assert (pair.values["text_a"], pair.values["gold"]) == ("", "")


def test_the_language_of_a_text_may_have_another_name(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(ROW[:-1] + ', "lang": "de"}')
    columns = load_columns({"language": "lang"})
    assert read_pairs(path, columns)["i"].other_columns == {"lang": "de", "language": "de"}
    verdicts = pd.DataFrame([{"item_id": "i", "judge": "j", "order": "ab", "verdict": "first", "lang": "de"}])
    assert read_verdicts(verdicts, columns=columns).judgments["language"].tolist() == ["de"]
    joined = read_verdicts(verdicts[["item_id", "judge", "order", "verdict"]], path, columns)
    assert joined.judgments["language"].tolist() == ["de"]


def test_a_header_by_other_names_is_one(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("item_id,question,text_a,text_b\n")
    with pytest.raises(JudgeloopError, match="no pairs"):
        read_pairs(path, load_columns({"prompt": "question"}))
