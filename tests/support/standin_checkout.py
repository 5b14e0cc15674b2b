"""A checkout whose history is the stand-in's: releases on a registry of loopback, a toolchain of one wheel."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import Result, load_result, read_sidecar, sidecar_path
from tests.support.mutants import INTERFACE, MUTANTS, STANDIN, text_of
from tests.support.real_checkout import ROOT, asv, command, copy_sources
from tests.support.registry_fake import FakeRegistry

MACHINE = "standin-box"
DSL = "nvidia_cutlass_dsl-0.0.1"
# In the copied suite only: less patience with a hang, a worker with another clock, fewer seconds per case.
SHORTENED = {
    "fa4_asv/measure/runtime/collect.py": (
        ("CASE_TIMEOUT = 300.0", 'CASE_TIMEOUT = float(os.environ.get("FA4_ASV_PATIENCE", "300"))'),
        (
            '_WORKER = (sys.executable, "-m", "fa4_asv.measure.runtime.worker")',
            '_WORKER = (sys.executable, *os.environ.get("FA4_ASV_WORKER", "-m fa4_asv.measure.runtime.worker").split())',
        ),
    ),
    "fa4_asv/measure/runtime/sampling.py": (("MAX_BUSY = 5.0", "MAX_BUSY = 1.0"),),
    # A sweep's worker is another, and where it has no torch, nobody needs it.
    "fa4_asv/backfill/sweep/engine.py": (
        (
            '_WORKER = ("-m", "fa4_asv.measure.runtime.worker")',
            '_WORKER = tuple(os.environ.get("FA4_ASV_WORKER", "-m fa4_asv.measure.runtime.worker").split())',
        ),
    ),
    "fa4_asv/cli/sweep.py": (
        ('code = "import torch; print(', 'code = os.environ.get("TORCH_OF") or "import torch; print('),
        ("import json\n", "import json\nimport os\n"),
    ),
    "fa4_asv/asv_plugin/base_environments.py": (
        (
            'needed = "import torch, numpy, triton, asv_runner, elftools"',
            'needed = os.environ.get("NEEDED", "import torch, numpy, triton, asv_runner, elftools")',
        ),
    ),
}
# A worker whose seconds are work; each process has luck of its own, the same in every run of the tests.
COUNTING_WORKER = """
import os
from pathlib import Path
from fa4_asv.measure.runtime import worker as runtime_worker
from simulated_clock import WorkTimer
started = Path(os.environ["FA4_ASV_STARTED"])
seed = len(list(started.iterdir()))
(started / str(seed)).touch()
runtime_worker.timer_of = lambda *_: WorkTimer(seed)
runtime_worker.main()
"""


def sdist(version: str, mutant: str) -> bytes:
    """A release of the stand-in or of a mutant, as FA4's releases are packed."""
    cute = STANDIN / INTERFACE.parent
    content = {path.name: path.read_text(encoding="utf-8") for path in cute.iterdir() if path.is_file()}
    content[INTERFACE.name] = text_of(MUTANTS.get(mutant)) + f"\nRELEASE = {version!r}\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in sorted(content.items()):
            info = tarfile.TarInfo(f"flash_attn_4-{version}/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def dsl_wheel(folder: Path) -> None:
    """The stand-in of the DSL as a wheel in `folder`, for uv to resolve and install."""
    files = {
        str(path.relative_to(STANDIN)): path.read_text(encoding="utf-8")
        for path in sorted((STANDIN / "cutlass").rglob("*.py"))
    }
    info = f"{DSL}.dist-info"
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: nvidia-cutlass-dsl\nVersion: 0.0.1\n"
    files[f"{info}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/RECORD"] = ""
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{DSL}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


@dataclass(frozen=True)
class Checkout:
    """Where the stand-in's releases are measured; `environment` are variables for every command."""

    project: Project
    environment: dict[str, str]

    def run(self, versions: Sequence[str], bench: str, *argv: str, **variables: str) -> str:
        """`asv run` of some releases; what it said."""
        known = {release.version: release.commit for release in Manifest.load(self.project.manifest).releases}
        chosen = self.project.root / "commits.txt"
        chosen.write_text("".join(f"{known[version]}\n" for version in versions))
        arguments = ("-E", "fa4:same", "-m", MACHINE, "-b", bench, f"HASHFILE:{chosen}", *argv)
        done = asv(self.project.root, "run", *arguments, **self.environment, **variables)
        return done.stdout + done.stderr

    def result(self, version: str) -> Result:
        """What asv recorded of a release."""
        commit = next(r.commit for r in Manifest.load(self.project.manifest).releases if r.version == version)
        (path,) = (self.project.results / MACHINE).glob(f"{commit[:8]}-*.json")
        return load_result(path)

    def record(self, version: str, group: str, case: str) -> CaseRecord:
        """What the sidecar says of a case of a release."""
        return read_sidecar(sidecar_path(self.result(version).path)).groups[group][case]


def standin_checkout(folder: Path, releases: dict[str, str]) -> Checkout:
    """A synced checkout in an empty `folder`; `releases` maps a version to a mutant, or to "" for the stand-in."""
    root = folder / "checkout"
    root.mkdir()
    for name in ("benchmarks", "requirements", "fa4_asv"):
        copy_sources(name, root)
    for name, edits in SHORTENED.items():
        text = (root / name).read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) == 1, f"{old!r} is not in {name} any more"
            text = text.replace(old, new)
        (root / name).write_text(text, encoding="utf-8")
    (root / "counting_worker.py").write_text(COUNTING_WORKER, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "support" / "simulated_clock.py", root)
    conf = json.loads((ROOT / "asv.conf.json").read_text())
    conf["matrix"]["req"]["flavour"] = ["cu13"]
    (root / "asv.conf.json").write_text(json.dumps(conf))
    dsl_wheel(folder / "wheels")
    for name in ("home", "temporary", "started"):
        (folder / name).mkdir()
    environment = {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "temporary"),  # its own lock: no other run on this machine is waited for
        "FA4_ASV_STARTED": str(folder / "started"),
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "NEEDED": "import asv_runner",  # not torch, for which every asv command would wait
        "FA4_ASV_OTHERS": "1000",  # no test here judges the real clock: samples beside other tests are as good
        # The toolchain is resolved and installed as ever, from this one folder.
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": str(folder / "wheels"),
        "UV_CACHE_DIR": str(folder / "uv"),
    }
    with FakeRegistry() as registry:
        for day, (version, mutant) in enumerate(releases.items(), start=1):
            registry.add(version, f"2026-03-{day:02}T12:00:00Z", sdist(version, mutant))
        done = command(root, "fa4_asv", "history", "sync", **environment, FA4_ASV_INDEX_URL=registry.url)
    assert done.returncode == 0, done.stderr
    done = asv(root, "machine", "--yes", "--machine", MACHINE, **environment)
    assert done.returncode == 0, done.stderr
    return Checkout(Project(root), environment)
