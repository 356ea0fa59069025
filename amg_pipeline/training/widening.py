"""Makes a trained model wider without changing what it computes.

Each channel becomes several equal ones, and a layer that reads them shares its weight for the one
among them, in random parts, so that further training can tell them apart. A narrow model learns the
first things at a fraction of a wide one's cost; the wide one goes on from there.

Source: Chen, Goodfellow and Shlens 2016, Net2Net (arXiv:1511.05641).
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.sam.model import SAM

#: How unequal the parts of a shared weight are, relative to an equal part.
_UNEQUAL = 0.5


def widen(narrow: SAM, wide: SAM, seed: int = 0) -> None:
    """Start a model from a narrower one, with equal outputs.

    Args:
        narrow: A trained model.
        wide: Receives the weights. Every width is a multiple of the other's, and embedding and
            attention widths are the same multiple of it; the numbers of heads are equal.
        seed: Decides how weights are shared.

    Raises:
        ValueError: If the models differ in anything but widths.
    """
    rng = np.random.default_rng(seed)
    for source, target in zip(narrow.variables, wide.variables, strict=True):
        name = source.path.partition("/")[2]
        if name != target.path.partition("/")[2] or len(source.shape) != len(target.shape):
            raise ValueError(
                f"The models must be equal but for their widths. Received: {name} and {target.path}"
            )
        target.assign(_widened(rng, name, np.asarray(source), tuple(target.shape)))


def _widened(
    rng: np.random.Generator, name: str, values: NDArray[np.float32], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    reads = _input_axis(name, values.ndim)
    original = values.shape
    for axis, (old, new) in enumerate(zip(original, shape, strict=True)):
        if new % old:
            raise ValueError(
                f"Widths must be multiples of the narrower model's. Received: {name} of shapes "
                f"{original} and {shape}."
            )
        values = values.repeat(new // old, axis)
    if reads is not None:
        parts = _parts(rng, shape, reads, shape[reads] // original[reads])
        values = (values * parts).astype(np.float32)
    return _rescaled(name, values, shape[-1] // original[-1]).astype(np.float32)


def _input_axis(name: str, ndim: int) -> int | None:
    """Give the axis of a kernel that meets the channels of its input."""
    if not name.endswith("/kernel"):
        return None
    transposed = "output_upscaling" in name
    return {2: 0, 4: 3 if transposed else 2}[ndim]


def _parts(
    rng: np.random.Generator, shape: tuple[int, ...], axis: int, count: int
) -> NDArray[np.float64]:
    """Draw factors of which every `count` along an axis sum to one."""
    if count == 1:
        return np.ones(shape)
    split = (*shape[:axis], shape[axis] // count, count, *shape[axis + 1 :])
    noise = rng.uniform(-1.0, 1.0, split)
    noise -= noise.mean(axis=axis + 1, keepdims=True)
    return ((1.0 + _UNEQUAL * noise) / count).reshape(shape)


def _rescaled(name: str, values: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """Undo that a product of two widened vectors is a multiple of what it was.

    Attention divides by the root of the width, so the other root is left to queries (and to
    relative positions, which meet undivided ones).
    """
    if "attn/qkv/" in name:
        third = values.shape[-1] // 3
        queries = values[..., :third] / math.sqrt(factor)
        return np.concatenate([queries, values[..., third:]], axis=-1)
    if "/q_proj/" in name or name.endswith(("rel_pos_h", "rel_pos_w")):
        return values / math.sqrt(factor)
    if re.search(r"output_hypernetworks_mlps_\d+/layers_2/", name):
        return values / factor
    return values
