"""What the estimates of a run are made from: its tables, and its design, which says what is compared with what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd


@dataclass(frozen=True, slots=True)
class RunTables:
    """The run folder's tables as frames (docs/contract.md, "Tables"). A table that was not written is an empty frame."""

    items: pd.DataFrame
    candidates: pd.DataFrame
    judgments: pd.DataFrame
    preferences: pd.DataFrame
    signals: pd.DataFrame


@dataclass(frozen=True, slots=True)
class ArmDesign:
    """One arm. ``judge`` is the judge's name in the table ``judgments``; the other fields are spelled as in the experiment
    (docs/experiment.md).

    ``taste``: of an arm whose judge is a rule, the feature that it looks at, and 1 where it takes the text with more, −1 with less.
    Such an arm is a positive control; it is contrasted with the controls, as judged arms are. ``settings``: all settings of its policy
    and signal but the label rule, as one text to compare arms by.
    """

    name: str
    judge: str
    is_control: bool = False
    taste: tuple[str, Literal[1, -1]] | None = None
    judge_kind: str = "model"
    policy_kind: str = "pool"
    label_rule: str = "raw"
    update: Literal["tilt", "best_of_n", "group_advantage", "training"] = "tilt"
    reference: Literal["previous", "base"] = "previous"
    strategy: Literal["replace", "accumulate", "accumulate_subsample"] = "replace"
    real_fraction: float = 0.0
    tau: float = 1.0
    settings: str = ""

    @property
    def is_positive_control(self) -> bool:
        """Whether the judge's taste is known."""
        return self.taste is not None

    @property
    def is_trained(self) -> bool:
        """Whether a model's weights are trained: how far it follows its training set is then not known beforehand."""
        return self.update == "training"


@dataclass(frozen=True, slots=True)
class Margins:
    """Equivalence margins (docs/method.md, "Equivalence margins"): ``rate`` in probability, ``sd`` in generation-0
    standard deviations."""

    rate: float = 0.05
    sd: float = 0.1


@dataclass(frozen=True, slots=True)
class Design:
    """The run: T = ``generations`` feedback steps, its arms, and every contrast (arm, control arm).

    ``seed`` names the random streams of bootstraps and splits. ``confirmatory`` is the contrast of the confirmatory family. ``looks``:
    the generations of the whole run over those of these tables, above 1 while it goes on: what is looked at after each
    generation is then corrected for all of them. ``same_items`` False: generations answer other items each, as the rollouts of a
    training do; changes are then differences of the means of different items.
    """

    name: str
    seed: int
    generations: int
    arms: tuple[ArmDesign, ...]
    contrasts: tuple[tuple[str, str], ...] = ()
    confirmatory: tuple[str, str] | None = None
    margins: Margins = Margins()
    looks: float = 1.0
    same_items: bool = True

    def arm(self, name: str) -> ArmDesign:
        """The arm of that name. Raises ValueError where there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(f"no arm {name!r}; known: {', '.join(arm.name for arm in self.arms)}")
