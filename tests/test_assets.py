"""The sample photos: readable, varied, small, and each with its source and licence."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

PHOTOS = Path(str(resources.files("amg_pipeline") / "assets" / "photos"))
FILES = sorted(PHOTOS.glob("*.jpg"))


def test_photos_are_enough_and_small() -> None:
    assert len(FILES) >= 8
    assert sum(file.stat().st_size for file in FILES) < 1_200_000


def test_photos_vary_in_size_and_shape() -> None:
    sizes = set()
    for file in FILES:
        with Image.open(file) as photo:
            sizes.add(photo.size)

    assert len(sizes) >= 5
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)
    assert any(width == height for width, height in sizes)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_photo_decodes_and_carries_no_metadata(file: Path) -> None:
    with Image.open(file) as photo:
        photo.load()

        assert photo.format == "JPEG"
        assert max(photo.size) <= 640
        assert not photo.getexif()
        assert not {"icc_profile", "comment", "xmp"} & photo.info.keys()


def test_licences_list_each_photo_once_with_its_size() -> None:
    text = (PHOTOS / "LICENSES.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([^`]+)` \| (\d+) x (\d+) \|.*\| ([^|]+) \|$", text, flags=re.MULTILINE
    )

    assert [row[0] for row in rows] == [file.name for file in FILES]
    for name, width, height, licence in rows:
        assert re.search("CC0|CC BY|public domain|no known copyright restrictions", licence)
        with Image.open(PHOTOS / name) as photo:
            assert photo.size == (int(width), int(height))
