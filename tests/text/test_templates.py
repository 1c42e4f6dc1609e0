"""Templates: what ships is sound and balanced; what a user writes wrong is named."""

from __future__ import annotations

import hashlib
import math
import re
from itertools import combinations
from pathlib import Path

import pytest

from judgeloop.errors import ExperimentError
from judgeloop.text import templates

PROMPTS = Path(__file__).parents[2] / "prompts"
KINDS: dict[str, templates.Kind] = {
    "chain_of_thought": "judge",
    "draft": "draft",
    "few_shot": "judge",
    "listwise": "choice",
    "model_padding": "edit",
    "model_paraphrase": "edit",
    "pairwise": "judge",
    "pairwise_ties": "judge",
    "pointwise": "score",
    "pointwise_rubric": "score",
    "reference_match": "match",
    "reward": "reward",
    "rubric": "judge",
    "rubric_scores": "judge",
}
JUDGE = """
kind: judge
messages:
  - {role: user, content: "{{ prompt }} {{ answer_a }} {{answer_b}} {{ instruction }}"}
verdict: {text: "Say [[A]] or [[B]]."}
"""


def test_shipped_names_are_the_files() -> None:
    assert templates.shipped() == tuple(KINDS) == tuple(sorted(path.stem for path in PROMPTS.glob("*.yaml")))


@pytest.mark.parametrize("name", KINDS)
def test_shipped_templates_load(name: str) -> None:
    template = templates.load(name, kind=KINDS[name])
    text = (PROMPTS / f"{name}.yaml").read_bytes()
    assert template.sha256 == "sha256:" + hashlib.sha256(text).hexdigest()
    assert template.description
    assert template.ties == (name == "pairwise_ties")
    assert template.reasons == (name in ("chain_of_thought", "rubric_scores"))
    expected = {"match": ("text",), "draft": (), "edit": (), "reward": ()}.get(KINDS[name], templates.MODES)
    assert template.modes == (expected[1:] if template.reasons else expected)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind == "judge"])
def test_shipped_judges_use_the_fixed_tags_and_offer_their_labels(name: str) -> None:
    template = templates.load(name)
    last = template.messages[-1].content
    for tag, variable in (("question", "prompt"), ("answer_a", "answer_a"), ("answer_b", "answer_b")):
        assert f"<{tag}>\n{{{{ {variable} }}}}\n</{tag}>" in last
        assert last.count(f"<{tag}>") == 1
    assert last.index("answer_a") < last.index("answer_b") < last.index("{{ instruction }}")
    for label in template.labels:
        assert f"[[{label}]]" in template.instructions["text"]
        assert f'"{label}"' in template.instructions["json"]
    assert ("[[tie]]" in template.instructions["text"]) == template.ties


def test_few_shot_examples_are_balanced() -> None:
    """Slot, length and format of the better answer: half and half each, and no two of them go together."""
    template = templates.load("few_shot")
    examples = list(zip(template.messages[1:-1:2], template.messages[2::2], strict=True))
    rows, log_ratios = [], []
    for question, verdict in examples:
        found = re.findall(r"<answer_([ab])>\n(.*?)\n</answer_\1>", question.content, re.DOTALL)
        texts = dict(found)
        slot = {"{{ verdict_a }}": "a", "{{ verdict_b }}": "b"}[verdict.content]
        better, worse = texts[slot], texts["b" if slot == "a" else "a"]
        formatted = tuple("**" in text and "- " in text for text in (better, worse))
        assert sorted(formatted) == [False, True]
        log_ratios.append(math.log2(len(better) / len(worse)))
        rows.append((slot == "a", len(better) > len(worse), formatted[0]))
    for column in range(3):
        assert sum(row[column] for row in rows) == len(rows) / 2
    for one, other in combinations(range(3), 2):
        assert len({(row[one], row[other]) for row in rows}) == 4
    assert abs(sum(log_ratios)) < 0.5


def test_render_replaces_in_one_pass() -> None:
    template = templates.parse(JUDGE, "mine", "mine.yaml", "judge")
    values = {
        "prompt": "{{ answer_b }}",
        "answer_a": "{{ instruction }}",
        "answer_b": r"\1 {{prompt}}",
        "instruction": "x",
    }
    [message] = templates.render(template, values)
    assert message == {"role": "user", "content": r"{{ answer_b }} {{ instruction }} \1 {{prompt}} x"}


def test_a_file_is_found_beside_the_experiment_and_a_shipped_name_wins(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(JUDGE, encoding="utf-8")
    (tmp_path / "pairwise").write_text("not a template", encoding="utf-8")
    assert templates.load("mine.yaml", tmp_path).name == "mine"
    assert templates.load(str(tmp_path / "mine.yaml"), "elsewhere").modes == ("text",)
    assert templates.load("pairwise", tmp_path).modes == ("logprob", "json", "text")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("kind: judge", "kind: jugde"), "kind: must be one of judge, score, choice, draft"),
        (("kind: judge", "kind: draft"), "this is a draft template where a judge template is needed"),
        (("verdict:", "verdicts:"), "verdicts: unknown key; did you mean verdict?"),
        (("{{answer_b}}", ""), "variable {{ answer_b }} is missing"),
        (("{{answer_b}}", "{{answer_b}} {{ anwser_a }}"), "unknown variable {{ anwser_a }}; did you mean answer_a?"),
        (("{{answer_b}}", "{{answer_b}} {{ 1 + 1 }}"), "unknown variable {{ 1 + 1 }}"),
        (("role: user", "role: human"), "messages.0.role: must be system, user or assistant"),
        (("role: user", "role: assistant"), "the last one must be the user's"),
        (("role: user", "rolle: user"), "messages.0: a message has the keys role and content"),
        (("verdict: {text:", "verdict: {txt:"), "verdict.txt: unknown key; did you mean text?"),
        (('verdict: {text: "Say [[A]] or [[B]]."}', ""), "verdict: required"),
        (("Say [[A]]", "{{ prompt }}"), "verdict.text: an instruction has no variables"),
        (("kind: judge", "kind: judge\nties: 1"), "ties: must be true or false"),
        (
            ("verdict: {", "reasons: true\nverdict: {logprob: x, "),
            "a template that reasons first has no verdict in its first",
        ),
        (("messages:", "messages: ]"), "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(change: tuple[str, str], says: str) -> None:
    text = JUDGE.replace(*change)
    with pytest.raises(ExperimentError) as error:
        templates.parse(text, "mine", "mine.yaml", "judge")
    assert str(error.value).startswith("mine.yaml")
    assert says in str(error.value)


def test_no_such_template_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"'pairwis': no shipped template .* did you mean pairwise\?"):
        templates.load("pairwis", tmp_path)
    with pytest.raises(ExperimentError, match="no shipped template"):
        templates.load("", tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"kind: \xff")
    with pytest.raises(ExperimentError, match="cannot be read as UTF-8"):
        templates.load("latin.yaml", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "kind: draft\nmessages: [{role: user, content: '{{ prompt }}'}]\nverdict: {text: x}",
        "kind: draft\nmessages: [{role: assistant, content: hi}, {role: user, content: '{{ prompt }}'}]",
        "kind: draft\nmessages: [{role: system, content: '{{ prompt }}'}, {role: user, content: '{{ prompt }}'}]",
        "kind: draft\nties: true\nmessages: [{role: user, content: '{{ prompt }}'}]",
    ],
)
def test_draft_templates_are_a_system_message_and_a_prompt(text: str) -> None:
    with pytest.raises(ExperimentError):
        templates.parse(text, "mine", "mine.yaml", "draft")
