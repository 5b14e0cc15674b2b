"""`fa4-asv publish`: asv's site from every sound result file; what is damaged costs itself, not the site."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from fa4_asv.errors import Fa4AsvError
from fa4_asv.files import only_one
from fa4_asv.project import Project
from fa4_asv.results import iter_results, sidecar_path
from fa4_asv.staging import stage
from fa4_asv.verify import Problem, verify

_BUSY = "another publish is running in this checkout; wait for it"


@click.command()
@click.option("--html-dir", type=click.Path(path_type=Path), help="Where the site goes (default: html/).")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def publish(html_dir: Path | None, as_json: bool) -> None:
    """Verify the record, publish aside what is sound, and swap the site.

    A file that `fa4-asv verify` finds wrong is refused by name, the rest is published. A publish that
    fails or is killed leaves the old site.

    Exit code: 0 everything is published, 1 without the refused files, 2 nothing was published.

    \b
    Examples:
      fa4-asv publish
      fa4-asv publish --html-dir /srv/fa4
    """
    project = Project.find()
    target = (html_dir or project.html).absolute()
    folder = project.work / "publish"
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / ".lock", busy=_BUSY):
        _clear(folder)
        problems = verify(project)
        good = sound_files(project, problems)
        aside = Path(tempfile.mkdtemp(dir=folder))
        try:
            staged = stage(project, aside / "checkout")
            link_results(project, staged, good)
            _asv_publish(staged)
            swap(staged.html, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    refused = sorted({(p.path.relative_to(project.root).as_posix(), p.what) for p in problems})
    if as_json:
        files = [{"path": path, "what": what} for path, what in refused]
        click.echo(json.dumps({"published": len(good), "refused": files}, indent=1))
    else:
        for path, what in refused:
            click.echo(f"refused: {path}: {what}", err=True)
        click.echo(
            f"{len(good)} result files published in {os.path.relpath(target)}, {len(refused)} problems"
        )
    sys.exit(1 if refused else 0)


def sound_files(project: Project, problems: Sequence[Problem]) -> list[Path]:
    """Result files that no problem touches: their own, their sidecar's, or their machine's."""
    bad = {problem.path for problem in problems}
    return [
        path
        for path in iter_results(project.results)
        if not bad & {path, sidecar_path(path), path.parent / "machine.json"}
    ]


def link_results(project: Project, staged: Project, good: Sequence[Path]) -> None:
    """Give `staged` the `good` files, and what asv needs to read them. Raises Fa4AsvError."""
    benchmarks = project.results / "benchmarks.json"
    try:
        json.loads(benchmarks.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Fa4AsvError(
            f"{benchmarks} cannot be read ({error}); restore it from git or run `asv run` once"
        ) from None
    (staged.results / benchmarks.name).symlink_to(benchmarks)
    for path in good:
        machine = staged.results / path.parent.name
        if not machine.is_dir():
            machine.mkdir()
            (machine / "machine.json").symlink_to(path.parent / "machine.json")
        for each in (path, sidecar_path(path)):
            (machine / each.name).symlink_to(each)


def _asv_publish(staged: Project) -> None:
    """Run plain `asv publish`; its words are shown as they come. Raises Fa4AsvError."""
    done = subprocess.run([sys.executable, "-m", "asv", "publish"], cwd=staged.root, stdout=2)
    if done.returncode or not (staged.html / "index.html").is_file():
        raise Fa4AsvError(f"asv publish failed (exit code {done.returncode}); the old site is untouched")


def swap(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target`: a reader sees the old site or the new one."""
    for name in (".gitkeep",):  # git keeps the empty folder by it
        if (target / name).is_file():
            shutil.copyfile(target / name, new / name)
    aside = target.with_name(f".{target.name}.new")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.move(new, aside)  # onto the target's file system
        aside.chmod(0o755)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(target)
        elif not _exchange(aside, target):
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            aside.rename(target)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise Fa4AsvError(f"cannot put the site at {target}: {error.strerror}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step (Linux 3.15); False where the kernel or the file system cannot."""
    current_folder, exchange = -100, 2
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return bool(function(current_folder, os.fsencode(one), current_folder, os.fsencode(other), exchange) == 0)


def _clear(folder: Path) -> None:
    """Remove what killed publishes left; called under the lock."""
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
