"""Cuts augmented views of labelled images: part, shape, turn and colours drawn by a generator.

A view is what the model sees of a photograph: its longer side fills the model's frame, the rest is
padding below or to the right.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.sam.presets import PIXEL_MEAN

#: Share of views that are not square, as most photographs.
_OBLONG_SHARE = 0.5
_LEAST_ASPECT = 0.6
#: Share of views that show a part of the image.
_PART_SHARE = 0.6
_LEAST_SIDE = 0.4
_GRAY_SHARE = 0.12
_TURN_PROBABILITIES = (0.76, 0.08, 0.08, 0.08)


def whole_view(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], *, size: int, label_size: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Give an image as it is, resized to the model's frame and padded.

    Args:
        image: uint8 `(height, width, 3)` RGB.
        labels: uint8 `(L, height, width)`, 0 where a level has no mask.
        size: Side of the view in pixels.
        label_size: Side of its label maps in pixels.

    Returns:
        The view, float32 `(size, size, 3)` in 0 to 255, padded with the mean colour, and its label
        maps `(L, label_size, label_size)`, padded with 0.
    """
    height, width = image.shape[:2]
    return _cut(image, labels, (0, 0, height, width), size, label_size)


def augmented_view(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    *,
    size: int,
    label_size: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Give a random part of an image, mirrored, turned and recoloured.

    Args:
        rng: Source of randomness.
        image: uint8 `(height, width, 3)` RGB.
        labels: uint8 `(L, height, width)`, 0 where a level has no mask.
        size: Side of the view in pixels.
        label_size: Side of its label maps in pixels.

    Returns:
        As `whole_view`.
    """
    turns = int(rng.choice(4, p=_TURN_PROBABILITIES))
    image, labels = np.rot90(image, turns), np.rot90(labels, turns, axes=(1, 2))
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, :, ::-1]
    pixels, labels = _cut(image, labels, _draw_part(rng, image.shape[:2]), size, label_size)
    return _recoloured(rng, pixels), labels


def _draw_part(rng: np.random.Generator, image_size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a part."""
    height, width = float(image_size[0]), float(image_size[1])
    if rng.random() < _PART_SHARE:
        scale = rng.uniform(_LEAST_SIDE, 1.0)
        height, width = height * scale, width * scale
    if rng.random() < _OBLONG_SHARE:
        aspect = rng.uniform(_LEAST_ASPECT, 1.0)
        if rng.random() < 0.7:  # photographs are wide more often than tall
            height = min(height, width * aspect)
        else:
            width = min(width, height * aspect)
    rows, columns = max(8, int(height)), max(8, int(width))
    rows, columns = min(rows, image_size[0]), min(columns, image_size[1])
    top = int(rng.integers(image_size[0] - rows + 1))
    left = int(rng.integers(image_size[1] - columns + 1))
    return top, left, rows, columns


def _cut(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    part: tuple[int, int, int, int],
    size: int,
    label_size: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    top, left, height, width = part
    longest = max(height, width)
    rows, columns = (max(1, round(side * size / longest)) for side in (height, width))
    piece = np.ascontiguousarray(image[top : top + height, left : left + width])
    resized = Image.fromarray(piece).resize((columns, rows), Image.Resampling.BILINEAR)
    pixels = np.empty((size, size, 3), np.float32)
    pixels[:] = PIXEL_MEAN
    pixels[:rows, :columns] = np.asarray(resized)
    cut = np.zeros((len(labels), label_size, label_size), np.uint8)
    at = ((np.arange(label_size) + 0.5) * longest / label_size).astype(int)
    at_rows, at_columns = at[at < height], at[at < width]
    cut[:, : len(at_rows), : len(at_columns)] = labels[
        :, (top + at_rows)[:, None], left + at_columns
    ]
    return pixels, cut


def _recoloured(rng: np.random.Generator, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change saturation, brightness and white balance; the padding keeps the mean colour."""
    padding = (pixels == np.asarray(PIXEL_MEAN, np.float32)).all(axis=2)
    gray = pixels.mean(axis=2, keepdims=True)
    saturation = 0.0 if rng.random() < _GRAY_SHARE else rng.uniform(0.4, 1.2)
    gain = rng.uniform(0.7, 1.25) * rng.uniform(0.92, 1.08, 3)
    pixels = (gray + (pixels - gray) * saturation) * gain + rng.uniform(-20.0, 20.0)
    recoloured: NDArray[np.float32] = np.clip(pixels, 0.0, 255.0).astype(np.float32)
    recoloured[padding] = PIXEL_MEAN
    return recoloured
