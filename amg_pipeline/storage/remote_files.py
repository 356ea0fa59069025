"""Objects of any file system that fsspec knows, below one prefix."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from amg_pipeline.storage.connections import GOOGLE_SCHEMES, open_filesystem
from amg_pipeline.storage.content_types import content_type_of
from amg_pipeline.storage.local_files import Child, RetriedCall
from amg_pipeline.storage.uris import join_uri, scheme_of

#: How file systems name the time of an object.
_TIMES = ("mtime", "last_modified", "LastModified", "created")


class RemoteFiles:
    """The raw operations of an `ObjectStore` over fsspec; they raise the client's own errors.

    Attributes:
        root: URI that keys are relative to.
        creates_atomically: Whether of two that `create` one key one fails; None: not known.
    """

    creates_atomically: bool | None = None

    def __init__(self, uri: str) -> None:
        self.root = uri
        # As it is: at a web address, a slash at the end makes a difference.
        self._own_path = open_filesystem(uri)[1]
        self._base = self._own_path.rstrip("/")

    @property
    def base(self) -> str:
        """The root's path in its file system."""
        return self._base

    def read(self, key: str) -> bytes:
        """Read one object."""
        return bytes(self._filesystem.cat_file(self._path(key)))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Read the bytes of an object from `start` to before `stop`."""
        return bytes(self._filesystem.cat_file(self._path(key), start=start, end=stop))

    def size(self, key: str) -> int:
        """Tell the size of an object in bytes."""
        return int(self._filesystem.info(self._path(key))["size"])

    def put(self, key: str, data: bytes) -> None:
        """Write an object by one request; never as a stream, which a crash would cut short."""
        kind = content_type_of(self._path(key))
        takes_type = scheme_of(self.root) in GOOGLE_SCHEMES
        told = {"content_type": kind} if kind and takes_type else {}
        self._filesystem.pipe_file(self._path(key), data, **told)

    @contextmanager
    def stream(self, key: str, retry: RetriedCall) -> Iterator[BinaryIO]:
        """Write an object piece by piece; it is there when the block ends without an error.

        The pieces wait on this machine's disk: a request that is under way cannot be taken back.
        """
        with tempfile.TemporaryDirectory(prefix="amg-") as folder:
            path = Path(folder, "object")
            with path.open("wb") as file:
                yield file
            self.upload(key, str(path), retry)

    def upload(self, key: str, path: str, retry: RetriedCall) -> None:
        """Make an object of a local file."""
        retry(lambda: self._filesystem.put_file(path, self._path(key)))

    def create(self, key: str, data: bytes) -> None:
        """Write an object by one conditional request; FileExistsError if there is one.

        Stores that ignore the condition overwrite.
        """
        self._filesystem.pipe_file(self._path(key), data, mode="create")

    def exists(self, key: str) -> bool:
        """Tell whether an object has this key."""
        return self.kind(key) == "file"

    def kind(self, key: str) -> str | None:
        """Tell whether a key is that of a `"file"`, a `"folder"` or of nothing."""
        path = self._path(key)
        self._filesystem.invalidate_cache(self._filesystem._parent(path))
        # `isfile` would take any error for a no.
        try:
            return "file" if self._filesystem.info(path)["type"] == "file" else "folder"
        except FileNotFoundError:
            return None

    def children(self, key: str) -> list[Child]:
        """List what lies directly below a key."""
        path = self._path(key)
        # fsspec remembers listings, and others write to the same place.
        self._filesystem.invalidate_cache(path)
        return [
            _child(info)
            for info in self._filesystem.ls(path, detail=True)
            # A prefix may also be an object, and stores have markers for empty folders.
            if str(info["name"]).rstrip("/") != path.rstrip("/")
        ]

    def move(self, source: str, destination: str) -> None:
        """Copy an object inside the store and remove the first; repeatable after a lost answer."""
        try:
            self.copy(source, destination)
        except FileNotFoundError:
            if not self.exists(destination):
                raise
            return
        self.remove(source)

    def copy(self, source: str, destination: str) -> None:
        """Copy an object inside the store."""
        self._filesystem.cp_file(self._path(source), self._path(destination))

    def remove(self, key: str) -> None:
        """Remove an object."""
        self._filesystem.rm_file(self._path(key))

    def sweep(self, key: str) -> None:
        """Do nothing: a killed write leaves no object."""

    def uri(self, key: str) -> str:
        """Give the address of a key."""
        return join_uri(self.root, key)

    @property
    def _filesystem(self) -> Any:
        # Opened anew each time, from fsspec's own memory: a forked process needs another one.
        return open_filesystem(self.root)[0]

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}" if key else self._own_path


def _child(info: dict[str, Any]) -> Child:
    name = str(info["name"]).rstrip("/").rpartition("/")[2]
    if info["type"] == "directory":
        return Child(name, is_folder=True)
    etag = info.get("ETag") or info.get("etag")
    size: int | None = None
    with suppress(TypeError, ValueError):
        size = int(info["size"])
    modified = next(filter(None, map(info.get, _TIMES)), None)
    return Child(
        name,
        is_folder=False,
        size=size,
        etag=str(etag).strip('"') if etag else None,
        modified=modified.timestamp() if isinstance(modified, datetime) else None,
    )
