"""What the report reads from a run folder or from memory, in one place and in one shape: nothing else is opened."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import yaml

from judgeloop.experiment.schema import SIGNALS_OF_POLICY
from judgeloop.records import ADDED_ESTIMATE_COLUMNS, ESTIMATE_COLUMNS
from judgeloop.rundir import Record
from judgeloop.stats.estimate import VERDICTS, Estimate
from judgeloop.stats.items import with_clusters
from judgeloop.stats.presentations import quick_texts

_INTEGERS = frozenset({"generation", "n", "n_items", "n_replicates", "n_unscored"})
_NUMBERS = frozenset({
    "estimate", "std_error", "conf_low", "conf_high", "conf_level", "p_value", "p_adjusted", "margin", "detectable", "benchmark",
})  # fmt: skip
_COUNTS = frozenset({"n", "n_items", "n_unscored"})
_DRAFT = r"k\d+|g\d+k\d+|anchor\d+"
"""Ids of candidates that a policy drafted: no real text, no edit."""
_CONTROL_KINDS = ("random", "gold")
_CANCELLED = 1e-9
"""A weight that is none but for rounding."""
POSITIVE = "positive"
"""The kind of a control whose judge has a known taste. Drift is not measured against it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A run folder as the report sees it. Frames are empty (without columns) where the run wrote none.

    ``arms`` are in the experiment's order; ``controls`` maps a control arm to its kind: its judge's (random or gold), or
    positive (``positive_controls``).
    """

    name: str
    estimates: tuple[Estimate, ...]
    items: pd.DataFrame
    candidates: pd.DataFrame
    judgments: pd.DataFrame
    signals: pd.DataFrame
    environment: Mapping[str, Any]
    experiment: Mapping[str, Any]
    experiment_text: str
    arms: tuple[str, ...]
    controls: Mapping[str, str]
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    choices: pd.DataFrame = field(default_factory=pd.DataFrame)
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    preferences: pd.DataFrame | None = None
    """Of a run that trains models."""

    @property
    def generations(self) -> tuple[int, ...]:
        """The generations of the estimates, ascending; empty for audits."""
        return tuple(sorted({row.generation for row in self.estimates if row.generation is not None}))

    @property
    def known_tastes(self) -> frozenset[str]:
        """The arms whose judge is a rule, a positive control or what the run is about."""
        return frozenset(row.arm for row in self.estimates if is_positive_control(row))

    def drafts(self) -> tuple[int, Mapping[str, int]]:
        """(drafts of a run, its anchor panel's with them; reason → how many have no text, the most frequent first). A draft that
        arms share counts once, as does one that later generations train on."""
        rows = self.candidates
        if "n_drawn" not in rows or not self.arms:
            return 0, {}
        rows = rows[rows["candidate_id"].astype("str").str.fullmatch(_DRAFT)]
        shared = rows["candidate_id"].astype("str").str.match("k|g0k|anchor")
        rows = rows.assign(arm=rows["arm"].where(~shared, ""))
        rows = rows.drop_duplicates(["replicate", "arm", "item_id", "candidate_id"])
        reasons = rows["reason"][rows["reason"] != ""].value_counts()
        return len(rows), {str(reason): int(count) for reason, count in reasons.items()}

    def cut_drafts(self) -> dict[str, float]:
        """Arm → the share of the last generation's drawn drafts that ended because they may be no longer; empty where the table does
        not say."""
        rows = self.candidates
        if "cut" not in rows or "n_drawn" not in rows:
            return {}
        rows = rows[(rows["generation"] == rows["generation"].max()) & (rows["n_drawn"] > 0) & rows["cut"].notna()]
        rows = rows[rows["arm"].isin(self.arms)]
        drawn = rows["n_drawn"].astype("float64")
        shares = (rows["cut"].astype("float64") * drawn).groupby(rows["arm"]).sum() / drawn.groupby(rows["arm"]).sum()
        return {arm: float(shares[arm]) for arm in self.arms if arm in shares.index}

    def equal_pairs(self) -> tuple[int, int]:
        """How many of a run's pairs of candidates are of equal texts, from which nothing is learned, and of how many."""
        rows = self.judgments
        if "panel" not in rows or not self.arms:
            return 0, 0
        rows = rows[rows["panel"] == "policy"].drop_duplicates(["arm", "replicate", "generation", "item_id", "pair_id"])
        return int(rows["identical"].astype(bool).sum()), len(rows)

    def pairs_trained(self) -> dict[str, float]:
        """Arm → how many pairs of texts a generation's picks prefer one of, on average over generations and replicates: what a training
        has to learn from. Picks of both orders that cancel prefer none. Empty where no model is trained, or none yet."""
        rows = self.preferences
        if rows is None or not (self.candidates["generation"] > 0).any():
            return {}
        if rows.empty:
            return dict.fromkeys(self.arms, 0.0)
        trainings = rows["replicate"].nunique() * rows["generation"].nunique()
        low = rows[["chosen", "rejected"]].min(axis=1)
        weight = rows["weight"].astype("float64").where(rows["chosen"] == low, -rows["weight"].astype("float64"))
        pair = [rows[name] for name in ("arm", "replicate", "generation", "item_id")]
        net = weight.groupby([*pair, low, rows[["chosen", "rejected"]].max(axis=1)]).sum()
        counted = (net.abs() > _CANCELLED).groupby(level="arm").sum()
        return {arm: float(counted.get(arm, 0)) / trainings for arm in self.arms}


def read(run: Record) -> Reading:
    """The reading of a finished run. Raises FolderMismatch where it has no estimates or a damaged table."""
    estimates, items = as_estimates(run.estimates()), _table(run, "items")
    text = run.experiment_text()
    experiment = _mapping(_yaml(text))
    arms = _mapping(experiment.get("arms"))
    names = tuple(dict.fromkeys([*map(str, arms), *(row.arm for row in estimates if row.arm)]))
    controls = {name: kind for name in names if (kind := _judge_kind(experiment, arms.get(name))) in _CONTROL_KINDS}
    # Strategies are contrasted with one another too; a control is what drift is measured against.
    against = [row.contrast for row in estimates if row.term.startswith("did_")]
    controls |= {contrast: "control" for contrast in against if contrast and contrast not in controls}
    controls |= dict.fromkeys(positive_controls(estimates), POSITIVE)
    is_trained = _mapping(experiment.get("policy")).get("kind") in SIGNALS_OF_POLICY
    return Reading(
        name=str(experiment.get("name") or run.name),
        estimates=estimates,
        items=items,
        candidates=_table(run, "candidates"),
        judgments=with_clusters(_table(run, "judgments"), items),
        signals=_table(run, "signals"),
        environment=run.environment(),
        experiment=experiment,
        experiment_text=text,
        arms=names,
        controls=controls,
        scores=_table(run, "scores"),
        choices=_table(run, "choices"),
        pairs=_table(run, "pairs"),
        preferences=_table(run, "preferences") if is_trained else None,
    )


def as_estimates(frame: pd.DataFrame) -> tuple[Estimate, ...]:
    """The rows of an estimates frame, empty cells as "" or None. Columns that earlier versions did not write are empty.

    Raises ValueError if another column is missing.
    """
    columns = [column for column in ESTIMATE_COLUMNS if column in frame.columns or column not in ADDED_ESTIMATE_COLUMNS]
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"estimates lack the columns {', '.join(missing)}")
    cells = [[_cell(column, value) for value in frame[column].tolist()] for column in columns]
    return tuple(Estimate(**dict(zip(columns, row, strict=True))) for row in zip(*cells, strict=True))


def record(row: Estimate) -> dict[str, Any]:
    """The row as a mapping with the columns of docs/contract.md, "Estimates", in order, ready for JSON."""
    return {name: getattr(row, name) for name in ESTIMATE_COLUMNS}


def select(rows: Iterable[Estimate], **conditions: object) -> list[Estimate]:
    """The rows whose columns have these values; a tuple stands for any one of its values."""
    selected = list(rows)
    # The term first: it leaves the fewest rows to look at.
    for column, value in sorted(conditions.items(), key=lambda condition: condition[0] != "term"):
        values = value if isinstance(value, tuple) else (value,)
        selected = [row for row in selected if getattr(row, column) in values]
    return selected


def sampled(reading: Reading) -> str:
    """What the policy's intervals are over: replicates, or the items of the one training run that a log of texts has."""
    of_policy = select(reading.estimates, scope="policy")
    return "replicates" if any(row.n_replicates for row in of_policy) else "the items of one training run"


def arm_series(reading: Reading, term: str, *, contrasted: bool = False) -> list[Estimate]:
    """The primary rows of a measure by arm and generation, undefined ones left out; ``contrasted``: those against a control."""
    return [
        row
        for row in select(reading.estimates, term=term, variant="", category="")
        if row.generation is not None
        and row.estimate is not None
        and row.status != "undefined"
        and bool(row.contrast) == contrasted
        and row.arm
    ]


def length_outcome(reading: Reading, arm: str) -> list[Estimate]:
    """The drift of length by generation that an arm's forecast is held against: beyond its first control where it has one."""
    contrasted = [row for row in arm_series(reading, "did_length", contrasted=True) if row.arm == arm]
    beyond = select(contrasted, contrast=contrasted[0].contrast) if contrasted else []
    return beyond or [row for row in arm_series(reading, "drift_length") if row.arm == arm]


def positive_controls(rows: Iterable[Estimate]) -> list[str]:
    """The arms whose judge has a known taste, where another arm is contrasted with a control too: alone, they are what the run
    is about."""
    contrasted = {row.arm: is_positive_control(row) for row in rows if row.term.startswith("did_") and row.contrast}
    return [arm for arm, itself in contrasted.items() if itself] if not all(contrasted.values()) else []


def is_positive_control(row: Estimate) -> bool:
    """Whether the row is of an arm whose judge has a known taste."""
    return row.positive_control.startswith("itself")


def last_generation(rows: Iterable[Estimate]) -> int | None:
    """The highest generation among the rows; None where none has one."""
    return max((row.generation for row in rows if row.generation is not None), default=None)


def _cell(column: str, value: Any) -> Any:
    empty = value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
    if column in _INTEGERS:
        return (0 if column in _COUNTS else None) if empty else int(value)
    if column in _NUMBERS:
        return None if empty else float(value)
    if column == "verdict" and value not in VERDICTS:
        return ""  # a word of a later version
    return "" if empty else str(value)


def _yaml(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None  # the report shows the text as it stands; arms and name then come from the tables


def _mapping(value: object) -> dict[str, Any]:
    if isinstance(value, list):
        value = {entry["name"]: entry for entry in value if isinstance(entry, dict) and "name" in entry}
    return {str(key): inner for key, inner in value.items()} if isinstance(value, dict) else {}


def _judge_kind(experiment: Mapping[str, Any], arm: object) -> str:
    judge = _mapping(_mapping(arm).get("judge")) or _mapping(experiment.get("judge"))
    return str(judge.get("kind", "model"))


def _table(run: Record, name: str) -> pd.DataFrame:
    frame = run.table(name)
    # A log's own columns may have any name, that of a count of the table candidates too.
    for column in ("replicate", "generation", "repeat", *(("n_drawn",) if name == "candidates" else ())):
        if column in frame.columns:
            frame[column] = frame[column].astype("Int64")
    for column in ("arm", "panel", "category", "judge", "reason", "gold", "call", "verdict", "order", "said"):
        if column in frame.columns:
            frame[column] = frame[column].astype("object").where(frame[column].notna(), "").astype("str")
    return quick_texts(frame)
