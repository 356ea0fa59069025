"""Low-res logits to full-size masks: resized, thresholded, counted, boxed and packed.

The reference resizes twice, low-res to model frame and, after cutting the padding off, model frame
to image. Both are separable and linear, so each axis is one matrix, the product of the two; the
image is made of it tile by tile, and no full-size logits are held for more than a tile.

Shapes: `M` masks, `h w` low-res, `H W` image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray


def bilinear_weights(input_size: Any, output_size: Any) -> Any:
    """Give the matrix of a one-axis bilinear resize, half-pixel centres, without antialiasing.

    Args:
        input_size: Samples of the input; int or scalar int tensor.
        output_size: Samples of the output; int or scalar int tensor.

    Returns:
        float32 `(output_size, input_size)`.

    Source: `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, which computes
    source positions in float32; so does this, since the fraction's rounding decides pixels.
    """
    scale = ops.cast(input_size, "float32") / ops.cast(output_size, "float32")
    positions = scale * (ops.arange(output_size, dtype="float32") + 0.5) - 0.5
    positions = ops.clip(positions, 0.0, ops.cast(input_size, "float32") - 1.0)
    sources = ops.arange(input_size, dtype="float32")
    return ops.maximum(1.0 - ops.abs(positions[:, None] - sources[None, :]), 0.0)


def resize_weights(low_res_size: int, img_size: int, input_size: Any, output_size: Any) -> Any:
    """Give the matrix of both resizes of one axis.

    Args:
        low_res_size: Samples of the logits.
        img_size: Samples of the model frame.
        input_size: Samples of the model frame that hold image, not padding.
        output_size: Samples of the image.

    Returns:
        float32 `(output_size, low_res_size)`.
    """
    to_model_frame = bilinear_weights(low_res_size, img_size)[:input_size]
    return ops.matmul(bilinear_weights(input_size, output_size), to_model_frame)


def resize_logits(logits: Any, weights_y: Any, weights_x: Any) -> Any:
    """Resize logits `(..., h, w)` with `(H, h)` and `(W, w)` to float32 `(..., H, W)`."""
    logits = ops.cast(logits, "float32")
    return ops.matmul(ops.matmul(weights_y, logits), ops.transpose(weights_x))


def measure_tile(
    logits: Any,
    weights_y: Any,
    weights_x: Any,
    valid_rows: Any,
    mask_threshold: Any,
    stability_score_offset: Any,
) -> tuple[Any, Any, Any, Any, Any]:
    """Make a band of rows of some masks and reduce it to what the algorithm needs.

    Args:
        logits: Low-res logits `(M, h, w)`.
        weights_y: `(R, h)`, R a multiple of 8.
        weights_x: `(W, w)`.
        valid_rows: bool `(R,)`; false rows are padding and count as nothing.
        mask_threshold: Logit above which a pixel is mask.
        stability_score_offset: Distance of the two stability thresholds from it.

    Returns:
        Pixels above the upper and above the lower threshold, int32 `(M,)` each; which rows
        `(M, R)` and which columns `(M, W)` have mask, bool; and the masks by column, eight rows a
        byte, uint8 `(M, W, R / 8)`.
    """
    band = resize_logits(logits, weights_y, weights_x)  # (M, R, W)
    valid = ops.reshape(valid_rows, (1, -1, 1))
    stable = ops.logical_and(band > mask_threshold + stability_score_offset, valid)
    possible = ops.logical_and(band > mask_threshold - stability_score_offset, valid)
    mask = ops.logical_and(band > mask_threshold, valid)
    return (
        ops.sum(ops.cast(stable, "int32"), axis=(1, 2)),
        ops.sum(ops.cast(possible, "int32"), axis=(1, 2)),
        ops.any(mask, axis=2),
        ops.any(mask, axis=1),
        _pack_rows(mask),
    )


def boxes_from_profiles(rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Turn occupied rows `(M, H)` and columns `(M, W)` into inclusive XYXY boxes `(M, 4)`.

    Empty masks get zeros.
    """
    occupied: NDArray[np.bool_] = np.any(rows, axis=1)
    top, left = rows.argmax(axis=1), columns.argmax(axis=1)
    bottom = rows.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)
    right = columns.shape[1] - 1 - columns[:, ::-1].argmax(axis=1)
    boxes = np.stack([left, top, right, bottom], axis=1).astype(np.int64)
    return np.where(occupied[:, None], boxes, 0)


def _pack_rows(mask: Any) -> Any:
    """Pack bool `(M, R, W)` into uint8 `(M, W, R / 8)`, the first row in the highest bit."""
    masks, rows, columns = ops.shape(mask)
    bits = ops.reshape(ops.cast(mask, "int32"), (masks, rows // 8, 8, columns))
    places = ops.reshape(ops.convert_to_tensor(2 ** np.arange(7, -1, -1), "int32"), (1, 1, 8, 1))
    packed = ops.sum(bits * places, axis=2)  # (M, R / 8, W)
    return ops.cast(ops.transpose(packed, (0, 2, 1)), "uint8")
