"""A place that derived files are written to: many small ones at once, large ones piece by piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import BinaryIO, Self

from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.object_store import ObjectStore, find_kind
from amg_pipeline.storage.uris import absolute_uri, redact, split_parent

#: Writes wait for the disk or the store, not for this machine.
_THREADS = 16
#: Small files that may wait for a thread; bounds memory.
_WAITING = 64


class Destination:
    """Objects below one address; a context manager that waits for all of them at its end.

    Every object appears whole or not at all. One that is streamed appears after all that were put
    before it, so that an index never names what is not there.

    Args:
        store: Where they go.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()

    @classmethod
    def open_folder(cls, uri: str, *, overwrite: bool = False) -> Destination:
        """Open a folder or prefix.

        Args:
            uri: A local path, or any URI that fsspec knows; nothing needs to be there.
            overwrite: Whether files may lie there; those of the same names are replaced.

        Raises:
            ConfigError: If there is something, and not `overwrite`; or the scheme is unknown.
        """
        uri = absolute_uri(uri)
        if find_kind(uri) == "file":
            raise ConfigError(f"DEST must be a folder. Received: a file, {redact(uri)}")
        store = ObjectStore.open(uri)
        if not overwrite and (found := next(store.list(), None)) is not None:
            raise ConfigError(
                f"DEST must be empty. Received: {redact(uri)}, which has {found.key!r}. Choose "
                "another place, or pass --overwrite to replace what has the same name"
            )
        return cls(store)

    @classmethod
    def open_file(cls, uri: str, *, overwrite: bool = False) -> tuple[Destination, str]:
        """Open the folder of a single file.

        Returns:
            The folder, and the file's key in it.

        Raises:
            ConfigError: If the file exists, and not `overwrite`; or the scheme is unknown.
        """
        uri = absolute_uri(uri)
        kind = find_kind(uri)
        if kind == "folder" or (kind == "file" and not overwrite):
            repair = "" if kind == "folder" else ", or pass --overwrite to replace it"
            raise ConfigError(
                f"DEST must not exist. Received: {redact(uri)}, a {kind}. Choose another{repair}"
            )
        folder, name = split_parent(uri)
        return cls(ObjectStore.open(folder)), name

    @property
    def uri(self) -> str:
        """The address that keys are relative to."""
        return self._store.uri

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def put(self, key: str, data: bytes) -> None:
        """Write a small object, now or soon.

        Raises:
            StorageError: If an earlier one could not be written.
        """
        while len(self._waiting) >= _WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._store.put, key, data))

    def flush(self) -> None:
        """Wait until all that was put is there.

        Raises:
            StorageError: If something could not be written.
        """
        while self._waiting:
            self._waiting.popleft().result()

    @contextmanager
    def stream(self, key: str) -> Iterator[BinaryIO]:
        """Write an object piece by piece; it is there when the block ends without an error.

        Raises:
            StorageError: If it, or something before it, could not be written.
        """
        with self._store.stream(key) as file:
            yield file
            self.flush()
