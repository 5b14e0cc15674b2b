"""Rows of a comparison: every verdict, reason and effect, and what swapping the sides does to them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.compare.policy import BETTER, NEITHER, WORSE
from fa4_asv.compare.rows import Measured, Row, compare
from fa4_asv.compare.verdicts import NOT_COMPARABLE
from fa4_asv.record.schema import STATES, CaseRecord

FIGURES = dict.fromkeys(GROUPS["codegen"].metrics, 100)
MEASURED = CaseRecord("measured", figures=FIGURES, sha256="a" * 64)
KEY = "sm_100/fwd_d128_full"
RECORDS = {
    "measured": MEASURED,
    "unsupported": CaseRecord("unsupported", "no such head_dim"),
    "broken": CaseRecord("broken", "killed"),
    "not run": CaseRecord("not run", "not selected"),
}
OTHER = {"sm_90/fwd_d64_full": MEASURED}
INVERSE = {
    "more": "less",
    "slower": "faster",
    "new": "gone",
    "equal": "equal",
    "same": "same",
    "unclear": "unclear",
    NOT_COMPARABLE: NOT_COMPARABLE,
}
INVERSE |= {after: before for before, after in INVERSE.items()}


def rows(old: CaseRecord | None, new: CaseRecord | None, group: str = "codegen", key: str = KEY) -> list[Row]:
    sides = [Measured({group: {**({key: record} if record else {}), **OTHER}}) for record in (old, new)]
    return [row for row in compare(*sides, GROUPS[group].exact) if row.case == key]


def spilling(spill: int, sha256: str = "b" * 64) -> CaseRecord:
    return replace(MEASURED, figures={**FIGURES, "spill_bytes": spill}, sha256=sha256)


def test_one_spill_more_is_worse_and_the_rest_is_equal():
    result = {row.metric: row for row in rows(MEASURED, spilling(101))}
    assert result.keys() == FIGURES.keys()
    spill = result.pop("spill_bytes")
    assert (spill.verdict, spill.reason, spill.effect, spill.base, spill.head) == (
        "more",
        "exact",
        WORSE,
        100,
        101,
    )
    assert spill.ratio == 1.01
    assert {(row.verdict, row.reason, row.effect) for row in result.values()} == {("equal", "exact", NEITHER)}


def test_the_same_machine_code_is_said():
    assert {(row.verdict, row.reason) for row in rows(MEASURED, MEASURED)} == {("equal", "same-cubin")}


SAID = {
    ("measured", "unsupported"): ("newly unsupported", "measured-to-unsupported", WORSE, "no such head_dim"),
    ("measured", "broken"): ("newly broken", "measured-to-broken", WORSE, "killed"),
    ("measured", "not run"): (NOT_COMPARABLE, "head-not-run", NEITHER, "not selected"),
    ("measured", None): ("gone", "head-lacks-it", NEITHER, "measured"),
    ("unsupported", "measured"): ("newly supported", "unsupported-to-measured", BETTER, "was: no such head_dim"),
    ("unsupported", "unsupported"): (NOT_COMPARABLE, "both-unsupported", NEITHER, "no such head_dim"),
    ("unsupported", "broken"): ("newly broken", "unsupported-to-broken", WORSE, "killed"),
    ("unsupported", "not run"): (NOT_COMPARABLE, "head-not-run", NEITHER, "not selected"),
    ("unsupported", None): ("gone", "head-lacks-it", NEITHER, "unsupported: no such head_dim"),
    ("broken", "measured"): ("newly working", "broken-to-measured", BETTER, "was: killed"),
    ("broken", "unsupported"): ("newly unsupported", "broken-to-unsupported", BETTER, "no such head_dim"),
    ("broken", "broken"): (NOT_COMPARABLE, "both-broken", NEITHER, "killed"),
    ("broken", "not run"): (NOT_COMPARABLE, "head-not-run", NEITHER, "not selected"),
    ("broken", None): ("gone", "head-lacks-it", NEITHER, "broken: killed"),
    ("not run", "measured"): (NOT_COMPARABLE, "base-not-run", NEITHER, "not selected"),
    ("not run", "unsupported"): (NOT_COMPARABLE, "base-not-run", NEITHER, "not selected"),
    ("not run", "broken"): (NOT_COMPARABLE, "base-not-run", NEITHER, "not selected"),
    (None, "measured"): ("new", "base-lacks-it", NEITHER, "measured"),
    (None, "unsupported"): ("new", "base-lacks-it", NEITHER, "unsupported: no such head_dim"),
    (None, "broken"): ("new", "base-lacks-it", NEITHER, "broken: killed"),
}  # fmt: skip


@pytest.mark.parametrize("before, after", list(product((*STATES, None), repeat=2)))
def test_every_pair_of_states_says_one_thing(before, after):
    result = rows(RECORDS.get(before), RECORDS.get(after))
    if (before, after) == ("measured", "measured"):
        return
    if {before, after} <= {None, "not run"}:
        assert result == []
        return
    (row,) = result
    assert (row.verdict, row.reason, row.effect, row.message) == SAID[before, after]
    assert (row.metric, row.base, row.head, row.ratio) == ("", None, None, None)


def test_a_group_that_one_side_never_measured_is_not_gone():
    base, head = Measured({"codegen": {KEY: MEASURED}}), Measured({})
    (row,) = compare(base, head, exact=True)
    assert (row.verdict, row.reason, row.message) == (NOT_COMPARABLE, "head-not-run", "not measured")


def test_a_metric_that_one_side_lacks():
    less = replace(MEASURED, figures={"registers": 100})
    news = {row.metric: row.verdict for row in rows(less, MEASURED)}
    assert news.pop("registers") == "equal" and set(news.values()) == {"new"}
    assert {row.verdict for row in rows(MEASURED, less)} == {"equal", "gone"}


def test_figures_of_different_benchmark_versions_are_not_comparable():
    name = "codegen.Kernels.track_spill_bytes"
    sides = [Measured({"codegen": {KEY: spilling(spill)}}, {name: str(spill)}) for spill in (1, 2)]
    (row,) = [row for row in compare(*sides, exact=True) if row.metric == "spill_bytes"]
    assert (row.verdict, row.reason, row.effect) == (NOT_COMPARABLE, "benchmark-version", NEITHER)
    assert row.message == f"versions 1 and 2 of {name}: measure both again"


def test_checks_of_the_route_are_named():
    old, new = ({"broken": n, "checks": 21} for n in (1, 2))
    base = CaseRecord("measured", figures=old, notes={"gone": "x"})
    head = CaseRecord("measured", figures=new, notes={"forward_full": "x", "deterministic": "y"})
    (row,) = rows(base, head, "route", "2.13.0/sm_90")
    assert (row.verdict, row.message) == ("more", "broken: deterministic, forward_full; mended: gone")


def test_bench_selects_figures_as_asv_does():
    sides = [Measured({"codegen": {KEY: MEASURED, **OTHER}})] * 2
    (row,) = compare(*sides, exact=True, bench=[r"spill_bytes\('sm_100', 'fwd_d128_full'\)"])
    assert (row.case, row.metric) == (KEY, "spill_bytes")


# Sampled figures


TIMED = "fa4/b2_s16384_h16_d128_full"


def timed(*centres: float, controls: tuple[float, ...] = (), modes: int = 0) -> CaseRecord:
    marks = [1.0] * modes + [0.0] * (len(centres) - modes)
    samples = {"seconds": [*centres, *centres], "centre": list(centres), "two modes": marks}
    return CaseRecord("measured", samples=samples | ({"control": list(controls)} if controls else {}))


STEADY = (1.0, 1.001, 0.999, 1.0005, 0.9995)


@pytest.mark.parametrize(
    ("factor", "verdict", "reason", "effect"),
    [
        (1.05, "slower", "interval-excludes-0", WORSE),
        (0.95, "faster", "interval-excludes-0", BETTER),
        (1.0, "same", "change-ruled-out", NEITHER),
    ],
)
def test_times_are_told_by_one_value_a_round(factor, verdict, reason, effect):
    (row,) = rows(timed(*STEADY), timed(*(value * factor for value in STEADY)), "forward", TIMED)
    assert (row.verdict, row.reason, row.effect, row.base) == (verdict, reason, effect, 1.0)
    assert row.ratio == pytest.approx(factor) and row.low < row.ratio < row.high
    assert "no control beside every round" in row.message


def test_what_the_card_did_to_both_is_divided_out():
    hot = tuple(value * 1.03 for value in STEADY)
    (row,) = rows(timed(*STEADY, controls=(0.1,) * 5), timed(*hot, controls=(0.103,) * 5), "forward", TIMED)
    assert row.verdict == "same" and row.ratio == pytest.approx(1.0) and row.head == pytest.approx(1.03)


@pytest.mark.parametrize(
    ("head", "verdict", "reason"),
    [
        (timed(1.0, 1.0), "unclear", "few-rounds"),
        (timed(*STEADY, modes=3), "unclear", "two-modes"),
        (timed(0.9, 1.1, 1.0, 0.95, 1.05), "unclear", "wide-interval"),
        (CaseRecord("measured", samples={"seconds": [1.0] * 40}), NOT_COMPARABLE, "head-rounds-unknown"),
    ],
)
def test_what_times_cannot_tell(head, verdict, reason):
    (row,) = rows(timed(*STEADY), head, "forward", TIMED)
    assert (row.verdict, row.reason, row.effect) == (verdict, reason, NEITHER)


def test_a_sample_of_the_compile_time_is_a_process_of_its_own():
    def jit(*seconds: float, cpu: str = "x") -> CaseRecord:
        return CaseRecord("measured", samples={"seconds": list(seconds)}, notes={"cpu": cpu})

    key = "sm_90/fwd_d128_full"
    (row,) = rows(jit(*STEADY), jit(*(1.1 * value for value in STEADY)), "compile", key)
    assert row.verdict == "slower"
    (row,) = rows(jit(*STEADY), jit(*STEADY, cpu="y"), "compile", key)
    assert (row.verdict, row.reason) == (NOT_COMPARABLE, "other-processor")
    assert row.message == "measured on x and on y"


def on_a_card(*values: float, metric: str = "peak_bytes", notes: dict[str, str] | None = None) -> CaseRecord:
    return CaseRecord("measured", samples={metric: list(values)}, notes=notes or {})


@pytest.mark.parametrize(
    ("base", "head", "verdict", "reason"),
    [
        ((512, 512), (512, 512), "equal", "exact"),
        ((512, 512), (1024, 1024), "more", "exact"),
        ((1024,), (512,), "less", "exact"),
        ((512, 768), (1024, 2048), "more", "ranges-apart"),
        ((512, 1024), (768, 2048), "unclear", "ranges-overlap"),
    ],
)
def test_bytes_of_a_card_are_exact_unless_they_vary(base, head, verdict, reason):
    old, new = on_a_card(*base), on_a_card(*head)
    result = [row for row in rows(old, new, "allocated", "sm_90/x") if row.metric == "peak_bytes"]
    assert [(row.verdict, row.reason) for row in result] == [(verdict, reason)]


@pytest.mark.parametrize(
    ("head", "verdict", "reason"),
    [(0.5, "equal", "exact"), (0.54, "same", "errors-alike"), (0.6, "more", "exact"), (0.4, "less", "exact")],
)
def test_errors_are_told_apart_from_a_tenth_on(head, verdict, reason):
    old, new = on_a_card(0.5, metric="out"), on_a_card(head, metric="out")
    (row,) = rows(old, new, "accuracy-forward", "fa4/x/hard")
    assert (row.verdict, row.reason, row.base, row.head) == (verdict, reason, 0.5, head)


def test_checks_of_a_card_are_named():
    old = on_a_card(0, metric="broken")
    (row,) = rows(old, on_a_card(1, metric="broken", notes={"compile": "x"}), "route-card", "bf16")
    assert (row.verdict, row.effect, row.message) == ("more", WORSE, "broken: compile")


# Swapping the sides

counts = st.integers(0, 10**12)
exact_records = st.one_of(
    st.none(),
    st.sampled_from([RECORDS["unsupported"], RECORDS["broken"], RECORDS["not run"]]),
    st.builds(
        lambda values, sha: CaseRecord("measured", figures=values, sha256=sha),
        st.dictionaries(st.sampled_from(sorted(FIGURES)), counts, min_size=1),
        st.sampled_from(["", "a" * 64, "b" * 64]),
    ),
)
seconds = st.floats(1e-6, 10.0)
timed_records = st.one_of(
    st.none(),
    st.sampled_from([RECORDS["unsupported"], RECORDS["broken"]]),
    st.lists(seconds, min_size=1, max_size=6).flatmap(
        lambda centres: st.builds(
            lambda modes, controls: timed(*centres, modes=modes, controls=tuple(controls)),
            st.integers(0, len(centres)),
            st.lists(seconds, min_size=len(centres), max_size=len(centres)),
        )
    ),
)


def inverts(there: list[Row], back: list[Row]) -> None:
    assert [(row.case, row.metric) for row in there] == [(row.case, row.metric) for row in back]
    effects = {WORSE: BETTER, BETTER: WORSE, NEITHER: NEITHER}
    for straight, swapped in zip(there, back, strict=True):
        assert (straight.base, straight.head) == (swapped.head, swapped.base)
        assert swapped.effect == effects[straight.effect]
        if straight.verdict in INVERSE:
            assert swapped.verdict == INVERSE[straight.verdict]
        assert (straight.ratio is None) == (swapped.ratio is None)
        if straight.ratio is None or swapped.ratio is None:
            continue
        if straight.ratio in (0.0, math.inf):
            assert {straight.ratio, swapped.ratio} == {0.0, math.inf}
        else:
            assert straight.ratio * swapped.ratio == pytest.approx(1.0)


@given(exact_records, exact_records)
def test_swapping_the_sides_inverts_exact_figures(old, new):
    inverts(rows(old, new), rows(new, old))


errors = st.lists(st.just(0.0) | st.floats(1e-6, 4.0), min_size=1, max_size=3).map(
    lambda values: on_a_card(*values, metric="out")
)


@given(errors, errors)
def test_swapping_the_sides_inverts_errors(old, new):
    there, back = (rows(*sides, "accuracy-forward", "fa4/x/hard") for sides in ((old, new), (new, old)))
    inverts(there, back)
    assert [row.reason for row in there] == [row.reason for row in back]


@given(timed_records, timed_records)
def test_swapping_the_sides_inverts_times(old, new):
    inverts(rows(old, new, "forward", TIMED), rows(new, old, "forward", TIMED))
