"""The cassette: every exchange with a model, appended as one JSON line, found again by call id and request hash; and a
count of the exchanges while another process still records them (``Tally``).

Recording, caching, resume and replay are this one mechanism. A part is one file: ``calls/s3/g02-judge.jsonl`` holds the
judge calls of replicate 3, generation 2. Parts may be compressed (``.jsonl.gz``) once nothing is appended to them.
No header and no key is ever stored.

Where several processes record one run, each has a *unit* of it to itself, a folder below ``calls/``: a replicate (``s3``) or a shard
of an audit (``shard-0003``). What stands elsewhere is shared: units read it and never write there.
"""

from __future__ import annotations

import difflib
import gzip
import json
import os
import re
import tempfile
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from judgeloop.errors import FolderMismatch, StorageFailed
from judgeloop.records import PASSING_FAULTS, ROUTES, TRIAL_ID, Call, Route, call_key, canonical, is_plain
from judgeloop.wire.reply import MAX_MESSAGE_BYTES, used_tokens

_FIELDS = ("key", "call", "request", "status", "response", "attempts")
CUT_SHORT = "cut_short"
"""The fault of a call that was stopped between its attempts: it is recorded for what these took, and never found."""
SHARD = "shard-"
"""What the name of an audit's unit begins with."""
_UNIT = re.compile(rf"(?:s|{SHARD})\d+")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_MOST_OPEN_FILES = 64
_CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 12 * MAX_MESSAGE_BYTES + 2**20
"""Bytes of an exchange, unpacked, that are read at most: a request and an answer, whose characters JSON may write in six bytes each."""
_DAMAGE = (OSError, ValueError, KeyError, TypeError, RecursionError)
_CHECKSUM = b',"checksum":"crc32:%08x"}'
"""The end of a line: the CRC-32 of all that stands before it. Lines of earlier versions have none."""
_CHECKSUM_BYTES = len(_CHECKSUM % 0)
_CHECKSUM_NAME = b',"checksum":"crc32:'
_KEY, _CALL = len(b'{"key":"'), b'","call":"'
_KEY_END = _KEY + len("sha256:") + 64
_SPENT = re.compile(rb',"attempts":([0-9]+),"spent":\["([^"\\]*)",([0-9]+),([0-9]+)\]\Z')
"""What ends the line of a plain answer, one without fault, route, weights or earlier attempts: such a line is indexed unparsed."""
_SPENT_BYTES = 300
_DIGITS = 24
"""The last digits of a request's hash by which the index tells requests of one call id apart."""
_LINE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True)
_LONG = 2.0**63
"""From about here on orjson reads a whole number as a float."""
_LENGTH_BITS, _PART_BITS = 30, 74
_MOST_LENGTH, _MOST_OFFSET = (1 << _LENGTH_BITS) - 1, (1 << _PART_BITS - _LENGTH_BITS) - 1
_SYNC_S = 30.0
"""Seconds of recording that a power cut can lose."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call and how it ended.

    ``call``: the call id. ``key``: the hash of ``request``. ``status``: the last HTTP status, 0 where none arrived.
    ``attempts``: how many it took, refusals for a rate limit left out. ``fault``: why there is no readable response after the last one, empty where there is
    one. ``route``: the scoring route or ``train``, empty for a chat completion. ``weights``: the digest of the trained weights
    that answered, empty for any other model.
    """

    call: str
    key: str
    request: Mapping[str, Any]
    status: int
    response: Any
    attempts: int
    fault: str = ""
    route: Route = ""
    weights: str = ""
    earlier_tokens: tuple[int, int] = (0, 0)
    """Prompt and completion tokens of the attempts before the last one, which were paid for too."""

    def line(self) -> bytes:
        """The exchange as a line of a part, with its checksum."""
        raw: dict[str, Any] = {
            "key": self.key, "call": self.call, "request": self.request, "status": self.status,
            "response": self.response, "attempts": self.attempts,
        }  # fmt: skip
        if self.fault:
            raw["fault"] = self.fault
        if self.route:
            raw["route"] = self.route
        if self.weights:
            raw["weights"] = self.weights
        if any(self.earlier_tokens):
            raw["earlier_tokens"] = list(self.earlier_tokens)
        raw["spent"] = [str(self.request.get("model", "")), *used_tokens(self.response)]
        content = b""
        with suppress(TypeError, RecursionError):
            if is_plain((self.response,)):  # of the request this was seen when its key was made
                content = orjson.dumps(raw)
        # Else in ASCII: a lone surrogate in a reply survives as \udXXX instead of breaking the file.
        content = (content or _LINE.encode(raw).encode())[:-1]
        return content + _CHECKSUM % zlib.crc32(content) + b"\n"


class Spending(NamedTuple):
    """What calls took: attempts that were sent, and the tokens in their answers."""

    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    training_tokens: float = 0


_NOTHING = Spending()


@dataclass(slots=True)
class _Appending:
    """A part that is open for appending: its number in places, its file's descriptor, the place by which the file is known, and its
    size in bytes."""

    path: Path
    part: int
    descriptor: int
    place: tuple[int, int]
    size: int


def trained_tokens(exchange: Exchange) -> float:
    """The tokens that a training was charged for, at most where the service does not say; 0 of other calls."""
    metrics = (
        exchange.response.get("metrics") if exchange.route == "train" and isinstance(exchange.response, dict) else None
    )
    tokens = metrics.get("tokens", metrics.get("tokens_at_most", 0)) if isinstance(metrics, dict) else 0
    return tokens if isinstance(tokens, int | float) else 0


def part_name(call_id: str) -> str:
    """The part of the cassette that holds a call id: a path below ``calls/``, without its ending."""
    parts = call_id.split("/")
    return _part_name(len(parts), tuple(parts[:3]))


@lru_cache(1024)
def _part_name(count: int, first: tuple[str, ...]) -> str:
    """``part_name`` of an id of so many segments, from the ``first`` three."""
    parts = [_UNSAFE.sub("_", part) if part.strip(".") else "_" for part in first]
    if count > 3 and (generation := re.fullmatch(r"g(\d+)", parts[1])):
        return f"{parts[0]}/g{int(generation[1]):02d}-{parts[2]}"
    return f"{parts[0]}/{parts[1]}" if count > 2 else parts[0]


class Cassette:
    """The recorded exchanges of one run folder. One process at a time may use it, or each unit of it: locks ensure that.

    ``spent``: model → what all its recorded calls took, those that were asked again too; of a ``unit``, what that one's took.
    """

    def __init__(
        self, folder: str | Path, *, writable: bool, retry_failed: bool = False, unit: str | None = None
    ) -> None:  # fmt: skip
        """The exchanges below ``folder``/calls. A torn last line, as a killed process leaves it, is cut off if ``writable``,
        else ignored. With ``retry_failed`` calls whose attempts all failed (``fault``) count as not recorded. ``unit``: its parts
        alone are written, and beside them those that all units share are read; "" is what is shared, None everything.

        Raises FolderMismatch with file and line for any other damaged line.
        """
        self.folder = Path(folder) / "calls"
        self._writable, self._retry_failed, self.unit = writable, retry_failed, unit
        self._files: dict[str, _Appending] = {}
        self._readers: dict[Path, BinaryIO] = {}
        self._own_place = _place(self.folder)
        self._synced_at = time.monotonic()
        self._failed: set[int] = set()
        """Names of the calls appended here that a later session asks again."""
        self._index_parts()

    def _index_parts(self) -> None:
        self._places: dict[int, int] = {}
        """Hash of a name → place (``_packed``), all that is held of a call. Of two names with one hash, of which a million have one in 40
        million times, the earlier counts as not recorded."""
        self._parts: list[Path] = []
        self._numbers: dict[Path, int] = {}
        self._names_of_body: dict[str, list[int]] | None = None
        self.spent: dict[str, Spending] = {}
        # Compressed parts are unpacked once and end to end into one file: a run reads all its parts in turn.
        self._unpacked = tempfile.TemporaryFile()  # noqa: SIM115  closed with the cassette, however it goes
        weakref.finalize(self, self._unpacked.close)
        # What was packed is older than what was appended since: the later recording of a call counts.
        for path in sorted([*self.folder.rglob("*.jsonl.gz"), *self.folder.rglob("*.jsonl")], key=_part_order):
            if self.unit is not None and _unit_of(path, self.folder) not in ("", self.unit):
                continue
            try:
                self._index_part(path)
            except (OSError, EOFError, zlib.error) as error:
                raise FolderMismatch(
                    f"{path}: cannot be read ({error}); restore this part or delete it to ask again"
                ) from None

    def _index_part(self, path: Path) -> None:
        """Remember where each exchange of a part stands. Bodies are read when they are wanted; here they are held against their
        checksums alone, and parsed where a line is no plain answer of this version."""
        packed, part = path.suffix == ".gz", self._number(path)
        is_own = self.unit in (None, _unit_of(path, self.folder))
        start = self._unpacked.seek(0, os.SEEK_END) if packed else 0
        offset, plain = start, Counter[tuple[bytes, bytes, bytes, bytes]]()
        with gzip.open(path) if packed else path.open("rb", buffering=_CHUNK_BYTES) as file:
            # A line of an unpacked file takes no more memory than it does on the disk.
            lines = iter(partial(file.readline, MAX_LINE_BYTES + 1), b"") if packed else file
            for number, line in enumerate(lines, start=1):
                if packed:
                    if len(line) > MAX_LINE_BYTES:
                        raise FolderMismatch(
                            f"{path}:{number}: this line has more than {MAX_LINE_BYTES >> 20} MB unpacked, the most that is read of a recorded exchange; restore the file, or delete the line to ask that call again"
                        )
                    self._unpacked.write(line)
                elif not line.endswith(b"\n"):
                    if self._writable and is_own:
                        self._cut(path, offset)
                    break
                place = _packed(part, offset, len(line))
                offset += len(line)
                if found := _plain(line):
                    name, spent = found
                    self._places[hash(name)] = place
                    plain[spent] += is_own
                    continue
                try:
                    exchange = _exchange(line)
                except _DAMAGE:
                    raise FolderMismatch(
                        f"{path}:{number}: this line is not a recorded exchange, or was changed; restore the file, or delete the line to ask that call again"
                    ) from None
                if is_own:
                    self._count(exchange)
                hashed = _name(exchange.call, exchange.key)
                known = self._parts[self._places.get(hashed, place) >> _PART_BITS]
                # A shard's failure may be older than the answer that is shared.
                is_older = exchange.fault and _unit_of(known, self.folder) != _unit_of(path, self.folder)
                if not (is_older or self._is_asked_again(exchange)):
                    self._places[hashed] = place
        for (attempts, model, prompt, completion), calls in plain.items():
            self._add(model.decode(), calls * int(attempts), calls * int(prompt), calls * int(completion))

    def _is_asked_again(self, exchange: Exchange) -> bool:
        """Whether an exchange of an earlier session counts as not recorded. A trial that an endpoint failed for what it asks is
        found, or another way to read verdicts might follow and every call be asked anew."""
        unit = self.unit or SHARD
        is_elsewhere = not unit.startswith(SHARD) and not exchange.call.startswith(f"{unit}/")
        if not self._retry_failed or not exchange.fault or is_elsewhere:
            return exchange.fault == CUT_SHORT
        return exchange.fault in PASSING_FAULTS or not TRIAL_ID.match(exchange.call)

    def _count(self, exchange: Exchange) -> None:
        """Add an exchange to ``spent``."""
        prompt, completion = used_tokens(exchange.response)
        earlier = exchange.earlier_tokens
        self._add(
            str(exchange.request.get("model", "")), exchange.attempts, prompt + earlier[0], completion + earlier[1],
            trained_tokens(exchange),
        )  # fmt: skip

    def _add(self, model: str, attempts: int, prompt: int, completion: int, training: float = 0) -> None:
        spent = self.spent.get(model, _NOTHING)
        self.spent[model] = Spending(spent[0] + attempts, spent[1] + prompt, spent[2] + completion, spent[3] + training)

    def _cut(self, path: Path, size: int) -> None:
        """Shorten a part to ``size`` bytes."""
        try:
            os.truncate(path, size)
        except OSError as error:
            raise StorageFailed(
                f"{path}: cannot be mended ({error.strerror}); make it writable and run the same command again"
            ) from None

    def __len__(self) -> int:
        return len(self._places)

    def get(self, call_id: str, key: str) -> Exchange | None:
        """The recorded exchange of that call id and request hash, or None."""
        place = self._places.get(_name(call_id, key))
        if place is None:
            return None
        exchange = self._load(place)
        if (exchange.call, exchange.key) != (call_id, key):
            return None
        if call_key(exchange.request, exchange.route, exchange.weights) != key:
            raise FolderMismatch(
                f"{self._parts[place >> _PART_BITS]}: the request that is recorded as {call_id} is not the one that its key names; restore the file, or delete that line to ask the call again"
            )
        return exchange

    def by_body(self, key: str) -> list[Exchange]:
        """All exchanges with that request hash, in recorded order; for clients that send no call ids."""
        if self._names_of_body is None:
            self._names_of_body = {}
            for name, place in self._places.items():
                self._names_of_body.setdefault(self._load(place).key, []).append(name)
        return [self._load(self._places[name]) for name in self._names_of_body.get(key, [])]

    def exchanges(self, kind: str = "") -> Iterator[Exchange]:
        """Every recorded exchange, part by part; with a ``kind`` of call (draft, judge, train) those of replicates alone."""
        for place in list(self._places.values()):
            if not kind or re.match(rf"g\d+-{kind}\.", self._parts[place >> _PART_BITS].name):
                yield self._load(place)

    def forget(self, exchange: Exchange) -> None:
        """Have a recorded exchange count as not recorded, until its call is recorded again."""
        self._places.pop(_name(exchange.call, exchange.key), None)

    def _number(self, path: Path) -> int:
        """The number of a part in places."""
        if path not in self._numbers:
            self._numbers[path] = len(self._parts)
            self._parts.append(path)
        return self._numbers[path]

    def _load(self, place: int) -> Exchange:
        """The exchange at a place; of a compressed part, at this offset of the unpacked file."""
        part, offset, length = _split(place)
        path = self._parts[part]
        try:
            file = self._unpacked if path.suffix == ".gz" else self._readers.get(path) or self._reader(path)
            file.seek(offset)
            return _exchange(file.read(length))
        except _DAMAGE:
            raise FolderMismatch(
                f"{path}: changed or vanished while it was read; leave the run folder alone and run the same command again"
            ) from None

    def _reader(self, path: Path) -> BinaryIO:
        """A part that is open for reading."""
        if len(self._readers) >= _MOST_OPEN_FILES:
            self._readers.pop(next(iter(self._readers))).close()
        self._readers[path] = reader = path.open("rb", buffering=0)
        weakref.finalize(self, reader.close)
        return reader

    def append(self, exchange: Exchange) -> None:
        """Record an exchange. Raises StorageFailed where it cannot be written, and then leaves no torn line; also where the
        folder was moved or deleted since."""
        part = part_name(exchange.call)
        line = exchange.line()
        file = self._files.get(part)
        try:
            if file is None:
                file = self._opened(part)
            try:
                written = os.write(file.descriptor, line)
                while written < len(line):  # a write may be partial: the next one raises the reason
                    written += os.write(file.descriptor, line[written:])
            except OSError:
                os.ftruncate(file.descriptor, file.size)
                raise
            self._sync()
        except OSError as error:
            raise StorageFailed(
                f"{self._path(part)}: cannot be written ({error.strerror}); make room and run the same command again, nothing recorded is lost"
            ) from None
        # Behind the write: where the folder was moved, what was paid for is in it.
        if _place(file.path) != file.place:
            raise self._gone(file.path)
        self._count(exchange)
        if exchange.fault != CUT_SHORT:
            name = _name(exchange.call, exchange.key)
            if self._names_of_body is not None and name not in self._places:
                self._names_of_body.setdefault(exchange.key, []).append(name)
            self._places[name] = _packed(file.part, file.size, len(line))
            self._failed.discard(name)
            if exchange.fault and self._is_asked_again(exchange):
                self._failed.add(name)
        file.size += len(line)

    def ask_again(self) -> None:
        """Let what was appended and failed count as not recorded from here on, as it does when the folder is opened again."""
        for name in self._failed:
            self._places.pop(name, None)
        self._failed.clear()
        self._names_of_body = None

    def _path(self, part: str) -> Path:
        inside = not self.unit or part.startswith(f"{self.unit}/")
        return self.folder / (f"{part}.jsonl" if inside else f"{self.unit}/{part}.jsonl")

    def _opened(self, part: str) -> _Appending:
        """A part, opened for appending."""
        path = self._path(part)
        if not self._writable:
            raise OSError(30, "opened for replay only")
        if self._own_place is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own_place = _place(self.folder)
        elif _place(self.folder) != self._own_place:
            raise self._gone(self.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(self._files) >= _MOST_OPEN_FILES:
            _close(self._files.pop(next(iter(self._files))))
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        opened = os.fstat(descriptor)
        self._files[part] = _Appending(
            path, self._number(path), descriptor, (opened.st_dev, opened.st_ino), opened.st_size
        )
        return self._files[part]

    def _sync(self) -> None:
        """Send what was appended to the disk itself, now and then."""
        if time.monotonic() - self._synced_at > _SYNC_S:
            for file in self._files.values():
                os.fsync(file.descriptor)
            self._synced_at = time.monotonic()

    def _gone(self, path: Path) -> StorageFailed:
        return StorageFailed(
            f"{path}: was moved, deleted or replaced while calls were recorded there; put the folder back and run the same command again, what is not in it is asked again"
        )

    def check_kept(self) -> None:
        """Raise StorageFailed where a part that holds recorded exchanges is there no more, or shorter."""
        sizes: dict[Path, int] = {}
        for part, offset, length in map(_split, self._places.values()):
            path = self._parts[part]
            sizes[path] = max(sizes.get(path, 0), offset + length)
        for path, size in sizes.items():
            try:
                kept = path.stat().st_size >= size or path.suffix == ".gz"
            except OSError:
                kept = False
            if not kept:
                raise self._gone(path)

    def close(self) -> None:
        """Close the parts that are open; who appends or reads later opens them again."""
        for file in self._files.values():
            _close(file)
        self._files.clear()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def nearest(self, call: Call) -> str:
        """The nearest recording to a call that is not recorded, and what differs from it, as part of a sentence."""
        if not self._places:
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
        differences = _differences(best.request, call.body)
        if best.route != call.route:
            differences.insert(0, f"recorded route {_address(best.route)}, asked {_address(call.route)}")
        return f"nearest recording {best.call}: {'; '.join(differences[:3]) or 'same request'}"

    def pack(self) -> None:
        """Compress every part (deterministic gzip), for fixtures. Exchanges that were packed before stay, in front."""
        self.close()
        for path in sorted(self.folder.rglob("*.jsonl")):
            packed, draft = path.with_suffix(".jsonl.gz"), path.with_suffix(".jsonl.gz.new")
            content = gzip.decompress(packed.read_bytes()) if packed.exists() else b""
            draft.write_bytes(gzip.compress(content + path.read_bytes(), compresslevel=9, mtime=0))
            draft.replace(packed)
            path.unlink()
        self._index_parts()


def _plain(line: bytes) -> tuple[bytes, tuple[bytes, bytes, bytes, bytes]] | None:
    """(name, what it spent) of a line that is whole and a plain answer, found unparsed; None of any other, which is parsed."""
    content = line[: -_CHECKSUM_BYTES - 1]
    call = _KEY_END + len(_CALL)
    if not line.startswith(_CALL, _KEY_END) or line[len(content) :] != _CHECKSUM % zlib.crc32(content) + b"\n":
        return None
    spent = _SPENT.search(content, len(content) - _SPENT_BYTES)
    name = line[call : line.index(b'"', call)]
    if spent is None or b"\\" in name:
        return None
    return name + line[_KEY_END - _DIGITS : _KEY_END], spent.groups()  # type: ignore[return-value]


def _exchange(line: bytes) -> Exchange:
    """The exchange in a line. Raises one of ``_DAMAGE`` where the line is none, or is not as its checksum says."""
    line = line.rstrip()
    content = line[:-_CHECKSUM_BYTES]
    if line.startswith(_CHECKSUM_NAME, len(content)) and line != content + _CHECKSUM % zlib.crc32(content):
        raise ValueError
    try:
        raw = orjson.loads(line)
        is_exact = is_plain(raw, 0.0, _LONG)
    except (orjson.JSONDecodeError, TypeError):  # lone surrogates, numbers that are not finite, or no exchange
        is_exact = False
    if not is_exact:
        raw = json.loads(line)
    if any(not isinstance(raw[name], str) for name in ("call", "key")) or not isinstance(raw["request"], dict):
        raise TypeError
    if any(isinstance(raw[name], bool) or not isinstance(raw[name], int) for name in ("status", "attempts")):
        raise TypeError
    if (route := raw.get("route", "")) not in ROUTES:
        raise ValueError
    prompt, completion = raw.get("earlier_tokens", (0, 0))
    fault, weights = (str(raw.get(name, "")) for name in ("fault", "weights"))
    return Exchange(
        **{name: raw[name] for name in _FIELDS}, fault=fault, route=route, weights=weights,
        earlier_tokens=(int(prompt), int(completion)),
    )  # fmt: skip


def _place(path: Path) -> tuple[int, int] | None:
    """The file system and number of a file or folder, by which it is told from another of its name; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  asked once a call
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unit_of(path: Path, folder: Path) -> str:
    """The unit to which a part below ``folder`` belongs, empty where it is shared."""
    first = path.relative_to(folder).parts[0]
    return first if _UNIT.fullmatch(first) else ""


def _address(route: Route) -> str:
    return f"/{route}" if route else "/chat/completions"


def _part_order(path: Path) -> tuple[str, bool]:
    """The sort key of a part's file: the compressed one first."""
    return str(path).removesuffix(".gz"), path.suffix != ".gz"


def _name(call: str, key: str) -> int:
    """The hash of a call id and request hash in the index."""
    return hash(f"{call}{key[-_DIGITS:]}".encode("utf-8", "surrogatepass"))


def _packed(part: int, offset: int, length: int) -> int:
    """The place of a line as one number: a tuple of three takes four times the memory."""
    return part << _PART_BITS | offset << _LENGTH_BITS | length


def _split(place: int) -> tuple[int, int, int]:
    """(part, offset, length) of a place."""
    return place >> _PART_BITS, place >> _LENGTH_BITS & _MOST_OFFSET, place & _MOST_LENGTH


def _differences(recorded: Any, asked: Any, path: str = "") -> list[str]:
    """The places where two JSON values differ, each as ``path: recorded … , asked …``."""
    if isinstance(recorded, dict) and isinstance(asked, Mapping):
        differences = []
        for key in dict.fromkeys([*recorded, *asked]):
            inner = f"{path}.{key}" if path else str(key)
            if key not in recorded:
                differences.append(f"{inner}: not recorded, asked {_short_json(asked[key])}")
            elif key not in asked:
                differences.append(f"{inner}: recorded {_short_json(recorded[key])}, not asked")
            else:
                differences += _differences(recorded[key], asked[key], inner)
        return differences
    if isinstance(recorded, list) and isinstance(asked, list | tuple):
        differences = []
        if len(recorded) != len(asked):
            differences.append(f"{path}: recorded {_count_phrase(recorded)}, asked {_count_phrase(asked)}")
        for index, (old, new) in enumerate(zip(recorded, asked, strict=False)):
            differences += _differences(old, new, f"{path}[{index}]")
        return differences
    if recorded == asked and type(recorded) is type(asked):  # 1 and 1.0 are different requests
        return []
    if isinstance(recorded, str) and isinstance(asked, str):
        letters = enumerate(zip(recorded, asked, strict=False))
        place = next((index for index, (old, new) in letters if old != new), min(len(recorded), len(asked)))
        part = slice(max(0, place - 20), place + 40)
        return [f"{path} at character {place}: recorded …{recorded[part]!r}, asked …{asked[part]!r}"]
    return [f"{path}: recorded {_short_json(recorded)}, asked {_short_json(asked)}"]


def _count_phrase(values: Sequence[Any]) -> str:
    """The number of entries, with the roles where they are messages: ``2 entries (system, user)``."""
    roles = [str(value["role"]) for value in values if isinstance(value, Mapping) and "role" in value]
    role_list = f" ({', '.join(roles[:6])}{', …' if len(roles) > 6 else ''})" if roles else ""
    return f"{len(values)} {'entry' if len(values) == 1 else 'entries'}{role_list}"


def _short_json(value: Any) -> str:
    """A value as JSON of 60 characters at most, with a mark where it is cut."""
    text = canonical({"": value})[4:-1]
    return text if len(text) <= 60 else f"{text[:60]}…"


@dataclass(slots=True)
class _Part:
    """The bytes of one file that were read so far, and the lines in them."""

    size: int = 0
    lines: int = 0


@dataclass
class Tally:
    """The count of the recorded exchanges below ``folder``/calls, which another process may be writing.

    Nothing is locked, and each look reads only what was appended since the last one.
    """

    folder: Path
    _parts: dict[Path, _Part] = field(default_factory=dict)

    def look(self) -> tuple[int, float | None]:
        """(exchanges, seconds since the epoch at which the last one was written, or None where there is none yet)."""
        last: float | None = None
        for path in (self.folder / "calls").rglob("*.jsonl*"):
            if not path.name.endswith((".jsonl", ".jsonl.gz")):
                continue
            with suppress(OSError, EOFError, zlib.error):  # a part may be packed meanwhile: the next look counts it
                stat = path.stat()
                part = self._parts.setdefault(path, _Part())
                if stat.st_size < part.size:
                    part.size = part.lines = 0
                if stat.st_size > part.size:
                    _count_lines(path, part)
                if stat.st_size:
                    last = max(last or 0.0, stat.st_mtime)
        return sum(part.lines for part in self._parts.values()), last

    def by_part(self) -> dict[str, int]:
        """Name of a part without its ending ("g00-draft") → exchanges at the last look, over all replicates, by name."""
        counts: dict[str, int] = {}
        for path, part in self._parts.items():
            name = path.name.split(".")[0]
            counts[name] = counts.get(name, 0) + part.lines
        return dict(sorted(counts.items()))


def _close(file: _Appending) -> None:
    """Close a part whose lines are then on the disk itself."""
    with suppress(OSError):  # no room for what the system has not written yet: the lines are read and found cut
        os.fsync(file.descriptor)
    os.close(file.descriptor)


def _count_lines(path: Path, part: _Part) -> None:
    """Add the lines that a file has gained; a compressed one is counted anew."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            part.lines = sum(chunk.count(b"\n") for chunk in iter(partial(file.read, _CHUNK_BYTES), b""))
        part.size = path.stat().st_size
        return
    with path.open("rb") as file:
        file.seek(part.size)
        while chunk := file.read(_CHUNK_BYTES):
            part.lines += chunk.count(b"\n")
            part.size += len(chunk)
