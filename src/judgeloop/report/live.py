"""The page around a report that grows: says how far the run is, and shows the report in a frame, anew when there is more.

The report inside is the page that `judgeloop report` writes, unchanged. This page asks its own server, and nobody else.
"""

from __future__ import annotations

from judgeloop.report import palette, shell, wording


def page(name: str) -> str:
    """The page for the run of that name. It asks ``state`` every two seconds, a JSON mapping: ``version`` (changes when
    there is another report; empty where there is none yet), ``headline, detail, caution`` (sentences), ``done`` and ``of``
    (turns); and loads ``report``."""
    script = shell.file("live.js")
    policy = (
        f"default-src 'none'; script-src {shell.hash_of(script)}; style-src 'unsafe-inline'; connect-src 'self'; "
        "frame-src 'self'; base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": shell.text(policy),
        "name": shell.text(wording.label(name, 90)),
        "palette": palette.style_sheet(),
        "script": script,
    }
    return shell.filled(shell.file("live.html"), values)
