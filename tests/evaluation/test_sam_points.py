"""The same numbers as the whole model's call, for any number of clicks."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from amg_pipeline.evaluation.sam_points import SamPoints
from amg_pipeline.sam import SAM
from tests.training.small_preset import SMALL

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def sam() -> SAM:
    import keras

    keras.utils.set_random_seed(3)
    return SAM.from_preset(SMALL)


IMAGE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
POINTS = np.array([[[10.0, 12.0], [40.0, 30.0]], [[52.0, 36.0], [0.0, 0.0]], [[7, 7], [8, 9]]])
LABELS = np.array([[1, 0], [1, 1], [1, 0]], np.int32)


@pytest.mark.parametrize("with_masks", [False, True], ids=["clicks", "clicks-and-masks"])
def test_outputs_are_those_of_the_model(sam: SAM, with_masks: bool) -> None:
    model = SamPoints(sam, prompts_per_batch=4)
    embedding = model.encode(IMAGE)
    shape = (3, *sam.prompt_encoder.mask_input_size)
    earlier = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    inputs = {"image": IMAGE[None], "points": (POINTS, LABELS)}
    if with_masks:
        inputs["masks"] = earlier[:, None]

    outputs = model.decode(embedding, POINTS, LABELS, earlier if with_masks else None)
    masks = np.stack([model.full_size(embedding, part) > 0 for part in outputs.logits])

    expected = {name: ops.convert_to_numpy(value) for name, value in sam(inputs).items()}
    np.testing.assert_allclose(outputs.logits, expected["low_res_logits"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs.predicted_iou, expected["iou_predictions"], atol=1e-5)
    assert masks.shape == expected["masks"].shape == (3, 3, 37, 53)
    assert np.mean(masks == expected["masks"]) > 0.999
