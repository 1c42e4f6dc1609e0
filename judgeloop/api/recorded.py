"""What an earlier run's folder says for the next one's plan: tokens a call, calls a second, how much things vary."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from judgeloop.api.loads import Range
from judgeloop.errors import FolderMismatch
from judgeloop.rundir import RunFolder
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.reply import read

_PAUSE_S = 60
"""Between two replies, a longer gap is no work: the run was stopped and resumed."""
_SHORTEST_S = 10
"""Time stamps are whole seconds: below this, a rate from them means little."""
_PRESENTED = re.compile(r"r\d+|j\d+")
"""How the call id of a presentation ends: in its repeat, or in the member of a panel."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Of one run: (stage, model) → tokens of a call's prompt and completion; None where nothing says. Stages are draft,
    draft with exemplars (generation 1 on) and judge."""

    name: str
    tokens: dict[tuple[str, str], tuple[Range, Range]]
    draft_tokens: Range | None
    calls_per_second: float | None
    conflict: float | None
    drift_sd: float | None


def recorded(path: str | Path) -> Recorded:
    """Read a run folder's recorded calls and, where it has finished, its estimates. Raises FolderMismatch.

    A call's tokens are the mean over the parts (a replicate's generation, a panel's); the range is that of these means.
    """
    folder = RunFolder.recorded(path)
    cassette = Cassette(folder.path, writable=False)
    sums: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    stamps: list[int] = []
    try:
        for exchange in cassette.exchanges():
            reply = read(exchange.status, exchange.response, exchange.fault, exchange.route)
            parts = exchange.call.split("/")
            if reply.failure or len(parts) < 4 or not reply.prompt_tokens:
                continue
            stamp = exchange.response.get("created")
            if isinstance(stamp, int) and stamp > 0:
                stamps.append(stamp)
            stage = parts[1] if parts[0] == "audit" else parts[2]
            if stage == "judge" and not _PRESENTED.fullmatch(parts[-1]):
                continue  # verdict trials, gold matching
            if stage == "draft" and parts[1] != "g0":
                stage = "draft with exemplars"
            key = (stage, str(exchange.request.get("model")))
            counted = sums[key]["/".join(parts[:2])]
            for place, value in enumerate((1, reply.prompt_tokens, reply.completion_tokens)):
                counted[place] += value
    finally:
        cassette.close()
    tokens = {key: (_range(by_part, 1), _range(by_part, 2)) for key, by_part in sums.items()}
    drafts = [completion for (stage, _), (_, completion) in tokens.items() if stage.startswith("draft")]
    conflict, sd = _spread(folder)
    return Recorded(Path(path).name, tokens, drafts[0] if drafts else None, _rate(stamps), conflict, sd)


def _range(by_part: dict[str, list[int]], place: int) -> Range:
    means = [counted[place] / counted[0] for counted in by_part.values()]
    whole = sum(counted[place] for counted in by_part.values()) / sum(counted[0] for counted in by_part.values())
    return Range(min(means), whole, max(means))


def _rate(stamps: list[int]) -> float | None:
    """Calls a second while the run was at work."""
    stamps.sort()
    gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    busy = sum(gap for gap in gaps if gap <= _PAUSE_S)
    return len(stamps) / busy if busy >= _SHORTEST_S else None


def _spread(folder: RunFolder) -> tuple[float | None, float | None]:
    """The judge's conflict rate on the first panel that has one, and the SD between replicates of the last did_length."""
    try:
        found = folder.estimates()
    except FolderMismatch:
        return None, None
    plain = found[(found["variant"] == "") & (found["category"] == "") & (found["status"] != "undefined")]
    rates = plain[(plain["term"] == "conflict_rate") & plain["panel"].isin(["anchor", "pairs"])]
    drifts = plain[(plain["term"] == "did_length") & plain["std_error"].notna() & (plain["std_error"] > 0)]
    conflict = float(rates["estimate"].iloc[0]) if len(rates) and rates["estimate"].iloc[0] > 0 else None
    if drifts.empty:
        return conflict, None
    last = drifts.sort_values("generation").iloc[-1]
    count = pd.to_numeric(last["n_replicates"])
    return conflict, float(last["std_error"]) * math.sqrt(float(count))
