"""Audits against a planted server, and one number of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import judgeloop
from conftest import Served
from judgeloop.commands import audit_spec


def audited(served: Served, source: Any, out: Path, **changes: Any) -> judgeloop.Audit:
    return judgeloop.audit(source, base_url=served.base_url, out=out, **{"model": "planted", **changes})


def settings_of(source: Any, **options: Any) -> audit_spec.Settings:
    """The checked settings of an audit with the keywords of ``judgeloop.audit``."""
    return audit_spec.checked(source, audit_spec.valid(audit_spec.AuditSpec, options))


def primary(estimates: pd.DataFrame, term: str, panel: str = "pairs", judge: str = "planted") -> pd.Series[Any]:
    rows = estimates[
        (estimates["term"] == term) & (estimates["variant"] == "") & (estimates["category"] == "")
        & (estimates["panel"] == panel) & (estimates["judge"] == judge)
    ]  # fmt: skip
    assert len(rows) == 1
    return rows.iloc[0]
