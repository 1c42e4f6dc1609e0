"""Endpoints that once led a first hour astray, each played by its small server (tests/cases), with the right value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

import judgeloop
from judgeloop.errors import EndpointFailed

CASES = Path(__file__).parents[1] / "cases"


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # of more connections at once than wait here, the rest are tried again after a second


@pytest.fixture
def play() -> Iterator[Callable[..., str]]:
    """``play(case, (words, others), …)`` starts the case's server, some words of it replaced; its base URL."""
    with ExitStack() as running:

        def start(case: str, *replaced: tuple[str, str]) -> str:
            source = (CASES / case / "serve.py").read_text()
            for words, others in replaced:
                assert words in source
                source = source.replace(words, others)
            module: dict[str, Any] = {"__name__": case}
            exec(compile(source.rpartition("\nThreadingHTTPServer(")[0], case, "exec"), module)
            server = Server(("127.0.0.1", 0), module["Handler"])
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            running.callback(server.server_close)
            running.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}/v1"

        yield start


def audit(case: str, base_url: str, out: Path, **options: Any) -> judgeloop.Audit:
    pairs = CASES / case / "pairs.jsonl"
    return judgeloop.audit(pairs, model="m", base_url=base_url, out=out, **{"verdict": "auto", **options})


def by_content(done: judgeloop.Audit) -> bool:
    """Whether all 12 verdicts are for the better text, whichever slot it is in."""
    slots = [tuple(rows.sort_values("order")["verdict"]) for _, rows in done.judgments.groupby("pair_id")]
    return slots == [("second", "first"), ("first", "second")] * 3


def run(base_url: str, out: Path, **changes: Any) -> judgeloop.Run:
    """A run of the case with a drafter that thinks."""
    experiment = yaml.safe_load((CASES / "drafts_empty" / "experiment.yaml").read_text())
    experiment["endpoints"]["m"]["base_url"] = base_url
    experiment["items"] = str(CASES / "drafts_empty" / "items.jsonl")
    return judgeloop.run({**experiment, **changes}, out=out)


# -- drafts without text ----------------------------------------------------------------------------------------------


@pytest.mark.tables
def test_drafts_without_text_are_counted_and_do_not_compete(tmp_path: Path, play: Callable[..., str]) -> None:
    done = run(play("drafts_empty"), tmp_path / "run", replicates=2)
    drafts = done.candidates
    failed = drafts[drafts["reason"] != ""]
    assert set(failed["reason"]) == {"truncated"}
    assert failed["text"].isna().all()
    assert (drafts.loc[drafts["reason"] == "", "text"].str.strip() != "").all()
    assert (failed["n_drawn"] == 0).all()
    shown = {
        *zip(drafts["item_id"][drafts["reason"] == ""], drafts["candidate_id"][drafts["reason"] == ""], strict=True)
    }
    judged = done.judgments
    for slot in ("candidate_first", "candidate_second"):
        assert {*zip(judged["item_id"], judged[slot], strict=True)} <= shown
    # Generation 0 is shared by two arms: 2 replicates × 4 items × 2 drafts × (1 + 2 arms).
    alike = failed.assign(arm=failed["arm"].where(failed["generation"] > 0, ""))
    lost = len(alike.drop_duplicates(["replicate", "arm", "item_id", "candidate_id"]))
    assert 0.25 < lost / 48 < 0.75
    words = " ".join(done.summary().split())
    assert f"drafts 48 · drafts without text {lost} ({100 * lost / 48:.1f} %: truncated {lost})" in words
    assert f"{lost} of 48 drafts have no text and do not compete" in words, words


@pytest.mark.parametrize("policy", [{"kind": "exemplar", "endpoint": "m", "exemplars": 1}, {"kind": "pool", "endpoint": "m", "pool_size": 3}])  # fmt: skip
def test_a_drafter_that_writes_nothing_ends_the_run(tmp_path: Path, play: Callable[..., str], policy: dict[str, Any]) -> None:  # fmt: skip
    url = play("drafts_empty", ("% 2 == 1", "% 2 < 2"))
    with pytest.raises(EndpointFailed, match=r"endpoints\.m: none of \d+ drafts of generation 0 has a text \(truncated \d+\); raise policy\.max_tokens, which is 50"):  # fmt: skip
        run(url, tmp_path / "run", policy=policy)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.tables
def test_a_trial_that_is_refused_shows_the_server_s_sentence_and_the_setting(tmp_path: Path, play: Callable[..., str]) -> None:  # fmt: skip
    url = play("auto_hides_the_400")
    with pytest.raises(EndpointFailed) as failed:
        audit("auto_hides_the_400", url, tmp_path / "out")
    assert "it says “max_tokens is no parameter of this model; send max_completion_tokens”" in str(failed.value)
    assert str(failed.value).count("is no parameter") == 1
    assert "set max_tokens_field: max_completion_tokens (audit: --max-tokens-field max_completion_tokens)" in str(failed.value)  # fmt: skip
    mended = audit("auto_hides_the_400", url, tmp_path / "out", max_tokens_field="max_completion_tokens")
    assert (mended.judgments["verdict"] != "unscored").all()
    # Fewer than twenty that fail end no audit: the summary has the sentence, and the setting.
    words = " ".join(audit("auto_hides_the_400", url, tmp_path / "few", verdict="text").summary().split())
    assert (
        "bad_request 12 max_tokens is no parameter of this model; send max_completion_tokens; set max_tokens_field:"
        in words
    )
    with pytest.raises(EndpointFailed, match=r"20 calls in a row .* bad_request: max_tokens is no .*; set max_tokens_field: max_completion_tokens"):  # fmt: skip
        audit("auto_hides_the_400", url, tmp_path / "text", verdict="text", repeats=4)


@pytest.mark.tables
def test_a_403_for_log_probabilities_fails_that_trial_alone(tmp_path: Path, play: Callable[..., str]) -> None:
    done = audit("logprobs_403", play("logprobs_403"), tmp_path / "out")
    assert by_content(done)


@pytest.mark.tables
def test_a_403_for_one_item_is_its_failure_and_twenty_end_the_run(tmp_path: Path, play: Callable[..., str]) -> None:
    words = ('if body.get("logprobs"):', 'if "text 3" in json.dumps(body):')
    done = audit("logprobs_403", play("logprobs_403", words), tmp_path / "out", verdict="json")
    unscored = done.judgments[done.judgments["verdict"] == "unscored"]
    assert unscored["item_id"].tolist() == ["q3", "q3"]
    assert set(unscored["reason"]) == {"refused_by_endpoint"}
    assert "refused_by_endpoint 2 This model may not be asked for logprobs" in " ".join(done.summary().split())
    url = play("logprobs_403", ('if body.get("logprobs"):', "if True:"))
    with pytest.raises(EndpointFailed, match=r"20 calls in a row failed, the last with refused_by_endpoint: This model may not"):  # fmt: skip
        audit("logprobs_403", url, tmp_path / "all", verdict="json", repeats=2)


# -- thoughts ---------------------------------------------------------------------------------------------------------


@pytest.mark.tables
def test_auto_reads_what_a_model_says_after_its_thought(tmp_path: Path, play: Callable[..., str]) -> None:
    url = play("logprob_thought_first")
    done = audit("logprob_thought_first", url, tmp_path / "out")
    assert by_content(done)
    stated = audit("logprob_thought_first", url, tmp_path / "stated", verdict="logprob")
    assert set(stated.judgments["reason"]) == {"low_mass"}
    assert stated.judgments["label_mass"].max() < 1e-7
