"""What to change, from what was found: each line rests on a finding or on a gap in what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from judgeloop.report import wording
from judgeloop.report.reading import Reading, select
from judgeloop.report.verdicts import Finding, is_probe

_LENGTH = ("padding_probe", "length_ame", "excess_longer_vs_gold", "gold_tied_longer_excess")
_IDENTIFIED = (*_LENGTH, "style_joint", "score_length_slope")
_OBEDIENCE = {
    "injection_probe": "obeys orders that stand in a text",
    "authority_probe": "trusts a text for the authority that it names",
    "bandwagon_probe": "trusts a text for the many who are said to agree",
    "self_name_probe": "favours a text for the name that it bears",
}
_MUCH_UNSCORED = 0.02
_MOST = 5


def advice(reading: Reading, found: Sequence[Finding]) -> list[str]:
    """Sentences in the order of their weight, five at most. They name settings, and the finding that they rest on."""
    certain = {
        finding.row.term for finding in found if finding.verdict == "found" and finding.question != "judge_drift"
    }
    lines = [
        *_position(reading, certain),
        *_content(reading, found, certain),
        *_loop(reading, found),
        *_measuring(reading, found),
    ]
    return list(dict.fromkeys(lines))[:_MOST]


def _position(reading: Reading, certain: Iterable[str]) -> list[str]:
    lines = []
    if {"first_slot_excess", "identical_pair_excess"} & set(certain):
        rules = {_rule(reading, arm) for arm in reading.arms if arm not in reading.controls}
        how = (
            "train on the average of both (`label_rule: swap_average`)"
            if "raw" in rules
            else "average the two verdicts"
        )
        lines.append(
            f"The slot sways the judge: show every pair in both orders and {how}. Do not merely drop the pairs that disagree: that doubles every other bias."
        )
    if any(_rule(reading, arm) == "consistent_only" for arm in reading.arms):
        lines.append(
            "`label_rule: consistent_only` doubles what the judge passes on of length and style: `swap_average` removes position without that."
        )
    return lines


def _content(reading: Reading, found: Sequence[Finding], certain: Iterable[str]) -> list[str]:
    lines = []
    longer = [f for f in found if f.verdict == "found" and f.row.term in _LENGTH]
    if longer:
        way = "longer" if (longer[0].row.estimate or 0.0) > 0 else "shorter"
        rule = (
            "train with `label_rule: length_controlled`"
            if reading.arms
            else "compare at equal length, or control for length"
        )
        lines.append(f"The judge favours {way} answers: {rule}, and say in the prompt that length does not count.")
    for term in sorted(set(certain) & set(_OBEDIENCE)):
        lines.append(
            f"The judge {_OBEDIENCE[term]}: mark candidates as data in the prompt, strip such passages before judging, or take another judge."
        )
    style = [
        f for f in found if f.verdict == "found" and is_probe(f.row.term) and f.row.term not in (*_LENGTH, *_OBEDIENCE)
    ]
    if style:
        names = ", ".join(dict.fromkeys(wording.feature_name(f.row.term.removesuffix("_probe")) for f in style[:4]))
        lines.append(
            f"The judge reacts to form alone ({names}): strip it before judging, or judge with a prompt that asks for content only."
        )
    probed = any(is_probe(row.term) and row.status != "undefined" for row in reading.estimates)
    held = any(row.term in _IDENTIFIED and row.variant == "" and row.status != "undefined" for row in reading.estimates)
    held = held or any(row.variant == "given_gold" and row.status != "undefined" for row in reading.estimates)
    if not probed and not held and reading.estimates:
        where = "`panels: {probe: all}`" if reading.arms else "`judgeloop audit --probes all`"
        lines.append(
            f"Nothing here can tell a taste for length or style from a taste for quality: judge edited copies ({where}), or label some pairs by hand (`judgeloop export --format labels`)."
        )
    return lines


def _loop(reading: Reading, found: Sequence[Finding]) -> list[str]:
    lines = []
    if any(finding.word == "amplifying" for finding in found):
        lines.append(
            "The drift compounds: mix real data into every training set (`strategy: {real_fraction: 0.3}`), and stop after fewer steps."
        )
    for row in select(reading.estimates, term="strategy_gap_length", variant="equal_tokens"):
        if row.conf_low is None or row.conf_high is None or row.conf_low <= 0 <= row.conf_high:
            continue
        drifts = select(reading.estimates, term="drift_length", variant="equal_tokens")
        sizes = {one.arm: abs(one.estimate or 0.0) for one in drifts}
        better, other = sorted((row.arm, row.contrast), key=lambda arm: sizes.get(arm, 0.0))
        lines.append(
            f"At equal training tokens {wording.label(better)} drifts less in length than {wording.label(other)} ({wording.quantity(row, abs(row.estimate or 0.0))} apart): prefer its data strategy."
        )
    if any(finding.question == "judge_drift" and finding.verdict == "found" for finding in found):
        lines.append(
            "The judge itself changed between generations: pin its model version, or judge everything again with one version."
        )
    if reading.generations and reading.arms and not reading.controls:
        lines.append(
            "Add a control arm (`random: {judge: {kind: random}}`): without it a drift cannot be put down to the judge."
        )
    return lines


def _measuring(reading: Reading, found: Sequence[Finding]) -> list[str]:
    lines = []
    total = len(reading.judgments)
    lost = int((reading.judgments["verdict"] == "unscored").sum()) if total else 0
    if total and lost / total > _MUCH_UNSCORED:
        lines.append(
            f"{100 * lost / total:.1f} % of replies hold no verdict: `judgeloop doctor` shows which verdict mode this judge can do."
        )
    open_drift = [
        f for f in found if f.question == "drift" and f.verdict in ("undetected", "underpowered") and f.row.n_replicates
    ]
    if open_drift:
        now = open_drift[0].row.n_replicates or 0
        lines.append(
            f"To see a drift half as small takes about four times the replicates: {4 * now} instead of {now} (`judgeloop plan` counts what they cost)."
        )
    return lines


def _rule(reading: Reading, arm: str) -> str:
    """The label rule of an arm, from the experiment as it stands in the run folder."""
    stated = _block(_block(reading.experiment.get("arms")).get(arm))
    signal = _block(stated.get("signal")) or _block(reading.experiment.get("signal"))
    return str(signal.get("label_rule", "raw"))


def _block(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
