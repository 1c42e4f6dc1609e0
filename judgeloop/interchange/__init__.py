"""Readers of other tools' files, and judgeloop's results in their formats. Every error names the row.

Verdict logs of judgeloop, AlpacaEval, MT-Bench, Arena-Hard, Inspect, lm-evaluation-harness, promptfoo, OpenAI evals, DeepEval and
RAGAS; Chatbot Arena's votes and preference data; pairs; preference data for
TRL and for OpenAI's fine-tuning; OpenAI Batch requests and their output; sheets for human labels.
"""

from judgeloop.interchange.pairs import read_pairs
from judgeloop.interchange.rows import Columns, load_columns
from judgeloop.interchange.verdicts import FORMATS, VerdictLog, read_log, read_verdicts

__all__ = ["FORMATS", "Columns", "VerdictLog", "load_columns", "read_log", "read_pairs", "read_verdicts"]
