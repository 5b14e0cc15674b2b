"""Source or toolchain, with the real compilers: one kernel of the release that ended a spill on Blackwell.

Slow, needs the package registry and no GPU.
"""

from __future__ import annotations

import json
import shutil

import pytest

from fa4_asv.integrity.staging import stage
from fa4_asv.record.store import iter_results
from tests.support import ROOT
from tests.support.real_checkout import command

pytestmark = pytest.mark.nightly  # with compilers that are fakes: test_explain_command.py


def test_the_source_of_b31_ended_the_spill_under_either_compiler(real, tmp_path):
    """What the committed record says of base and head, and two real compiles that belong to neither."""
    staged = stage(real, tmp_path / "staged")
    (staged.results / "nogpu").mkdir()
    for name in ("9c7c5e9d", "cdcf72b3"):
        (sidecar,) = (ROOT / "results" / "nogpu").glob(f"{name}-*cu13*day.sidecar")
        shutil.copy(sidecar, staged.results / "nogpu")
    arguments = ("explain", "4.0.0b30", "4.0.0b31", "--flavour", "cu13", "-b", "sm_100.*'fwd_d128_full'")
    done = command(
        staged.root, "fa4_asv", *arguments, "--no-culprits", "-E", "fa4:same", "--format", "json", "--keep"
    )
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)
    spill = entry["cases"]["sm_100/fwd_d128_full"]["spill_bytes"]
    assert spill == {"base": 112, "head": 0, "source": 0, "toolchain": 112, "cause": "source"}
    assert entry["opcodes"]["sm_100/fwd_d128_full"]["local loads"] == [35, 0]
    assert not list(iter_results(staged.results)), "a cross pair is no figure of asv's"
    assert [path.name for path in (staged.results / "nogpu").glob("*.cause")] == [
        "cdcf72b3-9c7c5e9d-cu13.cause"
    ]
