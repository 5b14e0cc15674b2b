"""The groups of calls beyond the core: their names, when they are measured, what FA4 is told, what is read of their kernels."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fa4_asv.asv_plugin import commands
from fa4_asv.asv_plugin.commands import without
from fa4_asv.catalog.benchmarks import GROUPS, TRACED_GROUPS
from fa4_asv.catalog.calls import Call
from fa4_asv.catalog.features import MASKS, SCORES, Features
from fa4_asv.catalog.kernels import ARCHES, BEYOND, CALLS, CASES, KERNEL_GROUPS, TARGETS, Case
from fa4_asv.catalog.metrics import LOOP_METRICS, METRICS
from fa4_asv.catalog.shapes import shape
from fa4_asv.compare.rows import Measured, compare
from fa4_asv.integrity.consistency import checks
from fa4_asv.integrity.loops import wrong_whole
from fa4_asv.measure import driver_stubs, flex_functions
from fa4_asv.measure.fa4_arguments import feature_options, lse_shape, options_of
from fa4_asv.measure.fake_calls import call_on, function_of
from fa4_asv.measure.kernels.collect import _kernel_of, _without
from fa4_asv.measure.kernels.loop_records import with_loops
from fa4_asv.measure.kernels.loops import KernelLoops
from fa4_asv.measure.memory.collect import _of_the_workspace, _record
from fa4_asv.measure.pool import Outcome
from fa4_asv.record.schema import CaseRecord

# Names are part of asv's series: one may be added here, none may go or be given another call.
NAMES = {
    "serving": """
        decode_d128_mha_full_page128 decode_d128_mha_causal_page128 decode_d128_gqa4_full_page128
        decode_d128_gqa4_causal_page128 prefill_d128_mha_full_page128 prefill_d128_mha_causal_page128
        prefill_d128_gqa4_full_page128 prefill_d128_gqa4_causal_page128 decode_d128_gqa4_causal_page1
        decode_d128_gqa4_causal_page16 draft_d128_gqa4_causal_page16 chunk_d128_gqa4_causal_page16
        decode_d256_gqa2_causal_page16 prefill_d256_gqa2_causal_page128 decode_d128_gqa4_causal_page128_split4
        decode_d128_gqa4_causal_page128_split4_combine decode_d128_gqa4_causal_used decode_d128_gqa4_causal_split4
        decode_d128_gqa4_causal_split4_combine""",
    "flex": """
        fwd_d64_gqa8_window_sink bwd_d64_gqa8_window_sink bwd_d64_gqa8_window_sink_post_dq fwd_d128_causal_sink
        bwd_d128_causal_sink bwd_d128_causal_sink_post_dq fwd_d128_causal_cap bwd_d128_causal_cap fwd_d256_window_cap
        bwd_d256_window_cap fwd_d128_causal_alibi bwd_d128_causal_alibi fwd_d128_document bwd_d128_document
        fwd_d128_document_blocks bwd_d128_document_blocks""",
    "mla": """
        mla_prefill mla_prefill_page128 mla_prefill_top2048 mla_decode mla_decode_page64 mla_decode_top2048
        mla_decode_fp8 mla_decode_split4 mla_bwd_top2048 mla_bwd_top2048_pre mla_bwd_top2048_dq mla_bwd_top2048_dk
        mla_bwd_top2048_recompute""",
    "dims": """
        fwd_d16_full bwd_d16_full fwd_d72_full bwd_d72_full fwd_d72_full_varlen bwd_d72_full_varlen
        fwd_d80_full_varlen bwd_d80_full_varlen fwd_d192_causal bwd_d192_causal fwd_d128_causal_fp16
        bwd_d128_causal_fp16 fwd_d64_causal_varlen bwd_d64_causal_varlen fwd_d256_causal_varlen
        bwd_d256_causal_varlen bwd_d64_causal_deterministic bwd_d256_causal_deterministic fwd_d128_full_fp8
        fwd_d128_causal_fp8""",
}


def test_names_stay():
    for group, names in NAMES.items():
        assert set(names.split()) <= KERNEL_GROUPS[group].cases.keys()
    assert KERNEL_GROUPS["consumer"].cases == KERNEL_GROUPS["ultra"].cases == CASES


def test_no_name_has_two_meanings():
    calls = [case.call for group in KERNEL_GROUPS.values() for case in group.cases.values()]
    assert all(CALLS[call.name] == call for call in calls)
    shapes = {}
    for call in CALLS.values():
        assert shapes.setdefault((call.shape.name, call.backward, call.return_lse), call.name) == call.name


def test_about_55_calls_beyond_the_core():
    calls = {case.call.name for name in NAMES for case in KERNEL_GROUPS[name].cases.values()} - {
        case.call.name for case in CASES.values()
    }
    assert len(calls) >= 55


def test_every_architecture_has_a_target():
    arches = {arch for group in KERNEL_GROUPS.values() for arch in group.arches}
    assert arches == TARGETS.keys()
    assert KERNEL_GROUPS["mla"].arches == ("sm_100",), "Hopper has no such kernel: no column of n/a"


@pytest.mark.parametrize("name", [*BEYOND, *(f"{group}-memory" for group in TRACED_GROUPS)])
def test_a_group_is_measured_where_it_is_asked_for_and_never_otherwise(name):
    group = GROUPS[name]
    assert group.on_request and group.exact
    assert group.selected([]) == []
    assert group.selected([f"^{group.stem}"]) == list(group.cases)
    left = without(each.stem for each in GROUPS.values() if each.on_request)
    assert not any(re.search(left, group.benchmark(metric)) for metric in group.metrics)


def test_the_old_set_is_what_runs_without_a_pattern():
    left = without(each.stem for each in GROUPS.values() if each.on_request)
    for group in GROUPS.values():
        if not group.on_request:
            assert all(re.search(left, group.benchmark(metric)) for metric in group.metrics)
            assert group.selected([]) == list(group.cases)


@pytest.mark.parametrize("bench", [None, [], ["^serving"]])
def test_asv_run_is_told_to_leave_them_out_where_nothing_is_selected(monkeypatch, bench):
    monkeypatch.setattr(commands, "described", lambda machine: None)
    args = SimpleNamespace(bench=bench, machine=None)
    (pattern,) = commands.on_machine(lambda conf, told: told.bench, None, args)
    assert bool(re.search(pattern, "serving.Kernels.track_registers('sm_90', 'x')")) == bool(bench)
    assert bool(re.search(pattern, "codegen.Kernels.track_registers('sm_90', 'x')")) != bool(bench)


def test_a_group_that_one_side_alone_has_is_not_compared():
    record = CaseRecord("measured", figures=dict.fromkeys(METRICS, 1))
    case = "sm_90/decode_d128_gqa4_causal_page16"
    has, lacks = (Measured({"serving": records}) for records in ({case: record}, {}))
    assert compare(lacks, has, exact=True) == compare(has, lacks, exact=True) == []
    assert {row.group for row in compare(has, has, exact=True)} == {"serving"}


# What FA4 is told.

PAGED = shape(4, 32, 2, 128, 8, causal=True, variant="varlen", features=Features(keys=64, page=16, used=True))


def test_packed_queries_over_pages_have_no_begins_of_keys():
    options = options_of(PAGED, "begins")
    assert options == {
        "causal": True,
        "cu_seqlens_q": "begins",
        "max_seqlen_q": 2,
        "max_seqlen_k": 64,
    }


def test_only_what_is_asked_for_is_told():
    assert feature_options(Features(), backward=False) == {}
    assert feature_options(Features(splits=4, softcap=50.0), backward=False) == {
        "num_splits": 4,
        "softcap": 50.0,
    }


def test_mla_has_its_heads_last_in_the_lse():
    latent = shape(2, 16, 8, 64, 1, 512, features=Features(latent=512, keys=32))
    assert lse_shape(latent) == (2, 8, 16)


class _Old:
    """FA4's interface before it knew sinks in the backward."""

    @staticmethod
    def _flash_attn_bwd(q, k, v, out, dout, lse, causal=False):
        raise AssertionError("never called")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "_flash_attn_bwd",
            {"learnable_sink": 1},
            "_flash_attn_bwd of this release has no argument learnable_sink",
        ),
        ("_flash_attn_bwd_sparse_mla", {}, "this release has no _flash_attn_bwd_sparse_mla"),
    ],
)
def test_what_an_old_release_lacks_is_unsupported_and_says_what(name, options, message):
    with pytest.raises(driver_stubs.Lacking, match=re.escape(message)) as caught:
        function_of(_Old, name, options)
    assert driver_stubs.describe(caught.value)["refused"]


def test_a_type_error_of_fa4_itself_is_no_refusal():
    assert not driver_stubs.describe(TypeError("unexpected keyword argument"))["refused"]


def test_mlas_backward_gives_probabilities_or_computes_them_again():
    torch = pytest.importorskip("torch")
    told = {}

    def backward(q, k, v, qv, out, dout, lse, p, row_max, gather_kv_indices, causal=False, recompute_p=False):
        told.update(p=p, row_max=row_max, recompute_p=recompute_p, qv=qv)
        return ()

    interface = SimpleNamespace(_flash_attn_bwd_sparse_mla=backward)
    for recompute in (False, True):
        features = Features(latent=512, keys=512, topk=256, recompute=recompute)
        each = shape(1, 8, 4, 64, 1, 512, causal=True, features=features)
        tensors = dict.fromkeys(("q", "k", "v", "out", "dout", "lse"), torch.empty(1)) | {
            "qv": torch.empty(2)
        }
        with _on_the_cpu(torch):
            call_on(torch, interface, tensors, {"gather_kv_indices": None}, each, backward=True)
        assert told["recompute_p"] is recompute
        assert told["qv"].shape == (2,)
        if recompute:
            assert told["p"] is None and told["row_max"] is None
        else:
            assert told["p"].shape == (1, 4, 8, 256) and told["row_max"].shape == (1, 4, 2, 8)


def _on_the_cpu(torch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


# Score and mask functions: in the DSL's language, and of plain numbers here.


class _Cute:
    @staticmethod
    def jit(function):
        return function


def test_alibi_adds_slope_times_distance():
    torch = pytest.importorskip("torch")
    cutlass = SimpleNamespace(Float32=torch.float32)
    forward, backward = flex_functions._alibi(cutlass, _Cute)
    head, query, key = (torch.tensor([value]) for value in (1, 5, 3))
    slopes = torch.tensor([0.0, 0.5])
    score = forward(torch.tensor([2.0]), None, head, query, key, None, [slopes])
    assert score.tolist() == [2.0 + 0.5 * (3 - 5)]
    assert backward("gradient", score, None, head, query, key, None, [slopes]) == "gradient"
    older, _ = flex_functions._alibi_b8(cutlass, _Cute)
    assert older(torch.tensor([2.0]), None, head, query, key, [slopes]).tolist() == score.tolist()


def test_a_query_sees_its_own_document_up_to_itself():
    torch = pytest.importorskip("torch")
    utils = SimpleNamespace(scalar_to_ssa=lambda value, _: value)
    document = flex_functions._document(SimpleNamespace(Int32=None), _Cute, utils)
    ids = torch.tensor([[0, 0, 1, 1]])
    seen = [
        [bool(document(*map(torch.tensor, ([0], [0], [row], [column])), None, [ids])) for column in range(4)]
        for row in range(4)
    ]
    assert seen == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]


def test_which_score_function_follows_fa4s_own_soft_cap():
    def new(value):
        return lambda scores, batch_idx, head_idx, q_idx, kv_idx, seqlen_info, aux_tensors: scores

    def old(value):
        return lambda scores, batch_idx, head_idx, q_idx, kv_idx, aux_tensors: scores

    assert flex_functions._knows_lengths(SimpleNamespace(create_softcap_scoremod=new))
    assert not flex_functions._knows_lengths(SimpleNamespace(create_softcap_scoremod=old))
    assert flex_functions.functions_of("", backward=True) == {}
    assert {*SCORES, *MASKS} == {"alibi", "document"}


# Slices of fake tensors, which torch itself refuses without a device.


@pytest.mark.parametrize(
    "parts",
    [
        (..., slice(None, 2)),
        (slice(1, None), None),
        (0,),
        (slice(None), None, 1, ...),
        (..., -1),
        (slice(None, None, 2), slice(-2, None)),
        (None, ..., None),
    ],
)
def test_a_slice_is_what_torch_gives(parts):
    torch = pytest.importorskip("torch")
    tensor = torch.arange(24).reshape(2, 3, 4)
    mine, theirs = driver_stubs._view(torch, tensor, parts), tensor[parts]
    assert torch.equal(mine, theirs) and mine.stride() == theirs.stride()
    assert mine.storage_offset() == theirs.storage_offset()


# Which kernel of a call is a case's, and what its record holds.


def test_the_kernel_of_each_role():
    kernels = [
        {"kernel": name}
        for name in (
            "FlashAttentionBackwardPreprocess",
            "FlashAttentionSparseMLABackwardSm100",
            "dQdQvGemmKernel",
            "dKGemmKernel",
        )
    ]
    call = CALLS["mla_bwd_top2048"]
    result = {role: _kernel_of(Case("x", call, role), kernels) for role in ("main", "pre", "dq", "dk")}
    assert [each["kernel"] for each in result.values()] == [
        "FlashAttentionSparseMLABackwardSm100",
        "FlashAttentionBackwardPreprocess",
        "dQdQvGemmKernel",
        "dKGemmKernel",
    ]
    split = [{"kernel": "FlashPrepareScheduler"}, {"kernel": "FlashAttentionForwardSm100"}]
    call = CALLS["decode_d128_gqa4_causal_split4"]
    assert _kernel_of(Case("x", call, "combine"), split) is None, "the call broke off, or split nothing"
    split.append({"kernel": "FlashAttentionForwardCombine"})
    assert _kernel_of(Case("x", call, "combine"), split)["kernel"] == "FlashAttentionForwardCombine"
    assert _kernel_of(Case("x", call), split)["kernel"] == "FlashAttentionForwardSm100"
    assert _kernel_of(Case("x", call), split[2:]) is None, "a combine kernel is no forward"
    assert _without(Case("x", call, "combine")) == "this call has no combine kernel"
    assert _without(Case("x", call, "post_dq")) == "this backward has no postprocess kernel"


WHOLE = CaseRecord(
    "measured", figures=dict.fromkeys(METRICS, 0), sha256="ab" * 32, kernel="K", opcodes={"MOV": 3}
)


def test_a_kernel_without_loops_says_why_once():
    record = with_loops(WHOLE, KernelLoops(why="no loop waits"))
    assert record.figures == WHOLE.figures and not record.opcodes
    assert record.notes == {"loops": "no loop waits"}
    assert all(record.why_not(metric) == "no loop waits" for metric in LOOP_METRICS)
    assert not any(map(record.says_why_not, METRICS))
    assert CaseRecord.from_json(record.to_json()) == record


def test_a_kernel_that_is_not_there_has_its_own_reason():
    refused = CaseRecord("unsupported", why="SplitKV not supported on SM 9.0")
    assert with_loops(refused, None) == refused


SOUND = {
    "instructions": 100,
    "text_bytes": 1664,
    "local_loads": 4,
    "local_stores": 2,
    "spill_bytes": 8,
    "registers": 128,
    "turn_instructions": 40,
    "masked_instructions": 50,
    "spills_inside": 3,
    "spills_outside": 3,
    "slots_per_100_products": 500,
}


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [
        ("instructions", 105, "text_bytes is 1664, its instructions have 1680"),
        ("text_bytes", 1665, "text_bytes is 1665, its instructions have 1600"),
        ("local_loads", 99, "local accesses is 101, the kernel has 100 instructions"),
        ("turn_instructions", 101, "turn_instructions is 101, the kernel has 100 instructions"),
        ("spills_inside", 4, "spilled accesses is 7, the kernel has 6 local accesses"),
        ("slots_per_100_products", 501, "slots_per_100_products is 501, its parts give 500"),
    ],
)
def test_an_edited_figure_contradicts_another(metric, value, message):
    parts = {"exp2": 10, "HGMMA.64x128x16": 8}
    record = CaseRecord("measured", figures=SOUND, parts=parts, notes={})
    assert not any(wrong_whole(record))
    edited = CaseRecord("measured", figures={**SOUND, metric: value}, parts=parts)
    assert message in list(wrong_whole(edited))


# How many pairs of query and key a call computes, counted entry by entry.


@pytest.mark.parametrize(
    ("queries", "features", "options"),
    [
        (3, Features(keys=7), {}),
        (3, Features(keys=7), {"causal": True}),
        (4, Features(), {"causal": True}),
        (4, Features(keys=9), {"window": 2}),
        (5, Features(), {"window": 9}),
        (2, Features(keys=9, topk=4), {"causal": True}),
    ],
)
def test_pairs_are_those_of_the_mask(queries, features, options):
    each = shape(2, 1, queries, 8, features=features, **options)
    keys = features.keys or queries
    count = 0
    for row in range(queries):
        last = row + keys - queries
        seen = range(keys)
        if options.get("causal") or "window" in options:
            seen = [key for key in seen if key <= last]
        if "window" in options:
            seen = [key for key in seen if key >= last - options["window"]]
        count += min(len(seen), features.topk or keys)
    assert each.pairs == 2 * count


def test_every_call_says_in_its_name_what_it_asks_for():
    for group in ("serving", "flex", "mla"):
        for case in KERNEL_GROUPS[group].cases.values():
            name, features = case.call.name, case.call.shape.features
            for word in (f"page{features.page}", f"split{features.splits}", f"top{features.topk}"):
                asked = word not in ("page0", "split1", "top0")
                assert (word in name) == asked
            assert ("sink" in name) == features.sink and ("cap" in name) == bool(features.softcap)
            assert ("blocks" in name) == features.blocks and ("recompute" in name) == features.recompute


def test_calls_of_the_core_ask_for_nothing_new():
    assert all(case.call.shape.features == Features() for case in CASES.values())
    assert isinstance(CASES["fwd_d64_full"].call, Call) and ARCHES == ("sm_90", "sm_100")


def test_a_trace_beyond_the_core_keeps_the_parts_that_the_call_does_not_say():
    answer = {
        "peak_bytes": 30,
        "extra_bytes": 10,
        "parts": {"q bfloat16[4]": 8, "out bfloat16[4]": 12, "workspace float32[2]": 10},
        "error": None,
    }
    case = ("sm_100", "mla_decode")
    (traced,) = _record(case, Outcome("sm_100/mla_decode", answer)).values()
    record = _of_the_workspace(traced)
    assert record.parts == {"workspace float32[2]": 10} and record.figures["peak_bytes"] == 30
    groups = {"mla-memory": {"sm_100/mla_decode": record}}
    assert not [wrong for _, wrong in checks(groups) if wrong]
    edited = replace(record, figures={**record.figures, "extra_bytes": 9})
    problems = [wrong for _, wrong in checks({"mla-memory": {"sm_100/mla_decode": edited}}) if wrong]
    assert problems == ["extra_bytes is 9, the workspaces give 10"]
