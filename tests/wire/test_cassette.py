"""The cassette: what is recorded is found again, byte for byte, and damage is named or mended."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop.errors import FolderMismatch, StorageFailed
from judgeloop.records import Call
from judgeloop.wire.cassette import Cassette, Exchange, part_name, trained_tokens


def exchange(call: str, text: str = "x", response: Any = None, **more: Any) -> Exchange:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return Exchange(call, Call(call, "m", body).key, body, 200, {"said": text} if response is None else response, 1)


def filled(folder: Path, count: int = 3, stem: str = "s0/g1/judge/i") -> list[Exchange]:
    cassette = Cassette(folder, writable=True)
    exchanges = [exchange(f"{stem}{number}/m/ab", f"text {number}") for number in range(count)]
    for entry in exchanges:
        cassette.append(entry)
    cassette.close()
    return exchanges


def test_parts_and_the_recorded_format(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path, writable=True)
    entry = exchange("s3/g2/judge/arm/item/m00/ba/r0", "ü\u2028\x85\r\n\ud800")
    failed = Exchange("audit/trial", Call("", "m", {}).key, {}, 0, None, 6, "timeout", earlier_tokens=(5, 2))
    cassette.append(entry)
    cassette.append(failed)
    cassette.close()
    line = (tmp_path / "calls/s3/g02-judge.jsonl").read_bytes()
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert len(line.splitlines()) == 1
    assert list(json.loads(line)) == ["key", "call", "request", "status", "response", "attempts", "spent", "checksum"]
    fault = json.loads((tmp_path / "calls/audit.jsonl").read_bytes())
    assert list(fault) == [
        "key",
        "call",
        "request",
        "status",
        "response",
        "attempts",
        "fault",
        "earlier_tokens",
        "spent",
        "checksum",
    ]
    again = Cassette(tmp_path, writable=False)
    assert again.get(entry.call, entry.key) == entry
    assert again.get(failed.call, failed.key) == failed
    assert again.get(entry.call, failed.key) is None
    assert len(again) == 2


@pytest.mark.parametrize(
    ("call", "part"),
    [
        ("s0/g0/draft/item/p00", "s0/g00-draft"), ("s12/g3/judge/arm/item/m/ab/r0", "s12/g03-judge"),
        ("panels/g10/judge/i/m/ab", "panels/g10-judge"), ("audit/judge/i/ab", "audit/judge"), ("models", "models"),
        ("../../etc/passwd", "_/_"), ("/x/y/z", "_/x"), ("a b/ü/c", "a_b/_"), ("s0/g1/../x/y", "s0/g01-_"),
    ],
)  # fmt: skip
def test_part_names_stay_inside_the_folder(call: str, part: str) -> None:
    assert part_name(call) == part


TEXT = st.text(st.characters(), max_size=6)
RESPONSE = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda x: st.lists(x, max_size=3) | st.dictionaries(TEXT, x, max_size=3))  # fmt: skip


@given(st.dictionaries(TEXT, RESPONSE, min_size=1, max_size=8), st.booleans())
def test_what_is_appended_is_found_again(
    tmp_path_factory: pytest.TempPathFactory, responses: dict[str, Any], packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    cassette = Cassette(folder, writable=True)
    exchanges = [
        exchange(call, call.encode("utf-8", "replace").decode(), response) for call, response in responses.items()
    ]
    for entry in exchanges:
        cassette.append(entry)
        assert cassette.get(entry.call, entry.key) == entry
    cassette.close()
    if packed:
        cassette.pack()
    again = Cassette(folder, writable=False)
    assert {entry.call: entry for entry in again.exchanges()} == {entry.call: entry for entry in exchanges}
    assert all(entry in again.by_body(entry.key) for entry in exchanges)


def test_numbers_of_any_size_are_found_as_they_were(tmp_path: Path) -> None:
    numbers = [2**63, 2**64 + 1, -(2**63) - 1, 1e-5, 1e300, -0.0, 10**400]
    entry = exchange("audit/judge/m/i/p/ab/r0", response={"numbers": numbers}, seed=2**64 + 1, penalty=1e-5)
    cassette = Cassette(tmp_path, writable=True)
    cassette.append(entry)
    found = cassette.get(entry.call, entry.key)
    assert found is not None
    assert repr(found.response["numbers"]) == repr(numbers)


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    first, second, third = filled(tmp_path)
    part = tmp_path / "calls/s0/g01-judge.jsonl"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    reading = Cassette(tmp_path, writable=False)
    assert reading.get(second.call, second.key) == second
    assert reading.get(third.call, third.key) is None
    assert part.read_bytes() == whole[:-1]
    writing = Cassette(tmp_path, writable=True)
    assert len(writing) == 2
    writing.append(third)
    writing.close()
    assert part.read_bytes() == whole
    assert Cassette(tmp_path, writable=False).get(first.call, first.key) == first


@pytest.mark.parametrize(
    "damage",
    [b"\n", b"{}\n", b"null\n", b'"x"\n', b"\x00\x00\n", b"\xff\n", b"[" * 10_000 + b"\n", b'{"key":1,"call":"a","request":{},"status":200,"response":{},"attempts":1}\n',
     b'{"key":"k","call":"a","request":[],"status":200,"response":{},"attempts":1}\n', b'{"key":"k","call":"a","request":{},"status":"200","response":{},"attempts":1}\n'],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path: Path, damage: bytes) -> None:
    filled(tmp_path)
    part = tmp_path / "calls/s0/g01-judge.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(lines[0] + damage + lines[2])
    for writable in (True, False):
        with pytest.raises(FolderMismatch, match=r"g01-judge\.jsonl:2: .*delete the line"):
            Cassette(tmp_path, writable=writable)
    assert part.read_bytes() == lines[0] + damage + lines[2]


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_flipped_bit_changes_no_answer(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("run")
    exchanges = filled(folder)
    part = folder / "calls/s0/g01-judge.jsonl"
    content = bytearray(part.read_bytes())
    content[place % len(content)] ^= 1 << bit
    part.write_bytes(content)
    try:
        cassette = Cassette(folder, writable=False)
        found = [cassette.get(entry.call, entry.key) for entry in exchanges]
    except FolderMismatch:
        return
    assert all(one in (None, entry) for one, entry in zip(found, exchanges, strict=True))


def test_swapped_responses_and_another_request_are_refused(tmp_path: Path) -> None:
    first, *_ = filled(tmp_path)
    part = tmp_path / "calls/s0/g01-judge.jsonl"
    whole = part.read_text()
    part.write_text(whole.replace('"said":"text 0"', '"said":"text 9"'))
    with pytest.raises(FolderMismatch, match=r"g01-judge\.jsonl:1: .*was changed"):
        Cassette(tmp_path, writable=False)
    # Lines of earlier versions have no checksum; their key still names their request.
    part.write_text(re.sub(r',"checksum":"crc32:[0-9a-f]{8}"', "", whole))
    assert Cassette(tmp_path, writable=False).get(first.call, first.key) == first
    part.write_text(
        re.sub(r',"checksum":"crc32:[0-9a-f]{8}"', "", whole).replace('"content":"text 0"', '"content":"text 9"')
    )
    with pytest.raises(FolderMismatch, match="is not the one that its key names"):
        Cassette(tmp_path, writable=False).get(first.call, first.key)


def test_what_was_recorded_is_on_the_disk_after_a_while_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr("judgeloop.wire.cassette._MOST_OPEN_FILES", 2)
    recording = Cassette(tmp_path, writable=True)
    for generation in range(3):
        recording.append(exchange(f"s0/g{generation}/judge/a/m/ab"))
    assert synced == ["g00-judge.jsonl"]  # closed to make room
    monkeypatch.setattr("judgeloop.wire.cassette._SYNC_S", 0.0)
    recording.append(exchange("s0/g2/judge/b/m/ab"))
    assert synced[1:] == ["g01-judge.jsonl", "g02-judge.jsonl"]
    recording.close()
    assert synced[3:] == ["g01-judge.jsonl", "g02-judge.jsonl"]


def test_a_packed_line_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judgeloop.wire.cassette.MAX_LINE_BYTES", 2**20)
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls/g00-judge.jsonl.gz").write_bytes(gzip.compress(b" " * 2**24))
    with pytest.raises(FolderMismatch, match=r"g00-judge\.jsonl\.gz:1: this line has more than 1 MB unpacked"):
        Cassette(tmp_path, writable=False)


@pytest.mark.parametrize("lost", ["calls", "part", "all"])
@pytest.mark.parametrize("moved", [False, True])
def test_a_folder_that_is_there_no_more_is_an_error(tmp_path: Path, lost: str, moved: bool) -> None:
    folder = tmp_path / "run"
    part = folder / "calls/s0/g01-judge.jsonl"
    cassette = Cassette(folder, writable=True)
    cassette.append(exchange("s0/g1/judge/a/m/ab"))
    cassette.check_kept()
    gone = {"calls": folder / "calls", "part": part, "all": folder}[lost]
    if moved:
        gone.rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(StorageFailed, match="moved, deleted or replaced"):
        cassette.check_kept()
    for call in ("s0/g1/judge/b/m/ab", "s0/g2/judge/b/m/ab"):
        if call.startswith("s0/g1") or lost != "part":
            with pytest.raises(StorageFailed, match="moved, deleted or replaced"):
                cassette.append(exchange(call))
    assert not gone.exists()
    if moved:  # what was paid for is there
        assert (
            '"s0/g1/judge/b/m/ab"'
            in next(
                path for path in [tmp_path / "elsewhere", *(tmp_path / "elsewhere").rglob("*.jsonl")] if path.is_file()
            ).read_text()
        )


def test_failed_calls_count_as_not_recorded_where_they_are_asked_again(tmp_path: Path) -> None:
    done, *_ = filled(tmp_path)
    cassette = Cassette(tmp_path, writable=True)
    failed = [
        Exchange(call, Call(call, "m", {}).key, {"model": "m"}, 500, None, 3, fault, earlier_tokens=(4, 1))
        for call, fault in (("s0/g1/judge/x/m/ab", "http_500"), ("audit/trial/m/json", "http_500"), ("audit/trial/m/text", "timeout"), ("s0/g1/judge/y/m/ab", "cut_short"))
    ]  # fmt: skip
    for entry in failed:
        cassette.append(entry)
    assert {entry.call for entry in cassette.exchanges()} & {entry.call for entry in failed} == {
        entry.call for entry in failed[:3]
    }
    cassette.close()
    again = Cassette(tmp_path, writable=True, retry_failed=True)
    assert {entry.call for entry in again.exchanges()} & {entry.call for entry in failed} == {"audit/trial/m/json"}
    assert again.get(done.call, done.key) == done
    assert again.spent == cassette.spent == {"m": (3 + 4 * 3, 16, 4, 0)}


def test_line_ends_of_another_system_are_read(tmp_path: Path) -> None:
    exchanges = filled(tmp_path)
    part = tmp_path / "calls/s0/g01-judge.jsonl"
    part.write_bytes(part.read_bytes().replace(b"\n", b"\r\n"))
    cassette = Cassette(tmp_path, writable=False)
    assert [cassette.get(entry.call, entry.key) for entry in exchanges] == exchanges


def test_packing(tmp_path: Path) -> None:
    exchanges = filled(tmp_path) + filled(tmp_path, 40, "panels/g0/judge/i")
    cassette = Cassette(tmp_path, writable=True)
    cassette.pack()
    assert [cassette.get(entry.call, entry.key) for entry in exchanges] == exchanges
    part = tmp_path / "calls/s0/g01-judge.jsonl"
    assert not part.exists()
    packed = part.with_suffix(".jsonl.gz")
    first = packed.read_bytes()
    # What is recorded after packing is found beside it, wins over an older recording, and is packed behind it.
    newer = exchange(exchanges[0].call, "text 0", response={"said": "anew"})
    more = exchange("s0/g1/judge/i9/m/ab", "more")
    cassette = Cassette(tmp_path, writable=True)
    cassette.append(newer)
    cassette.append(more)
    cassette.close()
    expected = [newer, *exchanges[1:], more]
    for _ in range(2):
        cassette = Cassette(tmp_path, writable=True)
        assert [cassette.get(entry.call, entry.key) for entry in expected] == expected
        cassette.pack()
    assert gzip.decompress(packed.read_bytes()).count(b"\n") == 5
    assert gzip.decompress(packed.read_bytes()).startswith(gzip.decompress(first))
    assert gzip.compress(gzip.decompress(first), 9, mtime=0) == first


@pytest.mark.parametrize("cut", [0, 10, 40, -1])
def test_a_damaged_packed_part_is_named(tmp_path: Path, cut: int) -> None:
    filled(tmp_path)
    Cassette(tmp_path, writable=True).pack()
    packed = tmp_path / "calls/s0/g01-judge.jsonl.gz"
    content = packed.read_bytes()
    packed.write_bytes(content[:cut] if cut else b"not gzip")
    with pytest.raises(FolderMismatch, match=r"g01-judge\.jsonl\.gz"):
        Cassette(tmp_path, writable=False)
    packed.write_bytes(content[:30] + b"\xff\xff\xff\xff" + content[34:])
    with pytest.raises(FolderMismatch, match=r"g01-judge\.jsonl\.gz"):
        Cassette(tmp_path, writable=False)


def test_a_part_that_vanishes_is_named(tmp_path: Path) -> None:
    entry = filled(tmp_path)[0]
    cassette = Cassette(tmp_path, writable=False)
    (tmp_path / "calls/s0/g01-judge.jsonl").unlink()
    with pytest.raises(FolderMismatch, match="changed or vanished"):
        cassette.get(entry.call, entry.key)


def test_one_body_under_several_calls_is_served_in_recorded_order(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path, writable=True)
    exchanges = [exchange(f"foreign/{number}", "same", response={"n": number}) for number in range(3)]
    for entry in exchanges:
        cassette.append(entry)
    assert cassette.by_body(exchanges[0].key) == exchanges
    assert cassette.by_body("sha256:none") == []
    cassette.close()


def test_the_nearest_recording_and_what_differs(tmp_path: Path) -> None:
    assert "holds no recorded call" in Cassette(tmp_path / "empty", writable=False).nearest(Call("a", "m", {}))
    exchanges = filled(tmp_path)
    cassette = Cassette(tmp_path, writable=False)
    body = dict(exchanges[1].request)

    def nearest(call: str, **change: Any) -> str:
        return cassette.nearest(Call(call, "m", {**body, **change}))

    assert nearest("s9/elsewhere") == f"the same request is recorded as {exchanges[1].call}"
    sentence = nearest(exchanges[1].call, messages=[{"role": "user", "content": "text 1 more"}])
    assert sentence.startswith(
        f"nearest recording {exchanges[1].call}: messages[0].content at character 6: recorded …'text 1'"
    )
    two = [{"role": "system", "content": "s"}, *body["messages"]]
    sentence = nearest(exchanges[1].call, messages=two)
    assert "messages: recorded 1 entry (user), asked 2 entries (system, user); messages[0]" in sentence
    assert "{'" not in sentence
    assert nearest(exchanges[1].call, temperature=0.5).endswith("temperature: not recorded, asked 0.5")
    assert nearest("s0/g1/judge/i2/m/abc", model="n").startswith(
        f"nearest recording {exchanges[2].call}: model at character 0"
    )
    numbers = exchange("n/one", top_k=1)
    writing = Cassette(tmp_path, writable=True)
    writing.append(numbers)
    writing.close()
    sentence = writing.nearest(Call("n/one", "m", {**numbers.request, "top_k": 1.0}))
    assert sentence == "nearest recording n/one: top_k: recorded 1, asked 1.0"


def test_more_parts_than_open_files(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path, writable=True)
    exchanges = [exchange(f"s{number % 100}/g0/judge/i/{number}", str(number)) for number in range(300)]
    for entry in exchanges:
        cassette.append(entry)
    assert len(list(Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").exists() else []) < 100
    cassette.close()
    assert list(Cassette(tmp_path, writable=False).exchanges()) == sorted(exchanges, key=lambda entry: (part_name(entry.call), int(entry.call.rpartition("/")[2])))  # fmt: skip


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_cassette import exchange
from judgeloop.errors import StorageFailed
from judgeloop.wire.cassette import Cassette
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.dont_write_bytecode = True  # Python would leave what it compiles cut short, for later processes to fail on
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
cassette = Cassette(Path(sys.argv[1]), writable=True)
try:
    for number in range(100):
        cassette.append(exchange(f"s0/g0/judge/i/{number}", str(number)))
except StorageFailed as error:
    print(number, len(cassette), error)
"""


def test_a_full_disk_leaves_no_torn_line_and_is_resumed(tmp_path: Path) -> None:
    tests_folder = str(Path(__file__).parent)
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), tests_folder],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    stored, indexed, *message = ran.stdout.split()
    assert stored == indexed
    assert "g00-judge.jsonl: cannot be written (File too large); make room" in " ".join(message)
    part = tmp_path / "calls/s0/g00-judge.jsonl"
    content = part.read_bytes()
    assert content.endswith(b"\n")
    assert content.count(b"\n") == int(stored) > 3
    assert len(content) > 1700  # the line that did not fit was begun, and taken back
    cassette = Cassette(tmp_path, writable=True)
    assert len(cassette) == int(stored)
    cassette.append(exchange(f"s0/g0/judge/i/{stored}", stored))
    cassette.close()
    assert part.read_bytes().startswith(content)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("a file, where a folder has to be")
    with pytest.raises(StorageFailed, match="make room"):
        Cassette(tmp_path, writable=True).append(exchange("a/b/c"))
    filled(tmp_path / "run")
    with pytest.raises(StorageFailed, match="replay only"):
        Cassette(tmp_path / "run", writable=False).append(exchange("s0/g1/judge/x/y"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_torn_line_in_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    filled(tmp_path)
    part = tmp_path / "calls/s0/g01-judge.jsonl"
    part.write_bytes(part.read_bytes()[:-5])
    part.chmod(stat.S_IRUSR)
    with pytest.raises(StorageFailed, match="cannot be mended"):
        Cassette(tmp_path, writable=True)


@pytest.mark.slow
def test_a_hundred_thousand_exchanges(tmp_path: Path) -> None:
    exchanges = filled(tmp_path, 100_000)
    cassette = Cassette(tmp_path, writable=True)
    assert len(cassette) == 100_000
    assert all(cassette.get(entry.call, entry.key) == entry for entry in exchanges[::10])
    cassette.pack()
    assert all(cassette.get(entry.call, entry.key) == entry for entry in exchanges[::10])


@pytest.mark.parametrize(
    ("metrics", "tokens"), [({"tokens": 5}, 5), ({"tokens_at_most": 9}, 9), ({"tokens": "inf"}, 0), ({"loss": 0.5}, 0)]
)
def test_a_training_is_charged_at_most_where_its_tokens_are_not_said(metrics: dict[str, Any], tokens: int) -> None:
    trained = Exchange("s0/g0/train/a", "k", {}, 200, {"model": "m", "metrics": metrics}, 1, route="train")
    assert trained_tokens(trained) == tokens
