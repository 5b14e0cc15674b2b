"""Attention shapes at the sizes people run, by stable names, and the sets of them that are watched.

Sizes: those of flash-attention's own benchmark (32k tokens in all) and public model configurations; the name of a
shape holds its dimensions, never a model's name, and is part of asv's series.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fa4_asv.catalog.features import Features

# What a call may ask for beyond its dimensions, and whether there is a backward of it.
VARIANTS = {
    "varlen": True,  # `batch` sequences of `seq_len` tokens each, packed
    "tailed": True,  # the same tokens in sequences of long-tailed lengths, packed
    "deterministic": True,  # the backward is asked for the same bits each time
    "paged": False,  # K and V lie in shuffled pages of PAGE tokens
    "split": False,  # the keys are cut into SPLITS parts, whose results are combined
}
PAGE, SPLITS = 128, 4
_TORCH_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp8": "bfloat16"}
TOKENS = 32768  # of FA4's standard set: batch = TOKENS / seq_len


@dataclass(frozen=True)
class SdpaShape:
    """Attention of `batch` sequences of `seq_len` queries; Q has `num_heads`, K and V `kv_heads`.

    There are as many keys as queries unless `features` say otherwise.

    `head_dim` is that of Q and K, `head_dim_v` that of V and the output. `window` is how many tokens to
    the left a query sees beside its own (None: all); with a window nothing to the right is seen. `dtype` is bf16,
    fp16, fp32, or fp8: Q, K and V in e4m3, the output in bf16, no backward.
    """

    batch: int
    num_heads: int
    seq_len: int
    head_dim: int
    kv_heads: int
    head_dim_v: int
    causal: bool = False
    window: int | None = None
    dtype: str = "bf16"
    variant: str = ""
    features: Features = field(default_factory=Features)

    @property
    def name(self) -> str:
        """Such as "b4_s8192_h16_d128_causal", "b1_s2048_h32kv8_d128_full", "..._d192v128_w128_sink"."""
        kv = "" if self.kv_heads == self.num_heads else f"kv{self.kv_heads}"
        v = "" if self.head_dim_v == self.head_dim else f"v{self.head_dim_v}"
        mask = f"w{self.window}" if self.window is not None else "causal" if self.causal else "full"
        more = "" if self.dtype == "bf16" else f"_{self.dtype}"
        more += f"_{self.variant}" if self.variant else ""
        more += "".join(f"_{word}" for word in self.features.names)
        return f"b{self.batch}_s{self.seq_len}_h{self.num_heads}{kv}_d{self.head_dim}{v}_{mask}{more}"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SdpaShape:
        """Of what `dataclasses.asdict` made."""
        return cls(**{**data, "features": Features(**data["features"])})

    @property
    def torch_dtype(self) -> str:
        """torch's name of the tensors' dtype; of fp8 they are drawn in bf16."""
        return _TORCH_DTYPES[self.dtype]

    @property
    def tokens(self) -> int:
        return self.batch * self.seq_len

    @property
    def keys(self) -> int:
        """Keys of each sequence."""
        return self.features.keys or self.seq_len

    @property
    def used_keys(self) -> tuple[int, ...]:
        """Keys of each sequence that count: where they are told, no sequence uses all, and each another number."""
        if self.features.used:
            return tuple(self.keys - 1 - 17 * number for number in range(self.batch))
        return tuple(self.features.keys or length for length in self.lengths)

    @property
    def has_backward(self) -> bool:
        return self.dtype != "fp8" and VARIANTS.get(self.variant, True) and self.features.has_backward

    @property
    def packed(self) -> bool:
        """Whether the sequences lie one after another without a batch axis."""
        return self.variant in ("varlen", "tailed")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence, the longest last. "tailed": the k-th longest has 1/k of the longest's."""
        if self.variant != "tailed":
            return (self.seq_len,) * self.batch
        weights = [1 / rank for rank in range(self.batch, 0, -1)]
        values = [max(1, int(self.tokens * weight / sum(weights))) for weight in weights]
        return (*values[:-1], self.tokens - sum(values[:-1]))

    @property
    def pairs(self) -> int:
        """How many (query, key) pairs one head computes in all sequences: the mask's entries, exactly."""
        return sum(map(self._pairs_of, self.lengths, self.used_keys))

    def _pairs_of(self, length: int, keys: int) -> int:
        before = keys - length  # a causal mask ends at the last key
        if self.features.topk:
            return length * min(self.features.topk, keys)
        if not self.causal and self.window is None:
            return length * keys
        most = keys if self.window is None else self.window + 1
        return _seen(keys, most) - _seen(
            before, most
        )  # with fewer keys than queries, the first queries see none

    def operand_bytes(self, backward: bool) -> int:
        """Bytes of q, k, v, the output and its LSE (fp32); in a backward of the gradients of the first four, too.

        Raises ValueError for a shape with features, a variant or eight bits: other tensors belong to their calls.
        """
        if self.features.names or self.variant or self.dtype == "fp8":
            raise ValueError(f"the operands of {self.name} are not q, k, v and the output alone")
        a_query = self.num_heads * (self.head_dim + self.head_dim_v)
        a_key = self.kv_heads * (self.head_dim + self.head_dim_v)
        elements = self.tokens * a_query + self.batch * self.keys * a_key
        width = 4 if self.dtype == "fp32" else 2
        return elements * width * (2 if backward else 1) + 4 * self.tokens * self.num_heads

    def flops(self, backward: bool) -> int:
        """Floating point operations of two matrix products a pair, two each; a backward counts 2.5 forwards.

        The diagonal counts whole, as in cuDNN's rule; FA's scripts take half the square for causal, which
        is less by 1 / seq_len.
        """
        forward = 2 * self.num_heads * self.pairs * (self.head_dim + self.head_dim_v)
        return forward * 5 // 2 if backward else forward


def _seen(queries: int, most: int) -> int:
    """How many keys the first `queries` queries see together, of which the n-th sees n, but at most `most`."""
    growing = max(0, min(queries, most))
    return growing * (growing + 1) // 2 + max(0, queries - growing) * most


# How the run-time history sorts its shapes, in the order of its tables.
CLASSES = ("d64", "d128", "192/128", "d256", "GQA", "window", "packed")


def class_of(shape: SdpaShape) -> str:
    """One of CLASSES, or "d96" and the like for another head dim."""
    if shape.packed:
        return "packed"
    if shape.window is not None:
        return "window"
    if shape.kv_heads != shape.num_heads:
        return "GQA"
    same = shape.head_dim == shape.head_dim_v
    return f"d{shape.head_dim}" if same else f"{shape.head_dim}/{shape.head_dim_v}"


def shape(
    batch: int,
    num_heads: int,
    seq_len: int,
    head_dim: int,
    kv_heads: int | None = None,
    head_dim_v: int | None = None,
    causal: bool = False,
    window: int | None = None,
    dtype: str = "bf16",
    variant: str = "",
    features: Features | None = None,
) -> SdpaShape:
    """A SdpaShape whose K and V are like Q unless said otherwise."""
    return SdpaShape(
        batch,
        num_heads,
        seq_len,
        head_dim,
        num_heads if kv_heads is None else kv_heads,
        head_dim if head_dim_v is None else head_dim_v,
        causal,
        window,
        dtype,
        variant,
        features or Features(),
    )


def standard(head_dim: int, head_dim_v: int | None = None, causal: bool = False) -> list[SdpaShape]:
    """FA4's standard set (its benchmark_attn.py): 32k tokens in all, lengths 1k to 32k.

    Heads: 32 up to head_dim 64, 16 up to 192, 8 above.
    """
    heads = 32 if head_dim <= 64 else 16 if head_dim <= 192 else 8
    lengths = (1024, 2048, 4096, 8192, 16384, 32768)
    return [
        shape(TOKENS // length, heads, length, head_dim, head_dim_v=head_dim_v, causal=causal)
        for length in lengths
    ]


def models(lengths: tuple[int, ...] = (2048, 8192, 32768)) -> list[SdpaShape]:
    """Batch 1, as public models have it: Llama 3 (32 heads over 8 and 4, d 128), DeepSeek-V3 (128 heads,
    192/128), gpt-oss (64 heads over 8, d 64, window 128); causal."""
    shapes = []
    for length in lengths:
        shapes += [
            shape(1, 32, length, 128, kv_heads=8, causal=True),
            shape(1, 32, length, 128, kv_heads=4, causal=True),
            shape(1, 128, length, 192, head_dim_v=128, causal=True),
            shape(1, 64, length, 64, kv_heads=8, window=128),
        ]
    return shapes


def core() -> list[SdpaShape]:
    """What every commit is timed at, 30 shapes: the standard set at d 64 and 128, full and causal, Llama's GQA,
    192/128, and one fp16."""
    shapes = []
    for causal in (False, True):
        shapes += [*standard(64, causal=causal), *standard(128, causal=causal)]
        shapes.append(shape(4, 16, 8192, 192, head_dim_v=128, causal=causal))
    shapes += [shape(1, 32, length, 128, kv_heads=8, causal=True) for length in (2048, 8192, 32768)]
    shapes.append(shape(4, 16, 8192, 128, causal=True, dtype="fp16"))
    return shapes


def variants() -> list[SdpaShape]:
    """What an architecture may have beside dense attention, each at one or two sizes of 32k tokens.

    Packed sequences over 16, 4 and 1 KV heads; PyTorch's sizes (16 heads, d 128, 8 x 1024) deterministic; pages,
    splits and FP8 where serving uses them: a batch of long contexts.
    """
    shapes = []
    for variant in ("varlen", "tailed"):
        shapes += [shape(16, 16, 2048, 128, kv, causal=True, variant=variant) for kv in (16, 4, 1)]
        shapes.append(shape(16, 16, 2048, 128, variant=variant))
    for length in (1024, 8192):
        for causal in (False, True):
            batch = TOKENS // length
            shapes.append(shape(batch, 16, length, 128, causal=causal, variant="deterministic"))
    for variant in ("paged", "split"):
        shapes.append(shape(8, 32, 4096, 128, 8, causal=True, variant=variant))
    shapes += [shape(4, 16, 8192, 128, causal=causal, dtype="fp8") for causal in (False, True)]
    return shapes


def pytorch() -> list[SdpaShape]:
    """The sizes of PyTorch's benchmarks/transformer/sdpa.py: 16 heads, d 128, batch 1, 8 and 16."""
    return [
        shape(batch, 16, length, 128, causal=causal)
        for batch in (1, 8, 16)
        for length in (512, 1024, 8192)
        for causal in (False, True)
    ]


def paper() -> list[SdpaShape]:
    """FlashAttention-3's paper: 16k tokens, heads times head_dim 2048, head_dim 64, 128 and 256."""
    return [
        shape(16384 // length, 2048 // dim, length, dim, causal=causal)
        for dim in (64, 128, 256)
        for length in (512, 2048, 16384)
        for causal in (False, True)
    ]


def further() -> list[SdpaShape]:
    """What the core set leaves out: the standard set at 96, 192/128 and 256, the models, the paper of
    FlashAttention-3, PyTorch's sizes, and the variants."""
    shapes = []
    for causal in (False, True):
        for dim, dim_v in ((96, 96), (192, 128), (256, 256)):
            shapes += standard(dim, dim_v, causal)
    known = {shape.name for shape in core()}
    every = [*shapes, *models(), *paper(), *pytorch(), *variants()]
    return list({shape.name: shape for shape in every if shape.name not in known}.values())


def history() -> list[SdpaShape]:
    """What the run-time history of every release is made of, 13 shapes of few ways through the kernels: dense d 64, 128,
    192/128 and 256, short and long, GQA, two sliding windows (gpt-oss's, and one at d 128), packed sequences."""
    shapes = [shape(4, 16, 8192, 128, causal=causal) for causal in (True, False)]
    shapes.append(shape(32, 16, 1024, 128, causal=True))
    shapes += [shape(4, 32, 8192, 64, causal=causal) for causal in (True, False)]
    shapes.append(shape(1, 32, 8192, 128, kv_heads=8, causal=True))
    shapes.append(shape(4, 16, 8192, 192, head_dim_v=128, causal=True))
    shapes += [shape(4, 8, 8192, 256, causal=causal) for causal in (True, False)]
    shapes.append(shape(1, 64, 8192, 64, kv_heads=8, window=128))
    shapes.append(shape(4, 16, 8192, 128, window=128))
    shapes += [shape(16, 16, 2048, 128, causal=causal, variant="varlen") for causal in (True, False)]
    return shapes


def history_more() -> list[SdpaShape]:
    """The rest of the core set."""
    known = {shape.name for shape in history()}
    return [shape for shape in core() if shape.name not in known]


def for_cpu() -> list[SdpaShape]:
    """Small enough for a CPU: what PyTorch's own backends and stand-ins of FA4 are timed at."""
    return [
        shape(2, 4, 256, 64),
        shape(2, 4, 256, 64, causal=True),
        shape(1, 2, 256, 128, causal=True),
        shape(1, 4, 256, 128, kv_heads=2, causal=True, dtype="fp16"),
        # Beyond 4096 keys, where an index that is too small shows.
        shape(1, 1, 4352, 64, causal=True),
    ]


def for_accuracy() -> list[SdpaShape]:
    """Where errors are tracked: PyTorch's FA4 test at its larger size, and each further way through a kernel."""
    shapes = []
    for causal in (False, True):
        shapes += [shape(2, 8, 1024, dim, causal=causal) for dim in (64, 96, 128)]
        shapes.append(shape(2, 8, 1024, 192, head_dim_v=128, causal=causal))
        shapes.append(shape(2, 8, 1024, 128, 2, causal=causal))
        shapes.append(shape(2, 8, 1024, 128, causal=causal, dtype="fp16"))
    shapes.append(shape(2, 8, 1024, 64, window=128))
    return shapes


def pytorch_test() -> list[SdpaShape]:
    """Every size of PyTorch's test/nn/attention/test_fa4.py."""
    return [
        shape(batch, heads, length, dim, causal=causal, dtype=dtype)
        for batch in (1, 2)
        for heads in (4, 8)
        for length in (512, 1024)
        for dim in (64, 128)
        for dtype in ("bf16", "fp16")
        for causal in (False, True)
    ]


def for_features() -> list[SdpaShape]:
    """What the guard's references are held to on a CPU: each feature alone and as people combine it, and head dims and
    layouts that kernels have been wrong at.

    Sinks and windows (gpt-oss), a soft cap at head dim 256 with a batch of two, ALiBi, documents, pages, used keys, splits,
    MLA dense, paged and of chosen keys, blocks of a mask, FP8 with factors; head dim 72, Dv other than D, rows that see no key.
    """
    decode, chunk = Features(keys=96, page=16, used=True), Features(keys=96, page=8, used=True)
    latent = Features(keys=96, latent=64)
    return [
        shape(2, 4, 96, 64, 2, causal=True, features=Features(sink=True)),
        shape(2, 8, 100, 64, 1, window=32, features=Features(sink=True)),
        shape(2, 2, 96, 256, 1, window=40, features=Features(softcap=5.0)),
        shape(2, 4, 100, 64, causal=True, features=Features(score="alibi")),
        shape(2, 2, 100, 64, features=Features(mask="document")),
        shape(3, 4, 1, 64, 2, causal=True, variant="varlen", features=decode),
        shape(2, 4, 24, 64, 2, causal=True, variant="varlen", features=chunk),
        shape(3, 4, 1, 64, 2, causal=True, features=Features(keys=100, used=True)),
        shape(2, 4, 1, 64, 2, causal=True, features=Features(keys=100, splits=4)),
        shape(3, 2, 50, 72, causal=True, variant="varlen"),
        shape(2, 4, 96, 64, 2, head_dim_v=32, causal=True),
        shape(2, 2, 64, 64, causal=True, features=Features(keys=40)),
        shape(2, 8, 4, 16, 1, 64, causal=True, features=latent),
        shape(2, 8, 4, 16, 1, 64, causal=True, features=Features(keys=96, page=16, used=True, latent=64)),
        shape(2, 8, 4, 16, 1, 64, features=Features(keys=96, latent=64, topk=32)),
        shape(1, 8, 2, 16, 1, 64, causal=True, features=Features(keys=2304, latent=64, topk=2048)),
        shape(2, 8, 4, 16, 1, 64, features=Features(keys=96, latent=64, topk=32, recompute=True)),
        shape(2, 2, 512, 32, features=Features(mask="document", blocks=True)),
        shape(2, 2, 64, 64, causal=True, dtype="fp8", features=Features(descale=True)),
    ]


def serving_on_card() -> list[SdpaShape]:
    """What servers ask of a card, forward only: decode over 8k and 64k keys, speculative decode, chunks of a prefill.

    Llama 3's heads (32 over 8, or 32) at d 128 over pages of 16 and 128 keys, and without pages, where PyTorch has a yardstick;
    Gemma's (16 over 8) at d 256; gpt-oss's sink and window. Each sequence uses another number of its keys.
    """

    def cached(batch: int, queries: int, keys: int, kv: int, page: int, **more: Any) -> SdpaShape:
        features = Features(keys=keys, page=page, used=True, sink=more.pop("sink", False))
        heads, dim = more.pop("heads", 32), more.pop("dim", 128)
        options = {"causal": True, **more}
        return shape(batch, heads, queries, dim, kv, variant="varlen", features=features, **options)

    shapes = [shape(batch, 32, 1, 128, 8, features=Features(keys=keys)) for batch, keys in _DECODE]
    shapes += [
        cached(batch, 1, keys, kv, page) for batch, keys in _DECODE for kv, page in ((8, 16), (8, 128))
    ]
    shapes.append(cached(8, 1, 8192, 32, 128))
    shapes.append(shape(32, 32, 1, 128, 8, causal=True, features=Features(keys=8192, used=True)))
    shapes.append(cached(32, 4, 8192, 8, 16))
    shapes += [cached(4, 2048, 32768, 8, page) for page in (16, 128)]
    shapes.append(cached(16, 1, 8192, 8, 16, heads=16, dim=256))
    shapes.append(cached(32, 1, 8192, 8, 16, heads=64, dim=64, causal=False, window=128, sink=True))
    return shapes


# Sequences that are decoded at once, and keys of each: 1 GiB of K and V over 8 heads, as much as a sweep's processes have room for.
_DECODE = ((32, 8192), (4, 65536))


def shapes_on_card() -> list[SdpaShape]:
    """Training and vision beyond the history: gpt-oss's sink, Gemma's soft cap, each with its window; d 256 with a window;
    d 72 and 80 packed; d 128 full at 76,800 tokens (video) and at an odd length; 8,192 sequences of 34 tokens."""
    sink, cap = Features(sink=True), Features(softcap=50.0)
    shapes = [
        shape(2, 64, 4096, 64, 8, window=128, features=sink),
        shape(2, 16, 4096, 256, 8, window=1024, features=cap),
        shape(2, 16, 4096, 256, 8, window=1024),
    ]
    shapes += [shape(16, 16, 2048, dim, variant="varlen") for dim in (72, 80)]
    shapes += [shape(1, 12, 76800, 128), shape(4, 16, 8191, 128)]
    shapes.append(shape(8192, 4, 34, 128, variant="varlen"))
    return shapes


def serving_on_cpu() -> list[SdpaShape]:
    """The same kinds small enough for a processor, where a stand-in of FA4 runs."""
    paged = Features(keys=96, page=16, used=True)
    return [
        shape(2, 4, 1, 64, 2, causal=True, variant="varlen", features=paged),
        shape(2, 4, 1, 64, 2, features=Features(keys=96)),
        shape(1, 2, 96, 64, 1, window=32, features=Features(sink=True)),
    ]


# Where the host's cost of a call shows: the kernels are short.
HOST_SHAPES = (
    shape(1, 16, 128, 128, causal=True),
    shape(1, 16, 1024, 128, causal=True),
    shape(1, 32, 1024, 128, 8, causal=True),
)

_EVERY = [
    *core(),
    *further(),
    *history(),
    *for_cpu(),
    *for_accuracy(),
    *for_features(),
    *HOST_SHAPES,
    *serving_on_card(),
    *shapes_on_card(),
    *serving_on_cpu(),
]
SHAPES = {shape.name: shape for shape in _EVERY}
