"""What the backends' errors mean, by their names and texts."""

from __future__ import annotations

import pytest

from amg_pipeline.shard_runner.fault_kinds import is_device_fault, is_memory_fault


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


def _caused_by(cause: Exception) -> Exception:
    error = RuntimeError("the step failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_memory", "is_device"),
    [
        pytest.param(MemoryError(), True, False, id="host"),
        pytest.param(OutOfMemoryError("CUDA error: out of memory"), True, False, id="torch"),
        pytest.param(RuntimeError("RESOURCE_EXHAUSTED: CUDA_ERROR"), True, False, id="jax"),
        pytest.param(RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS"), False, True, id="driver"),
        pytest.param(_caused_by(ValueError("device-side assert")), False, True, id="cause"),
        pytest.param(ValueError("a bug"), False, False, id="program"),
    ],
)
def test_kinds(error: Exception, is_memory: bool, is_device: bool) -> None:
    assert (is_memory_fault(error), is_device_fault(error)) == (is_memory, is_device)
