"""What every part of an experiment is made of, and where models answer."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, field_validator, model_validator

from judgeloop.experiment import credentials, options
from judgeloop.experiment.options import Option
from judgeloop.records import canonical

# YAML's own types: neither true nor "3" is a number, and 3.0 is no count.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Switch = Annotated[bool, Field(strict=True)]


Engine = Literal["llama_cpp", "transformers"]


class Block(BaseModel):
    """A part of the experiment: frozen, with no keys but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Price(Block):
    """US dollars per million tokens. None is guessed: where none is stated the cost is not known."""

    input: Number = Field(0.0, ge=0)
    """Per million prompt tokens."""
    output: Number = Field(0.0, ge=0)
    """Per million completion tokens."""

    @property
    def stated(self) -> bool:
        """Whether anybody stated it, be it 0; else what a call costs is not known."""
        return bool(self.model_fields_set)


class _Place(Block):
    """Where a model answers, under which name, for what price."""

    base_url: str | None = None
    """OpenAI-compatible base URL, as http://127.0.0.1:8000/v1. Leave out with `engine`."""
    engine: Engine | None = None
    """Start this engine on a free loopback port for the run: llama_cpp (needs the extra judgeloop[local]), or transformers for a reward judge (judgeloop[train])."""
    model: str
    """The model's name, as the endpoint knows it. With engine llama_cpp: smollm2-135m, or the path of a .gguf file; with transformers: the folder or name of a sequence classifier."""
    api_key_env: Annotated[str | None, Option(answers=False)] = None
    """Name of the environment variable that holds the key; default OPENAI_API_KEY where that is set. A local endpoint needs none."""
    price: Annotated[Price, Option(answers=False)] = Price()
    """What a token costs."""
    max_tokens: Whole = Field(512, ge=1)
    """Longest reply in tokens (logprob verdicts ask for one)."""

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, api_key_env: str | None) -> str | None:
        if api_key_env and not credentials.is_variable(api_key_env):
            # What stands here may be the key itself: it is not shown.
            raise ValueError(
                "must be the name of an environment variable, as JUDGE_KEY, not the key itself; export the key under that name"
            )
        return api_key_env


class CallSettings(Block):
    """How a model is called: how fast, how patiently, and what every request carries."""

    concurrency: Annotated[Whole, Option(answers=False)] = Field(16, ge=1, le=4096)
    """Most calls in flight at once, for each model."""
    timeout_s: Annotated[Number, Option(answers=False, flag="--timeout")] = Field(120.0, gt=0)
    """Seconds until a call counts as timed out."""
    attempts: Annotated[Whole, Option(answers=False)] = Field(6, ge=1, le=20)
    """Tries a call at transport faults and malformed replies, the first included."""
    threads: Annotated[Whole | None, Option(answers=False)] = Field(None, ge=1)
    """Engine only: threads; default the cores of this machine."""
    context: Annotated[Whole, Option(answers=True)] = Field(4096, ge=256)
    """Engine only: context tokens a call may use."""
    max_tokens_field: Annotated[Literal["max_tokens", "max_completion_tokens"], Option(answers=True)] = "max_tokens"
    """The request's name for the longest reply; reasoning models want max_completion_tokens."""
    send_temperature: Annotated[Switch, Option(answers=True, flag="--no-temperature")] = True
    """False leaves `temperature` out of the request, for models that refuse it."""
    top_logprobs: Annotated[Whole, Option(answers=True)] = Field(20, ge=2, le=100)
    """Most likely tokens asked for in logprob verdicts; some endpoints allow 5 only (judgeloop doctor says how many)."""
    extra_headers: Annotated[
        dict[str, str], Option(answers=True, flag="--header", several=True, form="'Name: value'", parse=options.header)
    ] = {}
    """Sent with every call. `${NAME}` is replaced by that environment variable and is stored as written."""
    extra_query: Annotated[
        dict[str, str], Option(answers=True, flag="--query", several=True, form="NAME=VALUE", parse=options.query)
    ] = {}
    """Query parameters of every call (Azure: api-version); `${NAME}` as in headers."""
    extra_body: Annotated[dict[str, Any], Option(answers=True, form="JSON object", parse=options.json_object)] = {}
    """Body fields of every call (vLLM: top_k, chat_template_kwargs …); part of the recorded request."""

    @field_validator("extra_headers", "extra_query")
    @classmethod
    def _names_keys(cls, extra: dict[str, str]) -> dict[str, str]:
        for name, value in extra.items():
            if credentials.is_literal(name, value):
                raise ValueError(
                    f"{name} holds a key as it is, which would be stored with the run; write ${{VARIABLE}} in its place and set that environment variable"
                )
        return extra

    @field_validator("extra_body")
    @classmethod
    def _is_json(cls, extra_body: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical(extra_body).encode()
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                "must hold what JSON can: text, finite numbers, true/false, null, lists, mappings"
            ) from None
        for place in credentials.literals_in(extra_body):
            raise ValueError(
                f"{place} holds a key, and bodies are recorded; give it by api_key_env, or by a header or query parameter with ${{VARIABLE}}"
            )
        return extra_body


class Endpoint(CallSettings, _Place):
    """Where a model answers, an OpenAI-compatible base URL or an engine that judgeloop starts itself, and how it is called."""

    @model_validator(mode="after")
    def _one_place(self) -> Endpoint:
        if (self.base_url is None) == (self.engine is None):
            raise ValueError("give base_url or engine, one of them")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url must start with http:// or https://, as http://127.0.0.1:8000/v1")
        # It would be stored with the run, and shown.
        if self.base_url is not None and re.match(r"[^/]*//[^/?#]*@", self.base_url):
            raise ValueError(
                "base_url must hold no user name or password; give them by extra_headers with ${VARIABLE}, or by api_key_env"
            )
        if self.base_url is not None and ("?" in self.base_url or "#" in self.base_url):
            raise ValueError(
                "base_url must end before ? and #, for the calls' own paths are put behind it; give its query by extra_query, a key there as ${VARIABLE}"
            )
        return self

    def variables(self) -> list[tuple[str, str]]:
        """(field, environment variable) of every one that these settings name."""
        named = [("api_key_env", self.api_key_env)] if self.api_key_env else []
        for field in ("extra_headers", "extra_query"):
            for name, value in getattr(self, field).items():
                named += [(f"{field}.{name}", variable) for variable in credentials.variables(value)]
        return named


def kind_of(default: str) -> Discriminator:
    """Which block a mapping is: the one its ``kind`` names, ``default`` where it names none."""
    return Discriminator(lambda raw: raw.get("kind", default) if isinstance(raw, dict) else getattr(raw, "kind", None))
