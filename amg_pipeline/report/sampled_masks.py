"""The masks of an image in the size of its picture, each no wider than its box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.rle import decode_window, rle_from_coco
from amg_pipeline.storage.image_masks import ImageMasks


@dataclass(frozen=True, slots=True, eq=False)
class SampledMask:
    """The part of a mask that has set pixels, in the picture's frame.

    Attributes:
        index: Number of the mask in its row.
        pixels: Bool `(rows, columns)`, at least one of them set.
        left: Column of the picture where it begins.
        top: Row of the picture where it begins.
    """

    index: int
    pixels: NDArray[np.bool_]
    left: int
    top: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns of the picture that it covers."""
        rows, columns = self.pixels.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)


def sample_masks(image: ImageMasks, *, width: int, height: int) -> list[SampledMask]:
    """Take the masks' pixels below the centres of a picture's pixels; nothing is blurred.

    A mask that no centre lies on is one pixel of the picture, so that it is not lost; one without
    a pixel is left out.

    Args:
        image: The masks, in the image frame.
        width: Columns of the picture.
        height: Rows of the picture.

    Returns:
        The masks by falling area, so that parts are drawn over their wholes.

    Raises:
        StorageError: If a mask's counts are malformed.
    """
    columns, rows = _centres(width, image.width), _centres(height, image.height)
    order = np.argsort(-image.area, kind="stable")
    sampled = (_sample(image, int(index), columns, rows) for index in order)
    return [mask for mask in sampled if mask is not None]


def _sample(
    image: ImageMasks, index: int, columns: NDArray[np.intp], rows: NDArray[np.intp]
) -> SampledMask | None:
    rle = rle_from_coco({"size": (image.height, image.width), "counts": image.counts[index]})
    left, top, right, bottom = _box(image, index)
    if left >= right or top >= bottom:
        return None
    first_column, end_column = (int(i) for i in np.searchsorted(columns, (left, right)))
    first_row, end_row = (int(i) for i in np.searchsorted(rows, (top, bottom)))
    if first_column < end_column and first_row < end_row:
        window = decode_window(rle, (left, top, right, bottom))
        inside = np.ix_(rows[first_row:end_row] - top, columns[first_column:end_column] - left)
        pixels = window[inside]
        if pixels.any():
            return SampledMask(index, pixels, first_column, first_row)
    one = np.ones((1, 1), np.bool_)
    column = min(int(np.searchsorted(columns, (left + right) // 2)), len(columns) - 1)
    row = min(int(np.searchsorted(rows, (top + bottom) // 2)), len(rows) - 1)
    return SampledMask(index, one, column, row)


def _box(image: ImageMasks, index: int) -> tuple[int, int, int, int]:
    """Corners of a mask's box, right and bottom exclusive, none outside of the image."""
    left, top, box_width, box_height = (int(side) for side in image.bbox_xywh[index])
    right, bottom = min(left + box_width, image.width), min(top + box_height, image.height)
    return max(left, 0), max(top, 0), right, bottom


def _centres(count: int, source: int) -> NDArray[np.intp]:
    """Index of the source pixel below the centre of each of `count` pixels."""
    centres = (np.arange(count) + 0.5) * (source / count)
    return np.minimum(centres.astype(np.intp), source - 1)
