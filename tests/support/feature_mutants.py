"""What is broken in the stand-in's features, by one edit each, and the call whose guard catches it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.mutants import Mutant

FEATURES = Path("flash_attn") / "cute" / "features.py"


@dataclass(frozen=True)
class Caught:
    """A mutant; part of the name of the shape that it is wrong at; the tensor, or the words, that the guard names."""

    mutant: Mutant
    shape: str
    named: str
    backward: bool = False
    kind: str = "gaussian"


def _caught(defect: str, old: str, new: str, shape: str, named: str, **more: object) -> Caught:
    return Caught(Mutant(defect, ((old, new),), FEATURES), shape, named, **more)  # type: ignore[arg-type]


_LATER = {"backward": True}
_TOTAL = "total = _lse_at(lse, asked, number, rows, head)"
FEATURE_MUTANTS = {
    "sink_left_out": _caught(
        "the sink is left out of the forward",
        "            if sink is not None:\n                whole",
        "            if False:\n                whole",
        "_sink",
        "out",
    ),
    "sink_left_out_of_the_backward": _caught(
        "the backward takes probabilities without the sink",
        _TOTAL,
        f"{_TOTAL} if sink is None else torch.logsumexp(s, dim=-1)",
        "causal_sink",
        "dq",
        **_LATER,
    ),
    "sink_of_another_head": _caught(
        "each head has the sink of the next", "sink[head].float())", "sink[head - 1].float())", "_sink", "out"
    ),
    "gradient_of_the_sink": _caught(
        "the sink's gradient has the wrong sign",
        "dsink[head] -= (torch",
        "dsink[head] += (torch",
        "causal_sink",
        "dsink",
        **_LATER,
    ),
    "cap_before_the_scale": _caught(
        "the soft cap is applied before the scale",
        's = _descaled(s, asked, number, head // group) / math.sqrt(dims)\n    if asked.get("softcap"):\n'
        '        s = asked["softcap"] * torch.tanh(s / asked["softcap"])\n',
        's = _descaled(s, asked, number, head // group)\n    if asked.get("softcap"):\n'
        '        s = asked["softcap"] * torch.tanh(s / asked["softcap"])\n    s = s / math.sqrt(dims)\n',
        "cap5",
        "out",
    ),
    "cap_left_out_of_the_backward": _caught(
        "the backward forgets the soft cap's slope",
        "return ds * (1 - capped * capped)",
        "return ds",
        "cap5",
        "dq",
        **_LATER,
    ),
    "second_batch_at_256": _caught(
        "at head dim 256 the second sequence has no gradient of K",
        "_keys_at(dk, asked, number, keys)[:, head // group] += scale",
        "_keys_at(dk, asked, number, keys)[:, head // group] += (number == 0 or q.shape[-1] < 256) * scale",
        "d256",
        "dk",
        **_LATER,
    ),
    "window_one_less": _caught(
        "a window is a key too short",
        "(columns >= rows - left)",
        "(columns > rows - left)",
        "w32_sink",
        "out",
    ),
    "score_with_places_swapped": _caught(
        "a score function is told the key as the query",
        'asked["score_mod"](s[None], *at, queries, keys,',
        'asked["score_mod"](s[None], *at, keys, queries,',
        "alibi",
        "out",
    ),
    "document_of_the_first_batch": _caught(
        "a mask function is told batch 0 in every sequence",
        'at = torch.tensor([number]), torch.tensor([head])\n        seen = seen & asked["mask_mod"]',
        'at = torch.tensor([0]), torch.tensor([head])\n        seen = seen & asked["mask_mod"]',
        "document",
        "out",
    ),
    "page_table_one_off": _caught(
        "the page table is read one off",
        'table = asked["page_table"][number].long()',
        'table = asked["page_table"][number].long().roll(1)',
        "page16_used",
        "out",
    ),
    "pages_in_a_row": _caught(
        "pages are read in the order that they lie in",
        "keys, values = (x[table].flatten(0, 1) for x in (k, v))",
        "keys, values = (x[number * len(table) :][: len(table)].flatten(0, 1) for x in (k, v))",
        "page8_used",
        "out",
    ),
    "beyond_the_used_keys": _caught(
        "keys beyond seqused_k are read",
        "keys, values = keys[:used], values[:used]",
        "keys, values = keys[: used + 1], values[: used + 1]",
        "k100_used",
        "out",
    ),
    "split_lost": _caught(
        "the last part of the keys is not combined",
        "    for begin in range(0, s.shape[1], size):",
        "    for begin in range(0, s.shape[1] - (size if splits > 1 else 0), size):",
        "split4",
        "out",
    ),
    "splits_of_equal_weight": _caught(
        "parts are combined without their sums",
        "answer, total = answer * old + its_answer * new, whole",
        "answer, total = (answer + its_answer / splits if splits > 1 else answer * old + its_answer * new), whole",
        "split4",
        "out",
    ),
    "packed_one_off": _caught(
        "a packed sequence begins a key too late",
        'first, last = asked["cu_seqlens_k"][number], asked["cu_seqlens_k"][number + 1]',
        'first, last = asked["cu_seqlens_k"][number] + (number > 0), asked["cu_seqlens_k"][number + 1]',
        "d72_causal_varlen",
        "out",
    ),
    "columns_beyond_64": _caught(
        "of head dim 72 the last 8 columns are left out",
        "s = query @ keys[:, head // group].float().mT",
        "s = query[:, :64] @ keys[:, head // group, :64].float().mT",
        "d72_causal_varlen",
        "out",
    ),
    "causal_from_the_first_key": _caught(
        "a causal mask begins at the first key where there are more keys than queries",
        "rows, columns = queries[0] + s.shape[1] - s.shape[0], keys[0]",
        "rows, columns = queries[0], keys[0]",
        "k96_page8",
        "out",
    ),
    "rows_without_a_key": _caught(
        "a query that sees no key is divided by nothing",
        "p = torch.exp(part - its_total.unsqueeze(-1)).nan_to_num(0.0)",
        "p = torch.exp(part - its_total.unsqueeze(-1))",
        "s64_h2_d64_causal_k40",
        "not finite",
    ),
    "gradient_without_a_key": _caught(
        "a query that sees no key has a gradient",
        "p = torch.exp(s - total.unsqueeze(-1)).masked_fill(~seen, 0.0)",
        "p = torch.exp(s - total.unsqueeze(-1))",
        "s64_h2_d64_causal_k40",
        "not finite",
        **_LATER,
    ),
    "values_of_the_head_dim": _caught(
        "the scale is that of V's head dim where it is another",
        "scale = 1 / math.sqrt(q.shape[-1])",
        "scale = 1 / math.sqrt(values.shape[-1])",
        "d64v32",
        "dq",
        backward=True,
        kind="one-tensor",
    ),
    "latent_left_out": _caught(
        "MLA's scores lack the part without positions",
        "s, dims = s + beside @ values[:, head // group].float().mT, dims + values.shape[-1]",
        "dims = dims + values.shape[-1]",
        "latent64",
        "out",
    ),
    "scale_without_the_latent": _caught(
        "MLA's scale is that of the part with positions",
        "float().mT, dims + values.shape[-1]",
        "float().mT, dims",
        "latent64",
        "out",
    ),
    "last_of_the_chosen": _caught(
        "of the chosen keys the last is left out",
        'chosen = asked["gather_kv_indices"][number].long()',
        'chosen = asked["gather_kv_indices"][number, :, :-1].long()',
        "top32",
        "out",
    ),
    "beyond_the_first_1024_chosen": _caught(
        "of 2048 chosen keys only the first 1024 are read",
        'chosen = asked["gather_kv_indices"][number].long()',
        'chosen = asked["gather_kv_indices"][number, :, :1024].long()',
        "top2048",
        "out",
    ),
    "chosen_keys_in_a_row": _caught(
        "the backward of chosen keys takes what was kept for the first keys",
        "part.scatter_(1, chosen[number], p[number, :, head].float())",
        "part[:, : p.shape[-1]] = p[number, :, head].float()",
        "top32",
        "dq",
        **_LATER,
    ),
    "values_without_their_part_in_the_scores": _caught(
        "MLA's gradient of V lacks its part in the scores",
        "dv[number, :, 0] += part.mT @ grad + scale * (ds.mT @ beside)",
        "dv[number, :, 0] += part.mT @ grad",
        "top2048",
        "dv",
        **_LATER,
    ),
    "recomputed_without_the_choice": _caught(
        "probabilities that the backward computes again are those of all keys",
        "part = _probabilities(q, keys, values, number, rows, head, causal, lse, asked)",
        "part = _probabilities(q, keys, values, number, rows, head, causal, lse, {'qv': asked['qv']})",
        "recompute",
        "dq",
        **_LATER,
    ),
    "last_of_the_blocks": _caught(
        "of the blocks that a mask cuts the last is left out",
        "lines[line, index[number, head, line, :visited].long()] = True",
        "lines[line, index[number, head, line, : visited - (visited > 1)].long()] = True",
        "document_blocks",
        "out",
    ),
    "whole_blocks_left_out": _caught(
        "blocks that a mask leaves whole are not visited",
        "seen = (seen & cut) | whole",
        "seen = seen & cut",
        "document_blocks",
        "out",
    ),
    "blocks_of_the_forward_in_the_backward": _caught(
        "the backward reads the lists of its keys as lists of queries",
        "blocks = lines.mT if by_keys else lines",
        "blocks = lines",
        "document_blocks",
        "dq",
        **_LATER,
    ),
    "factor_of_the_values": _caught(
        "FP8's factor of V is left out",
        'return value * asked["v_descale"][number, kv_head] if "v_descale" in asked else value',
        "return value",
        "descale",
        "out",
    ),
    "strides_of_one_tensor": _caught(
        "views of one tensor are read as if they were tensors of their own",
        "    for number in range(count):\n",
        "    k, v = (x.as_strided(x.shape, torch.empty(x.shape).stride()) for x in (k, v))\n"
        "    for number in range(count):\n",
        "causal_sink",
        "out",
        kind="one-tensor",
    ),
}
