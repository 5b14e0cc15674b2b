"""What goes wrong in a real run: one clear line, a non-zero exit, nothing lost."""

from __future__ import annotations

import math
import shutil

import pytest

from fa4_asv.record.store import load_result, sidecar_path
from tests.support.real_checkout import asv, measure, toolchain_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("text", ["[1, 2]", '{"version": 2, "results": []}', '{"version"'])
def test_a_damaged_result_file_is_one_line(real, measured, text):
    whole = measured.read_text()
    try:
        measured.write_text(text)
        done = measure(real.root, "spill.*fwd_d128_full_gqa4'")
        output = done.stdout + done.stderr
        assert done.returncode != 0
        assert measured.name in output
        assert "Traceback" not in output
        assert measured.read_text() == text
    finally:
        measured.write_text(whole)


def test_bad_words_are_one_line(real):
    unknown = asv(real.root, "run", "-E", "fa4:same", "fa4-v4.0.0b99^!")
    assert unknown.returncode != 0
    assert "unknown release or commit 'fa4-v4.0.0b99'" in unknown.stdout + unknown.stderr
    policy = asv(real.root, "run", "-E", "fa4:same", "fa4-v4.0.0b36^!", FA4_ASV_TOOLCHAIN="dsl")
    assert policy.returncode != 0
    assert "FA4_ASV_TOOLCHAIN='dsl' is not a list of pins" in policy.stdout + policy.stderr
    for done in (unknown, policy):
        assert "Traceback" not in done.stdout + done.stderr


def test_a_failed_build_keeps_the_figures_that_were_there(real, measured):
    """asv writes "failed" over everything when a build fails; here an offline machine with a lost lock."""
    before = measured.read_bytes(), sidecar_path(measured).read_bytes()
    lock = real.locks / "day" / "cu13" / "4.0.0b36.txt"
    content = lock.read_bytes()
    try:
        lock.write_text("damaged\n")
        commits = "fa4-v4.0.0b34..fa4-v4.0.0b36"
        done = measure(real.root, "spill.*sm_90.*fwd_d128_full_gqa4'", commits=commits)
    finally:
        lock.write_bytes(content)
    output = done.stdout + done.stderr
    assert "4.0.0b36.txt is damaged at 'damaged'" in output
    assert "nothing ran, so nothing is recorded; what was there is kept" in output
    assert done.returncode != 0
    assert (measured.read_bytes(), sidecar_path(measured).read_bytes()) == before


@pytest.mark.parametrize("pin", ["nvidia-cutlas-dsl==4.8.1", "torch==2.9.1"])
def test_a_pin_without_effect_is_refused(real, pin):
    done = measure(real.root, "spill.*gqa4'", FA4_ASV_TOOLCHAIN=pin)
    assert done.returncode != 0
    assert f"{pin} has no effect: 4.0.0b36 does not depend on" in done.stdout + done.stderr


def test_an_unresolvable_toolchain_fails_its_commit_only(real):
    pin = "nvidia-cutlass-dsl==1.2.3"
    done = measure(real.root, "spill.*fwd_d64_full'", FA4_ASV_TOOLCHAIN=pin)
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
        done = measure(real.root, "spill.*fwd_d64_full'")
        output = done.stdout + done.stderr
        assert done.returncode != 0
        assert "(flash-attn 2) hides FA4; uninstall flash-attn" in output
        assert "Traceback" not in output
    finally:
        (site / "shadow.pth").unlink()


def test_another_machine_keeps_no_codegen_figures(real, tmp_path):
    """Exact figures under a machine's own name would start a second series: they are n/a there."""
    home = str(tmp_path)
    assert asv(real.root, "machine", "--yes", "--machine", "mybox", HOME=home).returncode == 0
    done = measure(real.root, "spill.*fwd_d64_full'", "-m", "mybox", HOME=home)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (real.results / "mybox").glob("d14f663b-*.json")
    assert all(math.isnan(value) for value in load_result(path).figures.values())
    shutil.rmtree(real.results / "mybox")
