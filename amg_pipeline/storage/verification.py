"""Reading a stored shard back and comparing it with what it ought to hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from amg_pipeline.config import SCHEMA_VERSION
from amg_pipeline.errors import StorageError
from amg_pipeline.records import ImageRef, ImageStatus
from amg_pipeline.storage.coco_rle import parse_rle, tight_boxes_xywh
from amg_pipeline.storage.mask_table import read_metadata, read_table
from amg_pipeline.storage.row_counts import FOOTER_KEY, count_table

_STATUSES = frozenset(get_args(ImageStatus))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an output that is not as it ought to be.

    Attributes:
        key: The object.
        message: What was expected and what was found.
    """

    key: str
    message: str


def shard_faults(data: bytes, *, fingerprint: str, images: Sequence[ImageRef]) -> Iterator[str]:
    """Check a shard: schema, fingerprint, rows, and that every RLE decodes to its area and box.

    Args:
        data: The stored object.
        fingerprint: That of the run.
        images: What the plan put into the shard, in row order.

    Yields:
        One message per fault.
    """
    try:
        table = read_table(data)
        metadata = read_metadata(table)
    except StorageError as error:
        yield str(error)
        return
    if metadata.fingerprint != fingerprint:
        yield f"the footer must have fingerprint {fingerprint}; found {metadata.fingerprint}"
    if metadata.schema_version != SCHEMA_VERSION:
        yield (
            f"the footer must have schema version {SCHEMA_VERSION}; found {metadata.schema_version}"
        )
    if table.num_rows != len(images):
        yield f"there must be {len(images)} rows; found {table.num_rows}"
        return
    counted = count_table(table).to_json()
    if (table.schema.metadata or {}).get(FOOTER_KEY, counted) != counted:
        yield f"the footer must count the rows, {counted.decode()}; found other counts"
    yield from _ref_faults(table, images)
    for row in table.to_pylist():
        for fault in _row_faults(row):
            yield f"{row['image_id']!r}: {fault}"


def _ref_faults(table: pa.Table, images: Sequence[ImageRef]) -> Iterator[str]:
    stored = zip(table.column("image_id").to_pylist(), table.column("uri").to_pylist(), strict=True)
    for position, (image, (image_id, uri)) in enumerate(zip(images, stored, strict=True)):
        if (image.image_id, image.uri) != (image_id, uri):
            yield (
                f"row {position} must be {image.image_id!r} at {image.uri!r}; "
                f"found {image_id!r} at {uri!r}"
            )


def _row_faults(row: Mapping[str, Any]) -> Iterator[str]:
    status, masks = row["status"], row["masks"]
    if status not in _STATUSES:
        yield f"the status must be one of {', '.join(sorted(_STATUSES))}; found {status!r}"
    if row["num_masks"] != len(masks):
        yield f"num_masks must be the {len(masks)} of masks; found {row['num_masks']}"
    if status == "ok":
        if row["error_type"] is not None or row["error_message"] is not None:
            yield "a row with status ok must have no error"
        if not row["width"] or not row["height"]:
            yield f"a row with status ok must have a size; found {row['width']} x {row['height']}"
            return
        yield from _mask_faults(masks, height=row["height"], width=row["width"])
    elif masks or row["error_type"] is None:
        yield f"a row with status {status} must have an error_type and no masks"


def _mask_faults(masks: Sequence[Mapping[str, Any]], *, height: int, width: int) -> Iterator[str]:
    for position, mask in enumerate(masks):
        try:
            rle = parse_rle(mask["counts"], height=height, width=width)
        except ValueError as error:
            yield f"mask {position}: {error}"
            continue
        if rle.area != mask["area"]:
            yield f"mask {position}: the RLE's area is {rle.area}; the row says {mask['area']}"
        box = tight_boxes_xywh([mask["counts"]], height=height, width=width)[0]
        if not np.array_equal(box, np.asarray(mask["bbox"], dtype=np.float32)):
            yield f"mask {position}: the RLE's box is {box.tolist()}; the row says {mask['bbox']}"
        left, top, crop_width, crop_height = mask["crop_box"]
        if left < 0 or top < 0 or left + crop_width > width or top + crop_height > height:
            yield f"mask {position}: crop_box must lie in the image; found {mask['crop_box']}"
        scores = [mask["predicted_iou"], mask["stability_score"]]
        if rle.area == 0 and np.isnan(scores[1]):
            # The ratio of two empty areas, as in the reference; kept where no score is too low.
            scores.pop()
        if not np.isfinite(scores).all():
            yield f"mask {position}: the scores must be finite"
