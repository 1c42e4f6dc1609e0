"""``judgeloop.doctor``: ask an endpoint what it can do, and recommend how to judge with it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from judgeloop.commands.session import unwrapped
from judgeloop.errors import InvalidInput
from judgeloop.experiment.resolve import load
from judgeloop.experiment.schema import Endpoint
from judgeloop.judging.judges import PairTrial
from judgeloop.serving import engines
from judgeloop.text import templates
from judgeloop.text.templates import Mode
from judgeloop.wire import capabilities
from judgeloop.wire.capabilities import Knee
from judgeloop.wire.inquiry import (
    CallsSpent,
    Check,
    EndpointFindings,
    HttpResult,
    Inquiry,
    Server,
    answer,
    listed_context,
    recognise,
)

MOST_CALLS = 80
_SHOWN_MODELS = 8
_OTHER_CALLS = 20
"""Calls that the checks other than concurrency may take."""
_IN_FLIGHT = 256

_REASONS: dict[Mode, str] = {
    "logprob": "logprob: one token a verdict, and it is soft, which tells more a call than a hard one",
    "json": "json: the reply is an object that always parses, or is counted as unscored",
    "text": "text: the verdict is read from the reply's end",
}
_FILLER = (
    "It has been so for a long time, most people know it from school, and maps show it where the river bends. "
    "There are other towns of some size in the country, but none of them is where the government sits."
)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How to judge with the endpoint. ``verdict`` None: no mode gave a verdict. ``endpoint``: the keys of its block in an
    experiment. ``why``: a sentence each on the mode, what does not work, and the concurrency."""

    verdict: Mode | None
    concurrency: int | None
    calls_per_second: float | None
    endpoint: Mapping[str, Any]
    why: tuple[str, ...]

    def yaml(self) -> str:
        """The blocks of an experiment file."""
        judge = {"kind": "model", "endpoint": "m", "verdict": self.verdict or "auto"}
        return yaml.safe_dump(
            {"endpoints": {"m": dict(self.endpoint)}, "judge": judge}, sort_keys=False, allow_unicode=True
        )


@dataclass(frozen=True)
class Diagnosis:
    """What was asked of the endpoint, what came back, and what is recommended. ``told_by``: how the server was recognised."""

    base_url: str
    model: str
    server: Server
    told_by: str
    checks: tuple[Check, ...]
    calls: int
    seconds: float
    recommended: Recommendation

    def record(self) -> dict[str, Any]:
        """The diagnosis as JSON can hold it; ``judgeloop plan --doctor`` reads it."""
        return {
            "base_url": self.base_url, "model": self.model, "server": self.server.name, "told_by": self.told_by,
            "calls": self.calls, "seconds": round(self.seconds, 2), "checks": [asdict(check) for check in self.checks],
            "quirks": [asdict(quirk) for quirk in self.server.quirks],
            "recommended": {**asdict(self.recommended), "why": list(self.recommended.why)},
        }  # fmt: skip


def doctor(
    base_url: str | None = None,
    model: str | None = None,
    *,
    experiment: str | Path | None = None,
    endpoint: str | None = None,
    api_key_env: str | None = None,
    prompt: str = "pairwise",
    max_calls: int = MOST_CALLS,
    timeout_s: float = 60.0,
    context_tokens: int = 3000,
    on_check: Callable[[Check], None] = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Probe ``base_url``, or an ``endpoint`` of an ``experiment`` file with its headers, query and engine.

    At most ``max_calls`` short completions and one list of models; nothing is sent anywhere else, and no key is kept or
    shown. ``api_key_env``: the variable that holds the key, looked up in ``environment`` (default the process's).
    ``prompt``: the judge prompt that is tried. ``timeout_s``: seconds a call. ``context_tokens``: of the one long prompt.
    ``on_check`` is called with each check as it ends. Raises InvalidInput for wrong options, EndpointFailed where the
    endpoint does not answer.
    """
    if (base_url is None) == (experiment is None):
        raise InvalidInput("give --base-url, or --experiment with the endpoint that it describes")
    folder = Path(experiment).parent if experiment is not None else Path()
    trial = PairTrial(templates.load(prompt, folder, "judge"), reference="Paris")
    if experiment is not None:
        stated = _endpoint_of_experiment(Path(experiment), endpoint, model)
    else:
        stated = _endpoint_at(str(base_url), model, api_key_env)
    if max_calls < 1 or not 0 < timeout_s <= 3600 or context_tokens < 1:
        raise InvalidInput("--max-calls, --timeout and --context-tokens must be 1 or more")
    started = nullcontext({"m": stated}) if stated.engine is None else engines.running({"m": stated})
    with started as running:
        probed = running["m"].model_copy(update={"concurrency": _IN_FLIGHT, "timeout_s": timeout_s, "attempts": 1})
        environment = os.environ if environment is None else environment
        examination = _Examination(stated, probed, trial, max_calls, context_tokens, on_check, environment)
        return unwrapped(examination.run())


def _endpoint_of_experiment(path: Path, name: str | None, model: str | None) -> Endpoint:
    """An experiment's endpoint: the one named, else the judge's, else the first. Raises InvalidInput."""
    experiment = load(path).experiment
    endpoints = experiment.endpoints
    name = name or getattr(experiment.judge, "endpoint", None) or next(iter(endpoints))
    if name not in endpoints:
        raise InvalidInput(f"--endpoint: {name} is not among {path}'s endpoints ({', '.join(endpoints)})")
    endpoint = endpoints[name]
    if endpoint.engine is not None:
        engines.check({name: endpoint})
    return endpoint if model is None else endpoint.model_copy(update={"model": model})


def _endpoint_at(base_url: str, model: str | None, api_key_env: str | None) -> Endpoint:
    """The endpoint at an address. Raises InvalidInput."""
    try:
        return Endpoint.model_validate({"base_url": base_url, "model": model or "", "api_key_env": api_key_env})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("base_url ")
        option = "--api-key-env" if "api_key_env" in problem["loc"] else "--base-url"
        raise InvalidInput(f"{option} {message}") from None


class _Examination:
    """One endpoint's examination. ``stated``: the endpoint as the user has it; ``probed``: with the examination's own
    limits, and an engine's address."""

    def __init__(
        self, stated: Endpoint, probed: Endpoint, trial: PairTrial, most_calls: int, context_tokens: int,
        on_check: Callable[[Check], None], environment: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.stated, self.probed, self.trial = stated, probed, trial
        self.context_tokens, self.on_check = context_tokens, on_check
        self.inquiry = Inquiry(probed, environment, most_calls)
        self.findings = EndpointFindings(model=probed.model)
        self.knee: Knee | None = None
        self._shown = 0

    async def run(self) -> Diagnosis:
        began = time.monotonic()
        try:
            listing = await self.inquiry.models()
            entry = self._choose_model(listing)
            await answer(self.inquiry, self.findings)
            self._show_checks()
            await self._check_all(entry)
        finally:
            await self.inquiry.close()
        server, told_by = recognise(_entries(listing), self.inquiry.seen_headers, self.findings.fingerprint)
        return Diagnosis(
            _address(self.stated), self.findings.model, server, told_by, tuple(self.findings.checks), self.inquiry.calls,
            time.monotonic() - began, self._recommendation(),
        )  # fmt: skip

    def _choose_model(self, listing: HttpResult) -> Mapping[str, Any]:
        """Settle the model to ask; its entry in the list ({} where it has none). Raises InvalidInput where none is named
        and the list does not hold exactly one."""
        entries = _entries(listing)
        names = [str(entry["id"]) for entry in entries]
        if not self.findings.model:
            if len(names) != 1:
                more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
                listed = ", ".join(names[:_SHOWN_MODELS]) + more
                raise InvalidInput(
                    f"--model: {_address(self.stated)} lists {len(names)} models ({listed}); give one of them"
                    if names else f"--model: {_address(self.stated)} lists no models ({listing.said}); give its name"
                )  # fmt: skip
            self.findings.model = names[0]
        model = self.findings.model
        entry = next((entry for entry in entries if entry["id"] == model), {})
        came = f"{len(names)} model{'' if len(names) == 1 else 's'}: {', '.join(names[:4])}" if names else listing.said
        if entry:
            means = f"asking {model}"
        else:
            means = f"{model} is not in the list; asking it all the same" if names else "no list; asking by name"
        self.findings.checks.append(Check("models", "GET /models", came, "ok" if entry else "unknown", means))
        self._show_checks()
        return entry

    async def _check_all(self, entry: Mapping[str, Any]) -> None:
        """Every check but that of the models; those that no calls are left for are unknown."""
        inquiry, base, findings, trial = self.inquiry, self.probed, self.findings, self.trial
        checks: dict[str, Callable[[], Awaitable[None]]] = {
            "logprobs": lambda: capabilities.logprobs(inquiry, base, findings, trial),
            "json": lambda: capabilities.verdict_mode(inquiry, base, findings, trial, "json"),
            "text": lambda: capabilities.verdict_mode(inquiry, base, findings, trial, "text"),
            "json schema": lambda: capabilities.schema(inquiry, findings),
            "repeat": lambda: capabilities.repeat(inquiry, base, findings, trial),
            "seed": lambda: capabilities.seed(inquiry, findings),
            "system role": lambda: capabilities.system_role(inquiry, findings),
            "context": lambda: capabilities.context(inquiry, findings, listed_context(entry), self.context_tokens),
            "n": lambda: capabilities.choices(inquiry, findings),
            "concurrency": self._check_concurrency,
        }
        for name, check in checks.items():
            try:
                await check()
            except CallsSpent:
                findings.checks.append(Check(name, "nothing", "the calls are used up", "unknown", "raise --max-calls"))
            self._show_checks()
        findings.checks.append(capabilities.rate_limits(inquiry.seen_headers))
        self._show_checks()

    async def _check_concurrency(self) -> None:
        calls = self.inquiry.calls
        most = max(capabilities.MOST_CALLS, self.inquiry.most - _OTHER_CALLS)
        self.knee = await capabilities.find(self.inquiry, self._judge_call, most)
        self.findings.checks.append(capabilities.check(self.knee, self.inquiry.calls - calls))

    def _judge_call(self, number: int) -> dict[str, Any]:
        """The body of a judge call of usual length; all differ, so that no cache answers."""
        mode = capabilities.best_mode(self.findings) or self.trial.modes[-1]
        endpoint = self.findings.endpoint(self.probed).model_copy(update={"model": self.findings.model})
        first, second = (f"{text} This is remark number {number} on it. {_FILLER}" for text in self.trial.answers)
        question = f"({number}) {self.trial.question}"
        return replace(self.trial, answers=(first, second), question=question).body(endpoint, mode)

    def _recommendation(self) -> Recommendation:
        findings, mode = self.findings, capabilities.best_mode(self.findings)
        best = self.knee.best if self.knee else None
        concurrency = best.at_once if best else None
        block = self.stated.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        if self.stated.base_url is not None:
            block["base_url"] = _address(self.stated)
        block |= {"model": findings.model, **({"concurrency": concurrency} if concurrency else {})}
        if findings.max_tokens_field != "max_tokens":
            block["max_tokens_field"] = findings.max_tokens_field
        if not findings.send_temperature:
            block["send_temperature"] = False
        if findings.thinks:
            block["max_tokens"] = findings.max_tokens
        if mode == "logprob" and findings.logprobs is not None and findings.logprobs < capabilities.TRIED_LOGPROBS:
            block["top_logprobs"] = findings.logprobs
        return Recommendation(mode, concurrency, best.per_second if best else None, block, tuple(self._reasons(mode)))

    def _reasons(self, mode: Mode | None) -> list[str]:
        """A sentence each on the mode, on better modes that do not work, on other failed checks, and on concurrency."""
        checks = {check.name: check for check in self.findings.checks}
        if mode is None:
            why = ["no mode gave a verdict on a plain question: try another --prompt or a larger model"]
        else:
            why = [_REASONS[mode]]
            better = templates.MODES[: templates.MODES.index(mode)]
            why += [
                f"{name}: {checks[name].means}"
                for name in ("logprobs", "json", "text")
                if name.rstrip("s") in better and checks[name].state == "no"
            ]
        why += [
            f"{name}: {checks[name].means}"
            for name in ("context", "repeat")
            if name in checks and checks[name].state == "no"
        ]
        if self.knee is not None:
            why.append(f"concurrency {self.knee.best.at_once}: {self.knee.why}")
        return why

    def _show_checks(self) -> None:
        """Pass on the checks that have ended since the last time."""
        for check in self.findings.checks[self._shown :]:
            self.on_check(check)
        self._shown = len(self.findings.checks)


def _entries(listing: HttpResult) -> list[Mapping[str, Any]]:
    """The models of a listing; none where it failed."""
    data = listing.body.get("data") if listing.status == 200 and isinstance(listing.body, dict) else None
    return [entry for entry in data if isinstance(entry, dict) and entry.get("id")] if isinstance(data, list) else []


def _address(endpoint: Endpoint) -> str:
    """The base URL without a user, a password or a query in it; the engine's name where judgeloop starts it."""
    if endpoint.base_url is None:
        return f"engine {endpoint.engine}"
    return re.sub(r"//[^/?#]*@|\?.*", lambda match: "//" * match[0].startswith("//"), endpoint.base_url)
