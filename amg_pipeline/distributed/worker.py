"""A worker: one model and the shards that it is given. A plain class; `pool` makes it an actor.

Nothing large leaves it: images come from storage, masks go to storage, and the driver hears of rows
by a few numbers each.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from amg_pipeline.attempts import FailureReason
from amg_pipeline.config import RunConfig
from amg_pipeline.distributed.memory_guard import MemoryGuard
from amg_pipeline.errors import ConfigError, ShardError, StorageError, TransientStorageError
from amg_pipeline.records import ImageRef, ImageResult, Shard, ShardReport
from amg_pipeline.shard_runner import ImageLoader, MaskGenerator, ShardRunner, is_device_fault
from amg_pipeline.storage.connections import configure_stores
from amg_pipeline.storage.mask_table import TableMetadata
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan
from amg_pipeline.storage.uris import redact
from amg_pipeline.telemetry import configure_logging

if TYPE_CHECKING:
    from amg_pipeline.distributed.metrics import WorkerMetrics

_POLL_SECONDS = 0.05
#: Each message costs the driver time, which all workers share. Rows that were not told of are tried
#: again if the process dies, so this is also how much work a crash may repeat.
_TELL_SECONDS = 1.0
#: How long a process with too much memory lives on, for its last words to arrive.
_LAST_WORDS_SECONDS = 0.5
_FATAL_EXIT_CODE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """What a worker needs to know; travels to it once.

    Attributes:
        output_uri: The output.
        plan: The output's plan.
        metadata: What each table's footer says.
        config: All settings.
        make_generator: Loads the model.
        load: Reads one image; `load_image` by default.
    """

    output_uri: str
    plan: StoredPlan
    metadata: TableMetadata
    config: RunConfig
    make_generator: Callable[[RunConfig], MaskGenerator]
    load: ImageLoader | None = None


@dataclass(frozen=True, slots=True)
class RowDone:
    """A row is finished: its status, `error` if it has none yet, and how many masks it has."""

    status: str
    num_masks: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt ended without a commit.

    Attributes:
        reason: What kind of failure it was.
        error_type: Class of the error.
        message: What happened.
        is_fatal: Whether no other shard would fare better.
    """

    reason: FailureReason
    error_type: str
    message: str
    is_fatal: bool = False


#: What a running shard tells; the last is a report or a failure.
WorkerEvent = RowDone | ShardReport | AttemptFailed

_TOO_MUCH_MEMORY = AttemptFailed(
    "out_of_memory", "MemoryError", "the worker holds more than workers.memory_limit_bytes"
)


class ShardWorker:
    """Holds one model and runs shards with it; a second shard may be given while one runs.

    Args:
        setup: What to run.
        end_process: Ends this process with a code at once.
    """

    def __init__(
        self, setup: WorkerSetup, *, end_process: Callable[[int], object] = os._exit
    ) -> None:
        self._setup = setup
        self._end_process = end_process
        self._runner: ShardRunner | None = None
        self._guard: MemoryGuard | None = None
        self._metrics: WorkerMetrics | None = None
        self._threads = ThreadPoolExecutor(thread_name_prefix="shard")
        # Rows that were tried alone, of the one shard that they were tried of.
        self._tried: tuple[int, dict[int, ImageResult]] = (-1, {})
        self._last_shard_ended = 0.0

    def load_model(self) -> None:
        """Make the model, once.

        Raises:
            ConfigError: If the backend cannot be used in this process, the model alone needs more
                memory than the limit, or the output is another one here than the driver's.
            WeightsError: If the weights cannot be loaded.
        """
        setup = self._setup
        configure_logging()
        configure_stores(setup.config.storage)
        directory = RunDirectory.open(setup.output_uri)
        _require_same_output(directory, setup.plan)
        self._runner = ShardRunner(
            directory=directory,
            plan=setup.plan,
            metadata=setup.metadata,
            generate=setup.make_generator(setup.config),
            images=setup.config.images,
            decode_threads=setup.config.workers.decode_threads,
            load=setup.load,
        )
        limit = setup.config.workers.memory_limit_bytes
        if limit is not None:
            self._guard = MemoryGuard(limit)
            self._guard.refuse_start()
        self._last_shard_ended = time.perf_counter()

    def count_with(self, metrics: WorkerMetrics) -> None:
        """Count rows and shards from now on."""
        self._metrics = metrics

    def run_shard(
        self, shard: Shard, known: Mapping[int, ImageResult], is_last_attempt: bool
    ) -> Iterator[tuple[WorkerEvent, ...]]:
        """Run a shard and commit it; tell of its rows meanwhile.

        Args:
            shard: What to do.
            known: Rows of images that are not to be touched, by number.
            is_last_attempt: Whether faults that may pass become rows.

        Yields:
            What happened since the last time; nothing at first, which says that the shard is here.
            The very last event says how the shard ended.
        """
        tried_shard, tried = self._tried
        rows = {**(tried if tried_shard == shard.shard_id else {}), **known}
        self._tried = (-1, {})
        events: SimpleQueue[WorkerEvent] = SimpleQueue()
        self._threads.submit(self._run_shard, shard, rows, is_last_attempt, events.put)
        yield ()
        untold: list[WorkerEvent] = []
        tell_at = 0.0
        while True:
            untold += _take_all(events)
            is_over = bool(untold) and not isinstance(untold[-1], RowDone)
            if self._is_out_of_memory():
                # What took the memory may be a row of this moment, so they all stay suspects.
                untold = [*untold, _TOO_MUCH_MEMORY] if is_over else [_TOO_MUCH_MEMORY]
                is_over = True
            if is_over or (untold and time.monotonic() >= tell_at):
                yield tuple(untold)
                if is_over:
                    return
                untold, tell_at = [], time.monotonic() + _TELL_SECONDS

    def try_image(self, shard_id: int, row: int, ref: ImageRef) -> RowDone | AttemptFailed:
        """Find out whether an image leaves its worker alive, while nothing else runs here.

        Its row is kept for its shard. An error that may pass leaves it without one: the run of the
        shard tries it again, and knows whether that is the last attempt.

        Args:
            shard_id: The image's shard, which is to be run here next.
            row: The image's number in the shard.
            ref: The image.

        Returns:
            How the image fared, or why this worker is lost.
        """
        if self._tried[0] != shard_id:
            self._tried = (shard_id, {})
        future = self._threads.submit(self._require_runner().run_image, ref)
        is_done = False
        while not is_done:
            is_done = bool(wait((future,), timeout=_POLL_SECONDS).done)
            if self._is_out_of_memory():
                return _TOO_MUCH_MEMORY
        error = future.exception()
        if error is not None:
            failure = _attempt_failed(error)
            is_alive = failure.reason == "error" and not failure.is_fatal
            return RowDone(failure.reason, 0) if is_alive else failure
        result = future.result()
        self._tried[1][row] = result
        return RowDone(result.status, len(result.masks))

    def _run_shard(
        self,
        shard: Shard,
        known: Mapping[int, ImageResult],
        is_last_attempt: bool,
        tell: Callable[[WorkerEvent], None],
    ) -> None:
        rows: list[RowDone] = []

        def on_image(result: ImageResult) -> None:
            rows.append(RowDone(result.status, len(result.masks)))
            tell(rows[-1])

        try:
            report = self._require_runner().run(
                shard, known=known, is_last_attempt=is_last_attempt, on_image=on_image
            )
        except BaseException as error:  # noqa: BLE001  # the shard boundary, and the thread's end
            tell(_attempt_failed(error))
            return
        now = time.perf_counter()
        if self._metrics is not None:
            redone = shard.redo if report.kept else None
            new = [row for i, row in enumerate(rows) if redone is None or i in redone]
            self._metrics.add_shard(report, new, seconds=now - self._last_shard_ended)
        self._last_shard_ended = now
        tell(report)

    def _require_runner(self) -> ShardRunner:
        if self._runner is None:
            raise ShardError("A worker must load its model first. Received: a shard")
        return self._runner

    def _is_out_of_memory(self) -> bool:
        if self._guard is None or not self._guard.exceeded.is_set():
            return False
        # What the image allocates cannot be stopped from here.
        threading.Timer(_LAST_WORDS_SECONDS, self._end_process, (_FATAL_EXIT_CODE,)).start()
        return True


def _require_same_output(directory: RunDirectory, plan: StoredPlan) -> None:
    found = directory.read_plan()
    if found is None or found.fingerprint != plan.fingerprint:
        raise ConfigError(
            "OUTPUT must be one and the same place on every machine of the cluster. Received: "
            f"{redact(directory.uri)}, which on a worker's machine holds "
            f"{'no plan' if found is None else 'the plan of another run'}. Use an object store, "
            "or a folder that all machines share"
        )


def _take_all(events: SimpleQueue[WorkerEvent]) -> list[WorkerEvent]:
    """Wait a moment for events and take what is there."""
    taken: list[WorkerEvent] = []
    with suppress(Empty):
        taken.append(events.get(timeout=_POLL_SECONDS))
        while True:
            taken.append(events.get_nowait())
    return taken


def _attempt_failed(error: BaseException) -> AttemptFailed:
    kind = type(error).__name__
    if not isinstance(error, Exception):
        # What calls for the process's end, as `sys.exit` does, is found like what causes it.
        return AttemptFailed("crash", kind, str(error))
    if is_device_fault(error):
        return AttemptFailed("device", kind, str(error))
    is_fatal = isinstance(error, StorageError) and not isinstance(error, TransientStorageError)
    if not isinstance(error, ShardError | StorageError):
        logging.getLogger(__name__).warning("an attempt at a shard failed", exc_info=error)
    return AttemptFailed("error", kind, str(error), is_fatal=is_fatal)
