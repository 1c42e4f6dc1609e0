"""``judgeloop.compare``: the judges, mitigations or arms of run folders, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop.analysis import PICKS
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.records import is_control_judge
from judgeloop.report.comparison import document, markdown, render
from judgeloop.report.comparison import summary as compare_text_summary
from judgeloop.report.reading import POSITIVE, Reading, read
from judgeloop.rundir import RunFolder, as_csv
from judgeloop.stats.compare.contenders import Contender, Cost, first_texts, with_pair_keys
from judgeloop.stats.compare.ranking import Comparison, compared
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import Estimate, unscored_shares
from judgeloop.stats.loop.diversity import diversity_series
from judgeloop.stats.loop.panels import panel_texts
from judgeloop.stats.loop.replicates import Series, measure, series
from judgeloop.wire.cassette import Cassette

_PANELS = ("pairs", "", "anchor", "policy")
_MOST_CALLS = 200_000
"""Recordings with more calls are not read for their tokens: that would take minutes."""


@dataclass(frozen=True)
class ComparisonReport:
    """A comparison and the folder that holds it: compare.html, compare.md, compare.json, comparison.csv."""

    path: Path
    comparison: Comparison

    @property
    def frame(self) -> pd.DataFrame:
        """One row a difference: its two contenders, how they are paired, both values, and the columns of
        docs/contract.md, "Estimates"."""
        return self.comparison.frame

    def summary(self, width: int = 100) -> str:
        """The differences in words, on one screen."""
        return compare_text_summary(self.comparison, width)


def compare(
    *run_dirs: str | Path,
    out: str | Path | None = None,
    judges: Collection[str] = (),
    arms: Collection[str] = (),
    watch: Callable[[str, str], None] = lambda *_: None,
) -> ComparisonReport:
    """Run folders side by side; with one folder, its judges or arms. Writes into ``out`` (default runs/compare-<a>-<b>).

    With ``judges`` or ``arms``, those alone. ``watch`` is called with each two before they are compared. Raises
    InvalidInput where there are fewer than two to compare, FolderMismatch where a folder has no estimates.
    """
    if not run_dirs:
        raise InvalidInput("compare: give run folders, as in: judgeloop compare runs/a runs/b")
    folders = [RunFolder.existing(path) for path in run_dirs]
    labels = _labels(folders)
    every = [
        contender
        for folder, label in zip(folders, labels, strict=True)
        for contender in _contenders(folder, label)
        if (not judges or contender.judge in judges) and (not arms or contender.arm in arms)
    ]
    chosen = [contender for contender in every if not contender.is_control]
    if arms or len(chosen) < 2:
        chosen = every  # controls too: arms that are named, or a single arm beside its controls
    if len(chosen) == 1 and len(folders) == 1:
        # A single judge is compared with its mitigations.
        chosen = _mitigations(chosen[0], read(folders[0]).estimates) or chosen
    if len(chosen) < 2:
        names = sorted({contender.judge for contender in every if contender.judge})
        raise InvalidInput(
            f"compare: {'one judge or arm' if chosen else 'no judge or arm'} to compare in {', '.join(labels)}; give a second "
            f"folder, or one with several (judges: {', '.join(names[:6]) or 'none'})"
        )
    target = Path(out) if out is not None else Path("runs") / f"compare-{'-'.join(labels[:3])}"
    if RunFolder(target).exists or target.is_file():
        raise FolderMismatch(f"{target}: this is a run folder or a file; give another --out")
    comparison = compared(_named(chosen), watch=watch)
    folder = RunFolder(target)
    table = as_csv(comparison.frame)
    folder.write_bytes("comparison.csv", table.encode("utf-8", "replace"))
    folder.write_text("compare.json", document(comparison))
    folder.write_text("compare.md", markdown(comparison))
    folder.write_text("compare.html", render(comparison))
    return ComparisonReport(target, comparison)


def _labels(folders: list[RunFolder]) -> list[str]:
    """Each folder's name; folders of one name with their parent's name or a number too."""
    names = [folder.path.resolve().name or "run" for folder in folders]
    taken: dict[str, int] = {}
    labels = []
    for folder, name in zip(folders, names, strict=True):
        label = name if names.count(name) == 1 else f"{folder.path.resolve().parent.name}-{name}"
        taken[label] = taken.get(label, 0) + 1
        labels.append(label if taken[label] == 1 else f"{label} ({taken[label]})")
    return labels


def _named(chosen: list[Contender]) -> list[Contender]:
    """The contenders with the shortest names that are all different: the folder's, the judge's or arm's, or both."""
    sources = {contender.source for contender in chosen}
    if len(sources) == len(chosen):
        names = [contender.source for contender in chosen]
    elif len(sources) == 1:
        names = [contender.name for contender in chosen]
    else:
        names = [f"{contender.source}: {contender.name}" for contender in chosen]
    return [dataclasses.replace(contender, name=name) for contender, name in zip(chosen, names, strict=True)]


def _contenders(folder: RunFolder, label: str) -> list[Contender]:
    """The arms of a run, or the judges of an audit or analysis. Raises FolderMismatch."""
    try:
        reading = read(folder)
    except ValueError as error:
        raise FolderMismatch(f"{folder.path}/estimates.parquet: {error}; run the same command again") from None
    tokens = _tokens(folder)
    return _arms(reading, label, tokens) if folder.kind == "run" else _judges(reading, label, tokens)


# -- an audit or analysis: its judges, each with its mitigations ---------------------------------------------------------


def _judges(reading: Reading, label: str, tokens: Mapping[str, int]) -> list[Contender]:
    """The judges of an audit or analysis, each on the panel of its pairs."""
    table = reading.judgments
    if table.empty:
        return []
    table = table.assign(panel=table.get("panel", ""), arm=table.get("arm", ""))
    texts = reading.candidates if len(reading.candidates) else None
    shares = unscored_shares(table)
    contenders = []
    for (judge, arm), own in table.groupby(["judge", "arm"], sort=True):
        panel = next((name for name in _PANELS if (own["panel"] == name).any()), None)
        if panel is None:
            continue
        judgments = with_pair_keys(own[own["panel"].isin([panel, "probe"])], texts)
        rows = tuple(
            row for row in (*reading.estimates, *shares)
            if row.scope == "judge" and row.judge == judge and row.arm == arm
            and (row.panel in (panel, "probe") or row.term == "unscored_share")
        )  # fmt: skip
        contenders.append(Contender(
            name=f"{judge} ({arm})" if arm else str(judge), source=label, judge=str(judge), arm=str(arm),
            is_control=is_control_judge(str(judge)), judgments=judgments, texts=texts, rows=rows,
            cost=_cost(reading, own, tokens),
        ))  # fmt: skip
    return contenders


def _mitigations(judge: Contender, estimates: Iterable[Estimate]) -> list[Contender]:
    """The judge's mitigations, ``raw`` (none) among them, from the rows that have their names as variants."""
    rows = [row for row in estimates if row.judge == judge.judge and row.arm == judge.arm and row.category == ""]
    contenders = []
    for price in rows:
        if price.term != "mitigation_cost" or price.variant == PICKS:  # PICKS is only what others are compared with
            continue
        own = tuple(dataclasses.replace(row, variant="") for row in rows if row.variant == price.variant)
        calls = None if price.estimate is None else round(price.estimate * price.n)
        contenders.append(Contender(
            name=price.variant, source=judge.source, judge=judge.judge, arm=judge.arm, mitigation=price.variant, rows=own,
            cost=Cost(calls=calls, pairs=price.n, per="label"),
        ))  # fmt: skip
    return contenders


# -- a run: its arms -----------------------------------------------------------------------------------------------------


def _arms(reading: Reading, label: str, tokens: Mapping[str, int]) -> list[Contender]:
    """The arms of a run, each with its judge on the anchor panel of the last generation."""
    table = reading.judgments
    controls = [arm for arm in reading.arms if reading.controls.get(arm, POSITIVE) != POSITIVE]
    last = int(reading.experiment["generations"])
    measured = _series(reading, last)
    anchors: dict[str, tuple[pd.DataFrame, int | None]] = {}
    texts = panel_texts(reading.candidates)
    contenders = []
    for arm in reading.arms:
        of_arm = table[table["arm"] == arm] if len(table) else table
        judge = str(of_arm["judge"].iloc[0]) if len(of_arm) else ""
        if judge not in anchors:
            anchors[judge] = _anchor(table, judge, texts)
        judgments, generation = anchors[judge]
        shares = unscored_shares(table[(table["judge"] == judge) & table["arm"].isin([arm, ""])]) if len(table) else []
        rows = tuple(
            row for row in (*reading.estimates, *(share for share in shares if share.arm == arm))
            if (row.arm == arm or (row.scope == "judge" and row.judge == judge and row.arm == ""))
            and (
                row.scope != "judge" or row.term == "unscored_share"
                or (row.panel == "anchor" and row.generation == generation)
            )
        )  # fmt: skip
        seed = reading.experiment.get("seed")
        contenders.append(Contender(
            name=arm, source=label, judge=judge, arm=arm, is_control=arm in controls, judgments=judgments, texts=texts,
            rows=rows, series=measured, generations=last, control=next(iter(controls), ""),
            first_texts=first_texts(reading.candidates, arm), seed=seed if isinstance(seed, int) else None,
            cost=_cost(reading, of_arm, tokens),
        ))  # fmt: skip
    return contenders


def _anchor(table: pd.DataFrame, judge: str, texts: pd.DataFrame) -> tuple[pd.DataFrame, int | None]:
    """The judge's anchor judgments of the last generation that has any, and that generation."""
    anchor = table[(table["panel"] == "anchor") & (table["judge"] == judge)] if len(table) else table
    if anchor.empty:
        return pd.DataFrame(), None
    generation = int(anchor["generation"].max())
    last = anchor[anchor["generation"] == generation]
    last = last.sort_values(["item_id", "pair_id", "order", "repeat"], kind="stable")
    return with_pair_keys(last, texts), generation


def _series(reading: Reading, last: int) -> Mapping[str, Series]:
    """Quantity → its series over generations and replicates, of features and of diversity."""
    if reading.candidates.empty:
        return {}
    empty = pd.DataFrame()
    tables = RunTables(reading.items, reading.candidates, reading.judgments, empty, empty)
    seed = reading.experiment.get("seed", 0)
    design = Design(
        reading.name, seed if isinstance(seed, int) else 0, last, tuple(ArmDesign(arm, "") for arm in reading.arms)
    )
    measured = measure(tables, design)
    every = [*series(measured), *diversity_series(measured, design, ("mattr", "distinct_2"))]
    return {quantity.quantity.name: quantity for quantity in every if quantity.category == ""}


# -- cost ----------------------------------------------------------------------------------------------------------------


def _tokens(folder: RunFolder) -> dict[str, int]:
    """Call id → tokens used, as the endpoint counted them; empty where the folder holds no recording, or a very long one."""
    if not (folder.path / "calls").is_dir():
        return {}
    cassette = Cassette(folder.path, writable=False)
    try:
        if len(cassette) > _MOST_CALLS:
            return {}
        return {
            exchange.call: used for exchange in cassette.exchanges() if (used := _used(exchange.response)) is not None
        }
    finally:
        cassette.close()


def _used(response: Any) -> int | None:
    """The tokens of a response's ``usage``; None where it states none."""
    usage = response.get("usage") if isinstance(response, dict) else None
    parts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    counts = [part for part in parts if isinstance(part, int) and not isinstance(part, bool) and part >= 0]
    return sum(counts) if counts else None


def _cost(reading: Reading, judgments: pd.DataFrame, tokens: Mapping[str, int]) -> Cost:
    """The cost of these judgments: calls, tokens, and US dollars, the folder's share by tokens."""
    if judgments.empty or "call" not in judgments:
        return Cost()
    keys = [key for key in ("replicate", "arm", "generation", "panel", "item_id", "pair_id") if key in judgments]
    pairs = len(judgments[keys].drop_duplicates())
    calls = {str(call) for call in judgments["call"] if call}
    used = sum(tokens.get(call, 0) for call in calls)
    spent, total = reading.environment.get("cost_usd"), sum(tokens.values())
    spent = None if reading.environment.get("unpriced") else spent  # it is of some of the calls
    usd = spent * used / total if isinstance(spent, int | float) and spent > 0 and total else None
    return Cost(len(calls) or None, used or None, usd, pairs)
