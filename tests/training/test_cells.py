from __future__ import annotations

import numpy as np
from keras import ops

from amg_pipeline.training.cells import (
    cells_to_grid,
    labels_by_cell,
    locate_in_cells,
    upscale_cells,
)
from tests.sam.small_sam import CHANNELS, GRID, IMG_SIZE, LOW_RES, as_arrays, make_sam


def test_pixels_are_found_in_their_cells() -> None:
    numbers = np.arange(LOW_RES * LOW_RES).reshape(1, 1, LOW_RES, LOW_RES)
    by_cell = as_arrays(labels_by_cell(ops.convert_to_tensor(numbers)))
    assert by_cell.shape == (1, 1, GRID * GRID, 16)
    pixels = np.random.default_rng(0).integers(LOW_RES**2, size=(2, 50)).astype(np.int32)
    cells, places = as_arrays(locate_in_cells(ops.convert_to_tensor(pixels), GRID))
    np.testing.assert_array_equal(by_cell[0, 0, cells, places], pixels)
    # A cell holds the 4 x 4 pixels at its own place.
    rows, columns = np.divmod(by_cell[0, 0], LOW_RES)
    np.testing.assert_array_equal(
        rows // 4 * GRID + columns // 4, np.arange(GRID**2)[:, None] + 0 * rows
    )


def test_upscaled_cells_make_the_decoders_own_masks() -> None:
    """The model's low-res logits, cell by cell."""
    sam = make_sam()
    decoder = sam.mask_decoder
    image = np.random.default_rng(0).uniform(0, 255, (1, IMG_SIZE, IMG_SIZE, 3)).astype(np.float32)
    click = (np.array([[[20.0, 30.0]]], np.float32), np.ones((1, 1), np.int32))
    expected = as_arrays(sam({"image": image, "points": click}))["low_res_logits"]

    features = sam.image_encoder(sam.preprocess(image))
    sparse, dense = sam.prompt_encoder(points=click)
    learned = ops.concatenate([decoder.iou_token, decoder.mask_tokens], axis=0)
    tokens, attended = decoder.transformer(
        features + dense,
        sam.prompt_encoder.get_dense_pe(),
        ops.concatenate([learned[None], sparse], axis=1),
    )
    upscaled = upscale_cells(decoder, attended)
    assert upscaled.shape == (1, GRID * GRID, 16, CHANNELS // 8)
    flat = ops.reshape(upscaled, (1, -1, CHANNELS // 8))
    logits = ops.matmul(decoder.mask_weights(tokens), ops.transpose(flat, (0, 2, 1)))
    by_cell = as_arrays(labels_by_cell(ops.convert_to_tensor(expected)))
    np.testing.assert_allclose(
        as_arrays(logits)[:, 1:], by_cell.reshape(1, 3, -1), rtol=1e-3, atol=1e-3
    )


def test_values_by_cell_go_back_to_their_places() -> None:
    grid = np.random.default_rng(0).normal(size=(2, 3, 8, 12)).astype(np.float32)
    by_cell = ops.reshape(labels_by_cell(ops.convert_to_tensor(grid)), (2, 3, -1))
    np.testing.assert_array_equal(as_arrays(cells_to_grid(by_cell, 2, 3)), grid)
