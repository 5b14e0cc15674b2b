"""Tracing memory: storages counted once and dropped when they die, and what becomes of each answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fa4_asv.base import core_locks
from fa4_asv.catalog.benchmarks import FAMILIES, TRACED
from fa4_asv.catalog.shapes import shape
from fa4_asv.measure import cached_jobs
from fa4_asv.measure.context import Context
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.memory import collect as traced
from fa4_asv.measure.memory.worker import Tracker, following, trace
from fa4_asv.measure.pool import Outcome
from tests.support.contexts import a_context

KIB = 1024


@pytest.fixture
def tracker():
    """Follows fake CUDA tensors, as the worker does."""
    tracker = Tracker()
    with FakeTensorMode(), following(tracker):
        yield tracker


def cuda(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*size, dtype=dtype, device="cuda")


def test_a_view_counts_nothing(tracker):
    a = cuda(256)
    views = [a.narrow(0, 0, 128), a.view(16, 16), a.view(16, 16).t(), a.detach(), a.view(torch.int32)]
    assert (tracker.now, len(views)) == (KIB, 5)
    assert tracker.parts() == {"workspace float32[256]": KIB}


def test_a_view_keeps_its_whole_storage_alive(tracker):
    a = cuda(256)
    small = a.narrow(0, 0, 1)
    del a
    assert tracker.now == KIB
    del small
    assert tracker.now == 0


def test_freed_storage_leaves_the_count_and_the_peak_is_the_most_not_the_last(tracker):
    a = cuda(1024)
    b = a + 1
    del a
    c = cuda(256)
    assert (tracker.now, tracker.peak) == (5 * KIB, 8 * KIB)
    assert tracker.parts() == {"workspace float32[1024]": 8 * KIB}
    del b, c
    assert (tracker.now, tracker.peak) == (0, 8 * KIB)


def test_a_temporary_inside_of_an_expression_is_seen(tracker):
    a = cuda(256)
    b = (a * 2).relu() + 1
    assert (tracker.now, tracker.peak) == (2 * KIB, 3 * KIB)
    del b


def test_memory_that_is_used_again_after_it_was_freed_is_new(tracker):
    for _ in range(50):
        a = cuda(256)
        del a
    assert (tracker.now, tracker.peak) == (0, KIB)


def test_in_place_operators_allocate_nothing(tracker):
    a, b = cuda(256), cuda(256)
    a.add_(b).mul_(2)
    a.zero_()
    torch.add(a, b, out=b)
    assert (tracker.now, tracker.peak) == (2 * KIB, 2 * KIB)


def test_an_operator_with_several_outputs_counts_each(tracker):
    a = cuda(16, 16)
    values, indices = a.max(dim=1)
    assert tracker.now == KIB + 16 * 4 + 16 * 8
    parts = a.chunk(4)
    assert len(parts) == 4 and tracker.now == KIB + 16 * 4 + 16 * 8
    del values, indices
    assert tracker.now == KIB


def test_a_resized_storage_counts_at_its_new_size(tracker):
    a = cuda(256)
    a.resize_(1024)
    assert (tracker.now, tracker.peak) == (4 * KIB, 4 * KIB)
    a.untyped_storage().resize_(0)
    a.add_(0)
    assert tracker.now == 0


def test_what_lives_on_the_cpu_is_not_counted(tracker):
    tensors = torch.empty(256), torch.zeros(4, dtype=torch.int64)
    assert len(tensors) == 2 and tracker.peak == 0


def test_real_tensors_are_followed_as_fake_ones_are():
    tracker = Tracker("cpu")
    with following(tracker):
        a = torch.empty(256)
        b = a.clone()
        a[:16].copy_(b[16:32])
        del a
        assert (tracker.now, tracker.peak) == (KIB, 2 * KIB)
    assert torch.empty(10**6).numel() and tracker.peak == 2 * KIB, "nothing is seen after the mode is left"
    del b
    assert tracker.now == 0


def test_roles_name_the_parts_and_a_first_name_stays(tracker):
    q, k, unused = cuda(256, dtype=torch.bfloat16), cuda(256, dtype=torch.bfloat16), None
    tracker.name({"q": q, "k": k, "v": unused})
    out, work = cuda(64), cuda(256)
    tracker.name({"out": out, "alias": q.view(16, 16)})
    assert tracker.extra() == work.numel() * 4, "what is still live without a role is extra, too"
    assert tracker.parts() == {
        "q bfloat16[256]": 512,
        "k bfloat16[256]": 512,
        "out float32[64]": 256,
        "workspace float32[256]": KIB,
    }


class Interface:
    """FA4 in miniature: what is known of its host code's allocations at a glance."""

    def __init__(self) -> None:
        self.options: dict[str, object] = {}

    def _flash_attn_fwd(self, q, k, v, **options):
        self.options = options
        return torch.empty_like(q), cuda(*q.shape[:1], q.shape[2], q.shape[1]), None, None

    def _flash_attn_bwd(self, q, k, v, out, dout, lse, **options):
        self.options = options
        accum = q.float()
        return accum.to(q.dtype), torch.empty_like(k), torch.empty_like(v)


def test_a_forward_has_no_workspace_of_its_own():
    interface = Interface()
    answer = trace(torch, interface, False, shape(1, 2, 1024, 64, window=128))
    assert interface.options == {
        "causal": False,
        "window_size_left": 128,
        "window_size_right": 0,
        "return_lse": True,
    }
    tensor, lse = 1024 * 2 * 64 * 2, 1024 * 2 * 4
    assert (answer["peak_bytes"], answer["extra_bytes"]) == (4 * tensor + lse, 0)


def test_a_backward_counts_what_the_forward_left_and_tells_the_workspace():
    answer = trace(torch, Interface(), True, shape(1, 4, 1024, 192, kv_heads=1, head_dim_v=128, causal=True))
    q, k, v, out, lse = (1024 * n for n in (4 * 192 * 2, 192 * 2, 128 * 2, 4 * 128 * 2, 4 * 4))
    end = q + k + v + 2 * out + lse + q + k + v
    assert answer["peak_bytes"] == end + 2 * q, "the accumulator lives until the call returns"
    assert answer["extra_bytes"] == answer["parts"]["workspace float32[1, 1024, 4, 192]"] == 2 * q
    assert answer["parts"]["dq bfloat16[1, 1024, 4, 192]"] == q


# The instrument: every case has a record, whatever its process did.


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(core_locks, "lock_path", lambda: tmp_path / "test.lock")
    return a_context(tmp_path)


class Processes:
    """Stands in for run_jobs: `answers` by case name, by default the sequence length as the peak."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, Outcome] = {}
        self.asked: list[tuple[str, str]] = []
        monkeypatch.setattr(cached_jobs, "run_jobs", self)

    def __call__(self, jobs, processes, finished):
        assert processes == 1, "one process per architecture"
        for job in jobs:
            environment = dict(job.environment)
            assert job.environment == target_environment(environment["FA4_ASV_ARCH"], "cu13")
            arch, _, name = job.key.partition("/")
            assert arch == environment["FA4_ASV_ARCH"]
            self.asked.append((arch, name))
            peak = job.payload["shape"]["seq_len"]
            answer = {"peak_bytes": peak, "extra_bytes": 0, "parts": {"q": peak}, "error": None}
            finished(replace(self.answers.get(name, Outcome("", answer)), key=job.key))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch)


def failing(kind: str, refused: bool) -> Outcome:
    return Outcome("", {"error": {"kind": kind, "words": "words", "refused": refused}})


def test_states_follow_the_answers_and_broken_ones_are_asked_again(context, processes):
    names = list(TRACED)[:4]
    processes.answers = {
        names[1]: failing("AssertionError", True),
        names[2]: failing("TypeError", False),
        names[3]: Outcome("", lost="timed out after 60 s and was killed"),
    }
    wanted = [(arch, name) for arch in ("sm_90", "sm_100") for name in names]
    records = traced.measure(context, wanted)
    assert list(records) == [f"{arch}/{name}" for arch, name in wanted]
    states = ["measured", "unsupported", "broken", "broken"]
    assert [record.state for record in records.values()] == 2 * states
    assert records[f"sm_90/{names[1]}"].why == "AssertionError: words"
    assert records[f"sm_90/{names[3]}"].why == "timed out after 60 s and was killed"
    assert records[f"sm_90/{names[0]}"].figures == {"peak_bytes": 1024, "extra_bytes": 0}
    processes.asked.clear()
    assert traced.measure(context, wanted) == records
    assert sorted(processes.asked) == sorted((a, n) for a, n in wanted if n in names[2:])


def test_growth_is_the_distance_of_the_peaks_and_traces_nothing_twice(context, processes):
    cases = [("sm_90", name) for name in FAMILIES["bwd_d128"]]
    traced.measure(context, cases)
    records = traced.measure_growth(context, [("sm_90", "bwd_d128")])
    assert processes.asked == cases
    record = records["sm_90/bwd_d128"]
    assert record.figures == {"growth_bytes": 32768 - 1024}
    assert sorted(record.parts.values()) == [1024, 2048, 4096, 8192, 16384, 32768]


def test_growth_of_a_family_that_is_not_whole_says_why(context, processes):
    first, second, *_ = FAMILIES["fwd_d64"]
    processes.answers[first] = failing("AssertionError", True)
    (record,) = traced.measure_growth(context, [("sm_100", "fwd_d64")]).values()
    assert (record.state, record.why) == ("unsupported", f"{first}: AssertionError: words")
    processes.answers[second] = failing("TypeError", False)
    (record,) = traced.measure_growth(context, [("sm_90", "fwd_d64")]).values()
    assert (record.state, record.why) == ("broken", f"{second}: TypeError: words")


def test_families_differ_only_in_how_the_tokens_are_cut():
    assert len(FAMILIES) == 8
    for names in FAMILIES.values():
        shapes = [TRACED[name] for name in names]
        assert len({(backward, replace(s, batch=0, seq_len=0), s.tokens) for backward, s in shapes}) == 1
        assert len({s.seq_len for _, s in shapes}) == 6
