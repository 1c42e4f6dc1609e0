"""``judgeloop.audit``: ask judges about pairs, in both orders and with probes, into a run folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from judgeloop.api.audit_difference import difference_named
from judgeloop.api.batch_jobs import refuse_running
from judgeloop.auditing import asking
from judgeloop.auditing.analysis import Analysis, analyze, write_tables
from judgeloop.auditing.questions import Probing
from judgeloop.auditing.rated import Rated, analyze_rated
from judgeloop.auditing.unapplied import unapplied
from judgeloop.commands.audit_spec import Settings, check_keys, check_price, checked, valid
from judgeloop.commands.batch import Batching, interrupted
from judgeloop.commands.session import Observer, Session, default_folder, environment, unwrapped
from judgeloop.errors import InvalidInput
from judgeloop.experiment.audit import AuditCall
from judgeloop.experiment.blocks import Endpoint
from judgeloop.experiment.options import with_keywords
from judgeloop.interchange.rows import Input
from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.judging.judges import ModelJudge, resolve_mode
from judgeloop.judging.reward_models import RewardJudge, check_reward, reward_judge
from judgeloop.records import Client
from judgeloop.rundir import RunFolder
from judgeloop.serving import engines
from judgeloop.wire.client import Ledger

if TYPE_CHECKING:
    from judgeloop.results import Audit

_EVERY_S = 5.0


@with_keywords(AuditCall)
def audit(pairs: Input, **options: Any) -> Audit:
    """Ask judges about every pair in both orders, or go on where that stopped, and write estimates and report into ``out``.

    ``pairs``: a path (JSON Lines, CSV or Parquet by ending), "-" for standard input, or a frame. Without ``out`` the folder
    is runs/<the pairs' name>-audit, with a number behind it where another audit's answers stand there already; it is named
    on standard error, or to ``observer.start``. The keywords are the command line's options (modes: docs/modes.md; reward
    models: docs/serving.md; batches: docs/batch.md):

    {options}

    Raises JudgeloopError; the same call resumes after BudgetReached, EndpointFailed, AnswersOutstanding or
    StorageFailed.
    """
    call = valid(AuditCall, options)
    return run_audit(checked(pairs, call), call)


def run_audit(made: Settings, call: AuditCall) -> Audit:
    """``audit`` of settings that are checked already."""
    observer: Observer | None = call.observer
    collect = [Path(file) for file in ([call.collect] if isinstance(call.collect, str | Path) else call.collect)]
    by_files = call.batch or bool(collect)
    if call.batch + bool(collect) + (call.replay is not None) > 1:
        raise InvalidInput("--batch, --collect and --replay: give one of them")
    if by_files and any(endpoint.engine for endpoint in made.endpoints.values()):
        raise InvalidInput("--engine: what judgeloop starts takes no batch files; leave --batch and --collect out")
    if by_files and made.reward is not None:
        raise InvalidInput(
            "--reward: reward models are asked by routes that batch files do not have; leave --batch out"
        )
    if call.replay is None and not collect:
        engines.check(made.endpoints)
        check_keys(made.endpoints)
        if call.max_cost is not None:
            check_price(made.endpoints)
    identity = made.identity()
    folder = default_folder(made.name, identity) if call.out is None else RunFolder(call.out)
    if call.out is None and observer is None:
        print(f"judgeloop: {made.name} → {folder.path}", file=sys.stderr)
    files = {source["name"]: source["hash"] for source in made.sources.values() if "hash" in source}
    session = Session(
        folder, identity, made.endpoints, environment(identity, files, made.seed), made.record(), call.replay,
        Ledger(call.max_cost, call.max_calls), observer,
    )  # fmt: skip
    audited = _Asking(made, observer)
    with difference_named(folder, made.record()), session:
        if observer:
            observer.start(made.name, folder.path)
        if by_files:
            _by_batches(session, made, collect, observer)
        elif session.recording is None:
            refuse_running(folder)
        session.ask(audited.ask)
        session.stage("estimates")
        done = audited.analysis(identity)
        session.finish({**done.facts, **audited.facts()})
        write_tables(done, folder)
        for table, frame in audited.tables().items():
            folder.write_part(table, "log", frame)
        if call.report:
            session.write_report()
    from judgeloop.results import Audit  # reads the report's code

    return Audit(folder)


def _by_batches(session: Session, made: Settings, collect: Sequence[Path], observer: Observer | None) -> None:
    """Record every answer by batches, or from finished output files."""

    async def dry(client: Client) -> None:
        # An asking of its own that shows nothing: most of what it asks is not answered yet.
        await _Asking(made, None).ask(client, made.endpoints)

    batches = Batching(session.folder, made.endpoints, session.cassette, session.ledger, dry, observer)
    try:
        unwrapped(batches.collect(collect) if collect else batches.send())
    except KeyboardInterrupt:
        raise interrupted(session.folder) from None


@dataclass
class _Asking:
    """What an audit asks, and what comes of it."""

    made: Settings
    observer: Observer | None
    log: VerdictLog = field(init=False)
    rated: Rated = field(init=False)
    probing: Probing = field(init=False, default_factory=Probing)
    modes: dict[str, str] = field(init=False, default_factory=dict)
    refused: dict[str, dict[str, int]] = field(init=False, default_factory=dict)
    told: float = field(init=False, default_factory=time.monotonic)

    async def ask(self, client: Client, _: Mapping[str, Endpoint]) -> None:
        """Ask a client everything."""
        made = self.made
        if made.rules:
            self.say("edits")
        self.probing = made.rule_probes(self.editing)
        self._planned()
        judges = [await self._judge(name, client) for name in made.judges] if made.pairwise else []
        if made.editor is not None:
            self.say("edits")
            self.probing, self.refused = await asking.model_probes(made.asked, self.probing, made.editor, client)
            self._planned()
        self.say("asking")
        judged = self.observer.judged if self.observer else lambda *_: None
        if made.pairwise:
            self.log = await asking.ask(judges, made.asked, self.probing, judged)
        if made.form is not None:
            self.rated = await made.form.ask(made.judges, made.endpoints, client, made.seed, judged)

    async def _judge(self, name: str, client: Client) -> ModelJudge | RewardJudge:
        made, spec = self.made, self.made.judges[name]
        if made.reward is not None:
            block = made.reward.model_copy(update={"endpoint": name})
            scoring = reward_judge(block, name, endpoints=made.endpoints, folder=".", client=client)
            await check_reward(scoring, asking.TRIAL_PREFIX)
            self.modes[name] = f"score by {block.route}"
            return scoring
        mode = await resolve_mode(
            spec, endpoints=made.endpoints, folder=".", client=client, label=name, prefix=asking.TRIAL_PREFIX
        )
        self.modes[name] = mode
        endpoint = made.endpoints[spec.endpoint]
        return ModelJudge(name, spec, endpoint, made.template_of(name), mode, client, made.seed)

    def _planned(self) -> None:
        if self.observer:
            self.observer.planned({name: self.made.calls + self.probing.calls(name) for name in self.made.judges})

    def analysis(self, identity: str) -> Analysis:
        """The estimates of all that was asked."""
        made, base = self.made, None
        if made.pairwise:
            base = analyze(
                self.log, name=made.name, sources=made.sources, identity=identity, mitigate=made.mitigate,
                watch=self.estimating, scored_alone=made.bases if made.reward else (), gold_exact=made.spec.gold_exact,
            )  # fmt: skip
            missing = unapplied(made.asked, self.probing, made.probes, made.bases)
            if len(missing):
                base = replace(base, estimates=pd.concat([base.estimates, missing], ignore_index=True))
            if made.form is None:
                return base
        assert made.form is not None  # what is not asked in pairs has a form
        return analyze_rated(made.form, self.rated, base, name=made.name, identity=identity, sources=made.sources)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables beside those of every audit."""
        return {} if self.made.form is None else self.made.form.tables(self.rated)

    def say(self, stage: str) -> None:
        if self.observer:
            self.observer.stage(stage)

    def editing(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self.told > _EVERY_S:
            self.told = now
            self.say(f"edits, {done:,} of {of:,} pairs")

    def estimating(self, judge: str, done: int, of: int) -> None:
        self.say(f"estimates of {judge}" + (f" ({done + 1} of {of})" if of > 1 else ""))

    def facts(self) -> dict[str, Any]:
        """How verdicts were read, and which texts could be edited."""
        edited = {
            name if dose is None else f"{name} {dose:g}": f"{done} of {texts} texts"
            for (name, dose), (done, texts) in self.probing.edited.items()
        }
        return {
            "verdict_modes": self.modes,
            **({"edited": edited} if edited else {}),
            **({"edits_refused": self.refused} if self.refused else {}),
        }
