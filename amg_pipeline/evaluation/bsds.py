"""The Berkeley segmentation data set: photos, each segmented by several people.

A `.mat` file has `groundTruth`, a row of cells of one annotator each, with the label map
`Segmentation` and the thin `Boundaries`.
"""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from amg_pipeline.errors import ImageDecodeError
from amg_pipeline.evaluation.annotated import (
    AnnotatedImage,
    Annotation,
    label_map_to_segments,
    read_annotation_file,
)
from amg_pipeline.evaluation.photo_folder import PhotoFolder, stem_of
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.uris import absolute_uri

#: What scipy raises for files that are no `.mat`, or an odd one.
_FAULTS = (
    MatReadError,
    ValueError,
    TypeError,
    LookupError,
    NotImplementedError,
    OSError,
    EOFError,
    ArithmeticError,
    MemoryError,
)


def read_bsds(photos: PhotoFolder, annotations: str) -> list[AnnotatedImage]:
    """List the photos that have a `.mat` file.

    Args:
        photos: The photos.
        annotations: Folder or prefix of the `.mat` files.
    """
    store = ObjectStore.open(absolute_uri(annotations))
    by_stem = photos.by_stem()
    return [
        photos.annotated(by_stem[stem_of(info.key)], partial(_read, store, info.key))
        for info in store.list()
        if info.key.lower().endswith(".mat") and stem_of(info.key) in by_stem
    ]


def _read(store: ObjectStore, key: str) -> tuple[Annotation, ...]:
    return parse_ground_truth(read_annotation_file(store, key))


def parse_ground_truth(data: bytes) -> tuple[Annotation, ...]:
    """Read a `.mat` file of human segmentations.

    Raises:
        ImageDecodeError: If it is none.
    """
    try:
        cells = scipy.io.loadmat(io.BytesIO(data), variable_names=["groundTruth"])["groundTruth"]
        return tuple(_annotation(cell) for cell in cells.ravel())
    except _FAULTS as error:
        raise ImageDecodeError(
            "Annotations must be a .mat file with groundTruth{...}.Segmentation. "
            f"Received: one that ends in {type(error).__name__}: {error}"
        ) from error


def _annotation(cell: Any) -> Annotation:
    fields = cell.dtype.names or ()
    labels = np.asarray(cell["Segmentation"].ravel()[0])
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"Segmentation is {labels.dtype} of shape {labels.shape}")
    boundaries = None
    if "Boundaries" in fields:
        boundaries = np.asarray(cell["Boundaries"].ravel()[0]) > 0
    return Annotation(label_map_to_segments(labels), boundaries)
