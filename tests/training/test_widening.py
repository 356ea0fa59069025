"""A wider model starts with the outputs of the narrower one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from amg_pipeline.sam.weights.conversion import build_model
from amg_pipeline.training.widening import widen
from tests.sam.small_sam import as_arrays, randomize
from tests.sam.small_sizes import SMALL

pytestmark = pytest.mark.training

WIDE = replace(
    SMALL, embed_dim=36, out_chans=48, mask_in_chans=16, mlp_dim=48, iou_head_hidden_dim=20
)


def random_sam(sizes: Any, seed: int) -> Any:
    sam = build_model(sizes)
    randomize(sam, seed=seed)
    return sam


def outputs(sam: Any) -> Any:
    rng = np.random.default_rng(0)
    masks = rng.normal(0.0, 4.0, (2, 1, 16, 16)).astype(np.float32)
    return as_arrays(
        sam(
            {
                "image": rng.integers(0, 256, (1, 40, 64, 3)).astype(np.uint8),
                "points": (rng.uniform(0, 40, (2, 3, 2)).astype(np.float32), np.ones((2, 3))),
                "boxes": np.array([[[3, 4, 30, 20]], [[8, 2, 60, 39]]], np.float32),
                "masks": masks,
            }
        )
    )


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    """A narrow model, and a wide one that started from it."""
    narrow, wide = random_sam(SMALL, 0), random_sam(WIDE, 1)
    widen(narrow, wide)
    return narrow, wide


def test_outputs_are_equal(models: tuple[Any, Any]) -> None:
    before, after = map(outputs, models)
    scale = np.abs(before["low_res_logits"]).max()
    np.testing.assert_allclose(after["low_res_logits"], before["low_res_logits"], atol=1e-3 * scale)
    np.testing.assert_allclose(
        after["iou_predictions"], before["iou_predictions"], rtol=1e-3, atol=1e-3
    )


def test_equal_channels_are_read_with_unequal_weights(models: tuple[Any, Any]) -> None:
    """Otherwise they would learn the same for ever. The parts are the same for the same seed."""
    narrow, wide = models
    lin1 = wide.image_encoder.blocks[0].mlp.lin1.kernel
    kernel = as_arrays(lin1)
    assert (np.ptp(kernel[:3], axis=0) > 1e-3).any()
    widen(narrow, wide, seed=1)
    assert (as_arrays(lin1) != kernel).any()
    widen(narrow, wide)
    np.testing.assert_array_equal(as_arrays(lin1), kernel)


def test_models_that_differ_in_more_are_refused(models: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="multiples"):
        widen(models[1], models[0])
    with pytest.raises(ValueError, match="equal but for their widths"):
        widen(models[0], random_sam(replace(WIDE, depth=2), 1))
