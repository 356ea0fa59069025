from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.errors import ConfigError
from amg_pipeline.training import photo_scenes
from amg_pipeline.training.photo_scenes import PhotoScenes, render_photo_scenes
from amg_pipeline.training.scenes import OBJECTS, PARTS, UNITS
from amg_pipeline.training.sources.coco import CocoImage

SIZE = 48


def photo(folder: Path, name: str = "a.png", masks: tuple[Any, ...] = ()) -> CocoImage:
    """A bright square on a dark ground, 64 x 64."""
    pixels = np.full((64, 64, 3), 30, np.uint8)
    pixels[16:48, 16:48] = 200
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return CocoImage(folder / name, 64, 64, masks, name, folder / "instances.json")


def rectangle(left: float, top: float, right: float, bottom: float) -> list[NDArray[np.float64]]:
    return [np.array([left, top, right, top, right, bottom, left, bottom], np.float64)]


def test_a_photo_without_masks_is_segmented_at_three_scales(tmp_path: Path) -> None:
    scenes = PhotoScenes((photo(tmp_path),), 0, SIZE)
    best = 0.0
    for index in range(4):
        scene = scenes(index)
        assert scene.image.shape == (SIZE, SIZE, 3)
        assert scene.label_maps.shape == (3, SIZE, SIZE)
        assert scene.label_maps.min() >= 1
        bright = scene.image[..., 0] > 115
        for label_map in scene.label_maps:
            for mask_id in np.unique(label_map):
                mask = label_map == mask_id
                best = max(best, (mask & bright).sum() / (mask | bright).sum())
    assert best > 0.75


def test_own_masks_are_parts_where_they_lie_in_others(tmp_path: Path) -> None:
    masks = (rectangle(20, 20, 26, 26), rectangle(8, 8, 60, 60), rectangle(30, 30, 36, 40))
    scenes = PhotoScenes((photo(tmp_path, masks=masks),), 0, SIZE)
    own = [
        scene.label_maps for scene in map(scenes, range(12)) if (scene.label_maps[PARTS] == 0).any()
    ]
    assert 0 < len(own) < 12
    for label_maps in own:
        assert set(np.unique(label_maps[OBJECTS])) <= {0, 1}
        assert set(np.unique(label_maps[PARTS])) <= {0, 1, 2}
        assert not ((label_maps[PARTS] > 0) & (label_maps[OBJECTS] == 0)).any()
        assert label_maps[UNITS].min() >= 1


def test_whole_photos_keep_their_shape_and_have_nothing_but_their_own_masks(tmp_path: Path) -> None:
    oblong = CocoImage(
        tmp_path / "a.png", 40, 80, (rectangle(8, 8, 60, 30),), "a", tmp_path / "instances.json"
    )
    Image.new("RGB", (80, 40), "teal").save(tmp_path / "a.png")
    cache = render_photo_scenes(
        tmp_path / "cache", [oblong], copies=6, size=SIZE, whole=True, processes=1
    )
    scenes = [cache.scene(index) for index in range(6)]
    assert {scene.image.shape for scene in scenes} == {(SIZE // 2, SIZE, 3)}
    assert {scene.label_maps.shape for scene in scenes} == {(3, SIZE // 2, SIZE)}
    own = [scene.label_maps for scene in scenes if not scene.label_maps[PARTS].any()]
    assert 0 < len(own) < 6
    for label_maps in own:
        assert set(np.unique(label_maps[OBJECTS])) == {0, 1}
        assert not label_maps[UNITS].any()
    assert not cache.images[:, SIZE // 2 :].any()
    with pytest.raises(ConfigError, match="whole"):
        render_photo_scenes(tmp_path / "cache", [oblong], copies=6, size=SIZE, processes=1)


def test_seed_and_index_decide_everything(tmp_path: Path) -> None:
    photos = (photo(tmp_path, "a.png"), photo(tmp_path, "b.png"))
    scenes, again = PhotoScenes(photos, 0, SIZE), PhotoScenes(photos, 0, SIZE)
    np.testing.assert_array_equal(scenes(3).label_maps, again(3).label_maps)
    np.testing.assert_array_equal(scenes(3).image, again(3).image)
    others = (scenes(1), PhotoScenes(photos, 1, SIZE)(3))
    assert all((other.image != scenes(3).image).any() for other in others)


def test_rendered_crops_are_kept_wherever_the_photos_lie(tmp_path: Path) -> None:
    here = render_photo_scenes(
        tmp_path / "cache", [photo(tmp_path / "one")], copies=3, size=SIZE, processes=1
    )
    assert here.images.shape == (3, SIZE, SIZE, 3)
    moved = photo(tmp_path / "two")
    (tmp_path / "one" / "a.png").unlink()
    again = render_photo_scenes(tmp_path / "cache", [moved], copies=3, size=SIZE, processes=1)
    assert again.meta == here.meta


def test_a_cache_of_other_photos_is_refused(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"copies": 1, "size": SIZE, "processes": 1}
    render_photo_scenes(tmp_path / "cache", [photo(tmp_path)], **arguments)
    other = photo(tmp_path, masks=(rectangle(1, 1, 9, 9),))
    with pytest.raises(ConfigError, match="source"):
        render_photo_scenes(tmp_path / "cache", [other], **arguments)


def test_no_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        render_photo_scenes(tmp_path, [], copies=1)


def test_missing_scikit_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skimage.segmentation", None)
    with pytest.raises(ConfigError, match=r"amg_pipeline\[train\]"):
        PhotoScenes((photo(tmp_path),), 0, SIZE)(0)


def test_no_more_regions_than_a_label_map_can_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pixels_alone(image: Any, **_: Any) -> Any:
        return np.arange(SIZE * SIZE).reshape(SIZE, SIZE)

    monkeypatch.setattr(photo_scenes, "_felzenszwalb", lambda: pixels_alone)
    label_map = PhotoScenes((photo(tmp_path),), 0, SIZE)(0).label_maps[0]
    assert len(np.unique(label_map)) == 256
    assert (label_map > 0).sum() == 255
