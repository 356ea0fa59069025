"""Images to compare on: the packaged photos, and crops and resizes of them in unusual shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.assets import PHOTOS_FOLDER


def load_photo(name: str, *, size_wh: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read a photo as uint8 `(height, width, 3)`, resized if a size is given.

    Args:
        name: Name of a packaged photo, or the path of another.
        size_wh: Size to bring it to.
    """
    path = Path(name)
    with Image.open(path if path.suffix else PHOTOS_FOLDER / f"{name}.jpg") as file:
        photo = file.convert("RGB")
    if size_wh is not None:
        photo = photo.resize(size_wh, Image.Resampling.BICUBIC)
    return np.asarray(photo)


def prompt_photos() -> dict[str, NDArray[np.uint8]]:
    """Give one photo smaller than the published model frame and wide, one larger and tall."""
    return {
        "cat": load_photo("cat"),
        "portrait, enlarged": load_photo("portrait", size_wh=(1101, 1290)),
    }


def amg_photos() -> dict[str, NDArray[np.uint8]]:
    """Give all photos as they are, and five shapes that are hard to get right."""
    photos = {path.stem: load_photo(path.stem) for path in sorted(PHOTOS_FOLDER.glob("*.jpg"))}
    return {
        **photos,
        "thumbnail": load_photo("coffee", size_wh=(64, 48)),
        "model frame": load_photo("astronaut", size_wh=(256, 256)),
        "panorama": np.ascontiguousarray(photos["palace"][150:290]),
        "column": np.ascontiguousarray(photos["rocket"][:, 260:391]),
        "large": load_photo("flower", size_wh=(1283, 857)),
    }


def golden_photos() -> dict[str, NDArray[np.uint8]]:
    """Give small images of many shapes, for results that are stored and compared in tests."""
    return {
        "square": load_photo("astronaut", size_wh=(192, 192)),
        "wide": load_photo("cat", size_wh=(225, 150)),
        "tall": load_photo("portrait", size_wh=(128, 161)),
        "thumbnail": load_photo("coffee", size_wh=(64, 48)),
        "model frame": load_photo("coins", size_wh=(256, 256)),
        "panorama": load_photo("palace", size_wh=(301, 73)),
        "column": load_photo("rocket", size_wh=(57, 243)),
        "larger than the model frame": load_photo("flower", size_wh=(330, 221)),
    }
