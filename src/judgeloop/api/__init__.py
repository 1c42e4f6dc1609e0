"""The public Python interface: what the command line is a thin layer over."""

from __future__ import annotations

from pathlib import Path

from judgeloop.api.analysis import analyze
from judgeloop.api.audit_plan import AuditPlan, plan_audit
from judgeloop.api.auditing import audit
from judgeloop.api.checking import check, check_outputs
from judgeloop.api.comparing import Compared, compare
from judgeloop.api.doctoring import Diagnosis, doctor
from judgeloop.api.exporting import Exported, collect_labels, export
from judgeloop.api.forecasting import Forecasts, forecast
from judgeloop.api.planning import Plan, plan
from judgeloop.api.running import run
from judgeloop.api.serving import planted_schema, serve
from judgeloop.api.session import Observer
from judgeloop.api.watching import watch
from judgeloop.results import Audit, Run, opened
from judgeloop.rundir import RunFolder
from judgeloop.wire.examination import Check

__all__ = [
    "Audit",
    "AuditPlan",
    "Check",
    "Compared",
    "Diagnosis",
    "Exported",
    "Forecasts",
    "Observer",
    "Plan",
    "Run",
    "analyze",
    "audit",
    "check",
    "check_outputs",
    "collect_labels",
    "compare",
    "doctor",
    "export",
    "forecast",
    "open_run",
    "plan",
    "plan_audit",
    "planted_schema",
    "run",
    "serve",
    "watch",
]


def open_run(path: str | Path) -> Run:
    """An existing run folder; an ``Audit`` where ``analyze`` wrote it."""
    return opened(RunFolder.existing(path))
