"""Which rows of a run have a status, read from its narrow columns alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.layout import MASKS_FOLDER, parse_shard_key

#: Reads wait for the store, not for this machine.
_THREADS = 16
_FAILED_COLUMNS = ["image_id", "status", "error_type", "error_message"]


def find_rows(
    dataset: pyarrow.dataset.Dataset, statuses: Collection[str]
) -> dict[int, frozenset[int]]:
    """Find the rows that have one of some statuses.

    Args:
        dataset: As `load_masks` returns it.
        statuses: Values of the column `status`.

    Returns:
        The rows' numbers by their shard's; shards without any are left out.

    Raises:
        StorageError: If a shard cannot be read.
    """
    values = pa.array(sorted(statuses), pa.string())
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="status") as pool:
        found = dict(pool.map(partial(_rows_of, values), dataset.get_fragments()))
    return {shard_id: rows for shard_id, rows in found.items() if rows}


@dataclass(frozen=True, slots=True)
class FailedRow:
    """An image that has no masks because it failed.

    Attributes:
        image_id: The image's name within the run.
        status: What became of it.
        error_type: Name of the error.
        error_message: What it says.
    """

    image_id: str
    status: str
    error_type: str | None
    error_message: str | None


def read_failed_rows(dataset: pyarrow.dataset.Dataset) -> Iterator[FailedRow]:
    """Read the rows of a run that failed, in order; row groups without any are not read.

    Args:
        dataset: As `load_masks` returns it.

    Raises:
        StorageError: If a shard cannot be read.
    """
    failed = pc.field("status") != "ok"
    try:
        for batch in dataset.to_batches(columns=_FAILED_COLUMNS, filter=failed):
            for row in batch.to_pylist():
                yield FailedRow(**row)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(error, "a shard") from error


def _rows_of(
    values: pa.Array, fragment: pyarrow.dataset.ParquetFileFragment
) -> tuple[int, frozenset[int]]:
    name = fragment.path.rpartition("/")[2]
    parsed = parse_shard_key(MASKS_FOLDER + name)
    try:
        statuses = fragment.to_table(columns=["status"]).column("status")
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(error, name) from error
    if parsed is None:
        raise StorageError(f"A shard's name must have its number. Received: {name}")
    rows = np.flatnonzero(pc.is_in(statuses, value_set=values).to_numpy())
    return parsed[0], frozenset(rows.tolist())


def _unreadable(error: Exception, name: str) -> StorageError:
    return StorageError(
        f"Every shard must be a readable Parquet file. Received: {type(error).__name__} in {name}. "
        "Find out more with `amg verify`"
    )
