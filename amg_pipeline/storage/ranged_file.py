"""Parts of large files: some of their bytes, on disk or in a store, without reading the rest."""

from __future__ import annotations

import errno
import io
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.connections import S3_SCHEMES
from amg_pipeline.storage.faults import RetryPolicy, retry_transient
from amg_pipeline.storage.remote_files import RemoteFiles
from amg_pipeline.storage.s3_files import S3Files
from amg_pipeline.storage.uris import is_local, local_path, scheme_of

_DEFAULT_RETRY = RetryPolicy()


class RangedFile(io.RawIOBase):
    """A file that is read in parts; each read is one request, and holds nothing open.

    Messages of errors leave the address out, so that they can become part of a result.

    Args:
        uri: A path, or any URI that fsspec knows.
        retry: Bounds of the retries of transient faults.
    """

    def __init__(self, uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY) -> None:
        self._find_size, self._read_range = _open_ranges(uri)
        self._what = "the file" if is_local(uri) else "the object"
        self._retry = retry
        self._position = 0
        self._size: int | None = None

    @property
    def size(self) -> int:
        """The file's size in bytes; looked up once.

        Raises:
            FileNotFoundError: If nothing is there.
            TransientStorageError: If the store kept failing.
            StorageError: If it cannot be told.
        """
        if self._size is None:
            self._size = self._run("look up", self._find_size)
        return self._size

    def read_range(self, start: int, stop: int) -> bytes:
        """Read the bytes from `start` to before `stop`; fewer where the file ends before.

        Raises:
            FileNotFoundError: If nothing is there.
            TransientStorageError: If the store kept failing.
            StorageError: If it cannot be read, or not in parts.
        """
        data: bytes = self._run("read", lambda: self._read_range(start, stop))
        if len(data) > stop - start:
            # A web server may ignore that it was asked for a part.
            raise StorageError(
                f"A server must give a part of {self._what} when asked for one. "
                "Received: all of it. Copy it to a disk or an object store"
            )
        return data

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Tell where the next read starts."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Choose where the next read starts."""
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self.size
        self._position = offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read as much as fits and is there."""
        start, stop = self._position, min(self._position + len(buffer), self.size)
        data = self.read_range(start, stop) if stop > start else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _run(self, verb: str, operation: Callable[[], Any]) -> Any:
        return retry_transient(self._retry, f"{verb} {self._what}", operation)


def _open_ranges(uri: str) -> tuple[Callable[[], int], Callable[[int, int], bytes]]:
    """Give what tells a file's size, and what reads a range of it."""
    if is_local(uri):
        path = Path(local_path(uri))
        return partial(_local_size, path), partial(_read_local, path)
    files = S3Files(uri) if scheme_of(uri) in S3_SCHEMES else RemoteFiles(uri)
    return partial(files.size, ""), partial(files.read_range, "")


def _local_size(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        # Pipes and devices might never answer.
        raise OSError(errno.EINVAL, "not a regular file")
    return status.st_size


def _read_local(path: Path, start: int, stop: int) -> bytes:
    _local_size(path)
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)
