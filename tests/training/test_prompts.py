from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amg_pipeline.training.prompts import (
    Prompts,
    draw_clicks,
    drop_small_masks,
    sample_mask_prompts,
    sample_prompts,
)

HEIGHT, WIDTH = 24, 32


@pytest.fixture
def label_maps() -> NDArray[np.uint8]:
    """Two levels: a large and a small mask, and a part inside the large one."""
    maps = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    maps[0, 2:20, 4:24] = 1
    maps[0, 22, 30] = 7
    maps[1, 5:9, 6:20] = 3
    return maps


def sample(
    label_maps: NDArray[np.uint8], count: int = 200, seed: int = 0, **more: float
) -> Prompts:
    return sample_prompts(np.random.default_rng(seed), label_maps, count, **more)


def test_shapes_and_dtypes(label_maps: NDArray[np.uint8]) -> None:
    prompts = sample(label_maps, 5)
    assert (prompts.coords.shape, prompts.coords.dtype) == ((5, 2, 2), np.float32)
    assert (prompts.labels.shape, prompts.labels.dtype) == ((5, 2), np.int32)
    assert (prompts.target_ids.shape, prompts.target_ids.dtype) == ((5, 2), np.uint8)


def test_every_click_means_exactly_the_masks_it_lies_in(label_maps: NDArray[np.uint8]) -> None:
    prompts = sample(label_maps, box_share=0.0)
    assert (prompts.labels == (1, -1)).all()
    assert not prompts.coords[:, 1].any()
    for (x, y), ids in zip(prompts.coords[:, 0].astype(int), prompts.target_ids, strict=True):
        np.testing.assert_array_equal(ids, label_maps[:, y, x])
        assert ids.any()


def test_small_masks_are_clicked_far_more_often_than_their_area_would_have_it(
    label_maps: NDArray[np.uint8],
) -> None:
    ids = sample(label_maps, box_share=0.0).target_ids
    # One pixel of 361; but a third of the masks, of which half of the clicks choose one.
    assert 0.08 < (ids[:, 0] == 7).mean() < 0.3
    assert 0.05 < (ids[:, 1] == 3).mean() < 0.6


def test_every_box_bounds_its_one_mask_but_for_a_tenth(label_maps: NDArray[np.uint8]) -> None:
    prompts = sample(label_maps, box_share=1.0)
    assert (prompts.labels == (2, 3)).all()
    assert ((prompts.target_ids > 0).sum(axis=1) == 1).all()
    moved = 0
    for box, ids in zip(prompts.coords, prompts.target_ids, strict=True):
        level = int(ids.argmax())
        y, x = np.nonzero(label_maps[level] == ids[level])
        tight = np.array([[x.min(), y.min()], [x.max(), y.max()]])
        size = tight[1] - tight[0] + 1
        assert (np.abs(box - tight) <= 0.1 * size + 1e-4).all()
        assert (box >= 0).all()
        assert (box <= (WIDTH - 1, HEIGHT - 1)).all()
        moved += (box != tight).any()
    assert moved > 100
    assert {tuple(ids) for ids in prompts.target_ids} == {(1, 0), (7, 0), (0, 3)}


def test_a_share_of_the_prompts_are_boxes(label_maps: NDArray[np.uint8]) -> None:
    prompts = sample(label_maps, 1000, box_share=0.2)
    assert 0.15 < (prompts.labels[:, 0] == 2).mean() < 0.25


def test_the_same_generator_gives_the_same_prompts(label_maps: NDArray[np.uint8]) -> None:
    first, second, other = sample(label_maps), sample(label_maps), sample(label_maps, seed=1)
    for name in ("coords", "labels", "target_ids"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.coords != other.coords).any()


def test_a_scene_without_masks_gives_prompts_without_points_and_targets() -> None:
    prompts = sample(np.zeros((3, HEIGHT, WIDTH), np.uint8), 4)
    assert (prompts.labels == -1).all()
    assert not prompts.target_ids.any()
    assert not prompts.coords.any()


def test_drop_small_masks_clears_what_is_below_the_share(label_maps: NDArray[np.uint8]) -> None:
    area = HEIGHT * WIDTH
    kept = drop_small_masks(label_maps, 56 / area)  # the part has 4 x 14 pixels
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(kept[0], np.where(label_maps[0] == 1, 1, 0))
    np.testing.assert_array_equal(kept[1], label_maps[1])
    assert not drop_small_masks(label_maps, 57 / area)[1].any()
    assert drop_small_masks(label_maps, 0.0) is label_maps
    assert label_maps[0, 22, 30] == 7


def test_clicks_fall_on_labelled_pixels_and_small_masks_are_not_forgotten(
    label_maps: NDArray[np.uint8],
) -> None:
    clicks = draw_clicks(np.random.default_rng(0), label_maps, 100)
    assert clicks.dtype == np.int32
    rows, columns = np.divmod(clicks, WIDTH)
    assert label_maps.any(axis=0)[rows, columns].all()
    # One pixel of some 360, but one mask of three for half of the clicks.
    assert 8 <= (label_maps[0, rows, columns] == 7).sum() <= 30


def test_without_masks_clicks_are_anywhere() -> None:
    clicks = draw_clicks(np.random.default_rng(0), np.zeros((2, 4, 4), np.uint8), 5)
    np.testing.assert_array_equal(clicks, np.zeros(5))


@pytest.mark.parametrize("box_share", [0.0, 0.5])
def test_what_is_meant_is_one_of_the_masks(label_maps: NDArray[np.uint8], box_share: float) -> None:
    prompts = sample(label_maps, box_share=box_share)
    assert prompts.meant_levels.dtype == np.int32
    assert prompts.target_ids[np.arange(200), prompts.meant_levels].all()
    ambiguous = prompts.target_ids.all(axis=1)
    assert 0 < prompts.meant_levels[ambiguous].mean() < 1


class TestMaskPrompts:
    masks = np.zeros((3, 10, 12), np.uint8)
    masks[0, 2:6, 3:9] = 1
    masks[1, 7, 7] = 255

    def draw(self, count: int, **options: float) -> Any:
        rng = np.random.default_rng(0)
        return sample_mask_prompts(rng, self.masks, count, **options)

    def test_masks_take_turns_and_empty_ones_are_left_out(self) -> None:
        _, _, meant = self.draw(5)
        assert sorted(meant[:2]) == sorted(meant[2:4]) == [0, 1]

    def test_clicks_fall_into_their_masks(self) -> None:
        coords, labels, meant = self.draw(40, box_share=0.0)
        columns, rows = coords[:, 0].astype(int).T
        assert (self.masks[meant, rows, columns] > 0).all()
        assert (labels == [1, -1]).all()

    def test_boxes_bound_their_masks(self) -> None:
        coords, labels, meant = self.draw(20, box_share=1.0)
        assert (labels == [2, 3]).all()
        np.testing.assert_allclose(coords[meant == 0].mean(axis=0), [[3, 2], [8, 5]], atol=0.5)

    def test_small_masks_can_be_left_out(self) -> None:
        assert set(self.draw(6, min_pixels=2)[2]) == {0}

    def test_without_masks_nothing_is_meant(self) -> None:
        _, labels, meant = self.draw(3, min_pixels=1000)
        assert (labels == -1).all()
        assert (meant == -1).all()
