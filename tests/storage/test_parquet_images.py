from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg_pipeline.errors import (
    ConfigError,
    ImageDecodeError,
    ImageFetchError,
    TransientStorageError,
)
from amg_pipeline.storage import parquet_images, ranged_file
from amg_pipeline.storage.parquet_images import RowAddress, index_parquet, read_columns, read_row
from tests.storage.doubles import EAGER

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def images(count: int) -> list[bytes]:
    return [b"%d:" % number + bytes([number % 256]) * 2000 for number in range(count)]


def hugging_face(values: list[bytes | None]) -> pa.Table:
    """A table as `datasets` writes it."""
    structs = [{"bytes": value, "path": f"{i}.jpg"} for i, value in enumerate(values)]
    return pa.table({"image": pa.array(structs, STRUCT), "label": list(range(len(values)))})


def write(path: Path, table: pa.Table, **options: Any) -> str:
    pq.write_table(table, path, **{"row_group_size": 100, **options})
    return str(path)


def read_all(uri: str, rows: Any, *, column: str = "image", tag: str | None = None) -> list[bytes]:
    return [read_row(RowAddress(uri, column, row), tag, retry=EAGER) for row in rows]


@pytest.fixture(autouse=True)
def _forget_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_images, "_FILES", parquet_images._ImageFiles())


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        RowAddress("/in/a.parquet", "image", 0),
        RowAddress("s3://b/a#b.parquet", "my image/&row=3#", 17),
    ],
)
def test_addresses_survive_writing(address: RowAddress) -> None:
    assert RowAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "uri", ["/in/a.parquet", "a.parquet#row=3", "a#column=&row=3", "a#column=b&row=-3", "a#b#3"]
)
def test_other_addresses(uri: str) -> None:
    assert RowAddress.parse(uri) is None


# Which column


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param({"image": STRUCT, "label": pa.int64()}, "image", id="struct"),
        pytest.param({"photo": STRUCT}, "photo", id="struct of any name"),
        pytest.param({"image": STRUCT, "mask": STRUCT}, "image", id="struct called image"),
        pytest.param({"bytes": pa.binary()}, "bytes", id="bytes"),
        pytest.param({"jpg": pa.large_binary(), "json": pa.binary()}, "jpg", id="large"),
        pytest.param({"bytes": pa.binary(), "image": pa.binary()}, "image", id="likeliest"),
        pytest.param({"bytes": pa.binary(), "photo": STRUCT}, "photo", id="struct first"),
        pytest.param({"image": pa.string()}, None, id="text"),
        pytest.param({"embedding": pa.binary()}, None, id="other bytes"),
        pytest.param({"image": pa.struct([("path", pa.string())])}, None, id="without bytes"),
    ],
)
def test_column_is_found(
    tmp_path: Path, columns: dict[str, pa.DataType], expected: str | None
) -> None:
    uri = write(tmp_path / "a.parquet", pa.schema(list(columns.items())).empty_table())
    index = index_parquet(uri, column=None)
    assert (index and index.column) == expected
    assert read_columns(uri) == list(columns)


def test_features_tell_images_from_sounds(tmp_path: Path) -> None:
    features = {"sound": {"_type": "Audio"}, "picture": {"_type": "Image"}, "n": {"_type": "Value"}}
    schema = pa.schema([("sound", STRUCT), ("picture", STRUCT), ("n", pa.int64())])
    document = json.dumps({"info": {"features": features}}).encode()
    table = schema.with_metadata({b"huggingface": document}).empty_table()
    index = index_parquet(write(tmp_path / "a.parquet", table), column=None)
    assert index is not None
    assert index.column == "picture"


@pytest.mark.parametrize("metadata", [b"no json", b"[]", b'{"info": {"features": 3}}'])
def test_malformed_features_are_no_features(tmp_path: Path, metadata: bytes) -> None:
    schema = pa.schema([("picture", STRUCT)], metadata={b"huggingface": metadata})
    index = index_parquet(write(tmp_path / "a.parquet", schema.empty_table()), column=None)
    assert index is not None


def test_several_columns_need_a_choice(tmp_path: Path) -> None:
    schema = pa.schema([("left", STRUCT), ("right", STRUCT), ("depth", pa.binary())])
    uri = write(tmp_path / "a.parquet", schema.empty_table())
    with pytest.raises(ConfigError, match=r"'left', 'right'. Choose with --set images.column"):
        index_parquet(uri, column=None)
    for column in ("right", "depth"):
        index = index_parquet(uri, column=column)
        assert index is not None
        assert index.column == column
    assert index_parquet(uri, column="middle") is None


def test_chosen_column_must_hold_bytes(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", hugging_face([b"1"]))
    with pytest.raises(ConfigError, match="'label', which is none"):
        index_parquet(uri, column="label")


# The footer


def test_index_reads_the_footer_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = write(tmp_path / "a.parquet", hugging_face(images(2000)), compression="none")
    read: list[int] = []
    original = ranged_file.RangedFile.read_range

    def note(self: Any, start: int, stop: int) -> bytes:
        read.append(stop - start)
        return original(self, start, stop)

    monkeypatch.setattr(ranged_file.RangedFile, "read_range", note)
    index = index_parquet(uri, column=None)
    assert index is not None
    assert index.num_rows == 2000
    assert 4_000_000 < index.num_bytes < 4_200_000
    assert sum(read) < 200_000


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"x" * 1000])
def test_damaged_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(ConfigError, match=r"a\.parquet.*exclude"):
        index_parquet(str(tmp_path / "a.parquet"), column=None)


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
    parquet_images._FILES = parquet_images._ImageFiles()
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
    parquet_images._FILES = parquet_images._ImageFiles()
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

    parquet_images._FILES = parquet_images._ImageFiles()
    monkeypatch.setattr(ranged_file, "_read_local", fail)
    with pytest.raises(TransientStorageError):
        read_all(uri, [40])
    is_down[0] = False
    assert read_all(uri, [20]) == expected[20:21]
    pages = {"data_page_size": 4096, "write_batch_size": 2, "use_dictionary": False}
    write(Path(uri), hugging_face(expected), compression="none", **pages)
    monkeypatch.setattr(parquet_images, "_BUFFER_BYTES", 4096)
    parquet_images._FILES = parquet_images._ImageFiles()
    assert read_all(uri, [0]) == expected[:1]
    is_down[0] = True
    with pytest.raises(TransientStorageError):
        read_all(uri, [59])
    is_down[0] = False
    assert read_all(uri, range(60)) == expected
