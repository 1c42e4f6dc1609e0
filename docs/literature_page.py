"""The page of the seed experiments of the literature, from pictures/numbers.json as `python docs/pictures.py` measured them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

EXPERIMENT = Path(__file__).parents[1] / "examples" / "literature" / "strategies.yaml"
Row = Mapping[str, Any]

TEXT = """# Findings of the literature, as experiments to run

Three experiments of [examples/literature](../examples/literature/) show what papers on training with synthetic data and with model
judges found. They run as they stand, offline, in a minute or two each:

```sh
judgeloop serve --planted examples/literature/planted.yaml --port 8123      # in one terminal
judgeloop run examples/literature/strategies.yaml                           # in another
judgeloop run examples/literature/one_in_a_thousand.yaml
judgeloop run examples/literature/contamination.yaml
```

**What this is evidence for.** Drafts and judges are planted: texts of made-up sentences, and judges whose law stands in the files. So the
truth is known, and what is tested is whether the harness shows it. It says nothing of any model; the papers do. All policies are *pools*: texts
drafted once, re-weighted from generation to generation. Numbers on this page are those experiments' estimates with 95 % intervals over
8 replicates at generation {last}, unless another is named; `python docs/pictures.py` runs them again.

## Replace, accumulate, a share of real data

![Variety falls generation by generation under replace and levels off under accumulate; rare kinds of text go under a taste for plain text; mean length hardly moves](pictures/strategies.svg)

**Seen**, with a coin for a judge: under `replace` an item's texts lose variety in every generation, {replace_vendi} effective texts
(`drift_vendi`), while the means are not shown to move: length {replace_length} doublings, right texts {replace_correct} points. Under
`accumulate` the loss is {accumulate_first} after one generation and {accumulate_vendi} after {last}: bounded. With half real data it is
{half_vendi}, and levels off.

**Tails.** A coin picks a rare text as readily as a common one, so that variety is lost and the *mass* in rare kinds of text is not
(`drift_tail_mass_retained` {replace_tail}). It takes a preference for what is typical; here a judge with a taste for plain text stands for
one. After one generation {plain_first} of the tail is lost, when length is at {plain_length_first} doublings, not shown to move; after {last},
{plain_tail} under `replace` and {plain_accumulate_tail} under `accumulate`. By then length is at {plain_length}, and right texts at {plain_correct}
points, not shown to move.

**The papers.** Shumailov et al. (2024) find that models trained on their own output lose the tails of the data first, and their
variance in the end; Alemohammad et al. (2024) that without enough fresh real data quality or diversity falls, and that sampling which
favours quality loses diversity sooner. Gerstgrasser et al. (2024) find the error bounded where each generation's data join the earlier ones.

**What differs.** Their generators are fitted to their own samples and may add errors of their own; a pool is re-weighted and cannot. Their real data
are fresh or the original training set; here they are generation 0's candidates, of which an item has {candidates}. The first drop under
`accumulate` is that half of its set becomes these. A taste for plain text is itself a mean (style) and moves at once, so that
`collapse_stage` calls its arms *late collapse*.

## One synthetic text in 1,000

![The loop's length grows under replace alone; a regression's error falls with the number of rows without synthetic data, and flattens with a thousandth of it](pictures/one_in_a_thousand.svg)

**Seen**: with every text synthetic, a judge that likes length adds {all_length} doublings; with one in 1,000 the drift is {thousandth_length},
which is shown to lie within the margin (verdict *{thousandth_verdict}*). It is not 0 by construction: each generation's selection lies {pull} doublings
above the real data (`mixing_length` undoes 999 parts in 1,000 of it), and a thousandth of that, {thousandth_pull}, stays; the same in every
generation, for it is replaced and does not add up. More items or texts narrow the interval and leave that pull as it is.

**The paper.** Dohmatob et al. (2024, "Strong Model Collapse") find that with any fixed share of synthetic data, even one in 1,000, the error
of a model stops falling as data grow.

**What differs.** That more data do not help is a statement on how an error falls with the amount of data, which a loop of one size does not
measure. `judgeloop validate --only B3` checks it in a regression with planted truth, whose synthetic rows are labelled by the last model, bent: on the
right, the error at {rows} rows is {error} times its floor with a thousandth of synthetic data, and {without} times with none.

## The judge as evaluator and as training signal

![The judge's own score rises in every generation; the share of right texts rises in the gold arm alone](pictures/contamination.svg)

**Seen**: by its own account the judge improves the model by {score} standard deviations of its score, beyond a coin (`proxy_gain`). The share of right texts moves by
{judge_correct} points: no rise is shown, and none is there, for right and wrong texts are drafted alike. It could have risen: selected by gold from the
same drafts it gains {gold_correct} points. What did rise is length, {judge_length} doublings.

**The papers.** Gao, Schulman & Hilton (2023) find that a proxy which is optimised goes on rising after what it stood for has stopped;
Wataoka, Takahashi & Ri (2024) that judges favour texts that read like their own. Where one judge trains and evaluates, its score holds both.

**What differs.** The planted judge does not read whether a text is right, so that its score is all contamination; a real judge reads some of
it, and gold may rise before it stalls.

## Sources

Alemohammad, Casco-Rodriguez, Luzi et al. 2024, "Self-Consuming Generative Models Go MAD", ICLR · Dohmatob, Feng, Subramonian & Kempe
2024, "Strong Model Collapse", arXiv 2410.04840 · Gao, Schulman & Hilton 2023, "Scaling Laws for Reward Model Overoptimization", ICML ·
Gerstgrasser, Schaeffer, Dey et al. 2024, "Is Model Collapse Inevitable?", arXiv 2404.01413 · Shumailov, Shumaylov, Zhao,
Papernot, Anderson & Gal 2024, "AI models collapse when trained on recursively generated data", *Nature* 631 · Wataoka, Takahashi & Ri 2024,
"Self-Preference Bias in LLM-as-a-Judge", arXiv 2410.21819
"""


class Numbers:
    """The numbers of the pictures, as sentences name them."""

    def __init__(self, path: Path) -> None:
        self.pictures: Mapping[str, Sequence[Row]] = json.loads(path.read_text(encoding="utf-8"))

    def row(self, picture: str, term: str, arm: str, generation: int, **keys: Any) -> Row:
        """The row of a term; KeyError where there is none."""
        wanted = {"term": term, "arm": arm, "generation": generation, **keys}
        for row in self.pictures[picture]:
            if all(row.get(key) == value for key, value in wanted.items()):
                return row
        raise KeyError(wanted)

    def said(
        self, picture: str, term: str, arm: str, generation: int, digits: int = 2, factor: float = 1.0, **keys: Any
    ) -> str:
        """The estimate and its interval."""
        row = self.row(picture, term, arm, generation, **keys)
        mid, low, high = (number(factor * row[key], digits) for key in ("estimate", "conf_low", "conf_high"))
        return f"{mid} [{low}, {high}]"


def page(numbers: Numbers) -> list[str]:
    """The page's lines."""
    pictures = numbers.pictures
    last = max(row["generation"] for row in pictures["strategies"])

    def found(picture: str, term: str, arm: str, generation: int = last) -> Row:
        return numbers.row(picture, term, arm, generation)

    def said(picture: str, term: str, arm: str, generation: int = last, digits: int = 2, factor: float = 1.0) -> str:
        return numbers.said(picture, term, arm, generation, digits, factor)

    pull = found("one_in_a_thousand", "mixing_length", "one_in_a_thousand", last - 1)
    largest = max((row for row in pictures["one_in_a_thousand"] if "rows" in row), key=lambda row: row["rows"])
    thousandth = "one_in_a_thousand", "drift_length", "one_in_a_thousand"
    text = TEXT.format(
        last=last, candidates=yaml.safe_load(EXPERIMENT.read_text(encoding="utf-8"))["candidates_per_item"],
        replace_vendi=said("strategies", "drift_vendi", "replace"),
        replace_length=said("strategies", "drift_length", "replace"),
        replace_correct=said("strategies", "drift_correct", "replace", digits=1, factor=100),
        replace_tail=said("strategies", "drift_tail_mass_retained", "replace"),
        accumulate_first=said("strategies", "drift_vendi", "accumulate", 1),
        accumulate_vendi=said("strategies", "drift_vendi", "accumulate"),
        half_vendi=said("strategies", "drift_vendi", "half_real"),
        plain_first=_share(found("strategies", "drift_tail_mass_retained", "plain", 1)),
        plain_length_first=said("strategies", "drift_length", "plain", 1),
        plain_length=said("strategies", "drift_length", "plain"),
        plain_tail=_share(found("strategies", "drift_tail_mass_retained", "plain")),
        plain_accumulate_tail=_share(found("strategies", "drift_tail_mass_retained", "plain_accumulate")),
        plain_correct=said("strategies", "drift_correct", "plain", digits=1, factor=100),
        all_length=said("one_in_a_thousand", "drift_length", "replace"),
        thousandth_length=said(*thousandth, digits=3), thousandth_verdict=found(*thousandth)["verdict"],
        pull=number(-pull["estimate"] / 0.999, 2), thousandth_pull=number(-pull["estimate"] / 999, 4),
        rows=f"{largest['rows']:,}", error=number(largest["estimate"], 2), without=number(largest["without"], 3),
        score=said("contamination", "proxy_gain", "judge"),
        judge_correct=said("contamination", "drift_correct", "judge", digits=1, factor=100),
        gold_correct=said("contamination", "drift_correct", "gold", digits=1, factor=100),
        judge_length=said("contamination", "drift_length", "judge"),
    )  # fmt: skip
    return [*text.splitlines(), ""]


def number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _share(row: Row) -> str:
    """A loss, in percent with its interval."""
    mid, low, high = (number(-100 * row[key], 0) for key in ("estimate", "conf_high", "conf_low"))
    return f"{mid} % [{low}, {high}]"
