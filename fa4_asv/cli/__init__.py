"""The `fa4-asv` command: one table of commands, each imported when it is called."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from typing import Any

import click

from fa4_asv.base.errors import Fa4AsvError

# name: (module, attribute, one line for --help). A command's module is imported only when it runs,
# so that the reporting commands work where torch is not installed.
COMMANDS = {
    "history": ("fa4_asv.cli.history", "history", "The releases of FA4 as a git history."),
    "backfill": ("fa4_asv.cli.backfill", "backfill", "Measure what the record lacks."),
    "sweep": ("fa4_asv.cli.sweep", "sweep", "Time every release on one card, in turns."),
    "pack": ("fa4_asv.cli.pack", "pack", "Pack what a machine without a network needs."),
    "publish": ("fa4_asv.cli.publish", "publish", "Make the site from every sound result file."),
    "compare": ("fa4_asv.cli.compare", "compare", "Is HEAD worse than BASE: one verdict per figure."),
    "changes": ("fa4_asv.cli.changes", "changes", "What changed between recorded releases."),
    "noise": ("fa4_asv.cli.noise", "noise", "How noisy the timings of a machine's sweeps are."),
    "explain": ("fa4_asv.cli.explain", "explain", "Why kernels changed: source or toolchain, by name."),
    "doctor": ("fa4_asv.cli.doctor", "doctor", "What this machine can measure, and why not the rest."),
    "check-card": ("fa4_asv.cli.check_card", "check_card", "Whether a card agrees with profiler and record."),
    "report": ("fa4_asv.cli.report", "report", "Make the report (html/report/)."),
    "route": ("fa4_asv.cli.route", "route", "Which PyTorch drives which release through SDPA."),
    "verify": ("fa4_asv.cli.verify", "verify", "Whether every file of the record is sound."),
    "audit": ("fa4_asv.cli.audit", "audit", "Compile a sample of the record anew and compare."),
}


class LazyGroup(click.Group):
    """A group whose commands stand in `COMMANDS` and are imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, summary) for name, (_, _, summary) in COMMANDS.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fa4_asv")
def main() -> None:
    """The performance history of FlashAttention-4.

    Measuring is plain asv (`asv run`, `asv publish`, `asv compare`); these commands do the rest.

    \b
    Example:
      fa4-asv history sync
      asv run fa4-v4.0.0b30..fa4-v4.0.0b36
    """


def run(arguments: list[str] | None = None) -> Any:
    """Entry point: an expected failure is one line on stderr and its exit code."""
    if threading.current_thread() is threading.main_thread():
        # Slurm, systemd and `timeout` end a command so: as on Ctrl-C, what it started ends with it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            return main(args=arguments, prog_name="fa4-asv")
        finally:
            if sys.stdout is not None:  # closed by `>&-`
                sys.stdout.flush()  # here, where what goes wrong can be told
    except Fa4AsvError as error:
        click.echo(f"fa4-asv: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # of `fa4-asv list | head`: the reader has enough
        _write_no_more()
        sys.exit(1)
    except OSError as error:
        _write_no_more()
        what = f"cannot use {error.filename}" if error.filename else "cannot write the output"
        click.echo(f"fa4-asv: {what}: {error.strerror or error}", err=True)
        sys.exit(2)


def _write_no_more() -> None:
    """What stands in stdout's buffer goes nowhere: at the end Python would try once more, and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - os.devnull is not a path of ours
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
