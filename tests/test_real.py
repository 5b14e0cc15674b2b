"""The whole way with the real FA4: registry, uv, compilers, NVIDIA's tools, asv's own commands.

Slow (minutes), needs the package registry and no GPU. One checkout serves all tests of this module.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fa4_asv.cubin import read_cubin
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy
from fa4_asv.machine import find_tool
from fa4_asv.project import Project
from fa4_asv.results import load_result, read_sidecar, sidecar_path

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = "fa4-pyany-flavourcu13-toolchainday"
SPILLS = "codegen.Kernels.track_spill_bytes"


def command(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=580,
        stdin=subprocess.DEVNULL,
    )


def asv(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command(root, "asv", *words, **environment)


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Project:
    """A checkout as a stranger has it, one flavour, synced from the real registry."""
    root = tmp_path_factory.mktemp("real") / "checkout"
    root.mkdir()
    for name in ("benchmarks", "history", "requirements", "fa4_asv"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    conf = json.loads((ROOT / "asv.conf.json").read_text())
    conf["matrix"]["req"]["flavour"] = ["cu13"]
    (root / "asv.conf.json").write_text(json.dumps(conf))
    early = asv(root, "run", "-E", "fa4:same", "fa4-v4.0.0b36^!")
    assert early.returncode != 0
    assert "no FA4 history here yet; run `fa4-asv history sync` first" in early.stdout + early.stderr
    assert "Traceback" not in early.stdout + early.stderr
    done = command(root, "fa4_asv", "history", "sync")
    assert done.returncode == 0, done.stderr
    return Project(root)


@pytest.fixture(scope="module")
def measured(real) -> Path:
    """Result file of a real run: one GQA backward of b36, which compiles four kernels."""
    done = asv(
        real.root,
        "run",
        "-E",
        "fa4:same",
        "-b",
        "codegen.*d128_(full_)?gqa4'",
        "fa4-v4.0.0b36^!",
        "--show-stderr",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (real.results / "nogpu").glob(f"d14f663b-{ENVIRONMENT}.json")
    return path


def toolchain_of(project: Project, result: Path) -> Path:
    """The folder of the toolchain that a result file was measured with."""
    digest = read_sidecar(sidecar_path(result)).toolchain.digest
    (folder,) = (project.work / "toolchains").glob(f"cu13-{digest}-*")
    return folder


def test_the_real_registry_gives_the_committed_history(real):
    committed = Manifest.load(ROOT / "history" / "releases.json").releases
    assert Manifest.load(real.manifest).releases[: len(committed)] == committed


def test_a_toolchain_of_the_day_resolves_to_the_committed_lock(real, tmp_path):
    committed = ROOT / "history" / "toolchains" / "day" / "cu13" / "4.0.0b36.txt"
    release = next(r for r in Manifest.load(real.manifest).releases if r.version == "4.0.0b36")
    source = lay_source(real, release.commit)
    afresh = Project(tmp_path)
    assert source.lock(afresh, "cu13", Policy("day")).path.read_bytes() == committed.read_bytes()


def test_figures_and_reasons_of_a_run_agree(measured):
    figures = load_result(measured).figures
    sidecar = read_sidecar(sidecar_path(measured))
    assert (sidecar.machine, sidecar.release, sidecar.toolchain.flavour) == ("nogpu", "4.0.0b36", "cu13")
    assert sidecar.toolchain.packages["nvidia-cutlass-dsl"] == "4.8.1"
    cases = sidecar.groups["codegen"]
    assert sorted(cases) == [
        f"{arch}/{case}"
        for arch in ("sm_100", "sm_90")
        for case in ("bwd_d128_full_gqa4", "bwd_post_dkv_d128_gqa4", "fwd_d128_full_gqa4")
    ]
    for (name, (arch, case)), value in figures.items():
        record = cases.get(f"{arch}/{case}")
        if record is None:
            assert math.isnan(value), "what was not selected has no figure"
        else:
            assert value == record.figures[name.rpartition("track_")[2]]
    assert all(
        any(op.startswith("HGMMA") for op in cases[f"sm_90/{c}"].opcodes) for c in ("fwd_d128_full_gqa4",)
    )


def test_a_second_run_compiles_nothing_and_says_the_same(real, measured):
    before = read_sidecar(sidecar_path(measured))
    pattern = "codegen.*instructions.*d128_full_gqa4'"
    done = asv(real.root, "run", "-E", "fa4:same", "-b", pattern, "fa4-v4.0.0b36^!")
    assert done.returncode == 0, done.stdout
    assert read_sidecar(sidecar_path(measured)) == before
    durations = json.loads(measured.read_text())["durations"]
    assert max(value for key, value in durations.items() if "codegen" in key) < 3


def test_figures_are_those_of_nvidias_tools_and_do_not_change_between_runs(real, measured, tmp_path):
    """Two fresh processes, another folder, another hash seed: the same cubins; counted here once more."""
    toolchain = toolchain_of(real, measured) / "bin" / "python"
    source = next((real.work / "sources").glob("*-4.0.0b36"))
    from fa4_asv.codegen_worker import target_environment
    from fa4_asv.compile_pool import Job, run_jobs

    environment = (*target_environment("sm_100", str(tmp_path)), ("PYTHONPATH", f"{source}:{real.root}"))
    name = "bwd_d128_full_gqa4"
    job = Job(
        name,
        {"call": name, "into": str(tmp_path / "cubins")},
        (str(toolchain), "-m", "fa4_asv.codegen_worker"),
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
        words = [re.sub(r"@!?U?P\w+", "", text).split()[0] for _, text in lines]
        assert read.figures.registers == int(re.search(r"REG:(\d+)", usage)[1])
        assert read.figures.spill_bytes == int(re.search(r"STACK:(\d+)", usage)[1])
        assert read.figures.local_loads == sum(word.split(".")[0] == "LDL" for word in words)
        assert read.figures.local_stores == sum(word.split(".")[0] == "STL" for word in words)
        assert read.figures.instructions == sum(word != "NOP" for word in words)
        assert read.figures.text_bytes == int(lines[-1][0], 16) + 16
    main = next(k for k in kernels if k["kernel"] == "FlashAttentionBackwardSm100")
    assert read_cubin(Path(main["cubin"]), cuobjdump, nvdisasm).sha256 == cases[f"sm_100/{name}"].sha256
    last = read_cubin(Path(kernels[-1]["cubin"]), cuobjdump, nvdisasm)
    assert last.sha256 == cases["sm_100/bwd_post_dkv_d128_gqa4"].sha256


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


@pytest.mark.parametrize("text", ["[1, 2]", '{"version": 2, "results": []}', '{"version"'])
def test_a_damaged_result_file_is_one_line(real, measured, text):
    whole = measured.read_text()
    try:
        measured.write_text(text)
        done = asv(real.root, "run", "-E", "fa4:same", "-b", "spill.*fwd_d128_full_gqa4'", "fa4-v4.0.0b36^!")
        said = done.stdout + done.stderr
        assert done.returncode != 0
        assert measured.name in said
        assert "Traceback" not in said
        assert measured.read_text() == text
    finally:
        measured.write_text(whole)


def test_bad_words_are_one_line(real):
    unknown = asv(real.root, "run", "-E", "fa4:same", "fa4-v4.0.0b99^!")
    assert unknown.returncode != 0
    assert "unknown release or commit 'fa4-v4.0.0b99'" in unknown.stdout + unknown.stderr
    policy = asv(real.root, "run", "-E", "fa4:same", "fa4-v4.0.0b36^!", FA4_ASV_TOOLCHAIN="dsl")
    assert policy.returncode != 0
    assert "FA4_ASV_TOOLCHAIN='dsl' is no list of pins" in policy.stdout + policy.stderr
    for done in (unknown, policy):
        assert "Traceback" not in done.stdout + done.stderr


def test_an_unresolvable_toolchain_fails_its_commit_only(real):
    pin = "nvidia-cutlass-dsl==1.2.3"
    done = asv(
        real.root,
        "run",
        "-E",
        "fa4:same",
        "-b",
        "spill.*fwd_d64_full'",
        "fa4-v4.0.0b36^!",
        FA4_ASV_TOOLCHAIN=pin,
    )
    assert done.returncode != 0
    assert f"no toolchain for 4.0.0b36 (cu13, {pin})" in done.stdout + done.stderr


def test_an_installed_flash_attn_is_refused(real, measured, tmp_path):
    shadow = tmp_path / "flash_attn"
    shadow.mkdir()
    (shadow / "__init__.py").write_text("")
    toolchain = toolchain_of(real, measured)
    (site,) = toolchain.glob("lib/python*/site-packages")
    (site / "shadow.pth").write_text(str(tmp_path))
    try:
        done = asv(real.root, "run", "-E", "fa4:same", "-b", "spill.*fwd_d64_full'", "fa4-v4.0.0b36^!")
        said = done.stdout + done.stderr
        assert done.returncode != 0
        assert "(flash-attn 2) hides FA4; uninstall flash-attn" in said
        assert "Traceback" not in said
    finally:
        (site / "shadow.pth").unlink()


def test_another_machine_keeps_no_codegen_figures(real, tmp_path):
    """Exact figures under a machine's own name would start a second series: they are n/a there."""
    home = str(tmp_path)
    assert asv(real.root, "machine", "--yes", "--machine", "mybox", HOME=home).returncode == 0
    done = asv(
        real.root,
        "run",
        "-E",
        "fa4:same",
        "-m",
        "mybox",
        "-b",
        "spill.*fwd_d64_full'",
        "fa4-v4.0.0b36^!",
        HOME=home,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (real.results / "mybox").glob("d14f663b-*.json")
    assert all(math.isnan(value) for value in load_result(path).figures.values())
    shutil.rmtree(real.results / "mybox")
