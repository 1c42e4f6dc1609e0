"""The options of an audit: the command line, Python's keywords and the folder's record follow from these fields.

A field added to ``AuditSpec`` is an option of ``judgeloop audit`` with its line of help, a keyword of ``judgeloop.audit``
and ``plan_audit``, a row of docs/python.md, a line of the folder's experiment.yaml, a part of the folder's identity where
its ``Option`` says that answers depend on it, and a name in the message that says how two audits differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from judgeloop.experiment import options
from judgeloop.experiment.options import Option
from judgeloop.experiment.schema import Block, CallSettings, Number, Switch, Whole

Prices = tuple[float, float] | Sequence[tuple[float, float]]


class _Questions(Block):
    """Which judges are asked, and what."""

    model: Annotated[str | Sequence[str], Option(answers=True, several=True)]
    """The judge's model; several judges are estimated apart and compared on the same pairs."""
    base_url: Annotated[str | Sequence[str] | None, Option(answers=True, several=True)] = None
    """Where the judge answers (OpenAI-compatible): one address for all models, or one each."""
    engine: Annotated[str | None, Option(answers=True)] = None
    """Instead of an address: start the model here, with llama_cpp, or transformers for reward models."""
    api_key_env: Annotated[
        str | Sequence[str] | None,
        Option(answers=False, several=True, unset="OPENAI_API_KEY at https://api.openai.com, none elsewhere"),
    ] = None
    """Name of the environment variable with the key: one for all models, or one each."""
    prompt: Annotated[str | Path, Option(answers=True)] = "pairwise"
    """A shipped template's name or a template file."""
    verdict: Annotated[str, Option(answers=True)] = "auto"
    """How verdicts are read: logprob, json, text; auto tries them in this order."""
    repeats: Annotated[Whole, Option(answers=True)] = Field(1, ge=1)
    """Times each pair is judged in each order."""
    probes: Annotated[str | Sequence[str], Option(answers=True)] = "none"
    """Edits of the texts to judge against their originals: a list (padding,bold), all, or none."""
    edit_model: Annotated[str | None, Option(answers=True)] = None
    """Model that writes the edits no rule can (model_padding, model_paraphrase)."""
    mitigate: Annotated[str | Sequence[str], Option(answers=False)] = ""
    """Mitigations to measure on the same answers, with commas: swap_average, consistent_only, length_controlled, rubric (asks again), panel (several models, or repeats)."""
    gold_exact: Annotated[Switch, Option(answers=False)] = False
    """Gold cannot err and is all of quality: right or wrong by a verifiable reference, as an exact match, or a number. Without this, no bias is claimed from one gold alone."""
    mode: Annotated[str, Option(answers=True)] = "pairwise"
    """What is asked: pairwise, pointwise (a score a text) or listwise (the best of a list)."""
    scales: Annotated[str | None, Option(answers=True, unset="1-10,10-1")] = None
    """Scales of pointwise scores, WORST-BEST with commas."""
    against_pairwise: Annotated[Switch, Option(answers=True)] = False
    """Pointwise: ask the same judges about the pairs too."""
    reward: Annotated[str | None, Option(answers=True)] = None
    """The judges are reward models: ROUTE[,KEY=VALUE…], ROUTE classify, pooling, score or rerank (vLLM's), KEY score, label or temperature."""
    temperature: Annotated[Number, Option(answers=True)] = Field(0.0, ge=0)
    """Sampling temperature of the judge."""
    max_tokens: Annotated[Whole | None, Option(answers=True, unset="512")] = Field(None, ge=1)
    """Longest reply in json and text mode."""
    seed: Annotated[int, Option(answers=True)] = Field(0, ge=0)
    """Seed of all random draws."""
    price: Annotated[Prices | None, Option(answers=False, several=True, form="IN,OUT", parse=options.price)] = None
    """US dollars per million prompt and reply tokens, for all models or each; one more is that of --edit-model."""
    columns: Annotated[Path | str | Mapping[str, Any] | None, Option(answers=True)] = None
    """A YAML file that names the pairs' own columns and words."""
    endpoint: Annotated[
        Mapping[str, Any], Option(answers=True, several=True, form="KEY=VALUE", parse=options.setting)
    ] = {}
    """Further settings of an experiment's endpoint, under their names there."""


class AuditSpec(CallSettings, _Questions):
    """What judges are asked about pairs, and how they are called."""


class _Folder(Block):
    """The folder of an audit's answers."""

    out: Annotated[Path | str | None, Option(answers=False, unset="runs/<the pairs' name>-audit")] = None
    """Folder to write; the same command resumes it."""


class AuditSession(_Folder):
    """The options of one session: where it writes, when it stops, who answers."""

    max_cost: Annotated[float | None, Option(answers=False)] = Field(None, ge=0)
    """Stop at this cost in USD; every attempt counts, recorded ones too (exit 3; resumable)."""
    max_calls: Annotated[int | None, Option(answers=False)] = Field(None, ge=0)
    """Stop at this many calls; every attempt counts, recorded ones too (exit 3; resumable)."""
    retry_failed: Annotated[Switch, Option(answers=False, flag="--no-retry-failed")] = True
    """False leaves calls as they are whose attempts all failed in an earlier session; they are asked again otherwise."""
    batch: Annotated[Switch, Option(answers=False)] = False
    """Ask by the endpoint's Batch API and wait; the same command resumes."""
    collect: Annotated[Path | str | Sequence[Path | str], Option(answers=False, several=True)] = ()
    """Take a finished batch output file (OpenAI's, or of vllm run-batch)."""
    replay: Annotated[Path | str | None, Option(answers=False)] = None
    """Answer every call from this recorded folder; ask no endpoint."""
    executor: Annotated[str, Option(answers=False)] = "local"
    """What asks: this process (local), or a Ray cluster by shards of 500 items (ray; extra [ray])."""


class AuditSizes(_Folder):
    """The options of a plan alone: sizes of effects, and the endpoint's speed."""

    effect: Annotated[float | None, Option(answers=False, form="With --plan")] = None
    """An effect to find, in probability, as 0.04."""
    conflict: Annotated[float | None, Option(answers=False, form="With --plan")] = None
    """Share of pairs whose verdict changes with the order."""
    calls_per_second: Annotated[float | None, Option(answers=False, form="With --plan")] = None
    """Calls a second that the endpoint answers."""


class AuditCall(AuditSession, AuditSpec):
    """The keywords of ``judgeloop.audit``."""

    observer: Any = None
    """Shows progress: an object with the methods of `judgeloop.commands.session.Observer`."""
    client: Any = None
    """Asks in place of judgeloop's own line: an `openai.AsyncOpenAI` (Azure with Entra tokens, a gateway that signs, a transport of your own), or a mapping from model to one; `base_url` is then its own by default. What it answers is recorded alike; it is closed at the end."""
    report: bool = True
    """Whether report.html, report.md and report.json are written too; they can be later (`.write_report()`)."""


class AuditPlanCall(AuditSizes, AuditSpec):
    """The keywords of ``judgeloop.commands.plan_audit``."""


class AuditLine(AuditSizes, AuditSession, AuditSpec):
    """The options of ``judgeloop audit``."""
