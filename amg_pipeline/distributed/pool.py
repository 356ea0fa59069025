"""The workers of a run as Ray actors: asked for, placed, watched, replaced and let go."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from amg_pipeline.attempts import FailureReason
from amg_pipeline.distributed.cluster import WorkerShape, alive_nodes, hosts, is_alive
from amg_pipeline.distributed.worker import ShardWorker, WorkerSetup
from amg_pipeline.errors import AmgPipelineError, ConfigError, WeightsError
from amg_pipeline.telemetry import log_event

_LOGGER = logging.getLogger(__name__)
_UNPLACED_SECONDS = 60.0
#: Weights of gigabytes come from a store in less, and a device is ready in less.
_START_SECONDS = 900.0
#: Until then Ray has found out that a machine which does not answer is lost.
_VERDICT_SECONDS = 120.0
#: Workers that may fail to come up, one after the other.
_MAX_FAILED_STARTS = 3
#: Broken accelerators on one machine, no commit between them, from which on it gets no workers.
_MAX_DEVICE_FAULTS = 3


class MaskWorker(ShardWorker):
    """A worker in an actor, shown by Ray under this name; counts, and knows its machine."""

    def start(self) -> Iterator[str]:
        """Give the machine's id, load the model, and give it again."""
        from amg_pipeline.distributed.metrics import WorkerMetrics

        node = str(ray.get_runtime_context().get_node_id())
        yield node
        self.load_model()
        self.count_with(WorkerMetrics())
        yield node


@dataclass(slots=True)
class PooledWorker:
    """One actor.

    Attributes:
        actor: Its handle.
        started: Tells its machine's id when its process is up, and again when its model is loaded.
        asked_at: When it was asked for, on the pool's clock.
        node: Its machine's id, once its process is up.
        placed_at: When that was known.
        is_ready: Whether it can be given shards.
        last_sign: When there was news of its first shard, or that became the first.
        flights: The shards that it has, the one in its model first; kept by the driver.
        is_reported: Whether it was logged that it is not up.
    """

    actor: Any
    started: Any
    asked_at: float
    node: str | None = None
    placed_at: float = 0.0
    is_ready: bool = False
    last_sign: float = 0.0
    flights: list[Any] = field(default_factory=list)
    is_reported: bool = False


@dataclass(frozen=True, slots=True)
class _SilentStart:
    """A worker that no longer answered before it was up, on a machine that Ray takes for alive."""

    node: str
    since: float
    error: Exception


class WorkerPool:
    """Keeps as many workers as are wanted, replacing those that are lost.

    Args:
        setup: What every worker is told.
        clock: Gives seconds.
    """

    def __init__(self, setup: WorkerSetup, *, clock: Callable[[], float]) -> None:
        self._setup = ray.put(setup)
        self._clock = clock
        self._failed_starts = 0
        self._device_faults: Counter[str] = Counter()
        self._report_at = 0.0
        self._silent: list[_SilentStart] = []
        self.workers: list[PooledWorker] = []

    def grow(self, shape: WorkerShape, count: int) -> None:
        """Ask for workers until there are `count`; those that are not placed yet count too.

        Raises:
            AmgPipelineError: If no worker is up and every machine has broken accelerators.
        """
        while len(self.workers) < count:
            actor = ray.remote(MaskWorker).options(**self._options(shape)).remote(self._setup)
            started = actor.start.options(num_returns="streaming").remote()
            self.workers.append(PooledWorker(actor, started, self._clock()))

    def hear(self, worker: PooledWorker) -> None:
        """Take in what there is to hear of a worker's start.

        Raises:
            ConfigError: If the backend cannot be used there, or the output is not there.
            WeightsError: If the weights cannot be loaded there.
            AmgPipelineError: If workers fail to come up again and again.
        """
        try:
            node = ray.get(next(worker.started))
        except ray.exceptions.RayTaskError as error:
            self.discard(worker)
            if isinstance(error.cause, ConfigError | WeightsError):
                raise error.cause from error
            self._count_failed_start(error)
        except ray.exceptions.RayError as error:
            self.discard(worker)
            self._judge_start(worker, error)
        else:
            if worker.node is None:
                worker.node, worker.placed_at = node, self._clock()
                return
            worker.is_ready = True
            self._failed_starts = 0

    def end_stuck_starts(self, *, as_of: float) -> None:
        """Do without workers that hold a place for long and do not come up, or fell silent.

        Args:
            as_of: When all that there was to hear was heard.

        Raises:
            AmgPipelineError: If workers fail to come up again and again.
        """
        for worker in tuple(self.workers):
            is_starting = worker.node is not None and not worker.is_ready
            if is_starting and as_of - worker.placed_at > _START_SECONDS:
                self.discard(worker)
                self._count_failed_start(TimeoutError(f"not ready after {_START_SECONDS:.0f} s"))
        for silent in tuple(self._silent):
            is_lost = not is_alive(silent.node)
            if is_lost or as_of - silent.since > _VERDICT_SECONDS:
                self._silent.remove(silent)
                if not is_lost:
                    self._count_failed_start(silent.error)

    def discard(self, worker: PooledWorker) -> None:
        """End a worker's process, if it has not ended, and forget it."""
        if worker in self.workers:
            self.workers.remove(worker)
        with suppress(ray.exceptions.RayError):
            ray.kill(worker.actor, no_restart=True)

    def close(self) -> None:
        """End all workers."""
        for worker in tuple(self.workers):
            self.discard(worker)

    def add_device_fault(self, worker: PooledWorker) -> None:
        """Take note that an accelerator of a worker's machine broke."""
        if worker.node is not None:
            self._device_faults[worker.node] += 1

    def forgive_device_faults(self, worker: PooledWorker) -> None:
        """Take note that a worker's machine works; over days, any will have had some faults."""
        if worker.node is not None:
            self._device_faults.pop(worker.node, None)

    def report_unplaced(self) -> None:
        """Log workers that are not up for long: once each, and again while there is no other."""
        now = self._clock()
        late = [
            worker
            for worker in self.workers
            if not worker.is_ready and now - worker.asked_at >= _UNPLACED_SECONDS
        ]
        up = sum(worker.is_ready for worker in self.workers)
        is_new = not all(worker.is_reported for worker in late)
        if not late or not (is_new or (up == 0 and now >= self._report_at)):
            return
        for worker in late:
            worker.is_reported = True
        self._report_at = now + _UNPLACED_SECONDS
        waited = now - min(worker.asked_at for worker in late)
        log_event(
            _LOGGER,
            logging.WARNING,
            f"{len(late)} of {len(self.workers)} workers are not up after {waited:.0f} s; the run "
            + ("goes on with the others" if up else "waits for the first one"),
            machines=len(alive_nodes()),
        )

    def _judge_start(self, worker: PooledWorker, error: ray.exceptions.RayError) -> None:
        """Count a start that failed. A machine that was lost says nothing about the worker."""
        reason = reason_of_loss(error, worker)
        if reason == "node_lost" and worker.node is not None and is_alive(worker.node):
            self._silent.append(_SilentStart(worker.node, self._clock(), error))
        elif reason not in ("node_lost", "preempted"):
            self._count_failed_start(error)
            return
        log_event(_LOGGER, logging.WARNING, f"a worker was gone before it was up: {error}")

    def _count_failed_start(self, error: Exception) -> None:
        self._failed_starts += 1
        log_event(_LOGGER, logging.WARNING, f"a worker did not come up: {error}")
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise AmgPipelineError(
                f"Workers must come up. Received: {self._failed_starts} failures one after the "
                f"other, the last one {type(error).__name__}: {error}"
            ) from error

    def _options(self, shape: WorkerShape) -> dict[str, Any]:
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3"}
        if not shape.gpus:
            # Since Ray 2.60 a worker that asks for no GPU sees all of them.
            environment["CUDA_VISIBLE_DEVICES"] = "-1"
        elif shape.gpus < 1.0:
            environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        options: dict[str, Any] = {
            "num_cpus": shape.cpus,
            "num_gpus": shape.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            # Two shards in flight.
            "max_concurrency": 2,
            "runtime_env": {"env_vars": environment},
        }
        if shape.memory_bytes is not None:
            options["memory"] = shape.memory_bytes
        if broken := self._broken_nodes(shape):
            options["scheduling_strategy"] = NodeLabelSchedulingStrategy(
                hard={"ray.io/node-id": NotIn(*broken)}
            )
        return options

    def _broken_nodes(self, shape: WorkerShape) -> list[str]:
        broken = [n for n, faults in self._device_faults.items() if faults >= _MAX_DEVICE_FAULTS]
        is_any_up = any(worker.is_ready for worker in self.workers)
        if broken and not is_any_up and all(h["NodeID"] in broken for h in hosts(shape.gpus)):
            raise AmgPipelineError(
                "The accelerators of some machine must work. Received: "
                f"{_MAX_DEVICE_FAULTS} faults or more on each, without a shard done in between "
                f"({', '.join(broken)}). The same command resumes on other machines"
            )
        return broken


def reason_of_loss(error: ray.exceptions.RayError, worker: PooledWorker) -> FailureReason:
    """Tell what a lost worker died of, as far as Ray knows."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "out_of_memory"
    if getattr(error, "preempted", False):
        return "preempted"
    # Within a second Ray hears of a process that died. Of a machine that vanished it knows for some
    # seconds only that nothing answers there.
    is_silent = isinstance(error, ray.exceptions.ActorUnavailableError)
    if is_silent or (worker.node is not None and not is_alive(worker.node)):
        return "node_lost"
    return "crash"
