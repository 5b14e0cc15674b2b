"""The real import and JIT, through asv on a machine with a name; slow, needs the package registry."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fa4_asv.record.store import read_sidecar, sidecar_path
from tests.support.real_checkout import asv, measure

pytestmark = pytest.mark.slow
CASE = r"compile.Jit.track_seconds\('sm_90', 'fwd_d128_full'\)"


@pytest.fixture(scope="module")
def home(real, tmp_path_factory) -> dict[str, str]:
    """A home folder of its own: asv keeps the machine's description there. Others may use what they like."""
    old = Path.home()
    environment = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        # uv and pip keep the settings and the cache of whoever runs the tests.
        "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME", str(old / ".config")),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(old / ".cache")),
        "FA4_ASV_OTHERS": "1000",
    }
    done = asv(real.root, "machine", "--yes", "--machine", "testbox", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


def _run(root: Path, bench: str, **environment: str) -> str:
    done = measure(root, bench, "-m", "testbox", "--show-stderr", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.nightly  # with a call that is a fake: test_jit.py
def test_a_call_has_six_samples_and_asv_their_statistics(real, home):
    _run(real.root, CASE, **home)
    (path,) = (real.results / "testbox").glob("d14f663b-*-flavourcu13-*.json")
    record = read_sidecar(sidecar_path(path)).groups["compile"]["sm_90/fwd_d128_full"]
    samples = record.samples["seconds"]
    assert record.state == "measured" and len(samples) == 6
    assert all(0.2 < seconds < 60 for seconds in samples)
    assert record.notes["alone"].startswith("others used at most ")
    result = json.loads(path.read_text())
    row = dict(zip(result["result_columns"], result["results"]["compile.Jit.track_seconds"], strict=False))
    (median,) = (value for value in row["result"] if value is not None and value == value)
    assert min(samples) <= median <= max(samples)


def test_machine_nogpu_says_na_in_words(real):
    done = measure(real.root, "compile.Import", "--show-stderr")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "n/a" in done.stdout
