"""``judgeloop.run``: close the loop into a run folder."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judgeloop import loop
from judgeloop.commands import ray_executor
from judgeloop.commands.consent import Consent
from judgeloop.commands.forecast import store_before, with_forecast
from judgeloop.commands.session import (
    Observer,
    OwnClient,
    Session,
    check_prices,
    difference_named,
    environment,
    settings_differences,
)
from judgeloop.errors import ExperimentError
from judgeloop.experiment.resolve import Material, ResolvedExperiment, as_resolved, asked_models, check_environment
from judgeloop.experiment.schema import (
    SIGNALS_OF_POLICY,
    CommandPolicySpec,
    Endpoint,
    HostedPolicySpec,
    HostedSignalSpec,
    JudgeSpec,
    LoraSignal,
    RewardModelSignalSpec,
    RewardSignal,
    RuleJudgeSpec,
    TrainedPolicySpec,
)
from judgeloop.judging.controls import GoldJudge
from judgeloop.judging.embeddings import Embedder, check_embedding
from judgeloop.judging.judges import TRIAL_PREFIX, Judge, judge_name, make_judge, resolve_mode
from judgeloop.judging.reward_models import RewardJudge, check_reward
from judgeloop.policies import Drafter, InProcess, Trainer
from judgeloop.records import canonical
from judgeloop.rundir import TABLES, RunFolder
from judgeloop.serving import engines
from judgeloop.serving.planted_spec import features_of
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.text import templates
from judgeloop.text.templates import Mode
from judgeloop.training import command, lora
from judgeloop.training.hosted import HostedTrainer
from judgeloop.wire.client import Ledger, WireClient

if TYPE_CHECKING:
    import pandas as pd

    from judgeloop.results import Run

_MOST_CALLS = 100_000_000
"""The calls that one run folder may plan: more is a slip in a key, and would fill the memory before the first call."""


def run(
    experiment: str | Path | Mapping[str, Any] | ResolvedExperiment,
    *,
    out: str | Path | None = None,
    replay: str | Path | None = None,
    max_cost: float | None = None,
    max_calls: int | None = None,
    retry_failed: bool = True,
    observer: Observer | None = None,
    client: OwnClient = None,
    report: bool = True,
    executor: str = "local",
    by_hand: bool = False,
    consent: Consent | None = None,
) -> Run:
    """Close the loop, or go on where it stopped, and write estimates and ``report`` into ``out`` (default runs/<name>).

    ``experiment`` is a file, a mapping with paths relative to the working directory, or a ResolvedExperiment. With
    ``replay`` every answer comes from that recorded run folder and no endpoint is asked. ``max_cost`` (USD) and
    ``max_calls`` limit the whole run, every attempt and what is recorded included. ``retry_failed``: calls whose attempts all failed
    in an earlier session are asked again. ``observer`` shows progress: an object with the methods of
    ``judgeloop.commands.session.Observer``. ``client`` asks in place of judgeloop's own line: an ``openai.AsyncOpenAI`` for all
    endpoints, or a mapping from endpoint to one; it is closed at the end. ``executor``: "ray" has the replicates worked by a Ray
    cluster (docs/scale.md), "local" by this process. ``by_hand``: a policy's command is not run; the files of its trainings are written
    and AnswersOutstanding says which wait (``judgeloop step``). ``consent`` is the command line's, which has it confirmed where keys
    go; without it they go where the experiment says. Raises JudgeloopError; the same call resumes after
    BudgetReached, EndpointFailed, TrainingFailed, AnswersOutstanding or StorageFailed.
    """
    resolved = as_resolved(experiment)
    material = Material.read(resolved)
    planned_calls = material.planned_calls()
    if planned_calls > _MOST_CALLS:
        raise ExperimentError(
            f"about {planned_calls:,} model calls are planned, and one run folder holds {_MOST_CALLS:,}; "
            "lower replicates, generations, candidates_per_item or the items"
        )
    budget = resolved.experiment.budget
    max_cost = budget.max_cost if max_cost is None else max_cost
    if max_cost is not None and replay is None:
        check_prices(resolved.experiment.endpoints, "budget.max_cost", "endpoints.<name>.price")
    if replay is None:
        check_environment(resolved)
        _check_installed(resolved)
    on_ray = ray_executor.check(executor, resolved.experiment.endpoints, client=client, replay=replay)
    if on_ray and resolved.experiment.policy.kind in SIGNALS_OF_POLICY:
        raise ExperimentError(f"policy.kind: {resolved.experiment.policy.kind} trains one model after another, which this process does; leave --executor ray out")  # fmt: skip
    session = Session(
        folder=RunFolder(out or Path("runs") / resolved.experiment.name),
        identity=material.identity,
        endpoints=resolved.experiment.endpoints,
        environment=environment(material.identity, material.hashes, resolved.experiment.seed),
        experiment=_stored_experiment(resolved),
        replay=replay,
        retry_failed=retry_failed,
        ledger=Ledger(max_cost, budget.max_calls if max_calls is None else max_calls),
        observer=observer,
        client=client,
        consent=consent and replace(consent, file=str(experiment)),
        unit="" if on_ray else None,
    )
    folder = session.folder
    if by_hand and isinstance(experiment, str | Path):
        session.environment = {**session.environment, "experiment_file": os.path.relpath(experiment, folder.path)}

    def differences(recorded: Mapping[str, Any]) -> list[str] | None:
        files = folder.environment().get("files", {})
        return experiment_differences({**recorded, "files": files}, {**session.experiment, "files": material.hashes})

    if isinstance(resolved.experiment.policy, CommandPolicySpec) and replay is None:
        command.check(resolved.experiment.policy, resolved.folder, folder, material.identity, by_hand=by_hand)
    with difference_named(folder, "experiment", differences), session:
        for name in command.forget_mended(session.cassette, folder) if by_hand else ():
            if observer:
                observer.note(f"{name}: model.json was mended, and is read again")
        if observer:
            block = resolved.experiment
            observer.start(block.name, folder.path, planned_calls, block.generations, block.replicates)
        weights = _weights(resolved, folder, by_hand=by_hand, replayed=replay is not None)
        generation = observer.generation if observer else lambda _: None
        with ray_executor.cluster(session) if on_ray else nullcontext() as cluster:
            replicates = partial(_on_ray, cluster, session, resolved, generation) if cluster else None
            judges = session.ask(
                lambda client, endpoints: _run(
                    resolved, material, endpoints, client, folder, weights, generation, replicates
                )
            )
        session.finish({"verdict_modes": dict(judges.modes)})
        session.stage("estimates")
        tables = RunTables(**{name: folder.table(name) for name in TABLES})
        estimates = run_estimates(tables, design_of(resolved, judges.names))
        folder.write_estimates(
            with_forecast(estimates, tables, resolved, resolved.experiment.generations, material.real)
        )
        if report:
            session.write_report()
    from judgeloop.results import Run  # reads the report's code

    return Run(folder)


def step(
    run_or_experiment: str | Path | Mapping[str, Any] | ResolvedExperiment,
    *,
    out: str | Path | None = None,
    max_cost: float | None = None,
    max_calls: int | None = None,
    retry_failed: bool = True,
    observer: Observer | None = None,
    report: bool = True,
    consent: Consent | None = None,
) -> Run:
    """``run`` with trainings that somebody makes by hand, for those that take days: it goes as far as it can, writes the files
    of each training and raises AnswersOutstanding, whose ``requests`` are (call id, folder) of those that lack model.json.

    The first argument is an experiment as for ``run``, or the folder of an earlier step.
    """
    experiment = run_or_experiment
    if isinstance(experiment, str | Path) and Path(experiment).is_dir():
        folder = RunFolder.existing(experiment)
        source = folder.environment().get("experiment_file")
        if not isinstance(source, str):
            raise ExperimentError(f"{folder.path}: does not say where its experiment is; give the experiment's file")
        out, experiment = out or folder.path, folder.path / source
    return run(
        experiment, out=out, max_cost=max_cost, max_calls=max_calls, retry_failed=retry_failed, observer=observer,
        report=report, by_hand=True, consent=consent,
    )  # fmt: skip


async def _run(
    resolved: ResolvedExperiment,
    material: Material,
    endpoints: Mapping[str, Endpoint],
    client: WireClient,
    folder: RunFolder,
    weights: _Weights,
    on_generation: Callable[[loop.GenerationDone], None],
    replicates: Callable[[loop.JudgedPanels], Awaitable[None]] | None = None,
    only: int | None = None,
) -> _Judges:
    """Make the judges, ask everything, write the tables; of the replicate ``only`` alone where it is named. ``replicates``: see
    ``loop.run``."""
    experiment = resolved.experiment
    judges = await _make_judges(resolved, endpoints, client)
    embedders = await _make_embedders(resolved, endpoints, client)
    gold = next((judge for judge in judges.by_arm.values() if isinstance(judge, GoldJudge)), None)
    policy = experiment.policy
    drafter = Drafter(
        client,
        policy,
        experiment.endpoint(policy.endpoint),
        templates.load(policy.prompt, resolved.folder, "draft"),
        experiment.seed,
        in_process=weights.in_process,
        run=folder.path,
    )

    context = loop.LoopContext(
        resolved=resolved,
        items=material.items,
        real=material.real,
        anchor_pairs=material.anchor_pairs,
        drafter=drafter,
        judges=judges.by_arm,
        gold=gold,
        folder=folder,
        trainers=weights.trainers,
        embedders=embedders,
        on_generation=on_generation,
        before_training=lambda: store_before(folder, resolved, material.real),
    )
    try:
        await (loop.run(context, replicates) if only is None else loop.run_replicate(context, only))
    finally:
        await weights.aclose()
    return judges


async def _on_ray(
    cluster: ray_executor.Cluster,
    session: Session,
    resolved: ResolvedExperiment,
    generation: Callable[[loop.GenerationDone], None],
    panels: loop.JudgedPanels,
) -> None:
    """Have a cluster work the replicates, and judge the panels as the first of them gets to each generation."""
    experiment, seen = resolved.experiment, set[tuple[int, int]]()
    anywhere = resolved.model_copy(update={"folder": resolved.folder.resolve()})
    path = session.folder.path.resolve()
    units = [
        ray_executor.Unit(f"s{number}", partial(_replicate, anywhere, path, session.identity, number))
        for number in range(experiment.replicates)
    ]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(panels.judge(0))

        def on_event(name: str, content: Any) -> None:
            if name == "note" and session.observer:
                session.observer.note(content)
            if name != "generation":
                return
            done = loop.GenerationDone(**content)
            if (done.replicate, done.generation) not in seen:  # a worker that was started again tells it again
                seen.add((done.replicate, done.generation))
                generation(done)
                if done.generation < experiment.generations:
                    tasks.create_task(panels.judge(done.generation + 1))

        has_panel = experiment.panels.anchor != 0
        await cluster.run(units, on_event, shares=len(units), own=float(has_panel))


async def _replicate(
    resolved: ResolvedExperiment,
    path: Path,
    identity: str,
    number: int,
    client: WireClient,
    endpoints: Mapping[str, Endpoint],
    event: ray_executor.Event,
) -> None:
    """One replicate, in a worker. Raises ExperimentError where the files of the experiment are not those of the command."""
    material = Material.read(resolved)
    if material.identity != identity:
        raise ExperimentError(f"{resolved.folder}: a Ray worker reads other items or prompts there, or has another version of judgeloop; give all nodes the same")  # fmt: skip
    await _run(
        resolved, material, endpoints, client, RunFolder(path), _Weights(),
        lambda done: event("generation", asdict(done)), only=number,
    )  # fmt: skip


@dataclass(frozen=True)
class _Weights:
    """What trains the arms' models (arm → trainer), and what drafts in this process; nothing for a policy without weights."""

    trainers: Mapping[str, Trainer] = field(default_factory=dict)
    in_process: InProcess | None = None
    hosted: Sequence[HostedTrainer] = ()

    async def aclose(self) -> None:
        """Close what the trainers opened."""
        for trainer in self.hosted:
            await trainer.aclose()


def _check_installed(resolved: ResolvedExperiment) -> None:
    """Check that engines, libraries and weights are there, and load none. Raises ExperimentError, which names all that is missing."""
    policy, faults = resolved.experiment.policy, []
    checks: list[Callable[[], object]] = [partial(engines.check, resolved.experiment.endpoints)]
    if isinstance(policy, TrainedPolicySpec):
        checks += [partial(_base_model, resolved, policy), lora.check]
    for check in checks:
        try:
            check()
        except ExperimentError as fault:
            faults.append(str(fault))
    if faults:
        raise ExperimentError("\n".join(faults))


def _base_model(resolved: ResolvedExperiment, policy: TrainedPolicySpec) -> Path | str:
    """The folder or file of the model that is trained, or the name by which the library knows it. Raises ExperimentError."""
    base = resolved.path(policy.base)
    if not base.exists() and policy.base in engines.PACKAGED:
        return engines.weights("policy.base", policy.base)
    lora.check_base(policy.base, base)
    return base if base.exists() else policy.base


def _weights(resolved: ResolvedExperiment, folder: RunFolder, *, by_hand: bool, replayed: bool) -> _Weights:
    """The trainers of an experiment; one that is ``replayed`` needs no weights. Raises ExperimentError."""
    experiment = resolved.experiment
    policy = experiment.policy
    if isinstance(policy, CommandPolicySpec):
        base = experiment.endpoints[policy.endpoint].model
        trainer = command.CommandTrainer(folder, experiment.name, policy, base, resolved.folder, by_hand)
        return _Weights({arm.name: trainer for arm in resolved.arms})
    if by_hand:
        raise ExperimentError("policy.kind: nothing is trained by hand here; policy.kind command is")
    if isinstance(policy, TrainedPolicySpec):
        place = policy.base if replayed else _base_model(resolved, policy)
        model = lora.LocalModel(policy, place, folder)
        signals = {arm.name: arm.signal for arm in resolved.arms}
        trainers = {
            name: lora.LoraTrainer(model, each) for name, each in signals.items() if isinstance(each, LoraSignal)
        }
        return _Weights(trainers, None if policy.endpoint else model.answers)
    if isinstance(policy, HostedPolicySpec):
        endpoint = experiment.endpoints[policy.endpoint]
        if endpoint.base_url is None and not replayed:
            raise ExperimentError(f"policy.endpoint: {policy.endpoint} is an engine on this machine, which has no fine-tuning service; policy.kind trained trains here")  # fmt: skip
        slots = asyncio.Semaphore(policy.at_once)
        hosted = {
            arm.name: HostedTrainer(folder, policy, arm.signal, endpoint, os.environ, slots)
            for arm in resolved.arms
            if isinstance(arm.signal, HostedSignalSpec)
        }
        return _Weights(hosted, hosted=tuple(hosted.values()))
    return _Weights()


@dataclass(frozen=True)
class _Judges:
    """The judges of all arms (arm → judge), and how their verdicts are read (judge's name → verdict modes)."""

    by_arm: Mapping[str, Judge]
    modes: Mapping[str, str]

    @property
    def names(self) -> dict[str, str]:
        """Arm → its judge's name in the judgments table."""
        return {arm: judge.name for arm, judge in self.by_arm.items()}


async def _make_judges(resolved: ResolvedExperiment, endpoints: Mapping[str, Endpoint], client: WireClient) -> _Judges:
    """Arms with the same judge share the object; distinct judges have distinct names: the model's, with
    ``#prompt/verdict`` where that alone is ambiguous, then with the arm's."""
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
    judges = {
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
    readings = {names[name]: ", ".join(modes[name]) for name in distinct if modes[name]}
    for judge in judges.values():
        if isinstance(judge, RewardJudge):
            await check_reward(judge, TRIAL_PREFIX)
            readings[judge.name] = f"score by {judge.spec.route}"
    return _Judges({name: judges[first] for name, first in first_with.items()}, readings)


async def _make_embedders(
    resolved: ResolvedExperiment, endpoints: Mapping[str, Endpoint], client: WireClient
) -> dict[str, Embedder]:
    """Arm → what embeds its texts, of the arms whose signal is a reward model; each endpoint has answered a trial."""
    embedders: dict[str, Embedder] = {}
    shared: dict[tuple[str, str | None], Embedder] = {}
    for arm in resolved.arms:
        if isinstance(arm.signal, RewardModelSignalSpec):
            name, prompt = key = arm.signal.endpoint, arm.signal.prompt
            if key not in shared:
                template = None if prompt is None else templates.load(prompt, resolved.folder, "reward")
                shared[key] = Embedder(name, endpoints[name], template, client)
                await check_embedding(shared[key])
            embedders[arm.name] = shared[key]
    return embedders


def _distinct_names(
    specs: Mapping[str, JudgeSpec], endpoints: Mapping[str, Endpoint], modes: Mapping[str, Sequence[Mode]]
) -> dict[str, str]:
    """Arm → a name that no other judge has."""
    names = {arm: judge_name(spec, endpoints) for arm, spec in specs.items()}
    counts = Counter(names.values())
    for arm, spec in specs.items():
        if counts[names[arm]] > 1 and modes[arm]:
            names[arm] = judge_name(spec, endpoints, modes[arm][0], ambiguous=True)
    counts = Counter(names.values())
    return {arm: f"{name}~{arm}" if counts[name] > 1 else name for arm, name in names.items()}


def _stored_experiment(resolved: ResolvedExperiment) -> dict[str, Any]:
    """The content of experiment.yaml: the experiment with every arm as resolved."""
    block = resolved.experiment.model_dump(mode="json")
    return {**block, "arms": {arm.name: arm.model_dump(mode="json", exclude={"name"}) for arm in resolved.arms}}


def experiment_differences(recorded: Mapping[str, Any], own: Mapping[str, Any]) -> list[str] | None:
    """``settings_differences`` of two experiments as resolved; None where one is no experiment."""
    return settings_differences(recorded, own) if isinstance(recorded.get("arms"), dict) else None


def design_of_tables(resolved: ResolvedExperiment, judgments: pd.DataFrame) -> Design:
    """``design_of`` with the judges' names as the table has them."""
    rows = judgments[judgments["panel"] == "policy"]
    judges = {str(arm): str(judge) for arm, judge in rows.groupby("arm")["judge"].first().items()}
    return design_of(resolved, {arm.name: judges.get(arm.name, arm.judge.kind) for arm in resolved.arms})


def design_of(resolved: ResolvedExperiment, names: Mapping[str, str]) -> Design:
    """What the statistics need to know of the experiment; ``names``: arm → its judge's name in the judgments table."""
    arms = tuple(
        ArmDesign(
            name=arm.name,
            judge=names[arm.name],
            is_control=arm.is_control,
            taste=(arm.judge.feature, 1 if arm.judge.prefer == "more" else -1)
            if isinstance(arm.judge, RuleJudgeSpec)
            else None,
            judge_kind=arm.judge.kind,
            policy_kind=arm.policy.kind,
            signal_kind=arm.signal.kind,
            label_rule=arm.signal.label_rule,
            update=arm.signal.update,
            reference=arm.signal.reference,
            strategy=arm.strategy.kind,
            real_fraction=arm.strategy.real_fraction,
            tau=arm.signal.tau if isinstance(arm.signal, RewardSignal) else 1.0,
            settings=canonical(
                {
                    "policy": arm.policy.model_dump(mode="json"),
                    "signal": arm.signal.model_dump(mode="json", exclude={"label_rule"}),
                }
            ),
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
