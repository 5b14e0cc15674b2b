"""Loops of a kernel from SASS that was written by hand for the purpose; expectations are counted by eye."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4_asv.measure.kernels.flow import NotUnderstood, dominators, natural_loops
from fa4_asv.measure.kernels.loops import EXP2, MATRIX, TENSOR_MEMORY, KernelLoops, read_loops
from fa4_asv.measure.kernels.sass import functions, graph_of
from tests.support.loops import BLACKWELL, IN_LINE, OUT_OF_LINE, PRODUCT, WAIT, loops, sass, turn


def only(*lines: str):
    """The figures of the one iteration loop."""
    result = read_loops(sass(*lines))
    assert not result.why and len(result.loops) == 1, result
    return result.loops[0]


@pytest.mark.parametrize(("lines", "waiting"), [(OUT_OF_LINE, 5), (IN_LINE, 3)])
def test_a_turn_is_counted_without_its_spin_wherever_that_stands(lines, waiting):
    loop = only(*lines)
    assert (loop.role, loop.instructions, loop.waiting) == (MATRIX, 8, waiting)
    assert loop.products == {"HGMMA.64x128x16": 1}
    assert (loop.mufu, loop.exp2, loop.ffma, loop.conversions, loop.moves, loop.barriers) == (
        1,
        1,
        1,
        1,
        1,
        1,
    )
    assert loop.slots_per_product == 8
    assert (loop.why, loop.registers, loop.spills) == ("", 0, 0)


def test_a_spin_that_no_turn_can_pass_by_is_counted_once():
    loop = only(
        ".L_turn:",
        "NOP",
        "MOV R1, R2",
        ".L_spin:",
        WAIT,
        "@!P0 BRA `(.L_spin)",
        PRODUCT,
        "@P1 BRA `(.L_turn)",
        "EXIT",
    )
    assert (loop.instructions, loop.waiting) == (5, 0)


def test_of_nested_loops_the_inner_one_is_a_turn_and_the_outer_one_is_not():
    loop = only(
        ".L_tile:",
        WAIT,
        "STL [R1], R2",
        ".L_turn:",
        WAIT,
        PRODUCT,
        "LDL R3, [R1]",
        "@P1 BRA `(.L_turn)",
        PRODUCT,
        "@P2 BRA `(.L_tile)",
        "EXIT",
    )
    assert (loop.instructions, loop.local_loads, loop.local_stores) == (4, 1, 0)


def test_spills_inside_and_outside_of_turns_are_told_apart():
    result = read_loops(
        sass(
            "STL [R1], R2",
            ".L_turn:",
            WAIT,
            PRODUCT,
            "LDL R3, [R1]",
            "STL [R1], R3",
            "@P1 BRA `(.L_turn)",
            "LDL R4, [R1]",
            "EXIT",
        )
    )
    assert (result.spills_inside, result.spills_outside) == (2, 2)


def test_a_product_unrolled_in_a_loop_that_waits_for_nothing_is_no_iteration():
    result = read_loops(
        sass(
            ".L_turn:",
            WAIT,
            ".L_k:",
            "UTCHMMA gdesc[UR6], tmem[UR8]",
            "BRA.U UP0, `(.L_k)",
            "UTCBAR [UR6]",
            "@P1 BRA `(.L_turn)",
            "EXIT",
        )
    )
    assert [(loop.role, loop.products) for loop in result.loops] == [(MATRIX, {"UTCHMMA": 1})]
    assert result.loops[0].why == "an inner loop whose number of turns is not in the code"
    assert result.loops[0].slots_per_product is None


def test_each_role_of_warps_has_its_loops_and_the_mask_its_own():
    result = read_loops(sass(*BLACKWELL))
    assert [(loop.role, loop.masked, loop.instructions, loop.registers) for loop in result.loops] == [
        (MATRIX, False, 3, 0x38),
        (EXP2, True, 6, 0xC0),
        (EXP2, False, 4, 0xC0),
        (TENSOR_MEMORY, False, 4, 0),
    ]
    assert result.main().instructions == 4
    assert result.main(masked=True).instructions == 6


def test_where_all_loops_apply_the_mask_the_longest_stands_for_the_kernel():
    masked = ("FSEL R3, R4, -INF , P3", "MUFU.EX2 R3, R3", PRODUCT)
    lines = (
        ".L_a:",
        WAIT,
        *masked,
        "@P1 BRA `(.L_a)",
        ".L_b:",
        WAIT,
        "MOV R1, R2",
        *masked,
        "@P1 BRA `(.L_b)",
        "EXIT",
    )
    result = read_loops(sass(*lines))
    assert [loop.instructions for loop in result.loops] == [5, 6]
    assert result.main().instructions == result.main(masked=True).instructions == 6


def test_without_a_mask_there_is_no_masked_loop():
    with pytest.raises(NotUnderstood, match="no loop with a mask"):
        read_loops(sass(*OUT_OF_LINE)).main(masked=True)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (("MOV R1, R2", "EXIT"), "no loop holds matrix instructions"),
        ((".L_a:", "FADD R1, R1, R2", "@P0 BRA `(.L_a)", "EXIT"), "no loop holds matrix instructions"),
        # Two ways into one circle.
        (
            (
                "@P0 BRA `(.L_b)",
                ".L_a:",
                WAIT,
                PRODUCT,
                ".L_b:",
                "FADD R1, R1, R2",
                "@P1 BRA `(.L_a)",
                "EXIT",
            ),
            "irreducible",
        ),
        ((".L_a:", WAIT, PRODUCT, "BRX R2 -0x20"), "indirect branch"),
        (("BRA `(.L_elsewhere)",), "no label"),
        (("@P0 BRA `(.L_end)", "EXIT", ".L_end:"), "no label"),
        (("MOV R1, R2",), "goes on behind its last instruction"),
        (("BSSY B0, `(.L_far)", "BSYNC B0", "NOP", "MOV R1, R2", ".L_far:", "EXIT"), "BSYNC B0"),
        (("BSYNC B1", "EXIT"), "BSYNC B1"),
    ],
)
def test_what_is_not_understood_has_a_reason_and_no_figures(lines, why):
    result = read_loops(sass(*lines))
    assert why in result.why and not result.loops
    with pytest.raises(NotUnderstood, match=why):
        result.main()


def test_a_call_inside_a_turn_leaves_it_uncounted_and_one_before_it_does_not():
    turn = (".L_turn:", WAIT, PRODUCT, "MUFU.EX2 R3, R3", "@P1 BRA `(.L_turn)", "EXIT")
    callee = ("$helper:", "FADD R1, R1, R2", "RET.REL.NODEC R4 `(kernel)")
    call = "CALL.REL.NOINC `($helper)"
    assert only(call, *turn, *callee).instructions == 4
    inside = read_loops(sass(*turn[:2], call, *turn[2:], *callee))
    assert [loop.why for loop in inside.loops] == ["a call inside the loop"]
    with pytest.raises(NotUnderstood, match="a call inside the loop"):
        inside.main()


def test_an_indirect_branch_with_its_table_is_followed():
    """The table leads to the loop; without it nothing would."""
    lines = (
        'BRX R2 -0x20    (*"BRANCH_TARGETS .L_a,.L_end"*)',
        ".L_a:",
        WAIT,
        PRODUCT,
        "@P1 BRA `(.L_a)",
        ".L_end:",
        "EXIT",
    )
    assert only(*lines).instructions == 3


def test_a_table_with_an_unknown_label_is_refused():
    result = read_loops(sass('BRX R2 -0x20 (*"BRANCH_TARGETS .L_a,.L_gone"*)', ".L_a:", "EXIT"))
    assert ".L_gone" in result.why


@pytest.mark.parametrize(
    "branch", ["BRA", "@PT BRA", "@P0 BRA", "@!P0 BRA", "@UP0 BRA", "BRA.U UP0,", "BRA.DIV ~URZ,", "BRA P0,"]
)
def test_a_back_edge_may_carry_any_predicate(branch):
    lines = (".L_a:", WAIT, PRODUCT, f"{branch} `(.L_a)", "EXIT")
    assert only(*lines).instructions == 3
    graph = graph_of(functions(sass(*lines))[0])
    assert (1 in graph.after[0]) == (branch not in ("BRA", "@PT BRA")), (
        "only a branch with a condition goes on"
    )


def test_threads_that_take_turns_at_one_instruction_take_one_each():
    lines = (
        ".L_turn:",
        WAIT,
        PRODUCT,
        ".L_lane:",
        "@P0 ELECT P1, URZ, PT",
        "UBLKCP.S.S [UR4], [UR6], UR7",
        "@P0 BRA.U.ANY `(.L_lane)",
        "@P1 BRA `(.L_turn)",
        "EXIT",
    )
    loop = only(*lines)
    assert (loop.instructions, loop.why) == (6, "")


def test_a_counted_inner_loop_is_no_spin():
    lines = (
        ".L_turn:",
        WAIT,
        PRODUCT,
        ".L_load:",
        "LDG.E R3, [R4]",
        "@P0 BRA `(.L_load)",
        "@P1 BRA `(.L_turn)",
        "EXIT",
    )
    assert only(*lines).why == "an inner loop whose number of turns is not in the code"
    polled = [line.replace("LDG.E R3", "LDG.E.STRONG.GPU R3") for line in lines]
    assert only(*polled).why == ""


def test_work_that_only_those_who_wait_do_leaves_the_turn_uncounted():
    work = ["FADD R1, R1, R2"] * 9
    lines = [line if line != "UMOV UR5, 0x1" else work for line in OUT_OF_LINE]
    flat = [each for line in lines for each in (line if isinstance(line, list) else [line])]
    assert only(*flat).why == "a part of the turn is done only by those that have to wait"
    assert only(*OUT_OF_LINE).why == ""


def test_kernels_of_one_cubin_are_read_apart_and_none_stands_for_both():
    both = sass(*OUT_OF_LINE, kernel="one") + "\n" + sass(*IN_LINE, kernel="two")
    result = read_loops(both)
    assert [loop.kernel for loop in result.loops] == ["one", "two"]
    with pytest.raises(NotUnderstood, match="several kernels"):
        result.main()


def test_code_that_is_never_reached_counts_for_nothing():
    """Compilers end a kernel with a branch to itself; spills in what cannot be reached are no spills."""
    result = read_loops(sass(*OUT_OF_LINE[:-4], ".L_end:", "STL [R1], R2", WAIT, PRODUCT, "BRA `(.L_end)"))
    assert (len(result.loops), result.spills_outside) == (1, 0)


def test_nothing_is_read_from_no_text():
    assert read_loops("") == KernelLoops(why="no loop holds matrix instructions, exp2 or tensor memory")


def test_what_follows_an_exit_of_some_threads_is_reached():
    assert only("@P0 EXIT", *OUT_OF_LINE).instructions == 8
    assert "no loop" in read_loops(sass("EXIT", *OUT_OF_LINE)).why


def test_spills_of_a_subroutine_are_outside_of_loops():
    callee = ("$helper:", "LDL R1, [R2]", "RET.REL.NODEC R4 `(kernel)")
    result = read_loops(sass("CALL.REL.NOINC `($helper)", *OUT_OF_LINE, *callee))
    assert result.spills_outside == 1


@pytest.mark.parametrize(("selects", "masked"), [(0, False), (1, False), (2, True)])
def test_a_turn_is_masked_with_one_select_for_two_exp2(selects, masked):
    lines = (
        ".L_a:",
        WAIT,
        PRODUCT,
        *["MUFU.EX2 R3, R3"] * 4,
        *["FSEL R3, R4, -INF , P3"] * selects,
        "@P1 BRA `(.L_a)",
        "EXIT",
    )
    assert only(*lines).masked == masked


def test_registers_are_known_only_where_they_are_asked_for_once():
    asked = "USETMAXREG.DEALLOC.CTAPOOL 0x18"
    assert only(asked, *OUT_OF_LINE).registers == 24
    assert only(asked, "USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0xf0", *OUT_OF_LINE).registers == 0


def test_only_imad_mov_is_a_move_and_only_ex2_makes_an_iteration():
    lines = (
        ".L_a:",
        WAIT,
        PRODUCT,
        "IMAD R1, R2, R3, R4",
        "IMAD.MOV.U32 R1, RZ, RZ, R2",
        "MOV R1, R2",
        "@P1 BRA `(.L_a)",
        "EXIT",
    )
    assert only(*lines).moves == 2
    assert "no loop" in read_loops(sass(".L_a:", WAIT, "MUFU.RCP R1, R2", "@P1 BRA `(.L_a)", "EXIT")).why


def test_a_long_loop_that_polls_is_no_spin():
    work = ["FADD R1, R1, R2"] * 14
    lines = (
        ".L_turn:",
        WAIT,
        PRODUCT,
        ".L_spin:",
        WAIT,
        *work,
        "@!P0 BRA `(.L_spin)",
        "@P1 BRA `(.L_turn)",
        "EXIT",
    )
    assert only(*lines).why == ""
    lines = (*lines[:5], "FADD R1, R1, R2", *lines[5:])
    assert only(*lines).why == "an inner loop whose number of turns is not in the code"


# Graphs by hand: block -> the blocks that follow it.
def test_dominators_of_a_diamond_with_a_loop_behind():
    after = [(1, 2), (3,), (3,), (4,), (3, 5), ()]
    result = dominators(after, (0,))
    assert [sorted(result[block]) for block in range(6)] == [
        [0],
        [0, 1],
        [0, 2],
        [0, 3],
        [0, 3, 4],
        [0, 3, 4, 5],
    ]
    assert [(loop.header, sorted(loop.blocks)) for loop in natural_loops(after, (0,))] == [(3, [3, 4])]


def test_loops_nest_and_those_with_one_header_are_one():
    after = [(1,), (2,), (1, 3), (1, 4), (0, 5), ()]
    result = natural_loops(after, (0,))
    assert [(loop.header, sorted(loop.blocks)) for loop in result] == [(0, [0, 1, 2, 3, 4]), (1, [1, 2, 3])]


def test_what_no_root_reaches_is_in_no_loop():
    assert natural_loops([(), (1,)], (0,)) == []
    assert [loop.header for loop in natural_loops([(), (1,)], (0, 1))] == [1]


def test_a_loop_that_rescales_with_one_exp2_does_not_stand_for_the_kernel():
    """FA4's forward at head dim 256 on sm_100: the mask is in the only loop of the softmax, and another rescales."""
    softmax, rescale = replace(turn(1267, masked=True), exp2=129), replace(turn(196), exp2=1)
    result = loops(softmax, rescale)
    assert (result.main().instructions, result.main(masked=True).instructions) == (1267, 1267)
    assert loops(softmax, replace(rescale, exp2=65)).main().instructions == 196
    other = loops(softmax, replace(rescale, kernel="another kernel of the cubin"))
    assert other.main().instructions == 196, "each kernel by itself"
