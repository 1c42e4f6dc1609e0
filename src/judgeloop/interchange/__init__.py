"""Other people's files as judgeloop's frames: verdict logs and the pairs that they judge. Every fault names its row."""

from judgeloop.interchange.columns import Columns, load_columns
from judgeloop.interchange.pairs import read_pairs
from judgeloop.interchange.verdicts import VerdictLog, read_verdicts

__all__ = ["Columns", "VerdictLog", "load_columns", "read_pairs", "read_verdicts"]
