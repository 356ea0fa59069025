"""Counts over the rows of a run, read from three narrow columns of its shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from amg_pipeline.errors import StorageError
from amg_pipeline.records import is_settled


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What the rows of a run say in sum.

    Attributes:
        images: Number of rows by status.
        unsettled: Number of rows that a retry could change.
        masks: Number of masks.
    """

    images: Mapping[str, int]
    unsettled: int
    masks: int


def count_rows(dataset: pyarrow.dataset.Dataset) -> RowCounts:
    """Count the rows of a run.

    Args:
        dataset: As `load_masks` returns it.

    Raises:
        StorageError: If a shard cannot be read.
    """
    images: Counter[str] = Counter()
    unsettled = masks = 0
    try:
        for batch in dataset.to_batches(columns=["status", "error_type", "num_masks"]):
            table = pa.Table.from_batches([batch])
            masks += pc.sum(table.column("num_masks")).as_py() or 0
            kinds = table.group_by(["status", "error_type"]).aggregate([([], "count_all")])
            for row in kinds.to_pylist():
                images[row["status"]] += row["count_all"]
                if not is_settled(row["status"], row["error_type"]):
                    unsettled += row["count_all"]
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"Every shard must be a readable Parquet file. Received: {type(error).__name__}. "
            "Find the damaged one with `amg verify`"
        ) from error
    return RowCounts(images=dict(images), unsettled=unsettled, masks=masks)
