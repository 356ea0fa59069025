"""Images in SA-1B's layout: a JSON file each, with the masks as run lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amg_pipeline.amg.rle import decode_mask
from amg_pipeline.amg.segmentations import draw_segmentation
from amg_pipeline.errors import ConfigError
from amg_pipeline.training.sources.folders import (
    checked_size,
    inside,
    list_files,
    read_json,
    read_pixels,
    reading,
    require_folder,
)
from amg_pipeline.training.sources.labelled_image import MAX_MASKS, Labelled, shrink
from amg_pipeline.training.sources.segmentations import check_segmentation

_EXPECTED = "an image and its annotations as SA-1B has them"


@dataclass(frozen=True, slots=True)
class Sa1bImage:
    """An image whose JSON file is opened when something of it is asked for.

    Attributes:
        document: The JSON file.
        images: Folder that the image's name is relative to.
        name: Of the JSON file, below the folder that was listed.
    """

    document: Path
    images: Path
    name: str

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self._head()[0]

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self._head()[1]

    def read(self, longest_side: int) -> Labelled:
        """Decode it; see `LabelledImage.read`."""
        content = read_json(self.document, _EXPECTED)
        height, width, path = self._parse(content)
        pixels = read_pixels(path, height=height, width=width, listed_in=self.document)
        size = {"height": height, "width": width}
        with reading(self.document, _EXPECTED):
            if len(content["annotations"]) > MAX_MASKS:
                raise ValueError(f"{len(content['annotations'])} masks")
            checked = (
                segmentation
                for annotation in content["annotations"]
                for segmentation in check_segmentation(annotation["segmentation"], **size)
            )
            masks = (
                decode_mask(draw_segmentation(segmentation, **size)) for segmentation in checked
            )
            return shrink(pixels, masks, longest_side)

    def _head(self) -> tuple[int, int, Path]:
        return self._parse(read_json(self.document, _EXPECTED))

    def _parse(self, content: Any) -> tuple[int, int, Path]:
        with reading(self.document, _EXPECTED):
            image = content["image"]
            name = str(image["file_name"])
            height, width = checked_size(name, image["height"], image["width"])
            return height, width, inside(self.images, name)


def read_sa1b(path: str | Path, images: str | Path | None = None) -> list[Sa1bImage]:
    """List the images of a folder in SA-1B's layout; no file is opened.

    Args:
        path: Folder with a JSON file an image, in it or in folders below it.
        images: Folder that the names of images are relative to; None for the folder of each JSON
            file, where SA-1B has them.

    Returns:
        The images, by the names of their JSON files.

    Raises:
        ConfigError: If there is no such folder, or no JSON file in it.
    """
    folder = require_folder(path, "SA-1B's JSON files")
    found = list(_documents(folder, None if images is None else Path(images)))
    if not found:
        raise ConfigError(f"Expected JSON files in {folder}. Received: none. Name another folder.")
    return found


def _documents(folder: Path, images: Path | None) -> Iterator[Sa1bImage]:
    for document in list_files(folder, frozenset({".json"})):
        name = document.relative_to(folder).as_posix()
        yield Sa1bImage(document, document.parent if images is None else images, name)
