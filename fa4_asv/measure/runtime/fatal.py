"""CUDA errors after which a process is of no more use, and what an error says without advice to its readers.

Pure: text in, text out. CUDA calls an error sticky where every later call in the process fails with the same message;
then only a fresh process can measure anything.
"""

from __future__ import annotations

import re

from fa4_asv.base.escape import one_line, without_colours, without_places

LONGEST = 400  # characters of an error's message that are kept

# Number, name (cudaError..., CUDA_ERROR_...) and cudaGetErrorString of CUDA 13.0. All whose comment in
# driver_types.h asks for a new process, and four more that say the same: a broken memory or link (214, 220), a context
# that is gone (709), an internal error (999).
_STICKY = {
    214: ("ECCUncorrectable", "uncorrectable ECC error encountered"),
    220: ("NvlinkUncorrectable", "uncorrectable NVLink error detected during the execution"),
    226: ("Contained", "Invalid access of peer GPU memory over nvlink or a hardware error"),
    700: ("IllegalAddress", "an illegal memory access was encountered"),
    702: ("LaunchTimeout", "the launch timed out and was terminated"),
    709: ("ContextIsDestroyed", "context is destroyed"),
    710: ("Assert", "device-side assert triggered"),
    714: ("HardwareStackError", "hardware stack error"),
    715: ("IllegalInstruction", "an illegal instruction was encountered"),
    716: ("MisalignedAddress", "misaligned address"),
    717: ("InvalidAddressSpace", "operation not supported on global/shared address space"),
    718: ("InvalidPc", "invalid program counter"),
    719: ("LaunchFailure", "unspecified launch failure"),
    721: ("TensorMemoryLeak", "tensor memory not completely freed"),
    810: ("MpsClientTerminated", "the MPS client has been terminated by the server"),
    911: ("ExternalDevice", "an async error has occured in external entity outside of CUDA"),
    999: ("Unknown", "unknown error"),
}
_NAMES = {name.lower() for name, _ in _STICKY.values()} | {"launchfailed"}  # the driver's name of 719
_NAME = re.compile(r"cuda_?error_?([a-z_]+)", re.IGNORECASE)
# torch: "CUDA error: ...", "CUDA driver error: ..."; Triton: "Triton Error [CUDA]: ...".
_SENTENCE = re.compile(
    rf"CUDA[^:]{{0,30}}:\s*(?:{'|'.join(re.escape(message) for _, message in _STICKY.values())})",
    re.IGNORECASE,
)
# The DSL: "CUDA Error Code: 700", "<unknown CUDA error code 700>".
_CODE = re.compile(r"CUDA error code:? (\d+)", re.IGNORECASE)

_MEMORY = re.compile(r"out.?of.?memory|STATUS_ALLOC_FAILED", re.IGNORECASE)

_ADVICE = re.compile(
    r"Search for `\w+' in \S+ for more information\.?"
    r"|CUDA kernel errors might be asynchronously reported.*?might be incorrect\.?"
    r"|For debugging consider passing CUDA_LAUNCH_BLOCKING=1\.?"
    r"|For more detailed error information, run with CUDA_LOG_FILE=stderr\.?"
    r"|Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions\.?"
    r"|Device-side assertions were explicitly omitted for this error check;.*?DSA handlers\.?"
    r"|If reserved (?:but unallocated )?memory is .*?to avoid fragmentation\.?"
    r"|See documentation for Memory Management (?:and \w+|\(\S+\))\.?"
)
# What follows repeats the error or describes the machine: the DSL's context and suggestions, C++ frames.
_REST = re.compile(r" (?:(?<!CUDA )Error Code: \d+ |🔍|💡|Exception raised from ).*")


def is_fatal(message: str) -> bool:
    """Whether an error's message says that every later CUDA call of its process fails as well."""
    if any(name.replace("_", "").lower() in _NAMES for name in _NAME.findall(message)):
        return True
    if any(int(code) in _STICKY for code in _CODE.findall(message)):
        return True
    return bool(_SENTENCE.search(message))


def is_out_of_memory(message: str) -> bool:
    """Whether an error's message says that the card has no memory left: of torch, CUDA, the DSL, cuBLAS or cuDNN."""
    return bool(_MEMORY.search(message))


def short(message: str) -> str:
    """An error in one line of at most LONGEST characters, without advice to its readers and without a machine's folders."""
    line = " ".join(without_places(without_colours(message)).split())
    line = " ".join(_ADVICE.sub(" ", _REST.sub("", f"{line} ")).split())
    return one_line(line, LONGEST)
