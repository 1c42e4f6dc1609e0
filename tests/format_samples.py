"""Small logs of our own making in other tools' formats: what fixtures/formats holds.

``python tests/format_samples.py`` writes them anew. The texts are ours; a planted judge takes the first slot more often
than not, and the longer answer; graders give C to the longer answer more often. Every tool's way of saying a tie, an
unreadable reply and a failed call occurs.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import random
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa

FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
THINGS = (
    "kettle", "lighthouse", "compass", "glacier", "violin", "thermometer", "hedgehog", "canal", "magnet", "windmill",
    "volcano", "telescope", "beehive", "anchor", "candle", "bicycle", "mirror", "harbour", "orchard", "raincoat", "clock",
    "bridge", "garden", "lantern",
)  # fmt: skip
_MORE = " It has been in use for a very long time, in many places and in many forms, and people still like it."
_DATE = "2026-05-04T10-11-12.345678"


def question(thing: str) -> str:
    return f"What is a {thing}? Answer in a sentence or two."


def short(thing: str) -> str:
    return f"A {thing} is a thing that most people have seen."


def longer(thing: str) -> str:
    return short(thing) + _MORE


def texts(thing: str, place: int) -> tuple[str, str]:
    """The model's and the reference's answer: now one is longer, now the other."""
    return (longer(thing), short(thing)) if place % 3 else (short(thing), longer(thing))


def picks_first(place: int, order: int, first: str, second: str) -> float:
    """The planted judge's probability of the first slot."""
    logit = 0.8 + 0.9 * math.log2(len(first) / len(second)) + random.Random(f"noise{place}/{order}").gauss(0, 0.8)
    return 1 / (1 + math.exp(-logit))


def dump(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records).encode()


def alpaca_eval() -> bytes:
    """weighted_alpaca_eval_gpt4_turbo: preferences from log-probabilities of m and M, turned back."""
    records = []
    for place, thing in enumerate(THINGS):
        model, reference = texts(thing, place)
        switched = random.Random(f"is_switched_outputs{question(thing)}0").choices([False, True], k=1)[0]
        first, second = (model, reference) if switched else (reference, model)
        p_m = round(picks_first(place, 0, first, second), 6)
        raw = 2 - p_m
        record = {
            "instruction": question(thing), "output_1": reference, "generator_1": "reference-model", "dataset": "own",
            "output_2": model, "generator_2": "model-x", "annotator": "weighted_alpaca_eval_gpt4_turbo",
            "preference": round(3 - raw if switched else raw, 10), "price_per_example": 0.001, "time_per_example": 0.1,
            "raw_completion": {
                "finish_reason": "length", "index": 0,
                "logprobs": {"content": [{"token": "m" if p_m > 0.5 else "M", "bytes": [109], "logprob": -0.1, "top_logprobs": [
                    {"token": "m", "bytes": [109], "logprob": math.log(p_m)},
                    {"token": "M", "bytes": [77], "logprob": math.log(1 - p_m)},
                    {"token": "The", "bytes": [84, 104, 101], "logprob": -9.5},
                ]}]},
                "message": {"content": "m" if p_m > 0.5 else "M", "role": "assistant"},
                "text": "m" if p_m > 0.5 else "M", "total_tokens": 300.0,
            },
        }  # fmt: skip
        records.append(record)
    records[5] |= {"preference": None, "raw_completion": None}
    records[6] |= {"output_2": records[6]["output_1"], "preference": 1.5, "raw_completion": None}
    # The raw completion is not kept everywhere: here the seeded draw alone tells the order.
    records[7]["raw_completion"] = None
    return json.dumps(records, indent=2).encode()


def mt_bench() -> bytes:
    """gpt-4_pair.jsonl: both games a line, first turns and two second turns."""
    records = []
    for place, thing in enumerate(THINGS):
        one, other = texts(thing, place)
        turn = 2 if place in (3, 4) else 1
        games = {}
        for game, (first, second) in enumerate(((one, other), (other, one)), start=1):
            p = picks_first(place, game, first, second)
            slot = "tie" if abs(p - 0.5) < 0.08 else "A" if p > 0.5 else "B"
            models = {"A": "model_1", "B": "model_2"} if game == 1 else {"A": "model_2", "B": "model_1"}
            games |= {f"g{game}_winner": models.get(slot, slot)}
            games |= {
                f"g{game}_user_prompt": _mt_prompt(thing, first, second, turn),
                f"g{game}_judgment": f"Both answer. [[{'C' if slot == 'tie' else slot}]]",
            }
        records.append({
            "question_id": 81 + place, "model_1": "model-x", "model_2": "model-y", "g1_winner": games["g1_winner"],
            "g2_winner": games["g2_winner"], "judge": ["gpt-4", "pair-v2" if turn == 1 else "pair-v2-multi-turn"], **games,
            "turn": turn, "tstamp": 1700000000.5 + place,
        })  # fmt: skip
    records[7] |= {"g2_winner": "error", "g2_judgment": "I cannot say which is better."}
    records[8] |= {"g1_winner": "error", "g1_judgment": "$ERROR$"}
    return dump(records)


def _mt_prompt(thing: str, first: str, second: str, turn: int) -> str:
    if turn == 1:
        return (
            f"[User Question]\n{question(thing)}\n\n[The Start of Assistant A's Answer]\n{first}\n[The End of Assistant A's "
            f"Answer]\n\n[The Start of Assistant B's Answer]\n{second}\n[The End of Assistant B's Answer]"
        )
    sides = [
        f"<|The Start of Assistant {letter}'s Conversation with User|>\n\n### User:\n{question(thing)}\n\n### Assistant "
        f"{letter}:\n{short(thing)}\n\n### User:\nSay it in other words.\n\n### Assistant {letter}:\n{text}\n\n<|The End of "
        f"Assistant {letter}'s Conversation with User|>"
        for letter, text in (("A", first), ("B", second))
    ]
    return "\n\n\n".join(sides)


def arena_hard(version: int) -> bytes:
    """model_judgment/<judge>/<model>.jsonl of arena-hard-auto 0.1 and 2.0; the baseline stands first in game 1."""
    records = []
    for place, thing in enumerate(THINGS):
        model, baseline = texts(thing, place)
        games: list[Any] = []
        for game, (first, second) in enumerate(((baseline, model), (model, baseline)), start=1):
            p = picks_first(place, game, first, second)
            label = (
                "A=B"
                if abs(p - 0.5) < 0.06
                else "A>>B"
                if p > 0.8
                else "A>B"
                if p > 0.5
                else "B>A"
                if p > 0.2
                else "B>>A"
            )
            prompt = (
                f"<|User Prompt|>\n{question(thing)}\n\n<|The Start of Assistant A's Answer|>\n{first}\n<|The End of Assistant "
                f"A's Answer|>\n\n<|The Start of Assistant B's Answer|>\n{second}\n<|The End of Assistant B's Answer|>"
            )
            judgment = f"Assistant A and B both answer. [[{label}]]"
            if version == 1:
                games.append({"user_prompt": prompt, "judgment": f"\n{judgment}", "score": label})
            else:
                turns = [{"role": "system", "content": "Judge."}, {"role": "user", "content": prompt}]
                games.append({"score": label, "judgment": {"answer": judgment}, "prompt": turns})
        if version == 1:
            record = {"question_id": f"{place:032x}", "model": "model-x", "judge": "gpt-4-1106-preview", "games": games}
        else:
            record = {"uid": f"{place:016x}", "category": "hard_prompt", "judge": "gpt-4.1", "model": "model-x", "baseline": "model-b", "games": games}  # fmt: skip
        records.append(record)
    failed = records[2]["games"]
    failed[0]["score"] = None
    failed[0]["judgment"] = "It depends." if version == 1 else {"answer": "It depends."}
    if version == 2:
        records[3]["games"][1] = None
    else:
        records[3]["games"][1] |= {"score": None, "judgment": "[[A>B]] or rather [[B>A]]"}
    return dump(records)


def chatbot_arena() -> bytes:
    """train.csv of the Arena's votes, one-hot, with each side's turns as a JSON list; the fourth has two turns, of which one has
    no answer."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([
        "id", "model_a", "model_b", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie",
    ])  # fmt: skip
    for place, thing in enumerate(THINGS):
        one, other = texts(thing, place)
        p = picks_first(place, 1, one, other)
        won = [abs(p - 0.5) < 0.06, p >= 0.56, p <= 0.44]
        turns = [[question(thing)], [one], [other]]
        if place == 3:
            turns = [[*turns[0], "Say it in other words."], [*turns[1], None], [*turns[2], "No \ud83d."]]
        writer.writerow(
            [
                30192 + place,
                "model-x",
                "model-y",
                *map(json.dumps, turns),
                *(int(one) for one in (won[1], won[2], won[0])),
            ]
        )
    return sink.getvalue().encode()


def preferences() -> bytes:
    """UltraFeedback's binarized form: chosen and rejected as chat messages, with the scores that they were chosen by."""
    records = []
    for place, thing in enumerate(THINGS):
        sides = sorted(texts(thing, place), key=len, reverse=random.Random(f"chosen{place}").random() < 0.75)
        sides = [sides[0]] * 2 if place == 6 else sides
        asked = {"content": question(thing), "role": "user"}
        chosen, rejected = ([asked, {"content": text, "role": "assistant"}] for text in sides)
        records.append({
            "prompt": question(thing), "prompt_id": hashlib.sha256(question(thing).encode()).hexdigest(), "chosen": chosen,
            "rejected": rejected, "messages": chosen, "score_chosen": 8.0, "score_rejected": 8.0 if place in (6, 9) else 6.5,
        })  # fmt: skip
    return dump(records)


def inspect_eval(model: str, longer_first: bool, zstd: bool) -> bytes:
    """An .eval log: header.json and a member a sample, graded by a model, and by the rule `includes` as well."""
    samples = []
    for place, thing in enumerate(THINGS):
        one, other = texts(thing, place)
        text = one if longer_first else other
        good = random.Random(f"grade{place}/{model}").random() < (0.75 if len(text) > 80 else 0.45)
        grader = {"role": "assistant", "content": f"GRADE: {'C' if good else 'I'}", "model": "openai/grader-1"}
        value: Any = "C" if good else "I"
        graded = {
            "value": value, "answer": text, "explanation": grader["content"],
            "metadata": {"grading": [{"role": "user", "content": "Grade this."}, grader]},
        }  # fmt: skip
        if place == 4:
            graded |= {
                "value": math.nan,
                "reason": "grader_failed",
                "explanation": "Grade not found in model output: well",
            }
        right = random.Random(f"right{place}/{model}").random() < 0.6
        samples.append({
            "id": place + 1, "epoch": 1, "input": question(thing), "target": thing,
            "messages": [{"role": "user", "content": question(thing)}, {"role": "assistant", "content": text, "model": model}],
            "output": {"model": model, "choices": [{"message": {"role": "assistant", "content": text}, "stop_reason": "stop"}], "completion": text},
            "scores": {"model_graded_qa": graded, "includes": {"value": "C" if right else "I", "answer": text}},
            "metadata": {}, "store": {}, "events": [], "model_usage": {}, "attachments": {},
        })  # fmt: skip
    samples[9] |= {"scores": {}, "error": {"message": "timeout", "traceback": "", "traceback_ansi": ""}}
    header = {
        "version": 2, "status": "success",
        "eval": {
            "created": "2026-05-04T10:11:12+00:00", "task": "things", "task_id": "t", "run_id": "r", "eval_id": "e",
            "dataset": {"name": "things", "samples": len(samples)}, "model": model, "model_args": {}, "config": {},
            "model_roles": {"grader": {"model": "openai/grader-1", "config": {}, "args": {}}},
            "scorers": [{"name": "model_graded_qa"}, {"name": "includes"}], "packages": {"inspect_ai": "0.3.285"},
        },
        "plan": {"name": "plan", "steps": [], "config": {}}, "results": {"total_samples": len(samples)}, "stats": {},
    }  # fmt: skip
    members = {f"samples/{one['id']}_epoch_1.json": one for one in samples}
    return archive({"_journal/start.json": header, **members, "header.json": header}, zstd)


def archive(members: dict[str, Any], zstd: bool) -> bytes:
    """A zip archive of JSON members, deflated as Inspect wrote them, or in Zstandard frames as it does now."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in members.items():
            info = zipfile.ZipInfo(name, (2026, 5, 4, 10, 11, 12))
            content = json.dumps(value).encode()
            if not zstd:
                info.compress_type = zipfile.ZIP_DEFLATED
                file.writestr(info, content)
                continue
            # zipfile writes no Zstandard before Python 3.14: stored, and named what it is in both headers.
            half = len(content) // 2
            packed = b"".join(pa.compress(part, "zstd", asbytes=True) for part in (content[:half], content[half:]))
            start = sink.tell()
            file.writestr(info, packed)
            checksum = zlib.crc32(content)
            info.compress_type, info.CRC, info.file_size = 93, checksum, len(content)
            end = sink.tell()
            for offset, width, number in ((8, 2, 93), (14, 4, checksum), (22, 4, len(content))):
                sink.seek(start + offset)
                sink.write(number.to_bytes(width, "little"))
            sink.seek(end)
    return sink.getvalue()


def lm_eval(model: str, longer_first: bool) -> bytes:
    """samples_<task>_<date>.jsonl of a generate_until task with a rule's metric and a judge's."""
    records = []
    for place, thing in enumerate(THINGS):
        one, other = texts(thing, place)
        text = one if longer_first else other
        draw = random.Random(f"lm{place}/{model}")
        judged: float | None = float(draw.random() < (0.8 if len(text) > 80 else 0.4))
        judged = math.nan if place == 11 else judged
        records.append({
            "doc_id": place, "doc": {"question": question(thing), "answer": thing}, "target": thing,
            "arguments": {"gen_args_0": {"arg_0": question(thing), "arg_1": {"until": ["\n\n"], "do_sample": False}}},
            "resps": [[text]], "filtered_resps": [text], "filter": "none", "metrics": ["exact_match", "llm_judge"],
            "doc_hash": f"{place:064x}", "prompt_hash": f"{place + 100:064x}", "target_hash": f"{place + 200:064x}",
            "exact_match": float(draw.random() < 0.6), "llm_judge": judged,
        })  # fmt: skip
    return dump(records)


RECORDED = ("promptfoo", "openai_evals", "deepeval", "ragas")
"""Folders of fixtures/formats with what the tools themselves wrote (fixtures/README.md), and not this module."""


def samples() -> dict[str, bytes]:
    """Path in fixtures/formats → content."""
    return {
        "alpaca_eval/annotations.json": alpaca_eval(),
        "mt_bench/gpt-4_pair.jsonl": mt_bench(),
        "arena_hard_0.1/gpt-4-1106-preview/model-x.jsonl": arena_hard(1),
        "arena_hard_2.0/gpt-4.1/model-x.jsonl": arena_hard(2),
        "chatbot_arena/train.csv": chatbot_arena(),
        "preferences/train_prefs.jsonl": preferences(),
        "inspect/things_model-x.eval": inspect_eval("openai/model-x", True, zstd=False),
        "inspect/things_model-y.eval": inspect_eval("openai/model-y", False, zstd=True),
        f"lm_eval/own__model-x/samples_things_{_DATE}.jsonl": lm_eval("model-x", True),
        f"lm_eval/own__model-y/samples_things_{_DATE}.jsonl": lm_eval("model-y", False),
    }


def records(path: str) -> list[dict[str, Any]]:
    text = (FORMATS / path).read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(text) if path.endswith(".json") else [json.loads(line) for line in text.splitlines()]  # fmt: skip
    return found


if __name__ == "__main__":
    for name, content in samples().items():
        path = FORMATS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
