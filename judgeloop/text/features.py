"""The features of a text: counts that need no model and no network, deterministic, in time linear in the text's length.

Structure (headings, bold, list items, code) is read by a CommonMark parser, never by pattern. Hedges, transitions, em
dashes, exclamations and emoji are counted in the *prose*: the parsed text without code (fenced, indented, inline) and
without bare URLs. All but length, counts and opener are densities per 100 tokens, for a raw count is a proxy of length
(docs/method.md, "Features"). Hedges and transitions are words of a language (en, de, fr and es by the first part
of the tag; in others both are 0 and so enter no model); tokens, marks and structure are read alike in all.

Three CommonMark rules are off, since they are slow on hostile text and hide words: links and images are read as their
source text, HTML is text, and `[name]: url` is a paragraph.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd

FeatureName = Literal[
    "length", "headings", "bold", "list_items", "code_fences", "hedges", "emoji", "transitions", "em_dashes",
    "exclamations",
]  # fmt: skip
FEATURES: tuple[str, ...] = get_args(FeatureName)
"""The features that enter signals, in the order of docs/contract.md, "Terms"."""

STYLE_FEATURES = FEATURES[1:]
"""The features except length: `style_score` is the mean of these, standardised."""

HEDGES = (
    "may", "might", "could", "perhaps", "possibly", "probably", "maybe", "likely", "unlikely", "seem", "seems",
    "seemed", "seemingly", "appear", "appears", "apparently", "presumably", "supposedly", "potentially", "conceivably",
    "arguably", "generally", "usually", "typically", "often", "sometimes", "roughly", "approximately", "somewhat",
    "suggest", "suggests", "tend to", "tends to", "in general", "in most cases", "in some cases", "in many cases",
    "to some extent", "to some degree", "more or less", "it depends", "depending on", "as far as i know",
    "as far as i can tell", "i think", "i believe", "i guess", "i suppose", "i assume", "i would say", "i'd say",
    "in my opinion", "in my view", "i'm not sure", "i am not sure", "not certain", "not entirely clear",
    "it is possible", "it's possible", "there is a chance", "there's a chance", "for the most part",
)  # fmt: skip
"""Words and phrases that weaken a claim (after Hyland 1998, hedges, without the ambiguous "can", "about", "should")."""

TRANSITIONS = (
    "however", "moreover", "furthermore", "additionally", "in addition", "therefore", "thus", "hence", "consequently",
    "accordingly", "as a result", "as a consequence", "for this reason", "nevertheless", "nonetheless",
    "on the other hand", "on the one hand", "in contrast", "by contrast", "conversely", "instead", "alternatively",
    "similarly", "likewise", "in the same way", "for example", "for instance", "specifically", "in particular",
    "notably", "importantly", "in fact", "in other words", "that is to say", "that said", "that being said",
    "meanwhile", "subsequently", "firstly", "secondly", "thirdly", "lastly", "finally", "ultimately", "overall",
    "in conclusion", "to conclude", "in summary", "to summarize", "to summarise", "to sum up", "in short", "in brief",
    "all in all", "besides", "as such", "as mentioned",
)  # fmt: skip
"""Words and phrases that join sentences (discourse connectives), without the ambiguous "so", "then", "first", "next"."""

_HEDGES_OTHER_LANGUAGES = {
    "de": (
        "vielleicht", "möglicherweise", "wahrscheinlich", "vermutlich", "womöglich", "eventuell", "wohl", "scheint",
        "scheinen", "anscheinend", "scheinbar", "könnte", "könnten", "dürfte", "dürften", "mag", "mögen", "oft",
        "manchmal", "meist", "meistens", "üblicherweise", "gewöhnlich", "typischerweise", "ungefähr", "etwa", "einigermaßen",
        "im allgemeinen", "in der regel", "in den meisten fällen", "in manchen fällen", "mehr oder weniger", "je nachdem",
        "soweit ich weiß", "ich glaube", "ich denke", "ich vermute", "glaube ich", "denke ich", "meiner meinung nach",
        "meines erachtens", "ich bin nicht sicher", "es ist möglich", "tendenziell", "wie es scheint",
    ),
    "fr": (
        "peut-être", "probablement", "possiblement", "sans doute", "éventuellement", "apparemment", "semble", "semblent",
        "semble-t-il", "pourrait", "pourraient", "devrait", "devraient", "souvent", "parfois", "généralement",
        "habituellement", "typiquement", "environ", "approximativement", "plutôt", "en général", "en règle générale",
        "dans la plupart des cas", "dans certains cas", "dans une certaine mesure", "plus ou moins", "cela dépend",
        "à ma connaissance", "je crois", "je pense", "je suppose", "à mon avis", "selon moi", "je ne suis pas sûr",
        "je ne suis pas sûre", "il est possible", "il se peut", "il semble", "on dirait",
    ),
    "es": (
        "quizás", "quizá", "tal vez", "probablemente", "posiblemente", "a lo mejor", "acaso", "aparentemente", "parece",
        "parecen", "podría", "podrían", "puede que", "debería", "deberían", "a menudo", "a veces", "generalmente",
        "normalmente", "habitualmente", "típicamente", "aproximadamente", "más o menos", "en general", "por lo general",
        "en la mayoría de los casos", "en algunos casos", "en cierta medida", "hasta cierto punto", "depende", "que yo sepa",
        "creo que", "pienso que", "supongo que", "en mi opinión", "a mi juicio", "no estoy seguro", "no estoy segura",
        "es posible", "según parece",
    ),
}  # fmt: skip
_TRANSITIONS_OTHER_LANGUAGES = {
    "de": (
        "jedoch", "allerdings", "außerdem", "darüber hinaus", "zudem", "ferner", "deshalb", "daher", "folglich", "somit",
        "demnach", "infolgedessen", "aus diesem grund", "dennoch", "trotzdem", "nichtsdestotrotz", "einerseits",
        "andererseits", "im gegensatz dazu", "hingegen", "dagegen", "stattdessen", "ebenso", "gleichermaßen",
        "zum beispiel", "beispielsweise", "insbesondere", "vor allem", "mit anderen worten", "das heißt", "inzwischen",
        "anschließend", "erstens", "zweitens", "drittens", "schließlich", "letztlich", "insgesamt", "zusammenfassend",
        "kurz gesagt", "abschließend", "wie erwähnt",
    ),
    "fr": (
        "cependant", "toutefois", "néanmoins", "pourtant", "en outre", "de plus", "par ailleurs", "donc", "ainsi",
        "par conséquent", "en conséquence", "c'est pourquoi", "pour cette raison", "d'une part", "d'autre part",
        "en revanche", "au contraire", "à l'inverse", "de même", "par exemple", "notamment", "en particulier", "en effet",
        "en fait", "autrement dit", "c'est-à-dire", "ensuite", "premièrement", "deuxièmement", "troisièmement", "enfin",
        "finalement", "en conclusion", "pour conclure", "en résumé", "en bref", "dans l'ensemble", "cela dit",
    ),
    "es": (
        "sin embargo", "no obstante", "además", "asimismo", "por otra parte", "por otro lado", "por un lado", "por lo tanto",
        "por tanto", "por consiguiente", "en consecuencia", "así pues", "por esta razón", "por eso", "en cambio",
        "al contrario", "en contraste", "del mismo modo", "de igual modo", "por ejemplo", "en particular", "sobre todo",
        "de hecho", "en otras palabras", "es decir", "mientras tanto", "posteriormente", "en primer lugar",
        "en segundo lugar", "en tercer lugar", "por último", "finalmente", "en conclusión", "para concluir", "en resumen",
        "en suma", "dicho esto", "como se ha mencionado",
    ),
}  # fmt: skip

_LEXICAL_OPENERS = {
    "greeting": "hi|hello|hey|greetings|dear|welcome|good (?:morning|afternoon|evening|day)|thank you|thanks",
    "praise": r"(?:that's|that is|this is|what) an? (?:very |really )?(?:great|good|excellent|interesting|important|"
    r"fascinating|wonderful|lovely|fantastic) \w+|(?:great|good|excellent|interesting|wonderful|fantastic|nice) "
    r"(?:question|point|idea|choice|job|work)",
    "affirmation": "sure|certainly|of course|absolutely|definitely|yes|yeah|yep|ok|okay|alright|all right|right|"
    "got it|understood|indeed|no problem|exactly|correct|gladly|happy to|i'd be (?:happy|glad)|i would be (?:happy|glad)",
    "refusal": "sorry|i'm sorry|i am sorry|i apologi[sz]e|apologies|my apologies|unfortunately|i can't|i cannot|"
    "i'm unable|i am unable|i'm not able|i am not able|as an ai|as a language model|as a large language model",
    "negation": "no|not|never|nope|none|neither",
    "announcement": "here(?:'s| is| are|'re)?|below|the following|let's|let us|let me|in this (?:answer|response|guide|"
    "article|post)|this (?:answer|response|guide)",
    "restatement": "you(?:'re| are)? (?:ask(?:ed|ing)?|want|wanted|wish|mentioned|said|need to know)|your (?:question|"
    r"problem|request|task)|the (?:question|problem|task|prompt|user)|in this (?:question|problem|task|case)|given|"
    r"we(?:'re| are) (?:given|asked)|if i understand|so you|to (?:answer|solve|find|determine|calculate|compute|address|"
    "understand|figure out|write|create|explain)|regarding|when it comes to|as for",
    "pronoun_i": "i|i'm|i'd|i'll|i've|my|me|mine",
    "pronoun_you": "you|you're|you'd|you'll|you've|your|yours",
    "pronoun_we": "we|we're|we'd|we'll|we've|our|ours",
    "article": "the|a|an",
    "demonstrative": "this|that|these|those|it|it's|there|there's|that's",
    "question": "who|whom|whose|what|when|where|why|how|which|do|does|did|is|are|was|were|can|could|would|will|have|has",
    "connective": "|".join((*TRANSITIONS, "first", "and", "but", "so", "or", "because", "although", "while", "if")),
    "imperative": "add|ask|apply|avoid|be|begin|bring|buy|call|change|check|choose|click|combine|compare|consider|"
    "cook|create|cut|define|divide|do|don't|draw|eat|enter|explain|find|follow|get|give|go|heat|imagine|install|keep|"
    "learn|leave|look|make|mix|move|multiply|note|open|pay|pick|place|plan|practice|prepare|press|pull|put|read|"
    "remember|remove|replace|run|save|search|select|set|speak|start|stay|stop|subtract|take|talk|tell|think|try|turn|"
    "understand|use|visit|wait|walk|wash|watch|work|write",
    "number": r"\d[\d.,]*",
}

_STRAIGHT_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'"})
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
# Typed dashes count between words only: options such as --help and table rules are no em dashes.
_EM_DASH = re.compile(r"[—⸺⸻]+|(?<=[^\W\d_])(?: -{2,3} |-{2,3})(?=[^\W\d_])")
_PLACEHOLDER = "\ufffc"
"""The character for inline code and URLs in the prose, so that the words around them do not become neighbours."""
_LEADING_MARKS = re.compile(rf"(?:[^\w{_PLACEHOLDER}]|_)+")


_WORD = re.compile(r"\w+")


@functools.lru_cache(maxsize=64)
def _phrases(language: str) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """The hedges and the transitions of a language, each by its first word."""
    kinds = []
    for english, others in ((HEDGES, _HEDGES_OTHER_LANGUAGES), (TRANSITIONS, _TRANSITIONS_OTHER_LANGUAGES)):
        by_word: dict[str, list[str]] = {}
        for phrase in english if language == "en" else others.get(language, ()):
            by_word.setdefault(_WORD.findall(phrase)[0], []).append(phrase)
        kinds.append({word: tuple(phrases) for word, phrases in by_word.items()})
    return kinds[0], kinds[1]


def _occurrences(text: str, words: set[str], phrases: dict[str, tuple[str, ...]]) -> int:
    """How often a phrase stands in a text between other characters than a word's; of phrases that overlap the first counts, of those
    that begin together the longest. Only phrases whose first word is among the text's are looked for."""
    spans = []
    for word in phrases.keys() & words:
        for phrase in phrases[word]:
            start = text.find(phrase)
            while start >= 0:
                end = start + len(phrase)
                if not (_WORD.match(text, end) or (start and _WORD.match(text, start - 1))):
                    spans.append((start, -end))
                start = text.find(phrase, start + 1)
    count = last = 0
    for start, end in sorted(spans):
        if start >= last:
            count, last = count + 1, -end
    return count


_OPENER = [(name, re.compile(rf"(?:{pattern})(?!\w)")) for name, pattern in _LEXICAL_OPENERS.items()]


def _ranges(points: Iterable[int]) -> str:
    """The inside of a character class for sorted code points."""
    spans: list[list[int]] = []
    for point in points:
        if spans and point == spans[-1][1] + 1:
            spans[-1][1] = point
        else:
            spans.append([point, point])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in spans)


# Scripts that are written without spaces: Han, Hiragana, Thai, Lao, Myanmar, Khmer.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_SKIN_TONES = "\U0001f3fb-\U0001f3ff"


@functools.cache
def _token_pattern() -> re.Pattern[str]:
    # All marks and format characters are in these ranges.
    points = (*range(0x20000), *range(0xE0000, 0xE0200))
    extends = _ranges(p for p in points if p != 0x200B and unicodedata.category(chr(p)) in ("Mn", "Mc", "Me", "Cf"))
    letters = rf"[^\W_{_UNSPACED}]+(?:[{extends}]+[^\W_{_UNSPACED}]*)*"
    symbol, continued = rf"[^\s\x00-\x1f\x7f-\x9f\u200b{extends}]", rf"[^\w\s\x00-\x1f\x7f-\x9f\u200b{extends}]"
    return re.compile(
        rf"{letters}(?:(?:_+|['’]|(?<=\d)[.,](?=\d)){letters})*"
        rf"|[\U0001f1e6-\U0001f1ff]{{2}}"
        rf"|{symbol}[{extends}{_SKIN_TONES}]*(?:(?<=\u200d){continued}[{extends}{_SKIN_TONES}]*)*"
    )


# What the pattern above finds in ASCII text, found sooner.
_ASCII_TOKEN = re.compile(r"[A-Za-z0-9]+(?:(?:_+|'|(?<=\d)[.,](?=\d))[A-Za-z0-9]+)*|[^\s\x00-\x1f\x7f]")


def tokenize(text: str) -> list[str]:
    """The text's tokens, in order, as written: Unicode words and punctuation marks.

    A word is a run of letters and digits with their combining marks and invisible joiners; an apostrophe or underscores
    between letters, and a point or comma between digits, do not end it ("don't", "snake_case", "3.14" are one token);
    a hyphen does ("well-known" is three). Scripts without spaces (Han, Hiragana, Thai, Lao, Myanmar, Khmer) give a
    token a letter. Every other visible character is a token of its own, an emoji sequence or a flag is one, and white
    space, control characters and stray marks are none. This follows Unicode Annex 29 without its dictionaries; the
    tables are those of the running Python's unicodedata.
    """
    return (_ASCII_TOKEN if text.isascii() else _token_pattern()).findall(text)


_ASCII_LETTERS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ASCII_MARKS = bytes(set(range(0x21, 0x7F)) - set(_ASCII_LETTERS))
_LETTERS_ALONE = bytes(code if code in _ASCII_LETTERS else 0x20 for code in range(256))
_WORDS_ALONE = "".join(chr(code) if code in b"_" + _ASCII_LETTERS else " " for code in range(128))
_NO_MARK = bytes(sorted(set(range(256)) - set(_ASCII_MARKS)))
_ASCII_JOIN = re.compile(rb"_+|['.,]")


def _token_count(text: str) -> int:
    """``len(tokenize(text))``. In ASCII text: its runs of letters and digits and its marks, less what is joined to one token."""
    if not text.isascii():
        return len(tokenize(text))
    code = text.encode()
    count = len(code.translate(_LETTERS_ALONE).split()) + len(code.translate(None, _NO_MARK))
    for joined in _ASCII_JOIN.finditer(code):
        start, end = joined.span()
        before, after = code[max(0, start - 1) : start], code[end : end + 1]
        is_joined = bytes.isalnum if code[start] in b"_'" else bytes.isdigit
        if is_joined(before) and is_joined(after):
            count -= 1 + end - start
    return count


@functools.cache
def _emoji_pattern() -> re.Pattern[str]:
    """An emoji sequence (Unicode Technical Standard 51, ED-17), from the emoji package's table.

    A character that is shown as text by default (©, ™, ✔) needs U+FE0F, or a joined partner, to count. The package's
    own search is not used: its time grows with the square of the number of joiners.
    """
    textual, pictures = (_ranges(sorted(map(ord, kind))) for kind in _emoji_characters())
    tail = rf"(?:[{_SKIN_TONES}]|\ufe0f)?(?:[\U000e0020-\U000e007f]+)?"
    anything = rf"[{pictures}{textual}]{tail}"
    joined = rf"(?:\u200d{anything})"
    return re.compile(
        rf"[0-9#*]\ufe0f?\u20e3|[\U0001f1e6-\U0001f1ff]{{2}}"
        rf"|[{pictures}](?!\ufe0e){tail}{joined}*"
        rf"|[{textual}](?:(?:\ufe0f|[{_SKIN_TONES}]){joined}*|{joined}+)"
    )


@functools.cache
def _emoji_characters() -> tuple[frozenset[str], frozenset[str]]:
    """Characters shown as text by default, and those shown as pictures, from the emoji package's table."""
    import emoji  # here and below: loaded when the first text is measured

    single = [key for key in emoji.EMOJI_DATA if len(key) == 1]
    textual = frozenset(key for key in single if key + "\ufe0f" in emoji.EMOJI_DATA)
    shown = (key for key in single if emoji.EMOJI_DATA[key]["status"] < emoji.STATUS["minimally_qualified"])
    return textual, frozenset(shown)


@functools.cache
def _emoji_signs() -> frozenset[str]:
    """Characters of which every emoji sequence has one: a picture, a flag's letter, or what makes a picture of another character."""
    others = (0x200D, 0x20E3, 0xFE0F, *range(0x1F1E6, 0x1F200), *range(0x1F3FB, 0x1F400))
    return _emoji_characters()[1] | frozenset(map(chr, others))


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """One text's features. ``length`` is log2(max(tokens, 1)), in doublings; ``characters`` are code points;
    ``headings`` … ``exclamations`` are per 100 tokens (0 for a text without tokens); ``opener`` is empty, heading, list,
    code, quote or bold, else the first lexical class that matches, else other.
    """

    length: float
    tokens: int
    characters: int
    headings: float
    bold: float
    list_items: float
    code_fences: float
    hedges: float
    emoji: float
    transitions: float
    em_dashes: float
    exclamations: float
    opener: str


COLUMNS = tuple(field.name for field in dataclasses.fields(TextFeatures))
"""The columns of a feature frame."""


_BLOCK_OPENERS = {"Heading": "heading", "List": "list", "CodeBlock": "code", "BlockQuote": "quote"}
_ODD = re.compile("[\0\r\x0b\x0c\x85\u2028\u2029\ud800-\udfff]")
_PLAIN = {**dict.fromkeys(map(ord, "\x0b\x0c\x85\u2028\u2029"), " "), ord("\r"): "\n", 0: "\ufffd"}
_SURROGATE = re.compile("[\ud800-\udfff]")


# A text with neither is paragraphs alone, which need no parser.
_MARKED = re.compile(r"[`*_\\#>~=+&\t]")
_MARKED_LINE = re.compile(r"\n *(?:[0-9]+[.)]|-)|\n    ")
_BLANK_LINES = re.compile(r"\n(?: *\n)+")


def _source(body: str) -> str:
    """The text with line feeds as its line ends, spaces for separators that are none in Markdown, U+FFFD for NUL, and a private
    character for lone surrogates, which no parser of UTF-8 takes."""
    if not _ODD.search(body):
        return body
    return _SURROGATE.sub("\ue000", body.replace("\r\n", "\n").translate(_PLAIN))


def _parsed(body: str, opener: str, counts: dict[str, int]) -> tuple[str, list[str]]:
    """The opener, unless it is known, and the prose of each block of a Markdown text; its structure is added to ``counts``."""
    import pyromark  # loaded when the first text is measured

    blocks: list[str] = []
    written: list[str] = []
    depth, is_code, is_blank, begins_bold = 0, False, True, False
    # Links, images and HTML begin with these. Rare marks of the same class in their places leave them as their source text.
    unlinked = body.replace("[", "\u2e28").replace("<", "\u2e26")
    for event in cast("Iterator[str | dict[str, Any]]", pyromark.events(unlinked)):
        if isinstance(event, str) and event != "Rule":  # a line break
            written.append(" ")
            continue
        kind, value = ("End", event) if isinstance(event, str) else next(iter(event.items()))
        if kind == "Text":
            if not is_code:
                written.append(value)
                is_blank = is_blank and value.isspace()
        elif kind == "Code":
            written.append(_PLACEHOLDER)
            is_blank = False
        elif value == "Strong":  # nested strong spans count once
            if kind == "Start":
                begins_bold = begins_bold or is_blank
                counts["bold"] += depth == 0
            depth += 1 if kind == "Start" else -1
        elif value != "Emphasis":  # a block begins or ends
            if written:
                blocks.append(_prose("".join(written).replace("\u2e28", "[").replace("\u2e26", "<")))
                opener = opener or ("bold" if begins_bold else _lexical_opener(blocks[-1].lower()))
                written, is_blank, begins_bold = [], True, False
            is_code = False
            if kind == "Start":
                block, more = (value, None) if isinstance(value, str) else next(iter(value.items()))
                opener = opener or _BLOCK_OPENERS.get(block, "")
                is_code = block == "CodeBlock"
                counts["headings"] += block == "Heading"
                counts["list_items"] += block == "Item"
                counts["code_fences"] += is_code and more != "Indented"
    return opener, blocks


def _lexical_opener(prose: str) -> str:
    start = _LEADING_MARKS.match(prose)
    first = prose[start.end() :] if start else prose
    return next((name for name, pattern in _OPENER if pattern.match(first)), "other")


def _prose(written: str) -> str:
    """A block's words between single spaces, its URLs replaced, its apostrophes straight."""
    if "://" in written or "www." in written.lower():
        written = _URL.sub(_PLACEHOLDER, written)
    return " ".join((written if written.isascii() else written.translate(_STRAIGHT_APOSTROPHES)).split())


def _exclamations(prose: str) -> int:
    """The exclamation marks but for those of ``!=``, of an image's ``![`` and of a comment's ``<!``."""
    if "!" not in prose:
        return prose.count("！")
    none, both = ("<!", "![", "!="), ("<![", "<!=")
    return sum(map(prose.count, ("!", "！", *both))) - sum(map(prose.count, none))


def _marks_and_words(prose: str, language: str) -> dict[str, int]:
    """The counts that are taken in prose. Most texts have no mark of a kind, which a search for a character tells sooner than its pattern."""
    lower = prose.lower()
    words = set(lower.translate(_WORDS_ALONE).split() if lower.isascii() else _WORD.findall(lower))
    hedges, transitions = _phrases(language)
    return {
        "hedges": _occurrences(lower, words, hedges),
        "transitions": _occurrences(lower, words, transitions),
        "emoji": 0 if prose.isascii() or _emoji_signs().isdisjoint(prose) else len(_emoji_pattern().findall(prose)),
        "em_dashes": len(_EM_DASH.findall(prose)) if any(mark in prose for mark in ("--", "—", "⸺", "⸻")) else 0,
        "exclamations": _exclamations(prose),
    }


def measure(text: str, language: str = "en") -> TextFeatures:
    """The features of a text in a language (a tag such as en or de-AT). Never raises on any string, lone surrogates and control characters included.

    Trailing white space changes ``characters`` alone. Time is linear in the text, a few seconds a million characters at the worst.
    """
    body, base_language = text.rstrip(), language.partition("-")[0].lower()
    tokens = _token_count(body)
    counts = dict.fromkeys(STYLE_FEATURES, 0)
    opener = "empty" if tokens == 0 else ""
    body = _source(body)
    if _MARKED.search(body) or _MARKED_LINE.search("\n" + body):
        opener, blocks = _parsed(body, opener, counts)
    else:
        blocks = [_prose(paragraph) for paragraph in _BLANK_LINES.split(body.strip(" \n"))]
        opener = opener or _lexical_opener(blocks[0].lower())
    # Blocks are joined by a line end, which is in no prose: no phrase and no mark is read across it.
    counts.update(_marks_and_words("\n".join(blocks), base_language))
    densities = {name: 100.0 * count / tokens if tokens else 0.0 for name, count in counts.items()}
    length = math.log2(max(tokens, 1))
    return TextFeatures(length=length, tokens=tokens, characters=len(text), opener=opener or "other", **densities)


remembered = functools.lru_cache(maxsize=4096)(measure)
"""``measure``, for whoever looks at the same texts many times, as a simulation or a notebook's cell does."""


def features_frame(texts: Sequence[str], languages: Sequence[str] | None = None) -> pd.DataFrame:
    """One row a text, in the texts' order, with COLUMNS; index 0 … n−1. Equal texts are measured once.

    ``languages``: a tag a text; default English.
    """
    pairs = list(zip(texts, languages or ["en"] * len(texts), strict=True))
    measured = {pair: remembered(*pair) for pair in dict.fromkeys(pairs)}
    kinds = {"tokens": "int64", "characters": "int64"}
    # A column at a time in its type: a frame of rows would look for the types itself, and be made anew with others.
    columns: dict[str, Any] = {
        name: np.array([getattr(measured[pair], name) for pair in pairs], dtype=kinds.get(name, "float64"))
        for name in COLUMNS
        if name != "opener"
    }
    columns["opener"] = pd.array([measured[pair].opener for pair in pairs], dtype="str")
    return pd.DataFrame(columns)
