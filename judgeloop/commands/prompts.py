"""What a judge is sent about one pair: the messages as the audit of the same options renders them. Nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from judgeloop.bodies import judge_body
from judgeloop.commands.audit_spec import Settings, checked, valid
from judgeloop.errors import InvalidInput
from judgeloop.experiment.audit import AuditLine
from judgeloop.interchange.rows import Input, near
from judgeloop.judging.pairing import presentations
from judgeloop.text.templates import Mode

_NOWHERE = "http://127.0.0.1:8000/v1"


def shown_prompt(pairs: Input, pair: str, options: Mapping[str, Any]) -> str:
    """The messages about one pair, named by its pair_id or item_id, text_a shown first, in the verdict mode that is tried first.

    ``options``: the keywords of ``judgeloop.audit`` and of its plan; an address may be missing. Raises InvalidInput.
    """
    address = {} if options.get("base_url") or options.get("engine") else {"base_url": _NOWHERE}
    settings = checked(pairs, valid(AuditLine, {**options, **address}))
    if settings.form is not None or settings.reward is not None:
        raise InvalidInput("--show-prompt: shows how a judge is asked about a pair; not with --mode or --reward")
    return "\n".join(_lines(settings, pair))


def _lines(settings: Settings, pair: str) -> Iterator[str]:
    matchups = settings.questions.matchups
    names = {name: one for one in reversed(matchups) for name in (one.item_id, one.pair_id)}
    matchup = {one.pair_id: one for one in matchups}.get(pair) or names.get(pair)
    if matchup is None:
        raise InvalidInput(
            f"--show-prompt: {pair!r:.60} is no item_id or pair_id of the pairs{near(pair, tuple(names))}"
        )
    name = settings.bases[0]
    judge, template = settings.judges[name], settings.template
    modes: tuple[Mode, ...] = template.modes if judge.verdict == "auto" else (judge.verdict,)
    item, forward = settings.questions.items[matchup.item_id], presentations([matchup])[0]
    body = judge_body(
        settings.endpoints[name], template, modes[0], prompt=item.prompt, first_text=forward.first.text, second_text=forward.second.text,
        reference=item.reference, temperature=judge.temperature, max_tokens=judge.max_tokens, seed=settings.seed,
    )  # fmt: skip
    yield f"# Pair {matchup.pair_id}, text_a first; the second call has the two answers in each other's place. Verdict mode {modes[0]}."
    for message in body["messages"]:
        yield f"\n--- {message['role']}\n{message['content']}"
    if len(modes) > 1:
        yield "\n# Modes are tried in this order. Instead of the closing instruction above stands in mode"
        yield from (f"# {mode}: {template.instructions[mode]}" for mode in modes[1:])
