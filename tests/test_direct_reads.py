"""Files, archives and JSON are read by base/files.py, with limits; every other place is listed here with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

# Of any object, and of these modules.
READS = {"open", "read_text", "read_bytes", "ZipFile", "extractall", "extractfile"}
LOADS = {"load", "loads", "fdopen"}
FROM = {
    "json",
    "tomllib",
    "tomli",
    "pickle",
    "os",
    "gzip",
    "bz2",
    "lzma",
    "tarfile",
    "zipfile",
    "io",
    "marshal",
    "yaml",
}
KERNEL = "of /proc or /sys: the kernel wrote it"
OURS = "a line or variable of our own process"
FRESH = "checked and limited where it stands: sizes and kinds before anything is read"
ALLOWED = {
    "fa4_asv/base/files.py": "the reader itself",
    "fa4_asv/base/core_locks.py": KERNEL,
    "fa4_asv/base/launcher.py": OURS,
    "fa4_asv/base/processes.py": KERNEL,
    "fa4_asv/base/resident.py": KERNEL,
    "fa4_asv/base/scratch.py": "a lock of our own, not blocking; for writing",
    "fa4_asv/backfill/airgap/unpack.py": "stands alone, without the suite: `text_of` and `json_of` have the same limits",
    "fa4_asv/backfill/airgap/parts.py": "packs installed packages as they are, in blocks",
    "fa4_asv/backfill/cluster/archive.py": FRESH,
    "fa4_asv/cli/doctor.py": "metadata of installed packages, by importlib.metadata",
    "fa4_asv/cli/explain.py": "JSON that was made the line before",
    "fa4_asv/explain/pair_worker.py": OURS,
    "fa4_asv/explain/pairs.py": OURS,
    "fa4_asv/history/demands.py": "TOML of limited size and depth: counted before",
    "fa4_asv/history/repository.py": "a folder, to sync it",
    "fa4_asv/history/sync.py": FRESH,
    "fa4_asv/history/worktree.py": "a regular file of limited size, without following a link",
    "fa4_asv/backfill/anew.py": OURS,
    "fa4_asv/measure/anew.py": OURS,
    "fa4_asv/measure/compile_time/worker.py": OURS,
    "fa4_asv/measure/context.py": OURS,
    "fa4_asv/measure/contract/worker.py": OURS,
    "fa4_asv/measure/driver_stubs.py": OURS,
    "fa4_asv/measure/forks.py": "what a child of this process writes into a pipe",
    "fa4_asv/measure/runtime/journal.py": "the last byte of what it has just opened, not blocking; for writing",
    "fa4_asv/measure/runtime/worker.py": OURS,
    "fa4_asv/report/site.py": "the style sheet of the package",
    "fa4_asv/report/library.py": "the charts' library of the package",
    "tools/ci/artifact.py": FRESH,
    "tools/ci/audit.py": "what `fa4-asv audit` printed",
    "tools/ci/compare.py": "the report that `fa4-asv compare` wrote the moment before",
    "tools/ci/site.py": "what `fa4-asv publish` printed",
}
# For whoever works on the suite: these read the committed record, or what they wrote themselves.
TOOLS = "tools"


def direct(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """The calls that read something; not those that open for writing, nor those of our reader (`own`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not _writes(node):
            name = ast.unparse(node.func)
            owner, _, last = name.rpartition(".")
            if last in READS and name not in own or last in LOADS and owner in FROM:
                yield name


def _writes(node: ast.Call) -> bool:
    """Whether a call names such a mode: `open(path, mode)`, `os.fdopen(handle, mode)`, `path.open(mode)`."""
    owner = ast.unparse(node.func).rpartition(".")[0]
    at = 1 if not owner or owner in FROM else 0
    mode = node.args[at] if len(node.args) > at else None
    return isinstance(mode, ast.Constant) and mode.value in ("w", "wb", "x", "xb", "a", "ab")


def imported(tree: ast.AST) -> set[str]:
    """What a file takes from base/files.py."""
    modules = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.name for node in modules if node.module == "fa4_asv.base.files" for name in node.names}


def reading(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return set(direct(tree, imported(tree)))


def files() -> Iterator[Path]:
    yield from (ROOT / "fa4_asv").rglob("*.py")
    yield from (ROOT / "benchmarks").rglob("*.py")
    yield from (path for path in (ROOT / TOOLS).rglob("*.py") if path.parent.name == "ci")


def test_files_are_read_in_one_place_and_each_other_place_has_its_reason():
    paths = {path.relative_to(ROOT).as_posix(): reading(path) for path in files()}
    assert {name: calls for name, calls in paths.items() if calls and name not in ALLOWED} == {}
    assert {name for name in ALLOWED if not paths.get(name)} == set(), "they read nothing any more"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("path.read_text()", True),
        ("open('x')", True),
        ("path.open('rb')", True),
        ("Path('x').read_bytes()", True),
        ("os.fdopen(os.open(path, 0))", True),
        ("json.load(stream)", True),
        ("json.loads(text)", True),
        ("tarfile.open(path)", True),
        ("zipfile.ZipFile(path)", True),
        ("tomllib.load(stream)", True),
        ("from x import read_text; read_text(path)", True),
        ("from fa4_asv.base.files import read_text; read_text(path)", False),
        ("path.open('w')", False),
        ("journal.read(path)", False),
    ],
)
def test_a_direct_read_is_seen(text, result):
    tree = ast.parse(text)
    assert bool(list(direct(tree, imported(tree)))) == result
