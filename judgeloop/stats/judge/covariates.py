"""Differences between a judgment's two texts: the covariates of the content models, antisymmetric and never centred.

Rows are scored presentations of two different texts. Every covariate is a − b (candidate a minus candidate b), and the
response is 1 where a was picked, so that a covariate's sign does not depend on the order (docs/method.md, "Features"
and "The content model").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from judgeloop.kernels import distinct
from judgeloop.stats.estimate import LOG_ODDS, Bias, SampleCounts
from judgeloop.stats.presentations import (
    Booleans,
    Floats,
    Integers,
    a_first,
    item_codes,
    not_identical,
    pair_codes,
    picked_a,
    text_places,
    unscored,
)
from judgeloop.text.features import FEATURES

NO_GOLD = "no gold: what the judge likes cannot be told from what is better"
GOLD_AS_EXACT = "gold taken as exact; if it errs, quality it misses counts as bias"
_MARGINS = {"a": 1.0, "b": -1.0, "tie": 0.0}
_MARGINS_AND_BLANK = {**_MARGINS, "": float("nan")}
_FEW_VALUES = 8
"""Up to so many different golds are read without a pandas series, which is quicker."""


@dataclass(frozen=True, slots=True)
class Covariates:
    """Scored presentations as arrays of n rows.

    ``picked_a`` in [0, 1]; ``order`` +1 where a was shown first, −1 where b was, 0 where it is unknown; ``differences`` (n, p) of ``features``, a −
    b, length in doublings, the rest in generation-0 SDs; ``gold``, ``gold_2`` positive where a is better, NaN where not
    known; ``numeric_gold`` where golds are numbers and not a|b|tie; ``items`` and ``pairs`` integer codes; ``ties``
    where the verdict is a tie; ``index`` the rows' positions among the judgments of different texts. ``mean_length`` of
    the two texts, in doublings; None where lengths are not known.
    """

    features: tuple[str, ...]
    picked_a: Floats
    order: Floats
    differences: Floats
    gold: Floats
    gold_2: Floats
    numeric_gold: bool
    items: Integers
    pairs: Integers
    ties: Booleans
    index: Integers
    n_unscored: int
    n_without_features: int
    mean_length: Floats | None = None

    def __len__(self) -> int:
        return len(self.picked_a)

    @property
    def counts(self) -> SampleCounts:
        """Numbers of scored judgments, of their items, and of unscored judgments."""
        return SampleCounts(len(self), distinct(self.items), self.n_unscored)

    @property
    def length(self) -> Floats | None:
        """(n,) difference in doublings, or None where lengths are not known or never differ."""
        return self.differences[:, self.features.index("length")] if "length" in self.features else None

    def where(self, rows: Booleans | Integers) -> Covariates:
        """The rows of a mask, or the rows at positions in their order; the features stay."""
        return replace(
            self, picked_a=self.picked_a[rows], order=self.order[rows], differences=self.differences[rows],
            gold=self.gold[rows], gold_2=self.gold_2[rows], items=self.items[rows], pairs=self.pairs[rows],
            ties=self.ties[rows], index=self.index[rows],
            mean_length=None if self.mean_length is None else self.mean_length[rows],
        )  # fmt: skip

    def picked_by_gold(self) -> Covariates:
        """The same rows with gold in the judge's place (a tie ½)."""
        return replace(self, picked_a=(np.sign(self.gold) + 1.0) / 2.0)

    def with_gold(self) -> Covariates:
        """The rows whose gold is known."""
        return self.where(~np.isnan(self.gold))

    def with_any_gold(self) -> Covariates:
        """The rows with one gold or both."""
        return self.where(~np.isnan(self.gold) | ~np.isnan(self.gold_2))


def covariates(
    judgments: pd.DataFrame, texts: pd.DataFrame | None = None, *, scales: Mapping[str, float] | None = None
) -> Covariates:
    """The covariates of a judge's scored judgments of different texts.

    ``judgments``: the columns of docs/contract.md, "Tables", optionally ``gold_2``, and either ``texts`` (``item_id,
    candidate_id`` and feature columns, ``replicate`` too where ids repeat across replicates) or columns ``len_a,
    len_b`` (doublings are log2(len_a/len_b)). ``scales``: the generation-0 standard deviation by feature; default that
    over ``texts``; length is never scaled. Judgments whose features are not known are counted and left out. A feature
    that does not vary in ``scales`` or among these rows is not used. Raises ValueError for a gold that is no gold (see
    ``gold_margin``).
    """
    compared = not_identical(judgments).reset_index(drop=True)
    picked = picked_a(compared)
    order = _order_signs(compared)
    names, differences, lengths = _differences(compared, texts, scales)
    gold, numeric = _gold_column(compared, "gold")
    gold_2, numeric_2 = _gold_column(compared, "gold_2")
    scored = ~np.isnan(picked)
    has_features = np.all(np.isfinite(differences), axis=1) if names else np.ones(len(compared), dtype=bool)
    keep = scored & has_features
    varies = [bool(np.ptp(differences[keep, j]) > 0) if keep.any() else False for j in range(len(names))]
    return Covariates(
        features=tuple(name for name, used in zip(names, varies, strict=True) if used),
        picked_a=picked[keep],
        order=order[keep],
        differences=differences[keep][:, varies] if names else np.empty((int(keep.sum()), 0)),
        gold=gold[keep],
        gold_2=gold_2[keep],
        numeric_gold=numeric or numeric_2,
        items=item_codes(compared)[keep],
        pairs=pair_codes(compared)[keep],
        ties=(compared["verdict"] == "tie").to_numpy()[keep],
        index=np.flatnonzero(keep),
        n_unscored=unscored(compared),
        n_without_features=int((scored & ~has_features).sum()) if names else int(scored.sum()),
        mean_length=None if lengths is None else lengths[keep],
    )


def _order_signs(judgments: pd.DataFrame) -> Floats:
    """(n,) +1 where a was shown first, −1 where b was, 0 where that is unknown. Where it is known of no judgment, 1: the
    column then stands for whatever else favours a or b throughout, as in a log of one order."""
    order = judgments["order"]
    signs = np.select([(order == "ab").to_numpy(), (order == "ba").to_numpy()], [1.0, -1.0], 0.0)
    return np.asarray(signs if signs.any() else np.ones(len(signs)), dtype=np.float64)


def gold_margin(values: pd.Series) -> tuple[Floats, bool]:
    """(n,) +1 where gold says a, −1 b, 0 tie, NaN empty, and False; or, where golds are numbers, those numbers, and True.

    Raises ValueError for any other value, and for words and numbers mixed.
    """
    # Each different value is read once: a log may have a million golds of three words.
    codes, values_once = pd.factorize(values.astype("object"))
    margins = [
        _MARGINS_AND_BLANK.get(kind.strip().lower()) if isinstance(kind, str) else None
        for kind in values_once[:_FEW_VALUES]
    ]
    if len(values_once) <= _FEW_VALUES and None not in margins:  # words and blanks, as most golds are
        return np.array([*margins, np.nan], dtype=np.float64)[codes], False
    raw = pd.Series(values_once, dtype="object")
    words = raw.map(lambda value: _MARGINS.get(value.strip().lower()) if isinstance(value, str) else None)
    empty = raw.map(lambda value: isinstance(value, str) and not value.strip())
    named = words.astype("float64")
    numbers = pd.to_numeric(raw.where(~empty & named.isna(), np.nan), errors="coerce").astype("float64")
    unknown = ~empty & named.isna() & ~np.isfinite(numbers)
    if unknown.any():
        raise ValueError(f"gold must be a, b, tie, a finite number or empty, not {raw[unknown].iloc[0]!r}")
    if named.notna().any() and numbers.notna().any():
        raise ValueError("gold must be words (a, b, tie) or numbers throughout, not both")
    numeric = bool(numbers.notna().any())
    margin_of = np.asarray(numbers if numeric else named, dtype=np.float64)
    return np.append(margin_of, np.nan)[codes], numeric  # the code of a missing value is −1


def feature_bias(name: str) -> Bias:
    """The kind of bias that a slope on the feature ``name`` shows."""
    return "verbosity" if name == "length" else "style"


def feature_unit(name: str, of: str = LOG_ODDS) -> str:
    """The unit of a slope on the feature ``name``: ``of`` per doubling (length) or per generation-0 SD (style)."""
    return f"{of} per {'doubling' if name == 'length' else 'generation-0 SD'}"


def _gold_column(judgments: pd.DataFrame, column: str) -> tuple[Floats, bool]:
    """``gold_margin`` of a column; NaN and False where there is no such column."""
    if column not in judgments:
        return np.full(len(judgments), np.nan), False
    return gold_margin(judgments[column])


def _differences(
    judgments: pd.DataFrame, texts: pd.DataFrame | None, scales: Mapping[str, float] | None
) -> tuple[list[str], Floats, Floats | None]:
    """Names of the features, (n, p) their differences a − b in the units of ``Covariates``, and (n,) the two texts' mean
    length in doublings (None where no length is known); NaN where not known."""
    if texts is None or texts.empty:
        if not {"len_a", "len_b"} <= set(judgments.columns):
            return [], np.empty((len(judgments), 0)), None
        # An empty text counts as one unit of length, as in the features of texts.
        logs = np.log2(judgments[["len_a", "len_b"]].astype("float64").clip(lower=1.0).to_numpy())
        return ["length"], (logs[:, 0] - logs[:, 1])[:, None], logs.mean(axis=1)
    names = [name for name in FEATURES if name in texts.columns]
    spread = {name: 1.0 if name == "length" else _scale(texts, name, scales) for name in names}
    names = [name for name in names if spread[name] > 0]
    features = np.empty((len(texts) + 1, len(names)))
    features[:-1] = texts[names].astype("float64").to_numpy()
    features[-1] = np.nan  # of the place −1, a text that is not there
    first, second = (features[places] for places in text_places(judgments, texts).T)
    signs = np.where(a_first(judgments), 1.0, -1.0)
    differences = (first - second) * signs[:, None] / np.array([spread[name] for name in names])
    j = names.index("length") if "length" in names else None
    return names, differences, None if j is None else (first[:, j] + second[:, j]) / 2.0


def _scale(texts: pd.DataFrame, name: str, scales: Mapping[str, float] | None) -> float:
    """The generation-0 standard deviation of a style feature: as given, else over ``texts``; 0 where it has none."""
    if scales is not None and name in scales:
        return float(scales[name])
    values = texts[name].to_numpy(dtype=np.float64, na_value=np.nan)
    values = values[~np.isnan(values)]
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
