"""`fa4-asv verify`: whether the record is sound."""

from __future__ import annotations

import sys

import click

from fa4_asv.base.output import say, say_json
from fa4_asv.base.project import Project
from fa4_asv.integrity.verify import verify as find_problems
from fa4_asv.record.store import iter_results


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def verify(as_json: bool) -> None:
    """Check every result file and its sidecar; name each problem and what to do.

    Exit code: 0 the record is sound, 1 it has problems, 2 it cannot be checked.

    \b
    Examples:
      fa4-asv verify
      fa4-asv verify --json
    """
    project = Project.find()
    problems = [
        {"path": problem.place(project.root), "what": problem.what} for problem in find_problems(project)
    ]
    count = len(list(iter_results(project.results)))
    if as_json:
        say_json({"result_files": count, "problems": problems})
    else:
        for problem in problems:
            say(f"{problem['path']}: {problem['what']}")
        say(f"{count} result files: {len(problems)} problems" if problems else f"{count} result files: sound")
    sys.exit(1 if problems else 0)
