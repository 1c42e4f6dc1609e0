"""Worlds of the claims study that draw audits: what judges pick, and the texts that they pick from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import analysis
from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.kernels import sigmoid
from judgeloop.stats.judge.listwise import choice_frame
from judgeloop.stats.judge.pointwise import score_frame
from judgeloop.text.features import FEATURES
from judgeloop.text.templates import Scale
from judgeloop.validation.claim_worlds import (
    LESS,
    MISSING_TESTS,
    MORE,
    NOTHING,
    THERE,
    UNEVEN,
    AuditSample,
    ClaimWorld,
    EstimatedSample,
    Generator,
    Truth,
    of_judge,
)
from judgeloop.validation.worlds import SLOTS, Floats, Verdicts, judged, logistic, pair_table, picks, texts


def _no_run(rows: int, **columns: object) -> dict[str, object]:
    """The columns of judgments that are of no run, with ``columns`` of their own."""
    missing = pd.array([pd.NA] * rows, dtype="Int64")
    return {"arm": "", "panel": "pairs", "generation": missing, "replicate": missing, **columns}


def _audit(
    table: pd.DataFrame,
    verdicts: Mapping[str, Verdicts],
    a: Mapping[str, Floats] | None = None,
    b: Mapping[str, Floats] | None = None,
    *,
    exact: bool = False,
    more: pd.DataFrame | None = None,
    **columns: object,
) -> AuditSample:
    """The log of those verdicts. ``a``: the features of each pair's text a, or with no ``b`` the differences a − b; ``more``:
    judgments of another panel; ``columns``: further ones of the judgments."""
    judgments = judged(table, verdicts, columns=_no_run(len(table), **columns))
    if more is not None:
        judgments = pd.concat([judgments, more], ignore_index=True)
    if a is None:
        return AuditSample(judgments, None, exact)
    sides = (a, b) if b is not None else tuple({name: sign * v / 2 for name, v in a.items()} for sign in (1.0, -1.0))
    return AuditSample(judgments, texts(table, *sides), exact)


def by_order(
    content: Floats, generator: Generator, *, position: float | Floats = 0.0, noise: Floats | None = None, **lost: float
) -> dict[str, Verdicts]:
    """Both orders of pairs whose text a is picked with log-odds ``content`` (± ``position``, + ``noise`` by order)."""
    extra = np.zeros((2, len(content))) if noise is None else noise
    return {
        order: picks(position + sign * content + added, generator, **lost)
        for order, sign, added in zip(("ab", "ba"), (1.0, -1.0), extra, strict=True)
    }


def _prefers(log_odds: Floats, generator: Generator) -> NDArray[np.str_]:
    """(n,) "a" or "b", a with these log-odds: an a/b gold."""
    return np.where(generator.random(len(log_odds)) < logistic(log_odds), "a", "b")


# Audits of judges without a bias that could look biased


def _fair_noisy(generator: Generator) -> AuditSample:
    items = 100
    length, bold, gold = generator.standard_normal((3, items))
    noise = generator.standard_normal((5, items))
    table = pair_table(items)
    probe = judged(
        table, by_order(0.5 * noise[4], generator, noise=noise[2:4]),
        columns=_no_run(items, panel="probe", probe="padding", dose=1.5),
    )  # fmt: skip
    return _audit(
        table, by_order(gold, generator, noise=noise[:2]), {"length": length, "bold": bold}, exact=True, more=probe,
        gold=gold, model_a="planted", model_b="other",
    )  # fmt: skip


def _order_locked(generator: Generator) -> AuditSample:
    items, within = 60, 6
    lock = np.repeat(np.where(generator.random(items) < 0.5, 1.0, -1.0), within)
    length, bold, gold = generator.standard_normal((3, items * within))
    verdicts = {order: picks(1e3 * lock, generator, unscored=0.1) for order in ("ab", "ba")}
    table = pair_table(items * within, within)
    return _audit(table, verdicts, {"length": length, "bold": bold}, exact=True, gold=gold)


def _unequal_matchups(generator: Generator) -> AuditSample:
    items, most = 40, 12
    sizes = np.minimum(generator.geometric(0.25, size=items), most)
    table = pair_table(items * most, most)[np.tile(np.arange(most), items) < np.repeat(sizes, most)]
    pull = np.repeat(generator.standard_normal(items), sizes)
    return _audit(table.reset_index(drop=True), {order: picks(pull, generator) for order in ("ab", "ba")})


def _length_blind(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 300))
    quality = 0.6 * length + unseen
    first, second = (_prefers(quality, generator) for _ in range(2))
    return _audit(
        pair_table(300), by_order(quality, generator), {"length": length, "bold": bold}, gold=first, gold_2=second
    )  # fmt: skip


def _noisy_golds(generator: Generator, *, second: bool) -> AuditSample:
    length, bold, residual, *errors = generator.standard_normal((5, 300))
    quality = 0.5 * length + math.sqrt(0.75) * residual
    golds = [quality + math.sqrt(1 / 0.7 - 1) * error for error in errors]
    return _audit(
        pair_table(300), by_order(quality, generator), {"length": length, "bold": bold}, gold=golds[0],
        gold_2=golds[1] if second else np.nan,
    )  # fmt: skip


_SHARES = (1.0, 0.3, 0.6, 0.5, 0.2, 0.8, 0.25, 0.8, 0.6, 0.5)
"""The share of pairs in which each feature differs: length always, code fences in a fifth."""


def _ten_features(generator: Generator, items: int) -> AuditSample:
    differences = generator.standard_normal((items, len(FEATURES)))
    differences *= generator.random(differences.shape) < np.array(_SHARES)
    gold = generator.standard_normal(items)
    named = dict(zip(FEATURES, differences.T, strict=True))
    return _audit(pair_table(items), by_order(gold, generator), named, exact=True, gold=gold)


_SHORTER = -0.6
"""Log-odds a doubling by which a fallible gold, and the quality behind it, go with shorter texts."""


def _one_gold(generator: Generator, taste: float, sharpness: float, items: int = 200) -> AuditSample:
    """One a/b gold that errs and prefers shorter texts; the judge reads quality ``sharpness`` times as sharply as gold, and
    length by ``taste`` besides."""
    length, bold, unseen = generator.standard_normal((3, items))
    quality = _SHORTER * length + 0.8 * unseen
    content = taste * length + sharpness * quality
    return _audit(
        pair_table(items), by_order(content, generator), {"length": length, "bold": bold}, gold=_prefers(quality, generator)
    )  # fmt: skip


def _flipped_gold(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 200))
    gold = _prefers(_SHORTER * length + 0.8 * unseen, generator)
    follows = np.where(gold == "a", 1.0, -1.0)
    content = np.where(generator.random((2, 200)) < 0.25, -1e3, 1e3) * follows
    verdicts = {"ab": picks(content[0], generator), "ba": picks(-content[1], generator)}
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, gold=gold)


def _gold_with_ties(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 300))
    quality = 0.6 * length + 0.8 * unseen
    seen = quality + 0.8 * generator.standard_normal(300)
    gold = np.where(np.abs(seen) < 0.5, "tie", np.where(seen > 0, "a", "b"))
    return _audit(pair_table(300), by_order(1.5 * quality, generator), {"length": length, "bold": bold}, gold=gold)


def _right_or_wrong(generator: Generator, taste: float) -> AuditSample:
    """Texts are right or wrong, and the longer more often right; gold is which of two is, and ties where both are or none."""
    first, second, bold = generator.standard_normal((3, 300))
    right_a, right_b = (generator.random(300) < sigmoid(0.8 * length) for length in (first, second))
    gold = np.where(right_a == right_b, "tie", np.where(right_a, "a", "b"))
    difference = first - second
    verdicts = by_order(1.5 * (right_a.astype(float) - right_b) + taste * difference, generator)
    return _audit(pair_table(300), verdicts, {"length": difference, "bold": bold}, exact=True, gold=gold)


def _tie_prone(generator: Generator) -> AuditSample:
    length, bold, gold = generator.standard_normal((3, 200))
    verdicts = {}
    for order, sign in (("ab", 1.0), ("ba", -1.0)):
        chosen = picks(sign * 1.5 * gold, generator)
        verdicts[order] = np.where(generator.random(200) < np.exp(-np.abs(gold)), "tie", chosen)
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, exact=True, gold=gold)


def _unscored(generator: Generator, by: str) -> AuditSample:
    """Replies of a fair judge, of which those that would pick the first slot, or the longer text, get lost more often."""
    length, bold, gold = generator.standard_normal((3, 200))
    verdicts = {}
    for order, sign in (("ab", 1.0), ("ba", -1.0)):
        chosen = picks(sign * gold, generator)
        first = chosen == "first"
        at_risk = first if by == "slot" else first == (sign * length > 0)
        verdicts[order] = np.where(generator.random(200) < np.where(at_risk, 0.35, 0.05), "unscored", chosen)
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, exact=True, gold=gold)


def _shared_raters(generator: Generator, differing: float | None = None) -> AuditSample:
    """Two a/b golds: of raters who share a preference for length, or where the second is the first one but for that share."""
    length, bold, unseen = generator.standard_normal((3, 300))
    copied = differing is not None
    quality = 0.6 * length + unseen if copied else unseen
    first = _prefers(quality if copied else quality + 0.8 * length, generator)
    second = _prefers(quality + 0.8 * length, generator)
    if differing is not None:
        other = np.where(first == "a", "b", "a")
        second = np.where(generator.random(300) < differing, other, first)
    return _audit(
        pair_table(300), by_order(quality, generator), {"length": length, "bold": bold}, gold=first, gold_2=second
    )  # fmt: skip


def _agreeing_golds(generator: Generator, taste: float) -> AuditSample:
    """Two a/b golds that agree on nine pairs in ten; texts differ in bold in three pairs of 300, fewer than a fit takes."""
    length, unseen = generator.standard_normal((2, 300))
    quality = 0.5 * length + unseen
    first, second = (_prefers(6.0 * quality, generator) for _ in range(2))
    bold = np.where(np.arange(300) < 3, 1.0, 0.0)
    return _audit(
        pair_table(300), by_order(quality + taste * length, generator), {"length": length, "bold": bold}, gold=first,
        gold_2=second,
    )  # fmt: skip


def _order_by_lot(generator: Generator) -> AuditSample:
    table = pair_table(300)
    sample = _audit(table, by_order(1.5 * generator.standard_normal(300), generator), order_drawn=True)
    drawn = dict(zip(table["item_id"], np.where(generator.random(300) < 0.5, "ab", "ba"), strict=True))
    shown = sample.judgments["order"] == sample.judgments["item_id"].map(drawn)
    return replace(sample, judgments=sample.judgments[shown].reset_index(drop=True))


def _selective_gold(generator: Generator) -> AuditSample:
    length, bold, gold = generator.standard_normal((3, 300))
    verdicts = by_order(gold, generator)
    longer = (verdicts["ab"] == "first") == (length > 0)
    labelled = np.where(generator.random(300) < np.where(longer, 0.9, 0.25), gold, np.nan)
    return _audit(pair_table(300), verdicts, {"length": length, "bold": bold}, exact=True, gold=labelled)


def _at_random(generator: Generator, items: int, lost: float, labelled: float) -> AuditSample:
    """Quality alone; replies get lost by chance, and exact gold is known of a share of pairs drawn by lot."""
    length, bold, gold = generator.standard_normal((3, items))
    known = np.where(generator.random(items) < labelled, gold, np.nan)
    verdicts = by_order(gold, generator, unscored=lost)
    return _audit(pair_table(items), verdicts, {"length": length, "bold": bold}, exact=True, gold=known)


def _heavy_tails(generator: Generator) -> AuditSample:
    bold, gold = generator.standard_normal((2, 30))
    length = generator.standard_t(2, size=30)
    return _audit(pair_table(30), by_order(gold, generator), {"length": length, "bold": bold}, exact=True, gold=gold)


_WORDS = np.array([f"word{k}" for k in range(400)])


def _near_duplicates(generator: Generator) -> AuditSample:
    originals, copies = 40, 3
    table = pair_table(originals * copies)
    lock = np.where(generator.random(originals) < 0.5, 1e3, -1e3)
    locked = np.repeat(np.where(generator.random(originals) < 0.6, lock, 0.0), copies)
    content = np.repeat(1e2 * generator.standard_normal(originals), copies)
    verdicts = {order: picks(locked + sign * content, generator) for order, sign in (("ab", 1.0), ("ba", -1.0))}
    rows, prompts = [], []
    for original in range(originals):
        words = {side: generator.choice(_WORDS, size=generator.integers(20, 60)) for side in "ab"}
        asked = generator.choice(_WORDS, size=12)
        for item in table["item_id"][copies * original : copies * (original + 1)]:
            prompts.append({"item_id": item, "prompt": _with_one_changed(asked, generator), "category": ""})
            rows += [
                {"item_id": item, "candidate_id": side, "text": _with_one_changed(words[side], generator)} for side in "ab"
            ]  # fmt: skip
    judgments = _audit(table, verdicts).judgments
    log = VerdictLog(judgments, pd.DataFrame(rows), pd.DataFrame(prompts))
    return AuditSample(judgments, log=log)


def _with_one_changed(words: NDArray[np.str_], generator: Generator) -> str:
    changed = words.copy()
    changed[generator.integers(len(words))] = generator.choice(_WORDS)
    return " ".join(changed)


# Audits of judges with a bias


def _always_first(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 200))
    gold = _prefers(_SHORTER * length + 0.8 * unseen, generator)
    verdicts = {order: np.full(200, "first", dtype=object) for order in ("ab", "ba")}
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, gold=gold)


def _length_only(generator: Generator) -> AuditSample:
    length, bold, unseen = generator.standard_normal((3, 200))
    gold = _prefers(_SHORTER * length + 0.8 * unseen, generator)
    return _audit(
        pair_table(200), by_order(1e3 * length, generator), {"length": length, "bold": bold}, gold=gold
    )  # fmt: skip


def _temperature_zero(generator: Generator) -> AuditSample:
    length, bold, gold = generator.standard_normal((3, 200))
    verdicts = by_order(1e6 * (0.5 * length + gold), generator, position=1e6 * 0.7)
    return _audit(pair_table(200), verdicts, {"length": length, "bold": bold}, exact=True, gold=gold)


def _middle_length(generator: Generator) -> AuditSample:
    a, b, gold = generator.standard_normal((3, 300))
    verdicts = by_order(-1.2 * (a**2 - b**2) + 0.5 * gold, generator)
    return _audit(pair_table(300), verdicts, {"length": a}, {"length": b}, exact=True, gold=gold)


def _rare_conflicts(generator: Generator, items: int) -> AuditSample:
    locked = generator.random(items) < 0.1
    chosen = np.where(generator.random(items) < 0.5, 0, 1)
    verdicts = {
        "ab": SLOTS[np.where(locked, 0, chosen)],
        "ba": SLOTS[np.where(locked, 0, 1 - chosen)],
    }
    return _audit(pair_table(items), verdicts)


# Audits of edited copies, of scores, of lists and of several judges


_EDITS = {"padding": 2.0, "authority": 1.2, "bold": 1.0, "self_name": 1.1}
"""Probe → the edited text's words per word of its original."""


def _copies(probe: str, ratio: float, verdicts: Mapping[str, Verdicts]) -> pd.DataFrame:
    """Judgments on originals against copies, edited as ``probe`` says ("": not at all), of ``ratio`` words per word."""
    items = len(verdicts["ab"])
    columns = _no_run(
        items, panel="probe", probe=probe, dose=ratio if probe == "padding" else np.nan, dose_reached=ratio, identical=probe == ""
    )  # fmt: skip
    return judged(pair_table(items).assign(pair_id=f"p{probe}", b=f"b{probe}"), verdicts, columns=columns)


def _edited_copies(generator: Generator, by_length: float) -> AuditSample:
    """80 originals against an edit of each kind and against themselves; the judge picks with log-odds ``by_length`` a doubling."""
    items = 80
    length, quality = generator.standard_normal((2, items))
    copies = []
    for probe, ratio in {**_EDITS, "": 1.0}.items():
        worth = 0.3 * generator.standard_normal(items) * (probe != "") - by_length * math.log2(ratio)
        copies.append(_copies(probe, ratio, by_order(worth, generator)))
    return _audit(
        pair_table(items), by_order(by_length * length + quality, generator), {"length": length}, exact=True, gold=quality,
        more=pd.concat(copies, ignore_index=True),
    )  # fmt: skip


def _at_the_limits(generator: Generator) -> AuditSample:
    """Every rate that has a default limit is at it, and bold copies too: of 200 pairs with exact gold, and 200 copies of each kind."""
    items = 200
    length, bold = generator.standard_normal((2, items))
    better, own = np.where(generator.random((2, items)) < 0.5, 1.0, -1.0)
    # Gold's text is picked in .6 and the judge's own .025 more often: 5 points between the two rates of following gold.
    content = 0.1 * better + 0.025 * own

    def verdicts(*first: float | Floats) -> dict[str, Verdicts]:
        """By order, with these probabilities of the first slot."""
        shares = (np.broadcast_to(share, items) for share in first)
        return {
            order: picks(np.log(p / (1.0 - p)), generator, unscored=0.05)
            for order, p in zip(("ab", "ba"), shares, strict=True)
        }

    copies = [
        _copies("padding", 2.0, verdicts(0.45, 0.55)), _copies("bold", 1.1, verdicts(0.45, 0.55)),
        _copies("", 1.0, verdicts(0.55, 0.55)),
    ]  # fmt: skip
    return _audit(
        pair_table(items), verdicts(0.55 + content, 0.55 - content), {"length": length, "bold": bold}, exact=True,
        more=pd.concat(copies, ignore_index=True),
        gold=better, model_a=np.where(own > 0, "planted", "other"), model_b=np.where(own > 0, "other", "planted"),
    )  # fmt: skip


_SCALES = (Scale(1, 10), Scale(10, 1))


def _scores(generator: Generator, by_length: float = 0.0, by_number: float = 0.0) -> EstimatedSample:
    """120 texts, two an item, scored on two scales: points for quality, ``by_length`` for a doubling of words, and ``by_number``
    for large numbers, whatever they mean."""
    items = 60
    table = pair_table(items)
    length, bold, quality = generator.standard_normal((3, 2, items))
    worth = 5.5 + 1.2 * quality + by_length * length
    rows = []
    for scale in _SCALES:
        for side, points in zip("ab", worth, strict=True):
            number = points if scale.best > scale.worst else 11.0 - points
            score = np.clip(np.round(number + by_number + 0.8 * generator.standard_normal(items)), 1.0, 10.0)
            rows.append(pd.DataFrame({
                "item_id": table["item_id"], "candidate_id": side, "category": "", "judge": "planted", "repeat": 0,
                "scale": scale.name, "score": score, "at_worst": score == scale.worst, "at_best": score == scale.best,
            }))  # fmt: skip
    pairs = table.rename(columns={"a": "candidate_a", "b": "candidate_b"}).assign(
        gold=quality[0] - quality[1], identical=False, category=""
    )
    sides = [{**_NO_FEATURES, "length": length[k], "bold": bold[k]} for k in (0, 1)]
    scores = pd.concat(rows, ignore_index=True)
    return EstimatedSample(score_frame(scores, pairs, texts(table, *sides), _SCALES, gold_exact=True))


_NO_FEATURES = dict.fromkeys(FEATURES, 0.0)


def _lists(generator: Generator, first: float = 0.0, by_length: float = 0.0) -> EstimatedSample:
    """50 lists of four texts, each shown in four rotations: log-odds for quality, ``first`` for the first slot, ``by_length`` a doubling."""
    sets, k = 50, 4
    length, bold, quality = generator.standard_normal((3, sets, k))
    worth = quality + by_length * length
    item = np.array([f"i{n}" for n in range(sets)], dtype=object)
    names = np.array([f"t{n}" for n in range(k)], dtype=object)
    rows = []
    for rotation in range(k):
        order = (np.arange(k) + rotation) % k
        pull = worth[:, order] + first * (np.arange(k) == 0) + generator.gumbel(size=(sets, k))
        rows.append(pd.DataFrame({
            "item_id": item, "set_id": item, "category": "", "judge": "planted", "rotation": rotation, "repeat": 0,
            "slot": pull.argmax(axis=1) + 1, "gold": names[quality.argmax(axis=1)],
            **{f"candidate_{n + 1}": names[order[n]] for n in range(k)}, **{f"p_{n + 1}": np.nan for n in range(k)},
        }))  # fmt: skip
    candidates = pd.DataFrame({
        **_NO_FEATURES, "item_id": np.repeat(item, k), "candidate_id": np.tile(names, sets), "length": length.ravel(),
        "bold": bold.ravel(),
    })  # fmt: skip
    return EstimatedSample(choice_frame(pd.concat(rows, ignore_index=True), k, candidates))


def _three_models(generator: Generator, own: float) -> EstimatedSample:
    """Three models judge each other's texts of 40 items; the first favours its own by log-odds ``own``. Only what is said of it."""
    models, items = ("planted", "second", "third"), 40
    table = pair_table(3 * items, 3)
    side = np.tile(np.array([[0, 1], [0, 2], [1, 2]]), (items, 1))
    quality = (np.array([0.0, 0.4, 0.8]) + generator.standard_normal((items, 3))).repeat(3, axis=0)
    length = generator.standard_normal((items, 3)).repeat(3, axis=0)
    row = np.arange(len(table))
    (quality_a, quality_b), (length_a, length_b) = (
        (values[row, side[:, k]] for k in (0, 1)) for values in (quality, length)
    )
    names = np.array(models, dtype=object)
    columns = _no_run(len(table), model_a=names[side[:, 0]], model_b=names[side[:, 1]])
    parts = []
    for number, judge in enumerate(models):
        mine = own * ((side[:, 0] == 0).astype(float) - (side[:, 1] == 0)) if number == 0 else 0.0
        parts.append(judged(table, by_order(quality_a - quality_b + mine, generator), columns=columns, judge=judge))
    sides = [{"length": values} for values in (length_a, length_b)]
    rows = analysis.estimates(pd.concat(parts, ignore_index=True), texts(table, *sides), bootstrap=False)
    return EstimatedSample(rows[rows["judge"] == "planted"].reset_index(drop=True))


_SELECTIVE = {**of_judge(), **dict.fromkeys(MISSING_TESTS, UNEVEN)}
_AT_5 = Truth(frozenset({1}), none=False, value=0.05)
_LIMITS = {
    "bold_probe": _AT_5, "gold_agreement": Truth(value=0.6),
    **of_judge(position=_AT_5, own=_AT_5), "padding_probe": _AT_5, "advice length": MORE,
    **dict.fromkeys(("advice form", "advice added_words", "advice probe_padding"), THERE),
}  # fmt: skip

AUDIT_WORLDS: dict[str, ClaimWorld] = {
    "fair_noisy_judge": ClaimWorld("quality and noise alone", _fair_noisy),
    "order_locked_judge": ClaimWorld(
        "temperature 0; each item's verdicts follow one slot, whichever", _order_locked
    ),
    "unequal_matchups": ClaimWorld("each item pulls to a slot of its own and has one to twelve matchups", _unequal_matchups),
    "length_blind_judge": ClaimWorld(
        "quality goes with length, people prefer longer, the judge follows quality; two a/b golds", _length_blind
    ),
    "noisy_gold": ClaimWorld(
        "numeric golds that err; length goes with quality; the judge follows quality",
        lambda generator: _noisy_golds(generator, second=True),
    ),
    "one_noisy_gold": ClaimWorld(
        "one numeric gold that errs; the judge follows quality", lambda generator: _noisy_golds(generator, second=False)
    ),
    "ten_features_60_items": ClaimWorld(
        "quality alone; ten features, some rare, on 60 items", lambda generator: _ten_features(generator, 60)
    ),
    "ten_features_200_items": ClaimWorld(
        "quality alone; ten features, some rare, on 200 items", lambda generator: _ten_features(generator, 200)
    ),
    "coin": ClaimWorld(
        "a coin as judge; one a/b gold that prefers shorter texts", lambda generator: _one_gold(generator, 0.0, 0.0)
    ),
    "sharp_judge": ClaimWorld(
        "the judge reads quality three times as sharply as the one gold", lambda generator: _one_gold(generator, 0.0, 3.0)
    ),
    "dull_judge": ClaimWorld(
        "the judge reads quality .4 times as sharply as the one gold", lambda generator: _one_gold(generator, 0.0, 0.4)
    ),
    "gold_flipped": ClaimWorld("the judge is the gold, flipped in a quarter of its replies", _flipped_gold),
    "gold_with_ties": ClaimWorld("one gold that errs and ties; the judge follows quality", _gold_with_ties),
    "right_or_wrong": ClaimWorld(
        "texts are right or wrong, which is gold, the longer more often right; the judge follows what is right",
        lambda generator: _right_or_wrong(generator, 0.0),
    ),
    "right_or_wrong_longer": ClaimWorld(
        "the same; the judge favours longer texts besides, by .3 log-odds a doubling",
        lambda generator: _right_or_wrong(generator, 0.3), of_judge(length=MORE),
    ),
    "tie_prone": ClaimWorld("the judge ties where quality is alike; exact gold", _tie_prone),
    "unscored_by_slot": ClaimWorld(
        "replies that would pick the first slot are lost more often",
        lambda generator: _unscored(generator, "slot"), _SELECTIVE,
    ),
    "unscored_by_length": ClaimWorld(
        "replies that would pick the longer text are lost more often",
        lambda generator: _unscored(generator, "length"), _SELECTIVE,
    ),
    "raters_share_a_taste": ClaimWorld(
        "two a/b golds of raters who share a preference for length; the judge has none",
        _shared_raters, relative=of_judge(length=LESS),
    ),
    "copied_gold": ClaimWorld(
        "the second gold is the first one, but for 3 %; better texts are longer",
        lambda generator: _shared_raters(generator, 0.03), relative=of_judge(length=MORE),
    ),
    "half_copied_gold": ClaimWorld(
        "the same, but for 10 %", lambda generator: _shared_raters(generator, 0.1), relative=of_judge(length=MORE)
    ),
    "agreeing_golds": ClaimWorld(
        "two a/b golds that agree on nine pairs in ten; better texts are longer, a feature is rare; the judge follows quality",
        lambda generator: _agreeing_golds(generator, 0.0),
    ),
    "agreeing_golds_longer": ClaimWorld(
        "the same; the judge favours longer texts besides, by .5 log-odds a doubling",
        lambda generator: _agreeing_golds(generator, 0.5), of_judge(length=MORE),
    ),
    "order_by_lot": ClaimWorld("each pair in one order, drawn by lot; quality and noise alone", _order_by_lot),
    "selective_gold": ClaimWorld(
        "exact gold, known more often where the judge picked the longer text", _selective_gold, _SELECTIVE
    ),
    "missing_at_random": ClaimWorld(
        "80 pairs; a tenth of the replies and two in five golds are missing, by chance", lambda generator: _at_random(generator, 80, 0.1, 0.6)
    ),
    "six_hundred_pairs": ClaimWorld("600 pairs; quality and noise alone; exact gold", lambda generator: _at_random(generator, 600, 0.0, 1.0)),
    "heavy_tails": ClaimWorld("30 items whose lengths differ by heavy tails (t, 2 df); exact gold", _heavy_tails),
    "near_duplicates": ClaimWorld(
        "temperature 0; every item has two near copies, judged alike", _near_duplicates
    ),
    "always_first": ClaimWorld("the first slot always; one a/b gold", _always_first, of_judge(position=MORE)),
    "length_only": ClaimWorld(
        "the longer text always; one a/b gold that prefers shorter texts", _length_only, of_judge(length=MORE)
    ),
    "dull_judge_longer": ClaimWorld(
        "a preference for length (.3 log-odds a doubling) at less sharp sight than the one gold, which prefers shorter texts",
        lambda generator: _one_gold(generator, 0.3, 0.5), of_judge(length=MORE),
    ),
    "temperature_zero": ClaimWorld(
        "temperature 0; a preference for the first slot and for length; exact gold", _temperature_zero,
        of_judge(position=MORE, length=MORE),
    ),
    "middle_length": ClaimWorld(
        "a preference for middle length, whose linear slope is 0; exact gold", _middle_length, of_judge(length=UNEVEN)
    ),
    "rare_conflicts_40": ClaimWorld(
        "40 pairs, of which a tenth follow the first slot and the others none: 5 points, the default limit",
        lambda generator: _rare_conflicts(generator, 40), of_judge(position=Truth(frozenset({1}), none=False, value=0.05)),
    ),
    "rare_conflicts_100": ClaimWorld(
        "the same with 100 pairs",
        lambda generator: _rare_conflicts(generator, 100), of_judge(position=Truth(frozenset({1}), none=False, value=0.05)),
    ),
    "edits_alike": ClaimWorld(
        "copies edited in four ways, and identical texts; quality and noise alone", lambda generator: _edited_copies(generator, 0.0)
    ),
    "longer_edits": ClaimWorld(
        "copies edited in four ways; a preference for length, by .8 log-odds a doubling, of which bold adds none",
        lambda generator: _edited_copies(generator, 0.8),
        {
            "bold_probe": NOTHING, "authority_probe": MORE, "self_name_probe": MORE, **of_judge(length=MORE), "advice added_words": THERE,
        },
    ),
    "at_the_limits": ClaimWorld("every rate that has a default limit is at it", _at_the_limits, _LIMITS),
    "fair_scores": ClaimWorld("scores of single texts by quality and noise, on two scales; exact gold", _scores),
    "longer_scores_higher": ClaimWorld(
        "scores on two scales; longer texts score .4 points a doubling more", lambda generator: _scores(generator, 0.4), of_judge(length=MORE)
    ),
    "large_numbers": ClaimWorld(
        "scores on two scales, of which one is reversed; half a point is added on either",
        lambda generator: _scores(generator, by_number=0.5), of_judge(position=LESS),
    ),
    "fair_lists": ClaimWorld("lists of four texts, in every rotation; quality and noise alone", _lists),
    "first_of_list": ClaimWorld(
        "lists of four texts; the first slot has .8 log-odds more", lambda generator: _lists(generator, 0.8),
        {"slot_1_excess": MORE, **of_judge(position=MORE), "slot_*_excess": LESS},
    ),
    "longer_of_list": ClaimWorld(
        "lists of four texts; .5 log-odds a doubling for length", lambda generator: _lists(generator, by_length=0.5), of_judge(length=MORE)
    ),
    "three_fair_models": ClaimWorld(
        "three models, unlike in quality, judge each other's texts by quality alone", lambda generator: _three_models(generator, 0.0)
    ),
    "own_texts_favoured": ClaimWorld(
        "three models judge each other's texts; one favours its own, by 1 log-odds", lambda generator: _three_models(generator, 1.0),
        {"judge_difference_*": UNEVEN, **of_judge(own=MORE)},
    ),
}  # fmt: skip
