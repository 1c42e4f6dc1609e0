"""The pictures of the first screen: a judge's biases as dots with intervals, and the drift of length beyond control by
generation and arm. A page shows them as shapes that need no script, a terminal as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from judgeloop.report import wording
from judgeloop.report.claims import Finding, Standing, harm
from judgeloop.report.figure import (
    Figure,
    Label,
    Sketch,
    Stroke,
    Style,
    arm_legend,
    asides,
    bounds,
    in_words,
    mark_legend,
    scaled,
    styles,
    within,
)
from judgeloop.report.findings import judge_rows
from judgeloop.report.rated_figures import histogram
from judgeloop.report.reading import POSITIVE, Reading, select
from judgeloop.stats.estimate import RATE_MARGIN, Estimate
from judgeloop.text.templates import parse_scale

TONES: dict[Standing, str] = {"found": "found", "unconfirmed": "open", "unclear": "open", "equivalent": "calm"}
"""The colour of a mark by the standing of its finding; any other is plain."""
_OF_JUDGE = ("position", "content", "self_preference")
_MOST_DOTS = 7
_MOST_ARMS = 6
_WIDTH, _NAMES, _VALUES, _AXIS = 560, 176, 62, 44
"""Width of a picture; of it the columns of names and of values; height of the axis."""
_ROWS, _ROW = (34.0, 54.0), 204.0
"""Least and greatest height of a row of dots, and what the rows share."""
_HEIGHT, _LEFT = 252, 46
_NAME_LINE = 24


@dataclass(frozen=True, slots=True)
class Dot:
    """An estimate as a mark with its interval, in axis units; ``value`` is the estimate in words ("+44")."""

    name: str
    row: Estimate
    standing: Standing
    value: str

    @property
    def place(self) -> float:
        """Where the mark stands."""
        return within(self.row, self.row.estimate) or 0.0

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval's limits, cut where the measure ends; None where it has none."""
        low, high = within(self.row, self.row.conf_low), within(self.row, self.row.conf_high)
        return None if low is None or high is None else (low, high)

    @property
    def tone(self) -> str:
        """found, open, calm or plain."""
        return TONES.get(self.standing, "plain")


@dataclass(frozen=True, slots=True)
class Dots:
    """Estimates on one axis and in one unit. ``margin``: of equivalence, in axis units; None where rows have none in common."""

    title: str
    unit: str
    dots: tuple[Dot, ...]
    margin: float | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """(least, most) of the axis: 0, every mark and, if they are drawn, the margin."""
        drawn = [0.0, *(value for dot in self.dots for value in (dot.place, *(dot.ends or ())))]
        drawn += [-1.4 * self.margin, 1.4 * self.margin] if self.margin else []
        room = 0.04 * (max(drawn) - min(drawn)) or 1.0
        return min(drawn) - room, max(drawn) + room


def biases(every: Sequence[Finding]) -> Dots | None:
    """What the judges are found or not found to favour, in points from even: a dot a finding that is a rate, position first, then the
    most harmful. None where nothing of the kind was measured."""
    on_judges = [
        finding
        for finding in every
        if finding.question in _OF_JUDGE
        and finding.verdict not in ("described", "undefined")
        and wording.is_rate(finding.row)
        and finding.row.estimate is not None
    ]
    on_judges.sort(key=_by_weight)
    several = len({finding.row.judge for finding in on_judges}) > 1
    dots = []
    for finding in on_judges[:_MOST_DOTS]:
        name = wording.bias_name(finding.row) + (f", {wording.label(finding.row.judge, 22)}" if several else "")
        dots.append(Dot(name, finding.row, finding.verdict, wording.signed_points(finding.row)))
    if not dots:
        return None
    left_out = len(on_judges) - len(dots)
    title = "What sways the judge" + (f" ({left_out} more below)" if left_out else "")
    of_lists = all(dot.row.term.startswith("slot_") for dot in dots)
    return Dots(title, "points from an equal share" if of_lists else "points from even", tuple(dots), 100 * RATE_MARGIN)


def _by_weight(finding: Finding) -> tuple[bool, bool, tuple[int, float]]:
    row = finding.row
    return row.term != "first_slot_excess", finding.question != "position", harm(row, finding.verdict)


def drifts(reading: Reading) -> tuple[str, dict[str, list[Estimate]]]:
    """(control, arm → its drift of length beyond it by generation). The control is the first that arms are contrasted with; without
    one it is empty, and the drift is that since generation 0."""
    rows = [row for row in select(reading.estimates, term="did_length", variant="", category="") if row.contrast]
    control = rows[0].contrast if rows else ""
    if not rows:
        rows = [row for row in select(reading.estimates, term="drift_length", variant="", category="") if row.arm]
    rows = [row for row in rows if row.contrast == control and row.estimate is not None and row.generation is not None]
    arms = [arm for arm in reading.arms if any(row.arm == arm for row in rows)][:_MOST_ARMS]
    return control, {arm: sorted(select(rows, arm=arm), key=lambda row: row.generation or 0) for arm in arms}


def figures(reading: Reading, findings: Sequence[Finding]) -> list[Figure]:
    """The pictures of the first screen: biases on the left, drift on the right; one or none where the other was not measured."""
    drawn = biases(findings)
    made = [_dot_figure(drawn)] if drawn else []
    control, by_arm = drifts(reading)
    if by_arm:
        made.append(_drift_figure(reading, control, by_arm))
    elif (scores := _score_figure(reading)) is not None:
        made.append(scores)
    return made


def _score_figure(reading: Reading) -> Figure | None:
    """How often each score was given by the first judge on its first scale; None where nothing was scored."""
    scores = reading.scores
    scores = scores[scores["score"].notna()] if "score" in scores else scores
    if scores.empty:
        return None
    judge, name = str(scores["judge"].iloc[0]), str(scores["scale"].iloc[0])
    given = scores.loc[(scores["judge"] == judge) & (scores["scale"] == name), "score"]
    scale = parse_scale(name)
    places, shares = histogram(given, scale.low, scale.high)
    rows = tuple(row for row in judge_rows(reading.estimates, "score_mean") if row.judge == judge)
    most = "; ".join(f"{place:g}: {share:.0f} %" for place, share in zip(places, shares, strict=True))
    return Figure(
        name="first-scores", title=f"Scores of {wording.label(judge, 30)} on scale {wording.label(name, 20)}, in % of {len(given):,}",
        caption=f"{scale.best} is best; more on scores below.", alternative=f"{most}.", panels=(), rows=rows,
        legend=(("an end of the scale", Style("@high", "bar", "")), ("between", Style("@low", "bar", ""))),
        sketch=_bars(places, shares, (scale.low, scale.high)),
    )  # fmt: skip


def _bars(places: Sequence[float], shares: Sequence[float], ends: tuple[float, float]) -> Sketch:
    """A bar a score, as high as its share in %."""
    bottom, right, high = _HEIGHT - _AXIS, _WIDTH - 14, 1.08 * max(shares)
    each = (right - _LEFT) / len(places)
    strokes, labels = [], []
    for tick in ticks(0.0, high, 4):
        y = bottom - tick / high * (bottom - 6)
        strokes.append(Stroke(f"M{_LEFT} {y:.1f}H{right}", "zero" if tick == 0 else "grid", "line"))
        labels.append(Label(_LEFT - 8, y + 4.5, wording.tick(tick), "end", "muted"))
    for n, (place, share) in enumerate(zip(places, shares, strict=True)):
        x, y = _LEFT + each * (n + 0.12), bottom - share / high * (bottom - 6)
        colour = "high" if place in ends else "low"
        strokes.append(
            Stroke(f"M{x:.1f} {bottom}V{y:.1f}h{0.76 * each:.1f}V{bottom}Z", colour, "bar", f"{place:g}: {share:.1f} %")
        )
        labels.append(Label(_LEFT + each * (n + 0.5), bottom + 18, f"{place:g}", "middle", "muted"))
    labels.append(Label((_LEFT + right) / 2, bottom + 36, "score", "middle", "muted"))
    return Sketch(_WIDTH, _HEIGHT, tuple(strokes), tuple(labels))


def edge_of(values: Sequence[float], rows: Sequence[Estimate]) -> float:
    """A round value beyond all of these, but no further than what bounds every one of the rows."""
    # What rounding leaves of 0 is 0.
    largest = max((abs(value) for value in values if abs(value) > 1e-9), default=1.0)
    step = ticks(0.0, 2 * largest)[1]
    ends = [bounds(row)[1] for row in rows]
    known = [end for end in ends if end is not None]
    most = max(known) if known and len(known) == len(ends) else math.inf
    return min(step * math.ceil(largest / step), most)


def _dot_figure(drawn: Dots) -> Figure:
    rows = tuple(dot.row for dot in drawn.dots)
    band = f" Band: ±{drawn.margin:g} points, the margin of equivalence." if drawn.margin else ""
    return Figure(
        name="first-biases", title=drawn.title, caption=f"Lines are intervals.{band}", alternative=in_words(rows), panels=(), rows=rows,
        legend=mark_legend([dot.standing for dot in drawn.dots]), sketch=_dots(drawn),
    )  # fmt: skip


def _drift_figure(reading: Reading, control: str, by_arm: dict[str, list[Estimate]]) -> Figure:
    looks = styles(reading.arms, reading.controls)
    rows = tuple(row for own in by_arm.values() for row in own)
    beside = {"random": "a coin", "gold": "gold"}.get(reading.controls.get(control, ""), wording.label(control, 24))
    what = f"Drift of length {f'beyond {beside}' if control else 'since generation 0'}, in {wording.unit_name(rows[0]) or rows[0].unit}"
    zero = (
        f" 0 is the control, {wording.label(control, 24)}." if control else " Without a control its cause is not known."
    )
    positive = [arm for arm in by_arm if reading.controls.get(arm) == POSITIVE]
    known = " The positive control shows what this run could see." if positive and len(by_arm) > 1 else ""
    return Figure(
        name="first-drift", title=what, caption=f"Lines are intervals over {'replicates' if rows[0].n_replicates else 'items'}.{zero}{known}",
        alternative="; ".join(
            f"{wording.label(row.arm)}, generation {row.generation}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}" for row in rows
        ) + ".",
        panels=(), rows=rows, legend=arm_legend(by_arm, looks), sketch=_curves(by_arm, looks),
    )  # fmt: skip


# Shapes


def _dots(drawn: Dots) -> Sketch:
    low, high = drawn.limits
    right = _WIDTH - _VALUES
    each = max(_ROWS[0], min(_ROWS[1], _ROW / len(drawn.dots)))
    bottom = each * len(drawn.dots) + 4

    def x(value: float) -> float:
        return _NAMES + (value - low) / (high - low) * (right - _NAMES)

    strokes, labels = [], []
    if drawn.margin:
        left_edge, right_edge = x(-drawn.margin), x(drawn.margin)
        strokes.append(Stroke(f"M{left_edge:.1f} 0H{right_edge:.1f}V{bottom}H{left_edge:.1f}Z", "band", "band"))
    for tick in ticks(low, high):
        strokes.append(Stroke(f"M{x(tick):.1f} 0V{bottom}", "zero" if tick == 0 else "grid", "line"))
        labels.append(Label(x(tick), bottom + 16, wording.tick(tick, sign=True), "middle", "muted"))
    labels.append(Label((x(low) + x(high)) / 2, bottom + 34, drawn.unit, "middle", "muted"))
    for place, dot in enumerate(drawn.dots):
        y = each * place + each / 2 + 2
        names = lines_of(dot.name)
        for line, words in enumerate(names):
            labels.append(Label(0, y + 4.5 + 15 * (line - (len(names) - 1) / 2), words, "start", "ink"))
        if dot.ends:
            strokes.append(Stroke(f"M{x(dot.ends[0]):.1f} {y:.1f}H{x(dot.ends[1]):.1f}", dot.tone, "interval"))
        strokes.append(
            Stroke(
                mark("circle", x(dot.place), y, 6.5),
                dot.tone,
                "mark" if dot.standing == "found" else "hollow",
                _said(dot),
            )
        )
        labels.append(Label(_WIDTH, y + 4.5, dot.value, "end", dot.tone))
    return Sketch(_WIDTH, bottom + _AXIS, tuple(strokes), tuple(labels))


def _said(dot: Dot) -> str:
    return f"{dot.name}: {wording.quantity(dot.row, dot.row.estimate)}, {wording.interval(dot.row)}"


def _curves(by_arm: dict[str, list[Estimate]], looks: dict[str, Style]) -> Sketch:
    rows = [row for own in by_arm.values() for row in own]
    last = max(row.generation or 0 for row in rows)
    values = [0.0, *(value for row in rows for end in (row.estimate, row.conf_low, row.conf_high) if (value := scaled(row, end)) is not None)]  # fmt: skip
    room = 0.06 * (max(values) - min(values)) or 0.1
    low, high = min(values) - room, max(values) + room
    bottom, right = _HEIGHT - _AXIS, _WIDTH - 14

    def x(generation: float) -> float:
        return _LEFT + (generation + 0.12) / (last + 0.36) * (right - _LEFT)

    def y(value: float) -> float:
        return 6 + (high - value) / (high - low) * (bottom - 6)

    strokes, labels = [], []
    for tick in ticks(low, high):
        strokes.append(Stroke(f"M{_LEFT} {y(tick):.1f}H{right}", "zero" if tick == 0 else "grid", "line"))
        labels.append(Label(_LEFT - 8, y(tick) + 4.5, wording.tick(tick), "end", "muted"))
    step = 1 + last // 12
    labels += [Label(x(generation), bottom + 18, f"{generation}", "middle", "muted") for generation in range(0, last + 1, step)]  # fmt: skip
    labels.append(Label((_LEFT + right) / 2, bottom + 36, "generation", "middle", "muted"))
    for (arm, own), aside in zip(by_arm.items(), asides(len(by_arm)), strict=True):
        look = looks[arm]
        colour = look.colour.removeprefix("@")
        places = [(x((row.generation or 0) + 0.8 * aside), y(scaled(row, row.estimate) or 0.0)) for row in own]
        path = [] if own[0].generation == 0 else [(x(0), y(0.0))]
        line = "L".join(f"{a:.1f} {b:.1f}" for a, b in [*path, *places])
        strokes.append(Stroke(f"M{line}", colour, "dashed" if look.dash != "solid" else "curve"))
        for row, (a, b) in zip(own, places, strict=True):
            if row.conf_low is not None and row.conf_high is not None:
                top, foot = y(scaled(row, row.conf_high) or 0.0), y(scaled(row, row.conf_low) or 0.0)
                whisker = f"M{a:.1f} {top:.1f}V{foot:.1f}M{a - 4:.1f} {top:.1f}h8M{a - 4:.1f} {foot:.1f}h8"
                strokes.append(Stroke(whisker, colour, "whisker"))
            words = f"{wording.label(arm)}, generation {row.generation}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
            kind = "hollow" if look.marker.endswith("-open") else "mark"
            strokes.append(Stroke(mark(look.marker, a, b, 6.0), colour, kind, words))
    return Sketch(_WIDTH, _HEIGHT, tuple(strokes), tuple(labels))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values within the limits, 0 among them where they hold it; at most ``most`` and one."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(step * n, 10) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def lines_of(name: str) -> list[str]:
    """A name on at most two lines."""
    if len(name) <= _NAME_LINE:
        return [name]
    cut = name.rfind(" ", 0, _NAME_LINE + 1)
    cut = cut if cut > 0 else _NAME_LINE
    return [name[:cut], wording.label(name[cut:].strip(), _NAME_LINE)]


def mark(shape: str, x: float, y: float, size: float) -> str:
    """The path of a marker around a point; ``shape`` as Plotly names it."""
    corners = {
        "square": (4, 45.0),
        "diamond": (4, 0.0),
        "triangle-up": (3, -90.0),
        "hexagon": (6, 0.0),
        "star": (5, -90.0),
    }
    name = shape.removesuffix("-open")
    if name == "x-thin":
        s = 0.75 * size
        return f"M{x - s:.1f} {y - s:.1f}l{2 * s:.1f} {2 * s:.1f}m0 {-2 * s:.1f}l{-2 * s:.1f} {2 * s:.1f}"
    if name == "cross-thin":
        return f"M{x:.1f} {y - size:.1f}v{2 * size:.1f}M{x - size:.1f} {y:.1f}h{2 * size:.1f}"
    if name not in corners:
        return f"M{x - size:.1f} {y:.1f}a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0Z"
    number, start = corners[name]
    steps = 2 * number if name == "star" else number
    points = []
    for n in range(steps):
        reach = 0.5 * size if name == "star" and n % 2 else 1.15 * size
        angle = math.radians(start + 360 * n / steps)
        points.append(f"{x + reach * math.cos(angle):.1f} {y + reach * math.sin(angle):.1f}")
    return f"M{'L'.join(points)}Z"
