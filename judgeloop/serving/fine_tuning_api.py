"""The fine-tuning API that the local server has where a planted judge answers: jobs in memory, which "train" in no time.

``wire/fine_tuning_api`` is the other side, the client of such an API. A job's model drafts texts as long as those that were
preferred (``planted_drafts.trained``). Faults on purpose hit the API by ``fine_tuning/create``, ``fine_tuning/retrieve`` and
``fine_tuning/list``.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.fine_tuning_job import Error, Hyperparameters
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from judgeloop.serving.batch_api import BatchService, json_object, listed, refused
from judgeloop.serving.protocol import AnswerError, ServerAnswer, error_answer, response
from judgeloop.text.features import tokenize

FEWEST_EXAMPLES = 10
"""Examples that a training file has at least, as at OpenAI."""
_MOST_JOBS = 1000


@runtime_checkable
class Trains(Protocol):
    """An answerer whose models can be trained."""

    def fine_tuned(self, model: str, preferred: list[str]) -> str | None:
        """The name of the model that training ``model`` on these texts leaves; None where it serves no such model."""
        ...


class FineTuningService:
    """The endpoints of the fine-tuning API over the files of ``files``."""

    def __init__(self, trains: Trains, files: BatchService) -> None:
        self._trains, self._files = trains, files
        self._jobs: dict[str, FineTuningJob] = {}
        files.purposes = (*files.purposes, "fine-tune")

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        guarded, place = self._files.guarded, "/v1/fine_tuning/jobs"
        return [
            Route(place, guarded(self._create, "fine_tuning/create"), methods=["POST"]),
            Route(place, guarded(self._list, "fine_tuning/list"), methods=["GET"]),
            Route(f"{place}/{{id}}", guarded(self._retrieve, "fine_tuning/retrieve"), methods=["GET"]),
        ]

    async def _create(self, request: Request) -> Response:
        body = await json_object(request)
        content = self._files.content(str(body.get("training_file")))
        if content is None:
            raise refused(f"No such File object: {body.get('training_file')}", "training_file")
        stated = body.get("method")
        method: dict[str, Any] = stated if isinstance(stated, dict) else {"type": "supervised"}
        kind = str(method.get("type"))
        if kind not in ("supervised", "dpo"):
            raise refused(f"This server trains by supervised or dpo, not {kind!r}", "method")
        if len(self._jobs) >= _MOST_JOBS:
            raise AnswerError(error_answer(429, f"{_MOST_JOBS} jobs exist", code="rate_limit_exceeded"))
        chosen = method.get(kind)
        settings = chosen.get("hyperparameters") if isinstance(chosen, dict) else None
        epochs = settings.get("n_epochs", 1) if isinstance(settings, dict) else 1
        job = FineTuningJob(
            id=f"ftjob-{uuid.uuid4().hex}", created_at=int(time.time()), finished_at=int(time.time()), model=str(body.get("model")),
            object="fine_tuning.job", organization_id="judgeloop", result_files=[], seed=int(body.get("seed") or 0),
            status="succeeded", training_file=str(body["training_file"]), hyperparameters=Hyperparameters(n_epochs=epochs),
        )  # fmt: skip
        preferred, problem = _preferred(content, kind)
        job.fine_tuned_model = None if problem else self._trains.fine_tuned(job.model, preferred)
        if job.fine_tuned_model is None:
            job.status = "failed"
            message = problem or f"The model {job.model!r} cannot be fine-tuned"
            job.error = Error(code="invalid_training_file" if problem else "model_not_available", message=message)
        else:
            tokens = sum(len(tokenize(text)) for text in preferred)
            job.trained_tokens = tokens * (epochs if isinstance(epochs, int) else 1)
        self._jobs[job.id] = job
        return _shown(job)

    async def _retrieve(self, request: Request) -> Response:
        name = request.path_params["id"]
        if name not in self._jobs:
            raise AnswerError(error_answer(404, f"No such fine-tuning job: {name}", code="not_found", param="id"))
        return _shown(self._jobs[name])

    async def _list(self, request: Request) -> Response:
        return listed(list(reversed(self._jobs.values())), request)


def _preferred(content: bytes, kind: str) -> tuple[list[str], str]:
    """(the preferred answer of every example, what is wrong with the file)."""
    texts: list[str] = []
    for number, line in enumerate((line for line in content.split(b"\n") if line.strip()), start=1):
        try:
            row = json.loads(line)
            turns = row["preferred_output"] if kind == "dpo" else row["messages"]
            if kind == "dpo" and not (
                row["input"]["messages"] and row["non_preferred_output"][0]["content"] is not None
            ):
                raise ValueError
            answer = turns[-1]
            if not isinstance(answer, Mapping) or answer["role"] != "assistant":
                raise ValueError
            texts.append(str(answer["content"]))
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            return [], f"Line {number} is no example of method {kind}"
    if len(texts) < FEWEST_EXAMPLES:
        return [], f"The file has {len(texts)} examples; training takes {FEWEST_EXAMPLES} or more"
    return texts, ""


def _shown(job: FineTuningJob) -> Response:
    content: dict[str, Any] = job.model_dump(mode="json", warnings="error")
    return response(ServerAnswer(200, content))
