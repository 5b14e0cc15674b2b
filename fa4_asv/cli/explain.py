"""`fa4-asv explain`: source or toolchain, and which commit or package."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from fa4_asv.asv_plugin.base_environments import base_here
from fa4_asv.base.ending import code_of
from fa4_asv.base.escape import visible
from fa4_asv.base.files import write_atomic
from fa4_asv.base.output import json_text, new_console, say
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import Case
from fa4_asv.catalog.flavours import FLAVOURS, INSTALLED, PLAIN
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.compare.commits import commit_of
from fa4_asv.explain.corners import corner, name_of, selected
from fa4_asv.explain.formats import markdown, render
from fa4_asv.explain.pairs import Workshop
from fa4_asv.explain.shared import explained, is_recorded
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import UnsupportedFlavour
from fa4_asv.integrity.explanations import keep as keep_cause
from fa4_asv.record.explanation import Explanation, to_text
from fa4_asv.record.formatting import counted


@click.command()
@click.argument("base")
@click.argument("head")
@click.option(
    "--flavour",
    type=click.Choice(tuple(FLAVOURS)),
    multiple=True,
    help="Default: cu13 and cu12 where both commits have them, and plain where it is recorded of both.",
)
@click.option("--bench", "-b", multiple=True, metavar="REGEX", help="Kernels, as asv's --bench selects them.")
@click.option("--arch", type=click.Choice(ARCHES), multiple=True, help="Default: all.")
@click.option(
    "--no-culprits", is_flag=True, help="Stop after source or toolchain; search no package or commit."
)
@click.option("--keep", is_flag=True, help="Write the result to results/nogpu/*.cause.")
@click.option("--format", "style", type=click.Choice(["text", "markdown", "json"]), default="text")
@click.option("--limit", type=click.IntRange(0), default=40, show_default=True, help="Rows of a table.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to this file.")
@click.option(
    "--environment", "-E", default="", metavar="SPEC", help="As asv's --environment, such as fa4:same."
)
def explain(
    base: str,
    head: str,
    flavour: tuple[str, ...],
    bench: tuple[str, ...],
    arch: tuple[str, ...],
    no_culprits: bool,
    keep: bool,
    style: str,
    limit: int,
    output: Path | None,
    environment: str,
) -> None:
    """Why kernels changed from BASE to HEAD (releases or commits): source, toolchain, or only both together.

    For the kernels that changed, the old source is compiled with the new toolchain and the new source with
    the old one. Then the package version or upstream's commit is searched. Compiled kernels are cached, so an
    interrupted run continues. asv's figures do not change.

    Exit code: 0 everything is explained or nothing changed, 1 some cause is unknown, 2 it could not be done,
    130 interrupted.

    \b
    Examples:
      fa4-asv explain 4.0.0b30 4.0.0b31
      fa4-asv explain 4.0.0b19 4.0.0b20 --arch sm_100 -b "'fwd_d128_full'"
      fa4-asv explain main~5 main --format markdown -o why.md
    """
    project = Project.find()
    cases = selected(bench, arch)
    try:
        explanations = _explain(project, base, head, flavour, cases, environment, not no_culprits)
    except KeyboardInterrupt as interrupt:
        say("\ninterrupted: what was compiled is cached; run it again to go on", err=True)
        sys.exit(code_of(interrupt))
    if keep:
        for explanation in explanations:
            say(f"kept {keep_cause(project, explanation).relative_to(project.root)}", err=True)
    _show(explanations, style, limit, output)
    sys.exit(1 if any(explanation.unknown for explanation in explanations) else 0)


def _explain(
    project: Project,
    base: str,
    head: str,
    flavours: Sequence[str],
    cases: Sequence[Case],
    environment: str,
    culprits: bool,
) -> list[Explanation]:
    sources = [lay_source(project, commit_of(project, ref).hash) for ref in (base, head)]
    python = base_here(project, environment)
    explanations: list[Explanation] = []
    recorded = all(is_recorded(project, source.commit) for source in sources)
    for flavour in flavours or (*INSTALLED[::-1], *([PLAIN] if recorded else [])):
        try:
            base_corner, head_corner = (corner(project, source, flavour) for source in sources)
        except UnsupportedFlavour as refusal:
            if flavours:
                raise
            _tell(f"{flavour} is left out: {refusal}")
            continue
        shop = Workshop(project, python, flavour, _terminal())
        _tell(f"{flavour}: {name_of(sources[0])} -> {name_of(sources[1])}, {counted(len(cases), 'kernel')}")
        explanations.append(explained(shop, base_corner, head_corner, cases, _tell, culprits, explanations))
    return explanations


def _tell(message: str) -> None:
    say(message, err=True)


def _terminal() -> str:
    return os.ttyname(2) if os.isatty(2) else ""


def _show(explanations: Sequence[Explanation], style: str, limit: int, output: Path | None) -> None:
    if style == "text":
        text = _as_text(explanations, limit, None if output else new_console())
    elif style == "markdown":
        text = "\n".join(markdown(explanation, limit) for explanation in explanations)
    else:
        text = json_text([json.loads(to_text(explanation)) for explanation in explanations]) + "\n"
    if output:
        write_atomic(output, visible(text))
    else:
        say(text, nl=False)


def _as_text(explanations: Sequence[Explanation], limit: int, terminal: Console | None) -> str:
    """For a terminal in its width and colours; else as wide as a log."""
    live = terminal is not None and terminal.is_terminal
    console = terminal if terminal is not None and live else new_console(140, file=io.StringIO())
    with console.capture() as captured:
        for explanation in explanations:
            render(explanation, console, limit)
    return captured.get()
