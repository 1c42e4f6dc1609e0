"""Analysis of judgments that exist already: their judges' estimates, mitigations measured on them, and the run folder."""

from __future__ import annotations

import difflib
import functools
import hashlib
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pandas as pd
import yaml

from judgeloop.errors import InvalidInput
from judgeloop.experiment import inputs
from judgeloop.experiment.schema import LabelRule
from judgeloop.interchange.rows import Input, named
from judgeloop.interchange.texts import TextLog
from judgeloop.interchange.verdicts import VerdictLog
from judgeloop.learning.labels import preferences
from judgeloop.records import JUDGMENT_COLUMNS
from judgeloop.rundir import RunFolder, as_stored
from judgeloop.stats.compare.differences import judge_difference_estimates
from judgeloop.stats.estimate import Estimate, RowLabels, estimates_frame
from judgeloop.stats.items import marked, with_clusters
from judgeloop.stats.judge.estimates import judge_estimates
from judgeloop.stats.judge.mitigation import MITIGATIONS, Mitigation, majority, mitigation_estimates
from judgeloop.stats.judge.self_preference import own_model, self_preference_log_odds
from judgeloop.stats.loop.estimates import OTHER_ITEMS, SHARED, shared_items, text_estimates
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.stats.presentations import not_identical, quick_texts
from judgeloop.text.features import features_frame

TEXTS = "texts"
"""The mode of an analysis of texts without verdicts."""
RUBRIC = "rubric_scores"
"""The template that the mitigation ``rubric`` asks by."""
PICKS = "raw_picks"
"""The mitigation that takes raw labels without the verdicts' probabilities: what _OF_PICKS are compared with."""
_OF_PICKS = ("consistent_only", "rubric", "panel")
"""Mitigations whose labels are picks alone: against soft raw labels they would differ by the probabilities too."""
_RULES = ("raw", "swap_average", "consistent_only", "length_controlled")
"""Mitigations that are label rules."""
_GROUP = ["arm", "generation", "panel"]

Watch = Callable[[str, int, int], None]
"""Called with (judge, how many are done, of how many) before each judge's estimates."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """Judgments, their texts with features, and the estimates; frames with the columns of docs/contract.md, "Tables".

    ``identity``: a hash of all that the log depends on, empty where ``log`` is given instead. ``sources``: the files that
    were read. ``facts``: how the log was read, for environment.json. ``settings``: the options of the analysis.
    """

    name: str
    identity: str
    sources: Mapping[str, Any]
    judgments: pd.DataFrame
    candidates: pd.DataFrame
    items: pd.DataFrame
    estimates: pd.DataFrame
    facts: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    log: VerdictLog | None = None

    def bound_to(self) -> str:
        """The hash that a folder of this analysis is bound to: ``identity``, else that of the log."""
        if self.log is None:
            return self.identity
        return _identity(self.name, self.log, bool(self.facts.get("gold_exact")))


def analyze_log(
    log: VerdictLog,
    *,
    name: str,
    sources: Mapping[str, Any] | None = None,
    identity: str = "",
    mitigate: Sequence[str] = (),
    watch: Watch = lambda *_: None,
    scored_alone: Collection[str] = (),
    gold_exact: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Analysis:
    """Every estimate of the log's judges; those that the log has no data for are rows ``undefined`` with the reason.

    ``identity``: a hash of all that the log depends on; default that of the log itself. ``mitigate``: the mitigations to
    measure besides (``named_mitigations``). ``scored_alone``: judges that are known to score each text alone.
    ``gold_exact``: gold is a verifiable reference and cannot err, see ``content_estimates``. ``settings``: the options, for
    the folder's record. Raises InvalidInput for a mitigation that the log has no verdicts for.
    """
    check_mitigations_of_log(log.judgments, mitigate)
    candidates = candidates_frame(log.texts, _languages(log))
    texts = candidates if len(candidates) else None
    items = marked(log.items, log.texts)
    judgments = with_clusters(log.judgments, items)
    rows = estimates(judgments, texts, watch=watch, scored_alone=scored_alone, gold_exact=gold_exact)
    if mitigate:
        mitigations = mitigation_rows(judgments, _unedited(judgments, texts), mitigate, watch=watch)
        rows = pd.concat([rows, mitigations], ignore_index=True)
    if log.length_unit == "tokens" and texts is None:
        # The reference code counts characters; a win rate of token lengths must not pass for its number.
        alpaca = rows["term"] == "alpaca_lc_winrate"
        note = "lengths in tokens, where the reference code takes characters"
        rows.loc[alpaca, "note"] = rows.loc[alpaca, "note"].map(lambda old: f"{old}; {note}" if old else note)
    facts: dict[str, Any] = {"length_unit": log.length_unit} if log.length_unit else {}
    if log.unused_pairs:
        facts["pairs_without_verdict"] = log.unused_pairs
    if gold_exact:
        facts["gold_exact"] = True
    if log.notes:
        facts["import_notes"] = list(log.notes)
    return Analysis(
        name,
        identity,
        dict(sources or {}),
        log.judgments,
        candidates,
        items,
        rows,
        facts,
        dict(settings or {}),
        None if identity else log,
    )


def analyze_texts(
    log: TextLog, *, name: str, sources: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> Analysis:
    """Drift, diversity and tails of texts by generation, with no judgment (``stats.loop.text_log``)."""
    features = features_frame(log.texts["text"].tolist(), log.texts["language"].tolist())
    candidates = pd.concat([log.texts.drop(columns="language"), features], axis=1)
    items = marked(log.items)
    digest = hashlib.sha256(name.encode())
    for frame in (log.texts, log.items):
        digest.update(frame.to_csv(index=False).encode("utf-8", "replace"))
    notes = [*log.notes, *([OTHER_ITEMS] if shared_items(candidates) < SHARED else [])]
    facts: dict[str, Any] = {"mode": TEXTS, **({"import_notes": notes} if notes else {})}
    return Analysis(
        name, f"sha256:{digest.hexdigest()}", dict(sources), pd.DataFrame(columns=list(JUDGMENT_COLUMNS)), candidates, items,
        text_estimates(candidates, items, log.controls), facts, dict(settings or {}),
    )  # fmt: skip


def estimates(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    *,
    watch: Watch = lambda *_: None,
    scored_alone: Collection[str] = (),
    gold_exact: bool = False,
    bootstrap: bool = True,
) -> pd.DataFrame:
    """``judge_estimates`` of all judges, one judge after the other, with ``watch`` called before each.

    A judge's estimates and their adjustment rest on its own judgments; the other judges' verdicts enter
    ``self_preference_log_odds`` and ``judge_difference_<term>`` alone. Features are scaled by all texts but probes' edits.
    """
    texts = _unedited(judgments, texts)
    judgments, texts = quick_texts(judgments), None if texts is None else quick_texts(texts)
    judges = sorted(judgments["judge"].unique())
    parts = []
    for done, judge in enumerate(judges):
        watch(judge, done, len(judges))
        own = judgments[judgments["judge"] == judge]
        parts.append(judge_estimates(own, texts, scored_alone=scored_alone, gold_exact=gold_exact, bootstrap=bootstrap))
    plain = bases(judges)
    if len(plain) > 1:
        # A rubric is the same model: as a further judge it would count the model's preference for its own texts twice.
        several = judgments[judgments["judge"].isin(plain)]
        parts = [
            part[part["term"] != "self_preference_log_odds"] if judge in plain else part
            for judge, part in zip(judges, parts, strict=True)
        ]
        differences = estimates_frame(judge_difference_estimates(judgments, texts, plain))
        parts += [_self_preference(several, texts), differences]
    return parts[0] if len(parts) == 1 else adjust(with_judge_families(pd.concat(parts, ignore_index=True)))


def _unedited(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> pd.DataFrame | None:
    """The texts of panels other than probe: an edit must not move the scale on which its original is measured."""
    if texts is None or "panel" not in judgments or not (judgments["panel"] == "probe").any():
        return texts
    pairs = judgments[judgments["panel"] != "probe"]
    unedited = {
        key for slot in ("candidate_first", "candidate_second") for key in zip(pairs["item_id"], pairs[slot], strict=True)
    }  # fmt: skip
    is_unedited = [key in unedited for key in zip(texts["item_id"], texts["candidate_id"], strict=True)]
    return texts[is_unedited].reset_index(drop=True)


def _self_preference(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> pd.DataFrame:
    """The rows ``self_preference_log_odds`` of every judge, which rest on several judges' verdicts."""
    rows: list[Estimate] = []
    for (arm, generation, panel), several in judgments.groupby(["arm", "generation", "panel"], dropna=False, sort=True):
        if panel == "probe":
            continue
        for judge in sorted(several["judge"].unique()):
            labels = RowLabels(judge, str(arm), _generation(generation), str(panel))
            rows.append(self_preference_log_odds(several, texts, labels))
    return estimates_frame(rows)


def _generation(value: object) -> int | None:
    """A generation as groups have it; None where the log has none."""
    return None if pd.isna(cast(float, value)) else int(cast(float, value))


def candidates_frame(texts: pd.DataFrame, languages: list[str] | None = None) -> pd.DataFrame:
    """The table candidates: the texts (``item_id, candidate_id, text``) with their features; replicate, arm and generation
    are empty. ``languages``: one a text; default English. Without texts an empty frame."""
    if texts.empty:
        return pd.DataFrame()
    empty = pd.array([pd.NA] * len(texts), dtype="Int64")
    place = pd.DataFrame({"replicate": empty, "arm": "", "generation": empty})
    return pd.concat([place, texts, features_frame(texts["text"].tolist(), languages)], axis=1)


def _languages(log: VerdictLog) -> list[str] | None:
    """The language of each text, by its item: from the items, or a column that the log's author added."""
    table = next((frame for frame in (log.items, log.judgments) if "language" in frame), None)
    if table is None:
        return None
    tags = table.dropna(subset=["language"]).drop_duplicates("item_id").set_index("item_id")["language"]
    return [str(tag) or "en" for tag in log.texts["item_id"].map(tags).fillna("en")]


# -- mitigations of a judge's bias, measured on its verdicts -----------------------------------------------------------


def named_mitigations(words: str | Sequence[str]) -> tuple[str, ...]:
    """The mitigations named, in reporting order and with ``raw`` among them, to compare with; none for no words.

    ``words``: a list, or one text with commas. Raises InvalidInput for an unknown one.
    """
    listed = words.split(",") if isinstance(words, str) else list(words)
    names = [word.strip() for word in listed if word.strip()]
    offered = [name for name in MITIGATIONS if name not in ("raw", PICKS)]
    for name in names:
        if name not in (*offered, "raw"):
            near = difflib.get_close_matches(name, offered, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(offered)}"
            raise InvalidInput(f"--mitigate: unknown mitigation {name!r}; {hint}")
    return tuple(name for name in MITIGATIONS if name in {*names, "raw"}) if names else ()


def check_mitigations(names: Sequence[str], *, judges: int, repeats: int, asks: bool, rubric: bool = False) -> None:
    """Raises InvalidInput for a mitigation that needs more judges or repeats. ``asks``: models can be asked; ``rubric``: a
    judge was asked by the rubric already."""
    if "panel" in names and judges < 2 and repeats < 2:
        more = "give two or more --model, or --repeats" if asks else "the log holds one judge and no repeats"
        raise InvalidInput(f"--mitigate panel: a majority needs several verdicts on the same presentation; {more}")
    if "rubric" in names and not (asks or rubric):
        raise InvalidInput(
            f"--mitigate rubric: it asks the model again by the prompt {RUBRIC}, and the log holds no such judge; "
            "use judgeloop audit --mitigate rubric"
        )


def check_mitigations_of_log(judgments: pd.DataFrame, names: Sequence[str]) -> None:
    """Raises InvalidInput for a mitigation that these judgments have no verdicts for."""
    pairs = judgments[judgments["panel"] != "probe"]
    judges = list(judgments["judge"].unique())
    plain, repeats = bases(judges), int(pairs["repeat"].nunique()) if len(pairs) else 0
    check_mitigations(names, judges=len(plain), repeats=repeats, asks=False, rubric=len(plain) < len(judges))


def is_rubric(judge: str) -> bool:
    """Whether that judge is a model asked by the rubric, for the mitigation of that name."""
    return judge.partition("#")[2].partition("/")[0] == RUBRIC


def rubric_of(judge: str, judges: Sequence[str]) -> str | None:
    """The judge of the log that is the same model asked by the rubric; None where there is none."""
    return next((name for name in judges if is_rubric(name) and own_model(name) == own_model(judge)), None)


def bases(judges: Sequence[str]) -> list[str]:
    """The judges without those that are a rubric of another, which are neither mitigated nor compared."""
    return [judge for judge in judges if not is_rubric(judge)] or list(judges)


def mitigation_rows(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    names: Sequence[str],
    *,
    watch: Callable[[str, int, int], None] = lambda *_: None,
) -> pd.DataFrame:
    """``mitigation_estimates`` of the mitigations ``names`` (``named_mitigations``), for every judge of the log but rubrics.

    ``judgments``: the columns of docs/contract.md, "Tables", of several judges, arms, generations and panels; probes are
    left out. ``watch`` is called with (judge, done, of). Raises InvalidInput for a mitigation that these judgments have no
    verdicts for.
    """
    rows: list[Estimate] = []
    if not names:
        return estimates_frame(rows)
    judgments, texts = quick_texts(judgments), None if texts is None else quick_texts(texts)
    pairs = judgments[judgments["panel"] != "probe"]
    judges = sorted(judgments["judge"].unique())
    check_mitigations_of_log(judgments, names)
    plain = bases(judges)
    for done, judge in enumerate(plain):
        watch(judge, done, len(plain))
        of_judge = pairs[pairs["judge"] == judge]
        for (arm, generation, panel), own in of_judge.groupby(_GROUP, dropna=False, sort=True):
            several = _of_group(pairs, arm, generation, panel)
            mitigations = [
                mitigation
                for name in _with_picks(names, own)
                if (mitigation := _mitigation(name, judge, own, several, judges)) is not None
            ]
            labels = RowLabels(judge, str(arm), _generation(generation), str(panel))
            rows += mitigation_estimates(own, mitigations, texts, labels)
    return estimates_frame(rows)


def _with_picks(names: Sequence[str], own: pd.DataFrame) -> list[str]:
    """The names in reporting order, with PICKS where the judge's verdicts are soft and a name is of picks alone."""
    soft = "p_first" in own and bool(own["p_first"].notna().any())
    chosen = {*names, PICKS} if soft and set(names) & set(_OF_PICKS) else set(names)
    return [name for name in MITIGATIONS if name in chosen]


def _of_group(pairs: pd.DataFrame, arm: object, generation: object, panel: object) -> pd.DataFrame:
    """All judges' judgments of that arm, generation and panel."""
    in_generation = pairs["generation"].isna() if _generation(generation) is None else pairs["generation"] == generation
    return pairs[(pairs["arm"] == arm) & in_generation & (pairs["panel"] == panel)]


def _mitigation(
    name: str, judge: str, own: pd.DataFrame, several: pd.DataFrame, judges: Sequence[str]
) -> Mitigation | None:
    """That mitigation of this judge's judgments ``own``; None where the judgments have no verdicts for it. ``several``: all
    judges' judgments of the same group."""
    zeroed = ("length",) if name == "length_controlled" else ()
    if name in _RULES:
        return Mitigation(name, preferences(own, cast(LabelRule, name)), own, len(not_identical(own)), zeroed)
    if name == PICKS:
        hard = own.assign(p_first=float("nan"))
        return Mitigation(name, preferences(hard, "raw"), hard, len(not_identical(own)))
    if name == "rubric":
        rubric = rubric_of(judge, judges)
        asked = several[several["judge"] == rubric] if rubric is not None else several.iloc[:0]
    else:
        asked = _asked_of_all(several[~several["judge"].map(is_rubric)])
        if asked.groupby(["item_id", "pair_id", "order"]).size().max() < 2:
            return None
    if asked.empty:
        return None
    verdicts = asked if name == "rubric" else majority(asked, "panel")
    return Mitigation(name, preferences(verdicts, "raw"), verdicts, len(not_identical(asked)))


def _asked_of_all(members: pd.DataFrame) -> pd.DataFrame:
    """The judgments of pairs that every member was asked: a majority of one is not a panel's."""
    count = members["judge"].nunique()
    asked_by = members.groupby(["item_id", "pair_id"])["judge"].transform("nunique")
    return members[asked_by == count]


# -- an analysis as a run folder ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnalysisRecord:
    """An analysis in memory, read as its run folder would be: the same tables with the same types. See rundir.Record."""

    analysis: Analysis

    @property
    def name(self) -> str:
        """The analysis's name, which is its folder's by default."""
        return self.analysis.name

    def table(self, name: str) -> pd.DataFrame:
        """The table of that name; an empty frame where the analysis has none."""
        frame = tables(self.analysis).get(name)
        return pd.DataFrame() if frame is None else as_stored(name, frame)

    def estimates(self) -> pd.DataFrame:
        """The estimates, a row each."""
        return as_stored("estimates", self.analysis.estimates)

    def environment(self) -> dict[str, Any]:
        """The content of environment.json: the hash, files, versions, and how the log was read."""
        analysis = self.analysis
        settings = {"settings": dict(analysis.settings)} if analysis.settings else {}
        return {**analysis.facts, **settings, **environment(analysis.bound_to(), analysis.sources)}

    def experiment_text(self) -> str:
        """The content of experiment.yaml: the analysis's name and the names of the files that were read."""
        names = {role: source["name"] for role, source in self.analysis.sources.items()}
        return yaml.safe_dump({"name": self.analysis.name, "analyze": names}, sort_keys=False)


def tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """The tables that the analysis has, by name; none without a row."""
    named = {"judgments": analysis.judgments, "candidates": analysis.candidates, "items": analysis.items}
    return {name: frame for name, frame in named.items() if len(frame)}


def write(analysis: Analysis, folder: RunFolder) -> None:
    """Write the analysis as a run folder; generation, arm and replicate are empty where the log has none. Raises
    FolderMismatch where the folder holds something else, StorageFailed where it cannot be written."""
    with folder.claim(analysis.bound_to()):
        record = AnalysisRecord(analysis)
        folder.write_json("environment.json", record.environment())
        folder.write_text("experiment.yaml", record.experiment_text())
        write_tables(analysis, folder)


def write_tables(analysis: Analysis, folder: RunFolder) -> None:
    """Write the tables and the estimates into a folder that is claimed already."""
    for name, frame in tables(analysis).items():
        folder.write_part(name, "log", frame)
    folder.write_estimates(analysis.estimates)


def _identity(name: str, log: VerdictLog, gold_exact: bool) -> str:
    """SHA-256 of all that the estimates depend on, so that another log's folder is not overwritten."""
    digest = hashlib.sha256(name.encode() + (b"/gold exact" if gold_exact else b""))
    for frame in (log.judgments, log.texts, log.items):
        digest.update(frame.to_csv(index=False).encode("utf-8", "replace"))
    return f"sha256:{digest.hexdigest()}"


def environment(identity: str, sources: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """Hashes and versions that the estimates depend on. ``more``: further libraries whose versions count."""
    libraries = ("numpy", "scipy", "pandas", "markdown-it-py", "pyromark", "emoji", "pyarrow", *more)
    return {
        "experiment_hash": identity,
        "files": {source["name"]: source["hash"] for source in sources.values() if "hash" in source},
        "judgeloop": _version("judgeloop"),
        "python": platform.python_version(),
        "libraries": {library: _version(library) for library in libraries},
    }


_version = functools.cache(metadata.version)


def sources_of(verdicts: Input, pairs: Input | None, columns: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """The files that were read, for the folder's record: role → their names without folders, and their hashes."""
    inputs_by_role = {
        "verdicts": verdicts, "pairs": pairs, "columns": columns if isinstance(columns, str | Path) else None,
    }  # fmt: skip
    sources: dict[str, Any] = {}
    for role, source in inputs_by_role.items():
        if source is None:
            continue
        is_file = not isinstance(source, pd.DataFrame) and Path(source).is_file()
        sources[role] = {
            "name": Path(str(source)).name if is_file else named(source, "frame"),
            **({"hash": inputs.file_hash(Path(str(source)))} if is_file else {}),
        }
    return sources
