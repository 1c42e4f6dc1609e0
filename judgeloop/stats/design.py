"""Whose word it is that a text is right: a reference's, which was matched by rule, or a model's (``match: judge``)."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

# What run estimates are made from: the run's tables, and the design that says what is compared with what.


@dataclass(frozen=True, slots=True)
class RunTables:
    """The run folder's tables as frames (docs/contract.md, "Tables"). A table that was not written is an empty
    frame."""

    items: pd.DataFrame
    candidates: pd.DataFrame
    judgments: pd.DataFrame
    preferences: pd.DataFrame
    signals: pd.DataFrame


@dataclass(frozen=True, slots=True)
class ArmDesign:
    """One arm. ``judge`` is the name in the judgments table; the rest are the experiment's words."""

    name: str
    judge: str
    is_control: bool = False
    judge_kind: str = "model"
    policy_kind: str = "pool"
    label_rule: str = "raw"
    update: str = "tilt"
    reference: str = "previous"
    strategy: str = "replace"
    real_fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class Margins:
    """Equivalence margins (docs/method.md, "Equivalence margins"): ``rate`` in probability, ``sd`` in generation-0
    standard deviations."""

    rate: float = 0.05
    sd: float = 0.1


@dataclass(frozen=True, slots=True)
class Design:
    """The run: T = ``generations`` feedback steps, its arms, and every (arm, control arm) that is contrasted.

    ``seed`` names the random streams of what is resampled. ``confirmatory`` is the contrast of the confirmatory family.
    """

    name: str
    seed: int
    generations: int
    arms: tuple[ArmDesign, ...]
    contrasts: tuple[tuple[str, str], ...] = ()
    confirmatory: tuple[str, str] | None = None
    margins: Margins = Margins()

    def arm(self, name: str) -> ArmDesign:
        """The arm of that name. Raises ValueError where there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(f"no arm {name!r}; known: {', '.join(arm.name for arm in self.arms)}")


_NEEDED = "need a gold judge with an endpoint"


def asked_items(items: pd.DataFrame) -> frozenset[str]:
    """item_id of the items whose reference a model must match (``match: judge``)."""
    if not {"item_id", "match", "reference"} <= set(items.columns):
        return frozenset()
    known = items["reference"].notna() & (items["reference"].astype("str").str.strip() != "")
    return frozenset(items.loc[known & (items["match"] == "judge"), "item_id"].astype("str"))


def is_matched(judgments: pd.DataFrame, items: pd.DataFrame) -> bool:
    """Whether all gold of these judgments comes of references matched by rule, and so cannot err: a model's word can."""
    if "gold" not in judgments:
        return True
    told = judgments.loc[judgments["gold"].fillna("") != "", "item_id"].astype("str")
    return not told.isin(asked_items(items)).any()


def unknown(rows: pd.DataFrame, items: pd.DataFrame, design: Design) -> str:
    """Why ``correct`` is known of no candidate; "" where it is known of one."""
    if rows["correct"].notna().any():
        return ""
    if not _of(rows, items):
        return "no item has a reference"
    if any(arm.judge_kind == "gold" for arm in design.arms):
        return "the model that the gold judge asks gave no answer that can be read"
    return f"items with match: judge {_NEEDED}"


def remark(rows: pd.DataFrame, items: pd.DataFrame) -> str:
    """Whose word ``correct`` is, where it is not all of references matched by rule; "" where it is."""
    asked = _of(rows, items)
    if not asked:
        return ""
    of_model = rows["item_id"].astype("str").isin(asked)
    answered = rows.loc[of_model, "correct"].notna()
    if answered.any():
        lost = len(rows[of_model][~answered].drop_duplicates(["replicate", "item_id", "text"]))
        unread = f"; {lost} texts are left out, for its answer could not be read" if lost else ""
        return f"{len(asked)} items by a model's word, which can err (match: judge){unread}"
    return f"{len(asked)} items with match: judge are left out: they {_NEEDED}"


def _of(rows: pd.DataFrame, items: pd.DataFrame) -> frozenset[str]:
    return asked_items(items) & frozenset(rows["item_id"].astype("str"))
