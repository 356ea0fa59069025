"""Binary masks kept small: eight pixels a byte, cropped to the mask's box.

Bits run down a column, eight rows a byte, the most significant bit on top, the same layout as
`MaskBatch.packed`. A mask of a megapixel's object takes some kilobytes, so that thousands can
wait for the suppression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROWS_PER_BYTE = 8


@dataclass(frozen=True, slots=True)
class PackedMask:
    """The part of a mask that can hold set pixels, in the frame of a crop or an image.

    Attributes:
        columns: Bits of the columns from `left` on, each from row `top` down: uint8
            `(num_columns, num_bytes)`.
        left: First column.
        top: First row; a multiple of 8, so that masks of one frame share byte borders.
    """

    columns: NDArray[np.uint8]
    left: int
    top: int

    @property
    def area(self) -> int:
        """Number of set pixels."""
        return int(np.bitwise_count(self.columns).sum(dtype=np.int64))


def crop_packed(packed: NDArray[np.uint8], box_xyxy: NDArray[np.int64]) -> PackedMask:
    """Copy the bytes of a mask that its box covers.

    Args:
        packed: One mask of a `MaskBatch`, uint8 `(width, ceil(height / 8))`.
        box_xyxy: The mask's inclusive corners, `(4,)`.
    """
    x0, y0, x1, y1 = (int(side) for side in box_xyxy)
    first, last = y0 // _ROWS_PER_BYTE, y1 // _ROWS_PER_BYTE
    # A copy, because a view would keep the whole batch alive.
    columns = packed[x0 : x1 + 1, first : last + 1].copy()
    return PackedMask(columns, left=x0, top=first * _ROWS_PER_BYTE)


def pack_mask(mask: NDArray[np.bool_], *, left: int = 0, top: int = 0) -> PackedMask:
    """Pack a bool `(height, width)` array whose pixel [0, 0] lies at column `left`, row `top`."""
    unaligned = PackedMask(np.packbits(mask.T, axis=1), left=left, top=0)
    return shift_mask(unaligned, dx=0, dy=top)


def shift_mask(mask: PackedMask, *, dx: int, dy: int) -> PackedMask:
    """Move a mask right by `dx` and down by `dy` pixels, to another frame."""
    row = mask.top + dy
    offset = row % _ROWS_PER_BYTE
    if offset == 0:
        return PackedMask(mask.columns, left=mask.left + dx, top=row)
    num_columns, num_bytes = mask.columns.shape
    columns = np.zeros((num_columns, num_bytes + 1), np.uint8)
    columns[:, :-1] = mask.columns >> offset
    columns[:, 1:] |= mask.columns << (_ROWS_PER_BYTE - offset)
    return PackedMask(columns, left=mask.left + dx, top=row - offset)


def unpack_window(mask: PackedMask, window_xyxy: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Cut a rectangle out of a mask.

    Args:
        mask: The mask; outside its stored part it is empty.
        window_xyxy: Corners in the mask's frame, right and bottom exclusive.

    Returns:
        Bool `(bottom - top, right - left)`.
    """
    x0, y0, x1, y1 = window_xyxy
    bits = np.unpackbits(mask.columns, axis=1).view(bool).T
    rows, columns = bits.shape
    left, right = max(x0, mask.left), min(x1, mask.left + columns)
    top, bottom = max(y0, mask.top), min(y1, mask.top + rows)
    window = np.zeros((y1 - y0, x1 - x0), bool)
    if left < right and top < bottom:
        window[top - y0 : bottom - y0, left - x0 : right - x0] = bits[
            top - mask.top : bottom - mask.top, left - mask.left : right - mask.left
        ]
    return window


def intersection_area(first: PackedMask, second: PackedMask) -> int:
    """Count the pixels that are set in both of two masks of the same frame."""
    left = max(first.left, second.left)
    right = min(first.left + len(first.columns), second.left + len(second.columns))
    top = max(first.top, second.top)
    bottom = min(_bottom(first), _bottom(second))
    if left >= right or top >= bottom:
        return 0
    window = (left, right, top, bottom)
    common = _bytes_of(first, window) & _bytes_of(second, window)
    return int(np.bitwise_count(common).sum(dtype=np.int64))


def _bottom(mask: PackedMask) -> int:
    num_bytes: int = mask.columns.shape[1]
    return mask.top + num_bytes * _ROWS_PER_BYTE


def _bytes_of(mask: PackedMask, window: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    left, right, top, bottom = window
    first, last = (top - mask.top) // _ROWS_PER_BYTE, (bottom - mask.top) // _ROWS_PER_BYTE
    return mask.columns[left - mask.left : right - mask.left, first:last]
