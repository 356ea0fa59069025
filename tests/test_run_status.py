"""The rate that a status tells: from recent shards, and none where nothing moves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amg_pipeline.local_runner import run_locally
from amg_pipeline.run_status import read_status
from tests.photo_runs import make_threshold_generator, plan_photos, write_photos

NOW = 1_800_000_000.0


@pytest.mark.parametrize(("age", "rate"), [(10.0, 4 / 30), (1000.0, None)])
def test_a_run_that_stands_still_has_no_rate(
    tmp_path: Path, age: float, rate: float | None
) -> None:
    plan = plan_photos(write_photos(tmp_path / "in", 8), tmp_path / "out", shard_size=2)
    run_locally(plan, make_generator=make_threshold_generator)
    folder = tmp_path / "out"
    # The shards that were committed last have the lowest numbers.
    for shard_id, seconds in enumerate((0, 20, 90_000, 90_000)):
        (path,) = folder.glob(f"masks/part-{shard_id:06d}-*")
        os.utime(path, (NOW - age - seconds,) * 2)
        plan.run_directory.write_stats(shard_id, {"elapsed_seconds": 10.0})
    status = read_status(plan.run_directory, now=lambda: NOW)
    assert status.images_per_second == (pytest.approx(rate) if rate else None)
    assert status.seconds_left == 0.0
