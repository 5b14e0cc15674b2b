"""Attention with features in plain torch: pages, used keys, splits, packed queries, sinks, caps, functions, MLA, FP8.

As FA4's kernels do, it takes one sequence and one head at a time, keys in blocks whose results are combined by their
logarithms of sums, and rounds P to the inputs' dtype. Slow and short: tests/support/feature_mutants.py breaks it.
"""

import math

import torch

BLOCK = 32  # keys


def forward(q, k, v, causal, left, num_splits=1, **asked):
    """out and lse as FA4 returns them."""
    low = torch.bfloat16 if q.dtype == torch.float8_e4m3fn else q.dtype
    heads, dim = q.shape[-2], v.shape[-1]
    out = torch.zeros(*q.shape[:-1], dim, dtype=low, device=q.device)
    lse = torch.empty(_lse_shape(q, asked), dtype=torch.float32, device=q.device)
    for number, rows, keys, values in _sequences(q, k, v, asked):
        for head in range(heads):
            s, seen = _scores(q, keys, values, number, rows, head, causal, left, asked)
            part = _value_of(values, head, heads, number, asked)
            answer, total = _combined(s, part, num_splits, low)
            sink = asked.get("learnable_sink")
            if sink is not None:
                whole = torch.logaddexp(total, sink[head].float())
                answer, total = answer * torch.exp(total - whole).unsqueeze(-1), whole
            _at(out, asked, number, rows)[:, head] = answer.to(low)
            _lse_at(lse, asked, number, rows, head).copy_(total)
    return out, lse


def backward(q, k, v, out, dout, lse, causal, left, **asked):
    """dq, dk, dv, and dsink where there is a sink."""
    asked = {**asked, "by_keys": True}
    heads, low = q.shape[-2], q.dtype
    group = heads // k.shape[-2]
    dq, dk, dv = (torch.zeros(x.shape, dtype=torch.float32, device=q.device) for x in (q, k, v))
    sink, dsink = asked.get("learnable_sink"), torch.zeros(heads, device=q.device)
    for number, rows, keys, values in _sequences(q, k, v, asked):
        for head in range(heads):
            s, seen = _scores(q, keys, values, number, rows, head, causal, left, asked)
            total = _lse_at(lse, asked, number, rows, head)
            p = torch.exp(s - total.unsqueeze(-1)).masked_fill(~seen, 0.0)
            grad = _at(dout, asked, number, rows)[:, head].float()
            delta = (grad * _at(out, asked, number, rows)[:, head].float()).sum(-1, keepdim=True)
            ds = p * (grad @ values[:, head // group].float().mT - delta)
            ds = _before_the_cap(ds, s, asked)
            ds, p = ds.to(low).float(), p.to(low).float()
            query, key = _at(q, asked, number, rows)[:, head].float(), keys[:, head // group].float()
            scale = 1 / math.sqrt(q.shape[-1])
            _at(dq, asked, number, rows)[:, head] += scale * (ds @ key)
            _keys_at(dk, asked, number, keys)[:, head // group] += scale * (ds.mT @ query)
            _keys_at(dv, asked, number, keys)[:, head // group] += p.mT @ grad
            if sink is not None:
                dsink[head] -= (torch.exp(sink[head].float() - total) * delta[:, 0]).sum()
    grads = dq.to(low), dk.to(low), dv.to(low)
    return grads if sink is None else (*grads, dsink.to(sink.dtype))


def kept_for_backward(q, k, v, causal, lse, **asked):
    """What the forward of chosen keys keeps for its backward: p (batch, queries, heads, chosen), and a maximum of none."""
    chosen = asked["gather_kv_indices"].long()
    p = torch.empty(*q.shape[:-1], chosen.shape[-1], dtype=q.dtype)
    for number, rows, keys, values in _sequences(q, k, v, asked):
        for head in range(q.shape[-2]):
            whole = _probabilities(q, keys, values, number, rows, head, causal, lse, asked)
            p[number, :, head] = whole.gather(1, chosen[number]).to(q.dtype)
    return p, torch.zeros(1)


def _probabilities(q, keys, values, number, rows, head, causal, lse, asked):
    s, _ = _scores(q, keys, values, number, rows, head, causal, None, asked)
    return torch.exp(s - _lse_at(lse, asked, number, rows, head).unsqueeze(-1))


def backward_of_chosen(q, k, v, out, dout, lse, p, causal, **asked):
    """dq, dk, dv, dqv of MLA with chosen keys: V is the part of K without positions, and has both gradients."""
    low, chosen = q.dtype, asked["gather_kv_indices"].long()
    dq, dk, dv, dqv = (torch.zeros(x.shape) for x in (q, k, v, asked["qv"]))
    scale = 1 / math.sqrt(q.shape[-1] + v.shape[-1])
    for number, rows, keys, values in _sequences(q, k, v, asked):
        for head in range(q.shape[-2]):
            if p is None:
                part = _probabilities(q, keys, values, number, rows, head, causal, lse, asked)
            else:
                part = torch.zeros(q.shape[1], len(keys))
                part.scatter_(1, chosen[number], p[number, :, head].float())
            grad, value = dout[number, :, head].float(), values[:, 0].float()
            slope = grad @ value.mT
            # Of the probabilities themselves: `out` in 16 bits is too coarse, for which FA4 keeps its lower half as well.
            delta = (part * slope).sum(-1, keepdim=True)
            ds = (part * (slope - delta)).to(low).float()
            part = part.to(low).float()
            query, beside = q[number, :, head].float(), asked["qv"][number, :, head].float()
            dq[number, :, head] = scale * (ds @ keys[:, 0].float())
            dqv[number, :, head] = scale * (ds @ value)
            dk[number, :, 0] += scale * (ds.mT @ query)
            dv[number, :, 0] += part.mT @ grad + scale * (ds.mT @ beside)
    return dq.to(low), dk, dv, dqv.to(low)


def _lse_shape(q, asked):
    if "qv" in asked:
        return q.shape[:-1]
    return (q.shape[1], q.shape[0]) if _packed(asked) else (q.shape[0], q.shape[2], q.shape[1])


def _packed(asked):
    return "cu_seqlens_q" in asked


def _sequences(q, k, v, asked):
    """(number, slice of queries, keys, values) of each sequence: pages in their order, only keys that are used."""
    begins = asked.get("cu_seqlens_q")
    count = len(begins) - 1 if begins is not None else q.shape[0]
    for number in range(count):
        rows = slice(begins[number], begins[number + 1]) if begins is not None else slice(0, q.shape[1])
        if "page_table" in asked:
            table = asked["page_table"][number].long()
            keys, values = (x[table].flatten(0, 1) for x in (k, v))
        elif "cu_seqlens_k" in asked:
            first, last = asked["cu_seqlens_k"][number], asked["cu_seqlens_k"][number + 1]
            keys, values = k[first:last], v[first:last]
        else:
            keys, values = k[number], v[number]
        if "seqused_k" in asked:
            used = int(asked["seqused_k"][number])
            keys, values = keys[:used], values[:used]
        yield number, rows, keys, values


def _at(x, asked, number, rows):
    """Queries of one sequence in a tensor like q."""
    return x[rows] if _packed(asked) else x[number]


def _lse_at(lse, asked, number, rows, head):
    if "qv" in asked:
        return lse[number, :, head]
    return lse[head, rows] if _packed(asked) else lse[number, head]


def _keys_at(x, asked, number, keys):
    """Keys of one sequence in a tensor like k, as many as `keys` has."""
    if "cu_seqlens_k" in asked:
        first = asked["cu_seqlens_k"][number]
        return x[first : first + len(keys)]
    return x[number][: len(keys)]


def _scores(q, keys, values, number, rows, head, causal, left, asked):
    """Scores of one head, minus infinity where a query does not see, and where it does."""
    group = q.shape[-2] // keys.shape[-2]
    query, dims = _at(q, asked, number, rows)[:, head].float(), q.shape[-1]
    s = query @ keys[:, head // group].float().mT
    if "qv" in asked:
        beside = asked["qv"][number, :, head].float()
        s, dims = s + beside @ values[:, head // group].float().mT, dims + values.shape[-1]
    s = _descaled(s, asked, number, head // group) / math.sqrt(dims)
    if asked.get("softcap"):
        s = asked["softcap"] * torch.tanh(s / asked["softcap"])
    s = _by_the_function(s, asked, number, head)
    seen = _seen(s, asked, number, head, causal, left)
    return s.masked_fill(~seen, -math.inf), seen


def _descaled(s, asked, number, kv_head):
    if "q_descale" not in asked:
        return s
    return s * asked["q_descale"][number, kv_head] * asked["k_descale"][number, kv_head]


def _value_of(values, head, heads, number, asked):
    kv_head = head // (heads // values.shape[-2])
    value = values[:, kv_head].float()
    return value * asked["v_descale"][number, kv_head] if "v_descale" in asked else value


def _places(s):
    """Indices of queries and keys as a mask function takes them: its [0] is all of them."""
    return torch.arange(s.shape[0])[None, :, None], torch.arange(s.shape[1])[None, None, :]


def _by_the_function(s, asked, number, head):
    if "score_mod" not in asked:
        return s
    queries, keys = _places(s)
    at = torch.tensor([number]), torch.tensor([head])
    return asked["score_mod"](s[None], *at, queries, keys, None, asked["aux_tensors"])[0]


def _seen(s, asked, number, head, causal, left):
    queries, keys = _places(s)
    rows, columns = queries[0] + s.shape[1] - s.shape[0], keys[0]
    seen = torch.ones(s.shape, dtype=torch.bool)
    if causal or left is not None:
        seen = seen & (columns <= rows)
    if left is not None:
        seen = seen & (columns >= rows - left)
    if "mask_mod" in asked:
        at = torch.tensor([number]), torch.tensor([head])
        seen = seen & asked["mask_mod"](*at, queries, keys, None, asked["aux_tensors"])[0]
    if "block_sparse_tensors" in asked:
        cut, whole = _blocks(asked["block_sparse_tensors"], number, head, "by_keys" in asked)
        seen = (seen & cut) | whole
    if "gather_kv_indices" in asked:
        chosen = asked["gather_kv_indices"][number].long()
        seen = seen & torch.zeros(s.shape, dtype=torch.bool).scatter(1, chosen, True)
    return seen


def _blocks(sparse, number, head, by_keys):
    """Where blocks lie that are cut by the mask, and that are whole: (queries, keys). A backward's lines are of keys."""
    places = []
    for count, index in (sparse[:2], sparse[2:4]):
        rows, columns = sparse.block_size
        lines = torch.zeros(index.shape[2], index.shape[3], dtype=torch.bool)
        for line, visited in enumerate(count[number, head].tolist()):
            lines[line, index[number, head, line, :visited].long()] = True
        blocks = lines.mT if by_keys else lines
        places.append(blocks.repeat_interleave(rows, 0).repeat_interleave(columns, 1))
    return places


def _combined(s, values, splits, low):
    """The answer and the logarithm of the sum, of `splits` parts of the keys that are computed alone."""
    size = max(1, -(-s.shape[1] // splits)) if splits > 1 else BLOCK
    answer, total = torch.zeros(s.shape[0], values.shape[-1]), torch.full((s.shape[0],), -math.inf)
    for begin in range(0, s.shape[1], size):
        part = s[:, begin : begin + size]
        its_total = torch.logsumexp(part, dim=-1)
        p = torch.exp(part - its_total.unsqueeze(-1)).nan_to_num(0.0)
        its_answer = p.to(low).float() @ values[begin : begin + size]
        whole = torch.logaddexp(total, its_total)
        old, new = ((each - whole).exp().nan_to_num(0.0).unsqueeze(-1) for each in (total, its_total))
        answer, total = answer * old + its_answer * new, whole
    return answer, total


def _before_the_cap(ds, s, asked):
    """The gradient of scores before the soft cap, or before a score function."""
    if asked.get("softcap"):
        capped = s.masked_fill(s == -math.inf, 0.0) / asked["softcap"]
        return ds * (1 - capped * capped)
    return asked["score_mod_bwd"](ds, *[None] * 6, asked["aux_tensors"]) if "score_mod_bwd" in asked else ds
