"""``judgeloop.plan``: calls, tokens, cost and time of an experiment before any call, and the effects that its size can show."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop.bodies import draft_body, embedding_body, judge_body, match_body, reward_body, score_body
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.experiment.resolve import Material, ResolvedExperiment, as_resolved
from judgeloop.experiment.schema import (
    AskedJudgeSpec,
    Endpoint,
    Experiment,
    PointwiseJudgeSpec,
    RewardJudgeSpec,
    RewardModelSignalSpec,
    RuleJudgeSpec,
)
from judgeloop.records import Item, prompt_text
from judgeloop.rundir import RunFolder
from judgeloop.stats import inference
from judgeloop.text import templates
from judgeloop.text.matching import is_asked
from judgeloop.text.templates import Mode, Template, parse_scale
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.reply import read

_LATIN = (5.0, 4.0, 3.0)
"""Characters of Latin text a token: of usual tokenizers, English prose has 4 to 4.5, code and other languages fewer."""
_OTHER = (0.4, 0.8, 1.5)
"""Tokens a character of other scripts."""
_TEMPLATE = (4.0, 12.0, 60.0)
"""Tokens that a chat template adds to a call: role marks, often a system message of its own."""

_PAUSE_S = 60
"""A longer gap between two replies counts as a pause: the run was stopped and resumed."""
_SHORTEST_S = 10
"""Time stamps are whole seconds: below this, a rate from them means little."""
_PRESENTED = re.compile(r"r\d+|j\d+")
"""How the call id of a presentation ends: in its repeat, or in the member of a panel."""

EFFECTS = (0.02, 0.03, 0.05, 0.10)
CONFLICT_RATES = (0.1, 0.3, 0.5)
MARGINS = (0.05, 0.02)
_REPLICATES = (3, 5, 8, 10, 20)

TRIALS = "verdict trials (at most)"
_DRAFTS = {
    "pool drafts": "drafts, the pools",
    "first drafts": "drafts, generation 0",
    "trained drafts": "drafts of trained models",
    "anchor drafts": "drafts, anchor panel",
}
_STAGES = {"drafts, with": "draft with exemplars", "drafts": "draft", "judgments": "judge"}
"""What a load's name begins with → the stage of the recorded calls that are like it."""


# -- loads: calls, tokens and their cost -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is estimated: the lowest and the highest to reckon with, and the likely one between them."""

    low: float
    likely: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: float) -> Range:
        """The range of ``factor`` (0 or more) such numbers."""
        return Range(self.low * factor, self.likely * factor, self.high * factor)

    def at_most(self, most: float) -> Range:
        """The range with none of its three numbers above ``most``."""
        return Range(min(self.low, most), min(self.likely, most), min(self.high, most))


NOTHING = Range(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Load:
    """What one kind of call takes in all: ``prompt`` and ``completion`` are tokens of all ``calls`` together.

    ``cost`` in US dollars by the endpoint's price, None where none is stated. ``basis``: how tokens were estimated.
    """

    what: str
    endpoint: str
    calls: int
    prompt: Range
    completion: Range
    cost: Range | None
    basis: str = "estimated from characters"


def text_tokens(text: str) -> Range:
    """Tokens of a text, estimated from its characters: 3 to 5 Latin characters a token, other scripts by the character."""
    latin = sum(letter < "\u0250" for letter in text)
    other = len(text) - latin
    return Range(*(latin / per + other * each for per, each in zip(_LATIN, _OTHER, strict=True)))


def prompt_tokens(body: Mapping[str, Any]) -> Range:
    """Prompt tokens of a chat request, its template's own included."""
    contents = (prompt_text(str(message.get("content") or "")) for message in body["messages"])
    return sum((text_tokens(content) for content in contents), Range(*_TEMPLATE))


def verdict_tokens(mode: Mode | str, *, reasons: bool, longest: int) -> Range:
    """Completion tokens of one judgment: one in logprob mode; else the verdict alone, or with ``reasons`` a paragraph
    before it. A model that thinks first may use all that it is allowed: ``longest``."""
    if mode == "logprob":
        return Range(1.0, 1.0, 1.0)
    return (Range(30.0, 150.0, longest) if reasons else Range(3.0, 8.0, longest)).at_most(longest)


def judgment_tokens(judge: AskedJudgeSpec, endpoint: Endpoint, template: Template) -> Range:
    """Completion tokens of one judgment. An endpoint may turn out to have no log-probabilities: ``auto`` then asks for JSON."""
    longest = judge.max_tokens or endpoint.max_tokens
    mode = template.modes[0] if judge.verdict == "auto" else judge.verdict
    tokens = verdict_tokens(mode, reasons=template.reasons, longest=longest)
    if judge.verdict != "auto" or mode != "logprob":
        return tokens
    return Range(1.0, tokens.likely, max(tokens.high, verdict_tokens("json", reasons=False, longest=longest).likely))


def load_of(
    what: str, name: str, endpoint: Endpoint, bodies: Iterable[Mapping[str, Any]], completion: Range
) -> Load:  # fmt: skip
    """The load of these request bodies; ``completion`` is of one call. ``name`` is the endpoint's."""
    calls, prompt = 0, NOTHING
    for body in bodies:
        calls, prompt = calls + 1, prompt + prompt_tokens(body)
    return priced(Load(what, name, calls, prompt, completion.times(calls), None), endpoint)


def scaled(load: Load, calls: int, endpoint: Endpoint) -> Load:
    """The load of ``calls`` such calls."""
    factor = calls / load.calls if load.calls else 0.0
    many = replace(load, calls=calls, prompt=load.prompt.times(factor), completion=load.completion.times(factor))
    return priced(many, endpoint)


def priced(load: Load, endpoint: Endpoint) -> Load:
    """The load with its cost by the endpoint's price; None where none is stated: nothing is guessed."""
    price = endpoint.price
    if not endpoint.is_priced:
        return replace(load, cost=None)
    return replace(load, cost=load.prompt.times(price.input / 1e6) + load.completion.times(price.output / 1e6))


def total_cost(loads: Iterable[Load]) -> Range | None:
    """The summed cost in US dollars; None where a load that has calls has no price."""
    costs = [load.cost for load in loads if load.calls]
    if any(cost is None for cost in costs):
        return None
    return sum((cost for cost in costs if cost is not None), NOTHING)


# -- an earlier run: tokens a call, calls a second, and how much results vary ------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What a run folder says for a plan. ``tokens``: (stage, model) → tokens of a call's prompt and completion; stages are
    draft, draft with exemplars (generation 1 on) and judge. ``conflict``: the share of pairs whose verdict changed with the
    order; ``drift_sd``: the SD between replicates of the last did_length, in doublings, at its
    upper 90 % limit. None where the folder does not say. ``seen``: feature → how far its positive control drifted in the end, in such SDs.
    """

    name: str
    tokens: dict[tuple[str, str], tuple[Range, Range]]
    draft_tokens: Range | None
    calls_per_second: float | None
    conflict: float | None
    drift_sd: float | None
    seen: Mapping[str, float]


def recorded_run(path: str | Path) -> RecordedRun:
    """Read a run folder's recorded calls and, where it has finished, its estimates. Raises FolderMismatch.

    A call's tokens are the mean over the parts (a replicate's generation, a panel's); the range is that of these means.
    """
    folder = RunFolder.recorded(path)
    cassette = Cassette(folder.path, writable=False)
    sums: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    stamps: list[int] = []
    try:
        for exchange in cassette.exchanges():
            reply = read(exchange.status, exchange.response, exchange.fault, exchange.route)
            parts = exchange.call.split("/")
            if reply.failure or len(parts) < 4 or not reply.prompt_tokens:
                continue
            stamp = exchange.response.get("created")
            if isinstance(stamp, int) and stamp > 0:
                stamps.append(stamp)
            stage = parts[1] if parts[0] == "audit" else parts[2]
            if stage == "judge" and not _PRESENTED.fullmatch(parts[-1]):
                continue  # verdict trials, gold matching
            if stage == "draft" and parts[1] != "g0":
                stage = "draft with exemplars"
            key = (stage, str(exchange.request.get("model")))
            part_sums = sums[key]["/".join(parts[:2])]
            for column, value in enumerate((1, reply.prompt_tokens, reply.completion_tokens)):
                part_sums[column] += value
    finally:
        cassette.close()
    tokens = {key: (_tokens_a_call(by_part, 1), _tokens_a_call(by_part, 2)) for key, by_part in sums.items()}
    drafts = [completion for (stage, _), (_, completion) in tokens.items() if stage.startswith("draft")]
    variation = _recorded_variation(folder)
    return RecordedRun(Path(path).name, tokens, drafts[0] if drafts else None, _calls_per_second(stamps), *variation)


def _tokens_a_call(by_part: Mapping[str, list[int]], column: int) -> Range:
    """Tokens a call from each part's sums (calls, prompt tokens, completion tokens)."""
    means = [sums[column] / sums[0] for sums in by_part.values()]
    overall = sum(sums[column] for sums in by_part.values()) / sum(sums[0] for sums in by_part.values())
    return Range(min(means), overall, max(means))


def _calls_per_second(stamps: list[int]) -> float | None:
    """Calls a second without the pauses; None where the run was too short for its time stamps."""
    stamps.sort()
    gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    busy = sum(gap for gap in gaps if gap <= _PAUSE_S)
    return len(stamps) / busy if busy >= _SHORTEST_S else None


def _recorded_variation(folder: RunFolder) -> tuple[float | None, float | None, dict[str, float]]:
    """The conflict rate on the first fixed panel that has one; the SD between replicates of the last did_length, at its upper
    90 % limit; and how far positive controls drifted, in such SDs of their own."""
    try:
        estimates = folder.estimates()
    except FolderMismatch:
        return None, None, {}
    plain = estimates[(estimates["variant"] == "") & (estimates["category"] == "") & (estimates["status"] != "undefined")]  # fmt: skip
    rates = plain[(plain["term"] == "conflict_rate") & plain["panel"].isin(["anchor", "pairs"])]
    drifts = plain[plain["term"].str.startswith("did_") & plain["std_error"].notna() & (plain["std_error"] > 0)]
    drifts = drifts.sort_values("generation", kind="stable")
    lengths = drifts[drifts["term"] == "did_length"]
    conflict = float(rates["estimate"].iloc[0]) if len(rates) and rates["estimate"].iloc[0] > 0 else None
    seen = {}
    if "positive_control" in drifts:  # folders of earlier versions lack it
        own = drifts[drifts["positive_control"].isin(["itself_seen", "itself_not_seen"])]
        seen = {row["term"].removeprefix("did_"): abs(row["estimate"]) / _deviation(row) for _, row in own.iterrows()}
    return conflict, None if lengths.empty else _deviation(lengths.iloc[-1]), seen


def _deviation(row: pd.Series[Any]) -> float:
    """The SD between replicates behind an estimate. At its upper 90 % limit: few replicates know their spread badly, and a plan
    from too small a one finds nothing."""
    count = float(pd.to_numeric(row["n_replicates"]))
    return inference.upper_deviation(float(row["std_error"]) * math.sqrt(count), count - 1.0)


def with_recorded_tokens(load: Load, stage: str, endpoint: Endpoint, earlier: RecordedRun | None) -> Load:
    """The load with a recorded run's tokens a call, where that run asked the same stage of the same model."""
    tokens = earlier.tokens.get((stage, endpoint.model)) if earlier else None
    if tokens is None or earlier is None:
        return load
    prompt, completion = (per_call.times(load.calls) for per_call in tokens)
    return priced(replace(load, prompt=prompt, completion=completion, basis=f"counted in {earlier.name}"), endpoint)


# -- the plan ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Speed:
    """Calls a second, and where that number comes from."""

    calls_per_second: float
    source: str


@dataclass(frozen=True)
class Plan:
    """What a run takes (``loads``, ``seconds``, ``cost``) and what its size can show (``power``: tables of numbers)."""

    name: str
    loads: tuple[Load, ...]
    planned_calls: int
    speed: Speed | None
    power: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def calls(self) -> int:
        """All calls, verdict trials included; those are an upper bound."""
        return sum(load.calls for load in self.loads)

    @property
    def cost(self) -> Range | None:
        """US dollars, None where an endpoint that is asked has no price."""
        return total_cost(self.loads)

    @property
    def seconds(self) -> float | None:
        """Wall time at ``speed``, None where that is not known."""
        return self.calls / self.speed.calls_per_second if self.speed else None

    def record(self) -> dict[str, Any]:
        """The plan as JSON can hold it."""
        return {
            "name": self.name, "calls": self.calls, "loads": [asdict(load) for load in self.loads],
            "cost_usd": asdict(self.cost) if self.cost else None, "seconds": self.seconds,
            "speed": asdict(self.speed) if self.speed else None, "power": dict(self.power), "notes": list(self.notes),
        }  # fmt: skip


def plan(
    experiment: str | Path | Mapping[str, Any] | ResolvedExperiment,
    *,
    run: str | Path | None = None,
    calls_per_second: float | None = None,
    doctor: str | Path | None = None,
    answer_tokens: int | None = None,
    effect: float | None = None,
    conflict: float | None = None,
    drift: float | None = None,
    drift_sd: float | None = None,
) -> Plan:
    """Calls, tokens, cost and time of an experiment, and the pairs and replicates that effects take at 80 % power.

    ``experiment`` as for ``run``. ``run``: an earlier run's folder, from which tokens, calls a second, conflict rate and
    between-replicate SD are taken. ``calls_per_second`` where it is known; ``doctor``: what ``judgeloop doctor --json``
    wrote, which holds it too. ``answer_tokens``: of a usual draft. ``effect``: one to find, in probability, at the rate
    ``conflict`` of pairs whose verdict changes with the order; ``drift`` to find and its ``drift_sd`` between replicates, in
    doublings. No call is made. Raises InvalidInput.
    """
    resolved = as_resolved(experiment)
    material = Material.read(resolved)
    earlier = recorded_run(run) if run is not None else None
    loads = tuple(_from_earlier(load, earlier, resolved) for load in _loads(material, answer_tokens, earlier))
    speed = _speed(calls_per_second, doctor, earlier)
    conflict = conflict if conflict is not None else earlier.conflict if earlier else None
    drift_sd = drift_sd if drift_sd is not None else earlier.drift_sd if earlier else None
    power = _power(material, effect, conflict, drift, drift_sd)
    power["positive_controls"] = _positive_controls(material, drift_sd, earlier)
    planned = material.planned_calls()
    return Plan(resolved.experiment.name, loads, planned, speed, power, _notes(resolved, loads))


def _loads(material: Material, answer_tokens: int | None, earlier: RecordedRun | None) -> Iterator[Load]:
    """The experiment's loads, one a kind of call and arm, with tokens estimated from characters."""
    experiment, resolved = material.resolved.experiment, material.resolved
    policy = experiment.policy
    endpoint = experiment.endpoint(policy.endpoint)
    longest = policy.max_tokens or endpoint.max_tokens
    answer = Range(0.1 * longest, 0.5 * longest, longest)
    if answer_tokens is not None:
        answer = Range(answer_tokens / 2, answer_tokens, 2 * answer_tokens).at_most(longest)
    elif earlier is not None and earlier.draft_tokens is not None:
        answer = earlier.draft_tokens.at_most(longest)
    template = templates.load(policy.prompt, resolved.folder, "draft")
    bodies = [draft_body(endpoint, template, item.prompt, temperature=policy.temperature) for item in material.items]
    draft = load_of("drafts", policy.endpoint, endpoint, bodies, answer)
    for planned in material.planned():
        if planned.kind == "matches":
            yield _with_calls(_match_load(material, answer), planned.calls, experiment)
        elif planned.signal is not None:
            embedded = _embedding_load(material, planned.signal, answer, f"embeddings, arm {planned.arm}")
            yield _with_calls(embedded, planned.calls, experiment)
        elif isinstance(planned.judge, RewardJudgeSpec):
            scores = _reward_load(material, planned.judge, answer, f"scores, arm {planned.arm}")
            yield _with_calls(scores, planned.calls, experiment)
        elif planned.judge is not None:
            judgments = _judge_load(material, planned.judge, answer, f"{planned.kind}, arm {planned.arm}")
            yield _with_calls(judgments, planned.calls, experiment)
            if planned.is_first and planned.judge.verdict == "auto":
                trials = len(_template(material, planned.judge).modes)
                yield _with_calls(replace(judgments, what=TRIALS), trials, experiment)
        elif planned.kind == "trainings":
            yield Load(
                "trainings (time and cost are not counted)", policy.endpoint, planned.calls, NOTHING, NOTHING, NOTHING
            )
        elif planned.kind == "exemplar drafts":
            prompts = sum((text_tokens(_item_text(item)) for item in material.items), NOTHING).times(1 / len(bodies))
            texts = (prompts + answer + Range(4.0, 8.0, 16.0)).times(planned.exemplars * draft.calls)
            drafts = replace(draft, what=f"drafts, with {planned.exemplars} exemplars", prompt=draft.prompt + texts)
            yield _with_calls(drafts, planned.calls, experiment)
        else:
            yield _with_calls(replace(draft, what=_DRAFTS[planned.kind]), planned.calls, experiment)


def _template(material: Material, judge: AskedJudgeSpec) -> Template:
    kind: templates.Kind = "score" if isinstance(judge, PointwiseJudgeSpec) else "judge"
    return templates.load(judge.prompt, material.resolved.folder, kind)


def _judge_load(material: Material, judge: AskedJudgeSpec, answer: Range, what: str) -> Load:
    """One presentation of every item, or one text to score: the rendered prompt with the answers left out, and the answers."""
    endpoint, template = material.resolved.experiment.endpoints[judge.endpoint], _template(material, judge)
    mode, texts = template.modes[0] if judge.verdict == "auto" else judge.verdict, 2
    if isinstance(judge, PointwiseJudgeSpec):
        scale, texts = parse_scale(judge.scale), 1
        bodies = [
            score_body(endpoint, template, mode, scale, prompt=item.prompt, answer="", reference=item.reference)
            for item in material.items
        ]
    else:
        bodies = [
            judge_body(
                endpoint, template, mode, prompt=item.prompt, first_text="", second_text="", reference=item.reference
            )
            for item in material.items
        ]
    load = load_of(what, judge.endpoint, endpoint, bodies, judgment_tokens(judge, endpoint, template))
    return replace(load, prompt=load.prompt + answer.times(texts * load.calls))


def _reward_load(material: Material, judge: RewardJudgeSpec, answer: Range, what: str) -> Load:
    """One text of every item, scored: the conversation without the text, and the text."""
    endpoint = material.resolved.experiment.endpoints[judge.endpoint]
    bodies = [reward_body(endpoint, "classify", None, prompt=item.prompt, answer="") for item in material.items]
    load = load_of(what, judge.endpoint, endpoint, bodies, NOTHING)
    return replace(load, prompt=load.prompt + answer.times(load.calls))


def _embedding_load(material: Material, signal: RewardModelSignalSpec, answer: Range, what: str) -> Load:
    """One text of every item, embedded: what the prompt adds to the text, and the text."""
    endpoint = material.resolved.experiment.endpoints[signal.endpoint]
    template = None if signal.prompt is None else templates.load(signal.prompt, material.resolved.folder, "reward")
    bodies = (embedding_body(endpoint, template, prompt=item.prompt, answer="") for item in material.items)
    prompt = sum((text_tokens(str(body["input"])) + answer for body in bodies), NOTHING)
    return priced(Load(what, signal.endpoint, len(material.items), prompt, NOTHING, None), endpoint)


def _match_load(material: Material, answer: Range) -> Load:
    """One text of every item with ``match: judge``: gold asks a model whether it agrees with the reference."""
    gold = material.matcher
    assert gold is not None  # these calls are planned for a matcher only
    assert gold.endpoint is not None
    endpoint = material.resolved.experiment.endpoints[gold.endpoint]
    template = templates.load(gold.prompt, material.resolved.folder, "match")
    bodies = [
        match_body(endpoint, template, prompt=item.prompt, answer="", reference=item.reference or "")
        for item in material.items
        if is_asked(item)
    ]
    completion = verdict_tokens("text", reasons=False, longest=endpoint.max_tokens)
    load = load_of("gold matching", gold.endpoint, endpoint, bodies, completion)
    return replace(load, prompt=load.prompt + answer.times(load.calls))


def _with_calls(load: Load, calls: int, experiment: Experiment) -> Load:
    """The load of ``calls`` such calls, at the price of its endpoint."""
    return scaled(load, calls, experiment.endpoint(load.endpoint))


def _item_text(item: Item) -> str:
    """An item's prompt without the names of its turns."""
    return item.prompt if isinstance(item.prompt, str) else "\n".join(message.content for message in item.prompt)


def _from_earlier(load: Load, earlier: RecordedRun | None, resolved: ResolvedExperiment) -> Load:
    """The load with the tokens a call of an earlier run's calls of its stage."""
    stage = next((stage for start, stage in _STAGES.items() if load.what.startswith(start)), "")
    load = with_recorded_tokens(load, stage, resolved.experiment.endpoint(load.endpoint), earlier)
    return load if load.endpoint else replace(load, cost=NOTHING)  # what this process makes is not paid for


def _speed(stated: float | None, doctor: str | Path | None, earlier: RecordedRun | None) -> Speed | None:
    """The calls a second: the stated ones, else doctor's, else an earlier run's; None where none is at hand."""
    if stated is not None:
        return Speed(checked_rate(stated), "as stated")
    if doctor is not None:
        return Speed(
            _doctor_rate(Path(doctor)), f"measured by doctor ({Path(doctor).name}), with judge calls of short texts"
        )
    if earlier is not None and earlier.calls_per_second is not None:
        return Speed(earlier.calls_per_second, f"of {earlier.name}, by its replies' own time stamps")
    return None


def checked_rate(calls_per_second: float) -> float:
    """The stated calls a second. Raises InvalidInput for a number that is not above 0."""
    if not (math.isfinite(calls_per_second) and calls_per_second > 0):
        raise InvalidInput(f"--calls-per-second must be above 0, not {calls_per_second:g}")
    return calls_per_second


def _doctor_rate(path: Path) -> float:
    """The calls a second that ``judgeloop doctor --json`` measured. Raises InvalidInput."""
    try:
        rate = json.loads(path.read_text(encoding="utf-8"))["recommended"]["calls_per_second"]
    except (OSError, ValueError, KeyError, TypeError):
        rate = None
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise InvalidInput(f"{path}: holds no measured calls a second; write it with `judgeloop doctor --json`")
    return float(rate)


# -- what a size can show ----------------------------------------------------------------------------------------------


def check_sizes(effect: float | None, conflict: float | None) -> None:
    """Raises InvalidInput for an effect or a conflict rate that is no such probability."""
    if effect is not None and not 0 < effect <= 0.5:
        raise InvalidInput("--effect is a probability above 0 and at most 0.5, as 0.05 for 5 points")
    if conflict is not None and not 0 < conflict <= 1:
        raise InvalidInput("--conflict is the share of pairs whose verdict changes with the order: above 0, at most 1")


def with_own(usual: Iterable[float], own: float | None) -> list[float]:
    """The usual values of a table and the user's own one, ascending."""
    return sorted({*usual, *([own] if own is not None else [])})


def position_table(effects: Iterable[float], rates: list[float]) -> list[dict[str, Any]]:
    """Pairs that find a position effect (in probability beyond one half) at 80 % power, two-sided 5 %, by conflict rate;
    None where an effect cannot be that large at the rate."""
    return [
        {
            "effect": effect, "conflict_rate": rate,
            "pairs": inference.pairs_for_position(effect, rate) if 2 * effect <= rate else None,
        }
        for effect in effects for rate in rates
    ]  # fmt: skip


def equivalence_table(rates: list[float]) -> list[dict[str, Any]]:
    """Pairs that show at 80 % power that no position effect exceeds a margin, by conflict rate."""
    return [
        {"margin": margin, "conflict_rate": rate, "pairs": inference.pairs_for_equivalence(margin, rate)}
        for margin in MARGINS
        for rate in rates
    ]


def _power(
    material: Material, effect: float | None, conflict: float | None, drift: float | None, sd: float | None
) -> dict[str, Any]:
    """Tables of what sizes find at 80 % power, two-sided 5 %."""
    experiment = material.resolved.experiment
    anchor = experiment.panels.anchor
    pairs = anchor if isinstance(anchor, int) else len(material.anchor_pairs)
    check_sizes(effect, conflict)
    if (drift is not None and not drift > 0) or (sd is not None and not sd > 0):
        raise InvalidInput("--drift and --drift-sd are above 0, in one unit (doublings for length)")
    rates = with_own(CONFLICT_RATES, conflict)
    tables: dict[str, Any] = {
        "anchor_pairs": pairs,
        "pairs": position_table(with_own(EFFECTS, effect), rates),
        "equivalence": equivalence_table(rates),
        "anchor_detects": [
            {"conflict_rate": rate, "effect": inference.detectable_excess(pairs, rate) if pairs else None}
            for rate in rates
        ],
        "replicates": [
            {
                "replicates": count, "drift_in_sd": inference.detectable_per_sd(count),
                "drift": inference.detectable_per_sd(count) * sd if sd else None,
            }
            for count in sorted({*_REPLICATES, experiment.replicates}) if count > 1
        ],
        "conflict_rate": conflict, "drift_sd": sd,
    }  # fmt: skip
    if drift is not None:
        if sd is None:
            raise InvalidInput("--drift needs the SD between replicates: give --drift-sd, or --run of an earlier run")
        tables["drift_needs"] = {"drift": drift, "drift_sd": sd, "replicates": inference.replicates_for(drift / sd)}
    return tables


def _positive_controls(
    material: Material, drift_sd: float | None, earlier: RecordedRun | None
) -> list[dict[str, Any]]:  # fmt: skip
    """An entry an arm with a known taste: the calls that the plan has for it alone (its judge asks no model); how far it must drift
    to be seen at 80 % power, in SDs between replicates and, of length where their SD is known, in doublings; and the power at
    the drift that it had in the earlier run."""
    resolved, count = material.resolved, material.resolved.experiment.replicates
    least = inference.detectable_per_sd(count) if count > 1 else None
    entries = []
    for arm in resolved.arms:
        if not isinstance(arm.judge, RuleJudgeSpec):
            continue
        rest = resolved.model_copy(update={"arms": tuple(other for other in resolved.arms if other is not arm)})
        drifted = earlier.seen.get(arm.judge.feature) if earlier else None
        entries.append({
            "arm": arm.name, "feature": arm.judge.feature, "prefer": arm.judge.prefer,
            "calls": material.planned_calls() - replace(material, resolved=rest).planned_calls(),
            "drift_in_sd": least, "drift": least * drift_sd if least and drift_sd and arm.judge.feature == "length" else None,
            "earlier_drift_in_sd": drifted,
            "power": inference.power_of_replicates(drifted, count) if drifted is not None and count > 1 else None,
        })  # fmt: skip
    return entries


def _notes(resolved: ResolvedExperiment, loads: tuple[Load, ...]) -> tuple[str, ...]:
    """Sentences on missing prices, budgets below the plan, and few replicates."""
    experiment, notes = resolved.experiment, []
    cost, budget = total_cost(loads), experiment.budget
    calls = sum(load.calls for load in loads)
    unpriced = sorted({load.endpoint for load in loads if load.calls and load.cost is None})
    if unpriced:
        notes.append(
            f"no price is stated for {', '.join(unpriced)} (endpoints.<name>.price), so the cost is not known; none is guessed"
        )
    if budget.max_calls is not None and budget.max_calls < calls:
        notes.append(
            f"budget.max_calls {budget.max_calls:,} is below the plan: the run would stop there (exit 3, resumable)"
        )
    if budget.max_cost is not None and cost is not None and budget.max_cost < cost.high:
        when = "is" if budget.max_cost < cost.low else "may be"
        notes.append(
            f"budget.max_cost {budget.max_cost:g} USD {when} below the plan: the run would stop there (exit 3, resumable)"
        )
    if experiment.replicates < 5:
        notes.append(f"{experiment.replicates} replicates: intervals over fewer than 5 are very wide; 8 is the default")
    if resolved.contrasts and not any(arm.is_positive_control for arm in resolved.arms):
        asked = "no model" if experiment.policy.kind == "pool" else "no judge, for drafts alone"
        notes.append(
            "no arm has a judge with a known taste (longer: {judge: {kind: rule, feature: length}}), so that a drift that is not detected "
            f"will not say whether this run could have seen one; such an arm asks {asked}"
        )
    return tuple(notes)
