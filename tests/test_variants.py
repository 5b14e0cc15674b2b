"""What the full set asks beyond dense attention: packed, paged, split, deterministic and fp8, against a plain FA4."""

from __future__ import annotations

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from fa4_asv.catalog.shapes import PAGE, VARIANTS, further, shape, variants  # noqa: E402
from fa4_asv.measure.runtime import correctness, reference  # noqa: E402
from fa4_asv.measure.runtime.backends.fa4 import Fa4  # noqa: E402
from fa4_asv.measure.runtime.inputs import make  # noqa: E402
from fa4_asv.measure.runtime.tolerances import GuardFailed  # noqa: E402

SMALL = {
    "varlen": shape(3, 4, 40, 64, 2, causal=True, variant="varlen"),
    "tailed": shape(4, 2, 50, 64, 1, causal=True, variant="tailed"),
    "deterministic": shape(1, 2, 96, 64, variant="deterministic"),
    "paged": shape(2, 4, 2 * PAGE, 64, 2, causal=True, variant="paged"),
    "split": shape(1, 2, 96, 64, causal=True, variant="split"),
    "fp8": shape(1, 2, 96, 64, causal=True, dtype="fp8"),
}


def dense(q, k, v, causal):
    """MATH of one batch in fp32, and its log of sums; q, k, v as (batch, tokens, heads, dim)."""
    q, k, v = (x.float().transpose(1, 2) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).contiguous(), scores.logsumexp(-1)


def pieces(q, k, v, cu_seqlens_q):
    edges = cu_seqlens_q.tolist()
    for begin, end in zip(edges, edges[1:], strict=False):
        yield tuple(x[None, begin:end] for x in (q, k, v))


def forward(q, k, v, *, causal, return_lse, cu_seqlens_q=None, page_table=None, num_splits=1, **asked):
    """As FA4's `_flash_attn_fwd`, by MATH."""
    ASKED.append({"num_splits": num_splits, "dtype": q.dtype, **asked})
    dtype = torch.bfloat16 if q.dtype == torch.float8_e4m3fn else q.dtype
    if cu_seqlens_q is not None:
        answers = [dense(*piece, causal) for piece in pieces(q, k, v, cu_seqlens_q)]
        out = torch.cat([out[0] for out, _ in answers])
        return out.to(dtype), torch.cat([lse[0] for _, lse in answers], dim=-1)
    if page_table is not None:
        batch = page_table.shape[0]
        k, v = (x[page_table.long()].reshape(batch, -1, *x.shape[2:]) for x in (k, v))
    out, lse = dense(q, k, v, causal)
    return out.to(dtype), lse


def backward(q, k, v, out, dout, lse, *, causal, cu_seqlens_q=None, deterministic=False, **asked):
    """As FA4's `_flash_attn_bwd`, by autograd of MATH."""
    ASKED.append({"deterministic": deterministic, **asked})
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    again, _ = forward(*leaves, causal=causal, return_lse=True, cu_seqlens_q=cu_seqlens_q)
    return tuple(grad.contiguous() for grad in torch.autograd.grad(again, leaves, dout))


ASKED: list[dict] = []


@pytest.fixture(autouse=True)
def plain_fa4(monkeypatch):
    ASKED.clear()
    interface = SimpleNamespace(_flash_attn_fwd=forward, _flash_attn_bwd=backward, RUNS_ON_CPU=True)
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", interface)
    return interface


def test_every_variant_has_a_shape_in_the_full_set_and_a_test_here():
    assert {size.variant or size.dtype for size in variants()} == set(SMALL) == {*VARIANTS, "fp8"}
    assert {size.name for size in variants()} <= {size.name for size in further()}


@pytest.mark.parametrize("name", SMALL)
def test_the_right_answer_passes_whole_and_sampled(name):
    fa4, size = Fa4(), SMALL[name]
    assert correctness.check_whole(torch, fa4, size, "cpu", size.has_backward, "gaussian")
    inputs = make(torch, size, "cpu")
    result = correctness.results(fa4.prepare(torch, inputs), size.has_backward)
    assert set(correctness.check_sampled(torch, inputs, result)) == set(result)


@pytest.mark.parametrize("name", ["varlen", "tailed"])
def test_sequences_that_see_each_other_are_caught(name, plain_fa4):
    def leaking(q, k, v, *, causal, return_lse, cu_seqlens_q, **_):
        out, lse = dense(q[None], k[None], v[None], causal)
        return out[0].to(q.dtype), lse[0]

    plain_fa4._flash_attn_fwd = leaking
    with pytest.raises(GuardFailed, match="out is off"):
        correctness.check_whole(torch, Fa4(), SMALL[name], "cpu", False, "gaussian")
    inputs = make(torch, SMALL[name], "cpu")
    with pytest.raises(GuardFailed, match="out is off"):
        correctness.check_sampled(torch, inputs, Fa4().prepare(torch, inputs).forward())


def test_pages_read_in_a_row_are_caught(plain_fa4):
    def in_a_row(q, k, v, *, page_table, **options):
        return forward(
            q, k, v, page_table=torch.arange(page_table.numel()).reshape(page_table.shape), **options
        )

    plain_fa4._flash_attn_fwd = in_a_row
    with pytest.raises(GuardFailed, match="out is off"):
        correctness.check_whole(torch, Fa4(), SMALL["paged"], "cpu", False, "gaussian")


def test_an_fp8_answer_may_be_a_quarter_off_and_no_more(plain_fa4):
    def off(by):
        return lambda *args, **options: (lambda out, lse: (out + by, lse))(*forward(*args, **options))

    plain_fa4._flash_attn_fwd = off(0.2)
    assert correctness.check_whole(torch, Fa4(), SMALL["fp8"], "cpu", False, "gaussian")
    plain_fa4._flash_attn_fwd = off(0.4)
    with pytest.raises(GuardFailed, match="out is off"):
        correctness.check_whole(torch, Fa4(), SMALL["fp8"], "cpu", False, "gaussian")


def test_each_variant_reaches_fa4():
    for name, size in SMALL.items():
        calls = Fa4().prepare(torch, make(torch, size, "cpu"))
        ASKED.clear()
        (calls.backward if size.has_backward else calls.forward)()
        asked = {key: value for call in ASKED for key, value in call.items()}
        assert asked.get("deterministic", False) == (name == "deterministic")
        assert (ASKED[0]["num_splits"] > 1) == (name == "split")
        assert (ASKED[0]["dtype"] == torch.float8_e4m3fn) == (name == "fp8")


@pytest.mark.parametrize("size", [SMALL["tailed"], SMALL["varlen"], shape(2, 4, 300, 64, window=64)])
def test_flops_count_the_entries_of_the_mask(size):
    entries = 0
    for piece in make(torch, size, "cpu").sequences():
        positions = torch.arange(piece.shape.seq_len)
        mask = reference.allowed(positions[:, None], positions[None, :], piece)
        entries += piece.shape.batch * int(mask.sum())
    assert size.pairs == entries
    assert size.flops(False) == 2 * entries * size.num_heads * (size.head_dim + size.head_dim_v)


def test_long_tailed_lengths_hold_all_tokens_and_the_longest_last():
    for size in variants():
        if size.variant == "tailed":
            assert sum(size.lengths) == size.tokens == 32768
            assert list(size.lengths) == sorted(size.lengths) and size.lengths[-1] > 8 * size.lengths[0]
