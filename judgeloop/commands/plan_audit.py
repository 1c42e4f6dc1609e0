"""``judgeloop.commands.plan_audit``: what an audit will take, before any call, and what so many pairs can show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from judgeloop.bodies import choice_body, edit_body, judge_body, reward_body, score_body
from judgeloop.commands.audit_spec import Settings, checked, valid
from judgeloop.commands.plan import (
    NOTHING,
    Load,
    Range,
    RecordedTokens,
    load_of,
    priced,
    recorded,
    scaled,
    text_tokens,
    total_cost,
    verdict_tokens,
)
from judgeloop.commands.questions import Editor, ProbeQuestions, Questions, edits_wanted
from judgeloop.commands.rated import Listwise, Pointwise
from judgeloop.commands.session import default_folder
from judgeloop.errors import InvalidInput
from judgeloop.experiment.audit import AuditPlanCall
from judgeloop.experiment.options import with_keywords
from judgeloop.experiment.schema import Endpoint, ModelJudgeSpec
from judgeloop.interchange.rows import Input
from judgeloop.records import ORDERS
from judgeloop.stats import inference
from judgeloop.text.features import tokenize
from judgeloop.text.templates import Template
from judgeloop.wire.cassette import Cassette

_DETECTED = (0.02, 0.03, 0.05, 0.10)
_CONFLICTS = (0.1, 0.3, 0.5)
_MARGINS = (0.05, 0.02)
_TRIALS = "verdict trials (at most)"


@dataclass(frozen=True)
class AuditPlan:
    """What an audit takes: ``loads`` a kind of call each; and what its pairs can show: ``power``, tables of numbers.

    ``recorded``: calls that the folder has already, which are not paid again. ``speed``: calls a second and whose word that
    is, None where nobody says. ``at_once``: the most calls in flight, by endpoint.
    """

    name: str
    loads: tuple[Load, ...]
    recorded: int
    speed: tuple[float, str] | None
    at_once: Mapping[str, int]
    power: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def calls(self) -> int:
        """All calls; trials, and what follows from edits that a model has yet to write, at their most."""
        return sum(load.calls for load in self.loads)

    @property
    def cost(self) -> Range | None:
        """US dollars; None where a model that is asked has no price."""
        return total_cost(self.loads)

    @property
    def seconds(self) -> float | None:
        """Wall time of the calls that are left at ``speed``; None where none is known."""
        return max(0, self.calls - self.recorded) / self.speed[0] if self.speed else None

    @property
    def seconds_a_second(self) -> float:
        """Wall time of the calls that are left for every second that a call takes: endpoints work side by side, each on so
        many calls at once."""
        calls: dict[str, int] = {}
        for load in self.loads:
            calls[load.endpoint] = calls.get(load.endpoint, 0) + load.calls
        whole = max((count / self.at_once[name] for name, count in calls.items()), default=0.0)
        return whole * max(0, self.calls - self.recorded) / max(1, self.calls)

    def record(self) -> dict[str, Any]:
        """The plan as JSON can hold it."""
        return {
            "name": self.name, "calls": self.calls, "recorded": self.recorded, "loads": [asdict(load) for load in self.loads],
            "cost_usd": asdict(self.cost) if self.cost else None, "seconds": self.seconds,
            "calls_per_second": self.speed[0] if self.speed else None, "seconds_a_second": self.seconds_a_second,
            "power": dict(self.power), "notes": list(self.notes),
        }  # fmt: skip


@with_keywords(AuditPlanCall)
def plan_audit(pairs: Input, **options: Any) -> AuditPlan:
    """Calls, tokens, cost and time of ``judgeloop.audit`` with the same keywords, and the pairs that effects take at 80 % power.

    Where the folder ``out`` holds a part of this audit, its replies say tokens, calls a second and conflict rate. Asks
    nothing. Raises InvalidInput. The keywords, as on the command line:

    {options}
    """
    call = valid(AuditPlanCall, options)
    effect, conflict, calls_per_second = call.effect, call.conflict, call.calls_per_second
    if effect is not None and not 0 < effect <= 0.5:
        raise InvalidInput("--effect is a probability above 0 and at most 0.5, as 0.05 for 5 points")
    if conflict is not None and not 0 < conflict <= 1:
        raise InvalidInput("--conflict is the share of pairs whose verdict changes with the order: above 0, at most 1")
    if calls_per_second is not None and not (math.isfinite(calls_per_second) and calls_per_second > 0):
        raise InvalidInput(f"--calls-per-second must be above 0, not {calls_per_second:g}")
    made = checked(pairs, call)
    folder = default_folder(made.name, made.identity()).path if call.out is None else Path(call.out)
    earlier = recorded(folder) if (folder / "calls").is_dir() else None
    answered = 0
    if earlier is not None:
        cassette = Cassette(folder, writable=False)
        answered = len(cassette)
        cassette.close()
    loads = tuple(_measured(load, earlier, made) for load in _loads(made) if load.calls)
    speed = None
    if calls_per_second is not None:
        speed = (calls_per_second, "as stated")
    elif earlier is not None and earlier.calls_per_second is not None:
        speed = (earlier.calls_per_second, f"of what {earlier.name} has asked")
    at_once = {name: one.concurrency for name, one in made.endpoints.items()}
    rate = conflict if conflict is not None else earlier.conflict if earlier else None
    return AuditPlan(made.name, loads, answered, speed, at_once, _power(made, effect, rate), _notes(made, loads))


def _loads(made: Settings) -> Iterator[Load]:
    """A kind of call each, judge by judge. Texts are known, so that only the tokens' size is a guess."""
    probing = made.rule_probes()
    for name, spec in made.judges.items():
        of_judge = f" by {name}" if len(made.judges) > 1 else ""
        if made.reward is not None:
            yield from _scored(made, name, probing, of_judge)
            continue
        endpoint, template = made.endpoints[spec.endpoint], made.template_of(name)
        if made.pairwise:
            pairs = [(made.asked.items[m.item_id].prompt, m.a.text, m.b.text) for m in made.asked.matchups]
            yield _judged(f"judgments{of_judge}", spec, endpoint, template, pairs, made.asked.calls)
            edits = [(made.asked.items[p.matchup.item_id].prompt, p.matchup.a.text, p.matchup.b.text)
                     for p in probing.of(name)]  # fmt: skip
            yield _judged(f"probes{of_judge}", spec, endpoint, template, edits, probing.calls(name))
            if made.editor is not None and name in made.bases:
                # What is not written yet is judged in the text's own size.
                written = [(made.asked.items[text.item_id].prompt, text.text, text.text)
                           for _, _, text, _, _ in edits_wanted(made.asked, made.editor)]  # fmt: skip
                what = f"probes of written edits{of_judge} (at most)"
                yield _judged(what, spec, endpoint, template, written, len(written) * len(ORDERS))
            yield _trials(spec, endpoint, template, len(template.modes))
        if made.form is not None:
            yield _formed(made.form, spec, endpoint, of_judge)
            yield _trials(spec, endpoint, made.form.template, len(made.form.template.modes))  # type: ignore[attr-defined]
    if made.editor is not None:
        yield from _edited(made.asked, made.editor)


def _scored(made: Settings, name: str, probing: ProbeQuestions, of_judge: str) -> Iterator[Load]:
    """A reward model scores every text and every edit once; nothing is written."""
    endpoint, items = made.endpoints[name], made.asked.items
    for what, texts in (("scores", made.asked.texts()), ("scores of edits", [p.matchup.b for p in probing.of(name)])):
        bodies = (
            reward_body(endpoint, "classify", None, prompt=items[one.item_id].prompt, answer=one.text) for one in texts
        )
        yield load_of(f"{what}{of_judge}", name, endpoint, bodies, NOTHING)
    trial = text_tokens("What is the capital of France? The capital of France is Paris.")
    yield priced(Load(f"trial score{of_judge}", name, 1, trial, NOTHING, None), endpoint)


def _judged(
    what: str,
    spec: ModelJudgeSpec,
    endpoint: Endpoint,
    template: Template,
    shown: list[tuple[Any, str, str]],
    calls: int,
) -> Load:
    mode = template.modes[0] if spec.verdict == "auto" else spec.verdict
    bodies = (
        judge_body(endpoint, template, mode, prompt=prompt, first_text=first, second_text=second)
        for prompt, first, second in shown
    )
    return scaled(load_of(what, spec.endpoint, endpoint, bodies, _said(spec, endpoint, template)), calls, endpoint)


def _formed(form: Any, spec: ModelJudgeSpec, endpoint: Endpoint, of_judge: str) -> Load:
    """Scores of texts, or choices from lists."""
    template: Template = form.template
    mode = template.modes[0] if spec.verdict == "auto" else spec.verdict
    if isinstance(form, Pointwise):
        bodies = [
            score_body(endpoint, template, mode, scale, prompt=form.asked.items[text.item_id].prompt, answer=text.text)
            for text in form.asked.texts() for scale in form.scales
        ]  # fmt: skip
        what = "scores"
    else:
        assert isinstance(form, Listwise)
        bodies = [
            choice_body(endpoint, template, mode, prompt=one.prompt, texts=one.texts) for one in form.sets.values()
        ]
        what = "choices"
    load = load_of(f"{what}{of_judge}", spec.endpoint, endpoint, bodies, _said(spec, endpoint, template))
    return scaled(load, form.calls, endpoint)


def _said(spec: ModelJudgeSpec, endpoint: Endpoint, template: Template) -> Range:
    """Completion tokens of one judgment."""
    longest = spec.max_tokens or endpoint.max_tokens
    mode = template.modes[0] if spec.verdict == "auto" else spec.verdict
    said = verdict_tokens(mode, reasons=template.reasons, longest=longest)
    if spec.verdict != "auto" or mode != "logprob":
        return said
    # The endpoint may turn out to have no log-probabilities.
    return Range(1.0, said.likely, max(said.high, verdict_tokens("json", reasons=False, longest=longest).likely))


def _trials(spec: ModelJudgeSpec, endpoint: Endpoint, template: Template, modes: int) -> Load:
    shown = [("What is the capital of France?", "The capital of France is Paris.", "The capital of France is Lyon.")]
    if template.kind != "judge":
        trial = text_tokens(" ".join(message.content for message in template.messages))
        load = Load(_TRIALS, spec.endpoint, modes, trial.times(modes), Range(1.0, 8.0, 40.0).times(modes), None)
        return priced(load, endpoint) if spec.verdict == "auto" else replace(load, calls=0)
    load = _judged(_TRIALS, spec, endpoint, template, shown, modes)
    return load if spec.verdict == "auto" else replace(load, calls=0)


def _edited(asked: Questions, editor: Editor) -> Iterator[Load]:
    """The calls that write edits: a reply is as long as the text times the dose."""
    wanted = edits_wanted(asked, editor)
    for name, dose in dict.fromkeys((name, dose) for *_, name, dose in wanted):
        texts = [text.text for _, _, text, *edit in wanted if edit == [name, dose]]
        bodies = [
            edit_body(editor.settings, editor.templates[name], text=text, length=len(text.split())) for text in texts
        ]
        length = sum((text_tokens(text) for text in texts), NOTHING).times((dose or 1.0) / len(texts))
        called = f"edits, {name}" + ("" if dose is None else f" {dose:g}")
        yield load_of(called, editor.endpoint, editor.settings, bodies, length)


def _measured(one: Load, earlier: RecordedTokens | None, made: Settings) -> Load:
    """The load with the tokens a call of what this audit asked already."""
    endpoint = made.endpoints[one.endpoint]
    found = earlier.tokens.get(("judge", endpoint.model)) if earlier else None
    if found is None or earlier is None or not one.what.startswith(("judgments", "probes")):
        return one
    prompt, completion = (part.times(one.calls) for part in found)
    return priced(replace(one, prompt=prompt, completion=completion, basis=f"counted in {earlier.name}"), endpoint)


def _power(made: Settings, effect: float | None, conflict: float | None) -> dict[str, Any]:
    """Tables of what sizes find at 80 % power, two-sided 5 %: of position, and of length at equal quality."""
    if not made.pairwise:
        return {}
    pairs, spread = len(made.asked.matchups), _length_spread(made)
    rates = sorted({*_CONFLICTS, *([conflict] if conflict is not None else [])})
    effects = sorted({*_DETECTED, *([effect] if effect is not None else [])})
    # One row a pair: a judge's two verdicts on one pair say hardly more of its texts than one does. At even odds
    # s(1 − s) = ¼, and a slope of β moves the choice by β/4.
    information = 0.25 * spread**2
    return {
        "pairs": pairs, "items": len(made.asked.items), "length_sd": spread, "conflict_rate": conflict, "effect": effect,
        "position": [
            {
                "effect": size, "conflict_rate": rate,
                "pairs": inference.pairs_for_position(size, rate) if 2 * size <= rate else None,
            }
            for size in effects for rate in rates
        ],
        "equivalence": [
            {"margin": margin, "conflict_rate": rate, "pairs": inference.pairs_for_equivalence(margin, rate)}
            for margin in _MARGINS for rate in rates
        ],
        "length": [
            {"effect": size, "pairs": inference.rows_for_slope(4.0 * size, information) if information else None}
            for size in effects
        ],
        "found": {
            "position": [{"conflict_rate": rate, "effect": inference.detectable_excess(pairs, rate)} for rate in rates],
            "length": math.sqrt(inference.rows_for_slope(1.0, information) / pairs) / 4.0 if information else None,
        },
    }  # fmt: skip


def _length_spread(made: Settings) -> float:
    """Root mean square of the pairs' difference in length, in doublings."""
    gaps = [
        math.log2(max(1, len(tokenize(one.a.text))) / max(1, len(tokenize(one.b.text)))) for one in made.asked.matchups
    ]
    return float(np.sqrt(np.mean(np.square(gaps)))) if gaps else 0.0


def _notes(made: Settings, loads: tuple[Load, ...]) -> tuple[str, ...]:
    notes = []
    unpriced = sorted({made.endpoints[one.endpoint].model for one in loads if one.cost is None})
    if unpriced:
        notes.append(f"no price is stated for {', '.join(unpriced)} (--price), so no cost is; none is guessed")
    if made.reward is not None:
        notes.append(
            "a reward model scores each text alone: of position there is nothing to find, whatever the sizes say"
        )
    pairs, items = len(made.asked.matchups), len(made.asked.items)
    if pairs > items:
        notes.append(f"{pairs:,} pairs of {items:,} items: pairs of one item are alike, so that more may be needed")
    if pairs and not any(pair.values["gold"] for pair in made.asked.known.values()):
        notes.append("no gold: length and style will be told by probes alone (--probes)" if not made.probes else "no gold: length and style will be told by the probes alone")  # fmt: skip
    return tuple(notes)
