"""The Python interface as a page, from signatures and docstrings: for generate.py."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import judgeloop
from judgeloop.experiment.options import described, flag, option

PYTHON = """# Python

`import judgeloop` gives the names below, `dir(judgeloop)` and an editor's completion list them, and everything the command
line does is a thin layer over them. A name's code is loaded when the name is first used. Errors descend from
`judgeloop.JudgeloopError` and carry the [exit code](exit-codes.md) of the command line.

```python
import judgeloop

run = judgeloop.run("experiment.yaml")  # works in a notebook's cell too
run.estimates.query("term == 'did_length'")  # pandas; docs/method.md names the terms
run.figures["drift/Length"]  # Plotly
run.to_html("report.html")
```

**In memory.** `analyze` computes and writes nothing, so that it can stand in a notebook's cell or in a simulation's loop.
`out=`, or `.save` of the result, writes the folder that `judgeloop analyze` would; `report=False` leaves the report out,
which takes most of that time. `audit` and `run` record every answer in their folder, and take `report=False` too.

```python
audit = judgeloop.analyze(frame)  # pandas, a row a verdict: docs/analyze.md names the columns
audit.estimates[["judge", "term", "estimate", "conf_low", "conf_high", "status"]]
audit.settings["margins"]  # what made it: also what was asked, seed, sources with hashes, versions
audit.save("runs/mine")  # the run folder, with its report
```

**Results** cannot be changed: their frames are copies, and no attribute can be set.
"""
_LINE = 100


def python_reference() -> Iterator[str]:
    """The sections: functions by name, then what they return."""
    names = [name for name in judgeloop.__all__ if not name.startswith("_")]
    for name in sorted(names, key=lambda name: (inspect.isclass(getattr(judgeloop, name)), name)):
        found = getattr(judgeloop, name)
        if inspect.isclass(found):
            yield from _class(name, found)
        else:
            yield f"## `judgeloop.{name}`\n"
            yield f"```text\n{_signature(f'judgeloop.{name}', found)}\n```\n"
            yield f"{_described(found)}\n"


def _described(function: Any) -> str:
    """The docstring; where a block has the keywords, with its fields as a table."""
    block = getattr(function, "block", None)
    if block is None:
        return _words(function)
    rows = ["| Keyword | Command line | Changes answers | |", "|---|---|---|---|"]
    for key, field in block.model_fields.items():
        mark = option(field)
        cells = (f"`{flag(key, field)}`", "yes" if mark.answers else "no") if mark else ("", "no")
        rows.append(f"| `{key}` | {' | '.join(cells)} | {_cell(described(field))} |")
    return _words(function.__wrapped__).replace("{options}", "\n".join(rows))


def _class(name: str, kind: type) -> Iterator[str]:
    bases = [f"`judgeloop.{base.__name__}`" for base in kind.__bases__ if base.__name__ in judgeloop.__all__]
    yield f"## `judgeloop.{name}`\n"
    yield _words(kind) + (f" Has all that {', '.join(bases)} has." if bases else "") + "\n"
    members = {
        key: value
        for key, value in vars(kind).items()
        if not key.startswith("_")
        and (isinstance(value, property) or inspect.isfunction(value))
        and inspect.getdoc(value)
    }
    fields = [f"`.{one.name}`" for one in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    if fields and fields != ["`.record`"]:
        yield f"Fields: {', '.join(fields)}.\n"
    if members:
        yield "| | |\n|---|---|"
        for key, value in members.items():
            shown = f".{key}{_parameters(value)}" if inspect.isfunction(value) else f".{key}"
            yield f"| `{shown}` | {_cell(_words(value))} |"
        yield ""


def _signature(name: str, function: Any) -> str:
    """On one line where it fits, else a parameter a line."""
    parameters, back = _parts(function)
    line = f"{name}({', '.join(parameters)}) -> {back}"
    if len(line) <= _LINE:
        return line
    return f"{name}(\n" + "".join(f"    {one},\n" for one in parameters) + f") -> {back}"


def _parts(function: Any) -> tuple[list[str], str]:
    signature = inspect.signature(function)
    found, is_star = [], False
    for one in signature.parameters.values():
        if one.name == "self":
            continue
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            is_star = True
        elif one.kind is inspect.Parameter.KEYWORD_ONLY and not is_star:
            found.append("*")
            is_star = True
        found.append(str(one.replace(default=inspect.Parameter.empty)).replace("'", "") + _default(one.default))
    return found, str(signature.return_annotation).replace("'", "")


def _default(value: object) -> str:
    if value is inspect.Parameter.empty:
        return ""
    # A function's repr holds an address, and says nothing.
    return " = …" if callable(value) else f" = {value!r}"


def _parameters(function: Any) -> str:
    parameters, _ = _parts(function)
    return f"({', '.join(parameters)})".replace("|", "\\|")


def _words(documented: Any) -> str:
    return re.sub(r"``", "`", inspect.getdoc(documented) or "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
