from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops

from amg_pipeline.training.calibration import calibrate_logits, calibrate_scores
from amg_pipeline.training.scene_trainer import SceneTrainer
from tests.sam.small_sam import IMG_SIZE, LOW_RES, as_arrays, make_sam


@pytest.fixture
def trainer() -> SceneTrainer:
    return SceneTrainer(make_sam())


def batch() -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    inputs = {
        "image": rng.uniform(0, 255, (1, IMG_SIZE, IMG_SIZE, 3)).astype(np.float32),
        "coords": rng.uniform(0, IMG_SIZE, (1, 4, 2, 2)).astype(np.float32),
        "labels": np.tile(np.array([1, -1], np.int32), (1, 4, 1)),
    }
    return inputs, {
        "label_maps": np.ones((1, 3, LOW_RES, LOW_RES), np.uint8),
        "target_ids": np.ones((1, 4, 3), np.uint8),
        "meant_levels": np.zeros((1, 4), np.int32),
    }


def logits_of(trainer: SceneTrainer) -> Any:
    inputs = {key: ops.convert_to_tensor(value) for key, value in batch()[0].items()}
    return as_arrays(trainer(inputs))["logits"]


def median_stability(logits: Any, good: Any) -> float:
    chosen = logits[:, 1:].reshape(12, -1)[good]
    return float(np.median((chosen > 1.0).sum(1) / np.maximum((chosen > -1.0).sum(1), 1)))


def test_calibration_multiplies_all_logits_until_good_masks_are_stable(
    trainer: SceneTrainer,
) -> None:
    before = logits_of(trainer)
    factor = calibrate_logits(trainer, [batch()], target_stability=0.9, min_iou=0.4)
    after = logits_of(trainer)
    assert 1.0 < factor <= 32.0
    np.testing.assert_allclose(after, factor * before, rtol=1e-3, atol=1e-3)
    # The target is the whole image, so a mask's IoU is the share that it covers.
    good = (before[:, 1:].reshape(12, -1) > 0).mean(axis=1) >= 0.4
    assert good.any()
    assert median_stability(before, good) < 0.9 <= median_stability(after, good) + 1e-3


def test_calibration_takes_the_least_factor_that_is_enough(trainer: SceneTrainer) -> None:
    before = logits_of(trainer)
    good = (before[:, 1:].reshape(12, -1) > 0).mean(axis=1) >= 0.4
    factor = calibrate_logits(trainer, [batch()], target_stability=0.9, min_iou=0.4)
    one_less = factor / 32 ** (1 / 40)
    assert median_stability(before * one_less, good) < 0.9


def test_calibration_of_sharp_logits_changes_nothing(trainer: SceneTrainer) -> None:
    before = logits_of(trainer)
    assert calibrate_logits(trainer, [batch()], target_stability=0.0, min_iou=0.4) == 1.0
    np.testing.assert_array_equal(logits_of(trainer), before)


def test_calibration_without_a_good_mask_changes_nothing(trainer: SceneTrainer) -> None:
    before = logits_of(trainer)
    assert calibrate_logits(trainer, [batch()], min_iou=1.1) == 1.0
    np.testing.assert_array_equal(logits_of(trainer), before)


def test_calibration_that_cannot_succeed_takes_the_largest_factor(trainer: SceneTrainer) -> None:
    factor = calibrate_logits(trainer, [batch()], target_stability=1.1, min_iou=0.4)
    assert factor == pytest.approx(32.0)


def outputs_of(trainer: SceneTrainer) -> tuple[Any, Any]:
    """Predicted and true IoU of the three outputs; the target is the whole image."""
    inputs = {key: ops.convert_to_tensor(value) for key, value in batch()[0].items()}
    answer = as_arrays(trainer(inputs))
    return answer["iou"][:, 1:], (answer["logits"][:, 1:].reshape(4, 3, -1) > 0).mean(axis=-1)


def make_scores_rise(trainer: SceneTrainer, *, rise: bool, prompts: int = 4) -> None:
    """Turn all scores around unless they rise, or fall, with the IoU of some prompts already."""
    scores, ious = (part[:prompts] for part in outputs_of(trainer))
    if (np.corrcoef(scores.ravel(), ious.ravel())[0, 1] > 0.0) != rise:
        for variable in trainer.sam.mask_decoder.iou_prediction_head.layers[-1].variables:
            variable.assign(-variable)


def test_scores_become_the_best_line_through_the_ious_and_keep_their_order(
    trainer: SceneTrainer,
) -> None:
    make_scores_rise(trainer, rise=True)
    before, ious = outputs_of(trainer)
    slope, offset = calibrate_scores(trainer, [batch()])
    after, _ = outputs_of(trainer)
    expected = np.polyfit(before.ravel(), ious.ravel(), 1)
    np.testing.assert_allclose((slope, offset), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after, slope * before + offset, rtol=1e-4, atol=1e-5)
    assert slope > 0.0


def test_scores_that_fall_with_the_iou_stay_as_they_are(trainer: SceneTrainer) -> None:
    make_scores_rise(trainer, rise=False)
    before, _ = outputs_of(trainer)
    assert calibrate_scores(trainer, [batch()]) == (1.0, 0.0)
    np.testing.assert_array_equal(outputs_of(trainer)[0], before)


def test_prompts_that_mean_nothing_do_not_count(trainer: SceneTrainer) -> None:
    inputs, targets = batch()
    targets["target_ids"][0, 2:] = 0
    make_scores_rise(trainer, rise=True, prompts=2)
    scores, ious = (part[:2].ravel() for part in outputs_of(trainer))
    assert calibrate_scores(trainer, [(inputs, targets)]) == pytest.approx(
        np.polyfit(scores, ious, 1), rel=1e-3, abs=1e-4
    )


def test_an_iou_is_that_with_the_mask_that_fits_best(trainer: SceneTrainer) -> None:
    inputs, targets = batch()
    # Of one row; of nothing that is there; of everything.
    targets["label_maps"][0, 0, 1:] = 0
    targets["target_ids"][0, :, 1] = 0
    make_scores_rise(trainer, rise=True)
    scores, shares = outputs_of(trainer)
    masks = logits_of(trainer)[:, 1:].reshape(4, 3, LOW_RES, LOW_RES) > 0
    in_row = masks[:, :, 0].sum(axis=-1)
    of_row = in_row / (masks.sum(axis=(2, 3)) + LOW_RES - in_row)
    assert (of_row < shares).any()
    expected = np.polyfit(scores.ravel(), np.maximum(shares, of_row).ravel(), 1)
    assert calibrate_scores(trainer, [(inputs, targets)]) == pytest.approx(
        expected, rel=1e-3, abs=1e-4
    )
