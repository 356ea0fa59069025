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


def clicks(prompts: int = 4) -> tuple[dict[str, Any], dict[str, Any]]:
    """Clicks in an image; the mask that each means is the whole of it."""
    inputs, _ = batch()
    return {
        "image": inputs["image"],
        "prompt_coords": inputs["coords"][:, :prompts],
        "prompt_labels": inputs["labels"][:, :prompts],
    }, {"masks": np.ones((1, prompts, LOW_RES, LOW_RES), np.float32)}


def outputs_of(trainer: SceneTrainer) -> tuple[Any, Any]:
    """Predicted IoU of the three outputs of each click, and their IoU with the whole image."""
    inputs = {key: ops.convert_to_tensor(value) for key, value in batch()[0].items()}
    answer = as_arrays(trainer(inputs))
    return answer["iou"][:, 1:], (answer["logits"][:, 1:].reshape(4, 3, -1) > 0).mean(axis=-1)


def make_scores_rise(
    trainer: SceneTrainer, *, rise: tuple[bool, bool, bool], prompts: int = 4
) -> None:
    """Turn an output's scores around unless they rise, or fall, with its IoU already."""
    scores, ious = (part[:prompts] for part in outputs_of(trainer))
    last = trainer.sam.mask_decoder.iou_prediction_head.layers[-1]
    signs = np.ones(4, np.float32)
    for i in range(3):
        if (np.cov(scores[:, i], ious[:, i])[0, 1] > 0.0) != rise[i]:
            signs[i + 1] = -1.0
    for variable in (last.kernel, last.bias):
        variable.assign(variable * signs)


def test_scores_of_each_output_become_the_best_line_through_its_ious(
    trainer: SceneTrainer,
) -> None:
    make_scores_rise(trainer, rise=(True, True, True))
    before, ious = outputs_of(trainer)
    lines = calibrate_scores(trainer.sam, [clicks()])
    after, _ = outputs_of(trainer)
    for i, (slope, offset) in enumerate(lines):
        expected = np.polyfit(before[:, i], ious[:, i], 1)
        np.testing.assert_allclose((slope, offset), expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(after[:, i], slope * before[:, i] + offset, rtol=1e-4, atol=1e-5)
        assert slope > 0.0


def test_scores_that_fall_with_the_iou_stay_as_they_are(trainer: SceneTrainer) -> None:
    make_scores_rise(trainer, rise=(True, False, True))
    before, _ = outputs_of(trainer)
    lines = calibrate_scores(trainer.sam, [clicks()])
    assert lines[1] == (1.0, 0.0)
    after, _ = outputs_of(trainer)
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    assert (after[:, [0, 2]] != before[:, [0, 2]]).any(axis=0).all()


def test_the_single_masks_score_stays(trainer: SceneTrainer) -> None:
    make_scores_rise(trainer, rise=(True, True, True))
    inputs = {key: ops.convert_to_tensor(value) for key, value in batch()[0].items()}
    before = as_arrays(trainer(inputs))["iou"][:, 0]
    assert (1.0, 0.0) not in calibrate_scores(trainer.sam, [clicks()])
    np.testing.assert_array_equal(as_arrays(trainer(inputs))["iou"][:, 0], before)


def test_clicks_that_mean_nothing_do_not_count(trainer: SceneTrainer) -> None:
    make_scores_rise(trainer, rise=(True, True, True), prompts=3)
    scores, ious = (part[:3] for part in outputs_of(trainer))
    inputs, targets = clicks()
    targets["masks"][0, 3] = 0.0
    lines = calibrate_scores(trainer.sam, [(inputs, targets)])
    for i, line in enumerate(lines):
        np.testing.assert_allclose(
            line, np.polyfit(scores[:, i], ious[:, i], 1), rtol=1e-3, atol=1e-4
        )


def test_each_click_is_compared_with_its_own_mask(trainer: SceneTrainer) -> None:
    inputs, targets = clicks()
    # The first so many rows.
    masks = targets["masks"][0]
    for number in range(4):
        masks[number, 4 * (number + 1) :] = 0.0
    found = logits_of(trainer)[:, 1:].reshape(4, 3, LOW_RES, LOW_RES) > 0
    wanted = masks[:, None] > 0
    ious = (found & wanted).sum(axis=(2, 3)) / (found | wanted).sum(axis=(2, 3))
    scores, _ = outputs_of(trainer)
    lines = calibrate_scores(trainer.sam, [(inputs, targets)])
    compared = 0
    for i, line in enumerate(lines):
        slope, offset = np.polyfit(scores[:, i], ious[:, i], 1)
        if slope > 0.0:
            np.testing.assert_allclose(line, (slope, offset), rtol=1e-3, atol=1e-4)
            compared += 1
        else:
            assert line == (1.0, 0.0)
    assert compared
