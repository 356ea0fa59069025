from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.noise import noise_bank
from amg_pipeline.training.scenes import LEVELS, OBJECTS, PARTS, UNITS, Scene, render_scene

#: Seeds from here on are held out of every training.
HELD_OUT = 1_000_000_000


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(HELD_OUT + i, 128) for i in range(40)]


@pytest.mark.parametrize("size", [32, 100, 256])
def test_scene_has_documented_shapes_and_types(size: int) -> None:
    scene = render_scene(3, size)
    assert scene.image.shape == (size, size, 3)
    assert scene.label_maps.shape == (len(LEVELS), size, size)
    assert scene.image.dtype == scene.label_maps.dtype == np.uint8


def test_same_seed_gives_same_bytes_with_a_new_noise_bank() -> None:
    first = render_scene(11, 96)
    noise_bank.cache_clear()
    render_scene(12, 96)
    again = render_scene(11, 96)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.label_maps.tobytes() == again.label_maps.tobytes()


def test_other_seeds_give_other_scenes() -> None:
    images = {render_scene(seed, 48).image.tobytes() for seed in range(6)}
    assert len(images) == 6


@pytest.mark.parametrize(
    ("seed", "size", "named"),
    [(-1, 64, "seed"), (0, 31, "size")],
    ids=["negative seed", "one pixel under the smallest size"],
)
def test_out_of_range_argument_is_refused(seed: int, size: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        render_scene(seed, size)


@given(st.integers(0, 2**40))
@settings(max_examples=30)
def test_masks_are_numbered_without_gaps_and_nested(seed: int) -> None:
    size = 96
    maps = render_scene(seed, size).label_maps
    for label_map in maps:
        ids, areas = np.unique(label_map[label_map > 0], return_counts=True)
        assert ids.tolist() == list(range(1, len(ids) + 1))
        assert (areas >= 4).all()
    for part in range(1, maps[PARTS].max() + 1):
        owners = np.unique(maps[OBJECTS][maps[PARTS] == part])
        assert len(owners) == 1, "a part belongs to one object"
        if owners[0]:
            share = (maps[PARTS] == part).sum() / (maps[OBJECTS] == owners[0]).sum()
            assert share <= 0.92, "a part is not its whole object"


def test_background_regions_hold_no_object_and_groups_hold_several(scenes: list[Scene]) -> None:
    groups = 0
    for scene in scenes:
        for unit in range(1, scene.label_maps[UNITS].max() + 1):
            inside = scene.label_maps[UNITS] == unit
            objects = scene.label_maps[OBJECTS][inside]
            # Members of a group that are too hidden to be objects stay in the group.
            assert (objects == 0).all() or (objects > 0).mean() > 0.5
            if (objects > 0).any():
                assert len(np.unique(objects)) > 1, "a group is no copy of one object"
                groups += 1
    assert groups > 0


def test_every_level_has_masks_and_sizes_span_orders(scenes: list[Scene]) -> None:
    counts = np.array([scene.label_maps.max(axis=(1, 2)) for scene in scenes])
    assert (np.median(counts, axis=0) >= [5, 4, 2]).all()
    areas = np.concatenate(
        [np.bincount(scene.label_maps[OBJECTS].ravel())[1:] for scene in scenes]
    ) / (128 * 128)
    assert np.percentile(areas, 10) < 0.01
    assert np.percentile(areas, 97) > 0.1


def _step_across_edges(image: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Return the mean colour step between left and right of a map's vertical borders."""
    border = labels[:, 2:-1] != labels[:, 1:-2]
    step = np.abs(image[:, 3:] - image[:, :-3]).mean(axis=2)
    return float(step[border].mean())


def test_masks_lie_where_the_picture_changes(scenes: list[Scene]) -> None:
    # Moved by four pixels, the same borders must fit the picture much worse.
    fitting = shifted = 0.0
    for scene in scenes:
        image, labels = scene.image.astype(np.float32), scene.label_maps[OBJECTS]
        if labels.max() < 2:
            continue
        fitting += _step_across_edges(image, labels)
        shifted += _step_across_edges(image, np.roll(labels, 4, axis=1))
    assert fitting > 1.5 * shifted


def test_statistics_are_those_of_photographs(scenes: list[Scene]) -> None:
    # Ranges around the medians of freely licensed photographs of everyday and street scenes.
    pixels = np.stack([scene.image for scene in scenes]).astype(np.float32) / 255
    luma = pixels @ np.array([0.3, 0.59, 0.11], np.float32)
    chroma = pixels.max(axis=3) - pixels.min(axis=3)
    assert 0.35 < np.median(luma.mean(axis=(1, 2))) < 0.5
    assert 0.16 < np.median(luma.std(axis=(1, 2))) < 0.27
    assert 0.04 < np.median(chroma.mean(axis=(1, 2))) < 0.18
