from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.mask_table import encode_table, load_masks
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.tally import RowCounts, count_rows
from tests.storage.doubles import METADATA, failed_result, make_result


def test_counts_by_status(tmp_path: Path) -> None:
    store = ObjectStore.open(str(tmp_path))
    store.put("_amg/plan.json", b'{"fingerprint": "%s"}' % METADATA.fingerprint.encode())
    fetch = replace(failed_result(), status="fetch_error", error_type="ImageFetchError")
    absent = replace(fetch, error_type="ImageNotFoundError")
    shards = [
        [make_result(masks=3), failed_result(), make_result(masks=0)],
        [fetch, fetch, absent, make_result(masks=2)],
    ]
    for number, results in enumerate(shards):
        store.put(f"masks/part-00000{number}-01234567.parquet", encode_table(results, METADATA))
    counts = count_rows(load_masks(str(tmp_path)))
    assert counts == RowCounts(
        images={"ok": 3, "decode_error": 1, "fetch_error": 3}, unsettled=2, masks=5
    )


def test_nothing_yet(tmp_path: Path) -> None:
    ObjectStore.open(str(tmp_path)).put("_amg/plan.json", b'{"fingerprint": "01234567"}')
    assert count_rows(load_masks(str(tmp_path))) == RowCounts(images={}, unsettled=0, masks=0)


def test_damaged_shard(tmp_path: Path) -> None:
    store = ObjectStore.open(str(tmp_path))
    store.put("_amg/plan.json", b'{"fingerprint": "01234567"}')
    store.put("masks/part-000000-01234567.parquet", b"PAR1 cut short")
    with pytest.raises(StorageError, match="amg verify"):
        count_rows(load_masks(str(tmp_path)))
