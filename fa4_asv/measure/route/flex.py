"""The checks of FlexAttention's FLASH backend: does what torch generates reach FA4, and does FA4 take it?

torch keeps its adapter as templates, which its compiler fills in for each call. They are filled in here and run on fake CUDA
tensors: imports, layouts and keywords are torch's own. Not covered without a card: how torch's compiler translates score and
mask functions; a function that does nothing stands for each. Shape: batch 2, 512 tokens, 8 heads, d 128, bf16.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fa4_asv.base.files import read_text
from fa4_asv.measure.driver_stubs import Lacking
from fa4_asv.measure.route.refusals import Checks, told
from fa4_asv.measure.route.worker import TorchDriver

_BATCH, _TOKENS, _HEADS, _DIM, _COLUMNS = 2, 512, 8, 128, 128
_FOLDER = Path("_inductor") / "kernel" / "flex" / "templates"
_FORWARD, _BACKWARD = "flash_attention.py.jinja", "flash_attention_backward.py.jinja"
_MOST_BYTES = 1 << 20  # of a template; these have 6 kB
# What torch writes above each of its kernels.
_IMPORTS = "import torch\nimport cutlass\nimport cutlass.cute as cute\n\n"


@dataclass(frozen=True)
class Flex:
    """One call: with a score function, a mask and its blocks, a tensor that these read."""

    kv_heads: int = _HEADS
    score: bool = False
    mask: bool = False
    reads: bool = False
    deterministic: bool = False


class FlexDriver(TorchDriver):
    """The torch and FA4 of this process, by torch's templates; `scratch` is a folder for what they give.

    Raises Lacking for a torch that has none.
    """

    def __init__(self, torch: Any, fake_mode: Any, scratch: Path) -> None:
        super().__init__(torch, fake_mode)
        self._version = torch.__version__.partition("+")[0]
        self._templates = Path(torch.__file__).parent / _FOLDER
        self._scratch, self._written = scratch, 0
        if not (self._templates / _FORWARD).is_file():
            raise Lacking(f"torch {self._version} has no {(_FOLDER / _FORWARD).as_posix()}")

    def forward(self, flex: Flex) -> None:  # type: ignore[override]
        """One forward; the calls that reached FA4 are in `calls`. Raises what torch's code and FA4 raise."""
        self._fill_and_call(_FORWARD, flex, backward=False)

    def backward(self, flex: Flex) -> None:  # type: ignore[override]
        """The same of a backward."""
        self._fill_and_call(_BACKWARD, flex, backward=True)

    def _fill_and_call(self, template: str, flex: Flex, backward: bool) -> None:
        path = self._templates / template
        if not path.is_file():
            raise Lacking(f"torch {self._version} has no {(_FOLDER / template).as_posix()}")
        source = _IMPORTS + fill_in(read_text(path, _MOST_BYTES, "torch's own file"), flex)
        kernel = self._load(source).kernel
        self.calls.clear()
        was = self._torch.are_deterministic_algorithms_enabled()
        # Templates up to torch 2.12 ask for this; later ones are told by torch's compiler.
        self._torch.use_deterministic_algorithms(flex.deterministic)
        try:
            with self._fake_mode():
                self._call_kernel(kernel, self._tensors(flex, backward))
        finally:
            self._torch.use_deterministic_algorithms(was)

    def _call_kernel(self, kernel: Any, tensors: dict[str, Any]) -> None:
        names = kernel.__code__.co_varnames[: kernel.__code__.co_argcount]
        if unknown := [name for name in names if name not in tensors]:
            raise TypeError(f"torch's template wants {', '.join(unknown)}")
        kernel(**{name: tensors[name] for name in names})

    def _load(self, source: str) -> ModuleType:
        """A module of a file: the DSL reads functions from theirs."""
        self._written += 1
        path = self._scratch / f"flex_{self._written}.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def _tensors(self, flex: Flex, backward: bool) -> dict[str, Any]:
        """By the names that the templates give them. Blocks: counts and indices, of those cut by the mask and of whole ones."""
        torch = self._torch

        def make(*size: int, dtype: Any = torch.bfloat16) -> Any:
            return torch.empty(*size, dtype=dtype, device="cuda")

        query = (_BATCH, _HEADS, _TOKENS, _DIM)
        keys = (_BATCH, flex.kv_heads, _TOKENS, _DIM)
        lse = make(_BATCH, _HEADS, _TOKENS, dtype=torch.float32)
        lines, columns = _TOKENS // block_rows(), _TOKENS // _COLUMNS
        which = ("Q_NUM_BLKS", "Q_IDX") if backward else ("KV_NUM_BLKS", "KV_IDX")
        lines, columns = (columns, lines) if backward else (lines, columns)
        sizes = ((1, 1, lines), (1, 1, lines, columns))
        blocks = {
            f"{whole}{name}": make(*size, dtype=torch.int32)
            for whole in ("", "FULL_")
            for name, size in zip(which, sizes, strict=True)
        }
        return {
            "Q": make(*query),
            "K": make(*keys),
            "V": make(*keys),
            "OUT": make(*query),
            "D_OUT": make(*query),
            "DK": make(*keys),
            "DV": make(*keys),
            "OUTPUT": make(*query),
            "LSE": lse,
            "LOGSUMEXP": lse,
            "DLSE": None,
            "BUFFER": make(_BATCH, _TOKENS, dtype=torch.int32),
            **blocks,
        }


def block_rows() -> int:
    """Queries of a block: FA4 wants one tile of them, and Blackwell has two tiles at once."""
    return 256 if os.environ["FA4_ASV_ARCH"].startswith("sm_10") else 128


def fill_in(template: str, flex: Flex) -> str:
    """torch's template as Python source with one function `kernel`. Raises what jinja2 raises."""
    jinja = importlib.import_module("jinja2")
    environment = jinja.Environment()
    environment.filters["indent_except_first"] = lambda text, levels: text
    return str(environment.from_string(template).render(**_functions(flex), **_choices(flex)))


def _functions(flex: Flex) -> dict[str, Any]:
    """What torch's compiler gives its templates."""
    buffers = ["BUFFER"] if flex.reads else []

    def define(*names: str) -> str:
        return f"def kernel({', '.join(dict.fromkeys((*names, 'OUTPUT', *buffers)))}):"

    def modify(output_name: str, **_: Any) -> str:
        value = "q_idx >= kv_idx" if output_name.startswith("mask") else output_name.removesuffix("_out")
        return f"{output_name} = {value}"

    return {
        "def_kernel": define,
        "modification": modify,
        "get_output": lambda: "OUTPUT",
        "get_tensor_buffers": lambda: buffers,
        "add_tensor_inputs": lambda _: buffers,
        "unpack_buffers": lambda *_, **__: "",
        "define_aux_scalars": lambda _: "None",
        "set_cute_hash": lambda name, suffix="": f'{name}.__cute_hash__ = "{suffix}"',
    }


def _choices(flex: Flex) -> dict[str, Any]:
    """What torch's compiler chooses for a call; a template knows some of these."""
    return {
        "SM_SCALE": _DIM**-0.5,
        "HAS_SCORE_MOD": flex.score,
        "HAS_MASK_MOD": flex.mask,
        "NEEDS_BLOCK_MASK": flex.mask,
        "HAS_BLOCK_MASK": flex.mask,
        "HAS_FULL_BLOCKS": flex.mask,
        "SCORE_MOD_VEC_SIZE": None,
        "MASK_MOD_VEC_SIZE": None,
        "MASK_MOD_PACKED_INTERVALS": None,
        "SPARSE_Q_BLOCK_SIZE": block_rows(),
        "SPARSE_KV_BLOCK_SIZE": _COLUMNS,
        "DETERMINISTIC_BACKWARD_ENABLED": flex.deterministic,
    }


def _import(driver: FlexDriver) -> str:
    driver.import_fa4()
    return ""


def _asked(flex: Flex) -> dict[str, Any]:
    """What FA4 must be told of a call."""
    names = {"score_mod": flex.score, "mask_mod": flex.mask, "block_sparse_tensors": flex.mask}
    return {name: ... if asked else None for name, asked in (names | {"aux_tensors": flex.reads}).items()}


def _forward(flex: Flex) -> Any:
    def run(driver: FlexDriver) -> str:
        driver.forward(flex)
        return told(driver.calls, _asked(flex) | {"out": ..., "lse": ...})

    return run


def _backward(flex: Flex) -> Any:
    def run(driver: FlexDriver) -> str:
        driver.backward(flex)
        function = {"score_mod_bwd": ... if flex.score else None, "deterministic": flex.deterministic}
        return told(driver.calls, _asked(flex) | function | dict.fromkeys(("dq", "dk", "dv"), ...))

    return run


_CALLS = {
    "full": Flex(),
    "gqa": Flex(kv_heads=2),
    "score": Flex(score=True),
    "score_reads": Flex(score=True, reads=True),
    "mask": Flex(mask=True),
    "mask_reads": Flex(mask=True, reads=True),
}
CHECKS: Checks = {
    "import": (_import, ()),
    **{f"forward_{name}": (_forward(flex), ("import",)) for name, flex in _CALLS.items()},
    **{f"backward_{name}": (_backward(flex), ("import",)) for name, flex in _CALLS.items()},
    "deterministic": (_backward(Flex(deterministic=True)), ("import", "backward_full")),
}
