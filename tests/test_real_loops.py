"""Loops of FA4's own kernels, compiled here: what was counted by hand in their disassembly.

By hand: the lines from the label that a loop's last branch goes back to, down to that branch, without NOP. With this compiler
spins stand behind the kernel, so that such a stretch is a turn; b18's stand in line, and were taken out.
"""

from __future__ import annotations

import pytest

from fa4_asv.base.project import Project
from fa4_asv.measure.kernels.loops import EXP2, MATRIX, TENSOR_MEMORY
from fa4_asv.record.store import read_sidecar
from tests.support import ROOT
from tests.support.tools import tool

pytestmark = pytest.mark.slow

# (release, architecture, kernel): role, masked, instructions, instructions of spins, matrix instructions, exp2, selects
HAND = {
    ("4.0.0b18", "sm_90", "fwd_d64_causal"): [
        (MATRIX, True, 544, 13, 12, 66, 66),
        (MATRIX, True, 553, 13, 12, 66, 66),
    ],
    ("4.0.0b18", "sm_90", "bwd_d128_full"): [(MATRIX, True, 470, 12, 34, 40, 40)],
    ("4.0.0b36", "sm_90", "fwd_d64_causal"): [
        (MATRIX, True, 533, 12, 12, 66, 66),
        (MATRIX, False, 434, 12, 12, 66, 2),
    ],
    ("4.0.0b36", "sm_90", "bwd_d128_full"): [(MATRIX, True, 463, 12, 34, 40, 40)],
    ("4.0.0b36", "sm_90", "fwd_d128_window"): [
        (MATRIX, True, 587, 12, 16, 66, 66),
        (MATRIX, False, 474, 12, 16, 66, 2),
        (MATRIX, True, 601, 12, 16, 66, 66),
    ],
    ("4.0.0b36", "sm_100", "fwd_d128_full"): [
        (MATRIX, False, 202, 36, 32, 0, 0),
        (EXP2, False, 542, 12, 0, 105, 4),
        (TENSOR_MEMORY, False, 185, 0, 0, 0, 0),
    ],
    ("4.0.0b36", "sm_100", "fwd_d128_causal"): [
        (MATRIX, False, 205, 36, 32, 0, 0),
        (EXP2, True, 688, 12, 0, 113, 132),
        (EXP2, False, 513, 12, 0, 113, 4),
        (TENSOR_MEMORY, False, 186, 0, 0, 0, 0),
    ],
    ("4.0.0b36", "sm_100", "bwd_d128_full"): [
        (MATRIX, False, 252, 49, 40, 0, 0),
        (EXP2, False, 543, 30, 0, 64, 0),
        (TENSOR_MEMORY, False, 122, 6, 0, 0, 0),
    ],
}


@pytest.fixture(scope="module")
def compiled(real, tmp_path_factory):
    """What the record names, compiled; and its digests."""
    tools = tool("loop_cubins")
    cubins, digests = tools.Cubins(tmp_path_factory.mktemp("loops")), {}
    for release, arch in dict.fromkeys((release, arch) for release, arch, _ in HAND):
        recorded = _recorded(release)
        kernels = {
            kernel: recorded[f"{arch}/{kernel}"].sha256
            for of, at, kernel in HAND
            if (of, at) == (release, arch)
        }
        digests |= {(release, arch, kernel): digest for kernel, digest in kernels.items()}
        tools.compile_missing(real, cubins, [(release, kernels)], ("cu13", arch), print)
    return cubins, digests


def _recorded(release: str):
    """The codegen records of a release as committed."""
    for path in sorted((Project(ROOT).results / "nogpu").glob("*-flavourcu13-toolchainday.sidecar")):
        sidecar = read_sidecar(path)
        if sidecar.release == release:
            return sidecar.groups["codegen"]
    raise AssertionError(release)


@pytest.mark.parametrize("case", HAND, ids="/".join)
def test_loops_are_those_that_were_counted_by_hand(compiled, case):
    cubins, digests = compiled
    result = cubins.loops(digests[case])
    assert [
        (
            loop.role,
            loop.masked,
            loop.instructions,
            loop.waiting,
            sum(loop.products.values()),
            loop.exp2,
            loop.fsel,
        )
        for loop in result.loops
    ] == HAND[case]
    assert result.why == ""


def test_a_turn_of_b36_is_shorter_than_one_of_b18(compiled):
    """The whole backward has more instructions in b36 and is faster: its turn has fewer."""
    cubins, digests = compiled

    def turn(release: str, kernel: str) -> int:
        return cubins.loops(digests[release, "sm_90", kernel]).main().instructions

    def whole(release: str, kernel: str) -> int:
        return _recorded(release)[f"sm_90/{kernel}"].figures["instructions"]

    assert (turn("4.0.0b18", "bwd_d128_full"), turn("4.0.0b36", "bwd_d128_full")) == (470, 463)
    assert whole("4.0.0b36", "bwd_d128_full") > whole("4.0.0b18", "bwd_d128_full")
    assert (turn("4.0.0b18", "fwd_d64_causal"), turn("4.0.0b36", "fwd_d64_causal")) == (553, 434)
