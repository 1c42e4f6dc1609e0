"""A reasoning model without a reasoning parser: its first token opens a thought, and the letters stand far down the tail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest

import judgeloop


class _ThinksFirst(BaseHTTPRequestHandler):
    """Prefers the text with BEST in it, whichever slot it is in."""

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        shown = json.dumps(body["messages"])
        letter, text, listed = "A" if shown.find("BEST") < shown.find("PLAIN") else "B", "", None
        if body.get("logprobs"):
            tops = [("<think>", -1e-6), ("Okay", -14.2), ("A", -18.1), ("\n", -18.9)]
            top = [{"token": token, "logprob": log, "bytes": None} for token, log in tops]
            text, listed = "<think>", {"content": [{**top[0], "top_logprobs": top}]}
        else:
            said = json.dumps({"verdict": letter}) if body.get("response_format") else f"[[{letter}]]"
            text = f"<think>Perhaps the other, no.</think>\n{said}"
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
            "logprobs": listed,
        }
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        data = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _ThinksFirst)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


PAIRS = pd.DataFrame(
    {
        "item_id": [f"q{n}" for n in range(6)],
        "prompt": "Which is best?",
        "text_a": [f"{'PLAIN' if n % 2 else 'BEST'} text" for n in range(6)],
        "text_b": [f"{'BEST' if n % 2 else 'PLAIN'} text" for n in range(6)],
    }
)


def test_auto_reads_what_the_model_says_after_its_thought(tmp_path: Path, base_url: str) -> None:
    audit = judgeloop.audit(PAIRS, model="m", base_url=base_url, out=tmp_path / "out", report=False)
    assert (audit.judgments["verdict"] != "unscored").all()
    slot = audit.estimates.query("term == 'first_slot_excess' and variant == ''").iloc[0]
    assert slot["estimate"] == 0.0


def test_a_stated_logprob_mode_counts_nothing_of_the_tail(tmp_path: Path, base_url: str) -> None:
    audit = judgeloop.audit(PAIRS, model="m", base_url=base_url, out=tmp_path / "out", verdict="logprob", report=False)
    assert set(audit.judgments["reason"]) == {"low_mass"}
    assert audit.judgments["label_mass"].max() < 1e-7
