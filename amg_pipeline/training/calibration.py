"""Sharpens a trained model's logits, so that the stability score means what it means elsewhere.

A model trained briefly has soft edges: its masks are right, but their logits pass slowly through
the threshold, and the stability score, which moves the threshold by a fixed distance, calls them
unstable. Multiplying all logits by one factor changes no mask. The factor is folded into the last
layers of the hypernetworks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.training.losses import mask_ious
from amg_pipeline.training.scene_trainer import SceneTrainer, cut_targets

#: Factors that are tried, from no change upwards.
_FACTORS = np.geomspace(1.0, 32.0, 41)


def calibrate_logits(
    trainer: SceneTrainer,
    batches: Iterable[tuple[dict[str, Any], dict[str, Any]]],
    *,
    target_stability: float = 0.92,
    min_iou: float = 0.75,
) -> float:
    """Scale a model's logits until its good masks are as stable as asked.

    Args:
        trainer: Holds the model, which is changed in place.
        batches: Held-out inputs and targets, as `SceneBatches` gives them.
        target_stability: Median stability score, at offset 1, that good masks shall have.
        min_iou: IoU with its target from which a mask counts as good.

    Returns:
        The factor, 1.0 if the logits were sharp enough.
    """
    logits = [_good_logits(trainer, *batch, min_iou=min_iou) for batch in batches]
    good = np.concatenate(logits)
    factor = next(
        (f for f in _FACTORS if _median_stability(good, 1.0 / f) >= target_stability),
        _FACTORS[-1],
    )
    for mlp in trainer.sam.mask_decoder.output_hypernetworks_mlps:
        last = mlp.layers[-1]
        last.kernel.assign(last.kernel * factor)
        last.bias.assign(last.bias * factor)
    return float(factor)


def _good_logits(
    trainer: SceneTrainer, inputs: dict[str, Any], targets: dict[str, Any], *, min_iou: float
) -> NDArray[np.float32]:
    """Give the outputs that fit a target well, float32 `(masks, S)`."""
    outputs = trainer({key: ops.convert_to_tensor(value) for key, value in inputs.items()})
    coverage, is_target = cut_targets(
        {key: ops.convert_to_tensor(value) for key, value in targets.items()}
    )
    logits = outputs["logits"][:, 1:]
    ious = mask_ious(logits, coverage) * ops.expand_dims(is_target, 1)
    is_good = ops.convert_to_numpy(ops.max(ious, axis=-1)) >= min_iou
    good: NDArray[np.float32] = ops.convert_to_numpy(logits)[is_good]
    return good


def _median_stability(logits: NDArray[np.float32], offset: float) -> float:
    if not len(logits):
        return 1.0
    stable = (logits > offset).sum(axis=1)
    possible = (logits > -offset).sum(axis=1)
    return float(np.median(stable / np.maximum(possible, 1)))
