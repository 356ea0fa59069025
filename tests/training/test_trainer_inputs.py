from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from amg_pipeline.sam import SAM
from amg_pipeline.training.trainer_inputs import low_res_targets, prompt_tokens
from amg_pipeline.training.views import frame_whole
from tests.sam.small_sam import as_arrays
from tests.training.labelled_images import small_sam

IMAGE = np.zeros((2, 20, 64, 3), np.uint8)  # twice the model's 32 pixels
CLICKS = np.array([[[10.0, 6.0]], [[63.0, 19.0]]], np.float32)
BOXES = np.array([[[2.0, 4.0, 20.0, 8.0]], [[0.0, 0.0, 64.0, 20.0]]], np.float32)


@pytest.fixture(scope="module")
def sam() -> SAM:
    return small_sam()


def tokens(sam: SAM, **inputs: Any) -> Any:
    coords, labels, prompts = prompt_tokens(sam, {"image": IMAGE, **inputs})
    return as_arrays(coords), as_arrays(labels), prompts


def test_points_move_into_the_model_frame_and_get_their_padding(sam: SAM) -> None:
    coords, labels, prompts = tokens(sam, points=(CLICKS, np.array([[1], [0]])))
    np.testing.assert_array_equal(coords, [[[5, 3], [0, 0]], [[31.5, 9.5], [0, 0]]])
    np.testing.assert_array_equal(labels, [[1, -1], [0, -1]])
    assert prompts is None


def test_boxes_become_two_corners(sam: SAM) -> None:
    coords, labels, _ = tokens(sam, points=(CLICKS, np.array([[1], [0]])), boxes=BOXES)
    np.testing.assert_array_equal(coords[0], [[5, 3], [1, 2], [10, 4]])
    np.testing.assert_array_equal(labels, [[1, 2, 3], [0, 2, 3]])


def test_prompts_may_have_an_axis_of_their_own(sam: SAM) -> None:
    clicks = np.stack([CLICKS, CLICKS + 2, CLICKS + 4], axis=1)
    coords, labels, prompts = tokens(sam, points=(clicks, np.ones((2, 3, 1))))
    assert (coords.shape, labels.shape, prompts) == ((6, 2, 2), (6, 2), 3)
    np.testing.assert_array_equal(coords[1, 0], [6, 4])


def test_an_image_without_a_prompt_is_refused(sam: SAM) -> None:
    with pytest.raises(ValueError, match="prompt"):
        tokens(sam)


def targets(masks: Any, prompts: int | None = None) -> Any:
    return as_arrays(low_res_targets(ops.convert_to_tensor(masks), prompts, 8))


@pytest.mark.parametrize("image_hw", [(20, 64), (64, 20), (5, 3), (64, 64)])
def test_masks_of_the_image_lie_where_views_put_them(image_hw: tuple[int, int]) -> None:
    masks = np.random.default_rng(0).integers(0, 2, (3, *image_hw)).astype(np.uint8)
    expected = frame_whole(image_hw).labels(masks, 8)
    np.testing.assert_array_equal(targets(masks[None], 3)[:, 0], expected)


def test_masks_in_the_low_res_frame_stay_as_they_are() -> None:
    masks = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(targets(masks)[:, 0], masks)


@pytest.mark.parametrize("image_hw", [(20, 64), (8, 8)])
def test_sizes_may_be_unknown_while_a_graph_is_traced(image_hw: tuple[int, int]) -> None:
    masks = np.random.default_rng(0).integers(0, 2, (1, 3, *image_hw)).astype(np.float32)
    spec = tf.TensorSpec((1, 3, None, None))
    traced = tf.function(lambda given: low_res_targets(given, 3, 8), input_signature=[spec])
    np.testing.assert_array_equal(traced(masks), targets(masks, 3))


def test_the_number_of_prompts_and_masks_must_be_known(sam: SAM) -> None:
    @tf.function(input_signature=[tf.TensorSpec((1, None, 1, 2)), tf.TensorSpec((1, None, 1))])
    def prompted(coords: Any, labels: Any) -> Any:
        return prompt_tokens(sam, {"image": IMAGE[:1], "points": (coords, labels)})[0]

    with pytest.raises(ValueError, match="known number of prompts"):
        prompted.get_concrete_function()
    meant = tf.function(
        lambda masks: low_res_targets(masks, None, 8), input_signature=[tf.TensorSpec([None] * 4)]
    )
    with pytest.raises(ValueError, match="known L"):
        meant.get_concrete_function()


@pytest.mark.parametrize(
    ("shape", "prompts", "expected"),
    [
        ((2, 9, 9), None, (2, 1, 8, 8)),
        ((2, 9, 9, 1), None, (2, 1, 8, 8)),
        ((2, 1, 9, 9), None, (2, 1, 8, 8)),
        ((2, 3, 9, 9), None, (2, 3, 8, 8)),  # three masks that one prompt may mean
        ((2, 3, 9, 9), 3, (6, 1, 8, 8)),
    ],
)
def test_shapes_of_targets(
    shape: tuple[int, ...], prompts: int | None, expected: tuple[int, ...]
) -> None:
    assert targets(np.ones(shape), prompts).shape == expected


@pytest.mark.parametrize(("shape", "prompts"), [((2, 9), None), ((2, 9, 9), 3), ((2, 4, 9, 9), 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...], prompts: int | None) -> None:
    with pytest.raises(ValueError, match="Target masks"):
        targets(np.ones(shape), prompts)
