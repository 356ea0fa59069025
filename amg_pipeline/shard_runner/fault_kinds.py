"""What an error of a backend means: memory that is full, or a device that is broken."""

from __future__ import annotations

#: How the backends say that a device's memory is full, by class name and by text. None of these
#: errors is a MemoryError, and no backend is imported here.
_MEMORY_CLASSES = frozenset({"ResourceExhaustedError", "OutOfMemoryError"})
_MEMORY_CODE = "RESOURCE_EXHAUSTED"
#: How the backends say that a device is broken until its process ends: every later call fails too.
_BROKEN_DEVICE = (
    "CUDA_ERROR",
    "cudaError",
    "CUDA error",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "device-side assert",
    "uncorrectable ECC",
)


def is_memory_fault(error: BaseException) -> bool:
    """Tell whether an error says that the memory of the process or its device is full."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in _MEMORY_CLASSES
        or _MEMORY_CODE in str(error)
    )


def is_device_fault(error: BaseException) -> bool:
    """Tell whether an error, or what caused it, leaves the accelerator unusable to the process."""
    if is_memory_fault(error):
        return False
    causes = [error, *([error.__cause__] if error.__cause__ else [])]
    return any(sign in str(cause) for cause in causes for sign in _BROKEN_DEVICE)
