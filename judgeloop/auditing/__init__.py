"""The static path: what judges are asked about pairs, or were asked elsewhere; and the estimates of them.

``questions``: what an audit asks; ``asking``: the asking; ``analysis``: judgments in, estimates and a run folder out, which
``audit`` and ``analyze`` share.
"""

from judgeloop.auditing.analysis import (
    Analysis,
    AnalysisRecord,
    Watch,
    analyze,
    environment,
    estimates,
    read,
    sources_of,
    write,
    write_tables,
)
from judgeloop.auditing.unapplied import unapplied

__all__ = [
    "Analysis",
    "AnalysisRecord",
    "Watch",
    "analyze",
    "environment",
    "estimates",
    "read",
    "sources_of",
    "unapplied",
    "write",
    "write_tables",
]
