"""Rows of judges that score one text, or choose from a list of eight: every term, unit and variant that they have."""

from __future__ import annotations

import pandas as pd

import test_listwise
import test_scores
from judgeloop.scales import parse
from judgeloop.stats.choices import choice_frame
from judgeloop.stats.scores import score_frame


def frames() -> list[pd.DataFrame]:
    """Estimates of a planted scorer on three scales, and of a planted chooser."""
    scales = tuple(map(parse, ("1-10", "10-1", "1-5")))
    scored = test_scores.world(20, scales=scales)
    choices, texts = test_listwise.worlds(sets=40, k=8)
    return [score_frame(*scored, scales), choice_frame(choices, 8, texts)]
