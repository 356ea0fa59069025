"""The images of a folder, a prefix of an object store or a glob, as a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import fsspec.utils
import pyarrow as pa

from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.object_store import ObjectInfo, ObjectStore
from amg_pipeline.storage.uris import is_text, redact

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


def list_folder(store: ObjectStore) -> pa.Table:
    """List the images below a folder or prefix; ids are paths relative to it."""
    return _to_table(store, _images(store.list()))


def list_glob(store: ObjectStore, pattern: str) -> pa.Table:
    """List the images that match a pattern below a folder; ids are paths relative to it.

    Args:
        store: The fixed part of the glob.
        pattern: Components with `*`, `?`, `[...]`, and `**` for any number of folders.

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
    return _to_table(store, _images(found))


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


def _to_table(store: ObjectStore, infos: Iterable[ObjectInfo]) -> pa.Table:
    table = image_table(store, infos)
    if table.num_rows == 0:
        raise ConfigError(
            f"INPUT must hold images ({' '.join(IMAGE_EXTENSIONS)}). "
            f"Received: none in {redact(store.uri)}"
        )
    return table


def _images(infos: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    return (info for info in infos if is_image_name(info.key))


def _chunks(infos: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    chunk: list[ObjectInfo] = []
    for info in infos:
        chunk.append(info)
        if len(chunk) == _BATCH_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
