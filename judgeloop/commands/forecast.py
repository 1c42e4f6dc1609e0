"""``judgeloop.forecast``: the drift to expect from a judge before a loop is run, from the folder of an audit, analysis or run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.errors import InvalidInput
from judgeloop.experiment.resolve import Arm, Material, ResolvedExperiment, as_resolved, resolve
from judgeloop.experiment.schema import (
    BradleyTerrySignalSpec,
    Endpoint,
    ModelJudgeSpec,
    PanelJudgeSpec,
    PoolPolicySpec,
    RuleJudgeSpec,
    SignalSpec,
    StrategySpec,
)
from judgeloop.judging.judges import judge_name
from judgeloop.kernels import sigmoid
from judgeloop.learning import labels, signals
from judgeloop.records import ORDERS, is_control_judge
from judgeloop.rundir import TABLES, RunFolder, as_csv
from judgeloop.stats.design import RunTables
from judgeloop.stats.estimate import Estimate, estimates_frame
from judgeloop.stats.inference import LEVEL, Undefined
from judgeloop.stats.loop.forecast import (
    FULLEST_RESPONSE,
    Forecast,
    ForecastLoop,
    SelectionPressure,
    Texts,
    steps_like_first,
    unknown_response,
)
from judgeloop.stats.loop.forecast import forecast as forecast_loop
from judgeloop.stats.loop.replicates import generation_zero_units
from judgeloop.stats.presentations import in_known_order
from judgeloop.text.features import FEATURES, STYLE_FEATURES, features_frame

Floats = NDArray[np.float64]

BEFORE = "forecast_before.csv"
"""The file of a run's forecast from generation 0, written before its first training."""
_KEY = ["item_id", "candidate_id"]
_FEWEST_ITEMS = 10
_NEIGHBOURS = 3
_MOST_GENERATIONS = 100
_METHOD = "linear judge, closed form; limits from 4,000 draws"


@dataclass(frozen=True)
class Forecasts:
    """The rows (docs/contract.md, "Estimates"; terms ``forecast_drift_<feature>``), the file, and in words the judgments,
    texts and loop that they rest on."""

    rows: pd.DataFrame
    path: Path
    facts: tuple[str, ...]


@dataclass(frozen=True)
class _LoopSettings:
    """The loop to forecast: where its settings come from, its judging arms, K (``size``), matchups an item, and items.
    ``resolved`` is None where no experiment was given."""

    source: str
    resolved: ResolvedExperiment | None
    arms: tuple[Arm, ...]
    size: int
    matchups: int
    items: int
    real: Mapping[str, tuple[str, ...]]

    @property
    def replicates(self) -> int:
        """The replicates of the experiment, 1 where none was given."""
        return self.resolved.experiment.replicates if self.resolved else 1


def forecast(
    folder: str | Path,
    generations: int,
    *,
    experiment: str | Path | Mapping[str, Any] | ResolvedExperiment | None = None,
    replicates: int = 1,
    out: str | Path | None = None,
    seed: int = 0,
) -> Forecasts:
    """The drift to expect after each of ``generations`` feedback steps, per feature, with 95 % prediction limits.

    ``folder``: what `run`, `audit` or `analyze` wrote. ``experiment``: the loop to forecast; default the run's own, or
    (after an audit) the default loop under three strategies. The limits are for the mean of ``replicates`` loops, of
    draws that ``seed`` changes. Writes ``out`` (default FOLDER/forecast.csv). No model is asked. Raises InvalidInput where
    the folder has no judgments, texts or differences to forecast from, FolderMismatch where it is no such folder.
    """
    run = RunFolder.existing(folder)
    names = ("items", "candidates", "judgments", "preferences", "signals")
    tables = RunTables(**{name: run.table(name) for name in names})
    stated = run.experiment() if run.kind == "run" else None
    measured = run.estimates() if run.kind == "run" and experiment is None else None
    rows, facts = forecast_estimates(
        tables, generations, where=str(run.path), stated=stated, experiment=experiment,
        replicates=replicates, measured=measured, seed=seed,
    )  # fmt: skip
    frame = estimates_frame(rows)
    target = Path(out) if out is not None else run.path / "forecast.csv"
    RunFolder(target.parent).write_text(target.name, as_csv(frame))
    return Forecasts(frame, target, facts)


def with_forecast(
    estimates: pd.DataFrame, tables: RunTables, experiment: ResolvedExperiment, generations: int,
    real: Mapping[str, tuple[str, ...]] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """A run's estimates with its forecast from generation 0, to be held against what came. Where there is nothing to forecast from
    they are as they were. ``real``: the experiment's real texts by item."""
    try:
        rows, _ = forecast_estimates(
            tables, generations, where=experiment.experiment.name, stated=experiment, real=real, replicates=None, measured=estimates
        )  # fmt: skip
    except InvalidInput:
        return estimates
    return pd.concat([estimates, estimates_frame(rows)], ignore_index=True) if rows else estimates


def store_before(folder: RunFolder, experiment: ResolvedExperiment, real: Mapping[str, tuple[str, ...]]) -> None:
    """Write a run's forecast from generation 0 as it stands by now (``BEFORE``), unless it is written: what came later can then have had
    no part in it. Nothing is written where there is nothing to forecast from."""
    if (folder.path / BEFORE).exists():
        return
    tables = {name: folder.table(name) for name in TABLES}
    zero = {name: rows[rows["generation"] == 0] if "generation" in rows else rows for name, rows in tables.items()}
    block = experiment.experiment
    with suppress(InvalidInput):
        rows, _ = forecast_estimates(
            RunTables(**zero), block.generations, where=block.name, stated=experiment, real=real, replicates=None
        )
        folder.write_text(BEFORE, as_csv(estimates_frame(rows)))


def forecast_estimates(
    tables: RunTables,
    generations: int,
    *,
    where: str,
    stated: Mapping[str, Any] | ResolvedExperiment | None = None,
    experiment: str | Path | Mapping[str, Any] | ResolvedExperiment | None = None,
    real: Mapping[str, tuple[str, ...]] | None = None,
    replicates: int | None = 1,
    measured: pd.DataFrame | None = None,
    seed: int = 0,
) -> tuple[list[Estimate], tuple[str, ...]]:
    """The rows from the tables of the folder ``where``, and ``Forecasts.facts``. ``stated``: the run's own experiment, with its
    ``real`` texts by item where they are at hand; ``measured``: that run's estimates, of which the first step of a trained model is used. ``replicates`` None: limits for
    these very replicates. Raises InvalidInput."""
    if not 1 <= generations <= _MOST_GENERATIONS:
        raise InvalidInput(f"--generations must be 1 to {_MOST_GENERATIONS}, not {generations}")
    if replicates is not None and replicates < 1:
        raise InvalidInput(f"--replicates must be 1 or more, not {replicates}")
    evidence, candidates = read_evidence(tables, where)
    if not candidates.features or candidates.texts.df < 2:
        raise InvalidInput(f"{where}: its texts do not differ within an item, so there is nothing to choose between")
    loop = _loop_settings(tables, stated, where, experiment, real or {}, candidates)
    if not evidence and not all(arm.is_positive_control for arm in loop.arms):
        raise InvalidInput(f"{where}: holds no generation-0 judgments of a judge other than random, gold and rules")
    rows: list[Estimate] = []
    for arm, of_judge in _judges_of_loop(loop, evidence, tables, where):
        if arm.signal.update == "training":
            rows += _trained_rows(arm, of_judge, candidates, loop, generations, replicates, measured)
        else:
            rows += _rows(arm, of_judge, candidates, loop, generations, replicates or loop.replicates, seed)
    facts = (
        "judge's picks: "
        + ", ".join(
            [
                *(f"{judge.judge} {len(judge.judgments):,} ({judge.panel} panel)" for judge in evidence),
                *(f"arm {arm.name} known (a rule)" for arm in loop.arms if arm.is_positive_control),
            ]
        ),
        f"texts to choose from: {candidates.n_texts:,} of {candidates.n_items:,} items, features {', '.join(candidates.features)}",
        f"loop: {loop.source}; limits for the mean of {replicates or loop.replicates} replicate{'s' if (replicates or loop.replicates) > 1 else ''} over {loop.items} items",
    )
    return rows, facts


def _loop_settings(
    tables: RunTables,
    stated: Mapping[str, Any] | ResolvedExperiment | None,
    where: str,
    experiment: str | Path | Mapping[str, Any] | ResolvedExperiment | None,
    real: Mapping[str, tuple[str, ...]],
    candidates: CandidateTexts,
) -> _LoopSettings:
    """The loop of the experiment given, else of the run's own, else the default one under three strategies."""
    if experiment is not None:
        material = Material.read(as_resolved(experiment))
        resolved, items, real = material.resolved, len(material.items), material.real
        source = f"experiment {resolved.experiment.name}"
    elif stated is not None:
        resolved, items = _own(stated, where), len(tables.items)
        source = "the run's own experiment"
    else:
        size, arms = 4, _default_arms()
        return _LoopSettings(
            f"no experiment given: pool of 32, K = {size}, tilt with tau 1, label rule raw, three strategies",
            None, arms, size, size * (size - 1) // 2, candidates.n_items, {},
        )  # fmt: skip
    for arm in resolved.arms:
        unknown = {
            "group_advantage": "how scores answer to features is not in a judge's picks",
            "reward_model": "what a head learns of embeddings is not known before it is trained",
        }
        if arm.signal.kind in unknown and not arm.is_control:
            raise InvalidInput(
                f"{source}: arms.{arm.name}.signal.kind {arm.signal.kind}: {unknown[arm.signal.kind]}; forecasts are of signals that learn from the features of picks (bradley_terry, best_of_n)"
            )
    size = resolved.experiment.candidates_per_item
    matchups = min(size * (size - 1) // 2, resolved.experiment.matchups_per_item or size * size)
    arms = tuple(arm for arm in resolved.arms if not arm.is_control)
    if not arms:
        raise InvalidInput(f"{source}: every arm's judge is random or gold; a forecast needs one with a taste")
    return _LoopSettings(source, resolved, arms, size, matchups, items, real)


def _own(stated: Mapping[str, Any] | ResolvedExperiment, where: str) -> ResolvedExperiment:
    if isinstance(stated, ResolvedExperiment):
        return stated
    return resolve(stated, where, where=f"{where}/experiment.yaml")


def _default_arms() -> tuple[Arm, ...]:
    """The default loop under three strategies, for a judge that no experiment names."""
    strategies = {
        "replace": StrategySpec(), "accumulate": StrategySpec(kind="accumulate"), "replace-half-real": StrategySpec(real_fraction=0.5),
    }  # fmt: skip
    return tuple(
        Arm(
            name=name,
            judge=ModelJudgeSpec(endpoint="m"),
            policy=PoolPolicySpec(endpoint="m"),
            signal=BradleyTerrySignalSpec(),
            strategy=strategy,
        )
        for name, strategy in strategies.items()
    )


def _judges_of_loop(
    loop: _LoopSettings, evidence: list[Evidence], tables: RunTables, where: str
) -> Iterator[tuple[Arm, Evidence]]:
    """Each judging arm with its judge in the folder: by name, or the only one there is. Raises InvalidInput."""
    by_judge = {judge.judge: judge for judge in evidence}
    if loop.resolved is None:
        yield from ((arm, judge) for judge in evidence for arm in loop.arms)
        return
    endpoints: Mapping[str, Endpoint] = loop.resolved.experiment.endpoints
    of_arm = _judges_of_arms(tables.judgments)
    zero = _generation_zero(tables.candidates)
    for arm in loop.arms:
        if isinstance(arm.judge, RuleJudgeSpec):
            yield arm, rule_evidence(arm.judge, judge_name(arm.judge, endpoints), zero)
            continue
        own = of_arm.get(arm.name) or judge_name(arm.judge, endpoints)
        matches = [
            judge
            for name, judge in by_judge.items()
            if name in (own, f"{own}~{arm.name}") or name.startswith(f"{own}#")
        ]
        if not matches and len(by_judge) > 1:
            raise InvalidInput(
                f"arm {arm.name}: its judge {own} is not among the judges of {where} ({', '.join(by_judge)}); "
                "audit that judge, or give the folder that did"
            )
        yield arm, matches[0] if matches else evidence[0]


def _judges_of_arms(judgments: pd.DataFrame) -> dict[str, str]:
    """Arm → the judge of its judgments."""
    rows = judgments[judgments["arm"].fillna("") != ""]
    return {str(arm): str(of_arm["judge"].iloc[0]) for arm, of_arm in rows.groupby("arm")} if len(rows) else {}


def _rows(
    arm: Arm, evidence: Evidence, candidates: CandidateTexts, loop: _LoopSettings, generations: int, replicates: int, seed: int
) -> list[Estimate]:  # fmt: skip
    """One arm's estimates, a row a feature and generation."""
    names, combinations = candidates.combinations()
    presentations = loop.items * loop.matchups * 2.0 * arm.judge.repeats
    fitted = selection_pressure(evidence, candidates, arm.signal, presentations, coins=_draws_verdicts(arm))
    shared: dict[str, Any] = {
        "scope": "policy",
        "judge": evidence.judge,
        "arm": arm.name,
        "n_items": candidates.n_items,
    }
    if isinstance(fitted, Undefined):
        return [
            Estimate(
                term=f"forecast_drift_{name}", bias=_bias(name), generation=t, unit=_unit(name), status="undefined",
                note=fitted.reason, **shared,
            )
            for name in names for t in range(1, generations + 1)
        ]  # fmt: skip
    pressure, n_preferences, rows = fitted
    course = _forecast_loop(arm, loop, candidates, generations, replicates, rows)
    drift = forecast_loop(pressure, candidates.texts, course, combinations, seed=seed)
    note = _note(arm, loop, evidence)
    return [
        Estimate(
            term=f"forecast_drift_{name}", bias=_bias(name), generation=t + 1, unit=_unit(name), method=_METHOD,
            n=round(n_preferences), n_replicates=replicates, note=note, **_limits(drift, t, j), **shared,
        )
        for j, name in enumerate(names) for t in range(generations)
    ]  # fmt: skip


def _trained_rows(
    arm: Arm, evidence: Evidence, candidates: CandidateTexts, loop: _LoopSettings, generations: int, replicates: int | None,
    measured: pd.DataFrame | None,
) -> list[Estimate]:  # fmt: skip
    """One arm's estimates where a model is trained: from generation 0 for every response that it may have, and where the first
    step was measured (variant ``first_step``) with that one."""
    names, combinations = candidates.combinations()
    pairs = evidence.judgments[evidence.judgments["candidate_first"] != evidence.judgments["candidate_second"]]
    won = _winners(pairs, evidence.features, candidates, coins=False)
    adds_up = arm.signal.reference != "base"
    shared: dict[str, Any] = {
        "scope": "policy", "judge": evidence.judge, "arm": arm.name, "n_items": candidates.n_items, "n_replicates": replicates or loop.replicates,
    }  # fmt: skip
    rows: list[Estimate] = []
    if isinstance(won, Undefined):
        rows += [
            Estimate(term=f"forecast_drift_{name}", bias=_bias(name), generation=t, unit=_unit(name), status="undefined", note=won.reason, **shared)
            for name in names for t in range(1, generations + 1)
        ]  # fmt: skip
    else:
        pressure, n_pairs, _ = won
        drift = unknown_response(pressure, generations, combinations, adds_up=adds_up)
        note = (
            f"{arm.signal.kind}, {arm.strategy.kind}; how a model responds to what it is trained on is not known before: limits for every "
            f"response from 0 (nothing learned) to {FULLEST_RESPONSE:g} (twice as far as its chosen texts), the estimate at 1"
        )
        if arm.strategy.real and arm.strategy.real_fraction:
            note += "; the real data's own pull is left out"
        rows += [
            Estimate(
                term=f"forecast_drift_{name}", bias=_bias(name), generation=t + 1, unit=_unit(name), n=round(n_pairs), note=note,
                method="selection of pair winners, response 0 to 2", **_limits(drift, t, j), **shared,
            )
            for j, name in enumerate(names) for t in range(generations)
        ]  # fmt: skip
    if measured is None:
        return rows
    for name in names:
        first = _first_step(measured, arm.name, name)
        if first is None:
            continue
        control, moved, std_error, n = first
        note = f"each later step like the first one, measured beyond {control}"
        onward = steps_like_first(moved, std_error, n, generations, replicates=replicates, adds_up=adds_up)
        rows += [
            Estimate(
                term=f"forecast_drift_{name}", variant="first_step", bias=_bias(name), generation=t + 1, unit=_unit(name), n=n, note=note,
                method="first step repeated, t over replicates", **_limits(onward, t, 0), **shared,
            )
            for t in range(0 if replicates else 1, generations)
        ]  # fmt: skip
    return rows


def _limits(drift: Forecast, t: int, j: int) -> dict[str, Any]:
    """The fields of an estimate that a forecast fills."""
    return {
        "estimate": float(drift.expected[t, j]), "std_error": float(drift.std_error[t, j]), "conf_low": float(drift.low[t, j]),
        "conf_high": float(drift.high[t, j]), "conf_level": LEVEL,
    }  # fmt: skip


def _first_step(measured: pd.DataFrame, arm: str, name: str) -> tuple[str, float, float, int] | None:
    """(control, drift beyond it, standard error, replicates) of generation 1; None where that was not measured."""
    rows = measured[
        (measured["term"] == f"did_{name}") & (measured["arm"] == arm) & (measured["generation"] == 1)
        & (measured["variant"] == "") & (measured["category"] == "") & measured["std_error"].notna()
    ]  # fmt: skip
    if rows.empty or int(rows["n_replicates"].iloc[0]) < 2:
        return None
    row = rows.iloc[0]
    return str(row["contrast"]), float(row["estimate"]), float(row["std_error"]), int(row["n_replicates"])


def _forecast_loop(
    arm: Arm, loop: _LoopSettings, candidates: CandidateTexts, generations: int, replicates: int, rows: float
) -> ForecastLoop:
    """The arm's loop; ``rows``: preferences a generation and replicate."""
    fitted = arm.signal.kind == "bradley_terry"
    real = None
    if loop.real and arm.strategy.real and arm.strategy.real_fraction:
        texts = [(item, text) for item, of_item in loop.real.items() for text in of_item]
        measured = features_frame([text for _, text in texts]).set_index(pd.Index([item for item, _ in texts]))
        real = _real_mean(measured, candidates)
    return ForecastLoop(
        generations=generations,
        update=arm.signal.update if isinstance(arm.signal, BradleyTerrySignalSpec) else "winners",
        tau=getattr(arm.signal, "tau", 1.0),
        strategy=arm.strategy.kind,
        real_fraction=arm.strategy.real_fraction,
        real=real,
        reference=arm.signal.reference,
        pool=arm.policy.pool_size if isinstance(arm.policy, PoolPolicySpec) else None,
        size=loop.size,
        items=loop.items,
        rows=rows if fitted else float(loop.items),
        replicates=replicates,
    )


def _draws_verdicts(arm: Arm) -> bool:
    """Whether this judge's hard verdicts are drawn anew when a pair is shown again. A reward model draws nothing: its
    temperature divides scores."""
    judge = arm.judge.judges[0] if isinstance(arm.judge, PanelJudgeSpec) else arm.judge
    draws = judge.kind not in ("reward", "rule") and getattr(judge, "temperature", 1.0) > 0
    return draws and not getattr(judge, "temperature0", False)


def _note(arm: Arm, loop: _LoopSettings, evidence: Evidence) -> str:
    policy = (
        f"pool of {arm.policy.pool_size}" if isinstance(arm.policy, PoolPolicySpec) else f"{loop.size} drafts an item"
    )
    strategy = arm.strategy.kind + (f", {arm.strategy.real_fraction:g} real" if arm.strategy.real_fraction else "")
    signal = f"{arm.signal.kind}, {arm.signal.update}, label rule {arm.signal.label_rule}"
    items = evidence.judgments["item_id"].nunique()
    known = f"the judge's own rule, on generation 0's texts of {items} items"
    parts = [
        f"{strategy}; {signal}; {policy}; slopes from {known if arm.is_positive_control else f'{items} items of the {evidence.panel} panel'}",
        "prediction limits; assumes that the judge does not change, nor its response to the features",
    ]
    if arm.strategy.real and arm.strategy.real_fraction and not loop.real:
        parts.append("the real data are not at hand and count as generation 0's texts")
    return "; ".join(parts)


def _bias(name: str) -> Any:
    return "verbosity" if name == "length" else "style"


def _unit(name: str) -> str:
    return "doublings" if name == "length" else "generation-0 sd"


# -- the evidence: a judge's generation-0 picks, and the texts that a loop would choose from ---------------------------


@dataclass(frozen=True)
class Evidence:
    """One judge's generation-0 judgments on one panel, and the features of their texts, indexed by item and candidate."""

    judge: str
    panel: str
    judgments: pd.DataFrame
    features: pd.DataFrame


@dataclass(frozen=True)
class CandidateTexts:
    """The texts that a loop would choose from: the covariance and means of their features in estimate units (length in
    doublings, others in generation-0 SDs). ``units``: the SD that each raw feature is divided by, 1 for length."""

    features: tuple[str, ...]
    units: pd.Series[float]
    texts: Texts
    means: pd.Series[float]
    n_texts: int
    n_items: int

    def combinations(self) -> tuple[tuple[str, ...], Floats]:
        """Names and weights (q, p) of each feature, and of the style score: the mean of the style features."""
        names, rows = [*self.features], [*np.eye(len(self.features))]
        style = np.array([name in STYLE_FEATURES for name in self.features], dtype=np.float64)
        if style.any():
            names.append("style_score")
            rows.append(style / style.sum())
        return tuple(names), np.array(rows)


def read_evidence(tables: RunTables, where: str) -> tuple[list[Evidence], CandidateTexts]:
    """Every judge's evidence, and the texts of generation 0, from the tables of a run, an audit or an analysis; ``where``
    names them. Raises InvalidInput where they hold no texts or no judgments."""
    judgments = tables.judgments
    if judgments.empty:
        raise InvalidInput(f"{where}: holds no judgments to forecast from; finish the run or audit first")
    if tables.candidates.empty or "length" not in tables.candidates:
        raise InvalidInput(
            f"{where}: holds no texts, so that it is not known what a loop would choose from; "
            "analyze the verdicts together with their texts (--pairs)"
        )
    texts = tables.candidates[tables.candidates["text"].notna()]
    zero = _generation_zero(texts)
    if zero["replicate"].notna().any():
        units = pd.Series(generation_zero_units(texts))
    else:
        units = zero[list(FEATURES)].astype("float64").std(ddof=1)
    return list(_evidence(judgments, texts)), _candidate_texts(zero, units)


def _generation_zero(candidates: pd.DataFrame) -> pd.DataFrame:
    """The texts of a run's generation 0, without its panels'; of other folders all texts."""
    texts = candidates[candidates["text"].notna()]
    of_run = texts["replicate"].notna()
    if of_run.any():
        return texts[of_run & (texts["generation"] == 0)].drop_duplicates(["replicate", *_KEY])
    return texts.drop_duplicates(_KEY)


def rule_evidence(spec: RuleJudgeSpec, name: str, zero: pd.DataFrame) -> Evidence:
    """What a judge with a known taste picks among the texts ``zero``: no judgment is needed, and none has an error.

    Of an item's texts (of a replicate) each is compared with those that follow it by one to _NEIGHBOURS places, in both orders.
    """
    texts = _with_replicate(zero, "candidate_id") if zero["replicate"].notna().any() else zero
    pairs: list[tuple[int, int]] = []
    for places in texts.groupby(["replicate", "item_id"], dropna=False, sort=True).indices.values():
        n = len(places)
        steps = range(1, max(1, min(_NEIGHBOURS, (n - 1) // 2)) + 1) if n > 1 else ()
        pairs += [(places[k], places[(k + step) % n]) for step in steps for k in range(n if n > 2 else 1)]
    sides = [texts.iloc[list(side)].reset_index(drop=True) for side in zip(*pairs, strict=True)]
    more = np.sign((sides[0][spec.feature] - sides[1][spec.feature]).to_numpy(dtype=np.float64))
    ahead = more if spec.prefer == "more" else -more
    picks = pd.DataFrame({
        "item_id": sides[0]["item_id"], "pair_id": sides[0]["candidate_id"] + "|" + sides[1]["candidate_id"], "replicate": 0, "arm": "",
        "generation": 0, "repeat": 0, "p_first": np.nan, "identical": sides[0]["text"] == sides[1]["text"],
    })  # fmt: skip
    shown = []
    for order, (first, second), sign in (("ab", sides, 1.0), ("ba", sides[::-1], -1.0)):
        verdict = np.select([sign * ahead > 0, sign * ahead < 0], ["first", "second"], "tie")
        shown.append(picks.assign(
            order=order, verdict=verdict, candidate_first=first["candidate_id"], candidate_second=second["candidate_id"]
        ))  # fmt: skip
    features = texts.drop_duplicates(_KEY).set_index(_KEY)[list(FEATURES)].astype("float64")
    return Evidence(name, "policy", pd.concat(shown, ignore_index=True), features)


def _with_replicate(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows with the replicate in these columns' names, which repeat across replicates. Items do not."""
    return rows.assign(**{name: rows["replicate"].astype("str") + "|" + rows[name].astype("str") for name in columns})


def _evidence(judgments: pd.DataFrame, texts: pd.DataFrame) -> Iterator[Evidence]:
    """Each judge's generation-0 judgments, on the panel that has most of them."""
    judgments = judgments[~judgments["judge"].map(is_control_judge).astype(bool)]
    zero = judgments["generation"].isna() | (judgments["generation"] == 0)
    for judge, own in judgments[zero & (judgments["panel"] != "probe")].groupby("judge", sort=True):
        panel = str(own["panel"].value_counts().index[0])
        rows, panel_texts = own[own["panel"] == panel], texts[texts["replicate"].isna()]
        if panel == "policy":
            panel_texts = _with_replicate(
                texts[texts["replicate"].notna() & (texts["generation"] == 0)], "candidate_id"
            )
            rows = _with_replicate(rows, "pair_id", "candidate_first", "candidate_second")
            # Arms with this judge share generation 0.
            rows = rows.drop_duplicates(["item_id", "pair_id", "order", "repeat"])
        features = panel_texts.drop_duplicates(_KEY).set_index(_KEY)[list(FEATURES)].astype("float64")
        # The learner takes them as one generation of one loop.
        yield Evidence(str(judge), panel, rows.assign(replicate=0, arm="", generation=0), features)


def _candidate_texts(zero: pd.DataFrame, units: pd.Series[float]) -> CandidateTexts:
    """Generation 0's texts in estimate units. The covariance is within the texts of an item (of a replicate); each such set
    weighs the same."""
    values = zero[list(FEATURES)].astype("float64")
    varies = [name for name in FEATURES if units.get(name, 0.0) > 0 and float(values[name].std(ddof=1)) > 0]
    units = pd.Series({name: 1.0 if name == "length" else float(units[name]) for name in varies})
    scaled = values[varies] / units
    sets = zero.groupby(["replicate", "item_id"], dropna=False, sort=True).ngroup().to_numpy()
    within = (scaled - scaled.groupby(sets).transform("mean")).to_numpy()
    sizes = np.bincount(sets)
    n_sets = int(np.sum(sizes > 1))
    weight = 1.0 / np.maximum(sizes[sets] - 1.0, 1.0) / max(n_sets, 1)
    covariance = (within * weight[:, None]).T @ within
    items = zero["item_id"].to_numpy()
    means = scaled.groupby(items).mean().mean()
    df = int(np.sum(sizes - 1))
    return CandidateTexts(tuple(varies), units, Texts(covariance, df), means, len(scaled), len(np.unique(items)))


# -- the selection pressure of those picks, by the project's own learner -----------------------------------------------


def selection_pressure(
    evidence: Evidence, candidates: CandidateTexts, signal: SignalSpec, presentations: float, *, coins: bool = True
) -> tuple[SelectionPressure, float, float] | Undefined:
    """The selection pressure of these picks under a signal, in estimate units; the number of preferences that it is fitted
    to; and the number that a generation of ``presentations`` would give (without a fit: NaN).

    The ridge is scaled so that it weighs against the evidence as it would against a generation of that size. ``coins``:
    hard verdicts are drawn anew when a pair is shown again, as they are above temperature 0.
    """
    judgments = evidence.judgments[evidence.judgments["candidate_first"] != evidence.judgments["candidate_second"]]
    items = judgments.loc[judgments["verdict"] != "unscored", "item_id"].nunique()
    if items < _FEWEST_ITEMS:
        return Undefined(f"{items} items with a verdict; a forecast needs {_FEWEST_ITEMS}")
    if not isinstance(signal, BradleyTerrySignalSpec):
        return _winners(judgments, evidence.features, candidates, coins)
    preferences = labels.preferences(judgments, signal.label_rule)
    n_preferences = float(preferences["weight"].sum())
    if n_preferences == 0:
        return Undefined(f"the label rule {signal.label_rule} keeps no preference")
    expected = presentations * n_preferences / len(judgments)
    ridge = signal.ridge * n_preferences / max(expected, 1.0)
    measured, fitted = _fitted(preferences, judgments, evidence.features, candidates, ridge)
    if signal.label_rule == "length_controlled":
        fitted = signals.length_controlled(fitted)
    if not fitted.converged or fitted.covariance is None:
        return Undefined(f"the signal cannot be fitted to these picks: {fitted.note}")
    names, per_unit = list(candidates.features), _per_unit(candidates, fitted)
    unit = np.outer(per_unit, per_unit)
    covariance = fitted.covariance.reindex(index=names, columns=names).fillna(0.0).to_numpy(dtype=np.float64)
    scatter = _scatter(preferences, measured, fitted).reindex(index=names, columns=names).fillna(0.0).to_numpy()
    return (
        SelectionPressure(_slopes(candidates, fitted), covariance * unit, fitted.n_items - 1, scatter * unit),
        n_preferences,
        expected,
    )


def _fitted(
    preferences: pd.DataFrame, judgments: pd.DataFrame, features: pd.DataFrame, candidates: CandidateTexts, ridge: float
) -> tuple[pd.DataFrame, signals.FittedSignal]:
    """The features of the judged texts, and the signal fitted to the preferences on them."""
    measured = features.loc[features.index.isin(_texts_of(judgments)), list(candidates.features)]
    return measured, signals.fit(preferences, measured, signals.generation_zero_scale(measured), ridge)


def _per_unit(candidates: CandidateTexts, fitted: signals.FittedSignal) -> Floats:
    """(p,) the estimate unit of each feature in the units of the fit; 0 for a feature that the fit dropped."""
    ratio = (candidates.units / fitted.scale).reindex(list(candidates.features)).fillna(0.0)
    return np.asarray(ratio, dtype=np.float64)


def _slopes(candidates: CandidateTexts, fitted: signals.FittedSignal) -> Floats:
    """(p,) the fitted slopes, log-odds per estimate unit."""
    raw = fitted.coefficients.reindex(list(candidates.features)).fillna(0.0).to_numpy(dtype=np.float64)
    return np.asarray(raw * _per_unit(candidates, fitted))


def _scatter(preferences: pd.DataFrame, features: pd.DataFrame, fitted: signals.FittedSignal) -> pd.DataFrame:
    """Preferences times the sandwich covariance of the slopes with pairs, not items, as clusters: items stay the same in
    a loop, their pairs do not."""
    names = list(fitted.scale.index)
    chosen, rejected = (
        features[names].reindex(pd.MultiIndex.from_arrays([preferences["item_id"], preferences[side]])).to_numpy()
        for side in ("chosen", "rejected")
    )
    x = (chosen - rejected) / fitted.scale.to_numpy()
    shown_first = np.where(preferences["chosen"] == preferences["candidate_first"], 1.0, -1.0)
    order = np.where(preferences["order"].isin(ORDERS), shown_first, 0.0)
    gamma = 0.0 if fitted.order_log_odds is None else fitted.order_log_odds
    p = sigmoid(x @ fitted.coefficients.to_numpy(dtype=np.float64) + gamma * order)
    weight = preferences["weight"].to_numpy(dtype=np.float64)
    information = (x * (weight * p * (1.0 - p))[:, None]).T @ x + fitted.ridge * np.eye(len(names))
    scores = pd.DataFrame((weight * (1.0 - p))[:, None] * x)
    by_pair = scores.groupby([preferences["item_id"].to_numpy(), preferences["pair_id"].to_numpy()]).sum().to_numpy()
    inverse = np.linalg.pinv(information, hermitian=True)
    return pd.DataFrame(weight.sum() * inverse @ by_pair.T @ by_pair @ inverse, index=names, columns=names)


def _texts_of(judgments: pd.DataFrame) -> pd.MultiIndex:
    """Item and candidate of every text that the judgments show."""
    parts = [judgments[["item_id", f"candidate_{slot}"]].set_axis(_KEY, axis=1) for slot in ("first", "second")]
    return pd.MultiIndex.from_frame(pd.concat(parts).drop_duplicates())


def _winners(
    judgments: pd.DataFrame, features: pd.DataFrame, candidates: CandidateTexts, coins: bool
) -> tuple[SelectionPressure, float, float] | Undefined:
    """The selection differential without a fit: the mean features of the text that won over both orders together, minus the
    pair's mean; clusters are items."""
    picks = labels.presentations(in_known_order(judgments))
    by_order = picks.groupby(["item_id", "pair_id", "order"]).agg(
        a=("a", "first"), b=("b", "first"), p_a=("p_a", "mean")
    )
    by_pair = by_order.groupby(["item_id", "pair_id"]).agg(
        a=("a", "first"), b=("b", "first"), p_a=("p_a", "mean"), n=("p_a", "size")
    )
    by_pair = by_pair[by_pair["n"] == 2].reset_index()
    if by_pair["item_id"].nunique() < _FEWEST_ITEMS:
        return Undefined(
            f"{by_pair['item_id'].nunique()} items with a pair judged in both orders; a forecast needs {_FEWEST_ITEMS}"
        )
    scaled = features[list(candidates.features)] / candidates.units
    a, b = (
        scaled.reindex(pd.MultiIndex.from_arrays([by_pair["item_id"], by_pair[side]])).to_numpy(dtype=np.float64)
        for side in "ab"
    )
    won = np.sign(by_pair["p_a"].to_numpy(dtype=np.float64) - 0.5)
    moved = 0.5 * won[:, None] * (a - b)
    complete = np.isfinite(moved).all(axis=1)
    moved, items = moved[complete], by_pair["item_id"].to_numpy()[complete]
    sums = pd.DataFrame(moved - moved.mean(axis=0)).groupby(items).sum().to_numpy()
    covariance = len(sums) / (len(sums) - 1) * sums.T @ sums / len(moved) ** 2
    scatter = np.cov(moved.T, ddof=1).reshape(covariance.shape)
    calls = None
    if coins and not judgments["p_first"].notna().any():
        preferences = labels.preferences(judgments, "raw")
        _, fitted = _fitted(preferences, judgments, features, candidates, 1.0)
        slopes = _slopes(candidates, fitted)
        spread = math.sqrt(max(float(slopes @ candidates.texts.covariance @ slopes), 0.0))
        calls = (spread, fitted.order_log_odds or 0.0) if fitted.converged else None
    pressure = SelectionPressure(moved.mean(axis=0), covariance, len(sums) - 1, scatter, calls)
    return pressure, float(len(moved)), float("nan")


def _real_mean(measured: pd.DataFrame, candidates: CandidateTexts) -> Floats:
    """The real texts' mean minus generation 0's, (p,) in estimate units. ``measured``: their features, indexed by item."""
    means = (measured[list(candidates.features)].groupby(level=0).mean()).mean() / candidates.units
    return (means - candidates.means).to_numpy(dtype=np.float64)
