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

# asv's pages as they are -> as they are to be; each word stands in its file exactly as often as said.
_INDEX = {
    # asv's index has no place for a link to pages that are not its own.
    '<li id="nav-li-regressions">': (
        1,
        '<li><a href="report/index.html">Report</a></li>\n        <li id="nav-li-regressions">',
    ),
    # Its first line; with a server and the network asv's bar lies over it.
    "<body>": (
        1,
        '<body>\n    <p id="fa4-needs">asv\'s own pages need a server (<code>asv preview</code>) and the network, where their '
        'libraries are. <a href="report/index.html">The report</a> holds the same figures and needs neither.</p>',
    ),
    # Where one of them is missing that line stands alone; asv would go to a page without a word about the report.
    'window.location = "error.html";\n      }': (
        1,
        'document.documentElement.className = "fa4-alone";\n      }\n'
        '      if (window.location.protocol === "file:") { js_load_failure(); }',
    ),
    "</head>": (
        1,
        "  <style>.fa4-alone body > * { display: none !important } .fa4-alone body > #fa4-needs "
        "{ display: block !important; font: 16px sans-serif; margin: 2em } "
        # A bar of two lines would lie over the names of releases.
        "@media (max-width: 1250px) { #nav .navbar-text { display: none } }</style>\n  </head>",
    ),
    # The legend below the plot and its overview: a hundred lines over the plot hid it.
    'bottom: 100px;">': (1, 'bottom: 270px;">'),
    'bottom: 0; padding-top: 24px">': (1, 'bottom: 165px; padding-top: 24px">'),
    '<div id="graph">': (
        1,
        '<div id="graph">\n          <div id="fa4-legend" style="position: absolute; height: 130px; left: 0; right: 0; '
        'bottom: 0; overflow: auto"></div>',
    ),
}
_GRAPHS = {
    'position: "nw",': (1, "container: $('#fa4-legend'),"),
    # Names of releases that would lie on each other go into further rows.
    "var xmax = plot.getAxes().xaxis.max;\n            $.each": (
        1,
        "var xmax = plot.getAxes().xaxis.max;\n"
        "            var rows = [];\n"
        "            function row_of(left) {\n"
        "                var row = 0;\n"
        "                while ((rows[row] || []).some(function(x) { return Math.abs(x - left) < 28; })) { ++row; }\n"
        "                (rows[row] = rows[row] || []).push(left);\n"
        "                return row;\n"
        "            }\n"
        "            $.each",
    ),
    # asv knows `arch` of the machine and leaves it out of the legend; where it is a parameter of the benchmark, lines had one name.
    "if (!ignore.hasOwnProperty(key) &&": (
        1,
        "if ((!ignore.hasOwnProperty(key) || $.inArray(key, param_names) >= 0) &&",
    ),
    # And two selectors were called so.
    "make_value_selector_panel(nav, param, values, function": (
        1,
        "make_value_selector_panel(nav, param === 'arch' ? 'arch of the machine' : param, values, function",
    ),
    '"top: -2ex;" +': (
        1,
        '"white-space:nowrap;line-height:2ex;top:-" + 2.5 * (1 + row_of(p.left)) + "ex;" +',
    ),
}
# asv divides by the older figure, and a spill often was 0 before.
_REGRESSIONS = {
    "factor.toFixed(2) + 'x'": (2, "(isFinite(factor) ? factor.toFixed(2) + 'x' : 'from 0')"),
}
EDITS = {"index.html": _INDEX, "graphdisplay.js": _GRAPHS, "regressions.js": _REGRESSIONS}


class Fa4Report(OutputPublisher):  # type: ignore[misc]
    """asv finds every subclass and calls `publish` once its own files are there."""

    name = "fa4-report"
    order = 100

    @classmethod
    def publish(cls, conf: Any, repo: Any, benchmarks: Any, graphs: Any, revisions: Any) -> None:
        """Raises asv's UserError where no report can be made; a refused file is named, the rest is reported."""
        html = Path(conf.html_dir)
        try:
            if not os.environ.get(REPORT_BESIDE):
                _report_below(html)
            edit_pages(html)
        except Fa4AsvError as error:
            raise util.UserError(one_line(str(error), 2000)) from None


def _report_below(html: Path) -> None:
    """Raises Fa4AsvError where no report can be made; a refused file is named."""
    # Every asv command loads this plug-in, and one makes a report.
    from fa4_asv.report.site import write_report

    project = Project.find()
    for problem in write_report(project, html / "report"):
        log.warning(f"report without {problem.place(project.root)}: {problem.what}")


def edit_pages(html: Path) -> None:
    """Say in asv's pages where the report is and what they need, and let their plots and factors be read.

    Raises Fa4AsvError where a page of asv is not as it was.
    """
    for name, edits in EDITS.items():
        path = html / name
        text = read_text(path)
        for old, (count, new) in edits.items():
            if text.count(old) != count:
                raise Fa4AsvError(
                    f"{path} is not as asv 0.6.6 writes it: {old!r} stands in it {text.count(old)} times"
                )
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
