"""The static path: judgments that exist already, in; estimates of their judges, out. No model is asked."""

from __future__ import annotations

import difflib
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
from judgeloop.interchange.rows import Columns, Input, named
from judgeloop.interchange.verdicts import VerdictLog, read_verdicts
from judgeloop.learning.labels import preferences
from judgeloop.rundir import RunFolder, as_stored
from judgeloop.stats.compare.differences import judge_difference_estimates
from judgeloop.stats.estimate import Estimate, RowLabels, estimates_frame
from judgeloop.stats.judge.estimates import judge_estimates
from judgeloop.stats.judge.mitigation import MITIGATIONS, Mitigation, majority, mitigation_estimates
from judgeloop.stats.judge.self_preference import own_model, self_preference_log_odds
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.stats.presentations import not_identical
from judgeloop.text.features import features_frame

# Mitigations of a judge's bias, measured on verdicts that were given: each one's labels, by the rules that loops train on.

RUBRIC = "rubric_scores"
"""The template that the mitigation ``rubric`` asks by."""
PICKS = "raw_picks"
"""Raw labels without the verdicts' probabilities."""
_OF_PICKS = ("consistent_only", "rubric", "panel")
"""What is made of picks alone: beside soft raw labels they would differ by the probabilities too."""
_RULES = ("raw", "swap_average", "consistent_only", "length_controlled")
_GROUP = ["arm", "generation", "panel"]


def named_mitigations(words: str | Sequence[str]) -> tuple[str, ...]:
    """The mitigations named, in reporting order and with ``raw`` among them, to compare with; none for no words.

    ``words``: a list, or one text with commas. Raises InvalidInput for an unknown one.
    """
    given = words.split(",") if isinstance(words, str) else list(words)
    names = [word.strip() for word in given if word.strip()]
    offered = [name for name in MITIGATIONS if name not in ("raw", PICKS)]
    for name in names:
        if name not in (*offered, "raw"):
            near = difflib.get_close_matches(name, offered, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(offered)}"
            raise InvalidInput(f"--mitigate: unknown mitigation {name!r}; {hint}")
    return tuple(name for name in MITIGATIONS if name in {*names, "raw"}) if names else ()


def refuse(names: Sequence[str], *, judges: int, repeats: int, asks: bool, rubric: bool = False) -> None:
    """Raises InvalidInput for a mitigation that these judges and repeats cannot bear. ``asks``: models can be asked;
    ``rubric``: a judge was asked by the rubric already."""
    if "panel" in names and judges < 2 and repeats < 2:
        more = "give two or more --model, or --repeats" if asks else "the log holds one judge and no repeats"
        raise InvalidInput(f"--mitigate panel: a majority needs several verdicts on the same presentation; {more}")
    if "rubric" in names and not (asks or rubric):
        raise InvalidInput(
            f"--mitigate rubric: it asks the model again by the prompt {RUBRIC}, and the log holds no such judge; "
            "use judgeloop audit --mitigate rubric"
        )


def is_rubric(judge: str) -> bool:
    """Whether that judge is a model asked by the rubric for the mitigation's sake."""
    return judge.partition("#")[2].partition("/")[0] == RUBRIC


def rubric_of(judge: str, judges: Sequence[str]) -> str | None:
    """The judge of the log that is the same model asked by the rubric."""
    return next((one for one in judges if is_rubric(one) and own_model(one) == own_model(judge)), None)


def check(judgments: pd.DataFrame, names: Sequence[str]) -> None:
    """Raises InvalidInput where these judgments do not bear a mitigation that was named (see ``wanted``)."""
    pairs = judgments[judgments["panel"] != "probe"]
    every = list(judgments["judge"].unique())
    own, repeats = bases(every), int(pairs["repeat"].nunique()) if len(pairs) else 0
    refuse(names, judges=len(own), repeats=repeats, asks=False, rubric=len(own) < len(every))


def bases(judges: Sequence[str]) -> list[str]:
    """The judges that mitigations are of, and that are compared: a rubric asked for the mitigation's sake is no judge more."""
    return [judge for judge in judges if not is_rubric(judge)] or list(judges)


def mitigation_rows(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    names: Sequence[str],
    *,
    watch: Callable[[str, int, int], None] = lambda *_: None,
) -> pd.DataFrame:
    """The rows of ``names`` (see ``wanted``) for every judge of the log, but for rubrics; ``stats.mitigation_estimates``.

    ``judgments``: the columns of docs/contract.md, "Tables", of several judges, arms, generations and panels; probes
    are left out. ``watch`` is told (judge, done, of). Raises InvalidInput where a mitigation was named that no judge
    here bears.
    """
    rows: list[Estimate] = []
    if not names:
        return estimates_frame(rows)
    pairs = judgments[judgments["panel"] != "probe"]
    every = sorted(judgments["judge"].unique())
    check(judgments, names)
    judges = bases(every)
    for done, judge in enumerate(judges):
        watch(judge, done, len(judges))
        of_judge = pairs[pairs["judge"] == judge]
        for (arm, generation, panel), own in of_judge.groupby(_GROUP, dropna=False, sort=True):
            turn = None if pd.isna(cast(float, generation)) else int(cast(float, generation))
            several = _same(pairs, arm, generation, panel)
            found = [
                one
                for name in _with_picks(names, own)
                if (one := _mitigation(name, judge, own, several, every)) is not None
            ]
            rows += mitigation_estimates(own, found, texts, RowLabels(judge, str(arm), turn, str(panel)))
    return estimates_frame(rows)


def _with_picks(names: Sequence[str], own: pd.DataFrame) -> list[str]:
    soft = "p_first" in own and bool(own["p_first"].notna().any())
    wanted = {*names, PICKS} if soft and set(names) & set(_OF_PICKS) else set(names)
    return [name for name in MITIGATIONS if name in wanted]


def _same(pairs: pd.DataFrame, arm: object, generation: object, panel: object) -> pd.DataFrame:
    turn = pairs["generation"].isna() if pd.isna(cast(float, generation)) else pairs["generation"] == generation
    return pairs[(pairs["arm"] == arm) & turn & (pairs["panel"] == panel)]


def _mitigation(
    name: str, judge: str, own: pd.DataFrame, several: pd.DataFrame, every: Sequence[str]
) -> Mitigation | None:
    """That mitigation of this judge's judgments; None where these judgments do not bear it."""
    zeroed = ("length",) if name == "length_controlled" else ()
    if name in _RULES:
        return Mitigation(name, preferences(own, cast(LabelRule, name)), own, len(not_identical(own)), zeroed)
    if name == PICKS:
        hard = own.assign(p_first=float("nan"))
        return Mitigation(name, preferences(hard, "raw"), hard, len(not_identical(own)))
    if name == "rubric":
        other = rubric_of(judge, every)
        asked = several[several["judge"] == other] if other is not None else several.iloc[:0]
    else:
        members = several[~several["judge"].map(is_rubric)]
        asked = _shared(members)
        if asked.groupby(["item_id", "pair_id", "order"]).size().max() < 2:
            return None
    if asked.empty:
        return None
    made = asked if name == "rubric" else majority(asked, "panel")
    return Mitigation(name, preferences(made, "raw"), made, len(not_identical(asked)))


def _shared(members: pd.DataFrame) -> pd.DataFrame:
    """The judgments of pairs that every member was asked: a majority of one is not a panel's."""
    count = members["judge"].nunique()
    asked_by = members.groupby(["item_id", "pair_id"])["judge"].transform("nunique")
    return members[asked_by == count]


Watch = Callable[[str, int, int], None]
"""Told (judge, how many are done, of how many) before each judge's estimates."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """Judgments that were read, their texts measured, and the estimates; frames with the columns of
    docs/contract.md, "Tables"."""

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
        """The hash that a folder of this analysis is bound to: ``identity``, or else the log's, made when it is asked for."""
        if self.log is None:
            return self.identity
        return _identity(self.name, self.log, bool(self.facts.get("gold_exact")))


def read(verdicts: Input, pairs: Input | None = None, columns: Columns | None = None) -> VerdictLog:
    """The log, checked and joined. Raises InvalidInput."""
    return read_verdicts(verdicts, pairs, columns)


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
    """Every static estimate that the log bears, and for what it does not bear rows ``undefined`` that say why.

    ``identity``: a hash of all that the log depends on; default that of the log itself. ``mitigate``: the mitigations to
    measure besides (``mitigating.wanted``). ``scored_alone``: judges that are known to score each text alone.
    ``gold_exact``: gold is a verifiable reference and cannot err, see ``content_estimates``. ``settings``: what was asked
    besides, for the folder's record. Raises InvalidInput for one that the log does not bear.
    """
    check(log.judgments, mitigate)
    candidates = _candidates(log)
    texts = candidates if len(candidates) else None
    found = estimates(log.judgments, texts, watch=watch, scored_alone=scored_alone, gold_exact=gold_exact)
    if mitigate:
        measured = mitigation_rows(log.judgments, _unedited(log.judgments, texts), mitigate, watch=watch)
        found = pd.concat([found, measured], ignore_index=True)
    if log.length_unit == "tokens" and texts is None:
        # The reference code counts characters; a win rate of token lengths must not pass for its number.
        alpaca = found["term"] == "alpaca_lc_winrate"
        note = "lengths in tokens, where the reference code takes characters"
        found.loc[alpaca, "note"] = found.loc[alpaca, "note"].map(lambda old: f"{old}; {note}" if old else note)
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
        log.items,
        found,
        facts,
        dict(settings or {}),
        None if identity else log,
    )


def estimates(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    *,
    watch: Watch = lambda *_: None,
    scored_alone: Collection[str] = (),
    gold_exact: bool = False,
) -> pd.DataFrame:
    """``judge_estimates`` of all judges, one judge after the other, so that a long analysis can say where it is.

    A judge's estimates and their adjustment rest on its own judgments; what the other judges make of its texts enters
    ``self_preference_log_odds`` alone, and ``judge_difference_<term>``. Features are scaled by all texts but probes' edits.
    """
    texts = _unedited(judgments, texts)
    judges = sorted(judgments["judge"].unique())
    parts = []
    for done, judge in enumerate(judges):
        watch(judge, done, len(judges))
        own = judgments[judgments["judge"] == judge]
        parts.append(judge_estimates(own, texts, scored_alone=scored_alone, gold_exact=gold_exact))
    plain = bases(judges)
    if len(plain) > 1:
        # A rubric is the same model: as a further judge it would count the model's own taste twice.
        several = judgments[judgments["judge"].isin(plain)]
        parts = [
            part[part["term"] != "self_preference_log_odds"] if judge in plain else part
            for judge, part in zip(judges, parts, strict=True)
        ]
        differences = estimates_frame(judge_difference_estimates(judgments, texts, plain))
        parts += [_self_preference(several, texts), differences]
    return parts[0] if len(parts) == 1 else adjust(with_judge_families(pd.concat(parts, ignore_index=True)))


def _unedited(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> pd.DataFrame | None:
    """The texts that stand in other panels than probe: an edit must not move the scale that its original is measured on."""
    if texts is None or "panel" not in judgments or not (judgments["panel"] == "probe").any():
        return texts
    some = judgments[judgments["panel"] != "probe"]
    shown = {
        place for slot in ("candidate_first", "candidate_second") for place in zip(some["item_id"], some[slot], strict=True)
    }  # fmt: skip
    kept = [place in shown for place in zip(texts["item_id"], texts["candidate_id"], strict=True)]
    return texts[kept].reset_index(drop=True)


def _self_preference(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> pd.DataFrame:
    rows: list[Estimate] = []
    for (arm, generation, panel), several in judgments.groupby(["arm", "generation", "panel"], dropna=False, sort=True):
        if panel == "probe":
            continue
        turn = None if pd.isna(cast(float, generation)) else int(cast(float, generation))
        for judge in sorted(several["judge"].unique()):
            rows.append(self_preference_log_odds(several, texts, RowLabels(judge, str(arm), turn, str(panel))))
    return estimates_frame(rows)


def sources_of(verdicts: Input, pairs: Input | None, columns: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """What was read, for the folder's record: file names without their folders, and hashes where there are files."""
    given = {"verdicts": verdicts, "pairs": pairs, "columns": columns if isinstance(columns, str | Path) else None}
    found: dict[str, Any] = {}
    for role, source in given.items():
        if source is None:
            continue
        is_file = not isinstance(source, pd.DataFrame) and Path(source).is_file()
        found[role] = {
            "name": Path(str(source)).name if is_file else named(source, "frame"),
            **({"hash": inputs.file_hash(Path(str(source)))} if is_file else {}),
        }
    return found


@dataclass(frozen=True)
class AnalysisRecord:
    """An analysis in memory, read as its run folder would be: the same tables, typed alike. See rundir.Record."""

    analysis: Analysis

    @property
    def name(self) -> str:
        """What the analysis is called, as its folder by default."""
        return self.analysis.name

    def table(self, name: str) -> pd.DataFrame:
        """The table of that name; an empty frame where the log bears none."""
        frame = tables(self.analysis).get(name)
        return pd.DataFrame() if frame is None else as_stored(name, frame)

    def estimates(self) -> pd.DataFrame:
        """The estimates, a row each."""
        return as_stored("estimates", self.analysis.estimates)

    def environment(self) -> dict[str, Any]:
        """What stands in environment.json: the hash, files, versions, and how the log was read."""
        made = self.analysis
        asked = {"settings": dict(made.settings)} if made.settings else {}
        return {**made.facts, **asked, **environment(made.bound_to(), made.sources)}

    def experiment_text(self) -> str:
        """What stands in experiment.yaml: the analysis's name and what was read."""
        names = {role: source["name"] for role, source in self.analysis.sources.items()}
        return yaml.safe_dump({"name": self.analysis.name, "analyze": names}, sort_keys=False)


def tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """The tables that the analysis has, by name."""
    texts = {"candidates": analysis.candidates} if len(analysis.candidates) else {}
    return {"judgments": analysis.judgments, **texts, "items": analysis.items}


def write(analysis: Analysis, folder: RunFolder) -> None:
    """The analysis as a run folder: generation, arm and replicate are empty where the log has none. Raises FolderMismatch
    where the folder holds something else, StorageFailed where it cannot be written."""
    with folder.claim(analysis.bound_to()):
        record = AnalysisRecord(analysis)
        folder.write_json("environment.json", record.environment())
        folder.write_text("experiment.yaml", record.experiment_text())
        write_tables(analysis, folder)


def write_tables(analysis: Analysis, folder: RunFolder) -> None:
    """The tables and the estimates, into a folder that is claimed."""
    for name, frame in tables(analysis).items():
        folder.write_part(name, "log", frame)
    folder.write_estimates(analysis.estimates)


def _candidates(log: VerdictLog) -> pd.DataFrame:
    """The distinct texts with their features."""
    if log.texts.empty:
        return pd.DataFrame()
    empty = pd.DataFrame({
        "replicate": pd.array([pd.NA] * len(log.texts), dtype="Int64"), "arm": "",
        "generation": pd.array([pd.NA] * len(log.texts), dtype="Int64"),
    })  # fmt: skip
    measured = features_frame(log.texts["text"].tolist(), _languages(log))
    return pd.concat([empty, log.texts, measured], axis=1)


def _languages(log: VerdictLog) -> list[str] | None:
    """The language of each text, by its item: from the items, or a column that the log's author added."""
    known = next((frame for frame in (log.items, log.judgments) if "language" in frame), None)
    if known is None:
        return None
    said = known.dropna(subset=["language"]).drop_duplicates("item_id").set_index("item_id")["language"]
    return [str(tag) or "en" for tag in log.texts["item_id"].map(said).fillna("en")]


def _identity(name: str, log: VerdictLog, gold_exact: bool) -> str:
    """A hash of all that the estimates depend on: another log's folder is not overwritten."""
    digest = hashlib.sha256(name.encode() + (b"/gold exact" if gold_exact else b""))
    for frame in (log.judgments, log.texts, log.items):
        digest.update(frame.to_csv(index=False).encode("utf-8", "replace"))
    return f"sha256:{digest.hexdigest()}"


def environment(identity: str, sources: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """What the estimates came from: hashes and versions; ``more`` libraries beside those that always count."""
    libraries = ("numpy", "scipy", "pandas", "markdown-it-py", "emoji", "pyarrow", *more)
    return {
        "experiment_hash": identity,
        "files": {source["name"]: source["hash"] for source in sources.values() if "hash" in source},
        "judgeloop": metadata.version("judgeloop"),
        "python": platform.python_version(),
        "libraries": {library: metadata.version(library) for library in libraries},
    }


# The static path: what judges are asked about pairs, or were asked elsewhere; and the estimates of them.
