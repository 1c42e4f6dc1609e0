"""Figures of judges that score one text or choose from a list: scores, their ends and shift, what goes with a higher score, and
picks by the place of a text's length in its list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from judgeloop.report import wording
from judgeloop.report.figure import (
    Figure,
    Panel,
    Spec,
    Style,
    defined,
    forest,
    forest_legend,
    in_words,
    layout,
    points,
    titled,
)
from judgeloop.report.findings import judge_rows
from judgeloop.report.reading import Reading
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Undefined, cluster_mean, clustered_proportion
from judgeloop.text.templates import parse_scale

_SHARES = (
    "score_floor_share", "score_ceiling_share", "score_pair_ties", "score_gold_agreement", "score_pairwise_disagreement",
    "rotation_consistency", "gold_agreement",
)  # fmt: skip
_BINS = 5
_FEWEST = 10
"""The fewest texts of a bin."""
_MOST_PANELS = 8
_CANDIDATE = re.compile(r"candidate_(\d+)")


def figures(reading: Reading) -> list[Figure]:
    """The figures for which there are scores or choices, in reading order."""
    if reading.scores.empty and reading.choices.empty:
        return []
    parts = (score_histogram(reading), score_by_length(reading), _shares(reading), picks_by_rank(reading))
    return [figure for figure in parts if figure is not None]


def score_histogram(reading: Reading) -> Figure | None:
    """How often each score was given, a panel a judge and scale; None where nothing was scored."""
    scores = reading.scores
    scores = scores[scores["score"].notna()] if "score" in scores else pd.DataFrame()
    if scores.empty:
        return None
    panels = []
    several = scores["judge"].nunique() > 1
    for (judge, name), rows in list(scores.groupby(["judge", "scale"], sort=False))[:_MOST_PANELS]:
        scale = parse_scale(str(name))
        places, shares = histogram(rows["score"], scale.low, scale.high)
        ends = [
            f"{place:g}: {share:.1f} % of {len(rows):,} scores" for place, share in zip(places, shares, strict=True)
        ]
        bars: Spec = {
            "type": "bar", "x": places, "y": shares, "text": ends, "hoverinfo": "text", "textposition": "none",
            "marker": {"color": ["@high" if place in (scale.low, scale.high) else "@low" for place in places]},
        }  # fmt: skip
        title = f"Scale {name}" + (f", {wording.label(str(judge), 40)}" if several else "")
        axes = layout(
            height=240, x=titled(f"score ({scale.best} is best)", tickvals=places, showgrid=False),
            y=titled("% of scores", rangemode="tozero"), bargap=0.15,
        )  # fmt: skip
        panels.append(Panel(title, {"data": [bars], "layout": axes}))
    terms = ("score_mean", "score_sd", "score_floor_share", "score_ceiling_share", "score_scale_anchoring")
    measured = defined([row for term in terms for row in judge_rows(reading.estimates, term)])
    return Figure(
        name="scores", title="How the scores are spread",
        caption="Shares of all scores, rounded to whole ones; the ends of the scale in orange. A judge that uses few values, or one end, cannot tell texts apart. "
        "The shapes on two scales should mirror each other: the shift between them is in the table.",
        alternative=in_words(measured) if measured else "", panels=tuple(panels), rows=tuple(measured), columns=2,
        legend=(("an end of the scale", Style("@high", "bar", "")), ("between", Style("@low", "bar", ""))),
    )  # fmt: skip


def histogram(scores: pd.Series[float], low: float, high: float) -> tuple[list[float], list[float]]:
    """(whole scores from ``low`` to ``high``, the share of each in %); of long scales in twenty bins."""
    step = max(1.0, round((high - low) / 20))
    places = np.arange(low, high + step / 2, step)
    nearest = np.clip(np.floor((scores.to_numpy(dtype=float) - low) / step + 0.5), 0, len(places) - 1).astype(int)
    counts = np.bincount(nearest, minlength=len(places))
    return [float(place) for place in places], [float(100 * count / len(scores)) for count in counts]


def score_by_length(reading: Reading) -> Figure | None:
    """The mean score of texts in fifths by their length, with its 95 % interval; None where no lengths are known."""
    scores, texts = reading.scores, reading.candidates
    if "score" not in scores or "length" not in texts:
        return None
    lengths = texts.drop_duplicates(["item_id", "candidate_id"])[["item_id", "candidate_id", "length"]]
    merged = scores[scores["score"].notna()].merge(lengths, on=["item_id", "candidate_id"]).dropna(subset=["length"])
    slopes = {row.judge: row for row in judge_rows(reading.estimates, "score_length_slope", "no_gold")}
    panels, used = [], []
    several = merged["judge"].nunique() > 1
    for (judge, name), rows in list(merged.groupby(["judge", "scale"], sort=False))[:_MOST_PANELS]:
        base = slopes.get(str(judge))
        bins = _bins(rows, base) if base is not None else []
        if len(bins) < 2:
            continue
        used += [row for _, row in bins]
        curve = points([row for _, row in bins], Style("@arm0", "circle", "solid"), "mean score")
        curve["x"] = [2**length for length, _ in bins]
        scale = parse_scale(str(name))
        axes = layout(
            height=260, x=titled("tokens (log scale)", type="log", nticks=6),
            y=titled(f"mean score ({scale.best} is best)"),
        )  # fmt: skip
        panels.append(Panel(f"Scale {name}" + (f", {wording.label(str(judge), 40)}" if several else ""), {"data": [curve], "layout": axes}))  # fmt: skip
    if not panels:
        return None
    slopes_in_words = defined(list(slopes.values()))
    return Figure(
        name="score-by-length", title="The score of a text, by its length",
        caption="Dots are mean scores of a fifth of the texts, lines their 95 % intervals over items. Quality is not held equal: longer texts may be better.",
        alternative=in_words(slopes_in_words) if slopes_in_words else "The table holds every value.",
        panels=tuple(panels), rows=(*used, *slopes_in_words), columns=2,
    )  # fmt: skip


def _bins(rows: pd.DataFrame, base: Estimate) -> list[tuple[float, Estimate]]:
    """(mean length in doublings, mean score) of fifths by length."""
    edges = np.quantile(rows["length"], np.arange(1, _BINS) / _BINS)
    made = []
    for _, part in rows.groupby(np.searchsorted(edges, rows["length"], side="right")):
        if len(part) < _FEWEST:
            continue
        mean = cluster_mean(part["score"], part["item_id"])
        if isinstance(mean, Undefined):
            continue
        length = float(part["length"].mean())
        made.append((length, replace(
            base, term="score_mean", variant=f"texts of about {2**length:,.0f} tokens", estimate=mean.estimate, std_error=mean.std_error,
            conf_low=mean.low, conf_high=mean.high, p_value=None, p_adjusted=None, unit="score points", n=len(part),
            n_items=part["item_id"].nunique(), method=mean.method, status="ok", verdict="", note="",
        )))  # fmt: skip
    return made


def _shares(reading: Reading) -> Figure | None:
    """Shares that say how far scores or choices can be used: ends, ties, and agreement with gold and with the judge's own verdicts."""
    rows = defined([row for term in _SHARES for row in judge_rows(reading.estimates, term)])
    if not rows:
        return None
    spec = forest(rows, "%")
    spec["layout"]["xaxis"]["range"] = [-4, 104]
    return Figure(
        name="rating-shares", title="Ends, ties and agreement" if len(reading.scores) else "Agreement over rotations and with gold",
        caption="Shares with their intervals."
        + (" Scores at an end or equal scores of a pair leave nothing to learn from; disagreement is with the judge's own verdict on the pair." if len(reading.scores) else ""),
        alternative=in_words(rows), panels=(Panel("", spec),), rows=tuple(rows), legend=forest_legend(rows),
    )  # fmt: skip


def picks_by_rank(reading: Reading) -> Figure | None:
    """How often the shortest, … , the longest text of a list was picked, over all rotations; None where no lengths are known."""
    choices, texts = reading.choices, reading.candidates
    if "slot" not in choices or "length" not in texts:
        return None
    lengths = texts.drop_duplicates(["item_id", "candidate_id"]).set_index(["item_id", "candidate_id"])["length"]
    columns = sorted((column for column in choices if _CANDIDATE.fullmatch(str(column))), key=lambda name: int(str(name).split("_")[1]))  # fmt: skip
    rows = choices[choices["slot"].notna()]
    tokens = np.column_stack([
        lengths.reindex(pd.MultiIndex.from_frame(rows[["item_id", column]].set_axis(["item_id", "candidate_id"], axis=1))).to_numpy(dtype=float)
        for column in columns
    ]) if len(rows) else np.empty((0, 0))  # fmt: skip
    known = np.flatnonzero(~np.isnan(tokens).any(axis=1))
    base = next(iter(judge_rows(reading.estimates, "rotation_consistency")), None)
    if base is None or len(known) < _FEWEST:
        return None
    rows, tokens = rows.iloc[known], tokens[known]
    rank = np.argsort(np.argsort(tokens, axis=1, kind="stable"), axis=1)
    picked = rank[np.arange(len(rows)), rows["slot"].to_numpy(dtype=int) - 1]
    panels, used = [], []
    k = len(columns)
    several = rows["judge"].nunique() > 1
    for judge in list(dict.fromkeys(rows["judge"]))[:_MOST_PANELS]:
        own = (rows["judge"] == judge).to_numpy()
        drawn = [_of_rank(base, str(judge), n, k, picked[own] == n, rows.loc[own, "item_id"]) for n in range(k)]
        used += drawn
        curve = points(drawn, Style("@arm0", "circle", "solid"), "picked")
        curve["x"] = list(range(1, k + 1))
        even: Spec = {
            "type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": 100 / k, "y1": 100 / k, "line": {"color": "@zero", "width": 1.2}, "layer": "below",
        }  # fmt: skip
        axes = layout(
            height=260, x=titled("place by length (1 is the shortest)", tickvals=list(range(1, k + 1)), range=[0.7, k + 0.3]),
            y=titled("picked, %", rangemode="tozero"), shapes=[even],
        )  # fmt: skip
        panels.append(Panel(wording.label(str(judge), 40) if several else "", {"data": [curve], "layout": axes}))
    return Figure(
        name="picks-by-rank", title="How often a text is picked, by the place of its length in the list",
        caption=f"Over all rotations, so that no slot explains it; the line is an equal share ({100 / k:.0f} %). Quality is not held equal: longer texts may be better.",
        alternative="; ".join(f"{wording.label(row.judge)}, {row.variant}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}" for row in used) + ".",
        panels=tuple(panels), rows=tuple(used), columns=2,
    )  # fmt: skip


def _of_rank(base: Estimate, judge: str, rank: int, k: int, picked: Sequence[bool], items: pd.Series[str]) -> Estimate:
    share = clustered_proportion(np.asarray(picked, dtype=float), items)
    place = "the shortest" if rank == 0 else "the longest" if rank == k - 1 else f"number {rank + 1} by length"
    error, low, high = (None, None, None) if isinstance(share, Undefined) else (share.std_error, share.low, share.high)
    return replace(
        base, term="longer_preferred_raw", judge=judge, variant=place, estimate=float(np.mean(picked)),
        std_error=error, conf_low=low, conf_high=high,
        n=len(picked), n_items=items.nunique(), p_value=None, p_adjusted=None, verdict="", status="ok", note="",
    )  # fmt: skip
