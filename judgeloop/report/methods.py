"""What every report says of its own making: methods, caveats, hashes and versions."""

from __future__ import annotations

import json

from judgeloop.report import wording
from judgeloop.report.reading import Reading

_CAVEATS = (
    "A loop that accumulates data bounds the collapse of variance, but not bias drift: that still grows, like the logarithm of the number of generations.",
    "On-policy slopes of the judge change when the candidates change, even if the judge does not. Whether the judge itself changed is read from fixed panels alone.",
    "The unit of inference is the replicate: a seed with all its arms. More items or more outputs do not replace replicates.",
    "Best-of-n drift saturates because the variance dies; the spread stands beside the mean for that reason.",
    "A raw preference for longer answers is not bias: longer answers may be better. Claims of length bias rest on edited copies or on gold labels.",
    "Disagreement across orders is not position bias: it holds noise too.",
    "An undetected effect is not an absent one. “None within margin” is said only where the equivalence test passes.",
    "Intervals are conditional on these items; other items may behave differently.",
)


def caveats(reading: Reading) -> list[str]:
    """Sentences that bear on this run, the most general last."""
    lines = list(_CAVEATS)
    if not reading.arms:
        return [
            line
            for line in lines
            if "loop" not in line and "replicate" not in line and "drift" not in line and "slopes" not in line
        ]
    if "consistent_only" in reading.experiment_text:
        lines.insert(
            0,
            "The label rule consistent_only removes position from the labels and doubles every content slope: drift per loop grows. See transmission.",
        )
    replicates = max((row.n_replicates or 0 for row in reading.estimates), default=0)
    if 0 < replicates < 5:
        lines.insert(
            0,
            f"This run has {wording.count(replicates, 'replicate')}; intervals over so few are wide and their level is approximate. Use 8 or more, never fewer than 5.",
        )
    return lines


def methods_used(reading: Reading) -> list[tuple[str, str]]:
    """(method, terms it was used for), in order of appearance."""
    used: dict[str, dict[str, None]] = {}
    for row in reading.estimates:
        if row.method:
            used.setdefault(row.method, {})[row.term] = None
    return [
        (method, ", ".join(list(terms)[:12]) + (", …" if len(terms) > 12 else "")) for method, terms in used.items()
    ]


def environment_rows(reading: Reading) -> list[tuple[str, str]]:
    """environment.json as (name, value), nested names joined with a dot."""
    rows: list[tuple[str, str]] = []

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for key, inner in sorted(value.items()):
                walk(f"{name}.{key}" if name else str(key), inner)
        elif isinstance(value, list) and all(isinstance(inner, str | int | float) for inner in value):
            rows.append((name, ", ".join(map(str, value)) or "–"))
        else:
            rows.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))

    walk("", dict(reading.environment))
    return rows
