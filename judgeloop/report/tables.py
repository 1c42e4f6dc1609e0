"""Facts and tables of a report, their cells in words: the run, its drift, its judges, scores and lists, and its methods."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from judgeloop.experiment.options import remedy
from judgeloop.report import wording
from judgeloop.report.findings import judge_rows
from judgeloop.report.reading import POSITIVE, Reading, length_outcome, sampled, select
from judgeloop.stats.compare.differences import JUDGE_DIFFERENCE
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge.content import GIVEN_GOLD
from judgeloop.text.features import FEATURES

DRIFT, BEYOND = "Drift since generation 0", "Drift beyond control"
_MOST_REASONS = 12


@dataclass(frozen=True, slots=True)
class Table:
    """A table as page, Markdown and terminal show it: cells are formatted, and not escaped."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    whole: bool = False
    """The one screen shows every row, however many there are."""
    needed: bool = False
    """The one screen shows it, if in few rows, however little room there is."""

    def without(self, *names: str) -> Table:
        """The table without those columns."""
        return self._of([n for n, column in enumerate(self.columns) if column not in names])

    def filled(self) -> Table:
        """The table without the columns that have no value in any row."""
        return self._of([n for n in range(len(self.columns)) if any(row[n] not in ("", "–") for row in self.rows)])

    def _of(self, places: Sequence[int]) -> Table:
        columns, *rows = (tuple(cells[n] for n in places) for cells in (self.columns, *self.rows))
        return replace(self, columns=columns, rows=tuple(rows))

    @property
    def note(self) -> str:
        """The explanation of the marks (†, ‡) in the cells; empty where there is none."""
        marks = {wording.UNDERPOWERED: wording.UNDERPOWERED_NOTE, wording.ONE_GOLD: wording.ONE_GOLD_NOTE}
        cells = [cell for row in self.rows for cell in row]
        return " ".join(note for mark, note in marks.items() if any(mark in cell for cell in cells))


def facts(reading: Reading) -> list[tuple[str, str]]:
    """What was run: (label, value). Counts come from the tables; calls from the environment, if it states them."""
    rows = [("Run", reading.name)]
    if reading.arms:
        rows.append(("Arms", ", ".join(_arm_and_control(reading, arm) for arm in reading.arms)))
    replicates = reading.candidates["replicate"].nunique() if "replicate" in reading.candidates else 0
    if replicates:
        rows.append(("Replicates", f"{replicates}"))
    if reading.generations:
        rows.append(("Generations", f"0 to {reading.generations[-1]}"))
    if len(reading.items):
        rows.append(("Items", f"{len(reading.items):,}"))
    calls = reading.environment.get("calls")
    if isinstance(calls, int):
        spent = ""
        if calls and "cost_usd" in reading.environment:
            spent = wording.cost(reading.environment["cost_usd"], reading.environment.get("unpriced") or ())
        rows.append(("Model calls", f"{calls:,}{f' ({spent})' if spent else ''}"))
    drafts, without_text = reading.drafts()
    if drafts:
        rows.append(("Drafts", f"{drafts:,}"))
        if without_text:
            lost, listed = sum(without_text.values()), ", ".join(f"{why} {n:,}" for why, n in without_text.items())
            rows.append(("Drafts without text", f"{lost:,} ({100 * lost / drafts:.1f} %: {listed})"))
    if len(reading.judgments):
        unscored = int((reading.judgments["verdict"] == "unscored").sum())
        total = len(reading.judgments)
        rows += [("Judgments", f"{total:,}"), ("Unscored", f"{unscored:,} ({100 * unscored / total:.1f} %)")]
        equal, pairs = reading.equal_pairs()
        if equal:
            rows.append(("Pairs of equal texts", f"{equal:,} of {pairs:,}, which prefer neither"))
    return rows


def _arm_and_control(reading: Reading, arm: str) -> str:
    kind = reading.controls.get(arm)
    if kind is None:
        return arm
    return f"{arm} (control)" if kind in ("control", arm) else f"{arm} ({kind} control)"


# Drift: what became of the outputs.


def drift_table(reading: Reading) -> Table | None:
    """Change since generation 0, a row an arm and generation."""
    terms = (("drift_length", "Length"), ("drift_style_score", "Style score"), ("drift_mattr", "Vocabulary (MATTR)"))
    rows = _by_generation(reading, [term for term, _ in terms], contrasted=False)
    if not rows:
        return None
    return Table(
        DRIFT,
        f"Mean over {sampled(reading)} with its interval in brackets. Length in doublings, style score in generation-0 standard "
        "deviations, vocabulary in types per token (lower is less varied).",
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
        "An arm's drift minus its control's, paired within replicates: 0 where the judge makes no difference.",
        ("Arm", "Control", "Generation", *(name for _, name in terms)),
        rows,
    )


def amplification_table(reading: Reading) -> Table | None:
    """Transmission, and whether drift compounds in differences and ratios, a row a contrast and feature."""
    prefixes = (
        "transmission_", "beyond_first_step_", "beyond_strategy_", "cumulative_gain_", "compounding_", "observed_over_static_",
    )  # fmt: skip
    cells: dict[tuple[str, str, str], dict[str, Estimate]] = {}
    for row in reading.estimates:
        prefix = next((p for p in prefixes if row.term.startswith(p)), None)
        if prefix and row.variant == "" and row.category == "":
            cells.setdefault((row.arm, row.contrast, row.term.removeprefix(prefix)), {})[prefix] = row
    rows = [
        (
            wording.label(arm),
            wording.label(contrast) or "–",
            wording.feature_name(feature),
            *(wording.cell(measures.get(p)) or "–" for p in prefixes),
        )
        for (arm, contrast, feature), measures in cells.items()
        if feature == "length" or any(row.status != "undefined" for row in measures.values())
    ]
    if not rows:
        return None
    return Table(
        "Amplification",
        "Transmission: the learned signal's slope over the judge's. Beyond equal steps: total drift less as many "
        "first loops. Beyond a constant taste: total drift less what this strategy makes of one. Cumulative gain: total drift over the first loop's. "
        "Compounding index: that gain per loop, 1 is steady. Observed over static: drift over what generation 0's selection "
        "alone predicts. But for length, features without any defined value are left out; estimates.csv has the reasons.",
        (
            "Arm",
            "Control",
            "Feature",
            "Transmission",
            "Later loops beyond the first",
            "Beyond a constant taste",
            "Cumulative gain",
            "Compounding index",
            "Observed over static",
        ),
        tuple(rows),
    )


def forecast_table(reading: Reading) -> Table | None:
    """What generation 0 let expect of length, and what came, a row an arm and generation."""
    rows = []
    for arm in reading.arms:
        for came in length_outcome(reading, arm):
            of_generation = select(reading.estimates, arm=arm, generation=came.generation)
            forecast = {row.variant: row for row in select(of_generation, term="forecast_drift_length")}
            response = select(of_generation, term="response_length", contrast=came.contrast)
            if "" in forecast:
                rows.append((
                    wording.label(arm, 24), str(came.generation), wording.cell(forecast[""]),
                    wording.cell(forecast.get("first_step")) or "–", wording.cell(came), wording.label(came.contrast, 24) or "–",
                    wording.cell(response[0] if response else None) or "–",
                ))  # fmt: skip
    if not rows:
        return None
    return Table(
        "Forecast and outcome",
        "Length in doublings; in brackets what came has its interval, a forecast its prediction limits. Repeated: each step like the first that was measured. "
        "Response: that step over what was selected.",
        ("Arm", "Generation", "Forecast from generation 0", "First step, repeated", "What came", "Beyond", "Response"),
        tuple(rows),
    ).filled()


def _by_generation(reading: Reading, terms: Sequence[str], *, contrasted: bool) -> tuple[tuple[str, ...], ...]:
    cells: dict[tuple[str, str, int], dict[str, Estimate]] = {}
    for row in select(reading.estimates, term=tuple(terms), variant="", category=""):
        if row.generation is not None and bool(row.contrast) == contrasted and row.arm:
            cells.setdefault((row.arm, row.contrast, row.generation), {})[row.term] = row
    order: Mapping[str, int] = {arm: place for place, arm in enumerate(reading.arms)}
    keys = sorted(cells, key=lambda key: (order.get(key[0], 99), order.get(key[1], 99), key[2]))
    return tuple(
        (
            f"{wording.label(arm, 24)}{' (positive control)' if reading.controls.get(arm) == POSITIVE else ''}",
            *([wording.label(contrast, 24)] if contrasted else []),
            str(generation),
            *(wording.cell(cells[arm, contrast, generation].get(term)) or "–" for term in terms),
        )
        for arm, contrast, generation in keys
    )


# Judges of pairs.


def judge_table(reading: Reading) -> Table | None:
    """Position, length and agreement of every judge, on its primary panel."""
    terms = (
        "first_slot_excess",
        "conflict_rate",
        "padding_probe",
        "length_ame",
        "longer_preferred_raw",
        "gold_agreement",
    )
    measures = [_or_given(reading, row) for term in terms for row in judge_rows(reading.estimates, term)]
    judges = list(dict.fromkeys(row.judge for row in measures))
    if not measures:
        return None
    several = len(judges) > 1
    rows = tuple(
        (
            *([wording.label(row.judge)] if several else []),
            wording.term_name(row.term),
            wording.cell(row) + (wording.ONE_GOLD if row.variant == GIVEN_GOLD else ""),
            wording.unit_name(row) if row.status != "undefined" else "–",
            _where(row),
            wording.count(row.n, wording.counted(row)),
            f"{row.n_unscored:,}",
        )
        for row in measures
    )
    whose = "each judge" if several else wording.label(judges[0])
    return Table(
        "Bias and agreement",
        f"Estimates for {whose} with their intervals; rates in % or percentage points.",
        (*(["Judge"] if several else []), "Measure", "Estimate", "Unit", "Panel", "Sample", "Unscored"),
        rows,
    )


def _or_given(reading: Reading, row: Estimate) -> Estimate:
    """The row, or where one gold leaves it undefined the estimate with that gold taken as exact."""
    given = [other for other in judge_rows(reading.estimates, row.term, GIVEN_GOLD) if other.judge == row.judge]
    return given[0] if row.status == "undefined" and given and given[0].status != "undefined" else row


def _where(row: Estimate) -> str:
    generation = f", generation {row.generation}" if row.generation is not None else ""
    return (row.panel or "–") + generation


def unscored_reasons(reading: Reading) -> Table | None:
    """Why judgments are unscored, the most frequent first; None where all are scored."""
    if not len(reading.judgments):
        return None
    unscored = reading.judgments[reading.judgments["verdict"] == "unscored"]
    keys = list(zip(map(str, unscored["judge"]), map(str, unscored["reason"]), strict=True))
    said: dict[tuple[str, str], str] = {}
    for key, words in zip(keys, unscored["said"].fillna("") if "said" in unscored else (), strict=False):
        if words:
            said.setdefault(key, str(words))
    return _reasons("Unscored judgments", "verdict", "Judgments", Counter(keys).most_common(_MOST_REASONS), said)


def _reasons(
    title: str,
    what: str,
    counted: str,
    counts: Sequence[tuple[tuple[str, str], int]],
    said: Mapping[tuple[str, str], str],
) -> Table | None:
    """((judge, reason), how many) as a table, with what one of those replies ``said`` and the setting that mends a refusal; None
    where there is none."""
    if not counts:
        return None
    refused = ("bad_request", "refused_by_endpoint")
    said = {
        key: f"{words}; {remedy(words)}" if key[1] in refused and remedy(words) else words
        for key, words in said.items()
    }
    rows = tuple(
        (wording.label(judge), wording.label(why, 90) or "–", f"{n:,}", wording.label(said.get((judge, why), ""), 240))
        for (judge, why), n in counts
    )
    caption = f"A reply without a readable {what} is counted, never guessed."
    return Table(title, caption, ("Judge", "Reason", counted, "One of them says"), rows).filled()


_ALWAYS = (
    "first_slot_excess", "conflict_rate", "padding_probe", "length_ame", "gold_agreement", "self_preference_gold",
)  # fmt: skip
_AGAINST = "vs "
_NO_GOLD = ", no_gold"
_GIVEN_GOLD = "length_ame"
"""The measure whose difference takes one gold as exact, but for its variant ``no_gold``."""


def judges_compared(reading: Reading) -> Table | None:
    """Differences of two judges on the pairs that both judged; None with one judge.

    The usual measures, then others whose interval excludes 0.
    """
    rows = [row for row in reading.estimates if row.term.startswith(JUDGE_DIFFERENCE) and row.status != "undefined"]
    rows = [row for row in rows if _measure(row) in _ALWAYS or _excludes_zero(row)]
    rows.sort(key=lambda row: (row.judge, _other(row), _rank(row), row.term, row.variant))
    if not rows:
        return None
    return Table(
        "Judges on the same pairs",
        "The judge's estimate minus the other's, paired by pair and clustered by item. Beside the usual measures, those whose "
        "interval excludes 0; none is adjusted for the number of measures.",
        ("Judge", "Minus", "Measure", "Difference", "Unit", "n"),
        tuple(
            (wording.label(row.judge), wording.label(_other(row)), _difference_name(row), _difference_cell(row), wording.unit_name(row), f"{row.n:,}")
            for row in rows
        ),
    )  # fmt: skip


def _measure(row: Estimate) -> str:
    return row.term.removeprefix(JUDGE_DIFFERENCE)


def _other(row: Estimate) -> str:
    return row.variant.removeprefix(_AGAINST).removesuffix(_NO_GOLD)


def _difference_name(row: Estimate) -> str:
    return wording.term_name(_measure(row)) + (", quality not held equal" if row.variant.endswith(_NO_GOLD) else "")


def _difference_cell(row: Estimate) -> str:
    given = _measure(row) == _GIVEN_GOLD and not row.variant.endswith(_NO_GOLD)
    return wording.cell(row) + (wording.ONE_GOLD if given else "")


def _rank(row: Estimate) -> int:
    return _ALWAYS.index(_measure(row)) if _measure(row) in _ALWAYS else len(_ALWAYS)


def _excludes_zero(row: Estimate) -> bool:
    return row.conf_low is not None and row.conf_high is not None and (row.conf_low > 0 or row.conf_high < 0)


# Judges that score one text or choose from a list.

_SCORES = (
    "score_mean", "score_length_slope", "score_scale_anchoring", "score_sd", "score_ceiling_share", "score_floor_share", "score_repeatability",
    *(f"score_{name}_slope" for name in FEATURES if name != "length"), "score_pair_ties", "score_gold_agreement", "score_pairwise_disagreement",
)  # fmt: skip
_CHOICES = ("position_permutation", "rotation_consistency", "gold_agreement", "gold_log_odds", *(f"{name}_log_odds" for name in FEATURES))  # fmt: skip
_MOST_SLOTS = 8


def tables(reading: Reading) -> list[Table]:
    """Scores, or slots and further measures of choices, and why replies are unscored; empty for judges of pairs."""
    unscored = sorted(_unscored(reading).items(), key=lambda count: (-count[1], count[0]))[:_MOST_REASONS]
    listed = _mapping(reading.environment.get("asked")).get("said") or []
    said = {(judge, why): words for judge, why, words in listed}
    reasons = _reasons("Unscored replies", "score or choice", "Replies", unscored, said)
    return [table for table in (_scores(reading), _slots(reading), _choices(reading), reasons) if table is not None]


def rated_facts(reading: Reading) -> list[tuple[str, str]]:
    """What was asked of judges that score one text or choose from a list: (label, value)."""
    mode = str(reading.environment.get("mode", ""))
    asked = _mapping(reading.environment.get("asked"))
    judges = sorted({row.judge for row in reading.estimates if row.judge})
    rows = [("Mode", mode or "none"), ("Judges", f"{len(judges):,}"), ("Items", f"{len(reading.items):,}")]
    if mode == "pointwise":
        rows += [("Scales", ", ".join(map(str, asked.get("scales", [])))), ("Pairs", f"{asked.get('pairs', 0):,}")]
    if mode == "listwise":
        rows.append(("Sets", f"{asked.get('sets', 0):,} of {asked.get('slots', 0)} texts, each in all rotations"))
    rows.append(("Texts", f"{len(reading.candidates):,}, measured"))
    calls, unscored = int(asked.get("calls", 0)), sum(_unscored(reading).values())
    if calls:
        rows += [("Replies", f"{calls:,}"), ("Unscored", f"{unscored:,} ({100 * unscored / calls:.1f} %)")]
    return rows


def _scores(reading: Reading) -> Table | None:
    rows = []
    for term in _SCORES:
        slope = term.endswith("_slope")
        measures = [row for row in judge_rows(reading.estimates, term) if not slope or row.status != "undefined"]
        raw = list(judge_rows(reading.estimates, term, "no_gold")) if slope else []
        # Raw slopes only where no gold separates them from quality.
        at_gold = {row.judge for row in measures}
        measures += [
            row
            for row in raw
            if row.judge not in at_gold and (row.status != "undefined" or term == "score_length_slope")
        ]
        rows += [_row(row) for row in measures]
    if not rows:
        return None
    return Table(
        "Scores",
        "One text at a time. Slopes are at equal item and, unless they are marked raw, at equal gold. The shift on the other "
        "scale is the place of the same texts on that scale minus their place on the first; 0 is none.",
        ("Judge", "Measure", "Estimate", "Unit", "n", "Unscored"),
        tuple(rows),
    )  # fmt: skip


def _slots(reading: Reading) -> Table | None:
    rows = []
    for slot in range(1, _MOST_SLOTS + 1):
        log_odds = {row.judge: row for row in judge_rows(reading.estimates, f"slot_{slot}_log_odds")}
        for row in judge_rows(reading.estimates, f"slot_{slot}_excess"):
            slope = log_odds.get(row.judge)
            rows.append((wording.label(row.judge), f"{slot}", wording.cell(row), wording.cell(slope), f"{row.n:,}", f"{row.n_unscored:,}"))  # fmt: skip
    if not rows:
        return None
    rows.sort(key=lambda row: row[0])
    return Table(
        "Slots of the list",
        "How much more often than its equal share each slot is picked (percentage points), over all rotations of each set; and "
        "the log-odds for it against the mean of the other slots, whichever text is there.",
        ("Judge", "Slot", "More than its share", "Log-odds", "Sets", "Unscored"),
        tuple(rows),
    )


def _choices(reading: Reading) -> Table | None:
    if not any(row.term == "position_permutation" for row in reading.estimates):
        return None
    rows = []
    for term in _CHOICES:
        for variant in ("",) if term in _CHOICES[:4] else ("given_gold", "no_gold"):
            rows += [
                _row(row) for row in judge_rows(reading.estimates, term, variant)
                if row.status != "undefined" or term in _CHOICES[:3]
            ]  # fmt: skip
    return Table(
        "Choices from the list",
        "Over complete sets. Slopes are of a conditional logit with an effect of every slot; log-odds.",
        ("Judge", "Measure", "Estimate", "Unit", "n", "Unscored"),
        tuple(rows),
    )


def _row(row: Estimate) -> tuple[str, ...]:
    name = wording.term_name(row.term)
    if row.variant == "no_gold":
        name += " (raw)"
    elif row.variant == "given_gold":
        name += ", given gold"
    elif row.variant:
        name += f", {row.variant}"
    cell = wording.cell(row)
    if row.term == "position_permutation" and row.p_value is not None:
        cell += f" ({wording.p_value(row.p_value)})"
    return (
        wording.label(row.judge), name, cell, "" if row.status == "undefined" else wording.unit_name(row), f"{row.n:,}",
        f"{row.n_unscored:,}",
    )  # fmt: skip


def _unscored(reading: Reading) -> dict[tuple[str, str], int]:
    """(judge, reason) → replies without a score or a choice."""
    asked = _mapping(reading.environment.get("asked"))
    reasons = _mapping(asked.get("unscored"))
    return {(judge, str(why)): int(n) for judge, counts in reasons.items() for why, n in _mapping(counts).items()}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# How the report was made: caveats, methods, hashes and versions.

_CAVEATS = (
    "A loop that accumulates data bounds the collapse of variance, but not bias drift: that still grows, like the logarithm of the number of generations.",
    "On-policy slopes of the judge change when the candidates change, even if the judge does not. Whether the judge itself changed is read from fixed panels alone.",
    "The unit of inference is the replicate: a seed with all its arms. More items or more outputs do not replace replicates.",
    "Best-of-n drift saturates because the variance goes to 0; that is why the spread is shown beside the mean.",
    "A raw preference for longer answers is not bias: longer answers may be better. Claims of length bias rest on edited copies or on gold labels.",
    "Disagreement across orders is not position bias: noise is part of it.",
    "An undetected effect is not an absent one. “None within margin” is said only where the equivalence test passes.",
    "Intervals are conditional on these items; other items may behave differently.",
)


def caveats(reading: Reading) -> list[str]:
    """Cautions that apply to this run or log, the most general last."""
    if not reading.arms:
        return [
            line
            for line in _CAVEATS
            if "loop" not in line and "replicate" not in line and "drift" not in line and "slopes" not in line
        ]
    lines = list(_CAVEATS)
    if "consistent_only" in reading.experiment_text:
        lines.insert(
            0,
            "The label rule consistent_only removes position from the labels and makes every preference in them larger, for quality as for length and style: drift per loop grows. See transmission.",
        )
    replicates = max((row.n_replicates or 0 for row in reading.estimates), default=0)
    if 0 < replicates < 5:
        lines.insert(
            0,
            f"This run has {wording.count(replicates, 'replicate')}; intervals over so few are wide and their level is approximate. Use 8 or more, never fewer than 5.",
        )
    return lines


def methods_used(reading: Reading) -> list[tuple[str, str]]:
    """(method, terms it was used for), in order of appearance."""
    used: dict[str, dict[str, None]] = {}
    for row in reading.estimates:
        if row.method:
            used.setdefault(row.method, {})[row.term] = None
    return [
        (method, ", ".join(list(terms)[:12]) + (", …" if len(terms) > 12 else "")) for method, terms in used.items()
    ]


def environment_rows(reading: Reading) -> list[tuple[str, str]]:
    """environment.json as (name, value), nested names joined with a dot."""
    rows: list[tuple[str, str]] = []

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for key, inner in sorted(value.items()):
                walk(f"{name}.{key}" if name else str(key), inner)
        elif isinstance(value, list) and all(isinstance(inner, str | int | float) for inner in value):
            rows.append((name, ", ".join(map(str, value)) or "–"))
        else:
            rows.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))

    walk("", dict(reading.environment))
    return rows
