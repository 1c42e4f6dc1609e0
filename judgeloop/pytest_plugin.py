"""For tests with pytest of code that asks a judge: recorded calls answered on this machine, and limits as an assertion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from judgeloop.limits import CheckResult
    from judgeloop.results import Audit, Run


@pytest.fixture
def judgeloop_replay() -> Iterator[Callable[[str | Path], str]]:
    """``judgeloop_replay(folder)`` → the base URL of a local server that answers the calls which a run folder recorded, until the test
    ends. A request that was not recorded is answered 404 with the nearest recording and what differs."""
    from judgeloop.rundir import RunFolder
    from judgeloop.serving.recorded import ReplayAnswerer
    from judgeloop.serving.server import LocalServer, create_app

    with ExitStack() as stack:

        def serve(folder: str | Path) -> str:
            app = create_app(ReplayAnswerer(RunFolder.recorded(folder).path))
            return stack.enter_context(LocalServer(app)).base_url

        yield serve


def assert_within(
    result: Run | Audit | str | Path, limits: str | Path | Mapping[str, Any] | None = None
) -> CheckResult:
    """Fail unless every limit is kept by its whole interval: ``judgeloop.check`` as an assertion, which names each limit that is exceeded
    or undecided. ``result``: a run folder, or a result that is in one; ``limits`` as for ``check``."""
    __tracebackhide__ = True
    from judgeloop.commands.check import check
    from judgeloop.limits import reasons

    checked = check(result if isinstance(result, str | Path) else result.path, limits)
    if checked.verdict != "passed":
        pytest.fail(f"{checked.name}: {checked.verdict}\n" + "\n".join(reasons(checked)), pytrace=False)
    return checked
