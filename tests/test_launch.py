"""The launch contract: a miniature of FA4, faults in it that users paid for, and what becomes of each answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from asv_runner.benchmarks.mark import SkipNotImplemented
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fa4_asv.backfill.tasks import BackfillRequest, _lacking
from fa4_asv.base import core_locks
from fa4_asv.catalog.benchmarks import GROUPS
from fa4_asv.catalog.launch import LAUNCH_CALLS, STEPS, Form, counts
from fa4_asv.integrity.consistency import checks
from fa4_asv.measure import benchmark_api, cached_jobs
from fa4_asv.measure.context import Context
from fa4_asv.measure.contract import collect
from fa4_asv.measure.contract.calls import make_inputs, packing
from fa4_asv.measure.contract.watch import UnknownValue, Watch, give_twin, prepare, watching
from fa4_asv.measure.contract.worker import count_kernels, count_waits, steps_of
from fa4_asv.measure.pool import Outcome
from fa4_asv.record.schema import CaseRecord
from tests.support.contexts import a_context

# FA4's host code in miniature: a forward with one kernel, a backward with three, a cache with a key each.
FA4 = """
import torch
class Kernel: pass
cache = {}
def compiled(*key):
    if key not in cache: cache[key] = compile(Kernel)
def _flash_attn_fwd(q, k, v, causal=False, return_lse=False, max_seqlen=None):
    FORWARD
    compiled("fwd", q.dtype, q.shape[-1], causal)
    lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device) if return_lse or q.requires_grad else None
    return torch.empty_like(q), lse
def _flash_attn_bwd(q, k, v, out, dout, lse, causal, max_seqlen=None):
    BACKWARD
    for name in ("pre", "main", "post"): compiled(name, q.dtype, q.shape[-1], causal)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
class FlashAttnFunc:
    @staticmethod
    def forward(ctx, q, k, v, causal, max_seqlen=None):
        out, lse = _flash_attn_fwd(q, k, v, causal, max_seqlen=max_seqlen)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.causal, ctx.max_seqlen = causal, max_seqlen
        ctx.set_materialize_grads(False)
        return out, lse
    @staticmethod
    def backward(ctx, dout, dlse):
        q, k, v, out, lse = ctx.saved_tensors
        assert dlse is None
        return _flash_attn_bwd(q, k, v, out, dout, lse, ctx.causal, ctx.max_seqlen)
class FlashAttnVarlenFunc(FlashAttnFunc): pass
def flash_attn_func(q, k, v, causal=False):
    return FlashAttnFunc.apply(q, k, v, causal)
def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal=False):
    return FlashAttnVarlenFunc.apply(q, k, v, causal, max_seqlen_q)
"""
CALL, TENSOR = LAUNCH_CALLS["autograd_d128"], LAUNCH_CALLS["varlen_tensor_d128"]
NAMES = [step for step in STEPS if step != "process"]


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch as the worker prepares it; other tests get it back."""
    for name in ("__reduce_ex__", "__int__", "__index__", "__float__", "contiguous"):
        monkeypatch.setattr(FakeTensor, name, getattr(FakeTensor, name))
    prepare(FakeTensor)


def fa4(watch: Watch, forward: str = "pass", backward: str = "pass", old: str = "", new: str = "") -> Any:
    """The miniature as a module below flash_attn/cute, with more code in its functions or `old` replaced by `new`."""
    source = FA4.replace("FORWARD", forward).replace("BACKWARD", backward)
    assert old in source
    names: dict[str, Any] = {"compile": watch.compiled}
    exec(
        compile(source.replace(old, new) if old else source, "x/flash_attn/cute/interface.py", "exec"), names
    )
    return SimpleNamespace(**names)


def asked(call: str, **faults: str) -> dict[str, tuple[int, int, int]]:
    """(compiles, host reads, allocations) of each step."""
    watch = Watch()
    answers = steps_of(torch, fa4(watch, **faults), watch, LAUNCH_CALLS[call], NAMES)
    assert not [answer["error"] for answer in answers.values() if answer["error"]]
    return {step: tuple(counts(answer["parts"]).values()) for step, answer in answers.items()}  # type: ignore[misc]


def compiles(call: str, **faults: str) -> list[int]:
    return [figures[0] for figures in asked(call, **faults).values()]


def test_a_kernel_is_compiled_once_and_an_equal_call_compiles_nothing():
    assert asked("direct_d128") == {
        "first": (1, 0, 2), "again": (0, 0, 4), "length": (0, 0, 4), "batch": (0, 0, 4), "strides": (0, 0, 4),
        "short": (0, 0, 2),
    }  # fmt: skip
    assert asked("autograd_d128")["first"] == (4, 0, 5)
    assert compiles("autograd_d256_gqa8") == compiles("varlen_tensor_d128") == [4, 0, 0, 0, 0, 0]


# What a fault changes: (the call, code in the forward, code in the backward, compiles by step, reads by step).
NOTHING = [0] * 6
FAULTS: dict[str, tuple[str, dict[str, str], list[int], list[int]]] = {
    "a call that compiles each time": (
        "autograd_d128", {"forward": "compiled(object())"}, [5, 2, 2, 2, 2, 1], NOTHING,
    ),
    # flash-attention#2507: a tensor in the key is another key each time.
    "a tensor in the backward's key": (
        "varlen_tensor_d128", {"backward": "compiled(max_seqlen // 128 == 1)"}, [5, 2, 2, 2, 2, 1], NOTHING,
    ),
    "a number in the same place": (
        "varlen_d128", {"backward": "compiled(max_seqlen // 128 == 1)"}, [5, 0, 0, 0, 0, 0], NOTHING,
    ),
    "the length in the key": ("autograd_d128", {"forward": "compiled(q.shape[1])"}, [5, 0, 2, 0, 0, 1], NOTHING),
    "the batch in the key": ("autograd_d128", {"forward": "compiled(q.shape[0])"}, [5, 0, 0, 2, 0, 0], NOTHING),
    "the strides in the key": (
        "direct_d128", {"forward": "compiled(q.stride()[1:])"}, [2, 0, 0, 0, 2, 0], NOTHING,
    ),
    "a kernel of its own for short sequences": (
        "direct_d128", {"forward": "compiled(q.shape[1] <= 128)"}, [2, 0, 0, 0, 0, 1], NOTHING,
    ),
    "an item()": ("varlen_tensor_d128", {"forward": "max_seqlen.item()"}, [4, 0, 0, 0, 0, 0], [1, 2, 2, 2, 2, 1]),
    "an int()": ("varlen_tensor_d128", {"backward": "int(max_seqlen)"}, [4, 0, 0, 0, 0, 0], [1, 2, 2, 2, 2, 1]),
    "a float()": ("varlen_tensor_d128", {"backward": "float(max_seqlen)"}, [4, 0, 0, 0, 0, 0], [1, 2, 2, 2, 2, 1]),
    "an index": ("varlen_tensor_d128", {"forward": "range(4096)[max_seqlen]"}, [4, 0, 0, 0, 0, 0], [1, 2, 2, 2, 2, 1]),
    "a condition on a tensor": (
        "varlen_tensor_d128", {"forward": "x = 2 if max_seqlen > 128 else 1"}, [4, 0, 0, 0, 0, 0], [1, 2, 2, 2, 2, 1],
    ),
    "a copy to the CPU": (
        "varlen_tensor_d128", {"forward": "max_seqlen.cpu().item()"}, [4, 0, 0, 0, 0, 0], [1, 2, 2, 2, 2, 1],
    ),
    "a synchronize": (
        "direct_d128", {"forward": "torch.cuda.synchronize()"}, [1, 0, 0, 0, 0, 0], [1, 2, 2, 2, 2, 1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_counted_in_its_steps(name, monkeypatch):
    call, faults, compiled, read = FAULTS[name]
    watch = Watch()
    for place, what in (("synchronize", None), ("current_stream", None)):
        monkeypatch.setattr(torch.cuda, place, what)
    monkeypatch.setattr(torch.cuda.Stream, "synchronize", None)
    monkeypatch.setattr(torch.cuda.Event, "synchronize", None)
    count_waits(torch, watch)
    answers = steps_of(torch, fa4(watch, **faults), watch, LAUNCH_CALLS[call], NAMES)
    assert not [answer["error"] for answer in answers.values() if answer["error"]]
    result = [counts(answer["parts"]) for answer in answers.values()]
    assert [each["compiles"] for each in result] == compiled
    assert [each["host_reads"] for each in result] == read


def test_a_read_is_answered_with_the_value_that_a_card_would_have():
    """A wrong value would lead FA4 to another kernel: 1024, and 100 in the step of short sequences."""
    told = "compiled(int((max_seqlen + 127) // 128 * 128))"
    assert compiles("varlen_tensor_d128", forward=told) == compiles("varlen_d128", forward=told)


def test_parts_name_the_kernel_and_the_place():
    watch = Watch()
    interface = fa4(watch, forward="max_seqlen.item()")
    assert steps_of(torch, interface, watch, TENSOR, ["first"])["first"]["parts"] == {
        "read in _flash_attn_fwd (interface.py)": 1,
        "compiled Kernel": 4,
        "allocated in _flash_attn_fwd (interface.py)": 2,
        "allocated in _flash_attn_bwd (interface.py)": 3,
    }


def test_a_copy_that_makes_inputs_contiguous_is_an_allocation_and_a_view_is_none():
    copied = asked("direct_d128", forward="q = q.contiguous()")
    assert copied["strides"] == (0, 0, 6) and copied["again"] == (0, 0, 4)
    views = asked("direct_d128", forward="q = q.transpose(1, 2).transpose(1, 2).detach()")
    assert views == asked("direct_d128")


def test_a_step_that_raises_ends_no_other_and_a_refusal_is_told_from_a_fault():
    watch = Watch()
    interface = fa4(watch, forward="assert q.shape[1] > 128, 'too short'")
    answers = steps_of(torch, interface, watch, CALL, NAMES)
    errors = {step: answer["error"] for step, answer in answers.items() if answer["error"]}
    assert errors == {"short": {"kind": "AssertionError", "words": "too short", "refused": True}}
    answers = steps_of(torch, fa4(watch, forward="math"), watch, CALL, ["first"])
    assert not answers["first"]["error"]["refused"]


def test_what_only_a_card_knows_is_no_fault_of_fa4():
    watch = Watch()
    answers = steps_of(torch, fa4(watch, forward="q.sum().item()"), watch, CALL, ["first"])
    assert answers["first"]["error"]["refused"] and "only a card knows" in answers["first"]["error"]["words"]
    interface = fa4(watch, backward="import pickle; pickle.dumps(('key', max_seqlen))")
    answers = steps_of(torch, interface, watch, TENSOR, ["first"])
    assert answers["first"]["error"]["refused"] and "into its key" in answers["first"]["error"]["words"]


def test_a_function_that_does_not_refuse_gradients_of_its_other_outputs_gets_zeros():
    watch = Watch()
    unsaid = fa4(watch, old="ctx.set_materialize_grads(False)", new="pass")
    assert "AssertionError" in str(steps_of(torch, unsaid, watch, CALL, ["first"]))


def test_watching_counts_what_operators_return_and_follows_values():
    watch = Watch()
    with FakeTensorMode(), watching(watch):
        known = give_twin(
            torch.empty((), dtype=torch.int32, device="cuda"), torch.tensor(100, dtype=torch.int32)
        )
        watch.start()
        assert int((known + 28) // 128) == 1
        assert watch.parts == {"allocated in ": 2, "read in ": 1}
        torch.empty(8).sum()
        assert watch.parts["read in "] == 1, "the CPU's own values are no wait for the card"
        with pytest.raises(UnknownValue, match="only a card knows"):
            bool(known + torch.empty((), device="cuda") > 1)


@pytest.mark.parametrize("name", LAUNCH_CALLS)
def test_inputs_lie_as_the_step_says(name):
    call = LAUNCH_CALLS[name]
    with FakeTensorMode():
        for form in (form for forms in STEPS.values() for form in forms):
            q, k, v = make_inputs(torch, call, form)
            assert (q.shape[-2], k.shape[-2], q.shape[-1]) == (call.num_heads, call.kv_heads, call.head_dim)
            tokens = q.shape[0] if call.packed else q.shape[0] * q.shape[1]
            assert tokens == form.batch * form.seq_len and k.shape == v.shape
            assert (q.stride(-2), q.is_contiguous()) == {
                "plain": (call.head_dim, True),
                "packed": (call.head_dim, False),
                "heads": (call.head_dim * (tokens if call.packed else form.seq_len), False),
            }[form.layout]
            assert q.requires_grad == (call.way != "direct")
            assert (q.untyped_storage()._cdata == k.untyped_storage()._cdata) == (form.layout == "packed")
        told = packing(torch, call, Form(3, 10))
    assert bool(told) == call.packed
    if call.packed:
        assert isinstance(told["max_seqlen_q"], int) != call.tensors
        assert told["cu_seqlens_q"].shape == (4,)


def test_the_disk_cache_is_filled_and_found_without_compiling(tmp_path):
    from fa4_asv.measure.contract.worker import Exported

    watch = Watch()
    cute = SimpleNamespace(compile=None, runtime=SimpleNamespace(load_module=None))
    count_kernels(cute, watch)
    kernel = cute.compile(test_watching_counts_what_operators_return_and_follows_values, 1, options="x")
    for writes in (False, True):
        Exported.writes = writes
        kernel.export_to_c(object_file_path=str(tmp_path / "k.o"), function_name="func")
        assert (tmp_path / "k.o").exists() == writes
    Exported.writes = False
    cute.runtime.load_module(str(tmp_path / "k.o"), enable_tvm_ffi=True).func(1)
    assert sorted(watch.parts.values()) == [1, 1] and "found on disk" in watch.parts


# The instrument


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(core_locks, "lock_path", lambda: tmp_path / "test.lock")
    return a_context(tmp_path)


class Processes:
    """Stands in for run_jobs: every step allocates twice; `answers` by call are others, `keeps` whether kernels are kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, Callable[[list[str]], Outcome]] = {}
        self.environments: list[dict[str, str]] = []
        self.steps: list[list[str]] = []
        self.keeps = True
        monkeypatch.setattr(cached_jobs, "run_jobs", self)

    def __call__(self, jobs, processes, finished):
        assert processes == 1 and len({job.environment for job in jobs}) == 1
        environment = dict(jobs[0].environment)
        self.environments.append(environment)
        self.steps.append(jobs[0].payload["steps"])
        if self.keeps and jobs[0].payload["exports"]:
            (Path(environment["FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"]) / "kernel.o").touch()
        for job in jobs:
            name = job.payload["call"]
            step = {"parts": {"allocated in x": 2, "found on disk": 1}, "error": None}
            answer = Outcome("", {"error": None, "steps": dict.fromkeys(job.payload["steps"], step)})
            outcome = self.answers[name](job.payload["steps"]) if name in self.answers else answer
            finished(replace(outcome, key=job.key))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch)


WANTED = [("sm_90", "varlen_d128", step) for step in STEPS]


def test_three_processes_and_the_next_one_has_another_hash_seed(context, processes):
    records = collect.measure(context, WANTED)
    assert list(records) == ["/".join(case) for case in WANTED]
    assert {record.state for record in records.values()} == {"measured"}
    assert records["sm_90/varlen_d128/again"].figures == {"compiles": 0, "host_reads": 0, "allocations": 2}
    assert processes.steps == [NAMES, ["first"], ["process"]]
    enabled = [each["FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED"] for each in processes.environments]
    assert enabled == ["0", "1", "1"]
    assert [each["PYTHONHASHSEED"] for each in processes.environments] == ["0", "0", "1"]
    _, filling, other = processes.environments
    assert len({each["FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"] for each in (filling, other)}) == 1
    processes.steps.clear()
    assert collect.measure(context, WANTED) == records and not processes.steps, "from the cache"


def test_an_fa4_without_a_disk_cache_has_no_next_process(context, processes):
    processes.keeps = False
    records = collect.measure(context, WANTED)
    assert records["sm_90/varlen_d128/process"] == CaseRecord("unsupported", why=collect.NO_DISK_CACHE)
    assert records["sm_90/varlen_d128/first"].state == "measured"


def test_states_follow_the_answers_and_broken_ones_are_asked_again(context, processes):
    def fails(refused: bool) -> Callable[[list[str]], Outcome]:
        error = {"kind": "E", "words": "words", "refused": refused}
        return lambda steps: Outcome(
            "", {"error": None, "steps": dict.fromkeys(steps, {"parts": {}, "error": error})}
        )

    processes.answers = {
        "direct_d128": fails(True),
        "autograd_d128": fails(False),
        "autograd_d128_gqa4": lambda _: Outcome("", lost="killed"),
        "autograd_d256_gqa8": lambda _: Outcome("", {"error": {"kind": "E", "words": "w", "refused": False}}),
    }
    wanted = [("sm_90", call, step) for call in (*processes.answers, "varlen_d128") for step in STEPS]
    records = collect.measure(context, wanted)
    states = [
        {records["/".join(case)].state for case in wanted if case[1] == call} for call in processes.answers
    ]
    assert states == [{"unsupported"}, {"broken"}, {"broken"}, {"broken"}]
    assert records["sm_90/autograd_d128_gqa4/process"].why == "killed"
    processes.steps.clear()
    collect.measure(context, [case for case in wanted if case[1] in ("direct_d128", "varlen_d128")])
    assert not processes.steps
    collect.measure(context, [case for case in wanted if case[1] == "autograd_d128"])
    assert processes.steps


def test_it_is_recorded_under_one_flavour(context, monkeypatch):
    """What a call compiles does not depend on the compiler's libraries."""
    assert "launch" in set(_lacking(None, BackfillRequest(), "cu13"))
    assert "launch" not in set(_lacking(None, BackfillRequest(), "cu12"))
    other = replace(context, machine="nogpu", flavour="cu12")
    monkeypatch.setattr(benchmark_api, "current", lambda: other)
    assert benchmark_api.collect("launch", lambda *_: pytest.fail("it was measured")) == {}
    with pytest.raises(SkipNotImplemented, match="recorded under cu13, not under cu12"):
        benchmark_api.figure({}, "launch", "compiles", "sm_90", "direct_d128", "first")


def test_a_figure_that_is_not_what_its_parts_add_up_to_is_seen():
    parts = {
        "compiled A": 1,
        "compiled B": 2,
        "read in f (x.py)": 3,
        "allocated in f (x.py)": 4,
        "found on disk": 5,
    }
    figures = counts(parts)
    assert figures == {"compiles": 3, "host_reads": 3, "allocations": 4}
    key = "sm_90/varlen_d128/first"

    def wrong(**changed: int) -> list[str]:
        record = CaseRecord("measured", figures={**figures, **changed}, parts=parts)
        return [what for _, what in checks({"launch": {key: record}}) if what]

    assert wrong() == []
    told = {"compiles": "compiled", "host_reads": "read", "allocations": "allocated"}
    assert told.keys() == GROUPS["launch"].metrics.keys()
    for metric, kind in told.items():
        give = f"the parts that were {kind} give {figures[metric]}"
        assert wrong(**{metric: 9}) == [f"{metric} is 9, {give}"]


def test_the_watched_names_are_kept():
    """Names are asv's series."""
    assert list(STEPS) == ["first", "again", "length", "batch", "strides", "short", "process"]
    assert list(LAUNCH_CALLS) == [
        "direct_d128",
        *(f"{way}_{dims}" for way in ("autograd", "varlen", "varlen_tensor") for dims in ("d128", "d128_gqa4", "d256_gqa8")),
    ]  # fmt: skip
