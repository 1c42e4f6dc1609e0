"""One round of an audit by batches: the asking runs dry, answers that came back are recorded, the rest is written down."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from judgeloop.auditing.asking import TRIAL_PREFIX
from judgeloop.errors import EndpointFailed, InvalidInput
from judgeloop.experiment.blocks import Endpoint
from judgeloop.judging.judges import CHOICE_TRIAL_PREFIX, SCORE_TRIAL_PREFIX
from judgeloop.records import Call, Reply, parted
from judgeloop.wire.batch_api import exchange
from judgeloop.wire.batch_files import Place, RequestFile, RequestFiles, answer_at, places
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.client import CONSECUTIVE_FAILURES, WireClient, failure_message, setting_hint, worst_cost
from judgeloop.wire.reply import Refused, read

_TRIALS = (TRIAL_PREFIX, SCORE_TRIAL_PREFIX, CHOICE_TRIAL_PREFIX)
_MOST_NAMED = 3


class Found:
    """The lines of output files by the request that they answer. ``faults`` are sentences about lines that are no answers."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Reads every file once; raises InvalidInput where one cannot be read."""
        self._places: dict[tuple[str, str], Place] = {}
        self.faults: list[str] = []
        self._twice: list[str] = []
        self._asked: dict[str, set[str]] = {}
        for path in files:
            for place in places(path):
                if place.fault:
                    self.faults.append(place.fault)
                elif (first := self._places.setdefault((place.call, place.digest), place)) is not place:
                    self._twice.append(f"{place.where}: {place.call} (first at {first.where})")

    def place(self, call: Call) -> Place | None:
        """Where a request is answered first, or None. What was looked for is no stray."""
        call_id, digest = parted(call.custom_id)
        self._asked.setdefault(call_id, set()).add(digest)
        return self._places.get((call_id, digest))

    def others(self) -> list[str]:
        """A sentence on every line that answers a call of this audit's name but another request: other texts, another
        prompt, model or setting."""
        return [
            f"{place.where}: custom_id: answers {call} as another request has it ({f'#{digest}' if digest else 'it bears no digest of its request'}; this audit's is #{' or #'.join(sorted(self._asked[call]))}): other texts, another prompt, model or setting"
            for (call, digest), place in self._places.items() if call in self._asked and digest not in self._asked[call]
        ]  # fmt: skip

    def strays(self) -> Iterator[str]:
        """A sentence on lines that no call of this audit asked for, on calls answered twice, on lines that are no answer."""
        foreign = [f"{place.where}: {call}" for (call, _), place in self._places.items() if call not in self._asked]
        for said, some in (
            ("no call of this audit, left out", foreign),
            ("another request's answer, left out", self.others()),
            ("answered twice, the first answer counts", self._twice),
            ("no answer", self.faults),
        ):
            if some:
                more = f" and {len(some) - _MOST_NAMED} more" if len(some) > _MOST_NAMED else ""
                yield f"{said}: {'; '.join(some[:_MOST_NAMED])}{more}"


class Round:
    """A client (records.Client) that sends nothing but trial calls. It answers from the cassette, then from ``found``; every
    other call is written into ``requests``.

    A failed answer counts as an attempt (``failures`` holds the earlier ones) and is asked again until the endpoint's
    attempts are used up; then, and where asking again cannot help, the failure is recorded. ``lost``: the custom_ids of batches
    that have ended, of which a missing one has failed. ``counted``: the files whose failures count; None: all.
    """

    def __init__(
        self, live: WireClient, cassette: Cassette, endpoints: Mapping[str, Endpoint], found: Found, requests: RequestFiles,
        *, failures: Mapping[str, int], lost: set[str], counted: set[Path] | None = None,
    ) -> None:  # fmt: skip
        self.found = found
        self._live, self._cassette, self._endpoints, self._requests = live, cassette, endpoints, requests
        self._before, self._lost, self._counted = failures, lost, counted
        self._asked: set[tuple[str, str]] = set()
        self._ended: dict[tuple[str, str], Exchange] = {}
        self._failed: dict[str, list[Exchange]] = {}
        self._alive: set[str] = set()
        self.failures: dict[str, int] = {}
        """Calls that failed in this round, with their attempts so far."""
        self.files: list[RequestFile] = []
        self.named: list[str] = []
        self.recorded, self.again, self.pending = 0, 0, 0
        self.worst_cost = 0.0
        self.other_models: dict[tuple[str, str], int] = {}
        """(model asked, model that the reply names) → answers, where the two differ."""
        self.refused = ""
        """Why the endpoint must be mended first, empty if it need not."""

    @property
    def calls(self) -> int:
        """Calls that are answered, recorded ones included."""
        return self._live.ledger.calls

    @property
    def cost(self) -> float:
        """What they cost, in US dollars."""
        return self._live.ledger.cost

    async def ask(self, call: Call) -> Reply:
        """See records.Client; a call that is not answered yet fails with ``not_answered_yet``."""
        identity = (call.call_id, call.key)
        place = self.found.place(call)
        known = self._cassette.get(*identity)
        if known is not None:
            if known.status == 200 and not known.fault:
                self._alive.add(call.endpoint)
            return await self._live.ask(call)
        if _is_trial(call.call_id):
            return await self._tried(call)
        if identity in self._ended:
            ended = self._ended[identity]
            return read(ended.status, ended.response, ended.fault)
        if identity in self._asked:
            return Reply(None, failure="not_answered_yet")
        self._asked.add(identity)
        if call.route:
            raise InvalidInput(f"--batch: {call.call_id} is asked by route {call.route}, which batch files do not have")
        if place is not None or call.custom_id in self._lost:
            reply = await self._answered(call, place)
            if reply is not None:
                return reply
        self._requests.add(call.endpoint, call.call_id, call.body)
        self.pending += 1
        self.worst_cost += worst_cost(self._endpoints[call.endpoint], call)
        if len(self.named) < _MOST_NAMED:
            self.named.append(call.call_id)
        return Reply(None, failure="not_answered_yet")

    async def _tried(self, call: Call) -> Reply:
        """How verdicts are read is asked before everything else, so it is asked live."""
        try:
            return await self._live.ask(call)
        except EndpointFailed as error:
            raise EndpointFailed(
                f"{error} (--verdict auto asks a trial call live; state logprob, json or text and none is)"
            ) from None

    async def _answered(self, call: Call, place: Place | None) -> Reply | None:
        """The reply that came back; None where the call is to be asked again."""
        counts = place is None or self._counted is None or place.path in self._counted
        attempts = max(1, self._before.get(call.call_id, 0) + counts)
        try:
            if place is None:
                ended = exchange(call, 0, None, "no_answer", attempts)
            else:
                answer = answer_at(place)
                ended = exchange(call, answer.status, answer.response, answer.fault, attempts)
        except Refused as refusal:
            self.refused = self.refused or f"endpoint {call.endpoint}: {place.where if place else ''}: {refusal}; mend that, and run the same command to ask again"  # fmt: skip
            return None
        reply = read(ended.status, ended.response, ended.fault)
        if (
            not reply.failure or reply.failure == "context_length"
        ):  # the latter: the endpoint is well, this text too long
            self._alive.add(call.endpoint)
            self._cassette.append(ended)
            self.recorded += 1
            models = str(call.body.get("model", "")), reply.model
            if reply.model and not _same_model(*models):
                self.other_models[models] = self.other_models.get(models, 0) + 1
            return await self._live.ask(call)
        self._failed.setdefault(call.endpoint, []).append(ended)
        if ended.fault and not (counts and attempts >= self._endpoints[call.endpoint].attempts):
            self.again += 1
            if counts:
                self.failures[call.call_id] = attempts
            return None
        self._ended[call.call_id, call.key] = ended
        return reply

    def finish(self) -> None:
        """Record the failures that are final, unless the endpoint fails as a whole. Closes the request files."""
        self.close()
        for name, failed in self._failed.items():
            if name in self._alive or len(failed) < CONSECUTIVE_FAILURES:
                continue
            reason = read(failed[-1].status, failed[-1].response, failed[-1].fault).failure
            message = failure_message(failed[-1])
            self.refused = self.refused or (
                f"endpoint {name}: all {len(failed)} answers failed, the last with {reason}{message}; mend that and run the same command to ask again{setting_hint(message)}"
            )
            # As if they had not been asked: to mend the endpoint must not cost attempts.
            for one in failed:
                self.failures.pop(one.call, None)
                self._ended.pop((one.call, one.key), None)
        for ended in self._ended.values():
            self._cassette.append(ended)
            self.recorded += 1

    def close(self) -> None:
        """The request files so far, whole on the disk."""
        self.files = self._requests.close()


def _same_model(asked: str, said: str) -> bool:
    # An alias is answered by its snapshot: gpt-4o by gpt-4o-2024-08-06.
    return bool(re.fullmatch(rf"(.*/)?{re.escape(asked.rpartition('/')[2])}([-@]\d[\d-]*)?", said))


def _is_trial(call_id: str) -> bool:
    # <prefix>/<judge>/<mode>: a judge may be called "trial", but its calls have longer names.
    return any(call_id.startswith(f"{prefix}/") and call_id.count("/") == prefix.count("/") + 2 for prefix in _TRIALS)
