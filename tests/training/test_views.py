from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from amg_pipeline.sam.presets import PIXEL_MEAN
from amg_pipeline.training.views import augmented_view, whole_view

SIZE, LABEL_SIZE = 64, 32
PADDING = np.asarray(PIXEL_MEAN, np.float32)


def square_on_dark(
    height: int = 96, width: int = 120
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A bright rectangle that is mask 5 of the second level."""
    image = np.full((height, width, 3), 20, np.uint8)
    labels = np.zeros((3, height, width), np.uint8)
    labels[0] = 1
    image[20:60, 30:90] = 220
    labels[1, 20:60, 30:90] = 5
    return image, labels


def test_a_whole_image_fills_the_longer_side_and_is_padded() -> None:
    image, labels = square_on_dark(60, 120)
    pixels, cut = whole_view(image, labels, size=SIZE, label_size=LABEL_SIZE)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.float32
    assert cut.shape == (3, LABEL_SIZE, LABEL_SIZE)
    assert (pixels[SIZE // 2 :] == PADDING).all()
    assert (cut[:, LABEL_SIZE // 2 :] == 0).all()
    assert (cut[0, : LABEL_SIZE // 2] == 1).all()
    # The rectangle is at the same place in both: columns 30 to 90 of 120.
    assert (cut[1, 10, 8:24] == 5).all()
    assert not cut[1, 10, [7, 24]].any()
    np.testing.assert_allclose(pixels[20, 18:46], 220.0)


def test_an_image_of_the_views_size_is_not_resampled() -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    labels = np.zeros((1, SIZE, SIZE), np.uint8)
    pixels, _ = whole_view(image, labels, size=SIZE, label_size=LABEL_SIZE)
    np.testing.assert_array_equal(pixels, image)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_pixels_and_labels_move_together(seed: int) -> None:
    pixels, labels = augmented_view(
        np.random.default_rng(seed), *square_on_dark(), size=SIZE, label_size=LABEL_SIZE
    )
    seen = labels[0] == 1
    mask = labels[1] == 5
    assert not (mask & ~seen).any()
    gray = pixels[::2, ::2].mean(axis=-1)
    if mask.any() and (seen & ~mask).any():
        bright = gray > (gray[seen].min() + gray[seen].max()) / 2
        # One row of pixels along the border may be mixed of both.
        assert ((bright != mask) & seen).sum() <= 2 * LABEL_SIZE
        assert (bright & mask).sum() > 0.7 * mask.sum()
    assert pixels.min() >= 0.0
    assert pixels.max() <= 255.0


def test_views_differ_in_place_shape_and_colour() -> None:
    rng = np.random.default_rng(0)
    views = [
        augmented_view(rng, *square_on_dark(120), size=SIZE, label_size=LABEL_SIZE)
        for _ in range(24)
    ]
    padded = [bool((pixels == PADDING).all(axis=2).any()) for pixels, _ in views]
    assert 4 < sum(padded) < 24
    assert len({labels.tobytes() for _, labels in views}) > 12
    assert len({float(pixels[0, 0, 0]) for pixels, _ in views}) > 12


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3)])
def test_any_shape_of_image_gives_a_view(shape: tuple[int, int]) -> None:
    image, labels = np.zeros((*shape, 3), np.uint8), np.ones((2, *shape), np.uint8)
    for seed in range(4):
        pixels, cut = augmented_view(
            np.random.default_rng(seed), image, labels, size=SIZE, label_size=LABEL_SIZE
        )
        assert pixels.shape == (SIZE, SIZE, 3)
        assert cut.shape == (2, LABEL_SIZE, LABEL_SIZE)
