"""Records failed attempts beside the result: for people, and for the next run to learn from."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from amg_pipeline.attempts import Failure, ShardTask
from amg_pipeline.errors import StorageError
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.telemetry import log_event

_LOGGER = logging.getLogger(__name__)


class AttemptLog:
    """Logs and stores what attempts ended with.

    A thread does the storing, and a store that fails is only logged: records are of use, but no run
    waits or ends for them.

    Args:
        directory: The output.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="attempts")

    def add(self, task: ShardTask, failure: Failure, *, cause: Exception | None = None) -> None:
        """Let a shard learn from a failed attempt, and record it; also if it was the last one.

        Args:
            task: The shard.
            failure: How the attempt ended.
            cause: An error whose traceback is of use to who reads the log.
        """
        task.learn(failure)
        if failure.reason != "preempted":
            self._record(task, failure, cause)
        if task.is_exhausted:
            self._record(task, Failure(reason="given_up", message="attempts are used up"), None)

    def close(self) -> None:
        """Wait until all is stored."""
        self._thread.shutdown()

    def _record(self, task: ShardTask, failure: Failure, cause: Exception | None) -> None:
        shard = task.shard
        log_event(
            _LOGGER,
            logging.WARNING,
            f"shard {shard.shard_id}: {failure}",
            cause=cause,
            row=failure.row,
            rows_done=failure.rows_done,
        )
        self._thread.submit(self._store, shard.shard_id, failure.to_record(shard))

    def _store(self, shard_id: int, record: dict[str, object]) -> None:
        try:
            self._directory.write_attempt(shard_id, record)
        except StorageError as error:
            log_event(
                _LOGGER, logging.WARNING, f"an attempt at shard {shard_id} is not recorded: {error}"
            )
