"""The input of a run: which images, under which names, in which shards.

Lists are Arrow tables in order of the ids' bytes, so that 10 million images are columns and not
Python objects, and so that a shard's images never depend on the order of a listing.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.listing import (
    IMAGE_EXTENSIONS,
    image_table,
    is_image_name,
    list_folder,
    list_glob,
)
from amg_pipeline.storage.manifest_files import (
    MANIFEST_EXTENSIONS,
    is_manifest_name,
    read_manifest,
)
from amg_pipeline.storage.object_store import ObjectInfo, ObjectStore, find_kind
from amg_pipeline.storage.uris import absolute_uri, redact, split_glob, split_parent

#: Columns of a plan; `row` counts within its shard.
PLAN_SCHEMA = pa.schema(
    [
        pa.field("shard_id", pa.int64(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("etag", pa.string()),
    ]
)

#: Ids that are Python objects at the same time.
_CHUNK_ROWS = 65_536


def list_images(settings: ImageSettings) -> pa.Table:
    """List the images of a run.

    Args:
        settings: The input and its filters. `include` and `exclude` are matched against ids as
            `fnmatch` does, where `*` also matches `/`. `sample` draws by a hash of the id, so that
            the draw does not depend on the listing; then `limit` takes the first ids.

    Returns:
        `image_id`, `uri`, `size_bytes`, `etag`, in order of the ids' UTF-8 bytes.

    Raises:
        ConfigError: If the input does not exist, holds no images, or has an id twice.
        StorageError: If it cannot be listed.
    """
    if not settings.input:
        raise ConfigError("INPUT must name a folder, glob, prefix or manifest. Received: nothing")
    images = _find(absolute_uri(settings.input))
    if images.num_rows == 0:
        raise ConfigError(f"INPUT must hold images. Received: none in {redact(settings.input)}")
    images = _filter(images, settings)
    images = images.sort_by("image_id").combine_chunks()
    _refuse_duplicates(images.column("image_id"))
    if settings.sample is not None:
        images = _draw(images, settings.sample, settings.sample_seed)
    return images.slice(0, settings.limit)


def assign_shards(images: pa.Table, *, shard_size: int) -> pa.Table:
    """Cut a list of images into shards of consecutive rows.

    Args:
        images: As `list_images` returns it.
        shard_size: Rows of every shard but the last.

    Returns:
        A table with `PLAN_SCHEMA`'s columns.
    """
    position = np.arange(images.num_rows, dtype=np.int64)
    columns = [
        pa.chunked_array([position // shard_size], type=pa.int64()),
        pa.chunked_array([(position % shard_size).astype(np.int32)], type=pa.int32()),
        *(images.column(field.name) for field in list(PLAN_SCHEMA)[2:]),
    ]
    # Still large strings here; a part of the plan is small enough for plain ones.
    fields = [
        field.with_type(column.type) for field, column in zip(PLAN_SCHEMA, columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def count_bytes(images: pa.Table) -> tuple[int, int]:
    """Sum the sizes of a list of images.

    Returns:
        Bytes, and the number of images whose size is not known.
    """
    sizes = images.column("size_bytes")
    return pc.sum(sizes).as_py() or 0, sizes.null_count


def _find(uri: str) -> pa.Table:
    kind = find_kind(uri)
    if kind == "folder":
        return list_folder(ObjectStore.open(uri))
    if kind == "file":
        return _read_file(uri)
    fixed, pattern = split_glob(uri)
    if pattern:
        return list_glob(ObjectStore.open(fixed), pattern)
    raise ConfigError(
        f"INPUT must be a folder, glob, prefix or manifest that exists. Received: {redact(uri)}"
    )


def _read_file(uri: str) -> pa.Table:
    folder, name = split_parent(uri)
    if is_manifest_name(name):
        return read_manifest(uri)
    if is_image_name(name):
        return image_table(ObjectStore.open(folder), [ObjectInfo(name)])
    raise ConfigError(
        f"A file as INPUT must be a manifest ({' '.join(MANIFEST_EXTENSIONS)}) or an image "
        f"({' '.join(IMAGE_EXTENSIONS)}). Received: {redact(uri)}"
    )


def _filter(images: pa.Table, settings: ImageSettings) -> pa.Table:
    if not settings.include and not settings.exclude:
        return images
    included = _matcher(settings.include) if settings.include else None
    excluded = _matcher(settings.exclude) if settings.exclude else None

    def keep(image_id: str) -> bool:
        return (included is None or included(image_id)) and not (excluded and excluded(image_id))

    kept = images.filter(_map_ids(images, keep, pa.bool_()))
    if kept.num_rows == 0:
        raise ConfigError(
            "images.include and images.exclude must leave at least one image. Received: "
            f"include {list(settings.include)}, exclude {list(settings.exclude)}, which leave none "
            f"of {images.num_rows}"
        )
    return kept


def _matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    expression = re.compile("|".join(f"(?:{fnmatch.translate(pattern)})" for pattern in patterns))
    return lambda image_id: expression.match(image_id) is not None


def _draw(images: pa.Table, count: int, seed: int) -> pa.Table:
    """Keep the `count` images whose ids have the lowest hashes."""
    key = seed.to_bytes(16, "little")

    def rank(image_id: str) -> int:
        digest = hashlib.blake2b(image_id.encode(), key=key, digest_size=8).digest()
        return int.from_bytes(digest, "big")

    ranks = _map_ids(images, rank, pa.uint64())
    order = pc.sort_indices(
        pa.table({"rank": ranks, "image_id": images.column("image_id")}),
        sort_keys=[("rank", "ascending"), ("image_id", "ascending")],
    )
    return images.take(np.sort(order.to_numpy()[:count])).combine_chunks()


def _map_ids(
    images: pa.Table, function: Callable[[str], Any], result_type: pa.DataType
) -> pa.ChunkedArray:
    """Apply a Python function to the ids, one chunk of objects at a time."""
    chunks = [
        pa.array(map(function, batch.column("image_id").to_pylist()), result_type)
        for batch in images.to_batches(max_chunksize=_CHUNK_ROWS)
    ]
    return pa.chunked_array(chunks, type=result_type)


def _refuse_duplicates(ids: pa.ChunkedArray) -> None:
    """Compare neighbours of a sorted column."""
    length = len(ids)
    position = pc.index(pc.equal(ids.slice(1), ids.slice(0, length - 1)), True).as_py()
    if position >= 0:
        raise ConfigError(
            f"Every image must have its own image_id. Received: {ids[position].as_py()!r} twice"
        )
