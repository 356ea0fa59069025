"""The losses of SAM's training: focal and dice on masks, squared error on predicted IoU.

Each output of a prompt is compared with each mask that the prompt may mean. All three measures are
linear in the target, so the comparisons are matrix products over the pixels, and the costly
functions of the logits are taken once per output.

Shapes: `N` prompts, `K` outputs of the decoder, `L` target masks of a prompt, `S` pixels.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A: focal (Lin et al. 2017) and dice
(Milletari et al. 2016), backpropagated for the best of the outputs only.
"""

from __future__ import annotations

from typing import Any

from keras import ops


def dice_losses(logits: Any, targets: Any) -> Any:
    """Give one minus the soft dice overlap of each output with each target, `(N, K, L)`.

    Args:
        logits: Mask logits `(N, K, S)`.
        targets: Coverage in [0, 1], `(N, L, S)`.
    """
    probabilities = ops.sigmoid(logits)
    overlap = _pairwise_sums(probabilities, targets)
    return 1.0 - (2.0 * overlap + 1.0) / (_total_areas(probabilities, targets) + 1.0)


def focal_losses(logits: Any, targets: Any) -> Any:
    """Give the mean focal loss (gamma 2, no class weights) of outputs and targets, `(N, K, L)`.

    Partly covered pixels weigh the losses of both classes by their coverage.

    Args:
        logits: Mask logits `(N, K, S)`.
        targets: Coverage in [0, 1], `(N, L, S)`.
    """
    probabilities = ops.sigmoid(logits)
    softplus = ops.softplus(logits)
    as_mask = ops.square(1.0 - probabilities) * (softplus - logits)
    as_background = ops.square(probabilities) * softplus
    total = ops.sum(as_background, axis=-1, keepdims=True)
    total = total + _pairwise_sums(as_mask - as_background, targets)
    return total / logits.shape[-1]


def mask_ious(logits: Any, targets: Any) -> Any:
    """Give the IoU of each thresholded output with each target, `(N, K, L)`; 0 if both are empty.

    Args:
        logits: Mask logits `(N, K, S)`.
        targets: Coverage in [0, 1], `(N, L, S)`; at least half counts as covered.
    """
    predicted = ops.cast(logits > 0.0, "float32")
    actual = ops.cast(targets >= 0.5, "float32")
    overlap = _pairwise_sums(predicted, actual)
    return overlap / ops.maximum(_total_areas(predicted, actual) - overlap, 1.0)


def best_output_loss(losses: Any, weights: Any, *, slack: float = 0.0) -> Any:
    """Average, over the targets, the loss of the output that fits each best.

    Args:
        losses: `(N, K, L)`, of each output against each target.
        weights: Of the targets, 0 where there is none, float `(N, L)`.
        slack: Share of the loss that all outputs have alike, in [0, 1): an output that fits nothing
            best would never learn to (Rupprecht et al. 2017, arXiv:1612.00197).
    """
    relaxed = (1.0 - slack) * ops.min(losses, axis=1) + slack * ops.mean(losses, axis=1)
    return weighted_mean(relaxed, weights)


def coarsest_levels(is_target: Any) -> Any:
    """Mark the last existing level of each prompt, `(..., L)` of 0 and 1."""
    later = ops.flip(ops.cumsum(ops.flip(is_target, -1), axis=-1), -1)
    return is_target * ops.cast(later <= 1.0, "float32")


def weighted_mean(values: Any, weights: Any) -> Any:
    """Average values with weights of the same shape; 0 if all weights are."""
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1e-6)


def _pairwise_sums(outputs: Any, targets: Any) -> Any:
    return ops.matmul(outputs, ops.transpose(targets, (0, 2, 1)))


def _total_areas(outputs: Any, targets: Any) -> Any:
    return ops.sum(outputs, axis=-1)[:, :, None] + ops.sum(targets, axis=-1)[:, None, :]
