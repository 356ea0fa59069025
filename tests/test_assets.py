"""What ships: sample photos, readable and varied, and where they and the weights are from."""

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


def test_training_photographs_are_listed_once_with_a_free_licence() -> None:
    text = (PHOTOS.parent / "TRAINING_DATA.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| (http\S+) \|$", text, flags=re.MULTILINE)

    assert len({name for name, _, _ in rows}) == len(rows)
    assert f"{len(rows)} photographs" in text
    licences = {licence for _, licence, _ in rows}
    assert licences == {"CC BY 2.0", "no known copyright restrictions"}
