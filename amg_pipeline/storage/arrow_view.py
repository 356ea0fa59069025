"""pyarrow's view of a store, so that datasets read from it with our retries and checks."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.fs

from amg_pipeline.storage.connections import open_filesystem
from amg_pipeline.storage.remote_files import RemoteFiles

#: Runs an operation with retries, given a verb and a key for messages.
Run = Callable[[str, str, Callable[[], Any]], Any]


class _Rooted(Protocol):
    root: str


def open_arrow_view(files: _Rooted, run: Run) -> tuple[Any, str]:
    """Give a file system of pyarrow's to read from, and the root's path in it."""
    if not isinstance(files, RemoteFiles):
        return pyarrow.fs.LocalFileSystem(), files.root
    return pyarrow.fs.PyFileSystem(_ReadingHandler(files, run)), files.base


class _ReadingHandler(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]
    """Opens files that read through a store; all else is fsspec's."""

    def __init__(self, files: RemoteFiles, run: Run) -> None:
        super().__init__(open_filesystem(files.root)[0])
        self._files = files
        self._run = run

    def open_input_file(self, path: str) -> Any:
        key = path.removeprefix(self._files.base).lstrip("/")
        return pa.PythonFile(_RangedFile(self._files, key, self._run), mode="r")

    open_input_stream = open_input_file


class _RangedFile(io.RawIOBase):
    """An object as a file; each read is one request for a range of it."""

    def __init__(self, files: RemoteFiles, key: str, run: Run) -> None:
        self._files = files
        self._key = key
        self._run = run
        self._size: int = run("read", key, lambda: files.size(key))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        start = self._position
        stop = min(start + len(buffer), self._size)
        if stop <= start:
            return 0
        data = self._run("read", self._key, lambda: self._files.read_range(self._key, start, stop))
        buffer[: len(data)] = data
        self._position = start + len(data)
        return len(data)
