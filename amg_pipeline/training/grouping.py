"""Teaches the image encoder which pixels belong together, without running the mask decoder.

Training by prompts spends much of its time on the decoder's transformer, and each prompt teaches
the encoder little. Here a mask's token is made straight from the image's own features under a
click, and compared with the upscaled features of a sample of pixels. Encoder, upscaling and
hypernetworks learn from many clicks at the cost of little more than the encoder; what is left to
learn for the transformer is to find out what was clicked on.

Outputs 1 to 3 learn the levels of the label maps, output 0 the coarsest that a click has.

Shapes: `B` images, `Q` clicks, `M` outputs, `L` levels, `K` pixels, `C` channels.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from amg_pipeline.sam.mask_decoder import MaskDecoder
from amg_pipeline.training.cells import locate_in_cells, upscale_cells
from amg_pipeline.training.losses import coarsest_levels, weighted_mean

_SINGLE_MASK_WEIGHT = 0.25


@keras.saving.register_keras_serializable(package="amg_pipeline")
class GroupingHead(keras.layers.Layer):
    """Makes mask tokens of features; of no use after the training.

    Args:
        decoder: Whose upscaling, mask tokens and hypernetworks are used, and trained.
    """

    def __init__(self, decoder: MaskDecoder, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width = decoder.transformer_dim
        self._decoder = decoder
        self.seed = keras.layers.Dense(width, name="seed")
        self.seed.build((None, None, width + width // 8))
        self.built = True

    def call(self, features: Any, clicks: Any, pixels: Any) -> Any:
        """Give logits of each click's masks at the pixels, `(B, Q, M, K)`.

        Args:
            features: Image embeddings `(B, H, W, C)`.
            clicks: Flat indices into the low-res grid, int32 `(B, Q)`.
            pixels: The same, `(B, K)`.
        """
        decoder = self._decoder
        _, height, width, channels = features.shape
        coarse = ops.reshape(features, (-1, height * width, channels))
        fine = upscale_cells(decoder, coarse)
        fine = ops.reshape(fine, (-1, 16 * height * width, channels // 8))
        cells, places = locate_in_cells(clicks, width)
        at_clicks = [_take(coarse, cells), _take(fine, 16 * cells + places)]
        seeds = self.seed(ops.concatenate(at_clicks, axis=-1))
        weights = ops.stack(
            [
                mlp(ops.relu(seeds + decoder.mask_tokens[i]))
                for i, mlp in enumerate(decoder.output_hypernetworks_mlps)
            ],
            axis=2,
        )
        cells, places = locate_in_cells(pixels, width)
        at_pixels = ops.transpose(_take(fine, 16 * cells + places), (0, 2, 1))
        return ops.matmul(weights, ops.expand_dims(at_pixels, 1))


def grouping_loss(logits: Any, click_ids: Any, pixel_ids: Any) -> tuple[Any, Any, Any]:
    """Compare the masks of clicks with those of the label maps at the pixels.

    Args:
        logits: `(B, Q, 1 + L, K)`.
        click_ids: Ids of the masks under the clicks, 0 for none, `(B, Q, L)`.
        pixel_ids: Ids of the masks at the pixels `(B, L, K)`.

    Returns:
        The loss, the IoU of the thresholded masks `(B, Q, L)`, and which of these exist, 0 or 1.
    """
    is_target = ops.cast(click_ids > 0, "float32")
    same = ops.equal(ops.expand_dims(click_ids, -1), ops.expand_dims(pixel_ids, 1))
    same = ops.cast(same, "float32")
    coarsest = ops.expand_dims(coarsest_levels(is_target), -1)
    targets = ops.concatenate([ops.sum(same * coarsest, axis=2, keepdims=True), same], axis=2)
    weights = ops.concatenate(
        [_SINGLE_MASK_WEIGHT * ops.max(is_target, axis=-1, keepdims=True), is_target], axis=2
    )
    losses = _balanced_entropy(logits, targets) + _dice(logits, targets)
    mask = ops.cast(logits > 0, "float32")
    overlap = ops.sum(mask * targets, axis=-1)
    union = ops.sum(mask, axis=-1) + ops.sum(targets, axis=-1) - overlap
    return weighted_mean(losses, weights), (overlap / ops.maximum(union, 1.0))[:, :, 1:], is_target


def _take(values: Any, indices: Any) -> Any:
    """Pick rows `(B, Q)` of `(B, N, C)`."""
    return ops.take_along_axis(values, ops.expand_dims(indices, -1), axis=1)


def _balanced_entropy(logits: Any, targets: Any) -> Any:
    """Give the cross entropy in which a mask's inside weighs as much as its outside."""
    outside = ops.softplus(logits)
    inside = outside - logits
    count = ops.sum(targets, axis=-1)
    inside = ops.sum(inside * targets, axis=-1) / ops.maximum(count, 1.0)
    outside = ops.sum(outside * (1.0 - targets), axis=-1) / ops.maximum(
        logits.shape[-1] - count, 1.0
    )
    return 0.5 * (inside + outside)


def _dice(logits: Any, targets: Any) -> Any:
    probabilities = ops.sigmoid(logits)
    overlap = ops.sum(probabilities * targets, axis=-1)
    areas = ops.sum(probabilities, axis=-1) + ops.sum(targets, axis=-1)
    return 1.0 - (2.0 * overlap + 1.0) / (areas + 1.0)
