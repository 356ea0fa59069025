"""A shard on a worker, and how long there may be no news of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from amg_pipeline.attempts import ShardTask
from amg_pipeline.config import RunConfig
from amg_pipeline.distributed.pool import PooledWorker
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.uris import is_local

#: What a shard may ask of the store, one after the other, when its images are done: to read what is
#: there, to try conditions, to put the shard, and to put its statistics.
_STEPS_OF_A_COMMIT = 4


@dataclass(slots=True, eq=False)
class Flight:
    """A shard on a worker.

    Attributes:
        task: The shard.
        worker: Who has it.
        pending: What Ray will tell of it next: a stream of events, or a tried image's result.
        to_try: Rows that are still to be tried alone, the one being tried first.
        rows_done: Rows of this attempt that are finished.
        has_begun: Whether the worker has said that it has it.
    """

    task: ShardTask
    worker: PooledWorker
    pending: Any = None
    to_try: list[int] = field(default_factory=list)
    rows_done: int = 0
    has_begun: bool = False

    def longest_silence(self, config: RunConfig) -> float:
        """Give the seconds without news after which the worker counts as hung.

        A store that is slow or down is no image that hangs: where images are fetched from one, its
        retries have their time, and so have those of a commit.
        """
        limit = config.workers.image_timeout_seconds
        store = RetryPolicy().timeout_s + config.storage.request_timeout_seconds
        images = self.task.shard.images
        if self.rows_done >= len(images):
            return max(limit, _STEPS_OF_A_COMMIT * store)
        return limit if all(is_local(ref.uri) for ref in images) else max(limit, store)
