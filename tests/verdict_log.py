"""A log of verdicts by planted judges, without texts."""

from __future__ import annotations

import pandas as pd

from judgeloop import seeds


def log(items: int = 60, judges: tuple[str, ...] = ("m",), orders: tuple[str, ...] = ("ab", "ba")) -> pd.DataFrame:
    """Judges that take the first slot with 0.8 and gold's favourite else; lengths known, one reply in 20 unscored."""
    stream, rows = seeds.rng(0, "a log"), []
    for item in range(items):
        gold, lengths = str(stream.choice(["a", "b"])), stream.integers(50, 400, size=2)
        for judge in judges:
            for order in orders:
                if stream.random() < 0.05:
                    verdict = "unscored"
                else:
                    good = "first" if (gold == "a") == (order == "ab") else "second"
                    verdict = "first" if stream.random() < 0.6 else good
                rows.append({
                    "item_id": f"i{item}", "judge": judge, "order": order, "verdict": verdict, "gold": gold,
                    "len_a": int(lengths[0]), "len_b": int(lengths[1]), "model_a": "m", "model_b": "other", "note": "x",
                })  # fmt: skip
    return pd.DataFrame(rows)
