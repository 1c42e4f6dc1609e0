"""Planted truth through the project's own code: closed forms (the method notes §4), coverage and type I error."""

from judgeloop.validate.row import Row
from judgeloop.validate.study import CELLS, coverage
from judgeloop.validate.table import CHECKS, run, studied, table, write

__all__ = ["CELLS", "CHECKS", "Row", "coverage", "run", "studied", "table", "write"]
