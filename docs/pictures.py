"""Make the pictures of the README and the docs: planted truths and the recorded quickstart, measured by judgeloop itself, drawn as SVG.

``python docs/pictures.py`` measures anew, writes pictures/numbers.json and draws (needs the extra ``docs``: matplotlib);
``--draw`` draws from the numbers that are there; ``--check`` writes nothing and fails where a picture is not of its numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from judgeloop.commands.analyze import analyze
from judgeloop.commands.run import run
from judgeloop.experiment.schema import BradleyTerrySignalSpec, StrategySpec
from judgeloop.kernels import sigmoid
from judgeloop.report.reading import read
from judgeloop.results import Run
from judgeloop.rundir import RunFolder
from judgeloop.seeds import rng
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.planted_spec import load as load_planted
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.validation import loop, refits
from judgeloop.validation.table import SampleSizes
from judgeloop.wire.cassette import Cassette

PICTURES = Path(__file__).parent / "pictures"
NUMBERS = PICTURES / "numbers.json"
EXPERIMENTS = Path(__file__).parents[1] / "examples" / "literature"
QUICKSTART = Path(__file__).parents[1] / "fixtures" / "quickstart"
TRAINED_TERMS = (
    "mean_length", "did_length", "did_correct", "did_distinct_2", "beyond_first_step_length", "selection_length",
    "learning_length", "response_length", "kl_from_reference",
)  # fmt: skip
NAMES = ("trained", "bias", "drift", "amplification", "strategies", "one_in_a_thousand", "contamination")
Rows = list[dict[str, Any]]

PAIRS, RHO = 400, 0.6
# Judge → log-odds for the first slot, per doubling of length, per unit of quality. Longer answers are better here: the two
# correlate, so that a taste for quality looks like one for length.
JUDGES = {
    "reads the slot": (1.2, 0.0, 0.8),
    "tosses a coin": (0.0, 0.0, 0.0),
    "likes length": (0.0, 0.8, 0.8),
    "likes what is good": (0.0, 0.0, 1.6),
}
BIAS_TERMS = ("conflict_rate", "first_slot_excess", "longer_preferred_raw", "length_log_odds")
DRIFT_STEPS, MIXING_STEPS = 4, 6
LOOPS: Mapping[str, dict[str, Any]] = {
    "replace": {},
    "accumulate": {"strategy": StrategySpec(kind="accumulate")},
    "half real": {"strategy": StrategySpec(real_fraction=0.5)},
    "consistent only": {"signal": BradleyTerrySignalSpec(tau=loop.TAU, ridge=0.0, label_rule="consistent_only")},
}
ITEMS = [{"item_id": f"i{n}", "prompt": f"Explain step {n} of the recipe."} for n in range(6)]


# -- measured ------------------------------------------------------------------------------------------------------------


def measured(name: str) -> Rows:
    """A picture's numbers, rounded to six digits; up to two minutes."""
    measure = {
        "trained": _trained, "bias": _bias, "drift": _drift, "amplification": _amplification, "strategies": _strategies,
        "one_in_a_thousand": _one_in_a_thousand, "contamination": _contamination,
    }[name]  # fmt: skip
    return [{key: round(v, 6) if isinstance(v, float) else v for key, v in row.items()} for row in measure()]


def _trained() -> Rows:
    """The quickstart's recorded run, from the tables and estimates that ship (a slow test holds them against the recording)."""
    found = RunFolder(QUICKSTART / "run").estimates()
    found = found[found["category"] == ""]
    plain = found["term"].isin(TRAINED_TERMS) & (found["variant"] == "")
    slot = (found["term"] == "first_slot_excess") & (found["panel"] == "anchor") & (found["generation"] == 0)
    varied = found["term"].isin(["forecast_drift_length", "strategy_gap_length"])
    keys = ("term", "arm", "generation", "contrast", "variant", "verdict", "detectable")
    rows = [_numbers(row, *keys) for _, row in found[plain | (slot & (found["variant"] == "")) | varied].iterrows()]
    return [*rows, *_cut_drafts(), *_trainings()]


def _trainings() -> Rows:
    """How many pairs the recorded trainings had but for those on all data so far, and how many seconds they took; a copy of another arm's
    first step took none."""
    exchanges = list(Cassette(QUICKSTART / "recording", writable=False).exchanges("train"))
    taken = [e.response["metrics"]["seconds"] for e in exchanges if e.response["metrics"]["seconds"]]
    pairs = [e.request["pairs"] for e in exchanges if not e.call.endswith("accumulate")]
    summary = {
        "count": len(taken), "fastest": min(taken), "slowest": max(taken), "total": sum(taken), "fewest_pairs": min(pairs),
        "most_pairs": max(pairs),
    }  # fmt: skip
    return [
        {"term": f"training_{name}", "arm": "", "generation": None, "variant": "", "estimate": float(value)}
        for name, value in summary.items()
    ]


def _cut_drafts() -> Rows:
    """The share of the last generation's drafts that ended at the longest that the policy allows, by arm."""
    shares = read(RunFolder(QUICKSTART / "run")).cut_drafts()
    return [
        {"term": "cut_drafts", "arm": arm, "generation": 3, "variant": "", "estimate": share}
        for arm, share in sorted(shares.items())
    ]


def _bias() -> Rows:
    """Four planted judges of the same pairs, each in both orders; two golds vote on each pair."""
    stream = rng(0, "pictures", "bias")
    length = stream.standard_normal(PAIRS)
    quality = RHO * length + (1 - RHO**2) ** 0.5 * stream.standard_normal(PAIRS)
    golds = [stream.random(PAIRS) < sigmoid(2 * quality) for _ in range(2)]
    rows = []
    for judge, (slot, slope, merit) in JUDGES.items():
        for order, sign in (("ab", 1.0), ("ba", -1.0)):
            first = stream.random(PAIRS) < sigmoid(slot + sign * (slope * length + merit * quality))
            for n in range(PAIRS):
                rows.append({
                    "item_id": f"i{n}", "judge": judge, "order": order, "verdict": "first" if first[n] else "second",
                    "len_a": round(1000 * 2 ** (length[n] / 2)), "len_b": round(1000 * 2 ** (-length[n] / 2)),
                    "gold": "a" if golds[0][n] else "b", "gold_2": "a" if golds[1][n] else "b",
                })  # fmt: skip
    found = analyze(pd.DataFrame(rows)).estimates
    plain = found[(found["variant"] == "") & (found["category"] == "") & found["term"].isin(BIAS_TERMS)]
    return [_numbers(row, "judge", "term") for _, row in plain.iterrows()]


def _drift() -> Rows:
    """A judge that likes length, and a coin, each closing its own loop: drafts follow the examples in their prompt."""
    spec = PlantedSpec.model_validate({"length": 1.0, "draft": {"length_mean": 60, "length_sd": 0.5, "follow": 1.0}})
    experiment = {
        "name": "drift", "generations": DRIFT_STEPS, "replicates": 8, "panels": {"anchor": 0}, "signal": {"kind": "best_of_n"},
        "judge": {"kind": "planted", "length": 1.0}, "policy": {"kind": "exemplar", "endpoint": "m", "exemplars": 2},
        "arms": {"judge": {}, "random": {"judge": {"kind": "random"}}},
    }  # fmt: skip
    found = _run(experiment, spec)
    return [_numbers(row, "term", "arm", "generation") for _, row in found[found["term"].isin(["drift_length", "did_length"])].iterrows()]  # fmt: skip


def _amplification() -> Rows:
    """The planted loop of `judgeloop validate`: one judge, four ways of learning from it; drift beyond a coin's."""
    rows = []
    for name, settings in LOOPS.items():
        world = loop.World(replicates=8, steps=MIXING_STEPS, **settings)
        found = run_estimates(loop.run(world, seed=0), world.design())
        terms = found["term"].isin(["did_length", "compounding_length"]) & (found["contrast"] == "random")
        plain = found[terms & (found["variant"] == "")]
        rows += [{"loop": name, **_numbers(row, "term", "generation", "verdict")} for _, row in plain.iterrows()]
    return rows


def _run(experiment: dict[str, Any], spec: PlantedSpec) -> pd.DataFrame:
    """The primary estimates of an experiment whose drafts a planted server writes."""
    with tempfile.TemporaryDirectory() as scratch, LocalServer(create_app(PlantedAnswerer(spec))) as server:
        items = Path(scratch) / "items.jsonl"
        items.write_text("".join(json.dumps(item) + "\n" for item in ITEMS), encoding="utf-8")
        endpoints = {"m": {"base_url": server.base_url, "model": "planted", "max_tokens": 4096}}
        found = run({**experiment, "items": str(items), "endpoints": endpoints}, out=Path(scratch) / "run").estimates
    return found[(found["variant"] == "") & (found["category"] == "")]


# Of literature.md: the experiments of examples/literature as they are shipped, against its planted server.


def _shipped(name: str, scratch: Path) -> Run:
    """The run of a shipped experiment."""
    answerer = PlantedAnswerer(load_planted(EXPERIMENTS / "planted.yaml"), EXPERIMENTS)
    experiment = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
    experiment["items"] = str(EXPERIMENTS / experiment["items"])
    with LocalServer(create_app(answerer)) as server:
        experiment["endpoints"]["m"]["base_url"] = server.base_url
        return run(experiment, out=scratch / "run", report=False)


def _rows(found: pd.DataFrame, *terms: str) -> Rows:
    """The primary rows of these terms, by arm and generation."""
    plain = found[(found["variant"] == "") & (found["category"] == "") & found["term"].isin(terms)]
    return [_numbers(row, "term", "arm", "generation", "verdict") for _, row in plain.iterrows()]


def _strategies() -> Rows:
    with tempfile.TemporaryDirectory() as scratch:
        found = _shipped("strategies", Path(scratch)).estimates
    return _rows(found, "drift_vendi", "drift_tail_mass_retained", "drift_length", "drift_correct")


def _one_in_a_thousand() -> Rows:
    """The loop; and row B3 of `judgeloop validate`: the error of a regression by the rows it learns from, over its floor."""
    with tempfile.TemporaryDirectory() as scratch:
        found = _shipped("one_in_a_thousand", Path(scratch)).estimates
    rows = _rows(found, "drift_length", "mixing_length")
    floor = (refits.SYNTHETIC * refits.BEND / (1.0 - refits.SYNTHETIC)) ** 2
    for row in refits.rows_b3(SampleSizes(0, quick=True)):
        size = int(re.search(r"T=(\d+)", row.setting)[1])  # type: ignore[index]
        error, half = row.estimate / floor, 1.96 * row.mc_error / floor
        rows.append({
            "term": "error_over_floor", "rows": size, "estimate": error, "conf_low": error - half, "conf_high": error + half,
            "theory": row.theory / floor, "without": refits.NOISE**2 * 5 / (size - 6) / floor,
        })  # fmt: skip
    return rows


def _contamination() -> Rows:
    with tempfile.TemporaryDirectory() as scratch:
        found = _shipped("contamination", Path(scratch)).estimates
    return [*_rows(found[found["contrast"] == "coin"], "proxy_gain"), *_rows(found, "drift_length", "drift_correct")]


def _numbers(row: pd.Series[Any], *keys: str) -> dict[str, Any]:
    """A row's keys, estimate and interval, as JSON has them."""
    kept = {key: row[key] for key in (*keys, "estimate", "conf_low", "conf_high")}
    return {
        key: None if pd.isna(value) else int(value) if key == "generation" else value for key, value in kept.items()
    }


# -- drawn ---------------------------------------------------------------------------------------------------------------


def hash_of(rows: Rows) -> str:
    """What a picture carries of the numbers that it shows."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def stale(numbers: Mapping[str, Rows]) -> list[str]:
    """The pictures that are not of these numbers."""
    found = []
    for name in NAMES:
        path = PICTURES / f"{name}.svg"
        carried = re.search(r"numbers ([0-9a-f]{64})", path.read_text(encoding="utf-8")) if path.is_file() else None
        if carried is None or carried[1] != hash_of(numbers[name]):
            found.append(path.name)
    return found


def main() -> int:
    """Measure, draw or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true", help="draw from pictures/numbers.json; measure nothing")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a picture is not of its numbers"
    )
    options = parser.parse_args()
    if not (options.draw or options.check):
        PICTURES.mkdir(exist_ok=True)
        NUMBERS.write_text(json.dumps({name: measured(name) for name in NAMES}, indent=1) + "\n", encoding="utf-8")
    numbers: dict[str, Rows] = json.loads(NUMBERS.read_text(encoding="utf-8"))
    if options.check:
        old = stale(numbers)
        if old:
            print(f"stale: {', '.join(old)}; run: python docs/pictures.py --draw", file=sys.stderr)
        return 1 if old else 0
    from drawing import draw  # needs matplotlib

    for name in NAMES:
        draw(name, numbers[name], PICTURES / f"{name}.svg", f"numbers {hash_of(numbers[name])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
