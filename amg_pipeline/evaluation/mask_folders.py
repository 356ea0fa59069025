"""Segments as PNG files: one label map an image, or a folder of masks for each."""

from __future__ import annotations

import io
from collections import defaultdict
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.amg.rle import encode_mask
from amg_pipeline.errors import ImageDecodeError
from amg_pipeline.evaluation.annotated import (
    AnnotatedImage,
    Annotation,
    label_map_to_segments,
    read_annotation_file,
)
from amg_pipeline.evaluation.label_pixels import MAX_COLOURS, labels_of_picture
from amg_pipeline.evaluation.photo_folder import PhotoFolder, stem_of
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.uris import absolute_uri

#: More pixels are no annotation, but an attack.
_MAX_PIXELS = 200_000_000
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_mask_folder(photos: PhotoFolder, annotations: str) -> list[AnnotatedImage]:
    """List the images that have a PNG of labels, or a folder of PNGs.

    Args:
        photos: The images.
        annotations: Folder or prefix of the PNGs. For `a/b.jpg`, `a/b.png` holds labels: 0 is no
            segment, each other value, or colour other than black, is one. Without it, each PNG in
            `a/b/` is a mask of what is not 0.
    """
    store = ObjectStore.open(absolute_uri(annotations))
    by_stem = photos.by_stem()
    maps: dict[str, str] = {}
    masks: dict[str, list[str]] = defaultdict(list)
    for info in store.list():
        if not info.key.lower().endswith(".png"):
            continue
        stem = stem_of(info.key)
        if stem in by_stem:
            maps[stem] = info.key
        else:
            masks[stem.rpartition("/")[0]].append(info.key)
    found = []
    for stem, key in by_stem.items():
        if stem in maps:
            found.append(photos.annotated(key, partial(_read_labels, store, maps[stem])))
        elif stem in masks:
            found.append(photos.annotated(key, partial(_read_masks, store, sorted(masks[stem]))))
    return found


def decode_labels(data: bytes, *, max_colours: int | None = None) -> NDArray[np.integer]:
    """Read a PNG as labels.

    Args:
        data: The file; grey of up to 16 bits, indices of a palette, or colours.
        max_colours: See `labels_of_picture`.

    Returns:
        `(height, width)`; see `labels_of_picture`.

    Raises:
        ImageDecodeError: If it is no PNG, or of too many colours.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ImageDecodeError(
                    f"Labels must have at most {_MAX_PIXELS} pixels. Received: {image.size}"
                )
            return labels_of_picture(image, max_colours=max_colours)
    except _FAULTS as error:
        raise ImageDecodeError(f"Labels must be a PNG file. Received: {error}") from error


def _read_labels(store: ObjectStore, key: str) -> tuple[Annotation, ...]:
    labels = decode_labels(read_annotation_file(store, key), max_colours=MAX_COLOURS)
    return (Annotation(label_map_to_segments(labels)),)


def _read_masks(store: ObjectStore, keys: list[str]) -> tuple[Annotation, ...]:
    files = (read_annotation_file(store, key) for key in keys)
    masks = (encode_mask(decode_labels(data) != 0) for data in files)
    return (Annotation(tuple(mask for mask in masks if mask.area)),)
