"""Prompts as they stand in code: what they say is what the code would have sent, and what cannot be known is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from judgeloop.bodies import judge_body
from judgeloop.errors import ExperimentError
from judgeloop.experiment.schema import Endpoint
from judgeloop.text import templates
from judgeloop.text.pasted import pasted

VALUES = {"prompt": "Why {first}?", "answer_a": "One {{ second }}.", "answer_b": "Two {prompt}."}
CLOSING = "\n\n{{ instruction }}"


def sent(text: str, **more: str) -> list[tuple[str, str]]:
    """(role, content) of the messages with VALUES in place of the variables."""
    prompt = pasted(text, "mine.txt")
    template = templates.Template("mine", "judge", prompt.messages, prompt.ties, False, {}, "")
    return [(message["role"], message["content"]) for message in templates.render(template, {**VALUES, **more})]


def code_sends(content: str) -> list[tuple[str, str]]:
    return [("user", content)]


def refusal(text: str) -> str:
    """The error that a text is refused with; "" where it is taken."""
    try:
        pasted(text, "mine.txt")
    except ExperimentError as error:
        return str(error)
    return ""


words = st.text(st.sampled_from("ab \n{}\"'#$%<>|é"), max_size=12)


@given(st.lists(words, min_size=4, max_size=4))
@settings(max_examples=examples(100))
def test_a_format_string_is_filled_as_python_fills_it(parts: list[str]) -> None:
    doubled = [part.replace("{", "{{").replace("}", "}}") for part in parts]
    text = "{}{{question}}{}{{first}}{}{{second}}{} [[A]] [[B]]".format(*doubled)
    literal = "f" + repr(text).replace("\\n", " ")  # no backslash, which an f-string before Python 3.12 cannot hold
    values = {"question": VALUES["prompt"], "first": VALUES["answer_a"], "second": VALUES["answer_b"]}
    said = refusal(text)
    if said:  # what would be taken for variables, or logic
        assert any(
            words in said
            for words in ("{{ … }} as text", "holds {%", "variables are written in two ways", "nothing is known of it")
        )
        assert "{" in "".join(parts)
    else:
        assert sent(text) == code_sends(text.format(**values))
    if "\\" not in literal and not (said := refusal(f"PROMPT = {literal}")):
        assert sent(f"PROMPT = {literal}\n") == code_sends(eval(literal, values))
    else:
        assert "{{ … }} as text" in said or "\\" in literal


@given(st.lists(words.map(lambda part: part.replace("{", "(").replace("}", ")")), min_size=4, max_size=4))
@settings(max_examples=examples(100))
def test_a_jinja_text_is_filled_as_jinja_fills_it(parts: list[str]) -> None:
    text = '{}{{{{ item.prompt }}}}{}{{{{response_1}}}}{}{{{{ response_2 }}}}{} {{"a": 1}}'.format(*parts)
    values: dict[str, Any] = {
        "item": {"prompt": VALUES["prompt"]},
        "response_1": VALUES["answer_a"],
        "response_2": VALUES["answer_b"],
    }
    rendered = jinja2.Environment(autoescape=False, keep_trailing_newline=True).from_string(text).render(values)
    assert sent(text, instruction="!") == code_sends(f"{rendered}\n\n!")


@pytest.mark.parametrize(
    "text",
    [
        "{prompt}|{first}|{second}",
        "{question}|{answer_a}|{answer_b}",
        "{instruction}|{output_1}|{output_2}",
        "{user_prompt}|{response_0}|{response_1}",
        "{row.query}|{row['answerA']}|{row['answerB']}",
        "{{ input }}|{{ left_text }}|{{ right_text }}",
        "{{prompt}}|{{- first -}}|{{second}}",
        'P = (f"{prompt}|"\n     f"{first}|{second}")',
        'JUDGE_PROMPT: str = """{prompt}|{first}|{second}"""',
        'MESSAGES = [{"role": "user", "content": f"{q.prompt}|{a}|{b}"}]',
        '[{"role": "user", "content": "{prompt}|{first}|{second}"}]',
    ],
)
def test_names_say_what_stands_where(text: str) -> None:
    prompt = pasted(text, "mine.txt")
    assert [(one.role, one.content) for one in prompt.messages] == code_sends(
        "{{ prompt }}|{{ answer_a }}|{{ answer_b }}" + CLOSING
    )
    assert not prompt.asks


def test_a_prompt_that_asks_itself_is_sent_as_it_is() -> None:
    ends = "{prompt} {first} {second} End with [[A]], [[B]]"
    for text, ties in ((ends, False), (f"{ends} or [[ tie ]].", True)):
        prompt = pasted(text, "mine.txt")
        assert (prompt.asks, prompt.ties) == (True, ties)
        assert "instruction" not in prompt.messages[0].content
    placed = pasted("{prompt} {first} {verdict} {second}", "mine.txt")
    assert placed.messages[0].content == "{{ prompt }} {{ answer_a }} {{ instruction }} {{ answer_b }}"


def test_messages_keep_their_roles() -> None:
    text = """
MESSAGES = [
    {"role": "system", "content": "Be fair.\\n"},
    {"role": "user", "content": "Q: 1+1 A: 2 B: 3"},
    {"role": "assistant", "content": "[[A]]"},
    {"role": "user", "content": f"Q: {prompt} A: {answer['a']} B: {answer['b']} [[A]] or [[B]]?"},
]
"""
    assert [role for role, _ in sent(text)] == ["system", "user", "assistant", "user"]
    assert sent(text)[0] == ("system", "Be fair.\n")
    assert sent(text)[-1][1] == f"Q: {VALUES['prompt']} A: {VALUES['answer_a']} B: {VALUES['answer_b']} [[A]] or [[B]]?"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{first} {second}", "{prompt} is missing"),
        ("{prompt} {first}", "{first}: nothing is known of it"),
        ("{prompt} {answer}", "{answer}: nothing is known of it"),
        ("{prompt} {second} then {first}", "the second answer stands before the first"),
        ("{prompt} {answer_b} {answer_a}", "the second answer stands before the first"),
        ("{prompt} {first} {second} {rubric}", "{rubric}: nothing is known of it"),
        ("{prompt} {first} {second} {a} {b}", "nothing is known of it"),
        ("{prompt} {answer_0} {answer_1} {answer_2}", "nothing is known of it"),
        ("{prompt} {question} {first} {second}", "{prompt} and {question} both mean the prompt"),
        ("{{ prompt }} {first} {second}", "variables are written in two ways"),
        ("{{ prompt }} {{ first | trim }} {{ second }}", "no filter is run"),
        ("{% if x %}{{ prompt }}{% endif %} {{ first }} {{ second }}", "no logic is run"),
        ("{prompt} {first} {second} [[A]], [[B]] or [[C]]", "[[c]]: no verdict that is read"),
        ("{prompt} {first} {second} [[1]] or [[2]]", "[[1]]: no verdict that is read"),
        ("{prompt} {first} {second} [[A]]", "asks for [[a]] alone"),
        ("{prompt} {first} {second} [[A]] [[B]] {verdict}", "keep one of them"),
        ('P = f"{prompt.strip()} {first} {second}"', "only names are filled in"),
        ('P = f"{prompt!r} {first} {second}"', "only names are filled in"),
        ('P = "{prompt} {first} {second}"\nQ = 1', "Python code; give one string"),
        ('P = "{prompt}".format(prompt=1)', "Python code; give one string"),
        ('[{"role": "user", "content": ["x"]}]', "message 1: must be role and content"),
        ('[{"role": "tool", "content": "{prompt} {first} {second}"}]', "the role must be system, user or assistant"),
        ('[{"role": "user", "content": "{prompt} {first} {second}"}, {"role": "assistant", "content": "A"}]', "the last message must be the user's"),
        ('P = [{"role": "user", "content": 1}]', "a message must be {role: …, content: …}"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_refused(text: str, says: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        pasted(text, "mine.txt")
    assert str(caught.value).startswith("mine.txt: ")
    assert says in str(caught.value)


def test_a_shipped_prompt_as_a_text_is_asked_as_the_template_is(tmp_path: Path) -> None:
    shipped = templates.load("pairwise")
    content = shipped.messages[0].content.removesuffix(CLOSING)
    for ending, text in (
        ("txt", content.replace("{{ ", "{").replace(" }}", "}")),
        ("j2", content),
        ("md", content.replace("{{ prompt }}", "{question}").replace("{{ answer_a }}", "{first}").replace("{{ answer_b }}", "{second}")),
    ):  # fmt: skip
        (tmp_path / f"mine.{ending}").write_text(f"{text}\n", encoding="utf-8")
        mine = templates.load(f"mine.{ending}", tmp_path)
        assert mine.modes == shipped.modes
        assert (mine.name, mine.ties) == ("mine", False)
        for mode in shipped.modes:
            texts = {"prompt": "Why?", "first_text": "One.", "second_text": "Two."}
            endpoint = Endpoint(base_url="http://127.0.0.1:1/v1", model="m")
            assert judge_body(endpoint, mine, mode, **texts) == judge_body(endpoint, shipped, mode, **texts)


def test_a_template_is_one_whatever_its_ending_and_other_kinds_need_one(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(templates.source("rubric"), encoding="utf-8")
    assert templates.load("mine.txt", tmp_path).messages == templates.load("rubric").messages
    (tmp_path / "plain.yaml").write_text("{prompt} {first} {second}", encoding="utf-8")
    with pytest.raises(ExperimentError, match="not valid YAML"):
        templates.load("plain.yaml", tmp_path)
    (tmp_path / "plain.txt").write_text("{prompt} {answer}", encoding="utf-8")
    with pytest.raises(ExperimentError, match="no template of kind score"):
        templates.load("plain.txt", tmp_path, "score")
    with pytest.raises(ExperimentError, match="did you mean rubric"):
        templates.source("rubrik")
