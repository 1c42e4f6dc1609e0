"""Mitigations of a judge's bias, measured on verdicts that were given: each one's labels, by the rules that loops train on.

``swap_average``, ``consistent_only`` and ``length_controlled`` are label rules of the same verdicts. ``panel`` takes the
majority of several judges, or of one judge's repeats. ``rubric`` is the same model asked again by another prompt, and
stands in the log as a judge of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import cast

import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.experiment.schema import LabelRule
from judgeloop.learning.labels import preferences
from judgeloop.stats.estimate import Estimate, estimates_frame
from judgeloop.stats.judge.mitigation import MITIGATIONS, mitigation_estimates
from judgeloop.stats.judge.self_preference import own_model
from judgeloop.stats.mitigated import Mitigation, majority
from judgeloop.stats.presentations import not_identical
from judgeloop.stats.rows import Labels

RUBRIC = "rubric_scores"
"""The template that the mitigation ``rubric`` asks by."""
PICKS = "raw_picks"
"""Raw labels without the verdicts' probabilities."""
_OF_PICKS = ("consistent_only", "rubric", "panel")
"""What is made of picks alone: beside soft raw labels they would differ by the probabilities too."""
_RULES = ("raw", "swap_average", "consistent_only", "length_controlled")
_GROUP = ["arm", "generation", "panel"]


def wanted(words: str | Sequence[str]) -> tuple[str, ...]:
    """The mitigations named, in reporting order and with ``raw`` among them, to compare with; none for no words.

    ``words``: a list, or one text with commas. Raises InvalidInput for an unknown one.
    """
    given = words.split(",") if isinstance(words, str) else list(words)
    names = [word.strip() for word in given if word.strip()]
    offered = [name for name in MITIGATIONS if name not in ("raw", PICKS)]
    for name in names:
        if name not in (*offered, "raw"):
            near = difflib.get_close_matches(name, offered, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(offered)}"
            raise InvalidInput(f"--mitigate: unknown mitigation {name!r}; {hint}")
    return tuple(name for name in MITIGATIONS if name in {*names, "raw"}) if names else ()


def refuse(names: Sequence[str], *, judges: int, repeats: int, asks: bool, rubric: bool = False) -> None:
    """Raises InvalidInput for a mitigation that these judges and repeats cannot bear. ``asks``: models can be asked;
    ``rubric``: a judge was asked by the rubric already."""
    if "panel" in names and judges < 2 and repeats < 2:
        more = "give two or more --model, or --repeats" if asks else "the log holds one judge and no repeats"
        raise InvalidInput(f"--mitigate panel: a majority needs several verdicts on the same presentation; {more}")
    if "rubric" in names and not (asks or rubric):
        raise InvalidInput(
            f"--mitigate rubric: it asks the model again by the prompt {RUBRIC}, and the log holds no such judge; "
            "use judgeloop audit --mitigate rubric"
        )


def is_rubric(judge: str) -> bool:
    """Whether that judge is a model asked by the rubric for the mitigation's sake."""
    return judge.partition("#")[2].partition("/")[0] == RUBRIC


def rubric_of(judge: str, judges: Sequence[str]) -> str | None:
    """The judge of the log that is the same model asked by the rubric."""
    return next((one for one in judges if is_rubric(one) and own_model(one) == own_model(judge)), None)


def check(judgments: pd.DataFrame, names: Sequence[str]) -> None:
    """Raises InvalidInput where these judgments do not bear a mitigation that was named (see ``wanted``)."""
    pairs = judgments[judgments["panel"] != "probe"]
    every = list(judgments["judge"].unique())
    own, repeats = bases(every), int(pairs["repeat"].nunique()) if len(pairs) else 0
    refuse(names, judges=len(own), repeats=repeats, asks=False, rubric=len(own) < len(every))


def bases(judges: Sequence[str]) -> list[str]:
    """The judges that mitigations are of, and that are compared: a rubric asked for the mitigation's sake is no judge more."""
    return [judge for judge in judges if not is_rubric(judge)] or list(judges)


def estimates(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    names: Sequence[str],
    *,
    watch: Callable[[str, int, int], None] = lambda *_: None,
) -> pd.DataFrame:
    """The rows of ``names`` (see ``wanted``) for every judge of the log, but for rubrics; ``stats.mitigation_estimates``.

    ``judgments``: CONTRACT's columns, of several judges, arms, generations and panels; probes are left out. ``watch`` is
    told (judge, done, of). Raises InvalidInput where a mitigation was named that no judge here bears.
    """
    rows: list[Estimate] = []
    if not names:
        return estimates_frame(rows)
    pairs = judgments[judgments["panel"] != "probe"]
    every = sorted(judgments["judge"].unique())
    check(judgments, names)
    judges = bases(every)
    for done, judge in enumerate(judges):
        watch(judge, done, len(judges))
        of_judge = pairs[pairs["judge"] == judge]
        for (arm, generation, panel), own in of_judge.groupby(_GROUP, dropna=False, sort=True):
            turn = None if pd.isna(cast(float, generation)) else int(cast(float, generation))
            several = _same(pairs, arm, generation, panel)
            found = [
                one
                for name in _with_picks(names, own)
                if (one := _mitigation(name, judge, own, several, every)) is not None
            ]
            rows += mitigation_estimates(own, found, texts, Labels(judge, str(arm), turn, str(panel)))
    return estimates_frame(rows)


def _with_picks(names: Sequence[str], own: pd.DataFrame) -> list[str]:
    soft = "p_first" in own and bool(own["p_first"].notna().any())
    wanted = {*names, PICKS} if soft and set(names) & set(_OF_PICKS) else set(names)
    return [name for name in MITIGATIONS if name in wanted]


def _same(pairs: pd.DataFrame, arm: object, generation: object, panel: object) -> pd.DataFrame:
    turn = pairs["generation"].isna() if pd.isna(cast(float, generation)) else pairs["generation"] == generation
    return pairs[(pairs["arm"] == arm) & turn & (pairs["panel"] == panel)]


def _mitigation(
    name: str, judge: str, own: pd.DataFrame, several: pd.DataFrame, every: Sequence[str]
) -> Mitigation | None:
    """That mitigation of this judge's judgments; None where these judgments do not bear it."""
    zeroed = ("length",) if name == "length_controlled" else ()
    if name in _RULES:
        return Mitigation(name, preferences(own, cast(LabelRule, name)), own, len(not_identical(own)), zeroed)
    if name == PICKS:
        hard = own.assign(p_first=float("nan"))
        return Mitigation(name, preferences(hard, "raw"), hard, len(not_identical(own)))
    if name == "rubric":
        other = rubric_of(judge, every)
        asked = several[several["judge"] == other] if other is not None else several.iloc[:0]
    else:
        members = several[~several["judge"].map(is_rubric)]
        asked = _shared(members)
        if asked.groupby(["item_id", "pair_id", "order"]).size().max() < 2:
            return None
    if asked.empty:
        return None
    made = asked if name == "rubric" else majority(asked, "panel")
    return Mitigation(name, preferences(made, "raw"), made, len(not_identical(asked)))


def _shared(members: pd.DataFrame) -> pd.DataFrame:
    """The judgments of pairs that every member was asked: a majority of one is not a panel's."""
    count = members["judge"].nunique()
    asked_by = members.groupby(["item_id", "pair_id"])["judge"].transform("nunique")
    return members[asked_by == count]
