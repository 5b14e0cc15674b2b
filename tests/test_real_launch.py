"""The launch contract of real releases, and against the real compiler; slow, needs the package registry and no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy, install
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.runtime.kernel_cache import variables
from fa4_asv.record.schema import Records
from fa4_asv.record.store import load_result, read_sidecar, sidecar_path
from tests.support import ROOT
from tests.support.real_checkout import ENVIRONMENT, measure

pytestmark = pytest.mark.slow
SELECTED = r"launch.*'(direct_d128|autograd_d128|varlen_tensor_d128)'"
# One call with the real compiler: counted, compiled, and kept in FA4's disk cache or found there.
COMPILING = """
import json, sys
from fa4_asv.catalog.launch import LAUNCH_CALLS
from fa4_asv.measure.compile_stubs import CompileStub
from fa4_asv.measure.contract import worker
from fa4_asv.measure.contract.watch import Watch
watch = Watch()
def count_kernels(cute, watch):
    load = cute.runtime.load_module
    def compile_with(real, kernel, *args, **kwargs):
        watch.compiled(kernel)
        return real(kernel, *args, **kwargs)
    def find(*args, **kwargs):
        found = load(*args, **kwargs)
        watch.found()
        return found
    cute.compile, cute.runtime.load_module = CompileStub(cute.compile, compile_with), find
worker.count_kernels = count_kernels
torch, interface = worker._import_fa4(watch)
answers = worker.steps_of(torch, interface, watch, LAUNCH_CALLS["autograd_d128"], sys.argv[1].split(","))
print(json.dumps(answers), file=sys.stderr)
"""


def launches_of(project: Project, version: str) -> Records:
    """What a checkout has recorded of a release's launches."""
    releases = Manifest.load(project.manifest).releases
    (commit,) = (each.commit for each in releases if each.version == version)
    path = project.results / "nogpu" / f"{commit[:8]}-{ENVIRONMENT}.json"
    assert ("launch.Contract.track_compiles", ("sm_90", "direct_d128", "first")) in load_result(path).figures
    return read_sidecar(sidecar_path(path)).groups["launch"]


@pytest.fixture(scope="module")
def b36() -> Records:
    """As committed; `test_real_audit.py` makes Hopper's half anew."""
    return launches_of(Project(ROOT), "4.0.0b36")


@pytest.fixture(scope="module", params=["committed", pytest.param("run", marks=pytest.mark.nightly)])
def b18(request) -> Records:
    """As committed, and run as a person runs it."""
    project = Project(ROOT)
    if request.param == "run":
        project = request.getfixturevalue("real")
        measure(project.root, SELECTED, commits="fa4-v4.0.0b18^!")
    return launches_of(project, "4.0.0b18")


def figures(records: Records, case: str, metric: str, steps: str = "first again process") -> list[int]:
    return [records[f"{case}/{step}"].figures[metric] for step in steps.split()]


def test_b36_compiles_each_kernel_once_and_finds_all_on_disk(b36):
    for arch in ("sm_90", "sm_100"):
        assert figures(b36, f"{arch}/direct_d128", "compiles") == [1, 0, 0]
        assert figures(b36, f"{arch}/autograd_d128", "compiles") == [4, 0, 0]
        steps = "length batch strides"
        assert figures(b36, f"{arch}/autograd_d128", "compiles", steps) == [0, 0, 0]
        result = b36[f"{arch}/autograd_d128/process"].parts["found on disk"]
        assert result == 4


def test_b18_compiles_at_each_call_with_a_tensor_and_reads_it(b18):
    """flash-attention#2635: the backward, in both architectures; only Blackwell's host code reads the tensor."""
    for arch, read in (("sm_90", 0), ("sm_100", 4)):
        record = b18[f"{arch}/varlen_tensor_d128/again"]
        assert (record.figures["compiles"], record.figures["host_reads"]) == (2, read)
        kernel = f"FlashAttentionBackwardSm{arch.removeprefix('sm_')}"
        assert record.parts[f"compiled {kernel}"] == 2


def test_b36_refuses_the_tensor_on_hopper_and_serves_it_on_blackwell(b36):
    record = b36["sm_90/varlen_tensor_d128/first"]
    assert record.state == "broken" and "Expected IntTuple" in record.why
    for metric in ("compiles", "host_reads"):
        assert figures(b36, "sm_100/varlen_tensor_d128", metric, "again length") == [0, 0]


@pytest.mark.nightly  # with a compiler that is a fake: test_launch.py
def test_the_real_compiler_is_asked_as_often(real, b36, tmp_path):
    """And its kernels are found on disk by another process, without a driver."""
    release = next(r for r in Manifest.load(real.manifest).releases if r.version == "4.0.0b36")
    source = lay_source(real, release.commit)
    python = install(real, source.lock(real, "cu13", Policy("day")), Path(sys.executable))

    def parts(*steps: str) -> dict[str, dict[str, Any]]:
        environment = dict(target_environment("sm_90", "cu13")) | dict(variables(tmp_path))
        done = subprocess.run(
            [python, "-c", COMPILING, ",".join(steps)],
            env={**os.environ, **environment, "PYTHONPATH": f"{source.folder}:{real.root}"},
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
        answers = json.loads(done.stderr.splitlines()[-1])
        assert not any(answer["error"] for answer in answers.values())
        return {step: answer["parts"] for step, answer in answers.items()}

    for step, seen in (parts("first", "again") | parts("process")).items():
        assert seen == b36[f"sm_90/autograd_d128/{step}"].parts
