"""How numbers are distributed, counted while they pass: narrow bins, joined to bars at the end.

What is kept does not grow with the numbers, and any median is exact to a bin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Values that wait before they are counted at once.
_WAITING = 2**16


@dataclass(frozen=True, slots=True)
class Bar:
    """Number of values between two positions on an axis."""

    start: float
    end: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How values lie on an axis.

    Attributes:
        to_position: From values to places on the axis, which begins at 0.
        to_value: From a place to a value.
        bins: Narrow bins of one unit of the axis.
        length: Units of the axis; what lies beyond is counted in the last bin.
        widths: Narrow bins that a bar may join, ascending.
        is_closed_above: Whether a value on a border belongs to the bin below it.
    """

    to_position: Callable[[NDArray[Any]], NDArray[np.float64]]
    to_value: Callable[[float], float]
    bins: int
    length: int
    widths: tuple[int, ...]
    is_closed_above: bool = False


def _as_float(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype(np.float64)


def _log2(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.log2(np.maximum(values.astype(np.float64), 1.0))


#: Predicted IoU and stability: 1 belongs to the bar that ends there. A model may say more than 1.
SCORES = Scale(
    to_position=_as_float,
    to_value=float,
    bins=1000,
    length=2,
    widths=(5, 10, 20, 50, 100),
    is_closed_above=True,
)
#: Areas in pixels, by powers of two.
AREAS = Scale(
    to_position=_log2,
    to_value=lambda position: 2.0**position,
    bins=32,
    length=40,
    widths=(16, 32, 64),
)
#: Numbers of things.
NUMBERS = Scale(
    to_position=_as_float,
    to_value=float,
    bins=1,
    length=2**16,
    widths=tuple(step * 10**power for power in range(5) for step in (1, 2, 5)),
)


class Distribution:
    """Counts values of one kind.

    Args:
        scale: Their axis.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._counts = np.zeros(scale.length * scale.bins, np.int64)
        self._waiting: list[NDArray[Any]] = []
        self._num_waiting = 0
        self._num_nan = 0

    def add(self, values: NDArray[Any]) -> None:
        """Count some values."""
        self._waiting.append(values)
        self._num_waiting += len(values)
        if self._num_waiting >= _WAITING:
            self._count_waiting()

    @property
    def total(self) -> int:
        """Number of values, without those that are no number."""
        self._count_waiting()
        return int(self._counts.sum())

    @property
    def num_nan(self) -> int:
        """Number of values that are no number."""
        self._count_waiting()
        return self._num_nan

    def quantile(self, part: float) -> float | None:
        """Give the value below which `part` of all lie; None where there are none."""
        total = self.total
        if not total:
            return None
        at = int(np.searchsorted(np.cumsum(self._counts), max(1, np.ceil(part * total))))
        # The middle of a narrow bin; of whole numbers, each has a bin of its own.
        middle = 0.0 if self.scale.bins == 1 else 0.5
        return self.scale.to_value((at + middle) / self.scale.bins)

    def bars(self, *, most: int = 32) -> tuple[Bar, ...]:
        """Join bins to at most `most` bars where the values are; empty ones between them too."""
        self._count_waiting()
        filled = np.flatnonzero(self._counts)
        if not len(filled):
            return ()
        first, last = int(filled[0]), int(filled[-1])
        fitting = (w for w in self.scale.widths if last // w - first // w < most)
        width = next(fitting, self.scale.widths[-1])
        start, stop = first // width * width, (last // width + 1) * width
        padded = np.zeros(stop - start, np.int64)
        part = self._counts[start:stop]
        padded[: len(part)] = part
        counts = padded.reshape(-1, width).sum(axis=1).tolist()
        unit = self.scale.bins
        return tuple(
            Bar((start + i * width) / unit, (start + (i + 1) * width) / unit, count)
            for i, count in enumerate(counts)
        )

    def _count_waiting(self) -> None:
        if not self._waiting:
            return
        values = np.concatenate(self._waiting)
        self._waiting, self._num_waiting = [], 0
        is_nan = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
        self._num_nan += int(is_nan.sum())
        positions = self.scale.to_position(values[~is_nan]) * self.scale.bins
        # float32 misses a border such as 0.9 by some 1e-5 of a bin.
        if self.scale.is_closed_above:
            bins = np.ceil(positions - 1e-3) - 1
        else:
            bins = np.floor(positions + 1e-3)
        bins = bins.clip(0, len(self._counts) - 1).astype(np.intp)
        self._counts += np.bincount(bins, minlength=len(self._counts))
