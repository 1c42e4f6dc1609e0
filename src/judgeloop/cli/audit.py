"""``judgeloop audit``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from judgeloop.cli.app import Debug, app, heard, remember
from judgeloop.errors import AnswersOutstanding, Interrupted, InvalidInput


@app.command()
def audit(
    pairs: Annotated[
        Path,
        typer.Argument(help="One pair (or list) of answers a row: .jsonl, .csv, .parquet, or - for standard input."),
    ],
    model: Annotated[list[str], typer.Option(help="The judge's model; again for several judges.")],
    base_url: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the judge answers (OpenAI-compatible); again for each --model, if they differ.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Instead of an address: start the model here, with llama_cpp, or transformers for --reward.",
            show_default=False,
        ),
    ] = None,
    api_key_env: Annotated[
        list[str] | None,
        typer.Option(
            help="Environment variable with the key; again for each --model. [default: OPENAI_API_KEY, if set]",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[str, typer.Option(help="A shipped template's name or a template file.")] = "pairwise",
    verdict: Annotated[
        str, typer.Option(help="How verdicts are read: logprob, json, text; auto tries them in this order.")
    ] = "auto",
    repeats: Annotated[int, typer.Option(help="Times each pair is judged in each order.", min=1)] = 1,
    probes: Annotated[
        str,
        typer.Option(help="Edits of the texts to judge against their originals: a list (padding,bold), all, or none."),
    ] = "none",
    edit_model: Annotated[
        str | None,
        typer.Option(
            help="Model that writes the edits no rule can (model_padding, model_paraphrase).", show_default=False
        ),
    ] = None,
    mitigate: Annotated[
        str,
        typer.Option(
            help="Mitigations to measure on the same answers, with commas: swap_average, consistent_only, "
            "length_controlled, rubric (asks again), panel (several --model, or --repeats).",
            show_default=False,
        ),
    ] = "",
    gold_exact: Annotated[
        bool,
        typer.Option(
            "--gold-exact",
            help="Gold cannot err: it is a verifiable reference, as an exact match. Without this, one gold alone makes no claim of bias.",
        ),
    ] = False,
    mode: Annotated[
        str, typer.Option(help="What is asked: pairwise, pointwise (a score a text) or listwise (the best of a list).")
    ] = "pairwise",
    scales: Annotated[
        str | None,
        typer.Option(
            help="Scales of pointwise scores, WORST-BEST with commas. [default: 1-10,10-1]", show_default=False
        ),
    ] = None,
    against_pairwise: Annotated[
        bool, typer.Option("--against-pairwise", help="Pointwise: ask the same judges about the pairs too.")
    ] = False,
    reward: Annotated[
        str | None,
        typer.Option(
            help="The judges are reward models: ROUTE[,KEY=VALUE…], ROUTE classify, pooling, score or rerank (vLLM's), "
            "KEY score, label or temperature.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature of the judge.", min=0)] = 0.0,
    max_tokens: Annotated[
        int | None, typer.Option(help="Longest reply in json and text mode. [default: 512]", min=1, show_default=False)
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Most calls in flight at once, for each model.", min=1)] = 16,
    threads: Annotated[
        int | None,
        typer.Option(
            help="With --engine: threads it may use. [default: this machine's cores]", min=1, show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Names all random draws.", min=0)] = 0,
    price: Annotated[
        list[str] | None,
        typer.Option(
            help="IN,OUT: USD per million prompt and reply tokens; again for each --model.", show_default=False
        ),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Stop at this cost in USD (exit 3; resumable).", min=0, show_default=False)
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(help="Stop at this many calls (exit 3; resumable).", min=0, show_default=False)
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="A YAML file that names the pairs' own columns and words.", show_default=False)
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            help="'Name: value' sent with every call; ${VAR} is read from the environment.", show_default=False
        ),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE in every call's address (Azure: api-version).", show_default=False),
    ] = None,
    extra_body: Annotated[
        str | None, typer.Option(help="JSON object of further fields of every request.", show_default=False)
    ] = None,
    max_tokens_field: Annotated[
        str, typer.Option(help="The request's name for the longest reply; reasoning models want max_completion_tokens.")
    ] = "max_tokens",
    no_temperature: Annotated[
        bool, typer.Option("--no-temperature", help="Leave the temperature out, for models that refuse it.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds until a call counts as timed out.")] = 120.0,
    attempts: Annotated[int, typer.Option(help="Tries a call at transport faults.", min=1, max=20)] = 6,
    batch: Annotated[
        bool, typer.Option("--batch", help="Ask by the endpoint's Batch API and wait; the same command resumes.")
    ] = False,
    collect: Annotated[
        list[Path] | None,
        typer.Option(
            help="Take a finished batch output file (OpenAI's, or of vllm run-batch); again for several.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write; the same command resumes it. [default: runs/<the pairs' name>-audit]",
            show_default=False,
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="Answer every call from this recorded folder; ask no endpoint.", show_default=False),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Calls, tokens, cost, time, and what so many pairs can show; ask nothing.")
    ] = False,
    effect: Annotated[
        float | None, typer.Option(help="With --plan: an effect to find, in probability, as 0.04.", show_default=False)
    ] = None,
    conflict: Annotated[
        float | None,
        typer.Option(help="With --plan: share of pairs whose verdict changes with the order.", show_default=False),
    ] = None,
    calls_per_second: Annotated[
        float | None, typer.Option(help="With --plan: how fast the endpoint answers.", show_default=False)
    ] = None,
    json_plan: Annotated[bool, typer.Option("--json", help="With --plan: print it as JSON.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no summary: the report's path alone.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Ask judges about pairs of answers, in both orders and with probes; end in estimates of their biases and a report."""
    remember(debug)
    endpoint: dict[str, Any] = {
        "extra_headers": dict(_split(one, ":", "--header", "'Name: value'") for one in header or ()),
        "extra_query": dict(_split(one, "=", "--query", "NAME=VALUE") for one in query or ()),
        "extra_body": _object(extra_body),
        "max_tokens_field": max_tokens_field, "send_temperature": not no_temperature, "timeout_s": timeout, "attempts": attempts,
    }  # fmt: skip
    if threads is not None:
        if engine is None:
            raise InvalidInput("--threads: of --engine, which judgeloop starts; a server has its own")
        endpoint["threads"] = threads
    paid = [_price(one) for one in price or ()] or None
    from judgeloop import api, progress

    options: dict[str, Any] = {
        "base_url": base_url, "model": model, "engine": engine, "api_key_env": api_key_env, "price": paid, "endpoint": endpoint, "prompt": prompt,
        "verdict": verdict, "repeats": repeats, "temperature": temperature, "max_tokens": max_tokens, "probes": probes,
        "edit_model": edit_model, "concurrency": concurrency, "seed": seed, "columns": columns, "mitigate": mitigate,
        "mode": mode, "scales": scales, "against_pairwise": against_pairwise, "reward": reward, "gold_exact": gold_exact,
    }  # fmt: skip
    if plan:
        from judgeloop.cli.audit_plan import show

        made = api.plan_audit(
            pairs, effect=effect, conflict=conflict, calls_per_second=calls_per_second, out=out, **options
        )
        show(made, as_json=json_plan)
        return
    if json_plan or any(one is not None for one in (effect, conflict, calls_per_second)):
        raise InvalidInput("--effect, --conflict, --calls-per-second and --json are of --plan; give it too")
    view = progress.view(quiet=quiet)
    try:
        done = api.audit(
            pairs, **options, batch=batch, collect=collect or (), out=out, replay=replay, max_cost=max_cost,
            max_calls=max_calls, observer=view,
        )  # fmt: skip
    except AnswersOutstanding as error:
        view.stop()
        _what_next(error)
        raise
    except KeyboardInterrupt:
        raise Interrupted("interrupted; all answers so far are recorded, run the same command to resume") from None
    finally:
        view.stop()
    if quiet:
        print(done.path / "report.html")
    else:
        print(done.summary())
        print(f"Folder: {done.path}\nReport: {done.path / 'report.html'}")


def _what_next(error: AnswersOutstanding) -> None:
    """The commands that answer the request files and take the answers back, to be copied."""
    outputs = [path.with_name(path.name.replace("requests", "output")) for _, path in error.requests]
    for (model, path), output in zip(error.requests, outputs, strict=True):
        print(shlex.join(["vllm", "run-batch", "-i", str(path), "-o", str(output), "--model", model]))
    if outputs:
        taken = [word for output in outputs for word in ("--collect", str(output))]
        print(shlex.join(["judgeloop", *_without_batch(heard()), *taken]))


def _without_batch(line: list[str]) -> list[str]:
    kept, words = [], iter(line)
    for word in words:
        if word == "--collect":
            next(words, None)
        elif word != "--batch" and not word.startswith("--collect="):
            kept.append(word)
    return kept


def _price(text: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidInput(
            f"--price: must be IN,OUT in USD per million prompt and reply tokens, as 0.15,0.6, not {text!r}"
        ) from None
    return first, second


def _split(text: str, mark: str, option: str, form: str) -> tuple[str, str]:
    name, found, value = text.partition(mark)
    if not found or not name.strip():
        raise InvalidInput(f"{option}: must be {form}; what was given may hold a key and is not shown")
    return name.strip(), value.strip()


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput('--extra-body: must be a JSON object, as {"top_k": 1}')
    return found
