"""``judgeloop.run``: close the loop into a run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judgeloop import loop
from judgeloop.commands.session import Observer, Session, environment
from judgeloop.errors import ExperimentError
from judgeloop.experiment.resolve import Material, ResolvedExperiment, as_resolved, asked_models, check_environment
from judgeloop.experiment.schema import BradleyTerrySignalSpec, Endpoint, JudgeSpec
from judgeloop.judging.controls import GoldJudge
from judgeloop.judging.judges import TRIAL_PREFIX, Judge, judge_name, make_judge, resolve_mode
from judgeloop.judging.reward_models import RewardJudge, check_reward
from judgeloop.policies import Drafter
from judgeloop.rundir import TABLES, RunFolder
from judgeloop.serving import engines
from judgeloop.serving.planted_spec import features_of
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.text import templates
from judgeloop.text.templates import Mode
from judgeloop.wire.client import Ledger, WireClient

if TYPE_CHECKING:
    from judgeloop.results import Run


def run(
    experiment: str | Path | Mapping[str, Any] | ResolvedExperiment,
    *,
    out: str | Path | None = None,
    replay: str | Path | None = None,
    max_cost: float | None = None,
    max_calls: int | None = None,
    observer: Observer | None = None,
    report: bool = True,
) -> Run:
    """Close the loop, or go on where it stopped, and write estimates and ``report`` into ``out`` (default runs/<name>).

    ``experiment`` is a file, a mapping with paths relative to the working directory, or a ResolvedExperiment. With
    ``replay`` every answer comes from that recorded run folder and no endpoint is asked. ``max_cost`` (USD) and
    ``max_calls`` limit the whole run, recorded calls included. ``observer`` shows progress: an object with the methods of
    ``judgeloop.commands.session.Observer``. Raises JudgeloopError; the same call resumes after BudgetReached,
    EndpointFailed or StorageFailed.
    """
    resolved = as_resolved(experiment)
    material = Material.read(resolved)
    budget = resolved.experiment.budget
    max_cost = budget.max_cost if max_cost is None else max_cost
    if max_cost is not None and replay is None:
        _check_prices(resolved)
    if replay is None:
        check_environment(resolved)
        engines.check(resolved.experiment.endpoints)
    session = Session(
        folder=RunFolder(out or Path("runs") / resolved.experiment.name),
        identity=material.identity,
        endpoints=resolved.experiment.endpoints,
        environment=environment(material.identity, material.hashes, resolved.experiment.seed),
        experiment=_stored_experiment(resolved),
        replay=replay,
        ledger=Ledger(max_cost, budget.max_calls if max_calls is None else max_calls),
        observer=observer,
    )
    folder = session.folder
    with session:
        if observer:
            block = resolved.experiment
            observer.start(block.name, folder.path, material.planned_calls(), block.generations, block.replicates)
        judges = session.ask(lambda client, endpoints: _run(resolved, material, endpoints, client, folder, observer))
        session.finish({"verdict_modes": dict(judges.modes)})
        session.stage("estimates")
        tables = {name: folder.table(name) for name in TABLES}
        folder.write_estimates(run_estimates(RunTables(**tables), design_of(resolved, judges.names)))
        if report:
            session.write_report()
    from judgeloop.results import Run  # reads the report's code

    return Run(folder)


async def _run(
    resolved: ResolvedExperiment,
    material: Material,
    endpoints: Mapping[str, Endpoint],
    client: WireClient,
    folder: RunFolder,
    observer: Observer | None,
) -> _Judges:
    """Make the judges, ask everything, write the tables."""
    experiment = resolved.experiment
    judges = await _make_judges(resolved, endpoints, client)
    gold = next((judge for judge in judges.by_arm.values() if isinstance(judge, GoldJudge)), None)
    policy = experiment.policy
    drafter = Drafter(
        client,
        policy,
        experiment.endpoints[policy.endpoint],
        templates.load(policy.prompt, resolved.folder, "draft"),
        experiment.seed,
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
        on_generation=observer.generation if observer else lambda _: None,
    )
    await loop.run(context)
    return judges


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


def _check_prices(resolved: ResolvedExperiment) -> None:
    """Raise ExperimentError where a cost is limited and no endpoint states a price."""
    prices = [endpoint.price for endpoint in resolved.experiment.endpoints.values()]
    if not any(price.input or price.output for price in prices):
        raise ExperimentError(
            "budget.max_cost: no endpoint states a price, so no cost can be counted; set endpoints.<name>.price"
        )


def design_of(resolved: ResolvedExperiment, names: Mapping[str, str]) -> Design:
    """What the statistics need to know of the experiment; ``names``: arm → its judge's name in the judgments table."""
    arms = tuple(
        ArmDesign(
            name=arm.name,
            judge=names[arm.name],
            is_control=arm.is_control,
            is_positive_control=arm.is_positive_control,
            judge_kind=arm.judge.kind,
            policy_kind=arm.policy.kind,
            label_rule=arm.signal.label_rule,
            update=arm.signal.update,
            reference=arm.signal.reference,
            strategy=arm.strategy.kind,
            real_fraction=arm.strategy.real_fraction,
            tau=arm.signal.tau if isinstance(arm.signal, BradleyTerrySignalSpec) else 1.0,
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
