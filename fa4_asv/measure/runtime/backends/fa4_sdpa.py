"""FA4 through SDPA: torch.nn.attention.activate_flash_attention_impl("FA4")."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fa4_asv.catalog.shapes import SdpaShape
from fa4_asv.measure.runtime.backends.sdpa import Sdpa


class Fa4Sdpa(Sdpa):
    """SDPA's FLASH_ATTENTION with FA4 behind it; stays active until another backend is called."""

    def __init__(self) -> None:
        super().__init__("fa2")
        self.name, self.kernel = "fa4-sdpa", "flash_attncute"

    def why_not(self, torch: Any, shape: SdpaShape, device: str, backward: bool) -> str:
        if device == "cpu":
            return "the route to FA4 is CUDA's"
        if not hasattr(torch.nn.attention, "activate_flash_attention_impl"):
            return f"torch {torch.__version__} knows no activate_flash_attention_impl"
        return super().why_not(torch, shape, device, backward)

    @contextmanager
    def chosen(self, torch: Any) -> Iterator[None]:
        if torch.nn.attention.current_flash_attention_impl() != "FA4":
            torch.nn.attention.activate_flash_attention_impl("FA4")
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            yield


def backend(name: str) -> Fa4Sdpa:
    """The only one of this file."""
    return Fa4Sdpa()
