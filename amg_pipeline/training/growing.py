"""Carries a trained model's weights over to a model of another resolution.

A model trained at few, large patches has learned most of what one with more, smaller patches needs,
at a fraction of the cost. Only three kinds of tensors depend on the resolution, and each has a
natural counterpart at another one.

Source: Dosovitskiy et al. 2021 (arXiv:2010.11929), section 3.2, for positions; Li et al. 2022
(arXiv:2203.16527) for relative positions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.sam.model import SAM


def grow(small: SAM, large: SAM) -> None:
    """Start one model from another's weights, which differs in image or patch size only.

    Positions and relative positions are interpolated; a patch kernel is summed over the pixels that
    become one, so that it sees what the other saw of the image enlarged.

    Args:
        small: A trained model.
        large: Receives the weights. Its patches must be a whole fraction of the other's.

    Raises:
        ValueError: If the models differ in another size.
    """
    for source, target in zip(small.variables, large.variables, strict=True):
        values = np.asarray(source)
        if source.shape != target.shape:
            values = _resized(source.name, values, tuple(target.shape))
        target.assign(values)


def _resized(name: str, values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if name == "pos_embed" and values.shape[3] == shape[3]:
        return _interpolated(_interpolated(values, 1, shape[1]), 2, shape[2])
    if name in ("rel_pos_h", "rel_pos_w") and values.shape[1] == shape[1]:
        return _interpolated(values, 0, shape[0])
    if name == "kernel" and values.shape[2:] == shape[2:] and values.shape[0] % shape[0] == 0:
        factor = values.shape[0] // shape[0]
        blocks = values.reshape(shape[0], factor, shape[1], factor, *shape[2:])
        summed: NDArray[np.float32] = blocks.sum(axis=(1, 3))
        return summed
    raise ValueError(
        f"The models must be equal but for img_size and patch_size. Received: {name} of shapes "
        f"{values.shape} and {shape}."
    )


def _interpolated(values: NDArray[np.float32], axis: int, size: int) -> NDArray[np.float32]:
    """Resample an axis linearly, its ends on the ends."""
    at = np.linspace(0.0, values.shape[axis] - 1.0, size)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, values.shape[axis] - 1)
    weight = (at - below).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    mixed = np.take(values, below, axis) * (1.0 - weight) + np.take(values, above, axis) * weight
    resampled: NDArray[np.float32] = mixed.astype(np.float32)
    return resampled
