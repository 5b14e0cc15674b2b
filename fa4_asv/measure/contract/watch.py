"""What a call of FA4 asks for while it is watched: kernels to compile, values from the card, storages.

Fake tensors have no values. Those that FA4 may read (where sequences begin, how long the longest is) have a small twin on
the CPU, and what operators compute from them has one, too: a read is counted and answered.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

from fa4_asv.catalog.launch import ALLOCATED, COMPILED, READ
from fa4_asv.measure.memory.tracker import Tracker

_FOUND = "found on disk"
_FA4 = "flash_attn/cute/"
_TWIN = "fa4_asv_twin"
# Operators whose result the host waits for, beside copies to the CPU: those that give a value, and those whose
# result has a size that only the values tell.
_VALUES = ("aten::_local_scalar_dense", "aten::equal")
_SIZES = ("aten::nonzero", "aten::masked_select", "aten::_unique2")


class UnknownValue(RuntimeError):
    """FA4 asked for what only a card would know; nothing is wrong with it, and nothing can be counted here."""


def prepare(fake_tensor: Any) -> None:
    """Have fake tensors of this class be read without a card, and not be pickled.

    A CPU-only torch looks for the card's driver in int(tensor) and in tensor.contiguous(), not in the operators behind
    them. FA4's disk cache pickles its keys,
    in some releases with a tensor in them; what a card's tensor gives then depends on where it lies.
    """

    def refuse(*_: Any) -> None:
        raise UnknownValue(
            "FA4's disk cache pickles a tensor into its key; what that gives, only a card knows"
        )

    fake_tensor.__reduce_ex__ = refuse
    fake_tensor.__int__ = fake_tensor.__index__ = lambda tensor: int(tensor.item())
    fake_tensor.__float__ = lambda tensor: float(tensor.item())
    fake_tensor.contiguous = _contiguous


def _contiguous(tensor: Any, memory_format: Any = None) -> Any:
    """What tensor.contiguous() is: a copy, unless the tensor lies so already."""
    from torch import contiguous_format

    wanted = memory_format or contiguous_format
    return tensor if tensor.is_contiguous(memory_format=wanted) else tensor.clone(memory_format=wanted)


def give_twin(tensor: Any, values: Any) -> Any:
    """`tensor`, which is fake, with `values`: a CPU tensor of the same shape and dtype."""
    setattr(tensor, _TWIN, values)
    return tensor


def place() -> str:
    """The innermost function of FA4 that is running, such as "_flash_attn_bwd (interface.py)"; "" outside of FA4."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename.replace("\\", "/")
        if _FA4 in name:
            return f"{frame.f_code.co_name} ({name.rpartition('/')[2]})"
        frame = frame.f_back
    return ""


class Watch:
    """Counts by what was asked for and where, such as {"read in _flash_attn_fwd (interface.py)": 1}."""

    def __init__(self) -> None:
        self.parts: Counter[str] = Counter()
        self._tracker = Tracker()

    def start(self) -> None:
        """Forget what was counted."""
        self.parts = Counter()

    def compiled(self, kernel: Any) -> None:
        self.parts[f"{COMPILED} {getattr(kernel, '__name__', None) or type(kernel).__name__}"] += 1

    def found(self) -> None:
        """A kernel in FA4's disk cache."""
        self.parts[_FOUND] += 1

    def read(self, *_: Any, **__: Any) -> None:
        """The host waits for the card. Takes anything: it stands where torch's synchronize would."""
        self.parts[f"{READ} in {place()}"] += 1

    def known(self, *tensors: Any) -> None:
        """Inputs: what shares their storage is no allocation."""
        for tensor in tensors:
            self._tracker.see(tensor)

    def allocated(self, tensor: Any) -> None:
        """Note the storage of what an operator returned, where it is new."""
        before = self._tracker.made
        self._tracker.see(tensor)
        if self._tracker.made > before:
            self.parts[f"{ALLOCATED} in {place()}"] += 1


def watching(watch: Watch) -> AbstractContextManager[Any]:
    """While entered, `watch` counts what operators of torch read and allocate.

    Enter it inside of FakeTensorMode: the mode entered last is asked first. Raises UnknownValue where a value is read
    that nobody gave.
    """
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watching(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            known = bool(tensors) and all(hasattr(leaf, _TWIN) for leaf in tensors)
            name = func._schema.name
            if name in _VALUES + _SIZES and any(leaf.is_cuda for leaf in tensors):
                watch.read()
                if not known or name in _SIZES:
                    raise UnknownValue(f"FA4 reads a tensor back ({name}) whose values only a card knows")
            twins = tree_leaves(_on_twins(func, args, kwargs)) if known else []
            if known and name in _VALUES:
                return twins[0]
            result = func(*args, **kwargs)
            _note(watch, tensors, tree_leaves(result), twins)
            return result

    return Watching()


def _on_twins(func: Any, args: Any, kwargs: Any) -> Any:
    """What the operator makes of the twins, on the CPU."""
    import torch
    from torch.utils._python_dispatch import _disable_current_modes
    from torch.utils._pytree import tree_map

    def twin(leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return torch.device("cpu")
        return getattr(leaf, _TWIN) if isinstance(leaf, torch.Tensor) else leaf

    with _disable_current_modes():
        return func(*tree_map(twin, args), **tree_map(twin, kwargs))


def _note(watch: Watch, inputs: list[Any], results: list[Any], twins: list[Any]) -> None:
    """Storages and copies to the CPU of an operator's results, which get their twins."""
    from torch import Tensor

    tensors = [leaf for leaf in results if isinstance(leaf, Tensor)]
    if any(leaf.is_cuda for leaf in inputs) and any(not leaf.is_cuda for leaf in tensors):
        watch.read()
    for tensor in tensors:
        watch.allocated(tensor)
    for result, values in zip(results, twins, strict=False):
        if isinstance(result, Tensor):
            give_twin(result, values)
