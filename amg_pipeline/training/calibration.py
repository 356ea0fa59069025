"""Makes a trained model's logits and scores mean what they mean elsewhere, without training.

A model trained briefly has soft edges: its masks are right, but their logits pass slowly through
the threshold, and the stability score, which moves the threshold by a fixed distance, calls them
unstable. Multiplying all logits by one factor changes no mask.

Its IoU head has learnt, of regions that a program drew and of masks that people marked alike, how
often an output is what is meant. Of what people mark, one output finds far more than another: so a
line for each output, rising, keeps the order of its masks, and makes scores estimates of the IoU
with what a person would mark at a click. Beyond the scores that it was fitted to, a line goes on:
the best of them can pass 1, as those of the published models do.

Both are folded into last layers: of the hypernetworks, of the IoU head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.sam.model import SAM
from amg_pipeline.training.losses import mask_ious
from amg_pipeline.training.scene_trainer import SceneTrainer, cut_targets
from amg_pipeline.training.trainer import SAMTrainer

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
    sam: SAM, batches: Iterable[tuple[dict[str, Any], dict[str, Any]]]
) -> list[tuple[float, float]]:
    """Make each output's predicted IoU an estimate of its IoU with the mask that is clicked in.

    Args:
        sam: The model, which is changed in place.
        batches: Held-out clicks with the mask that each means, as `PromptedBatches` gives them.

    Returns:
        Slope and offset by least squares for each of the three outputs; `(1.0, 0.0)`, and nothing
        changed, where scores do not rise with IoU.
    """
    trainer = SAMTrainer(sam, rounds=1)
    pairs = [_scores_and_ious(trainer, *batch) for batch in batches]
    scores, ious = (np.concatenate(part) for part in zip(*pairs, strict=True))
    lines = [_rising_line(scores[:, i], ious[:, i]) for i in range(scores.shape[1])]
    # The first output answers prompts that leave nothing open; nobody chooses among its scores.
    slopes, offsets = np.array([(1.0, 0.0), *lines], np.float32).T
    last = sam.mask_decoder.iou_prediction_head.layers[-1]
    last.kernel.assign(last.kernel * slopes)
    last.bias.assign(last.bias * slopes + offsets)
    return lines


def _scores_and_ious(
    trainer: SAMTrainer, inputs: dict[str, Any], targets: dict[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Answer clicks: predicted and true IoU of the three outputs, `(N, 3)` each."""
    answer = trainer({key: ops.convert_to_tensor(value) for key, value in inputs.items()})
    logits = answer["low_res_logits"][:, 1:]
    flat = ops.reshape(logits, (*logits.shape[:2], -1))
    masks = ops.convert_to_tensor(targets["masks"].reshape(len(flat), 1, -1))
    means_one = targets["masks"].reshape(len(flat), -1).any(axis=1)
    ious = ops.convert_to_numpy(mask_ious(flat, masks)[..., 0])
    return ops.convert_to_numpy(answer["iou_predictions"])[means_one, 1:], ious[means_one]


def _rising_line(scores: NDArray[np.float32], ious: NDArray[np.float32]) -> tuple[float, float]:
    if len(scores) < 2 or np.cov(scores, ious)[0, 1] <= 0.0:
        return 1.0, 0.0
    slope, offset = np.polyfit(scores, ious, 1)
    return float(slope), float(offset)


@dataclass(frozen=True, slots=True)
class _Answer:
    """The three outputs of each prompt that means a mask.

    Attributes:
        logits: float32 `(N, 3, S)`.
        ious: IoU of each output with the mask that it fits best `(N, 3)`.
    """

    logits: NDArray[np.float32]
    ious: NDArray[np.float32]


def _answer(trainer: SceneTrainer, inputs: dict[str, Any], targets: dict[str, Any]) -> _Answer:
    outputs = trainer({key: ops.convert_to_tensor(value) for key, value in inputs.items()})
    coverage, is_target = cut_targets(
        {key: ops.convert_to_tensor(value) for key, value in targets.items()}
    )
    logits = outputs["logits"][:, 1:]
    ious = mask_ious(logits, coverage) * ops.expand_dims(is_target, 1)
    means_one = ops.convert_to_numpy(ops.max(is_target, axis=-1)) > 0.0
    return _Answer(*(ops.convert_to_numpy(x)[means_one] for x in (logits, ops.max(ious, axis=-1))))


def _median_stability(logits: NDArray[np.float32], offset: float) -> float:
    if not len(logits):
        return 1.0
    stable = (logits > offset).sum(axis=1)
    possible = (logits > -offset).sum(axis=1)
    return float(np.median(stable / np.maximum(possible, 1)))
