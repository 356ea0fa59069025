from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.storage import ranged_file
from amg_pipeline.storage.parquet_images import RowAddress, index_parquet, read_columns

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
    "uri",
    [
        "/in/a.parquet",
        "a.parquet#row=3",
        "a.parquet#column=&row=3",
        "a#column=b&row=-3",
        "a.jpg#column=b&row=3",
    ],
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
