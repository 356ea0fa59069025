"""What every source gives: images with masks that are decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: A side longer than this is no photograph to train on.
MAX_SIDE = 20_000
#: An image with more masks is taken for a broken file.
MAX_MASKS = 20_000

Labelled = tuple[NDArray[np.uint8], NDArray[np.bool_]]


class LabelledImage(Protocol):
    """An image with masks; nothing of it is kept in memory but where it lies."""

    @property
    def name(self) -> str:
        """What messages call it; the same wherever the data lie."""
        ...

    @property
    def height(self) -> int:
        """Rows of pixels, as stored."""
        ...

    @property
    def width(self) -> int:
        """Columns of pixels, as stored."""
        ...

    def read(self, longest_side: int) -> Labelled:
        """Decode the image and its masks, smaller if they are larger than that.

        Args:
            longest_side: Upper limit of the result's longer side, in pixels.

        Returns:
            RGB uint8 `(height, width, 3)` and bool `(masks, height, width)`; masks may overlap, and
            small ones may have lost all their pixels.

        Raises:
            ConfigError: If a file is missing, broken, or does not fit the others.
        """
        ...


def shrink(
    pixels: NDArray[np.uint8], masks: Iterable[NDArray[np.bool_]], longest_side: int
) -> Labelled:
    """Make an image and its masks smaller; one mask is held in full size at a time.

    Args:
        pixels: RGB uint8 `(height, width, 3)`.
        masks: Bool, each `(height, width)`.
        longest_side: See `LabelledImage.read`.

    Returns:
        As `LabelledImage.read`.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, longest_side / max(height, width))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    at_rows, at_columns = _centres(height, rows)[:, None], _centres(width, columns)
    small = [np.ascontiguousarray(mask[at_rows, at_columns]) for mask in masks]
    if scale < 1.0:
        resized = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)
    return pixels, np.stack(small) if small else np.zeros((0, rows, columns), bool)


def masks_of_labels(
    labels: NDArray[np.integer], void: Iterable[int] = ()
) -> Iterator[NDArray[np.bool_]]:
    """Take a label map apart, in the order of its ids; 0 and `void` are no masks."""
    no_masks = {0, *void}
    for number in np.unique(labels).tolist():
        if number not in no_masks:
            yield labels == number


def _centres(old: int, new: int) -> NDArray[np.intp]:
    """Find the pixels in which the centres of fewer pixels lie."""
    return (2 * np.arange(new) + 1) * old // (2 * new)
