"""What an error of torch, CUDA or Triton says about the device: it has too little memory, or it failed."""

import sys
from typing import Any, Final

OUT_OF_MEMORY: Final = (
    "out of memory",  # of torch's allocator, the CUDA runtime, the CUDA driver and Triton
    "_STATUS_ALLOC_FAILED",  # of cuBLAS, cuDNN and cuSOLVER, which allocate by themselves
    "unable to find an engine to execute",  # of cuDNN, when the workspace of no algorithm fits
    "DefaultCPUAllocator: can't allocate memory",
)
"""Parts of the errors of an allocation that failed, many of which are plain RuntimeErrors."""

DEVICE_FAULTS: Final = (
    *("CUDA error", "CUDA driver error", "CUDA unknown error", "CUDA initialization", "Triton Error [CUDA]"),
    *("CUBLAS_STATUS_", "CUDNN_STATUS_", "CUSOLVER_STATUS_", "cuDNN error", "device-side assert"),
    *("uncorrectable ECC error", "no kernel image is available", "Xid", "NVML", "nvml"),
    *("No CUDA GPUs are available", "NVIDIA driver", "not compiled with CUDA enabled", "Invalid device id"),
)
"""Parts of the errors of a device that failed or is not there."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or by torch on the CPU. The process can continue."""
    return isinstance(error, RuntimeError) and _has(error, OUT_OF_MEMORY)


def is_device_fault(error: BaseException) -> bool:
    """Whether the device failed, which makes it useless to this process: every later call fails too."""
    if is_out_of_memory(error):
        return False
    torch: Any = sys.modules.get("torch")
    # torch before 2.8 raises a plain RuntimeError, and so do cuBLAS and cuDNN.
    if torch is not None and isinstance(error, getattr(torch, "AcceleratorError", ())):
        return True
    return isinstance(error, RuntimeError | AssertionError) and _has(error, DEVICE_FAULTS)


def _has(error: BaseException, parts: tuple[str, ...]) -> bool:
    text = str(error)
    return any(part in text for part in parts)
