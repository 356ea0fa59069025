from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pytest

from amg_pipeline.errors import ImageDecodeError, ImageFetchError, TransientStorageError
from amg_pipeline.storage import parquet_images, parquet_rows, ranged_file
from amg_pipeline.storage.parquet_images import RowAddress, index_parquet
from amg_pipeline.storage.parquet_rows import read_row
from tests.storage.doubles import EAGER
from tests.storage.test_parquet_images import STRUCT, hugging_face, images, write


def read_all(uri: str, rows: Any, *, column: str = "image", tag: str | None = None) -> list[bytes]:
    return [read_row(RowAddress(uri, column, row), tag, retry=EAGER) for row in rows]


@pytest.fixture(autouse=True)
def _forget_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "_FILES", parquet_rows._ImageFiles())


# Rows


@pytest.mark.parametrize("rows", [range(250), range(249, -1, -1), [120, 5, 249, 120, 99, 100, 0]])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_rows_in_any_order(tmp_path: Path, rows: Any, place: str) -> None:
    expected = images(250)
    uri = write(tmp_path / "a.parquet", hugging_face(expected))
    if place == "memory":
        remote = f"memory://{uuid4().hex}/a.parquet"
        data = (tmp_path / "a.parquet").read_bytes()
        fsspec.filesystem("memory").pipe_file(f"/{remote.removeprefix('memory://')}", data)
        uri = remote
    assert read_all(uri, rows) == [expected[row] for row in rows]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_plain_columns(tmp_path: Path, kind: pa.DataType, compression: str) -> None:
    expected = images(120)
    table = pa.table({"jpg": pa.array(expected, kind)})
    uri = write(tmp_path / "a.parquet", table, compression=compression)
    assert read_all(uri, range(120), column="jpg") == expected


def test_threads_share_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = images(400)
    uri = write(tmp_path / "a.parquet", hugging_face(expected), compression="none")
    size = Path(uri).stat().st_size
    read, lock = [0], threading.Lock()
    original = ranged_file.RangedFile.read_range

    def note(self: Any, start: int, stop: int) -> bytes:
        with lock:
            read[0] += stop - start
        return original(self, start, stop)

    monkeypatch.setattr(ranged_file.RangedFile, "read_range", note)
    with ThreadPoolExecutor(4) as pool:
        found = [
            image
            for start in range(0, 400, 8)
            for (image,) in pool.map(lambda row: read_all(uri, [row]), range(start, start + 8))
        ]
    assert found == expected
    assert read[0] < 2 * size


@pytest.mark.parametrize("value", [{"bytes": None, "path": "/etc/passwd"}, None])
def test_rows_without_bytes(tmp_path: Path, value: Any) -> None:
    table = pa.table({"image": pa.array([{"bytes": b"1", "path": ""}, value], STRUCT)})
    uri = write(tmp_path / "a.parquet", table)
    assert read_all(uri, [0]) == [b"1"]
    with pytest.raises(ImageDecodeError, match="no bytes"):
        read_all(uri, [1])


# A file that is another one when its rows are read


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(hugging_face(images(11)), id="another row"),
        pytest.param(hugging_face([b"x" * 3000] * 10), id="other images"),
        pytest.param(pa.table({"image": ["text"] * 10}), id="another type"),
        pytest.param(pa.table({"label": list(range(10))}), id="no column"),
    ],
)
def test_changed_files_are_told(tmp_path: Path, table: pa.Table) -> None:
    uri = write(tmp_path / "a.parquet", hugging_face(images(10)))
    index = index_parquet(uri, column=None)
    assert index is not None
    assert len(read_all(uri, [3], tag=index.tag)) == 1
    write(tmp_path / "a.parquet", table)
    parquet_rows._FILES = parquet_rows._ImageFiles()
    with pytest.raises(ImageFetchError, match="changed"):
        read_all(uri, [3], tag=index.tag)


def test_row_beyond_the_end(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", hugging_face(images(3)))
    with pytest.raises(ImageFetchError, match="changed"):
        read_all(uri, [3])


def test_damaged_rows_are_told(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", hugging_face(images(100)), compression="zstd")
    data = bytearray(Path(uri).read_bytes())
    data[60:900] = b"\xff" * 840
    Path(uri).write_bytes(data)
    with pytest.raises(ImageFetchError, match="damaged"):
        read_all(uri, range(100))
    Path(uri).write_bytes(b"PAR1")
    parquet_rows._FILES = parquet_rows._ImageFiles()
    with pytest.raises(ImageFetchError, match="damaged"):
        read_all(uri, [0])


def test_vanished_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_all(str(tmp_path / "a.parquet"), [0])


def test_faults_of_the_store_pass_and_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = images(60)
    uri = write(tmp_path / "a.parquet", hugging_face(expected), compression="none")
    assert read_all(uri, [0]) == expected[:1]
    is_down = [True]
    original = ranged_file._read_local

    def fail(path: Path, start: int, stop: int) -> bytes:
        if is_down[0]:
            raise ConnectionResetError
        return original(path, start, stop)

    parquet_rows._FILES = parquet_rows._ImageFiles()
    monkeypatch.setattr(ranged_file, "_read_local", fail)
    with pytest.raises(TransientStorageError):
        read_all(uri, [40])
    is_down[0] = False
    assert read_all(uri, [20]) == expected[20:21]
    pages = {"data_page_size": 4096, "write_batch_size": 2, "use_dictionary": False}
    write(Path(uri), hugging_face(expected), compression="none", **pages)
    monkeypatch.setattr(parquet_images, "_BUFFER_BYTES", 4096)
    parquet_rows._FILES = parquet_rows._ImageFiles()
    assert read_all(uri, [0]) == expected[:1]
    is_down[0] = True
    with pytest.raises(TransientStorageError):
        read_all(uri, [59])
    is_down[0] = False
    assert read_all(uri, range(60)) == expected
