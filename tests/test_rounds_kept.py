"""Rounds of interleaved runs: asv saves after each, so the sidecar must go on where the last save ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4_asv.asv_plugin.reconcile import continue_rounds, of_same_versions
from fa4_asv.asv_plugin.result_rows import ResultRows
from fa4_asv.catalog.benchmarks import CHILDREN, GROUPS
from fa4_asv.compare.rows import rounds_of
from fa4_asv.compare.verdicts import Round
from fa4_asv.record.schema import CaseRecord, Sidecar, Toolchain

NAME, KEY = "forward.Cpu.track_seconds", "math/x"


def sidecar(record: CaseRecord) -> Sidecar:
    toolchain = Toolchain("day", "cu13", "0" * 16, {})
    return Sidecar(1, "1", "box", "c" * 40, "fa4-x", "4.0.0b36", toolchain, {"forward-cpu": {KEY: record}})


def one_round(*seconds: float, control: float = 0.5) -> CaseRecord:
    samples = {"seconds": list(seconds), "centre": [seconds[0]], "two modes": [0.0], "control": [control]}
    return CaseRecord("measured", samples=samples)


def asv_holds(samples: list[float] | None) -> ResultRows:
    row = [[1.0], [["'math'"], ["'x'"]], samples and [samples]]
    return ResultRows({"result_columns": ["result", "params", "samples"], "results": {NAME: row}})


def test_what_asv_appends_is_appended():
    old, new = one_round(1.0, 1.1), one_round(2.0, 2.1, 2.2, control=0.6)
    merged = continue_rounds(asv_holds([1.0, 1.1, 2.0, 2.1, 2.2]), sidecar(old), sidecar(new))
    record = merged.groups["forward-cpu"][KEY]
    assert record.samples["seconds"] == [1.0, 1.1, 2.0, 2.1, 2.2]
    assert rounds_of(GROUPS["forward-cpu"], record, "seconds") == [Round(1.0, 0.5), Round(2.0, 0.6)]


@pytest.mark.parametrize("asv", [[2.0, 2.1], None])
def test_what_asv_replaces_is_replaced(asv):
    new = sidecar(one_round(2.0, 2.1))
    assert continue_rounds(asv_holds(asv), sidecar(one_round(1.0, 1.1)), new) == new


@pytest.mark.parametrize("before", [None, sidecar(CaseRecord("broken", "hung"))])
def test_what_had_no_round_before_begins(before):
    new = sidecar(one_round(2.0, 2.1))
    assert continue_rounds(asv_holds([2.0, 2.1]), before, new) == new


def test_children_of_one_process_are_one_round():
    seconds = [1.0, 1.1, 1.2, 1.2, 1.3, 1.4, 2.0, 2.1, 2.2, 2.2, 2.3, 2.4]
    record = CaseRecord("measured", samples={"seconds": seconds}, notes={"processes": CHILDREN})
    assert rounds_of(GROUPS["compile"], record, "seconds") == [Round(1.2), Round(2.2)]
    each = replace(record, notes={"processes": "each imports FA4 itself"})
    assert rounds_of(GROUPS["compile"], each, "seconds") == [Round(value) for value in seconds]
    odd = replace(record, samples={"seconds": seconds[:7]})
    assert rounds_of(GROUPS["compile"], odd, "seconds") == [], "which belong together is not known"


def test_another_version_of_a_benchmark_carries_nothing_on():
    old = sidecar(one_round(1.0, 1.1))
    other = "memory.Traced.track_peak_bytes"
    assert of_same_versions(old, {NAME: "1", other: "1"}, {NAME: "1", other: "2"}) == old
    assert of_same_versions(old, {NAME: "1"}, {NAME: "2"}).groups == {}
    assert of_same_versions(old, {}, {NAME: "2"}) == old, "a file without it says nothing of it"
