"""What is alive: every storage that torch's operators return, counted once, until it dies."""

from __future__ import annotations

import weakref
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

WORKSPACE = "workspace"


@dataclass
class Allocation:
    """One storage, described by the tensor that showed it first; dead when `ref` is."""

    nbytes: int
    description: str
    ref: Any = None
    role: str = WORKSPACE


class Tracker:
    """Live storages of one device type, each counted once however many tensors share it.

    `peak` is the most that was ever live at once, `at_peak` what that was. Nothing is kept alive.
    """

    def __init__(self, device: str = "cuda") -> None:
        self._device = device
        self._live: dict[int, Allocation] = {}
        self.now = self.peak = 0
        self.made = 0  # storages so far
        self.at_peak: list[tuple[Allocation, int]] = []

    def see(self, tensor: Any) -> Allocation | None:
        """Note a tensor's storage, new or resized; None for one that lives elsewhere."""
        if tensor.device.type != self._device:
            return None
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        known = self._live.get(key)
        if known is None:
            shape = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            # torch keeps the Python object of a storage for as long as the storage lives
            ref = weakref.ref(storage, lambda _: self._forget(key))
            known = self._live[key] = Allocation(0, shape, ref)
            self.made += 1
        self.now += nbytes - known.nbytes
        known.nbytes = nbytes
        if self.now > self.peak:
            self.restart()
        return known

    def restart(self) -> None:
        """The peak from here on."""
        self.peak = self.now
        self.at_peak = [(allocation, allocation.nbytes) for allocation in self._live.values()]

    def _forget(self, key: int) -> None:
        self.now -= self._live.pop(key).nbytes

    def name(self, tensors: dict[str, Any]) -> None:
        """Give live tensors their roles: inputs, and outputs once they are returned. The first name stays."""
        for role, tensor in tensors.items():
            allocation = None if tensor is None else self.see(tensor)
            if allocation is not None and allocation.role == WORKSPACE:
                allocation.role = role

    def extra(self) -> int:
        """The peak less everything with a role: never negative while those are live."""
        return self.peak - sum(a.nbytes for a in self._live.values() if a.role != WORKSPACE)

    def parts(self) -> dict[str, int]:
        """Bytes live at the peak by "role dtype[shape]"; their sum is the peak."""
        counts: Counter[str] = Counter()
        for allocation, nbytes in self.at_peak:
            counts[f"{allocation.role} {allocation.description}"] += nbytes
        return dict(counts)


def following(tracker: Tracker) -> AbstractContextManager[Any]:
    """While entered, `tracker` sees every tensor that an operator of torch returns.

    Enter it inside of FakeTensorMode: the mode entered last is asked first, and gets fake tensors back.
    """
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    class Following(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            # All of an operator's results are live at once, and resize_() returns what it resized.
            for leaf in tree_iter(result):
                if isinstance(leaf, Tensor):
                    tracker.see(leaf)
            return result

    return Following()
