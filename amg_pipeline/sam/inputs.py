"""What a SAM is called with: checked, and brought to the types that the model computes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

_INPUT_KEYS = ("image", "points", "boxes", "masks", "original_size", "multimask_output")


def checked_image(image: Any) -> Any:
    """Give the images as a tensor `(B, H, W, 3)`, uint8 or float.

    Raises:
        ValueError: If they have another shape or type, or no pixels.
    """
    image = ops.convert_to_tensor(image)
    dtype = keras.backend.standardize_dtype(image.dtype)
    if len(image.shape) != 4 or image.shape[-1] != 3:
        raise ValueError(
            "image must be RGB of shape (B, H, W, 3); add a batch axis to a single image. "
            f"Received: {tuple(image.shape)}"
        )
    if dtype != "uint8" and not keras.backend.is_float_dtype(dtype):
        raise ValueError(f"image must be uint8 or float in 0 to 255. Received dtype: {dtype}")
    if 0 in image.shape:
        raise ValueError(f"image must have pixels. Received: {tuple(image.shape)}")
    return image


def split_inputs(inputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the call's dictionary and part it into tensors and settings.

    Raises:
        ValueError: If a key is missing or unknown, a value has another shape or type, or the batch
            sizes do not fit.
    """
    if not isinstance(inputs, Mapping) or inputs.get("image") is None:
        raise ValueError(
            f"SAM is called with one dictionary that has the key 'image' and any of "
            f"{_INPUT_KEYS[1:]}. Received: {_describe(inputs)}"
        )
    unknown = sorted(set(inputs) - set(_INPUT_KEYS))
    if unknown:
        raise ValueError(f"SAM takes the keys {_INPUT_KEYS}. Received also: {unknown}")
    tensors: dict[str, Any] = {"image": checked_image(inputs["image"])}
    if inputs.get("points") is not None:
        tensors["points"] = _checked_points(inputs["points"])
    if inputs.get("boxes") is not None:
        tensors["boxes"] = _checked_floats(inputs["boxes"], "boxes", "(B, M, 4)", 3)
    if inputs.get("masks") is not None:
        tensors["masks"] = _checked_floats(inputs["masks"], "masks", "(B, 1, h, w)", 4)
    _check_batches(tensors)
    multimask_output = inputs.get("multimask_output")
    settings = {
        "original_size": inputs.get("original_size"),
        "multimask_output": True if multimask_output is None else _as_flag(multimask_output),
    }
    return tensors, settings


def size_pair(size: Any, default: tuple[Any, Any]) -> tuple[Any, Any]:
    """Give `(height, width)`, as ints wherever their values are known; the default for None.

    Raises:
        ValueError: If these are not two sizes of at least 1.
    """
    if size is None:
        return default
    shape = (len(size),) if isinstance(size, (tuple, list)) else getattr(size, "shape", ())
    if tuple(shape) != (2,):
        raise ValueError(f"A size must be (height, width). Received: {_describe(size)}")
    pair = _as_dimension(size[0]), _as_dimension(size[1])
    if any(isinstance(side, int) and side < 1 for side in pair):
        raise ValueError(f"A size (height, width) must be positive. Received: {pair}")
    return pair


def _checked_points(points: Any) -> tuple[Any, Any]:
    if not isinstance(points, (tuple, list)) or len(points) != 2:
        raise ValueError(f"points must be a pair (coords, labels). Received: {_describe(points)}")
    coords, labels = points
    return (
        _checked_floats(coords, "point coords", "(B, N, 2)", 3),
        ops.cast(ops.convert_to_tensor(labels), "int32"),
    )


def _checked_floats(value: Any, name: str, shape: str, rank: int) -> Any:
    """Give a float32 tensor; coordinates and logits must not pass through a lower precision."""
    tensor = ops.convert_to_tensor(value)
    if len(tensor.shape) != rank:
        raise ValueError(f"{name} must be of shape {shape}. Received: {tuple(tensor.shape)}")
    if keras.backend.standardize_dtype(tensor.dtype) == "bool":
        raise ValueError(f"{name} must be numbers of shape {shape}. Received dtype: bool")
    return ops.cast(tensor, "float32")


def _as_flag(value: Any) -> Any:
    """Give a bool, or the scalar tensor whose value is not known while tracing."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if getattr(value, "shape", None) == () and "bool" in str(value.dtype):
        return value if _is_traced(value) else bool(ops.convert_to_numpy(value))
    raise ValueError(f"multimask_output must be True or False. Received: {_describe(value)}")


def _check_batches(tensors: Mapping[str, Any]) -> None:
    first = {key: value[0] if key == "points" else value for key, value in tensors.items()}
    sizes = {key: value.shape[0] for key, value in first.items()}
    prompts = {size for key, size in sizes.items() if key != "image" and size is not None}
    if len(prompts) > 1 or (prompts and sizes["image"] not in (None, 1, *prompts)):
        raise ValueError(
            "Prompts must have the batch size of the image, or any common one for a single image. "
            f"Received batch sizes: {sizes}"
        )


def _as_dimension(side: Any) -> Any:
    """Give a Python int for everything but a tensor whose value is not known while tracing."""
    if isinstance(side, (int, np.integer)):
        return int(side)
    if _is_traced(side):
        return ops.cast(side, "int32")
    return int(ops.convert_to_numpy(side))


def _is_traced(value: Any) -> bool:
    """Tell a tensor of a TensorFlow graph from one that has its value."""
    return (
        keras.backend.backend() == "tensorflow"
        and keras.ops.is_tensor(value)
        and not hasattr(value, "numpy")
    )


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dictionary with the keys {sorted(map(str, value))}"
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} of shape {tuple(shape)}" if shape is not None else repr(value)
