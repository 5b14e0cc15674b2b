"""`fa4-asv route`: which PyTorch drives which release."""

from __future__ import annotations

import click
from rich.text import Text

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.output import new_console, say, say_json
from fa4_asv.base.project import Project
from fa4_asv.cli.flavours import ROUTE, installed_flavour
from fa4_asv.history.toolchain import FLAVOURS
from fa4_asv.report.route_table import SDPA, WAYS, all_grids, grids, newest, page, pairs_of, render


@click.command()
@installed_flavour(ROUTE, help="Only this CUDA flavour; default: both.")
@click.option("--toolchain", "policy", default="day", show_default=True, help="Toolchain policy.")
@click.option("--all", "every", is_flag=True, help="Release by release.")
@click.option("--json", "as_json", is_flag=True, help="Every pair, machine-readable.")
@click.option("--markdown", "as_markdown", is_flag=True, help="As a page of the docs.")
def route(flavour: str | None, policy: str, every: bool, as_json: bool, as_markdown: bool) -> None:
    """Which PyTorch drives which release of FA4 through scaled_dot_product_attention, and beyond it.

    "yes": no check is broken; "partly": some are; "no": not even the forward works. The reasons are below
    the table. Of packed sequences (varlen_attn) and FlexAttention, where recorded: how many checks are broken
    or refused. --markdown is of scaled_dot_product_attention alone.

    \b
    Examples:
      fa4-asv route
      fa4-asv route --all
      fa4-asv route --flavour cu12 --json
      fa4-asv route --markdown > docs/route.md
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    pairs = pairs_of(Project.find(), [flavour] if flavour else FLAVOURS, policy)
    if as_json:
        rows = [
            {
                "release": pair.release,
                "torch": pair.torch,
                "arch": pair.arch,
                "way": pair.way,
                "flavour": pair.flavour,
                "verdict": pair.verdict,
                **pair.record.to_json(),
            }
            for pair in pairs
        ]
        say_json(rows)
        return
    if not pairs:
        raise Fa4AsvError("no route is recorded of this series yet; run `asv run -b route`")
    if as_markdown:
        say(page(grids([pair for pair in pairs if pair.way == SDPA])), nl=False)
        return
    console, found = new_console(), all_grids(pairs)
    for line in newest(found):
        console.print(Text(line))
    lacking = [name for way, name in WAYS.items() if not any(pair.way == way for pair in pairs) and name]
    if lacking:
        console.print(Text(f"not recorded: {', '.join(lacking)} (`asv run -b '^beyond_sdpa'`)"))
    for grid in found:
        render(grid, console, every)
    if not every:
        console.print("--all shows each release, and every reason")
