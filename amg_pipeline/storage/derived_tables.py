"""Stored masks as other tables in Parquet: a row a mask, or a row an image with plain lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from amg_pipeline.storage.image_masks import ImageMasks, MaskReview

_COMPRESSION_LEVEL = 3
#: Texts that hardly repeat: a dictionary would only cost memory.
_WITHOUT_DICTIONARY = ("counts", "image")

_SCORES = [("predicted_iou", pa.float32()), ("stability_score", pa.float32())]

#: One row a mask, all columns plain, so that any SQL reads them.
FLAT_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mask_index", pa.int32()),
        ("counts", pa.string()),
        ("area", pa.int64()),
        *_SCORES,
        *[(f"bbox_{side}", pa.float32()) for side in "xywh"],
        *[(f"point_{axis}", pa.float64()) for axis in "xy"],
        *[(f"crop_{side}", pa.int32()) for side in "xywh"],
    ]
)

#: The same with what people decided.
REVIEWED_SCHEMA = pa.schema(
    [
        *FLAT_SCHEMA,
        ("decision", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("merged_from", pa.list_(pa.int32())),
    ]
)

_OBJECT_FIELDS = [
    ("id", pa.list_(pa.int64())),
    ("counts", pa.list_(pa.string())),
    ("bbox", pa.list_(pa.list_(pa.float32()))),
    ("area", pa.list_(pa.int64())),
    *[(name, pa.list_(kind)) for name, kind in _SCORES],
    ("category", pa.list_(pa.string())),
]

#: One row an image, in the form that Hugging Face's data sets of objects have.
OBJECTS_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("objects", pa.struct(_OBJECT_FIELDS)),
    ]
)


class TableWriter:
    """Writes a Parquet file one row group after another; a context manager.

    Args:
        file: Where to; it stays open.
        schema: One of this module's.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        leaves = [name for name in schema.names if name not in _WITHOUT_DICTIONARY]
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            compression_level=_COMPRESSION_LEVEL,
            use_dictionary=leaves,
        )

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Write rows as a row group of their own."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))


def flat_table(images: Sequence[ImageMasks], *, has_reviews: bool = False) -> pa.Table:
    """Make a table of `FLAT_SCHEMA`, or `REVIEWED_SCHEMA`, of the masks of some images."""
    counts = [len(image) for image in images]
    of_image = np.repeat(np.arange(len(images)), counts)
    columns: dict[str, Any] = {
        name: pa.array([getattr(image, name) for image in images]).take(pa.array(of_image))
        for name in ("image_id", "uri", "width", "height")
    }
    columns["mask_index"] = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])
    columns["counts"] = [text for image in images for text in image.counts]
    for name in ("area", "predicted_iou", "stability_score"):
        columns[name] = np.concatenate([getattr(image, name) for image in images])
    groups = (("bbox", "bbox_xywh"), ("point", "point_coords"), ("crop", "crop_box_xywh"))
    for prefix, name in groups:
        values: NDArray[Any] = np.concatenate([getattr(image, name) for image in images])
        for axis, column in zip("xywh", np.ascontiguousarray(values.T), strict=False):
            columns[f"{prefix}_{axis}"] = column
    arrays = [pa.array(columns[part.name]).cast(part.type) for part in FLAT_SCHEMA]
    if not has_reviews:
        return pa.Table.from_arrays(arrays, schema=FLAT_SCHEMA)
    blank = MaskReview()
    reviews = [review for image in images for review in image.reviews or [blank] * len(image)]
    arrays += [
        pa.array([review.verdict for review in reviews], pa.string()),
        pa.array([review.tags for review in reviews], REVIEWED_SCHEMA.field("tags").type),
        pa.array([review.merged_from for review in reviews], pa.list_(pa.int32())),
    ]
    return pa.Table.from_arrays(arrays, schema=REVIEWED_SCHEMA)


def objects_table(
    images: Sequence[ImageMasks],
    *,
    first_id: int,
    label: str,
    places: Iterable[tuple[bytes | None, str]],
) -> pa.Table:
    """Make a table of `OBJECTS_SCHEMA`.

    Args:
        images: One a row.
        first_id: Number of the first mask.
        label: The category of all.
        places: The bytes of each image, if they go along, and its path.
    """
    rows = []
    for image, (data, path) in zip(images, places, strict=True):
        objects = {
            "id": range(first_id, first_id + len(image)),
            "counts": image.counts,
            "bbox": image.bbox_xywh.tolist(),
            "area": image.area.tolist(),
            "predicted_iou": image.predicted_iou.tolist(),
            "stability_score": image.stability_score.tolist(),
            "category": [label] * len(image),
        }
        first_id += len(image)
        rows.append(
            {
                "image": {"bytes": data, "path": path},
                "image_id": image.image_id,
                "width": image.width,
                "height": image.height,
                "objects": objects,
            }
        )
    return pa.Table.from_pylist(rows, schema=OBJECTS_SCHEMA)
