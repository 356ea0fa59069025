"""The container of `torch.save`: a zip archive whose members are mapped, never extracted."""

from __future__ import annotations

import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from amg_pipeline.errors import WeightsError

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x1
_UNSAFE_NAME = re.compile(r"(^|/)\.\.?(/|$)|^/|\\|:|[\x00-\x1f]")

#: A state dict's pickle holds names and shapes, some 100 bytes a tensor.
_MAX_PICKLE_BYTES = 64 * 2**20
_MAX_MEMBERS = 100_000


@dataclass(frozen=True, slots=True)
class _Member:
    """Where the bytes of one archive member lie in the file."""

    start: int
    stop: int


class TorchZip:
    """Members of a torch archive by their name below the archive's root folder.

    Raises:
        WeightsError: On construction, if the file is no torch archive, is cut off, or has
            members that are compressed, encrypted, overlapping, doubled or unsafely named.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive, path.open("rb") as file:
                infos = archive.infolist()
                root = _root_folder(infos)
                self._members = _locate(infos, file, root, archive.start_dir)
        except (zipfile.BadZipFile, NotImplementedError, struct.error, UnicodeError) as error:
            raise WeightsError(
                "Expected a whole zip archive as torch.save writes it. "
                f"Received: a damaged or cut off archive ({error}). Fetch the file again"
            ) from None
        self._bytes: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def view(self, name: str) -> npt.NDArray[np.uint8]:
        """Return a member's bytes as a view of the mapped file."""
        member = self._members.get(name)
        if member is None:
            raise WeightsError(f"Expected the archive member {name!r}. Received: none of that name")
        return self._bytes[member.start : member.stop]

    def read_small(self, name: str) -> bytes:
        """Return a copy of a member's bytes; for the pickle and other small members."""
        view = self.view(name)
        if view.size > _MAX_PICKLE_BYTES:
            raise WeightsError(
                f"Expected at most {_MAX_PICKLE_BYTES} bytes in {name!r}. Received: {view.size}"
            )
        return view.tobytes()


def _root_folder(infos: list[zipfile.ZipInfo]) -> str:
    roots = [info.filename[: -len("data.pkl")] for info in infos if _is_pickle(info.filename)]
    if len(roots) != 1:
        raise WeightsError(
            "Expected a torch archive with one data.pkl. "
            f"Received: a zip archive with {len(roots)} of them"
        )
    return roots[0]


def _is_pickle(name: str) -> bool:
    return name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)


def _locate(
    infos: list[zipfile.ZipInfo], file: BinaryIO, root: str, end: int
) -> dict[str, _Member]:
    if len(infos) > _MAX_MEMBERS:
        raise WeightsError(f"Expected at most {_MAX_MEMBERS} members. Received: {len(infos)}")
    members: dict[str, _Member] = {}
    previous_stop = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        _check_member(info)
        start = _payload_start(info, file)
        stop = start + info.file_size
        if info.header_offset < previous_stop or stop > end:
            raise WeightsError(
                "Expected archive members that follow each other. "
                f"Received: {info.filename!r} overlaps its neighbour or the end of the file"
            )
        previous_stop = stop
        if not info.filename.startswith(root):
            continue
        name = info.filename[len(root) :]
        if name in members:
            raise WeightsError(f"Expected each member once. Received: {info.filename!r} twice")
        members[name] = _Member(start, stop)
    return members


def _check_member(info: zipfile.ZipInfo) -> None:
    if _UNSAFE_NAME.search(info.filename):
        raise WeightsError(
            f"Expected plain names in the archive. Received: {info.filename[:200]!r}"
        )
    stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
    if not stored or info.flag_bits & _ENCRYPTED:
        raise WeightsError(
            "Expected uncompressed archive members, as torch.save writes them. "
            f"Received: {info.filename!r} compressed or encrypted"
        )


def _payload_start(info: zipfile.ZipInfo, file: BinaryIO) -> int:
    file.seek(info.header_offset)
    fields = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    name_bytes, extra_bytes = fields[-2], fields[-1]
    name = file.read(name_bytes)
    if fields[0] != _LOCAL_MAGIC or name != info.orig_filename.encode("utf-8"):
        raise WeightsError(
            "Expected the archive's directory to agree with its members. "
            f"Received: another header at {info.filename!r}"
        )
    return info.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)
