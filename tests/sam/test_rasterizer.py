"""Tiles against the plain evaluation of whole images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from numpy.typing import NDArray
from scipy import ndimage

from amg_pipeline.records import MaskBatch
from amg_pipeline.sam import rasterizer
from amg_pipeline.sam.rasterizer import Rasterizer, boxes_from_profiles
from tests.sam.plain_resize import two_resizes

IMG_SIZE, LOW_RES = 128, 64
OFFSET = 0.8
CHOSEN = np.array([4, 0, 3, 1])


def smooth_logits(masks: int = 6, *, seed: int = 0) -> NDArray[np.float32]:
    """Logits of blobs, so that there are wide areas far from any threshold."""
    noise = np.random.default_rng(seed).normal(size=(masks, LOW_RES, LOW_RES))
    smooth = ndimage.gaussian_filter(noise, (0, 6, 6))
    return np.asarray(4.0 * smooth / smooth.std(), np.float32)


def measure(
    logits: NDArray[np.float32],
    image_hw: tuple[int, int],
    *,
    chosen: NDArray[np.intp] = CHOSEN,
    threshold: float = 0.0,
) -> tuple[MaskBatch, NDArray[np.float64]]:
    """Give what the rasterizer makes, and full-size logits by plain resizes."""
    scale = IMG_SIZE / max(image_hw)
    input_hw = (max(1, int(image_hw[0] * scale + 0.5)), max(1, int(image_hw[1] * scale + 0.5)))
    runner = Rasterizer((LOW_RES, LOW_RES), IMG_SIZE, mask_threshold=threshold)
    batch = runner.measure(
        ops.convert_to_tensor(logits),
        chosen,
        image_hw=image_hw,
        input_hw=input_hw,
        stability_score_offset=OFFSET,
    )
    full = two_resizes(logits[chosen][None], IMG_SIZE, input_hw, image_hw)[0]
    return batch, full - threshold


def assert_equal(batch: MaskBatch, logits: NDArray[np.float64]) -> None:
    """Compare all but the pixels within rounding of a threshold."""
    height, width = logits.shape[1:]
    assert (batch.height, batch.width) == (height, width)
    assert batch.packed.shape == (len(logits), width, -(-height // 8))
    bits = np.unpackbits(batch.packed, axis=2)
    assert not bits[:, :, height:].any()
    masks = bits[:, :, :height].transpose(0, 2, 1).astype(bool)
    clear = np.abs(logits) > 1e-3
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(masks[clear], (logits > 0)[clear])
    for counts, offset in ((batch.stable_pixels, OFFSET), (batch.possible_pixels, -OFFSET)):
        above = (logits > offset).sum(axis=(1, 2))
        unclear = (np.abs(logits - offset) < 1e-3).sum(axis=(1, 2))
        assert (np.abs(counts - above) <= unclear).all()
    np.testing.assert_array_equal(
        batch.boxes_xyxy, boxes_from_profiles(masks.any(axis=2), masks.any(axis=1))
    )


@pytest.mark.parametrize(
    "image_hw",
    [
        pytest.param((128, 128), id="model-frame"),
        pytest.param((301, 520), id="larger-than-the-frame"),
        pytest.param((97, 60), id="smaller"),
        pytest.param((9, 5), id="below-low-res"),
        pytest.param((1, 700), id="one-row"),
        pytest.param((700, 2), id="two-columns"),
        pytest.param((1, 1), id="one-pixel"),
        pytest.param((257, 128), id="one-pixel-beyond-a-tile"),
    ],
)
def test_tiles_make_up_the_plain_evaluation(image_hw: tuple[int, int]) -> None:
    batch, logits = measure(smooth_logits(), image_hw)
    assert_equal(batch, logits)


@settings(deadline=None, max_examples=20)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    seed=st.integers(0, 9),
    other=st.sampled_from([-50.0, 0.0, 50.0]),
    threshold=st.sampled_from([-3.0, 0.0, 2.0]),
)
def test_what_is_not_used_of_the_logits_changes_nothing(
    height: int, width: int, seed: int, other: float, threshold: float
) -> None:
    logits = smooth_logits(seed=seed)
    scale = IMG_SIZE / max(height, width)
    input_hw = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    rows, columns = Rasterizer((LOW_RES, LOW_RES), IMG_SIZE, mask_threshold=0.0).samples_used(
        image_hw=(height, width), input_hw=input_hw
    )
    assert rows <= input_hw[0] / 2 + 5
    assert columns <= input_hw[1] / 2 + 5
    others = logits.copy()
    others[:, rows:] = other
    others[:, :, columns:] = other
    before, after = (
        measure(some, (height, width), threshold=threshold)[0] for some in (logits, others)
    )
    for name in ("packed", "stable_pixels", "possible_pixels", "boxes_xyxy"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def measure_without_tiles(
    logits: NDArray[np.float32], *, image_hw: tuple[int, int], input_hw: tuple[int, int]
) -> MaskBatch:
    """Measure all masks where no tile may be made."""
    runner = Rasterizer((LOW_RES, LOW_RES), IMG_SIZE, mask_threshold=0.0)
    runner._make_tiles = None  # type: ignore[assignment]
    return runner.measure(
        ops.convert_to_tensor(logits),
        np.arange(len(logits)),
        image_hw=image_hw,
        input_hw=input_hw,
        stability_score_offset=1.0,
    )


def test_a_tile_is_known_whatever_lies_beside_the_image() -> None:
    logits = np.full((1, LOW_RES, LOW_RES), 5.0, np.float32)
    logits[:, 40:] = -5.0
    batch = measure_without_tiles(logits, image_hw=(78, 128), input_hw=(78, 128))
    assert batch.stable_pixels[0] == 78 * 128


def test_more_tiles_with_borders_than_one_call_takes() -> None:
    logits = smooth_logits(9)
    batch, expected = measure(logits, (700, 900), chosen=np.arange(9))
    assert rasterizer._TILES < 9 * 6 * 8
    assert_equal(batch, expected)


def test_another_mask_threshold() -> None:
    batch, logits = measure(smooth_logits(), (301, 520), threshold=1.5)
    assert_equal(batch, logits)


def test_masks_of_everything_and_of_nothing_are_never_made() -> None:
    logits = np.full((2, LOW_RES, LOW_RES), 5.0, np.float32)
    logits[1] = -5.0
    batch = measure_without_tiles(logits, image_hw=(130, 77), input_hw=(128, 76))
    np.testing.assert_array_equal(batch.stable_pixels, [130 * 77, 0])
    np.testing.assert_array_equal(batch.possible_pixels, [130 * 77, 0])
    np.testing.assert_array_equal(batch.boxes_xyxy, [[0, 0, 76, 129], [0, 0, 0, 0]])
    bits = np.unpackbits(batch.packed, axis=2)
    assert bits[0, :, :130].all()
    assert bits.sum() == 130 * 77


@pytest.mark.parametrize(("distance", "is_made"), [(0.0, True), (5e-5, True), (1e-3, False)])
def test_only_what_rounding_may_carry_over_a_threshold_is_made(
    distance: float, is_made: bool
) -> None:
    logits = np.full((1, LOW_RES, LOW_RES), OFFSET + distance, np.float32)
    runner = Rasterizer((LOW_RES, LOW_RES), IMG_SIZE, mask_threshold=0.0)
    calls = []
    make_tiles = runner._make_tiles
    runner._make_tiles = lambda *arguments: calls.append(1) or make_tiles(*arguments)
    batch = runner.measure(
        ops.convert_to_tensor(logits),
        np.arange(1),
        image_hw=(128, 128),
        input_hw=(128, 128),
        stability_score_offset=OFFSET,
    )
    assert bool(calls) == is_made
    assert batch.possible_pixels[0] == 128 * 128


def test_boxes_from_profiles_are_inclusive_and_zero_for_an_empty_mask() -> None:
    masks = np.zeros((4, 6, 9), bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 0, 0] = True
    masks[2, [0, 5], [8, 1]] = True
    boxes = boxes_from_profiles(masks.any(axis=2), masks.any(axis=1))
    assert boxes.dtype == np.int64
    np.testing.assert_array_equal(boxes, [[3, 2, 8, 4], [0, 0, 0, 0], [1, 0, 8, 5], [0, 0, 0, 0]])
