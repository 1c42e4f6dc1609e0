"""``judgeloop.api.forecast``: the drift to expect from a judge before a loop is run, from an audit's or a run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop.commands.forecast import Choice, Evidence, gathered, pull_of, real_mean
from judgeloop.commands.plan import as_resolved
from judgeloop.errors import InvalidInput
from judgeloop.experiment.blocks import Endpoint
from judgeloop.experiment.judges import ModelJudge, PanelJudge
from judgeloop.experiment.resolve import Arm, Resolved, resolve
from judgeloop.experiment.schema import BradleyTerrySignal, PoolPolicy, Strategy
from judgeloop.judging.judges import judge_name
from judgeloop.material import Material
from judgeloop.rundir import RunFolder
from judgeloop.stats.design import RunTables
from judgeloop.stats.estimate import Estimate, estimates_frame
from judgeloop.stats.inference import Undefined
from judgeloop.stats.loop.forecast import LEVEL, Course
from judgeloop.stats.loop.forecast import forecast as followed
from judgeloop.text.features import features_frame

_MOST_GENERATIONS = 100
_METHOD = "linear judge, closed form; limits from 4,000 draws"


@dataclass(frozen=True)
class Forecasts:
    """The rows (CONTRACT's estimate columns, terms ``forecast_drift_<feature>``), the file, and what they rest on."""

    rows: pd.DataFrame
    path: Path
    facts: tuple[str, ...]


@dataclass(frozen=True)
class _Loop:
    """The loop that is forecast: where its settings come from, its judging arms, and its size."""

    source: str
    resolved: Resolved | None
    arms: tuple[Arm, ...]
    size: int
    matchups: int
    items: int
    real: Mapping[str, tuple[str, ...]]


def forecast(
    folder: str | Path,
    generations: int,
    *,
    experiment: str | Path | Mapping[str, Any] | Resolved | None = None,
    replicates: int = 1,
    out: str | Path | None = None,
    seed: int = 0,
) -> Forecasts:
    """The drift to expect after each of ``generations`` feedback steps, per feature, with 95 % prediction limits.

    ``folder``: what `run`, `audit` or `analyze` wrote. ``experiment``: the loop to forecast; default the run's own, or
    (after an audit) the default loop under three strategies. The limits are for the mean of ``replicates`` loops, of
    draws that ``seed`` changes. Writes ``out`` (default FOLDER/forecast.csv). No model is asked. Raises InvalidInput where
    the folder cannot bear a forecast, FolderMismatch where it is none.
    """
    run = RunFolder.existing(folder)
    names = ("items", "candidates", "judgments", "preferences", "signals")
    tables = RunTables(**{name: run.table(name) for name in names})
    stated = run.experiment() if run.kind == "run" else None
    rows, facts = forecast_estimates(
        tables, generations, where=str(run.path), stated=stated, experiment=experiment,
        replicates=replicates, seed=seed,
    )  # fmt: skip
    frame = estimates_frame(rows)
    target = Path(out) if out is not None else run.path / "forecast.csv"
    RunFolder(target.parent).write_text(target.name, frame.to_csv(index=False, lineterminator="\n"))
    return Forecasts(frame, target, facts)


def forecast_estimates(
    tables: RunTables,
    generations: int,
    *,
    where: str,
    stated: Mapping[str, Any] | None = None,
    experiment: str | Path | Mapping[str, Any] | Resolved | None = None,
    replicates: int = 1,
    seed: int = 0,
) -> tuple[list[Estimate], tuple[str, ...]]:
    """The rows from the tables of ``where``, and in words what they rest on. ``stated``: the run's own experiment."""
    if not 1 <= generations <= _MOST_GENERATIONS:
        raise InvalidInput(f"--generations must be 1 to {_MOST_GENERATIONS}, not {generations}")
    if replicates < 1:
        raise InvalidInput(f"--replicates must be 1 or more, not {replicates}")
    evidence, choice = gathered(tables, where)
    if not evidence:
        raise InvalidInput(f"{where}: holds no generation-0 judgments of a judge other than random and gold")
    if not choice.features or choice.texts.df < 2:
        raise InvalidInput(f"{where}: its texts do not differ within an item, so there is nothing to choose between")
    loop = _loop(tables, stated, where, experiment, choice)
    rows: list[Estimate] = []
    for arm, one in _matched(loop, evidence, tables, where):
        rows += _rows(arm, one, choice, loop, generations, replicates, seed)
    facts = (
        "judge's picks: " + ", ".join(f"{one.judge} {len(one.judgments):,} ({one.panel} panel)" for one in evidence),
        f"texts to choose from: {choice.n_texts:,} of {choice.n_items:,} items, features {', '.join(choice.features)}",
        f"loop: {loop.source}; limits for the mean of {replicates} replicate{'s' if replicates > 1 else ''} over {loop.items} items",
    )
    return rows, facts


def _loop(
    tables: RunTables,
    stated: Mapping[str, Any] | None,
    where: str,
    experiment: str | Path | Mapping[str, Any] | Resolved | None,
    choice: Choice,
) -> _Loop:
    real: Mapping[str, tuple[str, ...]] = {}
    if experiment is not None:
        material = Material.read(as_resolved(experiment))
        resolved, items, real = material.resolved, len(material.items), material.real
        source = f"experiment {resolved.experiment.name}"
    elif stated is not None:
        resolved, items = resolve(stated, where, where=f"{where}/experiment.yaml"), len(tables.items)
        source = "the run's own experiment"
    else:
        size, arms = 4, _what_if()
        return _Loop(
            f"no experiment given: pool of 32, K = {size}, tilt with tau 1, label rule raw, three strategies",
            None, arms, size, size * (size - 1) // 2, choice.n_items, {},
        )  # fmt: skip
    size = resolved.experiment.candidates_per_item
    matchups = min(size * (size - 1) // 2, resolved.experiment.matchups_per_item or size * size)
    arms = tuple(arm for arm in resolved.arms if not arm.is_control)
    if not arms:
        raise InvalidInput(f"{source}: every arm is a control; a forecast needs one with a judge")
    return _Loop(source, resolved, arms, size, matchups, items, real)


def _what_if() -> tuple[Arm, ...]:
    """The default loop under three strategies, for a judge that no experiment names."""
    strategies = {
        "replace": Strategy(), "accumulate": Strategy(kind="accumulate"), "replace-half-real": Strategy(real_fraction=0.5),
    }  # fmt: skip
    return tuple(
        Arm(
            name=name,
            judge=ModelJudge(endpoint="m"),
            policy=PoolPolicy(endpoint="m"),
            signal=BradleyTerrySignal(),
            strategy=strategy,
        )
        for name, strategy in strategies.items()
    )


def _matched(loop: _Loop, evidence: list[Evidence], tables: RunTables, where: str) -> Iterator[tuple[Arm, Evidence]]:
    """Each judging arm with the judge in the folder that it is: by name, or the only one there is."""
    known = {one.judge: one for one in evidence}
    if loop.resolved is None:
        yield from ((arm, one) for one in evidence for arm in loop.arms)
        return
    endpoints: Mapping[str, Endpoint] = loop.resolved.experiment.endpoints
    of_arm = _judges_of_arms(tables.judgments)
    for arm in loop.arms:
        wanted = of_arm.get(arm.name) or judge_name(arm.judge, endpoints)
        near = [
            one
            for name, one in known.items()
            if name in (wanted, f"{wanted}~{arm.name}") or name.startswith(f"{wanted}#")
        ]
        if not near and len(known) > 1:
            raise InvalidInput(
                f"arm {arm.name}: its judge {wanted} is not among the judges of {where} ({', '.join(known)}); "
                "audit that judge, or give the folder that did"
            )
        yield arm, near[0] if near else evidence[0]


def _judges_of_arms(judgments: pd.DataFrame) -> dict[str, str]:
    rows = judgments[judgments["arm"].fillna("") != ""]
    return {str(arm): str(some["judge"].iloc[0]) for arm, some in rows.groupby("arm")} if len(rows) else {}


def _rows(
    arm: Arm, evidence: Evidence, choice: Choice, loop: _Loop, generations: int, replicates: int, seed: int
) -> list[Estimate]:
    names, combinations = choice.combinations()
    found = pull_of(
        evidence, choice, arm.signal, loop.items * loop.matchups * 2.0 * arm.judge.repeats, coins=_coins(arm)
    )
    shared: dict[str, Any] = {"scope": "policy", "judge": evidence.judge, "arm": arm.name, "n_items": choice.n_items}
    if isinstance(found, Undefined):
        return [
            Estimate(
                term=f"forecast_drift_{name}", bias=_bias(name), generation=t, unit=_unit(name), status="undefined",
                note=found.reason, **shared,
            )
            for name in names for t in range(1, generations + 1)
        ]  # fmt: skip
    pull, used, rows = found
    course = _course(arm, loop, choice, generations, replicates, rows)
    seen = followed(pull, choice.texts, course, combinations, seed=seed)
    note = _note(arm, loop, evidence)
    return [
        Estimate(
            term=f"forecast_drift_{name}", bias=_bias(name), generation=t + 1, unit=_unit(name), method=_METHOD,
            estimate=float(seen.expected[t, j]), std_error=float(seen.std_error[t, j]), conf_low=float(seen.low[t, j]),
            conf_high=float(seen.high[t, j]), conf_level=LEVEL, n=round(used), n_replicates=replicates, note=note,
            **shared,
        )
        for j, name in enumerate(names) for t in range(generations)
    ]  # fmt: skip


def _course(arm: Arm, loop: _Loop, choice: Choice, generations: int, replicates: int, rows: float) -> Course:
    fitted = arm.signal.kind == "bradley_terry"
    real = None
    if loop.real and arm.strategy.real and arm.strategy.real_fraction:
        texts = [(item, text) for item, several in loop.real.items() for text in several]
        measured = features_frame([text for _, text in texts]).set_index(pd.Index([item for item, _ in texts]))
        real = real_mean(loop.real, measured, choice)
    return Course(
        generations=generations,
        update=arm.signal.update if fitted else "winners",
        tau=getattr(arm.signal, "tau", 1.0),
        strategy=arm.strategy.kind,
        real_fraction=arm.strategy.real_fraction,
        real=real,
        reference=arm.signal.reference,
        pool=arm.policy.pool_size if isinstance(arm.policy, PoolPolicy) else None,
        size=loop.size,
        items=loop.items,
        rows=rows if fitted else float(loop.items),
        replicates=replicates,
    )


def _coins(arm: Arm) -> bool:
    """Whether this judge's hard verdicts would fall anew if a pair were shown again; a reward model's temperature divides
    scores, and draws nothing."""
    judge = arm.judge.judges[0] if isinstance(arm.judge, PanelJudge) else arm.judge
    draws = judge.kind != "reward" and getattr(judge, "temperature", 1.0) > 0
    return draws and not getattr(judge, "temperature0", False)


def _note(arm: Arm, loop: _Loop, evidence: Evidence) -> str:
    policy = f"pool of {arm.policy.pool_size}" if isinstance(arm.policy, PoolPolicy) else f"{loop.size} drafts an item"
    strategy = arm.strategy.kind + (f", {arm.strategy.real_fraction:g} real" if arm.strategy.real_fraction else "")
    signal = f"{arm.signal.kind}, {arm.signal.update}, label rule {arm.signal.label_rule}"
    said = [
        f"{strategy}; {signal}; {policy}; slopes from {evidence.judgments['item_id'].nunique()} items of the {evidence.panel} panel",
        "prediction limits; the judge and what it reads of texts are taken not to change",
    ]
    if arm.strategy.real and arm.strategy.real_fraction and not loop.real:
        said.append("the real data are not at hand and count as generation 0's texts")
    return "; ".join(said)


def _bias(name: str) -> Any:
    return "verbosity" if name == "length" else "style"


def _unit(name: str) -> str:
    return "doublings" if name == "length" else "generation-0 sd"
