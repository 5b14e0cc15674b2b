"""The help of every command: it fits a terminal of 80 columns, has an example, and its summaries are whole sentences."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from fa4_asv import cli


def commands(group: click.Group, name: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command by the names that call it, the groups among them."""
    context = click.Context(group)
    below = {child: group.get_command(context, child) for child in group.list_commands(context)}
    rest = [
        names
        for child, command in below.items()
        for names in (
            commands(command, (*name, child)) if isinstance(command, click.Group) else [(*name, child)]
        )
    ]
    return [name, *rest]


@pytest.mark.parametrize("name", commands(cli.main), ids=" ".join)
def test_a_help_fits_80_columns_and_cuts_nothing_off(name):
    done = CliRunner().invoke(cli.main, [*name, "--help"], terminal_width=80)
    assert done.exit_code == 0
    assert [line for line in done.output.splitlines() if len(line) > 80] == []
    assert not [line for line in done.output.splitlines()[1:] if line.endswith("...")]


def test_every_command_shows_an_example():
    for name in commands(cli.main):
        text = CliRunner().invoke(cli.main, [*name, "--help"], terminal_width=80).output
        if "COMMAND [ARGS]" not in text:
            assert f"fa4-asv {' '.join(name)}" in text.partition("Example")[2], name
