"""Photos that are read again for a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import (
    ConfigError,
    ImageDecodeError,
    ImageFetchError,
    ImageNotFoundError,
    ImageTooLargeError,
    StorageAccessError,
    TransientStorageError,
)
from amg_pipeline.report import photos
from amg_pipeline.report.photos import PhotoReader
from amg_pipeline.storage.image_masks import ImageMasks
from tests.photo_runs import write_photo
from tests.report.images import make_image


def image_at(uri: str, *, height: int = 30, width: int = 40) -> ImageMasks:
    return replace(make_image([], size=(height, width)), uri=uri)


def test_photo_is_read_as_the_run_did(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", height=30, width=40)
    image = image_at(str(tmp_path / "a.png"))

    assert PhotoReader(ImageSettings()).read(image).shape == (30, 40, 3)
    with pytest.raises(ImageTooLargeError):
        PhotoReader(ImageSettings(max_pixels=100)).read(image)


def test_photo_that_was_replaced_is_not_shown(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", height=30, width=40)

    with pytest.raises(ImageDecodeError, match="must be 41 x 30 pixels"):
        PhotoReader(ImageSettings()).read(image_at(str(tmp_path / "a.png"), width=41))


def test_photo_that_is_gone_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError):
        PhotoReader(ImageSettings()).read(image_at(str(tmp_path / "a.png")))


@pytest.mark.parametrize("error", [TransientStorageError, StorageAccessError, ConfigError])
def test_store_that_gives_nothing_is_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    asked = []

    def fail(ref: object, **_: object) -> None:
        asked.append(ref)
        raise error("no answer")

    monkeypatch.setattr(photos, "load_image", fail)
    reader = PhotoReader(ImageSettings())
    for number in range(6):
        with pytest.raises(ImageFetchError, match=r"no answer|s3://bucket could not be read"):
            reader.read(image_at(f"s3://bucket/{number}.jpg"))
    with pytest.raises(ImageFetchError, match="no answer"):
        reader.read(image_at("s3://other/0.jpg"))

    assert len(asked) == photos._PATIENCE + 1


def test_store_that_gives_something_in_between_is_asked_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Loaded:
        pixels = np.zeros((30, 40, 3), np.uint8)

    answers = [TransientStorageError("x"), TransientStorageError("x"), None] * 3

    def load(ref: object, **_: object) -> Loaded:
        if (error := answers.pop()) is not None:
            raise error
        return Loaded()

    monkeypatch.setattr(photos, "load_image", load)
    reader = PhotoReader(ImageSettings())
    shown = 0
    for number in range(9):
        try:
            reader.read(image_at(f"s3://bucket/{number}.jpg"))
            shown += 1
        except ImageFetchError:
            pass

    assert (shown, answers) == (3, [])
