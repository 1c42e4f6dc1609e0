"""judgeloop: what will my LLM judge do to my model?

Ask judges, or read what they said:

- ``audit(pairs, base_url=…, model=…)`` asks judges about pairs; ``analyze(verdicts)`` reads verdicts that exist already.
  Both return an ``Audit``.
- ``run(experiment)`` closes the loop from judge to model for some generations and returns a ``Run``.
- ``open(run_dir)`` reads the folder of any of them.

Before a call is made:

- ``plan(experiment)`` and ``plan_audit(pairs, …)``: calls, cost, time, and what so many pairs can show (``Plan``, ``AuditPlan``).
- ``doctor(base_url, model)``: what an endpoint can do and how to judge with it (``Diagnosis``).
- ``forecast(folder, generations)``: the drift to expect from a judge (``Forecasts``).

With the results:

- ``compare(a, b)``: run folders side by side (``Compared``); ``check(run_dir, limits)``: estimates against limits (``Checked``).
- ``export(run_dir, format, out)`` and ``collect_labels(…)``: other tools' files, and sheets that people label (``Exported``).
- ``watch(run_dir)``: the live report of a run that goes on.

And offline: ``serve(planted=…)`` plays the OpenAI API locally, ``validate()`` plants truth through the same code
(``Validation``). Deliberate errors descend from ``JudgeloopError``. Names are loaded when first used.
"""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judgeloop.api.forecasting import Forecasts, forecast
    from judgeloop.commands.analyze import analyze
    from judgeloop.commands.audit import audit
    from judgeloop.commands.check import check
    from judgeloop.commands.compare import Compared, compare
    from judgeloop.commands.doctor import Diagnosis, doctor
    from judgeloop.commands.export import Exported, collect_labels, export
    from judgeloop.commands.plan import Plan, plan
    from judgeloop.commands.plan_audit import AuditPlan, plan_audit
    from judgeloop.commands.run import run
    from judgeloop.commands.serve import serve
    from judgeloop.commands.validate import Validation, validate
    from judgeloop.commands.watch import watch
    from judgeloop.errors import JudgeloopError
    from judgeloop.limits.decide import Checked
    from judgeloop.results import Audit, Run
    from judgeloop.results import open_run as open  # noqa: A004  the contract's name

__all__ = [
    "Audit", "AuditPlan", "Checked", "Compared", "Diagnosis", "Exported", "Forecasts", "JudgeloopError", "Plan", "Run",
    "Validation", "__version__", "analyze", "audit", "check", "collect_labels", "compare", "doctor", "export", "forecast",
    "open", "plan", "plan_audit", "run", "serve", "validate", "watch",
]  # fmt: skip

__version__ = metadata.version("judgeloop")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'judgeloop' has no attribute {name!r}")
    module = "judgeloop.errors" if name == "JudgeloopError" else "judgeloop.api"
    return getattr(import_module(module), "open_run" if name == "open" else name)


def __dir__() -> list[str]:
    return sorted({*__all__, "__doc__", "__file__", "__name__", "__path__"})


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Whoever imports the package judgeloop.validate makes Python bind it here, over the function of that name.
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
