"""Draws the pictures of the README and the docs from their numbers, for pictures.py: the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from judgeloop.report.figure import colours

COLOURS = colours()
Rows = Sequence[Mapping[str, Any]]
STYLE = {
    "svg.hashsalt": "judgeloop", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": COLOURS["line"], "axes.labelcolor": COLOURS["muted"], "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"], "ytick.color": COLOURS["ink"], "figure.facecolor": "white", "axes.titlesize": 10,
}  # fmt: skip
JUDGES = ("reads the slot", "tosses a coin", "likes length", "likes what is good")
# Term → title, unit's factor, the value of "no bias", axis limits, planted truth by judge where it is one number.
BIAS = {
    "conflict_rate": ("Verdict flips with the order\n(% of pairs)", 100, None, (0, 75), {}),
    "first_slot_excess": ("First slot above 50 %\n(points)", 100, 0, (-12, 32), {}),
    "longer_preferred_raw": ("Longer answer preferred\n(% of pairs, raw)", 100, 50, (40, 80), {}),
    "length_log_odds": (
        "Length, at equal quality\n(log-odds per doubling)",
        1,
        0,
        (-1, 1.4),
        {"likes length": 0.8},
    ),
}
LOOPS = {
    "consistent only": ("@arm4", lambda t: 0.6 * t),
    "replace": ("@arm0", lambda t: 0.3 * t),
    "accumulate": ("@arm3", lambda t: 0.3 * sum(1 / k for k in range(2, t + 2))),
    "half real": ("@arm2", lambda t: 0.3 * (1 - 0.5**t)),
}


def draw(name: str, rows: Rows, target: Path, description: str) -> None:
    """One picture as SVG; ``description`` is carried in its metadata."""
    with mpl.rc_context(STYLE):
        figure = {
            "trained": _trained, "bias": _bias, "drift": _drift, "amplification": _amplification, "strategies": _strategies,
            "one_in_a_thousand": _one_in_a_thousand, "contamination": _contamination,
        }[name](rows)  # fmt: skip
        figure.savefig(
            target, format="svg", metadata={"Date": None, "Creator": "judgeloop", "Description": description}
        )
        plt.close(figure)
    # One line end everywhere, and none of the blanks that the writer leaves at line ends.
    text = "\n".join(line.rstrip() for line in target.read_text(encoding="utf-8").splitlines())
    target.write_text(text + "\n", encoding="utf-8")


# Arm → (colour, marker, name).
TRAINED = {
    "longer": ("found", "D", "longer: always the longer answer"),
    "longer_accumulate": ("arm3", "^", "the same, on all data so far"),
    "judge": ("arm0", "o", "judge: the untrained model"),
    "coin": ("random", "X", "coin"),
}  # fmt: skip


def _trained(rows: Rows) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0), layout="constrained")
    panels = (
        (left, "mean_length", "Mean length of the model's answers (tokens)"),
        (right, "did_length", "What the picks did: beyond the coin (doublings)"),
    )
    for axis, term, title in panels:
        for place, (arm, (colour, marker, label)) in enumerate(TRAINED.items()):
            some = [row for row in rows if (row["term"], row["arm"]) == (term, arm)]
            if some:
                _line(axis, some, COLOURS[colour], marker, label, aside=0.05 * (place - 1.5))
        axis.set_title(title, loc="left")
        _over_generations(axis, legend=False)
    ticks = [16, 32, 64, 128, 256]
    shown = [row[key] for row in rows if row["term"] == "mean_length" for key in ("conf_low", "conf_high")]
    left.set_yticks([float(np.log2(tick)) for tick in ticks], [str(tick) for tick in ticks])
    left.set_ylim(min(shown) - 0.2, max(shown) + 0.2)
    for axis in (left, right):
        axis.set_xlabel("trainings on the judge's picks")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _bias(rows: Rows) -> Figure:
    figure, axes = plt.subplots(1, 4, figsize=(11.5, 2.9), sharey=True, layout="constrained")
    for axis, (term, (title, factor, none, limits, truth)) in zip(axes, BIAS.items(), strict=True):
        if none is not None:
            axis.axvline(none, color=COLOURS["zero"], linewidth=1)
        for place, judge in enumerate(reversed(JUDGES)):
            row = next(one for one in rows if (one["judge"], one["term"]) == (judge, term))
            low, mid, high = (factor * row[key] for key in ("conf_low", "estimate", "conf_high"))
            away = none is not None and not low <= none <= high
            colour = COLOURS["found"] if away else COLOURS["arm0"]
            axis.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="round")
            axis.plot([mid], [place], "o", color=colour, markersize=6)
            if term == "length_log_odds":
                axis.plot([truth.get(judge, 0.0)], [place], "|", color=COLOURS["ink"], markersize=15)
        axis.set_title(title, loc="left")
        axis.set_xlim(limits)
        axis.set_ylim(-0.6, len(JUDGES) - 0.4)
        axis.grid(axis="x", color=COLOURS["grid"])
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(JUDGES)), [f"The judge {judge}" for judge in reversed(JUDGES)])
    axes[3].set_xlabel("upright line: the planted truth")
    return figure


def _drift(rows: Rows) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True, layout="constrained")
    for arm, colour, marker in (("judge", "arm0", "o"), ("random", "random", "X")):
        some = [row for row in rows if (row["term"], row["arm"]) == ("drift_length", arm)]
        _line(left, some, COLOURS[colour], marker, f"arm {arm}")
    left.set_title("Drift of length since generation 0 (doublings)", loc="left")
    _line(right, [row for row in rows if row["term"] == "did_length"], COLOURS["found"], "D", "judge less random")
    right.set_title("What the judge caused: the difference", loc="left")
    for axis in (left, right):
        _over_generations(axis)
    return figure


def _amplification(rows: Rows) -> Figure:
    figure, axis = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for name, (token, theory) in LOOPS.items():
        colour = COLOURS[token.removeprefix("@")]
        some = [row for row in rows if (row["loop"], row["term"]) == (name, "did_length")]
        _line(axis, some, colour, "o", "", dashes="none")
        steps = range(len(some) + 1)
        axis.plot(steps, [theory(t) for t in steps], color=colour, linewidth=1.2, linestyle="dashed")
        axis.annotate(name, (len(some), some[-1]["estimate"]), (8, -3), textcoords="offset points", color=colour)
    axis.set_title("Drift of length beyond the random control (doublings)", loc="left")
    _over_generations(axis, legend=False)
    axis.set_xlim(-0.1, 7.4)
    axis.set_xticks(range(7))
    axis.set_xlabel("generation · points: measured, 8 replicates · dashed: theory")
    return figure


# Arm → (colour, marker, name).
STRATEGIES = {
    "replace": ("random", "X", "replace, coin"), "accumulate": ("arm0", "o", "accumulate, coin"),
    "half_real": ("arm2", "s", "half real, coin"), "plain": ("found", "D", "replace, taste for plain"),
    "plain_accumulate": ("arm3", "^", "accumulate, taste for plain"),
}  # fmt: skip
THOUSANDTH = {
    "replace": ("found", "D", "all synthetic"), "one_in_a_thousand": ("arm0", "o", "1 in 1,000"),
    "real_only": ("random", "X", "none"),
}  # fmt: skip
CONTAMINATION = {
    "judge": ("found", "D", "arm judge"), "coin": ("random", "X", "arm coin"), "gold": ("arm0", "o", "arm gold"),
}  # fmt: skip


def _strategies(rows: Rows) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained")
    panels = (
        ("drift_vendi", "Different texts an item\n(change, effective number)", ("replace", "accumulate", "half_real")),
        ("drift_tail_mass_retained", "Mass in rare kinds of text\n(change, share of generation 0's)", ("replace", "plain", "plain_accumulate")),
        ("drift_length", "Mean length (change, doublings;\n0.5 is one SD of generation 0)", tuple(STRATEGIES)),
    )  # fmt: skip
    for axis, (term, title, arms) in zip(axes, panels, strict=True):
        _arms(axis, rows, term, title, {arm: STRATEGIES[arm] for arm in arms})
        _over_generations(axis, legend=False)
    axes[2].set_ylim(-0.5, 0.5)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def _one_in_a_thousand(rows: Rows) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    _arms(left, rows, "drift_length", "The loop: drift of mean length (doublings), by synthetic share", THOUSANDTH)
    _over_generations(left)
    errors = [row for row in rows if row["term"] == "error_over_floor"]
    sizes = [row["rows"] for row in errors]
    right.axhline(1, color=COLOURS["zero"], linewidth=1)
    right.vlines(sizes, *([row[key] for row in errors] for key in ("conf_low", "conf_high")), color=COLOURS["arm0"])
    right.plot(sizes, [row["estimate"] for row in errors], "o", color=COLOURS["arm0"], markersize=5, label="1 in 1,000")
    right.plot(sizes, [row["theory"] for row in errors], color=COLOURS["arm0"], linewidth=1.2, linestyle="dashed")
    right.plot(sizes, [row["without"] for row in errors], "X", color=COLOURS["random"], linestyle="dashed", linewidth=1.2, label="none")  # fmt: skip
    right.set_title("A regression (row B3): error over its floor, by rows", loc="left")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xticks(sizes, [f"{size:,}" for size in sizes])
    right.minorticks_off()
    right.set_xlabel("rows that it learns from · dashed: theory")
    right.legend(loc="lower left", frameon=False)
    return figure


def _contamination(rows: Rows) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    _arms(
        left,
        rows,
        "proxy_gain",
        "The judge's own score (change, SD, beyond the coin)",
        {"judge": CONTAMINATION["judge"]},
    )
    _arms(right, rows, "drift_correct", "Share of right texts (change)", CONTAMINATION)
    for axis in (left, right):
        _over_generations(axis)
    return figure


def _arms(axis: Axes, rows: Rows, term: str, title: str, arms: Mapping[str, tuple[str, str, str]]) -> None:
    for arm, (colour, marker, label) in arms.items():
        some = [row for row in rows if row["term"] == term and row["arm"] == arm]
        _line(axis, some, COLOURS[colour], marker, label)
    axis.set_title(title, loc="left")


def _line(
    axis: Axes, rows: Rows, colour: str, marker: str, label: str, dashes: str = "solid", aside: float = 0.0
) -> None:
    """A series over generations, ``aside`` of them; a change since generation 0 begins at 0."""
    first = [] if rows[0]["generation"] == 0 else [0.0]
    steps = [step + aside for step in [*map(int, first), *(row["generation"] for row in rows)]]
    mid, low, high = ([*first, *(row[key] for row in rows)] for key in ("estimate", "conf_low", "conf_high"))
    axis.vlines(steps, low, high, color=colour, linewidth=1.8)
    axis.plot(
        steps, mid, color=colour, marker=marker, markersize=5, linewidth=1.6, linestyle=dashes, label=label or None
    )


def _over_generations(axis: Axes, legend: bool = True) -> None:
    axis.axhline(0, color=COLOURS["zero"], linewidth=1)
    axis.grid(axis="y", color=COLOURS["grid"])
    axis.set_axisbelow(True)
    axis.set_xlabel("generation")
    axis.xaxis.get_major_locator().set_params(integer=True)
    if legend:
        axis.legend(loc="upper left", frameon=False)
