"""Tars as the standard library's writer makes them, for the tests of the project's own reader."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

Member = tuple[str, bytes] | tarfile.TarInfo


def make_tar(
    members: Mapping[str, bytes] | Iterable[Member], *, kind: int = tarfile.PAX_FORMAT
) -> bytes:
    """Write an archive of files by name, or of whatever a `TarInfo` says."""
    sink = io.BytesIO()
    listed: Iterable[Any] = members.items() if isinstance(members, Mapping) else members
    with tarfile.open(fileobj=sink, mode="w", format=kind) as tar:
        for member in listed:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return sink.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no file: a link, a device, a folder."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info
