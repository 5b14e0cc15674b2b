"""`fa4-asv report`: the report that people read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from fa4_asv.base.output import say, say_json
from fa4_asv.base.project import Project
from fa4_asv.report.site import write_report


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path), help="Where the report goes (default: html/report/)."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def report(output: Path | None, as_json: bool) -> None:
    """Make the report from results/ alone; it opens in a browser without a server or a network.

    A file that `fa4-asv verify` finds wrong is named and left out; the rest is reported.

    Exit code: 0 everything is in the report, 1 some files were left out, 2 no report was made.

    \b
    Examples:
      fa4-asv report
      fa4-asv report --output /tmp/fa4-report
    """
    project = Project.find()
    folder = output or project.html / "report"
    problems = write_report(project, folder)
    refused = [{"path": problem.place(project.root), "what": problem.what} for problem in problems]
    for entry in refused:
        say(f"refused: {entry['path']}: {entry['what']}", err=True)
    count = sum(1 for path in folder.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if as_json:
        say_json({"files": count, "bytes": size, "refused": refused})
    else:
        say(f"{count} files ({size / 1e6:.1f} MB) in {os.path.relpath(folder)}, {len(refused)} problems")
    sys.exit(1 if refused else 0)
