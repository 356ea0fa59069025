"""Images with a folder of masks each, a black and white picture for every mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.sources.folders import (
    IMAGE_ENDINGS,
    image_size,
    inside,
    list_files,
    read_labels,
    read_pixels,
    reading,
    require_folder,
)
from amg_pipeline.training.sources.labelled_image import Labelled, shrink

IMAGES_FOLDER = "images"
MASKS_FOLDER = "masks"
_MASK_ENDINGS = frozenset({".png", ".tif", ".tiff", ".bmp"})
_EXPECTED = f"{IMAGES_FOLDER}/ with one image and {MASKS_FOLDER}/ in each folder"


@dataclass(frozen=True, slots=True)
class MaskFolderImage:
    """An image and the folder of its masks.

    Attributes:
        path: The image file.
        masks: The folder; it may be missing where nothing is to be seen.
        name: Of the image, below the folder that was listed.
    """

    path: Path
    masks: Path
    name: str

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return image_size(self.path)[0]

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return image_size(self.path)[1]

    def read(self, longest_side: int) -> Labelled:
        """Decode it; see `LabelledImage.read`. What is not black is mask."""
        height, width = image_size(self.path)
        pixels = read_pixels(self.path, height=height, width=width, listed_in=self.masks)
        return shrink(pixels, self._masks((height, width)), longest_side)

    def _masks(self, size: tuple[int, int]) -> Iterator[NDArray[np.bool_]]:
        if not self.masks.is_dir():
            return
        for file in list_files(self.masks, _MASK_ENDINGS):
            mask = read_labels(file) > 0
            if mask.shape != size:
                raise ConfigError(
                    f"Expected {file} to be of {size[1]} x {size[0]} pixels, as its image is. "
                    f"Received: {mask.shape[1]} x {mask.shape[0]}. Correct either."
                )
            yield mask


def read_mask_folders(path: str | Path) -> list[MaskFolderImage]:
    """List the images of folders with a picture for every mask; no image is opened.

    Args:
        path: Either a folder with a folder for each image, of which `images/` holds the image and
            `masks/` the masks, as in the Data Science Bowl of 2018; or one with `images/NAME.png`
            and `masks/NAME/`.

    Returns:
        The images by name.

    Raises:
        ConfigError: If there are no such folders.
    """
    root = require_folder(path, _EXPECTED)
    if (root / IMAGES_FOLDER).is_dir():
        found = _side_by_side(root)
    else:
        found = [_only_image(root, folder) for folder in sorted(root.iterdir()) if folder.is_dir()]
    if not found:
        raise ConfigError(f"Expected {_EXPECTED} in {root}. Received: none. Name another folder.")
    return found


def _side_by_side(root: Path) -> list[MaskFolderImage]:
    found = []
    for path in list_files(root / IMAGES_FOLDER, IMAGE_ENDINGS):
        name = path.relative_to(root / IMAGES_FOLDER)
        with reading(root, _EXPECTED):
            masks = inside(root / MASKS_FOLDER, name.with_suffix("").as_posix())
        found.append(MaskFolderImage(path, masks, name.as_posix()))
    return found


def _only_image(root: Path, folder: Path) -> MaskFolderImage:
    images = list_files(folder / IMAGES_FOLDER, IMAGE_ENDINGS)
    if len(images) != 1:
        raise ConfigError(
            f"Expected one image in {folder / IMAGES_FOLDER}. Received: {len(images)}. Put each "
            f"image into a folder of its own, with {IMAGES_FOLDER}/ and {MASKS_FOLDER}/."
        )
    with reading(root, _EXPECTED):
        inside(root, images[0].relative_to(root).as_posix())
        masks = inside(root, (folder / MASKS_FOLDER).relative_to(root).as_posix())
    return MaskFolderImage(images[0], masks, folder.name)
