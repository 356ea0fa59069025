from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam import SAM
from amg_pipeline.sam.weights import load_weights, save_weights
from amg_pipeline.training.lora import add_adapters, count_parameters, merge_adapters
from amg_pipeline.training.trainer import SAMTrainer
from tests.sam.small_sam import as_arrays, random_image
from tests.training.labelled_images import small_batches, small_sam, small_trainer

pytestmark = pytest.mark.training

INPUTS = {
    "image": random_image(40, 30),
    "points": (np.array([[[9.0, 12.0]]], np.float32), np.ones((1, 1), np.int32)),
}


def outputs(sam: SAM) -> Any:
    found = as_arrays(sam(INPUTS))
    return found["low_res_logits"], found["iou_predictions"]


def stir(sam: SAM) -> None:
    rng = np.random.default_rng(0)
    for variable in sam.trainable_variables:
        variable.assign(rng.normal(0.0, 0.3, variable.shape))


def test_adapters_begin_without_an_effect_and_are_all_that_is_trained() -> None:
    sam = small_sam()
    before, size = outputs(sam), count_parameters(sam.variables)
    paths = add_adapters(sam, rank=1)
    np.testing.assert_equal(outputs(sam), before)
    assert len(paths) == 2 + 4 * (2 * 3 + 1)
    trainable = SAMTrainer(sam).trainable_variables
    assert {v.name for v in trainable} == {"lora_kernel_a", "lora_kernel_b"}
    assert len(trainable) == 2 * len(paths)
    assert count_parameters(sam.variables) == size + count_parameters(trainable)


@pytest.mark.parametrize(("where", "count"), [("encoder", 2), ("decoder", 28)])
def test_adapters_may_be_in_one_part_only(where: Any, count: int) -> None:
    assert len(add_adapters(small_sam(), rank=1, where=where)) == count


def test_merged_weights_give_the_adapters_output_in_an_ordinary_file(tmp_path: Path) -> None:
    sam = small_sam()
    plain = outputs(sam)
    add_adapters(sam, rank=2, alpha=4.0)
    stir(sam)
    adapted = outputs(sam)
    assert np.abs(adapted[0] - plain[0]).max() > 0.1
    merged = merge_adapters(sam)
    np.testing.assert_allclose(outputs(merged)[0], adapted[0], atol=1e-3)
    save_weights(merged, tmp_path / "merged.safetensors")
    loaded = small_sam(seed=1)
    load_weights(loaded, str(tmp_path / "merged.safetensors"))
    np.testing.assert_equal(outputs(loaded), outputs(merged))
    # Training can go on, and the one with adapters is as it was.
    assert len(merged.trainable_variables) == len(merged.variables) - 1
    np.testing.assert_equal(outputs(sam), adapted)


def test_adapters_cannot_be_added_twice_or_without_width() -> None:
    sam = small_sam()
    with pytest.raises(ConfigError, match="rank"):
        add_adapters(sam, rank=0)
    add_adapters(sam, rank=1)
    with pytest.raises(ConfigError, match="already"):
        add_adapters(sam, rank=1)


def test_fitting_changes_adapters_only() -> None:
    sam = small_sam()
    add_adapters(sam, rank=1)
    before = as_arrays(sam.variables)
    small_trainer(sam).fit(small_batches(sam, steps=2), verbose=0)
    changed = {
        v.name
        for v, values in zip(sam.variables, before, strict=True)
        if (as_arrays(v) != values).any()
    }
    assert changed == {"lora_kernel_a", "lora_kernel_b"}
