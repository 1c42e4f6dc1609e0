"""The run folder: what a run leaves behind, written atomically, owned by one process at a time.

Every table is a Parquet dataset, a part per replicate and generation. No time, attempt or path stands in a table, so a
resumed run's tables are byte for byte those of an uninterrupted one.
"""

from __future__ import annotations

import fcntl
import functools
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from judgeloop.errors import FolderMismatch, StorageFailed
from judgeloop.records import ADDED_ESTIMATE_COLUMNS, JUDGMENT_COLUMNS, TRIAL_ID

TABLES = ("items", "candidates", "judgments", "preferences", "signals")
# Column types by name, so that a part without scored, drafted or fitted rows has the types of the other parts. Every other
# column of numbers is a feature or a weight: float64.
_INTEGERS = ("replicate", "generation", "repeat", "rotation", "slot", "n_drawn", "tokens", "characters")
_BOOLEANS = ("identical", "order_drawn", "converged", "cut")
_TEXTS = (
    "arm", "panel", "item_id", "category", "pair_id", "judge", "order", "verdict", "reason", "candidate_first",
    "candidate_second", "gold", "call", "candidate_id", "text", "opener", "chosen", "rejected", "label_rule", "feature",
    "prompt", "reference", "match", "probe", "set_id", "said",
)  # fmt: skip
_TEXTS_OF = {"scores": ("scale",)}
"""Table → further columns of text: the scale of scores is a name, that of a signal a number."""
_OWN = {"judgments": (*JUDGMENT_COLUMNS, "probe")}
"""Table → its own columns, where it also holds an input's further columns: those have the type of their values, whatever
their names."""

_LOCK = ".lock"

REWARD_VERDICTS = "verdicts.jsonl"
"""The judgments of a reward's folder (``judgeloop.reward``)."""
Kind = Literal["run", "audit", "analysis"]
_KINDS: dict[str, Kind] = {"audit": "audit", "analyze": "analysis"}
"""Block of experiment.yaml → the kind of folder; without such a block it is a run's."""


class AnotherOwner(FolderMismatch):
    """The folder holds the answers of another experiment, audit or log."""


class Record(Protocol):
    """The results of a run, an audit or an analysis: a run folder, or the same tables in memory."""

    @property
    def name(self) -> str:
        """The folder's name, or that of what was analysed."""
        ...

    def table(self, name: str) -> pd.DataFrame:
        """A table by its name in TABLES; an empty frame where there is none."""
        ...

    def estimates(self) -> pd.DataFrame:
        """The estimates, a row each."""
        ...

    def environment(self) -> dict[str, Any]:
        """The content of environment.json."""
        ...

    def experiment_text(self) -> str:
        """The text of experiment.yaml."""
        ...


class RunFolder:
    """One run's folder. Reading needs no lock; writing does (``with folder.claim(...)``)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    # Reading.

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """An existing run folder. Raises FolderMismatch where it is none."""
        folder = cls(path)
        if not folder.exists:
            raise FolderMismatch(
                f"{path}: not a run folder (no experiment.yaml); give the folder that `judgeloop run` wrote"
            )
        return folder

    @classmethod
    def recorded(cls, path: str | Path) -> RunFolder:
        """A folder with recorded calls: a run folder, or what `judgeloop serve --record` wrote. Raises FolderMismatch."""
        folder = cls(path)
        if not (folder.path / "calls").is_dir():
            raise FolderMismatch(f"{path}: no recording here (no folder calls); give a run folder that holds one")
        return folder

    @property
    def exists(self) -> bool:
        """Whether a command of judgeloop wrote it."""
        return (self.path / "experiment.yaml").is_file()

    @property
    def kind(self) -> Kind:
        """The kind by the command that wrote it. A folder that cannot be read counts as a run's."""
        with suppress(FolderMismatch):
            experiment = self.experiment()
            return next((kind for block, kind in _KINDS.items() if block in experiment), "run")
        return "run"

    def table(self, name: str) -> pd.DataFrame:
        """All parts of a table in order; an empty frame where none was written."""
        parts = sorted((self.path / "tables" / name).glob("*.parquet"))
        if not parts:
            return pd.DataFrame()
        try:
            frame: pd.DataFrame = pa.concat_tables(map(_part, parts), promote_options="default").to_pandas()
        except (OSError, pa.ArrowException) as error:
            raise FolderMismatch(
                f"{self.path}/tables/{name}: a part cannot be read ({_line(error)}); run the same command again"
            ) from None
        return frame

    def estimates(self) -> pd.DataFrame:
        """The estimates, a row each (docs/contract.md, "Estimates"); columns that an earlier version did not write are
        empty."""
        path = self.path / "estimates.parquet"
        if not path.is_file():
            if (self.path / REWARD_VERDICTS).is_file():
                raise FolderMismatch(
                    f"{self.path}: holds the verdicts of judgeloop.reward and no estimates; run judgeloop analyze {self.path / REWARD_VERDICTS}"
                )
            raise FolderMismatch(
                f"{self.path}: no estimates yet; the run has not finished, run the same command to resume it"
            )
        try:
            frame: pd.DataFrame = _part(path).to_pandas()
        except (OSError, pa.ArrowException) as error:
            raise FolderMismatch(f"{path}: cannot be read ({_line(error)}); run the same command again") from None
        missing = [column for column in ADDED_ESTIMATE_COLUMNS if column not in frame.columns]
        return frame.assign(**{column: "" if column == "verdict" else math.nan for column in missing})

    def environment(self) -> dict[str, Any]:
        """environment.json: hashes, versions, seeds, endpoints' reported models; empty where it is not written yet."""
        path = self.path / "environment.json"
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise FolderMismatch(f"{path}: cannot be read ({_line(error)})") from None
        return content if isinstance(content, dict) else {}

    def experiment(self) -> dict[str, Any]:
        """experiment.yaml: the experiment as resolved, or what was audited or analysed. Raises FolderMismatch."""
        try:
            content = yaml.safe_load(self.experiment_text())
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise FolderMismatch(
                f"{self.path / 'experiment.yaml'}: cannot be read ({type(error).__name__}); run the same command again"
            ) from None
        return content if isinstance(content, dict) else {}

    def experiment_text(self) -> str:
        """The text of experiment.yaml."""
        return (self.path / "experiment.yaml").read_text(encoding="utf-8")

    @property
    def is_claimed(self) -> bool:
        """Whether a process writes here now."""
        try:
            with (self.path / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def has_answers(self) -> bool:
        """Whether anything stands here that was paid for or read: answers beside those to trial questions, batches that were
        sent, tables beside the items, a reward's verdicts."""
        tables = [path for path in (self.path / "tables").glob("*/*.parquet") if path.parent.name != "items"]
        batches = (self.path / "batch").glob("*")
        verdicts = (self.path / REWARD_VERDICTS).is_file()
        return (
            verdicts
            or bool(tables)
            or any(batches)
            or any(map(_holds_answers, (self.path / "calls").rglob("*.jsonl*")))
        )

    # Writing.

    def claim(self, identity: str) -> Claim:
        """The exclusive right to write here for the experiment with that hash.

        A folder of another experiment is taken over where it has no answers (``has_answers``). Raises FolderMismatch where
        it has, or where another process is writing.
        """
        return Claim(self, identity)

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file atomically (UTF-8). Raises StorageFailed."""
        return self.write_bytes(name, text.encode("utf-8", "replace"))

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file atomically: a reader sees the old one or the new one. Raises StorageFailed."""
        path = self.path / name
        temporary = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                # The name must not reach the disk before the bytes: after a power cut the file would stand there empty.
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StorageFailed(
                f"{path}: cannot be written ({error.strerror or error}); make room and run the same command again, nothing recorded is lost"
            ) from None
        return path

    def write_part(self, table: str, part: str, frame: pd.DataFrame) -> None:
        """Write one part of a table atomically, with the column types of the other parts. Raises StorageFailed."""
        sink = pa.BufferOutputStream()
        pq.write_table(_arrow(frame, table), sink, compression="zstd")
        self.write_bytes(f"tables/{table}/{part}.parquet", sink.getvalue().to_pybytes())

    def write_estimates(self, estimates: pd.DataFrame) -> None:
        """Write estimates.csv and estimates.parquet. Raises StorageFailed."""
        self.write_text("estimates.csv", as_csv(estimates))
        sink = pa.BufferOutputStream()
        pq.write_table(_estimates_table(estimates), sink, compression="zstd")
        self.write_bytes("estimates.parquet", sink.getvalue().to_pybytes())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file atomically, keys sorted. Raises StorageFailed."""
        self.write_text(name, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True) + "\n")


class Lock:
    """The exclusive right to write into a folder, made where there is none. It belongs to the process: a killed process leaves
    none."""

    def __init__(self, path: Path) -> None:
        """Raises FolderMismatch where another process has it, StorageFailed where nothing can be written there."""
        self._path, self._file = path, -1
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise FolderMismatch(
                f"{path}: another judgeloop process is writing here; wait for it or give another --out"
            ) from None
        except OSError as error:
            self.release()
            raise StorageFailed(f"{path}: cannot be written ({error.strerror or error}); give another --out") from None

    def check_kept(self) -> None:
        """Raise StorageFailed where the folder is no longer where it was."""
        own = os.fstat(self._file)
        with suppress(OSError):
            there = (self._path / _LOCK).stat()
            if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
                return
        raise StorageFailed(
            f"{self._path}: was moved, deleted or replaced while it was written; put the folder back and run the same command again"
        )

    def release(self) -> None:
        """Give the right back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Claim:
    """See RunFolder.claim. As a context manager it holds the folder's lock; where the work in it ends well the folder must still be
    there, else StorageFailed."""

    def __init__(self, folder: RunFolder, identity: str) -> None:
        self._folder, self._identity = folder, identity
        self._lock: Lock | None = None

    def __enter__(self) -> RunFolder:
        path = self._folder.path
        try:
            self._check()  # before anything is written into another's folder
            self._lock = Lock(path)
            self._check()  # another process may have written until now
        except (FolderMismatch, OSError) as error:
            if self._lock is not None:
                self._lock.release()
            if isinstance(error, OSError):
                raise StorageFailed(f"{path}: cannot be read ({error.strerror or error}); give another --out") from None
            raise
        return self._folder

    def _check(self) -> None:
        """Raise FolderMismatch where the folder is not this experiment's, or no run folder."""
        path = self._folder.path
        if path.exists() and not path.is_dir():
            raise FolderMismatch(f"{path}: this is a file, not a folder; give another --out")
        stored = self._folder.environment().get("experiment_hash")
        if stored is not None and stored != self._identity and self._folder.has_answers:
            owner = "log" if self._folder.kind == "analysis" else "experiment"
            raise AnotherOwner(
                f"{path}: this folder belongs to another {owner} ({stored[:19]}…, this one is {self._identity[:19]}…); give another --out, or restore the {owner} file"
            )
        if stored is None and path.is_dir():
            names = {entry.name for entry in path.iterdir()}
            # A run that was killed in its first moment leaves its lock, and perhaps the experiment's text.
            own_names = {"experiment.yaml"} if _LOCK in names else set()
            if any(not name.startswith(".") for name in names - own_names):
                raise FolderMismatch(f"{path}: this folder holds other files and no run; give another --out")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        try:
            if kind is None:
                self._lock.check_kept()
        finally:
            self._lock.release()


def _holds_answers(part: Path) -> bool:
    """Whether a part of the cassette holds an answer to another question than a trial's. What cannot be read counts as one, a
    call whose attempts all failed does not."""
    if part.suffix == ".gz":
        return True
    with part.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.endswith("\n"):  # a killed process leaves half of a last line
                try:
                    exchange = json.loads(line)
                    is_answer = not (exchange.get("fault") or TRIAL_ID.match(str(exchange["call"])))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    return True
                if is_answer:
                    return True
    return False


def default_folder(name: str, identity: str) -> RunFolder:
    """``runs/<name>``, or ``runs/<name>-<number>``: the folder with this identity, else one in which a command left no answer and
    none is at work, else the first that does not exist."""
    first = Path("runs") / name
    numbered = re.compile(rf"{re.escape(name)}-\d+")
    existing = [first, *(path for path in sorted(first.parent.glob("*")) if numbered.fullmatch(path.name))]
    folders = [RunFolder(path) for path in existing]
    for folder in folders:
        with suppress(FolderMismatch):
            if folder.environment().get("experiment_hash") == identity:
                return folder
    for folder in folders:
        if folder.exists and not folder.has_answers and not folder.is_claimed:
            return folder
    paths = (first if number == 1 else first.with_name(f"{name}-{number}") for number in count(1))
    return RunFolder(next(path for path in paths if not path.exists()))


_FORMULA = re.compile("[\\s\ufeff\u200b]*[=+@\uff1d\uff0b\uff0d\uff20-]|[\t\r]")


def without_formula(text: str) -> str:
    """The text with an apostrophe in front where a spreadsheet would run it as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def as_csv(frame: pd.DataFrame) -> str:
    """A table of results as CSV. Names that a spreadsheet would run as formulas get an apostrophe in front, and line breaks in them are
    spaces: some readers end a row at one."""
    texts = frame.select_dtypes(exclude="number").columns

    @functools.cache  # a column holds few texts, each many times
    def line(text: str) -> str:
        return without_formula(" ".join(re.split(r"[\r\n]+", text)))

    def cell(value: object) -> object:
        return line(value) if isinstance(value, str) else value

    columns = {
        name: (frame[name].astype("object") if frame[name].dtype == "str" else frame[name]).map(cell) for name in texts
    }
    return frame.assign(**columns).to_csv(index=False, lineterminator="\n")


def as_stored(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as a run folder's table of that name gives it back; ``estimates`` too."""
    arrow = _estimates_table(frame) if table == "estimates" else _arrow(frame, table)
    stored: pd.DataFrame = arrow.to_pandas()
    return stored


def _estimates_table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def _part(path: Path) -> pa.Table:
    """One part of a table. ``read_table`` would open it as a data set, which takes longer than a small part's rows."""
    with pq.ParquetFile(path) as file:
        return file.read()


def _arrow(frame: pd.DataFrame, table: str) -> pa.Table:
    """A frame as the Arrow columns of a table: its own columns typed by name, others by their values."""
    texts, own = (*_TEXTS, *_TEXTS_OF.get(table, ())), _OWN.get(table, frame.columns)
    columns = {}
    for name, column in frame.items():
        typed = name in own and name in (*_INTEGERS, *_BOOLEANS, *texts)
        if not typed and column.dtype == "float64":
            columns[name] = pa.array(column.to_numpy(), pa.float64())
            continue
        if name in _INTEGERS and name in own:
            columns[name] = _integers_or_booleans(column, int)
        elif name in _BOOLEANS and name in own:
            columns[name] = _integers_or_booleans(column, bool)
        elif (name in texts and name in own) or pd.api.types.infer_dtype(column, skipna=True) == "string":
            columns[name] = _texts(column)
        else:
            columns[name] = pa.array(column.astype("float64").to_numpy(), pa.float64())
    return pa.table(columns)


def _integers_or_booleans(column: pd.Series[Any], kind: type[int]) -> pa.Array:
    """A column of ``int`` or ``bool`` (``kind``); missing values are null."""
    stored = pa.bool_() if kind is bool else pa.int64()
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "ib":
        return pa.array(column.to_numpy(dtype=kind), stored)
    values = zip(column.tolist(), column.isna().tolist(), strict=True)
    return pa.array([None if missing else kind(value) for value, missing in values], stored)


def _texts(column: pd.Series[Any]) -> pa.Array:
    """A column of texts; missing values are null."""
    missing = column.isna().to_numpy()
    values = column.to_numpy(dtype=object)
    try:
        return pa.array(values, pa.string(), mask=missing)
    except (pa.ArrowException, TypeError, ValueError):  # other values, or texts that are not storable
        listed = zip(values.tolist(), missing.tolist(), strict=True)
        return pa.array([None if absent else _storable(str(value)) for value, absent in listed], pa.string())


def _storable(text: str) -> str:
    """The text with question marks for lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _line(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
