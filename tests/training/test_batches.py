from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from amg_pipeline.training.batches import SceneBatches, Source, ViewSettings
from amg_pipeline.training.label_maps import OBJECTS
from amg_pipeline.training.pasting import Cutout
from amg_pipeline.training.scene_cache import SceneCache, SceneCacheMeta, render_scenes
from amg_pipeline.training.views import Augmentation, whole_view

SIZE, LABEL_SIZE, LEVELS = 64, 32, 3
VIEWS = ViewSettings(
    size=SIZE, label_size=LABEL_SIZE, batch_size=2, prompts=3, cells=5, clicks=6, pixels=40
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> SceneCache:
    return render_scenes(tmp_path_factory.mktemp("scenes"), count=4, size=128, processes=1)


def batches_of(cache: SceneCache, *, seed: int = 0, **changes: Any) -> SceneBatches:
    return SceneBatches([Source(cache)], replace(VIEWS, **changes), steps=2, seed=seed)


def plain_cache(value: int) -> SceneCache:
    """Scenes of one colour, in which everything is one mask of each level."""
    return SceneCache(
        SceneCacheMeta(count=2, size=128, seed=0),
        np.full((2, 128, 128, 3), value, np.uint8),
        np.ones((2, LEVELS, 128, 128), np.uint8),
        np.full((2, 2), 128, np.int32),
    )


def test_shapes_and_ranges(cache: SceneCache) -> None:
    inputs, targets = batches_of(cache)[0]
    assert {name: array.shape for name, array in {**inputs, **targets}.items()} == {
        "image": (2, SIZE, SIZE, 3),
        "coords": (2, 3, 2, 2),
        "labels": (2, 3, 2),
        "cells": (2, 5),
        "clicks": (2, 6),
        "pixels": (2, 40),
        "label_maps": (2, LEVELS, LABEL_SIZE, LABEL_SIZE),
        "target_ids": (2, 3, LEVELS),
        "meant_levels": (2, 3),
        "click_ids": (2, 6, LEVELS),
        "pixel_ids": (2, LEVELS, 40),
    }
    assert inputs["image"].dtype == np.float32
    assert inputs["image"].min() >= 0
    assert inputs["image"].max() <= 255
    assert inputs["cells"].max() < (LABEL_SIZE // 4) ** 2


@pytest.mark.parametrize(
    ("changes", "left_out"),
    [
        ({"prompts": 0}, {"coords", "labels", "cells", "label_maps", "target_ids", "meant_levels"}),
        ({"cells": 0}, {"cells"}),
        ({"clicks": 0}, {"clicks", "pixels", "click_ids", "pixel_ids"}),
    ],
)
def test_only_what_is_asked_is_drawn(
    cache: SceneCache, changes: dict[str, int], left_out: set[str]
) -> None:
    def names(batches: SceneBatches) -> set[str]:
        inputs, targets = batches[0]
        return set(inputs) | set(targets)

    assert names(batches_of(cache)) - names(batches_of(cache, **changes)) == left_out


def test_clicks_and_prompts_have_the_ids_under_them(cache: SceneCache) -> None:
    inputs, targets = batches_of(cache, prompts=40)[0]
    for i, label_maps in enumerate(targets["label_maps"]):
        flat = label_maps.reshape(LEVELS, -1)
        np.testing.assert_array_equal(targets["click_ids"][i], flat[:, inputs["clicks"][i]].T)
        np.testing.assert_array_equal(targets["pixel_ids"][i], flat[:, inputs["pixels"][i]])
        is_click = inputs["labels"][i, :, 0] == 1
        assert is_click.any()
        columns, rows = np.floor((inputs["coords"][i, is_click, 0].T + 0.5) / 2).astype(int)
        np.testing.assert_array_equal(
            targets["target_ids"][i][is_click], label_maps[:, rows, columns].T
        )


def test_seed_epoch_and_index_decide_everything(cache: SceneCache) -> None:
    first, again, other_epoch = batches_of(cache), batches_of(cache), batches_of(cache)
    other_epoch.epoch = 1
    flat = keras.tree.flatten
    for one, same in zip(flat(first[1]), flat(again[1]), strict=True):
        np.testing.assert_array_equal(one, same)
    images = [
        batches[index][0]["image"]
        for batches, index in [
            (first, 0),
            (first, 1),
            (other_epoch, 0),
            (batches_of(cache, seed=1), 0),
        ]
    ]
    for i in range(4):
        for j in range(i):
            assert (images[i] != images[j]).any()


def test_sources_are_drawn_by_their_shares() -> None:
    sources = [Source(plain_cache(10), 3.0), Source(plain_cache(200), 1.0)]
    batches = SceneBatches(sources, replace(VIEWS, batch_size=40, augment=False), steps=1, seed=0)
    first = batches[0][0]["image"][:, 0, 0, 0]
    assert set(first) == {10.0, 200.0}
    assert 0.55 < (first == 10.0).mean() < 0.95


def test_a_source_has_its_own_augmentation(cache: SceneCache) -> None:
    still = Augmentation(mirrored=0.0, turned=0.0, cropped=0.0, oblong=0.0, recoloured=0.0)
    batches = SceneBatches([Source(cache, 1.0, still)], VIEWS, steps=1, seed=0)
    wholes = [
        whole_view(cache.images[i], cache.label_maps[i], size=SIZE, label_size=LABEL_SIZE)[0]
        for i in range(cache.meta.count)
    ]
    for view in batches[0][0]["image"]:
        assert any((view == whole).all() for whole in wholes)
    assert not any((batches_of(cache)[0][0]["image"][0] == whole).all() for whole in wholes)


def test_small_masks_can_be_left_out(cache: SceneCache) -> None:
    _, targets = batches_of(cache, augment=False, min_area=0.2)[0]
    label_maps = targets["label_maps"]
    assert (label_maps != batches_of(cache, augment=False)[0][1]["label_maps"]).any()
    for label_map in label_maps.reshape(-1, LABEL_SIZE**2):
        areas = np.bincount(label_map)[1:]
        assert (areas[areas > 0] >= 0.2 * LABEL_SIZE**2).all()


@pytest.mark.parametrize(("pasted", "reds"), [(0.0, 0), (1.0, 8)])
def test_things_are_pasted_into_a_share_of_the_scenes(pasted: float, reds: int) -> None:
    thing = Cutout(np.full((30, 30, 4), (255, 0, 0, 255), np.uint8))
    whole = Augmentation(cropped=0.0, oblong=0.0, recoloured=0.0)
    source = Source(plain_cache(40), augmentation=whole, cutouts=[thing], pasted=pasted)
    batches = SceneBatches([source], replace(VIEWS, batch_size=8), steps=1, seed=0)
    inputs, targets = batches[0]
    is_red = inputs["image"][..., 0] > inputs["image"][..., 1] + 60
    assert is_red.any(axis=(1, 2)).sum() == reds
    assert (targets["label_maps"][:, OBJECTS] > 1).any(axis=(1, 2)).sum() == reds


def test_a_cut_off_epoch_goes_on_with_the_batch_that_comes_next(cache: SceneCache) -> None:
    whole, rest = batches_of(cache), batches_of(cache)
    rest.skipped = 1
    assert (len(whole), len(rest)) == (2, 1)
    np.testing.assert_array_equal(rest[0][0]["image"], whole[1][0]["image"])
