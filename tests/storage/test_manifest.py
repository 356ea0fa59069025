from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError, ImageFetchError, StorageError
from amg_pipeline.records import ImageRef
from amg_pipeline.storage import listing, manifest
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.manifest import PLAN_SCHEMA, assign_shards, count_bytes, list_images
from amg_pipeline.storage.manifest_files import read_manifest
from tests.storage.test_images import encode, photo
from tests.storage.test_object_store import HOSTILE_NAMES


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def ids(source: object, **settings: Any) -> list[str]:
    return list_images(ImageSettings(input=str(source), **settings))["image_id"].to_pylist()


# Folders, globs, prefixes, files


def test_folder_is_recursive_and_sorted_by_bytes(tmp_path: Path) -> None:
    fill(tmp_path, "b.JPG", "a/z.png", "a.jpeg", "Z.webp", "é.bmp", "notes.txt", "a/x.jpg.bak")
    table = list_images(ImageSettings(input=str(tmp_path)))
    assert table["image_id"].to_pylist() == ["Z.webp", "a.jpeg", "a/z.png", "b.JPG", "é.bmp"]
    assert table["uri"].to_pylist()[2] == f"{tmp_path}/a/z.png"
    assert table["size_bytes"].to_pylist() == [6, 6, 7, 5, 6]
    assert table["etag"].null_count == 5
    assert table.schema.equals(listing.IMAGES_SCHEMA)


def test_relative_folder_gives_absolute_uris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "in/a.jpg")
    monkeypatch.chdir(tmp_path)
    for spelling in ("in", "in/", "./in/../in"):
        table = list_images(ImageSettings(input=spelling))
        assert table["uri"].to_pylist() == [f"{tmp_path}/in/a.jpg"]
        assert table["image_id"].to_pylist() == ["a.jpg"]


@pytest.mark.parametrize("scheme", ["path", "file"])
def test_hostile_names_are_listed_and_loaded(tmp_path: Path, scheme: str) -> None:
    for name in HOSTILE_NAMES:
        (tmp_path / name).write_bytes(encode(photo(), "PNG"))
    source = f"file://{tmp_path}" if scheme == "file" else str(tmp_path)
    table = list_images(ImageSettings(input=source))
    assert table["image_id"].to_pylist() == sorted(HOSTILE_NAMES, key=str.encode)
    for row in table.to_pylist():
        assert load_image(ImageRef(row["image_id"], row["uri"])).pixels.shape == (16, 24, 3)


def test_names_that_are_no_text_are_listed_and_loaded(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9 %41.png"
    Path(os.fsdecode(path)).write_bytes(encode(photo(), "PNG"))
    (row,) = list_images(ImageSettings(input=str(tmp_path))).to_pylist()
    assert row["image_id"] == "caf\\xe9 %41.png"
    assert load_image(ImageRef(row["image_id"], row["uri"])).pixels.shape == (16, 24, 3)


def test_link_to_itself_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    table = list_images(ImageSettings(input=str(tmp_path)))
    assert table["image_id"].to_pylist() == ["a.jpg", "loop.jpg"]
    with pytest.raises(ImageFetchError):
        load_image(ImageRef("loop.jpg", table["uri"][1].as_py()))


def test_dangling_links_are_images_that_will_be_missing(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    table = list_images(ImageSettings(input=str(tmp_path)))
    assert table["size_bytes"].to_pylist() == [None]
    assert count_bytes(table) == (0, 1)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("*", ["a.jpg", "b.png"]),
        ("x/*", ["c.jpg"]),
        ("*/*.jpg", ["x/c.jpg", "y/d.jpg"]),
        ("[xy]/?.jpg", ["x/c.jpg", "y/d.jpg"]),
        ("**/*.jpg", ["a.jpg", "x/c.jpg", "x/deep/e.jpg", "y/d.jpg"]),
        ("x/**", ["c.jpg", "deep/e.jpg"]),
    ],
)
@pytest.mark.parametrize("place", ["local", "memory"])
def test_glob_ids_are_relative_to_its_fixed_part(
    tmp_path: Path, pattern: str, expected: list[str], place: str
) -> None:
    names = ("a.jpg", "b.png", "x/c.jpg", "x/deep/e.jpg", "x/notes.txt", "y/d.jpg")
    root = str(fill(tmp_path, *names))
    if place == "memory":
        root = f"memory://{uuid4().hex}"
        for name in names:
            fsspec.filesystem("memory").pipe_file(f"{root}/{name}", b"1")
    assert ids(f"{root}/{pattern}") == expected


def test_folder_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    fill(tmp_path, "photos [2024]/a.jpg", "photos 2/b.jpg")
    assert ids(tmp_path / "photos [2024]") == ["a.jpg"]


def test_glob_that_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whole component"):
        ids(fill(tmp_path, "a.jpg") / "a**/*.jpg")


def test_prefix_of_any_filesystem() -> None:
    root = f"memory://{uuid4().hex}"
    for name in ("a b#1.jpg", "x/c.jpg", "readme.md"):
        fsspec.filesystem("memory").pipe_file(f"{root}/{name}", b"123")
    table = list_images(ImageSettings(input=root))
    assert table["image_id"].to_pylist() == ["a b#1.jpg", "x/c.jpg"]
    assert table["uri"].to_pylist() == [f"{root}/a b#1.jpg", f"{root}/x/c.jpg"]
    assert count_bytes(table) == (6, 0)


def test_single_image(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b.jpg")
    assert ids(tmp_path / "a.jpg") == ["a.jpg"]


def test_chunks_of_a_long_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_BATCH_ROWS", 2)
    assert len(ids(fill(tmp_path, *(f"{number}.jpg" for number in range(5))))) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: path / "absent", "exists", id="missing"),
        pytest.param(lambda path: path, "none in", id="empty folder"),
        pytest.param(lambda path: path / "*.jpg", "none in", id="glob without match"),
        pytest.param(lambda path: fill(path, "a.txt") / "a.txt", "manifest", id="other file"),
        pytest.param(lambda path: "", "nothing", id="no input"),
        pytest.param(lambda path: "nosuch://x/y", "scheme", id="unknown scheme"),
    ],
)
def test_unusable_inputs(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ids(make(tmp_path))


def test_unreadable_folder_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jpg", "locked/b.jpg")
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="locked"):
        ids(tmp_path)


# Manifests


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


# Filters


NAMES = [f"{folder}/{number:02d}.jpg" for folder in "ab" for number in range(20)]


def test_include_and_exclude(tmp_path: Path) -> None:
    fill(tmp_path, *NAMES)
    assert ids(tmp_path, include=("a/0[12]*", "b/19.jpg")) == ["a/01.jpg", "a/02.jpg", "b/19.jpg"]
    assert ids(tmp_path, exclude=("a/*", "*1?.jpg")) == [f"b/0{number}.jpg" for number in range(10)]
    assert ids(tmp_path, include=("a/0?.jpg",), exclude=("*[1-9].jpg",)) == ["a/00.jpg"]
    with pytest.raises(ConfigError, match="leave none of 40"):
        ids(tmp_path, include=("A/*",))


def test_limit_takes_the_first_and_sample_draws_before_it(tmp_path: Path) -> None:
    fill(tmp_path, *NAMES)
    assert ids(tmp_path, limit=3) == NAMES[:3]
    assert ids(tmp_path, limit=99) == NAMES
    drawn = ids(tmp_path, sample=10)
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 10
    assert ids(tmp_path, sample=10, limit=3) == drawn[:3]
    assert ids(tmp_path, sample=10, sample_seed=1) != drawn
    assert ids(tmp_path, sample=99) == NAMES


def test_sample_stays_when_others_come(tmp_path: Path) -> None:
    """The draw of each image is its own, so a larger draw contains a smaller one."""
    fill(tmp_path, *NAMES)
    drawn = set(ids(tmp_path, sample=10))
    assert drawn < set(ids(tmp_path, sample=15))
    fill(tmp_path, "c/new.jpg")
    assert len(drawn & set(ids(tmp_path, sample=10))) >= 9


# Shards


ID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(
    names=st.lists(ID, unique=True, min_size=1, max_size=25), size=st.integers(1, 9), data=st.data()
)
def test_shards_do_not_depend_on_the_listing(
    names: list[str], size: int, data: st.DataObject
) -> None:
    def plan(order: list[str]) -> pa.Table:
        uris = [f"/in/{name}" for name in order]
        nothing = [pa.nulls(len(order), pa.int64()), pa.nulls(len(order), pa.large_string())]
        columns = [pa.array(values, pa.large_string()) for values in (order, uris)]
        table = pa.Table.from_arrays([*columns, *nothing], schema=listing.IMAGES_SCHEMA)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manifest, "_find", lambda uri, settings: (table, False))
            images = list_images(ImageSettings(input="any", sample=20, sample_seed=3))
        return assign_shards(images, shard_size=size).cast(PLAN_SCHEMA)

    first, second = plan(names), plan(data.draw(st.permutations(names)))
    assert first.equals(second)
    kept = min(len(names), 20)
    assert first["shard_id"].to_pylist() == [row // size for row in range(kept)]
    assert first["row"].to_pylist() == [row % size for row in range(kept)]
    found = first["image_id"].to_pylist()
    assert found == sorted(found, key=str.encode)


def test_plan_columns(tmp_path: Path) -> None:
    fill(tmp_path, *NAMES)
    names = list(NAMES)
    random.Random(0).shuffle(names)
    plan = assign_shards(list_images(ImageSettings(input=str(tmp_path))), shard_size=16)
    assert plan.column_names == PLAN_SCHEMA.names
    assert plan["shard_id"].to_pylist() == [0] * 16 + [1] * 16 + [2] * 8
    assert plan["row"].to_pylist()[14:18] == [14, 15, 0, 1]
