"""Colours by name, for light and dark: one list that the style sheet and every figure share.

Figures name a colour as a token ("@arm0"); the page puts in the value for the reader's theme. The arms' hues are told
apart with every common colour vision (after Okabe and Ito 2008), and each arm has a marker and a dash of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_HUES = (  # light, dark
    ("#0b6bb5", "#5cb3f0"), ("#c8500a", "#ff9a57"), ("#8a3f9c", "#d59be6"), ("#00835f", "#35c79d"),
    ("#a3174f", "#f588ad"), ("#5a6b00", "#c3d154"),
)  # fmt: skip
_CONTROL_HUES = {"random": ("#6b7280", "#a3abb8"), "gold": ("#9a6a00", "#e6b740")}
_MARKERS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon")
_CONTROL_MARKERS = {"random": "x-thin-open", "gold": "cross-thin-open"}
_PARTS = {"selection": ("#0b6bb5", "#5cb3f0"), "mixing": ("#c9a227", "#e6c75c"), "learning": ("#9b8fb0", "#b8abd0")}
_PAGE = {
    "page": ("#f6f7f9", "#101418"), "surface": ("#ffffff", "#171c22"), "raised": ("#f0f2f5", "#202730"),
    "ink": ("#1b2026", "#e8ecf1"), "muted": ("#57606c", "#a2adba"), "line": ("#dde1e7", "#2f3843"),
    "grid": ("#e6e9ee", "#29313b"), "accent": ("#0b5ea8", "#6cb6f5"), "focus": ("#0b5ea8", "#8ec8fb"),
    "found": ("#b3310c", "#ff9470"), "found-soft": ("#fdece6", "#3a211a"),
    "calm": ("#11694c", "#5fd3a8"), "calm-soft": ("#e4f4ed", "#15302a"),
    "open": ("#7a5500", "#e9bf58"), "open-soft": ("#fbf2dc", "#332a15"),
    "plain": ("#4a5563", "#b4bfcc"), "plain-soft": ("#eceff3", "#262e38"),
    "band": ("rgba(17,105,76,.12)", "rgba(95,211,168,.14)"), "zero": ("#8a93a0", "#76818f"),
    "low": ("#0b6bb5", "#5cb3f0"), "middle": ("#f4f5f7", "#222a33"), "high": ("#c8500a", "#ff9a57"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """How an arm is drawn everywhere: a colour token, a marker, a dash."""

    colour: str
    marker: str
    dash: str


def styles(arms: Sequence[str], controls: Mapping[str, str]) -> dict[str, Style]:
    """Each arm's style: controls dashed and in the control's own hue, the others by their order."""
    found: dict[str, Style] = {}
    used = 0
    for arm in arms:
        kind = controls.get(arm, "")
        if kind in _CONTROL_HUES and not any(style.colour == f"@{kind}" for style in found.values()):
            found[arm] = Style(f"@{kind}", _CONTROL_MARKERS[kind], "dash")
        else:
            place = used % len(_HUES)
            found[arm] = Style(
                f"@arm{place}",
                _MARKERS[place],
                "dash" if kind else ("solid", "dot", "longdash")[used // len(_HUES) % 3],
            )
            used += 1
    return found


def colours(*, dark: bool = False) -> dict[str, str]:
    """Every token's value in that theme, without the leading "@"; ``<arm>-band`` is an arm's translucent fill."""
    place = 1 if dark else 0
    arms = {f"arm{n}": hue for n, hue in enumerate(_HUES)} | _CONTROL_HUES
    named = {name: pair[place] for name, pair in (_PAGE | _PARTS | arms).items()}
    return named | {f"{name}-band": _translucent(pair[place]) for name, pair in arms.items()}


def style_sheet() -> str:
    """CSS custom properties for both themes (``--found`` and so on)."""

    def block(dark: bool) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours(dark=dark).items())

    dark = f"{{color-scheme:dark;{block(True)}}}"
    light = f"{{color-scheme:light;{block(False)}}}"
    # The reader's choice (data-theme) stands above the system's; paper is always light.
    return (
        f":root{light}\n@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){dark}}}\n"
        f"@media screen{{:root[data-theme=dark]{dark}}}\n"
    )


def resolved(spec: Any, *, dark: bool = False) -> Any:
    """A figure's specification with its colour tokens replaced, for use without the page."""
    values = colours(dark=dark)

    def walk(node: Any, colour: bool) -> Any:
        if isinstance(node, dict):
            return {key: walk(value, "color" in key) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value, colour) for value in node]
        return values.get(node[1:], node) if colour and isinstance(node, str) and node.startswith("@") else node

    return walk(spec, False)


def _translucent(hue: str) -> str:
    red, green, blue = (int(hue[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},.12)"
