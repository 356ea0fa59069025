"""One place for objects: a folder, or a prefix of an object store, behind a few verbs.

    store = ObjectStore.open("s3://bucket/out")
    store.put("masks/part-000000.parquet", data)

Writes are atomic: an object exists complete or not at all. Transient faults are retried here and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.faults import RetryPolicy, retry_transient
from amg_pipeline.storage.local_files import Child, LocalFiles
from amg_pipeline.storage.remote_files import RemoteFiles, open_filesystem
from amg_pipeline.storage.uris import is_local, local_path, redact

_Result = TypeVar("_Result")
_DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing.

    Attributes:
        key: Path relative to the store's root, with `/` between components.
        size: Bytes where the listing tells them.
        etag: The store's version tag where it has one.
    """

    key: str
    size: int | None = None
    etag: str | None = None


class _Files(Protocol):
    """The raw operations that a store is built on; see `LocalFiles`."""

    root: str

    def read(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def create(self, key: str, data: bytes) -> None: ...
    def exists(self, key: str) -> bool: ...
    def children(self, key: str) -> list[Child]: ...
    def move(self, source: str, destination: str) -> None: ...
    def sweep(self, key: str) -> None: ...
    def uri(self, key: str) -> str: ...
    def arrow(self) -> tuple[Any, str]: ...


class ObjectStore:
    """Objects below one address; keys are relative, with `/` between components.

    All methods raise `StorageError` for permanent faults (permission, full disk, missing bucket)
    and `TransientStorageError` when retries are used up.

    Args:
        files: The raw operations.
        retry: Bounds of the retries of transient faults.
    """

    def __init__(self, files: _Files, *, retry: RetryPolicy = _DEFAULT_RETRY) -> None:
        self._files = files
        self._retry = retry

    @classmethod
    def open(cls, uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY) -> ObjectStore:
        """Open a local path or any URI that fsspec knows; nothing needs to exist there.

        Raises:
            ConfigError: If the scheme is unknown or its package is not installed.
        """
        files: _Files = LocalFiles(local_path(uri)) if is_local(uri) else RemoteFiles(uri)
        return cls(files, retry=retry)

    @property
    def uri(self) -> str:
        """The address that keys are relative to."""
        return self._files.root

    def uri_of(self, key: str) -> str:
        """Give the address of a key, for `read_uri`."""
        return self._files.uri(key)

    def read(self, key: str) -> bytes:
        """Read one object whole.

        Raises:
            FileNotFoundError: If nothing has this key.
        """
        return self._run("read", key, lambda: self._files.read(_checked(key)))

    def put(self, key: str, data: bytes) -> None:
        """Write an object in one step, replacing one that exists."""
        self._write("write", key, lambda: self._files.put(_checked(key), data))

    def create(self, key: str, data: bytes) -> None:
        """Write an object in one step, only if none has this key.

        Raises:
            CommitConflictError: If there is one; after a lost answer it may be our own.
        """
        self._write("create", key, lambda: self._files.create(_checked(key), data))

    def exists(self, key: str) -> bool:
        """Tell whether an object has this key."""
        return self._run("look up", key, lambda: self._files.exists(_checked(key)))

    def list(self, prefix: str = "", *, max_depth: int | None = None) -> Iterator[ObjectInfo]:
        """List the objects in a folder and below, in order of their keys' bytes.

        Folder by folder, so that memory is bounded by the largest one. Unfinished writes are
        left out, and so is a folder that links back to one of its parents.

        Args:
            prefix: The folder, e.g. `masks/`; nothing need be there.
            max_depth: Components of the deepest keys below `prefix`; None for no limit.
        """
        start = prefix.rstrip("/")
        pending = [iter(self._children(start))]
        folders = [start]
        identities: list[tuple[int, int] | None] = [None]
        while pending:
            child = next(pending[-1], None)
            if child is None:
                pending.pop()
                folders.pop()
                identities.pop()
                continue
            key = f"{folders[-1]}/{child.name}" if folders[-1] else child.name
            if not child.is_folder:
                yield ObjectInfo(key, child.size, child.etag)
            elif (max_depth is None or len(pending) < max_depth) and (
                child.identity is None or child.identity not in identities
            ):
                pending.append(iter(self._children(key)))
                folders.append(key)
                identities.append(child.identity)

    def move(self, source: str, destination: str) -> None:
        """Give an object another key, replacing one that exists."""
        self._write(
            "move", source, lambda: self._files.move(_checked(source), _checked(destination))
        )

    def sweep(self, prefix: str) -> None:
        """Remove what killed writers left in a folder an hour ago or earlier."""
        self._run("tidy up", prefix, lambda: self._files.sweep(prefix.rstrip("/")))

    def arrow(self) -> tuple[Any, str]:
        """Give pyarrow's view of the store: a file system, and the root's path in it."""
        return self._files.arrow()

    def _children(self, key: str) -> Sequence[Child]:
        try:
            children = self._run("list", key, lambda: self._files.children(key))
        except FileNotFoundError:
            return []
        # With the slash, the walk gives keys in the order in which an object store lists them.
        return sorted(children, key=lambda child: child.name + "/" * child.is_folder)

    def _write(self, verb: str, key: str, operation: Callable[[], None]) -> None:
        try:
            self._run(verb, key, operation)
        except FileNotFoundError as error:
            raise StorageError(
                f"{error.strerror}. The place must exist, or be one where folders can be made"
            ) from error

    def _run(self, verb: str, key: str, operation: Callable[[], _Result]) -> _Result:
        return retry_transient(self._retry, f"{verb} {key or '.'} in {redact(self.uri)}", operation)


def read_uri(uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY) -> bytes:
    """Read what lies at one address.

    Messages of errors leave the address out, so that they can become part of a result.

    Raises:
        FileNotFoundError: If nothing is there.
        TransientStorageError: If the store kept failing.
        StorageError: If it cannot be read.
        ConfigError: If the scheme is unknown or its package is not installed.
    """
    if is_local(uri):
        path = local_path(uri)
        return retry_transient(retry, "read the file", lambda: LocalFiles("").read(path))
    filesystem, path = open_filesystem(uri)
    return retry_transient(retry, "read the object", lambda: bytes(filesystem.cat_file(path)))


def find_kind(uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY) -> str | None:
    """Tell what an address is: `"file"`, `"folder"` or None where there is nothing.

    Raises:
        StorageError: If the store refuses to tell.
        ConfigError: If the scheme is unknown or its package is not installed.
    """
    action = f"look up {redact(uri)}"
    if is_local(uri):
        return retry_transient(retry, action, lambda: _local_kind(local_path(uri)))
    filesystem, path = open_filesystem(uri)

    def kind() -> str | None:
        filesystem.invalidate_cache()
        return "file" if filesystem.info(path)["type"] == "file" else "folder"

    try:
        return retry_transient(retry, action, kind)
    except FileNotFoundError:
        return None


def _local_kind(path: str) -> str | None:
    files = LocalFiles(path)
    if files.exists(""):
        return "file"
    return "folder" if files.is_folder() else None


def _checked(key: str) -> str:
    if not key or key.startswith("/") or ".." in key.split("/"):
        raise StorageError(f"A key must be a relative path without '..'. Received: {key!r}")
    return key
