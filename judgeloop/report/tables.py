"""What was run, and the two tables that everybody looks at first: drift by arm and generation, and the judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from judgeloop.report import wording
from judgeloop.report.findings import judge_rows
from judgeloop.report.reading import Reading, select
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge.content import GIVEN as GIVEN_GOLD

DRIFT, BEYOND = "Drift since generation 0", "Drift beyond control"


@dataclass(frozen=True, slots=True)
class Table:
    """A table in words, which page, Markdown and terminal all show: cells are formatted already, and not escaped."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    whole: bool = False
    """Every row belongs on the one screen, however many there are."""

    def without(self, *names: str) -> Table:
        """The table without those columns."""
        return self._of([n for n, column in enumerate(self.columns) if column not in names])

    def filled(self) -> Table:
        """The table without the columns that have no value in any row: they take room and say nothing."""
        return self._of([n for n in range(len(self.columns)) if any(row[n] not in ("", "–") for row in self.rows)])

    def _of(self, places: Sequence[int]) -> Table:
        columns, *rows = (tuple(cells[n] for n in places) for cells in (self.columns, *self.rows))
        return replace(self, columns=columns, rows=tuple(rows))

    @property
    def note(self) -> str:
        """What explains a mark in the cells; empty where none is marked."""
        marks = {wording.UNDERPOWERED: wording.UNDERPOWERED_NOTE, wording.ONE_GOLD: wording.ONE_GOLD_NOTE}
        cells = [cell for row in self.rows for cell in row]
        return " ".join(note for mark, note in marks.items() if any(mark in cell for cell in cells))


def facts(reading: Reading) -> list[tuple[str, str]]:
    """What was run: (label, value) pairs. Counts come from the tables; calls from the environment where it says."""
    found = [("Run", reading.name)]
    if reading.arms:
        found.append(
            (
                "Arms",
                ", ".join(
                    arm + (f" ({kind} control)" if kind not in ("control", arm) else " (control)")
                    if (kind := reading.controls.get(arm))
                    else arm
                    for arm in reading.arms
                ),
            )
        )
    replicates = reading.candidates["replicate"].nunique() if "replicate" in reading.candidates else 0
    if replicates:
        found.append(("Replicates", f"{replicates}"))
    if reading.generations:
        found.append(("Generations", f"0 to {reading.generations[-1]}"))
    if len(reading.items):
        found.append(("Items", f"{len(reading.items):,}"))
    calls = reading.environment.get("calls")
    if isinstance(calls, int):
        cost = reading.environment.get("cost_usd")
        said = f" ({cost:,.2f} USD)" if isinstance(cost, float) and cost > 0 else ""
        if calls and cost is None and "cost_usd" in reading.environment:
            said = " (cost not known: no price was stated)"
        found.append(("Model calls", f"{calls:,}{said}"))
    if len(reading.judgments):
        unscored = int((reading.judgments["verdict"] == "unscored").sum())
        total = len(reading.judgments)
        found += [("Judgments", f"{total:,}"), ("Unscored", f"{unscored:,} ({100 * unscored / total:.1f} %)")]
    return found


def unscored_reasons(reading: Reading) -> Table | None:
    """Why judgments are unscored, the most frequent first; None where all are scored."""
    if not len(reading.judgments):
        return None
    lost = reading.judgments[reading.judgments["verdict"] == "unscored"]
    if not len(lost):
        return None
    counts = Counter(zip(lost["judge"].tolist(), lost["reason"].tolist(), strict=True)).most_common(12)
    rows = tuple(
        (wording.label(str(judge)), wording.label(str(reason), 90) or "–", f"{n:,}") for (judge, reason), n in counts
    )
    return Table(
        "Unscored judgments",
        "A reply without a readable verdict is counted, never guessed.",
        ("Judge", "Reason", "Judgments"),
        rows,
    )


def drift_table(reading: Reading) -> Table | None:
    """Change since generation 0 a row an arm and generation."""
    terms = (("drift_length", "Length"), ("drift_style_score", "Style score"), ("drift_mattr", "Vocabulary (MATTR)"))
    rows = _by_generation(reading, [term for term, _ in terms], contrasted=False)
    if not rows:
        return None
    return Table(
        DRIFT,
        "Mean over replicates with its interval in brackets. Length in doublings, style score in generation-0 standard "
        "deviations, vocabulary in types per token (less is less varied).",
        ("Arm", "Generation", *(name for _, name in terms)),
        rows,
    )


def contrast_table(reading: Reading) -> Table | None:
    """Drift beyond the control arm, a row a contrast and generation."""
    terms = (("did_length", "Length"), ("did_style_score", "Style score"), ("did_mattr", "Vocabulary (MATTR)"))
    rows = _by_generation(reading, [term for term, _ in terms], contrasted=True)
    if not rows:
        return None
    return Table(
        BEYOND,
        "An arm's drift minus its control's, paired within replicates. 0 is what feedback without this judge would give.",
        ("Arm", "Control", "Generation", *(name for _, name in terms)),
        rows,
    )


def judge_table(reading: Reading) -> Table | None:
    """The judge on the panel that speaks for it: position, length, agreement."""
    terms = (
        "first_slot_excess",
        "conflict_rate",
        "padding_probe",
        "length_ame",
        "longer_preferred_raw",
        "gold_agreement",
    )
    some = [(term, _or_given(reading, row)) for term in terms for row in judge_rows(reading.estimates, term)]
    judges = list(dict.fromkeys(row.judge for _, row in some))
    several = len(judges) > 1
    rows = []
    for term, row in some:
        unit = wording.unit_name(row) if row.status != "undefined" else "–"
        rows.append(
            (
                *([wording.label(row.judge)] if several else []),
                wording.term_name(term),
                wording.cell(row) + (wording.ONE_GOLD if row.variant == GIVEN_GOLD else ""),
                unit,
                _where(row),
                f"{row.n:,}",
                f"{row.n_unscored:,}",
            )
        )
    if not rows:
        return None
    return Table(
        "Bias and agreement",
        f"{'Levels' if several else f'Levels of {wording.label(judges[0])}'} with their intervals. Rates are in percentage points.",
        (*(["Judge"] if several else []), "Measure", "Estimate", "Unit", "Panel", "n", "Unscored"),
        tuple(rows),
    )


def _or_given(reading: Reading, row: Estimate) -> Estimate:
    """The row, or where one gold leaves it undefined its number with that gold taken as exact, which claims nothing."""
    given = [one for one in judge_rows(reading.estimates, row.term, GIVEN_GOLD) if one.judge == row.judge]
    return given[0] if row.status == "undefined" and given and given[0].status != "undefined" else row


def amplification_table(reading: Reading) -> Table | None:
    """Transmission, cumulative gain, compounding index and observed over static drift, a row a contrast and feature."""
    prefixes = ("transmission_", "cumulative_gain_", "compounding_", "observed_over_static_")
    found: dict[tuple[str, str, str], dict[str, Estimate]] = {}
    for row in reading.estimates:
        prefix = next((p for p in prefixes if row.term.startswith(p)), None)
        if prefix and row.variant == "" and row.category == "":
            found.setdefault((row.arm, row.contrast, row.term.removeprefix(prefix)), {})[prefix] = row
    rows = [
        (
            wording.label(arm),
            wording.label(contrast) or "–",
            wording.feature_name(feature),
            *(wording.cell(cells.get(p)) or "–" for p in prefixes),
        )
        for (arm, contrast, feature), cells in found.items()
        if feature == "length" or any(row.status != "undefined" for row in cells.values())
    ]
    if not rows:
        return None
    return Table(
        "Amplification",
        "Transmission: the signal's slope over the judge's. Cumulative gain: total drift over the first loop's. Compounding "
        "index: that gain per loop, 1 is steady. Observed over static: drift over what generation 0's selection alone predicts. "
        "Features of which nothing can be told are left out here but for length; estimates.csv says why.",
        ("Arm", "Control", "Feature", "Transmission", "Cumulative gain", "Compounding index", "Observed over static"),
        tuple(rows),
    )


def _by_generation(reading: Reading, terms: Sequence[str], *, contrasted: bool) -> tuple[tuple[str, ...], ...]:
    cells: dict[tuple[str, str, int], dict[str, Estimate]] = {}
    for row in select(reading.estimates, term=tuple(terms), variant="", category=""):
        if row.generation is not None and bool(row.contrast) == contrasted and row.arm:
            cells.setdefault((row.arm, row.contrast, row.generation), {})[row.term] = row
    order: Mapping[str, int] = {arm: place for place, arm in enumerate(reading.arms)}
    keys = sorted(cells, key=lambda key: (order.get(key[0], 99), order.get(key[1], 99), key[2]))
    return tuple(
        (
            wording.label(arm, 24),
            *([wording.label(contrast, 24)] if contrasted else []),
            str(generation),
            *(wording.cell(cells[arm, contrast, generation].get(term)) or "–" for term in terms),
        )
        for arm, contrast, generation in keys
    )


def _where(row: Estimate) -> str:
    generation = f", generation {row.generation}" if row.generation is not None else ""
    return (row.panel or "–") + generation
