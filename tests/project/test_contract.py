"""docs/contract.md says what the code does: its tables and lists equal the code's own, in both directions."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import judgeloop
from judgeloop import cli, errors, records
from judgeloop.interchange.rows import KEPT_COLUMNS, PAIR_COLUMNS, SET_COLUMNS, VERDICT_COLUMNS
from judgeloop.judging import answers
from judgeloop.judging.panels import PROBES
from judgeloop.limits import FORMAT as CHECK_FORMAT
from judgeloop.report.comparison import FORMAT as COMPARISON_FORMAT
from judgeloop.report.document import FORMAT as REPORT_FORMAT
from judgeloop.results import Audit, Run
from judgeloop.rundir import TABLES
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge.mitigation import MITIGATIONS
from judgeloop.text.features import FEATURES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
EXIT_CODES = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
RECORDING = ROOT / "fixtures" / "exemplars" / "recording" / "calls"


def section(heading: str) -> str:
    """The text under a heading, up to the next heading of any level."""
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def cells(text: str) -> list[list[str]]:
    """The rows of a text's tables, without their headers."""
    lines = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"
    ]
    rules = [number for number, row in enumerate(lines) if set("".join(row)) <= set("|-")]
    return [row for number, row in enumerate(lines) if number not in rules and number + 1 not in rules]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# -- commands and exit codes ---------------------------------------------------------------------------------------------


def synopses() -> dict[str, str]:
    """Command → what stands behind its name in the synopsis."""
    block = re.search(r"```text\n(.*?)```", section("Commands"), re.DOTALL)
    assert block is not None
    lines = re.split(r"^judgeloop ", block[1], flags=re.MULTILINE)[1:]
    return {name: rest for name, _, rest in (line.partition(" ") for line in lines)}


def test_every_command_has_its_synopsis() -> None:
    assert list(synopses()) != []
    assert set(synopses()) == set(cli._command().commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(synopses()))
def test_options_of_a_synopsis_exist_and_required_ones_stand_in_it(name: str) -> None:
    command = cli._command().commands[name]  # type: ignore[attr-defined]
    stated = set(re.findall(r"--[a-z][a-z-]*", synopses()[name]))
    known = {option for parameter in command.params for option in parameter.opts}
    required = {
        parameter.opts[0] for parameter in command.params if parameter.required and parameter.opts[0][:2] == "--"
    }
    assert stated <= known
    assert required <= stated


def test_exit_codes_are_those_of_the_errors_and_of_their_page() -> None:
    stated = {int(row[0]) for row in cells(section("Exit codes"))}
    of_page = {int(code) for code in re.findall(r"^\| (\d+) \|", EXIT_CODES, re.MULTILINE)}
    classes = [errors.JudgeloopError]
    for one in classes:
        classes += one.__subclasses__()
    assert stated == of_page
    # 0 and 5 are no errors: done, and a check that cannot tell.
    assert stated - {0, 5} == {one.exit_code for one in classes}


# -- Python --------------------------------------------------------------------------------------------------------------


def test_public_names_are_those_of_the_package() -> None:
    names = {name: row[1] for row in cells(section("Python")) for name in quoted(row[0])}
    assert set(names) == set(judgeloop.__all__)
    members = re.findall(r"`\.(\w+)", names["Run"])
    assert len(members) > 5
    assert [name for name in members for kind in (Run, Audit) if not hasattr(kind, name)] == []


# -- what goes over the wire ---------------------------------------------------------------------------------------------


def test_verdicts_and_reasons_are_those_of_the_code() -> None:
    text = section("Verdicts")
    assert tuple(quoted(text)[:4]) == get_args(records.Slot)
    stated = {name for row in cells(text) for name in quoted(row[0])}
    source = Path(answers.__file__).read_text(encoding="utf-8")
    reasons = set(re.findall(r'(?:reason=|unlisted: ClassVar\[str\] = |Score\(None, reason=)"(\w+)"', source))
    assert len(reasons) > 5
    assert reasons <= stated


def documented_call_ids() -> re.Pattern[str]:
    """Any of the documented ids, as one pattern; an optional part stands in square brackets."""
    parts = []
    for row in cells(section("Call ids")):
        for one in quoted(row[0]):
            escaped = re.escape(one).replace(r"\[", "(?:").replace(r"\]", ")?").replace("…", ".+")
            escaped = re.sub(r"<(?:k|NN|replicate|generation|repeat|rotation)>", r"\\d+", escaped)
            escaped = escaped.replace("<order>", "(?:ab|ba)").replace("<prefix>", ".+")
            parts.append(re.sub(r"<[^>]*>", "[^/]+", escaped))
    return re.compile("|".join(f"(?:{part})" for part in parts))


def test_recorded_call_ids_and_lines_are_documented() -> None:
    pattern, fields = documented_call_ids(), quoted(section("Cassette").split("one exchange a line")[1])
    where_they_apply = {"fault", "route", "weights", "earlier_tokens", "spent", "checksum"}
    assert where_they_apply < set(fields)
    parts = sorted(RECORDING.rglob("*.jsonl*"))
    assert len(parts) > 10
    for path in parts:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["call"] for line in lines if not pattern.fullmatch(line["call"])] == []
        for line in lines:
            names = list(line)
            assert names[:6] == fields[:6]
            assert set(names[6:]) <= where_they_apply


# -- tables and estimates ------------------------------------------------------------------------------------------------


def test_tables_have_the_documented_columns() -> None:
    rows = {quoted(row[0])[0]: tuple(quoted(row[1])) for row in cells(section("Tables"))}
    assert set(rows) == set(TABLES)
    assert rows["judgments"] == records.JUDGMENT_COLUMNS
    assert rows["candidates"] == records.CANDIDATE_COLUMNS
    assert rows["preferences"] == records.PREFERENCE_COLUMNS
    assert rows["signals"] == records.SIGNAL_COLUMNS


def test_estimates_have_the_documented_columns_and_key() -> None:
    text = section("Estimates")
    assert tuple(quoted(row[0])[0] for row in cells(text)) == records.ESTIMATE_COLUMNS
    key = re.search(r"^\(([^)]*)\) is unique", text, re.MULTILINE)
    assert key is not None
    assert tuple(quoted(key[1])) == records.ESTIMATE_KEY


@pytest.mark.parametrize("column", ["scope", "bias", "family", "status", "verdict"])
def test_words_of_a_column_are_those_of_the_code(column: str) -> None:
    meaning = {quoted(row[0])[0]: row[1] for row in cells(section("Estimates"))}[column]
    words = get_args(get_type_hints(Estimate)[column])
    assert set(quoted(meaning)) - {"collapse_stage", "correct_per_proxy"} == {word for word in words if word}


def test_panels_are_those_of_the_code() -> None:
    meaning = {quoted(row[0])[0]: row[1] for row in cells(section("Estimates"))}["panel"]
    assert set(quoted(meaning)) == set(get_args(records.Panel))


def tables_of_method(first: str, text: str = METHOD) -> set[str]:
    """The backticked names in the first cells of the method's tables with that header."""
    names, inside = set(), False
    for line in text.splitlines():
        inside = line.startswith("|") and (inside or line.startswith(f"| {first} |"))
        if inside:
            names.update(quoted(line.split(" | ")[0]))
    return names


def test_terms_are_those_of_the_method() -> None:
    stated = {name for row in cells(section("Terms")) for name in quoted(row[1])}
    diversity = tables_of_method("Quantity", METHOD[METHOD.index("\n## Diversity") :])
    assert stated == tables_of_method("Term") | diversity


@pytest.mark.parametrize(
    ("what", "names"), [("Features", FEATURES), ("Probes", tuple(PROBES)), ("Mitigations", MITIGATIONS)]
)
def test_lists_of_names_are_those_of_the_code(what: str, names: tuple[str, ...]) -> None:
    listed = re.search(rf"^{what}: ([^.]*)\.$", section("Terms"), re.MULTILINE)
    assert listed is not None
    assert tuple(quoted(listed[1])) == names


# -- files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "columns"),
    [
        ("Verdict logs", {*VERDICT_COLUMNS, *KEPT_COLUMNS}),
        ("Pairs", {*PAIR_COLUMNS, *KEPT_COLUMNS}),
        ("Lists", set(SET_COLUMNS)),
    ],
)
def test_columns_of_input_files_are_documented(heading: str, columns: set[str]) -> None:
    stated = set(quoted(section(heading)))
    assert columns <= stated
    # Besides columns, words of their cells, options and formats stand there.
    words = {
        "a",
        "b",
        "tie",
        "ab",
        "ba",
        "unknown",
        "unscored",
        "order_unknown",
        "characters",
        "tokens",
        "alpaca_eval",
        "mt_bench",
        "arena_hard",
        "chatbot_arena",
        "preferences",
        "inspect",
        "lm_eval",
        "promptfoo",
        "openai_evals",
        "deepeval",
        "ragas",
    }
    assert {name for name in stated - columns - words if not name.startswith("--")} == set()


def test_formats_are_those_of_the_code() -> None:
    stated = quoted(section("JSON formats"))
    assert [name for name in (REPORT_FORMAT, CHECK_FORMAT, COMPARISON_FORMAT) if name not in stated] == []
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    row = next(row for row in cells(section("JSON formats")) if REPORT_FORMAT in row[0])
    assert quoted(row[0])[2:] == list(schema["properties"])
