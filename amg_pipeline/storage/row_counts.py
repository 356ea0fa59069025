"""Counts over the rows of a run: each shard's footer says its own, so that one read has them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from amg_pipeline.errors import StorageError
from amg_pipeline.records import is_settled
from amg_pipeline.storage.object_store import ObjectInfo
from amg_pipeline.storage.ranged_file import RangedFile
from amg_pipeline.storage.uris import join_uri

#: Key of the counts in a footer.
FOOTER_KEY = b"amg_pipeline.rows"
_COLUMNS = ["status", "error_type", "num_masks"]
_MAGIC = b"PAR1"
#: The footer's length and the magic word.
_END_BYTES = 8
#: Holds the footer of some hundred rows; a longer one costs a second read.
_TAIL_BYTES = 2**16
_READS_AT_ONCE = 16
#: Bounds what waits for a thread.
_SHARDS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What rows say in sum.

    Attributes:
        images: Number of rows by status.
        unsettled: Number of rows that a retry could change.
        masks: Number of masks.
    """

    images: Mapping[str, int]
    unsettled: int
    masks: int

    def to_json(self) -> bytes:
        """Give the counts as a footer holds them; the same bytes for the same counts."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def count_table(table: pa.Table) -> RowCounts:
    """Count the rows of a table that has the columns of `MASK_SCHEMA`, or three of them."""
    images: Counter[str] = Counter()
    unsettled = masks = 0
    kinds = table.group_by(["status", "error_type"]).aggregate(
        [([], "count_all"), ("num_masks", "sum")]
    )
    for row in kinds.to_pylist():
        images[row["status"]] += row["count_all"]
        masks += row["num_masks_sum"]
        if not is_settled(row["status"], row["error_type"]):
            unsettled += row["count_all"]
    return RowCounts(images=dict(images), unsettled=unsettled, masks=masks)


def count_shards(uri: str, shards: Iterable[ObjectInfo]) -> RowCounts:
    """Count the rows of shards by one read of each.

    Args:
        uri: What the shards' keys are relative to.
        shards: As a listing tells of them.

    Raises:
        StorageError: If a shard cannot be read.
    """
    images: Counter[str] = Counter()
    unsettled = masks = 0
    left = iter(shards)
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="count") as pool:
        while some := tuple(islice(left, _SHARDS_AT_ONCE)):
            for counts in pool.map(lambda shard: _count_shard(uri, shard), some):
                images.update(counts.images)
                unsettled += counts.unsettled
                masks += counts.masks
    return RowCounts(images=dict(images), unsettled=unsettled, masks=masks)


def _count_shard(uri: str, shard: ObjectInfo) -> RowCounts:
    file = RangedFile(join_uri(uri, shard.key))
    try:
        size = file.size if shard.size is None else shard.size
        stored = pq.read_metadata(pa.BufferReader(_read_footer(file, size))).metadata or {}
        if FOOTER_KEY in stored:
            return RowCounts(**json.loads(stored[FOOTER_KEY]))
        # A table that something else wrote.
        data = pa.BufferReader(file.read_range(0, size))
        return count_table(pq.read_table(data, columns=_COLUMNS))
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise StorageError(
            f"Every shard must be a readable Parquet file. Received: {type(error).__name__}. "
            "Find the damaged one with `amg verify`"
        ) from error


def _read_footer(file: RangedFile, size: int) -> bytes:
    """Read a Parquet file's footer, as a file that has nothing else."""
    tail = file.read_range(max(0, size - _TAIL_BYTES), size)
    length = int.from_bytes(tail[-_END_BYTES : -len(_MAGIC)], "little") + _END_BYTES
    if len(tail) < length <= size:
        tail = file.read_range(size - length, size)
    return _MAGIC + tail[-length:]
