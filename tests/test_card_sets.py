"""What a card is asked beyond the history: sets `serving` and `shapes`, bytes by hand, the copy beside, a decode's host."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.backfill.sweep import plan as planning  # noqa: E402
from fa4_asv.base.errors import Fa4AsvError  # noqa: E402
from fa4_asv.catalog.benchmarks import GROUPS, SWEEP_SETS  # noqa: E402
from fa4_asv.catalog.features import Features  # noqa: E402
from fa4_asv.catalog.shapes import (  # noqa: E402
    SHAPES,
    for_features,
    history,
    serving_on_card,
    serving_on_cpu,
    shape,
    shapes_on_card,
)
from fa4_asv.catalog.traffic import bytes_moved  # noqa: E402
from fa4_asv.measure.runtime import correctness, decode_host, host_cost, reference, turns, worker  # noqa: E402
from fa4_asv.measure.runtime.backends import backend  # noqa: E402
from fa4_asv.measure.runtime.inputs import make  # noqa: E402
from fa4_asv.measure.runtime.timing import Burst  # noqa: E402
from fa4_asv.measure.runtime.tolerances import GuardFailed  # noqa: E402
from fa4_asv.record.turns import is_history, is_swept, yardsticks_of  # noqa: E402
from tests.support.feature_mutants import FEATURE_MUTANTS  # noqa: E402
from tests.support.mutants import lay  # noqa: E402
from tests.support.standin_runs import forget  # noqa: E402


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def laid(tmp_path, monkeypatch, one_thread):
    """Puts the stand-in, or a mutant of it, in the place of FA4."""

    def put(mutant=None):
        monkeypatch.syspath_prepend(str(lay(tmp_path / "fa4", mutant)))
        forget()

    yield put
    turns.forget()
    forget()


# Bytes that a call must move, by hand.

HAND = {
    # 32 sequences of 8192 keys over 8 heads of 128: Q and out 32*32*128*2 each, K and V 32*8192*8*128*2 each, LSE 32*32*4.
    "b32_s1_h32kv8_d128_full_k8192": 2 * 262_144 + 2 * 536_870_912 + 4096,
    # Pages of 16, used 8191, 8174, ...: 32 * 8191 - 17 * 496 keys; table of ceil(used / 16) pages; 33 begins; 32 lengths.
    "b32_s1_h32kv8_d128_causal_varlen_k8192_page16_used": 2 * 262_144
    + 2 * (32 * 8191 - 17 * 496) * 8 * 128 * 2
    + 4096
    + 4 * (33 + 32 + sum(-(-(8191 - 17 * n) // 16) for n in range(32))),
    # A window of 128 leaves 129 keys of each cache: 9 pages of 16. 64 sinks of 2 bytes.
    "b32_s1_h64kv8_d64_w128_varlen_k8192_page16_used_sink": 2 * (32 * 64 * 64 * 2)
    + 2 * (32 * 129 * 8 * 64 * 2)
    + 4 * 32 * 64
    + 4 * (33 + 32 + 32 * 9)
    + 128,
}


@pytest.mark.parametrize("name", HAND)
def test_bytes_are_those_counted_by_hand(name):
    assert bytes_moved(SHAPES[name]) == HAND[name]


def test_bytes_are_those_of_the_tensors_that_a_call_has():
    each = shape(2, 4, 96, 64, 2, head_dim_v=32, causal=True, variant="varlen")
    inputs = make(torch, each, "cpu")
    tensors = (inputs.q, inputs.k, inputs.v, inputs.dout)  # the output is like dout
    lse, begins = 4 * 2 * 96 * 4, 2 * 3 * 4
    assert bytes_moved(each) == sum(x.numel() * x.element_size() for x in tensors) + lse + begins


def test_what_nobody_counted_has_no_bytes():
    with pytest.raises(ValueError, match="nobody has counted"):
        bytes_moved(shape(1, 8, 4, 16, 1, 64, features=Features(keys=96, latent=64)))
    assert all(bytes_moved(each) > 0 for each in serving_on_card())


def test_a_decode_is_bound_by_memory_and_a_chunk_is_not():
    """Operations per byte: an H100 has about 300 for each."""
    for each in serving_on_card():
        intensity = each.flops(backward=False) / bytes_moved(each)
        assert (intensity < 40) == (each.seq_len <= 4)


def test_pairs_are_those_of_the_keys_that_are_used():
    each = shape(2, 1, 1, 8, causal=True, features=Features(keys=100, used=True))
    assert each.used_keys == (99, 82) and each.pairs == 99 + 82
    assert make(torch, each, "cpu").feature_tensors["seqused_k"].tolist() == [99, 82]


# The sets.


def test_sets_are_on_request_and_asked_by_name():
    for name in (
        "forward-serving",
        "forward-shapes",
        "backward-shapes",
        "forward-serving-cpu",
        "decode-host",
    ):
        assert GROUPS[name].on_request and GROUPS[name].selected([]) == []
    calls = planning.calls_of_sets(["serving", "shapes"], ())
    assert len(calls) == len(serving_on_card()) + 2 * len(shapes_on_card())
    assert {call.group for call in planning.calls_of_sets(["shapes"], ["backward"])} == {"backward-shapes"}
    with pytest.raises(Fa4AsvError, match="no call of serving matches"):
        planning.calls_of_sets(["serving"], ["backward"])


def test_the_history_is_what_it_was():
    assert len(planning.calls_of_sets(["history"], ())) == 2 * len(history())
    assert not any(is_history(name) for each in ("serving", "shapes") for name in SWEEP_SETS[each])
    assert all(is_swept(name) for names in SWEEP_SETS.values() for name in names)
    assert not any(is_swept(name) for name in ("forward", "serving", "serving-memory", "decode-host"))
    assert yardsticks_of("forward-history") == ("cudnn", "fa2")
    assert yardsticks_of("forward-serving") == ("cudnn", "fa2", "copy")


def test_the_issues_calls_are_there():
    names = {each.name for each in [*serving_on_card(), *shapes_on_card()]}
    for part in ("k8192", "k65536", "s2048_h32kv8_d128_causal_varlen_k32768", "_sink", "cap50", "d256_w1024"):
        assert any(part in name for name in names), part
    assert {"b1_s76800_h12_d128_full", "b8192_s34_h4_d128_full_varlen"} <= names
    assert {"b16_s2048_h16_d72_full_varlen", "b16_s2048_h16_d80_full_varlen"} <= names
    assert any(each.seq_len % 2 and each.seq_len > 1000 for each in shapes_on_card()), "an odd length"


def test_inputs_of_a_process_leave_room_for_others():
    """K and V twice, as sequences and in pages, fit what `loaders` counts for each process."""
    for each in serving_on_card():
        keys = each.batch * each.keys * each.kv_heads * (each.head_dim + each.head_dim_v) * 2
        assert 2 * keys <= 2700 << 20


def test_the_guards_small_shape_fits_a_process_and_keeps_what_is_asked():
    for each in [*serving_on_card(), *shapes_on_card()]:
        small = correctness.small(each)
        assert small.pairs * small.num_heads * 4 < 600 << 20, "scores in fp32"
        assert small.features.names[1:] == each.features.names[1:] and small.keys <= 1024
        assert small.window is None or small.window < small.keys, "it cuts something"


# Values of the timed shape itself, at a few rows.


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("each", for_features(), ids=lambda each: each.name)
def test_sampled_rows_are_those_of_the_whole(one_thread, each, low):
    inputs = make(torch, each, "cpu")
    rows = reference.sampled(torch, inputs, low)
    whole = reference.sample_of(torch, inputs, reference.full(torch, inputs, low))
    if each.features == Features():
        whole = {name: whole[name] for name in rows}
    for name, x in rows.items():
        torch.testing.assert_close(x.float(), whole[name].float(), rtol=2e-2, atol=2e-2)


# The worker's questions, on the stand-in.


class StillClock:
    """Makes every call, and says that each took a millisecond: how busy this machine is must not matter."""

    def burst(self, call, calls, wake=None):
        for _ in range(calls):
            call()
        return Burst((1e-3,) * calls, 1e-3 * calls)


def asked(what, name, each="fa4"):
    job = {"what": what, "backend": each, "shape": name, "device": "cpu", "backward": False}
    return worker.answer(torch, job, StillClock(), lambda: None)


@pytest.mark.parametrize("each", serving_on_cpu(), ids=lambda each: each.name)
def test_a_sweep_guards_loads_and_times_them(laid, each):
    laid()
    assert asked("first", each.name).get("error") is None
    assert asked("load", each.name).get("error") is None
    assert len(asked("turn", each.name)["samples"]["seconds"]) >= 3


@pytest.mark.parametrize(
    ("mutant", "part", "reason"),
    [
        ("page_table_one_off", "page16_used", "out is off by"),
        ("beyond_the_used_keys", "page16_used", "out is off by"),
        ("sink_left_out", "_sink", "out is"),
    ],
)
def test_a_wrong_one_has_no_time(laid, mutant, part, reason):
    laid(FEATURE_MUTANTS[mutant].mutant)
    each = next(each for each in serving_on_cpu() if part in each.name)
    error = asked("first", each.name)["error"]
    assert error["guard"] and reason in error["words"], error


@pytest.mark.parametrize(
    ("name", "each", "reason"),
    [
        ("fa2", shape(2, 4, 1, 64, 2, features=Features(keys=96)), ""),
        ("fa2", shape(2, 4, 1, 64, 2, features=Features(keys=96, used=True)), "SDPA has no k96, used"),
        (
            "fa2",
            shape(2, 4, 8, 64, 2, causal=True, features=Features(keys=96)),
            "SDPA's causal mask begins at the first key",
        ),
        ("fa2", shape(1, 2, 96, 64, 1, features=Features(sink=True)), "SDPA has no sink"),
        ("copy", shape(2, 4, 1, 64, 2, features=Features(keys=96)), ""),
        (
            "copy",
            shape(1, 2, 8, 64, 2, features=Features(mask="document")),
            "b1_s8_h2_d64_full_document: nobody has counted the bytes of this call",
        ),
    ],
)
def test_yardsticks_say_what_they_lack(name, each, reason):
    assert backend(name).why_not(torch, each, "cpu", backward=False) == reason


def test_pytorch_gives_the_same_decode(laid):
    laid()
    each = shape(2, 4, 1, 64, 2, features=Features(keys=96))
    inputs = make(torch, each, "cpu")
    ours, theirs = (backend(name).prepare(torch, inputs).forward()["out"] for name in ("fa4", "fa2"))
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


def test_the_copy_moves_the_calls_bytes_and_is_held_to_it(one_thread):
    each = serving_on_cpu()[0]
    calls = backend("copy").prepare(torch, make(torch, each, "cpu"))
    target = calls.raw_forward()
    assert 2 * target.numel() in (bytes_moved(each), bytes_moved(each) - 1)
    assert calls.forward() == {}
    assert backend("copy").why_not(torch, each, "cpu", backward=True) == "a copy stands beside forwards only"
    assert asked("first", each.name, "copy").get("error") is None
    assert asked("turn", each.name, "copy")["samples"]["seconds"]
    turns.forget()
    lossy = SimpleNamespace(
        ones=torch.ones, uint8=torch.uint8, zeros_like=lambda x: _Forgetful(x), equal=lambda a, b: False
    )
    with pytest.raises(GuardFailed, match="the copy differs from its source"):
        backend("copy").prepare(lossy, make(torch, each, "cpu")).forward()


class _Forgetful:
    def __init__(self, like):
        self.like = like

    def copy_(self, source):
        return self


# The host of a decode: graphs are played, since a processor has none.


class PlayedCuda:
    """As much of torch.cuda as recording a graph asks for; a replay computes the call anew and writes its output."""

    def __init__(self, call, wrong=0.0):
        self.call, self.wrong, self.recording, self.replays = call, wrong, None, 0

    def Stream(self):
        return SimpleNamespace(wait_stream=lambda _: None)

    current_stream = Stream

    @contextmanager
    def stream(self, _):
        yield

    def synchronize(self):
        pass

    def CUDAGraph(self):
        return SimpleNamespace(replay=self._replay)

    @contextmanager
    def graph(self, _):
        real, outs = self.call[0], []
        self.call[0] = lambda: outs.append(real()) or outs[-1]
        yield
        self.call[0], self.recording = real, outs[-1][0]

    def _replay(self):
        self.replays += 1
        self.recording.copy_(self.call[0]()[0] + self.wrong)


def played(wrong=0.0):
    each = serving_on_cpu()[0]
    inputs = make(torch, each, "cpu")
    real = backend("fa4").prepare(torch, inputs).raw_forward
    call = [real]
    cuda = PlayedCuda(call, wrong)
    fake = SimpleNamespace(cuda=cuda, equal=torch.equal)
    return decode_host._recorded(fake, lambda: call[0]()), cuda


def test_a_graph_is_held_to_the_call_that_it_recorded(laid):
    laid()
    replay, cuda = played()
    before = cuda.replays
    replay()
    assert cuda.replays == before + 1
    with pytest.raises(GuardFailed, match=r"the graph gave another answer .* \(off by 0\.5"):
        played(wrong=0.5)


def test_host_seconds_are_those_until_a_call_is_queued(laid, monkeypatch):
    laid()
    ticks = iter(range(10_000))
    monkeypatch.setattr(host_cost, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * 8e-6))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(decode_host, "SAMPLES", 3)
    samples, notes = decode_host.host_seconds(torch, serving_on_cpu()[0], "eager", "cpu")
    assert samples == pytest.approx([1e-6] * 3) and notes == {"per call": "1.0 us"}
    job = {"what": "decode-host", "backend": "fa4", "shape": serving_on_cpu()[0].name, "device": "cuda"}
    if not torch.cuda.is_available():
        answer = worker.answer(torch, job | {"backward": False, "launch": "graph"}, None, None)
        assert answer["error"]["refused"]
