from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from amg_pipeline.training.label_maps import OBJECTS, PARTS, UNITS, LabelMaps
from amg_pipeline.training.sprites import Sprite, SpriteLayer

SIZE = 64


def sprite(
    top: int, left: int, height: int, width: int, *, parts: NDArray[np.uint8] | None = None
) -> Sprite:
    layers = ()
    if parts is not None:
        layers = (SpriteLayer((parts > 0).astype(np.float32), parts, None),)
    alpha = np.ones((height, width), np.float32)
    return Sprite(top, left, alpha, layers, np.zeros((2, 3)), "flat")


@pytest.fixture
def maps() -> LabelMaps:
    maps = LabelMaps(SIZE)
    maps.lay_regions(np.ones((SIZE, SIZE), np.uint8))
    return maps


def test_object_hides_what_lies_behind(maps: LabelMaps) -> None:
    maps.lay_object(sprite(0, 0, 20, 20))
    maps.lay_object(sprite(0, 10, 20, 20))
    done = maps.finish()
    assert np.bincount(done[OBJECTS].ravel())[1:].tolist() == [200, 400]
    assert (done[UNITS] == 1).sum() == SIZE * SIZE - 600


def test_nearly_hidden_object_is_dropped(maps: LabelMaps) -> None:
    maps.lay_object(sprite(0, 0, 20, 20))
    maps.lay_object(sprite(0, 1, 20, 30))  # leaves one column of 20: 5 %
    assert maps.finish()[OBJECTS].max() == 1


def test_mask_under_smallest_area_is_dropped(maps: LabelMaps) -> None:
    maps.lay_object(sprite(0, 0, 3, 1))  # the least at this size is 4
    maps.lay_object(sprite(10, 0, 2, 2))
    done = maps.finish()[OBJECTS]
    assert done.max() == 1
    assert (done > 0).sum() == 4


def test_rest_of_an_object_with_parts_is_a_part_too(maps: LabelMaps) -> None:
    parts = np.zeros((10, 10), np.uint8)
    parts[:3], parts[7:] = 1, 2
    maps.lay_object(sprite(0, 0, 10, 10, parts=parts))
    done = maps.finish()[PARTS]
    assert sorted(np.bincount(done.ravel())[1:].tolist()) == [30, 30, 40]


def test_part_that_is_its_whole_object_is_dropped(maps: LabelMaps) -> None:
    parts = np.ones((10, 10), np.uint8)
    parts[0, :5] = 0
    maps.lay_object(sprite(0, 0, 10, 10, parts=parts))
    assert maps.finish()[PARTS].max() == 0


def test_group_is_one_unit_and_a_single_survivor_is_none(maps: LabelMaps) -> None:
    pair, single = maps.new_unit(), maps.new_unit()
    maps.lay_object(sprite(0, 0, 8, 8), unit_id=pair)
    maps.lay_object(sprite(0, 20, 8, 8), unit_id=pair)
    maps.lay_object(sprite(40, 0, 8, 8), unit_id=single)
    done = maps.finish()
    assert np.unique(done[UNITS]).tolist() == [0, 1, 2]
    assert (done[UNITS] == 2).sum() == 128
    assert (done[UNITS][40:48, :8] == 0).all()


def test_more_masks_than_ids_keeps_the_largest(maps: LabelMaps) -> None:
    for row in range(16):
        for column in range(16):
            height = 2 if (row, column) == (5, 5) else 3
            maps.lay_object(sprite(4 * row, 4 * column, height, 3))
    done = maps.finish()[OBJECTS]
    assert done.max() == 255
    assert done[20, 20] == 0, "the smallest of 256 has no id"
