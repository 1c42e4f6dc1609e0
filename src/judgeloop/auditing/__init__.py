"""The static path: what judges are asked about pairs, or were asked elsewhere; and the estimates of them.

``analysis``: judgments in, estimates and a run folder out; ``audit`` and ``analyze`` share it.
"""

from judgeloop.auditing.analysis import Analysis, Watch, analyze, estimates, read, sources_of, write

__all__ = ["Analysis", "Watch", "analyze", "estimates", "read", "sources_of", "write"]
