"""judgeloop: what will my LLM judge do to my model?

Ask judges, or read what they said:

- ``audit(pairs, base_url=…, model=…)`` asks judges about pairs; ``analyze(verdicts)`` reads verdicts that exist already.
  Both return an ``Audit``.
- ``run(experiment)`` closes the loop from judge to model for some generations and returns a ``Run``; ``step(experiment)`` does so
  where somebody trains the model by hand between generations.
- ``reward(judge, endpoints, out=…)`` is a judge as the reward function of a trainer of your own (``JudgeReward``).
- ``open(run_dir)`` reads the folder of any of them.

Before a call is made:

- ``plan(experiment)`` and ``plan_audit(pairs, …)``: calls, cost, time, and what so many pairs can show (``Plan``, ``AuditPlan``).
- ``doctor(base_url, model)``: what an endpoint can do and how to judge with it (``Diagnosis``).
- ``forecast(folder, generations)``: the drift to expect from a judge (``Forecasts``).

With the results:

- ``compare(a, b)``: run folders side by side (``ComparisonReport``); ``check(run_dir, limits)``: estimates against limits
  (``CheckResult``).
- ``export(run_dir, format, out)`` and ``collect_labels(…)``: other tools' files, and sheets that people label (``Export``).
- ``watch(run_dir)``: the live report of a run that goes on.

And offline: ``demo()`` reports on a recorded run that ships with judgeloop; ``serve(planted=…)`` plays the OpenAI API locally, ``validate()`` plants truth through the same code
(``Validation``). Deliberate errors descend from ``JudgeloopError``. Names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judgeloop.commands.analyze import analyze
    from judgeloop.commands.audit import audit
    from judgeloop.commands.check import check
    from judgeloop.commands.compare import ComparisonReport, compare
    from judgeloop.commands.demo import demo
    from judgeloop.commands.doctor import Diagnosis, doctor
    from judgeloop.commands.export import Export, collect_labels, export
    from judgeloop.commands.forecast import Forecasts, forecast
    from judgeloop.commands.plan import Plan, plan
    from judgeloop.commands.plan_audit import AuditPlan, plan_audit
    from judgeloop.commands.reward import JudgeReward, reward
    from judgeloop.commands.run import run, step
    from judgeloop.commands.serve import serve
    from judgeloop.commands.validate import Validation, validate
    from judgeloop.commands.watch import watch
    from judgeloop.errors import JudgeloopError
    from judgeloop.limits import CheckResult
    from judgeloop.results import Audit, Run
    from judgeloop.results import open_run as open  # noqa: A004  the contract's name
    from judgeloop.training.callback import training_log

_NAMES = {
    "commands.analyze": ("analyze",),
    "commands.audit": ("audit",),
    "commands.check": ("check",),
    "commands.compare": ("ComparisonReport", "compare"),
    "commands.demo": ("demo",),
    "commands.doctor": ("Diagnosis", "doctor"),
    "commands.export": ("Export", "collect_labels", "export"),
    "commands.forecast": ("Forecasts", "forecast"),
    "commands.plan": ("Plan", "plan"),
    "commands.plan_audit": ("AuditPlan", "plan_audit"),
    "commands.reward": ("JudgeReward", "reward"),
    "commands.run": ("run", "step"),
    "commands.serve": ("serve",),
    "commands.validate": ("Validation", "validate"),
    "commands.watch": ("watch",),
    "errors": ("JudgeloopError",),
    "limits": ("CheckResult",),
    "results": ("Audit", "Run", "open"),
    "training.callback": ("training_log",),
}
"""Module → the public names that it holds."""
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Audit", "AuditPlan", "CheckResult", "ComparisonReport", "Diagnosis", "Export", "Forecasts", "JudgeReward", "JudgeloopError",
    "Plan", "Run", "Validation", "__version__", "analyze", "audit", "check", "collect_labels", "compare", "demo", "doctor", "export",
    "forecast", "open", "plan", "plan_audit", "reward", "run", "serve", "step", "training_log", "validate", "watch",
]  # fmt: skip

__version__ = metadata.version("judgeloop")


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'judgeloop' has no attribute {name!r}")
    return getattr(import_module(f"judgeloop.{_MODULE_OF[name]}"), "open_run" if name == "open" else name)


def __dir__() -> list[str]:
    return sorted({*__all__, "__doc__", "__file__", "__name__", "__path__"})
