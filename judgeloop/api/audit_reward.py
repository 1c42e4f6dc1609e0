"""``judgeloop audit --reward``: the judges of an audit are reward models, which score one text at a time."""

from __future__ import annotations

from contextlib import suppress

from pydantic import ValidationError

from judgeloop.errors import InvalidInput
from judgeloop.experiment.audit import AuditSpec
from judgeloop.experiment.judges import RewardJudge
from judgeloop.experiment.options import sentence
from judgeloop.interchange.columns import near
from judgeloop.text import templates

_ANY = "any"
_KEYS = ("score", "label", "temperature")
_EXAMPLE = "as classify, or classify,label=1,score=probability"


def chosen_reward(reward: str, prompt: str | None) -> RewardJudge:
    """The block of ``ROUTE[,KEY=VALUE…]``, with keys of an experiment's reward judge and no endpoint yet. ``prompt``: a
    template of kind reward, None for the conversation. Raises InvalidInput."""
    route, *settings = (part.strip() for part in reward.split(","))
    raw: dict[str, object] = {"endpoint": _ANY, "route": route, "prompt": prompt}
    for one in settings:
        key, sign, value = (part.strip() for part in one.partition("="))
        if key not in _KEYS or not sign:
            raise InvalidInput(f"--reward: {one!r:.60}: give ROUTE,KEY=VALUE with the keys {', '.join(_KEYS)}{near(key, _KEYS)}; {_EXAMPLE}")  # fmt: skip
        raw[key] = value if key == "score" else _number(value)
    try:
        block = RewardJudge.model_validate(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = f"{problem['loc'][0]}: " if problem["loc"] else ""
        raise InvalidInput(f"--reward: {field}{sentence(problem)}; {_EXAMPLE}") from None
    if block.prompt is not None:
        templates.load(block.prompt, ".", "reward")
    return block


def _number(value: str) -> int | float | str:
    """A number as it is written; what is none stays text, which the block refuses."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value


def refuse(spec: AuditSpec) -> None:
    """Raises InvalidInput for what goes with judges that write, and with no reward model."""
    for given, option, why in (
        (
            spec.mode != "pairwise",
            "--mode",
            f"a reward model has its own way of scoring; --mode {spec.mode} asks a model in words",
        ),
        (spec.verdict != "auto", "--verdict", "a score is a number, and not read from words"),
        (spec.repeats != 1, "--repeats", "a text is scored once"),
        (spec.temperature != 0.0, "--temperature", "nothing is sampled; --reward ROUTE,temperature=T divides scores"),
        (spec.edit_model, "--edit-model", "the endpoint of a reward model writes no text"),
        (
            spec.mitigate,
            "--mitigate",
            "each text is scored alone, so there is no order to average over and no prompt to mend",
        ),
    ):
        if given:
            raise InvalidInput(f"{option}: not with --reward: {why}")
