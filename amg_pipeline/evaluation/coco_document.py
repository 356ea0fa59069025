"""What a COCO instances file says: one set of rules, to measure and to train by.

- Annotations without a segmentation, as those of boxes alone have none, are left out, and a warning
  counts them. So are crowds, unless they are asked for.
- Two images of one id, and annotations of an image that is not listed, are refused: which masks are
  whose would be a guess.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amg_pipeline.errors import ConfigError
from amg_pipeline.telemetry import log_event

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CocoEntry:
    """An image that the file lists.

    Attributes:
        name: Its `file_name`, not checked.
        height: Rows of pixels.
        width: Columns.
        segmentations: Of its annotations, as the file has them; not checked.
    """

    name: str
    height: int
    width: int
    segmentations: tuple[Any, ...]


def parse_coco(
    document: Any, *, place: str, max_side: int, takes_crowds: bool = False
) -> list[CocoEntry]:
    """Read which segmentations are of which image.

    Args:
        document: What the JSON file holds.
        place: Where it lies, for messages; without credentials.
        max_side: A longer side is taken for a broken file.
        takes_crowds: Whether annotations with `iscrowd`, which outline many things at once, count.

    Returns:
        All images in the file's order, also those without segmentations.

    Raises:
        ConfigError: If it is no such document, or its ids are not clear.
    """
    try:
        return _entries(document, place=place, max_side=max_side, takes_crowds=takes_crowds)
    except KeyError as error:
        fault = f"an entry without {error}"
        cause: Exception = error
    except (TypeError, AttributeError, ValueError, OverflowError) as error:
        fault, cause = str(error), error
    raise ConfigError(
        "Annotations must be a COCO file: images with id, file_name, width and height, and "
        f"annotations with image_id and segmentation. Received: {place} with {fault}. Repair or "
        "remove the entry"
    ) from cause


def _entries(document: Any, *, place: str, max_side: int, takes_crowds: bool) -> list[CocoEntry]:
    images: dict[str, Mapping[str, Any]] = {}
    for image in document["images"]:
        number = _id_of(image["id"])
        if number in images:
            raise ValueError(f"two images of one id, {number}")
        images[number] = image
    segmentations: dict[str, list[Any]] = {number: [] for number in images}
    without = 0
    for annotation in document["annotations"]:
        number = _id_of(annotation["image_id"])
        if number not in segmentations:
            raise ValueError(f"annotations of image {number}, which is not listed")
        if annotation.get("iscrowd") and not takes_crowds:
            continue
        segmentation = annotation.get("segmentation")
        if segmentation:
            segmentations[number].append(segmentation)
        else:
            without += 1
    if without:
        log_event(
            _LOGGER,
            logging.WARNING,
            "annotations without a segmentation are left out",
            annotations=without,
            file=place,
        )
    return [
        CocoEntry(str(image["file_name"]), *_size_of(image, max_side), tuple(segmentations[number]))
        for number, image in images.items()
    ]


def _id_of(value: Any) -> str:
    """Write an id in one way: programs mix 7, 7.0 and "7"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str):
        raise TypeError(f"the id {value!r}, which is neither a whole number nor text")
    return str(value)


def _size_of(image: Mapping[str, Any], max_side: int) -> tuple[int, int]:
    height, width = int(image["height"]), int(image["width"])
    if not (0 < height <= max_side and 0 < width <= max_side):
        raise ValueError(f"the size {width} x {height} of {image['file_name']!r}")
    return height, width
