"""The page of the claims study, from docs/claims.csv as `judgeloop validate --claims --out` wrote it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from judgeloop.validation.claims import REPORTS, WORLDS, Claim, possible_claims

Row = Mapping[str, str]

TEXT = """# What a report may claim

A report's sentences are worth what they say where they are false. `judgeloop validate --claims` draws samples from worlds in which
the truth is planted, passes them through the estimates, findings, answers and advice that your data would pass through, and
counts how often each claim is made. A claim is what you would act on: that something was found, that there is none within the
margin, that a drift compounds, the answers and the advice on the first screen, and what `judgeloop check` rules with its default
limits. This page is made from [claims.csv](claims.csv), which

```sh
judgeloop validate --claims --seed 0 --out claims
```

wrote ({replications}, `coin` with `--replications 20000` and again with `--seed 1`, both together; it goes on where it was stopped). CI draws seven of the worlds again.

**A claim is held** in a world in which it is false if it is made there in at most 5 % of samples and two Monte-Carlo errors.
Exploratory findings are corrected by Benjamini and Hochberg's method, which controls the share of false ones among those that are
found: 10 % on average, which is also what one may be found in; edited copies, other than padding, by Holm's at 10 %, a family of
their own, as the phrases that spread are. A limit's ruling may be wrong in 2.5 %. Of whole reports, at
most 5 % may hold any false confirmatory finding. Of claims that are made in exactly 5 %, one in 44 misses by chance.
What holds *relative to what the two raters share*, and says so, is true where it is so by their measure, in which what both get wrong,
as where one label was copied from the other, counts as quality too.
Of runs, the claims on the judge's own drift, on the drift of length, style and correctness and on over-optimisation are drawn; those on
other features and on diversity are made by the same tests, and drawn where texts are analysed by generation. In `coin` the first slot's test has a size of 0.0504 by summation over all outcomes
(`tests/stats/test_inference.py`); of 20,000 draws 0.0538 found it, 2.2 of their errors above, and of 20,000 others 0.0499. The answer `biased` and the advice of some worlds were
drawn before an exploratory finding of p above 1 % answered "Perhaps" and called for no advice: their rates there can only be lower. Where `length_shape` and
the tests of what is missing are false was marked in the rates of earlier worlds afterwards; in these worlds' same samples `phrase_spread` was then
estimated alone, but for `stock_closing`, which is drawn whole.
"""

_PERMITTED = {
    "found": "95 % interval without 0, and the test adjusted for its family",
    "none": "two one-sided tests at 5 %, within the margin",
    "unchanged": "every verdict as at generation 0",
    "passed": "the whole 95 % interval within the limit",
    "exceeded": "the whole 95 % interval beyond the limit",
}
_FAMILIES = ((r"did_.+", "did_<feature>"), (r"judge_drift_.+", "judge_drift_<term>"), (r"beyond_first_step_.+", "beyond_first_step_<feature>"),
             (r"(?!padding).+_probe", "<probe>_probe"), (r"slot_\\d_excess", "slot_<k>_excess"))  # fmt: skip
_COUNTED = {
    "unscored_share",
    *(
        f"advice {kind}"
        for kind in (
            "add_control",
            "more_replicates",
            "keep_disagreeing_pairs",
            "consistent_only",
            "separate_quality",
            "label_mass",
            "unscored",
        )
    ),
}
"""Rulings and advice that no sampling error can make false: they say what was measured, or count it."""


def page(path: Path) -> list[str]:
    """The page's lines."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    false = [row for row in rows if row["false"] == "yes" and row["place"] != "test"]
    missed = sorted((row for row in false if row["held"] != "True"), key=lambda row: -float(row["rate"]))
    sizes = sorted({int(row["replications"]) for row in rows})
    drawn = f"{sizes[0]:,}{f' to {sizes[-1]:,}' if len(sizes) > 1 else ''} replications a world"
    lines = [TEXT.format(replications=drawn), f"**{len(false) - len(missed)} of {len(false)} entries are held.**", ""]
    missing = [name for name in WORLDS if name not in {row["cell"] for row in rows}]
    if missing:
        lines += [f"To be drawn with this version: {', '.join(f'`{name}`' for name in missing)}.", ""]
    lines += ["## Every claim", ""]
    lines += [
        "| Claim | For example | Permitted by | False in | Most often where false | Allowed | Held |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += _every(false, rows)
    lines += ["", "## Whole reports, by world", ""]
    lines += [
        "| World | False confirmatory finding | False share of exploratory findings | False finding of an edited copy | False answer or advice |",
        "|---|---|---|---|---|",
    ]
    for name, of_world in _by(rows, "cell").items():
        whole = {row["term"]: row for row in of_world if row["place"] == "report"}
        rates = " | ".join(_rate(whole[term]) if term in whole else "–" for term in REPORTS.values())
        lines.append(f"| {WORLDS[name].about if name in WORLDS else name} | {rates} |")
    lines += ["", "## Not held", ""]
    lines += [
        f"- {_name(row)} in {WORLDS[row['cell']].about}: {_rate(row)}, allowed {float(row['allowed']):g}."
        for row in missed
    ]
    lines += [
        "" if missed else "None.",
        "## Found where it is there",
        "",
        "How often a true claim is made, its power in that world:",
        "",
    ]
    lines += ["| World | Claim | Rate |", "|---|---|---|"]
    for row in rows:
        if row["false"] == "no" and row["place"] == "finding" and row["says"] != "none" and float(row["rate"]) >= 0.1:
            lines.append(f"| {WORLDS[row['cell']].about} | {_name(row)} | {_rate(row)} |")
    lines += [
        "",
        "## Type I error",
        "",
        "Tests before correction for their number, of terms whose effect is exactly 0; of a term that is tested in several generations, any of them:",
        "",
    ]
    lines += ["| World | Term | Rejected at 5 % |", "|---|---|---|"]
    for row in rows:
        if row["place"] == "test" and row["false"] == "yes":
            lines.append(f"| {WORLDS[row['cell']].about} | `{row['term']}` | {_rate(row)} |")
    return [*lines, ""]


def _every(false: Sequence[Row], rows: Sequence[Row]) -> Iterable[str]:
    """A line a claim; one that no single estimate makes has the sentence of a sample for example."""
    by_claim: dict[tuple[str, str, str], list[Row]] = {}
    for row in (row for row in false if row["place"] != "report"):
        by_claim.setdefault((row["place"], _family(row["term"]), row["says"]), []).append(row)
    examples: dict[tuple[str, str, str], tuple[Claim, str]] = {}
    for claim, sentence in possible_claims().items():
        examples.setdefault((claim.place, _family(claim.term), claim.says), (claim, sentence))
    for key in dict.fromkeys([*examples, *by_claim]):
        place, term, says = key
        entries = by_claim.get(key, [])
        said = (row["sentence"] for row in rows if (row["place"], _family(row["term"]), row["says"]) == key)
        sentence = (examples[key][1] if key in examples else "") or next(filter(None, said), "")
        example = sentence.replace("|", "\\|") or "–"
        tests = ", ".join(dict.fromkeys(row["test"] for row in entries if row["test"] and place == "finding"))
        permitted = _PERMITTED.get(says, "the rule of [its word](method.md#words-of-the-verdicts)")
        permitted = {"answer": "the finding that decides it", "advice": "the findings that it follows from"}.get(
            place, permitted
        )
        shown = f"{place} `{term}`, {says}".replace("`advice ", "`").replace("`answer ", "`")
        if term in _COUNTED:
            yield f"| {shown} | {example} | what was measured, a count or a setting; no estimate | – | – | – | – |"
            continue
        if not entries:
            yield f"| {shown} | {example} | {permitted} | no world | – | – | – |"
            continue
        worst = max(entries, key=lambda row: float(row["rate"]) - float(row["allowed"]))
        kept = "yes" if all(row["held"] == "True" for row in entries) else "NO"
        worlds = len({row["cell"] for row in entries})
        yield (
            f"| {shown} | {example} | {permitted}{f' ({tests})' if tests else ''} | {worlds} worlds | {_rate(worst)} (`{worst['cell']}`) "
            f"| {float(worst['allowed']):g} | {kept} |"
        )  # fmt: skip


def _family(term: str) -> str:
    return next((name for pattern, name in _FAMILIES if re.fullmatch(pattern, term)), term)


def _name(row: Row) -> str:
    sign = {"1": " (more)", "-1": " (less)"}.get(row["sign"], "")
    return f"{row['place']} `{row['term']}` {row['says']}{sign}".replace("` `", "`").replace(
        "report `", "whole report: `"
    )


def _rate(row: Row) -> str:
    rate = float(row["rate"])
    return f"{rate:.3f} ± {(rate * (1 - rate) / int(row['replications'])) ** 0.5:.3f}"


def _by(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups
