"""A prompt of one's own: shipped templates as a start, what would be sent, and that exactly this is sent."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from audit_pairs import pairs, write
from command_line import command
from conftest import Served
from judgeloop.text import pasted, templates

Serve = Callable[..., Served]
ROOT = Path(__file__).parents[2]
MINE = """Which answer helps more?

<question>
{question}
</question>

<answer_a>
{response_1}
</answer_a>

<answer_b>
{response_2}
</answer_b>

End with [[A]] or [[B]].
"""


def shown(printed: str) -> list[tuple[str, str]]:
    """(role, content) of the messages as --show-prompt prints them, with the lines about them left out."""
    lines = [line for line in printed.splitlines() if not line.startswith("# ")]
    parts = re.split(r"^--- (\w+)$", "\n".join(lines), flags=re.MULTILINE)[1:]
    return [(role, content.strip("\n")) for role, content in zip(parts[::2], parts[1::2], strict=True)]


def exchanges(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Call id → the messages that were sent."""
    found = {}
    for path in (folder / "calls").rglob("*.jsonl*"):
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        for line in text.decode().splitlines():
            exchange = json.loads(line)
            found[exchange["call"]] = exchange["request"]["messages"]
    return found


@pytest.mark.tables
@pytest.mark.at_hand
@pytest.mark.parametrize("prompt", ["mine.txt", "few_shot"])
def test_what_is_shown_is_what_is_sent(
    tmp_path: Path, serve: Serve, prompt: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve()
    write(tmp_path / "answers.jsonl", pairs(3))
    Path("mine.txt").write_text(MINE, encoding="utf-8")
    line = ("audit", "answers.jsonl", "--model", "planted", "--prompt", prompt, "--verdict", "text")
    assert command(*line, "--show-prompt", "i001") == 0
    printed = capsys.readouterr().out
    assert not served.asked
    assert not Path("runs").exists()
    assert command(*line, "--base-url", served.base_url) == 0
    sent = exchanges(Path("runs/answers-audit"))
    [call] = [name for name in sent if "/i001/" in name and "/ab/" in name]
    assert shown(printed) == [(message["role"], message["content"].strip("\n")) for message in sent[call]]


def test_modes_that_would_be_tried_are_shown_with_their_closing_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "answers.jsonl", pairs(2))
    assert command("audit", "answers.jsonl", "--model", "m", "--show-prompt", "i000") == 0
    printed = capsys.readouterr().out
    template = templates.load("pairwise")
    assert shown(printed)[-1][1].endswith(template.instructions["logprob"])
    for mode in ("json", "text"):
        assert f"# {mode}: {template.instructions[mode]}" in printed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--show-prompt", "i0"), "'i0' is no item_id or pair_id of the pairs; did you mean i000?"),
        (("--show-prompt", "i000", "--mode", "pointwise"), "not with --mode or --reward"),
        (("--show-prompt", "i000", "--prompt", "none.txt"), "no shipped template and no file of that name"),
        (("--print-prompt", "pairwize"), "no shipped template of that name; did you mean pairwise?"),
    ],
)
def test_what_cannot_be_shown_is_said(
    tmp_path: Path, options: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "answers.jsonl", pairs(1))
    assert command("audit", "answers.jsonl", "--model", "m", *options) == 2
    assert says in capsys.readouterr().err


PAGE = (ROOT / "docs" / "howto-my-prompt.md").read_text(encoding="utf-8")


def test_the_page_shows_what_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    row = {"item_id": "q1", "prompt": "How do I sleep better?", "text_a": "Early.", "text_b": "Late."}
    write(tmp_path / "pairs.jsonl", [row])
    [content] = re.findall(r"^```text my-prompt.txt\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [printed] = re.findall(r"^```text\n(# Pair .*?)…\n```$", PAGE, re.MULTILINE | re.DOTALL)
    Path("my-prompt.txt").write_text(content, encoding="utf-8")
    line = re.findall(r"^judgeloop audit .* --show-prompt q1$", PAGE, re.MULTILINE)
    assert command(*line[0].split()[1:]) == 0
    out = capsys.readouterr().out
    assert out.startswith(printed)
    assert out.endswith(
        "Assistant A: Early.\n\nAssistant B: Late.\n\nSay in one sentence which answer helps more, and end with [[A]] or [[B]].\n"
    )


def test_the_names_that_the_page_lists_are_those_that_are_read() -> None:
    rows = {
        line.split("|")[1].strip(): re.findall(r"`(\w+)`", line.split("|")[2])
        for line in PAGE.splitlines()
        if line.startswith("| the ")
    }
    questions, references = rows["the question"], rows["the reference answer"]
    assert set(questions) == set(pasted._PROMPT)
    assert set(references) == set(pasted._REFERENCE)
    assert rows["the place for the closing instruction"] == [pasted.VERDICT]
    sides = rows["the two answers"]
    for first, second in (
        *zip(sides[::2], sides[1::2], strict=True),
        *((f"x_{a}", f"x_{b}") for a, b in pasted._SIDES),
    ):
        prompt = pasted.pasted(f"{{{questions[-1]}}} {{{first}}} {{{second}}} {{{references[-1]}}}", "page")
        assert prompt.messages[0].content.startswith("{{ prompt }} {{ answer_a }} {{ answer_b }} {{ reference }}")


@pytest.mark.parametrize("name", templates.shipped())
def test_a_shipped_template_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("audit", "--print-prompt", name) == 0
    assert capsys.readouterr().out == (ROOT / "prompts" / f"{name}.yaml").read_text(encoding="utf-8")
