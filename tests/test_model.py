"""The model of a call's time: terms counted by hand, coefficients that were put in and come out, where it is silent; mutants of each rule."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from fa4_asv.catalog.shapes import SdpaShape, shape
from fa4_asv.compare import model
from fa4_asv.record.schema import CaseRecord
from tests.support.predicted import code_record, loop_record

SM = 132 * 1.7e9
DENSE, CAUSAL = shape(2, 8, 1056, 128), shape(2, 8, 1024, 128, causal=True)
WINDOW = shape(1, 8, 1024, 128, window=128)


def code(m: ModuleType = model, **other: int):
    """A kernel of two consumer groups: per turn 8 products of 64x128x16, 64 exp2 of scores and 2 of rows, 500 instructions."""
    result = m.machine_code(loop_record(), code_record())
    return replace(result, **other)


def approx(*terms: float):
    return pytest.approx(terms)


# What each term is, by hand.


def forward_dense(m: ModuleType) -> None:
    """Tiles of 128 rows: 9 per sequence of 1,056 tokens, 144 in all, in two waves of 132 SMs. A turn: 128 rows by 128 keys."""
    turns = 16 * 1056 * 1056 / (128 * 128) * (2 * 132 / 144)
    terms = m.terms_of(code(m), DENSE, False)
    assert terms == approx(2 * math.hypot(turns * 512, 1.4 * turns * 500) / SM, 144 / SM, 0)


def forward_of_three_groups(m: ModuleType) -> None:
    """Tiles of 192 rows: 6 per sequence."""
    assert m.terms_of(code(m, groups=3), DENSE, False)[1] == pytest.approx(96 / SM)


def forward_causal(m: ModuleType) -> None:
    """128 tiles without waves; half a turn of each is cut away, and one turn per tile is masked."""
    turns = 16 * 1024 * 1025 / 2 / (128 * 128) + 128 / 2
    slots = (turns - 128) * 500 + 128 * 600
    terms = m.terms_of(code(m, masked_turn=600), CAUSAL, False)
    assert terms == approx(2 * math.hypot(turns * 512, 1.4 * slots) / SM, 128 / SM, 0)


def forward_window(m: ModuleType) -> None:
    """Every turn is masked; 64 tiles have one more each."""
    turns = 8 * (1024 * 129 - 128 * 129 / 2) / (128 * 128) + 64
    terms = m.terms_of(code(m, masked_turn=600), WINDOW, False)
    assert terms == approx(2 * math.hypot(turns * 512, 1.4 * turns * 600) / SM, 64 / SM, 0)


def backward_dense(m: ModuleType) -> None:
    """40 exp2 by 256 threads are 80 queries by 128 keys. Tiles of 128 keys in two waves; blocks of Q and dO of 40 KiB, of dQ as much."""
    turns = 16 * 1056 * 1056 / (80 * 128) * (2 * 132 / 144)
    moved = 80 * (128 + 128) * 2 + 2 * 80 * 128 * 4
    around = 2 * 1056 * 8 * (4 * 128 + 10 * 128 + 12) / 4.8e12
    terms = m.terms_of(code(m, exp2=40), DENSE, True)
    assert terms == approx(2 * turns * 512 / SM, 2 * turns * 500 / SM, turns * moved / 128 / SM, 0, 0, around)


def backward_causal(m: ModuleType) -> None:
    """16 exp2: 64 queries by 64 keys. A tile's mask cuts half a turn."""
    turns = 16 * 1024 * 1025 / 2 / (64 * 64) + 256 / 2
    assert m.terms_of(code(m, exp2=16), CAUSAL, True)[0] == pytest.approx(2 * turns * 512 / SM)


def backward_window(m: ModuleType) -> None:
    """And of a window two whole ones."""
    turns = 8 * (1024 * 129 - 128 * 129 / 2) / (64 * 64) + 128 * 2
    assert m.terms_of(code(m, exp2=16), WINDOW, True)[0] == pytest.approx(2 * turns * 512 / SM)


def backward_of_one_stage(m: ModuleType) -> None:
    """Only with four mbarriers is a load exposed: 32 KiB of Q and dO per turn."""
    turns = 16 * 1024 * 1025 / 2 / (64 * 64) + 256 / 2
    one_stage, two_stages = (
        m.terms_of(code(m, exp2=16, barriers=count), CAUSAL, True)[3] for count in (4, 6)
    )
    assert (one_stage, two_stages) == approx(turns * 64 * 256 * 2 / SM, 0)


def spills(m: ModuleType) -> None:
    """Per access and tile."""
    assert m.terms_of(code(m, spilled=8), CAUSAL, False)[2] == pytest.approx(8 * 128 / SM)
    assert m.terms_of(code(m, spilled=8, exp2=16), CAUSAL, True)[4] == pytest.approx(8 * 256 / SM)


def fewer_heads_of_k_and_v(m: ModuleType) -> None:
    """dK and dV are added up in fp32 as well."""
    grouped = replace(DENSE, kv_heads=2)
    more = m.terms_of(code(m), grouped, True)[5] - m.terms_of(code(m), DENSE, True)[5]
    assert more == pytest.approx(2 * 1056 * 2 * 256 * 10 / 4.8e12)


def narrow_products(m: ModuleType) -> None:
    """24 columns take 22 cycles of shared memory instead of 12; 64 take 32 of either."""
    narrow, even = (m.terms_of(code(m, products={columns: 10}), DENSE, True)[0] for columns in (24, 64))
    assert narrow / even == pytest.approx(22 / 32)


# The fit.


def timed(
    m: ModuleType, true: tuple[float, ...], backward: bool, kernels: list, shapes: list[SdpaShape]
) -> list:
    """What a card with these coefficients would time."""
    return [
        m.Timed(
            kernel, shape, sum(a * b for a, b in zip(true, m.terms_of(kernel, shape, backward), strict=True))
        )
        for kernel in kernels
        for shape in shapes
    ]


SHAPES = [DENSE, CAUSAL, WINDOW, shape(4, 2, 4096, 64, causal=True), shape(1, 4, 512, 256, kv_heads=2)]


def coefficients_come_out(m: ModuleType) -> None:
    kernels = [code(m, spilled=4), code(m, turn=900, masked_turn=950), code(m, groups=3, exp2=34)]
    true = (0.9, 5000.0, 200.0)
    assert m.fitted(timed(m, true, False, kernels, SHAPES), False).coefficients == approx(*true)
    kernels = [
        code(m, exp2=32, spilled=4, barriers=8),
        code(m, exp2=16, barriers=4, turn=300),
        code(m, exp2=40, turn=900),
    ]
    true = (0.6, 0.9, 1.3, 0.04, 200.0, 1.7)
    assert m.fitted(timed(m, true, True, kernels, SHAPES), True).coefficients == approx(*true)


def none_is_below_zero(m: ModuleType) -> None:
    """Here the best would be a negative constant per tile."""
    rows = timed(m, (1.0, -3000.0, 0.0), False, [code(m), code(m, turn=900)], SHAPES)
    turns, tiles, unknown = m.fitted(rows, False).coefficients
    assert turns > 0 and tiles == 0 and unknown is None


def relative_squares(m: ModuleType) -> None:
    """A call of 1 ms counts as much as one of 1 s: half of the rows say 1, half 2, and 1.2 errs least in shares."""
    kernel = code(m, spilled=0)
    rows = [
        m.Timed(kernel, each, factor * m.terms_of(kernel, each, False)[0])
        for each, factor in ((shape(1, 1, 131072, 128), 2.0), (shape(1, 1, 131072, 128), 1.0))
    ]
    result = m.least_squares([[m.terms_of(row.code, row.shape, False)[0] / row.seconds] for row in rows])
    assert result == approx(1.2)


def a_change_inverts_with_its_sides(m: ModuleType) -> None:
    fit = m.fitted(timed(m, (0.9, 5000.0, 0.0), False, [code(m), code(m, turn=900)], SHAPES), False)
    there, back = (
        fit.change(code(m), code(m, turn=450), CAUSAL),
        fit.change(code(m, turn=450), code(m), CAUSAL),
    )
    assert there < 0 < back and (1 + there) * (1 + back) == pytest.approx(1)


# Where it says nothing.


def says(m: ModuleType, match: str, call: Callable[[], object]) -> None:
    with pytest.raises(m.Silent, match=match):
        call()


def silent_records(m: ModuleType) -> None:
    says(m, "not recorded", lambda: m.machine_code(None, code_record()))
    refused = CaseRecord("unsupported", "AssertionError: no")
    says(m, "AssertionError: no", lambda: m.machine_code(loop_record(), refused))
    blind = loop_record(figures={"spills_outside": 0}, notes={"turn_instructions": "a table is missing"})
    says(m, "a table is missing", lambda: m.machine_code(blind, code_record()))
    says(m, "spills inside", lambda: m.machine_code(loop_record(spills_inside=2), code_record()))
    says(m, "another kind", lambda: m.machine_code(loop_record(registers=168), code_record()))
    says(m, "another kind", lambda: m.machine_code(loop_record(exp2=2), code_record()))
    other = loop_record(products={"UTCHMMA": 8})
    says(m, "another kind", lambda: m.machine_code(other, code_record()))


def silent_work(m: ModuleType) -> None:
    """What no kernel of the fit has: spills, stages; of a backward the stages are in the terms."""
    forward = m.fitted(timed(m, (0.9, 5000.0, 0.0), False, [code(m), code(m, turn=900)], SHAPES), False)
    says(m, "spills outside", lambda: forward.seconds(code(m, spilled=1), DENSE))
    says(m, "12 mbarriers", lambda: forward.seconds(code(m, barriers=12), DENSE))
    kernels = [code(m, exp2=16), code(m, exp2=32, turn=300), code(m, exp2=40, turn=900)]
    rows = timed(m, (0.6, 0.9, 1.3, 0, 0, 1.7), True, kernels, SHAPES)
    backward = m.fitted(rows, True)
    assert backward.seconds(code(m, exp2=16, barriers=6), DENSE) > 0
    says(m, "one stage", lambda: backward.seconds(code(m, exp2=16, barriers=4), DENSE))
    says(m, "7 mbarriers", lambda: backward.seconds(code(m, exp2=16, barriers=7), DENSE))


def silent_fit(m: ModuleType) -> None:
    says(m, "no call was timed", lambda: m.fitted([], False))
    says(m, "too few", lambda: m.fitted(timed(m, (0.9, 5.0, 0.0), False, [code(m)], [DENSE]), False))


EXAMS = [
    forward_dense,
    forward_of_three_groups,
    forward_causal,
    forward_window,
    backward_dense,
    backward_causal,
    backward_window,
    backward_of_one_stage,
    spills,
    fewer_heads_of_k_and_v,
    narrow_products,
    coefficients_come_out,
    none_is_below_zero,
    relative_squares,
    a_change_inverts_with_its_sides,
    silent_records,
    silent_work,
    silent_fit,
]


@pytest.mark.parametrize("exam", EXAMS, ids=lambda exam: exam.__name__)
def test_the_model(exam):
    exam(model)


MUTANTS = {
    "max(columns / 2, 16 + columns / 4)": "columns / 2",
    "math.hypot(turns * _tensor_cycles(code), _SLOT * slots)": "(turns * _tensor_cycles(code) + _SLOT * slots)",
    "_SLOT = 1.4": "_SLOT = 1.0",
    "(turns - masked) * code.turn + masked * code.masked_turn": "turns * code.turn",
    "turns if shape.window is not None else tiles": "tiles if shape.window is not None else tiles",
    "_GROUP_ROWS * code.groups": "_GROUP_ROWS * 2",
    "code.exp2 - _RESCALES": "code.exp2",
    "min(area / _GROUP_ROWS, 128.0)": "area / _GROUP_ROWS",
    "(loaded + 2 * added)": "(loaded + added)",
    "code.barriers == _ONE_STAGE": "code.barriers < 8",
    "_cycles(tiles * code.spilled),\n        _around": "_cycles(code.spilled),\n        _around",
    "return 1.0 if uneven else": "return 1.0 if True else",
    "return 1 + sides if backward else": "return (1 + sides) / 2 if backward else",
    "(sides if backward else 1) / 2 if shape.causal else 0.0": "0.0",
    "if shape.kv_heads != shape.num_heads else 0": "if False else 0",
    "if min(solution) >= 0:": "if True:",
    "term / row.seconds for term": "term for term",
    "if term and coefficient is None:": "if False:",
    "if code.barriers not in": "if False and code.barriers not in",
    'if loops.figures.get("spills_inside"):': "if False:",
    "if groups is None or": "if",
    "seconds(head, shape) / self.seconds(base, shape)": "seconds(base, shape) / self.seconds(head, shape)",
    "(_STAGES if self.backward else frozenset())": "frozenset()",
}


@pytest.fixture
def mutant(monkeypatch) -> Callable[[str, str], ModuleType]:
    """The model with an edit of its text."""

    def made(old: str, new: str) -> ModuleType:
        text = Path(str(model.__file__)).read_text(encoding="utf-8")
        assert text.count(old) == 1, "an edit that fits exactly once"
        module = ModuleType("mutant_of_the_model")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text.replace(old, new), "mutant", "exec"), module.__dict__)
        return module

    return made


@pytest.mark.parametrize("old", MUTANTS)
def test_a_mutant_fails_an_exam(old, mutant):
    broken = mutant(old, MUTANTS[old])
    assert [exam.__name__ for exam in EXAMS if fails(exam, broken)]


def test_the_same_text_fails_none(mutant):
    """So that a mutant fails for its edit."""
    same = mutant("_SLOT = 1.4", "_SLOT = 1.4")
    assert not [exam.__name__ for exam in EXAMS if fails(exam, same)]


def fails(exam: Callable[[ModuleType], None], mutant: ModuleType) -> bool:
    try:
        exam(mutant)
    except (AssertionError, pytest.fail.Exception, mutant.Silent, TypeError, ZeroDivisionError):
        return True
    return False
