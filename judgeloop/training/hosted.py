"""Training at an endpoint's fine-tuning service: preferences up as a file, a job, a model's name back.

What was uploaded and created stands in ``training/s<replicate>/g<generation>/<arm>/job.json`` of the run folder, so that a run
that was killed waits for the job that it paid for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from judgeloop.errors import EndpointFailed, TrainingFailed
from judgeloop.experiment.schema import Endpoint, HostedPolicySpec, HostedSignalSpec
from judgeloop.records import Training, TrainingPair, canonical, prompt_turns
from judgeloop.rundir import RunFolder
from judgeloop.wire.jobs_api import SUCCEEDED, FineTuningConnection, NoSuchAPI

_SEEDS = 2**31
_TURN_TOKENS = 16
"""Tokens that a turn may take beyond those of its text."""


@dataclass
class HostedTrainer:
    """Trains an arm's model by a job of the policy's endpoint. ``connection``: opened when the first job is made."""

    run: RunFolder
    spec: HostedPolicySpec
    signal: HostedSignalSpec
    endpoint: Endpoint
    environment: Mapping[str, str]
    slots: asyncio.Semaphore
    """Jobs that may run at the same time, over all arms."""
    _connection: FineTuningConnection | None = field(init=False, default=None)

    @property
    def configuration(self) -> Mapping[str, Any]:
        return {"base": self.endpoint.model, "signal": self.signal.model_dump(mode="json")}

    def worst_cost(self, training: Training) -> float:
        """US dollars at most: a token has a byte or more."""
        return self._tokens(training) * self.endpoint.price.training / 1e6

    def _tokens(self, training: Training) -> int:
        """Tokens trained at most."""
        lines = examples(training.pairs, self.signal.method)
        return self.signal.epochs * sum(len(line) + _TURN_TOKENS * line.count(b'"role"') for line in lines)

    async def train(self, training: Training) -> Mapping[str, Any]:
        """See policies.Trainer. A job that was made for the same training set is waited for, and none made."""
        name = f"training/s{training.replicate}/g{training.generation}/{training.arm}"
        content = b"".join(examples(training.pairs, self.signal.method))
        settings = self._settings(training)
        made_of = hashlib.sha256(content + canonical(settings).encode()).hexdigest()
        known = self._known(name, made_of)
        connection = self._connection = self._connection or FineTuningConnection(
            self.spec.endpoint, self.endpoint, self.environment
        )
        again = "run the same command again"
        try:
            perhaps = "file" in known
            if "file" not in known:
                known = {"of": made_of, "file": await connection.upload(content, "preferences.jsonl", "fine-tune")}
                self.run.write_json(f"{name}/job.json", known)
            if "job" not in known:
                job_id = await connection.create(known["file"], settings, name, perhaps=perhaps)
                known = {**known, "job": job_id}
                self.run.write_json(f"{name}/job.json", known)
            async with asyncio.timeout(self.spec.timeout_s):
                state = await connection.ended(known["job"])
        except NoSuchAPI as missing:
            raise EndpointFailed(str(missing)) from None
        except TimeoutError:
            raise TrainingFailed(
                f"{name}: job {known['job']} did not end within policy.timeout_s, {self.spec.timeout_s:g} s; it goes on there: {again} to wait on"
            ) from None
        if state.status != SUCCEEDED or not state.model:
            (self.run.path / name / "job.json").unlink(missing_ok=True)
            raise TrainingFailed(
                f"{name}: job {known['job']} {state.status} without a model ({state.error or 'the endpoint says no reason'}); mend the cause and {again}: it makes another job"
            )
        metrics: dict[str, Any] = {"pairs": len(training.pairs)}
        # A service that does not say what it trained is counted at the most that it can have been.
        metrics |= {"tokens_at_most": self._tokens(training)} if state.tokens is None else {"tokens": state.tokens}
        metrics |= {} if state.seconds is None else {"seconds": state.seconds}
        return {"model": state.model, "weights": "", "job": known["job"], "metrics": metrics}

    def _settings(self, training: Training) -> dict[str, Any]:
        """What the job is created with."""
        chosen = {
            "n_epochs": self.signal.epochs, "beta": self.signal.beta if self.signal.method == "dpo" else None,
            "batch_size": self.signal.batch_size, "learning_rate_multiplier": self.signal.learning_rate_multiplier,
        }  # fmt: skip
        settings = {key: value for key, value in chosen.items() if value is not None}
        previous = training.model if training.reference == "previous" else None
        method = "dpo" if self.signal.method == "dpo" else "supervised"
        return {
            "model": previous.name if previous else self.endpoint.model, "seed": training.seed % _SEEDS,
            "suffix": f"s{training.replicate}g{training.generation}-{training.arm}"[:40],
            "method": {"type": method, method: {"hyperparameters": settings}},
        }  # fmt: skip

    def _known(self, name: str, made_of: str) -> dict[str, str]:
        """What was done already for this training; empty for another's, and where nothing was."""
        path = self.run.path / name / "job.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) and known.get("of") == made_of else {}

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()


def examples(pairs: Sequence[TrainingPair], method: str) -> list[bytes]:
    """The lines of a training file: of dpo a preference each, of sft each chosen text once."""
    if method == "dpo":
        rows = [
            {"input": {"messages": _turns(pair)}, "preferred_output": [_answer(pair.chosen)], "non_preferred_output": [_answer(pair.rejected)]}
            for pair in pairs
        ]  # fmt: skip
    else:
        chosen = {(str(pair.prompt), pair.chosen): pair for pair in pairs}
        rows = [{"messages": [*_turns(pair), _answer(pair.chosen)]} for pair in chosen.values()]
    return [json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows]


def _turns(pair: TrainingPair) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in prompt_turns(pair.prompt)]


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
