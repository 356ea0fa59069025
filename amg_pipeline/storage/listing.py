"""What a folder, a prefix of an object store or a glob holds: images, and files of many images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import fsspec.utils
import pyarrow as pa

from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.object_store import ObjectInfo, ObjectStore
from amg_pipeline.storage.parquet_images import is_parquet_name
from amg_pipeline.storage.tar_members import is_compressed_tar_name, is_tar_name
from amg_pipeline.storage.uris import is_text

#: Endings of files that are taken for images in folders and globs, in any case.
IMAGE_EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
)

#: Columns of a list of images. Large strings, so that no column is limited to 2 GB.
IMAGES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.large_string(), nullable=False),
        pa.field("uri", pa.large_string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("etag", pa.large_string()),
    ]
)

_BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Listing:
    """What was found at a place.

    Attributes:
        images: Images that are files of their own, with `IMAGES_SCHEMA`.
        tars: Uncompressed tars.
        compressed_tars: Tars that cannot be read in parts.
        parquets: Parquet files, of whatever content.
    """

    images: pa.Table
    tars: tuple[ObjectInfo, ...]
    compressed_tars: tuple[ObjectInfo, ...]
    parquets: tuple[ObjectInfo, ...]


def list_folder(
    store: ObjectStore, *, is_left_out: Callable[[str], bool] = lambda _: False
) -> Listing:
    """List a folder or prefix and all below; ids are paths relative to it.

    Args:
        store: The folder.
        is_left_out: Tells of a tar's or Parquet file's id whether it shall not be opened.
    """
    return _sort_out(store, store.list(), is_left_out)


def list_glob(
    store: ObjectStore, pattern: str, *, is_left_out: Callable[[str], bool] = lambda _: False
) -> Listing:
    """List what matches a pattern below a folder; ids are paths relative to it.

    Args:
        store: The fixed part of the glob.
        pattern: Components with `*`, `?`, `[...]`, and `**` for any number of folders.
        is_left_out: Tells of a tar's or Parquet file's id whether it shall not be opened.

    Raises:
        ConfigError: If the pattern is malformed.
    """
    try:
        matches = re.compile(fsspec.utils.glob_translate(pattern)).match
    except (ValueError, re.error) as error:
        raise ConfigError(
            f"A glob's '**' must be a whole component, as in photos/**/*.jpg. Received: {pattern!r}"
        ) from error
    depth = None if "**" in pattern.split("/") else len(pattern.split("/"))
    found = (info for info in store.list(max_depth=depth) if matches(info.key))
    return _sort_out(store, found, is_left_out)


def is_image_name(name: str) -> bool:
    """Tell whether a file name ends as an image's does."""
    return name.lower().endswith(IMAGE_EXTENSIONS)


def image_id_of(key: str) -> str:
    r"""Turn a key into an id; bytes that are no valid UTF-8 become `\xff` and the like."""
    if is_text(key):
        return key
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def image_table(store: ObjectStore, infos: Iterable[ObjectInfo]) -> pa.Table:
    """Build a list of images from a listing, without keeping it as Python objects."""
    batches = []
    for chunk in _chunks(infos):
        columns = [
            [image_id_of(info.key) for info in chunk],
            [store.uri_of(info.key) for info in chunk],
            [info.size for info in chunk],
            [info.etag for info in chunk],
        ]
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, IMAGES_SCHEMA, strict=True)
        ]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=IMAGES_SCHEMA))
    return pa.Table.from_batches(batches, schema=IMAGES_SCHEMA)


def _sort_out(
    store: ObjectStore, infos: Iterable[ObjectInfo], is_left_out: Callable[[str], bool]
) -> Listing:
    kinds: tuple[tuple[Callable[[str], bool], list[ObjectInfo]], ...] = (
        (is_tar_name, []),
        (is_compressed_tar_name, []),
        (is_parquet_name, []),
    )

    def images() -> Iterator[ObjectInfo]:
        """Put aside what holds images; there may be too many images to do so with them."""
        for info in infos:
            if is_image_name(info.key):
                yield info
                continue
            for is_kind, found in kinds:
                if is_kind(info.key) and not is_left_out(image_id_of(info.key)):
                    found.append(info)

    table = image_table(store, images())
    tars, compressed_tars, parquets = (tuple(found) for _, found in kinds)
    return Listing(table, tars, compressed_tars, parquets)


def _chunks(infos: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    chunk: list[ObjectInfo] = []
    for info in infos:
        chunk.append(info)
        if len(chunk) == _BATCH_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
