from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.presets import PIXEL_MEAN
from amg_pipeline.training.views import (
    Augmentation,
    augmented_view,
    draw_framing,
    frame_whole,
    whole_view,
)

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


AUGMENTATIONS = st.builds(
    Augmentation,
    mirrored=st.sampled_from([0.0, 0.5, 1.0]),
    turned=st.sampled_from([0.0, 1.0]),
    cropped=st.sampled_from([0.0, 1.0]),
    oblong=st.sampled_from([0.0, 1.0]),
    least_zoom=st.sampled_from([0.5, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    augmentation=AUGMENTATIONS,
)
def test_points_and_boxes_go_where_the_masks_go(
    seed: int, height: int, width: int, augmentation: Augmentation
) -> None:
    rng = np.random.default_rng(seed)
    framing = draw_framing(rng, (height, width), augmentation)
    masks = np.zeros((2, height, width), bool)
    x, y = int(rng.integers(width - 12)), int(rng.integers(height - 12))
    masks[0, y : y + 12, x : x + 12] = True
    masks[1, y + 3 : y + 6, x + 2 : x + 9] = True  # overlaps the first one
    cut = framing.labels(masks, SIZE)
    assert cut.dtype == bool
    boxes = framing.boxes(np.array([[x, y, x + 11, y + 11], [x + 2, y + 3, x + 8, y + 5]]), SIZE)
    scale = SIZE / framing.extent
    for mask, box in zip(cut, boxes, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            found = np.array([columns[0], rows[0], columns[-1], rows[-1]])
            np.testing.assert_allclose(found, box, atol=max(1.0, scale))
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    points = np.rint(framing.points(grid[masks[1]], SIZE)).astype(int)
    limit = np.floor(np.array([framing.part[3], framing.part[2]]) * scale)
    inside = ((points >= 0) & (points < limit)).all(axis=1)
    shown = points[inside]
    if scale >= 1.0 and len(shown):
        assert cut[1][shown[:, 1], shown[:, 0]].mean() > 0.6


def test_a_whole_image_has_its_points_where_it_has_its_pixels() -> None:
    framing = frame_whole((60, 120))
    points = framing.points(np.array([[0.0, 0.0], [119.0, 59.0], [59.5, 29.5]]), SIZE)
    scale = SIZE / 120
    np.testing.assert_allclose(points[0], [0.5 * scale - 0.5] * 2)
    np.testing.assert_allclose(points[1], [119.5 * scale - 0.5, 59.5 * scale - 0.5])
    np.testing.assert_allclose(points[2], [60 * scale - 0.5, 30 * scale - 0.5])


def test_a_view_can_be_smaller_than_its_frame() -> None:
    image, labels = square_on_dark()
    augmentation = Augmentation(cropped=0, oblong=0, turned=0, recoloured=0, least_zoom=0.3)
    shares = [
        (cut[0] > 0).mean()
        for seed in range(12)
        for _, cut in [
            augmented_view(
                np.random.default_rng(seed),
                image,
                labels,
                size=SIZE,
                label_size=LABEL_SIZE,
                augmentation=augmentation,
            )
        ]
    ]
    assert min(shares) < 0.3
    assert max(shares) > 0.5


def test_colours_can_stay_as_they_are() -> None:
    image, labels = square_on_dark(64, 64)
    still = Augmentation(mirrored=0, turned=0, cropped=0, oblong=0, recoloured=0)
    pixels, cut = augmented_view(
        np.random.default_rng(3), image, labels, size=64, label_size=64, augmentation=still
    )
    np.testing.assert_array_equal(pixels, image)
    np.testing.assert_array_equal(cut, labels)


@pytest.mark.parametrize("changes", [{"turned": 1.5}, {"least_zoom": 0.0}, {"least_crop": 2.0}])
def test_shares_that_are_none_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        Augmentation(**changes)
