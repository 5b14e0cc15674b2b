"""Loops of FA4's own kernels, compiled here: what was counted by hand in their disassembly.

By hand: the lines from the label that a loop's last branch goes back to, down to that branch, without NOP. With this compiler
spins stand behind the kernel, so that such a stretch is a turn; b18's stand in line, and were taken out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from fa4_asv.base.project import Project
from fa4_asv.history.manifest import Manifest
from fa4_asv.measure.kernels.loops import EXP2, MATRIX, TENSOR_MEMORY, KernelLoops
from fa4_asv.record.schema import Records
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


Loops = Callable[[str, str, str], KernelLoops]


@pytest.fixture(scope="module")
def loops(real, tmp_path_factory) -> Loops:
    """Loops of a kernel that the record names; all of its release and architecture that HAND has are compiled at once."""
    tools = tool("loop_cubins")
    cubins = tools.Cubins(tmp_path_factory.mktemp("loops"))

    def loops_of(release: str, arch: str, kernel: str) -> KernelLoops:
        recorded = _recorded(release, "codegen")
        kernels = {
            name: recorded[f"{arch}/{name}"].sha256 for of, at, name in HAND if (of, at) == (release, arch)
        }
        tools.compile_missing(real, cubins, [(release, kernels)], ("cu13", arch), print)
        return cubins.loops(kernels[kernel])

    return loops_of


@functools.cache
def _recorded(release: str, group: str) -> Records:
    """Records of a release as committed."""
    releases = Manifest.load(Project(ROOT).manifest).releases
    (commit,) = (each.commit for each in releases if each.version == release)
    (path,) = (ROOT / "results" / "nogpu").glob(f"{commit[:8]}-*-flavourcu13-toolchainday.sidecar")
    return read_sidecar(path).groups[group]


@pytest.mark.parametrize("case", HAND, ids="/".join)
def test_the_record_s_turns_are_those_that_were_counted_by_hand(case):
    """The longest loop with matrix instructions (on Blackwell: of the softmax), of each kind."""
    release, arch, kernel = case
    role = EXP2 if arch == "sm_100" else MATRIX
    figures = _recorded(release, "loops")[f"{arch}/{kernel}"].figures
    for masked, name in ((True, "masked_instructions"), (False, "turn_instructions")):
        counted = [line[2] for line in HAND[case] if line[:2] == (role, masked)]
        if counted:
            assert figures[name] == max(counted)


@pytest.mark.parametrize(
    "case",
    HAND,
    ids="/".join,
)
@pytest.mark.nightly  # the record is held to the same counts above, and what is compiled to the record in test_real.py
def test_loops_are_those_that_were_counted_by_hand(loops, case):
    result = loops(*case)
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


@pytest.mark.parametrize("source", ["record", pytest.param("compiled", marks=pytest.mark.nightly)])
def test_a_turn_of_b36_is_shorter_than_one_of_b18(request, source):
    """The whole backward has more instructions in b36 and is faster: its turn has fewer."""

    def turn(release: str, kernel: str) -> int:
        if source == "compiled":
            return request.getfixturevalue("loops")(release, "sm_90", kernel).main().instructions
        figures = _recorded(release, "loops")[f"sm_90/{kernel}"].figures
        return figures.get("turn_instructions", figures["masked_instructions"])

    def whole(release: str, kernel: str) -> int:
        return _recorded(release, "codegen")[f"sm_90/{kernel}"].figures["instructions"]

    assert (turn("4.0.0b18", "bwd_d128_full"), turn("4.0.0b36", "bwd_d128_full")) == (470, 463)
    assert whole("4.0.0b36", "bwd_d128_full") > whole("4.0.0b18", "bwd_d128_full")
    assert (turn("4.0.0b18", "fwd_d64_causal"), turn("4.0.0b36", "fwd_d64_causal")) == (553, 434)
