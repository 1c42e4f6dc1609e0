"""The files that an experiment names, read, checked and hashed before any call; and how many calls it will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from judgeloop.errors import ExperimentError
from judgeloop.experiment import inputs
from judgeloop.experiment.judges import GoldJudge, ModelJudge, PanelJudge, RewardJudge
from judgeloop.experiment.judges import Judge as JudgeSpec
from judgeloop.experiment.resolve import Resolved
from judgeloop.records import PADDING_DOSES, Item
from judgeloop.text import templates
from judgeloop.text.matching import is_asked


@dataclass(frozen=True)
class Planned:
    """How many calls of one kind a run makes. ``judge``: who is asked, in ``arm``; ``is_first``: in the first arm that has
    that judge; ``exemplars``: the texts that a draft is shown."""

    kind: Literal["pool drafts", "first drafts", "exemplar drafts", "anchor drafts", "judgments", "scores", "matches"]
    calls: int
    arm: str = ""
    judge: ModelJudge | RewardJudge | None = None
    is_first: bool = False
    exemplars: int = 0


@dataclass(frozen=True)
class Material:
    """The files that an experiment names, read and checked before any call."""

    resolved: Resolved
    items: tuple[Item, ...]
    real: Mapping[str, tuple[str, ...]]
    anchor_pairs: tuple[tuple[str, Item, str, str], ...]
    hashes: Mapping[str, str]

    @classmethod
    def read(cls, resolved: Resolved) -> Material:
        path = resolved.path(resolved.experiment.items)
        items = inputs.load_items(path)
        if resolved.experiment.policy.kind == "exemplar" and len(items) < 2:
            raise ExperimentError(
                f"{path}: policy.kind exemplar shows texts of other items; give two items or more, or policy.kind pool"
            )
        hashes = {"items": inputs.file_hash(path)}
        anchor = resolved.experiment.panels.anchor
        pairs: tuple[tuple[str, Item, str, str], ...] = ()
        if isinstance(anchor, str):
            pairs = inputs.load_anchor_pairs(resolved.path(anchor))
            hashes["panels.anchor"] = inputs.file_hash(resolved.path(anchor))
        named = {arm.strategy.real for arm in resolved.arms if arm.strategy.real and arm.strategy.real_fraction}
        if len(named) > 1:
            raise ExperimentError(
                f"strategy.real: arms share one file of real data, not {len(named)} ({', '.join(sorted(named))})"
            )
        real: dict[str, tuple[str, ...]] = {}
        for name in named:
            real = inputs.load_real(resolved.path(name), frozenset(item.item_id for item in items))
            hashes["strategy.real"] = inputs.file_hash(resolved.path(name))
        loaded = [templates.load(resolved.experiment.policy.prompt, resolved.folder, "draft")]
        for arm in resolved.arms:
            loaded += [templates.load(member.prompt, resolved.folder, "judge") for member in asked_models(arm.judge)]
            if isinstance(arm.judge, RewardJudge) and arm.judge.prompt is not None:
                loaded.append(templates.load(arm.judge.prompt, resolved.folder, "reward"))
        matcher = _matcher(resolved, items)
        if matcher is not None:
            loaded.append(templates.load(matcher.prompt, resolved.folder, "match"))
        hashes |= {f"template.{template.name}": template.sha256 for template in loaded}
        return cls(resolved, items, real, pairs, hashes)

    @property
    def identity(self) -> str:
        return self.resolved.identity(self.hashes)

    def planned_calls(self) -> int:
        """Model calls of the whole run, but for verdict trials; equal texts are not known before."""
        return sum(planned.calls for planned in self.planned())

    def planned(self) -> Iterator[Planned]:
        """The calls of the whole run by kind: drafts, then judgments arm by arm, then gold's matches."""
        yield from self._drafted()
        yield from self._judged()
        if self.matcher is not None:
            yield Planned("matches", self.matched_texts())

    def _drafted(self) -> Iterator[Planned]:
        experiment, policy = self.resolved.experiment, self.resolved.experiment.policy
        count = len(self.items) * experiment.replicates
        if policy.kind == "pool":
            yield Planned("pool drafts", count * policy.pool_size)
        else:
            yield Planned("first drafts", count * experiment.candidates_per_item)
            arms = Counter(getattr(arm.policy, "exemplars", 0) for arm in self.resolved.arms)
            turns = count * experiment.candidates_per_item * experiment.generations
            for exemplars in sorted(arms):
                yield Planned("exemplar drafts", turns * arms[exemplars], exemplars=exemplars)
        anchor = experiment.panels.anchor
        if isinstance(anchor, int) and anchor:
            yield Planned("anchor drafts", 2 * anchor)

    def _judged(self) -> Iterator[Planned]:
        """Generation 0 and the panels are shared by arms with the same judge."""
        experiment, count = self.resolved.experiment, len(self.items)
        size, steps, replicates = experiment.candidates_per_item, experiment.generations, experiment.replicates
        pairs = size * (size - 1) // 2
        matchups = min(pairs, experiment.matchups_per_item or pairs)
        shown, texts = count * 2 * matchups, count * min(size, 2 * matchups)
        anchor = experiment.panels.anchor
        panel = 2 * (anchor if isinstance(anchor, int) else len(self.anchor_pairs))
        # At most: an edit that does not apply to a text is not judged. Both texts of a pair are edited.
        edits = sum(len(PADDING_DOSES) if name == "padding" else 1 for name in experiment.panels.probes)
        asked: list[JudgeSpec] = []
        for arm in self.resolved.arms:
            fresh = arm.judge not in asked
            asked.append(arm.judge)
            turns, panels = replicates * (steps + fresh), fresh * (steps + 1)
            if isinstance(arm.judge, RewardJudge):  # a text is scored once, an edit too
                yield Planned("scores", turns * texts + panels * panel * (1 + edits), arm.name, arm.judge)
            for member in asked_models(arm.judge):
                presentations = turns * shown + panels * panel * (1 + 2 * edits)
                yield Planned("judgments", presentations * arm.judge.repeats, arm.name, member, fresh)

    @property
    def matcher(self) -> GoldJudge | None:
        """The gold judge that asks a model whether texts are right, None where none is asked."""
        return _matcher(self.resolved, self.items)

    def matched_texts(self) -> int:
        """How many texts a model is asked to match with a reference: the drafts and real texts of every replicate and the
        anchor panel's texts, of items with ``match: judge``, where there is a gold judge."""
        if self.matcher is None:
            return 0
        asked = [item for item in self.items if is_asked(item)]
        real = sum(len(self.real.get(item.item_id, ())) for item in asked)
        drafts = len(asked) * self._drafts_an_item() + self.resolved.experiment.replicates * real
        anchor = self.resolved.experiment.panels.anchor
        # Pairs are dealt to the items in turn. A file's pairs have no references.
        dealt = range(anchor) if isinstance(anchor, int) else ()
        return drafts + 2 * sum(is_asked(self.items[number % len(self.items)]) for number in dealt)

    def _drafts_an_item(self) -> int:
        """Over all replicates, arms and generations; the anchor panel's aside."""
        experiment = self.resolved.experiment
        if experiment.policy.kind == "pool":
            return experiment.replicates * experiment.policy.pool_size
        turns = 1 + experiment.generations * len(self.resolved.arms)
        return experiment.replicates * experiment.candidates_per_item * turns


def _matcher(resolved: Resolved, items: tuple[Item, ...]) -> GoldJudge | None:
    golds = [arm.judge for arm in resolved.arms if isinstance(arm.judge, GoldJudge)]
    if not golds or not any(is_asked(item) for item in items):
        return None
    if any(gold.endpoint is None for gold in golds):
        raise ExperimentError("judge.endpoint: the gold judge needs an endpoint, for some items have `match: judge`")
    if len({(gold.endpoint, gold.prompt) for gold in golds}) > 1:
        raise ExperimentError(
            "judge: gold judges share one endpoint and one prompt where items have `match: judge`, for a text is right or "
            "wrong in all arms"
        )
    return golds[0]


def asked_models(spec: JudgeSpec) -> tuple[ModelJudge, ...]:
    """The model judges that a judge block asks: itself, a panel's members, or none."""
    if isinstance(spec, PanelJudge):
        return spec.judges
    return (spec,) if isinstance(spec, ModelJudge) else ()
