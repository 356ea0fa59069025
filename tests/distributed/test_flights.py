"""How long a worker may be silent about a shard."""

from __future__ import annotations

import pytest

from amg_pipeline.attempts import ShardTask
from amg_pipeline.config import RunConfig, load_config
from amg_pipeline.distributed.flights import Flight
from amg_pipeline.distributed.pool import PooledWorker
from amg_pipeline.records import ImageRef, Shard
from amg_pipeline.storage.faults import RetryPolicy

STORE_SECONDS = RetryPolicy().timeout_s + 300.0


def config(seconds: float) -> RunConfig:
    return load_config(settings={"workers": {"image_timeout_seconds": seconds}})


def flight(*uris: str, rows_done: int = 0) -> Flight:
    shard = Shard(0, tuple(ImageRef(uri, uri) for uri in uris))
    return Flight(ShardTask(shard), PooledWorker(None, None, 0.0), rows_done=rows_done)


@pytest.mark.parametrize("uri", ["/in/a.png", "file:///in/a.png", "/in/a.tar"])
def test_images_of_this_machine_have_what_the_setting_says(uri: str) -> None:
    assert flight(uri, uri).longest_silence(config(7.0)) == 7.0


@pytest.mark.parametrize("uri", ["s3://bucket/a.png", "https://host/a.png", "gs://bucket/a.tar"])
@pytest.mark.parametrize(("seconds", "expected"), [(7.0, STORE_SECONDS), (9000.0, 9000.0)])
def test_a_store_has_its_retries_before_an_image_counts_as_hung(
    uri: str, seconds: float, expected: float
) -> None:
    assert flight("/in/a.png", uri).longest_silence(config(seconds)) == expected


def test_a_commit_has_the_retries_of_all_its_steps() -> None:
    done = flight("/in/a.png", "/in/b.png", rows_done=2)
    assert done.longest_silence(config(7.0)) == 4 * STORE_SECONDS
    assert flight("/in/a.png", "/in/b.png", rows_done=1).longest_silence(config(7.0)) == 7.0


def test_the_default_outlasts_a_store_that_is_down_for_as_long_as_it_is_retried() -> None:
    assert RunConfig().workers.image_timeout_seconds > STORE_SECONDS
