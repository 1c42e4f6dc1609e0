"""What is found out about an endpoint, and the first question: does it answer, by which settings, and does it think first?

What one answer shows (which limit field, whether it thinks first) shapes the questions after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from judgeloop.errors import EndpointFailed
from judgeloop.experiment.blocks import Endpoint
from judgeloop.records import Reply, Verdict
from judgeloop.text.templates import Mode, Template
from judgeloop.wire.inquiry import Came, Inquiry
from judgeloop.wire.line import brief

State = Literal["ok", "no", "unknown"]

SHORT, THOUGHTFUL = 64, 2048


class Trial(Protocol):
    """The question by which a judge of pairs is tried; the better answer is shown first."""

    @property
    def template(self) -> Template: ...

    def body(self, endpoint: Endpoint, mode: Mode) -> dict[str, Any]: ...

    def read(self, reply: Reply, mode: Mode) -> Verdict: ...

    def turned(self) -> Trial:
        """The same question with the better answer second."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the transcript: what was asked, what came back, what that means. ``calls``: completions it took."""

    name: str
    asked: str
    came: str
    state: State
    means: str
    calls: int = 0


@dataclass
class Found:
    """What the questions have brought to light; None or empty where it is not known."""

    model: str = ""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    send_temperature: bool = True
    thinks: bool = False
    max_tokens: int = SHORT
    logprobs: int | None = None
    enforces_schema: bool | None = None
    verdicts: dict[Mode, tuple[Verdict, ...]] = field(default_factory=dict)
    context: int | None = None
    fingerprint: str = ""
    checks: list[Check] = field(default_factory=list)

    def endpoint(self, base: Endpoint) -> Endpoint:
        """The endpoint with the settings that were found."""
        return base.model_copy(
            update={
                "max_tokens_field": self.max_tokens_field, "send_temperature": self.send_temperature,
                "max_tokens": self.max_tokens, "top_logprobs": self.logprobs or base.top_logprobs,
            }
        )  # fmt: skip


async def answer(inquiry: Inquiry, found: Found) -> None:
    """Does it answer at all, by which settings, and does it think first? Raises EndpointFailed where it refuses."""
    calls, said = inquiry.calls, []
    came = await inquiry.complete(plain(found, "Reply with the single word: ready", 16))
    for _ in range(3):
        if came.status not in (400, 422) or not _adapt(found, came.message):
            break
        said.append(f"refused ({came.message})")
        came = await inquiry.complete(plain(found, "Reply with the single word: ready", 16))
    _demand(inquiry, came)
    reply = came.reply
    if _thought(came) and not (reply.text or "").strip():
        came = await inquiry.complete(plain(found, "Reply with the single word: ready", THOUGHTFUL))
        _demand(inquiry, came)
        reply = came.reply
    found.thinks = _thought(came)
    found.max_tokens = max(THOUGHTFUL, 4 * reply.completion_tokens) if found.thinks else SHORT
    found.fingerprint = reply.fingerprint
    came_back = "; ".join([*said, f"{quoted(reply.text)} in {came.seconds:.2f} s, model {reply.model or 'not named'}"])
    settings = [
        *(["wants max_completion_tokens"] if found.max_tokens_field != "max_tokens" else []),
        *(["refuses temperature"] if not found.send_temperature else []),
        *([f"thinks before it answers ({reply.completion_tokens} tokens): give it room, and no log-probabilities"] if found.thinks else []),
        *([] if reply.prompt_tokens else ["counts no tokens (usage): cost cannot be counted"]),
    ]  # fmt: skip
    means = "; ".join(settings) or "answers with the usual settings"
    note(found, inquiry, calls, "answer", "one word, temperature 0", came_back, "ok", means)


def _adapt(found: Found, message: str) -> bool:
    """Change the setting that a refusal names; False where it names none."""
    if "max_completion_tokens" in message and found.max_tokens_field == "max_tokens":
        found.max_tokens_field = "max_completion_tokens"
        return True
    if "temperature" in message and found.send_temperature:
        found.send_temperature = False
        return True
    return False


def _demand(inquiry: Inquiry, came: Came) -> None:
    if not came.ok:
        hint = (
            f"check the key in {inquiry.key_variable}, base_url and model"
            if came.status in (401, 402, 403, 404)
            else "see what the server logs"
        )
        raise EndpointFailed(
            f"{inquiry.where}: no answer to a plain question ({brief(came.said or came.reply.failure)}); {hint}"
        )


def _thought(came: Came) -> bool:
    usage = came.body.get("usage") if isinstance(came.body, dict) else None
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    counted = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return bool(came.reply.reasoning or counted)


def plain(found: Found, text: str, most: int, temperature: float = 0.0) -> dict[str, Any]:
    """A request that asks this text, by the settings found so far; ``most`` tokens of reply."""
    body: dict[str, Any] = {
        "model": found.model,
        "messages": [{"role": "user", "content": text}],
        found.max_tokens_field: most,
    }
    return {**body, "temperature": temperature} if found.send_temperature else body


def quoted(text: str | None) -> str:
    """The beginning of a reply on one line, in quotes."""
    line = brief(text or "")
    return f"“{line[:60]}{'…' if len(line) > 60 else ''}”" if line else "an empty text"


def note(
    found: Found, inquiry: Inquiry, before: int, name: str, asked: str, came: str, state: State, means: str
) -> None:
    """Add a check to the transcript; ``before``: completions asked when it began."""
    found.checks.append(Check(name, asked, came, state, means, inquiry.calls - before))
