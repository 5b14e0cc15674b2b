"""What is broken in the stand-in for FA4, by an edit or two each. tests/test_mutants*.py catch every one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

STANDIN = Path(__file__).resolve().parent.parent / "standin"
INTERFACE = Path("flash_attn") / "cute" / "interface.py"

Edit = tuple[str, str]


@dataclass(frozen=True)
class Mutant:
    """What is wrong in words, and the edits of the stand-in's source that make it so."""

    description: str
    edits: tuple[Edit, ...]
    file: Path = INTERFACE


def text_of(mutant: Mutant | None) -> str:
    """The source of the stand-in, or of a mutant. ValueError where an edit does not fit exactly once."""
    file = mutant.file if mutant else INTERFACE
    text = (STANDIN / file).read_text(encoding="utf-8")
    for old, new in mutant.edits if mutant else ():
        if text.count(old) != 1:
            raise ValueError(f"{old!r} stands {text.count(old)} times in {file}, expected once")
        text = text.replace(old, new)
    return text


def lay(folder: Path, mutant: Mutant | None) -> Path:
    """The stand-in (of FA4 and of the DSL) or a mutant of it below `folder`, to be put on Python's path."""
    shutil.copytree(STANDIN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / (mutant.file if mutant else INTERFACE)).write_text(text_of(mutant), encoding="utf-8")
    return folder


def _mutant(message: str, *edits: Edit) -> Mutant:
    return Mutant(message, edits)


_FORWARD = 'with record_function("flash_attncute_standin_forward"):\n        '
_RUN_FORWARD = "kernel(q, k, v, out, lse, scale, causal, left)\n"
_FORWARD_RUN = f"{_FORWARD}{_RUN_FORWARD}"
_RUN_BACKWARD = "kernel(q, k, v, out, dout, lse, dq, dk, dv, scale, causal, left, turn)\n"
_SCORES = "s = scale * (queries @ keys.mT)"
_SEEN = "s = s.masked_fill(columns > rows, -math.inf)"
_TURN = "turn = 0 if deterministic else next(_calls)"
_SDPA = (
    "torch.nn.functional.scaled_dot_product_attention(\n            "
    "*(x.transpose(1, 2) for x in (q, k, v)), is_causal=causal, enable_gqa=True\n        ).transpose(1, 2)"
)

_AT_EACH_CALL = "    if key not in _kernels:"
_ONE_CASE = "key[1:3] == (64, True)"  # causal attention of head_dim 64


def _dies(message: str, error: str, reason: str) -> Mutant:
    """One call leaves the process without a card: it ends well itself, every call after it raises the same words."""
    return _mutant(
        message,
        ("_calls = itertools.count()", "_calls, _dead = itertools.count(), []"),
        (
            _AT_EACH_CALL,
            f"    if _dead:\n        raise torch.{error}({reason!r})\n"
            f"    if {_ONE_CASE}:\n        _dead.append(key)\n{_AT_EACH_CALL}",
        ),
    )


def _of_torch(message: str, name: str) -> str:
    """A CUDA error as torch 2.13 words it, with its advice."""
    return (
        f"CUDA error: {message}\nSearch for `{name}' in https://docs.nvidia.com/cuda/cuda-runtime-api/"
        "group__CUDART__TYPES.html for more information.\nCUDA kernel errors might be asynchronously reported at some "
        "other API call, so the stacktrace below might be incorrect.\nFor debugging consider passing "
        "CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
    )


_NO_MEMORY = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 12.73 GiB is free."

MUTANTS = {
    "dq_one_percent": _mutant("dQ wrong by 1 %", ("((scale * (ds @", "((1.01 * scale * (ds @")),
    "dk_one_percent": _mutant("dK wrong by 1 %", ("add_(scale * (ds.mT", "add_(1.01 * scale * (ds.mT")),
    "head_dim_64": _mutant(
        "wrong only at head_dim 64",
        (_SCORES, "s = scale * (1.02 if keys.shape[-1] == 64 else 1) * (queries @ keys.mT)"),
    ),
    "beyond_4096_keys": _mutant(
        "wrong only beyond 4096 keys",
        (_SCORES, f"keys = keys[:, :, torch.arange(keys.shape[2]) % 4096]\n    {_SCORES}"),
    ),
    "last_tile": _mutant(
        "wrong only where the last tile is not full",
        ("for begin in range(0, q.shape[1], ROWS):", "for begin in range(0, q.shape[1] - ROWS + 1, ROWS):"),
        ("    out = torch.empty(", "    out = torch.zeros("),
    ),
    "one_key_more": _mutant(
        "causal mask off by one: a key more", (_SEEN, _SEEN.replace("> rows", "> rows + 1"))
    ),
    "one_key_less": _mutant(
        "causal mask off by one: a key less",
        (_SEEN, _SEEN.replace("columns > rows", "(columns >= rows) & (rows > 0)")),
    ),
    "wrong_kv_head": _mutant(
        "query heads share the wrong KV head",
        ("repeat_interleave(group, dim=1)", "repeat(1, group, 1, 1)"),
    ),
    "wrong_lse": _mutant("LSE in base 2", ("copy_(total)", "copy_(total / math.log(2))")),
    "large_scores": _mutant(
        "wrong only for scores beyond 15", (_SCORES, f"{_SCORES}\n    s = s.clamp(-15, 15)")
    ),
    "nan_row": _mutant("NaN in one row", (_RUN_FORWARD, f"{_RUN_FORWARD}    out[-1, 100, -1] = math.nan\n")),
    "layout": _mutant(
        "another layout",
        (
            "    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)",
            "    out = torch.empty_like(q.transpose(1, 2).contiguous()).transpose(1, 2)",
        ),
    ),
    "dtype": _mutant(
        "another dtype",
        ("v.shape[-1], dtype=q.dtype,", "v.shape[-1], dtype=torch.float32,"),
    ),
    "another_kernel": _mutant(
        "silently another kernel",
        (_FORWARD_RUN, f"if True:\n        out = {_SDPA}.contiguous()\n"),
    ),
    "kernel_beside": _mutant(
        "another kernel beside its own", (_RUN_FORWARD, f"{_RUN_FORWARD}    out.copy_({_SDPA})\n")
    ),
    "remembers": _mutant(
        "answers from memory, without running",
        ("_calls = itertools.count()", "_calls, _known = itertools.count(), {}"),
        (
            f"    {_FORWARD_RUN}",
            "    name = (q.data_ptr(), float(q.flatten()[-1]))\n    if name not in _known:\n"
            f"        _known[name] = out, lse\n    else:\n        return *_known[name], None, None\n"
            f"    {_FORWARD_RUN}",
        ),
    ),
    "overwrites": _mutant("writes into its inputs", (_RUN_FORWARD, f"{_RUN_FORWARD}    k.mul_(1.01)\n")),
    "ignores_deterministic": _mutant("ignores `deterministic`", (_TURN, "turn = next(_calls)")),
    "wrong_deterministic": _mutant(
        "wrong only with `deterministic`",
        (_RUN_BACKWARD, f"{_RUN_BACKWARD}    dk.mul_(1.02 if deterministic else 1)\n"),
    ),
    "not_deterministic": _mutant(
        "forward not deterministic",
        (
            "p = _rounded(torch.exp(s - total.unsqueeze(-1)), q.dtype)",
            "p = _rounded(torch.exp(s - total.unsqueeze(-1)) * (1 + 1e-3 * torch.rand(())), q.dtype)",
        ),
    ),
    "one_call_of_three": _mutant(
        "out wrong in one call of three",
        (_RUN_FORWARD, f"{_RUN_FORWARD}    out.mul_(1.01 if next(_calls) % 3 == 2 else 1)\n"),
    ),
    "one_backward_of_three": _mutant(
        "dQ wrong in one call of three",
        (_RUN_BACKWARD, f"{_RUN_BACKWARD}    dq.mul_(1.01 if turn % 3 == 2 else 1)\n"),
    ),
    "slower": _mutant(
        "2 % slower: dQ of the first block twice",
        (
            "        dkeys.narrow(",
            "        (ds if begin == 0 else ds[:, :, :0]) @ mine\n        dkeys.narrow(",
        ),
    ),
    "more_memory": _mutant(
        "10 % more memory", (_TURN, f"{_TURN}\n    spare = q.new_empty(q.numel() * 12 // 5)")
    ),
    "recompiles": _mutant("recompiles at each call", ("if key not in _kernels:", "if True:")),
    "hangs": _mutant("hangs in backward", (_TURN, f'__import__("time").sleep(600)\n    {_TURN}')),
    "out_of_memory": _mutant(
        "runs out of memory", (_FORWARD_RUN, f"spare = q.new_empty(1 << 50)\n    {_FORWARD_RUN}")
    ),
    "killed": _mutant(
        "is killed",
        (_FORWARD_RUN, f'__import__("os").kill(__import__("os").getpid(), 9)\n    {_FORWARD_RUN}'),
    ),
    "import_error": _mutant(
        "cannot be imported", ("import cutlass.cute as cute", "import cutlass.nowhere as cute")
    ),
    "fewer_values": _mutant(
        "forward returns another number of values",
        ("return out, lse if return_lse else None, None, None", "return out"),
    ),
    "fewer_gradients": _mutant(
        "backward returns another number of values", ("return dq, dk, dv", "return dq, dk")
    ),
    # One case ends its process, or leaves it without a working card.
    "illegal_access": _dies(
        "an illegal memory access",
        "AcceleratorError",
        _of_torch("an illegal memory access was encountered", "cudaErrorIllegalAddress"),
    ),
    "device_assert": _dies(
        "an assertion on the device",
        "AcceleratorError",
        _of_torch("device-side assert triggered", "cudaErrorAssert"),
    ),
    "misaligned": _dies(
        "a misaligned address",
        "AcceleratorError",
        _of_torch("misaligned address", "cudaErrorMisalignedAddress"),
    ),
    "no_memory_again": _dies("takes the card's memory and keeps it", "OutOfMemoryError", _NO_MEMORY),
    "no_memory_once": _mutant(
        "finds no memory once",
        ("_calls = itertools.count()", "_calls, _full = itertools.count(), []"),
        (
            _AT_EACH_CALL,
            f"    if {_ONE_CASE} and not _full:\n        _full.append(key)\n"
            f"        raise torch.OutOfMemoryError({_NO_MEMORY!r})\n{_AT_EACH_CALL}",
        ),
    ),
    "segfault": _mutant(
        "a segmentation fault",
        (
            _AT_EACH_CALL,
            f'    if {_ONE_CASE}:\n        __import__("os").kill(__import__("os").getpid(), 11)\n{_AT_EACH_CALL}',
        ),
    ),
    "hangs_behind_others": _mutant(
        "hangs in one case",
        (_AT_EACH_CALL, f'    if {_ONE_CASE}:\n        __import__("time").sleep(600)\n{_AT_EACH_CALL}'),
    ),
}
