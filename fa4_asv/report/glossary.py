"""The words of the pages, each explained once: on the page *Reading*, and where a head of a table says one."""

from __future__ import annotations

from fa4_asv.report import wording

WORDS_JS = "data/words.js"
# Heads of tables and what they mean; the page *Reading* lists them in this order.
WORDS = {
    "release": "A beta of flash-attn-4, compiled from its own source.",
    "toolchain": "The compiler and libraries that FA4 was compiled with: those that a user got on the day of the upload. They change the machine code as much as the source does.",
    wording.COMPILER: "The compiler, CuTe DSL: FA4 is Python that it compiles to machine code.",
    "flavour": "cu13 is the package with its extra for CUDA 13, cu12 the plain package over a torch on CUDA 12, plain the same package with the torch of the release's day. All compile the same source; kernels differ. Plain is recorded for kernels only: its memory and its route through SDPA are as cu12.",
    "arch": "Architecture: sm_90 is Hopper (H100, H200), sm_100 is Blackwell (B200).",
    "where": "An architecture for compiled code (sm_90 is Hopper, sm_100 is Blackwell); a machine for times.",
    "spill (stack frame)": "Bytes per thread that the compiler moved from registers to memory. Often the first sign of a slower kernel.",
    "spilled accesses inside loops": "Reads and writes of spilled values in the loops over the keys: they are paid in every turn.",
    "spilled accesses outside loops": "The same outside these loops: paid once per tile. Shown, not judged.",
    "instructions per turn": "Machine instructions of one turn of the loop over the keys, without a mask.",
    "instructions per masked turn": "The same of the turn that applies the mask.",
    "issue slots per 100 matrix instructions": "Instructions issued in a turn for each 100 matrix instructions. Shown, not judged.",
    "local loads": "Instructions that read back what was spilled.",
    "local stores": "Instructions that write what is spilled.",
    "instructions": "Machine instructions of the whole kernel.",
    "code size": "Bytes of machine code. Shown, not judged.",
    "registers": "Registers per thread at launch. Kernels redistribute them, so they are shown and not judged.",
    "peak memory": "The largest number of bytes allocated at one time in a call, inputs included.",
    "broken checks": "Checks of PyTorch's route that fail: 0 means that this torch drives FA4 through scaled_dot_product_attention.",
    "cause": "source or toolchain: proven by compiling the old source with the new toolchain and the new with the old, or because the other one did not change. either alone: each gives the whole change. both together: neither does. unknown: one of the two does not compile. not yet explained: nobody compiled them.",
    "verdict": "faster or slower where the interval of the change excludes 0 and the change is large enough; same; unclear; not comparable.",
    "change": "After over before. For times with the interval in the column beside it.",
    "state": "measured: it compiles. unsupported: FA4's own code refuses it, with its message. broken: it should work and does not.",
    "TFLOP/s": "Operations of the shape over the time: four per pair of query and key that the mask leaves, per head dimension; a backward counts 2.5 forwards.",
    "of peak": "Share of the dense bf16 rate in the card's data sheet.",
    "against cuDNN": "Time of cuDNN's attention over FA4's in the same round: above 1 FA4 is faster.",
    "against FA2": "Time of FlashAttention-2 over FA4's in the same round: above 1 FA4 is faster.",
    "seen from": "The smallest change that is detected in 90 % of cases.",
    "with": "The torch that the command above is for, and the compiler that a user got on the day of the release: the figures were recorded with it.",
    "spills": "Values that the compiler moved from registers to memory, over the main kernels of the architecture: accesses inside loops where they are known, else bytes of the stack frame.",
    "speed": "Times of the release on a card, by the rule of a sweep against the release before; cuDNN and FlashAttention-2 (FA2) ran in the same rounds: 1.11 × means that FA4 is 1.11 times as fast.",
    "PyTorch": "Which torch drives the release through scaled_dot_product_attention (SDPA), and how many of the checks fail where it does not.",
    "known problems": "Public reports that stand in this release, and its figures that were better in an older one.",
    "avoid": "Compilers and releases that are broken, or that spill much more than the recommended one.",
    "false alarms": "How often the rule calls two processes of one release different.",
    "spread": "One standard deviation between two processes of a release.",
}


def anchor(word: str) -> str:
    """The place of a word on the page *Reading*."""
    return "word-" + wording.file_name(word.replace(" ", "-").replace("/", "-"))


def words_value() -> list[list[str]]:
    """For the script that explains heads: word, place, meaning."""
    return [[word, f"reading.html#{anchor(word)}", meaning] for word, meaning in WORDS.items()]
