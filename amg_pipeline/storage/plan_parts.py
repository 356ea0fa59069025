"""The rows of a plan as Parquet: which image is in which shard, some shards to a part."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amg_pipeline.errors import StorageError
from amg_pipeline.records import ImageRef, Shard
from amg_pipeline.storage import layout
from amg_pipeline.storage.manifest import PLAN_SCHEMA, assign_shards
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.stored_plan import PlanPart

#: Rows of one part of the plan, about; a part is read whole.
_PART_ROWS = 262_144


def write_parts(
    store: ObjectStore, images: pa.Table, *, shard_size: int, before: tuple[PlanPart, ...] = ()
) -> tuple[PlanPart, ...]:
    """Write images as shards; nothing refers to them yet.

    Args:
        store: The output.
        images: As `manifest.list_images` returns them.
        shard_size: Images of a shard.
        before: The parts that the plan has already, whose shards stay as they are.

    Returns:
        The new parts.
    """
    first_shard = before[-1].shard_ids.stop if before else 0
    rows = assign_shards(images, shard_size=shard_size, first_shard=first_shard)
    part_size = max(1, _PART_ROWS // shard_size) * shard_size
    parts: list[PlanPart] = []
    for start in range(0, rows.num_rows, part_size):
        part = rows.slice(start, part_size).cast(PLAN_SCHEMA)
        data = _to_bytes(part)
        index = len(before) + len(parts)
        key = layout.plan_part_key(index, hashlib.sha256(data).hexdigest())
        store.put(key, data)
        parts.append(
            PlanPart(
                key=key,
                first_shard=first_shard + start // shard_size,
                num_shards=-(-part.num_rows // shard_size),
                num_images=part.num_rows,
                shard_size=shard_size,
            )
        )
    return tuple(parts)


def read_part(store: ObjectStore, part: PlanPart, columns: list[str] | None = None) -> pa.Table:
    """Read the rows of a part.

    Args:
        store: The output.
        part: Which one.
        columns: Which columns of `PLAN_SCHEMA`; all by default.

    Raises:
        StorageError: If it is missing or damaged.
    """
    try:
        data = pa.BufferReader(store.read(part.key))
        table = pq.read_table(data, schema=PLAN_SCHEMA, columns=columns)
    except (FileNotFoundError, pa.ArrowException) as error:
        raise StorageError(
            f"The plan's part {part.key} must be there and complete. Received: "
            f"{type(error).__name__}. Plan anew with --force"
        ) from error
    return table


def read_shards(store: ObjectStore, part: PlanPart, *, skip: Container[int]) -> Iterator[Shard]:
    """Read the shards of a part in order; it is not read if all are to be left out.

    Raises:
        StorageError: If the part is missing or damaged.
    """
    wanted = [number for number in part.shard_ids if number not in skip]
    if not wanted:
        return
    rows = read_part(store, part)
    bounds = np.searchsorted(
        rows.column("shard_id").to_numpy(), [*part.shard_ids, part.shard_ids.stop]
    )
    for number in wanted:
        start, stop = bounds[number - part.first_shard : number - part.first_shard + 2]
        yield _to_shard(number, rows.slice(start, stop - start))


def _to_shard(shard_id: int, rows: pa.Table) -> Shard:
    columns = [rows.column(name).to_pylist() for name in ("image_id", "uri", "size_bytes", "etag")]
    return Shard(shard_id, tuple(ImageRef(*values) for values in zip(*columns, strict=True)))


def _to_bytes(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", compression_level=3, use_dictionary=False)
    return bytes(sink.getvalue())
