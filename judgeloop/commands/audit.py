"""``judgeloop.audit``: ask judges about pairs, in both orders and with probes, into a run folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from judgeloop.analysis import Analysis, analyze_log, write_tables
from judgeloop.commands import questions, ray_executor
from judgeloop.commands.audit_spec import OPTIONS, Settings, check_keys, checked, valid, with_client_addresses
from judgeloop.commands.batch import AuditBatches, interrupted, refuse_running
from judgeloop.commands.consent import Consent
from judgeloop.commands.questions import ProbeQuestions, Questions, unapplied
from judgeloop.commands.rated import RatedReplies, analyze_rated
from judgeloop.commands.session import (
    Observer,
    Session,
    check_prices,
    difference_named,
    environment,
    unwrapped,
    value_shown,
)
from judgeloop.errors import InvalidInput
from judgeloop.experiment.audit import AuditCall, AuditSpec
from judgeloop.experiment.options import only_speed, with_keywords
from judgeloop.experiment.schema import Block, Endpoint
from judgeloop.interchange.rows import Input
from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.judging.judges import ModelJudge, resolve_mode
from judgeloop.judging.reward_models import RewardJudge, check_reward, reward_judge
from judgeloop.records import Client, Judgment, Verdict
from judgeloop.rundir import RunFolder, default_folder
from judgeloop.serving import engines
from judgeloop.wire.cassette import SHARD
from judgeloop.wire.client import Ledger, WireClient

if TYPE_CHECKING:
    from judgeloop.results import Audit

AnyJudge = ModelJudge | RewardJudge

_SHARD_ITEMS = 500
"""Items of a shard. A shard's calls are found again by its number: with another size they would be asked again."""
_EVERY_S = 5.0
"""Seconds between two messages on how far the edits are."""
_NAMES = {**OPTIONS, "pairs": "the pairs file"}
_SPEED = only_speed(AuditSpec) | {"model"}


@with_keywords(AuditCall)
def audit(pairs: Input, **options: Any) -> Audit:
    """Ask judges about every pair in both orders, or go on where that stopped, and write estimates and report into ``out``.

    ``pairs``: a path (JSON Lines, CSV or Parquet by ending), "-" for standard input, or a frame. Without ``out`` the folder
    is runs/<the pairs' name>-audit, with a number behind it where another audit's answers stand there already; its path
    goes to standard error, or to ``observer.start``. The keywords are the command line's options (modes: docs/modes.md; reward
    models: docs/serving.md; batches: docs/batch.md):

    {options}

    Raises JudgeloopError; the same call resumes after BudgetReached, EndpointFailed, AnswersOutstanding or
    StorageFailed.
    """
    call = valid(AuditCall, with_client_addresses(options))
    return run_audit(checked(pairs, call), call)


def run_audit(settings: Settings, call: AuditCall, consent: Consent | None = None) -> Audit:
    """``audit`` of settings that are checked already; by ``consent`` it is confirmed first where keys go unencrypted."""
    observer: Observer | None = call.observer
    collect = [Path(file) for file in ([call.collect] if isinstance(call.collect, str | Path) else call.collect)]
    by_files = call.batch or bool(collect)
    if call.batch + bool(collect) + (call.replay is not None) > 1:
        raise InvalidInput("--batch, --collect and --replay: give one of them")
    if by_files and any(endpoint.engine for endpoint in settings.endpoints.values()):
        raise InvalidInput("--engine: what judgeloop starts takes no batch files; leave --batch and --collect out")
    if by_files and call.client is not None:
        raise InvalidInput("client: batches go by judgeloop's own connection; leave batch and collect out")
    if by_files and settings.reward is not None:
        raise InvalidInput(
            "--reward: reward models are asked by routes that batch files do not have; leave --batch and --collect out"
        )
    on_ray = ray_executor.check(call.executor, settings.endpoints, client=call.client, replay=call.replay)
    if on_ray and by_files:
        raise InvalidInput("--executor ray: batch files are answered elsewhere; leave --batch and --collect out")
    if on_ray and settings.form is not None:
        raise InvalidInput(f"--executor ray: shards are of pairs; with --mode {settings.form.mode} leave it out")
    if call.replay is None and not collect:
        engines.check(settings.endpoints)
        check_keys(settings.endpoints)
        if call.max_cost is not None:
            check_prices(
                settings.endpoints, "--max-cost", "--price IN,OUT (one a model, and one more for --edit-model)"
            )
    identity = settings.identity()
    folder = default_folder(settings.name, identity) if call.out is None else RunFolder(call.out)
    if call.out is None and observer is None:
        print(f"judgeloop: {settings.name} → {folder.path}", file=sys.stderr)
    files = {source["name"]: source["hash"] for source in settings.sources.values() if "hash" in source}
    session = Session(
        folder, identity, settings.endpoints, environment(identity, files, settings.seed), settings.record(), call.replay,
        call.retry_failed and not collect, Ledger(call.max_cost, call.max_calls), observer, call.client, consent,
        "" if on_ray else None,
    )  # fmt: skip
    asking = _Asking(settings, observer)
    with difference_named(folder, "audit", lambda recorded: audit_differences(recorded, settings.record())), session:
        if observer:
            observer.start(settings.name, folder.path)
        if by_files:
            _ask_by_batches(session, settings, collect, observer)
        elif session.recording is None:
            refuse_running(folder)
        with ray_executor.cluster(session) if on_ray else nullcontext() as cluster:
            if cluster:
                asking.elsewhere = partial(_ask_by_shards, cluster, session, settings)
            session.ask(asking.ask)
        session.stage("estimates")
        analysis = asking.analysis(identity)
        session.finish({**analysis.facts, **asking.facts()})
        write_tables(analysis, folder)
        for table, frame in asking.tables().items():
            folder.write_part(table, "log", frame)
        if call.report:
            session.write_report()
    from judgeloop.results import Audit  # imported late: it loads the report's code

    return Audit(folder)


def _ask_by_batches(
    session: Session, settings: Settings, collect: Sequence[Path], observer: Observer | None
) -> None:  # fmt: skip
    """Record every answer by batches, or from finished output files."""

    async def ask_all(client: Client) -> None:
        # An asking of its own, without an observer: most of its calls are not answered yet.
        await _Asking(settings, None).ask(client, settings.endpoints)

    batches = AuditBatches(session.folder, settings.endpoints, session.cassette, session.ledger, ask_all, observer)
    try:
        unwrapped(batches.collect(collect) if collect else batches.send())
    except KeyboardInterrupt:
        raise interrupted(session.folder) from None


VerdictAndCall = tuple[Verdict, str]
"""A judgment without its presentation: the verdict and the call's id."""


async def _ask_by_shards(
    cluster: ray_executor.Cluster,
    session: Session,
    settings: Settings,
    judges: Sequence[AnyJudge],
    probing: ProbeQuestions,
) -> VerdictLog:
    """Have a cluster ask everything, shard by shard; the log is that of ``questions.ask``."""
    nobody = cast(Client, None)  # each worker has a client of its own
    bare, asked = [replace(judge, client=nobody) for judge in judges], settings.questions
    units = (
        ray_executor.Unit(f"{SHARD}{number:05d}", partial(_shard, bare, own, probes), _calls(judges, own, probes))
        for number, (own, probes) in enumerate(asked.shards(probing, _SHARD_ITEMS))
    )

    def on_event(name: str, content: Any) -> None:
        if session.observer:
            session.observer.note(content) if name == "note" else session.observer.judged(*content)

    total = _calls(judges, asked, probing)
    shards: list[dict[str, list[list[VerdictAndCall]]]] = await cluster.run(units, on_event, shares=total, own=0)
    judged = {}
    for judge in (judge.name for judge in judges):
        shown = questions.shown_to(judge, asked, probing)
        answers = asked.in_order([shard[judge] for shard in shards], probing.of(judge), _SHARD_ITEMS)
        judged[judge] = [
            [Judgment(each, judge, verdict, call) for each, (verdict, call) in zip(presented, verdicts, strict=True)]
            for (_, presented), verdicts in zip(shown, answers, strict=True)
        ]
    return questions.verdict_log(judged, asked, probing)


def _calls(judges: Sequence[AnyJudge], asked: Questions, probing: ProbeQuestions) -> int:
    return sum(asked.calls + probing.calls(judge.name) for judge in judges)


async def _shard(
    judges: Sequence[AnyJudge],
    asked: Questions,
    probing: ProbeQuestions,
    client: WireClient,
    endpoints: Mapping[str, Endpoint],
    event: ray_executor.Event,
) -> dict[str, list[list[VerdictAndCall]]]:
    """One shard, in a worker: judge → the verdicts on each matchup, then on each probe pair."""
    own = [replace(judge, client=client, endpoint=endpoints[judge.spec.endpoint]) for judge in judges]
    judged = await questions.ask_judges(own, asked, probing)
    for judge, batches in judged.items():
        verdicts = [judgment.verdict for batch in batches for judgment in batch]
        event("judged", [judge, len(verdicts), sum(verdict.slot == "unscored" for verdict in verdicts)])
    return {
        judge: [[(judgment.verdict, judgment.call) for judgment in batch] for batch in batches]
        for judge, batches in judged.items()
    }


@dataclass
class _Asking:
    """The calls of an audit, and the analysis, tables and facts of their replies. ``elsewhere``: what has other processes ask
    about the pairs."""

    settings: Settings
    observer: Observer | None
    elsewhere: Callable[[Sequence[AnyJudge], ProbeQuestions], Awaitable[VerdictLog]] | None = None
    log: VerdictLog = field(init=False)
    rated: RatedReplies = field(init=False)
    probing: ProbeQuestions = field(init=False, default_factory=ProbeQuestions)
    modes: dict[str, str] = field(init=False, default_factory=dict)
    refused: dict[str, dict[str, int]] = field(init=False, default_factory=dict)
    shown_at: float = field(init=False, default_factory=time.monotonic)
    """When the last message was shown."""

    async def ask(self, client: Client, _: Mapping[str, Endpoint]) -> None:
        """Ask a client everything. Raises what the client raises."""
        settings = self.settings
        if settings.rules:
            self._stage("edits")
        self.probing = settings.rule_probes(self._show_edits)
        self._show_planned()
        judges = [await self._judge(name, client) for name in settings.judges] if settings.pairwise else []
        if settings.editor is not None:
            self._stage("edits")
            self.probing, self.refused = await questions.model_probes(
                settings.questions, self.probing, settings.editor, client
            )
            self._show_planned()
        self._stage("asking")
        if self.elsewhere is not None:
            self.log = await self.elsewhere(judges, self.probing)
            return
        judged = self.observer.judged if self.observer else lambda *_: None
        if settings.pairwise:
            self.log = await questions.ask(judges, settings.questions, self.probing, judged)
        if settings.form is not None:
            self.rated = await settings.form.ask(settings.judges, settings.endpoints, client, settings.seed, judged)

    async def _judge(self, name: str, client: Client) -> AnyJudge:
        """The judge of that name, after its trial calls."""
        settings, spec = self.settings, self.settings.judges[name]
        if settings.reward is not None:
            block = settings.reward.model_copy(update={"endpoint": name})
            judge = reward_judge(block, name, endpoints=settings.endpoints, folder=".", client=client)
            await check_reward(judge, questions.TRIAL_PREFIX)
            self.modes[name] = f"score by {block.route}"
            return judge
        mode = await resolve_mode(
            spec, endpoints=settings.endpoints, folder=".", client=client, label=name, prefix=questions.TRIAL_PREFIX
        )
        self.modes[name] = mode
        endpoint = settings.endpoints[spec.endpoint]
        return ModelJudge(name, spec, endpoint, settings.template_of(name), mode, client, settings.seed)

    def analysis(self, identity: str) -> Analysis:
        """The estimates of all that was asked."""
        settings, base = self.settings, None
        if settings.pairwise:
            base = analyze_log(
                self.log, name=settings.name, sources=settings.sources, identity=identity, mitigate=settings.mitigate,
                watch=self._show_estimates, scored_alone=settings.bases if settings.reward else (),
                gold_exact=settings.spec.gold_exact,
            )  # fmt: skip
            missing = unapplied(settings.questions, self.probing, settings.probes, settings.bases)
            if len(missing):
                base = replace(base, estimates=pd.concat([base.estimates, missing], ignore_index=True))
            if settings.form is None:
                return base
        assert settings.form is not None  # modes other than pairwise have a form
        return analyze_rated(
            settings.form, self.rated, base, name=settings.name, identity=identity, sources=settings.sources
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables beside those of every audit."""
        return {} if self.settings.form is None else self.settings.form.tables(self.rated)

    def _stage(self, text: str) -> None:
        if self.observer:
            self.observer.stage(text)

    def _show_planned(self) -> None:
        if self.observer:
            calls = {name: self.settings.calls + self.probing.calls(name) for name in self.settings.judges}
            self.observer.planned(calls)

    def _show_edits(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self.shown_at > _EVERY_S:
            self.shown_at = now
            self._stage(f"edits, {done:,} of {of:,} pairs")

    def _show_estimates(self, judge: str, done: int, of: int) -> None:
        self._stage(f"estimates of {judge}" + (f" ({done + 1} of {of})" if of > 1 else ""))

    def facts(self) -> dict[str, Any]:
        """How verdicts were read, and how many texts could be edited."""
        edited = {
            name if dose is None else f"{name} {dose:g}": f"{done} of {texts} texts"
            for (name, dose), (done, texts) in self.probing.edited.items()
        }
        return {
            "verdict_modes": self.modes,
            **({"edited": edited} if edited else {}),
            **({"edits_refused": self.refused} if self.refused else {}),
        }


# -- a folder of another audit -----------------------------------------------------------------------------------------


def audit_differences(recorded: Mapping[str, Any], own: Mapping[str, Any]) -> list[str] | None:
    """A sentence on every setting that differs between a folder's experiment.yaml and this audit's; None where the folder is no
    audit's."""
    if not isinstance(recorded.get("audit"), dict):
        return None
    unnamed = ["the rows of the pairs file or the text of the prompt have changed"]
    return list(_differences(recorded["audit"], dict(own["audit"]))) or unnamed


def _differences(recorded: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on every setting that differs between the folder's audit and this one."""
    recorded_judges, own_judges = (_by_model(record.get("judges")) for record in (recorded, own))
    if list(recorded_judges) != list(own_judges):
        yield f"--model is {value_shown(list(recorded_judges))} there and {value_shown(list(own_judges))} here"
    else:
        for model in recorded_judges:
            yield from _block_differences(recorded_judges[model], own_judges[model], block=Endpoint)
    yield from _block_differences(recorded, own, block=AuditSpec)


def _by_model(judges: object) -> dict[str, Mapping[str, Any]]:
    """Model → the recorded endpoint of its judge."""
    listed = judges if isinstance(judges, list) else []
    return {str(judge.get("model")): judge for judge in listed if isinstance(judge, Mapping)}


def _block_differences(recorded: Mapping[str, Any], own: Mapping[str, Any], *, block: type[Block]) -> Iterator[str]:
    """A sentence on every key of a block whose values differ, but for settings of speed."""
    for key in dict.fromkeys((*recorded, *own)):
        recorded_value, own_value = (_value(record, key, block) for record in (recorded, own))
        if key != "judges" and key not in _SPEED and recorded_value != own_value:
            yield f"{_NAMES.get(key, key)} is {value_shown(recorded_value)} there and {value_shown(own_value)} here"


def _value(record: Mapping[str, Any], key: str, block: type[Block]) -> Any:
    """The recorded value, else the default: an older record does not have every field."""
    field = block.model_fields.get(key)
    return record.get(key, field.get_default(call_default_factory=True) if field else None)
