from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.scenes import render_scene
from amg_pipeline.training.sources import SOURCES, LabelledImage, Shuffled, read_source


def test_scenes_are_painted_when_they_are_read() -> None:
    images = read_source("synthetic", 3, size=48, seed=5)
    assert [image.name for image in images] == ["scene-5", "scene-6", "scene-7"]
    pixels, masks = images[1].read(1000)
    scene = render_scene(6, 48)
    np.testing.assert_array_equal(pixels, scene.image)
    assert len(masks) == sum(len(np.unique(level[level > 0])) for level in scene.label_maps)
    assert masks.any(axis=(1, 2)).all()
    assert images[1].read(24)[1].shape == (len(masks), 24, 24)


@pytest.mark.parametrize("options", [{"size": 4}, {"seed": -1}])
def test_scenes_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="Scenes need"):
        read_source("synthetic", 3, **options)


def test_each_epoch_has_an_order_of_its_own_which_a_seed_repeats() -> None:
    images = read_source("synthetic", 40)

    def names(seed: int, epoch: int) -> list[str]:
        return [image.name for image in Shuffled(images, seed=seed, epoch=epoch)]

    assert sorted(names(0, 0)) == sorted(image.name for image in images)
    assert names(0, 1) == names(0, 1)
    assert len({tuple(names(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    shuffled = Shuffled(images, seed=0, epoch=1)
    assert [shuffled[i].name for i in range(len(shuffled))] == names(0, 1)
    assert shuffled[-1].name == names(0, 1)[-1]


def test_unknown_formats_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label-maps"):
        read_source("pascal", tmp_path)
    with pytest.raises(ConfigError, match="take path, images, crowd"):
        read_source("coco", tmp_path, folder="images")
    with pytest.raises(ConfigError, match="crowd"):
        read_source("coco", tmp_path, crowd="some")


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("synthetic", "run")])
def test_an_empty_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path.name)):
        read_source(name, tmp_path)


def first(images: list[LabelledImage]) -> LabelledImage:
    """Types: what readers give is what trainers take."""
    return images[0]
