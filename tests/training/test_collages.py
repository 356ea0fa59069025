from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.collages import Collages, render_collages
from amg_pipeline.training.scenes import OBJECTS, PARTS, UNITS, Scene
from amg_pipeline.training.sources.coco import CocoImage
from tests.training.cutout_files import write_disc

SIZE = 64


def gray_photo(folder: Path, masks: tuple[object, ...] = ()) -> CocoImage:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), (128, 128, 128)).save(folder / "a.png")
    return CocoImage(folder / "a.png", 64, 64, masks, "a.png", folder / "instances.json")


def scenes(folder: Path, *, photo: CocoImage | None = None, seed: int = 0) -> Collages:
    disc = write_disc(folder / "cutouts" / "disc.png")
    return Collages((photo or gray_photo(folder),), (disc,), seed, SIZE)


def redness(scene: Scene) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    wide = scene.image.astype(np.int16)
    difference: np.ndarray[tuple[int, int], np.dtype[np.int16]] = wide[..., 0] - wide[..., 2]
    return difference


def test_a_cutout_is_one_object_of_several_parts(tmp_path: Path) -> None:
    render = scenes(tmp_path)
    coloured = 0
    for index in range(8):
        scene = render(index)
        assert scene.image.shape == (SIZE, SIZE, 3)
        parts, objects, units = scene.label_maps
        # A thing is no part of what lies behind it, and has parts only inside.
        assert not ((units > 0) & (objects > 0)).any()
        assert not ((parts > 0) & (objects == 0)).any()
        for number in range(1, int(objects.max()) + 1):
            mask = objects == number
            # Red and blue, which no segmentation by colour would join.
            sides = redness(scene)[mask]
            if mask.sum() > 100 and sides.max() > 40 and sides.min() < -40:
                coloured += 1
                assert len(set(parts[mask]) - {0}) >= 2
    assert coloured >= 5


def test_the_ground_is_a_unit_and_the_photos_masks_are_objects(tmp_path: Path) -> None:
    whole = np.array([0.0, 0, 64, 0, 64, 64, 0, 64])
    without = scenes(tmp_path)(1)
    assert (without.label_maps[UNITS] > 0).mean() > 0.2
    photo = gray_photo(tmp_path / "masked", ([whole],))
    with_mask = scenes(tmp_path, photo=photo)(1)
    assert (with_mask.label_maps[OBJECTS] > 0).all()
    assert not (with_mask.label_maps[UNITS] > 0).any()
    assert (with_mask.label_maps[PARTS] > 0).mean() < 0.8


def test_seed_and_index_decide_everything(tmp_path: Path) -> None:
    first, again = scenes(tmp_path)(3), scenes(tmp_path)(3)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label_maps, again.label_maps)
    for other in (scenes(tmp_path)(4), scenes(tmp_path, seed=1)(3)):
        assert (other.image != first.image).any()


def test_pictures_that_cut_nothing_out_are_passed_over(tmp_path: Path) -> None:
    photo, disc = gray_photo(tmp_path), write_disc(tmp_path / "disc.png")
    full = tmp_path / "full.png"
    Image.new("RGBA", (32, 32), "red").save(full)
    with_both = [Collages((photo,), (full, disc, full), 0, SIZE)(index) for index in range(6)]
    with_disc = [Collages((photo,), (disc, disc, disc), 0, SIZE)(index) for index in range(6)]
    for one, other in zip(with_both, with_disc, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    with pytest.raises(ConfigError, match="1 pictures that fill their frames"):
        Collages((photo,), (full,), 0, SIZE)(0)


def test_rendered_collages_are_kept_wherever_the_files_lie(tmp_path: Path) -> None:
    def render(folder: Path) -> object:
        write_disc(folder / "cutouts" / "below" / "disc.png")
        return render_collages(
            tmp_path / "cache",
            [gray_photo(folder)],
            folder / "cutouts",
            count=3,
            size=SIZE,
            processes=1,
        ).meta

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert render(tmp_path / "one") == render(tmp_path / "two")
    write_disc(tmp_path / "two" / "cutouts" / "other.png")
    with pytest.raises(ConfigError, match="other settings"):
        render(tmp_path / "two")


def test_photos_and_pictures_are_needed(tmp_path: Path) -> None:
    photo = gray_photo(tmp_path)
    for photos, folder in (([photo], tmp_path / "none"), ([], tmp_path)):
        with pytest.raises(ConfigError, match="Expected photographs, and PNG files"):
            render_collages(tmp_path / "cache", photos, folder, count=1)
