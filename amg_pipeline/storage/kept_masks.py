"""A shard's rows with fewer masks; none is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from amg_pipeline.storage.mask_table import MASK_SCHEMA


@dataclass(frozen=True, slots=True)
class MaskColumns:
    """What masks are chosen by, all of a shard's in one array each, `(M,)`.

    Attributes:
        predicted_iou: Float32.
        area: Pixels, int64.
        image_area: Pixels of the image of each, int64.
    """

    predicted_iou: NDArray[np.float32]
    area: NDArray[np.int64]
    image_area: NDArray[np.int64]


def keep_masks(table: pa.Table, choose: Callable[[MaskColumns], NDArray[np.bool_]]) -> pa.Table:
    """Leave out masks; rows and the order of masks stay.

    Args:
        table: With `MASK_SCHEMA`.
        choose: Tells for each mask whether it stays.

    Returns:
        A table with `MASK_SCHEMA`, in one piece, so that it is written as any other.
    """
    whole = table.combine_chunks()
    lists = pa.concat_arrays(whole.column("masks").chunks) if whole.num_rows else None
    if lists is None:
        return whole
    structs = lists.flatten()
    lengths = np.diff(lists.offsets.to_numpy())
    heights, widths = (
        whole.column(name).fill_null(0).to_numpy().astype(np.int64) for name in ("height", "width")
    )
    keeps = choose(
        MaskColumns(
            predicted_iou=structs.field("predicted_iou").to_numpy(),
            area=structs.field("area").to_numpy(),
            image_area=np.repeat(heights * widths, lengths),
        )
    )
    row_of = np.repeat(np.arange(whole.num_rows), lengths)
    num_masks = np.bincount(row_of[keeps], minlength=whole.num_rows).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(num_masks)]).astype(np.int32)
    kept = structs.take(pa.array(np.flatnonzero(keeps)))
    masks = pa.ListArray.from_arrays(pa.array(offsets), kept, type=MASK_SCHEMA.field("masks").type)
    columns = {name: whole.column(name) for name in MASK_SCHEMA.names}
    columns |= {"num_masks": pa.array(num_masks), "masks": masks}
    return pa.Table.from_arrays(list(columns.values()), schema=MASK_SCHEMA)
