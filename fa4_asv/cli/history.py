"""`fa4-asv history`: the releases of FA4 as a git history."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from fa4_asv.base.ending import code_of
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.output import new_console, say, say_json
from fa4_asv.base.project import Project
from fa4_asv.catalog.flavours import FLAVOURS, INSTALLED, PLAIN
from fa4_asv.cli.toolchains import toolchain_option
from fa4_asv.history.branches import Branch, sync_branches
from fa4_asv.history.manifest import Manifest, Release
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import NO_HISTORY, branches, commit_date, has_history
from fa4_asv.history.source import lay_source
from fa4_asv.history.sync import sync as run_sync
from fa4_asv.history.toolchain import Policy, UnsupportedFlavour, can_name_locks, read_lock
from fa4_asv.record.formatting import counted
from fa4_asv.record.tables import print_table

_NEWEST = 10  # releases that `history list` shows without --all
_SHOWN = {
    "nvidia-cutlass-dsl": "cutlass-dsl",
    "quack-kernels": "quack",
}  # packages in `history list`, and their heads


@click.group()
def history() -> None:
    """The releases of FA4 as a git history that asv can walk."""


@history.command(short_help="Download new releases; with --source, add branches.")
@click.option(
    "--source", metavar="PATH|URL", help="Also sync branches of this clone or fork of flash-attention."
)
@click.option(
    "--branch",
    "wanted",
    multiple=True,
    metavar="NAME[:AS]",
    help="With --source: a branch, and its name here.",
)
@click.option("--all", "every", is_flag=True, help="With --source: every branch.")
@click.option("--known", is_flag=True, help="Only releases in history/releases.json; it does not change.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--quiet", is_flag=True, help="Print only errors.")
def sync(
    source: str | None, wanted: tuple[str, ...], every: bool, known: bool, as_json: bool, quiet: bool
) -> None:
    """Bring every flash-attn-4 release into the local history; only new ones are downloaded.

    With --source, branches of a flash-attention repository are added to the history. (If there are no
    releases yet, they are synced first.) Without --branch it is the default branch. A branch that moved in
    the source moves here, also backwards or after a forced push. AS is needed if the name is taken, or if NAME
    is not a branch: HEAD, a commit or refs/pull/1/head.

    \b
    Examples:
      fa4-asv history sync
      fa4-asv history sync --source https://github.com/Dao-AILab/flash-attention
      fa4-asv history sync --source ~/flash-attention --branch my-branch
      fa4-asv history sync --source ~/flash-attention --branch origin/main:main
      FA4_ASV_INDEX_URL=http://localhost:3141/root/pypi/+simple/ \\
          fa4-asv history sync
    """
    project = Project.find()
    if source is None and (wanted or every):
        raise Fa4AsvError("--branch and --all say what to take from a --source; name one")
    if every and wanted:
        raise Fa4AsvError("--all takes every branch already; leave out --branch")
    try:
        answer: dict[str, Any] = {}
        if source is None or not has_history(project):
            answer |= _sync_releases(project, known, quiet or as_json)
        if source is not None:
            answer |= _sync_branches(project, source, wanted, every, quiet or as_json)
    except KeyboardInterrupt as interrupt:
        say("fa4-asv: interrupted; the history is as it was, sync again to continue", err=True)
        sys.exit(code_of(interrupt))
    if as_json:
        say_json(answer)


def _sync_releases(project: Project, known: bool, quiet: bool) -> dict[str, Any]:
    console = new_console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("asking the registry", total=None)

        def progress(done: int, total: int, message: str) -> None:
            bar.update(task, completed=done, total=total, description=message)
            if not console.is_terminal and message != "done":
                console.print(f"[{done + 1}/{total}] {message}", markup=False, highlight=False)

        done = run_sync(project, Registry(), progress, known)
    if not quiet:
        say(f"{done.total} releases in the history, {done.fetched} fetched now")
        for version in done.yanked:
            say(f"{version} is yanked on the registry; it stays in the history with that label")
    if done.damage:
        say(f"the history was damaged ({done.damage}) and is built anew", err=True)
    if done.lost:
        branches = ", ".join(done.lost)
        say(f"branches that were not whole in it; sync them again: {branches}", err=True)
    return {"releases": done.total, "fetched": done.fetched, "yanked": done.yanked}


def _sync_branches(
    project: Project, source: str, wanted: tuple[str, ...], every: bool, quiet: bool
) -> dict[str, Any]:
    done = sync_branches(project, source, wanted, every)
    if not quiet:
        for branch in done.branches:
            say(f"{branch.name}: {_words(branch)}")
        for name, reason in done.left_out.items():
            say(f"{name}: left out, it {reason}")
    if done.dirty:
        say(f"{source} has changes that are not committed; only commits are measured", err=True)
    return {"branches": [asdict(branch) for branch in done.branches], "left_out": done.left_out}


def _words(branch: Branch) -> str:
    if branch.old == branch.new:
        return f"nothing new at {branch.new[:8]}"
    summary = f"{branch.commits} commits, {branch.touching} of them touch FA4"
    if branch.rewritten:
        return f"rewritten, {branch.old[:8]} is no longer in it; now at {branch.new[:8]}, {summary}"
    return f"{summary if branch.old == '' else f'{summary} since {branch.old[:8]}'}, now at {branch.new[:8]}"


@history.command(short_help="Resolve the toolchain of every release without a lock.")
@toolchain_option
@click.option(
    "--flavour", "flavours", type=click.Choice(tuple(FLAVOURS)), multiple=True, default=(*INSTALLED, PLAIN)
)
def lock(flavours: tuple[str, ...]) -> None:
    """Resolve the toolchain of the day for every release that has no lock file yet.

    `asv run` does this for the releases that it measures; this command does it for all, so that the lock
    files can be committed. With --toolchain it resolves those of another policy. If a release does not resolve, the others are still tried and the exit code is 1.

    \b
    Examples:
      fa4-asv history lock
      fa4-asv history lock --flavour cu13
      fa4-asv history lock --toolchain nvidia-cutlass-dsl==4.8.1
    """
    project, policy = Project.find(), Policy.from_environment()
    failed = 0
    for release in Manifest.load(project.manifest).releases:
        source = lay_source(project, release.commit)
        for flavour in flavours:
            try:
                found_lock = source.lock(project, flavour, policy)
                message = f"nvidia-cutlass-dsl {found_lock.packages['nvidia-cutlass-dsl']}"
            except UnsupportedFlavour as refused:
                message = f"unsupported: {refused}"
            except Fa4AsvError as error:
                failed += 1
                message = f"failed: {error}"
            say(f"{release.version} {flavour} {message}")
    sys.exit(1 if failed else 0)


@history.command("list", short_help="List releases: date, commit, toolchain.")
@click.option(
    "--toolchain",
    "policy",
    default="day",
    show_default=True,
    help="Toolchain policy, as in history/toolchains.",
)
@click.option("--all", "every", is_flag=True, help="Every release; without it the newest 10.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable: every release, toolchains in full.")
def list_releases(policy: str, every: bool, as_json: bool) -> None:
    """Version, date, commit and toolchain of the releases in the history, and the branches beside them.

    \b
    Examples:
      fa4-asv history list
      fa4-asv history list --all
      fa4-asv history list --json
    """
    project = Project.find()
    manifest = Manifest.load(project.manifest)
    if not manifest.releases:
        raise Fa4AsvError(NO_HISTORY)
    if policy != "day" and not (can_name_locks(policy) and (project.locks / policy).is_dir()):
        raise Fa4AsvError(
            f"no toolchain is locked under {policy!r}; history/toolchains has a folder per policy"
        )
    toolchains = {release.version: _toolchains(project, release, policy) for release in manifest.releases}
    if as_json:
        rows = [
            {**asdict(release), "toolchain": toolchains[release.version]} for release in manifest.releases
        ]
        say_json(rows)
        return
    _tell_releases(manifest.releases, toolchains, every)
    if not has_history(project):
        say("the manifest is here, the history is not: run `fa4-asv history sync`", err=True)
        return
    for name, tip in branches(project).items():
        say(f"branch {name}: {tip[:8]} of {commit_date(project, tip):%Y-%m-%d}")


def _tell_releases(
    releases: Sequence[Release], toolchains: Mapping[str, Mapping[str, Mapping[str, str]]], every: bool
) -> None:
    """How many there are, from when to when, and which are yanked; then a table, the newest last."""
    console, hidden = new_console(), 0 if every else max(0, len(releases) - _NEWEST)
    ends = " to ".join(
        f"{release.version} ({release.uploaded[:10]})" for release in (releases[0], releases[-1])
    )
    rest = f"; the newest {_NEWEST}, --all shows all" if hidden else ""
    console.print(Text(f"{counted(len(releases), 'release')}, {ends}{rest}"))
    for release in releases:
        if release.yanked:
            console.print(Text(f"  {release.version} is yanked: {one_line(release.yanked)}"))
    shown: list[list[str]] = []
    for release in releases[hidden:]:
        locks = toolchains[release.version]
        entry = next(iter(locks.values()), {})
        versions = [entry.get(name, "-") for name in _SHOWN]
        days = [release.uploaded[:10], release.commit[:8]]
        shown.append([release.version, *days, *versions, " ".join(locks) or "-"])
    print_table(console, ("version", "uploaded", "commit", *_SHOWN.values(), "flavours"), shown, whole=0)


def _toolchains(project: Project, release: Release, policy: str) -> dict[str, dict[str, str]]:
    """Locked packages by flavour; a flavour never resolved here under this policy is absent."""
    result = {}
    for flavour in INSTALLED:
        path = project.lock(policy, flavour, release.version)
        if path.is_file():
            result[flavour] = read_lock(path, flavour, policy).packages
    return result
