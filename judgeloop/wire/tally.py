"""How many exchanges a growing recording holds: only what was appended since the last look is read."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

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
