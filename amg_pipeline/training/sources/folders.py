"""Opens the files of data to train on, none outside the folders that were named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.errors import ConfigError, ImageError, StorageError
from amg_pipeline.evaluation.label_pixels import labels_of_picture
from amg_pipeline.storage.images import decode_image
from amg_pipeline.training.sources.labelled_image import MAX_SIDE

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
_LABEL_FORMATS = ("PNG", "TIFF", "BMP")


@contextmanager
def reading(file: Path, expected: str) -> Iterator[None]:
    """Turn whatever a broken file makes happen into an error that names it.

    Raises:
        ConfigError: If anything inside fails on what the file holds.
    """
    try:
        yield
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
        StorageError,
    ) as error:
        raise ConfigError(
            f"Expected {expected} in {file}. Received: {type(error).__name__}: {error}. Repair or "
            "remove the entry."
        ) from error


def read_json(file: Path, expected: str) -> Any:
    """Read a JSON file.

    Args:
        file: The file.
        expected: What should be in it, for the message.

    Raises:
        ConfigError: If it cannot be read, or is no JSON.
    """
    try:
        with reading(file, expected):
            return json.loads(_regular(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(file, error, expected) from error


def require_folder(folder: str | Path, expected: str) -> Path:
    """Give a folder's path.

    Raises:
        ConfigError: If it is none.
    """
    path = Path(folder)
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing there"
        raise ConfigError(f"Expected a folder with {expected} at {path}. Received: {found}.")
    return path


def list_files(folder: Path, endings: frozenset[str]) -> list[Path]:
    """List the files of a folder and those below it that have one of the endings, by name.

    Raises:
        ConfigError: If one is a link to somewhere else.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in endings and not path.name.startswith(".")
    )
    for path in found:
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"Expected files that lie in {folder}. Received: {path}, a link out of it. Name "
                "the folder that the file lies in, or copy it."
            )
    return found


def inside(folder: Path, name: str) -> Path:
    """Join a name that a file gives to a folder, of which it must not lead out.

    Raises:
        ValueError: If it does.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r}, which is outside {folder.name}/")
    return path


def checked_size(name: str, height: Any, width: Any) -> tuple[int, int]:
    """Check the size that a file gives for an image.

    Raises:
        ValueError: If no image to train on has it.
    """
    rows, columns = int(height), int(width)
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise ValueError(f"{name!r} of {columns} x {rows} pixels")
    return rows, columns


def read_pixels(path: Path, *, height: int, width: int, listed_in: Path) -> NDArray[np.uint8]:
    """Decode a photograph of a known size.

    It is turned upright as its EXIF data say, unless only the pixels as stored have that size.

    Returns:
        RGB uint8 `(height, width, 3)`.

    Raises:
        ConfigError: If the file is no image, or of another size.
    """
    try:
        data = _regular(path).read_bytes()
        return decode_to_size(data, height=height, width=width, name=path.name, listed_in=listed_in)
    except (OSError, ImageError) as error:
        raise ConfigError(
            f"Expected an image. Received: {path}: {error}. Remove it from {listed_in.name}, or "
            "replace the file."
        ) from error


def decode_to_size(
    data: bytes, *, height: int, width: int, name: str, listed_in: Path
) -> NDArray[np.uint8]:
    """Decode the bytes of an image of a known size; see `read_pixels`.

    Raises:
        ConfigError: If it has another size.
        ImageError: If it is none.
    """
    pixels = decode_image(data)
    if pixels.shape[:2] != (height, width):
        as_stored = decode_image(data, exif_orientation=False)
        if as_stored.shape[:2] != (height, width):
            raise ConfigError(
                f"Expected {name} to be of {width} x {height} pixels, as {listed_in.name} says. "
                f"Received: {pixels.shape[1]} x {pixels.shape[0]}. Correct either."
            )
        return as_stored
    return pixels


def image_size(path: Path) -> tuple[int, int]:
    """Read the height and width of an image, upright, from its header.

    Raises:
        ConfigError: If the file is no image.
    """
    with _opened(path) as image:
        width, height = image.size
        # 5 to 8 lie on their side; Pillow has turned TIFF files already.
        is_lying = image.format != "TIFF" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (width, height) if is_lying else (height, width)


def read_labels(path: Path, *, max_colours: int | None = None) -> NDArray[np.integer]:
    """Read a label map of 1, 8, 16 or 32 bits, of palette colours, or of colours.

    Args:
        path: The file.
        max_colours: See `labels_of_picture`.

    Returns:
        The numbers of its pixels, `(height, width)`; see `labels_of_picture`.

    Raises:
        ConfigError: If the file is no image, or one of too many colours.
    """
    with _opened(path, _LABEL_FORMATS) as image:
        return labels_of_picture(image, max_colours=max_colours)


@contextmanager
def _opened(path: Path, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    try:
        with Image.open(_regular(path), formats=formats) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(
            f"Expected an image. Received: {path}: {error}. Remove or replace the file."
        ) from error


def _regular(path: Path) -> Path:
    """Refuse pipes and devices, on which reading might wait for ever."""
    if path.exists() and not path.is_file():
        raise OSError("no regular file")
    return path


def _unreadable(file: Path, error: OSError, expected: str) -> ConfigError:
    return ConfigError(f"Expected {expected} in {file}. Received: {error}. Name another file.")
