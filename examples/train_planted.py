"""A trainer that needs no weights, to try ``policy: {kind: command}`` with the planted server (docs/training.md).

Its "model" drafts texts as long as those that were chosen: the name ``planted@length_mean=80`` says so to the server.
"""

from __future__ import annotations

import json
from pathlib import Path

from judgeloop.text.features import measure


def main() -> None:
    """Read preferences.jsonl and training.json in the working directory, and write model.json."""
    settings = json.loads(Path("training.json").read_text(encoding="utf-8"))
    lines = Path("preferences.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    total = sum(pair["weight"] for pair in pairs)
    mean = sum(pair["weight"] * measure(pair["chosen"]).length for pair in pairs) / total
    print(f"{len(pairs)} pairs: chosen texts have {2**mean:.0f} tokens")
    model = {
        "model": f"{settings['base']}@length_mean={2**mean:.4f}",
        "metrics": {"pairs": len(pairs), "log2_tokens": mean},
    }
    Path("model.json").write_text(json.dumps(model), encoding="utf-8")


if __name__ == "__main__":
    main()
