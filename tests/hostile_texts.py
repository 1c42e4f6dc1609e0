"""Texts that would be markup or script, and a run that is made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import report_folder
from judgeloop.rundir import RunFolder
from judgeloop.stats.estimate import Estimate

_RUN = "document.title='PWNED'"
HOSTILE = (
    f"<script>{_RUN}</script>", f"</script><script>{_RUN}</script>", f"<img src=x onerror=\"{_RUN}\">", f"<svg onload={_RUN}>",
    f"</div></article><script>{_RUN}</script>", f"\"><script>{_RUN}</script>", f"' onmouseover='{_RUN}", f"\" autofocus onfocus=\"{_RUN}",
    f"<iframe srcdoc=\"<script>parent.{_RUN}</script>\">", f"<a href=\"javascript:{_RUN}\">x</a>", f"<body onload={_RUN}>", f"<!--<script>{_RUN}//-->",
    f"--><script>{_RUN}</script>", f"]]><script>{_RUN}</script>", f"<style>*{{background:url(http://127.0.0.1:9/x)}}</style><script>{_RUN}</script>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x>", "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>", f"<math><mtext></p><script>{_RUN}</script>",
    f"<details open ontoggle={_RUN}>", f"<noscript><p title=\"</noscript><script>{_RUN}</script>\">", f"</title><script>{_RUN}</script>",
    f"</style><script>{_RUN}</script>", f"\u2028<script>{_RUN}</script>\u2029", f"\x00<scr\x00ipt>{_RUN}</script>", f"\u202e<script>{_RUN}</script>\u202c",
    f"&lt;script&gt;{_RUN}&lt;/script&gt;", f"&#60;script&#62;{_RUN}&#60;/script&#62;", f"{{{{data}}}} {{{{plotly}}}}<script>{_RUN}</script>",
    f"\\u003cscript\\u003e{_RUN}", f"@page @arm0 <b>{_RUN}</b>", f"<template><script>{_RUN}</script></template>", f"`${{{_RUN}}}`",
    f"<object data=\"data:text/html,<script>{_RUN}</script>\">", f"<form action=http://127.0.0.1:9/><input autofocus onfocus={_RUN}>", "a | b \\| c `x` [l](javascript:x)",
    f"<scr<script>ipt>{_RUN}</script>", f"<base href=http://127.0.0.1:9/><script>{_RUN}</script>", "\ud800 lone surrogate \udfff",
)  # fmt: skip
GROUPS = [[bad.encode("utf-8", "replace").decode() for bad in HOSTILE[n : n + 5]] for n in range(0, len(HOSTILE), 5)]


def hostile_run(path: Path, bad: list[str]) -> RunFolder:
    """A run whose every free text is hostile: candidates, prompts, judge, arms, categories, units, notes, environment."""
    judge, arm, prompt, reason = (bad[n % len(bad)] for n in range(4))
    control = bad[-1]
    slot = Estimate(
        scope="judge", bias="position", term="first_slot_excess", judge=judge, panel="anchor", generation=0, estimate=0.1, conf_low=0.05, conf_high=0.2,
        conf_level=0.95, n=9, unit="probability", note=reason, method=control,
    )  # fmt: skip
    drift = Estimate(
        scope="policy",
        bias="verbosity",
        term="drift_length",
        arm=arm,
        estimate=0.1,
        conf_low=0.0,
        conf_high=0.2,
        unit=control,
        note=judge,
    )
    undefined = Estimate(
        scope="policy",
        bias="verbosity",
        term="did_length",
        arm="judge",
        contrast=control,
        generation=2,
        status="undefined",
        note=reason,
    )
    rows = [
        *(replace(slot, category=category) for category in ("", *dict.fromkeys([*bad, "plain"]))),
        *(replace(drift, generation=g) for g in (1, 2)),
        undefined,
    ]
    folder = report_folder.write(
        path, rows=rows, texts=bad, size=(1, 6), prompt=prompt, judge=judge, categories=bad, reason=reason
    )
    folder.write_json("environment.json", {"reported_models": {"m": [judge]}, arm: control})
    return folder
