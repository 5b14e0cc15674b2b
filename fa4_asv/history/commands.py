"""`fa4-asv history`: the releases of FA4 as a git history."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from fa4_asv.errors import Fa4AsvError
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import NO_HISTORY, has_history
from fa4_asv.history.source import lay_source
from fa4_asv.history.sync import sync as run_sync
from fa4_asv.history.toolchain import FLAVOURS, Policy, UnsupportedFlavour, read_lock
from fa4_asv.project import Project


@click.group()
def history() -> None:
    """The releases of FA4 as a git history that asv can walk."""


@history.command()
@click.option("--quiet", is_flag=True, help="Only errors.")
def sync(quiet: bool) -> None:
    """Bring every flash-attn-4 release into the local history; only new ones are downloaded.

    \b
    Examples:
      fa4-asv history sync
      FA4_ASV_INDEX_URL=http://localhost:3141/root/pypi/+simple/ fa4-asv history sync
    """
    project = Project.find()
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("asking the registry", total=None)

        def progress(done: int, total: int, words: str) -> None:
            bar.update(task, completed=done, total=total, description=words)
            if not console.is_terminal and words != "done":
                console.print(f"[{done + 1}/{total}] {words}", markup=False, highlight=False)

        try:
            done = run_sync(project, Registry(), progress)
        except KeyboardInterrupt:
            click.echo("fa4-asv: interrupted; the history is as it was, sync again to continue", err=True)
            sys.exit(130)
    if not quiet:
        click.echo(f"{done.total} releases in the history, {done.fetched} fetched now")
        for version in done.yanked:
            click.echo(f"{version} is yanked on the registry; it stays in the history with that label")


@history.command()
@click.option("--flavour", "flavours", type=click.Choice(FLAVOURS), multiple=True, default=FLAVOURS)
def lock(flavours: tuple[str, ...]) -> None:
    """Resolve the toolchain of the day of every release that has no lock file yet.

    `asv run` does this by itself for what it measures; here it is done for all, so that the locks can be
    committed. Goes on after a release that does not resolve, and exits with 1 then.

    \b
    Examples:
      fa4-asv history lock
      fa4-asv history lock --flavour cu13
    """
    project = Project.find()
    failed = 0
    for release in Manifest.load(project.manifest).releases:
        source = lay_source(project, release.commit)
        for flavour in flavours:
            try:
                found = source.lock(project, flavour, Policy("day"))
                words = f"nvidia-cutlass-dsl {found.packages['nvidia-cutlass-dsl']}"
            except UnsupportedFlavour as refused:
                words = f"unsupported: {refused}"
            except Fa4AsvError as error:
                failed += 1
                words = f"failed: {error}"
            click.echo(f"{release.version} {flavour} {words}")
    sys.exit(1 if failed else 0)


@history.command("list")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, toolchains in full.")
def list_releases(as_json: bool) -> None:
    """Version, date, commit and toolchain of every release in the history.

    \b
    Examples:
      fa4-asv history list
      fa4-asv history list --json
    """
    project = Project.find()
    manifest = Manifest.load(project.manifest)
    if not manifest.releases:
        raise Fa4AsvError(NO_HISTORY)
    toolchains = {release.version: _toolchains(project, release) for release in manifest.releases}
    if as_json:
        rows = [
            {**asdict(release), "toolchain": toolchains[release.version]} for release in manifest.releases
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    table = Table("version", "uploaded", "commit", "nvidia-cutlass-dsl", "quack-kernels", "flavours", "")
    for release in manifest.releases:
        locks = toolchains[release.version]
        one = next(iter(locks.values()), {})
        table.add_row(
            release.version,
            release.uploaded[:10],
            release.commit[:8],
            one.get("nvidia-cutlass-dsl", "-"),
            one.get("quack-kernels", "-"),
            " ".join(locks) or "-",
            escape(f"yanked: {release.yanked}") if release.yanked else "",
        )
    Console().print(table)
    if not has_history(project):
        click.echo("the manifest is here, the history is not: run `fa4-asv history sync`", err=True)


def _toolchains(project: Project, release: Release) -> dict[str, dict[str, str]]:
    """Locked packages by flavour, of the policy "day"; a flavour never resolved here is absent."""
    found = {}
    for flavour in FLAVOURS:
        path = project.locks / "day" / flavour / f"{release.version}.txt"
        if path.is_file():
            found[flavour] = read_lock(path, flavour, "day").packages
    return found
