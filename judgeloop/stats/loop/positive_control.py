"""What a run could have seen, told by its arms whose judge has a known taste (docs/method.md, "Positive controls")."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from judgeloop.stats.design import ArmDesign, Design


def with_positive_controls(frame: pd.DataFrame, design: Design) -> pd.DataFrame:
    """The estimates with ``positive_control`` (``estimate.PositiveControl``).

    ``seen``: in that generation, category and contrast the 95 % interval of the control's ``did_<feature>`` lies beyond 0 on the
    side of its taste; where several controls of the feature were trained like the arm, that of each. No correction for
    several tests: the term and its side are stated by the design.
    """
    tastes = {arm.name: arm.taste for arm in design.arms if arm.taste is not None}
    if not tastes:
        return frame
    marks = np.where(frame["arm"].isin(list(tastes)), "itself", "").astype("object")
    terms = [f"did_{feature}" for feature, _ in tastes.values()]
    tested = frame["term"].isin(terms) & (frame["variant"] == "") & (frame["contrast"] != "")
    places = np.flatnonzero(tested & (frame["status"] != "undefined"))
    cells = frame.iloc[places][["arm", "term", "contrast", "generation", "category", "conf_low", "conf_high"]]
    rows = list(zip(places, *(cells[name] for name in cells), strict=True))
    seen: dict[tuple[object, ...], bool] = {}
    for _, arm, term, *cell, low, high in rows:
        if arm in tastes and term == f"did_{tastes[arm][0]}":
            seen[arm, term, *cell] = bool(low > 0 if tastes[arm][1] > 0 else high < 0)
    alike = {
        arm.name: [name for name in tastes if _training(design.arm(name)) == _training(arm)] for arm in design.arms
    }
    for place, arm, term, *cell, _, _ in rows:
        said = [seen[key] for name in ([arm] if arm in tastes else alike[arm]) if (key := (name, term, *cell)) in seen]
        if said:
            marks[place] = ("itself_" if arm in tastes else "") + ("seen" if all(said) else "not_seen")
    return frame.assign(positive_control=pd.Series(marks, index=frame.index, dtype=frame["positive_control"].dtype))


def _training(arm: ArmDesign) -> ArmDesign:
    """How an arm is trained on its judge's picks. The picks of a rule do not depend on the order, so that of the label rules
    only the one that takes length out changes what is learned from them."""
    rule = arm.label_rule if arm.label_rule == "length_controlled" else ""
    return replace(arm, name="", judge="", judge_kind="", is_control=False, taste=None, label_rule=rule)
