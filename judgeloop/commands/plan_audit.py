"""``judgeloop.plan_audit``: calls, tokens, cost and time of an audit before any call, and the effects that its pairs can show."""

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
    CONFLICT_RATES,
    EFFECTS,
    NOTHING,
    TRIALS,
    Load,
    Range,
    RecordedRun,
    check_sizes,
    checked_rate,
    equivalence_table,
    judgment_tokens,
    load_of,
    position_table,
    priced,
    recorded_run,
    scaled,
    text_tokens,
    total_cost,
    with_own,
    with_recorded_tokens,
)
from judgeloop.commands.questions import Editor, ProbeQuestions, Questions, model_edits
from judgeloop.commands.rated import Listwise, Pointwise, RatingForm
from judgeloop.experiment.audit import AuditPlanCall
from judgeloop.experiment.options import with_keywords
from judgeloop.experiment.schema import Endpoint, ModelJudgeSpec
from judgeloop.interchange.rows import Input
from judgeloop.judging.answers import TRIAL_ANSWERS, TRIAL_QUESTION
from judgeloop.records import ORDERS
from judgeloop.rundir import default_folder
from judgeloop.stats import inference
from judgeloop.text.features import tokenize
from judgeloop.text.templates import Template
from judgeloop.wire.cassette import Cassette


@dataclass(frozen=True)
class AuditPlan:
    """What an audit takes: ``loads`` a kind of call each; and what its pairs can show: ``power``, tables of numbers.

    ``recorded``: calls that the folder has already, which are not paid again. ``speed``: calls a second and where that
    number comes from, None where it is not known. ``at_once``: the most calls in flight, by endpoint.
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
        """All calls; an upper bound in trials, and in probes of edits that a model has yet to write."""
        return sum(load.calls for load in self.loads)

    @property
    def cost(self) -> Range | None:
        """US dollars; None where a model that is asked has no price."""
        return total_cost(self.loads)

    @property
    def seconds(self) -> float | None:
        """Wall time of the calls that are left at ``speed``; None where that is not known."""
        return max(0, self.calls - self.recorded) / self.speed[0] if self.speed else None

    @property
    def seconds_a_second(self) -> float:
        """Wall time of the calls that are left for every second that a call takes: endpoints work side by side, each with
        its ``at_once`` calls in flight."""
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

    Where the folder ``out`` holds a part of this audit, tokens, calls a second and conflict rate are taken from it. No call
    is made. Raises InvalidInput. The keywords, as on the command line:

    {options}
    """
    call = valid(AuditPlanCall, options)
    effect, conflict = call.effect, call.conflict
    check_sizes(effect, conflict)
    stated_rate = None if call.calls_per_second is None else checked_rate(call.calls_per_second)
    settings = checked(pairs, call)
    folder = default_folder(settings.name, settings.identity()).path if call.out is None else Path(call.out)
    earlier = recorded_run(folder) if (folder / "calls").is_dir() else None
    answered = 0
    if earlier is not None:
        cassette = Cassette(folder, writable=False)
        answered = len(cassette)
        cassette.close()
    loads = tuple(_from_earlier(load, earlier, settings) for load in _loads(settings) if load.calls)
    speed = None
    if stated_rate is not None:
        speed = (stated_rate, "as stated")
    elif earlier is not None and earlier.calls_per_second is not None:
        speed = (earlier.calls_per_second, f"of what {earlier.name} has asked")
    at_once = {name: endpoint.concurrency for name, endpoint in settings.endpoints.items()}
    rate = conflict if conflict is not None else earlier.conflict if earlier else None
    power = _power(settings, effect, rate)
    return AuditPlan(settings.name, loads, answered, speed, at_once, power, _notes(settings, loads))


# -- loads -------------------------------------------------------------------------------------------------------------


def _loads(settings: Settings) -> Iterator[Load]:
    """The audit's loads, judge by judge, one a kind of call. Texts are at hand, so that only the tokens are estimated."""
    questions, editor, probing = settings.questions, settings.editor, settings.rule_probes()
    for name, spec in settings.judges.items():
        of_judge = f" by {name}" if len(settings.judges) > 1 else ""
        if settings.reward is not None:
            yield from _reward_loads(settings, name, probing, of_judge)
            continue
        endpoint, template = settings.endpoints[spec.endpoint], settings.template_of(name)
        if settings.pairwise:
            pairs = [(questions.items[m.item_id].prompt, m.a.text, m.b.text) for m in questions.matchups]
            yield _judge_load(f"judgments{of_judge}", spec, endpoint, template, pairs, questions.calls)
            edits = [(questions.items[p.matchup.item_id].prompt, p.matchup.a.text, p.matchup.b.text)
                     for p in probing.of(name)]  # fmt: skip
            yield _judge_load(f"probes{of_judge}", spec, endpoint, template, edits, probing.calls(name))
            if editor is not None and name in settings.bases:
                # An edit that is not written yet counts with the length of its text.
                unwritten = [(questions.items[text.item_id].prompt, text.text, text.text)
                             for _, _, text, _, _ in model_edits(questions, editor)]  # fmt: skip
                what = f"probes of written edits{of_judge} (at most)"
                yield _judge_load(what, spec, endpoint, template, unwritten, len(unwritten) * len(ORDERS))
            yield _trial_load(spec, endpoint, template)
        if settings.form is not None:
            yield _form_load(settings.form, spec, endpoint, of_judge)
            yield _trial_load(spec, endpoint, settings.form.template)
    if editor is not None:
        yield from _edit_loads(questions, editor)


def _reward_loads(settings: Settings, name: str, probing: ProbeQuestions, of_judge: str) -> Iterator[Load]:
    """A reward model scores every text and every edit once; it writes nothing."""
    endpoint, items = settings.endpoints[name], settings.questions.items
    edits = [probe.matchup.b for probe in probing.of(name)]
    for what, texts in (("scores", settings.questions.texts()), ("scores of edits", edits)):
        bodies = (
            reward_body(endpoint, "classify", None, prompt=items[text.item_id].prompt, answer=text.text)
            for text in texts
        )
        yield load_of(f"{what}{of_judge}", name, endpoint, bodies, NOTHING)
    trial = text_tokens(f"{TRIAL_QUESTION} {TRIAL_ANSWERS[0]}")
    yield priced(Load(f"trial score{of_judge}", name, 1, trial, NOTHING, None), endpoint)


def _judge_load(
    what: str,
    spec: ModelJudgeSpec,
    endpoint: Endpoint,
    template: Template,
    pairs: list[tuple[Any, str, str]],
    calls: int,
) -> Load:
    """``calls`` judgments of these pairs: (prompt, first text, second text)."""
    mode = template.modes[0] if spec.verdict == "auto" else spec.verdict
    bodies = (
        judge_body(endpoint, template, mode, prompt=prompt, first_text=first, second_text=second)
        for prompt, first, second in pairs
    )
    load = load_of(what, spec.endpoint, endpoint, bodies, judgment_tokens(spec, endpoint, template))
    return scaled(load, calls, endpoint)


def _form_load(form: RatingForm, spec: ModelJudgeSpec, endpoint: Endpoint, of_judge: str) -> Load:
    """Scores of texts, or choices from lists."""
    template = form.template
    mode = template.modes[0] if spec.verdict == "auto" else spec.verdict
    if isinstance(form, Pointwise):
        bodies = [
            score_body(endpoint, template, mode, scale, prompt=form.questions.items[text.item_id].prompt, answer=text.text)
            for text in form.questions.texts() for scale in form.scales
        ]  # fmt: skip
        what = "scores"
    else:
        assert isinstance(form, Listwise)
        bodies = [
            choice_body(endpoint, template, mode, prompt=texts.prompt, texts=texts.texts)
            for texts in form.sets.values()
        ]
        what = "choices"
    completion = judgment_tokens(spec, endpoint, template)
    return scaled(load_of(f"{what}{of_judge}", spec.endpoint, endpoint, bodies, completion), form.calls, endpoint)


def _trial_load(spec: ModelJudgeSpec, endpoint: Endpoint, template: Template) -> Load:
    """The calls that try the template's modes; none where the mode is stated."""
    modes = len(template.modes)
    if template.kind == "judge":
        pairs = [(TRIAL_QUESTION, TRIAL_ANSWERS[0], TRIAL_ANSWERS[1])]
        load = _judge_load(TRIALS, spec, endpoint, template, pairs, modes)
    else:
        prompt = text_tokens(" ".join(message.content for message in template.messages))
        load = Load(TRIALS, spec.endpoint, modes, prompt.times(modes), Range(1.0, 8.0, 40.0).times(modes), None)
        load = priced(load, endpoint)
    return load if spec.verdict == "auto" else replace(load, calls=0)


def _edit_loads(questions: Questions, editor: Editor) -> Iterator[Load]:
    """The calls that write edits: a reply is as long as the text times the dose."""
    edits = model_edits(questions, editor)
    for name, dose in dict.fromkeys((name, dose) for *_, name, dose in edits):
        texts = [text.text for _, _, text, *edit in edits if edit == [name, dose]]
        bodies = [
            edit_body(editor.settings, editor.templates[name], text=text, length=len(text.split())) for text in texts
        ]
        length = sum((text_tokens(text) for text in texts), NOTHING).times((dose or 1.0) / len(texts))
        what = f"edits, {name}" + ("" if dose is None else f" {dose:g}")
        yield load_of(what, editor.endpoint, editor.settings, bodies, length)


def _from_earlier(load: Load, earlier: RecordedRun | None, settings: Settings) -> Load:
    """The load with the tokens a call of what this audit asked already."""
    if not load.what.startswith(("judgments", "probes")):
        return load
    return with_recorded_tokens(load, "judge", settings.endpoints[load.endpoint], earlier)


# -- what the pairs can show -------------------------------------------------------------------------------------------


def _power(settings: Settings, effect: float | None, conflict: float | None) -> dict[str, Any]:
    """Tables of what sizes find at 80 % power, two-sided 5 %: of position, and of length at equal quality."""
    if not settings.pairwise:
        return {}
    pairs, spread = len(settings.questions.matchups), _length_spread(settings)
    rates, effects = with_own(CONFLICT_RATES, conflict), with_own(EFFECTS, effect)
    # One row a pair: a judge's two verdicts on one pair say hardly more of its texts than one does. At even odds
    # s(1 − s) = ¼, and a slope of β moves the choice by β/4.
    information = 0.25 * spread**2
    return {
        "pairs": pairs, "items": len(settings.questions.items), "length_sd": spread, "conflict_rate": conflict, "effect": effect,
        "position": position_table(effects, rates),
        "equivalence": equivalence_table(rates),
        "length": [
            {"effect": size, "pairs": inference.rows_for_slope(4.0 * size, information) if information else None}
            for size in effects
        ],
        "found": {
            "position": [{"conflict_rate": rate, "effect": inference.detectable_excess(pairs, rate)} for rate in rates],
            "length": math.sqrt(inference.rows_for_slope(1.0, information) / pairs) / 4.0 if information else None,
        },
    }  # fmt: skip


def _length_spread(settings: Settings) -> float:
    """Root mean square of the pairs' difference in length, in doublings."""
    gaps = [
        math.log2(max(1, len(tokenize(matchup.a.text))) / max(1, len(tokenize(matchup.b.text))))
        for matchup in settings.questions.matchups
    ]
    return float(np.sqrt(np.mean(np.square(gaps)))) if gaps else 0.0


def _notes(settings: Settings, loads: tuple[Load, ...]) -> tuple[str, ...]:
    """Sentences on missing prices, reward models, pairs that share an item, and missing gold."""
    notes = []
    unpriced = sorted({settings.endpoints[load.endpoint].model for load in loads if load.cost is None})
    if unpriced:
        notes.append(f"no price is stated for {', '.join(unpriced)} (--price), so the cost is not known; none is guessed")  # fmt: skip
    if settings.reward is not None:
        notes.append(
            "a reward model scores each text alone: of position there is nothing to find, whatever the tables of sizes say"
        )
    pairs, items = len(settings.questions.matchups), len(settings.questions.items)
    if pairs > items:
        notes.append(f"{pairs:,} pairs of {items:,} items: pairs of one item are alike, so that more may be needed")
    if pairs and not any(pair.values["gold"] for pair in settings.questions.rows.values()):
        notes.append(f"no gold: only probes{'' if settings.probes else ' (--probes)'} can show effects of length and style")  # fmt: skip
    return tuple(notes)
