from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.sam.model import SAM
from amg_pipeline.training.reviving import revive_output
from amg_pipeline.training.trainer import SAMTrainer
from tests.sam.small_sam import IMG_SIZE, as_arrays, make_sam, random_image

# Keras passes TensorFlow variables to np.array, and TensorFlow does not know NumPy 2's `copy` yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def answer(sam: SAM) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits `(4, S, S)` and predicted IoU `(4,)` of all outputs for one click."""
    points = np.array([[[20.0, 30.0]]], np.float32), np.ones((1, 1), np.int32)
    inputs = {
        "image": ops.convert_to_tensor(random_image(IMG_SIZE, IMG_SIZE)),
        "points": tuple(ops.convert_to_tensor(part) for part in points),
    }
    outputs = SAMTrainer(sam, rounds=1)(inputs)
    return as_arrays(outputs["low_res_logits"])[0], as_arrays(outputs["iou_predictions"])[0]


def test_a_revived_output_is_like_its_twin_and_a_little_different() -> None:
    sam = make_sam()
    (before, scores), _ = answer(sam), revive_output(sam, lost=2, twin=3, seed=0)
    logits, revived_scores = answer(sam)
    far = np.abs(before[2] - before[3]).mean()
    assert 0.0 < np.abs(logits[2] - logits[3]).mean() < 0.5 * far
    # The tokens look at each other, so the other outputs move, but by less than that.
    assert np.abs(logits[[0, 1, 3]] - before[[0, 1, 3]]).mean() < 0.25 * far
    assert revived_scores[2] == pytest.approx(revived_scores[3])
    assert scores[2] != pytest.approx(scores[3])


def test_the_seed_decides_the_noise() -> None:
    first, again, other = make_sam(), make_sam(), make_sam()
    for sam, seed in ((first, 0), (again, 0), (other, 1)):
        revive_output(sam, lost=1, twin=2, seed=seed)
    np.testing.assert_array_equal(answer(first)[0], answer(again)[0])
    assert (answer(first)[0][1] != answer(other)[0][1]).any()


@pytest.mark.parametrize(("lost", "twin"), [(1, 1), (4, 1), (1, -1)])
def test_outputs_that_do_not_exist_or_are_the_same_are_refused(lost: int, twin: int) -> None:
    with pytest.raises(ValueError, match=f"below 4. Received: {lost} and {twin}"):
        revive_output(make_sam(), lost=lost, twin=twin, seed=0)
