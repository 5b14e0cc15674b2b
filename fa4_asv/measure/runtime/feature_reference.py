"""What attention with features should give, by the formula: one matrix of scores per sequence, gradients by autograd.

    s = cap(scale * (q k^T + qv v^T)) + score;  p = softmax over the keys that are seen, and the sink;  out = p v

A query that sees nothing has the answer 0 and no gradient.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from fa4_asv.measure.runtime.inputs import Inputs

GIVEN_GRADIENTS = {"learnable_sink": "dsink", "qv": "dqv"}


def full(torch: Any, inputs: Inputs, low: bool, cast: bool = True) -> dict[str, Any]:
    """out, dq, dk, dv (and dsink, dqv), in fp32, or (`low`) with every product rounded to the inputs' dtype."""
    dtype = inputs.q.dtype
    leaves = {name: getattr(inputs, name).detach().float().requires_grad_() for name in ("q", "k", "v")}
    for name in GIVEN_GRADIENTS.keys() & inputs.feature_tensors.keys():
        leaves[name] = inputs.feature_tensors[name].detach().float().requires_grad_()
    out = torch.cat([_attend(torch, inputs, leaves, number, low) for number in range(inputs.shape.batch)])
    out = out.reshape(inputs.dout.shape)
    grads = torch.autograd.grad(out, list(leaves.values()), inputs.dout.float())
    names = ["out", *(GIVEN_GRADIENTS.get(name, f"d{name}") for name in leaves)]
    answer = zip(names, (out.detach(), *grads), strict=True)
    return {name: x.to(dtype) if cast or low else x for name, x in answer}


def sampled(torch: Any, inputs: Inputs, at: Any, low: bool) -> dict[str, Any]:
    """out and dq at the queries `at` of the last sequence, for the query heads of its last KV head: (rows, heads, dim).

    A few rows against all keys: the scores of the timed shape itself would not fit beside it.
    """
    inputs = _last(torch, inputs)
    leaves = {name: getattr(inputs, name).float() for name in ("q", "k", "v")}
    leaves |= {
        name: inputs.feature_tensors[name].float()
        for name in GIVEN_GRADIENTS.keys() & inputs.feature_tensors.keys()
    }
    leaves["q"].requires_grad_()
    rows, places = at.unique(return_inverse=True)  # of a short sequence some are sampled twice
    out = _attend(torch, inputs, leaves, 0, low, rows)
    (dq,) = torch.autograd.grad(out, [leaves["q"]], inputs.dout[0, rows].float())
    outputs = {"out": out.detach()[places], "dq": dq[0, at]}
    return {name: x.to(inputs.q.dtype) for name, x in outputs.items()}


def _last(torch: Any, inputs: Inputs) -> Inputs:
    """The last sequence with its last KV head, dense and alone."""
    shape, number = inputs.shape, inputs.shape.batch - 1
    group = shape.num_heads // shape.kv_heads
    heads = {"q": group, "dout": group, "k": 1, "v": 1}
    tensors = {
        name: _sequence(inputs, getattr(inputs, name).detach(), number)[None, :, -count:]
        for name, count in heads.items()
    }
    feature_tensors = {
        name: _feature_tensor_of_last(name, x, group) for name, x in inputs.feature_tensors.items()
    }
    last_shape = replace(shape, batch=1, num_heads=group, kv_heads=1, variant="", seq_len=max(shape.lengths))
    return Inputs(last_shape, feature_tensors=feature_tensors, **tensors)


def _feature_tensor_of_last(name: str, x: Any, group: int) -> Any:
    """A feature's tensor, of the last sequence and the heads of the last KV head."""
    if name in ("learnable_sink", "slopes"):
        return x[-group:]
    if name == "qv":
        return x[-1:, :, -group:]
    return x[-1:, -1:] if name.endswith("_descale") else x[-1:]


def _attend(
    torch: Any, inputs: Inputs, leaves: dict[str, Any], number: int, low: bool, at: Any = None
) -> Any:
    """(queries, heads, dim) of one sequence; of the queries `at`, where they are given."""
    shape, dtype = inputs.shape, inputs.q.dtype

    def rounded(x: Any) -> Any:
        return x.to(dtype).float() if low else x

    q, k, v = (_scaled(inputs, name, _sequence(inputs, leaves[name], number), number) for name in "qkv")
    group = shape.num_heads // shape.kv_heads
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    at = torch.arange(len(q), device=q.device) if at is None else at
    queries, q = len(q), q[at]
    scores = rounded(torch.einsum("qhd,khd->hqk", q, k))
    dims = shape.head_dim
    if "qv" in leaves:
        qv = _scaled(inputs, "q", _sequence(inputs, leaves["qv"], number), number)
        scores, dims = scores + rounded(torch.einsum("qhd,khd->hqk", qv[at], v)), dims + v.shape[-1]
    scores = _changed(torch, inputs, scores / math.sqrt(dims), at)
    seen = seen_by(torch, inputs, number, queries, len(k))[at].expand_as(scores)
    p = _probabilities(torch, scores, seen, leaves.get("learnable_sink"))
    if low and inputs.shape.features.topk and not inputs.shape.features.recompute:
        p = _kept(torch, scores, seen, p, rounded)
    return rounded(torch.einsum("hqk,khd->qhd", rounded(p), v))


def _kept(torch: Any, scores: Any, seen: Any, p: Any, rounded: Any) -> Any:
    """Probabilities as a forward keeps them for its backward, in 16 bits: the gradient of softmax is made of these."""
    tiny = torch.finfo(torch.float32).tiny
    change = (rounded(p).clamp_min(tiny).log() - p.clamp_min(tiny).log()).detach()
    return _probabilities(torch, scores + change, seen, None)


def _sequence(inputs: Inputs, x: Any, number: int) -> Any:
    """One sequence of queries or keys: packed ones lie in one batch."""
    if x.shape[0] == inputs.shape.batch and not (inputs.shape.packed and x.shape[0] == 1):
        return x[number]
    begin = sum(inputs.shape.lengths[:number])
    return x[0, begin : begin + inputs.shape.lengths[number]]


def _scaled(inputs: Inputs, name: str, x: Any, number: int) -> Any:
    """FP8's values times their factor, one per KV head."""
    factor = inputs.feature_tensors.get(f"{name}_descale")
    if factor is None:
        return x
    return x * factor[number].repeat_interleave(x.shape[1] // factor.shape[1])[None, :, None]


def _changed(torch: Any, inputs: Inputs, scores: Any, at: Any) -> Any:
    """Scores (heads, queries, keys) of the queries `at` with a soft cap, or ALiBi's slope times the distance."""
    features = inputs.shape.features
    if features.softcap:
        scores = features.softcap * torch.tanh(scores / features.softcap)
    if features.score == "alibi":
        columns = torch.arange(scores.shape[-1], device=scores.device)
        distance = columns[None, :] - at[:, None]
        scores = scores + inputs.feature_tensors["slopes"][:, None, None] * distance
    return scores


def seen_by(torch: Any, inputs: Inputs, number: int, queries: int, keys: int) -> Any:
    """Which keys each query of a sequence sees: (queries, keys). A causal mask ends at the last key that counts."""
    shape, features, tensors = inputs.shape, inputs.shape.features, inputs.feature_tensors
    used = int(tensors["seqused_k"][number]) if features.used else keys
    device = inputs.q.device
    rows, columns = torch.arange(queries, device=device)[:, None], torch.arange(keys, device=device)[None, :]
    seen = (columns < used).expand(queries, keys)
    if shape.causal or shape.window is not None:
        seen = seen & (columns <= rows + used - queries)
    if shape.window is not None:
        seen = seen & (columns >= rows + used - queries - shape.window)
    if features.mask == "document":
        ids = tensors["ids"][number]
        seen = seen & (ids[rows] == ids[columns]) & (columns <= rows)
    if features.topk:
        chosen = torch.zeros(queries, keys, dtype=torch.bool, device=device)
        seen = seen & chosen.scatter(1, tensors["gather_kv_indices"][number].long(), True)
    return seen


def _probabilities(torch: Any, scores: Any, seen: Any, sink: Any) -> Any:
    """Softmax over the keys that are seen; a sink takes its share and has no value."""
    scores = scores.masked_fill(~seen, -math.inf)
    if sink is not None:
        beside = sink[:, None, None].expand(*scores.shape[:2], 1)
        return torch.softmax(torch.cat([scores, beside], dim=-1), dim=-1)[..., :-1]
    nothing = ~seen.any(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(nothing, 0.0), dim=-1).masked_fill(nothing, 0.0)
