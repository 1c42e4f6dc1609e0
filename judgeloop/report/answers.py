"""What to change, from what was found: each line rests on a finding or on a gap in what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from judgeloop.report import wording
from judgeloop.report.findings import beyond_length, own_effect
from judgeloop.report.loop_findings import less_varied
from judgeloop.report.reading import Reading, select
from judgeloop.report.verdicts import Finding, is_probe
from judgeloop.stats.estimate import Estimate

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
        rules = {arm: _rule(reading, arm) for arm in reading.arms if arm not in reading.controls}
        averaged = [arm for arm, rule in rules.items() if rule == "swap_average"]
        how = "average the two verdicts"
        if averaged:
            how = f"average the two verdicts, as in arm {_names(averaged)}{_drifted(reading, averaged[0])}"
        elif "raw" in rules.values():
            how = "train on the average of both (`label_rule: swap_average`)"
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
        lines.append(
            f"The judge favours {way} answers: {_length_rule(reading)}, and say in the prompt that length does not count."
        )
    probed = [f for f in found if f.verdict == "found" and is_probe(f.row.term) and f.row.term not in _LENGTH]
    own = {id(f): own_effect(reading.estimates, f.row) for f in probed}
    beyond = [f for f in probed if beyond_length(f.row, own[id(f)]) or not _adds_words(f, own[id(f)])]
    for finding in beyond:  # the most harmful first
        if finding.row.term in set(certain) & set(_OBEDIENCE) and (finding.row.estimate or 0.0) > 0:
            lines.append(
                f"The judge {_OBEDIENCE[finding.row.term]}: mark candidates as data in the prompt, strip such passages before judging, or take another judge."
            )
    style = [f for f in beyond if f.row.term not in _OBEDIENCE]
    if style:
        lines.append(
            f"The judge reacts to form alone ({_edits(style)}): strip it before judging, or judge with a prompt that asks for content only."
        )
    words = [f for f in probed if f not in beyond and own[id(f)] is not None]
    if words:
        lines.append(
            f"{wording.sentence_case(_edits(words, 6))}: these edits add words, and the judge's taste for length alone could explain that they win. Mend that first, then probe again."
        )
    untold = [f for f in probed if f not in beyond and own[id(f)] is None]
    if untold:
        lines.append(
            f"{wording.sentence_case(_edits(untold))}: these edits win, but they add words too: probe `padding` beside them, which tells what words alone are worth."
        )
    measured = any(is_probe(row.term) and row.status != "undefined" for row in reading.estimates)
    held = any(row.term in _IDENTIFIED and row.variant == "" and row.status != "undefined" for row in reading.estimates)
    held = held or any(row.variant == "given_gold" and row.status != "undefined" for row in reading.estimates)
    if not measured and not held and reading.estimates:
        where = "`panels: {probe: all}`" if reading.arms else "`judgeloop audit --probes all`"
        lines.append(
            f"Nothing here can tell a taste for length or style from a taste for quality: judge edited copies ({where}), or label some pairs by hand (`judgeloop export --format labels`)."
        )
    return lines


def _adds_words(finding: Finding, own: Estimate | None) -> bool:
    """Whether an edit's length could be a part of its effect: it has a row beyond length, or no padding was probed and it adds
    text. White space and Markdown's removal add none."""
    return own is not None or finding.row.term not in ("whitespace_probe", "markdown_removed_probe")


def _edits(findings: Sequence[Finding], most: int = 4) -> str:
    names = list(dict.fromkeys(wording.probe_name(finding.row.term) for finding in findings))
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _length_rule(reading: Reading) -> str:
    """What can be done about length in this run: only a fitted signal can be controlled for it."""
    arms = [arm for arm in reading.arms if arm not in reading.controls]
    if not arms:
        return "compare at equal length, or control for length"
    controlled = [arm for arm in arms if _rule(reading, arm) == "length_controlled"]
    if controlled:
        return (
            f"train as in arm {_names(controlled)} (`label_rule: length_controlled`){_drifted(reading, controlled[0])}"
        )
    if all(_kind(reading, arm) == "best_of_n" for arm in arms):
        return "train on a fitted signal that can be controlled for it (`signal: {kind: bradley_terry, label_rule: length_controlled}`; best_of_n has none)"
    return "train with `label_rule: length_controlled`"


def _drifted(reading: Reading, arm: str) -> str:
    """ ", whose length drifted +0.95 doublings beyond random (95 % interval 0.83 to 1.07)"; empty where that is not known."""
    some = [row for row in select(reading.estimates, term="did_length", arm=arm, variant="", category="") if row.generation == reading.generations[-1]]  # fmt: skip
    if not some or some[0].estimate is None:
        return ""
    row = some[0]
    return f", whose length drifted {wording.signed_figure(row)} {wording.unit_name(row)} beyond {wording.label(row.contrast)} ({wording.interval(row)})"


def _names(arms: Sequence[str]) -> str:
    return ", ".join(wording.label(arm) for arm in arms)


def _loop(reading: Reading, found: Sequence[Finding]) -> list[str]:
    lines = []
    alike = [f for f in found if f.question == "diversity" and f.verdict == "found" and less_varied(f.row)]
    mixed = "mix real data into every training set (`strategy: {real_fraction: 0.3}`)"
    if any(finding.word == "amplifying" for finding in found):
        lines.append(f"The drift compounds: {mixed}, and stop after fewer steps.")
    elif alike:
        name = wording.feature_name(wording.feature_of(alike[0].row.term, "did_"))
        lines.append(f"The outputs grow alike ({name}): {mixed}, and watch diversity beside length.")
    for row in select(reading.estimates, term="strategy_gap_length", variant="equal_tokens"):
        if row.conf_low is None or row.conf_high is None or row.conf_low <= 0 <= row.conf_high:
            continue
        drifts = select(reading.estimates, term="drift_length", variant="equal_tokens")
        sizes = {one.arm: abs(one.estimate or 0.0) for one in drifts}
        better, other = sorted((row.arm, row.contrast), key=lambda arm: sizes.get(arm, 0.0))
        sign = 1.0 if better == row.contrast else -1.0
        low, high = sorted(sign * limit for limit in (row.conf_low, row.conf_high))
        apart = f"{wording.quantity(row, abs(row.estimate or 0.0))} less, {wording.level(row)} {wording.figure(row, low)} to {wording.figure(row, high)}"
        lines.append(
            f"At equal training tokens {wording.label(better)} drifts less in length than {wording.label(other)} ({apart}{_tokens(reading, better, other)}): prefer its data strategy."
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


def _tokens(reading: Reading, one: str, other: str) -> str:
    """ "; over all generations it trains on 2.4 times the tokens"; empty where that is not known."""
    some = select(reading.estimates, term="training_tokens", variant="", category="")
    last = {row.arm: row.estimate for row in sorted(some, key=lambda row: row.generation or 0) if row.estimate}
    mine, theirs = last.get(one), last.get(other)
    return f"; over all generations it trains on {mine / theirs:.1f} times the tokens" if mine and theirs else ""


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
    signal = {**_block(reading.experiment.get("signal")), **_block(stated.get("signal"))}
    return str(signal.get("label_rule", "raw"))


def _kind(reading: Reading, arm: str) -> str:
    """The kind of an arm's signal, from the experiment as it stands in the run folder."""
    stated = _block(_block(reading.experiment.get("arms")).get(arm))
    signal = _block(stated.get("signal"))
    return str(signal.get("kind") or _block(reading.experiment.get("signal")).get("kind", "bradley_terry"))


def _block(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
