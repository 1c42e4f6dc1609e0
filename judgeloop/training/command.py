"""Training by the user's own command, or by hand: preferences and settings out as files, a model back by name or path.

A training has a folder, ``training/s<replicate>/g<generation>/<arm>/`` of the run folder, with ``preferences.jsonl`` and
``training.json``. The command runs there and leaves ``model.json`` (docs/training.md). What it is trained on, and what came
back, is recorded; the folder may be deleted once the training has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from judgeloop.errors import AnswersOutstanding, ExperimentError, FolderMismatch, StorageFailed, TrainingFailed
from judgeloop.experiment.schema import CommandPolicySpec, address_fault
from judgeloop.interchange.preferences import json_lines, training_lines
from judgeloop.policies import DIVERGED
from judgeloop.records import Training, served_name
from judgeloop.rundir import RunFolder
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.line import split_address

_GRACE_S = 10.0
"""Seconds between asking a command to end and ending it."""
_LOOK_S = 0.02
"""Seconds between two looks at a command that is ending."""
_PROCESS = "process.json"
"""The file that says which process trains, while it does."""
_GROUP_FIELD, _START_FIELD = 2, 19
"""The places of the process group and the start time in /proc/<pid>/stat, counted from the state."""
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
_LOSSES = ("loss", "train_loss")
"""The metrics that say whether a training diverged."""
_CHUNK_BYTES = 1 << 20
_TEXTS = ("model", "base_url", "adapter")
_KEYS = (*_TEXTS, "metrics")
"""What model.json may say; other keys are its writer's own."""
_LONGEST_TEXT, _SHOWN, _MOST_BYTES = 1000, 60, 16 << 20


@dataclass
class CommandTrainer:
    """Runs the policy's command. ``base``: the model's name at the policy's endpoint; ``folder``: where the experiment's file is.
    ``by_hand``: nothing is run, and the files wait for somebody to put ``model.json`` beside them."""

    run: RunFolder
    experiment: str
    spec: CommandPolicySpec
    base: str
    folder: Path
    by_hand: bool = False
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.spec.at_once)

    @property
    def configuration(self) -> Mapping[str, Any]:
        return {"experiment": self.experiment, "base": self.base, "command": list(self.spec.command)}

    def worst_cost(self, training: Training) -> float:  # noqa: ARG002 - a trainer's own
        """Nothing that an endpoint is paid for."""
        return 0.0

    async def train(self, training: Training) -> Mapping[str, Any]:
        """See policies.Trainer. ``weights`` is the digest of the adapter's files where ``model.json`` names one; the metrics hold how
        long the command took, unless it says itself."""
        name = f"training/s{training.replicate}/g{training.generation}/{training.arm}"
        folder = self.run.path / name
        preferences = json_lines(training_lines(training.pairs))
        settings = self._settings(training, folder)
        if not self.by_hand or _content(folder / "preferences.jsonl") != preferences:
            # A model of another training set, or of a command that did not end, is none of this training.
            _remove(folder / "model.json")
        self.run.write_bytes(f"{name}/preferences.jsonl", preferences)
        self.run.write_json(f"{name}/training.json", settings)
        seconds = None
        if not self.by_hand:
            seconds = await self._run(folder)
        elif not (folder / "model.json").exists():
            raise AnswersOutstanding(
                f"{folder}: train on preferences.jsonl as training.json says, put model.json there, and run the same command again",
                [(f"s{training.replicate}/g{training.generation}/train/{training.arm}", folder)],
            )
        return _timed(_model(folder / "model.json", self.run.path), seconds)

    def _settings(self, training: Training, folder: Path) -> dict[str, Any]:
        """The content of training.json."""
        model = training.model
        settings = {
            "experiment": self.experiment, "arm": training.arm, "generation": training.generation,
            "replicate": training.replicate, "seed": training.seed, "model": model.name if model else self.base,
            "base": self.base, "reference": training.reference, "folder": str(folder.resolve()),
        }  # fmt: skip
        if model and model.base_url:
            settings["base_url"] = model.base_url
        if model and model.adapter:
            settings["adapter"] = str((self.run.path / model.adapter).resolve())
        return settings

    async def _run(self, folder: Path) -> float:
        """Run the command to its end; the seconds that it took. Raises TrainingFailed where it cannot be started, fails or takes too long."""
        command, log, known = words(self.spec, self.folder), folder / "log.txt", folder / _PROCESS
        again = "mend it and run the same command again; what is recorded is kept"
        await _end_earlier(known)
        began = time.monotonic()
        with log.open("ab") as output:  # why an earlier attempt failed stays there
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
            except (OSError, ValueError) as error:  # ValueError: a null byte
                raise TrainingFailed(
                    f"policy.command: {command[0]!r} cannot be run ({getattr(error, 'strerror', '') or error}); {again}"
                ) from None
            try:
                started = {"pid": process.pid, "started": _started(process.pid)}
                self.run.write_json(str(known.relative_to(self.run.path)), started)
                code = await asyncio.wait_for(process.wait(), self.spec.timeout_s)
            except TimeoutError:
                raise TrainingFailed(
                    f"policy.command: {command[0]!r} did not end within policy.timeout_s, {self.spec.timeout_s:g} s (see {log}); {again}"
                ) from None
            finally:
                await _end(process)
        _remove(known)
        if code:
            raise TrainingFailed(f"policy.command: {command[0]!r} ended with exit code {code} (see {log}); {again}")
        if not (folder / "model.json").exists():
            raise TrainingFailed(f"policy.command: {command[0]!r} ended and left no {folder / 'model.json'}; {again}")
        return round(time.monotonic() - began, 1)


def words(spec: CommandPolicySpec, folder: Path) -> list[str]:
    """The command as it is run: words that name files, seen from ``folder``, as absolute paths, for it runs in another folder."""
    return [str(place.absolute()) if _is_file(place := folder / word) else word for word in spec.command]


def check(spec: CommandPolicySpec, folder: Path, run: RunFolder, identity: str, *, by_hand: bool) -> None:
    """Raise where the command cannot be run, before anything is spent for it; or, a FolderMismatch, where another one made the
    trainings that are recorded in ``run``. ``folder``, ``by_hand``: see CommandTrainer."""
    if any(run.path.glob("calls/s*/g*-train.jsonl*")):
        policy = run.experiment().get("policy") if run.environment().get("experiment_hash") == identity else None
        there = policy.get("command", []) if isinstance(policy, dict) else list(spec.command)
        if there != list(spec.command):
            raise FolderMismatch(
                f"{run.path}: its trainings were made by policy.command {shlex.join(map(str, there))}; restore that, or give another --out"
            )
        return  # all may be recorded, so that no program is needed
    if by_hand:
        return
    program = words(spec, folder)[0]
    if "\0" in program or shutil.which(program) is None:
        raise ExperimentError(
            f"policy.command: {program!r} is no program that can be run here; give the name of one that is on the PATH, or a path"
        )


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except (OSError, ValueError):  # too long for a path, or a null byte
        return False


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a command and what it started; what one that ended well leaves running, as a server of its model, goes on."""
    if process.returncode == 0:
        return
    await _end_group(process.pid)
    with suppress(TimeoutError):  # one that the system cannot end, as on a disk that is gone, is left
        await asyncio.wait_for(process.wait(), _GRACE_S)


async def _end_group(group: int) -> None:
    """End the processes of a group: those that the first of them started outlive it where they do not listen."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + _GRACE_S
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, sign)
        while _lives(group) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)


def _lives(group: int) -> bool:
    """Whether a process of the group has not ended."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    states = [_state(stat) for stat in Path("/proc").glob("[0-9]*/stat")]
    # One that has ended stands in the table until its parent asks for it, which it may never do.
    return not states or any(state and state[_GROUP_FIELD] == str(group) and state[0] not in "ZX" for state in states)


async def _end_earlier(known: Path) -> None:
    """End the command of a session that was killed, with what it started, if it still runs: it would write where the next one does.
    It is known by its number and the time of its start, where the system tells that (Linux)."""
    try:
        content = json.loads(known.read_text(encoding="utf-8"))
        pid, started = int(content["pid"]), str(content["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if started and _started(pid) == started:
        await _end_group(pid)


def _started(pid: int) -> str:
    """When a running process was started, in the system's own count; empty where that is not known or it has ended."""
    state = _state(Path(f"/proc/{pid}/stat"))
    return state[_START_FIELD] if state and state[0] not in "ZX" else ""


def _state(stat: Path) -> list[str]:
    """The fields of /proc/<pid>/stat behind the name, the state first; nothing where there is no such process."""
    try:
        return stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return []


def forget_mended(cassette: Cassette, run: RunFolder) -> list[str]:
    """Have trainings count as not recorded whose model.json was changed since, where no draft was made by the model that it named: a
    name that nobody serves is mended so. Returns their calls."""
    mended = []
    for exchange in cassette.exchanges("train"):
        replicate, generation, _, arm = exchange.call.split("/", 3)
        path, recorded = run.path / "training" / replicate / generation / arm / "model.json", exchange.response
        digest = str(recorded.get("weights", ""))
        try:
            now = _timed(_model(path, run.path, digest), recorded.get("metrics", {}).get("seconds"))
        except TrainingFailed:
            continue
        weights = recorded.get("weights") or exchange.key
        if now != recorded and not any(
            draft.status == 200 and draft.weights == weights for draft in cassette.exchanges("draft")
        ):
            cassette.forget(exchange)
            mended.append(exchange.call)
    return mended


def _model(path: Path, run: Path, digest: str = "") -> dict[str, Any]:
    """The content of model.json, checked, with the digest of its adapter's weights where no ``digest`` is given; or why the arm ends
    where its loss is not finite. Raises TrainingFailed."""
    content = _json_object(path)
    texts: dict[str, str] = {}
    for key, value in content.items():
        if key in _TEXTS and value is not None:
            if not (isinstance(value, str) and value.strip() and value.isprintable() and len(value) <= _LONGEST_TEXT):
                raise _refused(
                    path, f"{key} must be text of at most {_LONGEST_TEXT} characters, without control characters"
                )
            texts[key] = value
        elif key not in _KEYS and (near := get_close_matches(key, _KEYS, 1, 0.75)):
            raise _refused(path, f"unknown key {_shown(key)}; did you mean {near[0]}?")
    model, base_url, adapter = (texts.get(key, "") for key in _TEXTS)
    if base_url and (fault := address_fault(base_url) or _no_address(base_url)):
        raise _refused(path, fault)
    metrics = _metrics(path, content.get("metrics"))
    if any(isinstance(metrics.get(name), str) for name in _LOSSES):  # what it left is not asked for
        return {"stopped": DIVERGED, "metrics": metrics}
    if not model and not adapter:
        raise _refused(
            path,
            "names no model; give `model`, its name at the policy's endpoint or at `base_url`, or `adapter`, which is then loaded there",
        )
    recorded: dict[str, Any] = {"model": model, "weights": "", "metrics": metrics}
    if base_url:
        recorded["base_url"] = base_url
    if adapter:
        try:
            place = (path.parent / adapter).resolve()
            recorded["weights"] = digest or weights_digest(place)
        except OSError as error:
            raise _refused(path, f"adapter {_shown(adapter)} cannot be read ({error.strerror})") from None
        except TrainingFailed as error:
            raise _refused(path, f"adapter {_shown(adapter)}: {error}") from None
        inside = place.is_relative_to(run.resolve())
        recorded["adapter"] = str(place.relative_to(run.resolve()) if inside else place)
        recorded["model"] = model or served_name(recorded["weights"])
    return recorded


def _timed(result: dict[str, Any], seconds: float | None) -> dict[str, Any]:
    """What a training left, with its duration where it states none."""
    if seconds is not None:
        result["metrics"] = {"seconds": seconds, **result["metrics"]}
    return result


def _json_object(path: Path) -> dict[str, Any]:
    if not path.is_file():  # a pipe would be waited for
        raise _refused(path, "is no file")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _refused(path, f"has more than {_MOST_BYTES >> 20} MB")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(path, f"cannot be read as JSON ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise _refused(path, 'must be a JSON object, as {"model": "policy-1"}')
    return cast(dict[str, Any], content)


def _refused(path: Path, why: str) -> TrainingFailed:
    """Why model.json is not taken, and both ways on: `run` trains again."""
    return TrainingFailed(
        f"{path}: {why}; mend this file and run judgeloop step in place of judgeloop run once, which takes it without training again, or mend what wrote it and run the same command"
    )


def _shown(text: str) -> str:
    """A text of model.json in a sentence."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _no_address(base_url: str) -> str:
    """Recorded, it could not be mended any more."""
    try:
        split_address(base_url)
    except ValueError:
        return "base_url is no address"
    return ""


def _metrics(path: Path, metrics: Any) -> dict[str, Any]:
    """The metrics of model.json: numbers by name; those that are not finite as text."""
    if metrics is None:
        return {}
    if not isinstance(metrics, dict):
        raise _refused(path, "metrics must be numbers by name")
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _refused(path, f"metrics must be numbers by name, and {_shown(name)} is none")
    return {str(name): value if _is_finite(value) else str(value) for name, value in metrics.items()}


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond every float
        return False


def weights_digest(place: Path) -> str:
    """SHA-256 of an adapter: of a file, or of a folder's weight files with their names (of all its files where none is
    known as weights). Raises TrainingFailed where there is nothing."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    files = [path for path in files if path.suffix in _WEIGHTS] or files
    if not files:
        raise TrainingFailed(f"no weights are at {place}")
    digest = hashlib.sha256()
    for path in files:
        if place.is_dir():
            digest.update(f"{path.relative_to(place).as_posix()}\n".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(f"{path}: cannot be removed ({error.strerror}); make it writable and run again") from None
