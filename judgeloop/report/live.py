"""The page around a report that grows: says how far the run is, and shows the report in a frame, anew when there is more.

The report inside is the page that `judgeloop report` writes, unchanged. This page asks its own server, and nobody else.
"""

from __future__ import annotations

from judgeloop.report import shell


def page(name: str) -> str:
    """The page for the run of that name. It asks ``state`` every two seconds, a JSON mapping: ``version`` (changes when
    there is another report; empty where there is none yet), ``headline, detail, caution`` (sentences), ``done`` and ``of``
    (turns); and loads ``report``."""
    policy = shell.policy(shell.hash_of(shell.file("live.js")), "connect-src 'self'", "frame-src 'self'")
    return shell.render("live.html", policy=policy, name=name)
