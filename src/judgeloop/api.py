"""The public Python interface: what the command line is a thin layer over."""

from __future__ import annotations

import asyncio
import platform
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import yaml

from judgeloop import audit, loop, report, templates
from judgeloop.errors import ExperimentError, InvalidInput, JudgeloopError
from judgeloop.experiment import Endpoint, GoldJudge
from judgeloop.experiment import Judge as JudgeSpec
from judgeloop.interchange import load_columns
from judgeloop.interchange.cells import STDIN, Input
from judgeloop.judging.judges import Judge, judge_name, make_judge, resolve_mode
from judgeloop.material import Material, asked_models
from judgeloop.planted import spec as planted_spec
from judgeloop.planted.answerer import PlantedAnswerer
from judgeloop.planted.spec import features_of
from judgeloop.policies.drafting import Drafter
from judgeloop.resolve import Resolved, check_environment, load, resolve
from judgeloop.results import Audit, Run, opened
from judgeloop.rundir import RunFolder
from judgeloop.stats.run_estimates import ArmDesign, Design, RunTables, run_estimates
from judgeloop.templates import Mode
from judgeloop.wire import engine
from judgeloop.wire.answers import RecordAnswerer, ReplayAnswerer
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import Answered, Ledger, WireClient
from judgeloop.wire.faults import load_faults
from judgeloop.wire.server import create_app, serve_forever


class Observer(Protocol):
    """What a progress view is told while a run goes on."""

    def start(self, name: str, folder: Path, planned_calls: int, generations: int, replicates: int) -> None: ...

    def answered(self, event: Answered) -> None: ...

    def generation(self, event: loop.GenerationDone) -> None: ...

    def stage(self, text: str) -> None: ...


def run(
    experiment: str | Path | Mapping[str, Any] | Resolved,
    *,
    out: str | Path | None = None,
    replay: str | Path | None = None,
    max_cost: float | None = None,
    max_calls: int | None = None,
    observer: Observer | None = None,
) -> Run:
    """Close the loop, or go on where it stopped, and write estimates and report into ``out`` (default runs/<name>).

    ``experiment`` is a file, a mapping with paths relative to the working directory, or a Resolved. With ``replay`` every
    answer comes from that recorded run folder and no endpoint is asked. Limits count the whole run, recorded calls
    included. Raises JudgeloopError; the same call resumes after BudgetReached, EndpointFailed or StorageFailed.
    """
    resolved = experiment if isinstance(experiment, Resolved) else _resolved(experiment)
    material = Material.read(resolved)
    budget = resolved.experiment.budget
    max_cost = budget.max_cost if max_cost is None else max_cost
    if max_cost is not None and replay is None:
        _check_prices(resolved)
    if replay is None:
        check_environment(resolved)
        engine.check(resolved.experiment.endpoints)
    folder = RunFolder(out or Path("runs") / resolved.experiment.name)
    recording = Cassette(RunFolder.recorded(replay).path, writable=False) if replay is not None else None
    with folder.claim(material.identity):
        environment = _environment(resolved, material)
        # The hash first: a run killed between the two is still known as this experiment's.
        folder.write_json("environment.json", {**folder.environment(), **environment})
        folder.write_text("experiment.yaml", _experiment_text(resolved))
        cassette = Cassette(folder.path, writable=True)
        ledger = Ledger(max_cost, budget.max_calls if max_calls is None else max_calls)
        if observer:
            names = resolved.experiment
            observer.start(names.name, folder.path, material.planned_calls(), names.generations, names.replicates)
        seen = _Seen(observer)
        try:
            started = (
                nullcontext(dict(resolved.experiment.endpoints))
                if recording
                else engine.running(resolved.experiment.endpoints)
            )
            with started as endpoints:
                asked = _unwrapped(
                    _run(resolved, material, endpoints, cassette, recording, ledger, seen, folder, observer)
                )
        finally:
            cassette.close()
            if recording:
                recording.close()
        folder.write_json("environment.json", {**environment, **seen.record(), "verdict_modes": dict(asked.modes)})
        if observer:
            observer.stage("estimates")
        tables = {name: folder.table(name) for name in ("items", "candidates", "judgments", "preferences", "signals")}
        folder.write_estimates(run_estimates(RunTables(**tables), _design(resolved, asked.judge_names)))
        if observer:
            observer.stage("report")
        report.write(folder)
    return Run(folder)


def open_run(path: str | Path) -> Run:
    """An existing run folder; an ``Audit`` where ``analyze`` wrote it."""
    return opened(RunFolder.existing(path))


def analyze(
    verdicts: Input,
    pairs: Input | None = None,
    *,
    out: str | Path | None = None,
    columns: str | Path | Mapping[str, Any] | None = None,
    watch: audit.Watch = lambda *_: None,
) -> Audit:
    """The statistics of an audit on judgments that exist already; nothing is asked. Writes estimates and report into ``out``
    (default runs/<the log's name>).

    ``verdicts``, ``pairs``: a path (JSON Lines, CSV or Parquet by ending), "-" for standard input, or a frame, with CONTRACT's
    columns; ``columns`` names them where the log calls them otherwise. ``watch`` is told (judge, done, of) before each
    judge's estimates. Raises InvalidInput naming file, row and column.
    """
    log = audit.read(verdicts, pairs, load_columns(columns))
    is_file = not isinstance(verdicts, pd.DataFrame) and str(verdicts) != STDIN
    name = Path(str(verdicts)).stem if is_file else "analysis"
    done = audit.analyze(log, name=name, sources=audit.sources_of(verdicts, pairs, columns), watch=watch)
    folder = RunFolder(out or Path("runs") / name)
    audit.write(done, folder)
    report.write(folder)
    return Audit(folder)


def _resolved(experiment: str | Path | Mapping[str, Any]) -> Resolved:
    return resolve(experiment) if isinstance(experiment, Mapping) else load(experiment)


def _unwrapped(running: Coroutine[Any, Any, _Asked]) -> _Asked:
    """Run it; of the errors that a group of tasks raises together, the first deliberate one."""
    try:
        return asyncio.run(running)
    except BaseExceptionGroup as group:
        deliberate = group.subgroup(JudgeloopError)
        error: BaseException = deliberate or group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _run(
    resolved: Resolved,
    material: Material,
    endpoints: Mapping[str, Endpoint],
    cassette: Cassette,
    recording: Cassette | None,
    ledger: Ledger,
    seen: _Seen,
    folder: RunFolder,
    observer: Observer | None,
) -> _Asked:
    async with WireClient(endpoints, cassette, replay=recording, ledger=ledger, observer=seen.answered) as client:
        experiment = resolved.experiment
        judges, modes = await _judges(resolved, endpoints, client)
        gold = next((judges[arm.name] for arm in resolved.arms if isinstance(arm.judge, GoldJudge)), None)
        policy = experiment.policy
        drafter = Drafter(
            client,
            policy,
            experiment.endpoints[policy.endpoint],
            templates.load(policy.prompt, resolved.folder, "draft"),
            experiment.seed,
        )
        lab = loop.Lab(
            resolved=resolved,
            items=material.items,
            real=material.real,
            anchor_pairs=material.anchor_pairs,
            drafter=drafter,
            judges=judges,
            gold=gold,
            folder=folder,
            on_generation=observer.generation if observer else lambda _: None,
        )
        await loop.run(lab)
        return _Asked({name: judge.name for name, judge in judges.items()}, modes)


@dataclass(frozen=True)
class _Asked:
    """What is known once the judges are made: arm → judge's name, judge's name → verdict modes."""

    judge_names: Mapping[str, str]
    modes: Mapping[str, str]


class _Seen:
    """What the endpoints said of themselves."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self._models: dict[str, set[str]] = {}
        self._fingerprints: dict[str, set[str]] = {}
        self.calls, self.cost, self.failures = 0, 0.0, 0

    def answered(self, event: Answered) -> None:
        if event.reply.model:
            self._models.setdefault(event.call.endpoint, set()).add(event.reply.model)
        if event.reply.fingerprint:
            self._fingerprints.setdefault(event.call.endpoint, set()).add(event.reply.fingerprint)
        self.calls, self.cost = event.calls, event.cost
        if self._observer:
            self._observer.answered(event)

    def record(self) -> dict[str, Any]:
        return {
            "reported_models": {name: sorted(found) for name, found in self._models.items()},
            "reported_fingerprints": {name: sorted(found) for name, found in self._fingerprints.items()},
            "calls": self.calls,
            "cost_usd": round(self.cost, 6),
        }


def planted_schema() -> dict[str, Any]:
    """JSON schema of a planted spec."""
    return planted_spec.schema()


def serve(
    *,
    replay: Path | None = None,
    record: Path | None = None,
    upstream: str | None = None,
    planted: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    faults: Path | None = None,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the OpenAI API until interrupted: one of ``replay`` (a recorded run folder), ``record`` with ``upstream``,
    ``planted`` (a spec file). ``ready`` is told the base URL. Raises JudgeloopError."""
    answerer: Any
    if replay is not None:
        answerer = ReplayAnswerer(RunFolder.recorded(replay).path)
    elif record is not None:
        if not (upstream or "").startswith(("http://", "https://")):
            raise InvalidInput(f"--upstream: give a base URL that starts with http:// or https://, not {upstream!r}")
        answerer = RecordAnswerer(record, str(upstream))
    else:
        assert planted is not None
        answerer = PlantedAnswerer(planted_spec.load(planted), planted.parent)
    app = create_app(answerer, faults=load_faults(faults) if faults else None)
    serve_forever(app, host, port, ready=ready)


async def _judges(
    resolved: Resolved, endpoints: Mapping[str, Endpoint], client: WireClient
) -> tuple[dict[str, Judge], dict[str, str]]:
    """(arm → judge, judge's name → verdict modes). Arms with the same judge share the object; distinct judges have
    distinct names: the model's, with ``#prompt/verdict`` where that alone is ambiguous, then with the arm's."""
    specs = {arm.name: arm.judge for arm in resolved.arms}
    first_with = {name: next(other for other in specs if specs[other] == spec) for name, spec in specs.items()}
    distinct = list(dict.fromkeys(first_with.values()))
    modes: dict[str, list[Mode]] = {}
    for name in distinct:
        members = asked_models(specs[name])
        modes[name] = [
            await resolve_mode(member, endpoints=endpoints, folder=resolved.folder, client=client) for member in members
        ]
    names = _distinct_names({name: specs[name] for name in distinct}, endpoints, modes)
    made = {
        name: make_judge(
            specs[name],
            endpoints=endpoints,
            folder=resolved.folder,
            client=client,
            seed=resolved.experiment.seed,
            mode=modes[name] or None,
            measure=features_of,
            name=names[name],
        )
        for name in distinct
    }
    found = {names[name]: ", ".join(modes[name]) for name in distinct if modes[name]}
    return {name: made[first] for name, first in first_with.items()}, found


def _distinct_names(
    specs: Mapping[str, JudgeSpec], endpoints: Mapping[str, Endpoint], modes: Mapping[str, Sequence[Mode]]
) -> dict[str, str]:
    names = {arm: judge_name(spec, endpoints) for arm, spec in specs.items()}
    taken = Counter(names.values())
    for arm, spec in specs.items():
        if taken[names[arm]] > 1 and modes[arm]:
            names[arm] = judge_name(spec, endpoints, modes[arm][0], ambiguous=True)
    taken = Counter(names.values())
    return {arm: f"{name}~{arm}" if taken[name] > 1 else name for arm, name in names.items()}


def _experiment_text(resolved: Resolved) -> str:
    raw = resolved.experiment.model_dump(mode="json")
    raw["arms"] = {arm.name: arm.model_dump(mode="json", exclude={"name"}) for arm in resolved.arms}
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=100)


def _environment(resolved: Resolved, material: Material) -> dict[str, Any]:
    libraries = ("numpy", "scipy", "pandas", "openai", "httpx2", "markdown-it-py", "emoji", "pyarrow")
    return {
        "experiment_hash": material.identity,
        "files": dict(material.hashes),
        "seed": resolved.experiment.seed,
        "judgeloop": metadata.version("judgeloop"),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in libraries},
    }


def _check_prices(resolved: Resolved) -> None:
    prices = [endpoint.price for endpoint in resolved.experiment.endpoints.values()]
    if not any(price.input or price.output for price in prices):
        raise ExperimentError(
            "budget.max_cost: no endpoint states a price, so no cost can be counted; set endpoints.<name>.price"
        )


def _design(resolved: Resolved, names: Mapping[str, str]) -> Design:
    """What the statistics need to know of the experiment."""
    arms = tuple(
        ArmDesign(
            name=arm.name,
            judge=names[arm.name],
            is_control=arm.is_control,
            judge_kind=arm.judge.kind,
            policy_kind=arm.policy.kind,
            label_rule=arm.signal.label_rule,
            update=arm.signal.update,
            reference=arm.signal.reference,
            strategy=arm.strategy.kind,
            real_fraction=arm.strategy.real_fraction,
        )
        for arm in resolved.arms
    )
    experiment = resolved.experiment
    return Design(
        name=experiment.name,
        seed=experiment.seed,
        generations=experiment.generations,
        arms=arms,
        contrasts=resolved.contrasts,
        confirmatory=resolved.confirmatory,
    )
