from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.records import ImageRef, ImageResult
from amg_pipeline.storage.mask_table import (
    MASK_SCHEMA,
    decode_table,
    encode_table,
    load_masks,
    read_metadata,
    read_table,
)
from amg_pipeline.storage.object_store import ObjectStore
from tests.storage.doubles import METADATA, failed_result, make_record, make_result

RESULTS = [
    make_result("a.jpg", masks=3),
    make_result("none.jpg", masks=0),
    failed_result(),
    make_result("z.jpg", masks=1, height=1, width=50, seed=1),
]


def test_schema_version_1() -> None:
    """What other programs rely on; a change needs a new schema version."""
    expected = {
        "image_id": "string",
        "uri": "string",
        "status": "string",
        "error_type": "string",
        "error_message": "string",
        "width": "int32",
        "height": "int32",
        "num_masks": "int32",
    }
    assert {field.name: str(field.type) for field in list(MASK_SCHEMA)[:-1]} == expected
    nullable = {field.name for field in MASK_SCHEMA if field.nullable}
    assert nullable == {"error_type", "error_message", "width", "height"}
    struct = MASK_SCHEMA.field("masks").type.value_type
    assert {field.name: str(field.type) for field in struct} == {
        "counts": "string",
        "bbox": "fixed_size_list<element: float not null>[4]",
        "area": "int64",
        "predicted_iou": "float",
        "stability_score": "float",
        "point_coords": "fixed_size_list<element: double not null>[2]",
        "crop_box": "fixed_size_list<element: int32 not null>[4]",
    }
    assert not any(field.nullable for field in struct)


def test_rows() -> None:
    table = read_table(encode_table(RESULTS, METADATA))
    rows = table.to_pylist()
    assert [row["image_id"] for row in rows] == ["a.jpg", "none.jpg", "bad.jpg", "z.jpg"]
    assert [row["num_masks"] for row in rows] == [3, 0, 0, 1]
    assert [len(row["masks"]) for row in rows] == [3, 0, 0, 1]
    assert rows[2]["width"] is None
    assert rows[2]["error_type"] == "ImageDecodeError"
    assert rows[0]["error_type"] is None
    record, mask = RESULTS[0].masks[1], rows[0]["masks"][1]
    coded = {"size": [6, 9], "counts": mask["counts"].encode()}
    assert mask["area"] == record.rle.area == coco.area(coded)
    assert mask["bbox"] == coco.toBbox(coded).tolist()
    assert mask["point_coords"] == list(record.point_coords)
    assert mask["crop_box"] == [0, 0, 9, 6]
    assert mask["predicted_iou"] == 0.75


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def results(draw: st.DrawFn) -> ImageResult:
    ref = ImageRef(draw(TEXT), draw(TEXT))
    if draw(st.booleans()):
        return ImageResult(ref, "timeout", error_type=draw(TEXT), error_message=draw(TEXT))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = draw(st.lists(st.floats(0, 1, width=32), max_size=4))
    records = [make_record(generator.random((height, width)) < 0.3, score=s) for s in scores]
    return ImageResult(ref, "ok", width, height, tuple(records))


@settings(max_examples=60)
@given(st.lists(results(), max_size=40))
def test_any_results_round_trip_and_give_the_same_bytes(rows: list[ImageResult]) -> None:
    data = encode_table(rows, METADATA)
    found = decode_table(data)
    assert repr(found) == repr(tuple(rows))
    assert encode_table(found, METADATA) == data


def test_box_of_an_empty_mask() -> None:
    record = make_record(np.zeros((3, 4), dtype=bool))
    result = replace(RESULTS[0], height=3, width=4, masks=(record,))
    (row,) = decode_table(encode_table([result], METADATA))
    assert row.masks[0].box_xyxy == (0, 0, 0, 0)
    assert row.masks[0].rle.area == 0


def test_footer() -> None:
    data = encode_table(RESULTS, METADATA)
    assert read_metadata(read_table(data)) == METADATA
    stored = pq.read_metadata(io.BytesIO(data)).metadata
    assert stored[b"amg_pipeline.fingerprint"] == METADATA.fingerprint.encode()
    assert stored[b"amg_pipeline.schema_version"] == b"1"


def test_small_row_groups_and_plain_counts() -> None:
    rows = [make_result(f"{number:03d}.jpg", masks=4) for number in range(40)]
    file = pq.ParquetFile(io.BytesIO(encode_table(rows, METADATA)))
    assert file.metadata.num_row_groups == 3
    columns = [file.metadata.row_group(0).column(i) for i in range(file.metadata.num_columns)]
    counts = next(column for column in columns if column.path_in_schema.endswith("counts"))
    assert "DICTIONARY" not in str(counts.encodings)
    assert {column.compression for column in columns} == {"ZSTD"}


def test_messages_are_cut_and_stay_text() -> None:
    long = replace(failed_result(), error_message="x" * 600)
    broken = replace(failed_result(), error_message="caf\udce9.jpg")
    found = decode_table(encode_table([long, broken], METADATA))
    assert found[0].error_message == "x" * 500
    assert found[1].error_message == "caf\\udce9.jpg"


def test_bytes_that_are_no_table() -> None:
    with pytest.raises(StorageError, match="complete Parquet"):
        decode_table(encode_table(RESULTS, METADATA)[:-9])
    sink = io.BytesIO()
    pq.write_table(pa.table({"image_id": ["a"]}), sink)
    with pytest.raises(StorageError, match="schema version 1"):
        decode_table(sink.getvalue())
    with pytest.raises(StorageError, match="footer"):
        read_metadata(pa.table({"image_id": ["a"]}))


def test_malformed_mask_in_a_table() -> None:
    table = read_table(encode_table([RESULTS[0]], METADATA)).to_pylist()
    table[0]["masks"][0]["counts"] = "zz"
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table, schema=MASK_SCHEMA), sink)
    with pytest.raises(StorageError, match="valid masks"):
        decode_table(sink.getvalue())


# Reading a run, with this package and with others


def write_run(uri: str) -> str:
    store = ObjectStore.open(uri)
    store.put("_amg/plan.json", b'{"fingerprint": "%s"}' % METADATA.fingerprint.encode())
    store.put("masks/part-000000-01234567.parquet", encode_table(RESULTS[:2], METADATA))
    store.put("masks/part-000001-01234567.parquet", encode_table(RESULTS[2:], METADATA))
    # A late writer of another generation, and somebody's note.
    store.put("masks/part-000000-ffffffff.parquet", encode_table(RESULTS, METADATA))
    store.put("masks/README.txt", b"hello")
    return uri


@pytest.mark.parametrize("place", ["local", "memory"])
def test_load_masks(tmp_path: Path, place: str) -> None:
    uri = str(tmp_path / "o u::t") if place == "local" else f"memory://{uuid4().hex}"
    dataset = load_masks(write_run(uri))
    table = dataset.to_table()
    assert table.schema.equals(MASK_SCHEMA)
    assert table["image_id"].to_pylist() == ["a.jpg", "none.jpg", "bad.jpg", "z.jpg"]
    assert dataset.count_rows() == 4
    assert dataset.to_table(columns=["num_masks"])["num_masks"].to_pylist() == [3, 0, 0, 1]


def test_load_masks_before_the_first_shard(tmp_path: Path) -> None:
    store = ObjectStore.open(str(tmp_path))
    store.put("_amg/plan.json", b'{"fingerprint": "0123456789"}')
    assert load_masks(str(tmp_path)).to_table().num_rows == 0


@pytest.mark.parametrize("plan", [None, b"", b"[]", b"{}", b'{"fingerprint": 3}'])
def test_load_masks_of_something_else(tmp_path: Path, plan: bytes | None) -> None:
    if plan is not None:
        ObjectStore.open(str(tmp_path)).put("_amg/plan.json", plan)
    with pytest.raises(ConfigError, match="output folder of a run"):
        load_masks(str(tmp_path))


# pycocotools 2.0.11 decodes through an __array__ that NumPy 2 finds outdated.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_duckdb_reads_it(tmp_path: Path) -> None:
    write_run(str(tmp_path))
    query = """
        SELECT image_id, m.area, m.bbox, m.counts
        FROM (SELECT image_id, unnest(masks) AS m
              FROM read_parquet('{}/masks/*-01234567.parquet'))
        WHERE image_id = 'a.jpg'
    """
    rows = duckdb.sql(query.format(tmp_path)).fetchall()
    assert len(rows) == 3
    for _, area, bbox, counts in rows:
        coded = {"size": [6, 9], "counts": counts.encode()}
        assert area == coco.area(coded) == coco.decode(coded).sum()
        assert list(bbox) == coco.toBbox(coded).tolist()
    dataset = load_masks(str(tmp_path))
    assert duckdb.from_arrow(dataset).aggregate("sum(num_masks)").fetchall() == [(4,)]


def test_polars_reads_it(tmp_path: Path) -> None:
    write_run(str(tmp_path))
    frame = polars.read_parquet(f"{tmp_path}/masks/*-01234567.parquet")
    masks = frame.explode("masks").drop_nulls("masks").unnest("masks")
    assert masks["image_id"].to_list() == ["a.jpg"] * 3 + ["z.jpg"]
    expected = [record.rle.area for result in RESULTS for record in result.masks]
    assert masks["area"].to_list() == expected
    assert masks["bbox"].to_list()[0] == list(
        coco.toBbox({"size": [6, 9], "counts": masks["counts"][0].encode()})
    )
