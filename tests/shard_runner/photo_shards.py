"""A runner without a model for the shards of `photo_runs`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.planning import Plan
from amg_pipeline.records import ImageResult, Shard
from amg_pipeline.shard_runner import MaskGenerator, ShardRunner
from amg_pipeline.storage.mask_table import decode_table
from tests.photo_runs import threshold_masks

Pixels = NDArray[np.uint8]


def make_runner(
    plan: Plan, *, generate: MaskGenerator = threshold_masks, threads: int = 2, **options: Any
) -> ShardRunner:
    arguments: dict[str, Any] = {
        "directory": plan.run_directory,
        "plan": plan.stored,
        "metadata": plan.table_metadata,
        "generate": generate,
        "images": plan.config.images,
        "decode_threads": threads,
        **options,
    }
    return ShardRunner(**arguments)


def shards_of(plan: Plan) -> list[Shard]:
    return list(plan.run_directory.shards(plan.stored))


def rows_of(plan: Plan, shard_id: int = 0) -> dict[str, ImageResult]:
    rows = decode_table(plan.run_directory.read_shard(plan.stored, shard_id))
    return {row.ref.image_id: row for row in rows}
