"""Tars and Parquet files as inputs: what is listed, refused, and read again."""

from __future__ import annotations

import logging
import tarfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError, ImageFetchError, ImageNotFoundError
from amg_pipeline.records import ImageRef
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.listing import IMAGES_SCHEMA
from amg_pipeline.storage.manifest import list_images
from amg_pipeline.telemetry import ROOT_LOGGER
from tests.storage.pictures import encode, photo
from tests.storage.tars import make_tar

Files = dict[str, bytes]


def png(width: int) -> bytes:
    return encode(photo(width, 16), "PNG")


def parquet(widths: list[int], column: str = "image") -> bytes:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    structs = [{"bytes": png(width), "path": None} for width in widths]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({column: pa.array(structs, kind)}), sink, row_group_size=4)
    return bytes(sink.getvalue())


def manifest_table() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"uri": ["a.jpg"], "caption": ["a"]}), sink)
    return bytes(sink.getvalue())


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "in") if request.param == "local" else f"memory://{uuid4().hex}"


def fill(place: str, files: Files) -> str:
    for name, data in files.items():
        filesystem, path = fsspec.core.url_to_fs(f"{place}/{name}")
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(path, data)
    return place


def rows(source: str, **settings: Any) -> list[dict[str, Any]]:
    table = list_images(ImageSettings(input=source, **settings))
    assert table.schema.equals(IMAGES_SCHEMA)
    return list(table.to_pylist())


def ids(source: str, **settings: Any) -> list[str]:
    return [row["image_id"] for row in rows(source, **settings)]


def widths(found: list[dict[str, Any]]) -> list[int]:
    """Load every image of a listing; its width tells which it is."""
    refs = [ImageRef(row["image_id"], row["uri"], row["size_bytes"], row["etag"]) for row in found]
    return [load_image(ref).pixels.shape[1] for ref in refs]


TARS: Files = {
    "b.tar": make_tar({"x/2.png": png(6), "10.png": png(5), "10.json": b"{}"}),
    "a/a.TAR": make_tar({"1.png": png(3), "0.png": png(4)}),
}
TAR_IDS = ["a/a.TAR/0.png", "a/a.TAR/1.png", "b.tar/10.png", "b.tar/x/2.png"]
PARQUETS: Files = {"b.parquet": parquet([*range(1, 13)]), "a.parquet": parquet([20, 21])}
PARQUET_IDS = ["a.parquet#0", "a.parquet#1", *(f"b.parquet#{row}" for row in range(12))]


# What is listed


@pytest.mark.parametrize("pattern", ["", "/**/*.[tT][aA][rR]", "/**"])
def test_tars_of_a_place(place: str, pattern: str) -> None:
    found = rows(fill(place, {**TARS, "read.me": b"", "00000.json": b"{}"}) + pattern)
    assert [row["image_id"] for row in found] == TAR_IDS
    assert widths(found) == [4, 3, 5, 6]
    assert [row["size_bytes"] for row in found] == [len(png(width)) for width in (4, 3, 5, 6)]


def test_one_tar(place: str) -> None:
    found = rows(f"{fill(place, TARS)}/b.tar")
    assert [row["image_id"] for row in found] == ["b.tar/10.png", "b.tar/x/2.png"]
    assert widths(found) == [5, 6]


@pytest.mark.parametrize("pattern", ["", "/*.parquet"])
def test_parquet_files_of_a_place(place: str, pattern: str) -> None:
    found = rows(fill(place, PARQUETS) + pattern)
    assert [row["image_id"] for row in found] == PARQUET_IDS
    assert widths(found) == [20, 21, *range(1, 13)]
    assert all(row["size_bytes"] > 50 for row in found)


def test_one_parquet_file(place: str) -> None:
    found = rows(f"{fill(place, PARQUETS)}/b.parquet")
    assert [row["image_id"] for row in found] == PARQUET_IDS[2:]
    assert widths(found) == [*range(1, 13)]


def test_sizes_of_rows_sum_to_the_column(place: str) -> None:
    found = rows(f"{fill(place, PARQUETS)}/b.parquet")
    data = pq.ParquetFile(pa.BufferReader(PARQUETS["b.parquet"])).metadata
    total = sum(data.row_group(g).column(0).total_compressed_size for g in range(3))
    assert sum(row["size_bytes"] for row in found) == total


def test_metadata_beside_tars_are_no_images(place: str) -> None:
    assert ids(fill(place, {**TARS, "b.parquet": manifest_table()})) == TAR_IDS


def test_metadata_beside_images_are_no_images(place: str) -> None:
    assert ids(fill(place, {"a.png": b"", "m.parquet": manifest_table()})) == ["a.png"]


def test_column_can_be_chosen(place: str) -> None:
    fill(place, {"a.parquet": parquet([2], "left"), "m.parquet": manifest_table()})
    assert ids(place, column="left") == ["a.parquet#0"]
    with pytest.raises(ConfigError, match="no column 'right'"):
        ids(f"{place}/a.parquet", column="right")


def test_parquet_with_uris_is_a_manifest(place: str) -> None:
    fill(place, {"m.parquet": manifest_table()})
    assert ids(f"{place}/m.parquet") == ["a.jpg"]


def test_parquet_with_both_is_a_manifest_unless_told(place: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"uri": ["a.jpg"], "image": [png(2)]}), sink)
    fill(place, {"m.parquet": bytes(sink.getvalue())})
    assert ids(f"{place}/m.parquet") == ["a.jpg"]
    assert ids(f"{place}/m.parquet", column="image") == ["m.parquet#0"]


def test_manifest_may_name_members_and_rows(place: str, tmp_path: Path) -> None:
    fill(place, {**TARS, **PARQUETS})
    uris = [rows(f"{place}/b.tar")[1]["uri"], rows(f"{place}/b.parquet")[4]["uri"]]
    (tmp_path / "m.csv").write_text("\n".join(["uri", *uris]))
    found = rows(str(tmp_path / "m.csv"))
    assert [row["image_id"] for row in found] == sorted(uris)
    assert sorted(widths(found)) == [5, 6]


# Filters


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"limit": 3}, TAR_IDS[:3]),
        ({"include": ["*/x/*"]}, ["b.tar/x/2.png"]),
        ({"exclude": ["a/*"]}, TAR_IDS[2:]),
        ({"exclude": ["*.TAR"]}, TAR_IDS[2:]),
        ({"include": ["*.png"], "exclude": ["*0.png"], "limit": 1}, ["a/a.TAR/1.png"]),
    ],
)
def test_filters_of_tars(place: str, settings: dict[str, Any], expected: list[str]) -> None:
    assert ids(fill(place, TARS), **settings) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"limit": 3}, PARQUET_IDS[:3]),
        ({"include": ["*#1?"]}, ["b.parquet#10", "b.parquet#11"]),
        ({"exclude": ["b.*"]}, PARQUET_IDS[:2]),
        ({"exclude": ["*#?"], "limit": 1}, ["b.parquet#10"]),
    ],
)
def test_filters_of_rows(place: str, settings: dict[str, Any], expected: list[str]) -> None:
    assert ids(fill(place, PARQUETS), **settings) == expected


def test_samples_keep_the_order(place: str) -> None:
    drawn = ids(fill(place, PARQUETS), sample=6)
    assert len(drawn) == 6
    assert drawn == [image_id for image_id in PARQUET_IDS if image_id in drawn]
    assert ids(place, sample=6) == drawn


def test_excluded_archives_are_not_opened(place: str) -> None:
    fill(place, {**TARS, "bad.tar": b"x" * 600, "bad.parquet": b"x" * 600})
    assert ids(place, exclude=["bad.*"]) == TAR_IDS


# What is refused


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({**TARS, "a.png": b""}, id="tars beside images"),
        pytest.param({**PARQUETS, "a.png": b""}, id="Parquet beside images"),
        pytest.param({**PARQUETS, **TARS}, id="Parquet beside tars"),
    ],
)
def test_mixes_are_refused(place: str, files: Files) -> None:
    with pytest.raises(ConfigError, match=r"one kind\. Received: \d+ .* and \d+ .*--exclude"):
        ids(fill(place, files))


@pytest.mark.parametrize("name", ["b.tar.gz", "b.TGZ", "b.tar.zst"])
@pytest.mark.parametrize("pattern", ["", "/b.*"])
def test_compressed_tars_are_refused(place: str, name: str, pattern: str) -> None:
    fill(place, {**TARS, name: b"\x1f\x8b"})
    for source in (f"{place}/{name}", place + pattern):
        with pytest.raises(ConfigError, match=f"not be compressed.*without reading.*{name}"):
            ids(source)


def test_compressed_tars_beside_images_are_told(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger(ROOT_LOGGER)
    before, logger.propagate = logger.propagate, True
    try:
        assert ids(fill(place, {"a.png": b"", "all.tar.gz": b""})) == ["a.png"]
    finally:
        logger.propagate = before
    assert "1 compressed tar" in caplog.text


def test_hostile_members_are_refused(place: str) -> None:
    fill(place, {"a.tar": make_tar({"../../etc/a.png": b""})})
    with pytest.raises(ConfigError, match=r"a\.tar.*'../../etc/a.png'"):
        ids(place)


@pytest.mark.parametrize("again", ["1.png", "./1.png", ".//1.png"])
def test_members_of_one_name_are_refused(place: str, again: str) -> None:
    fill(place, {"a.tar": make_tar([("1.png", b"1"), (again, b"2")])})
    with pytest.raises(ConfigError, match=r"'a.tar/1.png' twice"):
        ids(place)


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
@pytest.mark.parametrize("whole", [False, True])
def test_damaged_files_are_refused(place: str, name: str, whole: bool) -> None:
    data = {**TARS, **PARQUETS}[f"b.{name.partition('.')[2]}"]
    fill(place, {name: data[:1100]})
    with pytest.raises(ConfigError, match=f"{name}.*--exclude"):
        ids(place if whole else f"{place}/{name}")


@pytest.mark.parametrize("data", [make_tar({}), make_tar({"a.txt": b""})])
def test_tars_without_images_are_refused(place: str, data: bytes) -> None:
    fill(place, {"a.tar": data})
    for source in (place, f"{place}/a.tar"):
        with pytest.raises(ConfigError, match="none in"):
            ids(source)


def test_parquet_without_images_is_refused(place: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"url": ["a.jpg"]}), sink)
    fill(place, {"a.parquet": bytes(sink.getvalue())})
    with pytest.raises(ConfigError, match="none in"):
        ids(place)
    with pytest.raises(ConfigError, match="'uri', or a Parquet file one of images"):
        ids(f"{place}/a.parquet")


# When the images are read


@pytest.fixture(params=["b.tar", "b.parquet"])
def refs(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, ImageRef]:
    path = tmp_path / request.param
    path.write_bytes({**TARS, **PARQUETS}[request.param])
    row = rows(str(path))[1]
    return path, ImageRef(row["image_id"], row["uri"], row["size_bytes"], row["etag"])


def test_file_that_vanished_is_a_missing_image(refs: tuple[Path, ImageRef]) -> None:
    path, ref = refs
    path.unlink()
    with pytest.raises(ImageNotFoundError):
        load_image(ref)


def test_file_that_changed_is_no_image(refs: tuple[Path, ImageRef]) -> None:
    path, ref = refs
    path.write_bytes(
        make_tar({"new.png": png(9)}, kind=tarfile.GNU_FORMAT) + bytes(9000)
        if path.suffix == ".tar"
        else parquet([*range(31, 43)])
    )
    with pytest.raises(ImageFetchError, match="changed") as caught:
        load_image(ref)
    assert not isinstance(caught.value, ImageNotFoundError)
    assert str(path) not in str(caught.value)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    data = make_tar({"caf\udce9.png": png(7)}, kind=tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(data)
    (row,) = rows(str(tmp_path))
    assert row["image_id"] == "a.tar/caf\\xe9.png"
    assert widths([row]) == [7]


def test_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amg_pipeline.storage import containers

    monkeypatch.setattr(containers, "_BATCH_ROWS", 7)
    (tmp_path / "a.tar").write_bytes(make_tar({f"{i:03d}.png": b"%d" % i for i in range(30)}))
    assert ids(str(tmp_path)) == [f"a.tar/{i:03d}.png" for i in range(30)]
    assert np.unique([row["etag"] for row in rows(str(tmp_path))]).size == 30
