"""pyarrow's view of a store, so that datasets read from it with our retries and checks."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa
import pyarrow.fs

from amg_pipeline.storage.connections import open_filesystem
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.ranged_file import RangedFile
from amg_pipeline.storage.remote_files import RemoteFiles


class _Rooted(Protocol):
    root: str


def open_arrow_view(files: _Rooted, retry: RetryPolicy) -> tuple[Any, str]:
    """Give a file system of pyarrow's to read from, and the root's path in it."""
    if not isinstance(files, RemoteFiles):
        return pyarrow.fs.LocalFileSystem(), files.root
    return pyarrow.fs.PyFileSystem(_ReadingHandler(files, retry)), files.base


class _ReadingHandler(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]
    """Opens files that are read in parts, each with retries; all else is fsspec's."""

    def __init__(self, files: RemoteFiles, retry: RetryPolicy) -> None:
        super().__init__(open_filesystem(files.root)[0])
        self._files = files
        self._retry = retry

    def open_input_file(self, path: str) -> Any:
        key = path.removeprefix(self._files.base).lstrip("/")
        return pa.PythonFile(RangedFile(self._files.uri(key), retry=self._retry), mode="r")

    open_input_stream = open_input_file
