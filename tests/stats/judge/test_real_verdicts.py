"""Verdicts that other people recorded and published, through the public estimators: their figures come out, or we say why not.

Data: LLMBar's case study (princeton-nlp/LLMBar, MIT; Zeng et al. 2024) and llmfao (dustalov/llmfao, CC BY 4.0; Dmitry
Ustalov 2023). They are not part of this repository: the folder is named by JUDGELOOP_REAL_DATA, else ../shared/data.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from judgeloop.stats.estimate import RATE_MARGIN, Estimate
from judgeloop.stats.inference import Interval
from judgeloop.stats.judge.content import gold_agreement
from judgeloop.stats.judge.estimates import judge_estimates
from judgeloop.stats.judge.position import first_slot_excess, position_estimates

DATA = Path(os.environ.get("JUDGELOOP_REAL_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))

pytestmark = pytest.mark.skipif(
    not (DATA / "llmbar_casestudy" / "verdicts.csv").is_file(),
    reason="recorded verdicts are not there; set JUDGELOOP_REAL_DATA to their folder",
)


def share(cell: str) -> float:
    """ "10 / 54 = 18.5%" and "48.1%" as a rate."""
    if "/" in cell:
        count, total = cell.split("=", maxsplit=1)[0].split("/")
        return int(count) / int(total)
    return float(cell.rstrip("%")) / 100


@pytest.fixture(scope="module")
def llmbar():
    folder = DATA / "llmbar_casestudy"
    items = pd.read_json(folder / "items.jsonl", lines=True)[["item_id", "subset", "len_a", "len_b", "human"]]
    verdicts = pd.read_csv(folder / "verdicts.csv", keep_default_na=False).merge(items, on="item_id")
    verdicts = verdicts.rename(columns={"subset": "category", "human": "gold"})
    verdicts["pair_id"] = verdicts["item_id"]
    verdicts["reason"] = np.where(verdicts["verdict"] == "na", "no verdict in the reply", "")
    return verdicts.replace({"verdict": {"na": "unscored"}})


@pytest.fixture(scope="module")
def cells(llmbar):
    """A row a judge and subset: the authors' rates, and ours from the public estimators."""
    authors = pd.read_csv(DATA / "llmbar_casestudy" / "author_statistics.csv")
    judged = dict(list(llmbar.groupby(["judge", "category"])))
    rows = []
    for _, cell in authors.iterrows():
        judgments = judged[f"{cell['judge']}/{cell['prompting']}", cell["subset"]]
        agreement, counts = gold_agreement(judgments)
        position: dict[str, Estimate] = {row.term: row for row in position_estimates(judgments) if not row.variant}
        lost = judgments[judgments["verdict"] == "unscored"]
        rows.append({
            "cell": f"{cell['judge']}/{cell['prompting']} {cell['subset']}", "asked": len(judgments),
            "pairs": judgments["pair_id"].nunique(), "unscored": counts.unscored,
            "both_lost": int((lost.groupby("pair_id").size() == 2).sum()),
            "right": agreement.estimate, "n": counts.n, "agree": position["order_agreement"].estimate,
            "complete": position["order_agreement"].n, "authors_right": share(cell["correct_average"]),
            "authors_agree": share(cell["equal"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def test_llmbar_cells_without_unscored_replies_are_the_authors_own(cells):
    whole = cells[cells["unscored"] == 0]
    assert (len(cells), len(whole)) == (150, 117)
    assert np.max(np.abs(whole["right"] - whole["authors_right"])) < 1e-9
    assert np.max(np.abs(whole["agree"] - whole["authors_agree"])) < 1e-9


def test_llmbar_cells_with_unscored_replies_follow_under_the_authors_convention(cells):
    # The authors keep a reply without a verdict as a third value: it is never right, it disagrees with any verdict, and
    # two of them agree with each other. Ours leaves them out and counts them; from its counts theirs follow exactly.
    part = cells[cells["unscored"] > 0]
    assert len(part) == 33
    assert part["unscored"].sum() == 75
    right = part["right"] * part["n"] / part["asked"]
    agree = (part["agree"] * part["complete"] + part["both_lost"]) / part["pairs"]
    assert np.max(np.abs(right - part["authors_right"])) < 1e-9
    assert np.max(np.abs(agree - part["authors_agree"])) < 1e-9
    # The convention matters: their accuracy is lower than that of the verdicts there are.
    assert (part["right"] > part["authors_right"]).all()


def test_llmbar_position_bias_is_large_where_it_is_and_equivalent_where_not(llmbar):
    estimates = judge_estimates(llmbar[llmbar["judge"].isin(["Falcon/CoT", "GPT-4/Metrics_Reference"])])
    rows = estimates[
        (estimates["term"] == "first_slot_excess") & (estimates["variant"] == "") & (estimates["category"] == "")
    ]
    rows = rows.set_index("judge")
    assert rows.loc["Falcon/CoT", "conf_low"] > 0.35
    assert rows.loc["GPT-4/Metrics_Reference", "status"] == "ok"
    assert rows.loc["GPT-4/Metrics_Reference", "verdict"] == "none"
    odds = estimates[
        (estimates["term"] == "position_log_odds")
        & (estimates["judge"] == "Falcon/CoT")
        & (estimates["category"] == "")
    ]
    # Deterministic replies: no log-odds, rather than a number made of the ½ that is added to a zero.
    assert odds["status"].tolist() == ["undefined"]
    assert set(estimates["category"]) == {"", *llmbar["category"]}


def plain_excess(path):
    """(judge, prompt) → first-slot excess over items with a verdict in both orders, by dictionaries from the file itself."""
    first: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            if line["verdict"] != "na":
                judge, prompt = line["judge"].split("/", 1)
                item = first.setdefault((judge, prompt), {}).setdefault(line["item_id"], {})
                item[line["order"]] = float(line["verdict"] == "first")
    return {
        key: sum(sum(orders.values()) / 2 - 0.5 for orders in items.values() if len(orders) == 2)
        / sum(len(orders) == 2 for orders in items.values())
        for key, items in first.items()
    }


def test_llmbar_ranks_the_six_judges_by_first_slot_excess_as_the_file_does(llmbar):
    ours = {}
    for name, judgments in llmbar.groupby("judge"):
        interval = first_slot_excess(judgments)
        assert isinstance(interval, Interval)
        ours[tuple(str(name).split("/", 1))] = interval
    plain = plain_excess(DATA / "llmbar_casestudy" / "verdicts.csv")
    assert ours.keys() == plain.keys()
    assert len(ours) == 30
    for key, interval in ours.items():
        assert interval.estimate == pytest.approx(plain[key], abs=1e-12)
    judges, prompts = (sorted({key[n] for key in ours}) for n in (0, 1))

    def ranked(excess):
        return sorted(judges, key=lambda judge: -excess[judge])

    for prompt in prompts:
        mine = {judge: ours[judge, prompt].estimate for judge in judges}
        assert ranked(mine) == ranked({judge: plain[judge, prompt] for judge in judges})
        # Falcon takes the first slot most with every prompt.
        assert ranked(mine)[0] == "Falcon"
        # GPT-4 stays within 6 points of none with every prompt, as no other judge does.
        assert abs(mine["GPT-4"]) < 0.06
    over = {judge: np.mean([ours[judge, prompt].estimate for prompt in prompts]) for judge in judges}
    assert ranked(over) == ["Falcon", "PaLM2", "ChatGPT", "ChatGPT-0301", "GPT-4", "LLaMA2"]
    # Places two to four are no ranking: they lie within half a point.
    assert over["PaLM2"] - over["ChatGPT-0301"] < 0.005
    # LLaMA2's mean near none hides two prompts with which it takes the second slot and two with the first, surely.
    llama = [ours["LLaMA2", prompt] for prompt in prompts]
    assert (sum(interval.low > 0.1 for interval in llama), sum(interval.high < -0.1 for interval in llama)) == (2, 2)
    assert all(
        max(abs(ours[judge, prompt].estimate) for prompt in prompts) > 0.15 for judge in judges if judge != "GPT-4"
    )


@pytest.fixture(scope="module")
def llmfao():
    verdicts = pd.read_csv(DATA / "llmfao" / "verdicts.csv")
    frame = verdicts.assign(
        pair_id=verdicts["item_id"].astype(str), item_id=verdicts["prompt_id"].astype(str),
        gold=verdicts["human"].fillna(""),
    )  # fmt: skip
    # The crowd as one more judge, a judgment a vote that is not a tie, shown as the models were.
    pairs = frame.drop_duplicates("pair_id")
    votes = pd.concat([
        pairs.loc[pairs.index.repeat(pairs[column].fillna(0).astype(int))].assign(verdict=slot)
        for column, slot in (("votes_a", "first"), ("votes_b", "second"))
    ])  # fmt: skip
    votes = votes.assign(judge="crowd", gold="", repeat=votes.groupby("pair_id").cumcount())
    return pd.concat([frame.assign(repeat=0), votes], ignore_index=True)


@pytest.fixture(scope="module")
def fao(llmfao):
    return judge_estimates(llmfao).set_index(["judge", "term", "variant"])


def test_llmfao_rates_are_those_recomputed_from_the_files(fao):
    first = fao.xs(("first_slot_excess", "ties_dropped"), level=("term", "variant"))["estimate"] + 0.5
    assert first["gpt-3.5"] == pytest.approx(0.672, abs=5e-4)
    assert first["gpt-4"] == pytest.approx(0.451, abs=5e-4)
    assert fao.loc[("crowd", "first_slot_excess", "single_order"), "estimate"] + 0.5 == pytest.approx(0.533, abs=5e-4)
    longer = fao.xs("longer_preferred_raw", level="term")["estimate"]
    assert longer["gpt-3.5", "ties_dropped"] == pytest.approx(0.538, abs=5e-4)
    assert longer["gpt-4", "ties_dropped"] == pytest.approx(0.391, abs=5e-4)
    assert longer["crowd", ""] == pytest.approx(0.410, abs=5e-4)


def test_llmfao_supports_no_claim_of_position_bias_and_a_careful_one_on_length(fao):
    # One order a pair: position cannot be told from content, and the report says so in place of a number.
    for judge in ("gpt-3.5", "gpt-4"):
        position = fao.loc[(judge, "first_slot_excess", "")]
        assert position["status"] == "undefined"
        assert "one order" in position["note"]
        # One gold of unknown reliability: no slope given quality, the raw rate named raw.
        assert fao.loc[(judge, "length_log_odds", ""), "status"] == "undefined"
        assert fao.loc[(judge, "longer_preferred_raw", ""), "note"].startswith("raw")
    # With 19 prompts as the clusters, both raw rates are compatible with no preference at all.
    for judge in ("gpt-3.5", "gpt-4"):
        raw = fao.loc[(judge, "longer_preferred_raw", "")]
        assert raw["n_items"] == 19
        assert raw["conf_low"] < 0.5 < raw["conf_high"]
    # Against the crowd on the same pairs, gpt-3.5 leans to the longer and gpt-4 does not: less than a raw .538
    # against .391 suggests, and relative to this crowd.
    lean = fao.loc[("gpt-3.5", "excess_longer_vs_gold", "")]
    assert 0 < lean["conf_low"] < lean["conf_high"] < 0.05
    # gpt-4's shorter lean is there and small: the whole interval lies within 5 points of none, so about no excess.
    lean = fao.loc[("gpt-4", "excess_longer_vs_gold", "")]
    assert lean["estimate"] == pytest.approx(-0.021, abs=0.002)
    assert -RATE_MARGIN < lean["conf_low"] < lean["conf_high"] < 0.005
    # One order: what looks like a preference for its own texts may be one for a slot.
    agreement = fao.loc[("gpt-4", "gold_agreement", ""), "note"]
    assert agreement.startswith("over calls, one order a pair")
    assert "the preference for a slot" in fao.loc[("gpt-4", "longer_preferred_raw", ""), "note"]
