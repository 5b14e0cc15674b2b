"""Words of CUDA errors: which leave a process without a working card, and what is kept of them.

The wordings are those that torch (c10/cuda/CUDAException.cpp of 2.6, 2.11 and 2.13), the CUTLASS DSL (4.4 and 4.8), tvm_ffi,
Triton and PyTorch's allocator put together around CUDA 13.0's own cudaGetErrorString and cudaGetErrorName.
"""

from __future__ import annotations

import pytest

from fa4_asv.measure.runtime.fatal import LONGEST, is_fatal, is_out_of_memory, short

SEARCH = "Search for `{}' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information."
ASYNCHRONOUS = (
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.\n"
    "For debugging consider passing CUDA_LAUNCH_BLOCKING=1"
)
ASSERTIONS = "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"


def of_torch(message: str, name: str) -> str:
    """What torch 2.11 and 2.13 raise of an error, as AcceleratorError."""
    return f"CUDA error: {message}\n{SEARCH.format(name)}\n{ASYNCHRONOUS}\n{ASSERTIONS}"


DSL = (
    "DSLCudaRuntimeError: CUDA_ERROR_ILLEGAL_INSTRUCTION (error code: 715) \n \n\n\x1b[0m\n"
    "\x1b[1mError Code:\x1b[0m 715\n\n\x1b[94m🔍 Additional Context:\x1b[0m \n- \x1b[1mError name: CUDA_ERROR_ILLEGAL_INSTRUCTION\n"
    "- Error code: 715\n- CUDA_TOOLKIT_PATH: /usr/local/cuda\n- Target SM ARCH: not set\x1b[0m\n\n\x1b[94m📊 GPU Information:\x1b[0m\n"
    "- CUDA devices available: 1 (current: <CUdevice 0>)\n- Architecture: Hopper (sm_90a)"
)
MEMORY = (
    "CUDA out of memory. Tried to allocate 22.78 GiB. GPU 0 has a total capacity of 31.47 GiB of which 12.73 GiB is free. "
    "Including non-PyTorch memory, this process has 18.73 GiB memory in use. Of the allocated memory 9.08 GiB is allocated "
    "by PyTorch, and 9.35 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try "
    "setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory "
    "Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)"
)

# As raised, and what is kept.
FATAL = {
    of_torch("an illegal memory access was encountered", "cudaErrorIllegalAddress"): (
        "CUDA error: an illegal memory access was encountered"
    ),
    of_torch("device-side assert triggered", "cudaErrorAssert"): "CUDA error: device-side assert triggered",
    of_torch("misaligned address", "cudaErrorMisalignedAddress"): "CUDA error: misaligned address",
    of_torch(
        "unspecified launch failure", "cudaErrorLaunchFailure"
    ): "CUDA error: unspecified launch failure",
    # Older torches: no name, a blank less, a full stop more.
    "CUDA error: an illegal instruction was encountered\nCUDA kernel errors might be asynchronously reported at some "
    "other API call,so the stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1.": (
        "CUDA error: an illegal instruction was encountered"
    ),
    # torch 2.13 of errors that are not a kernel's.
    f"CUDA error: context is destroyed\n{SEARCH.format('cudaErrorContextIsDestroyed')}\n"
    f"For more detailed error information, run with CUDA_LOG_FILE=stderr\n{ASSERTIONS}": (
        "CUDA error: context is destroyed"
    ),
    "CUDA driver error: unspecified launch failure": "CUDA driver error: unspecified launch failure",
    DSL: "DSLCudaRuntimeError: CUDA_ERROR_ILLEGAL_INSTRUCTION (error code: 715)",
    "DSLCudaRuntimeError: <unknown CUDA error code 700> (error code: 700)": (
        "DSLCudaRuntimeError: <unknown CUDA error code 700> (error code: 700)"
    ),
    "CUDA Error: cudaErrorIllegalInstruction": "CUDA Error: cudaErrorIllegalInstruction",
    "CUDA Error Code: 716": "CUDA Error Code: 716",
    "CUDA Error: CUDA_ERROR_ILLEGAL_ADDRESS (700): an illegal memory access was encountered": (
        "CUDA Error: CUDA_ERROR_ILLEGAL_ADDRESS (700): an illegal memory access was encountered"
    ),
    "Triton Error [CUDA]: an illegal memory access was encountered": (
        "Triton Error [CUDA]: an illegal memory access was encountered"
    ),
    "CUDA error: an illegal memory access was encountered\nException raised from c10_cuda_check_implementation at "
    "/pytorch/c10/cuda/CUDAException.cpp:44 (most recent call first):\nframe #0: c10::Error::Error(...)": (
        "CUDA error: an illegal memory access was encountered"
    ),
}
NOT_FATAL = (
    MEMORY,
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    of_torch("invalid argument", "cudaErrorInvalidValue"),
    of_torch("invalid configuration argument", "cudaErrorInvalidConfiguration"),
    of_torch("too many resources requested for launch", "cudaErrorLaunchOutOfResources"),
    of_torch("no kernel image is available for execution on the device", "cudaErrorNoKernelImageForDevice"),
    "CUDA Error: cudaErrorInvalidValue",
    "CUDA Error Code: 1",
    "DSLCudaRuntimeError: CUDA_ERROR_NO_BINARY_FOR_GPU (error code: 209)",
    "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE (error code: 720)",
    "page table must not have a misaligned address",
    "unknown error",
    "guard: b2_s256_h4_d64_full (gaussian): out is off by 700",
    "the process ended with exit code 1",
    "",
)


@pytest.mark.parametrize("arguments", FATAL)
def test_an_error_after_which_nothing_works_is_known_and_said_in_short(arguments):
    assert is_fatal(arguments)
    assert is_fatal(" ".join(arguments.split())), "in one line, too"
    assert not is_out_of_memory(arguments)
    assert short(arguments) == FATAL[arguments]
    assert is_fatal(short(arguments)), "what is kept says as much"


@pytest.mark.parametrize("message", NOT_FATAL)
def test_an_error_of_one_call_is_not(message):
    assert not is_fatal(message)


# cudaGetErrorName, cuGetErrorName and cudaGetErrorString of CUDA 13.0, of every error that asks for a new process.
STICKY = [
    (
        "cudaErrorContained",
        "CUDA_ERROR_CONTAINED",
        "Invalid access of peer GPU memory over nvlink or a hardware error",
    ),
    ("cudaErrorIllegalAddress", "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    ("cudaErrorLaunchTimeout", "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"),
    ("cudaErrorAssert", "CUDA_ERROR_ASSERT", "device-side assert triggered"),
    ("cudaErrorHardwareStackError", "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"),
    (
        "cudaErrorIllegalInstruction",
        "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        "an illegal instruction was encountered",
    ),
    ("cudaErrorMisalignedAddress", "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"),
    (
        "cudaErrorInvalidAddressSpace",
        "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        "operation not supported on global/shared address space",
    ),
    ("cudaErrorInvalidPc", "CUDA_ERROR_INVALID_PC", "invalid program counter"),
    ("cudaErrorLaunchFailure", "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"),
    ("cudaErrorTensorMemoryLeak", "CUDA_ERROR_TENSOR_MEMORY_LEAK", "tensor memory not completely freed"),
    (
        "cudaErrorMpsClientTerminated",
        "CUDA_ERROR_MPS_CLIENT_TERMINATED",
        "the MPS client has been terminated by the server",
    ),
    (
        "cudaErrorExternalDevice",
        "CUDA_ERROR_EXTERNAL_DEVICE",
        "an async error has occured in external entity outside of CUDA",
    ),
    ("cudaErrorContextIsDestroyed", "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"),
    ("cudaErrorECCUncorrectable", "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"),
]


@pytest.mark.parametrize(("runtime", "driver", "message"), STICKY)
def test_every_sticky_error_is_known_by_each_of_its_names(runtime, driver, message):
    assert is_fatal(f"CUDA error: {message}")
    assert is_fatal(f"CUDA Error: {runtime}")
    assert is_fatal(f"DSLCudaRuntimeError: {driver} (error code: 7)")


def test_no_memory_is_known_and_said_without_advice():
    assert all(is_out_of_memory(message) for message in NOT_FATAL[:3])
    assert is_out_of_memory("OutOfMemoryError: ") and is_out_of_memory(
        "CUDA_ERROR_OUT_OF_MEMORY (error code: 2)"
    )
    assert not is_out_of_memory("out is off by 2.5")
    assert short(MEMORY).endswith("and 9.35 GiB is reserved by PyTorch but unallocated.")


def test_what_is_kept_is_bounded_and_names_no_folder_of_a_machine():
    assert len(short("x" * 10_000)) == LONGEST
    text = short("\x1b[31mno 'Arch'\x1b[0m (/home/me/lib/python3.12/site-packages/cutlass/cute.py)\n\x07")
    assert text == "no 'Arch' (cutlass/cute.py) \\x07"
    assert short("") == ""
