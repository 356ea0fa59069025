"""The two resizes of postprocessing, pixel by pixel: what the fast matrices are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def bilinear(images: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """Resize the last two axes: half-pixel centres, edges repeated, no antialiasing."""
    height, width = images.shape[-2:]
    y0, y1, y_share = _neighbours(height, size[0])
    x0, x1, x_share = _neighbours(width, size[1])
    rows = images.astype(np.float64)
    rows = rows[..., y0, :] * (1 - y_share)[:, None] + rows[..., y1, :] * y_share[:, None]
    return np.asarray(rows[..., x0] * (1 - x_share) + rows[..., x1] * x_share, np.float64)


def two_resizes(
    logits: NDArray[Any], img_size: int, input_hw: tuple[int, int], output_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """Bring low-res logits to the model frame, cut the padding off, bring the rest to the image."""
    frame = bilinear(logits, (img_size, img_size))
    return bilinear(frame[..., : input_hw[0], : input_hw[1]], output_hw)


def _neighbours(
    input_size: int, output_size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    centres = (np.arange(output_size) + 0.5) * (input_size / output_size) - 0.5
    centres = np.maximum(centres, 0.0)
    lower = np.minimum(np.floor(centres).astype(np.intp), input_size - 1)
    upper = np.minimum(lower + 1, input_size - 1)
    return lower, upper, centres - lower
