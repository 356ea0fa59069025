"""The headers of a tar archive in their order: ustar, GNU and pax.

The standard library's reader is not used: it takes the length of a name from the archive and reads
that much into memory, keeps an object for every member, and takes an archive that was cut short
between two members for a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from amg_pipeline.errors import ConfigError

BLOCK_BYTES = 512

#: A longer name or record of extended attributes is refused.
_MAX_EXTENSION_BYTES = 1 << 20
#: What is read at once: little where members are large, so that their bytes are not read; much
#: where they are small, so that one request finds several headers.
_SMALL_WINDOW_BYTES = 8 << 10
_LARGE_WINDOW_BYTES = 256 << 10
_LARGE_MEMBER_BYTES = 64 << 10
_ZEROS = bytes(BLOCK_BYTES)
_FILE_KINDS = b"0\x007"
#: Kinds without bytes of their own, whatever their size field says.
_BARE_KINDS = b"123456"
_GNU_NAME, _GNU_LINK, _GNU_SPARSE = b"L", b"K", b"S"
_PAX_KINDS, _PAX_GLOBAL = b"xX", b"g"


class _File(Protocol):
    @property
    def size(self) -> int: ...
    def read_range(self, start: int, stop: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class TarHeader:
    """One block of 512 bytes that announces what follows it.

    Attributes:
        name: As the block has it, which may be a shortened one.
        size: Bytes that follow.
        kind: One byte.
    """

    name: bytes
    size: int
    kind: bytes


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One member of an archive.

    Attributes:
        name: Its whole path; bytes that are no UTF-8 are surrogates.
        offset: Where its bytes start in the archive.
        size: How many they are.
        is_file: Whether it is a file with bytes of its own.
        is_sparse: Whether the bytes are not the file's, but those between its holes.
        block: Its header.
    """

    name: str
    offset: int
    size: int
    is_file: bool
    is_sparse: bool
    block: bytes


def parse_header(block: bytes) -> TarHeader | None:
    """Read a header; None if the block is none."""
    if len(block) != BLOCK_BYTES:
        return None
    checksum, size = _parse_number(block[148:156]), _parse_number(block[124:136])
    if checksum is None or size is None or not _is_sum(checksum, block):
        return None
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return TarHeader(name, size, block[156:157])


def _is_sum(checksum: int, block: bytes) -> bool:
    """Check a header's sum, in which its own field counts as blanks."""
    rest = block[:148] + block[156:]
    total = sum(rest) + 8 * ord(" ")
    # Some old archives sum signed bytes.
    return checksum == total or checksum == total - 256 * sum(byte > 127 for byte in rest)


def read_entries(file: _File) -> Iterator[TarEntry]:
    """List the members of an archive without reading their bytes.

    Archives that were put behind one another are read as one.

    Raises:
        ConfigError: If the archive is damaged or cut short.
        StorageError: If it cannot be read.
    """
    window = _Window(file)
    shared: Mapping[str, str] = {}
    own: dict[str, str] = {}
    position = zeros = 0
    while True:
        block = window.read(position, BLOCK_BYTES)
        header = parse_header(block)
        if block == _ZEROS:
            zeros += 1
            position += BLOCK_BYTES
            continue
        if header is None:
            # What follows the two blocks at the end is nobody's.
            if zeros >= 2 or (zeros and not block):
                return
            raise _damaged(position, "no header" if block else "the end of the file")
        zeros = 0
        start = position + BLOCK_BYTES
        kind = header.kind
        if kind in (_GNU_NAME, _GNU_LINK) or kind in _PAX_KINDS or kind == _PAX_GLOBAL:
            if kind != _GNU_LINK:
                payload = _read_extension(window, header, start)
                if kind == _PAX_GLOBAL:
                    shared = {**shared, **_parse_pax(payload, position)}
                elif kind == _GNU_NAME:
                    own["path"] = _to_text(payload.partition(b"\0")[0])
                else:
                    own |= _parse_pax(payload, position)
            position = start + _padded(header.size)
            continue
        attributes = {**shared, **own} if shared or own else {}
        own = {}
        if kind == _GNU_SPARSE:
            start = _skip_sparse_map(window, block, start)
        entry = _entry(header, block, attributes, start)
        if start + entry.size > file.size:
            raise _damaged(position, f"{entry.name[:200]!r}, whose bytes end after the file does")
        yield entry
        position = start + _padded(entry.size)


class _Window:
    """Reads ahead from where a header is: far if the last one was near."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._start = 0
        self._data = b""
        self._last = 0

    def read(self, start: int, count: int) -> bytes:
        distance, self._last = start - self._last, start
        if start + count > self._start + len(self._data):
            is_near = distance < _LARGE_MEMBER_BYTES
            window = _LARGE_WINDOW_BYTES if is_near else _SMALL_WINDOW_BYTES
            stop = min(start + max(count, window), self._file.size)
            self._start = start
            self._data = self._file.read_range(start, stop) if stop > start else b""
        return self._data[start - self._start : start - self._start + count]


def _entry(header: TarHeader, block: bytes, attributes: Mapping[str, str], start: int) -> TarEntry:
    size = header.size
    if "size" in attributes:
        if not attributes["size"].isascii() or not attributes["size"].isdigit():
            raise _damaged(start - BLOCK_BYTES, f"the size {attributes['size'][:50]!r}")
        size = int(attributes["size"][:20])
    name = attributes.get("path") or _to_text(header.name)
    is_sparse = header.kind == _GNU_SPARSE or any(
        key.startswith("GNU.sparse.") for key in attributes
    )
    is_file = header.kind in _FILE_KINDS or header.kind == _GNU_SPARSE
    return TarEntry(
        name=attributes.get("GNU.sparse.name", name),
        offset=start,
        size=0 if header.kind in _BARE_KINDS else size,
        # Archives of before 1988 mark folders by a slash alone.
        is_file=is_file and not name.endswith("/"),
        is_sparse=is_sparse,
        block=block,
    )


def _read_extension(window: _Window, header: TarHeader, start: int) -> bytes:
    if header.size > _MAX_EXTENSION_BYTES:
        raise _damaged(
            start - BLOCK_BYTES,
            f"a name or attributes of {header.size} bytes, more than {_MAX_EXTENSION_BYTES}",
        )
    payload = window.read(start, header.size)
    if len(payload) < header.size:
        raise _damaged(start, "the end of the file")
    return payload


def _parse_pax(payload: bytes, position: int) -> dict[str, str]:
    r"""Read records of the form `LENGTH key=value\n`."""
    found: dict[str, str] = {}
    rest = payload
    while rest.strip(b"\0"):
        digits, space, _ = rest.partition(b" ")
        if not space or not digits.isdigit() or not 5 <= int(digits[:9]) <= len(rest):
            raise _damaged(position, "malformed attributes")
        record, rest = rest[len(digits) + 1 : int(digits)], rest[int(digits) :]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise _damaged(position, "malformed attributes")
        found[_to_text(key)] = _to_text(value[:-1])
    return found


def _skip_sparse_map(window: _Window, block: bytes, start: int) -> int:
    """Skip the blocks of a sparse member's map, which lie before its bytes."""
    is_continued = block[482] != 0
    while is_continued:
        more = window.read(start, BLOCK_BYTES)
        if len(more) < BLOCK_BYTES:
            raise _damaged(start, "the end of the file")
        is_continued = more[504] != 0
        start += BLOCK_BYTES
    return start


def _parse_number(field: bytes) -> int | None:
    """Read an octal number, or a binary one that is marked by its highest bit."""
    if field[:1] >= b"\x80":
        number = int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
        # Marked as negative, or more than any file has.
        return number if number < 1 << 62 else None
    digits = field.partition(b"\0")[0].strip() or b"0"
    try:
        return int(digits, 8) if digits.isdigit() else None
    except ValueError:
        return None


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _to_text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _damaged(position: int, received: str) -> ConfigError:
    return ConfigError(
        "A tar must be whole, from its first header to the blocks of zeros at its end. "
        f"Received: at byte {position}, {received}. Copy it anew, or leave it out with --exclude"
    )
