"""Drafting: one text sampled from a model for one item, as a named call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from judgeloop import seeds
from judgeloop.bodies import draft_body
from judgeloop.experiment.blocks import Endpoint
from judgeloop.experiment.schema import Policy
from judgeloop.records import Call, Candidate, Client, Item, Message
from judgeloop.text.templates import Template

Exemplar = tuple[str | tuple[Message, ...], str]
"""Another item's prompt and a text of the training set that answers it."""


@dataclass(frozen=True)
class Drafter:
    """Samples texts from the experiment's drafting model."""

    client: Client
    spec: Policy
    endpoint: Endpoint
    template: Template
    seed: int

    async def draft(
        self,
        item: Item,
        candidate_id: str,
        prefix: str,
        stream: tuple[str | int, ...],
        exemplars: Sequence[Exemplar] = (),
    ) -> tuple[Candidate | None, str]:
        """(candidate, "") or (None, why there is none).

        ``prefix`` is the call id up to the item; ``stream`` names the body's seed, without the arm, so that arms whose
        prompts agree draft the same text.
        """
        body = draft_body(
            self.endpoint,
            self.template,
            prompt=item.prompt,
            exemplars=exemplars,
            temperature=self.spec.temperature,
            max_tokens=self.spec.max_tokens,
            seed=seeds.integer(self.seed, "draft", *stream, item.item_id),
        )
        call_id = f"{prefix}/{quote(item.item_id, safe='._-')}/{candidate_id}"
        reply = await self.client.ask(Call(call_id, self.spec.endpoint, body))
        if reply.failure:
            return None, reply.failure
        # A refusal is an answer too: it is the candidate's text.
        return Candidate(item.item_id, candidate_id, reply.text or reply.refusal), ""
