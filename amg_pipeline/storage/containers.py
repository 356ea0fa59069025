"""Files that hold many images: tars and Parquet files, as lists of the images in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.listing import IMAGE_EXTENSIONS, IMAGES_SCHEMA, image_id_of
from amg_pipeline.storage.object_store import ObjectInfo, ObjectStore
from amg_pipeline.storage.parquet_images import index_parquet, row_address_stem
from amg_pipeline.storage.tar_members import (
    COMPRESSED_EXTENSIONS,
    TarAddress,
    TarMember,
    list_members,
)
from amg_pipeline.storage.uris import redact

#: Requests for headers wait for the store, not for this machine.
_THREADS = 32
#: Members that are Python objects at the same time, in each thread.
_BATCH_ROWS = 8_192
_TEXT = pa.large_string()


def index_tars(store: ObjectStore, infos: Iterable[ObjectInfo]) -> pa.Table:
    """List the images in tars by their headers; ids are `path of the tar/path in the tar`.

    Raises:
        ConfigError: If a tar is damaged, or an image's name in it is hostile.
        StorageError: If one cannot be read.
    """
    return _index(partial(_index_tar, store), infos)


def index_parquets(
    store: ObjectStore, infos: Iterable[ObjectInfo], *, column: str | None
) -> pa.Table:
    """List the images in Parquet files by their footers; ids are `path of the file#row`.

    Files without a column of images, such as metadata that lie beside tars, are left out.

    Args:
        store: Where the files lie.
        infos: The files, in the order that their images shall have.
        column: Name of the column with the images; None finds it.

    Raises:
        ConfigError: If one is damaged, or several columns may hold its images.
        StorageError: If one cannot be read.
    """
    return _index(partial(_index_parquet, store, column), infos)


def refuse_compressed(uri: str) -> None:
    """Say why a compressed tar is no input.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"A tar must not be compressed ({' '.join(COMPRESSED_EXTENSIONS)}): no image in it could "
        f"be read without reading all that lie before it. Received: {redact(uri)}. Decompress it "
        "once, for instance with gzip -d; images hardly get smaller by it"
    )


def _index(
    index_one: Callable[[ObjectInfo], list[pa.RecordBatch]], infos: Iterable[ObjectInfo]
) -> pa.Table:
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="index") as pool:
        try:
            batches = [batch for found in pool.map(index_one, infos) for batch in found]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return pa.Table.from_batches(batches, schema=IMAGES_SCHEMA)


def _index_tar(store: ObjectStore, info: ObjectInfo) -> list[pa.RecordBatch]:
    uri, tar_id = store.uri_of(info.key), image_id_of(info.key)
    members = list_members(uri, extensions=IMAGE_EXTENSIONS)
    return [
        _members_to_batch(chunk, uri, tar_id)
        for chunk in iter(lambda: list(islice(members, _BATCH_ROWS)), [])
    ]


def _members_to_batch(members: list[TarMember], uri: str, tar_id: str) -> pa.RecordBatch:
    columns: tuple[list[object], ...] = (
        [f"{tar_id}/{image_id_of(member.name)}" for member in members],
        [str(TarAddress(uri, member.offset, member.size)) for member in members],
        [member.size for member in members],
        [member.tag for member in members],
    )
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, IMAGES_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=IMAGES_SCHEMA)


def _index_parquet(
    store: ObjectStore, column: str | None, info: ObjectInfo
) -> list[pa.RecordBatch]:
    uri = store.uri_of(info.key)
    index = index_parquet(uri, column=column)
    if index is None or index.num_rows == 0:
        return []
    rows = np.arange(index.num_rows)
    texts = pc.cast(pa.array(rows), _TEXT)
    # How large a single image is, the footer does not tell.
    sizes = index.num_bytes // index.num_rows + (rows < index.num_bytes % index.num_rows)
    columns = [
        _join(f"{image_id_of(info.key)}#", texts),
        _join(row_address_stem(uri, index.column), texts),
        pa.array(sizes, pa.int64()),
        pa.repeat(pa.scalar(index.tag, _TEXT), index.num_rows),
    ]
    return [pa.RecordBatch.from_arrays(columns, schema=IMAGES_SCHEMA)]


def _join(prefix: str, texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(prefix, _TEXT), texts, pa.scalar("", _TEXT))
