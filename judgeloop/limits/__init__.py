"""Limits on a run folder's estimates: a YAML file of limits in, a verdict a limit out, in the forms that CI systems read."""

from judgeloop.limits.decide import Checked, Outcome, Ruling, check
from judgeloop.limits.file import Limit, default_text, load_limits
from judgeloop.limits.outputs import junit, record, table, workflow_commands

__all__ = [
    "Checked", "Limit", "Outcome", "Ruling", "check", "default_text", "junit", "load_limits", "record", "table",
    "workflow_commands",
]  # fmt: skip
