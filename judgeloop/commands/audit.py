"""``judgeloop.audit``: ask judges about pairs, in both orders and with probes, into a run folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from judgeloop.analysis import Analysis, analyze_log, write_tables
from judgeloop.commands import questions
from judgeloop.commands.audit_spec import OPTIONS, Settings, check_keys, check_price, checked, valid
from judgeloop.commands.batch import AuditBatches, interrupted, refuse_running
from judgeloop.commands.questions import ProbeQuestions, unapplied
from judgeloop.commands.rated import RatedReplies, analyze_rated
from judgeloop.commands.session import Observer, Session, default_folder, environment, unwrapped
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.experiment.audit import AuditCall, AuditSpec
from judgeloop.experiment.options import only_speed, with_keywords
from judgeloop.experiment.schema import Block, Endpoint
from judgeloop.interchange.rows import Input
from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.judging.judges import ModelJudge, resolve_mode
from judgeloop.judging.reward_models import RewardJudge, check_reward, reward_judge
from judgeloop.records import Client
from judgeloop.rundir import AnotherOwner, RunFolder
from judgeloop.serving import engines
from judgeloop.wire.client import Ledger

if TYPE_CHECKING:
    from judgeloop.results import Audit


# What differs between an audit and the one whose folder it was given, in the words of the options.

_LONGEST = 60
_MOST = 3
_NAMES = {**OPTIONS, "pairs": "the pairs file"}
_SPEED = only_speed(AuditSpec) | {"model"}


@contextmanager
def difference_named(folder: RunFolder, record: Mapping[str, Any]) -> Iterator[None]:
    """Within it, a folder of another audit is refused with the settings that differ. ``record``: this audit's, as
    experiment.yaml bears it. Raises FolderMismatch."""
    try:
        yield
    except AnotherOwner:
        there = folder.experiment().get("audit") if folder.exists else None
        if not isinstance(there, dict):
            raise
        found = list(_differing(there, dict(record["audit"])))
        said = "; ".join(found[:_MOST]) + (f" and {len(found) - _MOST} more" if len(found) > _MOST else "")
        raise FolderMismatch(
            f"{folder.path}: another audit's answers stand here: {said or 'the rows of the pairs file or the text of the prompt have changed'}; give another --out, or the same settings to resume"
        ) from None


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    judges = [_by_model(one.get("judges")) for one in (there, here)]
    if list(judges[0]) != list(judges[1]):
        yield f"--model is {_shown(list(judges[0]))} there and {_shown(list(judges[1]))} here"
    else:
        for model in judges[0]:
            yield from _keys(*(one[model] for one in judges), block=Endpoint)
    yield from _keys(there, here, block=AuditSpec)


def _by_model(judges: object) -> dict[str, Mapping[str, Any]]:
    listed = judges if isinstance(judges, list) else []
    return {str(one.get("model")): one for one in listed if isinstance(one, Mapping)}


def _keys(there: Mapping[str, Any], here: Mapping[str, Any], *, block: type[Block]) -> Iterator[str]:
    for key in dict.fromkeys((*there, *here)):
        values = [_value(record, key, block) for record in (there, here)]
        if key != "judges" and key not in _SPEED and values[0] != values[1]:
            yield f"{_NAMES.get(key, key)} is {_shown(values[0])} there and {_shown(values[1])} here"


def _value(record: Mapping[str, Any], key: str, block: type[Block]) -> Any:
    """What the record says, else the default: what it was before the field was there."""
    field = block.model_fields.get(key)
    return record.get(key, field.get_default(call_default_factory=True) if field else None)


def _shown(value: object) -> str:
    if value in (None, {}):
        return "not given"
    text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


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

    batches = AuditBatches(session.folder, made.endpoints, session.cassette, session.ledger, dry, observer)
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
    rated: RatedReplies = field(init=False)
    probing: ProbeQuestions = field(init=False, default_factory=ProbeQuestions)
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
            self.probing, self.refused = await questions.model_probes(made.asked, self.probing, made.editor, client)
            self._planned()
        self.say("asking")
        judged = self.observer.judged if self.observer else lambda *_: None
        if made.pairwise:
            self.log = await questions.ask(judges, made.asked, self.probing, judged)
        if made.form is not None:
            self.rated = await made.form.ask(made.judges, made.endpoints, client, made.seed, judged)

    async def _judge(self, name: str, client: Client) -> ModelJudge | RewardJudge:
        made, spec = self.made, self.made.judges[name]
        if made.reward is not None:
            block = made.reward.model_copy(update={"endpoint": name})
            scoring = reward_judge(block, name, endpoints=made.endpoints, folder=".", client=client)
            await check_reward(scoring, questions.TRIAL_PREFIX)
            self.modes[name] = f"score by {block.route}"
            return scoring
        mode = await resolve_mode(
            spec, endpoints=made.endpoints, folder=".", client=client, label=name, prefix=questions.TRIAL_PREFIX
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
            base = analyze_log(
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
