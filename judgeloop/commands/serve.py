"""``judgeloop.serve``: the OpenAI API, played locally."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from judgeloop.errors import InvalidInput
from judgeloop.rundir import RunFolder
from judgeloop.serving import planted_spec
from judgeloop.serving.faults import ShapedAnswerer, load_faults
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.recorded import RecordAnswerer, ReplayAnswerer
from judgeloop.serving.server import LOOPBACK, create_app, serve_forever
from judgeloop.wire.line import is_local


def planted_schema() -> dict[str, Any]:
    """JSON schema of a planted spec."""
    return planted_spec.schema()


def serve(
    *,
    replay: str | Path | None = None,
    record: str | Path | None = None,
    upstream: str | None = None,
    planted: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    faults: str | Path | None = None,
    in_clear: bool = False,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the OpenAI API at ``host`` and ``port`` until interrupted, from one of three sources.

    ``replay``: a recorded run folder. ``record``: a folder that records the calls, which are passed on to the base URL
    ``upstream``. ``planted``: a spec file of a judge with known biases (docs/planted.md). ``faults``: a file of failures to
    play (docs/serving.md). ``in_clear``: keys of clients may go to an upstream on another machine by plain http. Port 0 takes a free one; ``ready`` is called with the base URL once the server listens. Raises
    InvalidInput for wrong or missing sources, FolderMismatch where ``replay`` holds no recording.
    """
    rules = load_faults(Path(faults)) if faults else None
    answerer: Any
    if replay is not None:
        answerer = ReplayAnswerer(RunFolder.recorded(replay).path)
    elif record is not None:
        if not (upstream or "").startswith(("http://", "https://")):
            raise InvalidInput(f"--upstream: give a base URL that starts with http:// or https://, not {upstream!r}")
        address = urlsplit(str(upstream))
        if address.scheme == "http" and not is_local(address.hostname) and not in_clear:
            raise InvalidInput(
                f"--upstream: the keys of clients would go to {address.netloc.rpartition('@')[2]} unencrypted; give an https address, or --yes to confirm that"
            )
        answerer = RecordAnswerer(Path(record), str(upstream))
    elif planted is not None:
        answerer = PlantedAnswerer(planted_spec.load(Path(planted)), Path(planted).parent)
    else:
        raise InvalidInput("serve: give one of replay, record with upstream, or planted")
    if rules is not None and rules.server is not None:
        answerer = ShapedAnswerer(answerer, rules.server)
    app = create_app(answerer, faults=rules, batches=record is None, local=host in (LOOPBACK, "localhost", "::1"))
    serve_forever(app, host, port, ready=ready)
