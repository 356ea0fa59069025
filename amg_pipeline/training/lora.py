"""Low-rank adapters on the attention projections: fine-tuning that trains a few percent of a SAM.

An adapter adds the product of two thin matrices to a projection's kernel, and starts with zero;
everything else is frozen. `merge_adapters` makes an ordinary SAM of the result.

Source: Hu et al. 2021, LoRA (arXiv:2106.09685); the layers are Keras's own (`Dense.enable_lora`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import keras
from keras import ops

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.model import SAM
from amg_pipeline.sam.rel_pos_attention import RelPosAttention
from amg_pipeline.sam.transformer import Attention

Where = Literal["all", "encoder", "decoder"]


def add_adapters(
    sam: SAM, *, rank: int = 4, alpha: float | None = None, where: Where = "all"
) -> list[str]:
    """Freeze a SAM and give its attention projections adapters, which are all that is trained.

    Args:
        sam: A built model; is changed in place.
        rank: Width of the adapters.
        alpha: Scale of what they add, times the rank; the rank by default.
        where: In the image encoder, in the mask decoder, or in both. Adapters in the decoder alone
            leave image embeddings as they are, so that these can be cached.

    Returns:
        The paths of the projections.

    Raises:
        ConfigError: If the rank is not positive, or the model has adapters already.
    """
    if rank < 1:
        raise ConfigError(f"The rank of adapters must be at least 1. Received: {rank}.")
    projections = list(_projections(sam, where))
    if any(layer.lora_enabled for layer in projections):
        raise ConfigError("The model has adapters already; merge them before adding others.")
    sam.trainable = False
    for layer in projections:
        layer.trainable = True
        layer.enable_lora(rank, lora_alpha=alpha)
        if layer.bias is not None:
            layer.bias.trainable = False
    # Keras asks the whole before it looks at the parts.
    sam.trainable = True
    adapters = {id(v) for layer in projections for v in (layer.lora_kernel_a, layer.lora_kernel_b)}
    for variable in sam.variables:
        variable.trainable = id(variable) in adapters
    return [layer.path for layer in projections]


def merge_adapters(sam: SAM) -> SAM:
    """Make an ordinary SAM with the same output; the one with adapters is left as it is.

    Args:
        sam: A model with or without adapters.

    Returns:
        A new model, every variable trainable, for `save_weights` or further training.
    """
    merged = SAM.from_config(sam.get_config())
    adapted = {layer.path: layer for layer in _all_dense(sam) if layer.lora_enabled}
    kernels = {id(layer._kernel): layer for layer in adapted.values()}
    extra = {
        id(v) for layer in adapted.values() for v in (layer.lora_kernel_a, layer.lora_kernel_b)
    }
    own = [variable for variable in sam.variables if id(variable) not in extra]
    for source, target in zip(own, merged.variables, strict=True):
        layer = kernels.get(id(source))
        target.assign(ops.convert_to_tensor(source if layer is None else layer.kernel))
    for part in (merged.image_encoder, merged.prompt_encoder, merged.mask_decoder):
        part.trainable = True
    return merged


def count_parameters(variables: Any) -> int:
    """Count the numbers in variables."""
    return sum(int(ops.size(variable)) for variable in variables)


def _projections(sam: SAM, where: Where) -> Iterator[keras.layers.Dense]:
    if where in ("all", "encoder"):
        for layer in sam.image_encoder._flatten_layers():
            if isinstance(layer, RelPosAttention):
                yield from (layer.qkv, layer.proj)
    if where in ("all", "decoder"):
        for layer in sam.mask_decoder._flatten_layers():
            if isinstance(layer, Attention):
                yield from (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj)


def _all_dense(sam: SAM) -> Iterator[keras.layers.Dense]:
    for layer in sam._flatten_layers():
        if isinstance(layer, keras.layers.Dense):
            yield layer
