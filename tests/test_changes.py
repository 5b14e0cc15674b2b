"""The table of changes, whole, against a golden file; and its arithmetic."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare.changes import changes_between, recorded, render, told
from fa4_asv.compare.rows import case_changes
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.schema import CaseRecord
from tests.support.golden import assert_golden
from tests.support.results import FIGURES, MEASURED, REFUSED, record_release


@pytest.fixture
def three(project):
    """Three releases: a spill appears, then goes; one case becomes supported; markup in the words."""
    clean = replace(MEASURED, figures={**FIGURES, "spill_bytes": 0, "local_loads": 0})
    bigger = replace(MEASURED, figures={**FIGURES, "instructions": 1000, "text_bytes": 16192})
    broken = CaseRecord("broken", "[red]killed[/red] by SIGSEGV")
    releases = (
        record_release(project, "4.0.0b1", "a" * 40, {"sm_90/x": clean, "sm_100/y": REFUSED, "sm_90/z": MEASURED}, {"nvidia-cutlass-dsl": "4.4.1", "einops": "0.8"}),
        record_release(project, "4.0.0b2", "b" * 40, {"sm_90/x": bigger, "sm_100/y": MEASURED, "sm_90/z": MEASURED}, {"nvidia-cutlass-dsl": "4.4.2"}),
        record_release(project, "4.0.0b3", "c" * 40, {"sm_90/x": broken, "sm_100/y": MEASURED, "sm_90/z": MEASURED}, {"nvidia-cutlass-dsl": "4.4.2"}),
    )  # fmt: skip
    Manifest(releases).save(project.manifest)
    return project


def test_the_whole_report(three):
    text = io.StringIO()
    manifest = Manifest.load(three.manifest)
    render(recorded(three.results, manifest, "cu13"), Console(file=text, width=110), limit=5, every=True)
    shown = "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
    assert_golden("changes.txt", shown)


def test_without_all_what_is_worse_is_shown_and_the_rest_counted(three):
    text = io.StringIO()
    render(recorded(three.results, Manifest.load(three.manifest), "cu13"), Console(file=text, width=80))
    first, _, second = text.getvalue().partition("4.0.0b2 -> 4.0.0b3")
    assert "spill (stack frame)" in first and "code size" not in first and "sm_100/y" not in first
    assert "--all shows 1 better, 1 too small or not judged" in first and "--all" not in second
    assert "effect: worse" in first, "a column that says the same in each row leaves the table"
    assert "toolchain: nvidia-cutlass-dsl 4.4.1 -> 4.4.2 and 1 more" in first
    assert max(map(len, text.getvalue().splitlines())) <= 80


def test_swapping_the_sides_inverts_every_change(three):
    old, new, _ = recorded(three.results, Manifest.load(three.manifest), "cu13")
    there, back = changes_between(old, new), changes_between(new, old)
    assert {(c.case, c.metric, c.base, c.head) for c in there} == {
        (c.case, c.metric, c.head, c.base) for c in back
    }
    assert [c.weight for c in there] == [c.weight for c in back]


def test_a_change_is_said_plainly():
    def change(metric, base, head):
        old, new = (CaseRecord("measured", figures={metric: value}) for value in (base, head))
        (row,) = case_changes(GROUPS["codegen"], "c", old, new)
        return told(row)

    assert change("spill_bytes", 0, 48) == "new"
    assert change("spill_bytes", 48, 0) == "gone"
    assert change("instructions", 100, 125) == "+25.0%"


def test_one_release_is_not_enough(three):
    with pytest.raises(Fa4AsvError, match="0 recorded release"):
        render(recorded(three.results, Manifest.load(three.manifest), "cu12"), Console(file=io.StringIO()))


def test_reporting_needs_neither_torch_nor_asv(three):
    code = (
        "import sys\n"
        "for name in ('torch', 'asv', 'cutlass', 'ray', 'elftools', 'uv', 'requests'):\n"
        "    sys.modules[name] = None\n"
        "from fa4_asv.cli import run\n"
        "run(['changes', '--last', '3', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=three.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [pair["after"] for pair in json.loads(done.stdout)] == ["4.0.0b2", "4.0.0b3"]
