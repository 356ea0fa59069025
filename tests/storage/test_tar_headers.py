from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.tar_headers import BLOCK_BYTES, TarEntry, parse_header, read_entries
from tests.storage.tars import make_tar, special

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
END = bytes(2 * BLOCK_BYTES)


class Bytes:
    """A file in memory that notes what was read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return len(self.data)

    def read_range(self, start: int, stop: int) -> bytes:
        self.reads.append((start, stop))
        return self.data[start:stop]

    @property
    def num_read(self) -> int:
        return sum(stop - start for start, stop in self.reads)


def entries(data: bytes) -> list[TarEntry]:
    return list(read_entries(Bytes(data)))


def contents(data: bytes) -> dict[str, bytes]:
    return {
        entry.name: data[entry.offset : entry.offset + entry.size]
        for entry in entries(data)
        if entry.is_file
    }


def header(name: bytes = b"a.jpg", size: int = 0, kind: bytes = b"0") -> bytearray:
    block = bytearray(BLOCK_BYTES)
    block[: len(name)] = name
    block[124:136] = b"%011o\0" % size
    block[156:157] = kind
    return seal(block)


def seal(block: bytearray) -> bytearray:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


# What other writers write


@pytest.mark.parametrize("kind", list(FORMATS))
@pytest.mark.parametrize(
    "name",
    ["a.jpg", "folder/b.png", "n" * 90 + ".jpg", "d" * 120 + "/" + "n" * 90 + ".jpg"],
    ids=["short", "folder", "full field", "prefix"],
)
def test_names_of_every_format(kind: str, name: str) -> None:
    data = make_tar({name: b"x" * 700, "z": b""}, kind=FORMATS[kind])
    assert contents(data) == {name: b"x" * 700, "z": b""}


@pytest.mark.parametrize("kind", ["gnu", "pax"])
@pytest.mark.parametrize("name", ["n" * 300 + ".jpg", "é" * 200 + "/ü.jpg", "照片.jpg"])
def test_long_and_foreign_names(kind: str, name: str) -> None:
    data = make_tar([(name, b"1"), ("short.jpg", b"22")], kind=FORMATS[kind])
    assert contents(data) == {name: b"1", "short.jpg": b"22"}


@given(
    files=st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
        .map(lambda name: name.strip("/"))
        .filter(bool),
        st.binary(max_size=1500),
        max_size=6,
    ),
    kind=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_reads_what_the_standard_library_writes(files: dict[str, bytes], kind: int) -> None:
    assert contents(make_tar(files, kind=kind)) == files


def test_large_numbers_are_binary() -> None:
    block = header()
    block[124:136] = b"\x80" + (9 << 30).to_bytes(11, "big")
    parsed = parse_header(bytes(seal(block)))
    assert parsed is not None
    assert parsed.size == 9 << 30


def test_size_of_pax_wins() -> None:
    attributes = b"12 size=600\n"
    data = bytes(header(b"x", len(attributes), b"x")) + attributes.ljust(BLOCK_BYTES, b"\0")
    data += bytes(header(size=0)) + b"i" * 600 + bytes(424) + END
    (entry,) = entries(data)
    assert (entry.name, entry.size) == ("a.jpg", 600)


def test_kinds_of_members() -> None:
    data = make_tar(
        [
            special("folder", tarfile.DIRTYPE),
            special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            special("hard.jpg", tarfile.LNKTYPE, "a.jpg"),
            special("pipe.jpg", tarfile.FIFOTYPE),
            special("disk.jpg", tarfile.BLKTYPE),
            ("a.jpg", b"1"),
        ]
    )
    assert [entry.name for entry in entries(data) if entry.is_file] == ["a.jpg"]
    assert len(entries(data)) == 6


def test_sparse_members_are_told_and_skipped() -> None:
    block = header(b"holes.jpg", size=512, kind=b"S")
    block[482] = 1
    data = bytes(seal(block)) + bytes(BLOCK_BYTES) + b"d" * 512 + bytes(header()) + END
    sparse, plain = entries(data)
    assert (sparse.is_sparse, sparse.offset) == (True, 1024)
    assert (plain.is_sparse, plain.name) == (False, "a.jpg")


def test_folder_of_old_archives() -> None:
    (entry,) = entries(bytes(header(b"folder/", kind=b"\0")) + END)
    assert not entry.is_file


def test_archives_behind_one_another_are_one() -> None:
    data = make_tar({"a.jpg": b"1"}) + make_tar({"b.jpg": b"2"})
    assert contents(data) == {"a.jpg": b"1", "b.jpg": b"2"}


def test_what_follows_the_end_is_nobodys() -> None:
    assert list(contents(make_tar({"a.jpg": b"1"}) + b"signature" * 100)) == ["a.jpg"]


# What is damaged


def swap(position: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:position] + value + data[position + len(value) :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda data: b"", "byte 0, the end", id="empty"),
        pytest.param(lambda data: data[:300], "byte 0, no header", id="half a header"),
        pytest.param(lambda data: data[:1000], "a.jpg', whose bytes end after", id="half a file"),
        pytest.param(lambda data: data[:1536], "byte 1536, the end", id="between two members"),
        pytest.param(lambda data: data[:3072], "byte 3072, the end", id="no end"),
        pytest.param(swap(1536, b"B"), "byte 1536, no header", id="checksum"),
        pytest.param(swap(0, b"<html>"), "byte 0, no header", id="no tar at all"),
    ],
)
def test_damage_is_told_with_its_place(damage: Callable[[bytes], bytes], message: str) -> None:
    whole = make_tar({"a.jpg": b"1" * 600, "b.jpg": b"2" * 600}, kind=tarfile.USTAR_FORMAT)
    with pytest.raises(ConfigError, match=message):
        entries(damage(whole))


@given(data=st.data())
def test_a_cut_is_never_taken_for_the_end(data: st.DataObject) -> None:
    whole = make_tar({"a.jpg": b"1" * 600, "n" * 200 + ".jpg": b"2" * 600})
    end = len(whole.rstrip(b"\0")) + BLOCK_BYTES
    cut = data.draw(st.integers(0, end // BLOCK_BYTES * BLOCK_BYTES - 1))
    with pytest.raises(ConfigError):
        entries(whole[:cut])


@given(data=st.binary(max_size=3000), kind=st.sampled_from(b"0xgLKS\x00"))
def test_hostile_bytes_end(data: bytes, kind: int) -> None:
    archive = bytes(header(size=len(data), kind=bytes([kind]))) + data
    with suppress(ConfigError):
        entries(archive)


@pytest.mark.parametrize("kind", [b"L", b"x", b"g"])
def test_long_extensions_are_not_read_into_memory(kind: bytes) -> None:
    file = Bytes(bytes(header(size=1 << 33, kind=kind)) + END)
    with pytest.raises(ConfigError, match="8589934592 bytes"):
        list(read_entries(file))
    assert file.num_read <= len(file.data)


@pytest.mark.parametrize("size", [b"-1", b"1e9", "٣".encode(), b""])
def test_sizes_of_pax_are_numbers(size: bytes) -> None:
    record = b" size=" + size + b"\n"
    record = b"%d" % (len(record) + 2 if len(record) + 1 > 9 else len(record) + 1) + record
    data = bytes(header(b"x", len(record), b"x")) + record.ljust(BLOCK_BYTES, b"\0")
    with pytest.raises(ConfigError, match="the size"):
        entries(data + bytes(header()) + END)


# How much is read


def test_bytes_of_large_members_are_not_read() -> None:
    file = Bytes(make_tar({f"{i}.jpg": bytes([i]) * 2_000_000 for i in range(5)}))
    assert len(list(read_entries(file))) == 5
    assert file.num_read < 400_000


def test_one_request_finds_many_small_members() -> None:
    file = Bytes(make_tar({f"{i}.jpg": bytes([i % 256]) * 3000 for i in range(500)}))
    assert len(list(read_entries(file))) == 500
    assert len(file.reads) <= 12


def test_agrees_with_the_standard_library_about_places() -> None:
    data = make_tar({"é" * 80 + ".jpg": b"abc", "b.jpg": b"d" * 1000})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(member.name, member.offset_data, member.size) for member in tar]
    assert [(entry.name, entry.offset, entry.size) for entry in entries(data)] == expected
