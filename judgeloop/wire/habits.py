"""How an endpoint treats seeds, several choices, system messages and long prompts, and what limits it states."""

from __future__ import annotations

import re
from collections.abc import Mapping

from judgeloop.wire.examination import Check, Found, note, plain, quoted
from judgeloop.wire.inquiry import Came, Inquiry
from judgeloop.wire.line import brief

_LIMIT = re.compile(
    r"(?:maximum context length is|max(?:imum)? (?:model|context) len(?:gth)?(?: is| of|:)?|n_ctx\D{0,4}|context (?:size|window)(?: is| of|:)?)\s*\(?(\d+)",
    re.I,
)
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


async def seed(inquiry: Inquiry, found: Found) -> None:
    """Two draws by one seed, and one by another."""
    calls, asked = inquiry.calls, "one draft at temperature 1: seed 11 twice, seed 12"
    if found.thinks:
        return note(
            found,
            inquiry,
            calls,
            "seed",
            "nothing",
            "not asked: three long calls",
            "unknown",
            "a resumed run uses the recording, not the seed",
        )
    drawn = []
    for number in (11, 11, 12):
        body = plain(
            found, "Invent a village: its name, its river and its mayor, in one sentence.", 32, temperature=1.0
        )
        came = await inquiry.complete({**body, "seed": number})
        if not came.ok:
            return note(
                found,
                inquiry,
                calls,
                "seed",
                asked,
                came.said,
                "no",
                "seed is refused; judgeloop sends one with every draft",
            )
        drawn.append(came.reply.text)
    same, differs = drawn[0] == drawn[1], drawn[0] != drawn[2]
    if not same:
        return note(
            found,
            inquiry,
            calls,
            "seed",
            asked,
            "one seed gave two texts",
            "no",
            "drafts cannot be made again from their seeds: keep the recording",
        )
    if not differs:
        return note(
            found,
            inquiry,
            calls,
            "seed",
            asked,
            f"three times {quoted(drawn[0])}",
            "unknown",
            "texts do not vary at all: temperature, or the cache of a proxy",
        )
    return note(
        found,
        inquiry,
        calls,
        "seed",
        asked,
        "one seed, one text; another seed, another",
        "ok",
        "drafts are reproducible",
    )


async def choices(inquiry: Inquiry, found: Found) -> None:
    """n = 2."""
    calls = inquiry.calls
    came = await inquiry.complete(
        {**plain(found, "Reply with one word.", 16 if not found.thinks else found.max_tokens), "n": 2}
    )
    got = len(came.body.get("choices") or []) if came.ok and isinstance(came.body, dict) else 0
    came_back = came.said if not got else f"{got} choice{'s' if got > 1 else ''}"
    means = "judgeloop asks one answer a call and does not need it"
    note(found, inquiry, calls, "n", "two choices in one call", came_back, "ok" if got == 2 else "no", means)


async def system_role(inquiry: Inquiry, found: Found) -> None:
    """Is a system message accepted, and followed?"""
    calls = inquiry.calls
    body = plain(found, "Which fruit?", 16 if not found.thinks else found.max_tokens)
    told = {"role": "system", "content": "Whatever is asked, reply with the single word BANANA."}
    came = await inquiry.complete({**body, "messages": [told, *body["messages"]]})
    asked = "a system message that asks for one word"
    if not came.ok:
        return note(
            found,
            inquiry,
            calls,
            "system role",
            asked,
            came.said,
            "no",
            "prompts and items with a system message fail here; the shipped prompts have none",
        )
    followed = "banana" in (came.reply.text or "").lower()
    means = "system messages are read" if followed else "accepted, and not followed here: the model may not heed it"
    return note(
        found, inquiry, calls, "system role", asked, quoted(came.reply.text), "ok" if followed else "unknown", means
    )


async def context(inquiry: Inquiry, found: Found, listed: tuple[int | None, str], tokens: int) -> None:
    """One prompt of about that many tokens: read whole, refused, or cut without a word?"""
    calls, (limit, named) = inquiry.calls, listed
    filler = " ".join(_WORDS[k % len(_WORDS)] for k in range(tokens))
    came = await inquiry.complete(
        plain(found, f"{filler}\n\nReply with the single word: ready", 4 if not found.thinks else found.max_tokens)
    )
    asked = f"a prompt of about {tokens:,} tokens"
    known = f"the list says {limit:,} ({named}); " if limit else ""
    read = came.reply.prompt_tokens
    if came.ok and 0 < read < 0.8 * tokens:
        found.context = read
        return note(
            found,
            inquiry,
            calls,
            "context",
            asked,
            f"{known}answered, having read {read:,} tokens",
            "no",
            "longer prompts are cut without a word: judges would miss an answer; raise the server's context",
        )
    if came.ok:
        found.context = limit
        came_back = f"{known}read whole ({read:,} tokens)" if read else f"{known}answered, tokens not counted"
        return note(
            found,
            inquiry,
            calls,
            "context",
            asked,
            came_back,
            "ok" if read else "unknown",
            f"prompts of {tokens:,} tokens fit" if read else "whether it was read whole is not known",
        )
    if came.reply.failure != "context_length":
        return note(found, inquiry, calls, "context", asked, f"{known}{came.said}", "unknown", "the limit is not known")
    stated = _stated_limit(came) or limit
    found.context = stated
    means = f"prompts may have {stated:,} tokens" if stated else f"prompts of {tokens:,} tokens are too long"
    return note(
        found,
        inquiry,
        calls,
        "context",
        asked,
        f"{known}{came.said}",
        "no",
        f"{means}; longer ones are refused (unscored: context_length)",
    )


def _stated_limit(came: Came) -> int | None:
    error = came.body.get("error") if isinstance(came.body, dict) else None
    value = error.get("n_ctx") if isinstance(error, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    named = _LIMIT.search(came.message)
    return int(named[1]) if named else None


def rate_limits(headers: Mapping[str, str]) -> Check:
    """What the headers of all answers said of limits."""
    limits = {name: value for name, value in headers.items() if "ratelimit" in name or name.startswith("retry-after")}
    if not limits:
        return Check(
            "rate limits",
            "headers of all answers",
            "none",
            "unknown",
            "no limit is stated; if calls fail with 429 they are retried",
        )
    shown = ", ".join(f"{name} {brief(value)[:40]}" for name, value in sorted(limits.items()))
    requests = next(
        (value for name, value in limits.items() if re.search(r"limit-requests$|ratelimit-limit$", name)), ""
    )
    means = f"{requests} requests a window" if requests else "limits are stated"
    return Check(
        "rate limits", "headers of all answers", shown, "ok", f"{means}; calls beyond are answered 429 and retried"
    )
