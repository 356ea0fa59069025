from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.storage import layout

FINGERPRINT = "0123456789abcdef" * 4


def test_names() -> None:
    assert layout.shard_key(7, FINGERPRINT) == "masks/part-000007-01234567.parquet"
    assert layout.shard_key(1_234_567, FINGERPRINT) == "masks/part-1234567-01234567.parquet"
    assert layout.attempt_key(7, 2, "0a1b2c3d") == "_amg/attempts/000007/2-0a1b2c3d.json"
    assert layout.stats_key(7) == "_amg/stats/000007.json"
    assert layout.plan_part_key(3, "ab" * 32) == "_amg/plan/part-00003-abababab.parquet"


@given(st.integers(0, 10**9))
def test_shard_keys_read_back(shard_id: int) -> None:
    assert layout.parse_shard_key(layout.shard_key(shard_id, FINGERPRINT)) == (shard_id, "01234567")


@pytest.mark.parametrize(
    "key",
    [
        "masks/part-7-01234567.parquet",
        "masks/part-0000007-01234567.parquet",
        "masks/part-000007-0123456.parquet",
        "masks/part-000007-01234567.parquet.bak",
        "masks/sub/part-000007-01234567.parquet",
        "masks/part-000007-0123456G.parquet",
        "masks/part-٠٠٠٠٠٧-01234567.parquet",
    ],
)
def test_other_keys_are_no_shards(key: str) -> None:
    assert layout.parse_shard_key(key) is None


@pytest.mark.parametrize("shard_id", [0, 999_999, 1_000_000])
@pytest.mark.parametrize("number", [1, 10])
def test_attempt_key_reads_back(shard_id: int, number: int) -> None:
    key = layout.attempt_key(shard_id, number, "0a1b2c3d")
    assert layout.parse_attempt_key(key) == (shard_id, number)
    assert layout.parse_attempt_key(key.replace("-0a1b2c3d", "")) == (shard_id, number)


@pytest.mark.parametrize(
    "name", [".DS_Store", "0.json", "01.json", "1.json~", "\u0661.json", "x.json", "1-a.json"]
)
def test_other_keys_are_no_attempts(name: str) -> None:
    assert layout.parse_attempt_key(f"_amg/attempts/000003/{name}") is None
