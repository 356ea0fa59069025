"""Masks that wait for the suppression, so that hundreds of a large photo fit into memory.

A mask whose box covers millions of pixels takes hundreds of kilobytes even when packed, and nearly
all of its bytes are alike. Such a mask is kept deflated, and inflated whenever it is asked for:
suppression by boxes never does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.packed_masks import PackedMask, shift_mask

#: Packed masks of more bytes are deflated; a box of two megapixels.
_LARGEST_PLAIN = 256 * 1024
#: The fastest: bits of a mask shrink twentyfold at this level already.
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class _DeflatedMask:
    """A `PackedMask` of which `data` inflates to the columns."""

    data: bytes
    shape: tuple[int, ...]
    left: int
    top: int

    def inflate(self) -> PackedMask:
        columns = np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(self.shape)
        return PackedMask(columns, left=self.left, top=self.top)


class KeptMasks(Sequence[PackedMask]):
    """An immutable sequence of packed masks.

    Args:
        masks: Taken one at a time, so that a generator's are never all alive.
    """

    __slots__ = ("_kept",)

    def __init__(self, masks: Iterable[PackedMask] = ()) -> None:
        self._kept = tuple(_deflate_if_large(mask) for mask in masks)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> PackedMask: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> PackedMask | Self:
        if isinstance(index, slice):
            return self._of(self._kept[index])
        kept = self._kept[index]
        return kept.inflate() if isinstance(kept, _DeflatedMask) else kept

    def take(self, indices: NDArray[np.intp]) -> Self:
        """Select masks by index, in the given order."""
        return self._of(self._kept[index] for index in indices)

    def shifted(self, *, dx: int, dy: int) -> Self:
        """Move all masks right by `dx` and down by `dy` pixels, to another frame."""
        if dx == dy == 0:
            return self
        return type(self)(shift_mask(mask, dx=dx, dy=dy) for mask in self)

    @classmethod
    def joined(cls, parts: Sequence[KeptMasks]) -> Self:
        """Join the masks of several in their order."""
        return cls._of(kept for part in parts for kept in part._kept)

    @classmethod
    def _of(cls, kept: Iterable[PackedMask | _DeflatedMask]) -> Self:
        masks = cls()
        masks._kept = tuple(kept)
        return masks


def _deflate_if_large(mask: PackedMask) -> PackedMask | _DeflatedMask:
    if mask.columns.nbytes <= _LARGEST_PLAIN:
        return mask
    data = zlib.compress(mask.columns.tobytes(), _LEVEL)
    return _DeflatedMask(data, mask.columns.shape, left=mask.left, top=mask.top)
