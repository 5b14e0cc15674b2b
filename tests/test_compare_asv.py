"""`fa4-asv compare` against asv's own `asv compare -f 1.0`, row by row, on two recorded releases."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys

import pytest

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare.commits import Commit, Plan
from fa4_asv.compare.sides import held_against
from fa4_asv.record.store import read_sidecar, sidecar_path
from tests.support import ROOT
from tests.support.compare_checkout import B15, B20, add_commit, edit, lay, pair, spill

# asv's marks: worse, better, introduced a failure, fixed one, not to be compared, else nothing.
MARKS = {"more": "+", "less": "-", "newly broken": "!", "newly working": "*"}


@pytest.fixture
def checkout(project):
    lay(project)
    add_commit(project, "releases", "asv wants a repository", {"README": "x"})
    (project.root / "fa4_asv").symlink_to(ROOT / "fa4_asv")
    shutil.copy(ROOT / "results" / "benchmarks.json", project.results)
    return project


def by_asv(project, base: str, head: str) -> dict[str, str]:
    """Benchmark with its parameters -> asv's mark, of `asv compare -f 1.0`."""
    command = [sys.executable, "-m", "asv", "compare", "--machine", "nogpu", "--factor", "1.0", base, head]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("|").split("|") for line in done.stdout.splitlines() if "track_" in line]
    return {cells[4].strip(): cells[0].strip() for cells in rows}


def by_us(project, base: str, head: str) -> dict[str, str]:
    """The same of ours; a row of a case's state stands for each of its metrics."""
    commits = (Commit(base, base), Commit(head, head))
    comparison = held_against(project.results, commits, "cu13", "nogpu", Plan(("day",), ""))
    marks = {}
    for row in comparison.rows:
        group = GROUPS[row.group]
        parameters = ", ".join(repr(word) for word in row.case.split("/"))
        for metric in [row.metric] if row.metric else group.metrics:
            marks[f"{group.benchmark(metric)}({parameters})"] = MARKS.get(row.verdict, "")
    return marks


def test_every_row_agrees(checkout):
    theirs, ours = by_asv(checkout, B15, B20), by_us(checkout, B15, B20)
    assert ours == {name: theirs[name] for name in ours}
    assert set(ours.values()) == {"+", "-", ""} and len(ours) > 800
    # Of what was recorded of one side alone we have no row; asv calls it failed where the other side's case is broken.
    both = set.intersection(
        *(set(read_sidecar(sidecar_path(pair(checkout, side))).groups) for side in (B15, B20))
    )
    benchmarks = {GROUPS[group].benchmark(metric) for group in both for metric in GROUPS[group].metrics}
    left = {name: mark for name, mark in theirs.items() if name not in ours}
    assert not any(mark for name, mark in left.items() if name.partition("(")[0] in benchmarks)


def test_one_spill_agrees(checkout):
    """B15's record is replaced by B20's with one spill less, so that HEAD has one more."""
    for suffix in (".json", ".sidecar"):
        text = pair(checkout, B20).with_suffix(suffix).read_text()
        pair(checkout, B15).with_suffix(suffix).write_text(text.replace(B20, B15))
    assert set(by_us(checkout, B15, B20).values()) == set(by_asv(checkout, B15, B20).values()) == {""}
    edit(pair(checkout, B20), spill(1))
    data = json.loads(pair(checkout, B20).read_text())
    figures, params = data["results"]["codegen.Kernels.track_spill_bytes"][:2]
    figures[list(itertools.product(*params)).index(("'sm_100'", "'fwd_d128_full'"))] += 1
    pair(checkout, B20).write_text(json.dumps(data))
    for marks in (by_us(checkout, B15, B20), by_asv(checkout, B15, B20)):
        changed = {name: mark for name, mark in marks.items() if mark}
        assert changed == {"codegen.Kernels.track_spill_bytes('sm_100', 'fwd_d128_full')": "+"}
