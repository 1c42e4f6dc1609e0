"""Whether texts are right by their items' references: by rule, or as a model says where an item has ``match: judge``."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from judgeloop.bodies import match_body
from judgeloop.experiment import Endpoint
from judgeloop.gold import correct, is_asked
from judgeloop.judging.pairing import quoted
from judgeloop.judging.verdicts import read_match
from judgeloop.records import Call, Candidate, Client, Item
from judgeloop.templates import Template

_DIGITS = 16
"""Of the text's SHA-256 in a call id: the body's own key stands beside it, so that a clash would not mix two texts up."""


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a text matches; None where that is not known, with ``reason`` where a reply did not say. ``call``: the id of
    the call that was asked, if one was."""

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
        """The answer to the call ``<stem>/gold/<item>/<digest of the text>``: who wrote the text, and which arm or
        generation has it, names nothing. Raises what the client raises."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
        call_id = f"{stem}/gold/{quoted(item.item_id)}/{digest}"
        body = match_body(self.endpoint, self.template, prompt=item.prompt, answer=text, reference=item.reference or "")
        agrees, reason = read_match(await self.client.ask(Call(call_id, self.endpoint_key, body)))
        return Match(agrees, reason, call_id)


class Truth:
    """What is known of the texts of one unit of work (a replicate, or the panels). An item's text is asked about once,
    however many candidates, arms and generations have it. Without a matcher ``match: judge`` items stay unknown."""

    def __init__(self, matcher: Matcher | None) -> None:
        self._matcher = matcher
        self._asked: dict[tuple[str, str], asyncio.Task[Match]] = {}

    async def learn(self, items: Mapping[str, Item], candidates: Iterable[Candidate], stem: str) -> None:
        """Ask about the texts that a model must say and that nobody has asked about; returns when all are known.

        ``stem`` begins the call ids (see ``Matcher.match``) of the texts that are new, and so must bear no arm: arms that
        come at the same time share the call of whichever is first. Raises what the client raises.
        """
        if self._matcher is None:
            return
        wanted = {(c.item_id, c.text): items[c.item_id] for c in candidates if is_asked(items[c.item_id])}
        for key, item in wanted.items():
            if key not in self._asked:
                self._asked[key] = asyncio.create_task(self._matcher.match(item, key[1], stem))
        await asyncio.gather(*(self._asked[key] for key in wanted))

    def match(self, item: Item, text: str) -> Match:
        """What is known of a text; of one that a model must say, after ``learn`` was told of it."""
        if not is_asked(item):
            return Match(correct(item, text))
        asked = self._asked.get((item.item_id, text))
        return asked.result() if asked is not None else Match(None)

    def correct(self, item: Item, candidate: Candidate) -> bool | None:
        """Whether a candidate is right; None where that is not known."""
        return self.match(item, candidate.text).value
