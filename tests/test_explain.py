"""The four corners, what they say, and what could not be compiled; the compiler is stood in for."""

from __future__ import annotations

import itertools
import json

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.catalog.benchmarks import GROUPS, key_of
from fa4_asv.explain.attribution import investigate
from fa4_asv.explain.corners import corners, explanation, leading, selected
from fa4_asv.explain.opcodes import OTHER, ROLES, by_role, role_of
from fa4_asv.record.explanation import Verdict
from fa4_asv.record.store import read_sidecar, series_sidecars, write_sidecar
from tests.support import ROOT
from tests.support.explain_fake import CASE, NEW, OLD, FakeShop, record
from tests.support.explain_fake import synced as synced
from tests.support.explain_fake import told as told
from tests.support.explain_fake import two as two
from tests.support.results import make

OTHER_CASE = ("sm_100", "fwd_d64_full")


def by_toolchain(source, packages, case):
    return 16 if packages == NEW and "d128" in case else 0


def test_only_what_changed_is_crossed(two, told):
    project, base, head = two
    shop = FakeShop(project, by_toolchain)
    result = corners(shop, base, head, [CASE, OTHER_CASE], told.append)
    assert list(result.base) == ["sm_100/fwd_d128_full"]
    assert shop.asked == [
        ("4.0.0b3", "4.6.2", ["sm_100/fwd_d128_full", "sm_100/fwd_d64_full"]),
        ("4.0.0b10", "4.8.0", ["sm_100/fwd_d128_full", "sm_100/fwd_d64_full"]),
        ("4.0.0b10", "4.6.2", ["sm_100/fwd_d128_full"]),
        ("4.0.0b3", "4.8.0", ["sm_100/fwd_d128_full"]),
    ]
    assert "1 of 2 kernels changed from 4.0.0b3 to 4.0.0b10 (cu12)" in told
    explained = explanation(project, "cu12", base, head, result)
    assert explained.cases["sm_100/fwd_d128_full"] == {
        "spill_bytes": Verdict(0, 16, 0, 16, "toolchain"),
        "local_loads": Verdict(0, 4, 0, 4, "toolchain"),
        "local_stores": Verdict(0, 2, 0, 2, "toolchain"),
    }
    assert explained.opcodes["sm_100/fwd_d128_full"]["local loads"] == (0, 4)
    assert explained.opcodes["sm_100/fwd_d128_full"]["matrix"] == (8, 8)
    assert explained.files == ("flash_attn/cute/interface.py",)
    assert explained.packages == {name: (OLD[name], NEW[name]) for name in OLD if OLD[name] != NEW[name]}
    assert leading(explained, "toolchain") == {"sm_100/fwd_d128_full": "spill_bytes"}
    assert leading(explained, "source") == {}


def test_the_record_is_believed_where_its_toolchain_is_the_same(two, told):
    project, base, head = two
    for side, spill in ((base, 8), (head, 24)):
        sidecar = make(
            commit=side.source.commit,
            release=side.source.release,
            digest=side.lock.digest if side is base else "another",
            cases={"sm_100/fwd_d128_full": record(spill)},
        )
        path = project.results / "nogpu" / f"{side.source.commit[:8]}-x.sidecar"
        write_sidecar(path, sidecar)
        data = json.loads(path.read_text())
        assert data["toolchain"]["flavour"] == "cu13"
        data["toolchain"]["flavour"] = "cu12"
        path.write_text(json.dumps(data))
    shop = FakeShop(project, by_toolchain)
    explanation = corners(shop, base, head, [CASE], told.append)
    assert explanation.base["sm_100/fwd_d128_full"] == record(8)
    assert explanation.head["sm_100/fwd_d128_full"] == record(16), (
        "that of another toolchain is measured again"
    )
    assert "4.0.0b10 lacks 1 kernel in the record (cu12): compiled aside" in told
    (path,) = (project.results / "nogpu").glob(f"{base.source.commit[:8]}*")
    path.write_text("{")
    assert list(series_sidecars(path.parent, base.source.commit, "cu12", "day")) == []


def test_a_cross_pair_that_does_not_compile_leaves_the_cause_unknown(two, told):
    project, base, head = two

    def spills(source, packages, case):
        if source.release == "4.0.0b10" and packages == OLD:
            return "broken: ImportError: cannot import name 'clc' from 'cutlass'"
        return by_toolchain(source, packages, case)

    explanation = investigate(FakeShop(project, spills), base, head, [CASE], told.append)
    verdict = explanation.cases["sm_100/fwd_d128_full"]["spill_bytes"]
    assert (verdict.source, verdict.toolchain, verdict.cause) == (None, 16, "unknown")
    assert (
        verdict.why
        == "new source with old toolchain: broken: ImportError: cannot import name 'clc' from 'cutlass'"
    )
    assert explanation.unknown == ["sm_100/fwd_d128_full"]
    assert explanation.culprits == ()


@pytest.mark.parametrize(
    ("cross", "cause"),
    [
        ({("4.0.0b10", "4.6.2"): "unsupported: no", ("4.0.0b3", "4.8.0"): 0}, "source"),
        ({("4.0.0b10", "4.6.2"): 0, ("4.0.0b3", "4.8.0"): "unsupported: no"}, "toolchain"),
        ({("4.0.0b10", "4.6.2"): 0, ("4.0.0b3", "4.8.0"): "broken: killed"}, "unknown"),
    ],
)
def test_a_state_that_changed_is_a_verdict_too(two, told, cross, cause):
    project, base, head = two
    days = {("4.0.0b3", "4.6.2"): 0, ("4.0.0b10", "4.8.0"): "unsupported: AssertionError: head_dim"}

    def spills(source, packages, case):
        return (days | cross)[source.release, packages["nvidia-cutlass-dsl"]]

    explanation = investigate(FakeShop(project, spills), base, head, [CASE], told.append, culprits=False)
    state = explanation.states["sm_100/fwd_d128_full"]
    assert (state.base, state.head, state.cause) == ("measured", "unsupported", cause)
    assert state.why.startswith("unsupported: AssertionError: head_dim")
    assert explanation.cases == {}


@pytest.mark.parametrize(
    ("source", "toolchain", "cause"),
    [
        (0, "broken: OpError: \x1b[1mgot 96\x1b[0m", "source"),
        ("broken: OpError: got 96", 0, "toolchain"),
        ("broken: OpError: got 96", "broken: OpError: got 96", "both together"),
        ("broken: TypeError: quack takes 4", "broken: OpError: got 96", "unknown"),
        ("broken: OpError: got 96", "broken: killed", "unknown"),
    ],
)
def test_a_cross_pair_proves_something_only_where_it_breaks_as_a_side_does(
    two, told, source, toolchain, cause
):
    project, base, head = two
    corners = {
        ("4.0.0b3", "4.6.2"): "broken: OpError: got 96",
        ("4.0.0b10", "4.8.0"): 0,
        ("4.0.0b10", "4.6.2"): source,
        ("4.0.0b3", "4.8.0"): toolchain,
    }

    def spills(source, packages, case):
        if case == key_of(OTHER_CASE):
            return 0  # a side of which nothing compiles is an error
        return corners[source.release, packages["nvidia-cutlass-dsl"]]

    explanation = investigate(
        FakeShop(project, spills), base, head, [CASE, OTHER_CASE], told.append, culprits=False
    )
    assert explanation.states["sm_100/fwd_d128_full"].cause == cause


def test_a_side_of_which_nothing_compiles_is_an_error(two, told):
    project, base, head = two
    shop = FakeShop(
        project, lambda source, *_: "broken: ImportError: no cutlass" if source is head.source else 0
    )
    with pytest.raises(
        Fa4AsvError, match=r"no kernel of 4\.0\.0b10 compiles \(cu12\): ImportError: no cutlass"
    ):
        investigate(shop, base, head, [CASE, OTHER_CASE], told.append)


def test_nothing_changed_compiles_nothing_more(two, told):
    project, base, head = two
    shop = FakeShop(project, lambda *_: 0)
    explanation = investigate(shop, base, head, [CASE], told.append)
    assert (explanation.cases, explanation.culprits, explanation.notes) == ({}, (), ())
    assert len(shop.asked) == 2


def test_patterns_and_architectures_select_kernels():
    assert selected(["'fwd_d128_full'"], ["sm_100"]) == [CASE]
    assert len(selected([], [])) == len(GROUPS["codegen"].cases)
    with pytest.raises(Fa4AsvError, match="no kernel is selected by --bench 'fwd_d512'"):
        selected(["fwd_d512"], [])


def test_every_instruction_has_one_role():
    counts = {"HGMMA.64x128x16": 8, "UTCHMMA": 4, "UTCBAR": 2, "UTCATOMSWS": 1, "MUFU.EX2": 9, "MUFU.RCP": 1}
    counts |= {
        "FFMA2": 7,
        "FFMA": 1,
        "MOV": 3,
        "R2UR": 1,
        "LDL": 2,
        "STL": 1,
        "BAR": 6,
        "SYNCS.EXCH": 1,
        "LDS": 5,
        "LDSX": 1,
    }
    roles = by_role(counts)
    assert sum(roles.values()) == sum(counts.values())
    assert {role: count for role, count in roles.items() if count} == {
        "matrix": 12,
        "exp2": 9,
        "FMA": 8,
        "moves": 4,
        "local loads": 2,
        "local stores": 1,
        "barriers": 9,
        "tensor and shared memory": 5,
        OTHER: 3,
    }


def test_the_record_leaves_few_instructions_without_a_role():
    total = other = 0
    sidecars = map(read_sidecar, sorted((ROOT / "results" / "nogpu").glob("*.sidecar")))
    for sidecar in itertools.islice((each for each in sidecars if each.release), 2):
        for case in sidecar.groups["codegen"].values():
            total += sum(case.opcodes.values())
            other += by_role(case.opcodes)[OTHER]
    assert total > 100_000
    assert other < total / 100
    assert role_of("UTCQMMA") == "matrix"
    assert len(ROLES) == 15
