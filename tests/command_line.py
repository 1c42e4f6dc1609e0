"""The command line, called in this process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from judgeloop import cli


def command(*arguments: str | Path) -> int:
    """The exit code of ``judgeloop`` with these arguments."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@contextmanager
def interrupted_once(ready: Callable[[], bool]) -> Iterator[None]:
    """What runs inside is interrupted, as by Ctrl-C, as soon as ``ready`` is true; at the end it must have been."""
    ended, sent = threading.Event(), threading.Event()

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not ready() and time.monotonic() < deadline:
            if ended.wait(0.005):
                return
        sent.set()
        os.kill(os.getpid(), signal.SIGINT)

    # A shell that starts the tests in the background ignores SIGINT for them; a user's command does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    waiting = threading.Thread(target=interrupt)
    waiting.start()
    try:
        yield
    finally:
        ended.set()
        waiting.join()
        signal.signal(signal.SIGINT, before)
    assert sent.is_set()
