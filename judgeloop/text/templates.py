"""Prompt templates, one YAML file each, shipped in prompts/ or the user's own; and the scales on which they ask for scores.

A file has ``kind`` (judge, score, choice, draft, match, edit or reward), ``description``, ``messages`` (``role`` and
``content``) and, unless it drafts, edits or is what a reward model reads, ``verdict``: the closing instruction for each way
to read a verdict. Variables are written ``{{ name }}``. A pairwise judge's prompt may be given as it stands in code too (``pasted``).
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from judgeloop.errors import ExperimentError, InvalidInput
from judgeloop.records import Message
from judgeloop.text.pasted import is_template, pasted

Kind = Literal["judge", "score", "choice", "draft", "match", "edit", "reward"]
Mode = Literal["logprob", "json", "text"]

MODES: tuple[Mode, ...] = ("logprob", "json", "text")
_KINDS: tuple[Kind, ...] = ("judge", "score", "choice", "draft", "match", "edit", "reward")
_KEYS = ("kind", "description", "ties", "reasons", "messages", "verdict")
_VARIABLE = re.compile(r"\{\{[ \t]*+([^{}\n]*+)\}\}")

# What each kind must and may name. verdict_a and verdict_b are a verdict as this mode writes it (A, {"verdict": "A"},
# [[A]]), so that worked examples end as the reply is asked to end.
_REQUIRED: dict[Kind, tuple[str, ...]] = {
    "judge": ("prompt", "answer_a", "answer_b", "instruction"),
    "score": ("prompt", "answer", "scale", "instruction"),
    "choice": ("prompt", "answers", "instruction"),
    "draft": ("prompt",),
    "match": ("prompt", "answer", "reference", "instruction"),
    "edit": ("text",),
    "reward": ("prompt", "answer"),
}
_OPTIONAL: dict[Kind, tuple[str, ...]] = {
    "judge": ("reference", "verdict_a", "verdict_b"), "score": ("reference", "low", "high"), "choice": ("reference", "letters"),
    "draft": (), "match": (), "edit": ("length",), "reward": (),
}  # fmt: skip
# What an instruction may name: a scale and its ends; the slots' letters, and these as the reply writes them.
_INSTRUCTION_MAY: dict[Kind, tuple[str, ...]] = {"score": ("scale", "low", "high"), "choice": ("letters", "marks")}


@dataclass(frozen=True, slots=True)
class Template:
    """A validated template. ``instructions`` maps the modes it can be asked in to their closing instruction.

    ``ties``: the judge may answer tie (kind judge alone). ``reasons``: the reply reasons before its verdict, so that no first token can
    hold one. ``sha256``: of the file's text, tagged ``sha256:``.
    """

    name: str
    kind: Kind
    messages: tuple[Message, ...]
    ties: bool
    reasons: bool
    instructions: Mapping[Mode, str]
    sha256: str
    description: str = ""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes it can be asked in, the most informative first."""
        return tuple(mode for mode in MODES if mode in self.instructions)

    @property
    def labels(self) -> tuple[str, ...]:
        """The verdicts it offers, in the order in which they are offered; a score's and a choice's depend on what is shown."""
        judge = ("A", "B", "tie") if self.ties else ("A", "B")
        return {"judge": judge, "match": ("yes", "no")}.get(self.kind, ())


def shipped() -> tuple[str, ...]:
    """Names of the templates that come with judgeloop, sorted."""
    return tuple(sorted(path.stem for path in _shipped_folder().glob("*.yaml")))


def source(name: str) -> str:
    """The text of a shipped template's file. Raises ExperimentError."""
    if name not in shipped():
        raise ExperimentError(f"prompt {name!r}: no shipped template of that name{_hint(name, shipped())}")
    return (_shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def load(name_or_path: str, folder: str | Path = ".", kind: Kind = "judge") -> Template:
    """The shipped template of that name, else the template file, or the prompt as it stands in code, at that path (relative to
    ``folder``).

    Raises ExperimentError with the file and the key that is wrong.
    """
    names = shipped()
    if name_or_path in names:
        path = _shipped_folder() / f"{name_or_path}.yaml"
        where = f"prompt {name_or_path}"
    else:
        path = Path(folder) / name_or_path
        where = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise ExperimentError(
            f"prompt {name_or_path!r}: no shipped template and no file of that name{_hint(name_or_path, names)}"
        ) from None
    except (OSError, ValueError) as error:
        raise ExperimentError(f"{where}: cannot be read as UTF-8 text ({error})") from None
    if name_or_path in names or is_template(text, path.suffix):
        return parse(text, name=Path(name_or_path).stem, where=where, kind=kind)
    if kind != "judge":
        raise ExperimentError(
            f"{where}: no template of kind {kind}: it lacks the keys kind and messages; only a prompt that shows a pair may be a text alone"
        )
    return _of_pasted(text, Path(name_or_path).stem, where)


@functools.cache
def parse(text: str, name: str, where: str, kind: Kind) -> Template:
    """A template from the text of its file, which is read once a process; ``where`` names the file in errors. Raises ExperimentError."""
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ExperimentError(f"{where}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(raw, dict):
        raise ExperimentError(f"{where}: a template is a mapping of keys ({', '.join(_KEYS)})")
    for key in raw:
        if key not in _KEYS:
            raise ExperimentError(f"{where}: {key}: unknown key{_hint(str(key), _KEYS)}")
    stated_kind = raw.get("kind")
    if stated_kind not in _KINDS:
        raise ExperimentError(f"{where}: kind: must be one of {', '.join(_KINDS)} (got {stated_kind!r})")
    if stated_kind != kind:
        raise ExperimentError(f"{where}: kind: this is a {stated_kind} template where a {kind} template is needed")
    if stated_kind != "judge" and raw.get("ties"):
        raise ExperimentError(f"{where}: ties: only a judge template has them")
    if stated_kind not in ("judge", "score", "choice") and raw.get("reasons"):
        raise ExperimentError(f"{where}: reasons: only a judge, score or choice template has them")
    reasons = _flag(raw, "reasons", where)
    template = Template(
        name=name,
        kind=kind,
        messages=_messages(raw.get("messages"), where),
        ties=_flag(raw, "ties", where),
        reasons=reasons,
        instructions=_instructions(raw.get("verdict"), kind, reasons, where),
        sha256=_sha256(text),
        description=str(raw.get("description") or ""),
    )
    _check_variables(template, where)
    return template


def _of_pasted(text: str, name: str, where: str) -> Template:
    """The template of a prompt as it stands in code: where it does not ask for a verdict itself, in the words of ``pairwise``."""
    prompt = pasted(text, where)
    words: Mapping[Mode, str] = {"text": "as the prompt asks"} if prompt.asks else load("pairwise").instructions
    return Template(name, "judge", prompt.messages, prompt.ties, False, words, _sha256(text))


def _sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def variables(template: Template) -> frozenset[str]:
    """Names of the variables that the template's messages use."""
    return frozenset(name.strip() for message in template.messages for name in _VARIABLE.findall(message.content))


def fill(content: str, values: Mapping[str, str]) -> str:
    """The text with its variables replaced, in one pass: what a value holds is never replaced again."""
    return _VARIABLE.sub(lambda match: values[match[1].strip()], content)


def render(template: Template, values: Mapping[str, str]) -> list[dict[str, str]]:
    """The template's chat messages with ``values`` in place of its variables, in one pass.

    Raises KeyError if a variable that the template uses has no value (a defect of the caller).
    """
    return [{"role": message.role, "content": fill(message.content, values)} for message in template.messages]


def _shipped_folder() -> Path:
    # In a wheel the folder lies inside the package; in a checkout it stands beside it.
    package = Path(__file__).resolve().parents[1]
    installed = package / "prompts"
    return installed if installed.is_dir() else package.parent / "prompts"


def _flag(raw: Mapping[str, Any], key: str, where: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool):
        raise ExperimentError(f"{where}: {key}: must be true or false (got {value!r})")
    return value


def _messages(raw: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(raw, list) or not raw:
        raise ExperimentError(f"{where}: messages: required, a list of role and content")
    messages = []
    for index, entry in enumerate(raw):
        place = f"{where}: messages.{index}"
        if not isinstance(entry, dict) or set(entry) != {"role", "content"}:
            raise ExperimentError(f"{place}: a message has the keys role and content, and no other")
        if entry["role"] not in ("system", "user", "assistant"):
            raise ExperimentError(f"{place}.role: must be system, user or assistant (got {entry['role']!r})")
        if not isinstance(entry["content"], str) or not entry["content"].strip():
            raise ExperimentError(f"{place}.content: must be text")
        messages.append(Message(entry["role"], entry["content"].rstrip("\n")))
    if messages[-1].role != "user":
        raise ExperimentError(f"{where}: messages: the last one must be the user's")
    return tuple(messages)


def _instructions(raw: Any, kind: Kind, reasons: bool, where: str) -> dict[Mode, str]:
    if kind in ("draft", "edit", "reward"):
        if raw is not None:
            raise ExperimentError(f"{where}: verdict: {'an' if kind == 'edit' else 'a'} {kind} template asks for none")
        return {}
    allowed: Sequence[str] = ("text",) if kind == "match" else MODES
    if not isinstance(raw, dict) or not raw:
        raise ExperimentError(f"{where}: verdict: required, an instruction for each of {', '.join(allowed)}")
    for mode, instruction in raw.items():
        if mode not in allowed:
            raise ExperimentError(f"{where}: verdict.{mode}: unknown key{_hint(str(mode), allowed)}")
        if not isinstance(instruction, str) or not instruction.strip():
            raise ExperimentError(f"{where}: verdict.{mode}: must be text")
        may = _INSTRUCTION_MAY.get(kind, ())
        for variable in (name.strip() for name in _VARIABLE.findall(instruction)):
            if not may:
                raise ExperimentError(f"{where}: verdict.{mode}: an instruction has no variables")
            if variable not in may:
                raise ExperimentError(
                    f"{where}: verdict.{mode}: unknown variable {{{{ {variable} }}}}{_hint(variable, may)}"
                )
    if reasons and "logprob" in raw:
        raise ExperimentError(
            f"{where}: verdict.logprob: a template that reasons first has no verdict in its first token; leave it out"
        )
    return {cast(Mode, mode): instruction.strip() for mode, instruction in raw.items()}


def _check_variables(template: Template, where: str) -> None:
    used = variables(template)
    known = _REQUIRED[template.kind] + _OPTIONAL[template.kind]
    for name in sorted(used):
        if name not in known:
            raise ExperimentError(f"{where}: messages: unknown variable {{{{ {name} }}}}{_hint(name, known)}")
    for name in _REQUIRED[template.kind]:
        if name not in used:
            raise ExperimentError(f"{where}: messages: the variable {{{{ {name} }}}} is missing")
    if template.kind == "reward" and len(template.messages) > 1:
        raise ExperimentError(f"{where}: messages: a reward template is one message, the text that the model reads")
    if template.kind == "draft":
        *head, _ = template.messages
        if any(message.role != "system" or _VARIABLE.search(message.content) for message in head) or len(head) > 1:
            raise ExperimentError(
                f"{where}: messages: a draft template has at most one system message without variables, "
                "then one user message that holds {{ prompt }}"
            )


def _hint(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


LARGEST = 100
"""The largest number of a scale."""
_NAME = re.compile(r"(\d{1,3})-(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale on which one text is scored: two whole numbers, as ``1-10`` or, reversed, ``10-1``.

    ``worst`` and ``best`` are its two ends; on a reversed scale the best is the smaller number.
    """

    worst: int
    best: int

    @property
    def name(self) -> str:
        """The scale as tables and call ids name it: the worst end, then the best."""
        return f"{self.worst}-{self.best}"

    @property
    def low(self) -> int:
        """The smaller end."""
        return min(self.worst, self.best)

    @property
    def high(self) -> int:
        """The larger end."""
        return max(self.worst, self.best)

    @property
    def values(self) -> tuple[int, ...]:
        """Every whole number of it, in counting order."""
        return tuple(range(self.low, self.high + 1))

    @property
    def words(self) -> str:
        """How a prompt states it: always in counting order, so that a reversed scale differs in its ends' meaning alone."""
        low, high = ("worst", "best") if self.worst < self.best else ("best", "worst")
        return f"from {self.low} (the {low}) to {self.high} (the {high})"

    def share(self, score: float) -> float:
        """Where a score stands between the worst end (0) and the best (1); positive = better."""
        return (score - self.worst) / (self.best - self.worst)


def parse_scale(name: str) -> Scale:
    """The scale of that name, WORST-BEST. Raises InvalidInput."""
    match = _NAME.fullmatch(name.strip())
    scale = Scale(int(match[1]), int(match[2])) if match else None
    if scale is None or scale.high > LARGEST or scale.high - scale.low < 2:
        raise InvalidInput(
            f"--scales: {name.strip()!r:.40} is no scale; give WORST-BEST, whole numbers from 0 to {LARGEST} that are two or more apart, as 1-10 or 10-1"
        )
    return scale


def parse_scales(names: str) -> tuple[Scale, ...]:
    """Several, with commas; the first is the primary one. Raises InvalidInput."""
    scales = tuple(parse_scale(name) for name in names.split(",") if name.strip())
    if not scales:
        raise InvalidInput("--scales: give one or more, as 1-10,10-1")
    twice = next((scale.name for scale in scales if scales.count(scale) > 1), None)
    if twice is not None:
        raise InvalidInput(f"--scales: {twice} stands twice; each once")
    return scales
