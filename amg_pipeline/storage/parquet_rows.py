"""Images inside Parquet files, read row by row.

Parquet gives no single rows, so a row group is read from its start to where the wanted row is, and
the rows around it stay for those who ask next: a shard's rows lie side by side.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from threading import Lock
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amg_pipeline.errors import ConfigError, ImageDecodeError, ImageFetchError
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.parquet_images import (
    ARROW_FAULTS,
    RowAddress,
    byte_columns,
    leaf_of,
    open_parquet,
    tag_of,
)

_BATCH_ROWS = 16
#: Several, because the threads of a worker do not ask in order.
_HELD_BATCHES = 3
#: Two shards in flight, each of which may lie across the end of a row group, or of a file.
_MAX_CURSORS = _MAX_FILES = 4
_DAMAGED = "A Parquet file must be whole. Received: one that is damaged"
_CHANGED = (
    "A Parquet file must be the one that the plan was made of. Received: one that has changed "
    "since. Put the first one back, or plan anew with --force"
)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


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
            self._file = open_parquet(address.uri, retry)
        except ConfigError as error:
            raise ImageFetchError(_DAMAGED) from error
        schema, metadata = self._file.schema_arrow, self._file.metadata
        is_same = tag is None or tag == tag_of(metadata)
        if not is_same or address.column not in byte_columns(schema):
            raise ImageFetchError(_CHANGED)
        self._leaf = leaf_of(schema, address.column)
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
        except (*ARROW_FAULTS, StopIteration) as error:
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
