from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.training.losses import (
    best_output_loss,
    coarsest_levels,
    dice_losses,
    focal_losses,
    mask_ious,
    weighted_mean,
)
from tests.sam.small_sam import as_arrays

PROMPTS, OUTPUTS, TARGETS, PIXELS = 2, 3, 2, 12


@pytest.fixture
def logits() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 3, (PROMPTS, OUTPUTS, PIXELS)).astype(np.float32)


@pytest.fixture
def targets() -> NDArray[np.float32]:
    """Mostly whole pixels, some partly covered, and one empty mask."""
    rng = np.random.default_rng(1)
    coverage = rng.choice([0.0, 0.25, 0.5, 1.0], (PROMPTS, TARGETS, PIXELS), p=[0.4, 0.1, 0.1, 0.4])
    coverage[1, 1] = 0.0
    return coverage.astype(np.float32)


def pairs() -> list[tuple[int, int, int]]:
    return [(n, k, m) for n in range(PROMPTS) for k in range(OUTPUTS) for m in range(TARGETS)]


def test_dice_equals_the_formula_pixel_by_pixel(
    logits: NDArray[np.float32], targets: NDArray[np.float32]
) -> None:
    actual = ops.convert_to_numpy(dice_losses(logits, targets))
    assert actual.shape == (PROMPTS, OUTPUTS, TARGETS)
    for n, k, m in pairs():
        overlap = area = 0.0
        for logit, target in zip(logits[n, k], targets[n, m], strict=True):
            probability = 1.0 / (1.0 + np.exp(-float(logit)))
            overlap += probability * target
            area += probability + target
        assert actual[n, k, m] == pytest.approx(1 - (2 * overlap + 1) / (area + 1), abs=1e-5)


def test_focal_equals_the_formula_pixel_by_pixel(
    logits: NDArray[np.float32], targets: NDArray[np.float32]
) -> None:
    actual = ops.convert_to_numpy(focal_losses(logits, targets))
    for n, k, m in pairs():
        total = 0.0
        for logit, target in zip(logits[n, k], targets[n, m], strict=True):
            probability = 1.0 / (1.0 + np.exp(-float(logit)))
            total += target * (1 - probability) ** 2 * -np.log(probability)
            total += (1 - target) * probability**2 * -np.log(1 - probability)
        assert actual[n, k, m] == pytest.approx(total / PIXELS, abs=1e-5)


def test_ious_equal_the_counts_of_thresholded_pixels(
    logits: NDArray[np.float32], targets: NDArray[np.float32]
) -> None:
    actual = ops.convert_to_numpy(mask_ious(logits, targets))
    for n, k, m in pairs():
        predicted = {i for i in range(PIXELS) if logits[n, k, i] > 0}
        covered = {i for i in range(PIXELS) if targets[n, m, i] >= 0.5}
        expected = len(predicted & covered) / max(len(predicted | covered), 1)
        assert actual[n, k, m] == pytest.approx(expected)


def test_a_perfect_mask_costs_nothing_and_has_iou_one() -> None:
    target = np.array([[[1, 1, 0, 0, 1]]], np.float32)
    logits = 50 * (2 * target - 1)
    assert float(dice_losses(logits, target)[0, 0, 0]) == pytest.approx(0, abs=1e-6)
    assert float(focal_losses(logits, target)[0, 0, 0]) == pytest.approx(0, abs=1e-6)
    assert float(mask_ious(logits, target)[0, 0, 0]) == 1.0


def test_large_logits_stay_finite() -> None:
    logits = np.array([[[-500.0, 500.0]]], np.float32)
    wrong = np.array([[[1.0, 0.0]]], np.float32)
    assert float(focal_losses(logits, wrong)[0, 0, 0]) == pytest.approx(500.0)
    assert 0 < float(dice_losses(logits, wrong)[0, 0, 0]) <= 1


def test_iou_of_two_empty_masks_is_zero() -> None:
    empty = np.full((1, 1, 4), -1.0, np.float32)
    assert float(mask_ious(empty, np.zeros((1, 1, 4), np.float32))[0, 0, 0]) == 0.0


def test_best_output_loss_picks_each_targets_minimum_and_skips_absent_targets() -> None:
    losses = np.array(
        [[[5.0, 1.0], [2.0, 9.0], [7.0, 4.0]], [[3.0, 0.0], [6.0, 0.0], [8.0, 0.0]]], np.float32
    )
    is_target = np.array([[1.0, 1.0], [1.0, 0.0]], np.float32)
    # 2 and 1 for the first prompt's targets, 3 for the second's only one.
    assert float(best_output_loss(losses, is_target)) == pytest.approx((2 + 1 + 3) / 3)


def test_slack_gives_every_output_a_share_of_each_targets_loss() -> None:
    losses = np.array([[[1.0], [4.0], [7.0]]], np.float32)
    loss = best_output_loss(losses, np.ones((1, 1), np.float32), slack=0.1)
    assert float(loss) == pytest.approx(0.9 * 1.0 + 0.1 * 4.0)


def test_weighted_mean_is_zero_without_any_weight() -> None:
    values = np.array([4.0, 8.0], np.float32)
    assert float(weighted_mean(values, np.array([1.0, 3.0], np.float32))) == pytest.approx(7.0)
    assert float(weighted_mean(values, np.zeros(2, np.float32))) == 0.0


def test_the_coarsest_level_is_the_last_one_that_exists() -> None:
    is_target = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0]], np.float32)
    expected = [[0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(
        as_arrays(coarsest_levels(ops.convert_to_tensor(is_target))), expected
    )
