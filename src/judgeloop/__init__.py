"""judgeloop: what will my LLM judge do to my model?

``run(experiment)`` closes the loop and returns a ``Run``; ``open(run_dir)`` reads one; ``audit(pairs, base_url=…, model=…)``
asks judges about pairs, ``analyze(verdicts)`` reads a verdict log: both return an ``Audit``. Names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judgeloop.api import analyze, audit, run
    from judgeloop.api import open_run as open  # noqa: A004  CONTRACT's name
    from judgeloop.results import Audit, Run

__all__ = ["Audit", "Run", "__version__", "analyze", "audit", "open", "run"]

__version__ = metadata.version("judgeloop")

_PUBLIC = {"Audit": "Audit", "Run": "Run", "analyze": "analyze", "audit": "audit", "run": "run", "open": "open_run"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module("judgeloop.api"), _PUBLIC[name])
    raise AttributeError(f"module 'judgeloop' has no attribute {name!r}")
