"""Compile kernels that the record names by digest, and keep their SASS as FOLDER/<sha256>.sass: for
tools/loop_calibration.py.

Releases that share machine code are compiled once. A cubin whose digest is not the recorded one is kept under its own, so it
stands for nothing: what the record says and what is read here cannot differ.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fa4_asv.base.core_locks import shared
from fa4_asv.base.files import read_text, write_atomic
from fa4_asv.base.machine import find_tool
from fa4_asv.base.project import Project
from fa4_asv.catalog.kernels import CASES
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.source import Source, lay_source
from fa4_asv.history.toolchain import Policy, install
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.kernels.loops import KernelLoops, read_loops
from fa4_asv.measure.pool import Job, Outcome, run_jobs

_TIMEOUT = 180.0  # of one call
_MOST_BYTES = 64 << 20  # of a disassembly; FA4's have 0.5 MB
Kernels = Mapping[str, str]  # case of the catalog: its recorded digest
Target = tuple[str, str]  # flavour, architecture
Tell = Callable[[str], None]


class Cubins:
    """A folder, outside of the checkout, of the SASS of cubins by their digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loops: dict[str, KernelLoops] = {}

    def has(self, digest: str) -> bool:
        return self._sass(digest).is_file()

    def keep(self, cubin: Path) -> None:
        sass = self._sass(hashlib.sha256(cubin.read_bytes()).hexdigest())
        if not sass.is_file():
            command = [find_tool("nvdisasm") or "nvdisasm", "-c", str(cubin)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
            write_atomic(sass, done.stdout)

    def loops(self, digest: str) -> KernelLoops:
        """The iteration loops of a cubin. Raises Fa4AsvError where it is not there."""
        if digest not in self._loops:
            advice = "fill the folder with --compile"
            self._loops[digest] = read_loops(read_text(self._sass(digest), _MOST_BYTES, advice))
        return self._loops[digest]

    def _sass(self, digest: str) -> Path:
        return self.folder / f"{digest}.sass"


def compile_missing(
    project: Project, cubins: Cubins, wanted: Sequence[tuple[str, Kernels]], target: Target, tell: Tell
) -> None:
    """Have every digest in `wanted` (release, kernels), one process at a time; what does not compile is told and left out."""
    commits = {release.version: release.commit for release in Manifest.load(project.manifest).releases}
    for release, kernels in wanted:
        calls = {CASES[name].call.name for name, digest in kernels.items() if not cubins.has(digest)}
        if calls:
            tell(f"{release}: compiling {len(calls)} calls ({', '.join(target)})")
            source = lay_source(project, commits[release])
            _compile(project, cubins, source, sorted(calls), target, tell)


def _compile(
    project: Project,
    cubins: Cubins,
    source: Source,
    calls: Iterable[str],
    target: Target,
    tell: Tell,
) -> None:
    flavour, arch = target
    python = install(project, source.lock(project, flavour, Policy("day")), Path(sys.executable))

    def finished(outcome: Outcome) -> None:
        if outcome.lost:
            tell(f"{source.release} {outcome.key}: {outcome.lost}")
        for kernel in (outcome.answer or {}).get("kernels", []):
            cubins.keep(Path(kernel["cubin"]))

    with tempfile.TemporaryDirectory(prefix="fa4-loops-") as scratch:
        environment = (
            *target_environment(arch, flavour),
            ("CUTE_DSL_KEEP_CUBIN", "1"),
            ("FA4_ASV_DUMPS", scratch),
            ("PYTHONPATH", os.pathsep.join([str(source.folder), str(project.root)])),
        )
        command = (str(python), "-m", "fa4_asv.measure.kernels.worker")
        jobs = [
            Job(
                call,
                {"call": call, "into": f"{scratch}/{call}", "around": True},
                command,
                environment,
                _TIMEOUT,
            )
            for call in calls
        ]
        with shared(tell):
            run_jobs(jobs, 1, finished)
