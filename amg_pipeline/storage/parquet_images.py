"""Images inside Parquet files, as Hugging Face `datasets` and others keep them.

An image is a value of a binary column, or the field `bytes` of a struct. Parquet gives no single
rows, so a row group is read from its start to where the wanted row is, and the rows around it stay
for those who ask next: a shard's rows lie side by side.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amg_pipeline.errors import ConfigError, ImageDecodeError, ImageFetchError
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.ranged_file import RangedFile
from amg_pipeline.storage.uris import redact

PARQUET_EXTENSION = ".parquet"

_ADDRESS = re.compile(r"(?P<uri>.+)#column=(?P<column>[^#&]+)&row=(?P<row>[0-9]{1,18})", re.DOTALL)
#: Names of binary columns that are taken for images, the likeliest first.
_COLUMN_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
_DEFAULT_RETRY = RetryPolicy()
#: Pages are read as they are needed, not a row group's column at once.
_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 16
#: Several, because the threads of a worker do not ask in order.
_HELD_BATCHES = 3
#: Two shards in flight, each of which may lie across the end of a row group, or of a file.
_MAX_CURSORS = _MAX_FILES = 4
#: What pyarrow raises for damaged data. Faults of the store pass through it as they are.
_ARROW_FAULTS = (pa.ArrowException, OSError)
_DAMAGED = "A Parquet file must be whole. Received: one that is damaged"
_CHANGED = (
    "A Parquet file must be the one that the plan was made of. Received: one that has changed "
    "since. Put the first one back, or plan anew with --force"
)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class RowAddress:
    """Which row of which column holds an image: `x.parquet#column=image&row=17`."""

    uri: str
    column: str
    row: int

    def __str__(self) -> str:
        """Write the address."""
        return f"{row_address_stem(self.uri, self.column)}{self.row}"

    @classmethod
    def parse(cls, uri: str) -> RowAddress | None:
        """Read an address; None for one of anything else."""
        match = _ADDRESS.fullmatch(uri)
        return cls(match["uri"], unquote(match["column"]), int(match["row"])) if match else None


@dataclass(frozen=True, slots=True)
class ParquetIndex:
    """What a Parquet file's footer says about the images in it.

    Attributes:
        column: The column with the images.
        num_rows: Images in the file.
        num_bytes: Size of the column, compressed.
        tag: By which the file is known again.
    """

    column: str
    num_rows: int
    num_bytes: int
    tag: str


def row_address_stem(uri: str, column: str) -> str:
    """Write the part that the addresses of a file's rows have in common; the row follows."""
    return f"{uri}#column={quote(column, safe='')}&row="


def is_parquet_name(name: str) -> bool:
    """Tell whether a file name ends as a Parquet file's does."""
    return name.lower().endswith(PARQUET_EXTENSION)


def read_columns(uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY) -> list[str]:
    """Read the names of a Parquet file's columns.

    Raises:
        ConfigError: If it is no whole Parquet file.
        StorageError: If it cannot be read.
    """
    return list(_open(uri, retry).schema_arrow.names)


def index_parquet(
    uri: str, *, column: str | None, retry: RetryPolicy = _DEFAULT_RETRY
) -> ParquetIndex | None:
    """Find the images of a Parquet file by its footer alone.

    Args:
        uri: The file.
        column: Name of the column with the images; None finds it.
        retry: Bounds of the retries of transient faults.

    Returns:
        None if no column may hold images.

    Raises:
        ConfigError: If it is no whole Parquet file, or several columns may hold its images.
        StorageError: If it cannot be read.
    """
    file = _open(uri, retry)
    found = _find_column(file.schema_arrow, column, uri)
    if found is None:
        return None
    metadata = file.metadata
    leaf = _leaf(file.schema_arrow, found)
    position = [file.schema.column(i).path for i in range(len(file.schema))].index(leaf)
    num_bytes = sum(
        metadata.row_group(group).column(position).total_compressed_size
        for group in range(metadata.num_row_groups)
    )
    return ParquetIndex(found, metadata.num_rows, num_bytes, _tag(metadata))


def read_row(address: RowAddress, tag: str | None, *, retry: RetryPolicy) -> bytes:
    """Read an image from its Parquet file; rows of one file are best read in order.

    Args:
        address: Where it lies.
        tag: What `index_parquet` said of the file; None if that is not known.
        retry: Bounds of the retries of transient faults.

    Raises:
        FileNotFoundError: If the file is gone.
        ImageDecodeError: If the row holds no bytes.
        ImageFetchError: If the file is damaged, or has changed by now.
        TransientStorageError: If the store kept failing.
        StorageError: If it cannot be read.
    """
    value = _FILES.read(address, tag, retry)
    if value is None:
        raise ImageDecodeError("A row must hold the bytes of an image. Received: no bytes")
    return value


def _open(uri: str, retry: RetryPolicy) -> pq.ParquetFile:
    file = RangedFile(uri, retry=retry)
    try:
        return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except FileNotFoundError:
        raise
    except _ARROW_FAULTS as error:
        raise ConfigError(
            f"A Parquet file must be whole and readable. Received: {redact(uri)}: "
            f"{_first_line(error)}. Copy it anew, or leave it out with --exclude"
        ) from error


def _find_column(schema: pa.Schema, wanted: str | None, uri: str) -> str | None:
    candidates = _image_columns(schema)
    if wanted is not None:
        if wanted in schema.names and wanted not in _byte_columns(schema):
            raise ConfigError(
                "images.column must name one column of bytes, or of structs with a field 'bytes'. "
                f"Received: {wanted!r}, which is none in {redact(uri)}"
            )
        return wanted if wanted in schema.names else None
    if len(candidates) > 1 and "image" not in candidates:
        raise ConfigError(
            f"The images of {redact(uri)} must be in one column. Received: "
            f"{', '.join(map(repr, candidates))}. Choose with --set images.column=NAME"
        )
    return "image" if "image" in candidates else next(iter(candidates), None)


def _image_columns(schema: pa.Schema) -> list[str]:
    """Name the columns that hold images, by what Hugging Face's writer says or by their types."""
    features = _features(schema)
    said = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "Image" and name in schema.names
    ]
    readable = _byte_columns(schema)
    structs = [name for name in readable if pa.types.is_struct(schema.field(name).type)]
    if features:
        # Sounds and videos are structs with bytes, too.
        structs = [name for name in structs if name in said]
    # Of plain columns, which may hold anything, the likeliest.
    return structs or [name for name in _COLUMN_NAMES if name in readable][:1]


def _byte_columns(schema: pa.Schema) -> list[str]:
    """Name the columns that can be read as images, as far as their types say."""
    return [
        field.name
        for field in schema
        if schema.names.count(field.name) == 1
        and (_is_bytes(field.type) or _is_struct_with_bytes(field.type))
    ]


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        document = json.loads((schema.metadata or {})[b"huggingface"])
        features = document["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_struct_with_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    position = kind.get_field_index("bytes")
    return position >= 0 and _is_bytes(kind.field(position).type)


def _leaf(schema: pa.Schema, column: str) -> str:
    is_struct = pa.types.is_struct(schema.field(column).type)
    return f"{column}.bytes" if is_struct else column


def _tag(metadata: pq.FileMetaData) -> str:
    """Tell one writing of a file from another: compressed images of other files differ in size."""
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    return f"{metadata.num_rows}-{sum(sizes)}-{metadata.serialized_size}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


class _Cursor:
    """Reads one column of one row group forwards; earlier rows start it anew."""

    def __init__(self, file: pq.ParquetFile, leaf: str, group: int) -> None:
        self._file = file
        self._leaf = leaf
        self._group = group
        self._lock = Lock()
        self._restart()

    def read(self, row: int) -> bytes | None:
        """Read a row, counted from the start of the row group."""
        with self._lock:
            if self._held and row < self._held[0][0]:
                self._restart()
            while row >= self._next_row:
                self._advance()
            start, values = next(held for held in self._held if row < held[0] + len(held[1]))
            value: bytes | None = values[row - start].as_py()
            return value

    def _advance(self) -> None:
        try:
            values = next(self._batches)
        except Exception:
            # An iterator that failed has ended; the next reader starts another one.
            self._restart()
            raise
        self._held.append((self._next_row, values))
        self._next_row += len(values)

    def _restart(self) -> None:
        self._held: deque[tuple[int, pa.Array]] = deque(maxlen=_HELD_BATCHES)
        self._next_row = 0
        self._batches = self._iterate()

    def _iterate(self) -> Iterator[pa.Array]:
        batches = self._file.iter_batches(
            batch_size=_BATCH_ROWS,
            row_groups=[self._group],
            columns=[self._leaf],
            use_threads=False,
        )
        for batch in batches:
            column = batch.column(0)
            yield column.flatten()[0] if pa.types.is_struct(column.type) else column


class _ImageFile:
    """A Parquet file with images, and the cursors in it that were used last."""

    def __init__(self, address: RowAddress, tag: str | None, retry: RetryPolicy) -> None:
        try:
            self._file = _open(address.uri, retry)
        except ConfigError as error:
            raise ImageFetchError(_DAMAGED) from error
        schema, metadata = self._file.schema_arrow, self._file.metadata
        is_same = tag is None or tag == _tag(metadata)
        if not is_same or address.column not in _byte_columns(schema):
            raise ImageFetchError(_CHANGED)
        self._leaf = _leaf(schema, address.column)
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._cursors: OrderedDict[int, _Cursor] = OrderedDict()
        self._lock = Lock()

    def read(self, row: int) -> bytes | None:
        """Read a row, counted from the start of the file."""
        if row >= self._starts[-1]:
            raise ImageFetchError(_CHANGED)
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        try:
            return self._cursor(group).read(row - int(self._starts[group]))
        except FileNotFoundError:
            raise
        except (*_ARROW_FAULTS, StopIteration) as error:
            raise ImageFetchError(_DAMAGED) from error

    def _cursor(self, group: int) -> _Cursor:
        with self._lock:
            make = lambda: _Cursor(self._file, self._leaf, group)  # noqa: E731
            return _recent(self._cursors, group, make, limit=_MAX_CURSORS)


class _ImageFiles:
    """The files of this process that were used last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._files: OrderedDict[tuple[str, str, str | None], _ImageFile] = OrderedDict()

    def read(self, address: RowAddress, tag: str | None, retry: RetryPolicy) -> bytes | None:
        """Read a row of a file, which is opened if it is not."""
        key = (address.uri, address.column, tag)
        with self._lock:
            file = _recent(
                self._files, key, lambda: _ImageFile(address, tag, retry), limit=_MAX_FILES
            )
        return file.read(address.row)


def _recent(
    cache: OrderedDict[_Key, _Value], key: _Key, make: Callable[[], _Value], *, limit: int
) -> _Value:
    """Take a value from a cache, or make it and let go of the one that was used least lately."""
    if key not in cache:
        cache[key] = make()
    cache.move_to_end(key)
    while len(cache) > limit:
        cache.popitem(last=False)
    return cache[key]


_FILES = _ImageFiles()
