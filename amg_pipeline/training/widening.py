"""Carries a trained model's weights over to a model with a wider image encoder.

Each channel becomes several equal ones, so that the wide model answers as the narrow one did, and
each head of the attention several equal heads. What read a channel reads its copies, in random
shares that add up to what it read before: equal shares would give equal gradients, and the copies
would stay equal for ever.

Source: Chen et al. 2016 (arXiv:1511.05641), "Net2WiderNet".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.sam.model import SAM

#: Least share of what was read before that each of two copies gets.
_LEAST_SHARE = 0.25


def widen(narrow: SAM, wide: SAM, *, seed: int) -> None:
    """Start one model from another's weights, whose encoder has fewer channels.

    Args:
        narrow: A trained model.
        wide: Receives the weights. `embed_dim` and `num_heads` must be the same whole multiple of
            the other's, all else equal.
        seed: Decides the shares.

    Raises:
        ValueError: If the models differ in another size.
    """
    rng = np.random.default_rng(seed)
    for source, target in zip(narrow.variables, wide.variables, strict=True):
        values = np.asarray(source)
        if source.shape != target.shape:
            values = _widened(rng, source.path, values, tuple(target.shape))
        target.assign(values)


def _widened(
    rng: np.random.Generator, path: str, values: NDArray[np.float32], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    parts = 3 if "/qkv/" in path else 1  # queries, keys and values lie one after another
    if path.endswith("/kernel"):
        values = _shared_out(rng, values, shape[-2] // values.shape[-2])
    copies = shape[-1] // values.shape[-1]
    split = values.reshape(*values.shape[:-1], parts, -1)
    copied: NDArray[np.float32] = np.tile(split, copies).reshape(*values.shape[:-1], -1)
    if copied.shape != shape or "rel_pos" in path:  # which are as wide as a head
        raise ValueError(
            "The models must be equal but for embed_dim and num_heads, the wide one's the same "
            f"whole multiple. Received: {path} of shapes {values.shape} and {shape}."
        )
    return copied


def _shared_out(
    rng: np.random.Generator, kernel: NDArray[np.float32], copies: int
) -> NDArray[np.float32]:
    """Copy the inputs of a kernel; what its copies read adds up to what one read."""
    if copies < 2:
        return kernel
    shares = rng.uniform(_LEAST_SHARE, 1.0 - _LEAST_SHARE, (copies, *kernel.shape))
    shares /= shares.sum(axis=0)
    read = (shares * kernel).astype(np.float32)
    return np.concatenate(list(read), axis=-2)
