"""Images inside tar archives, WebDataset's and others: found by their headers, read by range.

Nothing is ever unpacked to a file. An archive is hostile input: what it says of itself is bounded
before it is believed, and its members' names are only ever names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from amg_pipeline.errors import ConfigError, ImageFetchError
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.ranged_file import RangedFile
from amg_pipeline.storage.tar_headers import BLOCK_BYTES, TarEntry, parse_header, read_entries
from amg_pipeline.storage.uris import redact

TAR_EXTENSION = ".tar"
COMPRESSED_EXTENSIONS = (
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".tar.zst",
    ".tar.lz4",
    ".tar.z",
)

_ADDRESS = re.compile(
    r"(?P<uri>.+\.tar(?:\?[^#]*)?)#offset=(?P<offset>[0-9]{1,18})&size=(?P<size>[0-9]{1,18})",
    re.IGNORECASE | re.DOTALL,
)
_DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class TarMember:
    """An image in a tar.

    Attributes:
        name: Its path in the tar, without `.` components.
        offset: Where its bytes start in the tar.
        size: How many they are.
        tag: 8 hex digits of its header, by which it is known again.
    """

    name: str
    offset: int
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class TarAddress:
    """Where in which tar the bytes of an image lie: `x.tar#offset=1536&size=20480`."""

    uri: str
    offset: int
    size: int

    def __str__(self) -> str:
        """Write the address."""
        return f"{self.uri}#offset={self.offset}&size={self.size}"

    @classmethod
    def parse(cls, uri: str) -> TarAddress | None:
        """Read an address; None for one of anything else."""
        match = _ADDRESS.fullmatch(uri)
        return cls(match["uri"], int(match["offset"]), int(match["size"])) if match else None


def is_tar_name(name: str) -> bool:
    """Tell whether a file name ends as an uncompressed tar's does."""
    return name.lower().endswith(TAR_EXTENSION)


def is_compressed_tar_name(name: str) -> bool:
    """Tell whether a file name ends as a compressed tar's does."""
    return name.lower().endswith(COMPRESSED_EXTENSIONS)


def list_members(
    uri: str, *, extensions: tuple[str, ...], retry: RetryPolicy = _DEFAULT_RETRY
) -> Iterator[TarMember]:
    """List the images of a tar by reading its headers.

    Folders, links, devices, and files whose names do not end as an image's are left out.

    Args:
        uri: The tar.
        extensions: How names of images end, in lower case.
        retry: Bounds of the retries of transient faults.

    Raises:
        ConfigError: If the tar is damaged or cut short, or an image's name is absolute, has `..`,
            a backslash or a zero byte.
        StorageError: If it cannot be read.
    """
    file = RangedFile(uri, retry=retry)
    try:
        for entry in read_entries(file):
            if entry.is_file and entry.name.lower().endswith(extensions):
                yield _member(entry)
    except ConfigError as error:
        raise ConfigError(f"The tar {redact(uri)}: {error}") from error


def read_member(address: TarAddress, tag: str | None, *, retry: RetryPolicy) -> bytes:
    """Read an image from its tar by one request.

    Args:
        address: Where it lies.
        tag: What `list_members` said of it; None if that is not known.
        retry: Bounds of the retries of transient faults.

    Raises:
        FileNotFoundError: If the tar is gone.
        ImageFetchError: If something else lies there by now.
        TransientStorageError: If the store kept failing.
        StorageError: If it cannot be read.
    """
    start = max(address.offset - BLOCK_BYTES, 0)
    data = RangedFile(address.uri, retry=retry).read_range(start, address.offset + address.size)
    block, body = data[:BLOCK_BYTES], data[BLOCK_BYTES:]
    header = parse_header(block)
    if header is None or len(body) != address.size or (tag is not None and _tag(block) != tag):
        raise ImageFetchError(
            "A tar must hold the image where the plan says. Received: a tar that has changed since "
            "the plan was made. Put the first one back, or plan anew with --force"
        )
    return body


def _member(entry: TarEntry) -> TarMember:
    if entry.is_sparse:
        raise ConfigError(
            f"An image must be stored in one piece. Received: {entry.name[:200]!r}, stored as a "
            "sparse file. Make the tar without --sparse"
        )
    name = entry.name
    components = name.split("/")
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in components:
        raise ConfigError(
            "An image's name must be a relative path without '..', backslashes or zero bytes. "
            f"Received: {name[:200]!r}. Make the tar anew, from within the folder of the images"
        )
    path = "/".join(component for component in components if component not in ("", "."))
    return TarMember(path, entry.offset, entry.size, _tag(entry.block))


def _tag(block: bytes) -> str:
    return hashlib.blake2b(block, digest_size=4).hexdigest()
