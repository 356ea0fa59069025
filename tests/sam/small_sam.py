"""A SAM small enough for tests, every tensor drawn at random so that no term can hide as a zero."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from amg_pipeline.sam import SAM, ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer

IMG_SIZE = 64
GRID = 8
#: Side of low-res logits.
LOW_RES = 4 * GRID
CHANNELS = 32


def make_sam(
    *,
    seed: int = 6,
    dtype: Any = None,
    decoder_dtype: Any = None,
    decoder_heads: int = 8,
    **arguments: Any,
) -> SAM:
    """Give a SAM of 64 pixels with one windowed block (of padded windows) and one global block.

    With one decoder head, prompts of one point share their image in its low-rank form.
    """
    sam = SAM(
        ImageEncoderViT(
            img_size=IMG_SIZE,
            patch_size=IMG_SIZE // GRID,
            embed_dim=24,
            depth=2,
            num_heads=3,
            mlp_ratio=2.0,
            out_chans=CHANNELS,
            window_size=3,
            global_attn_indexes=(1,),
            dtype=dtype,
        ),
        PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(GRID, GRID),
            input_image_size=(IMG_SIZE, IMG_SIZE),
            mask_in_chans=8,
        ),
        MaskDecoder(
            transformer_dim=CHANNELS,
            transformer=TwoWayTransformer(
                embedding_dim=CHANNELS,
                num_heads=decoder_heads,
                mlp_dim=48,
                dtype=decoder_dtype or dtype,
            ),
            iou_head_hidden_dim=20,
            dtype=decoder_dtype or dtype,
        ),
        dtype=dtype,
        **arguments,
    )
    randomize(sam, seed=seed)
    return sam


def randomize(layer: keras.layers.Layer, *, seed: int) -> None:
    """Draw all variables so that activations keep their size from layer to layer."""
    rng = np.random.default_rng(seed)
    for variable in layer.variables:
        values = rng.standard_normal(variable.shape)
        if variable.name == "gamma":
            values = 1.0 + 0.2 * values
        elif variable.name == "kernel":
            values /= np.sqrt(np.prod(variable.shape[:-1]))
        elif variable.name in ("bias", "beta"):
            values *= 0.3
        if "output_hypernetworks_mlps" in variable.path:
            values *= 1.6  # low-res logits with a standard deviation of a few units
        variable.assign(values)


def random_image(height: int, width: int, *, batch: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    """Give smooth noise, uint8 `(batch, height, width, 3)`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(y * rng.uniform(0.02, 0.4) + x * rng.uniform(0.02, 0.4) + rng.uniform(0, 6))
        for _ in range(batch * 3)
    ]
    levels = np.stack(waves).reshape(batch, 3, height, width).transpose(0, 2, 3, 1)
    noisy = 128 + 100 * levels + rng.normal(0, 12, levels.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def as_arrays(structure: Any) -> Any:
    """Turn the tensors and variables of a structure into NumPy arrays."""
    return keras.tree.map_structure(
        lambda value: np.asarray(keras.ops.convert_to_tensor(value)), structure
    )
