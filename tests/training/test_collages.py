from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amg_pipeline.errors import ConfigError
from amg_pipeline.training import collages as module
from amg_pipeline.training.clip_art import ClipArt
from amg_pipeline.training.collages import Collages, render_collages
from amg_pipeline.training.painter import ScenePainter
from amg_pipeline.training.photo_scenes import PhotoScenes
from amg_pipeline.training.scenes import PARTS, UNITS
from amg_pipeline.training.sources.coco import CocoImage
from tests.training.clip_art_files import write_disc

SIZE = 64


def gray_photo(folder: Path, masks: tuple[object, ...] = ()) -> CocoImage:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), (128, 128, 128)).save(folder / "a.png")
    return CocoImage(folder / "a.png", 64, 64, masks, "a.png", folder / "instances.json")


def square(low: float, high: float) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    return [np.array([low, low, high, low, high, high, low, high])]


def collages(folder: Path, *, photo: CocoImage | None = None, seed: int = 0) -> Collages:
    disc = write_disc(folder / "clip_art" / "disc.png")
    return Collages((photo or gray_photo(folder),), (disc,), seed, SIZE)


def test_a_drawing_is_one_object_of_two_parts(tmp_path: Path) -> None:
    render = collages(tmp_path)
    found = 0
    for index in range(12):
        scene = render(index)
        assert scene.image.shape == (SIZE, SIZE, 3)
        parts, objects, units = scene.label_maps
        wide = scene.image.astype(np.int16)
        redness = wide[..., 0] - wide[..., 2]
        for number in range(1, int(objects.max()) + 1):
            mask = objects == number
            # Red and blue, which no segmentation by colour would join; the photograph is gray.
            if min((redness[mask] > 40).mean(), (redness[mask] < -40).mean()) < 0.25:
                continue
            found += 1
            # But for where they meet, the halves are the parts.
            assert (np.sort(np.bincount(parts[mask]))[-2:] > 0.2 * mask.sum()).all()
            assert not units[mask].any()
    assert found >= 5


def test_of_the_photo_what_is_seen_keeps_its_masks(tmp_path: Path) -> None:
    photo = gray_photo(tmp_path / "masked", (square(0, 64), square(20, 44)))
    marked = 0
    for index in range(8):
        # The background is drawn first, so it is the crop that this index gives without drawings.
        ground = PhotoScenes((photo,), 0, SIZE)(index).label_maps
        found = collages(tmp_path, photo=photo)(index).label_maps
        seen = found[UNITS] > 0  # all but the drawings
        assert seen.mean() > 0.1
        for before, after in zip(ground, found, strict=True):
            for number in set(before[seen]) - {0}:
                ids = set(after[seen & (before == number)])
                assert len(ids) == 1
                assert ids == {0} or not (seen & (after == ids.pop()) & (before != number)).any()
        marked += bool((ground[PARTS] == 0).any())
    assert marked >= 3


def test_small_drawings_are_laid_on_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid: list[float] = []
    lay = module._lay

    def record(painter: ScenePainter, drawing: ClipArt, side: float) -> None:
        laid.append(side)
        lay(painter, drawing, side)

    monkeypatch.setattr(module, "_lay", record)
    counts = set()
    for index in range(12):
        laid.clear()
        collages(tmp_path)(index)
        assert laid == sorted(laid, reverse=True)
        counts.add(len(laid))
    assert min(counts) >= 1
    assert 2 < max(counts) <= 7


def test_seed_and_index_decide_everything(tmp_path: Path) -> None:
    first, again = collages(tmp_path)(3), collages(tmp_path)(3)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label_maps, again.label_maps)
    for other in (collages(tmp_path)(4), collages(tmp_path, seed=1)(3)):
        assert (other.image != first.image).any()


def test_pictures_that_cut_nothing_out_are_passed_over(tmp_path: Path) -> None:
    photo, disc = gray_photo(tmp_path), write_disc(tmp_path / "disc.png")
    full = tmp_path / "full.png"
    Image.new("RGBA", (96, 96), "red").save(full)
    image = Collages((photo,), (full, disc, full), 0, SIZE)(0).image.astype(np.int16)
    # All drawings are discs, which are as blue as they are red.
    blue, red = (image[..., 2] - image[..., 0] > 40), (image[..., 0] - image[..., 2] > 40)
    assert blue.mean() > 0.02
    assert blue.sum() > 0.3 * red.sum()
    with pytest.raises(ConfigError, match="none in 200 draws of 1"):
        Collages((photo,), (full,), 0, SIZE)(0)


def test_rendered_collages_are_kept_wherever_the_files_lie(tmp_path: Path) -> None:
    def render(folder: Path) -> object:
        write_disc(folder / "clip_art" / "below" / "disc.png")
        return render_collages(
            tmp_path / "cache",
            [gray_photo(folder)],
            folder / "clip_art",
            count=3,
            size=SIZE,
            processes=1,
        ).meta

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert render(tmp_path / "one") == render(tmp_path / "two")
    write_disc(tmp_path / "two" / "clip_art" / "other.png")
    with pytest.raises(ConfigError, match="other settings"):
        render(tmp_path / "two")


def test_photos_and_pictures_are_needed(tmp_path: Path) -> None:
    photo = gray_photo(tmp_path)
    for photos, folder in (([photo], tmp_path / "none"), ([], tmp_path)):
        with pytest.raises(ConfigError, match="Expected photographs, and PNG files"):
            render_collages(tmp_path / "cache", photos, folder, count=1)
