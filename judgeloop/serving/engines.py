"""Engines: servers of models that judgeloop starts itself, each on a free loopback port, while a run or an audit needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType

from judgeloop.experiment.schema import Endpoint, Engine

_ENGINES: Mapping[Engine, str] = {
    "llama_cpp": "judgeloop.serving.llama_cpp",
    "transformers": "judgeloop.serving.sequence_classifier",
}
"""The modules of the engines, loaded where they are used: their libraries are large.

Each has ``check(name, endpoint)`` and the context manager ``running(name, endpoint, threads)``, which gives a base URL.
"""


def check(endpoints: Mapping[str, Endpoint]) -> None:
    """Check that every engine of the endpoints is installed, and start none. Raises ExperimentError."""
    for name, endpoint in endpoints.items():
        if endpoint.engine is not None:
            _engine_module(endpoint.engine).check(name, endpoint)


@contextmanager
def running(endpoints: Mapping[str, Endpoint]) -> Iterator[dict[str, Endpoint]]:
    """The endpoints with every engine started, and stopped at the end."""
    with ExitStack() as stack:
        yield {name: _started(name, endpoint, stack) for name, endpoint in endpoints.items()}


def _started(name: str, endpoint: Endpoint, stack: ExitStack) -> Endpoint:
    if endpoint.engine is None:
        return endpoint
    serve = _engine_module(endpoint.engine).running
    url = stack.enter_context(serve(name, endpoint, endpoint.threads or _cores()))
    return endpoint.model_copy(update={"base_url": url, "engine": None})


def _engine_module(kind: Engine) -> ModuleType:
    return import_module(_ENGINES[kind])


def _cores() -> int:
    """The number of cores that this process may use; on systems that do not state it, that of the machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
