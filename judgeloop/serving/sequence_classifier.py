"""The engine ``transformers``: a sequence classifier of the transformers library as a reward model (extra ``[train]``).

It is served on loopback by vLLM's routes ``/classify``, ``/pooling`` and ``/score``, so that recording, replay, limits and
errors are those of every reward model. Each text is scored alone: in a batch its number would depend, in the last bits, on
the padding of its neighbours, and a resumed run would not give the same bytes.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from judgeloop import checkpoints
from judgeloop.errors import EndpointFailed, ExperimentError
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Route
from judgeloop.serving.protocol import AnswerError, ServerAnswer, error_answer
from judgeloop.serving.server import LocalServer, create_app

INSTALL_ENGINE = 'pip install "judgeloop[train]"'
ROUTES: tuple[Route, ...] = ("classify", "pooling", "score")


def check(name: str, endpoint: Endpoint) -> None:  # noqa: ARG001 - a model may lie in the library's own cache
    """Check that the libraries are installed, and load nothing. Raises ExperimentError."""
    for library in ("torch", "transformers"):
        if importlib.util.find_spec(library) is None:
            raise ExperimentError(f"endpoints.{name}: engine transformers needs {library}; run: {INSTALL_ENGINE}")


@contextmanager
def running(name: str, endpoint: Endpoint, threads: int) -> Iterator[str]:
    """The base URL of the served classifier, which uses ``threads`` cores. Raises ExperimentError, EndpointFailed."""
    check(name, endpoint)
    classifier = Classifier.load(name, endpoint.model, threads=threads, context=endpoint.context)
    with LocalServer(create_app(ClassifierAnswerer(classifier), batches=False)) as server:
        yield server.base_url


class Classifier:
    """A model with its tokenizer: from a text to one number a label."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, context: int) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        longest = getattr(model.config, "max_position_embeddings", None) or context
        self.context = min(context, longest)
        """Most tokens of a text; a longer one is refused, never cut."""

    @classmethod
    def load(cls, name: str, model: str, *, threads: int, context: int) -> Classifier:
        """A classifier from a folder, the library's cache or its hub; ``name`` of the endpoint, for errors.

        Raises EndpointFailed where it cannot be loaded, or has no trained head.
        """
        import torch

        # An audit shows its own progress.
        importlib.import_module("transformers.utils.logging").disable_progress_bar()
        torch.set_num_threads(threads)
        on_gpu = torch.cuda.is_available()
        try:
            # Sixteen bits on a CPU are slow, and make ties of close scores.
            dtype = "auto" if on_gpu else torch.float32
            tokenizer, loaded = checkpoints.load("AutoModelForSequenceClassification", model, dtype=dtype)
        except checkpoints.UnusableCheckpoint as fault:
            raise EndpointFailed(
                f"endpoints.{name}.model: {model!r} {fault}; give a model that was trained as a sequence classifier"
            ) from None
        loaded = loaded.to("cuda" if on_gpu else "cpu").eval()
        return cls(loaded, tokenizer, name=Path(model).name if Path(model).is_dir() else model, context=context)

    def numbers(self, route: Route, body: Mapping[str, Any]) -> tuple[list[float], int]:
        """(numbers, one a label; tokens read) of the one text in a request. Raises AnswerError."""
        import torch

        encoded = self._encoded(route, body)
        tokens = int(encoded["input_ids"].shape[1])
        if tokens > self.context:
            message = f"This model's maximum context length is {self.context} tokens, and the text has {tokens}"
            raise AnswerError(error_answer(400, message, code="context_length_exceeded"))
        with torch.inference_mode():
            logits = self.model(**encoded.to(self.model.device)).logits[0].float()
        raw = [float(logit) for logit in logits.cpu()]
        if body.get("use_activation") is False or route == "pooling":
            return raw, tokens
        return _activated(raw), tokens

    def _encoded(self, route: Route, body: Mapping[str, Any]) -> Any:
        """The tokens of the text in a request. Raises AnswerError."""
        if route == "score":
            question, text = (_only_text(body[field]) for field in ("text_1", "text_2"))
            return self.tokenizer(question, text, return_tensors="pt")
        if "messages" not in body:
            return self.tokenizer(_only_text(body["input"]), return_tensors="pt")
        if not self.tokenizer.chat_template:
            message = f"{self.name} has no chat template; give judge.prompt (reward, or a file of that kind)"
            raise AnswerError(error_answer(400, message, param="messages"))
        # The template writes the special tokens itself.
        text = self.tokenizer.apply_chat_template(body["messages"], tokenize=False)
        return self.tokenizer(text, return_tensors="pt", add_special_tokens=False)


class ClassifierAnswerer:
    """The answerer over a classifier: one text at a time, in a thread beside the loop that serves."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judgeloop-classifier")

    def models(self) -> list[str]:
        """The one name of the classifier."""
        return [self.classifier.name]

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:  # noqa: ARG002
        """Always an error: a classifier writes no text."""
        return error_answer(400, f"{self.classifier.name} is a sequence classifier: it scores texts and writes none")

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> ServerAnswer:  # noqa: ARG002
        """The numbers of the request's text in the form of ``route``; null where one is not finite. Raises AnswerError."""
        if route not in ROUTES:
            return error_answer(404, f"engine transformers has no route {route}; use {', '.join(ROUTES)}")
        loop = asyncio.get_running_loop()
        raw, tokens = await loop.run_in_executor(self._thread, self.classifier.numbers, route, body)
        numbers = [number if math.isfinite(number) else None for number in raw]
        entry = {
            "classify": {"index": 0, "probs": numbers, "num_classes": len(numbers)},
            "pooling": {"index": 0, "object": "pooling", "data": numbers},
            "score": {"index": 0, "object": "score", "score": numbers[0] if len(numbers) == 1 else numbers},
        }[route]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        return ServerAnswer(200, {"object": "list", "model": self.classifier.name, "data": [entry], "usage": usage})

    async def aclose(self) -> None:
        """Stop the thread."""
        self._thread.shutdown()


def _activated(raw: list[float]) -> list[float]:
    """The numbers that a server gives unless raw ones are asked for: a logistic of one, a softmax of several."""
    if len(raw) == 1:
        return [0.5 * (1.0 + math.tanh(raw[0] / 2.0))]
    most = max(raw)
    powers = [math.exp(number - most) for number in raw]
    return [power / math.fsum(powers) for power in powers]


def _only_text(value: Any) -> str:
    """The one text in a field. Raises AnswerError where there are several."""
    texts = [value] if isinstance(value, str) else list(value)
    if len(texts) != 1:
        raise AnswerError(error_answer(400, f"engine transformers scores one text a call, not {len(texts)}"))
    return str(texts[0])
