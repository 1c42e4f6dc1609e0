"""The public Python interface: what the command line is a thin layer over. Names are loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judgeloop.api.analysis import analyze as analyze
    from judgeloop.api.audit_plan import AuditPlan as AuditPlan
    from judgeloop.api.audit_plan import plan_audit as plan_audit
    from judgeloop.api.auditing import audit as audit
    from judgeloop.api.checking import check as check
    from judgeloop.api.checking import check_outputs as check_outputs
    from judgeloop.api.comparing import Compared as Compared
    from judgeloop.api.comparing import compare as compare
    from judgeloop.api.doctoring import Diagnosis as Diagnosis
    from judgeloop.api.doctoring import doctor as doctor
    from judgeloop.api.exporting import Exported as Exported
    from judgeloop.api.exporting import collect_labels as collect_labels
    from judgeloop.api.exporting import export as export
    from judgeloop.api.forecasting import Forecasts as Forecasts
    from judgeloop.api.forecasting import forecast as forecast
    from judgeloop.api.planning import Plan as Plan
    from judgeloop.api.planning import plan as plan
    from judgeloop.api.running import run as run
    from judgeloop.api.serving import planted_schema as planted_schema
    from judgeloop.api.serving import serve as serve
    from judgeloop.api.session import Observer as Observer
    from judgeloop.api.validating import Validation as Validation
    from judgeloop.api.validating import validate as validate
    from judgeloop.api.watching import watch as watch
    from judgeloop.limits import Checked as Checked
    from judgeloop.results import Audit as Audit
    from judgeloop.results import Run as Run
    from judgeloop.results import open_run as open_run
    from judgeloop.wire.examination import Check as Check

_NAMES = {
    "judgeloop.api.analysis": ("analyze",),
    "judgeloop.api.audit_plan": ("AuditPlan", "plan_audit"),
    "judgeloop.api.auditing": ("audit",),
    "judgeloop.api.checking": ("check", "check_outputs"),
    "judgeloop.api.comparing": ("Compared", "compare"),
    "judgeloop.api.doctoring": ("Diagnosis", "doctor"),
    "judgeloop.api.exporting": ("Exported", "collect_labels", "export"),
    "judgeloop.api.forecasting": ("Forecasts", "forecast"),
    "judgeloop.api.planning": ("Plan", "plan"),
    "judgeloop.api.running": ("run",),
    "judgeloop.api.serving": ("planted_schema", "serve"),
    "judgeloop.api.session": ("Observer",),
    "judgeloop.api.validating": ("Validation", "validate"),
    "judgeloop.api.watching": ("watch",),
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
