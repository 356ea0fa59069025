from __future__ import annotations

import io
import os
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from amg_pipeline.errors import StorageError
from amg_pipeline.storage import ranged_file
from amg_pipeline.storage.ranged_file import RangedFile
from tests.storage.doubles import EAGER

DATA = bytes(range(100))


@pytest.fixture(params=["path", "file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        uri = f"memory://{uuid4().hex}/a::b"
        fsspec.filesystem("memory").pipe_file(f"/{uri.removeprefix('memory://')}", DATA)
        return uri
    (tmp_path / "a#b").write_bytes(DATA)
    return f"{'file://' if request.param == 'file' else ''}{tmp_path}/a#b"


def test_ranges(uri: str) -> None:
    file = RangedFile(uri)
    assert file.size == 100
    assert file.read_range(10, 20) == DATA[10:20]
    assert file.read_range(95, 120) == DATA[95:]


def test_reads_like_a_file(uri: str) -> None:
    file, expected = RangedFile(uri), io.BytesIO(DATA)
    assert file.seekable()
    assert file.readable()
    for offset, whence, count in [(5, 0, 10), (3, 1, 4), (-7, 2, 20), (0, 0, -1), (200, 0, 5)]:
        assert file.seek(offset, whence) == expected.seek(offset, whence)
        assert file.read(count) == expected.read(count)
        assert file.tell() == expected.tell()


def test_nothing_there(uri: str) -> None:
    with pytest.raises(FileNotFoundError):
        _ = RangedFile(uri + "x", retry=EAGER).size
    with pytest.raises(FileNotFoundError):
        RangedFile(uri + "x", retry=EAGER).read_range(0, 1)


def test_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="Read the file failed"):
        RangedFile(str(tmp_path / "pipe"), retry=EAGER).read_range(0, 1)


def test_server_that_gives_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranged_file, "_read_local", lambda path, start, stop: DATA)
    (tmp_path / "a").write_bytes(DATA)
    with pytest.raises(StorageError, match="Received: all of it"):
        RangedFile(str(tmp_path / "a")).read_range(0, 5)
