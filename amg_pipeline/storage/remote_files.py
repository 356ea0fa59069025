"""Objects of any file system that fsspec knows, below one prefix."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import fsspec
import pyarrow.fs

from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.local_files import Child
from amg_pipeline.storage.uris import join_uri, redact, scheme_of

#: The extra of this package that brings a scheme's file system.
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}


def open_filesystem(uri: str) -> tuple[Any, str]:
    """Open the file system of a URI.

    Only the scheme decides; chains such as `zip://...::s3://...` are not followed, because `::`
    may be part of an object's name.

    Returns:
        The fsspec file system, and the URI's path in it.

    Raises:
        ConfigError: If the scheme is unknown or its package is not installed.
    """
    scheme = scheme_of(uri)
    try:
        filesystem = fsspec.filesystem(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme or "")
        repair = f"pip install 'amg_pipeline[{extra}]'" if extra else "install its fsspec package"
        raise ConfigError(
            f"{redact(uri)} needs a package that is not installed: {repair}"
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "An address must be a path or start with a scheme that fsspec knows, such as s3:// or "
            f"gs://. Received: {redact(uri)}"
        ) from error
    path = str(filesystem._strip_protocol(uri))
    if scheme == "memory" and not path.startswith("/"):
        # Its own parsing gives up at names with `::`.
        path = f"/{path}"
    return filesystem, path


class RemoteFiles:
    """The raw operations of an `ObjectStore` over fsspec; they raise the client's own errors.

    Attributes:
        root: URI that keys are relative to.
    """

    def __init__(self, uri: str) -> None:
        self.root = uri
        self._filesystem, path = open_filesystem(uri)
        self._base = path.rstrip("/")

    def read(self, key: str) -> bytes:
        """Read one object."""
        return bytes(self._filesystem.cat_file(self._path(key)))

    def put(self, key: str, data: bytes) -> None:
        """Write an object by one request; never as a stream, which a crash would cut short."""
        self._filesystem.pipe_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> None:
        """Write an object by one conditional request; FileExistsError if there is one.

        Stores that ignore the condition overwrite.
        """
        self._filesystem.pipe_file(self._path(key), data, mode="create")

    def exists(self, key: str) -> bool:
        """Tell whether an object has this key."""
        path = self._path(key)
        self._filesystem.invalidate_cache(self._filesystem._parent(path))
        # `isfile` would take any error for a no.
        try:
            return bool(self._filesystem.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

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
            self._filesystem.cp_file(self._path(source), self._path(destination))
        except FileNotFoundError:
            if not self.exists(destination):
                raise
            return
        self._filesystem.rm_file(self._path(source))

    def sweep(self, key: str) -> None:
        """Do nothing: a killed write leaves no object."""

    def uri(self, key: str) -> str:
        """Give the address of a key."""
        return join_uri(self.root, key)

    def arrow(self) -> tuple[Any, str]:
        """Give pyarrow's view: a file system, and the root's path in it."""
        handler = pyarrow.fs.FSSpecHandler(self._filesystem)
        return pyarrow.fs.PyFileSystem(handler), self._base

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}" if key else self._base


def _child(info: dict[str, Any]) -> Child:
    name = str(info["name"]).rstrip("/").rpartition("/")[2]
    if info["type"] == "directory":
        return Child(name, is_folder=True)
    etag = info.get("ETag") or info.get("etag")
    size: int | None = None
    with suppress(TypeError, ValueError):
        size = int(info["size"])
    return Child(name, is_folder=False, size=size, etag=str(etag).strip('"') if etag else None)
