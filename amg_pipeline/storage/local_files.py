"""Objects as files below one folder of the local file system.

A file appears under its name complete or not at all: it is written and flushed under a temporary
name in the same folder, and then renamed. Temporary names are never listed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from amg_pipeline.storage.uris import path_to_uri

_TEMPORARY_PREFIX = ".amg-"
_TEMPORARY_SUFFIX = ".tmp"
#: What file systems without hard links answer to one.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV})
#: What a link answers that can never be followed: a loop, a target too long or below a file.
_BROKEN_LINK = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR})
#: An unfinished write that is older belongs to nobody any more.
_ABANDONED_S = 3600

#: Calls a function, again where it fails for reasons that may pass.
RetriedCall = Callable[[Callable[[], Any]], Any]


@dataclass(frozen=True, slots=True)
class Child:
    """One entry of a folder.

    Attributes:
        name: Last component of its key.
        is_folder: Whether it has children itself.
        size: Bytes of an object where known.
        etag: The store's version tag where it has one.
        modified: When it was written, in seconds since 1970, where known.
        identity: Tells a local folder from all others, against loops of links.
    """

    name: str
    is_folder: bool
    size: int | None = None
    etag: str | None = None
    modified: float | None = field(default=None, compare=False)
    identity: tuple[int, int] | None = None


class LocalFiles:
    """The raw operations of an `ObjectStore` on local disk; they raise OSError.

    Attributes:
        root: Path of the folder that keys are relative to.
        creates_atomically: Of two that `create` one key, one fails.
    """

    creates_atomically: bool | None = True

    def __init__(self, root: str) -> None:
        self.root = root

    def read(self, key: str) -> bytes:
        """Read one file; pipes and devices are refused, they might never end."""
        path = self._path(key)
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return path.read_bytes()

    def put(self, key: str, data: bytes) -> None:
        """Write a file in one step, replacing one that exists."""
        path = self._path(key)
        with _temporary(path, data) as temporary:
            temporary.replace(path)
        _flush_folder(path.parent)

    def create(self, key: str, data: bytes) -> None:
        """Write a file in one step; FileExistsError if there is one."""
        path = self._path(key)
        with _temporary(path, data) as temporary:
            try:
                os.link(temporary, path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                _rename_if_new(temporary, path)
        _flush_folder(path.parent)

    @contextmanager
    def stream(self, key: str, _retry: RetriedCall) -> Iterator[BinaryIO]:
        """Write a file piece by piece; it gets its name when the block ends without an error."""
        path = self._path(key)
        with _new_temporary(path) as temporary:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        _flush_folder(path.parent)

    def exists(self, key: str) -> bool:
        """Tell whether a file has this key."""
        return self._path(key).is_file()

    def kind(self, key: str) -> str | None:
        """Tell whether a key is that of a `"file"`, a `"folder"` or of nothing."""
        path = self._path(key)
        if path.is_file():
            return "file"
        return "folder" if path.is_dir() else None

    def children(self, key: str) -> list[Child]:
        """List a folder, links followed; a broken link counts as a file of unknown size."""
        with os.scandir(self._path(key)) as entries:
            found = [_child(entry) for entry in entries if not is_temporary(entry.name)]
        return [child for child in found if child is not None]

    def move(self, source: str, destination: str) -> None:
        """Rename a file, replacing one that exists."""
        target = self._path(destination)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path(source).replace(target)

    def remove(self, key: str) -> None:
        """Remove a file."""
        self._path(key).unlink()

    def sweep(self, key: str) -> None:
        """Remove what killed writers left in a folder; others may be writing there now."""
        newest = time.time() - _ABANDONED_S
        with suppress(FileNotFoundError), os.scandir(self._path(key)) as entries:
            for entry in entries:
                if is_temporary(entry.name):
                    with suppress(FileNotFoundError):
                        if entry.stat().st_mtime < newest:
                            Path(entry.path).unlink()

    def uri(self, key: str) -> str:
        """Give the address of a key."""
        return path_to_uri(str(self._path(key)))

    def _path(self, key: str) -> Path:
        if "\0" in self.root + key:
            raise FileNotFoundError(errno.ENOENT, "no file name may contain a zero byte")
        return Path(self.root, key)


def is_temporary(name: str) -> bool:
    """Tell whether a file name is that of an unfinished write."""
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX)


@contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    with _new_temporary(path) as temporary:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary


@contextmanager
def _new_temporary(path: Path) -> Iterator[Path]:
    """Choose a name beside a path; what is left under it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not derived from the final name, which may have the longest length that is allowed.
    temporary = path.parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _rename_if_new(temporary: Path, path: Path) -> None:
    """Give a file its name if nothing has it; one writer in the folder at a time.

    Not an exclusive creation under the final name, where a kill would leave a part. The lock goes
    with whoever holds it.
    """
    with (path.parent / f"{_TEMPORARY_PREFIX}lock{_TEMPORARY_SUFFIX}").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        temporary.replace(path)


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _child(entry: os.DirEntry[str]) -> Child | None:
    try:
        if entry.is_dir():
            status = entry.stat()
            return Child(entry.name, is_folder=True, identity=(status.st_dev, status.st_ino))
        if entry.is_file():
            status = entry.stat()
            return Child(entry.name, is_folder=False, size=status.st_size, modified=status.st_mtime)
    except FileNotFoundError:
        # Removed since the folder was read; the rest of the folder is still there.
        pass
    except OSError as error:
        if error.errno not in _BROKEN_LINK or not entry.is_symlink():
            raise
    return Child(entry.name, is_folder=False) if entry.is_symlink() else None
