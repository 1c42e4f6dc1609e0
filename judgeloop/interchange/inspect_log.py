"""Inspect's ``.eval`` logs (and its ``.json`` form): answers graded one at a time by a model, by rules, or both.

Model-graded scores are the judge's; scores by rule (match, exact, …), where the log has them, are gold. C is 1, P ½, I
and N 0; a score without a value is unscored, with Inspect's reason. Two logs of one task by two models, or one log with
several epochs, are joined into pairs. Scores of ``judgeloop.inspect_scorer`` are pairs already, judged in both orders.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.experiment import inputs
from judgeloop.interchange.graded import Grade, GradedAnswer
from judgeloop.interchange.graded import rows as pair_rows
from judgeloop.interchange.rows import Row
from judgeloop.records import Message, prompt_text

_ZIP_ZSTANDARD = 93
# A zip archive's local file header (APPNOTE 4.3.7).
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


MAX_MEMBER_BYTES = 256 * 2**20
"""Bytes of an archive's member, unpacked, that are read at most."""


def zip_member(path: Path, name: str) -> bytes:
    """The bytes of an archive's member, also where it is packed by Zstandard, which zipfile reads only from Python 3.14 on.

    Raises InvalidInput with file and member where it is damaged, packed in another way or larger than ``MAX_MEMBER_BYTES``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(name)
            if info.file_size > MAX_MEMBER_BYTES:
                raise _too_large(path, name)
            if info.compress_type != _ZIP_ZSTANDARD:
                return archive.read(name)
        with path.open("rb") as file:
            file.seek(info.header_offset)
            header = file.read(_LOCAL_HEADER.size)
            *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            file.seek(name_length + extra_length, 1)
            packed = file.read(info.compress_size)
        content = _unzstd(packed)
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        KeyError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise InvalidInput(f"{path}: {name}: cannot be unpacked ({error!s:.80})") from None
    if len(content) > MAX_MEMBER_BYTES:
        raise _too_large(path, name)
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise InvalidInput(f"{path}: {name}: damaged (its checksum or size is wrong)")
    return content


def _unzstd(packed: bytes) -> bytes:
    """One or several Zstandard frames, end to end, up to one byte more than ``MAX_MEMBER_BYTES``."""
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        content: bytes = stream.read(MAX_MEMBER_BYTES + 1)
    return content


def _too_large(path: Path, name: str) -> InvalidInput:
    return InvalidInput(
        f"{path}: {name}: larger than {MAX_MEMBER_BYTES / 2**20:g} MB unpacked, the most that is read of a member"
    )


FIELDS = {
    "item_id": "id",
    "prompt": "input",
    "text_a": "output",
    "text_b": "output",
    "verdict": "scores",
    "gold": "scores",
}
"""judgeloop's column → the field of a sample that it is made of."""
RULES = ("match", "exact", "includes", "pattern", "answer", "choice", "f1", "math", "equivalent")
"""Inspect's own scorers by rule."""
_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_HEADERS = ("header.json", "_journal/start.json")
_ATTACHMENT = "attachment://"


def rows(paths: Sequence[Path], judges: str = "", gold: str = "") -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes). ``judges`` and ``gold`` name scorers; "" means those that a model graded, and the
    rules. Raises InvalidInput with file, member and field."""
    answers: list[GradedAnswer] = []
    notes: list[str] = []
    epochs: dict[tuple[str, str], int] = {}
    scorers: set[str] = set()
    paired: list[Row] = []
    for path in paths:
        header, samples = _open_log(path)
        spec = _field(header, "eval", Mapping, f"{path}: header")
        if header.get("status") not in (None, "success"):
            notes.append(f"{path.name}: this evaluation did not succeed (status {header.get('status')}); its finished samples are read")  # fmt: skip
        run = str(spec.get("task", "")), str(spec.get("model"))
        earlier = epochs.get(run, 0)
        read = list(_answers(path, spec, samples, judges, gold, scorers, paired, earlier))
        epochs[run] = earlier + max((answer.epoch for answer in read), default=0)
        answers += [replace(answer, epoch=answer.epoch + earlier) for answer in read]
        if earlier:
            notes.append(f"{path.name}: another run of {run[1]} on {run[0] or 'the same task'}; its epochs are counted on from {earlier + 1}")  # fmt: skip
    if paired:
        if any(answer.grades for answer in answers):
            notes.append("pairs that were judged in both orders are read, and single grades of other scorers are not; name a scorer with --columns (verdict: SCORER) to read those")  # fmt: skip
        return paired, notes
    if len({task for task, _ in epochs}) > 1:
        # Samples are numbered anew in every task.
        answers = [replace(answer, item_id=f"{answer.category}/{answer.item_id}") for answer in answers]
    if not any(answer.grades for answer in answers):
        names = ", ".join(sorted(scorers)) or "none"
        raise InvalidInput(
            f"{paths[0]}: scores: {f'no scorer {judges!r}' if judges else 'no score by a model'} (the log has {names}); name the judge's scorer with --columns (verdict: SCORER)"
        )
    keyed = _shorten_judge_names(answers)
    itself = dict.fromkeys(answer.model for answer in answers if answer.reason == "graded_by_itself")
    if itself:
        notes.insert(
            0, _graded_itself(list(itself), any(answer.model not in itself for answer in answers) or len(itself) > 1)
        )
    log_rows, more = pair_rows(keyed, str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more")
    return log_rows, notes + more


def _graded_itself(models: Sequence[str], several: bool) -> str:
    """A sentence on models that graded their own answers, as Inspect lets them where no grader is named."""
    alone = "; no judge graded both answers of a pair, so that these are unscored (graded_by_itself); where one judge graded all, name its scorer with --columns (verdict: SCORER)"  # fmt: skip
    return f"the log names no grader, so that {' and '.join(models[:3])} graded {'their' if len(models) > 1 else 'its'} own answers{alone if several else ''}"


def _open_log(path: Path) -> tuple[Mapping[str, Any], Iterator[tuple[str, Any]]]:
    """(header, iterator of (where, sample)) of a log in either form."""
    if not zipfile.is_zipfile(path):
        try:
            whole = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidInput(f"{path}: neither a zip archive nor JSON ({error!s:.80}); give a log as Inspect wrote it") from None  # fmt: skip
        if not isinstance(whole, Mapping) or not isinstance(whole.get("samples"), list):
            raise InvalidInput(f"{path}: samples: missing; give a whole log as Inspect wrote it, not its header")
        return whole, ((f"{path}: samples[{n}]", sample) for n, sample in enumerate(whole["samples"]))
    try:
        with zipfile.ZipFile(path) as archive:
            names, size = archive.namelist(), sum(member.file_size for member in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"{path}: cannot be read as a zip archive ({error}); give a log as Inspect wrote it"
        ) from None
    if size > inputs.MAX_UNPACKED_BYTES:
        raise InvalidInput(inputs.unpacked_too_large(path, f"{size / 2**30:.3g}"))
    header = next((name for name in _HEADERS if name in names), None)
    if header is None:
        raise InvalidInput(f"{path}: no header.json in the archive; this is no Inspect log")
    members = [name for name in names if name.startswith("samples/") and name.endswith(".json")]
    # A sample that was written again (a retry) has two members of one name; zipfile reads the later one.
    members = list(dict.fromkeys(members))
    if not members:
        raise InvalidInput(f"{path}: samples/: empty; the log was written without samples (log_samples=False), give one with them")  # fmt: skip
    return _member(path, header), ((f"{path}: {name}", _member(path, name)) for name in members)


def _member(path: Path, name: str) -> Any:
    try:
        value = json.loads(zip_member(path, name))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: {name}: not valid JSON ({error!s:.80})") from None
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{path}: {name}: must be a JSON object, this is {type(value).__name__}")
    return value


def _field(raw: Any, name: str, kind: type | UnionType, where: str) -> Any:
    value = raw.get(name) if isinstance(raw, Mapping) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidInput(f"{where}: {name}: {'missing' if value is None else f'must not be {value!r:.60}'}; this is no Inspect log")  # fmt: skip
    return value


def _answers(
    path: Path, spec: Mapping[str, Any], samples: Iterator[tuple[str, Any]], judges: str, gold: str, scorers: set[str],
    paired: list[Row], earlier: int,
) -> Iterator[GradedAnswer]:  # fmt: skip
    """The answers with their grades; rows of pairs that were judged in both orders are added to ``paired``, their
    epochs counted on from ``earlier``."""
    model, task = _field(spec, "model", str, f"{path}: eval"), str(spec.get("task", ""))
    for where, sample in samples:
        identity = _field(sample, "id", str | int, where)
        epoch = sample.get("epoch", 1)
        if not isinstance(epoch, int):
            raise InvalidInput(f"{where}: epoch: must be a whole number, not {epoch!r:.60}")
        scores = sample.get("scores")
        if scores is not None and not isinstance(scores, Mapping):
            raise InvalidInput(f"{where}: scores: must be an object by scorer, not {type(scores).__name__}")
        grades: dict[str, Grade] = {}
        rules: dict[str, Grade] = {}
        for scorer, score in (scores or {}).items():
            scorers.add(scorer)
            if not isinstance(score, Mapping) or "value" not in score:
                raise InvalidInput(f"{where}: scores.{scorer}.value: missing")
            metadata = score.get("metadata")
            pair = metadata.get("judgeloop") if isinstance(metadata, Mapping) else None
            if isinstance(pair, Mapping) and judges in ("", scorer):
                shared = {
                    "item_id": f"{task}/{identity}",
                    "pair_id": f"{task}/{identity}/{model}/{pair.get('against')}/{epoch + earlier}",
                    "model_a": model,
                    "category": task,
                }
                shared |= {"prompt": _prompt(sample, where), "text_a": _text(sample, where)}
                paired += _both_orders(pair, shared, f"{where}: scores.{scorer}.metadata.judgeloop")
                continue
            graded = scorer == judges if judges else _is_model_graded(scorer, score)
            if graded:
                grader = _grader(spec, scorer, score) or (scorer if judges else model)
                grades[f"{grader}#{scorer}"] = _grade(score, f"{where}: scores.{scorer}")
            elif (scorer == gold) if gold else scorer.rsplit("/", 1)[-1] in RULES:
                rules[scorer] = _grade(score, f"{where}: scores.{scorer}")
        by_itself = any(name.startswith(f"{model}#") for name in grades)
        reason = "sample_error" if sample.get("error") else "graded_by_itself" if by_itself else "not_graded"
        yield GradedAnswer(
            where,
            str(identity),
            model,
            epoch,
            _prompt(sample, where),
            _text(sample, where),
            grades,
            rules,
            task,
            reason,
        )


def _both_orders(pair: Mapping[str, Any], shared: Mapping[str, Any], where: str) -> list[Row]:
    """One row an order of a pair: the graded model's answer is ``a``, what it was compared with ``b``."""
    orders = _field(pair, "orders", Mapping, where)
    rows_of_pair = []
    for order, verdict in orders.items():
        judged = {
            "order": order,
            "verdict": _field(verdict, "verdict", str, f"{where}.orders.{order}"),
            "reason": verdict.get("reason", ""),
        }
        other = {"text_b": _field(pair, "other", str, where), "model_b": _field(pair, "against", str, where)}
        rows_of_pair.append((where, {**shared, **other, "judge": _field(pair, "judge", str, where), **judged}))
    return rows_of_pair


def _is_model_graded(scorer: str, score: Mapping[str, Any]) -> bool:
    metadata = score.get("metadata")
    return scorer.rsplit("/", 1)[-1].startswith("model_graded") or (
        isinstance(metadata, Mapping) and "grading" in metadata
    )


def _grader(spec: Mapping[str, Any], scorer: str, score: Mapping[str, Any]) -> str:
    """The name of the grading model: from the grader's recorded reply, the scorer's options or the role; "" where the log
    names none: a scorer that --columns names is then one judge by its own name, and a model-graded one is the graded model,
    with which Inspect grades where no other is named."""
    metadata = score.get("metadata")
    grading = metadata.get("grading") if isinstance(metadata, Mapping) else None
    for turn in grading if isinstance(grading, list) else ():
        if isinstance(turn, Mapping) and turn.get("role") == "assistant" and isinstance(turn.get("model"), str):
            return str(turn["model"])
    for entry in spec.get("scorers") or ():
        options = entry.get("options") if isinstance(entry, Mapping) and entry.get("name") == scorer else None
        if isinstance(options, Mapping) and isinstance(options.get("model"), str):
            return str(options["model"])
    role = (spec.get("model_roles") or {}).get("grader")
    if isinstance(role, Mapping) and isinstance(role.get("model"), str):
        return str(role["model"])
    return "several graders" if isinstance(role, list) else ""


def _grade(score: Mapping[str, Any], where: str) -> Grade:
    value = score["value"]
    metadata = score.get("metadata")
    reason = score.get("reason") or (metadata.get("unscored_reason") if isinstance(metadata, Mapping) else None)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Grade(None, str(reason or "grader_failed"))
    if isinstance(value, str) and value in _VALUES:
        return Grade(_VALUES[value])
    if isinstance(value, int | float) and math.isfinite(value):
        return Grade(float(value))
    raise InvalidInput(
        f"{where}.value: must be C, P, I, N or a number, not {value!r:.60}; a judge's scorer gives one grade"
    )


def _shorten_judge_names(answers: Sequence[GradedAnswer]) -> list[GradedAnswer]:
    """The answers with judges named by the model alone where only one scorer uses that model."""
    scorers: dict[str, set[str]] = {}
    for answer in answers:
        for name in answer.grades:
            scorers.setdefault(name.rsplit("#", 1)[0], set()).add(name)
    short = {name: model for model, names in scorers.items() for name in names if len(names) == 1}
    return [
        replace(answer, grades={short.get(name, name): grade for name, grade in answer.grades.items()})
        for answer in answers
    ]


def _prompt(sample: Mapping[str, Any], where: str) -> str:
    prompt = sample.get("input")
    if isinstance(prompt, str):
        return _with_attachment(prompt, sample)
    if not isinstance(prompt, list) or not prompt:
        raise InvalidInput(f"{where}: input: must be text or chat messages, not {type(prompt).__name__}")
    turns = []
    for turn in prompt:
        content = _content(turn.get("content") if isinstance(turn, Mapping) else None, sample)
        if content is None:
            raise InvalidInput(f"{where}: input: a chat message has no content")
        role = turn.get("role")
        turns.append(Message(role if role in ("system", "assistant") else "user", content))
    return turns[0].content if len(turns) == 1 else prompt_text(turns)


def _text(sample: Mapping[str, Any], where: str) -> str | None:
    """The graded answer; None where the sample failed before it had one."""
    output = sample.get("output")
    if not isinstance(output, Mapping):
        if sample.get("error"):
            return None
        raise InvalidInput(f"{where}: output: missing")
    if isinstance(output.get("completion"), str) and output["completion"]:
        return _with_attachment(output["completion"], sample)
    choices = output.get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else None  # fmt: skip
    text = _content(message.get("content") if isinstance(message, Mapping) else None, sample)
    return text if text is not None or sample.get("error") else ""


def _content(content: object, sample: Mapping[str, Any]) -> str | None:
    """A message's text, or its parts of type text; None where it has neither."""
    if isinstance(content, str):
        return _with_attachment(content, sample)
    if not isinstance(content, list):
        return None
    parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    return "\n".join(_with_attachment(part, sample) for part in parts if isinstance(part, str))


def _with_attachment(text: str, sample: Mapping[str, Any]) -> str:
    """The text, or the attachment that it refers to: Inspect keeps long texts apart."""
    if not text.startswith(_ATTACHMENT):
        return text
    attachments = sample.get("attachments")
    attachment = attachments.get(text.removeprefix(_ATTACHMENT)) if isinstance(attachments, Mapping) else None
    return attachment if isinstance(attachment, str) else text
