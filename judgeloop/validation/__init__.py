"""Planted truth through the project's own code: closed forms (docs/method.md, "Analytic truths"), coverage and type I
error."""

from judgeloop.validation.row import Row
from judgeloop.validation.study import CELLS, coverage
from judgeloop.validation.table import CHECKS, run, studied, table, write

__all__ = ["CELLS", "CHECKS", "Row", "coverage", "run", "studied", "table", "write"]
