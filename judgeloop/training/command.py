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
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from judgeloop.errors import AnswersOutstanding, StorageFailed, TrainingFailed
from judgeloop.experiment.schema import CommandPolicySpec, address_fault
from judgeloop.interchange.preferences import json_lines, training_lines
from judgeloop.policies import DIVERGED
from judgeloop.records import Training, served_name
from judgeloop.rundir import RunFolder
from judgeloop.wire.line import split_address

_GRACE_S = 10.0
"""Seconds between asking a command to end and ending it."""
_LOOK_S = 0.02
"""Seconds between two looks at a command that is ending."""
_PROCESS = "process.json"
"""The file that says which process trains, while it does."""
_START_FIELD = 18
"""The place of the start time in /proc/<pid>/stat, counted behind the state."""
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
_LOSSES = ("loss", "train_loss")
"""The metrics that say whether a training diverged."""
_CHUNK_BYTES = 1 << 20


@dataclass
class CommandTrainer:
    """Runs the policy's command. ``base``: the model's name at the policy's endpoint. ``by_hand``: nothing is run, and the
    files wait for somebody to put ``model.json`` beside them."""

    run: RunFolder
    experiment: str
    spec: CommandPolicySpec
    base: str
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
        """See policies.Trainer. ``weights`` is the digest of the adapter's files where ``model.json`` names one."""
        name = f"training/s{training.replicate}/g{training.generation}/{training.arm}"
        folder = self.run.path / name
        preferences = json_lines(training_lines(training.pairs))
        settings = self._settings(training, folder)
        if not self.by_hand or _content(folder / "preferences.jsonl") != preferences:
            # A model of another training set, or of a command that did not end, is none of this training.
            _remove(folder / "model.json")
        self.run.write_bytes(f"{name}/preferences.jsonl", preferences)
        self.run.write_json(f"{name}/training.json", settings)
        if not self.by_hand:
            await self._run(folder)
        elif not (folder / "model.json").exists():
            raise AnswersOutstanding(
                f"{folder}: train on preferences.jsonl as training.json says, put model.json there, and run the same command again",
                [(f"s{training.replicate}/g{training.generation}/train/{training.arm}", folder)],
            )
        return _model(folder / "model.json", self.run.path)

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

    async def _run(self, folder: Path) -> None:
        """Run the command to its end. Raises TrainingFailed where it cannot be started, fails or takes too long."""
        command, log, known = self.spec.command, folder / "log.txt", folder / _PROCESS
        again = "mend it and run the same command again; what is recorded is kept"
        await _end_earlier(known)
        with log.open("wb") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
            except OSError as error:
                raise TrainingFailed(
                    f"policy.command: {command[0]!r} cannot be run ({error.strerror or error}); {again}"
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


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a command and what it started, if it still runs."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_S)


async def _end_earlier(known: Path) -> None:
    """End the command of a session that was killed, with what it started, if it still runs: it would write where the next one does.
    It is known by its number and the time of its start, where the system tells that (Linux)."""
    try:
        content = json.loads(known.read_text(encoding="utf-8"))
        pid, started = int(content["pid"]), str(content["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if not started or _started(pid) != started:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, sign)
        until = time.monotonic() + _GRACE_S
        while _started(pid) == started and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)


def _started(pid: int) -> str:
    """When a running process was started, in the system's own count; empty where that is not known or it has ended."""
    try:
        state, *fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else fields[_START_FIELD]


def _model(path: Path, run: Path) -> dict[str, Any]:
    """The content of model.json, checked, with the digest of the adapter; or why the arm ends where its loss is not finite. Raises
    TrainingFailed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingFailed(f"{path}: cannot be read as JSON ({type(error).__name__}); write it anew") from None
    if not isinstance(content, dict):
        raise TrainingFailed(f'{path}: must be a JSON object, as {{"model": "policy-1"}}')
    content = cast(dict[str, Any], content)
    model, base_url, adapter = (content.get(key) for key in ("model", "base_url", "adapter"))
    for key, value in (("model", model), ("base_url", base_url), ("adapter", adapter)):
        if value is not None and not (isinstance(value, str) and value):
            raise TrainingFailed(f"{path}: {key} must be text")
    if base_url and (fault := address_fault(base_url) or _no_address(base_url)):
        raise TrainingFailed(f"{path}: {fault}")
    metrics = _metrics(path, content.get("metrics"))
    if any(isinstance(metrics.get(name), str) for name in _LOSSES):  # what it left is not asked for
        return {"stopped": DIVERGED, "metrics": metrics}
    if not model and not adapter:
        raise TrainingFailed(
            f"{path}: names no model; give `model`, its name at the policy's endpoint or at `base_url`, or `adapter`, which is then loaded there"
        )
    recorded: dict[str, Any] = {"model": model, "weights": "", "metrics": metrics}
    if base_url:
        recorded["base_url"] = base_url
    if adapter:
        place = (path.parent / adapter).resolve()
        inside = place.is_relative_to(run.resolve())
        recorded["adapter"] = str(place.relative_to(run.resolve()) if inside else place)
        recorded["weights"] = weights_digest(place)
        recorded["model"] = model or served_name(recorded["weights"])
    return recorded


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
    if not isinstance(metrics, dict) or any(
        isinstance(v, bool) or not isinstance(v, int | float) for v in metrics.values()
    ):
        raise TrainingFailed(f"{path}: metrics must be numbers by name")
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
        raise TrainingFailed(f"{place}: no adapter is here, which model.json names")
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
