"""The pixels of stored masks, decoded no wider than their boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.rle import decode_window
from amg_pipeline.errors import StorageError
from amg_pipeline.storage.coco_rle import parse_rle
from amg_pipeline.storage.image_masks import ImageMasks


@dataclass(frozen=True, slots=True)
class MaskWindow:
    """The part of a mask that has set pixels.

    Attributes:
        pixels: Bool `(rows, columns)`.
        left: Column of the image where it begins.
        top: Row of the image where it begins.
    """

    pixels: NDArray[np.bool_]
    left: int
    top: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns of the image that it covers."""
        rows, columns = self.pixels.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)


def decode_windows(image: ImageMasks) -> Iterator[MaskWindow]:
    """Decode the masks of an image, one by one.

    Raises:
        StorageError: If one is malformed.
    """
    boxes = image.bbox_xywh.astype(int).tolist()
    for counts, (left, top, columns, rows) in zip(image.counts, boxes, strict=True):
        try:
            rle = parse_rle(counts, height=image.height, width=image.width)
        except ValueError as error:
            raise StorageError(
                f"The masks of {image.image_id!r} must be valid. Received: {error}. Find the "
                "damaged ones with `amg verify`"
            ) from error
        pixels = decode_window(rle, (left, top, left + columns, top + rows))
        yield MaskWindow(pixels, left, top)
