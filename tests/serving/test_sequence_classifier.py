"""The engine ``transformers``: a sequence classifier as reward model, next to the library's own forward pass.

The models are tiny, made here with random weights: what is checked is that a text's score is the model's own number.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import judgeloop
from conftest import small_experiment, without
from judgeloop.errors import EndpointFailed, ExperimentError, InvalidInput
from judgeloop.experiment.resolve import resolve
from judgeloop.experiment.schema import Endpoint
from judgeloop.judging.controls import logistic
from judgeloop.serving import engines
from judgeloop.text import templates
from judgeloop.text.templates import render

INSTALLED = all(importlib.util.find_spec(package) for package in ("torch", "transformers"))
needs_torch = pytest.mark.skipif(not INSTALLED, reason="torch and transformers (extra train) are not installed")
# The libraries' own warnings of what they will drop are theirs.
quiet = [needs_torch, pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]  # fmt: skip
WORDS = "go to bed at the same time every night keep room dark and cool how do i sleep better [CLS] [SEP] [PAD] [UNK] Human Assistant : ? ."
PAIRS = [
    {"item_id": f"q{n}", "prompt": "How do I sleep better ?", "text_a": "keep the room dark and cool . " * (n + 1), "text_b": "go to bed at the same time"}
    for n in range(6)
]  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} [SEP] {% endfor %}"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with a classifier and its tokenizer, as ``save_pretrained`` writes them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast, set_seed

    def build(labels: int = 1, *, head: bool = True, chat: bool = False) -> Path:
        set_seed(7)
        folder = tmp_path_factory.mktemp("model") / "tiny-reward"
        words = {word: place for place, word in enumerate(dict.fromkeys(WORDS.split()))}
        inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
        if chat:
            tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folder)
        config = BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=96, num_labels=labels, initializer_range=1.0, hidden_dropout_prob=0.0,
        )  # fmt: skip
        (BertForSequenceClassification if head else BertModel)(config).save_pretrained(folder)
        return folder

    return build


def own_score(folder: Path, *texts: str, label: int = 0, plain: bool = True) -> float:
    """The library's number, by its plainest use."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return float(model(**tokenizer(*texts, return_tensors="pt", add_special_tokens=plain)).logits[0, label])


def audited(folder: Path, out: Path, reward: str = "classify", **more: Any) -> judgeloop.Audit:
    import pandas as pd

    return judgeloop.audit(
        pd.DataFrame(PAIRS), engine="transformers", model=str(folder), reward=reward, out=out,
        endpoint={"threads": 1}, **more,
    )  # fmt: skip


def shares(audit: judgeloop.Audit) -> dict[str, float]:
    """Pair → P(text_a)."""
    rows = audit.judgments
    return rows[rows["order"] == "ab"].set_index("pair_id")["p_first"].to_dict()


class TestScores:
    pytestmark = quiet

    def test_by_a_template_a_text_gets_the_librarys_own_number(self, make: Callable[..., Path], tmp_path: Path) -> None:
        folder = make()
        audit = audited(folder, tmp_path / "a", prompt="reward")

        def score(text: str) -> float:
            template = templates.load("reward", ".", "reward")
            return own_score(folder, render(template, {"prompt": PAIRS[0]["prompt"], "answer": text})[0]["content"])

        expected = {pair["item_id"]: logistic(score(pair["text_a"]) - score(pair["text_b"])) for pair in PAIRS}
        assert shares(audit) == pytest.approx(expected, abs=1e-5)
        assert len({round(value, 4) for value in expected.values()}) > 3
        rows = audit.judgments
        assert set(rows["reason"].fillna("")) == {""}
        position = audit.estimates.query("term == 'first_slot_excess'").iloc[0]
        assert position["status"] == "undefined"
        assert "by construction" in position["note"]

    def test_a_conversation_is_written_by_the_models_chat_template(
        self, make: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder = make(chat=True)
        audit = audited(folder, tmp_path / "a")

        def score(text: str) -> float:
            prompt = PAIRS[0]["prompt"]
            return own_score(folder, f"user : {prompt} [SEP] assistant : {text} [SEP] ", plain=False)

        expected = {pair["item_id"]: logistic(score(pair["text_a"]) - score(pair["text_b"])) for pair in PAIRS}
        assert shares(audit) == pytest.approx(expected, abs=1e-5)

    def test_a_cross_encoder_is_given_prompt_and_text_apart(self, make: Callable[..., Path], tmp_path: Path) -> None:
        folder = make()
        audit = audited(folder, tmp_path / "a", "score")
        prompt = PAIRS[0]["prompt"]
        expected = {
            pair["item_id"]: logistic(
                own_score(folder, prompt, pair["text_a"]) - own_score(folder, prompt, pair["text_b"])
            )
            for pair in PAIRS
        }
        assert shares(audit) == pytest.approx(expected, abs=1e-5)

    def test_one_of_several_labels(self, make: Callable[..., Path], tmp_path: Path) -> None:
        folder = make(3, chat=True)
        with pytest.raises(EndpointFailed, match="several_scores"):
            audited(folder, tmp_path / "a")
        audit = audited(folder, tmp_path / "b", "classify,label=2,score=probability")
        assert audit.judgments["p_first"].between(0, 1).all()
        raw = audited(folder, tmp_path / "c", "pooling,label=2")
        recording = json.loads(next((tmp_path / "c" / "calls").rglob("*.jsonl")).read_text().splitlines()[-1])
        assert len(recording["response"]["data"][0]["data"]) == 3
        assert shares(raw) != shares(audit)

    def test_a_recorded_audit_needs_no_model(self, make: Callable[..., Path], tmp_path: Path) -> None:
        folder = make(chat=True)
        first = audited(folder, tmp_path / "a")
        shutil.rmtree(folder)
        again = audited(folder, tmp_path / "b", replay=tmp_path / "a")
        assert shares(again) == shares(first)

    def test_a_text_that_is_too_long_is_unscored_and_never_cut(self, make: Callable[..., Path], tmp_path: Path) -> None:
        folder = make(chat=True)
        import pandas as pd

        rows = [*PAIRS, {"item_id": "long", "prompt": "How ?", "text_a": "go " * 200, "text_b": "go to bed"}]
        audit = judgeloop.audit(
            pd.DataFrame(rows), engine="transformers", model=str(folder), reward="classify", out=tmp_path / "a"
        )
        lost = audit.judgments[audit.judgments["verdict"] == "unscored"]
        assert set(lost["pair_id"]) == {"long"}
        assert set(lost["reason"]) == {"context_length"}

    def test_a_model_without_a_trained_head_is_refused(self, make: Callable[..., Path], tmp_path: Path) -> None:
        with pytest.raises(EndpointFailed, match=r"holds no trained .*would be random"):
            audited(make(head=False, chat=True), tmp_path / "a")

    def test_what_is_no_model_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        (tmp_path / "empty").mkdir()
        with pytest.raises(EndpointFailed, match=r"empty' has no configuration that can be loaded"):
            audited(tmp_path / "empty", tmp_path / "a")

    def test_without_a_chat_template_the_trial_says_what_to_give(
        self, make: Callable[..., Path], tmp_path: Path
    ) -> None:
        with pytest.raises(EndpointFailed, match="no chat template"):
            audited(make(), tmp_path / "a")


def test_a_missing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")
    endpoint = Endpoint(engine="transformers", model="some/model")
    with pytest.raises(ExperimentError, match=r'endpoints\.rm: .*torch; run: pip install "judgeloop\[train\]"'):
        engines.check({"rm": endpoint})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "transformers"}, "--engine transformers: .*--reward classify"),
        ({"engine": "llama_cpp", "reward": "classify"}, "--reward: engine llama_cpp"),
        ({"engine": "transformers", "reward": "classify", "base_url": "http://127.0.0.1:1/v1"}, "leave --base-url out"),
        ({}, "--base-url: say where"),
        ({"engine": "onnx"}, "--engine: "),
        ({"engine": "transformers", "reward": "classify", "batch": True}, "leave --batch and --collect out"),
    ],
)
def test_an_engine_does_what_it_is_asked_for_or_the_audit_does_not_begin(options: dict[str, Any], message: str, tmp_path: Path) -> None:  # fmt: skip
    import pandas as pd

    with pytest.raises(InvalidInput, match=message):
        judgeloop.audit(pd.DataFrame(PAIRS), model="m", out=tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("kind", "used", "message"),
    [
        ("llama_cpp", "reward", "judge.endpoint: engine llama_cpp of 'e' scores no texts"),
        ("transformers", "model", "judge.endpoint: engine transformers of 'e' scores texts and writes none"),
        ("transformers", "policy", "policy.endpoint: engine transformers of 'e' scores texts"),
    ],
)
def test_an_experiments_engines_are_checked_where_they_are_used(kind: str, used: str, message: str) -> None:
    raw = small_experiment("http://127.0.0.1:1/v1")
    raw["endpoints"]["e"] = {"engine": kind, "model": "m"}
    if used == "policy":
        raw["policy"] = {**raw["policy"], "endpoint": "e"}
    else:
        raw["judge"] = {"kind": used, "endpoint": "e"}
    with pytest.raises(ExperimentError, match=message):
        resolve(raw)
