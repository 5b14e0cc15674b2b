"""A stand-in for FA4: its two functions, computed on a CPU by plain torch. It measures nothing but this suite.

As FA4's kernels do, it works off blocks of query rows, rounds P and dS to the inputs' dtype, sums in fp32,
compiles a kernel once per head dim and mask, and adds up dK and dV in an order that changes from call to call
unless `deterministic` is asked for. tests/mutants.py holds what is broken in it, by one edit each.
"""

import itertools
import math

import cutlass.cute as cute
import torch
from flash_attn.cute import features
from torch.profiler import record_function

RUNS_ON_CPU = True
ROWS = 64  # of a block

_kernels = {}
_calls = itertools.count()


def _compiled(function, *key):
    """The kernel of `key`, compiled when it is first asked for."""
    if key not in _kernels:
        _kernels[key] = cute.compile(function)
    return _kernels[key]


def _flash_attn_fwd(
    q,
    k,
    v,
    softmax_scale=None,
    causal=False,
    window_size_left=None,
    window_size_right=None,
    return_lse=False,
    **asked,
):
    """out (b, s, h, dv) and lse (b, h, s) of q (b, s, h, d), k (b, s, hk, d), v (b, s, hk, dv); `asked`: features.py."""
    if asked or q.shape[1] != k.shape[1] or not q.is_contiguous():
        recompute = asked.pop("gather_bwd_recompute_p", False)
        keeps = "gather_kv_indices" in asked and asked["qv"].requires_grad and not recompute
        asked = {name: x.detach() if isinstance(x, torch.Tensor) else x for name, x in asked.items()}
        with record_function("flash_attncute_standin_forward"):
            answer = features.forward(q, k, v, causal, _left(window_size_left, window_size_right), **asked)
        return (
            *answer,
            *(features.kept_for_backward(q, k, v, causal, answer[1], **asked) if keeps else (None, None)),
        )
    left = _left(window_size_left, window_size_right)
    scale = softmax_scale or 1 / math.sqrt(q.shape[-1])
    kernel = _compiled(_forward_kernel, "forward", q.shape[-1], causal, left)
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32, device=q.device)
    with record_function("flash_attncute_standin_forward"):
        kernel(q, k, v, out, lse, scale, causal, left)
    return out, lse if return_lse else None, None, None


def _flash_attn_bwd(
    q,
    k,
    v,
    out,
    dout,
    lse,
    softmax_scale=None,
    causal=False,
    window_size_left=None,
    window_size_right=None,
    deterministic=False,
    **asked,
):
    """dq, dk, dv, each like the input it belongs to; with a sink dsink, too."""
    if asked or q.shape[1] != k.shape[1] or not q.is_contiguous():
        left = _left(window_size_left, window_size_right)
        with record_function("flash_attncute_standin_backward"):
            return features.backward(q, k, v, out, dout, lse, causal, left, **asked)
    left = _left(window_size_left, window_size_right)
    scale = softmax_scale or 1 / math.sqrt(q.shape[-1])
    kernel = _compiled(_backward_kernel, "backward", q.shape[-1], causal, left)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    turn = 0 if deterministic else next(_calls)
    with record_function("flash_attncute_standin_backward"):
        kernel(q, k, v, out, dout, lse, dq, dk, dv, scale, causal, left, turn)
    return dq, dk, dv


def _flash_attn_bwd_sparse_mla(
    q, k, v, qv, out, dout, lse, p, row_max, gather_kv_indices, causal=False, recompute_p=False
):
    """dq, dk, dv, dqv and no dsink; dk and dv in fp32. `p` and `row_max` as the forward kept them, or neither."""
    assert recompute_p == (p is None) == (row_max is None)
    asked = {"qv": qv, "gather_kv_indices": gather_kv_indices}
    return (*features.backward_of_chosen(q, k, v, out, dout, lse, p, causal, **asked), None)


def _left(left, right):
    if left is not None and right != 0:
        raise NotImplementedError("the stand-in has windows to the left only")
    return left


def _forward_kernel(q, k, v, out, lse, scale, causal, left):
    group = q.shape[2] // k.shape[2]
    keys, values = _per_head(k, group), _per_head(v, group)
    for begin in range(0, q.shape[1], ROWS):
        block = min(ROWS, q.shape[1] - begin)
        seen = begin + block if causal or left is not None else q.shape[1]
        queries = _per_head(q.narrow(1, begin, block))
        s = _scores(queries, keys.narrow(2, 0, seen), begin, scale, causal, left)
        total = torch.logsumexp(s, dim=-1)
        p = _rounded(torch.exp(s - total.unsqueeze(-1)), q.dtype)
        out.narrow(1, begin, block).copy_((p @ values.narrow(2, 0, seen)).transpose(1, 2))
        lse.narrow(2, begin, block).copy_(total)


def _backward_kernel(q, k, v, out, dout, lse, dq, dk, dv, scale, causal, left, turn):
    group = q.shape[2] // k.shape[2]
    keys, values = _per_head(k, group), _per_head(v, group)
    delta = (out.float() * dout.float()).sum(-1).transpose(1, 2).unsqueeze(-1)
    dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
    begins = list(range(0, q.shape[1], ROWS))
    first = turn % len(begins)
    for begin in begins[first:] + begins[:first]:
        block = min(ROWS, q.shape[1] - begin)
        seen = begin + block if causal or left is not None else q.shape[1]
        mine, theirs = keys.narrow(2, 0, seen), values.narrow(2, 0, seen)
        queries, grads = (_per_head(x.narrow(1, begin, block)) for x in (q, dout))
        s = _scores(queries, mine, begin, scale, causal, left)
        p = torch.exp(s - lse.narrow(2, begin, block).unsqueeze(-1))
        ds = p * (grads @ theirs.mT - delta.narrow(2, begin, block))
        p, ds = _rounded(p, q.dtype), _rounded(ds, q.dtype)
        dq.narrow(1, begin, block).copy_((scale * (ds @ mine)).transpose(1, 2))
        dkeys.narrow(2, 0, seen).add_(scale * (ds.mT @ queries))
        dvalues.narrow(2, 0, seen).add_(p.mT @ grads)
    dk.copy_(_per_kv_head(dkeys, group))
    dv.copy_(_per_kv_head(dvalues, group))


def _per_head(x, group=1):
    """(b, s, h, d) as fp32 (b, h * group, s, d)."""
    return x.transpose(1, 2).float().repeat_interleave(group, dim=1)


def _per_kv_head(x, group):
    return x.unflatten(1, (-1, group)).sum(2).transpose(1, 2)


def _rounded(x, dtype):
    return x.to(dtype).float()


def _scores(queries, keys, begin, scale, causal, left):
    """Scaled scores of a block of queries from row `begin` on, minus infinity where they do not see."""
    s = scale * (queries @ keys.mT)
    rows = torch.arange(begin, begin + queries.shape[2], device=s.device).unsqueeze(1)
    columns = torch.arange(keys.shape[2], device=s.device).unsqueeze(0)
    if causal or left is not None:
        s = s.masked_fill(columns > rows, -math.inf)
    if left is not None:
        s = s.masked_fill(columns < rows - left, -math.inf)
    return s
