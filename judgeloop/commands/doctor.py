"""``judgeloop.commands.doctor``: ask an endpoint what it can do, and recommend how to judge with it."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from judgeloop.commands.consent import Consent
from judgeloop.commands.session import unwrapped
from judgeloop.errors import InvalidInput
from judgeloop.experiment.resolve import load
from judgeloop.experiment.schema import Endpoint
from judgeloop.judging.judges import PairTrial
from judgeloop.serving import engines
from judgeloop.text import templates
from judgeloop.text.templates import Mode
from judgeloop.wire import doctor_checks
from judgeloop.wire.client import bare_address
from judgeloop.wire.doctor_checks import Knee
from judgeloop.wire.doctor_connection import (
    CallsSpent,
    Check,
    EndpointFindings,
    HttpResult,
    Inquiry,
    Server,
    listed_context,
    recognise,
)

MOST_CALLS = 80
_SHOWN_MODELS = 8
_OTHER_CALLS = 20
_IN_FLIGHT = 256


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How to judge with the endpoint. ``verdict`` None: no mode gave a verdict. ``endpoint``: the block's keys."""

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
    """What was asked of the endpoint, what came back, and what follows."""

    base_url: str
    model: str
    server: Server
    recognised_by: str
    version: str
    checks: tuple[Check, ...]
    calls: int
    seconds: float
    recommended: Recommendation

    def record(self) -> dict[str, Any]:
        """The diagnosis as JSON can hold it; ``judgeloop plan --doctor`` reads it."""
        return {
            "base_url": self.base_url, "model": self.model, "server": self.server.name, "recognised_by": self.recognised_by,
            "version": self.version,
            "calls": self.calls, "seconds": round(self.seconds, 2), "checks": [asdict(one) for one in self.checks],
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
    consent: Consent | None = None,
) -> Diagnosis:
    """Probe ``base_url``, or an ``endpoint`` of an ``experiment`` file with its headers, query and engine.

    At most ``max_calls`` short completions and one list of models; nothing is sent anywhere else, and no key is kept or
    shown. ``api_key_env``: the variable that holds the key, looked up in
    ``environment`` (default the process's). ``prompt``: the judge prompt that is tried. ``timeout_s``: seconds a call.
    ``context_tokens``: of the one long prompt. ``on_check`` is told each check as it ends. ``consent`` is the command line's, which
    has it confirmed where keys go; without it they go where the file says. Raises InvalidInput for what is
    asked wrongly, EndpointFailed where the endpoint does not answer.
    """
    if (base_url is None) == (experiment is None):
        raise InvalidInput("give --base-url, or --experiment with the endpoint that it describes")
    folder = Path(experiment).parent if experiment is not None else Path()
    trial = PairTrial(templates.load(prompt, folder, "judge"), reference="Paris")
    if experiment is not None:
        asked = _of_experiment(Path(experiment), endpoint, model)
    else:
        asked = _of_address(str(base_url), model, api_key_env)
    if max_calls < 1 or not 0 < timeout_s <= 3600 or context_tokens < 1:
        raise InvalidInput("--max-calls, --timeout and --context-tokens must be 1 or more")
    if consent is not None:
        consent = replace(consent, file="" if experiment is None else str(experiment))
        consent.confirm(consent.needed([asked]))
    started = nullcontext({"m": asked}) if asked.engine is None else engines.running({"m": asked})
    with started as running:
        probed = running["m"].model_copy(update={"concurrency": _IN_FLIGHT, "timeout_s": timeout_s, "attempts": 1})
        environment = os.environ if environment is None else environment
        examined = _Examination(asked, probed, trial, max_calls, context_tokens, on_check, environment)
        return unwrapped(examined.run())


def _of_experiment(path: Path, name: str | None, model: str | None) -> Endpoint:
    found = load(path).experiment
    known = found.endpoints
    name = name or getattr(found.judge, "endpoint", None) or next(iter(known))
    if name not in known:
        raise InvalidInput(f"--endpoint: {name} is not among {path}'s endpoints ({', '.join(known)})")
    if known[name].engine is not None:
        engines.check({name: known[name]})
    return known[name] if model is None else known[name].model_copy(update={"model": model})


def _of_address(base_url: str, model: str | None, api_key_env: str | None) -> Endpoint:
    try:
        return Endpoint.model_validate({"base_url": base_url, "model": model or "", "api_key_env": api_key_env})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        said = str(problem["msg"]).removeprefix("Value error, ").removeprefix("base_url ")
        raise InvalidInput(f"{'--api-key-env' if 'api_key_env' in problem['loc'] else '--base-url'} {said}") from None


class _Examination:
    """One endpoint's examination."""

    def __init__(
        self, asked: Endpoint, probed: Endpoint, trial: PairTrial, most: int, tokens: int,
        on_check: Callable[[Check], None], environment: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.asked, self.probed, self.trial = asked, probed, trial
        self.tokens, self.on_check = tokens, on_check
        self.inquiry = Inquiry(probed, environment, most)
        self.found = EndpointFindings(model=probed.model)
        self.knee: Knee | None = None
        self._told = 0

    async def run(self) -> Diagnosis:
        began = time.monotonic()
        try:
            listing = await self.inquiry.models()
            entry = self._model(listing)
            await self._add(doctor_checks.answer(self.inquiry, self.found))
            await self._questions(entry)
            server, recognised_by = recognise(
                self.inquiry.host, _entries(listing), self.inquiry.seen_headers, self.found.fingerprint
            )
            version = await self.inquiry.version(server)
        finally:
            await self.inquiry.close()
        return Diagnosis(
            _address(self.asked), self.found.model, server, recognised_by, version, tuple(self.found.checks), self.inquiry.calls,
            time.monotonic() - began, self._recommended(),
        )  # fmt: skip

    def _model(self, listing: HttpResult) -> Mapping[str, Any]:
        """The model to ask, and its entry in the list ({} where it has none)."""
        entries = _entries(listing)
        names = [str(entry["id"]) for entry in entries]
        if not self.found.model:
            if len(names) != 1:
                shown = ", ".join(names[:_SHOWN_MODELS]) + (
                    f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
                )
                missing = self.inquiry.mended("", "base_url", denied=True) if listing.status in (401, 403) else ""
                raise InvalidInput(
                    f"--model: {_address(self.asked)} lists {len(names)} models ({shown}); give one of them"
                    if names else f"--model: {_address(self.asked)} lists no models ({listing.summary}); {missing or 'give its name'}"
                )  # fmt: skip
            self.found.model = names[0]
        entry = next((entry for entry in entries if entry["id"] == self.found.model), {})
        came = (
            f"{len(names)} model{'' if len(names) == 1 else 's'}: {', '.join(names[:4])}" if names else listing.summary
        )
        means = (
            f"asking {self.found.model}" if entry else f"{self.found.model} is not in the list; asking it all the same"
            if names else "no list; asking by name"
        )  # fmt: skip
        self.found.checks.append(Check("models", "GET /models", came, "ok" if entry else "unknown", means))
        self._tell()
        return entry

    async def _questions(self, entry: Mapping[str, Any]) -> None:
        inquiry, base, found, trial = self.inquiry, self.probed, self.found, self.trial
        questions: dict[str, Callable[[], Awaitable[Check | None]]] = {
            "logprobs": lambda: doctor_checks.logprobs(inquiry, base, found, trial),
            "json": lambda: doctor_checks.verdict_mode(inquiry, base, found, trial, "json"),
            "text": lambda: doctor_checks.verdict_mode(inquiry, base, found, trial, "text"),
            "json schema": lambda: doctor_checks.schema(inquiry, found),
            "repeat": lambda: doctor_checks.repeat(inquiry, base, found, trial),
            "seed": lambda: doctor_checks.seed(inquiry, found),
            "system role": lambda: doctor_checks.system_role(inquiry, found),
            "context": lambda: doctor_checks.context(inquiry, found, listed_context(entry), self.tokens),
            "n": lambda: doctor_checks.choices(inquiry, found),
            "concurrency": self._concurrency,
        }
        for name, ask in questions.items():
            try:
                await self._add(ask())
            except CallsSpent:
                found.checks.append(Check(name, "nothing", "the calls are used up", "unknown", "raise --max-calls"))
                self._tell()
        found.checks.append(doctor_checks.rate_limits(inquiry.seen_headers))
        self._tell()

    async def _add(self, checking: Awaitable[Check | None]) -> None:
        """Add a check to the transcript once it has ended."""
        check = await self.inquiry.counted(checking)
        if check is not None:
            self.found.checks.append(check)
            self._tell()

    async def _concurrency(self) -> Check:
        most = max(doctor_checks.MOST_CONCURRENCY_CALLS, self.inquiry.most - _OTHER_CALLS)
        self.knee = await doctor_checks.find_knee(self.inquiry, self._judge_call, most)
        return doctor_checks.concurrency(self.knee)

    def _judge_call(self, number: int) -> dict[str, Any]:
        """A judge call of usual shape; all differ, so that no cache answers."""
        mode = doctor_checks.best_mode(self.found) or self.trial.modes[-1]
        endpoint = self.found.endpoint(self.probed).model_copy(update={"model": self.found.model})
        first, second = (f"{text} This is remark number {number} on it. {_FILLER}" for text in self.trial.answers)
        question = f"({number}) {self.trial.question}"
        return replace(self.trial, answers=(first, second), question=question).body(endpoint, mode)

    def _recommended(self) -> Recommendation:
        found, mode = self.found, doctor_checks.best_mode(self.found)
        best = self.knee.best if self.knee else None
        concurrency = best.at_once if best else None
        block = self.asked.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        if self.asked.base_url is not None:
            block["base_url"] = _address(self.asked)
        block |= {"model": found.model, **({"concurrency": concurrency} if concurrency else {})}
        if found.max_tokens_field != "max_tokens":
            block["max_tokens_field"] = found.max_tokens_field
        if not found.send_temperature:
            block["send_temperature"] = False
        if found.thinks:
            block["max_tokens"] = found.max_tokens
        if mode == "logprob" and found.logprobs is not None and found.logprobs < doctor_checks.TRIED_LOGPROBS:
            block["top_logprobs"] = found.logprobs
        return Recommendation(mode, concurrency, best.per_second if best else None, block, tuple(self._why(mode)))

    def _why(self, mode: Mode | None) -> list[str]:
        checks = {check.name: check for check in self.found.checks}
        if mode is None:
            why = ["no mode gave a verdict on a plain question: try another --prompt or a larger model"]
        else:
            why = [_WHY[mode]]
            missed = [
                name for name in ("logprobs", "json", "text") if name.rstrip("s") != mode and checks[name].state == "no"
            ]
            better = list(templates.MODES[: templates.MODES.index(mode)])
            why += [f"{name}: {checks[name].means}" for name in missed if name.rstrip("s") in better]
        why += [
            f"{name}: {checks[name].means}"
            for name in ("context", "repeat")
            if name in checks and checks[name].state == "no"
        ]
        if self.knee is not None:
            why.append(f"concurrency {self.knee.best.at_once}: {self.knee.why}")
        return why

    def _tell(self) -> None:
        for check in self.found.checks[self._told :]:
            self.on_check(check)
        self._told = len(self.found.checks)


_WHY: dict[Mode, str] = {
    "logprob": "logprob: one token a verdict, and it is soft, which tells more a call than a hard one",
    "json": "json: the reply is an object that always parses, or is counted as unscored",
    "text": "text: the verdict is read from the reply's end",
}
_FILLER = (
    "It has been so for a long time, most people know it from school, and maps show it where the river bends. "
    "There are other towns of some size in the country, but none of them is where the government sits."
)


def _entries(listing: HttpResult) -> list[Mapping[str, Any]]:
    data = listing.body.get("data") if listing.status == 200 and isinstance(listing.body, dict) else None
    return [entry for entry in data if isinstance(entry, dict) and entry.get("id")] if isinstance(data, list) else []


def _address(endpoint: Endpoint) -> str:
    """The base URL without a user, a password or a query in it; the engine's name where judgeloop starts it."""
    if endpoint.base_url is None:
        return f"engine {endpoint.engine}"
    return bare_address(endpoint.base_url)
