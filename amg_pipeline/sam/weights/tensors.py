"""What a weights file holds once it is opened: named tensors that are read one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from amg_pipeline.errors import WeightsError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]

#: How many names an error message lists before it says "and N more".
_LISTED_NAMES = 8

#: Stored types that hold weights; others (step counters, masks) cannot fill a float32 variable.
FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One tensor of a weights file, not read yet.

    Attributes:
        name: Name in the file, or the official name once it is mapped.
        shape: Shape in the layout that goes with `name`.
        dtype: Stored type: a NumPy name or `bfloat16`.
        read: Returns the values in `shape`, in a NumPy type (bfloat16 widened to float32).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Array]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def read_float32(self) -> FloatArray:
        """Read the values as contiguous float32.

        Raises:
            WeightsError: If the stored type holds no weights, or a value is not finite.
        """
        if self.dtype not in FLOAT_DTYPES:
            raise WeightsError(
                f"Weights must be stored as one of {', '.join(FLOAT_DTYPES)}. "
                f"Received: {self.dtype} for {self.name!r}"
            )
        values = np.ascontiguousarray(self.read(), dtype=np.float32)
        if not np.isfinite(values).all():
            raise WeightsError(
                "Weights must be finite float32 numbers. "
                f"Received: NaN, infinity or overflow in {self.name!r}"
            )
        return values.reshape(self.shape)

    def rearranged(
        self, name: str, shape: tuple[int, ...], rearrange: Callable[[Array], Array]
    ) -> SourceTensor:
        """Return the same tensor under another name and in another layout."""
        read = self.read
        return replace(self, name=name, shape=shape, read=lambda: rearrange(read()))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened weights file.

    Attributes:
        format: One of the names in `checkpoint.FORMATS`.
        tensors: By name.
        metadata: Text entries that the file carries beside its tensors.
    """

    format: str
    tensors: Mapping[str, SourceTensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def listed(tensors: Iterable[SourceTensor] | Mapping[str, tuple[int, ...]]) -> str:
    """Write names with shapes for a message, the first few of them."""
    if isinstance(tensors, Mapping):
        pairs = list(tensors.items())
    else:
        pairs = [(tensor.name, tensor.shape) for tensor in tensors]
    shown = ", ".join(f"{name} {shape}" for name, shape in pairs[:_LISTED_NAMES])
    rest = len(pairs) - _LISTED_NAMES
    return f"{shown} and {rest} more" if rest > 0 else shown


def widen_bfloat16(bits: npt.NDArray[np.uint16]) -> FloatArray:
    """Turn bfloat16 bit patterns into the float32 numbers that they stand for."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
