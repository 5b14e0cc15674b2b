"""What the record keeps of loops: figures, the reason where there is none, what a turn does; and the checks of it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from asv_runner.benchmarks.mark import SkipNotImplemented

from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.flavours import PLAIN
from fa4_asv.catalog.kernels import CASES
from fa4_asv.catalog.metrics import LOOP_METRICS, NO_KERNEL, TURN_METRICS
from fa4_asv.compare.rows import Measured, compare
from fa4_asv.integrity.consistency import checks
from fa4_asv.integrity.figures import disagreement
from fa4_asv.measure import benchmark_api
from fa4_asv.measure.kernels import collect
from fa4_asv.measure.kernels.cubin import Cubin, CubinFigures, opcode_histogram
from fa4_asv.measure.kernels.loop_records import loop_record
from fa4_asv.measure.kernels.loops import read_loops
from fa4_asv.measure.pool import Outcome
from fa4_asv.record.schema import CaseRecord
from tests.support.loops import BLACKWELL, OUT_OF_LINE, sass

KEY = "sm_100/fwd_d128_causal"


def both(*lines: str) -> tuple[CaseRecord, CaseRecord]:
    """The kernel's record and its loops' of hand-made code."""
    text = sass(*lines)
    opcodes = opcode_histogram(text)
    count = sum(opcodes.values())
    figures = {"instructions": count - opcodes.get("NOP", 0), "text_bytes": 16 * count}
    spills = {"local_loads": opcodes.get("LDL", 0), "local_stores": opcodes.get("STL", 0)}
    kernel = CaseRecord(
        "measured", figures={**figures, **spills}, sha256="5" * 64, kernel="K", opcodes=opcodes
    )
    return kernel, loop_record(kernel, read_loops(text))


def wrong(kernel: CaseRecord, loops: CaseRecord) -> list[str]:
    return [case for _, case in checks({"codegen": {KEY: kernel}, "loops": {KEY: loops}}) if case]


def test_blackwell_has_figures_of_the_exp2_loop_and_slots_of_the_loop_that_issues():
    _, result = both("STL [R1], R2", *BLACKWELL)
    assert result.figures == {
        "turn_instructions": 4,
        "masked_instructions": 6,
        "spills_inside": 0,
        "spills_outside": 1,
        "slots_per_100_products": 300,
    }
    assert result.parts == {"exp2": 1, "registers": 192, "UTCQMMA": 1, "slots": 3}
    assert CaseRecord.from_json(result.to_json()) == result


def test_hopper_issues_in_its_main_loop_and_without_a_mask_a_reason_stands_in_its_place():
    _, result = both(*OUT_OF_LINE)
    assert result.figures["slots_per_100_products"] == 100 * result.figures["turn_instructions"]
    assert "slots" not in result.parts, "it is the main turn"
    assert result.notes == {"masked_instructions": "no loop with a mask"}
    assert result.sha256 == "5" * 16


def test_slots_are_rounded_to_the_nearest_hundredth():
    lines = list(OUT_OF_LINE)
    lines[5:5] = [OUT_OF_LINE[5]] * 2  # three products in a turn of 10
    _, result = both(*lines)
    assert (result.figures["turn_instructions"], result.figures["slots_per_100_products"]) == (10, 333)


def test_what_is_not_understood_is_unsupported_with_the_reason():
    kernel, result = both("BRX R2 -0x20")
    assert (result.state, result.figures, result.sha256) == ("unsupported", {}, "5" * 16)
    assert result.why.startswith("loops: an indirect branch")
    assert wrong(kernel, result) == []


def test_spills_are_known_where_a_turn_is_not():
    inner = [*OUT_OF_LINE[:6], ".L_inner:", "LDL R9, [R1]", "@P2 BRA `(.L_inner)", *OUT_OF_LINE[6:]]
    _, result = both(*inner)
    assert result.figures == {"spills_inside": 1, "spills_outside": 0}
    assert "turns is not in the code" in result.notes["turn_instructions"]


@pytest.mark.parametrize("state", ["broken", "unsupported"])
def test_without_a_kernel_there_is_nothing_to_read(state):
    kernel = CaseRecord(state, why="words of FA4")
    record = loop_record(kernel, None)
    assert record == CaseRecord(state, why=NO_KERNEL)
    assert wrong(kernel, record) == []


def test_a_sound_record_passes_and_each_edit_is_found():
    kernel, result = both("STL [R1], R2", *BLACKWELL)
    assert wrong(kernel, result) == []

    def edited(**figures: int) -> CaseRecord:
        return replace(result, figures={**result.figures, **figures})

    cases = {
        "turn_instructions is 99": edited(turn_instructions=99),
        "masked_instructions is 99": edited(masked_instructions=99),
        "spilled accesses are 2": edited(spills_inside=1),
        "slots_per_100_products is 301": edited(slots_per_100_products=301),
        "exp2 is 9": replace(result, parts={**result.parts, "exp2": 9}),
        "UTCQMMA is 2": replace(result, parts={**result.parts, "UTCQMMA": 2, "slots": 6}),
        "loops of cubin": replace(result, sha256="6" * 16),
        "loops are broken, the kernel is measured": CaseRecord("broken", why=NO_KERNEL),
    }
    for case, record in cases.items():
        assert [line for line in wrong(kernel, record) if line.startswith(case)], case
    hidden = CaseRecord("unsupported", why="no")
    assert wrong(hidden, result) == ["loops are measured, the kernel is unsupported"]
    assert wrong(hidden, CaseRecord("broken", why=NO_KERNEL)) == [
        "loops are broken, the kernel is unsupported"
    ]
    assert wrong(kernel, CaseRecord("not run")) == []


def test_a_metric_without_a_figure_is_na_and_an_old_record_without_reason_is_wrong(monkeypatch):
    _, result = both(*OUT_OF_LINE)
    monkeypatch.setattr(benchmark_api, "current", lambda: SimpleNamespace(machine="nogpu", flavour="cu13"))
    records = {KEY: result.to_json()}
    case = KEY.split("/")
    assert benchmark_api.figure(records, "loops", "spills_inside", *case) == 0
    with pytest.raises(SkipNotImplemented, match="no loop with a mask"):
        benchmark_api.figure(records, "loops", "masked_instructions", *case)
    nan = float("nan")
    assert disagreement(nan, result, "masked_instructions") == ""
    assert disagreement(nan, result, "turn_instructions") != ""
    assert disagreement(nan, replace(result, notes={}), "masked_instructions") != ""
    assert disagreement(564, result, "masked_instructions") != ""


def test_only_main_kernels_have_loops_and_the_metrics_of_a_turn_are_among_them():
    assert {case for _, case in GROUPS["loops"].cases} == {n for n, c in CASES.items() if c.role == "main"}
    assert LOOP_METRICS.keys() > TURN_METRICS
    assert GROUPS["loops"].read_from == "codegen"


def test_a_kernel_whose_loops_are_read_on_one_side_only_is_no_change_of_fa4():
    _, result = both(*OUT_OF_LINE)
    for other in (CaseRecord("unsupported", why="loops: x"), CaseRecord("not run"), CaseRecord("broken")):
        for sides, code in (((result, other), "head-not-read"), ((other, result), "base-not-read")):
            base, head = (Measured({"loops": {KEY: record}}) for record in sides)
            (row,) = compare(base, head, exact=True)
            assert (row.verdict, row.reason, row.effect) == ("not comparable", code, "")
    both_unread = Measured({"loops": {KEY: CaseRecord("unsupported", why="loops: x")}})
    assert compare(both_unread, both_unread, exact=True) == []


def test_a_side_recorded_before_loops_has_no_rows_of_them():
    kernel, result = both(*OUT_OF_LINE)
    before = Measured({"codegen": {KEY: kernel}})
    after = Measured({"codegen": {KEY: kernel}, "loops": {KEY: result}})
    for sides in ((before, after), (after, before)):
        assert {row.group for row in compare(*sides, exact=True)} == {"codegen"}


def test_a_figure_that_neither_side_has_is_no_row():
    _, result = both(*OUT_OF_LINE)
    side = Measured({"loops": {KEY: result}})
    assert {row.metric for row in compare(side, side, exact=True)} == result.figures.keys()


class OneCompile:
    """A compile that counts, in the place of the pool; it gives one kernel of a forward."""

    def __init__(self, tmp_path, monkeypatch, broken: bool = False) -> None:
        self.calls: list[str] = []
        loops = read_loops(sass(*OUT_OF_LINE))
        cubin = Cubin(CubinFigures(0, 0, 0, 10, 160, 99), {"MOV": 10}, "7" * 64, loops)

        def read_cubin(path, cuobjdump, nvdisasm, known):
            known[cubin.sha256] = cubin
            return cubin

        def run(context, group, jobs, processes, records_of, verb):
            records = {}
            for job in jobs:
                self.calls.append(job.key)
                answer = {"kernels": [{"kernel": "FlashAttentionForward", "cubin": "x"}], "error": None}
                outcome = Outcome(job.key, lost="no") if broken else Outcome(job.key, answer)
                case = tuple(job.key.split("/"))
                record = records_of(case, outcome)
                collect.write_cache(collect.cache_path(context, group, *case), record)
                records |= record
            return records

        monkeypatch.setattr(collect, "read_cubin", read_cubin)
        monkeypatch.setattr(collect, "run_and_cache", run)
        names = [
            f for f in collect.Context.__dataclass_fields__ if f not in ("packages", "select", "torches")
        ]
        self.context = collect.Context(**{**dict.fromkeys(names, ""), "root": str(tmp_path)}, packages={})
        self.context = replace(self.context, flavour="cu12")


WANTED = [("sm_90", "fwd_d128_full")]


@pytest.mark.parametrize("first", [collect.measure, collect.measure_loops])
def test_one_compile_serves_both_groups_whichever_is_asked_first(tmp_path, monkeypatch, first):
    compiler = OneCompile(tmp_path, monkeypatch)
    for measure in (first, collect.measure, collect.measure_loops):
        (record,) = measure(compiler.context, WANTED, 1).values()
        assert record.state == "measured"
    assert compiler.calls == ["sm_90/fwd_d128_full"]
    assert record.figures["turn_instructions"] == 8


def test_what_is_broken_is_cached_by_neither(tmp_path, monkeypatch):
    compiler = OneCompile(tmp_path, monkeypatch, broken=True)
    for measure in (collect.measure, collect.measure_loops):
        (record,) = measure(compiler.context, WANTED, 1).values()
        assert record.state == "broken"
    assert len(compiler.calls) == 2


def test_the_loops_of_plain_come_from_the_compile_that_it_shares_with_cu12(tmp_path, monkeypatch):
    compiler = OneCompile(tmp_path, monkeypatch)
    monkeypatch.setattr(collect, "reached", lambda *_: set())
    plain = replace(compiler.context, flavour=PLAIN)
    (loops,) = collect.measure_loops(plain, WANTED, 1).values()
    (kernel,) = collect.measure(plain, WANTED, 1).values()
    assert compiler.calls == ["sm_90/fwd_d128_full"]
    assert kernel.why and not loops.why
    assert loops.sha256 == kernel.sha256[:16]
