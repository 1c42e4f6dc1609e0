"""The documentation is true: terms, generated pages, examples, links, and what the project says of itself."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
import yaml

import planted_run
import rated_rows
from judgeloop import analysis, errors, seeds
from judgeloop.cli.app import app
from judgeloop.commands.forecast import forecast_estimates
from judgeloop.commands.run import run as run_command
from judgeloop.experiment.resolve import resolve
from judgeloop.experiment.schema import Endpoint
from judgeloop.serving.faults import Faults
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.stats.compare.differences import judge_difference_estimates
from judgeloop.stats.design import RunTables
from judgeloop.stats.estimate import VERDICTS, estimates_frame
from judgeloop.stats.judge.estimates import judge_estimates
from judgeloop.stats.judge.mitigation import MITIGATIONS
from judgeloop.stats.judge.position import ARENA_FEATURES
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.stats.loop.panels import judge_drift_estimates, probe_panel_estimates
from judgeloop.text.features import FEATURES, STYLE_FEATURES, features_frame

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
METHOD = (DOCS / "method.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NUMBER = r"\d+(?:\.\d+)?"
MITIGATION = f"(?:{'|'.join(MITIGATIONS)})"
COMPUTED_VARIANTS = {
    "<dose>": NUMBER, "<model>": r".+", "<mitigation>": MITIGATION, "<mitigation>_disjoint": f"{MITIGATION}_disjoint",
    "<mitigation>_given_gold": f"{MITIGATION}_given_gold",
    "<scale>": r"\d+-\d+", "vs <judge>": r"vs [^,]+", "vs <judge>, no_gold": r"vs [^,]+, no_gold",
}  # fmt: skip


ELSEWHERE = (
    "pool_range_used_", "proxy_gain", "correct_per_proxy", "gao_", "best_of_n_", "judge_drift_disagreement", "reward_accuracy",
    "response_",
)  # fmt: skip
"""The planted run has no pools, no panel that is judged twice a generation, no reward model and no model that is trained: these are in tests/stats/loop/test_pools.py and
test_over_optimisation.py, tests/stats/judge/test_change.py, tests/commands/test_reward_model.py and tests/stats/loop/test_run_estimates.py."""


# -- terms ---------------------------------------------------------------------------------------------------------------


def tables(first: str) -> Iterator[list[str]]:
    """The rows of every table of method.md whose first header cell is ``first``."""
    inside = False
    for line in METHOD.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not set(line) <= set("|-"):
            yield cells


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


QUANTITIES = {name: row[2] for row in tables("Quantity") for name in quoted(row[0])}
RATES = ("first_slot_excess", "conflict_rate", "order_agreement", "longer_preferred_raw")
PLACEHOLDERS = {
    "<feature>": FEATURES, "<style>": STYLE_FEATURES, "<quantity>": tuple(QUANTITIES), "<rate>": RATES,
    "<arena>": ARENA_FEATURES, "<k>": tuple("12345678"), "<probe>": ("[a-z_]+",),
}  # fmt: skip


class Documented:
    """One term, or family of terms, of method.md."""

    def __init__(self, name: str, unit: str, variants: str) -> None:
        self.name, self._unit = name, unit
        self.pattern = re.escape(name)
        for placeholder, names in PLACEHOLDERS.items():
            self.pattern = self.pattern.replace(placeholder, f"({'|'.join(names)})")
        self.variants = ["", *(COMPUTED_VARIANTS.get(one, re.escape(one)) for one in quoted(variants))]

    def units(self, term: str) -> set[str]:
        if self._unit != "the quantity's":
            return set(self._unit.split("; "))
        name = next(name for name in sorted(QUANTITIES, key=len, reverse=True) if term.endswith(name))
        return {QUANTITIES[name]}


# The levels of diversity stand under the quantity's own name.
LEVELS = [name for name in QUANTITIES if f"`{name}`" in METHOD[METHOD.index("\n## Diversity") :]]
DOCUMENTED = [
    *(Documented(name, row[2], row[4]) for row in tables("Term") for name in quoted(row[0])),
    *(Documented(name, QUANTITIES[name], "") for name in LEVELS),
]


def judged() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judgments of two judges, by a coin, with everything that a term may need; and their texts' features."""
    stream = seeds.rng(0, "documented terms")
    words = [
        "the",
        "**bold**",
        "\n\n# Heading\n\n",
        "\n- item\n",
        "\n```\nx\n```\n",
        "perhaps",
        "however",
        "—",
        "!",
        "😀",
    ]
    texts, rows = [], []
    for item in range(40):
        for side in "ab":
            texts.append(
                {"item_id": f"i{item}", "candidate_id": side, "text": " ".join(stream.choice(words, size=30 + item))}
            )
        models = {"model_a": "m" if item % 2 else "other", "model_b": "third" if item % 3 else "baseline"}
        golds = [stream.choice(["a", "b", "tie"]) for _ in "12"]
        for judge in ("m", "other"):
            for order in ("ab", "ba"):
                for repeat in (0, 1):
                    verdict = str(stream.choice(["first", "second", "tie", "unscored"], p=[0.45, 0.4, 0.1, 0.05]))
                    rows.append({
                        "item_id": f"i{item}", "pair_id": f"i{item}", "judge": judge, "order": order, "repeat": repeat,
                        "verdict": verdict, "candidate_first": order[0], "candidate_second": order[1],
                        "identical": item % 8 == 0, "gold": golds[0], "gold_2": golds[1], "panel": "pairs", **models,
                    })  # fmt: skip
    probes = [
        {**row, "panel": "probe", "probe": probe, "dose": dose, "pair_id": f"{row['pair_id']}/{probe}/{dose}"}
        for row in rows
        for probe, dose in (("padding", 1.25), ("padding", 2.0), ("bold", np.nan))
    ]
    frame = pd.DataFrame(texts)
    return pd.DataFrame([*rows, *probes]), pd.concat([frame, features_frame(frame["text"])], axis=1)


def against_one_baseline(judgments: pd.DataFrame) -> pd.DataFrame:
    """The form of a leaderboard: one baseline in every pair, and lengths of both texts in characters."""
    lengths = judgments["item_id"].str[1:].astype(int)
    model = np.where(lengths % 2, "m", "other")
    chosen = judgments.assign(model_a=model, model_b="baseline", len_a=100 + lengths, len_b=100 + (lengths * 7) % 50)
    return chosen[chosen["panel"] == "pairs"]


def with_lost_verdicts(judgments: pd.DataFrame) -> pd.DataFrame:
    """Every fifth judgment without a verdict."""
    lost = np.arange(len(judgments)) % 5 == 0
    return judgments.assign(verdict=judgments["verdict"].mask(lost, "unscored"), p_first=np.nan)


def for_bold(judgments: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Verdicts for the text with more bold words, and a few without a verdict."""
    bold = texts.drop_duplicates(["item_id", "candidate_id"]).set_index(["item_id", "candidate_id"])["bold"]
    first, second = (
        bold.reindex(pd.MultiIndex.from_frame(judgments[["item_id", slot]])).to_numpy()
        for slot in ("candidate_first", "candidate_second")
    )
    coin = seeds.rng(0, "bold").random(len(judgments)) < 0.15
    verdict = pd.Series(np.where((first > second) ^ coin, "first", "second"), index=judgments.index)
    return judgments.assign(verdict=verdict.mask(np.arange(len(judgments)) % 50 == 0, "unscored"), p_first=np.nan)


def for_middle_length(judgments: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Verdicts for the text whose length is nearer to the median of all."""
    length = texts.drop_duplicates(["item_id", "candidate_id"]).set_index(["item_id", "candidate_id"])["length"]
    far = (length - length.median()).abs()
    first, second = (
        far.reindex(pd.MultiIndex.from_frame(judgments[["item_id", slot]])).to_numpy()
        for slot in ("candidate_first", "candidate_second")
    )
    coin = seeds.rng(0, "middle").random(len(judgments)) < 0.15
    return judgments.assign(verdict=np.where((first < second) ^ coin, "first", "second"), p_first=np.nan)


def probe_rows(judgments: pd.DataFrame) -> pd.DataFrame:
    """The rows of a run's probe panel, over two generations."""
    own = judgments[judgments["panel"] == "probe"]
    turns = pd.concat([own.assign(generation=turn, verdict=np.roll(own["verdict"], turn)) for turn in (0, 1)])
    turns = turns.assign(dose_reached=turns["dose"].fillna(1.2))
    same = turns[turns["probe"] == "bold"].assign(probe="identical", identical=True, pair_id="same")
    tables = RunTables(*[pd.DataFrame()] * 2, pd.concat([turns, same]), *[pd.DataFrame()] * 2)
    design = planted_run.design(1)
    return estimates_frame([*probe_panel_estimates(tables, design), *judge_drift_estimates(tables, design, {})])


def mitigated(judgments: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Every mitigation, with the second judge in the rubric's place."""
    empty = pd.array([pd.NA] * len(judgments), dtype="Int64")
    names = judgments["judge"].map({"m": "m", "other": f"m#{analysis.RUBRIC}/json"})
    frame = judgments.assign(judge=names, replicate=empty, generation=empty, arm="", p_first=np.nan)
    return analysis.mitigation_rows(frame, texts, MITIGATIONS)


@pytest.fixture(scope="module")
def emitted() -> pd.DataFrame:
    """(term, variant, unit) of every row that stats gives for a planted run and for coin-tossing judges."""
    tables, design = (
        planted_run.loop(generations=2, replicates=6, items=4, size=4, pairs=200, anchor=30),
        planted_run.design(2),
    )
    run = run_estimates(tables, design)
    arms = (design.arms[0], dataclasses.replace(design.arms[0], name="gold", strategy="accumulate"), design.arms[1])
    strategies = run_estimates(tables, dataclasses.replace(design, arms=arms, contrasts=()))
    judgments, texts = judged()
    frames = [
        run,
        estimates_frame(forecast_estimates(tables, 1, where="planted")[0]),
        strategies,
        judge_estimates(judgments, texts),
        judge_estimates(judgments[judgments["order"] == "ab"], texts),
        judge_estimates(judgments.assign(gold=judgments["item_id"].str[1:].astype(float) - 9.5, gold_2=""), texts),
        judge_estimates(against_one_baseline(judgments), texts),
        judge_estimates(with_lost_verdicts(judgments), texts, gold_exact=True),
        judge_estimates(for_middle_length(judgments, texts), texts, gold_exact=True),
        judge_estimates(with_lost_verdicts(for_middle_length(judgments, texts)), texts, gold_exact=True),
        judge_estimates(
            for_bold(judgments, texts), texts[["item_id", "candidate_id", "length", "bold"]], gold_exact=True
        ),
        mitigated(judgments, texts),
        probe_rows(judgments),
        *rated_rows.frames(),
        estimates_frame(judge_difference_estimates(judgments.assign(arm="", generation=pd.NA), texts, ["m", "other"])),
    ]
    return pd.concat(frames)[["term", "variant", "unit"]].drop_duplicates()


@pytest.mark.slow
def test_every_term_unit_and_variant_is_documented(emitted: pd.DataFrame) -> None:
    wrong = []
    for term, variant, unit in emitted.itertuples(index=False, name=None):
        found = [one for one in DOCUMENTED if re.fullmatch(one.pattern, term)]
        if not found:
            wrong.append(f"{term}: not in docs/method.md")
        elif not any(unit in one.units(term) for one in found):
            wrong.append(f"{term}: unit {unit!r}, documented {[sorted(one.units(term)) for one in found]}")
        elif not any(re.fullmatch(pattern, variant) for one in found for pattern in one.variants):
            wrong.append(f"{term}: variant {variant!r} is not documented")
    assert wrong == []


@pytest.mark.slow
def test_every_documented_term_and_variant_exists(emitted: pd.DataFrame) -> None:
    pairs = set(zip(emitted["term"], emitted["variant"], strict=True))
    absent = [
        f"{one.name} {variant}"
        for one in DOCUMENTED
        for variant in one.variants
        if not one.name.startswith(ELSEWHERE)
        # A model, the mitigation that a price is of, and the other judge are always named.
        if variant
        or not (
            COMPUTED_VARIANTS["<model>"] in one.variants or one.name.startswith(("mitigation_", "judge_difference_"))
        )
        if not any(re.fullmatch(one.pattern, term) and re.fullmatch(variant, given) for term, given in pairs)
    ]
    assert absent == [], absent


def test_the_words_of_the_verdicts_are_those_of_the_code() -> None:
    said = {row[0] for row in tables("Word")}
    assert said == set(VERDICTS) - {""}


# -- generated pages, links, examples ------------------------------------------------------------------------------------


def test_generated_pages_are_fresh(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    monkeypatch.syspath_prepend(DOCS)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(DOCS / "generate.py"), run_name="__main__")
    assert not ended.value.code, capsys.readouterr().err


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def blocks(page: str, kind: str) -> list[str]:
    """The fenced examples of a page with that info string."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@functools.cache
def command_tree() -> dict[str, Any]:
    """The commands by name."""
    return typer.main.get_command(app).commands  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_examples_exist(page: Path) -> None:
    commands = command_tree()
    wrong = []
    for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.match(r"(?:\$ )?judgeloop ([a-z]+)(.*)", line.split("  #")[0])
            if match is None:
                continue
            known = {option for one in getattr(commands.get(match[1]), "params", []) for option in one.opts}
            unknown = [option for option in re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", match[2]) if option not in known]
            if match[1] not in commands or unknown:
                wrong.append(f"{line}: {unknown or 'no such command'}")
    assert wrong == []


def test_endpoint_examples_are_endpoints() -> None:
    found = [yaml.safe_load(block) for block in blocks("serving.md", "yaml endpoints")]
    assert len(found) >= 3
    for block in found:
        for settings in block.values():
            Endpoint.model_validate(settings)


def test_the_example_of_the_experiment_page_is_valid() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", (DOCS / "experiment.md").read_text(encoding="utf-8"), re.DOTALL):
        assert resolve(yaml.safe_load(block)).confirmatory == ("judge", "coin")


@pytest.mark.slow
def test_the_served_example_runs_and_faults_do_not_change_it(tmp_path: Path) -> None:
    """The files of serving.md as they stand there, but for one replicate, one step and the port."""
    spec = PlantedSpec.model_validate(yaml.safe_load(blocks("serving.md", "yaml planted")[0]))
    faults = Faults.model_validate(yaml.safe_load(blocks("serving.md", "yaml faults")[0]))
    items = tmp_path / "items.jsonl"
    items.write_text(blocks("serving.md", "jsonl items")[0], encoding="utf-8")
    raw: dict[str, Any] = yaml.safe_load(blocks("serving.md", "yaml experiment")[0])
    raw |= {"items": str(items), "replicates": 1, "generations": 1}
    estimates = []
    for name, rules in (("plain", None), ("faulty", faults)):
        server = create_app(PlantedAnswerer(spec), faults=rules)
        with LocalServer(server) as running:
            raw["endpoints"]["m"]["base_url"] = running.base_url
            estimates.append(run_command(raw, out=tmp_path / name).estimates)
        assert (len(server.state.faults.fired) > 0) == (rules is not None)
    pd.testing.assert_frame_equal(*estimates)
    excess = estimates[0].query("term == 'first_slot_excess' and panel == 'anchor' and variant == ''")["estimate"]
    assert excess.iloc[0] > 0.05


def test_the_numbers_of_the_served_example_are_those_of_a_run() -> None:
    """1,009 calls: drafts of the panel and of every generation, and every pair in both orders; by the arms' sharing."""
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    items, size, steps, replicates, anchor = 3, 4, 2, 5, 6
    drafts = 2 * anchor + replicates * items * size * (1 + 3 * steps)
    picks = 2 * (anchor * (steps + 1) + replicates * items * (size * (size - 1) // 2) * (steps + 1))
    assert f"{drafts + picks + 1:,} calls" in text  # and one trial call, which chooses the verdict mode


# -- what the project says of itself -------------------------------------------------------------------------------------


def test_exit_codes_are_those_of_the_errors() -> None:
    text = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    said = {
        name: int(code) for code, row in re.findall(r"^\| (\d+) \|(.*)\|$", text, re.MULTILINE) for name in quoted(row)
    }
    kinds = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert {name: code for name, code in said.items() if name in kinds} == {
        name: kind.exit_code for name, kind in kinds.items()
    }


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert versions[0] == PROJECT["version"]
    assert "## [Unreleased]" in text


def test_the_citation_is_whole() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The judgeloop authors"}]
    assert (citation["title"], citation["version"], citation["license"]) == (
        PROJECT["name"], PROJECT["version"], PROJECT["license"],
    )  # fmt: skip
    assert citation["message"]
    allowed = {
        "cff-version",
        "message",
        "type",
        "title",
        "abstract",
        "authors",
        "version",
        "date-released",
        "license",
        "keywords",
    }
    assert set(citation) <= allowed
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", citation["date-released"])


def test_hooks_fetch_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert {"ruff-check", "ruff-format", "mypy"} <= {hook["id"] for hook in hooks}


def test_the_schema_behind_the_page_is_json() -> None:
    from judgeloop.experiment.schema import schema

    assert json.loads(json.dumps(schema())) == schema()
