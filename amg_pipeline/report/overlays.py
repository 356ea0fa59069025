"""Masks drawn over their photo: a coloured fill and an outline for each, the largest lowest.

A mask here is a row's dict as the mask table stores it; only `counts` and `area` are read. Colours
depend on a mask's place in its row alone, so that the same row always gives the same picture.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.amg.rle import decode_mask, rle_from_coco

#: Share of the colour in a filled pixel; the rest is the photo.
FILL_OPACITY = 0.45
#: The same on an outline.
OUTLINE_OPACITY = 0.95
#: Outline width as a share of the picture's long side; at least one pixel.
OUTLINE_WIDTH = 1 / 500

_GOLDEN_RATIO_CONJUGATE = 0.618033988749895


def mask_colours(count: int) -> NDArray[np.uint8]:
    """Choose a colour for each of `count` masks, RGB uint8 `(count, 3)`.

    Neighbours in the list differ strongly: hues step by the golden ratio, while lightness and
    saturation run through short cycles.
    """
    colours = [
        colorsys.hls_to_rgb(
            (0.58 + i * _GOLDEN_RATIO_CONJUGATE) % 1.0, (0.5, 0.62, 0.42)[i % 3], (0.95, 0.8)[i % 2]
        )
        for i in range(count)
    ]
    return np.round(255.0 * np.array(colours).reshape(count, 3)).astype(np.uint8)


def draw_masks(
    pixels: NDArray[np.uint8],
    masks: Sequence[Mapping[str, Any]],
    *,
    max_side: int | None = None,
) -> NDArray[np.uint8]:
    """Draw the masks of one image over its pixels.

    Where masks overlap, the smallest shows, since a part usually lies on its whole.

    Args:
        pixels: The image, uint8 `(height, width, 3)` RGB, in the frame of the masks.
        masks: Rows of the mask table: COCO `counts` of size `(height, width)`, and `area`.
        max_side: Shrink the picture so that its long side has at most this many pixels.

    Returns:
        The picture, uint8 RGB; a new array.

    Raises:
        StorageError: If a mask's `counts` do not fill an image of that size.
    """
    height, width = pixels.shape[:2]
    photo = shrink(pixels, max_side=max_side)
    # Nearest source pixel of each picture pixel: masks are sampled, never blurred.
    rows = _nearest(photo.shape[0], height)
    columns = _nearest(photo.shape[1], width)
    owner = np.full(photo.shape[:2], -1, np.int32)
    outline = np.zeros(photo.shape[:2], np.bool_)
    thickness = max(1, round(max(photo.shape[:2]) * OUTLINE_WIDTH))
    for index in sorted(range(len(masks)), key=lambda i: (-masks[i]["area"], i)):
        rle = rle_from_coco({"size": (height, width), "counts": masks[index]["counts"]})
        mask = decode_mask(rle)[np.ix_(rows, columns)]
        owner[mask] = index
        outline[mask] = _border(mask, thickness=thickness)[mask]
    return _blend(photo, owner, outline, mask_colours(len(masks)))


def shrink(pixels: NDArray[np.uint8], *, max_side: int | None) -> NDArray[np.uint8]:
    """Shrink an image until its long side has at most `max_side` pixels; never enlarge it."""
    height, width = pixels.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return pixels
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _nearest(count: int, source: int) -> NDArray[np.intp]:
    """Index of the source pixel below the centre of each of `count` pixels."""
    centres = (np.arange(count) + 0.5) * (source / count)
    return np.minimum(centres.astype(np.intp), source - 1)


def _border(mask: NDArray[np.bool_], *, thickness: int) -> NDArray[np.bool_]:
    """Pixels of a mask within `thickness` steps of its outside; the picture's edge is no border."""
    inner = mask.copy()
    for _ in range(thickness):
        shrunk = inner.copy()
        shrunk[1:] &= inner[:-1]
        shrunk[:-1] &= inner[1:]
        shrunk[:, 1:] &= inner[:, :-1]
        shrunk[:, :-1] &= inner[:, 1:]
        inner = shrunk
    border: NDArray[np.bool_] = mask & ~inner
    return border


def _blend(
    photo: NDArray[np.uint8],
    owner: NDArray[np.int32],
    outline: NDArray[np.bool_],
    colours: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    covered = owner >= 0
    picture = photo.copy()
    if not covered.any():
        return picture
    opacity = np.where(outline[covered], OUTLINE_OPACITY, FILL_OPACITY)[:, None]
    colour = colours[owner[covered]].astype(np.float64)
    # Outlines are lighter than fills, so that they stand out on both of them and on the photo.
    colour = np.where(outline[covered][:, None], 0.55 * colour + 0.45 * 255.0, colour)
    mixed = (1.0 - opacity) * photo[covered] + opacity * colour
    picture[covered] = np.round(mixed).astype(np.uint8)
    return picture
