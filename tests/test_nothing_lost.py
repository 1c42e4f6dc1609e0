"""Nothing that was paid for is lost, and nothing is made up: runs and audits under faults, kills, signals and damaged recordings,
and readers under noise."""

from __future__ import annotations

import asyncio
import copy
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import yaml

import audit_pairs
import judgeloop
from conftest import Served, serving, small_experiment, tables, write_experiment
from judgeloop.cli import main, views
from judgeloop.errors import JudgeloopError, ReplayMiss
from judgeloop.experiment import inputs, resolve
from judgeloop.experiment.schema import Endpoint
from judgeloop.interchange.guess import guess
from judgeloop.interchange.verdicts import read_log
from judgeloop.judging.answers import read_choice, read_match, read_score, read_verdict
from judgeloop.records import ROUTES, Reply
from judgeloop.rundir import RunFolder
from judgeloop.serving.faults import FaultKind, Faults, Rule
from judgeloop.serving.protocol import Assembler, chunked
from judgeloop.stats.judge import slopes
from judgeloop.text.templates import Mode, Scale
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.line import LeanLine
from judgeloop.wire.reply import Refusal, TransientFault, parse, read
from wire_case import named

pytestmark = pytest.mark.slow

_IN_FLIGHT = 8
_PAIRS = audit_pairs.pairs(12, gold=False)


def _run(served: Served, folder: Path, out: Path, **endpoint: Any) -> Path:
    raw = small_experiment(served.base_url, replicates=1)
    raw["endpoints"]["m"] |= endpoint
    return judgeloop.run(write_experiment(folder, raw), out=out, report=False).path


def _audit(served: Served, folder: Path, out: Path, **endpoint: Any) -> Path:
    options = {"concurrency": _IN_FLIGHT, **endpoint}
    return judgeloop.audit(pd.DataFrame(_PAIRS), base_url=served.base_url, model="planted", out=out, report=False, **options).path  # fmt: skip


_COMMANDS: dict[str, Callable[..., Path]] = {"run": _run, "audit": _audit}


# Chaos: every fault that the local server plays, at a quarter of the attempts.

_STATUSES = (408, 429, 500, 503)
_HARMLESS = ("slow", "context_length")
"""Faults that ask for no second attempt: the answer comes, or none can."""
_BY_RACE = ("timeout", "doubled")
"""Faults after which other attempts may be made too: beside what hangs, or where a copy came before the next call was answered."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, bytes], int]]:
    """Command → its tables, and the calls that it takes, without a fault."""
    results = {}
    for name, command in _COMMANDS.items():
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch, serving() as serve:
            _tables_alone(patch)
            served = serve()
            results[name] = tables(command(served, folder / "in", folder / "out")), served.asked.total()
            assert set(served.asked.values()) == {1}
    return results


def _tables_alone(patch: pytest.MonkeyPatch) -> None:
    from judgeloop.stats.estimate import estimates_frame

    patch.setattr("judgeloop.commands.run.run_estimates", lambda *_: estimates_frame([]))
    patch.setattr("judgeloop.analysis.judge_estimates", lambda *_, **__: estimates_frame([]))


@pytest.mark.tables
@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("command", _COMMANDS)
@pytest.mark.parametrize("fault", [*_STATUSES, *get_args(FaultKind)])
def test_under_faults_every_call_is_counted_and_the_tables_are_those_without(
    tmp_path: Path, whole: dict[str, tuple[dict[str, bytes], int]], command: str, fault: int | FaultKind
) -> None:
    expected, needed = whole[command]
    played = {"status": fault} if isinstance(fault, int) else {"kind": fault}
    waits = {"retry_after_s": 0.001} if fault == 429 else {"delay_s": 0.01} if fault == "slow" else {}
    # A trial decides how replies are read: what fails it for good changes every call.
    match = "^(?!.*/(trial|draft)/).*judge/" if fault == "context_length" else ""
    rule = Rule.model_validate({"match": match, "rate": 0.25, "times": 3, **played, **waits})
    with serving() as serve:
        served = serve(faults=Faults(rules=(rule,)))
        patience = {"timeout_s": 0.5} if fault == "timeout" else {}
        out = _COMMANDS[command](served, tmp_path / "in", tmp_path / "out", attempts=8, **patience)
    asked, hits = sum(served.faults.attempts.values()), len(served.faults.fired)
    sent = sum(spent.attempts for spent in Cassette(out, writable=False).spent.values())
    # What is refused for a rate limit is no attempt.
    assert asked == sent + (hits if fault == 429 else 0)
    if fault == "context_length":
        judgments = judgeloop.open(out).judgments
        lost = judgments[judgments["verdict"] == "unscored"]
        assert set(lost["reason"]) == {"context_length"}
        assert set(lost["call"]) == {name for name, _ in served.faults.fired}
        assert asked == needed or command == "run"  # a verdict that is lost changes what a run drafts next
        return
    assert tables(out) == expected
    assert hits > needed / 8
    assert asked == needed + (0 if fault in _HARMLESS else hits) or fault in _BY_RACE
    assert (needed + hits if fault == "timeout" else needed) <= asked <= 2 * (needed + hits)
    assert len(served.faults.attempts) == needed


# Kills and signals: at moments of every phase, in a process of its own.

_LINES = ("draft", "judge", "train")
"""Kinds of calls whose records a moment counts."""


@dataclass(frozen=True)
class _Moment:
    """``at`` recorded lines of that kind (draft, judge, train), ``at`` commands that train have begun (training), or ``at`` CPU seconds
    into the phase (estimates, report), ``sign`` arrives."""

    phase: str
    at: float
    sign: signal.Signals

    def arm(self) -> None:
        """Have it arrive. A timer of CPU seconds ends the process by itself, between any two instructions, as SIGKILL does."""
        left = int(self.at)

        def pass_one() -> None:
            nonlocal left
            left -= 1
            if left == 0:  # once: a second Ctrl-C ends a command at once
                os.kill(os.getpid(), self.sign)

        if self.phase in _LINES:
            append = Cassette.append

            def appended(cassette: Cassette, exchange: Exchange) -> None:
                append(cassette, exchange)
                if f"/{self.phase}/" in exchange.call:
                    pass_one()

            Cassette.append = appended  # type: ignore[method-assign]
            return
        if self.phase == "training":
            write = RunFolder.write_json

            def written(folder: RunFolder, name: str, content: Any) -> None:
                write(folder, name, content)
                if name.endswith("process.json"):
                    pass_one()

            RunFolder.write_json = written  # type: ignore[method-assign]
            return
        if self.sign != signal.SIGKILL:
            signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), self.sign))

        def stage(_: views.Quiet, text: str) -> None:
            if text == self.phase:
                signal.setitimer(signal.ITIMER_PROF, self.at)

        views.Quiet.stage = stage  # type: ignore[method-assign]


def _command_line(words: list[str], stderr: Path, moment: _Moment | None) -> None:
    """The command in this process, which a server of forks made for it; without a moment the CPU seconds at each stage go to a file."""
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout, sys.stderr = Path(os.devnull).open("w"), stderr.open("w")  # noqa: SIM115  until the process ends
    slopes.DRAWS = 200  # for tests that compare numbers and read none
    if moment is not None:
        moment.arm()
        main(words)
    stages: list[tuple[str, float]] = []
    views.Quiet.stage = lambda _, text: stages.append((text, time.process_time()))  # type: ignore[method-assign]
    try:
        main(words)
    finally:
        stages.append(("end", time.process_time()))
        stderr.with_suffix(".json").write_text(json.dumps(stages))


@pytest.fixture(scope="module", autouse=True)
def _fork_server() -> None:
    """A process without threads that has loaded what a command needs, and forks: an interpreter for each command would take longer."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["judgeloop.commands.run", "judgeloop.commands.audit", "judgeloop.report", "test_nothing_lost"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        from multiprocessing import forkserver

        forkserver.ensure_running()


def _forked(words: list[str], stderr: Path, moment: _Moment | None = None) -> tuple[int, str]:
    """(exit code, standard error) of a command."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_command_line, args=(words, stderr, moment))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the command hangs"
    return process.exitcode, stderr.read_text()


_TRAINS = """
printf x >> "$0"
sleep .1
grep -q '"arm": "judge"' training.json && n=60 || n=30
printf '{"model": "planted@length_mean=%s"}' $n > model.json
"""


@dataclass(frozen=True)
class _Whole:
    """A command that nothing ended: its words but for the folder, its folder, CPU seconds by stage, and the file to which each
    command that trains adds a character."""

    name: str
    words: list[str]
    folder: Path
    lasts: dict[str, float]
    trainings: Path

    @property
    def trained(self) -> int:
        """How many trainings have begun."""
        return self.trainings.stat().st_size if self.trainings.exists() else 0


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as serve:
        yield serve()


@pytest.fixture(scope="module", params=["run", "training", "audit"])
def uninterrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, served: Served) -> _Whole:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "audit":
        pairs = audit_pairs.write(folder / "pairs.jsonl", _PAIRS)
        own = ["audit", str(pairs), "--model", "planted", "--base-url", served.base_url]
        own += ["--concurrency", str(_IN_FLIGHT)]
    else:
        raw = small_experiment(served.base_url, replicates=1)
        if request.param == "training":
            command = ["sh", "-c", _TRAINS, str(folder / "trainings")]
            raw |= {"policy": {"kind": "command", "endpoint": "m", "command": command}, "generations": 2}
            raw.pop("signal")
        own = ["run", str(write_experiment(folder / "in", raw))]
    words = [*own, "--quiet", "--out"]
    assert _forked([*words, str(folder / "out")], folder / "said.txt") == (0, "")
    stages = json.loads((folder / "said.json").read_text())
    lasts = {text: then - at for (text, at), (_, then) in pairwise(stages)}
    return _Whole(request.param, words, folder / "out", lasts, folder / "trainings")


_SIGNS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PHASES = {
    "run": ("draft", "judge", "judge", "estimates", "report"),
    "training": ("draft", "judge", "training", "train", "draft", "judge", "training", "train", "report"),
    "audit": ("judge", "judge", "estimates", "estimates", "estimates", "report", "report", "report"),
}
_INTERRUPTED = "judgeloop: interrupted; all answers so far are recorded, run the same command to resume\n"


@pytest.mark.parametrize(
    ("sign", "trial"), [*((sign, 0) for sign in _SIGNS), *((signal.SIGKILL, n) for n in (1, 2, 3))]
)
def test_a_command_that_is_ended_at_any_moment_goes_on_where_it_was(
    tmp_path: Path, served: Served, uninterrupted: _Whole, sign: signal.Signals, trial: int
) -> None:
    """88 moments of SIGKILL and 22 of each other signal, less two a test at most that come after their phase."""
    command, before, trained = uninterrupted.name, served.asked.copy(), uninterrupted.trained
    words, stream = [*uninterrupted.words, str(tmp_path / "out")], random.Random(f"{command} {sign.name} {trial}")
    ended = Counter[str]()
    for phase in _PHASES[command]:
        most = 1 if phase.startswith("train") else 4  # there are two arms' in each of two generations
        counted, seconds = stream.randint(1, most), stream.uniform(0.02, 0.7) * uninterrupted.lasts.get(phase, 0.0)
        moment = _Moment(phase, counted if phase in (*_LINES, "training") else seconds, sign)
        code, said = _forked(words, tmp_path / "said.txt", moment)
        if code == 0:
            continue  # this time the phase was over sooner
        ended[phase] += 1
        if sign == signal.SIGKILL:
            assert code in (-signal.SIGKILL, -signal.SIGPROF)
        else:
            assert (code, said) == (130, _INTERRUPTED)
    assert ended.total() >= len(_PHASES[command]) - 2
    assert _forked(words, tmp_path / "said.txt") == (0, "")
    asked = served.asked - before
    exchanges = list(Cassette(uninterrupted.folder, writable=False).exchanges())
    trainings = [exchange.call for exchange in exchanges if "/train/" in exchange.call]
    assert set(asked) == {exchange.call for exchange in exchanges} - set(trainings)
    killed = ended if sign == signal.SIGKILL else Counter[str]()
    assert asked.total() - len(asked) <= _IN_FLIGHT * killed.total()
    # A signal lets the training end that runs, and it is recorded; SIGKILL loses one at most: no other is begun again.
    again = uninterrupted.trained - trained - len(trainings)
    assert killed["training"] <= again <= (killed.total() if trainings else 0)
    assert tables(tmp_path / "out") == tables(uninterrupted.folder)
    for name in ("estimates.csv", "report.json"):
        assert (tmp_path / "out" / name).read_bytes() == (uninterrupted.folder / name).read_bytes()
    assert (tmp_path / "out/report.html").is_file()


def test_a_second_ctrl_c_ends_a_command_at_once(tmp_path: Path) -> None:
    with serving() as serve:
        served = serve(faults=Faults(rules=(Rule(match="/ab/", kind="slow", delay_s=60.0),)))
        words = ["audit", str(audit_pairs.write(tmp_path / "pairs.jsonl", _PAIRS)), "--model", "planted"]
        words += ["--base-url", served.base_url, "--out", str(tmp_path / "out")]
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_command_line, args=(words, tmp_path / "said.txt", None))
        process.start()
        while not any("/ab/" in call for call in served.faults.attempts):
            time.sleep(0.02)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        while "ending: " not in (tmp_path / "said.txt").read_text():  # for what is in flight, for 20 s
            time.sleep(0.02)
            assert process.exitcode is None
        os.kill(process.pid, signal.SIGINT)
        process.join(15.0)
    said = (tmp_path / "said.txt").read_text()
    assert process.exitcode == 130
    assert re.search(r"ending: \d+ in flight .*; Ctrl-C ends at once, without them\n", said)
    assert said.endswith(_INTERRUPTED)


# Damaged recordings.

_Lines = list[bytes]


def _check_refusal(error: JudgeloopError, *words: str) -> None:
    """One sentence and an exit code of what is wrong with input or recording, with one of these words."""
    assert error.exit_code == (4 if isinstance(error, ReplayMiss) else 2)
    assert str(error)
    assert not words or any(word in str(error) for word in words)


def _sealed(line: bytes, **changes: Any) -> bytes:
    """The line with these fields changed, and a checksum of its own."""
    raw = json.loads(line)
    fields = {name: raw[name] for name in ("call", "key", "request", "status", "response", "attempts")}
    return Exchange(**{**fields, **changes}).line()


def _flipped(stream: random.Random, lines: _Lines) -> _Lines:
    content = bytearray(b"".join(lines))
    content[stream.randrange(len(content))] ^= 1 << stream.randrange(8)
    return [bytes(content)]


def _overwritten(stream: random.Random, lines: _Lines) -> _Lines:
    content = b"".join(lines)
    place, length = stream.randrange(len(content)), stream.randint(2, 600)
    return [content[:place], stream.randbytes(length), content[place + length :]]


def _cut(stream: random.Random, lines: _Lines) -> _Lines:
    content = b"".join(lines)
    return [content[: stream.randrange(len(content))]]


def _zeroed(stream: random.Random, lines: _Lines) -> _Lines:
    """As a power cut leaves a file whose size reached the disk before its bytes."""
    content = b"".join(lines)
    place = stream.randrange(len(content))
    return [content[:place], bytes(len(content) - place)]


def _dropped(stream: random.Random, lines: _Lines) -> _Lines:
    kept = list(lines)
    del kept[stream.randrange(len(kept))]
    return kept


def _doubled(stream: random.Random, lines: _Lines) -> _Lines:
    kept = list(lines)
    kept.insert(stream.randrange(len(kept)), stream.choice(lines))
    return kept


def _shuffled(stream: random.Random, lines: _Lines) -> _Lines:
    return stream.sample(lines, len(lines))


def _joined(stream: random.Random, lines: _Lines) -> _Lines:
    place = stream.randrange(len(lines) - 1)
    return [*lines[:place], lines[place].rstrip(b"\n"), *lines[place + 1 :]]


def _two(stream: random.Random, lines: _Lines, change: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> _Lines:
    """The lines with two of them changed by one another."""
    kept = list(lines)
    one, other = stream.sample(range(len(lines)), 2)
    kept[one], kept[other] = change(lines[one], lines[other])
    return kept


def _swapped_responses(stream: random.Random, lines: _Lines) -> _Lines:
    """With the checksums as they were: an answer that is sealed anew is a forgery, which nobody can see."""

    def change(one: bytes, other: bytes) -> tuple[bytes, bytes]:
        first, second = (
            json.dumps(json.loads(line)["response"], separators=(",", ":")).encode() for line in (one, other)
        )
        assert one.count(first) == other.count(second) == 1
        return one.replace(first, second), other.replace(second, first)

    return _two(stream, lines, change)


def _swapped(field: str) -> Callable[[random.Random, _Lines], _Lines]:
    def mutate(stream: random.Random, lines: _Lines) -> _Lines:
        def change(one: bytes, other: bytes) -> tuple[bytes, bytes]:
            values = [json.loads(line)[field] for line in (one, other)]
            return _sealed(one, **{field: values[1]}), _sealed(other, **{field: values[0]})

        return _two(stream, lines, change)

    return mutate


def _wrong_checksum(stream: random.Random, lines: _Lines) -> _Lines:
    kept = list(lines)
    place = stream.randrange(len(kept))
    kept[place] = kept[place][:-11] + b"%08x" % stream.getrandbits(32) + b'"}\n'
    return kept


def _foreign(stream: random.Random, lines: _Lines) -> _Lines:
    """An exchange of another audit: another text under an id that this one has too."""
    call = named(json.loads(stream.choice(lines))["call"], "another text")
    kept = list(lines)
    kept.insert(
        stream.randrange(len(kept)), Exchange(call.call_id, call.key, call.body, 200, {"choices": []}, 1).line()
    )
    return kept


_MUTATIONS = {
    function.__name__.removeprefix("_"): function
    for function in (_flipped, _overwritten, _cut, _zeroed, _dropped, _doubled, _shuffled, _joined, _swapped_responses, _wrong_checksum, _foreign)
} | {f"swapped_{field}": _swapped(field) for field in ("key", "call", "request")}  # fmt: skip
_HARMLESS_MUTATIONS = ("doubled", "shuffled", "foreign")


@pytest.mark.tables
@pytest.mark.parametrize("mutation", _MUTATIONS)
def test_a_damaged_recording_gives_the_same_tables_asks_again_or_is_refused(
    tmp_path: Path, mutation: str, whole: dict[str, tuple[dict[str, bytes], int]]
) -> None:
    expected, needed = whole["audit"]
    with serving(at_hand=True) as serve:
        served = serve()
        _audit(served, tmp_path, tmp_path / "recorded")
        parts = sorted((tmp_path / "recorded/calls").rglob("*.jsonl"), key=lambda path: path.stat().st_size)
        part = parts[-1].relative_to(tmp_path / "recorded")
        lines = (tmp_path / "recorded" / part).read_bytes().splitlines(keepends=True)
        for number in range(11):
            stream, folder = random.Random(f"{mutation} {number}"), tmp_path / f"{number}"
            shutil.copytree(tmp_path / "recorded/calls", folder / "calls")
            (folder / part).write_bytes(b"".join(_MUTATIONS[mutation](stream, list(lines))))
            replayed = number % 2 == 0  # otherwise the audit goes on in the folder itself
            out, asked = tmp_path / f"out{number}" if replayed else folder, served.asked.total()
            if not replayed:
                for name in ("experiment.yaml", "environment.json"):
                    shutil.copy(tmp_path / "recorded" / name, folder)
            try:
                _audit(served, tmp_path, out, **({"replay": folder} if replayed else {}))
            except JudgeloopError as error:
                _check_refusal(error, "restore", "record it anew")
                assert mutation not in _HARMLESS_MUTATIONS
                assert not list(out.glob("tables/judgments/*"))
                continue
            assert tables(out) == expected
            again = served.asked.total() - asked
            assert again == 0 if replayed or mutation in _HARMLESS_MUTATIONS else again <= needed


# Readers under noise: whatever comes, a value in its domain or an error of the project's own.

_PIECES = (
    "[[A]]", "[[B]]", "[[tie]]", "[[C]]", "[[H]]", "[[I]]", "[[", "]]", "[[[", "A", "B", "tie", "<think>", "</think>", "```json\n", "\n```",
    '{"verdict":', '{"score":', '{"choice":', '"A"', '"tie"', "}", "7", "10", "/10", "[[7]]", "[[10/10]]", "[[7/5]]", "[[11]]", "[[-1]]", "[[7.5]]",
    "NaN", "1e999", "9" * 5000, "\ud800", "\x00", " ", "\n", "**", "Ġ", "▁", "é", "[[٣]]", "[[²]]", "[[yes]]", "[[no]]", "\u2028", "[" * 50, "{" * 50,
)  # fmt: skip
_TOKENS = ("A", "B", " A", "▁B", "tie", "T", "C", "The", "1", "7", "10", "Ġ10", "**", "", "\ud800", "٣")
_SCALES = (Scale(1, 10), Scale(10, 1), Scale(1, 5), Scale(0, 100))
_LOGPROBS = (-0.1, -0.7, -3.0, -50.0, -800.0, 0.0, float("-inf"), -1e299)
_MODES: tuple[Mode, ...] = get_args(Mode)


def test_thirty_thousand_replies_are_read_within_their_domains() -> None:
    stream = random.Random("replies")
    for number in range(30_000):
        text = "".join(stream.choices(_PIECES, k=stream.randrange(9)))
        top = tuple((stream.choice(_TOKENS), stream.choice(_LOGPROBS)) for _ in range(stream.randrange(6)))
        finish = stream.choice(("stop", "length", "MAX_TOKENS", ""))
        reply = Reply(text if stream.random() < 0.95 else None, finish_reason=finish, top_logprobs=top)
        mode, floor, scale = _MODES[number % len(_MODES)], stream.choice((0.0, 0.05, 1.0)), stream.choice(_SCALES)
        verdict = read_verdict(reply, mode, ties := stream.random() < 0.5, floor)
        assert (verdict.slot == "unscored") == bool(verdict.reason)
        assert ties or verdict.slot != "tie" or verdict.p_first == 0.5
        assert verdict.p_first is None or 0 <= verdict.p_first <= 1
        choice = read_choice(reply, mode, slots := stream.randint(2, 8), floor)
        assert (choice.slot is None) == bool(choice.reason)
        assert choice.slot is None or 0 <= choice.slot < slots
        assert choice.shares is None or (len(choice.shares) == slots and abs(sum(choice.shares) - 1) < 1e-9)
        score = read_score(reply, mode, scale, floor)
        assert (score.value is None) == bool(score.reason)
        assert score.value is None or scale.low <= score.value <= scale.high
        assert all(end is None or 0 <= end <= 1 for end in (score.at_worst, score.at_best))
        match, reason = read_match(reply)
        assert (match is None) == bool(reason)


_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**400, 1.5, float("nan"), float("inf"), "", "x", "length", "\ud800", [], {}, [[]], [None], {"content": 1},
    [{"type": "text", "text": "[[A]]"}], [{"type": "thinking", "thinking": [{"text": "x"}]}], [{"token": "A", "logprob": -1}],
)  # fmt: skip


def _completion() -> dict[str, Any]:
    listed = [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -2.4}]
    logprobs = {"content": [{"token": "A", "logprob": -0.1, "bytes": [65], "top_logprobs": listed}]}
    message = {"role": "assistant", "content": "[[A]]", "refusal": None, "reasoning_content": None}
    return {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "fp",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }  # fmt: skip


_ENVELOPES: tuple[Callable[[], Any], ...] = (
    _completion, _completion,
    lambda: {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded", "param": None}},
    lambda: [{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}],
    lambda: {"model": "m", "data": [{"index": 0, "probs": [0.5], "data": [1.0], "score": 0.5, "embedding": [0.1, 0.2]}], "usage": {"total_tokens": 3}},
    lambda: {"model": "m", "results": [{"index": 0, "relevance_score": 0.5}]},
)  # fmt: skip


def _spoilt(stream: random.Random, body: Any) -> Any:
    """The JSON value with one to three of its parts replaced, left out or doubled."""
    for _ in range(stream.randint(1, 3)):
        node, parent, key = body, None, None
        while isinstance(node, dict | list) and node and (parent is None or stream.random() < 0.75):
            parent, key = node, stream.choice(list(node) if isinstance(node, dict) else range(len(node)))
            node = parent[key]
        if parent is None:
            return copy.deepcopy(stream.choice(_VALUES))
        if stream.random() < 0.2:
            del parent[key]
        elif stream.random() < 0.1 and isinstance(parent, list):
            parent.append(node)
        else:
            parent[key] = copy.deepcopy(stream.choice(_VALUES))
    return body


def _noisy(stream: random.Random, content: bytes) -> bytes:
    """The bytes with one to three of them flipped, or runs of them left out, doubled or made random."""
    for _ in range(stream.randint(1, 3)):
        place, length = stream.randrange(len(content) + 1), stream.choice((0, 1, 1, 2, 5, 40))
        rest = content[place + length :]
        part = stream.choice((b"", content[place : place + length] * 2, stream.randbytes(length), stream.choice((b"\0", b"\xff", b'"', b"\n", b"\r", b",", b"9" * 400, b"[" * 400, b"\xef\xbb\xbf"))))  # fmt: skip
        content = content[:place] + part + rest
    return content


def test_forty_thousand_answers_are_a_reply_or_a_named_failure() -> None:
    stream = random.Random("answers")
    statuses = (200, 200, 200, 200, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 302, 204)
    faults, refusals = set[str](), set[str]()
    for _ in range(40_000):
        text = json.dumps(_spoilt(stream, stream.choice(_ENVELOPES)()))
        if stream.random() < 0.4:
            text = _noisy(stream, text.encode()).decode("utf-8", "replace")
        status, route = stream.choice(statuses), stream.choice(ROUTES)
        try:
            body = parse(status, text, route)
        except TransientFault as fault:
            json.dumps(fault.response)
            faults.add(fault.fault)
            continue
        except Refusal as refusal:
            refusals.add(str(refusal))
            continue
        reply = read(status, body, "", route)
        assert repr(reply) == repr(read(status, json.loads(json.dumps(body)), "", route))
        assert (reply.text is None) == bool(reply.failure)
        assert min(reply.prompt_tokens, reply.completion_tokens) >= 0
        assert all(number is None or abs(number) < float("inf") for number in reply.numbers)
        "".join((reply.text or "", reply.reasoning, reply.refusal, reply.model, reply.detail)).encode()
    passing = {f"http_{status}" for status in (204, 408, 500, 503)}
    assert faults >= {"rate_limited", "not_json", "empty_choices", "null_content", "no_entry"} | passing
    assert all(re.fullmatch(r"[a-z_]+|http_\d{3}", fault) for fault in faults)
    assert all(refusals)


def test_four_thousand_noisy_answers_by_http_are_an_answer_or_a_fault() -> None:
    body = json.dumps(_completion()).encode()
    plain = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    parts = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 90]), body[at : at + 90]) for at in range(0, len(body), 90))
    pieces = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"
    stream = random.Random("http")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        content = _noisy(stream, stream.choice((plain, pieces)))
        place = stream.randrange(len(content) + 1)
        writer.write(content[:place])
        await asyncio.sleep(0)
        writer.write(content[place:])
        writer.close()

    async def ask_all() -> int:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        line, numbers, answers = LeanLine(f"http://127.0.0.1:{port}/v1", {}, {}, connect_s=10), iter(range(4000)), 0

        async def ask() -> None:
            nonlocal answers
            for number in numbers:
                try:
                    async with asyncio.timeout(30):
                        got = await line.send("POST", "/chat/completions", {"n": number}, f"c/{number}")
                except TransientFault:
                    continue
                assert 100 <= got.status <= 999
                assert all(name == name.lower() for name in got.headers)
                answers += 1

        await asyncio.gather(*(ask() for _ in range(16)))
        await line.close()
        server.close()
        return answers

    assert 400 < asyncio.run(ask_all()) < 3600


def test_twenty_thousand_noisy_event_streams_are_whole_or_not() -> None:
    stream, whole = random.Random("events"), 0
    for _ in range(20_000):
        completion = _completion()
        calls = [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        completion["choices"][0]["message"] |= {"tool_calls": calls} if stream.random() < 0.3 else {}
        try:
            content = b"".join(chunked(_spoilt(stream, completion) if stream.random() < 0.3 else completion, include_usage=True))  # fmt: skip
        except (TypeError, KeyError, AttributeError, IndexError, ValueError):
            continue  # no completion: nothing that a server would send
        assembler, content = Assembler(), _noisy(stream, content)
        cut = stream.randint(1, len(content))
        for start in range(0, len(content), cut):
            assembler.feed(content[start : start + cut])
        if assembler.complete:
            whole += 1
            json.dumps(assembler.completion())
    assert whole > 1000


_LOG = [
    {"item_id": "i1", "judge": "j", "order": order, "verdict": verdict, "prompt": "Say é", "text_a": "a, \"b\"", "text_b": "c\nd", "p_first": 0.5, "gold": "a"}
    for order, verdict in (("ab", "first"), ("ba", "second"), ("ab", "tie"), ("ba", "unscored"))
]  # fmt: skip
_OTHER_LOG = [{"question": "q", "answer_a": "x", "answer_b": "y", "winner": winner, "judge_model": "j", "swapped": swapped} for winner in ("A", "B", "tie") for swapped in (True, False)]  # fmt: skip


def test_three_thousand_noisy_logs_are_read_or_refused(tmp_path: Path) -> None:
    stream = random.Random("logs")
    samples = []
    for rows in (_LOG, _OTHER_LOG):
        frame = pd.DataFrame(rows)
        frame.to_parquet(tmp_path / "log.parquet")
        samples += [
            (".jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()),
            (".csv", frame.to_csv(index=False).encode()),
            (".parquet", (tmp_path / "log.parquet").read_bytes()),
        ]
    for _ in range(3_000):
        ending, content = stream.choice(samples)
        path = tmp_path / f"log{ending}"
        path.write_bytes(_noisy(stream, content))
        try:
            rows = [row for _, row in inputs.rows(path, "verdicts")]
            guess(rows)
            log = read_log(path)
        except JudgeloopError as error:
            _check_refusal(error)
            continue
        assert set(log.judgments["verdict"]) <= {"first", "second", "a", "b", "tie", "unscored"}
        assert log.judgments["p_first"].dropna().between(0, 1).all() if "p_first" in log.judgments else True


def test_three_thousand_spoilt_experiments_are_resolved_or_refused(tmp_path: Path) -> None:
    stream, path = random.Random("experiments"), tmp_path / "experiment.yaml"
    sample = small_experiment("http://127.0.0.1:1/v1")
    content = yaml.safe_dump(sample, sort_keys=False).encode()
    for number in range(3_000):
        try:
            if number % 3:
                resolved = resolve.resolve(_spoilt(stream, copy.deepcopy(sample)), tmp_path)
            else:
                path.write_bytes(_noisy(stream, content))
                resolved = resolve.load(path)
        except JudgeloopError as error:
            _check_refusal(error)
            continue
        assert all(isinstance(endpoint, Endpoint) for endpoint in resolved.experiment.endpoints.values())
