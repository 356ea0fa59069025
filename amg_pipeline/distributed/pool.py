"""The workers of a run as Ray actors: asked for, placed, watched, replaced and let go."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from amg_pipeline.distributed.cluster import WorkerShape, alive_nodes
from amg_pipeline.distributed.worker import ShardWorker, WorkerSetup
from amg_pipeline.errors import AmgPipelineError, ConfigError, WeightsError
from amg_pipeline.telemetry import log_event

_LOGGER = logging.getLogger(__name__)
_UNPLACED_SECONDS = 60.0
#: How Ray says that a worker went with its machine.
_NODE_DIED = "its node has died"
#: Workers that may fail to come up, one after the other.
_MAX_FAILED_STARTS = 3
#: Broken accelerators on one machine from which on it gets no more workers.
_MAX_DEVICE_FAULTS = 3


class MaskWorker(ShardWorker):
    """A worker in an actor, shown by Ray under this name; counts, and knows its machine."""

    def start(self) -> str:
        """Load the model and give the machine's id."""
        from amg_pipeline.distributed.metrics import WorkerMetrics

        self.load_model()
        self.count_with(WorkerMetrics())
        return str(ray.get_runtime_context().get_node_id())


@dataclass(slots=True)
class PooledWorker:
    """One actor.

    Attributes:
        actor: Its handle.
        started: Resolves to its machine's id when its model is loaded.
        asked_at: When it was asked for, on the pool's clock.
        node: Its machine's id, once it is ready.
        last_sign: When it was last heard of, or given something to do when idle.
        flights: The shards that it has, the one in its model first; kept by the driver.
    """

    actor: Any
    started: Any
    asked_at: float
    node: str | None = None
    last_sign: float = 0.0
    flights: list[Any] = field(default_factory=list)
    is_reported: bool = field(default=False)

    @property
    def is_ready(self) -> bool:
        """Whether it can be given shards."""
        return self.node is not None


class WorkerPool:
    """Keeps as many workers as are wanted, replacing those that are lost.

    Args:
        setup: What every worker is told.
        clock: Gives seconds.
    """

    def __init__(self, setup: WorkerSetup, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._setup = ray.put(setup)
        self._clock = clock
        self._failed_starts = 0
        self._device_faults: Counter[str] = Counter()
        self.workers: list[PooledWorker] = []

    def grow(self, shape: WorkerShape, count: int) -> None:
        """Ask for workers until there are `count`; those that are not placed yet count too."""
        while len(self.workers) < count:
            actor = ray.remote(MaskWorker).options(**self._options(shape)).remote(self._setup)
            self.workers.append(PooledWorker(actor, actor.start.remote(), self._clock()))

    def welcome(self, worker: PooledWorker) -> bool:
        """Take note that a worker's start has an outcome; tell whether it can be used.

        Raises:
            ConfigError: If the backend cannot be used there.
            WeightsError: If the weights cannot be loaded there.
            AmgPipelineError: If workers fail to come up again and again.
        """
        try:
            worker.node = ray.get(worker.started)
        except ray.exceptions.RayTaskError as error:
            self.discard(worker)
            if isinstance(error.cause, ConfigError | WeightsError):
                raise error.cause from error
            self._count_failed_start(error)
            return False
        except ray.exceptions.RayError as error:
            self.discard(worker)
            # A machine that was lost says nothing about the worker.
            if not getattr(error, "preempted", False) and _NODE_DIED not in str(error):
                self._count_failed_start(error)
            return False
        self._failed_starts = 0
        return True

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

    def add_device_fault(self, node: str) -> None:
        """Take note that an accelerator of a machine broke."""
        self._device_faults[node] += 1

    def report_unplaced(self) -> None:
        """Log, once each, the workers that wait for a place for long."""
        now = self._clock()
        for worker in self.workers:
            waited = now - worker.asked_at
            if worker.is_ready or worker.is_reported or waited < _UNPLACED_SECONDS:
                continue
            worker.is_reported = True
            log_event(
                _LOGGER,
                logging.WARNING,
                f"a worker is not up after {waited:.0f} s; the run goes on with the others",
                up=sum(other.is_ready for other in self.workers),
                machines=len(alive_nodes()),
            )

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
        broken = [n for n, faults in self._device_faults.items() if faults >= _MAX_DEVICE_FAULTS]
        if broken:
            options["scheduling_strategy"] = NodeLabelSchedulingStrategy(
                hard={"ray.io/node-id": NotIn(*broken)}
            )
        return options
