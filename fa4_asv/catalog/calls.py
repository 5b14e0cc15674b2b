"""The calls that people make beyond dense self-attention, in groups: serving, flex, mla, dims.

Sizes are those of public models and servers; kernels do not depend on them beyond what is said. Each function gives
calls with the roles of the further kernels of a call that are watched.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fa4_asv.catalog.features import Features
from fa4_asv.catalog.shapes import SdpaShape, shape

Roles = tuple[str, ...]
LLAMA = {"mha": 32, "gqa4": 8}  # KV heads of 32 query heads
CACHE = 8192  # keys of a sequence that is decoded


@dataclass(frozen=True)
class Call:
    """One forward or backward of FA4. Of the core: batch 2, 1024 tokens, 16 query heads, bf16.

    FA4's kernels do not depend on batch, heads or length beyond what a name says.
    """

    name: str
    backward: bool
    shape: SdpaShape
    return_lse: bool = True


def serving() -> dict[Call, Roles]:
    """What vLLM and SGLang ask for: packed queries over a paged cache of which each sequence says how much it uses.

    decode: one query per sequence; draft: four (speculative decoding); prefill: 2k queries that are all of the
    sequence; chunk: 2k queries behind 30k keys. Llama 3's heads (32 over 8, or 32) at d 128; Gemma's (16 over 8) at 256.
    """
    calls: dict[Call, Roles] = {}
    for queries, keys, stem in ((1, CACHE, "decode"), (2048, 2048, "prefill")):
        for heads, kv in LLAMA.items():
            for mask in ("full", "causal"):
                calls[_paged(f"{stem}_d128_{heads}_{mask}_page128", queries, keys, kv, 128, mask)] = ()
    for page in (1, 16):
        calls[_paged(f"decode_d128_gqa4_causal_page{page}", 1, CACHE, 8, page)] = ()
    calls[_paged("draft_d128_gqa4_causal_page16", 4, CACHE, 8, 16)] = ()
    calls[_paged("chunk_d128_gqa4_causal_page16", 2048, 32768, 8, 16)] = ()
    calls[_paged("decode_d256_gqa2_causal_page16", 1, CACHE, 8, 16, heads=16, dim=256)] = ()
    calls[_paged("prefill_d256_gqa2_causal_page128", 2048, 2048, 8, 128, heads=16, dim=256)] = ()
    calls[_paged("decode_d128_gqa4_causal_page128_split4", 1, CACHE, 8, 128, splits=4)] = ("combine",)
    dense = partial(shape, 32, 32, 1, 128, 8, causal=True)
    used = Features(keys=CACHE, used=True)
    calls[_forward("decode_d128_gqa4_causal_used", dense(features=used))] = ()
    split = Features(keys=CACHE, splits=4)
    calls[_forward("decode_d128_gqa4_causal_split4", dense(features=split))] = ("combine",)
    return calls


def _paged(
    name: str,
    queries: int,
    keys: int,
    kv_heads: int,
    page: int,
    mask: str = "causal",
    heads: int = 32,
    dim: int = 128,
    splits: int = 1,
) -> Call:
    batch = 32 if queries < 64 else 4
    features = Features(keys=keys, page=page, splits=splits, used=True)
    packed = partial(shape, variant="varlen", features=features)
    return _forward(name, packed(batch, heads, queries, dim, kv_heads, causal=mask == "causal"))


def _forward(name: str, each: SdpaShape) -> Call:
    """As servers call it: without the LSE."""
    return Call(name, False, each, return_lse=False)


def flex() -> dict[Call, Roles]:
    """Masks and scores: gpt-oss's sink and window, Gemma's soft cap and window, ALiBi, documents, blocks."""
    small = partial(shape, 2, 16, 1024)
    oss = partial(shape, 2, 64, 1024, 64, kv_heads=8)
    sink, cap = Features(sink=True), Features(softcap=50.0)
    blocks = Features(mask="document", blocks=True)
    both = {
        "d64_gqa8_window_sink": oss(window=128, features=sink),
        "d128_causal_sink": small(128, causal=True, features=sink),
        "d128_causal_cap": small(128, causal=True, features=cap),
        "d256_window_cap": small(256, kv_heads=8, window=1024, features=cap),
        "d128_causal_alibi": small(128, causal=True, features=Features(score="alibi")),
        "d128_document": small(128, features=Features(mask="document")),
        "d128_document_blocks": small(128, features=blocks),
    }
    # The sink's own gradient is computed by the kernel behind the backward.
    return {
        Call(f"{direction}_{name}", direction == "bwd", each): (
            ("post_dq",) if each.features.sink and direction == "bwd" else ()
        )
        for name, each in both.items()
        for direction in ("fwd", "bwd")
    }


def mla() -> dict[Call, Roles]:
    """DeepSeek's multi-head latent attention in absorbed form: 64 dimensions with positions, 512 without, one KV head.

    prefill: all 128 heads; decode: 16, those of one GPU of eight, which is another kernel.
    """
    latent = partial(Features, latent=512)
    decode = partial(shape, 128, 16, 1, 64, 1, 512, causal=True)
    prefill = partial(shape, 1, 128, 2048, 64, 1, 512, causal=True)
    chosen = partial(latent, keys=8192, topk=2048)
    forward = {
        "mla_prefill": prefill(features=latent()),
        "mla_prefill_page128": prefill(features=latent(keys=2048, page=128, used=True)),
        "mla_prefill_top2048": prefill(features=chosen()),
        "mla_decode": decode(features=latent(keys=CACHE)),
        "mla_decode_page64": decode(features=latent(keys=CACHE, page=64, used=True)),
        "mla_decode_top2048": decode(features=chosen()),
        "mla_decode_fp8": decode(dtype="fp8", features=latent(keys=CACHE, descale=True)),
        "mla_decode_split4": decode(features=latent(keys=CACHE, splits=4)),
    }
    calls: dict[Call, Roles] = {_forward(name, each): () for name, each in forward.items()}
    calls[Call("mla_bwd_top2048", True, prefill(features=chosen()))] = ("pre", "dq", "dk")
    calls[Call("mla_bwd_top2048_recompute", True, prefill(features=chosen(recompute=True)))] = ()
    return calls


def dims() -> dict[Call, Roles]:
    """Head dims of vision models (72, 80), of small heads (16), 192 for Q, K and V; fp16 and FP8; further variants."""
    small = partial(shape, 2, 16, 1024)
    both = {f"d{dim}_full": small(dim) for dim in (16, 72)}
    both |= {f"d{dim}_full_varlen": small(dim, variant="varlen") for dim in (72, 80)}
    both |= {
        "d192_causal": small(192, causal=True),
        "d128_causal_fp16": small(128, causal=True, dtype="fp16"),
        "d64_causal_varlen": small(64, causal=True, variant="varlen"),
        "d256_causal_varlen": small(256, causal=True, variant="varlen"),
    }
    calls: dict[Call, Roles] = {
        Call(f"{direction}_{name}", direction == "bwd", each): ()
        for name, each in both.items()
        for direction in ("fwd", "bwd")
    }
    for dim in (64, 256):
        like = small(dim, causal=True, variant="deterministic")
        calls[Call(f"bwd_d{dim}_causal_deterministic", True, like)] = ()
    for mask in ("full", "causal"):
        like = small(128, causal=mask == "causal", dtype="fp8", features=Features(descale=True))
        calls[Call(f"fwd_d128_{mask}_fp8", False, like)] = ()
    return calls
