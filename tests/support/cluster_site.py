"""A checkout whose runs are stood in for, for tests of the cluster: in this process, or as a driver of its own.

    python -m tests.support.cluster_site TEMPLATE backfill --ray ADDRESS ...

is `fa4-asv` with those stand-ins.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from fa4_asv.backfill.cluster import drive, record_gate
from fa4_asv.backfill.cluster.order import Answer
from fa4_asv.base.project import Project
from fa4_asv.cli import backfill, run
from fa4_asv.record.schema import toolchain_digest
from tests.support import ROOT
from tests.support.backfills import commits, record

STAND_IN = ROOT / "tests" / "support" / "asv_stand_in.py"
BACKFILL = ["backfill", "--flavour", "cu13", "-b", "^codegen.Kernels"]


def stand_in(template: Path) -> dict[tuple[object, str], object]:
    """What is replaced: asv by a copy of `template`, the toolchain by one that is at hand, the patience."""
    lock = SimpleNamespace(
        path=ROOT / "pyproject.toml", digest=toolchain_digest("cu13", {"nvidia-cutlass-dsl": "4.8.1"})
    )
    source = SimpleNamespace(lock=lambda *_: lock)
    return {
        (record_gate, "asv_words"): lambda task, request, environment: [
            str(STAND_IN),
            str(template),
            task.commit,
        ],
        (record_gate, "lay_source"): lambda project, commit: source,
        (record_gate, "_locks"): lambda project, lock: {},
        (drive, "POLL"): 0.2,
        (backfill, "TASK_TIMEOUT"): float(os.environ.get("STAND_IN_TIMEOUT", "60")),
    }


class Site:
    """A checkout that nodes can work in, and what its runs will record."""

    def __init__(self, project: Project, template: Path) -> None:
        self.project, self.template = project, template
        self.commits = commits(project)

    def tell(self, number: int, word: str) -> None:
        (self.template / self.commits[number]).write_text(word)

    def asv_arguments(self, number: int) -> list[str]:
        """What the stand-in for asv is told of a commit."""
        return [str(STAND_IN), str(self.template), self.commits[number]]

    def runs(self) -> list[list[str]]:
        path = self.template / "runs"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def recorded(self) -> list[str]:
        """Commits in the record, as the first eight digits, one an entry."""
        return [
            path.name[:8]
            for path in sorted((self.project.results / "nogpu").glob("*.json"))
            if "-" in path.name
        ]


def make_site(project: Project, folder: Path) -> Site:
    """`project` with what a node needs of a checkout, and a template of all its commits below `folder`."""
    (project.root / "fa4_asv").symlink_to(ROOT / "fa4_asv")
    (project.root / "benchmarks").mkdir()
    (project.root / "html").mkdir()
    project.results.mkdir()
    template = folder / "template"
    site = Site(project, template)
    template.mkdir()
    (template / "history").symlink_to(project.root / "history")
    whole = Project(template)
    for number, commit in enumerate(site.commits):
        record(whole, commit, ("4.0.0b3", "4.0.0b4", "4.0.0b10")[number])
    return site


@pytest.fixture
def site(history, tmp_path, monkeypatch) -> Site:
    """Three releases, nothing recorded; what nodes run is stood in for."""
    made = make_site(history, tmp_path)
    for (module, name), value in stand_in(made.template).items():
        monkeypatch.setattr(module, name, value)
    shutil.rmtree(history.work / "sources", ignore_errors=True)
    return made


def zipped(names: dict[str, bytes], **changed) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in names.items():
            entry = zipfile.ZipInfo(name)
            for field, value in changed.items():
                setattr(entry, field, value)
            archive.writestr(entry, content)
    return packed.getvalue()


def answer(site, number: int) -> Answer:
    """What an honest node says of one release."""
    whole = site.template / "results"
    names = ["benchmarks.json", "nogpu/machine.json"]
    names += [f"nogpu/{path.name}" for path in (whole / "nogpu").glob(f"{site.commits[number][:8]}-*")]
    parcel = zipped({name: (whole / name).read_bytes() for name in names})
    return Answer(host="far", seconds=2.0, log="asv said\n", results=parcel)


if __name__ == "__main__":
    for (where, what), instead in stand_in(Path(sys.argv[1])).items():
        setattr(where, what, instead)
    run(sys.argv[2:])
