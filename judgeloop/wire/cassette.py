"""The cassette: every exchange with a model, appended as one JSON line, found again by call id and request hash.

Recording, caching, resume and replay are this one mechanism. A part is one file: ``calls/s3/g02-judge.jsonl`` holds the
judge calls of replicate 3, generation 2. Parts may be compressed (``.jsonl.gz``) once nothing is appended to them.
No header and no key is ever stored.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
import os
import re
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from judgeloop.errors import FolderMismatch, StorageFailed
from judgeloop.records import REWARD_ROUTES, Call, Route, canonical

_FIELDS = ("key", "call", "request", "status", "response", "attempts")
_SAFE = re.compile(r"[^A-Za-z0-9._-]")
_OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call and how it ended. ``status`` is the last HTTP status, 0 where none arrived; ``fault`` names why there
    is no readable response after the last of ``attempts``; ``route`` is the call's."""

    call: str
    key: str
    request: Mapping[str, Any]
    status: int
    response: Any
    attempts: int
    fault: str = ""
    route: Route = ""

    def line(self) -> bytes:
        raw = {name: getattr(self, name) for name in _FIELDS}
        if self.fault:
            raw["fault"] = self.fault
        if self.route:
            raw["route"] = self.route
        # ASCII only: a lone surrogate in a reply survives as \udXXX instead of breaking the file.
        return json.dumps(raw, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def part_name(call_id: str) -> str:
    """The part that a call id belongs to, relative to ``calls/``, without its ending."""
    parts = [_SAFE.sub("_", part) if part.strip(".") else "_" for part in call_id.split("/")]
    if len(parts) > 3 and (generation := re.fullmatch(r"g(\d+)", parts[1])):
        return f"{parts[0]}/g{int(generation[1]):02d}-{parts[2]}"
    return f"{parts[0]}/{parts[1]}" if len(parts) > 2 else parts[0]


class Cassette:
    """The recorded exchanges of one run folder. Not shared between processes: the run folder's lock sees to that."""

    def __init__(self, folder: str | Path, *, writable: bool) -> None:
        """Index ``folder``/calls. Drops a torn last line (a killed process) if ``writable``, else ignores it.

        Raises FolderMismatch with file and line for any other damaged line.
        """
        self.folder = Path(folder) / "calls"
        self._writable = writable
        self._files: dict[Path, int] = {}
        self._read()

    def _read(self) -> None:
        self._index: dict[bytes, tuple[Path, int, int]] = {}
        self._bodies: dict[bytes, list[bytes]] = {}
        # Compressed parts are unpacked once and end to end into one file: a run asks all its parts in turn.
        self._unpacked = tempfile.TemporaryFile()  # noqa: SIM115  closed with the cassette, however it goes
        weakref.finalize(self, self._unpacked.close)
        # What was packed is older than what was appended since: the later recording of a call counts.
        for path in sorted([*self.folder.rglob("*.jsonl.gz"), *self.folder.rglob("*.jsonl")], key=_part_order):
            self._read_part(path)

    def _read_part(self, path: Path) -> None:
        packed = path.suffix == ".gz"
        try:
            content = path.read_bytes()
            if packed:
                content = gzip.decompress(content)
                shift = self._unpacked.seek(0, os.SEEK_END)
                self._unpacked.write(content)
        except (OSError, EOFError, zlib.error) as error:
            raise FolderMismatch(
                f"{path}: cannot be read ({error}); restore this part or delete it to ask again"
            ) from None
        offset, number = 0, 0
        while offset < len(content):
            number += 1
            end = content.find(b"\n", offset) + 1
            torn = end == 0
            if torn and not packed:
                if self._writable:
                    self._cut(path, offset)
                return
            end = end or len(content)
            try:
                exchange = _exchange(content[offset:end])
            except _DAMAGE:
                raise FolderMismatch(
                    f"{path}:{number}: this line is not a recorded exchange; restore the file, or delete the line to ask that call again"
                ) from None
            self._remember(exchange.call, exchange.key, path, offset + shift if packed else offset, end - offset)
            offset = end

    def _cut(self, path: Path, size: int) -> None:
        try:
            os.truncate(path, size)
        except OSError as error:
            raise StorageFailed(
                f"{path}: cannot be mended ({error.strerror}); make it writable and run the same command again"
            ) from None

    def _remember(self, call: str, key: str, path: Path, offset: int, length: int) -> None:
        name = _name(call, key)
        if name not in self._index:
            self._bodies.setdefault(_name("", key), []).append(name)
        self._index[name] = (path, offset, length)

    def __len__(self) -> int:
        return len(self._index)

    def get(self, call_id: str, key: str) -> Exchange | None:
        """The recorded exchange of that call id and request hash, or None."""
        place = self._index.get(_name(call_id, key))
        return None if place is None else self._load(*place)

    def by_body(self, key: str) -> list[Exchange]:
        """All exchanges with that request hash, in recorded order: how clients without call ids are served."""
        return [self._load(*self._index[name]) for name in self._bodies.get(_name("", key), [])]

    def exchanges(self) -> Iterator[Exchange]:
        """Every recorded exchange, part by part."""
        for place in list(self._index.values()):
            yield self._load(*place)

    def _load(self, path: Path, offset: int, length: int) -> Exchange:
        try:
            if path.suffix == ".gz":
                self._unpacked.seek(offset)
                return _exchange(self._unpacked.read(length))
            with path.open("rb") as file:
                file.seek(offset)
                return _exchange(file.read(length))
        except _DAMAGE:
            raise FolderMismatch(
                f"{path}: changed or vanished while it was read; leave the run folder alone and run the same command again"
            ) from None

    def append(self, exchange: Exchange) -> None:
        """Record an exchange. Raises StorageFailed, and leaves no torn line, where the disk is full."""
        path = self.folder / f"{part_name(exchange.call)}.jsonl"
        line = exchange.line()
        file = -1
        try:
            file = self._file(path)
            offset = os.fstat(file).st_size
            try:
                written = 0
                while written < len(line):  # what fits is written first; the next write says why no more does
                    written += os.write(file, line[written:])
            except OSError:
                os.ftruncate(file, offset)
                raise
        except OSError as error:
            raise StorageFailed(
                f"{path}: cannot be written ({error.strerror}); make room and run the same command again, nothing recorded is lost"
            ) from None
        self._remember(exchange.call, exchange.key, path, offset, len(line))

    def _file(self, path: Path) -> int:
        if path not in self._files:
            if not self._writable:
                raise OSError(30, "opened for replay only")
            path.parent.mkdir(parents=True, exist_ok=True)
            if len(self._files) >= _OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self._files[path]

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def nearest(self, call: Call) -> str:
        """A sentence that names the recording nearest to a call that was not found, and what differs."""
        if not self._index:
            return f"{self.folder} holds no recorded call"
        if same := self.by_body(call.key):
            return f"the same request is recorded as {same[0].call}"
        best, score = None, -1.0
        matcher = difflib.SequenceMatcher(autojunk=False, b=call.call_id)
        for exchange in self.exchanges():
            matcher.set_seq1(exchange.call)
            if matcher.real_quick_ratio() > score and (ratio := matcher.ratio()) > score:
                best, score = exchange, ratio
                if ratio == 1.0:
                    break
        assert best is not None
        routes = (
            [] if best.route == call.route else [f"recorded route {_named(best.route)}, asked {_named(call.route)}"]
        )
        differences = "; ".join([*routes, *_differences(best.request, call.body)][:3])
        return f"nearest recording {best.call}: {differences or 'same request'}"

    def pack(self) -> None:
        """Compress every part (deterministic gzip), for fixtures. What was packed before stays, in front."""
        self.close()
        for path in sorted(self.folder.rglob("*.jsonl")):
            packed, fresh = path.with_suffix(".jsonl.gz"), path.with_suffix(".jsonl.gz.new")
            content = gzip.decompress(packed.read_bytes()) if packed.exists() else b""
            fresh.write_bytes(gzip.compress(content + path.read_bytes(), compresslevel=9, mtime=0))
            fresh.replace(packed)
            path.unlink()
        self._read()


_DAMAGE = (OSError, ValueError, KeyError, TypeError, RecursionError)


def _exchange(line: bytes) -> Exchange:
    """The exchange in a line; one of _DAMAGE if it is none."""
    raw = json.loads(line)
    if any(not isinstance(raw[name], str) for name in ("call", "key")) or not isinstance(raw["request"], dict):
        raise TypeError
    if any(isinstance(raw[name], bool) or not isinstance(raw[name], int) for name in ("status", "attempts")):
        raise TypeError
    if (route := raw.get("route", "")) not in ("", *REWARD_ROUTES):
        raise ValueError
    return Exchange(**{name: raw[name] for name in _FIELDS}, fault=str(raw.get("fault", "")), route=route)


def _named(route: Route) -> str:
    return f"/{route}" if route else "/chat/completions"


def _part_order(path: Path) -> tuple[str, bool]:
    return str(path).removesuffix(".gz"), path.suffix != ".gz"


def _name(call: str, key: str) -> bytes:
    return hashlib.sha256(f"{call}\n{key}".encode("utf-8", "surrogatepass")).digest()[:16]


def _differences(recorded: Any, asked: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, each as `path: recorded … , asked …`."""
    if isinstance(recorded, dict) and isinstance(asked, Mapping):
        found = []
        for key in dict.fromkeys([*recorded, *asked]):
            here = f"{path}.{key}" if path else str(key)
            if key not in recorded:
                found.append(f"{here}: not recorded, asked {_shown(asked[key])}")
            elif key not in asked:
                found.append(f"{here}: recorded {_shown(recorded[key])}, not asked")
            else:
                found += _differences(recorded[key], asked[key], here)
        return found
    if isinstance(recorded, list) and isinstance(asked, list | tuple):
        counted = len(recorded) != len(asked)
        found = [f"{path}: recorded {_entries(recorded)}, asked {_entries(asked)}"] if counted else []
        pairs = enumerate(zip(recorded, asked, strict=False))
        return found + [line for index, (one, other) in pairs for line in _differences(one, other, f"{path}[{index}]")]
    if recorded == asked and type(recorded) is type(asked):  # 1 and 1.0 are different requests
        return []
    if isinstance(recorded, str) and isinstance(asked, str):
        letters = enumerate(zip(recorded, asked, strict=False))
        same = next((index for index, (one, other) in letters if one != other), min(len(recorded), len(asked)))
        start = max(0, same - 20)
        return [
            f"{path} at character {same}: recorded …{recorded[start : same + 40]!r}, asked …{asked[start : same + 40]!r}"
        ]
    return [f"{path}: recorded {_shown(recorded)}, asked {_shown(asked)}"]


def _entries(values: Sequence[Any]) -> str:
    """ "2 entries (system, user)": how many, and whose where they are messages."""
    roles = [str(value["role"]) for value in values if isinstance(value, Mapping) and "role" in value]
    whose = f" ({', '.join(roles[:6])}{', …' if len(roles) > 6 else ''})" if roles else ""
    return f"{len(values)} {'entry' if len(values) == 1 else 'entries'}{whose}"


def _shown(value: Any) -> str:
    """A JSON value as JSON, cut with a mark."""
    text = canonical({"": value})[4:-1]
    return text if len(text) <= 60 else f"{text[:60]}…"


# How many exchanges a growing recording holds: only what was appended since the last look is read.

_CHUNK = 1 << 20


@dataclass(slots=True)
class _Part:
    """One file: bytes read so far, lines in them."""

    size: int = 0
    lines: int = 0


@dataclass
class Tally:
    """Counts the recorded exchanges below ``folder``/calls, which another process may be writing; nothing is locked."""

    folder: Path
    _parts: dict[Path, _Part] = field(default_factory=dict)

    def look(self) -> tuple[int, float | None]:
        """(exchanges, when the last one was written in seconds since the epoch; None where there is none yet)."""
        last: float | None = None
        for path in (self.folder / "calls").rglob("*.jsonl*"):
            if not path.name.endswith((".jsonl", ".jsonl.gz")):
                continue
            with suppress(OSError, EOFError, zlib.error):  # a part that goes while it is looked at is seen next time
                stat = path.stat()
                part = self._parts.setdefault(path, _Part())
                if stat.st_size < part.size:
                    part.size = part.lines = 0
                if stat.st_size > part.size:
                    _count(path, part)
                if stat.st_size:
                    last = max(last or 0.0, stat.st_mtime)
        return sum(part.lines for part in self._parts.values()), last


def _count(path: Path, part: _Part) -> None:
    if path.suffix == ".gz":
        part.lines, part.size = gzip.decompress(path.read_bytes()).count(b"\n"), path.stat().st_size
        return
    with path.open("rb") as file:
        file.seek(part.size)
        while chunk := file.read(_CHUNK):
            part.lines += chunk.count(b"\n")
            part.size += len(chunk)
