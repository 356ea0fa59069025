"""What the call refuses, seen from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops

from amg_pipeline.sam import SAM
from tests.sam.small_sam import random_image

IMAGE = random_image(48, 80)
POINTS = (np.array([[[30.0, 20.0]]]), np.array([[1]]))
BOXES = np.array([[[10.0, 5.0, 60.0, 40.0]]])
MASKS = np.zeros((1, 1, 32, 32))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param(IMAGE, r"one dictionary that has the key 'image'.*ndarray", id="array"),
        pytest.param({"points": POINTS}, r"'image'.*keys \['points'\]", id="no-image"),
        pytest.param({"image": None}, "'image'", id="image-none"),
        pytest.param({"image": IMAGE, "point": POINTS}, r"also: \['point'\]", id="key"),
        pytest.param({"image": IMAGE[0]}, r"Received: \(48, 80, 3\)", id="no-batch"),
        pytest.param({"image": IMAGE[..., :1]}, r"RGB.*\(1, 48, 80, 1\)", id="gray"),
        pytest.param({"image": IMAGE.astype("int32")}, "uint8 or float.*int32", id="int32"),
        pytest.param({"image": IMAGE[:, :0]}, "must have pixels", id="no-pixels"),
        pytest.param(
            {"image": IMAGE, "points": POINTS[0]}, r"pair \(coords, labels\)", id="no-labels"
        ),
        pytest.param(
            {"image": IMAGE, "points": (POINTS[0][0], POINTS[1])},
            r"coords must be of shape \(B, N, 2\). Received: \(1, 2\)",
            id="coords-rank",
        ),
        pytest.param(
            {"image": IMAGE, "points": (POINTS[0], [[1, 1]])}, "needs one label", id="labels"
        ),
        pytest.param(
            {"image": IMAGE, "boxes": BOXES[0]}, r"\(B, M, 4\). Received: \(1, 4\)", id="box"
        ),
        pytest.param({"image": IMAGE, "boxes": BOXES > 9}, "dtype: bool", id="bool-box"),
        pytest.param(
            {"image": IMAGE, "masks": MASKS[..., :9]},
            r"\(B, 1, 32, 32\). Received: \(1, 1, 32, 9\)",
            id="mask-size",
        ),
        pytest.param(
            {"image": IMAGE, "boxes": np.tile(BOXES, (2, 1, 1)), "points": POINTS},
            r"batch sizes: \{'image': 1, 'points': 1, 'boxes': 2\}",
            id="batches-of-prompts",
        ),
        pytest.param(
            {"image": np.tile(IMAGE, (3, 1, 1, 1)), "boxes": np.tile(BOXES, (2, 1, 1))},
            "batch sizes",
            id="batches-of-image-and-prompts",
        ),
        pytest.param({"image": IMAGE, "original_size": (1, 2, 3)}, r"\(height, width\)", id="size"),
        pytest.param(
            {"image": IMAGE, "original_size": ops.convert_to_tensor([[4, 5]])},
            r"\(height, width\). Received: .*shape \(1, 2\)",
            id="size-of-a-batch",
        ),
        pytest.param(
            {"image": IMAGE, "original_size": (0, 5)},
            r"positive. Received: \(0, 5\)",
            id="zero",
        ),
        pytest.param({"image": IMAGE, "multimask_output": 3}, "True or False.*3", id="flag"),
    ],
)
def test_wrong_inputs_are_refused_with_what_was_expected_and_received(
    sam: SAM, inputs: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sam(inputs)
