"""The public Python interface: what the command line is a thin layer over. Names are loaded when first used."""

# ruff: noqa: F401
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judgeloop.api.forecasting import Forecasts, forecast
    from judgeloop.commands.analyze import analyze
    from judgeloop.commands.audit import audit
    from judgeloop.commands.check import check, check_outputs
    from judgeloop.commands.compare import Compared, compare
    from judgeloop.commands.doctor import Diagnosis, doctor
    from judgeloop.commands.export import Exported, collect_labels, export
    from judgeloop.commands.plan import Plan, plan
    from judgeloop.commands.plan_audit import AuditPlan, plan_audit
    from judgeloop.commands.run import run
    from judgeloop.commands.serve import planted_schema, serve
    from judgeloop.commands.session import Observer
    from judgeloop.commands.validate import Validation, validate
    from judgeloop.commands.watch import watch
    from judgeloop.limits.decide import Checked
    from judgeloop.results import Audit, Run, open_run
    from judgeloop.wire.examination import Check

_NAMES = {
    "judgeloop.commands.analyze": ("analyze",),
    "judgeloop.commands.plan_audit": ("AuditPlan", "plan_audit"),
    "judgeloop.commands.audit": ("audit",),
    "judgeloop.commands.check": ("check", "check_outputs"),
    "judgeloop.commands.compare": ("Compared", "compare"),
    "judgeloop.commands.doctor": ("Diagnosis", "doctor"),
    "judgeloop.commands.export": ("Exported", "collect_labels", "export"),
    "judgeloop.api.forecasting": ("Forecasts", "forecast"),
    "judgeloop.commands.plan": ("Plan", "plan"),
    "judgeloop.commands.run": ("run",),
    "judgeloop.commands.serve": ("planted_schema", "serve"),
    "judgeloop.commands.session": ("Observer",),
    "judgeloop.commands.validate": ("Validation", "validate"),
    "judgeloop.commands.watch": ("watch",),
    "judgeloop.limits": ("Checked",),
    "judgeloop.results": ("Audit", "Run", "open_run"),
    "judgeloop.wire.examination": ("Check",),
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_WHERE)  # noqa: PLE0605  the keys are names


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'judgeloop.api' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_WHERE)
