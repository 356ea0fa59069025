"""Runs a plan on a Ray cluster: hands shards to workers until all are committed or given up.

The driver holds no image and no mask. Killed at any instant it loses nothing: what is committed is
in the output, and what is known about failed attempts lies beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray

from amg_pipeline.attempt_log import AttemptLog
from amg_pipeline.attempts import Failure, FailureReason, ShardTask
from amg_pipeline.distributed.cluster import log_shape, worker_shape
from amg_pipeline.distributed.flights import Flight
from amg_pipeline.distributed.metrics import DriverMetrics
from amg_pipeline.distributed.pool import PooledWorker, WorkerPool, reason_of_loss
from amg_pipeline.distributed.shard_queue import ShardQueue
from amg_pipeline.distributed.worker import AttemptFailed, RowDone, WorkerEvent, WorkerSetup
from amg_pipeline.errors import StorageError
from amg_pipeline.outcome import RunOutcome, RunTally
from amg_pipeline.planning import Plan
from amg_pipeline.records import ShardReport
from amg_pipeline.shard_runner import ImageLoader, MaskGenerator, make_mask_generator
from amg_pipeline.work import Work, find_work

#: The next shard's images load while the last one drains.
_SHARDS_IN_FLIGHT = 2
_POLL_SECONDS = 1.0
#: An error may pass (throttling), given time.
_FIRST_WAIT_SECONDS = 5.0
#: How often the cluster is asked whether it has grown.
_RESIZE_SECONDS = 10.0

#: Called with the number of masks of each image that is done.
OnImage = Callable[[int], None]


def run_distributed(
    plan: Plan,
    *,
    work: Work | None = None,
    on_image: OnImage | None = None,
    make_generator: Callable[[Any], MaskGenerator] | None = None,
    load: ImageLoader | None = None,
) -> RunOutcome:
    """Do what is left of a plan, on the Ray that this process is connected to.

    Args:
        plan: What to do.
        work: What is left of it; found out if not given.
        on_image: Called with the number of masks of each image that is done.
        make_generator: Loads the model in each worker, by default the plan's; pickled.
        load: Reads one image in each worker, `load_image` by default; pickled.

    Raises:
        ConfigError: If the backend cannot be used in the workers.
        WeightsError: If the weights cannot be loaded in the workers.
        StorageError: If the output cannot be read or written.
        AmgPipelineError: If workers fail to come up again and again.
    """
    setup = WorkerSetup(
        output_uri=plan.run_directory.uri,
        plan=plan.stored,
        metadata=plan.table_metadata,
        config=plan.config,
        make_generator=make_generator
        or partial(make_mask_generator, weights_sha256=plan.stored.weights_sha256),
        load=load,
    )
    tally = RunTally(plan)
    work = work or find_work(plan)
    if work.num_shards:
        driver = _Driver(work, WorkerPool(setup, clock=time.monotonic), tally, on_image)
        try:
            driver.run()
        finally:
            driver.close()
    return tally.conclude()


class _Driver:
    def __init__(
        self,
        work: Work,
        pool: WorkerPool,
        tally: RunTally,
        on_image: OnImage | None,
    ) -> None:
        self._plan = work.plan
        self._pool = pool
        self._tally = tally
        self._on_image = on_image
        self._log = AttemptLog(work.plan.run_directory)
        self._metrics = DriverMetrics()
        self._queue = ShardQueue(
            work.shards(),
            total=work.num_shards,
            # What a row is condemned for that is to be done again, is not to be learned from.
            earlier_failures=work.plan.run_directory.read_all_attempts(
                skip=work.done | work.redo.keys()
            ),
            clock=time.monotonic,
            first_wait_seconds=_FIRST_WAIT_SECONDS,
        )
        self._shape = worker_shape(work.plan.config.workers)
        self._resize_at = time.monotonic() + _RESIZE_SECONDS
        # When it was last listened to whatever workers had to tell.
        self._heard_at = time.monotonic()
        log_shape(self._shape)

    def run(self) -> None:
        """Go on until no shard is left."""
        while self._queue or self._flights():
            self._resize()
            self._hand_out()
            self._listen()
            self._end_hung_workers()
            self._pool.end_stuck_starts(as_of=self._heard_at)
            self._metrics.set_queue_depth(len(self._queue))

    def close(self) -> None:
        """End all workers."""
        self._pool.close()
        self._log.close()

    # Workers

    def _resize(self) -> None:
        now = time.monotonic()
        if now >= self._resize_at:
            self._shape = worker_shape(self._plan.config.workers)
            self._resize_at = now + _RESIZE_SECONDS
        self._pool.grow(self._shape, self._wanted)
        self._pool.report_unplaced()

    @property
    def _wanted(self) -> int:
        busy = sum(bool(worker.flights) for worker in self._pool.workers)
        return min(self._shape.count, len(self._queue) + busy)

    def _flights(self) -> list[Flight]:
        return [flight for worker in self._pool.workers for flight in worker.flights]

    def _hand_out(self) -> None:
        """Give every idle worker a shard, then every worker a second one, as far as they reach."""
        ready = [worker for worker in self._pool.workers if worker.is_ready]
        for worker in ready:
            if not worker.flights:
                self._start(self._queue.take(with_suspects=True), worker)
        for worker in ready:
            # A second one only where it keeps no other worker idle in the end.
            if len(worker.flights) == 1 and len(self._queue) >= len(ready):
                (first,) = worker.flights
                # The worker has to have it first, so that it has the model first.
                if first.has_begun and not first.to_try:
                    self._start(self._queue.take(with_suspects=False), worker)
        if not self._queue:
            self._release_idle()

    def _release_idle(self) -> None:
        """Let go of workers that nothing is left for, so that the cluster can shrink."""
        for worker in tuple(self._pool.workers):
            if not worker.flights:
                self._pool.discard(worker)

    def _start(self, task: ShardTask | None, worker: PooledWorker) -> None:
        if task is None:
            return
        if not worker.flights:
            worker.last_sign = time.monotonic()
        flight = Flight(task, worker, to_try=task.suspects())
        worker.flights.append(flight)
        self._call(flight)

    def _call(self, flight: Flight) -> None:
        """Have the flight's next row tried alone, or its shard run if no row is left to try."""
        task, actor = flight.task, flight.worker.actor
        shard = task.shard
        if flight.to_try:
            row = flight.to_try[0]
            flight.pending = actor.try_image.remote(shard.shard_id, row, shard.images[row])
            return
        task.suspect_from = None
        flight.has_begun = False
        flight.pending = actor.run_shard.options(num_returns="streaming").remote(
            shard, task.known, task.is_last_attempt
        )

    # News

    def _listen(self) -> None:
        """Wait for news and take in all there is."""
        flights = {id(flight.pending): flight for flight in self._flights()}
        starting = {id(w.started): w for w in self._pool.workers if not w.is_ready}
        pending = [f.pending for f in flights.values()] + [w.started for w in starting.values()]
        if not pending:
            # Every shard that is left waits for its next attempt.
            time.sleep(_POLL_SECONDS / 10)
            return
        ray.wait(pending, num_returns=1, timeout=_POLL_SECONDS, fetch_local=False)
        self._heard_at = time.monotonic()
        ready, _ = ray.wait(pending, num_returns=len(pending), timeout=0, fetch_local=False)
        for thing in ready:
            if id(thing) in starting:
                self._pool.hear(starting[id(thing)])
            else:
                flight = flights[id(thing)]
                # It may have gone with its worker a moment ago.
                if flight in flight.worker.flights:
                    self._hear(flight)

    def _hear(self, flight: Flight) -> None:
        worker = flight.worker
        try:
            news = (ray.get(flight.pending),) if flight.to_try else ray.get(next(flight.pending))
        except StopIteration:
            news = (AttemptFailed("error", "StopIteration", "the worker fell silent"),)
        except ray.exceptions.RayError as error:
            self._lose(worker, reason_of_loss(error, worker), str(error))
            return
        flight.has_begun = True
        if flight is worker.flights[0]:
            # The others wait for it, or do what goes on beside the model.
            worker.last_sign = time.monotonic()
        for event in news:
            self._take_in(event, flight)

    def _take_in(self, event: WorkerEvent, flight: Flight) -> None:
        if isinstance(event, AttemptFailed):
            self._take_in_failure(event, flight)
        elif isinstance(event, ShardReport):
            flight.worker.flights.remove(flight)
            self._pool.forgive_device_faults(flight.worker)
            self._tally.add_shard(event)
            self._metrics.add_shard("committed")
        elif flight.to_try:
            flight.to_try.pop(0)
            self._call(flight)
        else:
            self._take_in_row(event, flight)

    def _take_in_row(self, row: RowDone, flight: Flight) -> None:
        if flight.task.is_news(flight.rows_done) and self._on_image is not None:
            self._on_image(row.num_masks)
        flight.rows_done += 1

    def _take_in_failure(self, event: AttemptFailed, flight: Flight) -> None:
        if event.is_fatal:
            raise StorageError(event.message)
        if event.reason == "error":
            self._fail(flight, "error", event.error_type, event.message)
            return
        if event.reason == "device":
            self._pool.add_device_fault(flight.worker)
        self._lose(flight.worker, event.reason, event.message, error_type=event.error_type)

    # Failures

    def _end_hung_workers(self) -> None:
        """Do without workers of whose first shard there was no news for too long.

        Silence is counted until the driver last listened: what it did since, however long it took,
        is no silence of theirs.
        """
        config = self._plan.config
        for worker in tuple(self._pool.workers):
            silence = self._heard_at - worker.last_sign
            if not worker.flights or silence <= config.workers.image_timeout_seconds:
                continue
            if silence > worker.flights[0].longest_silence(config):
                self._lose(worker, "timeout", f"there was no news for {silence:.0f} s")

    def _lose(
        self, worker: PooledWorker, reason: FailureReason, message: str, *, error_type: str = ""
    ) -> None:
        """Do without a worker; its shards go back."""
        self._pool.discard(worker)
        for position, flight in enumerate(tuple(worker.flights)):
            # Only the first shard has the model, so only it can hang there.
            is_bystander = position > 0 and reason == "timeout"
            own_reason: FailureReason = "preempted" if is_bystander else reason
            self._fail(flight, own_reason, error_type or "WorkerLost", message)

    def _fail(self, flight: Flight, reason: FailureReason, error_type: str, message: str) -> None:
        flight.worker.flights.remove(flight)
        task = flight.task
        failure = Failure(
            reason=reason,
            error_type=error_type,
            message=message,
            row=flight.to_try[0] if flight.to_try else None,
            rows_done=flight.rows_done,
            node=flight.worker.node,
        )
        self._log.add(task, failure)
        self._tally.add_failed_attempt(reason)
        self._metrics.add_failed_attempt(reason)
        if not task.is_exhausted:
            self._queue.put_back(task, after_error=reason == "error")
            return
        self._tally.give_up(task.shard.shard_id)
        self._metrics.add_shard("given_up")
