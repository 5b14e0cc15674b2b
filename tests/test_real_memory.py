"""Traced memory against sums written by hand from FA4's host code; slow, needs the package registry.

The sums are those of `_flash_attn_fwd` and `_flash_attn_bwd` in 4.0.0b36's interface.py: every torch.empty
and torch.zeros of a dense call. They agree to the byte: a trace knows of no allocator that rounds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path

import pytest

from fa4_asv.catalog.benchmarks import FAMILIES, TRACED
from fa4_asv.catalog.kernels import ARCHES
from fa4_asv.catalog.shapes import SdpaShape, shape
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.source import lay_source
from fa4_asv.history.toolchain import Policy, install
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.pool import Job, run_jobs
from fa4_asv.record.store import read_sidecar, sidecar_path
from tests.support.real_checkout import ENVIRONMENT, asv

pytestmark = pytest.mark.slow
BF16, FP32 = 2, 4
MIB = 1 << 20


# What the sums are written for; then FAMILIES, and the longest sequences of all that are traced.
DENSE = shape(4, 16, 4096, 128)
GQA = shape(
    1, 32, 2000, 128, kv_heads=8, causal=True
)  # Llama 3's 32 heads over 8, at a length that no tile divides
Call = tuple[bool, SdpaShape]
LONG = [TRACED[name] for name in TRACED if "s32768" in name]
RUN = "bwd_b8_s4096_h16_d128_full"


@pytest.fixture(scope="module")
def tracing(real):
    """Answers of the real worker to calls in one process, with the sources and the toolchain of b36."""
    release = next(r for r in Manifest.load(real.manifest).releases if r.version == "4.0.0b36")
    source = lay_source(real, release.commit)
    python = install(real, source.lock(real, "cu13", Policy("day")), Path(sys.executable))
    command = (str(python), "-m", "fa4_asv.measure.memory.worker")

    def answers(arch: str, calls: Sequence[Call]) -> list[dict]:
        environment = (*target_environment(arch, "cu13"), ("PYTHONPATH", f"{source.folder}:{real.root}"))
        jobs = [
            Job(str(number), {"backward": backward, "shape": asdict(size)}, command, environment, 60)
            for number, (backward, size) in enumerate(calls)
        ]
        outcomes = run_jobs(jobs, 1)
        assert not any(outcome.lost or outcome.answer["error"] for outcome in outcomes), outcomes
        return [outcome.answer for outcome in outcomes]

    return answers


@pytest.fixture(scope="module")
def traced(tracing) -> Callable[[str, Call], dict]:
    """The answer to one of the calls of this file; each architecture is asked for all of them at once."""
    of_families = [TRACED[name] for family in FAMILIES.values() for name in family]
    calls = [(False, DENSE), (True, DENSE), (True, GQA), *of_families, *LONG, TRACED[RUN]]
    known: dict[str, list[dict]] = {}

    def answer(arch: str, call: Call) -> dict:
        if arch not in known:
            known[arch] = tracing(arch, calls)
        return known[arch][calls.index(call)]

    return answer


def rounded(number: int, tile: int) -> int:
    return -(-number // tile) * tile


@pytest.mark.parametrize("arch", ARCHES)
def test_a_forward_holds_its_inputs_its_output_and_lse(traced, arch):
    answer = traced(arch, (False, DENSE))
    tensors = {
        "q bfloat16[4, 4096, 16, 128]": prod((4, 4096, 16, 128)) * BF16,
        "k bfloat16[4, 4096, 16, 128]": prod((4, 4096, 16, 128)) * BF16,
        "v bfloat16[4, 4096, 16, 128]": prod((4, 4096, 16, 128)) * BF16,
        "out bfloat16[4, 4096, 16, 128]": prod((4, 4096, 16, 128)) * BF16,
        "lse float32[4, 16, 4096]": prod((4, 16, 4096)) * FP32,
    }
    assert answer["parts"] == tensors
    assert answer["peak_bytes"] == sum(tensors.values()) == 257 * MIB
    assert answer["extra_bytes"] == 0


# Rows of a query tile in the full backward at head_dim 128: Hopper's are 80, so 4096 rows become 4160.
@pytest.mark.parametrize(("arch", "tile_m", "mib"), [("sm_90", 80, 645.03125), ("sm_100", 128, 643)])
def test_a_backward_holds_an_fp32_dq_and_two_rows_of_sums(traced, arch, tile_m, mib):
    answer = traced(arch, (True, DENSE))
    rows = rounded(4096, tile_m)
    operands = 5 * prod((4, 4096, 16, 128)) * BF16 + prod((4, 16, 4096)) * FP32  # q, k, v, out, dout; lse
    returned = 3 * prod((4, 4096, 16, 128)) * BF16  # dq, dk, dv
    dq_accum = prod((4, 16, rows * 128)) * FP32
    dpsum = lse_log2 = prod((4, 16, rows)) * FP32
    assert answer["extra_bytes"] == dq_accum + dpsum + lse_log2
    assert answer["peak_bytes"] == operands + returned + dq_accum + dpsum + lse_log2 == mib * MIB


@pytest.mark.parametrize(("arch", "tile_m"), [("sm_90", 64), ("sm_100", 128)])
def test_a_gqa_backward_holds_fp32_dk_and_dv_of_the_kv_heads_too(traced, arch, tile_m):
    answer = traced(arch, (True, GQA))
    # sm_100 pairs two CTAs of 128 keys: 16 tiles are even, so nothing is added to them.
    rows, keys = rounded(2000, tile_m), rounded(2000, 128)
    query, key = prod((1, 2000, 32, 128)) * BF16, prod((1, 2000, 8, 128)) * BF16
    lse = prod((1, 32, 2000)) * FP32
    dq_accum = prod((1, 32, rows * 128)) * FP32
    dpsum = lse_log2 = prod((1, 32, rows)) * FP32
    dk_accum = dv_accum = prod((1, 8, keys * 128)) * FP32
    extra = dq_accum + dpsum + lse_log2 + dk_accum + dv_accum
    assert answer["extra_bytes"] == extra
    assert answer["peak_bytes"] == extra + 4 * query + 4 * key + lse  # q, out, dout, dq; k, v, dk, dv


@pytest.mark.nightly  # all cases are traced in one order here, and in another by whoever recorded them
@pytest.mark.parametrize("arch", ARCHES)
def test_a_case_does_not_depend_on_the_cases_before_it(tracing, traced, arch):
    assert [traced(arch, call) for call in LONG] == tracing(arch, LONG[::-1])[::-1]


@pytest.mark.parametrize("arch", ARCHES)
def test_memory_does_not_grow_with_the_sequence_at_a_fixed_number_of_tokens(traced, arch):
    """5 % is room for tiles that do not divide 1024 rows (80 on Hopper); S x S scores would be 16 GiB."""
    names = [name for family in FAMILIES.values() for name in family]
    peaks = {name: traced(arch, TRACED[name])["peak_bytes"] for name in names}
    for family, members in FAMILIES.items():
        of_family = [peaks[name] for name in members]
        assert max(of_family) - min(of_family) < 0.05 * max(of_family), (family, of_family)


@pytest.mark.nightly  # what asv records of a trace is audited: test_real_audit.py
def test_a_run_keeps_the_figures_and_what_they_are_made_of(real, traced):
    """Through asv: peaks, growth and n/a; the second benchmark traces nothing again."""
    pattern = r"memory.*('fwd_d128'|'bwd_b8_s4096_h16_d128_full')"
    done = asv(real.root, "run", "-E", "fa4:same", "-b", pattern, "fa4-v4.0.0b36^!", "--show-stderr")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (real.results / "nogpu").glob(f"d14f663b-{ENVIRONMENT}.json")
    groups = read_sidecar(sidecar_path(path)).groups
    for arch in ARCHES:
        answer = traced(arch, TRACED[RUN])
        record = groups["memory"][f"{arch}/{RUN}"]
        assert record.figures == {key: answer[key] for key in ("peak_bytes", "extra_bytes")}
        assert record.parts == {
            part: size for part, size in answer["parts"].items() if part.startswith("workspace ")
        }
        assert sum(answer["parts"].values()) == TRACED[RUN][1].operand_bytes(TRACED[RUN][0]) + sum(
            record.parts.values()
        )
        growth = groups["growth"][f"{arch}/fwd_d128"]
        assert growth.figures == {"growth_bytes": 0} and len(growth.parts) == 6
    results = json.loads(path.read_text())["results"]
    assert {"memory.Traced.track_peak_bytes", "memory.Growth.track_growth_bytes"} <= set(results)
