"""One worker in this process, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amg_pipeline.config import RunConfig
from amg_pipeline.distributed.worker import (
    AttemptFailed,
    ShardWorker,
    WorkerEvent,
    WorkerSetup,
)
from amg_pipeline.planning import Plan
from amg_pipeline.records import ImageResult, Shard
from amg_pipeline.shard_runner import MaskGenerator
from tests.photo_runs import (
    make_threshold_generator,
)

Pixels = NDArray[np.uint8]


def setup_of(
    plan: Plan,
    *,
    make_generator: Callable[[RunConfig], MaskGenerator] = make_threshold_generator,
    load: Any = None,
) -> WorkerSetup:
    return WorkerSetup(
        output_uri=plan.run_directory.uri,
        plan=plan.stored,
        metadata=plan.table_metadata,
        config=plan.config,
        make_generator=make_generator,
        load=load,
    )


def loaded_worker(plan: Plan, *, end_process: Any = None, **options: Any) -> ShardWorker:
    worker = ShardWorker(
        setup_of(plan, **options), end_process=end_process or (lambda code: pytest.fail("ended"))
    )
    worker.load_model()
    return worker


def generates(masks: MaskGenerator) -> Any:
    return lambda config: masks


def shard_of(plan: Plan, number: int = 0) -> Shard:
    return list(plan.run_directory.shards(plan.stored))[number]


def run(
    worker: ShardWorker,
    shard: Shard,
    known: Mapping[int, ImageResult] | None = None,
    *,
    is_last_attempt: bool = False,
) -> list[WorkerEvent]:
    return [
        event for news in worker.run_shard(shard, known or {}, is_last_attempt) for event in news
    ]


def failure_of(events: list[WorkerEvent]) -> AttemptFailed:
    assert isinstance(events[-1], AttemptFailed)
    return events[-1]
