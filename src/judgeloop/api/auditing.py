"""``judgeloop.audit``: ask judges about pairs, in both orders and with probes, into a run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from judgeloop import auditing
from judgeloop.api.audit_difference import difference_named
from judgeloop.api.audit_settings import Settings, check_keys, check_price, settings
from judgeloop.api.batch_jobs import refuse_running
from judgeloop.api.batching import Batching, interrupted
from judgeloop.api.session import Observer, Seen, unwrapped
from judgeloop.auditing import asking
from judgeloop.auditing.questions import Probing, rule_probes
from judgeloop.auditing.rated import Rated, analyze_rated
from judgeloop.errors import InvalidInput
from judgeloop.experiment import Endpoint
from judgeloop.interchange import VerdictLog
from judgeloop.interchange.cells import Input
from judgeloop.judging.judges import ModelJudge, resolve_mode
from judgeloop.judging.rewards import RewardJudge, check_reward, reward_judge
from judgeloop.records import Client
from judgeloop.rundir import RunFolder
from judgeloop.wire import engine as engines
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import Ledger, WireClient

if TYPE_CHECKING:
    from judgeloop.results import Audit

_EVERY_S = 5.0


def audit(
    pairs: Input,
    *,
    base_url: str | Sequence[str] | None = None,
    model: str | Sequence[str],
    engine: str | None = None,
    api_key_env: str | Sequence[str] | None = None,
    price: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
    endpoint: Mapping[str, Any] | None = None,
    prompt: str = "pairwise",
    verdict: str = "auto",
    repeats: int = 1,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    probes: str | Sequence[str] = "none",
    edit_model: str | None = None,
    concurrency: int = 16,
    seed: int = 0,
    columns: str | Path | Mapping[str, Any] | None = None,
    mitigate: str | Sequence[str] = (),
    mode: str = "pairwise",
    scales: str | None = None,
    against_pairwise: bool = False,
    reward: str | None = None,
    gold_exact: bool = False,
    batch: bool = False,
    collect: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    replay: str | Path | None = None,
    max_cost: float | None = None,
    max_calls: int | None = None,
    observer: Observer | None = None,
    report: bool = True,
) -> Audit:
    """Ask judges about every pair in both orders, or go on where that stopped, and write estimates and ``report`` into ``out``
    (default runs/<the pairs' name>-audit).

    ``pairs``: a path (JSON Lines, CSV or Parquet by ending), "-" for standard input, or a frame; ``columns`` names its
    columns where they are called otherwise. ``model``: one judge or several, which are estimated apart and compared on the
    same pairs. ``base_url``, ``api_key_env`` (an environment variable's name) and ``price`` (US dollars per million prompt
    and completion tokens): one for all judges, or one each; instead of an address, ``engine`` (llama_cpp, or transformers for
    reward models) is started for the audit. ``endpoint``: further settings of an experiment's endpoint, as
    ``timeout_s`` or ``extra_body``. ``probes``: none, all, or names of docs/probes.md; ``edit_model`` writes those that no
    rule can. ``mitigate``: mitigations to measure on the same answers, names of docs/mitigations.md (``rubric`` asks every
    judge again). ``mode`` (docs/modes.md): pairwise; pointwise, every text scored on each of ``scales`` (default
    1-10,10-1), with ``against_pairwise`` beside its pairs; listwise, where ``pairs`` has a list ``texts`` a row. ``reward``:
    the judges are reward models, asked by that route (``ROUTE[,KEY=VALUE…]``, docs/serving.md). ``gold_exact``: gold cannot
    err, as a verifiable reference; else one gold alone makes no claim (docs/method.md). ``batch`` (docs/batch.md): what
    is not recorded is asked by the endpoints' Batch API, which is waited for; ``collect``: finished batch output files that
    are taken back. With ``replay`` every answer comes from that recorded folder and no endpoint is asked. ``max_cost`` and
    ``max_calls`` count the whole audit, recorded calls included.

    Raises JudgeloopError; the same call resumes after BudgetReached, EndpointFailed, AnswersOutstanding or
    StorageFailed.
    """
    made = settings(
        pairs, base_url=base_url, model=model, engine=engine, api_key_env=api_key_env, price=price, endpoint=endpoint, prompt=prompt,
        verdict=verdict, repeats=repeats, temperature=temperature, max_tokens=max_tokens, probes=probes,
        edit_model=edit_model, concurrency=concurrency, seed=seed, columns=columns, mitigate=mitigate,
        mode=mode, scales=scales, against_pairwise=against_pairwise, reward=reward, gold_exact=gold_exact,
    )  # fmt: skip
    files = [collect] if isinstance(collect, str | Path) else collect
    return run_audit(
        made, out=out, replay=replay, ledger=Ledger(max_cost, max_calls), observer=observer, batch=batch,
        collect=[Path(one) for one in files], report=report,
    )  # fmt: skip


def run_audit(
    made: Settings,
    *,
    out: str | Path | None = None,
    replay: str | Path | None = None,
    ledger: Ledger | None = None,
    observer: Observer | None = None,
    batch: bool = False,
    collect: Sequence[Path] = (),
    report: bool = True,
) -> Audit:
    """``audit`` of settings that are checked already. ``ledger`` bears the limits."""
    ledger = ledger or Ledger()
    by_files = batch or bool(collect)
    if batch + bool(collect) + (replay is not None) > 1:
        raise InvalidInput("--batch, --collect and --replay: give one of them")
    if by_files and any(one.engine for one in made.endpoints.values()):
        raise InvalidInput("--engine: what judgeloop starts takes no batch files; leave --batch and --collect out")
    if by_files and made.reward is not None:
        raise InvalidInput(
            "--reward: reward models are asked by routes that batch files do not have; leave --batch out"
        )
    if replay is None and not collect:
        engines.check(made.endpoints)
        check_keys(made.endpoints)
        if ledger.max_cost is not None:
            check_price(made.endpoints)
    folder = RunFolder(out or Path("runs") / made.name)
    recording = Cassette(RunFolder.recorded(replay).path, writable=False) if replay is not None else None
    identity = made.identity()
    with difference_named(folder, made.record()), folder.claim(identity):
        base = {**auditing.environment(identity, made.sources, "openai", "httpx2"), "seed": made.seed}
        # The hash first: an audit killed between the two is still known as this one.
        folder.write_json("environment.json", {**folder.environment(), **base})
        folder.write_text("experiment.yaml", yaml.safe_dump(made.record(), sort_keys=False, allow_unicode=True))
        cassette = Cassette(folder.path, writable=True)
        session = _Session(made, folder, observer)
        try:
            session.begin()
            if by_files:
                session.by_batches(cassette, ledger, collect)
            elif recording is None:
                refuse_running(folder)
            started = nullcontext(made.endpoints) if recording else engines.running(made.endpoints)
            with started as endpoints:
                unwrapped(session.ask(endpoints, cassette, recording, ledger))
        finally:
            cassette.close()
            if recording:
                recording.close()
        session.say("estimates")
        done = session.analysis(identity)
        folder.write_json("environment.json", {**base, **done.facts, **session.facts()})
        auditing.write_tables(done, folder)
        for table, frame in session.tables().items():
            folder.write_part(table, "log", frame)
        if report:
            from judgeloop.report import write as write_report

            session.say("report")
            write_report(folder)
    from judgeloop.results import Audit  # reads the report's code

    return Audit(folder)


@dataclass
class _Session:
    """One sitting of an audit: what it asks, and what it came to know."""

    made: Settings
    folder: RunFolder
    observer: Observer | None
    seen: Seen = field(init=False)
    log: VerdictLog = field(init=False)
    rated: Rated = field(init=False)
    probing: Probing = field(init=False, default_factory=Probing)
    modes: dict[str, str] = field(init=False, default_factory=dict)
    refused: dict[str, dict[str, int]] = field(init=False, default_factory=dict)
    told: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.seen = Seen(self.observer, priced=all(one.price.stated for one in self.made.endpoints.values()))

    def begin(self) -> None:
        """Say what begins."""
        if self.observer:
            self.observer.start(self.made.name, self.folder.path)

    def by_batches(self, cassette: Cassette, ledger: Ledger, collect: Sequence[Path]) -> None:
        """Record every answer by batches, or from finished output files."""

        async def dry(client: Client) -> None:
            # A session of its own that shows nothing: most of what it asks is not answered yet.
            await _Session(self.made, self.folder, None).ask_all(client)

        asked = Batching(self.folder, self.made.endpoints, cassette, ledger, dry, self.observer)
        try:
            unwrapped(asked.collect(collect) if collect else asked.send())
        except KeyboardInterrupt:
            raise interrupted(self.folder) from None

    async def ask(
        self, endpoints: Mapping[str, Endpoint], cassette: Cassette, recording: Cassette | None, ledger: Ledger
    ) -> None:
        """Ask what is not recorded, live, at ``endpoints`` whose engines are started."""
        async with WireClient(
            endpoints, cassette, replay=recording, ledger=ledger, observer=self.seen.answered
        ) as client:
            await self.ask_all(client)

    async def ask_all(self, client: Client) -> None:
        """Ask a client everything."""
        made = self.made
        if made.rules:
            self.say("edits")
            own = {name: made.endpoints[name].model for name in made.bases}
            self.probing = rule_probes(made.asked, made.rules, own, seed=made.seed, watch=self.editing)
        elif made.probes:
            self.probing = Probing({name: [] for name in made.bases})
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

    def analysis(self, identity: str) -> auditing.Analysis:
        """The estimates of all that was asked."""
        made, base = self.made, None
        if made.pairwise:
            base = auditing.analyze(
                self.log, name=made.name, sources=made.sources, identity=identity, mitigate=made.mitigate,
                watch=self.estimating, scored_alone=made.bases if made.reward else (), gold_exact=made.gold_exact,
            )  # fmt: skip
            missing = auditing.unapplied(made.asked, self.probing, made.probes, made.bases)
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
        """What the endpoints said of themselves, how verdicts were read, and which texts could be edited."""
        edited = {
            name if dose is None else f"{name} {dose:g}": f"{done} of {texts} texts"
            for (name, dose), (done, texts) in self.probing.edited.items()
        }
        return {
            **self.seen.record(),
            "verdict_modes": self.modes,
            **({"edited": edited} if edited else {}),
            **({"edits_refused": self.refused} if self.refused else {}),
        }
