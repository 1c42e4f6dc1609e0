"""``judgeloop compare``: run folders, their judges, mitigations and arms, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop.analysis import PICKS
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.report.comparison import document, markdown, render
from judgeloop.report.comparison import summary as compare_text_summary
from judgeloop.report.reading import Reading, read
from judgeloop.rundir import RunFolder
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
_CONTROLS = ("random", "gold")


@dataclass(frozen=True)
class ComparisonReport:
    """A comparison and the folder that holds it: compare.html, compare.md, compare.json, comparison.csv."""

    path: Path
    comparison: Comparison

    @property
    def frame(self) -> pd.DataFrame:
        """One row a difference: which two, how paired, both values, and the columns of
        docs/contract.md, "Estimates"."""
        return self.comparison.frame

    def summary(self, width: int = 100) -> str:
        """One screen of words."""
        return compare_text_summary(self.comparison, width)


def compare(
    *run_dirs: str | Path,
    out: str | Path | None = None,
    judges: Collection[str] = (),
    arms: Collection[str] = (),
    watch: Callable[[str, str], None] = lambda *_: None,
) -> ComparisonReport:
    """Run folders side by side; with one folder, its judges or arms. Writes into ``out`` (default runs/compare-<a>-<b>).

    ``judges`` and ``arms`` keep those alone. ``watch`` is told each two before they are compared. Raises InvalidInput
    where there are fewer than two to compare, FolderMismatch where a folder has no estimates.
    """
    if not run_dirs:
        raise InvalidInput("compare: give run folders, as in: judgeloop compare runs/a runs/b")
    folders = [RunFolder.existing(path) for path in run_dirs]
    labels = _labels(folders)
    found = [one for folder, label in zip(folders, labels, strict=True) for one in _contenders(folder, label)]
    found = [one for one in found if (not judges or one.judge in judges) and (not arms or one.arm in arms)]
    chosen = [one for one in found if not one.is_control]
    # A lone arm has its controls to be compared with.
    chosen = chosen if len(chosen) > 1 or arms else found
    chosen = found if arms else chosen
    if len(chosen) == 1 and len(folders) == 1:
        # A lone judge has its mitigations.
        chosen = _mitigations(chosen[0], read(folders[0]).estimates) or chosen
    if len(chosen) < 2:
        raise InvalidInput(
            f"compare: {len(chosen)} judge or arm to compare in {', '.join(labels)}; give a second folder, or one with several "
            f"(judges: {', '.join(sorted({one.judge for one in found if one.judge})[:6]) or 'none'})"
        )
    target = Path(out) if out is not None else Path("runs") / f"compare-{'-'.join(labels[:3])}"
    if RunFolder(target).exists or target.is_file():
        raise FolderMismatch(f"{target}: this is a run folder or a file; give another --out")
    done = compared(_named(chosen), watch=watch)
    folder = RunFolder(target)
    folder.write_bytes("comparison.csv", done.frame.to_csv(index=False, lineterminator="\n").encode("utf-8", "replace"))
    folder.write_text("compare.json", document(done))
    folder.write_text("compare.md", markdown(done))
    folder.write_text("compare.html", render(done))
    return ComparisonReport(target, done)


def _labels(folders: list[RunFolder]) -> list[str]:
    """Each folder's name, with what tells it from others of that name."""
    names = [folder.path.resolve().name or "run" for folder in folders]
    taken: dict[str, int] = {}
    labels = []
    for folder, name in zip(folders, names, strict=True):
        label = name if names.count(name) == 1 else f"{folder.path.resolve().parent.name}-{name}"
        taken[label] = taken.get(label, 0) + 1
        labels.append(label if taken[label] == 1 else f"{label} ({taken[label]})")
    return labels


def _named(chosen: list[Contender]) -> list[Contender]:
    """Names that tell them apart, the shortest that do: the folder's, the judge's or arm's, or both."""
    sources = {one.source for one in chosen}
    if len(sources) == len(chosen):
        names = [one.source for one in chosen]
    else:
        own = [one.name for one in chosen]
        names = own if len(sources) == 1 else [f"{one.source}: {one.name}" for one in chosen]
    return [dataclasses.replace(one, name=name) for one, name in zip(chosen, names, strict=True)]


def _contenders(folder: RunFolder, label: str) -> list[Contender]:
    try:
        done = read(folder)
    except ValueError as error:
        raise FolderMismatch(f"{folder.path}/estimates.parquet: {error}; run the same command again") from None
    tokens = _tokens(folder)
    return _arms(done, label, tokens) if folder.kind == "run" else _judges(done, label, tokens)


# -- an audit or analysis: its judges, each with its mitigations ---------------------------------------------------------


def _judges(done: Reading, label: str, tokens: Mapping[str, int]) -> list[Contender]:
    table = done.judgments
    if table.empty:
        return []
    table = table.assign(panel=table.get("panel", ""), arm=table.get("arm", ""))
    texts = done.candidates if len(done.candidates) else None
    shares = unscored_shares(table)
    found = []
    for (judge, arm), some in table.groupby(["judge", "arm"], sort=True):
        panel = next((name for name in _PANELS if (some["panel"] == name).any()), None)
        if panel is None:
            continue
        kept = with_pair_keys(some[some["panel"].isin([panel, "probe"])], texts)
        rows = tuple(
            row for row in (*done.estimates, *shares)
            if row.scope == "judge" and row.judge == judge and row.arm == arm
            and (row.panel in (panel, "probe") or row.term == "unscored_share")
        )  # fmt: skip
        found.append(Contender(
            name=f"{judge} ({arm})" if arm else str(judge), source=label, judge=str(judge), arm=str(arm),
            is_control=str(judge) in _CONTROLS, judgments=kept, texts=texts, rows=rows,
            cost=_cost(done, some, tokens),
        ))  # fmt: skip
    return found


def _mitigations(one: Contender, estimates: Iterable[Estimate]) -> list[Contender]:
    """The judge's mitigations, ``raw`` (none) among them, from the rows that bear their names as variants."""
    rows = [row for row in estimates if row.judge == one.judge and row.arm == one.arm and row.category == ""]
    found = []
    for price in (
        row for row in rows if row.term == "mitigation_cost" and row.variant != PICKS
    ):  # no choice: a yardstick
        own = tuple(dataclasses.replace(row, variant="") for row in rows if row.variant == price.variant)
        calls = None if price.estimate is None else round(price.estimate * price.n)
        found.append(Contender(
            name=price.variant, source=one.source, judge=one.judge, arm=one.arm, mitigation=price.variant, rows=own,
            cost=Cost(calls=calls, pairs=price.n, per="label"),
        ))  # fmt: skip
    return found


# -- a run: its arms -----------------------------------------------------------------------------------------------------


def _arms(done: Reading, label: str, tokens: Mapping[str, int]) -> list[Contender]:
    table = done.judgments
    controls = [arm for arm in done.arms if arm in done.controls]
    last = int(done.experiment["generations"])
    measured = _series(done, last)
    anchors: dict[str, tuple[pd.DataFrame, int | None]] = {}
    texts = panel_texts(done.candidates)
    found = []
    for arm in done.arms:
        of_arm = table[table["arm"] == arm] if len(table) else table
        judge = str(of_arm["judge"].iloc[0]) if len(of_arm) else ""
        if judge not in anchors:
            anchors[judge] = _anchor(table, judge, texts)
        judgments, generation = anchors[judge]
        shares = unscored_shares(table[(table["judge"] == judge) & table["arm"].isin([arm, ""])]) if len(table) else []
        rows = tuple(
            row for row in (*done.estimates, *(share for share in shares if share.arm == arm))
            if row.arm == arm or (row.scope == "judge" and row.judge == judge and row.arm == "")
        )  # fmt: skip
        rows = tuple(
            row for row in rows
            if row.scope != "judge" or row.term == "unscored_share" or (row.panel == "anchor" and row.generation == generation)
        )  # fmt: skip
        seed = done.experiment.get("seed")
        found.append(Contender(
            name=arm, source=label, judge=judge, arm=arm, is_control=arm in done.controls, judgments=judgments, texts=texts,
            rows=rows, series=measured, generations=last, control=next(iter(controls), ""),
            first_texts=first_texts(done.candidates, arm), seed=seed if isinstance(seed, int) else None,
            cost=_cost(done, of_arm, tokens),
        ))  # fmt: skip
    return found


def _anchor(table: pd.DataFrame, judge: str, texts: pd.DataFrame) -> tuple[pd.DataFrame, int | None]:
    """The judge's anchor judgments of the last generation that has any, and that generation."""
    some = table[(table["panel"] == "anchor") & (table["judge"] == judge)] if len(table) else table
    if some.empty:
        return pd.DataFrame(), None
    generation = int(some["generation"].max())
    some = some[some["generation"] == generation].sort_values(["item_id", "pair_id", "order", "repeat"], kind="stable")
    return with_pair_keys(some, texts), generation


def _series(done: Reading, last: int) -> Mapping[str, Series]:
    if done.candidates.empty:
        return {}
    empty = pd.DataFrame()
    tables = RunTables(done.items, done.candidates, done.judgments, empty, empty)
    seed = done.experiment.get("seed", 0)
    design = Design(
        done.name, seed if isinstance(seed, int) else 0, last, tuple(ArmDesign(arm, "") for arm in done.arms)
    )
    measured = measure(tables, design)
    found = [*series(measured), *diversity_series(measured, design, ("mattr", "distinct_2"))]
    return {one.quantity.name: one for one in found if one.category == ""}


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
    usage = response.get("usage") if isinstance(response, dict) else None
    parts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    known = [part for part in parts if isinstance(part, int) and not isinstance(part, bool) and part >= 0]
    return sum(known) if known else None


def _cost(done: Reading, judgments: pd.DataFrame, tokens: Mapping[str, int]) -> Cost:
    """The judging: its calls, their tokens, and the share of the folder's dollars by tokens."""
    if judgments.empty or "call" not in judgments:
        return Cost()
    keys = [key for key in ("replicate", "arm", "generation", "panel", "item_id", "pair_id") if key in judgments]
    pairs = len(judgments[keys].drop_duplicates())
    calls = {str(call) for call in judgments["call"] if call}
    used = sum(tokens.get(call, 0) for call in calls)
    spent, every = done.environment.get("cost_usd"), sum(tokens.values())
    usd = spent * used / every if isinstance(spent, int | float) and spent > 0 and every else None
    return Cost(len(calls) or None, used or None, usd, pairs)
