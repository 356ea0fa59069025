from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amg_pipeline.errors import ConfigError
from amg_pipeline.training import cutouts
from amg_pipeline.training.cutouts import Cutout, read_cutout
from tests.training.cutout_files import LEFT, RIGHT, write_disc


def disc(folder: Path) -> Cutout:
    found = read_cutout(write_disc(folder / "disc.png"))
    assert found is not None
    return found


def test_a_picture_is_cut_to_what_is_opaque(tmp_path: Path) -> None:
    pixels = disc(tmp_path).pixels
    assert pixels.shape == (48, 48, 4)
    assert pixels[24, 4].tolist() == [*LEFT, 255]
    assert pixels[24, 44].tolist() == [*RIGHT, 255]
    assert pixels[0, 0, 3] == 0


def test_large_pictures_are_kept_smaller(tmp_path: Path) -> None:
    found = read_cutout(write_disc(tmp_path / "disc.png", side=1024, margin=0))
    assert found is not None
    assert found.pixels.shape == (512, 512, 4)


def test_turned_it_keeps_its_area_and_colours(tmp_path: Path) -> None:
    alpha, colours = disc(tmp_path).turned(side=40, aspect=1.0, angle=90, mirrored=False)
    assert colours.shape == (3, *alpha.shape)
    assert alpha.sum() == pytest.approx(np.pi * 20**2, rel=0.03)
    inside = alpha > 0.2
    # Nothing of the clear black bleeds into the rim, nor beyond what the two colours mix to.
    low, high = (np.array(f(LEFT, RIGHT)) / 255 for f in (np.minimum, np.maximum))
    assert (colours[:, inside] >= low[:, None] - 0.03).all()
    assert (colours[:, inside] <= high[:, None] + 0.03).all()
    # Against the clock, what was on the left comes to lie below.
    middle = alpha.shape[1] // 2
    assert colours[0, -8, middle] > 0.7
    assert colours[2, 8, middle] > 0.7


def test_mirrored_it_shows_its_other_side_first(tmp_path: Path) -> None:
    _, colours = disc(tmp_path).turned(side=40, aspect=1.0, angle=0, mirrored=True)
    assert colours[2, 20, 5] > 0.7
    assert colours[0, 20, 35] > 0.7


def test_the_aspect_widens_it_and_keeps_the_area(tmp_path: Path) -> None:
    alpha, _ = disc(tmp_path).turned(side=40, aspect=1.5, angle=0, mirrored=False)
    assert alpha.shape == (33, 49)


@pytest.mark.parametrize("kind", ["clear", "full", "line", "no alpha"])
def test_what_cuts_nothing_out_is_passed_over(tmp_path: Path, kind: str) -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    if kind == "full":
        pixels[8:56, 8:56] = 255
    elif kind == "line":
        np.fill_diagonal(pixels[..., 3], 255)
    image = Image.fromarray(pixels)
    (image.convert("RGB") if kind == "no alpha" else image).save(tmp_path / "a.png")
    assert read_cutout(tmp_path / "a.png") is None


@pytest.mark.parametrize("name", ["_MOST_PIXELS", "MAX_IMAGE_PIXELS"])
def test_huge_pictures_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_disc(tmp_path / "disc.png")
    # Pillow refuses what has more than twice its own limit.
    monkeypatch.setattr(cutouts if name == "_MOST_PIXELS" else Image, name, 64 * 64 // 2 - 1)
    assert read_cutout(path) is None


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"alpha channel in .*broken\.png"):
        read_cutout(path)
