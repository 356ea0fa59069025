"""The Ray that a run uses: found or started, and what its machines offer a worker."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from amg_pipeline.config import WorkerSettings
from amg_pipeline.errors import ConfigError
from amg_pipeline.telemetry import log_event

_LOGGER = logging.getLogger(__name__)
#: Only small messages pass through Ray's object store; images and masks never do.
_LOCAL_OBJECT_STORE_BYTES = 100 * 2**20
_CONNECT_SECONDS = 10.0


@contextmanager
def connected(settings: WorkerSettings) -> Iterator[None]:
    """Connect to the run's Ray, or start one on this machine, and leave it in the end.

    The address is `settings.address`, else RAY_ADDRESS, else a new Ray of its own: what an earlier
    one left on this machine is never taken up. A process that is connected already stays so.

    Raises:
        ConfigError: If nothing answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    is_own = address == "local"
    own: dict[str, Any] = {
        "include_dashboard": False,
        "object_store_memory": _LOCAL_OBJECT_STORE_BYTES,
    }
    try:
        _require_listener(address)
        with _sigterm_kept():
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                configure_logging=False,
                **(own if is_own else {}),
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--address (or RAY_ADDRESS) must be a Ray cluster that answers. Received: {address!r}"
            f" ({error}). Leave it out to run on this machine"
        ) from error
    try:
        if is_own and settings.gpus_per_worker and not _offered("GPU"):
            raise ConfigError(
                f"workers.gpus_per_worker must be 0 on a machine without GPUs. Received: "
                f"{settings.gpus_per_worker}"
            )
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Find a dead address in seconds; Ray itself would try it for minutes.

    Raises:
        OSError: If nothing listens there, or there is no such machine.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put back what SIGTERM does to this process: Ray's own way exits with 1."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShape:
    """How many workers there shall be, and what one takes of a machine.

    Attributes:
        count: Workers.
        cpus: Cores of a worker.
        gpus: GPUs of a worker; may be a fraction.
        memory_bytes: Memory of a worker, None if no limit is set.
    """

    count: int
    cpus: float
    gpus: float
    memory_bytes: int | None


def worker_shape(settings: WorkerSettings) -> WorkerShape:
    """Fit workers to what the cluster offers now.

    Without `settings.workers` there is one worker for each share of a GPU, or one where there is
    no GPU. A worker asks for a core per decode thread and one more, less where its machine has
    fewer.
    """
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if _offered("GPU") else 0.0
    count = settings.workers or max(1, _places(gpus))
    return WorkerShape(
        count=count,
        cpus=_cpus_of(settings.decode_threads + 1, count, gpus),
        gpus=gpus,
        memory_bytes=settings.memory_limit_bytes,
    )


def alive_nodes() -> list[dict[str, Any]]:
    """List the machines that Ray sees."""
    return [node for node in ray.nodes() if node["Alive"]]


def _cpus_of(wanted: int, count: int, gpus: float) -> float:
    """Give each worker its share of a machine's cores, at most what it can use."""
    nodes = [node["Resources"] for node in alive_nodes()]
    hosts = [node for node in nodes if node.get("GPU" if gpus else "CPU", 0.0) >= max(gpus, 0.01)]
    if not hosts:
        # An autoscaling cluster without workers as yet.
        return float(wanted)
    shares = []
    for host in hosts:
        per_host = _shares(host["GPU"], gpus) if gpus else -(-count // len(hosts))
        shares.append(host.get("CPU", 0.0) / max(1, min(per_host, count)))
    share = min(float(wanted), *shares)
    # Ray takes fractions below 1 only. Rounded up, the shares would be more than the machine.
    return float(int(share)) if share >= 1.0 else math.floor(share * 100) / 100


def _places(gpus: float) -> int:
    """Count the workers that fit on the GPUs that are there; none spreads over two machines."""
    if not gpus:
        return 0
    return sum(_shares(node["Resources"].get("GPU", 0.0), gpus) for node in alive_nodes())


def _shares(offered: float, gpus: float) -> int:
    # 0.9 / 0.3 is less than 3.
    return math.floor(offered / gpus + 1e-6)


def _offered(resource: str) -> float:
    return float(sum(node["Resources"].get(resource, 0.0) for node in alive_nodes()))


def log_shape(shape: WorkerShape) -> None:
    """Say what is asked of the cluster."""
    log_event(
        _LOGGER,
        logging.INFO,
        f"asking Ray for {shape.count} worker(s)",
        cpus=shape.cpus,
        gpus=shape.gpus,
    )
