"""`fa4-asv compare --worktree` with real processes: the stand-in for FA4, its guard, and a clock that counts work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.support.mutants import MUTANTS, lay  # noqa: E402
from tests.support.real_checkout import command  # noqa: E402
from tests.support.standin_checkout import COUNTING_WORKER, Checkout, standin_checkout  # noqa: E402

pytestmark = pytest.mark.slow
BACKWARD = r"^backward.*'b1_s256_h2_d128_causal'"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    """One release, the stand-in itself; its copy of the suite times by counting multiplications."""
    result = standin_checkout(tmp_path_factory.mktemp("worktree"), {"4.0.0b1": ""})
    worker = result.project.root / "counting_worker.py"
    # Little noise: three processes per side are enough.
    worker.write_text(COUNTING_WORKER.replace("WorkTimer(seed)", "WorkTimer(seed, within=0.0005)"))
    return result


def against(checkout: Checkout, tree: Path) -> tuple[int, dict, str]:
    """Exit code, row and stderr of b1 against a tree, one backward."""
    arguments = ("4.0.0b1", "--worktree", str(tree), "-m", "box", "--set", "cpu", "-b", BACKWARD)
    arguments += ("--processes", "3", "--rounds", "1", "--format", "json")
    worker = str(checkout.project.root / "counting_worker.py")
    done = command(
        checkout.project.root, "fa4_asv", "compare", *arguments, **checkout.environment, FA4_ASV_WORKER=worker
    )
    assert done.stdout, done.stderr
    (row,) = json.loads(done.stdout)["comparisons"][0]["rows"]
    return done.returncode, row, done.stderr


@pytest.mark.nightly  # the rule with seconds that are made up: test_worktree.py
def test_a_slower_tree_is_seen_and_nothing_is_recorded(checkout, tmp_path):
    code, row, err = against(checkout, lay(tmp_path / "mine", MUTANTS["slower"]))
    assert (code, row["verdict"]) == (1, "slower"), row
    # 2 % of the backward; the clock counts a call when it first sees it, and then the forward is in it.
    assert row["ratio"] == pytest.approx(1.0144, abs=0.003)
    assert "1 call, 3 processes per side, 1 round each" in err
    project = checkout.project
    assert not project.results.exists() and not (project.work / "sweeps").exists()
    assert [path.name for path in (project.work / "backfill").iterdir()] == [".lock"]


def test_a_wrong_tree_is_newly_broken(checkout, tmp_path):
    code, row, _ = against(checkout, lay(tmp_path / "mine", MUTANTS["dq_one_percent"]))
    assert (code, row["verdict"]) == (1, "newly broken"), row
    assert row["words"].startswith("guard: ") and "dq is 1.0098 times the reference" in row["words"], row
