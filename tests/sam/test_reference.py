"""Equality of a small SAM, and of its steps, with the reference's; no PyTorch is needed.

The expected arrays come from `tests/reference/make_sam_goldens.py`, the weights on both sides from
a seed. They are float32 results of another library, so they agree to a tolerance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.sam import SAM
from amg_pipeline.sam.grid_parts import GridParts
from amg_pipeline.sam.image_side import DenseImage
from benchmarks.our_model import TOLERANCE, run_ours
from benchmarks.prompt_cases import prompt_cases
from benchmarks.seeded_weights import LOGIT_STD_RANGE, MODELS, SMALL, build_seeded_sam

GOLDENS = Path(__file__).parents[1] / "reference" / "sam_goldens.npz"
LOW_RES_SIZE = 4 * SMALL.grid_size
CASES = [case.name for case in prompt_cases(51, 75, LOW_RES_SIZE)]
STEPS_CASE = "2 prompts of 2 points, box, mask"


@pytest.fixture(scope="module")
def goldens() -> dict[str, NDArray[Any]]:
    with np.load(GOLDENS) as file:
        return dict(file)


@pytest.fixture(scope="module")
def seeded_sam() -> SAM:
    return build_seeded_sam(MODELS["small"])


@pytest.fixture(scope="module")
def found(seeded_sam: SAM, goldens: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], dict[str, Any]]:
    image = goldens["image"]
    cases = prompt_cases(*image.shape[:2], LOW_RES_SIZE)
    return run_ours(seeded_sam, image, cases, whole_calls=len(cases))


def assert_near(found: Any, expected: NDArray[Any]) -> None:
    found = ops.convert_to_numpy(found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_image_embedding_is_the_references(found, goldens):
    assert_near(found[0], goldens["image_embedding"])


@pytest.mark.parametrize("case", CASES)
def test_low_res_logits_and_scores_are_the_references(case, found, goldens):
    for key in ("low_res_logits", "iou_predictions"):
        assert_near(found[1][case][key], goldens[f"{case}|{key}"])


@pytest.mark.parametrize("case", CASES)
def test_full_size_masks_are_the_references_where_rounding_does_not_decide(case, found, goldens):
    masks = found[1][case]["masks"]
    assert masks.shape[2:] == goldens["image"].shape[:2]
    expected, undecided = (
        np.unpackbits(goldens[f"{case}|{key}"], count=masks.size).astype(bool).reshape(masks.shape)
        for key in ("masks", "undecided")
    )
    assert undecided.mean() < 0.01
    np.testing.assert_array_equal(masks | undecided, expected | undecided)


def test_patches_are_the_references(seeded_sam, goldens):
    pixels = seeded_sam.preprocess(goldens["image"][None])
    assert_near(seeded_sam.image_encoder.patch_embed(pixels), goldens["patches"])


@pytest.mark.parametrize(("index", "kind"), [(0, "windowed"), (1, "global"), (2, "windowed")])
def test_each_block_gives_what_the_references_gives_of_the_same_input(
    index, kind, seeded_sam, goldens
):
    encoder = seeded_sam.image_encoder
    block = encoder.blocks[index]
    assert bool(block.window_size) == (kind == "windowed")
    before = goldens[f"block_{index - 1}"] if index else encoder.pos_embed + goldens["patches"]
    assert_near(block(before), goldens[f"block_{index}"])


def test_prompt_embeddings_are_the_references(seeded_sam, goldens):
    height, width = goldens["image"].shape[:2]
    (case,) = (c for c in prompt_cases(height, width, LOW_RES_SIZE) if c.name == STEPS_CASE)
    # The longer side, 75 pixels, fills the model frame of 64; the other becomes 43.52, so 44.
    scale = np.array([64 / 75, 44 / 51])
    sparse, dense = seeded_sam.prompt_encoder(
        points=(case.points[0] * scale, case.points[1]),
        boxes=case.boxes * np.tile(scale, 2),
        masks=case.masks,
    )
    assert_near(sparse, goldens["sparse"])
    assert_near(dense, goldens["dense"])


def test_two_way_transformer_gives_what_the_references_gives_of_the_same_input(seeded_sam, goldens):
    tokens, features = seeded_sam.mask_decoder.attend(
        goldens["image_embedding"],
        seeded_sam.prompt_encoder.get_dense_pe(),
        goldens["sparse"],
        goldens["dense"],
    )
    assert_near(tokens, goldens["tokens"])
    assert_near(features.features(), goldens["features"])


def test_decoder_heads_give_what_the_references_give_of_the_same_input(seeded_sam, goldens):
    decoder, grid = seeded_sam.mask_decoder, (SMALL.grid_size, SMALL.grid_size)
    image = DenseImage(ops.convert_to_tensor(goldens["features"]), None)
    weights = decoder.mask_weights(goldens["tokens"])
    logits = decoder.mask_logits(weights, image, GridParts(grid, grid))
    assert_near(logits[:, 1:], goldens[f"{STEPS_CASE}|low_res_logits"])
    assert_near(
        decoder.predict_iou(goldens["tokens"])[:, 1:], goldens[f"{STEPS_CASE}|iou_predictions"]
    )


def test_goldens_are_worth_comparing(goldens):
    low, high = LOGIT_STD_RANGE
    logits = [goldens[f"{case}|low_res_logits"] for case in CASES]
    assert low < np.median([values.std() for values in logits]) < high
    assert all(0.01 < (values > 0).mean() < 0.99 for values in logits)
    assert GOLDENS.stat().st_size < 300_000
