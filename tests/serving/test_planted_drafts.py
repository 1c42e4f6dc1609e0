"""Planted drafts: their length, marks and quality are what the spec says."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop.records import Item
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import DraftSpec, PlantedSpec
from judgeloop.text.features import STYLE_FEATURES, measure, tokenize
from judgeloop.text.matching import correct


def drafts(spec: PlantedSpec, number: int, messages: list[dict[str, str]] | None = None) -> list[str]:
    answerer = PlantedAnswerer(spec)
    body = {"model": "planted", "messages": messages or [{"role": "user", "content": "Tell me."}], "seed": 1}

    async def all_of_them() -> list[str]:
        answers = [await answerer.answer(body, f"s0/g0/draft/{n}") for n in range(number)]
        return [answer.body["choices"][0]["message"]["content"] for answer in answers]

    return asyncio.run(all_of_them())


def test_drafts_have_the_planned_length() -> None:
    spec = PlantedSpec(draft=DraftSpec(length_mean=60, length_sd=0.4, markdown=0.3))
    lengths = [measure(text).length for text in drafts(spec, 400)]
    mean = sum(lengths) / 400
    sd = math.sqrt(sum((x - mean) ** 2 for x in lengths) / 399)
    assert mean == pytest.approx(math.log2(60), abs=4 * 0.4 / 20 + 0.005)
    assert sd == pytest.approx(0.4, abs=4 * 0.4 / math.sqrt(800))
    fixed = PlantedSpec(draft=DraftSpec(length_mean=37, length_sd=0))
    assert {len(tokenize(text)) for text in drafts(fixed, 20)} == {37}


@given(tokens=st.integers(1, 200), markdown=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_draft_has_exactly_its_tokens(tokens: int, markdown: float, seed: int) -> None:
    spec = PlantedSpec(seed=seed, draft=DraftSpec(length_mean=tokens, length_sd=0, markdown=markdown))
    (text,) = drafts(spec, 1)
    assert len(tokenize(text)) == tokens


def test_drafts_follow_their_exemplars() -> None:
    exemplars = [" ".join(["word"] * tokens) for tokens in (128, 512)]
    messages = [{"role": "user", "content": "Tell me."}]
    for text in exemplars:
        messages = [{"role": "user", "content": "Before"}, {"role": "assistant", "content": text}, *messages]
    for follow, log2_tokens in ((0.0, 5.0), (0.5, 6.5), (1.0, 8.0)):
        spec = PlantedSpec(draft=DraftSpec(length_mean=32, length_sd=0, follow=follow))
        assert measure(drafts(spec, 1, messages)[0]).length == pytest.approx(log2_tokens, abs=0.02)
        assert measure(drafts(spec, 1)[0]).length == 5.0


def test_markdown_is_what_the_spec_says() -> None:
    plain = drafts(PlantedSpec(draft=DraftSpec(length_mean=300, length_sd=0)), 5)
    rich = drafts(PlantedSpec(draft=DraftSpec(length_mean=300, length_sd=0, markdown=0.6)), 5)
    style = ("headings", "bold", "list_items")
    assert all(getattr(measure(text), name) == 0 for text in plain for name in STYLE_FEATURES)
    assert all(sum(getattr(measure(text), name) for text in rich) > 0 for name in style)


def test_a_drafts_marked_quality_can_be_read_back() -> None:
    draft = DraftSpec(length_mean=80, quality_mean=1.0, quality_sd=0.5)
    spec = PlantedSpec(quality=1.0, quality_marker="[q=", draft=draft)
    values = [float(text.split("[q=")[1].split("]")[0]) for text in drafts(spec, 300)]
    mean = sum(values) / 300
    assert mean == pytest.approx(1.0, abs=4 * 0.5 / math.sqrt(300))
    assert len(set(values)) > 200


def test_drafts_are_right_with_the_stated_chance_whatever_they_look_like() -> None:
    def made(chance: float, prompt: str = "Capital of France?") -> list[str]:
        draft = DraftSpec(length_mean=60, length_sd=0.5, markdown=0.3, correct=chance)
        spec = PlantedSpec(references={"Capital of France?": "Paris", "of France?": "Lyon"}, draft=draft)
        return drafts(spec, 400, [{"role": "user", "content": prompt}])

    texts = made(0.3)
    right = [correct(Item("france", "", "", "Paris", "contains"), text) for text in texts]
    assert sum(map(bool, right)) / 400 == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 400))
    assert [len(tokenize(text)) for text in texts] == [len(tokenize(text)) for text in made(0.9)]
    assert all("Paris" in text for text in made(1.0))
    assert not any("The answer is" in text for text in made(1.0, "Capital of Peru?") + made(0.0))


def test_drafts_are_named_by_seed_call_and_body_seed() -> None:
    def draft(spec_seed: int = 0, call_id: str | None = "c", **more: Any) -> str:
        body = {"model": "planted", "messages": [{"role": "user", "content": "Tell me."}], **more}
        answer = asyncio.run(PlantedAnswerer(PlantedSpec(seed=spec_seed)).answer(body, call_id))
        return str(answer.body["choices"][0]["message"]["content"])

    assert draft() == draft()
    assert draft(call_id=None) == draft(call_id=None)
    assert (
        len({draft(), draft(1), draft(call_id="d"), draft(seed=7), draft(call_id=None), draft(call_id=None, seed=7)})
        == 6
    )
