"""Three recorded releases, published by the command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fa4_asv.cli import run
from tests.support import ROOT
from tests.support.backfills import ENVIRONMENT, commits, record


@pytest.fixture
def recorded(history):
    """Three releases, each recorded; asv finds the plug-in and the benchmarks where a checkout has them."""
    for name in ("fa4_asv", "benchmarks"):
        (history.root / name).symlink_to(ROOT / name)
    for commit, version in zip(commits(history), ("4.0.0b3", "4.0.0b4", "4.0.0b10"), strict=True):
        record(history, commit, version)
    shutil.copy(ROOT / "results" / "benchmarks.json", history.results)
    return history


def path_of(project, number: int) -> Path:
    return project.results / "nogpu" / f"{commits(project)[number][:8]}-{ENVIRONMENT}.json"


def publish(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(["publish", *arguments])
    return int(ended.value.code or 0)
