"""The rooms of the house: who may import whom, lazy imports included. pyproject.toml holds the contracts."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fa4_asv"

HEAVY = {"torch", "cutlass", "flash_attn"}
HEAVY_IN = {
    "base.card_probe",
    "measure.kernels.asked_worker",
    "measure.kernels.worker",
    "measure.memory.worker",
    "measure.memory.tracker",
    "measure.compile_time.worker",
    "measure.contract.calls",
    "measure.contract.watch",
    "measure.contract.worker",
    "measure.compile_stubs",
    "measure.route.beyond_worker",
    "measure.route.no_card",
    "measure.route.worker",
    "measure.runtime.worker",
}
# These name torch for the type checker only.
TYPES_ONLY = {
    "measure.runtime.tolerances",
    "measure.runtime.inputs",
    "measure.runtime.reference",
}
RAY_IN = "backfill.cluster.ray_pool"


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the package in `folder`."""
    tool = Path(sys.executable).with_name("lint-imports")
    command = [str(tool), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_package_imports_only_those_below_it():
    done = contracts(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("base/files.py", "from fa4_asv.catalog import metrics"),
        ("history/sync.py", "def late():\n    from fa4_asv.measure import pool"),
        ("measure/pool.py", "from fa4_asv.history import sync"),
        ("report/wording.py", "from fa4_asv.measure.runtime import sampling"),
        ("compare/rows.py", "import fa4_asv.report.site"),
        ("explain/pairs.py", "from fa4_asv.integrity import staging"),
        ("backfill/tasks.py", "from fa4_asv.explain import corners"),
    ],
)
def test_an_arrow_that_goes_up_is_found(tmp_path, module, line):
    shutil.copytree(PACKAGE, tmp_path / "fa4_asv", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "fa4_asv" / module
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    done = contracts(tmp_path)
    assert done.returncode == 1 and "BROKEN" in done.stdout, done.stdout


def test_heavy_packages_stay_in_their_rooms():
    assert set(modules()) >= HEAVY_IN | TYPES_ONLY | {RAY_IN}
    for name, path in modules().items():
        tops = {other.partition(".")[0] for other in imported(path)}
        assert name in HEAVY_IN | TYPES_ONLY or not tops & HEAVY, name
        assert name.startswith("asv_plugin.") or "asv" not in tops, name
        assert name == RAY_IN or "ray" not in tops, name
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert not {other.partition(".")[0] for other in imported(path)} & HEAVY


def test_a_test_imports_no_other_test():
    """What two files need stands in tests/support; what proves a claim in tests/proofs."""
    folder = ROOT / "tests"
    for path in folder.rglob("*.py"):
        names = {name for name in imported(path) if name.startswith("tests.")}
        assert not {
            name for name in names if not f"{name}.".startswith(("tests.support.", "tests.proofs."))
        }, path
