"""The page is self-contained, accessible in structure, and no text of a run becomes markup in it."""

from __future__ import annotations

import ast
import base64
import html
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

import report_folder
from hostile_texts import GROUPS, HOSTILE, hostile_run
from judgeloop import report
from judgeloop.report import page
from judgeloop.report.reading import read

pytestmark = pytest.mark.pages

_TAGS = {
    "html", "head", "meta", "title", "style", "body", "a", "header", "div", "p", "h1", "h2", "h3", "h4", "dl", "dt", "dd", "nav", "ul", "li", "main",
    "noscript", "section", "article", "b", "details", "summary", "figure", "figcaption", "table", "caption", "thead", "tbody", "tr", "th", "td", "span",
    "pre", "footer", "script", "button", "label", "input", "select", "option", "output", "h5", "code", "svg", "path", "text",
}  # fmt: skip
_ATTRIBUTES = {
    "lang", "charset", "name", "content", "http-equiv", "class", "href", "id", "aria-label", "aria-labelledby", "aria-hidden", "role", "tabindex", "scope",
    "download", "style", "dir", "type", "hidden", "aria-live", "value", "autocomplete", "spellcheck", "data-kind", "data-arm", "data-category",
    "viewbox", "d", "x", "y", "text-anchor",
}  # fmt: skip
_VOID = {"meta", "input"}


class _Audit(HTMLParser):
    """What the page is made of: tags, attributes, nesting, headings, scripts, links."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: dict[str, int] = {}
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.open: list[str] = []
        self.unlabelled: list[str] = []
        self.comments = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        values = dict(attrs)
        self.attributes |= set(values)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if values.get("role") == "img" and not values.get("aria-label"):
            self.unlabelled.append(tag)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        self.comments += 1


def _audit(text: str) -> _Audit:
    audit = _Audit()
    audit.feed(text)
    audit.close()
    assert audit.open == []
    return audit


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report.html(report_folder.write(tmp_path_factory.mktemp("runs") / "demo"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    parent = tmp_path_factory.mktemp("hostile")
    return [report.write(hostile_run(parent / f"h{n:02d}", bad)).html for n, bad in enumerate(GROUPS)]


def test_the_page_is_self_contained_and_small(text: str) -> None:
    assert len(text.encode()) <= 6_000_000
    audit = _audit(text)
    assert all(link.startswith(("#", "data:text/csv")) for link in audit.links)
    assert not set(audit.tags) & {"link", "img", "iframe", "object", "embed"}
    packed = re.search(r'id="plotly">([A-Za-z0-9+/=]+)</script>', text)
    assert packed is not None
    source = zlib.decompress(base64.b64decode(packed.group(1))).decode()
    assert "plotly.js v" in source[:200]
    # The policy names the hash of exactly what is unpacked.
    assert html.escape(page.hash_of(source)) in text
    assert "default-src &#x27;none&#x27;" in text


def test_the_page_has_the_structure_that_readers_navigate_by(text: str) -> None:
    audit = _audit(text)
    assert {"header", "nav", "main", "footer"} <= set(audit.tags)
    assert audit.tags["h1"] == 1
    assert all(later <= earlier + 1 for earlier, later in zip(audit.headings, audit.headings[1:], strict=False))
    assert audit.tags["caption"] == audit.tags["table"]
    assert audit.tags["figcaption"] == audit.tags["figure"] >= 10
    assert audit.unlabelled == []
    assert len(audit.ids) == len(set(audit.ids))
    assert all(link[1:] in audit.ids for link in audit.links if link.startswith("#"))


def test_hostile_texts_stay_texts(hostile: list[Path]) -> None:
    assert len(HOSTILE) >= 30
    for path, bad in zip(hostile, GROUPS, strict=True):
        content = path.read_text(encoding="utf-8")
        audit = _audit(content)
        assert set(audit.tags) <= _TAGS, bad
        assert audit.attributes <= _ATTRIBUTES, bad
        assert audit.tags["script"] == 3, bad
        assert audit.tags["svg"] == content.count('class="picture"') > 0, bad
        assert audit.comments == 0, bad
        assert all(content.count(page.text(one)) >= 2 for one in bad), bad
        assert all(link.startswith(("#", "data:text/csv")) for link in audit.links), bad
        assert not re.search("[\x00\u202a-\u202e\u2066-\u2069]", content), bad
        markdown = path.with_name("report.md").read_text(encoding="utf-8")
        assert "<script" not in markdown.replace("\\<script", ""), bad


def test_a_text_is_shown_in_full_meaning() -> None:
    assert html.unescape(page.text("<b>&amp;\x00\u202e")) == "<b>&amp;␀⟦U+202E⟧"


def test_json_cannot_leave_its_script() -> None:
    dumped = page._json({"x": "</script><!--\u2028\u2029&"})
    assert not set(dumped) & set("<>&\u2028\u2029")
    with pytest.raises(ValueError, match=r"[Oo]ut of range|not JSON compliant"):
        page._json({"x": float("nan")})


def test_a_megabyte_of_text_is_folded_and_capped(tmp_path: Path) -> None:
    folder = report_folder.write(tmp_path / "big")
    table = folder.table("candidates")
    last = table.index[table["generation"].eq(3) & table["arm"].eq("judge")][0]
    table.loc[last, "text"] = "<&>" * 350_000
    table.loc[last, "length"] = 20.0
    table.loc[last, "n_drawn"] = 99  # the output of median length
    folder.write_part("candidates", "all", table)
    content = report.html(folder)
    assert len(content.encode()) <= 6_000_000
    assert "1,046,000 more characters are left out here" in content
    assert read(folder).candidates["text"].str.len().max() == 1_050_000


# -- where HTML is written -------------------------------------------------------------------------------------------------

ROOM = Path(report.__file__).parent
_ELEMENT = re.compile(
    r"</?(?:a|article|b|body|br|button|caption|code|dd|details|div|dl|dt|em|figcaption|figure|footer|h[1-6]|head|header|html|i|iframe"
    r"|img|input|label|li|link|main|meta|nav|ol|option|output|p|pre|script|section|select|small|span|strong|style|sub|summary|sup|svg"
    r"|table|tbody|td|th|thead|title|tr|ul)(?=[\s/>]|$)"
)
# Plotly's texts know a few tags of their own. They travel in the page's JSON and are drawn by Plotly, from names that
# ``figure.safe`` has escaped.
_PLOTLY = {"figure.py": {"<br>", "<b>", "</b>"}}


def _strings(source: str) -> list[str]:
    """The string constants of a module that are no docstrings."""
    tree = ast.parse(source)
    kept = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in kept
    ]  # fmt: skip


def test_html_is_written_in_templates_alone() -> None:
    strays = [
        f"{path.name}: {text[:60]}"
        for path in sorted(ROOM.glob("*.py"))
        for text in _strings(path.read_text(encoding="utf-8"))
        if _ELEMENT.search(text) and text not in _PLOTLY.get(path.name, ())
    ]
    assert strays == []
    assert _ELEMENT.search(_strings("said = f'<li>{word}</li>'")[0])


def test_text_is_declared_to_be_html_in_one_place_alone() -> None:
    assert [path.name for path in sorted(ROOM.glob("*.py")) if "Markup(" in path.read_text(encoding="utf-8")] == [
        "page.py"
    ]
    for path in sorted((ROOM / "templates").glob("*.html")):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|xmlattr|urlize|tojson|<\w+[^>]*=\s*{{", source), path.name
    assert page.environment().autoescape is True


def test_an_inlined_file_cannot_leave_its_element() -> None:
    for name in ("page.css", "page.js", "live.js"):
        assert not re.search(r"</|<!--|]]>", page.file(name)), name


def test_every_value_of_a_template_is_escaped_by_the_one_door() -> None:
    made = page.environment()
    for bad in HOSTILE:
        shown = made.from_string(
            '<p title="{{ x }}">{{ x }}{% for y in [x] %}{{ y | label(400) }}{% endfor %}</p>'
        ).render(x=bad)
        audit = _audit(shown)
        assert (audit.tags, audit.attributes) == ({"p": 1}, {"title"})
        assert shown.startswith(f'<p title="{page.text(bad)}">{page.text(bad)}')


def test_a_table_to_download_holds_no_formula() -> None:
    download = page.csv_download(pd.DataFrame({"judge": ["=HYPERLINK(1)"], "estimate": [0.5]}), "t.csv", "Table")
    assert download is not None
    assert unquote(download.address.split(",", 1)[1]) == "judge,estimate\n'=HYPERLINK(1),0.5\n"
