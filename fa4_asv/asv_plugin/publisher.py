"""The report as a part of `asv publish`: written below asv's own pages, linked from their bar and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from asv import util
from asv.console import log
from asv.publishing import OutputPublisher

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_text
from fa4_asv.base.project import Project
from fa4_asv.report import REPORT_BESIDE
from fa4_asv.report.site import write_report

# asv's index has no place for a link to pages that are not its own; this line stands in it once.
_ITEM = '<li id="nav-li-regressions">'
_LINK = '<li><a href="report/index.html">Report</a></li>'
# Without a network or a server asv's page stays empty: its first line says so. With both, asv's bar lies over it.
_BODY = "<body>"
_FIRST = (
    "<p>asv's own pages need a server (<code>asv preview</code>) and the network, where their libraries are. "
    '<a href="report/index.html">The report</a> holds the same figures and needs neither.</p>'
)
# asv divides by the older figure, and a spill often was 0 before.
_FACTORS = {
    "factor.toFixed(2) + 'x'": "(isFinite(factor) ? factor.toFixed(2) + 'x' : 'from 0')",
}


class Fa4Report(OutputPublisher):  # type: ignore[misc]
    """asv finds every subclass and calls `publish` once its own files are there."""

    name = "fa4-report"
    order = 100

    @classmethod
    def publish(cls, conf: Any, repo: Any, benchmarks: Any, graphs: Any, revisions: Any) -> None:
        """Raises asv's UserError where no report can be made; a refused file is named, the rest is reported."""
        project = Project.find()
        html = Path(conf.html_dir)
        try:
            beside = os.environ.get(REPORT_BESIDE)
            for problem in [] if beside else write_report(project, html / "report"):
                log.warning(f"report without {problem.place(project.root)}: {problem.what}")
            link_from(html / "index.html")
            factors_from_zero(html / "regressions.js")
        except Fa4AsvError as error:
            raise util.UserError(one_line(str(error), 2000)) from None


def link_from(index: Path) -> None:
    """Put the link into asv's bar, and before it what asv's pages need. Raises Fa4AsvError where asv's page is not as it was."""
    text = read_text(index)
    if text.count(_ITEM) != 1 or text.count(_BODY) != 1:
        raise Fa4AsvError(f"{index} has no bar to link the report from; asv {_ITEM!r} moved")
    text = text.replace(_BODY, f"{_BODY}\n    {_FIRST}")
    index.write_text(text.replace(_ITEM, f"{_LINK}\n        {_ITEM}"), encoding="utf-8")


def factors_from_zero(script: Path) -> None:
    """Let asv's list of regressions say "from 0" in place of "Infinityx". Raises Fa4AsvError where asv's script is not as it was."""
    text = read_text(script)
    for old, new in _FACTORS.items():
        if old not in text:
            raise Fa4AsvError(f"{script} does not write factors as it did: {old!r} is missing")
        text = text.replace(old, new)
    script.write_text(text, encoding="utf-8")
