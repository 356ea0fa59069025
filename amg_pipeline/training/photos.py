"""Reads photographs with masks, for training beside the synthetic scenes.

The one format is COCO's: a folder with `instances.json` and `images/`. What a file says is checked
before it is used; nothing outside `images/` is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from amg_pipeline.amg.rle import decode_mask, rle_from_coco
from amg_pipeline.errors import ConfigError, StorageError

ANNOTATIONS_FILE = "instances.json"
IMAGES_FOLDER = "images"
#: A side longer than this is no photograph to train on.
MAX_SIDE = 20_000
#: A polygon with more points, or an image with more masks, is taken for a broken file.
_MAX_MASKS = 20_000


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph on disk and its masks.

    Attributes:
        path: The image file.
        height: Rows that the masks are given for.
        width: Columns.
        masks: COCO segmentations: lists of polygons, or run-length encodings.
    """

    path: Path
    height: int
    width: int
    masks: tuple[Any, ...]

    def read(self, longest_side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Decode the image and its masks at a smaller size.

        Args:
            longest_side: Upper limit of the result's longer side, in pixels.

        Returns:
            RGB uint8 `(height, width, 3)` and bool `(masks, height, width)`.

        Raises:
            ConfigError: If the file is no image, or its size is not the annotations'.
        """
        scale = min(1.0, longest_side / max(self.height, self.width))
        size = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        try:
            with Image.open(self.path) as opened:
                if opened.size != (self.width, self.height):
                    raise ConfigError(
                        f"Expected {self.path.name} to be of {self.width} x {self.height} pixels, "
                        f"as {ANNOTATIONS_FILE} says. Received: {opened.size}. Correct either."
                    )
                pixels = np.asarray(opened.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        except (OSError, Image.DecompressionBombError) as error:
            raise ConfigError(
                f"Expected an image. Received: {self.path}: {error}. Remove it from "
                f"{ANNOTATIONS_FILE}, or replace the file."
            ) from error
        try:
            decoded = [self._decode(segmentation) for segmentation in self.masks]
        except (StorageError, ValueError, TypeError, OverflowError) as error:
            raise ConfigError(
                f"Expected masks of {self.path.name} in {ANNOTATIONS_FILE}. Received: {error}. "
                "Repair or remove the entry."
            ) from error
        masks = [
            np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
            for mask in decoded
        ]
        return pixels, np.stack(masks) if masks else np.zeros((0, size[1], size[0]), bool)

    def _decode(self, segmentation: Any) -> NDArray[np.bool_]:
        if isinstance(segmentation, Mapping):
            mask = rle_from_coco(segmentation)
            return decode_mask(mask)
        # A corner far outside would cost memory by its distance.
        limit = (self.width, self.height)
        clipped = [
            np.clip(np.reshape(polygon, (-1, 2)), 0, limit).ravel().tolist()
            for polygon in segmentation
        ]
        drawn = coco_mask.merge(coco_mask.frPyObjects(clipped, self.height, self.width))
        return decode_mask(rle_from_coco(drawn))


def read_coco(folder: str | Path) -> list[Photo]:
    """List the photographs of a folder with COCO instance annotations.

    Crowd regions are left out, and so are masks without an area.

    Args:
        folder: Holds `instances.json` and `images/`.

    Returns:
        The photographs in the file's order.

    Raises:
        ConfigError: If the file is missing, is no such JSON, or names a file outside `images/`.
    """
    root = Path(folder)
    annotations = root / ANNOTATIONS_FILE
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        images = {int(image["id"]): image for image in content["images"]}
        masks: dict[int, list[Any]] = {number: [] for number in images}
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd", 0):
                image_id = int(annotation["image_id"])
                masks[image_id].extend(_segmentations(annotation, images[image_id]))
        return [
            _photo(root / IMAGES_FOLDER, image, masks[number]) for number, image in images.items()
        ]
    except OSError as error:
        raise ConfigError(
            f"Expected {ANNOTATIONS_FILE} and {IMAGES_FOLDER}/ in {root}. Received: {error}. "
            "Name a folder in COCO's format."
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"Expected COCO instance annotations in {annotations}. Received: "
            f"{type(error).__name__}: {error}. Repair or remove the entry."
        ) from error


def _photo(images: Path, image: Mapping[str, Any], masks: list[Any]) -> Photo:
    name, height, width = str(image["file_name"]), int(image["height"]), int(image["width"])
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ValueError(f"{name!r} of {width} x {height} pixels")
    if len(masks) > _MAX_MASKS:
        raise ValueError(f"{name!r} with {len(masks)} masks")
    path = images / name
    if not path.resolve().is_relative_to(images.resolve()):
        raise ValueError(f"{name!r}, which is outside {IMAGES_FOLDER}/")
    return Photo(path, height, width, tuple(masks))


def _segmentations(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> Iterator[Any]:
    """Give the annotation's segmentation if it is one that can be drawn."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, Mapping):
        if list(segmentation["size"]) != [image["height"], image["width"]]:
            raise ValueError(f"a mask of {segmentation['size']} that its image has not")
        if not isinstance(segmentation["counts"], str | list):
            raise TypeError("counts that are neither text nor numbers")
        yield dict(segmentation)
        return
    polygons = [[float(value) for value in polygon] for polygon in segmentation]
    if not all(np.isfinite(polygon).all() for polygon in polygons):
        raise ValueError("a polygon with a coordinate that is no number")
    polygons = [p for p in polygons if len(p) >= 6 and len(p) % 2 == 0]
    if polygons:
        yield polygons
