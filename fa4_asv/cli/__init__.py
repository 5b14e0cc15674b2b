"""The `fa4-asv` command: one table of commands, each imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import Any, TextIO

import click

from fa4_asv.base.ending import code_of, raise_ended, words_of
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.output import say, show_what_cannot_be_encoded

# name: (module, attribute, one line for --help). A command's module is imported only when it runs,
# so that the reporting commands work where torch is not installed.
COMMANDS = {
    "quickstart": (
        "fa4_asv.cli.quickstart",
        "quickstart",
        "Compile a few kernels and compare them with the record.",
    ),
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

_LONGEST = 2000  # characters of an error's line


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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:  # of a command that has no more to say
            say(f"\nfa4-asv: {words_of(interrupt)}", err=True)
            sys.exit(code_of(interrupt))

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
        raise_ended()  # Slurm, systemd and `timeout` send SIGTERM, a closed terminal SIGHUP
    show_what_cannot_be_encoded()
    try:
        try:
            return main(args=arguments, prog_name="fa4-asv")
        finally:
            if sys.stdout is not None:  # closed by `>&-`
                sys.stdout.flush()  # here, where what goes wrong can be told
    except Fa4AsvError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:  # of `fa4-asv list | head`: the reader has enough
        _write_no_more(sys.stdout)
        sys.exit(1)
    except OSError as error:
        _write_no_more(sys.stdout)
        what = f"cannot use {error.filename}" if error.filename else "cannot write the output"
        _complain(f"{what}: {error.strerror or error}")
        sys.exit(2)


def _complain(message: str) -> None:
    """One line on stderr; where that cannot be written either, the exit code has to say it."""
    try:
        say(f"fa4-asv: {one_line(message, _LONGEST)}", err=True)
    except OSError:
        _write_no_more(sys.stderr)


def _write_no_more(stream: TextIO) -> None:
    """What stands in a stream's buffer goes nowhere: at the end Python would try once more, and say so."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - os.devnull is not a path of ours
            os.dup2(nowhere.fileno(), stream.fileno())
