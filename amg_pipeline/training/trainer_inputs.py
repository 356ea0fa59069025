"""Brings what a trainer is given into the model frame: prompts as tokens, targets as low-res masks.

Shapes: `B` images, `P` prompts of an image, `N` points, `M` boxes, `L` masks that one prompt may
mean, `T` tokens, `S` side of the low-res masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from amg_pipeline.sam.model import SAM
from amg_pipeline.sam.prompt_encoder import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_NOT_A_POINT,
)
from amg_pipeline.sam.transforms import longest_side_size, scale_coordinates


def prompt_tokens(sam: SAM, inputs: Mapping[str, Any]) -> tuple[Any, Any, int | None]:
    """Give the tokens of all prompts.

    Args:
        sam: Says how large its frame is.
        inputs: Either `prompt_coords` `(B, P, T, 2)`, XY in pixels of the model frame, and
            `prompt_labels` `(B, P, T)`; or what `SAM` takes, in pixels of `image`: `points`, a pair
            of coords and labels, and `boxes`. With one prompt for each image these are
            `(B, N, 2)`, `(B, N)` and `(B, M, 4)`; with `P` prompts they have one axis more.

    Returns:
        Coords `(B P, T, 2)` and labels int32 `(B P, T)`, and `P`, or None where the inputs have no
        such axis.

    Raises:
        ValueError: If there is no prompt, or their number is not known when a graph is traced.
    """
    if "prompt_coords" in inputs:
        coords, labels = inputs["prompt_coords"], inputs["prompt_labels"]
        prompts = coords.shape[1]
    else:
        coords, labels, prompts = _tokens_of_sam_inputs(sam, inputs)
    coords = ops.reshape(ops.cast(coords, "float32"), (-1, coords.shape[-2], 2))
    return coords, ops.reshape(ops.cast(labels, "int32"), (-1, labels.shape[-1])), prompts


def _tokens_of_sam_inputs(sam: SAM, inputs: Mapping[str, Any]) -> tuple[Any, Any, int | None]:
    points, boxes = inputs.get("points"), inputs.get("boxes")
    if points is None and boxes is None:
        raise ValueError(
            "Every image needs a prompt: inputs with 'points' (coords, labels), 'boxes', or both. "
            f"Received the keys {sorted(inputs)}"
        )
    image = inputs["image"]
    size = ops.shape(image)[1], ops.shape(image)[2]
    into = longest_side_size(size[0], size[1], sam.image_encoder.img_size)
    coords, labels = [], []
    if points is not None:
        coords.append(scale_coordinates(ops.cast(points[0], "float32"), size, into))
        labels.append(ops.cast(points[1], "int32"))
        if boxes is None:  # as the prompt encoder does
            coords.append(ops.zeros_like(coords[0][..., :1, :]))
            labels.append(ops.full_like(labels[0][..., :1], LABEL_NOT_A_POINT))
    if boxes is not None:
        boxes = scale_coordinates(ops.cast(boxes, "float32"), size, into)
        corners = ops.reshape(boxes, (-1, *boxes.shape[1:-2], 2 * boxes.shape[-2], 2))
        kinds = np.tile([LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT], boxes.shape[-2])
        coords.append(corners)
        labels.append(ops.zeros_like(corners[..., 0], dtype="int32") + kinds.astype(np.int32))
    joined = ops.concatenate(coords, axis=-2), ops.concatenate(labels, axis=-1)
    if len(joined[0].shape) != 4:
        return *joined, None
    prompts = joined[0].shape[1]
    if prompts is None:
        raise ValueError(
            "Every image must have the same known number of prompts. Received prompts of shape "
            f"{tuple(joined[0].shape)}. Fill up with points of label -1 and empty masks."
        )
    return *joined, prompts


def low_res_targets(masks: Any, prompts: int | None, low_res: int) -> Any:
    """Bring target masks into the frame of low-res logits.

    Args:
        masks: Coverage in [0, 1] or bool, either in the low-res frame or in that of the images,
            whatever their size: `(B, P, h, w)`; with one prompt for each image `(B, h, w)`,
            `(B, h, w, 1)` or `(B, L, h, w)`.
        prompts: `P`, or None for one prompt without an axis of its own.
        low_res: `S`.

    Returns:
        float32 `(B P, L, S, S)`; padding is not covered.

    Raises:
        ValueError: If the shape is none of these.
    """
    shape = tuple(masks.shape)
    masks = ops.cast(masks, "float32")
    if prompts is None and len(shape) == 3:
        masks = masks[:, None]
    elif prompts is None and len(shape) == 4 and shape[-1] == 1:
        masks = ops.transpose(masks, (0, 3, 1, 2))
    elif prompts is not None and len(shape) == 4 and shape[1] == prompts:
        masks = ops.reshape(masks, (-1, 1, ops.shape(masks)[2], ops.shape(masks)[3]))
    elif prompts is not None or len(shape) != 4 or shape[1] is None:
        expected = f"(B, {prompts}, h, w)"
        if prompts is None:
            expected = "(B, h, w) or (B, L, h, w) with a known L"
        raise ValueError(f"Target masks must be of shape {expected}. Received: {shape}")
    if tuple(masks.shape[2:]) == (low_res, low_res):
        return masks
    # While a graph is traced sizes may be tensors; of the low-res frame, sampling changes nothing.
    height, width = ops.shape(masks)[2], ops.shape(masks)[3]
    return _sampled(_sampled(masks, 2, height, width, low_res), 3, width, height, low_res)


def _sampled(masks: Any, axis: int, length: Any, other: Any, low_res: int) -> Any:
    """Take the pixels in which low-res ones have their centres along an axis, 0 beyond it."""
    longest = ops.cast(ops.maximum(length, other), "float32")
    length = ops.cast(length, "int32")
    centres = (ops.arange(low_res, dtype="float32") + 0.5) * (longest / low_res)
    at = ops.cast(centres, "int32")
    taken = ops.take(masks, ops.minimum(at, length - 1), axis=axis)
    shape = [1, 1, 1, 1]
    shape[axis] = low_res
    return taken * ops.reshape(ops.cast(at < length, "float32"), shape)
