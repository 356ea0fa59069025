"""One place for objects: a folder, or a prefix of an object store, behind a few verbs.

    store = ObjectStore.open("s3://bucket/out")
    store.put("masks/part-000000.parquet", data)

Writes are atomic: an object exists complete or not at all. Transient faults are retried here and
nowhere else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, Protocol, TypeVar

from amg_pipeline.errors import (
    CommitConflictError,
    StorageAccessError,
    StorageError,
    TransientStorageError,
)
from amg_pipeline.storage.arrow_view import open_arrow_view
from amg_pipeline.storage.claims import create_by_claim
from amg_pipeline.storage.connections import S3_SCHEMES
from amg_pipeline.storage.faults import RetryPolicy, retry_transient
from amg_pipeline.storage.local_files import Child, LocalFiles, RetriedCall
from amg_pipeline.storage.remote_files import RemoteFiles
from amg_pipeline.storage.s3_files import S3Files
from amg_pipeline.storage.uris import is_local, local_path, redact, scheme_of

_Result = TypeVar("_Result")
_DEFAULT_RETRY = RetryPolicy()
#: Seconds within which a PUT takes effect on a store that ignores conditions.
_SETTLE_S = 5.0


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing.

    Attributes:
        key: Path relative to the store's root, with `/` between components.
        size: Bytes where the listing tells them.
        etag: The store's version tag where it has one.
        modified: When it was written, by the store's clock in seconds since 1970, where known.
    """

    key: str
    size: int | None = None
    etag: str | None = None
    modified: float | None = field(default=None, compare=False)


class _Files(Protocol):
    """The raw operations that a store is built on; see `LocalFiles`."""

    root: str
    creates_atomically: bool | None

    def read(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def stream(self, key: str, retry: RetriedCall) -> AbstractContextManager[BinaryIO]: ...
    def create(self, key: str, data: bytes) -> None: ...
    def exists(self, key: str) -> bool: ...
    def kind(self, key: str) -> str | None: ...
    def children(self, key: str) -> list[Child]: ...
    def move(self, source: str, destination: str) -> None: ...
    def remove(self, key: str) -> None: ...
    def sweep(self, key: str) -> None: ...
    def uri(self, key: str) -> str: ...


class ObjectStore:
    """Objects below one address; keys are relative, with `/` between components.

    All methods raise `StorageError` for permanent faults (`StorageAccessError` where an object
    store refuses the caller or has no such bucket), and `TransientStorageError` when retries are
    used up.

    Args:
        files: The raw operations.
        retry: Bounds of the retries of transient faults.
        settle_s: Seconds within which a PUT takes effect on a store that ignores conditions.
    """

    def __init__(
        self, files: _Files, *, retry: RetryPolicy = _DEFAULT_RETRY, settle_s: float = _SETTLE_S
    ) -> None:
        self._files = files
        self._retry = retry
        self._settle_s = settle_s
        self._creates_atomically = files.creates_atomically

    @classmethod
    def open(cls, uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY) -> ObjectStore:
        """Open a local path or any URI that fsspec knows; nothing needs to exist there.

        Raises:
            ConfigError: If the scheme is unknown or its package is not installed.
        """
        return cls(_open_files(uri), retry=retry)

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

    @contextmanager
    def stream(self, key: str) -> Iterator[BinaryIO]:
        """Write an object piece by piece, replacing one that exists.

        It is there, whole, when the block ends without an error, and not before.
        """

        def retried(operation: Callable[[], Any]) -> Any:
            return self._run("write", key, operation)

        try:
            with self._files.stream(_checked(key), retried) as file:
                yield file
        except OSError as error:
            # For instance a disk that is full; what the store answers went through the retries.
            raise StorageError(
                f"{redact(self.uri)} must take {key}. Received: {error.strerror or error}"
            ) from error

    def create(self, key: str, data: bytes) -> None:
        """Write an object in one step, only if none has this key.

        Of several writers at once, one succeeds: by the store's own means where it has them, and
        by a claim where it only pretends to.

        Raises:
            CommitConflictError: If there is one; after a lost answer it may be our own.
        """
        if self.creates_atomically(_beside(_checked(key))):
            self._write("create", key, lambda: self._files.create(key, data))
        else:
            create_by_claim(
                self._files,
                key,
                data,
                claim_key=_beside(key) + "claim",
                run=self._run,
                settle_s=self._settle_s,
            )

    def creates_atomically(self, folder: str) -> bool:
        """Find out, once, whether the store keeps to the condition of a conditional write.

        Many stores take it, answer that all is well, and overwrite. So an object is created twice.

        Args:
            folder: Where the object for the trial is put and removed again, with the slash.
        """
        if self._creates_atomically is None:
            probe = f"{folder}probe-{secrets.token_hex(8)}"
            try:
                self._creates_atomically = self._refuses_a_second(probe)
            finally:
                with suppress(StorageError, FileNotFoundError):
                    self._run("remove", probe, lambda: self._files.remove(probe))
        return self._creates_atomically

    def exists(self, key: str) -> bool:
        """Tell whether an object has this key."""
        return self._run("look up", key, lambda: self._files.exists(_checked(key)))

    def list(self, prefix: str = "", *, max_depth: int | None = None) -> Iterator[ObjectInfo]:
        """List the objects in a folder and below, in order of their keys' bytes.

        One page of an S3 store in memory at a time, elsewhere one folder. Unfinished writes are
        left out, and so is a folder that links back to one of its parents.

        Args:
            prefix: The folder, e.g. `masks/`; nothing need be there.
            max_depth: Components of the deepest keys below `prefix`; None for no limit.
        """
        start = prefix.rstrip("/")
        if isinstance(self._files, S3Files):
            yield from self._list_pages(self._files, start, max_depth)
            return
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
                yield ObjectInfo(key, child.size, child.etag, child.modified)
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

    def remove(self, key: str) -> None:
        """Remove an object; none need have this key."""
        with suppress(FileNotFoundError):
            self._run("remove", key, lambda: self._files.remove(_checked(key)))

    def sweep(self, prefix: str) -> None:
        """Remove what killed writers left in a folder an hour ago or earlier."""
        self._run("tidy up", prefix, lambda: self._files.sweep(prefix.rstrip("/")))

    def arrow(self) -> tuple[Any, str]:
        """Give pyarrow's view of the store, to read: a file system, and the root's path in it."""
        return open_arrow_view(self._files, self._retry)

    def _refuses_a_second(self, key: str) -> bool:
        try:
            for _ in range(2):
                self._write("create", key, lambda: self._files.create(key, b""))
        except CommitConflictError:
            # Nobody else knows the key: after a lost answer, the first write was refused.
            return True
        except (StorageAccessError, TransientStorageError):
            raise
        except StorageError:
            # Some stores do not know the condition, and say so.
            return False
        return False

    def _list_pages(
        self, files: S3Files, start: str, max_depth: int | None
    ) -> Iterator[ObjectInfo]:
        """List as the store does, which is in order; each page has retries of its own."""
        is_deep = max_depth != 1
        token: str | None = None
        while True:
            page = partial(files.page, start, token, is_deep=is_deep)
            children, token = self._run("list", start, page)
            for child in children:
                if max_depth is None or child.name.count("/") < max_depth:
                    key = f"{start}/{child.name}" if start else child.name
                    yield ObjectInfo(key, child.size, child.etag, child.modified)
            if token is None:
                return

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
    files = _open_files(uri)
    verb = "read the file" if is_local(uri) else "read the object"
    return retry_transient(retry, verb, lambda: files.read(""))


def find_kind(uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY) -> str | None:
    """Tell what an address is: `"file"`, `"folder"` or None where there is nothing.

    Raises:
        StorageError: If the store refuses to tell.
        ConfigError: If the scheme is unknown or its package is not installed.
    """
    files = _open_files(uri)
    return retry_transient(retry, f"look up {redact(uri)}", lambda: files.kind(""))


def _open_files(uri: str) -> _Files:
    if is_local(uri):
        return LocalFiles(local_path(uri))
    return S3Files(uri) if scheme_of(uri) in S3_SCHEMES else RemoteFiles(uri)


def _beside(key: str) -> str:
    """Name the folder called like a key without its ending, with the slash.

    What a killed probe or claim leaves in `_amg/plan/` lies where the parts of the plan do, and is
    not taken for somebody else's.
    """
    return f"{key.rpartition('.')[0] or key}/"


def _checked(key: str) -> str:
    if not key or key.startswith("/") or ".." in key.split("/"):
        raise StorageError(f"A key must be a relative path without '..'. Received: {key!r}")
    return key
