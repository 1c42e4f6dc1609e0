"""The run folder: written whole or not at all, by one process, for one experiment, with types that do not drift."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from judgeloop.errors import FolderMismatch, StorageFailed
from judgeloop.records import (
    ADDED_ESTIMATE_COLUMNS,
    CANDIDATE_COLUMNS,
    JUDGMENT_COLUMNS,
    PREFERENCE_COLUMNS,
    SIGNAL_COLUMNS,
)
from judgeloop.rundir import TABLES, RunFolder, as_csv

JUDGMENT = (0, "a", 1, "policy", "i", "", "m00", "j", "ab", 0, "first", 0.7, "", "c0", "c1", False, "", "s0/g1")


def _judgments(*rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(JUDGMENT_COLUMNS))


def _python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


# -- atomic writes ---------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for text in ("old", "new ä \ud800"):
        folder.write_text("deep/report.md", text)
    assert (folder.path / "deep/report.md").read_text(encoding="utf-8") == "new ä ?"
    assert [path.name for path in (folder.path / "deep").iterdir()] == ["report.md"]


def test_where_replacing_fails_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_text("report.md", "old")

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(
        StorageFailed, match=r"report\.md: cannot be written \(No space left on device\); make room and run"
    ):
        folder.write_text("report.md", "new")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


KILLED = """
import os, pathlib, signal, sys
from judgeloop.rundir import RunFolder
pathlib.Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
RunFolder(sys.argv[1]).write_text("report.md", "new" * 1000)
"""


def test_a_process_killed_before_the_replacing_leaves_the_old_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_text("report.md", "old")
    with _python(KILLED, tmp_path) as process:
        process.communicate(timeout=60)
    assert process.returncode == -9
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == "old"
    folder.write_text("report.md", "again")  # the draft that was left is no hindrance
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


NO_ROOM = """
import resource, sys
import pandas as pd
from judgeloop.errors import StorageFailed
from judgeloop.rundir import RunFolder
sys.dont_write_bytecode = True  # Python would leave what it compiles cut short, for later processes to fail on
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
folder = RunFolder(sys.argv[1])
for write in (lambda: folder.write_text("report.md", "new" * 1000), lambda: folder.write_part("signals", "s000-g00", pd.DataFrame({"replicate": [1]}))):
    try:
        write()
    except StorageFailed as error:
        print(error)
"""


def test_without_room_it_is_storage_failed_in_one_sentence(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_text("report.md", "old")
    with _python(NO_ROOM, tmp_path) as process:
        output, _ = process.communicate(timeout=60)
    first, second = output.splitlines()
    assert first.startswith(f"{tmp_path}/report.md: cannot be written (File too large); make room and run the same")
    assert second.startswith(f"{tmp_path}/tables/signals/s000-g00.parquet: cannot be written (File too large)")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["report.md"]
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == "old"


def test_a_folder_that_cannot_be_made_is_storage_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StorageFailed, match=r"cannot be written \((Not a directory|File exists)\)"):
        RunFolder(tmp_path / "file").write_text("report.md", "new")
    with pytest.raises(FolderMismatch, match="this is a file, not a folder"), RunFolder(tmp_path / "file").claim("h"):
        pass


# -- claims ----------------------------------------------------------------------------------------------------------

HOLDING = """
import sys
from judgeloop.rundir import RunFolder
with RunFolder(sys.argv[1]).claim("sha256:one"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_ends_even_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with _python(HOLDING, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(FolderMismatch, match="another judgeloop process is writing here"), RunFolder(path).claim("sha256:one"):  # fmt: skip
            pass
        process.kill()
        process.communicate(timeout=60)
    with RunFolder(path).claim("sha256:one") as folder:
        folder.write_json("environment.json", {"experiment_hash": "sha256:one"})


def test_a_claim_is_given_back_and_taken_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    for _ in range(2):
        with folder.claim("h"):
            with pytest.raises(FolderMismatch, match="another judgeloop process"), folder.claim("h"):
                pass
            folder.write_json("environment.json", {"experiment_hash": "h"})


def test_another_experiment_s_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("environment.json", {"experiment_hash": "sha256:aaaaaaaaaaaaaaaaaaaa"})
    folder.write_text("calls/audit/judge.jsonl", '{"call":"audit/judge/m/i/p/ab/r0"}\n')
    with pytest.raises(FolderMismatch, match=r"belongs to another experiment \(sha256:aaaaaaaaaaaa…, this one is sha256:bbbbbbbbbbbb…\); give another --out"), folder.claim("sha256:bbbbbbbbbbbbbbbb"):  # fmt: skip
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calls", "environment.json"]


@pytest.mark.parametrize(
    ("left", "answered"),
    [
        ({}, False),
        ({"calls/audit/trial.jsonl": '{"call":"audit/trial/m/json"}\n{"call":"audit/jud'}, False),
        ({"calls/panels/g00-judge.jsonl": '{"call":"panels/g0/judge/trial/m/json"}\n', "tables/items/all.parquet": ""}, False),
        ({"calls/panels/g00-judge.jsonl": '{"call":"panels/g0/judge/trial/m/json"}\n{"call":"panels/g0/judge/i/anchor-000/ab/r0"}\n'}, True),
        ({"calls/audit/judge.jsonl": '{"call":"audit/judge/trial/i/p/ab/r0"}\n'}, True),  # a judge of that name
        ({"calls/audit/judge.jsonl": "?\n"}, True),
        ({"calls/s0/g00-draft.jsonl.gz": ""}, True),
        ({"tables/judgments/log.parquet": ""}, True),
        ({"batch/m-1.jsonl": ""}, True),
    ],
)  # fmt: skip
def test_a_folder_without_answers_is_taken_over(tmp_path: Path, left: dict[str, str], answered: bool) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("environment.json", {"experiment_hash": "sha256:one"})
    folder.write_text("experiment.yaml", "name: x\n")
    for name, content in left.items():
        folder.write_text(name, content)
    assert folder.has_answers == answered
    if answered:
        with pytest.raises(FolderMismatch, match="belongs to another"), folder.claim("sha256:two"):
            pass
    else:
        with folder.claim("sha256:two"):
            assert folder.is_claimed
    assert not folder.is_claimed


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(FolderMismatch, match="holds other files and no run"), RunFolder(tmp_path).claim("h"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "thesis.tex").rename(tmp_path / "experiment.yaml")  # an experiment's own folder is no run folder
    with pytest.raises(FolderMismatch, match="holds other files and no run"), RunFolder(tmp_path).claim("h"):
        pass


def test_a_run_killed_before_it_named_itself_is_resumed(tmp_path: Path) -> None:
    with RunFolder(tmp_path).claim("h") as folder:
        folder.write_text("experiment.yaml", "name: x\n")
    with RunFolder(tmp_path).claim("h") as folder:
        folder.write_text("experiment.yaml", "name: x\n")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FolderMismatch, match="holds other files"), RunFolder(tmp_path).claim("h"):
        pass


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_environment_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "environment.json").write_bytes(content)
    with pytest.raises(FolderMismatch, match=r"environment\.json: cannot be read"), RunFolder(tmp_path).claim("h"):
        pass


# -- tables ----------------------------------------------------------------------------------------------------------


def _type(folder: RunFolder, table: str, part: str) -> dict[str, str]:
    schema = pq.read_schema(folder.path / "tables" / table / f"{part}.parquet")
    return dict(zip(schema.names, map(str, schema.types), strict=True))


@pytest.mark.parametrize(
    ("table", "columns", "row"),
    [
        ("judgments", JUDGMENT_COLUMNS, JUDGMENT),
        ("preferences", PREFERENCE_COLUMNS, (0, "a", 0, "i", "m00", "ab", 0, "c0", "c0", "c1", 1.0, "raw")),
        ("signals", SIGNAL_COLUMNS, (0, "a", 0, "length", 0.5, float("nan"), 1.0, True)),
        (
            "candidates",
            (*CANDIDATE_COLUMNS[:7], "length", "tokens", "characters", "bold", "opener", *CANDIDATE_COLUMNS[7:]),
            (0, "a", 0, "i", "k0", "text", "", 3.2, 9, 40, 0.0, "other", 0.1, 1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0),
        ),
    ],
)
def test_an_empty_part_and_one_of_nothing_have_the_types_of_their_neighbours(
    tmp_path: Path, table: str, columns: tuple[str, ...], row: tuple[object, ...]
) -> None:
    assert table in TABLES
    folder = RunFolder(tmp_path)
    full = pd.DataFrame([row], columns=list(columns))
    lost = full.astype(object)
    lost.loc[0, [name for name in columns if name not in ("identical", "converged")]] = None
    folder.write_part(table, "s000-g00", full)
    folder.write_part(table, "s000-g01", full.iloc[:0])
    folder.write_part(table, "s000-g02", pd.DataFrame(columns=list(columns)))
    folder.write_part(table, "s000-g03", lost)
    types = [_type(folder, table, f"s000-g{n:02d}") for n in range(4)]
    assert types[0] == types[1] == types[2] == types[3]
    assert tuple(types[0]) == columns
    whole = folder.table(table)
    assert len(whole) == 2
    pd.testing.assert_frame_equal(whole.iloc[:1], full, check_dtype=False)


def test_parts_of_equal_frames_are_equal_bytes_however_they_came_to_be(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    frame = _judgments(JUDGMENT, (*JUDGMENT[:11], None, *JUDGMENT[12:]))
    folder.write_part("judgments", "first", frame)
    other = _judgments((*JUDGMENT[:11], None, *JUDGMENT[12:]), JUDGMENT).iloc[::-1].astype({"replicate": "Int64"})
    folder.write_part("judgments", "second", other.astype({"order": "category", "p_first": "object"}))
    first, second = ((tmp_path / f"tables/judgments/{name}.parquet").read_bytes() for name in ("first", "second"))
    assert first == second
    folder.write_part("judgments", "second", frame.assign(repeat=1))
    assert (tmp_path / "tables/judgments/second.parquet").read_bytes() != first


def test_half_surrogates_of_a_model_s_reply_can_be_stored(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_part("candidates", "x", pd.DataFrame({"text": ["a \ud83d b \U0001f600"]}, dtype=object))
    assert folder.table("candidates")["text"].tolist() == ["a ? b \U0001f600"]


def test_parts_are_read_in_order_and_a_table_that_was_never_written_is_empty(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.table("signals").empty
    for n in (2, 0, 1):
        folder.write_part("signals", f"s00{n}-g00", pd.DataFrame({"replicate": [n]}))
    assert folder.table("signals")["replicate"].tolist() == [0, 1, 2]


def test_a_part_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_part("signals", "s000-g00", pd.DataFrame({"replicate": [1]}))
    part = tmp_path / "tables/signals/s000-g00.parquet"
    part.write_bytes(part.read_bytes()[:-30])
    with pytest.raises(
        FolderMismatch, match=r"tables/signals: a part cannot be read \(.*\); run the same command again$"
    ):
        folder.table("signals")
    (tmp_path / "estimates.parquet").write_bytes(b"PAR1")
    with pytest.raises(FolderMismatch, match=r"estimates\.parquet: cannot be read \(.*\); run the same command again$"):
        folder.estimates()


def test_estimates_are_one_frame_in_two_formats(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(FolderMismatch, match="no estimates yet"):
        folder.estimates()
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.touch()
    with pytest.raises(FolderMismatch, match=f"no estimates; run judgeloop analyze {verdicts}$"):
        folder.estimates()
    frame = pd.DataFrame({"term": ["a", 'b, "c"'], "estimate": [0.1, float("nan")]})
    folder.write_estimates(frame)
    added = {column: "" if column == "verdict" else float("nan") for column in ADDED_ESTIMATE_COLUMNS}
    pd.testing.assert_frame_equal(folder.estimates(), frame.assign(**added))
    assert (tmp_path / "estimates.csv").read_bytes() == b'term,estimate\na,0.1\n"b, ""c""",\n'


def test_a_folder_that_is_no_run_and_one_without_a_recording_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FolderMismatch, match=r"not a run folder \(no experiment\.yaml\)"):
            RunFolder.existing(path)
        with pytest.raises(FolderMismatch, match=r"no recording here \(no folder calls\)"):
            RunFolder.recorded(path)
    RunFolder(tmp_path).write_text("experiment.yaml", "name: x\n")
    assert RunFolder.existing(tmp_path).experiment_text() == "name: x\n"
    (tmp_path / "calls").mkdir()
    assert RunFolder.recorded(tmp_path).path == tmp_path


@pytest.mark.parametrize("moved", [False, True])
def test_a_folder_that_is_not_there_at_the_end_is_an_error(tmp_path: Path, moved: bool) -> None:
    path = tmp_path / "run"
    with pytest.raises(StorageFailed, match="moved, deleted or replaced"), RunFolder(path).claim("h"):
        path.rename(tmp_path / "elsewhere") if moved else shutil.rmtree(path)


def test_a_name_is_no_formula_and_no_new_row(tmp_path: Path) -> None:
    names = ["=1+1", "\uff1d1", "\ufeff=1", "  @x", "-2", "a\rb\r\nc", 'gpt-4, the "best"', "", None]
    frame = pd.DataFrame({"judge": names, "estimate": [-0.5, *[1.0] * 8], "note": "x"})
    (tmp_path / "table.csv").write_text(as_csv(frame), encoding="utf-8", newline="")
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = ["'=1+1", "'\uff1d1", "'\ufeff=1", "'  @x", "'-2", "a b c", 'gpt-4, the "best"', "", ""]
    assert [row["judge"] for row in rows] == expected
    assert rows[0]["estimate"] == "-0.5"
