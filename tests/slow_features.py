"""The features of a text by the parser alone and by one pattern a kind: the slow form of ``judgeloop.text.features.measure``."""

from __future__ import annotations

import functools
import math
import re

from judgeloop.text import features
from judgeloop.text.features import TextFeatures


@functools.cache
def _phrases(language: str, kind: int) -> re.Pattern[str]:
    # Longest first, so that a phrase is one hit and not also the hit of a shorter one inside it.
    words = sorted(
        (p for group in features._phrases(language)[kind].values() for p in group), key=lambda p: (-len(p), p)
    )
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)" if words else "(?!)")


def measure(text: str, language: str = "en") -> TextFeatures:
    body = text.rstrip()
    tokens = len(features._token_pattern().findall(body))
    counts = dict.fromkeys(features.STYLE_FEATURES, 0)
    opener, blocks = features._parsed(body, "" if tokens else "empty", counts)
    for prose in blocks:
        counts["hedges"] += len(_phrases(language, 0).findall(prose.lower()))
        counts["transitions"] += len(_phrases(language, 1).findall(prose.lower()))
        counts["emoji"] += len(features._emoji_pattern().findall(prose))
        counts["em_dashes"] += len(features._EM_DASH.findall(prose))
        counts["exclamations"] += len(features._EXCLAMATION.findall(prose))
    densities = {name: 100.0 * count / tokens if tokens else 0.0 for name, count in counts.items()}
    return TextFeatures(
        length=math.log2(max(tokens, 1)), tokens=tokens, characters=len(text), opener=opener or "other", **densities
    )
