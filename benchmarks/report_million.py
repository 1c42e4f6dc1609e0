"""Write a run folder of a million judgments, its estimates and its report, and measure each step.

    python benchmarks/report_million.py OUT [--items 440] [--estimates all|few]

The data are generated, not observed: lengths, picks and signals follow planted laws (a judge with a preference for the first
slot and for length, whose selections tilt the next generation), and the texts are slices of a stream of made-up words. They have
the shape of a real run's tables and none of its meaning. The names of the tables' columns are those of
docs/contract.md, "Tables".
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from judgeloop import report, seeds
from judgeloop.rundir import RunFolder
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.text.features import FEATURES

GENERATIONS, REPLICATES, K = 5, 8, 4
GAMMA, BETA, TAU = 0.6, 0.35, 2.0
"""Planted: log-odds of the first slot, log-odds per doubling of length, and how sharply selections follow the reward."""
SLOPES = {"judge": BETA, "accumulate": BETA, "random": 0.0, "gold": 0.0}
CATEGORIES = ("writing", "maths", "code", "advice")
EXPERIMENT = """name: generated-million
seed: 0
generations: {generations}
replicates: {replicates}
judge: {{kind: model, endpoint: m}}
policy: {{kind: exemplar, endpoint: m}}
arms:
  judge: {{strategy: {{kind: replace}}}}
  accumulate: {{strategy: {{kind: accumulate}}}}
  random: {{judge: {{kind: random}}}}
  gold: {{judge: {{kind: gold}}}}
"""


def write_folder(path: Path, items: int, watch: Callable[[str], None]) -> tuple[RunFolder, int]:
    """The run folder without estimates, and how many judgments it holds. A part per replicate and generation."""
    folder = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    folder.write_text("experiment.yaml", EXPERIMENT.format(generations=GENERATIONS, replicates=REPLICATES))
    folder.write_json("environment.json", {"judgeloop": "generated data", "seed": 0})
    ids = np.array([f"item-{n:04d}" for n in range(items)])
    folder.write_part("items", "all", pd.DataFrame({
        "item_id": ids, "prompt": [f"Generated prompt number {n}." for n in range(items)],
        "category": [CATEGORIES[n % len(CATEGORIES)] for n in range(items)], "reference": None, "match": "exact",
    }))  # fmt: skip
    words = _words(seeds.rng(0, "million", "words"))
    count = _anchor(folder, ids, words)
    for replicate in range(REPLICATES):
        mean = dict.fromkeys(SLOPES, 5.5)
        for generation in range(GENERATIONS + 1):
            texts, judged, fitted = [], [], []
            for arm, slope in SLOPES.items():
                lengths = seeds.rng(0, "million", "draft", replicate, generation).normal(mean[arm], 0.5, (items, K))
                table, lengths = _candidates(ids, lengths, words, replicate, arm, generation, slope)
                texts.append(table)
                stream = seeds.rng(0, "million", "judge", replicate, generation, "" if generation == 0 else arm)
                judged.append(_judgments(stream, ids, lengths, replicate, arm, generation, slope))
                learned = slope + 0.02 * seeds.rng(0, "million", "fit", replicate, generation, arm).standard_normal()
                if arm not in ("random", "gold"):
                    fitted.append((replicate, arm, generation, "length", learned, 0.02, 1.0, True))
                mean[arm] += (learned / TAU) * 0.25 / (1 if arm != "accumulate" else generation + 2)
            part = f"s{replicate}-g{generation:02d}"
            folder.write_part("candidates", part, pd.concat(texts, ignore_index=True))
            rows = pd.concat(judged, ignore_index=True)
            folder.write_part("judgments", part, rows)
            names = ["replicate", "arm", "generation", "feature", "coefficient", "std_error", "scale", "converged"]
            folder.write_part("signals", part, pd.DataFrame(fitted, columns=names))
            count += len(rows)
        watch(f"replicate {replicate + 1} of {REPLICATES}, {count:,} judgments")
    return folder, count


def _words(rng: np.random.Generator) -> list[str]:
    letters = np.array(list("aeioulnrstdkm"))
    known = ["".join(letters[rng.integers(0, len(letters), 2 + n % 8)]) for n in range(3000)]
    share = 1.0 / np.arange(1, len(known) + 1)
    return [known[place] for place in rng.choice(len(known), size=200_000, p=share / share.sum())]


def _candidates(
    ids: np.ndarray, lengths: np.ndarray, words: list[str], replicate: int, arm: str, generation: int, slope: float
) -> tuple[pd.DataFrame, np.ndarray]:
    rng = seeds.rng(0, "million", "texts", replicate, generation)
    tokens = np.clip(np.round(2.0 ** lengths.ravel()), 4, 600).astype(int)
    starts = rng.integers(0, len(words) - 700, len(tokens))
    lengths = np.log2(tokens).reshape(lengths.shape)
    chance = np.exp(slope / TAU * (lengths - lengths.mean(axis=1, keepdims=True)))
    chance /= chance.sum(axis=1, keepdims=True)
    last = generation == GENERATIONS
    flat = np.full(len(tokens), 1.0 / K)
    frame = pd.DataFrame({
        "replicate": replicate, "arm": arm, "generation": generation, "item_id": np.repeat(ids, K),
        "candidate_id": np.tile([f"g{generation}k{k}" for k in range(K)], len(ids)),
        "text": [" ".join(words[start : start + size]) for start, size in zip(starts, tokens, strict=True)],
        "reason": "", "length": lengths.ravel(), "tokens": tokens, "characters": 6 * tokens,
    })  # fmt: skip
    for name in FEATURES:
        if name != "length":
            shared = rng.gamma(1.0, 0.5, len(tokens)) * (rng.random(len(tokens)) < 0.4)
            frame[name] = shared * seeds.rng(0, "million", name, replicate, arm, generation).uniform(
                0.7, 1.3, len(tokens)
            )
    return frame.assign(
        opener="other", reward=np.nan, n_drawn=1, p_current=flat, p_selected=np.nan if last else chance.ravel(),
        p_selected_gold=np.nan if last else flat, p_training=np.nan if last else (chance.ravel() + flat) / 2,
        p_next=np.nan, correct=np.nan,
    ), lengths  # fmt: skip


def _judgments(
    rng: np.random.Generator, ids: np.ndarray, lengths: np.ndarray, replicate: int | None, arm: str, generation: int, slope: float
) -> pd.DataFrame:  # fmt: skip
    """All pairs of an item's candidates in both orders."""
    pairs = [(a, b) for a in range(lengths.shape[1]) for b in range(a + 1, lengths.shape[1])]
    gaps = np.stack([lengths[:, a] - lengths[:, b] for a, b in pairs], axis=1).ravel()
    quality = seeds.rng(0, "million", "quality", generation).standard_normal(len(gaps))
    panel = "anchor" if replicate is None else "policy"
    names = [f"m{n:02d}" for n in range(len(pairs))]
    made = []
    for order, sign in (("ab", 1.0), ("ba", -1.0)):
        gamma = 0.0 if arm == "random" else GAMMA
        p = 1.0 / (1.0 + np.exp(-(gamma + sign * (slope * gaps + (arm != "random") * quality))))
        verdict = np.where(rng.random(len(p)) < p, "first", "second").astype(object)
        lost = rng.random(len(p)) < 0.01
        verdict[lost] = "unscored"
        first = [f"g{generation}k{a}" for a, _ in pairs] * len(ids)
        second = [f"g{generation}k{b}" for _, b in pairs] * len(ids)
        made.append(pd.DataFrame({
            "replicate": pd.array([replicate] * len(p), dtype="Int64"), "arm": arm, "generation": generation, "panel": panel,
            "item_id": np.repeat(ids, len(pairs)), "category": np.repeat(np.resize(CATEGORIES, len(ids)), len(pairs)),
            "pair_id": np.tile(names, len(ids)), "judge": arm if arm in ("random", "gold") else "planted-judge", "order": order,
            "repeat": 0, "verdict": verdict, "p_first": np.where(lost, np.nan, p), "reason": np.where(lost, "no verdict", ""),
            "candidate_first": first if order == "ab" else second, "candidate_second": second if order == "ab" else first,
            "identical": False, "gold": np.where(quality > 0, "a", "b"), "call": "",
        }))  # fmt: skip
    return pd.concat(made, ignore_index=True)


def _anchor(folder: RunFolder, ids: np.ndarray, words: list[str]) -> int:
    """300 fixed pairs, judged once a generation."""
    some = ids[:300]
    lengths = seeds.rng(0, "million", "anchor").normal(5.5, 0.6, (len(some), 2))
    table, lengths = _candidates(some, np.pad(lengths, ((0, 0), (0, K - 2))), words, 0, "", 0, 0.0)
    table = table[table["candidate_id"].isin(["g0k0", "g0k1"])].assign(replicate=None, n_drawn=0)
    table["candidate_id"] = table["candidate_id"].map({"g0k0": "anchor0", "g0k1": "anchor1"})
    folder.write_part("candidates", "anchor", table.astype({"replicate": "Int64"}))
    parts = []
    for generation in range(GENERATIONS + 1):
        rng = seeds.rng(0, "million", "anchor", generation)
        part = _judgments(rng, some, lengths[:, :2], None, "", 0, BETA).assign(generation=generation)
        part["candidate_first"] = np.where(part["order"] == "ab", "anchor0", "anchor1")
        part["candidate_second"] = np.where(part["order"] == "ab", "anchor1", "anchor0")
        parts.append(part)
    rows = pd.concat(parts, ignore_index=True)
    folder.write_part("judgments", "anchor", rows)
    return len(rows)


def tables_and_design(folder: RunFolder) -> tuple[RunTables, Design]:
    """What the run's estimates are made from."""
    tables = RunTables(*(folder.table(name) for name in ("items", "candidates", "judgments", "preferences", "signals")))
    arms = tuple(
        ArmDesign(
            name, name if name in ("random", "gold") else "planted-judge", is_control=name in ("random", "gold"),
            judge_kind=name if name in ("random", "gold") else "model", policy_kind="exemplar",
            strategy="accumulate" if name == "accumulate" else "replace",
        )
        for name in SLOPES
    )  # fmt: skip
    contrasts = tuple((arm, control) for arm in ("judge", "accumulate") for control in ("random", "gold"))
    return tables, Design("generated-million", 0, GENERATIONS, arms, contrasts, ("judge", "random"))


def write_estimates(folder: RunFolder) -> None:
    """The run's estimates, by the code that every run uses."""
    folder.write_estimates(run_estimates(*tables_and_design(folder)))


def main() -> None:
    """Write, measure, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--items", type=int, default=440, help="440 items make a million judgments")
    parser.add_argument("--report-only", action="store_true", help="the folder is there already")
    given = parser.parse_args()
    took: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        start, cpu = time.perf_counter(), time.process_time()
        done = work()
        took[name] = round(time.process_time() - cpu, 2)
        print(f"{name}: {took[name]} s CPU ({time.perf_counter() - start:.2f} s)", flush=True)
        return done

    if not given.report_only:
        timed("write tables", lambda: write_folder(given.out, given.items, lambda line: print(line, flush=True)))
        timed("estimates", lambda: write_estimates(RunFolder(given.out)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timed("report", lambda: report.write(RunFolder(given.out)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = (given.out / "report.html").stat().st_size
    found = {
        "cpu_seconds": took,
        "report_bytes": size,
        "peak_mb": peak // 1024,
        "peak_before_report_mb": before // 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
