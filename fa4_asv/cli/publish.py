"""`fa4-asv publish`: asv's site from every sound result file; damaged files are left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.files import link_file, read_json
from fa4_asv.base.output import say, say_json
from fa4_asv.base.project import Project
from fa4_asv.base.site import beside_the_site, swap
from fa4_asv.history.repository import NO_HISTORY, git, has_history
from fa4_asv.integrity.staging import results_lock, stage
from fa4_asv.integrity.verify import Problem, upstream_commits
from fa4_asv.record.descriptions import BENCHMARKS, MACHINE_FILE, read_benchmarks
from fa4_asv.record.formatting import counted
from fa4_asv.record.store import iter_results, sidecar_path
from fa4_asv.report import REPORT_BESIDE
from fa4_asv.report.site import write_pages
from fa4_asv.report.sound_record import SoundRecord, read_record


@click.command()
@click.option("--html-dir", type=click.Path(path_type=Path), help="Where the site goes (default: html/).")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def publish(html_dir: Path | None, as_json: bool) -> None:
    """Verify the record, publish what is sound to a temporary folder, and swap the site.

    A file that `fa4-asv verify` finds wrong, or that asv cannot read, is named and left out; the rest is
    published. If the command fails or is killed, the old site stays.

    Exit code: 0 everything is published, 1 some files were left out, 2 nothing was published.

    \b
    Examples:
      fa4-asv publish
      fa4-asv publish --html-dir /srv/fa4
    """
    project = Project.find()
    target = (html_dir or project.html).resolve()
    with beside_the_site(project, target) as aside:
        staged = stage(project, aside / "checkout")
        # Read as pairs and linked under one lock: a backfill may be moving pairs in.
        with results_lock(project):
            record = with_what_asv_refuses(read_record(project))
            sound, problems = record.files, record.problems
            good = shown(record)
            link_results(project, staged, good)
        refused = _tell(project, problems)
        withheld = len(list(iter_results(project.results))) - len(sound)
        if not good:
            raise Fa4AsvError("there is no sound result file in results/; the old site is untouched")
        _make_site(staged, record)
        swap(staged.html, target)
    if len(good) < len(sound):
        say(
            f"{len(sound) - len(good)} result files of commits that are no releases are left out: their branch is "
            "not here (`fa4-asv history sync --source`) or not among those of asv.conf.json",
            err=True,
        )
    if as_json:
        left_out = len(sound) - len(good)
        answer = {"published": len(good), "left_out": left_out, "withheld": withheld, "refused": refused}
        say_json(answer)
    else:
        unreadable = sum(problem.path.is_dir() for problem in problems)
        folders = f"; {counted(unreadable, 'folder')} cannot be read" if unreadable else ""
        shown_target = os.path.relpath(target)
        say(f"{len(good)} result files published in {shown_target}, {withheld} refused{folders}")
    sys.exit(1 if refused else 0)


def with_what_asv_refuses(record: SoundRecord) -> SoundRecord:
    """A record with what asv would choke on or silently drop among its problems. Raises Fa4AsvError."""
    project = record.project
    known = _commits(project) | upstream_commits(project)
    problems = list(record.problems)
    for path in record.files:
        commit = record.pairs[path].sidecar.commit
        if commit not in known:
            what = f"commit {commit} is not in the local history; run `fa4-asv history sync`"
            problems.append(Problem(path, what))
    expected = {*iter_results(project.results), *project.results.glob("*/machine.json")}
    expected.add(project.results / BENCHMARKS)
    for path in sorted(set(project.results.rglob("*.json")) - expected):
        problems.append(Problem(path, "stands in no machine's folder; move it to results/<machine>/"))
    return replace(record, problems=problems)


def _commits(project: Project) -> set[str]:
    """Every commit that asv shows: those of the configured branches, and tags."""
    if not has_history(project):
        raise Fa4AsvError(NO_HISTORY)
    configuration = read_json(project.root / "asv.conf.json", advice="restore it from git")
    commits: set[str] = set()
    for parts in (["--no-walk", "--tags"], *(["--first-parent", name] for name in configuration["branches"])):
        try:
            commits |= set(git(project.repository, "rev-list", *parts).decode().split())
        except Fa4AsvError:
            continue  # a branch that is not here has no commits
    return commits


def shown(record: SoundRecord) -> list[Path]:
    """The sound files whose commit asv can place: upstream's branches need not be here."""
    known = _commits(record.project)
    return [path for path in record.files if record.pairs[path].sidecar.commit in known]


def _tell(project: Project, problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Name each refused file on stderr, now: asv's own words come next. What a killed write left holds
    nothing, so it is named but not refused."""
    refused = []
    for path, what in sorted({(p.place(project.root), p.what) for p in problems}):
        left = path.endswith(".tmp")
        say(f"{'note' if left else 'refused'}: {path}: {what}", err=True)
        if not left:
            refused.append({"path": path, "what": what})
    return refused


def link_results(project: Project, staged: Project, good: Sequence[Path]) -> None:
    """Give `staged` the `good` files, and what asv needs to read them. Raises Fa4AsvError.

    Hard links: a file that is replaced meanwhile stays here as it was verified.
    """
    benchmarks = project.results / BENCHMARKS
    read_benchmarks(benchmarks)
    try:
        link_file(benchmarks.resolve(), staged.results / benchmarks.name)
        for path in good:
            folder = staged.results / path.parent.name
            if not folder.is_dir():
                folder.mkdir()
                link_file((path.parent / MACHINE_FILE).resolve(), folder / MACHINE_FILE)
            for each in (path, sidecar_path(path)):
                link_file(each.resolve(), folder / each.name)
    except OSError as error:
        raise Fa4AsvError(f"cannot link the results into {staged.root}: {error}") from None


def _make_site(staged: Project, record: SoundRecord) -> None:
    """Plain `asv publish`, its words shown as they come, and meanwhile the report. Raises Fa4AsvError.

    The report has no need of a branch and leaves no commit out.
    """
    folder = staged.root.parent / "report"
    arguments = [sys.executable, "-m", "asv", "publish"]
    asv = subprocess.Popen(arguments, cwd=staged.root, stdout=2, env=os.environ | {REPORT_BESIDE: "1"})
    try:
        try:
            write_pages(record, folder)
        except Fa4AsvError as error:
            raise Fa4AsvError(f"no report could be made ({error}); the old site is untouched") from None
        if asv.wait() or not (staged.html / "index.html").is_file():
            raise Fa4AsvError(f"asv publish failed (exit code {asv.returncode}); the old site is untouched")
    finally:
        asv.kill()
        asv.wait()
    shutil.move(folder, staged.html / "report")
