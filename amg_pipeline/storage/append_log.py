"""Lines that are only ever added, beside a run, by one writer at a time, and that no kill loses.

On disk a log is one file, `NAME.jsonl`: each line is written by one call and flushed before it
counts. A kill can leave a part of the last line, which readers leave out and the next writer ends.
An object store cannot append: there a log is a folder `NAME/` of segments, each put again, longer,
with every line, by one request that happens whole or not at all. A full segment is followed by the
next, and each writer has segments of its own. Both kinds are read, in this order, so that a run may
be copied from one kind of place to the other.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote, unquote

from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.uris import is_local, local_path, redact

_ENDING = ".jsonl"
#: Of a segment, before the next one is begun; each line puts all of it again.
_SEGMENT_BYTES = 2**17
_SEGMENT = re.compile(r"(?P<writer>\d{6,})-[0-9a-f]{8}-(?P<number>\d{6,})\.jsonl")
_READS_AT_ONCE = 16


class AppendLog(Protocol):
    """A log that is open to be written; a context manager."""

    def append(self, line: bytes) -> None:
        """Add a line, without its end; it is there for good when the call returns.

        Raises:
            StorageError: If it could not be written; it is then as if it had not been tried.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def open_log(uri: str, folder: str, name: str) -> AppendLog:
    """Open a log to add to it; it need not exist.

    Args:
        uri: What `folder` is relative to: a local path, or any URI that fsspec knows.
        folder: Where logs lie, with the slash.
        name: Any text; it becomes a file's name, or a folder's.

    Raises:
        ConfigError: If another process has the log open, which is known on this machine only.
        StorageError: If it cannot be opened.
    """
    if is_local(uri):
        return _FileLog(Path(local_path(uri), folder, _file_name(name) + _ENDING), name)
    return _SegmentLog(ObjectStore.open(uri), f"{folder}{_file_name(name)}/")


def read_log(uri: str, folder: str, name: str) -> Iterator[bytes]:
    """Read the lines of a log, the oldest first; none where there is no log.

    A line without an end, which a kill left, is left out. What follows such a line is a line of its
    own, and whoever takes lines apart must expect the remains as one that makes no sense.

    Raises:
        StorageError: If it cannot be read.
    """
    store = ObjectStore.open(uri)
    base = folder + _file_name(name)
    with suppress(FileNotFoundError):
        yield from _whole_lines(store.read(base + _ENDING))
    segments = [info.key for info in store.list(f"{base}/", max_depth=1)]
    keys = sorted((order, key) for key in segments if (order := _order(key)) is not None)
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="log") as pool:
        for data in pool.map(store.read, [key for _, key in keys]):
            yield from _whole_lines(data)


def list_logs(uri: str, folder: str) -> list[str]:
    """List the names of the logs in a folder, sorted."""
    names = set()
    for info in ObjectStore.open(uri).list(folder, max_depth=2):
        head, _, rest = info.key.removeprefix(folder).partition("/")
        if not rest and head.endswith(_ENDING):
            names.add(unquote(head.removesuffix(_ENDING)))
        elif rest and _order(info.key) is not None:
            names.add(unquote(head))
    return sorted(names)


class _FileLog:
    """A file of which each line is flushed to the disk."""

    def __init__(self, path: Path, name: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise _failed(path, error) from error
        self._path = path
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise ConfigError(
                f"One process at a time may write {path}. Received: one that another is writing. "
                f"End the other, or choose another name than {name!r}"
            ) from error

    def append(self, line: bytes) -> None:
        """See `AppendLog`."""
        try:
            size = os.fstat(self._file).st_size
            # Also after a write of our own that a full disk cut short.
            is_torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
            data = b"\n" * is_torn + line + b"\n"
            if os.write(self._file, data) < len(data):
                raise StorageError(
                    f"{self._path} must take a line of {len(line)} bytes. Received: a part of it. "
                    "Make room on the disk"
                )
            os.fsync(self._file)
        except OSError as error:
            raise _failed(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


class _SegmentLog:
    """Objects of which the last is put again with each line."""

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store = store
        orders = (_order(info.key) for info in store.list(folder, max_depth=1))
        writer = 1 + max((order[0] for order in orders if order), default=0)
        # Two that begin at the same time have the same number, and still never the same object.
        self._prefix = f"{folder}{writer:06d}-{secrets.token_hex(4)}-"
        self._number = 1
        self._lines = b""

    def append(self, line: bytes) -> None:
        """See `AppendLog`."""
        if len(self._lines) >= _SEGMENT_BYTES:
            self._number += 1
            self._lines = b""
        lines = self._lines + line + b"\n"
        self._store.put(f"{self._prefix}{self._number:06d}{_ENDING}", lines)
        self._lines = lines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _file_name(name: str) -> str:
    """Write any text as one component of a key, neither hidden nor special."""
    quoted = quote(name, safe="@ ")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def _order(key: str) -> tuple[int, int] | None:
    match = _SEGMENT.fullmatch(key.rpartition("/")[2])
    return (int(match["writer"]), int(match["number"])) if match else None


def _whole_lines(data: bytes) -> list[bytes]:
    return data.split(b"\n")[:-1]


def _failed(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{redact(str(path))} must take lines. Received: {error.strerror or error}")
