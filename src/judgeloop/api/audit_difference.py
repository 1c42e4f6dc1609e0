"""What differs between an audit and the one whose folder it was given, in the words of the options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from judgeloop.api.audit_settings import ONLY_SPEED, OPTIONS
from judgeloop.errors import FolderMismatch
from judgeloop.rundir import RunFolder

_LONGEST = 60
_MOST = 3
_OPTION = {"pairs": "the pairs file", "edit_model": "--edit-model", "probes": "--probes", "seed": "--seed", "mode": "--mode", "reward": "--reward", "scales": "--scales"}  # fmt: skip
_FREE = ("mitigate",)
"""What may be added to an audit that is done."""


@contextmanager
def difference_named(folder: RunFolder, record: Mapping[str, Any]) -> Iterator[None]:
    """Within it, a folder of another audit is refused with the settings that differ. ``record``: this audit's, as
    experiment.yaml bears it. Raises FolderMismatch."""
    try:
        yield
    except FolderMismatch as error:
        there = _recorded(folder)
        if "belongs to another" not in str(error) or there is None:
            raise
        found = list(_differing(there, dict(record["audit"])))
        said = "; ".join(found[:_MOST]) + (f" and {len(found) - _MOST} more" if len(found) > _MOST else "")
        raise FolderMismatch(
            f"{folder.path}: another audit's answers stand here: {said or 'the rows of the pairs file or the text of the prompt have changed'}; give another --out, or the same settings to resume"
        ) from None


def _recorded(folder: RunFolder) -> dict[str, Any] | None:
    try:
        raw = yaml.safe_load(folder.experiment_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    found = raw.get("audit") if isinstance(raw, dict) else None
    return found if isinstance(found, dict) else None


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    judges = [_by_model(one.get("judges")) for one in (there, here)]
    if list(judges[0]) != list(judges[1]):
        yield f"--model is {_shown(list(judges[0]))} there and {_shown(list(judges[1]))} here"
    else:
        for model in judges[0]:
            yield from _keys(*(one[model] for one in judges), skip=(*ONLY_SPEED, "model"))
    yield from _keys(there, here, skip=("judges", *_FREE))


def _by_model(judges: object) -> dict[str, Mapping[str, Any]]:
    listed = judges if isinstance(judges, list) else []
    return {str(one.get("model")): one for one in listed if isinstance(one, Mapping)}


def _keys(there: Mapping[str, Any], here: Mapping[str, Any], *, skip: tuple[str, ...]) -> Iterator[str]:
    for key in dict.fromkeys((*there, *here)):
        if key not in skip and there.get(key) != here.get(key):
            option = OPTIONS.get(key) or _OPTION.get(key) or key
            yield f"{option} is {_shown(there.get(key))} there and {_shown(here.get(key))} here"


def _shown(value: object) -> str:
    if value is None:
        return "not given"
    text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
