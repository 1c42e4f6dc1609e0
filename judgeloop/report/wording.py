"""Numbers, units and names in words. Every output formats them here, so that all of them agree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from judgeloop.stats.estimate import Estimate
from judgeloop.text.features import FEATURES as MEASURED

FEATURES = {
    "length": "length",
    "style_score": "style score",
    "headings": "headings",
    "bold": "bold text",
    "list_items": "list items",
    "code_fences": "code fences",
    "hedges": "hedges",
    "emoji": "emoji",
    "transitions": "transition words",
    "em_dashes": "em dashes",
    "exclamations": "exclamation marks",
    "mattr": "vocabulary diversity (MATTR)",
    "compression_ratio": "compression ratio",
    "distinct_2": "distinct bigrams",
    "vendi": "Vendi score",
    "opener_entropy": "opener entropy",
    "self_bleu": "self-BLEU",
    "phrase_repetition": "stock phrases",
    "dispersion": "embedding dispersion",
    "bias_amplification": "style tied to category (BiasAmp)",
    "tail_mass_retained": "mass in rare modes",
    "new_mode_mass": "mass in new modes",
    "correct": "share correct",
    "mean_correct": "share correct",
    "hedging_when_wrong": "hedging when wrong",
}
DIVERSITY = (
    "mattr", "compression_ratio", "distinct_2", "vendi", "dispersion", "opener_entropy", "self_bleu", "phrase_repetition",
    "tail_mass_retained",
)  # fmt: skip
MORE_MEANS_LESS_DIVERSE = frozenset({"self_bleu", "compression_ratio", "phrase_repetition"})
TERMS = {
    "first_slot_excess": "First slot picked",
    "position_log_odds": "First slot, log-odds",
    "conflict_rate": "Verdict changes with order",
    "order_agreement": "Same verdict in both orders",
    "excess_conflict": "Verdict changes with order, beyond noise",
    "consistency_factor": "Effects among pairs that both orders decide alike, over the average of both",
    "position_consistency": "Position consistency (Shi et al.)",
    "judgebench_accuracy": "Accuracy over both orders (JudgeBench)",
    "disagreement": "Verdicts differ, beyond noise",
    "repetition_stability": "Same verdict when asked again",
    "identical_pair_excess": "First slot picked, identical texts",
    "padding_probe": "Padded copy picked",
    "gold_tied_longer_excess": "Longer text picked at equal gold",
    "length_log_odds": "Length, log-odds per doubling",
    "length_ame": "Length effect per doubling",
    "length_shape": "Length effect changes with length",
    "length_exchange_rate": "Quality worth one doubling of length",
    "excess_longer_vs_gold": "Length effect, judge minus gold",
    "length_beyond_agreement": "Length effect, beyond agreement with gold",
    "longer_preferred_raw": "Longer text picked (raw)",
    "style_joint": "Style and length together",
    "self_preference_gold": "Own texts picked more, at equal gold",
    "self_preference_log_odds": "Own texts favoured, compared with other judges",
    "gold_agreement": "Agrees with gold",
    "reward_accuracy": "Predicts held-out picks",
    "golds_agreement": "Two golds agree",
    "gold_log_odds": "Quality (gold)",
    "unscored_joint": "Unscored replies depend on order or length",
    "unscored_by_verdict": "Unscored replies depend on the pick",
    "gold_missing_joint": "Gold is missing by order or length",
    "gold_missing_by_verdict": "Gold is missing by the pick",
    "unscored_share": "Replies without a verdict",
    "kl_from_reference": "KL divergence",
    "phrase_spread": "Phrases that spread",
    "training_tokens": "Tokens trained on",
    "proxy_gain": "Reward gained beyond control",
    "correct_per_proxy": "Right answers per SD of reward gained",
    "gao_alpha_correct": "Right answers by distance, at the start",
    "gao_beta_correct": "Right answers by distance, how fast it bends",
    "best_of_n_proxy": "Reward of the best of n",
    "best_of_n_correct": "Right answers, best of n",
    "best_of_n_length": "Length, best of n",
    "best_of_n_kl": "KL divergence of the best of n",
    "score_mean": "Mean score",
    "score_sd": "Spread of scores over texts",
    "score_ceiling_share": "Scores at the best end",
    "score_floor_share": "Scores at the worst end",
    "score_repeatability": "Same score when asked again",
    "score_scale_anchoring": "Shift of scores on the other scale",
    "score_pair_ties": "Pairs with equal scores",
    "score_gold_agreement": "Higher score agrees with gold",
    "score_pairwise_disagreement": "Scores disagree with the judge's own verdict",
    "position_permutation": "Slots picked unequally",
    "rotation_consistency": "Same text wins in all rotations",
    **{f"slot_{slot}_excess": f"Slot {slot} picked more than its share" for slot in range(1, 9)},
    **{f"slot_{slot}_log_odds": f"Slot {slot}" for slot in range(1, 9)},
    **{f"score_{name}_slope": f"Score by {FEATURES[name]}" for name in MEASURED},
}
PROBES = {
    "padding": "padding",
    "model_padding": "padding by a model",
    "model_paraphrase": "paraphrase by a model",
    "markdown_added": "Markdown added",
    "markdown_removed": "Markdown removed",
    "bold": "bold text added",
    "list_items": "list items added",
    "headings": "headings added",
    "hedges": "hedges added",
    "emoji": "emoji added",
    "tone": "warmer tone",
    "authority": "authority named",
    "bandwagon": "many said to agree",
    "injection": "order to the judge added",
    "self_name": "judge's own name added",
    "whitespace": "white space changed",
}
"""The edit of each probe."""
_PREFIXES = {
    "mean_": "mean {}",
    "sd_": "spread (SD) of {}",
    "drift_": "drift of {}",
    "did_": "drift of {} beyond control",
    "selection_": "change of {} by selection",
    "mixing_": "change of {} by mixing",
    "learning_": "change of {} by learning",
    "bias_selection_": "change of {} by selection beyond control",
    "judge_drift_": "change of the judge, {}",
    "judge_difference_": "difference of judges, {}",
    "transmission_": "transmission of {}",
    "signal_slope_": "learned signal's slope on {}",
    "strategy_gap_": "difference in drift of {}",
    "beyond_first_step_": "{} beyond equal steps",
    "beyond_strategy_": "{} beyond a constant taste",
    "pool_range_used_": "share of the pool's range in {} used up",
    "cumulative_gain_": "cumulative gain in {}",
    "compounding_": "compounding of {}",
    "observed_over_static_": "drift of {} over its static forecast",
    "response_": "first drift of {} over what was selected",
    "trend_": "drift of {} beyond control, per generation",
    "loop_gain_": "growth per generation of the drift of {}",
    "gradient_": "direct selection on {}",
    "forecast_drift_": "forecast drift of {}",
}
RATE_UNITS = ("probability", "rate")
SHARES = frozenset({
    "conflict_rate", "order_agreement", "position_consistency", "judgebench_accuracy", "repetition_stability", "longer_preferred_raw", "gold_agreement", "golds_agreement",
    "unscored_share", "reward_accuracy",
    "mean_correct", "score_ceiling_share", "score_floor_share", "score_repeatability", "score_pair_ties",
    "score_gold_agreement", "score_pairwise_disagreement", "rotation_consistency",
})  # fmt: skip
"""Rates that are shares of a whole, in %; other rates are distances or differences, in points, but for ``is_pick_share``."""
_PICKED = ("first_slot_excess", "identical_pair_excess", "gold_tied_longer_excess")
_DIFFERENCES = ("judge_drift_", "judge_difference_")
EVEN = " (even: 50 %)"
"""Behind how often something was picked: what a judge without that bias would do."""

POSITIVE_CONTROL = {
    "seen": "detected", "not_seen": "not detected", "itself": "this arm", "itself_seen": "this arm, detected",
    "itself_not_seen": "this arm, not detected",
}  # fmt: skip
"""``Estimate.positive_control`` in a table."""

UNDERPOWERED = " †"
"""Behind an estimate in a table: too few data; ``UNDERPOWERED_NOTE`` explains it."""
UNDERPOWERED_NOTE = "† too few data: neither an effect nor its absence is shown."
ONE_GOLD = " ‡"
"""Behind an estimate that takes one gold as exact; ``ONE_GOLD_NOTE`` explains it."""
ONE_GOLD_NOTE = "‡ one gold taken as exact: its errors count as bias of the judge, so no claim rests on this number."


def feature_of(term: str, prefix: str) -> str:
    """The feature that a per-feature term names: ``did_length`` with ``did_`` is ``length``."""
    return term.removeprefix(prefix)


def feature_name(feature: str) -> str:
    """A feature's name in prose."""
    return FEATURES.get(feature, feature.replace("_", " "))


def term_name(term: str) -> str:
    """A term's name as a label."""
    if term in TERMS:
        return TERMS[term]
    if term in FEATURES:
        return sentence_case(FEATURES[term])
    for prefix in sorted(_PREFIXES, key=len, reverse=True):
        if term.startswith(prefix):
            inner = term.removeprefix(prefix)
            name = (
                term_name(inner) if inner in TERMS or inner.endswith(("_probe", "_log_odds")) else feature_name(inner)
            )
            return sentence_case(_PREFIXES[prefix].format(sentence_start(name)))
    if term.endswith("_probe"):
        return f"{sentence_case(probe_name(term))}: edited copy picked"
    if term.endswith("_log_odds"):
        return sentence_case(f"{feature_name(term.removesuffix('_log_odds'))}, per SD")
    return sentence_case(term.replace("_", " "))


def probe_name(term: str) -> str:
    """The edit of a probe: "bold text added" for ``bold_probe``."""
    name = term.removesuffix("_probe")
    return PROBES.get(name, f"{feature_name(name)} added")


def sentence_case(text: str) -> str:
    """The text with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def sentence_start(label: str) -> str:
    """A label within a sentence: its first letter in lower case, but for a name (Vendi, Markdown, BiasAmp, KL)."""
    first = label.split(" ", maxsplit=1)[0]
    named = first in ("Vendi", "Markdown", "BiasAmp", "MATTR") or first.isupper()
    return label if named else label[:1].lower() + label[1:]


def is_rate(row: Estimate) -> bool:
    """True where the estimate is a probability or a difference of probabilities."""
    return row.unit.startswith(RATE_UNITS)


def is_pick_share(row: Estimate) -> bool:
    """True where the estimate is how often a slot or a text was picked, less one half.

    It is shown as 50 % plus the estimate, its limits cut at 0 and 100 %. False for slopes, for a probe's effect beyond its length, for changes of the judge
    and for differences of judges.
    """
    picked = row.term in _PICKED or (row.term.endswith("_probe") and not row.term.startswith(_DIFFERENCES))
    return picked and row.unit == "probability" and not row.contrast and row.variant not in ("slope", "beyond_length")


def number(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign; an en dash where there is none."""
    if value is None:
        return "–"
    text = f"{abs(value):.{digits}f}"
    negative = value < 0 and float(text) != 0
    return f"−{text}" if negative else text


def signed(value: float | None, digits: int = 2) -> str:
    """As ``number``, with a plus sign where positive."""
    text = number(value, digits)
    return text if value is None or text.startswith("−") or float(text) == 0 else f"+{text}"


def quantity(row: Estimate, value: float | None) -> str:
    """A value of that row with its unit: "93.8 % (even: 50 %)" of picks, points of other rates, doublings, SD, or as it is."""
    return f"{figure(row, value)} {unit_name(row)}".rstrip() if value is not None else "–"


def size(row: Estimate, value: float | None) -> str:
    """As ``quantity``, for a magnitude in the row's unit (a margin, a detectable effect, a distance): rates in points."""
    if value is None:
        return "–"
    if not is_rate(row):
        return quantity(row, value)
    points = 100 * min(value, reach(row) or value)
    return f"{number(points, _decimals(points))} points"


def reach(row: Estimate) -> float | None:
    """The largest size that the measure can have, in the row's unit: half of all picks, or all; None where it has no bound."""
    return None if not is_rate(row) else 0.5 if is_pick_share(row) else 1.0


def detectable(row: Estimate, what: str = "") -> str:
    """ "16.0 points or more" (with ``what``: "a change of 16.0 points or more"), of the effects that a sample would have found;
    "no effect of any size", or "no change", where the measure cannot have one as large as that."""
    most = reach(row)
    if most is not None and row.detectable is not None and row.detectable > most:
        return f"no {what or 'effect'} of any size"
    return f"{f'a {what} of ' if what else ''}{size(row, row.detectable)} or more"


def counted(row: Estimate) -> str:
    """What ``n`` of a judge's estimate counts: a pair, a judgment, a text or a set."""
    if row.term.startswith("slot_"):
        return "set"
    if row.term.startswith("score_"):
        return "text" if row.bias == "position" else "pair"
    of_pairs = row.term in ("gold_tied_longer_excess", "self_preference_gold", "golds_agreement") or (
        row.bias == "position" and row.term != "identical_pair_excess"
    )
    return "pair" if of_pairs or row.term.endswith("_probe") else "judgment"


def pick_share(row: Estimate) -> str:
    """ "93.8 % of the time (even: 50 %)", of a row that ``is_pick_share``."""
    return f"{figure(row, row.estimate)} % of the time{EVEN}"


_ROUNDING = 1e-6
"""Size below which a number is a 0 that sums of rounded terms left."""


def _decimals(points: float) -> int:
    """One, or as many, up to three, as show that a size is not 0."""
    return 1 if abs(points) <= _ROUNDING else next((d for d in (1, 2) if abs(points) >= 0.5 * 10.0**-d), 3)


def figure(row: Estimate, value: float | None) -> str:
    """As ``quantity`` without the unit: rates in per cent or points with one decimal, cut where the measure ends (a slope of 200
    points a doubling changes a pick by 100 at most); all else with two (three below 0.1, powers of ten below 0.001, and none for what is rounding).
    Where a rate's interval leaves out 0 (of picks: even), no number is written as 0 that is not."""
    if value is None:
        return "–"
    most = reach(row)
    if most is not None:
        points = 100 * min(max(value, -most), most)
        off_null = row.conf_low is not None and row.conf_high is not None and row.conf_low * row.conf_high > 0.0
        return number((50.0 if is_pick_share(row) else 0.0) + points, _decimals(points) if off_null else 1)
    largest = max((abs(v) for v in (row.estimate, row.conf_low, row.conf_high) if v is not None), default=abs(value))
    if _ROUNDING < largest < 0.001:
        return f"{value:.1e}".replace("-", "−")
    return number(value, 3 if largest < 0.1 else 2)


def signed_figure(row: Estimate) -> str:
    """The estimate as ``figure`` writes it, with a plus sign where it is a change or an excess and positive."""
    text = figure(row, row.estimate)
    excess = row.term.endswith(("_excess", "_probe", "_ame")) or row.term.startswith(
        ("did_", "drift_", "judge_drift_", "excess_", "beyond_")
    )
    plus = excess and not is_pick_share(row) and (row.estimate or 0.0) > 0 and text.strip("0.")
    return f"+{text}" if plus else text


def unit_name(row: Estimate) -> str:
    """The unit as prose has it; empty for ratios and raw diversity."""
    if is_pick_share(row):
        return f"%{EVEN}"
    if is_rate(row):
        return "%" if row.term in SHARES and not row.contrast else "points"
    if row.unit.startswith("doubling"):
        return "doublings"
    if "standard deviation" in row.unit or row.unit.lower() in ("sd", "generation-0 sd"):
        return "SD"
    return "" if row.unit in ("", "raw", "ratio", "bleu") else row.unit


def level(row: Estimate) -> str:
    """The interval's name: "95 % interval"; a forecast's limits are prediction limits."""
    percent = f"{100 * row.conf_level:g}" if row.conf_level is not None else "95"
    return f"{percent} % {'prediction limits' if row.term.startswith('forecast_') else 'interval'}"


def interval(row: Estimate) -> str:
    """ "95 % interval 9.1 to 15.4"; says so where there is none."""
    if row.conf_low is None or row.conf_high is None:
        return "no interval"
    return f"{level(row)} {figure(row, row.conf_low)} to {figure(row, row.conf_high)}"


def cell(row: Estimate | None) -> str:
    """An estimate in a table: "0.42 [0.31, 0.53]"; the status where there is no number, empty where there is no row."""
    if row is None:
        return ""
    if row.status == "undefined" or row.estimate is None:
        return "undefined"
    text = figure(row, row.estimate)
    if row.conf_low is not None and row.conf_high is not None:
        text += f" [{figure(row, row.conf_low)}, {figure(row, row.conf_high)}]"
    return text + (UNDERPOWERED if row.status == "underpowered" else "")


def p_value(value: float | None) -> str:
    """ "p = 0.03", "p < 0.001"; empty where there is none."""
    if value is None:
        return ""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}".rstrip("0").rstrip(".")


def reason(note: str, limit: int = 240) -> str:
    """A row's note on one line, shortened."""
    return label(note, limit)


def cost(usd: float | None, unpriced: Sequence[str] = ()) -> str:
    """US dollars as every output shows them: "0.0312 USD", or "at least 0.81 USD; model-x has no price"; empty where nothing was
    spent. ``usd`` None: no price is stated."""
    lacking = (
        f"{', '.join(map(label, unpriced))} {'has' if len(unpriced) == 1 else 'have'} no price" if unpriced else ""
    )
    if not usd:
        return f"cost not known: {lacking or 'no price was stated'}" if usd is None else ""
    figure = f"{usd:,.2f} USD" if usd >= 1 else f"{usd:.4f} USD"
    return f"at least {figure}; {lacking}" if lacking else figure


def count(amount: int, noun: str, plural: str | None = None) -> str:
    """ "1 pair", "1,204 pairs"."""
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def failed_calls(reasons: Mapping[str, int]) -> str:
    """The clause on calls of which every attempt failed; ``reasons``: the last fault → how many."""
    listed = ", ".join(f"{label(reason)} {number:,}" for reason, number in reasons.items())
    return f"{count(sum(reasons.values()), 'call')} failed in every attempt and {'is' if sum(reasons.values()) == 1 else 'are'} left out as unscored ({listed})"


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """The text with control characters, lone surrogates and non-characters shown as symbols: it can be written as UTF-8
    and read by a strict parser. Line ends and tabs stay."""
    return _CONTROL.sub(_symbol, text.replace("\r\n", "\n").replace("\r", "\n"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "\ufffd"


def label(text: str, limit: int = 48) -> str:
    """A name on one line, shortened: for tables, legends and axis labels. Escaping is the writer's."""
    line = " ".join(visible(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


# The headline: one sentence on the judge and one on what is trained on its picks. What may be said is decided by the standing of the
# finding that answers the question (report/claims), and of a standing other than "found" no effect is stated.

_LEANS = ((40.0, "picks whatever comes {}"), (15.0, "prefers what comes {}"), (0.0, "leans to what comes {}"))
"""From how many points off even a preference for a slot is said so."""
_TASTES = {
    "gold_tied_longer_excess": ("picks the longer of two equally good answers", "picks the shorter of two equally good answers"),
    "length_ame": ("favours longer answers", "favours shorter answers"),
    "padding_probe": ("favours padded copies", "favours texts without their padding"),
    "self_preference_gold": ("favours its own texts", "disfavours its own texts"),
    "self_preference_log_odds": ("favours its own texts", "disfavours its own texts"),
    "score_length_slope": ("scores longer texts higher", "scores longer texts lower"),
    "style_joint": ("is moved by style and length together",) * 2,
    "length_shape": ("is moved by length, though not evenly",) * 2,
    "score_scale_anchoring": ("scores the same texts higher on the other scale", "scores the same texts lower on the other scale"),
}  # fmt: skip
_NOT_SHOWN_OF_JUDGE = {
    "unconfirmed": "whether {} is biased is open: what was seen is unconfirmed",
    "unclear": "whether {} is biased is unclear",
    "undetected": "no bias of {} was detected, which does not show that there is none",
    "underpowered": "too few data to tell whether {} is biased",
    "equivalent": "{} shows no bias beyond the margin{measures}",
}
_NOT_SHOWN_OF_LOOP = {
    "unconfirmed": "a drift of {feature} beyond {control}{whose} is unconfirmed",
    "unclear": "what training on its picks{whose} changes is unclear",
    "undetected": "training on its picks{whose} changed {nothing} against {control}{seen}",
    "underpowered": "too few data to tell what training on its picks{whose} changes",
    "equivalent": "training on its picks{whose} changed {feature} by less than the margin against {control}",
}
_NOT_KNOWN = {
    "judge": "whether {} is biased is not known",
    "loop": "what training on its picks{whose} changes is not known",
}


def taste(row: Estimate) -> str:
    """What a judge does whose bias is found, as a verb and its size: "picks whatever comes first (94 : 6)"."""
    place = 0 if (row.estimate or 0.0) >= 0 else 1
    if row.term in ("first_slot_excess", "identical_pair_excess"):
        off = 100 * abs(row.estimate or 0.0)
        verb = next(words for least, words in _LEANS if off >= least).format(("first", "last")[place])
        verb += " of two identical texts" if row.term == "identical_pair_excess" else ""
    elif row.term in _TASTES:
        verb = _TASTES[row.term][place]
    elif row.term.endswith("_probe"):
        verb = f"{('favours', 'disfavours')[place]} edited copies ({probe_name(row.term)})"
    elif row.term.startswith("slot_"):
        verb = f"picks slot {row.term.split('_')[1]} of a list {('more', 'less')[place]} often than its share"
    else:
        verb = f"is moved by {sentence_start(term_name(row.term))}"
    sizes = share_of_picks(row)
    if not sizes and row.unit and row.estimate is not None and row.term not in ("style_joint", "length_shape"):
        sizes = f"{signed_points(row)} {unit_name(row)}{' a doubling' if row.term == 'length_ame' else ''}"
    return f"{verb} ({sizes})" if sizes else verb


def share_of_picks(row: Estimate) -> str:
    """ "94 : 6", the picks for and against in a hundred; empty where the row is no share of picks."""
    if not is_pick_share(row) or row.estimate is None:
        return ""
    picked = round(50 + 100 * max(-0.5, min(0.5, row.estimate)))
    return f"{picked} : {100 - picked}"


def signed_points(row: Estimate) -> str:
    """The estimate with its sign: in points from even of a share of picks, else as ``figure`` writes it."""
    if is_pick_share(row):
        return signed(100 * max(-0.5, min(0.5, row.estimate or 0.0)), 0 if abs(row.estimate or 0.0) >= 0.1 else 1)
    text = figure(row, row.estimate)
    return f"+{text}" if (row.estimate or 0.0) > 0 and text.strip("0.") else text


def judge_headline(judge: str, standing: str, tastes: Sequence[str], measures: Sequence[str] = ()) -> str:
    """The sentence on a judge. ``standing``: that of the finding that answers whether it is biased; ``tastes``: of what is found,
    the weightiest first, empty unless ``standing`` is found; ``measures``: the names of what lies within its margin."""
    name = label(judge, 40) or "the judge"
    if standing == "found" and tastes:
        return f"{name if judge else sentence_case(name)} {' and '.join(tastes)}."
    listed = f" ({', '.join(map(sentence_start, measures))})" if measures else ""
    text = _NOT_SHOWN_OF_JUDGE.get(standing, _NOT_KNOWN["judge"]).format(name, measures=listed)
    return f"{text if text.startswith(name) and judge else sentence_case(text)}."


def loop_headline(
    row: Estimate | None, standing: str, control: str, *, arm: str = "", others: bool = False, further: str = ""
) -> str:
    """The sentence on what training on a judge's picks changes. ``row``: the drift that answers the question, None where no
    control was run; ``standing``: its finding's; ``control``: its kind ("random", "gold") or its arm's name; ``arm``: named where
    there are several; ``others``: another change was found or is open; ``further``: what follows a drift that is found."""
    if row is None:
        return "What training on its picks changes was compared with no control."
    beside = {"random": "a coin", "gold": "a judge that follows gold"}.get(control, f"arm {label(control, 30)}")
    whose = f" (arm {label(arm, 30)})" if arm else ""
    feature = feature_name(feature_of(row.term, "did_"))
    if standing == "found":
        size, more = size_of(row), (row.estimate or 0.0) >= 0
        effect = {
            "did_length": f"made answers {'longer' if more else 'shorter'}, by {size}",
        }.get(row.term, f"moved {feature} by {'+' if more else '−'}{size}")
        once = "" if row.n_replicates else ", in this one training run"
        return f"Training on its picks{whose} {effect} beyond {beside}{further}{once}."
    seen = ""
    if standing == "undetected" and row.detectable is not None:
        seen = f" (it could have seen {detectable(row)})"
    nothing = f"{feature} by nothing detectable" if others else "nothing measurable"
    words = _NOT_SHOWN_OF_LOOP.get(standing, _NOT_KNOWN["loop"])
    return (
        sentence_case(words.format(feature=feature, control=beside, nothing=nothing, seen=seen, whose=whose))
        + f"{further}."
    )


def size_of(row: Estimate) -> str:
    """The estimate's magnitude with its unit, as ``size`` writes it."""
    return size(row, abs(row.estimate or 0.0))


def bias_name(row: Estimate) -> str:
    """What a judge may favour, in few words: "first slot", "longer text at equal gold", "padding"."""
    if row.term in _SHORT:
        return _SHORT[row.term]
    if row.term.endswith("_probe"):
        return probe_name(row.term)
    if row.term.startswith("slot_"):
        return f"slot {row.term.split('_')[1]} of the list"
    return sentence_start(term_name(row.term))


_SHORT = {
    "first_slot_excess": "first slot",
    "identical_pair_excess": "first of identical texts",
    "padding_probe": "padding",
    "gold_tied_longer_excess": "longer at equal gold",
    "length_ame": "length, a doubling",
    "self_preference_gold": "own texts",
}


def tick(value: float, *, sign: bool = False) -> str:
    """A round value on an axis, with a true minus."""
    text = f"{abs(value):g}"
    return f"−{text}" if value < 0 else f"+{text}" if sign and value > 0 else text
