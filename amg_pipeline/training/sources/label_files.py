"""Images with label maps: a picture each, whose pixels are numbers of masks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amg_pipeline.errors import ConfigError
from amg_pipeline.evaluation.label_pixels import MAX_COLOURS
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
from amg_pipeline.training.sources.labelled_image import Labelled, masks_of_labels, shrink

LABELS_FOLDER = "labels"
IMAGES_FOLDER = "images"
#: What `amg export png` writes beside the maps: which image each is of.
INDEX_FILE = "instances.jsonl"
_LABEL_ENDINGS = frozenset({".png", ".tif", ".tiff", ".bmp"})


@dataclass(frozen=True, slots=True)
class LabelFileImage:
    """An image and its label map.

    Attributes:
        path: The image file.
        labels: The label map's file.
        name: Of the label map, below the folder that was listed.
        void: Numbers that are no masks; 0 is none either.
    """

    path: Path
    labels: Path
    name: str
    void: tuple[int, ...] = ()

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return image_size(self.path)[0]

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return image_size(self.path)[1]

    def read(self, longest_side: int) -> Labelled:
        """Decode it; see `LabelledImage.read`."""
        labels = read_labels(self.labels, max_colours=MAX_COLOURS)
        height, width = labels.shape
        pixels = read_pixels(self.path, height=height, width=width, listed_in=self.labels)
        return shrink(pixels, masks_of_labels(labels, self.void), longest_side)


def read_label_files(
    path: str | Path, images: str | Path | None = None, *, void: tuple[int, ...] = ()
) -> list[LabelFileImage]:
    """List the images of a folder that have a label map; no image is opened.

    Args:
        path: Folder with `labels/`: PNG, TIFF or BMP files of 8, 16 or 32 bits, or of colours, each
            of which is a mask and black none. Each is of the image of the same name, whatever the
            ending, or of the one that `instances.jsonl` says, which `amg export png` writes.
        images: Where the images are; None for `path`'s `images/`.
        void: Numbers of pixels that are no masks, as 255 in PASCAL VOC; of a colour it is
            0xRRGGBB.

    Returns:
        The images, by the names of their label maps.

    Raises:
        ConfigError: If a folder or an image is missing, or two images have one name.
    """
    root = require_folder(path, f"{LABELS_FOLDER}/ and {IMAGES_FOLDER}/")
    labels = require_folder(root / LABELS_FOLDER, "label maps")
    folder = require_folder(root / IMAGES_FOLDER if images is None else images, "images")
    find = _Finder(folder, dict(_index(root / INDEX_FILE)))
    found = []
    for file in list_files(labels, _LABEL_ENDINGS):
        name = file.relative_to(labels).as_posix()
        found.append(LabelFileImage(find(file, name), file, name, void))
    if not found:
        raise ConfigError(f"Expected label maps in {labels}. Received: none. Name another folder.")
    return found


class _Finder:
    """Finds the image of a label map."""

    def __init__(self, folder: Path, image_ids: dict[str, str]) -> None:
        self._folder = folder
        self._image_ids = image_ids
        self._by_name: dict[str, list[Path]] = {}
        if not image_ids:
            for path in list_files(folder, IMAGE_ENDINGS):
                name = path.relative_to(folder).with_suffix("").as_posix()
                self._by_name.setdefault(name, []).append(path)

    def __call__(self, labels: Path, name: str) -> Path:
        image_id = self._image_ids.get(f"{LABELS_FOLDER}/{name}")
        if image_id is not None:
            with reading(labels.parent, "label maps of images"):
                return inside(self._folder, image_id)
        paths = self._by_name.get(name.rpartition(".")[0], [])
        if len(paths) != 1:
            received = ", ".join(path.name for path in paths) or "none"
            raise ConfigError(
                f"Expected one image for {labels} in {self._folder}. Received: {received}. Give "
                "both the same name, apart from the ending."
            )
        return paths[0]


def _index(file: Path) -> Iterator[tuple[str, str]]:
    """Read which image a label map is of, if there is a file that says so."""
    if not file.is_file():
        return
    with reading(file, "lines with image_id and labels"), file.open(encoding="utf-8") as lines:
        for line in lines:
            content = json.loads(line)
            yield str(content["labels"]), str(content["image_id"])
