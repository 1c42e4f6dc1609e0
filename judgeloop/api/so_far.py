"""What a run that goes on has finished: the part of its tables that a shorter run would have left, and its estimates.

The run's folder is read and never written. What is computed goes into a folder of its own, in the run folder's form, so that
the report is made from it as from any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from judgeloop.commands.run import design_of
from judgeloop.errors import FolderMismatch
from judgeloop.experiment.resolve import Resolved, resolve
from judgeloop.rundir import TABLES, RunFolder
from judgeloop.stats.design import RunTables
from judgeloop.stats.loop.estimates import run_estimates

_PART = re.compile(r"(?:s(?P<replicate>\d+)|panels)-g(?P<generation>\d+)(?:-.+)?")
_STEP = ("preferences", "signals")
"""Tables that say how the next generation came to be: a run's last generation has none of them."""
_STEP_COLUMNS = ("reward", "p_selected", "p_selected_gold", "p_training", "p_next")


@dataclass(frozen=True, slots=True)
class Block:
    """Replicates that have all finished generations 0 to ``generation``."""

    replicates: tuple[int, ...]
    generation: int

    @property
    def name(self) -> str:
        """Tells this block from every other of the same run."""
        return f"g{self.generation}-s{'.'.join(map(str, self.replicates))}"


def experiment_of(folder: RunFolder) -> Resolved | None:
    """The folder's experiment; None where it holds an audit or analysis. Raises ExperimentError, FolderMismatch."""
    stated = folder.experiment()
    return resolve(stated, folder.path, where=str(folder.path / "experiment.yaml")) if folder.kind == "run" else None


def finished(folder: RunFolder) -> dict[int, int]:
    """Replicate → its last finished generation. A generation counts once its judgments are written, after its candidates."""
    turns = set(_parts(folder, "candidates").values()) & set(_parts(folder, "judgments").values())
    last: dict[int, int] = {}
    for replicate in sorted(replicate for replicate, generation in turns if replicate is not None and generation == 0):
        generation = 0
        while (replicate, generation + 1) in turns:
            generation += 1
        last[replicate] = generation
    return last


def largest_block(last: Mapping[int, int]) -> Block | None:
    """The replicates and generations to estimate from: the most turns (replicates times generations) of which none is
    missing, so that every generation rests on the same replicates; of equals the one that reaches further."""
    blocks = [Block(tuple(r for r, g in last.items() if g >= reached), reached) for reached in set(last.values())]
    return max(blocks, key=lambda one: (len(one.replicates) * (one.generation + 1), one.generation), default=None)


def smallest_block(last: Mapping[int, int]) -> Block | None:
    """The first replicate's generation 0: what is estimated soonest. None where none has finished it."""
    return Block((min(last),), 0) if last else None


def write_so_far(folder: RunFolder, resolved: Resolved, block: Block, target: Path) -> RunFolder:
    """Tables and estimates of the block as a run folder at ``target``: those of a run that ended with that generation.
    Raises FolderMismatch where a part cannot be read."""
    so_far = RunFolder(target)
    ends_early = block.generation < resolved.experiment.generations
    for table in TABLES:
        for part, (replicate, generation) in _parts(folder, table).items():
            if generation > block.generation or (replicate is not None and replicate not in block.replicates):
                continue
            is_last = ends_early and generation == block.generation and replicate is not None
            if is_last and table in _STEP:
                continue
            source = folder.path / "tables" / table / part
            if is_last and table == "candidates":
                so_far.write_part(table, source.stem, _without_step(source))
            else:
                _link(source, target / "tables" / table / part)
    so_far.write_text("experiment.yaml", folder.experiment_text())
    so_far.write_json("environment.json", folder.environment())
    tables = RunTables(**{table: so_far.table(table) for table in TABLES})
    rows = tables.judgments[tables.judgments["panel"] == "policy"]
    judges = {str(arm): str(judge) for arm, judge in rows.groupby("arm")["judge"].first().items()}
    names = {arm.name: judges.get(arm.name, arm.judge.kind) for arm in resolved.arms}
    design = replace(design_of(resolved, names), generations=block.generation)
    so_far.write_estimates(run_estimates(tables, design))
    return so_far


def _parts(folder: RunFolder, table: str) -> dict[str, tuple[int | None, int]]:
    """File name → (replicate, generation) of every part of a table; parts of the whole run have generation −1."""
    found: dict[str, tuple[int | None, int]] = {}
    for path in sorted((folder.path / "tables" / table).glob("*.parquet")):
        match = _PART.fullmatch(path.stem)
        replicate = match["replicate"] if match else None
        found[path.name] = (int(replicate) if replicate else None, int(match["generation"]) if match else -1)
    return found


def _link(part: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(part.resolve())


def _without_step(part: Path) -> pd.DataFrame:
    """A generation's candidates without what was learned from them."""
    try:
        frame = pd.read_parquet(part)
    except (OSError, ValueError) as error:
        raise FolderMismatch(f"{part}: cannot be read ({type(error).__name__})") from None
    return frame.assign(**dict.fromkeys(_STEP_COLUMNS, np.nan))
