from __future__ import annotations

import tarfile
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from amg_pipeline.errors import ConfigError, ImageFetchError
from amg_pipeline.storage.listing import IMAGE_EXTENSIONS
from amg_pipeline.storage.tar_members import (
    TarAddress,
    TarMember,
    is_compressed_tar_name,
    is_tar_name,
    list_members,
    read_member,
)
from tests.storage.doubles import EAGER
from tests.storage.tars import make_tar, special


def members(path: Path, data: bytes) -> list[TarMember]:
    path.write_bytes(data)
    return list(list_members(str(path), extensions=IMAGE_EXTENSIONS))


def read(path: Path, member: TarMember, tag: str | None = None) -> bytes:
    address = TarAddress(str(path), member.offset, member.size)
    return read_member(address, tag, retry=EAGER)


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        TarAddress("/in/a b.tar", 512, 0),
        TarAddress("s3://bucket/a#b.TAR", 1536, 20480),
        TarAddress("https://host/a.tar?token=1", 1, 2),
        TarAddress("/in/a.tar#offset=1&size=2.tar", 3, 4),
    ],
)
def test_addresses_survive_writing(address: TarAddress) -> None:
    assert TarAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "uri",
    [
        "/in/a.jpg",
        "/in/a.tar",
        "/in/a.jpg#offset=1&size=2",
        "/in/a.tar#offset=1",
        "/in/a.tar#offset=-1&size=2",
        "/in/a.tar#offset=1&size=2.jpg",
        ".tar#offset=1&size=2",
        f"/in/a.tar#offset={'9' * 40}&size=2",
        "/in/a.tar#offset=٣&size=2",
    ],
)
def test_other_addresses(uri: str) -> None:
    assert TarAddress.parse(uri) is None


@pytest.mark.parametrize("name", ["a.tar.gz", "A.TGZ", "b.tar.zst", "c.tar.bz2", "d.txz"])
def test_compressed_names(name: str) -> None:
    assert is_compressed_tar_name(name)
    assert not is_tar_name(name)


# Listing and reading


def test_images_and_nothing_else(tmp_path: Path) -> None:
    data = make_tar(
        [
            special("./", tarfile.DIRTYPE),
            ("./0/a.JPG", b"jpeg"),
            ("./0/a.json", b"{}"),
            ("./0/a.cls", b"7"),
            special("evil.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            special("../dev.png", tarfile.CHRTYPE),
            ("b//c.png", b""),
        ]
    )
    found = members(tmp_path / "a.tar", data)
    assert [(member.name, member.size) for member in found] == [("0/a.JPG", 4), ("b/c.png", 0)]
    assert [read(tmp_path / "a.tar", member, member.tag) for member in found] == [b"jpeg", b""]


@pytest.mark.parametrize(
    "name",
    ["/a.jpg", "../a.jpg", "a/../../b.jpg", "a\\b.jpg", "..//a.jpg"],
)
def test_hostile_names_are_refused(tmp_path: Path, name: str) -> None:
    data = make_tar([("good.jpg", b"1"), (name, b"2")])
    with pytest.raises(ConfigError, match="relative path") as caught:
        members(tmp_path / "a.tar", data)
    assert repr(name) in str(caught.value)
    assert "a.tar" in str(caught.value)


def test_zero_bytes_in_names_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x.jpg")
    info.pax_headers = {"path": "a\0b.jpg"}
    with pytest.raises(ConfigError, match="zero bytes"):
        members(tmp_path / "a.tar", make_tar([info]))


def test_names_that_only_look_hostile(tmp_path: Path) -> None:
    names = ["..a.jpg", "a..jpg", ".../b.jpg", "a:b.jpg", "x#offset=1&size=2.jpg"]
    found = members(tmp_path / "a.tar", make_tar(dict.fromkeys(names, b"1")))
    assert [member.name for member in found] == names


def test_sparse_images_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.bmp")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    with pytest.raises(ConfigError, match="sparse"):
        members(tmp_path / "a.tar", make_tar([info]))


def test_damage_is_told_with_the_tar(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cut\.tar.*must be whole"):
        members(tmp_path / "cut.tar", make_tar({"a.jpg": b"1" * 5000})[:4000])


def test_remote_tars(tmp_path: Path) -> None:
    data = make_tar({"a.jpg": b"1" * 5000, "b.jpg": b"2"})
    uri = f"memory://{uuid4().hex}/x.tar"
    fsspec.filesystem("memory").pipe_file(f"/{uri.removeprefix('memory://')}", data)
    found = list(list_members(uri, extensions=IMAGE_EXTENSIONS))
    for member, expected in zip(found, [b"1" * 5000, b"2"], strict=True):
        address = TarAddress(uri, member.offset, member.size)
        assert read_member(address, member.tag, retry=EAGER) == expected


# A tar that is another one when its images are read


@pytest.mark.parametrize(
    ("now", "is_told_without_tag"),
    [
        pytest.param({"a.jpg": b"1" * 600, "z.jpg": b"2" * 600}, False, id="another name"),
        pytest.param({"a.jpg": b"1" * 600, "b.jpg": b"2" * 601}, False, id="another size"),
        pytest.param({"b.jpg": b"2" * 600, "a.jpg": b"1" * 600}, False, id="another order"),
        pytest.param({"a.jpg": b"1" * 3000, "b.jpg": b"2" * 600}, True, id="moved"),
        pytest.param({"a.jpg": b"1"}, True, id="cut"),
        pytest.param({}, True, id="empty"),
    ],
)
def test_changed_tars_are_told(
    tmp_path: Path, now: dict[str, bytes], is_told_without_tag: bool
) -> None:
    path = tmp_path / "a.tar"
    _, member = members(path, make_tar({"a.jpg": b"1" * 600, "b.jpg": b"2" * 600}))
    path.write_bytes(make_tar(now, kind=tarfile.USTAR_FORMAT)[:9000])
    with pytest.raises(ImageFetchError, match="changed"):
        read(path, member, member.tag)
    if is_told_without_tag:
        with pytest.raises(ImageFetchError, match="changed"):
            read(path, member)


def test_vanished_tar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    (member,) = members(path, make_tar({"a.jpg": b"1"}))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read(path, member, member.tag)


def test_address_before_the_first_header(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(make_tar({"a.jpg": b"1"}))
    with pytest.raises(ImageFetchError, match="changed"):
        read_member(TarAddress(str(tmp_path / "a.tar"), 3, 5), None, retry=EAGER)
