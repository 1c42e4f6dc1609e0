"""The command line, called in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from judgeloop import cli


def command(*arguments: str | Path) -> int:
    """The exit code of ``judgeloop`` with these arguments."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0
