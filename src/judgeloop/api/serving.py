"""``judgeloop serve``: the OpenAI API, played locally."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.planted import spec as planted_spec
from judgeloop.planted.answerer import PlantedAnswerer
from judgeloop.rundir import RunFolder
from judgeloop.wire.answers import RecordAnswerer, ReplayAnswerer
from judgeloop.wire.faults import load_faults
from judgeloop.wire.server import create_app, serve_forever
from judgeloop.wire.shapes import Shaped


def planted_schema() -> dict[str, Any]:
    """JSON schema of a planted spec."""
    return planted_spec.schema()


def serve(
    *,
    replay: Path | None = None,
    record: Path | None = None,
    upstream: str | None = None,
    planted: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    faults: Path | None = None,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the OpenAI API until interrupted: one of ``replay`` (a recorded run folder), ``record`` with ``upstream``,
    ``planted`` (a spec file). ``ready`` is told the base URL. Raises JudgeloopError."""
    answerer: Any
    if replay is not None:
        answerer = ReplayAnswerer(RunFolder.recorded(replay).path)
    elif record is not None:
        if not (upstream or "").startswith(("http://", "https://")):
            raise InvalidInput(f"--upstream: give a base URL that starts with http:// or https://, not {upstream!r}")
        answerer = RecordAnswerer(record, str(upstream))
    else:
        assert planted is not None
        answerer = PlantedAnswerer(planted_spec.load(planted), planted.parent)
    rules = load_faults(faults) if faults else None
    if rules is not None and rules.server is not None:
        answerer = Shaped(answerer, rules.server)
    app = create_app(answerer, faults=rules, batches=record is None)
    serve_forever(app, host, port, ready=ready)
