"""`fa4-asv quickstart`: what a newcomer runs first."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

import click

from fa4_asv.asv_plugin.base_environments import base_here, torch_of
from fa4_asv.backfill.anew import Anew
from fa4_asv.backfill.reproduction import CASES, Reproduced, is_committed, newest_recorded, reproduce
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.output import new_console, say
from fa4_asv.base.project import Project
from fa4_asv.history.repository import NO_HISTORY, has_history
from fa4_asv.record.tables import print_table

_WIDTH = 80
_DIGITS = 8  # of a cubin's digest
_HEADS = ("kernel", "instructions", "spill, B", "cubin", "")


@click.command()
@click.option(
    "--flavour",
    type=click.Choice(["cu13", "cu12"]),
    default="cu13",
    show_default=True,
    help="The toolchain's CUDA.",
)
@click.option(
    "--environment", "-E", default="", metavar="SPEC", help="As asv's --environment, such as fa4:same."
)
def quickstart(flavour: str, environment: str) -> None:
    """Compile eight kernels of the newest recorded release and compare them with the committed record.

    No GPU is needed and nothing is written into results/. The first call makes the environment with torch.
    The report of the whole record is committed; it is named at the end.

    Exit code: 0 everything is equal, 1 something differs and is named, 2 it could not be done.

    \b
    Examples:
      fa4-asv quickstart
      fa4-asv quickstart --flavour cu12
    """
    project = Project.find()
    if not has_history(project):
        raise Fa4AsvError(NO_HISTORY)
    pair = newest_recorded(project, flavour)
    say("making the environment with torch, where there is none yet", err=True)
    started = time.monotonic()
    base = base_here(project, environment)
    made = time.monotonic()
    say(f"compiling {len(CASES)} kernels of {pair.sidecar.release} ({flavour}), without a GPU", err=True)
    kernels = reproduce(pair, Anew(project, base, torch_of(str(base)), _terminal()))
    compiled = time.monotonic()
    _show(kernels)
    differ = [each for each in kernels if each.findings]
    what = (
        "the committed record"
        if is_committed(project, pair)
        else "the record in results/, which is not as committed"
    )
    say(f"{len(kernels) - len(differ)} of {len(kernels)} figures and cubins equal {what}")
    for finding in (finding for each in differ for finding in each.findings):
        path = finding.path.relative_to(project.root)
        say(f"differs: {path}: {finding.group} {one_line(finding.case)}: {finding.what}", err=True)
    say(f"Environment {made - started:.0f} s, toolchain and kernels {compiled - made:.0f} s")
    say(f"The report of the whole record: {os.path.relpath(project.html / 'report' / 'index.html')}")
    sys.exit(1 if differ else 0)


def _terminal() -> str:
    return os.ttyname(2) if os.isatty(2) else ""


def _show(kernels: Sequence[Reproduced]) -> None:
    rows = [_row(each) for each in kernels]
    print_table(new_console(_WIDTH), _HEADS, rows, numbers=range(1, 3), whole=0)


def _row(each: Reproduced) -> list[str]:
    names = ("instructions", "spill_bytes")
    figures = [str(each.anew.figures.get(name, each.anew.state)) for name in names]
    return [each.case, *figures, each.anew.sha256[:_DIGITS], "differs" if each.findings else "equal"]
