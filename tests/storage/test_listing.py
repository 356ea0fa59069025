from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError, ImageFetchError, StorageError
from amg_pipeline.records import ImageRef
from amg_pipeline.storage import listing
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.manifest import count_bytes, list_images
from tests.storage.inputs import fill, ids
from tests.storage.pictures import encode, photo
from tests.storage.test_object_store import HOSTILE_NAMES


def test_folder_is_recursive_and_sorted_by_bytes(tmp_path: Path) -> None:
    fill(tmp_path, "b.JPG", "a/z.png", "a.jpeg", "Z.webp", "é.bmp", "notes.txt", "a/x.jpg.bak")
    table = list_images(ImageSettings(input=str(tmp_path)))
    assert table["image_id"].to_pylist() == ["Z.webp", "a.jpeg", "a/z.png", "b.JPG", "é.bmp"]
    assert table["uri"].to_pylist()[2] == f"{tmp_path}/a/z.png"
    assert table["size_bytes"].to_pylist() == [6, 6, 7, 5, 6]
    assert table["etag"].null_count == 5
    assert table.schema.equals(listing.IMAGES_SCHEMA)


def test_relative_folder_gives_absolute_uris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "in/a.jpg")
    monkeypatch.chdir(tmp_path)
    for spelling in ("in", "in/", "./in/../in"):
        table = list_images(ImageSettings(input=spelling))
        assert table["uri"].to_pylist() == [f"{tmp_path}/in/a.jpg"]
        assert table["image_id"].to_pylist() == ["a.jpg"]


@pytest.mark.parametrize("scheme", ["path", "file"])
def test_hostile_names_are_listed_and_loaded(tmp_path: Path, scheme: str) -> None:
    for name in HOSTILE_NAMES:
        (tmp_path / name).write_bytes(encode(photo(), "PNG"))
    source = f"file://{tmp_path}" if scheme == "file" else str(tmp_path)
    table = list_images(ImageSettings(input=source))
    assert table["image_id"].to_pylist() == sorted(HOSTILE_NAMES, key=str.encode)
    for row in table.to_pylist():
        assert load_image(ImageRef(row["image_id"], row["uri"])).pixels.shape == (16, 24, 3)


def test_names_that_are_no_text_are_listed_and_loaded(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9 %41.png"
    Path(os.fsdecode(path)).write_bytes(encode(photo(), "PNG"))
    (row,) = list_images(ImageSettings(input=str(tmp_path))).to_pylist()
    assert row["image_id"] == "caf\\xe9 %41.png"
    assert load_image(ImageRef(row["image_id"], row["uri"])).pixels.shape == (16, 24, 3)


def test_link_to_itself_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    table = list_images(ImageSettings(input=str(tmp_path)))
    assert table["image_id"].to_pylist() == ["a.jpg", "loop.jpg"]
    with pytest.raises(ImageFetchError):
        load_image(ImageRef("loop.jpg", table["uri"][1].as_py()))


def test_dangling_links_are_images_that_will_be_missing(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    table = list_images(ImageSettings(input=str(tmp_path)))
    assert table["size_bytes"].to_pylist() == [None]
    assert count_bytes(table) == (0, 1)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("*", ["a.jpg", "b.png"]),
        ("x/*", ["c.jpg"]),
        ("*/*.jpg", ["x/c.jpg", "y/d.jpg"]),
        ("[xy]/?.jpg", ["x/c.jpg", "y/d.jpg"]),
        ("**/*.jpg", ["a.jpg", "x/c.jpg", "x/deep/e.jpg", "y/d.jpg"]),
        ("x/**", ["c.jpg", "deep/e.jpg"]),
    ],
)
@pytest.mark.parametrize("place", ["local", "memory"])
def test_glob_ids_are_relative_to_its_fixed_part(
    tmp_path: Path, pattern: str, expected: list[str], place: str
) -> None:
    names = ("a.jpg", "b.png", "x/c.jpg", "x/deep/e.jpg", "x/notes.txt", "y/d.jpg")
    root = str(fill(tmp_path, *names))
    if place == "memory":
        root = f"memory://{uuid4().hex}"
        for name in names:
            fsspec.filesystem("memory").pipe_file(f"{root}/{name}", b"1")
    assert ids(f"{root}/{pattern}") == expected


def test_folder_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    fill(tmp_path, "photos [2024]/a.jpg", "photos 2/b.jpg")
    assert ids(tmp_path / "photos [2024]") == ["a.jpg"]


def test_glob_that_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whole component"):
        ids(fill(tmp_path, "a.jpg") / "a**/*.jpg")


def test_prefix_of_any_filesystem() -> None:
    root = f"memory://{uuid4().hex}"
    for name in ("a b#1.jpg", "x/c.jpg", "readme.md"):
        fsspec.filesystem("memory").pipe_file(f"{root}/{name}", b"123")
    table = list_images(ImageSettings(input=root))
    assert table["image_id"].to_pylist() == ["a b#1.jpg", "x/c.jpg"]
    assert table["uri"].to_pylist() == [f"{root}/a b#1.jpg", f"{root}/x/c.jpg"]
    assert count_bytes(table) == (6, 0)


def test_single_image(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b.jpg")
    assert ids(tmp_path / "a.jpg") == ["a.jpg"]


def test_chunks_of_a_long_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_BATCH_ROWS", 2)
    assert len(ids(fill(tmp_path, *(f"{number}.jpg" for number in range(5))))) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: path / "absent", "exists", id="missing"),
        pytest.param(lambda path: path, "none in", id="empty folder"),
        pytest.param(lambda path: path / "*.jpg", "none in", id="glob without match"),
        pytest.param(lambda path: fill(path, "a.txt") / "a.txt", "manifest", id="other file"),
        pytest.param(lambda path: "", "nothing", id="no input"),
        pytest.param(lambda path: "nosuch://x/y", "scheme", id="unknown scheme"),
    ],
)
def test_unusable_inputs(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ids(make(tmp_path))


def test_unreadable_folder_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jpg", "locked/b.jpg")
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="locked"):
        ids(tmp_path)
