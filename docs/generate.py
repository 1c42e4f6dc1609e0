"""Write the reference pages that follow from the code: experiment.md, planted.md, commands.md, probes.md, coverage.md,
claims.md, literature.md, quickstart.md, python.md and report.schema.json.

``python docs/generate.py`` writes them; ``--check`` writes nothing and fails where a page is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from claims_page import page as claims_page
from coverage_page import page as coverage_page
from literature_page import Numbers
from literature_page import page as literature_page
from python_reference import PYTHON, python_reference
from quickstart_page import page as quickstart_page

from judgeloop.cli.app import app
from judgeloop.experiment.resolve import template
from judgeloop.experiment.schema import schema as experiment_schema
from judgeloop.judging.edits import TOLERANCE, Probe, length_ratio
from judgeloop.judging.model_edits import LENGTH_TOLERANCE
from judgeloop.judging.panels import PROBES
from judgeloop.report.document import schema as report_schema
from judgeloop.serving.faults import fault_schema
from judgeloop.serving.planted_spec import schema as planted_schema

DOCS = Path(__file__).parent
WIDTH = 100
NOTICE = "<!-- Written by docs/generate.py from the code; edit the docstrings there. -->"
Schema = Mapping[str, Any]

EXPERIMENT = """# The experiment file

A YAML file says what is asked, who drafts, who judges, what is learned and in which arms. Unknown keys are errors that
name the nearest known key. Paths are relative to the file. `judgeloop run --schema` prints the same as a JSON schema,
which editors can use to complete and check the file.

A whole experiment, as `judgeloop run --print-experiment` writes it for a start:

```yaml
@TEMPLATE```

**Arms** are overrides of `judge`, `signal`, `strategy` or `policy.exemplars`. Keys that an arm does not name stay those
of the base; a block whose `kind` changes starts from that kind's defaults. **Control arms** are those whose judge is
`random` or `gold`. Every other arm is contrasted with every control arm; the first of each, in the order of `arms`, is
the confirmatory contrast. An arm whose judge is a `rule` is a [positive control](method.md#positive-controls): its taste is known, so that its drift
shows whether the run could have seen one; it is the confirmatory contrast only where there is no other arm.
**Identity**: keys that only say how fast, how dear or with which key a model is asked
(`concurrency`, `api_key_env`, `timeout_s`, `attempts`, `price`, `threads`, and `budget`) may change between two sessions
of one run folder; a change of any other makes another experiment.

**Items** (`items`) are JSON Lines, CSV or Parquet with `item_id`, `prompt` (text, or a list of chat messages), and
optional `category`, `reference`, `match` (`exact`, `contains`, `numeric` or `judge`) and `language` (a tag such as `en` or
`de-AT`; default `en`), by which [probes](probes.md) choose the words that they add. With `match: judge` a model says whether
a text agrees with the reference: give an arm whose judge is `gold` with an `endpoint`. Every text of these items, of every
arm and of the anchor panel, is then asked about once a replicate; without one, no correctness of theirs is measured. It is
that model's opinion, so that slopes of the judge at equal quality do not take it as exact
([One gold](method.md#verbosity-and-style)).
"""

PLANTED = """# The planted spec and the faults file

`judgeloop serve --planted SPEC.yaml` plays a judge with known biases, and drafts texts; `--faults FAULTS.yaml` makes the
server fail on purpose. [Serving](serving.md) shows both at work. `judgeloop serve --schema` prints the planted spec's
JSON schema.

**One law, three forms.** Let a text's content be length·(log2 tokens − log2 `draft.length_mean`) + Σ feature·feature +
quality·its quality, in log-odds. Of two answers the first is picked with log-odds position + the difference of their
contents. Of three or more (`judgeloop audit --mode listwise`) slot j is picked with probability ∝ exp(content, + position
in the first slot), of which two slots are a case. One answer on a scale (`--mode pointwise`) gets a number whose mean is
5.5 + `score_spread`·content points of a scale from 1 to 10: carried over to the scale that was asked, pulled by
`score_anchor` towards its larger number, clipped to its ends. The number is one of the two whole numbers beside that mean,
drawn so that the mean is exact (with `temperature0`, the nearer one).

**Embeddings.** `/v1/embeddings` answers with a text's features (length in log2 tokens less those of the median draft, then the others per
100 tokens, in the order of the keys below), its quality, and 16 numbers of its words: each word, by the CRC-32 of its lower-case
form, counts ±1 in one of them, and each is divided by the root of the words' number. So a [reward
model](method.md#a-reward-model) on these embeddings can learn all that the judge's law looks at, and words besides. Numbers come as a
list, or with `encoding_format: base64` as little-endian float32.

**Trained drafts.** A name such as `planted@length_mean=80` drafts with that median length and else as the spec says, so that a
[training](training.md) of a planted policy can be played: its command leaves such a name in `model.json`.

**As a reward model** it answers `/classify`, `/pooling`, `/score` and `/v1/rerank` in vLLM's forms with a text's content as
the score, so that two texts' difference is the law without its position, which such a judge cannot have. A text's own
noise has a standard deviation of `noise`/√2; `unscored` is the share of texts whose number is null. Without
`use_activation: false` it serves the score's logistic, as a model with one label does. An `input` is read as a conversation
where it has a turn that begins with `Assistant:`.
"""

COMMANDS = """# Commands

Every command shows tracebacks with `--debug`, and else one or two sentences on standard error: what is wrong, where, and
what to do. [Exit codes](exit-codes.md) are the same for all.
"""

PROBES_PAGE = f"""# Counterfactual probes

A probe shows the judge a text and the same text with one thing changed, in both orders. The content is the same, so what
the judge prefers is the change. No gold is needed, and errors of gold cannot disturb it: that makes probes the strongest
evidence of a taste. A judge that pays for a change here will teach a model to make it.

- **τ**, the estimate, is P(edited text picked) − ½ over pairs with both orders complete: 0 is indifference, +0.5 always the
  edit, −0.5 never. Intervals are clustered by item. See [what judgeloop measures](method.md#probes).
- **Both texts** of a pair are edited, each against its own original. `text_a` and `text_b` never meet here.
- **Applied or not.** An edit that does not apply to a text (no list to remove, a text too short for a dose, no words for
  its language) makes no pair; `n` counts the pairs there were.
  A probe (or dose) that applies to none of the texts is an `undefined` row whose note says why. An edit whose promise would not hold is not used either:
  every edit is checked against its promise before it is shown to a judge.
- **Deterministic.** Edits by rule depend on the text, the seed, the item and the dose, and on nothing else. Edits by a
  model are recorded calls (`audit/edit/<pair>/<side>/<probe>[/<dose>]`), so that a replay judges the same text.
- **Added words have a length.** Hedges, tone, authority, bandwagon, injection and self_name add a few; compare them with
  `padding`, which adds words and nothing else. The variant `beyond_length` does so: the effect less what padding of the
  same length is worth to this judge ([method](method.md#probes)).
- **Controls.** `whitespace` changes nothing that is rendered and should come out at 0; `identical` shows the text against
  itself, which leaves position alone (`identical_pair_excess`).
- **Dose.** `padding` reaches 1.25, 1.5 and 2 times the tokens within {TOLERANCE:.0%}, or does not apply. Rows of a dose are
  grouped by the dose that was asked; the variant `slope`, per doubling, uses the ratio that each text reached.
- **Many probes, one judge.** `padding_probe` is confirmatory in an audit. The others are adjusted together, by Holm, so that
  the one that works is not a find of the search.
- **Language.** Probes that add words have them in the languages named below, by the `language` column of the items or
  pairs (a tag such as `en` or `de-AT`; default `en`), and do not apply to a text in another. An
  untagged text counts as English, unless most of its letters are of another script: then they do not apply either.

In an experiment, `panels: {{anchor: 60, probe: [padding, bold]}}` (or `all`) edits the anchor panel's texts and asks every
model judge once a generation. Nobody trains on them, so `judge_drift_<probe>_probe` is a change of the judge itself.

## What each edit does
"""

PROBE_SAMPLE = """Sleep at fixed hours. A dark room helps most people.

Avoid coffee after noon. Be patient with yourself."""
MARKED_SAMPLE = """# Sleep

- Sleep at **fixed** hours.
- Avoid coffee after noon."""


def pages() -> dict[str, str]:
    """File name → text."""
    numbers = Numbers(DOCS / "pictures" / "numbers.json")
    return {
        "experiment.md": "\n".join(
            [NOTICE, EXPERIMENT.replace("@TEMPLATE", template()), *_experiment(experiment_schema())]
        ),
        "planted.md": "\n".join([NOTICE, PLANTED, *_planted()]),
        "report.schema.json": json.dumps(report_schema(), indent=1, ensure_ascii=False) + "\n",
        "commands.md": "\n".join([NOTICE, COMMANDS, *_commands()]),
        "probes.md": "\n".join([NOTICE, PROBES_PAGE, *_probes()]),
        "coverage.md": "\n".join([NOTICE, *coverage_page(DOCS / "coverage.csv")]),
        "claims.md": "\n".join([NOTICE, *claims_page(DOCS / "claims.csv")]),
        "literature.md": "\n".join([NOTICE, *literature_page(numbers)]),
        "quickstart.md": "\n".join([NOTICE, *quickstart_page(numbers)]),
        "python.md": "\n".join([NOTICE, PYTHON, *python_reference()]),
    }


def _experiment(schema: Schema) -> Iterator[str]:
    blocks = schema["$defs"]
    yield from _section("Top level", schema, 2, intro=False)
    for key, value in schema["properties"].items():
        kinds = _blocks(value)
        if not kinds:
            continue
        one = len(kinds) == 1
        place = f"`{key}.<name>`" if value.get("type") == "object" else f"`{key}`"
        if not one:
            yield f"## {place}\n\n{value.get('description', '')} One of {len(kinds)} kinds:\n"
        for name in kinds:
            block = blocks[name]
            kind = block["properties"].get("kind", {}).get("const")
            title = place if one else f"{place}, kind `{kind}`"
            yield from _section(title, block, 2 if one else 3)
            for inner, inner_value in block["properties"].items():
                for nested in _blocks(inner_value):
                    if not blocks[nested]["properties"].get("kind"):
                        where = place.strip("`")
                        yield from _section(f"`{where}.{inner}`", blocks[nested], 3)


def _planted() -> Iterator[str]:
    spec, faults = planted_schema(), fault_schema()
    yield from _section("Planted spec", spec, 2)
    yield from _section("`draft`", spec["$defs"]["DraftSpec"], 3)
    yield from _section("Faults file", faults, 2)
    yield from _section("`rules`, each", faults["$defs"]["Rule"], 3)
    yield from _section("`server`", faults["$defs"]["Shape"], 3)


def _probes() -> Iterator[str]:
    yield "| Probe | Changes | Keeps | Term | Doses | Words in | Made by |"
    yield "|---|---|---|---|---|---|---|"
    for probe in PROBES.values():
        doses = ", ".join(f"{dose:g}" for dose in probe.doses) or "none"
        made = {"rule": "rule", "model": "a model"}[probe.kind]
        languages = ", ".join(probe.languages) or "adds none" if probe.kind == "rule" else "the text's"
        yield f"| `{probe.name}` | {probe.changes} | {probe.keeps} | `{probe.term}` | {doses} | {languages} | {made} |"
    yield f"""
**By a model.** The endpoint that `judgeloop audit` is told to ask writes these, with the prompts
`prompts/model_padding.yaml` and `prompts/model_paraphrase.yaml`. A reply is not used, and is counted with its reason, if
the endpoint failed, it refuses (`refusal`), is `empty` or `truncated`, begins with words about the task (`comment`), misses
the length asked by more than {LENGTH_TOLERANCE:.0%} (`too_short`, `too_long`), drops or adds a number (`number_dropped`,
`number_added`), or changes no word (`unchanged`). No check sees whether the meaning is the same: read some.

**Cannot tell.** Whether an edit made the text better or worse after all. A restated sentence is a fault to some readers, a
heading a help; τ says what the judge pays for the change, and that is what a loop multiplies.

## Examples

`python docs/generate.py` made these, with seed 0, from

```text
{PROBE_SAMPLE}
```
"""
    for probe in PROBES.values():
        if probe.kind == "rule" and probe.name != "identical":
            yield from _probe_example(probe)


def _probe_example(probe: Probe) -> Iterator[str]:
    text = MARKED_SAMPLE if probe.name == "markdown_removed" else PROBE_SAMPLE
    dose = 1.5 if probe.doses else None
    edited = probe.apply(text, item_id="sleep", seed=0, dose=dose, judge_name="judge-7b") or "does not apply"
    yield f"### `{probe.name}`\n"
    if text != PROBE_SAMPLE:
        yield f"From\n\n```text\n{text}\n```\n"
    if dose:
        yield f"Dose {dose:g}, reached {length_ratio(text, edited):.2f}.\n"
    if probe.name == "whitespace":
        yield "The white space is shown: `·` a blank, `↵` the end of a line.\n"
        edited = edited.replace(" ", "·").replace("\n", "↵\n").rstrip("\n")
    yield f"```text\n{edited}\n```\n"


def _section(title: str, block: Schema, level: int, intro: bool = True) -> Iterator[str]:
    yield f"{'#' * level} {title}\n"
    if intro and block.get("description"):
        yield block["description"].replace("``", "`") + "\n"
    yield "| Key | Value | Default | |"
    yield "|---|---|---|---|"
    required = set(block.get("required", ()))
    for key, value in block["properties"].items():
        default = "required" if key in required else _default(value)
        line = " ".join(value.get("description", "Which of the kinds this is." if key == "kind" else "").split())
        yield f"| `{key}` | {_type(value)} | {default} | {_cell(line)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("``", "`")


def _default(value: Schema) -> str:
    if "default" not in value:
        return f"`{value['const']}`" if "const" in value else ""
    default = value["default"]
    match default:
        case None:
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case dict() if default and _blocks(value):
            return "as below"
        case dict() | list():
            return f"`{{{', '.join(f'{k}: {v}' for k, v in default.items())}}}`" if isinstance(default, dict) else (
                f"`[{', '.join(map(str, default))}]`"
            )  # fmt: skip
        case "":
            return "empty"
        case float():
            return f"`{default:g}`"
        case _:
            return f"`{default}`"


def _type(value: Schema) -> str:
    if "$ref" in value:
        return "block"
    for union in ("anyOf", "oneOf"):
        if union in value:
            said = [_type(part) for part in value[union] if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(said))
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    match value.get("type"):
        case "integer" | "number" as kind:
            return " ".join(["whole number" if kind == "integer" else "number", *_bounds(value)])
        case "string":
            return "text"
        case "boolean":
            return "`true`, `false`"
        case "array":
            return f"list of {_type(value['items'])}" if "items" in value else "list"
        case "object":
            inner = value.get("additionalProperties")
            return f"mapping of names to {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
        case _:
            return "anything"


def _bounds(value: Schema) -> Iterator[str]:
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")):
        if key in value:
            yield f"{sign} {value[key]:g}"


def _blocks(value: Any) -> list[str]:
    """Names of the blocks that a key's value may be, or that its entries are."""
    if isinstance(value, dict):
        if "$ref" in value:
            return [value["$ref"].rsplit("/", 1)[1]]
        nested = (value.get(key) for key in ("anyOf", "oneOf", "additionalProperties", "items"))
        return list(dict.fromkeys(name for one in nested for name in _blocks(one)))
    if isinstance(value, list):
        return [name for one in value for name in _blocks(one)]
    return []


def _commands() -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    yield from _help(group, "judgeloop")
    for name in group.commands:
        yield from _help(group.commands[name], f"judgeloop {name}", group)


def _help(command: Any, path: str, parent: Any = None) -> Iterator[str]:
    settings = {"terminal_width": WIDTH, "max_content_width": WIDTH, "color": False}
    above = typer.Context(parent, info_name="judgeloop", **settings) if parent is not None else None
    context = type(command).context_class(command, info_name=path.rsplit(maxsplit=1)[-1], parent=above, **settings)
    yield f"## `{path}`\n"
    shown = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"```text\n{shown}\n```\n"


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is stale")
    check: bool = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        path = DOCS / name
        if check and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            stale.append(name)
        elif not check:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"stale: {', '.join(stale)}; run: python docs/generate.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
