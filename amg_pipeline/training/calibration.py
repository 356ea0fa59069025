"""Makes a trained model's logits and scores mean what they mean elsewhere, without training.

A model trained briefly has soft edges: its masks are right, but their logits pass slowly through
the threshold, and the stability score, which moves the threshold by a fixed distance, calls them
unstable. Multiplying all logits by one factor changes no mask.

Its IoU head has learnt to expect an output's IoU with the one mask that is meant, so it halves the
score of a perfect mask that is meant every other time. That picks the best of three outputs. A
mask generator asks whether a mask is one at all: the IoU with whichever mask fits it. A line
through both, rising, keeps the order of all masks.

Both are folded into last layers: of the hypernetworks, of the IoU head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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
    target_stability: float = 0.95,
    min_iou: float = 0.75,
) -> float:
    """Scale a model's logits until its good masks are as stable as asked.

    Args:
        trainer: Holds the model, which is changed in place.
        batches: Held-out inputs and targets, as `SceneBatches` gives them.
        target_stability: Median stability score, at offset 1, that good masks shall have; the
            default threshold of the reference's mask generator.
        min_iou: IoU with its target from which a mask counts as good.

    Returns:
        The factor, 1.0 if the logits were sharp enough.
    """
    answers = [_answer(trainer, *batch) for batch in batches]
    good = np.concatenate([answer.logits[answer.ious >= min_iou] for answer in answers])
    factor = next(
        (f for f in _FACTORS if _median_stability(good, 1.0 / f) >= target_stability),
        _FACTORS[-1],
    )
    for mlp in trainer.sam.mask_decoder.output_hypernetworks_mlps:
        last = mlp.layers[-1]
        last.kernel.assign(last.kernel * factor)
        last.bias.assign(last.bias * factor)
    return float(factor)


def calibrate_scores(
    trainer: SceneTrainer, batches: Iterable[tuple[dict[str, Any], dict[str, Any]]]
) -> tuple[float, float]:
    """Make predicted IoU an estimate of the IoU with the mask that fits best of those meant.

    Args:
        trainer: Holds the model, which is changed in place.
        batches: Held-out inputs and targets, as `SceneBatches` gives them.

    Returns:
        Slope and offset by least squares; `(1.0, 0.0)`, and nothing changed, if scores do not rise
        with IoU.
    """
    answers = [_answer(trainer, *batch) for batch in batches]
    scores = np.concatenate([answer.scores.ravel() for answer in answers])
    ious = np.concatenate([answer.ious.ravel() for answer in answers])
    if len(scores) < 2 or np.cov(scores, ious)[0, 1] <= 0.0:
        return 1.0, 0.0
    slope, offset = (float(c) for c in np.polyfit(scores, ious, 1))
    last = trainer.sam.mask_decoder.iou_prediction_head.layers[-1]
    last.kernel.assign(last.kernel * slope)
    last.bias.assign(last.bias * slope + offset)
    return slope, offset


@dataclass(frozen=True, slots=True)
class _Answer:
    """The three outputs of each prompt that means a mask.

    Attributes:
        logits: float32 `(N, 3, S)`.
        scores: Predicted IoU `(N, 3)`.
        ious: IoU of each output with the mask that it fits best `(N, 3)`.
    """

    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    ious: NDArray[np.float32]


def _answer(trainer: SceneTrainer, inputs: dict[str, Any], targets: dict[str, Any]) -> _Answer:
    outputs = trainer({key: ops.convert_to_tensor(value) for key, value in inputs.items()})
    coverage, is_target = cut_targets(
        {key: ops.convert_to_tensor(value) for key, value in targets.items()}
    )
    logits, scores = outputs["logits"][:, 1:], outputs["iou"][:, 1:]
    ious = mask_ious(logits, coverage) * ops.expand_dims(is_target, 1)
    means_one = ops.convert_to_numpy(ops.max(is_target, axis=-1)) > 0.0
    return _Answer(
        *(ops.convert_to_numpy(x)[means_one] for x in (logits, scores, ops.max(ious, axis=-1)))
    )


def _median_stability(logits: NDArray[np.float32], offset: float) -> float:
    if not len(logits):
        return 1.0
    stable = (logits > offset).sum(axis=1)
    possible = (logits > -offset).sum(axis=1)
    return float(np.median(stable / np.maximum(possible, 1)))
