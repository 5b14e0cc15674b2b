"""`fa4-asv pack`: project, history and toolchains for a machine without a network."""

from __future__ import annotations

from pathlib import Path

import click

from fa4_asv.backfill.airgap.contents import Order, write_pack, write_project
from fa4_asv.base.output import say
from fa4_asv.base.project import Project
from fa4_asv.cli.flavours import installed_flavour


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--release", multiple=True, metavar="VERSION", help="Such as 4.0.0b36, or `all`.")
@click.option("--commits", multiple=True, metavar="RANGE", help="Upstream's commits that touch FA4.")
@installed_flavour(multiple=True, help="Default: cu13.")
@click.option(
    "--toolchain", "--policy", "policy", multiple=True, help="A folder of history/toolchains. Default: day."
)
@click.option("--python", default="3.12", show_default=True, help="Python version of the other machine.")
@click.option(
    "--part-mib", type=click.IntRange(1), default=1024, show_default=True, help="Largest size of a part."
)
@click.option(
    "--level", type=click.IntRange(1, 19), default=9, show_default=True, help="Compression level of zstd."
)
@click.option("--project-only", is_flag=True, help="Write only the project and airgap.py; keep the parts.")
def pack(
    folder: Path,
    release: tuple[str, ...],
    commits: tuple[str, ...],
    flavour: tuple[str, ...],
    policy: tuple[str, ...],
    python: str,
    part_mib: int,
    level: int,
    project_only: bool,
) -> None:
    """Pack what a machine without a network needs to measure.

    FOLDER gets parts of at most --part-mib, pack.json with their digests, the project as committed (HEAD), and
    airgap.py. airgap.py unpacks and measures on the other machine; it needs only Python, torch and git.

    \b
    Example:
      fa4-asv pack --release all --flavour cu13 --flavour cu12 --part-mib 34 pack/
      # on the other machine:
      python3 pack/airgap.py measure --machine h200-sxm -o results.tar.gz
      # here again:
      tar xzf results.tar.gz && fa4-asv verify
    """
    project = Project.find()
    if project_only:
        write_project(project, folder)
        return
    order = Order(release, commits, flavour or ("cu13",), policy or ("day",), python, part_mib << 20, level)
    facts = write_pack(project, order, folder)
    sizes = f"{facts['bytes'] / 1e6:.0f} MB, unpacked {facts['unpacked'] / 1e6:.0f} MB"
    say(f"{len(facts['parts'])} parts, {sizes}; there: python3 {folder.name}/airgap.py --help")
