"""Whether texts are right by their items' references: by rule, or by a model where an item has ``match: judge``."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from judgeloop.bodies import match_body
from judgeloop.experiment.schema import Endpoint
from judgeloop.judging.answers import read_match
from judgeloop.judging.pairing import quoted
from judgeloop.records import Call, Candidate, Client, Item
from judgeloop.text.matching import correct, is_asked
from judgeloop.text.templates import Template

_DIGITS = 16
"""Digits of the text's SHA-256 in a call id. The cassette also compares the body, so that a clash mixes up no texts."""


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a text matches; None where that is not known, with ``reason`` where a reply gave no answer.

    ``call``: the id of the call, where a model was asked.
    """

    value: bool | None
    reason: str = ""
    call: str = ""


@dataclass(frozen=True)
class Matcher:
    """A model that is asked whether a text agrees with the reference."""

    client: Client
    endpoint_key: str
    endpoint: Endpoint
    template: Template

    async def match(self, item: Item, text: str, stem: str) -> Match:
        """The answer to the call ``<stem>/gold/<item>/<digest of the text>``, whose id does not depend on candidate,
        arm or generation. Raises what the client raises."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
        call_id = f"{stem}/gold/{quoted(item.item_id)}/{digest}"
        body = match_body(self.endpoint, self.template, prompt=item.prompt, answer=text, reference=item.reference or "")
        agrees, reason = read_match(await self.client.ask(Call(call_id, self.endpoint_key, body)))
        return Match(agrees, reason, call_id)


class Truth:
    """The matches of the texts of one unit of work (a replicate, or the panels). A model is asked once about an item's
    text, however many candidates, arms and generations have it. Without a matcher ``match: judge`` items stay unknown."""

    def __init__(self, matcher: Matcher | None) -> None:
        self._matcher = matcher
        self._tasks: dict[tuple[str, str], asyncio.Task[Match]] = {}

    async def learn(self, items: Mapping[str, Item], candidates: Iterable[Candidate], stem: str) -> None:
        """Ask the model about the candidates' texts that need it and are new; returns when all are known.

        ``stem`` begins the call ids of the new texts (see ``Matcher.match``). It must not name an arm: arms share the calls
        of the first of them. Raises what the client raises.
        """
        if self._matcher is None:
            return
        texts = {(c.item_id, c.text): items[c.item_id] for c in candidates if is_asked(items[c.item_id])}
        for key, item in texts.items():
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._matcher.match(item, key[1], stem))
        await asyncio.gather(*(self._tasks[key] for key in texts))

    def match(self, item: Item, text: str) -> Match:
        """The match of a text; where a model must decide it, known only after ``learn``."""
        if not is_asked(item):
            return Match(correct(item, text))
        task = self._tasks.get((item.item_id, text))
        return task.result() if task is not None else Match(None)

    def correct(self, item: Item, candidate: Candidate) -> bool | None:
        """Whether a candidate is right; None where that is not known."""
        return self.match(item, candidate.text).value
