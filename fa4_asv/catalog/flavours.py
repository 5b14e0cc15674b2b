"""The series of one machine by CUDA: which compiler libraries, which CUDA FA4 is told torch was built for, whose that is.

Two things hide in a "CUDA flavour". The DSL's compiler libraries are plain or those of the [cu13] extra. FA4 also reads
`torch.version.cuda` (from 4.0.0b10 on: two-CTA forwards on Blackwell are off where it is 12). Names are part of asv's
series: never rename one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Flavour:
    """`libraries`: "plain" or "[cu13]". `cuda`: what FA4 reads without a GPU, "" for that of the day's torch.

    `label` is its name on pages. On a card nothing is overridden: torch's own CUDA counts there.
    """

    name: str
    libraries: str
    cuda: str
    label: str
    user: str


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("cu13", "[cu13]", "13.0", "cu13", "pip install 'flash-attn-4[cu13]', torch on CUDA 13"),
        Flavour(
            "cu12",
            "plain",
            "12.8",
            "cu12 (torch on CUDA 12)",
            "pip install flash-attn-4 over a torch on CUDA 12",
        ),
        Flavour(
            "plain",
            "plain",
            "",
            "plain (torch of the day)",
            "pip install flash-attn-4 alone, on the release's day",
        ),
    )
}
# Those with packages of their own: what is installed, packed and timed on a card.
INSTALLED = ("cu12", "cu13")
# Plain libraries as cu12, and the torch that pip resolved with them on the day. Without a GPU only, and only kernels:
# nothing else that is exact depends on torch's CUDA.
PLAIN = "plain"
GROUPS_OF_PLAIN = ("codegen", "loops")
# What a lock of `plain` holds beside cu12's packages: torch, and the CUDA runtime that this build of torch requires.
# torch pins the runtime's exact version, so its first two numbers are torch.version.cuda.
RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")
OF_TORCH = ("torch", *RUNTIMES)
AS_CU12 = "as cu12: torch's CUDA version does not reach this kernel"


def label(flavour: str, on_card: bool = False) -> str:
    """Its name on pages; a flavour that is not in the table by its own name."""
    if on_card and flavour == "cu12":
        return "cu12 (torch's own CUDA)"
    return FLAVOURS[flavour].label if flavour in FLAVOURS else flavour


def torch_cuda(packages: dict[str, str]) -> str:
    """The CUDA of the torch among `packages`, such as "13.0"; "" where none is named."""
    result = next((packages[name] for name in RUNTIMES if name in packages), "")
    return ".".join(result.split(".")[:2])


def without_torch(packages: dict[str, str]) -> dict[str, str]:
    """What is installed of a lock: torch and what it brings come from the base environment."""
    return {name: version for name, version in packages.items() if name not in OF_TORCH}
