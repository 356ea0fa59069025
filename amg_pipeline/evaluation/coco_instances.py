"""COCO's instance annotations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from amg_pipeline.amg.segmentations import draw_segmentation
from amg_pipeline.errors import ConfigError, ImageDecodeError, StorageError
from amg_pipeline.evaluation.annotated import AnnotatedImage, Annotation
from amg_pipeline.evaluation.photo_folder import PhotoFolder
from amg_pipeline.storage.object_store import read_uri
from amg_pipeline.storage.uris import absolute_uri, redact

#: A side longer than this is taken for a broken file.
_MAX_SIDE = 100_000


def read_coco_instances(photos: PhotoFolder, annotations: str) -> list[AnnotatedImage]:
    """List the images of an instances file that have segments.

    Crowds are left out, and annotations without a mask, as boxes alone have none.

    Args:
        photos: The images, which `file_name` names.
        annotations: The JSON file.

    Raises:
        ConfigError: If it is none, names a file outside the folder of images, has two images of
            one id or annotations of an image that it does not list.
    """
    document = _parse(annotations)
    masks: dict[Any, list[Any]] = defaultdict(list)
    try:
        _check_ids(document)
        for entry in document["annotations"]:
            if not entry.get("iscrowd") and entry.get("segmentation"):
                masks[entry["image_id"]].append(entry["segmentation"])
        return [
            photos.annotated(_name_of(image), partial(_read, masks[image["id"]], *_size_of(image)))
            for image in document["images"]
            if image["id"] in masks
        ]
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            "Annotations must be a COCO file: images with id, file_name, width and height, and "
            "annotations with image_id and segmentation. "
            f"Received: {redact(annotations)} ({type(error).__name__}: {error})"
        ) from error


def _parse(uri: str) -> Mapping[str, Any]:
    try:
        document = orjson.loads(read_uri(absolute_uri(uri)))
    except FileNotFoundError as error:
        raise ConfigError(
            f"Annotations must be a COCO file. Received: {redact(uri)}, where nothing is"
        ) from error
    except orjson.JSONDecodeError as error:
        raise ConfigError(
            f"Annotations must be a COCO file. Received: {redact(uri)}, no JSON: {error}"
        ) from error
    if not isinstance(document, dict) or not {"images", "annotations"} <= document.keys():
        raise ConfigError(
            "Annotations must be a COCO file with images and annotations. "
            f"Received: {redact(uri)} without them"
        )
    return document


def _check_ids(document: Mapping[str, Any]) -> None:
    listed = {image["id"] for image in document["images"]}
    if len(listed) != len(document["images"]):
        raise ValueError("two images of one id")
    for entry in document["annotations"]:
        if entry["image_id"] not in listed:
            raise ValueError(f"annotations of image {entry['image_id']}, which is not listed")


def _name_of(image: Mapping[str, Any]) -> str:
    name = str(image["file_name"])
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"file_name {name!r} leads out of the folder of images")
    return name


def _size_of(image: Mapping[str, Any]) -> tuple[int, int]:
    height, width = int(image["height"]), int(image["width"])
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise ValueError(f"size {width} x {height} of {image['file_name']!r}")
    return height, width


def _read(segmentations: Sequence[Any], height: int, width: int) -> tuple[Annotation, ...]:
    try:
        segments = [draw_segmentation(part, height=height, width=width) for part in segmentations]
    except (StorageError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise ImageDecodeError(
            f"A segmentation must be polygons or run lengths of the image's size. Received: {error}"
        ) from error
    return (Annotation(tuple(segment for segment in segments if segment.area)),)
