"""Counts of rows: one small read a shard, and the truth about every shard that can be read."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from amg_pipeline.errors import StorageError
from amg_pipeline.records import ImageResult
from amg_pipeline.storage import row_counts
from amg_pipeline.storage.mask_table import encode_table, read_table
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.ranged_file import RangedFile
from amg_pipeline.storage.row_counts import FOOTER_KEY, RowCounts, count_shards, count_table
from tests.storage.doubles import METADATA, failed_result, make_result

FETCH = replace(failed_result(), status="fetch_error", error_type="ImageFetchError")
ABSENT = replace(FETCH, error_type="ImageNotFoundError")
SHARDS = [
    [make_result(masks=3), failed_result(), make_result(masks=0)],
    [FETCH, FETCH, ABSENT, make_result(masks=2)],
]
COUNTS = RowCounts(images={"ok": 3, "decode_error": 1, "fetch_error": 3}, unsettled=2, masks=5)


def without_counts(data: bytes) -> bytes:
    """The same rows, as something else would write them."""
    sink = io.BytesIO()
    pq.write_table(read_table(data).replace_schema_metadata(None), sink)
    return sink.getvalue()


def write(folder: Path, *shards: bytes) -> ObjectStore:
    store = ObjectStore.open(str(folder))
    for number, data in enumerate(shards):
        store.put(f"{number}.parquet", data)
    return store


def count(store: ObjectStore) -> RowCounts:
    return count_shards(store.uri, store.list())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes were asked for, read by read."""
    asked: list[int] = []
    read_range = RangedFile.read_range

    def note(self: RangedFile, start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return read_range(self, start, stop)

    monkeypatch.setattr(RangedFile, "read_range", note)
    return asked


def test_each_shard_is_one_read(tmp_path: Path, reads: list[int]) -> None:
    store = write(tmp_path, *(encode_table(rows, METADATA) for rows in SHARDS))
    assert count(store) == COUNTS
    assert len(reads) == 2


def test_only_the_end_of_a_shard_is_read(tmp_path: Path, reads: list[int]) -> None:
    rows = [make_result(masks=3)] * 9
    store = write(tmp_path, b"x" * 2**20 + encode_table(rows, METADATA))
    assert count(store) == RowCounts(images={"ok": 9}, unsettled=0, masks=27)
    assert reads == [2**16]


def test_a_long_footer_is_a_second_read(
    tmp_path: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_counts, "_TAIL_BYTES", 100)
    store = write(tmp_path, *(encode_table(rows, METADATA) for rows in SHARDS))
    assert count(store) == COUNTS
    assert sorted(reads)[:2] == [100, 100]
    assert len(reads) == 4


def test_rows_are_counted_where_the_footer_does_not(tmp_path: Path) -> None:
    first, second = (encode_table(rows, METADATA) for rows in SHARDS)
    assert count(write(tmp_path, first, without_counts(second))) == COUNTS


def test_more_shards_than_wait_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_counts, "_SHARDS_AT_ONCE", 2)
    shard = encode_table([make_result(masks=1)], METADATA)
    assert count(write(tmp_path, *[shard] * 5)).images == {"ok": 5}


def test_nothing_yet(tmp_path: Path) -> None:
    assert count(write(tmp_path)) == RowCounts(images={}, unsettled=0, masks=0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"PAR1 cut short",
        lambda data: data[:-50],
        lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1",
        lambda data: data.replace(b'"unsettled"', b'"unsettlec"'),
    ],
    ids=["empty", "begun", "truncated", "length", "counts"],
)
def test_damaged_shard(tmp_path: Path, damage: object) -> None:
    shard = encode_table(SHARDS[0], METADATA)
    with pytest.raises(StorageError, match="amg verify"):
        count(write(tmp_path, shard, damage(shard)))  # type: ignore[operator]


def test_shard_that_is_gone(tmp_path: Path) -> None:
    store = write(tmp_path, encode_table(SHARDS[0], METADATA))
    infos = list(store.list())
    store.remove(infos[0].key)
    with pytest.raises(StorageError, match="FileNotFoundError"):
        count_shards(store.uri, infos)


@pytest.mark.parametrize("rows", [*SHARDS, []])
def test_footer_has_the_counts_of_its_rows(rows: list[ImageResult]) -> None:
    data = encode_table(rows, METADATA)
    stored = pq.read_metadata(io.BytesIO(data)).metadata[FOOTER_KEY]
    assert stored == count_table(read_table(data)).to_json()
