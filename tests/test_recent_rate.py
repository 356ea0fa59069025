"""The rate of a run: the true one at any scale, and after a pause."""

from __future__ import annotations

import random

import pytest

from amg_pipeline.recent_rate import recent_rate

NOW = 1_800_000_000.0


def commits_of(
    workers: int, *, shards: int, start: float, seconds: float
) -> list[tuple[float, int]]:
    """Shards of 10 images by workers that begin together; a shard takes so long, more or less."""
    draw = random.Random(0).uniform
    ends = []
    for _ in range(workers):
        time = start
        for _ in range(shards):
            time += draw(0.8, 1.2) * seconds
            ends.append((time, 10))
    return sorted(ends)


@pytest.mark.parametrize("workers", [1, 8, 1000])
@pytest.mark.parametrize(("shards", "error"), [(1, 0.4), (4, 0.25), (20, 0.2)])
def test_rate_of_many_workers(workers: int, shards: int, error: float) -> None:
    commits = commits_of(workers, shards=shards, start=NOW, seconds=47.0)
    now = commits[-1][0]
    # The last ones of the workers come one by one.
    rate = recent_rate(commits, shard_seconds=1.2 * 47, now=now)
    assert rate == pytest.approx(workers * 10 / 47, rel=error)


def test_pause_does_not_count() -> None:
    before = commits_of(8, shards=3, start=NOW - 100_000, seconds=20.0)
    after = commits_of(8, shards=3, start=NOW, seconds=20.0)
    now = after[-1][0]
    alone = recent_rate(after, shard_seconds=24.0, now=now)
    assert alone is not None
    assert recent_rate(before + after, shard_seconds=24.0, now=now) == alone


def test_shards_that_take_hours() -> None:
    commits = [(NOW + 7200 * n, 10) for n in range(5)]
    assert recent_rate(commits, shard_seconds=7200, now=NOW + 36_000) == pytest.approx(10 / 7200)


def test_run_that_stands_still_has_none() -> None:
    commits = [(NOW, 10), (NOW + 10, 10)]
    assert recent_rate(commits, shard_seconds=10, now=NOW + 800) == pytest.approx(1.0)
    assert recent_rate(commits, shard_seconds=10, now=NOW + 1000) is None
    assert recent_rate([], shard_seconds=0, now=NOW) is None
    assert recent_rate([(NOW, 10)], shard_seconds=0, now=NOW) is None
