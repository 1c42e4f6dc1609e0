"""Row H: the planted law over real HTTP, through server, client, prompts, verdict parsing, tables and estimators."""

from __future__ import annotations

import asyncio
import math
import tempfile

import numpy as np

from judgeloop.experiment.blocks import Endpoint
from judgeloop.experiment.judges import ModelJudge
from judgeloop.experiment.schema import PoolPolicy
from judgeloop.judging.frames import judgments_frame
from judgeloop.judging.judges import make_judge
from judgeloop.judging.pairing import presentations
from judgeloop.planted.answerer import PlantedAnswerer
from judgeloop.planted.spec import PlantedSpec
from judgeloop.policies.drafting import Drafter
from judgeloop.records import Candidate, Item, Judgment, Matchup
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.judge.covariates import covariates
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.judge.slopes import fit_slopes
from judgeloop.text import templates
from judgeloop.text.features import FEATURES, features_frame
from judgeloop.text.templates import Mode
from judgeloop.validate.position import number
from judgeloop.validate.row import Row, Scale, compare, demand, exact
from judgeloop.validate.worlds import logistic
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import WireClient

GAMMA, BETA = 0.4, 0.5
_MODES: tuple[Mode, ...] = ("logprob", "text")


def rows_h(scale: Scale) -> list[Row]:
    """A served judge with γ and β, and drafts of the same server. From log-probabilities both coefficients are recovered
    exactly, from text verdicts within their error. p_F = mean over the pairs of ½[s(γ + δ) + s(γ − δ)], δ = β·Δlog2 tokens."""
    pairs = scale.size(600, 200, 20)
    spec = PlantedSpec.model_validate({
        "position": GAMMA, "length": BETA, "seed": scale.seed, "draft": {"length_mean": 40, "length_sd": 0.8}
    })  # fmt: skip
    with LocalServer(create_app(PlantedAnswerer(spec))) as server, tempfile.TemporaryDirectory() as folder:
        endpoint = Endpoint(base_url=server.base_url, model="planted", concurrency=16)
        matchups, judgments = asyncio.run(_judge_drafts(endpoint, folder, pairs, scale.seed))
    drafts = [candidate for matchup in matchups for candidate in (matchup.a, matchup.b)]
    features = features_frame([candidate.text for candidate in drafts])[list(FEATURES)]
    features = features.assign(
        item_id=[draft.item_id for draft in drafts], candidate_id=[draft.candidate_id for draft in drafts]
    )
    lengths = features["length"].to_numpy()
    delta = BETA * (lengths[0::2] - lengths[1::2])
    items = {matchup.item_id: Item(matchup.item_id, _question(matchup.item_id)) for matchup in matchups}
    texts = features[["item_id", "candidate_id", "length"]]
    estimates: dict[str, dict[str, Estimate]] = {}
    slopes: dict[str, Interval | Undefined] = {}
    for mode in _MODES:
        table = judgments_frame(judgments[mode], items, lambda _item, _candidate: None, panel="pairs", generation=0)
        estimates[mode] = {row.term: row for row in position_estimates(table) if not row.variant}
        model = fit_slopes(covariates(table, texts))
        slopes[mode] = model if isinstance(model, Undefined) else model.slope("length")
    p = np.stack([logistic(GAMMA + delta), logistic(GAMMA - delta)])
    excess, error = float(p.mean()) - 0.5, math.sqrt(float(np.sum(p * (1 - p)))) / (2 * pairs)
    soft, hard = estimates["logprob"], estimates["text"]
    gamma = hard["position_log_odds"]
    soft_slope, hard_slope = slopes["logprob"], slopes["text"]
    if isinstance(soft_slope, Undefined) or isinstance(hard_slope, Undefined):
        raise TypeError("the served judge's slopes are undefined")
    setting = f"over HTTP, {pairs} pairs"
    rows = [
        exact("H", f"position_log_odds, log-probabilities {setting}", GAMMA, number(soft["position_log_odds"].estimate), 1e-9),
        exact("H", f"length_log_odds, log-probabilities {setting}", BETA, soft_slope.estimate, 1e-6),
        exact("H", f"first_slot_excess, log-probabilities {setting}", excess, number(soft["first_slot_excess"].estimate), 1e-9),
        compare("H", f"first_slot_excess, text {setting}", excess, number(hard["first_slot_excess"].estimate), error),
        compare("H", f"position_log_odds, text {setting}", GAMMA, number(gamma.estimate), number(gamma.std_error)),
        compare("H", f"length_log_odds, text {setting}", BETA, hard_slope.estimate, hard_slope.std_error),
    ]  # fmt: skip
    unscored = sum(judgment.verdict.slot == "unscored" for mode in _MODES for judgment in judgments[mode])
    return [demand(row, unscored == 0, f"{unscored} judgments are unscored") for row in rows]


def _question(item_id: str) -> str:
    return f"Describe place {item_id}."


async def _judge_drafts(
    endpoint: Endpoint, folder: str, pairs: int, seed: int
) -> tuple[list[Matchup], dict[str, list[Judgment]]]:
    """Two drafts an item, judged over HTTP in both orders and in each verdict mode."""
    endpoints = {"m": endpoint}
    items = [Item(f"i{k:04d}", _question(f"i{k:04d}")) for k in range(pairs)]
    cassette = Cassette(folder, writable=True)
    async with WireClient(endpoints, cassette, environment={}) as client:
        drafter = Drafter(client, PoolPolicy(endpoint="m"), endpoint, templates.load("draft", folder, "draft"), seed)
        matchups = await asyncio.gather(*(_matchup(drafter, item) for item in items))
        judgments: dict[str, list[Judgment]] = {}
        for mode in _MODES:
            judge = make_judge(
                ModelJudge(endpoint="m", verdict=mode), endpoints=endpoints, folder=folder, client=client, seed=seed
            )
            replies = await asyncio.gather(*(
                judge.judge(item, presentations([matchup]), f"audit/judge/{mode}", ("audit",))
                for item, matchup in zip(items, matchups, strict=True)
            ))  # fmt: skip
            judgments[mode] = [judgment for pair_judgments in replies for judgment in pair_judgments]
    return list(matchups), judgments


async def _matchup(drafter: Drafter, item: Item) -> Matchup:
    drafts: list[Candidate] = []
    for name in ("a", "b"):
        draft, why = await drafter.draft(item, name, "audit/draft", (0, 0, name))
        drafts.append(draft if draft is not None else Candidate(item.item_id, name, why))
    return Matchup(item.item_id, "m00", *drafts)
