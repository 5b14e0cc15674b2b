"""One version number per benchmark: asv is told it, and every cache of answers has it in its key."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from asv_runner.discovery import _get_benchmark, disc_benchmarks

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.measure.cached_jobs import cache_path, write_cache
from fa4_asv.measure.context import Context
from fa4_asv.measure.contract import collect as launch
from fa4_asv.measure.kernels import collect as kernels
from fa4_asv.measure.memory import collect as memory
from fa4_asv.measure.route import collect as route
from fa4_asv.measure.runtime import collect as runtime
from fa4_asv.record.descriptions import read_benchmarks
from fa4_asv.record.schema import CaseRecord
from tests.support import ROOT
from tests.support.contexts import a_context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    own = {name: f"a {name}" for name in ("tree", "flavour", "digest", "environment", "machine", "commit")}
    return a_context(tmp_path, torches={"2.13.0": sys.executable}, **own)


def told_to_asv(group: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The version of each benchmark of a group, as asv finds it in benchmarks/ now."""
    module_name, class_name, prefix = GROUPS[group].stem.split(".")
    # asv's name of it; a plain import would find the one that is loaded, made with the versions of before.
    spec = spec_from_file_location(f"benchmarks.{module_name}", ROOT / "benchmarks" / f"{module_name}.py")
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    owner = getattr(module, class_name)
    result = {}
    for metric in GROUPS[group].metrics:
        benchmark = _get_benchmark(prefix + metric, module, owner, getattr(owner, prefix + metric))
        result[benchmark.name] = benchmark.version
    return result


def raised(monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """Raise the version of one group in the table."""
    version = str(int(GROUPS[name].version) + 1)
    monkeypatch.setitem(GROUPS, name, replace(GROUPS[name], version=version))
    return version


@pytest.mark.parametrize("name", GROUPS)
def test_raising_a_version_tells_asv_so_of_that_group_and_of_no_other(name, monkeypatch):
    file = GROUPS[name].stem.partition(".")[0]
    beside = [other for other, group in GROUPS.items() if group.stem.startswith(f"{file}.") and other != name]
    before = {other: told_to_asv(other, monkeypatch) for other in beside}
    version = raised(monkeypatch, name)
    assert told_to_asv(name, monkeypatch) == {
        GROUPS[name].benchmark(metric): version for metric in GROUPS[name].metrics
    }
    assert {other: told_to_asv(other, monkeypatch) for other in beside} == before


@pytest.fixture(scope="module")
def discovered() -> dict[str, Any]:
    """Every benchmark by name, as asv finds them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT))
        return {each.name: each for each in disc_benchmarks("benchmarks", ignore_import_errors=False)}


def test_the_series_are_those_of_the_record(discovered):
    """A class may be written in another way; its benchmarks keep their names, units, versions and axes."""
    listed = read_benchmarks(ROOT / "results" / "benchmarks.json")
    del listed["version"]
    assert discovered.keys() == listed.keys()
    for name, entry in listed.items():
        benchmark = discovered[name]
        for field in ("type", "unit", "version", "param_names", "timeout", "setup_cache_timeout", "rounds"):
            assert getattr(benchmark, field, None) == entry.get(field), (name, field)


def test_no_two_classes_share_a_setup_cache(discovered):
    """asv's key of one is module and line: an inherited one would be run once, for the first of its classes only."""
    classes: dict[str, set[str]] = {}
    for name, benchmark in discovered.items():
        if benchmark.setup_cache_key:
            classes.setdefault(benchmark.setup_cache_key, set()).add(name.rpartition(".")[0])
    assert len(classes) > 10
    assert all(len(names) == 1 for names in classes.values()), classes


# What each exact group looks up: (the collector's lookup, a case). A hit is an answer without any worker.
LOOKUPS: dict[str, tuple[tuple[str, ...], str, Callable[[Context], object]]] = {
    "codegen": (
        ("sm_90", "fwd_d128_full"),
        "sm_90/fwd_d128_full",
        lambda context: kernels.known(context, [("sm_90", "fwd_d128_full")])[1],
    ),
    "memory": (
        ("sm_90", "fwd_b8_s4096_h16_d128_full"),
        "sm_90/fwd_b8_s4096_h16_d128_full",
        lambda context: memory.measure(context, [("sm_90", "fwd_b8_s4096_h16_d128_full")]),
    ),
    "launch": (
        ("sm_90", "direct_d128"),
        "sm_90/direct_d128/first",
        lambda context: launch.measure(context, [("sm_90", "direct_d128", "first")]),
    ),
    "route": (
        ("2.13.0", "sm_90"),
        "2.13.0/sm_90",
        lambda context: route.measure(context, [("2.13.0", "sm_90")]),
    ),
}


class Asked(Exception):
    """A worker would have been started."""


def _asked(*_args: object) -> None:
    raise Asked


@pytest.mark.parametrize("name", LOOKUPS)
def test_raising_a_version_makes_the_cache_forget(name, context, monkeypatch):
    """And what is recorded under version 1 is found at the key that it has had since it was written."""
    parts, case, look_up = LOOKUPS[name]
    monkeypatch.setattr(memory, "_trace", _asked)
    monkeypatch.setattr(route, "_ask", _asked)
    monkeypatch.setattr(launch, "_of_arch", _asked)
    arguments = (GROUPS[name].version, context.tree, context.flavour, context.digest, *parts)
    key = hashlib.sha256("\0".join(arguments).encode()).hexdigest()
    path = cache_path(context, name, *parts)
    assert path == Path(context.root) / ".asv" / "cache" / name / key[:2] / f"{key}.json"
    write_cache(path, {case: CaseRecord("unsupported", "no such head_dim")})
    assert _hits(look_up, context)
    raised(monkeypatch, name)
    assert cache_path(context, name, *parts) != path
    assert not _hits(look_up, context)


def _hits(look_up: Callable[[Context], object], context: Context) -> bool:
    try:
        result = look_up(context)
    except Asked:
        return False
    return isinstance(result, dict) or result == []  # codegen answers what it lacks


def test_growth_is_read_from_the_traces_of_memory_and_has_their_version():
    assert GROUPS["growth"].version == GROUPS["memory"].version


@pytest.mark.parametrize("name", [name for name, group in GROUPS.items() if group.device])
def test_raising_a_version_forgets_what_the_guard_refused(name, context, monkeypatch):
    runtime._remember(context, name, "a case", "guard: wrong answer")
    assert runtime._failed_before(context, name, "a case").state == "broken"
    raised(monkeypatch, name)
    assert runtime._failed_before(context, name, "a case") is None


def test_no_collector_has_a_version_of_its_own():
    assert not [
        path.name
        for path in (ROOT / "fa4_asv" / "measure").rglob("*.py")
        if "VERSION =" in path.read_text(encoding="utf-8")
    ]
