"""The planted spec: which biases a served judge has and how served drafts look (docs/contract.md, "Planted spec")."""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from judgeloop.errors import ExperimentError
from judgeloop.experiment.inputs import load_items, read_yaml
from judgeloop.experiment.schema import Block
from judgeloop.records import Item, prompt_text
from judgeloop.text.features import FEATURES, measure

_NUMBER = r"[ \t]*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)"


class DraftSpec(Block):
    """What drafts look like: requests that hold no two answers to compare are answered with a draft."""

    length_mean: float = Field(120.0, ge=1, le=8192)
    """Tokens of the median draft; log2 of a draft's tokens is normal around log2 of this."""
    length_sd: float = Field(0.5, ge=0, le=4)
    """Standard deviation of a draft's length, in doublings (log2 tokens)."""
    markdown: float = Field(0.0, ge=0, le=1)
    """Share of sentences that get a Markdown mark: bold words, a list item or a heading, evenly."""
    follow: float = Field(0.0, ge=0, le=1)
    """How strongly log2 length follows the mean log2 length of the exemplars (the assistant's earlier turns) in the
    request: 0 not at all, 1 fully. Without exemplars it has no effect."""
    quality_mean: float = 0.0
    """Mean of the quality that `quality_marker` writes into a draft."""
    quality_sd: float = Field(0.0, ge=0)
    """Standard deviation of that quality."""
    correct: float = Field(0.0, ge=0, le=1)
    """Chance that a draft states the right answer of its prompt, whatever else it looks like (with `references`); 0: drafts
    state no answer."""


class PlantedSpec(Block):
    """A judge with stated coefficients, and the drafts that it judges.

    P(first) = s(position + length·Δlog2 tokens + Σ feature·Δfeature + quality·Δquality + noise), Δ = first − second.
    """

    model: tuple[str, ...] = Field(("planted",), min_length=1)
    """Names under which the model is served; one name or a list."""
    seed: int = Field(0, ge=0)
    """Every random stream starts here; the call id (without one: the request's hash) names the rest."""
    position: float = 0.0
    """Log-odds for the first slot."""
    length: float = 0.0
    """Log-odds per doubling of tokens."""
    headings: float = 0.0
    """Log-odds per heading in 100 tokens."""
    bold: float = 0.0
    """Log-odds per bold span in 100 tokens."""
    list_items: float = 0.0
    """Log-odds per list item in 100 tokens."""
    code_fences: float = 0.0
    """Log-odds per code fence in 100 tokens."""
    hedges: float = 0.0
    """Log-odds per hedge in 100 tokens."""
    emoji: float = 0.0
    """Log-odds per emoji in 100 tokens."""
    transitions: float = 0.0
    """Log-odds per transition in 100 tokens."""
    em_dashes: float = 0.0
    """Log-odds per em dash in 100 tokens."""
    exclamations: float = 0.0
    """Log-odds per exclamation mark in 100 tokens."""
    quality: float = 0.0
    """Log-odds for matching the reference (with `references`), or per unit of the marked number (`quality_marker`)."""
    quality_marker: str | None = Field(None, min_length=1)
    """Text in front of a number that says a text's quality, as `[q=` for [q=1.3]; or /REGEX/ with one group. The first
    one in a text counts; a text without one has quality 0."""
    references: str | dict[str, str] | None = None
    """Right answers: an items file (relative to this file), or a mapping of prompt to reference. Not with a marker."""
    match: Literal["exact", "contains", "numeric"] = "contains"
    """How a text matches a reference of a mapping; an items file states it for each item."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation of the log-odds' noise, a draw a presentation."""
    temperature0: bool = False
    """True: json and text verdicts are always the more probable slot. False: drawn with P(first)."""
    tie: float = Field(0.0, ge=0, lt=1)
    """Share of ties, where the request offers a tie (in log-probabilities: the mass of the token tie)."""
    unscored: float = Field(0.0, ge=0, le=1)
    """Share of judgments whose reply holds no verdict."""
    score_spread: float = Field(2.0, ge=0)
    """Points of a scale from 1 to 10 for a unit of log-odds: a text's mean score is 5.5 + score_spread · (length·(log2
    tokens − log2 draft.length_mean) + Σ feature·feature + quality·quality), carried over to the scale asked and clipped."""
    score_anchor: float = Field(0.0, ge=-1, le=1)
    """Pull towards the larger number of a scale, whichever end it is, as a share of the scale's length."""
    draft: DraftSpec = DraftSpec()
    """What drafts look like."""

    @model_validator(mode="before")
    @classmethod
    def _one_name_is_a_list(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and isinstance(raw.get("model"), str):
            return {**raw, "model": [raw["model"]]}
        return raw

    @model_validator(mode="after")
    def _quality_has_a_source(self) -> PlantedSpec:
        if self.quality_marker is not None and self.references is not None:
            raise ValueError("give quality_marker or references, one of them")
        if self.quality and self.quality_marker is None and self.references is None:
            raise ValueError("quality needs quality_marker or references")
        drafts_have_quality = bool(self.draft.quality_sd or self.draft.quality_mean)
        if drafts_have_quality and (self.quality_marker is None or _is_regex(self.quality_marker)):
            raise ValueError("draft.quality_mean and draft.quality_sd need a quality_marker that is plain text")
        if self.draft.correct and self.references is None:
            raise ValueError("draft.correct needs references")
        try:
            pattern = marker_pattern(self.quality_marker or "")
        except re.error as error:
            raise ValueError(f"quality_marker is not a regular expression: {error}") from None
        if pattern.groups != 1:
            raise ValueError("quality_marker: the regular expression needs one group, around the number")
        return self

    @property
    def coefficients(self) -> dict[str, float]:
        """Log-odds by name, as ``judging.controls.planted_log_odds`` takes them: position, quality and the features."""
        return {name: getattr(self, name) for name in ("position", "quality", *FEATURES)}


def _is_regex(marker: str) -> bool:
    return len(marker) > 2 and marker.startswith("/") and marker.endswith("/")


@functools.lru_cache(maxsize=64)
def marker_pattern(marker: str) -> re.Pattern[str]:
    """The pattern whose one group is the number after a marker."""
    return re.compile(marker[1:-1] if _is_regex(marker) else re.escape(marker) + _NUMBER)


def marked_quality(marker: str, text: str) -> float:
    """The number after the first marker in a text; 0 without a marker, or where it is no finite number."""
    match = marker_pattern(marker).search(text)
    try:
        value = float(match[1]) if match else 0.0
    except (ValueError, TypeError):
        return 0.0
    return value if math.isfinite(value) else 0.0


@functools.lru_cache(maxsize=8192)
def features_of(text: str) -> Mapping[str, float]:
    """The features of a text that the law may weigh: length in log2 tokens, others per 100 tokens."""
    measured = measure(text)
    return {name: getattr(measured, name) for name in FEATURES}


def references(spec: PlantedSpec, folder: str | Path = ".") -> dict[str, Item]:
    """The items that have a reference, by the text of their prompt. Raises ExperimentError where the file is wrong."""
    if spec.references is None:
        return {}
    if isinstance(spec.references, str):
        items = load_items(Path(folder) / spec.references)
    else:
        pairs = spec.references.items()
        items = tuple(Item(prompt, prompt, "", reference, spec.match) for prompt, reference in pairs)
    return {prompt_text(item.prompt).strip(): item for item in items if item.reference is not None}


def schema() -> dict[str, Any]:
    """JSON schema of a planted spec, with a line on every key."""
    json_schema = PlantedSpec.model_json_schema()
    json_schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    json_schema["properties"]["model"] = {
        "description": json_schema["properties"]["model"]["description"],
        "default": ["planted"],
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
    }
    return json_schema


def load(path: str | Path) -> PlantedSpec:
    """Read a planted spec (YAML). Raises ExperimentError with the file and the field."""
    path = Path(path)
    raw = read_yaml(path, "a planted spec", empty=True)  # an unbiased judge is a spec without a key
    try:
        spec = PlantedSpec.model_validate(raw)
    except ValidationError as error:
        raise ExperimentError(f"{path}: {_error_sentence(error)}") from None
    references(spec, path.parent)  # a wrong file is an error now, not at the first call
    return spec


def _error_sentence(error: ValidationError) -> str:
    """The first problem of a spec, with its field and what to do."""
    problem = error.errors(include_url=False)[0]
    # The location names a union's branch too (references.str), which is no key of the file.
    path = [str(part) for part in problem["loc"] if not str(part).startswith(("str", "dict["))]
    if problem["type"] == "extra_forbidden":
        fields = DraftSpec.model_fields if path[0] == "draft" else PlantedSpec.model_fields
        matches = difflib.get_close_matches(path[-1], fields, n=1, cutoff=0.5)
        hint = f"did you mean {matches[0]}?" if matches else f"known: {', '.join(fields)}"
        return f"{'.'.join(path)}: unknown key; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path) or 'spec'}: {message[:1].lower()}{message[1:]}"
