"""A pairwise judge's prompt as it stands in other code: a text with ``{first}`` or ``{{ first }}`` in it, a Python string, or a list
of chat messages.

What a variable means is told by its name alone (docs/howto-my-prompt.md); a name that means nothing here is an error, and no logic is
run.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Literal, cast, get_args

from judgeloop.errors import ExperimentError
from judgeloop.records import Message

VERDICT = "verdict"
"""The variable in whose place the closing instruction stands."""
_PROMPT = ("prompt", "question", "instruction", "query", "input", "problem", "task", "user_prompt", "user_question")
_REFERENCE = ("reference", "reference_answer", "ref_answer")
_SIDES = (("first", "second"), ("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("one", "two"))
_PATH = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[[\"']?[A-Za-z_]\w*[\"']?\])*"
_JINJA = re.compile(rf"(?<!\{{)\{{\{{-?[ \t]*({_PATH}[ \t]*(?:\|[^{{}}\n]*)?)-?\}}\}}(?!\}})")
_FORMAT = re.compile(rf"(?<!\{{)\{{({_PATH})\}}(?!\}})")
_TEMPLATE = re.compile(r"^kind[ \t]*:.*^messages[ \t]*:|^messages[ \t]*:.*^kind[ \t]*:", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"\s*(?:[A-Za-z_]\w*\s*(?::\s*\w+\s*)?=\s*[\[(fFrRuU\"']|[fFrRuU]{0,2}(?:\"\"\"|'''))")
_MARK = re.compile(r"\[\[\s*([^\[\]\n]{1,12}?)\s*\]\]")
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class _Variable:
    """A place for a value, by the name that the prompt gives it."""

    name: str


_Part = str | _Variable


@dataclass(frozen=True, slots=True)
class PastedPrompt:
    """``messages`` with the variables of a template, ``{{ prompt }}``, ``{{ answer_a }}``, ``{{ answer_b }}`` and the like.

    ``asks``: the prompt itself asks for [[A]] or [[B]], and ``ties`` for [[tie]] too; otherwise ``{{ instruction }}`` stands where the
    verdict is asked for, which is the end where the prompt has no place for it.
    """

    messages: tuple[Message, ...]
    asks: bool
    ties: bool


def is_template(text: str, ending: str) -> bool:
    """Whether a file is a template, with the keys kind and messages, and not a prompt as it stands in code."""
    return ending.lower() in (".yaml", ".yml") or bool(_TEMPLATE.search(text))


def pasted(text: str, where: str) -> PastedPrompt:
    """The prompt of a file's text; ``where`` names the file in errors. Raises ExperimentError."""
    messages = _messages(text, where)
    variables = [part.name for _, parts in messages for part in parts if isinstance(part, _Variable)]
    meanings = _meanings(list(dict.fromkeys(variables)), where)
    _check_order([meanings[name] for name in variables], where)
    words = "".join(part for _, parts in messages for part in parts if isinstance(part, str))
    asks, ties = _asked_for(words, "instruction" in meanings.values(), where)
    if not asks and "instruction" not in meanings.values():
        role, parts = messages[-1]
        messages[-1] = (role, [*parts, "\n\n", _Variable(VERDICT)])
        meanings[VERDICT] = "instruction"
    written = [
        (role, "".join(f"{{{{ {meanings[part.name]} }}}}" if isinstance(part, _Variable) else part for part in parts))
        for role, parts in messages
    ]
    return PastedPrompt(tuple(Message(cast(Role, role), content) for role, content in written), asks, ties)


def _asked_for(words: str, placed: bool, where: str) -> tuple[bool, bool]:
    """(whether the prompt's own words ask for [[A]] or [[B]], whether for [[tie]] too). Raises ExperimentError for other marks."""
    marks = {mark.lower() for mark in _MARK.findall(words)}
    others = sorted(marks - {"a", "b", "tie"})
    if others:
        raise ExperimentError(
            f"{where}: [[{others[0]}]]: no verdict that is read; the first answer is [[A]], the second [[B]], and a tie [[tie]]"
        )
    if marks and not {"a", "b"} <= marks:
        raise ExperimentError(
            f"{where}: asks for [[{min(marks)}]] alone; the first answer is [[A]] and the second [[B]]"
        )
    if marks and placed:
        raise ExperimentError(
            f"{where}: asks for [[A]] or [[B]] itself, and has a place for {VERDICT} too; keep one of them"
        )
    return bool(marks), "tie" in marks


def _check_order(meanings: Sequence[str], where: str) -> None:
    """Raises ExperimentError where the second answer is shown before the first: verdicts by slot would then be the other way."""
    if meanings.index("answer_b") < meanings.index("answer_a"):
        raise ExperimentError(
            f"{where}: the second answer stands before the first; [[A]] means the one that is shown first"
        )


# What a name means.


def _meanings(names: Sequence[str], where: str) -> dict[str, str]:
    """Name → variable of a template. Raises ExperimentError for a name that means nothing, for one that is missing and for two
    that mean the same."""
    plain = {name: _plain(name) for name in names}
    known = dict.fromkeys(_PROMPT, "prompt") | dict.fromkeys(_REFERENCE, "reference") | {VERDICT: "instruction"}
    meanings = {name: known[word] for name, word in plain.items() if word in known}
    pairs = [
        (one, other) for one in names for other in names
        if one not in meanings and other not in meanings and _are_sides(plain[one], plain[other])
    ]  # fmt: skip
    if len(pairs) == 1:
        meanings |= {pairs[0][0]: "answer_a", pairs[0][1]: "answer_b"}
    for name in names:
        if name not in meanings:
            raise ExperimentError(
                f"{where}: {{{name}}}: nothing is known of it; a pair has {{prompt}}, {{first}} and {{second}} (also question, "
                "answer_a and answer_b, response_1 and response_2 …). Write out what else the prompt holds, and double a brace that is text"
            )
    for variable, shown in (("prompt", "{prompt}"), ("answer_a", "{first}"), ("answer_b", "{second}")):
        if variable not in meanings.values():
            raise ExperimentError(f"{where}: {shown} is missing: there is no place for it in the prompt")
    for variable in ("prompt", "reference"):
        same = [name for name, meaning in meanings.items() if meaning == variable]
        if len(same) > 1:
            raise ExperimentError(
                f"{where}: {{{same[0]}}} and {{{same[1]}}} both mean the {variable}; keep one, and write out the other (the place for the closing instruction is {{{VERDICT}}})"
            )
    return meanings


def _plain(name: str) -> str:
    """The last part of a dotted or indexed name in lower case, its words and a number or letter behind them apart: answer_a for
    row["answerA"]."""
    last = re.split(r"[.\[\]\"']+", name.rstrip("]\"'"))[-1]
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "_", last).lower()


def _are_sides(one: str, other: str) -> bool:
    """Whether two names differ in one word alone, which is the first side in one and the second in the other."""
    words = one.split("_"), other.split("_")
    different = [pair for pair in zip(*words, strict=False) if pair[0] != pair[1]]
    return len(words[0]) == len(words[1]) and len(different) == 1 and different[0] in _SIDES


# A file's text to messages of parts.


def _messages(text: str, where: str) -> list[tuple[str, list[_Part]]]:
    """(role, parts) of each message. Raises ExperimentError."""
    raw = _of_json(text, where) or _of_python(text, where) or [("user", text.removesuffix("\n"))]
    for number, (role, content) in enumerate(raw):
        if role not in get_args(Role):
            raise ExperimentError(
                f"{where}: message {number + 1}: the role must be system, user or assistant, not {role!r:.40}"
            )
        if not content:
            raise ExperimentError(f"{where}: message {number + 1}: is empty")
    if raw[-1][0] != "user":
        raise ExperimentError(f"{where}: the last message must be the user's, as it asks for the verdict")
    texts = [content for _, content in raw if isinstance(content, str)]
    if any("{%" in content for content in texts):
        raise ExperimentError(
            f"{where}: holds {{% … %}}: no logic is run; give the prompt as it is sent, with its variables alone"
        )
    jinja, single = (next((match[0] for content in texts for match in form.finditer(content)), "") for form in (_JINJA, _FORMAT))  # fmt: skip
    if jinja and single:
        raise ExperimentError(f"{where}: {jinja} and {single}: variables are written in two ways; use one of them")
    return [
        (role, list(_parts(content, bool(jinja), where)) if isinstance(content, str) else content)
        for role, content in raw
    ]


def _parts(content: str, jinja: bool, where: str) -> Iterator[_Part]:
    """The words and variables of a text. What str.format takes is read as it reads it; in any other text braces are words but
    where they hold a name."""
    formatted = None if jinja else _as_formatted(content)
    if formatted is not None:
        yield from (_words(part, where) if isinstance(part, str) else part for part in formatted)
        return
    place = 0
    for match in (_JINJA if jinja else _FORMAT).finditer(content):
        yield _words(content[place : match.start()], where)
        name = match[1].strip()
        if "|" in name:
            raise ExperimentError(f"{where}: {match[0]}: no filter is run; give the name alone")
        yield _Variable(name)
        place = match.end()
    yield _words(content[place:], where)


def _as_formatted(content: str) -> list[_Part] | None:
    """The words and variables of a format string; None where it is none, or holds more than names."""
    parts: list[_Part] = []
    try:
        for literal, name, form, conversion in Formatter().parse(content):
            parts.append(literal)
            if name is not None:
                if not re.fullmatch(_PATH, name) or form or conversion:
                    return None
                parts.append(_Variable(name))
    except ValueError:
        return None
    return _joined(parts)


def _joined(parts: Sequence[_Part]) -> list[_Part]:
    """The parts with neighbouring words as one."""
    joined: list[_Part] = []
    for part in parts:
        if joined and isinstance(part, str) and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _words(text: str, where: str) -> str:
    """A text between variables. Raises ExperimentError where it would be taken for a template's variable."""
    if re.search(r"\{\{[^{}\n]*\}\}", text):
        raise ExperimentError(f"{where}: holds {{{{ … }}}} as text, which no prompt can: it is where variables stand")
    return text


def _of_json(text: str, where: str) -> list[tuple[str, str | list[_Part]]] | None:
    """(role, content) of a JSON list of chat messages; None for any other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        return None
    for number, turn in enumerate(turns):
        if set(turn) != {"role", "content"} or not all(isinstance(value, str) for value in turn.values()):
            raise ExperimentError(
                f"{where}: message {number + 1}: must be role and content, both text, and nothing else"
            )
    return [(turn["role"], turn["content"]) for turn in turns]


def _of_python(text: str, where: str) -> list[tuple[str, str | list[_Part]]] | None:
    """(role, content) of a Python string, or of a list of chat messages, that may be assigned to a name; None for any other text.
    Nothing is executed."""
    if not _CODE.match(text):
        return None
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError, SyntaxWarning):
        return None  # a text that begins like code
    value = body[0].value if len(body) == 1 and isinstance(body[0], ast.Assign | ast.AnnAssign | ast.Expr) else None
    if isinstance(value, ast.List):
        return [_turn(element, where) for element in value.elts]
    content = _string(value, where)
    if content is None:
        raise ExperimentError(f"{where}: Python code; give one string, or one list of chat messages, and nothing else")
    return [("user", content)]


def _turn(node: ast.expr, where: str) -> tuple[str, str | list[_Part]]:
    """(role, content) of a message written as a Python dictionary. Raises ExperimentError for anything else."""
    if isinstance(node, ast.Dict):
        turn = {key.value: _string(value, where) for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)}  # fmt: skip
        role, content = turn.get("role"), turn.get("content")
        if set(turn) == {"role", "content"} and isinstance(role, str) and content is not None:
            return role, content
    raise ExperimentError(f"{where}: line {node.lineno}: a message must be {{role: …, content: …}}, both strings")


def _string(node: ast.expr | None, where: str) -> str | list[_Part] | None:
    """The text of a Python string, or the parts of an f-string; None for any other expression."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts: list[_Part] = []
    for value in node.values:
        if isinstance(value, ast.FormattedValue):
            name = ast.unparse(value.value)
            if not re.fullmatch(_PATH, name) or value.conversion != -1 or value.format_spec is not None:
                raise ExperimentError(
                    f"{where}: line {value.lineno}: {{{name}}}: only names are filled in; nothing is computed or formatted"
                )
            parts.append(_Variable(name))
        elif isinstance(value, ast.Constant):
            parts.append(_words(str(value.value), where))
    return parts
