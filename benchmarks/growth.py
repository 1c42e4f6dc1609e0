"""How the time of every estimator grows with the judgments: CPU seconds at each size, and the exponent between the ends.

    python benchmarks/growth.py [--sizes 20000 60000 200000 1000000] [--only WORD …] [--most SECONDS]

An exponent of 1 means that ten times the judgments take ten times as long. The data are generated in memory: a judge with a
preference for the first slot, for length and for style, asked about pairs in both orders, one pair an item, the hardest case for what
goes by item; for `run`, the tables of report_million.py, texts too. An estimator that took more than ``--most`` seconds is left out at larger sizes. CPU time of one thread, so that a busy
machine changes little; at the end the process's largest memory.
"""

from __future__ import annotations

import os

for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"  # before numpy is loaded

import argparse  # noqa: E402
import math  # noqa: E402
import resource  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from report_million import tables_and_design, write_folder  # noqa: E402

from judgeloop import analysis, seeds  # noqa: E402
from judgeloop.interchange.verdicts import VerdictLog, read_verdicts  # noqa: E402
from judgeloop.stats.compare.differences import judge_difference_estimates  # noqa: E402
from judgeloop.stats.design import Design, RunTables  # noqa: E402
from judgeloop.stats.estimate import RowLabels  # noqa: E402
from judgeloop.stats.items import marked  # noqa: E402
from judgeloop.stats.judge.content import content_estimates  # noqa: E402
from judgeloop.stats.judge.listwise import choice_frame  # noqa: E402
from judgeloop.stats.judge.pointwise import score_frame  # noqa: E402
from judgeloop.stats.judge.position import (  # noqa: E402
    compatibility_estimates,
    position_estimates,
)
from judgeloop.stats.judge.probes import probe_estimates  # noqa: E402
from judgeloop.stats.judge.self_preference import (  # noqa: E402
    self_preference_gold,
    self_preference_log_odds,
    self_preference_single_order,
)
from judgeloop.stats.loop.diversity import diversity_series  # noqa: E402
from judgeloop.stats.loop.drift import drift_estimates  # noqa: E402
from judgeloop.stats.loop.estimates import run_estimates  # noqa: E402
from judgeloop.stats.loop.replicates import measure, series  # noqa: E402
from judgeloop.stats.presentations import quick_texts  # noqa: E402
from judgeloop.text.features import FEATURES  # noqa: E402
from judgeloop.text.templates import Scale  # noqa: E402

JUDGMENTS_OF_ITEM = 2_300
"""Judgments of an item in a generated run: 8 replicates, 6 generations, 4 arms, 6 pairs, both orders."""
SIZES = (20_000, 60_000, 200_000, 1_000_000)
STYLE = ("bold", "headings", "list_items", "hedges")
"""Style features that differ between the generated texts."""
LABELS = RowLabels("j", panel="pairs")


@dataclass(frozen=True)
class World:
    """Generated judgments of ``judges`` (n rows each), in the columns of the tables, and their texts' features."""

    judgments: pd.DataFrame
    texts: pd.DataFrame


def judged(
    n: int, *, lost: float = 0.0, ties: float = 0.0, gold: str = "words", judges: int = 1, lengths: bool = True
) -> World:
    """``n`` judgments in all. ``gold``: words, two words, two numbers, or empty. ``lost`` and ``ties``: shares of the verdicts."""
    pairs = n // 2 // judges
    rng = seeds.rng(0, "growth", n)
    features = np.concatenate(
        [rng.normal(6.0, 0.8, (2, pairs, 1)), rng.gamma(1.0, 1.0, (2, pairs, len(STYLE)))], axis=2
    )
    gaps = (features[0] - features[1]) @ np.array([0.35, 0.2, 0.0, 0.1, 0.0])
    quality = rng.standard_normal(pairs)
    golds = [quality + 0.6 * rng.standard_normal(pairs) for _ in range(2)]
    items = np.array([f"item-{number}" for number in range(pairs)])
    parts = []
    for judge in range(judges):
        for order, sign in (("ab", 1.0), ("ba", -1.0)):
            chance = 1.0 / (1.0 + np.exp(-(0.4 + sign * (gaps + quality))))
            verdict = np.where(rng.random(pairs) < chance, "first", "second").astype(object)
            verdict[rng.random(pairs) < ties] = "tie"
            verdict[rng.random(pairs) < lost] = "unscored"
            first, second = ("t1", "t2") if order == "ab" else ("t2", "t1")
            parts.append(pd.DataFrame({
                "replicate": pd.array([pd.NA] * pairs, dtype="Int64"), "arm": "",
                "generation": pd.array([pd.NA] * pairs, dtype="Int64"), "panel": "pairs", "item_id": items,
                "category": np.resize(["writing", "maths", "code", "advice"], pairs), "pair_id": items,
                "judge": f"j{judge}" if judge else "j", "order": order, "repeat": 0, "verdict": verdict, "p_first": np.nan,
                "reason": np.where(verdict == "unscored", "no verdict", ""), "candidate_first": first,
                "candidate_second": second, "identical": False, **_golds(gold, golds), "call": "",
                "model_a": np.resize(["j", "other", "third"], pairs), "model_b": np.resize(["other", "third", "j"], pairs),
            }))  # fmt: skip
            if lengths:
                parts[-1] = parts[-1].assign(len_a=2.0 ** features[0][:, 0], len_b=2.0 ** features[1][:, 0])
    texts = pd.concat([
        pd.DataFrame({
            "item_id": items, "candidate_id": f"t{side + 1}", "characters": 6 * 2.0 ** features[side][:, 0],
            "tokens": 2.0 ** features[side][:, 0],
        } | dict.fromkeys(FEATURES, 0.0) | {"length": features[side][:, 0]} | {
            name: features[side][:, 1 + j] for j, name in enumerate(STYLE)
        })
        for side in range(2)
    ], ignore_index=True)  # fmt: skip
    return World(quick_texts(_as_text(pd.concat(parts, ignore_index=True))), quick_texts(_as_text(texts)))


def _golds(kind: str, golds: list[np.ndarray]) -> dict[str, object]:
    if not kind:
        return {"gold": ""}
    words = [np.where(gold > 0, "a", "b") for gold in golds]
    if kind == "two numbers":
        return dict(zip(("gold", "gold_2"), golds, strict=True))
    return dict(zip(("gold", "gold_2") if kind == "two words" else ("gold",), words, strict=False))


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its words as pandas has texts, as every table of a log has them."""
    return frame.astype({name: "str" for name, kind in frame.dtypes.items() if kind.kind == "O"})


def _content(**given: object) -> Callable[[int], Callable[[], object]]:
    exact, with_texts = given.pop("exact", False), given.pop("texts", False)

    def made(n: int) -> Callable[[], object]:
        world = judged(n, **given)  # type: ignore[arg-type]
        return lambda: content_estimates(
            world.judgments, world.texts if with_texts else None, judge="j", gold_exact=bool(exact)
        )

    return made


def _of_log(work: Callable[[pd.DataFrame], object], **given: object) -> Callable[[int], Callable[[], object]]:
    def made(n: int) -> Callable[[], object]:
        world = judged(n, **given)  # type: ignore[arg-type]
        return lambda: work(world.judgments)

    return made


def _log_frame(n: int) -> pd.DataFrame:
    frame = judged(n).judgments
    return frame[["item_id", "judge", "order", "verdict", "category", "gold", "model_a", "model_b", "len_a", "len_b"]]


def _reading(n: int) -> Callable[[], object]:
    frame = _log_frame(n)
    return lambda: read_verdicts(frame)


def _near_copies(n: int) -> Callable[[], object]:
    rng = seeds.rng(0, "growth", "prompts", n)
    words = np.array([f"w{number}" for number in range(5_000)])
    drawn = words[rng.integers(0, len(words), (n // 2, 15))]
    items = pd.DataFrame(
        {"item_id": [f"item-{number}" for number in range(n // 2)], "prompt": [" ".join(row) for row in drawn]}
    )
    return lambda: marked(items)


def _whole(n: int) -> Callable[[], object]:
    world = judged(n)
    items = pd.DataFrame({"item_id": world.judgments["item_id"].unique(), "prompt": "", "category": ""})
    texts = pd.DataFrame(columns=["item_id", "candidate_id", "text"])
    log = VerdictLog(world.judgments, texts, items, "characters")
    return lambda: analysis.analyze_log(log, name="log", identity="generated")


def _differences(n: int) -> Callable[[], object]:
    world = judged(n, judges=2)
    return lambda: judge_difference_estimates(world.judgments, world.texts, ["j", "j1"])


def _mitigations(n: int) -> Callable[[], object]:
    world = judged(n, judges=2)
    names = analysis.named_mitigations("swap_average, consistent_only, length_controlled, panel")
    return lambda: analysis.mitigation_rows(world.judgments, world.texts, names)


def _log_odds_of_own(n: int) -> Callable[[], object]:
    world = judged(n, judges=2)
    return lambda: self_preference_log_odds(world.judgments, world.texts, LABELS)


def _published(n: int) -> Callable[[], object]:
    world = judged(n)
    return lambda: compatibility_estimates(world.judgments, world.texts, LABELS)


def _probes(n: int) -> Callable[[], object]:
    frame = judged(n).judgments
    rng = seeds.rng(0, "growth", "probes", n)
    pair = pd.factorize(frame["pair_id"])[0]
    probe, dose = rng.integers(0, 2, pair.max() + 1)[pair], rng.uniform(1.2, 2.5, pair.max() + 1)[pair]
    frame = frame.assign(
        panel="probe", probe=np.where(probe, "bold", "padding"), dose=np.where(probe, np.nan, 2.0), dose_reached=dose
    )
    return lambda: probe_estimates(frame, judge="j")


def _choices(n: int) -> Callable[[], object]:
    slots, sets = 4, n // 4
    rng = seeds.rng(0, "growth", "choices", n)
    x, best = rng.normal(size=(sets, slots)), rng.integers(0, slots, sets)
    ids = np.array([f"item-{number}" for number in range(sets)])
    parts = []
    for rotation in range(slots):
        order = (np.arange(slots) + rotation) % slots
        eta = (
            0.5 * x[:, order]
            + 1.0 * (order == best[:, None])
            + 0.4 * (np.arange(slots) == 0)
            + rng.gumbel(size=x.shape)
        )
        names = {f"candidate_{j + 1}": f"t{order[j]}" for j in range(slots)}
        parts.append(pd.DataFrame({
            "item_id": ids, "set_id": "s", "category": "", "judge": "j", "rotation": rotation, "repeat": 0,
            "slot": eta.argmax(axis=1) + 1, "gold": [f"t{place}" for place in best], **names,
        }))  # fmt: skip
    texts = pd.DataFrame(
        {"item_id": np.repeat(ids, slots), "candidate_id": np.tile([f"t{j}" for j in range(slots)], sets)}
        | dict.fromkeys(FEATURES, 0.0) | {"length": x.ravel(), "bold": rng.gamma(1.0, 1.0, x.size)}
    )  # fmt: skip
    choices = _as_text(pd.concat(parts, ignore_index=True))
    return lambda: choice_frame(choices, slots, _as_text(texts))


def _scores(n: int) -> Callable[[], object]:
    count = n // 4
    rng = seeds.rng(0, "growth", "scores", n)
    ids = np.array([f"item-{number}" for number in range(count)])
    quality, length, bold = (rng.normal(size=(count, 2)) for _ in range(3))
    scores = []
    for scale in (Scale(1, 10), Scale(10, 1)):
        value = np.clip(np.round(5.5 + 0.5 * length + 0.3 * bold + quality + 0.8 * rng.normal(size=(count, 2))), 1, 10)
        score = value if scale.best > scale.worst else 11.0 - value
        for side, name in enumerate("ab"):
            scores.append(pd.DataFrame({
                "item_id": ids, "candidate_id": name, "category": "", "judge": "j", "repeat": 0, "scale": scale.name,
                "score": score[:, side], "at_worst": (score[:, side] == scale.worst) * 1.0,
                "at_best": (score[:, side] == scale.best) * 1.0, "reason": "",
            }))  # fmt: skip
    pairs = pd.DataFrame({
        "pair_id": ids, "item_id": ids, "category": "", "candidate_a": "a", "candidate_b": "b",
        "gold": [repr(float(gap)) for gap in quality[:, 0] - quality[:, 1]], "identical": False,
    })  # fmt: skip
    texts = pd.concat([
        pd.DataFrame({"item_id": ids, "candidate_id": name} | dict.fromkeys(FEATURES, 0.0)
                     | {"length": length[:, side], "bold": bold[:, side]})
        for side, name in enumerate("ab")
    ], ignore_index=True)  # fmt: skip
    frames = [_as_text(frame) for frame in (pd.concat(scores, ignore_index=True), pairs, texts)]
    return lambda: score_frame(frames[0], frames[1], frames[2], (Scale(1, 10), Scale(10, 1)))


def _run(work: Callable[[RunTables, Design], object]) -> Callable[[int], Callable[[], object]]:
    def made(n: int) -> Callable[[], object]:
        with tempfile.TemporaryDirectory() as path:
            folder, _ = write_folder(Path(path), max(n // JUDGMENTS_OF_ITEM, 2), lambda _: None)
            tables, design = tables_and_design(folder)
        return lambda: work(tables, design)

    return made


def _drift(tables: RunTables, design: Design) -> object:
    measured = measure(tables, design)
    return drift_estimates(measured, series(measured), design)


ESTIMATORS: dict[str, Callable[[int], Callable[[], object]]] = {
    "read a frame": _reading,
    "near-copies": _near_copies,
    "position": _of_log(lambda frame: position_estimates(frame, judge="j"), lost=0.02),
    "content: lengths, one gold": _content(),
    "content: lengths, exact gold": _content(exact=True),
    "content: five features, exact gold": _content(exact=True, texts=True),
    "content: no gold": _content(gold=""),
    "content: ties": _content(exact=True, ties=0.1),
    "content: two golds in words": _content(gold="two words"),
    "content: two golds in numbers": _content(gold="two numbers"),
    "content: lost verdicts": _content(exact=True, lost=0.05),
    "self-preference given gold": _of_log(lambda frame: self_preference_gold(frame, LABELS)),
    "self-preference, single orders": _of_log(lambda frame: self_preference_single_order(frame, LABELS)),
    "self-preference log-odds": _log_odds_of_own,
    "published terms": _published,
    "judge differences": _differences,
    "mitigations": _mitigations,
    "probes": _probes,
    "lists": _choices,
    "scores": _scores,
    "analyze, from a log that is read": _whole,
    "run: drift of features": _run(_drift),
    "run: diversity of texts": _run(lambda tables, design: diversity_series(measure(tables, design), design)),
    "run: all estimates": _run(run_estimates),
}
"""Estimator → a function that makes n judgments and gives what is timed."""


def main() -> None:
    """Print the table, a row an estimator as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--only", nargs="+", default=[""], help="estimators whose name has one of these words")
    parser.add_argument("--most", type=float, default=120.0, help="CPU seconds after which larger sizes are left out")
    given = parser.parse_args()
    print("| estimator | " + " | ".join(f"{size:,}" for size in given.sizes) + " | exponent | per million |")
    print("|---|" + "---|" * (len(given.sizes) + 2))
    for name, made in ESTIMATORS.items():
        if not any(word in name for word in given.only):
            continue
        made(2_000)()  # loads what the others find loaded
        took: dict[int, float] = {}
        for size in given.sizes:
            if took and took[max(took)] > given.most:
                break
            work = made(size)
            began = time.process_time()
            work()
            took[size] = time.process_time() - began
        least, most = min(took), max(took)
        exponent = math.log(took[most] / took[least]) / math.log(most / least) if most > least else math.nan
        cells = [f"{took[size]:.2f}" if size in took else "–" for size in given.sizes]
        print(f"| {name} | {' | '.join(cells)} | {exponent:.2f} | {took[most] / most * 1e6:.1f} |", flush=True)
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
