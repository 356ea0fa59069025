"""From an image of any size to the model frame: resize, normalise, pad, and coordinates with it.

Frames: the *image frame* is the given image's pixels, the *model frame* the encoder's square input.
Sizes are `(height, width)` and may be Python ints or, while tracing a graph, scalar tensors.

The resize equals Pillow's 8-bit BILINEAR bit for bit, on every backend: the published checkpoints
were trained with it and its rounding is visible in the masks. Pillow multiplies pixels by 22-bit
fixed-point weights. Here the weights are split into three digits of 8 bits; products of 8-bit
numbers summed in float32 are exact, in plain, TF32 and bfloat16 matrix units alike.

Pixels are rounded after each of the two passes, so their order shows in some last bits. It is that
of the Pillow installed, which the reference and the automatic mask generator resize with.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import PIL
from keras import ops
from numpy.typing import NDArray

#: From 13.0 on, Pillow takes rows first where that saves work (python-pillow/Pillow#9549).
_MAY_TAKE_ROWS_FIRST = int(PIL.__version__.split(".")[0]) >= 13
#: Pillow's fixed-point precision: 32 bits less 8 of the pixel and 2 spare.
_WEIGHT_BITS = 22
_DIGIT_BITS = 8
_NUM_DIGITS = 3


def longest_side_size(height: Any, width: Any, img_size: int) -> tuple[Any, Any]:
    """Give the size of an image whose longer side is scaled to `img_size`, rounded half up.

    Args:
        height: Rows; int or scalar tensor.
        width: Columns; int or scalar tensor.
        img_size: Side of the model frame in pixels.

    Returns:
        `(height, width)` in the model frame; ints for ints, else int32 tensors.

    Source: `ResizeLongestSide.get_preprocess_shape` of the reference, in float64 like there. A side
    never falls below one pixel, where the reference fails.
    """
    if isinstance(height, int) and isinstance(width, int):
        scale = img_size / max(height, width)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)
    height, width = ops.cast(height, "float64"), ops.cast(width, "float64")
    scale = img_size / ops.maximum(height, width)
    return tuple(
        ops.cast(ops.maximum(ops.floor(side * scale + 0.5), 1.0), "int32")
        for side in (height, width)
    )


def resize_uint8(images: Any, size: tuple[Any, Any]) -> Any:
    """Resize images as Pillow's BILINEAR does with 8-bit pixels.

    Args:
        images: `(B, H, W, C)` with levels 0 to 255 in any dtype; float levels are rounded.
        size: `(height, width)` of the result.

    Returns:
        float32 `(B, height, width, C)` with whole levels.

    Source: `ImagingResample` of Pillow: a triangle filter widened when shrinking, along one axis
    after the other, rounded to 8 bits after each pass.
    """
    levels = ops.cast(images, "float32")
    if not _is_uint8(images):
        levels = ops.clip(ops.floor(levels + 0.5), 0.0, 255.0)
    input_size = (_axis_size(images, 1), _axis_size(images, 2))
    rows_first = _takes_rows_first(input_size, size)

    def resize_rows(x: Any) -> Any:
        return _resample(x, "oh,bhwc->bowc", input_size[0], size[0])

    def resize_columns(x: Any) -> Any:
        return _resample(x, "ow,bhwc->bhoc", input_size[1], size[1])

    if isinstance(rows_first, bool):
        first, second = resize_columns, resize_rows
        if rows_first:
            first, second = second, first
        return second(first(levels))
    return ops.cond(
        rows_first,
        lambda: resize_columns(resize_rows(levels)),
        lambda: resize_rows(resize_columns(levels)),
    )


def scale_coordinates(
    coordinates: Any, image_size: tuple[Any, Any], input_size: tuple[Any, Any]
) -> Any:
    """Bring XY coordinates from the image frame to the model frame.

    Args:
        coordinates: Points `(..., 2)` or XYXY boxes `(..., 4)` in pixels of the image.
        image_size: `(height, width)` of the image.
        input_size: `(height, width)` of the resized image in the model frame, without padding.

    Returns:
        float32 of the same shape, in pixels of the model frame.
    """
    scale_y, scale_x = (
        ops.cast(into, "float32") / ops.cast(side, "float32")
        for into, side in zip(input_size, image_size, strict=True)
    )
    factors = ops.stack([scale_x, scale_y] * (coordinates.shape[-1] // 2))
    return ops.cast(coordinates, "float32") * factors


def pad_to_square(images: Any, img_size: int) -> Any:
    """Zero-pad `(B, h, w, C)` at the right and bottom to `(B, img_size, img_size, C)`."""
    height, width = _axis_size(images, 1), _axis_size(images, 2)
    padded = ops.pad(images, ((0, 0), (0, img_size - height), (0, img_size - width), (0, 0)))
    return ops.reshape(padded, (-1, img_size, img_size, images.shape[-1]))


def _takes_rows_first(input_size: tuple[Any, Any], output_size: tuple[Any, Any]) -> Any:
    """Tell which pass Pillow makes first; a bool, or a scalar tensor for sizes that are tensors."""
    if not _MAY_TAKE_ROWS_FIRST:
        return False
    fewer_rows, fewer_columns = (
        into - out for into, out in zip(input_size, output_size, strict=True)
    )
    saves_work = fewer_rows > 2 * fewer_columns
    if isinstance(saves_work, bool):
        return fewer_rows > 0 and saves_work
    return ops.logical_and(fewer_rows > 0, saves_work)


def _resample(levels: Any, equation: str, input_size: Any, output_size: Any) -> Any:
    known = isinstance(input_size, int) and isinstance(output_size, int)
    if known and input_size == output_size:
        return levels
    total: Any = None
    for digit in _fixed_point_digits(input_size, output_size):
        product = ops.cast(ops.einsum(equation, ops.cast(digit, "float32"), levels), "int32")
        total = product if total is None else total * 2**_DIGIT_BITS + product
    rounded = ops.floor_divide(total + 2 ** (_WEIGHT_BITS - 1), 2**_WEIGHT_BITS)
    return ops.cast(ops.clip(rounded, 0, 255), "float32")


def _fixed_point_digits(input_size: Any, output_size: Any) -> list[Any]:
    """Split Pillow's weights `(output_size, input_size)` into 8-bit digits, highest first."""
    weights: Any
    if isinstance(input_size, int) and isinstance(output_size, int):
        weights = _pillow_weights_static(input_size, output_size)
        xp: Any = np
    else:
        weights = _pillow_weights(ops, ops.cast(input_size, "float64"), input_size, output_size)
        xp = ops
    digits = []
    for _ in range(_NUM_DIGITS):
        higher = xp.floor(weights / 2**_DIGIT_BITS)
        digits.append(weights - higher * 2**_DIGIT_BITS)
        weights = higher
    return digits[::-1]


def _pillow_weights_static(input_size: int, output_size: int) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = _pillow_weights(
        np, np.float64(input_size), input_size, output_size
    )
    return weights


def _pillow_weights(xp: Any, exact_size: Any, input_size: Any, output_size: Any) -> Any:
    """Compute Pillow's fixed-point weights with NumPy or `keras.ops`; float64, whole numbers."""
    sources = xp.arange(input_size, dtype="float64")
    targets = xp.arange(output_size, dtype="float64")
    scale = exact_size / (targets[-1] + 1.0)
    support = xp.maximum(scale, 1.0)
    centers = (targets + 0.5) * scale
    distances = (sources[None, :] - centers[:, None] + 0.5) / support
    weights = xp.maximum(1.0 - xp.abs(distances), 0.0)
    weights = weights / xp.sum(weights, axis=1, keepdims=True)
    return xp.floor(weights * 2.0**_WEIGHT_BITS + 0.5)


def _is_uint8(images: Any) -> bool:
    return bool(keras.backend.standardize_dtype(images.dtype) == "uint8")


def _axis_size(tensor: Any, axis: int) -> Any:
    """Give an axis' length as an int where it is known, else as a tensor."""
    return ops.shape(tensor)[axis]
