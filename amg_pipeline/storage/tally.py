"""Counts over the rows of a run, read from three narrow columns of its shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset

from amg_pipeline.errors import StorageError
from amg_pipeline.records import is_settled

_FILES_AT_ONCE = 128


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
        for some in _pieces(dataset):
            table = some.to_table(columns=["status", "error_type", "num_masks"])
            kinds = table.group_by(["status", "error_type"]).aggregate(
                [([], "count_all"), ("num_masks", "sum")]
            )
            for row in kinds.to_pylist():
                images[row["status"]] += row["count_all"]
                masks += row["num_masks_sum"]
                if not is_settled(row["status"], row["error_type"]):
                    unsettled += row["count_all"]
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"Every shard must be a readable Parquet file. Received: {type(error).__name__}. "
            "Find the damaged one with `amg verify`"
        ) from error
    return RowCounts(images=dict(images), unsettled=unsettled, masks=masks)


def _pieces(dataset: pyarrow.dataset.Dataset) -> Iterator[pyarrow.dataset.Dataset]:
    """Take a dataset apart: it keeps the footers that it has read, 0.1 MB a shard."""
    files = dataset.files
    for start in range(0, len(files), _FILES_AT_ONCE):
        yield pyarrow.dataset.FileSystemDataset.from_paths(
            files[start : start + _FILES_AT_ONCE],
            schema=dataset.schema,
            format=dataset.format,
            filesystem=dataset.filesystem,
        )
