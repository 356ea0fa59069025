"""Results as Parquet: the row schema, version 1, and both ways across it.

The bytes of a table depend on its rows, its metadata and pyarrow's version, and on nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from amg_pipeline.config import SCHEMA_VERSION
from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.records import CropBox, ImageRef, ImageResult, MaskRecord
from amg_pipeline.storage.coco_rle import compress_rle, parse_rle, tight_boxes_xywh
from amg_pipeline.storage.layout import (
    MASKS_FOLDER,
    PLAN_KEY,
    fingerprint_prefix,
    parse_shard_key,
)
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.row_counts import FOOTER_KEY, count_table
from amg_pipeline.storage.uris import redact

_MASK_FIELDS = [
    pa.field("counts", pa.string(), nullable=False),
    pa.field("bbox", pa.list_(pa.field("element", pa.float32(), nullable=False), 4), False),
    pa.field("area", pa.int64(), nullable=False),
    pa.field("predicted_iou", pa.float32(), nullable=False),
    pa.field("stability_score", pa.float32(), nullable=False),
    pa.field("point_coords", pa.list_(pa.field("element", pa.float64(), nullable=False), 2), False),
    pa.field("crop_box", pa.list_(pa.field("element", pa.int32(), nullable=False), 4), False),
]
_MASKS_TYPE = pa.list_(pa.field("element", pa.struct(_MASK_FIELDS), nullable=False))

#: One row per image (design: output directory).
MASK_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("num_masks", pa.int32(), nullable=False),
        pa.field("masks", _MASKS_TYPE, nullable=False),
    ]
)

_METADATA_PREFIX = b"amg_pipeline."
_MAX_MESSAGE = 500
#: Small, so that a reader of one image does not decompress a whole shard.
_ROW_GROUP_ROWS = 16
_COMPRESSION_LEVEL = 3
_SHORT_COLUMNS = ["status", "error_type"]
_PLAIN_COLUMNS = [
    "image_id",
    "uri",
    "status",
    "error_type",
    "width",
    "height",
    "num_masks",
]


@dataclass(frozen=True, slots=True)
class TableMetadata:
    """What a table's footer says about the run that made it.

    Attributes:
        fingerprint: 64 hex digits of the run's settings.
        package_version: Version of this package.
        model: Variant, digest of the weights, precision, backend.
        amg: The resolved AMG settings.
        schema_version: Version of the rows.
    """

    fingerprint: str
    package_version: str
    model: Mapping[str, Any] = field(default_factory=dict)
    amg: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def encode_table(results: Sequence[ImageResult], metadata: TableMetadata) -> bytes:
    """Write the rows of a shard as one Parquet file in memory.

    Args:
        results: One per image, in row order.
        metadata: Becomes the footer's key-value metadata, together with counts of the rows.

    Returns:
        The file's bytes; the same for the same arguments and pyarrow version.
    """
    return encode_rows(results_to_table(results), metadata)


def encode_rows(table: pa.Table, metadata: TableMetadata) -> bytes:
    """Write a table of `MASK_SCHEMA`, as `encode_table` does."""
    counts = {FOOTER_KEY: count_table(table).to_json()}
    table = table.replace_schema_metadata({**_encode_metadata(metadata), **counts})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=_ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=_COMPRESSION_LEVEL,
        use_dictionary=_SHORT_COLUMNS,
        write_statistics=_PLAIN_COLUMNS,
        version="2.6",
        data_page_version="1.0",
        store_schema=True,
    )
    return bytes(sink.getvalue())


def decode_table(data: bytes) -> tuple[ImageResult, ...]:
    """Read the rows of a shard back.

    What the file does not hold comes back empty: a ref's size and etag, and the layer of crops.

    Raises:
        StorageError: If the bytes are no mask table of this version.
    """
    table = read_table(data)
    try:
        return tuple(_row_to_result(row) for row in table.to_pylist())
    except (ValueError, TypeError) as error:
        raise StorageError(f"A mask table must hold valid masks. Received: {error}") from error


def read_table(data: bytes) -> pa.Table:
    """Open the bytes of a shard as an Arrow table with `MASK_SCHEMA`.

    Raises:
        StorageError: If the bytes are no Parquet file or have another schema.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise StorageError(
            f"A mask table must be a complete Parquet file. Received: {reason}"
        ) from error
    if not table.schema.equals(MASK_SCHEMA):
        raise StorageError(
            f"A mask table must have the columns of schema version {SCHEMA_VERSION}. "
            f"Received: {', '.join(f'{part.name} {part.type}' for part in table.schema)}"
        )
    return table


def read_metadata(table: pa.Table) -> TableMetadata:
    """Read what a table's footer says.

    Raises:
        StorageError: If it is not that of a mask table.
    """
    stored = table.schema.metadata or {}
    try:
        return TableMetadata(
            fingerprint=stored[_METADATA_PREFIX + b"fingerprint"].decode(),
            package_version=stored[_METADATA_PREFIX + b"package_version"].decode(),
            model=json.loads(stored[_METADATA_PREFIX + b"model"]),
            amg=json.loads(stored[_METADATA_PREFIX + b"amg"]),
            schema_version=int(stored[_METADATA_PREFIX + b"schema_version"]),
        )
    except (KeyError, ValueError) as error:
        raise StorageError(
            f"A mask table's footer must have the keys amg_pipeline.*. Received: no valid {error}"
        ) from error


def load_masks(uri: str) -> pyarrow.dataset.Dataset:
    """Open the finished shards of a run.

    Args:
        uri: The run's output: a path, or any URI that fsspec knows.

    Returns:
        A `pyarrow.dataset.Dataset` with one row per image; `.to_table()` reads it, and DuckDB and
        polars query it without reading all of it.

    Raises:
        ConfigError: If `uri` is not the output of a run.
        StorageError: If it cannot be read.
    """
    store = ObjectStore.open(uri)
    try:
        plan = json.loads(store.read(PLAN_KEY))
        wanted = fingerprint_prefix(plan["fingerprint"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"load_masks needs the output folder of a run, with {PLAN_KEY} in it. "
            f"Received: {redact(uri)}"
        ) from error
    filesystem, root = store.arrow()
    # Another generation's late writers may have left objects beside this run's.
    paths = [
        f"{root.rstrip('/')}/{info.key}"
        for info in store.list(MASKS_FOLDER)
        if (parsed := parse_shard_key(info.key)) and parsed[1] == wanted
    ]
    return pyarrow.dataset.FileSystemDataset.from_paths(
        paths,
        schema=MASK_SCHEMA,
        format=pyarrow.dataset.ParquetFileFormat(),
        filesystem=filesystem,
    )


def results_to_table(results: Sequence[ImageResult]) -> pa.Table:
    """Turn results into a table of `MASK_SCHEMA`, one row per image and in the same order."""
    num_masks = [len(result.masks) for result in results]
    columns: list[list[Any]] = [
        [result.ref.image_id for result in results],
        [result.ref.uri for result in results],
        [result.status for result in results],
        [result.error_type for result in results],
        [_shorten(result.error_message) for result in results],
        [result.width for result in results],
        [result.height for result in results],
        num_masks,
    ]
    arrays = [
        pa.array(column, part.type)
        for column, part in zip(columns, list(MASK_SCHEMA)[:-1], strict=True)
    ]
    offsets = np.cumsum([0, *num_masks], dtype=np.int32)
    masks = pa.ListArray.from_arrays(pa.array(offsets), _masks_to_array(results), type=_MASKS_TYPE)
    return pa.Table.from_arrays([*arrays, masks], schema=MASK_SCHEMA)


def _masks_to_array(results: Sequence[ImageResult]) -> pa.StructArray:
    records = [record for result in results for record in result.masks]
    counts = [[compress_rle(record.rle) for record in result.masks] for result in results]
    boxes = [
        tight_boxes_xywh(texts, height=result.masks[0].rle.height, width=result.masks[0].rle.width)
        for result, texts in zip(results, counts, strict=True)
        if texts
    ]
    values: dict[str, Any] = {
        "counts": [text for texts in counts for text in texts],
        "bbox": np.concatenate(boxes) if boxes else np.zeros((0, 4)),
        "area": [record.rle.area for record in records],
        "predicted_iou": [record.predicted_iou for record in records],
        "stability_score": [record.stability_score for record in records],
        "point_coords": [record.point_coords for record in records],
        "crop_box": [record.crop_box.xywh for record in records],
    }
    arrays = [_to_array(values[part.name], part.type) for part in _MASK_FIELDS]
    return pa.StructArray.from_arrays(arrays, fields=_MASK_FIELDS)


def _to_array(values: Any, arrow_type: pa.DataType) -> pa.Array:
    if not pa.types.is_fixed_size_list(arrow_type):
        return pa.array(values, arrow_type)
    dtype = arrow_type.value_type.to_pandas_dtype()
    flat = np.asarray(values, dtype=dtype).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=arrow_type)


def _row_to_result(row: Mapping[str, Any]) -> ImageResult:
    return ImageResult(
        ref=ImageRef(row["image_id"], row["uri"]),
        status=row["status"],
        width=row["width"],
        height=row["height"],
        masks=tuple(_to_record(mask, row["height"], row["width"]) for mask in row["masks"]),
        error_type=row["error_type"],
        error_message=row["error_message"],
    )


def _to_record(mask: Mapping[str, Any], height: int, width: int) -> MaskRecord:
    left, top, box_width, box_height = (int(side) for side in mask["bbox"])
    is_empty = box_width == 0 or box_height == 0
    crop_x, crop_y, crop_width, crop_height = mask["crop_box"]
    return MaskRecord(
        rle=parse_rle(mask["counts"], height=height, width=width),
        box_xyxy=(0, 0, 0, 0)
        if is_empty
        else (left, top, left + box_width - 1, top + box_height - 1),
        predicted_iou=mask["predicted_iou"],
        stability_score=mask["stability_score"],
        point_coords=(mask["point_coords"][0], mask["point_coords"][1]),
        crop_box=CropBox(crop_x, crop_y, crop_x + crop_width, crop_y + crop_height, layer=0),
    )


def _shorten(message: str | None) -> str | None:
    if message is None:
        return None
    # A file name's bytes that are no text cannot be stored.
    return message.encode(errors="backslashreplace").decode()[:_MAX_MESSAGE]


def _encode_metadata(metadata: TableMetadata) -> dict[bytes, bytes]:
    values = {
        b"schema_version": str(metadata.schema_version),
        b"fingerprint": metadata.fingerprint,
        b"package_version": metadata.package_version,
        b"model": _to_json(metadata.model),
        b"amg": _to_json(metadata.amg),
    }
    return {_METADATA_PREFIX + key: value.encode() for key, value in values.items()}


def _to_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))
