"""Low-res logits to full-size ones.

The reference resizes twice, low-res to model frame and, after cutting the padding off, model frame
to image. Both are separable and linear, so each axis is one matrix, the product of the two.

Shapes: `M` masks, `h w` low-res, `H W` image.
"""

from __future__ import annotations

from typing import Any

from keras import ops


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
