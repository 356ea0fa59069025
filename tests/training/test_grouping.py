from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops

from amg_pipeline.training.grouping import GroupingHead, grouping_loss
from tests.sam.small_sam import CHANNELS, GRID, LOW_RES, as_arrays, make_sam


def tensor(values: Any, dtype: str = "float32") -> Any:
    return ops.convert_to_tensor(np.asarray(values, dtype))


def test_each_click_gets_a_mask_of_each_output_at_the_pixels() -> None:
    decoder = make_sam().mask_decoder
    head = GroupingHead(decoder)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, GRID, GRID, CHANNELS))
    clicks, pixels = (rng.integers(LOW_RES**2, size=(2, n)) for n in (5, 30))
    logits = as_arrays(head(tensor(features), tensor(clicks, "int32"), tensor(pixels, "int32")))
    assert logits.shape == (2, 5, 4, 30)
    # A change at one position of the embedding moves only what was sampled there.
    changed = features.copy()
    changed[0, 3, 2] += 1.0
    moved = np.abs(
        as_arrays(head(tensor(changed), tensor(clicks, "int32"), tensor(pixels, "int32"))) - logits
    )
    rows, columns = np.divmod(pixels[0], LOW_RES)
    at_cell = (rows // 4 == 3) & (columns // 4 == 2)
    assert at_cell.any()
    rows, columns = np.divmod(clicks[0], LOW_RES)
    assert not ((rows // 4 == 3) & (columns // 4 == 2)).any()
    assert moved[0][..., ~at_cell].max() == 0.0
    assert moved[0][..., at_cell].max() > 1e-3
    assert moved[1].max() == 0.0


def test_loss_is_low_for_right_masks_only() -> None:
    # Two clicks; the second one has no mask at level 0.
    click_ids = np.array([[[1, 1], [0, 2]]], np.uint8)
    pixel_ids = np.array([[[1, 1, 2, 0], [1, 1, 1, 2]]], np.uint8)
    masks = np.zeros((1, 2, 3, 4))
    masks[0, 0] = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    masks[0, 1] = [[0, 0, 0, 1], [1, 0, 1, 0], [0, 0, 0, 1]]
    logits = 20.0 * (2.0 * masks - 1.0)
    loss, ious, exists = as_arrays(
        grouping_loss(tensor(logits), tensor(click_ids, "uint8"), tensor(pixel_ids, "uint8"))
    )
    assert loss == pytest.approx(0.0, abs=1e-4)
    np.testing.assert_array_equal(exists, [[[1, 1], [0, 1]]])
    np.testing.assert_allclose(ious[exists > 0], 1.0)
    # What a click has no mask for may be anything, all else not.
    free = logits.copy()
    free[0, 1, 1] *= -1
    wrong = logits.copy()
    wrong[0, 1, 2] *= -1
    for changed, expected in ((free, 0.0), (wrong, 1.0)):
        loss, _, _ = as_arrays(
            grouping_loss(tensor(changed), tensor(click_ids, "uint8"), tensor(pixel_ids, "uint8"))
        )
        assert (loss > 1.0) == bool(expected)


def test_inside_and_outside_weigh_the_same_however_large_a_mask_is() -> None:
    click_ids = np.array([[[1]]], np.uint8)
    losses = []
    for inside in (2, 50):
        pixel_ids = (np.arange(100) < inside).astype(np.uint8)[None, None]
        logits = np.zeros((1, 1, 2, 100))
        loss, _, _ = as_arrays(
            grouping_loss(tensor(logits), tensor(click_ids, "uint8"), tensor(pixel_ids, "uint8"))
        )
        dice = 1.0 - (inside + 1.0) / (50.0 + inside + 1.0)
        losses.append(loss - dice)
    np.testing.assert_allclose(losses, np.log(2.0), rtol=1e-5)
