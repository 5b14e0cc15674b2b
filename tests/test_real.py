"""The whole way with the real FA4: registry, uv, compilers, NVIDIA's tools, asv's own commands.

Slow (minutes), needs the package registry and no GPU. One checkout serves all.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fa4_asv.base.machine import find_tool
from fa4_asv.base.project import Project
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.history.demands import demands_of, tomllib
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.repository import read_file
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.kernels.cubin import read_cubin
from fa4_asv.measure.pool import Job, run_jobs
from fa4_asv.record.store import load_result, read_sidecar, sidecar_path
from tests.support.real_checkout import ROOT, asv, measure, toolchain_of

pytestmark = pytest.mark.slow
SPILLS = "codegen.Kernels.track_spill_bytes"


def test_the_real_registry_gives_the_committed_history(real):
    committed = Manifest.load(ROOT / "history" / "releases.json").releases
    assert Manifest.load(real.manifest).releases[: len(committed)] == committed


@pytest.mark.parametrize(("version", "flavour"), [("4.0.0b36", "cu13"), ("4.0.0b20", "cu12")])
def test_a_toolchain_of_the_day_resolves_to_the_committed_lock(real, tmp_path, version, flavour):
    committed = ROOT / "history" / "toolchains" / "day" / flavour / f"{version}.txt"
    release = next(r for r in Manifest.load(real.manifest).releases if r.version == version)
    source = lay_source(real, release.commit)
    afresh = Project(tmp_path)
    assert source.lock(afresh, flavour, Policy("day")).path.read_bytes() == committed.read_bytes()


def test_what_uv_is_given_is_what_each_release_demands(real):
    """The requirements of every release, compared with its pyproject.toml by packaging's own reading of both."""
    releases = Manifest.load(real.manifest).releases
    assert len(releases) >= 33
    for release in releases:
        text = read_file(real, release.commit, "flash_attn/cute/pyproject.toml")
        table = tomllib.loads(text)["project"]
        extras = table.get("optional-dependencies", {})
        demands = demands_of(text, release.version)
        for flavour, lines in (
            ("cu12", table["dependencies"]),
            ("cu13", table["dependencies"] + extras.get("cu13", [])),
        ):
            requirements = [Requirement(line) for line in demands.of_flavour(flavour).splitlines()]
            assert requirements == [Requirement(line) for line in lines], release.version
        assert (demands.cu13 is None) == ("cu13" not in extras)
        assert demands.python == "3.10"


def test_figures_and_reasons_of_a_run_agree(measured):
    figures = load_result(measured).figures
    sidecar = read_sidecar(sidecar_path(measured))
    assert (sidecar.machine, sidecar.release, sidecar.toolchain.flavour) == ("nogpu", "4.0.0b36", "cu13")
    assert sidecar.toolchain.packages["nvidia-cutlass-dsl"] == "4.8.1"
    cases = sidecar.groups["codegen"]
    run = {key: record for key, record in cases.items() if record.state != "not run"}
    assert len(cases) == len(GROUPS["codegen"].cases)
    assert sorted(run) == [
        f"{arch}/{case}"
        for arch in ("sm_100", "sm_90")
        for case in ("bwd_d128_full_gqa4", "bwd_post_dkv_d128_gqa4", "fwd_d128_full_gqa4")
    ]
    committed = read_sidecar(ROOT / "results" / "nogpu" / sidecar_path(measured).name).groups
    recorded, loops = committed["codegen"], sidecar.groups["loops"]
    assert run == {key: recorded[key] for key in run}, "anybody's run must say what the committed record says"
    counted = {key: record for key, record in loops.items() if record.state != "not run"}
    assert len(counted) == 4 and counted == {key: committed["loops"][key] for key in counted}
    for (name, (arch, case)), value in figures.items():
        if not name.startswith("codegen.Kernels."):
            continue
        record = run.get(f"{arch}/{case}")
        if record is None:
            assert math.isnan(value), "what was not selected has no figure"
        else:
            assert value == record.figures[name.rpartition("track_")[2]]
    assert all(
        any(op.startswith("HGMMA") for op in cases[f"sm_90/{c}"].opcodes) for c in ("fwd_d128_full_gqa4",)
    )


def test_a_second_run_compiles_nothing_and_says_the_same(real, measured):
    """What was compiled would be written to the cache anew; exact figures that come out the same change no file."""

    def written() -> dict[str, int]:
        files = [measured, sidecar_path(measured), *(real.work / "cache").rglob("*")]
        return {str(path): path.stat().st_mtime_ns for path in files if path.is_file()}

    before, record = written(), read_sidecar(sidecar_path(measured))
    pattern = "codegen.*instructions.*d128_full_gqa4'"
    done = measure(real.root, pattern)
    assert done.returncode == 0, done.stdout
    assert read_sidecar(sidecar_path(measured)) == record
    assert len(before) > 2 and written() == before


def test_figures_are_those_of_nvidias_tools_and_do_not_change_between_runs(real, measured, tmp_path):
    """Two fresh processes, another folder, another hash seed: the same cubins; counted here once more."""
    toolchain = toolchain_of(real, measured) / "bin" / "python"
    source = next((real.work / "sources").glob("*-4.0.0b36"))
    environment = (
        *target_environment("sm_100", "cu13"),
        ("CUTE_DSL_KEEP_CUBIN", "1"),
        ("FA4_ASV_DUMPS", str(tmp_path)),
        ("PYTHONPATH", f"{source}:{real.root}"),
    )
    name = "bwd_d128_full_gqa4"
    job = Job(
        name,
        {"call": name, "into": str(tmp_path / "cubins"), "around": True},
        (str(toolchain), "-m", "fa4_asv.measure.kernels.worker"),
        environment,
        200,
    )
    (outcome,) = run_jobs([job], 1)
    assert not outcome.lost
    kernels = outcome.answer["kernels"]
    assert len(kernels) == 4
    assert [k["kernel"] for k in kernels].count("FlashAttentionBackwardPostprocess") == 2
    cases = read_sidecar(sidecar_path(measured)).groups["codegen"]
    cuobjdump, nvdisasm = find_tool("cuobjdump"), find_tool("nvdisasm")
    for kernel in kernels:
        path = kernel["cubin"]
        read = read_cubin(Path(path), cuobjdump, nvdisasm)
        usage = subprocess.run(
            [cuobjdump, "--dump-resource-usage", path], capture_output=True, text=True
        ).stdout
        sass = subprocess.run([nvdisasm, "-c", path], capture_output=True, text=True).stdout
        lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/(.*);", sass, re.MULTILINE)
        opcodes = [re.sub(r"@!?U?P\w+", "", text).split()[0] for _, text in lines]
        assert read.figures.registers == int(re.search(r"REG:(\d+)", usage)[1])
        assert read.figures.spill_bytes == int(re.search(r"STACK:(\d+)", usage)[1])
        assert read.figures.local_loads == sum(word.split(".")[0] == "LDL" for word in opcodes)
        assert read.figures.local_stores == sum(word.split(".")[0] == "STL" for word in opcodes)
        assert read.figures.instructions == sum(word != "NOP" for word in opcodes)
        assert read.figures.text_bytes == int(lines[-1][0], 16) + 16
    main = next(k for k in kernels if k["kernel"] == "FlashAttentionBackwardSm100")
    assert read_cubin(Path(main["cubin"]), cuobjdump, nvdisasm).sha256 == cases[f"sm_100/{name}"].sha256
    last = read_cubin(Path(kernels[-1]["cubin"]), cuobjdump, nvdisasm)
    assert last.sha256 == cases["sm_100/bwd_post_dkv_d128_gqa4"].sha256


@pytest.mark.nightly  # with releases of the stand-in: test_asv_commands.py
def test_asv_find_names_the_release_of_a_change(real):
    """b30 still spills in the Blackwell forward at head_dim 128, b31 (DSL 4.7.1) no longer does."""
    case = r"codegen.Kernels.track_spill_bytes\('sm_100', 'fwd_d128_full'\)"
    done = asv(real.root, "find", "-E", "fa4:same", "--invert", "fa4-v4.0.0b29..fa4-v4.0.0b32", case)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Greatest improvement found: cdcf72b3 <fa4-v4.0.0b31>" in done.stdout


def test_publish_show_and_compare_read_the_record(real, measured):
    published = asv(real.root, "publish", "--html-dir", ".asv/html")
    assert published.returncode == 0, published.stdout + published.stderr
    graph = json.loads((real.work / "html" / "index.json").read_text())
    assert SPILLS in graph["benchmarks"]
    shown = asv(real.root, "show", "fa4-v4.0.0b36")
    assert "track_spill_bytes" in shown.stdout
    compared = asv(real.root, "compare", "-m", "nogpu", "fa4-v4.0.0b36", "fa4-v4.0.0b36")
    assert compared.returncode == 0, compared.stdout + compared.stderr
