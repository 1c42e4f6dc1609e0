"""What to change, from what was found: each line rests on a finding or on a gap in what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from judgeloop.report import wording
from judgeloop.report.claims import COMPOUNDING, Finding, Standing, is_probe, leading
from judgeloop.report.findings import beyond_length, less_varied, own_effect
from judgeloop.report.reading import Reading, select
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


# The four questions that a reader comes with, each answered in a sentence that its interval and test license.

Tone = Literal["found", "open", "calm", "plain"]

_WORDS: dict[Standing, tuple[str, Tone]] = {
    "found": ("Yes", "found"),
    "unconfirmed": ("Perhaps", "open"),
    "unclear": ("Unclear", "open"),
    "equivalent": ("None within margin", "calm"),
    "undetected": ("Not detected", "plain"),
    "underpowered": ("Too few data", "plain"),
    "undefined": ("Cannot be told", "plain"),
    "described": ("Cannot be told", "plain"),
}
_OF_JUDGE = ("position", "content", "self_preference")
_NAMES = {"position": "Position", "content": "Length and style", "self_preference": "Own answers"}
_MOST_SAID = 8
_MOST_GROWN = 4
_MANY_REPLICATES = 8
_MANY_PAIRS = 300


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """One question, the word that answers it, and the sentences behind the word, the weightiest first."""

    question: str
    word: str
    tone: Tone
    sentences: tuple[str, ...]


def answers(reading: Reading, found: Sequence[Finding]) -> list[QuestionAnswer]:
    """The four answers in the order in which they are asked."""
    return [
        _biased(found),
        _growing(reading, found),
        _sure(reading, found),
        _change(reading, found),
    ]


def brief(finding: Finding, *, named: bool = True) -> str:
    """A finding in few words: what, how much, its interval; for what was not detected, what could have been.

    ``named``: the judge is named (not needed where there is one).
    """
    row = finding.row
    name = wording.term_name(row.term)
    arms = f"{wording.label(row.arm)} against {wording.label(row.contrast)}: " if row.contrast else ""
    who = arms or (f"{wording.label(row.judge)}: " if row.judge and named else "")
    if who:
        name = wording.sentence_start(name)
    if finding.verdict == "undefined" or row.estimate is None:
        return f"{who}{name}: undefined"
    if row.term == "style_joint":
        test = wording.p_value(row.p_adjusted if row.p_adjusted is not None else row.p_value)
        moved = "move the verdict" if finding.verdict == "found" else "no effect shown"
        return f"{who}{name}: {moved} ({test})"
    unit = f" {wording.unit_name(row)}" if wording.unit_name(row) else ""
    limits = f", {wording.interval(row)}" if row.conf_low is not None else ""
    value = f"{who}{name}: {wording.signed_figure(row)}{unit}{limits}"
    if finding.question == "diversity" and finding.verdict == "found":
        return f"{value} ({'less' if less_varied(row) else 'more'} varied)"
    if finding.word in COMPOUNDING:
        return f"{value}; {finding.word}"
    if finding.verdict in ("undetected", "underpowered"):
        could = f"; this {'run' if row.n_replicates else 'sample'} could only have seen {wording.quantity(row, row.detectable)} or more" if row.detectable is not None else ""  # fmt: skip
        return f"{value}, {'undetected' if finding.verdict == 'undetected' else 'too few data'}{could}"
    if finding.verdict == "equivalent":
        return f"{value}, none of practical size"
    if finding.verdict == "unconfirmed":
        return f"{value}, unconfirmed"
    return value


def _biased(found: Sequence[Finding]) -> QuestionAnswer:
    """What is identified leads: a raw preference, which may be for quality, never answers this."""
    asked = [finding for finding in found if finding.question in _OF_JUDGE and finding.verdict != "described"]
    judges = list(dict.fromkeys(finding.row.judge for finding in asked))
    some = [
        [finding for finding in asked if finding.question == question and finding.row.judge == judge]
        for question in _OF_JUDGE
        for judge in judges
    ]
    leads = [leading(group) for group in some if group]
    question = "Is my judge biased?"
    if not leads:
        return QuestionAnswer(
            question, "Not measured", "plain", ("Nothing in this run identifies a bias of the judge.",)
        )
    # "None" may be said only where every question that was asked has that answer.
    word, tone = _WORDS[leading(leads).verdict]
    known = [one for group in some if group for one in _said_of(group) if one.verdict != "undefined"]
    known.sort(key=lambda finding: finding.verdict in ("underpowered", "undetected"))
    said = [f"{brief(finding, named=len(judges) > 1)}." for finding in known[:_MOST_SAID]]
    if len(known) > _MOST_SAID:
        said.append(f"{len(known) - _MOST_SAID} more below.")
    for asks, name in _NAMES.items():
        why = [finding.row.note for finding in leads if finding.question == asks and finding.verdict == "undefined"]
        if why:
            said.append(f"{name}: undefined{f' ({wording.reason(why[0], 200)})' if why[0] else ''}.")
    return QuestionAnswer(question, word, tone, tuple(said))


def _said_of(group: Sequence[Finding]) -> list[Finding]:
    """What stands for a question and judge, and beside it the largest probe that was found: the findings come by harm."""
    lead = leading(group)
    probes = [one for one in group if one.verdict == "found" and is_probe(one.row.term) and one is not lead]
    own = [lead] if not is_probe(lead.row.term) or lead.row.term == "padding_probe" else []
    return list(dict.fromkeys([lead, *(probes[:1] if own else [])]))


def _growing(reading: Reading, found: Sequence[Finding]) -> QuestionAnswer:
    question = "Is the bias growing in my outputs?"
    if not reading.arms:
        return QuestionAnswer(question, "Not measured", "plain", (_of_log(reading),))
    drift = [finding for finding in found if finding.question == "drift"]
    if not drift:
        why = (
            "No arm is contrasted with a control: a drift could be anything."
            if reading.generations
            else "No drift was measured."
        )
        return QuestionAnswer(question, "Not measured", "plain", (why,))
    lead = leading(drift)
    word, tone = _WORDS[lead.verdict]
    others = [finding for finding in drift if finding is not lead and finding.verdict == "found"]
    others.sort(key=lambda finding: finding.row.term != "did_length")
    kept = [lead]
    compounding = [f for f in found if f.question == "amplification" and f.word in COMPOUNDING]
    of_lead = [
        f for f in compounding if (f.row.arm, f.row.contrast) == (lead.row.arm, lead.row.contrast)
    ] or compounding
    if of_lead:
        first = leading(of_lead)
        kept.append(first)
        if first.word == "amplifying":
            word = "Yes, and amplifying"
        elif lead.verdict == "found":
            word = f"Yes, {first.word}"
    alike = [f for f in found if f.question == "diversity" and f.verdict == "found" and less_varied(f.row)]
    if alike:
        same = [f for f in alike if (f.row.arm, f.row.contrast) == (lead.row.arm, lead.row.contrast)]
        kept.append((same or alike)[0])
        if lead.verdict != "found":
            word, tone = "Outputs grow alike", "found"
    return QuestionAnswer(
        question, word, tone, tuple(f"{brief(finding)}." for finding in [*kept, *others][:_MOST_GROWN])
    )


def _of_log(reading: Reading) -> str:
    """Why verdicts alone do not answer whether the outputs drift."""
    if not reading.generations:
        return "These verdicts name no generation; `judgeloop run` closes the loop."
    last = reading.generations[-1]
    return (
        f"The log has generations {reading.generations[0]} to {last}, and what is said of the judge is of generation {last}. "
        "Whether its bias made the outputs drift takes arms and a control; `judgeloop run` closes the loop."
    )


def _sure(reading: Reading, found: Sequence[Finding]) -> QuestionAnswer:
    said: list[str] = []
    replicates = max((row.n_replicates or 0 for row in reading.estimates), default=0)
    weak = 0 < replicates < _MANY_REPLICATES
    if replicates:
        said.append(
            f"{wording.count(replicates, 'replicate')} of the whole loop{f'; {_MANY_REPLICATES} or more are advised' if weak else ''}."
        )
    pairs = [row for row in select(reading.estimates, scope="judge", term="first_slot_excess", variant="", category="") if row.panel in ("anchor", "pairs")]  # fmt: skip
    if pairs:
        most = max(row.n for row in pairs)
        few = most < _MANY_PAIRS
        weak = weak or few
        said.append(
            f"{wording.count(most, 'pair')} in both orders for the judge{f'; {_MANY_PAIRS} or more are advised, for fewer can miss a small taste for a slot' if few else ''}."
        )
    rated = select(
        reading.estimates, scope="judge", term=("score_mean", "position_permutation"), variant="", category=""
    )
    for term, what in (("score_mean", "text"), ("position_permutation", "set")):
        most = max((row.n for row in rated if row.term == term), default=0)
        if most:
            how = "scored by the judge" if what == "text" else "in all rotations for the judge"
            said.append(f"{wording.count(most, what)} {how}.")
    unseen = [f for f in found if f.verdict in ("undetected", "underpowered") and f.row.detectable is not None]
    if unseen:
        parts = [f"{_whose(f)} {wording.quantity(f.row, f.row.detectable)}" for f in _largest(unseen)]
        said.append(f"Smallest effects that could have been seen with 80 % power: {'; '.join(parts)}.")
    undefined = sum(finding.verdict == "undefined" for finding in found)
    if undefined:
        said.append(f"{wording.count(undefined, 'finding')} cannot be told from this run at all; each says why.")
    if not said:
        return QuestionAnswer("How sure are we?", "Not at all", "open", ("Nothing was measured.",))
    if weak or unseen:
        return QuestionAnswer("How sure are we?", "Limited", "open", tuple(said))
    return QuestionAnswer("How sure are we?", "Fairly sure", "plain", tuple(said))


def _largest(unseen: Sequence[Finding]) -> list[Finding]:
    """Of each measure the contrast that saw the least, four measures at most."""
    known = sorted(unseen, key=lambda finding: -(finding.row.detectable or 0.0))
    return list({finding.row.term: finding for finding in reversed(known)}.values())[::-1][:4]


def _whose(finding: Finding) -> str:
    row = finding.row
    arms = f" ({wording.label(row.arm)} against {wording.label(row.contrast)})" if row.contrast else ""
    return f"{wording.sentence_start(wording.term_name(row.term))}{arms}"


def _change(reading: Reading, found: Sequence[Finding]) -> QuestionAnswer:
    said = advice(reading, found)
    if not said:
        return QuestionAnswer(
            "What should I change?", "Nothing yet", "plain", ("Nothing that was found calls for a change.",)
        )
    return QuestionAnswer("What should I change?", wording.count(len(said), "thing"), "plain", tuple(said))
