from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.manifest import list_images
from amg_pipeline.storage.manifest_files import read_manifest
from tests.storage.inputs import ids


def write_manifest(path: Path, rows: list[Mapping[str, Any]]) -> Path:
    if path.suffix.lower() == ".csv":
        lines = [",".join(rows[0])]
        lines += [
            ",".join('"' + str(cell).replace('"', '""') + '"' for cell in row.values())
            for row in rows
        ]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


MANIFESTS = ["list.csv", "list.jsonl", "list.ndjson", "list.parquet", "LIST.CSV"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_with_ids(tmp_path: Path, name: str) -> None:
    source = write_manifest(
        tmp_path / name,
        [
            {"uri": "sub/x.jpg", "image_id": "two", "label": "1"},
            {"uri": "s3://bucket/y?.jpg", "image_id": "one", "label": "2"},
            {"uri": "/abs/z.jpg", "image_id": "2020-01-01T00:00:00", "label": "3"},
        ],
    )
    table = list_images(ImageSettings(input=str(source)))
    assert table["image_id"].to_pylist() == ["2020-01-01T00:00:00", "one", "two"]
    assert table["uri"].to_pylist() == ["/abs/z.jpg", "s3://bucket/y?.jpg", f"{tmp_path}/sub/x.jpg"]
    assert table["size_bytes"].null_count == 3


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_without_ids_uses_the_uri(tmp_path: Path, name: str) -> None:
    awkward = ["a, b.jpg", "new\nline.jpg", 'quo"te.jpg', "007"]
    source = write_manifest(tmp_path / name, [{"uri": uri} for uri in awkward])
    assert ids(source) == sorted(awkward)


def test_manifest_on_a_remote_store() -> None:
    root = f"memory://{uuid4().hex}"
    fsspec.filesystem("memory").pipe_file(f"{root}/lists/a.csv", b"uri\nx.jpg\n")
    table = list_images(ImageSettings(input=f"{root}/lists/a.csv"))
    assert table["uri"].to_pylist() == [f"{root}/lists/x.jpg"]


def test_manifest_ids_may_repeat_uris_and_have_numbers(tmp_path: Path) -> None:
    rows = [{"uri": "a.jpg", "image_id": number} for number in (2, 10)]
    assert ids(write_manifest(tmp_path / "list.csv", rows)) == ["10", "2"]
    assert ids(write_manifest(tmp_path / "list.parquet", rows)) == ["10", "2"]


@pytest.mark.parametrize("name", MANIFESTS[:4])
def test_manifest_without_the_column(tmp_path: Path, name: str) -> None:
    source = write_manifest(tmp_path / name, [{"url": "a.jpg", "size": 3}])
    with pytest.raises(ConfigError, match="Did you mean 'url'"):
        ids(source)
    source = write_manifest(tmp_path / name, [{"path": "a.jpg"}])
    with pytest.raises(ConfigError, match="Received: 'path'"):
        ids(source)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        pytest.param("a.csv", b"", "empty file", id="empty csv"),
        pytest.param("a.jsonl", b"\n", "empty file", id="empty jsonl"),
        pytest.param("a.csv", b"uri\n", "none in", id="csv without rows"),
        pytest.param("a.csv", b"uri,image_id\na.jpg,\n", "image_id.* row 1", id="csv: no id"),
        pytest.param("a.csv", b"uri,image_id\n,x\n", "uri.* row 1", id="csv: no uri"),
        pytest.param("a.csv", b"uri\na.jpg,b\n", "readable", id="csv: too many cells"),
        pytest.param("a.csv", b"uri\ncaf\xe9.jpg\n", "readable", id="csv: not UTF-8"),
        pytest.param("a.csv", "uri\na.jpg\n".encode("utf-16"), "UTF-8", id="csv: UTF-16"),
        pytest.param(
            "a.jsonl", b'{"uri": "a", "image_id": "x"}\n{"uri": "b"}\n', "row 2", id="jsonl: no id"
        ),
        pytest.param("a.jsonl", b'{"uri": 3}\n', "text", id="jsonl: no text"),
        pytest.param("a.jsonl", b'{"uri": "a"\n', "readable", id="jsonl: cut short"),
        pytest.param("a.jsonl", b'{\n"url": "a"}\n', "one object a line", id="jsonl: over lines"),
        pytest.param("a.jsonl", b"[1, 2]\n", "readable|one object", id="jsonl: a list"),
        pytest.param("a.csv", b"uri,uri\na,b\n", "'uri'.*2 of them", id="csv: uri twice"),
        pytest.param(
            "a.csv", b"uri,image_id,image_id\na,b,c\n", "one column named 'image_id'", id="csv: ids"
        ),
        pytest.param("a.parquet", b"PAR1", "readable", id="parquet: cut short"),
    ],
)
def test_malformed_manifests(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=message) as caught:
        ids(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_parquet_manifest_with_a_column_twice(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["uri", "uri"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="one column named 'uri'"):
        ids(tmp_path / "a.parquet")


def test_parquet_manifest_with_a_column_of_another_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [["a.jpg"]]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="text"):
        ids(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "address", ["https://me:5ec7e7@host/b.jpg", "https://host/b.jpg?Expires=1&Signature=5ec7e7"]
)
def test_credentials_in_a_manifest_are_refused_and_not_repeated(
    tmp_path: Path, address: str
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"uri\na.jpg\n{address}\n")
    with pytest.raises(ConfigError, match=r"row 2, https://host/b\.jpg\.") as caught:
        read_manifest(str(path))
    assert "5ec7e7" not in str(caught.value)


@pytest.mark.parametrize("name", MANIFESTS)
def test_duplicate_ids_are_refused_and_named(tmp_path: Path, name: str) -> None:
    rows = [{"uri": f"{uri}.jpg", "image_id": "same" if uri % 2 else str(uri)} for uri in range(4)]
    with pytest.raises(ConfigError, match="'same' twice"):
        ids(write_manifest(tmp_path / name, rows))
