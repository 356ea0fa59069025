"""The place of a page, on a disk and on a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.report.page_folder import MARK, PageFolder
from amg_pipeline.storage.object_store import ObjectStore

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"


def write(uri: str, *keys: str, page: str = f"<head>{MARK}") -> None:
    folder = PageFolder(uri)
    with folder:
        folder.begin()
        for key in keys:
            folder.put({f"{key}-photo.jpg": b"jpeg", f"{key}-masks.js": b"()"})
        folder.finish(page)


def keys_of(uri: str) -> list[str]:
    return [info.key for info in ObjectStore.open(uri).list()]


@pytest.fixture(params=["disk", "store"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "disk":
        yield str(tmp_path / "page")
        return
    yield "memory://pages/page"
    fsspec.filesystem("memory").rm("/pages", recursive=True)


def test_page_and_pictures_are_there(uri: str) -> None:
    write(uri, KEY)

    assert keys_of(uri) == [
        f"images/{KEY}-masks.js",
        f"images/{KEY}-photo.jpg",
        "images/icon.svg",
        "index.html",
    ]


def test_page_again_removes_what_only_the_earlier_one_had(uri: str) -> None:
    write(uri, KEY, OTHER)
    store = ObjectStore.open(uri)
    store.put("images/holiday.jpg", b"mine")
    store.put("notes.txt", b"mine")

    write(uri, OTHER)

    found = keys_of(uri)
    assert not [key for key in found if KEY in key]
    assert [key for key in found if OTHER in key]
    assert {"images/holiday.jpg", "notes.txt"} <= set(found)


def test_earlier_page_stays_until_the_new_one_is_complete(uri: str) -> None:
    write(uri, KEY)
    with PageFolder(uri) as folder:
        folder.begin()
        folder.put({f"{OTHER}-photo.jpg": b"jpeg"})

    assert f"images/{KEY}-photo.jpg" in keys_of(uri)
    write(uri, KEY)
    assert not [key for key in keys_of(uri) if OTHER in key]


def test_writer_that_was_killed_before_its_page_is_followed(uri: str) -> None:
    ObjectStore.open(uri).put(f"images/{KEY}-thumb.jpg", b"jpeg")

    write(uri, OTHER)

    assert f"images/{KEY}-thumb.jpg" not in keys_of(uri)


@pytest.mark.parametrize(
    "key",
    ["index.html", "thesis.tex", "images/0123-photo.jpg", f"images/albums/{KEY}-photo.jpg"],
)
def test_folder_of_somebody_else_is_refused(uri: str, key: str) -> None:
    ObjectStore.open(uri).put(key, b"mine")

    with pytest.raises(ConfigError, match="Choose another place"):
        PageFolder(uri)

    assert keys_of(uri) == [key]


def test_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page").touch()

    with pytest.raises(ConfigError, match="must be a folder"):
        PageFolder(str(tmp_path / "page"))


def test_place_that_takes_nothing_is_found_out_at_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError), PageFolder(str(tmp_path / "file" / "page")) as folder:
        folder.begin()
