"""docs/coverage.md against FA4 itself: every release's arguments, and what b36 refuses on each architecture.

Slow, needs the package registry and no GPU; nothing is compiled.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from fa4_asv.catalog import coverage
from fa4_asv.catalog.kernels import CALLS
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.repository import read_file
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy, install
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.pool import Job, run_jobs

pytestmark = pytest.mark.slow
INTERFACE = "flash_attn/cute/interface.py"


def test_every_argument_of_every_release_has_a_line(real):
    releases = Manifest.load(real.manifest).releases
    assert len(releases) >= 33
    for release in releases:
        source = read_file(real, release.commit, INTERFACE)
        assert coverage.arguments_of(source), release.version
        assert list(coverage.unknown(source)) == [], release.version


@pytest.fixture(scope="module")
def refused(real):
    """(architecture, call name) -> FA4's words where b36 refuses the call."""
    release = next(r for r in Manifest.load(real.manifest).releases if r.version == "4.0.0b36")
    source = lay_source(real, release.commit)
    python = install(real, source.lock(real, "cu13", Policy("day")), Path(sys.executable))
    command = (str(python), "-m", "fa4_asv.measure.memory.worker")
    jobs = []
    for arch in coverage.ARCHES:
        environment = (*target_environment(arch, "cu13"), ("PYTHONPATH", f"{source.folder}:{real.root}"))
        for name, call in CALLS.items():
            payload = {"backward": call.backward, "shape": asdict(call.shape), "lse": call.return_lse}
            jobs.append(Job(f"{arch}/{name}", payload, command, environment, 60))
    outcomes = run_jobs(jobs, 1)  # a second process would import FA4 anew for each architecture
    assert not [outcome.lost for outcome in outcomes if outcome.lost]
    errors = {tuple(outcome.key.split("/")): outcome.answer["error"] for outcome in outcomes}
    return {key: error["words"] for key, error in errors.items() if error and error["refused"]}


@pytest.mark.nightly  # that the page is made from the tables, and what the record says is refused: test_coverage.py
@pytest.mark.parametrize("arch", coverage.ARCHES)
def test_what_b36_refuses_is_what_the_page_says(refused, arch):
    for argument in coverage.ARGUMENTS:
        arguments = [refused.get((arch, call.name), "") for call in coverage.asking(argument)]
        expected = coverage.REFUSED.get((arch, argument), "")
        assert all(arguments) == bool(expected), argument
        assert any(each.startswith(expected) for each in arguments), argument
        partly = any(arguments) and not all(arguments)
        assert not coverage.PARTLY.get((arch, argument)) or partly, argument
