"""The nouns that pass between the rooms, as frozen records, and the columns of the run folder's tables.

An *item* is answered by *candidates*; a *matchup* is an unordered pair of them; a *presentation* shows a matchup in one
order; a *judgment* is the judge's reply to a presentation and the *verdict* read from it, by slot. A *call* is a named request
to a model, a *reply* its answer.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import orjson

if TYPE_CHECKING:
    import asyncio

Order = Literal["ab", "ba"]
Slot = Literal["first", "second", "tie", "unscored"]
Gold = Literal["a", "b", "tie"]
Panel = Literal["anchor", "probe", "policy", "pairs"]

ORDERS: tuple[Order, Order] = ("ab", "ba")
UNKNOWN_ORDER = "unknown"
"""The order of a log's judgment whose slots are not known: its verdict is by text, a, b or tie, and its candidate_first is a."""

ProbeName = Literal[
    "padding", "markdown_added", "markdown_removed", "bold", "list_items", "headings", "hedges", "emoji", "tone",
    "authority", "bandwagon", "injection", "self_name", "whitespace", "identical",
]  # fmt: skip
PROBE_NAMES: tuple[ProbeName, ...] = get_args(ProbeName)
"""The counterfactual probes that are written by rule, without a model (docs/probes.md)."""
PADDING_DOSES = (1.25, 1.5, 2.0)
"""Length ratios of the padded texts."""

RewardRoute = Literal["classify", "pooling", "score", "rerank"]
REWARD_ROUTES: tuple[RewardRoute, ...] = get_args(RewardRoute)
"""Routes by which a server gives the score of a text (vLLM's names)."""
Route = Literal["", "classify", "pooling", "score", "rerank", "embeddings", "train"]
ROUTES: tuple[Route, ...] = get_args(Route)
"""A call's route; empty is a chat completion, and a training is made here or by a command, by no endpoint."""

# Columns of the run folder's tables (docs/contract.md, "Tables"), behind the features where they have any.
JUDGMENT_COLUMNS = (
    "replicate", "arm", "generation", "panel", "item_id", "category", "pair_id", "judge", "order", "repeat", "verdict",
    "p_first", "reason", "candidate_first", "candidate_second", "identical", "gold", "call",
)  # fmt: skip
CANDIDATE_COLUMNS = (
    "replicate", "arm", "generation", "item_id", "candidate_id", "text", "reason", "reward", "n_drawn", "p_current",
    "p_selected", "p_selected_gold", "p_training", "p_next", "correct",
)  # fmt: skip
PREFERENCE_COLUMNS = (
    "replicate", "arm", "generation", "item_id", "pair_id", "order", "repeat", "candidate_first", "chosen", "rejected",
    "weight", "label_rule",
)  # fmt: skip
SIGNAL_COLUMNS = ("replicate", "arm", "generation", "feature", "coefficient", "std_error", "scale", "converged")

ESTIMATE_COLUMNS = (
    "scope", "judge", "arm", "contrast", "generation", "panel", "category", "bias", "term", "variant", "estimate",
    "std_error", "conf_low", "conf_high", "conf_level", "p_value", "p_adjusted", "family", "n", "n_items",
    "n_replicates", "n_unscored", "unit", "method", "status", "verdict", "margin", "detectable",
    "benchmark", "positive_control", "note",
)  # fmt: skip
ADDED_ESTIMATE_COLUMNS = ("verdict", "margin", "detectable", "benchmark", "positive_control")
"""Columns that run folders of earlier versions lack; read as empty there."""
ESTIMATE_KEY = ("scope", "judge", "arm", "contrast", "generation", "panel", "category", "term", "variant")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt to answer: a text, or a chat history that ends with a user's turn. ``match``: how an answer is compared with
    ``reference``; ``language``: a tag such as en or de-AT."""

    item_id: str
    prompt: str | tuple[Message, ...]
    category: str = ""
    reference: str | None = None
    match: Literal["exact", "contains", "numeric", "judge"] = "exact"
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One text that answers an item."""

    item_id: str
    candidate_id: str
    text: str
    log_ratio: float | None = field(default=None, compare=False)
    """Of a model that is trained here: log-probability of the text less the base model's, nats."""
    cut: bool | None = field(default=None, compare=False)
    """Of a draft: whether it ended because it may be no longer; None of other texts."""


@dataclass(frozen=True, slots=True)
class Matchup:
    """An unordered pair of candidates of one item; ``a`` and ``b`` are names, not slots."""

    item_id: str
    pair_id: str
    a: Candidate
    b: Candidate


@dataclass(frozen=True, slots=True)
class Presentation:
    """A matchup in one order: ``ab`` shows ``a`` in the first slot."""

    matchup: Matchup
    order: Order
    repeat: int = 0

    @property
    def first(self) -> Candidate:
        return self.matchup.a if self.order == "ab" else self.matchup.b

    @property
    def second(self) -> Candidate:
        return self.matchup.b if self.order == "ab" else self.matchup.a


@dataclass(frozen=True, slots=True)
class Verdict:
    """The slot that a reply picks. ``p_first``: the probability of the first slot, in [0, 1], where the judge gave one;
    ``reason``: why it is unscored; ``mass``: in logprob mode the probability that the offered labels hold together; ``said``: of an
    unscored reply what it says, or its endpoint's message."""

    slot: Slot
    p_first: float | None = None
    reason: str = ""
    mass: float | None = field(default=None, compare=False)
    said: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Judgment:
    """One presentation, the judge's name, and the verdict. ``call``: the call's id, empty where no model was asked."""

    presentation: Presentation
    judge: str
    verdict: Verdict
    call: str = ""


_CONTROL_JUDGES = ("random", "gold")
_RULE = "rule:"


def rule_name(prefer: str, feature: str) -> str:
    """The name of a judge that follows a rule, in the tables: ``rule:more_length``."""
    return f"{_RULE}{prefer}_{feature}"


def is_control_judge(name: str) -> bool:
    """Whether a judge of the tables is a control, whose picks follow from what is known: the coin, gold, or a rule."""
    return name in _CONTROL_JUDGES or name.startswith(_RULE)


_SPELT_ALIKE = (1e-3, 1e15)
"""Sizes of floats that are written without an exponent, whoever writes them."""


def is_plain(value: Any, least: float = 0.0, below: float = math.inf) -> bool:
    """Whether a dict, list or tuple holds nothing but JSON's own types, and no float (but 0) of a size out of [``least``,
    ``below``). orjson writes what is not finite as null, and small numbers in its own way."""
    for part in value.values() if type(value) is dict else value:
        kind = type(part)
        if kind is str:
            continue
        if kind is dict or kind is list:
            if not is_plain(part, least, below):
                return False
        elif kind is float:
            if part and not least <= abs(part) < below:
                return False
        elif kind is not int and kind is not bool and part is not None:
            return False
    return True


def canonical(body: Mapping[str, Any]) -> str:
    """The canonical JSON text of a request body: keys sorted, no spaces, no escapes for non-ASCII characters."""
    return canonical_bytes(body).decode("utf-8", "surrogatepass")


def canonical_bytes(body: Mapping[str, Any]) -> bytes:
    """``canonical`` in UTF-8, lone surrogates as if they had a place in it."""
    # orjson's text is the same, and several times as quickly written.
    with suppress(TypeError, RecursionError):  # lone surrogates, numbers longer than 64 bits, other keys
        if is_plain((body,), *_SPELT_ALIKE):
            return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return _CANONICAL.encode(body).encode("utf-8", "surrogatepass")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A named request. ``call_id`` names all that the answer may depend on; ``endpoint``: the endpoint's name in the
    experiment, empty where no endpoint is asked.

    ``weights``: the digest of the trained weights that answer, empty for a model that the loop does not train; ``base_url``:
    where these answer, empty for the endpoint's own address; ``adapter``: the folder of an adapter that the endpoint's server
    loads under the model's name before it answers, empty where none is to be loaded.
    """

    call_id: str
    endpoint: str
    body: Mapping[str, Any] = field(hash=False)
    route: Route = ""
    weights: str = ""
    base_url: str = ""
    adapter: str = ""
    _key: str = field(default="", init=False, repr=False, compare=False)

    @property
    def key(self) -> str:
        """See ``call_key``."""
        if not self._key:  # asked for at every step of a call, and as long as its body
            object.__setattr__(self, "_key", call_key(self.body, self.route, self.weights))
        return self._key

    @property
    def custom_id(self) -> str:
        """The call's name in a batch file: the call id, ``#`` and the first hexadecimal digits of the key. The id alone does
        not identify the text: another audit may have the same."""
        return f"{self.call_id}#{self.key.removeprefix('sha256:')[:_DIGITS]}"


def call_key(body: Mapping[str, Any], route: str = "", weights: str = "") -> str:
    """SHA-256 of the canonical body, tagged with its algorithm. Before the body stand, each with a line break, the route
    where it has one, for two routes may take the same body, and the digest of trained weights."""
    before = "".join(f"{part}\n" for part in (route, weights) if part).encode("utf-8", "surrogatepass")
    return "sha256:" + hashlib.sha256(before + canonical_bytes(body)).hexdigest()


_DIGITS = 12
_CUSTOM_ID = re.compile(rf"(.+)#([0-9a-f]{{{_DIGITS}}})", re.DOTALL)


def split_custom_id(custom_id: str) -> tuple[str, str]:
    """(call id, digits of the key) of a Call.custom_id; (the text, "") where it is no custom id."""
    match = _CUSTOM_ID.fullmatch(custom_id)
    return (match[1], match[2]) if match else (custom_id, "")


TRIAL_ID = re.compile(r"(panels/g0/judge|audit|audit/score|audit/choice|reward)/trial/")
"""Ids of trial calls, which try an endpoint before any question."""
PASSING_FAULTS = frozenset(
    {"timeout", "connection", "rate_limited", *(f"http_{status}" for status in (408, 502, 503, 504, 529))}
)
"""Failures of a reply that say nothing about what was asked: an endpoint that is away, slow or busy."""
CUT = ("length", "max_tokens", "model_length")
"""What servers call the end of a reply that may be no longer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A readable answer, or the reason why there is none.

    ``text``: the answer without its reasoning, None where there is no readable one; ``failure`` then names the reason, and
    ``detail`` is the endpoint's own message. ``top_logprobs``: (token, natural log-probability) at the answer's first token.
    ``numbers``: a reward route's scores of the text, or its embedding; None for one that is not finite (``text`` is then empty).
    """

    text: str | None
    reasoning: str = ""
    refusal: str = ""
    top_logprobs: tuple[tuple[str, float], ...] = ()
    finish_reason: str = ""
    model: str = ""
    fingerprint: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: str = ""
    numbers: tuple[float | None, ...] = ()
    detail: str = ""
    log_ratio: float | None = None
    """Of a draft by a model that is trained here: its log-probability less the base model's, nats."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """Of a training: the model that it left, with the digest of its weights, and its metrics."""

    @property
    def is_cut(self) -> bool:
        """Whether the reply ended because it may be no longer, in the words of OpenAI, Anthropic, Gemini or Mistral."""
        return self.finish_reason.lower() in CUT


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The model that a training left: its name at the policy's endpoint, or at ``base_url``; ``adapter``: the path of its
    adapter, where it has one, absolute or in the run folder; ``weights``: a digest that other weights do not share."""

    name: str
    weights: str
    base_url: str = ""
    adapter: str = ""

    @property
    def is_loaded_first(self) -> bool:
        """Whether the server has the adapter from judgeloop, which loads it under the name of its weights."""
        return bool(self.adapter) and self.name == served_name(self.weights)


def served_name(digest: str) -> str:
    """The name under which a server is to load an adapter of this digest: another adapter never has it."""
    return f"judgeloop-{digest.removeprefix('sha256:')[:16]}"


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """One preference to train on: ``weight`` in (0, 1], 1 where all judgments of the pair agree."""

    prompt: str | tuple[Message, ...]
    chosen: str
    rejected: str
    weight: float


@dataclass(frozen=True, slots=True)
class Training:
    """One training: after which generation, on what, from which model. ``model``: the one that drafted this generation, None
    for the base model; ``reference``: the model that training starts from, that one or the base."""

    replicate: int
    generation: int
    arm: str
    seed: int
    reference: Literal["previous", "base"]
    model: TrainedModel | None
    pairs: tuple[TrainingPair, ...]


Work = Callable[[Call], Awaitable[Mapping[str, Any]]]
"""What answers a call in an endpoint's place: the response, as an endpoint would send it."""


class Client(Protocol):
    """The client by which policies and judges ask a model."""

    async def ask(self, call: Call) -> Reply:
        """Answer from the recording if it was asked before, else from the endpoint.

        Raises EndpointFailed, BudgetReached, ReplayMiss or StorageFailed.
        """
        ...


class WorkingClient(Client, Protocol):
    """A client that also records what no endpoint answers: a training, a draft in this process."""

    async def ask(
        self, call: Call, work: Work | None = None, worst_cost: float = 0.0, slots: asyncio.Semaphore | None = None
    ) -> Reply:
        """As Client.ask; with ``work``, which may raise errors of its own and costs ``worst_cost`` US dollars at most, that
        answers in the endpoint's place. It waits for one of ``slots``, and does not begin once the run ends."""
        ...


Distribution = Mapping[str, Mapping[str, float]]
"""item_id → candidate_id → probability; sums to 1 for every item present."""


def prompt_turns(prompt: str | Sequence[Message]) -> list[Message]:
    """A prompt as the turns of a chat."""
    return [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)


def prompt_text(prompt: str | Sequence[Message]) -> str:
    """A prompt as one text: a chat history becomes labelled turns."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in prompt)
