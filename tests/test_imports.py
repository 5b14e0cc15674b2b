"""The floors of the house: who may import whom, lazy imports included."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fa4_asv"

# A module imports only from lower floors; asv only in the glue; torch and FA4 only where they are listed.
FLOORS = [
    {
        "errors",
        "source_lines",
        "machine",
        "sampling",
        "verdicts",
        "guard",
        "cluster.pool",
        "cluster.lifeline",
        "inert",
        "metrics",
        "formatting",
    },
    {
        "clocks",
        "files",
        "project",
        "cases",
        "context",
        "records",
        "shapes",
        "compile_pool",
        "compile_stubs",
        "route_checks",
        "alone",
        "sessions",
        "opcodes",
        "cluster.parcel",
        "cluster.order",
        "cluster.ray_pool",
    },
    {
        "progress",
        "fake_calls",
        "ledger",
        "timing",
        "inputs",
        "groups",
        "stand_ins",
        "cache",
        "cubin",
        "results",
        "causes",
        "history.manifest",
        "history.commits",
        "history.repository",
    },
    {"cause_record", "figure_checks", "history.remote"},
    {
        "reference",
        "backends.fa4",
        "backends.sdpa",
        "codegen_worker",
        "traced_worker",
        "codegen",
        "route",
        "route_worker",
        "history.registry",
        "history.toolchain",
        "changes",
        "verify",
        "doctor",
    },
    {"history.noting"},
    {
        "backends.fa4_sdpa",
        "checking",
        "allocated",
        "host_cost",
        "jit",
        "jit_worker",
        "traced",
        "lanes",
        "pair_worker",
        "history.source",
        "history.sync",
        "history.branches",
        "report_commands",
        "verify_command",
        "route_table",
        "staging",
        "compare",
        "compare_plan",
    },
    {"report.parts", "report.charts", "report.words"},
    {"report.model"},
    {"report.events", "report.multiples"},
    {"report.overview", "report.totals", "report.compile_times", "report.support", "report.machines"},
    {"report.chronicle"},
    {"report.site"},
    {"accuracy", "route_card", "report_command", "route_command"},
    {
        "runtime",
        "runtime_worker",
        "pairs",
        "history.upstream",
        "explain_report",
        "history.commands",
        "asv_glue.selection",
        "backfill",
        "publish",
        "compare_sides",
    },
    {
        "asv_glue.bases",
        "asv_glue.reconcile",
        "compare_words",
        "estimates",
        "explain",
        "cluster.desk",
        "cluster.drive",
        "cluster.node",
    },
    {"suspects"},
    {"bisection"},
    {"investigate"},
    {
        "asv_glue.environment",
        "asv_glue.repo",
        "asv_glue.report",
        "asv_glue.seams",
        "backfill_commands",
        "compare_formats",
        "compare_runs",
        "explain_commands",
    },
    {"asv_glue.plugin", "cli", "compare_commands"},
    {"__main__"},
]
HEAVY = {"torch", "cutlass", "flash_attn"}
HEAVY_IN = {
    "route_worker",
    "traced_worker",
    "jit_worker",
    "codegen_worker",
    "runtime_worker",
    "compile_stubs",
    "ledger",
}
# These name torch for the type checker only.
TYPES_ONLY = {"guard", "inputs", "reference"}


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


def test_every_module_imports_only_lower_floors():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    assert set(floor) == set(modules())
    for name, path in modules().items():
        for other in imported(path):
            inner = other.removeprefix("fa4_asv.")
            if other.startswith("fa4_asv.") and inner in floor:
                assert floor[inner] < floor[name], f"{name} imports {inner}"


def test_heavy_packages_stay_in_their_rooms():
    for name, path in modules().items():
        tops = {other.partition(".")[0] for other in imported(path)}
        assert name in HEAVY_IN | TYPES_ONLY or not tops & HEAVY, name
        assert name.startswith("asv_glue.") or "asv" not in tops, name
        assert name == "cluster.ray_pool" or "ray" not in tops, name
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert not {other.partition(".")[0] for other in imported(path)} & HEAVY


def test_files_stay_small():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        assert len(path.read_text().splitlines()) <= 300, path
