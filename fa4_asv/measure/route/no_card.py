"""What a process lacks that is to drive FA4 through torch without a GPU."""

from __future__ import annotations

from typing import Any

from fa4_asv.measure.compile_stubs import stand_in_without_a_card


def stand_in_for_a_card(torch: Any) -> Any:
    """In this process torch and FA4 find a card, and nothing is compiled. Returns torch's FakeTensorMode."""
    from torch._subclasses import fake_tensor

    stand_in_without_a_card(torch)
    # torch's adapter refuses to serve a machine without a GPU; fake tensors then must not look for one.
    torch.cuda.is_available = lambda: True
    fake_tensor.init_gpu_context = lambda *_: None
    return fake_tensor.FakeTensorMode
