"""What differs between an audit and the one whose folder it was given, in the words of the options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from judgeloop.commands.audit_spec import OPTIONS
from judgeloop.errors import FolderMismatch
from judgeloop.experiment.audit import AuditSpec
from judgeloop.experiment.blocks import Block, Endpoint
from judgeloop.experiment.options import only_speed
from judgeloop.rundir import AnotherOwner, RunFolder

_LONGEST = 60
_MOST = 3
_NAMES = {**OPTIONS, "pairs": "the pairs file"}
_SPEED = only_speed(AuditSpec) | {"model"}


@contextmanager
def difference_named(folder: RunFolder, record: Mapping[str, Any]) -> Iterator[None]:
    """Within it, a folder of another audit is refused with the settings that differ. ``record``: this audit's, as
    experiment.yaml bears it. Raises FolderMismatch."""
    try:
        yield
    except AnotherOwner:
        there = folder.experiment().get("audit") if folder.exists else None
        if not isinstance(there, dict):
            raise
        found = list(_differing(there, dict(record["audit"])))
        said = "; ".join(found[:_MOST]) + (f" and {len(found) - _MOST} more" if len(found) > _MOST else "")
        raise FolderMismatch(
            f"{folder.path}: another audit's answers stand here: {said or 'the rows of the pairs file or the text of the prompt have changed'}; give another --out, or the same settings to resume"
        ) from None


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    judges = [_by_model(one.get("judges")) for one in (there, here)]
    if list(judges[0]) != list(judges[1]):
        yield f"--model is {_shown(list(judges[0]))} there and {_shown(list(judges[1]))} here"
    else:
        for model in judges[0]:
            yield from _keys(*(one[model] for one in judges), block=Endpoint)
    yield from _keys(there, here, block=AuditSpec)


def _by_model(judges: object) -> dict[str, Mapping[str, Any]]:
    listed = judges if isinstance(judges, list) else []
    return {str(one.get("model")): one for one in listed if isinstance(one, Mapping)}


def _keys(there: Mapping[str, Any], here: Mapping[str, Any], *, block: type[Block]) -> Iterator[str]:
    for key in dict.fromkeys((*there, *here)):
        values = [_value(record, key, block) for record in (there, here)]
        if key != "judges" and key not in _SPEED and values[0] != values[1]:
            yield f"{_NAMES.get(key, key)} is {_shown(values[0])} there and {_shown(values[1])} here"


def _value(record: Mapping[str, Any], key: str, block: type[Block]) -> Any:
    """What the record says, else the default: what it was before the field was there."""
    field = block.model_fields.get(key)
    return record.get(key, field.get_default(call_default_factory=True) if field else None)


def _shown(value: object) -> str:
    if value in (None, {}):
        return "not given"
    text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
