"""COCO's instance annotations."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson

from amg_pipeline.amg.segmentations import draw_segmentation
from amg_pipeline.errors import ConfigError, ImageDecodeError, StorageError
from amg_pipeline.evaluation.annotated import AnnotatedImage, Annotation
from amg_pipeline.evaluation.coco_document import CocoEntry, parse_coco
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
    place = redact(annotations)
    entries = parse_coco(_read_document(annotations), place=place, max_side=_MAX_SIDE)
    return [
        photos.annotated(_key_of(entry, place), partial(_read, entry))
        for entry in entries
        if entry.segmentations
    ]


def _read_document(uri: str) -> Any:
    try:
        return orjson.loads(read_uri(absolute_uri(uri)))
    except FileNotFoundError as error:
        raise ConfigError(
            f"Annotations must be a COCO file. Received: {redact(uri)}, where nothing is"
        ) from error
    except orjson.JSONDecodeError as error:
        raise ConfigError(
            f"Annotations must be a COCO file. Received: {redact(uri)}, no JSON: {error}"
        ) from error


def _key_of(entry: CocoEntry, place: str) -> str:
    if not entry.name or entry.name.startswith("/") or ".." in entry.name.split("/"):
        raise ConfigError(
            "Images of a COCO file must lie in the folder of images. "
            f"Received: {place} with the file_name {entry.name!r}, which leads out of it"
        )
    return entry.name


def _read(entry: CocoEntry) -> tuple[Annotation, ...]:
    try:
        segments = [
            draw_segmentation(part, height=entry.height, width=entry.width)
            for part in entry.segmentations
        ]
    except (StorageError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise ImageDecodeError(
            f"A segmentation must be polygons or run lengths of the image's size. Received: {error}"
        ) from error
    return (Annotation(tuple(segment for segment in segments if segment.area)),)
