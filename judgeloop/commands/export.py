"""``judgeloop.export``: a run folder's preferences, requests, or pairs to label, in the formats of other tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.experiment.schema import LabelRule
from judgeloop.interchange import labels, preferences
from judgeloop.learning.labels import preferences as label
from judgeloop.records import is_control_judge
from judgeloop.rundir import RunFolder
from judgeloop.stats.inference import rows_for_slope
from judgeloop.wire import batch_files
from judgeloop.wire.cassette import Cassette

_TRAINING: dict[str, Callable[[Sequence[preferences.Preference]], list[dict[str, Any]]]] = {
    "trl-dpo": preferences.trl_dpo, "trl-kto": preferences.trl_kto, "openai-preference": preferences.openai_preference,
}  # fmt: skip
FORMATS = (*_TRAINING, "openai-batch", "labels")
RULES = ("raw", "swap_average", "consistent_only")
FEWEST_LABELS = 100
"""The fewest pairs with two labels from which gold's own errors are estimated (docs/method.md, "Two golds")."""
EFFECT = 0.3
"""Log-odds per doubling of length that a label sheet finds by default."""
_EXPLAINED = 0.25
"""The share of length's variance that quality is taken to explain."""
_PLACE = ["replicate", "arm", "generation", "item_id"]


@dataclass(frozen=True, slots=True)
class Export:
    """The files that were written, and a sentence on their content."""

    files: tuple[Path, ...]
    note: str


def export(
    run_dir: str | Path,
    format: str,  # noqa: A002  the option's name
    out: str | Path,
    *,
    arm: str | None = None,
    generation: int | None = None,
    judge: str | None = None,
    label_rule: str = "swap_average",
    stage: str = "judge",
    pairs: int | None = None,
    effect: float = EFFECT,
    seed: int = 0,
) -> Export:
    """Write ``out`` in one of FORMATS from a run folder, or from an audit's or analysis's.

    trl-dpo, trl-kto, openai-preference: the preferences of ``arm`` (default: the first that is no control) in ``generation``
    (default: the last that has any), all replicates; of an audit those of ``judge`` by ``label_rule``. openai-batch: the
    recorded requests of ``stage`` (judge, draft or all), with call id and a digest of the body as custom_id. labels: a
    blinded sheet of ``pairs`` pairs (default: what an effect of ``effect`` log-odds per doubling of length takes, 100 or
    more), as CSV and HTML, with its key in the run folder.

    Raises InvalidInput for what the folder does not hold, FolderMismatch where it is none, StorageFailed.
    """
    out = Path(out)
    if format in _TRAINING:
        return _export_preferences(RunFolder.existing(run_dir), format, out, arm, generation, judge, label_rule)
    if format == "openai-batch":
        return _export_requests(RunFolder.recorded(run_dir), out, stage)
    if format != "labels":
        raise InvalidInput(f"--format {format}: not one of {', '.join(FORMATS)}")
    return _export_sheet(RunFolder.existing(run_dir), out, pairs, effect, seed)


def collect_labels(run_dir: str | Path, sheets: Sequence[str | Path], out: str | Path) -> Export:
    """Read filled-in label sheets back: ``out`` is a pairs file (JSON Lines) of all the folder's pairs with ``gold`` and
    ``gold_2`` where people labelled them. Raises InvalidInput naming file, line and column."""
    folder, out = RunFolder.existing(run_dir), Path(out)
    ids = labels.sheets_of(sheets)
    if not ids:
        raise InvalidInput(f"{sheets[0]}: no rows; give a filled-in label sheet")
    if len(ids) > 1:
        raise InvalidInput(
            f"{sheets[0]}: rows of {len(ids)} sheets ({', '.join(ids[:3])}); collect one sheet at a time"
        )
    key = _key_path(folder, ids[0])
    if not key.is_file():
        raise InvalidInput(f"{folder.path}: no key of label sheet {ids[0]} here; give the folder that the sheet was exported from")  # fmt: skip
    collected = labels.read_labels(sheets, key)
    rows = collected.pairs.to_dict("records")
    batch_files.write_file(out, preferences.json_lines({str(k): v for k, v in row.items()} for row in rows))
    labelled, twice = collected.once + collected.twice, collected.twice
    agreement = f", {100 * collected.agreed / twice:.0f} % of them alike" if twice else ""
    few = f" Gold's own errors are estimated from {FEWEST_LABELS} pairs with two labels or more." if twice < FEWEST_LABELS else ""  # fmt: skip
    return Export((out,), f"{labelled:,} of {len(rows):,} pairs labelled, {twice:,} by both{agreement}.{few}")


# -- preferences -----------------------------------------------------------------------------------------------------


def _export_preferences(
    folder: RunFolder, name: str, out: Path, arm: str | None, generation: int | None, judge: str | None, rule: str
) -> Export:
    rows = folder.table("preferences")
    if rows.empty:
        rows, what = _audit_preferences(folder, judge, rule)
    else:
        rows, what = _run_preferences(folder, rows, arm, generation)
    net = preferences.net_preferences(rows, _text_lookup(folder), _prompts(folder))
    if not net:
        raise InvalidInput(f"{folder.path}: no preference of {what}: every pair is tied, unscored or of equal texts")
    lines = _TRAINING[name](net)
    batch_files.write_file(out, preferences.json_lines(lines))
    return Export((out,), f"{len(lines):,} lines from {len(net):,} net preferences of {what}; ties are left out.")


def _run_preferences(
    folder: RunFolder, rows: pd.DataFrame, arm: str | None, generation: int | None
) -> tuple[pd.DataFrame, str]:
    """The preferences of one arm and generation, and which those are. Raises InvalidInput."""
    judgments = folder.table("judgments")
    controls = set(judgments.loc[judgments["judge"].map(is_control_judge), "arm"])
    arms = list(dict.fromkeys(rows["arm"].tolist()))
    chosen = arm if arm is not None else next((name for name in arms if name not in controls), arms[0])
    if chosen not in arms:
        raise InvalidInput(f"--arm {chosen}: no preferences of that arm in {folder.path} (it has {', '.join(arms)})")
    rows = rows[rows["arm"] == chosen]
    generations = sorted(int(number) for number in rows["generation"].unique())
    last = generations[-1] if generation is None else generation
    if last not in generations:
        raise InvalidInput(
            f"--generation {last}: no preferences there (arm {chosen} has {generations[0]} to {generations[-1]})"
        )
    return rows[rows["generation"] == last], f"arm {chosen}, generation {last}"


def _audit_preferences(folder: RunFolder, judge: str | None, rule: str) -> tuple[pd.DataFrame, str]:
    """The preferences of one judge's verdicts by a label rule, and which those are. Raises InvalidInput."""
    if rule not in RULES:
        raise InvalidInput(f"--label-rule {rule}: not one of {', '.join(RULES)}")
    rows = folder.table("judgments")
    if rows.empty or folder.table("candidates").empty:
        raise InvalidInput(f"{folder.path}: neither preferences nor judged texts here; give a run, an audit, or an analysis with texts")  # fmt: skip
    rows = rows[rows["panel"] == "pairs"]
    judges = list(dict.fromkeys(rows["judge"].tolist()))
    if judge is None and len(judges) != 1:
        raise InvalidInput(
            f"{folder.path}: {len(judges)} judges ({', '.join(judges[:5])}); say whose preferences with --judge"
        )
    chosen = judges[0] if judge is None else judge
    if chosen not in judges:
        raise InvalidInput(f"--judge {chosen}: not in {folder.path} (it has {', '.join(judges[:5])})")
    return label(rows[rows["judge"] == chosen], cast(LabelRule, rule)), f"judge {chosen} ({rule})"


def _prompts(folder: RunFolder) -> dict[str, str]:
    """item_id → prompt."""
    items = folder.table("items")
    return dict(zip(items["item_id"], items["prompt"].fillna(""), strict=True)) if len(items) else {}


def _text_lookup(folder: RunFolder) -> Callable[[Mapping[str, Any], str], str]:
    """(row with replicate, arm, generation and item_id, candidate_id) → text. The lookup raises InvalidInput."""
    texts: dict[tuple[str, ...], str] = {}
    table = folder.table("candidates")
    for *key, text in table[[*_PLACE, "candidate_id", "text"]].itertuples(index=False, name=None):
        texts.setdefault(tuple(_key_part(value) for value in key), str(text))

    def text_of(row: Mapping[str, Any], candidate: str) -> str:
        key = (*(_key_part(row.get(name)) for name in _PLACE), candidate)
        if key not in texts:
            raise InvalidInput(f"{folder.path}: candidate {candidate!r} of item {row.get('item_id')!r} has no text; the folder is not complete, run the command that wrote it again")  # fmt: skip
        return texts[key]

    return text_of


def _key_part(value: Any) -> str:
    """A cell as text, alike from every table: 1.0 and 1 are one generation, and a missing value is empty."""
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float | np.integer) else str(value)


# -- requests --------------------------------------------------------------------------------------------------------


def _export_requests(folder: RunFolder, out: Path, stage: str) -> Export:
    if stage not in ("judge", "draft", "all"):
        raise InvalidInput(f"--stage {stage}: not one of judge, draft, all")
    cassette = Cassette(folder.path, writable=False)
    requests: dict[str, Mapping[str, Any]] = {}
    for exchange in cassette.exchanges():
        parts = exchange.call.split("/")
        of_stage = stage == "all" or stage in parts[1:3]
        # Of a call that is recorded twice (its endpoint was changed) the later request counts. Trial calls are left out,
        # and scores, which are no chat completions.
        if of_stage and "trial" not in parts and not exchange.route:
            requests[exchange.call] = exchange.request
    if not requests:
        raise InvalidInput(f"{folder.path}: no recorded request of stage {stage}")
    files = batch_files.write_requests(requests.items(), out)
    return Export(
        tuple(files), f"{len(requests):,} requests of stage {stage}, custom_id is the call id and a digest of the body."
    )


# -- labels ----------------------------------------------------------------------------------------------------------


def _export_sheet(folder: RunFolder, out: Path, count: int | None, effect: float, seed: int) -> Export:
    if not effect > 0:
        raise InvalidInput("--effect: must be above 0, log-odds per doubling of length")
    table, gaps = _fixed_pairs(folder)
    needed = labels_needed(gaps, effect)
    n_chosen = count if count is not None else max(FEWEST_LABELS, needed or 0)
    sheet = labels.sheet(table, n_chosen, seed=seed)
    form_path = out.with_suffix(".html") if out.suffix != ".html" else out
    sheet_path = out if out.suffix != ".html" else out.with_suffix(".csv")
    folder.write_bytes(f"labels/{sheet.id}.key.json", preferences.json_lines([dict(sheet.key)]))
    batch_files.write_file(sheet_path, labels.as_csv(sheet))
    batch_files.write_file(form_path, labels.as_html(sheet))
    n_pairs = len(sheet.rows) // len(labels.LABELLERS)
    note = [f"{n_pairs:,} pairs, each for two labellers with its sides swapped: {len(sheet.rows):,} rows. The key stays in {_key_path(folder, sheet.id)}."]  # fmt: skip
    if needed is None:
        note.append("The texts of these pairs do not differ in length: no number of labels shows a length effect.")
    else:
        note.append(f"A length effect of {effect:g} log-odds per doubling at equal quality takes about {needed:,} labelled pairs (80 % power, if quality explains a quarter of length's variance).")  # fmt: skip
    if n_pairs < max(FEWEST_LABELS, needed or 0):
        note.append(f"{n_pairs:,} are too few for that claim" + (f"; the folder has no more than {len(table):,}." if n_pairs < n_chosen else "."))  # fmt: skip
    return Export((sheet_path, form_path), " ".join(note))


def labels_needed(gaps: np.ndarray[Any, np.dtype[np.float64]], effect: float) -> int | None:
    """Labelled pairs that find a length effect of ``effect`` log-odds per doubling with 80 % power, if quality explains a
    quarter of length's variance; None where no two texts differ in length.

    ``gaps``: log2 length ratios of the pairs. One judgment a pair is counted; the second order adds less, so that the number
    is rather too large.
    """
    information = float(np.mean(gaps**2)) / 4.0 if len(gaps) else 0.0
    return rows_for_slope(effect, information, r_squared=_EXPLAINED) if information > 0 else None


def _fixed_pairs(folder: RunFolder) -> tuple[pd.DataFrame, np.ndarray[Any, np.dtype[np.float64]]]:
    """The folder's fixed pairs (of a run without a panel, those of generation 0) with the columns of a pairs file, and their
    log2 length ratios. Raises InvalidInput."""
    rows, texts = folder.table("judgments"), folder.table("candidates")
    if rows.empty or texts.empty:
        raise InvalidInput(f"{folder.path}: no judged texts here; give a run, an audit, or an analysis with texts")
    fixed = rows[rows["panel"].isin(["anchor", "pairs"])]
    if fixed.empty:
        fixed = rows[rows["panel"] == "policy"]
        if fixed.empty:
            raise InvalidInput(f"{folder.path}: no judged pairs here")
        fixed = fixed[fixed["arm"] == fixed["arm"].iloc[0]]
        pair_ids = fixed["replicate"].map(_key_part) + "/" + fixed["item_id"] + "/" + fixed["pair_id"]
        fixed = fixed.assign(pair_id=pair_ids)
    generations = fixed["generation"].fillna(-1)
    fixed = fixed[generations == generations.min()].drop_duplicates("pair_id")
    prompts, text_of = _prompts(folder), _text_lookup(folder)
    pairs = []
    for record in fixed.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        ids = row["candidate_first"], row["candidate_second"]
        a, b = ids[::-1] if row["order"] == "ba" else ids
        pairs.append({
            "item_id": row["item_id"], "pair_id": row["pair_id"], "prompt": prompts.get(row["item_id"], ""),
            "text_a": text_of(row, a), "text_b": text_of(row, b), "candidate_a": a, "candidate_b": b,
            "model_a": _word(row.get("model_a")), "model_b": _word(row.get("model_b")), "category": _word(row.get("category")),
        })  # fmt: skip
    table = pd.DataFrame(pairs)
    lengths = texts.drop_duplicates(["item_id", "candidate_id"]).set_index(["item_id", "candidate_id"])["length"]
    sides = [
        lengths.reindex(pd.MultiIndex.from_arrays([table["item_id"], table[name]])).to_numpy(dtype=np.float64)
        for name in ("candidate_a", "candidate_b")
    ]
    gaps = sides[0] - sides[1]
    return table, gaps[np.isfinite(gaps)]


def _word(value: Any) -> str:
    """A cell as text; empty where it is missing."""
    return "" if value is None or pd.isna(value) else str(value)


def _key_path(folder: RunFolder, sheet: str) -> Path:
    return folder.path / "labels" / f"{sheet}.key.json"
