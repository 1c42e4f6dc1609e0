"""Embeddings of texts, from which the head of a reward model is learned (signal kind ``reward_model``).

A text is embedded once, alone, by the route ``/embeddings``. An answer that holds no embedding ends the run, since the others
would hold none either; a text whose call failed, as one that is longer than the model reads, has none and is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.bodies import embedding_body
from judgeloop.errors import EndpointFailed
from judgeloop.experiment.options import remedy
from judgeloop.experiment.schema import Endpoint
from judgeloop.judging.answers import TRIAL_ANSWERS, TRIAL_QUESTION
from judgeloop.judging.pairing import quoted
from judgeloop.records import Call, Candidate, Client, Item, Reply
from judgeloop.text.templates import Template

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embedder:
    """What embeds texts: the ``endpoint`` of that ``name``; ``template`` writes prompt and text as one string, None for the text
    alone. Texts that were embedded are remembered by the id of their call."""

    name: str
    endpoint: Endpoint
    template: Template | None
    client: Client
    known: dict[str, Vector | None] = field(default_factory=dict)

    def stem(self, prefix: str) -> str:
        """The call ids below ``prefix`` up to the item: they name the endpoint, and the prompt where there is one."""
        names = [self.name, *([self.template.name] if self.template is not None else [])]
        return "/".join([prefix, "embed", *map(quoted, names)])

    @property
    def trial(self) -> str:
        """The id of the trial call."""
        return self.stem("panels/g0").replace("/embed/", "/embed/trial/", 1)

    async def frame(self, texts: Sequence[tuple[Item, Candidate]], stem: str) -> pd.DataFrame:
        """(n, d) embeddings of texts, indexed by (item_id, candidate_id), asked by the calls ``stem/item/candidate``; NaN for a
        text whose call failed.

        Raises EndpointFailed where an answer holds no embedding, a number that is not finite, or another number of numbers.
        """
        ids = [f"{stem}/{quoted(item.item_id)}/{quoted(text.candidate_id)}" for item, text in texts]
        new = [(call, *each) for call, each in zip(ids, texts, strict=True) if call not in self.known]
        vectors = await asyncio.gather(*(self.embed(*each) for each in new))
        self.known.update(zip((call for call, _, _ in new), vectors, strict=True))
        rows = [self.known[call] for call in ids]
        lengths = sorted({len(row) for row in self.known.values() if row is not None})
        if len(lengths) > 1:
            raise EndpointFailed(
                f"endpoints.{self.name}: {self.endpoint.model} gave embeddings of {lengths[0]} and of {lengths[-1]} numbers; "
                "serve one model under that name, and give another --out"
            )
        missing = np.full(lengths[0] if lengths else 0, np.nan)
        names = [[item.item_id for item, _ in texts], [text.candidate_id for _, text in texts]]
        index = pd.MultiIndex.from_arrays(names, names=["item_id", "candidate_id"])
        table = np.array([missing if row is None else row for row in rows], dtype=np.float64)
        return pd.DataFrame(table.reshape(len(rows), len(missing)), index=index)

    async def embed(self, call_id: str, item: Item, text: Candidate) -> Vector | None:
        """(d,) the embedding of a text; None where its call failed. Raises EndpointFailed for an answer that holds none."""
        body = embedding_body(self.endpoint, self.template, prompt=item.prompt, answer=text.text)
        reply = await self.client.ask(Call(call_id, self.name, body, "embeddings"))
        return None if reply.failure else self.vector(reply, call_id)

    def vector(self, reply: Reply, call_id: str) -> Vector:
        """(d,) the embedding in a readable reply. Raises EndpointFailed where it holds none."""
        fault = "no embedding" if not reply.numbers else "an embedding with a number that is not finite"
        if not reply.numbers or None in reply.numbers:
            raise EndpointFailed(
                f"endpoints.{self.name}: {self.endpoint.model} answered {call_id} with {fault}; check that it is served as an "
                "embedding model, and give another --out"
            )
        return np.array(reply.numbers, dtype=np.float32)


async def check_embedding(embedder: Embedder) -> None:
    """One recorded trial call, ``panels/g0/embed/trial/<endpoint>[/<prompt>]``: raises EndpointFailed where it gives no embedding."""
    body = embedding_body(embedder.endpoint, embedder.template, prompt=TRIAL_QUESTION, answer=TRIAL_ANSWERS[0])
    reply = await embedder.client.ask(Call(embedder.trial, embedder.name, body, "embeddings"))
    if reply.failure:
        raise EndpointFailed(
            f"endpoints.{embedder.name}: {embedder.endpoint.model} gave no embedding of a trial text by /embeddings "
            f"({reply.detail or reply.failure}); {remedy(reply.detail) or 'serve an embedding model there, or name another in signal.endpoint'}"
        )
    embedder.vector(reply, embedder.trial)
