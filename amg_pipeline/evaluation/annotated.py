"""An image with the segments that people drew in it: what every data set is read as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amg_pipeline.amg.packed_masks import pack_mask
from amg_pipeline.amg.rle import encode_packed
from amg_pipeline.errors import (
    ImageDecodeError,
    ImageFetchError,
    ImageNotFoundError,
    StorageAccessError,
    StorageError,
    TransientStorageError,
)
from amg_pipeline.records import Rle
from amg_pipeline.storage.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one annotator drew.

    Attributes:
        segments: Masks in the image frame, none of them empty; they may overlap.
        boundaries: Pixels on borders of segments, bool `(height, width)`; None where a data set
            has none of its own.
    """

    segments: tuple[Rle, ...]
    boundaries: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and its annotations, read when they are needed.

    Attributes:
        image_id: Unique name within the data set.
        read_pixels: Gives uint8 `(height, width, 3)` RGB.
        read_annotations: Gives one annotation per annotator.
    """

    image_id: str
    read_pixels: Callable[[], NDArray[np.uint8]]
    read_annotations: Callable[[], tuple[Annotation, ...]]

    def read(self) -> tuple[NDArray[np.uint8], tuple[Annotation, ...]]:
        """Read pixels and annotations, and make sure that they are of one size.

        Raises:
            ImageError: If either cannot be read, or their sizes differ.
        """
        pixels, annotations = self.read_pixels(), self.read_annotations()
        height, width = pixels.shape[:2]
        for annotation in annotations:
            sizes = {(segment.height, segment.width) for segment in annotation.segments}
            if annotation.boundaries is not None:
                sizes.add(annotation.boundaries.shape)
            for other in sizes - {(height, width)}:
                raise ImageDecodeError(
                    f"Annotations must be of the image's size, {height} rows and {width} columns. "
                    f"Received: {other[0]} rows and {other[1]} columns; if the photo is turned by "
                    "its EXIF data, try the other value of dataset.exif_orientation"
                )
        return pixels, annotations


def read_annotation_file(store: ObjectStore, key: str) -> bytes:
    """Read the file of an image's annotations; one that cannot be read costs this image only.

    Raises:
        ImageFetchError: If it is not there or cannot be read.
        TransientStorageError: If the store kept failing in a way that may pass.
        StorageAccessError: If an object store refuses the caller, as it may for every other file.
    """
    try:
        return store.read(key)
    except FileNotFoundError as error:
        raise ImageNotFoundError(f"{key} must be there. Received: nothing") from error
    except (TransientStorageError, StorageAccessError):
        raise
    except StorageError as error:
        raise ImageFetchError(str(error)) from error


def label_map_to_segments(labels: NDArray[np.integer]) -> tuple[Rle, ...]:
    """Take a label map apart.

    Args:
        labels: `(height, width)`; 0 is no segment, each other value is one.

    Returns:
        Masks by ascending label.
    """
    height, width = labels.shape
    values, places = np.unique(labels, return_inverse=True)
    numbers = places.reshape(labels.shape) + 1
    windows = ndimage.find_objects(numbers)
    segments = []
    for number, (value, window) in enumerate(zip(values, windows, strict=True), start=1):
        if value == 0 or window is None:
            continue
        rows, columns = window
        part = pack_mask(numbers[window] == number, left=columns.start, top=rows.start)
        segments.append(encode_packed(part, height=height, width=width))
    return tuple(segments)


def choose_segments(
    annotations: tuple[Annotation, ...], *, annotator: str, min_area_fraction: float
) -> list[Rle]:
    """Choose what is measured of an image.

    Args:
        annotations: One per annotator.
        annotator: `"first"`, or `"all"` for the segments of each.
        min_area_fraction: Segments of a smaller share of the image are left out.
    """
    chosen = annotations[:1] if annotator == "first" else annotations
    return [
        segment
        for annotation in chosen
        for segment in annotation.segments
        if segment.area >= min_area_fraction * segment.height * segment.width
    ]


def from_label_maps(
    image_id: str, pixels: NDArray[np.uint8], label_maps: NDArray[np.integer]
) -> AnnotatedImage:
    """Make an annotated image of what is in memory, such as a synthetic scene.

    Args:
        image_id: Its name.
        pixels: Uint8 `(height, width, 3)` RGB.
        label_maps: `(levels, height, width)`; 0 is no segment. One annotator drew them all.
    """
    segments = tuple(segment for labels in label_maps for segment in label_map_to_segments(labels))
    return AnnotatedImage(image_id, lambda: pixels, lambda: (Annotation(segments),))
