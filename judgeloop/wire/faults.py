"""Faults on purpose: what a client has to survive, served deterministically by the local server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from judgeloop import seeds
from judgeloop.errors import ExperimentError
from judgeloop.experiment.blocks import Block
from judgeloop.experiment.inputs import read_yaml
from judgeloop.serving.faults import Shape

Kind = Literal["reset", "timeout", "truncated", "not_json", "empty_choices", "null_content", "context_length", "slow"]


class Rule(Block):
    """One fault, and the calls and attempts that it hits."""

    match: str = ""
    """Regular expression searched in the call id; empty matches every call, with or without an id."""
    status: int | None = Field(None, ge=400, le=599)
    """Answer with this HTTP status and an OpenAI error body. Give `status` or `kind`."""
    kind: Kind | None = None
    """reset (the connection breaks off inside the answer) · timeout (no answer) · truncated (fewer bytes than
    announced) · not_json · empty_choices · null_content · context_length (a 400) · slow (the answer, late)."""
    times: int | Literal["always"] = 1
    """The first attempts of each call id that are hit, or always."""
    rate: float = Field(1.0, ge=0, le=1)
    """Probability that a matching attempt is hit, by a coin that the seed, the call id and the attempt name."""
    delay_s: float | None = Field(None, ge=0)
    """Seconds before the fault; for timeout: until the connection is closed (default: until the client goes)."""
    retry_after_s: float | None = Field(None, ge=0)
    """Header retry-after of a `status`."""
    message: str = "planted fault"
    """Message of the error body."""
    code: str | None = None
    """Code of the error body."""

    @field_validator("match")
    @classmethod
    def _compiles(cls, match: str) -> str:
        try:
            re.compile(match)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return match

    @field_validator("times")
    @classmethod
    def _counts(cls, times: int | str) -> int | str:
        if isinstance(times, int) and times < 0:
            raise ValueError("give 0 or more attempts, or always")
        return times

    @model_validator(mode="after")
    def _one_fault(self) -> Rule:
        if (self.status is None) == (self.kind is None):
            raise ValueError("give status or kind, one of them")
        return self


class Faults(Block):
    """Rules in order: the first that hits an attempt decides it. ``Faults(rules=[Rule(status=429, times=2)])``."""

    rules: tuple[Rule, ...] = ()
    """The faults."""
    seed: int = Field(0, ge=0)
    """Names the random stream of `rate`."""
    server: Shape | None = None
    """A kind of server to play, with what it refuses, ignores and limits."""


class FaultCounter:
    """Which rule hits which attempt. An attempt's number counts the requests of one call id (without one: one body)
    since the server started, so that the same requests meet the same faults."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.attempts: dict[str, int] = {}
        self.fired: list[tuple[str, Rule]] = []

    def next(self, name: str, call_id: str | None) -> Rule | None:
        """The rule that hits this attempt of the call that ``name`` tells from others, or None."""
        attempt = self.attempts.get(name, 0)
        self.attempts[name] = attempt + 1
        for number, rule in enumerate(self.faults.rules):
            if not re.search(rule.match, call_id or ""):
                continue
            if rule.times != "always" and attempt >= rule.times:
                continue
            if rule.rate < 1 and seeds.uniform(self.faults.seed, "fault", number, name, attempt) >= rule.rate:
                continue
            self.fired.append((name, rule))
            return rule
        return None


def fault_schema() -> dict[str, Any]:
    """JSON schema of a faults file, with a line on every key."""
    return Faults.model_json_schema()


def load_faults(path: str | Path) -> Faults:
    """Read a faults file (YAML). Raises ExperimentError with the file and the field."""
    raw = read_yaml(Path(path), "a faults file")
    try:
        return Faults.model_validate(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise ExperimentError(f"{path}: {field or 'faults'}: {problem['msg'].removeprefix('Value error, ')}") from None
