"""Masks drawn over their photo: a coloured fill and an outline for each, the largest lowest.

Colours depend on a mask's place in the order of drawing alone, so that the same row always gives
the same picture, and a page's script draws in the same colours.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.report.sampled_masks import SampledMask

#: Share of the colour in a filled pixel; the rest is the photo.
FILL_OPACITY = 0.38
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


def draw_masks(photo: NDArray[np.uint8], masks: Sequence[SampledMask]) -> NDArray[np.uint8]:
    """Draw masks over a picture.

    Where masks overlap, the last shows: the smallest, since a part usually lies on its whole.

    Args:
        photo: The picture, uint8 `(height, width, 3)` RGB.
        masks: As `sample_masks` gives them for a picture of that size.

    Returns:
        Another picture, uint8 RGB.
    """
    owner = np.full(photo.shape[:2], -1, np.int32)
    outline = np.zeros(photo.shape[:2], np.bool_)
    thickness = max(1, round(max(photo.shape[:2]) * OUTLINE_WIDTH))
    for number, mask in enumerate(masks):
        owner[mask.slices][mask.pixels] = number
        border = find_border(mask, photo.shape[:2], thickness=thickness)
        outline[mask.slices][mask.pixels] = border[mask.pixels]
    return _blend(photo, owner, outline, mask_colours(len(masks)))


def picture_size(width: int, height: int, *, max_side: int) -> tuple[int, int]:
    """Give the width and height of an image that is shrunk to a long side of `max_side` pixels."""
    scale = min(1.0, max_side / max(width, height, 1))
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(pixels: NDArray[np.uint8], *, max_side: int) -> NDArray[np.uint8]:
    """Shrink an image until its long side has at most `max_side` pixels; never enlarge it."""
    height, width = pixels.shape[:2]
    size = picture_size(width, height, max_side=max_side)
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def find_border(
    mask: SampledMask, picture_hw: tuple[int, ...], *, thickness: int
) -> NDArray[np.bool_]:
    """Pixels of a mask within `thickness` steps of its outside; the picture's edge is no border."""
    bottom, right = (part.stop for part in mask.slices)
    is_edge = ((mask.top == 0, bottom == picture_hw[0]), (mask.left == 0, right == picture_hw[1]))
    inner = mask.pixels
    for axis in (0, 1):
        for side in (0, 1):
            pad = [(0, 0), (0, 0)]
            pad[axis] = (thickness, 0) if side == 0 else (0, thickness)
            # What goes on beyond the picture has no border there.
            inner = np.pad(inner, pad, mode="edge" if is_edge[axis][side] else "constant")
    for _ in range(thickness):
        shrunk = inner.copy()
        shrunk[1:] &= inner[:-1]
        shrunk[:-1] &= inner[1:]
        shrunk[:, 1:] &= inner[:, :-1]
        shrunk[:, :-1] &= inner[:, 1:]
        inner = shrunk
    border: NDArray[np.bool_] = mask.pixels & ~inner[thickness:-thickness, thickness:-thickness]
    return border


def _blend(
    photo: NDArray[np.uint8],
    owner: NDArray[np.int32],
    outline: NDArray[np.bool_],
    colours: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    # One row for what no mask covers, then a fill and an outline for each mask. Shares of 256 keep
    # a picture of megapixels in 16-bit integers.
    fills = colours.astype(np.float64)
    # Outlines are lighter than fills, so that they stand out on both of them and on the photo.
    outlines = 0.55 * fills + 0.45 * 255.0
    shares = np.array([round(256 * FILL_OPACITY), round(256 * OUTLINE_OPACITY)], np.uint16)
    shares_of_all = np.concatenate([np.zeros(2, np.uint16), np.tile(shares, len(colours))])
    shades = np.concatenate([np.zeros((2, 3)), np.stack([fills, outlines], 1).reshape(-1, 3)])
    added: NDArray[np.uint16] = (shades * shares_of_all[:, None]).round().astype(np.uint16)
    kept: NDArray[np.uint16] = 256 - shares_of_all
    which = 2 * (owner + 1) + outline
    mixed = photo.astype(np.uint16)
    mixed *= kept[which][..., None]
    mixed += added[which]
    mixed += 128
    picture: NDArray[np.uint8] = (mixed >> 8).astype(np.uint8)
    return picture
