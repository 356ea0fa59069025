"""The input of a run: which images, under which names, in which shards.

Lists are Arrow tables in order of the ids' bytes, so that 10 million images are columns and not
Python objects, and so that a shard's images never depend on the order of a listing.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.containers import index_parquets, index_tars, refuse_compressed
from amg_pipeline.storage.listing import (
    IMAGE_EXTENSIONS,
    Listing,
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
from amg_pipeline.storage.parquet_images import is_parquet_name, read_columns
from amg_pipeline.storage.tar_members import TAR_EXTENSION, is_compressed_tar_name, is_tar_name
from amg_pipeline.storage.uris import absolute_uri, redact, split_glob, split_parent
from amg_pipeline.telemetry import log_event

_LOGGER = logging.getLogger(__name__)

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
            `fnmatch` does, where `*` also matches `/`; a tar or Parquet file whose own path
            matches `exclude` is not opened. `sample` draws by a hash of the id, so that the draw
            does not depend on the listing; then `limit` takes the first ids.

    Returns:
        `image_id`, `uri`, `size_bytes`, `etag`, in order of the ids' UTF-8 bytes; rows of Parquet
        files in their own order, since they are read in it.

    Raises:
        ConfigError: If the input does not exist, holds no images or several kinds of them, has an
            id twice, or is a damaged tar or Parquet file.
        StorageError: If it cannot be listed.
    """
    if not settings.input:
        raise ConfigError("INPUT must name a folder, glob, prefix or manifest. Received: nothing")
    images, is_ordered = _find(absolute_uri(settings.input), settings)
    if images.num_rows == 0:
        column = f", which has no column {settings.column!r} with some" if settings.column else ""
        raise ConfigError(
            f"INPUT must hold images ({' '.join(IMAGE_EXTENSIONS)}), tars or Parquet files of them."
            f" Received: none in {redact(settings.input)}{column}"
        )
    images = _filter(images, settings)
    if not is_ordered:
        images = images.sort_by("image_id").combine_chunks()
        _refuse_duplicates(images.column("image_id"))
    if settings.sample is not None:
        images = _draw(images, settings.sample, settings.sample_seed)
    return images.slice(0, settings.limit)


def without(images: pa.Table, known: pa.ChunkedArray) -> pa.Table:
    """Leave out the images of a list whose ids are known; the others keep their order.

    Args:
        images: As `list_images` returns it.
        known: Ids, in any order.
    """
    ids = images.column("image_id")
    is_known = pc.is_in(ids, value_set=known.cast(ids.type))
    return images.filter(pc.invert(is_known)).combine_chunks()


def assign_shards(images: pa.Table, *, shard_size: int, first_shard: int = 0) -> pa.Table:
    """Cut a list of images into shards of consecutive rows.

    Args:
        images: As `list_images` returns it.
        shard_size: Rows of every shard but the last.
        first_shard: Number of the first shard.

    Returns:
        A table with `PLAN_SCHEMA`'s columns.
    """
    position = np.arange(images.num_rows, dtype=np.int64)
    columns = [
        pa.chunked_array([first_shard + position // shard_size], type=pa.int64()),
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


def _find(uri: str, settings: ImageSettings) -> tuple[pa.Table, bool]:
    """List the images at an address, and tell whether they have their final order."""
    is_left_out = _matcher(settings.exclude) if settings.exclude else lambda _: False
    kind = find_kind(uri)
    if kind == "folder":
        store = ObjectStore.open(uri)
        return _choose(store, list_folder(store, is_left_out=is_left_out), settings)
    if kind == "file":
        return _read_file(uri, settings)
    fixed, pattern = split_glob(uri)
    if pattern:
        store = ObjectStore.open(fixed)
        return _choose(store, list_glob(store, pattern, is_left_out=is_left_out), settings)
    raise ConfigError(
        "INPUT must be a folder, glob, prefix, manifest, tar or Parquet file that exists. "
        f"Received: {redact(uri)}"
    )


def _choose(store: ObjectStore, listing: Listing, settings: ImageSettings) -> tuple[pa.Table, bool]:
    """Take the one kind of images that a place holds.

    A mix is refused: an archive often lies beside the folder that it was unpacked to, and its
    images would be done twice; to take only one kind would lose images where it does not.
    """
    rows = index_parquets(store, listing.parquets, column=settings.column)
    counts = {
        "loose images": listing.images.num_rows,
        "tars": len(listing.tars),
        "images in Parquet files": rows.num_rows,
    }
    present = [f"{count} {what}" for what, count in counts.items() if count]
    if len(present) > 1:
        raise ConfigError(
            f"INPUT must hold images of one kind. Received: {' and '.join(present)} in "
            f"{redact(store.uri)}. Name one kind with a glob, such as {redact(store.uri)}/**/*"
            f"{TAR_EXTENSION}, or leave files out, for instance with --exclude '*{TAR_EXTENSION}'"
        )
    if listing.compressed_tars:
        if not listing.images.num_rows:
            refuse_compressed(store.uri_of(listing.compressed_tars[0].key))
        log_event(
            _LOGGER,
            logging.WARNING,
            f"{len(listing.compressed_tars)} compressed tars beside the images are not read",
        )
    if rows.num_rows:
        return rows, True
    return index_tars(store, listing.tars) if listing.tars else listing.images, False


def _read_file(uri: str, settings: ImageSettings) -> tuple[pa.Table, bool]:
    folder, name = split_parent(uri)
    store, infos = ObjectStore.open(folder), [ObjectInfo(name)]
    if is_compressed_tar_name(name):
        refuse_compressed(uri)
    if is_tar_name(name):
        return index_tars(store, infos), False
    if is_parquet_name(name) and (settings.column or "uri" not in read_columns(uri)):
        rows = index_parquets(store, infos, column=settings.column)
        if rows.num_rows or settings.column:
            return rows, True
    if is_manifest_name(name):
        return read_manifest(uri), False
    if is_image_name(name):
        return image_table(store, infos), False
    raise ConfigError(
        f"A file as INPUT must be a manifest ({' '.join(MANIFEST_EXTENSIONS)}), a tar "
        f"({TAR_EXTENSION}), a Parquet file with images or an image "
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
