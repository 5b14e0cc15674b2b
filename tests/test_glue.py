"""What asv is asked, which cases that selects, what a worker takes from the compiler."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from asv import util
from asv_runner.benchmarks.mark import SkipNotImplemented

from fa4_asv.asv_plugin.hooks import _durations, write_json
from fa4_asv.asv_plugin.reconcile import (
    forget_wrong,
    keep_added,
    keep_known,
    leave_unmeasured,
    share_parameters,
    without_removed,
)
from fa4_asv.asv_plugin.result_rows import ResultRows
from fa4_asv.asv_plugin.selection import benchmarks, refuse_existing, saves_nothing
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.kernels import CASES
from fa4_asv.integrity.figures import disagreement
from fa4_asv.measure import cached_jobs
from fa4_asv.measure.benchmark_api import collect, figure
from fa4_asv.measure.compile_stubs import CompileStub
from fa4_asv.measure.context import VARIABLE, Context
from fa4_asv.measure.driver_stubs import describe, forget_personal_settings, target_environment
from fa4_asv.measure.kernels.collect import _kernel_of, measure
from fa4_asv.measure.kernels.cubin import opcode_histogram
from fa4_asv.measure.kernels.worker import CompileTap
from fa4_asv.measure.pool import Outcome
from fa4_asv.record.schema import CaseRecord, Sidecar, Toolchain
from fa4_asv.record.store import iter_results
from tests.support.contexts import a_context
from tests.support.real_checkout import ROOT


def context(tmp_path, **changes) -> Context:
    known = {"machine": "nogpu", "release": "4.0.0b36", "policy": "day"}
    return a_context(tmp_path, **{**known, "cuobjdump": "cuobjdump", "nvdisasm": "nvdisasm", **changes})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "-b", "spill", "a..b"], ["spill"]),
        (["run", "--bench=spill", "--bench", "text", "a..b"], ["spill", "text"]),
        (["--config", "x", "continuous", "-bspill", "a", "b"], ["spill"]),
        (["run", "a..b"], []),
        (["find", "a..b", "codegen.Kernels.track_registers"], ["codegen.Kernels.track_registers"]),
        (["find", "a..b"], []),
        (["find", "a..b", "codegen", "-E", "fa4-pyany"], ["codegen"]),
        (["find", "-i", "a..b", "codegen", "-m", "nogpu"], ["codegen"]),
        (
            ["profile", "-E", "fa4:same", "codegen.Kernels.track_registers", "a"],
            ["^codegen.Kernels.track_registers$"],
        ),
        (["profile", "codegen", "-o", "file", "--force"], ["^codegen$"]),
        (["find", "a..b", "codegen", "--unheard-of", "x"], []),
        (["run", "-b"], []),
    ],
)
def test_the_selection_is_read_as_asv_reads_it(arguments, expected):
    assert benchmarks(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "nothing"),
    [
        (["run", "a..b"], False),
        (["run", "-n"], True),
        (["run", "--dry-run", "a..b"], True),
        (["run", "--quick"], True),
        (["continuous", "--quick", "a", "b"], False),  # it compares what it saved
        (["find", "--skip-save", "a..b", "codegen"], True),
        (["find", "a..b", "codegen"], False),
        (["publish"], False),
        (["no", "command of asv"], False),
    ],
)
def test_what_is_not_saved(arguments, nothing):
    assert saves_nothing(arguments) is nothing


@pytest.mark.parametrize(
    "arguments", [["run", "--python=same"], ["check", "-E", "existing"], ["setup", "-E", "existing:same"]]
)
def test_an_environment_that_lays_no_commit_is_refused(arguments):
    with pytest.raises(util.UserError, match="write `-E fa4:same`"):
        refuse_existing(arguments)
    refuse_existing([arguments[0], "-E", "fa4:same"])


def test_only_what_is_selected_is_measured():
    codegen, imported = GROUPS["codegen"], GROUPS["import"]
    assert len(codegen.selected([])) == 2 * len(CASES)
    assert codegen.selected([r"spill_bytes\('sm_90', 'fwd_d64_full'\)"]) == [("sm_90", "fwd_d64_full")]
    assert len(codegen.selected(["registers"])) == 2 * len(CASES)
    assert codegen.selected(["memory"]) == []
    assert imported.selected(["Import.track_seconds$"]) == [("flash_attn.cute",)]


def test_an_unsupported_flavour_measures_nothing_and_says_why(tmp_path, monkeypatch):
    lane = context(tmp_path, unsupported="no cu13 extra", select=[r"spill_bytes\('sm_90', 'fwd_d64_full"])
    monkeypatch.setenv(VARIABLE, lane.dump())
    records = collect("codegen", lambda *_: pytest.fail("measured"))
    assert records["sm_90/fwd_d64_full"] == {"state": "unsupported", "why": "no cu13 extra"}
    assert records["sm_90/fwd_d64_causal"]["state"] == "not run"
    (spooled,) = (tmp_path / "spool").iterdir()
    assert json.loads(spooled.read_text())["cases"]["sm_90/fwd_d64_full"]["why"] == "no cu13 extra"


def test_another_machine_s_figures_are_not_measured_here(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, context(tmp_path, machine="h200").dump())
    assert collect("codegen", lambda *_: pytest.fail("measured")) == {}
    with pytest.raises(SkipNotImplemented, match="belong to machine nogpu"):
        figure({}, "codegen", "registers", "sm_90", "fwd_d64_full")


def rows(**benchmarks: dict) -> ResultRows:
    """asv's dictionary with these columns a benchmark."""
    columns = ["result", "params", "version", "stats_q_25", "stats_repeat", "samples"]
    data = {name: [row.get(column) for column in columns] for name, row in benchmarks.items()}
    return ResultRows({"result_columns": columns, "results": data, "durations": {}})


def test_what_another_process_recorded_meanwhile_is_kept():
    ours, theirs = (
        rows(a={"result": [2.0], "params": []}),
        rows(a={"result": [1.0]}, b={"result": [3.0], "params": []}),
    )
    keep_added(ours, theirs)
    assert ours.to_json()["results"] == {"a": [[2.0], []], "b": [[3.0], []]}


class FlashAttentionBackwardPostprocess:
    pass


def test_colliding_dump_names_cannot_mix_kernels(tmp_path):
    """The DSL gives two kernels of one call the same file name; each compile's cubin is kept apart."""
    contents = iter([b"dq", b"dkv", b"other call"])

    def compile_to_the_same_name(kernel, *args, **kwargs):
        (tmp_path / "truncated_name.sm_90a.cubin").write_bytes(next(contents))
        return kernel

    tap = CompileTap(tmp_path)
    compile_function = CompileStub(compile_to_the_same_name, tap)
    (tmp_path / "truncated_name.sm_90a.cubin").write_bytes(b"left by an earlier call")
    tap.start(tmp_path / "first")
    compile_function(FlashAttentionBackwardPostprocess())
    compile_function(FlashAttentionBackwardPostprocess())
    first = tap.kernels
    tap.start(tmp_path / "second")
    compile_function(FlashAttentionBackwardPostprocess())
    read = [open(kernel["cubin"], "rb").read() for kernel in [*first, *tap.kernels]]  # noqa: SIM115, PTH123
    assert read == [b"dq", b"dkv", b"other call"]
    case = CASES["bwd_post_dkv_d128_gqa4"]
    assert _kernel_of(case, first) == first[1]
    assert _kernel_of(case, first[:1], whole=False) is None, "dQ's must not stand in for dK and dV's"
    assert _kernel_of(CASES["bwd_post_dq_d128"], first) == first[0]


def test_what_is_compiled_with_options_is_taken_as_well(tmp_path):
    class Real:
        attribute = "the real one's"

        def __getitem__(self, options):
            return lambda kernel: (tmp_path / f"{options}.cubin").write_bytes(options.encode())

    tap = CompileTap(tmp_path)
    compile_function = CompileStub(Real(), tap)["opt"]
    tap.start(tmp_path / "later than the options were chosen")
    compile_function(FlashAttentionBackwardPostprocess())
    assert len(tap.kernels) == 1 and (tap.into / "00.cubin").read_bytes() == b"opt"
    assert CompileStub(Real(), tap).attribute == "the real one's"


def test_only_a_missing_driver_is_forgiven_and_only_after_a_cubin(tmp_path):
    class CudaDriverDependencyError(Exception):
        pass

    def fails(error, writes):
        def compile_function(kernel):
            if writes:
                (tmp_path / "x.cubin").write_bytes(b"cubin")
            raise error

        return compile_function

    tap = CompileTap(tmp_path)
    tap.start(tmp_path / "a")
    compiled = CompileStub(fails(CudaDriverDependencyError("ICE"), True), tap)(
        FlashAttentionBackwardPostprocess()
    )
    assert len(tap.kernels) == 1
    with pytest.raises(RuntimeError, match="was launched"):
        compiled()
    for error, writes in ((CudaDriverDependencyError("ICE"), False), (ValueError("real"), True)):
        tap = CompileTap(tmp_path)
        tap.start(tmp_path / "b")
        with pytest.raises(type(error)):
            CompileStub(fails(error, writes), tap)(FlashAttentionBackwardPostprocess())


def test_a_refusal_is_fa4s_own_words():
    code = compile(
        "assert head_dim <= 128, 'head_dim 256 is not supported'", "/x/flash_attn/cute/interface.py", "exec"
    )
    with pytest.raises(AssertionError) as refused:
        exec(code, {"head_dim": 256})
    assert describe(refused.value) == {
        "kind": "AssertionError",
        "words": "head_dim 256 is not supported",
        "refused": True,
    }
    with pytest.raises(AssertionError) as elsewhere:
        exec(compile("assert False", "/x/cutlass/dsl.py", "exec"))
    assert describe(elsewhere.value)["refused"] is False


def test_opcodes_are_counted_by_what_they_do():
    sass = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/               @P1 BRA `(.L_x_0) ;
        /*0020*/              @!P0 MUFU.EX2 R4, R5 ;
        /*0030*/                   MUFU.RCP R4, R5 ;
        /*0040*/             @!UP0 UTCHMMA gdesc[UR4], tmem[UR5] ;
        /*0050*/                   LDL.64 R2, [R1+0x8] ;
        /*0060*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4] ;
        .L_x_0:
        /*10070*/                  NOP;
        /* 0x000e220000002500 */
    """
    assert opcode_histogram(sass) == {
        "BRA": 1, "HGMMA.64x128x16": 1, "LDC": 1, "LDL": 1, "MUFU.EX2": 1, "MUFU.RCP": 1, "NOP": 1, "UTCHMMA": 1,
    }  # fmt: skip


def test_asvs_own_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """asv truncates in place; the hook keeps the old file when the disk is full, and says so in a line."""
    path = tmp_path / "results" / "x.json"
    write_json(str(path), {"results": {}}, api_version=2, compact=True)
    before = path.read_bytes()
    assert before == b'{"results": {}, "version": 2}'

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(util.UserError, match="No space left on device; nothing was changed"):
        write_json(str(path), {"results": {"new": 1}}, api_version=2)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]


def test_two_functions_of_asv_are_wrapped():
    """In a process as asv's: after the plug-in is loaded, these are what asv's modules hold of ours."""
    code = """
import inspect, sys
sys.argv = ["asv", "publish"]
from asv import commands, plugin_manager
from fa4_asv.asv_plugin import hooks
hooks.setup()
def ours(holder):
    return {name for name, value in vars(holder).items() if inspect.isfunction(value) and value.__module__.startswith("fa4_asv")}
for path, module in sorted(sys.modules.items()):
    if path.partition(".")[0] in ("asv", "asv_runner"):
        classes = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == path]
        for holder in (module, *classes):
            for name in ours(holder):
                print(holder.__name__, name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["Publish run_from_conf_args", "asv.util write_json"]


def test_a_persons_settings_do_not_reach_the_compiler(monkeypatch):
    for name in (
        "FA_CLC",
        "FLASH_ATTENTION_MLA_1CTA",
        "CUTE_DSL_LINEINFO",
        "QUACK_X",
        "FLASH_ATTENTION_ARCH",
    ):
        monkeypatch.setenv(name, "1")
    forget_personal_settings()
    left = [name for name in os.environ if name.startswith(("FA_", "FLASH_ATTENTION_", "CUTE_", "QUACK_"))]
    assert left == ["FLASH_ATTENTION_ARCH"]
    assert dict(target_environment("sm_100", "cu12"))["FA4_ASV_CUDA"].startswith("12.")


def test_what_is_broken_is_tried_again(tmp_path, monkeypatch):
    """A tool that is missing today must not be remembered against the kernel."""
    runs = []

    def fake_jobs(jobs, processes, finished):
        runs.append([job.key for job in jobs])
        cubin = tmp_path / "00.cubin"
        cubin.write_bytes(b"no cubin")
        kernel = {"kernel": "FlashAttentionForwardSm90", "cubin": str(cubin), "seconds": 1.0}
        for job in jobs:
            finished(Outcome(job.key, {"kernels": [kernel], "error": None}))

    monkeypatch.setattr(cached_jobs, "run_jobs", fake_jobs)
    missing = context(tmp_path, cuobjdump="/nowhere/cuobjdump")
    for _ in range(2):
        record = measure(missing, [("sm_90", "fwd_d64_full")])["sm_90/fwd_d64_full"]
        assert record.state == "broken"
        assert "cannot run /nowhere/cuobjdump: not found" in record.why
    assert runs == [["sm_90/fwd_d64_full"]] * 2


def test_what_did_not_run_keeps_its_figure():
    """asv writes n/a over all cases of a benchmark that a narrow --bench left out."""
    known = {"sm_90/a": CaseRecord("measured", figures={"registers": 168})}
    known |= {"sm_90/b": CaseRecord("unsupported", why="no"), "sm_100/a": CaseRecord("broken", why="crash")}
    toolchain = Toolchain("day", "cu13", "x", {})
    sidecar = Sidecar(1, "1", "nogpu", "c", "e", "r", toolchain, {"codegen": known})
    name, nan = "codegen.Kernels.track_registers", float("nan")
    params = [["'sm_90'", "'sm_100'"], ["'a'", "'b'"]]
    results = rows(
        **{
            name: {"result": [nan, nan, None, nan], "params": params},
            "other.track": {"result": [nan], "params": []},
        }
    )
    keep_known(results, sidecar)
    first, second, failed, unknown = results.rows[name]["result"]
    assert (first, failed) == (168, None)
    assert math.isnan(second) and math.isnan(unknown) and math.isnan(results.rows["other.track"]["result"][0])


@pytest.mark.parametrize(
    ("select", "missing"),
    [
        ([r"registers\('sm_90', "], {"sm_90/new"}),
        ([r"registers\('sm_100', "], {"sm_100/new"}),
        ([r"spill_bytes"], set()),
        ([], {"sm_90/new", "sm_100/new"}),
    ],
)
def test_a_new_case_that_a_selection_leaves_out_has_not_failed(select, missing):
    """asv writes "failed" for parameters that an older file does not have and this run left out."""
    codegen = GROUPS["codegen"]
    name, cases = codegen.benchmark("registers"), ("fwd_d64_full", "new")
    known = {f"{arch}/fwd_d64_full": CaseRecord("broken", why="crash") for arch in ("sm_90", "sm_100")}
    known["sm_100/new"] = CaseRecord("not run", why="not selected")  # as the run that left it out says
    toolchain = Toolchain("day", "cu13", "x", {})
    sidecar = Sidecar(1, "1", "nogpu", "c", "e", "r", toolchain, {"codegen": known})
    params = [["'sm_90'", "'sm_100'"], [repr(case) for case in cases]]
    results = rows(**{name: {"result": [None] * 4, "params": params}, "other.track": {"result": None}})
    leave_unmeasured(results, sidecar, select)
    keys = [f"{arch}/{case}" for arch in ("sm_90", "sm_100") for case in cases]
    values = dict(zip(keys, results.rows[name]["result"], strict=True))
    failed = {key for key, value in values.items() if value is None}
    assert failed == {"sm_90/fwd_d64_full", "sm_100/fwd_d64_full"} | missing
    for key, value in values.items():
        assert not disagreement(value, known.get(key), "registers") or key in missing


def test_benchmarks_of_a_group_share_its_cases():
    """A run of one metric knows the new case "b"; the other metrics get it, with what the sidecar has of it."""
    codegen, nan = GROUPS["codegen"], float("nan")
    spills, registers, text = map(codegen.benchmark, ("spill_bytes", "registers", "text_bytes"))
    old, new = [["'sm_90'"], ["'a'", "'c'"]], [["'sm_90'"], ["'a'", "'b'", "'c'"]]
    results = rows(
        **{
            spills: {"result": [1, 8, 3], "params": new, "version": "1"},
            registers: {"result": [64, None], "params": old, "version": "1", "samples": [[1.0], None]},
            text: {"result": [7, 7], "params": old, "version": "0"},
            "other.track": {"result": [5], "params": [["1"]], "version": "1"},
        }
    )
    known = {
        "sm_90/a": CaseRecord("measured", figures={"spill_bytes": 1, "registers": 64}),
        "sm_90/b": CaseRecord("measured", figures={"spill_bytes": 8, "registers": 32}),
        "sm_90/c": CaseRecord("broken", why="crash"),
    }
    toolchain = Toolchain("day", "cu13", "x", {})
    sidecar = Sidecar(1, "1", "nogpu", "c", "e", "r", toolchain, {"codegen": known})
    share_parameters(results)
    assert results.rows[registers]["samples"] == [[1.0], None, None]
    keep_known(results, sidecar)
    assert results.rows[registers]["result"] == [64, 32, None]
    assert results.rows[registers]["params"] == new
    assert results.rows[text]["params"] == old, "figures of another version are left alone"
    results.rows[spills] |= {"result": [1, nan], "params": [["'sm_90'"], ["'a'", "'d'"]]}
    share_parameters(results)
    assert results.rows[spills]["params"] == [["'sm_90'"], ["'a'", "'d'"]], (
        "a case that is gone is not dropped"
    )


def test_a_time_that_could_not_be_taken_again_stays_and_a_wrong_one_goes():
    name, nan = "compile.Jit.track_seconds", float("nan")
    cases = {
        "sm_90/a": CaseRecord("measured", samples={"seconds": [1.0, 2.0, 4.0]}),
        "sm_90/b": CaseRecord("broken", why="wrong in the second round"),
        "sm_100/a": CaseRecord("not run", why="others used 1.3 cores"),
    }
    toolchain = Toolchain("day", "cu13", "0" * 16, {})
    sidecar = Sidecar(1, "1", "box", "c" * 40, "fa4-x", "4.0.0b36", toolchain, {"compile": cases})
    row = {"result": [nan, 3.0, nan, nan], "params": [["'sm_90'", "'sm_100'"], ["'a'", "'b'"]]}
    results = rows(**{name: {**row, "stats_q_25": [None, 3.0, None, None]}})
    keep_known(results, sidecar)
    forget_wrong(results, sidecar)
    known, wrong, busy, unknown = results.rows[name]["result"]
    assert (known, wrong) == (2.0, None)
    assert math.isnan(busy) and math.isnan(unknown)
    assert results.rows[name]["stats_repeat"][0] == 3 and results.rows[name]["stats_q_25"][1] is None
    assert results.rows[name]["samples"] is None, "asv was not asked to keep samples"


def test_a_result_file_is_written_as_asv_writes_it():
    """The whole record goes through the dictionary and back, byte for byte; the clock's columns change no figure."""
    for path in iter_results(ROOT / "results"):
        there = ResultRows.read(path)
        assert json.dumps(there.to_json()) == path.read_text(), path
    row = there.rows[next(iter(there.rows))]
    row |= {"started_at": 1, "duration": 2.0}
    assert there.same_figures(ResultRows.read(path))
    row["version"] = "another"
    assert not there.same_figures(ResultRows.read(path))


def test_removed_figures_leave_the_sidecar():
    kernel = CaseRecord("measured", figures={"registers": 168, "spill_bytes": 8})
    cases = {
        "sm_90/a": kernel,
        "sm_90/b": CaseRecord("broken", why="no"),
        "sm_90/c": CaseRecord("measured", figures={"spill_bytes": 1}),
    }
    toolchain = Toolchain("day", "cu13", "x", {})
    old = Sidecar(
        1,
        "1",
        "nogpu",
        "c",
        "e",
        "r",
        toolchain,
        {"codegen": cases, "memory": {"x": CaseRecord("broken", why="no")}},
    )
    left = without_removed(old, {"codegen.Kernels.track_registers"})
    assert left.groups == {
        "codegen": {
            "sm_90/a": CaseRecord("measured", figures={"registers": 168}),
            "sm_90/b": cases["sm_90/b"],
        }
    }
    assert without_removed(old, set()).groups == {}


def test_no_line_of_source_stands_in_what_git_tracks(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    write_json(
        str(tmp_path / "benchmarks.json"),
        {"memory.Traced.track_x": {"setup_cache_key": "memory:18"}, "a.b": {}},
        2,
    )
    known = json.loads((tmp_path / "benchmarks.json").read_text())
    assert known == {"memory.Traced.track_x": {"setup_cache_key": "memory.Traced"}, "a.b": {}, "version": 2}
    seconds = {
        "<build>": 1.0,
        "<setup_cache memory.Traced>": 2.0,
        "<setup_cache memory:18>": 3.0,
        "<setup_cache codegen:9>": 4.0,
    }
    assert _durations(seconds) == {
        "<build>": 1.0,
        "<setup_cache memory.Traced>": 3.0,
        "<setup_cache codegen:9>": 4.0,
    }
