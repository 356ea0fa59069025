"""Which rows of which shards have a status, read from one narrow column of them."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.layout import MASKS_FOLDER, parse_shard_key

#: Reads wait for the store, not for this machine.
_THREADS = 16


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


def _rows_of(
    values: pa.Array, fragment: pyarrow.dataset.ParquetFileFragment
) -> tuple[int, frozenset[int]]:
    name = fragment.path.rpartition("/")[2]
    parsed = parse_shard_key(MASKS_FOLDER + name)
    try:
        statuses = fragment.to_table(columns=["status"]).column("status")
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"Every shard must be a readable Parquet file. Received: {type(error).__name__} in "
            f"{name}. Find out more with `amg verify`"
        ) from error
    if parsed is None:
        raise StorageError(f"A shard's name must have its number. Received: {name}")
    rows = np.flatnonzero(pc.is_in(statuses, value_set=values).to_numpy())
    return parsed[0], frozenset(rows.tolist())
